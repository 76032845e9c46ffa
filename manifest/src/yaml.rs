//! From text to trees: YAML, and with it JSON, within bounds.

use std::collections::{BTreeMap, BTreeSet};

use saphyr_parser::{Event, Parser, ScalarStyle, ScanError, Span, Tag};

use crate::fault::{Code, Fault, Faults, quoted};
use crate::path;
use crate::tree::{Entry, Node, Position, Scalar, Value};

/// The deepest nesting of lists and mappings. Everything that walks a tree recurses at most so far.
pub(crate) const DEPTH_MAX: usize = 64;

/// The most values in one file, aliases expanded and anchored values counted twice: what bounds
/// the memory that a small file can ask for.
pub(crate) const VALUES_MAX: usize = 100_000;

/// Reads every document of a text. A syntax error ends its document; reading goes on at the next
/// `---`, so that the documents behind it are checked too.
pub(crate) fn read(text: &str, faults: &mut Faults) -> Vec<Document> {
    let mut reader = Reader { line_offset: 0, values: 0, documents: Vec::new(), faults };
    let mut rest = text;
    while let Err(stop) = reader.read_documents(rest) {
        let Stop::At(line) = stop else { break };
        let Some((skipped, next)) = next_document(rest, line - reader.line_offset) else { break };
        reader.line_offset += skipped;
        rest = next;
    }
    reader.documents
}

/// A document as far as it could be read.
pub(crate) struct Document {
    pub(crate) root: Node,
    /// Whether something in it was dropped, which is in the faults.
    pub(crate) is_faulty: bool,
}

/// Why reading stopped before the end.
enum Stop {
    /// This document cannot be read on from this line of the file.
    At(usize),
    /// Nothing more is read of the file.
    Here,
}

/// The text from the first document marker on a line or below, and the number of lines before it.
/// The marker that begins the text is passed over, so that each step leads further.
fn next_document(text: &str, line: usize) -> Option<(usize, &str)> {
    let mut start = 0;
    for (index, content) in text.split_inclusive('\n').enumerate() {
        let after = content.strip_prefix("---");
        let is_marker = after.is_some_and(|after| after.is_empty() || after.starts_with(char::is_whitespace));
        if is_marker && index > 0 && index + 1 >= line {
            return Some((index, &text[start..]));
        }
        start += content.len();
    }
    None
}

struct Reader<'f> {
    /// The number of lines before the text that the parser sees.
    line_offset: usize,
    values: usize,
    documents: Vec<Document>,
    faults: &'f mut Faults,
}

/// A list or mapping that is not yet complete.
struct Frame {
    position: Position,
    anchor: usize,
    content: Content,
}

enum Content {
    List(Vec<Node>),
    Map { entries: Vec<Entry>, keys: BTreeSet<String>, key: Option<Key> },
}

/// A key that waits for its value.
struct Key {
    text: String,
    position: Position,
    /// A faulty key's value is read and dropped.
    faulty: bool,
}

/// A document while it is read.
#[derive(Default)]
struct Draft {
    is_faulty: bool,
    open: Vec<Frame>,
    anchors: BTreeMap<usize, Node>,
}

impl Draft {
    /// The path of the innermost value that is open.
    fn path(&self) -> String {
        let parents = &self.open[..self.open.len().saturating_sub(1)];
        parents.iter().fold(String::new(), |parent, frame| match &frame.content {
            Content::List(items) => path::item(&parent, items.len()),
            Content::Map { key, .. } => path::field(&parent, key.as_ref().map_or("", |key| &key.text)),
        })
    }
}

