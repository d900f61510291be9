//! Threads of the host inside the namespaces of a container.
//!
//! tests/run: vm=root

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::linux::fs::MetadataExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use common::*;
use ringfence::spec::NamespaceKind::{self, Cgroup, Ipc, Mnt, Net, Pid, Time, User, Uts};
use ringfence::spec::Stdio;
use ringfence::{Command, Container, Error, ErrorKind};

#[allow(dead_code, reason = "each test program uses a part of it")]
mod common;

const ALL: [NamespaceKind; 5] = [Net, Uts, Ipc, Cgroup, Mnt];

fn inode(of: &str, kind: NamespaceKind) -> u64 {
    fs::metadata(format!("/proc/{of}/ns/{}", kind.name())).expect("a namespace").st_ino()
}

fn here() -> BTreeMap<&'static str, u64> {
    ALL.into_iter().map(|kind| (kind.name(), inode("thread-self", kind))).collect()
}

fn of(container: &Container) -> BTreeMap<&'static str, u64> {
    ALL.into_iter().map(|kind| (kind.name(), inode(&container.pid().to_string(), kind))).collect()
}

fn hostname() -> String {
    fs::read_to_string("/proc/sys/kernel/hostname").expect("a name").trim().to_owned()
}

/// Those whom the kernel refuses are told so, and are done with the test.
fn may_join(container: &Container) -> bool {
    if is_root() {
        return true;
    }
    let before = here();
    let refused = |error: Error| {
        assert_eq!((error.kind(), error.field()), (ErrorKind::PermissionDenied, Some("kinds")), "{error}");
        assert!(error.hint().expect("a hint").contains("CAP_SYS_ADMIN"), "{error}");
    };
    refused(container.enter(&[Net], || panic!("it must not run")).unwrap_err());
    refused(container.lend(&[Net, Uts]).unwrap_err());
    refused(container.join(&ALL).unwrap_err());
    assert_eq!(here(), before);
    false
}

/// Every process whose parent this one is.
fn children() -> Vec<String> {
    let mut found = Vec::new();
    for task in fs::read_dir("/proc/self/task").expect("tasks") {
        let path = task.expect("a task").path().join("children");
        found.extend(fs::read_to_string(path).unwrap_or_default().split_whitespace().map(str::to_owned));
    }
    found.sort();
    found
}

#[test]
fn a_function_runs_inside_and_its_thread_ends() {
    let container = start(json!({"hostname": "inside", "files": {"/etc/ringfence-enter": "within"}}));
    if !may_join(&container) {
        return;
    }
    let (before, cwd) = (here(), std::env::current_dir().expect("a directory"));
    let caller = nix::unistd::gettid();
    let (seen, name, text, nested, tid) = container
        .enter(&ALL, || {
            let nested = std::thread::spawn(hostname).join().expect("a thread made inside is inside");
            (processes_one(), hostname(), fs::read_to_string("etc/ringfence-enter"), nested, nix::unistd::gettid())
        })
        .unwrap();
    assert_ne!(tid, caller);
    assert_eq!((name.as_str(), text.expect("below its /").as_str(), nested), ("inside", "within", "inside".to_owned()));
    assert_eq!(seen, 1, "/proc is the container's: its pid 1 is there");
    until("the thread has ended", || !Path::new(&format!("/proc/self/task/{tid}")).exists());
    assert_eq!((here(), std::env::current_dir().expect("a directory")), (before, cwd));
    assert!(!Path::new("/etc/ringfence-enter").exists());
    container.close(TIMEOUT).unwrap();
}

/// How many processes 1 there are in the /proc of this thread.
fn processes_one() -> usize {
    fs::read_dir("/proc").expect("/proc").flatten().filter(|entry| entry.file_name() == "1").count()
}

