//! Devices of a container on devices of the host: the host is a network namespace of the test's own.
//!
//! tests/run: as=root vm=root timeout=120 threads=1

use std::io::{Read, Write};
use std::net::IpAddr;
use std::os::fd::AsRawFd;
use std::process::Command as Host;
use std::sync::Once;
use std::time::Duration;

use common::*;
use nix::sched::{CloneFlags, unshare};
use nix::sys::socket::SockaddrStorage;
use ringfence::spec::{
    AddressPool, Attachment, AttachmentKind, Idmap, InterfaceAddress, IpvlanMode, MacvlanMode, NamespaceKind,
    NamespaceSource, Net, RoutedPair,
};
use ringfence::{Container, Error, ErrorKind, Pod, Spec};

#[allow(dead_code, reason = "each test program uses a part of it")]
mod common;

const MOMENT: Duration = Duration::from_millis(300);
const PATIENCE: Option<Duration> = Some(Duration::from_secs(60));

/// Runs a command of iproute2 in the namespace of this thread.
fn ip(arguments: &str) -> bool {
    let output = Host::new("ip").args(arguments.split_whitespace()).output();
    output.is_ok_and(|output| output.status.success())
}

/// A network namespace for this thread, with a pair of devices: `near` is used by containers, `far` has 10.7.0.1/24 and fd07::1/64. Keepers
/// belong to the namespaces of who asks: the next test's gets one of its own.
fn host() -> bool {
    static IP: Once = Once::new();
    IP.call_once(|| assert!(Host::new("ip").arg("-V").output().is_ok(), "iproute2 is part of the set-up"));
    // Those of the tests before would all refuse this one, and a start asks eight at most.
    ringfence::end_keepers();
    unshare(CloneFlags::CLONE_NEWNET).expect("a network namespace");
    // Addresses of links can be used at once, too.
    set("ipv6/conf/default/accept_dad", "0");
    ip("link set lo up")
        && ip("link add near type veth peer name far")
        && ip("link set near up")
        && ip("link set far up")
        && ip("address add 10.7.0.1/24 dev far")
        && ip("-6 address add fd07::1/64 dev far nodad")
}

fn with(one: Attachment) -> Result<Container, Error> {
    Container::start(&Spec::new().net(Net::Attached(vec![one])))
}

/// With port 81 of it at one of the host.
fn with_port(one: Attachment) -> Result<Container, Error> {
    Container::start(&Spec::new().net(Net::Attached(vec![one])).port(81))
}

/// Whether a service on its loopback is reached at that port, wherever its device leads.
fn publishes(container: &Container) -> bool {
    let service = std::net::TcpListener::from(container.listen("127.0.0.1:81", 1).unwrap());
    let mut outside = std::net::TcpStream::connect(("127.0.0.1", container.port(81).unwrap())).unwrap();
    let mut inside = service.accept().unwrap().0;
    outside.write_all(b"x").unwrap();
    inside.read_exact(&mut [0]).is_ok()
}

fn cidr(text: &str) -> InterfaceAddress {
    text.parse().expect("an address")
}

