//! JSON text in, and the sentences for values of the wrong type.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
pub(super) use serde_json::{Value as Json, json};

use super::at::At;
use super::{base64, suggest};
use crate::error::{Error, ErrorKind, Result};

/// The members of a JSON object.
pub(super) type Members = serde_json::Map<String, Json>;

/// Parses JSON; unlike serde_json's own values, a key that stands twice is an error, not the last one's silent victory.
pub(super) fn parse(text: &str) -> Result<Json> {
    match serde_json::from_str::<Strict>(text) {
        Ok(Strict(json)) => Ok(json),
        Err(error) => Err(Error::new(ErrorKind::InvalidSpec, format!("JSON: {error}")).with_errno(libc::EINVAL)),
    }
}

struct Strict(Json);

impl<'de> Deserialize<'de> for Strict {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        deserializer.deserialize_any(StrictVisitor)
    }
}

struct StrictVisitor;

impl<'de> Visitor<'de> for StrictVisitor {
    type Value = Strict;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> std::result::Result<Strict, E> {
        Ok(Strict(Json::Null))
    }

    fn visit_bool<E>(self, value: bool) -> std::result::Result<Strict, E> {
        Ok(Strict(value.into()))
    }

    fn visit_i64<E>(self, value: i64) -> std::result::Result<Strict, E> {
        Ok(Strict(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> std::result::Result<Strict, E> {
        Ok(Strict(value.into()))
    }

    fn visit_f64<E>(self, value: f64) -> std::result::Result<Strict, E> {
        Ok(Strict(value.into()))
    }

    fn visit_str<E>(self, value: &str) -> std::result::Result<Strict, E> {
        Ok(Strict(value.into()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> std::result::Result<Strict, A::Error> {
        let mut values = Vec::new();
        while let Some(Strict(value)) = list.next_element()? {
            values.push(value);
        }
        Ok(Strict(Json::Array(values)))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<Strict, A::Error> {
        let mut members = Members::new();
        while let Some(key) = map.next_key::<String>()? {
            let Strict(value) = map.next_value()?;
            if members.contains_key(&key) {
                return Err(A::Error::custom(format!("{key:?} stands twice in one object")));
            }
            members.insert(key, value);
        }
        Ok(Strict(Json::Object(members)))
    }
}

/// `expected WHAT, got ...`
pub(super) fn wrong_type(at: &At, expected: &str, json: &Json) -> Error {
    let got = match json {
        Json::Null => "null".to_owned(),
        Json::Bool(value) => value.to_string(),
        Json::Number(number) => format!("the number {number}"),
        Json::String(text) if text.len() <= 40 => format!("the text {text:?}"),
        Json::String(_) => "text".to_owned(),
        Json::Array(_) => "a list".to_owned(),
        Json::Object(_) => "an object".to_owned(),
    };
    at.error(format!("expected {expected}, got {got}"))
}

/// The members of an object that has no others than these.
pub(super) fn members<'a>(json: &'a Json, at: &At, expected: &str, known: &[&str]) -> Result<&'a Members> {
    let Json::Object(members) = json else { return Err(wrong_type(at, expected, json)) };
    match members.keys().find(|key| !known.contains(&key.as_str())) {
        Some(key) => Err(unknown_key(at, key, known)),
        None => Ok(members),
    }
}

/// A key that does not exist there, with the one that was meant.
pub(super) fn unknown_key(at: &At, key: &str, known: &[&str]) -> Error {
    let error = at.key(key).error(format!("unknown; known are {}", known.join(", ")));
    // The kernel's constant, and OCI's name, of a limit of processes.
    let plain = suggest::plain(key);
    let short = plain.strip_prefix("rlimit_").unwrap_or(key);
    match suggest::nearest(short, known.iter().copied()) {
        Some(name) => error.with_hint(format!("did you mean {name:?}?")),
        None => error,
    }
}

/// A member that is there and not null.
pub(super) fn member<'a>(members: &'a Members, key: &str) -> Option<&'a Json> {
    members.get(key).filter(|json| !json.is_null())
}

/// Text, or `{"base64": "..."}` for bytes that are not UTF-8. `None`: neither.
pub(super) fn bytes(json: &Json, at: &At) -> Result<Option<OsString>> {
    match json {
        Json::String(text) => Ok(Some(text.into())),
        Json::Object(members) if members.len() == 1 => match members.get("base64") {
            Some(Json::String(text)) => match base64::decode(text) {
                Some(bytes) => Ok(Some(OsString::from_vec(bytes))),
                None => Err(at.key("base64").error(format!("{text:?} is not base64 with padding (RFC 4648)"))),
            },
            Some(other) => Err(wrong_type(&at.key("base64"), "text", other)),
            None => Ok(None),
        },
        _ => Ok(None),
    }
}

/// Bytes as [`bytes`] reads them.
pub(super) fn of_bytes(bytes: &OsStr) -> Json {
    match bytes.to_str() {
        Some(text) => text.into(),
        None => json!({ "base64": base64::encode(bytes.as_bytes()) }),
    }
}

/// A whole number, also when it is written as 1.0 or 1e3.
pub(super) fn integer(json: &Json) -> Option<i128> {
    match json {
        Json::Number(number) => number.as_i128().or_else(|| {
            // Above 2^53 a float stands for several whole numbers.
            let float = number.as_f64()?;
            (float.fract() == 0.0 && float.abs() <= 9_007_199_254_740_992.0).then_some(float as i128)
        }),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_key_that_stands_twice_is_an_error() {
        let error = parse("{\"a\": 1,\n \"b\": {\"c\": 1, \"c\": 2}}").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidSpec);
        assert!(error.to_string().contains("\"c\" stands twice in one object at line 2"), "{error}");
        assert!(parse("{} x").is_err());
        assert!(parse(&"[".repeat(100_000)).is_err());
    }

    proptest! {
        #[test]
        fn never_panics(text in "[\\[\\]{}:,\"a1.e-]{0,32}|.{0,32}") {
            let strict = parse(&text).ok();
            let plain = serde_json::from_str::<Json>(&text).ok();
            prop_assert!(strict.is_none() || strict == plain);
        }
    }
}
