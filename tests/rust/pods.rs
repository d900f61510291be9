//! Containers that share namespaces: what they share and what they do not, whose end ends what, limits of the whole.
//!
//! tests/run: timeout=300 vm=root

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::process::Command as HostCommand;
use std::sync::Arc;
use std::time::Duration;

use common::*;
use ringfence::spec::{NamespaceKind, Stdio};
use ringfence::{Command, Container, Error, ErrorKind, EventOptions, Namespace, Pod, Process, Reason, Spec};

#[allow(dead_code, reason = "each test program uses a part of it")]
mod common;

const WITH_PIDS: &[NamespaceKind] = &[NamespaceKind::Net, NamespaceKind::Ipc, NamespaceKind::Uts, NamespaceKind::Pid];

#[track_caller]
fn pod(fields: Value) -> Pod {
    Pod::start(&spec(fields), Pod::SHARE).unwrap_or_else(|e| panic!("{e}\n{}", e.to_json()))
}

/// `None` where the caller can have no control group, and so no container without a pid namespace of its own.
#[track_caller]
fn pod_with_pids(fields: Value) -> Option<Pod> {
    match Pod::start(&spec(fields), WITH_PIDS) {
        Ok(pod) => Some(pod),
        Err(error) => {
            assert!(!can_limit(), "{error}");
            assert_eq!((error.kind(), error.field()), (ErrorKind::Unsupported, Some("share")), "{error}");
            None
        }
    }
}

#[track_caller]
fn member(pod: &Pod, fields: Value) -> Container {
    pod.container(&spec(fields)).unwrap_or_else(|e| panic!("{e}\n{}", e.to_json()))
}

/// A process inside that sleeps, and its number there.
fn sleeper(container: &Container) -> (Process, i32) {
    let mut command = Command::new("sh");
    command.args(["-c", "echo $$; exec sleep 1000"]).stdin(Stdio::Null).stdout(Stdio::Pipe).stderr(Stdio::Null);
    let process = container.spawn(&command).unwrap_or_else(|e| panic!("{e}"));
    let mut line = String::new();
    BufReader::new(fs::File::from(process.take_stdout().expect("a pipe"))).read_line(&mut line).expect("a line");
    (process, line.trim().parse().expect("a pid"))
}

fn ids(container: &Container) -> String {
    let kinds = ["net", "ipc", "uts", "user", "mnt", "pid", "cgroup"];
    sh_in(container, &kinds.map(|kind| format!("readlink /proc/self/ns/{kind}")).join(";"))
}

#[test]
fn they_share_network_ipc_and_host_name_and_nothing_else() {
    let pod = pod(json!({"hostname": "shop", "shm_size": "1M", "hosts": {"db": "127.0.0.9"}}));
    let (web, client) = (member(&pod, json!({})), member(&pod, json!({"hosts": {"own": "127.0.0.8"}})));
    let same: Vec<bool> = ids(&web).lines().zip(ids(&client).lines()).map(|(one, other)| one == other).collect();
    assert_eq!(same, [true, true, true, true, false, false, false]);

    let server = TcpListener::from(web.listen("127.0.0.1:80", 1).unwrap());
    let mut to = TcpStream::from(client.connect("127.0.0.1:80", None).unwrap());
    to.write_all(b"hello").unwrap();
    drop(to);
    let mut text = String::new();
    server.accept().unwrap().0.read_to_string(&mut text).unwrap();
    assert_eq!(text, "hello");

    let names =
        "hostname; grep -c -w shop /etc/hosts; grep db /etc/hosts; grep -c own /etc/hosts; stat -f -c '%b %S' /dev/shm";
    assert_eq!(sh_in(&web, names), "shop\n1\n127.0.0.9\tdb\n0\n256 4096\n");
    assert_eq!(sh_in(&client, names), "shop\n1\n127.0.0.9\tdb\n1\n256 4096\n");

    let write = "perl -e '$i = shmget(77, 4096, 01600) // die; shmwrite($i, q(system v), 0, 8) or die'";
    let read = "perl -e '$i = shmget(77, 0, 0) // die; shmread($i, $t, 0, 8) or die; print $t'; ls -n /dev/shm/x | cut -d' ' -f3";
    sh_in(&web, &format!("echo posix >/dev/shm/x; : >/dev/mqueue/jobs; {write}"));
    assert_eq!(sh_in(&client, &format!("cat /dev/shm/x; ls /dev/mqueue; {read}")), "posix\njobs\nsystem v0\n");
    let (_sleeper, _) = sleeper(&web);
    sh_in(&web, "echo >/tmp/web; echo >/etc/web; mkdir /tmp/m");
    let apart = "echo >/tmp/own; ls /tmp /etc/web 2>&1 | grep -v 'cannot access'; cat /proc/[0-9]*/comm | grep -c sleep || true";
    assert_eq!(sh_in(&client, apart), "/tmp:\nown\n0\n");
    pod.close(None).unwrap();
}

