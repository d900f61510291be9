//! Published ports: what the relay between the host and a container carries, and what becomes of it.
//!
//! tests/run: timeout=300 vm=root,delegated

use std::fs;
use std::io::{ErrorKind as Io, Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsRawFd;
use std::sync::LazyLock;
use std::thread;
use std::time::Duration;

use common::*;
use ringfence::spec::{NamespaceKind, Port, Protocol};
use ringfence::{Command, Container, ErrorKind, Namespace, Pod, Spec};

#[allow(dead_code, reason = "each test program uses a part of it")]
mod common;

const SERVICE: u16 = 5432;
/// A test that hangs is to say where.
const PATIENCE: Option<Duration> = Some(Duration::from_secs(60));

/// A service in the container; this program itself answers.
fn service(container: &Container, address: &str) -> TcpListener {
    TcpListener::from(container.listen(address, 1024).unwrap())
}

fn client(container: &Container) -> TcpStream {
    reached(container).expect("the published port")
}

/// Where nobody listens inside, the reset may come while this still connects.
fn reached(container: &Container) -> std::io::Result<TcpStream> {
    TcpStream::connect(("127.0.0.1", container.port(SERVICE).unwrap())).map(patient)
}

fn patient(stream: TcpStream) -> TcpStream {
    stream.set_read_timeout(PATIENCE).expect("a timeout");
    stream.set_write_timeout(PATIENCE).expect("a timeout");
    stream
}

/// A connection through the relay: the host's end and the container's.
fn connected(container: &Container, service: &TcpListener) -> (TcpStream, TcpStream) {
    let outside = client(container);
    (outside, patient(service.accept().expect("a client").0))
}

/// As a process that is killed leaves it: with a reset.
fn reset(stream: TcpStream) {
    let linger = libc::linger { l_onoff: 1, l_linger: 0 };
    let size = size_of::<libc::linger>() as u32;
    // SAFETY: a struct linger of the size given, which outlives the call.
    let set = unsafe {
        let value = std::ptr::from_ref(&linger).cast();
        libc::setsockopt(stream.as_raw_fd(), libc::SOL_SOCKET, libc::SO_LINGER, value, size)
    };
    assert_eq!(set, 0);
}

/// What serves the ports of a container: a child of its keeper, in its network.
fn relay_of(container: &Container) -> i32 {
    let info: Value = serde_json::from_str(&container.info_json()).expect("JSON");
    let keeper = &info["keeper_pid"];
    let network = container.namespace(NamespaceKind::Net).unwrap().inode();
    let children = fs::read_to_string(format!("/proc/{keeper}/task/{keeper}/children")).expect("its children");
    let relays = children.split_whitespace().filter(|pid| {
        fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name.trim() == "ringfence-relay")
            && Namespace::of_pid(pid.parse().expect("a pid"), NamespaceKind::Net)
                .is_ok_and(|net| net.inode() == network)
    });
    match relays.collect::<Vec<_>>()[..] {
        [one] => one.parse().expect("a pid"),
        ref other => panic!("not one relay: {other:?}"),
    }
}

#[test]
fn both_ways_and_each_end_by_itself() {
    let container = start(json!({"ports": [SERVICE]}));
    let listener = service(&container, "127.0.0.1:5432");
    let (mut outside, mut inside) = connected(&container, &listener);
    assert_eq!(inside.peer_addr().expect("an address").ip(), IpAddr::from([127, 0, 0, 1]));
    outside.write_all(b"question").expect("write");
    outside.shutdown(Shutdown::Write).expect("shutdown");
    let mut text = String::new();
    inside.read_to_string(&mut text).expect("to the end");
    assert_eq!(text, "question");
    // The other direction lives on.
    inside.write_all(b"answer").expect("write");
    drop(inside);
    text.clear();
    outside.read_to_string(&mut text).expect("to the end");
    assert_eq!(text, "answer");
    // And the other way round.
    let (mut outside, mut inside) = connected(&container, &listener);
    inside.write_all(b"greeting").expect("write");
    inside.shutdown(Shutdown::Write).expect("shutdown");
    text.clear();
    outside.read_to_string(&mut text).expect("to the end");
    assert_eq!(text, "greeting");
    outside.write_all(b"thanks").expect("write");
    drop(outside);
    text.clear();
    inside.read_to_string(&mut text).expect("to the end");
    assert_eq!(text, "thanks");
    container.close(TIMEOUT).unwrap();
}

