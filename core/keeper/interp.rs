//! The interpreter: runs one section of a plan.

use core::cell::Cell;
use core::sync::atomic::AtomicU32;

use crate::files;
use crate::groups;
use crate::nr;
use crate::proto::{
    ANY, Header, IdmapEntry, Op, OwnMapEntry, Record, RelayEntry, Span, arg, pseudo, record, section, slot,
};
use crate::relay;
use crate::sys::{self, Plain};

/// A plan's buffer, mapped shared: the keeper, the stage, pid 1 and the payload see the same one, one after the other.
///
/// Whatever it says, nothing is read or written outside of it; but what its system calls do to this process is its maker's affair.
#[derive(Clone, Copy)]
pub struct Plan {
    base: *mut u8,
    pub len: usize,
}

/// The fields of the header, which whichever process is at work changes.
macro_rules! fields {
    ($($name:ident: $type:ty),*) => {$(
        pub fn $name(&self) -> &Cell<$type> {
            // SAFETY: the mapping begins at a page and is at least a header long (map); a cell is as what it holds, which is
            // integers. It stays mapped until `unmap`, which says what that takes.
            unsafe { &*(&raw const (*self.base.cast::<Header>()).$name).cast() }
        }
    )*};
}

impl Plan {
    /// Maps and checks it: nothing in it may point outside of it.
    ///
    /// # Safety
    /// Whoever made it answers for what its system calls do, whose addresses and mappings can be any.
    pub unsafe fn map(fd: i32) -> Result<Plan, i64> {
        let mut stat = [0u8; 256];
        let r = sys::fstat(fd, &mut stat);
        if r < 0 {
            return Err(r);
        }
        let mut size = [0u8; 8];
        size.copy_from_slice(&stat[nr::STAT_SIZE..nr::STAT_SIZE + 8]);
        let len = i64::from_ne_bytes(size);
        if len < core::mem::size_of::<Header>() as i64 || len > 1 << 30 {
            return Err(-nr::EINVAL as i64);
        }
        let r = sys::map_file(fd, len as usize);
        if r < 0 {
            return Err(r);
        }
        let plan = Plan { base: r as *mut u8, len: len as usize };
        if !plan.is_sound() {
            // SAFETY: nobody else has it.
            unsafe { plan.unmap() };
            return Err(-nr::EINVAL as i64);
        }
        Ok(plan)
    }

    /// # Safety
    /// Neither this nor a copy of it is used after this, nor is what they gave out.
    pub unsafe fn unmap(self) {
        // SAFETY: the whole mapping; the caller's promise.
        unsafe { sys::unmap(self.base, self.len) }
    }

    /// Gives the pages back to the file: they stay mapped but not resident in this process.
    pub fn release_pages(&self) {
        const MADV_DONTNEED: u64 = 4;
        // SAFETY: the whole mapping; of a shared file's pages nothing is lost.
        unsafe { sys::advise(self.base, self.len, MADV_DONTNEED) }
    }

    fields! {
        flags: u32, nslots: u32, slots: u32, cgroup_slot: u32, clone_flags: u64, kept_slot: u32, set_tid: i32,
        sections: [Span; section::COUNT], uid_map: Span, gid_map: Span, idmaps: Span, own_maps: u32,
        progress: u32, fail_errno: i32, fail_section: u32, fail_op: u32, started: u32, child_pid: i32
    }

    /// The futex of the gate.
    pub fn gate(&self) -> &AtomicU32 {
        // SAFETY: as above, and the same in size and alignment; only atomic operations and the kernel look at it.
        unsafe { AtomicU32::from_ptr(&raw mut (*self.base.cast::<Header>()).gate) }
    }

    pub fn section(&self, which: usize) -> Span {
        self.sections().get()[which]
    }

    /// What lies there; outside of the plan there is nothing.
    fn read<T: Plain>(&self, off: u64) -> Option<T> {
        let inside = self.fits(off, 1, core::mem::size_of::<T>() as u64);
        // SAFETY: within the mapping; whatever bytes there are, they are a `T`.
        inside.then(|| unsafe { self.base.add(off as usize).cast::<T>().read_unaligned() })
    }