fn address(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

fn refused(result: Result<Container, Error>, kind: ErrorKind, field: &str) -> Error {
    let error = result.expect_err("an error");
    assert_eq!((error.kind(), error.field()), (kind, Some(field)), "{error}");
    error
}

/// What the kernel has not is skipped, where the error names it.
fn started(result: Result<Container, Error>) -> Option<Container> {
    match result {
        Err(error) if error.kind() == ErrorKind::Unsupported => {
            let option = match error.field().and_then(|field| field.rsplit('.').next()).expect("a field") {
                "vlan" => "CONFIG_VLAN_8021Q".to_owned(),
                "routed" => "CONFIG_NETKIT".to_owned(),
                kind => format!("CONFIG_{}", kind.to_uppercase()),
            };
            assert!(error.hint().is_some_and(|hint| hint.ends_with(&option)), "{error}");
            skip(&error.to_string());
            None
        }
        result => Some(result.expect("a container")),
    }
}

/// Whether the far end of the pair is reached. (A neighbour that did not answer is asked again after a second.)
fn reaches_far(container: &Container) -> bool {
    reaches_far_in(container, PATIENCE)
}

fn reaches_far_in(container: &Container, time: Option<Duration>) -> bool {
    let listener = std::net::TcpListener::bind("10.7.0.1:80").expect("the far address");
    let reached = container.connect("10.7.0.1:80", time).is_ok();
    drop(listener);
    reached
}

#[test]
fn a_macvlan_has_addresses_routes_and_a_gateway() {
    assert!(host());
    let one = Attachment::macvlan("near")
        .interface("lan")
        .address(cidr("10.7.0.5/24"))
        .address(cidr("fd07::5/64"))
        .mac([2, 0, 0, 0, 7, 5])
        .mtu(1400)
        .gateway(address("10.7.0.1"))
        .route(cidr("192.0.2.0/24"), Some(address("10.7.0.9")));
    let Some(container) = started(with_port(one)) else { return };
    assert!(publishes(&container) && reaches_far(&container));
    let listener = std::net::TcpListener::bind("[fd07::1]:80").unwrap();
    container.connect("[fd07::1]:80", PATIENCE).unwrap();
    drop(listener);
    assert_eq!(sh_in(&container, "cat /sys/class/net/lan/address /sys/class/net/lan/mtu"), "02:00:00:00:07:05\n1400\n");
    let routes = sh_in(&container, "cat /proc/net/route");
    // Destination, gateway; in the machine's order.
    assert!(routes.contains("lan\t00000000\t0100070A") && routes.contains("lan\t000200C0\t0900070A"), "{routes}");
    let told = container.addresses().unwrap();
    assert_eq!((told[0].interface.as_str(), told[0].addresses.len(), &told[0].network), ("lan", 2, &None));
    // Two of mode `bridge` reach each other, one of mode `private` nobody.
    let other = with(Attachment::macvlan("near").address(cidr("10.7.0.6/24"))).unwrap();
    let _listening = other.listen("10.7.0.6:80", 1).unwrap();
    assert!(container.connect("10.7.0.6:80", PATIENCE).is_ok());
    let kind = AttachmentKind::Macvlan { parent: "near".into(), mode: MacvlanMode::Private };
    let alone = with(Attachment::new(kind).address(cidr("10.7.0.7/24"))).unwrap();
    assert!(alone.connect("10.7.0.6:80", Some(MOMENT)).is_err());
    assert!(reaches_far(&alone));
}

#[test]
fn an_ipvlan_of_each_mode() {
    assert!(host());
    for mode in IpvlanMode::ALL {
        let one = Attachment::ipvlan("near", mode).address(cidr("10.7.0.5/24"));
        let Some(container) = started(with(one)) else { return };
        if mode == IpvlanMode::L2 {
            assert!(reaches_far(&container));
        }
        let other = with(Attachment::ipvlan("near", mode).address(cidr("10.7.0.6/24"))).unwrap();
        let listening = other.listen("10.7.0.6:80", 1).unwrap();
        container.connect("10.7.0.6:80", PATIENCE).unwrap_or_else(|e| panic!("{mode:?}: {e}"));
        // It would keep the network namespace, and the next one's address.
        drop(listening);
        other.close(PATIENCE).unwrap();
        // The state of an ipvlan is that of its parent, or unknown.
        let flags = sh_in(&container, "cat /sys/class/net/eth0/flags");
        let flags = u32::from_str_radix(flags.trim().trim_start_matches("0x"), 16).unwrap();
        assert_eq!(flags & libc::IFF_UP as u32, libc::IFF_UP as u32, "{mode:?}");
        assert!(sh_in(&container, "cat /proc/net/route /proc/net/fib_trie").contains("10.7.0.5"), "{mode:?}");
        container.close(PATIENCE).unwrap();
    }
}

/// Asks by ARP who has the far end's address, and reads the answer: frames behind a struct virtio_net_hdr.
const ASK_BY_TAP: &str = r"
import os, stat
read = lambda name: open('/sys/class/net/lan/' + name).read().strip()
mac = bytes.fromhex(read('address').replace(':', ''))
node = os.stat('/dev/taps/lan')
assert (stat.S_IMODE(node.st_mode), node.st_uid) == (0o600, os.getuid()), node
tap = os.open('/dev/tap' + read('ifindex'), os.O_RDWR)
far = bytes([10, 7, 0, 1])
ask = bytes.fromhex('0001080006040001') + mac + bytes([10, 7, 0, 5]) + bytes(6) + far
os.write(tap, bytes(10) + b'\xff' * 6 + mac + b'\x08\x06' + ask)
while (frame := os.read(tap, 4096)[10:])[12:14] != b'\x08\x06' or frame[20:22] != b'\x00\x02':
    pass
assert frame[:6] == mac and frame[28:32] == far, frame
";

#[test]
fn a_macvtap_is_read_and_written_inside() {
    assert!(host());
    let lan = || Attachment::macvtap("near").interface("lan");
    let asks = |user: &str| Spec::new().argv(["python3", "-c", ASK_BY_TAP]).user(user).net(Net::Attached(vec![lan()]));
    for spec in [asks("1000"), asks("0").idmap(Idmap::Host)] {
        let Some(container) = started(Container::start(&spec)) else { return };
        assert_eq!(
            container.main().expect("a main process").wait(PATIENCE).unwrap().and_then(|status| status.code),
            Some(0)
        );
    }
    // Several at once; the nodes that the kernel makes on the machine's own /dev go with them.
    let two = Spec::new().net(Net::Attached(vec![lan(), Attachment::macvtap("near")]));
    let (one, other) = (Container::start(&two).unwrap(), Container::start(&two).unwrap());
    let links = "cd /dev; for i in lan eth0; do readlink tap$(cat /sys/class/net/$i/ifindex); done";
    assert_eq!(sh_in(&one, links), "taps/lan\ntaps/eth0\n");
    sh_in(&other, "exec 3<> /dev/taps/lan 4<> /dev/taps/eth0");
    let number = sh_in(&one, "cat /sys/class/net/lan/ifindex");
    one.close(PATIENCE).unwrap();
    until("its device is gone", || !std::path::Path::new(&format!("/dev/tap{}", number.trim())).exists());
    let mut shared = two.clone();
    shared.namespaces.insert(NamespaceKind::Mnt, NamespaceSource::Host);
    refused(Container::start(&shared), ErrorKind::InvalidSpec, "net[0].macvtap");
    refused(with(lan().address(cidr("10.7.0.5/24"))), ErrorKind::InvalidSpec, "net.addresses");
    refused(with(Attachment::macvtap("nothing")), ErrorKind::NotFound, "net.macvtap");
    let pod = Pod::start(&Spec::new().net(Net::Attached(vec![lan()])), Pod::SHARE).expect_err("an error");
    assert_eq!((pod.kind(), pod.field()), (ErrorKind::InvalidSpec, Some("net.macvtap")), "{pod}");
}

#[test]
fn a_vlan_is_another_network_on_the_same_device() {
    assert!(host());
    let Some(container) = started(with(Attachment::vlan("near", 70).address(cidr("10.7.0.5/24")))) else { return };
    assert!(!reaches_far_in(&container, Some(MOMENT)));
    assert!(ip("link add link far name far.70 type vlan id 70") && ip("link set far.70 up"));
    assert!(ip("address del 10.7.0.1/24 dev far") && ip("address add 10.7.0.1/24 dev far.70"));
    assert!(reaches_far(&container));
}

#[test]
fn a_bridge_of_the_host() {
    assert!(host());
    assert!(ip("link add br0 type bridge forward_delay 0") && ip("link set br0 up"));
    assert!(ip("link set near master br0"));
    assert!(ip("link set far mtu 1500") && ip("link set near mtu 1500"));
    let one = with_port(Attachment::bridge("br0").address(cidr("10.7.0.5/24")).mtu(1400)).unwrap();
    assert!(publishes(&one));
    let bridge = Host::new("ip").args(["link", "show", "br0"]).output().unwrap().stdout;
    assert!(String::from_utf8_lossy(&bridge).contains("mtu 1500"), "the host's bridge stays as it is");
    let two = with(Attachment::bridge("br0").address(cidr("10.7.0.6/24"))).unwrap();
    let listening = two.listen("10.7.0.6:80", 1).unwrap();
    assert!(one.connect("10.7.0.6:80", PATIENCE).is_ok());
    assert!(reaches_far(&one));
    // A socket of its network keeps that, and its devices.
    drop(listening);
    one.close(PATIENCE).unwrap();
    two.close(PATIENCE).unwrap();
    until("its devices are gone", || !ip("link show rf0") && !ip("link show rf1"));
    refused(with(Attachment::bridge("far")), ErrorKind::InvalidSpec, "net.bridge");
}

#[test]
fn a_bridge_of_the_host_over_netkit() {
    assert!(host());
    assert!(ip("link add br0 type bridge forward_delay 0") && ip("link set br0 up") && ip("link set near master br0"));
    refused(with(Attachment::netkit("far")), ErrorKind::InvalidSpec, "net.netkit");
    let Some(one) = started(with(Attachment::netkit("br0").address(cidr("10.7.0.5/24")))) else { return };
    let two = with(Attachment::bridge("br0").address(cidr("10.7.0.6/24"))).unwrap();
    let listening = [(&one, "10.7.0.5:80"), (&two, "10.7.0.6:80")].map(|(who, at)| who.listen(at, 1).unwrap());
    one.connect("10.7.0.6:80", PATIENCE).unwrap();
    two.connect("10.7.0.5:80", PATIENCE).unwrap();
    assert!(reaches_far(&one));
    drop(listening);
    one.close(PATIENCE).unwrap();
    two.close(PATIENCE).unwrap();
    until("its devices are gone", || !ip("link show rf0") && !ip("link show rf1"));
}

#[test]
fn a_device_of_the_host_comes_back() {
    assert!(host());
    let one = Attachment::device("near").interface("wan").address(cidr("10.7.0.5/24"));
    let container = with(one.clone()).unwrap();
    assert!(!ip("link show near"));
    assert!(reaches_far(&container));
    assert_eq!(sh_in(&container, "ls /sys/class/net"), "lo\nwan\n");
    container.close(PATIENCE).unwrap();
    assert!(ip("link show near"));
    // As it was, whatever it was inside.
    let mac = Host::new("ip").args(["link", "show", "near"]).output().unwrap().stdout;
    let other = with(Attachment::device("near").mac([2, 0, 0, 0, 7, 7]).mtu(1300)).unwrap();
    assert_eq!(sh_in(&other, "cat /sys/class/net/eth0/mtu /sys/class/net/eth0/address"), "1300\n02:00:00:00:07:07\n");
    other.close(PATIENCE).unwrap();
    let link =
        |text: &[u8]| String::from_utf8_lossy(text).split_whitespace().skip(1).map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(link(&Host::new("ip").args(["link", "show", "near"]).output().unwrap().stdout), link(&mac));
    refused(with(Attachment::device("near").interface("default")), ErrorKind::InvalidSpec, "net.interface");
    // So it does after a start that fails.
    let spec = Spec::new().net(Net::Attached(vec![one])).argv(["/no/such/program"]);
    refused(Container::start(&spec), ErrorKind::NotFound, "argv[0]");
    assert!(ip("link show near"));
}

#[test]
fn several_devices_and_those_that_are_not_there() {
    assert!(host());
    let list = vec![
        Attachment::macvlan("near").address(cidr("10.7.0.5/24")),
        Attachment::macvlan("near").address(cidr("10.8.0.5/24")).interface("other"),
    ];
    if let Some(container) = started(Container::start(&Spec::new().net(Net::Attached(list)))) {
        assert_eq!(sh_in(&container, "ls /sys/class/net"), "eth0\nlo\nother\n");
    }
    refused(with(Attachment::macvlan("nothing")), ErrorKind::NotFound, "net.macvlan");
    refused(with(Attachment::bridge("nothing")), ErrorKind::NotFound, "net.bridge");
    refused(with(Attachment::device("nothing")), ErrorKind::NotFound, "net.device");
    let twice = vec![Attachment::vlan("near", 5), Attachment::vlan("near", 5).interface("again")];
    let error = Container::start(&Spec::new().net(Net::Attached(twice))).unwrap_err();
    if error.kind() != ErrorKind::Unsupported {
        assert_eq!((error.kind(), error.field()), (ErrorKind::AlreadyExists, Some("net[1].vlan")), "{error}");
    }
}

/// A thread in a network namespace of its own, for what is outside.
struct Outside {
    work: std::sync::mpsc::Sender<Box<dyn FnOnce() + Send>>,
}

impl Outside {
    /// With the device `far` of the pair, its addresses, and a route to nowhere else.
    fn new() -> Self {
        let (work, to_do) = std::sync::mpsc::channel::<Box<dyn FnOnce() + Send>>();
        let (ready, wait) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            unshare(CloneFlags::CLONE_NEWNET).expect("a network namespace");
            ready.send(nix::unistd::gettid()).expect("the test waits");
            to_do.into_iter().for_each(|work| work());
        });
        let thread = wait.recv().expect("a thread");
        assert!(ip(&format!("link set far netns {thread}")));
        let outside = Self { work };
        assert!(outside.does(|| {
            ip("link set far up")
                && ip("address add 10.7.0.1/24 dev far")
                && ip("-6 address add fd07::1/64 dev far nodad")
        }));
        outside
    }

    fn does<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> T {
        let (done, wait) = std::sync::mpsc::channel();
        self.work.send(Box::new(move || done.send(work()).expect("the test waits"))).expect("it works");
        wait.recv().expect("it works")
    }
}

