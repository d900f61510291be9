//! Limits and guarantees of memory against real loads, and against what the kernel counted.
//!
//! tests/run: timeout=600 vm=root

use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

use common::*;
use ringfence::{Command, Container, ErrorKind, EventKind, EventOptions, Reason};

#[allow(dead_code, reason = "each test program uses a part of it")]
mod common;

const MIB: u64 = 1 << 20;

/// Fills memory that cannot be given back but by swapping.
fn fill(container: &Container, mib: u64) -> Ran {
    let script = "$x = \"x\" x ($ARGV[0] << 20); print length($x) >> 20";
    exec_in(container, Command::new("perl").args(["-e", script, &mib.to_string()]))
}

/// A line of one of the container's control files.
fn counted(container: &Container, file: &str, key: &str) -> u64 {
    let text = fs::read_to_string(group_of(container, "memory", "memory").0.join(file)).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("no {key} in {text}")).trim().parse().unwrap()
}

/// Whether memory is on cgroup v2 for this caller.
fn on_v2() -> bool {
    match try_run(json!({"argv": ["true"], "memory": "64M", "memory_high": "32M"})) {
        Ok(_) => true,
        Err(e) if e.field() == Some("memory_high") && e.kind() == ErrorKind::Unsupported => false,
        Err(e) => panic!("{e}"),
    }
}

#[test]
fn a_mebibyte_too_much_is_killed() {
    if !can_limit() {
        return skip("no control group for this caller");
    }
    // What perl itself needs is measured first, so that the rest is the payload's own.
    let wide = start(json!({"memory": 512 * MIB, "swap": 0}));
    assert_eq!(fill(&wide, 64).out, "64");
    let peak = wide.usage().unwrap().memory_peak.unwrap();
    assert!(peak > 64 * MIB, "{peak}");
    wide.close(None).unwrap();

    let enough = start(json!({"memory": peak + 4 * MIB, "swap": 0}));
    assert_eq!(fill(&enough, 64).out, "64", "a little more than it needs");
    assert_eq!(enough.usage().unwrap().memory_oom_kills, Some(0));
    enough.close(None).unwrap();

    let short = start(json!({"memory": 63 * MIB, "swap": 0}));
    let options = EventOptions { kinds: Some(vec![EventKind::OomKill]), ..EventOptions::default() };
    let events = short.events(&options).unwrap();
    let ran = fill(&short, 64);
    assert_eq!((ran.status.signal, ran.status.reason), (Some(libc::SIGKILL), Reason::OutOfMemory), "{ran:?}");
    let event = events.next(TIMEOUT).unwrap().expect("an event");
    assert_eq!((event.kind, event.count, event.total), (EventKind::OomKill, 1, 1));
    let usage = short.usage().unwrap();
    assert_eq!((usage.memory_oom_kills, usage.memory_max), (Some(1), Some(63 * MIB)));
    assert!(usage.memory_limit_hits >= Some(1), "{usage:?}");
    assert!(usage.memory_peak > Some(62 * MIB) && usage.memory_peak <= Some(63 * MIB), "{usage:?}");
    short.close(None).unwrap();
}

/// The group above two neighbours, which share a limit of memory.
struct Pressed {
    name: PathBuf,
    directory: PathBuf,
}

impl Pressed {
    fn new(name: &str, limit: u64) -> Self {
        let parent = PathBuf::from(std::env::var_os("RINGFENCE_CGROUP_PARENT").unwrap());
        let name = parent.join(format!("{name}-{}", std::process::id()));
        let directory = Path::new("/sys/fs/cgroup").join(name.strip_prefix("/").unwrap());
        fs::create_dir(&directory).unwrap();
        let made = Self { name, directory };
        fs::write(made.directory.join("memory.max"), limit.to_string()).unwrap();
        made
    }
}

impl Drop for Pressed {
    fn drop(&mut self) {
        until("the group is empty", || fs::remove_dir(&self.directory).is_ok());
    }
}

