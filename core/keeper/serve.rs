//! The keeper's loop: requests, statuses, undo plans, the host's end.

use crate::birth::fd;
use crate::groups;
use crate::interp::{NO_SECTION, Plan, send_record};
use crate::nr;
use crate::own_maps;
use crate::proto::{
    MAGIC, MAX_FDS, MAX_GIVEN, MORE, Record, Request, hello, keeper_step, limit, plan_flag, record, request, section,
    slot,
};
use crate::role;
use crate::sys::{self, PollFd};

/// Starts and processes at once; the table is touched only as far as it was ever filled.
const TASKS: usize = 16 * 1024;
/// Shared directories for undo plans.
const SHARED: usize = 32;
/// A start shares at most one directory for each of the hierarchies that it uses.
const UNPROVEN: usize = 6;
/// Connections to a detached container's keeper.
const CONNECTIONS: usize = 16;
/// How long a keeper without containers waits for the next one.
const IDLE_MS: u64 = 3_000;
/// The shortest time between two looks at a container's processor time.
const LOOK_MS: u64 = 2;
/// How often the exec lock is tested.
const LOCK_MS: u64 = 500;
const AUTHORITY: usize = 2048;
/// `undo_at` of a container that is empty and whose groups are held for a last look.
const HELD: u64 = u64::MAX;

#[derive(Clone, Copy)]
struct Task {
    /// A request's kind; 0 is a free entry.
    kind: u32,
    key: u64,
    /// The key of the container whose end is this one's, or 0.
    pod: u64,
    /// The stage or the joiner; 0 when there is none or it was reaped.
    helper: i32,
    /// pid 1 or the payload; 0 before it exists.
    pid: i32,
    reaped: bool,
    /// Its host wants no last look: it is undone as soon as it is empty.
    released: bool,
    channel: i32,
    /// START without a resident init: where the payload's status goes.
    status_pipe: i32,
    plan: Plan,
    exited: Record,
    deadline: u64,
    /// In the undo phase: when to try (again), and for how long it was tried.
    undo_at: u64,
    undo_tries: u32,
    /// What LIFT is for, or -1: kept from the start on, closed when it has run.
    kept: i32,
    /// The child that runs LIFT, or 0.
    lifter: i32,
    /// Where and why LIFT failed.
    lift_failed: (u32, i32),
    times: Times,
}

impl Task {
    /// The process of it that was not reaped. A stage may have told the host of it and not be reaped itself.
    fn living(&self) -> Option<i32> {
        let pid = if self.pid == 0 { self.plan.child_pid().get() } else { self.pid };
        (pid > 0 && !self.reaped).then_some(pid)
    }
}

/// Time limits of a container. All times are those of `now_ms`.
#[derive(Clone, Copy)]
struct Times {
    began: u64,
    /// 0 is none.
    wall_ms: u64,
    cpu_usec: u64,
    cpus: u64,
    /// `cpu.stat` of its group, or -1.
    stat: i32,
    /// When the processor time is to be read again.
    look_at: u64,
    /// Which limit ended it.
    ended_by: u32,
}

impl Times {
    /// Reads what is used, if that is due. How long nothing is due; 0: a limit was reached.
    fn due(&mut self, now: u64) -> u64 {
        let mut next = u64::MAX;
        if self.wall_ms != 0 {
            let end = self.began.saturating_add(self.wall_ms);
            if end <= now {
                self.ended_by = limit::WALL_TIME;
                return 0;
            }
            next = end;
        }
        if self.cpu_usec != 0 && self.stat >= 0 {
            if self.look_at <= now {
                let used = sys::cpu_usec(self.stat);
                if used >= self.cpu_usec {
                    self.ended_by = limit::CPU_TIME;
                    return 0;
                }
                // It cannot be reached before every processor worked for it all the time. Not more often than this: a look
                // costs some microseconds.
                let soonest = (self.cpu_usec - used) / 1000 / self.cpus.max(1);
                self.look_at = now.saturating_add(soonest.max(LOOK_MS));
            }
            next = next.min(self.look_at);
        }
        next
    }
}

pub struct Keeper {
    host: i32,
    /// The inode of the host's pid namespace, which is this one.
    pid_namespace: u64,
    flags: u32,
    leaving: bool,
    /// A detached container can be found by its record: it stays when the host goes.
    kept: bool,
    /// A container was asked for: a detached keeper has no other after it.
    had: bool,
    /// Of zeroes that were never touched, from `used` on.
    table: &'static mut [Task],
    /// Entries ever used: the rest of the table was never touched.
    used: usize,
    live: usize,
    idle_since: u64,
    /// Threads of its host that wait for somebody else before they ask for a container.
    held: i32,
    lock_at: u64,
    shared: [i32; SHARED],
    /// Shared by a host that ended before it could be looked at: never for an undo part, only for `sweep_groups`.
    unproven: [i32; UNPROVEN],
    connections: [i32; CONNECTIONS],
    authority: [u8; AUTHORITY],
    authority_len: usize,
}

