//! Messages of rtnetlink(7) for devices, addresses and routes.

use std::net::IpAddr;
use std::os::fd::RawFd;

use ipnet::IpNet;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE};
use netlink_packet_route::address::{AddressAttribute, AddressFlags, AddressHeaderFlags, AddressMessage, AddressScope};
use netlink_packet_route::link::{
    InfoBridge, InfoBridgePort, InfoData, InfoIpVlan, InfoKind, InfoMacVlan, InfoMacVtap, InfoNetkit, InfoPortData,
    InfoPortKind, InfoVeth, InfoVlan, IpVlanMode, LinkAttribute, LinkFlags, LinkInfo, LinkMessage, MacVlanMode,
    NetkitMode,
};
use netlink_packet_route::neighbour::{NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState};
use netlink_packet_route::route::{
    RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use super::netlink::Batch;
use crate::spec::{self, AttachmentKind, RoutedPair};

/// The address of a device.
pub(super) type Mac = [u8; 6];

/// One end of a pair of devices.
pub(super) struct End<'a> {
    pub index: u32,
    pub name: &'a str,
}

/// What a device in another namespace is to be.
pub(super) struct Remote<'a> {
    pub end: End<'a>,
    pub namespace: RawFd,
    pub mac: Option<Mac>,
    pub mtu: Option<u32>,
}

impl Remote<'_> {
    fn message(&self) -> LinkMessage {
        let mut message = link(self.end.index);
        message.attributes =
            vec![LinkAttribute::IfName(self.end.name.to_owned()), LinkAttribute::NetNsFd(self.namespace)];
        message.attributes.extend(self.mac.map(|mac| LinkAttribute::Address(mac.to_vec())));
        message.attributes.extend(self.mtu.map(LinkAttribute::Mtu));
        message
    }
}

/// By which entries of this library are known: rtm_protocol, of which 5 to 255 are nobody's unless they are used (rtnetlink(7)).
pub(super) const PROTOCOL: u8 = 0x52;

const NEW: u16 = NLM_F_CREATE | NLM_F_EXCL;

fn link(index: u32) -> LinkMessage {
    let mut message = LinkMessage::default();
    message.header.index = index;
    message
}

fn up(message: &mut LinkMessage) {
    message.header.flags |= LinkFlags::Up;
    message.header.change_mask |= LinkFlags::Up;
}

pub(super) fn family(address: IpAddr) -> AddressFamily {
    if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 }
}

fn macvlan_mode(mode: spec::MacvlanMode) -> MacVlanMode {
    match mode {
        spec::MacvlanMode::Bridge => MacVlanMode::Bridge,
        spec::MacvlanMode::Private => MacVlanMode::Private,
        spec::MacvlanMode::Vepa => MacVlanMode::Vepa,
        spec::MacvlanMode::Passthru => MacVlanMode::Passthrough,
    }
}

impl Batch {
    /// A bridge that is up and learns nothing from what passes about groups of receivers: all get everything that is for many. Its address
    /// does not change with its ports, so that who knows it knows it always.
    pub(super) fn bridge(&mut self, end: &End<'_>, mac: Mac, mtu: u32) {
        let mut message = link(end.index);
        up(&mut message);
        message.attributes = vec![
            LinkAttribute::IfName(end.name.to_owned()),
            LinkAttribute::Address(mac.to_vec()),
            LinkAttribute::Mtu(mtu),
            LinkAttribute::LinkInfo(vec![
                LinkInfo::Kind(InfoKind::Bridge),
                LinkInfo::Data(InfoData::Bridge(vec![
                    InfoBridge::ForwardDelay(0),
                    InfoBridge::MulticastSnooping(false),
                ])),
            ]),
        ];
        self.push(NEW, RouteNetlinkMessage::NewLink(message), "make device of kind bridge", end.name);
    }

