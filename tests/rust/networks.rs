//! Networks of containers: who reaches whom, by which name and address, and what a cut does.
//!
//! tests/run: timeout=300 vm=root,user

use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::OwnedFd;
use std::sync::LazyLock;
use std::thread;
use std::time::{Duration, Instant};

use common::*;
use ringfence::spec::{Attachment, Net, NetworkSpec};
use ringfence::{Container, Direction, Error, ErrorKind, EventKind, EventOptions, Network, Pod, Shape, Spec};

#[allow(dead_code, reason = "each test program uses a part of it")]
mod common;

/// A test that hangs is to say where.
const PATIENCE: Option<Duration> = Some(Duration::from_secs(60));
/// What does not come is not waited for longer.
static MOMENT: LazyLock<Duration> = LazyLock::new(|| {
    let emulated = std::env::var("RINGFENCE_TEST_TIER").is_ok_and(|tier| tier == "vm");
    Duration::from_millis(if emulated { 1000 } else { 200 })
});

fn network() -> Network {
    Network::start(&NetworkSpec::new()).expect("a network")
}

fn on(network: &Network) -> Container {
    network.container(&Spec::new()).expect("a container")
}

fn addresses(container: &Container) -> Vec<IpAddr> {
    container.addresses().expect("addresses").swap_remove(0).addresses
}

fn address(container: &Container) -> IpAddr {
    addresses(container)[0]
}

fn at(address: IpAddr, port: u16) -> String {
    SocketAddr::new(address, port).to_string()
}

fn listen(container: &Container, address: IpAddr) -> TcpListener {
    TcpListener::from(container.listen(&at(address, 80), 64).expect("a listener"))
}

/// Whether a connection comes about. (A neighbour that did not answer is asked again after a second.)
fn reaches(from: &Container, to: IpAddr) -> bool {
    from.connect(&at(to, 80), PATIENCE).is_ok()
}

fn is_cut_off(from: &Container, to: IpAddr) -> bool {
    from.connect(&at(to, 80), Some(*MOMENT)).is_err()
}

fn udp(container: &Container, address: IpAddr) -> UdpSocket {
    let domain = if address.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
    let socket: OwnedFd = container.socket(domain, libc::SOCK_DGRAM, 0).expect("a socket");
    let address: nix::sys::socket::SockaddrStorage = SocketAddr::new(address, 53).into();
    nix::sys::socket::bind(std::os::fd::AsRawFd::as_raw_fd(&socket), &address).expect("its address");
    let socket = UdpSocket::from(socket);
    socket.set_read_timeout(PATIENCE).expect("a timeout");
    socket
}

/// The addresses by which a name is known in a container.
fn known(container: &Container, name: &str) -> Vec<String> {
    let hosts = container.read("/etc/hosts", None).expect("/etc/hosts");
    let lines = String::from_utf8(hosts).expect("text");
    let of = |line: &str| {
        let mut words = line.split_whitespace();
        let address = words.next()?.to_owned();
        words.any(|word| word == name).then_some(address)
    };
    lines.lines().filter_map(of).collect()
}

fn shown(addresses: &[IpAddr]) -> Vec<String> {
    addresses.iter().map(IpAddr::to_string).collect()
}

fn failed<T: std::fmt::Debug>(result: Result<T, Error>, kind: ErrorKind, field: &str) -> Error {
    let error = result.expect_err("an error");
    assert_eq!((error.kind(), error.field()), (kind, Some(field)), "{error}");
    error
}

#[test]
fn containers_reach_each_other_and_nobody_else_does() {
    let devices = || std::fs::read_to_string("/proc/self/net/dev").unwrap().lines().count();
    let before = devices();
    let has_ipv6 = std::path::Path::new("/proc/net/if_inet6").exists();
    let same = NetworkSpec::new().subnet("10.1.2.0/24");
    let same = if has_ipv6 { same.subnet("fd00:1::/64") } else { same };
    let [network, other] = [(); 2].map(|()| Network::start(&same).unwrap());
    let (server, client) = (on(&network), on(&network));
    let stranger = on(&other);
    assert_eq!(addresses(&server), addresses(&stranger), "networks may have the same addresses");
    for (there, here) in addresses(&server).into_iter().zip(addresses(&client)) {
        let service = listen(&server, there);
        let stream = TcpStream::from(client.connect(&at(there, 80), PATIENCE).unwrap());
        let (accepted, from) = service.accept().unwrap();
        assert_eq!(from.ip(), here);
        stream.set_read_timeout(PATIENCE).unwrap();
        thread::spawn(move || std::io::copy(&mut &accepted, &mut &accepted));
        let sent = vec![7u8; 1 << 20];
        let mut got = vec![0u8; sent.len()];
        thread::scope(|scope| {
            scope.spawn(|| std::io::Write::write_all(&mut &stream, &sent).unwrap());
            std::io::Read::read_exact(&mut &stream, &mut got).unwrap();
        });
        assert_eq!(got, sent);

        let (one, two) = (udp(&server, there), udp(&client, here));
        two.send_to(b"ping", (there, 53)).unwrap();
        let mut buffer = [0; 16];
        assert_eq!(one.recv_from(&mut buffer).unwrap(), (4, (here, 53).into()));

        let _listening = listen(&client, here);
        assert!(reaches(&server, here));
        assert!(is_cut_off(&stranger, here), "another network reaches it");
    }
    assert!(client.connect("192.0.2.1:80", PATIENCE).is_err(), "there is no way out");
    assert_eq!(devices(), before, "the host's network has nothing of it");
    let pid = server.pid();
    network.close(PATIENCE).unwrap();
    assert!(!server.is_running() && !std::path::Path::new(&format!("/proc/{pid}")).exists());
    assert_eq!(network.container(&Spec::new()).unwrap_err().kind(), ErrorKind::Closed);
}

