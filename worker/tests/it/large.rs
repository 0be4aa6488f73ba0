//! Payloads too large for a message: they travel as an object and its reference, verified in both directions.

use serde_json::json;
use wess_schemas::payload::{PayloadBucket, PayloadRef};
use wess_schemas::{ErrorCode, header};
use wess_service::payloads::Payloads;

use crate::rig::{Rig, fact, refused, refused_naming, spin};
use crate::support::{assets, digest_of};

const MIB: usize = 1 << 20;

async fn payloads(rig: &Rig) -> Payloads {
    assets(&rig.nats).await.payloads()
}

#[tokio::test]
async fn a_large_input_and_a_large_output_travel_by_reference_in_both_forms() {
    let rig = Rig::start(&["upper", "wordcount"]).await;
    let payloads = payloads(&rig).await;
    let upload = payloads.put("hello ".repeat(MIB / 2).as_bytes()).await.unwrap();
    let large = "HELLO ".repeat(MIB / 2);
    let outcome = rig
        .caller
        .invoke(json!({"module": "upper", "input_ref": upload}))
        .await
        .unwrap();
    assert_eq!((outcome.output, outcome.output_base64), (None, None));
    let fetched = payloads
        .get(&outcome.output_ref.unwrap(), u64::MAX)
        .await
        .unwrap();
    assert!(fetched == large.as_bytes(), "{} bytes came back", fetched.len());
    let reference = serde_json::to_string(&upload).unwrap();
    let raw = rig
        .caller
        .ask("wess.invoke.upper", &[(header::INPUT_REF, &reference)], "")
        .await
        .unwrap();
    assert!(raw.payload.is_empty());
    let stored: PayloadRef = serde_json::from_str(fact(&raw, header::OUTPUT_REF).unwrap()).unwrap();
    assert_eq!(
        (stored.digest, stored.size),
        (digest_of(large.as_bytes()), large.len() as u64)
    );
    assert!(payloads.get(&stored, u64::MAX).await.unwrap() == large.as_bytes());
    let counted = rig
        .caller
        .chain(json!({"steps": ["upper", "wordcount"], "input_ref": upload}))
        .await
        .unwrap();
    assert_eq!(counted.output, Some(format!("0 {} {}\n", MIB / 2, large.len())));
    rig.is_unharmed().await;
}

#[tokio::test]
async fn a_stored_input_that_finds_no_room_is_refused_and_never_taken_for_an_empty_one() {
    let flags = ["--executors", "1", "--slots", "1", "--queue-mb", "16"];
    let rig = Rig::with(&flags, &["spin", "cat"]).await;
    let upload = payloads(&rig).await.put(&vec![b'a'; 9 * MIB]).await.unwrap();
    let reference = serde_json::to_string(&upload).unwrap();
    let headers = [(header::INPUT_REF, reference.as_str())];
    // The worker has opened its stores while all of them are there.
    rig.caller.ask("wess.invoke.cat", &headers, "").await.unwrap();
    let spinner = rig.caller.begin(spin(3000));
    rig.worker.shows("wess_worker_slots_busy", 1).await;
    rig.caller.take_queue_away().await;
    let (one, other) = tokio::join!(
        rig.caller.ask("wess.invoke.cat", &headers, ""),
        rig.caller.ask("wess.invoke.cat", &headers, ""),
    );
    let (answered, refusal) = if one.is_ok() { (one, other) } else { (other, one) };
    refused(ErrorCode::Overloaded, refusal);
    let answered = answered.unwrap();
    let stored: PayloadRef = serde_json::from_str(fact(&answered, header::OUTPUT_REF).unwrap()).unwrap();
    assert_eq!(stored.size, 9 * MIB as u64);
    refused(ErrorCode::DeadlineExceeded, spinner.await.unwrap());
    rig.is_unharmed().await;
}

