//! A network of containers: a bridge in a network namespace of its own, and what keeps it.

use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};
use std::time::{Duration, Instant};

use ipnet::IpNet;
use once_cell::sync::OnceCell;
use serde_json::{Value, json};

use super::firewall::filter::{Filter, FirewallCount};
use super::link::{End, Mac};
use super::netlink::{Batch, Socket};
use super::pool::{Pool, Refusal, gateway_of};
use super::shape::{Direction, Shape};
use super::uplink::{Switch, Uplink, in_use};
use crate::container::Container;
use crate::error::{Error, ErrorKind, Result};
use crate::launch::{self, Keeper, Owner};
use crate::spec::net::show_mac;
use crate::spec::{Attachment, Firewall, Idmap, Net, NetworkSpec, Spec, WayOut};

/// /etc/hosts of those on it.
mod hosts;
/// What a container gets of it.
mod joining;
/// A container's device on it.
mod link;
/// The switch's ports.
mod port;
/// Those of this program.
mod registry;

use hosts::Hosts;
pub(super) use joining::ways;
pub(crate) use joining::{Joining, Kept, remove};
pub(crate) use link::Attached;
use link::Link;
use port::{Port, Sockets, State, in_firewall, mac_of};
use registry::{Registry, Subnets, unknown};
pub(crate) use registry::{keeper_of_networks, keeper_of_others, reopen};

/// The devices of a switch's namespace are the library's alone, and so are their numbers; but for the first, which modules of the
/// kernel that make tunnels may have taken for devices of theirs in every namespace.
const BRIDGE: End<'static> = End { index: 1000, name: "bridge" };
const FIRST_PORT: u32 = 1001;
/// A bridge of Linux has 1,023 ports (BR_MAX_PORTS).
const MAX_PORTS: usize = 1023;
/// The first device of a container, likewise.
const FIRST_INSIDE: u32 = 1000;
/// How many ended containers a start lets go of.
const SOME: usize = 16;
/// How long an implicit end may take.
const SHORT: Duration = Duration::from_secs(5);

/// Several containers on a network of their own, apart from everything else: they reach each other over IPv4 and IPv6, by address and by
/// name, and nobody else.
///
/// It is a bridge in a network namespace of its own, to which each container has a pair of devices (veth). So nothing of it is seen in
/// the host's network: no device, no address, no rule, and nobody's firewall is in the way. It takes no rights: an ordinary user's
/// networks are made in the user namespace in which their containers are.
///
/// Nothing leads out of it, unless it is [not internal](NetworkSpec::internal).
///
/// - [`container`](Self::container) starts a container on it; so does `net: "network:NAME"` of any container of this program, with
///   more to say if need be (see [`Attachment`]).
/// - A container sends from its own addresses only, of IP and of its device, whatever rights it has, and nothing but IP.
/// - A name is found by /etc/hosts: `name`, `hostname` and `aliases` of each container on the network, until somebody has seen its end: by
///   a wait or a close, the network itself when others are started.
/// - The network [shapes](Self::shape) links, [cuts](Self::partition) it in two, [takes a container off](Self::set_link).
/// - [`close`](Self::close), or the drop of the last clone, ends the containers that [`container`](Self::container) started, and the
///   network. Nothing of it outlives this program.
///
/// ```
/// use ringfence::spec::NetworkSpec;
/// use ringfence::{Network, Spec};
///
/// # fn main() -> ringfence::Result<()> {
/// let network = Network::start(&NetworkSpec::new().subnet("10.1.2.0/24"))?;
/// let server = network.container(&Spec::new().hostname("server"))?;
/// let client = network.container(&Spec::new())?;
/// let _listening = server.listen("0.0.0.0:80", 1)?;
/// let found = client.command("getent").args(["hosts", "server"]).output()?;
/// assert!(found.stdout.starts_with(b"10.1.2.2 ") || found.stdout.starts_with(b"fd"));
/// client.connect("10.1.2.2:80", None)?;
/// network.close(None)
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Network {
    handle: Arc<Handle>,
}

#[derive(Debug)]
struct Handle {
    shared: Arc<Shared>,
}

