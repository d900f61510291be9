//! Trees of control groups as others lay them out and change them: clear errors, and nothing half done.
//!
//! What is mounted, and where the host is, is changed for a process of the test's own: this program again, with one of the
//! cases at the end of the file, in a mount namespace (and where it says so a cgroup namespace) that nobody else is in.
//!
//! tests/run: timeout=180 as=root vm=root threads=1

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use common::*;
use ringfence::{Container, Error, ErrorKind, Spec};

#[allow(dead_code, reason = "each test program uses a part of it")]
mod common;

const CASE: &str = "RINGFENCE_LAYOUT_CASE";
const PARENT: &str = "RINGFENCE_CGROUP_PARENT";
/// Where a case finds the groups that are the test's own.
const OURS: &str = "RINGFENCE_LAYOUT_GROUP";

/// A mounted hierarchy.
#[derive(Clone, Debug)]
struct Tree {
    v2: bool,
    /// Of v1.
    controllers: String,
    path: PathBuf,
}

fn trees() -> Vec<Tree> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let tree = |line: &str| {
        let (left, right) = line.split_once(" - ")?;
        let v2 = match right.split(' ').next()? {
            "cgroup" => false,
            "cgroup2" => true,
            _ => return None,
        };
        let controllers = right.rsplit(' ').next()?.trim_start_matches("rw,").to_owned();
        (v2 || !controllers.contains("name=")).then(|| Tree {
            v2,
            controllers,
            path: left.split(' ').nth(4).unwrap().into(),
        })
    };
    mounts.lines().filter_map(tree).collect()
}

fn is_pure_v2() -> bool {
    trees().iter().all(|tree| tree.v2)
}

/// Groups of the test's own, of one name in each hierarchy, below those of the run.
struct Ours(String);

impl Ours {
    fn new() -> Self {
        let ours = Self(format!("{}/layouts-{}", std::env::var(PARENT).unwrap(), std::process::id()));
        ours.make("");
        ours
    }

    fn make(&self, below: &str) {
        for dir in self.dirs(below) {
            fs::create_dir(&dir).unwrap_or_else(|e| panic!("{}: {e}", dir.display()));
            for file in ["cpuset.cpus", "cpuset.mems"] {
                if let Ok(above) = fs::read_to_string(dir.parent().unwrap().join(file)) {
                    let _ = fs::write(dir.join(file), above.trim());
                }
            }
        }
    }

    fn dirs(&self, below: &str) -> Vec<PathBuf> {
        let inside = format!("{}/{below}", &self.0[1..]);
        trees().iter().map(|tree| tree.path.join(inside.trim_end_matches('/'))).collect()
    }
}

impl Drop for Ours {
    fn drop(&mut self) {
        fn remove(dir: &Path) -> bool {
            for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
                if entry.file_type().is_ok_and(|t| t.is_dir()) {
                    remove(&entry.path());
                }
            }
            fs::remove_dir(dir).is_ok() || !dir.exists()
        }
        let dirs = self.dirs("");
        if std::thread::panicking() {
            let _ = dirs.iter().filter(|dir| !remove(dir)).count();
            return;
        }
        until("the groups are empty", || dirs.iter().all(|dir| remove(dir)));
    }
}

/// A case, after a script of the shell that lays out what it sees.
fn case(ours: &Ours, flags: &[&str], script: &str, name: &str) -> String {
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private"]).args(flags).args(["sh", "-ec"]);
    command.arg(format!("{script}\nexec \"$@\"")).arg("sh").arg(std::env::current_exe().unwrap());
    command.args(["--exact", "child_case", "--nocapture", "--test-threads=1"]);
    let output = command.env(CASE, name).env(OURS, &ours.0).output().unwrap();
    let out = String::from_utf8_lossy(&output.stdout).into_owned();
    println!("{out}");
    assert!(output.status.success(), "{:?}\n{}", output.status, String::from_utf8_lossy(&output.stderr));
    out
}

/// For the shell: does something to every hierarchy at `$t`.
fn each(action: &str) -> String {
    let paths: Vec<String> = trees().iter().map(|tree| tree.path.display().to_string()).collect();
    format!("for t in {}; do {action}; done", paths.join(" "))
}

const READ_ONLY: &str = "mount -o remount,bind,ro $t";

#[test]
fn a_tree_that_is_read_only() {
    case(&Ours::new(), &[], &each(READ_ONLY), "read-only");
}

