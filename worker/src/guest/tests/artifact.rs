//! Compiled files: what they are named by, what loads them and what does not.

use std::io::Seek;
use std::process::Command;

use wasmtime::Engine;

use super::*;
use crate::guest::engine::Footprint;

#[test]
fn a_compatibility_is_sixteen_hex_digits_and_another_for_fuel() {
    let [plain, fuel] = [Metering::Off, Metering::Fuel].map(|metering| COMPILER.compatibility(metering));
    for name in [&plain, &fuel] {
        assert!(
            name.len() == 16 && name.chars().all(|c| matches!(c, '0'..='9' | 'a'..='f')),
            "{name}"
        );
    }
    assert_ne!(plain, fuel);
    eprintln!("compatibility {plain} {fuel}");
}

#[test]
fn a_compatibility_is_the_same_in_every_process() {
    let test = "guest::tests::artifact::a_compatibility_is_sixteen_hex_digits_and_another_for_fuel";
    let other = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .output()
        .unwrap();
    let said = String::from_utf8(other.stderr).unwrap();
    let [plain, fuel] = [Metering::Off, Metering::Fuel].map(|metering| COMPILER.compatibility(metering));
    assert!(said.contains(&format!("compatibility {plain} {fuel}")), "{said}");
}

#[tokio::test]
async fn a_file_is_loaded_from_its_beginning_wherever_it_is_positioned() {
    let mut file = artifact(&wasm_of("typed/add.wat"), Metering::Off);
    let end = file.stream_position().unwrap();
    assert!(end > 0);
    let engines = engines();
    let mut guest = Guest::file("typed/add.wat");
    for position in [0, end / 2, end] {
        file.seek(std::io::SeekFrom::Start(position)).unwrap();
        guest.prepared = Prepared::load(&engines, Metering::Off, &file).unwrap();
        assert_eq!(guest.results(args(json!([2, 3]))).await, json!([5]));
    }
}

#[tokio::test]
async fn one_file_serves_several_executors_at_once() {
    let file = artifact(&wasm_of("typed/add.wat"), Metering::Off);
    let mut guest = Guest::file("typed/add.wat");
    let executors = [engines(), engines(), engines()];
    for engines in &executors {
        guest.prepared = Prepared::load(engines, Metering::Off, &file).unwrap();
        assert_eq!(guest.results(args(json!([2, 3]))).await, json!([5]));
    }
}

#[tokio::test]
async fn a_loaded_module_outlives_its_file_and_its_executor_s_engines() {
    let mut guest = Guest::file("typed/add.wat");
    guest.prepared = {
        let (engines, file) = (engines(), artifact(&wasm_of("typed/add.wat"), Metering::Off));
        Prepared::load(&engines, Metering::Off, &file).unwrap()
    };
    assert_eq!(guest.results(args(json!([2, 3]))).await, json!([5]));
}

/// As many functions as are asked for, one of which adds, and memory of so many pages.
fn adds_beside(functions: usize, pages: usize) -> Vec<u8> {
    let add = "(param i32 i32) (result i32) (i32.add (local.get 0) (local.get 1))";
    let others = format!("(func {add})").repeat(functions);
    wat::parse_str(format!(
        r#"(module (memory {pages}) (func (export "add") {add}) {others})"#
    ))
    .unwrap()
}

#[tokio::test]
async fn a_module_runs_in_the_engine_for_its_pages_however_much_code_it_has() {
    let engines = engines();
    for (functions, pages, footprint) in [
        (1, 1, Footprint::Page),
        (1, 2, Footprint::Pages),
        (3000, 1, Footprint::Page),
        (3000, 2, Footprint::Pages),
    ] {
        let wasm = adds_beside(functions, pages);
        let file = artifact(&wasm, Metering::Off);
        let guess = Footprint::guess(file.metadata().unwrap().len());
        assert_eq!(guess == Footprint::Pages, functions > 1);
        let mut guest = Guest::new(&wasm);
        guest.prepared = Prepared::load(&engines, Metering::Off, &file).unwrap();
        let wanted = &engines.get(Metering::Off, footprint).unwrap().engine;
        assert!(Engine::same(guest.prepared.engine(), wanted));
        assert_eq!(guest.results(args(json!([2, 3]))).await, json!([5]));
    }
}

#[test]
fn what_was_compiled_for_the_other_metering_or_is_no_artifact_does_not_load() {
    let engines = engines();
    let module = wasm_of("typed/add.wat");
    for (made, asked) in [(Metering::Off, Metering::Fuel), (Metering::Fuel, Metering::Off)] {
        assert!(Prepared::load(&engines, asked, &artifact(&module, made)).is_err());
    }
    for bytes in [&b""[..], b"not an artifact", &module] {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        let Err(error) = Prepared::load(&engines, Metering::Off, &file) else {
            panic!("{bytes:?} was loaded")
        };
        assert!(error.to_string().starts_with("WebAssembly engine: "), "{error}");
    }
}

#[test]
fn what_is_no_module_does_not_compile() {
    assert!(matches!(
        COMPILER.compile(b"hello", Metering::Off),
        Err(ModuleRefused::Unsupported(_))
    ));
}