fn set(setting: &str, value: &str) {
    std::fs::write(format!("/proc/sys/net/{setting}"), value).unwrap_or_else(|e| panic!("{setting}: {e}"));
}

/// What iproute2 shows.
fn shown(arguments: &str) -> String {
    let output = Host::new("ip").args(arguments.split_whitespace()).output().expect("iproute2");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// A host that forwards, with 10.7.0.254/24 and fd07::fe/64 on `near`, and somebody outside.
fn router() -> Outside {
    assert!(host());
    let outside = Outside::new();
    assert!(ip("address add 10.7.0.254/24 dev near") && ip("-6 address add fd07::fe/64 dev near nodad"));
    for setting in ["ipv4/ip_forward", "ipv6/conf/all/forwarding", "ipv6/conf/near/proxy_ndp"] {
        set(setting, "1");
    }
    // Otherwise who asks waits for up to 0.8 seconds.
    set("ipv4/neigh/near/proxy_delay", "0");
    set("ipv6/neigh/near/proxy_delay", "0");
    outside
}

fn routed(pair: RoutedPair) -> Attachment {
    let kind = AttachmentKind::Routed { outer: "near".into(), pair };
    Attachment::new(kind).address(address("10.7.0.5")).address(address("fd07::5"))
}

fn nothing_left() -> bool {
    let rules = Host::new("nft").args(["list", "tables"]).output().expect("nft");
    let left = [
        shown("neigh show proxy"),
        shown("-6 neigh show proxy"),
        shown("route show proto static"),
        shown("-o link show"),
    ]
    .concat();
    rules.stdout.is_empty() && !left.contains("10.7.0.5") && !left.contains("fd07::5") && !left.contains(": rf")
}

fn is_reached_over(pair: RoutedPair) {
    let outside = router();
    let Some(container) = started(with_port(routed(pair).interface("net0"))) else { return };
    assert!(publishes(&container));
    let _listening = [container.listen("10.7.0.5:80", 1).unwrap(), container.listen("[fd07::5]:80", 1).unwrap()];
    for (ip, port) in [("10.7.0.5", "10.7.0.5:80"), ("fd07::5", "[fd07::5]:80")] {
        let known = outside.does(move || {
            let to = port.parse().expect("an address");
            std::net::TcpStream::connect_timeout(&to, Duration::from_secs(20)).expect(port);
            shown(&format!("neigh show {ip}"))
        });
        let near = shown("link show near");
        let mac = known.split_whitespace().skip_while(|word| *word != "lladdr").nth(1);
        assert!(mac.is_some_and(|mac| near.contains(mac)), "{known}{near}");
    }
    // The host itself, and outwards.
    std::net::TcpStream::connect("10.7.0.5:80").unwrap();
    std::net::TcpStream::connect("[fd07::5]:80").unwrap();
    let listening = outside
        .does(|| ["10.7.0.1:81", "[fd07::1]:81"].map(|here| std::net::TcpListener::bind(here).expect("outside")));
    container.connect("10.7.0.1:81", PATIENCE).unwrap();
    container.connect("[fd07::1]:81", PATIENCE).unwrap();
    drop(listening);
    let told = container.addresses().unwrap();
    assert_eq!((told[0].interface.as_str(), told[0].addresses.len(), told[0].mac), ("net0", 2, None));
    container.close(PATIENCE).unwrap();
    assert!(nothing_left(), "{pair:?}");
}

#[test]
fn the_host_answers_for_what_it_routes() {
    is_reached_over(RoutedPair::Veth);
}

#[test]
fn the_host_answers_for_what_it_routes_over_netkit() {
    is_reached_over(RoutedPair::Netkit);
}

#[test]
fn a_routed_container_sends_from_its_own_addresses_only() {
    sends_from_its_own_only(RoutedPair::Veth);
}

#[test]
fn a_routed_container_sends_from_its_own_addresses_only_over_netkit() {
    sends_from_its_own_only(RoutedPair::Netkit);
}

fn sends_from_its_own_only(pair: RoutedPair) {
    let outside = router();
    let mut spec = Spec::new().net(Net::Attached(vec![routed(pair)]));
    spec.merge_json(r#"{"capabilities": {"add": ["net_admin"]}}"#).unwrap();
    let Some(container) = started(Container::start(&spec)) else { return };
    sh_in(&container, "ip address add 10.7.0.66/32 dev eth0 && ip -6 address add fd07::66/128 dev eth0 nodad");
    for (to, false_one, own) in
        [("10.7.0.1:9", "10.7.0.66:9", "10.7.0.5:9"), ("[fd07::1]:9", "[fd07::66]:9", "[fd07::5]:9")]
    {
        let receiver = outside.does(move || std::net::UdpSocket::bind(to).expect("outside"));
        receiver.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        for from in [false_one, own] {
            let from: std::net::SocketAddr = from.parse().unwrap();
            let family = if from.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
            let socket = container.socket(family, libc::SOCK_DGRAM, 0).unwrap();
            nix::sys::socket::bind(socket.as_raw_fd(), &SockaddrStorage::from(from)).unwrap();
            std::net::UdpSocket::from(socket).send_to(b"x", to).unwrap();
        }
        // What was sent first would have come first.
        assert_eq!(receiver.recv_from(&mut [0; 1]).unwrap().1.to_string(), own);
    }
}

#[test]
fn what_a_routed_address_needs_and_whose_it_is() {
    let _outside = router();
    let container = with(routed(RoutedPair::Veth)).unwrap();
    let other = |address: &str| with(Attachment::routed("near").address(cidr(address)));
    for taken in ["10.7.0.5", "fd07::5/128", "10.7.0.254", "fd07::fe"] {
        refused(other(taken), ErrorKind::AlreadyExists, "net.addresses");
    }
    assert!(ip("route add 10.7.0.9/32 dev near"));
    refused(other("10.7.0.9"), ErrorKind::AlreadyExists, "net.addresses");
    assert!(ip("neigh add proxy 10.7.0.10 dev near"));
    refused(other("10.7.0.10"), ErrorKind::AlreadyExists, "net.addresses");
    assert!(ip("neigh del proxy 10.7.0.10 dev near"));
    refused(with(Attachment::routed("nothing").address(cidr("10.7.0.6"))), ErrorKind::NotFound, "net.routed");
    // What was refused has taken nothing away.
    assert!(shown("neigh show proxy").contains("10.7.0.5") && shown("-6 neigh show proxy").contains("fd07::5"));
    container.close(PATIENCE).unwrap();
    assert!(nothing_left());
    with(routed(RoutedPair::Veth)).unwrap().close(PATIENCE).unwrap();
    // A killed program and its killed keeper leave entries; those of others are not the library's.
    assert!(
        ip("neigh add proxy 10.7.0.7 dev near protocol 82") && ip("-6 neigh add proxy fd07::7 dev near protocol 82")
    );
    assert!(ip("neigh add proxy 10.7.0.8 dev near"));
    ringfence::gc().unwrap();
    assert_eq!(shown("neigh show proxy").trim().split(' ').next(), Some("10.7.0.8"));
    assert!(!shown("-6 neigh show proxy").contains("fd07::7"));
    for (setting, named) in
        [("ipv6/conf/near/proxy_ndp", "proxy_ndp"), ("ipv4/ip_forward", "net/ipv4/conf/near/forwarding")]
    {
        set(setting, "0");
        let error = refused(with(routed(RoutedPair::Veth)), ErrorKind::Unsupported, "net.routed");
        assert!(error.to_string().contains(named), "{error}");
    }
    assert!(nothing_left());
}

/// Which addresses the containers of another program have, as many as there are; it ends when its input does.
const TAKER: &str = "RINGFENCE_TEST_TAKER";

#[test]
fn addresses_are_chosen_that_no_other_program_has() {
    let pools = ["10.7.0.16-10.7.0.19/24", "fd07::10-fd07::1f/64"].map(|text| text.parse::<AddressPool>().unwrap());
    let on = |one: Attachment| with(one.pool(pools[0]).pool(pools[1]));
    let of = |one: &Container| one.addresses().unwrap().swap_remove(0).addresses[0];
    if std::env::var_os(TAKER).is_some() {
        let (one, other) = (on(Attachment::bridge("br0")).unwrap(), on(Attachment::bridge("br0")).unwrap());
        println!("taken {} {}", of(&one), of(&other));
        let _ = std::io::stdin().lines().next();
        return;
    }
    let _outside = router();
    assert!(ip("link add br0 type bridge forward_delay 0") && ip("link set br0 up"));
    let own = on(Attachment::bridge("br0")).unwrap();
    assert_eq!(own.addresses().unwrap()[0].addresses, [address("10.7.0.16"), address("fd07::10")]);
    assert!(sh_in(&own, "ip -o address show dev eth0 2>/dev/null || cat /proc/net/fib_trie").contains("10.7.0.16"));
    let mut taker = Host::new(std::env::current_exe().unwrap());
    taker.args(["--exact", "addresses_are_chosen_that_no_other_program_has", "--nocapture"]).env(TAKER, "1");
    let mut taker = taker.stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped()).spawn().unwrap();
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(taker.stdout.take().unwrap()));
    assert!(lines.any(|line| line.unwrap().ends_with("taken 10.7.0.17 10.7.0.18")));
    // One is left; on another wire they are all free, and routed ones are another matter, too.
    let last = on(Attachment::bridge("br0").address(cidr("10.7.0.40/24"))).unwrap();
    assert_eq!(last.addresses().unwrap()[0].addresses[1], address("10.7.0.19"));
    refused(on(Attachment::bridge("br0")), ErrorKind::Exhausted, "net.pool");
    for taken in ["10.7.0.17/24", "10.7.0.40/24", "fd07::11/64"] {
        refused(with(Attachment::bridge("br0").address(cidr(taken))), ErrorKind::AlreadyExists, "net.addresses[0]");
    }
    let other = on(Attachment::macvlan("near").address(cidr("10.7.0.40/24"))).unwrap();
    assert_eq!(other.addresses().unwrap()[0].addresses[1], address("10.7.0.16"));
    assert!(ip("route add 10.7.0.20/32 dev near") && ip("neigh add proxy 10.7.0.21 dev near"));
    let routed = Attachment::routed("near").pool("10.7.0.20-10.7.0.22".parse().unwrap());
    let one = with(routed.clone()).unwrap();
    assert_eq!(of(&one), address("10.7.0.22"));
    assert!(shown("neigh show proxy").contains("10.7.0.22"));
    refused(with(routed), ErrorKind::Exhausted, "net.pool");
    one.close(PATIENCE).unwrap();
    // What is let go of is free, in whatever way.
    own.detach_net("eth0").unwrap();
    let again = on(Attachment::bridge("br0")).unwrap();
    assert_eq!(of(&again), address("10.7.0.16"));
    taker.kill().unwrap();
    taker.wait().unwrap();
    assert_eq!(of(&on(Attachment::bridge("br0")).unwrap()), address("10.7.0.17"));
}

