//! Whether the kernel does something for this caller, found by trying: in a short-lived task, so that nothing of it is left
//! in the host, neither a namespace, nor a mount, nor a descriptor.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

use super::task::{call, in_task};

/// `None`: it works; else the errno.
pub(crate) type Refusal = Option<i32>;

const CLONE_NEWTIME: u64 = 0x80;

/// Every kind that clone(2) takes. (CLONE_NEWTIME lies in the bits of its exit signal: unshare(2) has it.)
pub(crate) const CLONEABLE: u64 = (libc::CLONE_NEWNS
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWNET
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWUTS
    | libc::CLONE_NEWCGROUP
    | libc::CLONE_NEWUSER) as u64;

fn refusal(result: Result<usize, i32>) -> i32 {
    result.err().unwrap_or(0)
}

fn some(errno: i32) -> Refusal {
    (errno != 0).then_some(errno)
}

fn c(text: &'static CStr) -> usize {
    text.as_ptr() as usize
}

/// Runs one of the functions of this file.
fn probe<T>(flags: u64, f: fn(&mut T) -> i32, arg: &mut T) -> Result<i32, i32> {
    // SAFETY: all that get here make system calls by `call`, on numbers, texts and the memory of their argument, and change no ids.
    unsafe { in_task(flags, f, arg) }.map_err(|e| e.errno())
}

fn nothing(_: &mut ()) -> i32 {
    0
}

fn unshare_time(_: &mut ()) -> i32 {
    // SAFETY: no pointers.
    refusal(unsafe { call(libc::SYS_unshare, [CLONE_NEWTIME as usize]) })
}

/// A new task in new namespaces of these kinds (bits of clone(2)).
pub(crate) fn namespaces(flags: u64) -> Refusal {
    probe(flags, nothing, &mut ()).err()
}

/// A new time namespace, in a new user namespace if asked.
pub(crate) fn time_namespace(in_user_namespace: bool) -> Refusal {
    let flags = if in_user_namespace { libc::CLONE_NEWUSER as u64 } else { 0 };
    probe(flags, unshare_time, &mut ()).map_or_else(Some, some)
}

/// What a container's first task does in its own user, mnt, pid, net and ipc namespace.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Inside {
    /// Mapping the caller's own ids. When this fails the others are not tried.
    pub map: Refusal,
    pub tmpfs: Refusal,
    /// With an upper directory.
    pub overlay: Refusal,
    /// EPERM: what the caller sees of proc is partly over-mounted (mount_too_revealing).
    pub proc: Refusal,
    pub sysfs: Refusal,
    pub mqueue: Refusal,
    pub devpts: Refusal,
}

struct InsideJob<'a> {
    uid_map: &'a [u8],
    gid_map: &'a [u8],
    map: i32,
    tmpfs: i32,
    overlay: i32,
    proc: i32,
    sysfs: i32,
    mqueue: i32,
    devpts: i32,
}

fn write_file(path: &'static CStr, data: &[u8]) -> Result<usize, i32> {
    // SAFETY: a C string and a slice; the descriptor is closed by whom it was opened.
    unsafe {
        let at = libc::AT_FDCWD as isize as usize;
        let fd = call(libc::SYS_openat, [at, c(path), (libc::O_WRONLY | libc::O_CLOEXEC) as usize])?;
        let written = call(libc::SYS_write, [fd, data.as_ptr() as usize, data.len()]);
        call(libc::SYS_close, [fd])?;
        written
    }
}

/// A new instance of a file system, not attached anywhere.
fn new_mount(kind: &'static CStr) -> Result<usize, i32> {
    const FSCONFIG_CMD_CREATE: usize = 6;
    // SAFETY: a C string; unused pointers are null. The descriptors are in the task's own table, and go with it.
    unsafe {
        let context = call(libc::SYS_fsopen, [c(kind), 1])?;
        call(libc::SYS_fsconfig, [context, FSCONFIG_CMD_CREATE, 0, 0, 0])?;
        call(libc::SYS_fsmount, [context, 1, 0])
    }
}

