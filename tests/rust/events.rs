//! Events of a container: what is told, that nothing is lost, and that the end comes last.
//!
//! tests/run: timeout=600 vm=root

use std::fs;
use std::os::fd::AsRawFd;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use common::*;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use ringfence::{
    Container, ErrorKind, Event, EventKind, EventOptions, Events, Pressure, PressureResource, Process, Reason,
};

#[allow(dead_code, reason = "each test program uses a part of it")]
mod common;

const MIB: u64 = 1 << 20;
const SOON: Option<Duration> = Some(Duration::from_secs(60));
const NOW: Option<Duration> = Some(Duration::ZERO);

#[track_caller]
fn all(container: &Container) -> Events {
    container.events(&EventOptions::default()).unwrap_or_else(|e| panic!("{e}"))
}

#[track_caller]
fn of(container: &Container, kinds: &[EventKind]) -> Events {
    let options = EventOptions { kinds: Some(kinds.to_vec()), ..EventOptions::default() };
    container.events(&options).unwrap_or_else(|e| panic!("{e}"))
}

/// The next event of a kind; others are passed over.
#[track_caller]
fn next_of(events: &Events, kind: EventKind) -> Event {
    loop {
        match events.next(SOON).unwrap_or_else(|e| panic!("{e}")) {
            Some(event) if event.kind == kind => return event,
            Some(event) => assert_ne!(event.kind, EventKind::Ended, "no {kind:?}"),
            None => panic!("no {kind:?} in time"),
        }
    }
}

fn python(container: &Container, script: &str) -> Process {
    container.command("python3").args(["-c", script]).stdin(ringfence::spec::Stdio::Null).spawn().expect("spawn")
}

/// Touches more memory than there is.
fn hog(container: &Container) -> Process {
    python(container, "x = bytearray(200 << 20)")
}

fn readable(events: &Events, ms: u16) -> bool {
    let mut list = [PollFd::new(events.fd(), PollFlags::POLLIN)];
    poll(&mut list, PollTimeout::from(ms)).expect("poll") == 1
}

/// The directory of the container's group with this controller; the v2 one for "".
fn group(container: &Container, controller: &str) -> Option<PathBuf> {
    let info: Value = serde_json::from_str(&container.info_json()).expect("JSON");
    let groups = info["cgroup"]["groups"].as_array().cloned().unwrap_or_default();
    let found = groups.iter().find(|g| match controller {
        "" => g["version"] == 2,
        name => g["controllers"].as_array().is_some_and(|list| list.iter().any(|c| c == name)),
    })?;
    Some(found["path"].as_str().expect("a path").into())
}

fn can(probe: Value, field: &str) -> bool {
    match try_run(with(json!({"argv": ["true"]}), probe)) {
        Ok(_) => true,
        Err(e) if e.field() == Some(field) => {
            skip(&format!("{field}: {e}"));
            false
        }
        Err(e) => panic!("{e}"),
    }
}

fn has_tree() -> bool {
    let container = start(json!({}));
    let found = group(&container, "").is_some();
    container.close(None).expect("close");
    if !found {
        skip("no cgroup v2 tree for this caller");
    }
    found
}

fn may_use_resources() -> bool {
    let status = fs::read_to_string("/proc/self/status").expect("status");
    u64::from_str_radix(&status_line(&status, "CapEff"), 16).expect("hex") & 1 << 24 != 0
}

#[test]
fn out_of_memory_is_told_with_its_count() {
    if !can(json!({"memory": 40 * MIB}), "memory") {
        return;
    }
    let container = start(json!({"memory": 40 * MIB, "swap": 0}));
    let (waiting, slow) = (all(&container), all(&container));
    assert_eq!(waiting.next(NOW), Ok(None));
    for round in 1..=3 {
        let process = hog(&container);
        let event = next_of(&waiting, EventKind::OomKill);
        assert_eq!((event.count, event.total), (1, round), "{event:?}");
        assert!(event.threshold.is_none() && event.time_ns > 1 << 60 && event.monotonic_ns > 0);
        let status = process.wait(SOON).expect("wait").expect("in time");
        assert_eq!(status.reason, Reason::OutOfMemory);
    }
    // Nobody read the other one meanwhile.
    assert!(readable(&slow, 10_000));
    let event = next_of(&slow, EventKind::OomKill);
    assert_eq!((event.count, event.total), (3, 3));
    let kills = container.usage().expect("usage").memory_oom_kills;
    assert_eq!(kills, Some(3));
    // `oom` was told before or is told now.
    let late = all(&container);
    assert_eq!(late.next(NOW), Ok(None), "what was before it was made");
    container.close(None).expect("close");
}

