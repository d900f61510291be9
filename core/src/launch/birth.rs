//! Starts a keeper: nobody's child in the host, with nothing of the host's.

use std::ffi::CString;
use std::io::Write;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::sync::atomic::{AtomicI32, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use nix::sys::memfd::{MFdFlags, memfd_create};
use once_cell::sync::OnceCell;

use super::channel::{Answer, Channel, deadline};
use super::keeper::{Detached, Keeper, Outer};
use crate::error::{Error, ErrorKind, Result};
use crate::proto::{self, MAGIC, Record, Request, hello, keeper_step, record, request};
use crate::sys::plain::bytes_of;
use crate::sys::rights;
use crate::sys::task::{self, call};

/// The program: built by build.rs.
static KEEPER: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/keeper"));

const TEXT: usize = 2048;

pub(super) struct Born {
    pub outer: Option<Outer>,
    pub middle: Option<Middle>,
    pub claims: Option<crate::state::ids::ClaimsFile>,
}

/// The middle task of a host that is pid 1 or a subreaper: it stays as the keeper's parent, so that neither the keeper nor
/// its orphans become children of the host.
///
/// It ends when it has no children any more, by itself: were it killed before the keeper has ended, the keeper would become
/// a child of the host after all.
#[derive(Debug)]
pub(crate) struct Middle(Option<task::Task<Arc<BirthArg>>>);

/// Those whose keepers are about to end: they use their stacks and arguments until then, and are collected by a later start.
static LEAVING: Mutex<Vec<Middle>> = Mutex::new(Vec::new());

impl Middle {
    fn has_ended(&mut self) -> bool {
        self.0.as_mut().is_none_or(task::Task::has_ended)
    }

    fn collect() {
        if let Ok(mut leaving) = LEAVING.try_lock() {
            leaving.retain_mut(|middle| !middle.has_ended());
        }
    }
}

impl Drop for Middle {
    fn drop(&mut self) {
        // In a forked child there is nobody to wait for, which counts as ended.
        if !self.has_ended() {
            let left = Self(self.0.take());
            LEAVING.lock().unwrap_or_else(|e| e.into_inner()).push(left);
        }
    }
}

#[derive(Debug)]
struct BirthArg {
    control: i32,
    null: i32,
    exe: i32,
    stack: usize,
    stay: bool,
    errno: AtomicI32,
    /// 1 when the keeper has been executed (or has failed to be).
    done: AtomicU32,
}

/// In the keeper-to-be: its descriptors, then the keeper. The memory is the host's until the exec: nothing is written but
/// the errno.
fn become_keeper(arg: &BirthArg) {
    let dup = |from: i32, to: usize| {
        // SAFETY: no pointers.
        unsafe { call(libc::SYS_dup3, [from as usize, to, 0]) }
    };
    for to in 0..3 {
        let _ = dup(arg.null, to);
    }
    let _ = dup(arg.control, 3);
    let (empty, argv, envp) = (c"", [c"ringfence".as_ptr(), std::ptr::null()], [std::ptr::null::<libc::c_char>()]);
    // SAFETY: argv and envp are null-terminated arrays of strings that outlive the call.
    let result = unsafe {
        call(
            libc::SYS_execveat,
            [
                arg.exe as usize,
                empty.as_ptr() as usize,
                argv.as_ptr() as usize,
                envp.as_ptr() as usize,
                libc::AT_EMPTY_PATH as usize,
            ],
        )
    };
    arg.errno.store(result.err().unwrap_or(libc::EINVAL), Ordering::Relaxed);
}

/// Calls the kernel and nothing else: it has its host's memory.
fn middle(shared: &BirthArg) {
    if shared.stay {
        const PR_SET_CHILD_SUBREAPER: usize = 36;
        // SAFETY: no pointers.
        let _ = unsafe { call(libc::SYS_prctl, [PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0]) };
    }
    // SAFETY: the stack is the one that `start` mapped for this, once; this task sleeps until the other has executed. That calls the
    // kernel and nothing else, too.
    let cloned = unsafe { task::clone_vfork(shared.stack, become_keeper, shared) };
    if let Err(errno) = cloned {
        shared.errno.store(errno, Ordering::Relaxed);
    }
    shared.done.store(1, Ordering::Release);
    const FUTEX_WAKE: usize = 1;
    // SAFETY: the futex word is alive: this task has it.
    let _ = unsafe { call(libc::SYS_futex, [shared.done.as_ptr() as usize, FUTEX_WAKE, 1]) };
    if !shared.stay || shared.errno.load(Ordering::Relaxed) != 0 {
        return;
    }
    // The host's descriptors are not for keeping; these are this task's own copies.
    // SAFETY: no pointers.
    let _ = unsafe { call(libc::SYS_close_range, [0, u32::MAX as usize, 0]) };
    loop {
        // SAFETY: a null status and usage.
        let r = unsafe { call(libc::SYS_wait4, [usize::MAX, 0, libc::__WALL as usize, 0]) };
        if r == Err(libc::ECHILD) {
            return;
        }
    }
}

/// The program in a sealed memory file, or an installed copy where such files may not be executed.
fn executable() -> Result<OwnedFd> {
    const MFD_EXEC: libc::c_uint = 0x10;
    let base = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
    let with_exec = MFdFlags::from_bits_retain(base.bits() | MFD_EXEC);
    // Kernels before 6.3 do not know MFD_EXEC.
    let fd = match memfd_create(c"ringfence", with_exec) {
        Err(nix::errno::Errno::EINVAL) => memfd_create(c"ringfence", base),
        other => other,
    };
    let fd = match fd {
        Ok(fd) => fd,
        Err(nix::errno::Errno::EACCES) => return installed(),
        Err(errno) => return Err(Error::os("memfd_create", errno as i32)),
    };
    let mut file = std::fs::File::from(fd);
    file.write_all(KEEPER).map_err(|e| Error::io("write the keeper", &e))?;
    let seals = libc::F_SEAL_SEAL | libc::F_SEAL_SHRINK | libc::F_SEAL_GROW | libc::F_SEAL_WRITE;
    // Its owner could take everybody the right to execute it: inside that is root, where the container's ids are the host's, and
    // it has the file when it makes who joins execute itself (CVE-2019-5736). As old as MFD_EXEC.
    const F_SEAL_EXEC: libc::c_int = 0x20;
    // SAFETY: no pointers.
    let seal = |seals: libc::c_int| unsafe { libc::fcntl(file.as_raw_fd(), libc::F_ADD_SEALS, seals) };
    if seal(seals | F_SEAL_EXEC) < 0 && seal(seals) < 0 {
        return Err(Error::io("seal the keeper", &std::io::Error::last_os_error()));
    }
    Ok(file.into())
}

fn installed() -> Result<OwnedFd> {
    let named = std::env::var_os("RINGFENCE_KEEPER");
    let paths = named.iter().map(|p| p.as_os_str()).chain(["/usr/libexec/ringfence/keeper".as_ref()]);
    for path in paths {
        if let Ok(file) = std::fs::File::open(path) {
            let same = std::fs::read(path).is_ok_and(|bytes| bytes == KEEPER);
            if same {
                return Ok(file.into());
            }
        }
    }
    Err(Error::os("memfd_create", libc::EACCES)
        .with_detail("this machine forbids executable memory files")
        .with_hint("set the sysctl vm.memfd_noexec to 0 or 1, or install the keeper as /usr/libexec/ringfence/keeper"))
}

/// A copy of a descriptor with a number that the keeper's fixed ones cannot clash with.
fn high(fd: BorrowedFd<'_>) -> Result<OwnedFd> {
    // SAFETY: no pointers; the result is a new descriptor.
    let copy = unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_DUPFD_CLOEXEC, 64) };
    if copy < 0 {
        return Err(Error::io("dup", &std::io::Error::last_os_error()));
    }
    // SAFETY: just made, nobody else's.
    Ok(unsafe { OwnedFd::from_raw_fd(copy) })
}

