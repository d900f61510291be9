//! Gathers what plans are made from: the caller's rights and limits, the host's tree, ids and users.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::os::fd::RawFd;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use once_cell::sync::OnceCell;

use super::keeper::Outer;
use crate::cgroup::Heir;
use crate::error::{Error, ErrorKind, Result};
use crate::plan::confine::Confinement;
use crate::plan::container::{COVERED, MOST_OVERLAYS, namespace_source, overlays};
use crate::plan::facts::{Credentials, Facts, HostEntry, IdMaps, Inherited};
use crate::security::filter::rules::Context;
use crate::security::filter::{self, Program};
use crate::spec::{
    BindSource, Capabilities, IdRange, Idmap, Landlock, MountKind, NamespaceKind, NamespaceSource, Resource, Rlimit,
    Rootfs, RootfsKind, Seccomp, SeccompArch, Spec,
};
use crate::spec::{IdOrName, UserSpec};
use crate::state::ids::{self, IdClaim};
use crate::sys::rights;

/// Where newuidmap or newgidmap is.
pub(crate) fn helper(program: &str) -> Option<String> {
    ["/usr/bin", "/bin", "/usr/local/bin", "/run/wrappers/bin"]
        .iter()
        .map(|dir| format!("{dir}/{program}"))
        .find(|path| Path::new(path).exists())
}

/// What an ordinary caller's outer user namespace can have.
pub(super) fn outer() -> Result<Outer> {
    let (uid, gid) = (nix::unistd::geteuid().as_raw(), nix::unistd::getegid().as_raw());
    let mut outer = Outer { uid, gid, uids: Vec::new(), gids: Vec::new(), writes_maps: false, why: None };
    if !rights::in_initial_user_namespace() {
        const BOTH: u64 = 1 << rights::CAP_SETUID | 1 << rights::CAP_SETGID;
        let (uids, gids) = (others("uid_map", uid), others("gid_map", gid));
        if rights::capabilities() & BOTH == BOTH && !uids.is_empty() && !gids.is_empty() {
            return Ok(Outer { uids, gids, writes_maps: true, ..outer });
        }
    }
    if helper("newuidmap").is_none() || helper("newgidmap").is_none() {
        outer.why = Some("newuidmap and newgidmap are not installed (package uidmap or shadow-utils)".into());
        return Ok(outer);
    }
    let name = user_name(uid);
    let uids = sub_ids("/etc/subuid", uid, name.as_deref());
    let gids = sub_ids("/etc/subgid", uid, name.as_deref());
    if uids.is_empty() || gids.is_empty() {
        let file = if uids.is_empty() { "/etc/subuid" } else { "/etc/subgid" };
        outer.why = Some(format!("{file} has no range for uid {uid}"));
        return Ok(outer);
    }
    outer.uids = uids;
    outer.gids = gids;
    Ok(outer)
}

/// The ids of this user namespace without the caller's own.
fn others(file: &str, own: u32) -> Vec<(u32, u32)> {
    let around = |(first, _, count): (u32, u32, u32)| {
        if own < first || own - first >= count {
            return [(first, count), (0, 0)];
        }
        [(first, own - first), (own.saturating_add(1), count - (own - first) - 1)]
    };
    let ranges = rights::id_map(file).into_iter().flat_map(around);
    ranges.filter(|&(_, count)| count > 0).take(16).collect()
}

fn user_name(uid: u32) -> Option<String> {
    name_of(&fs::read_to_string("/etc/passwd").ok()?, uid)
}

fn name_of(passwd: &str, uid: u32) -> Option<String> {
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse::<u32>().ok()? == uid).then(|| name.to_owned())
    })
}

fn sub_ids(file: &str, uid: u32, name: Option<&str>) -> Vec<(u32, u32)> {
    fs::read_to_string(file).map_or(Vec::new(), |text| sub_ids_of(&text, uid, name))
}

fn sub_ids_of(text: &str, uid: u32, name: Option<&str>) -> Vec<(u32, u32)> {
    text.lines()
        .filter_map(|line| {
            let mut fields = line.trim().split(':');
            let who = fields.next()?;
            let range = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
            (who == uid.to_string() || Some(who) == name).then_some(range)
        })
        // newuidmap(1) gives none that go past the last id.
        .filter(|&(start, count): &(u32, u32)| count > 0 && start.checked_add(count).is_some())
        .take(16)
        .collect()
}

// --- the host's tree ---

/// A mount point of /proc/self/mountinfo, and what matters of what is seen there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct MountPoint {
    pub path: PathBuf,
    /// Its number, of which the kernel makes use again.
    pub id: u32,
    pub idmapped: bool,
    /// The type of its file system.
    pub kind: String,
    /// The numbers of its file system.
    pub device: String,
    /// How many overlays are stacked in it.
    overlays: u32,
    read_only: bool,
}

fn unescape(text: &str) -> PathBuf {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut i = 0;
    while i < bytes.len() {
        let octal = bytes.get(i + 1..i + 4).filter(|d| bytes[i] == b'\\' && d.iter().all(|c| (b'0'..b'8').contains(c)));
        match octal {
            Some(d) => {
                out.push(d.iter().fold(0u32, |n, c| n * 8 + u32::from(c - b'0')) as u8);
                i += 4;
            }
            None => {
                out.push(bytes[i]);
                i += 1;
            }
        }
    }
    OsString::from_vec(out).into()
}

/// Of mounts one on the other the last is seen.
fn parse_mountinfo(text: &str) -> Vec<MountPoint> {
    let mut seen = BTreeMap::new();
    let mut points: Vec<MountPoint> = Vec::new();
    for line in text.lines() {
        let mut fields = line.split(' ');
        let (Some(id), device) = (fields.next().and_then(|id| id.parse().ok()), fields.nth(1)) else { continue };
        let device = device.unwrap_or_default().to_owned();
        let mut fields = fields.skip(1);
        let (Some(path), Some(options)) = (fields.next().map(unescape), fields.next()) else { continue };
        let mut last = fields.skip_while(|field| *field != "-").skip(1);
        let (kind, source) = (last.next().unwrap_or_default(), last.next().unwrap_or_default());
        let has = |wanted| options.split(',').any(|option| option == wanted);
        let (read_only, idmapped) = (has("ro"), has("idmapped"));
        let overlays = overlays(kind.as_bytes(), source.as_bytes());
        let kind = kind.to_owned();
        let point = MountPoint { path, id, idmapped, kind, device, overlays, read_only };
        match seen.get(&point.path) {
            Some(&at) => points[at] = point,
            None => {
                seen.insert(point.path.clone(), points.len());
                points.push(point);
            }
        }
    }
    points
}

