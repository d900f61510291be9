use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;
use std::time::Duration;

use crate::command::Command;
use crate::error::{Error, ErrorKind};
use crate::spec::*;

fn error(spec: Spec) -> Error {
    match spec.validate() {
        Err(error) => error,
        Ok(()) => panic!("accepted: {spec:?}"),
    }
}

/// The field and the sentence of the error.
fn refused(spec: Spec, field: &str, words: &str) {
    let error = error(spec);
    assert_eq!(error.kind(), ErrorKind::InvalidSpec);
    assert_eq!(error.errno(), libc::EINVAL);
    assert_eq!(error.field(), Some(field), "{error}");
    assert!(error.to_string().contains(words), "{error}");
}

fn spec() -> Spec {
    Spec::new()
}

#[test]
fn a_spec_that_uses_everything_is_fine() {
    let all = spec()
        .name("db-1.test_2")
        .argv(["sh", "-c", "", "exit"])
        .env("A", "=b=")
        .env_remove("HOME")
        .env_inherit(["*", "LC_ALL"])
        .cwd("/a/../b")
        .user("www-data:0")
        .groups(["adm", "4"])
        .umask(0o777)
        .hostname("a-b.c3")
        .domainname("x")
        .dns(["127.0.0.1", "::1", "fe80::1%eth0"])
        .host("db", "10.0.0.1")
        .rootfs("/srv/image")
        .mounts(["/srv/data:/data:rw", "/srv/more:/data/more", "/etc/hosts"])
        .mount(Mount::tmpfs("/scratch"))
        .mount(Mount { kind: MountKind::Proc, ..Mount::tmpfs("/proc") })
        .mount("/var/lib/lxcfs/meminfo:/proc/meminfo")
        .file("/etc/app.conf", "x")
        .shm_size(4096)
        .stdout(Stdio::Log)
        .stderr(Stdio::Stdout)
        .stdin(Stdio::Fd(7))
        .detach(true)
        .namespace(NamespaceKind::Net, NamespaceSource::Path("/run/netns/blue".into()))
        .idmap(Idmap::Explicit {
            uid: vec![
                IdRange { inside: 0, outside: 1000, count: 1 },
                IdRange { inside: 1, outside: 100_000, count: 65_535 },
            ],
            gid: vec![IdRange { inside: 0, outside: 0, count: u32::MAX }],
        })
        .memory(64 << 10)
        .cpus(0.001)
        .pids(1)
        .rlimit(Resource::Nofile, 1024)
        .rlimit(Resource::Core, Rlimit { soft: 0, hard: Rlimit::UNLIMITED })
        .nice(-20)
        .scheduler(Policy::RoundRobin { priority: 99 })
        .io_priority(IoPriority::BestEffort(7))
        .cpu_rt_runtime(Duration::from_secs(1))
        .ptys(1 << 20)
        .sysctl("kernel.shmmax", "1")
        .sysctl("user/max_user_namespaces", "0")
        .oom_score_adj(-1000)
        .start_timeout(Duration::from_millis(1))
        .stop_signal(64)
        .stop_timeout(Duration::ZERO)
        .time_offsets(TimeOffsets { monotonic: i64::MAX / 2, boottime: -1 })
        .masked_paths(["/proc/kcore"])
        .readonly_paths(Vec::<PathBuf>::new())
        .cgroup_parent("/a/b")
        .pass_fds([(3, 3), (9, 4)])
        .annotation("owner", "");
    all.validate().unwrap();
    spec().validate().unwrap();
}

#[test]
fn names() {
    for name in ["", "-a", ".a", "_a", "a/b", "../x", "a b", "a\0", "é", &"a".repeat(65)] {
        refused(spec().name(name), "name", "is not a name");
    }
    for name in ["", "a_b", "-a", "a-", "a..b", ".a", "a.", "a b", "ü", &"a".repeat(64), "a\0b"] {
        assert_eq!(error(spec().hostname(name)).field(), Some("hostname"), "{name:?}");
    }
    refused(spec().hostname(format!("{}.{}", "a".repeat(40), "b".repeat(24))), "hostname", "65 bytes");
    refused(spec().host("a_b", "1.2.3.4"), "hosts.a_b", "host name");
    refused(spec().host("db", "1.2.3"), "hosts.db", "address");
    refused(spec().dns(["1.1.1.1", "x"]), "dns[1]", "address");
    refused(spec().dns(["127.0.0.1%lo"]), "dns[0]", "address");
    refused(spec().dns(["1.1.1.1"; 4]), "dns", "ignores");
}