/// A record lock that this process holds on a private file until it executes something else: exec closes the descriptor and
/// with it releases the lock, and fork does not copy it.
fn exec_lock() -> Result<BorrowedFd<'static>> {
    static LOCK: OnceCell<(u32, OwnedFd)> = OnceCell::new();
    let (pid, fd) = LOCK.get_or_try_init(|| {
        let fd =
            memfd_create(c"ringfence-lock", MFdFlags::MFD_CLOEXEC).map_err(|e| Error::os("memfd_create", e as i32))?;
        lock_whole(fd.as_fd())?;
        Ok::<_, Error>((std::process::id(), fd))
    })?;
    if *pid != std::process::id() {
        // A forked child with containers of its own: the file is shared with the parent, the lock is not.
        static CHILD: std::sync::Mutex<Option<(u32, &'static OwnedFd)>> = std::sync::Mutex::new(None);
        let mut child = CHILD.lock().unwrap_or_else(|e| e.into_inner());
        if child.is_none_or(|(pid, _)| pid != std::process::id()) {
            let fd = memfd_create(c"ringfence-lock", MFdFlags::MFD_CLOEXEC)
                .map_err(|e| Error::os("memfd_create", e as i32))?;
            lock_whole(fd.as_fd())?;
            // One per process that forks and then uses containers: kept for its life, as the other is.
            *child = Some((std::process::id(), Box::leak(Box::new(fd))));
        }
        return Ok(child.expect("just set").1.as_fd());
    }
    Ok(fd.as_fd())
}

