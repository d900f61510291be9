//! Addresses that the host answers for and routes to a container.
//!
//! ```text
//!  outside ── outer device ── host's namespace ══ pair of devices ══ container
//!             proxy entries   routes              filter of sources
//! ```
//!
//! Three things have to go in every way that this can end. The devices, and with them the routes, go with the container's network
//! namespace. The filter is in a table of nftables that has an owner (Linux 5.12): it goes with this library's socket. The proxy entries
//! (ip-neighbour(8), `proxy`) belong to the outer device, and nothing of the kernel removes them: this library does, or the keeper by an
//! undo plan, or, when both were killed, [`sweep`]. The keeper has the socket too, until its plan has run: so the tables that say
//! that addresses are taken go last, and who is started again at once finds nothing of before, nor loses anything to it. (`proxy_arp` of the outer device would leave nothing behind, but it answers
//! for whatever the host has a route to, and there is no such thing for IPv6.)
//!
//! Sources: net/ipv4/arp.c (arp_process), net/ipv6/ndisc.c (ndisc_recv_ns), linux/netfilter/nf_tables.h.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use netlink_packet_core::{NLM_F_APPEND, NLM_F_CREATE, NLM_F_DUMP, Parseable as _};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage};
use netlink_packet_route::route::{RouteAttribute, RouteFlags, RouteMessage, RouteProtocol, RouteType};

use super::announce::{Who, announce};
use super::attach::{everywhere, subnet};
use super::claim::{self, UNKNOWN};
use super::firewall::{
    IPV4, IPV6, NEWCHAIN, NEWRULE, NF_ACCEPT, NF_DROP, NFT_META_PROTOCOL, REGISTER, Rule, number, text,
};
use super::link::{End, PROTOCOL, Remote, family};
use super::netlink::{Batch, Socket};
use crate::container::{Container, new_index};
use crate::error::{Error, ErrorKind, Result};
use crate::launch::{HostOnly, Owner};
use crate::spec::{Attachment, Route, RoutedPair};
use crate::sys::rtnl;

/// What a container's addresses have on the host. Dropped, they are nobody's.
#[derive(Debug)]
pub(crate) struct Routed {
    owner: Owner,
    /// For errors: `net`, `net[1]`.
    field: String,
    addresses: Vec<IpAddr>,
    outer: u32,
    outer_name: String,
    /// The host's end of the pair.
    here: u32,
    route: Socket,
    /// What owns the filter, and what says that the addresses are taken.
    firewall: Socket,
    /// That of the container: with it the routes go, and until then nobody else can have them.
    namespace: Option<HostOnly>,
    answers: bool,
    /// What has the keeper remove the proxy entries when this program is killed. It is no part of the container, which can lose its
    /// addresses to another before it ends.
    undo: Option<Container>,
}

impl Drop for Routed {
    fn drop(&mut self) {
        if !self.owner.is_this() {
            return;
        }
        // As long as there are routes the addresses are nobody else's. What is gone already is no error.
        if let Some(undo) = self.undo.take() {
            let _ = undo.close(Some(Duration::from_secs(5)));
        }
        if self.answers {
            let _ = self.route.request(self.proxies(false));
        }
        if self.namespace.is_some() {
            let mut batch = Batch::default();
            batch.delete(&End { index: self.here, name: "" });
            let _ = self.route.request(batch);
        }
    }
}

/// By which the container sends to the host. Nobody is ever asked for these.
fn gateway(like: IpAddr) -> IpAddr {
    match like {
        IpAddr::V4(_) => Ipv4Addr::new(169, 254, 1, 1).into(),
        IpAddr::V6(_) => Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1).into(),
    }
}

/// A setting of the machine that has to be on.
fn need_setting(path: &str, why: &str) -> Result<()> {
    let value = fs::read_to_string(format!("/proc/sys/{path}"));
    let value = value.map_err(|e| Error::io("read", &e).with_path(format!("/proc/sys/{path}")))?;
    match value.trim() {
        "0" => Err(Error::new(ErrorKind::Unsupported, format!("{why}: {path} is 0"))
            .with_errno(libc::EOPNOTSUPP)
            .with_hint(format!("sysctl -w {path}=1; this library changes no settings of the machine"))),
        _ => Ok(()),
    }
}

