//! How fields hold their values: one, perhaps one, a list, a map.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::marker::PhantomData;
use std::os::fd::RawFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

use super::at::At;
use super::codec::{Codec, Count, json_text};
use super::json::{self, Json, json, wrong_type};
use super::{NamespaceKind, Resource};
use crate::error::Result;

/// A field. Null and empty text never come here: they put the default back, whatever the shape.
pub(super) trait Shape {
    type Value: Clone;

    const UNIT: Option<&'static str> = None;

    /// Layers JSON over what is there. An error may leave a part of it.
    fn merge(value: &mut Self::Value, json: &Json, at: &At) -> Result<()>;

    /// The JSON that [`Shape::merge`] takes back; `None` when nothing is set.
    fn write(value: &Self::Value) -> Option<Json>;

    /// The rules of the C interface: scalars replace, lists append one element, maps take `K=V`, objects take JSON text. An
    /// error leaves what was there.
    fn set(value: &mut Self::Value, text: &[u8], at: &At) -> Result<()>;

    fn schema() -> Json;

    /// All of a merge or nothing.
    fn merge_whole(value: &mut Self::Value, json: &Json, at: &At) -> Result<()> {
        let mut merged = value.clone();
        Self::merge(&mut merged, json, at)?;
        *value = merged;
        Ok(())
    }
}

/// A value that is always there.
pub(super) struct One<C>(PhantomData<C>);

impl<C: Codec> Shape for One<C> {
    type Value = C::Value;
    const UNIT: Option<&'static str> = C::UNIT;

    fn merge(value: &mut Self::Value, json: &Json, at: &At) -> Result<()> {
        C::merge(value, json, at)
    }

    fn write(value: &Self::Value) -> Option<Json> {
        Some(C::write(value))
    }

    fn set(value: &mut Self::Value, text: &[u8], at: &At) -> Result<()> {
        Self::merge_whole(value, &C::text(text, at)?, at)
    }

    fn schema() -> Json {
        C::schema()
    }
}

/// A value that may be absent.
pub(super) struct Opt<C>(PhantomData<C>);

impl<C: Codec> Shape for Opt<C> {
    type Value = Option<C::Value>;
    const UNIT: Option<&'static str> = C::UNIT;

    fn merge(value: &mut Self::Value, json: &Json, at: &At) -> Result<()> {
        *value = Some(C::read(json, at)?);
        Ok(())
    }

    fn write(value: &Self::Value) -> Option<Json> {
        value.as_ref().map(C::write)
    }

    fn set(value: &mut Self::Value, text: &[u8], at: &At) -> Result<()> {
        Self::merge(value, &C::text(text, at)?, at)
    }

    fn schema() -> Json {
        C::schema()
    }
}

/// A list.
pub(super) struct List<C>(PhantomData<C>);

impl<C: Codec> Shape for List<C> {
    type Value = Vec<C::Value>;

    fn merge(value: &mut Self::Value, json: &Json, at: &At) -> Result<()> {
        let Json::Array(items) = json else { return Err(wrong_type(at, "a list", json)) };
        *value = items.iter().enumerate().map(|(i, item)| C::read(item, &at.index(i))).collect::<Result<_>>()?;
        Ok(())
    }

    fn write(value: &Self::Value) -> Option<Json> {
        (!value.is_empty()).then(|| value.iter().map(C::write).collect())
    }

    fn set(value: &mut Self::Value, text: &[u8], at: &At) -> Result<()> {
        if text.starts_with(b"[") && !C::FREE_TEXT {
            return Self::merge_whole(value, &json_text(text, at)?, at);
        }
        let place = at.index(value.len());
        let item = C::read(&C::text(text, &place)?, &place)?;
        value.push(item);
        Ok(())
    }

    fn schema() -> Json {
        json!({"type": "array", "items": C::schema()})
    }
}

/// A list that stands in the place of a built-in one. Text adds to the built-in list, so that naming one more path in C
/// does not lay the others open.
pub(super) struct ListOver<C, B>(PhantomData<(C, B)>);

/// A built-in list.
pub(super) trait BuiltIn<T> {
    fn items() -> Vec<T>;
}

impl<C: Codec, B: BuiltIn<C::Value>> Shape for ListOver<C, B> {
    type Value = Option<Vec<C::Value>>;

    fn merge(value: &mut Self::Value, json: &Json, at: &At) -> Result<()> {
        let mut list = Vec::new();
        List::<C>::merge(&mut list, json, at)?;
        *value = Some(list);
        Ok(())
    }

    fn write(value: &Self::Value) -> Option<Json> {
        value.as_ref().map(|list| list.iter().map(C::write).collect())
    }

    fn set(value: &mut Self::Value, text: &[u8], at: &At) -> Result<()> {
        let mut list = value.clone().unwrap_or_else(B::items);
        List::<C>::set(&mut list, text, at)?;
        *value = Some(list);
        Ok(())
    }

    fn schema() -> Json {
        List::<C>::schema()
    }
}

