//! Entries of `devices` and of `device_rules`.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

use super::at::At;
use super::codec::{Codec, FilePath};
use super::json::{self, Json, json, wrong_type};
use crate::error::{Error, Result};

/// One entry of `devices`: a node of the host that the container's /dev has too.
///
/// As text, `path[:target][:access]`: an absolute path of the host, which may be a symlink, and where below /dev it is inside, which
/// is the same path when absent. Paths with colons need an object: `{"path": ..., "target": ..., "access": "rw"}`.
///
/// The access is of `r` (open for reading), `w` (for writing) and `m` (make further nodes), `rw` by default. Where it has not
/// both of `r` and `w`, the kernel has to hold it against the device's number: see
/// [`device_rules`](crate::Spec#structfield.device_rules) for where it can.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    /// The node of the host: a character or block device.
    pub path: PathBuf,
    /// The absolute path inside, below /dev; missing directories are made. Empty only in what text that could not be
    /// understood became, which no container is started with.
    pub target: PathBuf,
    /// What may be done with it.
    pub access: DeviceAccess,
}

impl Device {
    /// A node at the same path inside.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        let path = path.into();
        Self { target: path.clone(), path, access: DeviceAccess::default() }
    }

    /// At another path inside.
    pub fn target(mut self, target: impl Into<PathBuf>) -> Self {
        self.target = target.into();
        self
    }

    /// With another access than `rw`.
    pub fn access(mut self, access: DeviceAccess) -> Self {
        self.access = access;
        self
    }

    /// `path[:target][:access]`.
    pub(super) fn parse(text: &OsStr) -> Result<Self, &'static str> {
        let mut parts: Vec<&[u8]> = text.as_bytes().split(|&b| b == b':').collect();
        let mut access = DeviceAccess::default();
        if let [_, .., last] = parts[..]
            && !last.starts_with(b"/")
        {
            access = DeviceAccess::parse(last).ok_or(ACCESS)?;
            parts.pop();
        }
        let (path, target) = match parts[..] {
            [path] => (path, path),
            [path, target] => (path, target),
            _ => return Err("more than path, target and access"),
        };
        if !path.starts_with(b"/") || !target.starts_with(b"/") {
            return Err("path and target have to be absolute paths");
        }
        let owned = |bytes: &[u8]| PathBuf::from(OsStr::from_bytes(bytes));
        Ok(Self { path: owned(path), target: owned(target), access })
    }
}

const ACCESS: &str = "the access is of the letters r, w and m, each at most once";

/// What may be done with a device: open it for reading, for writing, make nodes of it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DeviceAccess(u8);

impl DeviceAccess {
    /// `r`: open for reading.
    pub const READ: Self = Self(1);
    /// `w`: open for writing.
    pub const WRITE: Self = Self(2);
    /// `m`: make nodes (mknod(2)), which takes CAP_MKNOD of the machine itself too.
    pub const MKNOD: Self = Self(4);
    /// `rwm`.
    pub const ALL: Self = Self(7);

    const LETTERS: [(u8, Self); 3] = [(b'r', Self::READ), (b'w', Self::WRITE), (b'm', Self::MKNOD)];

    /// Letters in any order, each once. `None`: something else, or nothing.
    fn parse(letters: &[u8]) -> Option<Self> {
        let mut access = Self(0);
        for letter in letters {
            let (_, one) = Self::LETTERS.into_iter().find(|(known, _)| known == letter)?;
            if access.contains(one) {
                return None;
            }
            access = access | one;
        }
        (access.0 != 0).then_some(access)
    }

    /// Whether it has all of the other's.
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Whether nothing may be done.
    pub(crate) const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// What both have.
    pub(crate) const fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// Without what the other has.
    pub(crate) const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }
}

/// `rw`.
impl Default for DeviceAccess {
    fn default() -> Self {
        Self::READ | Self::WRITE
    }
}

impl std::ops::BitOr for DeviceAccess {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// As in a spec: `rwm`.
impl std::fmt::Display for DeviceAccess {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let letters = Self::LETTERS.into_iter().filter(|(_, one)| self.contains(*one));
        f.write_str(&letters.map(|(letter, _)| char::from(letter)).collect::<String>())
    }
}

impl std::fmt::Debug for DeviceAccess {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "DeviceAccess({self})")
    }
}

/// `access` of an object.
fn read_access(json: Option<&Json>, at: &At, default: DeviceAccess) -> Result<DeviceAccess> {
    match json {
        None => Ok(default),
        Some(Json::String(letters)) => {
            DeviceAccess::parse(letters.as_bytes()).ok_or_else(|| at.key("access").error(ACCESS))
        }
        Some(other) => Err(wrong_type(&at.key("access"), "letters of \"rwm\"", other)),
    }
}

fn refused(at: &At, text: impl std::fmt::Debug, why: &str) -> Error {
    at.error(format!("{text:?} is not path[:target][:access]: {why}"))
}

