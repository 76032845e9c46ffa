//! Functions of languages with bodies in braces: one pass that asks of each `{` what its header says it opens.

mod header;

use header::{Brace, Header};

use super::Function;
use crate::code_health::language::{Dialect, Functions, Language};

/// A brace that has not been closed.
struct Open {
    brace: Brace,
    /// Index of the function that it began, if it began one.
    function: Option<usize>,
    /// What was read of a header before it: a literal inside a header does not end the header.
    header_start: usize,
    /// How many parentheses were open around it.
    parentheses: usize,
    /// Whether it is a module of tests or stands in one.
    test: bool,
}

struct Scanner<'a> {
    code: &'a [u8],
    language: &'a Language,
    line: u32,
    /// Where the header that a brace at this place would have begins, and on which line.
    header_start: usize,
    /// Where the innermost argument begins.
    argument_start: usize,
    parentheses: usize,
    open: Vec<Open>,
    found: Vec<Function>,
    /// The levels open since the start of each function that is open: (index, depth).
    depths: Vec<(usize, u32)>,
}

/// Finds functions whose bodies stand in braces.
pub(super) fn find(code: &str, language: &Language) -> Vec<Function> {
    let code = match language.dialect {
        Dialect::C => without_preprocessor(code),
        _ => code.to_owned(),
    };
    let mut scanner = Scanner {
        code: code.as_bytes(),
        language,
        line: 1,
        header_start: 0,
        argument_start: 0,
        parentheses: 0,
        open: Vec::new(),
        found: Vec::new(),
        depths: Vec::new(),
    };
    scanner.run();
    scanner.found
}

impl Scanner<'_> {
    fn run(&mut self) {
        // A semicolon in `if x := f(); x > 0 {` of Go ends nothing; its newlines do.
        let (newline_ends, semicolon_ends) = match self.language.functions {
            Functions::Keyword { newline_ends, .. } => (newline_ends, !newline_ends),
            Functions::JavaScript => (true, true),
            _ => (false, true),
        };
        for at in 0..self.code.len() {
            match self.code[at] {
                b'\n' => {
                    if newline_ends && self.parentheses == 0 && self.statement_ends(at) {
                        self.restart(at + 1);
                    }
                    self.line += 1;
                }
                b'(' | b'[' => {
                    self.parentheses += 1;
                    self.argument_start = at + 1;
                }
                b')' | b']' => self.parentheses = self.parentheses.saturating_sub(1),
                b',' => self.argument_start = at + 1,
                b';' if self.parentheses == 0 && semicolon_ends => self.restart(at + 1),
                b';' => self.argument_start = at + 1,
                b'{' => self.enter(at),
                b'}' => self.leave(at),
                _ => {}
            }
        }
        // What is never closed ends with the text.
        if self.code.ends_with(b"\n") {
            self.line -= 1;
        }
        while !self.open.is_empty() {
            self.leave(self.code.len());
        }
    }

    fn restart(&mut self, at: usize) {
        self.header_start = at;
        self.argument_start = at;
    }

    /// In languages without semicolons a line ends a statement unless it, or the next one, says that it goes on.
    fn statement_ends(&self, at: usize) -> bool {
        let last = self.code[self.header_start..at].trim_ascii_end().last().copied();
        let next = self.code[at..].iter().find(|byte| !byte.is_ascii_whitespace()).copied();
        let ends = last.is_none_or(|byte| {
            byte.is_ascii_alphanumeric()
                || matches!(byte, b'_' | b')' | b']' | b'}' | b'"' | b'$')
                || byte >= 0x80
        });
        let goes_on = next.is_some_and(|byte| b"{.?:=&|+-*/,>)".contains(&byte));
        ends && !goes_on
    }

    fn enter(&mut self, at: usize) {
        let start =
            if self.parentheses > 0 { self.header_start.max(self.argument_start) } else { self.header_start };
        let inside = self.open.last().map(|open| open.brace);
        let header = Header { code: self.code, start, end: at, nested: self.parentheses > 0, inside };
        let brace = header.classify(self.language);
        let test = self.open.last().is_some_and(|open| open.test)
            || (brace == Brace::Scope && header.is_test_module());
        let function = (brace == Brace::Function).then(|| self.begin(&header, at, test));
        if brace == Brace::Level {
            self.deepen();
        }
        self.open.push(Open {
            brace,
            function,
            header_start: self.header_start,
            parentheses: self.parentheses,
            test,
        });
        self.parentheses = 0;
        self.restart(at + 1);
    }

    fn begin(&mut self, header: &Header<'_>, at: usize, test: bool) -> usize {
        let (name, name_at) = header.name(self.language).unwrap_or_default();
        let lines_before = self.code[name_at..at].iter().filter(|byte| **byte == b'\n').count();
        let line = self.line - u32::try_from(lines_before).unwrap_or_default();
        // A function in a function is a level of the outer one.
        self.deepen();
        self.found.push(Function { name, line, lines: 0, depth: 0, test });
        self.depths.push((self.found.len() - 1, 0));
        self.found.len() - 1
    }

    fn deepen(&mut self) {
        for (function, depth) in &mut self.depths {
            *depth += 1;
            let deepest = &mut self.found[*function].depth;
            *deepest = (*deepest).max(*depth);
        }
    }

    fn leave(&mut self, at: usize) {
        let Some(open) = self.open.pop() else {
            self.restart(at + 1);
            return;
        };
        if let Some(index) = open.function {
            let function = &mut self.found[index];
            function.lines = self.line - function.line + 1;
            self.depths.pop();
        }
        if matches!(open.brace, Brace::Level | Brace::Function) {
            self.depths.iter_mut().for_each(|(_, depth)| *depth -= 1);
        }
        self.parentheses = open.parentheses;
        self.restart(at + 1);
        if open.brace == Brace::Literal || open.parentheses > 0 {
            self.header_start = open.header_start;
        }
    }
}

/// Blanks directives, and the branches after `#else`, whose braces would be counted twice.
fn without_preprocessor(code: &str) -> String {
    let mut kept = String::with_capacity(code.len());
    let mut continued = false;
    // For each `#if` that is open, whether its first branch is over.
    let mut branches: Vec<bool> = Vec::new();
    for line in code.split_inclusive('\n') {
        let text = line.trim();
        let directive = (!continued).then(|| text.strip_prefix('#')).flatten().map(str::trim_start);
        if let Some(directive) = directive {
            if directive.starts_with("if") {
                branches.push(false);
            } else if directive.starts_with("el") {
                if let Some(branch) = branches.last_mut() {
                    *branch = true;
                }
            } else if directive.starts_with("endif") {
                branches.pop();
            }
        }
        let blank = continued || directive.is_some() || branches.contains(&true);
        continued = (continued || directive.is_some()) && text.ends_with('\\');
        if blank {
            kept.extend(line.bytes().map(|byte| if byte == b'\n' { '\n' } else { ' ' }));
        } else {
            kept.push_str(line);
        }
    }
    kept
}
