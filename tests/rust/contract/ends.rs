//! Ends: of processes, by signals, limits and grace, seen by any number of waiters.

use std::os::fd::{AsRawFd, BorrowedFd};

use super::*;

pub const TESTS: &[Test] = &[
    ("statuses are pollable descriptors", 30, pollable),
    ("many threads wait on one process", 30, many_waiters),
    ("stop asks first and kills later", 60, stop_with_grace),
    ("kill ends all, and signals arrive", 30, kills),
    ("an end for want of memory is called that", 60, out_of_memory),
    ("refused processes are counted", 60, pids_refused),
];

fn poll(fd: BorrowedFd<'_>, milliseconds: i32) -> bool {
    let mut entry = libc::pollfd { fd: fd.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    // SAFETY: one entry.
    unsafe { libc::poll(&mut entry, 1, milliseconds) == 1 }
}

fn pollable() {
    let waiting = Spec { stdin: Some(Stdio::Pipe), ..spec(["sh", "-c", "read line; exit 6"]) };
    let container = Container::start(&waiting).unwrap_or_else(|e| panic!("{e}"));
    let main = container.main().expect("main");
    assert!(!poll(main.status_fd(), 0) && !poll(main.pidfd(), 0) && !poll(container.events_fd(), 0));
    drop(main.take_stdin().expect("a pipe"));
    for fd in [main.status_fd(), main.pidfd(), container.pidfd(), container.events_fd()] {
        assert!(poll(fd, 10_000));
    }
    assert_eq!(main.try_wait().expect("try_wait").expect("readable means that it is there").code, Some(6));
    assert!(container.wait_end(Some(Duration::ZERO)).expect("wait_end"));
    let other = container_of_nothing();
    let command = other.command("sh").args(["-c", "read line; exit 8"]).stdin(Stdio::Pipe).spawn().expect("a command");
    assert!(!poll(command.status_fd(), 0));
    drop(command.take_stdin().expect("a pipe"));
    assert!(poll(command.status_fd(), 10_000));
    assert_eq!(command.try_wait().expect("try_wait").expect("there").code, Some(8));
    other.close(Some(Duration::from_secs(5))).expect("close");
}

fn many_waiters() {
    let container = start(["sh", "-c", "sleep 0.3; exit 77"]);
    let main = container.main().expect("main");
    std::thread::scope(|scope| {
        let waiters: Vec<_> = (0..32).map(|_| scope.spawn(|| main.wait(Some(Duration::from_secs(20))))).collect();
        for waiter in waiters {
            let status = waiter.join().unwrap().expect("wait").expect("ended");
            assert_eq!((status.code, status.reason), (Some(77), Reason::Exited));
        }
    });
    // And whoever comes later.
    assert_eq!(main.wait(None).expect("wait").expect("ended").code, Some(77));
}

fn stop_with_grace() {
    let polite = start_ready(&spec(["sh", "-c", "trap 'exit 7' TERM; echo ready; while :; do sleep 0.02; done"]));
    let status = polite.stop(Some(Duration::from_secs(20))).expect("stop").expect("a main process");
    assert_eq!((status.code, status.reason), (Some(7), Reason::Exited));

    let mut rude = spec(["sh", "-c", "trap '' TERM; echo ready; while :; do sleep 0.02; done"]);
    rude.stop_timeout = Some(Duration::from_millis(300));
    let rude = start_ready(&rude);
    let started = Instant::now();
    let status = rude.stop(None).expect("stop").expect("a main process");
    let took = started.elapsed();
    assert_eq!(status.signal, Some(libc::SIGKILL), "{status:?}");
    assert!(took >= Duration::from_millis(300) && took < Duration::from_secs(5), "{took:?}");

    // Without a main process pid 1 itself acts on it.
    let idle = container_of_nothing();
    idle.stop(Some(Duration::from_secs(10))).expect("stop");
    assert!(!idle.is_running());
}

fn kills() {
    let container = start_ready(&spec(["sh", "-c", "trap 'exit 21' USR1; echo ready; while :; do sleep 0.02; done"]));
    container.signal(libc::SIGUSR1).expect("signal");
    let status = container.main().expect("main").wait(Some(Duration::from_secs(10))).expect("wait").expect("ended");
    assert_eq!(status.code, Some(21));

    let container = container_of_nothing();
    let sleepers: Vec<_> = (0..5).map(|_| container.command("sleep").arg("100").spawn().expect("a command")).collect();
    sleepers[0].kill(libc::SIGINT).expect("kill");
    let status = sleepers[0].wait(Some(Duration::from_secs(10))).expect("wait").expect("ended");
    assert_eq!((status.signal, status.reason), (Some(libc::SIGINT), Reason::Signaled));
    sleepers[0].kill(libc::SIGINT).expect("a signal to what has ended is none");
    for wrong in [-1, 65, i32::MAX] {
        assert_eq!(sleepers[1].kill(wrong).expect_err("no signal").kind(), ErrorKind::InvalidArgument);
    }
    container.kill().expect("kill");
    for sleeper in &sleepers[1..] {
        let status = sleeper.wait(Some(Duration::from_secs(10))).expect("wait").expect("ended");
        assert_eq!(status.signal, Some(libc::SIGKILL), "{status:?}");
    }
    assert!(container.wait_end(Some(Duration::from_secs(5))).expect("wait_end"));
}

/// A limited container, or why this caller can have none.
fn limited<const N: usize>(argv: [&str; N], memory: Option<u64>, pids: Option<u64>) -> Option<Container> {
    match Container::start(&Spec { memory, pids, ..spec(argv) }) {
        Ok(container) => Some(container),
        Err(error) if error.kind() == ErrorKind::Unsupported || error.kind() == ErrorKind::PermissionDenied => {
            assert!(error.hint().is_some(), "a limit is refused without a remedy: {error}");
            skip(&error.to_string());
            None
        }
        Err(error) => panic!("{error}"),
    }
}

fn out_of_memory() {
    // `tail` keeps the last line, and there is never an end of it.
    let Some(container) = limited(["tail", "/dev/zero"], Some(32 << 20), None) else { return };
    let status = container.main().expect("main").wait(Some(Duration::from_secs(40))).expect("wait").expect("ended");
    assert_eq!((status.signal, status.reason), (Some(libc::SIGKILL), Reason::OutOfMemory), "{status:?}");
    assert!(container.usage().expect("usage").memory_oom_kills >= Some(1), "{:?}", container.usage());
    container.close(Some(Duration::from_secs(5))).expect("close");
    // One process among others.
    let container = limited([], Some(32 << 20), None).expect("as before");
    let output = container.command("tail").arg("/dev/zero").output().expect("a command");
    assert_eq!(output.status.reason, Reason::OutOfMemory, "{:?}", output.status);
    assert!(container.command("true").output().expect("a command").status.success(), "the others live");
    container.close(Some(Duration::from_secs(5))).expect("close");
}

fn pids_refused() {
    let script = "for i in 1 2 3 4 5 6 7 8 9 10 11 12; do sleep 100 & done; wait";
    let Some(container) = limited([], None, Some(6)) else { return };
    let command = container.command("sh").args(["-c", script]).stderr(Stdio::Null).spawn().expect("a command");
    let started = Instant::now();
    let usage = loop {
        let usage = container.usage().expect("usage");
        if usage.pids_refused >= Some(1) || started.elapsed() > Duration::from_secs(10) {
            break usage;
        }
        std::thread::sleep(Duration::from_millis(20));
    };
    assert!(usage.pids_refused >= Some(1) && usage.pids_current <= Some(6), "{usage:?}");
    drop(command);
    container.close(Some(Duration::from_secs(5))).expect("close");
}
