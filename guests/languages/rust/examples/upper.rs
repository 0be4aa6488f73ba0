//! Upper-cases ASCII letters and leaves every other byte as it is.

#[link(wasm_import_module = "host")]
unsafe extern "C" {
    fn set_output(bytes: *const u8, len: usize);
}

/// Wess puts the input here. Rust owns its memory, so it is asked for the room.
#[unsafe(no_mangle)]
pub extern "C" fn alloc(len: usize) -> *mut u8 {
    vec![0; len].leak().as_mut_ptr()
}

/// # Safety
/// `input` is what `alloc` gave for `len`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn process(input: *mut u8, len: usize) -> i32 {
    if len > 0 {
        let bytes = unsafe { std::slice::from_raw_parts_mut(input, len) };
        bytes.make_ascii_uppercase();
        unsafe { set_output(bytes.as_ptr(), bytes.len()) };
    }
    0
}
