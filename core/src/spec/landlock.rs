//! What the payload's programs may reach, whoever they run as: rules of Landlock.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::at::At;
use super::codec::Codec;
use super::json::{self, Json, json, wrong_type};
use super::shape::{Map, Shape};
use super::suggest;
use crate::error::Result;

/// Rules of the kernel's Landlock: the program, and all that it starts, reach no files, TCP ports and processes but those that are
/// allowed here, as root too, and nothing takes the rules away again. See the page [`confinement`](crate::confinement).
///
/// What is empty restricts nothing: with no path, files are as they are without Landlock. With one, everything is denied that no
/// rule allows, also to execute the program and to read its libraries.
///
/// In JSON: `{"paths": {"/usr": "read,execute", "/tmp": ["read", "write", "create", "remove"]}, "bind": [8080], "connect": [],
/// "scopes": ["signal"]}`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Landlock {
    /// What is allowed below which path inside: bits of linux/landlock.h, LANDLOCK_ACCESS_FS_*; [`Landlock::access`] has them by
    /// name. Paths are absolute and have to be there when the program starts; links are followed as inside, and the rule is for
    /// what is there then. Of several rules on the way to a file, all count together.
    ///
    /// Beside the kernel's names in lower case (`read_file`, `make_dir`, `refer`, ...) there are words:
    ///
    /// | word | rights of the kernel |
    /// |---|---|
    /// | `read` | `read_file`, `read_dir` |
    /// | `execute` | `execute` |
    /// | `write` | `write_file`, `truncate` |
    /// | `create` | `make_dir`, `make_reg`, `make_sym`, `make_fifo`, `make_sock` |
    /// | `remove` | `remove_file`, `remove_dir` |
    /// | `all` | all of them: also `make_char`, `make_block`, `refer` (link and rename between directories), `ioctl_dev` |
    pub paths: BTreeMap<PathBuf, u64>,
    /// TCP ports that sockets may be bound to; 0 stands for one that the kernel chooses. `None`: all. An empty list: none. The kernel
    /// does not ask about listen(2) on a socket without an address, which gets a port of the kernel's choice.
    ///
    /// With rules about ports, the filter of system calls (with `seccomp: none` one that does nothing else) refuses what they
    /// do not see: sockets of MPTCP and SMC, MSG_FASTOPEN, and io_uring.
    pub bind: Option<Vec<u16>>,
    /// TCP ports that may be connected to, at any address. `None`: all. An empty list: none.
    pub connect: Option<Vec<u16>>,
    /// What only processes under the same rules can be reached by: bits of LANDLOCK_SCOPE_*. `abstract_unix_socket`: sockets with
    /// abstract names are connected to only where such a process made them. `signal`: signals are sent to such processes only.
    pub scopes: u64,
    /// The version of Landlock's interface whose rights are meant, where it is not the newest that these rules can use. On an older
    /// kernel this leaves what it does not know allowed, in so many words: 3 has no TCP ports and no `ioctl_dev`, 1 no `refer`
    /// (denied always) and no `truncate` (allowed always).
    pub abi: Option<u32>,
}

/// LANDLOCK_ACCESS_FS_*, by bit, with the version of the interface that brought it.
const ACCESS: [(&str, u32); 16] = [
    ("execute", 1),
    ("write_file", 1),
    ("read_file", 1),
    ("read_dir", 1),
    ("remove_dir", 1),
    ("remove_file", 1),
    ("make_char", 1),
    ("make_dir", 1),
    ("make_reg", 1),
    ("make_sock", 1),
    ("make_fifo", 1),
    ("make_block", 1),
    ("make_sym", 1),
    ("refer", 2),
    ("truncate", 3),
    ("ioctl_dev", 5),
];

const WORDS: [(&str, u64); 5] = [
    ("read", Landlock::READ),
    ("write", Landlock::WRITE),
    ("create", Landlock::CREATE),
    ("remove", Landlock::REMOVE),
    ("all", Landlock::ALL),
];

