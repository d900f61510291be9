//! Processes: arguments, users, limits, capabilities, terminals, descriptors.
//!
//! tests/run: timeout=600 vm=root

use std::fs;
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::symlink;
use std::time::Duration;

use common::*;
use ringfence::spec::{Capabilities, Stdio, Terminal};
use ringfence::{Command, Container, ErrorKind, Process, Reason};

#[allow(dead_code, reason = "each test program uses a part of it")]
mod common;

// --- arguments, environment, directory ---

#[test]
fn arguments_and_variables_arrive_as_bytes() {
    use std::os::unix::ffi::OsStringExt;
    let odd = std::ffi::OsString::from_vec(b"\xff\x01 \n".to_vec());
    let spec = ringfence::Spec::new()
        .argv(["sh", "-c", "printf '<%s>' \"$@\" \"$ODD\"", "sh", "", "two words", "*"])
        .arg(odd.clone())
        .env("ODD", odd);
    let output = ringfence::run(&spec, None, TIMEOUT).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(output.stdout, b"<><two words><*><\xff\x01 \n><\xff\x01 \n>");
}

#[test]
fn many_arguments() {
    let words: Vec<String> = (0..20_000).map(|i| format!("argument-{i}")).collect();
    let mut argv = vec!["sh".to_owned(), "-c".into(), "echo $#".into(), "sh".into()];
    argv.extend(words);
    assert_eq!(run(json!({"argv": argv})).out, "20000\n");
    let error = refused(json!({"argv": ["true", "x".repeat(1 << 20)]}));
    assert_eq!(error.field().map(|f| f.starts_with("argv")), Some(true), "{error}");
}

#[test]
fn the_environment_is_clean() {
    // SAFETY: tests of this program read the environment only through libc's lock in std.
    unsafe { std::env::set_var("RINGFENCE_OF_THE_HOST", "1") };
    let names = |out: &str| out.lines().filter_map(|l| l.split('=').next().map(str::to_owned)).collect::<Vec<_>>();
    assert_eq!(names(&run(json!({"argv": ["env"]})).out), ["HOME", "LANG", "PATH", "TERM"]);
    let passed = run(json!({"argv": ["env"], "env_inherit": ["RINGFENCE_OF_THE_HOST"]}));
    assert!(names(&passed.out).contains(&"RINGFENCE_OF_THE_HOST".to_owned()), "{}", passed.out);
    let container = start(json!({}));
    let joined = exec_in(&container, Command::new("env").env("A", "b").env_remove("TERM"));
    assert_eq!(names(&joined.out), ["A", "HOME", "LANG", "PATH"]);
    container.close(None).expect("close");
}

#[test]
fn the_working_directory() {
    assert_eq!(run(json!({"argv": ["pwd"]})).out, "/\n");
    assert_eq!(run(json!({"argv": ["pwd"], "cwd": "/usr/bin"})).out, "/usr/bin\n");
    let error = refused(json!({"argv": ["pwd"], "cwd": "/etc/passwd"}));
    assert_eq!((error.field(), error.errno()), (Some("cwd"), libc::ENOTDIR), "{error}");
    // With the payload's rights, not with root's.
    if is_root() {
        let error = refused(json!({"argv": ["pwd"], "cwd": "/root", "user": "1000"}));
        assert_eq!((error.field(), error.errno()), (Some("cwd"), libc::EACCES), "{error}");
    }
}

// --- users ---

const ID: &str = "id -u; id -g; id -G; echo $HOME";

