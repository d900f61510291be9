//! Connections that the kernel leads on, which it remembers by their addresses and ports (conntrack).
//!
//! Sources: linux/netfilter/nfnetlink_conntrack.h, nf_conntrack_tcp.h.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use netlink_packet_core::NLM_F_DUMP;

use super::firewall::{Message, octets};
use super::nat::Published;
use super::netlink::{Attributes, Batch, NLA_F_NESTED, Socket, attributes_of};
use crate::spec::Protocol;

const NFNL_SUBSYS_CTNETLINK: u16 = 1;
const GET: u16 = 1;
const DELETE: u16 = 2;

// Of enum ctattr_type.
const TUPLE_ORIG: u16 = 1;
const TUPLE_REPLY: u16 = 2;
const ZONE: u16 = 18;
const FILTER: u16 = 25;

// Of enum ctattr_tuple, ctattr_ip, ctattr_l4proto.
const TUPLE_IP: u16 = 1;
const TUPLE_PROTO: u16 = 2;
const IP_V4_SRC: u16 = 1;
const IP_V4_DST: u16 = 2;
const IP_V6_SRC: u16 = 3;
const IP_V6_DST: u16 = 4;
const PROTO_NUM: u16 = 1;
const PROTO_SRC_PORT: u16 = 2;
const PROTO_DST_PORT: u16 = 3;

/// Where connections are led to.
struct Answers {
    address: IpAddr,
    /// Protocol, and port as it is in a packet.
    ports: BTreeSet<(u8, [u8; 2])>,
}

impl Answers {
    fn family(&self) -> u8 {
        (if self.address.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 }) as u8
    }

    fn source(&self) -> u16 {
        if self.address.is_ipv4() { IP_V4_SRC } else { IP_V6_SRC }
    }

    /// Has the kernel (5.8) list those with its address alone.
    fn put(&self, attributes: &mut Attributes) {
        const FILTER_REPLY_FLAGS: u16 = 2;
        const IP_SRC: u32 = 1 << 0;
        attributes.nested(TUPLE_REPLY, |tuple| {
            tuple.nested(TUPLE_IP, |ip| ip.put(self.source(), &octets(self.address)));
        });
        attributes.nested(FILTER, |filter| filter.put(FILTER_REPLY_FLAGS, &IP_SRC.to_ne_bytes()));
    }

    fn are_of(&self, connection: &[u8]) -> Option<bool> {
        let reply = find(connection, TUPLE_REPLY)?;
        let (ip, protocol) = (find(reply, TUPLE_IP)?, find(reply, TUPLE_PROTO)?);
        let (number, port) = (find(protocol, PROTO_NUM)?, find(protocol, PROTO_SRC_PORT)?);
        let port = (*number.first()?, port.try_into().ok()?);
        Some(find(ip, self.source())? == octets(self.address) && self.ports.contains(&port))
    }
}

fn find(attributes: &[u8], kind: u16) -> Option<&[u8]> {
    attributes_of(attributes).find(|one| one.0 == kind).map(|one| one.1)
}

/// Forgets whom the socket's namespace has led on by these ports. A kernel that does not answer goes on remembering.
pub(super) fn forget(socket: &Socket, ports: &[Published]) {
    let mut all: BTreeMap<IpAddr, Answers> = BTreeMap::new();
    for port in ports {
        let new = || Answers { address: port.to, ports: BTreeSet::new() };
        let answers = all.entry(port.to).or_insert_with(new);
        answers.ports.insert((port.protocol.number(), port.to_port.to_be_bytes()));
    }
    for answers in all.values() {
        forget_all(
            socket,
            answers.family(),
            |attributes| answers.put(attributes),
            |one| answers.are_of(one) == Some(true),
        );
    }
}

/// Forgets datagrams to these ports that were not led on, since they came before: what the kernel remembers of them goes before its maps,
/// for as long as their sender goes on. Of those to any address they are those to the machine's own. (A connection of TCP begins anew.)
pub(super) fn forget_those_before(socket: &Socket, ports: &[Published], is_own: impl Fn(IpAddr) -> bool) {
    let ports = ports.iter().filter(|port| port.protocol == Protocol::Udp);
    let (ipv4, ipv6): (Vec<&Published>, Vec<&Published>) = ports.partition(|port| port.at.is_ipv4());
    for (ports, family) in [(ipv4, libc::AF_INET), (ipv6, libc::AF_INET6)] {
        if !ports.is_empty() {
            forget_all(socket, family as u8, put_udp, |one| was_to(one, &ports, &is_own) == Some(true));
        }
    }
}

