//! How ids inside are ids of the host.

use super::at::At;
use super::codec::Codec;
use super::json::{self, Json, json, wrong_type};
use crate::error::Result;

/// How ids inside are ids of the host. This alone decides the user namespace.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub enum Idmap {
    /// A range of ids that no other container has, or the strongest that this machine and user can have.
    #[default]
    Auto,
    /// No user namespace: ids inside are ids of the host. Weaker.
    Host,
    /// The caller's ids are the same inside, all others come from the range.
    KeepId,
    /// These ranges, at most 340 of each, which is the kernel's bound.
    Explicit {
        /// User ids.
        uid: Vec<IdRange>,
        /// Group ids.
        gid: Vec<IdRange>,
    },
}

/// `count` ids from `inside` are `outside` and following on the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IdRange {
    /// The first id inside.
    pub inside: u32,
    /// The first id on the host.
    pub outside: u32,
    /// How many; at least 1.
    pub count: u32,
}

impl Codec for Idmap {
    type Value = Self;

    fn read(json: &Json, at: &At) -> Result<Self> {
        let expected = "auto, host, keep-id, lines \"INSIDE OUTSIDE COUNT\", or an object with uid and gid";
        match json.as_str() {
            Some("auto") => Ok(Self::Auto),
            Some("host") => Ok(Self::Host),
            Some("keep-id") => Ok(Self::KeepId),
            _ => explicit(json, at, expected).map(|(uid, gid)| Self::Explicit { uid, gid }),
        }
    }

    fn write(value: &Self) -> Json {
        match value {
            Self::Auto => "auto".into(),
            Self::Host => "host".into(),
            Self::KeepId => "keep-id".into(),
            Self::Explicit { uid, gid } => write_sides(uid, gid),
        }
    }

    fn schema() -> Json {
        schema_of(&["auto", "host", "keep-id"])
    }
}

/// What the ids of a mount's file system are inside: `idmap` of an entry of `mounts`, and of `rootfs`.
///
/// Ids outside are those that the caller sees in the source, ids inside those that a process of the container sees. What a mount that
/// is idmapped already shows is mapped once more (Linux 6.15).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum MountIdmap {
    /// With the container's map: an id of the file system is the same number inside, as long as the container has it. Needs a caller with
    /// CAP_SYS_ADMIN of the machine, whose default it is.
    Container,
    /// Not idmapped: ids of the file system are ids of the host. Where the container has a user namespace, what belongs to ids that it has
    /// not is nobody's (65534) inside, and can be read and written only as others may. What ordinary callers have by default.
    Host,
    /// With these ranges, at most 340 of each, `inside` in the container and `outside` in the file system: with `0 1000 1`, what root
    /// inside makes belongs to uid 1000 in the file system, and what is uid 1000's there is root's inside. What belongs to other ids is
    /// nobody's inside, and other ids inside can make nothing there (EOVERFLOW).
    ///
    /// OCI's `uidMappings` of a mount say the same with ids of the host in the place of those inside, and the other way round: its
    /// `containerID` is the id in the file system, its `hostID` the id of the host that the id inside is. In a container whose idmap is
    /// `0 100000 65536` the example is `{"containerID": 1000, "hostID": 100000, "size": 1}`.
    Explicit {
        /// User ids.
        uid: Vec<IdRange>,
        /// Group ids.
        gid: Vec<IdRange>,
    },
}

impl Codec for MountIdmap {
    type Value = Self;

    fn read(json: &Json, at: &At) -> Result<Self> {
        let expected = "container, host, lines \"INSIDE OUTSIDE COUNT\", or an object with uid and gid";
        match json.as_str() {
            Some("container") => Ok(Self::Container),
            Some("host") => Ok(Self::Host),
            _ => explicit(json, at, expected).map(|(uid, gid)| Self::Explicit { uid, gid }),
        }
    }

    fn write(value: &Self) -> Json {
        match value {
            Self::Container => "container".into(),
            Self::Host => "host".into(),
            Self::Explicit { uid, gid } => write_sides(uid, gid),
        }
    }

