//! Reading nodes: where one is, what was wrong so far. Everything wrong is collected, so that one sees it at once.

use std::collections::HashSet;
use std::fmt::Write as _;

use super::node::Node;
use crate::{DocumentProblem, shortened};

/// The most problems reported of one text.
const PROBLEMS_MAX: usize = 50;
/// The most items of one list.
const LIST_MAX: usize = 65_536;

/// The fields that an object may have.
pub(super) struct Fields {
    /// Those that mean something.
    pub(super) known: &'static [&'static str],
    /// Those that Cilium knows and that nothing here enforces.
    pub(super) unsupported: &'static [&'static str],
}

/// An object whose fields are all known.
#[derive(Clone, Copy)]
pub(super) struct Object<'n>(&'n [(String, Node)]);

impl<'n> Object<'n> {
    pub(super) fn get(self, name: &str) -> Option<&'n Node> {
        self.0.iter().find(|(field, _)| field == name).map(|(_, node)| node)
    }
}

/// Where one is in a text, and what was wrong so far.
#[derive(Default)]
pub(super) struct Reader {
    path: String,
    problems: Vec<DocumentProblem>,
    omitted: usize,
}

impl Reader {
    /// Reads what is one step further in: `.name`, `["name"]`, `[3]`.
    fn inside<T>(&mut self, step: Step<'_>, read: impl FnOnce(&mut Self) -> T) -> T {
        let before = self.path.len();
        match step {
            Step::Field(name) if shortened(name) != name => _ = write!(self.path, "[{:?}]", shortened(name)),
            Step::Index(index) => _ = write!(self.path, "[{index}]"),
            Step::Field(name) if !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric()) => {
                let dot = if before == 0 || self.path.ends_with(' ') { "" } else { "." };
                _ = write!(self.path, "{dot}{name}");
            }
            Step::Field(name) => _ = write!(self.path, "[{name:?}]"),
            Step::Document(number) => _ = write!(self.path, "document {number}: "),
        }
        let result = read(self);
        self.path.truncate(before);
        result
    }

    /// Reads the n-th of several documents, counted from 1.
    pub(super) fn document<T>(&mut self, number: usize, read: impl FnOnce(&mut Self) -> T) -> T {
        self.inside(Step::Document(number), read)
    }

    /// Reads a field if it is there.
    pub(super) fn field<'n, T>(
        &mut self,
        object: Object<'n>,
        name: &str,
        read: impl FnOnce(&mut Self, &'n Node) -> Option<T>,
    ) -> Option<T> {
        let node = object.get(name)?;
        self.inside(Step::Field(name), |reader| read(reader, node))
    }

    /// Reads every item of a list.
    pub(super) fn list<'n, T>(
        &mut self,
        node: &'n Node,
        mut read: impl FnMut(&mut Self, &'n Node) -> Option<T>,
    ) -> Option<Vec<T>> {
        let Node::List(items) = node else { return self.refuse(node, "not a list") };
        if items.len() > LIST_MAX {
            return self.refuse(node, format!("has {} items, at most {LIST_MAX} are allowed", items.len()));
        }
        let read = |(index, item)| self.inside(Step::Index(index), |reader| read(reader, item));
        // every item is read, also behind one that is wrong
        let items: Vec<_> = items.iter().enumerate().map(read).collect();
        items.into_iter().collect()
    }

    /// Reads every item of a list that a Kubernetes list object has.
    pub(super) fn items<'n>(&mut self, object: Object<'n>, mut read: impl FnMut(&mut Self, &'n Node) -> Option<()>) {
        self.field(object, "items", |reader, node| reader.list(node, &mut read));
    }

    /// Reads every value of an object whose fields can have any name.
    pub(super) fn map<'n, T>(
        &mut self,
        node: &'n Node,
        mut read: impl FnMut(&mut Self, &'n str, &'n Node) -> Option<T>,
    ) -> Option<Vec<T>> {
        let Node::Map(fields) = node else { return self.refuse(node, "not an object") };
        self.once(fields);
        let read = |(name, value): &'n (String, Node)| {
            self.inside(Step::Field(name), |reader| read(reader, name.as_str(), value))
        };
        let values: Vec<_> = fields.iter().map(read).collect();
        values.into_iter().collect()
    }

    /// The node as an object; fields that it may not have are refused by name.
    pub(super) fn object<'n>(&mut self, node: &'n Node, fields: &Fields) -> Option<Object<'n>> {
        let Node::Map(map) = node else { return self.refuse(node, "not an object") };
        self.once(map);
        for (name, value) in map.iter().filter(|(name, _)| !fields.known.contains(&name.as_str())) {
            let reason = if fields.unsupported.contains(&name.as_str()) {
                "known to Cilium but not enforced by podwire".to_owned()
            } else {
                format!("unknown field; allowed are {}", fields.known.join(", "))
            };
            self.inside(Step::Field(name), |reader| reader.refuse::<()>(value, reason));
        }
        Some(Object(map))
    }

    /// Refuses fields that are there twice: some readers take the first, some the last.
    fn once(&mut self, fields: &[(String, Node)]) {
        let mut names = HashSet::new();
        for (name, value) in fields.iter().filter(|(name, _)| !names.insert(name.as_str())) {
            self.inside(Step::Field(name), |reader| {
                reader.refuse::<()>(value, "a field of this name was there already")
            });
        }
    }

    /// A field that must be there.
    pub(super) fn required<'n>(&mut self, object: Object<'n>, name: &'static str) -> Option<&'n Node> {
        let node = object.get(name);
        if node.is_none() {
            self.inside(Step::Field(name), |reader| reader.problem(String::new(), "missing"));
        }
        node
    }

    /// The node as text.
    pub(super) fn text<'n>(&mut self, node: &'n Node) -> Option<&'n str> {
        match node {
            Node::Text(text) => Some(text),
            Node::Bool(_) | Node::Number(_) => self.refuse(node, "not text; put it in quotes"),
            _ => self.refuse(node, "not text"),
        }
    }

    /// The node as true or false.
    pub(super) fn flag(&mut self, node: &Node) -> Option<bool> {
        match node {
            Node::Bool(flag) => Some(*flag),
            _ => self.refuse(node, "neither true nor false"),
        }
    }

    /// Notes that this value is wrong; always `None`.
    pub(super) fn refuse<T>(&mut self, node: &Node, reason: impl Into<String>) -> Option<T> {
        self.problem(node.shown(), reason);
        None
    }

    /// Notes a problem at this place.
    pub(super) fn problem(&mut self, value: String, reason: impl Into<String>) {
        if self.problems.len() < PROBLEMS_MAX {
            let path = self.path.trim_end_matches([':', ' ']).to_owned();
            self.problems.push(DocumentProblem { path, value, reason: reason.into() });
        } else {
            self.omitted += 1;
        }
    }

    /// Whether nothing was wrong so far.
    pub(super) fn is_clean(&self) -> bool {
        self.problems.is_empty()
    }

    /// Everything that was wrong.
    pub(super) fn into_problems(self) -> Vec<DocumentProblem> {
        let mut problems = self.problems;
        if self.omitted > 0 {
            let reason = format!("and {} problems more", self.omitted);
            problems.push(DocumentProblem { path: String::new(), value: String::new(), reason });
        }
        problems
    }
}

enum Step<'a> {
    Field(&'a str),
    Index(usize),
    Document(usize),
}
