//! Kernel parameters that each namespace has its own of.

use super::at::At;
use super::codec::Codec;
use super::json::{Json, json, wrong_type};
use super::namespace::NamespaceKind;
use crate::error::{Error, Result};

/// Of an IPC namespace: ipc_namespaces(7), sysvipc(7), mq_overview(7).
const IPC: [&str; 16] = [
    "kernel.msg_next_id",
    "kernel.msgmax",
    "kernel.msgmnb",
    "kernel.msgmni",
    "kernel.sem",
    "kernel.sem_next_id",
    "kernel.shm_next_id",
    "kernel.shm_rmid_forced",
    "kernel.shmall",
    "kernel.shmmax",
    "kernel.shmmni",
    "fs.mqueue.msg_default",
    "fs.mqueue.msg_max",
    "fs.mqueue.msgsize_default",
    "fs.mqueue.msgsize_max",
    "fs.mqueue.queues_max",
];

/// Of a user namespace: namespaces(7), inotify(7), fanotify(7).
const USER: [&str; 12] = [
    "user.max_cgroup_namespaces",
    "user.max_fanotify_groups",
    "user.max_fanotify_marks",
    "user.max_inotify_instances",
    "user.max_inotify_watches",
    "user.max_ipc_namespaces",
    "user.max_mnt_namespaces",
    "user.max_net_namespaces",
    "user.max_pid_namespaces",
    "user.max_time_namespaces",
    "user.max_user_namespaces",
    "user.max_uts_namespaces",
];

/// Of a pid namespace since Linux 6.14, before of the whole machine: pid_namespaces(7).
pub(crate) const PID_MAX: &str = "kernel/pid_max";

/// The longest value: more than any of them has.
const MAX_VALUE: usize = 255;

/// The path below /proc/sys. As in sysctl.d(5), the first separator of the name says which one it has: after a dot, a slash
/// stands for a dot in a name (`net.ipv4.conf.eth0/5.forwarding`).
pub(crate) fn path(name: &str) -> String {
    match name.find(['.', '/']).map(|at| name.as_bytes()[at]) {
        Some(b'.') => name
            .chars()
            .map(|c| {
                if c == '.' {
                    '/'
                } else if c == '/' {
                    '.'
                } else {
                    c
                }
            })
            .collect(),
        _ => name.to_owned(),
    }
}

/// [`namespace`] for a name in the field `sysctls`.
pub(crate) fn namespace_of(name: &str) -> Result<NamespaceKind> {
    namespace(&At::Field("sysctls").key(name), name)
}

/// The namespace that has it; the error says why there is none.
pub(super) fn namespace(at: &At, name: &str) -> Result<NamespaceKind> {
    let path = path(name);
    let plain = |part: &str| !part.is_empty() && part != "." && part != "..";
    let printable = name.bytes().all(|b| b.is_ascii_graphic() && b != b'=');
    if !printable || !path.contains('/') || !path.split('/').all(plain) {
        return Err(at.error("is not the name of a sysctl, like \"kernel.shmmax\""));
    }
    let known = |list: &[&str]| list.iter().any(|known| known.replace('.', "/") == path);
    if known(&IPC) {
        return Ok(NamespaceKind::Ipc);
    }
    if known(&USER) {
        return Ok(NamespaceKind::User);
    }
    if path.starts_with("net/") {
        return Ok(NamespaceKind::Net);
    }
    if path == PID_MAX {
        return Ok(NamespaceKind::Pid);
    }
    let whole = |hint: &str| {
        let error = at.error("is the whole machine's: no namespace has its own of it");
        Err(if hint.is_empty() { error } else { error.with_hint(hint) })
    };
    match path.as_str() {
        "kernel/hostname" => Err(at.error("is a field of its own").with_hint("set hostname")),
        "kernel/domainname" => Err(at.error("is a field of its own").with_hint("set domainname")),
        "kernel/pty/max" | "kernel/pty/reserve" | "kernel/pty/nr" => whole("the container's own number is ptys"),
        "kernel/threads-max" => whole("the container's own number is pids"),
        "fs/file-max" | "fs/nr_open" => whole("the number of a process is rlimits, nofile"),
        _ if path.starts_with("user/") => {
            Err(at.error("is not known").with_hint(format!("one of {}", USER.join(", "))))
        }
        _ if path.starts_with("fs/mqueue/") => {
            Err(at.error("is not known").with_hint(format!("one of {}", IPC[11..].join(", "))))
        }
        _ if path.starts_with("vm/") => whole("memory of the container is memory, swap, and their kin"),
        _ => whole(""),
    }
}

/// What is written. A number in JSON is its decimal digits.
pub(super) struct Value;

impl Codec for Value {
    type Value = String;

    fn read(json: &Json, at: &At) -> Result<String> {
        match json {
            Json::String(text) => Ok(text.clone()),
            Json::Number(number) if number.is_i64() || number.is_u64() => Ok(number.to_string()),
            _ => Err(wrong_type(at, "text or a whole number", json)),
        }
    }

    fn write(value: &String) -> Json {
        value.as_str().into()
    }

    fn schema() -> Json {
        json!({"type": ["string", "integer"]})
    }
}

/// A value that is one line of words.
pub(super) fn validate_value(at: &At, value: &str) -> Result<(), Error> {
    if value.trim().is_empty() {
        return Err(at.error("is empty; the kernel would take that for nothing to do"));
    }
    if value.len() > MAX_VALUE {
        return Err(at.error(format!("has {} bytes; at most {MAX_VALUE}", value.len())));
    }
    if value.bytes().any(|b| b.is_ascii_control() && b != b'\t') {
        return Err(at.error("has a control character in it; it is one line"));
    }
    Ok(())
}
