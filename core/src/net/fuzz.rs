//! What fuzzers feed.

use std::net::{IpAddr, Ipv4Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::firewall::filter::{Member, count_of};
use super::link::{End, Remote};
use super::nat::Published;
use super::netlink::{Attributes, Batch, assert_filled};
use super::{claim, connections, forward, netlink, routed};
use crate::fuzz::Input;
use crate::net::{Direction, Shape};
use crate::spec::{AttachmentKind, Firewall, FirewallAction, FirewallProtocol, FirewallRule, Protocol, RoutedPair};

/// What the kernel says.
pub(crate) fn replies(bytes: &[u8]) {
    netlink::fuzz(bytes);
    routed::fuzz(bytes);
    claim::fuzz(bytes);
    connections::fuzz(bytes);
    count_of(bytes);
    forward::fuzz(bytes);
}

fn address(input: &mut Input<'_>) -> IpAddr {
    if input.bool() { input.array::<4>().into() } else { input.array::<16>().into() }
}

fn net(input: &mut Input<'_>) -> IpNet {
    let bits = input.byte();
    match address(input) {
        IpAddr::V4(address) => Ipv4Net::new(address, bits % 33).expect("up to 32").into(),
        IpAddr::V6(address) => Ipv6Net::new(address, bits % 129).expect("up to 128").into(),
    }
}

/// As the kernel takes one.
fn name(input: &mut Input<'_>) -> String {
    let length = usize::from(input.byte() % 15) + 1;
    (0..length).map(|_| char::from(b'!' + input.byte() % 94)).collect()
}

fn firewall(input: &mut Input<'_>) -> Firewall {
    let action = |input: &mut Input<'_>| if input.bool() { FirewallAction::Allow } else { FirewallAction::Deny };
    let mut firewall = Firewall::new().incoming(action(input)).outgoing(action(input));
    for _ in 0..input.byte() % 6 {
        let direction = Direction::ALL[usize::from(input.byte() % 3)];
        let mut rule = FirewallRule::new(direction, action(input));
        match input.byte() % 8 {
            0 => {}
            1 => rule = rule.protocol(FirewallProtocol::Icmp),
            2 => rule = rule.protocol(FirewallProtocol::Number(input.byte())),
            other => {
                let ported = [FirewallProtocol::Tcp, FirewallProtocol::Udp, FirewallProtocol::Sctp];
                rule = rule.protocol(ported[usize::from(other % 3)]);
                for _ in 0..input.byte() % 33 {
                    let (one, other) = (input.half(), input.half());
                    rule = rule.ports(one.min(other).max(1), one.max(other).max(1));
                }
            }
        }
        rule = match input.byte() % 3 {
            0 => rule,
            1 => rule.peer(net(input).trunc()),
            _ => rule.peer_name(name(input)),
        };
        firewall = firewall.rule(rule);
    }
    firewall
}

fn published(input: &mut Input<'_>) -> Vec<Published> {
    let one = |input: &mut Input<'_>| {
        let (at, to) = (address(input), address(input));
        // Both are of one family, as they are found to be before.
        let to = if at.is_ipv4() == to.is_ipv4() { to } else { at };
        let protocol = if input.bool() { Protocol::Tcp } else { Protocol::Udp };
        Published { protocol, at, port: input.half(), to, to_port: input.half() }
    };
    (0..input.byte() % 12).map(|_| one(input)).collect()
}

/// Where attributes begin, of what is encoded here by hand: behind struct nfgenmsg. Messages of rtnetlink are those of a crate.
fn of_nftables(kind: u16) -> Option<usize> {
    (kind >> 8 != 0).then_some(4)
}

/// Any sequence of what is said to the kernel.
pub(crate) fn encoders(input: &mut Input<'_>) {
    if let Some(attributes) = attributes(input, 0) {
        let bytes: Vec<u8> = attributes.into();
        assert_filled(&bytes);
    }
    let mut batch = Batch::default();
    for _ in 0..input.byte() % 8 {
        say(&mut batch, input);
    }
    batch.assert_sound(of_nftables);
}

/// Values as long as they may be together.
fn attributes(input: &mut Input<'_>, depth: u8) -> Option<Attributes> {
    let mut all = Attributes::default();
    for _ in 0..input.byte() % 6 {
        let kind = u16::from(input.byte());
        if depth < 4 && input.bool() {
            let inside = attributes(input, depth + 1)?;
            all.nested(kind, |here| *here = inside);
        } else {
            let length = usize::from(input.byte());
            all.put(kind, input.bytes(length));
        }
    }
    Some(all)
}

