//! What the kernel has of a container's own and the container's root cannot change: pseudoterminals, the size of /dev/shm,
//! parameters of its namespaces; and changes of these while it runs.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use nix::sys::stat::{fstat, major, minor};
use nix::sys::statfs::{FsType, TMPFS_MAGIC, fstatfs};
use serde_json::Value;

use super::Inner;
use super::disk::tmpfs_used;
use super::update::Undo;
use crate::error::{Error, ErrorKind, Result};
use crate::plan::builder::Compiled;
use crate::plan::container::{TTY, devpts_options, shm_size};
use crate::plan::exec;
use crate::plan::facts::Need;
use crate::proto::{record, request};
use crate::spec::{MountKind, Spec, sysctl};

/// The values that parameters had before the spec set them, by their paths below /proc/sys.
pub(super) type Before = BTreeMap<String, String>;

const DEVPTS_MAGIC: FsType = FsType(0x1cd1);

/// What devpts may have when nobody says how many: as many as there are minor numbers.
const MOST_PTYS: u64 = 1 << 20;

/// For other programs that take up a detached container, under this key of its record.
pub(super) const BEFORE: &str = "sysctls_before";

/// What a record has under [`BEFORE`].
pub(super) fn recorded(data: &Value) -> Before {
    serde_json::from_value(data[BEFORE].clone()).unwrap_or_default()
}

/// Parameters by path, with the names that the spec has for them.
fn by_path(spec: &Spec) -> BTreeMap<String, (&str, &str)> {
    spec.sysctls.iter().map(|(name, value)| (sysctl::path(name), (&**name, &**value))).collect()
}

fn field(name: &str) -> String {
    format!("sysctls[{name:?}]")
}

/// Whether one of the spec's mounts, from number `from` on, is on `place` or above it.
fn covered(spec: &Spec, place: &Path, from: usize) -> bool {
    spec.mounts[from..].iter().any(|mount| place.starts_with(&mount.target))
}

/// Where the container has a devpts that its spec asks for, and whether it is the one that every container has.
fn devpts_places(spec: &Spec) -> BTreeMap<&Path, bool> {
    let own = Path::new("/dev/pts");
    let own = Some((own, true)).filter(|(own, _)| !covered(spec, own, 0));
    let mounted = spec.mounts.iter().enumerate().filter(|(_, mount)| mount.kind == MountKind::Devpts);
    let mounted = mounted.filter(|(i, mount)| !covered(spec, &mount.target, i + 1));
    own.into_iter().chain(mounted.map(|(_, mount)| (&*mount.target, false))).collect()
}

/// Whether the host has the file system too: then it is not the container's to change.
fn is_of_the_host(fd: BorrowedFd<'_>) -> Result<bool> {
    let device = fstat(fd).map_err(|errno| Error::os("fstat", errno as i32))?.st_dev;
    let device = format!("{}:{}", major(device), minor(device));
    let mounts = std::fs::read_to_string("/proc/thread-self/mountinfo").map_err(|e| Error::io("read", &e))?;
    Ok(mounts.lines().any(|line| line.split(' ').nth(2) == Some(&*device)))
}

/// The highest number of a pseudoterminal that is open.
fn highest_pty(devpts: BorrowedFd<'_>) -> Result<Option<u64>> {
    let entries =
        std::fs::read_dir(format!("/proc/self/fd/{}", devpts.as_raw_fd())).map_err(|e| Error::io("read", &e))?;
    Ok(entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).max())
}

fn in_use(field: &str, what: String) -> Error {
    Error::os("change the limit", libc::EBUSY)
        .with_field(field)
        .with_detail(what)
        .with_hint("close or remove something first, or give more")
}