/// The mount in which a path is.
fn mount_of<'a>(points: &'a [MountPoint], path: &Path) -> Option<&'a MountPoint> {
    points.iter().filter(|p| path.starts_with(&p.path)).max_by_key(|p| p.path.as_os_str().len())
}

/// The host's mounts, read again only when they changed: a host with thousands of them pays once, not at each start. The
/// kernel marks the open file when the table changes (proc(5): poll gives POLLERR | POLLPRI).
pub(super) fn mount_points() -> Result<Arc<Vec<MountPoint>>> {
    struct Cache {
        owner: super::fork::Owner,
        file: fs::File,
        points: Arc<Vec<MountPoint>>,
    }
    static CACHE: Mutex<Option<Cache>> = Mutex::new(None);
    let mut cache = CACHE.lock().unwrap_or_else(|e| e.into_inner());
    let fresh = cache.as_ref().is_some_and(|cache| {
        use std::os::fd::AsRawFd;
        let mut poll = [libc::pollfd { fd: cache.file.as_raw_fd(), events: libc::POLLPRI, revents: 0 }];
        // SAFETY: one entry.
        cache.owner.is_this() && unsafe { libc::poll(poll.as_mut_ptr(), 1, 0) } == 0
    });
    if !fresh {
        use std::io::{Read, Seek};
        let path = "/proc/self/mountinfo";
        let open = || fs::File::open(path).map_err(|e| Error::io("open", &e).with_path(path));
        let mut file = match cache.take().filter(|c| c.owner.is_this()) {
            Some(cache) => cache.file,
            None => open()?,
        };
        let mut text = Vec::new();
        file.rewind().and_then(|()| file.read_to_end(&mut text)).map_err(|e| Error::io("read", &e).with_path(path))?;
        let points = Arc::new(parse_mountinfo(&String::from_utf8_lossy(&text)));
        *cache = Some(Cache { owner: super::fork::Owner::this(), file, points });
    }
    Ok(cache.as_ref().expect("just made").points.clone())
}

/// Directories of the host that `rootfs: host` hides, and the mode of what is there instead.
const HIDDEN: [(&str, u32); 5] =
    [("/home", 0o755), ("/root", 0o700), ("/run", 0o755), ("/tmp", 0o1777), ("/var/tmp", 0o1777)];

/// Where they really are: on some distributions /home is a link to var/home. A link that leads nowhere hides nothing.
fn hidden(asked: &[(&str, u32)]) -> Vec<(PathBuf, u32)> {
    let mut found: Vec<(PathBuf, u32)> = Vec::new();
    for &(path, mode) in asked {
        let path = match fs::canonicalize(path) {
            Ok(real) if real == Path::new("/") => continue,
            Ok(real) => real,
            Err(_) if fs::symlink_metadata(path).is_ok() => continue,
            Err(_) => path.into(),
        };
        if !found.iter().any(|(known, _)| *known == path) {
            found.push((path, mode));
        }
    }
    // One may be below another: that comes later.
    found.sort_by_key(|(path, _)| path.components().count());
    found
}

fn is_below(path: &Path, hidden: &[(PathBuf, u32)]) -> bool {
    hidden.iter().any(|(dir, _)| path.starts_with(dir))
        || COVERED.iter().any(|dir| path.starts_with(Path::new("/").join(dir)))
}

/// Directories with mounts below them are gone through entry by entry, up to this many layers; what is beyond is left out.
const MOST_LAYERS: usize = 48;

struct HostTree {
    entries: Vec<HostEntry>,
    left_out: Vec<PathBuf>,
    /// The most overlays, one on the other, of what is a layer now.
    stacked: u32,
}

/// What is known of `/`, read again only when it changed.
#[derive(Clone)]
struct Top {
    hidden: Vec<(PathBuf, u32)>,
    /// The directories that are shown.
    shown: Vec<String>,
}

fn top() -> Result<Arc<Top>> {
    type Stamp = (u64, u64, i64, i64);
    static CACHE: Mutex<Option<(Stamp, Arc<Top>)>> = Mutex::new(None);
    let failed = |e: std::io::Error| Error::io("read", &e).with_path("/");
    let meta = fs::metadata("/").map_err(failed)?;
    let stamp = (meta.dev(), meta.ino(), meta.mtime(), meta.mtime_nsec());
    let mut cache = CACHE.lock().unwrap_or_else(|e| e.into_inner());
    if let Some((seen, top)) = &*cache
        && *seen == stamp
    {
        return Ok(top.clone());
    }
    let hidden = hidden(&HIDDEN);
    let mut shown: Vec<String> = fs::read_dir("/")
        .map_err(failed)?
        .flatten()
        .filter(|entry| entry.file_type().is_ok_and(|t| t.is_dir()))
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| name != "lost+found" && !is_below(&Path::new("/").join(name), &hidden))
        .collect();
    shown.sort();
    let top = Arc::new(Top { hidden, shown });
    *cache = Some((stamp, top.clone()));
    Ok(top)
}

fn is_layer(entry: &HostEntry) -> bool {
    matches!(entry, HostEntry::Overlay(_) | HostEntry::Mount(_))
}

/// What can be a layer, or what it is instead. The kernel stacks two overlays, so that the third container in a container has to
/// share the tree that the second one sees. A read-only one can be shared: nobody who cannot change its mounts can have put a
/// socket there, by which the containers could speak.
fn layer(entry: HostEntry, path: &Path, points: &[MountPoint], readonly: bool, most: &mut u32) -> Result<HostEntry> {
    let Some(mount) = mount_of(points, path) else { return Ok(entry) };
    if mount.overlays < MOST_OVERLAYS {
        *most = mount.overlays.max(*most);
        return Ok(entry);
    }
    if readonly && mount.read_only {
        return Ok(HostEntry::Bind(path.to_owned()));
    }
    Err(Error::new(
        ErrorKind::Unsupported,
        format!("{} is an overlay on an overlay already, and the kernel stacks two", path.display()),
    )
    .with_field("rootfs")
    .with_errno(libc::EINVAL)
    .with_path(path.to_string_lossy())
    .with_hint(
        "with {\"readonly\": true} in the rootfs of this container, and of the one that this program runs in, they share it; \
         or give a directory",
    ))
}

