//! A container that is being started, or gets one more device, and what it has of networks then.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::{Arc, Mutex};

use ipnet::IpNet;

use super::hosts::{OwnHosts, has_own_hosts};
use super::link::{Attached, Link, settle};
use super::registry::{find, overlap, unknown};
use super::{FIRST_INSIDE, Shared, closed, lock};
use crate::container::{Moved, new_index};
use crate::error::{Error, ErrorKind, Result};
use crate::launch::{HostOnly, Keeper};
use crate::net::attach::{Other, Taps};
use crate::net::link::End;
use crate::net::netlink::{Batch, Socket};
use crate::plan::container::hosts_text;
use crate::spec;
use crate::spec::net::interfaces;
use crate::spec::{Attachment, AttachmentKind, Spec};

/// A device that is still to be made, or was just made.
#[derive(Debug)]
enum Joined {
    Link(Link),
    Other(Box<Other>),
}

/// The devices of a container that is being started.
#[derive(Debug, Default)]
pub(crate) struct Joining {
    all: Vec<Joined>,
    /// /etc/hosts in the container is a file of its own, which is sent.
    own_hosts: bool,
    front: String,
    file: Option<OwnedFd>,
    own: Option<Arc<OwnHosts>>,
    /// Its devices are there.
    connected: bool,
    /// Networks of the pod that it is in.
    of_pod: Vec<(Arc<Shared>, u32)>,
    /// Addresses of the families of IP in which it has a way to everywhere.
    ways: Vec<IpAddr>,
    /// Of each device the subnets, and the name of the network that has them.
    subnets: Vec<(Vec<IpNet>, Option<String>)>,
    failed: Option<Error>,
}

fn other_keeper(name: &str) -> Error {
    let what = format!("network {name:?} was made in another user namespace than the container would be");
    Error::new(ErrorKind::Unsupported, what)
        .with_field("net")
        .with_errno(libc::EPERM)
        .with_hint("an ordinary user's containers and networks that have to do with each other are started by threads with the same credentials, the networks first")
}

