//! Which laws hold in which implementation of a seam: said from the test runner's report of what ran, and nothing else.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::PathBuf;

use crate::steps::{Failed, root};

/// A seam, whose laws every implementation is tested by.
struct Seam {
    name: &'static str,
    /// What the names of its laws begin with: a test of law `ES-1` has a name that begins with `es_1_`.
    prefix: &'static str,
    /// The source in which its laws stand, each with its id.
    laws: &'static str,
    /// The modules that its tests are in, one for each implementation, and how it is called.
    implementations: &'static [(&'static str, &'static str)],
}

const SEAMS: [Seam; 2] = [
    Seam {
        name: "event store",
        prefix: "es",
        laws: include_str!("../../events/src/invariant.rs"),
        implementations: &[("memory", "memory"), ("sqlite", "SQLite"), ("postgres", "Postgres")],
    },
    Seam {
        name: "bus",
        prefix: "b",
        laws: include_str!("../../nats/src/bus.rs"),
        implementations: &[("memory", "memory"), ("nats_server", "NATS")],
    },
];

/// What a law's tests came to in one implementation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Count {
    held: usize,
    failed: usize,
}

/// By law and implementation.
type Cells = BTreeMap<(u32, &'static str), Count>;

/// The report of a run of this profile, as JUnit has it.
fn report(profile: &str) -> PathBuf {
    root().join("target/nextest").join(profile).join("junit.xml")
}

/// Removes the report of an earlier run, so that none is taken for the next one's.
pub(crate) fn forget(profile: &str) -> Result<(), Failed> {
    match fs::remove_file(report(profile)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(Failed(format!("remove `{}`: {error}", report(profile).display())))
        }
        _ => Ok(()),
    }
}

/// Prints the matrix of the run that has ended. After a run of all tests each law must have been tested everywhere.
pub(crate) fn print(profile: &str, is_whole: bool) -> Result<(), Failed> {
    let path = report(profile);
    let report = fs::read_to_string(&path)
        .map_err(|error| Failed(format!("read the test runner's report `{}`: {error}", path.display())))?;
    let (text, missing) = tables(&report);
    print!("{text}");
    match is_whole && !missing.is_empty() {
        true => Err(Failed(format!("these laws were not tested: {}", missing.join(", ")))),
        false => Ok(()),
    }
}

/// The tables, and the laws that were not tested somewhere. A seam of which nothing ran has no table.
fn tables(report: &str) -> (String, Vec<String>) {
    let (mut text, mut missing) = (String::new(), Vec::new());
    for seam in &SEAMS {
        let cells = cells(seam, report);
        if cells.is_empty() {
            missing.push(format!("all of the {}", seam.name));
            continue;
        }
        let names = seam.implementations.iter().map(|(_, name)| (*name).to_owned());
        text += &format!("\n{}", row(seam.name, names));
        for law in 1..=last(seam) {
            let id = format!("{}-{law}", seam.prefix.to_uppercase());
            let cell = |(module, name): &(&'static str, &str)| match cells.get(&(law, *module)) {
                None => {
                    missing.push(format!("{id} on {name}"));
                    "not run".to_owned()
                }
                Some(Count { held, failed: 0 }) => format!("holds ({held})"),
                Some(Count { held, failed }) => format!("FAILS ({failed}/{})", held + failed),
            };
            text += &row(&id, seam.implementations.iter().map(cell));
        }
    }
    if !text.is_empty() {
        text.push_str("\nIn brackets: the tests of a law that ran.\n");
    }
    (text, missing)
}

fn row(first: &str, cells: impl Iterator<Item = String>) -> String {
    let cells: String = cells.map(|cell| format!("  {cell:<12}")).collect();
    format!("{}\n", format!("{first:<12}{cells}").trim_end())
}

/// The number of the last law of a seam, whether or not a test of it is left.
fn last(seam: &Seam) -> u32 {
    let id = format!("{}-", seam.prefix.to_uppercase());
    let words = seam.laws.split(|c: char| !c.is_ascii_alphanumeric() && c != '-');
    words.filter_map(|word| word.strip_prefix(&id)?.parse().ok()).max().unwrap_or_default()
}

/// What the tests of a seam's laws came to.
fn cells(seam: &Seam, report: &str) -> Cells {
    let mut cells = Cells::new();
    // Every test has an element; what went wrong with it stands within.
    for case in report.split("<testcase ").skip(1) {
        let (case, _) = case.split_once("</testcase>").unwrap_or((case, ""));
        let Some(name) = attribute(case, "name") else { continue };
        let mut segments: Vec<&str> = name.split("::").collect();
        let Some(law) = segments.pop().and_then(|test| law(seam.prefix, test)) else { continue };
        let found = seam.implementations.iter().find(|(module, _)| segments.contains(module));
        let Some((module, _)) = found else { continue };
        let count = cells.entry((law, *module)).or_default();
        match case.contains("<failure") || case.contains("<error") {
            true => count.failed += 1,
            false => count.held += 1,
        }
    }
    cells
}

fn attribute<'a>(element: &'a str, name: &str) -> Option<&'a str> {
    let (_, rest) = element.split_once(&format!("{name}=\""))?;
    Some(rest.split_once('"')?.0)
}

/// The number of the law that a test is of.
fn law(prefix: &str, test: &str) -> Option<u32> {
    test.strip_prefix(prefix)?.strip_prefix('_')?.split('_').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const REPORT: &str = r#"<?xml version="1.0" encoding="UTF-8"?>
<testsuites name="nextest-run" tests="9">
  <testsuite name="hypercode-events" tests="7">
    <testcase name="store::memory::tests::es_1_positions" classname="hypercode-events" time="0.1"/>
    <testcase name="store::sqlite::tests::by_default::es_1_positions" classname="hypercode-events" time="0.1">
    </testcase>
    <testcase name="store::sqlite::tests::small::es_1_positions" classname="hypercode-events" time="0.1">
      <failure message="it failed"/>
    </testcase>
    <testcase name="store::postgres::tests::by_default::es_1_positions" classname="x"><system-out>a</system-out></testcase>
    <testcase name="store::postgres::tests::leases::es_2_all_or_nothing" classname="x"/>
    <testcase name="store::sqlite::tests::es_2_all_or_nothing" classname="x"/>
    <testcase name="projection::tests::es_2_elsewhere" classname="x"/>
  </testsuite>
</testsuites>"#;

    #[test]
    fn the_matrix_says_what_ran_and_what_did_not() {
        let (text, missing) = tables(REPORT);
        let lines: Vec<Vec<&str>> = text
            .lines()
            .map(|line| line.split("  ").filter(|cell| !cell.is_empty()).map(str::trim).collect())
            .collect();
        assert!(lines.contains(&vec!["ES-1", "holds (1)", "FAILS (1/2)", "holds (1)"]), "{text}");
        assert!(lines.contains(&vec!["ES-2", "not run", "holds (1)", "holds (1)"]), "{text}");
        assert_eq!(missing[0], "ES-2 on memory");
        assert!(lines.contains(&vec!["ES-8", "not run", "not run", "not run"]), "{text}");
        assert!(missing.contains(&"ES-8 on Postgres".to_owned()), "{missing:?}");
        assert_eq!(missing.last().map(String::as_str), Some("all of the bus"));
        assert_eq!(SEAMS.map(|seam| last(&seam)), [8, 5]);
    }
}
