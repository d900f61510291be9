//! Ways out of a network and into it: tables of nftables in the switch's network namespace and in the host's.
//!
//! ```text
//!  container ── bridge, switch's namespace ── uplink ═══ host's device ── host's namespace ── outside
//!                    masquerade: the uplink's address       masquerade: the host's address
//!                    published: uplink's port to container  published: host's port to the uplink's
//! ```
//!
//! The host's table has an owner (Linux 5.12): the kernel removes it when the library's socket is closed, however that happens, and
//! nobody else can change it.
//!
//! Source: linux/netfilter/nf_tables.h.

use std::net::IpAddr;

use netlink_packet_core::{NLM_F_APPEND, NLM_F_CREATE};

use super::firewall::{
    DELSETELEM, DELTABLE, Message, NEWCHAIN, NEWRULE, NEWSET, NEWSETELEM, NEWTABLE, NF_ACCEPT, NF_DROP, NFT_META_IIF,
    NFT_META_L4PROTO, NFT_META_OIF, NFT_TABLE_F_OWNER, REGISTER, Rule, number, octets, text,
};
use super::netlink::{Attributes, Batch};
use crate::spec::Protocol;

pub(super) const NFPROTO_INET: u8 = 1;
pub(super) const NFPROTO_IPV4: u8 = 2;
pub(super) const NFPROTO_IPV6: u8 = 10;
const NFT_META_NFPROTO: u32 = 15;

const PRE_ROUTING: u32 = 0;
const LOCAL_IN: u32 = 1;
pub(super) const FORWARD: u32 = 2;
const LOCAL_OUT: u32 = 3;
const POST_ROUTING: u32 = 4;
const NF_IP_PRI_NAT_DST: i32 = -100;
const NF_IP_PRI_FILTER: i32 = 0;
const NF_IP_PRI_NAT_SRC: i32 = 100;

/// Bits of NFT_CT_STATE.
const ESTABLISHED: u32 = 2;
const RELATED: u32 = 4;
const NEW: u32 = 8;
/// IPS_DST_NAT, of NFT_CT_STATUS.
const DESTINATION_CHANGED: u32 = 0x20;

/// A chain: its name, type, hook, place among others of the hook.
struct Chain(&'static str, &'static str, u32, i32);

const IN: Chain = Chain("in", "nat", PRE_ROUTING, NF_IP_PRI_NAT_DST);
const FROM_HERE: Chain = Chain("from-here", "nat", LOCAL_OUT, NF_IP_PRI_NAT_DST);
const OUT: Chain = Chain("out", "nat", POST_ROUTING, NF_IP_PRI_NAT_SRC);
const PASS: Chain = Chain("pass", "filter", FORWARD, NF_IP_PRI_FILTER);
const HERE: Chain = Chain("here", "filter", LOCAL_IN, NF_IP_PRI_FILTER);

/// Ports that lead on: by protocol and port, and by address if they are of one.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Map {
    name: &'static str,
    ipv6: bool,
    of_address: bool,
    /// In the transaction that makes it.
    number: u32,
}

const MAPS: [Map; 4] = [
    Map { name: "ports4", ipv6: false, of_address: false, number: 1 },
    Map { name: "ports6", ipv6: true, of_address: false, number: 2 },
    Map { name: "addresses4", ipv6: false, of_address: true, number: 3 },
    Map { name: "addresses6", ipv6: true, of_address: true, number: 4 },
];

impl Map {
    fn of(address: IpAddr) -> Self {
        let found = |map: &&Self| map.ipv6 == address.is_ipv6() && map.of_address != address.is_unspecified();
        *MAPS.iter().find(found).expect("there are all four")
    }

    fn address_length(self) -> u32 {
        if self.ipv6 { 16 } else { 4 }
    }

    fn key_length(self) -> u32 {
        8 + if self.of_address { self.address_length() } else { 0 }
    }

    fn data_length(self) -> u32 {
        self.address_length() + 4
    }

    fn family(self) -> u8 {
        if self.ipv6 { NFPROTO_IPV6 } else { NFPROTO_IPV4 }
    }
}

