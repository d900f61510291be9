//! Claims of id ranges: no two containers of this machine share ids, unless somebody maps them so explicitly.
//!
//! One byte of the file `ids` in the state directory stands for one range, locked on one open file description per
//! process. The keeper holds a copy of that description: a range is free again when it is released, or when both the host
//! and its keepers are gone, however they went. Nothing has to be written, cleaned up or believed.
//!
//! Root callers claim ranges of 65,536 ids of the pool that systemd and others reserve for containers. An ordinary user's
//! containers share the ids of /etc/subuid, in blocks of 1,024.

use std::fs;
use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use nix::fcntl::{OFlag, openat};
use nix::sys::stat::Mode;

use super::dir::Place;
use super::locks;
use crate::error::{Error, ErrorKind, Result};
use crate::launch::HostOnly;

/// First id, and the number of ids, of the pool for containers: 524288..=1879048191.
const POOL_START: u32 = 524_288;
const RANGE: u32 = 65_536;
const RANGES: usize = ((1_879_048_192 - POOL_START) / RANGE) as usize;

/// Of an ordinary user's sub-ids.
const BLOCK: u32 = 1024;
/// More than 64 lines of 65,536 each are not looked at.
const BLOCKS: usize = 4096;
/// Where the bytes of the blocks begin in the file.
const BLOCKS_AT: i64 = 1 << 20;

/// A range of ids, ours until it is dropped (or, if it was claimed for a detached container, until the descriptor that
/// came with it is closed everywhere).
#[derive(Debug)]
pub(crate) struct IdClaim {
    pub start: u32,
    pub count: u32,
    held: Option<Held>,
}

#[derive(Debug)]
struct Held {
    claims: Arc<Claims>,
    kind: Kind,
    at: usize,
    len: usize,
}

impl Drop for IdClaim {
    fn drop(&mut self) {
        let Some(held) = &self.held else { return };
        // A forked child shares the description: unlocking there would free the range of its parent's container.
        if held.claims.file.is_open() {
            let mut inner = held.claims.lock();
            locks::release(&held.claims.file, held.kind.byte(held.at), held.len as i64);
            inner.taken(held.kind).set(held.at..held.at + held.len, false);
        }
    }
}

/// The description on which this process's claims are locked; whoever holds a copy keeps them alive.
#[derive(Clone, Debug)]
pub(crate) struct ClaimsFile(Arc<Claims>);

impl AsFd for ClaimsFile {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.file.as_fd()
    }
}

/// The keeper is to hold a copy of this. It stays open in this process as long as a claim or the returned value lives, so
/// whoever speaks to a keeper keeps it beside.
pub(crate) fn claims_fd() -> Result<ClaimsFile> {
    current().map(ClaimsFile)
}

/// A range of `count` ids of the machine's pool, for callers with CAP_SETUID (65,536 is the customary size).
pub(crate) fn claim_range(count: u32) -> Result<IdClaim> {
    current()?.claim_range(count)
}

/// The same, locked on a description of its own: the keeper of the detached container gets it, the caller closes its copy.
pub(crate) fn claim_detached(count: u32) -> Result<(IdClaim, OwnedFd)> {
    current()?.claim_detached(count)
}

/// A range among the `pool` ids that an ordinary user's outer namespace has beside the caller's own (they are 1..=`pool`
/// there): half of the longest free run, so that the next one gets something too, and at most 65,535.
pub(crate) fn claim_within(pool: u32) -> Result<IdClaim> {
    current()?.claim_within(pool)
}

/// The same, locked on a description of its own, for a detached container's keeper.
pub(crate) fn claim_within_detached(pool: u32) -> Result<(IdClaim, OwnedFd)> {
    current()?.claim_within_detached(pool)
}

/// The open file is kept by the claims and by the keepers' connections, so that an idle process has no descriptor of ours.
fn current() -> Result<Arc<Claims>> {
    static CURRENT: Mutex<Weak<Claims>> = Mutex::new(Weak::new());
    let place = Place::now();
    let mut current = CURRENT.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(claims) = current.upgrade()
        && claims.place == place
        && claims.file.is_open()
    {
        return Ok(claims);
    }
    let claims = Arc::new(Claims::open(place)?);
    *current = Arc::downgrade(&claims);
    Ok(claims)
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Range,
    Block,
}

