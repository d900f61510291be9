//! The directories in which groups are made.
//!
//! By default a container's group stands below the caller's own, so that the caller's own limits still hold for the sum.
//! v1 lets every group have children. On v2 a group with processes cannot give controllers to children ("no internal
//! processes"), and the caller sits in its own group, so there the place is `ringfence` in the nearest group above that is
//! delegated to the caller and has no processes, and for root `/ringfence`. That middle directory also keeps what it needs
//! from being taken away: a controller that it has passed on cannot be disabled above it, which systemd would do in its
//! slices when no unit of its own asks for the controller. Where systemd runs the machine and nothing is delegated, a scope
//! that it makes is the place (see [`scope`](super::scope)).

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Component, Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use nix::errno::Errno;
use nix::unistd::{UnlinkatFlags, unlinkat};

use super::file;
use super::layout::{Controller, Hierarchy};
use super::v1;
use crate::error::{Error, ErrorKind, Result};
use crate::spec::cpuset;
use crate::sys::xattr;

/// The directory that is made where the caller's own group cannot serve.
pub(super) const RINGFENCE: &str = "ringfence";

const VARIABLE: &str = "RINGFENCE_CGROUP_PARENT";

/// Who decides where groups are made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// `cgroup_parent` of the spec.
    Spec(PathBuf),
    /// The environment.
    Environment(PathBuf),
    /// A scope in which the keepers are.
    Scope(PathBuf),
    /// The rules above.
    Default,
}

impl Place {
    pub(crate) fn choose(parent: Option<&Path>) -> Result<Self> {
        if let Some(path) = parent {
            return match plain(path) {
                Ok(path) => Ok(Self::Spec(path)),
                Err(why) => Err(Error::spec("cgroup_parent", format!("{path:?} {why}"))
                    .with_hint("give a path inside each hierarchy, like /containers")),
            };
        }
        match std::env::var_os(VARIABLE).filter(|value| !value.is_empty()) {
            None => Ok(Self::Default),
            Some(path) => match plain(Path::new(&path)) {
                Ok(path) => Ok(Self::Environment(path)),
                Err(why) => Err(Error::new(ErrorKind::InvalidArgument, format!("{VARIABLE}: {path:?} {why}"))
                    .with_hint("give a path inside each hierarchy, like /containers")),
            },
        }
    }

    /// For an error of the place itself: who named it.
    pub(super) fn blame(&self, error: Error) -> Error {
        match self {
            Self::Spec(_) => error.with_field("cgroup_parent"),
            Self::Environment(_) if error.hint().is_none() => error.with_hint(format!("{VARIABLE} names the place")),
            _ => error,
        }
    }

    pub(super) fn explicit(&self) -> Option<&Path> {
        match self {
            Self::Spec(path) | Self::Environment(path) => Some(path),
            Self::Scope(_) | Self::Default => None,
        }
    }
}

/// The path without its leading slash. `..` would leave the delegated part, and `.` or `//` give one place two names.
fn plain(path: &Path) -> Result<PathBuf, &'static str> {
    if !path.is_absolute() {
        return Err("is not absolute");
    }
    if path.as_os_str().as_encoded_bytes().contains(&0) {
        return Err("contains a NUL byte");
    }
    path.components()
        .filter(|c| !matches!(c, Component::RootDir))
        .map(|c| match c {
            Component::Normal(name) => Ok(name),
            _ => Err("contains \"..\""),
        })
        .collect()
}

/// A directory in which groups are made, open.
pub(super) struct Parent {
    pub v2: bool,
    pub controllers: Vec<String>,
    /// In the file system.
    pub path: PathBuf,
    pub dir: Arc<OwnedFd>,
    /// v2: the groups that have to pass controllers on, the outermost first, this one last. Empty: children get none.
    chain: Vec<(OwnedFd, PathBuf)>,
    /// It was found by the description of a group in it.
    found: bool,
    /// v2: the controllers that were seen to be passed on.
    enabled: Mutex<Vec<Controller>>,
}

