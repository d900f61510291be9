//! What passes at the ports of a switch: lists of rules for each, and who answers whom.
//!
//! The kernel's connection tracking of bridges is not everywhere, and what it remembers is of the whole namespace, so that one
//! container could fill it for all. Here each port has sets of its own, of the flows that its container began: whoever
//! fills them has no answers any more, and the others have. A flow is remembered when the firewalls of both ends have let its
//! packet pass. What comes back is looked for among the flows of its receiver, and has to fit the lists of both ends with the
//! ends exchanged: so a list that changes holds for what is open, and what it says nothing new of goes on.
//!
//! ```text
//! forward, input, output of the bridge (forward alone where nothing leads out), three chains one behind the other:
//!     answers: is it an answer?     by the port that it leaves by: began-N; to the switch itself by the port that it came by: asked-N
//!     filter: ARP and neighbour discovery pass
//!         does it fit?              by port: outgoing-reversed-N, incoming-reversed-N; an answer that does passes
//!         what cannot be judged is dropped
//!         judge:                    by port: outgoing-N, incoming-N
//!     notes: what passed is remembered: note-N, or ask-N of what came from the switch
//! ```
//!
//! What is found out about a packet is in its mark, which nobody else uses in this namespace. Chains that lead to chains that lead
//! to others would be less to write, but the kernel follows all ways through them at each change: a map of a thousand to a map of a
//! thousand are a million. It follows all of the table that changes, and of no other (nft_table_validate): so what is long and changes when a
//! port comes, the chains of flows, is a table of its own, apart from the lists.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

use ipnet::IpNet;
use netlink_packet_core::NLM_F_CREATE;

use super::super::netlink::{Attributes, Batch, Socket, attributes_of, text_of};
use super::{
    ARP, Chain, DELRULE, DELSET, DELSETELEM, IPV4, IPV6, Message, NEWCHAIN, NEWSET, NEWSETELEM, NF_ACCEPT, NF_DROP,
    NFPROTO_BRIDGE, NFT_META_IIF, NFT_META_L4PROTO, NFT_META_OIF, NFT_META_PROTOCOL, REGISTER, Rule, Set, TABLE, Table,
    number, octets, of_ipv4, of_ipv6, of_link, text,
};
use crate::error::Result;
use crate::net::Direction;
use crate::net::link::Mac;
use crate::spec::{Firewall, FirewallAction, FirewallPeer, FirewallProtocol, FirewallRule};

const GETCHAIN: u16 = 4;
const DELCHAIN: u16 = 5;
const NEWOBJ: u16 = 18;
const GETOBJ: u16 = 19;
const DELOBJ: u16 = 20;
const NFT_OBJECT_COUNTER: u32 = 1;
const NFT_SET_MAP: u32 = 8;
const NFT_SET_TIMEOUT: u32 = 0x10;
const NFT_SET_EVAL: u32 = 0x20;
const NFT_RETURN: u32 = -5i32 as u32;
const NFT_GOTO: u32 = -4i32 as u32;
const NFT_JUMP: u32 = -3i32 as u32;
const NFT_CMP_EQ: u32 = 0;
const NFT_META_MARK: u32 = 3;

/// Where flows are looked for and remembered. The lists are in [`TABLE`].
const FLOW_TABLE: &str = "ringfence-flows";

/// Marks of a packet: nothing is known; it is an answer; it would be one, but a list has changed; its protocol, and its ports if it has
/// them, can be read; neither end has a firewall; it is an error about an answer, which the lists do not know; the lists let it pass.
const UNKNOWN: u32 = 0;
const ANSWER: u32 = 1;
const DENIED: u32 = 2;
const READABLE: u32 = 3;
const FREE: u32 = 4;
const ABOUT_ANSWER: u32 = 5;
const PASSED: u32 = 6;

/// NF_BR_FORWARD.
const FORWARD: u32 = 2;

/// A hook: its number, whether packets have come by a port, leave by one, or both, and its chains.
struct Hook {
    number: u32,
    ways: &'static [u32],
    answers: &'static str,
    filter: &'static str,
    judge: &'static str,
    notes: &'static str,
}

/// That, NF_BR_LOCAL_IN, NF_BR_LOCAL_OUT.
const HOOKS: [Hook; 3] = [
    Hook {
        number: FORWARD,
        ways: &[NFT_META_IIF, NFT_META_OIF],
        answers: "answers-forward",
        filter: "filter-forward",
        judge: "judge-forward",
        notes: "notes-forward",
    },
    Hook {
        number: 1,
        ways: &[NFT_META_IIF],
        answers: "answers-input",
        filter: "filter-input",
        judge: "judge-input",
        notes: "notes-input",
    },
    Hook {
        number: 3,
        ways: &[NFT_META_OIF],
        answers: "answers-output",
        filter: "filter-output",
        judge: "judge-output",
        notes: "notes-output",
    },
];
/// One behind the other, all behind NF_BR_PRI_FILTER_BRIDGED, where the cuts are.
const ANSWERS_PLACE: i32 = -199;
const FILTER_PLACE: i32 = -198;
const NOTES_PLACE: i32 = -197;
const STRANGE: &str = "strange";

/// Ports with a firewall.
const FILTERED: &str = "filtered";
/// Protocols that begin with two ports.
const PORTED: &str = "ported";
/// Types of ICMP's errors about a packet, which they contain.
const ERRORS: [(&str, &[u8]); 2] = [("errors-4", &[3, 11, 12]), ("errors-6", &[1, 2, 3, 4])];

const SCTP: u8 = libc::IPPROTO_SCTP as u8;
const TCP: u8 = libc::IPPROTO_TCP as u8;
const UDP: u8 = libc::IPPROTO_UDP as u8;
const UDPLITE: u8 = libc::IPPROTO_UDPLITE as u8;
const DCCP: u8 = libc::IPPROTO_DCCP as u8;

/// Of TCP.
const FIN_OR_RST: u8 = 5;

/// Addresses (IPv4's with padding), protocol, ports, from the first register on.
const FLOW: u32 = 44;
/// Flows that one container can have open, and that many at their end.
const FLOWS: u32 = 16_384;

/// How long a flow is remembered after its last packet, in milliseconds. TCP as RFC 5382 has it; the others as the kernel's connection
/// tracking does.
const OPEN: u64 = (2 * 60 + 4) * 60_000;
const OPENING: u64 = 120_000;
const CLOSING: u64 = 60_000;
const DATAGRAMS: u64 = 180_000;
const ECHO: u64 = 30_000;

