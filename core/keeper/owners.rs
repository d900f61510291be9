//! Mounts whose ids are not the container's: each is idmapped with a user namespace of its own.

use crate::birth::fd;
use crate::interp::Plan;
use crate::nr;
use crate::proto::{OwnerEntry, Span, keeper_step};
use crate::sys::{self, PollFd, sc};

/// Idmaps what the plan says. After a failure: the step with the entry's index, and the errno.
pub fn idmap(plan: &Plan) -> Result<(), (u32, i32)> {
    for index in 0..plan.owners() {
        let entry = plan.owner(index);
        one(plan, &entry).map_err(|(step, result)| (step | index << 8, -result as i32))?;
    }
    Ok(())
}

fn one(plan: &Plan, entry: &OwnerEntry) -> Result<(), (u32, i64)> {
    let args = sys::CloneArgs { flags: nr::CLONE_NEWUSER, exit_signal: nr::SIGCHLD as u64, ..Default::default() };
    let child = sys::clone3(&args);
    if child == 0 {
        wait_for_the_end()
    }
    if child < 0 {
        return Err((keeper_step::OWNER_MAP, child));
    }
    let done = with_namespace_of(plan, child as i32, entry);
    sys::kill(child as i32, nr::SIGKILL);
    const WALL: u64 = 0x4000_0000;
    while sc!(nr::WAIT4, child, 0, WALL, 0) == -nr::EINTR as i64 {}
    done
}

/// The namespace lives as long as this process: killed, or at an end with the keeper.
fn wait_for_the_end() -> ! {
    sys::close(fd::LIFELINE_WRITE);
    let mut poll = [PollFd { fd: fd::LIFELINE, events: nr::POLLIN, revents: 0 }];
    loop {
        if sys::poll(&mut poll, -1) != -nr::EINTR as i64 {
            sys::exit(0)
        }
    }
}

fn with_namespace_of(plan: &Plan, pid: i32, entry: &OwnerEntry) -> Result<(), (u32, i64)> {
    write_map(plan, pid, b"/uid_map", entry.uid_map)?;
    write_map(plan, pid, b"/gid_map", entry.gid_map)?;
    let user = open(pid, b"/ns/user", nr::O_RDONLY)?;
    // struct mount_attr: attr_set, attr_clr, propagation, userns_fd.
    let attr = [nr::MOUNT_ATTR_IDMAP, 0, 0, user as u64];
    let recursive = if entry.recursive != 0 { nr::AT_RECURSIVE } else { 0 };
    let mount = plan.slot(entry.slot);
    let result = sc!(nr::MOUNT_SETATTR, mount, c"".as_ptr(), nr::AT_EMPTY_PATH | recursive, attr.as_ptr(), 32);
    sys::close(user);
    if result < 0 { Err((keeper_step::OWNER, result)) } else { Ok(()) }
}

fn open(pid: i32, name: &[u8], flags: u64) -> Result<i32, (u32, i64)> {
    let mut path = [0u8; 64];
    sys::proc_path(&mut path, pid, name);
    let file = sc!(nr::OPENAT, fd::PROC, path.as_ptr(), flags | nr::O_CLOEXEC);
    if file < 0 { Err((keeper_step::OWNER_MAP, file)) } else { Ok(file as i32) }
}

fn write_map(plan: &Plan, pid: i32, name: &[u8], map: Span) -> Result<(), (u32, i64)> {
    let file = open(pid, name, nr::O_WRONLY)?;
    let (data, len) = plan.bytes(map);
    // One write: the kernel takes a map only whole.
    let result = sc!(nr::WRITE, file, data, len);
    sys::close(file);
    if result < 0 { Err((keeper_step::OWNER_MAP, result)) } else { Ok(()) }
}
