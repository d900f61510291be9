//! Namespaces: every kind new, the host's, or joined.
//!
//! tests/run: timeout=300

use std::fs;
use std::os::fd::AsRawFd;

use common::*;
use ringfence::spec::{NamespaceKind, Stdio};
use ringfence::{Command, Container, ErrorKind};

#[allow(dead_code, reason = "each test program uses a part of it")]
mod common;

fn own(kind: &str) -> String {
    fs::read_link(format!("/proc/self/ns/{kind}")).expect("a namespace").to_string_lossy().into_owned()
}

fn of(pid: i32, kind: &str) -> String {
    fs::read_link(format!("/proc/{pid}/ns/{kind}")).map_or_else(|e| e.to_string(), |p| p.to_string_lossy().into_owned())
}

/// As the container's processes see their own.
fn inside(container: &Container, kind: &str) -> String {
    sh_in(container, &format!("readlink /proc/self/ns/{kind}")).trim().to_owned()
}

const READLINK: &str = "for k in mnt pid net ipc uts user cgroup time; do readlink /proc/self/ns/$k; done";

#[test]
fn all_kinds_are_new_but_time_without_offsets() {
    let out = sh(READLINK, json!({}));
    for (kind, line) in NamespaceKind::ALL.into_iter().zip(out.lines()) {
        let own = own(kind.name());
        let is_new = line != own;
        assert_eq!(is_new, kind != NamespaceKind::Time, "{}: {line}, the caller's is {own}", kind.name());
    }
    let out = sh(READLINK, json!({"time_offsets": {"monotonic": 1}}));
    assert_ne!(out.lines().last(), Some(own("time").as_str()));
    let out = sh(READLINK, json!({"namespaces": {"time": "new"}}));
    assert_ne!(out.lines().last(), Some(own("time").as_str()));
}

#[test]
fn the_host_s_kinds() {
    for kind in ["net", "ipc", "uts", "cgroup", "time"] {
        let out = sh(&format!("readlink /proc/self/ns/{kind}"), json!({"namespaces": {kind: "host"}}));
        assert_eq!(out.trim(), own(kind), "{kind}");
    }
}

#[test]
fn the_host_s_processes() {
    let spec = json!({"argv": ["sh", "-c", "readlink /proc/self/ns/pid; echo $$"], "namespaces": {"pid": "host"}});
    match try_run(spec) {
        Ok(ran) => {
            assert_eq!(ran.out.lines().next(), Some(own("pid").as_str()), "{}", ran.err);
            assert!(
                ran.out.lines().nth(1).is_some_and(|pid| pid.parse::<i32>().is_ok_and(|pid| pid > 2)),
                "{}",
                ran.out
            );
        }
        // Nothing but a control group can end it.
        Err(error) => {
            assert!(!can_limit(), "{error}");
            assert_eq!((error.kind(), error.field()), (ErrorKind::Unsupported, Some("namespaces.pid")), "{error}");
        }
    }
}

/// Its processes, orphans too, are gone when it is closed.
#[test]
fn a_container_among_the_host_s_processes_is_ended_whole() {
    if !can_limit() {
        return skip("needs a control group");
    }
    let dir = tmp();
    let container = start(json!({
        "argv": ["sh", "-c", "setsid sh -c 'echo $$ >/data/orphan; exec sleep 1000' & sleep 1000"],
        "namespaces": {"pid": "host"},
        "mounts": [format!("{}:/data:rw", dir.path().display())],
    }));
    until("the orphan's pid", || fs::read_to_string(dir.path().join("orphan")).is_ok_and(|t| t.ends_with('\n')));
    let pid: i32 = fs::read_to_string(dir.path().join("orphan")).expect("read").trim().parse().expect("a pid");
    assert!(fs::exists(format!("/proc/{pid}/comm")).expect("look"));
    container.close(TIMEOUT).expect("close");
    until("the orphan ends", || !fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|c| c.trim() == "sleep"));
}

/// No file system is made then: what the spec says of files has no place.
#[test]
fn the_host_s_mounts() {
    let dir = public_tmp();
    fs::write(dir.path().join("f"), "host\n").expect("a file");
    let path = dir.path().join("f");
    let container = start(json!({"namespaces": {"mnt": "host"}}));
    let script = format!("readlink /proc/self/ns/mnt; cat {}", path.display());
    let joined = sh_in(&container, &script);
    let main = sh(&script, json!({"namespaces": {"mnt": "host"}}));
    assert_eq!(joined, main);
    assert!(main.ends_with("\nhost\n"), "{main}");
    assert!(main.starts_with(&own("mnt")), "{main}");
    container.close(None).expect("close");
}