/// A port that leads on to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Published {
    pub protocol: Protocol,
    /// Of all addresses when it is none.
    pub at: IpAddr,
    pub port: u16,
    pub to: IpAddr,
    pub to_port: u16,
}

impl Published {
    /// Each part begins in a register of its own.
    fn key(&self) -> Vec<u8> {
        let [high, low] = self.port.to_be_bytes();
        let mut key = vec![self.protocol.number(), 0, 0, 0, high, low, 0, 0];
        if !self.at.is_unspecified() {
            key.extend(octets(self.at));
        }
        key
    }

    fn data(&self) -> Vec<u8> {
        let mut data = octets(self.to);
        data.extend(self.to_port.to_be_bytes());
        data.extend([0, 0]);
        data
    }
}

impl Rule<'_> {
    /// The rule goes on for packets of this version of IP.
    fn ip(&mut self, family: u8) -> &mut Self {
        self.meta(NFT_META_NFPROTO, REGISTER).is(&[family])
    }

    /// The rule goes on for packets that come from this device.
    fn comes_by(&mut self, index: u32) -> &mut Self {
        self.meta(NFT_META_IIF, REGISTER).is(&index.to_ne_bytes())
    }

    /// The rule goes on for packets that go to this device.
    fn leaves_by(&mut self, index: u32) -> &mut Self {
        self.meta(NFT_META_OIF, REGISTER).is(&index.to_ne_bytes())
    }

    /// The rule goes on for packets from this address.
    fn is_of(&mut self, address: IpAddr) -> &mut Self {
        match address {
            IpAddr::V4(_) => self.ip(NFPROTO_IPV4).header(12, 4, REGISTER),
            IpAddr::V6(_) => self.ip(NFPROTO_IPV6).header(8, 16, REGISTER),
        };
        self.is(&octets(address))
    }

    /// The rule goes on if one of these bits of the first register is set.
    fn has(&mut self, bits: u32) -> &mut Self {
        self.masked(&bits.to_ne_bytes()).is_not(&[0; 4])
    }

    /// The rule goes on for 127.0.0.0/8 in the header of IPv4.
    fn is_loopback(&mut self, offset: u32) -> &mut Self {
        self.ip(NFPROTO_IPV4).header(offset, 4, REGISTER).masked(&[255, 0, 0, 0]).is(&[127, 0, 0, 0])
    }

    /// The rule goes on for connections with one of these states.
    fn connection(&mut self, state: u32) -> &mut Self {
        const NFT_CT_STATE: u32 = 0;
        self.ct(NFT_CT_STATE).has(state)
    }

    /// The rule goes on for connections that were led on.
    fn led_on(&mut self) -> &mut Self {
        const NFT_CT_STATUS: u32 = 2;
        self.ct(NFT_CT_STATUS).has(DESTINATION_CHANGED)
    }

    fn ct(&mut self, key: u32) -> &mut Self {
        self.expression("ct", |ct| {
            ct.put(1, &number(REGISTER));
            ct.put(2, &number(key));
        })
    }

    /// The rule goes on for packets to an address of this namespace's own.
    fn is_to_here(&mut self) -> &mut Self {
        const NFTA_FIB_F_DADDR: u32 = 2;
        const NFT_FIB_RESULT_ADDRTYPE: u32 = 3;
        self.expression("fib", |fib| {
            fib.put(1, &number(REGISTER));
            fib.put(2, &number(NFT_FIB_RESULT_ADDRTYPE));
            fib.put(3, &number(NFTA_FIB_F_DADDR));
        });
        self.is(&u32::from(libc::RTN_LOCAL).to_ne_bytes())
    }

    /// Leads the packet on to where the map says, if it says anything.
    fn lead_on(&mut self, map: Map) {
        const NFT_NAT_DNAT: u32 = 1;
        self.meta(NFT_META_L4PROTO, REGISTER).transport(2, 2, REGISTER + 1);
        if map.of_address {
            self.header(if map.ipv6 { 24 } else { 16 }, map.address_length(), REGISTER + 2);
        }
        // Behind the longest key.
        let to = REGISTER + 6;
        self.expression("lookup", |lookup| {
            lookup.put(1, &text(map.name));
            lookup.put(2, &number(REGISTER));
            lookup.put(3, &number(to));
            lookup.put(4, &number(map.number));
        });
        self.expression("nat", |nat| {
            nat.put(1, &number(NFT_NAT_DNAT));
            nat.put(2, &number(map.family().into()));
            nat.put(3, &number(to));
            nat.put(5, &number(to + map.address_length() / 4));
        });
    }

    fn masquerade(&mut self) {
        self.expression("masq", |_| {});
    }
}