    fn write<T: Plain>(&self, off: u64, value: T) {
        if self.fits(off, 1, core::mem::size_of::<T>() as u64) {
            // SAFETY: within the mapping, of which `list` says who looks at it meanwhile.
            unsafe { self.base.add(off as usize).cast::<T>().write_unaligned(value) }
        }
    }

    /// So many that lie there; outside of the plan there are none.
    ///
    /// # Safety
    /// Nothing of the plan is written for as long as they are looked at.
    unsafe fn list<T: Plain>(&self, off: u64, count: u64) -> &[T] {
        let at = self.base.wrapping_add(off as usize).cast::<T>();
        if !self.fits(off, count, core::mem::size_of::<T>() as u64) || !at.is_aligned() {
            return &[];
        }
        // SAFETY: within the mapping, aligned, and whatever bytes there are, they are `T`s; the caller's promise.
        unsafe { core::slice::from_raw_parts(at, count as usize) }
    }

    /// The bytes of a span.
    ///
    /// # Safety
    /// As for [`list`](Self::list).
    pub unsafe fn bytes(&self, span: Span) -> &[u8] {
        // SAFETY: the caller's promise.
        unsafe { self.list(span.off.into(), span.len.into()) }
    }

    fn fits(&self, off: u64, count: u64, size: u64) -> bool {
        count.checked_mul(size).and_then(|n| n.checked_add(off)).is_some_and(|end| end <= self.len as u64)
    }

    fn is_sound(&self) -> bool {
        let Some(h) = self.read::<Header>(0) else { return false };
        let op_size = core::mem::size_of::<Op>() as u64;
        if h.magic != crate::proto::MAGIC
            || h.total as usize != self.len
            || h.nslots > slot::MAX
            || h.nslots < slot::FIRST
            || h.slots % 8 != 0
            || !self.fits(h.slots.into(), h.nslots.into(), 8)
            || !self.fits(h.uid_map.off.into(), h.uid_map.len.into(), 1)
            || !self.fits(h.gid_map.off.into(), h.gid_map.len.into(), 1)
            || h.idmaps.off % 4 != 0
            || !self.fits(h.idmaps.off.into(), h.idmaps.len.into(), 16)
            || h.own_maps % 4 != 0
            || !self.fits(h.own_maps.into(), 1, 4)
            || !self.fits(
                u64::from(h.own_maps) + 4,
                self.own_map_count().into(),
                core::mem::size_of::<OwnMapEntry>() as u64,
            )
            || !(0..self.own_map_count()).all(|i| self.is_sound_own_map(&self.own_map(i), h.nslots))
            || !(0..h.idmaps.len).all(|i| self.idmap(i).slot < h.nslots)
            || (h.cgroup_slot != u32::MAX && h.cgroup_slot >= h.nslots)
        {
            return false;
        }
        // What is written to while it runs (slots, and the words of RELOCATE) is not what was looked at here: slots are last, data
        // first.
        let front = core::mem::size_of::<Header>() as u64;
        let ends = |off: u32, len: u32, size: u64| (u64::from(off), u64::from(off) + u64::from(len) * size);
        let own_maps = if h.own_maps == 0 { 0 } else { 1 };
        let looked_at = [
            ends(h.idmaps.off, h.idmaps.len, core::mem::size_of::<IdmapEntry>() as u64),
            ends(
                h.own_maps,
                own_maps,
                4 + u64::from(self.own_map_count()) * core::mem::size_of::<OwnMapEntry>() as u64,
            ),
        ];
        let mut data_end = u64::from(h.slots);
        for (off, end) in looked_at.into_iter().chain(h.sections.iter().map(|s| ends(s.off, s.len, op_size))) {
            if off != end {
                if off < front || end > h.slots.into() {
                    return false;
                }
                data_end = data_end.min(off);
            }
        }
        data_end >= front
            && h.sections.iter().all(|s| s.off % 8 == 0 && self.fits(s.off.into(), s.len.into(), op_size))
            && h.sections.iter().all(|s| (0..s.len).all(|i| self.is_sound_op(&self.op(*s, i), h.nslots, data_end)))
    }

