//! Ways out of networks and into them: the host is a network namespace of the test's own, and the outside is a container on its bridge.
//!
//! tests/run: as=root vm=root timeout=180 threads=1

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::OwnedFd;
use std::process::Command as Host;
use std::time::Duration;

use common::*;
use nix::sched::{CloneFlags, unshare};
use ringfence::spec::{Attachment, Firewall, FirewallRule, Net, NetworkSpec, Port, WayOut};
use ringfence::{Container, Error, ErrorKind, Network, Spec};

#[allow(dead_code, reason = "each test program uses a part of it")]
mod common;

const PATIENCE: Option<Duration> = Some(Duration::from_secs(60));
const MOMENT: Option<Duration> = Some(Duration::from_millis(300));
const HOST: [&str; 2] = ["10.7.0.254", "fd07::fe"];
const OUTSIDE: [&str; 2] = ["10.7.0.1", "fd07::1"];

fn run(command: &str) -> String {
    let mut words = command.split_whitespace();
    let output = Host::new(words.next().expect("a program")).args(words).output().expect("it is part of the set-up");
    assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text")
}

fn set(parameter: &str, value: &str) {
    std::fs::write(format!("/proc/sys/net/{parameter}"), value).expect("a parameter");
}

/// Makes this thread's network the host's, with a bridge on which is the container that plays the outside.
fn outside(forwards: bool) -> Container {
    unshare(CloneFlags::CLONE_NEWNET).expect("a network namespace");
    run("ip link set lo up");
    run("ip link add br0 type bridge");
    run("ip link set br0 up");
    run("ip address add 10.7.0.254/24 dev br0");
    run("ip -6 address add fd07::fe/64 dev br0 nodad");
    if forwards {
        set("ipv4/ip_forward", "1");
        set("ipv6/conf/all/forwarding", "1");
    }
    let [ipv4, ipv6] = OUTSIDE;
    let one = Attachment::bridge("br0").address(ip(ipv4)).address(ip(ipv6));
    let one = Attachment { addresses: one.addresses.into_iter().map(on_wire).collect(), ..one };
    let outside = Container::start(&Spec::new().net(Net::Attached(vec![one]))).expect("the outside");
    run("ip route add default via 10.7.0.1");
    run("ip -6 route add default via fd07::1");
    outside
}

fn on_wire(mut one: ringfence::spec::InterfaceAddress) -> ringfence::spec::InterfaceAddress {
    one.prefix = Some(if one.address.is_ipv4() { 24 } else { 64 });
    one
}

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

fn at(address: &str, port: u16) -> String {
    SocketAddr::new(ip(address), port).to_string()
}

fn leads_out() -> Network {
    Network::start(&NetworkSpec::new().internal(false)).expect("a network that is not internal")
}

fn listen(container: &Container, address: &str, port: u16) -> TcpListener {
    TcpListener::from(container.listen(&at(address, port), 16).expect("a listener"))
}

fn udp(container: &Container, address: &str, port: u16) -> UdpSocket {
    let domain = if ip(address).is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
    let socket: OwnedFd = container.socket(domain, libc::SOCK_DGRAM, 0).expect("a socket");
    let address: nix::sys::socket::SockaddrStorage = SocketAddr::new(ip(address), port).into();
    nix::sys::socket::bind(std::os::fd::AsRawFd::as_raw_fd(&socket), &address).expect("its address");
    let socket = UdpSocket::from(socket);
    socket.set_read_timeout(PATIENCE).expect("a timeout");
    socket
}

/// One byte each way; who the listener says has connected.
fn talk(client: OwnedFd, listener: &TcpListener) -> IpAddr {
    let mut client = TcpStream::from(client);
    let (mut server, peer) = listener.accept().expect("a connection");
    let mut byte = [0];
    client.write_all(b"?").expect("sent");
    server.read_exact(&mut byte).expect("received");
    server.write_all(b"!").expect("answered");
    client.read_exact(&mut byte).expect("an answer");
    assert_eq!(&byte, b"!");
    peer.ip()
}

