//! Network devices that move into a container and back.

use std::fs::File;
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use nix::sched::{CloneFlags, setns};

use super::{Container, Inner, ended, lock, process_runs};
use crate::error::{Error, ErrorKind, Result};
use crate::launch::HostOnly;
use crate::net::netlink::{Batch, Socket};
use crate::net::{self, Address};
use crate::plan::container::namespace_source;
use crate::spec::net::{interface_syntax, interfaces};
use crate::spec::{Attachment, AttachmentKind, NamespaceKind, NamespaceSource, Net, Spec};
use crate::sys::rtnl;

/// A device that was moved in.
#[derive(Debug)]
pub(crate) struct Moved {
    /// Its number inside.
    index: u32,
    /// Its name before.
    name: String,
    /// Where it was.
    home: Arc<HostOnly>,
    /// Where it is. Holds the namespace, so that the device is not lost with the last process in it.
    away: Arc<HostOnly>,
    /// Its address and its largest packet before, where the container's spec has others.
    before: Option<([u8; 6], u32)>,
}

/// Runs `act` on a thread that is in another network namespace.
pub(crate) fn in_namespace<T: Send>(
    namespace: BorrowedFd<'_>,
    act: impl FnOnce() -> io::Result<T> + Send,
) -> io::Result<T> {
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

fn check_name(field: &'static str, name: &str) -> Result<()> {
    interface_syntax(name)
        .map_err(|why| Error::new(ErrorKind::InvalidArgument, why).with_field(field).with_errno(libc::EINVAL))
}

/// Moves a device of this thread's network namespace.
fn move_device(index: u32, namespace: BorrowedFd<'_>, name: &str, number: Option<u32>, up: bool) -> io::Result<()> {
    let mut batch = Batch::default();
    batch.move_device(index, namespace.as_raw_fd(), name, number, up);
    let moved = Socket::open(libc::NETLINK_ROUTE).and_then(|socket| socket.request(batch));
    moved.map_err(|e| io::Error::from_raw_os_error(e.errno()))
}

/// Moves it to where it gets a number that nobody can guess; `note` is told each that is tried.
fn move_in(index: u32, away: BorrowedFd<'_>, inside: &str, up: bool, mut note: impl FnMut(u32)) -> io::Result<u32> {
    let mut tries = 0;
    loop {
        let number = new_index();
        note(number);
        match move_device(index, away, inside, Some(number), up) {
            Err(e) if e.raw_os_error() == Some(libc::EBUSY) && tries < 16 => tries += 1,
            result => return result.map(|()| number),
        }
    }
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
    /// Moves a device of this thread's network namespace into that of a container that is being started.
    pub(crate) fn bring(device: &str, inside: &str, away: OwnedFd) -> Result<Self> {
        let (away, home) = (Arc::new(HostOnly::new(away)), Arc::new(HostOnly::new(own_namespace()?)));
        let index = rtnl::index(device).map_err(|e| failed("find", "device", device, &e))?;
        let look_at = |e: io::Error| failed("look at", "device", device, &e);
        let before = (rtnl::mac(device).map_err(look_at)?, rtnl::mtu(device).map_err(look_at)?);
        let mut moved = Self { index: 0, name: device.to_owned(), home, away: away.clone(), before: Some(before) };
        match move_in(index, away.as_fd(), inside, false, |number| moved.index = number) {
            Ok(_) => Ok(moved),
            Err(e) => {
                // A name that it cannot have there is found after the move: it is not left half way.
                let _ = moved.give_back();
                Err(failed("move", "device", device, &e))
            }
        }
    }

    /// Its number inside.
    pub(crate) fn index(&self) -> u32 {
        self.index
    }

    /// Down, because what it is now was the container's to decide: it may have another address, or be another device that was
    /// given its number.
    pub(crate) fn give_back(&self) -> io::Result<()> {
        in_namespace(self.away.as_fd(), || {
            if let Some((mac, mtu)) = self.before {
                let mut batch = Batch::default();
                batch.restore(self.index, mac, mtu);
                // What cannot be restored is no reason to keep it.
                let _ = Socket::open(libc::NETLINK_ROUTE).and_then(|socket| socket.request(batch));
            }
            let here = || nix::net::if_::if_indextoname(self.index).is_ok();
            match move_device(self.index, self.home.as_fd(), &self.name, None, false) {
                // Somebody has taken its name meanwhile. It is there under its name inside, or that is taken as well: then any
                // other, as the kernel does it.
                Err(e) if e.raw_os_error() == Some(libc::EEXIST) && here() => {
                    move_device(self.index, self.home.as_fd(), "dev%d", None, false)
                }
                Err(e) if e.raw_os_error() == Some(libc::EEXIST) => Ok(()),
                result => result,
            }
        })
    }
}

impl Inner {
    /// At the end, when no process is left. What the container has deleted or moved on is not to be had; what fails otherwise
    /// is tried again by the next who asks.
    pub(super) fn give_devices_back(&self) {
        let devices = std::mem::take(&mut *lock(&self.devices));
        for device in devices {
            match device.give_back() {
                Ok(()) => {}
                Err(e) => {
                    log::warn!("the network device {:?} of container {} does not come back: {e}", device.name, self.id);
                    if e.raw_os_error() != Some(libc::ENODEV) && device.away.is_open() {
                        lock(&self.devices).push(device);
                    }
                }
            }
        }
    }

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
            return Err(ended());
        }
        opened.map_err(|e| failed("open", "device", &path, &e))
    }
}

