//! What confines a program beside its credentials: rules of Landlock, profiles and labels, keyrings, securebits.
//!
//! tests/run: timeout=300 vm=root threads=1

use std::fs;

use common::*;
use ringfence::spec::{Landlock, Securebits};
use ringfence::{Command, Container, ErrorKind, Spec};

#[allow(dead_code, reason = "each test program uses a part of it")]
mod common;

/// The error, if this machine has no such module: then nobody is confined by it, and that was said.
fn has(error: Option<ringfence::Error>, field: &str) -> bool {
    let Some(error) = error else { return true };
    assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
    assert!(error.field().is_some_and(|found| found.starts_with(field)), "{error}");
    assert!(error.hint().is_some(), "{error}");
    skip(&error.to_string());
    false
}

fn has_landlock(rules: &Value) -> bool {
    has(try_run(json!({"argv": ["true"], "rootfs": "host", "landlock": rules})).err(), "landlock")
}

fn command(script: &str) -> Command {
    let mut command = Command::new("/bin/sh");
    command.args(["-c", script]);
    command
}

/// Each line of the script as a word: `+` where it works, `-` where it does not.
fn marks(lines: &[&str]) -> String {
    lines.iter().map(|line| format!("({line}) >/dev/null 2>&1 && printf + || printf -\n")).collect()
}

// --- Landlock ---

const LINES: [&str; 10] = [
    "cat /etc/passwd",
    "ls /etc",
    "echo x >/tmp/made",
    "cat /tmp/made",
    "mkdir /tmp/dir && ln /tmp/made /tmp/dir/link",
    "rm -r /tmp/dir",
    "echo x >>/opt/file",
    "mkdir /root/dir",
    "cat /srv/secret",
    "mount -t tmpfs none /tmp",
];

#[test]
fn rules_for_paths_hold_for_root_too() {
    let paths = json!({
        "/": "execute", "/etc": "read", "/usr": ["read", "execute"], "/bin": "read", "/lib": "read", "/lib64": "read",
        "/dev/null": "all", "/tmp": ["read", "write", "create", "remove"], "/opt/file": "read",
    });
    let rules = json!({"paths": paths});
    if !has_landlock(&json!({"paths": {"/": ["read", "execute", "write"]}})) {
        return;
    }
    let usual = json!({"files": {"/opt/file": "text", "/srv/secret": "text"}, "capabilities": {"add": ["sys_admin"]}});
    let script = marks(&LINES);
    for init in [true, false] {
        let fields = with(usual.clone(), json!({"init": init}));
        assert_eq!(sh(&script, fields.clone()), "++++++++++", "without rules");
        // What is linked into another directory takes `refer` besides.
        for no_new_privs in [true, false] {
            let more = json!({"landlock": rules, "no_new_privs": no_new_privs});
            let seen = sh(&script, with(fields.clone(), more));
            assert_eq!(seen, "++++-+----", "init {init}, no_new_privs {no_new_privs}");
        }
    }
    // A process that joins has the container's rules, or its own; what the host does inside is not held by them.
    let container = start(with(usual, json!({"landlock": rules})));
    let seen = exec_in(&container, &command(&script));
    assert_eq!(seen.out, "++++-+----", "{}", seen.err);
    let mut other = command("cat /srv/secret; echo x >/tmp/y");
    other.landlock =
        Some(Landlock { paths: [("/".into(), Landlock::READ | Landlock::EXECUTE)].into(), ..Landlock::default() });
    let seen = exec_in(&container, &other);
    assert!(seen.out == "text" && seen.err.contains("ermission denied"), "{seen:?}");
    let mut free = command("echo x >/root/x && cat /srv/secret");
    free.set("landlock", b"{}").expect("empty rules");
    assert_eq!(exec_in(&container, &free).out, "text");
    container.close(None).expect("close");
}