fn refused<T: std::fmt::Debug>(result: Result<T, Error>, kind: ErrorKind, field: &str) -> Error {
    let error = result.expect_err("an error");
    assert_eq!((error.kind(), error.field()), (kind, Some(field)), "{error}");
    error
}

fn way_out(network: &Network) -> String {
    let info: serde_json::Value = serde_json::from_str(&network.info_json()).expect("JSON");
    info["way_out"].as_str().unwrap_or_default().to_owned()
}

/// Sends datagrams as frames: to the MAC, the address and the port of each line of three words.
const FRAMES: &str = r#"
import socket, struct, sys
raw = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(0x800))
for mac, to, port in zip(*[iter(sys.argv[1:])] * 3):
    udp = struct.pack(">HHHH", 999, int(port), 9, 0) + b"?"
    ip = bytearray(struct.pack(">BBHHHBBH4s4s", 0x45, 0, 20 + len(udp), 1, 0, 64, 17, 0, socket.inet_aton("10.7.0.1"), socket.inet_aton(to)))
    total = sum(struct.unpack(">10H", ip))
    total = (total & 0xffff) + (total >> 16)
    ip[10:12] = struct.pack(">H", ~((total & 0xffff) + (total >> 16)) & 0xffff)
    raw.sendto(bytes(ip) + udp, ("eth0", 0x800, 0, 0, bytes.fromhex(mac.replace(":", ""))))
"#;

/// Programs in this thread's network that lead out of another.
fn of_network() -> Vec<String> {
    let own = std::fs::read_link("/proc/thread-self/ns/net").expect("a link");
    let all = std::fs::read_dir("/proc").expect("processes").flatten().map(|entry| entry.path());
    let leads = |path: &std::path::PathBuf| {
        std::fs::read_link(path.join("ns/net")).is_ok_and(|net| net == own)
            && std::fs::read(path.join("cmdline"))
                .is_ok_and(|line| line.split(|byte| *byte == 0).any(|word| word == b"uplink"))
    };
    all.filter(leads).map(|path| path.file_name().expect("a name").to_string_lossy().into_owned()).collect()
}

/// Devices of networks and tables of the library's, in this thread's network.
fn left() -> String {
    let devices = run("ip -o link show type veth");
    // The outside's own.
    let devices: String = devices.lines().filter(|line| !line.contains("master br0")).collect();
    let tables = run("nft list tables");
    devices + &tables.lines().filter(|line| !line.contains("ringfence-br0-")).collect::<String>()
}

/// Rules of somebody else's at every place at which the library has some, made if they are not there yet, with the numbers that the kernel
/// gave them: who rewrites one changes its number.
fn rules_of_others() -> String {
    if !run("nft list tables").contains("theirs") {
        let hooks = [
            ("prerouting", "nat", "-100"),
            ("input", "filter", "0"),
            ("forward", "filter", "0"),
            ("output", "filter", "0"),
            ("postrouting", "nat", "100"),
        ];
        for family in ["ip", "ip6", "inet"] {
            run(&format!("nft add table {family} theirs"));
            for (hook, kind, priority) in hooks {
                let chain = format!("{family} theirs {hook}");
                run(&format!(
                    "nft add chain {chain} {{ type {kind} hook {hook} priority {priority} ; policy accept ; }}"
                ));
                run(&format!("nft add rule {chain} tcp dport 5555 accept"));
            }
        }
        run("nft add set inet theirs peers { type ipv4_addr ; elements = { 192.0.2.7 } ; }");
    }
    ["ip", "ip6", "inet"].map(|family| run(&format!("nft -a list table {family} theirs"))).concat()
}

