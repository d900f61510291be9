//! What the keeper's children are: a stage that joins namespaces, pid 1 of a container, a task that joins a container.

use core::sync::atomic::Ordering;

use crate::confine;
use crate::interp::{NO_SECTION, Plan, check_lifeline, send_record};
use crate::nr;
use crate::proto::{MAGIC, MAX_FDS, MAX_GIVEN, Record, keeper_step, plan_flag, record, section, slot};
use crate::sys::{self, PollFd};

/// Closes all descriptors but those in the plan's slots: otherwise one container would hold another's channel or lifeline.
fn let_go(plan: &Plan) {
    const FEW: usize = MAX_FDS + 8;
    let given = (0..plan.nslots().get()).filter(|&index| plan.slot(index) >= 3).count();
    if given <= FEW { keep::<FEW>(plan) } else { keep::<{ MAX_GIVEN + 8 }>(plan) }
}

/// Of up to so many slots. What is not there is not touched: most plans have a dozen.
#[inline(never)]
fn keep<const MOST: usize>(plan: &Plan) {
    let mut keep = [0i32; MOST];
    let mut n = 0;
    for index in 0..plan.nslots().get() {
        let fd = plan.slot(index) as i32;
        if fd < 3 || n == MOST {
            continue;
        }
        // Insertion keeps the few numbers sorted; the same one may be in two slots.
        let mut at = n;
        while at > 0 && keep[at - 1] > fd {
            at -= 1;
        }
        if at > 0 && keep[at - 1] == fd {
            continue;
        }
        let mut i = n;
        while i > at {
            keep[i] = keep[i - 1];
            i -= 1;
        }
        keep[at] = fd;
        n += 1;
    }
    let mut first = 3;
    for &fd in &keep[..n] {
        if fd > first {
            sys::close_range(first as u32, fd as u32 - 1);
        }
        first = fd + 1;
    }
    sys::close_range(first as u32, u32::MAX);
}

fn begin(plan: &Plan) {
    sys::die_with_parent();
    let_go(plan);
    check_lifeline(plan.slot(slot::LIFELINE) as i32);
}

/// A task that lifts what would outlive the container. It goes on when the keeper is killed.
pub fn lift(plan: &Plan) -> ! {
    let_go(plan);
    let done = plan.run(section::LIFT);
    sys::exit(if done { 0 } else { 1 })
}

/// A START's first task: the stage, or pid 1 itself.
pub fn start(plan: &Plan) -> ! {
    begin(plan);
    if !plan.run(section::PREPARE) {
        sys::exit(1)
    }
    let flags = plan.flags().get();
    if flags & plan_flag::STAGE == 0 {
        pid1(plan, -1)
    }
    // Only the exec of a payload that is pid 1 closes the write end without a word.
    let mut exec_pipe = [-1i32; 2];
    if flags & plan_flag::RESIDENT == 0 && sys::pipe(&mut exec_pipe, nr::O_CLOEXEC) < 0 {
        sys::exit(1)
    }
    let mut pidfd = -1i32;
    let args = sys::CloneArgs {
        flags: plan.clone_flags().get() | nr::CLONE_PARENT | nr::CLONE_PIDFD | nr::CLONE_PARENT_SETTID,
        pidfd: Some(&mut pidfd),
        parent_tid: Some(plan.child_pid()),
        ..Default::default()
    };
    let child = sys::clone3(args);
    if child == 0 {
        sys::close(exec_pipe[0]);
        begin_again(plan);
        pid1(plan, exec_pipe[1])
    }
    if child < 0 {
        plan.fail(NO_SECTION, keeper_step::CLONE, child);
        sys::exit(1)
    }
    sys::close(exec_pipe[1]);
    let created = Record { magic: MAGIC, kind: record::CREATED, pid: child as i32, ..Record::default() };
    send_record(plan.slot(slot::CHANNEL) as i32, &created, pidfd);
    if !open_gate(plan, child as i32) {
        sys::kill(child as i32, nr::SIGKILL);
        sys::exit(1)
    }
    if exec_pipe[0] >= 0 {
        while sys::read(exec_pipe[0], &mut [0]) == -nr::EINTR as i64 {}
        if plan.fail_errno().get() != 0 {
            sys::exit(1)
        }
        plan.started().set(1);
        let started = Record { magic: MAGIC, kind: record::STARTED, pid: child as i32, ..Record::default() };
        send_record(plan.slot(slot::CHANNEL) as i32, &started, pidfd);
    }
    sys::exit(0)
}

