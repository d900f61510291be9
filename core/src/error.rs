//! One error type: a value with data (kind, errno, field, step, path, hint); text is made when it is shown.

use std::fmt;
use std::io;

/// The result of every fallible call of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong, in classes that a program can act on.
///
/// The numbers are part of the C ABI: they are never changed, only added to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
#[repr(i32)]
pub enum ErrorKind {
    /// A field of the spec has a value that can never work (type, range, syntax, contradiction).
    InvalidSpec = 1,
    /// An argument of a call can never work (NULL, a bad name, a closed descriptor).
    InvalidArgument = 2,
    /// Something named by the caller does not exist (program, path, container).
    NotFound = 3,
    /// The kernel or a policy of this machine refused it to this caller.
    PermissionDenied = 4,
    /// A container of that name exists.
    AlreadyExists = 5,
    /// This machine (kernel, file system, mounts, controllers) cannot do what was asked.
    Unsupported = 6,
    /// This version of ringfence knows the field but cannot do it yet.
    NotAvailable = 7,
    /// Something ran out: descriptors, processes, memory, ids, disk.
    Exhausted = 8,
    /// The timeout of the call passed.
    TimedOut = 9,
    /// The handle was closed, or the container has ended.
    Closed = 10,
    /// The call was made in a forked child of the process that started the container.
    ForkedChild = 11,
    /// The keeper died while the call was under way.
    KeeperDied = 12,
    /// The container is frozen and the call would have to wait for it.
    Frozen = 13,
    /// A system call failed in a way that has no class of its own; see `errno`.
    Os = 14,
    /// A defect of ringfence itself.
    Internal = 15,
}

impl ErrorKind {
    /// The name that C, Python and JSON use: `invalid_spec`, `not_found`, ...
    pub fn name(self) -> &'static str {
        match self {
            Self::InvalidSpec => "invalid_spec",
            Self::InvalidArgument => "invalid_argument",
            Self::NotFound => "not_found",
            Self::PermissionDenied => "permission_denied",
            Self::AlreadyExists => "already_exists",
            Self::Unsupported => "unsupported",
            Self::NotAvailable => "not_available",
            Self::Exhausted => "exhausted",
            Self::TimedOut => "timed_out",
            Self::Closed => "closed",
            Self::ForkedChild => "forked_child",
            Self::KeeperDied => "keeper_died",
            Self::Frozen => "frozen",
            Self::Os => "os",
            Self::Internal => "internal",
        }
    }

    /// The class of an errno when nothing better is known.
    pub fn of_errno(errno: i32) -> Self {
        match errno {
            libc::ENOENT | libc::ENOTDIR | libc::ESRCH => Self::NotFound,
            libc::EPERM | libc::EACCES => Self::PermissionDenied,
            libc::EEXIST => Self::AlreadyExists,
            libc::ENOSYS | libc::EOPNOTSUPP => Self::Unsupported,
            libc::ENOMEM | libc::ENOSPC | libc::EMFILE | libc::ENFILE | libc::EAGAIN | libc::EDQUOT => Self::Exhausted,
            libc::ETIMEDOUT => Self::TimedOut,
            libc::ECHILD => Self::ForkedChild,
            _ => Self::Os,
        }
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Data {
    context: Option<String>,
    field: Option<String>,
    step: Option<String>,
    path: Option<String>,
    detail: Option<String>,
    hint: Option<String>,
    log_tail: Option<String>,
    errno: i32,
}

/// Why a call failed.
///
/// `to_string()` gives one line: what was being done, the field of the spec that asked for it, the step, the path, the
/// errno in words and by name, and what can be done about it:
/// `start container "db": mounts[2]: open_tree "/srv/data": No such file or directory (ENOENT)`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    kind: ErrorKind,
    data: Box<Data>,
}

impl Error {
    /// An error of a class, with the sentence that explains it.
    pub fn new(kind: ErrorKind, detail: impl Into<String>) -> Self {
        Self { kind, data: Box::new(Data { detail: Some(detail.into()), ..Data::default() }) }
    }