impl Parent {
    /// For a group that was made earlier, by this or another process.
    pub fn shared(v2: bool, controllers: Vec<String>, path: PathBuf, dir: Arc<OwnedFd>) -> Self {
        Self { v2, controllers, path, dir, chain: Vec::new(), found: true, enabled: Mutex::new(Vec::new()) }
    }

    /// v2: makes children of this group have the controller.
    pub fn enable(&self, controller: Controller) -> Result<()> {
        let mut enabled = self.enabled.lock().unwrap_or_else(PoisonError::into_inner);
        if enabled.contains(&controller) {
            return Ok(());
        }
        // A group that was found by its description passes on what it can itself.
        let own = [(self.dir.try_clone().map_err(|_| at("open", Errno::EMFILE, &self.path))?, self.path.clone())];
        let chain = if self.chain.is_empty() && self.found { &own[..] } else { &self.chain };
        if chain.is_empty() {
            return Err(internal_processes(&self.path));
        }
        for (dir, path) in chain {
            if !must_enable(dir, path, controller)? {
                continue;
            }
            // The kernel lets a group with processes pass on cpu, cpuset and pids; that makes a threaded one of it, in which no
            // process can be born.
            if !is_empty(dir) {
                return Err(internal_processes(path));
            }
            file::write(dir, "cgroup.subtree_control", &format!("+{}", controller.name())).map_err(|e| match e {
                Errno::EBUSY => internal_processes(path),
                e => at(&format!("enable {} in", controller.name()), e, &path.join("cgroup.subtree_control"))
                    .with_hint(delegation_hint(true, path)),
            })?;
        }
        enabled.push(controller);
        Ok(())
    }

    /// v2: lets groups in this one have processors of their own. The kernel wants them set apart in all groups above
    /// (`cpuset.cpus.exclusive`, Linux 6.7), where that alone takes them from nobody. What is refused shows when the group
    /// itself asks for them.
    pub fn set_apart(&self, cpus: &BTreeSet<u32>) {
        const FILE: &str = "cpuset.cpus.exclusive";
        // The root has no such file.
        for (dir, _) in self.chain.iter().filter(|(dir, _)| file::exists(dir, FILE)) {
            let known = file::read(dir, FILE).ok().and_then(|text| cpuset::parse_list(text.trim()).ok());
            let all: BTreeSet<u32> = known.into_iter().flatten().chain(cpus.iter().copied()).collect();
            let _ = file::write(dir, FILE, &cpuset::show_list(&all));
        }
    }
}

/// Whether a v2 group does not yet pass the controller on to its children; an error when it has none to pass on.
pub(super) fn must_enable(dir: &OwnedFd, path: &Path, controller: Controller) -> Result<bool> {
    let has = |file: &str| -> Result<bool> {
        file::read(dir, file)
            .map(|text| text.split_whitespace().any(|c| c == controller.name()))
            .map_err(|e| at("read", e, &path.join(file)))
    };
    if has("cgroup.subtree_control")? {
        return Ok(false);
    }
    if has("cgroup.controllers")? {
        return Ok(true);
    }
    Err(Error::new(
        ErrorKind::Unsupported,
        format!("the {} controller is not given to {}", controller.name(), path.display()),
    )
    .with_hint(match path.iter().any(|name| name.as_encoded_bytes().starts_with(b"user@")) {
        true => {
            "as root: systemctl edit user@.service, [Service] Delegate=cpu cpuset io memory pids; it takes effect when the \
             user's manager starts again"
        }
        false => "enable it in cgroup.subtree_control of the groups above (systemd: Delegate=yes)",
    }))
}

fn internal_processes(path: &Path) -> Error {
    // Without the slash at the end that the root of a mount brings.
    let path: PathBuf = path.components().collect();
    let path = path.display();
    Error::new(
        ErrorKind::Unsupported,
        format!("processes sit in {path}, and on cgroup v2 a group with processes cannot give controllers to the groups in it"),
    )
    .with_errno(libc::EBUSY)
    .with_hint(format!(
        "move them into a leaf first (mkdir {path}/main; echo PID > {path}/main/cgroup.procs), or start the program with \
         systemd-run --user --scope -p Delegate=yes"
    ))
}