/// The death signal is not inherited.
fn begin_again(plan: &Plan) {
    sys::die_with_parent();
    check_lifeline(plan.slot(slot::LIFELINE) as i32);
}

/// Writes a new container's id maps and idmaps its mounts, then opens its gate. Run by the keeper, or by a stage, which has
/// the keeper's rights.
pub fn open_gate(plan: &Plan, pid: i32) -> bool {
    let proc = plan.slot(slot::PROC) as i32;
    let uid_map = plan.uid_map().get();
    if uid_map.len > 0 {
        let deny = plan.flags().get() & plan_flag::DENY_SETGROUPS != 0;
        // SAFETY: a file is written, and nothing of the plan before that is done.
        let uid = || write_proc(proc, pid, b"/uid_map", unsafe { plan.bytes(uid_map) });
        // SAFETY: as above.
        let gid = || write_proc(proc, pid, b"/gid_map", unsafe { plan.bytes(plan.gid_map().get()) });
        let (step, result) = match if deny { write_proc(proc, pid, b"/setgroups", b"deny") } else { 0 } {
            failed @ ..0 => (keeper_step::SETGROUPS, failed),
            _ => match uid() {
                failed @ ..0 => (keeper_step::UID_MAP, failed),
                _ => (keeper_step::GID_MAP, gid()),
            },
        };
        if result < 0 {
            plan.fail(NO_SECTION, step, result);
            return false;
        }
    }
    if !idmap(plan, proc, pid) {
        return false;
    }
    plan.gate().store(1, Ordering::Release);
    sys::futex_wake(plan.gate());
    true
}

/// Writes a file of a process; the errno on failure.
fn write_proc(proc: i32, pid: i32, name: &[u8], data: &[u8]) -> i64 {
    let mut path = [0u8; 64];
    sys::proc_path(&mut path, pid, name);
    let file = sys::open(proc, sys::text(&path), nr::O_WRONLY);
    if file < 0 {
        return file;
    }
    // One write: the kernel takes a map only whole.
    let result = sys::write(file as i32, data);
    sys::close(file as i32);
    result
}

fn idmap(plan: &Plan, proc: i32, pid: i32) -> bool {
    let span = plan.idmaps().get();
    if span.len == 0 {
        return true;
    }
    let mut path = [0u8; 64];
    sys::proc_path(&mut path, pid, b"/ns/user");
    let userns = sys::open(proc, sys::text(&path), nr::O_RDONLY);
    if userns < 0 {
        plan.fail(NO_SECTION, keeper_step::IDMAP, userns);
        return false;
    }
    let mut fine = true;
    for i in 0..span.len {
        let entry = plan.idmap(i);
        let attr = [nr::MOUNT_ATTR_IDMAP, 0, 0, userns as u64];
        let recursive = if entry.recursive != 0 { nr::AT_RECURSIVE } else { 0 };
        let r = sys::mount_setattr(plan.slot(entry.slot) as i32, recursive, &attr);
        if r < 0 {
            plan.fail_errno().set(0);
            plan.fail(NO_SECTION, keeper_step::IDMAP | entry.index << 8, r);
            fine = false;
            break;
        }
    }
    sys::close(userns as i32);
    fine
}

fn wait_at_gate(plan: &Plan) {
    while plan.gate().load(Ordering::Acquire) == 0 {
        sys::futex_wait(plan.gate(), 0);
    }
}

