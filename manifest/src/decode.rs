//! From trees to typed values: what the readers of all kinds of manifests share.
//!
//! A reader is a function from a place in the document to a value. It reports what is wrong and
//! gives `None`, or for a mapping a value with defaults in place of what is wrong, so that one
//! pass finds every fault. Whether the value is any good is in the faults.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;
use std::ops::RangeInclusive;

use crate::fault::{Code, Fault, Faults, quoted};
use crate::nearest::nearest;
use crate::path;
use crate::tree::{Entry, Node, Position, Scalar, Value};
use crate::{Name, NameError, ProfileSpec, Quantity};

mod crew;
mod manifest;
mod pool;
mod profile;

pub(crate) use manifest::{manifest, report_duplicate};

/// A place in a document: a value, or where one is missing.
#[derive(Clone)]
pub(crate) struct At<'n> {
    node: Option<&'n Node>,
    position: Position,
    pub(crate) path: String,
}

impl<'n> At<'n> {
    pub(crate) fn root(node: &'n Node) -> Self {
        Self { node: Some(node), position: node.position, path: String::new() }
    }

    /// The place of a field; where it is missing, its parent's position.
    pub(crate) fn field(&self, key: &str) -> At<'n> {
        self.below(self.node.and_then(|node| node.get(key)), path::field(&self.path, key))
    }

    /// The place of a list's item.
    pub(crate) fn item(&self, index: usize) -> At<'n> {
        let items = match self.value() {
            Some(Value::List(items)) => &items[..],
            _ => &[],
        };
        self.below(items.get(index), path::item(&self.path, index))
    }

    fn below(&self, node: Option<&'n Node>, path: String) -> At<'n> {
        At { node, position: node.map_or(self.position, |node| node.position), path }
    }

    fn is_present(&self) -> bool {
        self.node.is_some_and(|node| !node.is_null())
    }

    fn value(&self) -> Option<&'n Value> {
        self.node.map(|node| &node.value)
    }

    fn scalar(&self) -> Option<(Scalar, &'n str)> {
        match self.value() {
            Some(Value::Scalar(scalar, text)) => Some((*scalar, text)),
            _ => None,
        }
    }

    /// The value as a fault shows it.
    fn found(&self) -> String {
        match self.value() {
            None => "nothing".to_owned(),
            Some(Value::List(_)) => "a list".to_owned(),
            Some(Value::Map(_)) => "a mapping".to_owned(),
            Some(Value::Scalar(Scalar::Text, text)) => quoted(text),
            Some(Value::Scalar(Scalar::Null, _)) => "null".to_owned(),
            Some(Value::Scalar(_, text)) => text.chars().take(80).collect(),
        }
    }

    /// An error about the value that stands here.
    pub(crate) fn error(&self, code: Code, expected: impl Into<String>) -> Fault {
        Fault::error(code, &self.path, expected).found(self.found())
    }

    /// Reports a fault at this place.
    pub(crate) fn report(&self, fault: Fault, faults: &mut Faults) {
        faults.push(self.position, fault);
    }

    /// Reports an error about the value that stands here, and gives no value.
    fn refuse<T>(&self, code: Code, expected: impl Into<String>, faults: &mut Faults) -> Option<T> {
        self.report(self.error(code, expected), faults);
        None
    }
}

/// The fields of a mapping: those that are asked for are the known ones, all others are faults.
pub(crate) struct Fields<'n, 'f> {
    at: At<'n>,
    /// `None` where the value is no mapping, which is one fault and not one per required field.
    entries: Option<&'n [Entry]>,
    known: Vec<&'static str>,
    pub(crate) faults: &'f mut Faults,
}

impl<'n, 'f> Fields<'n, 'f> {
    pub(crate) fn of(at: &At<'n>, faults: &'f mut Faults) -> Self {
        let entries = match at.value() {
            Some(Value::Map(entries)) => Some(&entries[..]),
            None => None,
            Some(_) => at.refuse(Code::WrongType, "expected a mapping of fields", faults),
        };
        Self { at: at.clone(), entries, known: Vec::new(), faults }
    }

