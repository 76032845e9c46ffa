//! What stands before a brace, and what it says that the brace opens.

use crate::code_health::language::{Dialect, Functions, Language};
use crate::code_health::stencil::is_word;

/// What a brace opens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Brace {
    /// The body of a function.
    Function,
    /// A control block or the body of a closure: one level deeper.
    Level,
    /// A type, a module, an arm: no level, but what follows it is new.
    Scope,
    /// A value or a pattern: its header goes on behind it.
    Literal,
}

/// Longer headers are not looked at, so that long lists of literals take linear time.
const HEADER_BYTES_MAX: usize = 4_096;

const CONTROL_WORDS: &[&[u8]] = &[
    b"if",
    b"else",
    b"for",
    b"foreach",
    b"while",
    b"loop",
    b"match",
    b"switch",
    b"try",
    b"catch",
    b"finally",
    b"do",
    b"select",
    b"with",
    b"when",
    b"guard",
    b"unless",
    b"async",
    b"unsafe",
    b"synchronized",
    b"using",
    b"lock",
    b"defer",
];

const SCOPE_WORDS: &[&[u8]] = &[
    b"struct",
    b"enum",
    b"union",
    b"impl",
    b"trait",
    b"mod",
    b"module",
    b"class",
    b"interface",
    b"namespace",
    b"extern",
    b"object",
    b"record",
    b"protocol",
    b"extension",
    b"case",
    b"default",
    b"macro_rules",
    b"package",
    b"message",
    b"service",
];

/// Names before parentheses that are no function's.
const NOT_NAMES: &[&[u8]] = &[
    b"if",
    b"for",
    b"while",
    b"switch",
    b"catch",
    b"return",
    b"sizeof",
    b"new",
    b"throw",
    b"else",
    b"do",
    b"await",
    b"super",
    b"__attribute__",
    b"__declspec",
    b"alignas",
    b"decltype",
    b"noexcept",
    b"foreach",
    b"using",
    b"lock",
    b"synchronized",
    b"function",
    b"with",
];

/// The text before a brace.
pub(super) struct Header<'a> {
    pub(super) code: &'a [u8],
    pub(super) start: usize,
    pub(super) end: usize,
    /// Whether it stands inside parentheses.
    pub(super) nested: bool,
    /// What the brace around it opened.
    pub(super) inside: Option<Brace>,
}

/// A word or a sign of a header that stands outside its parentheses and braces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Token<'a> {
    Word(&'a [u8], usize),
    Sign(u8),
    /// A pair of round parentheses with its inside.
    Parentheses,
}

