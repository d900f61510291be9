//! Limits of single processes.

use super::at::At;
use super::codec::{Codec, Size};
use super::json::{self, Json, json, wrong_type};
use crate::error::Result;

/// The resources of getrlimit(2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Resource {
    /// Bytes of address space.
    As,
    /// Bytes of a core file.
    Core,
    /// Seconds of processor time.
    Cpu,
    /// Bytes of data segment.
    Data,
    /// Bytes of a file that is written.
    Fsize,
    /// File locks; without effect since Linux 2.4.25.
    Locks,
    /// Bytes locked into memory.
    Memlock,
    /// Bytes in POSIX message queues, of the real user id.
    Msgqueue,
    /// Ceiling of the nice value: 20 - limit.
    Nice,
    /// One more than the highest descriptor number.
    Nofile,
    /// Processes and threads of the real user id.
    Nproc,
    /// Resident bytes; without effect since Linux 2.4.30.
    Rss,
    /// Ceiling of the real-time priority.
    Rtprio,
    /// Microseconds of real-time processor time between blocking calls.
    Rttime,
    /// Queued signals of the real user id.
    Sigpending,
    /// Bytes of the stack.
    Stack,
}

impl Resource {
    /// All of them, by name.
    pub const ALL: [Self; 16] = [
        Self::As,
        Self::Core,
        Self::Cpu,
        Self::Data,
        Self::Fsize,
        Self::Locks,
        Self::Memlock,
        Self::Msgqueue,
        Self::Nice,
        Self::Nofile,
        Self::Nproc,
        Self::Rss,
        Self::Rtprio,
        Self::Rttime,
        Self::Sigpending,
        Self::Stack,
    ];

    /// The name: that of the kernel's constant without RLIMIT_, in lower case.
    pub fn name(self) -> &'static str {
        match self {
            Self::As => "as",
            Self::Core => "core",
            Self::Cpu => "cpu",
            Self::Data => "data",
            Self::Fsize => "fsize",
            Self::Locks => "locks",
            Self::Memlock => "memlock",
            Self::Msgqueue => "msgqueue",
            Self::Nice => "nice",
            Self::Nofile => "nofile",
            Self::Nproc => "nproc",
            Self::Rss => "rss",
            Self::Rtprio => "rtprio",
            Self::Rttime => "rttime",
            Self::Sigpending => "sigpending",
            Self::Stack => "stack",
        }
    }

    /// The resource of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|resource| resource.name() == name)
    }

    /// The kernel's number, the same on every architecture but alpha, mips and sparc.
    pub fn number(self) -> u32 {
        match self {
            Self::Cpu => libc::RLIMIT_CPU,
            Self::Fsize => libc::RLIMIT_FSIZE,
            Self::Data => libc::RLIMIT_DATA,
            Self::Stack => libc::RLIMIT_STACK,
            Self::Core => libc::RLIMIT_CORE,
            Self::Rss => libc::RLIMIT_RSS,
            Self::Nproc => libc::RLIMIT_NPROC,
            Self::Nofile => libc::RLIMIT_NOFILE,
            Self::Memlock => libc::RLIMIT_MEMLOCK,
            Self::As => libc::RLIMIT_AS,
            Self::Locks => libc::RLIMIT_LOCKS,
            Self::Sigpending => libc::RLIMIT_SIGPENDING,
            Self::Msgqueue => libc::RLIMIT_MSGQUEUE,
            Self::Nice => libc::RLIMIT_NICE,
            Self::Rtprio => libc::RLIMIT_RTPRIO,
            Self::Rttime => libc::RLIMIT_RTTIME,
        }
    }
}

/// `u64::MAX` is unlimited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rlimit {
    /// What the kernel enforces.
    pub soft: u64,
    /// Up to where the payload may raise the soft limit.
    pub hard: u64,
}

impl Rlimit {
    /// No limit.
    pub const UNLIMITED: u64 = u64::MAX;
}

/// Both limits.
impl From<u64> for Rlimit {
    fn from(limit: u64) -> Self {
        Self { soft: limit, hard: limit }
    }
}

impl Codec for Rlimit {
    type Value = Self;

    fn read(json: &Json, at: &At) -> Result<Self> {
        match json {
            Json::Array(pair) => match pair.as_slice() {
                [soft, hard] => Ok(Self { soft: limit(soft, &at.index(0))?, hard: limit(hard, &at.index(1))? }),
                _ => Err(at.error(format!("expected [soft, hard], got a list of {}", pair.len()))),
            },
            Json::Object(_) => {
                let members = json::members(json, at, "", &["soft", "hard"])?;
                match (json::member(members, "soft"), json::member(members, "hard")) {
                    (Some(soft), Some(hard)) => {
                        Ok(Self { soft: limit(soft, &at.key("soft"))?, hard: limit(hard, &at.key("hard"))? })
                    }
                    _ => Err(at.error("needs both soft and hard")),
                }
            }
            Json::String(text) => match text.split_once(':') {
                Some((soft, hard)) => Ok(Self { soft: limit(&soft.into(), at)?, hard: limit(&hard.into(), at)? }),
                None => limit(json, at).map(Self::from),
            },
            _ => limit(json, at).map(Self::from),
        }
    }

    fn write(value: &Self) -> Json {
        let limit = |limit: u64| if limit == Self::UNLIMITED { "unlimited".into() } else { Json::from(limit) };
        if value.soft == value.hard { limit(value.soft) } else { json!([limit(value.soft), limit(value.hard)]) }
    }

    fn schema() -> Json {
        let limit = json!({"anyOf": [{"$ref": "#/$defs/size"}, {"const": "unlimited"}]});
        json!({"anyOf": [
            limit,
            {"type": "string", "pattern": "^[^:]+:[^:]+$", "description": "SOFT:HARD"},
            {"type": "array", "items": limit, "minItems": 2, "maxItems": 2},
            {"type": "object", "additionalProperties": false, "required": ["soft", "hard"],
                "properties": {"soft": limit, "hard": limit}},
        ]})
    }
}

fn limit(json: &Json, at: &At) -> Result<u64> {
    match json {
        Json::String(text) if text == "unlimited" => Ok(Rlimit::UNLIMITED),
        Json::Number(_) | Json::String(_) => Size::read(json, at),
        _ => Err(wrong_type(at, "a number, \"unlimited\" or [soft, hard]", json)),
    }
}