#[test]
fn with_pid_they_see_and_signal_each_other_and_the_holder_reaps() {
    let Some(pod) = pod_with_pids(json!({})) else { return skip("no control group for this caller") };
    let (one, two) = (member(&pod, json!({})), member(&pod, json!({})));
    assert_eq!(sh_in(&one, "readlink /proc/self/ns/pid"), sh_in(&two, "readlink /proc/self/ns/pid"));
    let (process, number) = sleeper(&one);
    assert_eq!(sh_in(&two, &format!("test -d /proc/{number} && kill -TERM {number} && echo seen")), "seen\n");
    let status = process.wait(TIMEOUT).unwrap().expect("ended");
    assert_eq!((status.signal, status.reason), (Some(libc::SIGTERM), Reason::Signaled));
    // pid 1 of all is the holder's; what the host sees as its pid is the pod's.
    assert_eq!(sh_in(&two, "cat /proc/1/comm"), "ringfence\n");

    // The end of a container takes its processes, orphans too, and those of the other stay.
    let (kept, _) = sleeper(&two);
    let (gone, number) = sleeper(&one);
    let script = "setsid sh -c 'echo $$ >/dev/shm/orphan; exec sleep 1000' >/dev/null 2>&1 & while ! [ -s /dev/shm/orphan ]; do sleep 0.01; done";
    sh_in(&one, script);
    let orphan = sh_in(&two, "cat /dev/shm/orphan").trim().to_owned();
    assert_eq!(sh_in(&two, &format!("test -d /proc/{orphan} && echo seen")), "seen\n");
    one.close(None).unwrap();
    assert_eq!(gone.wait(TIMEOUT).unwrap().expect("ended").reason, Reason::ContainerEnded);
    for pid in [orphan, number.to_string()] {
        until("it is gone and reaped", || {
            sh_in(&two, &format!("test -e /proc/{pid} && echo there || echo gone")) == "gone\n"
        });
    }
    assert_eq!(kept.try_wait().unwrap(), None);
    assert!(pod.is_running() && two.is_running());

    // The kernel ends everything in a pid namespace whose pid 1 ends.
    // SAFETY: a pidfd of the pod's, no siginfo.
    unsafe { libc::syscall(libc::SYS_pidfd_send_signal, pod.pidfd().as_raw_fd(), libc::SIGKILL, 0, 0) };
    assert!(kept.wait(TIMEOUT).unwrap().is_some());
    pod.close(None).unwrap();
}

/// With no pid 1 of its own its processes could outlive its init, and nobody waits for it here.
#[test]
fn with_pid_no_process_outlives_the_init_of_its_container() {
    let Some(pod) = pod_with_pids(json!({})) else { return skip("no control group for this caller") };
    let witness = member(&pod, json!({}));
    let gone = |number: i32| {
        until("it is gone", || {
            sh_in(&witness, &format!("test -e /proc/{number} && echo there || echo gone")) == "gone\n"
        });
    };
    let killed = member(&pod, json!({}));
    let (_, number) = sleeper(&killed);
    killed.kill().unwrap();
    gone(number);
    // By its own processes, which may; and by a limit of time.
    let unhappy = member(&pod, json!({}));
    let (_, number) = sleeper(&unhappy);
    let status = fs::read_to_string(format!("/proc/{}/status", unhappy.pid())).unwrap();
    let init = status_line(&status, "NSpid").split_whitespace().last().expect("a number").to_owned();
    sh_in(&witness, &format!("kill -KILL {init}"));
    gone(number);
    let short = member(&pod, json!({}));
    let (_, number) = sleeper(&short);
    short.update(|spec| spec.wall_time = Some(std::time::Duration::from_millis(50))).unwrap();
    gone(number);
    pod.close(None).unwrap();
}

