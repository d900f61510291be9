//! Pseudoterminals, /dev/shm and kernel parameters of running containers; updates that are taken back; updates that last.
//!
//! tests/run: timeout=300 vm=root,delegated

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::Duration;

use common::*;
use ringfence::{Command, Container, ErrorKind, Spec};

#[allow(dead_code, reason = "each test program uses a part of it")]
mod common;

/// The first number that a process inside is refused.
const PTYS: &str = r#"perl -e 'for (1..9) { open($f[$_], "+<", "/dev/ptmx") or print($_), exit }'"#;
const SHM: &str = "stat -f -c %b /dev/shm";
const SYSCTLS: &str = "cat /proc/sys/kernel/msgmax /proc/sys/net/core/somaxconn";

fn all_of(container: &Container) -> [String; 3] {
    [PTYS, SHM, SYSCTLS].map(|script| sh_in(container, script))
}

fn change_all(spec: &mut Spec) {
    spec.ptys = Some(3);
    spec.shm_size = Some(1 << 20);
    spec.sysctls.extend([("kernel.msgmax", "1234"), ("net.core.somaxconn", "99")].map(|(k, v)| (k.into(), v.into())));
}

const CHANGED: [&str; 3] = ["4", "256\n", "1234\n99\n"];
const UNCHANGED: [&str; 3] = ["", "16384\n", "8192\n4096\n"];

fn unique(what: &str) -> String {
    format!("live-{what}-{}", std::process::id())
}

/// The directory of a named container.
fn record_of(name: &str) -> PathBuf {
    let chosen = std::env::var_os("RINGFENCE_STATE_DIR").map(PathBuf::from);
    let uid = nix::unistd::geteuid();
    let runtime = std::env::var_os("XDG_RUNTIME_DIR").map(|dir| Path::new(&dir).join("ringfence"));
    let places = [chosen, Some("/run/ringfence".into()), runtime, Some(format!("/tmp/ringfence-{uid}").into())];
    let names = places.into_iter().flatten().map(|dir| dir.join("names").join(name));
    names.into_iter().find(|dir| dir.join("record.json").exists()).expect("it is recorded")
}

fn record(name: &str) -> Value {
    serde_json::from_str(&fs::read_to_string(record_of(name).join("record.json")).unwrap()).unwrap()
}

fn end(container: &Container) {
    container.kill().unwrap();
    assert!(container.wait_end(TIMEOUT).unwrap());
    container.close(None).unwrap();
    ringfence::gc().unwrap();
}

#[test]
fn a_frozen_container_changes() {
    if !can_limit() {
        return skip("without a control group there is no freezer");
    }
    let container = start(json!({"pids": 12}));
    container.freeze().unwrap();
    container.update(change_all).unwrap();
    container.thaw().unwrap();
    assert_eq!(all_of(&container), CHANGED);
    container.close(None).unwrap();
}

#[test]
fn every_kind_of_ids_and_namespaces() {
    let all =
        [json!({}), json!({"idmap": "host"}), json!({"init": false, "argv": ["sleep", "60"]}), json!({"net": "none"})];
    for fields in all {
        if fields["idmap"] == "host" && !is_root() {
            continue;
        }
        let container = start(fields.clone());
        container.update(change_all).unwrap_or_else(|e| panic!("{fields}: {e}"));
        assert_eq!(all_of(&container), CHANGED, "{fields}");
        container
            .update(|spec| {
                (spec.ptys, spec.shm_size) = (None, None);
                spec.sysctls.clear();
            })
            .unwrap();
        assert_eq!(all_of(&container), UNCHANGED, "{fields}");
        assert_eq!(container.spec().to_json(), Spec::from_json(&fields.to_string()).unwrap().to_json());
        container.close(None).unwrap();
    }
}