/// Has the kernel (5.8) list those of UDP alone.
fn put_udp(attributes: &mut Attributes) {
    const FILTER_ORIG_FLAGS: u16 = 1;
    const PROTO_NUM_FLAG: u32 = 1 << 3;
    attributes.nested(TUPLE_ORIG, |tuple| {
        tuple.nested(TUPLE_PROTO, |protocol| protocol.put(PROTO_NUM, &[Protocol::Udp.number()]));
    });
    attributes.nested(FILTER, |filter| filter.put(FILTER_ORIG_FLAGS, &PROTO_NUM_FLAG.to_ne_bytes()));
}

/// Whether it is to one of the ports, and who answers is who was asked.
fn was_to(connection: &[u8], ports: &[&Published], is_own: impl Fn(IpAddr) -> bool) -> Option<bool> {
    let tuple = |kind: u16| {
        let tuple = find(connection, kind)?;
        Some((find(tuple, TUPLE_IP)?, find(tuple, TUPLE_PROTO)?))
    };
    let ((asked, asked_port), (answers, answers_port)) = (tuple(TUPLE_ORIG)?, tuple(TUPLE_REPLY)?);
    let address = |ip: &[u8], [v4, v6]: [u16; 2]| match find(ip, v4) {
        Some(octets) => <[u8; 4]>::try_from(octets).ok().map(IpAddr::from),
        None => <[u8; 16]>::try_from(find(ip, v6)?).ok().map(IpAddr::from),
    };
    let to = address(asked, [IP_V4_DST, IP_V6_DST])?;
    let port = find(asked_port, PROTO_DST_PORT)?;
    let is_there =
        |one: &&&Published| one.port.to_be_bytes() == port && (one.at == to || one.at.is_unspecified() && is_own(to));
    let is_of_udp = find(asked_port, PROTO_NUM)? == [Protocol::Udp.number()];
    let is_led_on = address(answers, [IP_V4_SRC, IP_V6_SRC])? != to || find(answers_port, PROTO_SRC_PORT)? != port;
    Some(is_of_udp && !is_led_on && ports.iter().any(|one| is_there(&one)))
}

/// Forgets those of a family of addresses that fit, of which the kernel is asked for some.
fn forget_all(socket: &Socket, family: u8, which: impl Fn(&mut Attributes), fits: impl Fn(&[u8]) -> bool) {
    let message =
        |kind, build: &dyn Fn(&mut Attributes)| Message::of_subsystem(NFNL_SUBSYS_CTNETLINK, family, kind, build);
    let Ok(found) = socket.ask(NLM_F_DUMP, message(GET, &which), "list connections", "") else { return };
    for connection in found.iter().filter_map(|found| found.get(4..)).filter(|one| fits(one)) {
        let Some(tuple) = find(connection, TUPLE_ORIG) else { continue };
        let delete = message(DELETE, &|attributes| {
            attributes.put(NLA_F_NESTED | TUPLE_ORIG, tuple);
            if let Some(zone) = find(connection, ZONE) {
                attributes.put(ZONE, zone);
            }
        });
        let mut batch = Batch::default();
        batch.push(0, delete, "forget connection", "");
        // It may have ended meanwhile.
        let _ = socket.request(batch);
    }
}

#[cfg(any(fuzzing, test))]
pub(super) fn fuzz(bytes: &[u8]) {
    let answers = Answers { address: [10, 0, 0, 2].into(), ports: BTreeSet::from([(6, [0, 80])]) };
    answers.are_of(bytes);
    let any = IpAddr::from([0; 4]);
    let port = Published { protocol: Protocol::Udp, at: any, port: 53, to: any, to_port: 53 };
    was_to(bytes, &[&port], |_| true);
    find(bytes, ZONE);
}