#[test]
fn a_rule_that_cannot_be_is_an_error() {
    if !has_landlock(&json!({"paths": {"/": ["read", "execute"]}})) {
        return;
    }
    let paths =
        |paths: Value| json!({"argv": ["/bin/true"], "landlock": {"paths": paths}, "files": {"/opt/file": "x"}});
    for init in [true, false] {
        let refused = |paths| refused(with(paths, json!({"init": init})));
        let error = refused(paths(json!({"/": ["read", "execute"], "/no/where": "read"})));
        assert_eq!((error.field(), error.errno()), (Some("landlock.paths[\"/no/where\"]"), libc::ENOENT), "{error}");
        let error = refused(paths(json!({"/": ["read", "execute"], "/opt/file": "create"})));
        assert_eq!((error.field(), error.errno()), (Some("landlock.paths[\"/opt/file\"]"), libc::ENOTDIR), "{error}");
        let error = refused(paths(json!({"/opt": "read"})));
        assert_eq!((error.field(), error.errno()), (Some("argv[0]"), libc::EACCES), "{error}");
        assert!(error.hint().is_some_and(|hint| hint.contains("landlock.paths")), "{error}");
    }
    // Links lead to where they do inside; those of /proc lead nowhere.
    let error = refused(paths(json!({"/": ["read", "execute"], "/proc/self/root": "read"})));
    assert_eq!((error.field(), error.errno()), (Some("landlock.paths[\"/proc/self/root\"]"), libc::ELOOP), "{error}");
}

const PORTS: &str = r#"
import errno, socket
def listen(port):
    s = socket.socket()
    try:
        s.bind(("127.0.0.1", port))
        s.listen()
        return s
    except OSError as e:
        print("bind", port, errno.errorcode[e.errno])
def connect(port):
    try:
        socket.create_connection(("127.0.0.1", port)).close()
        print("connect", port)
    except OSError as e:
        print("connect", port, errno.errorcode[e.errno])
servers = [listen(port) for port in (7001, 7002, 0)]
connect(7001); connect(7003)
"#;

#[test]
fn rules_for_ports() {
    if !has_landlock(&json!({"bind": [7001], "connect": [7003]})) {
        return;
    }
    let ran = |rules: Value| run(json!({"argv": ["python3", "-c", PORTS], "landlock": rules})).out;
    assert_eq!(ran(json!({})), "connect 7001\nconnect 7003 ECONNREFUSED\n");
    assert_eq!(
        ran(json!({"bind": [7001]})),
        "bind 7002 EACCES\nbind 0 EACCES\nconnect 7001\nconnect 7003 ECONNREFUSED\n"
    );
    assert_eq!(
        ran(json!({"bind": [0, 7001, 7002], "connect": [7003]})),
        "connect 7001 EACCES\nconnect 7003 ECONNREFUSED\n"
    );
    let nothing = "bind 7001 EACCES\nbind 7002 EACCES\nbind 0 EACCES\nconnect 7001 EACCES\nconnect 7003 EACCES\n";
    assert_eq!(ran(json!({"bind": [], "connect": []})), nothing);
    let container = start(json!({"landlock": {"bind": [], "connect": []}}));
    assert_eq!(exec_in(&container, Command::new("python3").args(["-c", PORTS])).out, nothing);
    container.close(None).expect("close");
}

#[test]
fn scopes_keep_processes_apart() {
    if !has_landlock(&json!({"scopes": ["signal", "abstract_unix_socket"]})) {
        return;
    }
    let server =
        "import socket, time; s = socket.socket(socket.AF_UNIX); s.bind('\\0name'); s.listen(); time.sleep(600)";
    let container = start(json!({"argv": ["python3", "-c", server]}));
    let pid = sh_in(&container, "until grep -q @name /proc/net/unix; do sleep 0.05; done; pgrep -f sleep.600");
    let attempt = format!(
        "import os, socket\nfor what in (lambda: os.kill({}, 0), lambda: socket.socket(socket.AF_UNIX).connect('\\0name')):\n  \
         try: what(); print('done')\n  except PermissionError: print('refused')",
        pid.trim().lines().next().expect("a pid")
    );
    let mut command = Command::new("python3");
    command.args(["-c", &attempt]);
    assert_eq!(exec_in(&container, &command).out, "done\ndone\n");
    for (scopes, seen) in [("signal", "refused\ndone\n"), ("abstract_unix_socket", "done\nrefused\n")] {
        command.set("landlock", json!({"scopes": [scopes]}).to_string().as_bytes()).expect("scopes");
        assert_eq!(exec_in(&container, &command).out, seen, "{scopes}");
    }
    container.close(None).expect("close");
}

