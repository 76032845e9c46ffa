//! Measures one file.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::fingerprint::Windows;
use super::functions::{self, Function};
use super::language::{self, Kind, Language};
use super::marks::{self, Mark};
use super::stencil::{self, Stencils};

/// Lines of code wider than this, in characters, are long.
pub(crate) const LINE_CHARS_MAX: usize = 120;
/// Files whose lines are longer than this on average, in bytes, are taken for generated.
const AVERAGE_LINE_BYTES_MAX: usize = 300;
/// Generated files say so in one of their first lines.
const GENERATED_WITHIN_LINES: usize = 10;

/// What is known of one file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct File {
    /// Its path from the root of the tree.
    pub(crate) path: String,
    pub(crate) language: String,
    pub(crate) bytes: u64,
    /// Lines with code, lines with comments only, lines with neither; together all lines.
    pub(crate) code: u32,
    pub(crate) comment: u32,
    pub(crate) blank: u32,
    /// Whether its path says that it holds tests.
    pub(crate) test: bool,
    /// Whether it says, or looks as if, a program wrote it.
    pub(crate) generated: bool,
    /// Whether some bytes were no UTF-8 and were replaced.
    pub(crate) broken_text: bool,
    pub(crate) functions: Vec<Function>,
    pub(crate) marks: Vec<Mark>,
    pub(crate) long_lines: Option<LongLines>,
    pub(crate) mixed_indentation: Option<MixedIndentation>,
    pub(crate) windows: Windows,
}

/// The lines of code over [`LINE_CHARS_MAX`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LongLines {
    pub(crate) count: u32,
    /// The widest one's line and its width in characters.
    pub(crate) line: u32,
    pub(crate) chars: u64,
}

/// Lines of code that are indented by tabulators beside others that are indented by spaces.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct MixedIndentation {
    pub(crate) tabs: u32,
    pub(crate) spaces: u32,
    /// The first line of the rarer sort.
    pub(crate) line: u32,
}

impl File {
    /// All its lines.
    pub(crate) fn lines(&self) -> u32 {
        self.code + self.comment + self.blank
    }

    /// The language, as the table knows it.
    pub(crate) fn language(&self) -> &'static Language {
        language::by_name(&self.language)
    }

    /// Whether this line belongs to tests.
    pub(crate) fn stands_in_test(&self, line: u32) -> bool {
        let holds = |function: &Function| function.line <= line && line - function.line < function.lines;
        self.test || self.functions.iter().any(|function| function.test && holds(function))
    }

    /// Whether people wrote it as code, so that it may be praised or blamed.
    pub(crate) fn is_own_code(&self) -> bool {
        self.language().kind == Kind::Code && !self.generated
    }
}

/// Measures a file of this name and content.
pub(crate) fn measure(path: &str, content: &[u8]) -> File {
    let decoded = String::from_utf8_lossy(content);
    let broken_text = matches!(decoded, std::borrow::Cow::Owned(_));
    let text = decoded.strip_prefix('\u{FEFF}').unwrap_or(&decoded);
    let language = language::recognise(Path::new(path), text.lines().next().unwrap_or_default());
    let stencils = stencil::cut(text, language);
    let (code, comment, blank) = count_lines(&stencils);
    let generated = is_generated(text, &stencils);
    let own_code = language.kind == Kind::Code && !generated;
    File {
        path: path.to_owned(),
        language: language.name.to_owned(),
        bytes: content.len() as u64,
        code,
        comment,
        blank,
        test: is_test(path),
        generated,
        broken_text,
        functions: if own_code { functions::find(&stencils.code, language) } else { Vec::new() },
        marks: marks::find(&stencils.comments),
        long_lines: if own_code { long_lines(text) } else { None },
        mixed_indentation: if own_code { mixed_indentation(text, &stencils.code) } else { None },
        windows: if own_code { Windows::of(text, &stencils.comments) } else { Windows::default() },
    }
}

fn count_lines(stencils: &Stencils) -> (u32, u32, u32) {
    let mut counts = (0, 0, 0);
    for (code, comment) in stencils.code.lines().zip(stencils.comments.lines()) {
        let place = match (code.trim().is_empty(), comment.trim().is_empty()) {
            (false, _) => &mut counts.0,
            (true, false) => &mut counts.1,
            (true, true) => &mut counts.2,
        };
        *place += 1;
    }
    counts
}

fn is_generated(text: &str, stencils: &Stencils) -> bool {
    let mut head = stencils.comments.lines().take(GENERATED_WITHIN_LINES);
    let said = head.any(|line| {
        line.contains("@generated") || line.contains("DO NOT EDIT") || line.contains("Code generated")
    });
    said || text.len() > AVERAGE_LINE_BYTES_MAX * text.lines().count().max(1)
}

fn is_test(path: &str) -> bool {
    let (directories, file) = path.rsplit_once('/').unwrap_or(("", path));
    let directory = |name: &str| {
        matches!(
            name,
            "test" | "tests" | "testing" | "testdata" | "__tests__" | "spec" | "fixtures" | "benches"
        )
    };
    let stem = file.split('.').next().unwrap_or(file);
    directories.split('/').any(directory)
        || matches!(stem, "test" | "tests" | "conftest")
        || stem.starts_with("test_")
        || stem.ends_with("_test")
        || stem.ends_with("_tests")
        || file.contains(".test.")
        || file.contains(".spec.")
}