#[test]
fn one_hierarchy_that_is_read_only() {
    let Some(pids) = hierarchy_of("pids") else { return skip("all controllers are in one tree here") };
    let ours = Ours::new();
    case(&ours, &[], &format!("mount -o remount,bind,ro {}", pids.display()), "pids are read-only");
    let v2 = trees()
        .into_iter()
        .find(|tree| tree.v2)
        .map(|tree| format!("mount -o remount,bind,ro {}", tree.path.display()));
    case(&ours, &[], &v2.unwrap_or_default(), "without the v2 tree");
}

#[test]
fn only_the_hierarchies_of_v1() {
    if hierarchy_of("freezer").is_none() {
        return skip("no v1 hierarchies here");
    }
    let v2 = trees().into_iter().find(|tree| tree.v2).map(|tree| format!("umount {}", tree.path.display()));
    case(&Ours::new(), &[], &v2.unwrap_or_default(), "without the v2 tree");
}

#[test]
fn a_hierarchy_that_is_not_mounted() {
    let Some(pids) = hierarchy_of("pids") else { return skip("all controllers are in one tree here") };
    case(&Ours::new(), &[], &format!("umount {}", pids.display()), "no pids");
}

#[test]
fn a_tree_that_turns_read_only() {
    case(&Ours::new(), &[], "", "turns read-only");
}

#[test]
fn a_place_that_is_none() {
    let ours = Ours::new();
    case(&ours, &[], "", "places that are none");
    // What was made on the way to a place that could not be reached is gone with its maker.
    for dir in ours.dirs("") {
        assert_eq!(groups_in(&dir), [""; 0], "{}", dir.display());
    }
}

#[test]
fn no_more_groups_and_no_controllers() {
    let ours = Ours::new();
    let Some(tree) = trees().into_iter().find(|tree| tree.v2) else { return skip("no v2 tree here") };
    let dir = tree.path.join(&ours.0[1..]);
    fs::write(dir.join("cgroup.max.descendants"), "0").unwrap();
    case(&ours, &[], "", "no more groups");
    fs::write(dir.join("cgroup.max.descendants"), "max").unwrap();
    if is_pure_v2() {
        ours.make("full");
        let dir = dir.join("full");
        let sleep = format!("sleep 600 </dev/null >/dev/null 2>&1 & echo $! > {}/cgroup.procs", dir.display());
        case(&ours, &[], &sleep, "processes in the way");
        assert_eq!(fs::read_to_string(dir.join("cgroup.subtree_control")).unwrap().trim(), "");
    }
}

#[test]
fn a_host_that_is_moved() {
    let ours = Ours::new();
    ours.make("one");
    ours.make("two");
    case(&ours, &[], "", "moved");
}

#[test]
fn processes_that_are_moved_out() {
    let ours = Ours::new();
    ours.make("elsewhere");
    case(&ours, &[], "", "moved out");
    if hierarchy_of("freezer").is_some() {
        let v2 = trees().into_iter().find(|tree| tree.v2).map(|tree| format!("umount {}", tree.path.display()));
        case(&ours, &[], &v2.unwrap_or_default(), "moved out");
    }
}

#[test]
fn groups_that_are_removed() {
    let ours = Ours::new();
    ours.make("elsewhere");
    case(&ours, &[], "", "removed");
}

#[test]
fn another_namespace_of_control_groups() {
    let ours = Ours::new();
    ours.make("root");
    ours.make("root/leaf");
    if is_pure_v2() {
        let (run, root) = (&ours.dirs("..")[0], &ours.dirs("")[0]);
        let all = fs::read_to_string(run.join("cgroup.subtree_control")).unwrap();
        let all: Vec<String> = all.split_whitespace().map(|name| format!("+{name}")).collect();
        fs::write(root.join("cgroup.subtree_control"), all.join(" ")).unwrap();
    }
    let enter = format!("for t in {}; do echo 0 > $t{}/root/cgroup.procs; done", paths(), ours.0);
    let all = trees();
    let fresh = all.iter().map(|tree| {
        let (kind, options) = if tree.v2 { ("cgroup2", "rw") } else { ("cgroup", &*tree.controllers) };
        format!("umount {path}\nmount -t {kind} -o {options} none {path}", path = tree.path.display())
    });
    let fresh = fresh.collect::<Vec<_>>().join("\n");
    // The shell that enters the group before it makes the namespace: a namespace's root is its maker's group.
    let inside = |mounts: &str, name: &str| {
        let script = format!("{enter}\nexec unshare --cgroup sh -ec '{mounts}\nexec \"$@\"' sh \"$@\"");
        case(&ours, &[], &script, name);
    };
    // The second lets groups in the root of the namespace have controllers, and then nobody can be in it.
    inside("", "namespace with mounts of another");
    inside(&fresh, "namespace");
}

