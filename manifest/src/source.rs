//! A document as it stands in its file, for what is found wrong with it only later.

use crate::fault::{Code, Fault, Location, quoted};
use crate::path;
use crate::tree::{Node, Position, Scalar, Value};

/// A document of a file of manifests, whose values can be found by their paths.
#[derive(Debug, Clone, PartialEq)]
pub struct Source {
    file: String,
    root: Node,
}

impl Source {
    pub(crate) fn new(file: &str, root: Node) -> Self {
        Self { file: file.to_owned(), root }
    }

    /// The text at a path such as `spec.handler.source`, if there is one.
    pub fn text(&self, path: &str) -> Option<&str> {
        match &find(&self.root, "", path) {
            (Node { value: Value::Scalar(Scalar::Text, text), .. }, true) => Some(text),
            _ => None,
        }
    }

    /// Where the value at a path begins; where there is none, the innermost one that would hold it.
    pub fn locate(&self, path: &str) -> Location {
        let (line, column): Position = find(&self.root, "", path).0.position;
        Location { file: self.file.clone(), line, column }
    }

    /// An error about the value at a path.
    pub fn error(&self, code: Code, path: &str, expected: impl Into<String>) -> Fault {
        let fault = Fault::error(code, path, expected).at(self.locate(path));
        match self.text(path) {
            Some(text) => fault.found(quoted(text)),
            None => fault,
        }
    }
}

/// The node at a path or the innermost one on the way to it, and whether it is the one that was wanted.
fn find<'n>(node: &'n Node, own: &str, wanted: &str) -> (&'n Node, bool) {
    let leads = |path: &str| {
        wanted.strip_prefix(path).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
    };
    let next = match &node.value {
        Value::Scalar(..) => None,
        Value::List(items) => {
            (0..).zip(items).map(|(index, item)| (path::item(own, index), item)).find(|(path, _)| leads(path))
        }
        Value::Map(entries) => entries
            .iter()
            .map(|entry| (path::field(own, &entry.key), &entry.value))
            .find(|(path, _)| leads(path)),
    };
    match next {
        Some((path, next)) => find(next, &path, wanted),
        None => (node, own == wanted),
    }
}

#[cfg(test)]
mod tests {
    use crate::parse;

    #[test]
    fn values_are_found_by_their_paths() {
        let text = b"kind: Crew\nspec:\n  members:\n    - {name: a}\n    - {name: b, env: {'x y': z}}\n";
        let source = &parse("f", text).sources[0];
        for (path, place, text) in [
            ("kind", "f:1:7", Some("Crew")),
            ("spec.members[1].name", "f:5:14", Some("b")),
            ("spec.members[1].env[\"x y\"]", "f:5:30", Some("z")),
            ("spec.members[1].profile", "f:5:7", None),
            ("spec.members[7].name", "f:4:5", None),
            ("specification", "f:1:1", None),
        ] {
            assert_eq!(
                (source.locate(path).to_string().as_str(), source.text(path)),
                (place, text),
                "{path}"
            );
        }
    }
}