pub fn serve(mut keeper: Keeper) -> ! {
    loop {
        keeper.turn()
    }
}

impl Keeper {
    pub fn new(host: i32, pid_namespace: u64, flags: u32) -> Keeper {
        let len = TASKS * core::mem::size_of::<Task>();
        let table = sys::map(len, false);
        if table < 0 {
            sys::exit(71)
        }
        // Children have no use for it, and it would count as theirs.
        const MADV_DONTFORK: u64 = 10;
        // SAFETY: the whole mapping, which is missing in children: none of them comes back to this, or looks at the table.
        unsafe { sys::advise(table as *mut u8, len, MADV_DONTFORK) };
        Keeper {
            host,
            pid_namespace,
            flags,
            leaving: false,
            kept: false,
            had: false,
            // SAFETY: the whole mapping, of nobody else's, which this process never unmaps; zeroes are a `Task`.
            table: unsafe { core::slice::from_raw_parts_mut(table as *mut Task, TASKS) },
            used: 0,
            live: 0,
            idle_since: sys::now_ms(),
            held: 0,
            lock_at: 0,
            shared: [-1; SHARED],
            unproven: [-1; UNPROVEN],
            connections: [-1; CONNECTIONS],
            authority: [0; AUTHORITY],
            authority_len: 0,
        }
    }

    fn task(&mut self, index: usize) -> &mut Task {
        &mut self.table[index]
    }

    fn detached(&self) -> bool {
        self.flags & hello::DETACHED != 0
    }

    fn turn(&mut self) {
        let now = sys::now_ms();
        let timeout = self.timers(now);
        let mut fds = [const { PollFd { fd: -1, events: nr::POLLIN, revents: 0 } }; 4 + CONNECTIONS];
        fds[0].fd = fd::SIGNALS;
        fds[1].fd = if self.leaving && !self.detached() { -1 } else { fd::CONTROL };
        fds[2].fd = if self.detached() { -1 } else { fd::HOST };
        fds[3].fd = if self.detached() { fd::LISTEN } else { -1 };
        for (poll, &connection) in fds[4..].iter_mut().zip(&self.connections) {
            poll.fd = connection;
        }
        sys::poll(&mut fds, timeout);
        if fds[0].revents != 0 {
            sys::read(fd::SIGNALS, &mut [0; 1024]);
            self.reap();
        }
        if fds[2].revents != 0 {
            self.host_ended();
        }
        if fds[1].revents != 0 && !self.receive(fd::CONTROL) {
            // The host closed its end: it ended, it executed something else, or it wants this keeper to go.
            sys::close(fd::CONTROL);
            if !self.detached() {
                self.leave();
            } else if self.used == 0 {
                self.exit()
            } else if !self.kept {
                // Nobody would ever find it.
                self.host_ended();
            } else {
                sys::dup3(fd::LIFELINE, fd::CONTROL, nr::O_CLOEXEC);
            }
        }
        if fds[3].revents != 0 {
            self.accept();
        }
        for i in 0..CONNECTIONS {
            if fds[4 + i].revents != 0 && !self.receive(self.connections[i]) {
                sys::close(self.connections[i]);
                self.connections[i] = -1;
            }
        }
    }

    /// Does what is due; how long poll may sleep.
    fn timers(&mut self, now: u64) -> i64 {
        let mut next = u64::MAX;
        for index in 0..self.used {
            let task = self.task(index);
            if task.kind == 0 {
                continue;
            }
            let limited = task.kind == request::START && task.undo_at == 0 && task.times.ended_by == limit::NONE;
            if limited && task.plan.started().get() != 0 {
                match task.times.due(now) {
                    0 => self.kill(index),
                    at => next = next.min(at),
                }
            }
            let task = self.task(index);
            if task.undo_at != 0 {
                if task.undo_at <= now {
                    self.undo(index, now);
                }
                let task = self.task(index);
                if task.kind != 0 {
                    next = next.min(task.undo_at);
                }
            } else if task.deadline != 0 {
                if task.plan.started().get() != 0 {
                    task.deadline = 0;
                } else if task.deadline <= now {
                    let at = task.plan.progress().get();
                    task.plan.fail(at >> 24, at & 0xff_ffff, -nr::ETIMEDOUT as i64);
                    task.deadline = 0;
                    self.kill(index);
                } else {
                    next = next.min(task.deadline);
                }
            }
        }
        if self.live == 0 {
            if self.leaving || self.detached() && self.used > 0 {
                self.exit()
            }
            let idle_end = self.idle_since + IDLE_MS;
            if idle_end <= now && self.held <= 0 && !self.detached() {
                self.leave();
                self.exit_if_done();
            }
            next = next.min(idle_end.max(now + 1));
        } else if !self.detached() {
            // Also while it leaves: exec of the host closes the control socket too.
            if self.lock_at <= now {
                self.lock_at = now + LOCK_MS;
                if self.host_executed() {
                    self.host_ended();
                }
            }
            next = next.min(self.lock_at);
        }
        if next == u64::MAX { -1 } else { next.saturating_sub(now) as i64 }
    }

