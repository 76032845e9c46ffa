//! Quantities as people write them: `100ms`, `256Mi`, `500m`, `200/s`.
//!
//! Each is a newtype over an integer in one fixed unit, so that no code downstream converts.
//! The written form is also the serialised form, and [`std::fmt::Display`] gives the shortest
//! one that says the same, so a manifest that is printed and read again is the same manifest.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// Why a written quantity was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("read `{found}` as {expected}")]
pub struct UnitError {
    /// The text as it was found.
    pub found: String,
    /// What would be right, with examples.
    pub expected: &'static str,
    /// The text that was probably meant, where one can be guessed.
    pub hint: Option<String>,
}

/// A length of time in milliseconds, written `100ms`, `3s`, `15m`, `2h` or `30d`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Millis(u64);

/// A size in bytes, written `512B`, `64Ki`, `256Mi`, `2Gi` or `1Ti`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Bytes(u64);

/// A share of processor time in thousandths of a core, written `500m` or, in whole cores, `2`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cpu(u64);

/// A rate in occurrences per second, written `200/s`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Rate(u64);

/// A quantity that is written as a whole number and a unit.
///
/// Implemented by the four quantities of this module; the trait is what lets the checks of
/// manifests and the serde and schema code below treat them alike.
pub trait Quantity: Copy + fmt::Display + FromStr<Err = UnitError> {
    /// The quantity's name in schemas.
    const NAME: &'static str;
    /// What would be right, with examples; completes "expected …".
    const EXPECTED: &'static str;
    /// The regular expression of the written form.
    const PATTERN: &'static str;
    /// Unit suffixes with their worth in the base unit, largest first.
    const UNITS: &'static [(&'static str, u64)];
    /// The unit that a bare number probably had, as an index into [`Quantity::UNITS`].
    const USUAL: usize;

    /// The number in the base unit.
    fn base(self) -> u64;
    /// Makes the quantity from a number in the base unit.
    fn from_base(value: u64) -> Self;
}

macro_rules! quantity {
    ($type:ident, $name:literal, $expected:literal, $json:tt, $pattern:literal, $usual:literal, $units:expr) => {
        impl Quantity for $type {
            const NAME: &'static str = $name;
            const EXPECTED: &'static str = $expected;
            const PATTERN: &'static str = $pattern;
            const UNITS: &'static [(&'static str, u64)] = &$units;
            const USUAL: usize = $usual;

            fn base(self) -> u64 {
                self.0
            }

            fn from_base(value: u64) -> Self {
                Self(value)
            }
        }

        impl FromStr for $type {
            type Err = UnitError;

            fn from_str(text: &str) -> Result<Self, UnitError> {
                read(text)
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write_shortest(*self, f)
            }
        }

        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
            }
        }

        impl JsonSchema for $type {
            fn schema_name() -> std::borrow::Cow<'static, str> {
                $name.into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({
                    "type": $json,
                    "pattern": $pattern,
                    "description": concat!("Written as ", $expected, "."),
                })
            }
        }
    };
}

quantity!(
    Millis,
    "Duration",
    "a duration such as `100ms`, `3s`, `15m`, `2h` or `30d`",
    "string",
    "^[0-9]+(ms|s|m|h|d)$",
    3,
    [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)]
);
quantity!(
    Bytes,
    "Bytes",
    "a size such as `512B`, `64Ki`, `256Mi` or `2Gi`",
    "string",
    "^[0-9]+(B|Ki|Mi|Gi|Ti)$",
    2,
    [("Ti", 1 << 40), ("Gi", 1 << 30), ("Mi", 1 << 20), ("Ki", 1 << 10), ("B", 1)]
);
quantity!(
    Cpu,
    "Cpu",
    "processor time such as `500m` (thousandths of a core) or `2` (whole cores)",
    ["string", "integer"],
    "^[0-9]+m?$",
    0,
    [("", 1_000), ("m", 1)]
);
quantity!(Rate, "Rate", "a rate per second such as `200/s`", "string", "^[0-9]+/s$", 0, [("/s", 1)]);

impl Millis {
    /// The longest duration that has no tighter limit: ten years.
    pub const MAX: Self = Self::from_secs(3_650 * 86_400);

    /// A duration of `value` milliseconds.
    pub const fn new(value: u64) -> Self {
        Self(value)
    }

    /// A duration of `value` seconds.
    pub const fn from_secs(value: u64) -> Self {
        Self(value * 1_000)
    }

    /// The duration in milliseconds.
    pub const fn as_millis(self) -> u64 {
        self.0
    }

    /// The duration as the standard library's type.
    pub const fn as_duration(self) -> Duration {
        Duration::from_millis(self.0)
    }
}

impl Bytes {
    /// A size of `value` bytes.
    pub const fn new(value: u64) -> Self {
        Self(value)
    }

    /// A size of `value` mebibytes.
    pub const fn from_mebibytes(value: u64) -> Self {
        Self(value << 20)
    }