/// Who remembers the device that had an address before reaches the new one at once, of every kind that has a MAC of its own, and where the host
/// answers.
#[test]
fn neighbours_learn_who_has_an_address_now() {
    let outside = router();
    assert!(ip("link add br0 type bridge") && ip("link set br0 up"));
    assert!(ip("link add inner type veth peer name cable") && ip("link set inner up") && ip("link set cable up"));
    assert!(ip("link set cable master br0"));
    let pools = ["10.7.0.16-10.7.0.17/24", "fd07::10-fd07::11/64"].map(|text| text.parse::<AddressPool>().unwrap());
    let remember = "neigh replace 10.7.0.16 lladdr 02:00:00:00:00:99 nud reachable dev";
    let remember6 = "-6 neigh replace fd07::10 lladdr 02:00:00:00:00:99 nud reachable dev";
    let bare = ["10.7.0.16-10.7.0.17", "fd07::10-fd07::11"].map(|text| text.parse::<AddressPool>().unwrap());
    let reached = |one: Attachment, pools: [AddressPool; 2], device: &'static str, local: bool| {
        let recalls = move || ip(&format!("{remember} {device}")) && ip(&format!("{remember6} {device}"));
        assert!(if local { recalls() } else { outside.does(recalls) });
        let Some(container) = started(with(one.pool(pools[0]).pool(pools[1]))) else { return };
        assert_eq!(container.addresses().unwrap()[0].addresses, [address("10.7.0.16"), address("fd07::10")]);
        let listening =
            ["10.7.0.16:80", "[fd07::10]:80"].map(|at| container.listen(at, 1).unwrap_or_else(|e| panic!("{at}: {e}")));
        let connects = || {
            for to in ["10.7.0.16:80", "[fd07::10]:80"] {
                // Who sends to the other device would not be heard before it has asked again, for half a minute.
                std::net::TcpStream::connect_timeout(&to.parse().unwrap(), Duration::from_secs(5)).expect(to);
            }
        };
        if local {
            connects()
        } else {
            outside.does(connects)
        };
        // Nothing of it may answer for its addresses when they are the next one's.
        drop(listening);
        container.close(PATIENCE).unwrap();
    };
    reached(Attachment::macvlan("near"), pools, "far", false);
    // The host answers, with the MAC of its own device.
    reached(Attachment::routed("near"), bare, "far", false);
    // The host's own neighbours are learned of likewise; what is near has its addresses, and must not be the way there.
    assert!(ip("address flush dev near") && ip("-6 address flush dev near"));
    assert!(ip("address add 10.7.0.254/24 dev inner") && ip("-6 address add fd07::fe/64 dev inner nodad"));
    reached(Attachment::bridge("br0"), pools, "inner", true);
    let _ = std::fs::write("/proc/sys/net/ipv6/conf/inner/forwarding", "0");
    reached(Attachment::device("near"), pools, "far", false);
}

