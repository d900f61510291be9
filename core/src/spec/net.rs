//! The field `net`.

use std::net::IpAddr;

use super::at::At;
use super::codec::Codec;
use super::firewall::Firewall;
use super::json::{self, Json, json, wrong_type};
use super::suggest;
use crate::error::{Error, ErrorKind, Result};

/// The network of a container.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub enum Net {
    /// A network namespace with `lo` up and nothing else.
    #[default]
    Loopback,
    /// A network namespace with `lo` down.
    None,
    /// The caller's network: its ports, its abstract sockets.
    Host,
    /// A network namespace with `lo` up and these devices.
    Attached(Vec<Attachment>),
}

/// What a device of a container leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AttachmentKind {
    /// A [`Network`](crate::Network) of this program, by name. Every caller.
    Network(String),
    /// A bridge of the host, by its name: the container gets one end of a pair (veth), the bridge the other one. This and all that
    /// follow take CAP_NET_ADMIN on the host.
    Bridge(String),
    /// The same with a pair of netkit (Linux 6.7, `CONFIG_NETKIT`) in the place of veth. Source: the kernel's drivers/net/netkit.c.
    Netkit(String),
    /// A device of its own on a device of the host, with an address (MAC) of its own: `bridge`, `private`, `vepa`, `passthru`.
    Macvlan {
        /// The host's device.
        parent: String,
        /// Who on the same device it reaches.
        mode: MacvlanMode,
    },
    /// As a macvlan, for a virtual machine in the container: what comes is read from `/dev/taps/INTERFACE`, what is written there is sent. Each
    /// frame of Ethernet has a struct virtio_net_hdr of 10 bytes before it, unless ioctls (TUNSETIFF, TUNSETVNETHDRSZ) say otherwise. `/dev/tapN`, N being
    /// the device's number (`/sys/class/net/INTERFACE/ifindex`), is a link to it. The node is the `user`'s as whom `argv` runs, else root's. Takes
    /// CAP_MKNOD too, and a mount namespace of the container's own; not in a pod. Source: the kernel's drivers/net/tap.c.
    Macvtap {
        /// The host's device.
        parent: String,
        /// Who on the same device it reaches.
        mode: MacvlanMode,
    },
    /// A device of its own on a device of the host, which shares its address (MAC): `l2`, `l3`, `l3s`.
    Ipvlan {
        /// The host's device.
        parent: String,
        /// Up to which layer the host's device decides.
        mode: IpvlanMode,
    },
    /// What has this number (1 to 4094) of IEEE 802.1Q on a device of the host.
    Vlan {
        /// The host's device.
        parent: String,
        /// The number.
        id: u16,
    },
    /// Nothing but addresses, for which the host answers on a device of its own and which it routes to the container: no address of
    /// a device (MAC) but the host's is seen outside. As OpenVZ's venet.
    Routed {
        /// The host's device on which it answers.
        outer: String,
        /// What leads from the host into the container.
        pair: RoutedPair,
    },
    /// A device of the host itself, which comes back with the end of the container.
    Device(String),
}

/// The pair of devices between the host and a container whose addresses are routed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum RoutedPair {
    /// veth(4). Every kernel has it.
    #[default]
    Veth,
    /// netkit (Linux 6.7, `CONFIG_NETKIT`), which hands a packet over without a queue between.
    Netkit,
}

impl RoutedPair {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Veth, Self::Netkit];

    /// The kernel's word for it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Veth => "veth",
            Self::Netkit => "netkit",
        }
    }
}

/// Who on the same device a macvlan or macvtap reaches. Source: the kernel's include/uapi/linux/if_link.h.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum MacvlanMode {
    /// All others.
    #[default]
    Bridge,
    /// Nobody.
    Private,
    /// Others by way of a switch that sends back.
    Vepa,
    /// There are no others: it is the only one.
    Passthru,
}

impl MacvlanMode {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Bridge, Self::Private, Self::Vepa, Self::Passthru];

    /// The kernel's word for it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Bridge => "bridge",
            Self::Private => "private",
            Self::Vepa => "vepa",
            Self::Passthru => "passthru",
        }
    }
}

/// Up to which layer the host's device decides for an ipvlan. Source: the kernel's networking/ipvlan.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum IpvlanMode {
    /// The link layer: ARP and what is for all come in.
    #[default]
    L2,
    /// Routes are the host's; nothing that is for many comes in.
    L3,
    /// As `l3`, and the host's netfilter sees connections.
    L3s,
}

impl IpvlanMode {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::L2, Self::L3, Self::L3s];

    /// The kernel's word for it.
    pub fn name(self) -> &'static str {
        match self {
            Self::L2 => "l2",
            Self::L3 => "l3",
            Self::L3s => "l3s",
        }
    }
}

/// An address of a device, and how many of its bits are those of its subnet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InterfaceAddress {
    /// The address.
    pub address: IpAddr,
    /// Default: the subnet of the network; elsewhere all, 32 or 128.
    pub prefix: Option<u8>,
}

impl<T: Into<IpAddr>> From<T> for InterfaceAddress {
    fn from(address: T) -> Self {
        Self { address: address.into(), prefix: None }
    }
}

impl std::fmt::Display for InterfaceAddress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.prefix {
            Some(prefix) => write!(f, "{}/{prefix}", self.address),
            None => self.address.fmt(f),
        }
    }
}