impl Routed {
    /// Looks whether the machine can do it, and takes the addresses.
    pub fn new(one: &Attachment, outer_name: &str, outer: u32, field: &str) -> Result<Self> {
        let mut addresses: Vec<IpAddr> = one.addresses.iter().map(|one| one.address).collect();
        let at = |error: Error, key: &str| error.with_field(format!("{field}.{key}"));
        let families: Vec<bool> = one.families().collect();
        let has = |ipv4: bool| families.contains(&ipv4);
        // One of the two is enough.
        let [answers, all] = [outer_name, "all"].map(|name| format!("net/ipv6/conf/{name}/proxy_ndp"));
        let answers = if need_setting(&all, "").is_ok() { all } else { answers };
        let settings = [
            (true, format!("net/ipv4/conf/{outer_name}/forwarding"), "the host forwards nothing that comes by it"),
            (false, "net/ipv6/conf/all/forwarding".to_owned(), "the host forwards nothing of IPv6"),
            (
                false,
                format!("net/ipv6/conf/{outer_name}/forwarding"),
                "the host forwards nothing of IPv6 that comes by it",
            ),
            (false, answers, "the host answers for nobody of IPv6 on it"),
        ];
        for (_, path, why) in settings.iter().filter(|(ipv4, ..)| has(*ipv4)) {
            need_setting(path, why).map_err(|e| at(e, "routed"))?;
        }
        let route = Socket::open(libc::NETLINK_ROUTE)?;
        let taken = |address: IpAddr, how: String| {
            let error = Error::new(ErrorKind::AlreadyExists, format!("{address} is {how}"));
            at(error.with_errno(libc::EADDRINUSE), "addresses")
        };
        let here = new_index();
        let firewall = Socket::open(libc::NETLINK_NETFILTER)?;
        let mut batch = Batch::default();
        batch.transaction(|batch| batch.owned_table(&table(here)));
        firewall.request(batch).map_err(|e| at(claim::explain(e), "routed"))?;
        for &address in &addresses {
            let claimed = claim::claim(&firewall, &claim::name_of(None, address));
            if !claimed.map_err(|e| at(claim::explain(e), "routed"))? {
                return Err(taken(address, "another container's".to_owned()));
            }
        }
        let others: Vec<IpAddr> =
            entries(&route)?.iter().filter(|e| e.device == outer && !e.is_ours).map(|e| e.address).collect();
        for &address in &addresses {
            match elsewhere(&route, address)? {
                Some((_, true)) => return Err(taken(address, "an address of this machine".to_owned())),
                Some((Some(device), false)) => {
                    let name = device_name(device).unwrap_or_else(|| device.to_string());
                    return Err(taken(address, format!("routed on this machine already, to device {name}")));
                }
                Some((None, false)) => return Err(taken(address, "routed on this machine already".to_owned())),
                None => {}
            }
            if others.contains(&address) {
                let how = format!("answered for on {outer_name} already (ip neighbour show proxy)");
                return Err(taken(address, how));
            }
        }
        for pool in &one.pool {
            let suits = |address: IpAddr| Ok(!others.contains(&address) && found(&route, address)?.is_none());
            addresses.push(claim::take(&firewall, None, pool, suits).map_err(|e| at(claim::explain(e), "pool"))?);
        }
        let (owner, field, outer_name) = (Owner::this(), field.to_owned(), outer_name.to_owned());
        let (namespace, answers) = (None, false);
        let mut routed =
            Self { owner, field, addresses, outer, outer_name, here, route, firewall, namespace, answers, undo: None };
        let mut undo = routed.proxies(false);
        undo.delete(&End { index: here, name: "" });
        routed.undo = Some(Container::start_undo(&undo.into_bytes(), routed.firewall.as_fd())?);
        Ok(routed)
    }

    fn proxies(&self, answers: bool) -> Batch {
        let mut batch = Batch::default();
        self.addresses.iter().for_each(|address| batch.proxy(self.outer, *address, answers));
        batch
    }

    /// With those that were chosen.
    pub fn addresses(&self) -> &[IpAddr] {
        &self.addresses
    }