const VICTIM: &str = "RINGFENCE_TEST_VICTIM";

#[test]
fn a_killed_program_leaves_nothing_of_its_routed_container() {
    if std::env::var_os(VICTIM).is_some() {
        let live = Container::start(&Spec::new()).unwrap();
        live.attach_net(&Attachment::routed("near").address(address("10.7.0.55"))).unwrap();
        if ip("link show spare") {
            live.attach_net(&Attachment::device("spare")).unwrap();
            live.attach_device("loose", None).unwrap();
        }
        return wait_for_the_kill(&with(routed(RoutedPair::Veth)).unwrap());
    }
    let start = || Victim::start("a_killed_program_leaves_nothing_of_its_routed_container");
    let _outside = router();
    assert!(ip("link add spare type veth peer name cable") && ip("link add loose type veth peer name rope"));
    let mut victim = start();
    assert!(!nothing_left() && !ip("link show spare") && !ip("link show loose"));
    victim.program.kill().unwrap();
    victim.program.wait().unwrap();
    until("nothing is left", nothing_left);
    // Nobody is there to bring these back, and the kernel takes virtual ones away with the namespace in which they are.
    until("devices that had moved in are gone", || !ip("link show cable") && !ip("link show rope"));
    // Who is started again at once has the address, whether the keeper has seen the end already or not.
    let rounds = std::env::var("RINGFENCE_KILL_ROUNDS").map_or(4, |rounds| rounds.parse().expect("a number"));
    for round in 0..rounds {
        let mut victim = start();
        let is_late = round % 2 == 0;
        if is_late {
            victim.signal_keeper(nix::sys::signal::Signal::SIGSTOP);
        }
        victim.program.kill().unwrap();
        let again = std::thread::scope(|scope| {
            scope.spawn(|| {
                std::thread::sleep(MOMENT);
                victim.signal_keeper(nix::sys::signal::Signal::SIGCONT);
            });
            with(routed(RoutedPair::Veth)).unwrap()
        });
        victim.program.wait().unwrap();
        until("the keeper has gone", || !std::path::Path::new(&format!("/proc/{}", victim.keeper)).exists());
        let answers = [shown("neigh show proxy"), shown("-6 neigh show proxy")].concat();
        assert!(answers.contains("10.7.0.5 dev") && answers.contains("fd07::5 dev"), "round {round}: {answers}");
        assert!(shown("route show 10.7.0.5").contains("dev rf"), "round {round}");
        again.close(PATIENCE).unwrap();
        assert!(nothing_left(), "round {round}");
    }
}