#[test]
fn a_program_inside_is_reached() {
    let script = "import socket
server = socket.create_server(('', 5432))
while True:
    client = server.accept()[0]
    client.sendall(client.recv(100).upper())
    client.close()";
    let container = start(json!({"ports": ["0:5432/tcp"], "argv": ["python3", "-c", script]}));
    let mut answer = String::new();
    until("the server is up", || {
        answer.clear();
        let Ok(mut outside) = reached(&container) else { return false };
        outside.write_all(b"hello").is_ok() && outside.read_to_string(&mut answer).is_ok() && !answer.is_empty()
    });
    assert_eq!(answer, "HELLO");
    container.close(TIMEOUT).unwrap();
}

#[test]
fn ipv6_outside_and_inside() {
    let container = start(json!({"ports": [{"port": SERVICE, "host": "::1"}, SERVICE]}));
    let ports = container.ports().unwrap();
    assert_eq!((ports[0].host, ports[1].host), ("::1".parse().unwrap(), IpAddr::from([127, 0, 0, 1])));
    for address in ["[::1]:5432", "[::]:5432", "127.0.0.1:5432"] {
        let listener = service(&container, address);
        for port in &ports {
            let mut outside = patient(TcpStream::connect(port.address()).expect("the published port"));
            let mut inside = patient(listener.accept().expect("a client").0);
            outside.write_all(b"x").expect("write");
            let mut byte = [0];
            inside.read_exact(&mut byte).expect("read");
            assert_eq!(&byte, b"x", "{address} by {port}");
        }
    }
    container.close(TIMEOUT).unwrap();
}

#[test]
fn datagrams_find_their_way_back() {
    let container = start(json!({"ports": ["53/udp"]}));
    let port = container.port(53).unwrap();
    assert_eq!(container.ports().unwrap()[0].protocol, Protocol::Udp);
    let clients: Vec<UdpSocket> = (0..3).map(|_| UdpSocket::bind("127.0.0.1:0").expect("a socket")).collect();
    for client in &clients {
        client.set_read_timeout(Some(Duration::from_millis(200))).expect("a timeout");
        client.connect(("127.0.0.1", port)).expect("connect");
    }
    for address in ["127.0.0.1:53", "[::1]:53"] {
        let to: SocketAddr = address.parse().expect("an address");
        let family = if to.is_ipv6() { libc::AF_INET6 } else { libc::AF_INET };
        let socket = container.socket(family, libc::SOCK_DGRAM, 0).unwrap();
        nix::sys::socket::bind(socket.as_raw_fd(), &nix::sys::socket::SockaddrStorage::from(to)).expect("bind");
        let server = UdpSocket::from(socket);
        let echo = thread::spawn(move || {
            let mut data = [0; 65536];
            loop {
                let (n, from) = server.recv_from(&mut data).expect("a datagram");
                if n == 0 {
                    return;
                }
                server.send_to(&data[..n], from).expect("send");
            }
        });
        // Who asked first, before anybody was there, may have been refused: as ever with UDP, one asks again.
        for (i, client) in clients.iter().enumerate() {
            let text = format!("{address} {i}").into_bytes();
            let mut answer = vec![0; 100];
            until("an answer", || {
                let _ = client.send(&text);
                matches!(client.recv(&mut answer), Ok(n) if answer[..n] == text)
            });
        }
        let large = vec![7; 30_000];
        let mut answer = vec![0; 65536];
        until("a large one", || {
            let _ = clients[0].send(&large);
            matches!(clients[0].recv(&mut answer), Ok(n) if answer[..n] == large)
        });
        until("the server has ended", || {
            let _ = clients[0].send(&[]);
            thread::sleep(Duration::from_millis(10));
            echo.is_finished()
        });
        echo.join().expect("the server");
    }
    container.close(TIMEOUT).unwrap();
}

