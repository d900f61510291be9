//! Devices of a container that are on the host's.

use std::ffi::CString;
use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use ipnet::IpNet;
use netlink_packet_core::Parseable as _;
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{InfoKind, LinkAttribute, LinkInfo, LinkMessage, State};

use super::announce::{Who, announce};
use super::claim;
use super::link::{End, Remote};
use super::netlink::{Batch, Socket};
use super::network::{Address, ways};
use super::routed::{Routed, sweep};
use crate::container::{Moved, in_namespace, new_index};
use crate::error::{Error, ErrorKind, Result};
use crate::launch::HostOnly;
use crate::spec::{Attachment, AttachmentKind, InterfaceAddress};
use crate::sys::{fs, rtnl};

/// A device that is no network's of this program.
#[derive(Debug)]
pub(super) struct Other {
    attachment: Attachment,
    interface: String,
    /// Its number inside.
    inside: u32,
    /// For errors: `net`, `net[1]`.
    field: String,
    /// The host's own device, which comes back.
    moved: Option<Moved>,
    taps: Option<Taps>,
    /// What its addresses have on the host.
    routed: Option<Routed>,
    /// What says that its addresses are taken.
    claims: Option<Socket>,
}

/// Where nodes of macvtaps are made, and whose they are, by the host's ids.
#[derive(Clone, Debug)]
pub(crate) struct Taps {
    pub directory: Arc<HostOnly>,
    pub owner: (u32, u32),
    /// Of those that are made.
    pub numbers: Arc<Mutex<Vec<u64>>>,
}

/// A device of a container that runs, on one of the host.
#[derive(Debug)]
pub(crate) struct OnHost {
    pub address: Address,
    /// Its number inside.
    pub inside: u32,
    /// It is the host's own device.
    pub comes_back: bool,
    /// See [`ways`].
    pub ways: Vec<IpAddr>,
    pub subnets: Vec<IpNet>,
    /// Given back with it.
    _routed: Option<Routed>,
    _claims: Option<Socket>,
}

impl Drop for Other {
    fn drop(&mut self) {
        // A start that failed: with the container's namespace a virtual device would go.
        if let Some(moved) = self.moved.take() {
            let _ = moved.give_back();
        }
    }
}

pub(super) fn subnet(of: InterfaceAddress) -> IpNet {
    let bits = if of.address.is_ipv4() { 32 } else { 128 };
    IpNet::new(of.address, of.prefix.unwrap_or(bits)).expect("the prefix was checked")
}

/// Everywhere, in the family of this address.
pub(super) fn everywhere(like: IpAddr) -> IpNet {
    let text = if like.is_ipv4() { "0.0.0.0/0" } else { "::/0" };
    text.parse().expect("it is a subnet")
}

/// The device number of a macvtap of this thread's network namespace. A sysfs shows those of the namespace that mounted it.
fn tap_number(index: u32) -> std::io::Result<u64> {
    let sysfs = fs::Context::open(c"sysfs").and_then(|context| context.create().and_then(|()| context.mount()));
    let sysfs = sysfs.map_err(std::io::Error::from_raw_os_error)?;
    let path = format!("/proc/thread-self/fd/{}/class/macvtap/tap{index}/dev", sysfs.as_raw_fd());
    let text = std::fs::read_to_string(path)?;
    let numbers =
        text.trim().split_once(':').and_then(|(major, minor)| Some((major.parse().ok()?, minor.parse().ok()?)));
    let (major, minor) = numbers.ok_or_else(|| std::io::Error::from_raw_os_error(libc::EBADMSG))?;
    Ok(libc::makedev(major, minor))
}

/// Waits until the kernel has seen that a port of a bridge has somebody at its other end, which it does later, by itself
/// (net/core/link_watch.c): until then the bridge takes nothing from it.
fn wait_for_port(index: u32) {
    /// It takes less than a millisecond, unless the machine has much else to do.
    const PATIENCE: Duration = Duration::from_millis(100);
    let Ok(socket) = Socket::open(libc::NETLINK_ROUTE) else { return };
    let began = Instant::now();
    while began.elapsed() < PATIENCE && !is_operational(&socket, index) {
        std::thread::sleep(Duration::from_micros(200));
    }
}