#[test]
fn by_the_kernel_out_and_not_in() {
    let outside = outside(true);
    let same = NetworkSpec::SUBNETS.iter().fold(NetworkSpec::new().internal(false), |spec, one| spec.subnet(*one));
    let [near, other] = [(); 2].map(|()| Network::start(&same).expect("a network that is not internal"));
    let internal = Network::start(&NetworkSpec::new()).expect("a network");
    assert_eq!((way_out(&near).as_str(), way_out(&internal).as_str()), ("kernel", ""));
    let (one, two) = (near.container(&Spec::new()).expect("one"), other.container(&Spec::new()).expect("two"));
    let apart = internal.container(&Spec::new()).expect("a container");
    // Both networks have the same subnets, and both containers the same addresses.
    assert_eq!(one.addresses().expect("its")[0].addresses, two.addresses().expect("its")[0].addresses);
    for (address, host) in OUTSIDE.into_iter().zip(HOST) {
        let listener = listen(&outside, address, 80);
        for container in [&one, &two] {
            let client = container.connect(&at(address, 80), PATIENCE).expect("a connection");
            assert_eq!(talk(client, &listener), ip(host));
        }
        assert!(apart.connect(&at(address, 80), MOMENT).is_err());
        for to in [host, address] {
            assert!(pings(&one, ip(to), 64, Duration::from_secs(10)), "{to}");
        }
        let server = udp(&outside, address, 53);
        let any = if ip(address).is_ipv4() { "0.0.0.0" } else { "::" };
        let client = udp(&one, any, 0);
        client.send_to(b"?", at(address, 53)).expect("sent");
        let mut bytes = [0; 8];
        let (length, peer) = server.recv_from(&mut bytes).expect("received");
        assert_eq!((&bytes[..length], peer.ip()), (&b"?"[..], ip(host)));
        server.send_to(b"!", peer).expect("answered");
        assert_eq!(client.recv(&mut bytes).expect("an answer"), 1);
    }
    // A firewall is for what goes out, and for who is outside.
    let firewall = Firewall::new().rule(FirewallRule::deny_out().peer(ip(OUTSIDE[0])));
    let net = Attachment::network(near.name()).firewall(firewall);
    let shut = near.container(&Spec::new().net(Net::Attached(vec![net]))).expect("a container");
    let listeners = OUTSIDE.map(|address| listen(&outside, address, 80));
    assert!(shut.connect(&at(OUTSIDE[0], 80), MOMENT).is_err());
    talk(shut.connect(&at(OUTSIDE[1], 80), PATIENCE).expect("a connection"), &listeners[1]);
    // Who sends what is for a network to the host comes no further.
    let host = run("ip -4 -o address show to 198.18.0.0/15");
    let pair = host.split_whitespace().find_map(|word| word.strip_suffix("/31")).expect("a pair");
    let own: std::net::Ipv4Addr = pair.parse().expect("an address");
    let uplink = std::net::Ipv4Addr::from(u32::from(own) + 1).to_string();
    let _inside = listen(&one, "0.0.0.0", 80);
    run(&format!("nsenter -t {} -n ip route add 198.18.0.0/15 via {}", outside.pid(), HOST[0]));
    let error = outside.connect(&at(&uplink, 80), MOMENT).expect_err("no way in");
    assert_eq!(error.kind(), ErrorKind::TimedOut, "{error}");
    near.close(PATIENCE).expect("closed");
    other.close(PATIENCE).expect("closed");
    assert_eq!(left(), "");
}

