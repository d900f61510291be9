//! Which control group hierarchies this process sees, and where it is in each of them.
//!
//! The parsers are pure functions over the text of `/proc/self/mountinfo` (proc_pid_mountinfo(5)) and `/proc/self/cgroup`
//! (cgroups(7)); [`current`] reads both once. Everything later works on directory descriptors, so that neither thousands of
//! mounts nor a changed root directory of the host cost or break anything.

use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Component, Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use crate::error::{Error, Result};

/// The controllers that this module uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Controller {
    Memory,
    Pids,
    Cpu,
    Cpuset,
    Io,
    Hugetlb,
    Rdma,
    Misc,
    Cpuacct,
    Freezer,
    Devices,
}

impl Controller {
    /// Those that limit something, in the order in which groups are made.
    pub const LIMITING: [Self; 8] =
        [Self::Memory, Self::Pids, Self::Cpu, Self::Cpuset, Self::Io, Self::Hugetlb, Self::Rdma, Self::Misc];

    /// Its name on v2; on v1 only [`Controller::Io`] is called otherwise.
    pub fn name(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Pids => "pids",
            Self::Cpu => "cpu",
            Self::Cpuset => "cpuset",
            Self::Io => "io",
            Self::Hugetlb => "hugetlb",
            Self::Rdma => "rdma",
            Self::Misc => "misc",
            Self::Cpuacct => "cpuacct",
            Self::Freezer => "freezer",
            Self::Devices => "devices",
        }
    }

    pub fn name_on(self, v2: bool) -> &'static str {
        if self == Self::Io && !v2 { "blkio" } else { self.name() }
    }

    /// Whether every container gets it for its counters where it can be had. The others are taken for a limit only: cpu and
    /// cpuset make every switch between tasks dearer, and on v1 each is one directory more to make, join and remove.
    pub fn counts(self, v2: bool) -> bool {
        matches!(self, Self::Memory | Self::Pids) || (self == Self::Io && v2)
    }
}

/// One mounted hierarchy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Hierarchy {
    pub v2: bool,
    /// v1: what is attached, `name=...` included. v2: what the root of this mount has to give.
    pub controllers: Vec<String>,
    pub mount_point: PathBuf,
    /// The group at the mount point, `/` unless this is a part of a hierarchy (a container's view without a cgroup
    /// namespace).
    pub root: PathBuf,
    /// The caller's group, relative to the mount point; `None` when it is not below it.
    pub own: Option<PathBuf>,
    pub read_only: bool,
}

impl Hierarchy {
    pub fn has(&self, controller: Controller) -> bool {
        self.controllers.iter().any(|c| c == controller.name_on(self.v2))
    }

    /// `cgroup2` or the controllers, for messages.
    pub fn label(&self) -> String {
        if self.v2 { "cgroup2".into() } else { self.controllers.join(",") }
    }
}

/// The shapes that a machine can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// No hierarchy is mounted.
    None,
    /// Controllers on v1, no v2 tree.
    V1,
    /// One v2 tree.
    V2,
    /// Controllers on v1, and a v2 tree beside them (with the rest of the controllers, often none).
    Hybrid,
}

impl Kind {
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::V1 => "v1",
            Self::V2 => "v2",
            Self::Hybrid => "hybrid",
        }
    }
}

/// All hierarchies that can be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Layout {
    pub hierarchies: Vec<Hierarchy>,
}

