//! What the library and the keeper say to each other, and the form of a plan. Compiled into both.
//!
//! # Transport
//!
//! One `SOCK_SEQPACKET` socket pair between a host process and its keeper carries [`Request`]s with descriptors
//! (`SCM_RIGHTS`). Answers do not come back on it: every request brings a *channel* (one end of another socket pair, or a
//! pipe for the status of a container's main process) on which [`Record`]s arrive. So any number of host threads can ask
//! at once without a lock or a dispatching thread, and an answer can be polled like any descriptor.
//!
//! | request | descriptors | records on the channel |
//! |---|---|---|
//! | `HELLO` | channel, host pidfd or -, exec lock or -, claims | `READY` or `FAILED` |
//! | `SHARE` | one directory, kept for undo plans; channel | `KEPT` or `REFUSED` |
//! | `START` | channel, plan, status pipe, then the plan's slots | `CREATED` + pidfd of pid 1, any number of `LEFT_OUT`, `STARTED` + pidfd of the main process, then `EMPTY`; or `FAILED`, then `ENDED` |
//! | `EXEC`  | channel, plan, then the plan's slots | `STARTED` + pidfd or `FAILED`, `EXITED` |
//! | `CALL`  | channel, plan, then the plan's slots | what the plan sends, then `ENDED` or `FAILED` |
//! | `RELAY` | channel, plan, then the plan's slots | `STARTED` or `FAILED`; it ends with the container |
//! | `KILL`  | none | none (the container's `EMPTY` follows) |
//! | `RELEASE` | none | `ENDED`: the undo plan has run, at once or as soon as the container is empty |
//! | `KEEP` | none | `KEPT` on the container's channel: it is recorded and outlives its host from now on |
//! | `TIMES` | `cpu.stat` of the container's group, or none | none: its time limits are these from now on |
//! | `HOLD` | none | none: the keeper does not go for want of containers, until it is said that it may |
//! | `LOG` | channel | `FD` + the log of a detached container, /dev/null when it has none |
//! | `LEAVE` | none | none: the keeper goes after its last container |
//!
//! The main process's `EXITED` record is written to the status pipe by pid 1 of the container (its parent), or by the
//! keeper when the payload is pid 1 itself. End of file without that record means that the container was killed.
//!
//! Between `EMPTY` and `RELEASE` a container has no processes any more, but its control groups are there for a last look at
//! what it used, unless its `RELEASE` came before. A detached container, and one whose host has ended, is undone at once.
//!
//! Every request is checked by the keeper (size, magic, number of descriptors, the asking thread's credentials, all offsets
//! of the plan); every record is checked by the library (size, kind). Integers are native: both ends are the same build.
//! `KILL`, `RELEASE`, `KEEP`, `TIMES`, `HOLD` and `LEAVE` lend no authority, they only end or keep what the host has started: the kernel's word
//! that the host sent them is enough. So a host may give up its privileges, or end right after it has asked.

pub const MAGIC: u32 = 0x5246_4b31;
/// Descriptors of one message: SCM_MAX_FD is 253.
pub const MAX_FDS: usize = 250;
/// Descriptors of one request. Of more than fit in its message the last one is a socket ([`MORE`]), in which the others wait, in messages
/// of one byte.
pub const MAX_GIVEN: usize = 8192;
/// A flag of `START`, `EXEC`, `CALL` and `RELAY`.
pub const MORE: u32 = 1;

pub mod request {
    pub const HELLO: u32 = 1;
    pub const SHARE: u32 = 2;
    pub const START: u32 = 3;
    pub const EXEC: u32 = 4;
    pub const CALL: u32 = 5;
    pub const KILL: u32 = 6;
    pub const LEAVE: u32 = 7;
    pub const RELEASE: u32 = 8;
    pub const KEEP: u32 = 9;
    pub const TIMES: u32 = 10;
    pub const HOLD: u32 = 11;
    pub const RELAY: u32 = 12;
    pub const LOG: u32 = 13;
}

/// Flags of `HELLO`.
pub mod hello {
    /// The keeper has the host's privileges and makes itself a mount namespace of its own.
    pub const PRIVILEGED: u32 = 1;
    /// The keeper belongs to one detached container: it does not follow the host.
    pub const DETACHED: u32 = 2;
    /// Map ids with newuidmap and newgidmap, or by writing the maps; otherwise one id is mapped without help.
    pub const SUBIDS: u32 = 8;
}

/// `HELLO`'s text, in place of a helper's path: the next word is the map itself. (Paths begin with a slash.)
pub const DIRECT_MAP: u8 = b'=';

