//! Bytes within a record's JSON: text where they are UTF-8, else base64. It loses no byte,
//! and copies none that it can borrow.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::de::value::MapAccessDeserializer;
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use crate::error::StoreError;

/// Bytes as a JSON string where they are text, else as `{"base64": "…"}`.
#[derive(Serialize)]
#[serde(untagged)]
pub(in crate::record) enum JsonBytes<'a> {
    Text(Cow<'a, str>),
    Base64 { base64: String },
}

/// By hand: serde's derived code for an untagged enum first copies each value into a tree.
impl<'de: 'a, 'a> Deserialize<'de> for JsonBytes<'a> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(EitherForm(PhantomData))
    }
}

struct EitherForm<'a>(PhantomData<&'a str>);

impl<'de: 'a, 'a> Visitor<'de> for EitherForm<'a> {
    type Value = JsonBytes<'a>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("text or base64")
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
        Ok(JsonBytes::Text(text.into()))
    }

    fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
        Ok(JsonBytes::Text(text.to_owned().into()))
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
        #[derive(Deserialize)]
        struct Base64 {
            base64: String,
        }
        let Base64 { base64 } = Base64::deserialize(MapAccessDeserializer::new(map))?;
        Ok(JsonBytes::Base64 { base64 })
    }
}

impl<'a> JsonBytes<'a> {
    pub(in crate::record) fn of(bytes: &'a [u8]) -> Self {
        match std::str::from_utf8(bytes) {
            Ok(text) => Self::Text(text.into()),
            Err(_) => Self::Base64 {
                base64: BASE64.encode(bytes),
            },
        }
    }

    /// Borrowed where the record has them without escapes.
    pub(super) fn into_bytes(self) -> Result<Cow<'a, [u8]>, StoreError> {
        match self {
            Self::Text(Cow::Borrowed(text)) => Ok(text.as_bytes().into()),
            Self::Text(Cow::Owned(text)) => Ok(text.into_bytes().into()),
            Self::Base64 { base64 } => match BASE64.decode(base64) {
                Ok(bytes) => Ok(bytes.into()),
                Err(error) => Err(StoreError::unreadable(error)),
            },
        }
    }
}