    /// The host's record lock on the exec lock's file is released by exec and by nothing else that a host does.
    fn host_executed(&self) -> bool {
        const F_UNLCK: u16 = 2;
        // struct flock: type 16 bits, whence 16 bits, start, len, pid.
        let mut lock = [1u64, 0, 0, 0];
        let r = sys::get_lock(fd::EXEC_LOCK, &mut lock);
        r == 0 && lock[0] as u16 == F_UNLCK
    }

    fn host_ended(&mut self) {
        self.leave();
        sys::dup3(fd::LIFELINE, fd::HOST, nr::O_CLOEXEC);
        for index in 0..self.used {
            let task = self.task(index);
            if task.kind != 0 && task.undo_at == 0 {
                self.kill(index);
            } else if task.kind != 0 && task.undo_at == HELD {
                self.release(index);
            }
        }
        self.exit_if_done();
    }

    /// Nobody wants a last look any more.
    fn release(&mut self, index: usize) {
        let now = sys::now_ms();
        self.task(index).undo_at = now;
        self.undo(index, now);
    }

    /// Takes no more requests; what was queued is served. EPIPE tells the host to start another keeper.
    fn leave(&mut self) {
        if self.leaving {
            return;
        }
        self.leaving = true;
        sys::shutdown(fd::CONTROL, 0);
        while self.receive(fd::CONTROL) {}
        // No RELEASE can come any more.
        for index in 0..self.used {
            if self.task(index).kind != 0 && self.task(index).undo_at == HELD {
                self.release(index);
            }
        }
    }

    fn exit_if_done(&mut self) {
        if self.live == 0 && self.leaving {
            self.exit()
        }
    }

    fn exit(&mut self) -> ! {
        // A middle task that stayed as the parent (it pins the host's memory) ends when it has no child any more. Were it ended
        // first, a subreaper host would get this process as a child, and its SIGCHLD.
        self.sweep_groups();
        self.shared.iter().chain(&self.unproven).filter(|&&fd| fd >= 0).for_each(|&fd| groups::remove_made(fd));
        sys::exit(0)
    }

    /// The host makes a container's control groups before it asks for the container: killed in between, it leaves groups that no
    /// undo part names. Their names begin with this keeper's pid namespace and pid.
    fn sweep_groups(&self) {
        let mut own = [0u8; 64];
        let namespace = sys::decimal(&mut own, self.pid_namespace);
        own[namespace] = b'-';
        let pid = sys::decimal(&mut own[namespace + 1..], sys::getpid() as u64);
        let own_len = namespace + 1 + pid + 1;
        own[own_len - 1] = b'-';
        for &shared in self.shared.iter().chain(&self.unproven).filter(|&&fd| fd >= 0) {
            groups::each_directory(shared, |dir, name| {
                if name.to_bytes().strip_prefix(b"rf-").is_some_and(|rest| rest.starts_with(&own[..own_len])) {
                    groups::remove(dir, name);
                }
                true
            });
        }
    }

    fn accept(&mut self) {
        let connection = sys::accept(fd::LISTEN, nr::O_CLOEXEC);
        if connection < 0 {
            return;
        }
        match self.connections.iter().position(|&c| c < 0) {
            Some(free) => {
                sys::set_option(connection as i32, sys::SOL_SOCKET, sys::SO_PASSCRED, &[1]);
                self.connections[free] = connection as i32;
            }
            None => sys::close(connection as i32),
        }
    }

