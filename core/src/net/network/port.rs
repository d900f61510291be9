//! Ports of a switch, and what it knows of them.

use std::collections::{BTreeMap, VecDeque};
use std::hash::{Hash, Hasher};
use std::net::IpAddr;
use std::ops::Range;
use std::sync::{Arc, Weak};

use ipnet::IpNet;

use super::closed;
use super::hosts::{Hosts, OwnHosts};
use super::registry::Subnets;
use crate::container::{Container, new_index};
use crate::error::{Error, ErrorKind, Result};
use crate::launch::HostOnly;
use crate::net::firewall::filter::{Filter, Member};
use crate::net::link::{End, Mac};
use crate::net::netlink::{Batch, Socket};
use crate::net::pool::Pool;
use crate::net::shape::Shape;
use crate::net::uplink::{Lead, Uplink};
use crate::spec::Firewall;

#[derive(Debug)]
pub(super) struct Port {
    pub(super) name: String,
    pub(super) mac: Mac,
    pub(super) addresses: Vec<IpNet>,
    pub(super) names: Vec<String>,
    /// The container, when it has started.
    pub(super) container: Option<String>,
    pub(super) interface: String,
    /// The number of the device inside.
    pub(super) inside: u32,
    /// A socket in the container's namespace.
    pub(super) socket: Option<Arc<Socket>>,
    /// Where its lines are in /etc/hosts, since it has its devices.
    pub(super) lines_at: Option<(u64, u64)>,
    /// Of containers with this device whose /etc/hosts are their own.
    pub(super) own_hosts: Vec<Weak<OwnHosts>>,
    /// It is on the switch.
    pub(super) is_linked: bool,
    /// The device behind which what it sends waits, and its name, if there is one.
    pub(super) waiting: Option<(u32, String)>,
    /// Where there is none, the discipline is inside.
    pub(super) is_shaped_inside: bool,
    /// What the spec says of it.
    pub(super) wanted: Option<Firewall>,
}

/// A port that has gone, of which the kernel has something still: nobody else gets its addresses.
#[derive(Debug)]
pub(super) struct Leaving {
    pub(super) port: Port,
    pub(super) lead: Option<(Lead, Vec<HostOnly>)>,
}

impl Port {
    fn member(&self, number: u32) -> Member<'_> {
        Member { port: number, names: &self.names, addresses: &self.addresses, mac: self.mac }
    }

    /// What becomes of what it sends, on this side, where nobody inside can change it. False: the kernel cannot do it.
    pub(super) fn shape_sent(&mut self, route: &Socket, number: u32, shape: &Shape, mtu: u32) -> Result<bool> {
        let here = End { index: number, name: &self.name };
        if *shape == Shape::default() {
            let Some((index, name)) = &self.waiting else { return Ok(!self.is_shaped_inside) };
            let mut batch = Batch::default();
            batch.unshape_incoming(&here, &End { index: *index, name });
            route.request(batch)?;
            self.waiting = None;
            return Ok(true);
        }
        let mut batch = Batch::default();
        if let Some((index, name)) = &self.waiting {
            batch.shape(&End { index: *index, name }, shape, mtu);
            return route.request(batch).map(|()| true);
        }
        let (index, name) = (new_index(), format!("sent{number}"));
        let waiting = End { index, name: &name };
        batch.shape_incoming(&here, &waiting, shape, mtu);
        let Err(error) = route.request(batch) else {
            self.waiting = Some((index, name));
            return Ok(true);
        };
        let mut batch = Batch::default();
        batch.unshape_incoming(&here, &waiting);
        let _ = route.request(batch);
        // Of the shape itself the caller says it.
        let is_shape = error.step().is_some_and(|step| step.ends_with("tbf") || step.ends_with("netem"));
        match error.errno() {
            libc::EOPNOTSUPP | libc::ENOENT if !is_shape => Ok(false),
            _ => Err(error),
        }
    }

    fn lines(&self) -> String {
        if self.names.is_empty() {
            return String::new();
        }
        let names = self.names.join(" ");
        self.addresses.iter().map(|address| format!("{}\t{names}\n", address.addr())).collect()
    }
}

#[derive(Debug)]
pub(super) struct State {
    /// `None` when it is closed.
    pub(super) sockets: Option<Arc<Sockets>>,
    /// Of a network that is not internal.
    pub(super) uplink: Option<Uplink>,
    pub(super) pool: Pool,
    /// By the number of the port.
    pub(super) ports: BTreeMap<u32, Port>,
    /// Likewise.
    pub(super) leaving: BTreeMap<u32, Leaving>,
    pub(super) hosts: Hosts,
    /// The numbers of the cuts that there are.
    pub(super) cuts: Range<u32>,
    /// Since the first firewall of a container.
    pub(super) filter: Option<Filter>,
    /// Those that the network started.
    pub(super) started: VecDeque<Container>,
    /// That its subnets are its own: no network has them by default.
    pub(super) subnets: Option<Subnets>,
}

/// Sockets in the switch's namespace.
#[derive(Debug)]
pub(super) struct Sockets {
    pub(super) route: Socket,
    pub(super) firewall: Socket,
}

impl State {
    pub(super) fn port_of(&self, field: &'static str, container: &Container) -> Result<u32> {
        let id = container.network_id();
        let found = self.ports.iter().find(|(_, port)| port.container.as_deref() == Some(id));
        found.map(|(number, _)| *number).ok_or_else(|| {
            let name = container.name().unwrap_or(container.id());
            Error::new(ErrorKind::NotFound, format!("container {name} is not on the network"))
                .with_field(field)
                .with_errno(libc::ENOENT)
        })
    }

