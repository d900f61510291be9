//! Connections that the kernel leads on, which it remembers by their addresses and ports (conntrack).
//!
//! Sources: linux/netfilter/nfnetlink_conntrack.h, nf_conntrack_tcp.h.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use netlink_packet_core::NLM_F_DUMP;

use super::firewall::{Message, octets};
use super::nat::Published;
use super::netlink::{Attributes, Batch, NLA_F_NESTED, Socket, attributes_of};

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
const IP_V6_SRC: u16 = 3;
const PROTO_NUM: u16 = 1;
const PROTO_SRC_PORT: u16 = 2;

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
        let message = |kind, build: &mut dyn FnMut(&mut Attributes)| {
            Message::of_subsystem(NFNL_SUBSYS_CTNETLINK, answers.family(), kind, build)
        };
        let question = message(GET, &mut |attributes| answers.put(attributes));
        let Ok(found) = socket.ask(NLM_F_DUMP, question, "list connections", "") else { continue };
        for connection in found.iter().filter_map(|found| found.get(4..)) {
            let (Some(true), Some(tuple)) = (answers.are_of(connection), find(connection, TUPLE_ORIG)) else {
                continue;
            };
            let delete = message(DELETE, &mut |attributes| {
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
}