#[test]
fn oom_itself_is_told() {
    if !can(json!({"memory": 40 * MIB}), "memory") {
        return;
    }
    let container = start(json!({"memory": 40 * MIB, "swap": 0}));
    let events = of(&container, &[EventKind::Oom]);
    assert_eq!(events.kinds(), [EventKind::Oom, EventKind::Ended]);
    let process = hog(&container);
    let event = events.next(SOON).expect("next").expect("in time");
    assert!(event.kind == EventKind::Oom && event.count >= 1, "{event:?}");
    process.wait(SOON).expect("wait").expect("in time");
    container.close(None).expect("close");
}

#[test]
fn refused_forks_are_counted() {
    if !can(json!({"pids": 8}), "pids") {
        return;
    }
    let container = start(json!({"pids": 8}));
    let events = of(&container, &[EventKind::PidsMax]);
    let script = "
import os
refused = 0
for _ in range(20):
    try:
        if os.fork() == 0:
            os.read(0, 1); os._exit(0)
    except OSError:
        refused += 1
assert refused >= 10, refused
";
    let mut command = container.command("python3");
    let process = command.args(["-c", script]).stdin(ringfence::spec::Stdio::Pipe).spawn().expect("spawn");
    let first = next_of(&events, EventKind::PidsMax);
    assert!(first.count >= 1 && first.total == first.count);
    assert!(process.wait(SOON).expect("wait").expect("in time").success());
    let refused = container.usage().expect("usage").pids_refused.expect("counted");
    let mut total = first.total;
    while total < refused {
        let event = next_of(&events, EventKind::PidsMax);
        assert_eq!(event.total, total + event.count);
        total = event.total;
    }
    assert_eq!((total, events.next(NOW)), (refused, Ok(None)));
    container.close(None).expect("close");
}

#[test]
fn freezes_and_thaws() {
    if !has_tree() {
        return;
    }
    let container = start(json!({}));
    let (waiting, slow) = (all(&container), all(&container));
    for round in 1..=3 {
        container.freeze().expect("freeze");
        assert!(readable(&slow, 0));
        let event = waiting.next(SOON).expect("next").expect("in time");
        assert_eq!((event.kind, event.count, event.total), (EventKind::Frozen, 1, round));
        container.thaw().expect("thaw");
        let event = waiting.next(SOON).expect("next").expect("in time");
        assert_eq!((event.kind, event.count, event.total), (EventKind::Thawed, 1, round));
    }
    for kind in [EventKind::Frozen, EventKind::Thawed] {
        let event = slow.next(NOW).expect("next").expect("pending");
        assert_eq!((event.kind, event.count, event.total), (kind, 3, 3));
    }
    assert!(!readable(&slow, 0));
    // Somebody else does it.
    let file = group(&container, "").expect("a group").join("cgroup.freeze");
    let other = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(100));
        fs::write(file, "1").expect("freeze");
    });
    assert_eq!(waiting.next(SOON).expect("next").expect("in time").kind, EventKind::Frozen);
    other.join().expect("the other");
    container.thaw().expect("thaw");
    container.close(None).expect("close");
}

