//! Modules by chance, for whoever compares what runs them.
//!
//! A dependency of this crate and of no test, so that Wasmtime is built with the same features for both.

use arbitrary::Unstructured;
use chacha20::rand_core::Rng;
use wasm_smith::{Config, InstructionKind, InstructionKinds, Module};

/// Bytes that one module is made of.
const RAW_BYTES: usize = 16 << 10;
/// Loops and calls that a generated module does before it stops itself with `unreachable`.
const STEPS: u32 = 1000;
/// A module that exports what `shape` does, which ends by itself, of any instructions but those whose results are the
/// processor's choice.
pub fn generated(shape: &[u8], random: &mut impl Rng) -> Vec<u8> {
    let mut config = Config {
        exports: Some(shape.to_vec()),
        max_imports: 0,
        max_memory32_bytes: 16 << 16,
        memory_max_size_required: true,
        max_table_elements: 1000,
        table_max_size_required: true,
        max_tables: 4,
        // Else payloads become integers, and show. Those of vectors still may.
        canonicalize_nans: true,
        exceptions_enabled: false,
        gc_enabled: false,
        memory64_enabled: false,
        // What its instructions give is the processor's choice there, and ours here.
        relaxed_simd_enabled: false,
        threads_enabled: false,
        ..Config::default()
    };
    loop {
        // With these it writes types of garbage-collected things too, which we refuse.
        config.reference_types_enabled = random.next_u32().is_multiple_of(4);
        // Most that may trap do so at once.
        config.disallow_traps = !random.next_u32().is_multiple_of(4);
        // Nearly all that may loop and call do so without end.
        config.allowed_instructions = match random.next_u32().is_multiple_of(2) {
            true => InstructionKinds::all(),
            false => straight(),
        };
        config.allow_start_export = random.next_u32().is_multiple_of(4);
        let mut raw = vec![0; RAW_BYTES];
        random.fill_bytes(&mut raw);
        let mut raw = Unstructured::new(&raw);
        if let Ok(mut module) = Module::new(config.clone(), &mut raw)
            && module.ensure_termination(STEPS).is_ok()
        {
            return module.to_bytes();
        }
    }
}

/// What goes neither back nor elsewhere.
fn straight() -> InstructionKinds {
    use InstructionKind::*;
    InstructionKinds::new(&[Numeric, Vector, Reference, Parametric, Variable, Table, Memory])
}