/// A device of a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    /// The name of the network, of one that this program made.
    pub network: Option<String>,
    /// The name of the device inside.
    pub interface: String,
    /// Its addresses; on a network the first of IPv4, the second of IPv6, if there are both.
    pub addresses: Vec<IpAddr>,
    /// The address of the device. `None`: the kernel's choice, which was not asked for.
    pub mac: Option<[u8; 6]>,
}

impl Address {
    pub(crate) fn describe(&self) -> Value {
        json!({
            "network": self.network,
            "interface": self.interface,
            "addresses": self.addresses.iter().map(IpAddr::to_string).collect::<Vec<_>>(),
            "mac": self.mac.map(show_mac),
        })
    }
}

/// A container's firewall, and what it decided about. What answers to something that had passed is not counted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FirewallUsage {
    /// The firewall.
    pub firewall: Firewall,
    /// Of each of its rules.
    pub rules: Vec<FirewallCount>,
    /// What came in without a rule.
    pub incoming: FirewallCount,
    /// What went out without a rule.
    pub outgoing: FirewallCount,
}

impl FirewallUsage {
    fn describe(&self) -> Value {
        let of = |count: &FirewallCount| json!({"packets": count.packets, "bytes": count.bytes});
        let rules = self.firewall.rules.iter().zip(&self.rules).map(|(rule, count)| {
            let mut json = rule.to_json();
            json["packets"] = count.packets.into();
            json["bytes"] = count.bytes.into();
            json
        });
        json!({
            "incoming": self.firewall.incoming.name(),
            "outgoing": self.firewall.outgoing.name(),
            "rules": rules.collect::<Vec<_>>(),
            "defaults": {"incoming": of(&self.incoming), "outgoing": of(&self.outgoing)},
        })
    }
}

/// What the handles of a network and its containers share.
#[derive(Debug)]
struct Shared {
    owner: Owner,
    number: u64,
    name: String,
    mtu: u32,
    /// The bridge's own.
    mac: Mac,
    subnets: Vec<IpNet>,
    /// Where containers send what is for outside.
    gateways: Vec<IpAddr>,
    /// The container that has the switch's network namespace, and nothing in it but its pid 1.
    holder: Container,
    keeper: Arc<Keeper>,
    hosts: PathBuf,
    next_port: AtomicU32,
    state: Mutex<State>,
    /// Held by who closes: another waits for it.
    closing: Mutex<()>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn closed() -> Error {
    Error::new(ErrorKind::Closed, "the network has ended").with_errno(libc::ESRCH)
}

/// Names of containers that hold networks end so; they are no names of hosts on it.
const SUFFIX: &str = ".network";

impl Network {
    /// Makes a network; nobody is on it yet.
    ///
    /// # Errors
    /// InvalidSpec; AlreadyExists (`name`); as [`Container::start`]. Unsupported with field `internal` where nothing can lead out, and where the kernel has no bridges (`CONFIG_BRIDGE`) or no
    /// filter for them (`CONFIG_NF_TABLES_BRIDGE`).
    pub fn start(spec: &NetworkSpec) -> Result<Self> {
        let context = |e: Error| match &spec.name {
            Some(name) => e.with_context(format!("start network {name:?}")),
            None => e.with_context("start network"),
        };
        Self::make(spec).map_err(context)
    }