#[test]
fn ports_by_the_kernel() {
    let outside = outside(true);
    let theirs = rules_of_others();
    let network = leads_out();
    let mut bytes = [0; 8];
    let mut spec = Spec::new()
        .port(Port::new(80).host([0, 0, 0, 0]).host_port(8080).nat())
        .port(Port::new(80).host(ip("::")).host_port(8080).nat())
        .port(Port::new(81).nat())
        .port(Port::new(53).host(ip(HOST[0])).host_port(53).udp().nat())
        .port(Port::new(82))
        .port(Port::new(53).host(ip(HOST[1])).host_port(53).udp().nat());
    for host in HOST {
        let row = json!({"port": "90-92", "host": host, "host_port": "9090-9092", "nat": true});
        spec.set("ports", row.to_string().as_bytes()).expect("a row of ports");
    }
    let server = network.container(&spec).expect("a container");
    let inside = server.addresses().expect("its").swap_remove(0).addresses;
    // From outside, whose address it sees.
    for (inside, (host, address)) in inside.iter().zip(HOST.into_iter().zip(OUTSIDE)) {
        let listener = listen(&server, &inside.to_string(), 80);
        let client = outside.connect(&at(host, 8080), PATIENCE).expect("a connection");
        assert_eq!(talk(client, &listener), ip(address));
        // From the network's own containers, by way of the host.
        let neighbour = network.container(&Spec::new()).expect("a container");
        let client = neighbour.connect(&at(host, 8080), PATIENCE).expect("a connection");
        talk(client, &listener);
        // From the host.
        let client = TcpStream::connect(at(host, 8080)).expect("a connection");
        talk(client.into(), &listener);
        // A row, from end to end.
        for port in 90..=92 {
            let listener = listen(&server, &inside.to_string(), port);
            let client = outside.connect(&at(host, 9000 + port), PATIENCE).expect("a connection");
            assert_eq!(talk(client, &listener), ip(address));
        }
    }
    // One on 127.0.0.1 is the host's own.
    let listener = listen(&server, "0.0.0.0", 81);
    let number = server.port(81).expect("its port");
    talk(TcpStream::connect(at("127.0.0.1", number)).expect("a connection").into(), &listener);
    assert!(outside.connect(&at(HOST[0], number), MOMENT).is_err());
    // Beside them the relay's.
    let listener = listen(&server, "127.0.0.1", 82);
    let number = server.port(82).expect("its port");
    talk(TcpStream::connect(at("127.0.0.1", number)).expect("a connection").into(), &listener);
    let socket = udp(&server, "0.0.0.0", 53);
    let client = udp(&outside, OUTSIDE[0], 0);
    client.send_to(b"?", at(HOST[0], 53)).expect("sent");
    let (_, peer) = socket.recv_from(&mut bytes).expect("received");
    assert_eq!(peer.ip(), ip(OUTSIDE[0]));
    socket.send_to(b"!", peer).expect("answered");
    let (_, from) = client.recv_from(&mut bytes).expect("an answer");
    assert_eq!(from.to_string(), at(HOST[0], 53));
    let (over_ipv6, asks) = (udp(&server, &inside[1].to_string(), 53), udp(&outside, OUTSIDE[1], 0));
    asks.send_to(b"?", at(HOST[1], 53)).expect("sent");
    let (_, peer) = over_ipv6.recv_from(&mut bytes).expect("received");
    assert_eq!(peer.ip(), ip(OUTSIDE[1]));
    over_ipv6.send_to(b"!", peer).expect("answered");
    assert_eq!(asks.recv_from(&mut bytes).expect("an answer").1.to_string(), at(HOST[1], 53));
    // Nor by who is on the wire and sends what is for 127.0.0.1 to the host's device: it is no way round what listens there alone.
    let local = network.container(&Spec::new().port(Port::new(53).udp().nat())).expect("a container");
    let apart = udp(&local, "0.0.0.0", 53);
    let number = local.port(53).expect("its port").to_string();
    let link = run("ip -o link show br0");
    let mac = link.split_whitespace().skip_while(|word| *word != "link/ether").nth(1).expect("its MAC").to_owned();
    let frames = [&mac, "127.0.0.1", &number, &mac, HOST[0], "53"];
    let sent = outside.command("python3").args(["-c", FRAMES]).args(frames).output().expect("python3");
    assert!(sent.status.success(), "{}", String::from_utf8_lossy(&sent.stderr));
    socket.recv_from(&mut bytes).expect("the second, which may come");
    apart.set_read_timeout(MOMENT).expect("a timeout");
    assert!(apart.recv_from(&mut bytes).is_err(), "the first came in");
    UdpSocket::bind("127.0.0.1:0")
        .and_then(|own| own.send_to(b"!", at("127.0.0.1", number.parse().expect("a port"))))
        .expect("sent");
    apart.set_read_timeout(PATIENCE).expect("a timeout");
    apart.recv_from(&mut bytes).expect("the host's own");
    local.close(PATIENCE).expect("closed");
    let described: serde_json::Value = serde_json::from_str(&server.ports_json().expect("ports")).expect("JSON");
    assert_eq!((&described[0]["nat"], &described[4]["nat"]), (&true.into(), &serde_json::Value::Null));

    network.set_firewall(&server, &Firewall::closed()).expect("a firewall");
    assert!(outside.connect(&at(HOST[0], 8080), MOMENT).is_err());
    network.set_firewall(&server, &Firewall::new()).expect("no firewall");

    assert_eq!(rules_of_others(), theirs, "while there are networks and ports");
    // Nobody else can have them, and nothing is left of a start that fails.
    let taken = Spec::new().port(Port::new(1).nat()).port(Port::new(80).host(ip(HOST[0])).host_port(8080).nat());
    refused(network.container(&taken), ErrorKind::AlreadyExists, "ports[1]");
    let local = Spec::new().port(Port::new(80)).port(Port::new(80).host(ip("::1")).nat());
    refused(network.container(&local), ErrorKind::InvalidSpec, "ports[1].host");
    refused(Container::start(&Spec::new().port(Port::new(80).nat())), ErrorKind::InvalidSpec, "ports[0].nat");
    let internal = Network::start(&NetworkSpec::new()).expect("a network");
    refused(internal.container(&Spec::new().port(Port::new(80).nat())), ErrorKind::InvalidSpec, "ports[0].nat");

    // Who was led on once is not led on any more: not to another container that has the address next.
    let [address, _] = inside[..] else { panic!("one address of each family") };
    server.close(PATIENCE).expect("closed");
    let next = Attachment::network(network.name()).address(address);
    let next = network.container(&Spec::new().net(Net::Attached(vec![next]))).expect("a container");
    let deaf = udp(&next, "0.0.0.0", 53);
    client.send_to(b"?", at(HOST[0], 53)).expect("sent");
    deaf.set_read_timeout(MOMENT).expect("a timeout");
    assert!(deaf.recv_from(&mut bytes).is_err(), "what was sent to the one before came");
    next.close(PATIENCE).expect("closed");
    assert!(TcpStream::connect(at(HOST[0], 8080)).is_err());
    assert!(outside.connect(&at(HOST[0], 8080), PATIENCE).is_err());
    let again = network.container(&spec).expect("the same ports again");
    let listener = listen(&again, "0.0.0.0", 80);
    talk(outside.connect(&at(HOST[0], 8080), PATIENCE).expect("a connection"), &listener);
    // Who went on sending meanwhile reaches it at once, though the kernel has seen that lead nowhere.
    let socket = udp(&again, "0.0.0.0", 53);
    client.send_to(b"?", at(HOST[0], 53)).expect("sent");
    let (_, peer) = socket.recv_from(&mut bytes).expect("received");
    assert_eq!(peer, client.local_addr().expect("its address"));
    again.close(PATIENCE).expect("closed");
    client.send_to(b"?", at(HOST[0], 53)).expect("sent");
    let any = Spec::new().port(Port::new(53).host([0, 0, 0, 0]).host_port(53).udp().nat());
    let again = network.container(&any).expect("a port of all addresses");
    let socket = udp(&again, "0.0.0.0", 53);
    client.send_to(b"?", at(HOST[0], 53)).expect("sent");
    socket.recv_from(&mut bytes).expect("received");
    network.close(PATIENCE).expect("closed");
    assert_eq!(rules_of_others(), theirs, "afterwards");
    for family in ["ip", "ip6", "inet"] {
        run(&format!("nft delete table {family} theirs"));
    }
    assert_eq!(left(), "");
}

