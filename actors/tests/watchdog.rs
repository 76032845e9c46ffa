//! The watchdog's drivers: its own thread, and a runtime with a paused clock.

use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tokio::time::timeout;

use events::Incarnation;
use hypercode_actors::watchdog::{self, Beat, Finding, Handle, Options, Sign, Signal, Subject, Verdict};
use link::Liveness;

const BOUND: Duration = Duration::from_secs(60);
const LIVENESS: Liveness = Liveness { heartbeat_ms: 20, missed: 2, progress_ms: 1_000 };

fn subject(number: usize) -> Subject {
    Subject { agent: format!("ag_{number}").parse().expect("legal"), incarnation: Incarnation(1) }
}

fn adopted(number: usize) -> Signal {
    Signal::Of(subject(number), Sign::Adopted(LIVENESS))
}

fn lost(number: usize) -> Verdict {
    Verdict { subject: subject(number), finding: Finding::Lost }
}

fn simulated(options: Options) -> (Handle, mpsc::Receiver<Verdict>) {
    let (handle, signals) = Handle::channel(&options);
    let (outbox, verdicts) = mpsc::channel(options.verdicts_max);
    tokio::spawn(watchdog::drive(options, signals, outbox));
    (handle, verdicts)
}

#[test]
fn a_blocked_runtime_does_not_stop_the_watchdog() {
    let (handle, mut verdicts, thread) = watchdog::spawn(Options::default()).expect("the thread starts");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        handle.tell(adopted(1)).await.expect("the watchdog runs");
        // From here on nothing else can run on this runtime, timers included.
        let began = Instant::now();
        let verdict = loop {
            if let Ok(verdict) = verdicts.try_recv() {
                break verdict;
            }
            assert!(began.elapsed() < BOUND, "no verdict came");
            std::thread::yield_now();
        };
        assert_eq!(verdict, lost(1));
    });
    drop(handle);
    thread.join().expect("it ends with its last handle");
}

#[test]
fn the_thread_ends_when_nobody_reads_its_verdicts() {
    let (handle, verdicts, thread) = watchdog::spawn(Options::default()).expect("the thread starts");
    drop(verdicts);
    thread.join().expect("it ends");
    assert_eq!(handle.try_tell(Signal::Tick), Err(Signal::Tick));
}

#[tokio::test(start_paused = true)]
async fn a_verdict_comes_at_its_time_on_a_virtual_clock() {
    let (handle, mut verdicts) = simulated(Options::default());
    let began = tokio::time::Instant::now();
    handle.tell(adopted(1)).await.expect("the watchdog runs");
    let verdict = timeout(BOUND, verdicts.recv()).await.expect("in time");
    assert_eq!(verdict, Some(lost(1)));
    assert_eq!(began.elapsed(), Duration::from_millis(40));
}

#[tokio::test(start_paused = true)]
async fn a_jump_of_the_clock_condemns_nobody_who_is_still_there() {
    let (handle, mut verdicts) = simulated(Options::default());
    for number in 0..100 {
        handle.tell(adopted(number)).await.expect("the watchdog runs");
    }
    tokio::time::advance(Duration::from_secs(3_600)).await;
    for number in 1..100 {
        let beat = Signal::Of(subject(number), Sign::Heartbeat(Beat::default()));
        handle.tell(beat).await.expect("the watchdog runs");
    }
    let verdict = timeout(BOUND, verdicts.recv()).await.expect("the one that is gone is found");
    assert_eq!(verdict, Some(lost(0)));
}

#[tokio::test(start_paused = true)]
async fn a_pulse_lets_verdicts_come_and_does_not_keep_the_watchdog_alive() {
    let (handle, mut verdicts) = simulated(Options::default());
    let pulse = tokio::spawn(handle.pulse(100));
    handle.tell(adopted(1)).await.expect("the watchdog runs");
    assert_eq!(timeout(BOUND, verdicts.recv()).await.expect("in time"), Some(lost(1)));
    drop(handle);
    assert_eq!(timeout(BOUND, verdicts.recv()).await.expect("it ends"), None);
    timeout(BOUND, pulse).await.expect("it ends").expect("without panic");
}

#[tokio::test(start_paused = true)]
async fn verdicts_wait_for_their_reader() {
    let (handle, mut verdicts) = simulated(Options { verdicts_max: 1, ..Options::default() });
    for number in 0..100 {
        handle.tell(adopted(number)).await.expect("the watchdog runs");
    }
    tokio::time::sleep(Duration::from_secs(10)).await;
    let mut found = Vec::new();
    for _ in 0..100 {
        found.push(timeout(BOUND, verdicts.recv()).await.expect("none is lost").expect("the watchdog runs"));
    }
    found.sort_by(|a, b| a.subject.cmp(&b.subject));
    let mut expected: Vec<Verdict> = (0..100).map(lost).collect();
    expected.sort_by(|a, b| a.subject.cmp(&b.subject));
    assert_eq!(found, expected);
    assert!(timeout(BOUND, verdicts.recv()).await.is_err(), "none comes twice");
    drop(handle);
}
