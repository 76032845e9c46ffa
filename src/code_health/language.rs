//! The languages that the crew can tell apart, as data: how a file is recognised, where its comments and strings
//! are, and how its functions look.

use std::path::Path;

/// What a language is used for, which decides what is asked of its files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Programs: functions, duplicates and findings are looked for.
    Code,
    /// Text and markup for people: only lines and marks are counted.
    Prose,
    /// Configuration and data: only lines and marks are counted.
    Data,
}

/// How strings and comments depart from "quote, escape, quote".
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dialect {
    /// Nothing special.
    Plain,
    /// Lifetimes beside character literals, raw strings `r#"…"#`, nested block comments.
    Rust,
    /// Raw strings `R"x(…)x"` and the preprocessor.
    C,
    /// Template literals with code inside, and regular expression literals.
    JavaScript,
    /// Here-documents, and `#` that starts a comment only at the start of a word.
    Shell,
    /// Here-documents and `=begin` … `=end`.
    Ruby,
    /// A string that stands alone on its line documents and counts as a comment.
    Python,
}

/// How the functions of a language are recognised.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Functions {
    /// The language has none, or they are not looked for.
    None,
    /// A keyword before the name and a body in braces.
    Keyword {
        /// The keyword: `fn`, `func`, `function`, …
        word: &'static str,
        /// Whether the end of a line ends a statement.
        newline_ends: bool,
    },
    /// A name, parameters in parentheses and a body in braces, with no keyword.
    Signature,
    /// `function name`, methods, and arrow functions that are given a name.
    JavaScript,
    /// A header line and a body that is indented deeper.
    Indented {
        /// The word that begins the header: `def`, `function`; empty for the shell's `name() {`.
        word: &'static str,
        /// The word that closes the body at the header's indentation; empty if there is none.
        end: &'static str,
    },
}

/// One way to write a string.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Quote {
    /// Opens and closes the string.
    pub(crate) mark: &'static str,
    /// Whether a backslash escapes the next character.
    pub(crate) escapes: bool,
    /// Whether the string may go on over the end of its line.
    pub(crate) multiline: bool,
}

/// One language.
#[derive(Debug)]
pub(crate) struct Language {
    pub(crate) name: &'static str,
    pub(crate) kind: Kind,
    /// File name endings, without the dot, lower case.
    pub(crate) extensions: &'static [&'static str],
    /// Whole file names.
    pub(crate) names: &'static [&'static str],
    /// Programs of a `#!` line.
    pub(crate) interpreters: &'static [&'static str],
    pub(crate) line_comments: &'static [&'static str],
    pub(crate) block_comments: &'static [(&'static str, &'static str)],
    pub(crate) quotes: &'static [Quote],
    pub(crate) dialect: Dialect,
    pub(crate) functions: Functions,
}

const fn quote(mark: &'static str, escapes: bool, multiline: bool) -> Quote {
    Quote { mark, escapes, multiline }
}

const DOUBLE: &[Quote] = &[quote("\"", true, false)];
const DOUBLE_LONG: &[Quote] = &[quote("\"", true, true)];
const BOTH: &[Quote] = &[quote("\"", true, false), quote("'", true, false)];
const BOTH_LONG: &[Quote] = &[quote("\"", true, true), quote("'", true, true)];
const BOTH_AND_RAW: &[Quote] = &[quote("`", false, true), quote("\"", true, false), quote("'", true, false)];
const SHELL_QUOTES: &[Quote] = &[quote("\"", true, true), quote("'", false, true)];
const SQL_QUOTES: &[Quote] = &[quote("'", false, true), quote("\"", false, false)];
const TRIPLE: &[Quote] = &[
    quote("\"\"\"", true, true),
    quote("'''", true, true),
    quote("\"", true, false),
    quote("'", true, false),
];
const TRIPLE_DOUBLE: &[Quote] =
    &[quote("\"\"\"", false, true), quote("\"", true, false), quote("'", true, false)];
const NO_QUOTES: &[Quote] = &[];

const SLASHES: &[&str] = &["//"];
const HASH: &[&str] = &["#"];
const DASHES: &[&str] = &["--"];
const C_BLOCK: &[(&str, &str)] = &[("/*", "*/")];
const MARKUP_BLOCK: &[(&str, &str)] = &[("<!--", "-->")];

/// The start of every entry: no names, no interpreters, no comments, no strings, no functions.
const BASE: Language = Language {
    name: "Other text",
    kind: Kind::Prose,
    extensions: &[],
    names: &[],
    interpreters: &[],
    line_comments: &[],
    block_comments: &[],
    quotes: NO_QUOTES,
    dialect: Dialect::Plain,
    functions: Functions::None,
};

/// A language whose comments are those of C.
const C_LIKE: Language = Language {
    kind: Kind::Code,
    line_comments: SLASHES,
    block_comments: C_BLOCK,
    quotes: BOTH,
    functions: Functions::Signature,
    ..BASE
};

/// A language whose comments begin with `#`.
const HASHED: Language = Language { kind: Kind::Code, line_comments: HASH, quotes: BOTH, ..BASE };

