//! The recorded conversations parse, and what is parsed is written back without loss.

#![allow(
    clippy::unwrap_used,
    clippy::needless_pass_by_value,
    reason = "a test that unwraps fails with the line"
)]

use hypercode_link::{
    Call, Note, ToGateway, ToRunner,
    handler::{Cancel, Deliver, Execute, Executed, HandlerInfo, Initialize, Shutdown},
    parse_to_gateway, parse_to_runner, rpc,
    transcript::{self, Direction, Entry},
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

fn entries(name: &str, text: &str) -> Vec<Entry> {
    transcript::entries(text).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// What was written by a typed value must read as an equal one.
fn round_trip<T: DeserializeOwned + Serialize + PartialEq + std::fmt::Debug>(value: Value) -> T {
    let typed: T = serde_json::from_value(value.clone()).unwrap_or_else(|error| panic!("{error}: {value}"));
    let again = serde_json::to_value(&typed).unwrap();
    assert_eq!(serde_json::from_value::<T>(again).unwrap(), typed);
    typed
}

#[test]
fn the_links_frames_are_read_and_written() {
    for (name, text) in transcript::LINK {
        for Entry { dir, frame } in entries(name, text) {
            match dir {
                Direction::Right => {
                    let parsed = parse_to_gateway(&frame.to_string())
                        .unwrap_or_else(|error| panic!("{name}: {error}"));
                    match &parsed {
                        ToGateway::Call(call) => {
                            drop(Call::parse(&call.method, call.params.clone()).unwrap())
                        }
                        ToGateway::Note(note) => {
                            drop(Note::parse(&note.method, note.params.clone()).unwrap())
                        }
                        _ => {}
                    }
                    assert_eq!(round_trip::<ToGateway>(frame), parsed);
                }
                Direction::Left => {
                    let parsed =
                        parse_to_runner(&frame.to_string()).unwrap_or_else(|error| panic!("{name}: {error}"));
                    assert_eq!(round_trip::<ToRunner>(frame), parsed);
                }
            }
        }
    }
}

#[test]
fn every_kind_of_frame_is_in_a_transcript() {
    let all: Vec<Entry> = transcript::LINK.iter().flat_map(|(name, text)| entries(name, text)).collect();
    let seen = |dir, tag: &str| all.iter().any(|entry| entry.dir == dir && entry.frame["t"] == tag);
    for tag in [
        "hello",
        "ready",
        "failed",
        "exited",
        "heartbeat",
        "task.result",
        "message.ack",
        "call",
        "note",
        "ack",
        "credit",
        "error",
    ] {
        assert!(seen(Direction::Right, tag), "{tag}");
    }
    for tag in
        ["welcome", "assign", "task", "task.cancel", "message", "reply", "ack", "token", "drain", "error"]
    {
        assert!(seen(Direction::Left, tag), "{tag}");
    }
}

#[test]
fn before_assign_only_the_frames_of_a_standby_are_legal() {
    let mut assigned = false;
    for Entry { dir, frame } in entries("link_task", transcript::LINK[0].1) {
        match dir {
            Direction::Right if !assigned => {
                assert!(parse_to_gateway(&frame.to_string()).unwrap().legal_before_assign());
            }
            Direction::Left => assigned |= frame["t"] == "assign",
            Direction::Right => {}
        }
    }
    let call = r#"{"t":"call","id":1,"method":"tool/list","params":{}}"#;
    assert!(assigned && !parse_to_gateway(call).unwrap().legal_before_assign());
}

#[test]
fn the_handlers_lines_are_read_and_written() {
    for (name, text) in transcript::STDIO {
        let mut asked = std::collections::HashMap::new();
        for Entry { dir, frame } in entries(name, text) {
            let rpc::Parsed::Line(line) = rpc::parse(frame.to_string().as_bytes()) else {
                panic!("{name}: {frame}")
            };
            assert_eq!(rpc::parse(line.to_json().to_string().as_bytes()), rpc::Parsed::Line(line.clone()));
            match (dir, line) {
                (Direction::Right, rpc::Line::Request { id, method, params }) => {
                    match method.as_str() {
                        "initialize" => drop(round_trip::<Initialize>(params)),
                        "task/execute" => drop(round_trip::<Execute>(params)),
                        "message/deliver" => drop(round_trip::<Deliver>(params)),
                        "shutdown" => drop(round_trip::<Shutdown>(params)),
                        "ping" => {}
                        other => panic!("{name}: {other}"),
                    }
                    asked.insert(id, method);
                }
                (Direction::Right, rpc::Line::Notification { params, .. }) => {
                    drop(round_trip::<Cancel>(params))
                }
                (Direction::Left, rpc::Line::Request { method, params, .. }) => {
                    Call::parse(&method, params).unwrap();
                }
                (Direction::Left, rpc::Line::Notification { method, params }) => {
                    Note::parse(&method, params).unwrap();
                }
                (Direction::Left, rpc::Line::Response { id, outcome: Ok(result) }) => {
                    match asked[&id.unwrap()].as_str() {
                        "initialize" => drop(round_trip::<HandlerInfo>(result)),
                        "task/execute" => drop(Executed::parse(result).unwrap()),
                        _ => {}
                    }
                }
                (_, rpc::Line::Response { .. }) => {}
            }
        }
    }
}

#[test]
fn a_debug_of_assign_shows_no_secret() {
    let assign = transcript::LINK[0].1.lines().find(|line| line.contains("\"assign\"")).unwrap();
    let entry: Entry = serde_json::from_str(assign).unwrap();
    let shown = format!("{:?}", parse_to_runner(&entry.frame.to_string()).unwrap());
    assert!(!shown.contains("s3cret") && !shown.contains("t0ken"), "{shown}");
}
