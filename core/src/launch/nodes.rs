//! Device nodes for containers: what is asked for, and nodes of a container's own.

use std::ffi::CString;
use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;

use super::fork::HostOnly;
use crate::error::{Error, ErrorKind, Result};
use crate::net::Taps;
use crate::plan::container::MOUNT_LABEL_REFUSED;
use crate::plan::facts::{DeviceFact, Facts, IdMaps};
use crate::spec::DeviceAccess;
use crate::sys::{fs::Context, rights, xattr};

/// mknod(2) of devices takes CAP_MKNOD of the machine itself.
pub(crate) fn may_make() -> bool {
    rights::capabilities() & 1 << rights::CAP_MKNOD != 0 && rights::in_initial_user_namespace()
}

/// Looks at a node of the host without opening it, which does something for some devices. The caller has to have the access
/// that its container gets. `ids`: the ids of an ordinary caller, which come along. `own`: the container gets a node of its own.
pub(crate) fn look(path: &Path, access: DeviceAccess, ids: Option<(u32, u32)>, own: bool) -> Result<DeviceFact> {
    let wanted =
        u32::from(access.contains(DeviceAccess::READ)) << 2 | u32::from(access.contains(DeviceAccess::WRITE)) << 1;
    let do_what = match wanted {
        4 => "read",
        2 => "write",
        _ => "read and write",
    };
    let meta = fs::metadata(path).map_err(|e| Error::io("stat", &e))?;
    let kind = meta.mode() & libc::S_IFMT;
    if kind != libc::S_IFCHR && kind != libc::S_IFBLK {
        let what = if meta.is_dir() { "a directory" } else { "a file" };
        return Err(Error::new(ErrorKind::InvalidSpec, format!("is {what}, not a device node"))
            .with_errno(libc::ENODEV)
            .with_hint("mounts shows files and directories of the host"));
    }
    let denied = |why: &str| Error::new(ErrorKind::PermissionDenied, why).with_errno(libc::EACCES);
    let nodev =
        nix::sys::statvfs::statvfs(path).is_ok_and(|of| of.flags().contains(nix::sys::statvfs::FsFlags::ST_NODEV));
    if nodev {
        return Err(denied("no device can be opened there: its file system is mounted nodev"));
    }
    let text =
        CString::new(path.as_os_str().as_bytes()).map_err(|_| Error::spec("devices", "a path has a NUL byte"))?;
    // SAFETY: a C string.
    let allowed = unsafe { libc::faccessat(libc::AT_FDCWD, text.as_ptr(), wanted as i32, libc::AT_EACCESS) };
    if allowed < 0 {
        return Err(
            denied(&format!("the caller may not {do_what} it")).with_hint("its mode, owner or access list say who may")
        );
    }
    let fact = DeviceFact { kind, number: meta.rdev(), mode: meta.mode() & 0o777, uid: meta.uid(), gid: meta.gid() };
    let inside = match ids {
        _ if own => true,
        // The caller's ids come along always, its supplementary groups only where it has no ids to give: they do not count.
        Some((uid, gid)) => xattr::acl_names_user(&text, uid) || allows(&fact, wanted, uid, gid),
        // Bound, and root inside is somebody else.
        None => allows(&fact, wanted, u32::MAX, u32::MAX),
    };
    if inside {
        return Ok(fact);
    }
    Err(denied("the caller may use it, but not by what it takes into a container").with_hint(format!(
        "supplementary groups do not count: its owner, its primary group or everybody has to be allowed to {do_what} it"
    )))
}

fn allows(device: &DeviceFact, wanted: u32, uid: u32, gid: u32) -> bool {
    let shift = if device.uid == uid {
        6
    } else if device.gid == gid {
        3
    } else {
        0
    };
    device.mode >> shift & wanted == wanted
}

/// A file system in memory with these nodes, which is mounted nowhere yet. `label`: of SELinux, for its files.
pub(crate) fn make(devices: &[DeviceFact], label: Option<&str>) -> Result<OwnedFd> {
    let failed = |step| move |errno| Error::os(step, errno).with_field("devices");
    let context = Context::open(c"tmpfs").map_err(failed("fsopen"))?;
    context.string(c"mode", c"0755").map_err(failed("fsconfig"))?;
    context.label(label).map_err(|errno| Error::os("fsconfig", errno).with_field("mount_label"))?;
    context.create().map_err(|errno| refused_label(label, errno).unwrap_or_else(|| failed("fsconfig")(errno)))?;
    let mount = context.mount_of_nodes().map_err(failed("fsmount"))?;
    for (i, device) in devices.iter().enumerate() {
        let name = CString::new(i.to_string()).expect("digits");
        let owner = (device.uid, device.gid);
        crate::sys::fs::make_node(mount.as_fd(), &name, device.kind, device.number, owner, device.mode)
            .map_err(|errno| Error::os("mknod", errno).with_field(format!("devices[{i}]")))?;
    }
    Ok(mount)
}

/// Why a file system with a label cannot be made, if that is why.
pub(crate) fn refused_label(label: Option<&str>, errno: i32) -> Option<Error> {
    label.filter(|_| errno == libc::EACCES)?;
    Some(Error::os("fsconfig", errno).with_field("mount_label").with_hint(MOUNT_LABEL_REFUSED))
}

/// A directory for nodes of macvtaps, which are made when the devices are there. `has_dev`: the container has a /dev of its own.
pub(crate) fn taps(has_dev: bool, facts: &Facts, label: Option<&str>) -> Result<Taps> {
    if !has_dev {
        let what = "a macvtap takes a mount namespace of the container's own, where its node is; a pod has none";
        return Err(Error::new(ErrorKind::InvalidSpec, what).with_errno(libc::EINVAL));
    }
    if !may_make() {
        return Err(Error::new(
            ErrorKind::PermissionDenied,
            "the node of a macvtap takes CAP_MKNOD of the machine itself",
        )
        .with_errno(libc::EPERM));
    }
    let (user, maps) = (&facts.credentials, facts.idmaps.as_ref());
    let outside =
        |map: fn(&IdMaps) -> &str, id| maps.map_or(Some(id), |maps| IdMaps::outside(map(maps), id)).unwrap_or(0);
    let owner = (outside(|maps| &maps.uid, user.uid), outside(|maps| &maps.gid, user.gid));
    Ok(Taps { directory: Arc::new(HostOnly::new(make(&[], label)?)), owner, numbers: Arc::default() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_class_of_the_caller_decides() {
        let node = |mode, uid, gid| DeviceFact { kind: libc::S_IFCHR, number: 0, mode, uid, gid };
        assert!(allows(&node(0o600, 1000, 0), 6, 1000, 1000));
        assert!(allows(&node(0o060, 0, 1000), 6, 1000, 1000));
        assert!(allows(&node(0o666, 0, 0), 6, 1000, 1000));
        assert!(!allows(&node(0o660, 0, 44), 6, 1000, 1000), "a supplementary group");
        assert!(!allows(&node(0o466, 1000, 0), 6, 1000, 1000), "the owner is not everybody");
        assert!(!allows(&node(0o646, 0, 1000), 6, 1000, 1000), "nor is the group");
        assert!(!allows(&node(0o664, 0, 0), 6, 1000, 1000));
        assert!(allows(&node(0o664, 0, 0), 4, 1000, 1000), "for reading only");
    }
}