#[test]
fn users_by_id_and_by_the_container_s_own_files() {
    assert_eq!(sh(ID, json!({})), "0\n0\n0\n/root\n");
    if !is_root() {
        return skip("ids beyond 0 need more than one id");
    }
    let dir = tmp();
    let Some(root) = busybox_image(dir.path()) else { return skip("no static busybox") };
    fs::write(root.join("etc/passwd"), "alice:x:1234:1235::/home/alice:/bin/sh\nbob:x:77:78::/:/bin/sh\n")
        .expect("a file");
    fs::write(root.join("etc/group"), "staff:x:55:\nusers:x:66:alice\n").expect("a file");
    let image = |user: &str, groups: Value| sh(ID, json!({"rootfs": root, "user": user, "groups": groups}));
    assert_eq!(image("alice", json!([])), "1234\n1235\n1235\n/home/alice\n");
    assert_eq!(image("alice:staff", json!(["users", "9"])), "1234\n55\n55 9 66\n/home/alice\n");
    assert_eq!(image("77", json!([])), "77\n78\n78\n/\n");
    assert_eq!(image("5:6", json!([])), "5\n6\n6\n/\n");
    assert_eq!(image("4242", json!([])), "4242\n0\n0\n/\n");
    // What the spec puts there counts, and what is mounted there.
    let files = json!({"/etc/passwd": "carol:x:900:901::/c:/bin/sh\n"});
    assert_eq!(sh(ID, json!({"rootfs": root, "user": "carol", "files": files})), "900\n901\n901\n/c\n");
    let error = refused(json!({"argv": ["/bin/true"], "rootfs": root, "user": "root"}));
    assert_eq!((error.kind(), error.field()), (ErrorKind::NotFound, Some("user")), "the image has no root: {error}");
    // And for joining processes, as the container's files are at that moment.
    let container = start(json!({"rootfs": root}));
    sh_in(&container, "echo dave:x:901:902::/d:/bin/sh >>/etc/passwd");
    let seen = exec_in(&container, Command::new("/bin/sh").args(["-c", ID]).user("dave"));
    assert_eq!(seen.out, "901\n902\n902\n/d\n", "{}", seen.err);
    container.close(None).expect("close");
}

/// CVE-2026-30892 and its kin: text that is no id must not become one.
#[test]
fn ids_are_read_strictly() {
    for user in ["+1", "1:", ":1", "0x1", "01", "-1", "4294967295", "4294967296", "1 ", " 1", "1:2:3", "", "1\u{0}"] {
        let error = refused(json!({"argv": ["true"], "user": user}));
        assert_eq!((error.kind(), error.field()), (ErrorKind::InvalidSpec, Some("user")), "{user:?}: {error}");
    }
    let error = refused(json!({"argv": ["true"], "user": "nosuchuser"}));
    assert_eq!((error.kind(), error.field()), (ErrorKind::NotFound, Some("user")), "{error}");
}

#[test]
fn an_id_that_is_not_mapped_is_refused() {
    let error = refused(json!({"argv": ["true"], "user": "70000:0"}));
    assert_eq!((error.field(), error.errno()), (Some("user"), libc::EINVAL), "{error}");
    assert!(error.hint().is_some_and(|h| h.contains("idmap") || h.contains("single id")), "{error}");
}

#[test]
fn the_caller_s_groups_are_not_kept() {
    assert_eq!(run(json!({"argv": ["id", "-G"]})).out, "0\n");
    let container = start(json!({}));
    assert_eq!(exec_in(&container, &Command::new("id").arg("-G").clone()).out, "0\n");
    container.close(None).expect("close");
}

// --- limits ---

#[test]
fn umask_limits_nice_and_score() {
    let script = "umask; ulimit -S -n; ulimit -H -n; ulimit -c; nice; cat /proc/self/oom_score_adj";
    let fields = json!({"umask": "027", "rlimits": {"nofile": [64, 128], "core": 0}, "nice": 5, "oom_score_adj": 500});
    assert_eq!(sh(script, fields), "0027\n64\n128\n0\n5\n500\n");
    let own = |resource| {
        let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
        // SAFETY: the kernel writes one rlimit.
        assert_eq!(unsafe { libc::getrlimit(resource, &raw mut limit) }, 0);
        limit.rlim_cur
    };
    assert_eq!(sh("umask; ulimit -S -n; nice", json!({})), format!("0022\n{}\n0\n", own(libc::RLIMIT_NOFILE)));
    // And the same for a process that joins.
    let container = start(json!({}));
    let mut command = Command::new("sh");
    command.args(["-c", script]);
    for (key, value) in [("umask", "027"), ("rlimits", "nofile=64:128"), ("nice", "5"), ("oom_score_adj", "500")] {
        if command.set(key, value.as_bytes()).is_err() {
            command.merge_json(&json!({"rlimits": {"nofile": [64, 128], "core": 0}}).to_string()).expect("rlimits");
        }
    }
    command.merge_json(&json!({"rlimits": {"nofile": [64, 128], "core": 0}}).to_string()).expect("rlimits");
    let ran = exec_in(&container, &command);
    assert_eq!(ran.out, "0027\n64\n128\n0\n5\n500\n", "{}", ran.err);
    container.close(None).expect("close");
}

