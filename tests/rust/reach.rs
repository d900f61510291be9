//! Sockets and files of a container for the host, for every kind of caller.
//!
//! tests/run: vm=delegated

use std::fs::File;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::Duration;

use common::*;
use ringfence::spec::Stdio;
use ringfence::{Command, ErrorKind};

#[allow(dead_code, reason = "each test program uses a part of it")]
mod common;

fn talk(mut one: impl Read + Write, mut other: impl Read + Write) {
    one.write_all(b"hello").expect("write");
    let mut text = [0; 5];
    other.read_exact(&mut text).expect("read");
    assert_eq!(&text, b"hello");
}

#[test]
fn listen_and_connect_inside() {
    let container = start(json!({}));
    // A port below 1024, which an ordinary user has not outside.
    let listener = TcpListener::from(container.listen("127.0.0.1:80", 4).unwrap());
    assert_eq!(listener.local_addr().expect("an address").port(), 80);
    let client = TcpStream::from(container.connect("localhost:80", TIMEOUT).unwrap());
    talk(client, listener.accept().expect("a client").0);
    // From inside to the host's server.
    let mut command = Command::new("/bin/bash");
    command.args(["-c", "exec 3<>/dev/tcp/127.0.0.1/80; echo from inside >&3"]);
    command.stdin(Stdio::Null).stdout(Stdio::Null).stderr(Stdio::Pipe);
    let process = container.spawn(&command).unwrap();
    let mut text = String::new();
    listener.accept().expect("a client").0.read_to_string(&mut text).expect("text");
    assert_eq!(text, "from inside\n");
    assert!(process.wait(TIMEOUT).unwrap().expect("ended").success());
    // Nobody outside sees it.
    let taken = container.listen("127.0.0.1:80", 4).unwrap_err();
    assert_eq!(
        (taken.errno(), taken.field(), taken.step()),
        (libc::EADDRINUSE, Some("address"), Some("bind")),
        "{taken}"
    );
    let any = TcpListener::from(container.listen("[::1]:0", 4).unwrap());
    let port = any.local_addr().expect("an address").port();
    talk(
        TcpStream::from(container.connect(&format!("[::1]:{port}"), None).unwrap()),
        any.accept().expect("a client").0,
    );
    drop(any);
    let refused = container.connect(&format!("[::1]:{port}"), TIMEOUT).unwrap_err();
    assert_eq!((refused.errno(), refused.field()), (libc::ECONNREFUSED, Some("address")), "{refused}");
    container.close(TIMEOUT).unwrap();
}

#[test]
fn unix_sockets_by_the_container_s_paths_and_names() {
    let container = start(json!({}));
    for address in ["/tmp/ringfence-reach.sock", "@ringfence-reach"] {
        let listener = UnixListener::from(container.listen(address, 4).unwrap());
        let client = UnixStream::from(container.connect(address, TIMEOUT).unwrap());
        talk(client, listener.accept().expect("a client").0);
        let again = container.listen(address, 4).unwrap_err();
        assert_eq!((again.errno(), again.field()), (libc::EADDRINUSE, Some("address")), "{again}");
    }
    assert!(!std::path::Path::new("/tmp/ringfence-reach.sock").exists());
    assert_eq!(sh_in(&container, "stat -c '%F %u %a' /tmp/ringfence-reach.sock"), "socket 0 755\n");
    let gone = container.connect("/tmp/ringfence-reach.sock", TIMEOUT).unwrap_err();
    assert_eq!(gone.errno(), libc::ECONNREFUSED, "{gone}");
    // No link of /proc leads to what the task has open.
    sh_in(&container, "for fd in 3 4 5 6 7 8 9 10 11 12; do ln -s /proc/self/fd/$fd/1/root/run /tmp/fd$fd; done");
    for fd in 3..13 {
        let away = container.listen(&format!("/tmp/fd{fd}/ringfence-reach-away.sock"), 1).unwrap_err();
        assert!([libc::ENOENT, libc::ENOTDIR, libc::EACCES].contains(&away.errno()), "{fd}: {away}");
    }
    assert!(!std::path::Path::new("/run/ringfence-reach-away.sock").exists());
    let gone = container.connect("/tmp/nothing.sock", TIMEOUT).unwrap_err();
    assert_eq!((gone.errno(), gone.path()), (libc::ENOENT, Some("/tmp/nothing.sock")), "{gone}");
    for address in ["", "nonsense", "example.org:80", "127.0.0.1:99999"] {
        let wrong = container.connect(address, TIMEOUT).unwrap_err();
        assert_eq!((wrong.kind(), wrong.field()), (ErrorKind::InvalidArgument, Some("address")), "{wrong}");
    }
    container.close(TIMEOUT).unwrap();
}

