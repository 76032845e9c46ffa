//! Recorded conversations that every implementation of the protocol must agree with.
//!
//! Each is a text of JSON lines, `{"dir": "→" | "←", "frame": {…}}`. On the link → is the runner's frame; on stdio → is
//! what the handler gets and ← what it writes.

use serde::Deserialize;
use serde_json::Value;

/// Who wrote a line of a transcript.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub enum Direction {
    /// Link: from the runner. Stdio: to the handler.
    #[serde(rename = "→")]
    Right,
    /// Link: from the gateway. Stdio: from the handler.
    #[serde(rename = "←")]
    Left,
}

/// One line of a transcript.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Entry {
    /// Who wrote it.
    pub dir: Direction,
    /// What.
    pub frame: Value,
}

/// Transcripts of the link, by name.
pub const LINK: &[(&str, &str)] = &[
    ("link_task", include_str!("../testdata/link_task.jsonl")),
    ("link_resume", include_str!("../testdata/link_resume.jsonl")),
    ("link_faults", include_str!("../testdata/link_faults.jsonl")),
];

/// Transcripts of the handler protocol on stdio, by name.
pub const STDIO: &[(&str, &str)] = &[
    ("stdio_task", include_str!("../testdata/stdio_task.jsonl")),
    ("stdio_cancel", include_str!("../testdata/stdio_cancel.jsonl")),
    ("stdio_bare", include_str!("../testdata/stdio_bare.jsonl")),
];

/// The lines of a transcript. Errors name the line.
pub fn entries(transcript: &str) -> Result<Vec<Entry>, String> {
    let lines = transcript.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    let entry =
        |(index, line)| serde_json::from_str(line).map_err(|error| format!("line {}: {error}", index + 1));
    lines.map(entry).collect()
}