impl Kind {
    fn byte(self, index: usize) -> i64 {
        index as i64
            + match self {
                Self::Range => 0,
                Self::Block => BLOCKS_AT,
            }
    }
}

#[derive(Debug)]
struct Claims {
    place: Place,
    file: HostOnly,
    inner: Mutex<Inner>,
}

/// Locks do not conflict within a description: what this process has is noted beside.
#[derive(Debug)]
struct Inner {
    ranges: Bits,
    blocks: Bits,
    /// Where the search begins. A range that was just freed comes last: a file that its owner left somewhere does not
    /// belong to the very next container.
    next: usize,
    known: Known,
}

impl Inner {
    fn taken(&mut self, kind: Kind) -> &mut Bits {
        match kind {
            Kind::Range => &mut self.ranges,
            Kind::Block => &mut self.blocks,
        }
    }
}

impl Claims {
    fn open(place: Place) -> Result<Self> {
        let file = HostOnly::new(open_file(&place)?);
        // Processes begin at different places, so that they need not try each other's ranges first.
        let next = std::process::id() as usize * 61 % RANGES;
        let inner = Inner { ranges: Bits::new(RANGES), blocks: Bits::new(BLOCKS), next, known: Known::default() };
        Ok(Self { place, file, inner: Mutex::new(inner) })
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn claim_range(self: Arc<Self>, count: u32) -> Result<IdClaim> {
        let len = ranges_for(count)?;
        let mut inner = self.lock();
        let at = self.find_range(&mut inner, &self.file, len)?;
        inner.ranges.set(at..at + len, true);
        drop(inner);
        let held = Held { claims: self, kind: Kind::Range, at, len };
        Ok(IdClaim { start: POOL_START + at as u32 * RANGE, count, held: Some(held) })
    }

    fn claim_detached(&self, count: u32) -> Result<(IdClaim, OwnedFd)> {
        let len = ranges_for(count)?;
        let file = open_file(&self.place)?;
        let at = self.find_range(&mut self.lock(), &file, len)?;
        Ok((IdClaim { start: POOL_START + at as u32 * RANGE, count, held: None }, file))
    }

    fn claim_within(self: Arc<Self>, pool: u32) -> Result<IdClaim> {
        let mut inner = self.lock();
        let found = find_block(&inner.blocks, &self.file, pool)?;
        inner.blocks.set(found.clone(), true);
        drop(inner);
        let (at, len) = (found.start, found.len());
        Ok(IdClaim { held: Some(Held { claims: self, kind: Kind::Block, at, len }), ..block_claim(found) })
    }

    fn claim_within_detached(&self, pool: u32) -> Result<(IdClaim, OwnedFd)> {
        let file = open_file(&self.place)?;
        let found = find_block(&self.lock().blocks, &file, pool)?;
        Ok((block_claim(found), file))
    }

    /// Locks `len` ranges on `file`; the index of the first.
    fn find_range(&self, inner: &mut Inner, file: impl AsFd, len: usize) -> Result<usize> {
        inner.known.refresh();
        let last = RANGES - len;
        let mut denied = true;
        for step in 0..=last {
            let at = (inner.next + step) % (last + 1);
            let wanted = at..at + len;
            if inner.known.denied.any(wanted.clone()) {
                continue;
            }
            denied = false;
            if inner.ranges.any(wanted) {
                continue;
            }
            if locks::acquire(&file, Kind::Range.byte(at), len as i64).map_err(lock_failed)? {
                inner.next = (at + len) % RANGES;
                return Ok(at);
            }
        }
        let detail = "no range of ids is free between 524288 and 1879048191";
        Err(if denied {
            Error::new(ErrorKind::Unsupported, detail).with_hint(
                "either this process's own user namespace has none of them (see /proc/self/uid_map), or /etc/subuid and \
                 /etc/subgid give all of them to users: give the range explicitly, or set idmap to \"host\"",
            )
        } else {
            Error::new(ErrorKind::Exhausted, detail).with_hint("all of them belong to running containers")
        })
    }
}

fn open_file(place: &Place) -> Result<OwnedFd> {
    let dir = place.open()?;
    let flags = OFlag::O_RDWR | OFlag::O_CREAT | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    openat(&dir.fd, "ids", flags, Mode::from_bits_truncate(0o600))
        .map_err(|errno| Error::os("open", errno as i32).with_path(dir.path.join("ids").to_string_lossy()))
}

fn lock_failed(errno: nix::errno::Errno) -> Error {
    Error::os("fcntl(F_OFD_SETLK) on the claims of ids", errno as i32)
}

fn ranges_for(count: u32) -> Result<usize> {
    let len = count.div_ceil(RANGE) as usize;
    if count == 0 || len > RANGES {
        return Err(Error::spec("idmap", format!("{count} ids are not a range of the pool")));
    }
    Ok(len)
}

fn block_claim(found: Range<usize>) -> IdClaim {
    // Map 0 is the caller, so that a full range is 65,535 ids: 0..=65535 inside.
    let count = (found.len() as u32 * BLOCK).min(RANGE - 1);
    IdClaim { start: 1 + found.start as u32 * BLOCK, count, held: None }
}

/// Locks half of the longest free run of blocks on `file`.
fn find_block(own: &Bits, file: impl AsFd, pool: u32) -> Result<Range<usize>> {
    let blocks = ((pool / BLOCK) as usize).min(BLOCKS);
    loop {
        let mut taken = own.clone();
        note_conflicts(&file, 0..blocks, &mut taken).map_err(lock_failed)?;
        let Some(run) = taken.longest_clear_run(blocks) else {
            return Err(Error::new(ErrorKind::Exhausted, format!("none of this user's {pool} sub-ids is free"))
                .with_hint("running containers have them; more lines in /etc/subuid and /etc/subgid give more"));
        };
        let len = run.len().div_ceil(2).min((RANGE / BLOCK) as usize);
        if locks::acquire(&file, Kind::Block.byte(run.start), len as i64).map_err(lock_failed)? {
            return Ok(run.start..run.start + len);
        }
        // Another process was faster: look again.
    }
}

/// The kernel names one conflicting lock at a time, and not the first: what is left and right of it is asked again.
fn note_conflicts(file: impl AsFd + Copy, within: Range<usize>, taken: &mut Bits) -> nix::Result<()> {
    if within.is_empty() {
        return Ok(());
    }
    let base = Kind::Block.byte(0);
    if let Some((start, len)) = locks::conflict(file, Kind::Block.byte(within.start), within.len() as i64)? {
        let found = (start - base) as usize..(start - base + len) as usize;
        taken.set(found.clone(), true);
        note_conflicts(file, within.start..found.start, taken)?;
        note_conflicts(file, found.end..within.end, taken)?;
    }
    Ok(())
}

/// Which ranges are not ours to give: they belong to users or to their sub-ids, or this process's user namespace does not
/// have them. Read again when a file has changed.
#[derive(Debug)]
struct Known {
    denied: Bits,
    seen: Option<[Stamp; 5]>,
}

type Stamp = Option<(u64, u64, i64, i64, u64)>;

impl Default for Known {
    fn default() -> Self {
        Self { denied: Bits::new(RANGES), seen: None }
    }
}

impl Known {
    fn refresh(&mut self) {
        let paths = ["/etc/passwd", "/etc/group", "/etc/subuid", "/etc/subgid", "/proc/self/ns/user"];
        // A namespace's times are those of its inode's last instantiation, which may be this very look.
        let time = |path: &str, m: &fs::Metadata| {
            if path.starts_with("/proc") { (0, 0) } else { (m.mtime(), m.mtime_nsec()) }
        };
        let stamps = paths.map(|path| {
            fs::metadata(path).ok().map(|m| {
                let (seconds, nanoseconds) = time(path, &m);
                (m.dev(), m.ino(), seconds, nanoseconds, m.size())
            })
        });
        if self.seen == Some(stamps) {
            return;
        }
        let read = |path| String::from_utf8_lossy(&fs::read(path).unwrap_or_default()).into_owned();
        let [passwd, group, subuid, subgid, _] = paths.map(read);
        let ids = |text: &str| -> Vec<Range<u64>> {
            text.lines()
                .filter_map(|l| l.split(':').nth(2)?.parse().ok())
                .map(|id: u32| id.into()..id as u64 + 1)
                .collect()
        };
        let taken = [ids(&passwd), ids(&group), sub_ids(&subuid), sub_ids(&subgid)].concat();
        let maps = ["/proc/self/uid_map", "/proc/self/gid_map"].map(|path| mapped(&read(path)));
        self.denied = denied(&taken, &maps);
        self.seen = Some(stamps);
    }
}

fn sub_ids(text: &str) -> Vec<Range<u64>> {
    let line = |line: &str| {
        let mut fields = line.split(':').skip(1).map(|f| f.trim().parse::<u32>());
        let (start, count) = (fields.next()?.ok()?, fields.next()?.ok()?);
        Some(u64::from(start)..u64::from(start) + u64::from(count))
    };
    text.lines().filter_map(line).collect()
}

/// The ids inside of a /proc/PID/uid_map, sorted and joined.
fn mapped(text: &str) -> Vec<Range<u64>> {
    let line = |line: &str| {
        let mut fields = line.split_ascii_whitespace().map(|f| f.parse::<u64>());
        let (start, _, count) = (fields.next()?.ok()?, fields.next()?.ok()?, fields.next()?.ok()?);
        Some(start..start.saturating_add(count))
    };
    let mut ranges: Vec<Range<u64>> = text.lines().filter_map(line).collect();
    ranges.sort_by_key(|r| r.start);
    let mut joined: Vec<Range<u64>> = Vec::new();
    for range in ranges {
        match joined.last_mut() {
            Some(last) if last.end >= range.start => last.end = last.end.max(range.end),
            _ => joined.push(range),
        }
    }
    joined
}

fn denied(taken: &[Range<u64>], maps: &[Vec<Range<u64>>]) -> Bits {
    let mut denied = Bits::new(RANGES);
    let (base, range) = (u64::from(POOL_START), u64::from(RANGE));
    for ids in taken {
        let end = ids.end.saturating_sub(base).div_ceil(range).min(RANGES as u64);
        let start = (ids.start.saturating_sub(base) / range).min(end);
        denied.set(start as usize..end as usize, true);
    }
    for map in maps {
        for index in 0..RANGES {
            let start = base + index as u64 * range;
            if !map.iter().any(|m| m.start <= start && start + range <= m.end) {
                denied.set(index..index + 1, true);
            }
        }
    }
    denied
}

/// A set of small numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Bits(Vec<u64>);

impl Bits {
    fn new(len: usize) -> Self {
        Self(vec![0; len.div_ceil(64)])
    }