/// The end of a task that a container can see, in or after a section. What protects its descriptors is its memory's, which a task that ends
/// gives back before it closes them: here they go first. (A payload that has only its own has a filter too, which may ask the host.)
fn end(plan: &Plan, which: usize, code: i32) -> ! {
    if !plan.has_let_go(which) {
        sys::close_range(0, u32::MAX);
    }
    sys::exit(code)
}

fn pid1(plan: &Plan, exec_pipe: i32) -> ! {
    wait_at_gate(plan);
    if !plan.run(section::SETUP) {
        end(plan, section::SETUP, 1)
    }
    if plan.flags().get() & plan_flag::RESIDENT != 0 {
        init(plan)
    }
    // The write end closes by exec; a failure is in the header before it closes.
    plan.set_slot(slot::INIT, exec_pipe.into());
    plan.run(section::PAYLOAD);
    end(plan, section::PAYLOAD, 127)
}

/// The resident init.
fn init(plan: &Plan) -> ! {
    let mut payload = 0;
    let mut pidfd = -1i32;
    if plan.flags().get() & plan_flag::PAYLOAD != 0 {
        // vfork's order without its sharing: this returns when the payload has been executed, or has failed.
        let args = sys::CloneArgs {
            flags: nr::CLONE_VFORK | nr::CLONE_PIDFD,
            pidfd: Some(&mut pidfd),
            exit_signal: nr::SIGCHLD,
            ..Default::default()
        };
        let child = sys::clone3(args);
        if child == 0 {
            plan.run(section::PAYLOAD);
            end(plan, section::PAYLOAD, 127)
        }
        if child < 0 {
            plan.fail(NO_SECTION, keeper_step::PAYLOAD_CLONE, child);
        }
        if plan.fail_errno().get() != 0 {
            end(plan, section::SETUP, 1)
        }
        payload = child as i32;
    }
    plan.started().set(1);
    let channel = plan.slot(slot::CHANNEL) as i32;
    let started = Record { magic: MAGIC, kind: record::STARTED, ..Record::default() };
    send_record(channel, &started, pidfd);

    // From here on: a signalfd, the lifeline and the status pipe (what CRIU can dump), CAP_KILL, eight system calls.
    // Any number may be in use: far away first, so that none of the three is closed by another's coming.
    let signals = sys::signalfd(&u64::MAX, nr::O_CLOEXEC | 0o4000);
    let far = [plan.slot(slot::LIFELINE), plan.slot(slot::STATUS), signals].map(|fd| sys::dup_above(fd as i32, 203));
    let lifeline = sys::dup3(far[0] as i32, 200, nr::O_CLOEXEC);
    let status = sys::dup3(far[1] as i32, 201, nr::O_CLOEXEC);
    let signals = sys::dup3(far[2] as i32, 202, nr::O_CLOEXEC);
    if lifeline < 0 || signals < 0 {
        sys::exit(1)
    }
    // SAFETY: from here on this process looks at no plan.
    unsafe { plan.unmap() };
    sys::close_range(0, 199);
    sys::close_range(203, u32::MAX);
    // In a pid namespace of somebody else, "all processes" would be theirs.
    let alone = sys::getpid() == 1;
    confine();
    reap(payload, alone, lifeline as i32, status as i32, signals as i32)
}

/// pid 1 of a container can be attacked by its root: it keeps CAP_KILL, and the system calls of `reap`.
fn confine() {
    const CAP_KILL: u32 = 1 << 5;
    confine::keep_capabilities(CAP_KILL);
    confine::allow_only(&[
        nr::PPOLL,
        nr::READ,
        nr::WRITE,
        nr::WAIT4,
        nr::KILL,
        nr::EXIT_GROUP,
        nr::CLOSE,
        nr::RT_SIGRETURN,
    ]);
}

