//! Who has an address from now on, said to everybody on the wire.
//!
//! A neighbour that knows another device by an address, that of a container which had it before, sends to that one until it has asked
//! again: half a minute, or more. Sources: RFC 5227, 3; RFC 4861, 7.2.6.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::sys::rtnl;

/// Who has the address.
#[derive(Clone, Copy, Debug)]
pub(super) enum Who {
    Host,
    /// Somebody who forwards what is for it.
    Router,
}

/// Says once that these addresses are at a device of this thread's network namespace. Who does not hear it asks when what it knows is old.
pub(super) fn announce(device: &str, addresses: &[IpAddr], who: Who) -> io::Result<()> {
    let Some(mac) = rtnl::ethernet_address(device)? else { return Ok(()) };
    let index = rtnl::index(device)?;
    addresses.iter().try_for_each(|address| {
        let frame = match address {
            IpAddr::V4(address) => arp_announcement(mac, *address),
            IpAddr::V6(address) => neighbour_advertisement(mac, *address, who),
        };
        rtnl::send_frame(index, &frame)
    })
}

const EVERYBODY: [u8; 6] = [0xff; 6];

/// A request that names its sender only (RFC 5227, 3).
fn arp_announcement(mac: [u8; 6], address: Ipv4Addr) -> Vec<u8> {
    let address = address.octets();
    let ethernet = [&EVERYBODY[..], &mac, &[0x08, 0x06]].concat();
    // Ethernet, IPv4, lengths of their addresses, request.
    let arp = [&[0, 1, 0x08, 0, 6, 4, 0, 1][..], &mac, &address, &[0; 6], &address].concat();
    [ethernet, arp].concat()
}

/// An advertisement that nobody asked for, which replaces what others know (RFC 4861, 7.2.6).
fn neighbour_advertisement(mac: [u8; 6], address: Ipv6Addr, who: Who) -> Vec<u8> {
    const ICMPV6: u8 = 58;
    const OVERRIDE: u8 = 0x20;
    let router = match who {
        Who::Host => 0,
        Who::Router => 0x80,
    };
    let all_nodes: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
    let (from, to) = (address.octets(), all_nodes.octets());
    // Type, code, checksum, flags; whose; option 2: the address of the device, in units of eight bytes.
    let mut icmp = [&[136, 0, 0, 0, router | OVERRIDE, 0, 0, 0][..], &from, &[2, 1], &mac].concat();
    let length = icmp.len() as u8;
    let pseudo = [&from[..], &to, &[0, 0, 0, length, 0, 0, 0, ICMPV6], &icmp].concat();
    let sum: u32 = pseudo.chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    let checksum = !((folded & 0xffff) + (folded >> 16)) as u16;
    icmp[2..4].copy_from_slice(&checksum.to_be_bytes());
    let ethernet = [&[0x33, 0x33, 0, 0, 0, 1][..], &mac, &[0x86, 0xdd]].concat();
    let ip = [&[0x60, 0, 0, 0, 0, length, ICMPV6, 255][..], &from, &to].concat();
    [ethernet, ip, icmp].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn announcements_are_what_the_wire_has() {
        let mac = [2, 0, 0, 0, 0, 7];
        let arp = arp_announcement(mac, Ipv4Addr::new(192, 0, 2, 5));
        assert_eq!((arp.len(), &arp[28..32], &arp[38..]), (42, &[192, 0, 2, 5][..], &[192, 0, 2, 5][..]));
        let told = neighbour_advertisement(mac, "2001:db8::5".parse().unwrap(), Who::Host);
        assert_eq!((told.len(), told[54], told[19], told[58]), (86, 136, 32, 0x20));
        // With its checksum a message sums up to all ones.
        let pseudo = [&told[22..54], &[0, 0, 0, 32, 0, 0, 0, 58], &told[54..]].concat();
        let sum: u32 = pseudo.chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum();
        assert_eq!((sum & 0xffff) + (sum >> 16), 0xffff);
        let routers = neighbour_advertisement(mac, "2001:db8::5".parse().unwrap(), Who::Router);
        assert_eq!(routers[58], 0xa0);
    }
}
