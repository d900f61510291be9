//! Plans that join a running container: one more process, or a descriptor opened inside.

use super::builder::{Arg, Builder, Compiled, call};
use super::facts::Need;
use super::process::{ProcessPlan, need};
use super::sysctl;
use crate::proto::{section, slot};

/// What joining needs to know about the container.
pub(crate) struct Joining {
    /// CLONE_NEW* of the namespaces that are the container's own.
    pub namespaces: u64,
    pub group_dir: bool,
    pub group_tasks: usize,
    /// The ids of whoever set the container up.
    pub root: (u32, u32),
}

impl Joining {
    fn prepare(&self, b: &mut Builder, needs: &mut Vec<Need>) {
        b.section(section::PREPARE);
        b.field("cgroup");
        if self.group_dir {
            b.cgroup_slot = Some(need(needs, Need::GroupDir));
        }
        let zero = b.text("0");
        for i in 0..self.group_tasks {
            let tasks = need(needs, Need::GroupTasks(i));
            b.op(call::WRITE, [Arg::Slot(tasks), zero, 1.into()]);
        }
        b.field("namespaces");
        if self.namespaces != 0 {
            b.op(call::SETNS, [Arg::Slot(slot::INIT as u16), self.namespaces.into()]).path("pid 1 of the container");
        }
    }
}

impl Joining {
    /// The ids of the container's root, with all rights in its user namespace.
    fn become_root(&self, b: &mut Builder, may_setgroups: bool) {
        if may_setgroups {
            b.op(call::SETGROUPS, [0.into(), 0.into()]);
        }
        let (uid, gid) = self.root;
        b.op(call::SETRESGID, [gid.into(), gid.into(), gid.into()]);
        b.op(call::SETRESUID, [uid.into(), uid.into(), uid.into()]);
    }
}

/// One more process in a running container.
pub(crate) fn process(joining: &Joining, process: &ProcessPlan<'_>) -> (Compiled, Vec<Need>) {
    let mut b = Builder::new();
    let mut needs = Vec::new();
    joining.prepare(&mut b, &mut needs);
    process.write(&mut b, &mut needs);
    (b.build(), needs)
}

/// Gives the container's private tmpfs another size or number of inodes: only its own user namespace may. The mount at /dev is
/// of that tmpfs, and its root is its own, which fspick(2) wants; nobody inside can mount anything over it.
pub(crate) fn resize_tmpfs(joining: &Joining, options: &[(&'static str, String)]) -> (Compiled, Vec<Need>) {
    let mut b = Builder::new();
    let mut needs = Vec::new();
    joining.prepare(&mut b, &mut needs);
    b.section(section::PAYLOAD);
    b.field("disk");
    let path = b.text("/dev");
    let context = b.op(call::FSPICK, [libc::AT_FDCWD.into(), path, FSPICK_CLOEXEC.into()]).path("/dev").keep();
    configure(&mut b, context, options);
    (b.build(), needs)
}

/// Gives a file system of the container other options. The request brings it, its root open, in the place of the first stream:
/// what a path inside leads to, the container could have changed.
pub(crate) fn reconfigure(joining: &Joining, field: &str, options: &[(&str, String)]) -> (Compiled, Vec<Need>) {
    const EMPTY_PATH: i32 = 8;
    let mut b = Builder::new();
    let mut needs = Vec::new();
    joining.prepare(&mut b, &mut needs);
    b.section(section::PAYLOAD);
    b.field(field);
    let root = need(&mut needs, Need::Stream(0));
    let empty = b.text("");
    let flags = FSPICK_CLOEXEC | EMPTY_PATH;
    let context = b.op(call::FSPICK, [Arg::Slot(root), empty, flags.into()]).keep();
    configure(&mut b, context, options);
    (b.build(), needs)
}

const FSPICK_CLOEXEC: i32 = 1;

/// Sets options of a file system that is in use, and has them take effect.
fn configure(b: &mut Builder, context: u16, options: &[(&str, String)]) {
    const SET_STRING: i32 = 1;
    const CMD_RECONFIGURE: i32 = 7;
    for (key, value) in options {
        let shown = format!("{key}={value}");
        let (key, value) = (b.text(key), b.text(value));
        b.op(call::FSCONFIG, [Arg::Slot(context), SET_STRING.into(), key, value, 0.into()]).path(shown);
    }
    let zero = || Arg::Imm(0);
    b.op(call::FSCONFIG, [Arg::Slot(context), CMD_RECONFIGURE.into(), zero(), zero(), zero()]).path("reconfigure");
}

/// Changes kernel parameters of the container's namespaces: name in the spec, path below /proc/sys, value. All are opened, and
/// what they were noted, before the first is written. The keeper's /proc serves: inside there may be none, or a masked one.
pub(crate) fn set_sysctls(
    joining: &Joining,
    may_setgroups: bool,
    changes: &[(String, String, String)],
) -> (Compiled, Vec<Need>) {
    sysctls(joining, may_setgroups, changes, sysctl::Parameter::set)
}

/// As [`set_sysctls`], for those that do not have their value already.
pub(crate) fn put_sysctls_back(
    joining: &Joining,
    may_setgroups: bool,
    changes: &[(String, String, String)],
) -> (Compiled, Vec<Need>) {
    sysctls(joining, may_setgroups, changes, sysctl::Parameter::put_back)
}

fn sysctls(
    joining: &Joining,
    may_setgroups: bool,
    changes: &[(String, String, String)],
    write: fn(&sysctl::Parameter, &mut Builder, &str),
) -> (Compiled, Vec<Need>) {
    let mut b = Builder::new();
    let mut needs = Vec::new();
    joining.prepare(&mut b, &mut needs);
    b.section(section::PAYLOAD);
    b.field("sysctls");
    joining.become_root(&mut b, may_setgroups);
    let mut open = Vec::new();
    for (name, path, value) in changes {
        b.field(format!("sysctls[{name:?}]"));
        open.push((b.field.clone(), sysctl::open(&mut b, slot::PROC as u16, path), value));
    }
    for (field, parameter, value) in open {
        b.field(field);
        write(&parameter, &mut b, value);
    }
    (b.build(), needs)
}

/// Opens a file as the container sees it, with its root's rights, and sends the descriptor.
pub(crate) fn open(joining: &Joining, path: &[u8], flags: i32, may_setgroups: bool) -> (Compiled, Vec<Need>) {
    let mut b = Builder::new();
    let mut needs = Vec::new();
    joining.prepare(&mut b, &mut needs);
    b.section(section::PAYLOAD);
    b.field("open");
    joining.become_root(&mut b, may_setgroups);
    const RESOLVE_NO_MAGICLINKS: u64 = 2;
    const RESOLVE_IN_ROOT: u64 = 16;
    let how = b.words(&[(flags | libc::O_CLOEXEC) as u64, 0, RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS]);
    let (slash, text) = (b.text("/"), b.text(path));
    let flags = libc::O_PATH | libc::O_DIRECTORY | libc::O_CLOEXEC;
    let root = b.op(call::OPENAT, [libc::AT_FDCWD.into(), slash, flags.into()]).path("/").keep();
    let shown = String::from_utf8_lossy(path).into_owned();
    let file = b.op(call::OPENAT2, [Arg::Slot(root), text, how, 24.into()]).path(shown).keep();
    b.op(call::SEND_FD, [Arg::Slot(file), 0.into()]);
    (b.build(), needs)
}
