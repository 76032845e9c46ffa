//! What goes over a bus.

use std::borrow::Cow;

use bytes::Bytes;

use crate::subject::Subject;

/// A message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Where it is sent.
    pub subject: Subject,
    /// Names and values beside the body.
    pub headers: Headers,
    /// The body.
    pub body: Bytes,
    /// Where an answer is waited for.
    pub reply: Option<Subject>,
}

impl Message {
    /// A message without headers that nobody need answer.
    pub fn new(subject: Subject, body: impl Into<Bytes>) -> Self {
        Self { subject, headers: Headers::default(), body: body.into(), reply: None }
    }

    /// The same message with one more header.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.set(name, value);
        self
    }

    /// Bytes that it takes, headers included, as a server counts them.
    pub fn size(&self) -> usize {
        let headers: usize = self.headers.iter().map(|(name, value)| name.len() + value.len() + 4).sum();
        headers + self.body.len()
    }
}

/// The headers of a message. Their names are found whatever their case.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Headers(Vec<(Cow<'static, str>, String)>);

impl Headers {
    /// Sets a header. Control characters of the value become spaces: the end of a line would begin another header.
    pub fn set(&mut self, name: &'static str, value: impl Into<String>) {
        self.push(name.into(), value.into());
    }

    /// A header as it came from elsewhere.
    pub(crate) fn push(&mut self, name: Cow<'static, str>, mut value: String) {
        if value.contains(char::is_control) {
            value = value.replace(char::is_control, " ");
        }
        self.0.push((name, value));
    }

    /// The first value under a name.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    /// All names and values.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_ref(), value.as_str()))
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_header_hides_in_the_value_of_another() {
        let message =
            Message::new(Subject::of(["x"]), "").with("A", "1\r\nAuthorization: Bearer x").with("b", "2");
        assert_eq!(message.headers.get("a"), Some("1  Authorization: Bearer x"));
        assert_eq!((message.headers.get("B"), message.headers.get("Authorization")), (Some("2"), None));
    }
}
