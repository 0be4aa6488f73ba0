//! The clock that interrupts guests: who yields and is called an overstayer, and that nobody who goes leaves anything.

use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use tokio_util::task::TaskTracker;

use super::*;
use crate::outbound::OutboundPolicy;

/// Polls once; whether the guest ended, and whether it burned its ticks.
fn poll(guest: &mut (impl Future<Output = Ending> + Unpin)) -> (Option<Ending>, bool) {
    let mut context = Context::from_waker(Waker::noop());
    match poll_noting_overstay(std::pin::Pin::new(guest), &mut context) {
        (Poll::Ready(ending), overstayed) => (Some(ending), overstayed),
        (Poll::Pending, overstayed) => (None, overstayed),
    }
}

fn spinner(engines: &EnginePool) -> Guest {
    Guest::load(&wasm_of("typed/spin.wat"), engines, Metering::Off)
}

/// Waits for its host, then loops as often as it is told.
fn waiter(engines: &EnginePool, loops: u64) -> Guest {
    let module = wasm(&format!(
        r#"(module
            (import "host" "delete_state" (func $delete (param i32 i32)))
            (memory (export "memory") 1)
            (func (export "wait") (local $left i64)
                (call $delete (i32.const 0) (i32.const 1))
                (local.set $left (i64.const {loops}))
                (loop $again
                    (local.set $left (i64.sub (local.get $left) (i64.const 1)))
                    (br_if $again (i64.ne (local.get $left) (i64.const 0))))))"#
    ));
    let guest = Guest::load(&module, engines, Metering::Off);
    *guest.host.waiting.lock().unwrap() = Some(Arc::default());
    guest
}

/// Engines whose clock stands still but for what a test makes of it: however busy the machine, no guest is descheduled.
fn engines_by_hand() -> (EnginePool, Ticker) {
    let ticker = Ticker::by_hand();
    (EnginePool::new(SLOTS, ticker.clone()), ticker)
}

#[tokio::test]
async fn a_guest_that_computes_yields_within_a_few_ticks_and_is_called_an_overstayer() {
    let engines = engines();
    let guest = spinner(&engines);
    let mut spinning = Box::pin(guest.start(function("spin")));
    for _ in 0..20 {
        let started = Instant::now();
        let (ended, overstayed) = poll(&mut spinning);
        assert!(ended.is_none() && overstayed);
        assert!(
            started.elapsed() < Duration::from_secs(1),
            "{:?}",
            started.elapsed()
        );
    }
}

#[tokio::test]
async fn a_guest_that_is_quick_does_not_yield() {
    let (engines, _) = engines_by_hand();
    let guest = Guest::load(&wasm_of("typed/add.wat"), &engines, Metering::Off);
    let (ended, overstayed) = poll(&mut Box::pin(guest.start(args(json!([2, 3])))));
    assert!(ended.unwrap().result.is_ok() && !overstayed);
}

#[tokio::test]
async fn a_guest_that_waits_is_no_overstayer_then_or_when_it_goes_on() {
    let (engines, ticker) = engines_by_hand();
    let guest = waiter(&engines, 10);
    let mut waiting = Box::pin(guest.start(nothing()));
    let (ended, overstayed) = poll(&mut waiting);
    assert!(ended.is_none() && !overstayed, "it waits");
    for _ in 0..100 {
        assert!(ticker.tick());
    }
    let (ended, overstayed) = poll(&mut waiting);
    assert!(ended.is_none() && !overstayed, "it still waits");
    guest.host.waiting.lock().unwrap().clone().unwrap().notify_one();
    let (ended, overstayed) = poll(&mut waiting);
    assert!(
        ended.unwrap().result.is_ok() && !overstayed,
        "the ticks were its host's"
    );
    assert!(!ticker.tick(), "nobody is left to tick for");
}

#[tokio::test]
async fn waiting_for_another_host_costs_no_ticks_either() {
    let (engines, ticker) = engines_by_hand();
    let upstream = super::upstream::Upstream::start().await;
    let address = upstream.address.to_string();
    let outbound = Outbound::open(OutboundPolicy::Granted, TaskTracker::new()).unwrap();
    let mut guest = Guest::load(&wasm_of("http/fetch.wat"), &engines, Metering::Off);
    let mut host = MemoryHost {
        outbound: Some(outbound),
        ..MemoryHost::default()
    };
    host.settings.grants.http.insert(address.clone());
    guest.host = Arc::new(host);
    let call = named("fetch", args(json!([false, address, "/", null, 0])));
    let mut fetching = Box::pin(guest.start(call));
    let mut waits = 0;
    let ending = loop {
        let (ended, overstayed) = poll(&mut fetching);
        assert!(!overstayed, "after {waits} waits");
        if let Some(ending) = ended {
            break ending;
        }
        waits += 1;
        for _ in 0..100 {
            assert!(ticker.tick());
        }
        tokio::task::yield_now().await;
    };
    assert!(ending.result.is_ok() && waits > 1, "{waits} waits");
}