    fn is_sound_own_map(&self, entry: &OwnMapEntry, nslots: u32) -> bool {
        let maps = [entry.uid_map, entry.gid_map];
        entry.slot < nslots && maps.iter().all(|map| self.fits(map.off.into(), map.len.into(), 1))
    }

    /// `data_end`: where the data end that an operation may write to.
    fn is_sound_op(&self, op: &Op, nslots: u32, data_end: u64) -> bool {
        let args = op.kinds.iter().zip(op.args).all(|(&kind, value)| match kind {
            arg::IMM => true,
            arg::DATA => value < self.len as u64,
            arg::SLOT => value < nslots.into(),
            _ => false,
        });
        let of = |data: usize, count: usize| op.kinds[data] == arg::DATA && op.kinds[count] == arg::IMM;
        let data = match op.nr {
            pseudo::RELOCATE => {
                let words = op.kinds[0] == arg::IMM && op.kinds[1] == arg::IMM && op.args[0] % 8 == 0;
                let end = op.args[1].checked_mul(8).and_then(|n| n.checked_add(op.args[0]));
                words && op.args[0] >= core::mem::size_of::<Header>() as u64 && end.is_some_and(|end| end <= data_end)
            }
            pseudo::CLOSE_OTHERS => of(0, 1) && op.args[0] % 4 == 0 && self.fits(op.args[0], op.args[1], 4),
            pseudo::RELAY => {
                let listed = of(0, 1) && op.args[0] % 8 == 0 && self.fits(op.args[0], op.args[1], 8);
                listed && (0..op.args[1]).all(|i| self.relay_entry(op.args[0], i).slot < nslots)
            }
            pseudo::WRITE_ALL | pseudo::COMPARE => of(1, 2) && self.fits(op.args[1], op.args[2], 1),
            pseudo::REMOVE_GROUP => op.kinds[1] == arg::DATA && self.is_text(op.args[1]),
            _ => true,
        };
        args && data && (op.out == slot::NONE || u32::from(op.out) < nslots)
    }

    /// Whether a NUL comes.
    fn is_text(&self, at: u64) -> bool {
        (at..self.len as u64).any(|at| self.read::<u8>(at) == Some(0))
    }

    /// How many there are.
    pub fn own_map_count(&self) -> u32 {
        match self.own_maps().get() {
            0 => 0,
            off => self.read(off.into()).unwrap_or_default(),
        }
    }

    pub fn own_map(&self, index: u32) -> OwnMapEntry {
        let size = core::mem::size_of::<OwnMapEntry>() as u64;
        self.read(u64::from(self.own_maps().get()) + 4 + u64::from(index) * size).unwrap_or_default()
    }

    pub fn idmap(&self, index: u32) -> IdmapEntry {
        let size = core::mem::size_of::<IdmapEntry>() as u64;
        self.read(u64::from(self.idmaps().get().off) + u64::from(index) * size).unwrap_or_default()
    }

    pub fn relay_entry(&self, off: u64, index: u64) -> RelayEntry {
        self.read(off + index * core::mem::size_of::<RelayEntry>() as u64).unwrap_or_default()
    }

    pub fn op(&self, span: Span, index: u32) -> Op {
        let size = core::mem::size_of::<Op>() as u64;
        self.read(u64::from(span.off) + u64::from(index) * size).unwrap_or_default()
    }

    fn slot_at(&self, index: u32) -> u64 {
        u64::from(self.slots().get()) + u64::from(index) * 8
    }

    pub fn slot(&self, index: u32) -> i64 {
        self.read(self.slot_at(index)).unwrap_or(-1)
    }

    pub fn set_slot(&self, index: u32, value: i64) {
        if index < self.nslots().get() {
            self.write(self.slot_at(index), value);
        }
    }

    pub fn fail(&self, section: u32, op: u32, errno: i64) {
        if self.fail_errno().get() == 0 {
            self.fail_section().set(section);
            self.fail_op().set(op);
            self.fail_errno().set(if errno < 0 { -errno as i32 } else { nr::EINVAL });
        }
    }

