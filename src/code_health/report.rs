//! Writes the report. The same files give the same bytes, in whatever order the parts came and however often an
//! analyst had to start again.

mod findings;
mod sections;
mod statistics;
mod text;

use serde::{Deserialize, Serialize};

use super::duplicates::{self, Duplicates};
use super::measure::File;
use super::tree::Skipped;
use findings::Findings;

/// All that is known of a tree.
#[derive(Debug, Default)]
pub(crate) struct Survey {
    /// The tree's name: that of its directory.
    pub(crate) name: String,
    pub(crate) files: Vec<File>,
    pub(crate) skipped: Skipped,
    pub(crate) missing: Vec<Missing>,
}

/// A part that nobody could analyse.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Missing {
    pub(crate) part: String,
    /// Its first and last file, and how many it has.
    pub(crate) first: String,
    pub(crate) last: String,
    pub(crate) files: u64,
    pub(crate) error: String,
}

/// A survey with what follows from it.
struct Study<'a> {
    survey: &'a Survey,
    duplicates: Duplicates,
    findings: Findings,
}

/// The report, in Markdown.
pub(crate) fn write(mut survey: Survey) -> String {
    survey.files.sort_by(|a, b| a.path.cmp(&b.path));
    survey.files.dedup_by(|a, b| a.path == b.path);
    survey.missing.sort_by(|a, b| a.part.cmp(&b.part));
    let duplicates = duplicates::find(&survey.files);
    let findings = Findings::of(&survey.files, &duplicates);
    sections::all(&Study { survey: &survey, duplicates, findings })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::code_health::measure::measure;

    fn survey() -> Survey {
        let long = format!("fn long() {{\n{}}}\n", "    step();\n".repeat(100));
        let copied = "fn copied() {\n    a(1);\n    b(2);\n    c(3);\n    d(4);\n    e(5);\n    f(6);\n}\n";
        let deep = "fn deep() {\n    if a { if b { if c { if d { if e { if f { g(); } } } } } }\n}\n";
        let files = [
            ("src/long.rs", long),
            ("src/a.rs", format!("// FIXME: broken | badly\n{copied}")),
            ("tests/b.rs", format!("{copied}// TODO: more `code`\n")),
            ("src/deep.rs", deep.to_owned()),
            ("README.md", "# Title\n\n<!-- TODO: a text -->\n".to_owned()),
        ];
        let files = files.iter().map(|(path, text)| measure(path, text.as_bytes())).collect();
        let missing = Missing {
            part: "part-03".into(),
            first: "x/a.rs".into(),
            last: "x/z.rs".into(),
            files: 7,
            error: "crash: killed by signal 9".into(),
        };
        Survey { name: "sample".into(), files, skipped: Skipped::default(), missing: vec![missing] }
    }

    #[test]
    fn the_report_says_what_was_found_and_where() {
        let report = write(survey());
        for expected in [
            "# Code health of `sample`",
            "`src/long.rs:1`",
            "102 lines long",
            "`src/deep.rs:1`",
            "nested 6 deep",
            "`src/a.rs:2-8`",
            "`tests/b.rs:1-7`",
            "broken \\| badly",
            "part-03",
            "killed by signal 9",
        ] {
            assert!(report.contains(expected), "no `{expected}` in:\n{report}");
        }
    }

    #[test]
    fn the_order_of_the_files_does_not_matter() {
        let report = write(survey());
        for turn in 0..5 {
            let mut turned = survey();
            turned.files.rotate_left(turn);
            turned.files.reverse();
            assert_eq!(write(turned), report);
        }
    }

    #[test]
    fn an_empty_tree_has_a_report_too() {
        let report = write(Survey { name: "empty".into(), ..Survey::default() });
        assert!(report.contains("no text files"), "{report}");
    }
}
