//! What fuzzers feed (tests/fuzz): a function for each target, which panics when something is wrong. None of them makes a system
//! call that changes anything.

use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use crate::plan::Plan;
use crate::plan::facts::{DeviceFact, Facts, HostEntry, IdMaps, StreamFact};
use crate::spec::{MountKind, NetworkSpec, Spec};

/// Bytes as numbers; zeroes when there are no more.
pub struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// So many, or those that are left.
    pub fn bytes(&mut self, count: usize) -> &'a [u8] {
        let (front, rest) = self.0.split_at(count.min(self.0.len()));
        self.0 = rest;
        front
    }

    pub fn array<const N: usize>(&mut self) -> [u8; N] {
        let mut array = [0; N];
        let bytes = self.bytes(N);
        array[..bytes.len()].copy_from_slice(bytes);
        array
    }

    pub fn byte(&mut self) -> u8 {
        self.array::<1>()[0]
    }

    pub fn bool(&mut self) -> bool {
        self.byte() & 1 != 0
    }

    pub fn half(&mut self) -> u16 {
        u16::from_le_bytes(self.array())
    }

    pub fn word(&mut self) -> u32 {
        u32::from_le_bytes(self.array())
    }
}

/// A spec that was read is written, and read again the same.
fn again(spec: &Spec) {
    let json = spec.to_json();
    let read = Spec::from_json(&json).unwrap_or_else(|error| panic!("{json}: {error}"));
    assert_eq!(&read, spec, "{json}");
    assert_eq!(read.to_json(), json);
    let _ = spec.validate();
}

/// JSON of a spec; behind a NUL what is layered over it.
pub fn spec_json(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let mut texts = text.split('\0');
    let Ok(mut spec) = Spec::from_json(texts.next().unwrap_or_default()) else { return };
    again(&spec);
    for more in texts {
        let before = spec.clone();
        match spec.merge_json(more) {
            Ok(()) => again(&spec),
            Err(_) => assert_eq!(spec, before),
        }
    }
    for key in Spec::keys() {
        let _ = spec.get(key).unwrap_or_else(|error| panic!("{key}: {error}"));
    }
}

/// Lines `KEY=TEXT`; a key can be its number.
pub fn spec_text(bytes: &[u8]) {
    let keys = Spec::keys();
    let mut spec = Spec::new();
    for line in bytes.split(|&byte| byte == b'\n') {
        let at = line.iter().position(|&byte| byte == b'=').unwrap_or(line.len());
        let (key, text) = (String::from_utf8_lossy(&line[..at]), line.get(at + 1..).unwrap_or_default());
        let key = keys.iter().find(|known| **known == key).copied();
        let key = key.unwrap_or_else(|| keys[usize::from(line.first().copied().unwrap_or(0)) % keys.len()]);
        let before = spec.clone();
        if spec.set(key, text).is_err() {
            assert_eq!(spec, before, "{key}");
            continue;
        }
        again(&spec);
        // What a scalar says of itself it takes back. (Lists and maps append.)
        if let Ok(Some(said)) = spec.get(key)
            && !said.starts_with(['[', '{'])
        {
            let mut other = Spec::new();
            other.set(key, said.as_bytes()).unwrap_or_else(|error| panic!("{key}={said}: {error}"));
            assert_eq!(other.get(key).ok().flatten().as_deref(), Some(&*said), "{key}");
        }
    }
}

/// JSON that is no spec's, and texts with a syntax of their own.
pub fn options(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    if let Ok(network) = NetworkSpec::from_json(&text) {
        let json = network.to_json();
        assert_eq!(NetworkSpec::from_json(&json).map(|again| again.to_json()).map_err(|e| e.to_string()), Ok(json));
        let _ = network.validate();
    }
    if let Ok(firewall) = crate::spec::Firewall::from_json(&text) {
        let json = firewall.to_json();
        let read = crate::spec::Firewall::from_json(&json).unwrap_or_else(|error| panic!("{json}: {error}"));
        assert_eq!(read, firewall, "{json}");
    }
    let _ = crate::Shape::from_json(&text);
    if let Ok(set) = crate::spec::cpuset::parse_list(&text) {
        let shown = crate::spec::cpuset::show_list(&set);
        assert_eq!(crate::spec::cpuset::parse_list(&shown), Ok(set), "{shown}");
    }
    crate::container::fuzz(&text);
}

