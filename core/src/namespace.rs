//! Namespaces that exist: which one it is, what it belongs to, who is in it, and process ids from one to another.

use std::fs::{self, File};
use std::hash::{Hash, Hasher};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use serde_json::json;

use crate::container::Container;
use crate::error::{Error, ErrorKind, Result};
use crate::launch::duplicate;
use crate::plan::container::clone_flag;
use crate::process::{pid_behind, pid_of};
use crate::spec::{NamespaceKind, NamespaceSource};
use crate::sys::nsfs;

/// All namespaces of the machine.
pub(crate) mod list;
/// Process ids where the kernel has no call for it.
mod translate;

pub(crate) use list::is_short;
pub use list::{NamespaceEntry, namespaces};

/// A namespace of this machine, held by a descriptor: it exists as long as the value does, also without any process.
///
/// Two values are equal, and have the same hash, when they are the same namespace (device and inode).
///
/// ```
/// use ringfence::spec::NamespaceKind;
/// use ringfence::{Container, Namespace, Spec};
///
/// # fn main() -> ringfence::Result<()> {
/// let container = Container::start(&Spec::new())?;
/// let net = container.namespace(NamespaceKind::Net)?;
/// assert_ne!(net, Namespace::own(NamespaceKind::Net)?);
/// assert_eq!(net.owner()?, Some(container.namespace(NamespaceKind::User)?));
/// let pids = container.namespace(NamespaceKind::Pid)?;
/// assert_eq!((pids.pid_in(container.pid())?, pids.pid_from(1)?), (1, container.pid()));
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Namespace {
    fd: OwnedFd,
    kind: NamespaceKind,
    device: u64,
    inode: u64,
}

impl PartialEq for Namespace {
    fn eq(&self, other: &Self) -> bool {
        (self.device, self.inode) == (other.device, other.inode)
    }
}

impl Eq for Namespace {}

impl Hash for Namespace {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (self.device, self.inode).hash(state);
    }
}

impl AsFd for Namespace {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl AsRawFd for Namespace {
    fn as_raw_fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }
}

impl From<Namespace> for OwnedFd {
    fn from(namespace: Namespace) -> Self {
        namespace.fd
    }
}

impl Namespace {
    /// That of a process, by its number in this process's pid namespace.
    ///
    /// # Errors
    /// NotFound (`pid`) when there is no such process or it has ended; PermissionDenied (`pid`) when the caller may not trace it
    /// (ptrace(2)); Unsupported (`kind`) when the kernel has no namespaces of that kind.
    pub fn of_pid(pid: i32, kind: NamespaceKind) -> Result<Self> {
        check_pid(pid)?;
        let path = format!("/proc/{pid}/ns/{}", kind.name());
        match File::open(&path) {
            Ok(file) => Self::checked(file.into(), "pid"),
            Err(e) => Err(of_process(&e, kind, pid).with_step("open").with_path(path)),
        }
    }

    /// That of the process behind a pidfd, never of another that got its number.
    ///
    /// # Errors
    /// As [`of_pid`](Self::of_pid), with the field `pidfd`; InvalidArgument when it is no pidfd.
    pub fn of_pidfd(pidfd: BorrowedFd<'_>, kind: NamespaceKind) -> Result<Self> {
        // Asked first: to another file the numbers of the calls may mean anything.
        let asked = match pid_behind(pidfd) {
            None => {
                let what = "this descriptor is no pidfd";
                Err(Error::new(ErrorKind::InvalidArgument, what).with_errno(libc::EBADF))
            }
            Some(_) => match nsfs::of_pidfd(pidfd, kind) {
                Err(e) if matches!(e.raw_os_error(), Some(libc::ENOTTY | libc::EINVAL | libc::EOPNOTSUPP)) => {
                    Self::of_pidfd_by_number(pidfd, kind)
                }
                Err(e) => Err(of_process(&e, kind, 0).with_step("PIDFD_GET_NAMESPACE")),
                Ok(fd) => Self::checked(fd, "pidfd"),
            },
        };
        asked.map_err(|e| if e.field() == Some("kind") { e } else { e.with_field("pidfd") })
    }

