//! Names of sandboxes and of the platform instance that owns them.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::Error;

/// Longest sandbox id, in bytes: it is also a file name, a container name and a label.
const ID_BYTES_MAX: usize = 63;

/// Length of an instance id, in hexadecimal digits.
const INSTANCE_DIGITS: usize = 8;

/// A sandbox's id: 1 to 63 of `a-z`, `0-9` and `-`, the first no `-`.
///
/// It is used once: a sandbox that was ever created or destroyed under an id is never started again.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Id(String);

impl Id {
    /// Checks `text` and makes an id of it.
    ///
    /// # Errors
    /// [`Error::Invalid`] where `text` is empty, too long or has another character.
    pub fn new(text: impl Into<String>) -> Result<Self, Error> {
        let text = text.into();
        let legal = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        if text.is_empty() || text.len() > ID_BYTES_MAX || text.starts_with('-') || !text.bytes().all(legal) {
            return Err(Error::invalid(
                "sandbox id",
                &text,
                "1 to 63 of `a-z`, `0-9` and `-`, starting with no `-`",
            ));
        }
        Ok(Self(text))
    }

    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The platform instance that owns a sandbox: 8 lower-case hexadecimal digits, kept with its data.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Instance(String);

impl Instance {
    /// Checks `text` and makes an instance id of it.
    ///
    /// # Errors
    /// [`Error::Invalid`] where `text` is not 8 lower-case hexadecimal digits.
    pub fn new(text: impl Into<String>) -> Result<Self, Error> {
        let text = text.into();
        let legal = |b: u8| matches!(b, b'0'..=b'9' | b'a'..=b'f');
        if text.len() != INSTANCE_DIGITS || !text.bytes().all(legal) {
            return Err(Error::invalid("instance id", &text, "8 lower-case hexadecimal digits"));
        }
        Ok(Self(text))
    }

    /// The instance id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

macro_rules! text {
    ($name:ident) => {
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
        impl FromStr for $name {
            type Err = Error;
            fn from_str(text: &str) -> Result<Self, Error> {
                Self::new(text)
            }
        }
        impl TryFrom<String> for $name {
            type Error = Error;
            fn try_from(text: String) -> Result<Self, Error> {
                Self::new(text)
            }
        }
        impl From<$name> for String {
            fn from(value: $name) -> Self {
                value.0
            }
        }
    };
}

text!(Id);
text!(Instance);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_safe_as_a_file_name() {
        for legal in ["a", "0", "018f3c9e-7b1a-7c30-9a52-0242ac120002", &"x".repeat(63)] {
            assert!(Id::new(legal).is_ok(), "{legal}");
        }
        for illegal in ["", ".", "..", ".used", "-a", "a/b", "A", "a b", "a\0", "é", &"x".repeat(64)] {
            assert!(Id::new(illegal).is_err(), "{illegal:?}");
        }
    }

    #[test]
    fn an_instance_is_eight_hexadecimal_digits() {
        assert!(Instance::new("00c0ffee").is_ok());
        for illegal in ["", "c0ffee", "00C0FFEE", "00c0ffee0", "00c0ffeg"] {
            assert!(Instance::new(illegal).is_err(), "{illegal:?}");
        }
    }

    #[test]
    fn an_id_from_json_is_checked_too() {
        assert!(serde_json::from_str::<Id>("\"good-1\"").is_ok());
        assert!(serde_json::from_str::<Id>("\"../etc\"").is_err());
    }
}
