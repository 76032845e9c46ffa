//! The client's end of the live feed (HTML Living Standard §9.2), which comes back where it was cut off.

use std::ops::ControlFlow;

use bytes::Bytes;
use events::api::{Problem, ProblemKind};
use futures_util::StreamExt as _;
use futures_util::stream::BoxStream;

use super::patience::Patience;
use crate::client::Client;
use crate::http::Envelope;

/// Longest line of the feed, in bytes.
const LINE_BYTES_MAX: usize = 1 << 20;

/// Which events, and up to where.
#[derive(Clone, Debug, Default)]
pub(super) struct Query {
    /// Events above this position.
    pub(super) after: u64,
    /// The last position; without one the feed goes on for ever.
    pub(super) until: Option<u64>,
    /// Further fields of the query.
    pub(super) filter: Vec<(&'static str, String)>,
}

/// What comes over the feed.
#[derive(Debug)]
pub(super) enum Item {
    /// An event.
    Event(Box<Envelope>),
    /// What a handler says of a task to live watchers only.
    Delta(String),
}

/// Gives every event to `take` until that breaks off or `until` is reached.
pub(super) async fn follow(
    client: &Client,
    query: Query,
    mut take: impl FnMut(Envelope) -> Result<ControlFlow<()>, Problem>,
) -> Result<(), Problem> {
    let take = |item| match item {
        Item::Event(event) => take(*event),
        Item::Delta(_) => Ok(ControlFlow::Continue(())),
    };
    follow_live(client, query, take).await
}

/// Gives everything to `take` until that breaks off or `until` is reached.
pub(super) async fn follow_live(
    client: &Client,
    query: Query,
    mut take: impl FnMut(Item) -> Result<ControlFlow<()>, Problem>,
) -> Result<(), Problem> {
    let mut feed = Feed::new(client, query);
    loop {
        let items = feed.next().await?;
        if items.is_empty() {
            return Ok(());
        }
        for item in items {
            if take(item)?.is_break() {
                return Ok(());
            }
        }
    }
}

/// A reader of the feed.
pub(super) struct Feed {
    client: Client,
    query: Query,
    stream: Option<BoxStream<'static, Result<Bytes, Problem>>>,
    parser: Parser,
    patience: Patience,
}

enum Step {
    Messages(Vec<Message>),
    Done,
    Cut(Problem),
}

impl Feed {
    pub(super) fn new(client: &Client, query: Query) -> Self {
        Self {
            client: client.clone(),
            query,
            stream: None,
            parser: Parser::default(),
            patience: Patience::default(),
        }
    }

    /// Up to where the platform has looked for what is wanted.
    pub(super) fn position(&self) -> u64 {
        self.query.after
    }

    /// What comes next, as much as has come; nothing when `until` is reached.
    pub(super) async fn next(&mut self) -> Result<Vec<Item>, Problem> {
        loop {
            match self.step().await? {
                Step::Done => return Ok(Vec::new()),
                Step::Cut(problem) => {
                    self.stream = None;
                    self.patience.bear(problem).await?;
                }
                Step::Messages(messages) => {
                    let items = self.items(messages)?;
                    if !items.is_empty() {
                        return Ok(items);
                    }
                }
            }
        }
    }

    fn items(&mut self, messages: Vec<Message>) -> Result<Vec<Item>, Problem> {
        let mut items = Vec::new();
        for message in messages {
            if let Some(data) = message.data {
                let read = match message.is_delta {
                    true => serde_json::from_str(&data).map(|Delta { delta }| Item::Delta(delta)),
                    false => serde_json::from_str(&data).map(|event| Item::Event(Box::new(event))),
                };
                items.push(read.map_err(|error| strange(&error.to_string()))?);
            }
            if let Some(id) = message.id {
                self.query.after = id;
                self.patience.renew();
            }
        }
        Ok(items)
    }

    async fn step(&mut self) -> Result<Step, Problem> {
        let Some(stream) = &mut self.stream else {
            let mut fields = self.query.filter.clone();
            fields.push(("after", self.query.after.to_string()));
            fields.extend(self.query.until.map(|until| ("until", until.to_string())));
            return Ok(match self.client.stream("/v1/events", &fields).await {
                Ok(stream) => {
                    (self.stream, self.parser) = (Some(stream.boxed()), Parser::default());
                    Step::Messages(Vec::new())
                }
                Err(problem) => Step::Cut(problem),
            });
        };
        match stream.next().await {
            Some(Ok(chunk)) => self.parser.push(&chunk).map(Step::Messages),
            Some(Err(problem)) => Ok(Step::Cut(problem)),
            None if self.query.until.is_some() => Ok(Step::Done),
            None => {
                let detail = "the platform ended the feed; is it stopping?";
                Ok(Step::Cut(Problem::new(ProblemKind::Unavailable, detail)))
            }
        }
    }
}

fn strange(reason: &str) -> Problem {
    Problem::new(ProblemKind::Unavailable, format!("the feed is not of this version: {reason}"))
}

/// The data of a `task_delta`.
#[derive(serde::Deserialize)]
struct Delta {
    delta: String,
}

#[derive(Debug, PartialEq, Eq)]
struct Message {
    id: Option<u64>,
    is_delta: bool,
    data: Option<String>,
}

/// From bytes to messages, however the bytes are cut.
#[derive(Default)]
struct Parser {
    line: Vec<u8>,
    id: Option<u64>,
    is_delta: bool,
    data: Option<String>,
}

impl Parser {
    fn push(&mut self, chunk: &[u8]) -> Result<Vec<Message>, Problem> {
        let mut messages = Vec::new();
        for &byte in chunk {
            if byte != b'\n' {
                if self.line.len() >= LINE_BYTES_MAX {
                    return Err(strange("a line is too long"));
                }
                self.line.push(byte);
                continue;
            }
            let line = String::from_utf8(std::mem::take(&mut self.line))
                .map_err(|_| strange("a line is not UTF-8"))?;
            messages.extend(self.line(line.trim_end_matches('\r')));
        }
        Ok(messages)
    }

    fn line(&mut self, line: &str) -> Option<Message> {
        if line.is_empty() {
            let (id, data) = (self.id.take(), self.data.take());
            let is_delta = std::mem::take(&mut self.is_delta);
            return (id.is_some() || data.is_some()).then_some(Message { id, is_delta, data });
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "id" => self.id = value.parse().ok(),
            "data" => match &mut self.data {
                Some(data) => *data += &format!("\n{value}"),
                None => self.data = Some(value.to_owned()),
            },
            // Other names the envelope has too.
            "event" => self.is_delta = value == "task_delta",
            // A comment, or a field of another version.
            _ => {}
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_the_same_however_the_bytes_are_cut() {
        let text = ": hello\n\nid: 7\nevent: crew_paused\ndata: {\"a\":\ndata: 1}\n\nid: 9\n\n:\n\n\
            event: task_delta\ndata: {}\n\n";
        let expected = vec![
            Message { id: Some(7), is_delta: false, data: Some("{\"a\":\n1}".to_owned()) },
            Message { id: Some(9), is_delta: false, data: None },
            Message { id: None, is_delta: true, data: Some("{}".to_owned()) },
        ];
        assert_eq!(Parser::default().push(text.as_bytes()).unwrap(), expected);
        let mut parser = Parser::default();
        let single: Vec<Message> = text.bytes().flat_map(|byte| parser.push(&[byte]).unwrap()).collect();
        assert_eq!(single, expected);
    }
}