/// A mount in the first namespace of control groups sets the options of the whole tree; `nsdelegate` is a border of others.
#[test]
fn a_mount_of_the_hosts_tree_leaves_its_options() {
    let options = || {
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        mounts
            .lines()
            .filter_map(|line| line.split_once(" - cgroup2 "))
            .map(|(_, rest)| rest.to_owned())
            .collect::<Vec<_>>()
    };
    let before = options();
    if before.is_empty() {
        return skip("no v2 tree is mounted here");
    }
    let tree = json!([{"type": "cgroup", "target": "/groups"}]);
    let fields = json!({"mounts": tree, "namespaces": {"cgroup": "host"}});
    let container = start(with(fields.clone(), json!({"idmap": "host"})));
    let shown = sh_in(&container, "grep ' /groups ' /proc/self/mountinfo");
    assert!(
        before.iter().any(|options| shown.trim().ends_with(options.rsplit_once(' ').unwrap().1)),
        "{shown} {before:?}"
    );
    // It is the host's: this process's own group is in it.
    assert!(sh_in(&container, "ls /groups").contains("ringfence-test"), "{shown}");
    container.close(None).unwrap();
    assert_eq!(options(), before);

    let e = refusal(with(fields, json!({"idmap": "auto"})));
    assert_eq!((e.field(), e.kind()), (Some("mounts[0]"), ErrorKind::PermissionDenied), "{e}");
    assert!(e.hint().is_some_and(|hint| hint.contains("control group namespace")), "{e}");
}

fn paths() -> String {
    trees().iter().map(|tree| tree.path.display().to_string()).collect::<Vec<_>>().join(" ")
}

fn groups_in(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).unwrap().flatten().filter(|entry| entry.file_type().is_ok_and(|t| t.is_dir()));
    entries.map(|entry| entry.file_name().into_string().unwrap()).collect()
}

fn hierarchy_of(controller: &str) -> Option<PathBuf> {
    trees().into_iter().find(|tree| tree.controllers.split(',').any(|c| c == controller)).map(|tree| tree.path)
}

// What follows runs in a namespace that a test laid out.

fn ours() -> String {
    std::env::var(OURS).unwrap()
}

/// Below the test's own groups, in all hierarchies that are seen.
fn seen(below: &str) -> Vec<PathBuf> {
    trees().iter().map(|tree| tree.path.join(format!("{}{below}", &ours()[1..]))).collect()
}

#[track_caller]
fn refusal(fields: Value) -> Error {
    match Container::start(&spec(fields.clone())) {
        Ok(_) => panic!("{fields} started"),
        Err(e) => {
            println!("{fields}: {e}");
            e
        }
    }
}

#[track_caller]
fn error<T>(result: ringfence::Result<T>) -> Error {
    let e = result.err().expect("it is refused");
    println!("{e}");
    e
}

/// The groups of a container.
fn groups_of(container: &Container) -> Vec<PathBuf> {
    let info: Value = serde_json::from_str(&container.info_json()).unwrap();
    let groups = info["cgroup"]["groups"].as_array().map(Vec::as_slice).unwrap_or_default();
    groups.iter().map(|group| PathBuf::from(group["path"].as_str().unwrap())).collect()
}

fn runs_and_ends(container: &Container) {
    assert_eq!(sh_in(container, "echo runs"), "runs\n");
    let groups = groups_of(container);
    container.close(None).unwrap();
    assert!(groups.iter().all(|group| !group.exists()), "{groups:?}");
}

fn read_only() {
    let here = ours();
    for field in ["memory", "pids", "cpus", "cpuset"] {
        let value = if field == "cpuset" {
            json!("0")
        } else if field == "memory" {
            json!("64M")
        } else {
            json!(1)
        };
        for place in [json!({}), json!({"cgroup_parent": here}), json!({"cgroup_parent": format!("{here}/more")})] {
            let e = refusal(with(json!({field: value}), place));
            assert_eq!(
                (e.field(), e.kind(), e.errno()),
                (Some(field), ErrorKind::PermissionDenied, libc::EROFS),
                "{e}"
            );
            assert!(e.hint().is_some_and(|hint| hint.contains("read-only")), "{e}");
        }
    }
    let e = refusal(json!({"cgroup_parent": here}));
    assert_eq!((e.field(), e.errno()), (Some("cgroup_parent"), libc::EROFS), "{e}");
    let e = refusal(json!({"pids": 9, "name": "rf-layout", "detach": true}));
    assert_eq!(e.field(), Some("pids"), "{e}");
    assert_eq!(Container::by_name("rf-layout").unwrap_err().kind(), ErrorKind::NotFound);
    let container = start(json!({}));
    let e = error(container.update(|spec| spec.pids = Some(9)));
    assert_eq!(e.field(), Some("pids"), "{e}");
    let usage = container.usage().unwrap();
    assert!(usage.net.is_some() && usage.pids_current.is_none(), "{usage:?}");
    runs_and_ends(&container);
}

