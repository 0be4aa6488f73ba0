//! Instances that serve several calls: how many, which calls end one, and that no call gets anything of another's but what
//! the guest itself keeps.

use super::kept::MAX_GROWTH_BYTES;
use super::*;

const PAGE: u64 = 65_536;

/// Counts its calls in its memory, and does harm.
const COUNTER: &str = r#"(module
    (import "host" "log" (func $log (param i32 i32)))
    (import "host" "read_state" (func $read_state (param i32 i32) (result i32)))
    (import "host" "get_state" (func $get_state (param i32 i32) (result i32)))
    (import "host" "set_output" (func $set_output (param i32 i32)))
    (memory (export "memory") 1)
    (table $table 1 funcref)
    (global $calls (mut i32) (i32.const 0))
    (data (i32.const 16) "key")
    (func $count (export "count") (result i32)
        (global.set $calls (i32.add (global.get $calls) (i32.const 1)))
        (global.get $calls))
    (func (export "trap") unreachable)
    (func (export "spin") (loop $again (br $again)))
    (func (export "grow") (param i32) (result i32) (memory.grow (local.get 0)))
    (func (export "grow_or_trap") (if (i32.eq (memory.grow (i32.const 10000)) (i32.const -1)) (then unreachable)))
    (func (export "grow_table") (param i32) (result i32) (table.grow $table (ref.null func) (local.get 0)))
    (func (export "get_state") (result i32) (call $get_state (i32.const 16) (i32.const 3)))
    (func (export "read_state") (result i32) (call $read_state (i32.const 1024) (i32.const 64)))
    (func (export "log") (call $log (i32.const 16) (i32.const 3)))
    (func (export "wait") (drop (call $get_state (i32.const 16) (i32.const 3))))
    (func (export "alloc") (param i32) (result i32) (i32.const 2048))
    (func (export "process") (param i32 i32) (result i32)
        (call $set_output (local.get 0) (local.get 1))
        (call $count)))"#;

/// A guest whose instances serve several calls, and the one that waits for the next.
struct Reusing {
    guest: Guest,
    most: u32,
    kept: Option<Box<Kept>>,
}

impl Reusing {
    fn new(guest: Guest, most: u32) -> Self {
        let kept = None;
        Self { guest, most, kept }
    }

    fn counter() -> Self {
        Self::new(Guest::wat(COUNTER), 1000)
    }

    /// A call's run, in the instance that waits if it may have that.
    fn start(&mut self, call: CallInput) -> impl Future<Output = Ending> + Send + use<> {
        let Guest { prepared, limits, .. } = &self.guest;
        let kept = self.kept.take().filter(|kept| kept.serves(prepared, limits));
        let most = self.most;
        self.guest.start_in(Some(Reuse { most, kept }), call)
    }

    async fn run(&mut self, call: CallInput) -> Ending {
        let mut ending = self.start(call).await;
        self.kept = ending.kept.take();
        ending
    }

    async fn results(&mut self, call: CallInput) -> Value {
        self.run(call).await.result.unwrap().results.unwrap().into()
    }

    async fn number(&mut self, name: &str) -> Value {
        self.results(function(name)).await[0].clone()
    }

    /// How many calls the instance of this one has counted.
    async fn count(&mut self) -> Value {
        self.number("count").await
    }

    async fn code(&mut self, call: CallInput) -> ErrorCode {
        self.run(call).await.result.unwrap_err().to_error().code()
    }

    /// Nothing waits, and nothing is held.
    #[track_caller]
    fn assert_gone(&self, what: &str) {
        assert!(self.kept.is_none(), "{what}: the instance is kept");
        assert_eq!(self.guest.budget.used_bytes(), 0, "{what}");
    }
}

#[tokio::test]
async fn every_call_has_an_instance_of_its_own_unless_told_otherwise() {
    let counter = Guest::wat(COUNTER);
    for _ in 0..2 * SLOTS {
        let ending = counter.run(function("count")).await;
        assert!(ending.kept.is_none());
        assert_eq!(ending.result.unwrap().results.unwrap(), [json!(1)]);
    }
}

