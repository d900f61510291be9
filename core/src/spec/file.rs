//! Files made from bytes.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use super::at::At;
use super::codec::{Codec, Mode};
use super::json::{self, Json, json, wrong_type};
use crate::error::Result;

/// One entry of `files`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    /// The content.
    pub data: Vec<u8>,
    /// Default 0644.
    pub mode: u32,
}

impl File {
    /// The mode of a file for which none is given.
    pub const MODE: u32 = 0o644;

    /// A file of mode 0644.
    pub fn new(data: impl Into<Vec<u8>>) -> Self {
        Self { data: data.into(), mode: Self::MODE }
    }

    /// Another mode.
    pub fn mode(mut self, mode: u32) -> Self {
        self.mode = mode;
        self
    }
}

impl From<&str> for File {
    fn from(text: &str) -> Self {
        Self::new(text)
    }
}

impl From<String> for File {
    fn from(text: String) -> Self {
        Self::new(text)
    }
}

impl From<&[u8]> for File {
    fn from(data: &[u8]) -> Self {
        Self::new(data)
    }
}

impl From<Vec<u8>> for File {
    fn from(data: Vec<u8>) -> Self {
        Self::new(data)
    }
}

impl Codec for File {
    type Value = Self;
    const FREE_TEXT: bool = true;

    fn read(json: &Json, at: &At) -> Result<Self> {
        let content = |json: &Json, at: &At| Ok(json::bytes(json, at)?.map(OsString::into_vec));
        if let Some(data) = content(json, at)? {
            return Ok(Self::new(data));
        }
        let members = json::members(
            json,
            at,
            "the content, or an object with data or base64, and mode",
            &["data", "base64", "mode"],
        )?;
        let data = match (json::member(members, "data"), json::member(members, "base64")) {
            (Some(data), None) => {
                content(data, &at.key("data"))?.ok_or_else(|| wrong_type(&at.key("data"), "the content", data))?
            }
            (None, Some(base64)) => content(&json!({"base64": base64}), at)?.unwrap_or_default(),
            (Some(_), Some(_)) => return Err(at.key("base64").error("excludes data")),
            (None, None) => return Err(at.error("has neither data nor base64")),
        };
        let mode = json::member(members, "mode").map(|mode| Mode::read(mode, &at.key("mode"))).transpose()?;
        Ok(Self { data, mode: mode.unwrap_or(Self::MODE) })
    }

    fn write(value: &Self) -> Json {
        let data = json::of_bytes(OsStr::from_bytes(&value.data));
        if value.mode == Self::MODE { data } else { json!({"data": data, "mode": Mode::write(&value.mode)}) }
    }

    fn schema() -> Json {
        json!({"anyOf": [
            {"$ref": "#/$defs/bytes"},
            {"type": "object", "additionalProperties": false, "properties": {
                "data": {"$ref": "#/$defs/bytes"},
                "base64": {"type": "string", "contentEncoding": "base64"},
                "mode": Mode::schema(),
            }},
        ]})
    }
}