/// Ways to everywhere that these devices have without a network: of each family a container has one. Those that are named go before that of a
/// network.
pub(in crate::net) fn ways(list: &[Attachment]) -> Vec<IpAddr> {
    let routed = list.iter().filter(|one| matches!(one.kind, AttachmentKind::Routed { .. }) && one.routes.is_empty());
    let gateways = list.iter().flat_map(|one| &one.gateways).copied();
    let like = |ipv4: bool| if ipv4 { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    gateways.chain(routed.flat_map(|one| one.families().map(like))).collect()
}

impl Joining {
    /// Takes addresses, and makes names known, for a container with this spec.
    pub fn begin(spec: &Spec, keeper: &Arc<Keeper>) -> Result<Self> {
        let list = spec.net.attachments();
        let mut joining = Self::default();
        let names: Vec<String> = [&spec.name, &spec.hostname].into_iter().flatten().cloned().collect();
        joining.ways = ways(list);
        for (i, (one, interface)) in list.iter().zip(interfaces(list)).enumerate() {
            let inside = FIRST_INSIDE + i as u32;
            let field = if list.len() == 1 { "net".to_owned() } else { format!("net[{i}]") };
            joining.add(one, interface, inside, field, &names, keeper)?;
        }
        joining.own_hosts = has_own_hosts(spec, joining.links().count());
        joining.front = hosts_text(spec, true).unwrap_or_default();
        Ok(joining)
    }

    fn add(
        &mut self,
        one: &Attachment,
        interface: String,
        inside: u32,
        field: String,
        names: &[String],
        keeper: &Arc<Keeper>,
    ) -> Result<()> {
        let Some(name) = one.on_network() else {
            let other = Box::new(Other::new(one, interface, inside, field.clone())?);
            self.reach(other.subnets(), None).map_err(|e| e.with_field(field))?;
            self.all.push(Joined::Other(other));
            return Ok(());
        };
        let missing = || unknown(name).with_field(&*field).with_hint("Network::start makes one");
        let network = find(name).ok_or_else(missing)?;
        if keeper.outer.is_some() && !Arc::ptr_eq(&network.keeper, keeper) {
            return Err(other_keeper(name).with_field(field));
        }
        self.reach(network.subnets.clone(), Some(name)).map_err(|e| e.with_field(&*field))?;
        let mut all = names.to_vec();
        all.extend(one.aliases.iter().cloned());
        let mut seen = BTreeSet::new();
        all.retain(|name| seen.insert(name.clone()));
        let link = network.enter(one, &all, &interface, inside).map_err(|e| match e.field() {
            Some(at) => {
                let place = at.replacen("net", &field, 1);
                e.with_field(place)
            }
            None => e.with_field(field),
        });
        let mut link = link?;
        let new = |way: &&IpAddr| self.ways.iter().all(|other| other.is_ipv4() != way.is_ipv4());
        link.gateways = network.gateways.iter().filter(new).copied().collect();
        self.ways.extend(&link.gateways);
        self.all.push(Joined::Link(link));
        Ok(())
    }

    /// One more device leads to these subnets. The kernel would send what is for an address in two of them by one device, also what
    /// is for somebody on the other; and a network drops what comes from an address of another device.
    fn reach(&mut self, subnets: Vec<IpNet>, network: Option<&str>) -> Result<()> {
        let who =
            |network: Option<&str>| network.map_or("another device".to_owned(), |name| format!("network {name:?}"));
        for (others, other) in &self.subnets {
            // Several devices on one network of the host's are as on any machine.
            if network.is_none() && other.is_none() {
                continue;
            }
            let mut pairs = subnets.iter().flat_map(|one| others.iter().map(move |other| (one, other)));
            if let Some((one, theirs)) = pairs.find(|(one, other)| overlap(one, other)) {
                let what = format!(
                    "{one} of {} overlaps with {theirs} of {}, and the container would be on both",
                    who(network),
                    who(other.as_deref())
                );
                return Err(Error::spec("net", what).with_hint("give one network other subnets"));
            }
        }
        self.subnets.push((subnets, network.map(str::to_owned)));
        Ok(())
    }

    /// For a container of a pod with these devices.
    pub fn in_pod(spec: &Spec, devices: &[Attached]) -> Self {
        let on_networks = devices.iter().filter_map(|device| match device {
            Attached::OnNetwork(link) => Some((link.network.clone(), link.number)),
            Attached::Other(..) => None,
        });
        let of_pod: Vec<_> = on_networks.collect();
        let own_hosts = has_own_hosts(spec, of_pod.len());
        Self { of_pod, own_hosts, front: hosts_text(spec, true).unwrap_or_default(), ..Self::default() }
    }

    /// Has ports of the host lead to it, by the first network that has a way out by the kernel. The numbers are their places in the
    /// spec; the sockets have the ports.
    pub fn publish(&mut self, ports: Vec<(usize, spec::Port, HostOnly)>) -> Result<()> {
        let Some((first, ..)) = ports.first() else { return Ok(()) };
        let links = self.all.iter_mut().filter_map(|one| match one {
            // Its answers have to go that way, too.
            Joined::Link(link) if !link.gateways.is_empty() => Some(link),
            _ => None,
        });
        let Some(link) = links.into_iter().next() else {
            let error =
                Error::spec(format!("ports[{first}].nat"), "no device of the container is on a network that leads out");
            return Err(error.with_hint("give it one (internal: false), or leave out nat: a relay takes no network"));
        };
        let mut state = lock(&link.network.state);
        let addresses = state.ports.get(&link.number).map(|port| port.addresses.clone()).ok_or_else(closed)?;
        let sockets = state.sockets.clone().ok_or_else(closed)?;
        let uplink = state.uplink.as_mut().ok_or_else(closed)?;
        let list: Vec<spec::Port> = ports.iter().map(|(_, port, _)| *port).collect();
        let lead = uplink.publish(&sockets.firewall, &addresses, &list).map_err(|(i, error)| {
            let at = format!("ports[{}]", ports[i].0);
            let field = match error.field() {
                Some(member) => format!("{at}.{member}"),
                None => format!("{at}.nat"),
            };
            error.with_field(field)
        })?;
        drop(state);
        link.lead = Some((lead, ports.into_iter().map(|(_, _, socket)| socket).collect()));
        Ok(())
    }

    fn links(&self) -> impl Iterator<Item = &Link> {
        self.all.iter().filter_map(|one| match one {
            Joined::Link(link) => Some(link),
            Joined::Other(_) => None,
        })
    }

    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// Whether it reaches what is outside of its networks.
    pub fn leads_out(&self) -> bool {
        let of_pod = self.of_pod.iter().any(|(network, _)| !network.gateways.is_empty());
        of_pod || self.links().any(|link| !link.gateways.is_empty())
    }

    fn macvtaps(&mut self) -> impl Iterator<Item = &mut Other> {
        let others = self.all.iter_mut().filter_map(|one| match one {
            Joined::Other(other) => Some(other.as_mut()),
            Joined::Link(_) => None,
        });
        others.filter(|other| other.tap().is_some())
    }

    /// The field of the first macvtap, and the names and numbers inside of all.
    pub fn taps(&mut self) -> Option<(String, Vec<(String, u32)>)> {
        let field = self.macvtaps().next()?.field();
        let all = self.macvtaps().filter_map(|other| other.tap().map(|(name, number)| (name.to_owned(), number)));
        Some((field, all.collect()))
    }

    /// Where the nodes of macvtaps are to be made.
    pub fn take_taps(&mut self, taps: &Taps) {
        self.macvtaps().for_each(|other| other.take_taps(taps.clone()));
    }

    /// The file of the network that /etc/hosts is in the container.
    pub fn hosts(&self) -> Option<&Path> {
        let networks = self.links().map(|link| &link.network).chain(self.of_pod.iter().map(|(network, _)| network));
        networks.map(|network| network.hosts.as_path()).next().filter(|_| !self.own_hosts)
    }

    /// Whether its /etc/hosts is its own, and is to be sent.
    pub fn sends_hosts(&self) -> bool {
        self.own_hosts
    }

    /// Its /etc/hosts.
    pub fn take_hosts(&mut self, file: OwnedFd) {
        self.file = Some(file);
    }

    /// The container has a socket in its network namespace: the devices are made while it goes on.
    pub fn connect(&mut self, socket: OwnedFd) {
        self.connect_by(&Arc::new(Socket::new(socket)));
    }

    fn connect_by(&mut self, socket: &Arc<Socket>) {
        let made = socket.namespace().and_then(|namespace| {
            let several = self.all.len() > 1;
            self.all.iter_mut().enumerate().try_for_each(|(i, one)| match one {
                Joined::Link(link) => link.connect(socket, &namespace).map_err(|e| match e.field() {
                    Some(at) if several => {
                        let place = at.replacen("net", &format!("net[{i}]"), 1);
                        e.with_field(place)
                    }
                    _ => e,
                }),
                Joined::Other(other) => other.connect(socket, &namespace),
            })
        });
        match made {
            Ok(()) => {
                self.connected = true;
                for link in self.links() {
                    if let Some(port) = lock(&link.network.state).ports.get_mut(&link.number) {
                        port.socket = Some(socket.clone());
                    }
                }
            }
            Err(error) => self.failed = Some(error),
        }
    }

    /// The container asks whether it has its devices, and is told an errno. From here on it is found by its names.
    pub fn settle(&mut self) -> i32 {
        if let Some(error) = &self.failed {
            return if error.errno() == 0 { libc::EIO } else { error.errno() };
        }
        if !self.connected {
            return libc::ENOTCONN;
        }
        if let Some(file) = self.file.take() {
            self.own = Some(OwnHosts::new(file, std::mem::take(&mut self.front)));
        }
        for link in self.links() {
            settle(&link.network, link.number, self.own.as_ref(), true);
        }
        0
    }

    /// Why it has no devices.
    pub fn failure(&mut self) -> Option<Error> {
        let error = self.failed.take()?;
        Some(if error.field().is_some() { error } else { error.with_field("net") })
    }

    /// It runs: what it keeps.
    pub fn done(mut self, container: &str) -> Kept {
        let mut moved = Vec::new();
        // A container of a pod, which was not asked whether it has its devices.
        if let Some(file) = self.file.take() {
            let own = OwnHosts::new(file, std::mem::take(&mut self.front));
            self.of_pod.iter().for_each(|(network, number)| settle(network, *number, Some(&own), false));
            self.own = Some(own);
        }
        let all = std::mem::take(&mut self.all).into_iter().map(|one| match one {
            Joined::Link(link) => {
                if let Some(port) = lock(&link.network.state).ports.get_mut(&link.number) {
                    port.container = Some(container.to_owned());
                }
                Attached::OnNetwork(link)
            }
            Joined::Other(other) => {
                let (on_host, device) = other.done();
                moved.extend(device);
                Attached::Other(Box::new(on_host))
            }
        });
        let devices = all.collect();
        Kept { devices, moved, hosts: self.own.take() }
    }
}

/// What a container has of networks while it runs.
#[derive(Debug, Default)]
pub(crate) struct Kept {
    pub devices: Vec<Attached>,
    /// Devices of the host that have to come back.
    pub moved: Vec<Moved>,
    /// Its own /etc/hosts, which its networks keep current as long as this is there.
    pub hosts: Option<Arc<OwnHosts>>,
}

impl Kept {
    /// Makes one more device of a container that runs, of which `socket` is one; `id` and `spec` are those of whose network it is. Nothing
    /// is kept of it yet.
    pub fn attach(
        kept: &Mutex<Self>,
        (id, spec, keeper): (&str, &Spec, &Arc<Keeper>),
        one: &Attachment,
        socket: OwnedFd,
    ) -> Result<Self> {
        let socket = Arc::new(Socket::new(socket));
        let is_free = |name: &str| !lock(kept).has(name) && socket.index_of(name).is_err();
        let interface = match &one.interface {
            Some(name) if is_free(name) => name.clone(),
            Some(name) => {
                let error =
                    Error::new(ErrorKind::AlreadyExists, format!("there is a device {name:?} in the container"));
                return Err(error.with_field("net.interface").with_errno(libc::EEXIST));
            }
            None => (0..).map(|number| format!("eth{number}")).find(|name| is_free(name)).expect("there is always one"),
        };
        let is_on = |network: &str| lock(kept).devices.iter().any(|device| device.is_on(network));
        if let Some(network) = one.on_network().filter(|network| is_on(network)) {
            let error = Error::new(ErrorKind::AlreadyExists, format!("the container is on network {network:?}"));
            return Err(error.with_field("net.network").with_errno(libc::EEXIST));
        }
        let names: Vec<String> = [&spec.name, &spec.hostname].into_iter().flatten().cloned().collect();
        let mut joining = Joining { own: lock(kept).hosts.clone(), ..Joining::default() };
        joining.ways = ways(std::slice::from_ref(one));
        joining.ways.extend(lock(kept).devices.iter().flat_map(Attached::gateways));
        joining.subnets = lock(kept).devices.iter().map(Attached::subnets).collect();
        let inside = new_index();
        joining.add(one, interface, inside, "net".to_owned(), &names, keeper)?;
        joining.connect_by(&socket);
        if joining.settle() != 0 {
            // It may have been made, and then something of it refused. The host's own comes back by itself.
            let Some(error) = joining.failure() else {
                return Err(Error::new(ErrorKind::Internal, "a device was not made, and nobody knows why"));
            };
            if !matches!(one.kind, AttachmentKind::Device(_)) {
                let mut batch = Batch::default();
                batch.delete(&End { index: inside, name: "" });
                let _ = socket.request(batch);
            }
            return Err(error);
        }
        Ok(joining.done(id))
    }

    /// Whether a device was made by this name.
    pub fn has(&self, interface: &str) -> bool {
        self.devices.iter().any(|device| device.is_called(interface))
    }

    /// Takes a device out that was made by this name: it is the caller's to remove. With the number inside of what is the host's own.
    pub fn take(&mut self, interface: &str) -> Option<(Attached, Option<u32>)> {
        let at = self.devices.iter().position(|device| device.is_called(interface))?;
        let device = self.devices.remove(at);
        let comes_back = device.comes_back();
        Some((device, comes_back))
    }

    /// Forgets the host's own device that had this number inside: it is not there any more.
    pub fn forget(&mut self, inside: u32) {
        self.devices.retain(|device| device.comes_back() != Some(inside));
    }
}

/// Removes a device from a container, of which `socket` is one, and gives back what it had.
pub(crate) fn remove(
    kept: &Mutex<Kept>,
    device: Attached,
    socket: OwnedFd,
) -> std::result::Result<(), Box<(Attached, Error)>> {
    if let Err(error) = device.remove(&Socket::new(socket)) {
        return Err(Box::new((device, error)));
    }
    let network = match &device {
        Attached::OnNetwork(link) => Some(link.network.name.clone()),
        Attached::Other(_) => None,
    };
    // From here on the network tells it nothing any more.
    drop(device);
    let hosts = lock(kept).hosts.clone();
    if let (Some(hosts), Some(network)) = (hosts, network) {
        hosts.set(&network, "");
    }
    Ok(())
}