impl Layout {
    /// From the texts of `/proc/self/mountinfo` and `/proc/self/cgroup`; v2 controllers are not in them.
    pub fn parse(mountinfo: &[u8], memberships: &[u8]) -> Self {
        let memberships = parse_memberships(memberships);
        let mut hierarchies: Vec<Hierarchy> = Vec::new();
        for mount in parse_mounts(mountinfo) {
            let group = memberships.iter().find(|m| match mount.v2 {
                true => m.controllers.is_empty(),
                false => !m.controllers.is_empty() && m.controllers.iter().all(|c| mount.controllers.contains(c)),
            });
            let own = group.and_then(|m| below(&mount.root, &m.path));
            let this = Hierarchy { own, ..mount };
            match hierarchies.iter_mut().find(|h| h.v2 == this.v2 && h.controllers == this.controllers) {
                None => hierarchies.push(this),
                // The same hierarchy mounted again: the better view wins, that is one that shows where we are, and can be
                // written.
                Some(known) if rank(&this) > rank(known) => *known = this,
                Some(_) => {}
            }
        }
        Self { hierarchies }
    }

    pub fn kind(&self) -> Kind {
        let v1 = self.hierarchies.iter().any(|h| !h.v2 && h.controllers.iter().any(|c| !c.starts_with("name=")));
        match (v1, self.v2().is_some()) {
            (false, false) => Kind::None,
            (true, false) => Kind::V1,
            (false, true) => Kind::V2,
            (true, true) => Kind::Hybrid,
        }
    }

    pub fn v2(&self) -> Option<&Hierarchy> {
        self.hierarchies.iter().find(|h| h.v2)
    }

    /// The hierarchy that has this controller; a controller is never in two.
    pub fn home(&self, controller: Controller) -> Option<&Hierarchy> {
        self.hierarchies.iter().find(|h| h.has(controller))
    }
}

fn rank(h: &Hierarchy) -> (bool, bool, bool) {
    (!h.read_only, h.own.is_some(), h.root == Path::new("/"))
}

/// The mounts of type cgroup and cgroup2, `own` not yet known.
fn parse_mounts(mountinfo: &[u8]) -> Vec<Hierarchy> {
    mountinfo.split(|&b| b == b'\n').filter_map(parse_mount).collect()
}

fn parse_mount(line: &[u8]) -> Option<Hierarchy> {
    // id parent major:minor root mount-point options [optional fields...] - type source super-options
    let mut fields = line.split(|&b| b == b' ');
    let root = fields.by_ref().nth(3)?;
    let mount_point = fields.next()?;
    let options = fields.next()?;
    let mut rest = fields.skip_while(|&f| f != b"-").skip(1);
    let v2 = match rest.next()? {
        b"cgroup" => false,
        b"cgroup2" => true,
        _ => return None,
    };
    let super_options = rest.nth(1)?;
    let words = |text: &[u8]| -> Vec<String> {
        text.split(|&b| b == b',').map(|w| String::from_utf8_lossy(w).into_owned()).collect()
    };
    let read_only = [options, super_options].iter().any(|text| words(text).iter().any(|w| w == "ro"));
    // Of the super block's options those that are no controller are known and few (cgroup1_show_options in the kernel).
    let controllers = if v2 {
        Vec::new()
    } else {
        words(super_options)
            .into_iter()
            .filter(|w| {
                !matches!(
                    w.as_str(),
                    "" | "rw" | "ro" | "noprefix" | "xattr" | "cpuset_v2_mode" | "favordynmods" | "clone_children"
                ) && !w.starts_with("release_agent=")
                    && w != "none"
            })
            .collect()
    };
    Some(Hierarchy { v2, controllers, mount_point: unescape(mount_point), root: unescape(root), own: None, read_only })
}

/// One line of `/proc/self/cgroup`; no controllers: the v2 tree.
#[derive(Debug, PartialEq, Eq)]
struct Membership {
    controllers: Vec<String>,
    path: PathBuf,
}

