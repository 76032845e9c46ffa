//! What commands print: tables for people, JSON and YAML for programs.

mod table;
mod yaml;

use std::fmt;
use std::io::{self, IsTerminal as _, Write as _};

use events::api::{Problem, ProblemKind};
use serde_json::Value;

pub use table::{Column, table};
pub use yaml::yaml;

/// The form in which a command prints its answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// Tables and text, for people.
    #[default]
    Table,
    /// The API's own JSON; a value, or one value a line where there is a stream.
    Json,
    /// The same as YAML.
    Yaml,
}

/// Where and how a command prints.
#[derive(Clone, Copy, Debug)]
pub struct Output {
    /// The form.
    pub format: Format,
    /// Whether words of state are coloured.
    pub is_coloured: bool,
}

impl Output {
    /// Standard output in this form; coloured on a terminal, unless `NO_COLOR` is set (no-color.org).
    pub fn stdout(format: Format) -> Self {
        let refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Self { format, is_coloured: io::stdout().is_terminal() && !refused }
    }

    /// Prints one value; `text` makes it readable for people.
    ///
    /// # Errors
    /// As [`print`].
    pub fn value(self, value: &Value, text: impl FnOnce(&Value) -> String) -> Result<(), Problem> {
        let text = match self.format {
            Format::Table => text(value),
            Format::Json => inert(&format!("{value:#}")),
            Format::Yaml => yaml(value),
        };
        print(&text)
    }

    /// Prints the items of a page as a table, or the page as it is.
    ///
    /// # Errors
    /// As [`print`].
    pub fn page(self, page: &Value, columns: &[Column]) -> Result<(), Problem> {
        self.value(page, |page| {
            table(page["items"].as_array().map_or(&[], Vec::as_slice), columns, self.is_coloured)
        })
    }

    /// Prints one value with all its fields.
    ///
    /// # Errors
    /// As [`print`].
    pub fn details(self, value: &Value) -> Result<(), Problem> {
        self.value(value, yaml)
    }

    /// Prints one value of a stream: as JSON on one line, as YAML as one document.
    ///
    /// # Errors
    /// As [`print`].
    pub fn item(self, value: &Value, text: impl FnOnce(&Value) -> String) -> Result<(), Problem> {
        match self.format {
            Format::Table => print(&text(value)),
            Format::Json => print(&inert(&value.to_string())),
            Format::Yaml => print(&format!("---\n{}", yaml(value))),
        }
    }
}

/// Prints text and a line's end. That nobody reads on, as with `| head`, is no fault.
///
/// # Errors
/// When it cannot be written for any other reason, such as a full disk: whoever reads it later would miss it.
pub fn print(text: &str) -> Result<(), Problem> {
    let mut stdout = io::stdout().lock();
    let end = if text.ends_with('\n') || text.is_empty() { "" } else { "\n" };
    let written = stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.write_all(end.as_bytes()))
        .and_then(|()| stdout.flush());
    heard(written)
}

/// What came of writing to standard output. That nobody reads on is no fault.
///
/// # Errors
/// When it went wrong for any other reason.
pub fn heard(written: io::Result<()>) -> Result<(), Problem> {
    match written {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Problem::new(ProblemKind::Unavailable, format!("write to standard output: {error}")))
        }
        _ => Ok(()),
    }
}

/// Says something to the user beside the output: a line on standard error. That nobody reads it is no fault.
pub fn remark(text: impl fmt::Display) {
    let _ = writeln!(io::stderr().lock(), "{text}");
}

/// Whether a character steers a terminal, or changes the order in which others are shown (Unicode Standard Annex 9).
fn steers(c: char) -> bool {
    (c.is_control() && c != '\n' && c != '\t')
        || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// JSON in which such characters stand as escapes: it says the same, and can be looked at.
pub(crate) fn inert(json: &str) -> String {
    json.chars().fold(String::with_capacity(json.len()), |mut text, c| {
        match steers(c) {
            true => text += &format!("\\u{:04x}", u32::from(c)),
            false => text.push(c),
        }
        text
    })
}

/// Text whose control characters are escaped, so that what an agent wrote can neither steer the terminal nor be read as
/// something else than it is.
pub fn harmless(text: &str) -> String {
    text.chars()
        .flat_map(|c| match steers(c) {
            true => c.escape_debug().collect::<Vec<_>>(),
            false => vec![c],
        })
        .collect()
}
