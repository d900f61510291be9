//! Which namespace it is, what it belongs to, who is in it, and process ids from one to another.
//!
//! tests/run: timeout=600

use std::collections::{HashMap, HashSet};
use std::ffi::OsStr;
use std::fs;
use std::io::{BufRead, BufReader};
use std::os::fd::{AsFd, AsRawFd};
use std::process::{Child, Stdio as HostStdio};

use common::*;
use ringfence::spec::{NamespaceKind, NamespaceSource};
use ringfence::{Command, Container, Error, ErrorKind, Namespace, NamespaceEntry, Process, namespaces};

#[allow(dead_code, reason = "each test program uses a part of it")]
mod common;

/// What /proc says: `net:[4026531840]` -> 4026531840.
fn link(pid: i32, kind: NamespaceKind) -> Option<u64> {
    let link = fs::read_link(format!("/proc/{pid}/ns/{}", kind.name())).ok()?;
    link.to_str()?.split_once(":[")?.1.strip_suffix(']')?.parse().ok()
}

fn entry(entries: &[NamespaceEntry], kind: NamespaceKind, inode: u64) -> &NamespaceEntry {
    entries
        .iter()
        .find(|e| e.kind == kind && e.inode == inode)
        .unwrap_or_else(|| panic!("{}:[{inode}] is not listed", kind.name()))
}

/// A program of the host that says something and stays until it is dropped, with everything that it started.
struct Helper {
    child: Child,
    said: Vec<String>,
}

impl Helper {
    fn start(program: &str, args: &[&str], lines: usize) -> Self {
        let mut child = std::process::Command::new(program)
            .args(args)
            .stdin(HostStdio::piped())
            .stdout(HostStdio::piped())
            .spawn()
            .unwrap_or_else(|e| panic!("{program}: {e}"));
        let output = BufReader::new(child.stdout.take().expect("a pipe"));
        let said = output.lines().take(lines).map(|line| line.expect("a line")).collect();
        Self { child, said }
    }