    /// The size in bytes.
    pub const fn as_bytes(self) -> u64 {
        self.0
    }
}

impl Cpu {
    /// `value` thousandths of a core.
    pub const fn from_millicores(value: u64) -> Self {
        Self(value)
    }

    /// The share in thousandths of a core.
    pub const fn as_millicores(self) -> u64 {
        self.0
    }
}

impl Rate {
    /// `value` per second.
    pub const fn per_second(value: u64) -> Self {
        Self(value)
    }

    /// The rate in occurrences per second.
    pub const fn as_per_second(self) -> u64 {
        self.0
    }
}

fn read<Q: Quantity>(text: &str) -> Result<Q, UnitError> {
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    let worth = Q::UNITS.iter().find(|(suffix, _)| *suffix == unit).map(|(_, worth)| *worth);
    let Ok(number) = number.parse::<u64>() else {
        return Err(UnitError { found: text.to_owned(), expected: Q::EXPECTED, hint: None });
    };
    worth.and_then(|worth| number.checked_mul(worth)).map(Q::from_base).ok_or_else(|| UnitError {
        found: text.to_owned(),
        expected: Q::EXPECTED,
        hint: guess::<Q>(number, unit),
    })
}

/// Guesses what was meant by a number with a missing or misspelled unit: `3` is `3s`,
/// `256MB` is `256Mi`, `5 min` is `5m`. A number that is too great for its unit has no guess.
fn guess<Q: Quantity>(number: u64, unit: &str) -> Option<String> {
    let unit = unit.trim().to_ascii_lowercase();
    let alike =
        |probe: &str| Q::UNITS.iter().find(|(suffix, _)| suffix.to_ascii_lowercase().starts_with(probe));
    let (suffix, worth) = match unit.chars().next() {
        None => &Q::UNITS[Q::USUAL],
        Some(_) if unit.starts_with("ms") || unit.starts_with("mil") => alike("ms")?,
        Some(first) => alike(first.encode_utf8(&mut [0; 4]))?,
    };
    number.checked_mul(*worth).map(|_| format!("{number}{suffix}"))
}

fn write_shortest<Q: Quantity>(quantity: Q, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let base = quantity.base();
    let exact = |(_, worth): &&(&str, u64)| base.is_multiple_of(*worth);
    let (suffix, worth) = match base {
        0 => &Q::UNITS[Q::USUAL],
        _ => Q::UNITS.iter().find(exact).expect("the smallest unit is worth 1 and divides everything"),
    };
    write!(f, "{}{suffix}", base / worth)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hint<Q: Quantity + fmt::Debug>(text: &str) -> Option<String> {
        text.parse::<Q>().expect_err("refused").hint
    }

    #[test]
    fn reads_every_unit_and_prints_the_shortest_form() {
        for (text, millis, shortest) in [
            ("100ms", 100, "100ms"),
            ("3000ms", 3_000, "3s"),
            ("90s", 90_000, "90s"),
            ("120s", 120_000, "2m"),
            ("24h", 86_400_000, "1d"),
            ("0ms", 0, "0s"),
        ] {
            let read: Millis = text.parse().expect("valid");
            assert_eq!((read.as_millis(), read.to_string().as_str()), (millis, shortest), "{text}");
        }
        assert_eq!("256Mi".parse(), Ok(Bytes::from_mebibytes(256)));
        assert_eq!(Bytes::new(1025).to_string(), "1025B");
        assert_eq!("2".parse(), Ok(Cpu::from_millicores(2_000)));
        assert_eq!(Cpu::from_millicores(500).to_string(), "500m");
        assert_eq!("200/s".parse(), Ok(Rate::per_second(200)));
    }

    #[test]
    fn refuses_and_guesses_what_was_meant() {
        assert_eq!(hint::<Millis>("3").as_deref(), Some("3s"));
        assert_eq!(hint::<Millis>("5 min").as_deref(), Some("5m"));
        assert_eq!(hint::<Millis>("100 ms").as_deref(), Some("100ms"));
        assert_eq!(hint::<Millis>("10 msec").as_deref(), Some("10ms"));
        assert_eq!(hint::<Bytes>("256").as_deref(), Some("256Mi"));
        assert_eq!(hint::<Bytes>("256MB").as_deref(), Some("256Mi"));
        assert_eq!(hint::<Rate>("200").as_deref(), Some("200/s"));
        assert_eq!(hint::<Millis>("-3s"), None);
        assert_eq!(hint::<Millis>("1.5h"), None);
        assert_eq!(hint::<Millis>("3 µs"), None);
        assert_eq!(hint::<Millis>(""), None);
    }

    #[test]
    fn refuses_what_does_not_fit() {
        assert!("18446744073709551616ms".parse::<Millis>().is_err());
        assert!("18446744073709551615d".parse::<Millis>().is_err());
    }
}