#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Request {
    pub magic: u32,
    pub kind: u32,
    /// The asking thread: its credentials are compared with the keeper's.
    pub tid: i32,
    pub nfds: u32,
    pub flags: u32,
    /// START: deadline; 0 is none.
    pub timeout_ms: u32,
    /// The key of the container, chosen by the host, unique for this keeper. SHARE: the index. HELLO: the inode of the host's
    /// pid namespace.
    pub key: u64,
    /// KILL: the signal. HELLO: the host's pid. HOLD: 1, and -1 for its end.
    pub value: i32,
    /// START and TIMES: how many processors there are, which is how fast processor time can pass.
    pub cpus: u32,
    /// START and TIMES: milliseconds after the start at which the container is ended; 0 is none.
    pub wall_ms: u64,
    /// START and TIMES: microseconds of processor time after which it is ended; 0 is none.
    pub cpu_usec: u64,
    /// START: the key of the container whose end ends this one too; 0 is none.
    pub pod: u64,
}

/// Which time limit ended a container; in `Record::limit`.
pub mod limit {
    pub const NONE: u32 = 0;
    pub const WALL_TIME: u32 = 1;
    pub const CPU_TIME: u32 = 2;
}

pub mod record {
    pub const READY: u32 = 1;
    pub const CREATED: u32 = 2;
    pub const STARTED: u32 = 3;
    pub const FAILED: u32 = 4;
    pub const EXITED: u32 = 5;
    pub const ENDED: u32 = 6;
    /// A descriptor made by the plan comes with it; `op` says which `SendFd` sent it.
    pub const FD: u32 = 7;
    /// The asking thread's credentials are not the keeper's: start another keeper from that thread.
    pub const REFUSED: u32 = 8;
    /// START: no process of the container is left.
    pub const EMPTY: u32 = 9;
    /// The answer to KEEP, and to SHARE. Without it the host could not tell whether its container will outlive it.
    pub const KEPT: u32 = 10;
    /// Operation `op` of `section` says that its part could not be had, and that the start goes on without it.
    pub const LEFT_OUT: u32 = 11;
    /// A process that is about to execute asks for attribute `op` of the plan, for which it has not the rights; its pidfd comes
    /// with it. It waits for the errno, four bytes, on the channel.
    pub const ASK: u32 = 12;
}

/// Extended attributes with which the library marks a directory that it made for control groups; the value is the
/// directory's name. v2 has the first, v1 the other one.
pub const MADE: [&core::ffi::CStr; 2] = [c"user.ringfence", c"trusted.ringfence"];

/// Steps of the keeper itself that can fail; in `Record::op` when `section` is `section::KEEPER`.
pub mod keeper_step {
    pub const BAD_REQUEST: u32 = 1;
    pub const MAP_PLAN: u32 = 2;
    pub const CLONE: u32 = 3;
    pub const UID_MAP: u32 = 4;
    pub const GID_MAP: u32 = 5;
    pub const SETGROUPS: u32 = 6;
    pub const IDMAP: u32 = 7;
    pub const UNSHARE_USER: u32 = 8;
    pub const UNSHARE_MNT: u32 = 9;
    /// `Record::status` is the number of the system call.
    pub const TINY_ROOT: u32 = 10;
    pub const MAPPER: u32 = 11;
    pub const REEXEC: u32 = 12;
    pub const NO_CONTAINER: u32 = 13;
    pub const TABLE_FULL: u32 = 14;
    pub const KILLED: u32 = 16;
    pub const PAYLOAD_CLONE: u32 = 19;
    pub const PROC: u32 = 20;
    pub const CLOSE_RANGE: u32 = 21;
    /// The counter of processor time, for `cpu_time`.
    pub const CPU_STAT: u32 = 22;
    /// The descriptors that did not fit in the request.
    pub const MORE: u32 = 25;
    /// The user namespace for the ids of a mount, and its use. The index of the entry is in the bits from 8 on.
    pub const OWN_MAP: u32 = 23;
    pub const OWN_IDMAP: u32 = 24;
    /// The keeper's own session keyring.
    pub const KEYRING: u32 = 40;
}

#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Record {
    pub magic: u32,
    pub kind: u32,
    pub section: u32,
    pub op: u32,
    pub errno: i32,
    /// A wait status as wait4(2) gives it.
    pub status: i32,
    pub pid: i32,
    /// EMPTY, ENDED, and EXITED of a payload that is pid 1: the time limit that ended the container.
    pub limit: u32,
    pub user_usec: u64,
    pub system_usec: u64,
    /// Kilobytes, as in struct rusage.
    pub max_rss: u64,
    pub reserved: u64,
}

