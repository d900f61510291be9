//! With which ids mounts show the host's files.

use std::ffi::CString;
use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::facts::{MountPoint, mount_points};
use super::keeper::{Keeper, Outer};
use super::request::wait_started;
use super::{Channel, Outcome, Request, Shared};
use crate::error::{Error, ErrorKind, Result};
use crate::plan::builder::{Builder, Compiled, Idmapped};
use crate::plan::container::namespace_source;
use crate::plan::facts::{Credentials, IdMaps};
use crate::plan::idmap::{Below, Ids, MountIds, NoMap, OwnMaps, lent, of_ranges, through};
use crate::proto::{record, request};
use crate::spec::{
    BindSource, IdRange, Mount, MountIdmap, MountKind, MountOwner, NamespaceKind, NamespaceSource, RootfsKind, Spec,
};
use crate::sys::{mount, rights};

/// What mounts are idmapped from: the caller's view of the container's ids.
pub(super) struct Container<'a> {
    pub spec: &'a Spec,
    pub payload: &'a Credentials,
    /// `None`: it has no user namespace of its own, or joins one.
    pub maps: Option<&'a IdMaps>,
    /// What an ordinary caller's keeper has.
    pub outer: Option<&'a Outer>,
}

/// From ids that are seen in a source to ids outside of the container.
struct Wanted {
    uid: String,
    gid: String,
}

