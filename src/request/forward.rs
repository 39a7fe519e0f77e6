//! Inserts the key into the payload that is sent, and changes no byte of the caller's. It
//! walks texts that were read and are valid; it checks no grammar.

use bytes::Bytes;

use super::Payload;
use crate::canonical::{Name, Pointer, element_index, plain_end};
use crate::key::IdempotencyKey;

/// Where the key is inserted.
#[derive(Clone, Debug)]
pub(super) struct Forward {
    /// Kept for a request with another payload.
    #[cfg(any(test, feature = "testing"))]
    pointer: Pointer,
    /// The member's name as a JSON string, with the colon.
    name: Box<str>,
    /// The offset after the parent's opening brace.
    at: usize,
    /// Whether the parent has no members.
    alone: bool,
}

impl Forward {
    /// Finds the position in `payload`, which is valid JSON, for a member at `pointer`.
    pub(super) fn new(pointer: &str, payload: &Payload) -> Result<Self, &'static str> {
        let pointer = Pointer::read(pointer)?;
        let mut parents: Vec<String> = pointer.tokens().collect();
        let name = parents.pop().unwrap_or_default();
        let text = std::str::from_utf8(payload.bytes()).map_err(|_| "the payload is not UTF-8")?;
        let mut walk = Walk { text, pos: 0 };
        walk.skip_space();
        for parent in &parents {
            if !walk.descend(parent) {
                return Err("there is no object to put the key into");
            }
        }
        if walk.byte() != Some(b'{') {
            return Err("there is no object to put the key into");
        }
        let at = walk.pos + 1;
        if walk.descend(&name) {
            return Err("the payload has this member already");
        }
        walk.pos = at;
        walk.skip_space();
        let name = serde_json::Value::from(name);
        Ok(Self {
            #[cfg(any(test, feature = "testing"))]
            pointer,
            name: format!("{name}:").into(),
            at,
            alone: walk.byte() == Some(b'}'),
        })
    }

    #[cfg(any(test, feature = "testing"))]
    pub(super) fn pointer(&self) -> &Pointer {
        &self.pointer
    }

    /// `payload` with the key in it.
    pub(super) fn splice(&self, payload: &[u8], key: IdempotencyKey) -> Bytes {
        let (before, after) = payload.split_at(self.at);
        let comma = if self.alone { "" } else { "," };
        let member = format!("{}\"{key}\"{comma}", self.name);
        [before, member.as_bytes(), after].concat().into()
    }
}

/// A position in a valid text, at the first byte of a value.
struct Walk<'t> {
    text: &'t str,
    pos: usize,
}

impl Walk<'_> {
    /// Goes to the value that `token` names in the container at this position. Returns
    /// `false` if there is none, and then the position is arbitrary.
    fn descend(&mut self, token: &str) -> bool {
        match self.byte() {
            Some(b'{') => self.find(|walk, _| walk.member_name().is(token, walk.text)),
            Some(b'[') => {
                let wanted = element_index(token);
                self.find(|_, index| Some(index) == wanted)
            }
            _ => false,
        }
    }

    /// Goes to the first value for which `wanted` returns `true`. It is called before each
    /// value, and reads a member's name.
    fn find(&mut self, wanted: impl Fn(&mut Self, usize) -> bool) -> bool {
        for index in 0.. {
            // Skip the bracket or the comma.
            self.pos += 1;
            self.skip_space();
            if let Some(b'}' | b']') | None = self.byte() {
                return false;
            }
            if wanted(self, index) {
                return true;
            }
            self.skip_value();
            self.skip_space();
            if self.byte() != Some(b',') {
                return false;
            }
        }
        false
    }

    /// Reads a name and goes to the member's value.
    fn member_name(&mut self) -> Name {
        let start = self.pos + 1;
        let escaped = self.skip_string();
        let name = Name::new(self.text, start, self.pos - 1, escaped);
        self.skip_space();
        // Skip the colon.
        self.pos += 1;
        self.skip_space();
        name
    }

    fn skip_value(&mut self) {
        let mut depth = 0_usize;
        loop {
            match self.byte() {
                Some(b'"') => {
                    self.skip_string();
                }
                Some(b'{' | b'[') => {
                    depth += 1;
                    self.pos += 1;
                }
                Some(b'}' | b']') => {
                    depth = depth.saturating_sub(1);
                    self.pos += 1;
                }
                Some(b',' | b':' | b' ' | b'\t' | b'\n' | b'\r') => self.pos += 1,
                Some(_) => self.skip_word(),
                None => return,
            }
            if depth == 0 {
                return;
            }
        }
    }

    /// Skips a number or a literal.
    fn skip_word(&mut self) {
        while let Some(b'-' | b'+' | b'.' | b'0'..=b'9' | b'A'..=b'Z' | b'a'..=b'z') = self.byte() {
            self.pos += 1;
        }
    }

    /// Skips a string; returns whether it has an escape.
    fn skip_string(&mut self) -> bool {
        let mut escaped = false;
        self.pos += 1;
        loop {
            self.pos = plain_end(self.text.as_bytes(), self.pos);
            match self.byte() {
                Some(b'\\') => {
                    escaped = true;
                    self.pos += 2;
                }
                _ => {
                    self.pos += 1;
                    return escaped;
                }
            }
        }
    }

    fn skip_space(&mut self) {
        while let Some(b' ' | b'\t' | b'\n' | b'\r') = self.byte() {
            self.pos += 1;
        }
    }

    fn byte(&self) -> Option<u8> {
        self.text.as_bytes().get(self.pos).copied()
    }
}