    fn pid(&self) -> i32 {
        self.child.id() as i32
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A process inside that sleeps, and its number there.
fn sleeper(container: &Container, script: &str) -> (Process, i32) {
    let mut command = Command::new("/bin/sh");
    command.args(["-c", script]);
    command.stdout = Some(ringfence::spec::Stdio::Pipe);
    let process = container.spawn(&command).unwrap_or_else(|e| panic!("{e}"));
    let output = fs::File::from(process.take_stdout().expect("a pipe"));
    let mut line = String::new();
    BufReader::new(output).read_line(&mut line).expect("a line");
    let inner = line.trim().parse().unwrap_or_else(|e| panic!("{line:?}: {e}"));
    (process, inner)
}

/// lsns(8) of namespaces that are in `wanted`, by inode: owner, parent, first process, number of processes.
fn lsns(wanted: &HashSet<u64>) -> HashMap<u64, Value> {
    let done = std::process::Command::new("lsns")
        .args(["--json", "--output", "NS,TYPE,PID,NPROCS,PNS,ONS"])
        .output()
        .expect("lsns is there");
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let json: Value = serde_json::from_slice(&done.stdout).expect("JSON");
    let rows = json["namespaces"].as_array().expect("a list").clone();
    // Older versions write numbers as text.
    let number = |value: &Value| value.as_u64().or_else(|| value.as_str()?.parse().ok()).unwrap_or(0);
    rows.into_iter()
        .map(|row| {
            let plain = json!({
                "kind": row["type"], "pid": number(&row["pid"]), "nprocs": number(&row["nprocs"]),
                "parent": number(&row["pns"]), "owner": number(&row["ons"]),
            });
            (number(&row["ns"]), plain)
        })
        .filter(|(inode, _)| wanted.contains(inode))
        .collect()
}

/// Ten of them with four others each, which share their user namespace, and of these every second one their network.
#[test]
fn a_tree_of_fifty_containers_as_lsns_and_readlink_see_it() {
    let prefix = format!("tree-{}", std::process::id());
    let mut containers = Vec::new();
    for group in 0..10 {
        let name = format!("{prefix}-{group}");
        containers.push(start(json!({"name": name, "argv": ["sleep", "1000"]})));
        for child in 0..4 {
            let source = format!("container:{name}");
            let mut joined = json!({"user": source});
            if child % 2 == 0 {
                joined["net"] = source.into();
            }
            containers.push(start(json!({"argv": ["sleep", "1000"], "namespaces": joined})));
        }
    }
    let listed = namespaces().expect("a list");
    let mut ours = HashSet::new();
    for container in &containers {
        for kind in NamespaceKind::ALL {
            let namespace = container.namespace(kind).unwrap_or_else(|e| panic!("{e}"));
            assert_eq!(Some(namespace.inode()), link(container.pid(), kind), "{}", kind.name());
            let entry = entry(&listed, kind, namespace.inode());
            assert!(entry.members.contains(&container.pid()), "{entry:?}");
            assert_eq!((entry.device, entry.id), (namespace.device(), namespace.id()));
            assert_eq!(entry.owner_uid, namespace.owner_uid().ok());
            let inode = |found: ringfence::Result<Option<Namespace>>| found.ok().flatten().map(|n| n.inode());
            assert_eq!((entry.owner, entry.parent), (inode(namespace.owner()), inode(namespace.parent())), "{entry:?}");
            let is_shared = Namespace::own(kind).expect("own") == namespace;
            assert_eq!(is_shared, kind == NamespaceKind::Time, "{}", kind.name());
            if !is_shared {
                ours.insert(namespace.inode());
            }
        }
    }
    // 50 of mnt, pid, ipc, uts and cgroup each, 10 of user, 10 shared of net and 20 not.
    assert_eq!(ours.len(), 5 * 50 + 10 + 30);
    for group in containers.chunks(5) {
        let of = |index: usize, kind| group[index].namespace(kind).expect("a namespace");
        let user = of(0, NamespaceKind::User);
        for index in 0..5 {
            assert_eq!(of(index, NamespaceKind::User), user);
            assert_eq!(of(index, NamespaceKind::Net) == of(0, NamespaceKind::Net), index % 2 == 1 || index == 0);
            for kind in [NamespaceKind::Mnt, NamespaceKind::Pid, NamespaceKind::Net, NamespaceKind::Uts] {
                assert_eq!(of(index, kind).owner().expect("owner").as_ref(), Some(&user), "{}", kind.name());
            }
            assert_eq!(
                of(index, NamespaceKind::Pid).parent().expect("parent"),
                Namespace::own(NamespaceKind::Pid).ok()
            );
        }
        let members = user.members().expect("members");
        assert!(group.iter().all(|container| members.contains(&container.pid())), "{members:?}");
    }
    let by_lsns = lsns(&ours);
    assert_eq!(by_lsns.len(), ours.len());
    for (inode, row) in by_lsns {
        let kind = NamespaceKind::from_name(row["kind"].as_str().expect("a kind")).expect("a kind");
        let entry = entry(&listed, kind, inode);
        let first = entry.members[0] as u64;
        assert_eq!(
            (row["pid"].as_u64(), row["nprocs"].as_u64()),
            (Some(first), Some(entry.members.len() as u64)),
            "{row}"
        );
        assert_eq!(row["owner"].as_u64(), Some(entry.owner.unwrap_or(0)), "{row} {entry:?}");
        // lsns shows the owner of a user namespace as its parent too.
        assert_eq!(row["parent"].as_u64(), Some(entry.parent.unwrap_or(0)), "{row} {entry:?}");
    }
    for container in containers {
        container.close(None).expect("close");
    }
}

#[test]
fn one_namespace_by_each_way_is_equal() {
    let name = format!("ways-{}", std::process::id());
    let container = start(json!({"name": name}));
    for kind in NamespaceKind::ALL {
        let namespace = container.namespace(kind).unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(namespace.kind(), kind);
        let pid = container.pid();
        let path = format!("/proc/{pid}/ns/{}", kind.name());
        let number = namespace.as_raw_fd();
        let source =
            |text: &str| Namespace::find(&NamespaceSource::parse(OsStr::new(text)).expect("a source"), Some(kind));
        let ways = [
            Namespace::of_pid(pid, kind),
            Namespace::of_pidfd(container.pidfd(), kind),
            Namespace::of_path(&path),
            Namespace::of_fd(number),
            Namespace::find(&NamespaceSource::Path(path.clone().into()), None),
            Namespace::find(&NamespaceSource::Fd(number), None),
            source(&format!("pid:{pid}")),
            source(&format!("fd:{}", container.pidfd().as_raw_fd())),
            source(&format!("container:{name}")),
        ];
        let all: HashSet<Namespace> = ways.into_iter().map(|way| way.unwrap_or_else(|e| panic!("{e}"))).collect();
        assert_eq!(all, HashSet::from([namespace]));
        let own = Namespace::own(kind).expect("own");
        assert_eq!(source("host").expect("own"), own);
        assert_eq!(all.contains(&own), kind == NamespaceKind::Time);
    }
    container.close(None).expect("close");
}

#[test]
fn ids_of_the_kernel_are_never_the_same() {
    let mut seen = HashSet::new();
    for _ in 0..3 {
        let container = start(json!({}));
        for kind in [NamespaceKind::Mnt, NamespaceKind::Net, NamespaceKind::Pid, NamespaceKind::User] {
            // Mount namespaces had one before the others.
            if let Some(id) = container.namespace(kind).unwrap_or_else(|e| panic!("{e}")).id() {
                assert!(id > 0 && seen.insert((kind, id)), "{} {id}", kind.name());
            }
        }
        container.close(None).expect("close");
    }
    let release = nix::sys::utsname::uname().expect("uname").release().to_string_lossy().into_owned();
    let version: Vec<u32> = release.split(['.', '-']).take(2).filter_map(|word| word.parse().ok()).collect();
    assert!(version < vec![6, 11] || seen.iter().filter(|(kind, _)| *kind == NamespaceKind::Mnt).count() == 3);
    assert!(version < vec![6, 18] || seen.len() == 12);
}

/// A descriptor keeps it, and it keeps the user namespace that owns it, which nothing else does.
#[test]
fn without_a_process_a_descriptor_and_a_relation_keep_it() {
    let container = start(json!({}));
    let kept = container.namespace(NamespaceKind::Net).unwrap_or_else(|e| panic!("{e}"));
    let pid_namespace = container.namespace(NamespaceKind::Pid).expect("a namespace");
    let owner = kept.owner().expect("owner").expect("an owner").inode();
    container.close(None).expect("close");
    assert_eq!(kept.members().expect("members"), [0; 0]);
    let listed = namespaces().expect("a list");
    let me = std::process::id() as i32;
    for namespace in [&kept, &pid_namespace] {
        let found = entry(&listed, namespace.kind(), namespace.inode());
        assert_eq!(
            (&found.members[..], &found.held_by[..], found.owner),
            (&[][..], &[me][..], Some(owner)),
            "{found:?}"
        );
        assert_eq!(found.command, None);
    }
    let found = entry(&listed, NamespaceKind::User, owner);
    assert_eq!((found.members.len(), found.held_by.len(), found.mounts.len()), (0, 0, 0), "{found:?}");
    // Its last process is gone: nobody can be born in it, and it translates nothing.
    assert_eq!(pid_namespace.pid_from(1).expect_err("no process").kind(), ErrorKind::NotFound);
    let inode = kept.inode();
    drop((kept, pid_namespace));
    let again = namespaces().expect("a list");
    // The number of a namespace that is gone may be given to another.
    assert!(!again.iter().any(|e| e.inode == inode && e.owner == Some(owner)), "it is gone");
}

#[test]
fn a_bind_mount_in_another_mount_namespace_keeps_it() {
    let dir = tmp();
    let file = dir.path().join("a namespace");
    fs::write(&file, "").expect("a file");
    let script = "mount --bind /proc/self/ns/net \"$1\" && readlink /proc/self/ns/net && exec unshare -n sh -c 'echo left; exec sleep 1000'";
    let helper = Helper::start("unshare", &["-Urmn", "sh", "-c", script, "sh", file.to_str().expect("text")], 2);
    let inode: u64 = helper.said[0]
        .strip_prefix("net:[")
        .and_then(|t| t.strip_suffix(']'))
        .expect("a link")
        .parse()
        .expect("a number");
    let listed = namespaces().expect("a list");
    let found = entry(&listed, NamespaceKind::Net, inode);
    assert_eq!((found.members.len(), found.held_by.len()), (0, 0), "{found:?}");
    assert_eq!(found.mounts.as_slice(), std::slice::from_ref(&file));
    assert_eq!(found.owner, link(helper.pid(), NamespaceKind::User));
    assert_eq!(found.owner_uid, Some(nix::unistd::geteuid().as_raw()));
    let json: Value = serde_json::from_str(&NamespaceEntry::to_json(&listed)).expect("JSON");
    let row = json.as_array().expect("a list").iter().find(|row| row["inode"] == inode).expect("listed");
    assert_eq!((&row["kind"], &row["mounts"][0]), (&json!("net"), &json!(file.to_str())));
}

/// A thread that went elsewhere is a member too.
#[test]
fn a_thread_is_somewhere_else_than_its_process() {
    if !is_root() {
        return skip("a thread needs CAP_SYS_ADMIN to leave alone");
    }
    let (ready, is_ready) = std::sync::mpsc::channel();
    let (done, is_done) = std::sync::mpsc::channel::<()>();
    let thread = std::thread::spawn(move || {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWUTS).expect("unshare");
        ready.send(Namespace::own(NamespaceKind::Uts).expect("own")).expect("send");
        let _ = is_done.recv();
    });
    let namespace = is_ready.recv().expect("a namespace");
    let me = std::process::id() as i32;
    assert_ne!(namespace, Namespace::own(NamespaceKind::Uts).expect("own"));
    assert_eq!(namespace.members().expect("members"), [me]);
    let listed = namespaces().expect("a list");
    assert_eq!(entry(&listed, NamespaceKind::Uts, namespace.inode()).members, [me]);
    drop(done);
    thread.join().expect("join");
    assert_eq!(namespace.members().expect("members"), [0; 0]);
}

#[test]
fn process_ids_go_both_ways() {
    let (a, b) = (start(json!({})), start(json!({})));
    let space = |container: &Container| container.namespace(NamespaceKind::Pid).unwrap_or_else(|e| panic!("{e}"));
    let (in_a, in_b, own) = (space(&a), space(&b), Namespace::own(NamespaceKind::Pid).expect("own"));
    assert_eq!((in_a.pid_in(a.pid()).expect("pid 1"), in_a.pid_from(1).expect("pid 1")), (1, a.pid()));
    for _ in 0..5 {
        let (process, inner) = sleeper(&a, "echo $$; exec sleep 1000");
        assert_eq!(in_a.pid_in(process.pid()).expect("inside"), inner);
        assert_eq!(in_a.pid_from(inner).expect("outside"), process.pid());
        assert_eq!(own.pid_in(process.pid()).expect("own"), process.pid());
        assert_eq!(own.pid_from(process.pid()).expect("own"), process.pid());
        // Siblings do not see each other.
        let error = in_b.pid_in(process.pid()).expect_err("not inside");
        assert_eq!(
            (error.kind(), error.field(), error.errno()),
            (ErrorKind::NotFound, Some("pid"), libc::ESRCH),
            "{error}"
        );
        process.kill(libc::SIGKILL).expect("kill");
        process.wait(TIMEOUT).expect("wait");
        assert_eq!(in_a.pid_from(inner).expect_err("gone").kind(), ErrorKind::NotFound);
    }
    for container in [a, b] {
        container.close(None).expect("close");
    }
}

/// From a pid namespace to that which is in it, and back: both foreign to this process.
#[test]
fn process_ids_between_two_foreign_namespaces() {
    let script =
        "readlink /proc/self/ns/pid; echo $$; exec unshare --pid --fork --kill-child sh -c 'echo $$; exec sleep 1000'";
    let helper =
        Helper::start("unshare", &["-Ur", "--pid", "--fork", "--kill-child", "--mount-proc", "sh", "-c", script], 3);
    let children = |pid: i32| -> Vec<i32> {
        let text = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).expect("children");
        text.split_whitespace().map(|word| word.parse().expect("a pid")).collect()
    };
    let outer_first = children(helper.pid())[0];
    let inner_first = children(outer_first)[0];
    let outer = Namespace::of_pid(outer_first, NamespaceKind::Pid).expect("outer");
    let inner = Namespace::of_pid(inner_first, NamespaceKind::Pid).expect("inner");
    assert_eq!(inner.parent().expect("parent").as_ref(), Some(&outer));
    assert_eq!(helper.said, [format!("pid:[{}]", outer.inode()), "1".into(), "1".into()]);
    let middle = outer.pid_in(inner_first).expect("seen from between");
    assert!(middle > 1);
    assert_eq!(inner.pid_in(outer.pid_from(middle).expect("here")).expect("inside"), 1);
    assert_eq!(outer.pid_in(inner.pid_from(1).expect("here")).expect("between"), middle);
}