    /// An intermediate device, up: what it is to send comes in where it came from.
    pub(super) fn intermediate(&mut self, end: &End<'_>, mtu: u32) {
        let mut message = link(end.index);
        up(&mut message);
        message.attributes = vec![
            LinkAttribute::IfName(end.name.to_owned()),
            LinkAttribute::Mtu(mtu),
            LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Ifb)]),
        ];
        self.push(NEW, RouteNetlinkMessage::NewLink(message), "make device of kind ifb", end.name);
    }

    /// A pair of devices, one here, up, on a bridge if there is one, and one in another namespace, down.
    pub(super) fn veth(&mut self, here: &End<'_>, mtu: Option<u32>, there: &Remote<'_>, bridge: Option<u32>) {
        let info = [LinkInfo::Kind(InfoKind::Veth), LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(there.message())))];
        self.pair((here, mtu), there, bridge, info, "make device of kind veth");
    }

    /// Likewise of netkit, between which there is a link layer as between those of veth.
    pub(super) fn netkit(&mut self, here: &End<'_>, mtu: Option<u32>, there: &Remote<'_>, bridge: Option<u32>) {
        let data = InfoData::Netkit(vec![InfoNetkit::Peer(there.message()), InfoNetkit::Mode(NetkitMode::L2)]);
        let info = [LinkInfo::Kind(InfoKind::Netkit), LinkInfo::Data(data)];
        self.pair((here, mtu), there, bridge, info, "make device of kind netkit");
    }

    fn pair(
        &mut self,
        (here, mtu): (&End<'_>, Option<u32>),
        there: &Remote<'_>,
        bridge: Option<u32>,
        info: [LinkInfo; 2],
        step: &'static str,
    ) {
        let mut message = link(here.index);
        up(&mut message);
        message.attributes = vec![LinkAttribute::IfName(here.name.to_owned())];
        message.attributes.extend(bridge.map(LinkAttribute::Controller));
        message.attributes.extend(mtu.map(LinkAttribute::Mtu));
        message.attributes.push(LinkAttribute::LinkInfo(info.into()));
        self.push(NEW, RouteNetlinkMessage::NewLink(message), step, there.end.name);
    }

    /// A device in another namespace that is on one here.
    pub(super) fn on_parent(&mut self, there: &Remote<'_>, parent: u32, kind: &AttachmentKind) {
        let (kind, data, step) = match kind {
            AttachmentKind::Ipvlan { mode, .. } => {
                let mode = match mode {
                    spec::IpvlanMode::L2 => IpVlanMode::L2,
                    spec::IpvlanMode::L3 => IpVlanMode::L3,
                    spec::IpvlanMode::L3s => IpVlanMode::L3S,
                };
                (InfoKind::IpVlan, InfoData::IpVlan(vec![InfoIpVlan::Mode(mode)]), "make device of kind ipvlan")
            }
            AttachmentKind::Vlan { id, .. } => {
                (InfoKind::Vlan, InfoData::Vlan(vec![InfoVlan::Id(*id)]), "make device of kind vlan")
            }
            AttachmentKind::Macvtap { mode, .. } => {
                let data = InfoData::MacVtap(vec![InfoMacVtap::Mode(macvlan_mode(*mode))]);
                (InfoKind::MacVtap, data, "make device of kind macvtap")
            }
            other => {
                let mode = match other {
                    AttachmentKind::Macvlan { mode, .. } => macvlan_mode(*mode),
                    _ => MacVlanMode::Bridge,
                };
                (InfoKind::MacVlan, InfoData::MacVlan(vec![InfoMacVlan::Mode(mode)]), "make device of kind macvlan")
            }
        };
        let mut message = there.message();
        message.attributes.push(LinkAttribute::Link(parent));
        message.attributes.push(LinkAttribute::LinkInfo(vec![LinkInfo::Kind(kind), LinkInfo::Data(data)]));
        self.push(NEW, RouteNetlinkMessage::NewLink(message), step, there.end.name);
    }

    /// A pair of devices, both down, between which there is nobody to be found by ARP or NDP: what is sent at one end is for the other.
    pub(super) fn routed_pair(&mut self, here: &End<'_>, there: &Remote<'_>, pair: RoutedPair) {
        let mut message = link(here.index);
        let mut other = there.message();
        message.attributes = vec![LinkAttribute::IfName(here.name.to_owned())];
        message.attributes.extend(there.mtu.map(LinkAttribute::Mtu));
        let (info, step) = match pair {
            RoutedPair::Veth => {
                // A device without ARP sends to its own address, which has to be that of the other end.
                for one in [&mut message, &mut other] {
                    one.header.flags |= LinkFlags::Noarp;
                    one.header.change_mask |= LinkFlags::Noarp;
                }
                message.attributes.extend(there.mac.map(|mac| LinkAttribute::Address(mac.to_vec())));
                let data = InfoData::Veth(InfoVeth::Peer(other));
                ([LinkInfo::Kind(InfoKind::Veth), LinkInfo::Data(data)], "make device of kind veth")
            }
            RoutedPair::Netkit => {
                let data = InfoData::Netkit(vec![InfoNetkit::Peer(other), InfoNetkit::Mode(NetkitMode::L3)]);
                ([LinkInfo::Kind(InfoKind::Netkit), LinkInfo::Data(data)], "make device of kind netkit")
            }
        };
        message.attributes.push(LinkAttribute::LinkInfo(info.into()));
        self.push(NEW, RouteNetlinkMessage::NewLink(message), step, there.end.name);
    }

    /// The device is no more; nor is the other one of a pair.
    pub(super) fn delete(&mut self, end: &End<'_>) {
        self.push(0, RouteNetlinkMessage::DelLink(link(end.index)), "delete device", end.name);
    }

    /// Who asks on this device for the address is told that of the device, or no more.
    pub(super) fn proxy(&mut self, outer: u32, address: IpAddr, answers: bool) {
        let mut entry = NeighbourMessage::default();
        entry.header.family = family(address);
        entry.header.ifindex = outer;
        entry.header.flags = NeighbourFlags::Proxy;
        entry.attributes = vec![NeighbourAttribute::Destination(address.into())];
        let about = address.to_string();
        if answers {
            entry.attributes.push(NeighbourAttribute::Protocol(RouteProtocol::Other(PROTOCOL)));
            self.push(NLM_F_CREATE, RouteNetlinkMessage::NewNeighbour(entry), "answer for address", &about);
        } else {
            self.push(0, RouteNetlinkMessage::DelNeighbour(entry), "answer for address no more", &about);
        }
    }

    /// Moves a device into another namespace, where it has this name, and this number if one is given, and is up or down. It loses its
    /// addresses.
    ///
    /// An error can come after the move: a name that is taken there is found last. EBUSY: the number is taken.
    pub(crate) fn move_device(&mut self, index: u32, namespace: RawFd, name: &str, number: Option<u32>, is_up: bool) {
        let mut message = link(index);
        message.header.change_mask |= LinkFlags::Up;
        if is_up {
            up(&mut message);
        }
        message.attributes = vec![LinkAttribute::NetNsFd(namespace), LinkAttribute::IfName(name.to_owned())];
        message.attributes.extend(number.map(|number| LinkAttribute::NewIfIndex(number as i32)));
        self.push(0, RouteNetlinkMessage::NewLink(message), "move device", name);
    }

    /// The one address of a device that is behind a port of a bridge: it is not learned from what comes, and what comes from others is
    /// dropped (Linux 5.16), so that nobody can take another's.
    pub(super) fn behind_port(&mut self, port: &End<'_>, mac: Mac) {
        let mut message = link(port.index);
        message.attributes = vec![LinkAttribute::LinkInfo(vec![
            LinkInfo::PortKind(InfoPortKind::Bridge),
            LinkInfo::PortData(InfoPortData::BridgePort(vec![
                InfoBridgePort::Learning(false),
                InfoBridgePort::UnicastFlood(false),
                InfoBridgePort::Locked(true),
            ])),
        ])];
        self.push(0, RouteNetlinkMessage::NewLink(message), "set up bridge port", port.name);
        let mut entry = NeighbourMessage::default();
        entry.header.family = AddressFamily::Bridge;
        entry.header.ifindex = port.index;
        entry.header.state = NeighbourState::Noarp;
        entry.header.flags = NeighbourFlags::Controller;
        entry.attributes = vec![NeighbourAttribute::LinkLayerAddress(mac.to_vec())];
        let flags = NLM_F_CREATE | NLM_F_REPLACE;
        self.push(flags, RouteNetlinkMessage::NewNeighbour(entry), "add address to bridge", port.name);
    }

    pub(super) fn set_mtu(&mut self, end: &End<'_>, mtu: u32) {
        let mut message = link(end.index);
        message.attributes = vec![LinkAttribute::Mtu(mtu)];
        self.push(0, RouteNetlinkMessage::NewLink(message), "set mtu of device", end.name);
    }

    pub(super) fn set_mac(&mut self, end: &End<'_>, mac: Mac) {
        let mut message = link(end.index);
        message.attributes = vec![LinkAttribute::Address(mac.to_vec())];
        self.push(0, RouteNetlinkMessage::NewLink(message), "set address of device", end.name);
    }

    /// Down, with this address and this largest packet.
    pub(crate) fn restore(&mut self, index: u32, mac: Mac, mtu: u32) {
        let end = End { index, name: "" };
        self.set_up(&end, false);
        self.set_mac(&end, mac);
        self.set_mtu(&end, mtu);
    }

    /// Up or down.
    pub(super) fn set_up(&mut self, end: &End<'_>, is_up: bool) {
        let mut message = link(end.index);
        if is_up {
            up(&mut message);
        } else {
            message.header.change_mask |= LinkFlags::Up;
        }
        let step = if is_up { "set device up" } else { "set device down" };
        self.push(0, RouteNetlinkMessage::NewLink(message), step, end.name);
    }

    /// An address that can be used at once: nobody else has it, so that nobody is asked.
    pub(super) fn address(&mut self, end: &End<'_>, address: IpNet) {
        let mut message = AddressMessage::default();
        message.header.family = family(address.addr());
        message.header.prefix_len = address.prefix_len();
        message.header.scope = AddressScope::Universe;
        message.header.index = end.index;
        message.attributes = vec![AddressAttribute::Local(address.addr()), AddressAttribute::Address(address.addr())];
        match address {
            IpNet::V4(net) if net.prefix_len() < 31 => {
                message.attributes.push(AddressAttribute::Broadcast(net.broadcast()));
            }
            IpNet::V4(_) => {}
            IpNet::V6(_) => {
                message.header.flags = AddressHeaderFlags::Nodad;
                message.attributes.push(AddressAttribute::Flags(AddressFlags::Nodad));
            }
        }
        self.push(NEW, RouteNetlinkMessage::NewAddress(message), "add address", &address.addr().to_string());
    }

    /// A way: to all of `to`, by somebody who is near whatever the addresses say, or directly.
    pub(super) fn route(&mut self, end: &End<'_>, to: IpNet, via: Option<IpAddr>) {
        let mut message = RouteMessage::default();
        message.header.address_family = family(to.addr());
        message.header.destination_prefix_length = to.prefix_len();
        message.header.table = RouteHeader::RT_TABLE_MAIN;
        message.header.protocol = RouteProtocol::Static;
        message.header.kind = RouteType::Unicast;
        message.header.scope = match via {
            None if to.addr().is_ipv4() => RouteScope::Link,
            _ => RouteScope::Universe,
        };
        message.attributes = vec![RouteAttribute::Oif(end.index)];
        if to.prefix_len() > 0 {
            message.attributes.push(RouteAttribute::Destination(to.addr().into()));
        }
        if let Some(via) = via {
            message.header.flags |= RouteFlags::Onlink;
            message.attributes.push(RouteAttribute::Gateway(via.into()));
        }
        self.push(NEW, RouteNetlinkMessage::NewRoute(message), "add route", &to.to_string());
    }
}