#[test]
fn who_is_moved_out_and_back_leaves_it_empty_and_populated() {
    if !is_root() {
        return skip("only root may move processes of others");
    }
    if !has_tree() {
        return;
    }
    let container = start(json!({}));
    let events = of(&container, &[EventKind::Empty, EventKind::Populated]);
    let own = group(&container, "").expect("a group");
    let other = own.with_file_name(format!("beside-{}", std::process::id()));
    fs::create_dir(&other).expect("a group beside it");
    let mut total = 0;
    for (to, kind) in [(&other, EventKind::Empty), (&own, EventKind::Populated)].repeat(2) {
        fs::write(to.join("cgroup.procs"), container.pid().to_string()).expect("move");
        let event = next_of(&events, kind);
        total += u64::from(kind == EventKind::Empty);
        assert_eq!((event.count, event.total), (1, total), "{event:?}");
    }
    fs::remove_dir(&other).expect("remove it");
    container.close(None).expect("close");
}

#[test]
fn the_last_counts_come_before_the_end() {
    let limited = can(json!({"memory": 40 * MIB}), "memory");
    for round in 0..if limited { 15 } else { 0 } {
        let script = "read x; exec python3 -c 'x = bytearray(200 << 20)'";
        let spec = json!({"argv": ["sh", "-c", script], "stdin": "pipe", "memory": 40 * MIB, "swap": 0});
        let container = start(spec);
        let events = [all(&container), all(&container)];
        let main = container.main().expect("a main process");
        drop(main.take_stdin());
        // The container ends with its main process, which the kernel kills: before anybody looks, or while somebody waits.
        if round % 3 == 0 {
            assert_eq!(main.wait(SOON).expect("wait").expect("in time").reason, Reason::OutOfMemory);
        }
        if round % 3 == 1 {
            assert!(container.wait_end(SOON).expect("wait"));
        }
        for events in &events {
            let told: Vec<Event> = events.iter().map(|e| e.unwrap_or_else(|e| panic!("{e}"))).collect();
            let kinds: Vec<EventKind> = told.iter().map(|e| e.kind).collect();
            let total: u64 = told.iter().filter(|e| e.kind == EventKind::OomKill).map(|e| e.count).sum();
            assert_eq!(total, 1, "round {round}: {told:?}");
            assert_eq!(kinds.last(), Some(&EventKind::Ended), "{told:?}");
            if events.kinds().contains(&EventKind::Empty) {
                assert!(kinds.contains(&EventKind::Empty), "{told:?}");
            }
            assert!(events.is_over() && readable(events, 0));
            assert_eq!(events.next(None), Ok(None));
            assert!(events.iter().next().is_none());
        }
        container.close(None).expect("close");
        // After the end: nothing but the end.
    }
    let container = start(json!({"argv": ["true"]}));
    assert!(container.wait_end(SOON).expect("wait"));
    let kinds: Vec<_> = all(&container).iter().map(|e| e.expect("event").kind).collect();
    assert_eq!(kinds, [EventKind::Ended]);
    container.close(None).expect("close");
    assert_eq!(container.events(&EventOptions::default()).expect_err("closed").kind(), ErrorKind::Closed);
}

#[test]
fn closing_wakes_those_who_wait() {
    let container = start(json!({}));
    let events = all(&container);
    let readers: Vec<_> = (0..4)
        .map(|i| {
            let events = if i < 2 { events.clone() } else { all(&container) };
            std::thread::spawn(move || {
                let mut last = None;
                while let Some(event) = events.next(None).expect("next") {
                    last = Some(event.kind);
                }
                assert!(events.is_over());
                last
            })
        })
        .collect();
    std::thread::sleep(Duration::from_millis(50));
    container.close(None).expect("close");
    let last: Vec<_> = readers.into_iter().map(|r| r.join().expect("a reader")).collect();
    // Of the two that share one, one got it.
    assert_eq!(last.iter().filter(|&&kind| kind == Some(EventKind::Ended)).count(), 3, "{last:?}");
}