// --- keyrings ---

/// `keyctl(2)` of this thread, or `None` where there are no keys.
fn keyctl(operation: i32, two: i64, three: i64) -> Option<i64> {
    // SAFETY: the operations used here take numbers.
    let result = unsafe { libc::syscall(libc::SYS_keyctl, operation, two, three, 0, 0) };
    if result < 0 && [libc::ENOSYS, libc::EPERM].contains(&std::io::Error::last_os_error().raw_os_error().unwrap_or(0))
    {
        return None;
    }
    assert!(result >= 0, "keyctl {operation}: {}", std::io::Error::last_os_error());
    Some(result)
}

const SEARCH: &str = r#"
import ctypes, errno, os, sys
libc = ctypes.CDLL(None, use_errno=True)
KEYCTL, ADD = {"x86_64": (250, 248), "aarch64": (219, 217)}[os.uname().machine]
SESSION = -3
def call(*args):
    args = [ctypes.c_char_p(a) if isinstance(a, bytes) else ctypes.c_long(a) for a in args]
    result = libc.syscall(*args)
    return result if result >= 0 else errno.errorcode[ctypes.get_errno()]
ident = int(sys.argv[1])
found = call(KEYCTL, 10, SESSION, b"user", b"of the host", 0)
read = call(KEYCTL, 11, ident, 0, 0)
mine = call(ADD, b"user", b"mine", b"x", 1, SESSION)
print(found == ident and "found" or found, isinstance(read, int) and "read" or read, isinstance(mine, int) and "added" or mine)
print(call(KEYCTL, 0, SESSION, 0))
"#;

#[test]
fn the_host_s_keys_are_out_of_reach() {
    const JOIN: i32 = 1;
    const GET_ID: i32 = 0;
    // The keepers that there are have the keyring from before; the next one is born with this.
    ringfence::end_keepers();
    let Some(own) = keyctl(JOIN, 0, 0) else { return skip("no keyctl(2) here") };
    // SAFETY: two strings, a payload of 6 bytes.
    let key = unsafe {
        libc::syscall(libc::SYS_add_key, c"user".as_ptr(), c"of the host".as_ptr(), c"secret".as_ptr(), 6, own)
    };
    assert!(key > 0, "{}", std::io::Error::last_os_error());
    let id = key.to_string();
    let argv = ["python3", "-c", SEARCH, &id];
    let careless = std::process::Command::new(argv[0]).args(&argv[1..]).output().expect("python3").stdout;
    let careless = String::from_utf8(careless).expect("text");
    assert_eq!(careless, format!("found read added\n{own}\n"), "a child of the host has its keys");
    // The filter by default refuses the calls with which one would look.
    let container = start(json!({"seccomp": "none"}));
    let mut command = Command::new("python3");
    command.args(&argv[1..]);
    let mut seen = vec![exec_in(&container, &command), exec_in(&container, &command)];
    container.close(None).expect("close");
    for init in [true, false] {
        for idmap in ["auto", "host"] {
            if is_root() || idmap == "auto" {
                seen.push(run(json!({"argv": argv, "init": init, "idmap": idmap, "seccomp": "none"})));
            }
        }
    }
    let mut keyrings = vec![own.to_string()];
    for ran in seen {
        let (first, keyring) = ran.out.split_once('\n').unwrap_or_else(|| panic!("{}", ran.err));
        // With the host's own id it may be looked at by number where it says so, as by any other of the user's programs; this
        // key does not.
        assert_eq!(first, "ENOKEY EACCES added", "{}", ran.err);
        assert!(!keyrings.contains(&keyring.trim().to_owned()), "{keyring} is not its own: {keyrings:?}");
        keyrings.push(keyring.trim().to_owned());
    }
    // And the host's is as it was.
    assert_eq!(keyctl(GET_ID, -3, 0), Some(own));
    keyctl(JOIN, 0, 0);
}