/// The parts of a plan, in the order in which they run.
pub mod section {
    /// In the keeper's child, before the container's namespaces exist: joins, time offsets, v1 control groups.
    pub const PREPARE: usize = 0;
    /// In pid 1 of the container: ids, mounts, devices, host name.
    pub const SETUP: usize = 1;
    /// In the process that becomes the payload: session, streams, limits, credentials, exec.
    pub const PAYLOAD: usize = 2;
    /// In the keeper, after the end.
    pub const UNDO: usize = 3;
    /// In a child of the keeper, after the end and before UNDO: what could block, because it waits for a disk.
    pub const LIFT: usize = 4;
    /// In the keeper, when pid 1 has ended: of a container without a pid namespace of its own, where others go on after it.
    pub const END: usize = 5;
    pub const COUNT: usize = 6;
    /// Not a part: a step of the keeper itself failed.
    pub const KEEPER: u32 = 255;
}

/// Flags of a plan.
pub mod plan_flag {
    /// A task of its own runs PREPARE and then makes pid 1 (CLONE_PARENT): for joins, time offsets and `init: false`.
    pub const STAGE: u32 = 1;
    /// pid 1 is the resident init; otherwise it executes the payload itself.
    pub const RESIDENT: u32 = 2;
    /// There is a payload.
    pub const PAYLOAD: u32 = 4;
    /// Write `deny` to setgroups before the gid map.
    pub const DENY_SETGROUPS: u32 = 8;
}

#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Span {
    pub off: u32,
    pub len: u32,
}

/// A mount descriptor that the keeper idmaps with the container's user namespace before the gate opens.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct IdmapEntry {
    pub slot: u32,
    pub recursive: u32,
    /// As the library counts them, for the error.
    pub index: u32,
    pub pad: u32,
}

/// A mount descriptor that the keeper idmaps before there is a process of the container, with a user namespace that is there for
/// nothing else. Entries with the same maps that follow each other share one.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OwnMapEntry {
    pub slot: u32,
    /// Of [`own_map`].
    pub flags: u32,
    pub uid_map: Span,
    pub gid_map: Span,
    /// As the library counts them, for the error.
    pub index: u32,
}

/// Flags of an [`OwnMapEntry`].
pub mod own_map {
    /// With what is mounted below.
    pub const RECURSIVE: u32 = 1;
    /// Nothing is idmapped here: the user namespace is sent, with the index, to whoever asks.
    pub const SEND: u32 = 2;
}

/// The front of a plan's buffer. Offsets are from the start of the buffer; all but the last group is written by the library.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Header {
    pub magic: u32,
    pub total: u32,
    pub flags: u32,
    pub nslots: u32,
    /// `i64` each.
    pub slots: u32,
    /// Slot of the v2 control group's directory for CLONE_INTO_CGROUP, or u32::MAX.
    pub cgroup_slot: u32,
    pub clone_flags: u64,
    /// START: slot of a descriptor that the keeper keeps for LIFT, or u32::MAX.
    pub kept_slot: u32,
    /// EXEC: the pid that the process is to have in its pid namespace (Linux 5.5), or 0.
    pub set_tid: i32,
    /// In ops: offset and count.
    pub sections: [Span; section::COUNT],
    pub uid_map: Span,
    pub gid_map: Span,
    /// In entries.
    pub idmaps: Span,
    /// Where there are `OwnMapEntry`s: their number as a u32, and then they. 0 is nowhere.
    pub own_maps: u32,

    // Written while it runs, by whichever process of the start is at work (one at a time).
    /// A futex: 1 when the id maps are written.
    pub gate: u32,
    /// `section << 24 | op`: where it is; for timeouts.
    pub progress: u32,
    pub fail_errno: i32,
    pub fail_section: u32,
    pub fail_op: u32,
    pub started: u32,
    /// Written by the kernel (CLONE_PARENT_SETTID), in the keeper's pid namespace.
    pub child_pid: i32,
}

/// Slots that every plan has; the request's descriptors follow from `FIRST`.
pub mod slot {
    pub const CHANNEL: u32 = 0;
    pub const STATUS: u32 = 1;
    pub const LIFELINE: u32 = 2;
    /// The keeper's /proc.
    pub const PROC: u32 = 3;
    /// EXEC and CALL: pidfd of the container's pid 1. START of a payload that is pid 1: the pipe that its exec closes.
    pub const INIT: u32 = 4;
    pub const FIRST: u32 = 5;
    pub const NONE: u16 = u16::MAX;
    pub const MAX: u32 = 60_000;
    /// LIFT: the descriptor that was kept.
    pub const KEPT: u32 = 15;
    /// UNDO: the shared directories.
    pub const SHARED: usize = 16;
}