fn host_tree(privileged: bool, readonly: bool, top: &Top) -> Result<HostTree> {
    let points = mount_points()?;
    let mut tree = HostTree { entries: Vec::new(), left_out: Vec::new(), stacked: 0 };
    let is_hidden = |path: &Path| is_below(path, &top.hidden);
    let below = |dir: &Path| points.iter().any(|p| p.path != dir && p.path.starts_with(dir) && !is_hidden(&p.path));
    let any_below = |dir: &Path| points.iter().any(|p| p.path != dir && p.path.starts_with(dir));
    if privileged {
        tree.stacked = mount_of(&points, Path::new("/")).map_or(0, |mount| mount.overlays);
        tree.entries.push(HostEntry::Overlay("/".into()));
        for point in points.iter().filter(|p| p.path != Path::new("/") && !is_hidden(&p.path)) {
            if !point.path.is_dir() || tree.entries.len() >= MOST_LAYERS {
                tree.left_out.push(point.path.clone());
            } else {
                tree.entries.push(HostEntry::Mount(point.path.clone()));
            }
        }
        return Ok(tree);
    }
    let mut pending = vec![PathBuf::from("/")];
    while let Some(dir) = pending.pop() {
        let Ok(read) = fs::read_dir(&dir) else {
            tree.left_out.push(dir);
            continue;
        };
        let mut entries: Vec<_> = read.flatten().collect();
        entries.sort_by_key(|e| e.file_name());
        for entry in entries {
            let path = entry.path();
            let Ok(kind) = entry.file_type() else { continue };
            let top_hidden = is_hidden(&path);
            if kind.is_symlink() {
                if let Ok(target) = fs::read_link(&path) {
                    tree.entries.push(HostEntry::Symlink(path, target));
                }
            } else if !kind.is_dir() {
                // A file beside a mount: it could be a socket or a FIFO as well, which a bind would open to the container.
                tree.left_out.push(path);
            } else if top_hidden {
                continue;
            } else if any_below(&path) {
                tree.entries.push(HostEntry::Dir(path.clone()));
                if below(&path) || top.hidden.iter().any(|(dir, _)| dir.starts_with(&path)) {
                    pending.push(path);
                } else {
                    tree.left_out.push(path);
                }
            } else if tree.entries.iter().filter(|e| is_layer(e)).count() >= MOST_LAYERS {
                tree.left_out.push(path);
            } else if fs::read_dir(&path).is_ok_and(|mut d| d.next().is_none()) {
                tree.entries.push(HostEntry::Dir(path));
            } else if nix::unistd::access(&path, nix::unistd::AccessFlags::X_OK).is_err() {
                tree.left_out.push(path);
            } else {
                let mounted = points.iter().any(|point| point.path == path);
                let entry = if mounted { HostEntry::Mount } else { HostEntry::Overlay }(path.clone());
                tree.entries.push(layer(entry, &path, &points, readonly, &mut tree.stacked)?);
            }
        }
    }
    Ok(tree)
}

/// Which of the customary masked and read-only paths this kernel has, and which of them are directories.
fn known_paths() -> &'static [(PathBuf, Option<bool>)] {
    static KNOWN: OnceCell<Vec<(PathBuf, Option<bool>)>> = OnceCell::new();
    KNOWN.get_or_init(|| {
        // A host whose own /proc is masked shows less than a fresh one: then nothing is known, and all are looked up inside.
        if !Path::new("/proc/sys").is_dir() || !Path::new("/proc/bus").exists() {
            return Vec::new();
        }
        Spec::MASKED_PATHS
            .iter()
            .chain(&Spec::READONLY_PATHS)
            .map(|path| (PathBuf::from(path), fs::metadata(path).ok().map(|m| m.is_dir())))
            .filter(|(path, directory)| directory.is_some() || path.starts_with("/proc"))
            .collect()
    })
}

/// Counters of when each processor was too hot, which tell what others compute (GHSA-6fw5-f8r9-fgfm). Intel's processors have
/// them, virtual ones do not.
fn throttles() -> &'static [PathBuf] {
    static FOUND: OnceCell<Vec<PathBuf>> = OnceCell::new();
    FOUND.get_or_init(|| {
        let processors = fs::read_dir("/sys/devices/system/cpu").into_iter().flatten().flatten();
        let numbered = processors.filter(|entry| {
            let name = entry.file_name();
            let number = name.to_str().and_then(|name| name.strip_prefix("cpu"));
            number.is_some_and(|number| !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit()))
        });
        let mut found: Vec<_> =
            numbered.map(|entry| entry.path().join("thermal_throttle")).filter(|path| path.is_dir()).collect();
        found.sort();
        found
    })
}

/// A path that is in no sysfs of this kernel now: the host's own sysfs, with nothing mounted over the parent, lacks it.
fn is_no_device(path: &Path) -> bool {
    use nix::sys::statfs::{SYSFS_MAGIC, statfs};
    let in_sysfs = |dir: &Path| statfs(dir).is_ok_and(|found| found.filesystem_type() == SYSFS_MAGIC);
    path.parent().is_some_and(in_sysfs)
        && fs::symlink_metadata(path).is_err_and(|e| e.kind() == std::io::ErrorKind::NotFound)
}

// --- ids ---

/// What was chosen for the user namespace.
pub(crate) struct IdChoice {
    pub maps: Option<IdMaps>,
    pub claims: Vec<IdClaim>,
    pub detached_claims: Option<std::os::fd::OwnedFd>,
    /// For `info`.
    pub mode: &'static str,
    pub why: Option<String>,
}

fn line(ranges: &[(u32, u32, u32)]) -> String {
    ranges.iter().map(|(inside, outside, count)| format!("{inside} {outside} {count}\n")).collect()
}

