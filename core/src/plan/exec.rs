//! Plans that join a running container: one more process.

use super::builder::{Arg, Builder, Compiled, call};
use super::facts::Need;
use super::process::{ProcessPlan, need};
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
}

/// One more process in a running container.
pub(crate) fn process(joining: &Joining, process: &ProcessPlan<'_>) -> (Compiled, Vec<Need>) {
    let mut b = Builder::new();
    let mut needs = Vec::new();
    joining.prepare(&mut b, &mut needs);
    process.write(&mut b, &mut needs);
    (b.build(), needs)
}

/// Gives the container's private tmpfs another size or number of inodes: only its own user namespace may. Stream 0 is the mount
/// that the container has at /dev: it is of that tmpfs, and its root is its own, which fspick(2) wants. (By its path, it could
/// be whatever a process with CAP_SYS_ADMIN has mounted there.)
pub(crate) fn resize_tmpfs(joining: &Joining, options: &[(&'static str, String)]) -> (Compiled, Vec<Need>) {
    const CLOEXEC: i32 = 1;
    const EMPTY_PATH: i32 = 8;
    const SET_STRING: i32 = 1;
    const CMD_RECONFIGURE: i32 = 7;
    let mut b = Builder::new();
    let mut needs = Vec::new();
    joining.prepare(&mut b, &mut needs);
    b.section(section::PAYLOAD);
    b.field("disk");
    let (dev, path) = (need(&mut needs, Need::Stream(0)), b.text(""));
    let flags = CLOEXEC | EMPTY_PATH;
    let context = b.op(call::FSPICK, [Arg::Slot(dev), path, flags.into()]).path("/dev").keep();
    for (key, value) in options {
        let (key, value) = (b.text(key), b.text(value));
        b.op(call::FSCONFIG, [Arg::Slot(context), SET_STRING.into(), key, value, 0.into()]).path("tmpfs");
    }
    let zero = || Arg::Imm(0);
    b.op(call::FSCONFIG, [Arg::Slot(context), CMD_RECONFIGURE.into(), zero(), zero(), zero()]).path("tmpfs");
    (b.build(), needs)
}