#[test]
fn arguments_and_variables() {
    refused(spec().argv([""]), "argv[0]", "is empty");
    refused(spec().argv(["a", "b\0c"]), "argv[1]", "NUL byte at 1");
    refused(spec().argv(["a".to_owned(), "x".repeat(1 << 20)]), "argv[1]", "1048576 bytes");
    refused(spec().argv(vec!["x".repeat(100_000); 63]), "argv", "in all");
    spec().argv(vec!["x".repeat(100_000); 11]).validate().unwrap();
    refused(spec().env("", "x"), "env[\"\"]", "empty");
    refused(spec().env("A=B", "x"), "env[\"A=B\"]", "\"=\"");
    refused(spec().env_remove("A\0"), "env[\"A\\0\"]", "NUL");
    refused(spec().env("A", "\0"), "env.A", "NUL");
    refused(spec().env("A", "x".repeat(131_072)), "env.A", "MAX_ARG_STRLEN");
    refused(spec().env_inherit(["A", "B=C"]), "env_inherit[1]", "\"=\"");
    let raw = OsString::from_vec(vec![b'=', 0xff]);
    assert!(error(spec().env(raw, "x")).field().unwrap().starts_with("env["));
}

#[test]
fn users() {
    for user in ["", "1:", "+1", "0x1", "1\0", "4294967295", "a:b:c"] {
        refused(spec().user(user), "user", "");
    }
    refused(spec().groups(["adm", "01"]), "groups[1]", "leading zero");
    refused(spec().groups(["adm:x"]), "groups[0]", "not a name");
}

#[test]
fn ranges() {
    refused(spec().memory(0), "memory", "less than 64K");
    refused(spec().memory(u64::MAX), "memory", "leave it out");
    for cpus in [0.0, -1.0, f64::NAN, f64::INFINITY, 1e-4, 10_001.0] {
        refused(spec().cpus(cpus), "cpus", "");
    }
    refused(spec().pids(0), "pids", "0 is not in 1 to 4194304");
    refused(spec().pids(u64::MAX), "pids", "");
    refused(spec().shm_size(0), "shm_size", "");
    refused(spec().log_max(0), "log_max", "");
    refused(spec().nice(20), "nice", "20 is not in -20 to 19");
    refused(spec().oom_score_adj(1001), "oom_score_adj", "");
    refused(spec().umask(0o1000), "umask", "0o1000");
    for priority in [0, 100] {
        refused(spec().scheduler(Policy::Fifo { priority }), "scheduler.priority", "1 to 99");
    }
    let deadline = |times: [u64; 3]| {
        let [runtime, deadline, period] = times.map(Duration::from_micros);
        spec().scheduler(Policy::Deadline { runtime, deadline, period })
    };
    refused(deadline([1, 2, 3]), "scheduler.runtime", "1024 ns");
    refused(deadline([3, 2, 3]), "scheduler.deadline", "before runtime");
    refused(deadline([2, 3, 2]), "scheduler.period", "shorter than deadline");
    let clamps = |min, max| Scheduler { uclamp_min: min, uclamp_max: max, ..Policy::Other.into() };
    refused(spec().scheduler(clamps(None, Some(1025))), "scheduler.uclamp_max", "0 to 1024");
    refused(spec().scheduler(clamps(Some(2), Some(1))), "scheduler.uclamp_min", "more than uclamp_max");
    refused(spec().io_priority(IoPriority::Realtime(8)), "io_priority", "0 to 7");
    refused(spec().ptys(1 << 21), "ptys", "");
    refused(spec().ptys(0), "ptys", "");
    refused(spec().cpu_rt_runtime(Duration::from_nanos(999)), "cpu_rt_runtime", "less than a microsecond");
    refused(spec().cpu_rt_runtime(Duration::from_secs(2)), "cpu_rt_runtime", "more than cpu_rt_period");
    refused(spec().cpu_rt_period(Duration::from_secs(2)), "cpu_rt_period", "takes cpu_rt_runtime");
    let period = |period| spec().cpu_rt_runtime(Duration::from_millis(1)).cpu_rt_period(period);
    refused(period(Duration::from_secs(2148)), "cpu_rt_period", "longest");
    for signal in [-1, 0, 65] {
        refused(spec().stop_signal(signal), "stop_signal", "1 to 64");
    }
    refused(spec().start_timeout(Duration::ZERO), "start_timeout", "no time");
    refused(spec().stop_timeout(Duration::MAX), "stop_timeout", "");
    refused(spec().time_offsets(TimeOffsets { monotonic: 0, boottime: i64::MAX }), "time_offsets.boottime", "");
    refused(spec().time_offsets(TimeOffsets { monotonic: i64::MIN, boottime: 0 }), "time_offsets.monotonic", "");
    refused(spec().rlimit(Resource::Core, Rlimit { soft: 2, hard: 1 }), "rlimits.core", "above the hard limit");
    refused(spec().terminal(Terminal { rows: 0, cols: 80 }), "terminal.rows", "is 0");
    let caps = |bounding, ambient| spec().capabilities(Capabilities { bounding, ambient, ..Capabilities::default() });
    refused(caps(1 << 41, 0), "capabilities", "41");
    refused(caps(1, 3), "capabilities.ambient", "dac_override is not in the bounding set");
    let sets = |permitted, effective, inheritable| {
        spec().capabilities(Capabilities { bounding: 7, ambient: 1, permitted, effective, inheritable })
    };
    assert!(sets(Some(3), Some(1), Some(5)).validate().is_ok());
    refused(sets(Some(9), None, None), "capabilities.permitted", "fowner is not in the bounding set");
    refused(sets(Some(2), None, None), "capabilities.permitted", "chown is ambient");
    refused(sets(None, None, Some(4)), "capabilities.inheritable", "chown is ambient");
    refused(sets(Some(3), Some(7), None), "capabilities.effective", "dac_read_search is not in the permitted set");
    refused(spec().securebits(Securebits::KEEP_CAPS), "securebits", "cleared by the exec");
    refused(spec().securebits(1 << 12), "securebits", "0x1000");
}