impl Container<'_> {
    /// The ids of each entry of `mounts`, whose sources are at these paths.
    pub fn mounts(&self, paths: &[Option<PathBuf>]) -> Result<Vec<MountIds>> {
        let mut all = Vec::new();
        for (i, (mount, path)) in self.spec.mounts.iter().zip(paths).enumerate() {
            let source = match (&mount.kind, path) {
                (MountKind::Bind { source: BindSource::Fd(fd), .. }, _) => format!("/proc/self/fd/{fd}").into(),
                (MountKind::Bind { source: BindSource::Path(path), .. }, None) => path.clone(),
                (MountKind::Bind { .. } | MountKind::Volume { .. }, Some(path)) => path.clone(),
                _ => {
                    all.push(MountIds::default());
                    continue;
                }
            };
            let field = match (&mount.owner, &mount.idmap) {
                (Some(_), _) => format!("mounts[{i}].owner"),
                (None, Some(_)) => format!("mounts[{i}].idmap"),
                (None, None) => format!("mounts[{i}]"),
            };
            let found = match (&mount.owner, &mount.idmap) {
                (Some(MountOwner::Payload), _) => self.of_payload(mount, &source),
                (None, idmap) => self.wanted(idmap.as_ref(), &field).map_err(|e| e.with_path(source.to_string_lossy())),
            };
            let recursive = (matches!(mount.kind, MountKind::Bind { recursive: true, .. }), mount.idmap_recursive);
            let shown = source_shown(mount, &source);
            let found = found.and_then(|found| self.through_source(found, &source, recursive, &field));
            all.push(found.map_err(|e| if e.field().is_some() { e } else { e.with_field(&*field).with_path(shown) })?);
        }
        Ok(all)
    }

    /// Those of the directory that is the root file system, or of its layers.
    pub fn root(&self) -> Result<Vec<MountIds>> {
        let rootfs = &self.spec.rootfs;
        let (paths, recursive): (Vec<_>, _) = match &rootfs.kind {
            RootfsKind::Host | RootfsKind::HostOwned => return Ok(Vec::new()),
            RootfsKind::Directory(path) => (vec![path], true),
            RootfsKind::Layers { lower, upper } => (lower.iter().chain(upper).collect(), false),
        };
        let field = if rootfs.idmap.is_some() { "rootfs.idmap" } else { "rootfs" };
        let one = |path: &PathBuf| {
            let wanted = self.wanted(rootfs.idmap.as_ref(), field)?;
            self.through_source(wanted, path, (recursive, true), field)
        };
        let shown = |e: Error, path: &Path| {
            if e.field().is_some() { e } else { e.with_field(field).with_path(path.to_string_lossy()) }
        };
        paths.into_iter().map(|path| one(path).map_err(|e| shown(e, path))).collect()
    }

    fn joins_foreign(&self) -> bool {
        self.maps.is_none() && namespace_source(self.spec, NamespaceKind::User) != NamespaceSource::Host
    }

    /// The container's map, in ids of the keeper.
    fn of_container(&self) -> Wanted {
        let all = |file: &str| {
            let ranges = rights::id_map(file);
            ranges.into_iter().map(|(first, _, count)| format!("{first} {first} {count}\n")).collect::<String>()
        };
        match self.maps {
            Some(maps) => Wanted { uid: maps.uid.clone(), gid: maps.gid.clone() },
            None => Wanted { uid: all("uid_map"), gid: all("gid_map") },
        }
    }

    /// What `idmap` says. `Err` of the inner result: there is nothing to map.
    fn wanted(&self, idmap: Option<&MountIdmap>, field: &str) -> Result<std::result::Result<Wanted, Ids>> {
        let explicit = match idmap {
            None => {
                return Ok(if self.outer.is_none() && self.maps.is_some() {
                    Ok(self.of_container())
                } else {
                    Err(Ids::Container)
                });
            }
            Some(MountIdmap::Host) => return Ok(Err(Ids::Host)),
            Some(MountIdmap::Container) => None,
            Some(MountIdmap::Explicit { uid, gid }) => Some((uid, gid)),
        };
        if self.joins_foreign() {
            return Err(foreign("idmap"));
        }
        self.check_may()?;
        let all = self.of_container();
        let Some((uid, gid)) = explicit else {
            // Without a user namespace its ids are the host's.
            return Ok(if self.maps.is_some() { Ok(all) } else { Err(Ids::Host) });
        };
        let side = |key: &str, ranges: &[IdRange], map: &str| {
            of_ranges(ranges, map).map_err(|why| {
                self.no_map(&why).with_field(match why {
                    NoMap::Unmapped(i, _) => format!("{field}.{key}[{i}]"),
                    NoMap::TooMany(_) => format!("{field}.{key}"),
                })
            })
        };
        Ok(Ok(Wanted { uid: side("uid", uid, &all.uid)?, gid: side("gid", gid, &all.gid)? }))
    }

    fn no_map(&self, why: &NoMap) -> Error {
        match why {
            NoMap::Unmapped(_, id) => {
                let error =
                    Error::new(ErrorKind::PermissionDenied, format!("id {id} inside has no id of the host behind it"))
                        .with_errno(libc::EINVAL);
                match self.outer.and_then(|outer| outer.why.as_deref()) {
                    Some(why) => error.with_hint(format!("the container has a single id: {why}")),
                    None => error.with_hint("ids inside are those of the container's idmap"),
                }
            }
            NoMap::TooMany(count) => {
                Error::new(ErrorKind::InvalidSpec, format!("it comes to {count} ranges; the kernel takes 340"))
                    .with_errno(libc::EINVAL)
                    .with_hint("each range is cut where one of the container's idmap, or of the source's, ends")
            }
        }
    }

    /// Root of a user namespace may idmap what was mounted in it.
    fn may_try(&self) -> bool {
        self.outer.is_none()
            || rights::capabilities() & 1 << rights::CAP_SYS_ADMIN != 0 && !rights::in_initial_user_namespace()
    }

    fn check_may(&self) -> Result<()> {
        if self.may_try() {
            return Ok(());
        }
        Err(Error::new(ErrorKind::PermissionDenied, "an ordinary caller's mounts cannot be idmapped")
            .with_errno(libc::EPERM)
            .with_hint(ORDINARY))
    }

    fn of_payload(&self, mount: &Mount, source: &Path) -> Result<std::result::Result<Wanted, Ids>> {
        if self.joins_foreign() {
            return Err(foreign("owner"));
        }
        let owner = owner(mount, source)?;
        if let Some(outer) = self.outer {
            // The kernel lets an ordinary user idmap no mount of the host's: either the payload is the owner outside already, or there is no
            // way.
            match (of_user(owner, self.payload, self.maps, outer), self.may_try()) {
                (Ok(()), _) => return Ok(Err(Ids::Container)),
                (Err(error), false) => return Err(error),
                (Err(_), true) => {}
            }
        }
        let (all, payload) = (self.of_container(), self.payload);
        if self.outer.is_none() && owner == (payload.uid, payload.gid) {
            return Ok(if self.maps.is_some() { Ok(all) } else { Err(Ids::Host) });
        }
        let found = lent(&all.uid, owner.0, payload.uid).zip(lent(&all.gid, owner.1, payload.gid));
        let (uid, gid) = found.ok_or_else(|| {
            Error::new(ErrorKind::PermissionDenied, "the payload's ids have no ids of the host behind them")
                .with_errno(libc::EINVAL)
        })?;
        Ok(Ok(Wanted { uid, gid }))
    }

    /// The same for what the source, and what is mounted below it, has of its own. `recursive`: what is mounted below comes along;
    /// `mapped`: with the same ids.
    fn through_source(
        &self,
        wanted: std::result::Result<Wanted, Ids>,
        source: &Path,
        (recursive, mapped): (bool, bool),
        field: &str,
    ) -> Result<MountIds> {
        let mut found = MountIds { field: Some(Arc::from(field)), ..MountIds::default() };
        let wanted = match wanted {
            Ok(wanted) => wanted,
            Err(ids) => return Ok(MountIds { ids, ..found }),
        };
        let points = mount_points()?;
        // Most machines have none.
        if !points.iter().any(|point| point.idmapped) {
            found.ids = self.plain(&wanted);
            return Ok(found);
        }
        found.ids = self.of_source(&points, source, &wanted)?;
        if !recursive {
            return Ok(found);
        }
        let below = below(&points, source);
        let as_one = if mapped { !below.iter().any(|(point, _)| point.idmapped) } else { true };
        if found.ids == self.plain(&wanted) && as_one {
            return Ok(found);
        }
        for (point, rest) in below {
            let ids = if mapped { self.of_source(&points, &point.path, &wanted)? } else { Ids::Host };
            found.below.push(Below { path: point.path.clone(), rest, directory: point.path.is_dir(), ids });
        }
        Ok(found)
    }

    /// What there is no map of.
    fn plain(&self, wanted: &Wanted) -> Ids {
        let of_container = |maps: &IdMaps| (&maps.uid, &maps.gid) == (&wanted.uid, &wanted.gid);
        if self.outer.is_none() && self.maps.is_some_and(of_container) {
            return Ids::Container;
        }
        Ids::Own(OwnMaps { uid: wanted.uid.clone(), gid: wanted.gid.clone(), replaces: false })
    }

    fn of_source(&self, points: &[MountPoint], path: &Path, wanted: &Wanted) -> Result<Ids> {
        // A volume may not be there yet.
        let there = path.ancestors().find_map(|path| Some((mount::mount_id(&text(path)?, false).ok()?, text(path)?)));
        let is = |point: &&MountPoint, id: u64| u64::from(point.id) == id;
        let mounted = there.and_then(|(id, text)| Some((points.iter().find(|point| is(point, id))?, text)));
        let Some((_, text)) = mounted.filter(|(point, _)| point.idmapped) else { return Ok(self.plain(wanted)) };
        let shown = |error: Error| error.with_path(path.to_string_lossy());
        let (uids, gids) = mount::maps(&text).map_err(|_| shown(idmapped_already()))?;
        let side = |source: &[(u32, u32, u32)], map: &str| {
            through(source, map).map_err(|why| shown(self.no_map(&why))).and_then(|map| match map.as_str() {
                "" => Err(shown(none_seen(source))),
                _ => Ok(map),
            })
        };
        let (uid, gid) = (side(&uids, &wanted.uid)?, side(&gids, &wanted.gid)?);
        Ok(Ids::Own(OwnMaps { uid, gid, replaces: true }))
    }
}

