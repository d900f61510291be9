//! Namespaces: kinds and where they come from.

use std::ffi::OsStr;
use std::os::fd::RawFd;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use super::at::At;
use super::codec::{Codec, Count, FilePath, Text};
use super::json::{self, Json, json, wrong_type};
use crate::error::{Error, ErrorKind, Result};

/// The kinds of namespaces(7).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum NamespaceKind {
    /// Mounts: mount_namespaces(7).
    Mnt,
    /// Process ids: pid_namespaces(7).
    Pid,
    /// Network devices, addresses, ports: network_namespaces(7).
    Net,
    /// System V IPC and POSIX message queues: ipc_namespaces(7).
    Ipc,
    /// Host and domain name: uts_namespaces(7).
    Uts,
    /// Users, groups, capabilities: user_namespaces(7).
    User,
    /// The root of the visible control groups: cgroup_namespaces(7).
    Cgroup,
    /// Offsets of the monotonic and boot-time clocks: time_namespaces(7).
    Time,
}

impl NamespaceKind {
    /// All of them, in the order in which they are shown.
    pub const ALL: [Self; 8] =
        [Self::Mnt, Self::Pid, Self::Net, Self::Ipc, Self::Uts, Self::User, Self::Cgroup, Self::Time];

    /// The name, which is that of the file in /proc/PID/ns.
    pub fn name(self) -> &'static str {
        match self {
            Self::Mnt => "mnt",
            Self::Pid => "pid",
            Self::Net => "net",
            Self::Ipc => "ipc",
            Self::Uts => "uts",
            Self::User => "user",
            Self::Cgroup => "cgroup",
            Self::Time => "time",
        }
    }

    /// The kind of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }

    /// [`from_name`](Self::from_name) for an argument of a call.
    ///
    /// # Errors
    /// InvalidArgument with field `kind`.
    pub fn parse(name: &str) -> Result<Self> {
        Self::from_name(name).ok_or_else(|| {
            Error::new(ErrorKind::InvalidArgument, format!("there is no kind of namespace {name:?}"))
                .with_field("kind")
                .with_errno(libc::EINVAL)
                .with_hint("the kinds are mnt, pid, net, ipc, uts, user, cgroup and time")
        })
    }

    /// The kinds of those names.
    ///
    /// # Errors
    /// InvalidArgument with field `kinds`.
    pub fn from_names<'a>(names: impl IntoIterator<Item = &'a str>) -> Result<Vec<Self>> {
        names.into_iter().map(|name| Self::parse(name).map_err(|e| e.with_field("kinds"))).collect()
    }
}

/// Where a namespace comes from. As text: `new`, `host`, an absolute path, `fd:N`, `pid:N`, `container:NAME`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NamespaceSource {
    /// Made for the container.
    New,
    /// The caller's own.
    Host,
    /// A namespace file, like /run/netns/blue or /proc/PID/ns/net.
    Path(PathBuf),
    /// A namespace descriptor or a pidfd.
    Fd(RawFd),
    /// The namespace of a process, seen from the caller's pid namespace.
    Pid(i32),
    /// The namespace of another container, by name.
    Container(String),
}

impl NamespaceSource {
    /// From the text that a spec has, for an argument of a call.
    ///
    /// # Errors
    /// InvalidArgument (`source`).
    pub fn parse(text: &OsStr) -> Result<Self> {
        let at = At::Field("source");
        let read = Self::text(text.as_bytes(), &at).and_then(|json| Self::read(&json, &at));
        read.map_err(|e| e.with_kind(ErrorKind::InvalidArgument))
    }
}

impl Codec for NamespaceSource {
    type Value = Self;

    fn read(json: &Json, at: &At) -> Result<Self> {
        let expected = "new, host, an absolute path, fd:N, pid:N, container:NAME, or an object with one of them";
        let number = |json: &Json, at: &At| {
            let number = Count::read(json, at)?;
            i32::try_from(number).map_err(|_| at.error(format!("{number} is too large")))
        };
        let Some(text) = json::bytes(json, at)? else {
            let members = json::members(json, at, expected, &["path", "fd", "pid", "container"])?;
            let mut given = members.iter().filter(|(_, json)| !json.is_null());
            return match (given.next(), given.next()) {
                (Some((key, json)), None) => {
                    let at = at.key(key);
                    match key.as_str() {
                        "path" => FilePath::read(json, &at).map(Self::Path),
                        "fd" => number(json, &at).map(Self::Fd),
                        "pid" => number(json, &at).map(Self::Pid),
                        _ => Text::read(json, &at).map(Self::Container),
                    }
                }
                _ => Err(wrong_type(at, expected, json)),
            };
        };
        let words = text.to_string_lossy();
        match words.split_once(':') {
            _ if words == "new" => Ok(Self::New),
            _ if words == "host" => Ok(Self::Host),
            _ if text.as_bytes().starts_with(b"/") => Ok(Self::Path(text.into())),
            Some(("fd", n)) => number(&Count::text(n.as_bytes(), at)?, at).map(Self::Fd),
            Some(("pid", n)) => number(&Count::text(n.as_bytes(), at)?, at).map(Self::Pid),
            Some(("container", name)) => Ok(Self::Container(name.to_owned())),
            _ => Err(wrong_type(at, expected, json)),
        }
    }

    fn write(value: &Self) -> Json {
        match value {
            Self::New => "new".into(),
            Self::Host => "host".into(),
            // As text a relative path would be taken for a word.
            Self::Path(path) if path.is_relative() => json!({"path": FilePath::write(path)}),
            Self::Path(path) => FilePath::write(path),
            Self::Fd(fd) => json!({"fd": fd}),
            Self::Pid(pid) => json!({"pid": pid}),
            Self::Container(name) => json!({"container": name}),
        }
    }

    fn schema() -> Json {
        let number = |min: i32| json!({"type": "integer", "minimum": min});
        let object = |key: &str, value: Json| json!({"type": "object", "additionalProperties": false, "required": [key], "properties": {key: value}});
        json!({"anyOf": [
            {"enum": ["new", "host"]},
            {"type": "string", "pattern": "^(/.*|fd:[0-9]+|pid:[0-9]+|container:.+)$"},
            {"$ref": "#/$defs/bytes"},
            object("path", json!({"$ref": "#/$defs/path"})),
            object("fd", number(0)),
            object("pid", number(1)),
            object("container", json!({"type": "string"})),
        ]})
    }
}