#[test]
fn a_container_ends_alone_and_the_pod_goes_on_without_any() {
    let pod = pod(json!({"hostname": "stays"}));
    let ended = member(&pod, json!({"argv": ["sh", "-c", "exit 7"], "name": format!("ends-{}", std::process::id())}));
    let name = ended.name().expect("it has one").to_owned();
    assert!(ended.wait_end(TIMEOUT).unwrap());
    assert_eq!(ended.main().unwrap().wait(None).unwrap().unwrap().code, Some(7));
    // It is listed until it is closed.
    assert_eq!((pod.containers().len(), pod.find_container(&name).unwrap().id()), (1, ended.id()));
    ended.close(None).unwrap();
    assert_eq!(pod.containers().len(), 0);
    let error = pod.find_container(&name).unwrap_err();
    assert_eq!((error.kind(), error.field()), (ErrorKind::NotFound, Some("name")), "{error}");

    // To let go of the handle ends nothing; what is in the namespaces outlives every container.
    let first = member(&pod, json!({}));
    sh_in(&first, "echo kept >/dev/shm/x; perl -e 'shmget(78, 4096, 01600) // die'");
    let id = first.id().to_owned();
    drop(first);
    assert_eq!(pod.containers().iter().map(|c| c.id().to_owned()).collect::<Vec<_>>(), [id]);
    pod.containers()[0].close(None).unwrap();
    assert!(pod.is_running());
    let second = member(&pod, json!({}));
    assert_eq!(sh_in(&second, "cat /dev/shm/x; perl -e 'print defined shmget(78, 0, 0)'; hostname"), "kept\n1stays\n");
    pod.close(None).unwrap();
}

#[test]
fn close_ends_the_containers_then_the_namespaces() {
    let pod = pod(json!({}));
    let container = member(&pod, json!({"argv": ["sleep", "1000"]}));
    let (process, main) = (sleeper(&container).0, container.main().unwrap());
    let clone = pod.clone();
    clone.close(None).unwrap();
    for process in [process, main] {
        assert_eq!(process.wait(TIMEOUT).unwrap().unwrap().reason, Reason::ContainerEnded);
    }
    assert!(!pod.is_running() && !container.is_running() && pod.containers().is_empty());
    for error in [
        pod.container(&Spec::new()).unwrap_err(),
        pod.namespace(NamespaceKind::Net).unwrap_err(),
        container.spawn(&Command::new("true")).unwrap_err(),
        pod.wait_end(None).unwrap_err(),
        pod.update(|spec| spec.pids = Some(5)).unwrap_err(),
        pod.freeze().unwrap_err(),
        pod.kill().unwrap_err(),
        pod.stop(None).unwrap_err(),
    ] {
        assert_eq!(error.kind(), ErrorKind::Closed, "{error}");
    }
    pod.close(None).unwrap();
}

#[test]
fn the_drop_of_the_last_handle_of_the_pod_ends_containers_that_are_still_held() {
    let pod = pod(json!({}));
    let container = member(&pod, json!({}));
    let (process, _) = sleeper(&container);
    let clone = pod.clone();
    drop(pod);
    assert!(container.is_running());
    drop(clone);
    assert_eq!(process.wait(TIMEOUT).unwrap().unwrap().reason, Reason::ContainerEnded);
    assert!(container.wait_end(TIMEOUT).unwrap());
    container.close(None).unwrap();
}

/// Without a close, and without anybody who looks.
#[test]
fn the_end_of_the_holder_is_that_of_all() {
    let pod = pod(json!({}));
    let (container, other) = (member(&pod, json!({})), member(&pod, json!({"argv": ["sleep", "1000"]})));
    let (process, _) = sleeper(&container);
    // SAFETY: a pidfd of the pod's, no siginfo.
    unsafe { libc::syscall(libc::SYS_pidfd_send_signal, pod.pidfd().as_raw_fd(), libc::SIGKILL, 0, 0) };
    until("the first ends", || !container.is_running());
    until("the other ends", || !other.is_running());
    assert!(process.wait(TIMEOUT).unwrap().is_some());
    assert!(pod.wait_end(TIMEOUT).unwrap());
    let error = pod.container(&Spec::new()).unwrap_err();
    assert_eq!((error.kind(), error.errno()), (ErrorKind::Closed, libc::ESRCH), "{error}");
    assert_eq!(pod.containers().len(), 2);
    pod.close(None).unwrap();
}