    fn schema() -> Json {
        schema_of(&["container", "host"])
    }
}

fn is_ranges(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_digit() || c.is_ascii_whitespace())
}

/// Ranges for both kinds of ids, or for each.
fn explicit(json: &Json, at: &At, expected: &'static str) -> Result<(Vec<IdRange>, Vec<IdRange>)> {
    match json {
        Json::String(text) if is_ranges(text) => ranges(json, at).map(|both| (both.clone(), both)),
        Json::Object(_) => sides(json, at, expected),
        _ => Err(wrong_type(at, expected, json)),
    }
}

/// `uid` and `gid` of an object.
fn sides(json: &Json, at: &At, expected: &'static str) -> Result<(Vec<IdRange>, Vec<IdRange>)> {
    let members = json::members(json, at, expected, &["uid", "gid"])?;
    let side = |key| json::member(members, key).map(|json| ranges(json, &at.key(key))).transpose();
    match (side("uid")?, side("gid")?) {
        (Some(uid), Some(gid)) => Ok((uid, gid)),
        (Some(_), None) => Err(at.error("has uid but no gid")),
        (None, _) => Err(at.error("has no uid")),
    }
}

fn write_sides(uid: &[IdRange], gid: &[IdRange]) -> Json {
    let side = |ranges: &[IdRange]| {
        ranges.iter().map(|range| json!([range.inside, range.outside, range.count])).collect::<Json>()
    };
    json!({"uid": side(uid), "gid": side(gid)})
}

fn schema_of(words: &[&str]) -> Json {
    let id = json!({"type": "integer", "minimum": 0, "maximum": super::MAX_ID});
    let line = json!({"type": "string", "description": "INSIDE OUTSIDE COUNT"});
    let range = json!({"anyOf": [line, {"type": "array", "items": id, "minItems": 3, "maxItems": 3}]});
    let side = json!({"anyOf": [line, {"type": "array", "items": range, "minItems": 1, "maxItems": 340}]});
    json!({"anyOf": [
        {"enum": words},
        {"type": "string", "pattern": "^\\s*[0-9]", "description": "lines INSIDE OUTSIDE COUNT for uids and gids"},
        {"type": "object", "additionalProperties": false, "required": ["uid", "gid"],
            "properties": {"uid": side, "gid": side}},
    ]})
}

/// `[[inside, outside, count], ...]`, lines, or a list of lines.
fn ranges(json: &Json, at: &At) -> Result<Vec<IdRange>> {
    match json {
        Json::String(text) => {
            let lines = text.lines().filter(|line| !line.trim().is_empty());
            lines.enumerate().map(|(i, text)| line(text, &at.index(i))).collect()
        }
        Json::Array(items) => items.iter().enumerate().map(|(i, item)| range(item, &at.index(i))).collect(),
        _ => Err(wrong_type(at, "lines \"INSIDE OUTSIDE COUNT\" or a list of [inside, outside, count]", json)),
    }
}

fn line(text: &str, at: &At) -> Result<IdRange> {
    let number = |text: &str| match text.parse::<u32>() {
        Ok(number) if text.bytes().all(|b| b.is_ascii_digit()) => Some(number),
        _ => None,
    };
    let numbers: Option<Vec<u32>> = text.split_ascii_whitespace().map(number).collect();
    match numbers.as_deref() {
        Some(&[inside, outside, count]) => Ok(IdRange { inside, outside, count }),
        _ => Err(at.error(format!("{text:?} is not three numbers \"INSIDE OUTSIDE COUNT\" of 32 bits"))),
    }
}

fn range(json: &Json, at: &At) -> Result<IdRange> {
    if let Json::String(text) = json {
        return line(text, at);
    }
    let numbers: Option<Vec<u32>> = json
        .as_array()
        .and_then(|items| items.iter().map(|item| json::integer(item).and_then(|n| u32::try_from(n).ok())).collect());
    match numbers.as_deref() {
        Some(&[inside, outside, count]) => Ok(IdRange { inside, outside, count }),
        _ => Err(wrong_type(at, "[inside, outside, count] of 32 bits each", json)),
    }
}