fn pids_are_read_only() {
    let e = refusal(json!({"memory": "64M", "pids": 9, "cgroup_parent": ours()}));
    assert_eq!((e.field(), e.errno()), (Some("pids"), libc::EROFS), "{e}");
    for dir in seen("") {
        assert_eq!(groups_in(&dir), [""; 0], "{}", dir.display());
    }
    let container = start(json!({"memory": "64M", "cgroup_parent": ours()}));
    let e = error(container.update(|spec| (spec.memory, spec.pids) = (Some(32 << 20), Some(9))));
    assert_eq!(e.field(), Some("pids"), "{e}");
    let usage = container.usage().unwrap();
    assert_eq!((usage.memory_max, usage.pids_max), (Some(64 << 20), None));
    assert_eq!((container.spec().memory, container.spec().pids), (Some(64 << 20), None));
    runs_and_ends(&container);
}

fn without_the_v2_tree() {
    let container = start(json!({"memory": "64M", "pids": 9, "cgroup_parent": ours()}));
    assert_eq!(container.usage().unwrap().pids_max, Some(9));
    let process = container.command("sleep").arg("600").stdin(ringfence::spec::Stdio::Null).spawn().unwrap();
    container.freeze().unwrap();
    let freezer = hierarchy_of("freezer").unwrap();
    let group = groups_of(&container).into_iter().find(|group| group.starts_with(&freezer)).unwrap();
    assert_eq!(fs::read_to_string(group.join("freezer.state")).unwrap(), "FROZEN\n");
    container.thaw().unwrap();
    assert!(process.try_wait().unwrap().is_none());
    if hierarchy_of("devices").is_some() {
        rules_of_the_controller(&container);
    }
    container.kill().unwrap();
    assert_eq!(process.wait(TIMEOUT).unwrap().unwrap().signal, Some(libc::SIGKILL));
    let groups = groups_of(&container);
    container.close(None).unwrap();
    assert!(groups.iter().all(|group| !group.exists()), "{groups:?}");
}