/// Where a packet's flow is looked for.
const BEGAN: &str = "began";
const ASKED: &str = "asked";
/// Where it is remembered.
const NOTE: &str = "note";
const ASK: &str = "ask";
/// An error that a container sends about an answer to what it began.
const ABOUT: &str = "about";
/// The lists, and the same with the ends exchanged.
const OUTGOING: &str = "outgoing";
const INCOMING: &str = "incoming";
const OUTGOING_REVERSED: &str = "outgoing-reversed";
const INCOMING_REVERSED: &str = "incoming-reversed";

/// Maps from ports to chains of that name with the port's number: of flows of all ports, of flows of those with firewalls, and their lists.
const OF_PORTS: [&str; 3] = [BEGAN, NOTE, ABOUT];
const OF_SWITCH: [&str; 2] = [ASKED, ASK];
const OF_LISTS: [&str; 4] = [OUTGOING, INCOMING, OUTGOING_REVERSED, INCOMING_REVERSED];

/// Those that a network needs: to the switch of an internal one nobody speaks, it has no address. The kernel follows all that there is at each
/// change.
fn of_switch(internal: bool) -> &'static [&'static str] {
    if internal { &[] } else { &OF_SWITCH }
}

fn of_port(name: &str, port: u32) -> String {
    format!("{name}-{port}")
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Family {
    Ipv4,
    Ipv6,
}

const FAMILIES: [Family; 2] = [Family::Ipv4, Family::Ipv6];

impl Family {
    fn protocol(self) -> [u8; 2] {
        match self {
            Self::Ipv4 => IPV4,
            Self::Ipv6 => IPV6,
        }
    }

    fn length(self) -> u32 {
        match self {
            Self::Ipv4 => 4,
            Self::Ipv6 => 16,
        }
    }

    /// Where the addresses of the sender and of the receiver are.
    fn addresses(self) -> [u32; 2] {
        match self {
            Self::Ipv4 => [12, 16],
            Self::Ipv6 => [8, 24],
        }
    }

    fn icmp(self) -> u8 {
        match self {
            Self::Ipv4 => libc::IPPROTO_ICMP as u8,
            Self::Ipv6 => libc::IPPROTO_ICMPV6 as u8,
        }
    }

    /// Types of the question and of the answer.
    fn echo(self) -> [u8; 2] {
        match self {
            Self::Ipv4 => [8, 0],
            Self::Ipv6 => [128, 129],
        }
    }

    fn of(address: IpAddr) -> Self {
        if address.is_ipv4() { Self::Ipv4 } else { Self::Ipv6 }
    }

    fn errors(self) -> Set {
        let (name, _) = ERRORS[usize::from(self == Self::Ipv6)];
        named(name.to_owned(), 1)
    }
}

/// What stands behind the addresses and the protocol in a flow.
#[derive(Clone, Copy)]
enum Ends {
    Ports,
    /// ICMP's number of a question and its answer.
    Echo,
    /// None: all flows between two addresses, for fragments, whose first one alone has ports.
    Any,
}

/// Sets are found by name, in the same transaction too.
fn named(name: String, length: u32) -> Set {
    Set { name, length, number: 100 }
}

fn port_set(name: &str) -> Set {
    named(name.to_owned(), 4)
}

/// Flows of a port: those that are open, and those at their end.
fn flows(chain: &str, port: u32) -> [Set; 2] {
    [named(format!("{chain}-{port}-open"), FLOW), named(format!("{chain}-{port}-closing"), FLOW)]
}

/// The addresses of those with a name.
fn peer(number: u32, family: Family) -> Set {
    named(format!("peer{number}-{}", if family == Family::Ipv4 { 4 } else { 6 }), family.length())
}

impl Rule<'_> {
    /// The frame is for more than one device.
    fn for_many(&mut self) -> &mut Self {
        const NFT_PAYLOAD_LL_HEADER: u32 = 0;
        self.payload(NFT_PAYLOAD_LL_HEADER, 0, 1, REGISTER).masked(&[1]).is(&[1])
    }

    fn between(&mut self, first: &[u8], last: &[u8]) -> &mut Self {
        self.expression("range", |range| {
            range.put(1, &number(REGISTER));
            range.put(2, &number(NFT_CMP_EQ));
            range.nested(3, |data| data.put(1, first));
            range.nested(4, |data| data.put(1, last));
        })
    }

    fn constant(&mut self, register: u32, value: &[u8]) -> &mut Self {
        self.expression("immediate", |immediate| {
            immediate.put(1, &number(register));
            immediate.nested(2, |data| data.put(1, value));
        })
    }

    fn counted(&mut self, counter: &str) -> &mut Self {
        self.expression("objref", |objref| {
            objref.put(1, &number(NFT_OBJECT_COUNTER));
            objref.put(2, &text(counter));
        })
    }

    fn flow_set(&mut self, set: &Set, operation: u32, timeout: Option<u64>) -> &mut Self {
        self.expression("dynset", |dynset| {
            dynset.put(1, &text(&set.name));
            dynset.put(3, &number(operation));
            dynset.put(4, &number(REGISTER));
            if let Some(timeout) = timeout {
                dynset.put(6, &timeout.to_be_bytes());
            }
        })
    }

    /// The flow of the registers is remembered as long from now on; the rule ends if there are too many.
    fn remember(&mut self, set: &Set, timeout: u64) -> &mut Self {
        const NFT_DYNSET_OP_UPDATE: u32 = 1;
        self.flow_set(set, NFT_DYNSET_OP_UPDATE, Some(timeout))
    }

    fn forget(&mut self, set: &Set) -> &mut Self {
        const NFT_DYNSET_OP_DELETE: u32 = 2;
        self.flow_set(set, NFT_DYNSET_OP_DELETE, None)
    }

    fn mark(&mut self, mark: u32) -> &mut Self {
        self.constant(REGISTER, &mark.to_ne_bytes()).expression("meta", |meta| {
            meta.put(2, &number(NFT_META_MARK));
            meta.put(3, &number(REGISTER));
        })
    }

    fn marked(&mut self, mark: u32) -> &mut Self {
        self.meta(NFT_META_MARK, REGISTER).is(&mark.to_ne_bytes())
    }

    fn proceed(&mut self, how: u32, chain: &str) {
        self.expression("immediate", |immediate| {
            immediate.put(1, &number(0));
            immediate.nested(2, |data| verdict_data(data, how, Some(chain)));
        });
    }

    /// To the chain of the port.
    fn by_port(&mut self, way: u32, map: &str) {
        self.meta(way, REGISTER).expression("lookup", |lookup| {
            lookup.put(1, &text(map));
            lookup.put(2, &number(REGISTER));
            lookup.put(3, &number(0));
        });
    }

    fn of_family(&mut self, family: Family) -> &mut Self {
        self.meta(NFT_META_PROTOCOL, REGISTER).is(&family.protocol())
    }

    fn above(&mut self, protocol: u8) -> &mut Self {
        self.meta(NFT_META_L4PROTO, REGISTER).is(&[protocol])
    }

    fn ported(&mut self, is: bool) -> &mut Self {
        self.meta(NFT_META_L4PROTO, REGISTER).looked_up(&named(PORTED.to_owned(), 1), is)
    }

    /// Some of these flags of TCP are set.
    fn flags(&mut self, mask: u8) -> &mut Self {
        self.transport(13, 1, REGISTER).masked(&[mask]).is_not(&[0])
    }

    /// A fragment that is not the first one of its packet.
    fn fragment(&mut self, family: Family) -> &mut Self {
        match family {
            Family::Ipv4 => self.header(6, 2, REGISTER).masked(&[0x1f, 0xff]).is_not(&[0; 2]),
            Family::Ipv6 => {
                const NEXTHDR_FRAGMENT: u8 = 44;
                self.expression("exthdr", |exthdr| {
                    exthdr.put(1, &number(REGISTER));
                    exthdr.put(2, &[NEXTHDR_FRAGMENT]);
                    exthdr.put(3, &number(2));
                    exthdr.put(4, &number(2));
                });
                self.masked(&[0xff, 0xf8]).is_not(&[0; 2])
            }
        }
    }

    /// The packet's flow in the registers, from the sender to the receiver, or the other way round.
    fn flow(&mut self, family: Family, swapped: bool, ends: Ends) -> &mut Self {
        let [from, to] = family.addresses();
        let (one, two) = if swapped { (to, from) } else { (from, to) };
        for (register, offset) in [(REGISTER, one), (REGISTER + 4, two)] {
            self.header(offset, family.length(), register);
            if family == Family::Ipv4 {
                self.constant(register + 1, &[0xff; 12]);
            }
        }
        if matches!(ends, Ends::Any) {
            return self.constant(REGISTER + 8, &[0xff; 12]);
        }
        self.meta(NFT_META_L4PROTO, REGISTER + 8);
        let (one, two) = match ends {
            Ends::Echo => (4, 4),
            _ if swapped => (2, 0),
            _ => (0, 2),
        };
        self.transport(one, 2, REGISTER + 9).transport(two, 2, REGISTER + 10)
    }

    /// The flow of the packet that an error of ICMP is about. Headers with options are not looked into. Its addresses are those of the error
    /// itself, the other way round, unless a router may have sent it: then nobody but an end of the flow speaks of it.
    fn flow_inside(&mut self, family: Family, swapped: bool, ends: Ends, by_router: bool) -> &mut Self {
        const INSIDE: u32 = 8;
        let (protocol, behind) = match family {
            Family::Ipv4 => (9, 20),
            Family::Ipv6 => (6, 40),
        };
        self.above(family.icmp()).transport(0, 1, REGISTER).looked_up(&family.errors(), true);
        if family == Family::Ipv4 {
            self.transport(INSIDE, 1, REGISTER).is(&[0x45]);
        }
        self.transport(INSIDE + protocol, 1, REGISTER);
        match ends {
            Ends::Echo => self.is(&[family.icmp()]),
            _ => self.looked_up(&named(PORTED.to_owned(), 1), true),
        };
        let [from, to] = family.addresses();
        let (one, two) = if swapped == by_router { (to, from) } else { (from, to) };
        for (register, offset) in [(REGISTER, one), (REGISTER + 4, two)] {
            if by_router {
                self.transport(INSIDE + offset, family.length(), register);
            } else {
                self.header(offset, family.length(), register);
            }
            if family == Family::Ipv4 {
                self.constant(register + 1, &[0xff; 12]);
            }
        }
        self.transport(INSIDE + protocol, 1, REGISTER + 8);
        let (one, two) = match ends {
            Ends::Echo => (4, 4),
            _ if swapped => (2, 0),
            _ => (0, 2),
        };
        let ports = INSIDE + behind;
        self.transport(ports + one, 2, REGISTER + 9).transport(ports + two, 2, REGISTER + 10)
    }

    /// Says of whom a rule is, of addresses of a family.
    fn with(&mut self, peer: &FirewallPeer, offset: u32, family: Family, names: &BTreeMap<String, u32>) -> &mut Self {
        match peer {
            FirewallPeer::Net(net) if net.prefix_len() == 0 => self,
            FirewallPeer::Net(net) => {
                self.header(offset, family.length(), REGISTER).masked(&octets(net.netmask())).is(&octets(net.network()))
            }
            FirewallPeer::Name(name) => {
                let number = names[&name.to_ascii_lowercase()];
                self.header(offset, family.length(), REGISTER).looked_up(&self::peer(number, family), true)
            }
        }
    }
}