/// For privileged callers, in ids of the host.
fn privileged_ids(spec: &Spec) -> Result<IdChoice> {
    let mut choice = IdChoice { maps: None, claims: Vec::new(), detached_claims: None, mode: "host", why: None };
    let (uid, gid) = match &spec.idmap {
        Idmap::Host => return Ok(choice),
        Idmap::KeepId => {
            return Err(Error::new(ErrorKind::Unsupported, "keep-id is for ordinary callers")
                .with_field("idmap")
                .with_hint("a caller with CAP_SYS_ADMIN gives an explicit map, or `host`"));
        }
        Idmap::Auto => {
            const COUNT: u32 = 65_536;
            let start = if spec.detach {
                let (claim, fd) = ids::claim_detached(COUNT)?;
                choice.detached_claims = Some(fd);
                let start = claim.start;
                choice.claims.push(claim);
                start
            } else {
                let claim = ids::claim_range(COUNT)?;
                let start = claim.start;
                choice.claims.push(claim);
                start
            };
            choice.mode = "auto";
            let map = line(&[(0, start, COUNT)]);
            (map.clone(), map)
        }
        Idmap::Explicit { uid, gid } => {
            choice.mode = "explicit";
            let text =
                |ranges: &[IdRange]| line(&ranges.iter().map(|r| (r.inside, r.outside, r.count)).collect::<Vec<_>>());
            (text(uid), text(gid))
        }
    };
    choice.maps = Some(IdMaps { uid, gid, deny_setgroups: false, idmapped_mounts: true });
    Ok(choice)
}

/// For ordinary callers, in ids of the outer namespace: 0 is the caller, 1 and up are sub-ids.
fn ordinary_ids(spec: &Spec, outer: &Outer) -> Result<IdChoice> {
    let mut choice =
        IdChoice { maps: None, claims: Vec::new(), detached_claims: None, mode: "auto", why: outer.why.clone() };
    let pool = outer.pool();
    let single = pool == 0;
    let mut claim = || -> Result<Option<(u32, u32)>> {
        if single {
            return Ok(None);
        }
        let claim = if spec.detach {
            let (claim, fd) = ids::claim_within_detached(pool)?;
            choice.detached_claims = Some(fd);
            claim
        } else {
            ids::claim_within(pool)?
        };
        let range = (claim.start, claim.count);
        choice.claims.push(claim);
        Ok(Some(range))
    };
    let (uid, gid) = match &spec.idmap {
        Idmap::Host => {
            return Err(Error::new(ErrorKind::PermissionDenied, "an ordinary caller needs a user namespace")
                .with_field("idmap")
                .with_errno(libc::EPERM)
                .with_hint("leave idmap at `auto`, or run with CAP_SYS_ADMIN"));
        }
        Idmap::Auto => {
            let map = match claim() {
                Ok(Some((start, count))) => line(&with_nobody(start, count)),
                Ok(None) => line(&[(0, 0, 1)]),
                // The other containers of this user have all of them: a single id is what is left, and the handle tells. Who
                // asks for other users cannot do with that.
                Err(error) if error.kind() == ErrorKind::Exhausted && spec.user.is_none() && spec.groups.is_empty() => {
                    choice.mode = "single";
                    choice.why = Some(error.to_string());
                    line(&[(0, 0, 1)])
                }
                Err(error) => return Err(error),
            };
            (map.clone(), map)
        }
        Idmap::KeepId => {
            choice.mode = "keep-id";
            let range = claim()?;
            let map = |id: u32| match range {
                None => line(&[(id, 0, 1)]),
                Some((start, count)) => {
                    // The caller keeps its id; the others are around it.
                    let before = id.min(count);
                    let mut ranges = vec![(id, 0, 1)];
                    if before > 0 {
                        ranges.push((0, start, before));
                    }
                    if count > before {
                        ranges.push((id + 1, start + before, count - before));
                    }
                    line(&ranges)
                }
            };
            (map(outer.uid), map(outer.gid))
        }
        Idmap::Explicit { uid, gid } => {
            choice.mode = "explicit";
            (translate(uid, "idmap.uid", outer.uid, &outer.uids)?, translate(gid, "idmap.gid", outer.gid, &outer.gids)?)
        }
    };
    if single && spec.idmap == Idmap::Auto {
        choice.mode = "single";
    }
    choice.maps = Some(IdMaps { uid, gid, deny_setgroups: single, idmapped_mounts: false });
    Ok(choice)
}

/// 0 is the caller, then the range; nobody (65534), which every distribution's files and tools expect, is its last id.
fn with_nobody(start: u32, count: u32) -> Vec<(u32, u32, u32)> {
    const NOBODY: u32 = 65_534;
    if !(2..=NOBODY).contains(&count) {
        return vec![(0, 0, 1), (1, start, count)];
    }
    vec![(0, 0, 1), (1, start, count - 1), (NOBODY, start + count - 1, 1)]
}

/// Host ids to ids of the outer namespace.
fn translate(ranges: &[IdRange], field: &str, own: u32, sub: &[(u32, u32)]) -> Result<String> {
    let mut out = Vec::new();
    for (i, range) in ranges.iter().enumerate() {
        if range.outside == own && range.count == 1 {
            out.push((range.inside, 0, 1));
            continue;
        }
        let mut inside_outer = 1u32;
        let found = sub.iter().find_map(|&(start, count)| {
            let fits = range.outside >= start
                && u64::from(range.outside) + u64::from(range.count) <= u64::from(start) + u64::from(count);
            let here = inside_outer.wrapping_add(range.outside.wrapping_sub(start));
            inside_outer = inside_outer.saturating_add(count);
            fits.then_some(here)
        });
        match found {
            Some(outside) => out.push((range.inside, outside, range.count)),
            None => {
                return Err(Error::new(
                    ErrorKind::PermissionDenied,
                    format!("{} ids from {} are not the caller's", range.count, range.outside),
                )
                .with_field(format!("{field}[{i}]"))
                .with_errno(libc::EPERM)
                .with_hint("an ordinary caller may map its own id and its ranges in /etc/subuid and /etc/subgid"));
            }
        }
    }
    Ok(line(&out))
}

/// The maps that a start would have, with nothing claimed.
pub(crate) fn prospective_maps(spec: &Spec, outer: Option<&Outer>) -> Result<Option<IdMaps>> {
    const POOL_START: u32 = 524_288;
    let shown = Spec {
        idmap: match (&spec.idmap, outer) {
            (Idmap::Auto, None) => {
                let range = IdRange { inside: 0, outside: POOL_START, count: 65_536 };
                Idmap::Explicit { uid: vec![range], gid: vec![range] }
            }
            (other, _) => other.clone(),
        },
        ..spec.clone()
    };
    // An ordinary caller's claim is given back at once.
    choose_ids(&shown, outer).map(|choice| choice.maps)
}

