//! Faults: what is wrong with a manifest, where, and what would be right.

use std::fmt;

use serde::Serialize;

/// One thing that is wrong.
///
/// Displayed as one line: `crew.yaml:14:9: error: spec.channels[1].to: unknown member "analist"; the
/// members are scout, analyst, editor (did you mean "analyst"?)`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Fault {
    /// Whether the manifest can be used nevertheless.
    pub severity: Severity,
    /// What kind of fault it is; stable across versions.
    pub code: Code,
    /// Where it is. Absent for a manifest that came from no file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub location: Option<Location>,
    /// The path of the field, as in `spec.channels[1].to`. Empty for the whole document.
    pub path: String,
    /// The value found: a scalar as JSON, else `a list` or `a mapping`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub found: Option<String>,
    /// What would be right.
    pub expected: String,
    /// What was probably meant.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nearest: Option<String>,
}

/// A place in a file.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Location {
    /// The file's name as it was given.
    pub file: String,
    /// The line, from 1.
    pub line: usize,
    /// The column in characters, from 1.
    pub column: usize,
}

/// Whether a manifest can be used in spite of a fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// It cannot.
    Error,
    /// It can, but probably does not do what was meant.
    Warning,
}

macro_rules! codes {
    ($($(#[$doc:meta])* $code:ident = $phrase:literal,)*) => {
        /// What kind of fault it is. Serialised in snake_case; a code, once given, keeps its meaning.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
        #[serde(rename_all = "snake_case")]
        #[non_exhaustive]
        pub enum Code {
            $($(#[$doc])* $code,)*
        }

        impl Code {
            /// The code in words; begins a fault's sentence.
            pub const fn phrase(self) -> &'static str {
                match self {
                    $(Code::$code => $phrase,)*
                }
            }
        }
    };
}

codes! {
    /// The file is over the size limit.
    TooLarge = "too large",
    /// The file begins with the byte order mark of another encoding.
    WrongEncoding = "wrong encoding",
    /// The bytes are not UTF-8.
    NotUtf8 = "invalid UTF-8",
    /// A character that text may not contain, such as NUL.
    ControlCharacter = "control character",
    /// The file holds no document.
    EmptyFile = "no manifest",
    /// The text is neither YAML nor JSON.
    Syntax = "syntax error",
    /// A tab stands where only spaces may indent.
    Tab = "tab in the indentation",
    /// Values are nested too deeply.
    TooDeep = "nested too deeply",
    /// The document has too many values once its aliases are expanded.
    TooManyValues = "too many values",
    /// An alias refers to a value that contains it.
    RecursiveAlias = "alias to a value that contains it",
    /// A YAML tag.
    UnsupportedTag = "unsupported tag",
    /// A mapping's key is not text.
    InvalidKey = "invalid key",
    /// A key stands twice in one mapping.
    DuplicateKey = "duplicate key",
    /// More faults follow than are listed.
    TooManyFaults = "too many faults",
    /// `apiVersion` is none that this version reads.
    UnsupportedVersion = "unsupported version",
    /// `kind` is none.
    UnknownKind = "unknown kind",
    /// `kind` is one that this version does not read.
    UnsupportedKind = "not supported by this version yet: kind",
    /// A required field is absent.
    MissingField = "missing field",
    /// A field that is none.
    UnknownField = "unknown field",
    /// The value is of another type.
    WrongType = "wrong type",
    /// The value is of the right type but not well formed.
    InvalidValue = "invalid value",
    /// The value is none of the possible ones.
    UnknownValue = "unknown value",
    /// The number, quantity or length is outside its limits.
    OutOfRange = "out of range",
    /// A name or an entry that must be unique stands twice.
    Duplicate = "duplicate",
    /// No member of the crew has this name.
    UnknownMember = "unknown member",
    /// A channel leads from a member to itself.
    SelfChannel = "channel to itself",
    /// Task channels form a cycle.
    TaskCycle = "cycle of task channels",
    /// No channels lead from the entry to a member.
    Unreachable = "unreachable member",
    /// Two fields contradict each other.
    Conflict = "conflict",
    /// No profile has this name.
    UnknownProfile = "unknown profile",
    /// No file or directory is where the field says.
    MissingFile = "missing file or directory",
    /// This version reads the field and cannot do what it says.
    NotHeld = "not held by this version",
}

impl Fault {
    pub(crate) fn error(code: Code, path: impl Into<String>, expected: impl Into<String>) -> Self {
        Self {
            severity: Severity::Error,
            code,
            location: None,
            path: path.into(),
            found: None,
            expected: expected.into(),
            nearest: None,
        }
    }

    pub(crate) fn warning(code: Code, path: impl Into<String>, expected: impl Into<String>) -> Self {
        Self { severity: Severity::Warning, ..Self::error(code, path, expected) }
    }

    /// The fault as JSON, with its sentence as `message`.
    pub fn to_json(&self) -> serde_json::Value {
        let mut value = serde_json::json!(self);
        value["message"] = self.to_string().into();
        value
    }

    pub(crate) fn found(mut self, found: impl Into<String>) -> Self {
        self.found = Some(found.into());
        self
    }

    pub(crate) fn nearest(mut self, nearest: Option<impl Into<String>>) -> Self {
        self.nearest = nearest.map(Into::into);
        self
    }

    pub(crate) fn at(mut self, location: Location) -> Self {
        self.location = Some(location);
        self
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(location) = &self.location {
            write!(f, "{location}: ")?;
        }
        write!(f, "{}: ", self.severity)?;
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        f.write_str(self.code.phrase())?;
        if let Some(found) = &self.found {
            write!(f, " {}", Harmless(found))?;
        }
        write!(f, "; {}", Harmless(&self.expected))?;
        match &self.nearest {
            Some(nearest) => write!(f, " (did you mean {}?)", quoted(nearest)),
            None => Ok(()),
        }
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", Harmless(&self.file), self.line, self.column)
    }
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Severity::Error => "error",
            Severity::Warning => "warning",
        })
    }
}