fn verdict_data(data: &mut Attributes, verdict: u32, chain: Option<&str>) {
    data.nested(2, |code| {
        code.put(1, &number(verdict));
        if let Some(chain) = chain {
            code.put(2, &text(chain));
        }
    });
}

/// The counters of a list.
fn counter(port: u32, generation: u32, what: &str) -> String {
    format!("{port}-{generation}-{what}")
}

/// The counter of what no rule said.
const DEFAULTS: [(&str, &str); 2] = [(INCOMING, "in"), (OUTGOING, "out")];

/// A firewall, as the kernel has it.
#[derive(Clone, Debug)]
pub(in super::super) struct Kept {
    pub firewall: Firewall,
    generation: u32,
}

/// The names in rules.
fn names_of(firewall: &Firewall) -> BTreeSet<String> {
    let name = |rule: &FirewallRule| match &rule.peer {
        Some(FirewallPeer::Name(name)) => Some(name.to_ascii_lowercase()),
        _ => None,
    };
    firewall.rules.iter().filter_map(name).collect()
}

/// A port as it comes to the filter.
pub(in super::super) struct Member<'a> {
    pub port: u32,
    pub names: &'a [String],
    pub addresses: &'a [IpNet],
    pub mac: Mac,
}

/// What the filter knows of a port.
#[derive(Debug)]
struct Known {
    /// By which it is found.
    names: BTreeSet<String>,
    /// Its addresses, that of its link too.
    addresses: Vec<IpAddr>,
    kept: Option<Kept>,
}

impl Known {
    fn of(member: &Member<'_>) -> Self {
        let names = member.names.iter().map(|name| name.to_ascii_lowercase()).collect();
        let addresses = member.addresses.iter().map(IpNet::addr).chain([of_link(member.mac)]).collect();
        Self { names, addresses, kept: None }
    }
}

/// A name in rules.
#[derive(Clone, Copy, Debug)]
struct Name {
    number: u32,
    /// How many firewalls have it.
    uses: usize,
}