/// How one argument of an operation is made.
pub mod arg {
    /// The value itself.
    pub const IMM: u8 = 0;
    /// The address of an offset in the buffer.
    pub const DATA: u8 = 1;
    /// What a slot holds.
    pub const SLOT: u8 = 2;
}

/// One operation: a system call, or one of [`pseudo`].
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Op {
    pub nr: u32,
    /// Slot for the result, or `slot::NONE`.
    pub out: u16,
    /// Operations to pass over after success.
    pub skip_success: u16,
    /// Errnos that are no failure; 0 is none. `ANY` is every errno.
    pub ok: [u16; 4],
    pub kinds: [u8; 6],
    /// Operations to pass over after an errno in `ok`.
    pub skip_ok_errno: u16,
    pub args: [u64; 6],
}

/// A listener of the host, and where its connections lead in the container.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RelayEntry {
    /// Of the listening (or, for UDP, bound) socket.
    pub slot: u32,
    pub kind: u16,
    pub port: u16,
}

/// Kinds of `RelayEntry`, and how many there are at most.
pub mod relay {
    #[allow(dead_code, reason = "for the keeper, what is not UDP is this")]
    pub const TCP: u16 = 1;
    pub const UDP: u16 = 2;
    pub const MAX: usize = 128;
}

/// In `Op::ok`: every errno is fine.
pub const ANY: u16 = u16::MAX;

/// Operations that are not one system call.
pub mod pseudo {
    pub const BASE: u32 = 0x1000;
    /// (fd, data, len): write all of it.
    pub const WRITE_ALL: u32 = BASE;
    /// (offset, count): turns `count` offsets (u64) into addresses; 0 stays 0.
    pub const RELOCATE: u32 = BASE + 1;
    /// Default dispositions and an empty mask.
    pub const SIGNALS: u32 = BASE + 4;
    /// (keep mask): drops all other capabilities from the bounding set.
    pub const BOUNDING: u32 = BASE + 5;
    /// (mask): raises these ambient capabilities.
    pub const AMBIENT: u32 = BASE + 6;
    /// (fd, S_IFMT bits, rdev or u64::MAX): fails with ELOOP when the file is something else.
    pub const VERIFY: u32 = BASE + 7;
    /// (fd, number): sends a descriptor on the channel with a record FD.
    pub const SEND_FD: u32 = BASE + 8;
    /// Exits the loop over exec candidates: fails with EACCES if any gave it, else with the last errno.
    pub const EXEC_FAILED: u32 = BASE + 9;
    /// (fd of a pipe): arms the death signal again, and exits at once when nobody has the other end any more.
    pub const LIFELINE: u32 = BASE + 10;
    /// (fd): fails with errno ENOTDIR/ELOOP when getcwd shows that the directory is outside of the root.
    pub const CHECK_CWD: u32 = BASE + 11;
    /// (list of u32, count, fd or -1): closes every descriptor that is neither in the list nor the last argument.
    pub const CLOSE_OTHERS: u32 = BASE + 14;
    /// (slot value): passes over the next `args[1]` operations when the value is negative.
    pub const SKIP_IF_NEGATIVE: u32 = BASE + 13;
    /// (): tells the library that the part of this operation is left out.
    pub const LEFT_OUT: u32 = BASE + 15;
    /// (fd, name): removes a control group and the groups in it; EBUSY while a process is in one.
    pub const REMOVE_GROUP: u32 = BASE + 16;
    /// (attribute): has the host set an attribute of this process; the host's errno.
    pub const ASK: u32 = BASE + 17;
    /// (list of `RelayEntry`, count): serves a container's ports; returns only when it cannot begin.
    pub const RELAY: u32 = BASE + 19;
    /// (fd, data, len, begins): fails with ERANGE when the file does not have these words, or, with `begins`, does not begin with
    /// this text and the end of a word.
    pub const COMPARE: u32 = BASE + 18;
    /// (ruleset, fd of the path, access): landlock_add_rule(2) with a struct landlock_path_beneath_attr.
    pub const LANDLOCK_PATH: u32 = BASE + 40;
    /// (fd, number, channel, system call): as SEND_FD, on a channel that is none of the slots, by sendmsg(2) or sendmmsg(2), of which
    /// a filter may stand in the way of one.
    pub const HAND_OVER: u32 = BASE + 41;
    /// (socket): runs what comes on it, see `calls.rs`, until its other end is closed.
    pub const FILES: u32 = BASE + 24;
}
