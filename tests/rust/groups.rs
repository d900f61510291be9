//! Groups inside a container: the second level of limits.
//!
//! tests/run: timeout=600 vm=root,delegated

use std::time::Duration;

use common::*;
use ringfence::spec::Stdio;
use ringfence::{Command, Container, ErrorKind, Process, Reason, Spec};

#[allow(dead_code, reason = "each test program uses a part of it")]
mod common;

/// Burns a processor until it is killed.
fn burn(container: &Container, group: Option<&str>) -> Process {
    let mut command = Command::new("sh");
    command.args(["-c", "while :; do :; done"]).stdin(Stdio::Null).stdout(Stdio::Null).stderr(Stdio::Null);
    command.cgroup = group.map(str::to_owned);
    container.spawn(&command).expect("spawn")
}

fn cpu(usage: ringfence::Usage) -> u64 {
    usage.cpu_usage_usec.expect("counted")
}

#[test]
fn limits_of_a_group_hold_within_the_container() {
    if !can_limit() {
        return skip("no control group for this caller");
    }
    let container = start(json!({"memory": "256M", "pids": 64}));
    let workers = container.group("workers", &Spec::new().memory(32 << 20).pids(8)).unwrap();
    assert_eq!(workers.usage().unwrap().memory_max, Some(32 << 20));
    let ran = exec_in(&container, workers.command("tail").arg("/dev/zero"));
    assert_eq!((ran.status.signal, ran.status.reason), (Some(libc::SIGKILL), Reason::OutOfMemory));
    assert!(workers.usage().unwrap().memory_oom_kills >= Some(1));
    // The container has more.
    let out = sh_in(&container, "head -c 100000000 /dev/zero | tail | wc -c");
    assert_eq!(out, "100000000\n");
    let forks = "for i in 1 2 3 4 5 6 7 8 9 10; do sleep 60 >/dev/null 2>&1 & done";
    let ran = exec_in(&container, workers.command("sh").args(["-c", forks]));
    assert_eq!(ran.status.code, Some(2), "{ran:?}");
    assert!(workers.usage().unwrap().pids_refused >= Some(1));
    // Those that were forked are still there.
    workers.kill().unwrap();
    workers.update(|limits| limits.pids = None).unwrap();
    assert_eq!((workers.limits().pids, workers.limits().memory), (None, Some(32 << 20)));
    let ran = exec_in(
        &container,
        workers.command("sh").args(["-c", "for i in 1 2 3 4 5 6 7 8 9; do sleep 0.1 & done; wait"]),
    );
    assert_eq!(ran.status.code, Some(0), "{ran:?}");
    workers.remove().unwrap();
    assert_eq!(workers.remove().unwrap_err().kind(), ErrorKind::NotFound);
    container.close(None).unwrap();
}

#[test]
fn shares_multiply() {
    if !can_limit() {
        return skip("no control group for this caller");
    }
    // Both on one processor: containers 100 : 300, and in the second 100 : 200, so that of 24 parts 6, 6 and 12 are due.
    let one = start(json!({"cpuset": "0", "cpu_weight": 100}));
    let three = start(json!({"cpuset": "0", "cpu_weight": 300}));
    let a = three.group("a", &Spec::new().cpu_weight(100)).unwrap();
    let b = three.group("b", &Spec::new().cpu_weight(200)).unwrap();
    let burners = [burn(&one, None), burn(&three, Some("a")), burn(&three, Some("b"))];
    std::thread::sleep(Duration::from_millis(300));
    let figures = || [cpu(one.usage().unwrap()), cpu(a.usage().unwrap()), cpu(b.usage().unwrap())];
    let before = figures();
    std::thread::sleep(Duration::from_secs(6));
    let used: Vec<f64> = figures().iter().zip(before).map(|(after, before)| (after - before) as f64).collect();
    let whole: f64 = used.iter().sum();
    for ((used, due), name) in used.iter().zip([0.25, 0.25, 0.5]).zip(["the first", "a", "b"]) {
        let share = used / whole;
        assert!((share - due).abs() < 0.1 * due.max(0.3), "{name}: {share} of {whole} us, due {due}");
    }
    drop(burners);
    one.close(None).unwrap();
    three.close(None).unwrap();
}

#[test]
fn a_frozen_group_stands_still_and_the_others_run() {
    if !can_limit() {
        return skip("no control group for this caller");
    }
    let container = start(json!({}));
    let group = match container.group("still", &Spec::new()) {
        Ok(group) => group,
        Err(e) => panic!("{e}"),
    };
    let process = burn(&container, Some("still"));
    if let Err(e) = group.freeze() {
        assert_eq!(e.kind(), ErrorKind::Unsupported, "{e}");
        container.close(None).unwrap();
        return skip(&e.to_string());
    }
    let before = cpu(group.usage().unwrap());
    assert_eq!(sh_in(&container, "echo runs"), "runs\n");
    assert_eq!(cpu(group.usage().unwrap()), before);
    group.thaw().unwrap();
    until("it runs again", || cpu(group.usage().unwrap()) > before);
    group.kill().unwrap();
    assert_eq!(process.wait(None).unwrap().unwrap().signal, Some(libc::SIGKILL));
    container.close(None).unwrap();
}

#[test]
fn bad_groups_are_refused() {
    if !can_limit() {
        return skip("no control group for this caller");
    }
    let container = start(json!({"memory": "64M"}));
    for name in ["", "a/b", "..", "payload", "cgroup.procs", "x y"] {
        let e = container.group(name, &Spec::new()).unwrap_err();
        assert_eq!(e.kind(), ErrorKind::InvalidArgument, "{name}: {e}");
    }
    let e = container.group("a", &Spec::new().hostname("x")).unwrap_err();
    assert_eq!((e.field(), e.kind()), (Some("hostname"), ErrorKind::InvalidSpec), "{e}");
    let e = container.group("a", &Spec::new().memory(1)).unwrap_err();
    assert_eq!(e.field(), Some("memory"), "{e}");
    let e = container.group("a", &Spec::new().cpuset("8000")).unwrap_err();
    assert_eq!(e.field(), Some("cpuset"), "{e}");
    // The refused ones left nothing.
    let made = container.group("a", &Spec::new()).unwrap();
    assert_eq!(container.group("a", &Spec::new()).unwrap_err().kind(), ErrorKind::AlreadyExists);
    assert_eq!(container.find_group("a").unwrap().name(), "a");
    assert_eq!(container.find_group("b").unwrap_err().kind(), ErrorKind::NotFound);
    let mut command = Command::new("true");
    command.cgroup = Some("b".into());
    let e = container.spawn(&command).unwrap_err();
    assert_eq!((e.field(), e.kind()), (Some("cgroup"), ErrorKind::NotFound), "{e}");
    let sleeper = made.command("sleep").arg("60").stdin(Stdio::Null).spawn().unwrap();
    let e = made.remove().unwrap_err();
    assert_eq!(e.errno(), libc::EBUSY, "{e}");
    drop(sleeper);
    container.close(None).unwrap();
}