/// Who asks too early is refused, and the relay tries the other address: where there is none, it has to come back.
#[test]
fn datagrams_before_the_service_where_there_is_no_ipv6() {
    let container = start(json!({"ports": ["53/udp"], "sysctls": {"net.ipv6.conf.all.disable_ipv6": "1"}}));
    let port = container.port(53).unwrap();
    let clients: Vec<UdpSocket> = (0..2).map(|_| UdpSocket::bind("127.0.0.1:0").expect("a socket")).collect();
    for client in &clients {
        client.set_read_timeout(Some(Duration::from_millis(200))).expect("a timeout");
        client.connect(("127.0.0.1", port)).expect("connect");
        for _ in 0..2 {
            client.send(b"early").expect("send");
        }
    }
    let socket = container.socket(libc::AF_INET, libc::SOCK_DGRAM, 0).unwrap();
    let to: SocketAddr = "127.0.0.1:53".parse().expect("an address");
    nix::sys::socket::bind(socket.as_raw_fd(), &nix::sys::socket::SockaddrStorage::from(to)).expect("bind");
    let server = UdpSocket::from(socket);
    server.set_read_timeout(Some(Duration::from_millis(200))).expect("a timeout");
    for client in &clients {
        until("an answer", || {
            let _ = client.send(b"question");
            let mut data = [0; 16];
            if let Ok((n, from)) = server.recv_from(&mut data) {
                server.send_to(&data[..n], from).expect("send");
            }
            matches!(client.recv(&mut data), Ok(8) if &data[..8] == b"question")
        });
    }
    container.close(TIMEOUT).unwrap();
}

#[test]
fn urgent_data_holds_nothing_up() {
    let container = start(json!({"ports": [SERVICE]}));
    let listener = service(&container, "127.0.0.1:5432");
    let (mut outside, mut inside) = connected(&container, &listener);
    outside.write_all(b"before").expect("write");
    // SAFETY: one byte, which outlives the call.
    let sent = unsafe { libc::send(outside.as_raw_fd(), b"!".as_ptr().cast(), 1, libc::MSG_OOB) };
    assert_eq!(sent, 1);
    outside.write_all(b"after").expect("write");
    outside.shutdown(Shutdown::Write).expect("shutdown");
    let mut text = String::new();
    inside.read_to_string(&mut text).expect("to the end");
    // The byte itself is out of band.
    assert_eq!(text.replace('!', ""), "beforeafter");
    container.close(TIMEOUT).unwrap();
}

#[test]
fn ports_of_the_host_are_given_or_found() {
    // One that is free now.
    let number = TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address").port();
    let container = start(json!({"ports": {"5432": number, "53/udp": "127.0.0.1:0", "80": null}}));
    assert_eq!(container.port(SERVICE).unwrap(), number);
    let all: Value = serde_json::from_str(&container.ports_json().unwrap()).expect("JSON");
    let info: Value = serde_json::from_str(&container.info_json()).expect("JSON");
    assert_eq!(info["ports"], all);
    assert!(all.as_array().expect("a list").iter().all(|port| port["host_port"].as_u64() > Some(0)), "{all}");
    let missing = container.port(81).unwrap_err();
    assert_eq!((missing.kind(), missing.field()), (ErrorKind::NotFound, Some("port")), "{missing}");
    assert!(missing.hint().is_some_and(|hint| hint.contains(&format!(":{number}:5432"))), "{missing}");
    // Taken.
    let taken = refused(json!({"argv": ["true"], "ports": [[81], SERVICE]}));
    assert_eq!((taken.kind(), taken.field()), (ErrorKind::InvalidSpec, Some("ports[0]")), "{taken}");
    let taken = refused(json!({"argv": ["true"], "ports": [81, format!("{number}:5432")]}));
    assert_eq!((taken.kind(), taken.errno()), (ErrorKind::AlreadyExists, libc::EADDRINUSE), "{taken}");
    assert_eq!(taken.field(), Some("ports[1]"), "{taken}");
    assert!(taken.to_string().contains(&format!("127.0.0.1:{number}")), "{taken}");
    container.close(TIMEOUT).unwrap();
    // And free again at once.
    let again = start(json!({"ports": [(format!("{number}:5432"))]}));
    again.close(TIMEOUT).unwrap();
    let elsewhere = refused(json!({"argv": ["true"], "ports": ["203.0.113.7::80"]}));
    assert_eq!((elsewhere.errno(), elsewhere.field()), (libc::EADDRNOTAVAIL, Some("ports[0]")), "{elsewhere}");
    let most = (1..=128).map(Port::new);
    assert_eq!(ringfence::run(&Spec::new().argv(["true"]).ports(most), None, TIMEOUT).unwrap().status.code, Some(0));
    let closed = again.port(SERVICE).unwrap_err();
    assert_eq!(closed.kind(), ErrorKind::Closed, "{closed}");
}

#[test]
fn nobody_listens_inside() {
    let container = start(json!({"ports": [SERVICE]}));
    let error = reached(&container).and_then(|mut outside| outside.read(&mut [0])).expect_err("nobody is there");
    assert_eq!(error.kind(), Io::ConnectionReset, "{error}");
    let listener = service(&container, "127.0.0.1:5432");
    let (mut outside, mut inside) = connected(&container, &listener);
    inside.write_all(b"x").expect("write");
    outside.read_exact(&mut [0]).expect("now somebody is");
    container.close(TIMEOUT).unwrap();
}