    fn make(spec: &NetworkSpec) -> Result<Self> {
        static COUNTER: AtomicU64 = AtomicU64::new(1);
        let number = COUNTER.fetch_add(1, Ordering::Relaxed);
        let wanted = spec.validate()?;
        let beside = if spec.internal { Vec::new() } else { in_use() };
        let (held, mut subnets) = Subnets::take(number, wanted, &beside);
        subnets.sort_by_key(|subnet| !subnet.addr().is_ipv4());
        if let Some(i) = subnets.iter().position(|subnet| subnet.addr().is_ipv6()).filter(|_| !has_ipv6()) {
            return Err(Error::new(ErrorKind::Unsupported, "the kernel has no IPv6 (ipv6.disable, or CONFIG_IPV6)")
                .with_field(format!("subnets[{i}]"))
                .with_errno(libc::EAFNOSUPPORT));
        }
        let name = match &spec.name {
            Some(name) => name.clone(),
            None => format!("net-{}-{number}", std::process::id()),
        };
        let holder = Spec {
            // Names of networks are this program's, those of containers the user's.
            name: Some(format!("{name}.{}{SUFFIX}", std::process::id())),
            net: Net::None,
            // Its devices belong to the user namespace in which the user's containers are, not to one of its own.
            idmap: Idmap::Host,
            sysctls: sysctls_of_switch(spec.internal),
            ..Spec::default()
        };
        let (holder, switch) = Container::start_switch(&holder).map_err(|e| match e.field() {
            Some("name") => e.with_detail(format!("there is a network {name:?}")),
            _ => e,
        })?;
        let sockets = Sockets { route: Socket::new(switch.route), firewall: Socket::new(switch.firewall) };
        let mtu = spec.mtu.unwrap_or(NetworkSpec::MTU);
        let mut batch = Batch::default();
        let mac = mac_of(gateway_of(&subnets[0]), 0);
        batch.bridge(&BRIDGE, mac, mtu);
        sockets.route.request(batch).map_err(|e| match e.kind() {
            ErrorKind::Unsupported => e.with_hint("it takes a kernel with CONFIG_BRIDGE (module bridge)"),
            _ => e,
        })?;
        let mut batch = Batch::default();
        batch.firewall();
        sockets.firewall.request(batch).map_err(|e| match e.errno() {
            libc::ENOENT | libc::EOPNOTSUPP | libc::EAFNOSUPPORT | libc::EINVAL => e
                .with_kind(ErrorKind::Unsupported)
                .with_hint("it takes a kernel with CONFIG_NF_TABLES and CONFIG_NF_TABLES_BRIDGE"),
            _ => e,
        })?;
        let uplink = match spec.internal {
            true => None,
            false => {
                let gateways: Vec<IpNet> = subnets
                    .iter()
                    .map(|subnet| IpNet::new(gateway_of(subnet), subnet.prefix_len()).expect("its own prefix"))
                    .collect();
                let (route, firewall) = (&sockets.route, &sockets.firewall);
                let (holder, gateways, wanted) = (&holder, &gateways[..], spec.way_out);
                Some(Uplink::open(&Switch { holder, route, firewall, bridge: &BRIDGE, mtu, gateways, wanted })?)
            }
        };
        let (path, hosts) = switch.hosts;
        let hosts = Hosts::new(hosts).map_err(|e| Error::io("write", &e).with_path(path.to_string_lossy()))?;
        let shared = Arc::new(Shared {
            owner: Owner::this(),
            number,
            name: name.clone(),
            mtu,
            mac,
            subnets: subnets.clone(),
            gateways: uplink.as_ref().map(|uplink| uplink.gateways().to_vec()).unwrap_or_default(),
            keeper: holder.keeper().clone(),
            holder,
            hosts: path,
            next_port: AtomicU32::new(FIRST_PORT),
            state: Mutex::new(State {
                sockets: Some(Arc::new(sockets)),
                uplink,
                pool: Pool::new(subnets),
                ports: BTreeMap::new(),
                leaving: BTreeMap::new(),
                hosts,
                cuts: 0..0,
                filter: None,
                started: VecDeque::new(),
                subnets: Some(held),
            }),
            closing: Mutex::default(),
        });
        let handle = Arc::new(Handle { shared });
        lock(&Registry::own().networks).insert(name, (number, Arc::downgrade(&handle)));
        Ok(Self { handle })
    }

    /// Starts a container on it, from any thread: one whose `net` is not given gets a device on this network, `eth0`.
    ///
    /// The network keeps it: to drop its handle ends nothing, [`close`](Self::close) of the network does.
    ///
    /// # Errors
    /// As [`Container::start`]; InvalidSpec (`net`) for a spec that names other networks only; Closed. With field `net.addresses`:
    /// AlreadyExists for an address that another has, InvalidSpec for one of no subnet, Exhausted (`net`) when there is none left.
    pub fn container(&self, spec: &Spec) -> Result<Container> {
        let shared = &self.handle.shared;
        shared.owner.check()?;
        let spec = match &spec.net {
            Net::Loopback => Spec { net: Net::Attached(vec![Attachment::network(&shared.name)]), ..spec.clone() },
            net if net.attachments().iter().any(|one| one.on_network() == Some(&shared.name)) => spec.clone(),
            _ => {
                return Err(Error::spec("net", format!("does not name this network, {:?}", shared.name))
                    .with_hint("leave out net, or start the container by itself"));
            }
        };
        if lock(&shared.state).sockets.is_none() {
            return Err(closed());
        }
        shared.let_go(SOME);
        let container = Container::start(&spec)?;
        let mut state = lock(&shared.state);
        if state.sockets.is_none() {
            drop(state);
            let _ = container.close(Some(SHORT));
            return Err(closed());
        }
        state.started.push_back(container.clone());
        Ok(container)
    }