fn reap(mut payload: i32, alone: bool, lifeline: i32, status_pipe: i32, signals: i32) -> ! {
    let had_payload = payload != 0;
    let mut terminating = false;
    loop {
        let mut fds = [
            PollFd { fd: signals, events: nr::POLLIN, revents: 0 },
            PollFd { fd: lifeline, events: nr::POLLIN, revents: 0 },
        ];
        sys::poll(&mut fds, -1);
        if fds[1].revents != 0 {
            sys::exit(1)
        }
        // struct signalfd_siginfo: the number is its first field.
        let mut info = [0u8; 128];
        while sys::read(signals, &mut info) == 128 {
            let signal = i32::from_ne_bytes([info[0], info[1], info[2], info[3]]);
            // A normal process would end by these; pid 1's end is its container's.
            if signal == nr::SIGCHLD || !matches!(signal, 1 | 2 | 3 | 10 | 12 | 15) {
                continue;
            }
            if payload != 0 {
                sys::kill(payload, signal);
            } else if matches!(signal, 1 | 2 | 3 | 15) {
                if !alone {
                    sys::exit(0)
                }
                terminating = true;
                sys::kill(-1, nr::SIGTERM);
            }
        }
        loop {
            let mut status = 0i32;
            let mut usage = [0i64; 18];
            let pid = sys::wait4(-1, &mut status, 1, Some(&mut usage));
            if pid <= 0 {
                // ECHILD: nobody is left.
                if pid < 0 && terminating {
                    sys::exit(0)
                }
                break;
            }
            if pid as i32 == payload {
                write_exited(status_pipe, payload, status, &usage);
                payload = 0;
            }
        }
        if had_payload && payload == 0 {
            sys::exit(0)
        }
    }
}

/// `usage` is a struct rusage: user and system time as seconds and microseconds, then the largest resident set.
pub fn exited(pid: i32, status: i32, usage: &[i64; 18]) -> Record {
    Record {
        magic: MAGIC,
        kind: record::EXITED,
        pid,
        status,
        user_usec: (usage[0] * 1_000_000 + usage[1]) as u64,
        system_usec: (usage[2] * 1_000_000 + usage[3]) as u64,
        max_rss: usage[4] as u64,
        ..Record::default()
    }
}

fn write_exited(pipe: i32, pid: i32, status: i32, usage: &[i64; 18]) {
    let record = exited(pid, status, usage);
    sys::write_all(pipe, sys::bytes_of(&record));
}

/// A RELAY's task: it joins the container's network and serves until that ends.
pub fn relay(plan: &Plan) -> ! {
    begin(plan);
    sys::be_undumpable();
    sys::set_name(c"ringfence-relay");
    plan.run(section::PREPARE);
    sys::exit(1)
}

/// An EXEC's or CALL's first task: joins the container, starts the payload as a child of the keeper.
pub fn join(plan: &Plan, call: bool) -> ! {
    begin(plan);
    sys::be_undumpable();
    if !plan.run(section::PREPARE) {
        sys::exit(1)
    }
    let mut pidfd = -1i32;
    // In the container's pid namespace only a new child can be; CLONE_PARENT makes it the keeper's.
    let args = sys::CloneArgs {
        // One level: the innermost, which is the container's.
        set_tid: plan.set_tid().get(),
        flags: nr::CLONE_PARENT | nr::CLONE_VFORK | nr::CLONE_PIDFD | nr::CLONE_PARENT_SETTID,
        pidfd: Some(&mut pidfd),
        parent_tid: Some(plan.child_pid()),
        ..Default::default()
    };
    let child = sys::clone3(args);
    if child == 0 {
        sys::be_undumpable();
        let done = plan.run(section::PAYLOAD);
        end(plan, section::PAYLOAD, if done && call { 0 } else { 127 })
    }
    if child < 0 {
        plan.fail(NO_SECTION, keeper_step::PAYLOAD_CLONE, child);
    }
    if plan.fail_errno().get() != 0 {
        sys::exit(1)
    }
    plan.started().set(1);
    if !call {
        let started = Record { magic: MAGIC, kind: record::STARTED, pid: child as i32, ..Record::default() };
        send_record(plan.slot(slot::CHANNEL) as i32, &started, pidfd);
    }
    sys::exit(0)
}
