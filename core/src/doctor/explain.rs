//! Why this machine refuses something, and what to do about it: from the errno and from what can be read.

use super::facts::{self, CAP_SETFCAP, Caller, KINDS, Kind};
use crate::sys::rights::CAP_SYS_ADMIN;

/// The reason, and the remedy if there is one.
pub(super) type Reason = (String, Option<String>);

const APPARMOR: &str = "kernel.apparmor_restrict_unprivileged_userns";
const DEBIAN: &str = "kernel.unprivileged_userns_clone";

fn reason(why: impl Into<String>, remedy: impl Into<String>) -> Reason {
    (why.into(), Some(remedy.into()))
}

fn is(sysctl: &str, value: &str) -> bool {
    facts::sysctl(sysctl).as_deref() == Some(value)
}

pub(super) fn errno_text(errno: i32) -> String {
    let words = nix::errno::Errno::from_raw(errno).desc();
    match crate::error::errno_name(errno) {
        Some(name) => format!("{words} ({name})"),
        None => format!("errno {errno}"),
    }
}

/// Who says no when the kernel itself would say yes.
fn refused_by_policy(caller: &Caller) -> Option<Reason> {
    if caller.filtered {
        return Some(reason(
            "a seccomp filter of this process (a container manager's, systemd's or a sandbox's) refuses it",
            "run this program without that filter, or under a profile that allows clone, unshare, setns and the mount \
             calls (Docker and Podman: --security-opt seccomp=unconfined)",
        ));
    }
    if let Some(profile) = facts::apparmor_profile() {
        return Some(reason(
            format!("the AppArmor profile {profile:?} confines this process"),
            "allow it in the profile (`userns,`, `mount,`, `capability sys_admin,`), or run unconfined (Docker: \
             --security-opt apparmor=unconfined)",
        ));
    }
    let modules = facts::security_modules()?;
    let others = modules.split(',').find(|m| matches!(*m, "selinux" | "smack" | "tomoyo" | "bpf"))?;
    Some(reason(
        format!("a security module may refuse it (active: {modules})"),
        format!("look for a denial by {others} in the audit log (`journalctl -k`, `ausearch -m avc`)"),
    ))
}

/// Restrictions on user namespaces of those who have no privileges to lose.
fn restricted_user_namespaces(caller: &Caller) -> Option<Reason> {
    if caller.has(CAP_SYS_ADMIN) {
        return None;
    }
    if is(DEBIAN, "0") {
        return Some(reason(format!("{DEBIAN} is 0"), format!("as root: sysctl -w {DEBIAN}=1")));
    }
    if is(APPARMOR, "1") {
        return Some(reason(
            format!("{APPARMOR} is 1: a program without a profile has no capabilities in its user namespaces"),
            format!("as root: an AppArmor profile with `userns,` for the program, or sysctl -w {APPARMOR}=0"),
        ));
    }
    None
}

/// A namespace of this kind was refused.
pub(super) fn namespace(kind: &Kind, errno: i32, caller: &Caller) -> Reason {
    let name = kind.name;
    match errno {
        libc::ENOSPC | libc::EUSERS => {
            let limit = format!("user.max_{}_namespaces", kind.sysctl);
            match facts::sysctl(&limit) {
                Some(value) if value == "0" => {
                    reason(format!("{limit} is 0"), format!("as root: sysctl -w {limit}=65536"))
                }
                value => reason(
                    format!(
                        "the limit {limit} ({}) is reached here or in a user namespace above, or they are nested 32 deep",
                        value.as_deref().unwrap_or("unknown")
                    ),
                    format!("end some, or as root: a larger {limit}"),
                ),
            }
        }
        libc::EINVAL if !std::path::Path::new("/proc/self/ns").join(name).exists() => {
            reason(format!("this kernel has no {name} namespaces"), format!("a kernel with {}=y", kind.option))
        }
        libc::EPERM | libc::EACCES if name == "user" => restricted_user_namespaces(caller).unwrap_or_else(|| {
            if caller.chrooted {
                return reason("this process is in a chroot", "run it outside of the chroot, or pivot_root instead");
            }
            refused_by_policy(caller).unwrap_or_else(|| {
                reason(
                    "the kernel refuses it: this process's own ids may not be mapped in its user namespace",
                    "run as a user that /proc/self/uid_map and gid_map map",
                )
            })
        }),
        libc::EPERM | libc::EACCES => refused_by_policy(caller)
            .or_else(|| restricted_user_namespaces(caller))
            .unwrap_or_else(|| reason("it needs CAP_SYS_ADMIN", "run as root, or allow user namespaces to this user")),
        libc::ENOSYS => no_such_call("unshare", caller),
        libc::EAGAIN => too_many_processes(),
        _ => (errno_text(errno), None),
    }
}

