//! What holds a payload in, beside namespaces and control groups.

/// Filters of system calls.
pub(crate) mod filter;