/// `outer`: what an ordinary user's keeper has; `None` for a privileged one.
pub(crate) fn choose_ids(spec: &Spec, outer: Option<&Outer>) -> Result<IdChoice> {
    match (namespace_source(spec, NamespaceKind::User), outer) {
        (NamespaceSource::New, None) => privileged_ids(spec),
        (NamespaceSource::New, Some(outer)) => ordinary_ids(spec, outer),
        (NamespaceSource::Host, Some(outer)) => ordinary_ids(&Spec { idmap: Idmap::Host, ..spec.clone() }, outer),
        (source, _) => {
            let mode = if source == NamespaceSource::Host { "host" } else { "joined" };
            Ok(IdChoice { maps: None, claims: Vec::new(), detached_claims: None, mode, why: None })
        }
    }
}

// --- users ---

/// A container's own user and group files.
pub(crate) trait UserFiles {
    fn passwd(&self) -> Option<Vec<u8>>;
    fn group(&self) -> Option<Vec<u8>>;
}

/// The files as a container that is not yet there will have them: given by `files`, mounted, or its root's.
struct SpecFiles<'a>(&'a Spec);

impl SpecFiles<'_> {
    fn read(&self, path: &str) -> Option<Vec<u8>> {
        let target = Path::new(path);
        if let Some(file) = self.0.files.get(target) {
            return Some(file.data.clone());
        }
        for mount in self.0.mounts.iter().rev() {
            if let (MountKind::Bind { source: BindSource::Path(source), .. }, Ok(rest)) =
                (&mount.kind, target.strip_prefix(&mount.target))
            {
                let source = if rest.as_os_str().is_empty() { source.clone() } else { source.join(rest) };
                return fs::read(source).ok();
            }
        }
        match &self.0.rootfs.kind {
            RootfsKind::Host | RootfsKind::HostOwned => fs::read(target).ok(),
            RootfsKind::Directory(dir) => read_in(dir, target),
            RootfsKind::Layers { lower, upper } => {
                let upper = upper.as_ref().map(|u| u.join("upper"));
                upper.iter().chain(lower).find_map(|dir| read_in(dir, target))
            }
        }
    }
}

impl UserFiles for SpecFiles<'_> {
    fn passwd(&self) -> Option<Vec<u8>> {
        self.read("/etc/passwd")
    }
    fn group(&self) -> Option<Vec<u8>> {
        self.read("/etc/group")
    }
}

/// Below an image's root: its symlinks lead nowhere else.
fn read_in(root: &Path, path: &Path) -> Option<Vec<u8>> {
    use nix::fcntl::{OFlag, OpenHow, ResolveFlag, open, openat2};
    use std::io::Read;
    let root = open(root, OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, nix::sys::stat::Mode::empty()).ok()?;
    let how = OpenHow::new()
        .flags(OFlag::O_RDONLY | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK)
        .resolve(ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS);
    // Of a path with `..`, EAGAIN says that something was renamed or mounted meanwhile, anywhere.
    let mut tries = (0..128)
        .map(|_| openat2(&root, path, how))
        .skip_while(|made| made.as_ref().err() == Some(&nix::errno::Errno::EAGAIN));
    let file = fs::File::from(tries.next()?.ok()?);
    let mut bytes = Vec::new();
    file.take(16 << 20).read_to_end(&mut bytes).ok()?;
    Some(bytes)
}

fn field(line: &[u8], index: usize) -> Option<&[u8]> {
    line.split(|&b| b == b':').nth(index)
}

/// An image's own files are read as strictly as a spec: 4294967295 is -1, which setresuid(2) takes for "leave as it is".
fn number(bytes: &[u8]) -> Option<u32> {
    match IdOrName::parse(std::str::from_utf8(bytes).ok()?) {
        Ok(IdOrName::Id(id)) => Some(id),
        _ => None,
    }
}

/// (credentials, home directory)
pub(crate) fn resolve_user(
    user: Option<&str>,
    groups: &[String],
    default: (u32, u32),
    files: &dyn UserFiles,
) -> Result<(Credentials, OsString)> {
    let mut passwd = None;
    let mut group_file = None;
    let mut passwd_lines = || passwd.get_or_insert_with(|| files.passwd().unwrap_or_default()).clone();
    let mut group_lines = || group_file.get_or_insert_with(|| files.group().unwrap_or_default()).clone();
    let unknown = |what: &str, name: &str, field: &str| {
        Error::new(ErrorKind::NotFound, format!("{name:?} is not in the container's /etc/{what}"))
            .with_field(field.to_owned())
            .with_errno(libc::ENOENT)
            .with_hint("an id needs no entry")
    };
    let mut find_group = |group: &IdOrName, field_name: &str| match group {
        IdOrName::Id(id) => Ok(*id),
        IdOrName::Name(name) => group_lines()
            .split(|&b| b == b'\n')
            .find(|line| field(line, 0) == Some(name.as_bytes()))
            .and_then(|line| number(field(line, 2)?))
            .ok_or_else(|| unknown("group", name, field_name)),
    };
    let Some(user) = user else {
        let mut list = Vec::new();
        for (i, group) in groups.iter().enumerate() {
            let name = format!("groups[{i}]");
            let parsed = IdOrName::parse(group).map_err(|e| Error::spec(name.clone(), e))?;
            list.push(find_group(&parsed, &name)?);
        }
        let home = if default.0 == 0 { "/root".into() } else { "/".into() };
        return Ok((Credentials { uid: default.0, gid: default.1, groups: list }, home));
    };
    let parsed = UserSpec::parse(user).map_err(|e| Error::spec("user", e))?;
    let text = passwd_lines();
    let entry = text.split(|&b| b == b'\n').find(|line| match &parsed.user {
        IdOrName::Name(name) => field(line, 0) == Some(name.as_bytes()),
        IdOrName::Id(id) => field(line, 2).and_then(number) == Some(*id),
    });
    let uid = match (&parsed.user, entry) {
        (IdOrName::Id(id), _) => *id,
        (IdOrName::Name(name), entry) => {
            entry.and_then(|line| number(field(line, 2)?)).ok_or_else(|| unknown("passwd", name, "user"))?
        }
    };
    let gid = match (&parsed.group, entry) {
        (Some(group), _) => find_group(group, "user")?,
        (None, None) => 0,
        (None, Some(line)) => field(line, 3).and_then(number).ok_or_else(|| {
            Error::new(ErrorKind::InvalidSpec, "its line in the container's /etc/passwd has no valid group id")
                .with_field("user")
                .with_errno(libc::EINVAL)
        })?,
    };
    let home = entry
        .and_then(|line| field(line, 5))
        .filter(|home| home.starts_with(b"/"))
        .map_or_else(|| if uid == 0 { "/root".into() } else { "/".into() }, |home| OsString::from_vec(home.to_vec()));
    let mut list = Vec::new();
    for (i, group) in groups.iter().enumerate() {
        let name = format!("groups[{i}]");
        let parsed = IdOrName::parse(group).map_err(|e| Error::spec(name.clone(), e))?;
        list.push(find_group(&parsed, &name)?);
    }
    Ok((Credentials { uid, gid, groups: list }, home))
}