fn overlay_on(tmpfs: usize) -> Result<usize, i32> {
    const MOVE_MOUNT_F_EMPTY_PATH: usize = 4;
    // SAFETY: C strings. The working directory and the mount namespace are the task's own.
    unsafe {
        for name in [c"lower", c"upper", c"work", c"merged"] {
            call(libc::SYS_mkdirat, [tmpfs, c(name), 0o700])?;
        }
        let at = libc::AT_FDCWD as isize as usize;
        // A lower directory must be in this namespace. What is mounted over the root covers nothing that is looked up.
        call(libc::SYS_move_mount, [tmpfs, c(c""), at, c(c"/"), MOVE_MOUNT_F_EMPTY_PATH])?;
        call(libc::SYS_fchdir, [tmpfs])?;
        let options = c"lowerdir=lower,upperdir=upper,workdir=work";
        call(libc::SYS_mount, [c(c"overlay"), c(c"merged"), c(c"overlay"), 0, c(options)])
    }
}

fn inside_task(job: &mut InsideJob<'_>) -> i32 {
    let map = write_file(c"/proc/self/setgroups", b"deny")
        .or_else(|errno| if errno == libc::ENOENT { Ok(0) } else { Err(errno) })
        .and_then(|_| write_file(c"/proc/self/uid_map", job.uid_map))
        .and_then(|_| write_file(c"/proc/self/gid_map", job.gid_map));
    job.map = refusal(map);
    if job.map != 0 {
        return 0;
    }
    job.proc = refusal(new_mount(c"proc"));
    job.sysfs = refusal(new_mount(c"sysfs"));
    job.mqueue = refusal(new_mount(c"mqueue"));
    job.devpts = refusal(new_mount(c"devpts"));
    match new_mount(c"tmpfs") {
        Ok(tmpfs) => job.overlay = refusal(overlay_on(tmpfs)),
        Err(errno) => (job.tmpfs, job.overlay) = (errno, errno),
    }
    0
}

/// All of [`Inside`], with this caller's ids mapped to root; `Err`: the namespaces themselves were refused.
pub(crate) fn inside(uid: u32, gid: u32) -> Result<Inside, i32> {
    let (uid_map, gid_map) = (format!("0 {uid} 1\n"), format!("0 {gid} 1\n"));
    let mut job = InsideJob {
        uid_map: uid_map.as_bytes(),
        gid_map: gid_map.as_bytes(),
        map: 0,
        tmpfs: 0,
        overlay: 0,
        proc: 0,
        sysfs: 0,
        mqueue: 0,
        devpts: 0,
    };
    let flags = CLONEABLE & !(libc::CLONE_NEWUTS | libc::CLONE_NEWCGROUP) as u64;
    probe(flags, inside_task, &mut job)?;
    Ok(Inside {
        map: some(job.map),
        tmpfs: some(job.tmpfs),
        overlay: some(job.overlay),
        proc: some(job.proc),
        sysfs: some(job.sysfs),
        mqueue: some(job.mqueue),
        devpts: some(job.devpts),
    })
}

struct UserNamespaceJob<'a> {
    uid_map: &'a [u8],
    gid_map: &'a [u8],
    fd: RawFd,
}

fn user_namespace_task(job: &mut UserNamespaceJob<'_>) -> i32 {
    let opened = write_file(c"/proc/self/setgroups", b"deny")
        .and_then(|_| write_file(c"/proc/self/uid_map", job.uid_map))
        .and_then(|_| write_file(c"/proc/self/gid_map", job.gid_map))
        // SAFETY: a C string.
        .and_then(|_| unsafe {
            let at = libc::AT_FDCWD as isize as usize;
            call(libc::SYS_openat, [at, c(c"/proc/self/ns/user"), (libc::O_RDONLY | libc::O_CLOEXEC) as usize])
        });
    match opened {
        Ok(fd) => job.fd = fd as RawFd,
        Err(errno) => return errno,
    }
    0
}

/// A user namespace in which root is the caller. Its task shares the descriptor table (what it opens there has
/// CLOEXEC), because that is how the descriptor comes back.
fn user_namespace(uid: u32, gid: u32) -> Result<OwnedFd, i32> {
    let (uid_map, gid_map) = (format!("0 {uid} 1\n"), format!("0 {gid} 1\n"));
    let mut job = UserNamespaceJob { uid_map: uid_map.as_bytes(), gid_map: gid_map.as_bytes(), fd: -1 };
    let flags = (libc::CLONE_NEWUSER | libc::CLONE_FILES) as u64;
    match probe(flags, user_namespace_task, &mut job)? {
        // SAFETY: the task opened it in this table and left it to us.
        0 => Ok(unsafe { OwnedFd::from_raw_fd(job.fd) }),
        errno => Err(errno),
    }
}

