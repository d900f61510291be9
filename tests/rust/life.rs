//! Ends: exit codes, signals, pid 1, orphans, detached containers, names.
//!
//! tests/run: timeout=600 vm=delegated

use std::fs;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use common::*;
use ringfence::spec::Stdio;
use ringfence::{Command, Container, ErrorKind, Reason, state};

#[allow(dead_code, reason = "each test program uses a part of it")]
mod common;

fn unique(name: &str) -> String {
    format!("{name}-{}", std::process::id())
}

#[test]
fn codes_signals_and_core_dumps() {
    let container = start(json!({}));
    for init in [true, false] {
        for code in [0, 1, 42, 255] {
            let ran = run(json!({"argv": ["sh", "-c", format!("exit {code}")], "init": init}));
            assert_eq!((ran.status.code, ran.status.signal, ran.status.reason), (Some(code), None, Reason::Exited));
        }
    }
    for signal in [libc::SIGKILL, libc::SIGTERM, libc::SIGSEGV, libc::SIGUSR1, 40] {
        let script = format!("kill -{signal} $$; sleep 10");
        for joined in [false, true] {
            let status = if joined {
                exec_in(&container, Command::new("sh").args(["-c", &script])).status
            } else {
                run(json!({"argv": ["sh", "-c", script]})).status
            };
            assert_eq!((status.code, status.signal, status.reason), (None, Some(signal), Reason::Signaled), "{joined}");
        }
    }
    container.close(None).expect("close");
}

#[test]
fn the_core_flag() {
    let pattern = fs::read_to_string("/proc/sys/kernel/core_pattern").unwrap_or_default();
    if pattern.starts_with('|') || pattern.starts_with('/') {
        return skip("the kernel's core_pattern sends dumps out of the container");
    }
    let mut hard = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the kernel writes one rlimit.
    unsafe { libc::getrlimit(libc::RLIMIT_CORE, &raw mut hard) };
    if hard.rlim_max < 1 << 20 {
        return skip("core dumps are limited for this caller");
    }
    for (size, dumped) in [(0u64, false), (1 << 30, true)] {
        let size = size.min(hard.rlim_max);
        let ran = run(json!({
            "argv": ["sh", "-c", "cd /tmp && kill -SEGV $$"],
            "rlimits": {"core": size},
        }));
        assert_eq!(
            (ran.status.signal, ran.status.core_dumped),
            (Some(libc::SIGSEGV), dumped),
            "{size}: {:?}",
            ran.status
        );
    }
}

#[test]
fn time_and_memory_of_a_process() {
    let ran = run(json!({"argv": ["python3", "-c", "x = bytearray(50 << 20)\nfor i in range(3000000): pass"]}));
    assert!(ran.status.user_usec > 10_000, "{:?}", ran.status);
    assert!(ran.status.max_rss > 50 << 20 && ran.status.max_rss < 500 << 20, "{:?}", ran.status);
}

// --- pid 1 ---

#[test]
fn the_resident_init_and_the_payload_as_pid_1() {
    assert_eq!(sh("echo $$; cat /proc/1/comm", json!({})), "2\nringfence\n");
    assert_eq!(sh("echo $$; cat /proc/1/comm", json!({"init": false})), "1\nsh\n");
    let error = refused(json!({"argv": [], "init": false}));
    assert_eq!(error.kind(), ErrorKind::InvalidSpec, "{error}");
}

#[test]
fn orphans_are_reaped() {
    let container = start(json!({}));
    sh_in(
        &container,
        "for i in 1 2 3 4 5 6 7 8 9 10; do (true & true) & done; wait; (sh -c 'sleep 0.05 &' &) ; sleep 0.2",
    );
    until("no zombies", || !sh_in(&container, "ps -e -o stat=; true").lines().any(|l| l.starts_with('Z')));
    assert!(container.is_running());
    container.close(None).expect("close");
}

