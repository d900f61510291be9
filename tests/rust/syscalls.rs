//! System calls that the host answers, made by a program that makes them and nothing else: this one, in the container.
//!
//! tests/run: timeout=600 vm=root,user

use std::collections::BTreeSet;
use std::ffi::CString;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read};
use std::os::fd::{AsRawFd, FromRawFd};
use std::os::unix::fs::MetadataExt;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use common::*;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use ringfence::spec::{SeccompArch, Stdio};
use ringfence::{Command, Container, ErrorKind, InjectedFd, Process, SyscallListener, SyscallRequest};

#[allow(dead_code, reason = "each test program uses a part of it")]
mod common;

const SCENE: &str = "RINGFENCE_TEST_SCENE";

/// The result of a system call, or its errno below zero.
fn call(number: i64, args: [u64; 4]) -> i64 {
    // SAFETY: the scenes give addresses of live memory, of the length that the call is told.
    match unsafe { libc::syscall(number, args[0], args[1], args[2], args[3]) } {
        -1 => -i64::from(std::io::Error::last_os_error().raw_os_error().unwrap_or(0)),
        result => result,
    }
}

fn mkdir(path: &str) -> i64 {
    let path = CString::new(path).expect("a path");
    call(libc::SYS_mkdirat, [libc::AT_FDCWD as u64, path.as_ptr() as u64, 0o755, 0])
}

/// What is done in the container.
#[test]
fn inside() {
    let Ok(scene) = std::env::var(SCENE) else { return };
    // The harness has begun a line.
    println!();
    match scene.as_str() {
        "answers" => {
            for name in ["errno", "value", "huge", "dropped", "failed"] {
                println!("{name} {}", mkdir(&format!("/host/{name}")));
            }
            println!("continue {} {}", mkdir("/tmp/continue"), fs::metadata("/tmp/continue").is_ok());
            for name in ["file", "numbered", "replaced"] {
                let path = CString::new(format!("/host/{name}")).expect("a path");
                let how = [0u64; 3];
                let fd = call(libc::SYS_openat2, [0, path.as_ptr() as u64, how.as_ptr() as u64, 24]);
                // SAFETY: no pointers; the descriptor was given to this program.
                let flags = unsafe { libc::fcntl(fd as i32, libc::F_GETFD) };
                // SAFETY: it was made for this program, and nobody else knows of it.
                let mut file = unsafe { File::from_raw_fd(fd as i32) };
                let mut text = String::new();
                file.read_to_string(&mut text).expect("a file of the host");
                println!("{name} {} {flags} {text}", if name == "file" { 0 } else { fd });
                // The host puts another in the place of the second.
                std::mem::forget(file);
            }
            let mut buffer = [0u8; 64];
            println!(
                "sysinfo {} {}",
                call(libc::SYS_sysinfo, [buffer.as_mut_ptr() as u64, 0, 0, 0]),
                String::from_utf8_lossy(&buffer[..4])
            );
            let (one, two) = std::os::unix::net::UnixStream::pair().expect("a pair");
            println!("getsid {}", call(libc::SYS_getsid, [two.as_raw_fd() as u64, 0, 0, 0]));
            let mut line = String::new();
            BufReader::new(one).read_line(&mut line).expect("what the host wrote");
            print!("{line}");
        }
        "threads" => {
            let one = |thread: u64| {
                for i in 0..200 {
                    let asked = thread << 32 | i;
                    assert_eq!(call(libc::SYS_getsid, [asked, 0, 0, 0]), asked as i64 + 1);
                }
            };
            // A child that is made of a program with threads may only make system calls.
            for process in 0..4 {
                // SAFETY: the child makes calls and ends.
                if unsafe { libc::fork() } == 0 {
                    let wrong = (0..200).any(|i| {
                        let asked = (100 + process) << 32 | i;
                        call(libc::SYS_getsid, [asked, 0, 0, 0]) != asked as i64 + 1
                    });
                    // SAFETY: nothing of this program is to run any more.
                    unsafe { libc::_exit(wrong.into()) }
                }
            }
            thread::scope(|scope| (0..8).for_each(|number| drop(scope.spawn(move || one(number)))));
            for _ in 0..4 {
                let mut status = 0;
                // SAFETY: the kernel writes one number.
                assert!(unsafe { libc::wait(&raw mut status) } > 0);
                assert_eq!(status, 0);
            }
            println!("done");
        }
        // One child after the other, each with a text of its own at the same place, until it is killed.
        "victims" => {
            let mut text = [0u8; 4096];
            for number in 0u64.. {
                text.fill(b'a' + (number % 26) as u8);
                text[4095] = 0;
                // SAFETY: as above.
                let child = unsafe { libc::fork() };
                if child == 0 {
                    call(libc::SYS_getsid, [text.as_ptr() as u64, number, 0, 0]);
                    // SAFETY: as above.
                    unsafe { libc::_exit(0) }
                }
                let mut status = 0;
                // SAFETY: as above.
                unsafe { libc::waitpid(child, &raw mut status, 0) };
            }
        }
        "waits" => println!("{}", call(libc::SYS_getsid, [7, 0, 0, 0])),
        "handles signals" => {
            extern "C" fn nothing(_: i32) {}
            let action = nix::sys::signal::SigAction::new(
                nix::sys::signal::SigHandler::Handler(nothing),
                nix::sys::signal::SaFlags::empty(),
                nix::sys::signal::SigSet::empty(),
            );
            // SAFETY: the handler does nothing.
            unsafe { nix::sys::signal::sigaction(nix::sys::signal::Signal::SIGUSR1, &action) }.expect("a handler");
            println!("{}", call(libc::SYS_getsid, [7, 0, 0, 0]));
        }
        other => panic!("{other}"),
    }
}