    /// One request, if there is one. False when the other end is gone.
    fn receive(&mut self, from: i32) -> bool {
        let mut req = Request::default();
        let size = core::mem::size_of::<Request>();
        let mut fds = [-1i32; 256];
        let got = match sys::receive(from, sys::bytes_of_mut(&mut req), &mut fds) {
            Ok(got) if got.len == 0 && got.nfds == 0 => return false,
            Ok(got) => got,
            Err(errno) if errno == -nr::EAGAIN as i64 || errno == -nr::EINTR as i64 => return !self.leaving,
            Err(errno) => return errno == -nr::EINVAL as i64,
        };
        let fds = &fds[..got.nfds];
        use request::{CALL, EXEC, LOG, RELAY, START};
        let needs_channel = matches!(req.kind, START | EXEC | CALL | RELAY | LOG);
        let sound = got.len == size
            && req.magic == MAGIC
            && req.nfds as usize == fds.len()
            && fds.len() <= MAX_FDS
            && match req.kind {
                START | EXEC | CALL | RELAY if req.flags & MORE != 0 => fds.len() == MAX_FDS,
                START => fds.len() >= 3,
                EXEC | CALL | RELAY => fds.len() >= 2,
                LOG => fds.len() == 1,
                _ => true,
            };
        if sound && self.is_entitled(&req, got.pid, from) {
            match req.kind {
                request::SHARE if fds.len() == 2 && (req.key as usize) < SHARED => {
                    sys::close(self.shared[req.key as usize]);
                    self.shared[req.key as usize] = fds[0];
                    self.answer(fds[1], record::KEPT, NO_SECTION, 0, 0);
                    sys::close(fds[1]);
                    return true;
                }
                request::START | request::EXEC | request::CALL | request::RELAY => {
                    if req.flags & MORE == 0 {
                        self.begin(&req, fds);
                    } else {
                        self.begin_with_more(&req, fds);
                    }
                    return true;
                }
                request::KILL => {
                    if let Some(index) = self.find(req.key) {
                        if let Some(pid) = self.task(index).living() {
                            sys::kill(pid, req.value);
                        }
                    }
                }
                request::RELEASE => {
                    if let Some(index) = self.find(req.key) {
                        if self.task(index).undo_at == HELD {
                            self.release(index);
                        } else {
                            self.task(index).released = true;
                        }
                    }
                }
                request::KEEP => {
                    self.kept = true;
                    // One that has ended already has told so.
                    if let Some(index) = self.find(req.key) {
                        let kept = Record { magic: MAGIC, kind: record::KEPT, ..Record::default() };
                        send_record(self.task(index).channel, &kept, -1);
                    }
                }
                request::TIMES if fds.len() <= 1 => {
                    if let Some(index) = self.find(req.key) {
                        let times = &mut self.task(index).times;
                        if let Some(&stat) = fds.first() {
                            sys::close(times.stat);
                            times.stat = stat;
                        }
                        *times = Times {
                            wall_ms: req.wall_ms,
                            cpu_usec: req.cpu_usec,
                            cpus: req.cpus.into(),
                            look_at: 0,
                            ..*times
                        };
                        return true;
                    }
                }
                request::LOG if self.detached() => {
                    let file = Record { magic: MAGIC, kind: record::FD, ..Record::default() };
                    send_record(fds[0], &file, fd::LOG);
                }
                request::HOLD => {
                    self.held = self.held.saturating_add(req.value);
                    self.idle_since = sys::now_ms();
                }
                request::LEAVE => self.leave(),
                _ => {}
            }
        } else if sound && req.kind == request::SHARE && fds.len() == 2 && got.pid == self.host {
            self.answer(fds[1], record::REFUSED, NO_SECTION, keeper_step::BAD_REQUEST, nr::EPERM);
            // A host that has ended meanwhile may have made groups in it before.
            let gone = self.read_authority(got.pid, req.tid, &mut [0u8; AUTHORITY]) == 0;
            if gone && let Some(free) = self.unproven.iter_mut().find(|fd| **fd < 0) {
                *free = fds[0];
                sys::close(fds[1]);
                return true;
            }
        } else if needs_channel && !fds.is_empty() {
            let kind = if sound { record::REFUSED } else { record::FAILED };
            self.answer(fds[0], kind, NO_SECTION, keeper_step::BAD_REQUEST, nr::EPERM);
        }
        for &fd in fds {
            sys::close(fd);
        }
        true
    }

    fn answer(&self, channel: i32, kind: u32, section: u32, op: u32, errno: i32) {
        let record = Record { magic: MAGIC, kind, section, op, errno, ..Record::default() };
        send_record(channel, &record, -1);
    }

    /// What the thread that started this keeper was allowed: uids, gids, groups, capabilities, filters, namespaces.
    pub fn remember_authority(&mut self, tid: i32) {
        let mut text = [0u8; AUTHORITY];
        self.authority_len = self.read_authority(self.host, tid, &mut text);
        self.authority = text;
    }

    fn is_entitled(&self, req: &Request, pid: i32, from: i32) -> bool {
        if from == fd::CONTROL {
            if pid != self.host {
                return false;
            }
            use request::{HOLD, KEEP, KILL, LEAVE, RELEASE, TIMES};
            if matches!(req.kind, KILL | RELEASE | KEEP | TIMES | HOLD | LEAVE) {
                return true;
            }
        }
        let mut text = [0u8; AUTHORITY];
        let len = self.read_authority(pid, req.tid, &mut text);
        len == self.authority_len && text[..len] == self.authority[..len]
    }