/// LANDLOCK_SCOPE_*, by bit.
const SCOPES: [&str; 2] = ["abstract_unix_socket", "signal"];

/// The version that brought TCP ports, and the one that brought scopes.
const ABI_TCP: u32 = 4;
const ABI_SCOPES: u32 = 6;

/// Each rule is an operation of the start, and time at each access.
const MOST_RULES: usize = 1024;

impl Landlock {
    pub const EXECUTE: u64 = 1;
    /// `read`.
    pub const READ: u64 = 1 << 2 | 1 << 3;
    /// `write`.
    pub const WRITE: u64 = 1 << 1 | 1 << 14;
    /// `create`.
    pub const CREATE: u64 = 1 << 7 | 1 << 8 | 1 << 9 | 1 << 10 | 1 << 12;
    /// `remove`.
    pub const REMOVE: u64 = 1 << 4 | 1 << 5;
    /// `all`.
    pub const ALL: u64 = (1 << ACCESS.len()) - 1;
    /// LANDLOCK_SCOPE_ABSTRACT_UNIX_SOCKET.
    pub const ABSTRACT_UNIX_SOCKET: u64 = 1;
    /// LANDLOCK_SCOPE_SIGNAL.
    pub const SIGNAL: u64 = 2;

    /// Rights that a file can have that is no directory.
    pub(crate) const OF_FILES: u64 = Self::EXECUTE | Self::WRITE | 1 << 2 | 1 << 15;

    /// The rights of a word, or of one of the kernel's names.
    pub fn access(name: &str) -> Option<u64> {
        let of_word = WORDS.iter().find(|(word, _)| *word == name).map(|(_, bits)| *bits);
        of_word.or_else(|| ACCESS.iter().position(|(known, _)| *known == name).map(|bit| 1 << bit))
    }

    /// There are rules about TCP ports.
    pub(crate) fn has_ports(&self) -> bool {
        self.bind.is_some() || self.connect.is_some()
    }

    /// Nothing is restricted.
    pub fn is_empty(&self) -> bool {
        self.paths.is_empty() && self.bind.is_none() && self.connect.is_none() && self.scopes == 0
    }

    /// The rights that the rules of paths are about: all that the version has.
    pub(crate) fn handled(&self) -> u64 {
        if self.paths.is_empty() {
            return 0;
        }
        let abi = self.abi.unwrap_or(u32::MAX);
        ACCESS.iter().enumerate().filter(|(_, (_, since))| *since <= abi).fold(0, |all, (bit, _)| all | 1 << bit)
    }

    /// The version of the interface that it takes, and what for.
    pub(crate) fn needs(&self) -> (u32, &'static str) {
        let of_paths = ACCESS.iter().enumerate().filter(|(bit, _)| self.handled() & (1 << bit) != 0);
        let tcp = if self.bind.is_some() { "bind" } else { "connect" };
        let of_tcp = self.has_ports().then_some((ABI_TCP, tcp));
        let of_scopes = (self.scopes != 0).then_some((ABI_SCOPES, "scopes"));
        let of_paths = of_paths.map(|(_, (_, since))| (*since, "paths"));
        of_paths.chain(of_tcp).chain(of_scopes).max_by_key(|(since, _)| *since).unwrap_or((0, ""))
    }