/// The ids of a payload whose spec names none: root inside, which for an ordinary caller is the caller; with `keep-id` the
/// caller's own.
pub(crate) fn default_ids(spec: &Spec, outer: Option<&Outer>) -> (u32, u32) {
    match (&spec.idmap, outer) {
        (Idmap::KeepId, Some(outer)) => (outer.uid, outer.gid),
        _ => (0, 0),
    }
}

/// Who divides the container's groups: its root, as this process calls it. An ordinary caller's is the caller itself, who has
/// them already.
pub(crate) fn heir(facts: &Facts, outer: Option<&Outer>) -> Result<Option<Heir>> {
    let (uid, gid) = facts.root;
    let maps = facts.idmaps.as_ref();
    // What protects the settings of the machine in a whole /proc is that nobody inside has its root's id.
    if outer.is_none()
        && let Some(maps) = maps
        && [&maps.uid, &maps.gid].iter().any(|map| IdMaps::has_outside(map, 0))
    {
        return Err(Error::new(
            ErrorKind::InvalidSpec,
            "the host's id 0 is mapped: its owner inside could change the machine by /proc",
        )
        .with_field("nesting")
        .with_errno(libc::EINVAL)
        .with_hint("leave id 0 of the host out of idmap, or leave out nesting"));
    }
    let outside = |map: fn(&IdMaps) -> &str, id| maps.map_or(Some(id), |maps| IdMaps::outside(map(maps), id));
    match (outside(|m| &m.uid, uid), outside(|m| &m.gid, gid), outer) {
        (Some(uid), Some(gid), None) => Ok(Some(Heir { uid, gid })),
        // In the keeper's user namespace.
        (Some(0), _, Some(outer)) => Ok(Some(Heir { uid: outer.uid, gid: outer.gid })),
        _ => Err(Error::new(
            ErrorKind::Unsupported,
            "there is no root inside to have its control groups: it is not mapped, or not to the caller",
        )
        .with_field("nesting")
        .with_hint("map the id 0 inside (an ordinary caller to itself), or leave out idmap")),
    }
}

/// Who sets a container up: root inside; where there is a single id (and so no setgroups(2)), that one.
pub(crate) fn root_ids(may_setgroups: bool, default: (u32, u32)) -> (u32, u32) {
    if may_setgroups { (0, 0) } else { default }
}

// --- the caller ---

const RESOURCES: [Resource; 16] = [
    Resource::As,
    Resource::Core,
    Resource::Cpu,
    Resource::Data,
    Resource::Fsize,
    Resource::Locks,
    Resource::Memlock,
    Resource::Msgqueue,
    Resource::Nice,
    Resource::Nofile,
    Resource::Nproc,
    Resource::Rss,
    Resource::Rtprio,
    Resource::Rttime,
    Resource::Sigpending,
    Resource::Stack,
];

/// The filter of a process's system calls.
///
/// # Errors
/// Rules of which none can be made.
pub(crate) fn filter(
    seccomp: &Seccomp,
    capabilities: &Capabilities,
    landlock: &Landlock,
    nesting: bool,
) -> Result<Option<Arc<Program>>> {
    let context = Context {
        native: SeccompArch::NATIVE,
        capabilities: capabilities.bounding,
        kernel: rights::kernel_version(),
        ports: landlock.has_ports(),
    };
    filter::program(seccomp, nesting, context)
}

pub(crate) fn inherited() -> Inherited {
    let rlimits = RESOURCES
        .iter()
        .map(|&resource| {
            let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
            // SAFETY: the kernel writes one rlimit.
            unsafe { libc::getrlimit(resource.number() as _, &raw mut limit) };
            (resource, Rlimit { soft: limit.rlim_cur, hard: limit.rlim_max })
        })
        .collect();
    let mut mask = vec![0u8; 1024];
    // SAFETY: the kernel writes at most the size given.
    let n = unsafe { libc::syscall(libc::SYS_sched_getaffinity, 0, mask.len(), mask.as_mut_ptr()) };
    mask.truncate(n.max(0) as usize);
    // SAFETY: no pointers. The raw call gives 20 - nice, so that an error cannot be confused with a value.
    let nice = 20 - unsafe { libc::syscall(libc::SYS_getpriority, libc::PRIO_PROCESS, 0) } as i32;
    Inherited { rlimits, affinity: mask, nice }
}

/// Programs and paths of `rootfs: host` that are hidden inside although the host has them.
pub(crate) fn hidden_hint(rootfs: &Rootfs, path: &Path) -> Option<String> {
    let host = matches!(rootfs.kind, RootfsKind::Host | RootfsKind::HostOwned);
    let real = fs::canonicalize(path).ok()?;
    let top = top().ok()?;
    let is_hidden = |path: &Path| is_below(path, &top.hidden);
    let shown = if is_hidden(path) { path } else { &real };
    let dir = shown.parent()?;
    (host && is_hidden(shown)).then(|| {
        format!(
            "{shown:?} is below a directory of the host that containers do not see: add mounts: [{:?}]",
            dir.to_string_lossy()
        )
    })
}