#[test]
fn names_come_and_go_with_containers() {
    let network = network();
    let first = network.container(&Spec::new().hostname("first")).unwrap();
    assert_eq!(known(&first, "first"), shown(&addresses(&first)));
    let alias = Net::Attached(vec![Attachment::network(network.name()).alias("db").alias("primary")]);
    let second = Container::start(&Spec::new().net(alias)).unwrap();
    let itself = network.container(&Spec::new().hostname("third").argv(["sh", "-c", "getent hosts third"])).unwrap();
    let output = itself.main().unwrap().wait(PATIENCE).unwrap().unwrap();
    assert!(output.success(), "a program knows its own name from the beginning: {output:?}");
    for name in ["db", "primary"] {
        assert_eq!(known(&first, name), shown(&addresses(&second)));
    }
    assert_eq!(known(&second, "first"), shown(&addresses(&first)));
    let found = sh_in(&first, "getent ahosts primary | head -n 1");
    assert!(shown(&addresses(&second)).iter().any(|one| found.starts_with(one)), "{found}");
    second.close(PATIENCE).unwrap();
    assert!(known(&first, "db").is_empty());
    assert_eq!(known(&first, "localhost").len(), 2);
    // What is mounted there is the network's: nobody inside can change what others find.
    assert_eq!(sh_in(&first, "echo 1.2.3.4 evil >> /etc/hosts; echo $?").lines().last(), Some("2"));
}

#[test]
fn a_container_with_names_of_its_own_and_two_networks() {
    let (front, back) = (network(), network());
    let web = front.container(&Spec::new().hostname("web")).unwrap();
    let both = [front.name(), back.name()].map(|name| Attachment::network(name).alias("proxy"));
    let spec = Spec::new().net(Net::Attached(both.into())).host("outside", "192.0.2.7");
    let proxy = Container::start(&spec).unwrap();
    let db = back.container(&Spec::new().hostname("db")).unwrap();
    for one in [&web, &db] {
        for there in addresses(one) {
            let _listening = listen(one, there);
            assert!(reaches(&proxy, there), "{there}");
        }
    }
    assert_eq!(known(&proxy, "outside"), ["192.0.2.7"]);
    assert_eq!(known(&proxy, "web"), shown(&addresses(&web)));
    assert_eq!(known(&proxy, "db"), shown(&addresses(&db)));
    let all = proxy.addresses().unwrap();
    assert_eq!(all.iter().map(|one| one.interface.as_str()).collect::<Vec<_>>(), ["eth0", "eth1"]);
    assert_eq!(known(&web, "proxy"), shown(&all[0].addresses));
    assert_eq!(known(&db, "proxy"), shown(&all[1].addresses));
    assert!(known(&web, "db").is_empty() && known(&web, "outside").is_empty());
    db.close(PATIENCE).unwrap();
    assert!(known(&proxy, "db").is_empty());
    assert_eq!(known(&proxy, "web"), shown(&addresses(&web)));
}

#[test]
fn who_is_on_two_networks_reaches_both_or_is_told() {
    let with = |text: &str| Network::start(&NetworkSpec::new().subnet(text)).unwrap();
    let (wide, narrow) = (with("10.1.0.0/16"), with("10.1.2.0/24"));
    let names = [wide.name(), narrow.name()];
    let error = failed(
        Container::start(&Spec::new().net(Net::Attached(names.map(Attachment::network).into()))),
        ErrorKind::InvalidSpec,
        "net[1]",
    );
    let said = error.to_string();
    assert!(["10.1.2.0/24", "10.1.0.0/16", names[0], names[1]].iter().all(|word| said.contains(word)), "{said}");
    let container = on(&narrow);
    failed(container.attach_net(&Attachment::network(names[0])), ErrorKind::InvalidSpec, "net");
    assert_eq!(wide.members().unwrap(), []);
    // A network that has ended is in nobody's way.
    let own = Container::start(&Spec::new().net(Net::Attached(vec![Attachment::network(names[1])]))).unwrap();
    narrow.close(PATIENCE).unwrap();
    own.attach_net(&Attachment::network(names[0]).interface("wide")).unwrap();
}

#[test]
fn a_container_that_spoils_its_names_spoils_its_own() {
    let network = network();
    let device = Net::Attached(vec![Attachment::network(network.name())]);
    let odd = Container::start(&Spec::new().net(device).host("outside", "192.0.2.7")).unwrap();
    sh_in(&odd, "truncate -s 4T /etc/hosts; truncate -s 8E /etc/hosts || true");
    let other = network.container(&Spec::new().hostname("other")).unwrap();
    assert_eq!(known(&odd, "other"), shown(&addresses(&other)));
    assert_eq!(known(&odd, "outside"), ["192.0.2.7"]);
    // Nothing of others moves when somebody goes: who reads meanwhile finds each of them.
    let stays = network.container(&Spec::new().hostname("stays")).unwrap();
    let before = known(&other, "stays");
    odd.close(PATIENCE).unwrap();
    let again = network.container(&Spec::new().hostname("longer-than-before")).unwrap();
    assert_eq!(known(&other, "stays"), before);
    assert_eq!(known(&stays, "longer-than-before"), shown(&addresses(&again)));
}