#[tokio::test]
async fn an_instance_serves_as_many_calls_as_it_may_and_holds_its_memory_between_them() {
    let mut counter = Reusing::new(Guest::wat(COUNTER), 3);
    for expected in [1, 2, 3, 1, 2] {
        assert_eq!(counter.count().await, json!(expected));
        let held = if expected == 3 { 0 } else { PAGE };
        assert_eq!(counter.guest.budget.used_bytes(), held);
    }
    counter.kept = None;
    counter.assert_gone("dropped");
}

#[tokio::test]
async fn plugins_are_served_input_and_output_of_each_call_by_the_same_instance() {
    let mut counter = Reusing::counter();
    for (calls, text) in [(1, "hello"), (2, ""), (3, "a longer text")] {
        let answer = counter.run(input(text)).await.result.unwrap();
        assert_eq!(
            (answer.output.unwrap(), answer.exit_code),
            (text.as_bytes().to_vec(), Some(calls))
        );
    }
    // Its functions, the entry too, are called in the same instance.
    assert_eq!(counter.count().await, json!(4));
    assert_eq!(
        counter.results(named("process", args(json!([0, 0])))).await,
        json!([5])
    );
    assert_eq!(counter.run(input("x")).await.result.unwrap().exit_code, Some(6));
}

#[tokio::test]
async fn two_runs_at_once_never_have_the_same_instance() {
    let mut counter = Reusing::counter();
    assert_eq!(counter.count().await, json!(1));
    *counter.guest.host.waiting.lock().unwrap() = Some(Arc::default());
    let mut waits = Box::pin(counter.start(function("wait")));
    assert!((&mut waits).now_or_never().is_none());
    assert_eq!(counter.count().await, json!(1), "one of its own");
    counter.kept = None;
    let waiting = counter.guest.host.waiting.lock().unwrap().take();
    waiting.unwrap().notify_one();
    let mut ending = waits.await;
    counter.kept = ending.kept.take();
    assert_eq!(counter.count().await, json!(2), "who waited is there again");
}

#[tokio::test]
async fn whatever_is_no_answer_ends_its_instance() {
    for (call, code) in [
        (function("trap"), ErrorCode::GuestTrapped),
        (function("spin"), ErrorCode::DeadlineExceeded),
        (function("grow_or_trap"), ErrorCode::MemoryExceeded),
        (input("too long by one"), ErrorCode::OutputTooLarge),
    ] {
        let mut counter = Reusing::new(Guest::wat(COUNTER).timeout_ms(300).output_bytes(14), 1000);
        assert_eq!(counter.count().await, json!(1));
        assert_eq!(counter.count().await, json!(2));
        assert_eq!(counter.code(call).await, code);
        counter.assert_gone(code.as_str());
        assert_eq!(counter.count().await, json!(1), "{code}");
    }
}

#[tokio::test]
async fn a_guest_that_traps_every_other_call_never_serves_two() {
    let mut counter = Reusing::counter();
    for _ in 0..10 {
        assert_eq!(counter.count().await, json!(1));
        assert_eq!(counter.code(function("trap")).await, ErrorCode::GuestTrapped);
    }
    counter.assert_gone("after a trap");
}

#[tokio::test]
async fn a_run_that_is_dropped_takes_its_instance_along() {
    let mut counter = Reusing::counter();
    assert_eq!(counter.count().await, json!(1));
    *counter.guest.host.waiting.lock().unwrap() = Some(Arc::default());
    let mut waits = Box::pin(counter.start(function("wait")));
    assert!((&mut waits).now_or_never().is_none());
    drop(waits);
    counter.assert_gone("cancelled");
}

#[tokio::test]
async fn a_guest_that_grows_by_more_than_its_mark_is_not_kept() {
    let mark = MAX_GROWTH_BYTES / PAGE;
    let grow = |pages: u64| named("grow", args(json!([pages])));
    let mut counter = Reusing::counter();
    // What it holds after its first call is its own measure.
    assert_eq!(counter.results(grow(100)).await, json!([1]));
    assert_eq!(counter.results(grow(mark)).await, json!([101]));
    assert_eq!(counter.count().await, json!(1), "at its mark it stays");
    assert_eq!(counter.results(grow(1)).await, json!([101 + mark]));
    counter.assert_gone("above its mark");
}