const NAMES: [&str; 4] = ["mkdirat", "openat2", "sysinfo", "getsid"];

fn asking(names: &[&str]) -> Value {
    json!({"profile": "default", "rules": [{"names": names, "action": "notify"}]})
}

/// A container in which this program is.
fn stage(fields: Value) -> (Container, Tmp) {
    let dir = public_tmp();
    let program = dir.path().join("scenes");
    fs::copy(std::env::current_exe().expect("own path"), &program).expect("copy");
    let mounts = json!([{"source": program, "target": "/tmp/scenes"}]);
    (start(with(json!({"mounts": mounts}), fields)), dir)
}

const ARGS: [&str; 4] = ["--exact", "inside", "--nocapture", "--test-threads=1"];

/// A scene as one more process, its output piped.
fn play(container: &Container, scene: &str, seccomp: Value) -> Process {
    let mut command = Command::new("/tmp/scenes");
    command.args(ARGS).env(SCENE, scene).stdin(Stdio::Null).stdout(Stdio::Pipe).stderr(Stdio::Pipe);
    command.merge_json(&json!({"seccomp": seccomp}).to_string()).expect("fields of a command");
    container.spawn(&command).unwrap_or_else(|e| panic!("{e}\n{}", e.to_json()))
}

fn lines(process: &Process) -> Vec<String> {
    let ran = Ran::from(process.communicate(None, TIMEOUT).unwrap_or_else(|e| panic!("{e}")));
    assert_eq!(ran.status.code, Some(0), "{:?}\n{}\n{}", ran.status, ran.out, ran.err);
    ran.out.lines().map(str::to_owned).collect()
}

/// The text that the host answers by.
fn path_of(request: &SyscallRequest) -> String {
    request.read_c_string(request.args()[1], 4096).expect("a path").into_string().expect("text")
}

#[track_caller]
fn next(listener: &SyscallListener) -> SyscallRequest {
    listener.next(Some(Duration::from_secs(30))).expect("next").expect("a request in time")
}