impl Reader<'_> {
    fn read_documents(&mut self, text: &str) -> Result<(), Stop> {
        let mut draft = Draft::default();
        for event in Parser::new_from_str(text) {
            let (event, span) = event.map_err(|error| self.syntax_error(text, &error))?;
            let position = self.position(&span);
            match event {
                Event::DocumentStart(_) => draft = Draft::default(),
                Event::Alias(anchor) => {
                    let node = self.expand(&draft, anchor, position)?;
                    self.complete(&mut draft, node, 0)?;
                }
                Event::Scalar(text, style, anchor, tag) => {
                    self.refuse_tag(&mut draft, tag.as_deref(), position);
                    self.count(1, position)?;
                    let node = Node::scalar(position, type_of(&text, style), text.into_owned());
                    self.complete(&mut draft, node, anchor)?;
                }
                Event::SequenceStart(anchor, tag) => {
                    let content = Content::List(Vec::new());
                    self.open(&mut draft, Frame { position, anchor, content }, tag.as_deref())?;
                }
                Event::MappingStart(anchor, tag) => {
                    let content = Content::Map { entries: Vec::new(), keys: BTreeSet::new(), key: None };
                    self.open(&mut draft, Frame { position, anchor, content }, tag.as_deref())?;
                }
                Event::SequenceEnd | Event::MappingEnd => {
                    let Some(frame) = draft.open.pop() else { continue };
                    let node = match frame.content {
                        Content::List(items) => Node::list(frame.position, items),
                        Content::Map { entries, .. } => Node::map(frame.position, entries),
                    };
                    self.complete(&mut draft, node, frame.anchor)?;
                }
                Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => {}
            }
        }
        Ok(())
    }

    fn open(&mut self, draft: &mut Draft, frame: Frame, tag: Option<&Tag>) -> Result<(), Stop> {
        self.refuse_tag(draft, tag, frame.position);
        self.count(1, frame.position)?;
        if draft.open.len() >= DEPTH_MAX {
            return Err(self.too_deep(frame.position));
        }
        draft.open.push(frame);
        Ok(())
    }

    /// Puts a complete value into what it is part of.
    fn complete(&mut self, draft: &mut Draft, node: Node, anchor: usize) -> Result<(), Stop> {
        if anchor != 0 {
            self.count(node.size, node.position)?;
            draft.anchors.insert(anchor, node.clone());
        }
        match draft.open.last_mut().map(|frame| &mut frame.content) {
            None => self.documents.push(Document { root: node, is_faulty: draft.is_faulty }),
            Some(Content::List(items)) => items.push(node),
            Some(Content::Map { entries, keys, key }) => match key.take() {
                None => {
                    let (read, fault) = read_key(keys, &node);
                    *key = Some(read);
                    if let Some(fault) = fault {
                        draft.is_faulty = true;
                        self.faults.push(node.position, Fault { path: draft.path(), ..fault });
                    }
                }
                Some(Key { faulty: true, .. }) => {}
                Some(Key { text, position, .. }) => entries.push(Entry { key: text, position, value: node }),
            },
        }
        Ok(())
    }

    fn expand(&mut self, draft: &Draft, anchor: usize, position: Position) -> Result<Node, Stop> {
        let Some(node) = draft.anchors.get(&anchor) else {
            let fault = Fault::error(Code::RecursiveAlias, "", "write the value out");
            self.faults.push(position, fault);
            return Err(Stop::At(position.0));
        };
        self.count(node.size, position)?;
        if draft.open.len() + node.height > DEPTH_MAX {
            return Err(self.too_deep(position));
        }
        Ok(node.clone())
    }

    fn count(&mut self, values: usize, position: Position) -> Result<(), Stop> {
        self.values += values;
        if self.values <= VALUES_MAX {
            return Ok(());
        }
        let expected = format!("expected at most {VALUES_MAX} in one file, aliases expanded");
        self.faults.push(position, Fault::error(Code::TooManyValues, "", expected));
        Err(Stop::Here)
    }

    fn too_deep(&mut self, position: Position) -> Stop {
        let expected = format!("expected at most {DEPTH_MAX} lists and mappings within each other");
        self.faults.push(position, Fault::error(Code::TooDeep, "", expected));
        Stop::At(position.0)
    }

    fn refuse_tag(&mut self, draft: &mut Draft, tag: Option<&Tag>, position: Position) {
        if let Some(tag) = tag {
            draft.is_faulty = true;
            let fault = Fault::error(Code::UnsupportedTag, "", "expected plain values without tags");
            self.faults.push(position, fault.found(quoted(&tag.to_string())));
        }
    }

    fn syntax_error(&mut self, text: &str, error: &ScanError) -> Stop {
        let marker = error.marker();
        let position = (self.line_offset + marker.line().max(1), marker.col() + 1);
        let line = text.lines().nth(marker.line().saturating_sub(1)).unwrap_or_default();
        let indentation = &line[..line.len() - line.trim_start().len()];
        let fault = match indentation.find('\t') {
            Some(_) => Fault::error(Code::Tab, "", "indent with spaces"),
            None => Fault::error(Code::Syntax, "", "expected well-formed YAML or JSON")
                .found(format!("({})", error.info())),
        };
        self.faults.push(position, fault);
        Stop::At(position.0)
    }

    fn position(&self, span: &Span) -> Position {
        (self.line_offset + span.start.line(), span.start.col() + 1)
    }
}

fn type_of(text: &str, style: ScalarStyle) -> Scalar {
    match style {
        ScalarStyle::Plain => Scalar::of_plain(text),
        _ => Scalar::Text,
    }
}

/// Takes a value as a key, with a fault where it cannot be one.
fn read_key(keys: &mut BTreeSet<String>, node: &Node) -> (Key, Option<Fault>) {
    let fault = match &node.value {
        Value::Scalar(scalar, text) if *scalar != Scalar::Null => match keys.insert(text.clone()) {
            true => return (Key { text: text.clone(), position: node.position, faulty: false }, None),
            false => Fault::error(Code::DuplicateKey, "", "expected each key once").found(quoted(text)),
        },
        _ => Fault::error(Code::InvalidKey, "", "expected text before the colon"),
    };
    (Key { text: String::new(), position: node.position, faulty: true }, Some(fault))
}