    fn get(&self, index: usize) -> bool {
        self.0[index / 64] >> (index % 64) & 1 == 1
    }

    fn set(&mut self, which: Range<usize>, to: bool) {
        for index in which {
            let (word, bit) = (&mut self.0[index / 64], 1 << (index % 64));
            *word = if to { *word | bit } else { *word & !bit };
        }
    }

    fn any(&self, mut which: Range<usize>) -> bool {
        which.any(|index| self.get(index))
    }

    /// The first of the longest runs of clear bits below `len`.
    fn longest_clear_run(&self, len: usize) -> Option<Range<usize>> {
        let mut best = 0..0;
        let mut start = 0;
        for index in 0..=len {
            if index == len || self.get(index) {
                if index - start > best.len() {
                    best = start..index;
                }
                start = index + 1;
            }
        }
        (!best.is_empty()).then_some(best)
    }
}

#[cfg(any(fuzzing, test))]
pub(crate) fn fuzz(text: &str) {
    denied(&sub_ids(text), &[]);
    assert!(mapped(text).windows(2).all(|pair| pair[0].end < pair[1].start), "{:?}", mapped(text));
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashSet;

    fn claims(dir: &tempfile::TempDir) -> Arc<Claims> {
        Arc::new(Claims::open(Place::at(&dir.path().join("state"))).unwrap())
    }

    #[test]
    fn the_pool_is_the_documented_one() {
        assert_eq!(POOL_START + RANGES as u32 * RANGE - 1, 1_879_048_191);
    }

    #[test]
    fn ranges_of_threads_and_processes_are_disjoint() {
        let dir = tempfile::tempdir().unwrap();
        // Two descriptions stand for two processes: to the kernel they are the same.
        let all = Mutex::new(Vec::new());
        let [one, two] = [claims(&dir), claims(&dir)];
        std::thread::scope(|scope| {
            for n in 0..8 {
                let claims = if n % 2 == 0 { &one } else { &two };
                let all = &all;
                scope.spawn(move || {
                    for _ in 0..50 {
                        all.lock().unwrap().push(claims.clone().claim_range(65_536).unwrap());
                    }
                });
            }
        });
        let all = all.into_inner().unwrap();
        let starts: HashSet<u32> = all.iter().map(|c| c.start).collect();
        assert_eq!(starts.len(), 400);
        assert!(starts.iter().all(|s| (s - POOL_START).is_multiple_of(RANGE)));
    }

    #[test]
    fn a_dropped_claim_is_free_again_for_everybody() {
        let dir = tempfile::tempdir().unwrap();
        let [one, two] = [claims(&dir), claims(&dir)];
        two.lock().next = one.lock().next;
        let first = one.clone().claim_range(65_536).unwrap();
        let start = first.start;
        let second = two.clone().claim_range(65_536).unwrap();
        assert_ne!(second.start, start);
        drop(first);
        two.lock().next = ((start - POOL_START) / RANGE) as usize;
        assert_eq!(two.clone().claim_range(65_536).unwrap().start, start);
    }

    #[test]
    fn large_ranges_are_contiguous_and_zero_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let one = claims(&dir);
        let large = one.clone().claim_range(200_000).unwrap();
        assert_eq!(large.count, 200_000);
        let next = one.clone().claim_range(1).unwrap();
        assert_eq!(next.start, large.start + 4 * RANGE);
        assert_eq!(one.clone().claim_range(0).unwrap_err().field(), Some("idmap"));
        assert!(one.claim_range(u32::MAX).is_err());
    }