/// Rules about devices without BPF: the lines that the kernel has of them, and what comes of them.
fn rules_of_the_controller(container: &Container) {
    let standard =
        "c *:* m\nc 1:3 rwm\nc 1:5 rwm\nc 1:7 rwm\nc 1:8 rwm\nc 1:9 rwm\nc 5:0 rwm\nc 5:2 rwm\nc 136:* rwm\nb *:* m\n";
    let devices = hierarchy_of("devices").unwrap();
    let list = |container: &Container| {
        let group = groups_of(container).into_iter().find(|group| group.starts_with(&devices)).expect("a group");
        fs::read_to_string(group.join("devices.list")).unwrap()
    };
    let opens = |container: &Container, how: &str, path: &str| {
        sh_in(container, &format!("(: {how}{path}) 2>/dev/null && echo yes || echo no")).trim() == "yes"
    };
    assert_eq!(list(container), standard);
    container.add_device("/dev/loop-control:r").unwrap();
    assert_eq!(list(container), format!("{standard}c 10:237 rm\n"));
    assert!(opens(container, "<", "/dev/loop-control") && !opens(container, ">>", "/dev/loop-control"));
    // A part of it is refused: then all is as it was.
    let rules = ["c 1:* rw", "deny c 1:11 w"].map(|rule| rule.parse().unwrap());
    let e = error(container.update(|spec| (spec.device_rules, spec.pids) = (rules.into(), Some(8))));
    assert_eq!((e.field(), e.kind()), (Some("device_rules"), ErrorKind::Unsupported), "{e}");
    assert_eq!((list(container), container.usage().unwrap().pids_max), (format!("{standard}c 10:237 rm\n"), Some(9)));
    container.update(|spec| spec.device_rules = vec!["a".parse().unwrap()]).unwrap();
    assert_eq!(list(container), "a *:* rwm\n");
    assert!(opens(container, "<", "/dev/loop-control") && !opens(container, ">>", "/dev/loop-control"));
    container
        .update(|spec| (spec.device_rules, spec.devices) = (vec!["deny c 1:5 w".parse().unwrap()], vec![]))
        .unwrap();
    assert!(
        opens(container, "<", "/dev/zero")
            && !opens(container, ">>", "/dev/zero")
            && opens(container, ">>", "/dev/full")
    );
    container.update(|spec| spec.device_rules.clear()).unwrap();
    assert_eq!(list(container).lines().count(), standard.lines().count());

    // A pod's hold for all in it, and a container that divides its groups has them in all of those.
    let pod = ringfence::Pod::start(
        &spec(json!({"device_rules": ["deny c 1:5 w"], "cgroup_parent": ours()})),
        ringfence::Pod::SHARE,
    )
    .unwrap();
    let one = pod.container(&spec(json!({"device_rules": ["deny c 1:7 w"]}))).unwrap();
    assert!(!opens(&one, ">>", "/dev/zero") && !opens(&one, ">>", "/dev/full") && opens(&one, "<", "/dev/full"));
    one.update(|spec| spec.device_rules.clear()).unwrap();
    assert!(!opens(&one, ">>", "/dev/zero") && opens(&one, ">>", "/dev/full"));
    pod.close(None).unwrap();
    let nested = start(json!({"nesting": true, "cgroup_parent": ours(), "devices": ["/dev/loop-control:r"]}));
    assert!(opens(&nested, "<", "/dev/loop-control") && !opens(&nested, ">>", "/dev/loop-control"));
    nested.update(|spec| spec.devices[0].access = Default::default()).unwrap();
    assert!(opens(&nested, ">>", "/dev/loop-control"));
    nested.close(None).unwrap();
    let plain = start(json!({"idmap": "host", "capabilities": {"add": ["sys_admin"]}, "cgroup_parent": ours()}));
    let script = "mount -o remount,bind,dev /dev; mknod /dev/x c 10 237; (: </dev/x) 2>/dev/null || echo refused";
    assert_eq!(sh_in(&plain, script), "refused\n");
    runs_and_ends(&plain);
}

fn no_pids() {
    let e = refusal(json!({"pids": 9}));
    assert_eq!((e.field(), e.kind()), (Some("pids"), ErrorKind::Unsupported), "{e}");
    assert!(e.to_string().contains("not mounted here") && e.hint().is_some(), "{e}");
    let container = start(json!({"memory": "64M"}));
    let e = error(container.update(|spec| (spec.memory, spec.pids) = (Some(32 << 20), Some(9))));
    assert_eq!((e.field(), e.kind()), (Some("pids"), ErrorKind::Unsupported), "{e}");
    assert_eq!(container.usage().unwrap().memory_max, Some(64 << 20));
    let e = error(container.group("more", &Spec::new().pids(9)));
    assert_eq!(e.field(), Some("pids"), "{e}");
    runs_and_ends(&container);
}

/// Which hierarchies could be made read-only: not those of which a container has a file open for writing.
fn remount(how: &str) -> Vec<PathBuf> {
    let done = |path: &PathBuf| {
        let output = Command::new("mount").args(["-o", &format!("remount,bind,{how}")]).arg(path).output().unwrap();
        output.status.success()
    };
    trees().into_iter().map(|tree| tree.path).filter(done).collect()
}

fn turns_read_only() {
    let container = start(json!({"pids": 20, "memory": "64M"}));
    let groups = groups_of(&container);
    let changed = remount("ro");
    let hit = |group: &PathBuf| changed.iter().any(|tree| group.starts_with(tree));
    println!("{changed:?}");
    assert!(groups.iter().any(hit), "{groups:?}");
    // cpus need another group, or a controller.
    let e = error(container.update(|spec| (spec.pids, spec.cpus) = (Some(30), Some(0.5))));
    assert_eq!((e.field().is_some(), e.kind(), e.errno()), (true, ErrorKind::PermissionDenied, libc::EROFS), "{e}");
    assert_eq!(container.usage().unwrap().pids_max, Some(20));
    assert_eq!((container.spec().pids, container.spec().cpus), (Some(20), None));
    let e = error(container.group("more", &Spec::new()));
    assert_eq!((e.field(), e.errno()), (Some("cgroup"), libc::EROFS), "{e}");
    let e = error(container.freeze());
    assert_eq!((e.kind(), e.errno()), (ErrorKind::PermissionDenied, libc::EROFS), "{e}");
    assert_eq!(sh_in(&container, "echo runs"), "runs\n");
    // Who wants no limit starts without a group in the v2 tree, or without any.
    let other = start(json!({}));
    runs_and_ends(&other);
    let e = error(container.close(None));
    assert_eq!((e.field(), e.errno()), (Some("cgroup"), libc::EROFS), "{e}");
    // One that cannot be removed keeps no other.
    for group in &groups {
        assert_eq!(group.exists(), hit(group), "{}", group.display());
    }
    remount("rw");
    let report = ringfence::gc().unwrap();
    assert_eq!((report.cgroups, &*report.remaining), (1, &[][..]), "{report:?}");
    assert!(groups.iter().all(|group| !group.exists()), "{groups:?}");
}