#[test]
fn a_reset_is_passed_on() {
    let container = start(json!({"ports": [SERVICE]}));
    let listener = service(&container, "127.0.0.1:5432");
    for _ in 0..3 {
        let (mut outside, inside) = connected(&container, &listener);
        reset(inside);
        let error = outside.read(&mut [0]).expect_err("a reset");
        assert_eq!(error.kind(), Io::ConnectionReset, "{error}");
        let (outside, mut inside) = connected(&container, &listener);
        reset(outside);
        let error = inside.read(&mut [0]).expect_err("a reset");
        assert_eq!(error.kind(), Io::ConnectionReset, "{error}");
    }
    container.close(TIMEOUT).unwrap();
}

/// Data is made and compared in blocks of this size.
const BLOCK: usize = 1 << 16;

/// Each tells its number.
fn block(number: usize) -> Vec<u8> {
    static BYTES: LazyLock<Vec<u8>> = LazyLock::new(|| (0..BLOCK).map(|i| (i / 8) as u8).collect());
    let mut block = BYTES.clone();
    block[..8].copy_from_slice(&number.to_ne_bytes());
    block
}

fn send(mut to: TcpStream, total: usize) {
    for number in 0..total.div_ceil(BLOCK) {
        to.write_all(&block(number)[..(total - number * BLOCK).min(BLOCK)]).expect("write");
    }
    to.shutdown(Shutdown::Write).expect("shutdown");
}

fn receive(mut from: TcpStream, total: usize) {
    for number in 0..total.div_ceil(BLOCK) {
        let mut data = vec![0; (total - number * BLOCK).min(BLOCK)];
        from.read_exact(&mut data).expect("read");
        assert!(data == block(number)[..data.len()], "other bytes than were sent, in block {number}");
    }
    assert_eq!(from.read(&mut [0]).expect("read"), 0, "more than was sent");
}

fn in_the_guest() -> bool {
    std::env::var("RINGFENCE_TEST_TIER").as_deref() == Ok("vm")
}

#[test]
fn a_reader_that_stops_stops_its_writer_alone() {
    let container = start(json!({"ports": [SERVICE]}));
    let listener = service(&container, "127.0.0.1:5432");
    let mut stopped = Vec::new();
    for _ in 0..if in_the_guest() { 2 } else { 8 } {
        let (mut outside, inside) = connected(&container, &listener);
        outside.set_write_timeout(Some(Duration::from_millis(100))).expect("a timeout");
        let mut sent = 0;
        // As much as the sockets on the way and a pipe take.
        while let Ok(n) = outside.write(&block(sent / BLOCK)[sent % BLOCK..]) {
            sent += n;
            assert!(sent < 64 << 20, "nothing holds up a writer whose reader has stopped");
        }
        stopped.push((outside, inside, sent));
    }
    // Others are served meanwhile.
    let (mut outside, mut inside) = connected(&container, &listener);
    inside.write_all(b"x").expect("write");
    outside.read_exact(&mut [0]).expect("read");
    // Nothing is lost when they go on.
    for (outside, inside, sent) in stopped {
        outside.shutdown(Shutdown::Write).expect("shutdown");
        receive(inside, sent);
    }
    container.close(TIMEOUT).unwrap();
}

#[test]
fn much_in_both_directions_at_once() {
    let total = if in_the_guest() { 2 << 20 } else { 16 << 20 };
    let container = start(json!({"ports": [SERVICE]}));
    let listener = service(&container, "127.0.0.1:5432");
    let (outside, inside) = connected(&container, &listener);
    let copy = |stream: &TcpStream| stream.try_clone().expect("a copy");
    thread::scope(|scope| {
        scope.spawn(|| send(copy(&outside), total));
        scope.spawn(|| send(copy(&inside), total));
        scope.spawn(|| receive(copy(&outside), total));
        receive(copy(&inside), total);
    });
    container.close(TIMEOUT).unwrap();
}