#[test]
fn containers_that_were_let_go_of() {
    let network = Network::start(&NetworkSpec::new().subnet("10.1.2.0/29")).unwrap();
    // A close that does not wait, of a container whose handle is the network's then.
    for _ in 0..3 {
        let container = on(&network);
        let _ = container.close(Some(Duration::ZERO));
        drop(container);
    }
    // More than there are addresses, one after the other.
    for _ in 0..8 {
        let container = network.container(&Spec::new().argv(["true"])).unwrap();
        container.main().unwrap().wait(PATIENCE).unwrap();
    }
    until("they have left", || network.members().unwrap().is_empty());
    network.close(Some(Duration::MAX)).unwrap();
    let network = self::network();
    on(&network);
    thread::scope(|scope| {
        let all = [(); 4].map(|()| scope.spawn(|| network.close(PATIENCE).unwrap()));
        all.into_iter().for_each(|one| one.join().unwrap());
        assert!(!network.is_running());
    });
}

#[test]
fn what_a_device_is_can_be_said() {
    let network = Network::start(&NetworkSpec::new().subnet("10.1.2.0/29").mtu(9000)).unwrap();
    let device = Attachment::network(network.name())
        .interface("lan")
        .address("10.1.2.5".parse::<IpAddr>().unwrap())
        .mac([2, 0, 0, 0, 0, 9]);
    let container = network.container(&Spec::new().net(Net::Attached(vec![device]))).unwrap();
    let direct =
        Spec::new().net(Net::Attached(vec![Attachment::network(network.name())])).init(false).argv(["sleep", "60"]);
    let direct = network.container(&direct).unwrap();
    assert_eq!(sh_in(&direct, "cat /proc/sys/net/ipv6/conf/eth0/accept_ra").trim(), "0");
    direct.close(PATIENCE).unwrap();
    let seen = sh_in(&container, "cat /sys/class/net/lan/address /sys/class/net/lan/mtu /sys/class/net/lan/operstate");
    assert_eq!(seen, "02:00:00:00:00:09\n9000\nup\n");
    assert_eq!(addresses(&container), ["10.1.2.5".parse::<IpAddr>().unwrap()]);
    let info: Value = serde_json::from_str(&network.info_json()).unwrap();
    assert_eq!(info["members"][0]["addresses"][0], "10.1.2.5");
    assert_eq!(info["members"][0]["container"], container.id());
    container.close(PATIENCE).unwrap();
    assert_eq!(network.members().unwrap(), []);
}

#[test]
fn addresses_that_cannot_be_had() {
    let network = Network::start(&NetworkSpec::new().name("crowd").subnet("10.1.2.0/29")).unwrap();
    let with = |address: &str| {
        let one = Attachment::network("crowd").address(address.parse::<IpAddr>().unwrap());
        Container::start(&Spec::new().net(Net::Attached(vec![one])))
    };
    let held = with("10.1.2.3").unwrap();
    failed(with("10.1.2.3"), ErrorKind::AlreadyExists, "net.addresses");
    failed(with("10.1.3.3"), ErrorKind::InvalidSpec, "net.addresses");
    failed(with("10.1.2.1"), ErrorKind::InvalidSpec, "net.addresses");
    failed(with("10.1.2.7"), ErrorKind::InvalidSpec, "net.addresses");
    let mac = Net::Attached(vec![Attachment::network("crowd").mac([2, 0, 10, 1, 2, 3])]);
    failed(Container::start(&Spec::new().net(mac)), ErrorKind::AlreadyExists, "net.mac");
    let others: Vec<Container> = (0..4).map(|_| on(&network)).collect();
    failed(network.container(&Spec::new()), ErrorKind::Exhausted, "net");
    held.close(PATIENCE).unwrap();
    assert_eq!(address(&on(&network)).to_string(), "10.1.2.3");
    others.iter().for_each(|one| one.close(PATIENCE).unwrap());
    failed(Network::start(&NetworkSpec::new().name("crowd")), ErrorKind::AlreadyExists, "name");
    let unknown = Spec::new().net(Net::Attached(vec![Attachment::network("nowhere")]));
    failed(Container::start(&unknown), ErrorKind::NotFound, "net");
    failed(network.container(&unknown), ErrorKind::InvalidSpec, "net");
    failed(Network::by_name("nowhere"), ErrorKind::NotFound, "name");
    assert_eq!(Network::by_name("crowd").unwrap().members().unwrap().len(), 1);
    // A start that fails gives back what it had.
    let missing = Spec::new().argv(["/no/such/program"]);
    failed(network.container(&missing), ErrorKind::NotFound, "argv[0]");
}

