//! Deterministic modules through whole workers: what differs elsewhere is the same here, for components too, and for a job
//! that another worker takes over.

use async_nats::Subscriber;
use base64::prelude::{BASE64_STANDARD, Engine};
use futures_util::StreamExt;
use serde_json::{Value, json};
use wess_harness::{NatsServer, Signal, guest};
use wess_schemas::ErrorCode;
use wess_schemas::job::{JobRecord, JobState};
use wess_schemas::outcome::Outcome;

use crate::job_faults::IMPATIENT;
use crate::jobs::outcome;
use crate::rig::{Caller, Rig, Worker, refused_naming, wat};

impl Caller {
    /// Stores a guest that is deterministic from its second version on.
    async fn store_fixed(&self, name: &str, wasm: Vec<u8>) {
        self.store(name, wasm).await;
        let settings = json!({"deterministic": true});
        self.configure(name, settings).await.unwrap();
    }

    async fn witness(&self, reference: &str) -> Seen {
        let call = json!({"module": reference, "function": "see", "args": [1]});
        Seen::of(&self.invoke(call).await.unwrap())
    }
}

/// What `guests/component/witness.wat` was shown of the world.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Seen(Vec<u8>);

impl Seen {
    fn of(outcome: &Outcome) -> Self {
        let result = &outcome.results.as_ref().unwrap()[0];
        let bytes = BASE64_STANDARD
            .decode(result["base64"].as_str().unwrap())
            .unwrap();
        assert_eq!(bytes.len(), 152);
        Self(bytes)
    }

    /// Of its line in the log, which has all but the last number.
    fn said(line: &[u8]) -> Self {
        let line = std::str::from_utf8(line).unwrap();
        let letters = line.strip_prefix("info: ").unwrap().as_bytes();
        let byte = |pair: &[u8]| (pair[0] - b'a') << 4 | (pair[1] - b'a');
        Self(letters.chunks(2).map(byte).collect())
    }

    /// Each of the five that came by chance: bytes, a number, cheaper bytes, a cheaper number, a seed.
    fn by_chance(&self) -> [&[u8]; 5] {
        [0..32, 32..40, 40..72, 72..80, 80..96].map(|range| &self.0[range])
    }

    fn number(&self, at: usize) -> u64 {
        u64::from_le_bytes(self.0[at..at + 8].try_into().unwrap())
    }

    fn time_of_day_ns(&self) -> u64 {
        let nanoseconds = u32::from_le_bytes(self.0[104..108].try_into().unwrap());
        self.number(96) * 1_000_000_000 + u64::from(nanoseconds)
    }

    /// What the time of day and the monotonic clock count in, in nanoseconds.
    fn steps_ns(&self) -> (u64, u64) {
        let nanoseconds = u32::from_le_bytes(self.0[120..124].try_into().unwrap());
        (
            self.number(112) * 1_000_000_000 + u64::from(nanoseconds),
            self.number(136),
        )
    }
}

#[tokio::test]
async fn relaxed_simd_is_not_relaxed() {
    let text = wat(r#"(module
        (func (export "swizzle") (param i64) (result i64)
            (i64x2.extract_lane 0 (i8x16.relaxed_swizzle
                (v128.const i8x16 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16) (i64x2.splat (local.get 0)))))
        (func (export "truncate") (param i32) (result i32)
            (i32x4.extract_lane 0 (i32x4.relaxed_trunc_f32x4_s
                (f32x4.splat (f32.reinterpret_i32 (local.get 0))))))
        (func (export "select") (param i32) (result i32)
            (i32x4.extract_lane 0 (i8x16.relaxed_laneselect
                (v128.const i32x4 -1 -1 -1 -1) (v128.const i32x4 0 0 0 0) (i32x4.splat (local.get 0)))))
        (func (export "multiply") (param i32) (result i32)
            (i16x8.extract_lane_s 0 (i16x8.relaxed_q15mulr_s
                (i16x8.splat (local.get 0)) (i16x8.splat (local.get 0)))))
        (func (export "least") (param i32) (result i32)
            (i32x4.extract_lane 0 (f32x4.relaxed_min
                (f32x4.splat (f32.const 0)) (f32x4.splat (f32.reinterpret_i32 (local.get 0))))))
        (func (export "fused") (param i32) (result i32)
            (i32x4.extract_lane 0 (f32x4.relaxed_madd
                (f32x4.splat (f32.reinterpret_i32 (local.get 0)))
                (f32x4.splat (f32.reinterpret_i32 (local.get 0)))
                (f32x4.splat (f32.const -0x1.002p0))))))"#);
    let rig = Rig::start(&[]).await;
    rig.caller.store("free", text.clone()).await;
    rig.caller.store_fixed("fixed", text).await;
    for (function, arg, result) in [
        // Indexes without a byte give zeros: 16, 31, 127, 128; then 0, 15, 1 and 2.
        (
            "swizzle",
            json!("144413157882797840"),
            json!("216753328548216832"),
        ),
        // Of no number 0, of 3e9 and -3e9 what is nearest.
        ("truncate", json!(0x7fc0_0000), json!(0)),
        ("truncate", json!(0x4f32_d05e), json!(i32::MAX)),
        ("truncate", json!(0xcf32_d05e_u32 as i32), json!(i32::MIN)),
        // Bit by bit, not byte by byte.
        ("select", json!(0x0f80_7f01), json!(0x0f80_7f01)),
        ("multiply", json!(-32_768), json!(32_767)),
        // Less than 0 is only -0.
        ("least", json!(i32::MIN), json!(i32::MIN)),
        // 1 + 2^-12, squared without rounding, has 2^-24 more than the nearest number.
        ("fused", json!(0x3f80_0800), json!(0x3380_0000)),
    ] {
        for module in ["free", "fixed"] {
            let call = json!({"module": module, "function": function, "args": [arg]});
            let outcome = rig.caller.invoke(call).await.unwrap();
            assert_eq!(
                outcome.results.as_deref(),
                Some(&[result.clone()][..]),
                "{function} of {arg} in {module}"
            );
        }
    }
}