fn lock_whole(fd: BorrowedFd<'_>) -> Result<()> {
    // SAFETY: all zeroes is a valid flock.
    let mut lock: libc::flock = unsafe { std::mem::zeroed() };
    lock.l_type = libc::F_WRLCK as i16;
    // SAFETY: the lock outlives the call.
    if unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_SETLK, &raw const lock) } < 0 {
        return Err(Error::io("lock", &std::io::Error::last_os_error()));
    }
    Ok(())
}

/// CAP_SYS_ADMIN over the machine. Root of another user namespace (a rootless container, `unshare -Ur`) is an ordinary caller
/// in most respects: it cannot take ids that it does not have, or clone mounts that are locked.
pub(super) fn is_privileged() -> bool {
    rights::capabilities() & 1 << rights::CAP_SYS_ADMIN != 0 && rights::in_initial_user_namespace()
}

fn is_reaper() -> bool {
    let mut subreaper = 0i32;
    const PR_GET_CHILD_SUBREAPER: i32 = 37;
    // SAFETY: the kernel writes one int.
    unsafe { libc::prctl(PR_GET_CHILD_SUBREAPER, &raw mut subreaper) };
    subreaper != 0 || std::process::id() == 1
}

/// What a keeper started by this thread would map: `None` is a privileged one.
pub(crate) fn prospect() -> Result<Option<Outer>> {
    if is_privileged() { Ok(None) } else { super::facts::outer().map(Some) }
}

/// The supplementary groups of this thread that its containers have, too: those of a caller with a single id, since setgroups(2) is
/// denied where nobody else's map could be written (user_namespaces(7)). Without the primary one.
pub(crate) fn kept_groups() -> Vec<u32> {
    match prospect() {
        Ok(Some(outer)) if outer.pool() == 0 => own_groups(),
        _ => Vec::new(),
    }
}

/// The supplementary groups of this thread.
pub(crate) fn own_groups() -> Vec<u32> {
    let own = nix::unistd::getegid();
    let groups = nix::unistd::getgroups().unwrap_or_default();
    groups.into_iter().filter(|group| *group != own).map(|group| group.as_raw()).collect()
}

/// How many ids a caller in a user namespace of many can map into its containers' outer namespace. `None`: that is not how.
pub(crate) fn lent_ids() -> Option<u32> {
    prospect().ok().flatten().filter(|outer| outer.writes_maps).map(|outer| outer.pool())
}

pub(super) fn start(detached: Option<Detached>) -> Result<Keeper> {
    Middle::collect();
    let privileged = is_privileged();
    if privileged {
        return start_as(None, detached.as_ref());
    }
    let own = std::fs::read_link("/proc/self").ok();
    if own.as_deref() != Some(std::path::Path::new(&std::process::id().to_string())) {
        return Err(Error::new(ErrorKind::Unsupported, "this is the /proc of another pid namespace, or none")
            .with_field("keeper")
            .with_path("/proc")
            .with_hint("mount one for this namespace (unshare --mount-proc): id maps are written through it"));
    }
    let outer = super::facts::outer()?;
    if outer.uids.is_empty() {
        return start_as(Some(outer), detached.as_ref());
    }
    match start_as(Some(outer.clone()), detached.as_ref()) {
        Err(error) if error.field() == Some("idmap") => {
            // newuidmap or newgidmap refused: a single id needs neither.
            let single = Outer { uids: Vec::new(), gids: Vec::new(), why: Some(error.to_string()), ..outer };
            start_as(Some(single), detached.as_ref())
        }
        other => other,
    }
}