    /// Makes the devices and lets what is for the addresses go there; the container's is down.
    pub(super) fn connect(&mut self, there: &Remote<'_>, pair: RoutedPair, namespace: &OwnedFd) -> Result<()> {
        let namespace = namespace.try_clone().map_err(|e| Error::io("dup", &e))?;
        self.namespace = Some(HostOnly::new(namespace));
        let mtu = there.mtu.or_else(|| rtnl::mtu(&self.outer_name).ok());
        let [a, b, c, d] = self.here.to_be_bytes();
        let remote = Remote {
            end: End { ..there.end },
            mac: (pair == RoutedPair::Veth).then_some([0x02, 0x52, a, b, c, d]),
            mtu,
            ..*there
        };
        let mut batch = Batch::default();
        batch.routed_pair(&End { index: self.here, name: "rf%d" }, &remote, pair);
        self.route.request(batch)?;
        let name = nix::net::if_::if_indextoname(self.here).map_err(|e| Error::os("find device", e as i32))?;
        let name = name.to_string_lossy();
        // Before anything can pass.
        let mut batch = Batch::default();
        batch.transaction(|batch| batch.sources_of(&table(self.here), &name, &self.addresses));
        self.firewall.request(batch).map_err(claim::explain)?;
        if self.addresses.iter().any(IpAddr::is_ipv4) {
            // The device is ours. One that is new has what net/ipv4/conf/default says.
            let path = format!("/proc/sys/net/ipv4/conf/{name}/forwarding");
            let is_on = fs::read(&path).is_ok_and(|value| value.trim_ascii() == b"1");
            if !is_on {
                fs::write(&path, "1").map_err(|e| Error::io("write", &e).with_path(&*path))?;
            }
        }
        let here = End { index: self.here, name: &name };
        let mut batch = Batch::default();
        batch.set_up(&here, true);
        for &address in &self.addresses {
            batch.route(&here, subnet(address.into()), None);
        }
        self.route.request(batch).map_err(|e| match e.errno() {
            libc::EEXIST => e.with_kind(ErrorKind::AlreadyExists).with_field(format!("{}.addresses", self.field)),
            _ => e,
        })?;
        self.answers = true;
        self.route.request(self.proxies(true))
    }

    /// What the container has on its side.
    pub(super) fn routes(&self, end: &End<'_>, routes: &[Route], batch: &mut Batch) {
        if !routes.is_empty() {
            routes.iter().for_each(|route| batch.route(end, subnet(route.to), Some(gateway(route.to.address))));
            return;
        }
        for ipv4 in [true, false] {
            if let Some(one) = self.addresses.iter().find(|address| address.is_ipv4() == ipv4) {
                batch.route(end, everywhere(*one), Some(gateway(*one)));
            }
        }
    }

    /// Tells the others on the wire, once, who answers from now on: they may know another. Who does not hear it asks.
    pub fn announce(&self) {
        let _ = announce(&self.outer_name, &self.addresses, Who::Router);
    }
}

fn table(number: u32) -> String {
    format!("ringfence-{number}")
}

fn device_name(device: u32) -> Option<String> {
    nix::net::if_::if_indextoname(device).ok().map(|name| name.to_string_lossy().into_owned())
}

