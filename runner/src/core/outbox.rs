//! What waits to be sent: bounded, in order, and notes only as fast as they are welcome.

use std::{collections::VecDeque, time::Duration};

use link::{Dropped, Error, ErrorType, NoteFrame, ToGateway, limits::NOTES_PER_SECOND_MAX};
use tokio::time::Instant;

use crate::mask::Mask;

/// Notes that may wait; beyond, the oldest goes.
const NOTES_MAX: usize = 256;
/// Other frames that may wait. There are as many as the core has tasks, calls and messages in hand, which are bounded
/// elsewhere; this holds even should the gateway provoke errors without end.
const FRAMES_MAX: usize = 2_048;

/// What becomes of a waiting frame when the link is lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OnLoss {
    /// It waits for the next link.
    Keep,
    /// It goes: the core makes it anew, or it means nothing on another link.
    Forget,
}

#[derive(Debug)]
struct Waiting {
    order: u64,
    on_loss: OnLoss,
    text: String,
}

#[derive(Debug)]
struct Note {
    order: u64,
    is_progress: bool,
    text: String,
}

/// Frames and notes in two queues with one order, so that dropping a note is cheap and changes no order.
#[derive(Debug)]
pub(crate) struct Outbox {
    frames: VecDeque<Waiting>,
    notes: VecDeque<Note>,
    order: u64,
    dropped: Dropped,
    allowance: Allowance,
    mask: Mask,
}

impl Outbox {
    pub(crate) fn new(now: Instant, mask: Mask) -> Self {
        Self {
            frames: VecDeque::new(),
            notes: VecDeque::new(),
            order: 0,
            dropped: Dropped::default(),
            allowance: Allowance::new(now),
            mask,
        }
    }

    fn next_order(&mut self) -> u64 {
        self.order += 1;
        self.order
    }

    /// Queues a frame. Errors: `too_large`, and nothing is queued.
    pub(crate) fn push(&mut self, frame: &ToGateway, on_loss: OnLoss) -> Result<(), Error> {
        let text = self.mask.frame(encode(frame)?);
        if self.frames.len() >= FRAMES_MAX {
            return Err(Error::new(ErrorType::Unavailable, "too many frames wait for the link"));
        }
        let order = self.next_order();
        self.frames.push_back(Waiting { order, on_loss, text });
        Ok(())
    }

    /// Queues a note; the oldest one makes room. Errors: `too_large`.
    pub(crate) fn push_note(&mut self, note: NoteFrame) -> Result<(), Error> {
        let is_progress = matches!(note.method.as_str(), "task/progress" | "busy");
        let text = self.mask.frame(encode(&ToGateway::Note(note))?);
        if self.notes.len() >= NOTES_MAX {
            self.drop_note();
        }
        let order = self.next_order();
        self.notes.push_back(Note { order, is_progress, text });
        Ok(())
    }

    fn drop_note(&mut self) {
        if let Some(note) = self.notes.pop_front() {
            let count = if note.is_progress { &mut self.dropped.progress } else { &mut self.dropped.log };
            *count += 1;
        }
    }

    /// The next text to send. A note that must not go yet never holds up a frame behind it: it is dropped.
    pub(crate) fn pop(&mut self, now: Instant) -> Option<String> {
        while self.is_note_next() {
            if self.allowance.take(now) {
                return self.notes.pop_front().map(|note| note.text);
            }
            if self.frames.is_empty() {
                return None;
            }
            self.drop_note();
        }
        self.frames.pop_front().map(|frame| frame.text)
    }

    fn is_note_next(&self) -> bool {
        match (self.notes.front(), self.frames.front()) {
            (Some(note), Some(frame)) => note.order < frame.order,
            (note, _) => note.is_some(),
        }
    }

    /// When something can go: now, later, or not before something is queued.
    pub(crate) fn ready_at(&self, now: Instant) -> Option<Instant> {
        if !self.frames.is_empty() {
            return Some(now);
        }
        (!self.notes.is_empty()).then(|| self.allowance.next(now))
    }

    /// Whether no frame waits; notes do not count.
    pub(crate) fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    /// Keeps what survives the loss of a link.
    pub(crate) fn on_loss(&mut self) {
        self.frames.retain(|frame| frame.on_loss == OnLoss::Keep);
    }

    /// How many notes were dropped since this was last asked.
    pub(crate) fn take_dropped(&mut self) -> Dropped {
        std::mem::take(&mut self.dropped)
    }
}