    /// The place of a field.
    pub(crate) fn at(&self, key: &str) -> At<'n> {
        self.at.field(key)
    }

    /// Reads a field if it is there.
    pub(crate) fn optional<T>(
        &mut self,
        key: &'static str,
        read: impl FnOnce(&At<'n>, &mut Faults) -> Option<T>,
    ) -> Option<T> {
        self.known.push(key);
        let at = self.at.field(key);
        if at.is_present() { read(&at, self.faults) } else { None }
    }

    /// Reads a field that must be there.
    pub(crate) fn required<T>(
        &mut self,
        key: &'static str,
        read: impl FnOnce(&At<'n>, &mut Faults) -> Option<T>,
    ) -> Option<T> {
        if self.entries.is_some() && !self.at.field(key).is_present() {
            let fault = Fault::error(Code::MissingField, &self.at.path, "it is required").found(quoted(key));
            self.at.report(fault, self.faults);
        }
        self.optional(key, read)
    }

    /// Reports every field that was not asked for.
    pub(crate) fn finish(self) {
        for entry in
            self.entries.into_iter().flatten().filter(|entry| !self.known.contains(&entry.key.as_str()))
        {
            let fault = Fault::error(
                Code::UnknownField,
                path::field(&self.at.path, &entry.key),
                format!("the fields are {}", self.known.join(", ")),
            );
            let known = nearest(&entry.key, self.known.iter().copied());
            self.faults.push(entry.position, fault.nearest(known));
        }
    }
}

/// Reads text of 1 to `chars_max` characters.
pub(crate) fn text(chars_max: usize) -> impl Fn(&At<'_>, &mut Faults) -> Option<String> {
    move |at, faults| {
        let text = plain_text(at, faults)?;
        match text.chars().count() {
            count if (1..=chars_max).contains(&count) => Some(text.to_owned()),
            _ => at.refuse(Code::OutOfRange, format!("expected text of 1 to {chars_max} characters"), faults),
        }
    }
}

fn plain_text<'n>(at: &At<'n>, faults: &mut Faults) -> Option<&'n str> {
    match at.scalar() {
        // No environment variable, argument or file name can hold it.
        Some((Scalar::Text, text)) if text.contains('\0') => {
            at.refuse(Code::InvalidValue, "expected text without NUL", faults)
        }
        Some((Scalar::Text, text)) => Some(text),
        Some((_, _)) => at.refuse(Code::WrongType, "expected text; put it in quotes", faults),
        None => at.refuse(Code::WrongType, "expected text", faults),
    }
}

/// Reads a name. A malformed one is reported and given nevertheless, so that references to it
/// are not reported too.
pub(crate) fn name(at: &At<'_>, faults: &mut Faults) -> Option<Name> {
    let text = plain_text(at, faults)?;
    Some(text.parse().unwrap_or_else(|NameError { found }| {
        let lower: String = found.to_lowercase().replace([' ', '_', '.'], "-");
        let hint = lower.parse::<Name>().ok().map(|name| name.to_string());
        at.report(at.error(Code::InvalidValue, format!("expected {}", Name::EXPECTED)).nearest(hint), faults);
        Name::unchecked(found)
    }))
}

/// The name to go on with where one is missing. Checks that compare names leave it out.
pub(crate) fn missing_name() -> Name {
    Name::unchecked("")
}

