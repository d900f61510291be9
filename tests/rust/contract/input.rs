//! Input that cannot work: each gives the right error, names the field, and leaves nothing.

use std::os::fd::AsRawFd;

use ringfence::spec::{IdRange, Idmap, Mount, Resource, Rlimit};

use super::*;

pub const TESTS: &[Test] = &[
    ("what can never work is refused before anything is made", 60, refused_at_once),
    ("what only the machine can tell fails with its field", 120, refused_by_the_machine),
    ("large input works, or says how much too large it is", 120, large),
    ("closed descriptors are refused by number", 30, closed_descriptors),
    ("targets stay inside, whatever links the image has", 60, targets_stay_inside),
    ("a closed handle is closed for every thread", 60, use_after_close),
    ("every call in a forked child says ECHILD", 60, every_call_in_a_forked_child),
];

type Expected = (ErrorKind, Option<&'static str>);

#[track_caller]
fn refused(what: &str, spec: &Spec, (kind, field): Expected) {
    match Container::start(spec) {
        Ok(_) => panic!("{what}: started"),
        Err(error) => {
            let named = field.is_none_or(|f| error.field().is_some_and(|have| have.starts_with(f)));
            assert!(error.kind() == kind && named, "{what}: {:?} {:?}: {error}", error.kind(), error.field());
        }
    }
}

fn with(change: impl FnOnce(&mut Spec)) -> Spec {
    let mut spec = spec(["true"]);
    change(&mut spec);
    spec
}

fn refused_at_once() {
    let before = (Seen::now(), descriptors_open());
    let invalid = |field| (ErrorKind::InvalidSpec, Some(field));
    let range = |inside, outside, count| IdRange { inside, outside, count };
    let map = |uid: Vec<IdRange>| Idmap::Explicit { uid, gid: vec![range(0, 0, 1)] };
    let cases: Vec<(&str, Spec, Expected)> = vec![
        ("an empty program", with(|s| s.argv = vec!["".into()]), invalid("argv[0]")),
        ("NUL in the program", with(|s| s.argv = vec!["tr\0ue".into()]), invalid("argv[0]")),
        ("NUL in an argument", with(|s| s.argv.push("a\0".into())), invalid("argv[1]")),
        ("NUL in a variable", with(|s| _ = s.env.insert("A".into(), Some("\0".into()))), invalid("env.A")),
        ("= in a name", with(|s| _ = s.env.insert("A=B".into(), Some("".into()))), invalid("env[\"A=B\"]")),
        ("NUL in the directory", with(|s| s.cwd = Some("/a\0b".into())), invalid("cwd")),
        ("a relative directory", with(|s| s.cwd = Some("a".into())), invalid("cwd")),
        ("NUL in a source", with(|s| s.mounts = vec![Mount::bind("/t\0mp", "/x")]), invalid("mounts[0].source")),
        ("a relative source", with(|s| s.mounts = vec![Mount::bind("tmp", "/x")]), invalid("mounts[0].source")),
        ("a target outside", with(|s| s.mounts = vec![Mount::tmpfs("/a/../../b")]), invalid("mounts[0].target")),
        ("a relative target", with(|s| s.mounts = vec![Mount::tmpfs("b")]), invalid("mounts[0].target")),
        ("the root as target", with(|s| s.mounts = vec![Mount::tmpfs("/./")]), invalid("mounts[0].target")),
        ("below /proc", with(|s| s.mounts = vec![Mount::tmpfs("/proc/self")]), invalid("mounts[0].target")),
        (
            "the same target twice",
            with(|s| s.mounts = vec![Mount::tmpfs("/a/b"), Mount::tmpfs("/a//b")]),
            invalid("mounts[1].target"),
        ),
        (
            "a target above an earlier one",
            with(|s| s.mounts = vec![Mount::tmpfs("/a/b"), Mount::tmpfs("/a")]),
            invalid("mounts[1].target"),
        ),
        ("no memory", with(|s| s.memory = Some(0)), invalid("memory")),
        ("absurd memory", with(|s| s.memory = Some(u64::MAX)), invalid("memory")),
        ("no cpus", with(|s| s.cpus = Some(0.0)), invalid("cpus")),
        ("negative cpus", with(|s| s.cpus = Some(-1.0)), invalid("cpus")),
        ("cpus that are no number", with(|s| s.cpus = Some(f64::NAN)), invalid("cpus")),
        ("endless cpus", with(|s| s.cpus = Some(f64::INFINITY)), invalid("cpus")),
        ("no pids", with(|s| s.pids = Some(0)), invalid("pids")),
        ("absurd pids", with(|s| s.pids = Some(1 << 40)), invalid("pids")),
        ("a wrong nice value", with(|s| s.nice = Some(20)), invalid("nice")),
        ("a wrong signal", with(|s| s.stop_signal = Some(65)), invalid("stop_signal")),
        ("a wrong umask", with(|s| s.umask = Some(0o1000)), invalid("umask")),
        ("no time at all", with(|s| s.start_timeout = Some(Duration::ZERO)), invalid("start_timeout")),
        (
            "a soft limit above the hard one",
            with(|s| _ = s.rlimits.insert(Resource::Nofile, Rlimit { soft: 9, hard: 8 })),
            invalid("rlimits.nofile"),
        ),
        ("a signed user", with(|s| s.user = Some("-1".into())), invalid("user")),
        ("a user out of range", with(|s| s.user = Some("4294967295".into())), invalid("user")),
        ("an empty group", with(|s| s.groups = vec!["".into()]), invalid("groups[0]")),
        (
            "a map that overlaps inside",
            with(|s| s.idmap = map(vec![range(0, 100_000, 10), range(9, 200_000, 10)])),
            invalid("idmap.uid[1]"),
        ),
        (
            "a map that overlaps outside",
            with(|s| s.idmap = map(vec![range(0, 100_000, 10), range(20, 100_009, 10)])),
            invalid("idmap.uid[1]"),
        ),
        ("a map past the last id", with(|s| s.idmap = map(vec![range(0, u32::MAX - 1, 10)])), invalid("idmap.uid[0]")),
        ("an empty range", with(|s| s.idmap = map(vec![range(0, 5, 0)])), invalid("idmap.uid[0]")),
        (
            "a map that is too long",
            with(|s| s.idmap = map((0..341).map(|i| range(i * 2, 100_000 + i * 2, 1)).collect())),
            invalid("idmap.uid"),
        ),
        ("a slash in the name", with(|s| s.name = Some("a/b".into())), invalid("name")),
        ("a name that is a directory", with(|s| s.name = Some("..".into())), invalid("name")),
        ("an empty name", with(|s| s.name = Some("".into())), invalid("name")),
        ("a long name", with(|s| s.name = Some("n".repeat(65))), invalid("name")),
        ("NUL in the name", with(|s| s.name = Some("a\0".into())), invalid("name")),
        ("detached without a name", with(|s| s.detach = true), invalid("detach")),
        ("a wrong host name", with(|s| s.hostname = Some("-a-".into())), invalid("hostname")),
        ("a group parent outside", with(|s| s.cgroup_parent = Some("/a/../..".into())), invalid("cgroup_parent")),
        ("no init and no payload", Spec { init: false, ..spec([]) }, invalid("init")),
        ("a negative descriptor", with(|s| s.stdout = Some(Stdio::Fd(-1))), invalid("stdout")),
        ("a descriptor for stdin's number", with(|s| _ = s.pass_fds.insert(0, 0)), invalid("pass_fds")),
    ];
    for (what, spec, expected) in &cases {
        refused(what, spec, *expected);
    }
    assert!(before.0.more().is_empty(), "{:?}", before.0.more());
    assert_eq!(before.1, descriptors_open());
    let mut command = Command::new("x");
    command.argv.clear();
    let error = container_of_nothing().spawn(&command).expect_err("no program");
    assert_eq!((error.kind(), error.field()), (ErrorKind::InvalidSpec, Some("argv")), "{error}");
    let error = ringfence::run(&spec([]), None, None).expect_err("no program");
    assert_eq!((error.kind(), error.field()), (ErrorKind::InvalidSpec, Some("argv")), "{error}");
    for json in ["[]", "{\"memory\": \"much\"}", "{\"argv\": \"sh\"}", "{\"mem\": 1}", "{\"memory\": -1}", "{"] {
        assert_eq!(Spec::from_json(json).expect_err(json).kind(), ErrorKind::InvalidSpec);
    }
}

fn refused_by_the_machine() {
    let before = Seen::now();
    let missing = |field| (ErrorKind::NotFound, Some(field));
    let denied = |field| (ErrorKind::PermissionDenied, Some(field));
    let program = |argv: &str| with(|s| s.argv = vec![argv.into()]);
    let cases: Vec<(&str, Spec, Expected)> = vec![
        ("a missing program", program("/no/such/program"), missing("argv[0]")),
        ("a program that is in no directory of PATH", program("no-such-program"), missing("argv[0]")),
        ("a directory as program", program("/usr"), denied("argv[0]")),
        ("a program that is not executable", program("/etc/passwd"), denied("argv[0]")),
        ("a program below a file", program("/etc/passwd/x"), missing("argv[0]")),
        ("a missing directory", with(|s| s.cwd = Some("/no/such/directory".into())), missing("cwd")),
        ("a file as directory", with(|s| s.cwd = Some("/etc/passwd".into())), missing("cwd")),
        ("an unknown user", with(|s| s.user = Some("nobody-of-that-name".into())), missing("user")),
        ("an unknown group", with(|s| s.groups = vec!["no-such-group".into()]), missing("groups[0]")),
        ("a missing source", with(|s| s.mounts = vec![Mount::bind("/no/such", "/x")]), missing("mounts[0]")),
        ("a missing root", with(|s| s.rootfs = PathBuf::from("/no/such/root").into()), missing("rootfs")),
        ("a missing file for stdin", with(|s| s.stdin = Some(Stdio::File("/no/such".into()))), missing("stdin")),
    ];
    for (what, spec, expected) in &cases {
        refused(what, spec, *expected);
    }
    // The same in a container that runs: it goes on.
    let container = container_of_nothing();
    for (argv, kind) in [("/no/such/program", ErrorKind::NotFound), ("/usr", ErrorKind::PermissionDenied)] {
        let error = container.command(argv).output().expect_err(argv);
        assert_eq!((error.kind(), error.field()), (kind, Some("argv[0]")), "{error}");
    }
    let error = container.command("true").user("nobody-of-that-name").output().expect_err("an unknown user");
    assert_eq!((error.kind(), error.field()), (ErrorKind::NotFound, Some("user")), "{error}");
    assert!(container.command("true").output().expect("a command").status.success());
    container.close(Some(Duration::from_secs(5))).expect("close");
    ringfence::end_keepers();
    before.back_within(Duration::from_secs(5));
}

fn large() {
    // 1 MiB of arguments in pieces that the kernel takes.
    let mut spec = spec(["sh", "-c", "echo $# ${#1}", "sh"]);
    spec.argv.extend((0..16).map(|_| "x".repeat(65_536).into()));
    spec.stdout = Some(Stdio::Pipe);
    let output = ringfence::run(&spec, None, Some(Duration::from_secs(20))).expect("1 MiB of arguments");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "16 65536\n");
    refused(
        "one argument of 1 MiB",
        &with(|s| s.argv.push("x".repeat(1 << 20).into())),
        (ErrorKind::InvalidSpec, Some("argv[1]")),
    );
    // 10,000 mounts: more than a message can carry or a container should have; whatever comes of it comes in time.
    let started = Instant::now();
    let many = with(|s| s.mounts = (0..10_000).map(|i| Mount::bind("/etc/passwd", format!("/run/many/{i}"))).collect());
    match Container::start(&many) {
        Ok(container) => container.close(Some(Duration::from_secs(30))).expect("close"),
        Err(error) => {
            let expected = [ErrorKind::Exhausted, ErrorKind::InvalidSpec, ErrorKind::Unsupported];
            assert!(expected.contains(&error.kind()), "{:?} {error}", error.kind());
        }
    }
    assert!(started.elapsed() < Duration::from_secs(60), "{:?}", started.elapsed());
    let hundred = with(|s| {
        s.mounts = (0..100).map(|i| Mount::tmpfs(format!("/run/many/{i}"))).collect();
        s.argv = ["sh", "-c", "exit $(grep -c /run/many/ /proc/self/mountinfo)"].map(Into::into).into();
    });
    let output = ringfence::run(&hundred, None, Some(Duration::from_secs(20))).expect("100 mounts");
    assert_eq!(output.status.code, Some(100));
}

