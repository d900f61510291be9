//! From exec to READY.

use crate::interp::send_record;
use crate::nr;
use crate::proto::{DIRECT_MAP, MAGIC, Record, Request, hello, keeper_step, record, request, section};
use crate::serve::Keeper;
use crate::sys;

/// Where the keeper's own descriptors are; 0 to 2 are /dev/null. HELLO brings 4 to 14 in this order, /dev/null in place of
/// what is not needed. 7 (the claims of id ranges) and 11 (the lock of a name) are only held: their locks live as long as
/// the last holder.
pub mod fd {
    pub const CONTROL: i32 = 3;
    pub const CHANNEL: i32 = 4;
    pub const HOST: i32 = 5;
    pub const EXEC_LOCK: i32 = 6;
    pub const PROC: i32 = 8;
    pub const EXE: i32 = 9;
    /// A detached keeper's listening socket.
    pub const LISTEN: i32 = 10;
    /// Where the final status of a detached container is written.
    pub const STATUS_FILE: i32 = 12;
    /// The log of a detached container: the memory file, and where it is kept.
    pub const LOG: i32 = 13;
    pub const LOG_FILE: i32 = 14;
    pub const HELLO_COUNT: usize = 11;
    pub const SIGNALS: i32 = 15;
    pub const LIFELINE: i32 = 16;
    pub const LIFELINE_WRITE: i32 = 17;
}

/// HELLO's message: the request and up to this many bytes of text for the id maps.
pub const TEXT: usize = 2048;

#[repr(C)]
#[derive(Clone, Copy)]
pub struct Hello {
    pub request: Request,
    pub text: [u8; TEXT],
}

// SAFETY: a struct that is one, and bytes.
unsafe impl sys::Plain for Hello {}

fn fail(step: u32, errno: i64) -> ! {
    fail_in(step, 0, errno)
}

fn fail_in(step: u32, call: u32, errno: i64) -> ! {
    let record = Record {
        magic: MAGIC,
        kind: record::FAILED,
        section: section::KEEPER,
        op: step,
        errno: -errno as i32,
        status: call as i32,
        ..Record::default()
    };
    send_record(fd::CHANNEL, &record, -1);
    sys::exit(1)
}

/// What a system call for the keeper's root gave; a failure is reported with its number.
fn root(call: u32, result: i64) -> i32 {
    if result < 0 {
        fail_in(keeper_step::TINY_ROOT, call, result)
    }
    result as i32
}

fn check(step: u32, result: i64) -> i64 {
    if result < 0 {
        fail(step, result)
    }
    result
}

pub fn born(inside: bool) -> Keeper {
    let mut closed = 0;
    if !inside {
        sys::block_signals(true);
        sys::default_signals();
        closed = sys::close_all(fd::CHANNEL as u32, u32::MAX, 0);
        if closed < 0 {
            // Only so that HELLO's descriptors arrive where they belong, and the error at their other end.
            (fd::CHANNEL..1024).for_each(sys::close);
        }
        sys::setsid();
        sys::chdir(c"/");
        sys::umask(0o022);
        sys::set_affinity(&[u64::MAX; 128]);
        sys::default_timer_slack();
        raise_nofile();
    }
    sys::set_name(c"ringfence");
    // Every request names the process that sent it.
    sys::set_option(fd::CONTROL, sys::SOL_SOCKET, sys::SO_PASSCRED, &[1]);

    let hello = if inside { again() } else { receive_hello() };
    // Told only now, because now there is somebody to tell. What cannot be closed would be in every container.
    check(keeper_step::CLOSE_RANGE, closed);
    if !inside {
        leave_keyring();
    }
    let flags = hello.request.flags;
    if flags & hello::PRIVILEGED == 0 && !inside {
        enter_user_namespace(&hello);
    }
    sys::be_undumpable();
    if flags & hello::PRIVILEGED != 0 {
        tiny_root();
    }
    check(keeper_step::PROC, move_to(sys::signalfd(&u64::MAX, nr::O_CLOEXEC), fd::SIGNALS));
    let mut ends = [0i32; 2];
    check(keeper_step::PROC, sys::pipe(&mut ends, nr::O_CLOEXEC));
    // The two new numbers are below the fixed ones or are them; far away first.
    let [read, write] = ends.map(|end| sys::dup_above(end, 100));
    sys::close(ends[0]);
    sys::close(ends[1]);
    check(keeper_step::PROC, move_to(read, fd::LIFELINE));
    check(keeper_step::PROC, move_to(write, fd::LIFELINE_WRITE));
    const CLOSE_RANGE_CLOEXEC: u64 = 4;
    sys::close_all(fd::CONTROL as u32, u32::MAX, CLOSE_RANGE_CLOEXEC);

    let mut keeper = Keeper::new(hello.request.value, hello.request.key, flags);
    keeper.remember_authority(hello.request.tid);
    let ready = Record { magic: MAGIC, kind: record::READY, pid: sys::getpid() as i32, ..Record::default() };
    send_record(fd::CHANNEL, &ready, -1);
    sys::close(fd::CHANNEL);
    keeper
}

