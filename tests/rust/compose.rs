//! Groups of containers with an order: who starts after whom, all or none, the order of the stops.
//!
//! tests/run: vm=root,user

use std::fs;
use std::path::Path;
use std::time::Duration;

use common::*;
use ringfence::{ErrorKind, Group, Member, Pod, Spec};

#[allow(dead_code, reason = "each test program uses a part of it")]
mod common;

/// Writes down its end when it is asked to; lives until then.
fn tells(name: &str, log: &Path, after: &[&str]) -> Value {
    let script = format!("trap 'echo {name} >>/log; exit 0' TERM; echo up; while :; do sleep 0.02; done");
    json!({
        "argv": ["sh", "-c", script],
        "mounts": [{"source": log, "target": "/log", "rw": true}],
        "after": after,
    })
}

#[track_caller]
fn member(value: Value) -> Member {
    Member::from_json(&value.to_string()).unwrap_or_else(|e| panic!("{e}"))
}

fn log(dir: &Tmp) -> std::path::PathBuf {
    let path = dir.path().join("log");
    fs::write(&path, "").expect("a file");
    path
}

#[test]
fn they_start_after_what_they_need_and_stop_in_reverse() {
    let dir = tmp();
    let log = log(&dir);
    let group = Group::new();
    group.add("web", member(tells("web", &log, &["db", "cache"]))).unwrap();
    group.add("cache", member(tells("cache", &log, &["disk"]))).unwrap();
    group.add("disk", member(tells("disk", &log, &[]))).unwrap();
    group.add("db", member(tells("db", &log, &["disk"]))).unwrap();
    group.add("loner", member(json!({"argv": ["sleep", "1000"]}))).unwrap();
    assert_eq!(group.order().unwrap(), [vec!["disk", "loner"], vec!["cache", "db"], vec!["web"]]);
    assert_eq!(group.names(), ["web", "cache", "disk", "db", "loner"]);
    assert_eq!(group.container("db").unwrap_err().kind(), ErrorKind::Closed);

    group.start(TIMEOUT).unwrap();
    assert!(group.is_started());
    let ticks = |name: &str| {
        let stat = fs::read_to_string(format!("/proc/{}/stat", group.container(name).unwrap().pid())).unwrap();
        let fields = stat.rsplit(')').next().unwrap().split_whitespace();
        // proc_pid_stat(5): the 22nd, two before the first of these.
        fields.into_iter().nth(19).unwrap().parse::<u64>().unwrap()
    };
    assert!(ticks("disk") <= ticks("db") && ticks("disk") <= ticks("cache"));
    assert!(ticks("db") <= ticks("web") && ticks("cache") <= ticks("web"));
    for error in [group.start(None).unwrap_err(), group.add("late", Member::default()).unwrap_err()] {
        assert_eq!((error.kind(), error.errno()), (ErrorKind::InvalidArgument, libc::EBUSY), "{error}");
    }
    let unknown = group.container("wbe").unwrap_err();
    assert_eq!((unknown.kind(), unknown.field()), (ErrorKind::NotFound, Some("name")));

    // They can be asked to end only when they have set their traps.
    for name in ["web", "cache", "disk", "db"] {
        let container = group.container(name).unwrap();
        until("the trap", || container.log(0).unwrap() == b"up\n");
    }
    assert!(!group.wait_end(Some(Duration::ZERO)).unwrap());
    assert_eq!(group.wait_any(Some(Duration::from_millis(1))).unwrap(), None);
    group.container("loner").unwrap().kill().unwrap();
    assert_eq!(group.wait_any(TIMEOUT).unwrap().as_deref(), Some("loner"));

    let disk = group.container("disk").unwrap();
    group.close(TIMEOUT).unwrap();
    assert!(!disk.is_running());
    let told = fs::read_to_string(&log).unwrap();
    let order: Vec<&str> = told.lines().collect();
    assert_eq!((order.len(), order[0], order[3]), (4, "web", "disk"), "{order:?}");
    group.close(None).unwrap();
    for error in [
        group.start(None).unwrap_err(),
        group.wait_end(None).unwrap_err(),
        group.container("db").unwrap_err(),
        group.kill().unwrap_err(),
    ] {
        assert_eq!(error.kind(), ErrorKind::Closed, "{error}");
    }
}

