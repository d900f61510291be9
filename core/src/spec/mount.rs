//! Entries of `mounts`.

use std::ffi::{OsStr, OsString};
use std::os::fd::RawFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

use super::at::At;
use super::codec::{Bool, Bytes, Codec, Count, FilePath, Mode, Size};
use super::idmap::MountIdmap;
use super::json::{self, Json, json, wrong_type};
use super::shape::{List, Shape};
use crate::error::Result;
use crate::volume::check_name;

/// One entry of `mounts`.
///
/// As text, `source[:target][:rw]`: a bind mount of an absolute path of the host, recursive, at the same path when no target
/// is given, read-only unless `rw` stands at the end. Paths with colons need an object. `name:target[:ro]`, without a slash in the
/// name: a volume, writable unless `ro` stands at the end. In place of `rw` or `ro`, or after it and a comma: `owner=payload`,
/// `idmap=container` or `idmap=host`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// What is mounted.
    pub kind: MountKind,
    /// The absolute path inside; missing directories are made. Empty only in what text that could not be understood
    /// became, which no container is started with.
    pub target: PathBuf,
    /// Default: true for binds, sysfs and cgroup, false for the rest. What `register` has is written before.
    /// It does not hold for processes with CAP_SYS_ADMIN in the container, which can mount it again.
    pub readonly: bool,
    /// Of binds and volumes: whose inside is what belongs to the owner of the source. Default: see [`MountOwner`].
    pub owner: Option<MountOwner>,
    /// Of binds and volumes: what the ids of the file system are inside. Default: that of the container for callers with CAP_SYS_ADMIN of the
    /// machine, of the host for others. Excludes `owner`. Fixed at the start. Source: mount_setattr(2).
    ///
    /// # Errors
    /// At the start, with field `mounts[i].idmap` (`mounts[i]` by default): Unsupported with EINVAL for a file system that cannot be
    /// idmapped, which is named, and with EPERM for a mount that is idmapped already on a kernel before 6.15; PermissionDenied with EPERM
    /// for an ordinary caller, and with EINVAL for ids that the container has not.
    pub idmap: Option<MountIdmap>,
    /// Of recursive binds: whether what is mounted below the source is mapped, too, as OCI's `ridmap`; otherwise (OCI's `idmap`) its ids
    /// stay as they are. Default: true.
    pub idmap_recursive: bool,
}

/// `owner` of a mount: whose inside is what belongs to the owner of the source.
///
/// Without it, an id of the file system is the same number inside for root callers, as long as the container's `idmap` has it (the
/// mount is idmapped), and what `idmap` says for ordinary callers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum MountOwner {
    /// The main process, or whoever `user` says that it would be; commands in a running container have a `user` of their own. What it writes belongs outside to the source's owner and group (of a volume: the caller), and
    /// what is theirs outside belongs to its uid and gid inside.
    ///
    /// For root callers the mount is idmapped for that. The owner's number and the payload's change places: what has the payload's number
    /// in the file system has the owner's inside (nobody's, 65534, where the container has no such id), and the other way round. But where
    /// the payload is root inside, what belongs to the file system's root is nobody's, and the owner's number can make nothing
    /// there (EOVERFLOW): no other user inside makes files of the host's root. All other ids are as without it; groups likewise. The
    /// owner is looked at when the container starts.
    ///
    /// An ordinary caller's mounts cannot be idmapped. It is so already where the payload's uid is the owner's outside: root inside
    /// and, with `idmap: keep-id`, the caller's own id, in directories of the caller. Its group is then the payload's, whatever the
    /// source's. Anything else is an error.
    ///
    /// # Errors
    /// At the start, with field `mounts[i].owner`: PermissionDenied with EPERM for an ordinary caller whose payload is another than the
    /// owner; Unsupported for a file system without idmapped mounts, for a mount that is idmapped already, and with a user namespace
    /// that is joined. Sources: mount_setattr(2), user_namespaces(7).
    Payload,
}