    #[test]
    fn a_detached_claim_lives_as_long_as_its_descriptor() {
        let dir = tempfile::tempdir().unwrap();
        let one = claims(&dir);
        let (claim, fd) = one.claim_detached(65_536).unwrap();
        let at = ((claim.start - POOL_START) / RANGE) as usize;
        drop(claim);
        one.lock().next = at;
        assert_ne!(one.clone().claim_range(65_536).unwrap().start, POOL_START + at as u32 * RANGE);
        drop(fd);
        one.lock().next = at;
        assert_eq!(one.claim_range(65_536).unwrap().start, POOL_START + at as u32 * RANGE);
    }

    #[test]
    fn a_copy_of_the_description_keeps_the_claims() {
        let dir = tempfile::tempdir().unwrap();
        let one = claims(&dir);
        let claim = one.clone().claim_range(65_536).unwrap();
        let start = claim.start;
        // What a keeper holds when its host is killed: nothing in this process releases the claim.
        let copy = one.file.as_fd().try_clone_to_owned().unwrap();
        std::mem::forget(claim);
        let two = claims(&dir);
        let at = ((start - POOL_START) / RANGE) as usize;
        two.lock().next = at;
        assert_ne!(two.clone().claim_range(65_536).unwrap().start, start);
        nix::unistd::close(std::os::fd::AsRawFd::as_raw_fd(&one.file.as_fd())).unwrap();
        std::mem::forget(one);
        two.lock().next = at;
        assert_ne!(two.clone().claim_range(65_536).unwrap().start, start);
        drop(copy);
        two.lock().next = at;
        assert_eq!(two.claim_range(65_536).unwrap().start, start);
    }