#[test]
fn rules_and_labels() {
    let rules = |path: &str, access| Landlock { paths: [(path.into(), access)].into(), ..Landlock::default() };
    refused(spec().landlock(rules("usr", 1)), "landlock.paths.usr", "not an absolute path");
    refused(spec().landlock(rules("/usr", 0)), "landlock.paths[\"/usr\"]", "not a set of rights");
    refused(spec().landlock(rules("/usr", 1 << 16)), "landlock.paths[\"/usr\"]", "not a set of rights");
    let of = |abi| Landlock { abi: Some(abi), ..rules("/usr", Landlock::WRITE) };
    assert!(spec().landlock(of(1)).validate().is_ok());
    refused(spec().landlock(of(0)), "landlock.abi", "begin with 1");
    let refer = Landlock { abi: Some(1), ..rules("/usr", 1 << 13 | Landlock::READ) };
    refused(spec().landlock(refer), "landlock.paths[\"/usr\"]", "refer is newer than abi 1");
    let tcp = Landlock { bind: Some(vec![80]), abi: Some(3), ..Landlock::default() };
    refused(spec().landlock(tcp), "landlock.bind", "version 4");
    let scopes = Landlock { scopes: 3, abi: Some(5), ..Landlock::default() };
    refused(spec().landlock(scopes), "landlock.scopes", "version 6");
    refused(spec().landlock(Landlock { scopes: 4, ..Landlock::default() }), "landlock.scopes", "0x4");
    let connect = Landlock { connect: Some(vec![80, 0]), ..Landlock::default() };
    refused(spec().landlock(connect), "landlock.connect[1]", "no port");
    let many = Landlock { bind: Some(vec![1; 1025]), ..Landlock::default() };
    refused(spec().landlock(many), "landlock.bind", "at most 1024");
    assert_eq!(rules("/usr", 1).needs(), (5, "paths"));
    assert_eq!(Landlock { abi: Some(2), ..rules("/usr", 1) }.needs(), (2, "paths"));
    assert_eq!(Landlock { connect: Some(Vec::new()), ..Landlock::default() }.needs(), (4, "connect"));
    for field in ["apparmor", "selinux", "mount_label"] {
        for (text, why) in [(" a", "a space at its end"), ("a\nb", "control character"), ("a\0", "control character")] {
            let mut labelled = spec();
            labelled.set(field, text.as_bytes()).unwrap();
            refused(labelled, field, why);
        }
        let mut long = spec();
        long.set(field, &[b'a'; 4001]).unwrap();
        refused(long, field, "at most 4000");
    }
    refused(spec().apparmor(""), "apparmor", "is empty");
}

