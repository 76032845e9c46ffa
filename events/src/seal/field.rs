//! Which fields of which events are personal: whatever people and agents say in their own words.
//!
//! Ids, names of members, times, states and counts are not: without the words they are about nobody.

/// What of one kind of event is personal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Marked {
    /// The event's kind.
    pub kind: &'static str,
    /// Fields that are sealed, as JSON pointers (RFC 6901).
    pub fields: &'static [&'static str],
    /// Digests of personal data. They keep their form but say nothing without the key.
    pub digests: &'static [&'static str],
}

const fn sealed(kind: &'static str, fields: &'static [&'static str]) -> Marked {
    Marked { kind, fields, digests: &[] }
}

const MARKED: &[Marked] = &[
    Marked { kind: "task_submitted", fields: &["/subject", "/input"], digests: &["/request_digest"] },
    sealed("attempt_ended", &["/detail"]),
    sealed("task_progressed", &["/message"]),
    sealed("task_checkpointed", &["/data"]),
    Marked { kind: "child_delegated", fields: &[], digests: &["/digest"] },
    sealed("input_requested", &["/request"]),
    sealed("input_answered", &["/answer/content"]),
    sealed("cancel_requested", &["/reason"]),
    sealed("task_completed", &["/output", "/artifacts"]),
    sealed("task_failed", &["/message"]),
    sealed("task_canceled", &["/reason"]),
    sealed("task_rejected", &["/message"]),
    sealed("task_dead_lettered", &["/message"]),
    sealed("message_sent", &["/body/inline", "/body/stored/key"]),
    sealed("state_put", &["/value/inline", "/value/stored/key"]),
];

/// What of an event of this kind is personal; `None` if nothing is.
pub fn marked(kind: &str) -> Option<&'static Marked> {
    MARKED.iter().find(|marked| marked.kind == kind)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{DomainEvent, message, state, task};

    #[test]
    fn only_kinds_that_exist_are_marked() {
        let kinds = [task::Event::KINDS, message::Event::KINDS, state::Event::KINDS].concat();
        for marked in MARKED {
            assert!(kinds.iter().any(|(kind, _)| *kind == marked.kind), "{}", marked.kind);
        }
    }
}