/// The keys of a map.
pub(super) trait Key: Ord + Clone {
    /// Whether any text can be a key, so that none of it can be taken for JSON.
    const FREE_TEXT: bool = false;

    /// All keys, when there are only so many.
    fn names() -> Vec<&'static str> {
        Vec::new()
    }

    fn read(text: &OsStr, at: &At) -> Result<Self>;

    fn write(&self) -> OsString;
}

impl Key for OsString {
    const FREE_TEXT: bool = true;

    fn read(text: &OsStr, _: &At) -> Result<Self> {
        Ok(text.to_owned())
    }

    fn write(&self) -> OsString {
        self.clone()
    }
}

impl Key for String {
    const FREE_TEXT: bool = true;

    fn read(text: &OsStr, at: &At) -> Result<Self> {
        text.to_str().map(str::to_owned).ok_or_else(|| at.error("a name has to be UTF-8"))
    }

    fn write(&self) -> OsString {
        self.into()
    }
}

impl Key for PathBuf {
    fn read(text: &OsStr, _: &At) -> Result<Self> {
        Ok(text.into())
    }

    fn write(&self) -> OsString {
        self.into()
    }
}

macro_rules! named_key {
    ($Key:ty) => {
        impl Key for $Key {
            fn names() -> Vec<&'static str> {
                Self::ALL.map(Self::name).into()
            }

            fn read(text: &OsStr, at: &At) -> Result<Self> {
                let text = text.to_string_lossy();
                Self::from_name(&text).ok_or_else(|| json::unknown_key(at, &text, &Self::names()))
            }

            fn write(&self) -> OsString {
                self.name().into()
            }
        }
    };
}

named_key!(NamespaceKind);
named_key!(Resource);

/// A map. In JSON an object; or a list of `K=V` and of `[key, value]`, which also takes keys that are not UTF-8.
pub(super) struct Map<K, C>(PhantomData<(K, C)>);

impl<K: Key, C: Codec> Map<K, C> {
    /// Lays one entry over the map; `seen` are the keys of this JSON value, which may be written differently (`/a`, `//a`).
    fn merge_new(
        map: &mut BTreeMap<K, C::Value>,
        seen: &mut BTreeSet<K>,
        key: &OsStr,
        json: &Json,
        at: &At,
    ) -> Result<()> {
        if !seen.insert(K::read(key, at)?) {
            return Err(at.key(&key.to_string_lossy()).error("stands twice"));
        }
        Self::merge_entry(map, key, json, at)
    }

    fn merge_entry(map: &mut BTreeMap<K, C::Value>, key: &OsStr, json: &Json, at: &At) -> Result<()> {
        let read = K::read(key, at)?;
        let shown = key.to_string_lossy();
        if json.is_null() && !C::NULL {
            map.remove(&read);
        } else {
            map.insert(read, C::read(json, &at.key(&shown))?);
        }
        Ok(())
    }

    fn pair<'a>(text: &'a OsStr, at: &At) -> Result<(&'a OsStr, &'a [u8])> {
        let text = text.as_bytes();
        match text.iter().position(|&b| b == b'=') {
            Some(i) => Ok((OsStr::from_bytes(&text[..i]), &text[i + 1..])),
            None => Err(at.error(format!("{:?} is not KEY=VALUE", OsStr::from_bytes(text)))),
        }
    }
}

impl<K: Key, C: Codec> Shape for Map<K, C> {
    type Value = BTreeMap<K, C::Value>;

    fn merge(value: &mut Self::Value, json: &Json, at: &At) -> Result<()> {
        let mut seen = BTreeSet::new();
        match json {
            Json::Object(members) => {
                members.iter().try_for_each(|(key, json)| Self::merge_new(value, &mut seen, key.as_ref(), json, at))
            }
            Json::Array(items) => items.iter().enumerate().try_for_each(|(i, item)| {
                let place = at.index(i);
                if let Some(text) = json::bytes(item, &place)? {
                    let (key, text) = Self::pair(&text, &place)?;
                    return Self::merge_new(value, &mut seen, key, &C::text(text, &place)?, at);
                }
                match item.as_array().map(Vec::as_slice) {
                    Some([key, item]) => match json::bytes(key, &place)? {
                        Some(key) => Self::merge_new(value, &mut seen, &key, item, at),
                        None => Err(wrong_type(&place, "a name", key)),
                    },
                    _ => Err(wrong_type(&place, "KEY=VALUE or [key, value]", item)),
                }
            }),
            _ => Err(wrong_type(at, "an object", json)),
        }
    }

    fn write(value: &Self::Value) -> Option<Json> {
        if value.is_empty() {
            return None;
        }
        let entries: Vec<(OsString, Json)> = value.iter().map(|(key, value)| (key.write(), C::write(value))).collect();
        if entries.iter().all(|(key, _)| key.to_str().is_some()) {
            let text = |key: OsString| String::from_utf8_lossy(&key.into_vec()).into_owned();
            Some(Json::Object(entries.into_iter().map(|(key, value)| (text(key), value)).collect()))
        } else {
            Some(entries.into_iter().map(|(key, value)| json!([json::of_bytes(&key), value])).collect())
        }
    }