fn parse_memberships(text: &[u8]) -> Vec<Membership> {
    text.split(|&b| b == b'\n')
        .filter_map(|line| {
            let mut fields = line.splitn(3, |&b| b == b':');
            let id = fields.next()?;
            let controllers = fields.next()?;
            let path = fields.next()?;
            let controllers: Vec<String> = controllers
                .split(|&b| b == b',')
                .filter(|c| !c.is_empty())
                .map(|c| String::from_utf8_lossy(c).into_owned())
                .collect();
            // Only the v2 tree has no controllers, and its number is always 0.
            if id.is_empty() || path.first() != Some(&b'/') || (controllers.is_empty() && id != b"0") {
                return None;
            }
            Some(Membership { controllers, path: PathBuf::from(OsString::from_vec(path.to_vec())) })
        })
        .collect()
}

/// Where `path` (of `/proc/self/cgroup`) is below a mount of `root`.
fn below(root: &Path, path: &Path) -> Option<PathBuf> {
    // A group outside the caller's cgroup namespace shows as /../x, a removed one as "x (deleted)".
    let plain = |p: &Path| p.components().all(|c| matches!(c, Component::RootDir | Component::Normal(_)));
    if !plain(root) || !plain(path) || path.as_os_str().as_bytes().ends_with(b" (deleted)") {
        return None;
    }
    path.strip_prefix(root).ok().map(Path::to_owned)
}

/// Space, tab, newline and backslash are octal in mountinfo.
fn unescape(field: &[u8]) -> PathBuf {
    let mut out = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&byte, tail)) = rest.split_first() {
        let octal = match tail {
            [a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', ..] if byte == b'\\' => {
                Some((a - b'0') << 6 | (b - b'0') << 3 | (c - b'0'))
            }
            _ => None,
        };
        out.push(octal.unwrap_or(byte));
        rest = if octal.is_some() { &tail[3..] } else { tail };
    }
    PathBuf::from(OsString::from_vec(out))
}

/// What was read, with the text by which a move of this process is noticed.
struct Detected {
    layout: Arc<Layout>,
    memberships: Vec<u8>,
}

static DETECTED: Mutex<Option<Detected>> = Mutex::new(None);

/// Whether one v2 tree has all controllers: then a container's own view of it is worth a mount.
pub(crate) fn is_pure_v2() -> bool {
    current().is_ok_and(|layout| layout.kind() == Kind::V2)
}

/// The layout, read at the first call.
pub(super) fn current() -> Result<Arc<Layout>> {
    let mut slot = DETECTED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(known) = &*slot {
        return Ok(known.layout.clone());
    }
    let detected = detect(read_proc("/proc/self/cgroup")?)?;
    let layout = detected.layout.clone();
    *slot = Some(detected);
    Ok(layout)
}

/// The options of the v2 tree, which are one for all its mounts and change with every mount in the first namespace of
/// control groups: read when they are needed.
pub(crate) fn tree_options() -> Result<Vec<String>> {
    Ok(parse_tree_options(&read_proc("/proc/self/mountinfo")?))
}

fn parse_tree_options(mountinfo: &[u8]) -> Vec<String> {
    let options = |line: &[u8]| -> Option<Vec<String>> {
        let line = std::str::from_utf8(line).ok()?;
        let mut rest = line.split_once(" - ")?.1.split(' ');
        if rest.next()? != "cgroup2" {
            return None;
        }
        // What an LSM shows there (`seclabel`) is no option of this file system.
        let all =
            rest.nth(1)?.split(',').filter(|word| !matches!(*word, "rw" | "ro" | "seclabel") && !word.contains('='));
        Some(all.map(str::to_owned).collect())
    };
    mountinfo.split(|&b| b == b'\n').find_map(options).unwrap_or_default()
}

/// After a failure: reads again if this process was moved since (for example into the leaf that an error asked for).
/// True when the layout is another one now.
pub(super) fn refresh_if_moved() -> bool {
    let Ok(memberships) = read_proc("/proc/self/cgroup") else { return false };
    let mut slot = DETECTED.lock().unwrap_or_else(PoisonError::into_inner);
    if slot.as_ref().is_some_and(|known| known.memberships == memberships) {
        return false;
    }
    match detect(memberships) {
        Ok(detected) => {
            *slot = Some(detected);
            true
        }
        Err(_) => false,
    }
}

