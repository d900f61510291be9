//! Namespaces that exist: found, known and related by descriptors.

use std::ffi::{OsStr, c_char, c_int};
use std::os::fd::{IntoRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::ptr;

use ringfence::spec::{NamespaceKind, NamespaceSource};
use ringfence::{Error, ErrorKind, Namespace, NamespaceEntry, Result};

use crate::border::{border, border_for, bytes, give_string, length, text};
use crate::error::ringfence_error;

fn related(of: c_int, field: &str, found: impl FnOnce(&Namespace) -> Result<Option<Namespace>>) -> Result<c_int> {
    match found(&Namespace::of_fd(of)?)? {
        Some(namespace) => Ok(OwnedFd::from(namespace).into_raw_fd()),
        None => {
            Err(Error::new(ErrorKind::NotFound, "the namespace has none").with_field(field).with_errno(libc::ENOENT))
        }
    }
}

/// A descriptor of a namespace that exists: the caller's (CLOEXEC), for setns(). As long as it is open,
/// the namespace exists, also without any process. fstat() tells device and inode, which are equal for the same namespace.
///
/// `source` is what the spec's "namespaces" take: a path like "/run/netns/blue" or "/proc/1/ns/net", "pid:N", "fd:N" (a descriptor
/// of a namespace, or a pidfd), "container:NAME", or "host" for the calling thread's own. `kind` is "mnt", "pid", "net", "ipc",
/// "uts", "user", "cgroup" or "time"; NULL takes what a path or a descriptor of a namespace is.
///
/// Fails with RINGFENCE_KIND_NOT_FOUND for what does not exist or has ended, RINGFENCE_KIND_PERMISSION_DENIED for processes that
/// the caller may not trace (ptrace(2)), RINGFENCE_KIND_INVALID_ARGUMENT for what is no namespace of that kind; the error's field is
/// "source", "kind", "path", "pid", "pidfd" or "fd".
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringfence_namespace_fd(
    source: *const c_char,
    kind: *const c_char,
    err: *mut *mut ringfence_error,
) -> c_int {
    border_for(length(source), err, -1, || {
        let source = NamespaceSource::parse(OsStr::from_bytes(bytes(source, "source")?))?;
        let kind = if kind.is_null() { None } else { Some(NamespaceKind::parse(text(kind, "kind")?)?) };
        Ok(OwnedFd::from(Namespace::find(&source, kind)?).into_raw_fd())
    })
}

/// What is known of the namespace of a descriptor, as a JSON object (ringfence_string_free()): kind, inode, device, id (the
/// kernel's number, which is never used again before the next boot: of every kind since Linux 6.18, of mount namespaces since
/// 6.11), owner_uid (who made the user namespace that it is, or that owns it), owner (the inode of the user namespace that owns
/// it), parent (of user and pid namespaces), members (the processes that are in it with at least one thread, as far as the caller
/// may trace them). What there is not, and what is hidden from this caller, is null.
///
/// The members are found by reading all of /proc, some 10 us for each thread of the machine.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringfence_namespace_json(fd: c_int, err: *mut *mut ringfence_error) -> *mut c_char {
    border(err, ptr::null_mut(), || Ok(give_string(Namespace::of_fd(fd)?.to_json())))
}

/// A descriptor of the user namespace that owns the namespace: the caller's (CLOEXEC). Of a user namespace it is the parent.
///
/// Fails with RINGFENCE_KIND_NOT_FOUND for the machine's first user namespace, with RINGFENCE_KIND_PERMISSION_DENIED when the owner
/// is neither the caller's own nor one below.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringfence_namespace_owner_fd(fd: c_int, err: *mut *mut ringfence_error) -> c_int {
    border(err, -1, || related(fd, "owner", Namespace::owner))
}

/// A descriptor of the parent of a user or pid namespace: the caller's (CLOEXEC).
///
/// Fails with RINGFENCE_KIND_NOT_FOUND for the machine's first ones and for the kinds that have no parents, with
/// RINGFENCE_KIND_PERMISSION_DENIED when the parent is neither the caller's own nor one below.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringfence_namespace_parent_fd(fd: c_int, err: *mut *mut ringfence_error) -> c_int {
    border(err, -1, || related(fd, "parent", Namespace::parent))
}

/// The number that the process (or thread) `pid`, as this program knows it, has in the pid namespace of a descriptor.
///
/// Fails with RINGFENCE_KIND_NOT_FOUND and ESRCH when there is no such process or it is outside of that namespace. Before Linux
/// 6.11, with RINGFENCE_KIND_UNSUPPORTED for namespaces that the caller's is in.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringfence_namespace_pid_in(fd: c_int, pid: c_int, err: *mut *mut ringfence_error) -> c_int {
    border(err, -1, || Namespace::of_fd(fd)?.pid_in(pid))
}

/// The number by which this program knows the process (or thread) `pid` of the pid namespace of a descriptor: the inverse of
/// ringfence_namespace_pid_in(). Fails as that. One after the other they translate between any two namespaces.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringfence_namespace_pid_from(fd: c_int, pid: c_int, err: *mut *mut ringfence_error) -> c_int {
    border(err, -1, || Namespace::of_fd(fd)?.pid_from(pid))
}

/// All namespaces of the machine that the caller may see, as a JSON array (ringfence_string_free()), by kind and inode: each with
/// the keys of ringfence_namespace_json() and with command (of the first member), held_by (processes that hold a descriptor of
/// it, or whose next child is born in it) and mounts (where it is mounted, in any mount namespace). One without members is kept by
/// those two, or by namespaces that it owns or is the parent of.
///
/// Reads /proc from end to end: some 40 us for each thread of the machine, 5 us for each open descriptor.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringfence_namespaces_json(err: *mut *mut ringfence_error) -> *mut c_char {
    border(err, ptr::null_mut(), || Ok(give_string(NamespaceEntry::to_json(&ringfence::namespaces()?))))
}

/// Keeps the namespace of a descriptor without any process: mounts it at `path`, a file that is made for that, as `ip netns add`
/// does in /run/netns. The spec's "namespaces", setns() and ringfence_namespace_fd() take the path, until
/// ringfence_namespace_unpin() or a reboot.
///
/// Fails with RINGFENCE_KIND_ALREADY_EXISTS when there is something, RINGFENCE_KIND_PERMISSION_DENIED without CAP_SYS_ADMIN.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringfence_namespace_pin(
    fd: c_int,
    path: *const c_char,
    err: *mut *mut ringfence_error,
) -> c_int {
    border(err, -1, || {
        Namespace::of_fd(fd)?.pin(OsStr::from_bytes(bytes(path, "path")?))?;
        Ok(0)
    })
}

/// Unmounts a namespace that is mounted at `path`, and removes the file. Fails with RINGFENCE_KIND_INVALID_ARGUMENT when none is.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringfence_namespace_unpin(path: *const c_char, err: *mut *mut ringfence_error) -> c_int {
    border(err, -1, || {
        Namespace::unpin(OsStr::from_bytes(bytes(path, "path")?))?;
        Ok(0)
    })
}