    fn read_authority(&self, pid: i32, tid: i32, out: &mut [u8; AUTHORITY]) -> usize {
        let mut path = [0u8; 64];
        let at = sys::proc_path(&mut path, pid, b"/task/");
        let mut tail = [0u8; 64];
        let n = sys::proc_path(&mut tail, tid, b"/");
        path[at..at + n].copy_from_slice(&tail[..n]);
        let end = at + n;
        path[end..end + 7].copy_from_slice(b"status\0");
        let file = sys::open(fd::PROC, sys::text(&path), nr::O_RDONLY);
        if file < 0 {
            return 0;
        }
        let mut status = [0u8; 4096];
        let n = sys::read(file as i32, &mut status);
        sys::close(file as i32);
        if n < 0 {
            return 0;
        }
        let mut len = 0;
        let mut keep = |bytes: &[u8]| {
            let n = bytes.len().min(AUTHORITY - len);
            out[len..len + n].copy_from_slice(&bytes[..n]);
            len += n;
        };
        for line in status[..n as usize].split(|&b| b == b'\n') {
            for name in [&b"Uid:"[..], b"Gid:", b"Groups:", b"Cap", b"NoNewPrivs:", b"Seccomp:", b"Seccomp_filters:"] {
                if line.starts_with(name) {
                    keep(line);
                }
            }
        }
        // An ordinary user's keeper, in its namespace below, may not read these of its host; a privileged one may.
        if self.flags & hello::PRIVILEGED != 0 && !self.detached() {
            for name in
                [&b"ns/mnt\0"[..], b"ns/user\0", b"ns/net\0", b"ns/pid\0", b"ns/cgroup\0", b"ns/uts\0", b"ns/ipc\0"]
            {
                path[end..end + name.len()].copy_from_slice(name);
                let mut link = [0u8; 64];
                let n = sys::readlink(fd::PROC, sys::text(&path), &mut link);
                if n > 0 {
                    keep(&link[..n as usize]);
                }
            }
        }
        len
    }

    fn find(&mut self, key: u64) -> Option<usize> {
        (0..self.used).find(|&i| self.task(i).kind == request::START && self.task(i).key == key)
    }

    /// As `begin`, with the descriptors that wait in the last one. They are all there: the host has sent them before its request.
    #[inline(never)]
    fn begin_with_more(&mut self, req: &Request, fds: &[i32]) {
        let (mut all, mut n) = ([-1i32; MAX_GIVEN], fds.len() - 1);
        all[..n].copy_from_slice(&fds[..n]);
        let queue = fds[n];
        let mut errno = 0;
        loop {
            let (mut byte, mut next) = ([0u8], [-1i32; 256]);
            match sys::receive(queue, &mut byte, &mut next) {
                Ok(got) if got.nfds == 0 => break,
                Ok(got) if n + got.nfds <= MAX_GIVEN => {
                    all[n..n + got.nfds].copy_from_slice(&next[..got.nfds]);
                    n += got.nfds;
                }
                Ok(got) => {
                    next[..got.nfds].iter().for_each(|&fd| sys::close(fd));
                    errno = nr::EINVAL;
                    break;
                }
                // The kernel has given as many as this process may have.
                Err(_) => {
                    errno = nr::EMFILE;
                    break;
                }
            }
        }
        sys::close(queue);
        if errno != 0 {
            self.answer(all[0], record::FAILED, NO_SECTION, keeper_step::MORE, errno);
            all[..n].iter().for_each(|&fd| sys::close(fd));
            return;
        }
        self.begin(req, &all[..n]);
    }

    fn begin(&mut self, req: &Request, fds: &[i32]) {
        // SAFETY: whoever asked has all the rights that this keeper was made with (`is_entitled`): the host, or who may act for it.
        let plan = match unsafe { Plan::map(fds[1]) } {
            Ok(plan) => plan,
            Err(errno) => {
                self.answer(fds[0], record::FAILED, NO_SECTION, keeper_step::MAP_PLAN, -errno as i32);
                fds.iter().for_each(|&fd| sys::close(fd));
                return;
            }
        };
        sys::close(fds[1]);
        if let Err((step, errno)) = self.begin_plan(req, fds, plan) {
            self.answer(fds[0], record::FAILED, NO_SECTION, step, errno);
            // SAFETY: nothing of it has begun.
            unsafe { plan.unmap() };
            fds.iter().enumerate().filter(|&(i, _)| i != 1).for_each(|(_, &fd)| sys::close(fd));
        }
    }