/// What a program that is killed does last: it says who the keeper of its container is.
fn wait_for_the_kill(container: &Container) {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", container.pid())).unwrap();
    // Behind the name and the state stands the parent.
    println!("keeper {}", stat.rsplit_once(')').unwrap().1.split_whitespace().nth(1).unwrap());
    std::thread::sleep(Duration::from_secs(60));
}

#[test]
fn a_card_of_the_machine_comes_back_from_a_killed_program() {
    if std::env::var("RINGFENCE_TEST_TIER").as_deref() != Ok("vm") {
        return skip("the machine's network cards are in use: only the virtual machine has one to spare");
    }
    let card = "eth0";
    if std::env::var_os(VICTIM).is_some() {
        return wait_for_the_kill(&with(Attachment::device(card).interface("wan")).unwrap());
    }
    // Where the kernel brings it; threads of tests before this one were elsewhere.
    let machine = std::fs::File::open("/proc/self/ns/net").expect("the machine's network");
    nix::sched::setns(machine, CloneFlags::CLONE_NEWNET).expect("the machine's network");
    // There nobody loads drivers, and its devices are afterwards those of before.
    let modprobe = |arguments: &[&str]| Host::new("modprobe").args(arguments).status().is_ok_and(|it| it.success());
    assert!(modprobe(&["virtio_net"]));
    until("there is a card", || ip(&format!("link show {card}")));
    let mut victim = Victim::start("a_card_of_the_machine_comes_back_from_a_killed_program");
    assert!(!ip(&format!("link show {card}")));
    victim.program.kill().unwrap();
    victim.program.wait().unwrap();
    // The kernel knows its name inside only.
    until("the card is back", || ip("link show wan"));
    assert!(ip(&format!("link set wan name {card}")));
    with(Attachment::device(card)).expect("the next one's").close(PATIENCE).unwrap();
    assert!(ip(&format!("link show {card}")));
    assert!(modprobe(&["-r", "virtio_net"]));
}

