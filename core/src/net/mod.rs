//! Networks of containers.

/// Who has an address from now on.
mod announce;
/// Devices on those of the host.
mod attach;
/// Addresses that are one container's among all programs.
mod claim;
/// What the kernel remembers of connections that it leads on.
mod connections;
/// What a filter of nftables says between two sides of a bridge.
mod firewall;
/// What the machine's own firewall does with what is forwarded.
mod forward;
/// What fuzzers feed.
#[cfg(any(fuzzing, test))]
pub(crate) mod fuzz;
/// Devices, addresses, routes: the messages.
mod link;
/// Masquerade, and ports that lead to containers.
mod nat;
/// Requests and answers.
pub(crate) mod netlink;
/// Several containers on a switch of their own.
mod network;
/// Addresses that are free.
mod pool;
/// Addresses that the host answers for.
mod routed;
/// Queueing disciplines: rates and faults.
mod shape;
/// The way out of a network.
mod uplink;
/// What happens to devices.
pub(crate) mod watch;

pub(crate) use attach::Taps;
pub use firewall::filter::FirewallCount;
pub(crate) use forward::leads_out;
pub use network::{Address, FirewallUsage, Network};
pub(crate) use network::{Attached, Joining, Kept, has_ipv6, keeper_of_networks, keeper_of_others, remove, reopen};
pub(crate) use routed::sweep as sweep_routed;
pub use shape::{Direction, Shape};
pub(crate) use uplink::name_servers;