/// How an ordinary user gets a group in which groups can be made.
pub(super) fn delegation_hint(v2: bool, path: &Path) -> String {
    let uid = nix::unistd::geteuid();
    if v2 {
        format!(
            "start the program with `systemd-run --user --scope -p Delegate=yes PROGRAM`; or as root make a group, \
             `chown -R {uid}` it, and start the program in a leaf of it"
        )
    } else {
        let dir = path.display();
        format!("as root: mkdir -p {dir} && chown {uid} {dir}")
    }
}

/// An open parent under its key.
struct Known {
    place: Place,
    mount_point: PathBuf,
    controllers: bool,
    parent: Arc<Parent>,
}

/// A directory that this process made: the directory it is in, and its name there.
struct Made {
    dir: Arc<OwnedFd>,
    name: OsString,
}

struct Cache {
    known: Vec<Known>,
    made: Vec<Made>,
}

static CACHE: Mutex<Cache> = Mutex::new(Cache { known: Vec::new(), made: Vec::new() });

/// More places than any program uses at once; each holds one to four descriptors.
const MOST_KNOWN: usize = 64;

/// The parent for `place` in a hierarchy. `controllers`: v2 only, whether the groups in it must be able to get some.
pub(super) fn find(h: &Hierarchy, place: &Place, controllers: bool) -> Result<Arc<Parent>> {
    let mut cache = CACHE.lock().unwrap_or_else(PoisonError::into_inner);
    let same = |k: &&Known| k.controllers == controllers && k.mount_point == h.mount_point && k.place == *place;
    if let Some(known) = cache.known.iter().find(same) {
        return Ok(known.parent.clone());
    }
    let parent = Arc::new(open(h, place, controllers, &mut cache.made)?);
    if let Place::Spec(path) = place {
        let mut named = NAMED.lock().unwrap_or_else(PoisonError::into_inner);
        if !named.contains(path) {
            named.push(path.clone());
        }
    }
    if cache.known.len() >= MOST_KNOWN {
        cache.known.remove(0);
    }
    let (place, mount_point) = (place.clone(), h.mount_point.clone());
    cache.known.push(Known { place, mount_point, controllers, parent: parent.clone() });
    Ok(parent)
}

/// Places that specs of this process named: a sweep looks there too.
static NAMED: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());