fn places_that_are_none() {
    let here = ours();
    let tasks = if is_pure_v2() { "cgroup.threads" } else { "tasks" };
    let places =
        ["cgroup.procs", "cgroup.procs/more", tasks, &format!("{tasks}/more"), "a\nb", &format!("way/{tasks}/x")];
    for place in places {
        // Of two hierarchies only one has a file of that name.
        for limit in [json!({}), json!({"pids": 9}), json!({"cpus": 0.5})] {
            let place = json!({"cgroup_parent": format!("{here}/{place}")});
            let e = refusal(with(limit.clone(), place.clone()));
            assert_eq!(e.field(), Some("cgroup_parent"), "{e}");
            let e = refusal(with(with(limit, place), json!({"name": "rf-layout", "detach": true})));
            assert_eq!(e.field(), Some("cgroup_parent"), "{e}");
            assert_eq!(Container::by_name("rf-layout").unwrap_err().kind(), ErrorKind::NotFound);
        }
    }
    for (place, limit) in [("cgroup.procs", None), (tasks, Some(9))] {
        // SAFETY: no other thread of this process reads the environment.
        unsafe { std::env::set_var(PARENT, format!("{here}/{place}")) };
        let e = error(Container::start(&Spec { pids: limit, ..Spec::new() }));
        assert!(e.hint().is_some_and(|hint| hint.contains(PARENT)), "{e}");
    }
    // One that is not there yet is made, and what is removed in between is made anew.
    let deep = json!({"cgroup_parent": format!("{here}/a/b/c"), "pids": 9});
    for _ in 0..2 {
        let container = start(deep.clone());
        assert!(groups_of(&container).iter().all(|group| group.parent().unwrap().ends_with("a/b/c")));
        runs_and_ends(&container);
        for below in ["/a/b/c", "/a/b", "/a"] {
            seen(below).iter().for_each(|dir| drop(fs::remove_dir(dir)));
        }
    }
    // A limit that needs another group is refused when there is no place for it any more.
    let container = start(deep);
    let e = container.update(|spec| spec.cpus = Some(0.5));
    e.unwrap();
    container.update(|spec| spec.cpus = None).unwrap();
    if let Some(cpuset) = hierarchy_of("cpuset") {
        fs::remove_dir(cpuset.join(format!("{}/a/b/c", &here[1..]))).unwrap();
        let e = error(container.update(|spec| (spec.pids, spec.cpuset) = (Some(5), Some("0".into()))));
        assert_eq!((e.field(), e.errno()), (Some("cpuset"), libc::ENOENT), "{e}");
        assert_eq!(container.usage().unwrap().pids_max, Some(9));
    }
    runs_and_ends(&container);
    ringfence::end_keepers();
    until("the directories are gone", || seen("/a").iter().chain(&seen("/way")).all(|dir| !dir.exists()));
}

fn no_more_groups() {
    let e = refusal(json!({"cgroup_parent": ours(), "pids": 9}));
    assert_eq!((e.field(), e.errno()), (Some("cgroup_parent"), libc::EAGAIN), "{e}");
    assert!(e.hint().is_some_and(|hint| hint.contains("cgroup.max.descendants")), "{e}");
    for dir in seen("") {
        assert_eq!(groups_in(&dir), [""; 0], "{}", dir.display());
    }
}