#[test]
fn sysctls() {
    let field = |name: &str| format!("sysctls[{name:?}]");
    for (name, words) in [
        ("kernel.hostname", "set hostname"),
        ("kernel/domainname", "set domainname"),
        ("kernel.threads-max", "pids"),
        ("kernel.core_pattern", "whole machine's"),
        ("vm.swappiness", "memory"),
        ("fs.file-max", "nofile"),
        ("fs.mqueue.msg_maximum", "fs.mqueue.msg_max"),
        ("user.max_things", "user.max_user_namespaces"),
        ("net.../../kernel.core_pattern", "not the name"),
        ("net/../kernel/core_pattern", "not the name"),
    ] {
        refused(spec().sysctl(name, "1"), &field(name), words);
    }
    assert!(spec().sysctl("kernel.pid_max", "400").validate().is_ok());
    let joined = spec().sysctl("kernel.pid_max", "400").namespace(NamespaceKind::Pid, NamespaceSource::Host);
    refused(joined, &field("kernel.pid_max"), "not the container's own");
    refused(spec().sysctl("net", "1"), "sysctls.net", "not the name");
    for (value, words) in [("", "empty"), (" ", "empty"), ("1\n2", "one line"), ("1\0", "one line")] {
        refused(spec().sysctl("kernel.shmmax", value), &field("kernel.shmmax"), words);
    }
    refused(spec().sysctl("kernel.shmmax", "1".repeat(256)), &field("kernel.shmmax"), "at most 255");
    refused(spec().sysctl("kernel.shmmax", "1").sysctl("kernel/shmmax", "1"), &field("kernel/shmmax"), "another form");
    let joined = NamespaceSource::Host;
    let ipc = spec().sysctl("kernel.shmmax", "1").namespace(NamespaceKind::Ipc, joined.clone());
    refused(ipc, &field("kernel.shmmax"), "not the container's own");
    refused(spec().sysctl("net.core.somaxconn", "1").net(Net::Host), &field("net.core.somaxconn"), "(net)");
    let user = spec().sysctl("user.max_user_namespaces", "1").idmap(Idmap::Host);
    refused(user, &field("user.max_user_namespaces"), "(user)");
    assert_eq!(sysctl::path("net.ipv4.conf.eth0/5.forwarding"), "net/ipv4/conf/eth0.5/forwarding");
    assert_eq!(sysctl::path("net/ipv4/conf/eth0.5/forwarding"), "net/ipv4/conf/eth0.5/forwarding");
    spec().sysctl("net.ipv4.conf.all.forwarding", "1").validate().unwrap();
}

#[test]
fn paths() {
    refused(spec().cwd("a"), "cwd", "absolute");
    refused(spec().cwd(""), "cwd", "empty");
    refused(spec().cwd("/\0"), "cwd", "NUL");
    refused(spec().cwd(format!("/{}", "a".repeat(4095))), "cwd", "4096 bytes");
    refused(spec().rootfs("image"), "rootfs", "absolute");
    refused(spec().rootfs("//./"), "rootfs", "\"host\" is a private view");
    let layers = |lower: Vec<PathBuf>| RootfsKind::Layers { lower, upper: Some("up".into()) };
    refused(spec().rootfs(layers(vec![])), "rootfs.lower", "no layer");
    refused(spec().rootfs(layers(vec!["/a".into(), "b".into()])), "rootfs.lower[1]", "absolute");
    refused(spec().rootfs(layers(vec!["/a".into()])), "rootfs.upper", "absolute");
    refused(spec().rootfs(layers(vec!["/a".into(); 501])), "rootfs.lower", "501 layers");
    refused(spec().masked_paths(["/a", "/../b"]), "masked_paths[1]", "\"..\"");
    refused(spec().readonly_paths(["a"]), "readonly_paths[0]", "absolute");
    refused(spec().cgroup_parent("/a/../../b"), "cgroup_parent", "\"..\"");
    refused(spec().annotation("", "x"), "annotations[\"\"]", "empty");
}