    #[test]
    fn blocks_halve_so_that_everybody_gets_something() {
        let dir = tempfile::tempdir().unwrap();
        let [one, two] = [claims(&dir), claims(&dir)];
        let mut all = Vec::new();
        for n in 0.. {
            match (if n % 2 == 0 { &one } else { &two }).clone().claim_within(65_536) {
                Ok(claim) => all.push(claim),
                Err(e) => {
                    assert_eq!(e.kind(), ErrorKind::Exhausted);
                    break;
                }
            }
        }
        let sizes: Vec<u32> = all.iter().map(|c| c.count / BLOCK).collect();
        assert_eq!(sizes, [32, 16, 8, 4, 2, 1, 1]);
        let mut ids: Vec<(u32, u32)> = all.iter().map(|c| (c.start, c.start + c.count)).collect();
        ids.sort();
        assert_eq!((ids[0].0, ids.last().unwrap().1), (1, 65_537));
        assert!(ids.windows(2).all(|w| w[0].1 == w[1].0));
        all.clear();
        let full = one.clone().claim_within(1 << 20).unwrap();
        assert_eq!(full.count, 65_535);
        drop(full);
        let (claim, fd) = two.claim_within_detached(2048).unwrap();
        assert_eq!((claim.start, claim.count), (1, 1024));
        assert_eq!(one.clone().claim_within(2048).unwrap().start, 1025);
        drop(fd);
        assert_eq!(one.claim_within(1024).unwrap().start, 1);
    }

