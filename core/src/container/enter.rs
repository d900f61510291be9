//! Threads of the host inside the namespaces of a container.

use std::marker::PhantomData;
use std::os::fd::{AsFd, OwnedFd};

use nix::errno::Errno;
use nix::sched::{CloneFlags, setns, unshare};

use super::{Container, ended, process_runs};
use crate::error::{Error, ErrorKind, Result};
use crate::plan::container::{clone_flag, namespace_source};
use crate::spec::{NamespaceKind, NamespaceSource};
use crate::sys::pidfd::join;
use crate::sys::task::end_thread;

/// What a thread may join while its process has others: setns(2).
const JOINABLE: [NamespaceKind; 5] =
    [NamespaceKind::Net, NamespaceKind::Uts, NamespaceKind::Ipc, NamespaceKind::Cgroup, NamespaceKind::Mnt];

fn flag(kind: NamespaceKind) -> CloneFlags {
    CloneFlags::from_bits_retain(clone_flag(kind) as i32)
}

/// The calling thread in namespaces of a container, until this is dropped: then it is where it was. Made by
/// [`Container::lend`].
///
/// It belongs to its thread (it is not `Send`), and several are dropped in the reverse order of their making.
///
/// A thread that cannot be brought back (because it gave up CAP_SYS_ADMIN, or somebody closed the descriptors of its
/// namespaces) is ended there and then, without unwinding: to return it to a pool, where others would take it for one of the
/// host's, would be worse. Whoever joins it waits for ever: its stack stays, because other threads may have references to it. When it is
/// the main thread, the other threads live on until they end.
#[derive(Debug)]
#[must_use = "the thread leaves when this is dropped"]
pub struct Lent {
    /// Where the thread was.
    from: Vec<(NamespaceKind, OwnedFd)>,
    _of_its_thread: PhantomData<*const ()>,
}

impl Drop for Lent {
    fn drop(&mut self) {
        for (kind, namespace) in &self.from {
            let Err(errno) = setns(namespace, flag(*kind)) else { continue };
            log::error!("a thread cannot leave the {} namespace of a container: {errno}; it ends", kind.name());
            end_thread(70);
        }
    }
}