fn text(path: &Path) -> Option<CString> {
    CString::new(path.as_os_str().as_bytes()).ok()
}

/// What is mounted below a source and can be seen there, and its path from the source on.
fn below<'a>(points: &'a [MountPoint], source: &Path) -> Vec<(&'a MountPoint, PathBuf)> {
    let real = fs::canonicalize(source).unwrap_or_else(|_| source.to_owned());
    let rest = |point: &'a MountPoint| Some((point, point.path.strip_prefix(&real).ok()?.to_owned()));
    let is_seen = |point: &MountPoint| {
        text(&point.path).and_then(|text| mount::mount_id(&text, false).ok()) == Some(u64::from(point.id))
    };
    points.iter().filter_map(rest).filter(|(point, rest)| !rest.as_os_str().is_empty() && is_seen(point)).collect()
}

/// As kernels before 6.15 have it: they neither say with which ids a mount is shown nor show it with others.
fn idmapped_already() -> Error {
    Error::os("mount_setattr MOUNT_ATTR_IDMAP", libc::EPERM).with_kind(ErrorKind::Unsupported).with_hint(
        "it is idmapped already, and other ids on top of that take Linux 6.15: mount a source that is not, or with idmap: host, which leaves \
         its ids as they are",
    )
}

fn none_seen(source: &[(u32, u32, u32)]) -> Error {
    let seen = source.iter().map(|&(_, seen, count)| format!("{count} from {seen} on"));
    let seen = seen.collect::<Vec<_>>().join(", ");
    Error::new(
        ErrorKind::PermissionDenied,
        format!("it is idmapped already and shows ids that the map has none of ({seen})"),
    )
    .with_errno(libc::EINVAL)
    .with_hint("an idmap of its own with these ids outside shows them, idmap: host leaves them as they are")
}

