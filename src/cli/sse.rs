//! The client's end of the live feed (HTML Living Standard §9.2), which comes back where it was cut off.

use std::ops::ControlFlow;
use std::time::Duration;

use events::api::{Problem, ProblemKind};
use futures_util::StreamExt as _;

use crate::client::Client;
use crate::http::Envelope;

/// How often a feed that was cut off is taken up again before it is given up; anything that comes counts anew.
const TRIES_MAX: u32 = 10;
/// The first pause before it is taken up again; doubled each time, at most [`PAUSE_MAX`].
const PAUSE: Duration = Duration::from_millis(200);
const PAUSE_MAX: Duration = Duration::from_secs(5);
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

/// Gives every event to `take` until that breaks off or `until` is reached.
pub(super) async fn follow(
    client: &Client,
    mut query: Query,
    mut take: impl FnMut(Envelope) -> Result<ControlFlow<()>, Problem>,
) -> Result<(), Problem> {
    let mut tries = 0;
    let mut pause = PAUSE;
    loop {
        let before = query.after;
        let problem = match once(client, &mut query, &mut take).await? {
            End::Done => return Ok(()),
            End::Cut(problem) => problem,
        };
        if query.after > before {
            (tries, pause) = (0, PAUSE);
        }
        tries += 1;
        if tries > TRIES_MAX || !problem.kind.is_retryable() {
            return Err(problem);
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(PAUSE_MAX);
    }
}

enum End {
    Done,
    Cut(Problem),
}

async fn once(
    client: &Client,
    query: &mut Query,
    take: &mut impl FnMut(Envelope) -> Result<ControlFlow<()>, Problem>,
) -> Result<End, Problem> {
    let mut fields = query.filter.clone();
    fields.push(("after", query.after.to_string()));
    fields.extend(query.until.map(|until| ("until", until.to_string())));
    let mut stream = match client.stream("/v1/events", &fields).await {
        Ok(stream) => Box::pin(stream),
        Err(problem) => return Ok(End::Cut(problem)),
    };
    let mut parser = Parser::default();
    while let Some(chunk) = stream.next().await {
        let chunk = match chunk {
            Ok(chunk) => chunk,
            Err(problem) => return Ok(End::Cut(problem)),
        };
        for message in parser.push(&chunk)? {
            if let Some(data) = message.data {
                let envelope = serde_json::from_str(&data).map_err(|error| strange(&error.to_string()))?;
                if take(envelope)?.is_break() {
                    return Ok(End::Done);
                }
            }
            query.after = message.id.unwrap_or(query.after);
        }
    }
    Ok(match query.until {
        Some(_) => End::Done,
        None => {
            End::Cut(Problem::new(ProblemKind::Unavailable, "the platform ended the feed; is it stopping?"))
        }
    })
}

fn strange(reason: &str) -> Problem {
    Problem::new(ProblemKind::Unavailable, format!("the feed is not of this version: {reason}"))
}

#[derive(Debug, PartialEq, Eq)]
struct Message {
    id: Option<u64>,
    data: Option<String>,
}

/// From bytes to messages, however the bytes are cut.
#[derive(Default)]
struct Parser {
    line: Vec<u8>,
    id: Option<u64>,
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
            return (id.is_some() || data.is_some()).then_some(Message { id, data });
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "id" => self.id = value.parse().ok(),
            "data" => match &mut self.data {
                Some(data) => *data += &format!("\n{value}"),
                None => self.data = Some(value.to_owned()),
            },
            // A comment, the event's name (which the envelope has too), or a field of another version.
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
        let text = ": hello\n\nid: 7\nevent: crew_paused\ndata: {\"a\":\ndata: 1}\n\nid: 9\n\n:\n\n";
        let expected = vec![
            Message { id: Some(7), data: Some("{\"a\":\n1}".to_owned()) },
            Message { id: Some(9), data: None },
        ];
        assert_eq!(Parser::default().push(text.as_bytes()).unwrap(), expected);
        let mut parser = Parser::default();
        let single: Vec<Message> = text.bytes().flat_map(|byte| parser.push(&[byte]).unwrap()).collect();
        assert_eq!(single, expected);
    }
}