#[test]
fn many_connections_at_once() {
    let container = start(json!({"ports": [SERVICE]}));
    let listener = service(&container, "127.0.0.1:5432");
    let mut pairs: Vec<_> = (0..300).map(|_| connected(&container, &listener)).collect();
    for round in 0..2 {
        for (i, (outside, inside)) in pairs.iter_mut().enumerate() {
            let (from, to) = if (i + round) % 2 == 0 { (outside, inside) } else { (inside, outside) };
            from.write_all(&(i as u32).to_le_bytes()).expect("write");
            let mut number = [0; 4];
            to.read_exact(&mut number).expect("read");
            assert_eq!(u32::from_le_bytes(number), i as u32);
        }
    }
    // What is closed makes room.
    drop(pairs);
    for _ in 0..300 {
        let (outside, mut inside) = connected(&container, &listener);
        drop(outside);
        assert_eq!(inside.read(&mut [0]).expect("read"), 0);
    }
    container.close(TIMEOUT).unwrap();
}

#[test]
fn the_relay_has_no_rights_and_goes_with_its_container() {
    let container = start(json!({"ports": [SERVICE]}));
    let listener = service(&container, "127.0.0.1:5432");
    let (mut outside, _inside) = connected(&container, &listener);
    let relay = relay_of(&container);
    let status = fs::read_to_string(format!("/proc/{relay}/status")).expect("its status");
    for (key, value) in
        [("CapEff", "0000000000000000"), ("CapPrm", "0000000000000000"), ("NoNewPrivs", "1"), ("Seccomp", "2")]
    {
        assert_eq!(status_line(&status, key), value, "{key}");
    }
    if is_root() {
        for fd in fs::read_dir(format!("/proc/{relay}/fd")).expect("its descriptors") {
            let target = fs::read_link(fd.expect("an entry").path()).expect("a link").to_string_lossy().into_owned();
            let fine = ["socket:", "pipe:", "anon_inode:[eventpoll]", "/dev/null"];
            assert!(fine.iter().any(|kind| target.starts_with(kind)), "the relay has {target}");
        }
    }
    if can_limit() {
        let group = fs::read_to_string(format!("/proc/{relay}/cgroup")).expect("its group");
        let info: Value = serde_json::from_str(&container.info_json()).expect("JSON");
        let own = format!("/{}/relay", info["cgroup"]["name"].as_str().expect("a name"));
        assert!(group.lines().any(|line| line.ends_with(&own)), "{own} in {group}");
    }
    assert!(container.processes().unwrap().iter().all(|process| process.name != "ringfence-relay"));
    let port = container.port(SERVICE).unwrap();
    container.close(TIMEOUT).unwrap();
    assert!(!fs::exists(format!("/proc/{relay}/comm")).expect("/proc"), "the relay is left");
    assert!(outside.read(&mut [0]).map_or(true, |n| n == 0));
    let error = TcpStream::connect(("127.0.0.1", port)).expect_err("nobody is there any more");
    assert_eq!(error.kind(), Io::ConnectionRefused, "{error}");
}

#[test]
fn a_killed_relay_takes_its_connections_and_nothing_else() {
    let container = start(json!({"ports": [SERVICE]}));
    let listener = service(&container, "127.0.0.1:5432");
    let (mut outside, mut inside) = connected(&container, &listener);
    let relay = relay_of(&container);
    // SAFETY: no pointers.
    let killed = unsafe { libc::kill(relay, libc::SIGKILL) };
    // An ordinary user's relay has an id of the keeper's namespace.
    assert_eq!(killed, 0, "{}", std::io::Error::last_os_error());
    assert!(outside.read(&mut [0]).map_or(true, |n| n == 0));
    assert!(inside.read(&mut [0]).map_or(true, |n| n == 0));
    assert_eq!(sh_in(&container, "echo alive"), "alive\n");
    container.close(TIMEOUT).unwrap();
}

/// A service that answers each client, and ends when one tells it to.
const ANSWERS: &str = "import socket, sys
server = socket.create_server(('127.0.0.1', 5432))
clients = []
while True:
    clients.append(server.accept()[0])
    word = clients[-1].recv(100)
    if word == b'end':
        sys.exit(7)
    clients[-1].sendall(word.upper())";

/// A client of that service, answered once.
fn answered(port: u16) -> TcpStream {
    let mut stream = None;
    until("the service answers", || {
        let Ok(mut client) = TcpStream::connect(("127.0.0.1", port)).map(patient) else { return false };
        let mut answer = [0; 5];
        let fine = client.write_all(b"hello").is_ok() && client.read_exact(&mut answer).is_ok();
        stream = fine.then_some(client);
        fine && &answer == b"HELLO"
    });
    stream.expect("a client")
}