#[test]
fn a_cut_and_its_end() {
    let network = network();
    let [one, two, three] = [(); 3].map(|()| on(&network));
    let here = address(&one);
    let _service = listen(&one, here);
    assert!(reaches(&two, here) && reaches(&three, here));
    network.partition(&[&one], &[&two]).unwrap();
    assert!(is_cut_off(&two, here), "through the cut");
    assert!(reaches(&three, here), "who is on no side");
    for _ in 0..600 {
        network.partition(&[&one, &two], &[&three]).unwrap();
    }
    assert!(is_cut_off(&three, here) && is_cut_off(&two, here));
    let late = on(&network);
    assert!(reaches(&late, here), "who comes later");
    network.heal().unwrap();
    assert!(reaches(&two, here) && reaches(&three, here));
    network.heal().unwrap();

    failed(network.partition(&[], &[&two]), ErrorKind::InvalidArgument, "one");
    failed(network.partition(&[&one], &[&two, &one]), ErrorKind::InvalidArgument, "other");
    let stranger = Container::start(&Spec::new()).unwrap();
    failed(network.partition(&[&one], &[&stranger]), ErrorKind::NotFound, "other");
    // Who leaves takes its part of the cut along.
    network.partition(&[&one], &[&two]).unwrap();
    two.close(PATIENCE).unwrap();
    network.heal().unwrap();
    assert!(reaches(&three, here));
}

/// A frame of Ethernet with a datagram in it, as the sender wants it.
fn frame(to: [u8; 6], from: [u8; 6], source: IpAddr, destination: IpAddr) -> Vec<u8> {
    let (IpAddr::V4(source), IpAddr::V4(destination)) = (source, destination) else { panic!("IPv4") };
    let data = b"spoofed";
    let length = |more: u16| (more + data.len() as u16).to_be_bytes();
    let mut ip = [0x45, 0, length(28)[0], length(28)[1], 0, 0, 0, 0, 64, 17, 0, 0].to_vec();
    ip.extend(source.octets().into_iter().chain(destination.octets()));
    let sum: u32 = ip.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1])).sum();
    let sum = !((sum & 0xffff) + (sum >> 16)) as u16;
    ip[10..12].copy_from_slice(&sum.to_be_bytes());
    // Without a checksum, which is fine for IPv4.
    let udp = [&53u16.to_be_bytes()[..], &53u16.to_be_bytes(), &length(8), &[0, 0]].concat();
    [&to[..], &from, &[8, 0], &ip, &udp, data].concat()
}

/// ARP's answer that an address is at this device.
fn arp_reply(to: [u8; 6], from: [u8; 6], whose: IpAddr, asks: IpAddr) -> Vec<u8> {
    let (IpAddr::V4(whose), IpAddr::V4(asks)) = (whose, asks) else { panic!("IPv4") };
    let front = [0, 1, 8, 0, 6, 4, 0, 2];
    [&to[..], &from, &[8, 6], &front, &from, &whose.octets(), &to, &asks.octets()].concat()
}

/// A neighbour advertisement (RFC 4861, 4.4) with the override flag: an address is at this device.
fn advertisement(to: [u8; 6], from: [u8; 6], whose: std::net::Ipv6Addr, asks: std::net::Ipv6Addr) -> Vec<u8> {
    let [a, b, c, d, e, f] = from;
    let source = std::net::Ipv6Addr::from([0xfe, 0x80, 0, 0, 0, 0, 0, 0, a ^ 2, b, c, 0xff, 0xfe, d, e, f]);
    let mut message = [&[136, 0, 0, 0, 0x60, 0, 0, 0][..], &whose.octets(), &[2, 1], &from].concat();
    let length = (message.len() as u32).to_be_bytes();
    let pseudo = [&source.octets()[..], &asks.octets(), &length, &[0, 0, 0, 58], &message].concat();
    let sum: u32 = pseudo.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1])).sum();
    let sum = (sum & 0xffff) + (sum >> 16);
    message[2..4].copy_from_slice(&(!((sum & 0xffff) + (sum >> 16)) as u16).to_be_bytes());
    let front = [0x60, 0, 0, 0, length[2], length[3], 58, 255];
    [&to[..], &from, &[0x86, 0xdd], &front, &source.octets(), &asks.octets(), &message].concat()
}

