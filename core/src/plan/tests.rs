//! Plans against those that were looked at (tests/golden; RINGFENCE_UPDATE_GOLDEN=1 writes them anew), and their buffers
//! against what the keeper checks.

use std::path::PathBuf;
use std::sync::Arc;

use proptest::prelude::*;

use super::facts::{Credentials, DeviceFact, DiskFact, Facts, HostEntry, IdMaps, QuotaCall, QuotaCalls, StreamFact};
use super::idmap::{Below, Ids, MountIds, OwnMaps};
use super::{Plan, builder, builder::Compiled};
use crate::proto::{Header, Op, OwnMapEntry, Record, Request, Span, arg, own_map, pseudo, slot};
use crate::security::filter::rules::Context;
use crate::security::filter::{self, Program};
use crate::spec::{Capabilities, Seccomp, SeccompArch, Spec};

fn maps(start: u32, count: u32) -> IdMaps {
    let map = format!("0 {start} {count}\n");
    IdMaps { uid: map.clone(), gid: map, deny_setgroups: count == 1, idmapped_mounts: count > 1 }
}

fn filter() -> Option<Arc<Program>> {
    let capabilities = Capabilities::DEFAULT;
    let context = Context { native: SeccompArch::X86_64, capabilities, kernel: (6, 12), ports: false };
    filter::program(&Seccomp::Default, false, context).unwrap()
}

fn root_facts() -> Facts {
    Facts {
        privileged: true,
        idmaps: Some(maps(524_288, 65_536)),
        may_setgroups: true,
        group_dir: true,
        group_tasks: 2,
        undo_groups: vec![(0, "rf-1-2-3".into()), (1, "rf-1-2-3".into())],
        host: vec![HostEntry::Overlay("/".into()), HostEntry::Mount("/srv".into())],
        hidden: [("/home", 0o755), ("/root", 0o700), ("/run", 0o755), ("/tmp", 0o1777), ("/var/tmp", 0o1777)]
            .map(|(path, mode)| (path.into(), mode))
            .into(),
        host_top: vec!["etc".into(), "usr".into()],
        known_paths: vec![
            ("/proc/kcore".into(), Some(false)),
            ("/proc/acpi".into(), Some(true)),
            ("/proc/scsi".into(), None),
            ("/proc/sys".into(), Some(true)),
            ("/sys/devices/system/cpu/cpu0/thermal_throttle".into(), Some(true)),
        ],
        keyring: true,
        throttles: vec!["/sys/devices/system/cpu/cpu0/thermal_throttle".into()],
        env: vec![b"PATH=/usr/bin:/bin".to_vec(), b"HOME=/root".to_vec()],
        streams: [StreamFact::Null, StreamFact::Given, StreamFact::SameAsStdout],
        filter: filter(),
        ..Facts::default()
    }
}

fn user_facts() -> Facts {
    Facts {
        privileged: false,
        idmaps: Some(maps(0, 1)),
        may_setgroups: false,
        host: vec![
            HostEntry::Symlink("/bin".into(), "usr/bin".into()),
            HostEntry::Overlay("/etc".into()),
            HostEntry::Overlay("/usr".into()),
            HostEntry::Dir("/var".into()),
        ],
        group_dir: false,
        group_tasks: 0,
        undo_groups: Vec::new(),
        ..root_facts()
    }
}

fn spec(json: &str) -> Spec {
    Spec::from_json(json).unwrap_or_else(|e| panic!("{e}"))
}

fn check(name: &str, plan: &Plan) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tests/golden").join(format!("{name}.txt"));
    let text = plan.to_string();
    if std::env::var_os("RINGFENCE_UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, &text).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        return;
    }
    // Flags are numbers, and some are others elsewhere.
    if cfg!(not(target_arch = "x86_64")) {
        println!("SKIP: the plans are those of x86_64");
        return;
    }
    // A copy of this program may run where the sources are not.
    let Ok(wanted) = std::fs::read_to_string(&path) else {
        println!("SKIP: {} is not here", path.display());
        return;
    };
    for (i, (seen, wanted)) in text.lines().zip(wanted.lines()).enumerate() {
        assert_eq!(seen, wanted, "{name}.txt, line {}", i + 1);
    }
    assert_eq!(text.lines().count(), wanted.lines().count(), "{name}.txt");
}