/// Its peer is gone: an end, or a reset.
fn is_over(mut stream: &TcpStream) -> bool {
    match stream.read(&mut [0]) {
        Ok(n) => n == 0,
        Err(error) => error.kind() == Io::ConnectionReset,
    }
}

fn refused_at(port: u16) -> bool {
    TcpStream::connect(("127.0.0.1", port)).is_err_and(|error| error.kind() == Io::ConnectionRefused)
}

fn is_there(pid: i32) -> bool {
    fs::exists(format!("/proc/{pid}/comm")).expect("/proc")
}

#[test]
fn a_killed_service_or_client_takes_its_connections_and_nothing_else() {
    let container = start(json!({"ports": [SERVICE, 81]}));
    let port = container.port(SERVICE).unwrap();
    let other = TcpListener::from(container.listen("127.0.0.1:81", 8).unwrap());
    let mut beside = patient(TcpStream::connect(("127.0.0.1", container.port(81).unwrap())).expect("another port"));
    let mut beside_inside = patient(other.accept().expect("a client").0);
    let mut command = Command::new("python3");
    command.args(["-c", ANSWERS]);
    let running = container.spawn(&command).unwrap();
    let clients: Vec<TcpStream> = (0..3).map(|_| answered(port)).collect();
    running.kill(libc::SIGKILL).unwrap();
    assert_eq!(running.wait(TIMEOUT).unwrap().unwrap().signal, Some(libc::SIGKILL));
    assert!(clients.iter().all(is_over));
    // The next one has the port at once.
    let listener = service(&container, "127.0.0.1:5432");
    let script = "import socket, sys, time
client = socket.create_connection(('127.0.0.1', int(sys.argv[1])))
client.sendall(b'here')
time.sleep(1000)";
    let mut client = std::process::Command::new("python3").args(["-c", script, &port.to_string()]).spawn().unwrap();
    let mut inside = patient(listener.accept().expect("a client").0);
    inside.read_exact(&mut [0; 4]).expect("what it said");
    client.kill().unwrap();
    client.wait().unwrap();
    assert!(is_over(&inside));
    beside.write_all(b"x").expect("write");
    beside_inside.read_exact(&mut [0]).expect("the other service is served on");
    container.close(TIMEOUT).unwrap();
}

#[test]
fn a_container_that_ends_by_itself_leaves_no_connection() {
    let container = start(json!({"argv": ["python3", "-c", ANSWERS], "ports": [SERVICE]}));
    let port = container.port(SERVICE).unwrap();
    let relay = relay_of(&container);
    let clients: Vec<TcpStream> = (0..3).map(|_| answered(port)).collect();
    TcpStream::connect(("127.0.0.1", port)).and_then(|mut last| last.write_all(b"end")).expect("the published port");
    assert!(container.wait_end(TIMEOUT).unwrap());
    assert_eq!(container.main().unwrap().wait(TIMEOUT).unwrap().unwrap().code, Some(7));
    assert!(clients.iter().all(is_over));
    until("the port is free", || refused_at(port) && !is_there(relay));
    container.close(TIMEOUT).unwrap();
}

/// Says whether this is the test below again, in a program of its own.
const VICTIM: &str = "RINGFENCE_TEST_PORTS";

#[test]
fn a_killed_program_leaves_no_connection() {
    if std::env::var_os(VICTIM).is_some() {
        let container = start(json!({"argv": ["python3", "-c", ANSWERS], "ports": [SERVICE]}));
        let (port, pid) = (container.port(SERVICE).unwrap(), container.pid());
        println!("\nserves {port} {pid} {}", relay_of(&container));
        return thread::sleep(Duration::from_secs(1000));
    }
    let mut program = std::process::Command::new(std::env::current_exe().unwrap());
    program.args(["--exact", "a_killed_program_leaves_no_connection", "--nocapture"]).env(VICTIM, "1");
    let mut program = program.stdout(std::process::Stdio::piped()).spawn().unwrap();
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(program.stdout.take().unwrap()));
    let told = lines.find_map(|line| line.unwrap().strip_prefix("serves ").map(str::to_owned)).expect("its port");
    let [port, pid, relay] = told.split(' ').map(|n| n.parse().unwrap()).collect::<Vec<i32>>()[..] else {
        panic!("{told}")
    };
    let clients: Vec<TcpStream> = (0..3).map(|_| answered(port as u16)).collect();
    program.kill().unwrap();
    program.wait().unwrap();
    assert!(clients.iter().all(is_over));
    until("nothing is left", || refused_at(port as u16) && !is_there(relay) && !is_there(pid));
}

