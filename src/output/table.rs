//! Tables: columns as wide as what stands in them, numbers to the right.

use serde_json::Value;

/// Longest cell, in characters; longer ones end in `…`.
const CELL_CHARS_MAX: usize = 60;

/// One column: its heading and where its value is.
#[derive(Clone, Copy, Debug)]
pub struct Column {
    /// The heading.
    pub title: &'static str,
    /// The value's place, as a JSON Pointer (RFC 6901).
    pub pointer: &'static str,
}

impl Column {
    /// A column.
    pub const fn new(title: &'static str, pointer: &'static str) -> Self {
        Self { title, pointer }
    }
}

struct Cell {
    text: String,
    is_number: bool,
}

impl Cell {
    fn of(value: Option<&Value>) -> Self {
        let is_number = value.is_some_and(Value::is_number);
        let text = match value {
            None | Some(Value::Null) => "-".to_owned(),
            Some(Value::String(text)) if text.is_empty() => "-".to_owned(),
            Some(Value::String(text)) => text.chars().flat_map(plain).collect(),
            Some(Value::Array(items)) if items.iter().all(Value::is_string) => {
                let texts: Vec<_> = items.iter().filter_map(Value::as_str).collect();
                texts.join(",").chars().flat_map(plain).collect()
            }
            Some(value) => value.to_string(),
        };
        Self { text: cut(&text), is_number }
    }
}

/// A character as it may stand in a cell: one line, and nothing that steers the terminal.
fn plain(c: char) -> Vec<char> {
    match c {
        '\n' | '\r' | '\t' => vec![' '],
        c if super::steers(c) => c.escape_debug().collect(),
        c => vec![c],
    }
}

fn cut(text: &str) -> String {
    match text.chars().count() > CELL_CHARS_MAX {
        true => text.chars().take(CELL_CHARS_MAX - 1).chain(['…']).collect(),
        false => text.to_owned(),
    }
}

/// The rows as a table with headings; words of state in colour if `is_coloured`.
pub fn table(rows: &[Value], columns: &[Column], is_coloured: bool) -> String {
    let cells: Vec<Vec<Cell>> = rows
        .iter()
        .map(|row| columns.iter().map(|column| Cell::of(row.pointer(column.pointer))).collect())
        .collect();
    let widths: Vec<usize> = columns
        .iter()
        .enumerate()
        .map(|(i, column)| {
            let widest = cells.iter().map(|row| row[i].text.chars().count()).max().unwrap_or(0);
            widest.max(column.title.chars().count())
        })
        .collect();
    let heading = columns.iter().map(|column| Cell { text: column.title.to_owned(), is_number: false });
    let mut text = line(&heading.collect::<Vec<_>>(), &widths, false);
    for row in &cells {
        text += &line(row, &widths, is_coloured);
    }
    text
}

fn line(cells: &[Cell], widths: &[usize], is_coloured: bool) -> String {
    let mut line = String::new();
    for (cell, width) in cells.iter().zip(widths) {
        let padding = " ".repeat(width - cell.text.chars().count());
        let shown = match colour(&cell.text).filter(|_| is_coloured) {
            Some(colour) => format!("\u{1b}[{colour}m{}\u{1b}[0m", cell.text),
            None => cell.text.clone(),
        };
        line += &if cell.is_number { padding + &shown } else { shown + &padding };
        line += "  ";
    }
    line.truncate(line.trim_end().len());
    line + "\n"
}

/// The colour of a word of state (ECMA-48 SGR): green is well, yellow wants a look, red is wrong.
fn colour(word: &str) -> Option<u8> {
    match word {
        "running" | "ready" | "completed" | "ok" => Some(32),
        "assembling" | "paused" | "draining" | "waiting" | "input_required" | "recovering" | "unhealthy"
        | "warning" => Some(33),
        "failed" | "quarantined" | "dead_lettered" | "rejected" | "denied" | "error" => Some(31),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const COLUMNS: [Column; 4] = [
        Column::new("NAME", "/name"),
        Column::new("STATE", "/state"),
        Column::new("AGENTS", "/agents"),
        Column::new("LABELS", "/labels"),
    ];

    #[test]
    fn columns_are_as_wide_as_they_must_be() {
        let rows = [
            json!({"name": "code-health", "state": "running", "agents": 5, "labels": ["a", "b"]}),
            json!({"name": "größer", "state": "paused", "agents": 12}),
        ];
        assert_eq!(
            table(&rows, &COLUMNS, false),
            "NAME         STATE    AGENTS  LABELS\n\
             code-health  running       5  a,b\n\
             größer       paused       12  -\n"
        );
    }

    #[test]
    fn no_cell_can_steer_the_terminal_or_break_the_line() {
        let rows = [json!({"name": "\u{1b}[2Jx\ny", "state": "x".repeat(100)})];
        let text = table(&rows, &COLUMNS, false);
        assert_eq!(text.lines().count(), 2);
        assert!(text.contains("\\u{1b}[2Jx y") && !text.contains('\u{1b}') && text.contains("x…"), "{text}");
    }

    #[test]
    fn a_state_is_coloured_without_moving_what_follows() {
        let text = table(&[json!({"name": "a", "state": "failed", "agents": 1})], &COLUMNS, true);
        assert!(text.ends_with("a     \u{1b}[31mfailed\u{1b}[0m       1  -\n"), "{text:?}");
    }
}