/// Everything about the machine and the caller, for one start. `defaults`: the ids that a payload gets when the spec names none.
pub(crate) fn gather(
    spec: &Spec,
    outer: Option<&Outer>,
    maps: Option<IdMaps>,
    defaults: (u32, u32),
) -> Result<(Facts, Vec<PathBuf>)> {
    let privileged = outer.is_none();
    let may_setgroups = !maps.as_ref().is_some_and(|m| m.deny_setgroups);
    let mut facts = Facts { privileged, idmaps: maps, may_setgroups, ..Facts::default() };
    facts.root = root_ids(may_setgroups, defaults);
    let own_root = namespace_source(spec, NamespaceKind::Mnt) == NamespaceSource::New;
    let mut left_out = Vec::new();
    if own_root {
        left_out = root_facts(spec, &mut facts)?;
        mount_facts(spec, &mut facts)?;
        facts.own_nodes = privileged && super::nodes::may_make();
        for (i, device) in spec.devices.iter().enumerate() {
            let ids = outer.map(|outer| (outer.uid, outer.gid));
            let fact = super::nodes::look(&device.path, device.access, ids, facts.own_nodes);
            let shown = device.path.to_string_lossy();
            facts.devices.push(fact.map_err(|e| e.with_field(format!("devices[{i}]")).with_path(shown))?);
        }
    }
    masked_facts(spec, &mut facts);
    facts.keyring = super::confinement::may_take_keyring();
    facts.throttles = throttles().to_vec();
    facts.known_paths.extend(facts.throttles.iter().map(|path| (path.clone(), Some(true))));
    // Of a container without a main process, too: what is wrong shows at the start.
    facts.filter = filter(&spec.seccomp, &spec.capabilities, &spec.landlock, spec.nesting)?;
    let mut uid = None;
    if !spec.argv.is_empty() {
        let (credentials, home) = resolve_user(spec.user.as_deref(), &spec.groups, defaults, &SpecFiles(spec))?;
        if let Some(maps) = &facts.idmaps {
            check_mapped(&credentials, maps, outer.and_then(|outer| outer.why.as_deref()))?;
        }
        uid = Some(credentials.uid);
        facts.credentials = credentials;
        let mut caller = || std::env::vars_os().collect();
        facts.env =
            crate::plan::env::environment(&home, spec.terminal.is_some(), &spec.env_inherit, &mut caller, &spec.env);
        facts.inherited = inherited();
    }
    super::confinement::check_sysctls(spec.sysctls.keys().map(String::as_str))?;
    super::confinement::check_label("mount_label", spec.mount_label.as_deref())?;
    facts.selinux = super::confinement::check(&Confinement::of_spec(spec), &spec.capabilities, spec.no_new_privs, uid)?;
    if own_root && spec.mounts.iter().any(|mount| mount.owner.is_some()) {
        // Of one without a main process: whoever `user` says.
        if spec.argv.is_empty() {
            facts.credentials = resolve_user(spec.user.as_deref(), &[], defaults, &SpecFiles(spec))?.0;
            if let Some(maps) = &facts.idmaps {
                check_mapped(&facts.credentials, maps, outer.and_then(|outer| outer.why.as_deref()))?;
            }
        }
    }
    if own_root {
        let (payload, maps) = (&facts.credentials, facts.idmaps.as_ref());
        let container = super::idmap::Container { spec, payload, maps, outer };
        let (of_mounts, of_root) = (container.mounts(&facts.mount_paths)?, container.root()?);
        (facts.mount_ids, facts.root_ids) = (of_mounts, of_root);
    }
    Ok((facts, left_out))
}

/// What is seen of the root; the paths of the host that are left out of it.
fn root_facts(spec: &Spec, facts: &mut Facts) -> Result<Vec<PathBuf>> {
    let privileged = facts.privileged;
    match &spec.rootfs.kind {
        RootfsKind::Host | RootfsKind::HostOwned => {
            if spec.rootfs.kind == RootfsKind::HostOwned && !privileged {
                return Err(Error::new(ErrorKind::PermissionDenied, "host:owned needs idmapped mounts")
                    .with_field("rootfs")
                    .with_errno(libc::EPERM)
                    .with_hint("they need CAP_SYS_ADMIN; use \"host\", or an image of the caller's own"));
            }
            let top = top()?;
            let tree = host_tree(privileged, spec.rootfs.readonly, &top)?;
            facts.host = tree.entries;
            facts.stacked = tree.stacked;
            facts.hidden = top.hidden.clone();
            facts.host_top = if privileged { top.shown.clone() } else { Vec::new() };
            return Ok(tree.left_out);
        }
        RootfsKind::Directory(path) => check_directory("rootfs", path)?,
        RootfsKind::Layers { lower, upper } => {
            let points = if spec.nesting { mount_points()? } else { Arc::default() };
            for (i, path) in lower.iter().enumerate() {
                check_directory(&format!("rootfs.lower[{i}]"), path)?;
                facts.stacked = facts.stacked.max(mount_of(&points, path).map_or(0, |mount| mount.overlays));
            }
            if let Some(path) = upper {
                check_directory("rootfs.upper", path)?;
            }
        }
    }
    Ok(Vec::new())
}

/// What is to be mounted: directory or not, and the paths by which it is found.
fn mount_facts(spec: &Spec, facts: &mut Facts) -> Result<()> {
    for (i, mount) in spec.mounts.iter().enumerate() {
        let (mut is_dir, mut path) = (true, None);
        if mount.kind == MountKind::Cgroup && namespace_source(spec, NamespaceKind::Cgroup) != NamespaceSource::New {
            facts.group_options = crate::cgroup::tree_options()?;
        }
        if let MountKind::Bind { source, .. } = &mount.kind {
            let field = format!("mounts[{i}]");
            match source {
                BindSource::Path(source) => {
                    let meta = fs::metadata(source).map_err(|e| {
                        Error::io("open_tree", &e).with_field(field.clone()).with_path(source.to_string_lossy())
                    })?;
                    is_dir = meta.is_dir();
                    // An absolute, real path: the child's working directory is not the caller's.
                    if !source.is_absolute() {
                        path = Some(absolute(source, &field)?);
                    }
                }
                BindSource::Fd(fd) => {
                    is_dir = fd_is_dir(*fd).map_err(|e| e.with_field(field.clone()))?;
                    let link = format!("/proc/self/fd/{fd}");
                    path = Some(fs::read_link(&link).map_err(|e| Error::io("readlink", &e).with_field(field))?);
                }
            }
        }
        if let MountKind::Volume { name } = &mount.kind {
            path = Some(crate::volume::path(name.as_deref()).map_err(|e| e.with_field(format!("mounts[{i}]")))?);
        }
        facts.mount_is_dir.push(is_dir);
        facts.mount_paths.push(path);
    }
    Ok(())
}