/// The devices that a netlink socket tells of: the names in its answer to RTM_GETLINK.
fn links(socket: &OwnedFd) -> Vec<u8> {
    const RTM_GETLINK: u16 = 18;
    const NLM_F_REQUEST_DUMP: u16 = 0x301;
    let mut request = [0u8; 32];
    request[0..4].copy_from_slice(&32u32.to_ne_bytes());
    request[4..6].copy_from_slice(&RTM_GETLINK.to_ne_bytes());
    request[6..8].copy_from_slice(&NLM_F_REQUEST_DUMP.to_ne_bytes());
    let mut answer = vec![0u8; 65536];
    // SAFETY: buffers of these lengths.
    let n = unsafe {
        assert_eq!(libc::send(socket.as_raw_fd(), request.as_ptr().cast(), request.len(), 0), 32);
        libc::recv(socket.as_raw_fd(), answer.as_mut_ptr().cast(), answer.len(), 0)
    };
    answer.truncate(n.max(0) as usize);
    answer
}

#[test]
fn sockets_of_every_family() {
    let container = start(json!({}));
    let netlink = container.socket(libc::AF_NETLINK, libc::SOCK_RAW, libc::NETLINK_ROUTE).unwrap();
    let answer = links(&netlink);
    assert!(answer.windows(3).any(|w| w == b"lo\0"), "the loopback device is there");
    // What only root has: all frames, and raw IP.
    let all = i32::from((libc::ETH_P_ALL as u16).to_be());
    container.socket(libc::AF_PACKET, libc::SOCK_RAW, all).unwrap();
    container.socket(libc::AF_INET, libc::SOCK_RAW, libc::IPPROTO_ICMP).unwrap();
    // A datagram socket is bound and used outside, and belongs there.
    let one = UdpSocket::from(container.socket(libc::AF_INET, libc::SOCK_DGRAM, 0).unwrap());
    nix::sys::socket::bind(one.as_raw_fd(), &nix::sys::socket::SockaddrIn::new(127, 0, 0, 1, 0)).expect("a port");
    let address = one.local_addr().expect("an address");
    let other = UdpSocket::from(container.socket(libc::AF_INET, libc::SOCK_DGRAM, 0).unwrap());
    other.send_to(b"datagram", address).expect("sent");
    one.set_read_timeout(TIMEOUT).expect("a time limit");
    let mut text = [0; 16];
    assert_eq!(one.recv_from(&mut text).expect("received").0, 8);
    // SAFETY: no pointers.
    let flags = unsafe { libc::fcntl(one.as_raw_fd(), libc::F_GETFD) };
    assert_eq!(flags & libc::FD_CLOEXEC, libc::FD_CLOEXEC);
    let wrong = container.socket(12345, libc::SOCK_STREAM, 0).unwrap_err();
    assert_eq!((wrong.errno(), wrong.field()), (libc::EAFNOSUPPORT, Some("domain")), "{wrong}");
    container.close(TIMEOUT).unwrap();
}

#[test]
fn many_at_once() {
    let container = start(json!({}));
    let listener = TcpListener::from(container.listen("127.0.0.1:8080", 128).unwrap());
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for _ in 0..40 {
                listener.accept().expect("a client").0.write_all(b"x").expect("write");
            }
        });
        for _ in 0..8 {
            scope.spawn(|| {
                for _ in 0..5 {
                    let mut client = TcpStream::from(container.connect("127.0.0.1:8080", TIMEOUT).unwrap());
                    let mut byte = [0];
                    client.read_exact(&mut byte).expect("read");
                }
            });
        }
    });
    container.close(TIMEOUT).unwrap();
}