#[test]
fn limits_and_freezes_are_the_payload_s() {
    if !can_limit() {
        return skip("no control group");
    }
    let container = start(json!({"ports": [SERVICE], "pids": 8}));
    let plain = start(json!({"pids": 8}));
    let (with, without) = (container.usage().unwrap(), plain.usage().unwrap());
    assert_eq!((with.pids_current, with.pids_max), (without.pids_current, Some(8)));
    // As many processes as without the relay.
    let count = "import os, signal
children = []
try:
    while len(children) < 20:
        child = os.fork()
        if child == 0:
            signal.pause()
        children.append(child)
except BlockingIOError:
    print(len(children))
for child in children:
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)";
    let running = |container: &Container| {
        let mut command = Command::new("python3");
        command.args(["-c", count]);
        exec_in(container, &command).out
    };
    assert_ne!(running(&plain), "");
    assert_eq!(running(&container), running(&plain));
    container.update(|spec| spec.pids = Some(9)).unwrap();
    assert_eq!(container.usage().unwrap().pids_max, Some(9));
    plain.close(TIMEOUT).unwrap();
    let listener = service(&container, "127.0.0.1:5432");
    let (mut outside, mut inside) = connected(&container, &listener);
    container.freeze().unwrap();
    // What serves it goes on: it carries what there is, and takes new connections.
    outside.write_all(b"x").expect("write");
    inside.read_exact(&mut [0]).expect("read");
    let (mut later, mut accepted) = connected(&container, &listener);
    assert_eq!(container.spawn(&Command::new("true")).unwrap_err().kind(), ErrorKind::Frozen);
    container.thaw().unwrap();
    accepted.write_all(b"y").expect("write");
    later.read_exact(&mut [0]).expect("read");
    container.freeze().unwrap();
    container.close(TIMEOUT).unwrap();
}

/// Programs size themselves by what they find there.
#[test]
fn limits_are_seen_inside() {
    if !fs::exists("/sys/fs/cgroup/cgroup.controllers").expect("a path") || !can_limit() {
        return skip("cgroup v2 only");
    }
    let container = start(json!({"ports": [SERVICE], "memory": "64M", "cpus": 0.5, "cpu_burst": "10ms", "pids": 20}));
    let read = "cd /sys/fs/cgroup && cat memory.max cpu.max cpu.max.burst pids.max";
    assert_eq!(sh_in(&container, read), "67108864\n50000 100000\n10000\n20\n");
    container.update(|spec| (spec.memory, spec.cpus) = (Some(96 << 20), Some(0.25))).unwrap();
    assert_eq!(sh_in(&container, read), "100663296\n25000 100000\n10000\n20\n");
    let plain = start(json!({"memory": "64M"}));
    assert_eq!(plain.usage().unwrap().memory_max, Some(64 << 20));
    assert_eq!(container.usage().unwrap().memory_max, Some(96 << 20));
    container.close(TIMEOUT).unwrap();
    plain.close(TIMEOUT).unwrap();
}

/// The relay is started after the payload, and has to find room.
#[test]
fn a_payload_that_takes_all_its_processes_at_once_starts() {
    if !can_limit() {
        return skip("no control group");
    }
    let fill = "import os, signal
try:
    while True:
        if os.fork() == 0:
            signal.pause()
except BlockingIOError:
    signal.pause()";
    let container = start(json!({"argv": ["python3", "-c", fill], "ports": [SERVICE], "pids": 6}));
    let listener = service(&container, "127.0.0.1:5432");
    until("it is refused one more", || container.usage().unwrap().pids_refused.is_some_and(|refused| refused > 0));
    let usage = container.usage().unwrap();
    assert_eq!((usage.pids_current, usage.pids_max), (Some(6), Some(6)));
    let (mut outside, mut inside) = connected(&container, &listener);
    outside.write_all(b"x").expect("write");
    inside.read_exact(&mut [0]).expect("read");
    container.close(TIMEOUT).unwrap();
}