/// Reads a whole number within a range.
pub(crate) fn whole<T>(range: RangeInclusive<T>) -> impl Fn(&At<'_>, &mut Faults) -> Option<T>
where
    T: Copy + Display + PartialOrd + TryFrom<u64>,
{
    move |at, faults| {
        let expected = format!("expected a whole number from {} to {}", range.start(), range.end());
        match at.scalar() {
            Some((Scalar::Integer, text)) => {
                let number = text.parse::<u64>().ok().and_then(|number| T::try_from(number).ok());
                match number.filter(|number| range.contains(number)) {
                    None => at.refuse(Code::OutOfRange, expected, faults),
                    number => number,
                }
            }
            _ => at.refuse(Code::WrongType, expected, faults),
        }
    }
}

/// Reads a number within a range.
pub(crate) fn number(range: RangeInclusive<f64>) -> impl Fn(&At<'_>, &mut Faults) -> Option<f64> {
    move |at, faults| {
        let expected = format!("expected a number from {} to {}", range.start(), range.end());
        match at.scalar() {
            Some((Scalar::Integer | Scalar::Float, text)) => {
                match text.parse().ok().filter(|number| range.contains(number)) {
                    None => at.refuse(Code::OutOfRange, expected, faults),
                    number => number,
                }
            }
            _ => at.refuse(Code::WrongType, expected, faults),
        }
    }
}

/// Reads a quantity within a range.
pub(crate) fn quantity<Q: Quantity + PartialOrd>(
    range: RangeInclusive<Q>,
) -> impl Fn(&At<'_>, &mut Faults) -> Option<Q> {
    move |at, faults| {
        let text = match at.scalar() {
            Some((Scalar::Text | Scalar::Integer | Scalar::Float, text)) => text,
            _ => return at.refuse(Code::WrongType, format!("expected {}", Q::EXPECTED), faults),
        };
        match text.parse::<Q>() {
            Ok(quantity) if range.contains(&quantity) => Some(quantity),
            Ok(_) => {
                at.refuse(Code::OutOfRange, format!("expected {} to {}", range.start(), range.end()), faults)
            }
            Err(error) => {
                let fault = at.error(Code::InvalidValue, format!("expected {}", error.expected));
                at.report(fault.nearest(error.hint), faults);
                None
            }
        }
    }
}

/// Reads one of a fixed set of words.
pub(crate) fn choice<T: Copy>(words: &[(&'static str, T)]) -> impl Fn(&At<'_>, &mut Faults) -> Option<T> {
    move |at, faults| {
        let expected = || format!("expected {}", any_of(words.iter().map(|(word, _)| *word)));
        let Some((_, found)) = at.scalar() else {
            return at.refuse(Code::WrongType, expected(), faults);
        };
        let known = words.iter().find(|(word, _)| *word == found);
        if known.is_none() {
            let fault = at.error(Code::UnknownValue, expected());
            at.report(fault.nearest(nearest(found, words.iter().map(|(word, _)| *word))), faults);
        }
        known.map(|(_, value)| *value)
    }
}

/// Words as a sentence lists alternatives: `a, b or c`.
pub(crate) fn any_of<'w>(words: impl Iterator<Item = &'w str>) -> String {
    let words: Vec<&str> = words.collect();
    match words.split_last() {
        Some((last, [])) => (*last).to_owned(),
        Some((last, rest)) => format!("{} or {last}", rest.join(", ")),
        None => "nothing".to_owned(),
    }
}

/// Reads a list. Items that cannot be read are left out; those that are mappings always can.
pub(crate) fn list<'n, T>(
    length: RangeInclusive<usize>,
    read: impl Fn(&At<'n>, &mut Faults) -> Option<T>,
) -> impl Fn(&At<'n>, &mut Faults) -> Option<Vec<T>> {
    move |at, faults| {
        let Some(Value::List(items)) = at.value() else {
            return at.refuse(Code::WrongType, "expected a list", faults);
        };
        if !length.contains(&items.len()) {
            let fault = Fault::error(
                Code::OutOfRange,
                &at.path,
                format!("expected {} to {} entries", length.start(), length.end()),
            );
            at.report(fault.found(format!("({} entries)", items.len())), faults);
            return None;
        }
        Some((0..items.len()).filter_map(|index| read(&at.item(index), faults)).collect())
    }
}

/// Reads a list in which no entry may stand twice.
pub(crate) fn distinct<'n, T: Ord + Clone>(
    length: RangeInclusive<usize>,
    read: impl Fn(&At<'n>, &mut Faults) -> Option<T>,
) -> impl Fn(&At<'n>, &mut Faults) -> Option<Vec<T>> {
    move |at, faults| {
        let mut seen = BTreeSet::new();
        // `list` wants a reader without state, so the entries are compared once it is done.
        let entries =
            list(length.clone(), |at: &At<'n>, faults: &mut Faults| Some((at.clone(), read(at, faults)?)))(
                at, faults,
            )?;
        for (at, entry) in &entries {
            if !seen.insert(entry.clone()) {
                at.report(at.error(Code::Duplicate, "expected each entry once"), faults);
            }
        }
        Some(entries.into_iter().map(|(_, entry)| entry).collect())
    }
}

/// Reads a mapping from words of the user's choice to text.
pub(crate) fn texts(
    count_max: usize,
    check_key: impl Fn(&str) -> Result<(), String>,
    bytes_max: usize,
) -> impl Fn(&At<'_>, &mut Faults) -> Option<BTreeMap<String, String>> {
    move |at, faults| {
        let Some(Value::Map(entries)) = at.value() else {
            return at.refuse(Code::WrongType, "expected a mapping from names to text", faults);
        };
        if entries.len() > count_max {
            let fault =
                Fault::error(Code::OutOfRange, &at.path, format!("expected at most {count_max} entries"));
            at.report(fault.found(format!("({} entries)", entries.len())), faults);
            return None;
        }
        let mut texts = BTreeMap::new();
        for entry in entries {
            let at = at.field(&entry.key);
            if let Err(expected) = check_key(&entry.key) {
                let fault = Fault::error(Code::InvalidValue, &at.path, expected).found(quoted(&entry.key));
                faults.push(entry.position, fault);
            }
            match plain_text(&at, faults) {
                Some(text) if text.len() > bytes_max => {
                    let fault = Fault::error(
                        Code::OutOfRange,
                        &at.path,
                        format!("expected at most {bytes_max} bytes"),
                    );
                    at.report(fault.found(format!("({} bytes)", text.len())), faults);
                }
                Some(text) => drop(texts.insert(entry.key.clone(), text.to_owned())),
                None => {}
            }
        }
        Some(texts)
    }
}

/// Reads environment variables that the manifest's author may set.
pub(crate) fn environment(at: &At<'_>, faults: &mut Faults) -> Option<BTreeMap<String, String>> {
    texts(ProfileSpec::ENV_MAX, check_own_variable, ProfileSpec::ENV_VALUE_BYTES_MAX)(at, faults)
}

/// Whether an environment variable may have this name, and may be set by a manifest.
pub(crate) fn check_own_variable(name: &str) -> Result<(), String> {
    if name.starts_with("HYPERCODE_") {
        return Err("variables that begin with HYPERCODE_ are set by the platform".to_owned());
    }
    match is_variable(name) {
        true => Ok(()),
        false => Err("expected a variable of letters, digits and `_` that begins with no digit".to_owned()),
    }
}

/// Whether text is an environment variable's name as POSIX has it.
pub(crate) fn is_variable(name: &str) -> bool {
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    (1..=256).contains(&name.len())
        && name.chars().all(word)
        && !name.starts_with(|c: char| c.is_ascii_digit())
}