#[test]
fn no_new_privs() {
    let line =
        |fields| status_line(&run(with(json!({"argv": ["cat", "/proc/self/status"]}), fields)).out, "NoNewPrivs");
    assert_eq!(line(json!({})), "1");
    assert_eq!(line(json!({"no_new_privs": false})), "0");
}

// --- capabilities ---

fn capability_sets(text: &str) -> [u64; 5] {
    ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"]
        .map(|key| u64::from_str_radix(&status_line(text, key), 16).expect("a mask"))
}

/// (fields of the spec, [inheritable, permitted, effective, bounding, ambient]); CVE-2022-29162: inheritable is empty but for
/// what is ambient.
fn capability_cases() -> Vec<(Value, [u64; 5])> {
    let default = Capabilities::DEFAULT;
    const CHOWN: u64 = 1;
    const NET_RAW: u64 = 1 << 13;
    let mut cases = vec![
        (json!({}), [0, default, default, default, 0]),
        (json!({"capabilities": "none"}), [0; 5]),
        (json!({"capabilities": ["chown", "net_raw"]}), [0, 0x2001, 0x2001, 0x2001, 0]),
        (json!({"capabilities": {"drop": ["chown"]}}), [0, default & !CHOWN, default & !CHOWN, default & !CHOWN, 0]),
        (json!({"capabilities": {"ambient": ["net_raw"]}}), [NET_RAW, default, default, default, NET_RAW]),
        // As OCI says it; what may be inherited from files is no more than asked for.
        (
            json!({"capabilities": {"bounding": ["CAP_CHOWN", "CAP_NET_RAW"], "permitted": ["CAP_CHOWN"],
                                    "effective": ["CAP_CHOWN"], "inheritable": ["CAP_NET_RAW"], "ambient": []}}),
            [NET_RAW, CHOWN, CHOWN, CHOWN | NET_RAW, 0],
        ),
        (json!({"capabilities": {"permitted": "none"}}), [0, 0, 0, default, 0]),
    ];
    if is_root() {
        cases.push((json!({"user": "1000"}), [0, 0, 0, default, 0]));
        cases.push((
            json!({"user": "1000", "capabilities": {"ambient": ["net_raw"]}}),
            [NET_RAW, NET_RAW, NET_RAW, default, NET_RAW],
        ));
        cases.push((json!({"user": "1000", "capabilities": "none"}), [0; 5]));
        let inheritable =
            json!({"ambient": ["net_raw"], "inheritable": ["chown", "net_raw"], "permitted": ["net_raw"]});
        cases.push((
            json!({"user": "1000", "capabilities": inheritable}),
            [CHOWN | NET_RAW, NET_RAW, NET_RAW, default, NET_RAW],
        ));
    }
    cases
}

#[test]
fn all_five_sets_of_a_main_process() {
    for (fields, expected) in capability_cases() {
        for init in [true, false] {
            let ran = run(with(json!({"argv": ["cat", "/proc/self/status"], "init": init}), fields.clone()));
            assert_eq!(capability_sets(&ran.out), expected, "{fields}, init {init}");
        }
    }
}

#[test]
fn all_five_sets_of_a_joined_process() {
    for (fields, expected) in capability_cases() {
        let container = start(json!({"capabilities": "all"}));
        let mut command = Command::new("cat");
        command.arg("/proc/self/status");
        let fields = with(json!({"capabilities": {}}), fields);
        command.merge_json(&fields.to_string()).unwrap_or_else(|e| panic!("{e}"));
        let ran = exec_in(&container, &command);
        assert_eq!(capability_sets(&ran.out), expected, "{fields}");
        container.close(None).expect("close");
    }
}

