//! The documents say what the code does: diagrams and tables that have a source are compared with it.

use events::domain::agent::lifecycle;
use link::{Call, ErrorType, Note, handler::method};

const LIFECYCLE: &str = include_str!("../docs/lifecycle.md");
const PROTOCOL: &str = include_str!("../docs/protocol.md");

/// The text between the first line that is `opening` and the next that is three backticks.
fn block<'a>(text: &'a str, opening: &str) -> &'a str {
    let (_, rest) = text.split_once(&format!("{opening}\n")).expect("the block begins");
    rest.split_once("```").expect("the block ends").0
}

#[test]
fn the_lifecycle_is_drawn_from_the_table_of_transitions() {
    assert_eq!(block(LIFECYCLE, "```mermaid"), lifecycle::diagram());
}

#[test]
fn every_state_is_explained() {
    for status in lifecycle::Status::ALL {
        assert!(LIFECYCLE.contains(&format!("| `{status}` |")), "`{status}` is not explained");
    }
}

#[test]
fn every_method_of_the_protocol_is_described() {
    let asked = [
        method::INITIALIZE,
        method::EXECUTE,
        method::CANCEL,
        method::DELIVER,
        method::PING,
        method::SHUTDOWN,
    ];
    for name in asked.iter().chain(Call::METHODS).chain(Note::METHODS) {
        let described =
            PROTOCOL.lines().any(|line| line.starts_with('|') && line.contains(&format!("`{name}`")));
        assert!(described, "`{name}` is not described");
    }
}

#[test]
fn every_error_stands_in_the_table_with_its_code() {
    for kind in ErrorType::ALL {
        let code = format!("| {} |", kind.code());
        let name = format!("`{}`", kind.name());
        let stands = PROTOCOL.lines().any(|line| line.starts_with(&code) && line.contains(&name));
        assert!(stands, "{name} does not stand under {}", kind.code());
    }
}