/// A first byte about the machine, then JSON of a spec: its plan as the keeper gets it, if it is a valid one.
pub fn plan(bytes: &[u8]) -> Option<Vec<u8>> {
    let (&machine, text) = bytes.split_first()?;
    let spec = Spec::from_json(std::str::from_utf8(text).ok()?).ok()?;
    spec.validate().ok()?;
    let plan = Plan::compile(&spec, &facts(&spec, machine));
    // What people are shown takes longer than the plan.
    if machine & 0x40 != 0 {
        let shown = plan.to_string();
        assert!(shown.starts_with("clone3"));
        let _: serde_json::Value = serde_json::from_str(&plan.to_json()).expect("a plan is JSON");
    }
    Some(plan.into_buffer())
}

/// What there could be on a machine.
fn facts(spec: &Spec, machine: u8) -> Facts {
    let is = |bit: u8| machine >> bit & 1 != 0;
    let (privileged, pods) = (is(0), is(1));
    let map = if privileged { "0 524288 65536\n" } else { "0 0 1\n" }.to_owned();
    let maps = IdMaps { uid: map.clone(), gid: map, deny_setgroups: !privileged, idmapped_mounts: privileged };
    let path = |mount: &crate::spec::Mount| match &mount.kind {
        MountKind::Volume { .. } => Some(PathBuf::from("/var/lib/ringfence/volumes/one")),
        _ => (!privileged).then(|| PathBuf::from("/srv")),
    };
    let kind = if is(2) { libc::S_IFCHR } else { libc::S_IFBLK };
    Facts {
        privileged,
        idmaps: spec.has_user_namespace().then_some(maps),
        may_setgroups: privileged,
        ipv6: is(3),
        group_dir: privileged,
        group_tasks: usize::from(privileged) * 2,
        undo_groups: vec![(0, "rf-1-2-3".into()); usize::from(privileged)],
        kill_group: is(4).then(|| (0, "rf-1-2-3".into())),
        pure_v2: is(5),
        watch_disk: is(6),
        shared_shm: pods && is(7),
        host: vec![
            HostEntry::Overlay("/".into()),
            HostEntry::Mount("/srv".into()),
            HostEntry::Bind("/opt".into()),
            HostEntry::Dir("/var".into()),
            HostEntry::Symlink("/bin".into(), "usr/bin".into()),
        ],
        hidden: vec![("/home".into(), 0o755), ("/tmp".into(), 0o1777)],
        host_top: vec!["etc".into(), "usr".into()],
        mount_is_dir: vec![is(3); spec.mounts.len()],
        mount_paths: spec.mounts.iter().map(path).collect(),
        devices: vec![DeviceFact { kind, number: 0xae5, mode: 0o660, uid: 0, gid: 6 }; spec.devices.len()],
        own_nodes: is(2),
        known_paths: vec![("/proc/kcore".into(), Some(false)), ("/proc/sys".into(), Some(true))],
        env: vec![b"PATH=/usr/bin:/bin".to_vec()],
        streams: [StreamFact::Null, StreamFact::Given, StreamFact::SameAsStdout],
        ..Facts::default()
    }
}

/// Sixty bytes about a machine and calls, then JSON of `seccomp`, of ours or of OCI: the program answers as the rules do.
pub fn seccomp(bytes: &[u8]) {
    let (numbers, text) = bytes.split_at(bytes.len().min(60));
    let text = format!("{{\"seccomp\": {}}}", String::from_utf8_lossy(text));
    let Ok(spec) = Spec::from_json(&text) else { return };
    again(&spec);
    if spec.validate().is_ok() {
        crate::security::filter::fuzz(&spec.seccomp, &mut Input::new(numbers));
    }
}

