//! Members of a record's JSON that only people read: text, a number, or another value,
//! which counts as absent. It never fails on valid JSON.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

use serde::de::{IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

/// The value of a note.
#[derive(Default)]
pub(super) enum Note<'a> {
    #[default]
    Nothing,
    Text(Cow<'a, str>),
    Number(u64),
}

pub(super) fn text(note: &Note<'_>) -> Option<Arc<str>> {
    match note {
        Note::Text(text) => Some(Arc::from(&**text)),
        Note::Nothing | Note::Number(_) => None,
    }
}

pub(super) fn number(note: &Note<'_>) -> Option<u64> {
    match note {
        Note::Number(number) => Some(*number),
        Note::Nothing | Note::Text(_) => None,
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Note<'a> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(Any(PhantomData))
    }
}

struct Any<'a>(PhantomData<&'a str>);

impl<'de: 'a, 'a> Visitor<'de> for Any<'a> {
    type Value = Note<'a>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("anything")
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
        Ok(Note::Text(text.into()))
    }

    fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
        Ok(Note::Text(text.to_owned().into()))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Self::Value, E> {
        Ok(Note::Number(number))
    }

    fn visit_i64<E>(self, _: i64) -> Result<Self::Value, E> {
        Ok(Note::Nothing)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Self::Value, E> {
        Ok(Note::Nothing)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Self::Value, E> {
        Ok(Note::Nothing)
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(Note::Nothing)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Self::Value, A::Error> {
        while items.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Note::Nothing)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Self::Value, A::Error> {
        while members.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Note::Nothing)
    }
}