/// The filter of a network: it is there since the first firewall. What it does to one port takes as long with a thousand others as with
/// none, but for the kernel, which follows all chains of a table when one of them changes.
#[derive(Debug)]
pub(in super::super) struct Filter {
    /// Nothing leads out of the network.
    internal: bool,
    ports: BTreeMap<u32, Known>,
    /// Whose names these are.
    found: BTreeMap<String, BTreeSet<u32>>,
    /// Names in rules.
    names: BTreeMap<String, Name>,
    /// Of firewalls, and of names.
    next: u32,
}

/// What packets a rule, or a default, decided about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FirewallCount {
    /// How many.
    pub packets: u64,
    /// With the headers of IP.
    pub bytes: u64,
}

/// Whether a table has a chain, or an object, of that name.
fn has(socket: &Socket, table: &str, kind: u16, name: &str) -> Result<bool> {
    let message = Message::of_nftables(NFPROTO_BRIDGE, kind, |attributes| {
        attributes.put(1, &text(table));
        match kind {
            GETOBJ => {
                attributes.put(2, &text(name));
                attributes.put(3, &number(NFT_OBJECT_COUNTER));
            }
            _ => attributes.put(3, &text(name)),
        }
    });
    match socket.ask(0, message, "find in nftables", table) {
        Ok(_) => Ok(true),
        Err(e) if e.errno() == libc::ENOENT => Ok(false),
        Err(e) => Err(e),
    }
}

impl Filter {
    /// What all ports share.
    ///
    /// `broadcasts`: the addresses of everybody on the network.
    pub fn begin(socket: &Socket, broadcasts: &[Ipv4Addr], internal: bool) -> Result<Self> {
        let mut batch = Batch::default();
        batch.transaction(|batch| batch.filter(broadcasts, internal));
        socket.request(batch)?;
        Ok(Self { internal, ports: BTreeMap::new(), found: BTreeMap::new(), names: BTreeMap::new(), next: 0 })
    }

    pub fn knows(&self, port: u32) -> bool {
        self.ports.contains_key(&port)
    }

    /// How many ports it knows.
    pub fn len(&self) -> usize {
        self.ports.len()
    }

    /// The firewall of a port, if it has one.
    pub fn kept(&self, port: u32) -> Option<&Kept> {
        self.ports.get(&port)?.kept.as_ref()
    }

    /// A port goes. When that fails it is there still, and its addresses are in the rules of others: nobody else may have them.
    pub fn leave(&mut self, socket: &Socket, port: u32) -> Result<()> {
        let Some(known) = self.ports.get(&port) else { return Ok(()) };
        let last = |name: &String| self.names.get(name).filter(|one| one.uses == 1).map(|one| one.number);
        let used = known.kept.as_ref().map(|kept| names_of(&kept.firewall)).unwrap_or_default();
        let gone: Vec<u32> = used.iter().filter_map(last).collect();
        let numbers = known.names.iter().filter_map(|name| self.names.get(name)).map(|name| name.number);
        let mut batch = Batch::default();
        batch.transaction(|batch| batch.leave(port, known, numbers, &gone, self.internal));
        if let Err(error) = socket.request(batch) {
            // Its answer may be what was lost.
            if has(socket, FLOW_TABLE, GETCHAIN, &of_port(NOTE, port))? {
                return Err(error);
            }
        }
        self.forget(&used);
        self.remove(port);
        Ok(())
    }

    fn remove(&mut self, port: u32) {
        for name in self.ports.remove(&port).into_iter().flat_map(|known| known.names) {
            if let Some(ports) = self.found.get_mut(&name) {
                ports.remove(&port);
                if ports.is_empty() {
                    self.found.remove(&name);
                }
            }
        }
    }

    /// A firewall has these names no more.
    fn forget(&mut self, names: &BTreeSet<String>) {
        for name in names {
            if let Some(one) = self.names.get_mut(name) {
                one.uses -= 1;
                if one.uses == 0 {
                    self.names.remove(name);
                }
            }
        }
    }

    /// Puts a firewall in the place of what the port had, in one transaction. Without one a port that is new just comes.
    pub fn change(&mut self, socket: &Socket, member: &Member<'_>, firewall: Option<&Firewall>) -> Result<()> {
        let port = member.port;
        let comes = !self.knows(port);
        if comes {
            let known = Known::of(member);
            for name in &known.names {
                self.found.entry(name.clone()).or_default().insert(port);
            }
            self.ports.insert(port, known);
        } else if firewall.is_none() {
            return Ok(());
        }
        let known = &self.ports[&port];
        let kept = firewall.map(|firewall| Kept { firewall: firewall.clone(), generation: self.next });
        let mut next = self.next + 1;
        let wanted = firewall.map(names_of).unwrap_or_default();
        let had = known.kept.as_ref().map(|kept| names_of(&kept.firewall)).unwrap_or_default();
        let mut numbers: BTreeMap<String, u32> = BTreeMap::new();
        let mut new = Vec::new();
        for name in &wanted {
            let number = self.names.get(name).map_or_else(
                || {
                    let number = next;
                    next += 1;
                    new.push((name, number));
                    number
                },
                |one| one.number,
            );
            numbers.insert(name.clone(), number);
        }
        let gone = had.difference(&wanted).filter_map(|name| self.names.get(name)).filter(|one| one.uses == 1);
        let gone: Vec<u32> = gone.map(|one| one.number).collect();
        let mut batch = Batch::default();
        batch.transaction(|batch| {
            if comes {
                let names = known.names.iter().filter_map(|name| self.names.get(name));
                batch.join(port, known, names.map(|name| name.number));
            }
            for (name, number) in &new {
                let whose = self.found.get(*name).into_iter().flatten();
                batch.bridge_table(TABLE).name(*number, whose.flat_map(|port| &self.ports[port].addresses));
            }
            if let Some(kept) = &kept {
                batch.put_lists(port, (known.kept.as_ref(), kept), &numbers, &gone, self.internal);
            }
        });
        if let Err(error) = socket.request(batch) {
            // Its answer may be what was lost.
            let done = match &kept {
                Some(kept) => has(socket, TABLE, GETOBJ, &counter(port, kept.generation, DEFAULTS[0].1)),
                None => has(socket, FLOW_TABLE, GETCHAIN, &of_port(NOTE, port)),
            };
            match done {
                Ok(true) => {}
                // Nobody knows: it may be there, and has to leave as if it were.
                Err(_) => return Err(error),
                Ok(false) => {
                    if comes {
                        self.remove(port);
                    }
                    return Err(error);
                }
            }
        }
        self.next = next;
        if let Some(kept) = kept {
            for (name, number) in numbers {
                self.names.entry(name).or_insert(Name { number, uses: 0 }).uses += 1;
            }
            self.forget(&had);
            self.ports.get_mut(&port).expect("it is there").kept = Some(kept);
        }
        Ok(())
    }

