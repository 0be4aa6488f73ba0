//! The verdicts of a process's life, one test each. Signals are tested with real processes by the crates that have some.

use super::*;

const LONG: Duration = Duration::from_secs(60);

async fn run(lifecycle: &Lifecycle, grace: Duration) -> Exit {
    let signals = Signals::install().unwrap();
    lifecycle.run(signals, grace, async { Ok(()) }).await
}

#[tokio::test]
async fn a_stop_that_was_asked_for_waits_for_its_tasks_and_exits_0() {
    let lifecycle = Lifecycle::default();
    let (finished, shutdown) = (Arc::new(Mutex::new(false)), lifecycle.shutdown.clone());
    let flag = finished.clone();
    lifecycle.spawn("worker", async move {
        shutdown.cancelled().await;
        tokio::task::yield_now().await;
        *flag.lock().unwrap() = true;
    });
    lifecycle.stop();
    assert_eq!(run(&lifecycle, LONG).await, Exit::Done);
    assert!(*finished.lock().unwrap());
    assert_eq!(lifecycle.health.readiness().phase, Phase::Draining);
}

#[tokio::test]
async fn a_task_that_ends_unasked_stops_the_process_with_a_failure() {
    let lifecycle = Lifecycle::default();
    lifecycle.spawn("subscription", async {});
    assert_eq!(run(&lifecycle, LONG).await, Exit::Internal);
}

#[tokio::test]
async fn a_panic_stops_the_process_with_a_failure_even_in_a_brief_task() {
    let lifecycle = Lifecycle::default();
    lifecycle.spawn_brief("compile", async { panic!("a bug of ours") });
    assert_eq!(run(&lifecycle, LONG).await, Exit::Internal);
}

#[tokio::test]
async fn a_panic_during_a_drain_outweighs_the_stop_that_was_asked_for() {
    let lifecycle = Lifecycle::default();
    let shutdown = lifecycle.shutdown.clone();
    lifecycle.spawn("worker", async move {
        shutdown.cancelled().await;
        panic!("a bug of ours");
    });
    lifecycle.stop();
    assert_eq!(run(&lifecycle, LONG).await, Exit::Internal);
}

#[tokio::test]
async fn a_brief_task_may_end() {
    let lifecycle = Lifecycle::default();
    let stopper = lifecycle.clone();
    lifecycle.spawn_brief("compile", async {});
    lifecycle.spawn_brief("stop", async move { stopper.stop() });
    assert_eq!(run(&lifecycle, LONG).await, Exit::Done);
}

#[tokio::test(start_paused = true)]
async fn work_past_its_grace_is_cut_and_the_exit_code_says_so() {
    let lifecycle = Lifecycle::default();
    let cut = lifecycle.cut.clone();
    lifecycle.spawn("stubborn", async move { cut.cancelled().await });
    lifecycle.stop();
    assert_eq!(run(&lifecycle, LONG).await, Exit::Cut);
}

#[tokio::test(start_paused = true)]
async fn a_task_that_ignores_the_cut_does_not_hold_the_process() {
    let lifecycle = Lifecycle::default();
    lifecycle.spawn("deaf", std::future::pending());
    lifecycle.stop();
    assert_eq!(run(&lifecycle, LONG).await, Exit::Cut);
}

#[tokio::test]
async fn a_failed_start_exits_with_its_own_code_after_a_drain() {
    let lifecycle = Lifecycle::default();
    let shutdown = lifecycle.shutdown.clone();
    lifecycle.spawn(
        "opened before the failure",
        async move { shutdown.cancelled().await },
    );
    let start = async { Err::<(), _>(ConfigError::new("--data", "is locked").into()) };
    let exit = lifecycle.run(Signals::install().unwrap(), LONG, start).await;
    assert_eq!(exit, Exit::Config);
}

#[tokio::test]
async fn a_fault_while_starting_ends_the_start() {
    let lifecycle = Lifecycle::default();
    lifecycle.spawn("subscription", async {});
    let start = std::future::pending::<Result<(), Failure>>();
    assert_eq!(
        lifecycle.run(Signals::install().unwrap(), LONG, start).await,
        Exit::Internal
    );
}

#[tokio::test]
async fn background_tasks_outlive_the_drain() {
    let lifecycle = Lifecycle::default();
    let (closed, shutdown) = (lifecycle.closed.clone(), lifecycle.shutdown.clone());
    let still_open = closed.clone();
    lifecycle.spawn_background("admin", async move { closed.cancelled().await });
    lifecycle.spawn("worker", async move {
        shutdown.cancelled().await;
        assert!(!still_open.is_cancelled());
    });
    lifecycle.stop();
    assert_eq!(run(&lifecycle, LONG).await, Exit::Done);
}
