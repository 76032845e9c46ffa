//! Where a task or a message goes.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::Id;

/// A receiver inside the sender's crew.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Address {
    /// `writer`: any READY replica of the member, else its queue.
    Member(String),
    /// `writer[2]`: this replica.
    Replica(String, u32),
    /// `writer[*]`: every replica; for messages only.
    All(String),
    /// `agent:<id>`: this agent.
    Agent(Id),
}

/// Why a text is no address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("read the address `{0}`: write `member`, `member[2]`, `member[*]` or `agent:<id>`")]
pub struct AddressError(String);

impl Address {
    /// The member addressed, where the address names one.
    pub fn member(&self) -> Option<&str> {
        match self {
            Self::Member(member) | Self::Replica(member, _) | Self::All(member) => Some(member),
            Self::Agent(_) => None,
        }
    }
}

/// Members are named like DNS labels, with `_` and `.` tolerated.
fn is_member(name: &str) -> bool {
    (1..=63).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
}

fn parse(text: &str) -> Option<Address> {
    if let Some(id) = text.strip_prefix("agent:") {
        return Id::try_from(id).ok().map(Address::Agent);
    }
    let Some((member, rest)) = text.split_once('[') else {
        return is_member(text).then(|| Address::Member(text.to_owned()));
    };
    let index = rest.strip_suffix(']')?;
    if !is_member(member) {
        return None;
    }
    if index == "*" {
        return Some(Address::All(member.to_owned()));
    }
    let canonical = index.bytes().all(|b| b.is_ascii_digit()) && (index == "0" || !index.starts_with('0'));
    let replica = index.parse().ok().filter(|_| canonical)?;
    Some(Address::Replica(member.to_owned(), replica))
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        parse(text).ok_or_else(|| AddressError(text.chars().take(80).collect()))
    }
}

impl TryFrom<String> for Address {
    type Error = AddressError;

    fn try_from(text: String) -> Result<Self, AddressError> {
        text.parse()
    }
}

impl From<Address> for String {
    fn from(address: Address) -> Self {
        address.to_string()
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Member(member) => f.write_str(member),
            Self::Replica(member, replica) => write!(f, "{member}[{replica}]"),
            Self::All(member) => write!(f, "{member}[*]"),
            Self::Agent(id) => write!(f, "agent:{id}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_four_forms_and_writes_them_back() {
        for text in ["writer", "writer[2]", "writer[0]", "writer[*]", "agent:ag_1"] {
            assert_eq!(text.parse::<Address>().map(|a| a.to_string()), Ok(text.to_owned()));
        }
    }

    #[test]
    fn refuses_everything_else() {
        for text in [
            "",
            "a b",
            "writer[",
            "writer[]",
            "writer[01]",
            "writer[-1]",
            "writer[+1]",
            "writer[2]x",
            "writer[99999999999]",
            "agent:",
            "[1]",
            "x:y",
            "../etc",
        ] {
            assert!(text.parse::<Address>().is_err(), "{text}");
        }
    }
}