/// What the kernel answers to netlink.
pub fn netlink_replies(bytes: &[u8]) {
    crate::net::fuzz::replies(bytes);
}

/// What is said to it.
pub fn netlink_encoders(bytes: &[u8]) {
    crate::net::fuzz::encoders(&mut Input::new(bytes));
}

/// Files of /proc and /etc.
pub fn host_files(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let (front, back) = bytes.split_at(bytes.iter().position(|&byte| byte == 0).unwrap_or(bytes.len()));
    crate::cgroup::layout::fuzz(front, back);
    crate::namespace::list::fuzz(bytes);
    crate::launch::facts::fuzz(&text);
    crate::doctor::facts::fuzz(&text);
    crate::container::fuzz(&text);
    crate::state::fuzz(bytes);
    crate::plan::facts::ranges(&text).for_each(drop);
    let _ = PathBuf::from(std::ffi::OsStr::from_bytes(bytes)).components().count();
}

/// Files of control groups.
pub fn cgroup_files(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let (one, other) = text.split_once('\0').unwrap_or((&text, ""));
    crate::cgroup::usage::fuzz(one);
    crate::cgroup::events::fuzz(one, other);
}

/// What comes from the keeper, from inside of a container, and from the state directory.
pub fn records(bytes: &[u8]) {
    crate::state::fuzz(bytes);
    crate::tree::side::fuzz(bytes);
    let (channel, there) = crate::launch::Channel::pair().expect("a pair of sockets");
    for message in bytes.chunks(size_of::<crate::proto::Record>()) {
        nix::sys::socket::send(
            std::os::fd::AsRawFd::as_raw_fd(&there),
            message,
            nix::sys::socket::MsgFlags::MSG_DONTWAIT,
        )
        .expect("there is room for some");
        let _ = channel.take();
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;

    /// Also without a fuzzer: what each target is fed first, and what fuzzers have found in it.
    #[test]
    fn seeds() {
        type Target = (&'static str, fn(&[u8]));
        const TARGETS: [Target; 7] = [
            ("seccomp", seccomp),
            ("options", options),
            ("netlink_replies", netlink_replies),
            ("netlink_encoders", netlink_encoders),
            ("host_files", host_files),
            ("cgroup_files", cgroup_files),
            ("records", records),
        ];
        let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests");
        if !tests.is_dir() {
            println!("SKIP: {} is not here", tests.display());
            return;
        }
        for (name, target) in TARGETS {
            let seeds = fs::read_dir(tests.join("fuzz/seeds").join(name)).unwrap().flatten();
            let ran = seeds.map(|seed| target(&fs::read(seed.path()).unwrap())).count();
            assert!(ran > 3, "{name}");
        }
        for name in ["spec_json", "spec_text", "plan"] {
            for seed in fs::read_dir(tests.join("fuzz/seeds").join(name)).into_iter().flatten().flatten() {
                let bytes = fs::read(seed.path()).unwrap();
                spec_json(&bytes);
                spec_text(&bytes);
                plan(&bytes);
            }
        }
        let mut cases = 0;
        for file in fs::read_dir(tests.join("cases"))
            .unwrap()
            .flatten()
            .filter(|f| f.path().extension() == Some("json".as_ref()))
        {
            let listed: serde_json::Value = serde_json::from_slice(&fs::read(file.path()).unwrap()).unwrap();
            for case in listed.as_array().into_iter().flatten().filter(|case| case["spec"].is_object()) {
                let text = case["spec"].to_string().replace("${TMP}", "/srv");
                spec_json(text.as_bytes());
                if cases % 5 == 0 {
                    plan(&[&[[0, 0x29, 0x7f][cases % 3]], text.as_bytes()].concat());
                }
                cases += 1;
            }
        }
        assert!(cases > 300);
    }
}