/// Why a mount was not idmapped.
pub(super) fn refusal(one: &Idmapped, errno: i32) -> Error {
    let error =
        Error::os("mount_setattr MOUNT_ATTR_IDMAP", errno).with_field(&*one.field).with_kind(ErrorKind::Unsupported);
    let points = mount_points().unwrap_or_default();
    let id = text(&one.path).and_then(|text| mount::mount_id(&text, false).ok());
    let top = points.iter().find(|point| Some(u64::from(point.id)) == id);
    let all: Vec<_> = top.into_iter().map(|point| (point, PathBuf::new())).collect();
    let all = all.into_iter().chain(if one.recursive { below(&points, &one.path) } else { Vec::new() });
    let own = if one.field.starts_with("rootfs") { "rootfs with idmap: host" } else { "idmap: host for this mount" };
    if let Some((idmapped, _)) = all.clone().find(|(point, _)| {
        point.idmapped && errno == libc::EPERM && one.maps.as_ref().is_none_or(|maps| !maps.replaces)
    }) {
        return idmapped_already().with_field(&*one.field).with_path(idmapped.path.to_string_lossy());
    }
    if errno == libc::EPERM {
        return error.with_kind(ErrorKind::PermissionDenied).with_path(one.path.to_string_lossy()).with_hint(format!(
            "its file system was mounted in another user namespace than the caller's, which takes CAP_SYS_ADMIN there: {own} leaves its ids \
             as they are"
        ));
    }
    // By trying, each file system once.
    let (uid, gid) = (nix::unistd::geteuid().as_raw(), nix::unistd::getegid().as_raw());
    let mut tried = std::collections::BTreeSet::new();
    let refuses = |(point, rest): &(&MountPoint, PathBuf)| {
        let path = if rest.as_os_str().is_empty() { &one.path } else { &point.path };
        tried.insert((point.kind.clone(), point.device.clone()))
            && text(path).is_some_and(|path| crate::sys::probe::idmapped_mount(&path, uid, gid) == Some(errno))
    };
    let Some((point, rest)) = all.clone().find(refuses) else {
        return error.with_path(one.path.to_string_lossy()).with_hint(format!("{own} leaves its ids as they are"));
    };
    let alternatives = format!(
        "{own} leaves its ids as they are (nobody's inside), idmap: host of the container needs none of it (owner: payload: with the owner's \
         id as user), or have it on ext4, xfs, btrfs or tmpfs"
    );
    let kind = &point.kind;
    if rest.as_os_str().is_empty() {
        let hint = format!("the file system ({kind}) cannot be idmapped: {alternatives}");
        return error.with_path(one.path.to_string_lossy()).with_hint(hint);
    }
    error.with_path(point.path.to_string_lossy()).with_hint(format!(
        "this file system ({kind}), mounted below {:?}, cannot be idmapped: idmap_recursive: false leaves the ids of what is mounted below as \
         they are, recursive: false leaves it out; {alternatives}",
        one.path
    ))
}

/// User namespaces of mounts, as their plan counts them.
pub(crate) type Users = Vec<Option<OwnedFd>>;

