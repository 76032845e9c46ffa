//! Opaque ids.

use std::{borrow::Borrow, fmt, ops::Deref, sync::Arc};

use serde::{Deserialize, Serialize};

use crate::limits::ID_CHARS_MAX;

/// An opaque id of a task, context, message, agent or frame: 1 to 64 visible characters, compared byte for byte.
/// Cheap to clone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Id(Arc<str>);

/// Why a text is no id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("read an id of {chars} characters: an id has 1 to {ID_CHARS_MAX} visible characters")]
pub struct IdError {
    chars: usize,
}

impl Id {
    /// The id's text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<&str> for Id {
    type Error = IdError;

    fn try_from(text: &str) -> Result<Self, IdError> {
        let chars = text.chars().count();
        let visible = text.chars().all(|c| !c.is_control() && !c.is_whitespace());
        if chars == 0 || chars > ID_CHARS_MAX || !visible {
            Err(IdError { chars })
        } else {
            Ok(Self(text.into()))
        }
    }
}

impl TryFrom<String> for Id {
    type Error = IdError;

    fn try_from(text: String) -> Result<Self, IdError> {
        Self::try_from(text.as_str())
    }
}

impl std::str::FromStr for Id {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        Self::try_from(text)
    }
}

impl From<Id> for String {
    fn from(id: Id) -> Self {
        id.0.as_ref().into()
    }
}

impl Deref for Id {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl Borrow<str> for Id {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_up_to_64_visible_characters() {
        assert_eq!(Id::try_from("tk_9").map(|id| id.to_string()), Ok("tk_9".to_owned()));
        assert!(Id::try_from("é".repeat(64).as_str()).is_ok());
        for bad in ["", " ", "a b", "a\nb", &"x".repeat(65)] {
            assert!(Id::try_from(bad).is_err(), "{bad:?}");
        }
    }
}
