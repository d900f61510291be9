//! Firewalls of containers on a network: what passes, what does not, by whatever way it is tried.
//!
//! tests/run: timeout=300 as=root,user vm=root

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::fs::MetadataExt;
use std::sync::LazyLock;
use std::time::Duration;

use common::*;
use ringfence::spec::{
    Attachment, Firewall, FirewallAction, FirewallPeer, FirewallProtocol, FirewallRule, Net, NetworkSpec,
};
use ringfence::{Container, Direction, ErrorKind, FirewallCount, Network, Spec};

#[allow(dead_code, reason = "each test program uses a part of it")]
mod common;

/// A test that hangs is to say where.
const PATIENCE: Option<Duration> = Some(Duration::from_secs(60));
/// What does not come is not waited for longer.
static MOMENT: LazyLock<Duration> = LazyLock::new(|| Duration::from_millis(if emulated() { 1000 } else { 200 }));

fn emulated() -> bool {
    std::env::var("RINGFENCE_TEST_TIER").is_ok_and(|tier| tier == "vm")
}

fn network() -> Network {
    Network::start(&NetworkSpec::new()).expect("a network")
}

fn attached(network: &Network, firewall: &str) -> Attachment {
    Attachment::network(network.name()).firewall(Firewall::from_json(firewall).expect("a firewall"))
}

fn behind(network: &Network, firewall: &str) -> Container {
    network.container(&Spec::new().net(Net::Attached(vec![attached(network, firewall)]))).expect("a container")
}

fn on(network: &Network) -> Container {
    network.container(&Spec::new()).expect("a container")
}

fn addresses(container: &Container) -> Vec<IpAddr> {
    container.addresses().expect("addresses").swap_remove(0).addresses
}

fn listen(container: &Container, address: IpAddr, port: u16) -> TcpListener {
    TcpListener::from(container.listen(&SocketAddr::new(address, port).to_string(), 64).expect("a listener"))
}

fn reaches(from: &Container, to: IpAddr, port: u16) -> bool {
    from.connect(&SocketAddr::new(to, port).to_string(), PATIENCE).is_ok()
}

fn is_cut_off(from: &Container, to: IpAddr, port: u16) -> bool {
    let error = from.connect(&SocketAddr::new(to, port).to_string(), Some(*MOMENT)).expect_err("it is denied");
    error.kind() == ErrorKind::TimedOut
}

fn udp(container: &Container, address: IpAddr, port: u16) -> UdpSocket {
    let domain = if address.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
    let socket: OwnedFd = container.socket(domain, libc::SOCK_DGRAM, 0).expect("a socket");
    let address: nix::sys::socket::SockaddrStorage = SocketAddr::new(address, port).into();
    nix::sys::socket::bind(socket.as_raw_fd(), &address).expect("its address");
    let socket = UdpSocket::from(socket);
    socket.set_read_timeout(Some(*MOMENT)).expect("a timeout");
    socket
}

/// Whether a datagram of that size comes.
fn comes(from: &UdpSocket, to: &UdpSocket, size: usize) -> bool {
    from.send_to(&vec![7; size], to.local_addr().unwrap()).unwrap();
    let mut buffer = vec![0; 65536];
    to.recv_from(&mut buffer).is_ok_and(|(length, who)| (length, who) == (size, from.local_addr().unwrap()))
}