fn detect(memberships: Vec<u8>) -> Result<Detected> {
    let mut layout = Layout::parse(&read_proc("/proc/self/mountinfo")?, &memberships);
    for h in layout.hierarchies.iter_mut().filter(|h| h.v2) {
        let file = h.mount_point.join("cgroup.controllers");
        if let Ok(text) = fs::read_to_string(&file) {
            h.controllers = text.split_whitespace().map(str::to_owned).collect();
        }
    }
    Ok(Detected { layout: Arc::new(layout), memberships })
}

fn read_proc(path: &str) -> Result<Vec<u8>> {
    fs::read(path).map_err(|e| Error::io("read", &e).with_path(path))
}

/// Why no mounted hierarchy has a controller: the sentence for the error, and what can be done.
pub(super) fn absence(layout: &Layout, controller: Controller) -> (String, &'static str) {
    // /proc/cgroups has the names of v1.
    let name = controller.name_on(layout.kind() == Kind::V2);
    let on_v1 = controller.name_on(false);
    let listed = fs::read_to_string("/proc/cgroups").unwrap_or_default();
    let row =
        listed.lines().map(|line| line.split_whitespace().collect::<Vec<_>>()).find(|row| row.first() == Some(&on_v1));
    let row = row.as_deref();
    match row {
        Some([_, _, _, "0", ..]) => (
            format!(
                "this machine has no {name} controller: it is switched off (cgroup_disable={name} on the kernel's command line)"
            ),
            "boot without it",
        ),
        Some([_, hierarchy, ..]) if *hierarchy != "0" => (
            format!("this machine has its {name} controller in a cgroup v1 hierarchy that is not mounted here"),
            "mount it (mount -t cgroup), or show it to this process (in a container: a writable /sys/fs/cgroup)",
        ),
        _ if layout.kind() == Kind::None => (
            "no control group file system is mounted here".to_owned(),
            "mount one (mount -t cgroup2 none /sys/fs/cgroup), or in a container ask for a writable /sys/fs/cgroup",
        ),
        _ if layout.kind() == Kind::V2 => (
            format!(
                "this machine has no {name} controller to give: it is not in cgroup.controllers at the root that this process sees"
            ),
            "in a container or a delegated subtree the group above has to enable it (cgroup.subtree_control; systemd: Delegate=yes); \
             else the kernel lacks it",
        ),
        _ => (
            format!("this machine has no {name} controller: no mounted control group hierarchy has it"),
            "use a kernel that has it, or mount its hierarchy",
        ),
    }
}