#[test]
fn they_wait_until_the_others_are_ready() {
    let dir = tmp();
    let log = log(&dir);
    let says = |name: &str, script: &str, fields: Value| {
        let argv = json!(["sh", "-c", format!("echo {name} starts >>/log; {script}; exec sleep 1000")]);
        let mounts = json!([{"source": log, "target": "/log", "rw": true}]);
        member(with(json!({"argv": argv, "mounts": mounts}), fields))
    };
    let group = Group::new();
    let slow = "sleep 0.2; echo db is ready >>/log; echo ready";
    group.add("web", says("web", "true", json!({"after": "db"}))).unwrap();
    group.add("db", says("db", slow, json!({"wait_for": {"log": "^ready$"}}))).unwrap();
    group.start(TIMEOUT).unwrap();
    until("all said", || fs::read_to_string(&log).unwrap().lines().count() == 3);
    assert_eq!(fs::read_to_string(&log).unwrap(), "db starts\ndb is ready\nweb starts\n");
    group.close(Some(Duration::ZERO)).unwrap();

    // Not in time: who, why, and what it had said. Or at once when it has ended.
    // Long enough for a start on an emulated processor.
    let slow = std::env::var("RINGFENCE_TEST_TIER").is_ok_and(|tier| tier == "vm");
    let patience = Duration::from_secs(if slow { 6 } else { 1 });
    for (script, timeout, kind) in [
        ("echo still here", Some(patience), ErrorKind::TimedOut),
        ("echo still here; exit 3", TIMEOUT, ErrorKind::Closed),
    ] {
        let group = Group::new();
        group.add("idle", member(json!({"argv": ["sleep", "1000"]}))).unwrap();
        group.add("db", says("db", script, json!({"after": "idle", "wait_for": {"port": 5432}}))).unwrap();
        group.add("web", says("web", "true", json!({"after": "db"}))).unwrap();
        let error = group.start(timeout).unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
        assert!(
            error.to_string().starts_with("group member \"db\": ") && error.to_string().contains("port 5432"),
            "{error}"
        );
        assert_eq!(error.log_tail(), Some("still here\n"));
        assert_eq!(group.container("idle").unwrap_err().kind(), ErrorKind::Closed);
    }
}

#[test]
fn all_or_none() {
    let dir = tmp();
    let log = log(&dir);
    let group = Group::new();
    // Asked to end before it has set its trap, one would tell nothing.
    let up = json!({"wait_for": {"log": "^up$"}});
    group.add("db", member(with(tells("db", &log, &[]), up.clone()))).unwrap();
    group.add("web", member(with(tells("web", &log, &["db"]), up))).unwrap();
    group.add("broken", member(json!({"argv": ["/no/such/program"], "after": "web"}))).unwrap();
    group.add("never", member(json!({"after": ["broken"], "argv": ["sleep", "1000"]}))).unwrap();
    let error = group.start(TIMEOUT).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(error.to_string().starts_with("group member \"broken\": "), "{error}");
    assert!(!group.is_started());
    assert_eq!(group.container("db").unwrap_err().kind(), ErrorKind::Closed);
    // What was started was stopped, who needs another before that one; and the next attempt says the same.
    assert_eq!(fs::read_to_string(&log).unwrap(), "web\ndb\n");
    assert_eq!(group.start(TIMEOUT).unwrap_err(), error);
    assert_eq!(fs::read_to_string(&log).unwrap(), "web\ndb\nweb\ndb\n");

    // From another thread, or by the caller's own word, a start is given up.
    let group = Group::new();
    group.add("one", member(json!({"argv": ["sleep", "1000"]}))).unwrap();
    let error = group.start_while(TIMEOUT, || false).map(|()| group.container("one").unwrap());
    match error {
        Ok(container) => assert!(container.is_running(), "it was faster"),
        Err(error) => assert_eq!((error.kind(), error.errno()), (ErrorKind::Closed, libc::ECANCELED)),
    }
    group.close(Some(Duration::ZERO)).unwrap();
}