/// The ids of a new user namespace could not be mapped.
pub(super) fn id_map(errno: i32, caller: &Caller) -> Reason {
    if !caller.dumpable && errno == libc::EACCES {
        return reason(
            "this process is not dumpable, so its /proc files are root's",
            "no harm: the keeper is a program of its own. To see more here, run doctor from another process",
        );
    }
    match errno {
        libc::EPERM | libc::EACCES => restricted_user_namespaces(caller)
            .or_else(|| {
                let lacks = caller.uid == 0 && !caller.has(CAP_SETFCAP);
                lacks.then(|| {
                    reason(
                        "root without CAP_SETFCAP may not map its own id 0 (since Linux 5.12)",
                        "add CAP_SETFCAP to this process, or run as another user",
                    )
                })
            })
            .or_else(|| refused_by_policy(caller))
            .unwrap_or_else(|| {
                reason(
                    "the ids may not be mapped by this caller",
                    "root needs CAP_SETUID and CAP_SETGID; other users need newuidmap, newgidmap and a line of theirs in \
                     /etc/subuid and /etc/subgid",
                )
            }),
        libc::EINVAL => reason(
            "the ids overlap, or are not mapped in this process's own user namespace",
            "give ids that /proc/self/uid_map and gid_map have",
        ),
        _ => (errno_text(errno), None),
    }
}

/// A file system could not be mounted in the namespaces of a container.
pub(super) fn mount(file_system: &str, errno: i32, caller: &Caller) -> Reason {
    let root = match file_system {
        "proc" => "/proc",
        "sysfs" => "/sys",
        _ => "",
    };
    match errno {
        libc::EPERM if !root.is_empty() && !facts::mounts_below(root).is_empty() => {
            let covers = facts::mounts_below(root);
            let more = if covers.len() > 3 { format!(" and {} more", covers.len() - 3) } else { String::new() };
            reason(
                format!(
                    "parts of {root} are over-mounted ({}{more}), and the kernel makes no new {file_system} that would show \
                     them",
                    covers[..covers.len().min(3)].join(", ")
                ),
                format!(
                    "this is a container: let it have an unmasked {root} somewhere (Docker: --security-opt \
                     systempaths=unconfined)"
                ),
            )
        }
        libc::EPERM | libc::EACCES => restricted_user_namespaces(caller)
            .or_else(|| refused_by_policy(caller))
            .unwrap_or_else(|| (format!("the kernel refuses {file_system} here: {}", errno_text(errno)), None)),
        libc::ENODEV => reason(
            format!("this kernel has no {file_system} (or its module is not loaded)"),
            format!("as root: modprobe {file_system}"),
        ),
        libc::ENOSYS => no_such_call("fsopen", caller),
        libc::ENOSPC => reason("the limit fs.mount-max is reached", "as root: a larger fs.mount-max"),
        _ => (errno_text(errno), None),
    }
}

/// ENOSYS: the kernel is too old, or a filter pretends that it is.
pub(super) fn no_such_call(call: &str, caller: &Caller) -> Reason {
    let since = match call {
        "clone3" => (5, 3),
        "openat2" => (5, 6),
        "CLONE_INTO_CGROUP" => (5, 7),
        "mount_setattr" => (5, 12),
        "fsopen" | "open_tree" | "move_mount" | "fsmount" | "fsconfig" => (5, 2),
        "pidfd_open" => (5, 3),
        "landlock" => (5, 13),
        _ => (0, 0),
    };
    let release = super::release();
    let new_enough = facts::version(&release).is_some_and(|v| v >= since);
    if caller.filtered && new_enough {
        return reason(
            format!("a seccomp filter of this process says that Linux {release} has no {call}"),
            "run this program without that filter, or under a newer profile (Docker since 20.10.10 and Podman allow it \
             to containers with CAP_SYS_ADMIN, or use --security-opt seccomp=unconfined)",
        );
    }
    let (major, minor) = since;
    reason(
        format!("Linux {release} has no {call}"),
        if since == (0, 0) { "a newer kernel".to_owned() } else { format!("Linux {major}.{minor} or later") },
    )
}

fn too_deep() -> Reason {
    reason(
        "user namespaces are nested 32 deep, or a limit user.max_*_namespaces is reached in one of those that this program is in",
        "start it from a level above, or end some",
    )
}

fn too_many_processes() -> Reason {
    reason(
        "no more processes are allowed: by RLIMIT_NPROC, by the pids controller of this process's control group, or by \
         kernel.pid_max",
        "end some, or raise that limit (ulimit -u; pids.max, TasksMax=)",
    )
}

