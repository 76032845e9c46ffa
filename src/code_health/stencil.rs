//! Splits a source text into code and comments: two stencils of the text's own length, so that a place in one is the
//! same place in the other and in the text.

use super::language::{Dialect, Language, Quote};

/// Stands for every byte of a string in the code stencil: visible, but neither a brace nor part of a word.
const STRING_FILL: u8 = b'"';

/// A regular expression literal is looked for no further than this, so that huge lines stay linear.
const REGULAR_EXPRESSION_BYTES_MAX: usize = 1_000;

/// A text seen through two stencils. Both have the bytes and lines of the text; what is not theirs is a space.
#[derive(Debug)]
pub(crate) struct Stencils {
    /// Code, with every byte of a string replaced by a quotation mark.
    pub(crate) code: String,
    /// Comments, with their marks.
    pub(crate) comments: String,
}

/// Cuts both stencils. Takes time linear in the text, and any text: an unclosed comment or string goes on to its end.
pub(crate) fn cut(text: &str, language: &Language) -> Stencils {
    let source = text.as_bytes();
    let blank: Vec<u8> = source.iter().map(|byte| if *byte == b'\n' { b'\n' } else { b' ' }).collect();
    let mut cutter = Cutter {
        source,
        at: 0,
        comments: blank.clone(),
        code: blank,
        language,
        templates: Vec::new(),
        heredocs: Vec::new(),
    };
    cutter.run();
    Stencils { code: to_text(cutter.code), comments: to_text(cutter.comments) }
}

/// Whole characters only are copied or blanked, so the lossy path is never taken in practice.
fn to_text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned())
}

struct Cutter<'a> {
    source: &'a [u8],
    at: usize,
    code: Vec<u8>,
    comments: Vec<u8>,
    language: &'a Language,
    /// Open template literals: for each the depth of braces in its `${…}`.
    templates: Vec<usize>,
    /// Here-documents that begin at the next line.
    heredocs: Vec<Vec<u8>>,
}

