//! Linux containers inside your program.

#[doc = include_str!("attacks.md")]
pub mod attacks {}
pub mod cgroup;
mod command;
#[doc = include_str!("confinement.md")]
pub mod confinement {}
mod container;
#[doc = include_str!("docker.md")]
pub mod docker {}
pub mod doctor;
#[doc = include_str!("entering.md")]
pub mod entering {}
mod error;
mod events;
/// What fuzzers feed.
#[cfg(any(fuzzing, test))]
#[doc(hidden)]
pub mod fuzz;
#[doc = include_str!("files.md")]
pub mod files {}
/// Several containers with an order.
mod group;
#[doc = include_str!("isolation.md")]
pub mod isolation {}
mod launch;
mod namespace;
/// Networks of containers.
mod net;
#[doc = include_str!("networks.md")]
pub mod networks {}
#[doc = include_str!("own.md")]
pub mod own {}
pub mod plan;
mod process;
#[allow(dead_code, reason = "the keeper uses the rest")]
#[path = "../keeper/proto.rs"]
mod proto;
mod quota;
#[doc = include_str!("resources.md")]
pub mod resources {}
/// What holds a payload in.
mod security;
pub mod spec;
pub mod state;
mod sys;
/// System calls about which the host is asked.
mod syscalls;
/// The manager of units, where there is one.
mod systemd;
#[doc = include_str!("testing.md")]
pub mod testing {}
#[doc = include_str!("threats.md")]
pub mod threats {}
mod tree;
/// Directories that are made for containers.
mod volume;

pub use cgroup::{HugePageUsage, IoUsage, NetUsage, PressureUsage, QuotaUsage, Stall, Stalls, Usage};
pub use command::Command;
pub use container::{
    Beancounter, Container, ControlGroup, HttpCheck, Lent, LogIter, LogOptions, LogReader, Pod, PortCheck,
    ProcessEntry, Readiness, WaitFor, WriteOptions, run,
};
pub use doctor::doctor;
pub use error::{Error, ErrorKind, Result, errno_name, parse_errno};
pub use events::{Event, EventKind, EventOptions, Events, Pressure, PressureLevel, PressureResource};
pub use group::{Group, Member};
pub use launch::end_keepers;
pub use namespace::{Namespace, NamespaceEntry, namespaces};
pub use net::{Address, Direction, FirewallCount, FirewallUsage, Network, Shape};
pub use plan::plan;
pub use process::{ExitStatus, Output, Process, Reason};
pub use spec::Spec;
pub use state::{gc, ls, rm};
pub use syscalls::{InjectedFd, SyscallListener, SyscallRequest};
pub use tree::{CopyOptions, CopyProgress, RemoveOptions, Special, remove_tree};
pub use volume::{Volume, remove_volume, volumes};

/// The version of this library.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