impl std::str::FromStr for InterfaceAddress {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        let wrong = || format!("{text:?} is not an address like 192.0.2.5, 192.0.2.5/24 or fd00::5/64");
        let (address, prefix) = match text.split_once('/') {
            None => (text, None),
            Some((address, prefix)) => (address, Some(prefix)),
        };
        let address: IpAddr = address.parse().map_err(|_| wrong())?;
        let bits = if address.is_ipv4() { 32 } else { 128 };
        let digits = |text: &&str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        let prefix = match prefix {
            None => None,
            Some(text) => {
                Some(Some(text).filter(digits).and_then(|t| t.parse().ok()).filter(|&n| n <= bits).ok_or_else(wrong)?)
            }
        };
        Ok(Self { address, prefix })
    }
}

/// Addresses from which one is chosen that no other container of the machine has. As text `FIRST-LAST/PREFIX`: `192.0.2.16-192.0.2.99/24`, or
/// `192.0.2.0/24` for all of a subnet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AddressPool {
    /// The first one.
    pub first: IpAddr,
    /// The last one, at most 65,535 further.
    pub last: IpAddr,
    /// The bits of the subnet that it is in. Default: all, 32 or 128.
    pub prefix: Option<u8>,
}

impl AddressPool {
    /// Addresses that are tried for one container.
    pub const MAX: u128 = 65_536;

    fn bits(address: IpAddr) -> u128 {
        match address {
            IpAddr::V4(address) => u32::from(address).into(),
            IpAddr::V6(address) => address.into(),
        }
    }

    /// Those that a container can have: not that of the subnet itself, nor, of IPv4, that of all in it.
    pub(crate) fn addresses(self) -> impl Iterator<Item = IpAddr> {
        let subnet = self.prefix.and_then(|prefix| ipnet::IpNet::new(self.first, prefix).ok());
        let has_ends = subnet.filter(|subnet| subnet.prefix_len() + 1 < subnet.max_prefix_len());
        let is_end = move |address: IpAddr| {
            has_ends
                .is_some_and(|subnet| address == subnet.network() || address.is_ipv4() && address == subnet.broadcast())
        };
        let of_number = move |number: u128| match self.first {
            IpAddr::V4(_) => IpAddr::V4((number as u32).into()),
            IpAddr::V6(_) => IpAddr::V6(number.into()),
        };
        (Self::bits(self.first)..=Self::bits(self.last)).map(of_number).filter(move |address| !is_end(*address))
    }

    fn validate(&self, at: &At) -> Result<()> {
        let wrong = |why: &str| Err(at.error(format!("{self} {why}")));
        let longest = if self.first.is_ipv4() { 32 } else { 128 };
        if self.first.is_ipv4() != self.last.is_ipv4() {
            return wrong("is of two families");
        }
        if self.prefix.is_some_and(|prefix| prefix > longest) {
            return wrong("has more bits than its addresses");
        }
        let (first, last) = (Self::bits(self.first), Self::bits(self.last));
        if first > last {
            return wrong("ends before it begins");
        }
        if last - first >= Self::MAX {
            return wrong("has more than 65536 addresses");
        }
        let subnet = |address: IpAddr| masked(InterfaceAddress { address, prefix: self.prefix });
        if self.prefix.is_some() && subnet(self.first) != subnet(self.last) {
            return wrong("is of several subnets");
        }
        Ok(())
    }
}

impl std::fmt::Display for AddressPool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}-{}", self.first, self.last)?;
        self.prefix.map_or(Ok(()), |prefix| write!(f, "/{prefix}"))
    }
}

impl std::str::FromStr for AddressPool {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        let wrong = || format!("{text:?} is no pool of addresses like 192.0.2.16-192.0.2.99/24 or 192.0.2.0/24");
        let Some((first, last)) = text.split_once('-') else {
            let subnet: ipnet::IpNet = text.parse().map_err(|_| wrong())?;
            if subnet.addr() != subnet.network() {
                return Err(format!("{text:?} has bits behind its prefix: {} is all of that subnet", subnet.trunc()));
            }
            let last = subnet.broadcast();
            return Ok(Self { first: subnet.network(), last, prefix: Some(subnet.prefix_len()) });
        };
        let first = first.parse().map_err(|_| wrong())?;
        let InterfaceAddress { address: last, prefix } = last.parse().map_err(|_| wrong())?;
        Ok(Self { first, last, prefix })
    }
}

/// A way to somewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route {
    /// What is there: an address, or all that has its first bits.
    pub to: InterfaceAddress,
    /// By whom; without it, directly.
    pub via: Option<IpAddr>,
}