/// init holds what it needs and nothing else; the container's root can neither look into it nor stop it from inside.
#[test]
fn init_is_out_of_the_container_s_reach() {
    let container = start(json!({"capabilities": "all"}));
    // Its filter is the last thing that it does after a start.
    let mut status = String::new();
    until("init confines itself", || {
        status = sh_in(&container, "cat /proc/1/status");
        status_line(&status, "Seccomp") == "2"
    });
    assert_eq!(status_line(&status, "CapEff"), "0000000000000020");
    assert_eq!(status_line(&status, "CapInh"), "0000000000000000");
    assert_eq!(status_line(&status, "NoNewPrivs"), "1");
    // Its program's pages, which all keepers and inits of a host share, and a stack of its own.
    let kib = |key| status_line(&status, key).trim_end_matches(" kB").parse::<u32>().expect("a number");
    assert!(kib("RssAnon") <= 32 && kib("VmRSS") <= 100, "{status}");
    let script = "ls /proc/1/map_files/* 2>/dev/null; readlink /proc/1/fd/200 /proc/1/fd/201 2>/dev/null; cat /proc/1/fd/200 2>/dev/null
                  readlink /proc/1/exe /proc/1/root /proc/1/cwd 2>/dev/null
                  (cat /proc/1/mem /proc/1/maps) 2>/dev/null | wc -c; kill -KILL 1; kill -STOP 1; kill -SEGV 1; echo end";
    assert_eq!(sh_in(&container, script), "0\nend\n");
    std::thread::sleep(Duration::from_millis(50));
    assert!(container.is_running());
    container.close(None).expect("close");
}

#[test]
fn a_container_without_a_main_process_lives_until_it_is_closed() {
    let container = start(json!({}));
    assert!(container.main().is_none());
    assert!(!container.wait_end(Some(Duration::from_millis(200))).expect("wait"));
    assert_eq!(sh_in(&container, "echo alive"), "alive\n");
    container.close(None).expect("close");
    assert!(!container.is_running());
    assert_eq!(container.wait_end(None).expect_err("closed").kind(), ErrorKind::Closed);
}

#[test]
fn sigterm_to_init_ends_a_container_without_a_main_process() {
    let container = start(json!({}));
    let mut command = Command::new("sleep");
    command.arg("1000").stdin(Stdio::Null).stdout(Stdio::Null).stderr(Stdio::Null);
    let process = container.spawn(&command).expect("spawn");
    container.signal(libc::SIGTERM).expect("signal");
    assert!(container.wait_end(TIMEOUT).expect("wait"));
    let status = process.wait(TIMEOUT).expect("wait").expect("ended");
    assert_eq!(status.signal, Some(libc::SIGTERM), "{status:?}");
    container.close(None).expect("close");
}

#[test]
fn signals_reach_the_main_process() {
    let script = "trap 'echo term; exit 3' TERM; trap 'echo usr1' USR1; echo ready; while :; do sleep 0.05; done";
    let container = start(json!({"argv": ["sh", "-c", script], "stdout": "log"}));
    let log = |text: &str| String::from_utf8_lossy(&container.log(0).expect("log")).contains(text);
    until("ready", || log("ready"));
    container.signal(libc::SIGUSR1).expect("signal");
    until("usr1", || log("usr1"));
    let status = container.stop(TIMEOUT).expect("stop").expect("a main process");
    assert_eq!(status.code, Some(3), "{status:?}");
    container.close(None).expect("close");
}

#[test]
fn stop_kills_after_its_time() {
    let script = "trap '' TERM INT; echo ready; while :; do sleep 0.05; done";
    let container = start(json!({"argv": ["sh", "-c", script], "stop_signal": "INT", "stop_timeout": "300ms"}));
    until("ready", || container.log(0).is_ok_and(|l| l.starts_with(b"ready")));
    let started = Instant::now();
    let status = container.stop(None).expect("stop").expect("a main process");
    assert!(started.elapsed() >= Duration::from_millis(290) && started.elapsed() < Duration::from_secs(10));
    assert_eq!(status.signal, Some(libc::SIGKILL), "{status:?}");
    container.close(None).expect("close");
}

#[test]
fn the_end_of_the_main_process_ends_all() {
    let dir = tmp();
    let script = "setsid sh -c 'sleep 0.3; echo late >/data/late' & exit 7";
    let mounts = json!([format!("{}:/data:rw", dir.path().display())]);
    let container = start(json!({"argv": ["sh", "-c", script], "mounts": mounts}));
    assert!(container.wait_end(TIMEOUT).expect("wait"));
    assert_eq!(container.main().expect("main").wait(None).expect("wait").expect("ended").code, Some(7));
    std::thread::sleep(Duration::from_millis(500));
    assert!(!dir.path().join("late").exists());
    let error = container.spawn(&Command::new("true")).expect_err("ended");
    assert_eq!(error.kind(), ErrorKind::Closed, "{error}");
    container.close(None).expect("close");
}