struct IdmapJob<'a> {
    path: &'a CStr,
    user_namespace: u64,
}

fn idmap_task(job: &mut IdmapJob<'_>) -> i32 {
    const OPEN_TREE_CLONE: usize = 1;
    const MOUNT_ATTR_IDMAP: u64 = 0x10_0000;
    // struct mount_attr: set, clear, propagation, userns_fd.
    let attr = [MOUNT_ATTR_IDMAP, 0, 0, job.user_namespace];
    // SAFETY: a C string, and a struct of the size given.
    let result = unsafe {
        let at = libc::AT_FDCWD as isize as usize;
        call(libc::SYS_open_tree, [at, job.path.as_ptr() as usize, OPEN_TREE_CLONE]).and_then(|tree| {
            let size = size_of_val(&attr);
            call(libc::SYS_mount_setattr, [tree, c(c""), libc::AT_EMPTY_PATH as usize, attr.as_ptr() as usize, size])
        })
    };
    refusal(result)
}

/// An idmapped clone of the mount at `path`, never attached.
pub(crate) fn idmapped_mount(path: &CStr, uid: u32, gid: u32) -> Refusal {
    let user_namespace = match user_namespace(uid, gid) {
        Ok(fd) => fd,
        Err(errno) => return Some(errno),
    };
    let mut job = IdmapJob { path, user_namespace: user_namespace.as_raw_fd() as u64 };
    probe(0, idmap_task, &mut job).map_or_else(Some, some)
}

/// clone3(2) without arguments: EINVAL where it exists (Linux 5.3).
pub(crate) fn clone3() -> Refusal {
    // SAFETY: a size of 0 is refused before the pointer is looked at.
    match unsafe { call(libc::SYS_clone3, [0, 0]) } {
        Err(libc::EINVAL) | Ok(_) => None,
        Err(errno) => Some(errno),
    }
}

/// CLONE_INTO_CGROUP (Linux 5.7), with a descriptor that cannot be one: EBADF where it is known.
pub(crate) fn clone_into_cgroup() -> Refusal {
    const CLONE_INTO_CGROUP: u64 = 1 << 33;
    // struct clone_args: flags first, the group's descriptor last. CLONE_VM: no page table is copied before the refusal.
    let mut args = [0u64; 11];
    args[0] = CLONE_INTO_CGROUP | (libc::CLONE_VM | libc::CLONE_VFORK) as u64;
    args[10] = i32::MAX as u64;
    // SAFETY: the struct has the size given. No descriptor has that number (the kernel's limit is far below), so that no
    // task is made.
    match unsafe { call(libc::SYS_clone3, [args.as_ptr() as usize, size_of_val(&args)]) } {
        Err(libc::EBADF) | Ok(_) => None,
        Err(errno) => Some(errno),
    }
}

/// openat2(2), Linux 5.6.
pub(crate) fn openat2() -> Refusal {
    // struct open_how: flags, mode, resolve (RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS).
    let how = [(libc::O_PATH | libc::O_CLOEXEC) as u64, 0, 0x10 | 0x02];
    let at = libc::AT_FDCWD as isize as usize;
    // SAFETY: a C string and a struct of the size given; the new descriptor is ours.
    match unsafe { call(libc::SYS_openat2, [at, c(c"/"), how.as_ptr() as usize, size_of_val(&how)]) } {
        Ok(fd) => {
            // SAFETY: just opened.
            drop(unsafe { OwnedFd::from_raw_fd(fd as RawFd) });
            None
        }
        Err(errno) => Some(errno),
    }
}

/// The mount calls by descriptor (Linux 5.2) and mount_setattr (5.12): `Some(ENOSYS)` if one is missing. Whether this
/// caller may use them is another question.
pub(crate) fn mount_api() -> Refusal {
    let bad = usize::MAX;
    let calls = [libc::SYS_open_tree, libc::SYS_move_mount, libc::SYS_fsopen, libc::SYS_fsconfig, libc::SYS_fsmount];
    for number in calls.into_iter().chain([libc::SYS_mount_setattr]) {
        // SAFETY: a descriptor of -1 and null pointers: refused, whatever the privileges.
        if unsafe { call(number, [bad, 0, bad, 0, 0]) } == Err(libc::ENOSYS) {
            return Some(libc::ENOSYS);
        }
    }
    None
}