#[test]
fn wall_time_of_a_pod_is_that_of_all() {
    let pod = pod(json!({"wall_time": "300ms"}));
    let container = member(&pod, json!({"argv": ["sleep", "1000"]}));
    assert!(pod.wait_end(TIMEOUT).unwrap());
    assert!(!container.is_running());
    pod.close(None).unwrap();
}

#[test]
fn stop_asks_first() {
    let pod = pod(json!({}));
    let script = "trap 'exit 3' TERM; echo ready; while :; do sleep 0.01; done";
    let container = member(&pod, json!({"argv": ["sh", "-c", script], "stdout": "log"}));
    until("ready", || container.log(0).unwrap().starts_with(b"ready"));
    let main = container.main().unwrap();
    let stubborn = member(
        &pod,
        json!({"argv": ["sh", "-c", "trap '' TERM; echo ready; while :; do sleep 0.01; done"], "stdout": "log"}),
    );
    until("ready", || stubborn.log(0).unwrap().starts_with(b"ready"));
    pod.stop(Some(Duration::from_millis(300))).unwrap();
    assert_eq!(main.wait(None).unwrap().unwrap().code, Some(3));
    assert_eq!(stubborn.main().unwrap().wait(None).unwrap().unwrap().signal, Some(libc::SIGKILL));
}

/// A namespace lives as long as somebody has it; a pod can be made on one that is there.
#[test]
fn a_pod_on_a_network_that_is_there() {
    let name = format!("pod-{}", std::process::id());
    let first = pod(json!({"name": name}));
    let server = TcpListener::from(member(&first, json!({})).listen("127.0.0.1:7000", 4).unwrap());
    let second = pod(json!({"namespaces": {"net": format!("container:{name}")}}));
    let container = member(&second, json!({}));
    container.connect("127.0.0.1:7000", None).unwrap();
    server.accept().unwrap();
    let alone = start(json!({"namespaces": {"net": format!("container:{name}")}}));
    alone.connect("127.0.0.1:7000", None).unwrap();
    alone.close(None).unwrap();
    let kept = first.namespace(NamespaceKind::Net);
    let refused = first.namespace(NamespaceKind::Mnt).unwrap_err();
    assert_eq!((refused.kind(), refused.field()), (ErrorKind::InvalidArgument, Some("kind")), "{refused}");
    // Who joined it goes on with it.
    first.close(None).unwrap();
    container.connect("127.0.0.1:7000", None).unwrap();
    match kept {
        Ok(net) => {
            assert_eq!(net, container.namespace(NamespaceKind::Net).unwrap());
            second.close(None).unwrap();
            // Held by the value alone.
            let third = pod(json!({"namespaces": {"net": format!("fd:{}", net.as_raw_fd())}}));
            member(&third, json!({})).connect("127.0.0.1:7000", None).unwrap();
            third.close(None).unwrap();
            if !is_root() {
                return;
            }
            // Pinned, without any process or descriptor.
            let dir = tmp();
            let path = dir.path().join("net");
            net.pin(&path).unwrap();
            drop(net);
            let fourth = pod(json!({"namespaces": {"net": path}}));
            member(&fourth, json!({})).connect("127.0.0.1:7000", None).unwrap();
            fourth.close(None).unwrap();
            Namespace::unpin(&path).unwrap();
        }
        // An ordinary user may not trace what its keeper made.
        Err(error) => assert!(!is_root() && error.kind() == ErrorKind::PermissionDenied, "{error}"),
    }
}

#[test]
fn on_the_host_s_network() {
    let own = |kind| fs::read_link(format!("/proc/self/ns/{kind}")).unwrap().to_string_lossy().into_owned();
    let pod = pod(json!({"net": "host"}));
    let container = member(&pod, json!({}));
    assert_eq!(sh_in(&container, "readlink /proc/self/ns/net").trim(), own("net"));
    assert_ne!(sh_in(&container, "readlink /proc/self/ns/ipc").trim(), own("ipc"));
    pod.close(None).unwrap();
}