    /// The network of that name of this program.
    ///
    /// # Errors
    /// NotFound (`name`).
    pub fn by_name(name: &str) -> Result<Self> {
        let handle = Registry::find(name)?.ok_or_else(|| unknown(name).with_field("name"))?;
        handle.shared.owner.check()?;
        Ok(Self { handle })
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.handle.shared.name
    }

    /// Its subnets, as `ADDRESS/PREFIX`: IPv4 first.
    pub fn subnets(&self) -> Vec<String> {
        self.handle.shared.subnets.iter().map(IpNet::to_string).collect()
    }

    /// Whether containers can be started on it.
    pub fn is_running(&self) -> bool {
        self.handle.shared.holder.is_running()
    }

    /// The containers on it: their ids and addresses, in the order in which they came.
    ///
    /// # Errors
    /// Closed.
    pub fn members(&self) -> Result<Vec<(String, Address)>> {
        let shared = self.open()?;
        shared.let_go(usize::MAX);
        let state = lock(&shared.state);
        let all = state.ports.values().filter_map(|port| Some((port.container.clone()?, shared.address(port))));
        Ok(all.collect())
    }

    fn open(&self) -> Result<&Arc<Shared>> {
        let shared = &self.handle.shared;
        shared.owner.check()?;
        if lock(&shared.state).sockets.is_none() { Err(closed()) } else { Ok(shared) }
    }

    /// Cuts the network: nothing passes from a container of the one side to one of the other, nor back, from now on; what is
    /// under way on connections that are open stalls. Containers that are on neither side reach both. Further cuts add to it;
    /// [`heal`](Self::heal) takes all of them away. A container that starts later is on no side.
    ///
    /// # Errors
    /// InvalidArgument (`one`, `other`) for an empty side, and for a container on both; NotFound for one that is not on the network;
    /// Closed.
    pub fn partition(&self, one: &[&Container], other: &[&Container]) -> Result<()> {
        let shared = self.open()?;
        let mut state = lock(&shared.state);
        let (left, right) = (state.ports_of("one", one)?, state.ports_of("other", other)?);
        if let Some(both) = left.iter().find(|port| right.contains(port)) {
            let who = state.ports[both].container.clone().unwrap_or_default();
            let error = Error::new(ErrorKind::InvalidArgument, format!("container {who} is on both sides"));
            return Err(error.with_field("other").with_errno(libc::EINVAL));
        }
        let sockets = state.sockets.clone().ok_or_else(closed)?;
        let mut batch = Batch::default();
        batch.cut(state.cuts.end, [&left, &right]);
        sockets.firewall.request(batch)?;
        state.cuts.end += 1;
        Ok(())
    }

    /// Everybody reaches everybody again.
    ///
    /// # Errors
    /// Closed.
    pub fn heal(&self) -> Result<()> {
        let shared = self.open()?;
        let mut state = lock(&shared.state);
        if state.cuts.is_empty() {
            return Ok(());
        }
        let sockets = state.sockets.clone().ok_or_else(closed)?;
        let mut batch = Batch::default();
        batch.heal();
        sockets.firewall.request(batch)?;
        // Nothing is cut any more; what is left of the cuts means nothing.
        while !state.cuts.is_empty() {
            let some = state.cuts.start..state.cuts.end.min(state.cuts.start + 500);
            let mut batch = Batch::default();
            batch.forget(some.clone());
            sockets.firewall.request(batch)?;
            state.cuts.start = some.end;
        }
        Ok(())
    }