/// The kernel makes the sets of a program at its exec; it would make others of these.
#[test]
fn sets_that_an_exec_would_change_are_refused() {
    let user = if is_root() { "1000" } else { "0" };
    for (fields, field) in [
        (json!({"capabilities": {"permitted": ["chown"]}, "no_new_privs": false}), "capabilities.permitted"),
        (
            json!({"capabilities": {"permitted": ["chown"]}, "user": user, "securebits": "noroot"}),
            "capabilities.permitted",
        ),
        (json!({"capabilities": {"effective": ["chown"]}}), "capabilities.effective"),
    ] {
        let error = refused(with(json!({"argv": ["true"]}), fields.clone()));
        assert_eq!((error.kind(), error.field()), (ErrorKind::InvalidSpec, Some(field)), "{error}");
        let container = start(json!({}));
        let mut command = Command::new("true");
        command.merge_json(&fields.to_string()).expect("fields");
        let error = container.spawn(&command).expect_err("sets");
        assert_eq!((error.kind(), error.field()), (ErrorKind::InvalidSpec, Some(field)), "{error}");
        container.close(None).expect("close");
    }
}

#[test]
fn a_joined_process_has_no_more_than_the_container() {
    let container = start(json!({"capabilities": ["chown"]}));
    let ran = exec_in(&container, Command::new("cat").arg("/proc/self/status"));
    assert_eq!(capability_sets(&ran.out), [0, 1, 1, 1, 0]);
    container.close(None).expect("close");
}

// --- descriptors ---

/// An inode that both sides know.
fn pipe() -> (std::io::PipeReader, std::io::PipeWriter) {
    std::io::pipe().expect("a pipe")
}

#[test]
fn descriptors_are_passed_at_their_numbers() {
    for init in [true, false] {
        let (mut read, write) = pipe();
        let (_other_read, other) = pipe();
        let fields = json!({
            "argv": ["sh", "-c", "echo seven >&7; ls /proc/self/fd | tr '\\n' ' '; readlink /proc/self/fd/9 | cut -d: -f1"],
            // Across each other's numbers, and onto numbers that the start itself uses.
            "pass_fds": {write.as_raw_fd().to_string(): 7, other.as_raw_fd().to_string(): 9},
            "init": init,
        });
        let ran = run(fields);
        drop(write);
        let mut text = String::new();
        read.read_to_string(&mut text).expect("read");
        assert_eq!(text, "seven\n", "{}", ran.err);
        assert_eq!(ran.out, "0 1 2 3 7 9 pipe\n");
    }
}

/// Whatever number is asked for, the start does not need it any more.
#[test]
fn any_number_can_be_asked_for() {
    let container = start(json!({}));
    for number in 3..40 {
        let (_read, write) = pipe();
        for init in [true, false] {
            let ran = run(json!({
                "argv": ["sh", "-c", format!("readlink /proc/self/fd/{number} | cut -d: -f1")],
                "pass_fds": {write.as_raw_fd().to_string(): number},
                "init": init,
                "oom_score_adj": 100,
                "rootfs": {"path": "host", "readonly": true},
            }));
            assert_eq!(ran.out, "pipe\n", "{number}, init {init}: {}", ran.err);
        }
        let mut command = Command::new("readlink");
        command.arg(format!("/proc/self/fd/{number}"));
        command.pass_fds.insert(write.as_raw_fd(), number);
        assert!(exec_in(&container, &command).out.starts_with("pipe:"), "{number}");
    }
    container.close(None).expect("close");
}