fn is_operational(socket: &Socket, index: u32) -> bool {
    let Ok(link) = look_at(socket, index) else { return true };
    link.is_none_or(|link| link.attributes.contains(&LinkAttribute::OperState(State::Up)))
}

fn is_bridge(index: u32) -> Result<bool> {
    let link = look_at(&Socket::open(libc::NETLINK_ROUTE)?, index)?;
    Ok(link.is_some_and(|link| {
        link.attributes.iter().any(|attribute| match attribute {
            LinkAttribute::LinkInfo(info) => info.contains(&LinkInfo::Kind(InfoKind::Bridge)),
            _ => false,
        })
    }))
}

/// What the kernel says of a device, if it can be read.
fn look_at(socket: &Socket, index: u32) -> Result<Option<LinkMessage>> {
    let mut question = LinkMessage::default();
    question.header.index = index;
    let found = socket.ask(0, RouteNetlinkMessage::GetLink(question), "find device", "")?;
    Ok(found.first().and_then(|bytes| LinkMessage::parse(bytes).ok()))
}

impl Other {
    pub fn new(attachment: &Attachment, interface: String, inside: u32, field: String) -> Result<Self> {
        // The kernel calls the node of a macvtap by this number on the machine's own /dev, too: it must be nobody else's there.
        let inside = if matches!(attachment.kind, AttachmentKind::Macvtap { .. }) { new_index() } else { inside };
        let attachment = attachment.clone();
        let mut other =
            Self { attachment, interface, inside, field, moved: None, taps: None, routed: None, claims: None };
        if let AttachmentKind::Routed { outer, .. } = &other.attachment.kind {
            let index = other.find(outer)?;
            // What a killed keeper left would be answered for wrongly until somebody says so.
            let _ = sweep();
            let routed = Routed::new(&other.attachment, outer, index, &other.field)?;
            other.attachment.addresses = routed.addresses().iter().map(|address| (*address).into()).collect();
            other.routed = Some(routed);
        } else if other.attachment.families().next().is_some() {
            other.claim()?;
        }
        Ok(other)
    }

    /// What names the wire that the addresses are on.
    fn wire(&self) -> String {
        match &self.attachment.kind {
            AttachmentKind::Vlan { parent, id } => format!("{parent}.{id}"),
            _ => self.attachment.target().1.to_owned(),
        }
    }

    /// Takes the addresses, so that no other container of this machine has them on this wire, and chooses some.
    fn claim(&mut self) -> Result<()> {
        let (wire, field) = (self.wire(), self.field.clone());
        let at = |error: Error, key: &str| error.with_field(format!("{field}.{key}"));
        let socket = Socket::open(libc::NETLINK_NETFILTER)?;
        for (i, one) in self.attachment.addresses.iter().enumerate() {
            match claim::claim(&socket, &claim::name_of(Some(&wire), one.address)) {
                Ok(true) => {}
                Ok(false) => {
                    let what = format!("{} is another container's on {wire}", one.address);
                    let error = Error::new(ErrorKind::AlreadyExists, what).with_errno(libc::EADDRINUSE);
                    return Err(at(error, &format!("addresses[{i}]")));
                }
                // Who may not do it, or whose kernel cannot: what is asked for is had all the same.
                Err(_) if self.attachment.pool.is_empty() => return Ok(()),
                Err(error) => return Err(at(claim::explain(error), "pool")),
            }
        }
        for pool in std::mem::take(&mut self.attachment.pool) {
            let own: Vec<IpAddr> = self.attachment.addresses.iter().map(|one| one.address).collect();
            let gateways = self.attachment.gateways.clone();
            let suits = |address: IpAddr| Ok(!own.contains(&address) && !gateways.contains(&address));
            let address = claim::take(&socket, Some(&wire), &pool, suits).map_err(|e| at(claim::explain(e), "pool"))?;
            self.attachment.addresses.push(InterfaceAddress { address, prefix: pool.prefix });
        }
        self.claims = Some(socket);
        Ok(())
    }