    #[test]
    fn maps_of_nested_user_namespaces() {
        let whole = mapped("         0          0 4294967295\n");
        assert!(!denied(&[], std::slice::from_ref(&whole)).any(0..RANGES));
        // Rootless inside: nothing of the pool.
        let small = mapped("0 1001 1\n1 100000 65536\n");
        assert_eq!(small, vec![0..65_537]);
        let none = denied(&[], &[whole.clone(), small]);
        assert!((0..RANGES).all(|i| none.get(i)));
        // Exactly two ranges, in two lines of one run.
        let two = mapped("589824 1 65536\n0 100000 589824\n655360 7 1\n");
        let left: Vec<usize> = {
            let d = denied(&[], &[two]);
            (0..RANGES).filter(|i| !d.get(*i)).collect()
        };
        assert_eq!(left, [0, 1]);
        assert_eq!(mapped("7 0 18446744073709551615\n"), vec![Range { start: 7, end: u64::MAX }]);
        let garbage = mapped("a b c\n\n1 2\n");
        assert!(garbage.is_empty());
    }

    proptest! {
        #[test]
        fn what_is_known_is_never_given(start in any::<u32>(), count in 0u32..3_000_000) {
            let text = format!("user:{start}:{count}\n# comment\nbad:x:1\nnone\n");
            let taken = sub_ids(&text);
            prop_assert_eq!(taken.len(), 1);
            let denied = denied(&taken, &[]);
            for index in 0..RANGES {
                let range = u64::from(POOL_START) + index as u64 * u64::from(RANGE);
                let overlaps = taken[0].start < range + u64::from(RANGE) && range < taken[0].end;
                prop_assert_eq!(denied.get(index), overlaps && count > 0, "{}", index);
            }
        }

        #[test]
        fn the_longest_run(bits in proptest::collection::vec(any::<bool>(), 0..200)) {
            let mut set = Bits::new(200);
            for (index, bit) in bits.iter().enumerate() {
                set.set(index..index + 1, *bit);
            }
            let longest = bits.split(|b| *b).map(<[bool]>::len).max().unwrap_or(0);
            let found = set.longest_clear_run(bits.len()).unwrap_or(0..0);
            prop_assert_eq!(found.len(), longest);
            prop_assert!(!set.any(found));
        }
    }
}