#[test]
fn mounts() {
    refused(spec().mount("/a:/b:rw:x"), "mounts[0]", "more than source, target and words");
    refused(spec().mount("./data:/b"), "mounts[0]", "absolute");
    refused(spec().mount("/a:/b:rx"), "mounts[0]", "more than");
    refused(spec().mount("/a:RW"), "mounts[0]", "absolute");
    refused(spec().mount(""), "mounts[0]", "absolute");
    refused(spec().mounts(["/a", "/b:/c/../d"]), "mounts[1].target", "\"..\"");
    refused(spec().mount("/a:/"), "mounts[0].target", "rootfs");
    refused(spec().mount("/a:/b\0"), "mounts[0].target", "NUL");
    refused(spec().mounts(["/a:/x/", "/b:/x/."]), "mounts[1].target", "mounts[0] already");
    refused(spec().mounts(["/a:/x/y", "/c:/xy", "/b:/x"]), "mounts[2].target", "would cover mounts[0] at \"/x/y\"");
    refused(spec().mount("/a:/proc/self/attr"), "mounts[0].target", "/proc");
    refused(spec().mount("/proc"), "mounts[0].target", "/proc");
    refused(spec().mount(Mount::tmpfs("/proc/self")), "mounts[0].target", "/proc");
    refused(spec().mount(Mount::tmpfs("")), "mounts[0].target", "is empty");
    refused(
        spec().mount(Mount { kind: MountKind::Tmpfs { size: Some(0), mode: None }, ..Mount::tmpfs("/x") }),
        "mounts[0].size",
        "0 bytes",
    );
    refused(
        spec().mount(Mount { kind: MountKind::Tmpfs { size: None, mode: Some(0o10000) }, ..Mount::tmpfs("/x") }),
        "mounts[0].mode",
        "0o10000",
    );
    let fd = MountKind::Bind { source: BindSource::Fd(-1), recursive: true };
    refused(spec().mount(Mount { kind: fd, ..Mount::bind("", "/x") }), "mounts[0].fd", "-1");
    let owned = |mount: Mount| spec().mount(mount.owner(MountOwner::Payload));
    refused(owned(Mount::tmpfs("/x")), "mounts[0].owner", "a bind or a volume");
    owned(Mount::volume(None, "/x")).validate().unwrap();
    refused(spec().mount("/a:/b:rw,ro"), "mounts[0]", "only once");
    refused(spec().mount("/a:/b:owner=payload,owner=payload"), "mounts[0]", "only once");
    refused(spec().mount("/a:/b:owner=root"), "mounts[0]", "more than");
    let many: Vec<String> = (0..10_000).map(|i| format!("/srv:/x/{i}")).collect();
    spec().mounts(many).validate().unwrap();
}