    /// For a macvtap: the name and the number of its device inside.
    pub fn tap(&self) -> Option<(&str, u32)> {
        matches!(self.attachment.kind, AttachmentKind::Macvtap { .. }).then_some((&*self.interface, self.inside))
    }

    /// The field that asks for it.
    pub fn field(&self) -> String {
        format!("{}.{}", self.field, self.attachment.target().0)
    }

    /// Those of its addresses.
    pub fn subnets(&self) -> Vec<IpNet> {
        self.attachment.addresses.iter().map(|address| subnet(*address)).collect()
    }

    pub fn take_taps(&mut self, taps: Taps) {
        self.taps = Some(taps);
    }

    /// Makes the node of a macvtap. The kernel has just chosen its number.
    fn make_node(&self, namespace: &OwnedFd, taps: &Taps) -> Result<()> {
        let step = "make node of macvtap";
        let failed = |e: std::io::Error| Error::io(step, &e).with_field(self.field()).with_path(&*self.interface);
        let number = in_namespace(namespace.as_fd(), || tap_number(self.inside)).map_err(failed)?;
        let name = CString::new(&*self.interface).expect("the name was checked");
        fs::make_node(taps.directory.as_fd(), &name, libc::S_IFCHR, number, taps.owner, 0o600)
            .map_err(|errno| failed(std::io::Error::from_raw_os_error(errno)))?;
        taps.numbers.lock().unwrap_or_else(|e| e.into_inner()).push(number);
        Ok(())
    }

    /// An error of the kind's own field: `net.macvlan`.
    fn explain(&self, error: Error) -> Error {
        let (kind, name) = self.attachment.target();
        let error = match error.field() {
            Some(field) if field.starts_with(&self.field) => error,
            _ => error.with_field(self.field()),
        };
        match error.errno() {
            libc::EPERM => error
                .with_kind(ErrorKind::PermissionDenied)
                .with_hint("it takes CAP_NET_ADMIN in this program's network; a Network takes no rights"),
            libc::EOPNOTSUPP if error.hint().is_some() => error,
            libc::EOPNOTSUPP if kind != "bridge" => error.with_kind(ErrorKind::Unsupported).with_hint(format!(
                "it takes a kernel with CONFIG_{}",
                match kind {
                    "vlan" => "VLAN_8021Q".to_owned(),
                    "routed" => match &self.attachment.kind {
                        AttachmentKind::Routed { pair, .. } => pair.name().to_uppercase(),
                        _ => String::new(),
                    },
                    kind => kind.to_uppercase(),
                }
            )),
            libc::EOPNOTSUPP => {
                error.with_kind(ErrorKind::InvalidSpec).with_hint(format!("{name:?} is perhaps no bridge"))
            }
            libc::EBUSY => error
                .with_kind(ErrorKind::AlreadyExists)
                .with_hint("the device is used otherwise: by a bridge, a bond, a macvlan or an ipvlan"),
            _ => error,
        }
    }

    /// The number of a device of this thread's network namespace.
    fn find(&self, name: &str) -> Result<u32> {
        rtnl::index(name).map_err(|e| {
            let (kind, _) = self.attachment.target();
            let error = Error::io("find device", &e).with_path(name).with_field(format!("{}.{kind}", self.field));
            if e.raw_os_error() == Some(libc::ENODEV) { error.with_kind(ErrorKind::NotFound) } else { error }
        })
    }