impl Cutter<'_> {
    fn run(&mut self) {
        while self.at < self.source.len() {
            let byte = self.source[self.at];
            if byte == b'\n' {
                self.at += 1;
                self.here_documents();
            } else if byte.is_ascii_whitespace() {
                self.at += 1;
            } else if !(self.comment() || self.special_literal() || self.string()) {
                self.plain(byte);
            }
        }
    }

    fn rest(&self) -> &[u8] {
        &self.source[self.at..]
    }

    fn starts(&self, mark: &str) -> bool {
        self.rest().starts_with(mark.as_bytes())
    }

    /// Whether only white space stands before this place on its line.
    fn at_line_start(&self) -> bool {
        self.source[..self.at].iter().rev().take_while(|b| **b != b'\n').all(u8::is_ascii_whitespace)
    }

    fn plain(&mut self, byte: u8) {
        if let Some(depth) = self.templates.last_mut() {
            match byte {
                b'{' => *depth += 1,
                b'}' if *depth == 0 => {
                    self.templates.pop();
                    return self.template(1);
                }
                b'}' => *depth -= 1,
                _ => {}
            }
        }
        self.code[self.at] = byte;
        self.at += 1;
    }

    /// Copies up to `end` as a comment.
    fn keep_comment(&mut self, end: usize) {
        self.comments[self.at..end].copy_from_slice(&self.source[self.at..end]);
        self.at = end;
    }

    /// Marks up to `end` as a string.
    fn keep_string(&mut self, end: usize) {
        for (code, byte) in self.code[self.at..end].iter_mut().zip(&self.source[self.at..end]) {
            if !byte.is_ascii_whitespace() {
                *code = STRING_FILL;
            }
        }
        self.at = end;
    }

    /// Where `mark` stands next, from `from` on.
    fn find(&self, mark: &[u8], from: usize) -> Option<usize> {
        let first = *mark.first()?;
        let mut at = from;
        while let Some(step) = self.source.get(at..)?.iter().position(|byte| *byte == first) {
            at += step;
            if self.source[at..].starts_with(mark) {
                return Some(at);
            }
            at += 1;
        }
        None
    }

    fn line_end(&self) -> usize {
        self.find(b"\n", self.at).unwrap_or(self.source.len())
    }

    fn comment(&mut self) -> bool {
        if self.language.dialect == Dialect::Ruby && self.starts("=begin") && self.at_line_start() {
            let end = self.find(b"\n=end", self.at).map_or(self.source.len(), |at| at + 5);
            self.keep_comment(end);
            return true;
        }
        for (open, close) in self.language.block_comments {
            if self.starts(open) {
                let end = self.block_comment_end(open, close);
                self.keep_comment(end);
                return true;
            }
        }
        let begins = self.language.line_comments.iter().any(|mark| self.starts(mark));
        if begins && self.may_begin_line_comment() {
            self.keep_comment(self.line_end());
            return true;
        }
        false
    }

    fn block_comment_end(&self, open: &str, close: &str) -> usize {
        let nested = self.language.dialect == Dialect::Rust || open == "{-";
        let mut depth = 1;
        let mut at = self.at + open.len();
        while at < self.source.len() {
            let rest = &self.source[at..];
            if rest.starts_with(close.as_bytes()) {
                at += close.len();
                depth -= 1;
                if depth == 0 {
                    return at;
                }
            } else if nested && rest.starts_with(open.as_bytes()) {
                at += open.len();
                depth += 1;
            } else {
                at += 1;
            }
        }
        self.source.len()
    }

    /// `$#` and `${x#y}` of a shell, and `a#b` of YAML, are no comments.
    fn may_begin_line_comment(&self) -> bool {
        self.language.dialect != Dialect::Shell
            || self.at == 0
            || matches!(self.source[self.at - 1], b' ' | b'\t' | b'\n' | b'\r' | b';' | b'(' | b')')
    }

    /// Literals that the table of quotes cannot describe.
    fn special_literal(&mut self) -> bool {
        match self.language.dialect {
            Dialect::Rust => self.rust_raw_string() || self.rust_character(),
            Dialect::C => self.c_raw_string(),
            Dialect::JavaScript if self.starts("`") => {
                self.template(1);
                true
            }
            Dialect::JavaScript => self.regular_expression(),
            Dialect::Shell | Dialect::Ruby => {
                self.note_here_document();
                false
            }
            Dialect::Plain | Dialect::Python => false,
        }
    }

    fn after_word(&self) -> bool {
        self.at > 0 && is_word(self.source[self.at - 1])
    }

    fn rust_raw_string(&mut self) -> bool {
        let prefix = match self.rest() {
            [b'r', b'"' | b'#', ..] => 1,
            [b'b' | b'c', b'r', b'"' | b'#', ..] => 2,
            _ => return false,
        };
        if self.after_word() {
            return false;
        }
        let hashes = self.rest()[prefix..].iter().take_while(|byte| **byte == b'#').count();
        let open = prefix + hashes;
        if self.rest().get(open) != Some(&b'"') {
            return false;
        }
        let mut close = vec![b'"'];
        close.resize(1 + hashes, b'#');
        let from = self.at + open + 1;
        let end = self.find(&close, from).map_or(self.source.len(), |at| at + close.len());
        self.keep_string(end);
        true
    }

    /// A character literal, or a lifetime, which is code.
    fn rust_character(&mut self) -> bool {
        if !self.starts("'") {
            return false;
        }
        // The longest literal is `'\u{10FFFF}'`; a bound keeps huge lines linear.
        let end = self.source.len().min(self.at + 12);
        let line = &self.source[self.at..end];
        let length = match line {
            [_, b'\\', _, rest @ ..] => rest.iter().position(|byte| *byte == b'\'').map(|at| at + 4),
            [_, first, ..] => {
                let wide = utf8_width(*first);
                (line.get(1 + wide) == Some(&b'\'')).then_some(wide + 2)
            }
            _ => None,
        };
        match length {
            Some(length) => self.keep_string(self.at + length),
            None => self.plain(b'\''),
        }
        true
    }

    fn c_raw_string(&mut self) -> bool {
        if !self.starts("R\"") || self.after_word() {
            return false;
        }
        let body = &self.rest()[2..];
        let Some(open) = body.iter().take(17).position(|byte| *byte == b'(') else { return false };
        let close = [b")", &body[..open], b"\""].concat();
        let end = self.find(&close, self.at + 3 + open).map_or(self.source.len(), |at| at + close.len());
        self.keep_string(end);
        true
    }

    /// Reads a template literal from its opening (or from the brace that closes a `${…}`) to its end or to the next
    /// `${`, whose inside is code again.
    fn template(&mut self, opening: usize) {
        let mut at = self.at + opening;
        while at < self.source.len() {
            match self.source[at] {
                b'\\' => at += 2,
                b'`' => return self.keep_string(at + 1),
                b'$' if self.source.get(at + 1) == Some(&b'{') => {
                    self.templates.push(0);
                    return self.keep_string(at + 2);
                }
                _ => at += 1,
            }
        }
        self.keep_string(self.source.len());
    }

    /// A slash begins a regular expression where no value can stand before it.
    fn regular_expression(&mut self) -> bool {
        if !self.starts("/") || !self.value_may_begin() {
            return false;
        }
        let bound = self.source.len().min(self.at + REGULAR_EXPRESSION_BYTES_MAX);
        let mut in_class = false;
        let mut at = self.at + 1;
        while at < bound {
            match self.source[at] {
                b'\n' => return false,
                b'\\' => at += 1,
                b'[' => in_class = true,
                b']' => in_class = false,
                b'/' if !in_class => {
                    self.keep_string(at + 1);
                    return true;
                }
                _ => {}
            }
            at += 1;
        }
        false
    }

    fn value_may_begin(&self) -> bool {
        let before = self.code[..self.at].trim_ascii_end();
        match before.last() {
            None => true,
            Some(last) if is_word(*last) => {
                let start = before.iter().rposition(|byte| !is_word(*byte)).map_or(0, |at| at + 1);
                matches!(&before[start..], b"return" | b"case" | b"typeof" | b"in" | b"of" | b"do" | b"else")
            }
            Some(last) => !matches!(last, b')' | b']' | b'}' | &STRING_FILL),
        }
    }

    /// Remembers `<<WORD`, `<<-WORD`, `<<~'WORD'`: its lines begin after this one.
    fn note_here_document(&mut self) {
        if !self.starts("<<") || self.starts("<<<") || self.source[..self.at].ends_with(b"<") {
            return;
        }
        let rest = &self.rest()[2..];
        let quoted = rest.iter().take_while(|byte| matches!(byte, b'-' | b'~' | b'"' | b'\'')).count();
        let word: Vec<u8> = rest[quoted..].iter().copied().take_while(|byte| is_word(*byte)).collect();
        if word.first().is_some_and(|first| first.is_ascii_alphabetic() || *first == b'_') {
            self.heredocs.push(word);
        }
    }

    fn here_documents(&mut self) {
        for word in std::mem::take(&mut self.heredocs) {
            while self.at < self.source.len() {
                let end = self.line_end();
                let closes = self.source[self.at..end].trim_ascii() == word;
                self.keep_string(end);
                self.at = (end + 1).min(self.source.len());
                if closes {
                    break;
                }
            }
        }
    }

    fn string(&mut self) -> bool {
        let Some(quote) = self.language.quotes.iter().find(|quote| self.starts(quote.mark)) else {
            return false;
        };
        let end = self.string_end(quote);
        let documents = self.language.dialect == Dialect::Python && quote.mark.len() == 3;
        if documents && self.at_line_start() && !self.continues_expression() {
            self.keep_comment(end);
        } else {
            self.keep_string(end);
        }
        true
    }

    /// Whether the code before ends so that a string is its argument rather than a statement of its own.
    fn continues_expression(&self) -> bool {
        matches!(self.code[..self.at].trim_ascii_end().last(), Some(b'(' | b'[' | b',' | b'=' | b'+' | b'%'))
    }

    fn string_end(&self, quote: &Quote) -> usize {
        let mark = quote.mark.as_bytes();
        let mut at = self.at + mark.len();
        while at < self.source.len() {
            match self.source[at] {
                b'\\' if quote.escapes => at += 2,
                b'\n' if !quote.multiline => return at,
                _ if self.source[at..].starts_with(mark) => return at + mark.len(),
                _ => at += 1,
            }
        }
        self.source.len()
    }
}