fn long_lines(text: &str) -> Option<LongLines> {
    let mut found: Option<LongLines> = None;
    for (line, number) in text.lines().zip(1..) {
        // A character has at least one byte: most lines need no counting.
        if line.len() <= LINE_CHARS_MAX {
            continue;
        }
        let chars = line.chars().count();
        if chars > LINE_CHARS_MAX {
            let widest = found.get_or_insert(LongLines { count: 0, line: number, chars: 0 });
            widest.count += 1;
            if chars as u64 > widest.chars {
                (widest.line, widest.chars) = (number, chars as u64);
            }
        }
    }
    found
}

/// Single spaces are left out: they align comments and continuations.
fn mixed_indentation(text: &str, code: &str) -> Option<MixedIndentation> {
    let mut tabs = (0, 0);
    let mut spaces = (0, 0);
    for ((line, code), number) in text.lines().zip(code.lines()).zip(1..) {
        let inside_string =
            code.trim_start().starts_with('"') && !line.trim_start().starts_with(['"', '\'', '`']);
        if code.trim().is_empty() || inside_string {
            continue;
        }
        let sort = if line.starts_with('\t') {
            &mut tabs
        } else if line.starts_with("  ") {
            &mut spaces
        } else {
            continue;
        };
        sort.0 += 1;
        if sort.1 == 0 {
            sort.1 = number;
        }
    }
    let line = if tabs.0 <= spaces.0 { tabs.1 } else { spaces.1 };
    (tabs.0 > 0 && spaces.0 > 0).then_some(MixedIndentation { tabs: tabs.0, spaces: spaces.0, line })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(path: &str, text: &str) -> (u32, u32, u32) {
        let file = measure(path, text.as_bytes());
        (file.code, file.comment, file.blank)
    }

    #[test]
    fn lines_are_counted_by_what_is_on_them() {
        assert_eq!(counts("a.rs", "// a\nlet b = \"/*\"; // c\n\n/* d\n\ne */ f();\n"), (2, 2, 2));
        assert_eq!(counts("a.rs", "let s = \"one\n\n  two\";\r\n\r\n"), (2, 0, 2));
        assert_eq!(counts("a.py", "\"\"\"doc\nmore\"\"\"\nx = 1\n"), (1, 2, 0));
        assert_eq!(counts("a.xyz", "a\n\nb"), (2, 0, 1));
        assert_eq!(counts("empty.rs", ""), (0, 0, 0));
    }

    #[test]
    fn line_ends_and_byte_order_marks_change_nothing_but_the_size() {
        let unix = "fn a() {\n    // TODO: x\n    b();\n}\n";
        let windows = format!("\u{FEFF}{}", unix.replace('\n', "\r\n"));
        let (unix, mut windows) = (measure("a.rs", unix.as_bytes()), measure("a.rs", windows.as_bytes()));
        windows.bytes = unix.bytes;
        assert_eq!(unix, windows);
    }

    #[test]
    fn text_that_is_not_utf8_and_unicode_are_measured() {
        let file = measure("a.rs", b"// \xff\nfn na\xc3\xafve() {}\n");
        assert!(file.broken_text);
        assert_eq!((file.code, file.comment), (1, 1));
        assert_eq!(file.functions[0].name, "naïve");
        assert!(!measure("a.rs", "// ∀".as_bytes()).broken_text);
    }

    #[test]
    fn long_lines_are_counted_in_characters() {
        let file = measure("a.rs", format!("{}\n{}\nx\n", "é".repeat(120), "é".repeat(121)).as_bytes());
        assert_eq!(file.long_lines, Some(LongLines { count: 1, line: 2, chars: 121 }));
    }

    #[test]
    fn huge_lines_are_generated_and_cheap() {
        let text = "f('a',/b/,`c${d}`);{".repeat(50_000);
        let file = measure("a.js", text.as_bytes());
        assert!(file.generated && file.functions.is_empty());
        assert!(measure("a.go", b"// Code generated by x. DO NOT EDIT.\npackage a\n").generated);
        assert!(!measure("a.go", b"package a\nvar x = \"DO NOT EDIT\"\n").generated);
    }

    #[test]
    fn mixed_indentation_names_the_rarer_sort() {
        let file = measure("a.c", b"int a() {\n\tb();\n\tc();\n    d();\n}\n");
        assert_eq!(file.mixed_indentation, Some(MixedIndentation { tabs: 2, spaces: 1, line: 4 }));
        assert_eq!(measure("a.c", b"/*\n  a\n */\n\tb();\n").mixed_indentation, None);
    }

    #[test]
    fn tests_are_told_by_their_paths() {
        assert!(
            ["tests/a.rs", "x/a_test.go", "a.spec.ts", "x/tests.rs", "test_a.py"].into_iter().all(is_test)
        );
        assert!(!["src/latest.rs", "contest/a.rs", "attest.go"].into_iter().any(is_test));
    }
}