#[test]
fn nobody_sends_from_an_address_of_another() {
    let network = network();
    let [victim, friend, spoofer] = [(); 3].map(|()| on(&network));
    let macs = [&victim, &friend, &spoofer].map(|one| one.addresses().unwrap()[0].mac.unwrap());
    let receiver = udp(&victim, address(&victim));
    receiver.set_read_timeout(Some(*MOMENT)).unwrap();
    let kind = libc::SOCK_RAW;
    let protocol = i32::from((libc::ETH_P_ALL as u16).to_be());
    let raw = spoofer.socket(libc::AF_PACKET, kind, protocol).unwrap();
    // SAFETY: all zeroes is a valid address.
    let mut device: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    let index = sh_in(&spoofer, "cat /sys/class/net/eth0/ifindex").trim().parse().unwrap();
    (device.sll_family, device.sll_ifindex) = (libc::AF_PACKET as u16, index);
    let send = |frame: &[u8]| {
        let size = size_of_val(&device) as libc::socklen_t;
        // SAFETY: the frame and its length, an address and its.
        let sent = unsafe {
            let at = (&raw const device).cast();
            libc::sendto(std::os::fd::AsRawFd::as_raw_fd(&raw), frame.as_ptr().cast(), frame.len(), 0, at, size)
        };
        assert_eq!(sent, frame.len() as isize, "{}", std::io::Error::last_os_error());
    };
    let mut buffer = [0; 16];
    send(&frame(macs[0], macs[2], address(&spoofer), address(&victim)));
    assert_eq!(receiver.recv_from(&mut buffer).expect("its own").1.ip(), address(&spoofer));
    send(&frame(macs[0], macs[2], address(&friend), address(&victim)));
    receiver.recv_from(&mut buffer).expect_err("another's address of IP");
    send(&frame(macs[0], macs[1], address(&spoofer), address(&victim)));
    receiver.recv_from(&mut buffer).expect_err("another's address of the device");
    // With tags in front, which the receiver's kernel takes away, it would be no packet of IP to who looks at the kind of frame only.
    let own = frame(macs[0], macs[2], address(&friend), address(&victim));
    let tagged = |kind: u16, tags: usize| {
        let tag = [&kind.to_be_bytes()[..], &[0, 0]].concat();
        [&own[..12], &tag.repeat(tags), &own[12..]].concat()
    };
    for (kind, tags) in [(0x8100, 1), (0x8100, 2), (0x8100, 3), (0x88a8, 1), (0x88a8, 2)] {
        send(&tagged(kind, tags));
        receiver.recv_from(&mut buffer).expect_err("another's address behind tags");
    }
    // What it says of others is not believed: that the friend's addresses are at its own device.
    let neighbours = || sh_in(&victim, "cat /proc/net/arp");
    receiver.send_to(b"who", (address(&friend), 53)).unwrap();
    let mac = |mac: [u8; 6]| mac.map(|byte| format!("{byte:02x}")).join(":");
    until("the victim knows its friend", || neighbours().contains(&mac(macs[1])));
    // A kernel believes no second answer within a second (neigh/locktime), forged or not.
    thread::sleep(Duration::from_millis(1100));
    send(&arp_reply(macs[0], macs[2], address(&friend), address(&victim)));
    if let (Some(IpAddr::V6(to)), Some(IpAddr::V6(of))) = (addresses(&victim).get(1), addresses(&friend).get(1)) {
        let listener = listen(&friend, (*of).into());
        victim.connect(&at((*of).into(), 80), PATIENCE).unwrap();
        send(&advertisement(macs[0], macs[2], *of, *to));
        send(&advertisement(macs[0], macs[2], *of, *to));
        victim.connect(&at((*of).into(), 80), PATIENCE).expect("it still goes to the friend");
        drop(listener);
    }
    assert!(!neighbours().contains(&mac(macs[2])), "{}", neighbours());
    // Nor does it get what is for another.
    let theirs = udp(&friend, address(&friend));
    theirs.send_to(b"still", (address(&victim), 53)).unwrap();
    assert_eq!(receiver.recv_from(&mut buffer).unwrap().1.ip(), address(&friend));
}

#[test]
fn a_link_that_is_down() {
    let network = network();
    let (one, two) = (on(&network), on(&network));
    let here = address(&one);
    let _service = listen(&one, here);
    assert!(reaches(&two, here));
    network.set_link(&one, false).unwrap();
    assert!(is_cut_off(&two, here));
    assert_eq!(sh_in(&one, "cat /sys/class/net/eth0/carrier"), "0\n");
    network.set_link(&one, true).unwrap();
    until("the link is up", || reaches(&two, here));
    let stranger = Container::start(&Spec::new()).unwrap();
    failed(network.set_link(&stranger, false), ErrorKind::NotFound, "container");
}

/// How long a message of so many bytes takes from one to the other.
fn transfer(from: &Container, to: &Container, bytes: usize) -> Duration {
    let there = address(to);
    let service = TcpListener::from(to.listen(&at(there, 81), 1).expect("a listener"));
    let stream = TcpStream::from(from.connect(&at(there, 81), PATIENCE).unwrap());
    let accepted = service.accept().unwrap().0;
    let began = Instant::now();
    thread::scope(|scope| {
        scope.spawn(|| {
            std::io::Write::write_all(&mut &stream, &vec![0; bytes]).unwrap();
            stream.shutdown(std::net::Shutdown::Write).unwrap();
        });
        let got = std::io::copy(&mut &accepted, &mut std::io::sink()).unwrap();
        assert_eq!(got, bytes as u64);
    });
    began.elapsed()
}