#[test]
fn numbers_that_change_places() {
    let (_r1, a) = pipe();
    let (_r2, b) = pipe();
    let (x, y) = (a.as_raw_fd(), b.as_raw_fd());
    let inode = |fd: i32| fs::read_link(format!("/proc/self/fd/{fd}")).expect("a link").to_string_lossy().into_owned();
    let ran = run(json!({
        "argv": ["readlink", format!("/proc/self/fd/{x}"), format!("/proc/self/fd/{y}")],
        "pass_fds": {x.to_string(): y, y.to_string(): x},
    }));
    assert_eq!(ran.out, format!("{}\n{}\n", inode(y), inode(x)), "{}", ran.err);
}

#[test]
fn a_closed_descriptor_is_an_error() {
    let error = refused(json!({"argv": ["true"], "pass_fds": {"987": 3}}));
    assert_eq!((error.field(), error.errno()), (Some("pass_fds.987"), libc::EBADF), "{error}");
    let error = refused(json!({"argv": ["true"], "stdin": "fd:987"}));
    assert_eq!((error.field(), error.errno()), (Some("stdin"), libc::EBADF), "{error}");
}

/// CVE-2024-21626: nothing that the start itself has open can be a working directory, a program, or an interpreter.
#[test]
fn descriptors_of_the_start_are_out_of_reach() {
    let dir = tmp();
    let Some(root) = busybox_image(dir.path()) else { return skip("no static busybox") };
    let dirs: Vec<_> = (0..8).map(|_| fs::File::open("/").expect("open /")).collect();
    for file in &dirs {
        // As a careless host would have it.
        // SAFETY: no pointers.
        unsafe { libc::fcntl(file.as_raw_fd(), libc::F_SETFD, 0) };
    }
    for n in (3..70).chain([200, 201, 202]) {
        symlink(format!("/proc/self/fd/{n}"), root.join(format!("link{n}"))).expect("a link");
        symlink(format!("/proc/self/fd/{n}/usr/bin/env"), root.join(format!("env{n}"))).expect("a link");
        let script = root.join(format!("script{n}"));
        fs::write(&script, format!("#!/proc/self/fd/{n}/bin/sh\n")).expect("a script");
        fs::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o755)).expect("its mode");
    }
    let container = start(json!({"rootfs": root}));
    for n in (3..70).chain([200, 201, 202]) {
        for cwd in [format!("/proc/self/fd/{n}"), format!("/proc/self/fd/{n}/etc"), format!("/link{n}")] {
            let error = refused(json!({"argv": ["/bin/true"], "rootfs": root, "cwd": cwd}));
            assert_eq!(error.field(), Some("cwd"), "{cwd}: {error}");
            let joined = container.spawn(Command::new("/bin/true").current_dir(&cwd).stdout(Stdio::Null));
            assert_eq!(joined.expect_err("a leak").field(), Some("cwd"), "{cwd}");
        }
        for program in [format!("/proc/self/fd/{n}/usr/bin/env"), format!("/env{n}"), format!("/script{n}")] {
            let error = refused(json!({"argv": [program], "rootfs": root}));
            assert_eq!(error.field(), Some("argv[0]"), "{program}: {error}");
            let error = refused(json!({"argv": [program], "rootfs": root, "init": false}));
            assert_eq!(error.field(), Some("argv[0]"), "{program}: {error}");
            let joined = container.spawn(Command::new(&program).stdout(Stdio::Null));
            assert_eq!(joined.expect_err("a leak").field(), Some("argv[0]"), "{program}");
        }
    }
    container.close(None).expect("close");
}

#[test]
fn nothing_is_inherited() {
    let file = fs::File::open("/").expect("open /");
    // SAFETY: no pointers.
    unsafe { libc::fcntl(file.as_raw_fd(), libc::F_SETFD, 0) };
    for init in [true, false] {
        assert_eq!(run(json!({"argv": ["ls", "/proc/self/fd"], "init": init})).out, "0\n1\n2\n3\n", "init {init}");
    }
    let container = start(json!({}));
    assert_eq!(exec_in(&container, Command::new("ls").arg("/proc/self/fd")).out, "0\n1\n2\n3\n");
    // A standard layout of signals, too.
    let status = exec_in(&container, Command::new("cat").arg("/proc/self/status")).out;
    for key in ["SigBlk", "SigIgn", "SigCgt"] {
        assert_eq!(status_line(&status, key), "0000000000000000", "{key}");
    }
    container.close(None).expect("close");
}