impl<'a> Header<'a> {
    fn text(&self) -> &'a [u8] {
        let start = self.start.min(self.end);
        if self.end - start > HEADER_BYTES_MAX { &[] } else { &self.code[start..self.end] }
    }

    /// Says what a brace behind this header opens.
    pub(super) fn classify(&self, language: &Language) -> Brace {
        let tokens = self.tokens();
        if self.is_pattern(language, &tokens) || self.is_type_literal(&tokens) {
            return Brace::Literal;
        }
        if self.name(language).is_some() {
            return Brace::Function;
        }
        let has = |words: &[&[u8]]| {
            tokens.iter().any(|t| matches!(t, Token::Word(word, _) if words.contains(word)))
        };
        let last = self.text().trim_ascii_end();
        let arm = last.ends_with(b"=>") && language.functions != Functions::JavaScript;
        if arm || last.is_empty() {
            return Brace::Scope;
        }
        if has(CONTROL_WORDS) {
            return Brace::Level;
        }
        if has(SCOPE_WORDS) {
            return Brace::Scope;
        }
        let closure = last.ends_with(b"=>") || last.ends_with(b"->") || last.ends_with(b"|");
        let called = last.ends_with(b")") && !has(&[b"new"]);
        match (closure || called, last.ends_with(b")")) {
            (true, _) => Brace::Level,
            (false, true) => Brace::Scope,
            (false, false) => Brace::Literal,
        }
    }

    /// `if let Foo {` and `for Foo {` of Rust, whose braces belong to a pattern.
    fn is_pattern(&self, language: &Language, tokens: &[Token<'_>]) -> bool {
        let position =
            |wanted: &[u8]| tokens.iter().rposition(|t| matches!(t, Token::Word(w, _) if *w == wanted));
        let sign_after = |at: usize| tokens[at..].contains(&Token::Sign(b'='));
        language.dialect == Dialect::Rust
            && (position(b"let").is_some_and(|at| !sign_after(at))
                || (position(b"for").is_some_and(|at| at == 0) && position(b"in").is_none()))
    }

    /// `interface{}` and `struct{}` of Go in the result of a function.
    fn is_type_literal(&self, tokens: &[Token<'_>]) -> bool {
        let last = self.text().trim_ascii_end();
        let type_word = last.ends_with(b"interface") || last.ends_with(b"struct");
        type_word && tokens.contains(&Token::Parentheses)
    }

    /// Whether it opens a module of tests.
    pub(super) fn is_test_module(&self) -> bool {
        let text = self.text();
        text.windows(9).any(|part| part == b"cfg(test)") && self.tokens().iter().any(|t| is(t, b"mod"))
    }

    /// The name of the function that it declares, and the place of the name.
    pub(super) fn name(&self, language: &Language) -> Option<(String, usize)> {
        let tokens = self.tokens();
        let found = match language.functions {
            Functions::Keyword { word, .. } if !self.nested => after_keyword(&tokens, word.as_bytes()),
            Functions::Signature if !self.nested => self.signature(&tokens),
            Functions::JavaScript => self.javascript(&tokens),
            _ => None,
        };
        let (name, at) = found?;
        Some((String::from_utf8_lossy(name).into_owned(), at))
    }

    /// The words and signs at the top level; what is in brackets or braces is left out.
    fn tokens(&self) -> Vec<Token<'a>> {
        let text = self.text();
        let mut tokens = Vec::new();
        let mut depth = 0_usize;
        let mut at = 0;
        while at < text.len() {
            let byte = text[at];
            let mut next = at + 1;
            match byte {
                b'(' | b'[' | b'{' => {
                    if depth == 0 && byte == b'(' {
                        tokens.push(Token::Parentheses);
                    }
                    depth += 1;
                }
                b')' | b']' | b'}' => depth = depth.saturating_sub(1),
                _ if is_word(byte) || matches!(byte, b'~' | b'$') => {
                    let length =
                        text[at..].iter().take_while(|b| is_word(**b) || matches!(b, b'~' | b'$')).count();
                    next = at + length;
                    if depth == 0 {
                        tokens.push(Token::Word(&text[at..next], self.start + at));
                    }
                }
                _ if depth == 0 && !byte.is_ascii_whitespace() => tokens.push(Token::Sign(byte)),
                _ => {}
            }
            at = next;
        }
        tokens
    }

    /// `name(…) {` as in C, C++, Java, C#.
    fn signature(&self, tokens: &[Token<'a>]) -> Option<(&'a [u8], usize)> {
        if matches!(self.inside, Some(Brace::Function | Brace::Level)) {
            return None;
        }
        let (index, name, at) = first_called(tokens)?;
        let before = &tokens[..index];
        let operator = before.iter().any(|token| is(token, b"operator")) || name == b"operator";
        let assigned = before.contains(&Token::Sign(b'=')) && !operator;
        let value =
            before.iter().any(|t| is(t, b"new") || is(t, b"return")) || before.contains(&Token::Sign(b'.'));
        if assigned || value || tokens[index..].ends_with(&[Token::Sign(b'-'), Token::Sign(b'>')]) {
            return None;
        }
        Some(self.qualified(before, name, at))
    }

    /// `Type::name` of C++, from the words and colons before a name.
    fn qualified(&self, before: &[Token<'a>], name: &'a [u8], at: usize) -> (&'a [u8], usize) {
        let mut start = at;
        let mut rest = before;
        while let [head @ .., Token::Word(_, word_at), Token::Sign(b':'), Token::Sign(b':')] = rest {
            start = *word_at;
            rest = head;
        }
        (&self.code[start..at + name.len()], start)
    }

    /// `function name(…)`, `name(…)` in a class or an object, `name = (…) =>`, `name: function (…)`.
    fn javascript(&self, tokens: &[Token<'a>]) -> Option<(&'a [u8], usize)> {
        let arrow = tokens.ends_with(&[Token::Sign(b'='), Token::Sign(b'>')]);
        let keyword = tokens.iter().position(|token| is(token, b"function"));
        if let Some(index) = keyword {
            let after = tokens[index + 1..].iter().find(|token| **token != Token::Sign(b'*'));
            if let Some(Token::Word(name, at)) = after {
                return Some((name, *at));
            }
        }
        if arrow || keyword.is_some() {
            return assigned_name(tokens);
        }
        if self.nested || !matches!(self.inside, Some(Brace::Scope | Brace::Literal)) {
            return None;
        }
        let (index, name, at) = first_called(tokens)?;
        let only_modifiers = tokens[..index]
            .iter()
            .all(|t| matches!(t, Token::Word(..) | Token::Sign(b'*' | b'@' | b'#' | b',')))
            && !tokens[..index].iter().any(|t| is(t, b"new") || is(t, b"return"));
        only_modifiers.then_some((name, at))
    }
}

fn is(token: &Token<'_>, wanted: &[u8]) -> bool {
    matches!(token, Token::Word(word, _) if *word == wanted)
}

/// The word after the last keyword, unless the keyword names a type (`fn(u8)`); a receiver may stand between.
fn after_keyword<'a>(tokens: &[Token<'a>], keyword: &[u8]) -> Option<(&'a [u8], usize)> {
    let at = tokens.iter().position(|token| is(token, keyword))?;
    let mut rest = &tokens[at + 1..];
    if matches!(rest, [Token::Parentheses, Token::Word(..), Token::Parentheses, ..]) {
        rest = &rest[1..];
    }
    if matches!(rest, [Token::Sign(b'&'), ..]) {
        rest = &rest[1..];
    }
    match rest {
        [Token::Word(name, at), ..] if !name[0].is_ascii_digit() && name[0] != b'$' => Some((name, *at)),
        _ => None,
    }
}

/// The first word that is followed by parentheses and can be a function's name: its index, itself and its place.
fn first_called<'a>(tokens: &[Token<'a>]) -> Option<(usize, &'a [u8], usize)> {
    let mut generic = 0_usize;
    let mut candidate = None;
    for (index, token) in tokens.iter().enumerate() {
        match token {
            Token::Sign(b'<') => generic += 1,
            Token::Sign(b'>') => generic = generic.saturating_sub(1),
            Token::Word(word, at) if generic == 0 => {
                let annotation = index > 0 && tokens[index - 1] == Token::Sign(b'@');
                candidate = (!annotation).then_some((index, *word, *at));
            }
            Token::Parentheses => match candidate.take() {
                Some((_, word, _)) if NOT_NAMES.contains(&word) => return None,
                Some(found) => return Some(found),
                None => {}
            },
            _ => {}
        }
    }
    None
}

/// The word before the first `=` or `:` at the top level: `const name: Type = …`, `name: …`.
fn assigned_name<'a>(tokens: &[Token<'a>]) -> Option<(&'a [u8], usize)> {
    let sign = tokens.iter().position(|token| matches!(token, Token::Sign(b'=' | b':')))?;
    match tokens[..sign].last()? {
        Token::Word(name, at) if tokens.get(sign + 1) != Some(&Token::Sign(b'>')) => Some((name, *at)),
        _ => None,
    }
}
