//! Typed calls against Wasmtime's own command line: generated modules give the same numbers and the same traps in both,
//! whatever they are compiled for here, with fuel and a deadline on. In results all NaNs are one.
//!
//! `WESS_SEED` repeats a corpus, `WESS_MODULES` says how many modules it has.

use std::process::Command;

use chacha20::ChaCha20Rng;
use chacha20::rand_core::{Rng, SeedableRng};

use super::*;

const SEED: u64 = 20_261_121;
const MODULES: u64 = 60;
const FUEL: u64 = 1 << 40;

/// What every module of the corpus exports.
const SHAPE: &str = r#"(module
    (func (export "none") (result i32 i64 f32 f64) unreachable)
    (func (export "ints") (param i32 i64) (result i64) unreachable)
    (func (export "floats") (param f32 f64) (result f64) unreachable)
    (func (export "mixed") (param f64 i32 f32 i64) (result f32 i32) unreachable))"#;

#[derive(Debug, Clone, Copy)]
enum Type {
    I32,
    I64,
    F32,
    F64,
}
use Type::*;

const FUNCTIONS: [(&str, &[Type], &[Type]); 4] = [
    ("none", &[], &[I32, I64, F32, F64]),
    ("ints", &[I32, I64], &[I64]),
    ("floats", &[F32, F64], &[F64]),
    ("mixed", &[F64, I32, F32, I64], &[F32, I32]),
];

/// What came of a call: its results as bits, or the trap's name.
type Seen = Result<Vec<u64>, String>;

#[tokio::test]
async fn generated_modules_do_what_they_do_in_wasmtime() {
    let seed = wess_harness::number("WESS_SEED").unwrap_or(SEED);
    let modules = wess_harness::number("WESS_MODULES").unwrap_or(MODULES);
    let mut random = ChaCha20Rng::seed_from_u64(seed);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("module.wasm");
    let engines = engines();
    let (mut answered, mut trapped) = (0, 0);
    for at in 0..modules {
        let wasm = module(&mut random);
        std::fs::write(&path, &wasm).unwrap();
        let guests = Metering::ALL.map(|metering| load(&wasm, &engines, metering));
        for (name, params, results) in FUNCTIONS {
            let given: Vec<_> = params.iter().map(|ty| argument(*ty, &mut random)).collect();
            let theirs = [false, true].map(|one_nan| theirs(&path, one_nan, name, &given, results));
            for (guest, metering) in guests.iter().zip(Metering::ALL) {
                let theirs = &theirs[usize::from(metering == Metering::Canonical)];
                let ours = ours(guest, name, &given, results).await;
                assert!(
                    agree(&ours, theirs),
                    "{ours:?}, not {theirs:?}, of {name}({given:?}) of module {at} of seed {seed}, {metering:?}"
                );
            }
            match &theirs[0] {
                Ok(_) => answered += 1,
                Err(_) => trapped += 1,
            }
        }
    }
    assert!(
        answered > modules && trapped > 0,
        "{answered} answers and {trapped} traps prove little"
    );
}

/// How deep calls may go depends on what else is compiled into them, so that this ending says nothing of the other's.
const EXHAUSTED: &str = "call stack exhausted";
/// What we call a trap of whoever was refused memory before, whatever trap it was.
const REFUSED: &str = "memory";

fn agree(ours: &Seen, theirs: &Seen) -> bool {
    match (ours, theirs) {
        (Ok(ours), Ok(theirs)) => ours == theirs,
        (Err(ours), Err(theirs)) => {
            ours == theirs || ours == REFUSED || [ours, theirs].iter().any(|trap| *trap == EXHAUSTED)
        }
        (Ok(_), Err(trap)) | (Err(trap), Ok(_)) => trap == EXHAUSTED,
    }
}

fn load(wasm: &[u8], engines: &EnginePool, metering: Metering) -> Guest {
    let mut guest = Guest::load(wasm, engines, metering);
    guest.limits.fuel = metering.counts().then_some(FUEL);
    guest
}

/// A generated module that we take.
fn module(random: &mut ChaCha20Rng) -> Vec<u8> {
    loop {
        let wasm = wess_harness::generated(&wasm(SHAPE), random);
        if inspect(&wasm).is_ok() {
            return wasm;
        }
    }
}

