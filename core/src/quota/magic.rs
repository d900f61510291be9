//! File systems by the number that statfs(2) gives (include/uapi/linux/magic.h).

/// ext2 and ext3 too.
pub(super) const EXT4: i64 = 0xef53;
pub(super) const XFS: i64 = 0x5846_5342;
pub(super) const BTRFS: i64 = 0x9123_683e;

pub(super) fn name(magic: i64) -> String {
    match magic {
        EXT4 => "ext4".into(),
        XFS => "xfs".into(),
        BTRFS => "btrfs".into(),
        0x0102_1994 => "tmpfs".into(),
        0x794c_7630 => "overlayfs".into(),
        0x6969 => "NFS".into(),
        0x2fc1_2fc1 => "ZFS".into(),
        0xf2f5_2010 => "f2fs".into(),
        _ => format!("a file system of type {magic:#x}"),
    }
}