fn start_as(outer: Option<Outer>, detached: Option<&Detached>) -> Result<Keeper> {
    let exe = high(executable()?.as_fd())?;
    let null = std::fs::File::options()
        .read(true)
        .write(true)
        .open("/dev/null")
        .map_err(|e| Error::io("open", &e).with_path("/dev/null"))?;
    let null = high(OwnedFd::from(null).as_fd())?;
    let (control, there) = Channel::pair()?;
    let there = high(there.as_fd())?;
    nix::sys::socket::setsockopt(&there, nix::sys::socket::sockopt::PassCred, &true)
        .map_err(|e| Error::os("setsockopt", e as i32))?;
    let control: OwnedFd = control.into_fd();
    // A start can have a few hundred small requests queued.
    let stay = detached.is_none() && is_reaper();

    let inner_stack = task::Stack::new()?;
    let arg = Arc::new(BirthArg {
        control: there.as_raw_fd(),
        null: null.as_raw_fd(),
        exe: exe.as_raw_fd(),
        stack: inner_stack.top(),
        stay,
        errno: AtomicI32::new(0),
        done: AtomicU32::new(0),
    });
    let task = if stay {
        // SAFETY: `middle` calls the kernel and nothing else.
        let task = unsafe { task::Task::start(|arg: &Arc<BirthArg>| middle(arg), arg.clone()) }?;
        while arg.done.load(Ordering::Acquire) == 0 {
            const FUTEX_WAIT: libc::c_int = 0;
            // SAFETY: the word is alive.
            unsafe { libc::syscall(libc::SYS_futex, arg.done.as_ptr(), FUTEX_WAIT, 0, std::ptr::null::<u8>()) };
        }
        // From here on somebody waits for it, whatever becomes of the birth.
        Some(Middle(Some(task)))
    } else {
        let run = |arg: &mut Arc<BirthArg>| {
            middle(arg);
            0
        };
        // SAFETY: as above.
        unsafe { task::in_task(0, run, &mut arg.clone()) }?;
        None
    };
    let errno = arg.errno.load(Ordering::Relaxed);
    if errno != 0 {
        let error = Error::os("execveat the keeper", errno).with_field("keeper");
        return Err(match crate::doctor::explain("execveat", errno) {
            Some(hint) => error.with_hint(hint),
            None => error,
        });
    }
    drop(there);
    drop(inner_stack);
    greet(control, exe, null, outer, detached, task)
}

fn greet(
    control: OwnedFd,
    exe: OwnedFd,
    null: OwnedFd,
    outer: Option<Outer>,
    detached: Option<&Detached>,
    middle: Option<Middle>,
) -> Result<Keeper> {
    let mut flags = 0;
    let mut text = [0u8; TEXT];
    match &outer {
        None => flags |= hello::PRIVILEGED,
        Some(outer) => {
            let bytes = map_text(outer);
            if bytes.len() >= TEXT {
                return Err(Error::new(
                    ErrorKind::Unsupported,
                    "there are too many ranges in /etc/subuid for this user",
                ));
            }
            text[..bytes.len()].copy_from_slice(&bytes);
            if !outer.uids.is_empty() {
                flags |= hello::SUBIDS;
            }
        }
    }
    if detached.is_some() {
        flags |= hello::DETACHED;
    }
    let (channel, there) = Channel::pair()?;
    let pid = std::process::id() as i32;
    let host = crate::sys::pidfd::pidfd_open(pid).map_err(|e| Error::io("pidfd_open", &e))?;
    let proc = open_path(c"/proc")?;
    // Without a state directory no id ranges are claimed, and a start that needs one says so.
    let claims = crate::state::ids::claims_fd().ok();
    let null = null.as_fd();
    let detached_or_null = |fd: fn(&Detached) -> BorrowedFd<'_>| detached.map_or(null, fd);
    let fds = [
        there.as_fd(),
        if detached.is_some() { null } else { host.as_fd() },
        if detached.is_some() { null } else { exec_lock()? },
        match detached {
            Some(detached) => detached.claims.as_fd(),
            None => claims.as_ref().map_or(null, |c| c.as_fd()),
        },
        proc.as_fd(),
        exe.as_fd(),
        detached_or_null(|d| d.listen.as_fd()),
        detached_or_null(|d| d.name_lock.as_fd()),
        detached_or_null(|d| d.status.as_fd()),
        detached_or_null(|d| d.log.as_fd()),
        detached_or_null(|d| d.log_file.as_fd()),
    ];
    let request = Request {
        magic: MAGIC,
        kind: request::HELLO,
        tid: nix::unistd::gettid().as_raw(),
        nfds: fds.len() as u32,
        flags,
        value: pid,
        key: crate::state::pid_namespace(),
        ..Request::default()
    };
    let born = Born { outer, middle, claims: None };
    let mut keeper = Keeper::new(control, 0, born);
    if !keeper.send_bytes(&[bytes_of(&request), &text[..]].concat(), &fds)? {
        return Err(Error::new(ErrorKind::KeeperDied, "the keeper ended before it was greeted"));
    }
    drop(there);
    keeper.claims = claims;
    match channel.receive(deadline(Some(Duration::from_secs(20))), None)? {
        Answer::Record(answer, _) if answer.kind == record::READY => Ok(keeper.ready(answer.pid)),
        Answer::Record(answer, _) => Err(birth_error(&answer)),
        Answer::Nothing => Err(Error::new(ErrorKind::TimedOut, "the keeper was not ready within 20 seconds")),
        Answer::End | Answer::Cancelled => Err(Error::new(ErrorKind::KeeperDied, "the keeper ended while it started")),
    }
}