fn move_to(from: i64, to: i32) -> i64 {
    if from < 0 || from == to as i64 {
        return from;
    }
    let r = sys::dup3(from as i32, to, nr::O_CLOEXEC);
    sys::close(from as i32);
    r
}

/// The host's session keyring, which is inherited, gives whoever has it the host's keys. Its place takes a new one, and that is
/// revoked: it holds nothing, and containers that have no other cannot use it to tell each other something. Where a filter or the
/// kernel has no keyctl(2), nobody in a container has it.
fn leave_keyring() {
    // The quota of a user counts those of processes that have just ended until RCU has seen it.
    const ATTEMPTS: usize = 100;
    let mut joined = 0;
    for _ in 0..ATTEMPTS {
        joined = sys::join_new_session_keyring();
        if joined != -nr::EDQUOT as i64 {
            break;
        }
        sys::poll(&mut [], 10);
    }
    if joined == -nr::ENOSYS as i64 || joined == -nr::EPERM as i64 {
        return;
    }
    check(keeper_step::KEYRING, joined);
    check(keeper_step::KEYRING, sys::revoke_session_keyring());
}

/// Many containers are many channels. Payloads get the asking thread's limits from their plans.
fn raise_nofile() {
    const RLIMIT_NOFILE: u32 = 7;
    let mut limit = [0u64; 2];
    if sys::get_limit(RLIMIT_NOFILE, &mut limit) == 0 {
        limit[0] = limit[1];
        sys::set_limit(RLIMIT_NOFILE, &limit);
    }
}

fn receive_hello() -> Hello {
    let mut hello = Hello { request: Request::default(), text: [0; TEXT] };
    let mut fds = [-1i32; 256];
    let mut poll = [sys::PollFd { fd: fd::CONTROL, events: nr::POLLIN, revents: 0 }];
    sys::poll(&mut poll, 10_000);
    let size = core::mem::size_of::<Hello>();
    let Ok(got) = sys::receive(fd::CONTROL, sys::bytes_of_mut(&mut hello), &mut fds) else { sys::exit(1) };
    if got.len != size
        || hello.request.magic != MAGIC
        || hello.request.kind != request::HELLO
        || got.nfds != fd::HELLO_COUNT
        || got.pid != hello.request.value
    {
        sys::exit(1)
    }
    // They arrived at the lowest free numbers, 4 and up, in order: where they belong, unless 0 to 2 were closed.
    for (i, &at) in fds[..got.nfds].iter().enumerate() {
        if at != fd::CHANNEL + i as i32 {
            sys::exit(1)
        }
    }
    hello
}

/// Where HELLO waits while the keeper executes itself: written to a pipe that is inherited as this number.
const HELLO_PIPE: i32 = fd::SIGNALS;

fn again() -> Hello {
    let mut hello = Hello { request: Request::default(), text: [0; TEXT] };
    let size = core::mem::size_of::<Hello>();
    let n = sys::read(HELLO_PIPE, sys::bytes_of_mut(&mut hello));
    sys::close(HELLO_PIPE);
    if n != size as i64 {
        fail(keeper_step::REEXEC, -nr::EINVAL as i64)
    }
    hello
}