#[test]
fn each_kind_alone_and_what_it_returns() {
    let container = start(json!({}));
    if !may_join(&container) {
        return;
    }
    let (outside, inside) = (here(), of(&container));
    for kind in ALL.into_iter().filter(|&kind| kind != Mnt) {
        let seen = container.enter(&[kind], || inode("thread-self", kind)).unwrap();
        assert_eq!(seen, inside[kind.name()], "{kind:?}");
        assert_ne!(seen, outside[kind.name()], "{kind:?}");
        let lent = container.lend(&[kind]).unwrap();
        assert_eq!(inode("thread-self", kind), inside[kind.name()], "{kind:?}");
        drop(lent);
        assert_eq!(here(), outside, "{kind:?}");
    }
    let several = container.lend(&[Uts, Net, Ipc, Cgroup]).unwrap();
    let nested = container.lend(&[Net]).unwrap();
    drop(nested);
    assert_eq!(inode("thread-self", Net), inside["net"]);
    drop(several);
    assert_eq!(here(), outside);
    // To join for good is a thread's own.
    let joined = std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            container.join(&[Net, Uts]).unwrap();
            (inode("thread-self", Net), inode("thread-self", Uts))
        });
        thread.join().expect("no panic")
    });
    assert_eq!(joined, (inside["net"], inside["uts"]));
    assert_eq!(here(), outside);
    container.close(TIMEOUT).unwrap();
}

/// One line of HTTP in, an answer out.
fn serve(listener: &TcpListener, answer: &str) -> String {
    let (mut stream, _) = listener.accept().expect("a client");
    let mut request = vec![0; 1024];
    let n = stream.read(&mut request).expect("a request");
    write!(stream, "HTTP/1.0 200 OK\r\nContent-Length: {}\r\n\r\n{answer}", answer.len()).expect("an answer");
    String::from_utf8_lossy(&request[..n]).lines().next().unwrap_or_default().to_owned()
}

fn fetch(mut stream: TcpStream) -> String {
    stream.set_read_timeout(TIMEOUT).expect("a time limit");
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n").expect("a request");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    answer.rsplit("\r\n\r\n").next().unwrap_or_default().to_owned()
}

#[test]
fn the_host_serves_into_a_container_and_fetches_from_it_from_a_hundred_threads() {
    const THREADS: usize = 100;
    let container = start(json!({}));
    if !may_join(&container) {
        return;
    }
    // In the container: a client of the host's server.
    let listener = container.enter(&[Net], || TcpListener::bind("127.0.0.1:80")).unwrap().expect("a port of its own");
    let client = "exec 3<>/dev/tcp/127.0.0.1/80; printf 'GET /from-inside HTTP/1.0\\r\\n\\r\\n' >&3; cat <&3";
    let mut command = Command::new("/bin/bash");
    command.args(["-c", client]).stdin(Stdio::Null).stdout(Stdio::Pipe).stderr(Stdio::Pipe);
    let process = container.spawn(&command).unwrap();
    assert_eq!(serve(&listener, "from the host"), "GET /from-inside HTTP/1.0");
    let output = process.communicate(None, TIMEOUT).unwrap();
    assert!(String::from_utf8_lossy(&output.stdout).ends_with("from the host"), "{output:?}");

    // The namespaces of threads that never enter stay what they are, whatever others do.
    let (before, children_before) = (here(), children());
    let (go_on, bystanders) = (AtomicBool::new(true), 4);
    let server = container.enter(&[Net], || TcpListener::bind("127.0.0.1:8080")).unwrap().expect("a port");
    std::thread::scope(|scope| {
        let watching: Vec<_> = (0..bystanders)
            .map(|_| {
                scope.spawn(|| {
                    let mut looks = 0;
                    while go_on.load(Ordering::Relaxed) || looks == 0 {
                        assert_eq!(here(), before);
                        looks += 1;
                    }
                    looks
                })
            })
            .collect();
        let serving = scope.spawn(|| {
            for _ in 0..2 * THREADS {
                serve(&server, "from inside");
            }
        });
        let fetching: Vec<_> = (0..THREADS)
            .map(|i| {
                let container = &container;
                let before = &before;
                std::thread::Builder::new()
                    .stack_size(256 << 10)
                    .spawn_scoped(scope, move || {
                        let lent = container.lend(if i % 2 == 0 { &[Net][..] } else { &[Net, Uts][..] }).unwrap();
                        let stream = TcpStream::connect("127.0.0.1:8080").expect("a connection");
                        drop(lent);
                        assert_eq!(here(), *before);
                        assert_eq!(fetch(stream), "from inside");
                        let stream = container.enter(&[Net], || TcpStream::connect("127.0.0.1:8080")).unwrap();
                        assert_eq!(fetch(stream.expect("a connection")), "from inside");
                        assert_eq!(here(), *before);
                    })
                    .expect("a thread")
            })
            .collect();
        let ended: Vec<_> = fetching.into_iter().map(|thread| thread.join()).collect();
        go_on.store(false, Ordering::Relaxed);
        let looks: Vec<_> = watching.into_iter().map(|thread| thread.join().expect("nothing changed")).collect();
        assert!(looks.iter().all(|&n| n > 0), "{looks:?}");
        assert!(ended.iter().all(Result::is_ok));
        serving.join().expect("served");
    });
    assert_eq!(children(), children_before, "no process was made");
    container.close(TIMEOUT).unwrap();
}

