//! Names of crews, members, profiles, tenants and pools.

use std::borrow::Borrow;
use std::fmt;
use std::ops::Deref;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A label as in RFC 1123: lower case letters, digits and inner hyphens, 1 to 40 characters.
///
/// Shorter than the RFC's 63, so that a name with an ordinal and a suffix still is a valid host,
/// container and file name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(String);

/// The text is no [`Name`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("read `{found}` as {}", Name::EXPECTED)]
pub struct NameError {
    /// The text as it was found.
    pub found: String,
}

impl Name {
    /// The most characters a name may have.
    pub const LENGTH_MAX: usize = 40;
    /// The regular expression of a name.
    pub const PATTERN: &'static str = "^[a-z0-9]([-a-z0-9]{0,38}[a-z0-9])?$";
    /// What would be right, with examples; completes "expected …".
    pub const EXPECTED: &'static str =
        "a name of lower case letters, digits and inner hyphens, at most 40 characters";

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Takes text as a name without looking at it, so that the checks which compare names can go
    /// on after a fault in one of them. Such a name never leaves the crate.
    pub(crate) fn unchecked(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    fn is_valid(text: &str) -> bool {
        let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        (1..=Self::LENGTH_MAX).contains(&text.len())
            && text.bytes().all(inner)
            && !text.starts_with('-')
            && !text.ends_with('-')
    }
}

impl FromStr for Name {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        match Self::is_valid(text) {
            true => Ok(Self(text.to_owned())),
            false => Err(NameError { found: text.to_owned() }),
        }
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Deref for Name {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl Borrow<str> for Name {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl PartialEq<str> for Name {
    fn eq(&self, other: &str) -> bool {
        self.0 == other
    }
}

impl Serialize for Name {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Name {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

impl JsonSchema for Name {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Name".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "pattern": Self::PATTERN, "maxLength": Self::LENGTH_MAX })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_a_label() {
        for good in ["a", "7", "code-health", "a--b", &"x".repeat(40)] {
            assert!(good.parse::<Name>().is_ok(), "{good}");
        }
        for bad in ["", "-a", "a-", "Scout", "a_b", "a.b", "ä", &"x".repeat(41)] {
            assert!(bad.parse::<Name>().is_err(), "{bad}");
        }
    }
}