// --- securebits ---

const BITS: &str =
    "import ctypes\nprint(ctypes.CDLL(None).prctl(27, 0, 0, 0, 0))\nprint(open('/proc/self/status').read())";

#[test]
fn securebits_stay_over_the_exec() {
    const NET_RAW: u64 = 1 << 13;
    let seen = |text: &str| {
        let (bits, status) = text.split_once('\n').expect("two parts");
        let set = |key| u64::from_str_radix(&status_line(status, key), 16).expect("a mask");
        (bits.parse::<u32>().expect("bits"), [set("CapInh"), set("CapPrm"), set("CapEff"), set("CapAmb")])
    };
    let all = Securebits::NOROOT
        | Securebits::NOROOT_LOCKED
        | Securebits::NO_SETUID_FIXUP
        | Securebits::NO_SETUID_FIXUP_LOCKED
        | Securebits::KEEP_CAPS_LOCKED
        | Securebits::NO_CAP_AMBIENT_RAISE
        | Securebits::NO_CAP_AMBIENT_RAISE_LOCKED;
    let container = start(json!({}));
    let mut users = vec!["0"];
    if is_root() {
        users.push("1000");
    }
    for user in users {
        for (bits, ambient, sets) in [
            (all, json!(["net_raw"]), [NET_RAW; 4]),
            (Securebits::NOROOT, json!("none"), [0; 4]),
            (Securebits::NO_SETUID_FIXUP, json!(["net_raw"]), [NET_RAW; 4]),
        ] {
            let names: Vec<_> = Securebits(bits).names().collect();
            let capabilities = json!({"bounding": ["net_raw"], "ambient": ambient});
            let fields = json!({"securebits": names, "user": user, "capabilities": capabilities});
            let main = run(with(json!({"argv": ["python3", "-c", BITS]}), fields.clone()));
            assert_eq!(seen(&main.out), (bits, sets), "{names:?} of {user}: {}", main.err);
            let mut command = Command::new("python3");
            command.args(["-c", BITS]).merge_json(&fields.to_string()).expect("fields");
            let joined = exec_in(&container, &command);
            assert_eq!(seen(&joined.out), (bits, sets), "{names:?} of {user}: {}", joined.err);
        }
    }
    container.close(None).expect("close");
    // Of interpreters: Linux 6.14.
    match try_run(json!({"argv": ["python3", "-c", BITS], "securebits": "exec_restrict_file"})) {
        Ok(ran) => assert_eq!(seen(&ran.out).0, Securebits::EXEC_RESTRICT_FILE),
        Err(error) => {
            assert_eq!(error.field(), Some("securebits"), "{error}");
            assert!(error.hint().is_some_and(|hint| hint.contains("6.14")), "{error}");
        }
    }
}

// --- profiles and labels ---