#[test]
fn golden_host_tree_of_a_root_caller() {
    let spec = spec(r#"{"argv": ["sh", "-c", "id"], "hostname": "db", "memory": "64M", "user": "1000"}"#);
    let facts = Facts { credentials: Credentials { uid: 1000, gid: 1000, groups: vec![7] }, ..root_facts() };
    check("host-as-root", &Plan::compile(&spec, &facts));
}

#[test]
fn golden_program_that_asks_the_host() {
    let json = r#"{"argv": ["sh"], "seccomp": {"profile": "default", "rules": [{"names": ["mount", "sendmsg"], "action": "notify"}]}}"#;
    let spec = spec(json);
    let context = Context {
        native: SeccompArch::X86_64,
        capabilities: Capabilities::DEFAULT,
        kernel: (6, 12),
        ports: spec.landlock.has_ports(),
    };
    let filter = filter::program(&spec.seccomp, false, context).unwrap();
    check("asks-the-host", &Plan::compile(&spec, &Facts { filter, ..root_facts() }));
}

#[test]
fn golden_confined_program() {
    let spec = spec(
        r#"{"argv": ["/bin/app"], "rootfs": "/srv/image", "user": "1000", "securebits": ["noroot", "noroot_locked"],
            "capabilities": {"bounding": ["net_raw", "setpcap"], "ambient": ["net_raw"], "inheritable": ["net_raw", "setpcap"]},
            "landlock": {"paths": {"/srv": ["read", "create"], "/usr": "read,execute"}, "bind": [80], "connect": [],
                         "scopes": ["signal"]},
            "apparmor": "web", "selinux": "u:r:t:s0", "mount_label": "u:object_r:f:s0"}"#,
    );
    let facts = Facts {
        credentials: Credentials { uid: 1000, gid: 1000, groups: Vec::new() },
        selinux: spec.selinux.clone(),
        ..root_facts()
    };
    check("confined-as-root", &Plan::compile(&spec, &facts));
}