/// One container has 32 MiB of page cache; a neighbour reads so much that both together come up against the limit above
/// them. What the first has left, and what it has to read again.
fn beside_a_greedy_neighbour(name: &str, guarantee: Value) -> (u64, u64) {
    // Files with holes cost no disk, and their pages are page cache as any.
    let files = public_tmp();
    for (name, mib) in [("kept", 32), ("other", 192)] {
        File::create(files.path().join(name)).unwrap().set_len(mib * MIB).unwrap();
    }
    let above = Pressed::new(name, 64 * MIB);
    let common = json!({"cgroup_parent": above.name, "mounts": [format!("{}:/data", files.path().display())]});
    let kept = start(with(common.clone(), guarantee));
    let greedy = start(with(common, json!({"memory": "1G"})));
    let file = |container: &Container| counted(container, "memory.stat", "file");
    sh_in(&kept, "cat /data/kept > /dev/null");
    let before = file(&kept);
    assert!(before >= 32 * MIB, "{before}");
    sh_in(&greedy, "cat /data/other > /dev/null");
    assert!(counted(&greedy, "memory.stat", "pgscan") > 0, "no pressure");
    let left = file(&kept);
    let refaults = counted(&kept, "memory.stat", "workingset_refault_file");
    sh_in(&kept, "cat /data/kept > /dev/null");
    let again = counted(&kept, "memory.stat", "workingset_refault_file") - refaults;
    assert_eq!(kept.usage().unwrap().memory_oom_kills, Some(0));
    assert_eq!(greedy.usage().unwrap().memory_oom_kills, Some(0));
    kept.close(None).unwrap();
    greedy.close(None).unwrap();
    println!("{name}: {left} bytes of {before} left, {again} pages read again");
    (left, again)
}

#[test]
fn guarantees_hold_beside_a_greedy_neighbour() {
    if !can_limit() {
        return skip("no control group for this caller");
    }
    if !on_v2() {
        return skip("cgroup v1 guarantees no memory");
    }
    let (left, again) = beside_a_greedy_neighbour("nothing", json!({"memory": "64M"}));
    assert!(left < 16 * MIB && again > 4096, "without a guarantee it is reclaimed");
    for (name, guarantee) in [("min", json!({"memory_min": "48M"})), ("low", json!({"memory_low": "48M"}))] {
        let (left, again) = beside_a_greedy_neighbour(name, guarantee);
        assert!(left >= 32 * MIB && again == 0, "memory_{name}");
    }
}

#[test]
fn a_guarantee_that_cannot_be_kept_is_told() {
    if !can_limit() {
        return skip("no control group for this caller");
    }
    if !on_v2() {
        return skip("cgroup v1 guarantees no memory");
    }
    let files = public_tmp();
    for (name, mib) in [("a", 40), ("b", 40)] {
        File::create(files.path().join(name)).unwrap().set_len(mib * MIB).unwrap();
    }
    // Both together have more guaranteed than there is.
    let above = Pressed::new("both", 64 * MIB);
    let fields = json!({
        "cgroup_parent": above.name, "memory_low": "48M", "mounts": [format!("{}:/data", files.path().display())],
    });
    let (a, b) = (start(fields.clone()), start(fields));
    let options = EventOptions { kinds: Some(vec![EventKind::MemoryLow]), ..EventOptions::default() };
    let events = a.events(&options).unwrap();
    sh_in(&a, "cat /data/a > /dev/null");
    assert_eq!(a.usage().unwrap().memory_low_hits, Some(0));
    sh_in(&b, "cat /data/b > /dev/null");
    let hits = counted(&a, "memory.events", "low");
    assert!(hits > 0);
    assert_eq!(a.usage().unwrap().memory_low_hits, Some(hits));
    let mut told = 0;
    while told < hits {
        let event = events.next(TIMEOUT).unwrap().expect("an event");
        assert_eq!(event.kind, EventKind::MemoryLow);
        told = event.total;
    }
    assert_eq!(told, hits);
    a.close(None).unwrap();
    b.close(None).unwrap();
}

#[test]
fn page_cache_is_given_back_on_request() {
    if !can_limit() {
        return skip("no control group for this caller");
    }
    // Not holes, and not below TMPDIR, which may be in memory.
    let files = public_tmp();
    let path = files.path().join("file");
    let bytes = (0..32 * MIB).scan(1u64, |random, _| {
        *random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        Some((*random >> 56) as u8)
    });
    fs::write(&path, bytes.collect::<Vec<_>>()).unwrap();
    let file = File::open(&path).unwrap();
    file.sync_all().unwrap();
    // Whoever reads it first has it in its own account.
    // SAFETY: the descriptor is open, and no memory is passed.
    assert_eq!(unsafe { libc::posix_fadvise(file.as_raw_fd(), 0, 0, libc::POSIX_FADV_DONTNEED) }, 0);
    let container = start(json!({"memory": "256M", "mounts": [format!("{}:/data", files.path().display())]}));
    sh_in(&container, "cat /data/file > /dev/null");
    let cached = || container.usage().unwrap().memory_file.unwrap();
    let before = cached();
    assert!(before >= 32 * MIB, "{before}");
    match container.reclaim(8 * MIB) {
        Err(e) if e.kind() == ErrorKind::Unsupported => {
            container.close(None).unwrap();
            return skip(&e.to_string());
        }
        taken => assert!(taken.unwrap(), "there is enough to take"),
    }
    let fallen = before - cached();
    println!("{fallen} bytes of {before}");
    assert!((6 * MIB..=16 * MIB).contains(&fallen), "{fallen} bytes of {before}");
    container.close(None).unwrap();
}