/// As the process itself has them when it is the main process, when it is pid 1, and when it joins.
#[test]
fn every_kind_of_answer() {
    let dir = public_tmp();
    let file = dir.path().join("file");
    fs::write(&file, "the host's").expect("a file");
    let program = dir.path().join("scenes");
    fs::copy(std::env::current_exe().expect("own path"), &program).expect("copy");
    let mounts = json!([{"source": program, "target": "/tmp/scenes"}]);
    let argv: Vec<&str> = ["/tmp/scenes"].into_iter().chain(ARGS).collect();
    let seccomp = asking(&NAMES);
    let main = |init: bool| {
        let container = start(json!({
            "argv": argv, "env": {SCENE: "answers"}, "stdout": "pipe", "stderr": "pipe", "init": init,
            "mounts": mounts, "seccomp": seccomp,
        }));
        let process = container.main().expect("a main process");
        (container, process)
    };
    let joins = || {
        let container = start(json!({"mounts": mounts}));
        let process = play(&container, "answers", seccomp.clone());
        (container, process)
    };
    for (name, (container, process)) in [("init", main(true)), ("pid 1", main(false)), ("joins", joins())] {
        let listener = container.syscall_listener().expect("a listener");
        let answering = {
            let (listener, file, process) = (listener.clone(), file.clone(), process.clone());
            thread::spawn(move || listener.serve(|request| answer(request, &file, &process)))
        };
        let seen = lines(&process);
        let wanted = [
            "errno -7",
            "value 77",
            "huge 5000000000",
            "dropped -38",
            "failed -38",
            "continue 0 true",
            "file 0 0 the host's",
            "numbered 123 1 the host's",
            "replaced 123 0 the host's",
            "sysinfo 15 rtfm",
            "getsid 12",
            "by its socket",
        ];
        let seen: Vec<&str> = seen.iter().map(String::as_str).filter(|line| wanted.contains(line)).collect();
        assert_eq!(seen, wanted, "{name}");
        listener.cancel();
        answering.join().expect("no panic").expect("serve");
        // Where the program was the container's, it has ended, or soon has.
        assert!(listener.next(None).map_or_else(|e| e.kind() == ErrorKind::Closed, |none| none.is_none()));
        container.close(None).expect("close");
    }
}

fn answer(request: &SyscallRequest, file: &std::path::Path, process: &Process) -> ringfence::Result<()> {
    assert!(request.is_valid()?);
    assert_eq!((request.process(), request.arch()), (process.pid(), SeccompArch::NATIVE));
    // A thread of it.
    assert!(fs::metadata(format!("/proc/{}/task/{}", process.pid(), request.pid())).is_ok());
    assert_ne!(request.instruction_pointer(), 0);
    let shown: Value = serde_json::from_str(&request.to_json()).expect("JSON");
    assert_eq!((&shown["id"], &shown["name"]), (&json!(request.id()), &json!(request.name())));
    match request.name() {
        Some("mkdirat") => match path_of(request).as_str() {
            "/host/errno" => {
                for wrong in [0, -1, 4096] {
                    assert_eq!(request.answer_errno(wrong).expect_err("no errno").kind(), ErrorKind::InvalidArgument);
                }
                assert_eq!(request.read_memory(8, 4).expect_err("no memory").errno(), libc::EFAULT);
                assert_eq!(request.read_c_string(u64::MAX - 3, 9).expect_err("no memory").errno(), libc::EFAULT);
                assert_eq!(request.write_memory(8, b"x").expect_err("no memory").errno(), libc::EFAULT);
                let long = request.read_c_string(request.args()[1], 4).expect_err("longer");
                assert_eq!(long.errno(), libc::ENAMETOOLONG, "{long}");
                assert_eq!(
                    request.read_memory(0, usize::MAX).expect_err("too much").kind(),
                    ErrorKind::InvalidArgument
                );
                assert_eq!(request.dup_fd(999).expect_err("not there").errno(), libc::EBADF);
                request.answer_errno(libc::E2BIG)?;
                // Once.
                for again in [request.answer_value(1), request.answer_continue(), request.read_memory(0, 1).map(drop)] {
                    let again = again.expect_err("answered");
                    assert_eq!((again.kind(), again.errno()), (ErrorKind::InvalidArgument, libc::EALREADY), "{again}");
                }
                assert!(!request.is_valid()? && !request.is_gone());
                Ok(())
            }
            "/host/value" => request.answer_value(77),
            "/host/huge" => request.answer_value(5_000_000_000),
            "/host/dropped" => Ok(()),
            "/tmp/continue" => request.answer_continue(),
            "/host/failed" => {
                let error = request.answer_fd(file_of(file), InjectedFd { number: Some(-1), cloexec: false });
                assert_eq!(error.expect_err("a number").kind(), ErrorKind::InvalidArgument);
                Ok(())
            }
            other => panic!("{other}"),
        },
        Some("openat2") => {
            let how = match path_of(request).as_str() {
                "/host/file" => InjectedFd::default(),
                "/host/numbered" => InjectedFd { number: Some(123), cloexec: true },
                "/host/replaced" => {
                    let there = InjectedFd { number: Some(123), cloexec: false };
                    assert_eq!(request.add_fd(file_of(file), there)?, 123);
                    return request.answer_value(123);
                }
                other => panic!("{other}"),
            };
            // No more than the process may have.
            let most = request.add_fd(file_of(file), InjectedFd { number: Some(i32::MAX), cloexec: false });
            assert_eq!(most.expect_err("above its limit").errno(), libc::EBADF);
            request.answer_fd(file_of(file), how).map(drop)
        }
        Some("sysinfo") => {
            request.write_memory(request.args()[0], b"rtfm")?;
            assert_eq!(request.read_memory(request.args()[0], 6)?, b"rtfm\0\0");
            request.answer_value(15)
        }
        Some("getsid") => {
            let socket = File::from(request.dup_fd(request.args()[0] as i32)?);
            assert_eq!(nix::unistd::write(&socket, b"by its socket\n").expect("a write"), 14);
            request.answer_value(12)
        }
        other => panic!("{other:?}"),
    }
}