#[test]
fn a_container_that_is_removed_behind_the_library() {
    let container = start(json!({}));
    let events = all(&container);
    let info: Value = serde_json::from_str(&container.info_json()).expect("JSON");
    // SAFETY: no pointers; the pid is that of a pid 1 that nobody has reaped, because its container runs.
    assert_eq!(unsafe { libc::kill(container.pid(), libc::SIGKILL) }, 0);
    for group in info["cgroup"]["groups"].as_array().cloned().unwrap_or_default() {
        let path = PathBuf::from(group["path"].as_str().expect("a path"));
        // Busy until the process is gone.
        until("rmdir", || fs::remove_dir(&path).is_ok() || !path.exists());
    }
    let started = Instant::now();
    let kinds: Vec<_> = events.iter().map(|e| e.expect("event").kind).collect();
    assert_eq!(kinds.last(), Some(&EventKind::Ended), "{kinds:?}");
    assert!(kinds.iter().all(|k| matches!(k, EventKind::Empty | EventKind::Ended)), "{kinds:?}");
    assert!(started.elapsed() < Duration::from_secs(30));
    container.close(None).expect("close");
}

#[test]
fn waits_can_be_cancelled_and_time_out() {
    let container = start(json!({}));
    let events = all(&container);
    let started = Instant::now();
    assert_eq!(events.next(Some(Duration::from_millis(80))), Ok(None));
    assert!(started.elapsed() >= Duration::from_millis(80));
    assert!(!events.is_over());
    let waiting = events.clone();
    let reader = std::thread::spawn(move || waiting.next(None));
    std::thread::sleep(Duration::from_millis(30));
    events.cancel();
    let error = reader.join().expect("the reader").expect_err("cancelled");
    assert_eq!((error.kind(), error.errno()), (ErrorKind::Closed, libc::ECANCELED));
    assert_eq!(events.next(NOW).expect_err("cancelled").kind(), ErrorKind::Closed);
    assert!(events.iter().count() == 1, "an iterator ends with its error");
    container.close(None).expect("close");
}

#[test]
fn signals_do_not_end_a_wait() {
    extern "C" fn nothing(_: i32) {}
    // SAFETY: the handler does nothing, and without SA_RESTART each signal interrupts a call.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = nothing as extern "C" fn(i32) as usize;
        libc::sigaction(libc::SIGUSR2, &raw const action, std::ptr::null_mut());
    }
    let container = start(json!({}));
    let events = all(&container);
    let (sender, receiver) = std::sync::mpsc::channel();
    let waiting = events.clone();
    let reader = std::thread::spawn(move || {
        // SAFETY: no pointers.
        sender.send(unsafe { libc::pthread_self() }).expect("send");
        waiting.next(None)
    });
    let thread = receiver.recv().expect("its thread");
    for _ in 0..20 {
        std::thread::sleep(Duration::from_millis(2));
        // SAFETY: the thread waits, so it is there.
        unsafe { libc::pthread_kill(thread, libc::SIGUSR2) };
    }
    container.close(None).expect("close");
    assert!(reader.join().expect("the reader").expect("next").is_some());
}

#[test]
fn what_cannot_be_had_is_an_error_when_it_is_asked_for() {
    if !can(json!({"memory": 40 * MIB}), "memory") {
        return;
    }
    let container = start(json!({"memory": 40 * MIB}));
    let memory_on_v2 = group(&container, "memory") == group(&container, "");
    for kind in [EventKind::MemoryHigh, EventKind::MemoryLow] {
        let options = EventOptions { kinds: Some(vec![EventKind::OomKill, kind]), ..EventOptions::default() };
        match container.events(&options) {
            Ok(events) => {
                assert!(memory_on_v2 && events.kinds().contains(&kind));
                assert!(all(&container).kinds().contains(&kind));
            }
            Err(e) => {
                assert!(!memory_on_v2, "{e}");
                assert_eq!((e.kind(), e.field()), (ErrorKind::Unsupported, Some("kinds[1]")), "{e}");
                assert!(e.hint().is_some_and(|hint| hint.contains("cgroup v2")), "{e}");
                assert!(!all(&container).kinds().contains(&kind));
            }
        }
    }
    container.close(None).expect("close");
}

#[test]
fn the_soft_limit_of_memory_on_v2() {
    let limits = json!({"memory": 48 * MIB, "memory_high": 24 * MIB, "swap": 0});
    if !can(limits.clone(), "memory_high") {
        return;
    }
    let container = start(limits);
    let events = of(&container, &[EventKind::MemoryHigh]);
    let process = python(&container, "x = bytearray(28 << 20)");
    assert!(next_of(&events, EventKind::MemoryHigh).count >= 1);
    process.wait(SOON).expect("wait").expect("in time");
    container.close(None).expect("close");
}

