//! Plans that join a running container: one more process.

use super::builder::{Arg, Builder, Compiled, build, call};
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
    pub(super) fn prepare(&self, b: &mut Builder, needs: &mut Vec<Need>) {
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

    /// The ids of the container's root, with all rights in its user namespace.
    pub(super) fn become_root(&self, b: &mut Builder, may_setgroups: bool) {
        if may_setgroups {
            b.op(call::SETGROUPS, [0.into(), 0.into()]);
        }
        let (uid, gid) = self.root;
        b.op(call::SETRESGID, [gid.into(), gid.into(), gid.into()]);
        b.op(call::SETRESUID, [uid.into(), uid.into(), uid.into()]);
        // Another user is what fs.suid_dumpable says.
        b.op(call::PRCTL, [libc::PR_SET_DUMPABLE.into(), 0.into()]);
    }
}

/// One more process in a running container, with a number of its own in the container's pid namespace if one is asked for.
pub(crate) fn process(joining: &Joining, process: &ProcessPlan<'_>, set_tid: Option<i32>) -> (Compiled, Vec<Need>) {
    build(|mut b| {
        b.set_tid = set_tid;
        let mut needs = Vec::new();
        joining.prepare(&mut b, &mut needs);
        process.write(&mut b, &mut needs);
        (b, needs)
    })
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