#[tokio::test]
async fn a_guest_that_leaves_its_table_grown_is_not_kept() {
    let grow = |elements: u32| named("grow_table", args(json!([elements])));
    let mut counter = Reusing::counter();
    assert_eq!(counter.results(grow(1000)).await, json!([1]));
    assert_eq!(counter.results(grow(0)).await, json!([1001]), "its first call's");
    assert_eq!(counter.results(grow(1)).await, json!([1001]));
    counter.assert_gone("a grown table");
}

#[tokio::test]
async fn a_guest_that_was_refused_memory_is_not_kept_though_it_answered() {
    let mut counter = Reusing::counter();
    assert_eq!(
        counter.results(named("grow", args(json!([10_000])))).await,
        json!([-1])
    );
    counter.assert_gone("refused");
}

#[tokio::test]
async fn each_calls_own_limits_hold_for_it() {
    let mut counter = Reusing::counter();
    assert_eq!(counter.results(named("grow", args(json!([9])))).await, json!([1]));
    counter.guest.limits.memory_bytes = 10 * PAGE;
    let ending = counter.run(function("count")).await;
    assert_eq!(ending.memory_peak_bytes, 10 * PAGE, "it holds that much");
    assert_eq!(ending.result.unwrap().results.unwrap(), [json!(1)]);
    counter.guest.limits.memory_bytes = 9 * PAGE;
    assert_eq!(
        counter.count().await,
        json!(1),
        "a fresh one, for that one holds more"
    );
    counter.guest.limits.memory_bytes = 64 * MIB;
    assert_eq!(counter.results(named("grow", args(json!([9])))).await, json!([1]));
    counter.guest.limits.memory_bytes = 10 * PAGE;
    assert_eq!(
        counter.code(function("grow_or_trap")).await,
        ErrorCode::MemoryExceeded
    );

    assert_eq!(counter.count().await, json!(1));
    counter.guest.limits.output_bytes = 2;
    assert_eq!(counter.code(input("abc")).await, ErrorCode::OutputTooLarge);

    assert_eq!(counter.count().await, json!(1));
    counter.guest.limits.timeout_ms = 50;
    assert_eq!(counter.code(function("spin")).await, ErrorCode::DeadlineExceeded);
}

#[tokio::test]
async fn a_deadline_counts_from_each_calls_own_start() {
    let mut counter = Reusing::new(Guest::wat(COUNTER).timeout_ms(200), 1000);
    assert_eq!(counter.count().await, json!(1));
    let past = std::time::Instant::now() + std::time::Duration::from_millis(201);
    tokio::time::sleep_until(past.into()).await;
    assert_eq!(counter.count().await, json!(2));
}

#[tokio::test]
async fn fuel_is_given_to_each_call_anew() {
    let wasm = wasm(COUNTER);
    let mut counter = Reusing::new(Guest::fueled(&wasm, 1000), 1000);
    let mut used = Vec::new();
    for calls in 1..=3 {
        let ending = counter.run(function("count")).await;
        assert_eq!(ending.result.unwrap().results.unwrap(), [json!(calls)]);
        used.push(ending.fuel.unwrap());
    }
    assert!(
        used[0] > 0 && used.iter().all(|fuel| *fuel == used[0]),
        "{used:?}"
    );
    counter.guest.limits.fuel = Some(used[0]);
    assert_eq!(counter.count().await, json!(4));
    counter.guest.limits.fuel = Some(used[0] - 1);
    assert_eq!(counter.code(function("count")).await, ErrorCode::OutOfFuel);
    counter.assert_gone("out of fuel");
}

#[tokio::test]
async fn logs_and_state_are_each_calls_own() {
    let mut counter = Reusing::counter();
    let hosts: [Arc<MemoryHost>; 2] = Default::default();
    let secret = Bytes::from_static(b"of the first caller");
    hosts[0]
        .state
        .lock()
        .unwrap()
        .insert(b"key".to_vec(), secret.clone());
    counter.guest.host = Arc::clone(&hosts[0]);
    counter.run(function("log")).await.result.unwrap();
    assert_eq!(counter.number("get_state").await, json!(secret.len()));
    counter.guest.host = Arc::clone(&hosts[1]);
    assert_eq!(
        counter.number("read_state").await,
        json!(0),
        "nothing was got in this call"
    );
    assert_eq!(counter.number("get_state").await, json!(-1));
    counter.run(function("log")).await.result.unwrap();
    counter.run(function("log")).await.result.unwrap();
    assert_eq!((hosts[0].texts().len(), hosts[1].texts().len()), (1, 2));
}