    /// Begins what a plan is for. After a refusal nothing is left of it but what the request brought.
    fn begin_plan(&mut self, req: &Request, fds: &[i32], plan: Plan) -> Result<(), (u32, i32)> {
        let start = req.kind == request::START;
        let container = if start { None } else { self.find(req.key).and_then(|i| self.task(i).living()) };
        let index = (0..self.used).find(|&i| self.task(i).kind == 0).unwrap_or(self.used);
        let without_pod = start && req.pod != 0 && self.find(req.pod).and_then(|i| self.task(i).living()).is_none();
        // A CALL for no container works with what the keeper itself may.
        let alone = req.kind == request::CALL && req.key == 0;
        if !start && !alone && container.is_none() || without_pod {
            return Err((keeper_step::NO_CONTAINER, nr::ESRCH));
        } else if index >= TASKS {
            return Err((keeper_step::TABLE_FULL, nr::ENFILE));
        }
        fill_slots(&plan, start, fds);
        let mut init_pidfd = -1;
        if let Some(pid) = container {
            // The keeper is its parent and has not reaped it: the number cannot have been given to another.
            init_pidfd = sys::pidfd_open(pid) as i32;
            plan.set_slot(slot::INIT, init_pidfd.into());
        }
        let group = plan.cgroup_slot().get();
        let mut stat = -1;
        if start && req.cpu_usec != 0 {
            let group = if group == u32::MAX { -1 } else { plan.slot(group) };
            // One name in a directory of the control group file system: nothing here can block.
            let opened = sys::open(group as i32, c"cpu.stat", nr::O_RDONLY);
            if opened < 0 {
                return Err((keeper_step::CPU_STAT, -opened as i32));
            }
            stat = opened as i32;
        }
        if let Err(failed) = own_maps::make(&plan) {
            sys::close(stat);
            sys::close(init_pidfd);
            return Err(failed);
        }
        let staged = !start || plan.flags().get() & plan_flag::STAGE != 0;
        let mut pidfd = -1i32;
        let mut args = sys::CloneArgs { exit_signal: nr::SIGCHLD, ..Default::default() };
        if group != u32::MAX {
            args.flags |= nr::CLONE_INTO_CGROUP;
            args.cgroup = plan.slot(group) as i32;
        }
        if !staged {
            args.flags |= plan.clone_flags().get() | nr::CLONE_PIDFD;
            args.pidfd = Some(&mut pidfd);
        }
        let child = sys::clone3(args);
        if child == 0 {
            match req.kind {
                request::START => role::start(&plan),
                request::RELAY => role::relay(&plan),
                kind => role::join(&plan, kind == request::CALL),
            }
        }
        let resident = plan.flags().get() & plan_flag::RESIDENT != 0;
        let kept = plan.kept_slot().get();
        let task = Task {
            kind: req.kind,
            key: req.key,
            pod: if start { req.pod } else { 0 },
            helper: if staged && child > 0 { child as i32 } else { 0 },
            pid: if !staged && child > 0 { child as i32 } else { 0 },
            reaped: false,
            released: false,
            channel: fds[0],
            status_pipe: if start && !resident { fds[2] } else { -1 },
            plan,
            exited: Record::default(),
            deadline: if req.timeout_ms == 0 { 0 } else { sys::now_ms() + u64::from(req.timeout_ms) },
            undo_at: 0,
            undo_tries: 0,
            kept: if start && kept < plan.nslots().get() { plan.slot(kept) as i32 } else { -1 },
            lifter: 0,
            lift_failed: (0, 0),
            times: Times {
                began: sys::now_ms(),
                wall_ms: req.wall_ms,
                cpu_usec: req.cpu_usec,
                cpus: req.cpus.into(),
                stat,
                look_at: 0,
                ended_by: limit::NONE,
            },
        };
        let open_still = [task.channel, task.status_pipe, task.kept];
        self.used = self.used.max(index + 1);
        self.had |= start;
        self.live += 1;
        *self.task(index) = task;
        if child < 0 {
            plan.fail(NO_SECTION, keeper_step::CLONE, child);
        } else if !staged {
            let created = Record { magic: MAGIC, kind: record::CREATED, pid: child as i32, ..Record::default() };
            send_record(task.channel, &created, pidfd);
            if !role::open_gate(&plan, child as i32) {
                sys::kill(child as i32, nr::SIGKILL);
            }
        }
        sys::close(pidfd);
        sys::close(init_pidfd);
        for (i, &fd) in fds.iter().enumerate() {
            if i != 1 && !open_still.contains(&fd) {
                sys::close(fd);
            }
        }
        plan.release_pages();
        if child < 0 {
            self.settle(index);
        }
        Ok(())
    }

    fn kill(&mut self, index: usize) {
        let task = *self.task(index);
        for pid in [task.living().unwrap_or(0), task.helper] {
            if pid > 0 {
                sys::kill(pid, nr::SIGKILL);
            }
        }
    }

    /// A container of the pod that `key` holds, or a relay of it, that has not ended.
    fn depends_on(&mut self, index: usize, key: u64) -> bool {
        let task = self.task(index);
        match task.kind {
            request::START => task.pod == key && task.undo_at == 0,
            request::RELAY => task.key == key,
            _ => false,
        }
    }

