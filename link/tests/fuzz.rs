//! Frames of any bytes: none is a panic, and what is taken is written as what was taken.

#![allow(clippy::unwrap_used, reason = "a test that unwraps fails with the line")]

#[path = "../../tests/support/fuzz.rs"]
mod fuzz;

use fuzz::Target;
use hypercode_link::transcript::{self, Direction};
use hypercode_link::{Error, check_frame, parse_to_gateway, parse_to_runner};
use serde::Serialize;

fn frames(wanted: Direction) -> Vec<Vec<u8>> {
    let entries = transcript::LINK.iter().flat_map(|(_, text)| transcript::entries(text).unwrap());
    let frames = entries.filter(|entry| entry.dir == wanted).map(|entry| entry.frame.to_string());
    frames.map(String::into_bytes).collect()
}

fn check<T>(input: &[u8], parse: impl Fn(&str) -> Result<T, Error>)
where
    T: Serialize + PartialEq + std::fmt::Debug,
{
    let Ok(text) = std::str::from_utf8(input) else { return };
    match parse(text) {
        Ok(frame) => {
            let written = serde_json::to_string(&frame).unwrap();
            if check_frame(&written).is_ok() {
                assert_eq!(parse(&written).as_ref(), Ok(&frame), "{written}");
            }
        }
        Err(error) => {
            assert!(!error.message.is_empty() && error.message.len() < 2_000, "{error:?}");
        }
    }
}

#[test]
fn to_gateway() {
    let target = Target::new(env!("CARGO_MANIFEST_DIR"), "to_gateway").with(frames(Direction::Right));
    target.run(|input| check(input, parse_to_gateway));
}

#[test]
fn to_runner() {
    let target = Target::new(env!("CARGO_MANIFEST_DIR"), "to_runner").with(frames(Direction::Left));
    target.run(|input| check(input, parse_to_runner));
}
