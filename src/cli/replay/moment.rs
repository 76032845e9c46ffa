//! A moment of the log: a position or a time.

use std::fmt;
use std::str::FromStr;

use events::{Position, Recorded, Timestamp};

/// A moment: after an event, or at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Moment {
    /// After the event at this position.
    Position(Position),
    /// Before the first event that was decided after this time.
    Time(Timestamp),
}

impl Moment {
    /// Whether the event had happened.
    pub(super) fn includes(&self, event: &Recorded) -> bool {
        match self {
            Self::Position(position) => event.position <= *position,
            Self::Time(time) => event.recorded_at <= *time,
        }
    }

    /// Whether nothing after the event at `position` had happened, as far as the position alone can tell.
    pub(super) fn ends(&self, position: Position) -> bool {
        *self == Self::Position(position)
    }

    pub(super) fn is_time(&self) -> bool {
        matches!(self, Self::Time(_))
    }
}

impl FromStr for Moment {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let position = text.parse().ok().map(|position| Self::Position(Position(position)));
        let time = || Timestamp::parse_rfc3339(text).map(Self::Time);
        position
            .or_else(time)
            .ok_or_else(|| "expected a position, or a time such as 2026-11-23T01:30:00Z".to_owned())
    }
}

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Position(position) => write!(f, "position {position}"),
            Self::Time(time) => f.write_str(&time.rfc3339()),
        }
    }
}