#[track_caller]
fn fails(result: ringfence::Result<impl std::fmt::Debug>, kind: ErrorKind, field: &str) -> Error {
    let error = result.expect_err("an error");
    assert_eq!((error.kind(), error.field()), (kind, Some(field)), "{error}");
    error
}

#[test]
fn what_is_wrong_is_named() {
    use ErrorKind::{InvalidArgument, NotFound};
    let net = NamespaceKind::Net;
    fails(NamespaceKind::parse("network"), InvalidArgument, "kind");
    for source in ["", "net", "pid:", "pid:x", "fd:-1", "etc/passwd"] {
        fails(NamespaceSource::parse(OsStr::new(source)), InvalidArgument, "source");
    }
    fails(Namespace::find(&NamespaceSource::New, Some(net)), InvalidArgument, "source");
    for source in [NamespaceSource::Host, NamespaceSource::Pid(1)] {
        fails(Namespace::find(&source, None), InvalidArgument, "kind");
    }
    fails(Namespace::find(&NamespaceSource::Container("nobody-has-this-name".into()), Some(net)), NotFound, "source");
    fails(Namespace::find(&NamespaceSource::Path("/proc/self/ns/uts".into()), Some(net)), InvalidArgument, "kind");

    for pid in [0, -1, i32::MIN] {
        fails(Namespace::of_pid(pid, net), InvalidArgument, "pid");
    }
    fails(Namespace::of_pid(4_194_303, net), NotFound, "pid");
    fails(Namespace::of_path("/no/such/file"), NotFound, "path");
    for path in ["/etc/passwd", "/", "/dev/null", "/proc/self/ns"] {
        fails(Namespace::of_path(path), InvalidArgument, "path");
    }
    // It is looked at and not opened: that would wait for a writer.
    let dir = tmp();
    let fifo = dir.path().join("fifo");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRUSR).expect("a fifo");
    fails(Namespace::of_path(&fifo), InvalidArgument, "path");

    let file = fs::File::open("/dev/null").expect("a file");
    for fd in [-1, 987, i32::MAX, file.as_raw_fd()] {
        fails(Namespace::of_fd(fd), InvalidArgument, "fd");
    }
    fails(Namespace::find(&NamespaceSource::Fd(file.as_raw_fd()), Some(net)), InvalidArgument, "fd");
    fails(Namespace::of_pidfd(file.as_fd(), net), InvalidArgument, "pidfd");

    let own = Namespace::own(net).expect("own");
    fails(own.pid_in(1), InvalidArgument, "kind");
    fails(own.pid_from(1), InvalidArgument, "kind");
    let own = Namespace::own(NamespaceKind::Pid).expect("own");
    fails(own.pid_in(0), InvalidArgument, "pid");
    fails(own.pid_from(-1), InvalidArgument, "pid");
    fails(own.pid_in(4_194_303), NotFound, "pid");
    assert_eq!(Namespace::own(net).expect("own").parent().expect("none").map(|n| n.inode()), None);
}