/// Which of the paths that are hidden or read-only unless a spec says otherwise are there.
fn masked_facts(spec: &Spec, facts: &mut Facts) {
    if spec.masked_paths.is_none() || spec.readonly_paths.is_none() {
        facts.known_paths = known_paths().to_vec();
        // Devices come and go, so these are asked for each time. A clone made in vain costs a grace period of the kernel.
        let absent = Spec::MASKED_PATHS.iter().map(PathBuf::from).filter(|path| {
            path.starts_with("/sys") && !facts.known_paths.iter().any(|(known, _)| known == path) && is_no_device(path)
        });
        let absent: Vec<_> = absent.map(|path| (path, None)).collect();
        facts.known_paths.extend(absent);
    }
}

/// setresgid would say EINVAL.
fn check_mapped(credentials: &Credentials, maps: &IdMaps, why: Option<&str>) -> Result<()> {
    let refuse = |field: &str, id: u32| {
        let error = Error::new(ErrorKind::PermissionDenied, format!("id {id} has no id of the host behind it"))
            .with_field(field)
            .with_errno(libc::EINVAL);
        match why {
            Some(why) => error.with_hint(format!("the container has a single id: {why}")),
            None => error.with_hint("the container's ids are those of idmap"),
        }
    };
    if !maps.has_uid(credentials.uid) {
        return Err(refuse("user", credentials.uid));
    }
    if !maps.has_gid(credentials.gid) {
        return Err(refuse("user", credentials.gid));
    }
    match credentials.groups.iter().position(|&gid| !maps.has_gid(gid)) {
        Some(i) => Err(refuse(&format!("groups[{i}]"), credentials.groups[i])),
        None => Ok(()),
    }
}

fn absolute(path: &Path, field: &str) -> Result<PathBuf> {
    fs::canonicalize(path).map_err(|e| Error::io("realpath", &e).with_field(field).with_path(path.to_string_lossy()))
}

fn check_directory(field: &str, path: &Path) -> Result<()> {
    let meta = fs::metadata(path)
        .map_err(|e| Error::io("open_tree", &e).with_field(field).with_path(path.to_string_lossy()))?;
    if meta.is_dir() {
        return Ok(());
    }
    Err(Error::os("open_tree", libc::ENOTDIR).with_field(field).with_path(path.to_string_lossy()))
}

fn fd_is_dir(fd: RawFd) -> Result<bool> {
    // SAFETY: all zeroes is a valid stat.
    let mut stat: libc::stat = unsafe { std::mem::zeroed() };
    // SAFETY: the kernel writes one stat.
    if unsafe { libc::fstat(fd, &raw mut stat) } < 0 {
        return Err(Error::io("fstat", &std::io::Error::last_os_error()).with_kind(ErrorKind::InvalidArgument));
    }
    Ok(stat.st_mode & libc::S_IFMT == libc::S_IFDIR)
}

#[cfg(any(fuzzing, test))]
pub(crate) fn fuzz(text: &str) {
    for point in parse_mountinfo(text) {
        let _ = mount_of(&parse_mountinfo(text), &point.path);
    }
    let name = name_of(text, 1000);
    let ids = sub_ids_of(text, 1000, name.as_deref());
    for &(start, count) in &ids {
        with_nobody(start, count);
        let range = IdRange { inside: 0, outside: start, count };
        let _ = translate(&[range], "idmap.uid", 1000, &ids);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mount_points_are_unescaped_and_unique() {
        let text = "22 1 0:20 / /a\\040b rw - ext4 /dev/x rw\n23 1 0:22 / /c ro,nodev,idmapped shared:1 - overlay ringfence-2 rw\n\
                    24 1 0:21 / /a\\040b rw - overlay overlay rw\n";
        let points = parse_mountinfo(text);
        let point = |id, path: &str, overlays, read_only| MountPoint {
            path: path.into(),
            id,
            idmapped: read_only,
            kind: "overlay".into(),
            device: format!("0:{}", if id == 23 { 22 } else { 21 }),
            overlays,
            read_only,
        };
        assert_eq!(points, [point(24, "/a b", 1, false), point(23, "/c", 2, true)]);
        assert_eq!(mount_of(&points, Path::new("/c/d")), Some(&points[1]));
        assert_eq!(mount_of(&points, Path::new("/cd")), None);
    }

    #[test]
    fn what_is_hidden_is_where_the_links_lead() {
        let base = tempfile::tempdir().unwrap();
        let base = fs::canonicalize(base.path()).unwrap();
        fs::create_dir_all(base.join("var/home/root")).unwrap();
        fs::create_dir(base.join("run")).unwrap();
        let link = |to: &str, name: &str| std::os::unix::fs::symlink(to, base.join(name)).unwrap();
        link("home/root", "root");
        link("var/home", "home");
        link("run", "tmp");
        link("nowhere", "gone");
        let names = ["root", "home", "run", "tmp", "gone", "missing"].map(|name| base.join(name));
        let asked: Vec<_> = names.iter().map(|path| (path.to_str().unwrap(), 0o700)).collect();
        let expected = ["run", "missing", "var/home", "var/home/root"].map(|path| (base.join(path), 0o700));
        assert_eq!(hidden(&asked), expected);
        assert!(is_below(&base.join("var/home/x"), &hidden(&asked)));
        assert!(!is_below(&base.join("var/homes"), &hidden(&asked)));
    }

    #[test]
    fn host_ids_become_ids_of_the_outer_namespace() {
        let sub = [(100_000, 65_536), (300_000, 10)];
        let range = |inside, outside, count| IdRange { inside, outside, count };
        assert_eq!(translate(&[range(0, 1000, 1)], "idmap.uid", 1000, &sub).unwrap(), "0 0 1\n");
        assert_eq!(translate(&[range(5, 300_002, 3)], "idmap.uid", 1000, &sub).unwrap(), "5 65539 3\n");
        assert!(translate(&[range(0, 299_999, 1)], "idmap.uid", 1000, &sub).is_err());
        let error = translate(&[range(0, 165_530, 10)], "idmap.uid", 1000, &sub).unwrap_err();
        assert_eq!(error.field(), Some("idmap.uid[0]"));
    }

    #[test]
    fn nobody_is_mapped_in_small_ranges_too() {
        let text = "one:4294967295:65536\none:100000:65536\n1000:7:1\ntwo:9:9\n";
        assert_eq!(sub_ids_of(text, 1000, Some("one")), [(100_000, 65_536), (7, 1)]);
        assert_eq!(with_nobody(1, 1024), [(0, 0, 1), (1, 1, 1023), (65_534, 1024, 1)]);
        assert_eq!(with_nobody(1, 65_535), [(0, 0, 1), (1, 1, 65_535)]);
    }
}