/// An ordinary user's keeper: one outer user namespace for all of that host's containers. Without executing itself inside,
/// it could neither write its children's maps nor join them: its memory would still belong to the namespace outside.
fn enter_user_namespace(hello: &Hello) {
    let mut sync = [0i32; 2];
    check(keeper_step::MAPPER, sys::pipe(&mut sync, nr::O_CLOEXEC));
    let me = sys::getpid() as i32;
    let subids = hello.request.flags & hello::SUBIDS != 0;
    let mut mapper = 0;
    if subids {
        let args = sys::CloneArgs { exit_signal: nr::SIGCHLD, ..Default::default() };
        mapper = check(keeper_step::MAPPER, sys::clone3(args)) as i32;
        if mapper == 0 {
            sys::close(sync[1]);
            map_by_helpers(&hello.text, sync[0], me)
        }
    }
    check(keeper_step::UNSHARE_USER, sys::unshare(nr::CLONE_NEWUSER));
    if subids {
        sys::write_all(sync[1], b"x");
        let mut status = 0i32;
        loop {
            let r = sys::wait4(mapper, &mut status, 0, None);
            if r != -nr::EINTR as i64 {
                check(keeper_step::MAPPER, r);
                break;
            }
        }
        if status != 0 {
            // The mapper's exit code is 1 or 2: which helper refused.
            let step = if status >> 8 & 0xff == 2 { keeper_step::GID_MAP } else { keeper_step::UID_MAP };
            fail(step, -nr::EPERM as i64)
        }
    } else {
        let (uid, gid) = split(&hello.text);
        write_own(c"self/setgroups", b"deny", keeper_step::SETGROUPS);
        write_own(c"self/uid_map", uid, keeper_step::UID_MAP);
        write_own(c"self/gid_map", gid, keeper_step::GID_MAP);
    }
    sys::close(sync[0]);
    sys::close(sync[1]);

    let mut pipe = [0i32; 2];
    check(keeper_step::REEXEC, sys::pipe(&mut pipe, 0));
    sys::write_all(pipe[1], sys::bytes_of(hello));
    sys::close(pipe[1]);
    if pipe[0] != HELLO_PIPE {
        check(keeper_step::REEXEC, sys::dup3(pipe[0], HELLO_PIPE, 0));
        sys::close(pipe[0]);
    }
    for number in fd::CONTROL..fd::SIGNALS {
        sys::set_fd_flags(number, 0);
    }
    let argv = [c"ringfence".as_ptr().cast(), c"inside".as_ptr().cast(), core::ptr::null()];
    // SAFETY: two texts and a null pointer, and one.
    let r = unsafe { sys::exec(Some(fd::EXE), c"".as_ptr().cast(), &argv, &[core::ptr::null()]) };
    fail(keeper_step::REEXEC, r)
}

/// Two texts, each ended by a NUL.
fn split(text: &[u8; TEXT]) -> (&[u8], &[u8]) {
    let first = text.iter().position(|&b| b == 0).unwrap_or(0);
    let rest = &text[first + 1..];
    let second = rest.iter().position(|&b| b == 0).unwrap_or(0);
    (&text[..first], &rest[..second])
}

fn write_own(path: &core::ffi::CStr, data: &[u8], step: u32) {
    let file = check(step, sys::open(fd::PROC, path, nr::O_WRONLY)) as i32;
    check(step, sys::write(file, data));
    sys::close(file);
}

/// A mapper with the rights to do it itself.
fn write_map(keeper: i32, code: i32, map: &[u8]) -> bool {
    let mut path = [0u8; 64];
    sys::proc_path(&mut path, keeper, if code == 1 { b"/uid_map" } else { b"/gid_map" });
    let file = sys::open(fd::PROC, sys::text(&path), nr::O_WRONLY);
    file >= 0 && sys::write(file as i32, map) == map.len() as i64
}

