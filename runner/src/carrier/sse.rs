//! Server-sent events (WHATWG HTML, "event stream"), as far as their data goes.

use link::Error;

use super::utf8;

/// Splits a stream into the data of its events.
#[derive(Debug, Default)]
pub(super) struct Events {
    line: Vec<u8>,
    data: Option<String>,
    after_return: bool,
}

impl Events {
    /// Takes more bytes; returns the data of the events that are complete with them. Errors: a line is not UTF-8.
    pub(super) fn push(&mut self, bytes: &[u8]) -> Result<Vec<String>, Error> {
        let mut complete = Vec::new();
        for byte in bytes {
            match byte {
                b'\n' if self.after_return => {}
                b'\n' | b'\r' => complete.extend(self.end_line()?),
                _ => self.line.push(*byte),
            }
            self.after_return = *byte == b'\r';
        }
        Ok(complete)
    }

    /// What is held of an event that is not complete, in bytes.
    pub(super) fn held(&self) -> usize {
        self.line.len() + self.data.as_ref().map_or(0, String::len)
    }

    fn end_line(&mut self) -> Result<Option<String>, Error> {
        let line = std::mem::take(&mut self.line);
        if line.is_empty() {
            return Ok(self.data.take());
        }
        let line = utf8("a line of the stream", line)?;
        let (field, value) = line.split_once(':').unwrap_or((&line, ""));
        if field == "data" {
            let value = value.strip_prefix(' ').unwrap_or(value);
            match &mut self.data {
                Some(data) => {
                    data.push('\n');
                    data.push_str(value);
                }
                None => self.data = Some(value.to_owned()),
            }
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_is_joined_by_newline_whatever_ends_the_lines() {
        let mut events = Events::default();
        let mut seen = Vec::new();
        for piece in [": hello\r\nda", "ta: a\r\ndata:b\r", "\n\r\nevent: x\nid: 1\n\ndata\n\n", "data: late"]
        {
            seen.extend(events.push(piece.as_bytes()).unwrap());
        }
        assert_eq!(seen, ["a\nb", ""]);
        assert_eq!(events.held(), "data: late".len());
        assert!(events.push(b"\xff\n").is_err());
    }
}