    /// Has this task, which ran the section, nothing open any more but what its program is to have?
    pub fn has_let_go(&self, which: usize) -> bool {
        let span = self.section(which);
        let done = if self.fail_errno().get() != 0 { self.fail_op().get().min(span.len) } else { span.len };
        (0..done).any(|index| self.op(span, index).nr == pseudo::CLOSE_OTHERS)
    }

    /// Runs a section; false after a failure, which is then in the header. It ends there, but for the removal of control
    /// groups: one that cannot be removed keeps no other from going.
    pub fn run(&self, which: usize) -> bool {
        let span = self.section(which);
        let mut exec_errno = nr::ENOENT;
        let mut index = 0;
        let mut whole = true;
        while index < span.len {
            let op = self.op(span, index);
            self.progress().set((which as u32) << 24 | (index & 0xff_ffff));
            let result = self.step(&op, &mut exec_errno);
            if result < 0 && result >= -4095 {
                let errno = -result as u16;
                if !op.ok.iter().any(|&ok| ok == errno || ok == ANY) {
                    let other_groups_go = which == section::UNDO && op.nr == pseudo::REMOVE_GROUP;
                    if other_groups_go && errno == nr::EBUSY as u16 {
                        // Of several failures the one that is worth another try.
                        self.fail_errno().set(0);
                    }
                    self.fail(which as u32, index, result);
                    if !other_groups_go {
                        return false;
                    }
                    whole = false;
                }
                if op.nr == nr::EXECVE || op.nr == nr::EXECVEAT {
                    // As execvp does: a file that may not be executed is worth more than one that is not there.
                    if exec_errno != nr::EACCES {
                        exec_errno = errno.into();
                    }
                }
                if op.out != slot::NONE {
                    self.set_slot(op.out.into(), result);
                }
                index += 1 + u32::from(op.skip_ok_errno);
            } else {
                if op.out != slot::NONE {
                    self.set_slot(op.out.into(), result);
                }
                let extra = if op.nr == pseudo::SKIP_IF_NEGATIVE && result == 1 { op.args[1] as u32 } else { 0 };
                index = (index + 1 + u32::from(op.skip_success)).saturating_add(extra);
            }
        }
        whole
    }

    fn step(&self, op: &Op, exec_errno: &mut i32) -> i64 {
        let mut args = [0u64; 6];
        for (out, (&kind, &value)) in args.iter_mut().zip(op.kinds.iter().zip(&op.args)) {
            *out = match kind {
                // RELOCATE takes offsets, not addresses.
                arg::DATA => self.base as u64 + value,
                arg::SLOT => self.slot(value as u32) as u64,
                _ => value,
            };
        }
        if op.nr < pseudo::BASE {
            loop {
                // SAFETY: `map`'s: its maker answers for it.
                let r = unsafe { sys::call_of_plan(op.nr, &args) };
                if r != -nr::EINTR as i64 {
                    return r;
                }
            }
        }
        match op.nr {
            pseudo::EXEC_FAILED => -i64::from(*exec_errno),
            pseudo::BOUNDING => bounding(args[0]),
            pseudo::AMBIENT => ambient(args[0]),
            pseudo::SEND_FD | pseudo::HAND_OVER | pseudo::LEFT_OUT | pseudo::ASK => self.say(op.nr, &args),
            pseudo::RELOCATE | pseudo::WRITE_ALL | pseudo::CLOSE_OTHERS | pseudo::COMPARE | pseudo::REMOVE_GROUP => {
                self.with_data(op, &args)
            }
            pseudo::SIGNALS => {
                // Every disposition is the default since birth: here nobody handles or ignores a signal.
                sys::block_signals(false);
                0
            }
            pseudo::VERIFY => verify(args[0] as i32, args[1] as u32, args[2]),
            pseudo::LIFELINE => {
                sys::die_with_parent();
                check_lifeline(args[0] as i32);
                0
            }
            pseudo::CHECK_CWD => check_cwd(),
            pseudo::LANDLOCK_PATH => landlock_path(args[0] as i32, args[1] as i32, args[2]),
            pseudo::RELAY => relay::run(self, op.args[0], op.args[1]),
            pseudo::FILES => {
                // From here on it takes as long as whoever asks.
                self.started().set(1);
                // SAFETY: `map`'s: its maker has the other end, or gave it to nobody who is to have less.
                unsafe { files::serve(args[0] as i32, self.slot(slot::PROC) as i32) }
            }
            pseudo::SKIP_IF_NEGATIVE => i64::from((args[0] as i64) < 0),
            _ => -nr::EINVAL as i64,
        }
    }

