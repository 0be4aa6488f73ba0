//! A deterministic run gives the same bytes again, whoever runs it and whenever.

use super::*;

/// What WASI shows of the world.
const WORLD: &str = "plugin/world.wat";

const ACCEPTED: &str = "2026-02-03T04:05:06.789Z";

fn fixed(job_id: &str) -> Fixed {
    let accepted = wess_schemas::timestamp::Timestamp::parse(ACCEPTED).unwrap();
    Fixed::new(
        &wess_schemas::Digest::from_bytes([7; 32]),
        &job_id.parse().unwrap(),
        accepted,
    )
}

fn deterministic(wasm: &[u8]) -> Guest {
    let mut guest = Guest::load(wasm, &engines(), Metering::Canonical);
    guest.fixed = Some(fixed("job"));
    guest
}

async fn bytes(guest: &Guest) -> Vec<u8> {
    guest.answer(nothing()).await.output.unwrap()
}

#[tokio::test]
async fn randomness_and_time_are_the_jobs_own() {
    let mut guest = deterministic(&wasm_of(WORLD));
    let first = bytes(&guest).await;
    assert_eq!(bytes(&guest).await, first);
    assert_eq!(bytes(&deterministic(&wasm_of(WORLD))).await, first);
    let wall = u64::from_le_bytes(first[32..40].try_into().unwrap());
    assert_eq!(wall, 1_770_091_506_789_000_000);

    guest.fixed = Some(fixed("another"));
    let another = bytes(&guest).await;
    assert_ne!(another[..32], first[..32]);
    assert_eq!(another[32..], first[32..]);

    let free = Guest::file(WORLD);
    assert_ne!(bytes(&free).await, bytes(&free).await);
}

/// Hands out the bits of a NaN that it made of one with another payload and sign.
const NAN: &str = r#"(module
    (func (export "bits") (param i64) (result i64)
        (i64.reinterpret_f64 (f64.add
            (f64.reinterpret_i64 (local.get 0))
            (f64.const 1)))))"#;

#[tokio::test]
async fn there_is_one_nan() {
    let guest = deterministic(&wasm(NAN));
    for made_of in ["9221120237041090561", "-2251799813685247", "9221120237041090560"] {
        let bits = guest.results(args(json!([made_of]))).await;
        assert_eq!(
            bits,
            json!([i64::from_ne_bytes(0x7ff8_0000_0000_0000_u64.to_ne_bytes()).to_string()]),
            "{made_of}"
        );
    }
    let free = Guest::wat(NAN).results(args(json!(["-2251799813685247"]))).await;
    assert_ne!(
        free,
        json!(["9221120237041090560"]),
        "nothing shows here that NaNs are made one"
    );
}

/// Grows by a page, and says whether that went well.
const GROWS: &str = r#"(module
    (memory (export "memory") 1)
    (func (export "grow") (result i32) (memory.grow (i32.const 1))))"#;

#[tokio::test]
async fn what_only_this_worker_lacks_ends_the_run_instead_of_changing_it() {
    let scarce = MemoryBudget::new(65_536);
    let free = Guest::wat(GROWS).budget(&scarce);
    assert_eq!(free.results(nothing()).await, json!([-1]));
    let guest = deterministic(&wasm(GROWS)).budget(&scarce);
    assert_eq!(guest.code(nothing()).await, ErrorCode::MemoryExceeded);
    let limited = deterministic(&wasm(GROWS)).memory_bytes(65_536);
    assert_eq!(limited.results(nothing()).await, json!([-1]));
}