    /// Before Linux 6.11: by /proc. The number is its as long as the pidfd says that it has not been reaped.
    fn of_pidfd_by_number(pidfd: BorrowedFd<'_>, kind: NamespaceKind) -> Result<Self> {
        let pid = pid_of(pidfd);
        if pid <= 0 {
            return Err(no_process(0));
        }
        let found = Self::of_pid(pid, kind);
        if pid_of(pidfd) == pid { found } else { Err(no_process(0)) }
    }

    /// That of a file: a bind mount like /run/netns/blue, or /proc/PID/ns/net. Other files are not opened, only looked at.
    ///
    /// # Errors
    /// NotFound or PermissionDenied for the path; InvalidArgument (`path`) when it is no namespace.
    pub fn of_path(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let at = |error: Error| error.with_field("path").with_path(path.to_string_lossy());
        let found = fs::OpenOptions::new().read(true).custom_flags(libc::O_PATH).open(path);
        let found = found.map_err(|e| at(Error::io("open", &e)))?;
        let fd = reopen(found.as_fd()).map_err(|e| at(Error::io("open", &e)))?;
        fd.map_or_else(|| Err(at(not_one())), |fd| Self::checked(fd, "path").map_err(at))
    }

    /// That of a descriptor, which is duplicated.
    ///
    /// # Errors
    /// InvalidArgument (`fd`) when it is closed or no namespace.
    pub fn of_fd(fd: RawFd) -> Result<Self> {
        Self::checked(duplicate(fd, "fd")?, "fd")
    }

    /// The calling thread's own.
    ///
    /// # Errors
    /// Unsupported (`kind`) when the kernel has no namespaces of that kind.
    pub fn own(kind: NamespaceKind) -> Result<Self> {
        let path = format!("/proc/thread-self/ns/{}", kind.name());
        match File::open(&path) {
            Ok(file) => Self::checked(file.into(), "kind"),
            Err(e) => Err(of_process(&e, kind, 0).with_field("kind").with_path(path)),
        }
    }

    /// The namespace that the spec's field `namespaces` would join: `host` is the calling thread's own. Paths and descriptors of
    /// namespaces need no kind; with one they have to be of it.
    ///
    /// # Errors
    /// As the functions of each source; InvalidArgument for `new`, which makes one, and where the kind is missing or wrong.
    pub fn find(source: &NamespaceSource, kind: Option<NamespaceKind>) -> Result<Self> {
        let needed = || {
            let hint = "one of mnt, pid, net, ipc, uts, user, cgroup, time";
            let what = "a process, a container and the host have one of each kind: which is missing";
            kind.ok_or_else(|| invalid("kind", what).with_hint(hint))
        };
        let found = match source {
            NamespaceSource::New => return Err(invalid("source", "\"new\" is not one that exists")),
            NamespaceSource::Host => Self::own(needed()?),
            NamespaceSource::Path(path) => Self::of_path(path),
            NamespaceSource::Pid(pid) => Self::of_pid(*pid, needed()?),
            NamespaceSource::Container(name) => {
                let kind = needed()?;
                let found = Container::by_name(name).and_then(|container| container.namespace(kind));
                found.map_err(|e| e.with_field("source"))
            }
            NamespaceSource::Fd(number) => {
                let fd = duplicate(*number, "fd")?;
                match nsfs::namespace_type(fd.as_fd()) {
                    None if pid_behind(fd.as_fd()).is_some() => Self::of_pidfd(fd.as_fd(), needed()?),
                    _ => Self::checked(fd, "fd"),
                }
            }
        }?;
        match kind {
            Some(kind) if kind != found.kind => {
                let what = format!("this is a {} namespace, and none of kind {}", found.kind.name(), kind.name());
                Err(invalid("kind", what))
            }
            _ => Ok(found),
        }
    }

    fn checked(fd: OwnedFd, field: &str) -> Result<Self> {
        let kind = nsfs::namespace_type(fd.as_fd()).and_then(kind_of_flag);
        let kind = kind.ok_or_else(|| not_one().with_field(field))?;
        let stat = nix::sys::stat::fstat(&fd).map_err(|e| Error::os("fstat", e as i32))?;
        Ok(Self { fd, kind, device: stat.st_dev, inode: stat.st_ino })
    }

    /// Its kind.
    pub fn kind(&self) -> NamespaceKind {
        self.kind
    }

