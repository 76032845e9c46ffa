//! The notes that programmers leave in comments for later: `TODO` and its like.

use serde::{Deserialize, Serialize};

/// A file's further marks are counted no more.
const MARKS_MAX: usize = 500;
/// Longer texts are cut.
const TEXT_CHARS_MAX: usize = 100;

/// Kinds of marks, the gravest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub(crate) enum Word {
    /// Known to be broken.
    Fixme,
    /// A warning.
    Xxx,
    /// A detour.
    Hack,
    /// Left to do.
    Todo,
}

impl Word {
    /// All kinds, the gravest first.
    pub(crate) const ALL: [Self; 4] = [Self::Fixme, Self::Xxx, Self::Hack, Self::Todo];

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Fixme => "FIXME",
            Self::Xxx => "XXX",
            Self::Hack => "HACK",
            Self::Todo => "TODO",
        }
    }
}

/// One mark.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Mark {
    pub(crate) word: Word,
    /// From 1.
    pub(crate) line: u32,
    /// What is said behind the word, to the end of the line.
    pub(crate) text: String,
}

/// The marks in a stencil of comments, at most one a line.
pub(crate) fn find(comments: &str) -> Vec<Mark> {
    let lines = comments.lines().zip(1..);
    lines.filter_map(|(line, number)| in_line(line, number)).take(MARKS_MAX).collect()
}

/// A word is a mark where it begins its comment, or where a colon or a name in parentheses follows; so a comment that
/// only speaks of marks is none.
fn in_line(line: &str, number: u32) -> Option<Mark> {
    Word::ALL.into_iter().find_map(|word| {
        let at = line.find(word.as_str())?;
        let (before, after) = (&line[..at], &line[at + word.as_str().len()..]);
        let begins = !before.contains(char::is_alphanumeric);
        let whole = !before.ends_with(is_name_char) && !after.starts_with(is_name_char);
        let addressed = after.starts_with([':', '(']);
        let listed = after.starts_with(['/', ',', '|']);
        (whole && !listed && (begins || addressed)).then(|| Mark { word, line: number, text: text(after) })
    })
}

fn is_name_char(c: char) -> bool {
    c.is_alphanumeric() || c == '_' || c == '`'
}

fn text(after: &str) -> String {
    let text = after.trim().trim_end_matches("*/").trim_end_matches("-->").trim();
    let text = text.trim_start_matches([':', ';', ',', '-', ' ']);
    let mut words = text.split_whitespace().collect::<Vec<_>>().join(" ");
    if let Some((cut, _)) = words.char_indices().nth(TEXT_CHARS_MAX) {
        words.truncate(cut);
        words.push('…');
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_are_found_and_talk_about_marks_is_not() {
        let comments = "// TODO: one\n   * FIXME(ada) two */\n# so TODO(x): three\n// the TODO list, TODO/FIXME, NOTODO: x\n\
                        // see XXX: four\n// TODOS: x\n// `TODO`: x\n";
        let found: Vec<(Word, u32, String)> =
            find(comments).into_iter().map(|mark| (mark.word, mark.line, mark.text)).collect();
        let expected = [
            (Word::Todo, 1, "one".to_owned()),
            (Word::Fixme, 2, "(ada) two".to_owned()),
            (Word::Todo, 3, "(x): three".to_owned()),
            (Word::Xxx, 5, "four".to_owned()),
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn long_texts_are_cut_at_characters() {
        let marks = find(&format!("// TODO {}", "é".repeat(1_000)));
        assert_eq!(marks[0].text.chars().count(), TEXT_CHARS_MAX + 1);
    }
}