fn processes_in_the_way() {
    let full = format!("{}/full", ours());
    let e = refusal(json!({"cgroup_parent": full, "pids": 9}));
    assert_eq!((e.field(), e.kind(), e.errno()), (Some("pids"), ErrorKind::Unsupported, libc::EBUSY), "{e}");
    assert!(e.hint().is_some(), "{e}");
    // Without a limit it needs no controller.
    runs_and_ends(&start(json!({"cgroup_parent": full})));
    for pid in fs::read_to_string(seen("/full")[0].join("cgroup.procs")).unwrap().lines() {
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid.parse().unwrap()), nix::sys::signal::Signal::SIGKILL)
            .unwrap();
    }
}

/// Somebody moves this process.
fn go_to(below: &str) {
    for dir in seen(below) {
        fs::write(dir.join("cgroup.procs"), "0").unwrap_or_else(|e| panic!("{}: {e}", dir.display()));
    }
}

fn moved() {
    // SAFETY: no other thread of this process reads the environment.
    unsafe { std::env::remove_var(PARENT) };
    for (below, others) in [("/one", "/two"), ("/two", "/one"), ("/one", "/two")] {
        go_to(below);
        for limit in [json!({"pids": 9}), json!({})] {
            let container = start(limit);
            for group in groups_of(&container) {
                // Groups with controllers of v2 need a group without processes, which here only the root is.
                let default = is_pure_v2() && group.parent().unwrap().ends_with("ringfence");
                assert!(default || group.parent().unwrap().ends_with(&below[1..]), "{}", group.display());
            }
            runs_and_ends(&container);
        }
        let _ = others;
    }
    ringfence::end_keepers();
}

/// Somebody moves every process of a container, or all but its first one.
fn move_out(container: &Container, below: &str, first_too: bool) {
    let trees = trees();
    for group in groups_of(container) {
        let tree = trees.iter().find(|tree| group.starts_with(&tree.path)).unwrap();
        let target = tree.path.join(format!("{}{below}", &ours()[1..]));
        for dir in [group.join("payload"), group] {
            for pid in fs::read_to_string(dir.join("cgroup.procs")).unwrap_or_default().lines() {
                if first_too || pid.parse() != Ok(container.pid()) {
                    // One that was listed may have ended.
                    match fs::write(target.join("cgroup.procs"), pid) {
                        Err(e) if e.raw_os_error() == Some(libc::ESRCH) => {}
                        done => done.unwrap(),
                    }
                }
            }
        }
    }
}

fn moved_out() {
    let container = start(json!({"pids": 20, "memory": "64M", "cgroup_parent": ours()}));
    let process = container.command("sleep").arg("600").stdin(ringfence::spec::Stdio::Null).spawn().unwrap();
    move_out(&container, "/elsewhere", true);
    assert_eq!(container.usage().unwrap().pids_current, Some(0));
    // What is started now is in the group, and what was there before is not: that is no frozen container.
    let second = container.command("sleep").arg("600").stdin(ringfence::spec::Stdio::Null).spawn().unwrap();
    until("one is in it", || container.usage().unwrap().pids_current == Some(1));
    let e = error(container.freeze());
    assert_eq!(e.errno(), libc::ESRCH, "{e}");
    assert!(e.hint().is_some(), "{e}");
    assert_eq!(sh_in(&container, "echo runs"), "runs\n");
    container.update(|spec| spec.pids = Some(30)).unwrap();
    assert_eq!(container.usage().unwrap().pids_max, Some(30));
    // Its pid namespace ends with its first process, wherever that is.
    container.kill().unwrap();
    for process in [process, second] {
        assert_eq!(process.wait(TIMEOUT).unwrap().unwrap().signal, Some(libc::SIGKILL));
    }
    let groups = groups_of(&container);
    container.close(None).unwrap();
    assert!(groups.iter().all(|group| !group.exists()), "{groups:?}");
    until("elsewhere is empty", || {
        seen("/elsewhere").iter().all(|dir| fs::read_to_string(dir.join("cgroup.procs")).unwrap().is_empty())
    });
}

