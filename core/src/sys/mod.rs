//! System calls that nix lacks.

pub(crate) mod raw;