#[test]
fn who_is_pid_one_can_be_joined_at_once() {
    // The stage that told of the start may not have ended yet, least of all when others want the processor.
    let one_after_the_other = || {
        for _ in 0..times(20) {
            let container = start(json!({"argv": ["sleep", "60"], "init": false}));
            let changed = container.update(|spec| spec.ptys = Some(3));
            container.close(None).unwrap();
            assert_eq!(changed, Ok(()));
        }
    };
    std::thread::scope(|scope| (0..16).for_each(|_| drop(scope.spawn(one_after_the_other))));
}

#[test]
fn the_group_of_terminals_stays() {
    let container = start(json!({}));
    let script = "perl -e 'open(F, \"+<\", \"/dev/ptmx\") or die; system(\"stat -c %a:%g /dev/pts/0\")'";
    let before = sh_in(&container, script);
    container.update(|spec| spec.ptys = Some(2)).unwrap();
    assert_eq!(sh_in(&container, script), before);
    container.close(None).unwrap();
}

#[test]
fn what_is_in_use_is_not_taken_away() {
    let container =
        start(json!({"argv": ["perl", "-e", "for (1..3) { open($f[$_], '+<', '/dev/ptmx') or die } sleep"]}));
    until("it has three", || sh_in(&container, "ls /dev/pts").contains('2'));
    let error = container.update(|spec| spec.ptys = Some(2)).unwrap_err();
    assert_eq!((error.field(), error.errno()), (Some("ptys"), libc::EBUSY), "{error}");
    container.update(|spec| spec.ptys = Some(3)).unwrap();
    container.close(None).unwrap();
}

#[test]
fn a_host_s_file_system_is_not_changed() {
    if !is_root() {
        return skip("only root could change it");
    }
    let before = nix::sys::statvfs::statvfs("/dev/shm").unwrap().blocks();
    let container = start(json!({"idmap": "host", "mounts": ["/dev/shm:/dev/shm:rw"]}));
    let error = container.update(|spec| spec.shm_size = Some(1 << 20)).unwrap_err();
    assert_eq!((error.kind(), error.field()), (ErrorKind::Unsupported, Some("shm_size")), "{error}");
    assert_eq!(nix::sys::statvfs::statvfs("/dev/shm").unwrap().blocks(), before);
    container.close(None).unwrap();
}

#[test]
fn what_a_parameter_was_is_known_after_any_number_of_changes() {
    let container = start(json!({"sysctls": {"kernel.msgmax": 1000}}));
    for value in ["1001", "1002"] {
        container.update(|spec| drop(spec.sysctls.insert("kernel/msgmax".into(), value.into()))).unwrap_err();
        container.update(|spec| drop(spec.sysctls.insert("kernel.msgmax".into(), value.into()))).unwrap();
    }
    container.update(|spec| spec.sysctls.clear()).unwrap();
    assert_eq!(sh_in(&container, SYSCTLS), "8192\n4096\n");
    container.close(None).unwrap();
}

#[test]
fn what_cannot_come_back_is_refused() {
    // It reads as -1 until it is set, and cannot be set to that.
    let container = start(json!({"idmap": "auto"}));
    match container.update(|spec| drop(spec.sysctls.insert("kernel.msg_next_id".into(), "5".into()))) {
        // Without CONFIG_CHECKPOINT_RESTORE there is none.
        Err(error) => assert_eq!(error.field(), Some("sysctls[\"kernel.msg_next_id\"]"), "{error}"),
        Ok(()) => {
            let change = |spec: &mut Spec| {
                spec.shm_size = Some(1 << 20);
                spec.sysctls.clear();
            };
            let error = container.update(change).unwrap_err();
            assert_eq!(error.field(), Some("sysctls[\"kernel.msg_next_id\"]"), "{error}");
            assert_eq!(sh_in(&container, "cat /proc/sys/kernel/msg_next_id"), "5\n");
            assert_eq!(sh_in(&container, SHM), UNCHANGED[1]);
        }
    }
    container.close(None).unwrap();
}