/// A device of a container, and what it leads to.
///
/// As text, `network:NAME`, `bridge:NAME`, `netkit:BRIDGE`, `macvlan:PARENT`, `macvtap:PARENT`, `ipvlan:PARENT`, `device:NAME`. As an object `{"network": "shop", "interface": "eth0",
/// "addresses": ["10.89.0.5"], "mac": "02:00:0a:59:00:05", "aliases": ["db"], "firewall": {"incoming": "deny"}}`, or `{"macvlan": "eth0", "mode": "bridge", "addresses":
/// ["192.0.2.5/24", "fd00::5/64"], "gateways": ["192.0.2.1"], "routes": [{"to": "10.0.0.0/8", "via": "192.0.2.7"}], "mtu": 1500}`, likewise `ipvlan` (`mode`), `vlan` (`id`),
/// `bridge`, `netkit`, `device`, `routed` (`pair`: `veth`, `netkit`; it has to have `addresses` or `pool`), and without addresses `macvtap` (`mode`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attachment {
    /// What the device leads to.
    pub kind: AttachmentKind,
    /// The name of the device inside; `eth0`, `eth1` by default.
    pub interface: Option<String>,
    /// On a network at most one address of each of its subnets, others are chosen; elsewhere these, which no other container of
    /// this machine may have on the same device (AlreadyExists). A macvtap has none.
    pub addresses: Vec<InterfaceAddress>,
    /// At most one pool of IPv4 and one of IPv6, from each of which an address is chosen that no container of this machine has, of this program
    /// or another: they tell each other by the kernel (tables of nftables with owners, Linux 5.12). Not on a network, which chooses by itself, nor of a macvtap.
    pub pool: Vec<AddressPool>,
    /// The address of the device. Default: made from its IP address on a network, else the kernel's choice. An ipvlan has that of its
    /// parent.
    pub mac: Option<[u8; 6]>,
    /// The largest packet in bytes. Default: the network's, or that of the host's device.
    pub mtu: Option<u32>,
    /// Where everything goes that is not near: at most one of IPv4 and one of IPv6. Not on a network, nor of a macvtap.
    pub gateways: Vec<IpAddr>,
    /// Further ways. Not on a network, nor of a macvtap.
    pub routes: Vec<Route>,
    /// On a network, names besides the container's `name` and `hostname` by which the others find it.
    pub aliases: Vec<String>,
    /// On a network, what passes at the device; without it everything. Changes by [`Network::set_firewall`](crate::Network::set_firewall).
    pub firewall: Option<Firewall>,
}

impl Attachment {
    /// A device that leads to this.
    pub fn new(kind: AttachmentKind) -> Self {
        Self {
            kind,
            interface: None,
            addresses: Vec::new(),
            pool: Vec::new(),
            mac: None,
            mtu: None,
            gateways: Vec::new(),
            routes: Vec::new(),
            aliases: Vec::new(),
            firewall: None,
        }
    }

    /// A device on the network of that name.
    pub fn network(name: impl Into<String>) -> Self {
        Self::new(AttachmentKind::Network(name.into()))
    }

    /// A device on the host's bridge of that name.
    pub fn bridge(name: impl Into<String>) -> Self {
        Self::new(AttachmentKind::Bridge(name.into()))
    }

    /// A device on the host's bridge of that name, of a pair of netkit.
    pub fn netkit(name: impl Into<String>) -> Self {
        Self::new(AttachmentKind::Netkit(name.into()))
    }

    /// A device on one of the host, in mode `bridge`.
    pub fn macvlan(parent: impl Into<String>) -> Self {
        Self::new(AttachmentKind::Macvlan { parent: parent.into(), mode: MacvlanMode::Bridge })
    }

    /// A device on one of the host for a virtual machine, in mode `bridge`.
    pub fn macvtap(parent: impl Into<String>) -> Self {
        Self::new(AttachmentKind::Macvtap { parent: parent.into(), mode: MacvlanMode::Bridge })
    }

    /// A device on one of the host.
    pub fn ipvlan(parent: impl Into<String>, mode: IpvlanMode) -> Self {
        Self::new(AttachmentKind::Ipvlan { parent: parent.into(), mode })
    }

    /// What has this number on a device of the host.
    pub fn vlan(parent: impl Into<String>, id: u16) -> Self {
        Self::new(AttachmentKind::Vlan { parent: parent.into(), id })
    }

    /// Addresses for which the host answers on its device of that name.
    pub fn routed(outer: impl Into<String>) -> Self {
        Self::new(AttachmentKind::Routed { outer: outer.into(), pair: RoutedPair::Veth })
    }

    /// A device of the host.
    pub fn device(name: impl Into<String>) -> Self {
        Self::new(AttachmentKind::Device(name.into()))
    }

    /// The name of the device inside.
    pub fn interface(mut self, name: impl Into<String>) -> Self {
        self.interface = Some(name.into());
        self
    }

    /// One more address that it has.
    pub fn address(mut self, address: impl Into<InterfaceAddress>) -> Self {
        self.addresses.push(address.into());
        self
    }

    /// One more pool from which an address is chosen.
    pub fn pool(mut self, pool: AddressPool) -> Self {
        self.pool.push(pool);
        self
    }

    /// The address of the device.
    pub fn mac(mut self, mac: [u8; 6]) -> Self {
        self.mac = Some(mac);
        self
    }

    /// The largest packet.
    pub fn mtu(mut self, bytes: u32) -> Self {
        self.mtu = Some(bytes);
        self
    }

    /// Where everything goes that is not near.
    pub fn gateway(mut self, address: impl Into<IpAddr>) -> Self {
        self.gateways.push(address.into());
        self
    }

    /// One more way.
    pub fn route(mut self, to: InterfaceAddress, via: Option<IpAddr>) -> Self {
        self.routes.push(Route { to, via });
        self
    }

    /// One more name by which others find it.
    pub fn alias(mut self, name: impl Into<String>) -> Self {
        self.aliases.push(name.into());
        self
    }

    /// What passes at it.
    pub fn firewall(mut self, firewall: Firewall) -> Self {
        self.firewall = Some(firewall);
        self
    }

    /// Of each address that it will have, whether it is of IPv4.
    pub(crate) fn families(&self) -> impl Iterator<Item = bool> {
        let pools = self.pool.iter().map(|pool| pool.first.is_ipv4());
        self.addresses.iter().map(|one| one.address.is_ipv4()).chain(pools)
    }

    /// The network that it is on.
    pub(crate) fn on_network(&self) -> Option<&str> {
        match &self.kind {
            AttachmentKind::Network(name) => Some(name),
            _ => None,
        }
    }