fn file_of(path: &std::path::Path) -> File {
    File::open(path).expect("a file")
}

/// Of what the start itself needs under the filter nobody hears, of what the program does everybody.
#[test]
fn what_the_start_needs() {
    let (container, _dir) = stage(json!({}));
    // All but one of the calls that could hand the listener over, and the end of a program that is not there.
    let all = |free: &str| json!({"default_action": "notify", "rules": [{"names": [free], "action": "allow"}]});
    for seccomp in [asking(&["execve"]), all("sendmsg"), all("sendmmsg")] {
        let listener = container.syscall_listener().expect("a listener");
        let calls = AtomicU32::new(0);
        let serve = || {
            listener.serve(|request| {
                let execve = request.name() == Some("execve");
                if execve && request.read_c_string(request.args()[0], 4096)?.to_bytes() == b"/bin/true" {
                    calls.fetch_add(1, Ordering::Relaxed);
                }
                request.answer_continue()
            })
        };
        thread::scope(|scope| {
            let serving = scope.spawn(serve);
            let mut command = Command::new("sh");
            command.args(["-c", "/bin/true; /bin/true"]);
            command.merge_json(&json!({"seccomp": seccomp}).to_string()).expect("fields");
            let ran = exec_in(&container, &command);
            assert_eq!((ran.status.code, calls.load(Ordering::Relaxed)), (Some(0), 2), "{seccomp}");
            let begun = Instant::now();
            let mut absent = Command::new("no-such-program");
            absent.merge_json(&json!({"seccomp": seccomp}).to_string()).expect("fields");
            let error = container.spawn(&absent).expect_err("not there");
            assert_eq!((error.kind(), error.field()), (ErrorKind::NotFound, Some("argv[0]")), "{error}");
            for init in [true, false] {
                let error =
                    Container::start(&spec(json!({"argv": ["no-such-program"], "seccomp": seccomp, "init": init})));
                assert_eq!(error.expect_err("not there").kind(), ErrorKind::NotFound);
            }
            assert!(begun.elapsed() < Duration::from_secs(20));
            // Its descriptors have the numbers that were asked for, and no others.
            let file = file_of("/etc/hostname".as_ref());
            let mut list = Command::new("sh");
            list.args(["-c", "ls /proc/self/fd; cat <&7 >/dev/null && cat <&3 >/dev/null && echo fine"]);
            let copy = file.try_clone().expect("a copy");
            list.pass_fds = [(file.as_raw_fd(), 7), (copy.as_raw_fd(), 3), (0, 4), (2, 5)].into();
            list.merge_json(&json!({"seccomp": seccomp}).to_string()).expect("fields");
            let ran = exec_in(&container, &list);
            assert!(ran.out.starts_with("0\n1\n2\n3\n4\n5\n") && !ran.out.contains('8'), "{}{}", ran.out, ran.err);
            listener.cancel();
            serving.join().expect("no panic").expect("serve");
        });
    }
    container.close(None).expect("close");
}