#[test]
fn what_a_parameter_was_may_not_be_known() {
    let name = unique("before");
    let container = start(json!({"name": name, "detach": true, "sysctls": {"kernel.msgmax": 1000}}));
    // As a record has it that was written when nobody asked what it was.
    let mut known = record(&name);
    known["data"].as_object_mut().unwrap().remove("sysctls_before").unwrap();
    fs::write(record_of(&name).join("record.json"), known.to_string()).unwrap();
    let error = container.update(|spec| spec.sysctls.clear());
    let changed = container.update(|spec| drop(spec.sysctls.insert("kernel.msgmax".into(), "1001".into())));
    let seen = sh_in(&container, SYSCTLS);
    end(&container);
    let error = error.unwrap_err();
    assert_eq!((error.kind(), error.field()), (ErrorKind::InvalidSpec, Some("sysctls[\"kernel.msgmax\"]")), "{error}");
    assert_eq!((changed, &*seen), (Ok(()), "1001\n4096\n"));
}

#[test]
fn a_detached_container_by_name() {
    let name = unique("name");
    let container = start(json!({"name": name, "detach": true, "sysctls": {"net.core.somaxconn": 77}}));
    container.update(change_all).unwrap();
    container.close(None).unwrap();
    let found = Container::by_name(&name).unwrap();
    let seen = all_of(&found);
    // Another program knows what they were.
    let back = found.update(|spec| {
        (spec.ptys, spec.shm_size) = (None, None);
        spec.sysctls.clear();
    });
    let after = all_of(&found);
    end(&found);
    assert_eq!((seen, back), (CHANGED.map(str::to_owned), Ok(())));
    assert_eq!(after, UNCHANGED);
}

#[test]
fn a_record_that_cannot_be_written() {
    let name = unique("record");
    let limits = if can_limit() { json!({"pids": 20}) } else { json!({}) };
    let container = start(with(json!({"name": name, "detach": true, "disk": "8M", "wall_time": "1h"}), limits));
    // The next record is written under this name.
    let next = record_of(&name).join("record.new");
    fs::create_dir(&next).unwrap();
    let change = |spec: &mut Spec| {
        change_all(spec);
        spec.disk = Some((16 << 20).into());
        spec.wall_time = Some(Duration::from_secs(7200));
        spec.pids = spec.pids.map(|_| 30);
    };
    let error = container.update(change).unwrap_err();
    let after = (all_of(&container), container.usage().ok(), container.spec());
    fs::remove_dir(&next).unwrap();
    let again = container.update(change);
    let changed = all_of(&container);
    let recorded = record(&name)["data"]["spec"]["shm_size"].clone();
    end(&container);
    assert_eq!(error.errno(), libc::EISDIR, "{error}");
    assert!(!error.to_string().contains("could not"), "{error}");
    let (parts, usage, spec) = after;
    assert_eq!(parts, UNCHANGED);
    assert_eq!(
        (spec.disk.unwrap().size, spec.shm_size, spec.wall_time),
        (8 << 20, None, Some(Duration::from_secs(3600)))
    );
    let usage = usage.expect("the layer is counted");
    assert_eq!(usage.disk_max, Some(8 << 20));
    assert_eq!(usage.pids_max, can_limit().then_some(20));
    assert_eq!(again, Ok(()));
    assert_eq!((changed, recorded), (CHANGED.map(str::to_owned), json!(1 << 20)));
}

#[test]
fn a_late_part_takes_the_early_ones_back() {
    if !can_limit() {
        return skip("no control group for this caller");
    }
    let container = start(json!({"pids": 20, "disk": "8M"}));
    sh_in(&container, "head -c 4000000 /dev/zero > /tmp/a");
    let error = container
        .update(|spec| {
            change_all(spec);
            spec.pids = Some(40);
            spec.disk = Some((1 << 20).into());
        })
        .unwrap_err();
    assert_eq!((error.field(), error.errno()), (Some("disk"), libc::EBUSY), "{error}");
    assert_eq!(all_of(&container), UNCHANGED);
    assert_eq!(container.usage().unwrap().pids_max, Some(20));
    container.close(None).unwrap();
}