#[tokio::test]
async fn a_guest_that_waited_and_then_computes_is_an_overstayer() {
    let engines = engines();
    let guest = waiter(&engines, u64::MAX);
    let mut waiting = Box::pin(guest.start(nothing()));
    assert!(poll(&mut waiting).0.is_none());
    guest.host.waiting.lock().unwrap().clone().unwrap().notify_one();
    let (ended, overstayed) = poll(&mut waiting);
    assert!(ended.is_none() && overstayed);
}

#[tokio::test]
async fn a_host_that_answers_at_once_gives_no_new_ticks() {
    let module = wasm(
        r#"(module
            (import "host" "delete_state" (func $delete (param i32 i32)))
            (memory (export "memory") 1)
            (func (export "ask") (loop $again (call $delete (i32.const 0) (i32.const 1)) (br $again))))"#,
    );
    let guest = Guest::new(&module);
    let (ended, overstayed) = poll(&mut Box::pin(guest.start(nothing())));
    assert!(ended.is_none() && overstayed);
}

#[tokio::test]
async fn guests_on_one_thread_take_turns() {
    let engines = engines();
    let guest = spinner(&engines);
    let times = named("spin_times", args(json!([20_000_000])));
    let (mut first, mut second) = (Box::pin(guest.start(times.clone())), Box::pin(guest.start(times)));
    let (mut turns, mut ended) = ([0, 0], [false, false]);
    while ended != [true, true] {
        for (at, run) in [&mut first, &mut second].into_iter().enumerate() {
            if !ended[at] {
                turns[at] += 1;
                ended[at] = poll(run).0.is_some();
            }
        }
    }
    assert!(turns[0] > 1 && turns[1] > 1, "{turns:?}");
}

#[tokio::test]
async fn a_guest_goes_on_and_meets_its_deadline_on_another_thread_and_runtime() {
    let guest = Guest::file("typed/spin.wat").timeout_ms(100);
    let mut spinning = Box::pin(guest.start(function("spin")));
    assert!(poll(&mut spinning).0.is_none());
    let elsewhere = std::thread::spawn(|| {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(spinning)
    });
    let ending = tokio::task::spawn_blocking(|| elsewhere.join().unwrap())
        .await
        .unwrap();
    assert!(matches!(ending.result, Err(GuestFault::DeadlineExceeded(100))));
}

#[tokio::test]
async fn a_dropped_guest_frees_its_slot_and_its_memory_wherever_it_was() {
    let engines = engines();
    let (waits, spins) = (waiter(&engines, 1), spinner(&engines));
    for _ in 0..5 * SLOTS {
        let mut unpolled = Box::pin(waits.start(nothing()));
        let mut spinning = Box::pin(spins.start(function("spin")));
        assert!(poll(&mut unpolled).0.is_none() && poll(&mut spinning).0.is_none());
        assert!(waits.budget.used_bytes() > 0);
    }
    assert_eq!(waits.budget.used_bytes(), 0);
    drop(waits.start(nothing()));
}

#[tokio::test]
async fn a_guest_past_the_engine_s_slots_fails_and_does_not_wait() {
    let engines = engines();
    let guest = spinner(&engines);
    let mut running: Vec<_> = (0..SLOTS)
        .map(|_| Box::pin(guest.start(function("spin"))))
        .collect();
    assert!(running.iter_mut().all(|run| poll(run).0.is_none()));
    assert_eq!(guest.code(function("spin")).await, ErrorCode::Internal);
    drop(running.pop());
    let (ended, _) = poll(&mut Box::pin(guest.start(function("spin"))));
    assert!(ended.is_none());
}

#[tokio::test]
async fn thousands_of_runs_of_every_kind_leave_nothing() {
    let engines = engines();
    let load = |path| Guest::load(&wasm_of(path), &engines, Metering::Off);
    let (add, traps, plugin, bomb) = (
        load("typed/add.wat"),
        load("hostile/traps.wat"),
        load("plugin/get_output.wat"),
        load("hostile/memory_bomb.wat").memory_bytes(4 * 65_536),
    );
    let (exits, spins) = (load("hostile/exit_code.wat"), load("typed/spin.wat"));
    for round in 0..1000 {
        assert_eq!(add.results(args(json!([round, 1]))).await, json!([round + 1]));
        assert_eq!(traps.trap(function("unreachable")).await.0, "unreachable");
        assert_eq!(plugin.output(input("x")).await.0, "[x]");
        assert_eq!(
            bomb.code(function("grow_or_trap")).await,
            ErrorCode::MemoryExceeded
        );
        assert_eq!(exits.output(input("7")).await.1, 7);
        if round % 50 == 0 {
            assert!(poll(&mut Box::pin(spins.start(function("spin")))).0.is_none());
        }
    }
    for guest in [add, traps, plugin, bomb, exits, spins] {
        assert_eq!(guest.budget.used_bytes(), 0);
    }
}