#[tokio::test]
async fn a_component_sees_its_job_and_nothing_else_of_the_world() {
    let rig = Rig::start(&[]).await;
    rig.caller.store_fixed("witness", guest("witness")).await;
    let call = json!({"module": "witness", "function": "see", "args": [1]});
    let outcome = rig.caller.invoke(call).await.unwrap();
    let seen = Seen::of(&outcome);
    let made = outcome.job_id.made_at().unwrap();
    assert_eq!(seen.time_of_day_ns(), made.unix_ms() * 1_000_000);
    assert_eq!(seen.steps_ns(), (1_000_000, 1_000_000));
    assert_eq!((seen.number(128), seen.number(144)), (0, 0), "a clock went on");
    let other = rig.caller.witness("witness").await;
    let free = [
        rig.caller.witness("witness@1").await,
        rig.caller.witness("witness@1").await,
    ];
    for seen_by in [[&seen, &other], [&free[0], &free[1]]] {
        let [one, another] = seen_by.map(Seen::by_chance);
        for at in 0..5 {
            assert_ne!(one[at], another[at], "{at} of {seen_by:?}");
        }
    }
    // Not all of one stream either.
    assert_ne!(seen.by_chance()[0], seen.by_chance()[2]);
    assert_ne!(seen.by_chance()[1], seen.by_chance()[3]);
    assert_ne!(
        free[0].number(128),
        free[0].number(144),
        "nothing shows here that clocks stand still"
    );
}

/// A witness's job under an id that tells no time, which waits for so long.
async fn submit(caller: &Caller, wait_ms: u64) {
    let invoke = json!({"module": "witness", "function": "see", "args": [wait_ms]});
    let job = json!({"job_id": "the-job", "invoke": invoke});
    caller.submit(job).await.unwrap();
}

/// What a job's guest saw of the world, which must have its time from the job's record.
fn seen_by(job: &JobRecord) -> Seen {
    assert_eq!(job.state, JobState::Succeeded, "{job:?}");
    let seen = Seen::of(outcome(job));
    assert_eq!(seen.time_of_day_ns(), job.submitted.unix_ms() * 1_000_000);
    seen
}

async fn line(log: &mut Subscriber) -> Seen {
    Seen::said(&log.next().await.unwrap().payload)
}

#[tokio::test]
async fn a_job_that_another_worker_takes_over_sees_what_it_saw_before() {
    let rig = Rig::with(&IMPATIENT, &[]).await;
    rig.caller.store_fixed("witness", guest("witness")).await;
    let mut log = rig.caller.client.subscribe("wess.logs.witness").await.unwrap();
    rig.caller.client.flush().await.unwrap();
    // Longer than it takes to kill the worker.
    submit(&rig.caller, 4000).await;
    let Rig { worker, caller, nats } = rig;
    let first = line(&mut log).await;
    worker.process.signal(Signal::KILL);
    let other = Worker::start(&nats, &IMPATIENT);
    let job = caller.end_of("the-job").await;
    let seen = seen_by(&job);
    assert_eq!(job.worker.unwrap().to_string(), other.id());
    assert_eq!(
        line(&mut log).await,
        first,
        "the second delivery saw another world"
    );
    assert_eq!(seen.0[..first.0.len()], first.0);

    // Elsewhere the same job has only another time.
    let elsewhere = Rig::on(NatsServer::start(), &[], &[]).await;
    elsewhere.caller.store_fixed("witness", guest("witness")).await;
    submit(&elsewhere.caller, 0).await;
    let again = seen_by(&elsewhere.caller.end_of("the-job").await);
    assert_eq!(again.by_chance(), seen.by_chance());
    assert_eq!(again.0[112..], seen.0[112..]);
}

#[tokio::test]
async fn a_component_has_no_state_no_objects_and_no_way_out() {
    let rig = Rig::start(&[]).await;
    for name in ["granted", "fetch", "keeper", "messenger"] {
        rig.caller.store_fixed(name, guest(name)).await;
    }
    let call = async |module: &str, function: &str, args: Value| {
        let call = json!({"module": module, "function": function, "args": args});
        rig.caller.invoke(call).await.unwrap().results.unwrap().remove(0)
    };
    for (function, args) in [
        ("get", json!(["a"])),
        ("set", json!(["a", [1]])),
        ("increment", json!(["a", 1])),
    ] {
        let answer = call("granted", function, args).await;
        assert_eq!(answer, json!({"err": "access-denied"}), "{function}");
    }
    let sent = call("fetch", "fetch", json!([false, "127.0.0.1:1", "/", null, 0])).await;
    assert_eq!(sent, json!({"err": "HTTP-request-denied"}));
    let made = call("keeper", "make", json!(["pictures"])).await;
    assert!(made["err"].as_str().unwrap().contains("not granted"), "{made}");
    let told = call("messenger", "send", json!(["orders.new", [104, 105], null, []])).await;
    assert!(told.get("err").is_some(), "{told}");
    for grants in [
        json!({"http": ["example.com"]}),
        json!({"blobstore": ["pictures"]}),
        json!({"keyvalue": true}),
        json!({"publish": ["orders.*"]}),
    ] {
        let both = json!({"deterministic": true, "grants": grants});
        let configured = rig.caller.configure("granted", both).await;
        refused_naming(ErrorCode::InvalidRequest, "deterministic", configured);
    }
    rig.is_unharmed().await;
}