    /// Whether the link of a container is up: a link that is down carries nothing, and programs see that their device has no
    /// carrier.
    ///
    /// # Errors
    /// NotFound (`container`) for one that is not on the network; Closed.
    pub fn set_link(&self, container: &Container, up: bool) -> Result<()> {
        let shared = self.open()?;
        let state = lock(&shared.state);
        let number = state.port_of("container", container)?;
        let sockets = state.sockets.clone().ok_or_else(closed)?;
        let mut batch = Batch::default();
        batch.set_up(&End { index: number, name: &state.ports[&number].name }, up);
        sockets.route.request(batch)
    }

    /// Gives the link of a container a rate, a delay, losses; in the place of what it had. The default [`Shape`] takes all away.
    ///
    /// # Errors
    /// InvalidArgument with the member of the shape as field; NotFound (`container`) for one that is not on the network; Unsupported
    /// for a kernel without what it takes; Closed.
    pub fn shape(&self, container: &Container, shape: &Shape, direction: Direction) -> Result<()> {
        let shared = self.open()?;
        shape.validate()?;
        let mut state = lock(&shared.state);
        let number = state.port_of("container", container)?;
        let sockets = state.sockets.clone().ok_or_else(closed)?;
        let port = state.ports.get_mut(&number).ok_or_else(closed)?;
        let missing = |e: Error| match e.errno() {
            // tc_modify_qdisc of a kind that is not there.
            libc::ENOENT | libc::EOPNOTSUPP => {
                let option = if shape.has_faults() { "CONFIG_NET_SCH_NETEM" } else { "CONFIG_NET_SCH_TBF" };
                e.with_kind(ErrorKind::Unsupported).with_hint(format!("it takes a kernel with {option}"))
            }
            _ => e,
        };
        if direction != Direction::Out {
            let mut batch = Batch::default();
            batch.shape(&End { index: number, name: &port.name }, shape, shared.mtu);
            sockets.route.request(batch).map_err(missing)?;
        }
        if direction != Direction::In && !port.shape_sent(&sockets.route, number, shape, shared.mtu).map_err(missing)? {
            // The default set has none, and no program inside gets a right that it had not.
            let is_shape = *shape != Shape::default();
            if is_shape && container.may_have_net_admin() {
                let what = "inside, CAP_NET_ADMIN could take away what its sending is bound to";
                let error = Error::new(ErrorKind::Unsupported, what).with_errno(libc::EOPNOTSUPP);
                let hint = "it takes a kernel with CONFIG_IFB, CONFIG_NET_SCH_INGRESS, CONFIG_NET_CLS_U32 and CONFIG_NET_ACT_MIRRED";
                return Err(error.with_field("direction").with_hint(hint));
            }
            let socket = port.socket.clone().ok_or_else(closed)?;
            let mut batch = Batch::default();
            batch.shape(&End { index: port.inside, name: &port.interface }, shape, shared.mtu);
            socket.request(batch).map_err(missing)?;
            port.is_shaped_inside = is_shape;
        }
        Ok(())
    }

    /// Gives a container another firewall, in the place of what it had, at once: what is open and passes no longer stalls, what still
    /// passes goes on. Its counters begin anew. [`Firewall::new`] lets everything pass.
    ///
    /// # Errors
    /// InvalidSpec with `firewall` and the member as field; Exhausted (`firewall.rules`) for more than the kernel takes at once;
    /// NotFound (`container`) for one that is not on the network; Unsupported; Closed. The firewall is then what it was.
    pub fn set_firewall(&self, container: &Container, firewall: &Firewall) -> Result<()> {
        let shared = self.open()?;
        firewall.check()?;
        let mut state = lock(&shared.state);
        let number = state.port_of("container", container)?;
        let sockets = state.sockets.clone().ok_or_else(closed)?;
        state.start_filter(&sockets.firewall)?;
        state.filter_port(&sockets.firewall, number, Some(firewall)).map_err(|e| in_firewall(e, "firewall"))
    }

