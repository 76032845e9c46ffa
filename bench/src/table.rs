//! What a bench found, as a table in Markdown that also reads well in a terminal.

use std::fmt;
use std::time::Duration;

use crate::samples::Samples;

const HEADINGS: [&str; 8] = ["what", "n", "p50", "p99", "rate", "ratio", "goal", "verdict"];

/// One line of a table.
#[derive(Clone, Debug, Default)]
pub(crate) struct Row {
    cells: [String; HEADINGS.len()],
    missed: bool,
}

impl Row {
    pub(crate) fn new(what: impl Into<String>) -> Self {
        let mut row = Self::default();
        row.cells[0] = what.into();
        row
    }

    /// How many there were, and how long they took.
    pub(crate) fn samples(self, samples: &Samples) -> Self {
        self.measured(samples.count() as u64, samples.p50(), samples.p99())
    }

    /// The same, where the samples themselves are elsewhere.
    pub(crate) fn measured(mut self, count: u64, p50: Duration, p99: Duration) -> Self {
        self.cells[1] = count.to_string();
        self.cells[2] = time(p50);
        self.cells[3] = time(p99);
        self
    }

    /// How many there were, where single ones were not timed.
    pub(crate) fn count(mut self, count: u64) -> Self {
        self.cells[1] = count.to_string();
        self
    }

    /// How often it was looked, and how many there were then.
    pub(crate) fn counts(mut self, counts: &Samples<u64>) -> Self {
        self.cells[1] = counts.count().to_string();
        self.cells[2] = number(counts.p50() as f64);
        self.cells[3] = number(counts.p99() as f64);
        self
    }

    /// How much memory it takes, in place of a rate.
    pub(crate) fn memory(mut self, bytes: u64) -> Self {
        self.cells[4] = format!("{} MiB", bytes >> 20);
        self
    }

    /// How much memory each takes, and how many came in a second.
    pub(crate) fn each(mut self, bytes: u64, per_second: f64) -> Self {
        self.cells[4] = format!("{:.1} MiB, {per_second:.1}/s", bytes as f64 / f64::from(1 << 20));
        self
    }

    /// How many went through in a second.
    pub(crate) fn rate(mut self, per_second: f64) -> Self {
        self.cells[4] = if per_second < 10.0 {
            format!("{per_second:.1}/s")
        } else {
            format!("{}/s", number(per_second))
        };
        self
    }

    /// What this is of the raw limit.
    pub(crate) fn ratio(mut self, ratio: f64) -> Self {
        self.cells[5] = format!("{ratio:.2}");
        self
    }

    /// What it was to be, and whether it is.
    pub(crate) fn goal(mut self, goal: impl Into<String>, met: bool) -> Self {
        self.cells[6] = goal.into();
        self.cells[7] = if met { "met" } else { "missed" }.to_owned();
        self.missed = !met;
        self
    }
}

/// What one bench found.
#[derive(Clone, Debug, Default)]
pub(crate) struct Table {
    rows: Vec<Row>,
    notes: Vec<String>,
}

impl Table {
    pub(crate) fn row(&mut self, row: Row) {
        self.rows.push(row);
    }

    /// A setting, or what the numbers do not show.
    pub(crate) fn note(&mut self, note: impl Into<String>) {
        self.notes.push(note.into());
    }

    /// How many goals were missed.
    pub(crate) fn missed(&self) -> usize {
        self.rows.iter().filter(|row| row.missed).count()
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let headings = HEADINGS.map(str::to_owned);
        let all = || std::iter::once(&headings).chain(self.rows.iter().map(|row| &row.cells));
        let width = |column: usize| all().map(|cells| cells[column].chars().count()).max().unwrap_or(0);
        let widths: [usize; HEADINGS.len()] = std::array::from_fn(width);
        for (index, cells) in all().enumerate() {
            for (column, (cell, width)) in cells.iter().zip(widths).enumerate() {
                // Numbers stand below each other.
                if (1..=5).contains(&column) {
                    write!(f, "| {cell:>width$} ")?;
                } else {
                    write!(f, "| {cell:<width$} ")?;
                }
            }
            writeln!(f, "|")?;
            if index == 0 {
                let rule = |(column, width)| {
                    let end = if (1..=5).contains(&column) { ":" } else { "-" };
                    format!("|{}{end}", "-".repeat(width + 1))
                };
                writeln!(f, "{}|", widths.into_iter().enumerate().map(rule).collect::<String>())?;
            }
        }
        writeln!(f)?;
        for note in &self.notes {
            writeln!(f, "- {note}")?;
        }
        Ok(())
    }
}

/// A duration in the unit that suits its size.
pub(crate) fn time(duration: Duration) -> String {
    let us = duration.as_secs_f64() * 1e6;
    match us {
        us if us < 10.0 => format!("{us:.1} us"),
        us if us < 1_000.0 => format!("{us:.0} us"),
        us if us < 10_000.0 => format!("{:.2} ms", us / 1e3),
        us if us < 1_000_000.0 => format!("{:.0} ms", us / 1e3),
        us => format!("{:.2} s", us / 1e6),
    }
}

/// A number whose digits stand in groups of three.
fn number(value: f64) -> String {
    let digits = format!("{value:.0}");
    let mut grouped = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index) % 3 == 0 {
            grouped.push(' ');
        }
        grouped.push(digit);
    }
    grouped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_markdown_with_columns_below_each_other() {
        let mut table = Table::default();
        let samples: Samples = [Duration::from_micros(1500)].into_iter().collect();
        table.row(Row::new("bare").samples(&samples).rate(1_234_567.0));
        table.row(Row::new("ours").ratio(0.5).goal(">= 0.6", false));
        table.note("quiet");
        let expected = "\
| what | n |     p50 |     p99 |        rate | ratio | goal   | verdict |
|------|--:|--------:|--------:|------------:|------:|--------|---------|
| bare | 1 | 1.50 ms | 1.50 ms | 1 234 567/s |       |        |         |
| ours |   |         |         |             |  0.50 | >= 0.6 | missed  |

- quiet
";
        assert_eq!(table.to_string(), expected);
        assert_eq!(table.missed(), 1);
    }
}