#[test]
fn a_bound_slows_down_and_does_not_kill() {
    if !can_limit() {
        return skip("no control group for this caller");
    }
    if !on_v2() {
        return skip("cgroup v1 cannot slow a group down at a bound");
    }
    let need = || {
        let free = start(json!({"memory": "256M", "swap": 0}));
        assert_eq!(fill(&free, 32).out, "32");
        let peak = free.usage().unwrap().memory_peak.unwrap();
        free.close(None).unwrap();
        peak
    };
    // The first may also have brought perl's own pages into the cache.
    let peak = need().min(need());
    // A mebibyte less than it needs: the more, the longer it is held.
    let container = start(json!({"memory": "256M", "memory_high": peak - MIB, "swap": 0}));
    assert_eq!(fill(&container, 32).out, "32");
    assert_eq!(container.usage().unwrap().memory_oom_kills, Some(0));
    let hits = counted(&container, "memory.events", "high");
    assert!(hits > 0);
    assert_eq!(container.usage().unwrap().memory_high_hits, Some(hits));
    let waited = fs::read_to_string(group_of(&container, "memory", "memory").0.join("memory.pressure")).unwrap();
    assert!(waited.lines().all(|line| !line.ends_with("total=0")), "{waited}");
    container.close(None).unwrap();
}

#[test]
fn swap_is_used_up_to_its_limit() {
    if !can_limit() {
        return skip("no control group for this caller");
    }
    let _swap = match fs::read_to_string("/proc/swaps").unwrap_or_default().lines().count() {
        0 | 1 => match Swap::on() {
            None => return skip("this machine has no swap"),
            swap => swap,
        },
        _ => None,
    };
    const SWAP: u64 = 16 * MIB;
    let container = start(json!({"memory": 32 * MIB, "swap": SWAP}));
    let (directory, v2) = group_of(&container, "memory", "memory");
    assert!(v2, "swap is tested where memory is on v2");
    let peak = || -> u64 { fs::read_to_string(directory.join("memory.swap.peak")).unwrap().trim().parse().unwrap() };
    // Some of it has to go out.
    assert_eq!(fill(&container, 36).out, "36");
    let some = peak();
    let usage = container.usage().unwrap();
    assert_eq!((usage.memory_swap_peak, usage.memory_swap_max), (Some(some), Some(SWAP)));
    assert!((4 * MIB..=SWAP).contains(&some), "{some}");
    assert_eq!(container.usage().unwrap().memory_oom_kills, Some(0));
    // More than both limits together.
    let ran = fill(&container, 52);
    assert_eq!(ran.status.reason, Reason::OutOfMemory, "{ran:?}");
    let most = peak();
    assert!(most > SWAP * 9 / 10 && most <= SWAP, "{most}");
    let usage = container.usage().unwrap();
    assert_eq!((usage.memory_swap_peak, usage.memory_swap_max), (Some(most), Some(SWAP)));
    assert_eq!(usage.memory_swap_limit_hits, Some(counted(&container, "memory.swap.events", "max")));
    container.close(None).unwrap();
    // While it is in use: by a file in memory, which needs no process.
    let container = start(json!({"memory": 32 * MIB, "swap": SWAP}));
    sh_in(&container, "head -c 37748736 /dev/zero > /dev/shm/a");
    let current = group_of(&container, "memory", "memory").0.join("memory.swap.current");
    let now: u64 = fs::read_to_string(current).unwrap().trim().parse().unwrap();
    assert!((MIB..=SWAP).contains(&now), "{now}");
    assert_eq!(container.usage().unwrap().memory_swap, Some(now));
    container.close(None).unwrap();
    // The same without swap.
    let container = start(json!({"memory": 32 * MIB, "swap": 0}));
    assert_eq!(fill(&container, 36).status.reason, Reason::OutOfMemory);
    container.close(None).unwrap();
}