#[test]
fn what_has_ended_has_no_namespaces() {
    let container = start(json!({}));
    let (process, _) = sleeper(&container, "echo $$; exec sleep 1000");
    let pidfd = process.pidfd().try_clone_to_owned().expect("a copy");
    let first = container.pidfd().try_clone_to_owned().expect("a copy");
    process.kill(libc::SIGKILL).expect("kill");
    process.wait(TIMEOUT).expect("wait");
    fails(Namespace::of_pidfd(pidfd.as_fd(), NamespaceKind::Net), ErrorKind::NotFound, "pidfd");
    container.kill().expect("kill");
    container.wait_end(TIMEOUT).expect("wait");
    assert_eq!(container.namespace(NamespaceKind::Net).expect_err("ended").kind(), ErrorKind::Closed);
    fails(Namespace::of_pidfd(first.as_fd(), NamespaceKind::Net), ErrorKind::NotFound, "pidfd");
    container.close(None).expect("close");
    assert_eq!(container.namespace(NamespaceKind::Net).expect_err("closed").kind(), ErrorKind::Closed);

    // A zombie: it has a number and is in no namespace any more.
    let mut zombie = std::process::Command::new("true").spawn().expect("a process");
    let pid = zombie.id() as i32;
    until("it ends", || fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| stat.contains(") Z ")));
    fails(Namespace::of_pid(pid, NamespaceKind::Net), ErrorKind::NotFound, "pid");
    zombie.wait().expect("wait");
}

