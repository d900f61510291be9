//! What the feature tests share: specs as JSON, a shell inside, what this machine has.

use std::fs;
use std::net::{IpAddr, UdpSocket};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use ringfence::spec::Stdio;
use ringfence::{Command, Container, Error, ExitStatus, Output, Spec};
pub use serde_json::{Value, json};

pub const TIMEOUT: Option<Duration> = Some(Duration::from_secs(60));

#[derive(Debug)]
pub struct Ran {
    pub out: String,
    pub err: String,
    pub status: ExitStatus,
}

impl From<Output> for Ran {
    fn from(output: Output) -> Self {
        Self {
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
            status: output.status,
        }
    }
}

#[track_caller]
pub fn spec(json: Value) -> Spec {
    Spec::from_json(&json.to_string()).unwrap_or_else(|e| panic!("{e}"))
}

pub fn try_run(json: Value) -> Result<Ran, Error> {
    ringfence::run(&Spec::from_json(&json.to_string())?, None, TIMEOUT).map(Ran::from)
}

#[track_caller]
pub fn run(json: Value) -> Ran {
    try_run(json).unwrap_or_else(|e| panic!("{e}\n{}", e.to_json()))
}

/// The error of a start that must fail.
#[track_caller]
pub fn refused(json: Value) -> Error {
    match try_run(json) {
        Err(error) => error,
        Ok(ran) => panic!("it ran: {:?}\n{}{}", ran.status, ran.out, ran.err),
    }
}

/// A shell script in a container of its own, with more fields of the spec: what it printed.
#[track_caller]
pub fn sh(script: &str, fields: Value) -> String {
    let ran = run(with(json!({"argv": ["/bin/sh", "-c", script]}), fields));
    assert_eq!(ran.status.code, Some(0), "{script}: {:?}\nstdout: {}\nstderr: {}", ran.status, ran.out, ran.err);
    ran.out
}

/// Two JSON objects as one.
pub fn with(mut json: Value, fields: Value) -> Value {
    let Value::Object(fields) = fields else { panic!("fields are an object") };
    json.as_object_mut().expect("an object").extend(fields);
    json
}

#[track_caller]
pub fn start(json: Value) -> Container {
    Container::start(&spec(json)).unwrap_or_else(|e| panic!("{e}\n{}", e.to_json()))
}

/// A command in a running container, its output piped.
#[track_caller]
pub fn exec_in(container: &Container, command: &Command) -> Ran {
    let mut command = command.clone();
    command.stdin.get_or_insert(Stdio::Null);
    command.stdout.get_or_insert(Stdio::Pipe);
    command.stderr.get_or_insert(Stdio::Pipe);
    let process = container.spawn(&command).unwrap_or_else(|e| panic!("{e}\n{}", e.to_json()));
    process.communicate(None, TIMEOUT).unwrap_or_else(|e| panic!("{e}")).into()
}

#[track_caller]
pub fn sh_in(container: &Container, script: &str) -> String {
    let mut command = Command::new("/bin/sh");
    command.args(["-c", script]);
    let ran = exec_in(container, &command);
    assert_eq!(ran.status.code, Some(0), "{script}\nstdout: {}\nstderr: {}", ran.out, ran.err);
    ran.out
}

pub fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

/// For tests that a probe finds to have nothing to show here; the run's list of skips says whether it may.
pub fn skip(reason: &str) {
    println!("SKIP: {reason}");
}

/// How often something is done that goes wrong by chance: on an emulated processor a fifth of it.
pub fn times(n: u32) -> u32 {
    if std::env::var("RINGFENCE_TEST_TIER").is_ok_and(|tier| tier == "vm") { n / 5 } else { n }
}

pub fn can_limit() -> bool {
    std::env::var_os("RINGFENCE_CGROUP_PARENT").is_some()
}

/// A temporary directory that can be removed although overlayfs makes a directory of mode 0 in its work directory.
pub struct Tmp(tempfile::TempDir);

impl std::ops::Deref for Tmp {
    type Target = tempfile::TempDir;

    fn deref(&self) -> &tempfile::TempDir {
        &self.0
    }
}

impl Drop for Tmp {
    fn drop(&mut self) {
        open_up(self.0.path(), 4);
    }
}

fn open_up(dir: &Path, depth: u32) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten().filter(|_| depth > 0) {
        if entry.file_type().is_ok_and(|t| t.is_dir()) {
            if entry.metadata().is_ok_and(|m| m.permissions().mode() & 0o700 == 0) {
                let _ = fs::set_permissions(entry.path(), fs::Permissions::from_mode(0o700));
            }
            open_up(&entry.path(), depth - 1);
        }
    }
}

/// [`tmp`] where every user can reach it: a run's own TMPDIR may be private.
pub fn public_tmp() -> Tmp {
    let place = std::env::var_os("RINGFENCE_TEST_PUBLIC").unwrap_or_else(|| "/var/tmp".into());
    let dir = tempfile::Builder::new().prefix("feature-").tempdir_in(place).expect("a temporary directory");
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).expect("its mode");
    Tmp(dir)
}

/// A directory of the host that others may enter; its owner is the caller.
pub fn tmp() -> Tmp {
    let dir = tempfile::Builder::new().prefix("feature-").tempdir().expect("a temporary directory");
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).expect("its mode");
    Tmp(dir)
}

const APPLETS: [&str; 24] = [
    "sh", "cat", "ls", "id", "stat", "echo", "mkdir", "touch", "ln", "readlink", "grep", "head", "wc", "mount",
    "sleep", "true", "env", "pwd", "test", "rm", "chown", "find", "umount", "mknod",
];