/// As [`found`], of an address that this program has claimed: what is left of a container whose program and keeper were killed goes with
/// its network namespace.
fn elsewhere(socket: &Socket, address: IpAddr) -> Result<Option<(Option<u32>, bool)>> {
    let began = Instant::now();
    loop {
        let found = found(socket, address)?;
        let is_left = matches!(found, Some((Some(device), false)) if device_name(device).is_none_or(|name| name.starts_with("rf")));
        if !is_left || began.elapsed() > UNKNOWN {
            return Ok(found);
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// A route of the host to this very address: its device, and whether it is an address of the host's own.
fn found(socket: &Socket, address: IpAddr) -> Result<Option<(Option<u32>, bool)>> {
    let bits = if address.is_ipv4() { 32 } else { 128 };
    let mut question = RouteMessage::default();
    question.header.address_family = family(address);
    question.header.destination_prefix_length = bits;
    question.header.flags = RouteFlags::FibMatch;
    question.attributes = vec![RouteAttribute::Destination(address.into())];
    let answers = match socket.ask(0, RouteNetlinkMessage::GetRoute(question), "find route", "") {
        Ok(answers) => answers,
        Err(e) if matches!(e.errno(), libc::ENETUNREACH | libc::EHOSTUNREACH | libc::EACCES | libc::EINVAL) => {
            return Ok(None);
        }
        Err(e) => return Err(e),
    };
    Ok(answers.iter().find_map(|bytes| route_of(bytes, bits)))
}

/// Whether it is an address of the host's own.
pub(super) fn is_local(socket: &Socket, address: IpAddr) -> bool {
    matches!(found(socket, address), Ok(Some((_, true))))
}

fn route_of(bytes: &[u8], bits: u8) -> Option<(Option<u32>, bool)> {
    let route = RouteMessage::parse(bytes).ok().filter(|route| route.header.destination_prefix_length == bits)?;
    let device = route.attributes.iter().find_map(|one| match one {
        RouteAttribute::Oif(index) => Some(*index),
        _ => None,
    });
    Some((device, route.header.kind == RouteType::Local))
}

/// That the host answers for an address on a device.
struct Entry {
    device: u32,
    address: IpAddr,
    /// This library's: of this program, of another, or of one that was killed.
    is_ours: bool,
}

fn entries(socket: &Socket) -> Result<Vec<Entry>> {
    let mut question = NeighbourMessage::default();
    question.header.flags = NeighbourFlags::Proxy;
    let question = RouteNetlinkMessage::GetNeighbour(question);
    let all = socket.ask(NLM_F_DUMP, question, "list answers for addresses", "")?;
    Ok(all.iter().filter_map(|bytes| Entry::parse(bytes)).collect())
}

impl Entry {
    fn parse(bytes: &[u8]) -> Option<Self> {
        let entry = NeighbourMessage::parse(bytes).ok()?;
        let address = entry.attributes.iter().find_map(|one| match one {
            NeighbourAttribute::Destination(NeighbourAddress::Inet(address)) => Some(IpAddr::from(*address)),
            NeighbourAttribute::Destination(NeighbourAddress::Inet6(address)) => Some(IpAddr::from(*address)),
            _ => None,
        })?;
        let is_ours = entry.attributes.contains(&NeighbourAttribute::Protocol(RouteProtocol::Other(PROTOCOL)));
        Some(Self { device: entry.header.ifindex, address, is_ours })
    }
}

/// Removes entries of containers whose program and keeper were killed: those of this library whose address has no route any more.
///
/// # Errors
/// Of a question to the kernel; what it does not let go is somebody else's by now.
pub(crate) fn sweep() -> Result<()> {
    let socket = Socket::open(libc::NETLINK_ROUTE)?;
    for entry in entries(&socket)?.into_iter().filter(|entry| entry.is_ours) {
        if found(&socket, entry.address)?.is_none() {
            let mut batch = Batch::default();
            batch.proxy(entry.device, entry.address, false);
            let _ = socket.request(batch);
        }
    }
    Ok(())
}

impl Batch {
    /// From the device comes what these addresses send, and nothing else.
    fn sources_of(&mut self, table: &str, device: &str, addresses: &[IpAddr]) {
        const CHAIN: &str = "sources";
        const NF_NETDEV_INGRESS: u32 = 0;
        self.netdev(NEWCHAIN, NLM_F_CREATE, "make chain of nftables", table, |chain| {
            chain.put(3, &text(CHAIN));
            chain.nested(4, |hook| {
                hook.put(1, &number(NF_NETDEV_INGRESS));
                hook.put(2, &0i32.to_be_bytes());
                hook.put(3, &text(device));
            });
            chain.put(5, &number(NF_DROP));
            chain.put(7, &text("filter"));
        });
        for address in addresses {
            let (protocol, offset, bytes) = match address {
                IpAddr::V4(address) => (IPV4, 12, address.octets().to_vec()),
                IpAddr::V6(address) => (IPV6, 8, address.octets().to_vec()),
            };
            self.netdev(NEWRULE, NLM_F_CREATE | NLM_F_APPEND, "make rule of nftables", table, |rule| {
                rule.put(2, &text(CHAIN));
                rule.nested(4, |list| {
                    let mut rule = Rule(list);
                    rule.meta(NFT_META_PROTOCOL, REGISTER).is(&protocol);
                    rule.header(offset, bytes.len() as u32, REGISTER).is(&bytes).verdict(NF_ACCEPT);
                });
            });
        }
    }
}

#[cfg(any(fuzzing, test))]
pub(super) fn fuzz(bytes: &[u8]) {
    Entry::parse(bytes);
    route_of(bytes, 32);
}

#[cfg(any(fuzzing, test))]
impl Batch {
    pub(super) fn fuzz_sources(&mut self, table: &str, device: &str, addresses: &[IpAddr]) {
        self.transaction(|batch| {
            batch.owned_table(table);
            batch.sources_of(table, device, addresses);
        });
    }
}
