//! Functions of languages whose code is indented by rule or by custom: Python, Ruby, Elixir, Lua, shells.

use super::Function;

/// Words that open a block when a line begins with them.
const BLOCK_WORDS: &[&str] = &[
    "if", "unless", "for", "while", "until", "with", "try", "match", "case", "begin", "select", "cond",
    "receive", "repeat", "async", "fn",
];

/// Words that go on with a block; they stand at the indentation where it began.
const CONTINUING_WORDS: &[&str] = &["else", "elif", "elsif", "except", "finally", "rescue", "ensure"];

/// How far a tabulator indents.
const TABULATOR_COLUMNS: usize = 8;

/// A function whose end has not been seen.
struct Open {
    indent: usize,
    first: u32,
    last: u32,
    name: String,
    /// The indentations of the control blocks that are open.
    blocks: Vec<usize>,
    depth: usize,
}

/// Finds functions by a header line (`word`, or `name()` where it is empty) and the deeper lines after it, with the
/// closing `end` at the header's indentation, if the language has one.
pub(super) fn find(code: &str, word: &str, end: &str) -> Vec<Function> {
    let mut found = Vec::new();
    let mut open: Vec<Open> = Vec::new();
    // Lines inside brackets or strings go on with the line before and may be indented at will.
    let mut brackets: usize = 0;
    for (line, number) in code.lines().zip(1..) {
        let statement = line.trim();
        if statement.is_empty() {
            continue;
        }
        let continued = brackets > 0 || statement.starts_with('"');
        if end.is_empty() {
            brackets = brackets_after(statement, brackets);
        }
        if continued {
            open.iter_mut().for_each(|function| function.last = number);
            continue;
        }
        let indent = indentation(line);
        while let Some(mut function) = open.pop_if(|function| indent <= function.indent) {
            if indent == function.indent && function.goes_on(statement, number, end) {
                open.push(function);
                break;
            }
            if indent == function.indent && !end.is_empty() && begins_with(statement, end) {
                function.last = number;
            }
            found.push(function.finish());
        }
        for function in &mut open {
            function.last = number;
            function.enter(indent, statement);
        }
        if let Some(name) = header(statement, word) {
            open.push(Open { indent, first: number, last: number, name, blocks: Vec::new(), depth: 0 });
        }
    }
    found.extend(open.into_iter().map(Open::finish));
    found
}

impl Open {
    /// Whether a line at the header's own indentation still belongs to the function: a brace on a line of its own, or
    /// `rescue` and its like in languages with a closing word.
    fn goes_on(&self, statement: &str, number: u32, end: &str) -> bool {
        let opening_brace = statement == "{" && number == self.last + 1;
        let continuing = CONTINUING_WORDS.iter().any(|word| begins_with(statement, word));
        opening_brace || (continuing && !end.is_empty())
    }

    fn enter(&mut self, indent: usize, statement: &str) {
        while self.blocks.pop_if(|block| indent <= *block).is_some() {}
        let mut words = BLOCK_WORDS.iter().chain(CONTINUING_WORDS);
        if indent > self.indent && (words.any(|word| begins_with(statement, word)) || opens_by_do(statement))
        {
            self.blocks.push(indent);
            self.depth = self.depth.max(self.blocks.len());
        }
    }

    fn finish(self) -> Function {
        Function {
            name: self.name,
            line: self.first,
            lines: self.last - self.first + 1,
            depth: u32::try_from(self.depth).unwrap_or(u32::MAX),
            test: false,
        }
    }
}

/// `each do |x|`; the `do` of a loop has the loop's word at the start of its line.
fn opens_by_do(statement: &str) -> bool {
    statement.split(" |").next().unwrap_or(statement).ends_with(" do")
}

/// Whether the statement begins with this whole word.
fn begins_with(statement: &str, word: &str) -> bool {
    statement.strip_prefix(word).is_some_and(|rest| !rest.starts_with(is_name_char))
}

fn is_name_char(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

fn brackets_after(statement: &str, before: usize) -> usize {
    statement.bytes().fold(before, |depth, byte| match byte {
        b'(' | b'[' | b'{' => depth + 1,
        b')' | b']' | b'}' => depth.saturating_sub(1),
        _ => depth,
    })
}

fn indentation(line: &str) -> usize {
    line.chars().take_while(|c| c.is_whitespace()).fold(0, |columns, c| match c {
        '\t' => columns + TABULATOR_COLUMNS - columns % TABULATOR_COLUMNS,
        _ => columns + 1,
    })
}

/// The name that a header line gives.
fn header(statement: &str, word: &str) -> Option<String> {
    if word.is_empty() {
        return shell_header(statement);
    }
    let statement = strip_any(statement, &["async ", "local "]);
    // `defp` and `defmacro` are Elixir's.
    let rest = strip_any(statement.strip_prefix(word)?, &["macro", "p"]);
    let rest = rest.strip_prefix(char::is_whitespace)?.trim_start();
    let name: String =
        rest.chars().take_while(|c| is_name_char(*c) || matches!(c, '.' | '?' | '!' | ':')).collect();
    let name = name.trim_end_matches([':', '.']);
    (!name.is_empty()).then(|| name.to_owned())
}

fn strip_any<'a>(text: &'a str, prefixes: &[&str]) -> &'a str {
    prefixes.iter().find_map(|prefix| text.strip_prefix(prefix)).unwrap_or(text)
}

/// `name() {`, `name ()`, `function name`.
fn shell_header(statement: &str) -> Option<String> {
    let declared = statement.strip_prefix("function ").map(str::trim_start);
    let rest = declared.unwrap_or(statement);
    let name: String =
        rest.chars().take_while(|c| is_name_char(*c) || matches!(c, '-' | ':' | '.')).collect();
    let after = rest[name.len()..].trim_start();
    let parentheses = after.strip_prefix('(').is_some_and(|inside| inside.trim_start().starts_with(')'));
    (!name.is_empty() && (declared.is_some() || parentheses)).then_some(name)
}