/// Text that no entry of the table claims.
pub(crate) static OTHER: Language = BASE;

const fn keyword(word: &'static str, newline_ends: bool) -> Functions {
    Functions::Keyword { word, newline_ends }
}

/// Every language that is told apart; the first that claims a file wins.
pub(crate) static LANGUAGES: &[Language] = &[
    Language {
        name: "Rust",
        extensions: &["rs"],
        quotes: DOUBLE_LONG,
        dialect: Dialect::Rust,
        functions: keyword("fn", false),
        ..C_LIKE
    },
    Language {
        name: "Go",
        extensions: &["go"],
        quotes: BOTH_AND_RAW,
        functions: keyword("func", true),
        ..C_LIKE
    },
    Language { name: "C", extensions: &["c", "h"], dialect: Dialect::C, ..C_LIKE },
    Language {
        name: "C++",
        extensions: &["cc", "cpp", "cxx", "hh", "hpp", "hxx", "ipp", "inl"],
        dialect: Dialect::C,
        ..C_LIKE
    },
    Language { name: "Java", extensions: &["java"], quotes: TRIPLE_DOUBLE, ..C_LIKE },
    Language { name: "C#", extensions: &["cs"], ..C_LIKE },
    Language {
        name: "JavaScript",
        extensions: &["js", "mjs", "cjs", "jsx"],
        interpreters: &["node", "deno", "bun"],
        dialect: Dialect::JavaScript,
        functions: Functions::JavaScript,
        ..C_LIKE
    },
    Language {
        name: "TypeScript",
        extensions: &["ts", "mts", "cts", "tsx"],
        dialect: Dialect::JavaScript,
        functions: Functions::JavaScript,
        ..C_LIKE
    },
    Language {
        name: "Kotlin",
        extensions: &["kt", "kts"],
        quotes: TRIPLE_DOUBLE,
        functions: keyword("fun", true),
        ..C_LIKE
    },
    Language {
        name: "Swift",
        extensions: &["swift"],
        quotes: TRIPLE_DOUBLE,
        functions: keyword("func", true),
        ..C_LIKE
    },
    Language {
        name: "Scala",
        extensions: &["scala", "sc"],
        quotes: TRIPLE_DOUBLE,
        functions: keyword("def", true),
        ..C_LIKE
    },
    Language { name: "Zig", extensions: &["zig"], functions: keyword("fn", false), ..C_LIKE },
    Language { name: "Dart", extensions: &["dart"], quotes: TRIPLE, ..C_LIKE },
    Language {
        name: "PHP",
        extensions: &["php"],
        interpreters: &["php"],
        line_comments: &["//", "#"],
        quotes: BOTH_LONG,
        functions: keyword("function", false),
        ..C_LIKE
    },
    Language {
        name: "Protocol Buffers",
        extensions: &["proto"],
        functions: Functions::None,
        quotes: DOUBLE,
        ..C_LIKE
    },
    Language {
        name: "Python",
        extensions: &["py", "pyi", "pyw"],
        interpreters: &["python", "python2", "python3", "pypy3"],
        quotes: TRIPLE,
        dialect: Dialect::Python,
        functions: Functions::Indented { word: "def", end: "" },
        ..HASHED
    },
    Language {
        name: "Ruby",
        extensions: &["rb", "rake", "gemspec"],
        names: &["Rakefile", "Gemfile"],
        interpreters: &["ruby"],
        dialect: Dialect::Ruby,
        functions: Functions::Indented { word: "def", end: "end" },
        ..HASHED
    },
    Language {
        name: "Elixir",
        extensions: &["ex", "exs"],
        quotes: TRIPLE,
        functions: Functions::Indented { word: "def", end: "end" },
        ..HASHED
    },
    Language {
        name: "Shell",
        extensions: &["sh", "bash", "zsh", "ksh", "bats"],
        interpreters: &["sh", "bash", "dash", "zsh", "ksh"],
        quotes: SHELL_QUOTES,
        dialect: Dialect::Shell,
        functions: Functions::Indented { word: "", end: "}" },
        ..HASHED
    },
    Language {
        name: "Perl",
        extensions: &["pl", "pm"],
        interpreters: &["perl"],
        dialect: Dialect::Shell,
        functions: keyword("sub", false),
        ..HASHED
    },
    Language {
        name: "Lua",
        extensions: &["lua"],
        interpreters: &["lua"],
        line_comments: DASHES,
        block_comments: &[("--[[", "]]")],
        functions: Functions::Indented { word: "function", end: "end" },
        ..HASHED
    },
    Language {
        name: "SQL",
        extensions: &["sql"],
        line_comments: DASHES,
        block_comments: C_BLOCK,
        quotes: SQL_QUOTES,
        ..HASHED
    },
    Language {
        name: "Haskell",
        extensions: &["hs"],
        line_comments: DASHES,
        block_comments: &[("{-", "-}")],
        quotes: DOUBLE,
        ..HASHED
    },
    Language {
        name: "Makefile",
        extensions: &["mk"],
        names: &["Makefile", "makefile", "GNUmakefile"],
        interpreters: &["make"],
        quotes: NO_QUOTES,
        dialect: Dialect::Shell,
        ..HASHED
    },
    Language {
        name: "Dockerfile",
        extensions: &["dockerfile"],
        names: &["Dockerfile", "Containerfile"],
        quotes: NO_QUOTES,
        dialect: Dialect::Shell,
        ..HASHED
    },
    Language {
        name: "CSS",
        extensions: &["css", "scss", "less"],
        line_comments: &[],
        functions: Functions::None,
        ..C_LIKE
    },
    Language {
        name: "HTML",
        kind: Kind::Prose,
        extensions: &["html", "htm", "xhtml", "vue", "svelte"],
        block_comments: MARKUP_BLOCK,
        ..BASE
    },
    Language {
        name: "Markdown",
        kind: Kind::Prose,
        extensions: &["md", "markdown"],
        block_comments: MARKUP_BLOCK,
        ..BASE
    },
    Language {
        name: "Plain text",
        kind: Kind::Prose,
        extensions: &["txt", "rst", "adoc"],
        names: &["LICENSE", "NOTICE", "AUTHORS", "COPYING"],
        ..BASE
    },
    Language {
        name: "XML",
        kind: Kind::Data,
        extensions: &["xml", "svg", "xsd", "plist"],
        block_comments: MARKUP_BLOCK,
        ..BASE
    },
    Language {
        name: "YAML",
        kind: Kind::Data,
        extensions: &["yaml", "yml"],
        dialect: Dialect::Shell,
        quotes: NO_QUOTES,
        ..HASHED_DATA
    },
    Language { name: "TOML", extensions: &["toml"], names: &["Cargo.lock", "poetry.lock"], ..HASHED_DATA },
    Language { name: "INI", extensions: &["ini", "cfg", "conf", "properties"], ..HASHED_DATA },
    Language { name: "JSON", kind: Kind::Data, extensions: &["json", "jsonl", "json5"], ..BASE },
    Language { name: "CSV", kind: Kind::Data, extensions: &["csv", "tsv"], ..BASE },
];