/// The mapper: the keeper's child outside of its user namespace runs newuidmap and newgidmap, so that the host has no
/// children. `text`: for each of the two, NUL-ended: the program and its arguments without the pid, or a mark and the map
/// itself; an empty one ends each.
fn map_by_helpers(text: &[u8; TEXT], gate: i32, keeper: i32) -> ! {
    if sys::read(gate, &mut [0]) != 1 {
        sys::exit(3)
    }
    let mut pid = [0u8; 64];
    sys::proc_path(&mut pid, keeper, b"");
    let mut rest = &text[..];
    for code in 1..=2 {
        let mut words = [c""; 62];
        let mut n = 0;
        while n < words.len() {
            let word = sys::text(rest);
            rest = rest.get(word.count_bytes() + 1..).unwrap_or_default();
            if word.is_empty() {
                break;
            }
            words[n] = word;
            n += 1;
        }
        if n == 2 && words[0].to_bytes().starts_with(&[DIRECT_MAP]) {
            if !write_map(keeper, code, words[1].to_bytes()) {
                sys::exit(code)
            }
            continue;
        }
        let args = sys::CloneArgs { exit_signal: nr::SIGCHLD, ..Default::default() };
        let child = sys::clone3(args);
        if child == 0 {
            sys::block_signals(false);
            sys::close_range(3, u32::MAX);
            // The program, the pid, the other words.
            let mut argv = [core::ptr::null::<u8>(); 64];
            argv[0] = words[0].as_ptr().cast();
            argv[1] = pid.as_ptr();
            for (to, word) in argv[2..].iter_mut().zip(&words[1..n.max(1)]) {
                *to = word.as_ptr().cast();
            }
            // SAFETY: texts that end with NUL, then null pointers: at most 61 words go to 62 places.
            unsafe { sys::exec(None, argv[0], &argv, &[core::ptr::null()]) };
            sys::exit(127)
        }
        let mut status = 0i32;
        if child < 0 || sys::wait4(child as i32, &mut status, 0, None) < 0 || status != 0 {
            sys::exit(code)
        }
    }
    sys::exit(0)
}

/// A privileged keeper's mount namespace: an empty read-only tmpfs with proc and sysfs. Its children copy these three mounts
/// instead of the host's thousands, and the keeper keeps no file system of the host busy. A proc and a sysfs must be there
/// and unmasked, or the kernel lets no child in a user namespace mount its own.
fn tiny_root() {
    check(keeper_step::UNSHARE_MNT, sys::unshare(nr::CLONE_NEWNS));
    root(nr::MOUNT, sys::mount(c"", c"/", c"", nr::MS_REC | nr::MS_PRIVATE));
    let top = new_mount(c"tmpfs");
    root(nr::MKDIRAT, sys::mkdir(top, c"proc", 0o555));
    root(nr::MKDIRAT, sys::mkdir(top, c"sys", 0o555));
    root(nr::MKDIRAT, sys::mkdir(top, c"mnt", 0o755));
    root(nr::MOVE_MOUNT, sys::move_mount(top, nr::AT_FDCWD, c"/"));
    let proc = new_mount(c"proc");
    root(nr::MOVE_MOUNT, sys::move_mount(proc, top, c"proc"));
    let sysfs = sysfs();
    root(nr::MOVE_MOUNT, sys::move_mount(sysfs, top, c"sys"));
    root(nr::FCHDIR, sys::fchdir(top));
    root(nr::PIVOT_ROOT, sys::pivot_root(c".", c"."));
    root(nr::UMOUNT2, sys::umount(c".", nr::MNT_DETACH));
    root(nr::CHDIR, sys::chdir(c"/"));
    // The host's /proc may be another pid namespace's, or hide processes: this one is the keeper's own.
    root(nr::DUP3, sys::dup3(proc, fd::PROC, nr::O_CLOEXEC));
    for mount in [top, proc, sysfs] {
        sys::close(mount);
    }
}

/// A host in a user namespace may not own its network namespace, and then it can mount no sysfs: the one that it sees.
fn sysfs() -> i32 {
    const CLONE: u64 = 1;
    let context = sys::fsopen(c"sysfs");
    if context == -nr::EPERM as i64 {
        let flags = CLONE | nr::AT_RECURSIVE | nr::O_CLOEXEC;
        return root(nr::OPEN_TREE, sys::open_tree(nr::AT_FDCWD, c"/sys", flags));
    }
    sys::close(context as i32);
    new_mount(c"sysfs")
}

fn new_mount(kind: &core::ffi::CStr) -> i32 {
    const NOSUID_NODEV_NOEXEC: u64 = 2 | 4 | 8;
    let context = root(nr::FSOPEN, sys::fsopen(kind));
    root(nr::FSCONFIG, sys::fsconfig_create(context));
    let mount = root(nr::FSMOUNT, sys::fsmount(context, NOSUID_NODEV_NOEXEC));
    sys::close(context);
    mount
}