#[test]
fn the_host_s_users_are_for_privileged_callers() {
    let spec = json!({"argv": ["readlink", "/proc/self/ns/user"], "idmap": "host"});
    if is_root() {
        assert_eq!(run(spec).out.trim(), own("user"));
    } else {
        let error = refused(spec);
        assert_eq!((error.kind(), error.field()), (ErrorKind::PermissionDenied, Some("idmap")), "{error}");
    }
}

/// A namespace of one container by path, descriptor, pid and name: the other container has the same.
#[test]
fn joined_in_each_way() {
    let name = format!("ns-{}", std::process::id());
    let first = start(json!({"name": name, "hostname": "first"}));
    let pid = first.pid();
    for kind in ["net", "ipc", "uts"] {
        let wanted = inside(&first, kind);
        let file = match first.ns_fd(NamespaceKind::from_name(kind).expect("a kind")) {
            Ok(file) => file,
            Err(error) => {
                // An ordinary user may not trace what its keeper made; the container itself can still be named.
                assert!(!is_root() && error.kind() == ErrorKind::PermissionDenied, "{error}");
                let fields = json!({"namespaces": {kind: format!("container:{name}")}});
                assert_eq!(sh(&format!("readlink /proc/self/ns/{kind}"), fields).trim(), wanted, "{kind} by name");
                continue;
            }
        };
        let ways = [
            format!("/proc/{pid}/ns/{kind}"),
            format!("fd:{}", file.as_raw_fd()),
            format!("pid:{pid}"),
            format!("container:{name}"),
        ];
        for way in ways {
            let out = sh(&format!("readlink /proc/self/ns/{kind}"), json!({"namespaces": {kind: way}}));
            assert_eq!(out.trim(), wanted, "{kind} as {way}");
        }
    }
    // The devices of that network, and not the host's, where the caller may show them.
    if is_root() {
        for idmap in ["auto", "host"] {
            let fields = json!({"namespaces": {"net": format!("pid:{pid}")}, "idmap": idmap});
            let script = "ls /sys/class/net; touch /sys/class/net/lo/x 2>&1 | grep -o 'Read-only'";
            assert_eq!(sh(script, fields), "lo\nRead-only\n", "{idmap}");
        }
    }
    first.close(None).expect("close");
}

/// Also its /proc is that namespace's: the host's would show all of the host's processes.
#[test]
fn a_pid_namespace_is_joined() {
    let name = format!("pids-{}", std::process::id());
    let ids: &[&str] = if is_root() { &["auto", "host"] } else { &["auto"] };
    for (first_ids, ids) in ids.iter().flat_map(|first| ids.iter().map(move |second| (*first, *second))) {
        let first = start(json!({"name": name, "argv": ["sleep", "1000"], "idmap": first_ids}));
        let wanted = inside(&first, "pid");
        let script = "readlink /proc/self/ns/pid; cat /proc/1/comm; cat /proc/[0-9]*/comm 2>/dev/null | sort | uniq | tr '\\n' ' '";
        let mut ways = vec![json!({"namespaces": {"pid": format!("container:{name}")}, "idmap": ids})];
        if (first_ids, ids) == ("auto", "auto") {
            ways.push(json!({"namespaces": {"pid": format!("container:{name}"), "user": format!("container:{name}")}}));
        }
        for way in ways {
            match try_run(with(json!({"argv": ["sh", "-c", script]}), way.clone())) {
                Ok(ran) => {
                    let lines: Vec<_> = ran.out.lines().collect();
                    assert_eq!(lines[..2], [wanted.as_str(), "ringfence"], "{first_ids} {way} {}{}", ran.out, ran.err);
                    let seen: Vec<_> = lines[2]
                        .split_whitespace()
                        .filter(|comm| !matches!(*comm, "ls" | "cat" | "sort" | "uniq" | "tr"))
                        .collect();
                    assert_eq!(seen, ["ringfence", "sh", "sleep"], "{first_ids} {way}");
                }
                // Without control groups, or before Linux 6.17.
                Err(error) => assert_eq!(error.field(), Some("namespaces.pid"), "{error}"),
            }
        }
        assert!(first.is_running(), "the end of the second is not the end of the first");
        first.close(None).expect("close");
    }
}

/// A user namespace that exists already: its ids and the rights over what it owns.
#[test]
fn a_user_namespace_is_joined() {
    let name = format!("users-{}", std::process::id());
    let first = start(json!({"name": name}));
    let wanted = inside(&first, "user");
    let map = sh_in(&first, "cat /proc/self/uid_map");
    let fields = json!({"namespaces": {"user": format!("container:{name}")}});
    let ran = run(with(
        json!({"argv": ["sh", "-c", "readlink /proc/self/ns/user; cat /proc/self/uid_map; id -u; hostname x && hostname"]}),
        with(fields, json!({"capabilities": {"add": ["sys_admin"]}})),
    ));
    assert_eq!(ran.out, format!("{wanted}\n{map}0\nx\n"), "{}", ran.err);
    first.close(None).expect("close");
}