#[test]
fn devices() {
    refused(spec().device("fuse"), "devices[0]", "absolute");
    refused(spec().device("/dev/fuse:/dev/x:rwx"), "devices[0]", "letters r, w and m");
    refused(spec().device("/dev/fuse:rr"), "devices[0]", "at most once");
    spec().device("/dev/fuse:r").validate().unwrap();
    refused(spec().device(Device::new("")), "devices[0]", "absolute");
    refused(spec().device(Device::new("/dev/a\0")), "devices[0].path", "NUL");
    refused(spec().device("/srv/node"), "devices[0].target", "\"/srv/node\" is not below /dev");
    refused(spec().device("/dev/fuse:/dev"), "devices[0].target", "is not below /dev");
    refused(spec().device("/dev/fuse:/dev/../fuse"), "devices[0].target", "\"..\"");
    refused(spec().device("/dev/fuse:/dev//null"), "devices[0].target", "has a \"null\" of its own");
    refused(spec().device("/dev/fuse:/dev/pts/0"), "devices[0].target", "has a \"pts\" of its own");
    refused(spec().devices(["/dev/a:/dev/x", "/dev/b:/dev/./x"]), "devices[1].target", "devices[0] already");
    refused(spec().devices(["/dev/a:/dev/x/y", "/dev/x"]), "devices[1].target", "below the other");
    refused(spec().devices(["/dev/x", "/dev/a:/dev/x/y"]), "devices[1].target", "below the other");
    refused(spec().device("/dev/fuse").mount("/srv:/dev"), "devices[0].target", "covered by mounts[0]");
    refused(spec().device("/dev/fuse").mount("/srv:/dev/fuse"), "devices[0].target", "covered by mounts[0]");
    refused(spec().device("/dev/fuse").file("/dev/fuse", ""), "devices[0].target", "one of files");
    let foreign = spec().device("/dev/fuse").namespace(NamespaceKind::Mnt, NamespaceSource::Host);
    refused(foreign, "devices", "not the container's own");
    spec().devices(["/dev/snd/timer", "/dev/snd/seq", "/dev/null:/dev/null2"]).validate().unwrap();
}

#[test]
fn binary_formats() {
    let mount = |line: &str| spec().mount(Mount::binfmt_misc([":ok:M::abc::/bin/cat:F", line]));
    mount(",x,E,,ext,,/bin/sh,").validate().unwrap();
    let field = "mounts[0].register[1]";
    refused(mount(""), field, "is empty");
    refused(mount(":x:M::abc:/bin/cat:"), field, "a line is :name:type");
    refused(mount("::M::abc::/bin/cat:"), field, "no name");
    refused(mount(":a/b:M::abc::/bin/cat:"), field, "no name");
    refused(mount(":status:M::abc::/bin/cat:"), field, "no name");
    refused(mount(":x:X::abc::/bin/cat:"), field, "M (magic)");
    refused(mount(":x:M::abc::cat:"), field, "no absolute path");
    refused(mount(&format!(":x:M::{}::/bin/cat:", "a".repeat(1920))), field, "1920 bytes");
    let elsewhere = |target: &str| Mount { target: target.into(), ..Mount::binfmt_misc([""; 0]) };
    spec().mount(elsewhere("/srv/formats")).validate().unwrap();
    refused(spec().mount(elsewhere("/proc/sys")), "mounts[0].target", "/proc");
    refused(spec().mount(Mount::tmpfs(Mount::BINFMT_MISC)), "mounts[0].target", "/proc");
    refused(spec().mount(elsewhere("/a")).idmap(Idmap::Host), "mounts[0].type", "user namespace of its own");
    let joined = NamespaceSource::Container("db".into());
    refused(spec().mount(elsewhere("/a")).namespace(NamespaceKind::User, joined), "mounts[0].type", "of others");
}

#[test]
fn files() {
    refused(spec().file("a", ""), "files.a", "absolute");
    refused(spec().file("/a/../b", ""), "files[\"/a/../b\"]", "\"..\"");
    refused(spec().file("/a/", ""), "files[\"/a/\"]", "directory");
    refused(spec().file("/a", File::new("").mode(0o10000)), "files[\"/a\"].mode", "0o10000");
    refused(spec().file("/a/.", ""), "files[\"/a/.\"]", "directory");
    refused(spec().file("/a", "").file("/a-", "").file("/a/b", ""), "files[\"/a\"]", "below it");
    refused(spec().file("/proc/x", ""), "files[\"/proc/x\"]", "/proc");
    refused(spec().file("/a", "").mount("/b:/a/"), "files[\"/a\"]", "mount");
}