    pub(super) fn validate(&self) -> Result<()> {
        let at = At::Field("landlock");
        if let Some(abi) = self.abi
            && !(1..=100).contains(&abi)
        {
            return Err(at
                .key("abi")
                .error(format!("{abi} is not a version of Landlock's interface; they begin with 1")));
        }
        let list = at.key("paths");
        for (path, access) in &self.paths {
            let shown = path.to_string_lossy();
            let at = list.key(&shown);
            super::validate::absolute(&at, path)?;
            if *access == 0 || *access & !Self::ALL != 0 {
                return Err(at.error(format!("0x{access:x} is not a set of rights")));
            }
            // A word goes as far as the version does; what is named itself has to be in it.
            let of_words = if *access & 1 << 1 != 0 { Self::WRITE } else { 0 };
            let newer = *access & !self.handled() & !of_words;
            if newer != 0 && *access != Self::ALL {
                let names: Vec<_> = names(newer).collect();
                return Err(at.error(format!("{} is newer than abi {}", names.join(", "), self.abi.unwrap_or(0))));
            }
        }
        for (key, ports) in [("bind", &self.bind), ("connect", &self.connect)] {
            let ports = ports.as_deref().unwrap_or_default();
            if ports.len() > MOST_RULES {
                return Err(at.key(key).error(format!("{} ports; at most {MOST_RULES}", ports.len())));
            }
        }
        if let Some(i) = self.connect.iter().flatten().position(|&port| port == 0) {
            return Err(at.key("connect").index(i).error("0 is no port that one can connect to"));
        }
        if self.paths.len() > MOST_RULES {
            return Err(list.error(format!("{} paths; at most {MOST_RULES}", self.paths.len())));
        }
        if self.scopes >> SCOPES.len() != 0 {
            return Err(at.key("scopes").error(format!("0x{:x} has bits that are none", self.scopes)));
        }
        if let Some(abi) = self.abi {
            let (needed, what) = self.needs();
            if needed > abi {
                return Err(at.key(what).error(format!("is of version {needed}, and abi is {abi}")));
            }
        }
        Ok(())
    }
}

/// The kernel's names of rights.
fn names(access: u64) -> impl Iterator<Item = &'static str> {
    ACCESS.iter().enumerate().filter(move |(bit, _)| access & (1 << bit) != 0).map(|(_, (name, _))| *name)
}

/// The rights of one path.
struct Access;

impl Access {
    fn word(name: &str, at: &At) -> Result<u64> {
        let words = || WORDS.iter().map(|(word, _)| *word).chain(ACCESS.iter().map(|(name, _)| *name));
        Landlock::access(name).ok_or_else(|| {
            let error =
                at.error(format!("{name:?} is not a right; known are {}", words().collect::<Vec<_>>().join(", ")));
            match suggest::nearest(name, words()) {
                Some(near) => error.with_hint(format!("did you mean {near:?}?")),
                None => error,
            }
        })
    }
}

impl Codec for Access {
    type Value = u64;

    fn read(json: &Json, at: &At) -> Result<u64> {
        match json {
            Json::String(text) => text.split(',').try_fold(0, |all, name| Ok(all | Self::word(name.trim(), at)?)),
            Json::Array(items) => items.iter().enumerate().try_fold(0, |all, (i, item)| {
                let at = at.index(i);
                let Json::String(name) = item else { return Err(wrong_type(&at, "the name of a right", item)) };
                Ok(all | Self::word(name, &at)?)
            }),
            _ => Err(wrong_type(at, "a list of rights", json)),
        }
    }

    fn write(value: &u64) -> Json {
        if *value == Landlock::ALL {
            return "all".into();
        }
        // Words where all of one is there, and the kernel's names for the rest.
        let mut rest = *value;
        let mut list: Vec<Json> = Vec::new();
        for (word, bits) in WORDS.iter().filter(|(word, _)| *word != "all") {
            if *value & bits == *bits {
                list.push((*word).into());
                rest &= !bits;
            }
        }
        list.extend(names(rest).map(Json::from));
        list.extend((ACCESS.len() as u32..64).filter(|bit| rest & 1 << bit != 0).map(Json::from));
        list.into()
    }

    fn schema() -> Json {
        let words: Vec<&str> =
            WORDS.iter().map(|(word, _)| *word).chain(ACCESS.iter().map(|(name, _)| *name)).collect();
        json!({"anyOf": [
            {"type": "array", "items": {"enum": words}},
            {"type": "string", "description": "rights, with commas between them"},
        ]})
    }
}