#[test]
fn what_cannot_be_asked() {
    let of = |rules: Value| json!({"default_action": "allow", "rules": rules});
    let sometimes =
        |name: &str| json!([{"names": [name], "action": "notify", "args": [{"index": 1, "op": "eq", "value": 0}]}]);
    let both = json!([{"names": ["sendmsg", "sendmmsg"], "action": "notify"}]);
    for (rules, word) in [(sometimes("execve"), "execve"), (sometimes("seccomp"), "seccomp"), (both, "sendmmsg")] {
        let error = Container::start(&spec(json!({"argv": ["true"], "seccomp": of(rules)}))).expect_err("refused");
        assert_eq!((error.kind(), error.field()), (ErrorKind::InvalidSpec, Some("seccomp")));
        assert!(error.to_string().contains(word), "{error}");
    }
    // Nobody could answer.
    let error = refused(json!({"argv": ["true"], "seccomp": asking(&["getsid"])}));
    assert_eq!((error.kind(), error.field()), (ErrorKind::InvalidSpec, Some("seccomp")), "{error}");
    let error = Container::start(&spec(json!({"name": "asks", "detach": true, "seccomp": asking(&["getsid"])})));
    assert_eq!(error.expect_err("refused").field(), Some("detach"));
}

#[test]
fn waits_and_ends() {
    let (container, _dir) = stage(json!({}));
    let listener = container.syscall_listener().expect("a listener");
    let readable = || {
        let mut list = [PollFd::new(listener.fd(), PollFlags::POLLIN)];
        poll(&mut list, PollTimeout::ZERO).expect("poll") > 0
    };
    assert!(!readable() && listener.next(Some(Duration::ZERO)).expect("next").is_none());
    let begun = Instant::now();
    assert!(listener.next(Some(Duration::from_millis(60))).expect("next").is_none());
    assert!(begun.elapsed() >= Duration::from_millis(60));

    // Several processes at once, by one descriptor; one is killed while it waits.
    let waiting = ["waits", "waits", "waits"].map(|scene| play(&container, scene, asking(&["getsid"])));
    until("three wait", readable);
    let mut requests: Vec<_> = (0..3).map(|_| next(&listener)).collect();
    until("nothing is left", || !readable());
    let pids: BTreeSet<i32> = requests.iter().map(SyscallRequest::process).collect();
    assert_eq!(pids, waiting.iter().map(Process::pid).collect());
    let at = requests.iter().position(|request| request.process() == waiting[0].pid()).expect("the first one's");
    let killed = requests.swap_remove(at);
    waiting[0].kill(libc::SIGKILL).expect("kill");
    waiting[0].wait(TIMEOUT).expect("wait");
    assert!(!killed.is_valid().expect("asked") && killed.is_gone());
    let gone = [
        killed.answer_value(0),
        killed.answer_continue(),
        killed.answer_fd(killed_fd(), InjectedFd::default()).map(drop),
        killed.read_memory(0, 1).map(drop),
        killed.write_memory(0, b"x"),
        killed.dup_fd(0).map(drop),
    ];
    for error in gone.map(|result| result.expect_err("gone")) {
        assert_eq!((error.kind(), error.errno()), (ErrorKind::NotFound, libc::ENOENT), "{error}");
    }
    // The second is answered, the third dropped.
    requests.pop().expect("a request").answer_value(3).expect("answer");
    drop(requests);
    let answers: BTreeSet<String> =
        waiting[1..].iter().flat_map(lines).filter(|line| line.parse::<i64>().is_ok()).collect();
    assert_eq!(answers, ["-38".to_owned(), "3".to_owned()].into());

    // A signal ends no wait that the host has read of (Linux 5.19).
    let interrupted = play(&container, "handles signals", asking(&["getsid"]));
    let request = next(&listener);
    for _ in 0..20 {
        interrupted.kill(libc::SIGUSR1).expect("a signal");
        thread::sleep(Duration::from_millis(2));
    }
    if request.is_valid().expect("asked") {
        request.answer_value(5).expect("answer");
        assert!(lines(&interrupted).contains(&"5".to_owned()));
    } else {
        skip("Linux before 5.19 begins a call anew after a signal");
    }

    // A worker of this program has nothing of it, and leaves the parent's requests alone.
    let left = play(&container, "waits", asking(&["getsid"]));
    let request = next(&listener);
    // SAFETY: the child looks at what it has and ends.
    match unsafe { libc::fork() } {
        0 => {
            let refused = |kind| kind == ErrorKind::ForkedChild;
            let fine = request.is_valid().is_err_and(|e| refused(e.kind()))
                && request.answer_value(1).is_err_and(|e| refused(e.kind()))
                && listener.next(Some(Duration::ZERO)).is_err_and(|e| refused(e.kind()));
            drop(request);
            // SAFETY: nothing of this program is to run any more.
            unsafe { libc::_exit(if fine { 0 } else { 1 }) }
        }
        child => {
            let mut status = 0;
            // SAFETY: the kernel writes one number.
            unsafe { libc::waitpid(child, &raw mut status, 0) };
            assert_eq!(status, 0);
        }
    }
    request.answer_value(9).expect("still there");
    assert!(lines(&left).contains(&"9".to_owned()));

    // Waits end with the container, on whatever thread.
    let waiter = {
        let listener = listener.clone();
        thread::spawn(move || listener.next(None).expect("no error").is_none())
    };
    thread::sleep(Duration::from_millis(20));
    container.close(None).expect("close");
    assert!(waiter.join().expect("no panic"));
    assert!(listener.next(None).expect("over").is_none() && listener.is_over() && readable());
    assert_eq!(container.syscall_listener().expect_err("closed").kind(), ErrorKind::Closed);
}