/// What iptables, where it is not made of nftables, does for `-P FORWARD`. False: the kernel has no such tables.
fn set_legacy_policy(drops: bool) -> bool {
    use std::os::fd::AsRawFd;
    // IPT_SO_GET_INFO and IPT_SO_SET_REPLACE, IPT_SO_GET_ENTRIES.
    const INFO: i32 = 64;
    const ENTRIES: i32 = 65;
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
    let ask = |option: i32, buffer: &mut [u8]| {
        let mut length = buffer.len() as libc::socklen_t;
        buffer[..6].copy_from_slice(b"filter");
        let value = buffer.as_mut_ptr().cast();
        // SAFETY: a live buffer of that length.
        let got = unsafe { libc::getsockopt(socket.as_raw_fd(), libc::SOL_IP, option, value, &raw mut length) };
        got == 0
    };
    // struct ipt_getinfo: the name, hooks, where five chains begin, where the last rule of each is, how many rules, how many bytes.
    let mut info = [0; 84];
    if !ask(INFO, &mut info) {
        println!("the kernel has no iptables but nftables: {}", std::io::Error::last_os_error());
        return false;
    }
    let word = |at: usize| u32::from_ne_bytes(info[at..at + 4].try_into().expect("four bytes"));
    let (count, size, last) = (word(76), word(80) as usize, word(56 + 2 * 4) as usize);
    let mut entries = vec![0; 40 + size];
    entries[32..36].copy_from_slice(&info[80..]);
    assert!(ask(ENTRIES, &mut entries), "{}", std::io::Error::last_os_error());
    // Behind struct ipt_entry (112 bytes) and struct xt_entry_target (32): -NF_DROP - 1, -NF_ACCEPT - 1.
    let verdict: i32 = if drops { -1 } else { -2 };
    entries[40 + last + 144..][..4].copy_from_slice(&verdict.to_ne_bytes());
    // struct ipt_replace: the name, hooks, how many, how long, both lists, how many counters there were, and where these are to be.
    let mut counters = vec![0u8; 16 * count as usize];
    let mut table = info[..36].to_vec();
    table.extend_from_slice(&info[76..]);
    table.extend_from_slice(&info[36..76]);
    table.extend(count.to_ne_bytes());
    table.extend((counters.as_mut_ptr() as usize).to_ne_bytes());
    table.extend_from_slice(&entries[40..]);
    let length = table.len() as libc::socklen_t;
    // SAFETY: a live buffer of that length, which points to one with room for all counters.
    let set = unsafe { libc::setsockopt(socket.as_raw_fd(), libc::SOL_IP, INFO, table.as_ptr().cast(), length) };
    assert_eq!(set, 0, "{}", std::io::Error::last_os_error());
    true
}