/// A list that would lack something for want of descriptors is an error. In a process of its own: the limit is that of all threads.
#[test]
fn descriptors_run_out() {
    const INSIDE: &str = "RINGFENCE_TEST_FEW_DESCRIPTORS";
    if std::env::var_os(INSIDE).is_none() {
        let mut again = std::process::Command::new(std::env::current_exe().expect("this program"));
        let done = again.args(["--exact", "descriptors_run_out"]).env(INSIDE, "1").output().expect("this program");
        let said = String::from_utf8_lossy(&done.stdout);
        assert!(done.status.success(), "{said}{}", String::from_utf8_lossy(&done.stderr));
        return;
    }
    let whole = namespaces().expect("a list").len();
    nix::sys::resource::setrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE, 64, 64).expect("setrlimit");
    let own = Namespace::own(NamespaceKind::Net).expect("own");
    let mut taken: Vec<fs::File> = std::iter::from_fn(|| fs::File::open("/dev/null").ok()).collect();
    let mut errors = 0;
    loop {
        match namespaces() {
            Err(error) => {
                assert_eq!((error.kind(), error.errno()), (ErrorKind::Exhausted, libc::EMFILE), "{error}");
                errors += 1;
            }
            // Others come and go.
            Ok(list) => {
                let mine = std::process::id() as i32;
                assert!(
                    list.iter()
                        .filter(|e| e.members.contains(&mine))
                        .all(|e| e.owner.is_some() || e.kind == NamespaceKind::User)
                );
                assert!(list.len() * 2 > whole);
                break;
            }
        }
        assert!(taken.pop().is_some(), "it never works");
    }
    // /proc, its threads, a directory of namespaces and a namespace are open one after the other, at most three at once.
    assert!(errors >= 2, "{errors}");
    while let Ok(file) = fs::File::open("/dev/null") {
        taken.push(file);
    }
    assert_eq!(own.members().expect_err("no descriptor").kind(), ErrorKind::Exhausted);
}

