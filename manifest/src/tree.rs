//! A document as a tree of values that know where they stand.

/// A line and a column, both from 1.
pub(crate) type Position = (usize, usize);

/// A value and where it begins.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Node {
    pub(crate) position: Position,
    pub(crate) value: Value,
    /// How many values this one is made of, itself included.
    pub(crate) size: usize,
    /// How many levels of values there are below this one.
    pub(crate) height: usize,
}

/// What a value is.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Value {
    Scalar(Scalar, String),
    List(Vec<Node>),
    Map(Vec<Entry>),
}

/// The type of a scalar, by the YAML core schema.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scalar {
    Null,
    Boolean,
    Integer,
    Float,
    Text,
}

/// A key of a mapping and its value. Keys are unique within a mapping.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Entry {
    pub(crate) key: String,
    pub(crate) position: Position,
    pub(crate) value: Node,
}

impl Node {
    pub(crate) fn scalar(position: Position, scalar: Scalar, text: String) -> Self {
        Self { position, value: Value::Scalar(scalar, text), size: 1, height: 0 }
    }

    pub(crate) fn list(position: Position, items: Vec<Node>) -> Self {
        let (size, height) = extent(items.iter());
        Self { position, value: Value::List(items), size, height }
    }

    pub(crate) fn map(position: Position, entries: Vec<Entry>) -> Self {
        let (size, height) = extent(entries.iter().map(|entry| &entry.value));
        Self { position, value: Value::Map(entries), size, height }
    }

    pub(crate) fn is_null(&self) -> bool {
        matches!(self.value, Value::Scalar(Scalar::Null, _))
    }

    /// The value under a key of a mapping.
    pub(crate) fn get(&self, key: &str) -> Option<&Node> {
        match &self.value {
            Value::Map(entries) => entries.iter().find(|entry| entry.key == key).map(|entry| &entry.value),
            _ => None,
        }
    }
}

fn extent<'n>(children: impl Iterator<Item = &'n Node>) -> (usize, usize) {
    children.fold((1, 0), |(size, height), child| (size + child.size, height.max(child.height + 1)))
}

impl Scalar {
    /// The type of an unquoted scalar. Only the forms that JSON has too are numbers, so that no
    /// version string or octal mode becomes one by surprise.
    pub(crate) fn of_plain(text: &str) -> Self {
        let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
        match text {
            "" | "~" | "null" | "Null" | "NULL" => Scalar::Null,
            "true" | "True" | "TRUE" | "false" | "False" | "FALSE" => Scalar::Boolean,
            _ if !digits.starts_with(|c: char| c.is_ascii_digit() || c == '.') => Scalar::Text,
            _ if digits.bytes().all(|b| b.is_ascii_digit()) => Scalar::Integer,
            _ if digits.bytes().all(|b| matches!(b, b'0'..=b'9' | b'.' | b'e' | b'E' | b'+' | b'-')) => {
                text.parse::<f64>().map_or(Scalar::Text, |_| Scalar::Float)
            }
            _ => Scalar::Text,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_scalars_have_the_types_of_the_core_schema() {
        for (scalar, texts) in [
            (Scalar::Null, &["", "~", "null"][..]),
            (Scalar::Boolean, &["true", "False"]),
            (Scalar::Integer, &["0", "-7", "+12", "007", "99999999999999999999999"]),
            (Scalar::Float, &["0.5", "-1e9", ".5", "1."]),
            (Scalar::Text, &["yes", "no", "1.2.3", "0x10", "3s", "-", ".", "inf", "nan", "1e", "+"]),
        ] {
            for text in texts {
                assert_eq!(Scalar::of_plain(text), scalar, "{text:?}");
            }
        }
    }
}