    /// A field of the spec that has an impossible value.
    pub fn spec(field: impl Into<String>, detail: impl Into<String>) -> Self {
        Self::new(ErrorKind::InvalidSpec, detail).with_field(field).with_errno(libc::EINVAL)
    }

    /// A failed system call: the step is its name or a few words.
    pub fn os(step: impl Into<String>, errno: i32) -> Self {
        Self {
            kind: ErrorKind::of_errno(errno),
            data: Box::new(Data { step: Some(step.into()), errno, ..Data::default() }),
        }
    }

    /// `os`, with the errno of an [`io::Error`].
    pub fn io(step: impl Into<String>, error: &io::Error) -> Self {
        match error.raw_os_error() {
            Some(errno) => Self::os(step, errno),
            None => Self::new(ErrorKind::Os, error.to_string()).with_step(step),
        }
    }

    /// What was being done, for the front of the message; an outer call may set it once more.
    pub fn with_context(mut self, context: impl Into<String>) -> Self {
        self.data.context = Some(context.into());
        self
    }

    /// The field of the spec (`mounts[2].source`) that asked for what failed.
    pub fn with_field(mut self, field: impl Into<String>) -> Self {
        self.data.field = Some(field.into());
        self
    }

    /// The step that failed: a system call or a few words.
    pub fn with_step(mut self, step: impl Into<String>) -> Self {
        self.data.step = Some(step.into());
        self
    }

    /// The path that it failed on.
    pub fn with_path(mut self, path: impl Into<String>) -> Self {
        self.data.path = Some(path.into());
        self
    }

    /// The errno, for errors that were not made from one.
    pub fn with_errno(mut self, errno: i32) -> Self {
        self.data.errno = errno;
        self
    }

    /// What the caller can do about it.
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.data.hint = Some(hint.into());
        self
    }

    /// The explaining sentence, for errors that were made from an errno.
    pub fn with_detail(mut self, detail: impl Into<String>) -> Self {
        self.data.detail = Some(detail.into());
        self
    }

    /// The end of the log of the container that it is about.
    pub(crate) fn with_log_tail(mut self, tail: impl Into<String>) -> Self {
        self.data.log_tail = Some(tail.into());
        self
    }

    /// The explaining sentence.
    pub(crate) fn detail(&self) -> Option<&str> {
        self.data.detail.as_deref()
    }

    /// Another class than the errno suggests.
    pub fn with_kind(mut self, kind: ErrorKind) -> Self {
        self.kind = kind;
        self
    }

    /// The class.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// The errno, 0 when no system call was involved.
    pub fn errno(&self) -> i32 {
        self.data.errno
    }

    /// The field of the spec, like `mounts[2].source`.
    pub fn field(&self) -> Option<&str> {
        self.data.field.as_deref()
    }

    /// The step: a system call or a few words.
    pub fn step(&self) -> Option<&str> {
        self.data.step.as_deref()
    }

    /// The path.
    pub fn path(&self) -> Option<&str> {
        self.data.path.as_deref()
    }

    /// What can be done about it.
    pub fn hint(&self) -> Option<&str> {
        self.data.hint.as_deref()
    }

    /// Of a wait for a container that did not become ready: the last lines of its log (50, or 16 KiB), where it has one. Bytes that are not UTF-8
    /// are replaced. Not a part of the message.
    pub fn log_tail(&self) -> Option<&str> {
        self.data.log_tail.as_deref()
    }

    /// All of it as one JSON object: kind, errno, errno_name, field, step, path, hint, message, log_tail.
    pub fn to_json(&self) -> String {
        serde_json::json!({
            "kind": self.kind.name(),
            "errno": self.data.errno,
            "errno_name": errno_name(self.data.errno),
            "field": self.data.field,
            "step": self.data.step,
            "path": self.data.path,
            "hint": self.data.hint,
            "message": self.to_string(),
            "log_tail": self.data.log_tail,
        })
        .to_string()
    }
}

/// `ENOENT` for 2; `None` for 0 and for numbers without a name.
pub fn errno_name(errno: i32) -> Option<String> {
    use nix::errno::Errno;
    match Errno::from_raw(errno) {
        _ if errno == 0 => None,
        Errno::UnknownErrno => None,
        known => Some(format!("{known:?}")),
    }
}

