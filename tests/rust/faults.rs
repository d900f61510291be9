//! What others do to a container's control groups, and processors that go away: clear errors, and nothing half done.
//!
//! tests/run: timeout=300 threads=1 vm=root

use std::fs;
use std::path::{Path, PathBuf};

use common::*;
use ringfence::spec::Stdio;
use ringfence::{Container, ErrorKind};

#[allow(dead_code, reason = "each test program uses a part of it")]
mod common;

/// A group of the test's own; removed when its processes are gone.
struct Elsewhere(PathBuf);

impl Drop for Elsewhere {
    fn drop(&mut self) {
        until("the processes are gone", || fs::remove_dir(&self.0).is_ok() || !self.0.exists());
    }
}

/// Moves all processes of a group into a new one beside it: on v2 the group above can have none.
fn move_out(group: &Path) -> Option<Elsewhere> {
    let path = group.with_extension("elsewhere");
    fs::create_dir(&path).ok()?;
    let elsewhere = Elsewhere(path);
    let procs = fs::read_to_string(group.join("cgroup.procs")).ok()?;
    procs.lines().all(|pid| fs::write(elsewhere.0.join("cgroup.procs"), pid).is_ok()).then_some(elsewhere)
}

#[test]
fn who_was_moved_out_is_not_taken_for_frozen() {
    if !can_limit() {
        return skip("no control group for this caller");
    }
    let container = start(json!({"argv": ["sleep", "60"], "pids": 20}));
    let info: Value = serde_json::from_str(&container.info_json()).unwrap();
    let groups = info["cgroup"]["groups"].as_array().unwrap();
    let moved: Vec<Option<Elsewhere>> = groups.iter().map(|g| move_out(g["path"].as_str().unwrap().as_ref())).collect();
    if moved.iter().any(Option::is_none) {
        container.close(None).unwrap();
        return skip("processes cannot be moved out here");
    }
    let e = container.freeze().unwrap_err();
    assert_eq!((e.kind(), e.errno()), (ErrorKind::Os, libc::ESRCH), "{e}");
    // Its limits are still there, and can change.
    container.update(|spec| spec.pids = Some(30)).unwrap();
    // It ends with its pid 1, wherever that is.
    container.close(None).unwrap();
}

#[test]
fn a_group_that_was_removed_behind_our_back_is_a_clear_error() {
    if !can_limit() {
        return skip("no control group for this caller");
    }
    let container = start(json!({"pids": 20, "memory": "64M"}));
    let (path, _) = group_of(&container, "pids", "pids");
    let Some(elsewhere) = move_out(&path) else {
        container.close(None).unwrap();
        return skip("processes cannot be moved out here");
    };
    until("the group is gone", || fs::remove_dir(&path).is_ok() || !path.exists());
    let e = container.update(|spec| spec.pids = Some(30)).unwrap_err();
    assert_eq!(e.field(), Some("pids"), "{e}");
    assert!(matches!(e.errno(), libc::ENOENT | libc::ENODEV), "{e}");
    assert_eq!((container.spec().pids, container.spec().memory), (Some(20), Some(64 << 20)));
    // What else there is to be had is had: its end, and what was known of it.
    assert!(container.is_running());
    container.close(None).unwrap();
    drop(elsewhere);
}

/// The second processor, switched off for the time of a test.
struct Offline;

const ONLINE: &str = "/sys/devices/system/cpu/cpu1/online";

impl Drop for Offline {
    fn drop(&mut self) {
        let _ = fs::write(ONLINE, "1");
    }
}

#[test]
fn a_processor_that_is_switched_off() {
    if !is_root() || std::env::var("RINGFENCE_TEST_TIER").as_deref() != Ok("vm") {
        return skip("processors are everybody's: one is switched off in the virtual machine only");
    }
    let container = start(json!({"cpuset": "0-1", "pids": 20}));
    let mut command = container.command("sh");
    command.args(["-c", "while :; do :; done"]).stdin(Stdio::Null).stdout(Stdio::Null);
    let process = command.spawn().unwrap();
    let off = Offline;
    if let Err(e) = fs::write(ONLINE, "0") {
        container.close(None).unwrap();
        return skip(&format!("{ONLINE}: {e}"));
    }
    // Who runs goes on with what is left, and other limits change.
    assert!(process.try_wait().unwrap().is_none());
    container.update(|spec| spec.pids = Some(30)).unwrap();
    assert_eq!(sh_in(&container, "grep Cpus_allowed_list /proc/self/status"), "Cpus_allowed_list:\t0\n");
    // What is not there cannot be asked for.
    for cpuset in ["1", "0-1"] {
        let e = Container::start(&spec(json!({"cpuset": cpuset}))).unwrap_err();
        assert_eq!(e.field(), Some("cpuset"), "{e}");
    }
    container.update(|spec| spec.cpuset = Some("0".into())).unwrap();
    let e = container.update(|spec| (spec.pids, spec.cpuset) = (Some(40), Some("1".into()))).unwrap_err();
    assert_eq!(e.field(), Some("cpuset"), "{e}");
    assert_eq!(container.usage().unwrap().pids_max, Some(30));
    assert_eq!(sh_in(&container, "grep Cpus_allowed_list /proc/self/status"), "Cpus_allowed_list:\t0\n");
    drop(off);
    container.update(|spec| spec.cpuset = Some("0-1".into())).unwrap();
    assert_eq!(sh_in(&container, "grep Cpus_allowed_list /proc/self/status"), "Cpus_allowed_list:\t0-1\n");
    container.close(None).unwrap();
}
