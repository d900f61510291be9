//! The three standard streams and the terminal.

use std::ffi::{OsStr, OsString};
use std::os::fd::RawFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

use super::at::At;
use super::codec::{Codec, Count, bool_text, json_text};
use super::json::{self, Json, json, wrong_type};
use crate::error::Result;

/// Where a standard stream leads. As text: `null`, `inherit`, `pipe`, `log`, `file:PATH`, `fd:N`, `stdout`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stdio {
    /// /dev/null.
    Null,
    /// The caller's own stream.
    Inherit,
    /// A pipe, whose other end is read or written through the handle of the process.
    Pipe,
    /// Output only: a bounded file, readable through the handle, kept for detached containers.
    Log,
    /// Opened by the caller's authority on the host: created and truncated for output, read for input. An absolute path.
    File(PathBuf),
    /// An open descriptor of the caller; it is duplicated, never closed.
    Fd(RawFd),
    /// stderr only: the same as stdout.
    Stdout,
}

/// The size of a pseudoterminal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terminal {
    /// 1 to 65535.
    pub rows: u16,
    /// 1 to 65535.
    pub cols: u16,
}

/// 24 rows of 80 columns.
impl Default for Terminal {
    fn default() -> Self {
        Self { rows: 24, cols: 80 }
    }
}

const STDIO_FORMS: &str = "null, inherit, pipe, log, file:PATH or fd:N";

impl Codec for Stdio {
    type Value = Self;

    fn read(json: &Json, at: &At) -> Result<Self> {
        let text = json::bytes(json, at)?.ok_or_else(|| wrong_type(at, STDIO_FORMS, json))?;
        let bytes = text.as_bytes();
        if let Some(path) = bytes.strip_prefix(b"file:") {
            return Ok(Self::File(OsStr::from_bytes(path).into()));
        }
        if let Some(number) = bytes.strip_prefix(b"fd:") {
            let number = Count::read(&Count::text(number, at)?, at).ok().and_then(|n| RawFd::try_from(n).ok());
            return number.map(Self::Fd).ok_or_else(|| at.error(format!("{text:?} has no number of a descriptor")));
        }
        match bytes {
            b"null" => Ok(Self::Null),
            b"inherit" => Ok(Self::Inherit),
            b"pipe" => Ok(Self::Pipe),
            b"log" => Ok(Self::Log),
            b"stdout" => Ok(Self::Stdout),
            [b'/', ..] => {
                Err(wrong_type(at, STDIO_FORMS, json).with_hint(format!("for a file, write file:{}", text.display())))
            }
            _ => Err(wrong_type(at, STDIO_FORMS, json)),
        }
    }

    fn write(value: &Self) -> Json {
        match value {
            Self::Null => "null".into(),
            Self::Inherit => "inherit".into(),
            Self::Pipe => "pipe".into(),
            Self::Log => "log".into(),
            Self::File(path) => json::of_bytes(&OsString::from_vec([b"file:", path.as_os_str().as_bytes()].concat())),
            Self::Fd(fd) => format!("fd:{fd}").into(),
            Self::Stdout => "stdout".into(),
        }
    }

    fn schema() -> Json {
        json!({"anyOf": [
            {"enum": ["null", "inherit", "pipe", "log", "stdout"]},
            {"type": "string", "pattern": "^(file:/.*|fd:[0-9]+)$"},
            {"$ref": "#/$defs/bytes"},
        ]})
    }
}

impl Codec for Terminal {
    type Value = Self;

    fn read(json: &Json, at: &At) -> Result<Self> {
        let mut terminal = Self::default();
        match json {
            Json::Bool(true) => return Ok(terminal),
            // Stands in a spec that layers over another one.
            Json::Bool(false) => return Err(at.error("false: leave it out, or null, for no terminal")),
            _ => {}
        }
        let members = json::members(json, at, "true, or an object with rows and cols", &["rows", "cols"])?;
        for (key, side) in [("rows", &mut terminal.rows), ("cols", &mut terminal.cols)] {
            if let Some(json) = json::member(members, key) {
                let at = at.key(key);
                let length = Count::read(json, &at)?;
                *side = length.try_into().map_err(|_| at.error(format!("{length} is not in 1 to {}", u16::MAX)))?;
            }
        }
        Ok(terminal)
    }

    fn write(value: &Self) -> Json {
        json!({"rows": value.rows, "cols": value.cols})
    }

    fn text(text: &[u8], at: &At) -> Result<Json> {
        bool_text(text).map_or_else(|| json_text(text, at), Ok)
    }

    fn schema() -> Json {
        let length = |default: u16| json!({"type": "integer", "minimum": 1, "maximum": u16::MAX, "default": default});
        json!({"anyOf": [
            {"const": true},
            {"type": "object", "additionalProperties": false, "properties": {"rows": length(24), "cols": length(80)}},
        ]})
    }
}