    fn has_dependents(&mut self, index: usize) -> bool {
        let key = self.task(index).key;
        let holds = self.task(index).kind == request::START;
        holds && (0..self.used).any(|i| self.depends_on(i, key))
    }

    /// The containers of a pod end with the one that holds its namespaces, relays with their container.
    fn kill_dependents(&mut self, key: u64) {
        for index in 0..self.used {
            if self.depends_on(index, key) {
                self.kill(index);
            }
        }
    }

    fn reap(&mut self) {
        loop {
            let mut status = 0i32;
            let mut usage = [0i64; 18];
            // WNOHANG | __WALL
            let pid = sys::wait4(-1, &mut status, 0x4000_0001, Some(&mut usage)) as i32;
            if pid <= 0 {
                return;
            }
            if let Some(index) = (0..self.used).find(|&i| self.task(i).kind != 0 && self.task(i).lifter == pid) {
                self.lifted(index);
                continue;
            }
            let Some(index) = (0..self.used).find(|&i| {
                let task = self.task(i);
                task.kind != 0
                    && task.undo_at == 0
                    && (task.helper == pid
                        || task.pid == pid && !task.reaped
                        || task.pid == 0 && !task.reaped && task.plan.child_pid().get() == pid)
            }) else {
                continue;
            };
            let task = self.task(index);
            let plan = task.plan;
            if task.helper == pid {
                task.helper = 0;
                let child = plan.child_pid().get();
                if task.pid == 0 && !task.reaped && child > 0 {
                    task.pid = child;
                }
                if status != 0 && task.pid > 0 && !task.reaped && task.kind == request::START {
                    sys::kill(task.pid, nr::SIGKILL);
                }
                if status != 0 {
                    plan.fail(NO_SECTION, keeper_step::KILLED, -nr::ESRCH as i64);
                }
            } else {
                task.pid = pid;
                task.reaped = true;
                task.exited = Record { limit: task.times.ended_by, ..role::exited(pid, status, &usage) };
                let (kind, key) = (task.kind, task.key);
                if kind == request::START {
                    self.kill_dependents(key);
                }
            }
            self.settle(index);
        }
    }

    /// Sends what is known, and ends the entry when nothing of it is left.
    fn settle(&mut self, index: usize) {
        let task = *self.task(index);
        if task.helper != 0 || task.pid != 0 && !task.reaped {
            return;
        }
        let plan = task.plan;
        let (started, errno) = (plan.started().get() != 0, plan.fail_errno().get());
        let (section, op) = (plan.fail_section().get(), plan.fail_op().get());
        match task.kind {
            request::START => {
                if !started {
                    let (section, op, errno) =
                        if errno != 0 { (section, op, errno) } else { (NO_SECTION, keeper_step::KILLED, nr::ESRCH) };
                    let failed = Record {
                        magic: MAGIC,
                        kind: record::FAILED,
                        section,
                        op,
                        errno,
                        status: task.exited.status,
                        ..Record::default()
                    };
                    send_record(task.channel, &failed, -1);
                } else if task.status_pipe >= 0 {
                    sys::write_all(task.status_pipe, sys::bytes_of(&task.exited));
                }
                if task.status_pipe >= 0 {
                    sys::close(task.status_pipe);
                }
                if started {
                    self.end_others(index);
                }
                let now = sys::now_ms();
                if started && !task.released && !self.detached() && !self.leaving {
                    self.task(index).undo_at = HELD;
                    let empty =
                        Record { magic: MAGIC, kind: record::EMPTY, limit: task.times.ended_by, ..Record::default() };
                    if send_record(task.channel, &empty, -1) == 0 {
                        return;
                    }
                }
                self.task(index).undo_at = now;
                self.undo(index, now);
            }
            request::EXEC => {
                if errno != 0 {
                    self.answer(task.channel, record::FAILED, section, op, errno);
                } else {
                    send_record(task.channel, &task.exited, -1);
                }
                self.forget(index);
            }
            request::RELAY => {
                if !started {
                    self.answer(task.channel, record::FAILED, section, op, errno);
                }
                self.forget(index);
                // Its container may have waited for it alone.
                if let Some(container) = self.find(task.key)
                    && !matches!(self.task(container).undo_at, 0 | HELD)
                {
                    self.task(container).undo_at = sys::now_ms();
                }
            }
            _ => {
                let kind = if errno != 0 { record::FAILED } else { record::ENDED };
                self.answer(task.channel, kind, section, op, errno);
                self.forget(index);
            }
        }
    }

    /// Runs END: what is left of a container must not go on until somebody asks for its end.
    fn end_others(&mut self, index: usize) {
        let shared = self.shared;
        let plan = self.task(index).plan;
        if plan.section(section::END).len == 0 {
            return;
        }
        for (i, &fd) in shared.iter().enumerate() {
            plan.set_slot((slot::SHARED + i) as u32, fd.into());
        }
        // What fails here, UNDO tries again.
        plan.run(section::END);
        plan.fail_errno().set(0);
    }