#[test]
fn id_maps() {
    let range = |inside, outside, count| IdRange { inside, outside, count };
    let map = |uid: Vec<IdRange>| spec().idmap(Idmap::Explicit { uid, gid: vec![range(0, 0, 1)] });
    let own = |uid: Vec<IdRange>| MountIdmap::Explicit { uid, gid: vec![range(0, 0, 1)] };
    let of_mount = |uid: Vec<IdRange>| spec().mount(Mount::bind("/a", "/b").idmap(own(uid)));
    for (ranges, field, has) in [
        (vec![], "", "no range"),
        (vec![range(0, 0, 0)], "[0]", "count is 0"),
        (vec![range(1, 0, u32::MAX)], "[0]", "inside"),
        (vec![range(0, u32::MAX, 1)], "[0]", "outside"),
        (vec![range(0, 100, 10), range(9, 200, 1)], "[1]", "overlaps [0] inside, from id 9"),
        (vec![range(5, 100, 10), range(0, 109, 2)], "[1]", "overlaps [0] outside, from id 109"),
        ((0..341).map(|i| range(i, i, 1)).collect(), "", "340"),
    ] {
        refused(of_mount(ranges.clone()), &format!("mounts[0].idmap.uid{field}"), has);
        let mut image = spec().rootfs("/srv/image");
        image.rootfs.idmap = Some(own(ranges));
        refused(image, &format!("rootfs.idmap.uid{field}"), has);
    }
    let empty = MountIdmap::Explicit { uid: vec![range(0, 0, 1)], gid: vec![] };
    refused(spec().mount(Mount::volume(None, "/b").idmap(empty)), "mounts[0].idmap.gid", "no range");
    let host = || Some(MountIdmap::Host);
    refused(spec().mount(Mount { idmap: host(), ..Mount::tmpfs("/b") }), "mounts[0].idmap", "only a bind or a volume");
    refused(spec().mount("/a:/b:owner=payload,idmap=host"), "mounts[0].idmap", "excludes owner");
    refused(spec().mount("/a:/b:idmap=host,idmap=host"), "mounts[0]", "only once");
    refused(spec().mount("/a:/b:idmap=auto"), "mounts[0]", "idmap=container");
    let top = |mount: Mount| spec().mount(Mount { idmap_recursive: false, ..mount });
    refused(top(Mount::volume(None, "/b")), "mounts[0].idmap_recursive", "recursive bind");
    let mut owned = spec().rootfs("host:owned");
    owned.rootfs.idmap = host();
    refused(owned, "rootfs.idmap", "directory or layers");
    refused(map(vec![]), "idmap.uid", "no range");
    refused(map(vec![range(0, 0, 0)]), "idmap.uid[0]", "count is 0");
    refused(map(vec![range(1, 0, u32::MAX)]), "idmap.uid[0]", "inside");
    refused(map(vec![range(0, u32::MAX, 1)]), "idmap.uid[0]", "outside");
    refused(map(vec![range(0, 100, 10), range(9, 200, 1)]), "idmap.uid[1]", "overlaps [0] inside, from id 9");
    refused(map(vec![range(5, 100, 10), range(0, 109, 2)]), "idmap.uid[1]", "overlaps [0] outside, from id 109");
    let lines = |count| (0..count).map(|i| range(2 * i, 2 * i, 1)).collect();
    map(lines(340)).validate().unwrap();
    refused(map(lines(341)), "idmap.uid", "340");
    refused(spec().idmap(Idmap::Explicit { uid: lines(1), gid: vec![] }), "idmap.gid", "no range");
}

