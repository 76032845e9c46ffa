//! Feeds the watchdog: on a thread of its own in production, on any runtime in simulation.

use std::collections::VecDeque;
use std::io;
use std::thread;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until};

use super::{Signal, Verdict, Watchdog};

/// The bounds of a driver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// The longest time between two steps.
    pub tick_ms: u64,
    /// The time between two steps from which on the watchdog itself was away; see [`Watchdog::new`]. More than
    /// `tick_ms`.
    pub pause_ms: u64,
    /// Signals that may wait to be taken in; their senders wait for room.
    pub signals_max: usize,
    /// Verdicts that may wait to be taken out. While more wait, no signals are taken in and none are added.
    pub verdicts_max: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self { tick_ms: 100, pause_ms: 1_000, signals_max: 16_384, verdicts_max: 4_096 }
    }
}

/// The watchdog has ended: its verdicts are not read any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("reach the watchdog: nobody reads its verdicts any more")]
pub struct Closed;

/// Tells the watchdog what is seen. When the last one is dropped, the watchdog ends.
#[derive(Clone, Debug)]
pub struct Handle {
    signals: mpsc::Sender<Signal>,
}

impl Handle {
    /// A handle, and the end of it that [`drive`] reads.
    pub fn channel(options: &Options) -> (Self, mpsc::Receiver<Signal>) {
        let (signals, inbox) = mpsc::channel(options.signals_max.max(1));
        (Self { signals }, inbox)
    }

    /// Passes a signal on, waiting for room where there is none.
    pub async fn tell(&self, signal: Signal) -> Result<(), Closed> {
        self.signals.send(signal).await.map_err(|_| Closed)
    }

    /// Sends a pulse every `every_ms` (well below [`Options::pause_ms`]) until the watchdog ends. To be spawned on
    /// the runtime that reads the links, so that the watchdog does not take what is unread for silence.
    pub fn pulse(&self, every_ms: u64) -> impl Future<Output = ()> + Send + use<> {
        let signals = self.signals.downgrade();
        async move {
            // No strong sender is held while it sleeps: the last handle ends the watchdog.
            while let Some(signals) = signals.upgrade() {
                if signals.send(Signal::Pulse).await.is_err() {
                    return;
                }
                drop(signals);
                sleep(Duration::from_millis(every_ms.max(1))).await;
            }
        }
    }

    /// Passes a signal on at once, or gives it back where there is no room or no watchdog.
    pub fn try_tell(&self, signal: Signal) -> Result<(), Signal> {
        self.signals.try_send(signal).map_err(mpsc::error::TrySendError::into_inner)
    }
}

/// Starts a watchdog on an OS thread and runtime of its own, which nothing that blocks elsewhere can hold up.
///
/// The thread ends when all handles are dropped, or the receiver of the verdicts is.
pub fn spawn(options: Options) -> io::Result<(Handle, mpsc::Receiver<Verdict>, thread::JoinHandle<()>)> {
    let (handle, inbox) = Handle::channel(&options);
    let (outbox, verdicts) = mpsc::channel(options.verdicts_max.max(1));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
    let thread = thread::Builder::new()
        .name("watchdog".to_owned())
        .spawn(move || runtime.block_on(drive(options, inbox, outbox)))?;
    Ok((handle, verdicts, thread))
}

/// Runs a watchdog on the current runtime and its clock until all senders of signals, or the receiver of verdicts,
/// are gone.
pub async fn drive(options: Options, mut signals: mpsc::Receiver<Signal>, verdicts: mpsc::Sender<Verdict>) {
    let started = Instant::now();
    let mut watchdog = Watchdog::new(0, options.pause_ms);
    let mut waiting: VecDeque<Verdict> = VecDeque::new();
    let mut now_ms = 0;
    loop {
        let tick_ms = now_ms + options.tick_ms.max(1);
        let wake_ms = watchdog.next_check_ms().map_or(tick_ms, |check_ms| check_ms.min(tick_ms));
        // Who has no room for verdicts gets no new ones either. Where that lasts, it counts as the watchdog's own
        // absence, so nobody is blamed for signals that were left unread.
        let has_room = waiting.len() < options.verdicts_max.max(1);
        let signal = tokio::select! {
            biased;
            room = verdicts.reserve(), if !waiting.is_empty() => match (room, waiting.pop_front()) {
                (Ok(room), Some(verdict)) => {
                    room.send(verdict);
                    continue;
                }
                _ => return,
            },
            () = verdicts.closed() => return,
            signal = signals.recv(), if has_room => match signal {
                Some(signal) => signal,
                None => return,
            },
            () = sleep_until(started + Duration::from_millis(wake_ms)), if has_room => Signal::Tick,
        };
        now_ms = started.elapsed().as_millis() as u64;
        waiting.extend(watchdog.step(now_ms, signal));
    }
}