pub(crate) fn encode(frame: &ToGateway) -> Result<String, Error> {
    let text = serde_json::to_string(frame).map_err(|error| Error::new(ErrorType::Internal, error))?;
    link::check_frame(&text)?;
    Ok(text)
}

/// A token bucket of one second's notes.
#[derive(Debug)]
struct Allowance {
    notes: f64,
    at: Instant,
}

impl Allowance {
    fn new(now: Instant) -> Self {
        Self { notes: f64::from(NOTES_PER_SECOND_MAX), at: now }
    }

    fn at(&self, now: Instant) -> f64 {
        let refilled = now.duration_since(self.at).as_secs_f64() * f64::from(NOTES_PER_SECOND_MAX);
        (self.notes + refilled).min(f64::from(NOTES_PER_SECOND_MAX))
    }

    fn take(&mut self, now: Instant) -> bool {
        self.notes = self.at(now);
        self.at = now;
        let has_one = self.notes >= 1.0;
        if has_one {
            self.notes -= 1.0;
        }
        has_one
    }

    fn next(&self, now: Instant) -> Instant {
        let missing = (1.0 - self.at(now)).max(0.0);
        now + Duration::from_secs_f64(missing / f64::from(NOTES_PER_SECOND_MAX))
    }
}

#[cfg(test)]
mod tests {
    use link::{CallFrame, Id, limits::FRAME_BYTES_MAX};
    use serde_json::{Value, json};

    use super::*;

    fn note(number: usize) -> NoteFrame {
        NoteFrame { method: "log".into(), params: json!({"message": number.to_string()}) }
    }

    fn call(id: u64) -> ToGateway {
        ToGateway::Call(CallFrame { id, method: "tool/list".into(), params: json!({}), repeat: None })
    }

    fn ack(re: &str) -> ToGateway {
        ToGateway::Ack { re: Id::try_from(re).unwrap() }
    }

    fn pop(outbox: &mut Outbox, now: Instant) -> Value {
        serde_json::from_str(&outbox.pop(now).unwrap()).unwrap()
    }

    #[tokio::test]
    async fn a_flood_of_notes_is_bounded_oldest_first_and_counted() {
        let now = Instant::now();
        let mut outbox = Outbox::new(now, Mask::default());
        for number in 0..NOTES_MAX + 10 {
            outbox.push_note(note(number)).unwrap();
        }
        assert_eq!(outbox.take_dropped(), Dropped { log: 10, progress: 0 });
        assert_eq!(pop(&mut outbox, now)["params"]["message"], "10");
        assert_eq!(outbox.take_dropped(), Dropped::default());
    }

    #[tokio::test]
    async fn notes_go_before_the_frame_behind_them_but_never_hold_it_up() {
        let now = Instant::now();
        let mut outbox = Outbox::new(now, Mask::default());
        outbox.push_note(note(1)).unwrap();
        outbox.push(&call(1), OnLoss::Forget).unwrap();
        assert_eq!(pop(&mut outbox, now)["t"], "note");
        assert_eq!(pop(&mut outbox, now)["t"], "call");
        for number in 0..NOTES_PER_SECOND_MAX as usize {
            outbox.push_note(note(number)).unwrap();
        }
        while outbox.pop(now).is_some() {}
        assert!(outbox.ready_at(now).unwrap() > now, "notes wait for the rate");
        outbox.push(&call(2), OnLoss::Forget).unwrap();
        assert_eq!(pop(&mut outbox, now)["id"], 2);
        assert!(outbox.take_dropped().log > 0);
    }

    #[tokio::test]
    async fn the_loss_of_a_link_keeps_what_nobody_makes_anew() {
        let now = Instant::now();
        let mut outbox = Outbox::new(now, Mask::default());
        outbox.push(&call(1), OnLoss::Forget).unwrap();
        outbox.push(&ack("f_1"), OnLoss::Keep).unwrap();
        outbox.on_loss();
        assert_eq!(pop(&mut outbox, now)["t"], "ack");
        assert!(outbox.is_empty());
    }

    #[tokio::test]
    async fn a_frame_too_large_is_refused_whole() {
        let mut outbox = Outbox::new(Instant::now(), Mask::default());
        let large =
            NoteFrame { method: "log".into(), params: json!({"message": "x".repeat(FRAME_BYTES_MAX)}) };
        assert_eq!(outbox.push_note(large).unwrap_err().kind, Some(ErrorType::TooLarge));
    }
}
