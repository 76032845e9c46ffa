//! From bytes to text: the checks that come before any syntax.

use crate::fault::{Code, Fault, Faults};

/// The most bytes of one file: 1 MiB.
pub(crate) const BYTES_MAX: usize = 1 << 20;

const UTF8_MARK: &[u8] = b"\xEF\xBB\xBF";

/// Takes bytes as text, or says why they are none.
pub(crate) fn decode<'a>(bytes: &'a [u8], faults: &mut Faults) -> Option<&'a str> {
    if bytes.len() > BYTES_MAX {
        let fault =
            Fault::error(Code::TooLarge, "", format!("expected at most {BYTES_MAX} bytes in one file"));
        faults.push((1, 1), fault.found(format!("({} bytes)", bytes.len())));
        return None;
    }
    if let Some(encoding) = foreign_mark(bytes) {
        let fault = Fault::error(Code::WrongEncoding, "", "save the file as UTF-8");
        faults.push((1, 1), fault.found(format!("{encoding} (by its byte order mark)")));
        return None;
    }
    let bytes = bytes.strip_prefix(UTF8_MARK).unwrap_or(bytes);
    let text = match std::str::from_utf8(bytes) {
        Ok(text) => text,
        Err(error) => {
            let (valid, rest) = bytes.split_at(error.valid_up_to());
            let at = end_of(std::str::from_utf8(valid).expect("the prefix was found valid"));
            let fault = Fault::error(Code::NotUtf8, "", "save the file as UTF-8");
            faults.push(at, fault.found(format!("(byte 0x{:02x} at offset {})", rest[0], valid.len())));
            return None;
        }
    };
    // Those that neither YAML nor JSON admits. A NUL would also end the text for the YAML parser.
    let is_refused = |c: char| c < ' ' && !"\t\n\r".contains(c);
    let Some((offset, bad)) = text.char_indices().find(|(_, c)| is_refused(*c)) else {
        return Some(text);
    };
    let fault = Fault::error(Code::ControlCharacter, "", "remove it, or write it escaped in double quotes");
    faults
        .push(end_of(&text[..offset]), fault.found(format!("(U+{:04X} at offset {offset})", u32::from(bad))));
    None
}

/// The encoding other than UTF-8 that the file's byte order mark declares.
fn foreign_mark(bytes: &[u8]) -> Option<&'static str> {
    // The mark of little-endian UTF-32 begins with that of UTF-16, so it is looked for first.
    [
        (&b"\xFF\xFE\0\0"[..], "UTF-32"),
        (&b"\0\0\xFE\xFF"[..], "UTF-32"),
        (&b"\xFF\xFE"[..], "UTF-16"),
        (&b"\xFE\xFF"[..], "UTF-16"),
    ]
    .into_iter()
    .find_map(|(mark, encoding)| bytes.starts_with(mark).then_some(encoding))
}

/// The line and column, from 1, of what follows this text.
fn end_of(text: &str) -> (usize, usize) {
    let line = text.matches('\n').count() + 1;
    let start = text.rfind('\n').map_or(0, |newline| newline + 1);
    (line, text[start..].chars().count() + 1)
}