    pub(super) fn ports_of(&self, field: &'static str, containers: &[&Container]) -> Result<Vec<u32>> {
        if containers.is_empty() {
            let error = Error::new(ErrorKind::InvalidArgument, "nobody is on this side");
            return Err(error.with_field(field).with_errno(libc::EINVAL));
        }
        containers.iter().map(|container| self.port_of(field, container)).collect()
    }

    /// A port has gone: what others let pass to and from its addresses is taken away before anybody else has them.
    pub(super) fn leave(&mut self, number: u32, mut leaving: Leaving) {
        let Some(sockets) = self.sockets.clone() else { return };
        let led = match (&mut leaving.lead, &mut self.uplink) {
            (Some((lead, _)), Some(uplink)) => uplink.withdraw(&sockets.firewall, lead),
            _ => Ok(()),
        };
        let left = self.filter.as_mut().map_or(Ok(()), |filter| filter.leave(&sockets.firewall, number));
        match led.and(left) {
            Ok(()) => self.pool.give_back(&leaving.port.addresses),
            Err(error) => {
                log::warn!("{} does not leave its network yet: {error}", leaving.port.name);
                self.leaving.insert(number, leaving);
            }
        }
    }

    /// Tries again what has not gone.
    pub(super) fn let_leave(&mut self) {
        for (number, leaving) in std::mem::take(&mut self.leaving) {
            self.leave(number, leaving);
        }
    }

    /// There is a filter, which knows all ports.
    pub(super) fn start_filter(&mut self, socket: &Socket) -> Result<()> {
        if self.filter.is_none() {
            // Each port has an address of each subnet.
            let all = self.ports.values().next().map(|port| port.addresses.as_slice()).unwrap_or_default();
            let of_all = all.iter().filter_map(|address| match address {
                IpNet::V4(net) if net.prefix_len() < 31 => Some(net.broadcast()),
                _ => None,
            });
            let begun = Filter::begin(socket, &of_all.collect::<Vec<_>>(), self.uplink.is_none()).map_err(|e| match e
                .errno()
            {
                libc::ENOENT | libc::EOPNOTSUPP | libc::EINVAL => {
                    e.with_kind(ErrorKind::Unsupported).with_hint("it takes a kernel with CONFIG_NFT_OBJREF")
                }
                _ => e,
            });
            self.filter = Some(begun?);
        }
        let Some(filter) = self.filter.as_ref().filter(|one| one.len() < self.ports.len() + self.leaving.len()) else {
            return Ok(());
        };
        let is_new = |number: &u32| !filter.knows(*number);
        let new = self.ports.iter().filter(|(number, port)| port.is_linked && is_new(number));
        let new: Vec<u32> = new.map(|(number, _)| *number).collect();
        new.into_iter().try_for_each(|number| self.filter_port(socket, number, None))
    }

    /// Gives a port a firewall; or makes it known to the filter, in the same transaction.
    pub(super) fn filter_port(&mut self, socket: &Socket, number: u32, firewall: Option<&Firewall>) -> Result<()> {
        let Some(filter) = &mut self.filter else { return Ok(()) };
        let port = self.ports.get(&number).ok_or_else(closed)?;
        filter.change(socket, &port.member(number), firewall)
    }

    /// The lines of all that have their devices.
    fn lines(&self) -> String {
        self.ports.values().filter(|port| port.lines_at.is_some()).map(Port::lines).collect()
    }

    /// Somebody has come or gone.
    pub(super) fn tell_own_hosts(&mut self, network: &str) {
        let own: Vec<Arc<OwnHosts>> =
            self.ports.values().flat_map(|port| &port.own_hosts).filter_map(Weak::upgrade).collect();
        if !own.is_empty() {
            let lines = self.lines();
            own.iter().for_each(|own| own.set(network, &lines));
        }
    }

    /// It has its devices, and is found by its names.
    pub(super) fn settle(&mut self, network: &str, number: u32) {
        let Some(lines) = self.ports.get(&number).map(Port::lines) else { return };
        let at = self.hosts.add(&lines);
        if let Some(port) = self.ports.get_mut(&number) {
            port.lines_at = Some(at);
        }
        self.tell_own_hosts(network);
    }
}

/// An address of a device that says whose it is: locally administered, then the IP address, or of IPv6 what is made of all its bits.
/// Another one with each salt.
pub(super) fn mac_of(address: IpAddr, salt: u64) -> Mac {
    match address {
        IpAddr::V4(address) => {
            let [a, b, c, d] = address.octets();
            [0x02, salt as u8, a, b, c, d]
        }
        IpAddr::V6(address) => {
            let mut hasher = std::hash::DefaultHasher::new();
            (address, salt).hash(&mut hasher);
            let [a, b, c, d, e, ..] = hasher.finish().to_be_bytes();
            [0x06, a, b, c, d, e]
        }
    }
}

/// An error of a firewall, which has its place in the spec.
pub(super) fn in_firewall(error: Error, field: &str) -> Error {
    match error.errno() {
        libc::EMSGSIZE | libc::ENOBUFS => {
            let what = "are more than the kernel takes in one transaction";
            Error::new(ErrorKind::Exhausted, what)
                .with_errno(error.errno())
                .with_field(format!("{field}.rules"))
                .with_hint("fewer rules, ports or names; or a larger net.core.wmem_max")
        }
        _ => error.with_field(field),
    }
}