#[test]
fn a_killed_container_s_processes_say_so() {
    let container = start(json!({"argv": ["sleep", "1000"]}));
    let mut command = Command::new("sleep");
    command.arg("1000").stdin(Stdio::Null).stdout(Stdio::Null).stderr(Stdio::Null);
    let joined = container.spawn(&command).expect("spawn");
    let main = container.main().expect("main");
    assert_eq!(main.try_wait().expect("poll"), None);
    container.kill().expect("kill");
    for process in [main, joined] {
        let status = process.wait(TIMEOUT).expect("wait").expect("ended");
        assert_eq!((status.code, status.reason), (None, Reason::ContainerEnded), "{status:?}");
    }
    container.close(None).expect("close");
}

#[test]
fn a_thousand_processes_are_killed_at_once() {
    let container = start(json!({}));
    let script = "i=0; while [ $i -lt 300 ]; do sleep 1000 & i=$((i+1)); done; echo ready; wait";
    let mut command = Command::new("sh");
    command.args(["-c", script]).stdin(Stdio::Null).stdout(Stdio::Pipe).stderr(Stdio::Null);
    let process = container.spawn(&command).expect("spawn");
    let mut reader = std::io::BufReader::new(fs::File::from(process.take_stdout().expect("a pipe")));
    let mut line = String::new();
    std::io::BufRead::read_line(&mut reader, &mut line).expect("read");
    let started = Instant::now();
    container.close(None).expect("close");
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
    // Nobody holds the pipe any more.
    line.clear();
    assert_eq!(std::io::BufRead::read_line(&mut reader, &mut line).expect("read"), 0);
}

/// pid 1 moves its descriptors to numbers of its own, and these may be in use: by many mounts, or because the keeper serves
/// many containers.
#[test]
fn statuses_arrive_whatever_numbers_descriptors_have() {
    // Emulated, each takes a tenth of a second: some of the numbers.
    let step = if std::env::var("RINGFENCE_TEST_TIER").is_ok_and(|tier| tier == "vm") { 9 } else { 1 };
    for n in (100..190).step_by(step) {
        let mounts: Vec<_> = (0..n).map(|i| json!({"type": "tmpfs", "target": format!("/m/{i}")})).collect();
        let ran = run(json!({"argv": ["sh", "-c", "exit 7"], "mounts": mounts}));
        assert_eq!(ran.status.code, Some(7), "{n} mounts: {:?}", ran.status);
    }
    // This host's own ends of them are about a thousand.
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the structure outlives both calls.
    unsafe {
        assert_eq!(libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit), 0);
        limit.rlim_cur = limit.rlim_max;
        assert_eq!(libc::setrlimit(libc::RLIMIT_NOFILE, &limit), 0);
    }
    let containers: Vec<_> =
        (0..210).map(|_| start(json!({"argv": ["sh", "-c", "read x; exit 7"], "stdin": "pipe"}))).collect();
    for (n, container) in containers.iter().enumerate() {
        let main = container.main().expect("main");
        drop(main.take_stdin());
        let status = main.wait(TIMEOUT).expect("wait").expect("ended");
        assert_eq!(status.code, Some(7), "container {n}: {status:?}");
    }
}

#[test]
fn ends_are_pollable() {
    let container = start(json!({"argv": ["sleep", "0.2"]}));
    let main = container.main().expect("main");
    let poll = |fd: std::os::fd::BorrowedFd<'_>, ms: u16| {
        let mut fds = [nix::poll::PollFd::new(fd, nix::poll::PollFlags::POLLIN)];
        nix::poll::poll(&mut fds, nix::poll::PollTimeout::from(ms)).expect("poll")
    };
    assert_eq!(poll(main.pidfd(), 0), 0);
    assert_eq!(poll(container.events_fd(), 0), 0);
    for fd in [main.pidfd(), main.status_fd(), container.events_fd(), container.pidfd()] {
        assert_eq!(poll(fd.as_fd(), 20_000), 1);
    }
    container.close(None).expect("close");
    // What a process was stays readable after its container.
    assert_eq!(main.wait(None).expect("wait").expect("ended").code, Some(0));
}