#[test]
fn lists_by_direction_protocol_port_and_peer() {
    let network = network();
    let rules = r#"{"incoming": "deny", "outgoing": "deny", "rules": [
        {"direction": "in", "action": "deny", "protocol": "tcp", "ports": 8005},
        {"direction": "in", "action": "allow", "protocol": "tcp", "ports": [80, "8000-8010"]},
        {"direction": "in", "action": "allow", "protocol": "udp", "ports": 53, "peer": "friend"},
        {"direction": "out", "action": "allow", "protocol": "icmp"}]}"#;
    let server = behind(&network, rules);
    // Named before it is there.
    let friend = network.container(&Spec::new().hostname("friend")).unwrap();
    let other = on(&network);
    for ((here, theirs), others) in addresses(&server).into_iter().zip(addresses(&friend)).zip(addresses(&other)) {
        let listening = [79, 80, 8000, 8005, 8010, 8011].map(|port| listen(&server, here, port));
        for (port, passes) in [(79, false), (80, true), (8000, true), (8005, false), (8010, true), (8011, false)] {
            assert!(if passes { reaches(&other, here, port) } else { is_cut_off(&other, here, port) }, "{here} {port}");
        }
        // Answers on a connection, both ways, whatever their size.
        let mut stream = TcpStream::from(other.connect(&SocketAddr::new(here, 8000).to_string(), PATIENCE).unwrap());
        let from = SocketAddr::new(others, stream.local_addr().unwrap().port());
        let mut accepted = loop {
            let (accepted, who) = listening[2].accept().unwrap();
            if who == from {
                break accepted;
            }
        };
        let sent = vec![7; 1 << 18];
        let mut got = vec![0; sent.len()];
        std::thread::scope(|scope| {
            scope.spawn(|| accepted.write_all(&sent).unwrap());
            stream.read_exact(&mut got).unwrap();
        });
        assert_eq!(got, sent);
        // What is not an answer does not go out.
        let _outside = listen(&other, others, 80);
        assert!(is_cut_off(&server, others, 80));

        let (service, asks, stranger) = (udp(&server, here, 53), udp(&friend, theirs, 1053), udp(&other, others, 1053));
        assert!(!comes(&service, &asks, 8), "nobody asked");
        assert!(comes(&asks, &service, 8) && comes(&service, &asks, 8), "a question and its answer");
        assert!(comes(&asks, &service, 4000) && comes(&service, &asks, 4000), "in fragments");
        assert!(!comes(&stranger, &service, 8) && !comes(&service, &stranger, 8));
        assert!(!comes(&asks, &udp(&server, here, 54), 8), "another port");

        assert!(pings(&server, theirs, 64, *MOMENT), "{here} pings");
        assert!(pings(&server, theirs, 3000, *MOMENT), "{here} pings with fragments");
        assert!(!pings(&friend, here, 64, *MOMENT), "{here} is pinged");
        drop(listening);
    }
    let usage = network.firewall(&server).unwrap();
    assert_eq!(usage.firewall, Firewall::from_json(rules).unwrap());
    assert!(usage.rules.iter().all(|count| count.packets > 0 && count.bytes >= 28 * count.packets), "{usage:?}");
    assert!(usage.incoming.packets > 0 && usage.outgoing.packets > 0, "{usage:?}");
    let json: serde_json::Value = serde_json::from_str(&network.firewall_json(&server).unwrap()).unwrap();
    assert!(json["rules"][1]["packets"].as_u64() >= Some(usage.rules[1].packets), "{json}");
    assert!(json["defaults"]["incoming"]["bytes"].as_u64() > Some(0), "{json}");
    assert_eq!(network.firewall(&other).unwrap(), Default::default());

    // A name is whoever has it now.
    friend.close(PATIENCE).unwrap();
    let again = network.container(&Spec::new().hostname("FRIEND")).unwrap();
    let (here, theirs) = (addresses(&server)[0], addresses(&again)[0]);
    assert!(comes(&udp(&again, theirs, 1053), &udp(&server, here, 53), 8));
    network.close(PATIENCE).unwrap();
}

