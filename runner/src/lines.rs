//! Lines of bounded length out of a stream that may hold anything.

use std::io;

use tokio::io::{AsyncBufReadExt as _, AsyncRead, BufReader};

/// What came out of the stream.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Line {
    /// A line without its newline.
    Whole(Vec<u8>),
    /// A line longer than allowed was skipped to its end.
    TooLong,
    /// The stream ended in the middle of a line.
    Half(Vec<u8>),
}

/// Reads lines; never holds more than one line of the allowed length.
#[derive(Debug)]
pub(crate) struct Lines<R> {
    from: BufReader<R>,
    bytes_max: usize,
}

impl<R: AsyncRead + Unpin> Lines<R> {
    pub(crate) fn new(from: R, bytes_max: usize) -> Self {
        Self { from: BufReader::new(from), bytes_max }
    }

    /// The next line; `None` at the end. Not to be cancelled: a line read in part would be lost.
    pub(crate) async fn next(&mut self) -> io::Result<Option<Line>> {
        let mut line = Vec::new();
        let mut too_long = false;
        loop {
            let available = self.from.fill_buf().await?;
            if available.is_empty() {
                return Ok(match (too_long, line.is_empty()) {
                    (true, _) => Some(Line::TooLong),
                    (false, false) => Some(Line::Half(line)),
                    (false, true) => None,
                });
            }
            let newline = available.iter().position(|byte| *byte == b'\n');
            let piece = &available[..newline.unwrap_or(available.len())];
            too_long |= line.len() + piece.len() > self.bytes_max;
            if too_long {
                line = Vec::new();
            } else {
                line.extend_from_slice(piece);
            }
            let consumed = piece.len() + usize::from(newline.is_some());
            self.from.consume(consumed);
            if newline.is_some() {
                return Ok(Some(if too_long { Line::TooLong } else { Line::Whole(line) }));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_line_too_long_is_skipped_and_the_next_is_read() {
        let text = [b"ab\n".to_vec(), vec![b'x'; 100_000], b"\n\n1234\n12345\nha".to_vec()].concat();
        let mut lines = Lines::new(text.as_slice(), 4);
        let mut seen = Vec::new();
        while let Some(line) = lines.next().await.unwrap() {
            seen.push(line);
        }
        let whole = |text: &str| Line::Whole(text.into());
        assert_eq!(
            seen,
            [whole("ab"), Line::TooLong, whole(""), whole("1234"), Line::TooLong, Line::Half(b"ha".into())]
        );
    }
}