    /// What the kind is called in JSON, and what stands behind it.
    pub(crate) fn target(&self) -> (&'static str, &str) {
        match &self.kind {
            AttachmentKind::Network(name) => ("network", name),
            AttachmentKind::Bridge(name) => ("bridge", name),
            AttachmentKind::Netkit(name) => ("netkit", name),
            AttachmentKind::Macvlan { parent, .. } => ("macvlan", parent),
            AttachmentKind::Macvtap { parent, .. } => ("macvtap", parent),
            AttachmentKind::Ipvlan { parent, .. } => ("ipvlan", parent),
            AttachmentKind::Vlan { parent, .. } => ("vlan", parent),
            AttachmentKind::Routed { outer, .. } => ("routed", outer),
            AttachmentKind::Device(name) => ("device", name),
        }
    }
}

const WORDS: [&str; 3] = ["loopback", "none", "host"];
const KINDS: [&str; 9] = ["network", "bridge", "netkit", "macvlan", "macvtap", "ipvlan", "vlan", "routed", "device"];
const KEYS: [&str; 21] = [
    "network",
    "bridge",
    "netkit",
    "macvlan",
    "macvtap",
    "ipvlan",
    "vlan",
    "routed",
    "device",
    "mode",
    "id",
    "pair",
    "interface",
    "addresses",
    "pool",
    "mac",
    "mtu",
    "gateways",
    "routes",
    "aliases",
    "firewall",
];
const FORMS: &str = "loopback, none, host, network:NAME, bridge:NAME, netkit:BRIDGE, macvlan:PARENT, macvtap:PARENT, ipvlan:PARENT, device:NAME, or an object, or a list of these";

impl Net {
    /// The word for it: `loopback`, `none`, `host`, `attached`.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Loopback => "loopback",
            Self::None => "none",
            Self::Host => "host",
            Self::Attached(_) => "attached",
        }
    }

    /// What devices it has besides `lo`.
    pub fn attachments(&self) -> &[Attachment] {
        match self {
            Self::Attached(list) => list,
            _ => &[],
        }
    }
}

/// `02:00:0a:59:00:05`.
pub(crate) fn show_mac(mac: [u8; 6]) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

fn read_mac(json: &Json, at: &At) -> Result<[u8; 6]> {
    let expected = "six bytes in hexadecimal digits, like 02:00:0a:59:00:05";
    let Json::String(text) = json else { return Err(wrong_type(at, expected, json)) };
    let byte = |part: &str| match part.len() == 2 && part.bytes().all(|b| b.is_ascii_hexdigit()) {
        true => u8::from_str_radix(part, 16).ok(),
        false => None,
    };
    let bytes: Option<Vec<u8>> = text.split(':').map(byte).collect();
    bytes.and_then(|bytes| bytes.try_into().ok()).ok_or_else(|| wrong_type(at, expected, json))
}

fn list<T>(json: &Json, at: &At, read: impl Fn(&str, &At) -> Result<T>) -> Result<Vec<T>> {
    let item = |json: &Json, at: &At| match json {
        Json::String(text) => read(text, at),
        _ => Err(wrong_type(at, "text", json)),
    };
    match json {
        Json::Array(items) => items.iter().enumerate().map(|(i, json)| item(json, &at.index(i))).collect(),
        _ => Ok(vec![item(json, at)?]),
    }
}

/// `KIND:NAME`, but for a VLAN, which has a number too.
fn short(text: &str) -> Option<Attachment> {
    let (kind, name) = text.split_once(':')?;
    Some(match kind {
        "network" => Attachment::network(name),
        "bridge" => Attachment::bridge(name),
        "netkit" => Attachment::netkit(name),
        "macvlan" => Attachment::macvlan(name),
        "macvtap" => Attachment::macvtap(name),
        "ipvlan" => Attachment::ipvlan(name, IpvlanMode::L2),
        "device" => Attachment::device(name),
        _ => return None,
    })
}

fn read_kind(members: &json::Members, at: &At) -> Result<AttachmentKind> {
    let mut given = KINDS.iter().filter_map(|kind| Some((*kind, json::member(members, kind)?)));
    let (kind, value) = match (given.next(), given.next()) {
        (Some(one), None) => one,
        (None, _) => return Err(at.error(format!("has none of {}", KINDS.join(", ")))),
        (Some((one, _)), Some((other, _))) => {
            return Err(at.error(format!("has {one} and {other}: it leads to one of them")));
        }
    };
    let Json::String(name) = value else { return Err(wrong_type(&at.key(kind), "a name", value)) };
    let name = name.clone();
    let word = |key: &str, names: Vec<&'static str>| match json::member(members, key) {
        None => Ok(0),
        Some(json) => {
            let found = json.as_str().and_then(|text| names.iter().position(|name| *name == text));
            found.ok_or_else(|| wrong_type(&at.key(key), &names.join(", "), json))
        }
    };
    for (key, of) in [("mode", &["macvlan", "macvtap", "ipvlan"][..]), ("id", &["vlan"]), ("pair", &["routed"])] {
        if !of.contains(&kind) && json::member(members, key).is_some() {
            return Err(at.key(key).error(format!("is of {}", of.join(" and "))));
        }
    }
    Ok(match kind {
        "network" => AttachmentKind::Network(name),
        "bridge" => AttachmentKind::Bridge(name),
        "netkit" => AttachmentKind::Netkit(name),
        "macvlan" | "macvtap" => {
            let mode = MacvlanMode::ALL[word("mode", MacvlanMode::ALL.map(MacvlanMode::name).into())?];
            match kind {
                "macvlan" => AttachmentKind::Macvlan { parent: name, mode },
                _ => AttachmentKind::Macvtap { parent: name, mode },
            }
        }
        "ipvlan" => {
            let mode = IpvlanMode::ALL[word("mode", IpvlanMode::ALL.map(IpvlanMode::name).into())?];
            AttachmentKind::Ipvlan { parent: name, mode }
        }
        "vlan" => {
            let id =
                json::member(members, "id").ok_or_else(|| at.key("id").error("is missing: the number of the VLAN"))?;
            let number = json::integer(id).ok_or_else(|| wrong_type(&at.key("id"), "a number from 1 to 4094", id))?;
            let id = u16::try_from(number)
                .map_err(|_| at.key("id").error(format!("{number} is not in the range 1 to 4094")))?;
            AttachmentKind::Vlan { parent: name, id }
        }
        "routed" => {
            let pair = RoutedPair::ALL[word("pair", RoutedPair::ALL.map(RoutedPair::name).into())?];
            AttachmentKind::Routed { outer: name, pair }
        }
        _ => AttachmentKind::Device(name),
    })
}

