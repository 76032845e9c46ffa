//! Subjects: made of tokens, so that no text of a user's becomes a wildcard, a dot or the end of a line.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use events::Recorded;

use crate::percent;

/// Longest subject that is accepted as text, in bytes. A server's control line has 4,096 bytes by default.
pub const SUBJECT_BYTES_MAX: usize = 1_024;

/// Above every subject of the platform's.
const ROOT: &str = "hypercode";

/// The subjects of all events.
pub const EVENTS: &str = "hypercode.evt.>";
/// The subjects of all commands.
pub const COMMANDS: &str = "hypercode.cmd.>";

/// A text is no subject.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "use the subject `{found}`: expected up to {SUBJECT_BYTES_MAX} bytes of tokens joined by `.`, without spaces, control characters{}",
    if *wildcards { "" } else { " and wildcards" }
)]
pub struct InvalidSubject {
    /// The text, cut and with control characters shown.
    found: String,
    /// Whether wildcards would have been legal.
    wildcards: bool,
}

/// A subject that a message can be sent to: it has no wildcards.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Subject(Arc<str>);

impl Subject {
    /// The subject of these tokens. Any text may be a token: whatever is not a letter, a digit, `-` or `_` is
    /// percent-encoded as in RFC 3986 §2.1, and no text at all is a lone `%`. So different tokens give different
    /// subjects, and [`decode`] gives each back.
    pub fn of<'a>(tokens: impl IntoIterator<Item = &'a str>) -> Self {
        let mut subject = String::new();
        for token in tokens {
            if !subject.is_empty() {
                subject.push('.');
            }
            encode(token, &mut subject);
        }
        Self(subject.into())
    }

    /// Where an event is published: `hypercode.evt.<tenant>.<entity>.<id>.<kind>`.
    pub fn of_event(event: &Recorded) -> Self {
        let (tenant, entity) = (event.meta.tenant.as_str(), event.stream.kind.as_str());
        Self::of([ROOT, "evt", tenant, entity, &event.stream.id, &event.kind])
    }

    /// Where a command is taken: `hypercode.cmd.<entity>.<verb>`.
    pub fn of_command(entity: &str, verb: &str) -> Self {
        Self::of([ROOT, "cmd", entity, verb])
    }

    /// Where a node says that it is there: `hypercode.presence.node.<id>`.
    pub fn of_presence(node: &str) -> Self {
        Self::of([ROOT, "presence", "node", node])
    }

    /// The subject as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Its tokens, still encoded.
    pub fn tokens(&self) -> impl Iterator<Item = &str> {
        self.0.split('.')
    }
}

impl FromStr for Subject {
    type Err = InvalidSubject;
    fn from_str(text: &str) -> Result<Self, InvalidSubject> {
        let is_wildcard = |token: &str| matches!(token, "*" | ">");
        match is_legal(text) && !text.split('.').any(is_wildcard) {
            true => Ok(Self(text.into())),
            false => Err(invalid(text, false)),
        }
    }
}

/// What a subscription hears: a subject in which `*` stands for any token, and a last `>` for all that follow.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Pattern(Arc<str>);

impl Pattern {
    /// The pattern as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it hears what is sent to `subject`.
    pub fn matches(&self, subject: &Subject) -> bool {
        let mut tokens = subject.tokens();
        for wanted in self.0.split('.') {
            match (wanted, tokens.next()) {
                (">", Some(_)) => return true,
                ("*", Some(_)) => {}
                (wanted, Some(token)) if wanted == token => {}
                _ => return false,
            }
        }
        tokens.next().is_none()
    }
}

impl FromStr for Pattern {
    type Err = InvalidSubject;
    fn from_str(text: &str) -> Result<Self, InvalidSubject> {
        let rest_is_last = text.split('.').rev().skip(1).all(|token| token != ">");
        match is_legal(text) && rest_is_last {
            true => Ok(Self(text.into())),
            false => Err(invalid(text, true)),
        }
    }
}

impl From<Subject> for Pattern {
    fn from(subject: Subject) -> Self {
        Self(subject.0)
    }
}

macro_rules! shown_as_text {
    ($($name:ident),+) => {$(
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result { f.write_str(&self.0) }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result { f.write_str(&self.0) }
        }
    )+};
}
shown_as_text!(Subject, Pattern);

fn is_legal(text: &str) -> bool {
    let legal = |c: char| !c.is_whitespace() && !c.is_control();
    text.len() <= SUBJECT_BYTES_MAX
        && text.split('.').all(|token| !token.is_empty() && token.chars().all(legal))
}

fn invalid(text: &str, wildcards: bool) -> InvalidSubject {
    let shown: String = text.chars().take(80).collect();
    InvalidSubject { found: shown.escape_debug().to_string(), wildcards }
}

fn encode(text: &str, into: &mut String) {
    if text.is_empty() {
        into.push('%');
    }
    percent::encode(text, |byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'), into);
}

/// The text that a token of [`Subject::of`] stands for; `None` for a token that it does not make.
pub fn decode(token: &str) -> Option<String> {
    if token == "%" {
        return Some(String::new());
    }
    percent::decode(token)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pattern(text: &str) -> Pattern {
        text.parse().expect("a pattern")
    }

    #[test]
    fn patterns_hear_what_they_name() {
        let subject: Subject = "hypercode.evt.default.task.tk_1.task_submitted".parse().expect("a subject");
        for hears in [EVENTS, "hypercode.*.*.task.>", "hypercode.evt.default.task.tk_1.task_submitted", ">"] {
            assert!(pattern(hears).matches(&subject), "{hears}");
        }
        for deaf in ["hypercode.evt", "hypercode.evt.default.task.tk_1.task_submitted.>", "*", "hypercode.*"]
        {
            assert!(!pattern(deaf).matches(&subject), "{deaf}");
        }
    }

    #[test]
    fn what_is_no_subject_is_refused_with_a_reason() {
        for bad in
            ["", ".", "a.", ".a", "a..b", "a b", "a\r\nPUB x", "a.*", "a.>", "a\u{7f}", &"a".repeat(1_025)]
        {
            assert!(bad.parse::<Subject>().is_err(), "{bad:?}");
        }
        for bad in ["", "a..b", ">.a", "a.>.b", "a\tb"] {
            assert!(bad.parse::<Pattern>().is_err(), "{bad:?}");
        }
        let error = "a\nb".parse::<Subject>().expect_err("it has two lines").to_string();
        assert!(error.contains(r"`a\nb`") && error.ends_with("and wildcards"), "{error}");
    }

    proptest! {
        #[test]
        fn any_text_is_one_token_and_comes_back(texts in prop::collection::vec(".*", 1..5)) {
            let subject = Subject::of(texts.iter().map(String::as_str));
            let tokens: Vec<_> = subject.tokens().map(|token| decode(token).expect("it was encoded")).collect();
            prop_assert_eq!(tokens, texts);
            prop_assert!(subject.as_str().bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.%".contains(&b)));
        }

        #[test]
        fn a_text_hits_no_other_subject(a in "[a.*>% \\n]{0,6}", b in "[a.*>% \\n]{0,6}") {
            let (one, other) = (Subject::of(["x", &a]), Subject::of(["x", &b]));
            prop_assert_eq!(a == b, one == other);
            prop_assert_eq!(a == b, Pattern::from(one).matches(&other));
        }
    }
}