    /// The inode, which /proc/PID/ns shows: unique while the namespace exists, and used again afterwards.
    pub fn inode(&self) -> u64 {
        self.inode
    }

    /// The device of its file (`st_dev`), on all kernels so far the same for all.
    pub fn device(&self) -> u64 {
        self.device
    }

    /// The kernel's number of it, which is never used again before the next boot: of every kind since Linux 6.18, of mount
    /// namespaces since 6.11. `None` where the kernel has none.
    pub fn id(&self) -> Option<u64> {
        nsfs::id(self.fd.as_fd())
    }

    /// The user namespace that owns it, in which capabilities over it count; of a user namespace, its parent. `None` for the
    /// machine's first user namespace.
    ///
    /// # Errors
    /// PermissionDenied (`owner`) when it is neither the caller's own user namespace nor one below.
    pub fn owner(&self) -> Result<Option<Self>> {
        let first = self.kind == NamespaceKind::User && self.inode == FIRST_USER;
        self.relative(nsfs::owner(self.fd.as_fd()), "owner", first)
    }

    /// The parent of a user or pid namespace. `None` for the machine's first ones and for the kinds that have no parents.
    ///
    /// # Errors
    /// PermissionDenied (`parent`) when it is neither the caller's own nor one below.
    pub fn parent(&self) -> Result<Option<Self>> {
        let first = match self.kind {
            NamespaceKind::User => self.inode == FIRST_USER,
            NamespaceKind::Pid => self.inode == FIRST_PID,
            _ => return Ok(None),
        };
        self.relative(nsfs::parent(self.fd.as_fd()), "parent", first)
    }

    fn relative(&self, found: io::Result<OwnedFd>, field: &str, first: bool) -> Result<Option<Self>> {
        match found {
            Ok(fd) => Self::checked(fd, field).map(Some),
            Err(e) if e.raw_os_error() == Some(libc::EPERM) && first => Ok(None),
            Err(e) => Err(Error::io(if field == "owner" { "NS_GET_USERNS" } else { "NS_GET_PARENT" }, &e)
                .with_field(field)
                .with_hint("what is above the namespaces of this process is hidden from it")),
        }
    }

