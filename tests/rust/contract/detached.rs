//! Containers that outlive their host.

use super::*;

pub const TESTS: &[Test] = &[
    ("a detached container is found and ended by another process", 60, found_elsewhere),
    ("a detached container survives the SIGKILL of its host", 60, survives),
    ("names are unique, and free again", 60, unique),
    ("gc removes what is left of a detached container whose keeper was killed", 60, collected),
    ("a detached start that is killed at any moment is whole or gone", 300, killed_while_starting),
];

/// A name for this run, in a state directory of its own: other programs of this user may collect garbage meanwhile.
struct Name(String, #[expect(dead_code, reason = "removed when dropped")] Option<tempfile::TempDir>);

impl Name {
    fn new(what: &str) -> Self {
        let mut directory = None;
        if std::env::var_os("RINGFENCE_STATE_DIR").is_none() {
            let made = tempfile::Builder::new().prefix("ringfence-state-").tempdir().expect("a directory");
            // SAFETY: this process has one thread.
            unsafe { std::env::set_var("RINGFENCE_STATE_DIR", made.path()) };
            directory = Some(made);
        }
        Self(format!("contract-{what}"), directory)
    }
}

impl Drop for Name {
    fn drop(&mut self) {
        if let Ok(container) = Container::by_name(&self.0) {
            let _ = container.kill();
            let _ = container.wait_end(Some(Duration::from_secs(5)));
        }
        let _ = ringfence::gc();
    }
}

fn detached(name: &str) {
    let ran = victim_command(&["detach", name]).output().expect("a host");
    assert!(ran.status.success(), "{ran:?}");
}

/// The host's side: see `victim`.
pub fn host(name: &str, then: Option<&str>) {
    let mut spec = spec(["sh", "-c", "trap 'exit 33' TERM; echo ready; while :; do sleep 0.02; done"]);
    (spec.name, spec.detach) = (Some(name.to_owned()), true);
    spec.stderr = Some(Stdio::Log);
    let container = start_ready(&spec);
    if then == Some("killed") {
        let mut out = std::io::stdout();
        out.write_all(b".").and_then(|()| out.flush()).expect("tell that this host is ready");
        std::thread::sleep(Duration::from_secs(60));
    }
    drop(container);
}

fn listed(name: &str) -> Option<&'static str> {
    ringfence::ls().expect("ls").into_iter().find(|e| e.name == name).map(|e| e.state)
}

fn found_elsewhere() {
    let name = Name::new("elsewhere");
    let missing = Container::by_name(&name.0).expect_err("there is none");
    assert_eq!(missing.kind(), ErrorKind::NotFound, "{missing}");
    detached(&name.0);
    assert_eq!(listed(&name.0), Some("running"));
    let container = Container::by_name(&name.0).expect("by_name");
    assert!(container.is_running());
    let output = container.command("sh").args(["-c", "echo $$; exit 4"]).output().expect("a command");
    assert_eq!(output.status.code, Some(4));
    // Closing a handle is not the end of a detached container.
    container.close(None).expect("close");
    let container = Container::by_name(&name.0).expect("by_name");
    let status = container.stop(Some(Duration::from_secs(10))).expect("stop").expect("a main process");
    assert_eq!((status.code, status.reason), (Some(33), Reason::Exited), "{status:?}");
    // Its status stays readable.
    assert_eq!(listed(&name.0), Some("ended"));
    let ended = Container::by_name(&name.0).expect("by_name of an ended one");
    assert!(!ended.is_running());
    assert_eq!(ended.main().expect("main").try_wait().expect("wait").expect("ended").code, Some(33));
    let error = ended.command("true").output().expect_err("it has ended");
    assert_eq!(error.kind(), ErrorKind::Closed, "{error}");
    drop(ended);
    // Its keeper has the name until it has exited, which is right after its last word.
    let started = Instant::now();
    while listed(&name.0).is_some() {
        ringfence::gc().expect("gc");
        assert!(started.elapsed() < Duration::from_secs(2), "gc does not remove the record of an ended container");
    }
}