#[tokio::test]
async fn an_instance_that_waits_keeps_no_log_line_back_and_has_its_streams_anew() {
    // Writes half a line, and closes its standard error.
    let mut guest = Reusing::new(
        Guest::wat(
            r#"(module
            (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
            (import "wasi_snapshot_preview1" "fd_close" (func $close (param i32) (result i32)))
            (memory (export "memory") 1)
            (data (i32.const 0) "\10\00\00\00\04\00\00\00")
            (data (i32.const 16) "half")
            (func (export "say") (result i32)
                (call $write (i32.const 2) (i32.const 0) (i32.const 1) (i32.const 8))
                (drop (call $close (i32.const 2)))))"#,
        ),
        1000,
    );
    for lines in 1..=3 {
        assert_eq!(guest.number("say").await, json!(0));
        assert!(guest.kept.is_some());
        assert_eq!(guest.guest.host.texts(), vec!["half"; lines]);
    }
}

#[tokio::test]
async fn a_callers_environment_is_each_calls_own() {
    let mut guest = Reusing::new(
        Guest::wat(
            r#"(module
            (import "host" "set_output" (func $set_output (param i32 i32)))
            (memory (export "memory") 1)
            (func (export "alloc") (param i32) (result i32) (i32.const 1024))
            (func (export "process") (param i32 i32 i32 i32) (result i32)
                (call $set_output (local.get 2) (local.get 3)) (i32.const 0)))"#,
        ),
        1000,
    );
    for (env, seen) in [(&[("A", "secret")][..], r#"{"A":"secret"}"#), (&[], "{}")] {
        let call = with_env(nothing(), env);
        assert!(
            guest
                .guest
                .plan(call.clone())
                .unwrap()
                .may_share_its_instance(!env.is_empty())
        );
        let output = guest.run(call).await.result.unwrap().output.unwrap();
        assert_eq!(String::from_utf8(output).unwrap(), seen);
    }
    assert!(guest.kept.is_some());
}

#[tokio::test]
async fn an_instance_is_of_its_module_as_it_was_loaded() {
    let (engines, wasm) = (engines(), wasm(COUNTER));
    let mut counter = Reusing::new(Guest::load(&wasm, &engines, Metering::Off), 1000);
    assert_eq!(counter.count().await, json!(1));
    let kept = counter.kept.as_ref().unwrap();
    assert!(kept.is_of(&counter.guest.prepared) && kept.is_new());
    let again = Guest::load(&wasm, &engines, Metering::Off);
    assert!(!kept.is_of(&again.prepared) && !kept.serves(&again.prepared, &again.limits));
    assert_eq!(counter.count().await, json!(2));
    assert!(!counter.kept.as_ref().unwrap().is_new());
}

#[tokio::test]
async fn a_guest_that_needs_memory_gets_that_of_one_that_waits() {
    /// One instance that waits.
    struct Waiting(Mutex<Option<Box<Kept>>>);
    impl Spares for Waiting {
        fn drop_oldest(&self) -> bool {
            let oldest = self.0.lock().unwrap().take();
            oldest.is_some()
        }
    }
    let budget = MemoryBudget::new(10 * PAGE);
    let mut counter = Reusing::new(Guest::wat(COUNTER).budget(&budget), 1000);
    assert_eq!(counter.results(named("grow", args(json!([5])))).await, json!([1]));
    assert_eq!(budget.used_bytes(), 6 * PAGE);
    let waiting = Arc::new(Waiting(Mutex::new(counter.kept.take())));
    let weak: std::sync::Weak<Waiting> = Arc::downgrade(&waiting);
    budget.draw_on(weak);
    let other = Guest::wat(COUNTER).budget(&budget);
    let grown = other.start(named("grow", args(json!([9])))).await;
    assert_eq!(grown.result.unwrap().results.unwrap(), [json!(1)]);
    assert!(waiting.0.lock().unwrap().is_none());
    assert_eq!(budget.used_bytes(), 0);
}