#[test]
fn limits_of_the_pod_hold_for_all_together() {
    if !can_limit() {
        let error = Pod::start(&Spec::new().memory(64 << 20), Pod::SHARE).unwrap_err();
        return assert_eq!(error.field(), Some("memory"), "{error}");
    }
    let pod = pod(json!({"memory": "24M", "pids": 40, "swap": 0}));
    let (one, two) = (member(&pod, json!({"memory": "8M", "swap": 0})), member(&pod, json!({})));
    let hold = |container: &Container, megabytes: u32| {
        // What is in memory until the file is removed.
        let mut command = Command::new("sh");
        command.args(["-c", &format!("exec head -c {megabytes}M /dev/zero >/tmp/x")]);
        exec_in(container, &command).status
    };
    // Its own limit, within.
    let mut grow = Command::new("tail");
    grow.arg("/dev/zero");
    assert_eq!(exec_in(&one, &grow).status.reason, Reason::OutOfMemory);
    assert!(one.usage().unwrap().memory_oom_kills >= Some(1));
    assert_eq!(hold(&two, 12).code, Some(0));
    assert_eq!(hold(&one, 4).code, Some(0));
    // Together they are above the limit, and none is above its own.
    let third = member(&pod, json!({}));
    assert_eq!(exec_in(&third, &grow).status.signal, Some(libc::SIGKILL));
    assert!(third.usage().unwrap().memory_peak < Some(16 << 20));
    let usage = pod.usage().unwrap();
    assert!(usage.memory_current.unwrap() > 16 << 20 && usage.memory_current <= Some(24 << 20), "{usage:?}");
    assert_eq!(usage.memory_max, Some(24 << 20));
    assert!(usage.memory_oom_kills >= Some(2), "{usage:?}");
    assert!(third.usage().unwrap().memory_max.is_none_or(|max| max > 24 << 20));

    pod.update(|spec| spec.memory = Some(256 << 20)).unwrap();
    assert_eq!(hold(&third, 16).code, Some(0));
    assert_eq!(pod.spec().memory, Some(256 << 20));
    pod.update_json(r#"{"pids": 10}"#).unwrap();
    let forks = "for i in 1 2 3 4 5 6 7 8; do sleep 0.2 & done";
    let ran = exec_in(&third, Command::new("sh").args(["-c", forks]));
    assert_ne!(ran.status.code, Some(0), "{ran:?}");
    assert!(pod.usage().unwrap().pids_refused.is_some());
    one.update(|spec| spec.cpus = Some(0.5)).unwrap();
    let error = one.update(|spec| spec.shm_size = Some(1 << 20)).unwrap_err();
    assert_eq!(error.field(), Some("shm_size"), "{error}");
    pod.update(|spec| spec.shm_size = Some(1 << 20)).unwrap();
    assert_eq!(sh_in(&two, "stat -f -c %b /dev/shm"), "256\n");
    let error = pod.update(|spec| spec.nice = Some(3)).unwrap_err();
    assert_eq!((error.kind(), error.field()), (ErrorKind::InvalidSpec, Some("nice")), "{error}");
    pod.close(None).unwrap();
}

#[test]
fn frozen_together() {
    let pod = pod(json!({}));
    let container = member(&pod, json!({}));
    if !can_limit() {
        assert_eq!(pod.freeze().unwrap_err().kind(), ErrorKind::Unsupported);
        return skip("no control group, nothing to freeze");
    }
    let events = pod.events(&EventOptions::default()).unwrap();
    pod.freeze().unwrap();
    for error in [pod.container(&Spec::new()).unwrap_err(), container.spawn(&Command::new("true")).unwrap_err()] {
        assert_eq!(error.kind(), ErrorKind::Frozen, "{error}");
    }
    pod.thaw().unwrap();
    assert_eq!(sh_in(&container, "echo on"), "on\n");
    member(&pod, json!({"argv": ["true"]}));
    pod.freeze().unwrap();
    pod.close(None).unwrap();
    drop(events.next(Some(Duration::ZERO)));
}

#[test]
fn files_of_a_root_file_system_have_the_same_owner_for_all() {
    let dir = public_tmp();
    fs::write(dir.path().join("mine"), "data\n").unwrap();
    let pod = pod(json!({"idmap": "auto"}));
    let mounts = json!([format!("{}:/data:rw", dir.path().display())]);
    let (one, two) = (member(&pod, json!({"mounts": mounts})), member(&pod, json!({"mounts": mounts})));
    assert_eq!(sh_in(&one, "stat -c %u:%g /data/mine; echo new >/data/made"), "0:0\n");
    assert_eq!(sh_in(&two, "stat -c %u:%g /data/made; cat /data/made"), "0:0\nnew\n");
    let (info, of_pod): (Value, Value) =
        (serde_json::from_str(&one.info_json()).unwrap(), serde_json::from_str(&pod.info_json()).unwrap());
    assert_eq!((&info["idmap"], &info["pod"]), (&of_pod["idmap"], &of_pod["id"]));
    assert_eq!(of_pod["share"], json!(["net", "ipc", "uts"]));
    assert_eq!(of_pod["containers"].as_array().unwrap().len(), 2);
    let Some(image) = busybox_image(dir.path()) else { return skip("no static program for an image") };
    let shell = member(
        &pod,
        json!({"rootfs": image, "argv": ["/bin/sh", "-c", "stat -c %u /etc/motd; echo x >/etc/y"], "stdout": "log"}),
    );
    assert_eq!(shell.main().unwrap().wait(TIMEOUT).unwrap().unwrap().code, Some(0));
    assert_eq!(shell.log(0).unwrap(), b"0\n");
    pod.close(None).unwrap();
}

#[test]
fn many_threads_start_in_one_pod_and_pods_at_once() {
    let shared = Arc::new(pod(json!({"hostname": "many"})));
    let threads: Vec<_> = (0..4)
        .map(|n| {
            let shared = shared.clone();
            std::thread::spawn(move || {
                let container = member(&shared, json!({}));
                assert_eq!(sh_in(&container, "hostname"), "many\n");
                if n % 2 == 0 {
                    container.close(None).unwrap();
                }
                let own = pod(json!({"hostname": format!("own-{n}")}));
                assert_eq!(sh_in(&member(&own, json!({})), "hostname"), format!("own-{n}\n"));
                own.close(None).unwrap();
            })
        })
        .collect();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    assert_eq!(shared.containers().len(), 2);
    shared.close(None).unwrap();
}

/// Whoever starts loses or is ended with it; nothing is left.
#[test]
fn close_while_others_start() {
    for _ in 0..3 {
        let pod = pod(json!({}));
        let starters: Vec<_> = (0..3)
            .map(|_| {
                let pod = pod.clone();
                std::thread::spawn(move || {
                    loop {
                        match pod.container(&Spec::new()) {
                            Ok(container) => drop(container),
                            Err(error) => return error,
                        }
                    }
                })
            })
            .collect();
        until("one is there", || !pod.containers().is_empty());
        pod.close(None).unwrap();
        for starter in starters {
            let error = starter.join().unwrap();
            assert_eq!(error.kind(), ErrorKind::Closed, "{error}");
        }
        assert!(pod.containers().is_empty());
    }
}

/// Says whether this is the test of that name again, in a program of its own.
const AGAIN: &str = "RINGFENCE_TEST_POD";

fn again(name: &str) -> HostCommand {
    let mut program = HostCommand::new(std::env::current_exe().unwrap());
    program.args(["--exact", name, "--nocapture"]).env(AGAIN, "1").stdout(std::process::Stdio::piped());
    program
}

/// All of this program's containers end with it: so in a program of its own.
#[test]
fn the_end_of_the_keeper_is_that_of_the_pod() {
    if std::env::var_os(AGAIN).is_none() {
        let done = again("the_end_of_the_keeper_is_that_of_the_pod").output().unwrap();
        return assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stdout));
    }
    let pod = pod(json!({}));
    let container = member(&pod, json!({"argv": ["sleep", "1000"]}));
    let info: Value = serde_json::from_str(&pod.info_json()).unwrap();
    nix::sys::signal::kill(
        nix::unistd::Pid::from_raw(info["keeper_pid"].as_i64().unwrap() as i32),
        nix::sys::signal::Signal::SIGKILL,
    )
    .unwrap();
    until("the pod ends", || !pod.is_running() && !container.is_running());
    let error = pod.container(&Spec::new()).unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Closed | ErrorKind::KeeperDied), "{error}");
    pod.close(None).unwrap();
    for group in info["cgroup"]["groups"].as_array().into_iter().flatten() {
        assert!(!fs::exists(group["path"].as_str().unwrap()).unwrap(), "{group}");
    }
    // The next keeper's.
    let next = self::pod(json!({}));
    assert_eq!(sh_in(&member(&next, json!({})), "echo on"), "on\n");
    next.close(None).unwrap();
}