#[test]
fn logs_are_bounded_and_hold_nobody_up() {
    let script = "i=0; while [ $i -lt 2000 ]; do echo line $i; i=$((i+1)); done 2>/dev/null; echo done >/data/done";
    let dir = tmp();
    let mounts = json!([format!("{}:/data:rw", dir.path().display())]);
    let container = start(json!({"argv": ["sh", "-c", script], "log_max": 4096, "mounts": mounts}));
    assert!(container.wait_end(TIMEOUT).expect("wait"));
    assert!(dir.path().join("done").exists());
    let log = container.log(0).expect("log");
    assert!(log.len() <= 4096 && log.len() > 3500 && log.starts_with(b"line 0\nline 1\n"), "{} bytes", log.len());
    assert_eq!(container.log(7).expect("log")[..7], *b"line 1\n");
    container.close(None).expect("close");
}

// --- names, detached containers ---

#[test]
fn names_are_unique_while_they_live() {
    let name = unique("one");
    let first = start(json!({"name": name}));
    let error = Container::start(&spec(json!({"name": name}))).expect_err("taken");
    assert_eq!((error.kind(), error.field()), (ErrorKind::AlreadyExists, Some("name")), "{error}");
    let found = Container::by_name(&name).expect("found");
    assert_eq!((found.id(), found.pid()), (first.id(), first.pid()));
    drop(found);
    assert!(first.is_running(), "a second handle's end is not the container's");
    first.close(None).expect("close");
    assert_eq!(Container::by_name(&name).expect_err("gone").kind(), ErrorKind::NotFound);
    start(json!({"name": name})).close(None).expect("the name is free again");
    for wrong in ["../x", "a/b", "", ".", "..", "a b", "ä", "-x", &"x".repeat(65)] {
        let error = Container::start(&spec(json!({"name": wrong}))).expect_err("no name");
        assert_eq!((error.kind(), error.field()), (ErrorKind::InvalidSpec, Some("name")), "{wrong:?}: {error}");
    }
}

#[test]
fn a_detached_container_outlives_its_handle() {
    let name = unique("detached");
    let script = "echo from main; while [ ! -e /tmp/end ]; do sleep 0.02; done; exit 5";
    let container = start(json!({"name": name, "detach": true, "argv": ["sh", "-c", script]}));
    let pid = container.pid();
    container.close(None).expect("close");
    drop(container);
    let listed = state::ls().expect("ls");
    assert!(listed.iter().any(|record| record.name == name), "{listed:?}");
    let found = Container::by_name(&name).expect("found");
    assert_eq!(found.pid(), pid);
    assert!(found.is_running());
    assert_eq!(sh_in(&found, "echo joined"), "joined\n");
    // The end of the main process can come before this one's own.
    exec_in(&found, Command::new("touch").args(["/tmp/end"]));
    assert!(found.wait_end(TIMEOUT).expect("wait"));
    assert_eq!(found.main().expect("main").wait(TIMEOUT).expect("wait").expect("ended").code, Some(5));
    drop(found);
    // The ended one can still be read, until gc or a namesake.
    let ended = Container::by_name(&name).expect("its record");
    assert!(!ended.is_running());
    assert_eq!(ended.main().expect("main").wait(TIMEOUT).expect("wait").expect("ended").code, Some(5));
    assert_eq!(ended.log(0).expect("its log"), b"from main\n");
    drop(ended);
    let again = start(json!({"name": name, "detach": true}));
    again.stop(TIMEOUT).expect("stop");
    state::gc().expect("gc");
}

#[test]
fn detach_needs_a_name() {
    let error = Container::start(&spec(json!({"detach": true}))).expect_err("no name");
    assert_eq!((error.kind(), error.field()), (ErrorKind::InvalidSpec, Some("detach")), "{error}");
}

#[test]
fn freezing_stops_everything() {
    let container = start(json!({}));
    if let Err(error) = container.freeze() {
        assert!(!can_limit(), "{error}");
        assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
        return skip("no control group, nothing to freeze");
    }
    let error = container.spawn(&Command::new("true")).expect_err("frozen");
    assert_eq!(error.kind(), ErrorKind::Frozen, "{error}");
    container.thaw().expect("thaw");
    assert_eq!(sh_in(&container, "echo thawed"), "thawed\n");
    container.freeze().expect("freeze");
    let started = Instant::now();
    container.close(None).expect("a frozen container is closed too");
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
}
