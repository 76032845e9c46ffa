//! Lines of bounded length.

use std::io::{self, BufRead};

/// A source of lines that never holds more than one line of the allowed length.
pub(super) struct Lines<R> {
    input: R,
    bytes_max: usize,
    line: Vec<u8>,
}

/// What came.
#[derive(Debug, PartialEq)]
pub(super) enum Read<'a> {
    /// A line, without its newline. The last one may lack it.
    Line(&'a [u8]),
    /// A line that was longer than allowed and has been skipped.
    TooLong,
}

impl<R: BufRead> Lines<R> {
    pub(super) fn new(input: R, bytes_max: usize) -> Self {
        Self { input, bytes_max, line: Vec::new() }
    }

    /// The next line, `None` at the end.
    pub(super) fn next(&mut self) -> io::Result<Option<Read<'_>>> {
        self.line.clear();
        let mut too_long = false;
        let mut ended = true;
        loop {
            let available = match self.input.fill_buf() {
                Ok(available) => available,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            if available.is_empty() {
                break;
            }
            ended = false;
            let newline = available.iter().position(|byte| *byte == b'\n');
            let part = &available[..newline.unwrap_or(available.len())];
            too_long |= self.line.len() + part.len() > self.bytes_max;
            if !too_long {
                self.line.extend_from_slice(part);
            }
            let taken = part.len() + usize::from(newline.is_some());
            self.input.consume(taken);
            if newline.is_some() {
                break;
            }
        }
        Ok(match (ended, too_long) {
            (true, _) => None,
            (false, true) => Some(Read::TooLong),
            (false, false) => Some(Read::Line(&self.line)),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_lines_are_skipped_and_the_last_may_lack_its_newline() {
        let input = io::BufReader::with_capacity(3, &b"abcd\nabcde\n\nxyz"[..]);
        let mut lines = Lines::new(input, 4);
        assert_eq!(lines.next().expect("a read"), Some(Read::Line(b"abcd")));
        assert_eq!(lines.next().expect("a read"), Some(Read::TooLong));
        assert_eq!(lines.next().expect("a read"), Some(Read::Line(b"")));
        assert_eq!(lines.next().expect("a read"), Some(Read::Line(b"xyz")));
        assert_eq!(lines.next().expect("a read"), None);
    }
}