    /// The uid that made the user namespace; of other kinds, that made the user namespace which owns it. As the caller's user
    /// namespace knows it: 65534 when it does not, 0 for what the machine's first user namespace owns.
    ///
    /// # Errors
    /// As [`owner`](Self::owner), for other kinds than user.
    pub fn owner_uid(&self) -> Result<u32> {
        let asked = |fd: BorrowedFd<'_>| {
            nsfs::owner_uid(fd).map_err(|e| Error::io("NS_GET_OWNER_UID", &e).with_field("owner_uid"))
        };
        match self.kind {
            NamespaceKind::User => asked(self.fd.as_fd()),
            _ => self.owner()?.map_or(Ok(0), |owner| asked(owner.fd.as_fd())),
        }
    }

    /// The processes that are in it with at least one thread, by their numbers in this process's /proc, in order: as far as the
    /// caller may trace them (ptrace(2)). It reads all of /proc, some 10 us for each thread of the machine, and is no picture of
    /// one moment.
    ///
    /// # Errors
    /// When /proc cannot be read.
    pub fn members(&self) -> Result<Vec<i32>> {
        list::members(self)
    }

    /// The number that the process (or thread) `pid` of this process's pid namespace has in this one.
    ///
    /// From one foreign pid namespace to another: `b.pid_in(a.pid_from(pid)?)`.
    ///
    /// # Errors
    /// InvalidArgument (`kind`) when this is no pid namespace; NotFound (`pid`) when there is no such process, or it has no
    /// number in this namespace because it is outside of it. Before Linux 6.11, Unsupported for namespaces that the caller's is
    /// in, and PermissionDenied for processes that it may not trace.
    pub fn pid_in(&self, pid: i32) -> Result<i32> {
        self.translate(pid, "NS_GET_PID_IN_PIDNS", nsfs::pid_in, translate::pid_in)
    }

    /// The number that the process (or thread) `pid` of this pid namespace has in that of the calling process: the inverse of
    /// [`pid_in`](Self::pid_in).
    ///
    /// # Errors
    /// As [`pid_in`](Self::pid_in). Before Linux 6.11 threads but the first of a process are not found.
    pub fn pid_from(&self, pid: i32) -> Result<i32> {
        self.translate(pid, "NS_GET_PID_FROM_PIDNS", nsfs::pid_from, translate::pid_from)
    }

    fn translate(
        &self,
        pid: i32,
        step: &str,
        ask: impl FnOnce(BorrowedFd<'_>, i32) -> io::Result<i32>,
        by_proc: impl FnOnce(&Self, i32) -> Result<i32>,
    ) -> Result<i32> {
        if self.kind != NamespaceKind::Pid {
            let what =
                format!("process ids are numbers in pid namespaces, and this is a {} namespace", self.kind.name());
            return Err(invalid("kind", what));
        }
        check_pid(pid)?;
        match ask(self.fd.as_fd(), pid) {
            Ok(number) => Ok(number),
            Err(e) if e.raw_os_error() == Some(libc::ENOTTY) => by_proc(self, pid),
            Err(e) if e.raw_os_error() == Some(libc::ESRCH) => Err(translate::no_number(pid).with_step(step)),
            Err(e) => Err(Error::io(step, &e).with_field("pid")),
        }
    }

    /// What is known of it, as a JSON object: kind, inode, device, id, owner_uid, owner and parent (their inodes), members. What
    /// this caller may not know, and what there is not, is null.
    pub fn to_json(&self) -> String {
        let inode = |found: Result<Option<Self>>| found.ok().flatten().map(|namespace| namespace.inode);
        json!({
            "kind": self.kind.name(),
            "inode": self.inode,
            "device": self.device,
            "id": self.id(),
            "owner_uid": self.owner_uid().ok(),
            "owner": inode(self.owner()),
            "parent": inode(self.parent()),
            "members": self.members().ok(),
        })
        .to_string()
    }

    /// Keeps it without any process or descriptor: mounts it at `path`, a file that is made for that, as `ip netns add` does in
    /// /run/netns. [`of_path`](Self::of_path), the spec's field `namespaces` and setns(2) take the path, until [`unpin`](Self::unpin) or a
    /// reboot. Only in the mount namespace of this thread, and where its mounts propagate to.
    ///
    /// # Errors
    /// AlreadyExists (`path`) when there is something; PermissionDenied without CAP_SYS_ADMIN; EINVAL (`kind`) for a mount
    /// namespace that is not younger than the caller's, which would hold itself. Nothing is left then.
    pub fn pin(&self, path: impl AsRef<Path>) -> Result<()> {
        let path = path.as_ref();
        let at = |error: Error| error.with_field("path").with_path(path.to_string_lossy());
        fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o444)
            .open(path)
            .map_err(|e| at(Error::io("open", &e)))?;
        let source = format!("/proc/self/fd/{}", self.fd.as_raw_fd());
        let none: Option<&str> = None;
        mount(Some(&*source), path, none, MsFlags::MS_BIND, none).map_err(|errno| {
            let _ = fs::remove_file(path);
            let error = at(Error::os("mount", errno as i32));
            match errno {
                Errno::EPERM => {
                    error.with_hint("to mount takes CAP_SYS_ADMIN: as an ordinary user keep the descriptor")
                }
                Errno::EINVAL if self.kind == NamespaceKind::Mnt => error
                    .with_field("kind")
                    .with_hint("only a mount namespace that is younger than the caller's can be mounted in it"),
                _ => error,
            }
        })
    }

    /// Undoes [`pin`](Self::pin), also that of another program: unmounts it and removes the file. The namespace ends when nothing else
    /// keeps it.
    ///
    /// # Errors
    /// InvalidArgument (`path`) when no namespace is mounted there: then nothing is changed; PermissionDenied; NotFound.
    pub fn unpin(path: impl AsRef<Path>) -> Result<()> {
        let path = path.as_ref();
        let at = |error: Error| error.with_field("path").with_path(path.to_string_lossy());
        Self::of_path(path)?;
        umount2(path, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW).map_err(|errno| match errno {
            Errno::EINVAL => {
                at(Error::new(ErrorKind::InvalidArgument, "it is not mounted there").with_errno(libc::EINVAL))
            }
            _ => at(Error::os("umount", errno as i32)),
        })?;
        fs::remove_file(path).map_err(|e| at(Error::io("unlink", &e)))
    }

    /// A descriptor of it (CLOEXEC, the caller's), for setns(2) and the ioctls of ioctl_nsfs(2).
    pub fn try_clone_fd(&self) -> Result<OwnedFd> {
        self.fd.try_clone().map_err(|e| Error::io("dup", &e))
    }
}