const FORMS: &str = "an object with paths, bind, connect, scopes and abi";

fn ports(json: &Json, at: &At) -> Result<Vec<u16>> {
    let Json::Array(items) = json else { return Err(wrong_type(at, "a list of ports", json)) };
    let port = |(i, item): (usize, &Json)| {
        let at = at.index(i);
        match json::integer(item) {
            Some(number) => u16::try_from(number).map_err(|_| at.error(format!("{number} is not a port: 0 to 65535"))),
            None => Err(wrong_type(&at, "a port", item)),
        }
    };
    items.iter().enumerate().map(port).collect()
}

impl Codec for Landlock {
    type Value = Self;

    fn read(json: &Json, at: &At) -> Result<Self> {
        let members = json::members(json, at, FORMS, &["paths", "bind", "connect", "scopes", "abi"])?;
        let mut rules = Self::default();
        if let Some(json) = json::member(members, "paths") {
            let at = at.key("paths");
            Map::<PathBuf, Access>::merge(&mut rules.paths, json, &at)?;
            // A list that was computed, and came out empty, is not to open everything.
            if rules.paths.is_empty() {
                let error = at.error("is empty, and the kernel has no rules without any path");
                return Err(error.with_hint("leave it out to restrict no files; {\"/\": \"execute\"} allows little"));
            }
        }
        let list = |key| json::member(members, key).map(|json| ports(json, &at.key(key))).transpose();
        rules.bind = list("bind")?;
        rules.connect = list("connect")?;
        if let Some(json) = json::member(members, "scopes") {
            let at = at.key("scopes");
            let Json::Array(items) = json else { return Err(wrong_type(&at, "a list of scopes", json)) };
            for (i, item) in items.iter().enumerate() {
                let at = at.index(i);
                let Json::String(name) = item else { return Err(wrong_type(&at, "the name of a scope", item)) };
                match SCOPES.iter().position(|known| known == name) {
                    Some(bit) => rules.scopes |= 1 << bit,
                    None => return Err(at.error(format!("{name:?} is not a scope; known are {}", SCOPES.join(", ")))),
                }
            }
        }
        if let Some(json) = json::member(members, "abi") {
            let at = at.key("abi");
            let number = json::integer(json).ok_or_else(|| wrong_type(&at, "a whole number", json))?;
            rules.abi = Some(number.try_into().map_err(|_| at.error(format!("{number} is out of range")))?);
        }
        Ok(rules)
    }

    fn write(value: &Self) -> Json {
        let mut members = json::Members::new();
        if let Some(paths) = Map::<PathBuf, Access>::write(&value.paths) {
            members.insert("paths".into(), paths);
        }
        for (key, ports) in [("bind", &value.bind), ("connect", &value.connect)] {
            if let Some(ports) = ports {
                members.insert(key.into(), ports.iter().copied().map(Json::from).collect());
            }
        }
        if value.scopes != 0 {
            let name = |bit: u32| SCOPES.get(bit as usize).map_or(json!(bit), |&name| name.into());
            let list: Json = (0..64).filter(|bit| value.scopes & 1 << bit != 0).map(name).collect();
            members.insert("scopes".into(), list);
        }
        if let Some(abi) = value.abi {
            members.insert("abi".into(), abi.into());
        }
        Json::Object(members)
    }

    fn schema() -> Json {
        let ports = json!({"type": "array", "items": {"type": "integer", "minimum": 0, "maximum": 65535}});
        json!({"type": "object", "additionalProperties": false, "properties": {
            "paths": Map::<PathBuf, Access>::schema(),
            "bind": ports,
            "connect": ports,
            "scopes": {"type": "array", "items": {"enum": &SCOPES[..]}},
            "abi": {"type": "integer", "minimum": 1, "maximum": 100},
        }})
    }
}
