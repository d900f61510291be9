//! Times after which a container is ended, by its keeper.
//!
//! tests/run: timeout=300 vm=delegated

use std::time::{Duration, Instant};

use common::*;
use ringfence::{Container, ErrorKind, Reason};

#[allow(dead_code, reason = "each test program uses a part of it")]
mod common;

#[test]
fn a_container_without_a_main_process_ends_too() {
    let container = start(json!({"wall_time": "200ms"}));
    assert!(container.wait_end(TIMEOUT).unwrap());
    assert!(!container.is_running());
    container.close(None).unwrap();
}

#[test]
fn not_before_its_time() {
    let since = Instant::now();
    let container = start(json!({"argv": ["sleep", "60"], "wall_time": "700ms"}));
    let status = container.main().unwrap().wait(TIMEOUT).unwrap().unwrap();
    assert_eq!((status.signal, status.reason), (Some(libc::SIGKILL), Reason::WallTime));
    // The keeper counts in whole milliseconds.
    assert!(since.elapsed() >= Duration::from_millis(699), "{:?}", since.elapsed());
    container.close(None).unwrap();
}

#[test]
fn a_frozen_container_is_ended() {
    if !can_limit() {
        return skip("no control group for this caller");
    }
    let container = start(json!({"argv": ["sleep", "60"], "wall_time": "500ms"}));
    container.freeze().unwrap();
    let status = container.main().unwrap().wait(TIMEOUT).unwrap().unwrap();
    assert_eq!(status.reason, Reason::WallTime);
    container.close(None).unwrap();
}

#[test]
fn a_detached_container_is_ended_and_says_why() {
    let name = format!("times-{}", std::process::id());
    let container = start(json!({"name": name, "detach": true, "argv": ["sleep", "60"], "wall_time": "1s"}));
    container.close(None).unwrap();
    drop(container);
    // Its keeper alone is left.
    let again = Container::by_name(&name).unwrap();
    let status = again.main().unwrap().wait(TIMEOUT).unwrap().unwrap();
    assert_eq!((status.signal, status.reason), (Some(libc::SIGKILL), Reason::WallTime));
    assert!(again.wait_end(TIMEOUT).unwrap());
    drop(again);
    ringfence::state::gc().unwrap();
}

#[test]
fn limits_of_time_change_while_it_runs() {
    let container = start(json!({"argv": ["sleep", "60"], "wall_time": "1h"}));
    container.update(|spec| spec.wall_time = None).unwrap();
    container.update(|spec| spec.wall_time = Some(Duration::from_millis(1))).unwrap();
    let status = container.main().unwrap().wait(TIMEOUT).unwrap().unwrap();
    assert_eq!(status.reason, Reason::WallTime);
    container.close(None).unwrap();
}

#[test]
fn processor_time_is_counted_from_the_start() {
    if !can_limit() {
        return skip("no control group for this caller");
    }
    let container = start(json!({"argv": ["sh", "-c", "while :; do :; done"]}));
    until("it has worked", || container.usage().unwrap().cpu_usage_usec > Some(100_000));
    container.update(|spec| spec.cpu_time = Some(Duration::from_millis(50))).unwrap();
    let status = container.main().unwrap().wait(TIMEOUT).unwrap().unwrap();
    assert_eq!(status.reason, Reason::CpuTime);
    container.close(None).unwrap();
}

#[test]
fn who_is_frozen_uses_no_processor_time() {
    if !can_limit() {
        return skip("no control group for this caller");
    }
    let container = start(json!({"argv": ["sh", "-c", "while :; do :; done"], "cpu_time": "1s"}));
    container.freeze().unwrap();
    std::thread::sleep(Duration::from_millis(1500));
    assert!(container.is_running());
    container.thaw().unwrap();
    let status = container.main().unwrap().wait(TIMEOUT).unwrap().unwrap();
    assert_eq!(status.reason, Reason::CpuTime);
    assert!(container.usage().unwrap().cpu_usage_usec >= Some(1_000_000));
    container.close(None).unwrap();
}

/// Forks as fast as it can; each process but the first is gone after one to three forks.
const HERD: &str =
    r#"$SIG{CHLD} = "IGNORE"; my $n = -1; while ($n--) { my $p = fork; $n = 1 + $$ % 3 if defined $p && !$p }"#;

#[test]
fn who_forks_on_and_on_is_ended_attached_and_detached() {
    if !can_limit() {
        return skip("no control group for this caller");
    }
    for (limit, value, reason) in [("wall_time", "700ms", Reason::WallTime), ("cpu_time", "1s", Reason::CpuTime)] {
        for detach in [false, true] {
            let name = format!("herd-{limit}-{detach}-{}", std::process::id());
            let fields =
                json!({"name": name, "detach": detach, "argv": ["perl", "-e", HERD], "pids": 24, limit: value});
            let mut container = start(fields);
            let (group, _) = group_of(&container, "pids", "pids");
            if detach {
                container.close(None).unwrap();
                container = Container::by_name(&name).unwrap();
            }
            let status = container.main().unwrap().wait(TIMEOUT).unwrap().unwrap();
            assert_eq!((status.signal, status.reason), (Some(libc::SIGKILL), reason), "{limit}, detached: {detach}");
            assert!(container.wait_end(TIMEOUT).unwrap());
            assert!(!group.exists(), "a group that is gone has no processes");
            container.close(None).unwrap();
            drop(container);
        }
    }
    ringfence::state::gc().unwrap();
}

#[test]
fn without_a_group_there_is_nothing_to_read() {
    if can_limit() {
        return skip("this caller has control groups");
    }
    let e = refused(json!({"argv": ["true"], "cpu_time": "1s"}));
    assert_eq!((e.kind(), e.field()), (ErrorKind::Unsupported, Some("cpu_time")), "{e}");
    let container = start(json!({}));
    let e = container.update(|spec| spec.cpu_time = Some(Duration::from_secs(1))).unwrap_err();
    assert_eq!((e.kind(), e.field()), (ErrorKind::Unsupported, Some("cpu_time")), "{e}");
    container.close(None).unwrap();
}
