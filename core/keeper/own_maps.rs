//! Mounts whose ids are not the container's: they are idmapped with user namespaces that are there for nothing else.

use crate::birth::fd;
use crate::interp::{Plan, send_record};
use crate::nr;
use crate::proto::{MAGIC, OwnMapEntry, Record, Span, keeper_step, own_map, record, slot};
use crate::sys::{self, PollFd};

/// Makes the user namespaces that the plan says, and idmaps with them or sends them to who asks. After a failure: the step with the
/// entry's index, and the errno.
pub fn make(plan: &Plan) -> Result<(), (u32, i32)> {
    let (mut user, mut of) = (-1, OwnMapEntry::default());
    let mut done = Ok(());
    for i in 0..plan.own_map_count() {
        let entry = plan.own_map(i);
        if user < 0 || (entry.uid_map, entry.gid_map) != (of.uid_map, of.gid_map) {
            sys::close(user);
            (user, of) = (-1, entry);
            match namespace(plan, &entry) {
                Ok(made) => user = made,
                Err(failed) => done = Err(failed),
            }
        }
        done = done.and_then(|()| one(plan, &entry, user)).map_err(|(step, result)| (step | entry.index << 8, result));
        if done.is_err() {
            break;
        }
    }
    sys::close(user);
    done.map_err(|(step, result)| (step, -result as i32))
}

/// A user namespace with the maps of an entry. It lives as long as its descriptor.
fn namespace(plan: &Plan, entry: &OwnMapEntry) -> Result<i32, (u32, i64)> {
    let args = sys::CloneArgs { flags: nr::CLONE_NEWUSER, exit_signal: nr::SIGCHLD, ..Default::default() };
    let child = sys::clone3(args);
    if child == 0 {
        wait_for_the_end()
    }
    if child < 0 {
        return Err((keeper_step::OWN_MAP, child));
    }
    let made = mapped(plan, child as i32, entry);
    sys::kill(child as i32, nr::SIGKILL);
    const WALL: u32 = 0x4000_0000;
    while sys::wait4(child as i32, &mut 0, WALL, None) == -nr::EINTR as i64 {}
    made
}

/// Killed, or at an end with the keeper.
fn wait_for_the_end() -> ! {
    sys::close(fd::LIFELINE_WRITE);
    let mut poll = [PollFd { fd: fd::LIFELINE, events: nr::POLLIN, revents: 0 }];
    loop {
        if sys::poll(&mut poll, -1) != -nr::EINTR as i64 {
            sys::exit(0)
        }
    }
}

fn mapped(plan: &Plan, pid: i32, entry: &OwnMapEntry) -> Result<i32, (u32, i64)> {
    write_map(plan, pid, b"/uid_map", entry.uid_map)?;
    write_map(plan, pid, b"/gid_map", entry.gid_map)?;
    open(pid, b"/ns/user", nr::O_RDONLY)
}

fn one(plan: &Plan, entry: &OwnMapEntry, user: i32) -> Result<(), (u32, i64)> {
    if entry.flags & own_map::SEND != 0 {
        let record = Record { magic: MAGIC, kind: record::FD, op: entry.index, ..Record::default() };
        let sent = send_record(plan.slot(slot::CHANNEL) as i32, &record, user);
        return if sent < 0 { Err((keeper_step::OWN_MAP, sent)) } else { Ok(()) };
    }
    let attr = [nr::MOUNT_ATTR_IDMAP, 0, 0, user as u64];
    let recursive = if entry.flags & own_map::RECURSIVE != 0 { nr::AT_RECURSIVE } else { 0 };
    let result = sys::mount_setattr(plan.slot(entry.slot) as i32, recursive, &attr);
    if result < 0 { Err((keeper_step::OWN_IDMAP, result)) } else { Ok(()) }
}

fn open(pid: i32, name: &[u8], flags: u64) -> Result<i32, (u32, i64)> {
    let mut path = [0u8; 64];
    sys::proc_path(&mut path, pid, name);
    let file = sys::open(fd::PROC, sys::text(&path), flags);
    if file < 0 { Err((keeper_step::OWN_MAP, file)) } else { Ok(file as i32) }
}

fn write_map(plan: &Plan, pid: i32, name: &[u8], map: Span) -> Result<(), (u32, i64)> {
    let file = open(pid, name, nr::O_WRONLY)?;
    // One write: the kernel takes a map only whole.
    // SAFETY: it writes to the file alone.
    let result = sys::write(file, unsafe { plan.bytes(map) });
    sys::close(file);
    if result < 0 { Err((keeper_step::OWN_MAP, result)) } else { Ok(()) }
}