fn say(batch: &mut Batch, input: &mut Input<'_>) {
    let (here, there) = (name(input), name(input));
    let end = End { index: input.word(), name: &here };
    let mac = input.array::<6>();
    let remote = Remote {
        end: End { index: input.word(), name: &there },
        namespace: i32::from(input.byte()),
        mac: input.bool().then_some(mac),
        mtu: input.bool().then_some(input.word()),
    };
    match input.byte() % 24 {
        0 => batch.bridge(&end, mac, input.word()),
        1 => {
            let (mtu, bridge) = (Some(input.word()), Some(input.word()));
            batch.veth(&end, mtu, &remote, bridge);
            batch.netkit(&end, mtu, &remote, bridge);
        }
        2 => {
            let kinds = [
                AttachmentKind::Macvlan { parent: here.clone(), mode: Default::default() },
                AttachmentKind::Macvtap { parent: here.clone(), mode: Default::default() },
                AttachmentKind::Ipvlan { parent: here.clone(), mode: Default::default() },
                AttachmentKind::Vlan { parent: here.clone(), id: input.half() % 4094 + 1 },
            ];
            batch.on_parent(&remote, input.word(), &kinds[usize::from(input.byte() % 4)]);
        }
        3 => batch.routed_pair(&end, &remote, RoutedPair::ALL[usize::from(input.byte()) % RoutedPair::ALL.len()]),
        4 => batch.delete(&end),
        5 => batch.proxy(input.word(), address(input), input.bool()),
        6 => batch.move_device(input.word(), 3, &here, Some(input.word()), input.bool()),
        7 => batch.behind_port(&end, mac),
        8 => batch.set_mtu(&end, input.word()),
        9 => batch.set_mac(&end, mac),
        10 => batch.restore(input.word(), mac, input.word()),
        11 => batch.set_up(&end, input.bool()),
        12 => batch.address(&end, net(input)),
        13 => {
            let to = net(input);
            let via = address(input);
            let via = (input.bool() && via.is_ipv4() == to.addr().is_ipv4()).then_some(via);
            batch.route(&end, to, via);
        }
        14 => {
            let share = |input: &mut Input<'_>| f64::from(input.byte()) / 255.0;
            let milliseconds = |input: &mut Input<'_>| std::time::Duration::from_millis(input.word().into());
            let shape = Shape {
                rate: input.bool().then_some(u64::from(input.word()) << (input.byte() % 33)),
                delay: milliseconds(input),
                jitter: milliseconds(input),
                loss: share(input),
                duplicate: share(input),
                reorder: share(input),
                corrupt: share(input),
            };
            if shape.validate().is_ok() {
                let mtu = input.word() % 65_536 + 1;
                batch.shape(&end, &shape, mtu);
                batch.shape_incoming(&end, &remote.end, &shape, mtu);
                batch.unshape_incoming(&end, &remote.end);
            }
        }
        15 => batch.firewall(),
        16 => {
            let addresses: Vec<IpAddr> = (0..input.byte() % 8).map(|_| address(input)).collect();
            batch.sources(input.word(), &addresses, mac, input.bool());
        }
        17 => {
            // As many as a set of a partition can have ports.
            let ports = |input: &mut Input<'_>| (0..u32::from(input.half() % 5000)).collect::<Vec<u32>>();
            let (one, other) = (ports(input), ports(input));
            batch.cut(input.word(), [&one, &other]);
        }
        18 => {
            batch.heal();
            let first = input.word() % 1000;
            batch.forget(first..first + u32::from(input.byte()));
        }
        19 => {
            batch.way_out(input.word(), input.word());
            batch.lead_in(&published(input), input.bool());
            batch.no_way_out();
        }
        20 => {
            let uplink: Vec<IpAddr> = (0..input.byte() % 3).map(|_| address(input)).collect();
            batch.gateway(&here, input.word(), &uplink);
            batch.lead_on(&here, &published(input), input.bool());
        }
        21 => {
            let addresses: Vec<IpAddr> = (0..input.byte() % 8).map(|_| address(input)).collect();
            batch.fuzz_sources(&there, &here, &addresses);
        }
        _ => {
            let (first, second) = (firewall(input), firewall(input));
            let names = [here.clone(), there.clone()];
            let addresses: Vec<IpNet> = (0..input.byte() % 4).map(|_| net(input)).collect();
            let member = Member { port: input.word(), names: &names, addresses: &addresses, mac };
            let broadcasts: Vec<Ipv4Addr> = (0..input.byte() % 3).map(|_| input.array::<4>().into()).collect();
            batch.fuzz_filter(&member, [&first, &second], &broadcasts, input.bool());
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_said_is_whole_messages(bytes in prop::collection::vec(any::<u8>(), 0..1000)) {
            encoders(&mut Input::new(&bytes));
        }
    }
}