#[test]
fn golden_host_tree_of_an_ordinary_user() {
    check("host-as-user", &Plan::compile(&spec(r#"{"argv": ["/bin/true"], "net": "none"}"#), &user_facts()));
}

#[test]
fn golden_image_with_mounts_and_files() {
    let spec = spec(
        r#"{"argv": ["/bin/app"], "rootfs": {"path": "/srv/image", "readonly": true}, "init": false,
            "mounts": ["/srv/data:/data:rw", {"type": "tmpfs", "target": "/scratch", "size": "1M"},
                       {"type": "binfmt_misc", "register": [":rf:M::RF::/bin/app:F"], "rw": false}],
            "devices": ["/dev/fuse", "/dev/loop0:/dev/disks/one"],
            "files": {"/etc/app.conf": "x"}, "masked_paths": ["/data/secret"], "readonly_paths": [],
            "time_offsets": {"boottime": 1.5}, "pass_fds": {"5": 7}}"#,
    );
    let device = |kind, number, gid| DeviceFact { kind, number, mode: 0o660, uid: 0, gid };
    let devices = vec![device(libc::S_IFCHR, 0xae5, 0), device(libc::S_IFBLK, 0x700, 6)];
    let (mount_is_dir, mount_paths) = (vec![true; 3], vec![None; 3]);
    let facts = Facts { mount_is_dir, mount_paths, devices, own_nodes: true, ..root_facts() };
    check("image-as-root", &Plan::compile(&spec, &facts));
}

#[test]
fn golden_mounts_of_the_payload() {
    let spec = spec(
        r#"{"argv": ["/bin/app"], "rootfs": "/srv/image", "user": "1000",
            "mounts": ["/srv/data:/data:rw", "/srv/work:/work:rw,owner=payload",
                       {"type": "volume", "source": "cache", "target": "/cache", "owner": "payload"}]}"#,
    );
    let maps = |map: &str, replaces| Ids::Own(OwnMaps { uid: map.into(), gid: map.into(), replaces });
    let ids = |field: &str, ids| MountIds { field: Some(field.into()), ids, below: Vec::new() };
    let facts = Facts {
        mount_is_dir: vec![true; 3],
        mount_paths: vec![None, None, Some("/var/lib/ringfence/volumes/cache".into())],
        mount_ids: vec![
            MountIds::default(),
            ids("mounts[1].owner", maps("0 525288 1\n1 524289 999\n", false)),
            ids("mounts[2].owner", maps("0 525288 1\n", false)),
        ],
        credentials: Credentials { uid: 1000, gid: 1000, groups: Vec::new() },
        ..root_facts()
    };
    check("owner-as-root", &Plan::compile(&spec, &facts));
}

#[test]
fn golden_mounts_with_maps_of_their_own() {
    let spec = spec(
        r#"{"argv": ["/bin/app"], "rootfs": {"path": "/srv/image", "idmap": "0 100000 65536"},
            "mounts": [{"source": "/srv/data", "target": "/data", "idmap": "0 1000 1", "idmap_recursive": false}, "/srv/raw:/raw:idmap=host",
                       "/srv/mapped:/mapped:rw", {"source": "/srv/more", "target": "/more", "idmap": "0 1000 1"}]}"#,
    );
    let maps = |map: &str, replaces| Ids::Own(OwnMaps { uid: map.into(), gid: map.into(), replaces });
    let ids = |field: &str, ids| MountIds { field: Some(field.into()), ids, below: Vec::new() };
    let below = Below {
        path: "/srv/mapped/below/it".into(),
        rest: "below/it".into(),
        directory: true,
        ids: maps("1000 524288 1\n", true),
    };
    let facts = Facts {
        mount_is_dir: vec![true; 4],
        mount_paths: vec![None; 4],
        root_ids: vec![ids("rootfs.idmap", maps("100000 524288 65536\n", false))],
        mount_ids: vec![
            ids("mounts[0].idmap", maps("1000 524288 1\n", false)),
            ids("mounts[1].idmap", Ids::Host),
            MountIds { below: vec![below], ..ids("mounts[2]", Ids::Container) },
            ids("mounts[3].idmap", maps("1000 524288 1\n", false)),
        ],
        ..root_facts()
    };
    let plan = Plan::compile(&spec, &facts);
    let by_keeper: Vec<_> = plan.compiled.idmapped.iter().filter(|one| !one.by_caller).collect();
    assert_eq!((plan.compiled.idmapped.len(), by_keeper.len()), (5, 4));
    assert_sound(&plan.compiled);
    check("idmap-as-root", &plan);
    // One map, one user namespace.
    let header: Header = read(&plan.compiled.buffer, 0);
    let entries: Vec<OwnMapEntry> = (0..3)
        .map(|i| read(&plan.compiled.buffer, header.own_maps as usize + 4 + i * size_of::<OwnMapEntry>()))
        .collect();
    assert_eq!(entries.iter().map(|entry| entry.index).collect::<Vec<_>>(), [1, 4, 0]);
    assert_eq!(
        entries.iter().map(|entry| entry.flags).collect::<Vec<_>>(),
        [0, own_map::RECURSIVE, own_map::RECURSIVE]
    );
    assert_eq!(entries[0].uid_map, entries[1].uid_map);
    assert_ne!(entries[1].uid_map, entries[2].uid_map);
}