impl Container {
    /// Runs `act` inside, on a thread of its own that joins the namespaces of these `kinds` and ends afterwards; returns what
    /// `act` returns, and panics when it does.
    ///
    /// With `net` all sockets that `act` makes are the container's and stay so when they are handed out; with `mnt` paths are
    /// the container's, from its `/`; `uts` has its host name, `ipc` its message queues, `cgroup` its view of control groups. Threads and processes
    /// that `act` makes are inside, too. Everything else (memory, descriptors, user, process id, limits) stays the host's:
    /// data of the container are not trusted because of where they are read. No process is made.
    ///
    /// With `mnt`, load and execute nothing: a library (by dlopen(3), and so by getaddrinfo(3), getpwnam(3), iconv(3)) or a program that is
    /// found by its path is the container's, and would run with this program's rights. [`open_path`](Self::open_path) opens
    /// files, a command runs programs.
    ///
    /// ```no_run
    /// # fn main() -> ringfence::Result<()> {
    /// use ringfence::spec::NamespaceKind;
    ///
    /// let c = ringfence::Container::start(&ringfence::Spec::new())?;
    /// // The container's loopback device, this program's server.
    /// let listener = c.enter(&[NamespaceKind::Net], || std::net::TcpListener::bind("127.0.0.1:80"))?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// InvalidArgument with field `kinds` for none, for `pid`, `user` and `time`, which the kernel lets no thread of a program with
    /// several join, and for what the container shares with this program; PermissionDenied without CAP_SYS_ADMIN in the user
    /// namespaces of this program and of the namespace's owner (`mnt`: and CAP_SYS_CHROOT); Closed. Source: setns(2).
    pub fn enter<T: Send>(&self, kinds: &[NamespaceKind], act: impl FnOnce() -> T + Send) -> Result<T> {
        // Before a thread is made for it.
        self.entry(kinds)?;
        std::thread::scope(|scope| {
            let inside = || {
                self.join(kinds)?;
                Ok(act())
            };
            let thread = std::thread::Builder::new()
                .name("ringfence-enter".to_owned())
                .spawn_scoped(scope, inside)
                .map_err(|e| Error::io("clone", &e))?;
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Joins the calling thread for good: for a thread of the caller's that ends when it has done its work inside. See
    /// [`enter`](Self::enter), also for the errors; after an error the thread is where it was.
    ///
    /// With `mnt` it has a current directory and a umask of its own from then on, and starts at the container's `/`.
    pub fn join(&self, kinds: &[NamespaceKind]) -> Result<()> {
        let flags = self.entry(kinds)?;
        if flags.contains(CloneFlags::CLONE_NEWNS) {
            unshare(CloneFlags::CLONE_FS).map_err(|errno| Error::os("unshare", errno as i32))?;
        }
        self.join_at_once(flags)
    }

    /// Lends the calling thread to the container: until the value is dropped it is in its namespaces of these `kinds`, `net`,
    /// `uts`, `ipc` and `cgroup`. As [`enter`](Self::enter), without a thread: for a socket, or a few.
    ///
    /// Whatever else runs on this thread meanwhile is inside, too: hold it across no await. With `ipc`, semaphore operations that were
    /// to be undone at the thread's end (SEM_UNDO) are undone now, and shared memory is not detached at its end any more.
    ///
    /// # Errors
    /// As [`enter`](Self::enter), PermissionDenied also when the thread could not come back (its own namespace belongs to a user
    /// namespace over which it has no rights), and InvalidArgument for `mnt`: a thread that had a root and a current directory in common with others does
    /// not get them back.
    pub fn lend(&self, kinds: &[NamespaceKind]) -> Result<Lent> {
        let flags = self.entry(kinds)?;
        if flags.contains(CloneFlags::CLONE_NEWNS) {
            return Err(Error::new(
                ErrorKind::InvalidArgument,
                "a thread that was in another mnt namespace cannot come back",
            )
            .with_field("kinds")
            .with_hint("enter() has a thread for it that ends"));
        }
        let mut from: Vec<(NamespaceKind, OwnedFd)> = Vec::with_capacity(kinds.len());
        for kind in JOINABLE.into_iter().filter(|kind| flags.contains(flag(*kind))) {
            let path = format!("/proc/thread-self/ns/{}", kind.name());
            let file = std::fs::File::open(&path).map_err(|e| Error::io("open", &e).with_path(path))?;
            from.push((kind, file.into()));
        }
        // The way back first: who may join what is its own already may come back.
        for (kind, namespace) in &from {
            setns(namespace, flag(*kind)).map_err(|errno| {
                Error::os("setns", errno as i32).with_field("kinds").with_hint(
                    "a thread comes back with CAP_SYS_ADMIN over its own namespaces; enter() has a thread that ends",
                )
            })?;
        }
        self.join_at_once(flags)?;
        Ok(Lent { from, _of_its_thread: PhantomData })
    }

    /// All of them or, with an error, none.
    fn join_at_once(&self, flags: CloneFlags) -> Result<()> {
        let inner = self.open()?;
        join(inner.pidfd.as_fd(), flags).map_err(|errno| match errno {
            Errno::ESRCH => ended(),
            Errno::EPERM => Error::os("setns", errno as i32).with_field("kinds").with_hint(
                "a thread joins with CAP_SYS_ADMIN in its own user namespace and in that of the container (mnt: and CAP_SYS_CHROOT); \
                 without, spawn a command inside",
            ),
            _ => Error::os("setns", errno as i32).with_field("kinds"),
        })
    }

    /// The flags of `kinds` that a thread can join.
    fn entry(&self, kinds: &[NamespaceKind]) -> Result<CloneFlags> {
        let inner = self.open()?;
        let wrong = |detail: String| Error::new(ErrorKind::InvalidArgument, detail).with_field("kinds");
        if kinds.is_empty() {
            return Err(wrong("no kind of namespace is named".to_owned()));
        }
        let mut flags = CloneFlags::empty();
        for &kind in kinds {
            let name = kind.name();
            if !JOINABLE.contains(&kind) {
                let why = match kind {
                    NamespaceKind::Pid => {
                        "a thread cannot change its process id: only children can be in another pid namespace"
                    }
                    _ => "the kernel lets no thread of a program with several threads join it",
                };
                return Err(wrong(format!("{name}: {why}")).with_hint("spawn a command inside"));
            }
            if namespace_source(&inner.spec, kind) == NamespaceSource::Host {
                return Err(wrong(format!(
                    "the container has no {name} namespace of its own: this program is in it already"
                )));
            }
            flags |= flag(kind);
        }
        if !process_runs(&inner.pidfd) {
            return Err(ended());
        }
        Ok(flags)
    }
}
