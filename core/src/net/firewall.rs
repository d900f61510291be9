//! Who may speak to whom: a table of nftables in the switch's network namespace, changed in transactions.
//!
//! Sources: the headers of nfnetlink and nf_tables (linux/netfilter/nf_tables.h).

use std::net::IpAddr;
use std::ops::Range;

use netlink_packet_core::{NLM_F_APPEND, NLM_F_CREATE, NetlinkSerializable};

use super::link::Mac;
use super::netlink::{Attributes, Batch};

/// What passes at each port.
pub(super) mod filter;

const TABLE: &str = "ringfence";

/// A chain: its name, its hook, its place among others of the hook.
struct Chain(&'static str, u32, i32);

/// NF_BR_PRE_ROUTING and NF_BR_FORWARD; NF_BR_PRI_FILTER_BRIDGED for both.
const SOURCES: Chain = Chain("sources", 0, -200);
const FORWARD: Chain = Chain("forward", 2, -200);

/// A set: its name, the length of its keys, its number in the transaction that makes it.
#[derive(Clone, Debug)]
struct Set {
    name: String,
    length: u32,
    number: u32,
}

/// Port and address.
fn of_ipv4() -> Set {
    Set { name: "ipv4".to_owned(), length: 8, number: 1 }
}

fn of_ipv6() -> Set {
    Set { name: "ipv6".to_owned(), length: 20, number: 2 }
}

/// The ports of one side of a cut.
fn side(cut: u32, number: u32) -> Set {
    Set { name: format!("cut{cut}-{number}"), length: 4, number }
}

const NFPROTO_BRIDGE: u8 = 7;
const NFNL_SUBSYS_NFTABLES: u16 = 10;
const NFNL_MSG_BATCH_BEGIN: u16 = 0x10;
const NFNL_MSG_BATCH_END: u16 = 0x11;

pub(super) const NEWTABLE: u16 = 0;
pub(super) const GETTABLE: u16 = 1;
pub(super) const DELTABLE: u16 = 2;
pub(super) const NEWCHAIN: u16 = 3;
pub(super) const NEWRULE: u16 = 6;
const DELRULE: u16 = 8;
pub(super) const NEWSET: u16 = 9;
const DELSET: u16 = 11;
pub(super) const NEWSETELEM: u16 = 12;
pub(super) const DELSETELEM: u16 = 14;

/// A message of nfnetlink.
pub(super) struct Message {
    kind: u16,
    family: u8,
    resource: u16,
    attributes: Vec<u8>,
}

impl Message {
    /// One of nf_tables, for tables of a family.
    pub fn of_nftables(family: u8, kind: u16, build: impl FnOnce(&mut Attributes)) -> Self {
        Self::of_subsystem(NFNL_SUBSYS_NFTABLES, family, kind, build)
    }

    /// One of another subsystem.
    pub fn of_subsystem(subsystem: u16, family: u8, kind: u16, build: impl FnOnce(&mut Attributes)) -> Self {
        let mut attributes = Attributes::default();
        build(&mut attributes);
        Self { kind: subsystem << 8 | kind, family, resource: 0, attributes: attributes.into() }
    }
}

impl NetlinkSerializable for Message {
    fn message_type(&self) -> u16 {
        self.kind
    }

    fn buffer_len(&self) -> usize {
        4 + self.attributes.len()
    }

    fn serialize(&self, buffer: &mut [u8]) {
        // struct nfgenmsg: family, version 0, resource in network order.
        let [high, low] = self.resource.to_be_bytes();
        buffer[..4].copy_from_slice(&[self.family, 0, high, low]);
        buffer[4..].copy_from_slice(&self.attributes);
    }
}

pub(super) fn text(value: &str) -> Vec<u8> {
    [value.as_bytes(), b"\0"].concat()
}

pub(super) fn number(value: u32) -> [u8; 4] {
    value.to_be_bytes()
}

/// An address as it is in a packet.
pub(super) fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().into(),
        IpAddr::V6(address) => address.octets().into(),
    }
}

/// Registers of four bytes, of which a key takes as many as it needs, from the first on.
pub(super) const REGISTER: u32 = 8;

/// The expressions of a rule.
pub(super) struct Rule<'a>(pub &'a mut Attributes);