fn read_attachment(json: &Json, at: &At) -> Result<Attachment> {
    if let Json::String(text) = json {
        return short(text).ok_or_else(|| wrong_type(at, FORMS, json));
    }
    let members = json::members(json, at, FORMS, &KEYS)?;
    let text = |key: &str| match json::member(members, key) {
        None => Ok(None),
        Some(Json::String(text)) => Ok(Some(text.clone())),
        Some(other) => Err(wrong_type(&at.key(key), "a name", other)),
    };
    let interface_address = |text: &str, at: &At| text.parse::<InterfaceAddress>().map_err(|why| at.error(why));
    let address = |text: &str, at: &At| {
        text.parse::<IpAddr>().map_err(|_| at.error(format!("{text:?} is not an IPv4 or IPv6 address")))
    };
    let route = |json: &Json, at: &At| {
        let members = json::members(json, at, "an object with to and via", &["to", "via"])?;
        let text = |key: &str| match json::member(members, key) {
            None => Ok(None),
            Some(Json::String(text)) => Ok(Some(text.clone())),
            Some(other) => Err(wrong_type(&at.key(key), "an address", other)),
        };
        let to = text("to")?.ok_or_else(|| at.key("to").error("is missing"))?;
        let via = text("via")?.map(|text| address(&text, &at.key("via"))).transpose()?;
        Ok(Route { to: interface_address(&to, &at.key("to"))?, via })
    };
    let routes = match json::member(members, "routes") {
        None => Vec::new(),
        Some(Json::Array(items)) => {
            let place = at.key("routes");
            items.iter().enumerate().map(|(i, json)| route(json, &place.index(i))).collect::<Result<_>>()?
        }
        Some(other) => return Err(wrong_type(&at.key("routes"), "a list", other)),
    };
    let addresses = json::member(members, "addresses").map(|json| list(json, &at.key("addresses"), interface_address));
    let pool = |text: &str, at: &At| text.parse::<AddressPool>().map_err(|why| at.error(why));
    let pool = json::member(members, "pool").map(|json| list(json, &at.key("pool"), pool));
    let gateways = json::member(members, "gateways").map(|json| list(json, &at.key("gateways"), address));
    let aliases =
        json::member(members, "aliases").map(|json| list(json, &at.key("aliases"), |text, _| Ok(text.to_owned())));
    let mtu = json::member(members, "mtu").map(|json| {
        let number = json::integer(json).ok_or_else(|| wrong_type(&at.key("mtu"), "a number of bytes", json))?;
        u32::try_from(number).map_err(|_| at.key("mtu").error(format!("{number} is not in the range 68 to 65535")))
    });
    Ok(Attachment {
        kind: read_kind(members, at)?,
        interface: text("interface")?,
        addresses: addresses.transpose()?.unwrap_or_default(),
        pool: pool.transpose()?.unwrap_or_default(),
        mac: json::member(members, "mac").map(|json| read_mac(json, &at.key("mac"))).transpose()?,
        mtu: mtu.transpose()?,
        gateways: gateways.transpose()?.unwrap_or_default(),
        routes,
        aliases: aliases.transpose()?.unwrap_or_default(),
        firewall: json::member(members, "firewall")
            .map(|json| Firewall::read(json, &at.key("firewall")))
            .transpose()?,
    })
}

fn write_attachment(one: &Attachment) -> Json {
    let (kind, name) = one.target();
    let text = format!("{kind}:{name}");
    if short(&text).as_ref() == Some(one) {
        return text.into();
    }
    let mut json = json!({});
    json[kind] = name.into();
    match &one.kind {
        AttachmentKind::Macvlan { mode, .. } | AttachmentKind::Macvtap { mode, .. } => {
            json["mode"] = mode.name().into()
        }
        AttachmentKind::Ipvlan { mode, .. } => json["mode"] = mode.name().into(),
        AttachmentKind::Vlan { id, .. } => json["id"] = (*id).into(),
        AttachmentKind::Routed { pair, .. } if *pair != RoutedPair::Veth => json["pair"] = pair.name().into(),
        _ => {}
    }
    let texts = |list: Vec<String>| Json::from(list);
    if let Some(name) = &one.interface {
        json["interface"] = name.as_str().into();
    }
    if !one.addresses.is_empty() {
        json["addresses"] = texts(one.addresses.iter().map(ToString::to_string).collect());
    }
    if !one.pool.is_empty() {
        json["pool"] = texts(one.pool.iter().map(ToString::to_string).collect());
    }
    if let Some(mac) = one.mac {
        json["mac"] = show_mac(mac).into();
    }
    if let Some(mtu) = one.mtu {
        json["mtu"] = mtu.into();
    }
    if !one.gateways.is_empty() {
        json["gateways"] = texts(one.gateways.iter().map(ToString::to_string).collect());
    }
    if !one.routes.is_empty() {
        let route = |route: &Route| match route.via {
            Some(via) => json!({"to": route.to.to_string(), "via": via.to_string()}),
            None => json!({"to": route.to.to_string()}),
        };
        json["routes"] = one.routes.iter().map(route).collect();
    }
    if !one.aliases.is_empty() {
        json["aliases"] = one.aliases.as_slice().into();
    }
    if let Some(firewall) = &one.firewall {
        json["firewall"] = firewall.json();
    }
    json
}