/// The user namespaces with which the caller itself idmaps mounts, made by its keeper: one for each of these that is the caller's. `Err` of the
/// inner result: the keeper takes no requests any more, or none of this thread.
pub(crate) fn namespaces(keeper: &Keeper, compiled: &Compiled) -> Result<std::result::Result<Users, Shared>> {
    let mut found: Users = compiled.idmapped.iter().map(|_| None).collect();
    let wanted = |one: &&Idmapped| one.by_caller && one.maps.is_some();
    if !compiled.idmapped.iter().any(|one| wanted(&one)) {
        return Ok(Ok(found));
    }
    let mut b = Builder::new();
    b.idmapped.clone_from(&compiled.idmapped);
    let plan = b.build_namespaces();
    let (channel, there) = Channel::pair()?;
    let timeout = Some(Spec::START_TIMEOUT);
    let sent = Request::default().send(keeper, request::CALL, 0, timeout, there.as_fd(), None, &plan, &[])?;
    drop(there);
    if sent.is_none() {
        return Ok(Err(Shared::Left));
    }
    const NOBODY: &[crate::plan::attribute::Attribute] = &[];
    match wait_started(&channel, timeout, record::ENDED, NOBODY)? {
        Outcome::Started { fds, .. } => {
            for (index, fd) in fds {
                if let Some(place) = found.get_mut(index as usize) {
                    *place = Some(fd);
                }
            }
            Ok(Ok(found))
        }
        Outcome::Failed(failed) => Err(super::explain_failure(&failed, &plan)),
        Outcome::Refused => Ok(Err(Shared::Refused)),
        Outcome::KeeperDied | Outcome::Ended(_) => Ok(Err(Shared::Left)),
    }
}

const ORDINARY: &str = "the kernel wants CAP_SYS_ADMIN in the user namespace that the file system was mounted in. Without it the ids are \
                        those of the container's idmap: `keep-id`, or one with subordinate ids; owner: payload checks that; copy_in needs none";

fn source_shown(mount: &Mount, source: &Path) -> String {
    match &mount.kind {
        MountKind::Bind { source: BindSource::Fd(fd), .. } => format!("fd {fd}"),
        _ => source.to_string_lossy().into_owned(),
    }
}

/// The owner and group of a source. A volume that is not there yet will be the caller's.
fn owner(mount: &Mount, source: &Path) -> Result<(u32, u32)> {
    let own = || (nix::unistd::geteuid().as_raw(), nix::unistd::getegid().as_raw());
    let found = fs::metadata(source).map(|meta| (meta.uid(), meta.gid())).map_err(|e| Error::io("stat", &e));
    match &mount.kind {
        MountKind::Volume { name: None } => Ok(own()),
        MountKind::Volume { .. } => Ok(found.unwrap_or_else(|_| own())),
        _ => found,
    }
}

fn foreign(what: &str) -> Error {
    Error::new(ErrorKind::Unsupported, "which ids a joined user namespace gives the payload is not known")
        .with_errno(libc::EINVAL)
        .with_hint(format!("leave out {what}, or namespaces.user"))
}

fn of_user(owner: (u32, u32), payload: &Credentials, maps: Option<&IdMaps>, outer: &Outer) -> Result<()> {
    let Some(maps) = maps else { return Err(foreign("owner")) };
    let outside = IdMaps::outside(&maps.uid, payload.uid).and_then(|id| host_id(id, outer.uid, &outer.uids));
    if outside == Some(owner.0) {
        return Ok(());
    }
    let is = outside.map_or_else(|| "nobody".to_owned(), |id| format!("uid {id}"));
    let error = Error::new(
        ErrorKind::PermissionDenied,
        format!("uid {} inside is {is} of the host, the source belongs to uid {}", payload.uid, owner.0),
    )
    .with_errno(libc::EPERM);
    let is_lent = |&(first, count): &(u32, u32)| owner.0 >= first && owner.0 - first < count;
    Err(if owner.0 == outer.uid {
        error.with_hint(format!(
            "an ordinary caller's payload is that one with idmap: keep-id and user {:?}, or as root inside: leave out user",
            format!("{}:{}", outer.uid, outer.gid)
        ))
    } else if outer.uids.iter().any(is_lent) {
        error.with_hint(format!(
            "an ordinary caller maps it with idmap: {{\"uid\": [[{}, {}, 1], ...]}}",
            payload.uid, owner.0
        ))
    } else {
        error.with_hint("that is not the caller's to give: mount what belongs to the caller, or start it as root")
    })
}

/// An id of the outer namespace as the host's.
fn host_id(id: u32, own: u32, sub: &[(u32, u32)]) -> Option<u32> {
    let mut rest = match id {
        0 => return Some(own),
        id => id - 1,
    };
    for &(first, count) in sub {
        if rest < count {
            return first.checked_add(rest);
        }
        rest -= count;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_of_the_outer_namespace_are_the_hosts() {
        let sub = [(100_000, 65_536), (300_000, 10)];
        let host = |id| host_id(id, 1000, &sub);
        assert_eq!([host(0), host(1), host(65_536)], [Some(1000), Some(100_000), Some(165_535)]);
        assert_eq!([host(65_537), host(65_546), host(65_547)], [Some(300_000), Some(300_009), None]);
    }
}