#[test]
fn not_by_a_kernel_that_drops_what_it_forwards() {
    let outside = outside(true);
    let row = || ringfence::doctor().get("net.forward").expect("a row").clone();
    let is_closed = |chain: &str| {
        let row = row();
        assert!(!row.ok && row.detail.contains(chain), "{row:?}");
        assert!(row.remedy.as_ref().is_some_and(|remedy| remedy.contains("way_out: kernel")), "{row:?}");
    };
    assert!(row().ok, "{:?}", row());
    if set_legacy_policy(true) {
        is_closed("iptables filter FORWARD");
        assert_eq!(way_out(&leads_out()), "pasta");
        set_legacy_policy(false);
        assert!(row().ok, "{:?}", row());
    }
    run("nft add table ip filter");
    run("nft add chain ip filter FORWARD { type filter hook forward priority 0 ; policy drop ; }");
    is_closed("ip filter FORWARD");
    let network = leads_out();
    assert_eq!(way_out(&network), "pasta");
    run("nft add rule ip filter FORWARD iifname rf* accept");
    run("nft add rule ip filter FORWARD oifname rf* accept");
    let forced = Network::start(&NetworkSpec::new().internal(false).way_out(WayOut::Kernel)).expect("a network");
    assert_eq!(way_out(&forced), "kernel");
    let listener = listen(&outside, OUTSIDE[0], 80);
    for network in [&network, &forced] {
        let container = network.container(&Spec::new()).expect("a container");
        talk(container.connect(&at(OUTSIDE[0], 80), PATIENCE).expect("a connection"), &listener);
    }
}