// --- terminals ---

fn read_until(process: &Process, what: &str) -> String {
    let terminal = process.terminal().expect("a terminal").try_clone_to_owned().expect("dup");
    let mut file = fs::File::from(terminal);
    let mut seen = String::new();
    let mut block = [0; 1024];
    while !seen.contains(what) {
        let mut poll = [nix::poll::PollFd::new(file.as_fd(), nix::poll::PollFlags::POLLIN)];
        let ready = nix::poll::poll(&mut poll, nix::poll::PollTimeout::from(20_000u16)).expect("poll");
        assert!(ready > 0, "no {what:?} in {seen:?}");
        match file.read(&mut block) {
            Ok(n @ 1..) => seen.push_str(&String::from_utf8_lossy(&block[..n])),
            // EIO: all of the other side is closed.
            _ => panic!("no {what:?} in {seen:?}"),
        }
    }
    seen
}

const TERMINAL_SCRIPT: &str = "tty; stty size; test -t 0 && test -t 1 && test -t 2 && echo three
    test $(ps -o sid= -p $$) = $$ && echo leader
    trap 'stty size; echo changed' WINCH
    echo ready; while read line; do echo got $line; test \"$line\" = end && break; done";

fn check_terminal(process: &Process) {
    let seen = read_until(process, "ready");
    assert!(seen.contains("/dev/pts/0") && seen.contains("50 132") && seen.contains("three"), "{seen:?}");
    assert!(seen.contains("leader"), "{seen:?}");
    process.resize(30, 90).expect("resize");
    // A shell runs its trap when the read ends.
    let mut writer = fs::File::from(process.terminal().expect("a terminal").try_clone_to_owned().expect("dup"));
    writer.write_all(b"line\n").expect("write");
    let seen = read_until(process, "got line");
    let seen = if seen.contains("changed") { seen } else { seen + &read_until(process, "changed") };
    assert!(seen.contains("30 90"), "{seen:?}");
    writer.write_all(b"end\n").expect("write");
    read_until(process, "got end");
    assert_eq!(process.wait(TIMEOUT).expect("wait").expect("ended").code, Some(0));
}

#[test]
fn a_terminal_for_the_main_process() {
    for init in [true, false] {
        let spec =
            json!({"argv": ["bash", "-c", TERMINAL_SCRIPT], "terminal": {"rows": 50, "cols": 132}, "init": init});
        let container = start(spec);
        check_terminal(&container.main().expect("main"));
        container.close(None).expect("close");
    }
}

#[test]
fn a_terminal_for_a_joined_process() {
    let container = start(json!({}));
    let mut command = Command::new("bash");
    command.args(["-c", TERMINAL_SCRIPT]);
    command.terminal = Some(Terminal { rows: 50, cols: 132 });
    check_terminal(&container.spawn(&command).unwrap_or_else(|e| panic!("{e}")));
    container.close(None).expect("close");
}

/// Ctrl-C goes to the foreground process group of the container's terminal, and to nobody else.
#[test]
fn control_c_interrupts() {
    let container = start(json!({}));
    let mut command = Command::new("sh");
    command.args(["-c", "echo ready; sleep 1000"]);
    command.terminal = Some(Terminal::default());
    let process = container.spawn(&command).unwrap_or_else(|e| panic!("{e}"));
    read_until(&process, "ready");
    let mut writer = fs::File::from(process.terminal().expect("a terminal").try_clone_to_owned().expect("dup"));
    // dash forgets one that arrives while it starts its child.
    let mut status = None;
    for _ in 0..100 {
        let _ = writer.write_all(b"\x03");
        status = process.wait(Some(Duration::from_millis(200))).expect("wait");
        if status.is_some() {
            break;
        }
    }
    let status = status.expect("ended");
    assert_eq!((status.signal, status.code), (Some(libc::SIGINT), None), "{status:?}");
    container.close(None).expect("close");
}