/// The errno of a name, `EPERM` or `eperm`, or of a number from 1 to 4095 (MAX_ERRNO of the kernel) as text.
///
/// # Errors
/// A sentence, when there is none.
pub fn parse_errno(text: &str) -> std::result::Result<i32, String> {
    const MAX: i32 = 4095;
    // Of those with two names nix has one.
    let name = match text.to_ascii_uppercase().as_str() {
        "EWOULDBLOCK" => "EAGAIN".to_owned(),
        "ENOTSUP" => "EOPNOTSUPP".to_owned(),
        "EDEADLOCK" => "EDEADLK".to_owned(),
        name => name.to_owned(),
    };
    let number = if text.bytes().all(|b| b.is_ascii_digit()) { text.parse().ok() } else { None };
    number
        .filter(|errno| (1..=MAX).contains(errno))
        .or_else(|| (1..=MAX).find(|&errno| errno_name(errno).as_deref() == Some(name.as_str())))
        .ok_or_else(|| format!("{text:?} is no errno; give a name like \"EPERM\", or a number from 1 to {MAX}"))
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let d = &*self.data;
        for part in [&d.context, &d.field].into_iter().flatten() {
            write!(f, "{part}: ")?;
        }
        if let Some(step) = &d.step {
            f.write_str(step)?;
        }
        if let Some(path) = &d.path {
            write!(f, "{}{path:?}", if d.step.is_some() { " " } else { "" })?;
        }
        let located = d.step.is_some() || d.path.is_some();
        if let Some(detail) = &d.detail {
            write!(f, "{}{detail}", if located { ": " } else { "" })?;
        }
        // For a bad value EINVAL says nothing that the sentence does not say.
        if d.errno != 0 && !(self.kind == ErrorKind::InvalidSpec && d.detail.is_some()) {
            let words = nix::errno::Errno::from_raw(d.errno).desc();
            let name = errno_name(d.errno).unwrap_or_else(|| format!("errno {}", d.errno));
            match d.detail {
                Some(_) => write!(f, " ({name})")?,
                None => write!(f, "{}{words} ({name})", if located { ": " } else { "" })?,
            }
        }
        if let Some(hint) = &d.hint {
            write!(f, "; {hint}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Error {}

impl From<Error> for io::Error {
    fn from(error: Error) -> Self {
        let kind = match error.kind {
            ErrorKind::NotFound => io::ErrorKind::NotFound,
            ErrorKind::PermissionDenied => io::ErrorKind::PermissionDenied,
            ErrorKind::AlreadyExists => io::ErrorKind::AlreadyExists,
            ErrorKind::TimedOut => io::ErrorKind::TimedOut,
            ErrorKind::InvalidSpec | ErrorKind::InvalidArgument => io::ErrorKind::InvalidInput,
            ErrorKind::Unsupported | ErrorKind::NotAvailable => io::ErrorKind::Unsupported,
            _ => io::ErrorKind::Other,
        };
        io::Error::new(kind, error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errnos_have_names() {
        for (text, errno) in
            [("EPERM", libc::EPERM), ("enosys", libc::ENOSYS), ("EWOULDBLOCK", libc::EAGAIN), ("4095", 4095)]
        {
            assert_eq!(parse_errno(text), Ok(errno));
        }
        assert_eq!(parse_errno("ENOTSUP"), Ok(libc::EOPNOTSUPP));
        for text in ["", "0", "4096", "-1", "PERM", "UnknownErrno"] {
            assert!(parse_errno(text).unwrap_err().contains("is no errno"), "{text}");
        }
    }

    #[test]
    fn a_message_names_everything_once() {
        let e = Error::os("open_tree", libc::ENOENT)
            .with_context("start container \"db\"")
            .with_field("mounts[2]")
            .with_path("/srv/data");
        assert_eq!(
            e.to_string(),
            "start container \"db\": mounts[2]: open_tree \"/srv/data\": No such file or directory (ENOENT)"
        );
        assert_eq!(e.kind(), ErrorKind::NotFound);
        let e = Error::spec("memory", "-1 is negative").with_hint("give bytes");
        assert_eq!(e.to_string(), "memory: -1 is negative; give bytes");
    }
}