/// What is mounted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MountKind {
    /// A directory or file of the host.
    Bind {
        /// Which.
        source: BindSource,
        /// Whether what is mounted below the source comes along. Default: true.
        recursive: bool,
    },
    /// An empty file system in memory (tmpfs(5)).
    Tmpfs {
        /// Bytes, 4096 and more; `None` is half of the machine's memory, which is the kernel's default. It counts as memory
        /// of the container.
        size: Option<u64>,
        /// The mode of its root directory; `None` is 0o1777.
        mode: Option<u32>,
    },
    /// A directory of the library's, made at its first use: see [`volumes`](crate::volumes). It belongs to the caller, who is root
    /// inside.
    Volume {
        /// The one that has this name, and stays; `None`: a new one that goes with the container. Letters, digits, `_`, `-` and `.`,
        /// at most 128.
        name: Option<String>,
    },
    /// A fresh view of the container's processes (proc(5)).
    Proc,
    /// A fresh view of devices and of the network namespace (sysfs(5)).
    Sysfs,
    /// POSIX message queues of the IPC namespace (mq_overview(7)).
    Mqueue,
    /// A new instance of pseudoterminals (devpts(5)).
    Devpts,
    /// The container's own control groups (cgroup_namespaces(7)). With `namespaces: {cgroup: host}` it is the host's tree, for
    /// root without a user namespace.
    Cgroup,
    /// The container's own interpreters of binary formats: what is registered in it holds for programs that its processes
    /// execute and is seen nowhere else (the kernel's admin-guide/binfmt-misc; Linux 6.7). Without one, those of the machine
    /// hold. Needs a user namespace of its own.
    BinfmtMisc {
        /// What is registered at the start, in this order: lines `:name:type:offset:magic:mask:interpreter:flags` as of
        /// binfmt.d(5). The interpreter is a path inside.
        register: Vec<OsString>,
    },
}

/// What a bind mount shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BindSource {
    /// An absolute path of the host.
    Path(PathBuf),
    /// An open descriptor of the caller (directory or file, O_PATH is enough).
    Fd(RawFd),
}

impl Mount {
    /// A read-only recursive bind mount of a path of the host.
    pub fn bind(source: impl Into<PathBuf>, target: impl Into<PathBuf>) -> Self {
        let kind = MountKind::Bind { source: BindSource::Path(source.into()), recursive: true };
        Self { kind, target: target.into(), readonly: true, owner: None, idmap: None, idmap_recursive: true }
    }

    /// A volume: a named one that stays, or one that goes with the container.
    pub fn volume(name: Option<&str>, target: impl Into<PathBuf>) -> Self {
        let kind = MountKind::Volume { name: name.map(str::to_owned) };
        Self { kind, target: target.into(), readonly: false, owner: None, idmap: None, idmap_recursive: true }
    }

    /// A writable tmpfs without a size of its own.
    pub fn tmpfs(target: impl Into<PathBuf>) -> Self {
        let kind = MountKind::Tmpfs { size: None, mode: None };
        Self { kind, target: target.into(), readonly: false, owner: None, idmap: None, idmap_recursive: true }
    }

    /// The container's own interpreters of binary formats, at the customary place.
    pub fn binfmt_misc<I: IntoIterator<Item = L>, L: Into<OsString>>(register: I) -> Self {
        let register = register.into_iter().map(Into::into).collect();
        let kind = MountKind::BinfmtMisc { register };
        Self {
            kind,
            target: Self::BINFMT_MISC.into(),
            readonly: false,
            owner: None,
            idmap: None,
            idmap_recursive: true,
        }
    }

    /// Where a binfmt_misc is unless its entry says otherwise.
    pub const BINFMT_MISC: &str = "/proc/sys/fs/binfmt_misc";

    /// The same, writable.
    pub fn rw(mut self) -> Self {
        self.readonly = false;
        self
    }

    /// The same, with this owner.
    pub fn owner(mut self, owner: MountOwner) -> Self {
        self.owner = Some(owner);
        self
    }