fn closed_descriptors() {
    let number = {
        let file = std::fs::File::open("/dev/null").expect("open");
        file.as_raw_fd()
    };
    for (field, spec) in [
        ("stdin", with(|s| s.stdin = Some(Stdio::Fd(number)))),
        ("stdout", with(|s| s.stdout = Some(Stdio::Fd(number)))),
        ("pass_fds", with(|s| _ = s.pass_fds.insert(number, 5))),
    ] {
        let error = Container::start(&spec).expect_err(field);
        assert_eq!((error.kind(), error.errno()), (ErrorKind::InvalidArgument, libc::EBADF), "{field}: {error}");
        assert!(error.field().is_some_and(|f| f.starts_with(field)) && error.to_string().contains(&number.to_string()));
    }
}

fn targets_stay_inside() {
    let outside = tempfile::Builder::new().prefix("ringfence-outside-").tempdir().expect("a directory");
    let image = tempfile::Builder::new().prefix("ringfence-image-").tempdir().expect("a directory");
    let link = |to: &Path, name: &str| std::os::unix::fs::symlink(to, image.path().join(name)).expect("symlink");
    for name in ["usr", "etc", "tmp"] {
        std::fs::create_dir(image.path().join(name)).expect("mkdir");
    }
    for (link_name, to) in [("bin", "usr/bin"), ("lib", "usr/lib"), ("lib64", "usr/lib64"), ("sbin", "usr/sbin")] {
        link(Path::new(to), link_name);
    }
    link(outside.path(), "absolute");
    link(Path::new("../../../../../../../../../../tmp"), "relative");
    link(Path::new("loop"), "loop");
    let spec = |target: &str| {
        with(|s| {
            s.rootfs = image.path().to_path_buf().into();
            s.mounts = vec![Mount::bind("/usr", "/usr"), Mount::tmpfs(target)];
            s.argv = ["sh", "-c", &format!("cd {target} && echo x >seen")].map(Into::into).into();
        })
    };
    for target in ["/absolute/new", "/relative/new"] {
        match ringfence::run(&spec(target), None, Some(Duration::from_secs(20))) {
            // Resolved as the container sees it.
            Ok(output) => println!("{target}: {:?}", output.status),
            Err(error) => {
                assert!(error.field().is_some_and(|f| f.starts_with("mounts[1]")), "{error}");
                println!("{error}");
            }
        }
        assert_eq!(std::fs::read_dir(outside.path()).expect("readable").count(), 0, "{target} reached the outside");
    }
    assert!(!Path::new("/tmp/new").exists(), "a relative link reached the outside");
    let error = Container::start(&spec("/loop/x")).expect_err("a loop of links");
    assert_eq!((error.field(), error.errno()), (Some("mounts[1]"), libc::ELOOP), "{error}");
    // An image whose own system directories lead elsewhere is refused.
    for name in ["proc", "dev", "sys"] {
        // Those that were missing were made by the starts before.
        let _ = std::fs::remove_dir(image.path().join(name));
        link(outside.path(), name);
        let error = Container::start(&spec("/tmp/x")).expect_err("a link in the place of a system directory");
        println!("{error}");
        assert!(matches!(error.errno(), libc::ELOOP | libc::ENOTDIR), "{name}: {error}");
        std::fs::remove_file(image.path().join(name)).expect("remove");
        assert_eq!(std::fs::read_dir(outside.path()).expect("readable").count(), 0, "{name} reached the outside");
    }
}