pub(super) fn named() -> Vec<PathBuf> {
    NAMED.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

/// After a failure: the directories may have been removed or changed since.
pub(super) fn forget() {
    CACHE.lock().unwrap_or_else(PoisonError::into_inner).known.clear();
}

/// Removes the directories that this process made, as far as they are empty.
///
/// They stay while the process may make more groups, because making them anew for each container would cost as much as the
/// groups themselves. The kernel refuses to remove one in which another process has groups.
pub(crate) fn remove_made_directories() {
    remove_made_since(0);
}

/// How many directories this process has made: a mark for [`remove_made_since`].
pub(super) fn made_so_far() -> usize {
    CACHE.lock().unwrap_or_else(PoisonError::into_inner).made.len()
}

/// As [`remove_made_directories`], for those after a mark: after a failure no keeper knows of them.
pub(super) fn remove_made_since(mark: usize) {
    let mut cache = CACHE.lock().unwrap_or_else(PoisonError::into_inner);
    let before = cache.made.len();
    for index in (mark.min(before)..before).rev() {
        let made = &cache.made[index];
        match unlinkat(&made.dir, made.name.as_os_str(), UnlinkatFlags::RemoveDir) {
            Ok(()) | Err(Errno::ENOENT | Errno::ENODEV) => drop(cache.made.remove(index)),
            Err(_) => {}
        }
    }
    if cache.made.len() != before {
        cache.known.clear();
    }
}

/// A place that may do: a directory below the mount point that exists, and a path in it whose missing parts are made.
struct Candidate {
    base: PathBuf,
    path: PathBuf,
}

fn candidates(h: &Hierarchy, root: &OwnedFd, place: &Place, controllers: bool) -> Result<Vec<Candidate>> {
    let ringfence = |base: PathBuf| Candidate { base, path: PathBuf::from(RINGFENCE) };
    if let Some(path) = place.explicit() {
        // The hierarchy's own name of a place, as in /proc/self/cgroup, where only a part of the hierarchy is mounted.
        let whole = Path::new("/").join(path);
        let seen = match h.root.parent() {
            Some(_) => whole.strip_prefix(&h.root).unwrap_or(path),
            None => path,
        };
        return Ok(vec![Candidate { base: PathBuf::new(), path: seen.to_owned() }]);
    }
    if let Place::Scope(scope) = place
        && h.v2
    {
        return Ok(vec![Candidate { base: scope.clone(), path: PathBuf::new() }]);
    }
    if h.v2 && controllers {
        return Ok(vec![ringfence(v2_base(h, root)?)]);
    }
    // The caller's own group, without a directory between: nothing is left when the last container is gone.
    let own = h.own.clone().map(|base| Candidate { base, path: PathBuf::new() });
    Ok(own.into_iter().chain([ringfence(PathBuf::new())]).collect())
}

fn open(h: &Hierarchy, place: &Place, controllers: bool, made: &mut Vec<Made>) -> Result<Parent> {
    let root = file::open_mount(&h.mount_point).map_err(|e| at("open", e, &h.mount_point))?;
    let before = made.len();
    let mut result = None;
    for candidate in candidates(h, &root, place, controllers)? {
        match reach(h, &root, &candidate, controllers, made) {
            Ok(parent) => return Ok(parent),
            Err(e) => result = Some(denied(h, e, &candidate.base.join(&candidate.path))),
        }
        // Nobody else knows of what was made on a way that led nowhere.
        for made in made.drain(before..).rev() {
            let _ = unlinkat(&made.dir, made.name.as_os_str(), UnlinkatFlags::RemoveDir);
        }
    }
    Err(result.expect("there is always a candidate"))
}

/// Where groups would be made, and whether they would have the controller; makes nothing.
pub(super) fn probe(h: &Hierarchy, place: &Place, controller: Option<Controller>) -> Result<PathBuf> {
    let root = file::open_mount(&h.mount_point).map_err(|e| at("open", e, &h.mount_point))?;
    let mut result = None;
    for candidate in candidates(h, &root, place, controller.is_some())? {
        let whole = candidate.base.join(&candidate.path);
        match would_reach(h, &root, &candidate, controller.filter(|_| h.v2)) {
            Ok(()) => return Ok(h.mount_point.join(whole)),
            Err(Refused::Errno(e, path)) => result = Some(denied(h, (e, path), &whole)),
            Err(Refused::Error(e)) => result = Some(e),
        }
    }
    Err(result.expect("there is always a candidate"))
}

enum Refused {
    Errno(Errno, PathBuf),
    Error(Error),
}

fn would_reach(
    h: &Hierarchy,
    root: &OwnedFd,
    candidate: &Candidate,
    controller: Option<Controller>,
) -> Result<(), Refused> {
    let mut shown = h.mount_point.join(&candidate.base);
    let mut dir = file::open_dir(root, &candidate.base).map_err(|e| Refused::Errno(e, shown.clone()))?;
    let mut names = candidate.path.iter();
    loop {
        let name = names.next();
        // Every group from the base down to the parent itself passes the controller on.
        if let Some(controller) = controller
            && must_enable(&dir, &shown, controller).map_err(Refused::Error)?
        {
            if !is_empty(&dir) {
                return Err(Refused::Error(internal_processes(&shown)));
            }
            file::writable(&dir, "cgroup.subtree_control").map_err(|e| Refused::Errno(e, shown.clone()))?;
        }
        let next = match name {
            None => Err(Errno::ENOENT),
            Some(name) => {
                let below = file::open_dir(&dir, Path::new(name));
                below.inspect(|_| shown.push(name))
            }
        };
        match next {
            Ok(below) => dir = below,
            Err(Errno::ENOENT) => return file::writable(&dir, ".").map_err(|e| Refused::Errno(e, shown)),
            Err(e) => return Err(Refused::Errno(e, shown)),
        }
    }
}

/// Whether there is no place by default for groups with controllers, or only the root of a tree that is somebody else's.
pub(super) fn lacks_default(h: &Hierarchy) -> bool {
    let known = CACHE.lock().unwrap_or_else(PoisonError::into_inner).known.iter().any(|known| {
        known.controllers
            && known.mount_point == h.mount_point
            && known.place == Place::Default
            && known.parent.path != h.mount_point.join(RINGFENCE)
    });
    if known {
        return false;
    }
    let Ok(root) = file::open_mount(&h.mount_point) else { return false };
    let base = v2_base(h, &root);
    base.is_err() || base.is_ok_and(|base| base.as_os_str().is_empty() && nix::unistd::geteuid().is_root())
}

/// The group in which `ringfence` is made, relative to the mount point: see the head of this file.
fn v2_base(h: &Hierarchy, root: &OwnedFd) -> Result<PathBuf> {
    let ancestors = h.own.as_deref().map(|own| own.ancestors().collect::<Vec<_>>()).unwrap_or_default();
    if file::writable(root, ".").is_ok() && file::writable(root, "cgroup.procs").is_ok() {
        // root may make groups anywhere, but among systemd's own groups only those are its to use that systemd has
        // handed over, which it marks.
        for &path in ancestors.iter().filter(|path| !path.as_os_str().is_empty()) {
            if let Ok(dir) = file::open_dir(root, path)
                && xattr::get(&dir, c"user.delegate").is_ok_and(|value| value == b"1")
                && is_empty(&dir)
            {
                return Ok(path.to_owned());
            }
        }
        return Ok(PathBuf::new());
    }
    let mut best: Option<(usize, &Path)> = None;
    let mut occupied = None;
    let mut refused = None;
    for (depth, &path) in ancestors.iter().enumerate() {
        let shown = || h.mount_point.join(path);
        let dir = match file::open_dir(root, path) {
            Ok(dir) => dir,
            Err(e) => return Err(at("open", e, &shown())),
        };
        // To move a process (or to clone into a group) takes write permission on cgroup.procs of the nearest common
        // ancestor, so the way up ends at the first group that is not ours.
        if let Err(e) = file::writable(&dir, ".").and_then(|()| file::writable(&dir, "cgroup.procs")) {
            refused = refused.or(Some((e, shown())));
            // Our own group need not be ours: a leaf that an administrator made for us in what is.
            if depth == 0 {
                continue;
            }
            break;
        }
        if !is_empty(&dir) {
            occupied = Some(shown());
            continue;
        }
        let given = file::read(&dir, "cgroup.controllers").unwrap_or_default();
        let count = given.split_whitespace().filter(|c| matches!(*c, "memory" | "cpu" | "pids")).count();
        if best.is_none_or(|(most, _)| count > most) {
            best = Some((count, path));
        }
    }
    match (best, occupied, refused) {
        (Some((_, path)), _, _) => Ok(path.to_owned()),
        (None, Some(path), _) => Err(internal_processes(&path)),
        (None, None, Some((e, path))) => Err(Error::os("make groups in", e as i32)
            .with_detail(match e {
                Errno::EROFS => "mounted read-only",
                _ => "no control group is delegated to this user",
            })
            .with_path(path.to_string_lossy())
            .with_hint(delegation_hint(true, &path))),
        (None, None, None) => Err(Error::new(
            ErrorKind::Unsupported,
            format!("this process's own control group is not below {}", h.mount_point.display()),
        )
        .with_hint("set RINGFENCE_CGROUP_PARENT to a group that is delegated to this user")),
    }
}

/// No processes of its own; the real root may have some, it is exempt from the rule.
fn is_empty(dir: &OwnedFd) -> bool {
    !file::exists(dir, "cgroup.type") || file::read(dir, "cgroup.procs").is_ok_and(|text| text.trim().is_empty())
}

/// Opens the candidate and makes what is missing of it.
fn reach(
    h: &Hierarchy,
    root: &OwnedFd,
    candidate: &Candidate,
    controllers: bool,
    made: &mut Vec<Made>,
) -> Result<Parent, (Errno, PathBuf)> {
    let mut shown = h.mount_point.join(&candidate.base);
    let mut dir = file::open_dir(root, &candidate.base).map_err(|e| (e, shown.clone()))?;
    let mut chain = Vec::new();
    for name in &candidate.path {
        chain.push((dir, shown.clone()));
        let (above, _) = chain.last().expect("just pushed");
        shown.push(name);
        dir = reach_one(above, name, made).map_err(|e| (e, shown.clone()))?;
        if !h.v2
            && h.has(Controller::Cpuset)
            && let Some(name) = name.to_str()
        {
            // What keeps it empty shows when a group in it is given some.
            let _ = v1::inherit_cpuset(above.as_fd(), name);
        }
    }
    file::writable(&dir, ".").map_err(|e| (e, shown.clone()))?;
    let parent = Arc::new(dir);
    if h.v2 && controllers {
        // The chain's last link is the parent itself; a second descriptor keeps the types simple.
        chain.push((parent.try_clone().map_err(|_| (Errno::EMFILE, shown.clone()))?, shown.clone()));
    } else {
        chain.clear();
    }
    Ok(Parent {
        v2: h.v2,
        controllers: h.controllers.clone(),
        path: shown,
        dir: parent,
        chain,
        found: false,
        enabled: Mutex::new(Vec::new()),
    })
}

fn reach_one(above: &OwnedFd, name: &OsStr, made: &mut Vec<Made>) -> nix::Result<OwnedFd> {
    // Another process may remove an empty directory between the two calls, or make it first.
    for _ in 0..16 {
        match file::open_dir(above, Path::new(name)) {
            Err(Errno::ENOENT) => {}
            result => return result,
        }
        match file::make_dir(above, name) {
            Ok(()) => {
                mark_as_made(above, name);
                if let Ok(dir) = above.as_fd().try_clone_to_owned()
                    && !made.iter().any(|m| m.name == name && same_file(&m.dir, above))
                {
                    made.push(Made { dir: Arc::new(dir), name: name.to_owned() });
                }
            }
            Err(Errno::EEXIST) => {}
            Err(e) => return Err(e),
        }
    }
    Err(Errno::ENOENT)
}

/// For the keepers, which remove it when they leave. Without the mark it stays until `gc`.
fn mark_as_made(above: &OwnedFd, name: &OsStr) {
    let Ok(dir) = file::open_dir(above, Path::new(name)) else { return };
    let _ = crate::proto::MADE.iter().any(|mark| xattr::set(&dir, mark, name.as_encoded_bytes()).is_ok());
}

fn same_file(a: &OwnedFd, b: &OwnedFd) -> bool {
    let id = |fd: &OwnedFd| nix::sys::stat::fstat(fd).map(|s| (s.st_dev, s.st_ino));
    id(a).is_ok_and(|a| id(b) == Ok(a))
}

fn at(step: &str, errno: Errno, path: &Path) -> Error {
    Error::os(step, errno as i32).with_path(path.to_string_lossy())
}

fn denied(h: &Hierarchy, (errno, path): (Errno, PathBuf), wanted: &Path) -> Error {
    let error = at("make a control group in", errno, &path);
    match errno {
        Errno::EACCES | Errno::EPERM => error.with_hint(delegation_hint(h.v2, &h.mount_point.join(wanted))),
        Errno::EROFS => error.with_kind(ErrorKind::PermissionDenied).with_hint(format!(
            "{} is mounted read-only: in a container ask for a writable one",
            h.mount_point.display()
        )),
        _ => error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_absolute_and_plain() {
        assert_eq!(plain(Path::new("/a/b")), Ok(PathBuf::from("a/b")));
        assert_eq!(plain(Path::new("/a//b/")), Ok(PathBuf::from("a/b")));
        assert_eq!(plain(Path::new("/")), Ok(PathBuf::new()));
        assert!(plain(Path::new("a")).is_err());
        assert!(plain(Path::new("")).is_err());
        assert!(plain(Path::new("/a/../b")).is_err());
        assert_eq!(Place::choose(Some(Path::new("/a/.."))).unwrap_err().field(), Some("cgroup_parent"));
    }
}