#[test]
fn golden_limited_directory() {
    let spec =
        spec(r#"{"argv": ["/bin/app"], "rootfs": {"lower": ["/srv/image"], "upper": "/srv/layer"}, "disk": "1G"}"#);
    let bounds = |bytes| crate::quota::Bounds { bytes, inodes: None };
    let call = |bytes| {
        let owner = crate::quota::Owner::Project(0x5246_0007);
        let (command, id, dqblk) = crate::quota::project::setting(owner, &bounds(bytes));
        QuotaCall::QuotactlFd { command, id, dqblk }
    };
    let calls = QuotaCalls { set: call(Some(1 << 30)), lift: call(None), mark: None, path: "/srv/layer".into() };
    let facts = Facts { disk: DiskFact::Project(0x5246_0007), quota_calls: Some(calls), ..root_facts() };
    check("limited-directory", &Plan::compile(&spec, &facts));
}

/// As kernels say it that are not at hand.
#[test]
fn a_kernel_without_binfmt_misc_is_explained() {
    let spec = spec(r#"{"mounts": [{"type": "tmpfs", "target": "/a"}, {"type": "binfmt_misc"}]}"#);
    let facts = Facts { mount_is_dir: vec![true; 2], mount_paths: vec![None; 2], ..user_facts() };
    let compiled = super::container::compile(&spec, &facts).0;
    let failed = |call: &str, errno| {
        let is = |tag: &builder::Tag| tag.call == call && tag.path.as_deref() == Some("binfmt_misc");
        let op = compiled.ops[crate::proto::section::SETUP].iter().position(|(_, tag)| is(tag)).unwrap() as u32;
        let section = crate::proto::section::SETUP as u32;
        let error = crate::launch::explain_failure(&Record { section, op, errno, ..Record::default() }, &compiled);
        (error.kind().name(), error.to_string())
    };
    let none = "mounts[1]: fsopen \"binfmt_misc\": No such device (ENODEV); the kernel has none: it takes CONFIG_BINFMT_MISC, as \
                a module one that can be loaded (modprobe binfmt_misc)";
    assert_eq!(failed("fsopen", libc::ENODEV), ("unsupported", none.to_owned()));
    let old = "mounts[1]: fsconfig \"binfmt_misc\": Operation not permitted (EPERM); one of a container's own takes Linux 6.7 or \
               newer";
    assert_eq!(failed("fsconfig", libc::EPERM), ("permission_denied", old.to_owned()));
}

#[test]
fn golden_holder_of_a_pod() {
    let facts = Facts { holder: true, host: Vec::new(), hidden: Vec::new(), ..root_facts() };
    check("pod-as-root", &Plan::compile(&spec(r#"{"hostname": "shop", "shm_size": "1M"}"#), &facts));
}

#[test]
fn golden_container_of_a_pod() {
    use crate::spec::NamespaceKind::{Ipc, Net, Pid, User, Uts};
    let spec = spec(
        r#"{"argv": ["/bin/app"], "rootfs": "/srv/image",
            "namespaces": {"net": "pid:7", "ipc": "pid:7", "uts": "pid:7", "pid": "pid:7", "user": "pid:7"}}"#,
    );
    let facts = Facts { shared: vec![Net, Ipc, Uts, Pid, User], shared_shm: true, ..root_facts() };
    let plan = Plan::compile(&spec, &facts);
    // The stage, in the pod's user namespace by then, could not idmap the image.
    assert_eq!(plan.compiled.idmapped.iter().filter(|one| one.by_caller).count(), 1);
    check("of-a-pod-as-root", &plan);
}

#[test]
fn golden_without_namespaces_of_its_own() {
    let spec = spec(
        r#"{"argv": ["/bin/true"], "idmap": "host",
            "namespaces": {"mnt": "host", "pid": "host", "net": "host", "ipc": "host", "uts": "host", "cgroup": "host"}}"#,
    );
    check("all-of-the-host", &Plan::compile(&spec, &Facts { idmaps: None, ..root_facts() }));
}

#[test]
fn messages_have_their_sizes() {
    // Both ends are one build; a change here is a change of the protocol.
    assert_eq!((size_of::<Request>(), size_of::<Record>(), size_of::<Op>()), (64, 64, 72));
    assert_eq!(size_of::<Header>() % 8, 0);
}

fn read<T: Copy>(buffer: &[u8], at: usize) -> T {
    assert!(at + size_of::<T>() <= buffer.len(), "{at} of {}", buffer.len());
    // SAFETY: within the buffer; T is one of proto's plain integer structs.
    unsafe { buffer.as_ptr().add(at).cast::<T>().read_unaligned() }
}

#[test]
fn every_section_has_a_name() {
    let facts = Facts { kill_group: Some((0, "rf-1-2-3".into())), ..root_facts() };
    let plan = Plan::compile(&spec("{}"), &facts);
    let shown = plan.to_string();
    assert!(shown.contains("\nend:\n"), "{shown}");
    assert!(plan.to_json().contains(r#""section":"end""#));
}

/// What the keeper looks at before it runs a plan.
fn assert_sound(compiled: &Compiled) {
    let buffer = &compiled.buffer;
    let header: Header = read(buffer, 0);
    let fits = |off: u64, count: u64, size: u64| off + count * size <= buffer.len() as u64;
    let span = |s: Span, size: u64| assert!(fits(s.off.into(), s.len.into(), size), "{s:?} of {}", buffer.len());
    assert_eq!((header.magic, header.total as usize), (crate::proto::MAGIC, buffer.len()));
    assert!((slot::FIRST..=slot::MAX).contains(&header.nslots) && header.slots.is_multiple_of(8));
    span(Span { off: header.slots, len: header.nslots }, 8);
    span(header.uid_map, 1);
    span(header.gid_map, 1);
    span(header.idmaps, 16);
    let own = compiled.idmapped.iter().filter(|one| !one.by_caller && one.maps.is_some()).count();
    assert_eq!(header.own_maps != 0, own > 0);
    if header.own_maps != 0 {
        let count: u32 = read(buffer, header.own_maps as usize);
        assert_eq!(count as usize, own);
        for i in 0..count as usize {
            let at = header.own_maps as usize + 4 + i * size_of::<OwnMapEntry>();
            let entry: OwnMapEntry = read(buffer, at);
            assert!(entry.slot < header.nslots && at.is_multiple_of(4));
            span(entry.uid_map, 1);
            span(entry.gid_map, 1);
        }
    }
    assert!(header.cgroup_slot == u32::MAX || header.cgroup_slot < header.nslots);
    for (section, ops) in header.sections.iter().zip(&compiled.ops) {
        span(*section, size_of::<Op>() as u64);
        assert_eq!((section.off % 8, section.len as usize), (0, ops.len()));
        for (i, (op, tag)) in ops.iter().enumerate() {
            assert_eq!(read::<Op>(buffer, section.off as usize + i * size_of::<Op>()), *op);
            for (kind, value) in op.kinds.into_iter().zip(op.args) {
                match kind {
                    arg::IMM => {}
                    arg::DATA => assert!(value < buffer.len() as u64, "{tag:?}"),
                    arg::SLOT => assert!(value < header.nslots.into(), "{tag:?}"),
                    other => panic!("{tag:?}: {other}"),
                }
            }
            match op.nr {
                pseudo::RELOCATE => assert!(op.args[0].is_multiple_of(8) && fits(op.args[0], op.args[1], 8), "{tag:?}"),
                pseudo::WRITE_ALL | pseudo::COMPARE => assert!(fits(op.args[1], op.args[2], 1), "{tag:?}"),
                pseudo::CLOSE_OTHERS => {
                    assert!(op.args[0].is_multiple_of(4) && fits(op.args[0], op.args[1], 4), "{tag:?}")
                }
                _ => {}
            }
            assert!(op.out == slot::NONE || u32::from(op.out) < header.nslots, "{tag:?}");
            let longest = op.skip_success.max(op.skip_ok_errno) as usize;
            assert!(i + longest < ops.len(), "{tag:?} passes over the end of its section");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_plan_is_sound(
        root in any::<bool>(),
        init in any::<bool>(),
        readonly in any::<bool>(),
        words in proptest::collection::vec("[ -~]{1,40}", 1..20),
        targets in proptest::collection::btree_set("/[a-z]{1,8}/[a-z]{1,8}", 0..12),
        files in proptest::collection::btree_map("/f/[a-z]{1,12}", proptest::collection::vec(any::<u8>(), 0..300), 0..6),
        uid in 0u32..70_000,
        rootfs in prop_oneof![Just("host"), Just("/srv/image")],
    ) {
        let mut spec = Spec::new().argv(words).rootfs(rootfs).init(init);
        spec.rootfs.readonly = readonly;
        for target in &targets {
            spec = spec.mount(crate::spec::Mount::bind("/srv", target));
        }
        for (path, data) in files {
            spec = spec.file(path, crate::spec::File::new(data));
        }
        let count = spec.mounts.len();
        let maps = OwnMaps { uid: format!("{uid} 524288 1\n"), gid: "0 524288 1\n".into(), replaces: uid % 2 == 0 };
        let own = MountIds { ids: Ids::Own(maps), ..MountIds::default() };
        let facts = Facts {
            credentials: Credentials { uid, gid: uid, groups: vec![uid; (uid % 5) as usize] },
            mount_is_dir: vec![true; count],
            mount_paths: vec![None; count],
            mount_ids: (0..count).map(|i| if i % 3 == 1 { own.clone() } else { MountIds::default() }).collect(),
            ..if root { root_facts() } else { user_facts() }
        };
        assert_sound(&super::container::compile(&spec, &facts).0);
    }
}