    /// Operations on data of the plan; `is_sound_op` looked at where they are.
    fn with_data(&self, op: &Op, args: &[u64; 6]) -> i64 {
        match op.nr {
            pseudo::RELOCATE => {
                for at in (0..args[1]).map(|i| args[0] + i * 8) {
                    match self.read::<u64>(at) {
                        None | Some(0) => {}
                        Some(word) => self.write(at, word.wrapping_add(self.base as u64)),
                    }
                }
                0
            }
            // SAFETY: none of these writes to the plan: they write to files, close, compare with what was read, remove directories.
            pseudo::WRITE_ALL => sys::write_all(args[0] as i32, unsafe { self.list(op.args[1], op.args[2]) }),
            pseudo::CLOSE_OTHERS => {
                // SAFETY: as above.
                let list = unsafe { self.list(op.args[0], op.args[1]) };
                let more = if args[2] as i32 >= 0 { Some(args[2] as u32) } else { None };
                each_gap(list, more, sys::close_range);
                0
            }
            pseudo::COMPARE => {
                // SAFETY: as above.
                let wanted = unsafe { self.list(op.args[1], op.args[2]) };
                compare(args[0] as i32, wanted, args[3] != 0)
            }
            _ => {
                // SAFETY: as above.
                let rest = unsafe { self.list(op.args[1], (self.len as u64).saturating_sub(op.args[1])) };
                groups::remove(args[0] as i32, sys::text(rest))
            }
        }
    }

    /// Operations that tell the host something.
    fn say(&self, what: u32, args: &[u64; 6]) -> i64 {
        let channel = self.slot(slot::CHANNEL) as i32;
        let numbered = |op| Record { magic: crate::proto::MAGIC, kind: record::FD, op, ..Record::default() };
        match what {
            pseudo::SEND_FD => send_record(channel, &numbered(args[1] as u32), args[0] as i32),
            pseudo::HAND_OVER => {
                let record = numbered(args[1] as u32);
                sys::send_by(args[3] as u32, args[2] as i32, sys::bytes_of(&record), args[0] as i32).min(0)
            }
            pseudo::LEFT_OUT => {
                let at = self.progress().get();
                let (section, op) = (at >> 24, at & 0xff_ffff);
                let record = Record { kind: record::LEFT_OUT, section, ..numbered(op) };
                send_record(channel, &record, -1)
            }
            _ => ask(channel, args[0] as u32),
        }
    }
}

/// Drops all capabilities but these from the bounding set.
fn bounding(kept: u64) -> i64 {
    for cap in (0..64u64).filter(|cap| kept & 1 << cap == 0) {
        let r = sys::drop_bound(cap);
        if r == 0 {
            continue;
        }
        // Who may drop none may still have none.
        match sys::read_bound(cap) {
            0 => {}
            1 => return r,
            // The kernel knows no such capability, and no higher one.
            _ => break,
        }
    }
    0
}

fn ambient(raised: u64) -> i64 {
    let failed = |&r: &i64| r < 0;
    (0..64u64).filter(|cap| raised & 1 << cap != 0).map(sys::raise_ambient).find(failed).unwrap_or(0)
}