#[test]
fn readers_do_not_wait_for_an_update() {
    let container = start(json!({"disk": "8M", "argv": ["sleep", "1"]}));
    let (inside, begun) = mpsc::channel();
    let (go, gone) = mpsc::channel::<()>();
    std::thread::scope(|scope| {
        let container = &container;
        let updating = scope.spawn(move || {
            container.update(|spec| {
                inside.send(()).unwrap();
                spec.wall_time = Some(Duration::from_secs(3600));
                let _ = gone.recv();
            })
        });
        begun.recv().unwrap();
        let (answer, answered) = mpsc::channel();
        scope.spawn(move || {
            let spec = container.spec();
            let disk = container.usage().unwrap().disk_max;
            let status = container.main().unwrap().wait(TIMEOUT).unwrap().unwrap();
            let ended = container.wait_end(TIMEOUT).unwrap();
            answer.send((spec.wall_time, disk, status.code, ended)).unwrap();
        });
        let seen = answered.recv_timeout(TIMEOUT.unwrap());
        // The update ends in any case, or nothing here would.
        drop(go);
        let updated = updating.join().unwrap();
        assert_eq!(seen, Ok((None, Some(8 << 20), Some(0), true)));
        assert_eq!(updated.unwrap_err().kind(), ErrorKind::Closed);
    });
    container.close(None).unwrap();
}

#[test]
fn an_update_may_ask_for_the_spec() {
    let container = start(json!({}));
    container
        .update(|spec| {
            assert_eq!(container.spec().ptys, None);
            spec.ptys = Some(4);
        })
        .unwrap();
    assert_eq!(container.spec().ptys, Some(4));
    container.close(None).unwrap();
}

fn with_capability(name: &str) -> Command {
    let mut command = Command::new("true");
    command.set("capabilities", json!({"add": [name]}).to_string().as_bytes()).unwrap();
    command
}

#[test]
fn other_programs_know_what_was_lent() {
    let name = unique("lent");
    let container = start(json!({"name": name, "detach": true}));
    container.close(None).unwrap();
    let found = Container::by_name(&name).unwrap();
    // A second handle, as another program has it: it was there before.
    found.close(None).unwrap();
    let (one, other) = (Container::by_name(&name).unwrap(), Container::by_name(&name).unwrap());
    let harmless = one.spawn(&with_capability("sys_ptrace")).map(drop);
    let unlent = record(&name)["data"]["lent"].clone();
    let limited = other.update(|spec| spec.shm_size = Some(1 << 20));
    let refused = one.spawn(&with_capability("sys_admin")).map(drop);
    let unlimited = other.update(|spec| spec.shm_size = None);
    let lent = one.spawn(&with_capability("sys_admin")).map(drop);
    let recorded = record(&name)["data"]["lent"].clone();
    let late = other.update(|spec| spec.disk = Some((8 << 20).into()));
    end(&one);
    other.close(None).unwrap();
    assert_eq!((harmless, unlent), (Ok(()), Value::Null));
    assert_eq!((limited, unlimited, lent, recorded), (Ok(()), Ok(()), Ok(()), json!(["sys_admin"])));
    let refused = refused.unwrap_err();
    assert_eq!((refused.kind(), refused.field()), (ErrorKind::InvalidSpec, Some("capabilities")), "{refused}");
    let late = late.unwrap_err();
    assert_eq!((late.kind(), late.field()), (ErrorKind::InvalidSpec, Some("disk")), "{late}");
}

#[test]
fn capabilities_and_limits_at_once() {
    // Whichever comes first, the other is refused: never both.
    for _ in 0..times(20) {
        let container = start(json!({}));
        let barrier = std::sync::Barrier::new(2);
        let (limited, lent) = std::thread::scope(|scope| {
            let limit = scope.spawn(|| {
                barrier.wait();
                container.update(|spec| spec.shm_size = Some(1 << 20)).is_ok()
            });
            barrier.wait();
            let lent = container.spawn(&with_capability("sys_admin")).is_ok();
            (limit.join().unwrap(), lent)
        });
        assert!(limited != lent, "limited: {limited}, lent: {lent}");
        container.close(None).unwrap();
    }
}