/// A table under construction or change.
struct Table<'a> {
    batch: &'a mut Batch,
    name: &'a str,
}

impl Table<'_> {
    fn change(&mut self, kind: u16, flags: u16, step: &'static str, build: impl FnOnce(&mut Attributes)) {
        self.batch.push(flags, Message::of_nftables(NFPROTO_INET, kind, build), step, self.name);
    }

    fn make(&mut self, flags: u32) {
        let name = text(self.name);
        self.change(NEWTABLE, NLM_F_CREATE, "make table of nftables", |table| {
            table.put(1, &name);
            table.put(2, &number(flags));
        });
    }

    fn chain(&mut self, chain: &Chain) {
        let name = text(self.name);
        self.change(NEWCHAIN, NLM_F_CREATE, "make chain of nftables", |attributes| {
            attributes.put(1, &name);
            attributes.put(3, &text(chain.0));
            attributes.nested(4, |hook| {
                hook.put(1, &number(chain.2));
                hook.put(2, &chain.3.to_be_bytes());
            });
            attributes.put(5, &number(NF_ACCEPT));
            attributes.put(7, &text(chain.1));
        });
    }

    fn rule(&mut self, chain: &Chain, build: impl FnOnce(&mut Rule<'_>)) {
        let name = text(self.name);
        self.change(NEWRULE, NLM_F_CREATE | NLM_F_APPEND, "make rule of nftables", |rule| {
            rule.put(1, &name);
            rule.put(2, &text(chain.0));
            rule.nested(4, |list| build(&mut Rule(list)));
        });
    }

    fn map(&mut self, map: Map) {
        const NFT_SET_MAP: u32 = 8;
        let name = text(self.name);
        self.change(NEWSET, NLM_F_CREATE, "make map of nftables", |attributes| {
            attributes.put(1, &name);
            attributes.put(2, &text(map.name));
            attributes.put(3, &number(NFT_SET_MAP));
            attributes.put(4, &number(0));
            attributes.put(5, &number(map.key_length()));
            attributes.put(6, &number(0));
            attributes.put(7, &number(map.data_length()));
            attributes.put(10, &number(map.number));
        });
    }

    /// Lets connections pass to this device that were opened from there, or led on to it; nothing else.
    fn guard(&mut self, build: impl Fn(&mut Rule<'_>)) {
        self.rule(&PASS, |rule| {
            build(rule);
            rule.connection(ESTABLISHED | RELATED).verdict(NF_ACCEPT);
        });
        self.rule(&PASS, |rule| {
            build(rule);
            rule.led_on().verdict(NF_ACCEPT);
        });
        self.rule(&PASS, |rule| {
            build(rule);
            rule.verdict(NF_DROP);
        });
    }

    /// Adds ports that lead on, or takes them away.
    fn publish(&mut self, ports: &[Published], is_there: bool) {
        for port in ports {
            let map = Map::of(port.at);
            let (kind, flags, step) = match is_there {
                true => (NEWSETELEM, NLM_F_CREATE, "add element to map of nftables"),
                false => (DELSETELEM, 0, "remove element from map of nftables"),
            };
            let name = text(self.name);
            self.change(kind, flags, step, |elements| {
                elements.put(1, &name);
                elements.put(2, &text(map.name));
                elements.nested(3, |list| {
                    list.nested(1, |element| {
                        element.nested(1, |key| key.put(1, &port.key()));
                        if is_there {
                            element.nested(2, |data| data.put(1, &port.data()));
                        }
                    });
                });
            });
        }
    }
}

/// The switch's table.
const WAY_OUT: &str = "ringfence-way-out";

impl Batch {
    fn table(&mut self, name: &str, build: impl FnOnce(&mut Table<'_>)) {
        self.transaction(|batch| build(&mut Table { batch, name }));
    }

    /// In the switch's namespace: what goes to the uplink has the uplink's address.
    pub(super) fn way_out(&mut self, bridge: u32, uplink: u32) {
        self.table(WAY_OUT, |table| {
            table.make(0);
            [&IN, &OUT, &PASS].into_iter().for_each(|chain| table.chain(chain));
            table.rule(&OUT, |rule| rule.leaves_by(uplink).masquerade());
            for map in MAPS.into_iter().filter(|map| !map.of_address) {
                table.map(map);
                table.rule(&IN, |rule| rule.comes_by(uplink).ip(map.family()).lead_on(map));
            }
            // It is no way from one container to another, round what is between them.
            table.rule(&PASS, |rule| rule.comes_by(bridge).leaves_by(bridge).verdict(NF_DROP));
            table.guard(|rule| {
                rule.comes_by(uplink);
            });
        });
    }

    /// In the switch's namespace: takes back what [`way_out`](Self::way_out) has made.
    pub(super) fn no_way_out(&mut self) {
        self.table(WAY_OUT, |table| {
            let name = text(table.name);
            table.change(DELTABLE, 0, "remove table of nftables", |attributes| attributes.put(1, &name));
        });
    }

    /// In the host's namespace: what comes from these addresses on the device has the host's address outside, and nobody reaches them
    /// but by ports that are published.
    pub(super) fn gateway(&mut self, name: &str, device: u32, uplink: &[IpAddr]) {
        self.table(name, |table| {
            table.make(NFT_TABLE_F_OWNER);
            [&IN, &FROM_HERE, &OUT, &PASS, &HERE].into_iter().for_each(|chain| table.chain(chain));
            for map in MAPS {
                table.map(map);
            }
            // Who sends that from outside has no business here: what is led on is not looked at any more by who would drop it.
            table.rule(&IN, |rule| rule.is_loopback(16).verdict(NF_ACCEPT));
            for chain in [&IN, &FROM_HERE] {
                // One that names the address goes before one that is for all.
                let (named, all): (Vec<Map>, Vec<Map>) = MAPS.into_iter().partition(|map| map.of_address);
                for map in named.into_iter().chain(all) {
                    table.rule(chain, |rule| rule.ip(map.family()).is_to_here().lead_on(map));
                }
            }
            for address in uplink {
                table.rule(&OUT, |rule| rule.is_of(*address).masquerade());
            }
            // The answer has to find back.
            table.rule(&OUT, |rule| rule.leaves_by(device).is_loopback(12).masquerade());
            table.guard(|rule| {
                rule.leaves_by(device);
            });
            // The device lets answers through to 127.0.0.1, and nothing else may come by it.
            table.rule(&HERE, |rule| rule.comes_by(device).is_loopback(16).connection(NEW).verdict(NF_DROP));
        });
    }

    /// In the switch's namespace: ports of the uplink that lead to containers.
    pub(super) fn lead_in(&mut self, ports: &[Published], is_there: bool) {
        self.table(WAY_OUT, |table| table.publish(ports, is_there));
    }

    /// In the host's namespace: ports of the host that lead to the uplink's.
    pub(super) fn lead_on(&mut self, name: &str, ports: &[Published], is_there: bool) {
        self.table(name, |table| table.publish(ports, is_there));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_and_data_are_as_long_as_their_maps_say() {
        for at in ["0.0.0.0", "127.0.0.1", "::", "fd00::1"] {
            let at: IpAddr = at.parse().unwrap();
            let port = Published { protocol: Protocol::Udp, at, port: 80, to: at, to_port: 8080 };
            let map = Map::of(at);
            assert_eq!((port.key().len() as u32, port.data().len() as u32), (map.key_length(), map.data_length()));
        }
    }
}
