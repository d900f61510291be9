//! System calls that nix lacks.

pub(crate) mod raw;
/// A task that shares the host's memory.
pub(crate) mod task;