    /// The same, with this map of ids.
    pub fn idmap(mut self, idmap: MountIdmap) -> Self {
        self.idmap = Some(idmap);
        self
    }

    /// `source[:target][:rw]`. What makes no sense comes back as the sentence that says why.
    pub(crate) fn parse(text: &OsStr) -> Result<Self, &'static str> {
        let mut parts: Vec<&[u8]> = text.as_bytes().split(|&b| b == b':').collect();
        let (mut writable, mut owner, mut idmap) = (None, None, None);
        let is_word =
            |word: &[u8]| matches!(word, b"rw" | b"ro" | b"owner=payload" | b"idmap=container" | b"idmap=host");
        if parts.len() > 1
            && let Some(words) = parts.pop_if(|last| last.split(|&b| b == b',').all(is_word))
        {
            for word in words.split(|&b| b == b',') {
                match word {
                    b"owner=payload" if owner.replace(MountOwner::Payload).is_none() => {}
                    b"idmap=container" if idmap.replace(MountIdmap::Container).is_none() => {}
                    b"idmap=host" if idmap.replace(MountIdmap::Host).is_none() => {}
                    b"rw" | b"ro" if writable.replace(word == b"rw").is_none() => {}
                    _ => return Err("of rw and ro there is one, and each other word only once"),
                }
            }
        }
        let path = |bytes: &[u8]| PathBuf::from(OsStr::from_bytes(bytes));
        let (source, target) = match parts[..] {
            [source] => (source, source),
            [source, target] => (source, target),
            _ => {
                return Err(
                    "more than source, target and words (rw or ro, owner=payload, idmap=container or idmap=host)",
                );
            }
        };
        if parts.len() == 2
            && target.starts_with(b"/")
            && let Some(name) = std::str::from_utf8(source).ok().filter(|name| check_name(name).is_ok())
        {
            return Ok(Self {
                readonly: writable == Some(false),
                owner,
                idmap,
                ..Self::volume(Some(name), path(target))
            });
        }
        if !source.starts_with(b"/") || !target.starts_with(b"/") {
            return Err(
                "source and target have to be absolute paths (or the source the name of a volume), and the last word rw, ro, owner=payload, idmap=container or idmap=host",
            );
        }
        Ok(Self { readonly: writable != Some(true), owner, idmap, ..Self::bind(path(source), path(target)) })
    }

    /// What stands for text that is no mount until the spec is checked: the whole text as source, no target.
    fn unparsed(text: OsString) -> Self {
        Self::bind(text, PathBuf::new())
    }
}

impl From<OsString> for Mount {
    fn from(text: OsString) -> Self {
        Self::parse(&text).unwrap_or_else(|_| Self::unparsed(text))
    }
}

impl From<&OsStr> for Mount {
    fn from(text: &OsStr) -> Self {
        text.to_owned().into()
    }
}

/// `source[:target][:rw]`; text that cannot be understood is an error when the spec is checked.
impl From<&str> for Mount {
    fn from(text: &str) -> Self {
        OsString::from(text).into()
    }
}

impl From<String> for Mount {
    fn from(text: String) -> Self {
        OsString::from_vec(text.into_bytes()).into()
    }
}

const KEYS: [&str; 12] = [
    "source",
    "fd",
    "target",
    "rw",
    "type",
    "size",
    "mode",
    "recursive",
    "register",
    "owner",
    "idmap",
    "idmap_recursive",
];
const TYPES: [&str; 9] = ["bind", "tmpfs", "volume", "proc", "sysfs", "mqueue", "devpts", "cgroup", "binfmt_misc"];

impl Codec for Mount {
    type Value = Self;