/// An argument as its bits: every other one from where things change.
fn argument(ty: Type, random: &mut ChaCha20Rng) -> (Type, u64) {
    let edges: [u64; 6] = match ty {
        I32 => [0, 1, 0x7fff_ffff, 0x8000_0000, 0xffff_ffff, 32],
        I64 => [0, 1, i64::MAX as u64, i64::MIN as u64, u64::MAX, 64],
        F32 => [0.0, -0.0, f32::NAN, f32::INFINITY, f32::MIN_POSITIVE / 2.0, -1.5]
            .map(|float: f32| u64::from(float.to_bits())),
        F64 => [
            0.0,
            -0.0,
            f64::NAN,
            f64::NEG_INFINITY,
            f64::MIN_POSITIVE / 2.0,
            -1.5,
        ]
        .map(f64::to_bits),
    };
    let bits = match random.next_u32() % 2 {
        0 => edges[random.next_u32() as usize % edges.len()],
        _ => random.next_u64(),
    };
    (ty, one_nan(ty, bits))
}

/// The bits of a number of this type, those of one NaN for all.
fn one_nan(ty: Type, bits: u64) -> u64 {
    match ty {
        I32 => u64::from(bits as u32),
        I64 => bits,
        F32 if f32::from_bits(bits as u32).is_nan() => u64::from(f32::NAN.to_bits()),
        F32 => u64::from(bits as u32),
        F64 if f64::from_bits(bits).is_nan() => f64::NAN.to_bits(),
        F64 => bits,
    }
}

/// A number's text.
fn text((ty, bits): (Type, u64)) -> String {
    match ty {
        I32 => (bits as u32 as i32).to_string(),
        I64 => (bits as i64).to_string(),
        F32 => f32::from_bits(bits as u32).to_string(),
        F64 => f64::from_bits(bits).to_string(),
    }
}

/// A text's number.
fn bits(ty: Type, text: &str) -> u64 {
    let bits = match ty {
        I32 => u64::from(text.parse::<i32>().unwrap() as u32),
        I64 => text.parse::<i64>().unwrap() as u64,
        F32 => u64::from(text.parse::<f32>().unwrap().to_bits()),
        F64 => text.parse::<f64>().unwrap().to_bits(),
    };
    one_nan(ty, bits)
}

fn theirs(path: &Path, one_nan: bool, function: &str, given: &[(Type, u64)], results: &[Type]) -> Seen {
    let output = Command::new(wess_harness::wasmtime())
        .args([
            "run",
            if one_nan {
                "-Wnan-canonicalization=y"
            } else {
                "-Wnan-canonicalization=n"
            },
        ])
        .args(["--invoke", function])
        .arg(path)
        .args(given.iter().map(|given| text(*given)))
        .env_remove("RUST_BACKTRACE")
        .output()
        .unwrap();
    let (answer, said) = (
        String::from_utf8(output.stdout).unwrap(),
        String::from_utf8_lossy(&output.stderr),
    );
    if output.status.success() {
        assert_eq!(answer.lines().count(), results.len(), "{answer}");
        return Ok(results
            .iter()
            .zip(answer.lines())
            .map(|(ty, line)| bits(*ty, line))
            .collect());
    }
    match said.lines().find_map(|line| line.split_once("wasm trap: ")) {
        Some((_, trap)) => Err(trap.to_owned()),
        None => panic!("wasmtime could not run {function}({given:?}): {said}"),
    }
}

async fn ours(guest: &Guest, function: &str, given: &[(Type, u64)], results: &[Type]) -> Seen {
    let given: Vec<Value> = given.iter().map(|given| json_of(*given)).collect();
    match guest.run(named(function, args(json!(given)))).await.result {
        Ok(answer) => {
            let answered = answer.results.unwrap();
            assert_eq!(answered.len(), results.len());
            let of_json = |(ty, value): (&Type, &Value)| match value {
                Value::String(word) => bits(*ty, &word.replace("Infinity", "inf")),
                number => bits(*ty, &number.to_string()),
            };
            Ok(results.iter().zip(&answered).map(of_json).collect())
        }
        Err(GuestFault::Trapped { message, .. }) => Err(message.trim_start_matches("wasm trap: ").to_owned()),
        Err(GuestFault::MemoryExceeded) => Err(REFUSED.to_owned()),
        Err(other) => panic!("{function}: {other:?}"),
    }
}

fn json_of(given: (Type, u64)) -> Value {
    let text = text(given);
    match given.0 {
        I32 => json!(text.parse::<i32>().unwrap()),
        I64 => json!(text),
        F32 | F64 if text.contains(['N', 'n']) => json!(text.replace("inf", "Infinity")),
        F32 | F64 => json!(text.parse::<f64>().unwrap()),
    }
}