impl Rule<'_> {
    pub fn expression(&mut self, name: &str, data: impl FnOnce(&mut Attributes)) -> &mut Self {
        self.0.nested(1, |element| {
            element.put(1, &text(name));
            element.nested(2, data);
        });
        self
    }

    /// Something of the packet that is no part of it.
    pub fn meta(&mut self, key: u32, register: u32) -> &mut Self {
        self.expression("meta", |meta| {
            meta.put(1, &number(register));
            meta.put(2, &number(key));
        })
    }

    /// A part of the header behind that of Ethernet.
    pub fn header(&mut self, offset: u32, length: u32, register: u32) -> &mut Self {
        const NFT_PAYLOAD_NETWORK_HEADER: u32 = 1;
        self.payload(NFT_PAYLOAD_NETWORK_HEADER, offset, length, register)
    }

    /// A part of what is behind the headers of IP, however many there are.
    pub fn transport(&mut self, offset: u32, length: u32, register: u32) -> &mut Self {
        const NFT_PAYLOAD_TRANSPORT_HEADER: u32 = 2;
        self.payload(NFT_PAYLOAD_TRANSPORT_HEADER, offset, length, register)
    }

    pub fn payload(&mut self, base: u32, offset: u32, length: u32, register: u32) -> &mut Self {
        self.expression("payload", |payload| {
            payload.put(1, &number(register));
            payload.put(2, &number(base));
            payload.put(3, &number(offset));
            payload.put(4, &number(length));
        })
    }

    /// The first registers keep these bits.
    pub fn masked(&mut self, mask: &[u8]) -> &mut Self {
        self.expression("bitwise", |bitwise| {
            bitwise.put(1, &number(REGISTER));
            bitwise.put(2, &number(REGISTER));
            bitwise.put(3, &number(mask.len() as u32));
            bitwise.nested(4, |data| data.put(1, mask));
            bitwise.nested(5, |data| data.put(1, &vec![0; mask.len()]));
        })
    }

    /// The rule goes on if the first registers have this.
    pub fn is(&mut self, value: &[u8]) -> &mut Self {
        const NFT_CMP_EQ: u32 = 0;
        self.expression("cmp", |cmp| {
            cmp.put(1, &number(REGISTER));
            cmp.put(2, &number(NFT_CMP_EQ));
            cmp.nested(3, |data| data.put(1, value));
        })
    }

    /// The rule goes on unless the first registers have this.
    pub fn is_not(&mut self, value: &[u8]) -> &mut Self {
        const NFT_CMP_NEQ: u32 = 1;
        self.expression("cmp", |cmp| {
            cmp.put(1, &number(REGISTER));
            cmp.put(2, &number(NFT_CMP_NEQ));
            cmp.nested(3, |data| data.put(1, value));
        })
    }

    /// The rule goes on if the registers' key is in the set, or is not.
    fn looked_up(&mut self, set: &Set, is_in: bool) -> &mut Self {
        const NFT_LOOKUP_F_INV: u32 = 1;
        self.expression("lookup", |lookup| {
            lookup.put(1, &text(&set.name));
            lookup.put(2, &number(REGISTER));
            lookup.put(4, &number(set.number));
            if !is_in {
                lookup.put(5, &number(NFT_LOOKUP_F_INV));
            }
        })
    }

    pub fn verdict(&mut self, verdict: u32) {
        const NFT_REG_VERDICT: u32 = 0;
        self.expression("immediate", |immediate| {
            immediate.put(1, &number(NFT_REG_VERDICT));
            immediate.nested(2, |data| data.nested(2, |code| code.put(1, &number(verdict))));
        });
    }
}

/// The table goes with the socket that made it, and nobody else changes it (Linux 5.12).
pub(super) const NFT_TABLE_F_OWNER: u32 = 2;
pub(super) const NF_DROP: u32 = 0;
pub(super) const NF_ACCEPT: u32 = 1;
pub(super) const NFT_META_PROTOCOL: u32 = 1;
pub(super) const NFT_META_IIF: u32 = 4;
pub(super) const NFT_META_OIF: u32 = 5;
pub(super) const NFT_META_L4PROTO: u32 = 16;
pub(super) const IPV4: [u8; 2] = (libc::ETH_P_IP as u16).to_be_bytes();
pub(super) const IPV6: [u8; 2] = (libc::ETH_P_IPV6 as u16).to_be_bytes();
const ARP: [u8; 2] = (libc::ETH_P_ARP as u16).to_be_bytes();

/// An address that a port may send from.
fn source(port: u32, address: IpAddr) -> (Set, Vec<u8>) {
    // Registers hold numbers as the machine does, and parts of packets as these do.
    let port = port.to_ne_bytes();
    match address {
        IpAddr::V4(address) => (of_ipv4(), [&port[..], &address.octets()].concat()),
        IpAddr::V6(address) => (of_ipv6(), [&port[..], &address.octets()].concat()),
    }
}

/// The address of the link that the kernel makes from that of the device (RFC 4291, appendix A).
fn of_link(mac: Mac) -> IpAddr {
    let [a, b, c, d, e, f] = mac;
    IpAddr::from([0xfe, 0x80, 0, 0, 0, 0, 0, 0, a ^ 2, b, c, 0xff, 0xfe, d, e, f])
}