#[test]
fn a_panic_is_the_caller_s_and_leaves_no_thread_inside() {
    let container = start(json!({}));
    if !may_join(&container) {
        return;
    }
    let before = here();
    let panic = catch_unwind(AssertUnwindSafe(|| container.enter(&[Net, Mnt], || panic!("on purpose")))).unwrap_err();
    assert_eq!(panic.downcast_ref::<&str>(), Some(&"on purpose"));
    let panic = catch_unwind(AssertUnwindSafe(|| {
        let _lent = container.lend(&[Net]).unwrap();
        panic!("while lent");
    }));
    assert!(panic.is_err());
    assert_eq!(here(), before);
    assert_eq!(container.enter(&[Net], || 7).unwrap(), 7);
    container.close(TIMEOUT).unwrap();
}

/// Gives up all capabilities of the calling thread.
fn drop_capabilities() {
    let header = [0x2008_0522u32, 0];
    let none = [0u32; 6];
    // SAFETY: header and data have the layout of version 3; only this thread changes.
    assert_eq!(unsafe { libc::syscall(libc::SYS_capset, header.as_ptr(), none.as_ptr()) }, 0);
}

#[test]
fn a_thread_that_cannot_leave_ends() {
    let container = start(json!({}));
    if !may_join(&container) {
        return;
    }
    let (tell, told) = mpsc::channel();
    let inside = container.clone();
    // Not joined: it never returns.
    drop(std::thread::spawn(move || {
        let lent = inside.lend(&[Net]).unwrap();
        tell.send(nix::unistd::gettid()).expect("the test waits");
        drop_capabilities();
        drop(lent);
        unreachable!("the thread was to end");
    }));
    let tid = told.recv_timeout(Duration::from_secs(60)).expect("it joined");
    until("the thread ends", || !Path::new(&format!("/proc/self/task/{tid}")).exists());
    assert_eq!(container.enter(&[Net], || 1).unwrap(), 1);
    container.close(TIMEOUT).unwrap();
}

#[test]
fn what_cannot_be_joined_is_told() {
    let container = start(json!({"net": "host"}));
    let before = here();
    let wrong = |kinds: &[NamespaceKind], words: &str| {
        for error in [
            container.enter(kinds, || panic!("it must not run")).unwrap_err(),
            container.lend(kinds).map(drop).unwrap_err(),
            container.join(kinds).unwrap_err(),
        ] {
            assert_eq!((error.kind(), error.field()), (ErrorKind::InvalidArgument, Some("kinds")), "{error}");
            assert!(error.to_string().contains(words), "{error}");
        }
    };
    wrong(&[], "no kind");
    wrong(&[Pid], "pid: a thread cannot change its process id");
    wrong(&[Uts, User], "user: the kernel lets no thread");
    wrong(&[Time], "time: the kernel lets no thread");
    wrong(&[Net], "no net namespace of its own");
    let error = container.lend(&[Uts, Mnt]).map(drop).unwrap_err();
    assert_eq!((error.kind(), error.field()), (ErrorKind::InvalidArgument, Some("kinds")), "{error}");
    container.kill().unwrap();
    container.wait_end(TIMEOUT).unwrap();
    assert_eq!(container.enter(&[Uts], || ()).unwrap_err().kind(), ErrorKind::Closed);
    assert_eq!(container.lend(&[Uts]).map(drop).unwrap_err().kind(), ErrorKind::Closed);
    assert_eq!(here(), before);
    container.close(TIMEOUT).unwrap();
}