impl Codec for Net {
    type Value = Self;

    fn read(json: &Json, at: &At) -> Result<Self> {
        match json {
            Json::String(text) => match text.as_str() {
                "loopback" => Ok(Self::Loopback),
                "none" => Ok(Self::None),
                "host" => Ok(Self::Host),
                _ if short(text).is_some() => Ok(Self::Attached(vec![read_attachment(json, at)?])),
                _ => Err(match suggest::nearest(text, WORDS) {
                    Some(name) => wrong_type(at, FORMS, json).with_hint(format!("did you mean {name:?}?")),
                    None => wrong_type(at, FORMS, json),
                }),
            },
            Json::Array(items) => {
                let each = items.iter().enumerate().map(|(i, json)| read_attachment(json, &at.index(i)));
                Ok(Self::Attached(each.collect::<Result<_>>()?))
            }
            _ => Ok(Self::Attached(vec![read_attachment(json, at)?])),
        }
    }

    fn write(value: &Self) -> Json {
        match value {
            Self::Attached(list) if list.len() == 1 => write_attachment(&list[0]),
            Self::Attached(list) => list.iter().map(write_attachment).collect(),
            other => other.name().into(),
        }
    }

    fn schema() -> Json {
        let text = json!({"type": "string"});
        let texts = json!({"anyOf": [text, {"type": "array", "items": text}]});
        let name = json!({"type": "string", "pattern": "^(network|bridge|netkit|macvlan|macvtap|ipvlan|device):"});
        let modes: Vec<&str> =
            MacvlanMode::ALL.map(MacvlanMode::name).into_iter().chain(IpvlanMode::ALL.map(IpvlanMode::name)).collect();
        let route = json!({"type": "object", "additionalProperties": false, "required": ["to"],
            "properties": {"to": text, "via": text}});
        let mut properties = json!({
            "mode": {"enum": modes}, "id": {"type": "integer", "minimum": 1, "maximum": 4094},
            "pair": {"enum": RoutedPair::ALL.map(RoutedPair::name)},
            "interface": text, "addresses": texts, "pool": texts, "mac": {"type": "string", "pattern": "^([0-9A-Fa-f]{2}:){5}[0-9A-Fa-f]{2}$"},
            "mtu": {"type": "integer", "minimum": 68, "maximum": 65535}, "gateways": texts,
            "routes": {"type": "array", "items": route}, "aliases": texts, "firewall": Firewall::schema(),
        });
        for kind in KINDS {
            properties[kind] = text.clone();
        }
        let required: Vec<Json> = KINDS.iter().map(|kind| json!({"required": [kind]})).collect();
        let object =
            json!({"type": "object", "additionalProperties": false, "properties": properties, "oneOf": required});
        let one = json!({"anyOf": [name, object]});
        json!({"anyOf": [{"enum": WORDS}, one, {"type": "array", "items": one, "minItems": 1, "maxItems": MAX}]})
    }
}

/// Devices of one container.
const MAX: usize = 16;

/// As the kernel's dev_valid_name().
pub(crate) fn interface_syntax(name: &str) -> std::result::Result<(), String> {
    let strange = |c: char| c == '/' || c == ':' || c == '%' || c == '\0' || c.is_ascii_whitespace();
    // The kernel has directories of these names for parameters of all devices.
    let taken = matches!(name, "." | ".." | "all" | "default");
    if name.is_empty() || name.len() >= libc::IFNAMSIZ || taken || name.contains(strange) {
        return Err(format!(
            "{name:?} cannot be the name of a network device: 1 to 15 bytes without '/', ':', '%' and white space"
        ));
    }
    Ok(())
}

/// The names of the devices, in order.
pub(crate) fn interfaces(list: &[Attachment]) -> Vec<String> {
    let given = |name: &str| list.iter().any(|one| one.interface.as_deref() == Some(name));
    let mut free = (0..).map(|number| format!("eth{number}")).filter(|name| !given(name));
    list.iter().map(|one| one.interface.clone().unwrap_or_else(|| free.next().expect("there is always one"))).collect()
}