    fn read(json: &Json, at: &At) -> Result<Self> {
        if let Some(text) = json::bytes(json, at)? {
            return Self::parse(&text)
                .map_err(|why| at.error(format!("{text:?} is not source[:target][:rw]: {why}")))
                .map_err(|error| error.with_hint("paths with colons need an object"));
        }
        let members = json::members(json, at, "source[:target][:rw] or an object", &KEYS)?;
        let member = |key| json::member(members, key);
        let kind = match member("type") {
            None => "bind",
            Some(Json::String(kind)) => kind,
            Some(other) => return Err(wrong_type(&at.key("type"), "a type of mount", other)),
        };
        let fits = |key: &str| match key {
            "source" => kind == "bind" || kind == "volume",
            "owner" | "idmap" => kind == "bind" || kind == "volume",
            "fd" | "recursive" | "idmap_recursive" => kind == "bind",
            "size" | "mode" => kind == "tmpfs",
            "register" => kind == "binfmt_misc",
            _ => true,
        };
        if let Some(key) = KEYS.into_iter().find(|key| member(key).is_some() && !fits(key)) {
            return Err(at.key(key).error(format!("a mount of type {kind:?} has none")));
        }
        let read_path = |key| member(key).map(|path| FilePath::read(path, &at.key(key))).transpose();
        let source = read_path("source")?;
        let is_volume = kind == "volume";
        let (kind, readonly) = match kind {
            "volume" => {
                let name = source.as_ref().map(|name| match name.to_str() {
                    Some(name) => Ok(name.to_owned()),
                    None => Err(at.key("source").error("a name has letters, digits, \"_\", \"-\" and \".\"")),
                });
                (MountKind::Volume { name: name.transpose()? }, false)
            }
            "bind" => {
                let recursive = member("recursive").map(|json| Bool::read(json, &at.key("recursive"))).transpose()?;
                let source = match (&source, member("fd")) {
                    (Some(path), None) => BindSource::Path(path.clone()),
                    (None, Some(fd)) => {
                        let number = Count::read(fd, &at.key("fd"))?;
                        BindSource::Fd(
                            RawFd::try_from(number).map_err(|_| wrong_type(&at.key("fd"), "a descriptor", fd))?,
                        )
                    }
                    (Some(_), Some(_)) => return Err(at.key("fd").error("excludes source")),
                    (None, None) => return Err(at.error("has no source")),
                };
                (MountKind::Bind { source, recursive: recursive.unwrap_or(true) }, true)
            }
            "tmpfs" => {
                let size = member("size").map(|json| Size::read(json, &at.key("size"))).transpose()?;
                let mode = member("mode").map(|json| Mode::read(json, &at.key("mode"))).transpose()?;
                (MountKind::Tmpfs { size, mode }, false)
            }
            "proc" => (MountKind::Proc, false),
            "sysfs" => (MountKind::Sysfs, true),
            "mqueue" => (MountKind::Mqueue, false),
            "devpts" => (MountKind::Devpts, false),
            "cgroup" => (MountKind::Cgroup, true),
            "binfmt_misc" => {
                let mut register = Vec::new();
                if let Some(lines) = member("register") {
                    List::<Bytes>::merge(&mut register, lines, &at.key("register"))?;
                }
                (MountKind::BinfmtMisc { register }, false)
            }
            _ => {
                let known = TYPES.join(", ");
                return Err(at.key("type").error(format!("{kind:?} is not a type of mount; known are {known}")));
            }
        };
        let customary = || matches!(kind, MountKind::BinfmtMisc { .. }).then(|| Self::BINFMT_MISC.into());
        let target = read_path("target")?
            .or(source.filter(|_| !is_volume))
            .or_else(customary)
            .ok_or_else(|| at.error("has no target"))?;
        if target.as_os_str().is_empty() {
            return Err(at.key("target").error("is empty"));
        }
        let readonly = match member("rw") {
            Some(rw) => !Bool::read(rw, &at.key("rw"))?,
            None => readonly,
        };
        let owner = match member("owner") {
            None => None,
            Some(Json::String(owner)) if owner == "payload" => Some(MountOwner::Payload),
            Some(other) => return Err(wrong_type(&at.key("owner"), "\"payload\"", other)),
        };
        let idmap = member("idmap").map(|idmap| MountIdmap::read(idmap, &at.key("idmap"))).transpose()?;
        let whole = member("idmap_recursive").map(|whole| Bool::read(whole, &at.key("idmap_recursive"))).transpose()?;
        Ok(Self { kind, target, readonly, owner, idmap, idmap_recursive: whole.unwrap_or(true) })
    }