const PROFILE: &str = "
profile ringfence-test flags=(attach_disconnected) {
  / r,
  /** rix,
  /tmp/** rw,
  /dev/null rw,
  deny /etc/shadow r,
  deny /etc/passwd r,
  signal,
  capability,
}
";

#[test]
fn an_unknown_profile_or_one_without_apparmor_is_an_error() {
    let container = start(json!({}));
    for init in [true, false] {
        let fields = json!({"argv": ["true"], "apparmor": "ringfence-no-such-profile", "init": init});
        let mut command = Command::new("true");
        command.apparmor = Some("ringfence-no-such-profile".to_owned());
        for error in [refused(fields), container.spawn(&command).expect_err("a profile")] {
            assert_eq!(error.field(), Some("apparmor"), "{error}");
            if error.kind() == ErrorKind::Unsupported {
                assert!(error.to_string().contains("AppArmor is not active in this kernel"), "{error}");
                continue;
            }
            assert_eq!((error.kind(), error.errno()), (ErrorKind::NotFound, libc::ENOENT), "{error}");
            assert!(error.hint().is_some_and(|hint| hint.contains("apparmor_parser")), "{error}");
        }
    }
    container.close(None).expect("close");
}

#[test]
fn an_apparmor_profile_confines() {
    if fs::read("/proc/self/attr/apparmor/current").is_err() {
        return skip("AppArmor is not active in this kernel");
    }
    if !is_root() {
        return skip("to load a profile takes root");
    }
    let dir = tmp();
    let file = dir.path().join("profile");
    fs::write(&file, PROFILE).expect("a profile");
    let parser = |action: &str| std::process::Command::new("apparmor_parser").arg(action).arg(&file).output();
    let Ok(loaded) = parser("-Kr") else { return skip("no apparmor_parser") };
    assert!(loaded.status.success(), "{}", String::from_utf8_lossy(&loaded.stderr));
    let script =
        "cat /proc/self/attr/apparmor/current; cat /etc/passwd; echo x >/tmp/x && echo made; echo x >/opt/x || echo no";
    let is_confined = |ran: Ran| {
        assert!(ran.out.starts_with("ringfence-test (enforce)\n"), "{ran:?}");
        assert!(ran.out.contains("made") && ran.out.contains("no") && !ran.out.contains("root:"), "{ran:?}");
    };
    for init in [true, false] {
        for no_new_privs in [true, false] {
            let fields = json!({"apparmor": "ringfence-test", "init": init, "no_new_privs": no_new_privs});
            is_confined(run(with(json!({"argv": ["/bin/sh", "-c", script]}), fields)));
        }
    }
    // The container's own, a command's, and neither; a hostile /proc inside changes nothing (CVE-2025-52881).
    let container = start(json!({"apparmor": "ringfence-test"}));
    is_confined(exec_in(&container, &command(script)));
    container.close(None).expect("close");
    let container = start(json!({"capabilities": {"add": ["sys_admin"]}, "readonly_paths": [], "masked_paths": []}));
    sh_in(
        &container,
        "mkdir -p /tmp/proc/self/attr/apparmor && : >/tmp/proc/self/attr/apparmor/exec && mount --bind /tmp/proc /proc",
    );
    let mut labelled = command("test -e /tmp/x && echo again; cat /etc/passwd; echo x >/tmp/x && echo made");
    labelled.apparmor = Some("ringfence-test".to_owned());
    let ran = exec_in(&container, &labelled);
    assert!(ran.out.contains("made") && !ran.out.contains("root:"), "{ran:?}");
    labelled.apparmor = None;
    let ran = exec_in(&container, &labelled);
    assert!(ran.out.contains("root:"), "{ran:?}");
    container.close(None).expect("close");
    assert!(parser("-R").expect("apparmor_parser").status.success());
}

#[test]
fn an_selinux_label() {
    let error = refused(json!({"argv": ["true"], "selinux": "no_user_u:no_role_r:no_type_t:s0"}));
    assert_eq!(error.field(), Some("selinux"), "{error}");
    if error.kind() == ErrorKind::Unsupported {
        let why = ["SELinux is not active in this kernel", "SELinux has no policy"];
        assert!(why.iter().any(|why| error.to_string().contains(why)), "{error}");
        let container = Container::start(&Spec::new()).expect("start");
        let mut command = Command::new("true");
        command.selinux = Some("u:r:t:s0".to_owned());
        let error = container.spawn(&command).expect_err("a label");
        assert_eq!((error.kind(), error.field()), (ErrorKind::Unsupported, Some("selinux")), "{error}");
        container.close(None).expect("close");
        return;
    }
    assert_eq!(error.errno(), libc::EINVAL, "{error}");
}