fn removed() {
    let container = start(json!({"pids": 20, "memory": "64M", "cgroup_parent": ours()}));
    let inside = container.group("inside", &Spec::new().pids(3)).unwrap();
    let groups = groups_of(&container);
    move_out(&container, "/elsewhere", true);
    for group in &groups {
        for dir in [group.join("inside"), group.join("payload"), group.clone()] {
            until("it is removed", || fs::remove_dir(&dir).is_ok() || !dir.exists());
        }
    }
    let gone = |e: Error, field: &str| {
        assert_eq!((e.field(), matches!(e.errno(), libc::ENOENT | libc::ENODEV)), (Some(field), true), "{e}");
    };
    let e = error(container.usage());
    assert_eq!(e.kind(), ErrorKind::Closed, "{e}");
    gone(error(container.update(|spec| spec.pids = Some(30))), "pids");
    gone(error(container.update(|spec| spec.cpus = Some(0.5))), "cpus");
    assert_eq!((container.spec().pids, container.spec().cpus), (Some(20), None));
    gone(error(inside.update(|limits| limits.pids = Some(2))), "pids");
    gone(error(container.group("more", &Spec::new())), "cgroup");
    gone(error(container.command("true").spawn()), "cgroup");
    gone(error(inside.command("true").spawn()), "cgroup");
    let e = error(container.freeze());
    assert!(e.to_string().contains("somebody removed"), "{e}");
    assert!(container.is_running());
    container.close(None).unwrap();
    assert!(!container.is_running());
    for dir in seen("") {
        assert_eq!(groups_in(&dir), ["elsewhere"], "{}", dir.display());
    }
}

/// In the root of a namespace, with mounts that show no more.
fn in_a_namespace() {
    // SAFETY: no other thread of this process reads the environment.
    unsafe { std::env::remove_var(PARENT) };
    let default = json!({"pids": 9, "memory": "64M"});
    if is_pure_v2() {
        // It sits in the root of what it sees, and says how to get out of there.
        let e = refusal(default.clone());
        assert_eq!((e.field(), e.kind()), (Some("memory"), ErrorKind::Unsupported), "{e}");
        assert!(e.hint().is_some_and(|hint| hint.contains("leaf")), "{e}");
        runs_and_ends(&start(json!({})));
        // The keeper sits there too.
        ringfence::end_keepers();
        fs::write("/sys/fs/cgroup/leaf/cgroup.procs", "0").unwrap();
        let procs = || fs::read_to_string("/sys/fs/cgroup/cgroup.procs").unwrap();
        until("nobody is in the root", || procs().is_empty());
    }
    // Nothing is made outside: the group is one of the namespace, whatever path asks for it.
    for place in [json!({}), json!({"cgroup_parent": "/some"}), json!({"cgroup_parent": "/ringfence-test"})] {
        let container = start(with(default.clone(), place));
        assert!(container.usage().unwrap().pids_max == Some(9));
        let groups = groups_of(&container);
        for tree in trees() {
            let group = groups.iter().find(|group| group.starts_with(&tree.path));
            assert!(group.is_none_or(|group| group.exists()), "{groups:?}");
        }
        let e = refusal(with(default.clone(), json!({"cgroup_parent": "/../outside"})));
        assert_eq!((e.field(), e.kind()), (Some("cgroup_parent"), ErrorKind::InvalidSpec), "{e}");
        runs_and_ends(&container);
    }
    ringfence::end_keepers();
    until("what was made is gone", || {
        trees().iter().all(|tree| groups_in(&tree.path).iter().all(|name| name == "leaf"))
    });
}

/// The mounts are those of the namespace outside, in which this process has no path.
fn with_mounts_of_another() {
    if is_pure_v2() {
        // nsdelegate closes the border of the namespace.
        let e = refusal(json!({"pids": 9, "cgroup_parent": ours()}));
        assert_eq!((e.field(), e.kind()), (Some("cgroup_parent"), ErrorKind::Unsupported), "{e}");
        assert!(e.hint().is_some(), "{e}");
        assert!(seen("").iter().all(|dir| groups_in(dir).iter().all(|name| name == "root")));
        return;
    }
    let container = start(json!({"pids": 9, "memory": "64M", "cgroup_parent": ours()}));
    assert_eq!(container.usage().unwrap().pids_max, Some(9));
    assert!(groups_of(&container).iter().all(|group| group.exists()));
    runs_and_ends(&container);
    runs_and_ends(&start(json!({})));
}

#[test]
fn child_case() {
    let Ok(case) = std::env::var(CASE) else { return };
    println!();
    match &*case {
        "read-only" => read_only(),
        "pids are read-only" => pids_are_read_only(),
        "without the v2 tree" => without_the_v2_tree(),
        "no pids" => no_pids(),
        "turns read-only" => turns_read_only(),
        "places that are none" => places_that_are_none(),
        "no more groups" => no_more_groups(),
        "processes in the way" => processes_in_the_way(),
        "moved" => moved(),
        "moved out" => moved_out(),
        "removed" => removed(),
        "namespace" => in_a_namespace(),
        "namespace with mounts of another" => with_mounts_of_another(),
        other => panic!("no case {other}"),
    }
}
