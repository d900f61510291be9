//! System calls that nix lacks.

/// Namespace descriptors.
pub(crate) mod nsfs;
/// Process descriptors.
pub(crate) mod pidfd;
/// Whether the kernel does something, found by trying.
pub(crate) mod probe;
/// Disk quota and project ids.
pub(crate) mod quota;
/// The system call instruction.
pub(crate) mod raw;
/// Capabilities, and the user namespace in which they count.
pub(crate) mod rights;
/// A task that shares the host's memory.
pub(crate) mod task;
/// Extended attributes of open files.
pub(crate) mod xattr;