#[test]
fn contradictions() {
    use NamespaceKind::{Mnt, Net as NetKind, Pid, Time, User, Uts};
    use NamespaceSource::{Container, Fd, Host, New, Path};
    refused(spec().detach(true), "detach", "name");
    refused(spec().init(false), "init", "argv");
    refused(spec().terminal(Terminal::default()).stdout(Stdio::Null), "stdout", "terminal");
    refused(spec().stdin(Stdio::Log), "stdin", "output");
    refused(spec().stdout(Stdio::Stdout), "stdout", "stderr only");
    refused(spec().stderr(Stdio::File("x".into())), "stderr", "absolute");
    refused(spec().stdin(Stdio::Fd(-1)), "stdin", "-1");
    refused(spec().pass_fd(5, 2), "pass_fds[\"5\"]", "2 inside");
    refused(spec().pass_fd(-1, 3), "pass_fds[\"-1\"]", "-1");
    refused(spec().pass_fds([(5, 4), (6, 4)]), "pass_fds[\"6\"]", "taken by 5");
    refused(spec().pass_fd(5, 1 << 20), "pass_fds[\"5\"]", "highest");
    refused(spec().net(Net::Host).namespace(NetKind, New), "net", "namespaces.net");
    refused(spec().net(Net::None).namespace(NetKind, Path("/x".into())), "net", "namespaces.net");
    spec().net(Net::None).namespace(NetKind, New).validate().unwrap();
    refused(spec().net(Net::None).port(80), "ports", "net: none");
    refused(spec().namespace(User, Host), "namespaces.user", "idmap");
    refused(spec().namespace(User, New).idmap(Idmap::Host), "idmap", "contradicts");
    refused(spec().namespace(User, Fd(9)).idmap(Idmap::KeepId), "idmap", "has its map already");
    spec().namespace(User, Fd(9)).validate().unwrap();
    refused(spec().namespace(Uts, Host).hostname("x"), "hostname", "leave out hostname or namespaces.uts");
    refused(
        spec().namespace(Time, Host).time_offsets(TimeOffsets { monotonic: 1, boottime: 0 }),
        "time_offsets",
        "new time namespace",
    );
    refused(spec().namespace(Mnt, Container("db".into())).mount("/a"), "mounts", "not the container's own");
    refused(spec().namespace(Pid, NamespaceSource::Pid(0)), "namespaces.pid", "0 is not a process");
    refused(spec().namespace(Pid, Container("a/b".into())), "namespaces.pid.container", "name");
    refused(spec().namespace(Pid, Path("x".into())), "namespaces.pid", "absolute");
    refused(spec().namespace(Pid, Fd(-3)), "namespaces.pid", "-3");
}

#[test]
fn what_only_a_main_process_has_needs_one() {
    let every = [
        (r#"{"env": {"A": "b"}}"#, "env"),
        (r#"{"env_inherit": ["LC_ALL"]}"#, "env_inherit"),
        (r#"{"cwd": "/tmp"}"#, "cwd"),
        (r#"{"groups": ["4"]}"#, "groups"),
        (r#"{"umask": "077"}"#, "umask"),
        (r#"{"terminal": true}"#, "terminal"),
        (r#"{"stdin": "null"}"#, "stdin"),
        (r#"{"stdout": "pipe"}"#, "stdout"),
        (r#"{"stderr": "log"}"#, "stderr"),
        (r#"{"log_max": "1M"}"#, "log_max"),
        (r#"{"io_priority": "idle"}"#, "io_priority"),
        (r#"{"rlimits": {"nofile": 20}}"#, "rlimits"),
        (r#"{"nice": 5}"#, "nice"),
        (r#"{"scheduler": "batch"}"#, "scheduler"),
        (r#"{"oom_score_adj": 500}"#, "oom_score_adj"),
        (r#"{"pass_fds": [7]}"#, "pass_fds"),
    ];
    for (json, field) in every {
        let spec = Spec::from_json(json).unwrap();
        refused(spec.clone(), field, "there is no main process: argv is not set");
        spec.argv(["true"]).validate().unwrap();
    }
    // What the commands that are started later take from the spec.
    for json in
        [r#"{"capabilities": "none", "securebits": ["noroot"], "no_new_privs": false}"#, r#"{"seccomp": "strict"}"#]
    {
        Spec::from_json(json).unwrap().validate().unwrap();
    }
    // Mounts are whose it says that they are, and files that are copied in.
    let owned = r#"{"user": "7:8", "mounts": [{"source": "/srv", "target": "/srv", "owner": "payload"}]}"#;
    Spec::from_json(owned).unwrap().validate().unwrap();
    // A container that an earlier version started so can be changed.
    let earlier = Spec::from_json(r#"{"env": {"A": "b"}, "net": "none", "ports": [80]}"#).unwrap();
    earlier.validate_running().unwrap();
}

#[test]
fn commands_are_checked_the_same_way() {
    let mut command = Command::new("sh");
    command.validate().unwrap();
    command.nice = Some(99);
    assert_eq!(command.validate().unwrap_err().field(), Some("nice"));
    command.nice = None;
    for tid in [-1, 0, 1, 4 << 20, i32::MAX] {
        let error = command.set_tid(tid).validate().unwrap_err();
        assert_eq!(error.to_string(), format!("set_tid: {tid} is not in 2 to 4194303"));
    }
    command.set_tid(2).validate().unwrap();
    command.argv.clear();
    assert_eq!(command.validate().unwrap_err().field(), Some("argv"));
}