    fn set(value: &mut Self::Value, text: &[u8], at: &At) -> Result<()> {
        if text.starts_with(b"{") && !K::FREE_TEXT {
            return Self::merge_whole(value, &json_text(text, at)?, at);
        }
        let (key, text) = Self::pair(OsStr::from_bytes(text), at)?;
        let shown = key.to_string_lossy();
        let json = C::text(text, &at.key(&shown))?;
        Self::merge_entry(value, key, &json, at)
    }

    fn schema() -> Json {
        let item = C::schema();
        let item = if C::NULL { item } else { json!({"anyOf": [item, {"type": "null"}]}) };
        let names = K::names();
        let object = if names.is_empty() {
            json!({"type": "object", "additionalProperties": item})
        } else {
            let properties: json::Members = names.into_iter().map(|name| (name.to_owned(), item.clone())).collect();
            json!({"type": "object", "properties": properties, "additionalProperties": false})
        };
        let pair =
            json!({"type": "array", "prefixItems": [{"$ref": "#/$defs/bytes"}, item], "minItems": 2, "maxItems": 2});
        json!({"anyOf": [object, {"type": "array", "items": {"anyOf": [{"$ref": "#/$defs/bytes"}, pair]}}]})
    }
}

/// A map whose keys are names that cannot begin with a bracket, so that text can be the JSON of all of it.
pub(super) struct Named<C>(PhantomData<C>);

impl<C: Codec> Shape for Named<C> {
    type Value = BTreeMap<String, C::Value>;

    fn merge(value: &mut Self::Value, json: &Json, at: &At) -> Result<()> {
        Map::<String, C>::merge(value, json, at)
    }

    fn write(value: &Self::Value) -> Option<Json> {
        Map::<String, C>::write(value)
    }

    fn set(value: &mut Self::Value, text: &[u8], at: &At) -> Result<()> {
        if text.starts_with(b"{") {
            return Self::merge_whole(value, &json_text(text, at)?, at);
        }
        Map::<String, C>::set(value, text, at)
    }

    fn schema() -> Json {
        Map::<String, C>::schema()
    }
}

/// Descriptors: number in the caller -> number inside. A number alone stays the same.
pub(super) struct Descriptors;

impl Descriptors {
    fn number(json: &Json, at: &At) -> Result<RawFd> {
        let number = Count::read(json, at)?;
        RawFd::try_from(number).map_err(|_| at.error(format!("{number} is not a file descriptor")))
    }

    /// `host` or `host=inside`.
    fn entry(text: &[u8], at: &At) -> Result<(RawFd, RawFd)> {
        let number = |text: &[u8]| Self::number(&Count::text(text, at)?, at);
        match text.iter().position(|&b| b == b'=') {
            Some(i) => Ok((number(&text[..i])?, number(&text[i + 1..])?)),
            None => number(text).map(|fd| (fd, fd)),
        }
    }
}

impl Shape for Descriptors {
    type Value = BTreeMap<RawFd, RawFd>;

    fn merge(value: &mut Self::Value, json: &Json, at: &At) -> Result<()> {
        match json {
            Json::Object(members) => members.iter().try_for_each(|(key, inside)| {
                let at = at.key(key);
                let fd = Self::number(&Count::text(key.as_bytes(), &at)?, &at)?;
                match inside {
                    Json::Null => value.remove(&fd),
                    _ => value.insert(fd, Self::number(inside, &at)?),
                };
                Ok(())
            }),
            Json::Array(items) => items.iter().enumerate().try_for_each(|(i, item)| {
                let at = at.index(i);
                let (fd, inside) = match item {
                    Json::String(text) => Self::entry(text.as_bytes(), &at)?,
                    _ => Self::number(item, &at).map(|fd| (fd, fd))?,
                };
                value.insert(fd, inside);
                Ok(())
            }),
            _ => Err(wrong_type(at, "an object or a list of numbers", json)),
        }
    }

    fn write(value: &Self::Value) -> Option<Json> {
        let members = value.iter().map(|(fd, inside)| (fd.to_string(), Json::from(*inside)));
        (!value.is_empty()).then(|| Json::Object(members.collect()))
    }

    fn set(value: &mut Self::Value, text: &[u8], at: &At) -> Result<()> {
        if text.starts_with(b"{") || text.starts_with(b"[") {
            return Self::merge_whole(value, &json_text(text, at)?, at);
        }
        let (fd, inside) = Self::entry(text, at)?;
        value.insert(fd, inside);
        Ok(())
    }

    fn schema() -> Json {
        let number = json!({"type": "integer", "minimum": 0});
        json!({"anyOf": [
            {"type": "object", "propertyNames": {"pattern": "^[0-9]+$"},
                "additionalProperties": {"anyOf": [number, {"type": "null"}]}},
            {"type": "array", "items": {"anyOf": [number, {"type": "string", "pattern": "^[0-9]+(=[0-9]+)?$"}]}},
        ]})
    }
}
