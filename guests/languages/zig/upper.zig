//! Upper-cases ASCII letters and leaves every other byte as it is.
extern "host" fn set_output(bytes: [*]const u8, len: usize) void;

export fn process(input: [*]u8, len: usize) i32 {
    for (input[0..len]) |*byte| {
        if (byte.* >= 'a' and byte.* <= 'z') byte.* -= 'a' - 'A';
    }
    set_output(input, len);
    return 0;
}