/// include/linux/proc_ns.h: the inodes of the machine's first namespaces are fixed.
const FIRST_USER: u64 = 0xefff_fffd;
const FIRST_PID: u64 = 0xefff_fffc;

fn kind_of_flag(flag: u64) -> Option<NamespaceKind> {
    NamespaceKind::ALL.into_iter().find(|kind| clone_flag(*kind) == flag)
}

/// Opens what an O_PATH descriptor points to, if that is a namespace: any other file could block, or act, when it is opened.
fn reopen(found: BorrowedFd<'_>) -> io::Result<Option<OwnedFd>> {
    const NSFS_MAGIC: i64 = 0x6e73_6673;
    let system = nix::sys::statfs::fstatfs(found).map_err(io::Error::from)?;
    if system.filesystem_type().0 as i64 != NSFS_MAGIC {
        return Ok(None);
    }
    File::open(format!("/proc/self/fd/{}", found.as_raw_fd())).map(|file| Some(file.into()))
}

fn invalid(field: &str, detail: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidArgument, detail).with_field(field).with_errno(libc::EINVAL)
}

fn not_one() -> Error {
    Error::new(ErrorKind::InvalidArgument, "this is not a namespace").with_errno(libc::EINVAL)
}

fn check_pid(pid: i32) -> Result<()> {
    if pid > 0 { Ok(()) } else { Err(invalid("pid", format!("{pid} is no process id"))) }
}

fn no_process(pid: i32) -> Error {
    let what =
        if pid > 0 { format!("there is no process {pid}, or it has ended") } else { "the process has ended".into() };
    Error::new(ErrorKind::NotFound, what).with_field("pid").with_errno(libc::ESRCH)
}

/// Why a namespace of a process could not be opened.
fn of_process(error: &io::Error, kind: NamespaceKind, pid: i32) -> Error {
    match error.raw_os_error() {
        _ if fs::symlink_metadata(format!("/proc/self/ns/{}", kind.name())).is_err_and(is_missing) => {
            let what = format!("this kernel has no {} namespaces", kind.name());
            Error::new(ErrorKind::Unsupported, what).with_field("kind").with_errno(libc::EINVAL)
        }
        // A zombie has left its namespaces: its links are there, and lead nowhere.
        Some(libc::ENOENT | libc::ESRCH) => no_process(pid),
        _ => Error::io("open", error)
            .with_field("pid")
            .with_hint("to see the namespaces of another process takes the right to trace it (ptrace(2))"),
    }
}

fn is_missing(error: io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound && Path::new("/proc/self/ns").exists()
}

/// Device and inode.
type Key = (u64, u64);

fn key_of(path: impl AsRef<Path>) -> io::Result<Key> {
    fs::metadata(path).map(|found| (found.dev(), found.ino()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::pidfd::pidfd_open;

    /// What kernels before 6.11 leave: /proc.
    #[test]
    fn behind_a_pidfd_without_the_kernel_s_help() {
        let mut child = std::process::Command::new("sleep").arg("600").spawn().unwrap();
        let pidfd = pidfd_open(child.id() as i32).unwrap();
        for kind in NamespaceKind::ALL {
            let found = Namespace::of_pidfd_by_number(pidfd.as_fd(), kind).unwrap();
            assert_eq!(found, Namespace::own(kind).unwrap());
            assert_eq!(found, Namespace::of_pidfd(pidfd.as_fd(), kind).unwrap());
        }
        child.kill().unwrap();
        child.wait().unwrap();
        let error = Namespace::of_pidfd_by_number(pidfd.as_fd(), NamespaceKind::Net).unwrap_err();
        assert_eq!((error.kind(), error.errno()), (ErrorKind::NotFound, libc::ESRCH), "{error}");
    }

    #[test]
    fn every_flag_has_its_kind() {
        for kind in NamespaceKind::ALL {
            assert_eq!(kind_of_flag(clone_flag(kind)), Some(kind));
        }
        assert_eq!(kind_of_flag(0), None);
    }
}
