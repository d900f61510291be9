//! System calls that nix lacks.
