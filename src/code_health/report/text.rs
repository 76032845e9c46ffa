//! Pieces of Markdown.

use std::fmt::{Display, Write as _};

/// Longer inline code is cut in its middle.
const CODE_CHARS_MAX: usize = 120;

/// A number with a comma between thousands.
pub(super) fn number(value: impl TryInto<u64>) -> String {
    let digits = value.try_into().unwrap_or(u64::MAX).to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A number of tenths with one decimal.
pub(super) fn tenths(value: u64) -> String {
    format!("{}.{}", number(value / 10), value % 10)
}

/// A share in per cent with one decimal; of nothing it is 0.
pub(super) fn percent(part: u64, whole: u64) -> String {
    format!("{} %", tenths((part * 1_000 + whole / 2).checked_div(whole).unwrap_or(0)))
}

/// `1 file`, `2 files`.
pub(super) fn count(value: u64, one: &str, many: &str) -> String {
    format!("{} {}", number(value), if value == 1 { one } else { many })
}

/// Inline code, safe in a table.
pub(super) fn code(text: &str) -> String {
    let mut text: String = text.chars().map(|c| if c.is_control() || c == '`' { '?' } else { c }).collect();
    let length = text.chars().count();
    if length > CODE_CHARS_MAX {
        let head = text.chars().take(CODE_CHARS_MAX / 2);
        let tail = text.chars().skip(length - CODE_CHARS_MAX / 2);
        text = head.chain(['…']).chain(tail).collect();
    }
    format!("`{}`", text.replace('|', "\\|"))
}

/// Words of others, safe in a table or a list: they may use inline code, but no other markup.
pub(super) fn quoted(text: &str) -> String {
    let closed = text.matches('`').count().is_multiple_of(2);
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '|' | '<' | '*' | '[' => {
                safe.push('\\');
                safe.push(c);
            }
            '`' if !closed => safe.push('\''),
            c if c.is_control() => safe.push(' '),
            c => safe.push(c),
        }
    }
    safe
}

/// A table; the columns whose title begins with `>` are numbers, set to the right.
pub(super) struct Table {
    text: String,
    rows: usize,
}

impl Table {
    pub(super) fn new(titles: &[&str]) -> Self {
        let plain = titles.iter().map(|title| title.trim_start_matches('>')).collect::<Vec<_>>();
        let rules = titles.iter().map(|title| if title.starts_with('>') { "---:" } else { "---" });
        let text = format!("| {} |\n|{}|\n", plain.join(" | "), rules.collect::<Vec<_>>().join("|"));
        Self { text, rows: 0 }
    }

    pub(super) fn row(&mut self, cells: &[&dyn Display]) {
        self.text.push('|');
        for cell in cells {
            write!(self.text, " {cell} |").expect("a string takes all that is written");
        }
        self.text.push('\n');
        self.rows += 1;
    }

    /// The table, or words for none.
    pub(super) fn or(self, none: &str) -> String {
        if self.rows == 0 { format!("{none}\n") } else { self.text }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_easy_to_read() {
        assert_eq!(
            [number(0_u64), number(999_u64), number(1_000_u64), number(1_234_567_u64)],
            ["0", "999", "1,000", "1,234,567"]
        );
        assert_eq!(percent(1, 3), "33.3 %");
        assert_eq!(percent(0, 0), "0.0 %");
        assert_eq!(tenths(12_345), "1,234.5");
    }

    #[test]
    fn foreign_text_cannot_break_a_table() {
        assert_eq!(code("a`b|c\nd"), "`a?b\\|c?d`");
        assert_eq!(quoted("a|b\n<c>"), "a\\|b \\<c>");
        assert!(code(&"é".repeat(1_000)).chars().count() < 130);
    }
}
