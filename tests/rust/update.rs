//! Limits that change while containers run.
//!
//! tests/run: timeout=600 vm=delegated

use std::fs;
use std::sync::atomic::{AtomicU64, Ordering};

use common::*;
use ringfence::{Container, ErrorKind};

#[allow(dead_code, reason = "each test program uses a part of it")]
mod common;

#[test]
fn many_threads_change_many_containers() {
    if !can_limit() {
        return skip("no control group for this caller");
    }
    const CONTAINERS: usize = 50;
    const THREADS: usize = 16;
    const CALLS: u64 = 2_000;
    let all: Vec<Container> = (0..CONTAINERS).map(|_| start(json!({"memory": "64M", "pids": 32}))).collect();
    let last: Vec<AtomicU64> = (0..CONTAINERS).map(|_| AtomicU64::new(0)).collect();
    let next = AtomicU64::new(0);
    // The calls of one container take turns, so what the last one wrote is what has to be found.
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                loop {
                    let n = next.fetch_add(1, Ordering::Relaxed);
                    if n >= CALLS {
                        return;
                    }
                    let i = n as usize % CONTAINERS;
                    all[i]
                        .update(|spec| {
                            last[i].store(n, Ordering::Relaxed);
                            spec.memory = Some((64 << 20) + (n << 12));
                            spec.pids = Some(100 + n);
                            spec.cpus = n.is_multiple_of(3).then_some(0.5 + n as f64 / 4000.0);
                        })
                        .unwrap_or_else(|e| panic!("{e}"));
                }
            });
        }
    });
    for (container, last) in all.iter().zip(&last) {
        let (usage, n) = (container.usage().unwrap(), last.load(Ordering::Relaxed));
        assert_eq!((usage.memory_max, usage.pids_max), (Some((64 << 20) + (n << 12)), Some(100 + n)));
        assert_eq!(container.spec().pids, Some(100 + n));
        // The control files themselves say so.
        let read = |controller: &str, v1: &str, v2: &str| {
            let (path, on_v2) = group_of(container, controller, controller);
            fs::read_to_string(path.join(if on_v2 { v2 } else { v1 })).unwrap().trim().to_owned()
        };
        assert_eq!(read("memory", "memory.limit_in_bytes", "memory.max"), ((64 << 20) + (n << 12)).to_string());
        assert_eq!(read("pids", "pids.max", "pids.max"), (100 + n).to_string());
        let quota = read("cpu", "cpu.cfs_quota_us", "cpu.max");
        let cpus = n.is_multiple_of(3).then(|| format!("{:.0}", (0.5 + n as f64 / 4000.0) * 100_000.0));
        let quota = quota.split(' ').next().unwrap().replace("-1", "max");
        assert_eq!(quota, cpus.unwrap_or_else(|| "max".to_owned()), "{n}");
    }
    for container in all {
        container.close(None).unwrap();
    }
}

#[test]
fn what_has_ended_cannot_change() {
    if !can_limit() {
        return skip("no control group for this caller");
    }
    let container = start(json!({"argv": ["true"], "memory": "64M"}));
    container.wait_end(None).unwrap();
    let e = container.update(|spec| spec.memory = Some(32 << 20)).unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Closed, "{e}");
    let closed = start(json!({"memory": "64M"}));
    closed.close(None).unwrap();
    assert_eq!(closed.update(|spec| spec.memory = None).unwrap_err().kind(), ErrorKind::Closed);
}

#[test]
fn a_running_payload_gets_the_new_limit() {
    if !can_limit() {
        return skip("no control group for this caller");
    }
    let container = start(json!({"memory": "256M", "swap": 0}));
    sh_in(&container, "head -c 60000000 /dev/urandom > /dev/shm/a");
    let used = container.usage().unwrap().memory_current.unwrap();
    assert!(used >= 60_000_000);
    // tmpfs cannot be reclaimed without swap.
    let e = container.update(|spec| spec.memory = Some(32 << 20)).unwrap_err();
    assert_eq!((e.field(), e.errno()), (Some("memory"), libc::EBUSY), "{e}");
    assert_eq!(container.usage().unwrap().memory_max, Some(256 << 20));
    sh_in(&container, "rm /dev/shm/a");
    container.update(|spec| spec.memory = Some(32 << 20)).unwrap();
    let ran = exec_in(&container, ringfence::Command::new("tail").arg("/dev/zero"));
    assert_eq!(ran.status.reason, ringfence::Reason::OutOfMemory);
    container.close(None).unwrap();
}

#[test]
fn memory_is_reclaimed_on_request() {
    if !can_limit() {
        return skip("no control group for this caller");
    }
    let container = start(json!({"memory": "256M"}));
    match container.reclaim(1 << 20) {
        Err(e) if e.kind() == ErrorKind::Unsupported => {
            assert!(e.hint().is_some(), "{e}");
            container.close(None).unwrap();
            return skip(&e.to_string());
        }
        result => drop(result.unwrap()),
    }
    // Page cache of a file on the container's own mount, if that is not a tmpfs: else there is nothing to take back.
    assert!(!container.reclaim(1 << 40).unwrap());
    container.close(None).unwrap();
}