#[test]
fn what_can_never_start_is_refused() {
    let group = Group::new();
    let error = group.start(None).unwrap_err();
    assert_eq!(error.to_string(), "the group has no members (EINVAL)");
    group.add("a", member(json!({"after": ["c"]}))).unwrap();
    group.add("b", member(json!({"after": ["a"]}))).unwrap();
    let error = group.start(None).unwrap_err();
    assert_eq!((error.kind(), error.field()), (ErrorKind::InvalidSpec, Some("after")));
    assert_eq!(error.to_string(), "group member \"a\": after: the group has no member \"c\"; it has a, b");
    group.add("c", member(json!({"after": ["x", "b"]}))).unwrap();
    group.add("x", Member::default()).unwrap();
    for error in [group.start(None).unwrap_err(), group.order().unwrap_err()] {
        assert_eq!(error.to_string(), "group member \"a\": after: they wait for each other: a after c after b after a");
    }
    group.add_json("self", "{\"after\": \"self\"}").unwrap();
    let refused = |name: &str, json: &str| group.add_json(name, json).unwrap_err();
    for (error, kind, field) in [
        (refused("a", "{}"), ErrorKind::AlreadyExists, Some("name")),
        (refused("a/b", "{}"), ErrorKind::InvalidSpec, Some("name")),
        (refused("d", "{\"memroy\": 1}"), ErrorKind::InvalidSpec, Some("memroy")),
        (refused("d", "{\"detach\": true, \"name\": \"d\"}"), ErrorKind::InvalidSpec, Some("detach")),
        (refused("d", "{\"after\": [1]}"), ErrorKind::InvalidSpec, Some("after[0]")),
        (refused("d", "{\"after\": {}}"), ErrorKind::InvalidSpec, Some("after")),
        (refused("d", "{\"wait_for\": {\"port\": 0}}"), ErrorKind::InvalidArgument, Some("wait_for.port")),
        (refused("d", "{\"wait_for\": {\"ports\": 1}}"), ErrorKind::InvalidArgument, Some("wait_for.ports")),
        (refused("d", "{\"wait_for\": {}}"), ErrorKind::InvalidArgument, Some("wait_for")),
        (refused("d", "[]"), ErrorKind::InvalidSpec, None),
        (refused("d", "{"), ErrorKind::InvalidSpec, None),
    ] {
        assert_eq!((error.kind(), error.field()), (kind, field), "{error}");
    }
    // All of a description or nothing of it.
    let error = group.merge_json("{\"e\": {}, \"f\": {\"cpus\": -1}}").unwrap_err();
    assert!(error.to_string().starts_with("group member \"f\": cpus"), "{error}");
    assert_eq!(group.names(), ["a", "b", "c", "x", "self"]);
    let error = Group::from_json("[]").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidSpec);
    let many: serde_json::Map<String, Value> = (0..=Group::MOST).map(|i| (format!("m{i}"), json!({}))).collect();
    assert_eq!(group.merge_json(&Value::Object(many).to_string()).unwrap_err().kind(), ErrorKind::Exhausted);
}

#[test]
fn in_a_pod_they_reach_each_other() {
    let pod = Pod::start(&Spec::new(), Pod::SHARE).unwrap();
    let group = Group::in_pod(&pod);
    group.merge_json("{\"server\": {}, \"client\": {\"after\": [\"server\"]}}").unwrap();
    group.start(TIMEOUT).unwrap();
    let _listener = group.container("server").unwrap().listen("127.0.0.1:80", 1).unwrap();
    group.container("client").unwrap().connect("127.0.0.1:80", TIMEOUT).unwrap();
    group.close(None).unwrap();
    assert!(pod.is_running() && pod.containers().is_empty());
    pod.close(None).unwrap();
}

#[test]
fn a_group_that_is_dropped_leaves_nothing() {
    let group = Group::new();
    group.add("one", member(json!({"argv": ["sleep", "1000"]}))).unwrap();
    group.start(TIMEOUT).unwrap();
    let pid = group.container("one").unwrap().pid();
    drop(group);
    until("its end", || !Path::new(&format!("/proc/{pid}")).exists());
}