#[test]
fn by_a_program_where_the_host_does_not_forward() {
    let path = std::env::var_os("PATH").expect("a search path");
    // Where mounts are shared, as systemd has it, what a program mounts for itself must not be the host's.
    unshare(CloneFlags::CLONE_NEWNS).expect("a mount namespace");
    run("mount --make-rshared /");
    let outside = outside(false);
    let mounts = || std::fs::read_to_string("/proc/thread-self/mountinfo").expect("mounts").lines().count();
    let before = mounts();
    let directory = tmp();
    for program in ["pasta", "slirp4netns"] {
        let found = std::env::split_paths(&path).map(|dir| dir.join(program)).find(|path| path.exists());
        let found = found.expect("it is part of the set-up");
        std::os::unix::fs::symlink(found, directory.path().join(program)).expect("a link");
        // SAFETY: tests of this program run one after the other, and it has no other threads that read the environment.
        unsafe { std::env::set_var("PATH", directory.path()) };
        let spec = NetworkSpec::new().internal(false);
        let network = Network::start(&spec);
        let other = if program == "pasta" { WayOut::Slirp4netns } else { WayOut::Pasta };
        let error = refused(Network::start(&spec.way_out(other)), ErrorKind::Unsupported, "way_out");
        assert!(error.to_string().contains("install the package"), "{error}");
        // SAFETY: as before.
        unsafe { std::env::set_var("PATH", &path) };
        let network = network.expect("a network");
        assert_eq!(way_out(&network), program);
        let container = network.container(&Spec::new()).expect("a container");
        for (address, host) in OUTSIDE.into_iter().zip(HOST).take(if program == "pasta" { 2 } else { 1 }) {
            let listener = listen(&outside, address, 80);
            let client = container.connect(&at(address, 80), PATIENCE).expect("a connection");
            assert_eq!(talk(client, &listener), ip(host));
        }
        assert_eq!(mounts(), before, "{program}");
        // The host's own 127.0.0.1 is not outside.
        let own = TcpListener::bind("127.0.0.1:0").expect("a listener");
        let number = own.local_addr().expect("its address").port();
        assert!(container.connect(&at("198.19.255.2", number), MOMENT).is_err());
        let nat = Spec::new().port(Port::new(80).nat());
        let error = refused(network.container(&nat), ErrorKind::Unsupported, "ports[0].nat");
        assert!(error.to_string().contains(program), "{error}");
        // One that has ended leads out again for who comes then, and for the others.
        let pids = of_network();
        assert!(!pids.is_empty());
        pids.iter().for_each(|pid| drop(run(&format!("kill {pid}"))));
        while !way_out(&network).is_empty() {
            std::thread::sleep(Duration::from_millis(5));
        }
        match program {
            "pasta" => drop(network.container(&Spec::new()).expect("a container")),
            _ => {
                let remaining = ringfence::gc().expect("swept").remaining;
                assert!(!remaining.iter().any(|one| one.contains("the way out")), "{remaining:?}");
            }
        }
        assert_eq!(way_out(&network), program);
        let listener = listen(&outside, OUTSIDE[0], 80);
        let client = container.connect(&at(OUTSIDE[0], 80), PATIENCE).expect("a connection");
        assert_eq!(talk(client, &listener), ip(HOST[0]));
        network.close(PATIENCE).expect("closed");
        std::fs::remove_file(directory.path().join(program)).expect("removed");
    }
    // SAFETY: as before.
    unsafe { std::env::set_var("PATH", directory.path()) };
    let none = Network::start(&NetworkSpec::new().internal(false));
    // SAFETY: as before.
    unsafe { std::env::set_var("PATH", &path) };
    let kernel = Network::start(&NetworkSpec::new().internal(false).way_out(WayOut::Kernel));
    let error = refused(kernel, ErrorKind::Unsupported, "way_out");
    assert!(error.to_string().contains("net.ipv4.ip_forward") && !error.to_string().contains("passt"), "{error}");
    let error = refused(none, ErrorKind::Unsupported, "internal");
    assert!(error.to_string().contains("net.ipv4.ip_forward") && error.to_string().contains("passt"), "{error}");
}