pub(super) fn validate(list: &[Attachment], host_name: impl Fn(&At, &str) -> Result<()>) -> Result<()> {
    let field = At::Field("net");
    if list.is_empty() || list.len() > MAX {
        return Err(field.error(format!("{} networks are not 1 to {MAX}", list.len())));
    }
    for (i, one) in list.iter().enumerate() {
        let place = field.index(i);
        let at = if list.len() == 1 { &field } else { &place };
        let (kind, name) = one.target();
        let named = at.key(kind);
        let on_network = one.on_network().is_some();
        let syntax = if on_network { super::name_syntax(name) } else { interface_syntax(name) };
        syntax.map_err(|why| named.error(why))?;
        let same = |other: &Attachment| match (&one.kind, &other.kind) {
            (AttachmentKind::Network(one), AttachmentKind::Network(other)) => one == other,
            (AttachmentKind::Device(one), AttachmentKind::Device(other)) => one == other,
            _ => false,
        };
        if list[..i].iter().any(same) {
            return Err(named.error(format!("{name:?} stands twice")));
        }
        if let AttachmentKind::Vlan { id, .. } = one.kind
            && !(1..=4094).contains(&id)
        {
            return Err(at.key("id").error(format!("{id} is not in the range 1 to 4094")));
        }
        if let Some(name) = &one.interface {
            interface_syntax(name).map_err(|why| at.key("interface").error(why))?;
            if name == "lo" || list[..i].iter().any(|other| other.interface.as_ref() == Some(name)) {
                return Err(at.key("interface").error(format!("there is a device {name:?} already")));
            }
        }
        for (j, address) in one.addresses.iter().enumerate() {
            if one.addresses[..j].iter().any(|other| other.address == address.address) {
                return Err(at.key("addresses").index(j).error(format!("{} stands twice", address.address)));
            }
        }
        for (j, pool) in one.pool.iter().enumerate() {
            let place = at.key("pool");
            pool.validate(&place.index(j))?;
            if one.pool[..j].iter().any(|other| other.first.is_ipv4() == pool.first.is_ipv4()) {
                return Err(place.index(j).error("there is one pool of IPv4 and one of IPv6"));
            }
        }
        validate_device(one, at)?;
        for (j, alias) in one.aliases.iter().enumerate() {
            host_name(&at.key("aliases").index(j), alias)?;
        }
        if let Some(firewall) = &one.firewall {
            firewall.validate(&at.key("firewall"), &host_name)?;
        }
    }
    Ok(())
}

/// What the kinds differ in.
fn validate_device(one: &Attachment, at: &At) -> Result<()> {
    if one.mac.is_some_and(|mac| mac[0] & 1 != 0 || mac == [0; 6]) {
        return Err(at
            .key("mac")
            .error("is not the address of a single device: the lowest bit of its first byte is set, or all are zero"));
    }
    if one.mac.is_some() && matches!(one.kind, AttachmentKind::Ipvlan { .. }) {
        return Err(at
            .key("mac")
            .error("an ipvlan has the address of the host's device")
            .with_hint("leave it out, or use macvlan"));
    }
    if matches!(one.kind, AttachmentKind::Routed { .. }) {
        validate_routed(one, at)?;
    }
    if let Some(mtu) = one.mtu.filter(|mtu| !(68..=65535).contains(mtu)) {
        return Err(at.key("mtu").error(format!("{mtu} is not in the range 68 to 65535")));
    }
    for (j, gateway) in one.gateways.iter().enumerate() {
        if one.gateways[..j].iter().any(|other| other.is_ipv4() == gateway.is_ipv4()) {
            return Err(at.key("gateways").index(j).error("there is one gateway of IPv4 and one of IPv6"));
        }
    }
    for (j, route) in one.routes.iter().enumerate() {
        let place = at.key("routes");
        let place = place.index(j);
        if route.via.is_some_and(|via| via.is_ipv4() != route.to.address.is_ipv4()) {
            return Err(place.key("via").error("is of another family than what it leads to"));
        }
        if masked(route.to) != route.to.address {
            return Err(place.key("to").error(format!("{} has bits behind its prefix", route.to)));
        }
    }
    let of_the_guest = [
        ("addresses", one.addresses.is_empty()),
        ("pool", one.pool.is_empty()),
        ("gateways", one.gateways.is_empty()),
        ("routes", one.routes.is_empty()),
    ];
    if matches!(one.kind, AttachmentKind::Macvtap { .. })
        && let Some((key, _)) = of_the_guest.iter().find(|(_, absent)| !absent)
    {
        return Err(at
            .key(key)
            .error("what comes to a macvtap goes to who reads its node, not to the container's network")
            .with_hint("the guest sets up its own addresses"));
    }
    let networks = [
        ("pool", one.pool.is_empty()),
        ("gateways", one.gateways.is_empty()),
        ("routes", one.routes.is_empty()),
        ("mtu", one.mtu.is_none()),
    ];
    match networks.iter().find(|(_, absent)| !absent) {
        Some((key, _)) if one.on_network().is_some() => Err(at.key(key).error("is the network's")),
        _ if one.on_network().is_none() && !one.aliases.is_empty() => {
            Err(at.key("aliases").error("only those on a network of this program are found by names"))
        }
        _ if one.on_network().is_none() && one.firewall.is_some() => {
            Err(at.key("firewall").error("takes a network of this program").with_hint("{\"network\": NAME, ...}"))
        }
        _ => Ok(()),
    }
}