impl Inner {
    /// `ptys`, `shm_size` and `sysctls`. How to take back what was done is in `undo`, also after an error.
    pub(super) fn change_parameters<'a>(
        &'a self,
        now: &Spec,
        new: &Spec,
        before: &mut Before,
        undo: &mut Undo<'a>,
    ) -> Result<()> {
        if now.ptys != new.ptys {
            let places = self.devpts(new)?;
            for (fd, _) in &places {
                let open = highest_pty(fd.as_fd()).map_err(|e| e.with_field("ptys"))?;
                if let (Some(ptys), Some(number)) = (new.ptys, open)
                    && number >= ptys
                {
                    return Err(in_use("ptys", format!("number {number} is open (the first is 0)")));
                }
            }
            // Noted first: of several one may be refused.
            let old = now.clone();
            undo.note("ptys", move || self.set_ptys(&self.devpts(&old)?, &old));
            self.set_ptys(&places, new)?;
        }
        if now.shm_size != new.shm_size {
            self.set_shm_size(new)?;
            let old = now.clone();
            undo.note("shm_size", move || self.set_shm_size(&old));
        }
        self.change_sysctls(now, new, before, undo)
    }

    /// The root of a file system of the container, by its path inside; an error if something else is there. (Paths above a mount of
    /// the spec's may have been renamed inside, or be symlinks.)
    fn own_root(&self, place: &Path, kind: FsType, field: &str) -> Result<OwnedFd> {
        let flags = libc::O_RDONLY | libc::O_DIRECTORY;
        let named = |error: Error| error.with_field(field).with_path(place.to_string_lossy());
        let fd = self.open_joined(&self.outside_of_groups(), place.as_os_str().as_bytes(), flags).map_err(named)?;
        let found = fstatfs(&fd).map_err(|errno| named(Error::os("fstatfs", errno as i32)))?.filesystem_type();
        if found != kind || is_of_the_host(fd.as_fd()).map_err(named)? {
            return Err(named(Error::new(ErrorKind::Unsupported, "something else is mounted there by now"))
                .with_errno(libc::EOPNOTSUPP));
        }
        Ok(fd)
    }

    fn devpts(&self, spec: &Spec) -> Result<Vec<(OwnedFd, bool)>> {
        let places = devpts_places(spec);
        if places.is_empty() {
            return Err(Error::new(ErrorKind::Unsupported, "the mounts leave the container no devpts of its own")
                .with_field("ptys")
                .with_errno(libc::EOPNOTSUPP));
        }
        places.into_iter().map(|(place, own)| Ok((self.own_root(place, DEVPTS_MAGIC, "ptys")?, own))).collect()
    }

    fn set_ptys(&self, devpts: &[(OwnedFd, bool)], spec: &Spec) -> Result<()> {
        let ptys = Some(spec.ptys.unwrap_or(MOST_PTYS));
        let spec = Spec { ptys, ..spec.clone() };
        let options = |own| devpts_options(&spec, self.has_tty(), own);
        devpts.iter().try_for_each(|(fd, own)| self.reconfigure("ptys", fd.as_fd(), &options(*own)))
    }

    /// Whether the group of terminals is mapped.
    fn has_tty(&self) -> bool {
        let info = self.info();
        let Some(maps) = info["idmap"]["gid"].as_array() else { return info["idmap"]["mode"] != "joined" };
        let number = |map: &Value, i: usize| map[i].as_u64().unwrap_or(0);
        maps.iter().any(|map| (number(map, 0)..number(map, 0) + number(map, 2)).contains(&TTY.into()))
    }

    fn set_shm_size(&self, spec: &Spec) -> Result<()> {
        let place = Path::new("/dev/shm");
        if covered(spec, place, 0) {
            return Err(Error::new(ErrorKind::Unsupported, "one of the mounts is over /dev/shm")
                .with_field("shm_size")
                .with_errno(libc::EOPNOTSUPP));
        }
        let fd = self.own_root(place, TMPFS_MAGIC, "shm_size")?;
        let size = shm_size(spec);
        let fits = || match tmpfs_used(fd.as_fd()) {
            Ok(used) if used.bytes > size => Err(in_use("shm_size", format!("{} bytes are used", used.bytes))),
            Ok(_) => Ok(()),
            Err(error) => Err(error.with_field("shm_size")),
        };
        fits()?;
        // The kernel's EINVAL is for a size that is less than what is used.
        self.reconfigure("shm_size", fd.as_fd(), &[("size", size.to_string())])
            .map_err(|error| if error.errno() == libc::EINVAL { fits().err().unwrap_or(error) } else { error })
    }

    pub(super) fn reconfigure(&self, field: &str, root: BorrowedFd<'_>, options: &[(&str, String)]) -> Result<()> {
        let (compiled, needs) = exec::reconfigure(&self.outside_of_groups(), field, options);
        let root = root.try_clone_to_owned().map_err(|e| Error::io("dup", &e).with_field(field))?;
        self.ask(request::CALL, None, (&compiled, &needs), &[Some(root), None, None], None, record::ENDED)?;
        Ok(())
    }

    /// What is new gets its value; what is not there any more gets the value back that it had before.
    fn change_sysctls<'a>(&'a self, now: &Spec, new: &Spec, before: &mut Before, undo: &mut Undo<'a>) -> Result<()> {
        let (old, wanted) = (by_path(now), by_path(new));
        let mut changes = Vec::new();
        for (path, (name, value)) in &wanted {
            if old.get(path).is_none_or(|(_, former)| former != value) {
                changes.push(((*name).to_owned(), path.clone(), (*value).to_owned()));
            }
        }
        for (path, (name, _)) in old.iter().filter(|(path, _)| !wanted.contains_key(*path)) {
            let Some(value) = before.get(path) else {
                return Err(Error::spec(field(name), "what it was before it was set is not known")
                    .with_hint("give it a value instead of taking it away"));
            };
            changes.push(((*name).to_owned(), path.clone(), value.clone()));
        }
        if changes.is_empty() {
            return Ok(());
        }
        crate::launch::confinement::check_sysctls(changes.iter().map(|(name, _, _)| name.as_str()))?;
        let (compiled, needs) = exec::set_sysctls(&self.outside_of_groups(), self.may_setgroups, &changes);
        let (done, found) = self.call((&compiled, &needs))?;
        // All are opened before the first is written.
        let written = done.as_ref().err().is_none_or(|e| matches!(e.step(), None | Some("write" | "read back")));
        for (name, path, _) in changes.iter().filter(|_| written) {
            let known = found.get(path).cloned().or_else(|| old.get(path).map(|(_, value)| (*value).to_owned()));
            let (name, path) = (name.clone(), path.clone());
            undo.note("sysctls", move || {
                let value = known
                    .ok_or_else(|| Error::new(ErrorKind::Unsupported, "it cannot be read").with_field(field(&name)))?;
                let back = [(name, path, value)];
                let (compiled, needs) = exec::put_sysctls_back(&self.outside_of_groups(), self.may_setgroups, &back);
                self.call((&compiled, &needs))?.0
            });
        }
        done?;
        for path in changes.iter().map(|(_, path, _)| path) {
            if !wanted.contains_key(path) {
                before.remove(path);
            } else if !old.contains_key(path)
                && let Some(value) = found.get(path)
            {
                before.insert(path.clone(), value.clone());
            }
        }
        Ok(())
    }

    /// A task that joins for a moment: what it came to, and what it read.
    fn call(&self, (compiled, needs): (&Compiled, &[Need])) -> Result<(Result<()>, Before)> {
        let (plan, channel) = self.request(request::CALL, None, (compiled, needs), &[None, None, None], None)?;
        let done = self.answer(&channel, &plan, None, record::ENDED, compiled);
        Ok((done.map(drop), plan.found(compiled)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(mounts: &[&str]) -> Vec<String> {
        let mounts = mounts.iter().map(|mount| {
            let (kind, target) = mount.split_once(' ').unwrap();
            serde_json::json!({"type": kind, "target": target})
        });
        let json = serde_json::json!({"mounts": mounts.collect::<Vec<_>>()}).to_string();
        let spec = Spec::from_json(&json).unwrap();
        let shown = |(place, own): (&Path, bool)| format!("{}{}", place.display(), if own { "" } else { " of mounts" });
        devpts_places(&spec).into_iter().map(shown).collect()
    }

    #[test]
    fn every_devpts_that_can_be_reached_is_changed() {
        assert_eq!(places(&[]), ["/dev/pts"]);
        assert_eq!(places(&["devpts /srv/pts", "tmpfs /tmp"]), ["/dev/pts", "/srv/pts of mounts"]);
        assert_eq!(places(&["devpts /dev/pts"]), ["/dev/pts of mounts"]);
        assert_eq!(places(&["tmpfs /dev"]), [""; 0]);
        assert_eq!(places(&["tmpfs /dev", "devpts /dev/pts"]), ["/dev/pts of mounts"]);
        assert_eq!(places(&["devpts /srv/pts", "tmpfs /srv/pts"]), ["/dev/pts"]);
    }
}