#[test]
fn a_session_of_its_own_without_a_terminal() {
    let script = "test $(ps -o sid= -p $$) = $$ && echo leader; (: </dev/tty) 2>/dev/null && echo a terminal; true";
    assert_eq!(sh(script, json!({})), "leader\n");
}

// --- many ---

#[test]
fn fifty_at_once() {
    let container = start(json!({}));
    let results: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..50)
            .map(|i| {
                let container = &container;
                scope.spawn(move || {
                    let mut command = Command::new("sh");
                    command.args(["-c", &format!("echo {i}; exit {i}")]);
                    let ran = exec_in(container, &command);
                    (ran.out, ran.status.code)
                })
            })
            .collect();
        threads.into_iter().map(|t| t.join().expect("a thread")).collect()
    });
    for (i, (out, code)) in results.into_iter().enumerate() {
        assert_eq!((out, code), (format!("{i}\n"), Some(i as i32)));
    }
    assert_eq!(sh_in(&container, "ps -e -o stat= | grep -c Z; true"), "0\n", "zombies");
    container.close(None).expect("close");
}

// --- programs ---

#[test]
fn programs_that_cannot_be_executed() {
    let dir = tmp();
    fs::write(dir.path().join("no-x"), "#!/bin/sh\n").expect("a file");
    fs::write(dir.path().join("no-interpreter"), "#!/no/such/interpreter\n").expect("a file");
    fs::write(dir.path().join("no-format"), "\x00\x01\x02").expect("a file");
    for name in ["no-interpreter", "no-format"] {
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        fs::set_permissions(dir.path().join(name), mode).expect("its mode");
    }
    let mounts = json!([format!("{}:/t", dir.path().display())]);
    let cases = [
        ("/no/such/program", libc::ENOENT, ErrorKind::NotFound),
        ("no-such-program", libc::ENOENT, ErrorKind::NotFound),
        ("/usr", libc::EACCES, ErrorKind::PermissionDenied),
        ("/t/no-x", libc::EACCES, ErrorKind::PermissionDenied),
        ("/t/no-interpreter", libc::ENOENT, ErrorKind::NotFound),
        ("/t/no-format", libc::ENOEXEC, ErrorKind::Os),
        ("/etc/passwd/x", libc::ENOTDIR, ErrorKind::NotFound),
    ];
    let container = start(json!({"mounts": mounts}));
    for (program, errno, kind) in cases {
        for init in [true, false] {
            let error = refused(json!({"argv": [program], "mounts": mounts, "init": init}));
            assert_eq!((error.field(), error.errno()), (Some("argv[0]"), errno), "{program}, init {init}: {error}");
            assert!(error.kind() == kind || errno == libc::ENOTDIR || errno == libc::ENOEXEC, "{program}: {error}");
            assert_eq!(error.path(), Some(program));
        }
        let error = container.spawn(&Command::new(program)).expect_err("it cannot run");
        assert_eq!((error.field(), error.errno()), (Some("argv[0]"), errno), "{program}: {error}");
    }
    assert!(container.is_running());
    container.close(None).expect("close");
}

#[test]
fn the_pipe_of_a_killed_process_ends() {
    let container = start(json!({}));
    let mut command = Command::new("sleep");
    command.arg("1000").stdin(Stdio::Null).stdout(Stdio::Pipe).stderr(Stdio::Null);
    let process = container.spawn(&command).expect("spawn");
    process.kill(libc::SIGKILL).expect("kill");
    let status = process.wait(Some(Duration::from_secs(20))).expect("wait").expect("ended");
    assert_eq!((status.signal, status.reason), (Some(libc::SIGKILL), Reason::Signaled));
    let mut text = String::new();
    fs::File::from(process.take_stdout().expect("a pipe")).read_to_string(&mut text).expect("read");
    container.close(None).expect("close");
}

#[test]
fn a_closed_container_takes_no_more() {
    let container: Container = start(json!({}));
    container.close(None).expect("close");
    let error = container.spawn(&Command::new("true")).expect_err("closed");
    assert_eq!(error.kind(), ErrorKind::Closed, "{error}");
}