/// There is nobody else on the way to the host, and no subnet.
fn validate_routed(one: &Attachment, at: &At) -> Result<()> {
    if one.families().next().is_none() {
        return Err(at.key("addresses").error("is missing: the addresses that are routed to the container"));
    }
    for (j, pool) in one.pool.iter().enumerate() {
        let place = at.key("pool");
        if let Some(ip) = [pool.first, pool.last].into_iter().find(|ip| !can_be_routed(*ip)) {
            return Err(place.index(j).error(format!("{ip} is no address that can be routed to somebody")));
        }
    }
    for (j, address) in one.addresses.iter().enumerate() {
        let place = at.key("addresses");
        let place = place.index(j);
        let bits = if address.address.is_ipv4() { 32 } else { 128 };
        if address.prefix.is_some_and(|prefix| prefix != bits) {
            return Err(
                place.error(format!("{address} is not one address: it is routed alone, as {}/{bits}", address.address))
            );
        }
        let ip = address.address;
        if !can_be_routed(ip) {
            return Err(place.error(format!("{ip} is no address that can be routed to somebody")));
        }
    }
    if one.mac.is_some() {
        return Err(at.key("mac").error("is not seen by anybody: the host answers with its own"));
    }
    if !one.gateways.is_empty() {
        return Err(at.key("gateways").error("is the host, always"));
    }
    if let Some(j) = one.routes.iter().position(|route| route.via.is_some()) {
        return Err(at.key("routes").index(j).key("via").error("is the host, always: leave it out"));
    }
    Ok(())
}

fn can_be_routed(address: IpAddr) -> bool {
    let of_link = match address {
        IpAddr::V4(address) => address.is_link_local() || address.is_broadcast(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    };
    !(of_link || address.is_unspecified() || address.is_loopback() || address.is_multicast())
}

/// The first address of what this one is in.
fn masked(of: InterfaceAddress) -> IpAddr {
    let ones = |prefix: u8, bits: u32| u128::MAX.checked_shl(bits - u32::from(prefix)).unwrap_or(0);
    match (of.address, of.prefix) {
        (IpAddr::V4(address), Some(prefix)) => IpAddr::V4((u32::from(address) & ones(prefix, 32) as u32).into()),
        (IpAddr::V6(address), Some(prefix)) => IpAddr::V6((u128::from(address) & ones(prefix, 128)).into()),
        (address, None) => address,
    }
}

/// What only a whole spec tells.
pub(super) fn detached(list: &[Attachment]) -> Result<()> {
    match list.first() {
        None => Ok(()),
        Some(_) => {
            Err(Error::new(ErrorKind::InvalidSpec, "a detached container would outlive the networks of this program")
                .with_field("net")
                .with_errno(libc::EINVAL)
                .with_hint("leave out detach or net; ports reach a detached container"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::Spec;

    #[test]
    fn a_routed_device_there_and_back_and_what_it_cannot_have() {
        for text in [
            r#"{"addresses":["192.0.2.5","2001:db8::5/128"],"routed":"eth0"}"#,
            r#"{"addresses":["192.0.2.5"],"pair":"netkit","routed":"eth0","routes":[{"to":"10.0.0.0/8"}]}"#,
            r#"{"pool":["192.0.2.16-192.0.2.31","2001:db8::1:0-2001:db8::1:ffff"],"routed":"eth0"}"#,
            r#"{"bridge":"br0","pool":["192.0.2.0-192.0.2.255/24"]}"#,
            r#"{"addresses":["192.0.2.5/24"],"netkit":"br0"}"#,
            "netkit:br0",
        ] {
            let mut spec = Spec::new();
            spec.set("net", text.as_bytes()).unwrap();
            spec.validate().unwrap();
            assert_eq!(spec.get("net").unwrap().as_deref(), Some(text));
        }
        for (more, field) in [
            (r#""addresses": ["fe80::5"]"#, "net.addresses[0]"),
            (r#""addresses": ["192.0.2.5", "127.0.0.2"]"#, "net.addresses[1]"),
            (r#""addresses": ["192.0.2.5"], "mac": "02:00:00:00:00:05""#, "net.mac"),
            (r#""addresses": ["192.0.2.5"], "gateways": ["192.0.2.1"]"#, "net.gateways"),
            (r#""addresses": ["192.0.2.5"], "routes": [{"to": "10.0.0.0/8", "via": "10.0.0.1"}]"#, "net.routes[0].via"),
            (r#""addresses": ["192.0.2.5"], "pair": "tap""#, "net.pair"),
            (r#""pool": []"#, "net.addresses"),
            (r#""pool": ["192.0.2.7"]"#, "net.pool[0]"),
            (r#""pool": ["192.0.2.7/24"]"#, "net.pool[0]"),
            (r#""pool": ["192.0.2.9-192.0.2.7"]"#, "net.pool[0]"),
            (r#""pool": ["192.0.2.9-fd00::7"]"#, "net.pool[0]"),
            (r#""pool": ["192.0.2.9-192.0.3.9/24"]"#, "net.pool[0]"),
            (r#""pool": ["10.0.0.0/8"]"#, "net.pool[0]"),
            (r#""pool": ["127.0.0.1-127.0.0.9"]"#, "net.pool[0]"),
            (r#""pool": ["192.0.2.9-192.0.2.10", "192.0.2.19-192.0.2.20"]"#, "net.pool[1]"),
        ] {
            let json = format!(r#"{{"net": {{"routed": "eth0", {more}}}}}"#);
            let error = Spec::from_json(&json).and_then(|spec| spec.validate()).unwrap_err();
            assert_eq!((error.kind(), error.field()), (ErrorKind::InvalidSpec, Some(field)), "{error}");
        }
        let all = |text: &str| {
            text.parse::<AddressPool>().unwrap().addresses().map(|one| one.to_string()).collect::<Vec<_>>()
        };
        assert_eq!(all("192.0.2.0/30"), ["192.0.2.1", "192.0.2.2"]);
        assert_eq!(all("192.0.2.254-192.0.2.255"), ["192.0.2.254", "192.0.2.255"]);
        assert_eq!(all("fd00::/126"), ["fd00::1", "fd00::2", "fd00::3"]);
        assert_eq!(all("255.255.255.254-255.255.255.255").len(), 2);
    }
}
