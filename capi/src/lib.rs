//! The C ABI of ringfence: opaque objects, ints, C strings and file descriptors over the public surface of the `ringfence`
//! crate, and no behaviour of its own. What the functions promise is written at each of them, for the reader of
//! `include/ringfence.h`, which is generated from this crate; the rules that all share stand at the top of that file
//! (`cbindgen.toml`).

#![allow(non_camel_case_types, reason = "types have their C names here, so that header and source read the same")]
#![allow(clippy::missing_safety_doc, reason = "the callers are C: what they must keep is the contract in the header")]

// The panic border, conversions of arguments.
mod border;
// Opaque objects: recognised by a magic word, shared by the calls that are under way.
mod object;

// In the order of the header.
mod version;

mod error;

mod spec;

mod run;

mod container;
/// Files of a container, and trees of the host.
mod files;
/// Groups of processes inside a container.
mod group;
/// Containers that share namespaces.
mod pod;
mod port;

/// Several containers with an order.
mod compose;

mod events;
/// The log of a container, line by line.
mod logs;
/// Waiting until a container is ready.
mod ready;
/// System calls that the host answers.
mod syscalls;

mod command;

mod process;

/// Namespaces that exist, by descriptors.
mod namespace;

/// Networks of containers.
mod network;

mod machine;

mod log;
