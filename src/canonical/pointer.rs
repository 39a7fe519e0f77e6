//! JSON Pointers (RFC 6901): reading one, and a set of them that the reader walks in step
//! with a text. It reads no JSON.

use std::cell::Cell;
use std::collections::BTreeMap;

use super::string::Name;

/// A pointer into a document, never to the whole document.
///
/// A pointer has one spelling only (RFC 6901, section 3), so that equal texts
/// are equal pointers.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Pointer {
    text: Box<str>,
}

impl Pointer {
    /// Reads a pointer.
    ///
    /// # Errors
    ///
    /// The reason, which does not quote the pointer.
    pub(crate) fn read(text: &str) -> Result<Self, &'static str> {
        if text.is_empty() {
            return Err("the empty pointer means the whole payload");
        }
        if !text.starts_with('/') {
            return Err("a JSON Pointer begins with '/'");
        }
        let mut rest = text.split('~');
        rest.next();
        if !rest.all(|after| after.starts_with(['0', '1'])) {
            return Err("in a JSON Pointer '~' is followed by '0' or '1'");
        }
        Ok(Self { text: text.into() })
    }

    /// The pointer as it was written.
    pub(crate) fn as_str(&self) -> &str {
        &self.text
    }

    /// Its unescaped reference tokens; at least one.
    pub(crate) fn tokens(&self) -> impl DoubleEndedIterator<Item = String> + '_ {
        // In this order, or "~01" would become "/" (RFC 6901, section 4).
        let unescape = |token: &str| token.replace("~1", "/").replace("~0", "~");
        self.text
            .get(1..)
            .unwrap_or_default()
            .split('/')
            .map(unescape)
    }
}

/// The element of an array that a reference token names (RFC 6901, section 4).
pub(crate) fn element_index(token: &str) -> Option<usize> {
    let canonical = token == "0" || !token.starts_with(['0', '+']);
    canonical.then(|| token.parse().ok()).flatten()
}

/// A node of a [`PointerSet`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Node(usize);

/// Pointers merged into a tree. The empty set costs nothing.
#[derive(Clone, Debug, Default)]
pub(crate) struct PointerSet {
    nodes: Vec<Branches>,
}

#[derive(Clone, Debug, Default)]
struct Branches {
    members: BTreeMap<String, Node>,
    /// The nodes of tokens that can name an element.
    elements: BTreeMap<usize, Node>,
    ends_here: bool,
    /// Whether a part that a pointer to this node names was omitted.
    matched: Cell<bool>,
}

impl PointerSet {
    pub(crate) fn new<'p>(pointers: impl IntoIterator<Item = &'p Pointer>) -> Self {
        let mut set = Self::default();
        for pointer in pointers {
            set.insert(pointer);
        }
        set
    }

    fn insert(&mut self, pointer: &Pointer) {
        if self.nodes.is_empty() {
            self.nodes.push(Branches::default());
        }
        let mut at = 0;
        for token in pointer.tokens() {
            let new = Node(self.nodes.len());
            if let Some(index) = element_index(&token) {
                self.nodes[at].elements.entry(index).or_insert(new);
            }
            let Node(next) = *self.nodes[at].members.entry(token).or_insert(new);
            if next == self.nodes.len() {
                self.nodes.push(Branches::default());
            }
            at = next;
        }
        self.nodes[at].ends_here = true;
    }

    /// The node of the document.
    pub(super) fn root(&self) -> Option<Node> {
        (!self.nodes.is_empty()).then_some(Node(0))
    }

    /// The node of a member of the object at `node`.
    pub(super) fn member(&self, Node(at): Node, name: Name, text: &str) -> Option<Node> {
        let members = &self.nodes[at].members;
        if members.is_empty() {
            return None;
        }
        let name: String = name.characters(text).collect();
        members.get(&name).copied()
    }

    /// The node of an element of the array at `node`.
    pub(super) fn element(&self, Node(at): Node, index: usize) -> Option<Node> {
        self.nodes[at].elements.get(&index).copied()
    }

    /// Whether a pointer of the set ends at `node`. If so, that pointer has matched a text.
    #[inline]
    pub(super) fn ends_at(&self, node: Option<Node>) -> bool {
        node.is_some_and(|Node(at)| {
            let Branches {
                ends_here, matched, ..
            } = &self.nodes[at];
            matched.set(*ends_here);
            *ends_here
        })
    }

    /// Whether `pointer`, one of the set, has matched in the texts that were read.
    pub(crate) fn has_matched(&self, pointer: &Pointer) -> bool {
        let mut at = 0;
        for token in pointer.tokens() {
            match self.nodes.get(at).and_then(|node| node.members.get(&token)) {
                Some(Node(next)) => at = *next,
                None => return false,
            }
        }
        self.nodes.get(at).is_some_and(|node| node.matched.get())
    }
}
