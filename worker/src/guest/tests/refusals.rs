//! What is refused when it is stored, with what is wrong by name; and that what is accepted is what compiles.

use proptest::prelude::*;

use super::*;

#[test]
fn what_is_not_webassembly_is_said_to_be_what_it_is() {
    for (bytes, word) in [
        (&b""[..], "no bytes at all"),
        (b"hello", "text"),
        ("\n(module (func))".as_bytes(), "WebAssembly text"),
        (b"\x1f\x8b\x08\0", "gzip"),
        (b"\x28\xb5\x2f\xfd", "zstd"),
        (b"PK\x03\x04", "zip"),
        (b"\x7fELF\x02\x01", "native program"),
        (b"\0asn\x01\0\0\0", "text"),
        (b"\xff\xfe\0\0", "without WebAssembly's magic number"),
    ] {
        assert_names(&invalid(bytes), &["not a WebAssembly module", word]);
    }
}

#[test]
fn a_wrong_version_or_a_broken_body_is_invalid() {
    assert_names(&invalid(b"\0asm\x02\0\0\0"), &["not a valid WebAssembly module"]);
    assert_names(&invalid(b"\0asm"), &["not a valid WebAssembly module"]);
    let mistyped = wasm(r#"(module (func (export "f") (result i32) (i64.const 1)))"#);
    assert_names(&invalid(&mistyped), &["type mismatch"]);
}

#[test]
fn a_component_is_unsupported_by_name() {
    assert_names(&unsupported(&wasm("(component)")), &["component"]);
}

#[test]
fn a_module_cut_at_any_length_is_refused_or_is_a_whole_module_of_less() {
    for path in [
        "typed/math.wat",
        "plugin/get_output.wat",
        "hostile/exit_code.wat",
        "hostile/traps.wat",
    ] {
        let whole = wasm_of(path);
        for length in 0..whole.len() {
            if inspect(&whole[..length]).is_ok() {
                COMPILER.compile(&whole[..length], Metering::Off).unwrap();
            }
        }
    }
}

#[test]
fn every_refused_proposal_is_named() {
    for (path, proposal) in [
        ("hostile/atomics.wat", "threads"),
        ("hostile/shared_memory.wat", "threads"),
        ("hostile/memory64.wat", "memory64"),
        ("hostile/many_memories.wat", "multi-memory"),
        ("hostile/exceptions.wat", "exception-handling"),
        ("hostile/gc.wat", "gc"),
    ] {
        assert_names(
            &unsupported(&wasm_of(path)),
            &["needs proposals that are not supported", proposal],
        );
    }
    for (text, proposal) in [
        (
            "(module (type $t (func)) (func (param (ref null $t)) (call_ref $t (local.get 0))))",
            "function-references",
        ),
        ("(module (func (param externref)))", "gc"),
        (
            "(module (func (drop (i64.mul_wide_u (i64.const 1) (i64.const 1))) drop))",
            "wide-arithmetic",
        ),
        ("(module (memory 1 (pagesize 1)))", "custom-page-sizes"),
        (
            "(module (type $f (func)) (type $c (cont $f)) (func (param (ref null $c))))",
            "stack-switching",
        ),
    ] {
        assert_names(&unsupported(&wasm(text)), &[proposal]);
    }
    let several = "(module (memory i64 1) (memory 1) (func (throw 0)) (tag))";
    assert_names(
        &unsupported(&wasm(several)),
        &["not supported (memory64, multi-memory, exception-handling): "],
    );
}

#[test]
fn every_import_that_we_do_not_give_is_named() {
    for (path, import) in [
        ("hostile/unknown_import.wat", "env.launch_missiles"),
        ("hostile/thread_spawn.wat", "wasi.thread-spawn"),
        ("hostile/imported_memory.wat", "env.memory"),
        ("hostile/wrong_import_type.wat", "host.log"),
    ] {
        assert_names(&unsupported(&wasm_of(path)), &["imports", import]);
    }
    for (import, name) in [
        (
            r#"(import "wasi_snapshot_preview1" "fd_open" (func))"#,
            "wasi_snapshot_preview1.fd_open",
        ),
        (
            r#"(import "wasi_unstable" "fd_read" (func))"#,
            "wasi_unstable.fd_read",
        ),
        (r#"(import "host" "exec" (func))"#, "host.exec"),
        (
            r#"(import "host" "log" (global i32))"#,
            "host.log, which is not a function",
        ),
        (
            r#"(import "host" "log" (table 1 funcref))"#,
            "host.log, which is not a function",
        ),
        (
            r#"(import "host" "get_state" (func (param i32 i32)))"#,
            "host.get_state, but by another signature",
        ),
    ] {
        let module = wasm(&format!(r#"(module {import} (func (export "f")))"#));
        assert_names(&unsupported(&module), &["imports", name]);
    }
}

#[test]
fn an_import_of_wasi_by_another_signature_is_refused_when_it_is_compiled() {
    let module = wasm(
        r#"(module (import "wasi_snapshot_preview1" "fd_close" (func (param i64) (result i32))) (func (export "f")))"#,
    );
    let refused = COMPILER.compile(&module, Metering::Off).unwrap_err();
    assert_names(&refused.to_string(), &["wasi_snapshot_preview1", "fd_close"]);
}

#[test]
fn every_import_that_we_give_is_accepted_as_it_is() {
    for import in abi::plugin::IMPORTS {
        let signature = match import.name {
            "get_state" | "read_state" => "(param i32 i32) (result i32)",
            "set_state" => "(param i32 i32 i32 i32)",
            "publish" => "(param i32 i32 i32 i32) (result i32)",
            _ => "(param i32 i32)",
        };
        let text = format!(
            r#"(module (import "host" "{}" (func {signature})) (func (export "f")))"#,
            import.name
        );
        inspect(&wasm(&text)).unwrap();
        COMPILER.compile(&wasm(&text), Metering::Off).unwrap();
    }
}

#[test]
fn a_name_of_the_module_s_choosing_is_cut_and_escaped_in_what_we_say() {
    let name = format!("\\n{}", "x".repeat(50_000));
    let text = unsupported(&wasm(&format!(r#"(module (import "env" "{name}" (func)))"#)));
    assert!(
        text.len() < 500 && text.contains("env.\\nxxx") && !text.contains('\n'),
        "{text}"
    );
    let twice = r#"(module (func) (export "NAME" (func 0)) (export "NAME" (func 0)))"#.replace("NAME", &name);
    assert!(invalid(&wasm(&twice)).len() < 500);
}

#[test]
fn a_module_without_a_callable_function_is_refused() {
    assert_names(
        &unsupported(&wasm_of("hostile/no_exports.wat")),
        &["exports no function"],
    );
    let only_init = wasm(r#"(module (func (export "_initialize")))"#);
    assert_names(&unsupported(&only_init), &["exports no function"]);
}

#[test]
fn exports_have_bounds_in_number_and_in_their_names() {
    assert_names(
        &unsupported(&wasm_of("hostile/odd_names.wat")),
        &["empty, too long or unprintable"],
    );
    let exporting = |names: &[String]| {
        let exports: String = names
            .iter()
            .map(|name| format!("(export \"{name}\" (func 0))"))
            .collect();
        wasm(&format!("(module (func) {exports})"))
    };
    let numbered = |count: usize| (0..count).map(|at| format!("f{at}")).collect::<Vec<_>>();
    assert_eq!(inspect(&exporting(&numbered(1000))).unwrap().exports.len(), 1000);
    assert_names(
        &unsupported(&exporting(&numbered(1001))),
        &["more than 1000 functions"],
    );
    inspect(&exporting(&["n".repeat(256)])).unwrap();
    assert_names(&unsupported(&exporting(&["n".repeat(257)])), &["too long"]);
}

#[test]
fn a_start_with_parameters_or_results_is_no_command() {
    for signature in ["(param i32)", "(result i32) (i32.const 0)"] {
        let module = wasm(&format!(r#"(module (func (export "_start") {signature}))"#));
        assert_names(&unsupported(&module), &["_start"]);
    }
}

#[test]
fn the_abi_is_found_by_what_is_exported() {
    use wess_schemas::module::Abi;
    let memory = r#"(memory (export "memory") 1)"#;
    let process = |signature: &str| format!(r#"(func (export "process") {signature} (i32.const 0))"#);
    for (parts, abi) in [
        (r#"(func (export "_start"))"#.to_owned(), Abi::Command),
        (
            format!("{memory} {}", process("(param i32 i32) (result i32)")),
            Abi::Plugin,
        ),
        (
            format!("{memory} {}", process("(param i32 i32 i32 i32) (result i32)")),
            Abi::Plugin,
        ),
        (process("(param i32 i32) (result i32)"), Abi::Typed),
        (
            format!("{memory} {}", process("(param i32 i32 i32) (result i32)")),
            Abi::Typed,
        ),
        (
            format!("{memory} {}", process("(param i32 i64) (result i32)")),
            Abi::Typed,
        ),
    ] {
        assert_eq!(
            inspect(&wasm(&format!("(module {parts})"))).unwrap().abi,
            abi,
            "{parts}"
        );
    }
}

#[test]
fn memories_and_tables_that_start_too_large_or_are_too_many_are_refused() {
    assert_names(
        &unsupported(&wasm_of("hostile/huge_memory.wat")),
        &["65536 pages", "8192 is the most"],
    );
    assert_names(
        &unsupported(&wasm_of("hostile/huge_table.wat")),
        &["100000000 elements"],
    );
    let tables = |count: usize, elements: usize| {
        wasm(&format!(
            "(module {} (func (export \"f\")))",
            format!("(table {elements} funcref)").repeat(count)
        ))
    };
    assert_names(&unsupported(&tables(5, 1)), &["more than 4 tables"]);
    assert_names(&unsupported(&tables(1, 100_001)), &["100001 elements"]);
    let most = wasm(&format!(
        "(module (memory 8192) {} (func (export \"f\")))",
        "(table 100000 funcref)".repeat(4)
    ));
    inspect(&most).unwrap();
    COMPILER.compile(&most, Metering::Off).unwrap();
}

#[test]
fn more_globals_than_an_instance_holds_are_refused_when_compiled() {
    let globals = "(global i64 (i64.const 0))".repeat(70_000);
    let module = wasm(&format!("(module {globals} (func (export \"f\")))"));
    let refused = COMPILER.compile(&module, Metering::Off).unwrap_err();
    assert_names(&refused.to_string(), &["cannot be compiled", "1048576"]);
}

/// Modules that use one proposal each, accepted or not.
const PROPOSALS: &[(&str, bool)] = &[
    ("(func)", true),
    ("(global (export \"g\") (mut i32) (i32.const 0))", true),
    ("(func (result i32) (i32.extend8_s (i32.const 0)))", true),
    ("(func (result i32) (i32.trunc_sat_f32_s (f32.const 0)))", true),
    (
        "(memory 1) (func (memory.fill (i32.const 0) (i32.const 0) (i32.const 0)))",
        true,
    ),
    ("(func (result i32 i32) (i32.const 0) (i32.const 0))", true),
    (
        "(table 1 funcref) (func (drop (table.get 0 (i32.const 0))))",
        true,
    ),
    ("(func (param funcref))", true),
    ("(func (result v128) (v128.const i64x2 0 0))", true),
    (
        "(func (param v128) (result v128) (i8x16.relaxed_swizzle (local.get 0) (local.get 0)))",
        true,
    ),
    ("(func $f (return_call $f))", true),
    ("(global i32 (i32.add (i32.const 1) (i32.const 1)))", true),
    ("(func (param externref))", false),
    ("(table 1 externref)", false),
    (
        "(type $t (func)) (func (param (ref null $t)) (call_ref $t (local.get 0)))",
        false,
    ),
    ("(type $t (struct)) (func (param (ref null $t)))", false),
    ("(func (param i31ref))", false),
    ("(tag) (func (throw 0))", false),
    ("(func try catch_all end)", false),
    ("(memory 1 1 shared)", false),
    ("(memory 1) (func (drop (i32.atomic.load (i32.const 0))))", false),
    ("(memory i64 1)", false),
    ("(table i64 1 funcref)", false),
    ("(memory 1) (memory 1)", false),
    ("(memory 1 (pagesize 1))", false),
    (
        "(func (result i64 i64) (i64.mul_wide_u (i64.const 1) (i64.const 1)))",
        false,
    ),
    (
        "(type $f (func)) (type $c (cont $f)) (func (param (ref null $c)))",
        false,
    ),
];

#[test]
fn what_is_accepted_is_exactly_what_the_compiler_takes() {
    for (parts, accepted) in PROPOSALS {
        let module = wasm(&format!("(module {parts} (func (export \"f\")))"));
        assert_eq!(inspect(&module).is_ok(), *accepted, "inspected: {parts}");
        for metering in [Metering::Off, Metering::Fuel] {
            assert_eq!(
                COMPILER.compile(&module, metering).is_ok(),
                *accepted,
                "compiled: {parts}"
            );
        }
    }
}

#[test]
fn every_guest_that_is_accepted_compiles() {
    for folder in ["typed", "plugin", "hostile"] {
        let guests = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("../guests")
            .join(folder);
        for entry in std::fs::read_dir(guests).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_none_or(|extension| extension != "wat") {
                continue;
            }
            let module = wat::parse_file(&path).unwrap();
            if inspect(&module).is_ok() {
                COMPILER.compile(&module, Metering::Off).unwrap();
            }
        }
    }
}

proptest! {
    #[test]
    fn no_bytes_make_inspection_panic(bytes in prop::collection::vec(any::<u8>(), 0..500)) {
        let mut module = b"\0asm\x01\0\0\0".to_vec();
        module.extend(&bytes);
        prop_assert!(inspect(&module).is_err() || COMPILER.compile(&module, Metering::Off).is_ok());
        prop_assert!(inspect(&bytes).is_err());
    }

    #[test]
    fn no_flipped_byte_makes_inspection_or_the_compiler_panic(at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let mut module = wasm_of("hostile/exit_code.wat");
        let at = at.index(module.len());
        module[at] = byte;
        if inspect(&module).is_ok() {
            // A signature of WASI's is checked by the compiler, so it may still refuse.
            let _ = COMPILER.compile(&module, Metering::Off);
        }
    }
}