/// By SIGKILL.
#[test]
fn the_end_of_the_program_is_that_of_the_pod() {
    if std::env::var_os(AGAIN).is_some() {
        let pod = pod(json!({"hostname": "doomed"}));
        let container = member(&pod, json!({"argv": ["sleep", "1000"]}));
        println!("pids {} {}", pod.pid(), container.main().unwrap().pid());
        std::thread::sleep(Duration::from_secs(1000));
    }
    let mut program = again("the_end_of_the_program_is_that_of_the_pod").spawn().unwrap();
    let lines = BufReader::new(program.stdout.take().unwrap()).lines().map_while(Result::ok);
    let pids: Vec<i32> = lines
        .filter_map(|line| line.split_once("pids ").map(|(_, pids)| pids.to_owned()))
        .next()
        .expect("it tells")
        .split(' ')
        .map(|pid| pid.parse().unwrap())
        .collect();
    let ends: Vec<_> = pids.iter().map(|&pid| fs::read_link(format!("/proc/{pid}/ns/uts"))).collect();
    program.kill().unwrap();
    program.wait().unwrap();
    for (pid, before) in pids.into_iter().zip(ends) {
        let gone = || {
            let state = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
            !state.contains("\nState:")
                || state.contains("(zombie)")
                || before.as_ref().is_ok_and(|b| fs::read_link(format!("/proc/{pid}/ns/uts")).ok().as_ref() != Some(b))
        };
        until("it is gone", gone);
    }
}

