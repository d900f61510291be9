//! Network devices that move into a container and back.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::sched::{CloneFlags, setns};

use super::{Container, Inner, lock, process_runs};
use crate::error::{Error, ErrorKind, Result};
use crate::plan::container::namespace_source;
use crate::spec::{NamespaceKind, NamespaceSource};
use crate::sys::rtnl;

/// A device that was moved in.
#[derive(Debug)]
pub(super) struct Moved {
    /// Its number inside.
    index: u32,
    /// Its name before.
    name: String,
    /// Where it was.
    home: OwnedFd,
    /// Where it is. Holds the namespace, so that the device is not lost with the last process in it.
    away: OwnedFd,
}

/// Runs `act` on a thread that is in another network namespace.
fn in_namespace<T: Send>(namespace: BorrowedFd<'_>, act: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    std::thread::scope(|scope| {
        let inside = || {
            setns(namespace, CloneFlags::CLONE_NEWNET)?;
            act()
        };
        let thread = std::thread::Builder::new().name("ringfence-device".to_owned()).spawn_scoped(scope, inside)?;
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

fn own_namespace() -> Result<OwnedFd> {
    let path = "/proc/thread-self/ns/net";
    File::open(path).map(OwnedFd::from).map_err(|e| Error::io("open", &e).with_path(path))
}

/// As the kernel's dev_valid_name().
fn check_name(field: &'static str, name: &str) -> Result<()> {
    let strange = |c: char| c == '/' || c == ':' || c == '%' || c == '\0' || c.is_ascii_whitespace();
    if name.is_empty() || name.len() >= libc::IFNAMSIZ || name == "." || name == ".." || name.contains(strange) {
        return Err(Error::new(ErrorKind::InvalidArgument, format!("{name:?} cannot be the name of a network device"))
            .with_field(field)
            .with_errno(libc::EINVAL)
            .with_hint("1 to 15 bytes without '/', ':', '%' and white space"));
    }
    Ok(())
}

fn failed(step: &str, field: &'static str, device: &str, e: &io::Error) -> Error {
    let error = Error::io(step, e).with_field(field).with_path(device);
    match e.raw_os_error() {
        Some(libc::ENODEV) => error.with_kind(ErrorKind::NotFound),
        Some(libc::EPERM) => error.with_hint(
            "it takes CAP_SYS_ADMIN and CAP_NET_ADMIN in the user namespaces of this program and of both network namespaces",
        ),
        Some(libc::EINVAL) => error.with_hint("the kernel moves no loopback devices, bridges and others that are one namespace's own"),
        Some(libc::EEXIST) => error.with_kind(ErrorKind::AlreadyExists).with_detail("there is a device of that name"),
        _ => error,
    }
}

impl Moved {
    fn give_back(&self) -> io::Result<()> {
        in_namespace(self.away.as_fd(), || {
            let name = || nix::net::if_::if_indextoname(self.index);
            let up = rtnl::is_up(&name()?.to_string_lossy())?;
            match rtnl::move_device(self.index, self.home.as_fd(), &self.name, up) {
                // Somebody has taken its name meanwhile. It is there under its name inside, or that is taken as well: then any
                // other, as the kernel does it.
                Err(e) if e.raw_os_error() == Some(libc::EEXIST) => match name() {
                    Ok(_) => rtnl::move_device(self.index, self.home.as_fd(), "dev%d", up),
                    Err(_) => Ok(()),
                },
                result => result,
            }
        })
    }
}

impl Inner {
    /// At the end. What the container has deleted or moved on is not to be had.
    pub(super) fn give_devices_back(&self) {
        for device in lock(&self.devices).drain(..) {
            if let Err(e) = device.give_back() {
                log::warn!("the network device {:?} of container {} does not come back: {e}", device.name, self.id);
            }
        }
    }
}

impl Container {
    /// Moves a network device of this thread's network namespace into the container, where it is called `inside` (by default
    /// as here). It is up there if it was up here; the kernel takes its addresses and routes from it.
    ///
    /// [`detach_device`](Self::detach_device) brings it back under its own name; so does the end of the container, as long as
    /// this program lives and has a handle of it (of a detached container, it has to do so before). Otherwise the kernel gives
    /// physical devices to the machine's first network namespace, and deletes virtual ones.
    ///
    /// # Errors
    /// InvalidArgument with field `device` or `inside` for what is no name, and when the container has no network namespace of
    /// its own; NotFound (`device`); AlreadyExists (`inside`); PermissionDenied without CAP_SYS_ADMIN and CAP_NET_ADMIN here and in
    /// the container's user namespace; Closed. Then it is where it was. Source: rtnetlink(7), IFLA_NET_NS_FD.
    pub fn attach_device(&self, device: &str, inside: Option<&str>) -> Result<()> {
        let inner = self.open()?;
        check_name("device", device)?;
        let inside = inside.unwrap_or(device);
        check_name("inside", inside)?;
        let away = inner.network()?;
        let home = own_namespace()?;
        let index = rtnl::index(device).map_err(|e| failed("find", "device", device, &e))?;
        let up = rtnl::is_up(device).map_err(|e| failed("look at", "device", device, &e))?;
        // The kernel would see it after the move only.
        match in_namespace(away.as_fd(), || rtnl::index(inside)) {
            Err(e) if e.raw_os_error() == Some(libc::ENODEV) => {}
            Ok(_) => {
                let taken = io::Error::from_raw_os_error(libc::EEXIST);
                return Err(failed("move", "inside", inside, &taken));
            }
            Err(e) => return Err(failed("setns", "device", device, &e)),
        }
        let moved = rtnl::move_device(index, away.as_fd(), inside, up);
        // Its number may have been taken in there.
        let found = in_namespace(away.as_fd(), || rtnl::index(inside).or_else(|_| rtnl::index(device)));
        let record = |index| Moved { index, name: device.to_owned(), home, away };
        match (moved, found) {
            (Ok(()), Ok(index)) => {
                lock(&inner.devices).push(record(index));
                Ok(())
            }
            (Err(e), Ok(index)) if rtnl::index(device).is_err() => {
                // A rename that failed: it is not left half way.
                let _ = record(index).give_back();
                Err(failed("rename", "inside", inside, &e))
            }
            (Err(e), _) | (Ok(()), Err(e)) => Err(failed("move", "device", device, &e)),
        }
    }

    /// Brings the network device that is called `inside` in the container to where it was before
    /// [`attach_device`](Self::attach_device), with its name from there; one that this handle did not bring in, to this thread's
    /// network namespace. It is up if it was up inside.
    ///
    /// # Errors
    /// InvalidArgument and NotFound with field `inside`; AlreadyExists when the name is taken here; PermissionDenied and Closed as
    /// with `attach_device`.
    pub fn detach_device(&self, inside: &str) -> Result<()> {
        let inner = self.open()?;
        check_name("inside", inside)?;
        let away = inner.network()?;
        let find = || Ok((rtnl::index(inside)?, rtnl::is_up(inside)?));
        let (index, up) = in_namespace(away.as_fd(), find).map_err(|e| failed("find", "inside", inside, &e))?;
        let mut devices = lock(&inner.devices);
        let known = devices.iter().position(|device| device.index == index);
        let own = if known.is_none() { Some(own_namespace()?) } else { None };
        let (home, name) = match (known, &own) {
            (Some(at), _) => (devices[at].home.as_fd(), devices[at].name.clone()),
            (None, own) => (own.as_ref().expect("just opened").as_fd(), inside.to_owned()),
        };
        let taken = in_namespace(home, || rtnl::index(&name));
        if taken.is_ok() {
            return Err(failed("move", "inside", &name, &io::Error::from_raw_os_error(libc::EEXIST)));
        }
        in_namespace(away.as_fd(), || rtnl::move_device(index, home, &name, up))
            .map_err(|e| failed("move", "inside", inside, &e))?;
        if let Some(at) = known {
            devices.remove(at);
        }
        Ok(())
    }
}

impl Inner {
    /// Its network namespace.
    fn network(&self) -> Result<OwnedFd> {
        if namespace_source(&self.spec, NamespaceKind::Net) == NamespaceSource::Host {
            return Err(Error::new(
                ErrorKind::InvalidArgument,
                "the container has no network namespace of its own: this program's devices are in it already",
            )
            .with_field("device"));
        }
        let path = format!("/proc/{}/ns/net", self.pid);
        let opened = File::open(&path).map(OwnedFd::from);
        // The number is pid 1's only as long as its pidfd says that it runs.
        if !process_runs(&self.pidfd) {
            return Err(Error::new(ErrorKind::Closed, "the container has ended").with_errno(libc::ESRCH));
        }
        opened.map_err(|e| failed("open", "device", &path, &e))
    }
}