/// Text that may quote a manifest, with what could disturb a terminal escaped.
struct Harmless<'t>(&'t str);

impl fmt::Display for Harmless<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.chars().try_for_each(|c| match c.is_control() {
            true => write!(f, "{}", c.escape_debug()),
            false => write!(f, "{c}"),
        })
    }
}

/// Text in quotes, escaped, and cut where it is long.
pub(crate) fn quoted(text: &str) -> String {
    const CHARS_MAX: usize = 80;
    match text.char_indices().nth(CHARS_MAX) {
        Some((end, _)) => format!("{:?}…", &text[..end]),
        None => format!("{text:?}"),
    }
}

/// The faults of one file as they are found, up to a limit.
pub(crate) struct Faults {
    file: String,
    list: Vec<Fault>,
    omitted: usize,
}

impl Faults {
    /// The most faults that are kept of one file: more would only bury the first.
    pub(crate) const COUNT_MAX: usize = 200;

    pub(crate) fn new(file: &str) -> Self {
        Self { file: file.to_owned(), list: Vec::new(), omitted: 0 }
    }

    pub(crate) fn push(&mut self, (line, column): (usize, usize), fault: Fault) {
        match self.list.len() < Self::COUNT_MAX {
            true => self.list.push(fault.at(Location { file: self.file.clone(), line, column })),
            false => self.omitted += 1,
        }
    }

    /// Adds the faults of a part of the file.
    pub(crate) fn append(&mut self, part: Faults) {
        let room = Self::COUNT_MAX - self.list.len();
        self.omitted += part.omitted + part.list.len().saturating_sub(room);
        self.list.extend(part.list.into_iter().take(room));
    }

    /// Whether any of the faults so far is an error.
    pub(crate) fn any_error(&self) -> bool {
        self.omitted > 0 || self.list.iter().any(|fault| fault.severity == Severity::Error)
    }

    pub(crate) fn file(&self) -> &str {
        &self.file
    }

    /// Whether any of the faults so far lies in this field or below it.
    pub(crate) fn any_below(&self, path: &str) -> bool {
        let below =
            |fault: &Fault| fault.path.strip_prefix(path).is_some_and(|rest| !rest.starts_with(is_word));
        self.list.iter().filter(|fault| fault.severity == Severity::Error).any(below)
    }

    /// The faults in the order in which they stand in the file.
    pub(crate) fn finish(mut self) -> Vec<Fault> {
        self.list.sort_by(|a, b| a.location.cmp(&b.location));
        // A document marker in a wrong place is met by the document before it and by its own.
        self.list.dedup();
        if self.omitted > 0 {
            let last = self.list.last().and_then(|fault| fault.location.clone());
            let more = Fault::error(Code::TooManyFaults, "", "mend these first")
                .found(format!("({} more are not listed)", self.omitted));
            self.list.push(Fault { location: last, ..more });
        }
        self.list
    }
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_' || c == '-'
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_is_one_line_that_says_everything() {
        let fault = Fault::error(
            Code::UnknownMember,
            "spec.channels[1].to",
            "the members are scout, analyst, editor",
        )
        .found(quoted("analist"))
        .nearest(Some("analyst"))
        .at(Location { file: "crew.yaml".to_owned(), line: 14, column: 9 });
        assert_eq!(
            fault.to_string(),
            "crew.yaml:14:9: error: spec.channels[1].to: unknown member \"analist\"; \
             the members are scout, analyst, editor (did you mean \"analyst\"?)"
        );
    }

    #[test]
    fn quoted_text_is_short_and_harmless() {
        assert_eq!(quoted("\u{1b}[2J"), "\"\\u{1b}[2J\"");
        assert_eq!(quoted(&"é".repeat(81)), format!("\"{}\"…", "é".repeat(80)));
    }

    #[test]
    fn below_means_whole_words() {
        let mut faults = Faults::new("f");
        faults.push((1, 1), Fault::error(Code::WrongType, "spec.liveness.heartbeat", "x"));
        assert!(faults.any_below("spec.liveness"));
        assert!(!faults.any_below("spec.live"));
    }
}
