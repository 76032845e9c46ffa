//! Subjects of any bytes: none is a panic, none that is taken is anything but what it says, and no text of a user's becomes
//! another's subject.

#[path = "../../tests/support/fuzz.rs"]
mod fuzz;

use fuzz::Target;
use hypercode_nats::subject::{SUBJECT_BYTES_MAX, decode};
use hypercode_nats::{Pattern, Subject};

fn check(input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    let made = Subject::of(["hypercode", &text, "end"]);
    let tokens: Vec<_> = made.tokens().map(decode).collect();
    assert_eq!(tokens, [Some("hypercode".into()), Some(text.to_string()), Some("end".into())]);
    assert!(made.as_str().bytes().all(|byte| byte.is_ascii_graphic() && !b"*>".contains(&byte)), "{made}");
    // What a door is given as a token is taken apart without trust.
    let _ = decode(&text);
    if let Ok(subject) = text.parse::<Subject>() {
        assert_eq!(subject.as_str(), text);
        assert!(
            text.len() <= SUBJECT_BYTES_MAX && !text.contains(|c: char| c.is_whitespace() || c.is_control())
        );
        assert!(subject.tokens().all(|token| !token.is_empty() && token != "*" && token != ">"));
        let own = Pattern::from(subject.clone());
        assert!(own.matches(&subject) && !own.matches(&made), "{text}");
    }
    if let Ok(pattern) = text.parse::<Pattern>() {
        assert_eq!(pattern.as_str(), text);
    }
}

#[test]
fn subject() {
    let seeds = ["hypercode.evt.default.task.tk_1.task_submitted", "hypercode.cmd.crew.assemble", "a.*.>"];
    let seeds = seeds.map(|seed| seed.as_bytes().to_vec());
    Target::new(env!("CARGO_MANIFEST_DIR"), "subject").with(seeds).run(check);
}
