//! File systems: mounting one without attaching it anywhere (Linux 5.2), and making a mounted one larger.

use std::ffi::{CStr, CString};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use super::task::call;

/// A file system that is about to be mounted; closing it gives up.
#[derive(Debug)]
pub(crate) struct Context(OwnedFd);

impl Context {
    /// fsopen(2): of a type, like `ext4`.
    pub fn open(kind: &CStr) -> Result<Self, i32> {
        const FSOPEN_CLOEXEC: usize = 1;
        // SAFETY: a C string; the new descriptor is ours.
        unsafe {
            let fd = call(libc::SYS_fsopen, [kind.as_ptr() as usize, FSOPEN_CLOEXEC])?;
            Ok(Self(OwnedFd::from_raw_fd(fd as RawFd)))
        }
    }

    fn config(&self, command: usize, key: usize, value: usize) -> Result<(), i32> {
        // SAFETY: the callers below pass C strings or null, as each command demands.
        unsafe { call(libc::SYS_fsconfig, [self.0.as_raw_fd() as usize, command, key, value, 0]) }.map(drop)
    }

    /// An option without a value.
    pub fn flag(&self, key: &CStr) -> Result<(), i32> {
        const FSCONFIG_SET_FLAG: usize = 0;
        self.config(FSCONFIG_SET_FLAG, key.as_ptr() as usize, 0)
    }

    /// An option with one; `source` is the device.
    pub fn string(&self, key: &CStr, value: &CStr) -> Result<(), i32> {
        const FSCONFIG_SET_STRING: usize = 1;
        self.config(FSCONFIG_SET_STRING, key.as_ptr() as usize, value.as_ptr() as usize)
    }

    /// `mount_label`: the SELinux label of all files of a file system that is made.
    pub fn label(&self, label: Option<&str>) -> Result<(), i32> {
        let Some(label) = label else { return Ok(()) };
        self.string(c"context", &CString::new(label).map_err(|_| libc::EINVAL)?)
    }

    /// Reads the file system in, or joins the one that is mounted from this device already.
    pub fn create(&self) -> Result<(), i32> {
        const FSCONFIG_CMD_CREATE: usize = 6;
        self.config(FSCONFIG_CMD_CREATE, 0, 0)
    }

    /// fsmount(2): the mount, attached nowhere, gone with its last descriptor; without device nodes.
    pub fn mount(&self) -> Result<OwnedFd, i32> {
        const MOUNT_ATTR_NODEV: usize = 4;
        self.mount_with(MOUNT_ATTR_NODEV)
    }

    /// The same for device nodes.
    pub fn mount_of_nodes(&self) -> Result<OwnedFd, i32> {
        const MOUNT_ATTR_NOSUID_NOEXEC: usize = 2 | 8;
        self.mount_with(MOUNT_ATTR_NOSUID_NOEXEC)
    }

    fn mount_with(&self, attributes: usize) -> Result<OwnedFd, i32> {
        const FSMOUNT_CLOEXEC: usize = 1;
        // SAFETY: no pointers; the new descriptor is ours.
        unsafe {
            let fd = call(libc::SYS_fsmount, [self.0.as_raw_fd() as usize, FSMOUNT_CLOEXEC, attributes])?;
            Ok(OwnedFd::from_raw_fd(fd as RawFd))
        }
    }

    /// What the file system said about the last failure; often nothing.
    pub fn message(&self) -> String {
        let mut buffer = [0u8; 1024];
        let length = nix::unistd::read(&self.0, &mut buffer).unwrap_or(0);
        String::from_utf8_lossy(&buffer[..length]).trim_end().trim_start_matches("e ").to_owned()
    }
}