#[test]
fn paths_are_the_container_s() {
    let container = start(json!({"files": {"/etc/ringfence-reach": "within"}}));
    let text = |path: &str| {
        let mut text = String::new();
        File::from(container.open_path(path, libc::O_RDONLY, 0).unwrap()).read_to_string(&mut text).map(|_| text)
    };
    assert_eq!(text("/etc/ringfence-reach").expect("text"), "within");
    assert_eq!(text("etc/../../../etc/ringfence-reach").expect("text"), "within");
    // A file that is made belongs to its root.
    let made = container.open_path("/tmp/made", libc::O_WRONLY | libc::O_CREAT | libc::O_EXCL, 0o666).unwrap();
    File::from(made).write_all(b"by the host").expect("write");
    assert_eq!(sh_in(&container, "cat /tmp/made; stat -c ' %u %g %a' /tmp/made"), "by the host 0 0 644\n");
    let there = container.open_path("/tmp/made", libc::O_WRONLY | libc::O_CREAT | libc::O_EXCL, 0o666).unwrap_err();
    assert_eq!(
        (there.errno(), there.field(), there.path()),
        (libc::EEXIST, Some("path"), Some("/tmp/made")),
        "{there}"
    );
    // No link leads out, neither the container's own nor /proc's.
    sh_in(
        &container,
        "ln -s /etc/ringfence-reach /tmp/absolute; ln -s ../../../../../etc/ringfence-reach /tmp/up; ln -s /proc/self/root /tmp/magic; mkfifo /tmp/fifo",
    );
    assert_eq!(text("/tmp/absolute").expect("text"), "within");
    assert_eq!(text("/tmp/up").expect("text"), "within");
    let magic = container.open_path("/tmp/magic/etc", libc::O_RDONLY, 0).unwrap_err();
    assert_eq!((magic.errno(), magic.field()), (libc::ELOOP, Some("path")), "{magic}");
    // A FIFO keeps nobody waiting.
    let fifo = container.open_path("/tmp/fifo", libc::O_WRONLY, 0).unwrap_err();
    assert_eq!(fifo.errno(), libc::ENXIO, "{fifo}");
    let fifo = container.open_path("/tmp/fifo", libc::O_RDONLY, 0).unwrap();
    // SAFETY: no pointers.
    let flags = unsafe { libc::fcntl(fifo.as_raw_fd(), libc::F_GETFL) };
    assert_eq!(flags & libc::O_NONBLOCK, 0, "what was not asked for is not left on");
    for (path, words) in [("", "empty"), ("/a\0b", "NUL")] {
        let wrong = container.open_path(path, 0, 0).unwrap_err();
        assert_eq!((wrong.kind(), wrong.field()), (ErrorKind::InvalidArgument, Some("path")), "{wrong}");
        assert!(wrong.to_string().contains(words), "{wrong}");
    }
    let gone = container.open_path("/nonsense", 0, 0).unwrap_err();
    assert_eq!((gone.kind(), gone.errno()), (ErrorKind::NotFound, libc::ENOENT), "{gone}");
    container.close(TIMEOUT).unwrap();
}

#[test]
fn changes_of_a_path_inside_are_watched() {
    use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
    let container = start(json!({}));
    sh_in(&container, "mkdir -m 755 /tmp/watched");
    let watched = container.open_path("/tmp/watched", libc::O_PATH, 0).unwrap();
    let notify = Inotify::init(InitFlags::IN_CLOEXEC).expect("inotify");
    let path = format!("/proc/self/fd/{}", watched.as_raw_fd());
    notify.add_watch(path.as_str(), AddWatchFlags::IN_CREATE).expect("a watch");
    sh_in(&container, "touch /tmp/watched/new");
    let events = notify.read_events().expect("an event");
    assert_eq!(events[0].name.as_deref(), Some(std::ffi::OsStr::new("new")));
    container.close(TIMEOUT).unwrap();
}

#[test]
fn a_frozen_container_can_be_looked_at() {
    if !can_limit() {
        return skip("no control group, nothing to freeze");
    }
    let container = start(json!({"pids": 1}));
    container.freeze().unwrap();
    let file = File::from(container.open_path("/proc/1/status", libc::O_RDONLY, 0).unwrap());
    assert!(file.metadata().expect("a file").uid() < u32::MAX);
    drop(container.listen("127.0.0.1:80", 1).unwrap());
    container.thaw().unwrap();
    container.close(TIMEOUT).unwrap();
}

#[test]
fn a_connection_that_nobody_takes_times_out() {
    let container = start(json!({}));
    let name = "@ringfence-full";
    let listener = container.listen(name, 0).unwrap();
    let first = container.connect(name, TIMEOUT).unwrap();
    // The queue of length 0 has its one.
    let full = container.connect(name, Some(Duration::from_millis(300))).unwrap_err();
    assert_eq!(full.kind(), ErrorKind::TimedOut, "{full}");
    assert!(!full.to_string().contains("start_timeout"), "{full}");
    drop((listener, first));
    container.close(TIMEOUT).unwrap();
}