fn survives() {
    let name = Name::new("survives");
    let mut child = victim_ready(&["detach", &name.0, "killed"]);
    child.kill().expect("kill");
    child.wait().expect("wait");
    std::thread::sleep(Duration::from_millis(700));
    let container = Container::by_name(&name.0).expect("by_name");
    assert!(container.is_running());
    assert!(container.command("true").output().expect("a command").status.success());
    container.kill().expect("kill");
    assert!(container.wait_end(Some(Duration::from_secs(5))).expect("wait_end"));
}

fn unique() {
    let name = Name::new("unique");
    detached(&name.0);
    for detach in [false, true] {
        let mut again = spec(["true"]);
        (again.name, again.detach) = (Some(name.0.clone()), detach);
        let error = Container::start(&again).expect_err("the name is taken");
        assert_eq!((error.kind(), error.field()), (ErrorKind::AlreadyExists, Some("name")), "{error}");
    }
    let container = Container::by_name(&name.0).expect("by_name");
    container.stop(Some(Duration::from_secs(10))).expect("stop");
    // An ended one is in nobody's way.
    detached(&name.0);
    let container = Container::by_name(&name.0).expect("by_name");
    container.kill().expect("kill");
    assert!(container.wait_end(Some(Duration::from_secs(5))).expect("wait_end"));
    // The same for attached ones, in parallel: one wins.
    let attached = Name::new("attached");
    let started: Vec<_> = std::thread::scope(|scope| {
        let start = || Container::start(&Spec { name: Some(attached.0.clone()), ..spec(["sleep", "100"]) });
        let threads: Vec<_> = (0..8).map(|_| scope.spawn(start)).collect();
        threads.into_iter().map(|t| t.join().unwrap()).collect()
    });
    assert_eq!(started.iter().filter(|s| s.is_ok()).count(), 1);
    for error in started.iter().filter_map(|s| s.as_ref().err()) {
        assert_eq!(error.kind(), ErrorKind::AlreadyExists, "{error}");
    }
    drop(started);
    let free = Container::start(&Spec { name: Some(attached.0.clone()), ..spec(["true"]) });
    free.expect("the name is free").close(Some(Duration::from_secs(5))).expect("close");
    assert_eq!(listed(&attached.0), None);
}

fn collected() {
    let name = Name::new("collected");
    detached(&name.0);
    let container = Container::by_name(&name.0).expect("by_name");
    let (pid, keeper) = (container.pid(), parent_of(container.pid()).expect("a keeper"));
    assert!(comm(keeper).starts_with("ringfence"));
    // SAFETY: ends a keeper that this test's host started.
    assert_eq!(unsafe { libc::kill(keeper, libc::SIGKILL) }, 0);
    let started = Instant::now();
    let error = loop {
        match container.command("true").output() {
            Err(error) => break error,
            Ok(_) => assert!(started.elapsed() < Duration::from_secs(5), "calls go on without a keeper"),
        }
    };
    assert!(matches!(error.kind(), ErrorKind::KeeperDied | ErrorKind::Closed), "{error}");
    drop(container);
    let report = ringfence::gc().expect("gc");
    assert!(report.remaining.is_empty(), "{report:?}");
    assert!(!runs(pid), "pid 1 lives on");
    assert_eq!(listed(&name.0), None);
}

fn killed_while_starting() {
    let _directory = Name::new("directory");
    let before = Seen::now();
    let mut random = 0x2545_f491_4f6c_dd1d_u64 ^ u64::from(std::process::id());
    for round in 0..rounds(40) {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        let name = Name::new(&format!("killed-{round}"));

        let mut child = victim_command(&["detach", &name.0]).stderr(HostStdio::null()).spawn().expect("a host");
        std::thread::sleep(Duration::from_micros(random % 12_000));
        let _ = child.kill();
        child.wait().expect("wait");
        // A start that was asked for completes; one that was not leaves nothing.
        std::thread::sleep(Duration::from_millis(100));
        if let Ok(container) = Container::by_name(&name.0) {
            let _ = container.kill();
            assert!(container.wait_end(Some(Duration::from_secs(5))).expect("wait_end"));
        }
        drop(name);
        before.back_within(Duration::from_secs(2));
    }
}