    /// The firewall of a container, and what each of its rules and defaults decided about since it was set. One that was given none
    /// lets everything pass, and counts nothing.
    ///
    /// # Errors
    /// NotFound (`container`) for one that is not on the network; Closed.
    pub fn firewall(&self, container: &Container) -> Result<FirewallUsage> {
        let shared = self.open()?;
        let state = lock(&shared.state);
        let number = state.port_of("container", container)?;
        let sockets = state.sockets.clone().ok_or_else(closed)?;
        let Some(kept) = state.filter.as_ref().and_then(|filter| filter.kept(number)) else {
            return Ok(FirewallUsage::default());
        };
        let (rules, [incoming, outgoing]) = Filter::counts(&sockets.firewall, number, kept)?;
        Ok(FirewallUsage { firewall: kept.firewall.clone(), rules, incoming, outgoing })
    }

    /// [`firewall`](Self::firewall) as JSON: as the spec has it, with `packets` and `bytes` in each rule, and in `defaults`:
    /// `{"incoming": "deny", "outgoing": "allow", "rules": [{"direction": "in", "action": "allow", "packets": 3, "bytes": 180}],
    /// "defaults": {"incoming": {"packets": 1, "bytes": 60}, "outgoing": {"packets": 0, "bytes": 0}}}`.
    ///
    /// # Errors
    /// As [`firewall`](Self::firewall).
    pub fn firewall_json(&self, container: &Container) -> Result<String> {
        Ok(self.firewall(container)?.describe().to_string())
    }

    /// As JSON: name, subnets, mtu, and the containers with their addresses.
    pub fn info_json(&self) -> String {
        let shared = &self.handle.shared;
        // In a forked child another thread's lock would never be given back.
        let members = if shared.owner.is_this() { self.members().unwrap_or_default() } else { Vec::new() };
        let way_out = match shared.owner.is_this() {
            true => lock(&shared.state).uplink.as_ref().filter(|uplink| uplink.is_open()).map(Uplink::name),
            false => None,
        };
        let member = |(container, address): &(String, Address)| {
            let mut json = address.describe();
            json["container"] = container.as_str().into();
            json
        };
        json!({
            "name": shared.name,
            "subnets": self.subnets(),
            "mtu": shared.mtu,
            "internal": shared.gateways.is_empty(),
            "way_out": way_out,
            "pid": shared.holder.pid(),
            "members": members.iter().map(member).collect::<Vec<_>>(),
        })
        .to_string()
    }

    /// SIGKILL to every process of the containers that [`container`](Self::container) started. Does not wait; the network goes on.
    ///
    /// # Errors
    /// Closed.
    pub fn kill(&self) -> Result<()> {
        let shared = self.open()?;
        let all: Vec<Container> = lock(&shared.state).started.iter().cloned().collect();
        for container in all {
            let _ = container.kill();
        }
        Ok(())
    }