/// Whether the byte may be part of a name. Bytes outside ASCII are.
pub(crate) fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte >= 0x80
}

fn utf8_width(first: u8) -> usize {
    match first {
        0xF0.. => 4,
        0xE0.. => 3,
        0xC0.. => 2,
        _ => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::code_health::language::by_name;

    fn both(language: &str, text: &str) -> (String, String) {
        let stencils = cut(text, by_name(language));
        assert_eq!(stencils.code.len(), text.len());
        assert_eq!(stencils.comments.len(), text.len());
        (stencils.code.trim_end().to_owned(), stencils.comments.trim().to_owned())
    }

    #[test]
    fn comment_marks_in_strings_are_no_comments() {
        assert_eq!(
            both("Rust", r#"let a = "// no"; // yes"#),
            (r#"let a = """ """;"#.into(), "// yes".into())
        );
        assert_eq!(both("Go", "x := `/* no */`").1, "");
        assert_eq!(both("Python", "x = '# no' # yes").1, "# yes");
        assert_eq!(both("C", r#"puts("\" // no"); /* yes */"#).1, "/* yes */");
    }

    #[test]
    fn rust_raw_strings_lifetimes_and_nested_comments() {
        let (code, comments) =
            both("Rust", "fn f<'a>(x: &'a str) { r#\"\" } // \"# ; '{'; '\\'' } /* a /* b */ c */");
        assert_eq!(code, "fn f<'a>(x: &'a str) { \"\"\"\" \" \"\" \"\" ; \"\"\"; \"\"\"\" }");
        assert_eq!(comments, "/* a /* b */ c */");
    }

    #[test]
    fn javascript_templates_and_regular_expressions() {
        let (code, comments) = both("JavaScript", "a = `x${ {b: `}`} }y` / /[/}]\"/.y // c");
        assert!(code.contains("{b:"), "{code}");
        assert_eq!(code.matches('}').count(), 1, "{code}");
        assert_eq!(comments, "// c");
    }

    #[test]
    fn shell_hashes_and_here_documents() {
        let text = "echo $# ${x#y} # yes\ncat <<-'EOF' | sed\n# no \"\n\tEOF\nf \"a\" # too\n";
        let (_, comments) = both("Shell", text);
        assert_eq!(comments.split_whitespace().collect::<Vec<_>>(), ["#", "yes", "#", "too"]);
    }

    #[test]
    fn python_documentation_is_comment_and_arguments_are_not() {
        let (_, comments) =
            both("Python", "def f():\n    \"\"\"doc\n    more\"\"\"\n    g(\n    \"\"\"arg\"\"\")\n");
        assert_eq!(comments, "\"\"\"doc\n    more\"\"\"");
    }

    #[test]
    fn unclosed_things_end_with_the_text() {
        for language in ["Rust", "C", "C++", "JavaScript", "Python", "Ruby", "Shell", "Lua", "Haskell"] {
            for text in
                ["/* x", "\"\\", "'", "r#\"", "R\"x(", "`${`", "'''é", "<<EOF\n", "{- {-", "=begin\n", "'\\"]
            {
                both(language, text);
            }
        }
    }
}
