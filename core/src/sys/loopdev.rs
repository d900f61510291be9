//! Loop devices: a file as a block device.

use std::os::fd::{AsRawFd, BorrowedFd};

use super::task::call;

/// struct loop_info64.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct Info {
    pub device: u64,
    pub inode: u64,
    pub rdevice: u64,
    pub offset: u64,
    /// The device has that many bytes of the file; 0 is all.
    pub sizelimit: u64,
    pub number: u32,
    pub encrypt_type: u32,
    pub encrypt_key_size: u32,
    pub flags: u32,
    /// Free text for whoever looks.
    pub name: [u8; 64],
    pub crypt_name: [u8; 64],
    pub encrypt_key: [u8; 32],
    pub init: [u64; 2],
}

impl Info {
    pub const NONE: Self = Self {
        device: 0,
        inode: 0,
        rdevice: 0,
        offset: 0,
        sizelimit: 0,
        number: 0,
        encrypt_type: 0,
        encrypt_key_size: 0,
        flags: 0,
        name: [0; 64],
        crypt_name: [0; 64],
        encrypt_key: [0; 32],
        init: [0; 2],
    };
}

/// The device lets go of its file when its last user closes it.
pub(crate) const LO_FLAGS_AUTOCLEAR: u32 = 4;

fn ioctl(fd: BorrowedFd<'_>, request: usize, argument: usize) -> Result<usize, i32> {
    // SAFETY: the callers below pass the struct that each request reads or writes.
    unsafe { call(libc::SYS_ioctl, [fd.as_raw_fd() as usize, request, argument]) }
}

/// The number of a device that nobody uses yet; it is made if need be. `control` is /dev/loop-control.
pub(crate) fn free(control: BorrowedFd<'_>) -> Result<usize, i32> {
    const LOOP_CTL_GET_FREE: usize = 0x4c82;
    ioctl(control, LOOP_CTL_GET_FREE, 0)
}

/// LOOP_CONFIGURE, Linux 5.8. EBUSY: somebody else was faster.
pub(crate) fn configure(device: BorrowedFd<'_>, file: BorrowedFd<'_>, info: &Info) -> Result<(), i32> {
    const LOOP_CONFIGURE: usize = 0x4c0a;
    /// struct loop_config.
    #[repr(C)]
    struct Config {
        fd: u32,
        block_size: u32,
        info: Info,
        reserved: [u64; 8],
    }
    let config = Config { fd: file.as_raw_fd() as u32, block_size: 0, info: *info, reserved: [0; 8] };
    ioctl(device, LOOP_CONFIGURE, &raw const config as usize).map(drop)
}

/// LOOP_GET_STATUS64. ENXIO: it has no file.
pub(crate) fn status(device: BorrowedFd<'_>) -> Result<Info, i32> {
    const LOOP_GET_STATUS64: usize = 0x4c05;
    let mut info = Info::NONE;
    ioctl(device, LOOP_GET_STATUS64, &raw mut info as usize)?;
    Ok(info)
}

/// LOOP_SET_STATUS64, then LOOP_SET_CAPACITY, by which the device takes the new size.
pub(crate) fn set_status(device: BorrowedFd<'_>, info: &Info) -> Result<(), i32> {
    const LOOP_SET_STATUS64: usize = 0x4c04;
    const LOOP_SET_CAPACITY: usize = 0x4c07;
    ioctl(device, LOOP_SET_STATUS64, std::ptr::from_ref(info) as usize)?;
    ioctl(device, LOOP_SET_CAPACITY, 0).map(drop)
}

/// The size of a block device in bytes (BLKGETSIZE64).
pub(crate) fn size(device: BorrowedFd<'_>) -> Result<u64, i32> {
    const BLKGETSIZE64: usize = 0x8008_1272;
    let mut bytes = 0u64;
    ioctl(device, BLKGETSIZE64, &raw mut bytes as usize)?;
    Ok(bytes)
}