/// A device node in a directory, whatever the umask of this process is. Who else may write to the directory gets nothing else changed by
/// this: what has the name afterwards is looked at, and no link is followed.
pub(crate) fn make_node(
    directory: BorrowedFd<'_>,
    name: &CStr,
    kind: u32,
    device: u64,
    owner: (u32, u32),
    mode: u32,
) -> Result<(), i32> {
    let errno = nix::errno::Errno::last_raw;
    // SAFETY: a C string, a borrowed descriptor and numbers.
    if unsafe { libc::mknodat(directory.as_raw_fd(), name.as_ptr(), kind, device) } < 0 {
        return Err(errno());
    }
    let flags = libc::O_PATH | libc::O_NOFOLLOW | libc::O_CLOEXEC;
    // SAFETY: a C string and a borrowed descriptor; the new one is ours.
    let node = unsafe {
        let node = libc::openat(directory.as_raw_fd(), name.as_ptr(), flags);
        if node < 0 {
            return Err(errno());
        }
        OwnedFd::from_raw_fd(node)
    };
    let made = nix::sys::stat::fstat(&node).map_err(|errno| errno as i32)?;
    if (made.st_mode & libc::S_IFMT, made.st_rdev) != (kind, device) {
        return Err(libc::EEXIST);
    }
    let fd = node.as_raw_fd() as usize;
    let empty = c"".as_ptr() as usize;
    let itself = libc::AT_EMPTY_PATH as usize;
    // SAFETY: an empty C string, a descriptor and numbers, in both.
    let changed = unsafe {
        call(libc::SYS_fchownat, [fd, empty, owner.0 as usize, owner.1 as usize, itself])?;
        call(libc::SYS_fchmodat2, [fd, empty, mode as usize, itself])
    };
    match changed {
        // Before Linux 6.6, and under a filter that is older.
        Err(libc::ENOSYS | libc::EPERM) => {
            let path = format!("/proc/thread-self/fd/{fd}");
            let mode = nix::sys::stat::Mode::from_bits_truncate(mode);
            nix::sys::stat::fchmodat(
                nix::fcntl::AT_FDCWD,
                path.as_str(),
                mode,
                nix::sys::stat::FchmodatFlags::FollowSymlink,
            )
            .map_err(|errno| errno as i32)
        }
        changed => changed.map(drop),
    }
}

/// EXT4_IOC_RESIZE_FS: to so many blocks. It takes CAP_SYS_RESOURCE.
pub(crate) fn ext4_resize(fd: BorrowedFd<'_>, blocks: u64) -> Result<(), i32> {
    const EXT4_IOC_RESIZE_FS: usize = 0x4008_6610;
    // SAFETY: the kernel reads one u64.
    unsafe { call(libc::SYS_ioctl, [fd.as_raw_fd() as usize, EXT4_IOC_RESIZE_FS, &raw const blocks as usize]) }
        .map(drop)
}

/// XFS_IOC_FSGROWFSDATA: to so many bytes, rounded down to blocks; how much of it inodes may take stays as it is.
pub(crate) fn xfs_grow(fd: BorrowedFd<'_>, bytes: u64) -> Result<(), i32> {
    const XFS_IOC_FSGEOMETRY_V1: usize = 0x8070_5864;
    const XFS_IOC_FSGROWFSDATA: usize = 0x4010_586e;
    // struct xfs_fsop_geom_v1: the block size is its first number, imaxpct its eighth.
    let mut geometry = [0u32; 28];
    // SAFETY: the kernel writes the 112 bytes of the struct.
    unsafe { call(libc::SYS_ioctl, [fd.as_raw_fd() as usize, XFS_IOC_FSGEOMETRY_V1, &raw mut geometry as usize]) }?;
    // struct xfs_growfs_data: blocks, and imaxpct in 32 bits with padding; both machines are little-endian.
    let growth = [bytes / u64::from(geometry[0].max(1)), u64::from(geometry[7])];
    // SAFETY: the kernel reads the 16 bytes of the struct.
    unsafe { call(libc::SYS_ioctl, [fd.as_raw_fd() as usize, XFS_IOC_FSGROWFSDATA, &raw const growth as usize]) }
        .map(drop)
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;
    use std::os::unix::fs::MetadataExt;

    use super::*;

    #[test]
    fn a_node_has_its_mode_and_no_link_is_followed() {
        let place = std::env::temp_dir().join(format!("ringfence-node-{}", std::process::id()));
        std::fs::create_dir(&place).unwrap();
        let directory = std::fs::File::open(&place).unwrap();
        let me = std::fs::metadata(&place).unwrap();
        let make = |name| make_node(directory.as_fd(), name, libc::S_IFIFO, 0, (me.uid(), me.gid()), 0o666);
        assert_eq!(make(c"node"), Ok(()));
        assert_eq!(std::fs::metadata(place.join("node")).unwrap().mode(), libc::S_IFIFO | 0o666);
        std::fs::write(place.join("file"), "").unwrap();
        std::os::unix::fs::symlink("file", place.join("link")).unwrap();
        assert_eq!(make(c"link"), Err(libc::EEXIST));
        std::fs::remove_dir_all(&place).unwrap();
    }
}