fn use_after_close() {
    let container = container_of_nothing();
    let process = container.command("sleep").arg("100").spawn().expect("a command");
    let results: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8).map(|_| scope.spawn(|| container.close(Some(Duration::from_secs(10))))).collect();
        threads.into_iter().map(|t| t.join().unwrap()).collect()
    });
    assert!(results.iter().all(Result::is_ok), "{results:?}");
    let closed = |what: &str, error: ringfence::Error| assert_eq!(error.kind(), ErrorKind::Closed, "{what}: {error}");
    closed("spawn", container.spawn(&Command::new("true")).expect_err("spawn"));
    closed("signal", container.signal(15).expect_err("signal"));
    closed("kill", container.kill().expect_err("kill"));
    closed("stop", container.stop(None).expect_err("stop"));
    closed("wait_end", container.wait_end(None).expect_err("wait_end"));
    closed("usage", container.usage().expect_err("usage"));
    closed("freeze", container.freeze().expect_err("freeze"));
    closed("ns_fd", container.ns_fd(ringfence::spec::NamespaceKind::Net).expect_err("ns_fd"));
    let net = [ringfence::spec::NamespaceKind::Net];
    closed("enter", container.enter(&net, || ()).expect_err("enter"));
    closed("join", container.join(&net).expect_err("join"));
    closed("lend", container.lend(&net).expect_err("lend"));
    closed("processes", container.processes().expect_err("processes"));
    closed("pidfd_of", container.pidfd_of(1).expect_err("pidfd_of"));
    closed("socket", container.socket(libc::AF_INET, libc::SOCK_STREAM, 0).expect_err("socket"));
    closed("listen", container.listen("127.0.0.1:80", 1).expect_err("listen"));
    closed("connect", container.connect("127.0.0.1:80", None).expect_err("connect"));
    closed("open_path", container.open_path("/", 0, 0).expect_err("open_path"));
    closed("log", container.log(0).expect_err("log"));
    assert!(!container.is_running());
    // A process handle outlives its container's.
    let status = process.wait(Some(Duration::from_secs(5))).expect("wait").expect("ended");
    assert_eq!(status.reason, Reason::ContainerEnded, "{status:?}");
    process.kill(9).expect("a signal to what has ended is none");
}