    /// Has LIFT run by a child, before the rest is undone: the keeper itself waits for no disk.
    fn lift(&mut self, index: usize) {
        let task = self.task(index);
        let plan = task.plan;
        task.undo_at = HELD;
        if task.lifter != 0 {
            return;
        }
        for i in 0..plan.nslots().get() {
            plan.set_slot(i, -1);
        }
        plan.set_slot(slot::KEPT, task.kept.into());
        plan.fail_errno().set(0);
        let args = sys::CloneArgs { exit_signal: nr::SIGCHLD, ..Default::default() };
        let child = sys::clone3(args);
        if child == 0 {
            role::lift(&plan)
        }
        self.task(index).lifter = child.max(0) as i32;
        if child < 0 {
            plan.fail(section::LIFT as u32, 0, child);
            self.lifted(index);
        }
    }

    fn lifted(&mut self, index: usize) {
        let task = self.task(index);
        task.lift_failed = (task.plan.fail_op().get(), task.plan.fail_errno().get());
        task.lifter = 0;
        sys::close(task.kept);
        task.kept = -1;
        self.undo(index, sys::now_ms());
    }

    /// Runs the undo plan; what is still busy is tried again, less and less often, for half a minute.
    fn undo(&mut self, index: usize, now: u64) {
        const TRIES: u32 = 40;
        if self.task(index).kept >= 0 {
            return self.lift(index);
        }
        let others_live = self.has_dependents(index);
        let shared = self.shared;
        let task = self.task(index);
        let plan = task.plan;
        for (i, &fd) in shared.iter().enumerate() {
            plan.set_slot((slot::SHARED + i) as u32, fd.into());
        }
        plan.set_slot(slot::CHANNEL, task.channel.into());
        plan.fail_errno().set(0);
        // What is in its namespaces, groups and ids is still used by the containers that end with it.
        let waits = others_live && task.undo_tries < TRIES;
        let busy = waits || !plan.run(section::UNDO) && plan.fail_errno().get() == nr::EBUSY;
        if busy && task.undo_tries < TRIES {
            task.undo_tries += 1;
            task.undo_at = now + (1 << task.undo_tries.min(10)).min(1000);
            return;
        }
        let (at, op, errno) = match task.lift_failed {
            (_, 0) => (section::UNDO, plan.fail_op().get(), plan.fail_errno().get()),
            (op, errno) => (section::LIFT, op, errno),
        };
        let mut ended = task.exited;
        ended.magic = MAGIC;
        ended.kind = record::ENDED;
        ended.pid = 0;
        ended.section = at as u32;
        ended.op = op;
        ended.errno = errno;
        let channel = task.channel;
        if self.detached() {
            self.write_status(&ended);
        }
        send_record(channel, &ended, -1);
        self.forget(index);
    }

    /// A detached container's last word, for whoever finds it by name: the library reads this record. Its log was memory
    /// until now, as long as its shared offset says.
    fn write_status(&self, ended: &Record) {
        const SEEK_CUR: i32 = 1;
        let length = sys::lseek(fd::LOG, 0, SEEK_CUR);
        let mut from = 0i64;
        while from < length {
            let rest = (length - from) as u64;
            if sys::sendfile(fd::LOG_FILE, fd::LOG, &mut from, rest) <= 0 {
                break;
            }
        }
        sys::write_all(fd::STATUS_FILE, sys::bytes_of(ended));
    }

    fn forget(&mut self, index: usize) {
        let task = self.task(index);
        task.kind = 0;
        // SAFETY: a free entry's plan is not looked at, and those who called this look at theirs no more.
        unsafe { task.plan.unmap() };
        sys::close(task.times.stat);
        sys::close(task.channel);
        self.live -= 1;
        if self.live == 0 && !self.had {
            // What was done before its container makes no end of it.
            self.used = 0;
        }
        self.idle_since = sys::now_ms();
    }
}

/// What a plan's slots hold in the beginning.
fn fill_slots(plan: &Plan, start: bool, fds: &[i32]) {
    for i in 0..plan.nslots().get() {
        plan.set_slot(i, -1);
    }
    plan.set_slot(slot::CHANNEL, fds[0].into());
    plan.set_slot(slot::STATUS, if start { fds[2].into() } else { -1 });
    plan.set_slot(slot::LIFELINE, fd::LIFELINE.into());
    plan.set_slot(slot::PROC, fd::PROC.into());
    let first = if start { 3 } else { 2 };
    for (i, &fd) in fds[first..].iter().enumerate() {
        plan.set_slot(slot::FIRST + i as u32, fd.into());
    }
}
