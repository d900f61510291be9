//! Control groups where systemd runs the machine: limits for callers to whom nothing is delegated, by a scope of the keepers.
//!
//! Each test starts programs as units of systemd, which are this program again with one of the cases at the end of the file.
//!
//! tests/run: tier=vm vm-boot=systemd as=root vm=root threads=1 timeout=400

#[allow(dead_code, reason = "each test program uses a part of it")]
mod common;

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use common::{json, sh_in, start};
use ringfence::{Container, ErrorKind, Spec};

const CASE: &str = "RINGFENCE_SYSTEMD_CASE";
/// For a bus that never answers.
const PATIENCE: Duration = Duration::from_secs(6);
const TREE: &str = "/sys/fs/cgroup";
const USER: &str = "user.slice/user-1000.slice/user@1000.service";
/// An ordinary user without a manager.
const NOBODY: u32 = 65533;

/// A login session of the ordinary user, as logind makes one: a scope of the system's manager, not delegated.
fn session() -> Command {
    let mut command = Command::new("systemd-run");
    command.args(["--scope", "--quiet", "--collect", "--slice=user-1000.slice", "--uid=1000", "--gid=1000"]);
    // A scope's program has the environment of this one.
    command.env_remove("RINGFENCE_CGROUP_PARENT").env("XDG_RUNTIME_DIR", "/run/user/1000");
    command
}

/// A service of the system.
fn service(properties: &[&str]) -> Command {
    let mut command = Command::new("systemd-run");
    command.args(["--pipe", "--wait", "--quiet", "--collect"]).args(properties);
    command
}

/// The end of a command line: this program with a case.
fn case(command: &mut Command, name: &str) -> Command {
    case_as(command, &[], name)
}

fn case_as(command: &mut Command, prefix: &[&str], name: &str) -> Command {
    let exe = std::env::current_exe().unwrap();
    command.args(["-E", "HOME=/tmp", "-E", "XDG_RUNTIME_DIR=/run/user/1000", "-E"]);
    command.arg(format!("{CASE}={name}")).args(prefix).arg(exe).args([
        "--exact",
        "child_case",
        "--nocapture",
        "--test-threads=1",
    ]);
    std::mem::replace(command, Command::new("false"))
}

fn case_in(mut command: Command, name: &str) -> String {
    let output = case(&mut command, name).output().unwrap();
    text(&output)
}

#[track_caller]
fn text(output: &Output) -> String {
    let out = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{:?}\n{out}\n{}", output.status, String::from_utf8_lossy(&output.stderr));
    print!("{out}");
    out
}

/// The value of a line `KEY VALUE` of a case.
#[track_caller]
fn said<'a>(output: &'a str, key: &str) -> &'a str {
    let found = output.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' '));
    found.unwrap_or_else(|| panic!("no {key} in\n{output}"))
}

#[track_caller]
fn systemctl(words: &[&str]) {
    let status = Command::new("systemctl").args(words).status().unwrap();
    assert!(status.success(), "systemctl {words:?}");
}