fn birth_error(failed: &Record) -> Error {
    let errno = failed.errno;
    let (field, step) = match failed.op {
        keeper_step::UNSHARE_USER => ("namespaces.user", "unshare CLONE_NEWUSER"),
        keeper_step::UNSHARE_MNT => ("namespaces.mnt", "unshare CLONE_NEWNS"),
        // The keeper's root is made of these.
        keeper_step::TINY_ROOT => match libc::c_long::from(failed.status) {
            libc::SYS_fsopen => ("rootfs", "fsopen"),
            libc::SYS_fsconfig => ("rootfs", "fsconfig"),
            libc::SYS_fsmount => ("rootfs", "fsmount"),
            libc::SYS_move_mount => ("rootfs", "move_mount"),
            libc::SYS_pivot_root => ("rootfs", "pivot_root"),
            _ => ("rootfs", "mount the keeper's root"),
        },
        keeper_step::UID_MAP => ("idmap", "write uid_map"),
        keeper_step::GID_MAP => ("idmap", "write gid_map"),
        keeper_step::SETGROUPS => ("idmap", "write setgroups"),
        keeper_step::MAPPER => ("idmap", "newuidmap"),
        keeper_step::CLOSE_RANGE => ("keeper", "close_range"),
        keeper_step::KEYRING => ("keyring", "keyctl"),
        keeper_step::REEXEC => ("keeper", "execute the keeper in its user namespace"),
        _ => ("keeper", "start the keeper"),
    };
    let error = Error::os(step, errno).with_field(field);
    if failed.op == keeper_step::KEYRING && errno == libc::EDQUOT {
        return error.with_hint(
            "the caller has as many keys as one user may have: see kernel.keys.maxkeys, and /proc/key-users for who has them",
        );
    }
    match crate::doctor::explain(step, errno) {
        Some(hint) => error.with_hint(hint),
        None => error,
    }
}

fn open_path(path: &std::ffi::CStr) -> Result<OwnedFd> {
    let flags = nix::fcntl::OFlag::O_PATH | nix::fcntl::OFlag::O_DIRECTORY | nix::fcntl::OFlag::O_CLOEXEC;
    nix::fcntl::open(path, flags, nix::sys::stat::Mode::empty())
        .map_err(|e| Error::os("open", e as i32).with_path(path.to_string_lossy()))
}

/// With helpers: their command lines without the pid. With the rights to do without: a mark and the map. Alone: the two lines
/// of the maps.
fn map_text(outer: &Outer) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut push = |word: &str| {
        bytes.extend_from_slice(CString::new(word).unwrap_or_default().as_bytes_with_nul());
    };
    if outer.uids.is_empty() {
        push(&format!("0 {} 1\n", outer.uid));
        push(&format!("0 {} 1\n", outer.gid));
        return bytes;
    }
    for (program, id, ranges) in [("newuidmap", outer.uid, &outer.uids), ("newgidmap", outer.gid, &outer.gids)] {
        let mut lines = vec![[0, id, 1]];
        let mut inside = 1;
        for &(start, count) in ranges {
            lines.push([inside, start, count]);
            inside += count;
        }
        if outer.writes_maps {
            push(&char::from(proto::DIRECT_MAP).to_string());
            push(&lines.iter().map(|[inside, start, count]| format!("{inside} {start} {count}\n")).collect::<String>());
        } else {
            push(&super::facts::helper(program).unwrap_or_default());
            lines.iter().flatten().for_each(|number| push(&number.to_string()));
        }
        push("");
    }
    bytes
}