/// Of others' processes an ordinary user sees nothing, and what is above one's own namespaces nobody.
#[test]
fn rights() {
    // Root too, when the first process has more capabilities than it.
    if fs::metadata("/proc/1/ns/net").is_err() {
        let error = fails(Namespace::of_pid(1, NamespaceKind::Net), ErrorKind::PermissionDenied, "pid");
        assert!(error.hint().is_some_and(|hint| hint.contains("trace")), "{error}");
        assert!(!Namespace::own(NamespaceKind::Net).expect("own").members().expect("members").contains(&1));
    } else {
        assert!(
            Namespace::of_pid(1, NamespaceKind::Net).expect("a namespace").members().expect("members").contains(&1)
        );
    }
    let listed = namespaces().expect("a list");
    let me = std::process::id() as i32;
    for kind in NamespaceKind::ALL {
        let own = Namespace::own(kind).expect("own");
        let entry = entry(&listed, kind, own.inode());
        assert!(entry.members.contains(&me), "{entry:?}");
    }
    let user = Namespace::own(NamespaceKind::User).expect("own");
    match user.owner() {
        Ok(owner) => assert_eq!((owner, user.parent().expect("parent"), user.inode()), (None, None, 0xefff_fffd)),
        Err(error) => {
            assert_eq!((error.kind(), error.field()), (ErrorKind::PermissionDenied, Some("owner")), "{error}");
            fails(user.parent(), ErrorKind::PermissionDenied, "parent");
        }
    }
    let pids = Namespace::own(NamespaceKind::Pid).expect("own");
    match pids.parent() {
        Ok(parent) => assert_eq!((parent, pids.inode()), (None, 0xefff_fffc)),
        Err(error) => {
            assert_eq!((error.kind(), error.field()), (ErrorKind::PermissionDenied, Some("parent")), "{error}");
        }
    }
}