/// What a failed step of a start means on this machine: `step` is the system call, with a few words around it if need be
/// (`clone3`, `write uid_map`, `fsmount proc`, `mount overlay`).
pub(crate) fn explain(step: &str, errno: i32) -> Option<String> {
    let caller = Caller::now();
    let has = |words: &[&str]| words.iter().any(|word| step.contains(word));
    let found = if has(&["clone", "unshare"]) {
        match errno {
            libc::ENOSYS => Some(no_such_call(if has(&["clone3"]) { "clone3" } else { "unshare" }, &caller)),
            libc::EAGAIN => Some(too_many_processes()),
            // Which kind it was, the kernel does not say: the one that is refused when tried alone.
            libc::EPERM | libc::EACCES | libc::ENOSPC | libc::EUSERS | libc::EINVAL => {
                let alone = KINDS.iter().find_map(|kind| {
                    let seen = super::try_namespace(kind);
                    (seen.inside == Some(errno)).then(|| {
                        let (why, remedy) = namespace(kind, errno, &caller);
                        (format!("{} namespace: {why}", kind.name), remedy)
                    })
                });
                // The container's are made one user namespace further down.
                alone.or_else(|| matches!(errno, libc::ENOSPC | libc::EUSERS).then(too_deep))
            }
            _ => None,
        }
    } else if has(&["SECCOMP_FILTER_FLAG_NEW_LISTENER"]) {
        match errno {
            libc::EBUSY => Some(reason(
                "a filter around this program has a listener already, and the kernel takes one of them",
                "start this program outside of the container whose calls are asked about, or leave out the action \"notify\"",
            )),
            libc::EACCES => {
                Some(reason("without no_new_privs it takes CAP_SYS_ADMIN", "leave no_new_privs at its default"))
            }
            libc::EINVAL | libc::ENOSYS => {
                Some(reason("it takes Linux 5.14 with CONFIG_SECCOMP_FILTER", "leave out the action \"notify\""))
            }
            _ => None,
        }
    } else if has(&["uid_map", "gid_map", "setgroups", "newuidmap", "newgidmap", "id map"]) {
        matches!(errno, libc::EPERM | libc::EACCES | libc::EINVAL).then(|| id_map(errno, &caller))
    } else if has(&["memfd", "execveat"]) && errno != libc::ENOSYS {
        matches!(errno, libc::EPERM | libc::EACCES).then(|| memfd(errno, &caller))
    } else if has(&["mount_setattr"]) && matches!(errno, libc::EINVAL | libc::EPERM) {
        refused_by_policy(&caller).filter(|_| errno == libc::EPERM).or_else(|| {
            Some(reason(
                "this file system cannot be idmapped, or it belongs to another user namespace",
                "put it on ext4, xfs, btrfs or tmpfs (Linux 6.3), or set idmap to \"host\"",
            ))
        })
    } else if has(&["mount", "fsopen", "fsconfig", "open_tree", "overlay", "proc", "sysfs"]) {
        let file_system = ["overlay", "proc", "sysfs", "mqueue", "devpts", "tmpfs"].into_iter().find(|f| has(&[f]));
        match errno {
            // The caller's own path: nobody's policy but the file's mode.
            libc::EACCES if has(&["open_tree", "move_mount"]) => None,
            libc::ENOSYS => {
                let calls = ["mount_setattr", "move_mount", "open_tree", "fsconfig", "fsmount", "fsopen"];
                Some(no_such_call(calls.into_iter().find(|c| has(&[c])).unwrap_or("fsopen"), &caller))
            }
            libc::EPERM | libc::EACCES | libc::ENODEV | libc::ENOSPC => {
                Some(mount(file_system.unwrap_or("the mount"), errno, &caller)).filter(|(_, remedy)| remedy.is_some())
            }
            _ => None,
        }
    } else if errno == libc::ENOSYS {
        Some(no_such_call(step.split(' ').next().unwrap_or(step), &caller))
    } else {
        None
    };
    found.map(|(why, remedy)| match remedy {
        Some(remedy) => format!("{why}: {remedy}"),
        None => why,
    })
}

/// A file in memory cannot be executed.
pub(super) fn memfd(errno: i32, caller: &Caller) -> Reason {
    if is("vm.memfd_noexec", "2") {
        return reason(
            "vm.memfd_noexec is 2: nothing in memory may be executed",
            "as root: sysctl -w vm.memfd_noexec=1",
        );
    }
    refused_by_policy(caller).unwrap_or_else(|| (errno_text(errno), None))
}