/// All that this thread's network has.
fn all_of_it() -> String {
    let all = [
        "ip -o link show",
        "ip -o address show",
        "ip route show table all",
        "ip -6 route show table all",
        "ip neigh show proxy",
    ];
    all.map(run).concat() + &run("nft list ruleset")
}

const VICTIM: &str = "RINGFENCE_TEST_VICTIM";

/// A program that is killed at any moment: its containers are behind firewalls, published, and come and go by four threads.
fn victim() {
    let network = Network::start(&NetworkSpec::new().name("killed").internal(false)).expect("a network");
    assert_eq!(way_out(&network), "kernel");
    println!("there");
    std::thread::scope(|scope| {
        for worker in 0..4 {
            let network = &network;
            scope.spawn(move || {
                for round in 0.. {
                    let firewall = Firewall::closed().rule(FirewallRule::allow_in().peer_name(format!("h{worker}")));
                    let device = Attachment::network("killed").alias(format!("h{}", round % 3)).firewall(firewall);
                    let spec = Spec::new().net(Net::Attached(vec![device]));
                    let spec = spec.port(Port::new(80).host([0, 0, 0, 0]).nat());
                    network.container(&spec).expect("a container").close(PATIENCE).expect("closed");
                }
            });
        }
    });
}

#[test]
fn a_program_that_is_killed_leaves_nothing_of_its_network() {
    if std::env::var_os(VICTIM).is_some() {
        return victim();
    }
    let _outside = outside(true);
    until("addresses of links are settled", || !all_of_it().contains("tentative"));
    let before = all_of_it();
    let rounds = std::env::var("RINGFENCE_KILL_ROUNDS").map_or(5, |rounds| rounds.parse().expect("a number"));
    for round in 0u64..rounds {
        let name = "a_program_that_is_killed_leaves_nothing_of_its_network";
        let mut program = Host::new(std::env::current_exe().unwrap());
        program.args(["--exact", name, "--nocapture"]).env(VICTIM, "1").stdout(std::process::Stdio::piped());
        let mut program = program.spawn().unwrap();
        let mut lines = std::io::BufRead::lines(std::io::BufReader::new(program.stdout.take().unwrap()));
        // Some are killed while they make it.
        if round % 5 > 0 {
            assert!(lines.any(|line| line.unwrap().ends_with("there")));
        }
        std::thread::sleep(Duration::from_millis(round * 37 % 400));
        program.kill().unwrap();
        program.wait().unwrap();
        ringfence::gc().unwrap();
        let left = || all_of_it().lines().filter(|line| !before.contains(line)).map(str::to_owned).collect::<Vec<_>>();
        let began = std::time::Instant::now();
        while all_of_it() != before {
            assert!(began.elapsed() < Duration::from_secs(30), "round {round}: {:#?}", left());
            std::thread::sleep(Duration::from_millis(10));
        }
        // Its name is as free as its addresses are.
        until("another has its name", || {
            Network::start(&NetworkSpec::new().name("killed")).is_ok_and(|network| network.close(PATIENCE).is_ok())
        });
    }
}