    /// Ends the containers that [`container`](Self::container) started, then the network; waits until all is undone. The devices of
    /// others on it are gone. Later calls fail with Closed. Closing it again is fine.
    ///
    /// # Errors
    /// As [`Container::close`]: the first.
    pub fn close(&self, timeout: Option<Duration>) -> Result<()> {
        self.handle.shared.owner.check()?;
        self.handle.shared.close(timeout)
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        if self.shared.owner.is_this() {
            let _ = self.shared.close(Some(SHORT));
        }
    }
}

/// Parameters of a switch's namespace.
fn sysctls_of_switch(internal: bool) -> BTreeMap<String, String> {
    let ipv6: &[(&str, &str)] = match internal {
        // Nobody speaks to the switch's own ends of IPv6, which passes all the same.
        true => &[("net.ipv6.conf.default.disable_ipv6", "1")],
        // The bridge has an address, its ports have none.
        false => &[("net.ipv6.conf.all.forwarding", "1"), ("net.ipv6.conf.default.addr_gen_mode", "1")],
    };
    let ipv4: &[(&str, &str)] = if internal { &[] } else { &[("net.ipv4.ip_forward", "1")] };
    let all = ipv6.iter().filter(|_| has_ipv6()).chain(ipv4);
    all.map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

/// Whether the kernel has IPv6.
pub(crate) fn has_ipv6() -> bool {
    static THERE: OnceCell<bool> = OnceCell::new();
    *THERE.get_or_init(|| Path::new("/proc/net/if_inet6").exists())
}

impl Shared {
    fn close(&self, timeout: Option<Duration>) -> Result<()> {
        let deadline = launch::deadline(timeout);
        let _closing = loop {
            match self.closing.try_lock() {
                Ok(closing) => break closing,
                Err(TryLockError::Poisoned(closing)) => break closing.into_inner(),
                Err(TryLockError::WouldBlock) if deadline.is_some_and(|at| Instant::now() >= at) => {
                    let error = Error::new(ErrorKind::TimedOut, "another thread is closing the network still");
                    return Err(error.with_errno(libc::ETIMEDOUT));
                }
                Err(TryLockError::WouldBlock) => std::thread::sleep(Duration::from_millis(1)),
            }
        };
        let (started, uplink) = {
            let mut state = lock(&self.state);
            state.sockets = None;
            state.ports.values_mut().for_each(|port| port.socket = None);
            (std::mem::take(&mut state.started), state.uplink.take())
        };
        lock(&Registry::own().networks)
            .retain(|_, (number, handle)| *number != self.number && handle.strong_count() > 0);
        let left = || deadline.map(|at| at.saturating_duration_since(Instant::now()));
        for container in &started {
            let _ = container.kill();
        }
        let mut result = Ok(());
        for container in &started {
            result = result.and(container.close(left()));
        }
        if let Some(uplink) = uplink {
            result = result.and(uplink.close(left()));
        }
        let ended = self.holder.close(left());
        if ended.is_ok() {
            lock(&self.state).subnets = None;
        }
        result.and(ended)
    }

    /// Containers that the network started and that have ended leave it, of so many at most: nobody else may look at them.
    fn let_go(&self, many: usize) {
        // Who closes ends them all, and must not miss those that are looked at here.
        let Ok(_closing) = self.closing.try_lock() else { return };
        let looked_at: Vec<Container> = {
            let mut state = lock(&self.state);
            let count = many.min(state.started.len());
            state.started.drain(..count).collect()
        };
        // Their ends, and the last handles of those that are closed, want the lock.
        let over = |one: &Container| one.is_closed() || one.wait_end(Some(Duration::ZERO)).unwrap_or(true);
        let (ended, go_on): (Vec<_>, Vec<_>) = looked_at.into_iter().partition(over);
        lock(&self.state).started.extend(go_on);
        drop(ended);
    }

    fn address(&self, port: &Port) -> Address {
        Address {
            network: Some(self.name.clone()),
            interface: port.interface.clone(),
            addresses: port.addresses.iter().map(IpNet::addr).collect(),
            mac: Some(port.mac),
        }
    }

    /// Who joins a network that is not internal reaches what is outside: a program that led there and has ended is started again.
    fn reopen(&self, state: &mut State) -> Result<()> {
        let (Some(uplink), Some(sockets)) = (state.uplink.as_mut(), state.sockets.clone()) else { return Ok(()) };
        if uplink.is_open() {
            return Ok(());
        }
        let (route, firewall) = (&sockets.route, &sockets.firewall);
        let switch = Switch {
            holder: &self.holder,
            route,
            firewall,
            bridge: &BRIDGE,
            mtu: self.mtu,
            gateways: &[],
            wanted: WayOut::Auto,
        };
        uplink.reopen(&switch).map_err(|e| if e.field().is_some() { e } else { e.with_field("net") })
    }

    /// A port for a container that is being started: its addresses are taken, its names are known.
    ///
    /// Errors are at `net`, which the caller knows better.
    fn enter(self: &Arc<Self>, one: &Attachment, names: &[String], interface: &str, inside: u32) -> Result<Link> {
        let link = self.try_enter(one, names, interface, inside);
        match link {
            Err(error) if matches!(error.kind(), ErrorKind::Exhausted | ErrorKind::AlreadyExists) => {
                self.let_go(usize::MAX);
                self.try_enter(one, names, interface, inside)
            }
            link => link,
        }
    }

    fn try_enter(self: &Arc<Self>, one: &Attachment, names: &[String], interface: &str, inside: u32) -> Result<Link> {
        let mut state = lock(&self.state);
        if state.sockets.is_none() {
            return Err(closed().with_field("net"));
        }
        self.reopen(&mut state)?;
        state.let_leave();
        if state.ports.len() >= MAX_PORTS {
            let error = Error::new(ErrorKind::Exhausted, format!("a bridge has {MAX_PORTS} ports, and all are taken"));
            return Err(error.with_field("net").with_errno(libc::EXFULL));
        }
        let who = names.first().cloned().unwrap_or_default();
        for (i, address) in one.addresses.iter().enumerate() {
            let of_subnet =
                |subnet: &IpNet| Some(subnet.prefix_len()) == address.prefix && subnet.contains(&address.address);
            if address.prefix.is_some() && !self.subnets.iter().any(of_subnet) {
                return Err(Error::spec(
                    format!("net.addresses[{i}]"),
                    format!("{address} has not the prefix of a subnet of the network"),
                ));
            }
        }
        let wanted: Vec<IpAddr> = one.addresses.iter().map(|one| one.address).collect();
        let addresses = state.pool.take(&wanted, &who).map_err(|why| refused(&self.subnets, why))?;
        let number = self.next_port.fetch_add(1, Ordering::Relaxed);
        let leaving = state.leaving.values().map(|one| &one.port);
        let all: Vec<&Port> = state.ports.values().chain(leaving).collect();
        let has = |mac: Mac| match all.iter().find(|port| port.mac == mac) {
            None if mac == self.mac => Some("the gateway".to_owned()),
            port => port.map(|port| port.names.join(" ")),
        };
        let mac = one.mac.unwrap_or_else(|| {
            let first = addresses[0].addr();
            (0..).map(|salt| mac_of(first, salt)).find(|mac| has(*mac).is_none()).expect("there are more than ports")
        });
        let taken = has(mac);
        if let Some(by) = taken {
            state.pool.give_back(&addresses);
            let what = format!("{} is the address of another device on the network ({by})", show_mac(mac));
            let error = Error::new(ErrorKind::AlreadyExists, what).with_field("net.mac");
            return Err(error.with_errno(libc::EADDRINUSE));
        }
        let name = format!("port{number}");
        let port = Port {
            name,
            mac,
            addresses,
            names: names.to_vec(),
            container: None,
            interface: interface.to_owned(),
            inside,
            socket: None,
            lines_at: None,
            own_hosts: Vec::new(),
            is_linked: false,
            waiting: None,
            is_shaped_inside: false,
            wanted: one.firewall.clone(),
        };
        state.ports.insert(number, port);
        Ok(Link { network: self.clone(), number, gateways: Vec::new(), lead: None })
    }
}

fn refused(subnets: &[IpNet], (address, why): (Option<IpAddr>, Refusal)) -> Error {
    let shown = address.map(|address| address.to_string()).unwrap_or_default();
    let all = subnets.iter().map(IpNet::to_string).collect::<Vec<_>>().join(" and ");
    let (kind, errno, what) = match why {
        Refusal::Outside => (ErrorKind::InvalidSpec, libc::EINVAL, format!("{shown} is not in {all}")),
        Refusal::Reserved => {
            let what = format!("{shown} is not for containers: it is the network's own, its gateway's or everybody's");
            (ErrorKind::InvalidSpec, libc::EINVAL, what)
        }
        Refusal::Second => (ErrorKind::InvalidSpec, libc::EINVAL, format!("{shown} is a second address of one subnet")),
        Refusal::Taken(by) if by.is_empty() => {
            (ErrorKind::AlreadyExists, libc::EADDRINUSE, format!("{shown} is another container's"))
        }
        Refusal::Taken(by) => (ErrorKind::AlreadyExists, libc::EADDRINUSE, format!("{shown} is that of {by:?}")),
        Refusal::Exhausted => {
            let error = Error::new(ErrorKind::Exhausted, format!("all addresses of {all} are taken"));
            return error.with_field("net").with_errno(libc::EADDRNOTAVAIL);
        }
    };
    Error::new(kind, what).with_field("net.addresses").with_errno(errno)
}

impl Container {
    /// Its devices on networks, in the order of the spec.
    ///
    /// # Errors
    /// Closed.
    pub fn addresses(&self) -> Result<Vec<Address>> {
        self.network_addresses()
    }

    /// [`addresses`](Self::addresses) as JSON: `[{"network": "shop", "interface": "eth0", "addresses": ["10.89.0.2"], "mac": ...}]`.
    pub fn addresses_json(&self) -> Result<String> {
        Ok(self.addresses()?.iter().map(Address::describe).collect::<Value>().to_string())
    }
}
