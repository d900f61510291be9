//! `owner: payload` of `mounts`: whose the sources are, and what their owners become inside.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use super::keeper::Outer;
use crate::error::{Error, ErrorKind, Result};
use crate::plan::container::namespace_source;
use crate::plan::facts::{Credentials, IdMaps};
use crate::plan::owner::{OwnerMaps, lent};
use crate::spec::{BindSource, Mount, MountKind, MountOwner, NamespaceKind, NamespaceSource, Spec};
use crate::sys::rights;

/// The maps of each entry that has other ids than the rest of the container.
pub(super) fn maps(
    spec: &Spec,
    paths: &[Option<PathBuf>],
    payload: &Credentials,
    maps: Option<&IdMaps>,
    outer: Option<&Outer>,
) -> Result<Vec<Option<OwnerMaps>>> {
    let mut all = Vec::new();
    for (i, (mount, path)) in spec.mounts.iter().zip(paths).enumerate() {
        let Some(MountOwner::Payload) = mount.owner else {
            all.push(None);
            continue;
        };
        let field = format!("mounts[{i}].owner");
        let shown = match (&mount.kind, path) {
            (MountKind::Bind { source: BindSource::Path(source), .. }, _) => source.to_string_lossy().into_owned(),
            (_, Some(path)) => path.to_string_lossy().into_owned(),
            _ => mount.target.to_string_lossy().into_owned(),
        };
        let found = match (owner(mount, path.as_ref()), outer) {
            (Err(error), _) => Err(error),
            (Ok(owner), None) => of_root(spec, owner, payload, maps),
            (Ok(owner), Some(outer)) => of_user(owner, payload, maps, outer).map(|()| None),
        };
        all.push(found.map_err(|e| e.with_field(field).with_path(shown))?);
    }
    Ok(all)
}

/// The owner and group of a source. A volume that is not there yet will be the caller's.
fn owner(mount: &Mount, path: Option<&PathBuf>) -> Result<(u32, u32)> {
    let own = || (nix::unistd::geteuid().as_raw(), nix::unistd::getegid().as_raw());
    let of = |meta: std::io::Result<fs::Metadata>| {
        meta.map(|meta| (meta.uid(), meta.gid())).map_err(|e| Error::io("stat", &e))
    };
    match &mount.kind {
        MountKind::Bind { source: BindSource::Fd(fd), .. } => of(fs::metadata(format!("/proc/self/fd/{fd}"))),
        MountKind::Bind { source: BindSource::Path(path), .. } => of(fs::metadata(path)),
        MountKind::Volume { name: Some(_) } => {
            Ok(path.and_then(|path| of(fs::metadata(path)).ok()).unwrap_or_else(own))
        }
        _ => Ok(own()),
    }
}

fn foreign() -> Error {
    Error::new(ErrorKind::Unsupported, "which ids a joined user namespace gives the payload is not known")
        .with_errno(libc::EINVAL)
        .with_hint("leave out owner, or namespaces.user")
}

/// `None`: it is shown right without.
fn of_root(
    spec: &Spec,
    (uid, gid): (u32, u32),
    payload: &Credentials,
    maps: Option<&IdMaps>,
) -> Result<Option<OwnerMaps>> {
    let joined = maps.is_none() && namespace_source(spec, NamespaceKind::User) != NamespaceSource::Host;
    if joined {
        return Err(foreign());
    }
    if (uid, gid) == (payload.uid, payload.gid) {
        return Ok(None);
    }
    let all = |file: &str| {
        let ranges = rights::id_map(file);
        ranges.into_iter().map(|(first, _, count)| format!("{first} {first} {count}\n")).collect::<String>()
    };
    let (uids, gids) = match maps {
        Some(maps) => (maps.uid.clone(), maps.gid.clone()),
        None => (all("uid_map"), all("gid_map")),
    };
    let found = lent(&uids, uid, payload.uid).zip(lent(&gids, gid, payload.gid));
    match found {
        Some((uid, gid)) => Ok(Some(OwnerMaps { uid, gid })),
        None => Err(Error::new(ErrorKind::PermissionDenied, "the payload's ids have no ids of the host behind them")
            .with_errno(libc::EINVAL)),
    }
}

/// The kernel lets an ordinary user idmap no mount of the host's: either the payload is the owner outside already, or there is no way.
fn of_user(owner: (u32, u32), payload: &Credentials, maps: Option<&IdMaps>, outer: &Outer) -> Result<()> {
    let Some(maps) = maps else { return Err(foreign()) };
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