#[test]
fn a_rate_each_way() {
    let network = network();
    let (one, two) = (on(&network), on(&network));
    let rate = Shape { rate: Some(1 << 20), ..Shape::default() };
    if let Err(error) = network.shape(&one, &rate, Direction::Out) {
        assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
        assert!(error.hint().is_some_and(|hint| hint.ends_with("CONFIG_NET_SCH_TBF")), "{error}");
        return skip(&error.to_string());
    }
    // A half of a second's worth; what may pass at once is some hundredths of it.
    let bytes = 1 << 19;
    assert!(transfer(&one, &two, bytes) > Duration::from_millis(350), "what it sends has a rate");
    let free = transfer(&two, &one, bytes);
    network.shape(&one, &rate, Direction::Both).unwrap();
    let slow = transfer(&two, &one, bytes);
    assert!(slow > Duration::from_millis(350), "what it receives has a rate");
    assert!(slow > 2 * free, "{slow:?} with it, {free:?} without");
    // Who has all rights over its own devices cannot take it away.
    let mut spec = Spec::new();
    spec.merge_json(r#"{"capabilities": {"add": ["net_admin"]}}"#).unwrap();
    let admin = network.container(&spec).unwrap();
    let before = in_switch(&network);
    match network.shape(&admin, &rate, Direction::Out) {
        Ok(()) => {
            let _ = admin.command("tc").args("qdisc del dev eth0 root".split(' ')).output();
            assert!(transfer(&admin, &two, bytes) > Duration::from_millis(350));
            network.shape(&admin, &Shape { rate: Some(1 << 21), ..rate }, Direction::Out).unwrap();
            assert!(transfer(&admin, &two, bytes) < Duration::from_millis(400), "it is what was said last");
            assert!(before.is_empty() || in_switch(&network).contains("sent"));
            network.shape(&admin, &Shape::default(), Direction::Out).unwrap();
            assert_eq!(in_switch(&network), before);
            network.shape(&admin, &rate, Direction::Out).unwrap();
            admin.close(PATIENCE).unwrap();
            assert!(!in_switch(&network).contains("sent1003"), "the device that it waited behind goes with it");
        }
        Err(error) => {
            assert_eq!((error.kind(), error.field()), (ErrorKind::Unsupported, Some("direction")), "{error}");
            assert!(error.hint().is_some_and(|hint| hint.contains("CONFIG_IFB")), "{error}");
        }
    }
    network.shape(&one, &Shape::default(), Direction::Both).unwrap();
    assert!(transfer(&two, &one, bytes) < slow);
    failed(network.shape(&one, &Shape { loss: 2.0, ..rate }, Direction::In), ErrorKind::InvalidArgument, "loss");
}

#[test]
fn delay_and_loss() {
    let network = network();
    let (one, two) = (on(&network), on(&network));
    let here = address(&one);
    let _service = listen(&one, here);
    let delay = Shape { delay: Duration::from_millis(60), ..Shape::default() };
    if let Err(error) = network.shape(&one, &delay, Direction::Both) {
        assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
        assert!(error.hint().is_some_and(|hint| hint.ends_with("CONFIG_NET_SCH_NETEM")), "{error}");
        return skip(&error.to_string());
    }
    let began = Instant::now();
    two.connect(&at(here, 80), PATIENCE).unwrap();
    assert!(began.elapsed() >= Duration::from_millis(120), "there and back: {:?}", began.elapsed());
    network.shape(&one, &Shape { loss: 1.0, ..Shape::default() }, Direction::In).unwrap();
    assert!(is_cut_off(&two, here));
    // What is not said again does not stay.
    network.shape(&one, &Shape { rate: Some(50_000), corrupt: 1.0, ..delay }, Direction::Both).unwrap();
    network.shape(&one, &delay, Direction::Both).unwrap();
    assert!(transfer(&two, &one, 1 << 20) < Duration::from_secs(10), "without the rate of before");
    network.shape(&one, &Shape::default(), Direction::Both).unwrap();
    assert!(reaches(&two, here));
}

/// The numbers of a hundred datagrams as they came, and those that came twice.
fn came(from: &UdpSocket, to: &UdpSocket, there: IpAddr) -> (Vec<u8>, usize) {
    const ALL: u8 = 100;
    for number in 0..ALL {
        from.send_to(&[number], (there, 53)).expect("sent");
    }
    to.set_read_timeout(Some(*MOMENT)).expect("a timeout");
    let mut byte = [0];
    let all: Vec<u8> = std::iter::from_fn(|| to.recv(&mut byte).ok().map(|_| byte[0])).collect();
    let once = |at: &usize| !all[..*at].contains(&all[*at]);
    let first: Vec<u8> = (0..all.len()).filter(once).map(|at| all[at]).collect();
    let again = all.len() - first.len();
    (first, again)
}

#[test]
fn duplicates_and_disorder() {
    let network = network();
    let (one, two) = (on(&network), on(&network));
    let there = address(&one);
    let (to, from) = (udp(&one, there), udp(&two, address(&two)));
    let twice = Shape { duplicate: 1.0, ..Shape::default() };
    if let Err(error) = network.shape(&one, &twice, Direction::In) {
        assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
        return skip(&error.to_string());
    }
    let in_order: Vec<u8> = (0..100).collect();
    assert_eq!(came(&from, &to, there), (in_order.clone(), 100));
    let delay = Duration::from_millis(40);
    let passes = Shape { delay, reorder: 0.5, ..Shape::default() };
    let differs = Shape { delay, jitter: delay, ..Shape::default() };
    // What the container receives, and what it sends.
    for (shape, direction) in [(&passes, Direction::In), (&differs, Direction::In), (&differs, Direction::Out)] {
        let (sends, receives, at) =
            if direction == Direction::In { (&from, &to, there) } else { (&to, &from, address(&two)) };
        network.shape(&one, shape, direction).unwrap();
        let (mut order, again) = came(sends, receives, at);
        assert!(order != in_order, "{shape:?} {direction:?} changes nothing");
        order.sort();
        assert_eq!((order, again), (in_order.clone(), 0), "{shape:?} {direction:?}");
        network.shape(&one, &Shape::default(), Direction::Both).unwrap();
    }
    assert_eq!(came(&from, &to, there), (in_order, 0));
}

#[test]
fn a_pod_on_a_network_that_was_made_for_it() {
    let network = network();
    let device = Net::Attached(vec![Attachment::network(network.name()).alias("shop")]);
    let pod = Pod::start(&Spec::new().net(device).hostname("market"), Pod::SHARE).unwrap();
    let (server, helper) = (pod.container(&Spec::new()).unwrap(), pod.container(&Spec::new()).unwrap());
    let client = on(&network);
    let _service = listen(&server, address(&helper));
    assert!(reaches(&client, address(&server)));
    assert_eq!(known(&client, "shop"), known(&server, "shop"));
    assert!(!known(&server, "shop").is_empty());
    assert_eq!(known(&server, "market"), known(&client, "market"));
    // Where the network is not shared, each has its own. (An ordinary user's pod may be another keeper's than the network.)
    if is_root() {
        let apart = Pod::start(&Spec::new(), &[ringfence::spec::NamespaceKind::Ipc]).unwrap();
        let device = Net::Attached(vec![Attachment::network(network.name())]);
        let alone = apart.container(&Spec::new().net(device)).unwrap();
        assert!(reaches(&alone, address(&server)));
        apart.close(PATIENCE).unwrap();
    }
    let named = pod.container(&Spec::new().host("outside", "192.0.2.7")).unwrap();
    assert_eq!(known(&named, "outside"), ["192.0.2.7"]);
    assert_eq!(known(&named, "shop"), known(&server, "shop"));
    network.set_link(&helper, false).unwrap();
    assert!(is_cut_off(&client, address(&server)));
    pod.close(PATIENCE).unwrap();
    assert_eq!(network.members().unwrap().len(), 1);
}

/// What there is in a switch's network namespace: root looks.
fn in_switch(network: &Network) -> String {
    if !is_root() {
        return String::new();
    }
    let info: Value = serde_json::from_str(&network.info_json()).unwrap();
    let namespace = std::fs::File::open(format!("/proc/{}/ns/net", info["pid"])).expect("its namespace");
    let look = move || {
        nix::sched::setns(&namespace, nix::sched::CloneFlags::CLONE_NEWNET).expect("setns");
        let shown = |command: &str| {
            let mut words = command.split(' ');
            let output = std::process::Command::new(words.next().expect("a program")).args(words).output();
            let output = output.expect("it is part of the set-up");
            assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
            String::from_utf8(output.stdout).expect("text")
        };
        let all = [
            "ip -o link show",
            "ip -o address show",
            "ip route show table all",
            "ip -6 route show table all",
            "bridge fdb show",
            "nft list ruleset",
        ];
        all.map(shown).join("\n")
    };
    thread::spawn(look).join().expect("a look")
}

#[test]
fn many_come_and_go_at_once() {
    let network = Network::start(&NetworkSpec::new().subnet("10.1.2.0/26").subnet("fd00:1::/64")).expect("a network");
    let behind = |name: &str| {
        let rules = ringfence::spec::Firewall::closed();
        let rules = ["h0", "h1"]
            .iter()
            .fold(rules, |rules, name| rules.rule(ringfence::spec::FirewallRule::allow_in().peer_name(*name)));
        Net::Attached(vec![Attachment::network(network.name()).alias(name).firewall(rules)])
    };
    network.container(&Spec::new().net(behind("first"))).unwrap().close(PATIENCE).unwrap();
    // The kernel takes devices away when it takes a network namespace away.
    until("its device is gone", || !in_switch(&network).contains("port1"));
    let before = in_switch(&network);
    // Addresses come round many times; who has one gives it back.
    let emulated = std::env::var("RINGFENCE_TEST_TIER").is_ok_and(|tier| tier == "vm");
    let rounds = if emulated || !is_root() { 10 } else { 63 };
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for round in 0..rounds {
                    let name = format!("h{round}");
                    let spec = Spec::new().hostname(&*name);
                    let spec = if round % 2 == 0 { spec } else { spec.net(behind("odd")) };
                    let container = network.container(&spec).unwrap();
                    assert_eq!(container.addresses().unwrap().len(), 1);
                    container.close(PATIENCE).unwrap();
                }
            });
        }
    });
    assert_eq!(network.members().unwrap(), []);
    until("no device, address, route, rule or element of a set is left", || in_switch(&network) == before);
    // Every address is free.
    let all: Vec<Container> = (2..63)
        .map(|last| {
            let one = Attachment::network(network.name()).address(IpAddr::from([10, 1, 2, last]));
            Container::start(&Spec::new().net(Net::Attached(vec![one]))).unwrap()
        })
        .collect();
    assert!(known(&all[0], "h0").is_empty());
    failed(network.container(&Spec::new()), ErrorKind::Exhausted, "net");
}