/// A namespace that belongs to another container's user namespace.
#[test]
fn user_and_net_namespaces_are_joined_together() {
    let name = format!("both-{}", std::process::id());
    let first = start(json!({"name": name}));
    let (user, net) = (inside(&first, "user"), inside(&first, "net"));
    let source = format!("container:{name}");
    let out = sh(
        "readlink /proc/self/ns/user /proc/self/ns/net; cat /sys/class/net/lo/flags",
        json!({
            "namespaces": {"user": source, "net": source},
        }),
    );
    assert_eq!(out, format!("{user}\n{net}\n0x9\n"));
    first.close(None).expect("close");
}

#[test]
fn what_is_no_namespace() {
    let wrong = [
        ("net", "/etc/passwd", ErrorKind::InvalidSpec),
        ("net", "/no/such/file", ErrorKind::NotFound),
        ("net", "fd:987", ErrorKind::InvalidArgument),
        ("net", "container:nobody-has-this-name", ErrorKind::NotFound),
        ("net", "pid:4194303", ErrorKind::NotFound),
    ];
    for (kind, source, expected) in wrong {
        let error = refused(json!({"argv": ["true"], "namespaces": {kind: source}}));
        assert_eq!(error.field(), Some(format!("namespaces.{kind}").as_str()), "{source}: {error}");
        assert_eq!(error.kind(), expected, "{source}: {error}");
    }
    // Of another kind than the field says.
    let error = refused(json!({"argv": ["true"], "namespaces": {"net": "/proc/self/ns/uts"}}));
    assert_eq!((error.field(), error.errno()), (Some("namespaces.net"), libc::EINVAL), "{error}");
}

/// A container that joins namespaces is made by a stage, which may still be there when the start is answered.
#[test]
fn commands_right_after_the_start() {
    let name = format!("stages-{}", std::process::id());
    let first = start(json!({"name": name}));
    let source = format!("container:{name}");
    let staged = [
        json!({"namespaces": {"net": source}}),
        json!({"namespaces": {"user": source}}),
        json!({"namespaces": {"user": source, "net": source, "ipc": source, "uts": source}}),
        json!({"time_offsets": {"monotonic": 1}}),
        // The stage itself says that the payload runs, and ends after that.
        json!({"namespaces": {"net": source}, "init": false, "argv": ["sleep", "1000"]}),
        json!({"namespaces": {"user": source}, "init": false, "argv": ["sleep", "1000"]}),
    ];
    let mut command = Command::new("true");
    command.stdin(Stdio::Null).stdout(Stdio::Null).stderr(Stdio::Null);
    for round in 0..25 {
        for fields in &staged {
            let container = start(fields.clone());
            let process = container.spawn(&command).unwrap_or_else(|e| panic!("{round}: {fields}: {e}"));
            let status = process.wait(TIMEOUT).expect("wait").expect("its end");
            assert_eq!(status.code, Some(0), "{round}: {fields}: {status:?}");
            container.close(None).expect("close");
        }
    }
    first.close(None).expect("close");
}

const SERVER: &str = "
import socket
s = socket.create_server(('127.0.0.1', 4711))
print('listening', flush=True)
c, _ = s.accept()
c.sendall(b'hello from the first')
";
const CLIENT: &str = "
import socket
print(socket.create_connection(('127.0.0.1', 4711), 10).recv(100).decode())
";

#[test]
fn containers_share_a_network() {
    use std::io::{BufRead, BufReader};
    let name = format!("net-{}", std::process::id());
    let first = start(json!({"name": name, "argv": ["python3", "-c", SERVER], "stdout": "pipe", "stderr": "inherit"}));
    let output = first.main().expect("main").take_stdout().expect("a pipe");
    let mut line = String::new();
    BufReader::new(fs::File::from(output)).read_line(&mut line).expect("read");
    assert_eq!(line, "listening\n");
    // A network of its own does not reach it.
    let ran = run(json!({"argv": ["python3", "-c", CLIENT]}));
    assert!(ran.err.contains("ConnectionRefused"), "{}{}", ran.out, ran.err);
    let ran = run(json!({"argv": ["python3", "-c", CLIENT], "namespaces": {"net": format!("container:{name}")}}));
    assert_eq!(ran.out, "hello from the first\n", "{}", ran.err);
    first.close(None).expect("close");
}

