//! The style of texts that people read: errors and the platform's own log.
//!
//! They are lowercase fragments without a full stop, so that they fit into other sentences; what varies in a
//! log line is a field, never a part of its text.

use std::fs;
use std::path::{Path, PathBuf};

use crate::steps::{Failed, root};

/// Macros whose text is a log line.
const LOGS: [&str; 5] = ["error!(", "warn!(", "info!(", "debug!(", "trace!("];

/// Longest file of code that is still read in one go, in lines.
const LINES_MAX: usize = 800;

/// Checks every Rust file of the workspace.
pub(crate) fn run() -> Result<(), Failed> {
    eprintln!("$ style of errors and log lines");
    let mut faults = Vec::new();
    for file in sources(root()) {
        let text =
            fs::read_to_string(&file).map_err(|error| Failed(format!("read {}: {error}", file.display())))?;
        let name = file.strip_prefix(root()).unwrap_or(&file).display().to_string();
        faults.extend(check(&text).into_iter().map(|(line, fault)| format!("{name}:{line}: {fault}")));
    }
    for fault in &faults {
        eprintln!("{fault}");
    }
    if faults.is_empty() { Ok(()) } else { Err(Failed(format!("{} faults of style", faults.len()))) }
}

fn sources(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).into_iter().flatten().filter_map(Result::ok);
    let mut found = Vec::new();
    for path in entries.map(|entry| entry.path()) {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if path.is_dir() && name != "target" && !name.starts_with('.') {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found.sort();
    found
}

/// The faults of a file's `text`, each with its line. What its unit tests say is theirs.
fn check(text: &str) -> Vec<(usize, String)> {
    let mut faults = Vec::new();
    let lines = text.lines().count();
    if lines > LINES_MAX {
        faults.push((lines, format!("{lines} lines, at most {LINES_MAX} are read in one go")));
    }
    let text = text.split("#[cfg(test)]\nmod ").next().unwrap_or(text);
    let mut at = |offset: usize, fault: String| {
        faults.push((text[..offset].matches('\n').count() + 1, fault));
    };
    for (offset, arguments) in calls(text, "#[error(") {
        let message = arguments.first().and_then(|first| literal(first));
        if let Some(fault) = message.and_then(fragment) {
            at(offset, fault);
        }
    }
    for name in LOGS {
        for (offset, arguments) in calls(text, &format!("tracing::{name}")) {
            let Some(message) = arguments.iter().rev().find_map(|argument| literal(argument)) else {
                at(offset, "log line without a text".to_owned());
                continue;
            };
            if message.contains('{') {
                at(offset, format!("log line \"{message}\" is a template: what varies is a field"));
            }
            if let Some(fault) = fragment(message) {
                at(offset, fault);
            }
        }
    }
    faults.sort();
    faults
}

/// What keeps `message` from fitting into another sentence.
fn fragment(message: &str) -> Option<String> {
    let mut characters = message.chars();
    let (first, second) = (characters.next()?, characters.next().unwrap_or(' '));
    // An acronym may stand first.
    if first.is_uppercase() && !second.is_uppercase() {
        return Some(format!("\"{message}\" begins with a capital letter"));
    }
    let ended = message.ends_with(['.', '!']) && !message.ends_with("...");
    ended.then(|| format!("\"{message}\" ends with a full stop"))
}

/// The argument's text, if it is a plain string.
fn literal(argument: &str) -> Option<&str> {
    argument.strip_prefix('"')?.strip_suffix('"')
}

/// Every call that opens with `opening`: where it is, and its arguments.
fn calls<'a>(text: &'a str, opening: &str) -> Vec<(usize, Vec<&'a str>)> {
    let inside = |offset: usize| arguments(&text[offset + opening.len()..]);
    text.match_indices(opening).map(|(offset, _)| (offset, inside(offset))).collect()
}

/// What stands between commas, up to the parenthesis that closes the call.
fn arguments(text: &str) -> Vec<&str> {
    let (mut depth, mut quoted, mut escaped) = (0_usize, false, false);
    let (mut start, mut found) = (0, Vec::new());
    for (offset, character) in text.char_indices() {
        match character {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            _ if quoted => {}
            '(' | '[' | '{' => depth += 1,
            ')' | ']' | '}' if depth > 0 => depth -= 1,
            ',' | ')' if depth == 0 => {
                found.push(text[start..offset].trim());
                start = offset + 1;
                if character == ')' {
                    break;
                }
            }
            _ => {}
        }
    }
    found.retain(|argument| !argument.is_empty());
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(text: &str) -> Vec<String> {
        check(text).into_iter().map(|(line, fault)| format!("{line}: {fault}")).collect()
    }

    #[test]
    fn good_texts_pass() {
        let text = r#"
            #[error("read `{file}`: {reason}")]
            #[error(transparent)]
            #[error(
                "HTTP answered {0}; try again"
            )]
            tracing::warn!(%error, count = names.len(), "a \"quoted\" name, (odd)");
            #[cfg(test)]
            mod tests {}
        "#;
        assert_eq!(faults(text), Vec::<String>::new());
    }

    #[test]
    fn bad_texts_are_found_where_they_stand() {
        let text = r#"
            #[error("Cannot read")]
            #[error(
                "cannot read."
            )]
            tracing::info!(id, "agent {id} came");
            tracing::error!(%error);
        "#;
        assert_eq!(
            faults(text),
            [
                "2: \"Cannot read\" begins with a capital letter",
                "3: \"cannot read.\" ends with a full stop",
                "6: log line \"agent {id} came\" is a template: what varies is a field",
                "7: log line without a text",
            ]
        );
    }

    #[test]
    fn a_file_that_is_too_long_is_found() {
        assert_eq!(faults(&"\n".repeat(LINES_MAX + 1)).len(), 1);
        assert_eq!(faults(&"\n".repeat(LINES_MAX)), Vec::<String>::new());
    }
}
