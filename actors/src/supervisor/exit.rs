//! The one place that knows how ractor words the end of an actor.

use ractor::{ActorId, ActorProcessingErr, SupervisionEvent};

use events::supervision::Exit;

/// The longest account of an exit that is kept, in characters.
const DETAIL_CHARS_MAX: usize = 256;

/// The end of a child.
pub(super) struct ChildExit {
    pub(super) actor: ActorId,
    pub(super) exit: Exit,
    pub(super) detail: String,
}

impl ChildExit {
    /// None: the event does not tell of an end.
    pub(super) fn read(event: &SupervisionEvent) -> Option<Self> {
        match event {
            SupervisionEvent::ActorTerminated(cell, _, reason) => {
                let reason = reason.as_deref().unwrap_or_default();
                let exit = match reason {
                    // A kill, and a task dropped by the runtime, are reported as an ordinary end with this reason.
                    "killed" | "actor_task_cancelled" => Exit::Killed,
                    "Drained" => Exit::Drained,
                    _ => Exit::Done,
                };
                Some(Self { actor: cell.get_id(), exit, detail: detail(reason) })
            }
            SupervisionEvent::ActorFailed(cell, error) => {
                let exit = if is_bare_text(error) { Exit::Panicked } else { Exit::Failed };
                Some(Self { actor: cell.get_id(), exit, detail: detail(error) })
            }
            _ => None,
        }
    }
}

/// The account of an exit, cut to a bounded length.
pub(super) fn detail(text: &(impl ToString + ?Sized)) -> String {
    text.to_string().chars().take(DETAIL_CHARS_MAX).collect()
}

/// Whether an error is nothing but a text. A panic reaches us as its message made an error, while the error of a
/// handler has a type of its own (a handler that fails with a bare text is counted as a panic). The type of such
/// an error cannot be named; that its two renderings differ by quotes only gives it away.
fn is_bare_text(error: &ActorProcessingErr) -> bool {
    format!("{error:?}") == format!("{:?}", error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("reach the store")]
    struct Typed;

    #[test]
    fn a_panic_is_told_from_an_error() {
        assert!(is_bare_text(&"index \"7\" out of\nbounds".into()));
        assert!(is_bare_text(&String::new().into()));
        assert!(!is_bare_text(&Typed.into()));
        assert!(!is_bare_text(&std::io::Error::other("disk full").into()));
    }

    #[test]
    fn an_account_is_cut_between_characters() {
        assert_eq!(detail(&"é".repeat(300)).chars().count(), DETAIL_CHARS_MAX);
    }
}