/// Data whose comments begin with `#`.
const HASHED_DATA: Language = Language { kind: Kind::Data, ..HASHED };

/// Recognises a file by its name, else by the program of its `#!` line, else as [`OTHER`].
pub(crate) fn recognise(path: &Path, first_line: &str) -> &'static Language {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let extension = path.extension().and_then(|ending| ending.to_str()).map(str::to_ascii_lowercase);
    let by_name = LANGUAGES.iter().find(|language| {
        language.names.contains(&name)
            || extension.as_deref().is_some_and(|ending| language.extensions.contains(&ending))
    });
    by_name.or_else(|| by_interpreter(first_line)).unwrap_or(&OTHER)
}

fn by_interpreter(first_line: &str) -> Option<&'static Language> {
    let command = first_line.strip_prefix("#!")?;
    let mut words = command.split_whitespace().filter(|word| !word.starts_with('-'));
    let mut program = words.next()?.rsplit('/').next()?;
    if program == "env" {
        program = words.find(|word| !word.contains('='))?;
    }
    let bare = program.trim_end_matches(|c: char| c.is_ascii_digit() || c == '.');
    LANGUAGES
        .iter()
        .find(|language| language.interpreters.contains(&program) || language.interpreters.contains(&bare))
}

/// The language of this name, [`OTHER`] if there is none.
pub(crate) fn by_name(name: &str) -> &'static Language {
    LANGUAGES.iter().find(|language| language.name == name).unwrap_or(&OTHER)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(path: &str, first_line: &str) -> &'static str {
        recognise(Path::new(path), first_line).name
    }

    #[test]
    fn files_are_recognised_by_ending_name_and_interpreter() {
        assert_eq!(name("src/main.rs", ""), "Rust");
        assert_eq!(name("A.CPP", ""), "C++");
        assert_eq!(name("x/Makefile", ""), "Makefile");
        assert_eq!(name("run", "#!/usr/bin/env python3"), "Python");
        assert_eq!(name("run", "#!/usr/bin/env -S FOO=1 python3.11 -u"), "Python");
        assert_eq!(name("run", "#!/bin/bash -e"), "Shell");
        assert_eq!(name("run", "just words"), "Other text");
    }

    #[test]
    fn no_ending_or_name_is_claimed_twice() {
        let mut claims: Vec<&str> = LANGUAGES
            .iter()
            .flat_map(|language| {
                language.extensions.iter().chain(language.names).chain(language.interpreters)
            })
            .copied()
            .collect();
        let count = claims.len();
        claims.sort_unstable();
        claims.dedup();
        // `php`, `lua` and a few more are both an ending and an interpreter of the same language.
        let twice = LANGUAGES
            .iter()
            .map(|l| l.extensions.iter().filter(|ending| l.interpreters.contains(ending)).count())
            .sum::<usize>();
        assert_eq!(claims.len() + twice, count);
    }
}