#[test]
fn loopback_is_up_and_alone() {
    let script = "ls /sys/class/net; cat /sys/class/net/lo/flags; cat /proc/net/route | wc -l";
    assert_eq!(sh(script, json!({})), "lo\n0x9\n1\n");
    assert_eq!(sh("ls /sys/class/net; cat /sys/class/net/lo/flags", json!({"net": "none"})), "lo\n0x8\n");
    assert_eq!(sh("readlink /proc/self/ns/net", json!({"net": "host"})).trim(), own("net"));
    let both = "import socket\nfor f, a in ((socket.AF_INET, '127.0.0.1'), (socket.AF_INET6, '::1')):\n  s = socket.create_server((a, 0), family=f)\n  socket.create_connection(s.getsockname()[:2], 5); print(a)";
    let ran = run(json!({"argv": ["python3", "-c", both]}));
    assert!(ran.out.starts_with("127.0.0.1\n"), "{}{}", ran.out, ran.err);
    assert!(ran.out.contains("::1") || !std::path::Path::new("/proc/net/if_inet6").exists(), "{}", ran.err);
}

#[test]
fn host_and_domain_name() {
    let script = "hostname; cat /proc/sys/kernel/hostname /proc/sys/kernel/domainname; uname -n";
    let host = fs::read_to_string("/proc/sys/kernel/hostname").expect("read");
    let fields = json!({"hostname": "inside", "domainname": "example.org"});
    assert_eq!(sh(script, fields), "inside\ninside\nexample.org\ninside\n");
    assert_eq!(fs::read_to_string("/proc/sys/kernel/hostname").expect("read"), host);
    assert_eq!(sh("hostname", json!({})), host);
    let error = refused(json!({"argv": ["true"], "hostname": "x", "namespaces": {"uts": "host"}}));
    assert_eq!(error.kind(), ErrorKind::InvalidSpec, "{error}");
}

const CLOCKS: &str =
    "import time; print(time.clock_gettime(time.CLOCK_MONOTONIC), time.clock_gettime(time.CLOCK_BOOTTIME))";

#[test]
fn time_offsets_are_added() {
    let now = |clock| {
        let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: the kernel writes one timespec.
        assert_eq!(unsafe { libc::clock_gettime(clock, &raw mut time) }, 0);
        time.tv_sec as f64
    };
    let (monotonic, boottime) = (now(libc::CLOCK_MONOTONIC), now(libc::CLOCK_BOOTTIME));
    let fields = json!({"time_offsets": {"monotonic": 1000.5, "boottime": -10}});
    let container = start(fields);
    let clocks = exec_in(&container, Command::new("python3").args(["-c", CLOCKS])).out;
    let mut seen = clocks.split_whitespace().map(|n| n.parse::<f64>().expect("a number"));
    let (m, b) = (seen.next().expect("monotonic"), seen.next().expect("boottime"));
    assert!(
        (m - monotonic - 1000.5).abs() < 30.0 && (b - boottime + 10.0).abs() < 30.0,
        "{clocks} {monotonic} {boottime}"
    );
    let uptime: f64 = sh_in(&container, "cut -d. -f1 /proc/uptime").trim().parse().expect("a number");
    assert!((uptime - boottime + 10.0).abs() < 30.0, "{uptime} {boottime}");
    container.close(None).expect("close");
    let error = refused(json!({"argv": ["true"], "time_offsets": {"boottime": -1_000_000_000}}));
    assert_eq!(error.field(), Some("time_offsets"), "{error}");
    assert!(error.hint().is_some());
}

#[test]
fn the_control_group_is_the_root_inside() {
    assert_eq!(sh("cut -d: -f3 /proc/self/cgroup | sort -u", json!({})), "/\n");
}

#[test]
fn messages_and_semaphores_are_the_container_s_own() {
    let make = "import ctypes; c = ctypes.CDLL(None); print(c.semget(0x52464b, 1, 0o1600) >= 0)";
    let container = start(json!({}));
    assert_eq!(exec_in(&container, Command::new("python3").args(["-c", make])).out, "True\n");
    let table = sh_in(&container, "tail -n +2 /proc/sysvipc/sem | wc -l");
    assert_eq!(table, "1\n");
    let wanted = 0x52464b.to_string();
    let host = fs::read_to_string("/proc/sysvipc/sem").expect("read");
    assert!(!host.lines().any(|l| l.split_whitespace().next() == Some(wanted.as_str())), "{host}");
    container.close(None).expect("close");
}

#[test]
fn the_handle_says_where_each_came_from() {
    let container = start(json!({"namespaces": {"uts": "host"}, "net": "host"}));
    let info: Value = serde_json::from_str(&container.info_json()).expect("JSON");
    assert_eq!((&info["namespaces"]["uts"], &info["namespaces"]["net"]), (&json!("host"), &json!("host")), "{info}");
    assert_eq!(info["namespaces"]["pid"], "new");
    if is_root() {
        assert_eq!(of(container.pid(), "uts"), own("uts"));
        assert_ne!(of(container.pid(), "pid"), own("pid"));
    }
    container.close(None).expect("close");
}