fn every_call_in_a_forked_child() {
    let container = start(["sleep", "100"]);
    let process = container.command("sleep").arg("100").spawn().expect("a command");
    join_worker(in_worker(|| {
        let echild = |what: &str, error: ringfence::Error| {
            assert_eq!((error.kind(), error.errno()), (ErrorKind::ForkedChild, libc::ECHILD), "{what}: {error}");
        };
        echild("spawn", container.spawn(&Command::new("true")).expect_err("spawn"));
        echild("signal", container.signal(15).expect_err("signal"));
        echild("kill", container.kill().expect_err("kill"));
        echild("stop", container.stop(None).expect_err("stop"));
        echild("wait_end", container.wait_end(None).expect_err("wait_end"));
        echild("close", container.close(None).expect_err("close"));
        echild("usage", container.usage().expect_err("usage"));
        echild("freeze", container.freeze().expect_err("freeze"));
        echild("thaw", container.thaw().expect_err("thaw"));
        echild("ns_fd", container.ns_fd(ringfence::spec::NamespaceKind::Net).expect_err("ns_fd"));
        let net = [ringfence::spec::NamespaceKind::Net];
        echild("enter", container.enter(&net, || ()).expect_err("enter"));
        echild("join", container.join(&net).expect_err("join"));
        echild("lend", container.lend(&net).expect_err("lend"));
        echild("processes", container.processes().expect_err("processes"));
        echild("pidfd_of", container.pidfd_of(1).expect_err("pidfd_of"));
        echild("socket", container.socket(libc::AF_INET, libc::SOCK_STREAM, 0).expect_err("socket"));
        echild("listen", container.listen("127.0.0.1:80", 1).expect_err("listen"));
        echild("connect", container.connect("127.0.0.1:80", None).expect_err("connect"));
        echild("open_path", container.open_path("/", 0, 0).expect_err("open_path"));
        echild("log", container.log(0).expect_err("log"));
        echild("wait", process.wait(None).expect_err("wait"));
        echild("try_wait", process.try_wait().expect_err("try_wait"));
        echild("process.kill", process.kill(9).expect_err("kill"));
        echild("communicate", process.communicate(None, None).expect_err("communicate"));
        assert!(!container.is_running());
        ringfence::end_keepers();
        drop((container.clone(), process.clone()));
    }));
    assert!(container.is_running());
    assert!(process.try_wait().expect("try_wait").is_none());
    container.close(Some(Duration::from_secs(5))).expect("close");
}
