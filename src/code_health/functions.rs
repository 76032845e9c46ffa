//! Finds the functions of a file in its code stencil: where they begin, how long they are, how deeply they nest.
//!
//! These are heuristics over layout and keywords, not parsers: they read code that does not compile, and the price is
//! a function missed now and then.

mod braces;
mod indented;

use serde::{Deserialize, Serialize};

use super::language::{Functions, Language};

/// One function.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Function {
    pub(crate) name: String,
    /// The line of its header, from 1.
    pub(crate) line: u32,
    /// From the header to the end of the body.
    pub(crate) lines: u32,
    /// How many control blocks and closures are open at its deepest place; 0 for straight code.
    pub(crate) depth: u32,
    /// Whether it stands in a module of tests.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) test: bool,
}

/// Names longer than this are cut.
const NAME_CHARS_MAX: usize = 80;

/// The functions of a code stencil, by line.
pub(crate) fn find(code: &str, language: &Language) -> Vec<Function> {
    let mut found = match language.functions {
        Functions::None => Vec::new(),
        Functions::Indented { word, end } => indented::find(code, word, end),
        Functions::Keyword { .. } | Functions::Signature | Functions::JavaScript => {
            braces::find(code, language)
        }
    };
    for function in &mut found {
        if let Some((cut, _)) = function.name.char_indices().nth(NAME_CHARS_MAX) {
            function.name.truncate(cut);
        }
    }
    found.sort_by(|a, b| (a.line, &a.name).cmp(&(b.line, &b.name)));
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::code_health::{language::by_name, stencil};

    /// Name, line, lines and depth of each function.
    fn functions(language: &str, text: &str) -> Vec<(String, u32, u32, u32)> {
        let language = by_name(language);
        find(&stencil::cut(text, language).code, language)
            .into_iter()
            .map(|f| (f.name, f.line, f.lines, f.depth))
            .collect()
    }

    fn one(name: &str, line: u32, lines: u32, depth: u32) -> (String, u32, u32, u32) {
        (name.to_owned(), line, lines, depth)
    }

    #[test]
    fn rust() {
        let text = "impl Foo {
    pub fn a<T>(&self, x: [u8; 4]) -> T
    where
        T: Default,
    {
        if let Foo { a, b } = x {
            for Foo { y } in z {
                take(Foo { y: \"}\" });
            }
        }
        match x {
            Foo { a } => {
                let f = |x| { x };
            }
            _ => Foo { a: 1 },
        }
        fn inner() { loop {} }
    }
    fn declared(&self);
}
type F = fn(u8) -> u8;
";
        assert_eq!(functions("Rust", text), [one("a", 2, 17, 2), one("inner", 17, 1, 1)]);
    }

    #[test]
    fn rust_modules_of_tests_are_told_apart() {
        let language = by_name("Rust");
        let text = "fn a() {}\n#[cfg(test)]\nmod tests {\n    #[test]\n    fn b() {}\n}\nfn c() {}\n";
        let tests: Vec<bool> = find(text, language).iter().map(|f| f.test).collect();
        assert_eq!(tests, [false, true, false]);
    }

    #[test]
    fn go() {
        let text =
            "type T struct {\n\ta int\n}\n\nfunc (t *T) Get(x interface{}, f func() error) (int, error) {
\tif x := (T{a: 1}); x.a > 0 {\n\t\tgo func() {\n\t\t\twork()\n\t\t}()\n\t}\n\treturn 0, nil\n}\n
func None() interface{} {\n\treturn nil\n}\n";
        assert_eq!(functions("Go", text), [one("Get", 5, 8, 2), one("None", 14, 3, 0)]);
    }

    #[test]
    fn c_and_cpp() {
        let text = "#define LOOP(x) do { \\\n  x; } while (0)
static int table[] = { 1, 2 };
struct point { int x; };
#if A
int f(int a) {
#else
int f(long a) {
#endif
    while (a) { if (a) { a--; } }
    FOREACH(x) { a++; }
    return (int){ 0 };
}
Point::Point(int x) : x_(x), y_(0) { }
bool Point::operator==(const Point &o) const noexcept {
    auto f = [&](int a) { return a; };
}
";
        let found = functions("C++", text);
        assert_eq!(found[0], one("f", 6, 8, 2));
        assert_eq!(found[1], one("Point::Point", 14, 1, 0));
        assert_eq!(found[2].1, 15);
        assert_eq!(found.len(), 3, "{found:?}");
    }

    #[test]
    fn java() {
        let text = "@Entity(name = \"x\")
public class A extends B {
    private int[] xs = { 1, 2 };
    @Test(timeout = 5)
    public <T> List<T> get(int a) throws IOException {
        try { if (a > 0) { run(() -> { go(); }); } } catch (E e) { }
        return new Runnable() {
            @Override public void run() { }
        };
    }
    abstract void none();
}
";
        assert_eq!(functions("Java", text), [one("get", 5, 6, 3), one("run", 8, 1, 0)]);
    }

    #[test]
    fn javascript_and_typescript() {
        let text = "import {a} from 'b'
const {x, y} = require('z')
export async function one({a, b}, c = {}) {
  if (a) { return {b: {c: 1}} }
}
const two = async (x: {a: string}): Promise<void> => {
  xs.map((x) => { return x })
}
class C extends D {
  field = 1
  constructor(a) { super(a) }
  get size() { for (;;) { } }
  handler = (e) => {
    switch (e) { default: break }
  }
}
describe('x', () => {
  function named() { }
})
module.exports = { f: function (a) { while (1) {} }, g() { } }
";
        let found = functions("TypeScript", text);
        let expected = [
            one("one", 3, 3, 1),
            one("two", 6, 3, 1),
            one("constructor", 11, 1, 0),
            one("size", 12, 1, 1),
            one("handler", 13, 3, 1),
            one("named", 18, 1, 0),
            one("f", 20, 1, 1),
            one("g", 20, 1, 0),
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn python() {
        let text = "class A:
    @property
    def a(self, x=(
        1)):
        if x:
            for y in x:
                with z: pass
        else:
            pass

        return 1

    async def b(self): return 1
def c():
\tdef d():
\t\tpass
# a comment
    \"\"\"a string
at the margin\"\"\"
\twhile 1:
\t\tpass
x = 1
";
        let expected = [one("a", 3, 9, 3), one("b", 13, 1, 0), one("c", 14, 8, 1), one("d", 15, 2, 0)];
        assert_eq!(functions("Python", text), expected);
    }

    #[test]
    fn ruby_and_shell() {
        let ruby = "class A\n  def a?(x)\n    xs.each do |y|\n      puts 1 if y\n    end\n    if x\n      1\n    end\n  end
  def self.b = 1\nend\n";
        assert_eq!(functions("Ruby", ruby), [one("a?", 2, 8, 1), one("self.b", 10, 1, 0)]);
        let shell = "a() {\n  for x in 1; do\n    if true; then echo \"}\"; fi\n  done\n}\nfunction b {\n  :\n}\nc ()\n{\n  :\n}\n";
        assert_eq!(functions("Shell", shell), [one("a", 1, 5, 2), one("b", 6, 3, 0), one("c", 9, 4, 0)]);
    }

    #[test]
    fn broken_code_is_read_to_its_end() {
        assert_eq!(functions("Rust", "}}}} fn a() { if x {"), [one("a", 1, 1, 1)]);
        assert_eq!(functions("C", ")))] int a() {\n\n"), [one("a", 1, 2, 0)]);
        functions("JavaScript", &"[{a:".repeat(20_000));
        functions("Java", &"f(".repeat(20_000));
    }
}
