//! Namespaces that a container joins, and whose they are.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Weak};

use super::named::NAMED;
use super::role::Membership;
use super::{Container, Handle, lock};
use crate::error::{Error, Result};
use crate::launch::{self, Keeper};
use crate::plan::container::{clone_flag, namespace_source};
use crate::spec::{NamespaceKind, NamespaceSource, Spec};
use crate::sys::nsfs::{self, namespace_type};

/// Opens the namespaces that a spec joins.
pub(super) fn open_namespaces(
    spec: &Spec,
    privileged: bool,
    pod: Option<&Membership>,
) -> Result<Vec<(NamespaceKind, OwnedFd)>> {
    let mut out = Vec::new();
    for kind in NamespaceKind::ALL {
        let field = format!("namespaces.{}", kind.name());
        let open = |path: &std::path::Path| {
            std::fs::File::open(path)
                .map(OwnedFd::from)
                .map_err(|e| Error::io("open", &e).with_field(field.clone()).with_path(path.to_string_lossy()))
        };
        let source = namespace_source(spec, kind);
        if let Some(Membership { holder, kinds }) = pod
            && (kind == NamespaceKind::User || kinds.contains(&kind))
        {
            if source != NamespaceSource::Host {
                let copy = holder.pidfd().try_clone_to_owned();
                out.push((kind, copy.map_err(|e| Error::io("dup", &e).with_field(field))?));
            }
            continue;
        }
        let by_path = matches!(source, NamespaceSource::Path(_));
        let fd = match source {
            NamespaceSource::Host if kind == NamespaceKind::Mnt && privileged => {
                open("/proc/thread-self/ns/mnt".as_ref())?
            }
            NamespaceSource::New | NamespaceSource::Host => continue,
            NamespaceSource::Path(path) => open(&path)?,
            NamespaceSource::Pid(pid) => open(format!("/proc/{pid}/ns/{}", kind.name()).as_ref())?,
            NamespaceSource::Fd(fd) => launch::duplicate(fd, &field)?,
            NamespaceSource::Container(name) => {
                let other = Container::by_name(&name).map_err(|e| e.with_field(field.clone()))?;
                let copy = other.pidfd().try_clone_to_owned();
                copy.map_err(|e| Error::io("dup", &e).with_field(field.clone()))?
            }
        };
        // setns would say EINVAL. A descriptor that is no namespace may be a pidfd.
        let right = match namespace_type(fd.as_fd()) {
            Some(flag) => flag == clone_flag(kind),
            None => !by_path,
        };
        if !right {
            return Err(Error::spec(field, format!("this is not a namespace of kind {}", kind.name())));
        }
        out.push((kind, fd));
    }
    Ok(out)
}

/// The containers of this process whose namespaces a spec joins, by name.
fn joined_containers(spec: &Spec) -> impl Iterator<Item = (NamespaceKind, Arc<Handle>)> {
    NamespaceKind::ALL.into_iter().filter_map(|kind| match namespace_source(spec, kind) {
        NamespaceSource::Container(name) => Some((kind, lock(&NAMED).get(&name).and_then(Weak::upgrade)?)),
        _ => None,
    })
}

/// Each keeper of an ordinary user has an outer user namespace of its own: what was born in one cannot be joined by what
/// is born in another.
pub(super) fn keeper_of_joined(spec: &Spec) -> Option<Arc<Keeper>> {
    let named = joined_containers(spec).map(|(_, handle)| handle.inner.keeper.clone());
    let usable = |keeper: &Arc<Keeper>| keeper.outer.is_some() && keeper.owner.is_this() && !keeper.is_dead();
    if let Some(keeper) = named.into_iter().find(usable) {
        return Some(keeper);
    }
    let keepers: Vec<_> = launch::keepers().into_iter().filter(usable).collect();
    if keepers.len() < 2 {
        return None;
    }
    let inode = |fd: BorrowedFd<'_>| nix::sys::stat::fstat(fd).map(|stat| (stat.st_dev, stat.st_ino)).ok();
    let outer: Vec<_> =
        keepers.iter().map(|k| inode(std::fs::File::open(format!("/proc/{}/ns/user", k.pid)).ok()?.as_fd())).collect();
    for kind in NamespaceKind::ALL {
        let opened = match namespace_source(spec, kind) {
            NamespaceSource::Path(path) => std::fs::File::open(path).ok().map(OwnedFd::from),
            NamespaceSource::Pid(pid) => {
                std::fs::File::open(format!("/proc/{pid}/ns/{}", kind.name())).ok().map(Into::into)
            }
            NamespaceSource::Fd(fd) => launch::duplicate(fd, "").ok(),
            _ => None,
        };
        // Its owner, then that one's parents: a container's user namespace is a child of the keeper's.
        let mut above = if kind == NamespaceKind::User { nsfs::parent } else { nsfs::owner };
        let mut at = opened;
        while let Some(fd) = at {
            let Ok(next) = above(fd.as_fd()) else { break };
            let found = inode(next.as_fd());
            if let Some(index) = outer.iter().position(|o| o.is_some() && *o == found) {
                return Some(keepers[index].clone());
            }
            above = nsfs::parent;
            at = Some(next);
        }
    }
    None
}

/// An ordinary user's container with a single id forbids setgroups(2) to whoever joins it.
pub(super) fn joined_user_allows_setgroups(spec: &Spec) -> bool {
    match namespace_source(spec, NamespaceKind::User) {
        NamespaceSource::Pid(pid) => {
            std::fs::read_to_string(format!("/proc/{pid}/setgroups")).map_or(true, |text| text.trim() != "deny")
        }
        NamespaceSource::Container(_) => joined_containers(spec)
            .find(|(kind, _)| *kind == NamespaceKind::User)
            .is_none_or(|(_, handle)| handle.inner.may_setgroups),
        _ => true,
    }
}