/// A program with a container, which runs the test of that name.
struct Victim {
    program: std::process::Child,
    keeper: i32,
}

impl Victim {
    fn start(name: &str) -> Self {
        let mut program = Host::new(std::env::current_exe().unwrap());
        program.args(["--exact", name, "--nocapture"]).env(VICTIM, "1").stdout(std::process::Stdio::piped());
        let mut program = program.spawn().unwrap();
        let mut lines = std::io::BufRead::lines(std::io::BufReader::new(program.stdout.take().unwrap()));
        let keeper = lines.find_map(|line| line.unwrap().split_once("keeper ")?.1.parse().ok()).expect("its keeper");
        Self { program, keeper }
    }

    fn signal_keeper(&self, signal: nix::sys::signal::Signal) {
        let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(self.keeper), signal);
    }
}

/// What is there inside, but for `lo`.
fn devices_of(container: &Container) -> String {
    sh_in(container, "ls /sys/class/net").replace("lo\n", "").replace('\n', " ")
}

#[test]
fn devices_come_and_go_while_a_container_runs() {
    let outside = router();
    let container = Container::start(&Spec::new()).unwrap();
    let attach = |one: &Attachment| container.attach_net(one).unwrap_or_else(|e| panic!("{one:?}: {e}"));
    let told = attach(&routed(RoutedPair::Veth));
    assert_eq!((told.interface.as_str(), told.addresses.len()), ("eth0", 2));
    let listening = [container.listen("10.7.0.5:80", 1).unwrap(), container.listen("[fd07::5]:80", 1).unwrap()];
    outside.does(|| {
        for to in ["10.7.0.5:80", "[fd07::5]:80"] {
            std::net::TcpStream::connect_timeout(&to.parse().unwrap(), Duration::from_secs(20)).expect(to);
        }
    });
    drop(listening);
    let other = with(Attachment::routed("near").address(address("10.7.0.5")));
    refused(other, ErrorKind::AlreadyExists, "net.addresses");
    container.detach_net("eth0").unwrap();
    assert!(nothing_left());
    assert!(ip("link add br0 type bridge") && ip("link set br0 up") && ip("link add spare type veth peer name cable"));
    let kinds = [
        Attachment::macvlan("near").address(cidr("10.7.0.6/24")),
        Attachment::vlan("near", 7).interface("vlan7"),
        Attachment::bridge("br0").address(cidr("10.8.0.5/24")),
        Attachment::device("spare").interface("wan").address(cidr("10.9.0.5/24")),
    ];
    for (one, name) in kinds.iter().zip(["eth0", "vlan7", "eth1", "wan"]) {
        match container.attach_net(one) {
            // Said by a test of its own.
            Err(error) if error.kind() == ErrorKind::Unsupported => assert_eq!(name, "vlan7", "{error}"),
            told => assert_eq!(told.unwrap_or_else(|e| panic!("{one:?}: {e}")).interface, name),
        }
    }
    let made = container.addresses().unwrap();
    for one in &made {
        assert!(devices_of(&container).contains(&one.interface), "{one:?}");
    }
    let taken = container.attach_net(&Attachment::bridge("br0").interface("wan")).unwrap_err();
    assert_eq!((taken.kind(), taken.field()), (ErrorKind::AlreadyExists, Some("net.interface")), "{taken}");
    // What is refused half way is not left half made.
    let wrong = Attachment::bridge("br0").interface("half").address(cidr("10.8.0.6/24")).gateway(address("224.0.0.1"));
    assert!(container.attach_net(&wrong).is_err());
    assert!(!devices_of(&container).contains("half") && container.addresses().unwrap() == made);
    for one in &made {
        container.detach_net(&one.interface).unwrap();
    }
    assert_eq!((devices_of(&container).as_str(), container.addresses().unwrap().len()), ("", 0));
    assert!(ip("link show spare") && !ip("link show rf0"));
    let none = container.detach_net("eth0").unwrap_err();
    assert_eq!((none.kind(), none.field()), (ErrorKind::NotFound, Some("interface")), "{none}");
    // An address that was let go of is the next one's, and stays so when the first container ends.
    let first = with(routed(RoutedPair::Veth)).unwrap();
    first.detach_net("eth0").unwrap();
    let second = with(routed(RoutedPair::Veth)).unwrap();
    first.close(PATIENCE).unwrap();
    assert!(shown("neigh show proxy").contains("10.7.0.5") && shown("-6 neigh show proxy").contains("fd07::5"));
    second.close(PATIENCE).unwrap();
    // With the container they go as well.
    attach(&routed(RoutedPair::Veth));
    attach(&Attachment::device("spare"));
    container.kill().unwrap();
    container.wait_end(PATIENCE).unwrap();
    assert!(ip("link show spare"));
    assert_eq!(container.attach_net(&Attachment::bridge("br0")).unwrap_err().kind(), ErrorKind::Closed);
    container.close(PATIENCE).unwrap();
    assert!(nothing_left());
}