    /// Makes the device, which is then in the container's namespace, of which `socket` is one.
    pub fn connect(&mut self, socket: &Socket, namespace: &OwnedFd) -> Result<()> {
        let one = &self.attachment;
        let remote = Remote {
            end: End { index: self.inside, name: &self.interface },
            namespace: namespace.as_raw_fd(),
            mac: one.mac,
            mtu: one.mtu,
        };
        let mut batch = Batch::default();
        let mut port = None;
        match &one.kind {
            AttachmentKind::Network(_) => return Err(Error::new(ErrorKind::Internal, "a network is no other device")),
            AttachmentKind::Device(name) => {
                let away = namespace.try_clone().map_err(|e| Error::io("dup", &e))?;
                let moved = Moved::bring(name, &self.interface, away).map_err(|e| self.explain(e))?;
                self.inside = moved.index();
                self.moved = Some(moved);
            }
            kind @ (AttachmentKind::Bridge(name) | AttachmentKind::Netkit(name)) => {
                let bridge = self.find(name)?;
                let is_netkit = matches!(kind, AttachmentKind::Netkit(_));
                // Of a kernel without netkit the error would be the same.
                if is_netkit && !is_bridge(bridge)? {
                    let what = format!("{name:?} is not a bridge");
                    return Err(Error::spec(self.field(), what));
                }
                // A port with less would make the bridge's own less.
                let near = rtnl::mtu(name).ok();
                let mtu = one.mtu.or(near);
                // The container's end has its number only if this one has; any name that is free.
                let here = End { index: new_index(), name: "rf%d" };
                port = Some(here.index);
                let remote = Remote { mtu, ..remote };
                match is_netkit {
                    true => batch.netkit(&here, near, &remote, Some(bridge)),
                    false => batch.veth(&here, near, &remote, Some(bridge)),
                }
            }
            AttachmentKind::Routed { pair, .. } => {
                let routed = self.routed.as_mut().expect("it was made with the rest");
                let made = routed.connect(&remote, *pair, namespace);
                made.map_err(|e| self.explain(e))?;
            }
            kind @ (AttachmentKind::Macvlan { parent, .. }
            | AttachmentKind::Macvtap { parent, .. }
            | AttachmentKind::Ipvlan { parent, .. }
            | AttachmentKind::Vlan { parent, .. }) => {
                let parent = self.find(parent)?;
                batch.on_parent(&remote, parent, kind);
            }
        }
        Socket::open(libc::NETLINK_ROUTE)?.request(batch).map_err(|e| self.explain(e))?;
        if let Some(taps) = &self.taps {
            self.make_node(namespace, taps)?;
        }
        let one = &self.attachment;
        let end = End { index: self.inside, name: &self.interface };
        let mut batch = Batch::default();
        if let Some(mtu) = one.mtu.filter(|_| self.moved.is_some()) {
            batch.set_mtu(&end, mtu);
        }
        if let Some(mac) = one.mac.filter(|_| self.moved.is_some()) {
            batch.set_mac(&end, mac);
        }
        batch.set_up(&end, true);
        one.addresses.iter().for_each(|address| batch.address(&end, subnet(*address)));
        match &self.routed {
            Some(routed) => routed.routes(&end, &one.routes, &mut batch),
            None => one.routes.iter().for_each(|route| batch.route(&end, subnet(route.to), route.via)),
        }
        one.gateways.iter().for_each(|gateway| batch.route(&end, everywhere(*gateway), Some(*gateway)));
        socket.request(batch).map_err(|e| e.with_field(self.field.clone()))?;
        match &self.routed {
            Some(routed) => routed.announce(),
            None => self.announce(namespace, port),
        }
        Ok(())
    }

    /// Tells the others on the wire whose the addresses are now: those of a pool had another container before, with another MAC. Where it
    /// cannot be said, they find out when they ask.
    fn announce(&self, namespace: &OwnedFd, port: Option<u32>) {
        let addresses: Vec<IpAddr> = self.attachment.addresses.iter().map(|one| one.address).collect();
        if addresses.is_empty() {
            return;
        }
        if let Some(port) = port {
            wait_for_port(port);
        }
        let _ = in_namespace(namespace.as_fd(), || announce(&self.interface, &addresses, Who::Host));
    }

    /// It stays.
    pub fn done(mut self) -> (OnHost, Option<Moved>) {
        let address = Address {
            network: None,
            interface: std::mem::take(&mut self.interface),
            addresses: self.attachment.addresses.iter().map(|one| one.address).collect(),
            mac: self.attachment.mac,
        };
        let moved = self.moved.take();
        let subnets = self.subnets();
        let (inside, ways) = (self.inside, ways(std::slice::from_ref(&self.attachment)));
        (
            OnHost {
                address,
                inside,
                comes_back: moved.is_some(),
                ways,
                subnets,
                _routed: self.routed.take(),
                _claims: self.claims.take(),
            },
            moved,
        )
    }
}
