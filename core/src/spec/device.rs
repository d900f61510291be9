//! Entries of `devices`.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

use super::at::At;
use super::codec::{Codec, FilePath};
use super::json::{self, Json, json, wrong_type};
use crate::error::{Error, ErrorKind, Result};

/// One entry of `devices`: a node of the host that the container's /dev has too.
///
/// As text, `path[:target][:rw]`: an absolute path of the host, which may be a symlink, and where below /dev it is inside, which
/// is the same path when absent. Paths with colons need an object: `{"path": ..., "target": ..., "access": "rw"}`.
///
/// The access is reading and writing; others (`r`, `rm`, ...) need rules of the control group and are not available yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    /// The node of the host: a character or block device.
    pub path: PathBuf,
    /// The absolute path inside, below /dev; missing directories are made. Empty only in what text that could not be
    /// understood became, which no container is started with.
    pub target: PathBuf,
}

/// Why text is no device: with the kind of the error.
pub(super) type Why = (ErrorKind, &'static str);

impl Device {
    /// A node at the same path inside.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        let path = path.into();
        Self { target: path.clone(), path }
    }

    /// At another path inside.
    pub fn target(mut self, target: impl Into<PathBuf>) -> Self {
        self.target = target.into();
        self
    }

    /// `path[:target][:rw]`.
    pub(super) fn parse(text: &OsStr) -> Result<Self, Why> {
        let mut parts: Vec<&[u8]> = text.as_bytes().split(|&b| b == b':').collect();
        if let [_, .., last] = parts[..]
            && !last.starts_with(b"/")
        {
            access(last)?;
            parts.pop();
        }
        let (path, target) = match parts[..] {
            [path] => (path, path),
            [path, target] => (path, target),
            _ => return Err((ErrorKind::InvalidSpec, "more than path, target and rw")),
        };
        if !path.starts_with(b"/") || !target.starts_with(b"/") {
            return Err((ErrorKind::InvalidSpec, "path and target have to be absolute paths"));
        }
        let owned = |bytes: &[u8]| PathBuf::from(OsStr::from_bytes(bytes));
        Ok(Self { path: owned(path), target: owned(target) })
    }
}

/// Only reading and writing together can be had.
fn access(letters: &[u8]) -> Result<(), Why> {
    if letters == b"rw" {
        return Ok(());
    }
    if !letters.is_empty() && letters.iter().all(|letter| b"rwm".contains(letter)) {
        return Err((ErrorKind::NotAvailable, "another access than rw is not available yet"));
    }
    Err((ErrorKind::InvalidSpec, "the access is rw"))
}

fn refused(at: &At, text: impl std::fmt::Debug, (kind, why): Why) -> Error {
    at.error(format!("{text:?} is not path[:target][:rw]: {why}")).with_kind(kind)
}

/// `path[:target][:rw]`; text that cannot be understood is an error when the spec is checked.
impl From<OsString> for Device {
    fn from(text: OsString) -> Self {
        Self::parse(&text).unwrap_or_else(|_| Self { path: text.into(), target: PathBuf::new() })
    }
}

impl From<&str> for Device {
    fn from(text: &str) -> Self {
        OsString::from(text).into()
    }
}

impl From<String> for Device {
    fn from(text: String) -> Self {
        OsString::from_vec(text.into_bytes()).into()
    }
}

impl Device {
    /// The error of what a text became that could not be understood.
    pub(super) fn check_parsed(&self, at: &At) -> Result<()> {
        if !self.target.as_os_str().is_empty() {
            return Ok(());
        }
        match Self::parse(self.path.as_os_str()) {
            Err(why) => Err(refused(at, &self.path, why)),
            Ok(_) => Err(at.key("target").error("is empty")),
        }
    }
}

const KEYS: [&str; 3] = ["path", "target", "access"];

impl Codec for Device {
    type Value = Self;

    fn read(json: &Json, at: &At) -> Result<Self> {
        if let Some(text) = json::bytes(json, at)? {
            return Self::parse(&text).map_err(|why| refused(at, &text, why));
        }
        let members = json::members(json, at, "path[:target][:rw] or an object", &KEYS)?;
        let member = |key| json::member(members, key);
        match member("access") {
            None => {}
            Some(Json::String(letters)) => {
                access(letters.as_bytes()).map_err(|(kind, why)| at.key("access").error(why).with_kind(kind))?;
            }
            Some(other) => return Err(wrong_type(&at.key("access"), "\"rw\"", other)),
        }
        let path = |key| member(key).map(|path| FilePath::read(path, &at.key(key))).transpose();
        let device = Self::new(path("path")?.ok_or_else(|| at.error("has no path"))?);
        let device = match path("target")? {
            Some(target) => device.target(target),
            None => device,
        };
        if device.target.as_os_str().is_empty() {
            return Err(at.key("target").error("is empty"));
        }
        Ok(device)
    }

    fn write(value: &Self) -> Json {
        json!({"path": FilePath::write(&value.path), "target": FilePath::write(&value.target)})
    }

    fn schema() -> Json {
        json!({"anyOf": [
            {"type": "string", "pattern": "^/[^:]*(:/[^:]*)?(:rw)?$", "description": "path[:target][:rw]"},
            {"type": "object", "additionalProperties": false, "required": ["path"], "properties": {
                "path": {"$ref": "#/$defs/path"},
                "target": {"$ref": "#/$defs/path", "description": "below /dev; the same path when absent"},
                "access": {"enum": ["rw"], "default": "rw"},
            }},
        ]})
    }
}