#[tokio::test]
async fn an_output_of_half_a_message_still_comes_inline_whatever_its_bytes() {
    let rig = Rig::start(&["cat"]).await;
    for (byte, len) in [(b'a', 500_000), (0xff, 300_000), (b'\n', 200_000), (0, 80_000)] {
        let input = vec![byte; len];
        let raw = rig.caller.raw("cat", input.clone()).await.unwrap();
        assert!(
            raw.payload == input && fact(&raw, header::OUTPUT_REF).is_none(),
            "{byte}"
        );
        let upload = payloads(&rig).await.put(&input).await.unwrap();
        let outcome = rig
            .caller
            .invoke(json!({"module": "cat", "input_ref": upload}))
            .await
            .unwrap();
        assert_eq!(
            outcome.output_bytes().map(|bytes| bytes.len()),
            Some(len),
            "{byte}"
        );
    }
    // Six bytes of JSON each: too large for a message, though its bytes are not.
    let upload = payloads(&rig).await.put(&[0; 200_000]).await.unwrap();
    let outcome = rig
        .caller
        .invoke(json!({"module": "cat", "input_ref": upload}))
        .await
        .unwrap();
    assert_eq!(outcome.output_ref.map(|stored| stored.size), Some(200_000));
}

#[tokio::test]
async fn a_reference_that_is_not_what_it_says_is_refused_before_any_guest_runs() {
    let rig = Rig::start(&["cat"]).await;
    let upload = payloads(&rig).await.put(&[b'a'; 1000]).await.unwrap();
    for (reference, code) in [
        (
            PayloadRef {
                bucket: PayloadBucket::default(),
                digest: digest_of(b"other"),
                ..upload.clone()
            },
            ErrorCode::InvalidRequest,
        ),
        (
            PayloadRef {
                bucket: PayloadBucket::default(),
                size: 999,
                ..upload.clone()
            },
            ErrorCode::InvalidRequest,
        ),
        (
            PayloadRef {
                bucket: PayloadBucket::default(),
                size: 1001,
                ..upload.clone()
            },
            ErrorCode::InvalidRequest,
        ),
        (
            PayloadRef {
                bucket: PayloadBucket::default(),
                size: (10 << 20) + 1,
                ..upload.clone()
            },
            ErrorCode::PayloadTooLarge,
        ),
        (
            PayloadRef {
                bucket: PayloadBucket::default(),
                object: "nothing-there".into(),
                ..upload.clone()
            },
            ErrorCode::InvalidRequest,
        ),
        (
            PayloadRef {
                bucket: PayloadBucket::default(),
                object: String::new(),
                ..upload.clone()
            },
            ErrorCode::InvalidRequest,
        ),
        (
            PayloadRef {
                bucket: PayloadBucket::default(),
                object: "x".repeat(129),
                ..upload.clone()
            },
            ErrorCode::InvalidRequest,
        ),
        (
            PayloadRef {
                bucket: PayloadBucket::default(),
                object: "a.>".into(),
                ..upload.clone()
            },
            ErrorCode::InvalidRequest,
        ),
    ] {
        refused(
            code,
            rig.caller
                .invoke(json!({"module": "cat", "input_ref": reference}))
                .await,
        );
        let header = [(header::INPUT_REF, &*serde_json::to_string(&reference).unwrap())];
        refused(code, rig.caller.ask("wess.invoke.cat", &header, "").await);
    }
    let both = json!({"module": "cat", "input": "a", "input_ref": upload});
    refused_naming(
        ErrorCode::InvalidRequest,
        "exclude",
        rig.caller.invoke(both).await,
    );
    assert_eq!(
        rig.caller
            .invoke(json!({"module": "cat", "input_ref": upload}))
            .await
            .unwrap()
            .output
            .unwrap()
            .len(),
        1000
    );
    rig.is_unharmed().await;
}

#[tokio::test]
async fn more_inputs_by_reference_than_a_stream_may_have_consumers_are_all_fetched() {
    let rig = Rig::start(&["wordcount"]).await;
    let upload = payloads(&rig).await.put(b"hello big world").await.unwrap();
    for _ in 0..30 {
        let calls = (0..40).map(|_| {
            rig.caller
                .invoke(json!({"module": "wordcount", "input_ref": upload}))
        });
        for answered in futures_util::future::join_all(calls).await {
            assert_eq!(answered.unwrap().output.as_deref(), Some("0 3 15\n"));
        }
    }
}