#[test]
fn bad_pods() {
    #[track_caller]
    fn refused(fields: Value, share: &[NamespaceKind]) -> Error {
        match Spec::from_json(&fields.to_string()).and_then(|spec| Pod::start(&spec, share)) {
            Err(error) => error,
            Ok(_) => panic!("{fields}: it started"),
        }
    }
    for (fields, field) in [
        (json!({"argv": ["true"]}), "argv"),
        (json!({"rootfs": "/srv"}), "rootfs"),
        (json!({"mounts": ["/tmp"]}), "mounts"),
        (json!({"capabilities": "all"}), "capabilities"),
        (json!({"disk": "10M"}), "disk"),
        (json!({"name": "x", "detach": true}), "detach"),
        (json!({"namespaces": {"mnt": "host"}}), "namespaces.mnt"),
        (json!({"namespaces": {"pid": "new"}}), "namespaces.pid"),
        (json!({"hostname": "x".repeat(65)}), "hostname"),
        (json!({"net": "host", "namespaces": {"net": "new"}}), "net"),
        (json!({"sysctls": {"kernel.threads-max": "3"}}), "sysctls[\"kernel.threads-max\"]"),
    ] {
        let error = refused(fields.clone(), Pod::SHARE);
        assert_eq!((error.kind(), error.field()), (ErrorKind::InvalidSpec, Some(field)), "{fields}: {error}");
    }
    // Of a namespace that is not shared.
    for (fields, field) in [
        (json!({"hostname": "x"}), "hostname"),
        (json!({"shm_size": "1M"}), "shm_size"),
        (json!({"sysctls": {"kernel.msgmax": "3"}}), "sysctls[\"kernel.msgmax\"]"),
        (json!({"namespaces": {"uts": "new"}}), "namespaces.uts"),
    ] {
        let error = refused(fields.clone(), &[NamespaceKind::Net]);
        assert_eq!((error.kind(), error.field()), (ErrorKind::InvalidSpec, Some(field)), "{fields}: {error}");
    }
    for share in [&[][..], &[NamespaceKind::Mnt], &[NamespaceKind::Net, NamespaceKind::User]] {
        let error = refused(json!({}), share);
        assert_eq!((error.kind(), error.field()), (ErrorKind::InvalidArgument, Some("share")), "{error}");
    }
    assert_eq!(Pod::parse_share("net, pid").unwrap(), [NamespaceKind::Net, NamespaceKind::Pid]);
    for text in ["", "net,", "nets", "net mnt", "mnt"] {
        let error = Pod::parse_share(text).unwrap_err();
        assert_eq!((error.kind(), error.field()), (ErrorKind::InvalidArgument, Some("share")), "{error}");
    }
}