/// `path[:target][:access]`; text that cannot be understood is an error when the spec is checked.
impl From<OsString> for Device {
    fn from(text: OsString) -> Self {
        Self::parse(&text).unwrap_or_else(|_| Self {
            path: text.into(),
            target: PathBuf::new(),
            access: DeviceAccess::default(),
        })
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

const ACCESS_PATTERN: &str = "^[rwm]{1,3}$";

impl Codec for Device {
    type Value = Self;

    fn read(json: &Json, at: &At) -> Result<Self> {
        if let Some(text) = json::bytes(json, at)? {
            return Self::parse(&text).map_err(|why| refused(at, &text, why));
        }
        let members = json::members(json, at, "path[:target][:access] or an object", &KEYS)?;
        let member = |key| json::member(members, key);
        let access = read_access(member("access"), at, DeviceAccess::default())?;
        let path = |key| member(key).map(|path| FilePath::read(path, &at.key(key))).transpose();
        let device = Self::new(path("path")?.ok_or_else(|| at.error("has no path"))?).access(access);
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
        let mut json = json!({"path": FilePath::write(&value.path), "target": FilePath::write(&value.target)});
        if value.access != DeviceAccess::default() {
            json["access"] = value.access.to_string().into();
        }
        json
    }

    fn schema() -> Json {
        json!({"anyOf": [
            {"type": "string", "pattern": "^/[^:]*(:/[^:]*)?(:[rwm]{1,3})?$",
             "description": "path[:target][:access]"},
            {"type": "object", "additionalProperties": false, "required": ["path"], "properties": {
                "path": {"$ref": "#/$defs/path"},
                "target": {"$ref": "#/$defs/path", "description": "below /dev; the same path when absent"},
                "access": {"type": "string", "pattern": ACCESS_PATTERN, "default": "rw"},
            }},
        ]})
    }
}

/// The kind of device that a rule is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum DeviceKind {
    /// `a`: both.
    All,
    /// `c`: character devices.
    Char,
    /// `b`: block devices.
    Block,
}

impl DeviceKind {
    fn parse(text: &str) -> Option<Self> {
        match text {
            "a" => Some(Self::All),
            "c" => Some(Self::Char),
            "b" => Some(Self::Block),
            _ => None,
        }
    }

    /// As in a spec.
    pub(crate) fn letter(self) -> &'static str {
        match self {
            Self::All => "a",
            Self::Char => "c",
            Self::Block => "b",
        }
    }
}

/// One entry of `device_rules`: what may be done with devices of these numbers, wherever their nodes are.
///
/// As text, `[allow|deny] TYPE [MAJOR:MINOR] [ACCESS]`, as in the kernel's files and in Docker: `c 1:11 r`, `deny b *:* w`,
/// `allow c 10:* rwm`, `a`. The type is `c`, `b` or `a` for both; numbers are decimal, or `*` for any, as when they are
/// absent; the access is `rwm` when it is. As an object as in OCI's `linux.resources.devices`:
/// `{"allow": true, "type": "c", "major": 1, "minor": 11, "access": "r"}`.
///
/// ```
/// use ringfence::spec::{DeviceAccess, DeviceKind, DeviceRule};
///
/// let rule: DeviceRule = "deny c 1:11 w".parse()?;
/// assert_eq!(rule, DeviceRule::deny(DeviceKind::Char, Some(1), Some(11), DeviceAccess::WRITE));
/// # Ok::<(), ringfence::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct DeviceRule {
    /// Whether it may be done.
    pub allow: bool,
    /// Of which devices.
    pub kind: DeviceKind,
    /// `None` is any.
    pub major: Option<u32>,
    /// `None` is any.
    pub minor: Option<u32>,
    /// What this is about.
    pub access: DeviceAccess,
}

/// The kernel's numbers have 12 and 20 bits (include/linux/kdev_t.h).
const MOST_MAJOR: u32 = (1 << 12) - 1;
const MOST_MINOR: u32 = (1 << 20) - 1;

impl DeviceRule {
    /// Allows it.
    pub fn allow(kind: DeviceKind, major: Option<u32>, minor: Option<u32>, access: DeviceAccess) -> Self {
        Self { allow: true, kind, major, minor, access }
    }

    /// Denies it.
    pub fn deny(kind: DeviceKind, major: Option<u32>, minor: Option<u32>, access: DeviceAccess) -> Self {
        Self { allow: false, kind, major, minor, access }
    }

