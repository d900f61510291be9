//! Networks of containers.

/// Devices on those of the host.
mod attach;
/// What a filter of nftables says between two sides of a bridge.
mod firewall;
/// Devices, addresses, routes: the messages.
mod link;
/// Requests and answers.
pub(crate) mod netlink;
/// Several containers on a switch of their own.
mod network;
/// Addresses that are free.
mod pool;
/// Queueing disciplines: rates and faults.
mod shape;

pub(crate) use attach::Taps;
pub use network::{Address, Network};
pub(crate) use network::{Attached, Joining, Kept, has_ipv6, keeper_of_networks, keeper_of_others};
pub use shape::{Direction, Shape};
