//! JSON, text and schema of all fields together.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;
use std::time::Duration;

use proptest::prelude::*;
use proptest::{collection, option};

use super::fields::{Fields, LATER};
use super::json::{Json, json};
use super::*;
use crate::command::Command;
use crate::error::{Error, ErrorKind};

/// A field, JSON that it reads and writes, the same in Rust, JSON that it must refuse, and the place and words of that error.
type Case = (&'static str, Json, fn(Spec) -> Spec, Json, (&'static str, &'static str));

fn cases() -> Vec<Case> {
    fn case(
        field: &'static str,
        json: Json,
        build: fn(Spec) -> Spec,
        wrong: Json,
        error: (&'static str, &'static str),
    ) -> Case {
        (field, json, build, wrong, error)
    }
    vec![
        case("name", json!("db"), |s| s.name("db"), json!(1), ("name", "expected text, got the number 1")),
        case(
            "argv",
            json!(["sh", "", {"base64": "/w=="}]),
            |s| s.argv([OsString::from("sh"), "".into(), OsString::from_vec(vec![0xff])]),
            json!(["sh", 5]),
            ("argv[1]", "got the number 5"),
        ),
        case(
            "env",
            json!({"A": "1", "B": null, "C": {"base64": "/w=="}}),
            |s| s.env("A", "1").env_remove("B").env("C", OsString::from_vec(vec![0xff])),
            json!({"A": 1}),
            ("env.A", "null to remove it, got the number 1"),
        ),
        case(
            "env_inherit",
            json!(["LANG", "*"]),
            |s| s.env_inherit(["LANG", "*"]),
            json!("LANG"),
            ("env_inherit", "expected a list, got the text \"LANG\""),
        ),
        case("cwd", json!("/srv"), |s| s.cwd("/srv"), json!(false), ("cwd", "expected a path, got false")),
        case("user", json!("www-data:33"), |s| s.user("www-data:33"), json!(-1), ("user", "a name or an id")),
        case("groups", json!(["adm", "4"]), |s| s.groups(["adm", "4"]), json!([1.5]), ("groups[0]", "number 1.5")),
        case("umask", json!("0027"), |s| s.umask(0o27), json!("89"), ("umask", "octal")),
        case("hostname", json!("db"), |s| s.hostname("db"), json!([]), ("hostname", "got a list")),
        case("domainname", json!("x.y"), |s| s.domainname("x.y"), json!({}), ("domainname", "got an object")),
        case("dns", json!(["1.1.1.1"]), |s| s.dns(["1.1.1.1"]), json!([null]), ("dns[0]", "got null")),
        case("hosts", json!({"db": "::1"}), |s| s.host("db", "::1"), json!({"db": 1}), ("hosts.db", "expected text")),
        case(
            "rootfs",
            json!({"lower": ["/b", "/a"], "upper": "/u", "readonly": true, "idmap": "host"}),
            |s| {
                let kind = RootfsKind::Layers { lower: vec!["/b".into(), "/a".into()], upper: Some("/u".into()) };
                s.rootfs(Rootfs { kind, readonly: true, idmap: Some(MountIdmap::Host) })
            },
            json!({"path": "/a", "readOnly": true}),
            ("rootfs.readOnly", "did you mean \"readonly\"?"),
        ),
        case(
            "mounts",
            json!([
                {"source": "/a", "target": "/a"},
                {"source": "/a", "target": "/b", "rw": true, "recursive": false},
                {"fd": 7, "target": "/c"},
                {"type": "tmpfs", "target": "/d", "size": 65536, "mode": "0700"},
                {"type": "volume", "source": "data", "target": "/f", "rw": false},
                {"type": "volume", "target": "/g"},
                {"source": "/a", "target": "/h", "rw": true, "owner": "payload"},
                {"type": "volume", "source": "data", "target": "/i", "rw": false, "owner": "payload"},
                {"source": "/a", "target": "/j", "idmap": "host"},
                {"source": "/a", "target": "/k", "idmap": {"uid": [[0, 1000, 1]], "gid": [[0, 5, 2]]}, "idmap_recursive": false},
                {"type": "volume", "source": "data", "target": "/l", "idmap": "container"},
                {"type": "sysfs", "target": "/e"},
                {"type": "proc", "target": "/proc", "rw": false},
                {"type": "binfmt_misc", "target": "/proc/sys/fs/binfmt_misc", "register": [":a:E::a::/bin/cat:"]},
            ]),
            |s| {
                let bind = |source, recursive| MountKind::Bind { source, recursive };
                s.mount("/a")
                    .mount(Mount { kind: bind(BindSource::Path("/a".into()), false), ..Mount::bind("", "/b").rw() })
                    .mount(Mount { kind: bind(BindSource::Fd(7), true), ..Mount::bind("", "/c") })
                    .mount(Mount {
                        kind: MountKind::Tmpfs { size: Some(65536), mode: Some(0o700) },
                        ..Mount::tmpfs("/d")
                    })
                    .mount("data:/f:ro")
                    .mount(Mount::volume(None, "/g"))
                    .mount("/a:/h:rw,owner=payload")
                    .mount(Mount { readonly: true, ..Mount::volume(Some("data"), "/i").owner(MountOwner::Payload) })
                    .mount("/a:/j:idmap=host")
                    .mount(Mount {
                        idmap_recursive: false,
                        ..Mount::bind("/a", "/k").idmap(MountIdmap::Explicit {
                            uid: vec![IdRange { inside: 0, outside: 1000, count: 1 }],
                            gid: vec![IdRange { inside: 0, outside: 5, count: 2 }],
                        })
                    })
                    .mount("data:/l:rw,idmap=container")
                    .mount(Mount { kind: MountKind::Sysfs, ..Mount::bind("", "/e") })
                    .mount(Mount { kind: MountKind::Proc, ..Mount::bind("", "/proc") })
                    .mount(Mount::binfmt_misc([":a:E::a::/bin/cat:"]))
            },
            json!([{"source": "/a", "traget": "/b"}]),
            ("mounts[0].traget", "did you mean \"target\"?"),
        ),
        case(
            "files",
            json!({"/etc/a": "text", "/etc/b": {"data": {"base64": "/w=="}, "mode": "0755"}}),
            |s| s.file("/etc/a", "text").file("/etc/b", File::new(vec![0xff]).mode(0o755)),
            json!({"/etc/a": {"data": "x", "base64": "/w=="}}),
            ("files[\"/etc/a\"].base64", "excludes data"),
        ),
        case(
            "devices",
            json!([{"path": "/dev/fuse", "target": "/dev/fuse"}, {"path": "/dev/a:b", "target": "/dev/c"}]),
            |s| s.device("/dev/fuse").device(Device::new("/dev/a:b").target("/dev/c")),
            json!([{"path": "/dev/fuse", "tagret": "/dev/x"}]),
            ("devices[0].tagret", "did you mean \"target\"?"),
        ),
        case(
            "device_rules",
            json!([
                {"allow": true, "type": "c", "major": 10, "access": "rw"},
                {"allow": false, "type": "a", "access": "m"},
                {"allow": true, "type": "b", "major": 7, "minor": 1, "access": "rwm"},
            ]),
            |s| s.device_rules(["c 10:* rw", "deny a *:* m", "b 7:1"].map(|rule| rule.parse().unwrap())),
            json!([{"type": "c", "mayor": 1}]),
            ("device_rules[0].mayor", "did you mean \"major\"?"),
        ),
        case("shm_size", json!(1048576), |s| s.shm_size(1 << 20), json!("1MB"), ("shm_size", "write MiB")),
        case(
            "init",
            json!(false),
            |s| s.init(false),
            json!("no"),
            ("init", "expected true or false, got the text \"no\""),
        ),
        case(
            "terminal",
            json!({"cols": 100, "rows": 50}),
            |s| s.terminal(Terminal { rows: 50, cols: 100 }),
            json!({"rows": 70000}),
            ("terminal.rows", "70000 is not in 1 to 65535"),
        ),
        case(
            "stdin",
            json!("file:/a b"),
            |s| s.stdin(Stdio::File("/a b".into())),
            json!("/a"),
            ("stdin", "write file:/a"),
        ),
        case("stdout", json!("log"), |s| s.stdout(Stdio::Log), json!("fd:x"), ("stdout", "no number")),
        case("stderr", json!("stdout"), |s| s.stderr(Stdio::Stdout), json!("fd:-1"), ("stderr", "no number")),
        case("log_max", json!(65536), |s| s.log_max(65536), json!(-1), ("log_max", "-1 is negative")),
        case("detach", json!(true), |s| s.detach(true), json!(1), ("detach", "true or false")),
        case("nesting", json!(true), |s| s.nesting(true), json!("yes"), ("nesting", "true or false")),
        case(
            "namespaces",
            json!({"ipc": "host", "net": "/run/netns/blue", "pid": {"pid": 12}, "user": {"fd": 9},
                "uts": {"container": "db"}, "time": "new"}),
            |s| {
                s.namespace(NamespaceKind::Ipc, NamespaceSource::Host)
                    .namespace(NamespaceKind::Net, NamespaceSource::Path("/run/netns/blue".into()))
                    .namespace(NamespaceKind::Pid, NamespaceSource::Pid(12))
                    .namespace(NamespaceKind::User, NamespaceSource::Fd(9))
                    .namespace(NamespaceKind::Uts, NamespaceSource::Container("db".into()))
                    .namespace(NamespaceKind::Time, NamespaceSource::New)
            },
            json!({"nett": "host"}),
            ("namespaces.nett", "did you mean \"net\"?"),
        ),
        case(
            "idmap",
            json!({"uid": [[0, 1000, 1], [1, 100000, 65535]], "gid": [[0, 1000, 1]]}),
            |s| {
                let range = |inside, outside, count| IdRange { inside, outside, count };
                s.idmap(Idmap::Explicit {
                    uid: vec![range(0, 1000, 1), range(1, 100_000, 65_535)],
                    gid: vec![range(0, 1000, 1)],
                })
            },
            json!({"uid": [[0, 1000]], "gid": []}),
            ("idmap.uid[0]", "[inside, outside, count]"),
        ),
        case("memory", json!(268435456), |s| s.memory(256 << 20), json!([1]), ("memory", "like \"256M\"), got a list")),
        case("memory_high", json!(1048576), |s| s.memory_high(1 << 20), json!(true), ("memory_high", "like \"256M\"")),
        case("memory_low", json!(1048576), |s| s.memory_low(1 << 20), json!(-1), ("memory_low", "-1 is negative")),
        case("memory_min", json!(1048576), |s| s.memory_min(1 << 20), json!("x"), ("memory_min", "")),
        case("oom_group", json!(true), |s| s.oom_group(true), json!(1), ("oom_group", "true or false")),
        case("swap", json!(0), |s| s.swap(0), json!("1MB"), ("swap", "ambiguous")),
        case("cpus", json!(0.5), |s| s.cpus(0.5), json!("0.5"), ("cpus", "expected a number of cores")),
        case(
            "cpu_burst",
            json!("50ms"),
            |s| s.cpu_burst(Duration::from_millis(50)),
            json!("1 fortnight"),
            ("cpu_burst", "not a duration"),
        ),
        case("cpu_idle", json!(true), |s| s.cpu_idle(true), json!("yes"), ("cpu_idle", "true or false")),
        case("cpu_weight", json!(50), |s| s.cpu_weight(50), json!("50"), ("cpu_weight", "expected a whole number")),
        case("cpuset", json!("0-3,7"), |s| s.cpuset("0-3,7"), json!("3-1"), ("cpuset", "ends before it begins")),
        case(
            "cpu_rt_runtime",
            json!("100ms"),
            |s| s.cpu_rt_runtime(Duration::from_millis(100)),
            json!(-1),
            ("cpu_rt_runtime", "negative"),
        ),
        case(
            "cpu_rt_period",
            json!("500ms"),
            |s| s.cpu_rt_period(Duration::from_millis(500)),
            json!([]),
            ("cpu_rt_period", "a duration"),
        ),
        case("pids", json!(64), |s| s.pids(64), json!("64"), ("pids", "expected a whole number")),
        case("ptys", json!(8), |s| s.ptys(8), json!("8"), ("ptys", "expected a whole number")),
        case("io_weight", json!(50), |s| s.io_weight(50), json!("ioprio:8"), ("io_weight", "0 to 7")),
        case(
            "io_max",
            json!({"8:0": {"rbps": 1048576, "wiops": 100}}),
            |s| s.io_max("8:0", IoMax { rbps: Some(1 << 20), wiops: Some(100), ..IoMax::default() }),
            json!({"8:0": {"bps": 1}}),
            ("io_max[\"8:0\"].bps", "rbps"),
        ),
        case(
            "io_priority",
            json!("realtime:3"),
            |s| s.io_priority(IoPriority::Realtime(3)),
            json!("realtime:8"),
            ("io_priority", "\"best-effort:7\""),
        ),
        case(
            "hugepages",
            json!({"2M": 67108864}),
            |s| s.hugepages("2M", 64 << 20),
            json!({"2M": "x"}),
            ("hugepages[\"2M\"]", "not a size"),
        ),
        case(
            "rdma",
            json!({"mlx5_0": {"hca_handle": 2}}),
            |s| s.rdma("mlx5_0", RdmaMax { hca_handle: Some(2), ..RdmaMax::default() }),
            json!({"mlx5_0": 2}),
            ("rdma.mlx5_0", "an object"),
        ),
        case("misc", json!({"sev": 2}), |s| s.misc("sev", 2), json!({"sev": "2x"}), ("misc.sev", "whole number")),
        case(
            "disk",
            json!({"size": 1073741824, "backend": "image", "filesystem": "xfs", "path": "/srv"}),
            |s| {
                s.disk(Disk {
                    size: 1 << 30,
                    backend: DiskBackend::Image,
                    filesystem: Some(Filesystem::Xfs),
                    path: Some("/srv".into()),
                })
            },
            json!({"size": "1G", "backend": "zfs"}),
            ("disk.backend", "one of auto, tmpfs, project, btrfs, image"),
        ),
        case("inodes", json!(100), |s| s.inodes(100), json!("100"), ("inodes", "expected a whole number")),
        case(
            "quota",
            json!({"uid:1000": {"disk": 1048576, "inodes": 10}, "gid:100": 2048}),
            |s| {
                s.quota(QuotaId::User(1000), IdQuota { disk: Some(1 << 20), inodes: Some(10) })
                    .quota(QuotaId::Group(100), 2048)
            },
            json!({"uid:5": {"disk": "1 M"}}),
            ("quota[\"uid:5\"].disk", "not a size"),
        ),
        case(
            "rlimits",
            json!({"nofile": 1024, "core": "unlimited", "stack": [8388608, "unlimited"]}),
            |s| {
                s.rlimit(Resource::Nofile, 1024)
                    .rlimit(Resource::Core, Rlimit::UNLIMITED)
                    .rlimit(Resource::Stack, Rlimit { soft: 8 << 20, hard: Rlimit::UNLIMITED })
            },
            json!({"nofile": [1, 2, 3]}),
            ("rlimits.nofile", "[soft, hard]"),
        ),
        case("nice", json!(-5), |s| s.nice(-5), json!(1.5), ("nice", "expected a whole number")),
        case(
            "scheduler",
            json!({"policy": "deadline", "runtime": "2ms", "deadline": "10ms", "period": 1, "reset_on_fork": true}),
            |s| {
                let [runtime, deadline] = [2, 10].map(Duration::from_millis);
                let policy = Policy::Deadline { runtime, deadline, period: Duration::from_secs(1) };
                s.scheduler(Scheduler { reset_on_fork: true, ..policy.into() })
            },
            json!({"policy": "fifo"}),
            ("scheduler.priority", "fifo needs it"),
        ),
        case("oom_score_adj", json!(500), |s| s.oom_score_adj(500), json!(1e30), ("oom_score_adj", "whole number")),
        case("wall_time", json!(2), |s| s.wall_time(Duration::from_secs(2)), json!(true), ("wall_time", "")),
        case("cpu_time", json!(2), |s| s.cpu_time(Duration::from_secs(2)), json!("x"), ("cpu_time", "not a duration")),
        case(
            "start_timeout",
            json!("1500ms"),
            |s| s.start_timeout(Duration::from_millis(1500)),
            json!("1.5x"),
            ("start_timeout", "not a duration"),
        ),
        case(
            "stop_signal",
            json!("SIGINT"),
            |s| s.stop_signal(libc::SIGINT),
            json!("SIGNOPE"),
            ("stop_signal", "signal"),
        ),
        case(
            "stop_timeout",
            json!(3),
            |s| s.stop_timeout(Duration::from_secs(3)),
            json!(-1),
            ("stop_timeout", "negative"),
        ),
        case("net", json!("none"), |s| s.net(Net::None), json!("hots"), ("net", "did you mean \"host\"?")),
        case(
            "ports",
            json!([
                {"port": 80, "host_port": 0, "host": "127.0.0.1", "protocol": "tcp"},
                {"port": 53, "host_port": 5300, "host": "::1", "protocol": "udp"},
            ]),
            |s| s.port(80).port("[::1]:5300:53/udp"),
            json!([{"port": 80, "host_prot": 1}]),
            ("ports[0].host_prot", "did you mean \"host_port\"?"),
        ),
        case(
            "capabilities",
            json!({"bounding": ["chown", "net_raw"], "ambient": ["net_raw"]}),
            |s| s.capabilities(Capabilities { bounding: 1 | 1 << 13, ambient: 1 << 13, ..Capabilities::default() }),
            json!(["CAP_NET_ADMINN"]),
            ("capabilities[0]", "did you mean \"net_admin\"?"),
        ),
        case(
            "securebits",
            json!(["noroot", "no_cap_ambient_raise_locked"]),
            |s| s.securebits(Securebits::NOROOT | Securebits::NO_CAP_AMBIENT_RAISE_LOCKED),
            json!(["no_root"]),
            ("securebits[0]", "did you mean \"noroot\"?"),
        ),
        case(
            "landlock",
            json!({"paths": {"/dev": "all", "/usr": ["read", "execute", "refer"]}, "bind": [0, 80], "connect": [],
                   "scopes": ["signal"], "abi": 6}),
            |s| {
                let read = Landlock::READ | Landlock::EXECUTE | Landlock::access("refer").unwrap();
                s.landlock(Landlock {
                    paths: [("/dev".into(), Landlock::ALL), ("/usr".into(), read)].into(),
                    bind: Some(vec![0, 80]),
                    connect: Some(Vec::new()),
                    scopes: Landlock::SIGNAL,
                    abi: Some(6),
                })
            },
            json!({"paths": {"/usr": ["reed"]}}),
            ("landlock.paths[\"/usr\"][0]", "did you mean \"read\"?"),
        ),
        case("apparmor", json!("web"), |s| s.apparmor("web"), json!(1), ("apparmor", "text")),
        case("selinux", json!("u:r:t:s0"), |s| s.selinux("u:r:t:s0"), json!(["x"]), ("selinux", "text")),
        case("mount_label", json!("u:r:t:s0"), |s| s.mount_label("u:r:t:s0"), json!(1), ("mount_label", "text")),
        case(
            "seccomp",
            json!({"default_action": "errno", "default_errno": "ENOSYS", "rules": [
                {"names": ["read", "ioctl"], "action": "allow", "args": [{"index": 1, "op": "masked_eq", "value": 1, "mask": 255}],
                    "when": {"capabilities": ["chown"], "kernel": "5.4"}},
            ]}),
            |s| {
                let mut rule =
                    SeccompRule::new(["read", "ioctl"], SeccompAction::Allow).arg(1, SeccompOp::MaskedEqual(255), 1);
                rule.when = SeccompWhen { capabilities: 1, kernel: Some((5, 4)), ..SeccompWhen::default() };
                let default_action = Some(SeccompAction::Errno(libc::ENOSYS as u16));
                s.seccomp(SeccompRules { default_action, rules: vec![rule], ..SeccompRules::default() })
            },
            json!({"rules": [{"names": "read", "action": "allow", "args": [{"index": 0, "op": "=", "value": 1}]}]}),
            ("seccomp.rules[0].args[0].op", "\"=\" is unknown; known are ne, lt"),
        ),
        case("no_new_privs", json!(false), |s| s.no_new_privs(false), json!(0), ("no_new_privs", "true or false")),
        case(
            "masked_paths",
            json!([]),
            |s| s.masked_paths(Vec::<PathBuf>::new()),
            json!("/a"),
            ("masked_paths", "a list"),
        ),
        case(
            "readonly_paths",
            json!(["/a"]),
            |s| s.readonly_paths(["/a"]),
            json!([1]),
            ("readonly_paths[0]", "a path"),
        ),
        case(
            "sysctls",
            json!({"kernel.sem": "250 32000 32 128"}),
            |s| s.sysctl("kernel.sem", "250 32000 32 128"),
            json!({"kernel.shmall": true}),
            ("sysctls[\"kernel.shmall\"]", "text or a whole number"),
        ),
        case(
            "time_offsets",
            json!({"monotonic": -5, "boottime": "1500ms"}),
            |s| s.time_offsets(TimeOffsets { monotonic: -5_000_000_000, boottime: 1_500_000_000 }),
            json!({"realtime": 1}),
            ("time_offsets.realtime", "known are monotonic, boottime"),
        ),
        case("cgroup_parent", json!("/a"), |s| s.cgroup_parent("/a"), json!(1), ("cgroup_parent", "a path")),
        case("pass_fds", json!({"5": 3}), |s| s.pass_fd(5, 3), json!({"x": 3}), ("pass_fds.x", "whole number")),
        case("annotations", json!({"a": "b"}), |s| s.annotation("a", "b"), json!({"a": 1}), ("annotations.a", "text")),
    ]
}

fn read(field: &str, json: &Json) -> Result<Spec> {
    Spec::from_json(&json!({ field: json }).to_string())
}

fn refused(text: &str) -> Error {
    match Spec::from_json(text) {
        Err(error) => error,
        Ok(spec) => panic!("{text} was read as {spec:?}"),
    }
}

#[test]
fn every_field_is_read_and_written() {
    let fields: Vec<&str> = cases().iter().map(|case| case.0).collect();
    assert_eq!(fields, Spec::keys());
    for (field, json, build, wrong, (place, words)) in cases() {
        let spec = build(Spec::new());
        assert_eq!(read(field, &json).unwrap(), spec, "{field}");
        assert_eq!(serde_json::from_str::<Json>(&spec.to_json()).unwrap(), json!({ field: json }));
        let error = read(field, &wrong).unwrap_err();
        assert_eq!(error.field(), Some(place), "{error}");
        assert_eq!((error.kind(), error.errno()), (ErrorKind::InvalidSpec, libc::EINVAL));
        assert!(error.to_string().contains(words), "{error}");
        // Null and clear put the default back.
        let mut cleared = spec.clone();
        cleared.clear(field).unwrap();
        assert_eq!(cleared, Spec::new(), "{field}");
        let mut merged = spec.clone();
        merged.merge_json(&json!({ field: null }).to_string()).unwrap();
        assert_eq!(merged, Spec::new(), "{field}");
        // What `get` shows of a scalar or an object, `set` takes back.
        let shown = spec.get(field).unwrap().unwrap();
        let free = ["argv", "env", "env_inherit", "dns", "hosts", "annotations"];
        if !free.contains(&field) {
            let mut again = Spec::new();
            again.set(field, shown.as_bytes()).unwrap_or_else(|error| panic!("{field}: {shown:?}: {error}"));
            assert_eq!(again, spec, "{field}: {shown}");
        }
        cleared.set(field, b"").unwrap();
        assert_eq!(cleared, Spec::new());
    }
    assert_eq!(Spec::new().to_json(), "{}");
}

#[test]
fn the_order_is_that_of_the_vocabulary() {
    let spec = Spec::new().memory(1 << 20).name("x").argv(["a"]);
    assert_eq!(spec.to_json(), r#"{"name":"x","argv":["a"],"memory":1048576}"#);
}

#[test]
fn the_schema_has_every_field() {
    let schema: Json = serde_json::from_str(&schema_json()).unwrap();
    let properties = schema["properties"].as_object().unwrap();
    assert_eq!(properties.len(), Spec::keys().len() + LATER.len());
    for key in Spec::keys() {
        let property = &properties[key];
        for part in ["title", "description", "default", "anyOf"] {
            assert!(property.get(part).is_some(), "{key} has no {part}");
        }
        let description = property["description"].as_str().unwrap();
        assert!(description.contains("Default: "), "{key}: {description}");
        assert!(!description.contains("[`") && !description.contains("  "), "{key}: {description}");
        assert!(!LATER.contains(&key));
        let default = (Spec::FIELDS.iter().find(|field| field.name == key).unwrap().write)(&Spec::new());
        assert_eq!(property["default"], default.unwrap_or(Json::Null), "{key}");
    }
    assert_eq!(properties["memory"]["x-unit"], "bytes");
    assert_eq!(properties["stop_timeout"]["x-unit"], "seconds");
    assert_eq!(properties["cpus"]["x-unit"], "cores");
    for key in LATER {
        assert_eq!(properties[key]["x-available"], false, "{key}");
    }
}

#[test]
fn other_forms_of_the_same_value() {
    let same = |field: &str, forms: &[Json]| {
        let first = read(field, &forms[0]).unwrap();
        assert_ne!(first, Spec::new(), "{field}");
        for form in forms {
            assert_eq!(read(field, form).unwrap(), first, "{field}: {form}");
        }
    };
    same(
        "memory",
        &[json!(1 << 28), json!("256M"), json!("256m"), json!("256MiB"), json!("0.25G"), json!(268435456.0)],
    );
    same("user", &[json!("1000"), json!(1000)]);
    same("umask", &[json!("022"), json!("0o022"), json!(18)]);
    same("stop_timeout", &[json!(90), json!("90"), json!("1.5m"), json!(90.0), json!("90000ms")]);
    same("stop_signal", &[json!(2), json!("INT"), json!("SIGINT"), json!("sigint"), json!("2")]);
    same("env", &[json!({"A": "b=c"}), json!(["A=b=c"]), json!([["A", "b=c"]])]);
    same("terminal", &[json!(true), json!({}), json!({"rows": 24})]);
    same("rootfs", &[json!("/a"), json!({"path": "/a"}), json!({"path": "/a", "readonly": false, "upper": null})]);
    same("rootfs", &[json!({"path": "host", "readonly": true}), json!({"readonly": true})]);
    same(
        "mounts",
        &[
            json!(["/a:/a:ro"]),
            json!(["/a"]),
            json!([{"source": "/a"}]),
            json!([{"type": "bind", "source": "/a", "target": "/a", "rw": false, "recursive": true}]),
        ],
    );
    same(
        "mounts",
        &[
            json!([{"type": "tmpfs", "target": "/a", "size": "1M"}]),
            json!([{"type": "tmpfs", "target": "/a", "size": 1048576, "rw": true}]),
        ],
    );
    same(
        "mounts",
        &[
            json!(["data:/a"]),
            json!(["data:/a:rw"]),
            json!([{"type": "volume", "source": "data", "target": "/a", "rw": true}]),
        ],
    );
    same(
        "mounts",
        &[
            json!([{"type": "binfmt_misc"}]),
            json!([{"type": "binfmt_misc", "target": "/proc/sys/fs/binfmt_misc", "rw": true, "register": []}]),
        ],
    );
    same(
        "devices",
        &[
            json!(["/dev/kvm"]),
            json!(["/dev/kvm:rw"]),
            json!(["/dev/kvm:/dev/kvm:rw"]),
            json!([{"path": "/dev/kvm"}]),
            json!([{"path": "/dev/kvm", "access": "rw"}]),
            json!([{"path": "/dev/kvm", "access": "wr"}]),
        ],
    );
    same("devices", &[json!(["/dev/kvm:mr"]), json!([{"path": "/dev/kvm", "access": "rm"}])]);
    same(
        "device_rules",
        &[
            json!(["c 1:* rwm"]),
            json!(["allow c 1:*"]),
            json!([" c\t1:*  mwr "]),
            json!([{"type": "c", "major": 1}]),
            json!([{"allow": true, "type": "c", "major": 1, "minor": "*", "access": "rwm"}]),
            json!([{"type": "c", "major": 1, "minor": -1}]),
        ],
    );
    same("device_rules", &[json!(["deny a"]), json!(["deny a *:* rwm"]), json!([{"allow": false}])]);
    same(
        "ports",
        &[
            json!([80]),
            json!(["80"]),
            json!(["80/tcp"]),
            json!(["127.0.0.1:0:80"]),
            json!({"80": 0}),
            json!({"80": null}),
        ],
    );
    same(
        "ports",
        &[json!(["8080:80"]), json!({"80": 8080}), json!({"80": "8080"}), json!({"80/tcp": "127.0.0.1:8080"})],
    );
    same(
        "files",
        &[json!({"/a": "A"}), json!({"/a": {"data": "A"}}), json!({"/a": {"base64": "QQ=="}}), json!(["/a=A"])],
    );
    same("namespaces", &[json!({"net": {"fd": 5}}), json!({"net": "fd:5"}), json!(["net=fd:5"])]);
    same("namespaces", &[json!({"net": {"pid": 5}}), json!({"net": "pid:5"})]);
    same("namespaces", &[json!({"net": {"container": "a"}}), json!({"net": "container:a"})]);
    same("namespaces", &[json!({"net": "/a"}), json!({"net": {"path": "/a"}})]);
    same("idmap", &[json!("0 100000 65536"), json!({"uid": ["0 100000 65536"], "gid": [[0, 100000, 65536]]})]);
    same(
        "idmap",
        &[
            json!("0 1000 1\n1 100000 9\n"),
            json!({"uid": "0 1000 1\n1 100000 9", "gid": [[0, 1000, 1], "1\t100000 9"]}),
        ],
    );
    same(
        "rlimits",
        &[
            json!({"nofile": [64, 64]}),
            json!({"nofile": 64}),
            json!({"nofile": "64:64"}),
            json!({"nofile": {"soft": 64, "hard": 64}}),
        ],
    );
    same("rlimits", &[json!({"stack": "8M"}), json!({"stack": 8388608})]);
    same("capabilities", &[json!("none"), json!([]), json!({"drop": "all"}), json!({"bounding": []})]);
    same(
        "capabilities",
        &[json!(["net_admin"]), json!(["CAP_NET_ADMIN"]), json!({"drop": "all", "add": ["Net_Admin"]})],
    );
    same("capabilities", &[json!("all"), json!({"add": "all"})]);
    same(
        "capabilities",
        &[
            json!({"add": ["net_admin"], "drop": ["net_raw"]}),
            json!({"bounding": "default", "add": ["net_admin"], "drop": ["net_raw"]}),
        ],
    );
    same("pass_fds", &[json!({"7": 7, "8": 8}), json!([7, 8]), json!(["7", "8=8"])]);
    same(
        "time_offsets",
        &[json!({"monotonic": 1.5}), json!({"monotonic": "1.5s"}), json!({"monotonic": "+1500ms", "boottime": 0})],
    );
    for form in [json!("default"), json!({}), json!({"add": ["chown"]})] {
        assert_eq!(read("capabilities", &form).unwrap(), Spec::new());
    }
}

#[test]
fn wrong_json_is_refused_with_its_place() {
    for (text, message) in [
        ("", "JSON: EOF"),
        ("[]", "spec: expected a JSON object, got a list"),
        (r#"{"memory": 1, "memory": 2}"#, "\"memory\" stands twice"),
        (r#"{"files": {"/a": "", "//a": ""}}"#, "stands twice"),
        (r#"{"env": ["A=1", "A=2"]}"#, "env.A: stands twice"),
        (r#"{"env": ["A"]}"#, "env[0]: \"A\" is not KEY=VALUE"),
        (r#"{"memroy": 1}"#, "memroy: unknown field; did you mean memory?"),
        (r#"{"Memory": 1}"#, "did you mean memory?"),
        (r#"{"secomp": 1}"#, "did you mean seccomp?"),
        (r#"{"hooks": {}}"#, "hooks: not available yet"),
        (r#"{"memory": 18446744073709551616}"#, "memory: 1.8446744073709552e+19 is too large"),
        (r#"{"memory": 1.5}"#, "got the number 1.5"),
        (r#"{"memory": "99999999T"}"#, "too large"),
        (r#"{"cpus": null, "argv": [{"base64": "x"}]}"#, "argv[0].base64: \"x\" is not base64"),
        (r#"{"hostname": {"base64": "/w=="}}"#, "hostname: has to be UTF-8"),
        (r#"{"mounts": [{"target": "/a"}]}"#, "mounts[0]: has no source"),
        (r#"{"mounts": [{"type": "tmpfs"}]}"#, "mounts[0]: has no target"),
        (r#"{"mounts": [{"source": "/a", "size": 1}]}"#, "mounts[0].size: a mount of type \"bind\" has none"),
        (r#"{"mounts": [{"type": "nfs", "target": "/a"}]}"#, "\"nfs\" is not a type of mount"),
        (r#"{"mounts": [{"source": "/a", "owner": "root"}]}"#, "mounts[0].owner: expected \"payload\""),
        (r#"{"mounts": [{"source": "/a", "owner": 0}]}"#, "mounts[0].owner: expected"),
        (r#"{"mounts": [{"type": "tmpfs", "target": "/a", "owner": "payload"}]}"#, "mounts[0].owner: a mount of type"),
        (r#"{"mounts": [{"type": "tmpfs", "target": "/a", "idmap": "host"}]}"#, "mounts[0].idmap: a mount of type"),
        (
            r#"{"mounts": [{"type": "volume", "target": "/a", "idmap_recursive": true}]}"#,
            "mounts[0].idmap_recursive: a mount of type",
        ),
        (r#"{"mounts": [{"source": "/a", "idmap": "keep-id"}]}"#, "mounts[0].idmap: expected container, host"),
        (r#"{"mounts": [{"source": "/a", "idmap": "0 1"}]}"#, "mounts[0].idmap[0]: \"0 1\" is not three numbers"),
        (r#"{"mounts": [{"source": "/a", "idmap": {"uid": "0 0 1"}}]}"#, "mounts[0].idmap: has uid but no gid"),
        (
            r#"{"mounts": [{"source": "/a", "idmap": {"uid": [[0, 0, 4294967296]], "gid": []}}]}"#,
            "mounts[0].idmap.uid[0]: expected",
        ),
        (r#"{"rootfs": {"path": "/a", "idmap": 5}}"#, "rootfs.idmap: expected container, host"),
        (r#"{"mounts": [{"target": "/a", "type": "tmpfs", "register": []}]}"#, "mounts[0].register: a mount of type"),
        (r#"{"mounts": [{"type": "binfmt_misc", "register": [1]}]}"#, "mounts[0].register[0]: expected text"),
        (
            r#"{"ports": ["80/sctp"]}"#,
            "ports[0]: \"80/sctp\" is not a port, [[ADDRESS:]HOST_PORT:]PORT[/udp] or an object: \"sctp\" is not tcp or udp",
        ),
        (r#"{"ports": [0]}"#, "ports[0]: 0 is not 1 to 65535"),
        (r#"{"ports": [70000]}"#, "ports[0]: 70000 is not 1 to 65535"),
        (r#"{"ports": {"80": 65536}}"#, "65536 is not 0 to 65535"),
        (r#"{"ports": {"1:80": 1}}"#, "the key of a map is a port of the container"),
        (r#"{"ports": [{"port": 80, "host": "localhost"}]}"#, "ports[0].host: \"localhost\" is no IP address"),
        (r#"{"ports": [{"host_port": 80}]}"#, "ports[0]: has no port"),
        (
            r#"{"devices": ["fuse"]}"#,
            "devices[0]: \"fuse\" is not path[:target][:access]: path and target have to be absolute",
        ),
        (
            r#"{"devices": ["/dev/a:/dev/b:/dev/c"]}"#,
            "devices[0]: \"/dev/a:/dev/b:/dev/c\" is not path[:target][:access]: more",
        ),
        (r#"{"devices": ["/dev/a:x"]}"#, "the access is of the letters r, w and m"),
        (r#"{"devices": ["/dev/a:"]}"#, "the access is of the letters r, w and m"),
        (r#"{"devices": ["/dev/a:rwr"]}"#, "each at most once"),
        (r#"{"devices": [{"path": "/dev/a", "access": ""}]}"#, "devices[0].access: the access is of"),
        (r#"{"devices": [{"path": "/dev/a", "access": 1}]}"#, "devices[0].access: expected letters of \"rwm\""),
        (r#"{"device_rules": "c 1:3 r"}"#, "device_rules: expected a list"),
        (r#"{"device_rules": [1]}"#, "device_rules[0]: expected [allow|deny] TYPE"),
        (
            r#"{"device_rules": [""]}"#,
            "device_rules[0]: \"\" is not [allow|deny] TYPE [MAJOR:MINOR] [ACCESS]: the type is",
        ),
        (r#"{"device_rules": ["a", "permit c 1:3 r"]}"#, "device_rules[1]: \"permit c 1:3 r\" is not"),
        (r#"{"device_rules": ["u 1:3 r"]}"#, "the type is c, b or a"),
        (r#"{"device_rules": ["c 1 r"]}"#, "the numbers are MAJOR:MINOR"),
        (r#"{"device_rules": ["c -1:3 r"]}"#, "the numbers are MAJOR:MINOR"),
        (r#"{"device_rules": ["c 1:0x3 r"]}"#, "the numbers are MAJOR:MINOR"),
        (r#"{"device_rules": ["c 1:99999999999 r"]}"#, "the numbers are MAJOR:MINOR"),
        (r#"{"device_rules": ["c 4096:0 r"]}"#, "device_rules[0].major: is more than 4095"),
        (r#"{"device_rules": ["c 1:1048576 r"]}"#, "device_rules[0].minor: is more than 1048575"),
        (r#"{"device_rules": ["c 1:3 x"]}"#, "the access is of the letters"),
        (r#"{"device_rules": ["c 1:3 r w"]}"#, "more than type, numbers and access"),
        (r#"{"device_rules": [{"type": "p"}]}"#, "device_rules[0].type: \"p\" is none of c, b and a"),
        (r#"{"device_rules": [{"allow": "yes"}]}"#, "device_rules[0].allow: expected true or false"),
        (r#"{"device_rules": [{"major": 1.5}]}"#, "device_rules[0].major: 1.5 is no number of a device"),
        (r#"{"device_rules": [{"minor": "any"}]}"#, "device_rules[0].minor: expected a number or \"*\""),
        (r#"{"device_rules": [{"access": "rwx"}]}"#, "device_rules[0].access: the access is of"),
        (r#"{"devices": [{"target": "/dev/a"}]}"#, "devices[0]: has no path"),
        (r#"{"mounts": ["a"]}"#, "mounts[0]: \"a\" is not source[:target][:rw]"),
        (r#"{"rootfs": {"path": "/a", "lower": []}}"#, "rootfs: path excludes"),
        (r#"{"rootfs": {"upper": "/a"}}"#, "rootfs.upper: needs lower"),
        (r#"{"rootfs": {}}"#, "rootfs: expected"),
        (r#"{"terminal": false}"#, "terminal: false"),
        (r#"{"idmap": {"uid": []}}"#, "idmap: has uid but no gid"),
        (r#"{"idmap": "keep_id"}"#, "idmap: expected"),
        (r#"{"idmap": "0 1"}"#, "idmap[0]: \"0 1\" is not three numbers"),
        (r#"{"idmap": {"uid": [[0, 0, 4294967296]], "gid": []}}"#, "idmap.uid[0]: expected"),
        (r#"{"rlimits": {"nofiles": 1}}"#, "did you mean \"nofile\"?"),
        (r#"{"capabilities": {"add": ["chown"], "drop": ["chown"]}}"#, "chown is both added and dropped"),
        (r#"{"namespaces": {"net": {"fd": 1, "pid": 2}}}"#, "namespaces.net: expected"),
        (r#"{"namespaces": {"net": "blue"}}"#, "namespaces.net: expected"),
        (r#"{"pass_fds": [-1]}"#, "pass_fds[0]: -1 is negative"),
        (r#"{"time_offsets": {"monotonic": 1e300}}"#, "time_offsets.monotonic"),
        (r#"{"start_timeout": 1e300}"#, "start_timeout: "),
        (r#"{"stop_timeout": "1d"}"#, "stop_timeout: \"1d\" is not a duration"),
    ] {
        let error = refused(text);
        assert!(error.to_string().contains(message), "{text}: {error}");
    }
    assert_eq!(refused(r#"{"hooks": "x"}"#).kind(), ErrorKind::NotAvailable);
    assert_eq!(Spec::from_json(r#"{"hooks": null, "name": null}"#).unwrap(), Spec::new());
}

#[test]
fn names_of_other_programs_lead_to_ours() {
    for (theirs, ours) in [
        ("volumes", "mounts"),
        ("mem_limit", "memory"),
        ("mem-limit", "memory"),
        ("network", "net"),
        ("network_mode", "net"),
        ("working_dir", "cwd"),
        ("WorkingDir", "cwd"),
        ("environment", "env"),
        ("labels", "annotations"),
        ("command", "argv"),
        ("image", "rootfs"),
        ("privileged", "capabilities"),
        ("cap_add", "{\"add\": [...]}"),
        ("ulimits", "rlimits"),
        ("publish", "ports"),
        ("depends_on", "after, of the member of a group"),
        ("firewall", "net"),
        ("auto_remove", "nothing is left"),
        ("restart", "events and wait"),
    ] {
        let error = read(theirs, &json!(1)).unwrap_err();
        assert_eq!((error.kind(), error.field()), (ErrorKind::InvalidSpec, Some(theirs)));
        assert!(error.hint().unwrap_or_default().contains(ours), "{error}");
    }
    assert_eq!(read("zzzz", &json!(1)).unwrap_err().hint(), None);
    assert!(read(&"x".repeat(1 << 20), &json!(1)).unwrap_err().to_string().len() < 200);
}

#[test]
fn merging_layers() {
    let mut spec = Spec::new().memory(1 << 20).env("A", "1").argv(["a", "b"]).rootfs("/a");
    spec.merge_json(r#"{"env": {"B": "2", "A": null}, "argv": ["c"], "rootfs": {"readonly": true}, "pids": 5}"#)
        .unwrap();
    let rootfs = Rootfs { kind: RootfsKind::Directory("/a".into()), readonly: true, idmap: None };
    let merged = Spec::new().memory(1 << 20).env("B", "2").env_remove("A").argv(["c"]).rootfs(rootfs).pids(5);
    assert_eq!(spec, merged);
    assert!(spec.merge_json(r#"{"pids": 6, "nice": "x"}"#).is_err());
    assert_eq!(spec, merged, "a merge that fails changes nothing");
    spec.merge_json(r#"{"annotations": {"a": "1", "b": "2"}, "time_offsets": {"monotonic": 1}}"#).unwrap();
    spec.merge_json(r#"{"annotations": {"a": null}, "time_offsets": {"boottime": 2}}"#).unwrap();
    assert_eq!(spec.annotations, BTreeMap::from([("b".to_owned(), "2".to_owned())]));
    assert_eq!(spec.time_offsets, TimeOffsets { monotonic: 1_000_000_000, boottime: 2_000_000_000 });
}

#[test]
fn text_as_c_gives_it() {
    let mut spec = Spec::new();
    for (key, text) in [
        ("memory", "256M"),
        ("cpus", "0.5"),
        ("pids", "64"),
        ("init", "true"),
        ("detach", "true"),
        ("nice", "-5"),
        ("umask", "027"),
        ("argv", "sh"),
        ("argv", "{\"not\": json}"),
        ("env", "A=b=c"),
        ("env", "EMPTY="),
        ("hosts", "db=10.0.0.1"),
        ("mounts", "/a:/b:rw"),
        ("mounts", "{\"type\": \"tmpfs\", \"target\": \"/t\"}"),
        ("ports", "80"),
        ("ports", "{\"port\": 53, \"protocol\": \"udp\"}"),
        ("devices", "/dev/fuse"),
        ("devices", "{\"path\": \"/dev/kvm\", \"target\": \"/dev/k\"}"),
        ("files", "/etc/x={}\n"),
        ("rlimits", "nofile=1024:2048"),
        ("namespaces", "net=fd:7"),
        ("capabilities", "[\"chown\"]"),
        ("terminal", "true"),
        ("time_offsets", "{\"monotonic\": 1}"),
        ("pass_fds", "5"),
        ("pass_fds", "6=7"),
        ("annotations", "a="),
        ("masked_paths", "/secret"),
    ] {
        spec.set(key, text.as_bytes()).unwrap_or_else(|error| panic!("{key}={text}: {error}"));
    }
    let expected = Spec::new()
        .memory(256 << 20)
        .cpus(0.5)
        .pids(64)
        .detach(true)
        .nice(-5)
        .umask(0o27)
        .argv(["sh", "{\"not\": json}"])
        .env("A", "b=c")
        .env("EMPTY", "")
        .host("db", "10.0.0.1")
        .mount("/a:/b:rw")
        .mount(Mount::tmpfs("/t"))
        .ports([Port::new(80), Port::new(53).udp()])
        .devices(["/dev/fuse", "/dev/kvm:/dev/k"])
        .file("/etc/x", "{}\n")
        .rlimit(Resource::Nofile, Rlimit { soft: 1024, hard: 2048 })
        .namespace(NamespaceKind::Net, NamespaceSource::Fd(7))
        .capabilities(Capabilities { bounding: 1, ..Capabilities::default() })
        .terminal(Terminal::default())
        .time_offsets(TimeOffsets { monotonic: 1_000_000_000, boottime: 0 })
        .pass_fds([(5, 5), (6, 7)])
        .annotation("a", "")
        .masked_paths(Spec::MASKED_PATHS.into_iter().chain(["/secret"]));
    assert_eq!(spec, expected);
    spec.set("cwd", b"/\xff").unwrap();
    assert_eq!(spec.cwd.as_deref(), Some(PathBuf::from(OsString::from_vec(b"/\xff".to_vec())).as_path()));
    spec.set("files", b"/x=\xff\0").unwrap();
    assert_eq!(spec.files[&PathBuf::from("/x")].data, b"\xff\0");
    for (key, text, message) in [
        ("memory", "lots", "memory: \"lots\" is not a size"),
        ("memory", "-1", "memory: \"-1\" is negative"),
        ("pids", "0x10", "pids: expected a whole number, got the text \"0x10\""),
        ("pids", " 1", "pids: expected"),
        ("nice", "99999999999", "nice: 99999999999 is out of range"),
        ("init", "yes", "init: expected true or false"),
        ("env", "A", "env: \"A\" is not KEY=VALUE"),
        ("hosts", "\u{fffd}", "hosts: "),
        ("rlimits", "nofile", "rlimits: \"nofile\" is not KEY=VALUE"),
        ("capabilities", "{", "capabilities: JSON: EOF"),
        ("mounts", "a", "mounts[2]: \"a\" is not source"),
        ("devices", "/dev/a:x", "devices[2]: \"/dev/a:x\" is not path"),
        ("device_rules", "c 1:3 q", "device_rules[0]: \"c 1:3 q\" is not [allow|deny]"),
        ("mem_limit", "1", "did you mean memory?"),
        ("cpuset", "3-1", "cpuset: 3-1 ends before it begins"),
        ("hooks", "0", "hooks: not available yet"),
        ("landlock", "0", "landlock: expected an object with paths, bind, connect, scopes and abi, got the text"),
        ("securebits", "noroot,keep_cap", "securebits: \"keep_cap\" is not a securebit"),
        ("pass_fds", "5=x", "pass_fds: expected"),
    ] {
        let before = spec.clone();
        let error = spec.set(key, text.as_bytes()).unwrap_err();
        assert!(error.to_string().contains(message), "{key}={text}: {error}");
        assert_eq!(spec, before);
    }
    assert!(spec.set("hostname", b"\xff").unwrap_err().to_string().contains("hostname: has to be UTF-8"));
    let before = spec.clone();
    for (key, text) in [
        ("masked_paths", "[1]"),
        ("readonly_paths", "{"),
        ("rlimits", r#"{"as": 1, "nofile": "x"}"#),
        ("pass_fds", r#"{"1": 9, "2": "x"}"#),
        ("rootfs", r#"{"path": "/x", "readonly": 1}"#),
    ] {
        assert!(spec.set(key, text.as_bytes()).is_err());
        assert_eq!(spec, before, "{key}: an error changes nothing");
    }
    assert_eq!(spec.get("memory").unwrap().as_deref(), Some("268435456"));
    assert_eq!(spec.get("init").unwrap().as_deref(), Some("true"));
    assert_eq!(spec.get("hostname").unwrap(), None);
    assert_eq!(spec.get("argv").unwrap().as_deref(), Some(r#"["sh","{\"not\": json}"]"#));
    assert!(spec.get("nonsense").is_err());
}

#[test]
fn commands_have_the_fields_of_a_process() {
    let mut command = Command::new("sh");
    // A group inside is chosen for a process only.
    for key in Command::keys().into_iter().filter(|key| !["cgroup", "set_tid"].contains(key)) {
        assert!(Spec::keys().contains(&key), "{key} means the same in both");
    }
    command.set("argv", b"-c").unwrap();
    command.set("no_new_privs", b"false").unwrap();
    command.set("capabilities", b"all").unwrap();
    command.merge_json(r#"{"env": {"A": null}, "user": 5}"#).unwrap();
    assert_eq!(command.argv, ["sh", "-c"]);
    assert_eq!(command.no_new_privs, Some(false));
    assert_eq!(command.capabilities, Some(Capabilities { bounding: Capabilities::ALL, ..Capabilities::default() }));
    assert_eq!(command.user.as_deref(), Some("5"));
    let error = command.set("memory", b"1M").unwrap_err();
    assert_eq!(error.to_string(), "memory: unknown field; it belongs to the container, not to one process in it");
}

/// The cases that every language runs: what the spec alone refuses is what they expect to be refused.
#[test]
fn shared_cases_are_refused_as_they_say() {
    let directory = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/cases"));
    let mut refused = 0;
    for file in std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()) {
        if file.extension().is_none_or(|extension| extension != "json") {
            continue;
        }
        let text = std::fs::read_to_string(&file).unwrap();
        let text = text.replace("${TMP}", "/tmp/case").replace("${DISK}", "8:0").replace("${USR_DISK}", "8:0");
        let text = text.replace("${CASES}", "/tmp/cases").replace("${FUSE}", "/dev/fuse");
        let text = text.replace("${GROUP}", "/group").replace("${FILES}", "/tmp/files").replace("${ID}", "1");
        let cases: Vec<Json> = serde_json::from_str(&text).unwrap();
        // Containers that run beside each other are specs of their own, none of which is refused.
        for case in cases.into_iter().filter(|case| !case["spec"].is_null()) {
            if let Err(error) = Spec::from_json(&case["spec"].to_string()).and_then(|spec| spec.validate()) {
                let expected = &case["expect"]["error"];
                assert_eq!(Some(error.kind().name()), expected["kind"].as_str(), "{case}: {error}");
                if let Some(field) = expected["field"].as_str() {
                    assert_eq!(error.field(), Some(field), "{case}");
                }
                refused += 1;
            }
        }
    }
    assert!(refused > 5);
}

fn text() -> impl Strategy<Value = String> {
    "[a-zA-Z0-9{}\\[\\]=:,/\" .-]{0,10}|\\PC{0,6}"
}

fn bytes() -> impl Strategy<Value = OsString> {
    prop_oneof![
        3 => text().prop_map(OsString::from),
        1 => collection::vec(any::<u8>(), 0..8).prop_map(OsString::from_vec),
    ]
}

fn path() -> impl Strategy<Value = PathBuf> {
    bytes().prop_map(|tail| PathBuf::from(OsString::from_vec([b"/", tail.as_encoded_bytes()].concat())))
}

fn stdio() -> impl Strategy<Value = Stdio> {
    prop_oneof![
        Just(Stdio::Null),
        Just(Stdio::Inherit),
        Just(Stdio::Pipe),
        Just(Stdio::Log),
        Just(Stdio::Stdout),
        path().prop_map(Stdio::File),
        (0..i32::MAX).prop_map(Stdio::Fd),
    ]
}

fn mount() -> impl Strategy<Value = Mount> {
    let source = prop_oneof![path().prop_map(BindSource::Path), (0..i32::MAX).prop_map(BindSource::Fd)];
    let kind = prop_oneof![
        (source, any::<bool>()).prop_map(|(source, recursive)| MountKind::Bind { source, recursive }),
        (any::<Option<u64>>(), option::of(0..0o10000u32)).prop_map(|(size, mode)| MountKind::Tmpfs { size, mode }),
        Just(MountKind::Proc),
        Just(MountKind::Sysfs),
        Just(MountKind::Mqueue),
        Just(MountKind::Devpts),
        Just(MountKind::Cgroup),
        collection::vec(bytes(), 0..3).prop_map(|register| MountKind::BinfmtMisc { register }),
    ];
    (kind, path(), any::<bool>(), any::<bool>(), option::of(mount_idmap())).prop_map(
        |(kind, target, readonly, owned, idmap)| {
            let bind = matches!(kind, MountKind::Bind { .. });
            let owner = (owned && bind).then_some(MountOwner::Payload);
            let idmap = idmap.filter(|_| bind);
            Mount { kind, target, readonly, owner, idmap, idmap_recursive: !(bind && owned) }
        },
    )
}

fn rootfs() -> impl Strategy<Value = Rootfs> {
    let kind = prop_oneof![
        Just(RootfsKind::Host),
        Just(RootfsKind::HostOwned),
        path().prop_map(RootfsKind::Directory),
        (collection::vec(path(), 0..3), option::of(path()))
            .prop_map(|(lower, upper)| RootfsKind::Layers { lower, upper }),
    ];
    (kind, any::<bool>(), option::of(mount_idmap())).prop_map(|(kind, readonly, idmap)| Rootfs {
        kind,
        readonly,
        idmap,
    })
}

fn namespaces() -> impl Strategy<Value = BTreeMap<NamespaceKind, NamespaceSource>> {
    let source = prop_oneof![
        Just(NamespaceSource::New),
        Just(NamespaceSource::Host),
        path().prop_map(NamespaceSource::Path),
        (0..i32::MAX).prop_map(NamespaceSource::Fd),
        (0..i32::MAX).prop_map(NamespaceSource::Pid),
        text().prop_map(NamespaceSource::Container),
    ];
    collection::btree_map(prop::sample::select(NamespaceKind::ALL.to_vec()), source, 0..4)
}

fn ranges() -> impl Strategy<Value = Vec<IdRange>> {
    let range = any::<(u32, u32, u32)>().prop_map(|(inside, outside, count)| IdRange { inside, outside, count });
    collection::vec(range, 0..4)
}

fn mount_idmap() -> impl Strategy<Value = MountIdmap> {
    prop_oneof![
        Just(MountIdmap::Container),
        Just(MountIdmap::Host),
        (ranges(), ranges()).prop_map(|(uid, gid)| MountIdmap::Explicit { uid, gid }),
    ]
}

fn idmap() -> impl Strategy<Value = Idmap> {
    prop_oneof![
        Just(Idmap::Auto),
        Just(Idmap::Host),
        Just(Idmap::KeepId),
        (ranges(), ranges()).prop_map(|(uid, gid)| Idmap::Explicit { uid, gid }),
    ]
}

fn disk() -> impl Strategy<Value = Option<Disk>> {
    let backend = prop::sample::select(DiskBackend::ALL.to_vec());
    let filesystem = option::of(prop::sample::select(Filesystem::ALL.to_vec()));
    let disk = (any::<u64>(), backend, filesystem, option::of(path()));
    option::of(disk.prop_map(|(size, backend, filesystem, path)| Disk { size, backend, filesystem, path }))
}

fn quota() -> impl Strategy<Value = BTreeMap<QuotaId, IdQuota>> {
    let id = prop_oneof![(0..=MAX_ID).prop_map(QuotaId::User), (0..=MAX_ID).prop_map(QuotaId::Group)];
    let limits = any::<(Option<u64>, Option<u64>)>().prop_map(|(disk, inodes)| IdQuota { disk, inodes });
    collection::btree_map(id, limits, 0..3)
}

prop_compose! {
    fn payload_fields()(
        argv in collection::vec(bytes(), 0..4),
        env in collection::btree_map(bytes(), option::of(bytes()), 0..4),
        env_inherit in collection::vec(bytes(), 0..3),
        cwd in option::of(path()),
        user in option::of(text()),
        groups in collection::vec(text(), 0..3),
        umask in option::of(0..0o1000u32),
        terminal in option::of(any::<(u16, u16)>().prop_map(|(rows, cols)| Terminal { rows, cols })),
        streams in (option::of(stdio()), option::of(stdio()), option::of(stdio())),
        rlimits in collection::btree_map(
            prop::sample::select(Resource::ALL.to_vec()),
            any::<(u64, u64)>().prop_map(|(soft, hard)| Rlimit { soft, hard }),
            0..4,
        ),
        numbers in any::<(Option<i32>, Option<i32>)>(),
        pass_fds in collection::btree_map(0..i32::MAX, 0..i32::MAX, 0..3),
    ) -> Spec {
        Spec {
            argv, env, env_inherit, cwd, user, groups, umask, terminal, rlimits, pass_fds,
            stdin: streams.0, stdout: streams.1, stderr: streams.2, nice: numbers.0, oom_score_adj: numbers.1,
            ..Spec::new()
        }
    }
}

fn port() -> impl Strategy<Value = Port> {
    (1..=u16::MAX, any::<u16>(), any::<std::net::IpAddr>(), any::<bool>()).prop_map(|(port, host_port, host, udp)| {
        let port = Port::new(port).host_port(host_port).host(host);
        if udp { port.udp() } else { port }
    })
}

fn seccomp() -> impl Strategy<Value = Seccomp> {
    let action = || {
        prop_oneof![
            Just(SeccompAction::Allow),
            (0..4096u16).prop_map(SeccompAction::Errno),
            any::<u16>().prop_map(SeccompAction::Trace),
            Just(SeccompAction::KillProcess),
            Just(SeccompAction::KillThread),
            Just(SeccompAction::Trap),
            Just(SeccompAction::Log),
        ]
    };
    let op = prop_oneof![Just(SeccompOp::Less), Just(SeccompOp::Equal), any::<u64>().prop_map(SeccompOp::MaskedEqual)];
    let arg = (0..6u8, op, any::<u64>()).prop_map(|(index, op, value)| SeccompArg { index, op, value });
    let caps = || 0..=Capabilities::ALL;
    let kernel = || option::of(any::<(u32, u32)>());
    let machines = || collection::vec(text(), 0..2);
    let when = (caps(), caps(), machines(), machines(), kernel(), kernel()).prop_map(|w| SeccompWhen {
        capabilities: w.0,
        without_capabilities: w.1,
        architectures: w.2,
        without_architectures: w.3,
        kernel: w.4,
        before_kernel: w.5,
    });
    let rule = (collection::vec(text(), 0..3), action(), collection::vec(arg, 0..3), when)
        .prop_map(|(names, action, args, when)| SeccompRule { names, action, args, when });
    let profile = option::of(prop::sample::select(&SeccompProfile::ALL[..]));
    let rules = (
        profile,
        option::of(action()),
        collection::vec(prop::sample::select(&SeccompArch::ALL[..]), 0..2),
        collection::vec(rule, 0..3),
        any::<(bool, bool)>(),
    );
    let rules = rules.prop_map(|(profile, default_action, architectures, rules, (log, spec_allow))| {
        Seccomp::Rules(SeccompRules { profile, default_action, architectures, rules, log, spec_allow })
    });
    prop_oneof![4 => Just(Seccomp::Default), 1 => Just(Seccomp::Strict), 1 => Just(Seccomp::Unconfined), 4 => rules]
}

proptest! {
    /// Apart from the others, because the trees of values of a whole spec fill a stack already.
    #[test]
    fn filters_are_read_as_they_are_written(seccomp in seccomp()) {
        let spec = Spec::new().seccomp(seccomp);
        prop_assert_eq!(&Spec::from_json(&spec.to_json()).unwrap(), &spec);
        let mut set = Spec::new();
        if let Some(text) = spec.get("seccomp").unwrap() {
            set.set("seccomp", text.as_bytes()).unwrap();
        }
        prop_assert_eq!(&set, &spec);
        let _ = spec.validate();
    }
}

prop_compose! {
    fn spec()(
        // Boxed: a value of so many parts is moved about on the stack.
        payload in payload_fields().boxed(),
        names in (option::of(text()), option::of(text()), option::of(text())),
        dns in collection::vec(text(), 0..3),
        hosts in collection::btree_map(text(), text(), 0..3),
        rootfs in rootfs(),
        mounts in collection::vec(mount(), 0..4).boxed(),
        devices in collection::vec((path(), path()).prop_map(|(path, target)| Device::new(path).target(target)), 0..3),
        ports in collection::vec(port(), 0..3),
        files in collection::btree_map(
            path(),
            (collection::vec(any::<u8>(), 0..8), 0..0o10000u32).prop_map(|(data, mode)| File { data, mode }),
            0..3,
        ),
        sizes in any::<(Option<u64>, Option<u64>, Option<u64>, Option<u64>)>(),
        flags in any::<(bool, bool, bool)>(),
        namespaces in namespaces(),
        idmap in idmap(),
        cpus in option::of(any::<f64>().prop_filter("JSON has no infinities", |cpus| cpus.is_finite())),
        times in (option::of(any::<u64>()), option::of(0..1u64 << 40)),
        stop_signal in option::of(1..=64i32),
        net in prop_oneof![Just(Net::Loopback), Just(Net::None), Just(Net::Host)],
        caps in capability_sets().boxed(),
        lists in (option::of(collection::vec(path(), 0..3)), option::of(collection::vec(path(), 0..3))),
        offsets in any::<(i64, i64)>(),
        rest in (option::of(path()), collection::btree_map(text(), text(), 0..3)),
    ) -> Spec {
        Spec {
            name: names.0, hostname: names.1, domainname: names.2,
            dns, hosts, rootfs, mounts, devices, files, ports,
            shm_size: sizes.0, log_max: sizes.1, memory: sizes.2, pids: sizes.3,
            init: flags.0, detach: flags.1, no_new_privs: flags.2,
            namespaces, idmap, cpus,
            start_timeout: times.0.map(Duration::from_nanos),
            stop_timeout: times.1.map(Duration::from_secs),
            stop_signal, net,
            capabilities: Capabilities { bounding: caps.0, ambient: caps.1, permitted: caps.2, effective: caps.3, inheritable: caps.4 },
            masked_paths: lists.0, readonly_paths: lists.1,
            time_offsets: TimeOffsets { monotonic: offsets.0, boottime: offsets.1 },
            cgroup_parent: rest.0, annotations: rest.1,
            ..payload
        }
    }
}

#[allow(clippy::type_complexity)]
fn capability_sets() -> impl Strategy<Value = (u64, u64, Option<u64>, Option<u64>, Option<u64>)> {
    let set = || 0..=Capabilities::ALL;
    (set(), set(), option::of(set()), option::of(set()), option::of(set()))
}

fn landlock() -> impl Strategy<Value = Landlock> {
    let ports = || option::of(collection::vec(any::<u16>(), 0..3));
    let paths = collection::btree_map(path(), 1..=Landlock::ALL, 0..3);
    (paths, ports(), ports(), 0..4u64, option::of(any::<u32>()))
        .prop_map(|(paths, bind, connect, scopes, abi)| Landlock { paths, bind, connect, scopes, abi })
}

/// Any JSON, with the words of specs in it.
fn any_json() -> impl Strategy<Value = Json> {
    let words = vec![
        "/a", "host", "base64", "source", "target", "type", "tmpfs", "1K", "-1", "uid", "gid", "0 0 1", "add", "fd",
        "pid", "rows",
    ];
    let leaf = prop_oneof![
        Just(Json::Null),
        any::<bool>().prop_map(Json::from),
        any::<i64>().prop_map(Json::from),
        any::<f64>().prop_map(Json::from),
        prop::sample::select(words.clone()).prop_map(Json::from),
        text().prop_map(Json::from),
    ];
    leaf.prop_recursive(3, 12, 3, move |inner| {
        let key = prop_oneof![prop::sample::select(words.clone()).prop_map(str::to_owned), text()];
        prop_oneof![
            collection::vec(inner.clone(), 0..3).prop_map(Json::from),
            collection::btree_map(key, inner, 0..3).prop_map(|map| Json::Object(map.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn what_is_written_is_read_back(spec in spec()) {
        let json = spec.to_json();
        prop_assert_eq!(Spec::from_json(&json).map_err(|error| error.to_string()), Ok(spec), "{}", json);
    }

    #[test]
    fn limits_of_the_layer_are_read_back(disk in disk(), inodes in option::of(any::<u64>()), quota in quota()) {
        let spec = Spec { disk, inodes, quota, ..Spec::new() };
        let json = spec.to_json();
        prop_assert_eq!(Spec::from_json(&json).map_err(|error| error.to_string()), Ok(spec.clone()), "{}", json);
        let _ = spec.validate();
    }

    #[test]
    fn what_confines_is_read_back(landlock in landlock(), bits in 0..0x1000u32, labels in (option::of(text()), option::of(text()), option::of(text()))) {
        let (apparmor, selinux, mount_label) = labels;
        let spec = Spec { landlock, securebits: Securebits(bits), apparmor, selinux, mount_label, ..Spec::new() };
        let json = spec.to_json();
        prop_assert_eq!(Spec::from_json(&json).map_err(|error| error.to_string()), Ok(spec.clone()), "{}", json);
        let _ = spec.validate();
    }

    #[test]
    fn validation_never_panics(spec in spec()) {
        let _ = spec.validate();
    }

    #[test]
    fn any_json_is_read_or_refused(index in 0usize..64, json in any_json()) {
        let keys = Spec::keys();
        let key = keys[index % keys.len()];
        match read(key, &json) {
            Ok(spec) => {
                let again = Spec::from_json(&spec.to_json());
                prop_assert_eq!(again.map_err(|error| error.to_string()), Ok(spec.clone()), "{}", spec.to_json());
                let _ = spec.validate();
            }
            Err(error) => prop_assert!(error.field().is_some_and(|field| field.starts_with(key)), "{key}: {error}"),
        }
    }

    #[test]
    fn any_text_is_taken_or_refused(index in 0usize..64, text in bytes()) {
        let keys = Spec::keys();
        let key = keys[index % keys.len()];
        let mut spec = Spec::new();
        if spec.set(key, text.as_encoded_bytes()).is_err() {
            prop_assert_eq!(spec, Spec::new());
        }
    }
}