    fn write(value: &Self) -> Json {
        let mut json = json!({"target": FilePath::write(&value.target)});
        let kind = match &value.kind {
            MountKind::Bind { source, recursive } => {
                match source {
                    BindSource::Path(path) => json["source"] = FilePath::write(path),
                    BindSource::Fd(fd) => json["fd"] = (*fd).into(),
                }
                if !recursive {
                    json["recursive"] = false.into();
                }
                "bind"
            }
            MountKind::Tmpfs { size, mode } => {
                if let Some(size) = size {
                    json["size"] = (*size).into();
                }
                if let Some(mode) = mode {
                    json["mode"] = Mode::write(mode);
                }
                "tmpfs"
            }
            MountKind::Volume { name } => {
                if let Some(name) = name {
                    json["source"] = name.as_str().into();
                }
                "volume"
            }
            MountKind::Proc => "proc",
            MountKind::Sysfs => "sysfs",
            MountKind::Mqueue => "mqueue",
            MountKind::Devpts => "devpts",
            MountKind::Cgroup => "cgroup",
            MountKind::BinfmtMisc { register } => {
                if let Some(register) = List::<Bytes>::write(register) {
                    json["register"] = register;
                }
                "binfmt_misc"
            }
        };
        if kind != "bind" {
            json["type"] = kind.into();
        }
        if value.readonly != matches!(value.kind, MountKind::Bind { .. } | MountKind::Sysfs | MountKind::Cgroup) {
            json["rw"] = (!value.readonly).into();
        }
        if value.owner.is_some() {
            json["owner"] = "payload".into();
        }
        if let Some(idmap) = &value.idmap {
            json["idmap"] = MountIdmap::write(idmap);
        }
        if !value.idmap_recursive {
            json["idmap_recursive"] = false.into();
        }
        json
    }

    fn schema() -> Json {
        json!({"anyOf": [
            {"type": "string", "pattern": "^(/[^:]*(:/[^:]*)?|[A-Za-z0-9][A-Za-z0-9_.-]*:/[^:]*)(:(rw|ro|owner=payload|idmap=container|idmap=host)(,(rw|ro|owner=payload|idmap=container|idmap=host))*)?$",
                "description": "source[:target][:rw], or name:target[:ro] for a volume; also ,owner=payload and ,idmap=container or ,idmap=host"},
            {"type": "object", "additionalProperties": false, "properties": {
                "type": {"enum": TYPES, "default": "bind"},
                "source": {"$ref": "#/$defs/path", "description": "of type volume its name; without one it goes with the container"},
                "fd": {"type": "integer", "minimum": 0, "description": "an open descriptor in place of source"},
                "target": {"$ref": "#/$defs/path", "description": "the same path as source when absent; /proc/sys/fs/binfmt_misc of that type"},
                "rw": {"type": "boolean", "description": "false for bind, sysfs and cgroup when absent, else true"},
                "recursive": {"type": "boolean", "default": true},
                "size": {"$ref": "#/$defs/size"},
                "mode": Mode::schema(),
                "owner": {"enum": ["payload"],
                    "description": "of bind and volume: the source's owner is the main process inside"},
                "idmap": MountIdmap::schema(),
                "idmap_recursive": {"type": "boolean", "default": true,
                    "description": "of bind: whether what is mounted below the source is mapped, too"},
                "register": {"type": "array", "items": Bytes::schema(),
                    "description": "of binfmt_misc: lines :name:type:offset:magic:mask:interpreter:flags"},
            }},
        ]})
    }
}