    /// The counters of a port: of each rule, of what came in and went out without one.
    pub fn counts(socket: &Socket, port: u32, kept: &Kept) -> Result<(Vec<FirewallCount>, [FirewallCount; 2])> {
        let of = |what: &str| {
            let message = Message::of_nftables(NFPROTO_BRIDGE, GETOBJ, |attributes| {
                attributes.put(1, &text(TABLE));
                attributes.put(2, &text(&counter(port, kept.generation, what)));
                attributes.put(3, &number(NFT_OBJECT_COUNTER));
            });
            let found = socket.ask(0, message, "read counter of nftables", TABLE)?;
            Ok(found.first().map(|payload| count_of(payload).1).unwrap_or_default())
        };
        let rules = (0..kept.firewall.rules.len()).map(|i| of(&i.to_string())).collect::<Result<_>>()?;
        let [incoming, outgoing] = DEFAULTS.map(|(_, what)| what);
        Ok((rules, [of(incoming)?, of(outgoing)?]))
    }
}

/// A counter of nftables: its name, and what it counted.
pub(in super::super) fn count_of(payload: &[u8]) -> (String, FirewallCount) {
    let (mut name, mut count) = (String::new(), FirewallCount::default());
    // Behind struct nfgenmsg.
    for (kind, value) in attributes_of(payload.get(4..).unwrap_or_default()) {
        match kind {
            2 => name = text_of(value),
            4 => {
                for (kind, value) in attributes_of(value) {
                    let figure = value.try_into().map(u64::from_be_bytes).unwrap_or_default();
                    match kind {
                        1 => count.bytes = figure,
                        2 => count.packets = figure,
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    (name, count)
}

impl Table<'_> {
    fn plain_chain(&mut self, name: &str) {
        self.change(NEWCHAIN, NLM_F_CREATE, "make chain of nftables", |attributes| {
            attributes.put(3, &text(name));
        });
    }

    /// A thing of the table, by the attribute that names it.
    fn remove(&mut self, kind: u16, attribute: u16, name: &str) {
        self.change(kind, 0, "remove from nftables", |attributes| {
            attributes.put(attribute, &text(name));
        });
    }

    fn special_set(&mut self, set: &Set, flags: u32, size: Option<u32>) {
        const NFT_DATA_VERDICT: u32 = 0xffff_ff00;
        self.change(NEWSET, NLM_F_CREATE, "make set of nftables", |attributes| {
            attributes.put(2, &text(&set.name));
            attributes.put(3, &number(flags));
            attributes.put(4, &number(0));
            attributes.put(5, &number(set.length));
            if flags & NFT_SET_MAP != 0 {
                attributes.put(6, &number(NFT_DATA_VERDICT));
            }
            if let Some(size) = size {
                attributes.nested(9, |desc| desc.put(1, &number(size)));
            }
            attributes.put(10, &number(set.number));
        });
    }

    /// From a port to its chain.
    fn map_port(&mut self, map: &str, port: u32) {
        // What was noted needs nothing more.
        let how = if matches!(map, NOTE | ASK) { NFT_GOTO } else { NFT_JUMP };
        self.element(NEWSETELEM, map, port, Some((how, &of_port(map, port))));
    }

    /// The port's chains go.
    fn unmap(&mut self, maps: &[&str], port: u32) {
        maps.iter().for_each(|map| self.element(DELSETELEM, map, port, None));
        maps.iter().for_each(|map| self.remove(DELCHAIN, 3, &of_port(map, port)));
    }

    fn element(&mut self, kind: u16, map: &str, port: u32, to: Option<(u32, &str)>) {
        let flags = if kind == NEWSETELEM { NLM_F_CREATE } else { 0 };
        self.change(kind, flags, "change map of nftables", |elements| {
            elements.put(2, &text(map));
            elements.nested(3, |list| {
                list.nested(1, |element| {
                    element.nested(1, |data| data.put(1, &port.to_ne_bytes()));
                    if let Some((how, chain)) = to {
                        element.nested(2, |data| verdict_data(data, how, Some(chain)));
                    }
                });
            });
        });
    }

    /// Addresses of who has a name.
    fn addresses<'a>(&mut self, kind: u16, name: u32, addresses: impl IntoIterator<Item = &'a IpAddr> + Clone) {
        for family in FAMILIES {
            let of_family = addresses.clone().into_iter().filter(|address| Family::of(**address) == family);
            let keys: Vec<Vec<u8>> = of_family.map(|address| octets(*address)).collect();
            self.elements(kind, &peer(name, family), &keys);
        }
    }

    /// The sets of a name, and who has it.
    fn name<'a>(&mut self, number: u32, addresses: impl IntoIterator<Item = &'a IpAddr> + Clone) {
        FAMILIES.into_iter().for_each(|family| self.set(&peer(number, family)));
        self.addresses(NEWSETELEM, number, addresses);
    }

    fn remove_names(&mut self, gone: &[u32]) {
        for number in gone {
            FAMILIES.into_iter().for_each(|family| self.remove(DELSET, 2, &peer(*number, family).name));
        }
    }

    fn counters(&mut self, kind: u16, port: u32, kept: &Kept) {
        let rules = (0..kept.firewall.rules.len()).map(|i| i.to_string());
        for what in rules.chain(DEFAULTS.map(|(_, what)| what.to_owned())) {
            let flags = if kind == NEWOBJ { NLM_F_CREATE } else { 0 };
            self.change(kind, flags, "change counter of nftables", |attributes| {
                attributes.put(2, &text(&counter(port, kept.generation, &what)));
                attributes.put(3, &number(NFT_OBJECT_COUNTER));
                if kind == NEWOBJ {
                    attributes.nested(4, |_| ());
                }
            });
        }
    }

    /// Chains where flows are looked for and remembered, and their sets.
    fn flows(&mut self, look: &str, note: &str, port: u32) {
        let sets = flows(look, port);
        for set in &sets {
            self.special_set(set, NFT_SET_TIMEOUT | NFT_SET_EVAL, Some(FLOWS));
        }
        let (look, note) = (of_port(look, port), of_port(note, port));
        self.plain_chain(&look);
        self.plain_chain(&note);
        for family in FAMILIES {
            self.answers(&look, family, &sets);
            self.begun(&note, family, &sets);
        }
    }

    /// An answer to one of the flows.
    fn answers(&mut self, look: &str, family: Family, [open, closing]: &[Set; 2]) {
        let mut answer = |build: &dyn Fn(&mut Rule<'_>)| {
            self.rule_of(look, |rule| {
                rule.of_family(family);
                build(rule);
                rule.mark(ANSWER).verdict(NFT_RETURN);
            });
        };
        answer(&|rule| {
            rule.above(TCP).flags(FIN_OR_RST).flow(family, false, Ends::Ports);
            rule.looked_up(open, true).remember(closing, CLOSING).forget(open);
        });
        answer(&|rule| {
            rule.above(TCP).flow(family, false, Ends::Ports);
            rule.looked_up(closing, true).remember(closing, CLOSING);
        });
        answer(&|rule| {
            rule.above(TCP).flow(family, false, Ends::Ports);
            rule.looked_up(open, true).remember(open, OPEN);
        });
        answer(&|rule| {
            rule.ported(true).flow(family, false, Ends::Ports);
            rule.looked_up(open, true).remember(open, DATAGRAMS);
        });
        answer(&|rule| {
            rule.above(family.icmp()).transport(0, 1, REGISTER).is(&[family.echo()[1]]);
            rule.flow(family, false, Ends::Echo).looked_up(open, true).remember(open, ECHO);
        });
        answer(&|rule| {
            rule.fragment(family).flow(family, false, Ends::Any);
            rule.looked_up(open, true).remember(open, ECHO);
        });
        for ends in [Ends::Ports, Ends::Echo] {
            self.rule_of(look, |rule| {
                rule.of_family(family).flow_inside(family, true, ends, false);
                rule.looked_up(open, true).mark(ABOUT_ANSWER).verdict(NF_ACCEPT);
            });
            // What comes by no port is from outside, where there are routers.
            self.rule_of(look, |rule| {
                rule.meta(NFT_META_IIF, REGISTER).is(&[0; 4]);
                rule.of_family(family).flow_inside(family, true, ends, true);
                rule.looked_up(open, true).mark(ABOUT_ANSWER).verdict(NF_ACCEPT);
            });
        }
    }

    /// What began, or goes on: it becomes one of the flows.
    fn begun(&mut self, note: &str, family: Family, [open, closing]: &[Set; 2]) {
        let mut begun = |build: &dyn Fn(&mut Rule<'_>), done: bool| {
            self.rule_of(note, |rule| {
                rule.of_family(family);
                build(rule);
                if done {
                    rule.verdict(NF_ACCEPT);
                }
            });
        };
        begun(
            &|rule| {
                rule.above(TCP).flags(FIN_OR_RST).flow(family, true, Ends::Ports);
                rule.remember(closing, CLOSING).forget(open);
            },
            true,
        );
        begun(
            &|rule| {
                // SYN, without ACK.
                rule.above(TCP).transport(13, 1, REGISTER).masked(&[0x12]).is(&[0x02]);
                rule.flow(family, true, Ends::Ports).forget(closing).remember(open, OPENING);
            },
            true,
        );
        begun(
            &|rule| {
                rule.above(TCP).flow(family, true, Ends::Ports);
                rule.looked_up(closing, true).remember(closing, CLOSING);
            },
            true,
        );
        begun(
            &|rule| {
                rule.above(TCP).flow(family, true, Ends::Ports);
                rule.looked_up(open, true).remember(open, OPEN);
            },
            true,
        );
        // What nobody saw begin is not taken for begun by who speaks first. (Later fragments have no such header.)
        begun(
            &|rule| {
                rule.above(TCP).transport(0, 4, REGISTER);
            },
            true,
        );
        begun(
            &|rule| {
                rule.ported(true).flow(family, true, Ends::Ports).remember(open, DATAGRAMS);
            },
            false,
        );
        begun(
            &|rule| {
                rule.above(family.icmp()).transport(0, 1, REGISTER).is(&[family.echo()[0]]);
                rule.flow(family, true, Ends::Echo).remember(open, ECHO);
            },
            false,
        );
        begun(
            &|rule| {
                rule.flow(family, true, Ends::Any).remember(open, DATAGRAMS);
            },
            true,
        );
    }

    /// Errors that a container sends about answers to what it began.
    fn about(&mut self, port: u32) {
        let chain = of_port(ABOUT, port);
        self.plain_chain(&chain);
        let [open, _] = flows(BEGAN, port);
        for family in FAMILIES {
            for ends in [Ends::Ports, Ends::Echo] {
                self.rule_of(&chain, |rule| {
                    rule.of_family(family).flow_inside(family, false, ends, false);
                    rule.looked_up(&open, true).mark(ABOUT_ANSWER).verdict(NF_ACCEPT);
                });
            }
        }
    }

    /// What is for one container comes to its own device alone, whatever the frame says: lists of peers say who gets it. The rest is
    /// for many.
    fn addressed(&mut self, chain: &str, broadcasts: &[Ipv4Addr]) {
        self.plain_chain(STRANGE);
        for (family, own) in FAMILIES.into_iter().zip([of_ipv4(), of_ipv6()]) {
            let [_, to] = family.addresses();
            self.rule_of(chain, |rule| {
                rule.of_family(family).meta(NFT_META_OIF, REGISTER).header(to, family.length(), REGISTER + 1);
                rule.looked_up(&own, false).proceed(NFT_JUMP, STRANGE);
            });
        }
        // Multicast, and everybody.
        self.rule_of(STRANGE, |rule| {
            rule.for_many().of_family(Family::Ipv4).header(16, 1, REGISTER).between(&[224], &[255]).verdict(NFT_RETURN);
        });
        for address in broadcasts {
            self.rule_of(STRANGE, |rule| {
                rule.for_many().of_family(Family::Ipv4).header(16, 4, REGISTER).is(&address.octets());
                rule.verdict(NFT_RETURN);
            });
        }
        self.rule_of(STRANGE, |rule| {
            rule.for_many().of_family(Family::Ipv6).header(24, 1, REGISTER).is(&[0xff]).verdict(NFT_RETURN);
        });
        self.rule_of(STRANGE, |rule| rule.verdict(NF_DROP));
    }

    fn constants(&mut self, name: &str, values: &[u8]) {
        let set = named(name.to_owned(), 1);
        self.set(&set);
        self.elements(NEWSETELEM, &set, &values.iter().map(|value| vec![*value]).collect::<Vec<_>>());
    }

    fn maps(&mut self, maps: &[&str]) {
        maps.iter().for_each(|map| self.special_set(&port_set(map), NFT_SET_MAP, None));
        self.constants(PORTED, &[TCP, UDP, SCTP, UDPLITE, DCCP]);
    }

    fn hook(&mut self, hook: &Hook, name: &'static str, place: i32) {
        self.chain(&Chain(name, hook.number, place), NF_ACCEPT);
    }

    /// Before the lists: whose packet it is.
    fn answers_of(&mut self, hook: &Hook) {
        let [comes, leaves] = hook.ends();
        self.hook(hook, hook.answers, ANSWERS_PLACE);
        self.rule_of(hook.answers, |rule| {
            rule.mark(UNKNOWN);
        });
        // Who has no firewall and speaks to nobody who has one does not pay for it.
        self.rule_of(hook.answers, |rule| {
            for way in hook.ways {
                rule.meta(*way, REGISTER).looked_up(&port_set(FILTERED), false);
            }
            rule.mark(FREE).verdict(NF_ACCEPT);
        });
        let (way, map) = if leaves { (NFT_META_OIF, BEGAN) } else { (NFT_META_IIF, ASKED) };
        self.rule_of(hook.answers, |rule| rule.by_port(way, map));
        if comes {
            self.rule_of(hook.answers, |rule| rule.by_port(NFT_META_IIF, ABOUT));
        }
    }

    /// Behind the lists.
    fn notes_of(&mut self, hook: &Hook) {
        let [comes, _] = hook.ends();
        self.hook(hook, hook.notes, NOTES_PLACE);
        let (way, map) = if comes { (NFT_META_IIF, NOTE) } else { (NFT_META_OIF, ASK) };
        self.rule_of(hook.notes, |rule| rule.marked(PASSED).mark(UNKNOWN).by_port(way, map));
    }

    fn lists_of(&mut self, hook: &Hook, broadcasts: &[Ipv4Addr]) {
        let [comes, leaves] = hook.ends();
        let (check, judge) = (hook.filter, hook.judge);
        self.hook(hook, check, FILTER_PLACE);
        self.plain_chain(judge);
        self.rule_of(check, |rule| rule.marked(FREE).verdict(NF_ACCEPT));
        if hook.number == FORWARD {
            self.addressed(check, broadcasts);
        }
        self.rule_of(check, |rule| rule.marked(ABOUT_ANSWER).verdict(NF_ACCEPT));
        self.rule_of(check, |rule| rule.meta(NFT_META_PROTOCOL, REGISTER).is(&ARP).verdict(NF_ACCEPT));
        // Neighbour discovery is one link's: its hop limit says that nobody passed it on. No header stands before it.
        self.rule_of(check, |rule| {
            rule.of_family(Family::Ipv6).header(6, 2, REGISTER).is(&[libc::IPPROTO_ICMPV6 as u8, 255]);
            rule.header(40, 1, REGISTER).between(&[133], &[137]).verdict(NF_ACCEPT);
        });
        // The kernel follows all of these at each change: only those that mean something here.
        if leaves {
            self.rule_of(check, |rule| rule.marked(ANSWER).by_port(NFT_META_OIF, OUTGOING_REVERSED));
        }
        if comes {
            self.rule_of(check, |rule| rule.marked(ANSWER).by_port(NFT_META_IIF, INCOMING_REVERSED));
        }
        self.rule_of(check, |rule| rule.marked(ANSWER).verdict(NF_ACCEPT));
        self.readable(check);
        self.rule_of(check, |rule| rule.marked(READABLE).proceed(NFT_GOTO, judge));
        self.rule_of(check, |rule| rule.verdict(NF_DROP));

        if comes {
            self.rule_of(judge, |rule| rule.by_port(NFT_META_IIF, OUTGOING));
        }
        if leaves {
            self.rule_of(judge, |rule| rule.by_port(NFT_META_OIF, INCOMING));
        }
        self.rule_of(judge, |rule| {
            rule.mark(PASSED);
        });
    }

    /// Marks what can be judged. What would be an answer, but a list has changed: of TCP that is the end; anything else may be no answer at all
    /// (fragments of another protocol, both ends with the same port), and pass for itself.
    fn readable(&mut self, check: &str) {
        self.rule_of(check, |rule| {
            rule.marked(DENIED).above(TCP).transport(13, 1, REGISTER).masked(&[0x12]).is_not(&[0x02]);
            rule.verdict(NF_DROP);
        });
        // A protocol with ports has them, unless it is a later fragment; where that cannot be seen, a receiver could see it otherwise.
        let mut readable = |build: &dyn Fn(&mut Rule<'_>)| {
            self.rule_of(check, |rule| {
                build(rule);
                rule.mark(READABLE);
            });
        };
        readable(&|rule| {
            rule.ported(false);
        });
        readable(&|rule| {
            rule.ported(true).transport(0, 4, REGISTER);
        });
        for family in FAMILIES {
            readable(&|rule| {
                rule.of_family(family).ported(true).fragment(family);
            });
        }
    }

    /// The rules of one direction.
    fn list(
        &mut self,
        port: u32,
        chain: &str,
        kept: &Kept,
        direction: Direction,
        reversed: bool,
        names: &BTreeMap<String, u32>,
    ) {
        let name = of_port(chain, port);
        let end = |rule: &mut Rule<'_>, what: &str, action: FirewallAction| {
            if !reversed {
                rule.counted(&counter(port, kept.generation, what));
            }
            match action {
                FirewallAction::Allow => rule.verdict(NFT_RETURN),
                FirewallAction::Deny if reversed => rule.mark(DENIED).verdict(NFT_RETURN),
                FirewallAction::Deny => rule.verdict(NF_DROP),
            }
        };
        // The sender is the other end of what comes in, and of answers to what goes out.
        let from_peer = (direction == Direction::In) != reversed;
        for (i, one) in kept.firewall.rules.iter().enumerate() {
            if one.direction != Direction::Both && one.direction != direction {
                continue;
            }
            let what = i.to_string();
            // What is for many is for each peer, too.
            let ways: &[bool] = match one.action {
                FirewallAction::Deny if one.peer.is_some() && chain == OUTGOING => &[false, true],
                _ => &[false],
            };
            for (family, for_many) in
                families(one).into_iter().flat_map(|family| ways.iter().map(move |way| (family, *way)))
            {
                let mut nftables = |build: &dyn Fn(&mut Rule<'_>)| {
                    self.rule_of(&name, |rule| {
                        if let Some(family) = family {
                            rule.of_family(family);
                        }
                        if let Some(protocol) = one.protocol {
                            rule.above(protocol.numbers()[usize::from(family == Some(Family::Ipv6))]);
                        }
                        if for_many {
                            rule.for_many();
                        } else if let (Some(peer), Some(family)) = (&one.peer, family) {
                            rule.with(peer, family.addresses()[usize::from(!from_peer)], family, names);
                        }
                        build(rule);
                        end(rule, &what, one.action);
                    });
                };
                if one.ports.is_empty() {
                    nftables(&|_| ());
                }
                for ports in &one.ports {
                    nftables(&|rule| {
                        let offset = if reversed { 0 } else { 2 };
                        rule.transport(offset, 2, REGISTER);
                        rule.between(&ports.first.to_be_bytes(), &ports.last.to_be_bytes());
                    });
                }
                // The first fragment, which has the ports, is that without which the others are nothing.
                if !one.ports.is_empty() && one.action == FirewallAction::Allow {
                    for of in FAMILIES.into_iter().filter(|of| family.is_none_or(|family| family == *of)) {
                        nftables(&|rule| {
                            rule.of_family(of).fragment(of);
                        });
                    }
                }
            }
        }
        let (what, action) = match direction {
            Direction::In => (DEFAULTS[0].1, kept.firewall.incoming),
            _ => (DEFAULTS[1].1, kept.firewall.outgoing),
        };
        self.rule_of(&name, |rule| end(rule, what, action));
    }
}

impl Hook {
    /// Whether packets have come by a port, and leave by one.
    fn ends(&self) -> [bool; 2] {
        [NFT_META_IIF, NFT_META_OIF].map(|way| self.ways.contains(&way))
    }
}

impl Batch {
    /// What all ports share.
    fn filter(&mut self, broadcasts: &[Ipv4Addr], internal: bool) {
        let hooks = if internal { &HOOKS[..1] } else { &HOOKS };
        let mut table = self.bridge_table(FLOW_TABLE);
        table.make();
        table.maps(&[&OF_PORTS, of_switch(internal)].concat());
        table.set(&port_set(FILTERED));
        ERRORS.iter().for_each(|(name, values)| table.constants(name, values));
        hooks.iter().for_each(|hook| table.answers_of(hook));
        hooks.iter().for_each(|hook| table.notes_of(hook));
        let mut table = self.bridge_table(TABLE);
        table.maps(&OF_LISTS);
        hooks.iter().for_each(|hook| table.lists_of(hook, broadcasts));
    }

    /// A port comes. `names`: those of its own that are in rules.
    fn join(&mut self, port: u32, known: &Known, names: impl Iterator<Item = u32>) {
        let mut table = self.bridge_table(FLOW_TABLE);
        table.flows(BEGAN, NOTE, port);
        table.about(port);
        OF_PORTS.iter().for_each(|map| table.map_port(map, port));
        names.for_each(|name| self.bridge_table(TABLE).addresses(NEWSETELEM, name, &known.addresses));
    }

    /// A port goes, with names that it alone had in rules.
    fn leave(&mut self, port: u32, known: &Known, names: impl Iterator<Item = u32>, gone: &[u32], internal: bool) {
        let kept = known.kept.as_ref();
        let mut table = self.bridge_table(TABLE);
        names.for_each(|name| table.addresses(DELSETELEM, name, &known.addresses));
        if let Some(kept) = kept {
            table.unmap(&OF_LISTS, port);
            table.counters(DELOBJ, port, kept);
        }
        table.remove_names(gone);
        let mut table = self.bridge_table(FLOW_TABLE);
        let of_switch = kept.map(|_| of_switch(internal)).unwrap_or_default();
        if kept.is_some() {
            table.elements(DELSETELEM, &port_set(FILTERED), &[port.to_ne_bytes().into()]);
        }
        table.unmap(&[&OF_PORTS, of_switch].concat(), port);
        let chains = [Some(BEGAN), of_switch.first().copied()];
        for set in chains.into_iter().flatten().flat_map(|chain| flows(chain, port)) {
            table.remove(DELSET, 2, &set.name);
        }
    }

    /// The lists of a firewall in the place of what there was. `names`: those in its rules; `gone`: what nobody's rules have any more.
    fn put_lists(
        &mut self,
        port: u32,
        (old, kept): (Option<&Kept>, &Kept),
        names: &BTreeMap<String, u32>,
        gone: &[u32],
        internal: bool,
    ) {
        const LISTS: [(&str, Direction, bool); 4] = [
            (OUTGOING, Direction::Out, false),
            (INCOMING, Direction::In, false),
            (OUTGOING_REVERSED, Direction::Out, true),
            (INCOMING_REVERSED, Direction::In, true),
        ];
        let mut table = self.bridge_table(TABLE);
        match old {
            None => LISTS.iter().for_each(|(chain, ..)| table.plain_chain(&of_port(chain, port))),
            Some(old) => {
                LISTS.iter().for_each(|(chain, ..)| table.remove(DELRULE, 2, &of_port(chain, port)));
                table.counters(DELOBJ, port, old);
            }
        }
        table.counters(NEWOBJ, port, kept);
        for (chain, direction, reversed) in LISTS {
            table.list(port, chain, kept, direction, reversed, names);
        }
        if old.is_none() {
            OF_LISTS.iter().for_each(|map| table.map_port(map, port));
        }
        table.remove_names(gone);
        if old.is_none() {
            let mut table = self.bridge_table(FLOW_TABLE);
            if !internal {
                table.flows(ASKED, ASK, port);
            }
            of_switch(internal).iter().for_each(|map| table.map_port(map, port));
            table.elements(NEWSETELEM, &port_set(FILTERED), &[port.to_ne_bytes().into()]);
        }
    }
}

/// For which families a rule is written; `None`: for both at once.
fn families(rule: &FirewallRule) -> Vec<Option<Family>> {
    match (&rule.peer, rule.protocol) {
        (Some(FirewallPeer::Net(net)), _) => vec![Some(Family::of(net.addr()))],
        (Some(FirewallPeer::Name(_)), _) | (None, Some(FirewallProtocol::Icmp)) => FAMILIES.map(Some).into(),
        (None, _) => vec![None],
    }
}

#[cfg(any(fuzzing, test))]
impl Batch {
    /// All that a filter has the kernel do, from a network's first port with a firewall to its last.
    pub(in super::super) fn fuzz_filter(
        &mut self,
        member: &Member<'_>,
        [first, second]: [&Firewall; 2],
        broadcasts: &[Ipv4Addr],
        internal: bool,
    ) {
        let numbers = |firewall: &Firewall| names_of(firewall).into_iter().zip(1..).collect::<BTreeMap<_, _>>();
        let keep = |firewall: &Firewall, generation| Kept { firewall: firewall.clone(), generation };
        let (old, new) = (keep(first, member.port), keep(second, !member.port));
        let mut known = Known::of(member);
        self.transaction(|batch| {
            batch.filter(broadcasts, internal);
            batch.join(member.port, &known, numbers(first).into_values());
            numbers(first).values().for_each(|number| batch.bridge_table(TABLE).name(*number, &known.addresses));
            batch.put_lists(member.port, (None, &old), &numbers(first), &[], internal);
        });
        self.transaction(|batch| {
            batch.put_lists(member.port, (Some(&old), &new), &numbers(second), &[member.port], internal);
        });
        known.kept = Some(new);
        self.transaction(|batch| {
            batch.leave(member.port, &known, numbers(first).into_values(), &[member.port], internal)
        });
    }
}