/// An image of one static program below `dir`, without /proc, /dev, /sys; `None` where there is none.
pub fn busybox_image(dir: &Path) -> Option<PathBuf> {
    let busybox = ["/usr/bin/busybox", "/bin/busybox"].into_iter().find(|p| is_static(Path::new(p)))?;
    let root = dir.join("image");
    for name in ["bin", "etc"] {
        fs::create_dir_all(root.join(name)).expect("directories");
    }
    fs::copy(busybox, root.join("bin/busybox")).expect("copy busybox");
    fs::set_permissions(root.join("bin/busybox"), fs::Permissions::from_mode(0o755)).expect("its mode");
    for applet in APPLETS {
        symlink("busybox", root.join("bin").join(applet)).expect("a link");
    }
    fs::write(root.join("etc/motd"), "image\n").expect("a file");
    Some(root)
}

/// No program header asks for an interpreter.
fn is_static(path: &Path) -> bool {
    let Ok(bytes) = fs::read(path) else { return false };
    const PT_INTERP: u32 = 3;
    let (Some(offset), Some(count)) = (bytes.get(32..40), bytes.get(56..58)) else { return false };
    let offset = u64::from_le_bytes(offset.try_into().expect("8 bytes")) as usize;
    let count = u16::from_le_bytes(count.try_into().expect("2 bytes")) as usize;
    (0..count).all(|i| {
        let at = offset + i * 56;
        bytes.get(at..at + 4).is_some_and(|b| u32::from_le_bytes(b.try_into().expect("4 bytes")) != PT_INTERP)
    })
}

/// Waits for something that another process does.
#[track_caller]
pub fn until(what: &str, mut done: impl FnMut() -> bool) {
    let started = Instant::now();
    while !done() {
        assert!(started.elapsed() < Duration::from_secs(30), "{what}: not within 30 s");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A line `Key:\tvalue` of a /proc/PID/status.
pub fn status_line(text: &str, key: &str) -> String {
    text.lines()
        .find_map(|line| line.strip_prefix(key)?.strip_prefix(':'))
        .unwrap_or_else(|| panic!("no {key} in {text}"))
        .trim()
        .to_owned()
}

/// The container's group in the hierarchy of a controller (its names on v1 and v2), and whether that is v2.
pub fn group_of(container: &Container, v1: &str, v2: &str) -> (PathBuf, bool) {
    let info: Value = serde_json::from_str(&container.info_json()).expect("JSON");
    let groups = info["cgroup"]["groups"].as_array().expect("groups");
    let has = |group: &Value, name: &str| group["controllers"].as_array().expect("a list").iter().any(|c| c == name);
    let path = |group: &Value| PathBuf::from(group["path"].as_str().expect("a path"));
    if let Some(found) = groups.iter().find(|g| g["version"] == 1 && has(g, v1)) {
        return (path(found), false);
    }
    (path(groups.iter().find(|g| g["version"] == 2 && has(g, v2)).expect("a group with the controller")), true)
}

/// Swap for the time of a test, in the virtual machine only: it is everybody's.
pub struct Swap(PathBuf);

impl Swap {
    pub fn on() -> Option<Self> {
        if !is_root() || std::env::var("RINGFENCE_TEST_TIER").as_deref() != Ok("vm") {
            return None;
        }
        let swap = Self(format!("/var/tmp/ringfence-swap-{}", std::process::id()).into());
        fs::write(&swap.0, vec![0; 64 << 20]).expect("a swap file");
        fs::set_permissions(&swap.0, fs::Permissions::from_mode(0o600)).expect("its mode");
        for program in ["mkswap", "swapon"] {
            let done = std::process::Command::new(program).arg(&swap.0).output().expect(program);
            assert!(done.status.success(), "{program}: {done:?}");
        }
        Some(swap)
    }
}

impl Drop for Swap {
    fn drop(&mut self) {
        let _ = std::process::Command::new("swapoff").arg(&self.0).status();
        let _ = fs::remove_file(&self.0);
    }
}

/// Whether somebody answers a ping, which may be in fragments.
pub fn pings(from: &Container, to: IpAddr, size: usize, patience: Duration) -> bool {
    let (domain, protocol, kind) = match to {
        IpAddr::V4(_) => (libc::AF_INET, libc::IPPROTO_ICMP, 8),
        IpAddr::V6(_) => (libc::AF_INET6, libc::IPPROTO_ICMPV6, 128),
    };
    let socket = UdpSocket::from(from.socket(domain, libc::SOCK_RAW, protocol).expect("a socket"));
    socket.set_read_timeout(Some(patience)).unwrap();
    let mut message = vec![kind, 0, 0, 0, 0x12, 0x34, 0, 1];
    message.resize(size, 0);
    let sum: u32 = message.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0))).sum();
    let sum = (sum & 0xffff) + (sum >> 16);
    if to.is_ipv4() {
        message[2..4].copy_from_slice(&(!((sum & 0xffff) + (sum >> 16)) as u16).to_be_bytes());
    }
    socket.send_to(&message, (to, 0)).unwrap();
    let mut buffer = [0; 4096];
    while let Ok((length, who)) = socket.recv_from(&mut buffer) {
        let reply = if to.is_ipv4() { buffer.get(20) == Some(&0) } else { buffer[0] == 129 };
        if who.ip() == to && reply && length >= size {
            return true;
        }
    }
    false
}