    fn read_text(text: &str) -> Result<Self, &'static str> {
        let mut words = text.split_ascii_whitespace().peekable();
        let allow = words.next_if(|word| matches!(*word, "allow" | "deny")) != Some("deny");
        let kind = words.next().and_then(DeviceKind::parse).ok_or("the type is c, b or a")?;
        let mut rule = Self { allow, kind, major: None, minor: None, access: DeviceAccess::ALL };
        let Some(numbers) = words.next() else { return Ok(rule) };
        let number = |text: &str| match text {
            "*" => Some(None),
            _ if text.bytes().all(|b| b.is_ascii_digit()) => text.parse().ok().map(Some),
            _ => None,
        };
        let pair = numbers.split_once(':').and_then(|(major, minor)| Some((number(major)?, number(minor)?)));
        (rule.major, rule.minor) = pair.ok_or("the numbers are MAJOR:MINOR, each a number or *")?;
        if let Some(letters) = words.next() {
            rule.access = DeviceAccess::parse(letters.as_bytes()).ok_or(ACCESS)?;
        }
        match words.next() {
            None => Ok(rule),
            Some(_) => Err("more than type, numbers and access"),
        }
    }

    /// What the kernel has no numbers for.
    pub(super) fn check(&self, at: &At) -> Result<()> {
        for (key, number, most) in [("major", self.major, MOST_MAJOR), ("minor", self.minor, MOST_MINOR)] {
            if number.is_some_and(|number| number > most) {
                return Err(at.key(key).error(format!("is more than {most}, the kernel's largest")));
            }
        }
        if self.access.is_empty() {
            return Err(at.key("access").error(ACCESS));
        }
        Ok(())
    }
}

/// As in a spec: `allow c 1:11 r`.
impl std::fmt::Display for DeviceRule {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let number = |number: Option<u32>| number.map_or_else(|| "*".to_owned(), |number| number.to_string());
        let Self { allow, kind, major, minor, access } = *self;
        let verb = if allow { "allow" } else { "deny" };
        write!(f, "{verb} {} {}:{} {access}", kind.letter(), number(major), number(minor))
    }
}

impl std::str::FromStr for DeviceRule {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let at = At::Field("device_rules");
        let rule = Self::read_text(text).map_err(|why| refused_rule(&at, text, why))?;
        rule.check(&at).map(|()| rule)
    }
}

fn refused_rule(at: &At, text: &str, why: &str) -> Error {
    at.error(format!("{text:?} is not [allow|deny] TYPE [MAJOR:MINOR] [ACCESS]: {why}"))
        .with_hint("like \"c 1:11 r\", \"deny b *:* w\", \"a\"")
}

const RULE_KEYS: [&str; 5] = ["allow", "type", "major", "minor", "access"];

impl Codec for DeviceRule {
    type Value = Self;

    fn read(json: &Json, at: &At) -> Result<Self> {
        if let Json::String(text) = json {
            let rule = Self::read_text(text).map_err(|why| refused_rule(at, text, why))?;
            return rule.check(at).map(|()| rule);
        }
        let members = json::members(json, at, "[allow|deny] TYPE [MAJOR:MINOR] [ACCESS] or an object", &RULE_KEYS)?;
        let member = |key| json::member(members, key);
        let allow = match member("allow") {
            None => true,
            Some(Json::Bool(allow)) => *allow,
            Some(other) => return Err(wrong_type(&at.key("allow"), "true or false", other)),
        };
        let kind = match member("type") {
            None => DeviceKind::All,
            Some(Json::String(text)) => DeviceKind::parse(text)
                .ok_or_else(|| at.key("type").error(format!("{text:?} is none of c, b and a")))?,
            Some(other) => return Err(wrong_type(&at.key("type"), "\"c\", \"b\" or \"a\"", other)),
        };
        let number = |key| match member(key) {
            None => Ok(None),
            Some(Json::String(text)) if text == "*" => Ok(None),
            // As OCI's documents have it.
            Some(Json::Number(number)) if number.as_i64() == Some(-1) => Ok(None),
            Some(Json::Number(number)) => match number.as_u64().and_then(|number| u32::try_from(number).ok()) {
                Some(number) => Ok(Some(number)),
                None => Err(at.key(key).error(format!("{number} is no number of a device"))),
            },
            Some(other) => Err(wrong_type(&at.key(key), "a number or \"*\"", other)),
        };
        let (major, minor) = (number("major")?, number("minor")?);
        let rule = Self { allow, kind, major, minor, access: read_access(member("access"), at, DeviceAccess::ALL)? };
        rule.check(at).map(|()| rule)
    }

    fn write(value: &Self) -> Json {
        let mut json = json!({"allow": value.allow, "type": value.kind.letter(), "access": value.access.to_string()});
        for (key, number) in [("major", value.major), ("minor", value.minor)] {
            if let Some(number) = number {
                json[key] = number.into();
            }
        }
        json
    }

    fn schema() -> Json {
        let number = |most: u32| {
            json!({"anyOf": [
            {"type": "integer", "minimum": -1, "maximum": most},
            {"const": "*"},
        ], "default": "*"})
        };
        json!({"anyOf": [
            {"type": "string",
             "pattern": "^\\s*((allow|deny)\\s+)?[abc](\\s+([0-9]+|\\*):([0-9]+|\\*)(\\s+[rwm]{1,3})?)?\\s*$",
             "description": "[allow|deny] TYPE [MAJOR:MINOR] [ACCESS]"},
            {"type": "object", "additionalProperties": false, "properties": {
                "allow": {"type": "boolean", "default": true},
                "type": {"enum": ["c", "b", "a"], "default": "a"},
                "major": number(MOST_MAJOR),
                "minor": number(MOST_MINOR),
                "access": {"type": "string", "pattern": ACCESS_PATTERN, "default": "rwm"},
            }},
        ]})
    }
}