fn within(seconds: u64, mut happened: impl FnMut() -> bool) -> bool {
    let end = Instant::now() + Duration::from_secs(seconds);
    loop {
        if happened() {
            return true;
        }
        if Instant::now() > end {
            return false;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The scopes of keepers that are there.
fn scopes() -> Vec<PathBuf> {
    fn look(dir: &Path, found: &mut Vec<PathBuf>) {
        for entry in
            fs::read_dir(dir).into_iter().flatten().flatten().filter(|e| e.file_type().is_ok_and(|t| t.is_dir()))
        {
            let name = entry.file_name();
            if name.to_string_lossy().starts_with("ringfence-") && name.to_string_lossy().ends_with(".scope") {
                found.push(entry.path());
            }
            look(&entry.path(), found);
        }
    }
    let mut found = Vec::new();
    look(Path::new(TREE), &mut found);
    found
}

#[track_caller]
fn nothing_is_left() {
    assert!(within(20, || scopes().is_empty()), "left: {:?}", scopes());
    assert!(!Path::new(TREE).join("ringfence").exists());
}

#[test]
fn root_in_a_service_without_delegation() {
    let output = case_in(service(&[]), "limits");
    assert!(said(&output, "group").starts_with("/system.slice/ringfence-"), "{output}");
    nothing_is_left();
}

#[test]
fn a_scope_is_bound_by_its_starter_s_slice() {
    let output = case_in(service(&["--slice=work-heavy.slice"]), "limits");
    assert!(said(&output, "group").starts_with("/work.slice/work-heavy.slice/ringfence-"), "{output}");
    nothing_is_left();
}

#[test]
fn root_in_a_service_with_delegation() {
    // In the root of its part of the tree, where the kernel lets it have no groups with controllers: a scope. In a leaf: there.
    let output = case_in(service(&["-p", "Delegate=yes"]), "limits");
    assert!(said(&output, "group").starts_with("/system.slice/ringfence-"), "{output}");
    let output = case_in(service(&["-p", "Delegate=yes", "--unit=rf-delegated"]), "leaf");
    assert!(said(&output, "group").starts_with("/system.slice/rf-delegated.service/ringfence/rf-"), "{output}");
    nothing_is_left();
}

#[test]
fn an_ordinary_user_in_a_session() {
    let output = case_in(session(), "limits");
    assert!(said(&output, "own").starts_with("/user.slice/user-1000.slice/run-"), "{output}");
    assert!(said(&output, "group").starts_with(&format!("/{USER}/app.slice/ringfence-")), "{output}");
    nothing_is_left();
}

#[test]
fn an_ordinary_user_in_a_service_of_its_manager() {
    let mut command = session();
    command.args(["systemd-run", "--user", "--scope", "--quiet", "--collect", "-p", "Delegate=yes"]);
    let output = case_in(command, "delegated");
    // All groups of the manager are the user's, so that no scope is needed.
    assert!(said(&output, "own").starts_with(&format!("/{USER}/app.slice/run-")), "{output}");
    assert!(said(&output, "group").starts_with(&format!("/{USER}/app.slice/ringfence/rf-")), "{output}");
    nothing_is_left();
}

#[test]
fn nothing_is_asked_without_a_limit() {
    let output = case_in(session(), "no limit");
    assert!(said(&output, "group").starts_with("/user.slice/user-1000.slice/run-"), "{output}");
    nothing_is_left();
}

/// Without a limit too: it is by their groups that its containers are ended.
#[test]
fn a_pod_that_shares_process_ids() {
    let output = case_in(session(), "pod");
    assert!(said(&output, "group").starts_with(&format!("/{USER}/app.slice/ringfence-")), "{output}");
    nothing_is_left();
}

#[test]
fn all_keepers_share_a_scope() {
    case_in(session(), "many");
    nothing_is_left();
}

#[test]
fn a_controller_that_the_manager_does_not_have() {
    let output = case_in(session(), "cpuset");
    assert!(said(&output, "error").contains("systemctl edit user@.service"), "{output}");
    nothing_is_left();
}

#[test]
fn the_scope_is_stopped() {
    let output = case_in(session(), "stopped");
    assert_ne!(said(&output, "first"), said(&output, "second"));
    nothing_is_left();
}

#[test]
fn a_killed_host_leaves_no_scope() {
    let mut command = session();
    let mut child = case(&mut command, "wait").stdout(Stdio::null()).spawn().unwrap();
    assert!(within(30, || scopes().iter().any(|scope| holds_a_container(scope))));
    child.kill().unwrap();
    child.wait().unwrap();
    nothing_is_left();
}

fn holds_a_container(scope: &Path) -> bool {
    let groups = fs::read_dir(scope).into_iter().flatten().flatten();
    groups.into_iter().any(|entry| {
        let procs = fs::read_to_string(entry.path().join("cgroup.procs")).unwrap_or_default();
        entry.file_name().to_string_lossy().starts_with("rf-") && !procs.trim().is_empty()
    })
}

#[test]
fn what_is_detached_outlives_its_starter_s_service() {
    for (manager, uid, parts) in [("--system", 0, ["-p", "Delegate=no"]), ("--system", 0, ["-p", "Delegate=yes"])] {
        outlives(manager, uid, &parts);
    }
    outlives("--user", 1000, &["-p", "Delegate=no"]);
}

fn outlives(manager: &str, uid: u32, parts: &[&str]) {
    let mut command = match uid {
        0 => Command::new("systemd-run"),
        _ => {
            let mut command = session();
            command.arg("systemd-run");
            command
        }
    };
    command.args([manager, "--unit=rf-starter", "--quiet", "--collect"]).args(parts);
    let status = case(&mut command, "detach").status().unwrap();
    assert!(status.success());
    assert!(within(40, || scopes().iter().any(|scope| holds_a_container(scope))), "{manager} {uid}");
    // That of a keeper before it may not be gone yet.
    let scope = scopes().into_iter().find(|scope| holds_a_container(scope)).expect("it was there");
    // Its name is found by the same user only.
    let mut stop = as_user(uid, "systemctl");
    assert!(stop.args([manager, "stop", "rf-starter.service"]).status().unwrap().success());
    std::thread::sleep(Duration::from_millis(500));
    assert!(holds_a_container(&scope), "{manager} {uid}");
    let mut command = service(&[manager]);
    if uid != 0 {
        command = session();
        command.args(["systemd-run", manager, "--pipe", "--wait", "--quiet", "--collect"]);
    }
    let output = case_in(command, "find");
    assert_eq!(said(&output, "alive"), "true");
    nothing_is_left();
}

fn as_user(uid: u32, program: &str) -> Command {
    let mut command = Command::new("setpriv");
    command.args([&format!("--reuid={uid}"), &format!("--regid={uid}"), "--clear-groups", program]);
    command.env("XDG_RUNTIME_DIR", format!("/run/user/{uid}"));
    command
}

/// `/run/user/UID` of a user without a manager, with a bus or without.
struct Runtime(PathBuf);

impl Runtime {
    fn new() -> Self {
        let dir = PathBuf::from(format!("/run/user/{NOBODY}"));
        fs::create_dir_all(&dir).unwrap();
        chown(&dir, Some(NOBODY), Some(NOBODY)).unwrap();
        Self(dir)
    }
}

impl Drop for Runtime {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn nobody(name: &str) -> String {
    // Not by systemd, which wants an account.
    let id = NOBODY.to_string();
    let prefix = ["setpriv", "--reuid", &id, "--regid", &id, "--clear-groups", "--inh-caps=-all", "--"];
    text(&case_as(&mut service(&[]), &prefix, name).output().unwrap())
}

#[test]
fn a_user_without_a_manager() {
    let output = nobody("refused");
    assert!(said(&output, "error").contains("loginctl enable-linger"), "{output}");
    assert_eq!(said(&output, "kind"), "NotAvailable");
    nothing_is_left();
}

#[test]
fn a_bus_that_does_not_answer() {
    let runtime = Runtime::new();
    let path = runtime.0.join("bus");
    let listener = UnixListener::bind(&path).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).unwrap();
    let output = nobody("refused");
    assert_eq!(said(&output, "kind"), "TimedOut");
    drop(listener);
    nothing_is_left();
}

#[test]
fn a_bus_without_a_manager() {
    let runtime = Runtime::new();
    let path = runtime.0.join("bus");
    let mut daemon = as_user(NOBODY, "dbus-daemon");
    daemon.args(["--session", "--nofork", "--nopidfile", "--address"]).arg(format!("unix:path={}", path.display()));
    let _daemon = Daemon(daemon.spawn().unwrap());
    assert!(within(20, || path.exists()));
    let output = nobody("refused");
    assert_eq!(said(&output, "kind"), "NotAvailable", "{output}");
    assert!(said(&output, "error").contains("org.freedesktop.systemd1"), "{output}");
    nothing_is_left();
}

struct Daemon(Child);

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Files of the user's manager and its bus, for the time of a test.
struct Configured(Vec<&'static str>);

impl Configured {
    fn new(files: &[(&'static str, &str)]) -> Self {
        let this = Self(files.iter().map(|(path, _)| *path).collect());
        for (path, text) in files {
            fs::create_dir_all(Path::new(path).parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        Self::read_again();
        this
    }

    fn read_again() {
        let bus =
            ["--user", "call", "org.freedesktop.DBus", "/org/freedesktop/DBus", "org.freedesktop.DBus", "ReloadConfig"];
        assert!(as_user(1000, "busctl").args(bus).status().unwrap().success());
        assert!(as_user(1000, "systemctl").args(["--user", "daemon-reload"]).status().unwrap().success());
    }
}

impl Drop for Configured {
    fn drop(&mut self) {
        for path in &self.0 {
            fs::remove_file(path).unwrap();
        }
        Self::read_again();
    }
}

#[test]
fn a_bus_that_forbids() {
    let policy = r#"<busconfig><policy context="mandatory">
        <deny send_interface="org.freedesktop.systemd1.Manager" send_member="StartTransientUnit"/>
        </policy></busconfig>"#;
    let forbidden = Configured::new(&[("/etc/dbus-1/session.d/ringfence-test.conf", policy)]);
    let output = case_in(session(), "refused");
    assert_eq!(said(&output, "kind"), "PermissionDenied", "{output}");
    assert!(said(&output, "error").contains("AccessDenied"), "{output}");
    assert!(said(&output, "error").contains("Delegate=yes"), "{output}");
    drop(forbidden);
    nothing_is_left();
}

#[test]
fn a_scope_that_comes_late() {
    // The scope waits for a unit that takes its time.
    let late = Configured::new(&[
        ("/etc/systemd/user/ringfence-.scope.d/late.conf", "[Unit]\nWants=rf-slow.service\nAfter=rf-slow.service\n"),
        ("/etc/systemd/user/rf-slow.service", "[Service]\nType=oneshot\nExecStart=/bin/sleep 12\n"),
    ]);
    let output = case_in(session(), "late");
    assert!(said(&output, "error").contains("has not started the scope yet"), "{output}");
    drop(late);
    nothing_is_left();
}

#[test]
fn a_scope_that_cannot_be_started() {
    let broken = Configured::new(&[
        (
            "/etc/systemd/user/ringfence-.scope.d/broken.conf",
            "[Unit]\nRequires=rf-fails.service\nAfter=rf-fails.service\n",
        ),
        ("/etc/systemd/user/rf-fails.service", "[Service]\nType=oneshot\nExecStart=/bin/false\n"),
    ]);
    let output = case_in(session(), "refused");
    assert_eq!(said(&output, "kind"), "PermissionDenied", "{output}");
    assert!(said(&output, "error").contains("journalctl"), "{output}");
    drop(broken);
    nothing_is_left();
}

#[test]
fn root_does_without_a_bus() {
    struct Bus;
    impl Drop for Bus {
        fn drop(&mut self) {
            systemctl(&["start", "dbus.socket", "dbus.service"]);
            // It does not connect again by itself.
            systemctl(&["restart", "user@1000.service"]);
        }
    }
    // systemd-run waits for the end of a service over the bus.
    let back = Bus;
    let log = common::tmp();
    let log = log.path().join("log");
    let mut command = Command::new("systemd-run");
    command.args(["--quiet", "--collect", "-p"]).arg(format!("StandardOutput=file:{}", log.display()));
    assert!(case(&mut command, "without a bus").status().unwrap().success());
    let read = || fs::read_to_string(&log).unwrap_or_default();
    assert!(within(120, || read().contains("test result:")), "{}", read());
    let output = read();
    assert!(said(&output, "group").starts_with("/ringfence/rf-"), "{output}");
    assert!(said(&output, "error").contains("systemd would end it together with run-"), "{output}");
    drop(back);
    nothing_is_left();
}

#[test]
fn the_doctor_says_how() {
    let output = case_in(service(&[]), "doctor");
    assert!(said(&output, "cgroup.memory true").contains("a scope of systemd"), "{output}");
    assert!(said(&output, "cgroup.detach true").contains("outlives"), "{output}");
    let output = case_in(session(), "doctor");
    assert!(said(&output, "cgroup.memory true").contains("a scope of user@1000.service"), "{output}");
    assert!(said(&output, "cgroup.detach false").contains("loginctl enable-linger tester"), "{output}");
    let output = nobody("doctor");
    assert!(said(&output, "cgroup.memory false").contains("loginctl enable-linger"), "{output}");
    nothing_is_left();
}

// What follows runs in the units.

fn own_group() -> String {
    group_of(std::process::id() as i32)
}

/// The v2 group of a process, as everybody outside sees it.
fn group_of(pid: i32) -> String {
    let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    text.trim().strip_prefix("0::").unwrap().to_owned()
}

fn file(group: &str, name: &str) -> String {
    fs::read_to_string(format!("{TREE}{group}/{name}")).unwrap_or_default().trim().to_owned()
}

fn sockets() -> usize {
    let links = fs::read_dir("/proc/self/fd").unwrap().flatten().filter_map(|entry| fs::read_link(entry.path()).ok());
    links.filter(|link| link.to_string_lossy().starts_with("socket:")).count()
}

fn count(path: &str) -> usize {
    fs::read_dir(path).unwrap().count()
}

/// Ends the containers and their keepers, and says whether the group went with them.
fn end(containers: Vec<Container>, group: &str) {
    for container in containers {
        container.close(None).unwrap();
    }
    ringfence::end_keepers();
    assert!(within(20, || !Path::new(&format!("{TREE}{group}")).exists()), "{group} is left");
}

fn limits(scope: bool) {
    let own = own_group();
    println!("own {own}");
    let before = (count("/proc/self/task"), sockets());
    let fields = json!({"memory": "64M", "pids": 20, "cpus": 0.8});
    let began = Instant::now();
    let first = start(fields.clone());
    let asked = began.elapsed();
    let group = group_of(first.pid());
    println!("group {group}");
    assert_eq!(own_group(), own, "the host has not moved");
    let began = Instant::now();
    let second = start(fields);
    println!("the first start took {asked:?}, the second {:?}", began.elapsed());
    assert_eq!(Path::new(&group_of(second.pid())).parent(), Path::new(&group).parent());
    second.close(None).unwrap();
    drop(second);
    assert_eq!(file(&group, "memory.max"), (64 << 20).to_string());
    assert_eq!(file(&group, "pids.max"), "20");
    assert_eq!(file(&group, "cpu.max"), "80000 100000");
    let parent = Path::new(&group).parent().unwrap().to_str().unwrap().to_owned();
    if scope {
        let keepers = file(&parent, "keeper/cgroup.procs");
        assert_eq!(keepers.lines().count(), 1, "{keepers:?}");
        assert_eq!(file(&parent, "cgroup.procs"), "");
    }

    // By exceeding them.
    let mut eater = ringfence::Command::new("/bin/sh");
    eater.args(["-c", "exec dd if=/dev/zero of=/dev/null bs=100M count=1"]);
    eater.stdout(ringfence::spec::Stdio::Null).stderr(ringfence::spec::Stdio::Null);
    first.spawn(&eater).unwrap().wait(common::TIMEOUT).unwrap().expect("its end");
    assert!(first.usage().unwrap().memory_oom_kills > Some(0));
    sh_in(&first, "(for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21; do sleep 1 & done) 2>&1 || true");
    assert!(first.usage().unwrap().pids_refused > Some(0));
    sh_in(&first, "i=0; while [ $i -lt 10000 ]; do i=$((i+1)); done");
    assert!(first.usage().unwrap().cpu_throttled_periods > Some(0));
    // Out of memory inside is no end of the scope.
    assert!(!first.wait_end(Some(Duration::ZERO)).unwrap());
    end(vec![first], &parent);
    assert_eq!((count("/proc/self/task"), sockets()), before, "no thread and no connection is left in the host");
}

/// A service that made itself a leaf, as the error of one that has not asks for.
fn in_a_leaf() {
    let own = own_group();
    fs::create_dir(format!("{TREE}{own}/main")).unwrap();
    fs::write(format!("{TREE}{own}/main/cgroup.procs"), "0").unwrap();
    limits(false);
}

fn many() {
    let spec = Spec::from_json(&json!({"memory": "64M"}).to_string()).unwrap();
    let containers: Vec<Container> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8).map(|_| scope.spawn(|| Container::start(&spec).unwrap())).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let parent = |c: &Container| Path::new(&group_of(c.pid())).parent().unwrap().to_owned();
    let scope = parent(&containers[0]);
    assert!(containers.iter().all(|c| parent(c) == scope));
    let keepers = file(scope.to_str().unwrap(), "keeper/cgroup.procs").lines().count();
    println!("{keepers} keepers");
    end(containers, scope.to_str().unwrap());
}

fn stopped() {
    let c = start(json!({"memory": "64M"}));
    let group = group_of(c.pid());
    let unit = |group: &str| Path::new(group).parent().unwrap().file_name().unwrap().to_str().unwrap().to_owned();
    println!("first {}", unit(&group));
    let stopped = Command::new("systemctl").args(["--user", "stop", &unit(&group)]).status().unwrap();
    assert!(stopped.success());
    assert!(c.wait_end(Some(Duration::from_secs(20))).unwrap(), "its processes were ended");
    drop(c);
    let began = Instant::now();
    let c = start(json!({"memory": "64M"}));
    println!("second {} after {:?}", unit(&group_of(c.pid())), began.elapsed());
    let parent = Path::new(&group_of(c.pid())).parent().unwrap().to_str().unwrap().to_owned();
    end(vec![c], &parent);
}

fn refused() {
    let groups = own_group();
    let began = Instant::now();
    let error = Container::start(&Spec::new().memory(64 << 20).start_timeout(PATIENCE)).unwrap_err();
    let first = began.elapsed();
    println!("kind {:?}\nerror {error}", error.kind());
    assert_eq!(error.field(), Some("memory"), "{error}");
    assert!(error.hint().is_some(), "{error}");
    let began = Instant::now();
    let error = Container::start(&Spec::new().pids(9)).unwrap_err();
    assert_eq!(error.field(), Some("pids"), "{error}");
    if error.kind() == ErrorKind::TimedOut {
        assert!(first >= PATIENCE, "{first:?}");
        assert!(began.elapsed() < PATIENCE, "nobody waits twice: {:?}", began.elapsed());
    }
    // Without limits there is nothing to ask for.
    let c = Container::start(&Spec::new()).unwrap();
    assert_eq!(group_of(c.pid()), groups);
    c.close(None).unwrap();
    let error = Container::start(&Spec::new().name("rf-detached").detach(true)).unwrap_err();
    assert_eq!(error.field(), Some("detach"), "{error}");
    assert!(error.to_string().contains("systemd would end it together with"), "{error}");
    assert!(Container::by_name("rf-detached").is_err());
}

#[test]
fn child_case() {
    let Ok(case) = std::env::var(CASE) else { return };
    println!();
    match &*case {
        "limits" => limits(true),
        "delegated" => limits(false),
        "leaf" => in_a_leaf(),
        "many" => many(),
        "stopped" => stopped(),
        "refused" => refused(),
        "no limit" => {
            let c = start(json!({}));
            println!("group {}", group_of(c.pid()));
            assert_eq!(group_of(c.pid()), own_group());
            c.close(None).unwrap();
        }
        "pod" => {
            use ringfence::spec::NamespaceKind::{Net, Pid};
            let pod = ringfence::Pod::start(&Spec::new(), &[Net, Pid]).unwrap();
            let c = pod.container(&Spec::new().memory(64 << 20)).unwrap();
            let group = group_of(c.pid());
            println!("group {group}");
            assert!(group.contains(&format!("/{}/", pod.id())), "{group}");
            assert_eq!(file(&group, "memory.max"), (64 << 20).to_string());
            let scope = Path::new(&group_of(pod.pid())).ancestors().nth(2).unwrap().to_str().unwrap().to_owned();
            pod.close(None).unwrap();
            end(Vec::new(), &scope);
        }
        "cpuset" => {
            let error = Container::start(&common::spec(json!({"cpuset": "0"}))).unwrap_err();
            println!("error {error}");
            assert_eq!(error.field(), Some("cpuset"), "{error}");
            ringfence::end_keepers();
        }
        "late" => {
            let patience = Duration::from_secs(3);
            let error = Container::start(&Spec::new().memory(64 << 20).start_timeout(patience)).unwrap_err();
            println!("error {error}");
            assert_eq!((error.field(), error.kind()), (Some("memory"), ErrorKind::TimedOut), "{error}");
            // The same scope is waited for, and is the only one.
            let c = Container::start(&Spec::new().memory(64 << 20).start_timeout(Duration::from_secs(60))).unwrap();
            let scope = Path::new(&group_of(c.pid())).parent().unwrap().to_str().unwrap().to_owned();
            assert_eq!(scopes(), [PathBuf::from(format!("{TREE}{scope}"))]);
            assert_eq!(file(&scope, "keeper/cgroup.procs").lines().count(), 1);
            assert_eq!(file(&group_of(c.pid()), "memory.max"), (64 << 20).to_string());
            end(vec![c], &scope);
        }
        "wait" => {
            let c = start(json!({"memory": "64M"}));
            c.wait_end(None).unwrap();
        }
        "detach" => {
            let c = start(json!({"name": "rf-detached", "detach": true, "memory": "64M"}));
            c.wait_end(None).unwrap();
        }
        "find" => {
            let c = Container::by_name("rf-detached").unwrap();
            println!("alive {}", !c.wait_end(Some(Duration::ZERO)).unwrap());
            assert_eq!(sh_in(&c, "echo here"), "here\n");
            assert_eq!(c.usage().unwrap().memory_max, Some(64 << 20));
            c.kill().unwrap();
            assert!(c.wait_end(common::TIMEOUT).unwrap());
            drop(c);
            ringfence::gc().unwrap();
        }
        "without a bus" => {
            systemctl(&["stop", "dbus.socket", "dbus.service"]);
            let c = start(json!({"memory": "64M"}));
            println!("group {}", group_of(c.pid()));
            let error = Container::start(&Spec::new().name("rf-detached").detach(true)).unwrap_err();
            println!("error {error}");
            assert_eq!(error.field(), Some("detach"), "{error}");
            c.close(None).unwrap();
            ringfence::end_keepers();
            assert!(within(20, || !Path::new(TREE).join("ringfence").exists()));
        }
        "doctor" => {
            for row in ringfence::doctor().findings {
                println!("{} {} {} {}", row.what, row.ok, row.detail, row.remedy.unwrap_or_default());
            }
        }
        other => panic!("no case {other}"),
    }
}