fn killed_fd() -> File {
    file_of("/dev/null".as_ref())
}

/// A detached container goes on without this program's listener.
#[test]
fn nobody_is_left_to_answer() {
    let name = format!("unasked-{}", std::process::id());
    struct Gone(String);
    impl Drop for Gone {
        fn drop(&mut self) {
            ringfence::rm(&self.0, true).expect("rm");
        }
    }
    let (container, _dir) = stage(json!({"name": name, "detach": true}));
    let _gone = Gone(name);
    let waiting = play(&container, "waits", asking(&["getsid"]));
    let (listener, before) = (container.syscall_listener().expect("a listener"), Instant::now());
    until("it waits", || {
        let mut list = [PollFd::new(listener.fd(), PollFlags::POLLIN)];
        poll(&mut list, PollTimeout::ZERO).expect("poll") > 0
    });
    container.close(None).expect("close");
    assert!(lines(&waiting).contains(&"-38".to_owned()) && before.elapsed() < Duration::from_secs(20));
    assert_eq!(listener.next(None).expect_err("closed").kind(), ErrorKind::Closed);
}

#[test]
fn many_threads_and_processes_at_once() {
    let (container, _dir) = stage(json!({}));
    let listener = container.syscall_listener().expect("a listener");
    let count = AtomicU32::new(0);
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let serve = listener.serve(|request| {
                    count.fetch_add(1, Ordering::Relaxed);
                    request.answer_value(request.args()[0] as i64 + 1)
                });
                serve.expect("serve");
            });
        }
        let begun = Instant::now();
        let players = [0, 1].map(|_| play(&container, "threads", asking(&["getsid"])));
        for player in &players {
            assert!(lines(player).contains(&"done".to_owned()));
        }
        let calls = count.load(Ordering::Relaxed);
        println!("{calls} calls in {:?}", begun.elapsed());
        assert_eq!(calls, 2 * 12 * 200);
        listener.cancel();
    });
    container.close(None).expect("close");
}

/// What is read is of who asked or an error, although it is killed at any moment and another one takes its place.
#[test]
fn memory_is_of_who_asked() {
    let (container, _dir) = stage(json!({}));
    let listener = container.syscall_listener().expect("a listener");
    let _victims = play(&container, "victims", asking(&["getsid"]));
    let (mut read, mut gone) = (0, 0);
    let mut pids = BTreeSet::new();
    for round in 0..times(1000) {
        let request = next(&listener);
        let [address, number, ..] = request.args();
        let pid = request.pid();
        pids.insert(pid);
        let killer = (round % 4 != 0).then(|| {
            thread::spawn(move || {
                for _ in 0..(round % 40) * 100 {
                    std::hint::spin_loop();
                }
                // SAFETY: no pointers. Who waits for the answer is not reaped before it is killed, which only this thread does.
                unsafe { libc::kill(pid, libc::SIGKILL) };
            })
        });
        let wanted = vec![b'a' + (number % 26) as u8; 4095];
        match request.read_c_string(address, 4096) {
            Ok(text) => {
                assert_eq!(text.to_bytes(), wanted);
                read += 1;
            }
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
                gone += 1;
            }
        }
        match request.write_memory(address, b"z") {
            Ok(()) => {}
            Err(error) => assert_eq!(error.kind(), ErrorKind::NotFound, "{error}"),
        }
        if let Some(killer) = killer {
            killer.join().expect("no panic");
        }
        match request.answer_value(0) {
            Ok(()) => {}
            Err(error) => assert!(error.kind() == ErrorKind::NotFound && request.is_gone(), "{error}"),
        }
    }
    println!("read {read}, gone {gone}, {} pids", pids.len());
    assert!(read > 0 && gone > 0);
    container.close(None).expect("close");
}