impl Batch {
    pub(super) fn transaction(&mut self, build: impl FnOnce(&mut Self)) {
        let frame = |kind| Message { kind, family: 0, resource: NFNL_SUBSYS_NFTABLES, attributes: Vec::new() };
        self.frame(0, frame(NFNL_MSG_BATCH_BEGIN), "begin transaction of nftables", "");
        build(self);
        self.frame(0, frame(NFNL_MSG_BATCH_END), "end transaction of nftables", "");
    }

    fn bridge_table(&mut self, name: &'static str) -> Table<'_> {
        Table { batch: self, name }
    }
}

/// One of the tables, in a transaction.
struct Table<'a> {
    batch: &'a mut Batch,
    name: &'static str,
}

impl Table<'_> {
    fn change(&mut self, kind: u16, flags: u16, step: &'static str, build: impl FnOnce(&mut Attributes)) {
        let name = self.name;
        let message = Message::of_nftables(NFPROTO_BRIDGE, kind, |attributes| {
            attributes.put(1, &text(name));
            build(attributes);
        });
        self.batch.push(flags, message, step, name);
    }

    fn make(&mut self) {
        self.change(NEWTABLE, NLM_F_CREATE, "make table of nftables", |_| ());
    }

    fn chain(&mut self, chain: &Chain, policy: u32) {
        self.change(NEWCHAIN, NLM_F_CREATE, "make chain of nftables", |attributes| {
            attributes.put(3, &text(chain.0));
            attributes.nested(4, |hook| {
                hook.put(1, &number(chain.1));
                hook.put(2, &chain.2.to_be_bytes());
            });
            attributes.put(5, &number(policy));
            attributes.put(7, &text("filter"));
        });
    }

    fn set(&mut self, set: &Set) {
        self.change(NEWSET, NLM_F_CREATE, "make set of nftables", |attributes| {
            attributes.put(2, &text(&set.name));
            attributes.put(3, &number(0));
            // The type is for nft(8) to show it by.
            attributes.put(4, &number(0));
            attributes.put(5, &number(set.length));
            attributes.put(10, &number(set.number));
        });
    }

    fn rule(&mut self, chain: &Chain, build: impl FnOnce(&mut Rule<'_>)) {
        self.rule_of(chain.0, build);
    }

    fn rule_of(&mut self, chain: &str, build: impl FnOnce(&mut Rule<'_>)) {
        self.change(NEWRULE, NLM_F_CREATE | NLM_F_APPEND, "make rule of nftables", |rule| {
            rule.put(2, &text(chain));
            rule.nested(4, |list| build(&mut Rule(list)));
        });
    }

    fn elements(&mut self, kind: u16, set: &Set, keys: &[Vec<u8>]) {
        /// An attribute has 65,535 bytes.
        const MANY: usize = 1500;
        let (flags, step) = match kind {
            NEWSETELEM => (NLM_F_CREATE, "add elements to set of nftables"),
            _ => (0, "remove elements from set of nftables"),
        };
        for keys in keys.chunks(MANY) {
            self.change(kind, flags, step, |elements| {
                elements.put(2, &text(&set.name));
                // Of a set that is made in the same transaction.
                elements.put(4, &number(set.number));
                elements.nested(3, |list| {
                    for key in keys {
                        list.nested(1, |element| element.nested(1, |data| data.put(1, key)));
                    }
                });
            });
        }
    }
}

impl Batch {
    /// The table: a port may send from its own addresses, and IP and ARP alone (another kind of frame could have either in it).
    pub(super) fn firewall(&mut self) {
        const ICMPV6: u8 = 58;
        const ROUTER_ADVERTISEMENT: u8 = 134;
        const NEIGHBOUR_ADVERTISEMENT: u8 = 136;
        const REDIRECT: u8 = 137;
        let (ipv4, ipv6) = (of_ipv4(), of_ipv6());
        self.transaction(|batch| {
            let mut table = batch.bridge_table(TABLE);
            table.make();
            table.chain(&SOURCES, NF_DROP);
            table.chain(&FORWARD, NF_ACCEPT);
            table.set(&ipv4);
            table.set(&ipv6);
            // The sender's address: in IPv4's header, and in ARP's, where it is what others are to believe.
            for (protocol, offset) in [(IPV4, 12), (ARP, 14)] {
                table.rule(&SOURCES, |rule| {
                    rule.meta(NFT_META_PROTOCOL, REGISTER).is(&protocol);
                    rule.meta(NFT_META_IIF, REGISTER).header(offset, 4, REGISTER + 1);
                    rule.looked_up(&ipv4, true).verdict(NF_ACCEPT);
                });
            }
            // Who asks whether anybody has an address says nothing of his own (RFC 5227).
            table.rule(&SOURCES, |rule| {
                rule.meta(NFT_META_PROTOCOL, REGISTER).is(&ARP);
                rule.header(14, 4, REGISTER).is(&[0; 4]).verdict(NF_ACCEPT);
            });
            // Nobody is a router.
            for kind in [ROUTER_ADVERTISEMENT, REDIRECT] {
                table.rule(&SOURCES, |rule| {
                    rule.meta(NFT_META_PROTOCOL, REGISTER).is(&IPV6).meta(NFT_META_L4PROTO, REGISTER).is(&[ICMPV6]);
                    rule.transport(0, 1, REGISTER).is(&[kind]).verdict(NF_DROP);
                });
            }
            // Whose address the advertisement says it is.
            table.rule(&SOURCES, |rule| {
                rule.meta(NFT_META_PROTOCOL, REGISTER).is(&IPV6).meta(NFT_META_L4PROTO, REGISTER).is(&[ICMPV6]);
                rule.transport(0, 1, REGISTER).is(&[NEIGHBOUR_ADVERTISEMENT]);
                rule.meta(NFT_META_IIF, REGISTER).transport(8, 16, REGISTER + 1);
                rule.looked_up(&ipv6, false).verdict(NF_DROP);
            });
            // Who asks whether anybody has an address has none yet.
            table.rule(&SOURCES, |rule| {
                rule.meta(NFT_META_PROTOCOL, REGISTER).is(&IPV6).meta(NFT_META_L4PROTO, REGISTER).is(&[ICMPV6]);
                rule.header(8, 16, REGISTER).is(&[0; 16]).verdict(NF_ACCEPT);
            });
            table.rule(&SOURCES, |rule| {
                rule.meta(NFT_META_PROTOCOL, REGISTER).is(&IPV6);
                rule.meta(NFT_META_IIF, REGISTER).header(8, 16, REGISTER + 1);
                rule.looked_up(&ipv6, true).verdict(NF_ACCEPT);
            });
        });
    }

    /// Lets a port send from these addresses, and from that of its link, or no more.
    pub(super) fn sources(&mut self, port: u32, addresses: &[IpAddr], mac: Mac, may: bool) {
        self.transaction(|batch| {
            for address in addresses.iter().copied().chain([of_link(mac)]) {
                let (set, key) = source(port, address);
                batch.bridge_table(TABLE).elements(if may { NEWSETELEM } else { DELSETELEM }, &set, &[key]);
            }
        });
    }

    /// Between the ports of the two sides nothing passes. Cuts have numbers, from 0 on.
    pub(super) fn cut(&mut self, cut: u32, sides: [&[u32]; 2]) {
        let sets = [side(cut, 1), side(cut, 2)];
        self.transaction(|batch| {
            let mut table = batch.bridge_table(TABLE);
            for (set, ports) in sets.iter().zip(sides) {
                table.set(set);
                let keys: Vec<Vec<u8>> = ports.iter().map(|port| port.to_ne_bytes().to_vec()).collect();
                table.elements(NEWSETELEM, set, &keys);
            }
            for (from, to) in [(0, 1), (1, 0)] {
                table.rule(&FORWARD, |rule| {
                    rule.meta(NFT_META_IIF, REGISTER).looked_up(&sets[from], true);
                    rule.meta(NFT_META_OIF, REGISTER).looked_up(&sets[to], true).verdict(NF_DROP);
                });
            }
        });
    }

    /// Nothing is cut any more.
    pub(super) fn heal(&mut self) {
        self.transaction(|batch| {
            let mut table = batch.bridge_table(TABLE);
            table.change(DELRULE, 0, "remove rules of nftables", |rules| {
                rules.put(2, &text(FORWARD.0));
            });
        });
    }

    /// Removes what is left of these cuts.
    pub(super) fn forget(&mut self, cuts: Range<u32>) {
        self.transaction(|batch| {
            let mut table = batch.bridge_table(TABLE);
            for set in cuts.flat_map(|cut| [side(cut, 1), side(cut, 2)]) {
                table.change(DELSET, 0, "remove set of nftables", |attributes| {
                    attributes.put(2, &text(&set.name));
                });
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_as_long_as_their_sets_say() {
        for address in ["10.0.0.1", "fd00::1"] {
            let (set, key) = source(7, address.parse().unwrap());
            assert_eq!(key.len() as u32, set.length);
        }
        let mut batch = Batch::default();
        batch.firewall();
        batch.cut(0, [&vec![1; 4000], &[2]]);
        batch.heal();
        batch.forget(0..1);
    }

    #[test]
    fn the_address_of_a_link() {
        assert_eq!(of_link([0x02, 0, 0x0a, 0x59, 0, 5]).to_string(), "fe80::aff:fe59:5");
    }
}