/// Groups that are made in a container that publishes ports, from both sides.
#[test]
fn groups_inside_are_beside_no_relay() {
    if !can_limit() {
        return skip("no control group");
    }
    let container = start(json!({"ports": [SERVICE], "pids": 30}));
    let part = container.group("part", &spec(json!({"pids": 4}))).unwrap();
    let made = part.command("true").spawn().unwrap();
    assert_eq!(made.wait(TIMEOUT).unwrap().unwrap().code, Some(0));
    assert_eq!((part.usage().unwrap().pids_max, container.usage().unwrap().pids_max), (Some(4), Some(30)));
    let listener = service(&container, "127.0.0.1:5432");
    drop(connected(&container, &listener));
    part.remove().unwrap();
    container.close(TIMEOUT).unwrap();
    let container = start(json!({"ports": [SERVICE], "nesting": true, "pids": 30}));
    let script = r#"
        cd /sys/fs/cgroup && [ -d pids ] && cd pids
        mkdir mine && sh -c 'echo $$ >mine/cgroup.procs' && rmdir mine && echo divided"#;
    assert_eq!(sh_in(&container, script), "divided\n");
    assert_eq!(container.usage().unwrap().pids_max, Some(30));
    let listener = service(&container, "127.0.0.1:5432");
    drop(connected(&container, &listener));
    container.close(TIMEOUT).unwrap();
}

/// The pod's number of processes and its freezes are those of its containers, whatever they publish.
#[test]
fn a_pod_does_not_count_or_freeze_relays() {
    if !can_limit() {
        return skip("no control group");
    }
    let pod = Pod::start(&spec(json!({"pids": 12})), Pod::SHARE).unwrap();
    let plain = pod.container(&spec(json!({}))).unwrap();
    let count = || pod.usage().unwrap().pids_current.expect("a figure");
    // Who was at work for the start may be there for a moment.
    let mut without = count();
    until("the start is over", || {
        std::thread::sleep(Duration::from_millis(50));
        std::mem::replace(&mut without, count()) == without
    });
    let one = pod.container(&spec(json!({"ports": [SERVICE]}))).unwrap();
    // As many as the other has.
    let each = plain.usage().unwrap().pids_current.expect("a figure");
    assert_eq!(one.usage().unwrap().pids_current, Some(each));
    until("the relay is not counted", || count() == without + each);
    let relay = relay_of(&one);
    let listener = service(&one, "127.0.0.1:5432");
    let (mut outside, mut inside) = connected(&one, &listener);
    pod.freeze().unwrap();
    outside.write_all(b"x").expect("write");
    inside.read_exact(&mut [0]).expect("read");
    pod.thaw().unwrap();
    one.close(TIMEOUT).unwrap();
    assert!(!fs::exists(format!("/proc/{relay}/comm")).expect("/proc"), "the relay is left");
    pod.close(TIMEOUT).unwrap();
}

#[test]
fn members_of_a_pod_publish_their_ports() {
    let pod = Pod::start(&spec(json!({})), Pod::SHARE).unwrap();
    let one = pod.container(&spec(json!({"ports": [SERVICE]}))).unwrap();
    let other = pod.container(&spec(json!({"ports": [81]}))).unwrap();
    // They have one network.
    let listener = service(&other, "127.0.0.1:5432");
    let (mut outside, mut inside) = connected(&one, &listener);
    outside.write_all(b"x").expect("write");
    inside.read_exact(&mut [0]).expect("read");
    one.close(TIMEOUT).unwrap();
    assert!(outside.read(&mut [0]).map_or(true, |n| n == 0));
    pod.close(TIMEOUT).unwrap();
}

#[test]
fn a_joined_network_has_its_ports_too() {
    let first = start(json!({}));
    let its = format!("pid:{}", first.pid());
    let second = start(json!({"namespaces": {"user": its, "net": its}, "ports": [SERVICE]}));
    let listener = service(&first, "127.0.0.1:5432");
    let (mut outside, mut inside) = connected(&second, &listener);
    outside.write_all(b"x").expect("write");
    inside.read_exact(&mut [0]).expect("read");
    second.close(TIMEOUT).unwrap();
    assert!(is_over(&outside) && is_over(&inside));
    first.close(TIMEOUT).unwrap();
}

#[test]
fn a_short_life_is_no_failure() {
    for _ in 0..20 {
        let ran = run(json!({"argv": ["true"], "ports": [SERVICE, "53/udp"]}));
        assert_eq!(ran.status.code, Some(0));
    }
    // A detached one is undone at once, whatever comes then.
    for i in 0..10 {
        let name = format!("ports-short-{}-{i}", std::process::id());
        let detached = start(json!({"argv": ["true"], "ports": [SERVICE], "detach": true, "name": name}));
        assert!(detached.wait_end(TIMEOUT).unwrap());
        ringfence::rm(&name, false).unwrap();
    }
    let failed = refused(json!({"argv": ["/nonexistent/program"], "ports": [SERVICE]}));
    assert_eq!(failed.field(), Some("argv[0]"), "{failed}");
}