/// The kernel takes one listener for all filters around a program.
#[test]
fn a_listener_around_this_program() {
    const INSIDE: &str = "RINGFENCE_TEST_LISTENER";
    if std::env::var_os(INSIDE).is_none() {
        let mut again = std::process::Command::new(std::env::current_exe().expect("own path"));
        again.args(["--exact", "a_listener_around_this_program", "--nocapture"]).env(INSIDE, "1");
        let ran = again.output().expect("run");
        assert!(
            ran.status.success(),
            "{}{}",
            String::from_utf8_lossy(&ran.stdout),
            String::from_utf8_lossy(&ran.stderr)
        );
        return;
    }
    // struct sock_filter: allow.
    let allow = [libc::sock_filter { code: 6, jt: 0, jf: 0, k: libc::SECCOMP_RET_ALLOW }];
    let program = libc::sock_fprog { len: 1, filter: allow.as_ptr().cast_mut() };
    // SAFETY: the program outlives the call; it changes this process, which is here for nothing else.
    let listener = unsafe {
        assert_eq!(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
        let flags = libc::SECCOMP_FILTER_FLAG_NEW_LISTENER;
        libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, &raw const program)
    };
    assert!(listener >= 0, "{}", std::io::Error::last_os_error());
    start(json!({"argv": ["sleep", "60"]})).close(None).expect("close");
    let error =
        Container::start(&spec(json!({"argv": ["sleep", "60"], "seccomp": asking(&["getsid"])}))).expect_err("taken");
    assert_eq!((error.field(), error.errno()), (Some("seccomp"), libc::EBUSY), "{error}");
    assert!(error.hint().is_some_and(|hint| hint.contains("listener")), "{error}");
}

/// In the place of what a program without privileges may not do: a node, and a mount.
#[test]
fn what_the_program_may_not_do_itself() {
    let (container, _dir) = stage(json!({}));
    let listener = container.syscall_listener().expect("a listener");
    let asked = json!({"profile": "default", "rules": [
        {"names": ["mknod", "mknodat"], "action": "notify"}, {"names": ["mount"], "action": "notify"},
    ]});
    thread::scope(|scope| {
        let serving = scope.spawn(|| {
            listener.serve(|request| match request.name() {
                Some("mknodat") => {
                    assert!(request.read_c_string(request.args()[1], 4096)?.to_bytes().ends_with(b"null"));
                    request.answer_value(0)
                }
                Some("mknod") => request.answer_value(0),
                Some("mount") => {
                    let kind = request.read_c_string(request.args()[2], 4096)?;
                    if kind.to_bytes() == b"tmpfs" {
                        request.answer_value(0)
                    } else {
                        request.answer_errno(libc::ENODEV)
                    }
                }
                other => panic!("{other:?}"),
            })
        });
        let script = "mknod /tmp/null c 1 3 && echo node; python3 -c '
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
print(libc.mount(b\"none\", b\"/mnt\", b\"tmpfs\", 0, None), libc.mount(b\"none\", b\"/mnt\", b\"nfs\", 0, None), ctypes.get_errno())'";
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command.merge_json(&json!({"seccomp": asked, "capabilities": "none"}).to_string()).expect("fields");
        let ran = exec_in(&container, &command);
        assert_eq!(ran.out, format!("node\n0 -1 {}\n", libc::ENODEV), "{}", ran.err);
        listener.cancel();
        serving.join().expect("no panic").expect("serve");
    });
    assert!(file_of("/dev/null".as_ref()).metadata().expect("stat").rdev() != 0);
    container.close(None).expect("close");
}