/// seccomp(2) with an action that sets an errno.
pub(crate) fn seccomp() -> Refusal {
    const SECCOMP_GET_ACTION_AVAIL: usize = 2;
    let action = libc::SECCOMP_RET_ERRNO;
    // SAFETY: reads the 4 bytes of the action.
    unsafe { call(libc::SYS_seccomp, [SECCOMP_GET_ACTION_AVAIL, 0, &raw const action as usize]) }.err()
}

/// The version of Landlock's interface.
pub(crate) fn landlock() -> Result<usize, i32> {
    const LANDLOCK_CREATE_RULESET_VERSION: usize = 1;
    // SAFETY: no pointers: the version is asked for, no ruleset is made.
    unsafe { call(libc::SYS_landlock_create_ruleset, [0, 0, LANDLOCK_CREATE_RULESET_VERSION]) }
}

/// An executable file in memory, as the keeper is.
pub(crate) fn executable_memfd() -> Refusal {
    const MFD_EXEC: usize = 0x10;
    let cloexec = libc::MFD_CLOEXEC as usize;
    let make = |flags: usize| {
        // SAFETY: a C string; the new descriptor is ours.
        unsafe { call(libc::SYS_memfd_create, [c(c"ringfence"), flags]).map(|fd| OwnedFd::from_raw_fd(fd as RawFd)) }
    };
    match make(cloexec | MFD_EXEC) {
        // Before Linux 6.3 the flag is unknown, and every memfd is executable.
        Err(libc::EINVAL) => make(cloexec).err(),
        other => other.err(),
    }
}

/// A pidfd of this process (Linux 5.3).
pub(crate) fn pidfd() -> Refusal {
    let opened: io::Result<OwnedFd> = super::pidfd::pidfd_open(std::process::id() as i32);
    opened.err().map(|e| e.raw_os_error().unwrap_or(libc::ENOSYS))
}

struct NetlinkJob {
    request: [u8; 20],
    answer: [u8; 64],
}

fn nftables_task(job: &mut NetlinkJob) -> i32 {
    let kind = (libc::SOCK_RAW | libc::SOCK_CLOEXEC) as usize;
    // SAFETY: buffers of the sizes given; null addresses mean the kernel.
    let received = unsafe {
        call(libc::SYS_socket, [libc::AF_NETLINK as usize, kind, libc::NETLINK_NETFILTER as usize]).and_then(|socket| {
            call(libc::SYS_sendto, [socket, job.request.as_ptr() as usize, job.request.len(), 0, 0, 0])?;
            let wait = libc::MSG_DONTWAIT as usize;
            call(libc::SYS_recvfrom, [socket, job.answer.as_mut_ptr() as usize, job.answer.len(), wait, 0, 0])
        })
    };
    refusal(received)
}

/// Whether nf_tables answers, in a network namespace of its own.
pub(crate) fn nftables() -> Refusal {
    const NFT_MSG_GETGEN: u16 = (libc::NFNL_SUBSYS_NFTABLES as u16) << 8 | 16;
    let mut job = NetlinkJob { request: [0; 20], answer: [0; 64] };
    // struct nlmsghdr: length, type, flags; the family of struct nfgenmsg is 0.
    job.request[..4].copy_from_slice(&20u32.to_ne_bytes());
    job.request[4..6].copy_from_slice(&NFT_MSG_GETGEN.to_ne_bytes());
    job.request[6..8].copy_from_slice(&(libc::NLM_F_REQUEST as u16).to_ne_bytes());
    let net = libc::CLONE_NEWNET as u64;
    // The kernel answers while it takes the request: nothing has to be waited for.
    let done = probe(net, nftables_task, &mut job)
        .or_else(|_| probe(net | libc::CLONE_NEWUSER as u64, nftables_task, &mut job));
    match done {
        Err(errno) => Some(errno),
        Ok(0) => {
            let number = |at: usize| i32::from_ne_bytes([0, 1, 2, 3].map(|i| job.answer[at + i]));
            let refused = number(4) & 0xffff == libc::NLMSG_ERROR;
            if refused { some(-number(16)) } else { None }
        }
        Ok(errno) => Some(errno),
    }
}