#[test]
fn what_happens_to_devices_is_told() {
    let (network, other) = (network(), network());
    let container = on(&network);
    let options = EventOptions { kinds: Some(vec![EventKind::Link, EventKind::Address]), pressure: Vec::new() };
    let events = container.events(&options).unwrap();
    assert_eq!(events.kinds(), [EventKind::Ended, EventKind::Link, EventKind::Address]);
    assert_eq!(events.next(Some(Duration::ZERO)).unwrap(), None, "nothing of before");
    container.attach_net(&Attachment::network(other.name())).unwrap();
    let mut told: Vec<_> = (0..2).map(|_| events.next(PATIENCE).unwrap().expect("an event").kind).collect();
    told.sort();
    assert_eq!(told, [EventKind::Link, EventKind::Address]);
    while events.next(Some(*MOMENT)).unwrap().is_some() {}
    network.set_link(&container, false).unwrap();
    // That nobody else has an IPv6 address may be told only now.
    let mut next = std::iter::repeat_with(|| events.next(PATIENCE).unwrap().expect("its carrier").kind);
    assert_eq!(next.find(|kind| *kind != EventKind::Address), Some(EventKind::Link));
    container.kill().unwrap();
    let last = std::iter::from_fn(|| events.next(PATIENCE).unwrap()).last();
    assert_eq!(last.map(|event| event.kind), Some(EventKind::Ended));
    // They are not among those that are told anyway.
    let plain = on(&network);
    let kinds = plain.events(&EventOptions::default()).unwrap().kinds().to_vec();
    assert!(!kinds.contains(&EventKind::Link), "{kinds:?}");
    let host = Container::start(&Spec::new().net(Net::Host)).unwrap();
    let error = host.events(&options).unwrap_err();
    assert_eq!((error.kind(), error.field()), (ErrorKind::InvalidArgument, Some("kinds[0]")), "{error}");
}