#[cfg(any(fuzzing, test))]
pub(crate) fn fuzz(mountinfo: &[u8], memberships: &[u8]) {
    let layout = Layout::parse(mountinfo, memberships);
    layout.kind();
    for hierarchy in &layout.hierarchies {
        if let Some(own) = &hierarchy.own {
            assert!(own.components().all(|part| !matches!(part, Component::ParentDir)), "{own:?}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const HYBRID_MOUNTS: &str = "\
23 1 0:21 / /sys rw,nosuid - sysfs sysfs rw
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu
33 31 0:30 / /sys/fs/cgroup/cpuacct rw,relatime - cgroup cgroup rw,cpuacct
34 31 0:31 / /sys/fs/cgroup/cpuset rw,relatime - cgroup cgroup rw,cpuset,clone_children
35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
37 31 0:34 / /sys/fs/cgroup/freezer rw,relatime - cgroup cgroup rw,freezer
39 31 0:36 / /sys/fs/cgroup/pids rw,relatime - cgroup cgroup rw,pids
40 31 0:37 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,name=systemd
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
";
    const HYBRID_GROUPS: &str = "\
9:name=systemd:/
8:pids:/
6:freezer:/
4:memory:/service/one
3:cpuset:/
2:cpuacct:/
1:cpu:/
0::/
";

    #[test]
    fn hybrid() {
        let layout = Layout::parse(HYBRID_MOUNTS.as_bytes(), HYBRID_GROUPS.as_bytes());
        assert_eq!(layout.kind(), Kind::Hybrid);
        let memory = layout.home(Controller::Memory).unwrap();
        assert_eq!(memory.mount_point, Path::new("/sys/fs/cgroup/memory"));
        assert_eq!(memory.own.as_deref(), Some(Path::new("service/one")));
        assert_eq!(layout.v2().unwrap().own.as_deref(), Some(Path::new("")));
        assert_eq!(layout.home(Controller::Cpuacct).unwrap().label(), "cpuacct");
        assert!(layout.hierarchies.iter().find(|h| h.controllers == ["cpuset"]).is_some());
    }

    #[test]
    fn pure_v2_below_systemd() {
        let layout = Layout::parse(
            b"28 22 0:25 / /sys/fs/cgroup rw,nosuid,nodev,noexec,relatime shared:9 - cgroup2 cgroup2 rw,nsdelegate,memory_recursiveprot\n",
            b"0::/user.slice/user-1000.slice/user@1000.service/app.slice/run-1.scope\n",
        );
        assert_eq!(layout.kind(), Kind::V2);
        let own = layout.v2().unwrap().own.as_deref();
        assert_eq!(own, Some(Path::new("user.slice/user-1000.slice/user@1000.service/app.slice/run-1.scope")));
        assert!(layout.home(Controller::Memory).is_none(), "v2 controllers are probed, not parsed");
    }

    #[test]
    fn options_of_the_v2_tree() {
        let options = |text: &str| parse_tree_options(format!("{HYBRID_MOUNTS}{text}").as_bytes());
        assert_eq!(options(""), <[&str; 0]>::default());
        let of =
            |options| format!("28 22 0:25 / /sys/fs/cgroup rw,nosuid,relatime shared:9 - cgroup2 cgroup2 {options}\n");
        let only = |options| parse_tree_options(of(options).as_bytes());
        assert_eq!(only("rw,nsdelegate,memory_recursiveprot"), ["nsdelegate", "memory_recursiveprot"]);
        assert_eq!(only("ro,seclabel,favordynmods"), ["favordynmods"]);
        assert_eq!(parse_tree_options(b"1 2 0:1 / / rw - ext4 cgroup2 rw,nsdelegate\n"), <[&str; 0]>::default());
    }

    #[test]
    fn v1_with_controllers_mounted_together() {
        let layout = Layout::parse(
            b"33 24 0:27 / /sys/fs/cgroup/cpu,cpuacct rw,nosuid shared:15 - cgroup cgroup rw,cpu,cpuacct\n\
              34 24 0:28 / /sys/fs/cgroup/memory rw,nosuid shared:16 - cgroup cgroup rw,memory\n",
            b"3:memory:/user.slice\n2:cpu,cpuacct:/user.slice\n1:name=systemd:/user.slice/session-2.scope\n",
        );
        assert_eq!(layout.kind(), Kind::V1);
        assert_eq!(layout.home(Controller::Cpu), layout.home(Controller::Cpuacct));
        assert_eq!(layout.home(Controller::Cpu).unwrap().own.as_deref(), Some(Path::new("user.slice")));
        assert_eq!(layout.home(Controller::Pids), None);
    }

    #[test]
    fn inside_a_container_without_a_cgroup_namespace() {
        let layout = Layout::parse(
            b"743 742 0:32 /docker/abc /sys/fs/cgroup/memory ro,nosuid,nodev,noexec,relatime master:16 - cgroup cgroup rw,memory\n\
              744 742 0:36 /docker/abc /sys/fs/cgroup/pids ro,nosuid,nodev,noexec,relatime master:17 - cgroup cgroup rw,pids\n",
            b"8:pids:/docker/abc\n4:memory:/docker/abc/inner\n",
        );
        assert_eq!(layout.home(Controller::Memory).unwrap().own.as_deref(), Some(Path::new("inner")));
        assert_eq!(layout.home(Controller::Pids).unwrap().own.as_deref(), Some(Path::new("")));
        assert!(layout.home(Controller::Pids).unwrap().read_only);
    }

    #[test]
    fn inside_a_container_with_a_cgroup_namespace() {
        // Mounted outside, seen from inside: where the caller is below that mount cannot be told.
        let layout = Layout::parse(b"9 1 0:25 /../.. /mnt rw - cgroup2 cgroup2 rw\n", b"0::/\n");
        assert_eq!(layout.v2().unwrap().own, None);
        // Its own mount beside it is the better one.
        let layout = Layout::parse(
            b"9 1 0:25 /../.. /mnt rw - cgroup2 cgroup2 rw\n8 1 0:25 / /sys/fs/cgroup rw - cgroup2 cgroup rw\n",
            b"0::/\n",
        );
        assert_eq!(layout.v2().unwrap().mount_point, Path::new("/sys/fs/cgroup"));
        // A process that was moved out of the namespace's root.
        assert_eq!(below(Path::new("/"), Path::new("/../other")), None);
        assert_eq!(below(Path::new("/"), Path::new("/gone (deleted)")), None);
        assert_eq!(below(Path::new("/a"), Path::new("/ab")), None);
    }

    #[test]
    fn odd_mount_points() {
        let layout = Layout::parse(b"9 1 0:25 / /mnt/a\\040b\\134 rw - cgroup2 none rw\n", b"0::/x:y\n");
        assert_eq!(layout.v2().unwrap().mount_point, Path::new("/mnt/a b\\"));
        assert_eq!(layout.v2().unwrap().own.as_deref(), Some(Path::new("x:y")));
    }

    #[test]
    fn this_machine() {
        let layout = current().unwrap();
        // The hierarchies as cgroups-rs sees them are found by us too.
        for theirs in cgroups_rs::fs::hierarchies::mountinfo_self() {
            assert!(layout.hierarchies.iter().any(|h| h.mount_point == theirs.mount_point), "{theirs:?}");
        }
    }

    fn escape(path: &str) -> String {
        path.chars()
            .map(|c| match c {
                ' ' => "\\040".into(),
                '\t' => "\\011".into(),
                '\n' => "\\012".into(),
                '\\' => "\\134".into(),
                c => c.to_string(),
            })
            .collect()
    }

    proptest! {
        #[test]
        fn parsers_take_anything(a in proptest::collection::vec(any::<u8>(), 0..400), b in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Layout::parse(&a, &b).kind();
        }

        #[test]
        fn damaged_samples_are_taken(cut in 0usize..HYBRID_MOUNTS.len(), byte in any::<u8>()) {
            let mut text = HYBRID_MOUNTS.as_bytes().to_vec();
            text[cut] = byte;
            let _ = Layout::parse(&text, HYBRID_GROUPS.as_bytes());
            let _ = Layout::parse(&text[..cut], HYBRID_GROUPS.as_bytes());
        }

        #[test]
        fn names_round_trip(mount in "/[a-z \\\\\t]{1,20}", own in "(/[a-z .:@-]{1,9}){1,4}") {
            prop_assume!(!own.contains("/../") && !own.ends_with("/..") && !own.split('/').any(|c| c == "."));
            let line = format!("41 31 0:38 / {} rw - cgroup2 cgroup2 rw\n", escape(&mount));
            let layout = Layout::parse(line.as_bytes(), format!("0::{own}\n").as_bytes());
            let v2 = layout.v2().unwrap();
            prop_assert_eq!(&v2.mount_point, Path::new(&mount));
            prop_assert_eq!(v2.own.as_deref(), Some(Path::new(own.trim_start_matches('/'))));
        }
    }
}