/// A number for a device that none has. By its name one inside could not be found again: that is the container's to change. Nor may
/// the container guess it, and give it to a device of its own.
pub(crate) fn new_index() -> u32 {
    const FIRST: u32 = 1 << 20;
    FIRST + (RandomState::new().hash_one(0) as u32) % (1 << 29)
}

impl Container {
    /// Moves a network device of this thread's network namespace into the container, where it is called `inside` (by default
    /// as here). It is up there if it was up here; the kernel takes its addresses and routes from it.
    ///
    /// [`detach_device`](Self::detach_device) brings it back under its own name, down; so does the end of the container, as long
    /// as this program lives and has a handle of it (of a detached container, it has to do so before). Otherwise the kernel
    /// gives physical devices to the machine's first network namespace, under their names inside, and deletes virtual ones. With CAP_NET_ADMIN the container
    /// can change everything about the device, and delete or replace a virtual one: look at it before it is used again.
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
        let away = Arc::new(HostOnly::new(inner.network()?));
        let home = Arc::new(HostOnly::new(own_namespace()?));
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
        // Noted before it moves, so that whoever sees the end gives it back.
        let note = |number| Moved {
            index: number,
            name: device.to_owned(),
            home: home.clone(),
            away: away.clone(),
            before: None,
        };
        let mut noted = None;
        let moved = move_in(index, away.as_fd(), inside, up, |number| {
            let mut devices = lock(&inner.devices);
            devices.retain(|one| Some(one.index) != noted);
            devices.push(note(number));
            noted = Some(number);
        });
        let number = noted.unwrap_or_default();
        let forget = || lock(&inner.devices).retain(|noted| noted.index != number);
        if let Err(e) = moved {
            forget();
            let taken = e.raw_os_error() == Some(libc::EEXIST);
            if taken {
                // A rename that failed comes after the move: it is not left half way.
                let _ = note(number).give_back();
            }
            return Err(failed("move", if taken { "inside" } else { "device" }, device, &e));
        }
        // The end may have been seen before the move.
        if !process_runs(&inner.pidfd) {
            forget();
            note(number).give_back().map_err(|e| failed("give back", "device", device, &e))?;
            return Err(ended());
        }
        Ok(())
    }

    /// Brings the network device that is called `inside` in the container back to where it was before
    /// [`attach_device`](Self::attach_device), with its name from there. It is down.
    ///
    /// # Errors
    /// InvalidArgument with field `inside` for what is no name; NotFound (`inside`) for what this handle did not bring in;
    /// AlreadyExists (`inside`) when the name is taken there; PermissionDenied and Closed as with `attach_device`.
    pub fn detach_device(&self, inside: &str) -> Result<()> {
        let inner = self.open()?;
        check_name("inside", inside)?;
        let away = inner.network()?;
        let index =
            in_namespace(away.as_fd(), || rtnl::index(inside)).map_err(|e| failed("find", "inside", inside, &e))?;
        let found = {
            let mut devices = lock(&inner.devices);
            devices.iter().position(|device| device.index == index).map(|at| devices.remove(at))
        };
        let Some(device) = found else {
            return Err(Error::new(
                ErrorKind::NotFound,
                format!("{inside:?} was not brought in by attach_device of this handle"),
            )
            .with_field("inside")
            .with_errno(libc::ENODEV)
            .with_hint("what the container made itself is not for the host"));
        };
        let result = match in_namespace(device.home.as_fd(), || rtnl::index(&device.name)) {
            Ok(_) => Err(failed("move", "inside", &device.name, &io::Error::from_raw_os_error(libc::EEXIST))),
            Err(_) => device.give_back().map_err(|e| failed("move", "inside", inside, &e)),
        };
        if result.is_err() {
            lock(&inner.devices).push(device);
        } else {
            lock(&self.of_network().kept).forget(index);
        }
        result
    }

    /// Gives the container one more device while it runs, of any kind that the field `net` has: on a [`Network`](crate::Network), or on a
    /// device of the host. What is not said is chosen as at a start; the name inside is the first of `eth0`, `eth1`, … that is free.
    ///
    /// In a pod that shares its network it is a device of all. On a network the others find the container by its names at once;
    /// it finds them by name if its /etc/hosts is one that its networks keep current, which a container has that was started on a
    /// network and has `hosts` of its own or several networks: others find by address. It goes by [`detach_net`](Self::detach_net) or with
    /// the container.
    ///
    /// # Errors
    /// As a start with this `net`; AlreadyExists (`net.interface`) when there is a device of that name inside; InvalidArgument
    /// (`net`) when the container has no network namespace of its own, is detached, or is another program's; Closed. Then nothing has changed.
    pub fn attach_net(&self, attachment: &Attachment) -> Result<Address> {
        let inner = self.own_network()?;
        Spec::new().net(Net::Attached(vec![attachment.clone()])).validate()?;
        if matches!(attachment.kind, AttachmentKind::Macvtap { .. }) {
            let what = "the node of a macvtap is made while its container starts";
            return Err(Error::new(ErrorKind::Unsupported, what)
                .with_field("net.macvtap")
                .with_errno(libc::EOPNOTSUPP));
        }
        let socket = self.netlink()?;
        // One at a time: a name is not given twice.
        let updating = lock(&inner.updating);
        let who = (inner.id.as_str(), &inner.spec, &inner.keeper);
        let mut new = net::Kept::attach(&inner.kept, who, attachment, socket)?;
        lock(&inner.devices).append(&mut new.moved);
        let address = new.devices.iter().find_map(net::Attached::address);
        lock(&inner.kept).devices.append(&mut new.devices);
        drop(updating);
        // The end may have been seen before.
        if !process_runs(&inner.pidfd) {
            inner.leave_networks();
            inner.give_devices_back();
            return Err(ended());
        }
        address.ok_or_else(|| Error::new(ErrorKind::Closed, "the network has ended").with_errno(libc::ESRCH))
    }

    /// As [`attach_net`](Self::attach_net), with the value that the field `net` would have, as [`Spec::set`] takes it. Returns what
    /// [`addresses_json`](Self::addresses_json) tells of the device.
    pub fn attach_net_json(&self, net: &str) -> Result<String> {
        let mut spec = Spec::new();
        spec.set("net", net.as_bytes())?;
        match &spec.net {
            Net::Attached(list) if list.len() == 1 => Ok(self.attach_net(&list[0])?.describe().to_string()),
            _ => Err(Error::spec("net", "is not one device: network:NAME, bridge:NAME, … or an object")),
        }
    }

    /// Takes a device from the container that the field `net` or [`attach_net`](Self::attach_net) gave it, by the name that it had then. Its
    /// addresses are free, its names are not found any more; a device of the host comes back as at the end.
    ///
    /// # Errors
    /// NotFound (`interface`) for what was not given so; InvalidArgument and Closed as with `attach_net`.
    pub fn detach_net(&self, interface: &str) -> Result<()> {
        let inner = self.own_network()?;
        let socket = self.netlink()?;
        // As with who gives one.
        let _updating = lock(&inner.updating);
        let is_macvtap = |one: &Attachment| matches!(one.kind, AttachmentKind::Macvtap { .. });
        let list = inner.spec.net.attachments();
        if list.iter().zip(interfaces(list)).any(|(one, name)| is_macvtap(one) && name == interface) {
            let what = format!("{interface:?} is a macvtap, whose node would be the next one's on the host");
            return Err(Error::new(ErrorKind::Unsupported, what).with_field("interface").with_errno(libc::EOPNOTSUPP));
        }
        let Some((device, comes_back)) = lock(&inner.kept).take(interface) else {
            let what = format!("{interface:?} is no device that the field net or attach_net gave the container");
            return Err(Error::new(ErrorKind::NotFound, what).with_field("interface").with_errno(libc::ENODEV));
        };
        let Some(number) = comes_back else {
            return net::remove(&inner.kept, device, socket).map_err(|failed| {
                let (device, error) = *failed;
                lock(&inner.kept).devices.push(device);
                error.with_field("interface")
            });
        };
        let found = {
            let mut devices = lock(&inner.devices);
            devices.iter().position(|device| device.index == number).map(|at| devices.remove(at))
        };
        let Some(moved) = found else { return Ok(()) };
        moved.give_back().map_err(|e| {
            lock(&inner.devices).push(moved);
            lock(&inner.kept).devices.push(device);
            failed("move", "interface", interface, &e)
        })
    }

    /// Whose network it has, if devices can come and go.
    fn own_network(&self) -> Result<&Arc<Inner>> {
        self.open()?;
        let inner = self.of_network();
        let refused =
            |why: &str| Err(Error::new(ErrorKind::InvalidArgument, why).with_field("net").with_errno(libc::EINVAL));
        if namespace_source(&inner.spec, NamespaceKind::Net) != NamespaceSource::New {
            return refused("the container has no network namespace of its own");
        }
        if inner.spec.detach {
            return refused("a detached container would outlive the networks of this program");
        }
        if inner.channel.is_none() {
            return refused("the container is another program's");
        }
        if !process_runs(&inner.pidfd) {
            return Err(ended());
        }
        Ok(inner)
    }

    /// A socket of rtnetlink(7) inside.
    pub(super) fn netlink(&self) -> Result<OwnedFd> {
        self.socket(libc::AF_NETLINK, libc::SOCK_RAW, libc::NETLINK_ROUTE)
    }
}
