//! Entries of `mounts`.

use std::ffi::{OsStr, OsString};
use std::os::fd::RawFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

/// One entry of `mounts`.
///
/// As text, `source[:target][:rw]`: a bind mount of an absolute path of the host, recursive, at the same path when no target
/// is given, read-only unless `rw` stands at the end. Paths with colons need an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// What is mounted.
    pub kind: MountKind,
    /// The absolute path inside; missing directories are made. Empty only in what text that could not be understood
    /// became, which no container is started with.
    pub target: PathBuf,
    /// Default: true for binds, sysfs and cgroup, false for the rest.
    pub readonly: bool,
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
    /// A fresh view of the container's processes (proc(5)).
    Proc,
    /// A fresh view of devices and of the network namespace (sysfs(5)).
    Sysfs,
    /// POSIX message queues of the IPC namespace (mq_overview(7)).
    Mqueue,
    /// A new instance of pseudoterminals (devpts(5)).
    Devpts,
    /// The container's own control groups (cgroup_namespaces(7)).
    Cgroup,
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
        Self { kind, target: target.into(), readonly: true }
    }

    /// A writable tmpfs without a size of its own.
    pub fn tmpfs(target: impl Into<PathBuf>) -> Self {
        Self { kind: MountKind::Tmpfs { size: None, mode: None }, target: target.into(), readonly: false }
    }

    /// The same, writable.
    pub fn rw(mut self) -> Self {
        self.readonly = false;
        self
    }

    /// `source[:target][:rw]`. What makes no sense comes back as the sentence that says why.
    pub(crate) fn parse(text: &OsStr) -> Result<Self, &'static str> {
        let mut parts: Vec<&[u8]> = text.as_bytes().split(|&b| b == b':').collect();
        let writable = match parts.last() {
            Some(&b"rw") if parts.len() > 1 => Some(true),
            Some(&b"ro") if parts.len() > 1 => Some(false),
            _ => None,
        };
        if writable.is_some() {
            parts.pop();
        }
        let path = |bytes: &[u8]| PathBuf::from(OsStr::from_bytes(bytes));
        let (source, target) = match parts[..] {
            [source] => (source, source),
            [source, target] => (source, target),
            _ => return Err("more than source, target and rw"),
        };
        if !source.starts_with(b"/") || !target.starts_with(b"/") {
            return Err("source and target have to be absolute paths, and the last word rw or ro");
        }
        Ok(Self { readonly: writable != Some(true), ..Self::bind(path(source), path(target)) })
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
