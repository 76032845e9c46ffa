//! Percent-encoding (RFC 3986 §2.1), as subjects and the headers of CloudEvents have it.

use std::fmt::Write as _;

/// Writes `text` with every byte escaped that is not `plain`.
pub(crate) fn encode(text: &str, plain: fn(u8) -> bool, into: &mut String) {
    for byte in text.bytes() {
        match byte {
            byte if plain(byte) => into.push(char::from(byte)),
            byte => write!(into, "%{byte:02X}").expect("a string takes what is written"),
        }
    }
}

/// The text that was encoded; `None` where an escape is not two hex digits, or the bytes are no UTF-8.
pub(crate) fn decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        match byte {
            b'%' => {
                let digit =
                    |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
                let (high, low) = (digit(rest.next()?)?, digit(rest.next()?)?);
                bytes.push(high << 4 | low);
            }
            byte => bytes.push(byte),
        }
    }
    String::from_utf8(bytes).ok()
}