#[test]
fn a_firewall_that_changes_holds_for_what_is_open() {
    let network = Network::start(&NetworkSpec::new().subnet("10.1.2.0/24")).unwrap();
    let (one, two) = (behind(&network, r#"{"incoming": "deny"}"#), on(&network));
    let (here, there) = (addresses(&one)[0], addresses(&two)[0]);
    let listener = listen(&two, there, 80);
    let open = |port| {
        let stream = TcpStream::from(one.connect(&SocketAddr::new(there, port).to_string(), PATIENCE).unwrap());
        stream.set_read_timeout(Some(*MOMENT)).unwrap();
        stream
    };
    let mut stream = open(80);
    let (mut accepted, _) = listener.accept().unwrap();
    let set = |container: &Container, firewall: &str| {
        network.set_firewall(container, &Firewall::from_json(firewall).unwrap()).unwrap();
    };
    let mut arrives = |stream: &mut TcpStream| {
        accepted.write_all(b"x").unwrap();
        stream.read(&mut [0; 16]).is_ok_and(|length| length > 0)
    };
    assert!(arrives(&mut stream));
    // What still passes goes on, though its receiver has nothing to say.
    set(&one, r#"{"incoming": "deny", "rules": [{"direction": "out", "action": "deny", "protocol": "udp"}]}"#);
    assert!(arrives(&mut stream));
    assert_eq!(network.firewall(&one).unwrap().rules, [FirewallCount::default()]);
    // From either end, it stops; and then it goes on.
    for (who, denied) in [
        (&one, r#"{"rules": [{"direction": "out", "action": "deny", "protocol": "tcp", "ports": 80}]}"#),
        (&two, r#"{"rules": [{"direction": "in", "action": "deny", "peer": "10.1.2.0/24"}]}"#),
        (&two, r#"{"incoming": "deny"}"#),
    ] {
        set(who, denied);
        assert!(!arrives(&mut stream), "{denied}");
        assert!(is_cut_off(&one, there, 80), "{denied}");
        set(who, "{}");
        stream.set_read_timeout(PATIENCE).unwrap();
        assert!(arrives(&mut stream), "{denied}");
        while stream.set_read_timeout(Some(*MOMENT)).is_ok() && stream.read(&mut [0; 16]).is_ok() {}
    }
    // An error that belongs to what was sent comes in, another does not.
    set(&one, r#"{"incoming": "deny"}"#);
    let asks = udp(&one, here, 1053);
    asks.connect((there, 9)).unwrap();
    asks.send(b"nobody").unwrap();
    assert_eq!(asks.recv(&mut [0; 16]).unwrap_err().kind(), std::io::ErrorKind::ConnectionRefused);
    // Bad ones change nothing.
    let before = network.firewall(&one).unwrap().firewall;
    let bad = Firewall::new().rule(FirewallRule::deny_in().port(80));
    let error = network.set_firewall(&one, &bad).unwrap_err();
    assert_eq!((error.kind(), error.field()), (ErrorKind::InvalidSpec, Some("firewall.rules[0].ports")), "{error}");
    let all = FirewallRule { direction: Direction::Both, ..FirewallRule::allow_in() };
    let all = all.protocol(FirewallProtocol::Tcp).peer(FirewallPeer::Name("who".to_owned()));
    let all = (1..=32).fold(all, |rule, port| rule.port(port * 2));
    let huge = Firewall { rules: vec![all; Firewall::MAX_RULES], ..Firewall::closed() };
    // All that can be said at once, by root; net.core.wmem_max binds the others.
    match network.set_firewall(&one, &huge) {
        Ok(()) if is_root() => {
            assert_eq!(network.firewall(&one).unwrap().firewall, huge);
            network.set_firewall(&one, &before).unwrap();
        }
        Err(error) if !is_root() => {
            assert_eq!((error.kind(), error.field()), (ErrorKind::Exhausted, Some("firewall.rules")), "{error}");
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(network.firewall(&one).unwrap().firewall, before);
    let stranger = Container::start(&Spec::new()).unwrap();
    assert_eq!(network.set_firewall(&stranger, &before).unwrap_err().field(), Some("container"));
    assert_eq!(network.firewall(&stranger).unwrap_err().field(), Some("container"));
}

/// Sends frames as they are from a container.
struct Raw {
    socket: OwnedFd,
    device: libc::sockaddr_ll,
    front: Vec<u8>,
}

impl Raw {
    fn new(from: &Container, to: &Container) -> Self {
        let protocol = i32::from((libc::ETH_P_ALL as u16).to_be());
        let socket = from.socket(libc::AF_PACKET, libc::SOCK_RAW, protocol).unwrap();
        // SAFETY: all zeroes is a valid address.
        let mut device: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
        let index = sh_in(from, "cat /sys/class/net/eth0/ifindex").trim().parse().unwrap();
        (device.sll_family, device.sll_ifindex) = (libc::AF_PACKET as u16, index);
        let mac = |one: &Container| one.addresses().unwrap()[0].mac.unwrap();
        Self { socket, device, front: [mac(to), mac(from)].concat() }
    }

    fn send(&self, packet: &[u8]) {
        let kind: [u8; 2] = if packet[0] >> 4 == 4 { [8, 0] } else { [0x86, 0xdd] };
        let frame = [&self.front[..], &kind, packet].concat();
        let size = size_of_val(&self.device) as libc::socklen_t;
        // SAFETY: the frame and its length, an address and its.
        let sent = unsafe {
            let at = (&raw const self.device).cast();
            libc::sendto(self.socket.as_raw_fd(), frame.as_ptr().cast(), frame.len(), 0, at, size)
        };
        assert_eq!(sent, frame.len() as isize, "{}", std::io::Error::last_os_error());
    }
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().into(),
        IpAddr::V6(address) => address.octets().into(),
    }
}

fn checksum(parts: &[&[u8]]) -> [u8; 2] {
    let all = parts.concat();
    let sum: u32 = all.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0))).sum();
    let sum = (sum & 0xffff) + (sum >> 16);
    (!((sum & 0xffff) + (sum >> 16)) as u16).to_be_bytes()
}

/// A datagram of UDP with its header.
fn datagram(from: IpAddr, to: IpAddr, port: u16, size: usize) -> Vec<u8> {
    let length = (8 + size as u16).to_be_bytes();
    let mut all = [&1053u16.to_be_bytes()[..], &port.to_be_bytes(), &length, &[0, 0]].concat();
    all.resize(8 + size, 7);
    let sum = checksum(&[&octets(from), &octets(to), &[0, 17], &length, &all]);
    all[6..8].copy_from_slice(&sum);
    all
}

/// A packet of IPv4 with this number; `fragment`: flags and offset.
fn ipv4(from: IpAddr, to: IpAddr, number: u16, fragment: u16, payload: &[u8]) -> Vec<u8> {
    let number = number.to_be_bytes();
    let length = (20 + payload.len() as u16).to_be_bytes();
    let fragment = fragment.to_be_bytes();
    let mut ip = [0x45, 0, length[0], length[1], number[0], number[1], fragment[0], fragment[1], 64, 17, 0, 0].to_vec();
    ip.extend([octets(from), octets(to)].concat());
    let sum = checksum(&[&ip]);
    ip[10..12].copy_from_slice(&sum);
    [ip, payload.to_vec()].concat()
}

/// A packet of IPv6 that begins with the header of this number.
fn ipv6(from: IpAddr, to: IpAddr, next: u8, payload: &[u8]) -> Vec<u8> {
    let length = (payload.len() as u16).to_be_bytes();
    [&[0x60, 0, 0, 0, length[0], length[1], next, 64][..], &octets(from), &octets(to), payload].concat()
}

/// An error of ICMP, port unreachable, about a packet.
fn unreachable(from: IpAddr, to: IpAddr, about: &[u8]) -> Vec<u8> {
    let mut icmp = [&[3, 3, 0, 0, 0, 0, 0, 0], about].concat();
    let sum = checksum(&[&icmp]);
    icmp[2..4].copy_from_slice(&sum);
    let mut packet = ipv4(from, to, 1, 0, &icmp);
    (packet[9], packet[10], packet[11]) = (libc::IPPROTO_ICMP as u8, 0, 0);
    let sum = checksum(&[&packet[..20]]);
    packet[10..12].copy_from_slice(&sum);
    packet
}

#[test]
fn an_error_is_for_the_other_end_of_what_it_is_about() {
    let network = network();
    let rules = r#"{"outgoing": "deny", "rules": [{"direction": "out", "action": "allow", "protocol": "udp", "peer": "friend"}]}"#;
    let friend = network.container(&Spec::new().hostname("friend")).unwrap();
    let (sender, other) = (behind(&network, rules), on(&network));
    let [from, theirs, others] = [&sender, &friend, &other].map(|one| addresses(one)[0]);
    assert!(comes(&udp(&sender, from, 1053), &udp(&friend, theirs, 53), 8));
    let mut answer = datagram(theirs, from, 1053, 8);
    answer[..2].copy_from_slice(&53u16.to_be_bytes());
    let about = ipv4(theirs, from, 1, 0, &answer);
    for (to, address, passes) in [(&friend, theirs, true), (&other, others, false)] {
        let told = UdpSocket::from(to.socket(libc::AF_INET, libc::SOCK_RAW, libc::IPPROTO_ICMP).unwrap());
        told.set_read_timeout(Some(*MOMENT)).unwrap();
        Raw::new(&sender, to).send(&unreachable(from, address, &about));
        assert_eq!(told.recv_from(&mut [0; 128]).is_ok(), passes, "{address}");
    }
}

#[test]
fn what_was_open_before_is_not_begun_by_who_speaks_first() {
    let network = network();
    let (server, client) = (on(&network), on(&network));
    let to = addresses(&server)[0];
    let listening = listen(&server, to, 80);
    let mut outside = TcpStream::from(client.connect(&SocketAddr::new(to, 80).to_string(), PATIENCE).unwrap());
    let (mut inside, _) = listening.accept().unwrap();
    network.set_firewall(&server, &Firewall::new().incoming(FirewallAction::Deny)).unwrap();
    inside.write_all(b"!").unwrap();
    outside.set_read_timeout(PATIENCE).unwrap();
    outside.read_exact(&mut [0]).expect("what goes out passes");
    outside.write_all(b"?").unwrap();
    inside.set_read_timeout(Some(*MOMENT)).unwrap();
    assert!(inside.read(&mut [0]).is_err(), "what comes in does not");
}

#[test]
fn fragments_and_headers_are_no_way_round() {
    let network = network();
    let (victim, sender) = (on(&network), on(&network));
    let raw = Raw::new(&sender, &victim);
    // What is left of a packet that was not let pass waits for the rest: the next one has another number.
    let mut number = 0u16;
    // What is let pass is seen to come by the same way, so that what does not come was dropped.
    for firewall in [
        r#"{"rules": [{"direction": "in", "action": "deny", "protocol": "udp", "ports": 53}]}"#,
        r#"{"incoming": "deny", "rules": [{"direction": "in", "action": "allow", "protocol": "udp", "ports": 54}]}"#,
    ] {
        network.set_firewall(&victim, &Firewall::from_json(firewall).unwrap()).unwrap();
        for (to, from) in addresses(&victim).into_iter().zip(addresses(&sender)) {
            // Neighbours know each other.
            udp(&victim, to, 1).send_to(b"who", (from, 1)).unwrap();
            for (port, passes) in [(54, true), (53, false)] {
                let receiver = udp(&victim, to, port);
                let came = || receiver.recv_from(&mut [0; 4096]).is_ok();
                let whole = datagram(from, to, port, 56);
                let sent: Vec<(&str, Vec<Vec<u8>>)> = match to {
                    IpAddr::V4(_) => {
                        let mut parts = |at: usize| {
                            number += 1;
                            let first = ipv4(from, to, number, 0x2000, &whole[..at]);
                            vec![first, ipv4(from, to, number, (at / 8) as u16, &whole[at..])]
                        };
                        let mut backwards = parts(32);
                        backwards.reverse();
                        vec![
                            ("whole", vec![ipv4(from, to, 0, 0, &whole)]),
                            ("two", parts(32)),
                            ("header alone", parts(8)),
                            ("last first", backwards),
                        ]
                    }
                    IpAddr::V6(_) => {
                        number += 1;
                        let fragment = |at: u16, more: bool, data: &[u8]| {
                            let (at, number) = ((at << 3 | u16::from(more)).to_be_bytes(), number.to_be_bytes());
                            let header = [17, 0, at[0], at[1], 0, 0, number[0], number[1]];
                            ipv6(from, to, 44, &[&header[..], data].concat())
                        };
                        let options = |next: u8| [next, 0, 1, 4, 0, 0, 0, 0];
                        vec![
                            ("whole", vec![ipv6(from, to, 17, &whole)]),
                            ("options", vec![ipv6(from, to, 60, &[&options(17)[..], &whole].concat())]),
                            (
                                "hop by hop, options",
                                vec![ipv6(from, to, 0, &[&options(60)[..], &options(17), &whole].concat())],
                            ),
                            ("two", vec![fragment(0, true, &whole[..32]), fragment(4, false, &whole[32..])]),
                            ("atomic", vec![fragment(0, false, &whole)]),
                        ]
                    }
                };
                for (what, packets) in sent {
                    packets.iter().for_each(|packet| raw.send(packet));
                    assert!(!passes || came(), "{firewall} {to} {port} {what}");
                }
                assert!(passes || !came(), "{firewall} {to} {port}: one of them");
                if to.is_ipv6() {
                    // Its ports are in the second one: no receiver of today takes it, and it does not come so far.
                    let before = network.firewall(&victim).unwrap();
                    let options = [17, 0, 1, 4, 0, 0, 0, 0];
                    raw.send(&ipv6(from, to, 44, &[&[60, 0, 0, 1, 0, 0, 1, 1][..], &options].concat()));
                    raw.send(&ipv6(from, to, 44, &[&[60, 0, 0, 8, 0, 0, 1, 1][..], &whole].concat()));
                    assert!(!came());
                    let after = network.firewall(&victim).unwrap();
                    assert_eq!(before.rules, after.rules, "no rule looked at it");
                }
            }
        }
    }
    // Who forges where it comes from is nobody whom a rule lets in; what is no beginning of a connection is not an answer.
    let friend = network.container(&Spec::new().hostname("friend")).unwrap();
    let only = r#"{"incoming": "deny", "rules": [{"direction": "in", "action": "allow", "peer": "friend"}]}"#;
    network.set_firewall(&victim, &Firewall::from_json(only).unwrap()).unwrap();
    let (to, from, theirs) = (addresses(&victim)[0], addresses(&sender)[0], addresses(&friend)[0]);
    let receiver = udp(&victim, to, 53);
    raw.send(&ipv4(theirs, to, 0, 0, &datagram(theirs, to, 53, 8)));
    assert!(receiver.recv_from(&mut [0; 64]).is_err());
    assert!(comes(&udp(&friend, theirs, 1053), &receiver, 8));
    let before = network.firewall(&victim).unwrap().incoming.packets;
    // ACK, RST, an answer to a ping, an error about nothing.
    let tcp = |flags: u8| [&[0, 80, 4, 1, 0, 0, 0, 1, 0, 0, 0, 1, 0x50, flags, 1, 0, 0, 0, 0, 0][..]].concat();
    let with = |protocol: u8, data: &[u8]| {
        let mut packet = ipv4(from, to, 0, 0, data);
        packet[9] = protocol;
        packet[10..12].fill(0);
        let sum = checksum(&[&packet[..20]]);
        packet[10..12].copy_from_slice(&sum);
        packet
    };
    let about = ipv4(to, from, 0, 0, &datagram(to, from, 53, 0));
    let packets = [
        with(6, &tcp(0x10)),
        with(6, &tcp(0x04)),
        with(1, &[0, 0, 0, 0, 0x12, 0x34, 0, 1]),
        with(1, &[&[3, 3, 0, 0, 0, 0, 0, 0][..], &about].concat()),
    ];
    packets.iter().for_each(|packet| raw.send(packet));
    until("each was denied", || network.firewall(&victim).unwrap().incoming.packets >= before + 4);
}

#[test]
fn what_is_for_many_is_for_each_peer() {
    let network = Network::start(&NetworkSpec::new().subnet("10.1.2.0/24")).unwrap();
    let db = network.container(&Spec::new().hostname("db")).unwrap();
    let rules = r#"{"rules": [{"direction": "out", "action": "deny", "protocol": "udp", "ports": 53, "peer": "db"}]}"#;
    let (sender, other) = (behind(&network, rules), on(&network));
    let [to, from, others] = [&db, &sender, &other].map(|one| addresses(one)[0]);
    for (port, passes) in [(54, true), (53, false)] {
        let (receiver, asks) = (udp(&db, [0, 0, 0, 0].into(), port), udp(&sender, from, 1053 + port));
        asks.set_broadcast(true).unwrap();
        asks.send_to(b"who", ("10.1.2.255", port)).unwrap();
        assert_eq!(receiver.recv_from(&mut [0; 16]).is_ok(), passes, "{port}");
    }
    // Whom it is for is whose address it has, not whose device.
    let datagrams = FirewallRule::allow_in().protocol(FirewallProtocol::Udp).ports(53, 54);
    network.set_firewall(&db, &Firewall::new().rule(datagrams)).unwrap();
    let came = || network.firewall(&db).unwrap().rules[0].packets;
    let raw = Raw::new(&sender, &db);
    raw.send(&ipv4(from, others, 1, 0, &datagram(from, others, 53, 8)));
    assert_eq!(came(), 0);
    raw.send(&ipv4(from, to, 2, 0, &datagram(from, to, 54, 8)));
    until("it is the other's", || came() == 1);
}

#[test]
fn who_fills_its_memory_of_flows_hurts_nobody_else() {
    let network = network();
    let (victim, sender, friend) = (behind(&network, r#"{"outgoing": "deny"}"#), on(&network), on(&network));
    let [to, from, theirs] = [&victim, &sender, &friend].map(|one| addresses(one)[0]);
    let raw = Raw::new(&sender, &victim);
    let service = udp(&victim, to, 53);
    assert!(comes(&udp(&sender, from, 1), &service, 8));
    for port in 0..20_000u16 {
        let mut flow = datagram(from, to, 9, 0);
        flow[..2].copy_from_slice(&(port + 2000).to_be_bytes());
        flow[6..8].fill(0);
        raw.send(&ipv4(from, to, 0, 0, &flow));
    }
    let full = udp(&sender, from, 1999);
    assert!(comes(&full, &service, 8), "what it sends passes still");
    assert!(!comes(&service, &full, 8), "it has no answer");
    let asks = udp(&friend, theirs, 1053);
    assert!(comes(&asks, &service, 8) && comes(&service, &asks, 8), "others have");
}

/// The library's socket of nftables in the network namespace of a process.
fn socket_of(pid: u64) -> RawFd {
    let inode = |fd: RawFd| std::fs::metadata(format!("/proc/self/fd/{fd}")).expect("a namespace").ino();
    let namespace = std::fs::metadata(format!("/proc/{pid}/ns/net")).expect("its namespace").ino();
    let is_it = |fd: &RawFd| {
        let (mut protocol, mut size) = (0i32, size_of::<i32>() as libc::socklen_t);
        let at = (&raw mut protocol).cast();
        // SAFETY: the kernel writes one int, of that size; of what is no socket it writes nothing.
        let asked = unsafe { libc::getsockopt(*fd, libc::SOL_SOCKET, libc::SO_PROTOCOL, at, &raw mut size) };
        if asked != 0 || protocol != libc::NETLINK_NETFILTER {
            return false;
        }
        // SAFETY: no pointers; the answer is a new descriptor, which is closed here.
        unsafe {
            let found = libc::ioctl(*fd, libc::SIOCGSKNS as _);
            found >= 0 && inode(OwnedFd::from_raw_fd(found).as_raw_fd()) == namespace
        }
    };
    let all = std::fs::read_dir("/proc/self/fd").expect("/proc").flatten();
    let numbers = all.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    numbers.collect::<Vec<RawFd>>().into_iter().find(is_it).expect("its socket")
}

/// The kernel refuses messages that are longer, with EMSGSIZE.
fn at_most(socket: RawFd, bytes: i32) {
    let size = size_of_val(&bytes) as libc::socklen_t;
    // SAFETY: the kernel reads one int, of that size.
    let set = unsafe { libc::setsockopt(socket, libc::SOL_SOCKET, libc::SO_SNDBUF, (&raw const bytes).cast(), size) };
    assert_eq!(set, 0, "{}", std::io::Error::last_os_error());
}

#[test]
fn an_address_is_free_when_nobodys_rules_have_it_any_more() {
    let network = Network::start(&NetworkSpec::new().subnet("10.1.2.0/29")).unwrap();
    let allow = r#"{"incoming": "deny", "rules": [{"direction": "in", "action": "allow", "peer": "friend"}]}"#;
    let server = behind(&network, allow);
    let to = addresses(&server)[0];
    let _listening = listen(&server, to, 80);
    let rules = (0..128).map(|i| json!({"direction": "in", "action": "deny", "peer": format!("name-{i}")}));
    let long = json!({"rules": rules.collect::<Vec<_>>()}).to_string();
    let net = Net::Attached(vec![attached(&network, &long)]);
    let friend = network.container(&Spec::new().hostname("friend").net(net)).unwrap();
    let address = addresses(&friend)[0];
    assert!(reaches(&friend, to, 80));
    let info: Value = serde_json::from_str(&network.info_json()).unwrap();
    let socket = socket_of(info["pid"].as_u64().expect("a pid"));
    at_most(socket, 2000);
    friend.close(PATIENCE).unwrap();
    // The rules that let the friend in are there still, so nobody else can be it.
    let asks = |network: &Network| {
        Container::start(&Spec::new().net(Net::Attached(vec![attached(network, "{}").address(address)])))
    };
    let error = asks(&network).expect_err("an address that is in rules");
    assert_eq!((error.kind(), error.field()), (ErrorKind::AlreadyExists, Some("net.addresses")), "{error}");
    let wrong =
        network.set_firewall(&server, &Firewall::from_json(&long).unwrap()).expect_err("messages that are too long");
    assert_eq!((wrong.kind(), wrong.field()), (ErrorKind::Exhausted, Some("firewall.rules")), "{wrong}");
    at_most(socket, 1 << 20);
    let next = asks(&network).expect("an address that is free");
    assert_eq!(addresses(&next)[0], address);
    assert!(is_cut_off(&next, to, 80), "it is not the friend");
    // What was refused has changed nothing.
    let again = network.container(&Spec::new().hostname("friend")).unwrap();
    assert!(reaches(&again, to, 80) && is_cut_off(&next, to, 80));
}

#[test]
fn many_with_rules() {
    let network = network();
    let one = FirewallRule::allow_in().protocol(FirewallProtocol::Tcp).port(80).peer_name("first");
    let firewall = Firewall::closed().rule(one).rule(FirewallRule::allow_out().peer_name("last"));
    let start = |name: &str| {
        let net = Attachment::network(network.name()).firewall(firewall.clone());
        network.container(&Spec::new().hostname(name).net(Net::Attached(vec![net]))).unwrap()
    };
    let first = start("first");
    let each = if emulated() { 9 } else { 49 };
    std::thread::scope(|scope| {
        for worker in 0..4 {
            let start = &start;
            scope.spawn(move || (0..each).for_each(|i| drop(start(&format!("c{worker}-{i}")))));
        }
    });
    let (other, last) = (start("other"), start("last"));
    assert!(network.members().unwrap().len() >= 4 * each + 3);
    let to = addresses(&last)[0];
    let _listening = listen(&last, to, 80);
    assert!(reaches(&first, to, 80));
    assert!(is_cut_off(&other, to, 80), "its out passes, their in does not");
    assert_eq!(network.firewall(&first).unwrap().firewall.outgoing, FirewallAction::Deny);
    network.close(PATIENCE).unwrap();
}
