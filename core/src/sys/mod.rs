//! System calls that nix lacks.

/// Programs that decide about devices.
pub(crate) mod bpf;
/// Subvolumes, qgroups and devices of btrfs.
pub(crate) mod btrfs;
/// Small programs of system calls on files, which the keeper's tasks run as well.
#[allow(dead_code, reason = "the keeper uses the rest")]
#[path = "../../keeper/calls.rs"]
pub(crate) mod calls;
/// Those programs, on the files of this process.
pub(crate) mod files;
/// Mounts that are attached nowhere, and growing file systems.
pub(crate) mod fs;
/// Loop devices.
pub(crate) mod loopdev;
/// What a mount is, and mounts with other ids.
pub(crate) mod mount;
/// Namespace descriptors.
pub(crate) mod nsfs;
/// Process descriptors.
pub(crate) mod pidfd;
/// Structs that are passed as they lie in memory.
pub(crate) mod plain;
/// Whether the kernel does something, found by trying.
pub(crate) mod probe;
/// Disk quota and project ids.
pub(crate) mod quota;
/// The system call instruction.
pub(crate) mod raw;
/// Capabilities, and the user namespace in which they count.
pub(crate) mod rights;
/// Network devices and sockets of netlink.
pub(crate) mod rtnl;
/// Addresses and messages of sockets.
pub(crate) mod socket;
/// Reading, writing and waiting.
pub(crate) mod stream;
/// A task that shares the host's memory.
pub(crate) mod task;
/// Listeners of system call filters.
pub(crate) mod unotify;
/// Extended attributes of open files.
pub(crate) mod xattr;