#[test]
fn the_hard_limit_of_memory() {
    if !can(json!({"memory": 40 * MIB}), "memory") {
        return;
    }
    let container = start(json!({"memory": 40 * MIB, "swap": 0}));
    let events = of(&container, &[EventKind::MemoryMax]);
    let process = hog(&container);
    let mut total = next_of(&events, EventKind::MemoryMax).total;
    process.wait(SOON).expect("wait").expect("in time");
    let hits = container.usage().expect("usage").memory_limit_hits.expect("counted");
    assert!(hits >= 1);
    while total < hits {
        total = next_of(&events, EventKind::MemoryMax).total;
    }
    assert_eq!(total, hits);
    container.close(None).expect("close");
}

#[test]
fn refused_swap_on_v2() {
    let swaps = fs::read_to_string("/proc/swaps").unwrap_or_default();
    let made = if swaps.lines().count() < 2 { Swap::on() } else { None };
    if swaps.lines().count() < 2 && made.is_none() {
        return skip("this machine has no swap");
    }
    if !can(json!({"memory": 40 * MIB, "memory_high": 32 * MIB}), "memory_high") {
        return;
    }
    // The kernel looks for pages to swap out only while there is room, so that it seldom meets the limit: when the last lot
    // that it takes, or a huge page, is larger than what is left. So this is tried with several limits until it does.
    let script = |advice: &str| {
        format!(
            "
import mmap, os
m = mmap.mmap(-1, 96 << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
m.madvise(mmap.MADV_{advice})
r = os.urandom(1 << 20)
while True: m.write(r)
"
        )
    };
    let met = (0..24u64).any(|attempt| {
        let container = start(json!({"memory": 40 * MIB, "swap": MIB - attempt * 5 * 4096}));
        let events = of(&container, &[EventKind::SwapMax]);
        let process = python(&container, &script(if attempt % 2 == 0 { "HUGEPAGE" } else { "NOHUGEPAGE" }));
        process.wait(SOON).expect("wait").expect("in time");
        let met = events.next(Some(Duration::from_millis(200))).unwrap_or_else(|e| panic!("{e}"));
        container.close(None).expect("close");
        met.is_some_and(|event| event.kind == EventKind::SwapMax && event.count >= 1)
    });
    assert!(met, "no refused swap");
}

fn threshold(resource: PressureResource, stall_ms: u64) -> EventOptions {
    EventOptions { pressure: vec![Pressure::new(resource, Duration::from_millis(stall_ms))], ..EventOptions::default() }
}

/// Pressure can be awaited on this machine by this caller.
fn has_pressure() -> bool {
    if !has_tree() {
        return false;
    }
    let container = start(json!({}));
    let made = container.events(&threshold(PressureResource::Cpu, 100));
    container.close(None).expect("close");
    match made {
        Ok(_) => true,
        Err(e) => {
            skip(&format!("pressure: {e}"));
            false
        }
    }
}

#[test]
fn pressure_of_the_processors_polled_from_outside() {
    if !has_pressure() {
        return;
    }
    let container = start(json!({}));
    let options = EventOptions {
        kinds: Some(vec![EventKind::Pressure]),
        pressure: vec![
            Pressure::new(PressureResource::Cpu, Duration::from_millis(20)),
            Pressure::new(PressureResource::Io, Duration::from_secs(2)),
        ],
    };
    let events = container.events(&options).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(events.kinds(), [EventKind::Pressure, EventKind::Ended]);
    // More that run than there are processors.
    let processors = std::thread::available_parallelism().expect("processors").get();
    let script = format!("import os\nfor _ in range({processors}): os.fork()\nwhile True: pass");
    let busy = python(&container, &script);
    // Twice: each poll from outside asks every source whether it is ready, and must not take the notice away.
    for round in 1..=2 {
        loop {
            assert!(readable(&events, 60_000), "round {round}");
            assert!(readable(&events, 0), "it stays readable");
            let Some(event) = events.next(NOW).expect("next") else { continue };
            assert_eq!((event.kind, event.count, event.total), (EventKind::Pressure, 1, round));
            let (index, pressure) = event.threshold.expect("its threshold");
            assert_eq!((index, pressure), (0, options.pressure[0]));
            assert!(event.to_json().contains(r#""resource":"cpu""#), "{}", event.to_json());
            break;
        }
    }
    drop(busy);
    container.close(None).expect("close");
    assert_eq!(next_end(&events), EventKind::Ended);
}

#[track_caller]
fn next_end(events: &Events) -> EventKind {
    events.iter().map(|e| e.expect("event").kind).last().expect("an end")
}

#[test]
fn pressure_of_memory_under_a_real_load() {
    if !has_pressure() || !can(json!({"memory": 40 * MIB}), "memory") {
        return;
    }
    let dir = public_tmp();
    let file = dir.path().join("data");
    let slowed = json!({"memory": 64 * MIB, "memory_high": 24 * MIB, "swap": 0});
    let (spec, script) = if try_run(with(json!({"argv": ["true"]}), slowed.clone())).is_ok() {
        // Above the soft limit, where nothing can be reclaimed, the kernel makes the task wait.
        (slowed, "x = []\nwhile True: x.append(bytearray(1 << 18))")
    } else {
        // Pages of a file that are read again and again and never fit.
        fs::write(&file, vec![1u8; 48 << 20]).expect("a file");
        // Out of the page cache, where its pages would count as this program's.
        let opened = fs::File::open(&file).expect("open");
        opened.sync_all().expect("fsync");
        // SAFETY: no pointers.
        assert_eq!(unsafe { libc::posix_fadvise(opened.as_raw_fd(), 0, 0, libc::POSIX_FADV_DONTNEED) }, 0);
        let mounts = json!([format!("{}:/data", dir.path().display())]);
        let script = "
import mmap, random
f = open('/data/data', 'rb')
m = mmap.mmap(f.fileno(), 0, prot=mmap.PROT_READ)
m.madvise(mmap.MADV_RANDOM)
while True: m[random.randrange(len(m))]
";
        (json!({"memory": 24 * MIB, "swap": 0, "mounts": mounts}), script)
    };
    let container = start(spec);
    let mut options = threshold(PressureResource::Memory, 10);
    options.kinds = Some(Vec::new());
    let events = container.events(&options).unwrap_or_else(|e| panic!("{e}"));
    let load = python(&container, script);
    let event = events.next(SOON).expect("next").expect("in time");
    assert_eq!((event.kind, event.count), (EventKind::Pressure, 1));
    assert_eq!(event.threshold.expect("its threshold").1.resource, PressureResource::Memory);
    let text = fs::read_to_string(group(&container, "").expect("a group").join("memory.pressure")).expect("pressure");
    let total: u64 = text.split("total=").nth(1).expect("a total").lines().next().expect("a line").parse().expect("µs");
    assert!(total >= 10_000, "{text}");
    drop(load);
    container.close(None).expect("close");
}

#[test]
fn windows_that_the_kernel_refuses() {
    if !has_pressure() {
        return;
    }
    let container = start(json!({}));
    for ms in [500, 1000, 3000, 9999] {
        let mut options = threshold(PressureResource::Io, 100);
        options.pressure.insert(0, Pressure::new(PressureResource::Cpu, Duration::from_millis(100)));
        options.pressure[1].window = Duration::from_millis(ms);
        match container.events(&options) {
            Ok(_) => assert!(may_use_resources()),
            Err(e) => {
                assert!(!may_use_resources(), "{e}");
                assert_eq!((e.kind(), e.field()), (ErrorKind::PermissionDenied, Some("pressure[1].window")), "{e}");
                assert!(e.to_string().contains("CAP_SYS_RESOURCE") && e.to_string().contains("2 s"), "{e}");
            }
        }
    }
    for (stall, window, field) in [
        (100, 499, "pressure[0].window"),
        (100, 10_001, "pressure[0].window"),
        (0, 2000, "pressure[0].stall"),
        (2001, 2000, "pressure[0].stall"),
    ] {
        let mut options = threshold(PressureResource::Memory, stall);
        options.pressure[0].window = Duration::from_millis(window);
        let e = container.events(&options).expect_err("bad");
        assert_eq!((e.kind(), e.field()), (ErrorKind::InvalidSpec, Some(field)), "{e}");
    }
    let alone = EventOptions { kinds: Some(vec![EventKind::Pressure]), ..EventOptions::default() };
    assert_eq!(container.events(&alone).expect_err("no threshold").field(), Some("kinds[0]"));
    container.close(None).expect("close");
}

#[test]
fn pressure_that_was_switched_off() {
    if !has_pressure() {
        return;
    }
    let container = start(json!({}));
    let file = group(&container, "").expect("a group").join("cgroup.pressure");
    if fs::write(file, "0").is_err() {
        container.close(None).expect("close");
        return skip("cgroup.pressure cannot be written");
    }
    let e = container.events(&threshold(PressureResource::Io, 100)).expect_err("off");
    assert_eq!((e.kind(), e.field()), (ErrorKind::Unsupported, Some("pressure[0]")), "{e}");
    assert!(e.hint().is_some_and(|hint| hint.contains("cgroup.pressure")), "{e}");
    container.close(None).expect("close");
}

#[test]
fn detached_containers() {
    let name = format!("events-{}", std::process::id());
    let container = start(json!({"name": name, "detach": true}));
    let events = all(&container);
    let waiting = events.clone();
    let reader = std::thread::spawn(move || waiting.next(None));
    std::thread::sleep(Duration::from_millis(30));
    container.close(None).expect("close");
    let error = reader.join().expect("the reader").expect_err("closed");
    assert_eq!((error.kind(), events.next(NOW).expect_err("closed").kind()), (ErrorKind::Closed, ErrorKind::Closed));

    let found = Container::by_name(&name).expect("by name");
    let events = all(&found);
    if group(&found, "").is_some() {
        found.freeze().expect("freeze");
        assert_eq!(events.next(SOON).expect("next").expect("in time").kind, EventKind::Frozen);
        found.thaw().expect("thaw");
        assert_eq!(events.next(SOON).expect("next").expect("in time").kind, EventKind::Thawed);
    }
    found.kill().expect("kill");
    assert_eq!(next_end(&events), EventKind::Ended);
    assert!(found.wait_end(SOON).expect("wait"));
    found.close(None).expect("close");
    // Its record stays until then.
    ringfence::gc().expect("gc");
}

#[test]
fn many_containers_and_readers_at_once() {
    let tree = has_tree();
    let workers: Vec<_> = (0..6)
        .map(|worker| {
            std::thread::spawn(move || {
                for round in 0..8 {
                    let container = start(json!({}));
                    let readers: Vec<_> = (0..3)
                        .map(|_| {
                            let events = all(&container);
                            std::thread::spawn(move || events.iter().map(|e| e.expect("event")).collect::<Vec<_>>())
                        })
                        .collect();
                    let freezes = if tree { 3 } else { 0 };
                    for _ in 0..freezes {
                        container.freeze().expect("freeze");
                        container.thaw().expect("thaw");
                    }
                    match (worker + round) % 3 {
                        0 => container.close(None).expect("close"),
                        1 => {
                            container.kill().expect("kill");
                            assert!(container.wait_end(SOON).expect("wait"));
                        }
                        // Its last handle goes, and nobody but the readers is left to see its end.
                        _ => drop(container),
                    }
                    for reader in readers {
                        let told = reader.join().expect("a reader");
                        assert_eq!(told.last().map(|e| e.kind), Some(EventKind::Ended), "{told:?}");
                        let frozen: u64 = told.iter().filter(|e| e.kind == EventKind::Frozen).map(|e| e.count).sum();
                        assert_eq!(frozen, freezes, "{told:?}");
                    }
                }
            })
        })
        .collect();
    for worker in workers {
        worker.join().expect("a worker");
    }
}