/// The same from a user and a pid namespace below, where more is hidden.
#[test]
fn rights_in_namespaces_of_ones_own() {
    let program = std::env::current_exe().expect("this program");
    let done = std::process::Command::new("unshare")
        .args(["-Ur", "--pid", "--fork", "--kill-child", "--mount-proc"])
        .arg(program)
        .args(["--exact", "rights"])
        .output()
        .expect("unshare");
    let said = String::from_utf8_lossy(&done.stdout);
    assert!(done.status.success() && said.contains("1 passed"), "{said}{}", String::from_utf8_lossy(&done.stderr));
}

/// A network that outlives its container, for others.
#[test]
fn a_pinned_namespace_stays_for_others() {
    let dir = public_tmp();
    let path = dir.path().join("net");
    let container = start(json!({"idmap": if is_root() { "host" } else { "auto" }}));
    let net = container.namespace(NamespaceKind::Net).unwrap();
    if !is_root() {
        fails(net.pin(&path), ErrorKind::PermissionDenied, "path");
        assert!(!path.exists(), "nothing is left");
        fails(Namespace::unpin("/nonsense"), ErrorKind::NotFound, "path");
        return container.close(TIMEOUT).unwrap();
    }
    net.pin(&path).unwrap();
    fails(net.pin(&path), ErrorKind::AlreadyExists, "path");
    let inode = net.inode();
    drop(net);
    container.close(TIMEOUT).unwrap();
    assert_eq!(Namespace::of_path(&path).unwrap().inode(), inode);
    let fields = json!({"idmap": "host", "namespaces": {"net": path}});
    let first = start(fields.clone());
    let second = start(fields);
    let listener = std::net::TcpListener::from(first.listen("127.0.0.1:80", 1).unwrap());
    drop(second.connect("127.0.0.1:80", TIMEOUT).unwrap());
    drop(listener);
    first.close(TIMEOUT).unwrap();
    second.close(TIMEOUT).unwrap();
    // Not what is none.
    std::fs::write(dir.path().join("file"), "x").expect("a file");
    fails(Namespace::unpin(dir.path().join("file")), ErrorKind::InvalidArgument, "path");
    fails(Namespace::unpin("/proc/self/ns/net"), ErrorKind::InvalidArgument, "path");
    Namespace::unpin(&path).unwrap();
    assert!(!path.exists());
    fails(Namespace::own(NamespaceKind::Mnt).unwrap().pin(&path), ErrorKind::Os, "kind");
    assert!(!path.exists());
}