#[test]
fn the_drop_of_a_network_ends_it() {
    let network = network();
    let kept = on(&network);
    let own = Container::start(&Spec::new().net(Net::Attached(vec![Attachment::network(network.name())]))).unwrap();
    assert_eq!(sh_in(&own, "ls /sys/class/net"), "eth0\nlo\n");
    drop(network);
    assert!(!kept.is_running());
    assert!(own.is_running());
    until("its device is gone", || sh_in(&own, "ls /sys/class/net") == "lo\n");
    assert_eq!(own.addresses().unwrap(), []);
}

#[test]
fn a_container_joins_and_leaves_while_it_runs() {
    let (front, back) = (network(), Network::start(&NetworkSpec::new().subnet("10.1.2.0/24")).unwrap());
    let server = front.container(&Spec::new().name("joins-server").hostname("server")).unwrap();
    let late = front.container(&Spec::new().hostname("late").host("outside", "192.0.2.7")).unwrap();
    let on_back = on(&back);
    let told = late.attach_net(&Attachment::network(back.name()).interface("lan").alias("cache")).unwrap();
    assert_eq!((told.interface.as_str(), told.network.as_deref()), ("lan", Some(back.name())));
    assert_eq!(late.addresses().unwrap().last(), Some(&told));
    assert_eq!(addresses(&on_back).len(), told.addresses.len());
    let _listening = [listen(&on_back, address(&on_back)), listen(&late, told.addresses[0])];
    assert!(reaches(&late, address(&on_back)) && reaches(&on_back, told.addresses[0]));
    assert_eq!(known(&on_back, "cache"), shown(&told.addresses));
    // Its file is its own, and has the names of both.
    assert_eq!(known(&late, "server"), shown(&addresses(&server)));
    let of_front = addresses(&late);
    assert_eq!(known(&late, "late").len(), of_front.len() + 1);
    back.set_link(&late, false).unwrap();
    assert!(is_cut_off(&late, address(&on_back)));
    back.set_link(&late, true).unwrap();
    let again = Attachment::network(back.name()).address(told.addresses[0]);
    failed(late.attach_net(&again), ErrorKind::AlreadyExists, "net.network");
    failed(server.attach_net(&again), ErrorKind::AlreadyExists, "net.addresses");
    late.detach_net("lan").unwrap();
    assert!(known(&on_back, "cache").is_empty());
    assert_eq!(known(&late, "late"), shown(&of_front));
    assert!(is_cut_off(&on_back, told.addresses[0]));
    assert!(is_cut_off(&late, address(&on_back)));
    // A pod is one of them, and so is what was started without a network.
    let pod = Pod::start(&Spec::new().hostname("pod"), Pod::SHARE).unwrap();
    let member = pod.container(&Spec::new()).unwrap();
    let of_pod = member.attach_net(&Attachment::network(back.name())).unwrap();
    let _in_pod = listen(&member, of_pod.addresses[0]);
    assert!(reaches(&on_back, of_pod.addresses[0]));
    assert_eq!(known(&on_back, "pod"), shown(&of_pod.addresses));
    pod.close(PATIENCE).unwrap();
    assert!(known(&on_back, "pod").is_empty());
    failed(late.attach_net(&Attachment::network("nowhere")), ErrorKind::NotFound, "net");
    let host = Container::start(&Spec::new().net(Net::Host)).unwrap();
    failed(host.attach_net(&Attachment::network(back.name())), ErrorKind::InvalidArgument, "net");
    back.close(PATIENCE).unwrap();
    failed(late.attach_net(&Attachment::network(back.name())), ErrorKind::NotFound, "net");
}