#[test]
fn fields_of_a_container_that_are_its_pod_s() {
    let pod = pod(json!({"shm_size": "2M"}));
    for (fields, field) in [
        (json!({"hostname": "own"}), "hostname"),
        (json!({"domainname": "own"}), "domainname"),
        (json!({"net": "none"}), "net"),
        (json!({"shm_size": "1M"}), "shm_size"),
        (json!({"idmap": {"uid": [[0, 1000, 1]], "gid": [[0, 1000, 1]]}}), "idmap"),
        (json!({"cgroup_parent": "/x"}), "cgroup_parent"),
        (json!({"nesting": true}), "nesting"),
        (json!({"name": "x", "detach": true}), "detach"),
        (json!({"namespaces": {"net": "new"}}), "namespaces.net"),
        (json!({"namespaces": {"user": "host"}}), "namespaces.user"),
        (json!({"sysctls": {"net.ipv4.ip_forward": "1"}}), "sysctls[\"net.ipv4.ip_forward\"]"),
        // It could give the pod's /dev/shm another size.
        (json!({"capabilities": {"add": ["sys_admin"]}}), "capabilities"),
        (json!({"argv": [""]}), "argv[0]"),
    ] {
        let error = pod.container(&spec(fields.clone())).unwrap_err();
        assert_eq!((error.kind(), error.field()), (ErrorKind::InvalidSpec, Some(field)), "{fields}: {error}");
    }
    assert!(pod.containers().is_empty());
    let error = pod.container(&spec(json!({"argv": ["/nowhere"]}))).unwrap_err();
    assert_eq!((error.kind(), error.field()), (ErrorKind::NotFound, Some("argv[0]")), "{error}");
    let mute = self::pod(json!({"net": "none"}));
    let error = mute.container(&spec(json!({"ports": [80]}))).unwrap_err();
    assert_eq!((error.kind(), error.field()), (ErrorKind::InvalidSpec, Some("ports")), "{error}");
    mute.close(None).unwrap();
    // Its own are its own.
    let own =
        member(&pod, json!({"namespaces": {"time": "new"}, "user": "0", "init": false, "argv": ["sleep", "1000"]}));
    assert!(own.is_running());
    pod.close(None).unwrap();

    let loose = Pod::start(&Spec::new(), &[NamespaceKind::Net]).unwrap();
    let own = member(&loose, json!({"hostname": "own", "shm_size": "1M", "sysctls": {"kernel.msgmax": "4000"}}));
    assert_eq!(sh_in(&own, "hostname; cat /proc/sys/kernel/msgmax; stat -f -c %b /dev/shm"), "own\n4000\n256\n");
    loose.close(None).unwrap();
}

#[test]
fn kernel_parameters_of_the_pod() {
    let pod = pod(json!({"sysctls": {"kernel.msgmax": "4000", "net.ipv4.ip_default_ttl": "77"}}));
    let container = member(&pod, json!({}));
    let read = "cat /proc/sys/kernel/msgmax /proc/sys/net/ipv4/ip_default_ttl";
    assert_eq!(sh_in(&container, read), "4000\n77\n");
    pod.update_json(r#"{"sysctls": {"kernel.msgmax": "5000"}}"#).unwrap();
    assert!(sh_in(&container, read).starts_with("5000\n"));
    pod.close(None).unwrap();
}

#[test]
fn a_namespace_that_was_kept_outlives_the_pod() {
    let pod = pod(json!({"hostname": "late"}));
    let uts = match pod.namespace(NamespaceKind::Uts) {
        Ok(uts) => uts,
        // An ordinary user may not trace what its keeper made.
        Err(error) => return assert!(!is_root() && error.kind() == ErrorKind::PermissionDenied, "{error}"),
    };
    pod.close(None).unwrap();
    let again = start(json!({"namespaces": {"uts": format!("fd:{}", uts.as_raw_fd())}}));
    assert_eq!(sh_in(&again, "hostname"), "late\n");
    again.close(None).unwrap();
    assert_eq!(uts, Namespace::of_fd(uts.as_raw_fd()).unwrap());
}