/// fstat through O_PATH descriptors too; -ELOOP when type or device differ.
fn verify(fd: i32, format: u32, rdev: u64) -> i64 {
    let mut stat = [0u8; 256];
    let r = sys::fstat(fd, &mut stat);
    if r < 0 {
        return r;
    }
    let mut mode = [0u8; 4];
    mode.copy_from_slice(&stat[nr::STAT_MODE..nr::STAT_MODE + 4]);
    let mut device = [0u8; 8];
    device.copy_from_slice(&stat[nr::STAT_RDEV..nr::STAT_RDEV + 8]);
    let same =
        u32::from_ne_bytes(mode) & 0o170000 == format && (rdev == u64::MAX || u64::from_ne_bytes(device) == rdev);
    if same { 0 } else { -nr::ELOOP as i64 }
}

/// Calls `gap` with the first and the last of the numbers between those that are kept.
pub fn each_gap(kept: &[u32], more: Option<u32>, mut gap: impl FnMut(u32, u32)) {
    let mut from = 0;
    while let Some(keep) = kept.iter().copied().chain(more).filter(|&number| number >= from).min() {
        if keep > from {
            gap(from, keep - 1);
        }
        let Some(next) = keep.checked_add(1) else { return };
        from = next;
    }
    gap(from, u32::MAX);
}

pub fn send_record(channel: i32, record: &Record, pass: i32) -> i64 {
    sys::send(channel, sys::bytes_of(record), pass).min(0)
}

/// -ELOOP when the working directory is not below the root.
// Not inlined, as in relay.rs: a large frame is for who needs it.
#[inline(never)]
fn check_cwd() -> i64 {
    let mut buffer = [0u8; 4096];
    let r = sys::getcwd(&mut buffer);
    // The kernel writes "(unreachable)/..." for a directory that is not below the root (CVE-2024-21626).
    if r > 0 && buffer[0] != b'/' { -nr::ELOOP as i64 } else { r.min(0) }
}

/// Shows this process to the host, and waits until that has done what it can.
fn ask(channel: i32, attribute: u32) -> i64 {
    let me = sys::pidfd_open(sys::getpid() as i32);
    if me < 0 {
        return me;
    }
    let record = Record { magic: crate::proto::MAGIC, kind: record::ASK, op: attribute, ..Record::default() };
    let sent = send_record(channel, &record, me as i32);
    sys::close(me as i32);
    if sent < 0 {
        return sent;
    }
    let mut errno = [0u8; 4];
    loop {
        match sys::read(channel, &mut errno) {
            4 => return -i64::from(i32::from_ne_bytes(errno)),
            r if r == -nr::EINTR as i64 => {}
            // The host is gone, and the lifeline soon is.
            _ => return -nr::EPIPE as i64,
        }
    }
}

/// Whether a file has these words: the kernel puts tabs and a newline between and after them.
/// `begins`: with more behind them, as the mode of a profile is behind its name.
// Not inlined, as in relay.rs.
#[inline(never)]
fn compare(fd: i32, wanted: &[u8], begins: bool) -> i64 {
    let mut text = [0u8; 4096];
    let n = sys::pread(fd, &mut text);
    if n < 0 {
        return n;
    }
    let text = &text[..n as usize];
    let same = match text.strip_prefix(wanted) {
        Some(rest) if begins => rest.first().is_none_or(|&byte| byte == 0 || byte.is_ascii_whitespace()),
        _ => !begins && words(text).eq(words(wanted)),
    };
    if same { 0 } else { -nr::ERANGE as i64 }
}

/// The kernel reads the descriptor from memory, where a plan has only what was known before.
fn landlock_path(ruleset: i32, path: i32, access: u64) -> i64 {
    // struct landlock_path_beneath_attr: packed, the rights, then the descriptor.
    let mut attr = [0u8; 12];
    attr[..8].copy_from_slice(&access.to_ne_bytes());
    attr[8..].copy_from_slice(&path.to_ne_bytes());
    sys::landlock_path(ruleset, &attr)
}

fn words(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    text.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty())
}

/// The keeper's end closes the pipe's other end: whoever sees that dies, and its container with it.
pub fn check_lifeline(fd: i32) {
    let mut fds = [sys::PollFd { fd, events: nr::POLLIN, revents: 0 }];
    sys::poll(&mut fds, 0);
    if fds[0].revents != 0 {
        sys::exit(1);
    }
}

pub const NO_SECTION: u32 = section::KEEPER;
