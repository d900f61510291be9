//! A network of containers: a bridge in a network namespace of its own, and what keeps it.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::fs::File;
use std::hash::{Hash, Hasher};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::Range;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError, Weak};
use std::time::{Duration, Instant};

use ipnet::IpNet;
use once_cell::race::OnceBox;
use once_cell::sync::OnceCell;
use serde_json::{Value, json};

use super::attach::{OnHost, Other, Taps, everywhere};
use super::firewall::filter::{Filter, FirewallCount, Member};
use super::link::{End, Mac, Remote};
use super::netlink::{Batch, Socket};
use super::pool::{Pool, Refusal, gateway_of};
use super::shape::{Direction, Shape};
use super::uplink::{Lead, Switch, Uplink};
use crate::container::{Container, Moved, new_index};
use crate::error::{Error, ErrorKind, Result};
use crate::launch::{self, HostOnly, Keeper, Owner};
use crate::plan::container::{LOCALHOST, hosts_text};
use crate::spec;
use crate::spec::net::{interfaces, show_mac};
use crate::spec::{
    Attachment, AttachmentKind, Firewall, Idmap, NamespaceKind, NamespaceSource, Net, NetworkSpec, Spec, WayOut,
};

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

/// An error of a firewall, which has its place in the spec.
fn in_firewall(error: Error, field: &str) -> Error {
    match error.errno() {
        libc::EMSGSIZE | libc::ENOBUFS => {
            let what = "are more than the kernel takes in one transaction";
            Error::new(ErrorKind::Exhausted, what)
                .with_errno(error.errno())
                .with_field(format!("{field}.rules"))
                .with_hint("fewer rules, ports or names; or a larger net.core.wmem_max")
        }
        _ => error.with_field(field),
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

#[derive(Debug)]
struct State {
    /// `None` when it is closed.
    sockets: Option<Arc<Sockets>>,
    /// Of a network that is not internal.
    uplink: Option<Uplink>,
    pool: Pool,
    /// By the number of the port.
    ports: BTreeMap<u32, Port>,
    /// Likewise.
    leaving: BTreeMap<u32, Leaving>,
    hosts: Hosts,
    /// The numbers of the cuts that there are.
    cuts: Range<u32>,
    /// Since the first firewall of a container.
    filter: Option<Filter>,
    /// Those that the network started.
    started: VecDeque<Container>,
}

/// Sockets in the switch's namespace.
#[derive(Debug)]
struct Sockets {
    route: Socket,
    firewall: Socket,
}

#[derive(Debug)]
struct Port {
    name: String,
    mac: Mac,
    addresses: Vec<IpNet>,
    names: Vec<String>,
    /// The container, when it has started.
    container: Option<String>,
    interface: String,
    /// The number of the device inside.
    inside: u32,
    /// A socket in the container's namespace.
    socket: Option<Arc<Socket>>,
    /// Where its lines are in /etc/hosts, since it has its devices.
    lines_at: Option<(u64, u64)>,
    /// Of containers with this device whose /etc/hosts are their own.
    own_hosts: Vec<Weak<OwnHosts>>,
    /// It is on the switch.
    is_linked: bool,
    /// The device behind which what it sends waits, and its name, if there is one.
    waiting: Option<(u32, String)>,
    /// Where there is none, the discipline is inside.
    is_shaped_inside: bool,
    /// What the spec says of it.
    wanted: Option<Firewall>,
}

/// A port that has gone, of which the kernel has something still: nobody else gets its addresses.
#[derive(Debug)]
struct Leaving {
    port: Port,
    lead: Option<(Lead, Vec<HostOnly>)>,
}

impl Port {
    fn member(&self, number: u32) -> Member<'_> {
        Member { port: number, names: &self.names, addresses: &self.addresses, mac: self.mac }
    }

    /// What becomes of what it sends, on this side, where nobody inside can change it. False: the kernel cannot do it.
    fn shape_sent(&mut self, route: &Socket, number: u32, shape: &Shape, mtu: u32) -> Result<bool> {
        let here = End { index: number, name: &self.name };
        if *shape == Shape::default() {
            let Some((index, name)) = &self.waiting else { return Ok(!self.is_shaped_inside) };
            let mut batch = Batch::default();
            batch.unshape_incoming(&here, &End { index: *index, name });
            route.request(batch)?;
            self.waiting = None;
            return Ok(true);
        }
        let mut batch = Batch::default();
        if let Some((index, name)) = &self.waiting {
            batch.shape(&End { index: *index, name }, shape, mtu);
            return route.request(batch).map(|()| true);
        }
        let (index, name) = (new_index(), format!("sent{number}"));
        let waiting = End { index, name: &name };
        batch.shape_incoming(&here, &waiting, shape, mtu);
        let Err(error) = route.request(batch) else {
            self.waiting = Some((index, name));
            return Ok(true);
        };
        let mut batch = Batch::default();
        batch.unshape_incoming(&here, &waiting);
        let _ = route.request(batch);
        // Of the shape itself the caller says it.
        let is_shape = error.step().is_some_and(|step| step.ends_with("tbf") || step.ends_with("netem"));
        match error.errno() {
            libc::EOPNOTSUPP | libc::ENOENT if !is_shape => Ok(false),
            _ => Err(error),
        }
    }

    fn lines(&self) -> String {
        if self.names.is_empty() {
            return String::new();
        }
        let names = self.names.join(" ");
        self.addresses.iter().map(|address| format!("{}\t{names}\n", address.addr())).collect()
    }
}

/// What /etc/hosts of those on a network is. Others read it at any time: a line is written once, where it stays, and its place is filled
/// with empty lines when it goes.
#[derive(Debug)]
struct Hosts {
    file: File,
    length: u64,
    /// Where there are empty lines: from where on, and how many.
    free: Vec<(u64, u64)>,
}

impl Hosts {
    /// Where the lines are now.
    fn add(&mut self, lines: &str) -> (u64, u64) {
        let needed = lines.len() as u64;
        let at = match self.free.iter_mut().find(|(_, room)| *room >= needed) {
            Some((at, room)) => {
                let place = *at;
                (*at, *room) = (*at + needed, *room - needed);
                place
            }
            None => {
                self.length += needed;
                self.length - needed
            }
        };
        self.free.retain(|(_, room)| *room > 0);
        // A full file system is the host's own: the names are missing then.
        let _ = self.file.write_all_at(lines.as_bytes(), at);
        (at, needed)
    }

    fn remove(&mut self, (at, length): (u64, u64)) {
        let _ = self.file.write_all_at(&vec![b'\n'; length as usize], at);
        self.free.push((at, length));
        // Neighbours become one, so that longer names find room as well.
        self.free.sort_unstable();
        self.free.dedup_by(|next, one| {
            let adjacent = one.0 + one.1 == next.0;
            if adjacent {
                one.1 += next.1;
            }
            adjacent
        });
    }
}

/// /etc/hosts of a container that has entries of its own, or several networks. It can write to it, and that is its own matter.
#[derive(Debug)]
pub(crate) struct OwnHosts {
    file: HostOnly,
    front: String,
    parts: Mutex<Parts>,
}

#[derive(Debug, Default)]
struct Parts {
    by_network: BTreeMap<String, String>,
    /// The most that was ever written.
    longest: usize,
}

impl OwnHosts {
    fn new(file: OwnedFd, front: String) -> Arc<Self> {
        Arc::new(Self { file: HostOnly::new(file), front, parts: Mutex::default() })
    }

    fn set(&self, network: &str, text: &str) {
        let mut parts = lock(&self.parts);
        parts.by_network.insert(network.to_owned(), text.to_owned());
        let texts = [self.front.as_str()].into_iter().chain(parts.by_network.values().map(String::as_str));
        let mut whole = texts.collect::<String>().into_bytes();
        // Empty lines in the place of what there was: who reads meanwhile finds no end of a line of before.
        parts.longest = parts.longest.max(whole.len());
        whole.resize(parts.longest, b'\n');
        if !self.file.is_open() {
            return;
        }
        // The container's memory may be full: then it has the names of before.
        if let Ok(file) = self.file.as_fd().try_clone_to_owned().map(File::from)
            && file.write_all_at(&whole, 0).is_ok()
        {
            let _ = file.set_len(whole.len() as u64);
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The networks of a process. A forked child cannot use its parent's: another thread's lock would never be given back. So it has one of
/// its own behind that.
struct Registry {
    owner: Owner,
    /// By name, with a number that no other has.
    networks: Mutex<HashMap<String, (u64, Weak<Handle>)>>,
    next: OnceBox<Registry>,
}

static REGISTRIES: OnceBox<Registry> = OnceBox::new();

impl Registry {
    fn new() -> Box<Self> {
        Box::new(Self { owner: Owner::this(), networks: Mutex::default(), next: OnceBox::new() })
    }

    /// That of this process, which is made if need be.
    fn own() -> &'static Self {
        let mut at = REGISTRIES.get_or_init(Self::new);
        while !at.owner.is_this() {
            at = at.next.get_or_init(Self::new);
        }
        at
    }

    /// The handle of a network of this program; not under the lock, for it may be the last one, whose drop closes it.
    ///
    /// # Errors
    /// ForkedChild in a child that has made none, where the name may be one of the parent's.
    fn find(name: &str) -> Result<Option<Arc<Handle>>> {
        let Some(mut at) = REGISTRIES.get() else { return Ok(None) };
        while !at.owner.is_this() {
            match at.next.get() {
                Some(next) => at = next,
                None => return at.owner.check().map(|()| None),
            }
        }
        let found = lock(&at.networks).get(name).and_then(|(_, handle)| handle.upgrade());
        Ok(found)
    }
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
        let mut subnets = spec.validate()?;
        if subnets.is_empty() {
            let all = NetworkSpec::SUBNETS.iter().map(|text| text.parse::<IpNet>().expect("they are subnets"));
            subnets = all.filter(|subnet| subnet.addr().is_ipv4() || has_ipv6()).collect();
        }
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
        hosts
            .write_all_at(LOCALHOST.as_bytes(), 0)
            .map_err(|e| Error::io("write", &e).with_path(path.to_string_lossy()))?;
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
                hosts: Hosts { file: hosts, length: LOCALHOST.len() as u64, free: Vec::new() },
                cuts: 0..0,
                filter: None,
                started: VecDeque::new(),
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
            libc::ENOENT | libc::EOPNOTSUPP => e
                .with_kind(ErrorKind::Unsupported)
                .with_hint("rate takes a kernel with CONFIG_NET_SCH_TBF, the others take CONFIG_NET_SCH_NETEM"),
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

fn unknown(name: &str) -> Error {
    Error::new(ErrorKind::NotFound, format!("this program has no network {name:?}")).with_errno(libc::ENOENT)
}

fn find(name: &str) -> Option<Arc<Shared>> {
    let found = Registry::find(name).ok()??.shared.clone();
    (found.owner.is_this() && lock(&found.state).sockets.is_some()).then_some(found)
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
        result.and(self.holder.close(left()))
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

    /// A port for a container that is being started: its addresses are taken, its names are known.
    ///
    /// Errors are at `net`, which the caller knows better.
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

/// An address of a device that says whose it is: locally administered, then the IP address, or of IPv6 what is made of all its bits.
/// Another one with each salt.
fn mac_of(address: IpAddr, salt: u64) -> Mac {
    match address {
        IpAddr::V4(address) => {
            let [a, b, c, d] = address.octets();
            [0x02, salt as u8, a, b, c, d]
        }
        IpAddr::V6(address) => {
            let mut hasher = std::hash::DefaultHasher::new();
            (address, salt).hash(&mut hasher);
            let [a, b, c, d, e, ..] = hasher.finish().to_be_bytes();
            [0x06, a, b, c, d, e]
        }
    }
}

impl State {
    fn port_of(&self, field: &'static str, container: &Container) -> Result<u32> {
        let id = container.network_id();
        let found = self.ports.iter().find(|(_, port)| port.container.as_deref() == Some(id));
        found.map(|(number, _)| *number).ok_or_else(|| {
            let name = container.name().unwrap_or(container.id());
            Error::new(ErrorKind::NotFound, format!("container {name} is not on the network"))
                .with_field(field)
                .with_errno(libc::ENOENT)
        })
    }

    fn ports_of(&self, field: &'static str, containers: &[&Container]) -> Result<Vec<u32>> {
        if containers.is_empty() {
            let error = Error::new(ErrorKind::InvalidArgument, "nobody is on this side");
            return Err(error.with_field(field).with_errno(libc::EINVAL));
        }
        containers.iter().map(|container| self.port_of(field, container)).collect()
    }

    /// A port has gone: what others let pass to and from its addresses is taken away before anybody else has them.
    fn leave(&mut self, number: u32, mut leaving: Leaving) {
        let Some(sockets) = self.sockets.clone() else { return };
        let led = match (&mut leaving.lead, &mut self.uplink) {
            (Some((lead, _)), Some(uplink)) => uplink.withdraw(&sockets.firewall, lead),
            _ => Ok(()),
        };
        let left = self.filter.as_mut().map_or(Ok(()), |filter| filter.leave(&sockets.firewall, number));
        match led.and(left) {
            Ok(()) => self.pool.give_back(&leaving.port.addresses),
            Err(error) => {
                log::warn!("{} does not leave its network yet: {error}", leaving.port.name);
                self.leaving.insert(number, leaving);
            }
        }
    }

    /// Tries again what has not gone.
    fn let_leave(&mut self) {
        for (number, leaving) in std::mem::take(&mut self.leaving) {
            self.leave(number, leaving);
        }
    }

    /// There is a filter, which knows all ports.
    fn start_filter(&mut self, socket: &Socket) -> Result<()> {
        if self.filter.is_none() {
            // Each port has an address of each subnet.
            let all = self.ports.values().next().map(|port| port.addresses.as_slice()).unwrap_or_default();
            let of_all = all.iter().filter_map(|address| match address {
                IpNet::V4(net) if net.prefix_len() < 31 => Some(net.broadcast()),
                _ => None,
            });
            let begun = Filter::begin(socket, &of_all.collect::<Vec<_>>(), self.uplink.is_none()).map_err(|e| match e
                .errno()
            {
                libc::ENOENT | libc::EOPNOTSUPP | libc::EINVAL => {
                    e.with_kind(ErrorKind::Unsupported).with_hint("it takes a kernel with CONFIG_NFT_OBJREF")
                }
                _ => e,
            });
            self.filter = Some(begun?);
        }
        let Some(filter) = self.filter.as_ref().filter(|one| one.len() < self.ports.len() + self.leaving.len()) else {
            return Ok(());
        };
        let is_new = |number: &u32| !filter.knows(*number);
        let new = self.ports.iter().filter(|(number, port)| port.is_linked && is_new(number));
        let new: Vec<u32> = new.map(|(number, _)| *number).collect();
        new.into_iter().try_for_each(|number| self.filter_port(socket, number, None))
    }

    /// Gives a port a firewall; or makes it known to the filter, in the same transaction.
    fn filter_port(&mut self, socket: &Socket, number: u32, firewall: Option<&Firewall>) -> Result<()> {
        let Some(filter) = &mut self.filter else { return Ok(()) };
        let port = self.ports.get(&number).ok_or_else(closed)?;
        filter.change(socket, &port.member(number), firewall)
    }

    /// The lines of all that have their devices.
    fn lines(&self) -> String {
        self.ports.values().filter(|port| port.lines_at.is_some()).map(Port::lines).collect()
    }

    /// Somebody has come or gone.
    fn tell_own_hosts(&mut self, network: &str) {
        let own: Vec<Arc<OwnHosts>> =
            self.ports.values().flat_map(|port| &port.own_hosts).filter_map(Weak::upgrade).collect();
        if !own.is_empty() {
            let lines = self.lines();
            own.iter().for_each(|own| own.set(network, &lines));
        }
    }

    /// It has its devices, and is found by its names.
    fn settle(&mut self, network: &str, number: u32) {
        let Some(lines) = self.ports.get(&number).map(Port::lines) else { return };
        let at = self.hosts.add(&lines);
        if let Some(port) = self.ports.get_mut(&number) {
            port.lines_at = Some(at);
        }
        self.tell_own_hosts(network);
    }
}

/// A container's device on a network: dropped, it has left.
#[derive(Debug)]
pub(crate) struct Link {
    network: Arc<Shared>,
    number: u32,
    /// Those of the network that the container uses: another device may lead out already.
    gateways: Vec<IpAddr>,
    /// Ports of the host that lead to it, and sockets that have them as long.
    lead: Option<(Lead, Vec<HostOnly>)>,
}

impl Drop for Link {
    fn drop(&mut self) {
        let shared = &self.network;
        if !shared.owner.is_this() {
            return;
        }
        let mut state = lock(&shared.state);
        let Some(port) = state.ports.remove(&self.number) else { return };
        let Some(sockets) = state.sockets.clone() else { return };
        let addresses: Vec<IpAddr> = port.addresses.iter().map(IpNet::addr).collect();
        let mut batch = Batch::default();
        batch.sources(self.number, &addresses, port.mac, false);
        // Where it did not come so far that they were added, there is nothing to remove. Numbers of ports are not used again: what
        // stays in a set means nobody.
        let _ = sockets.firewall.request(batch);
        if let Some((index, name)) = &port.waiting {
            let mut batch = Batch::default();
            batch.delete(&End { index: *index, name });
            let _ = sockets.route.request(batch);
        }
        let lines_at = port.lines_at;
        state.leave(self.number, Leaving { port, lead: self.lead.take() });
        if let Some(at) = lines_at {
            state.hosts.remove(at);
            state.tell_own_hosts(&shared.name);
        }
    }
}

/// Others find a container now, if it is new on the network; and it finds others, if its /etc/hosts is its own.
fn settle(network: &Shared, number: u32, own: Option<&Arc<OwnHosts>>, new: bool) {
    let mut state = lock(&network.state);
    if let (Some(own), Some(port)) = (own, state.ports.get_mut(&number)) {
        port.own_hosts.retain(|one| one.strong_count() > 0);
        port.own_hosts.push(Arc::downgrade(own));
    }
    if new {
        state.settle(&network.name, number);
    } else {
        state.tell_own_hosts(&network.name);
    }
}

impl Link {
    /// What it has.
    pub fn address(&self) -> Option<Address> {
        let state = lock(&self.network.state);
        state.sockets.as_ref()?;
        state.ports.get(&self.number).map(|port| self.network.address(port))
    }

    /// Makes the devices; `socket` is one of the container's namespace.
    fn connect(&self, socket: &Socket, namespace: &OwnedFd) -> Result<()> {
        let shared = &self.network;
        let number = self.number;
        let (sockets, here, mac, addresses, interface, inside) = {
            let state = lock(&shared.state);
            let sockets = state.sockets.clone().ok_or_else(closed)?;
            let port = state.ports.get(&number).ok_or_else(closed)?;
            (sockets, port.name.clone(), port.mac, port.addresses.clone(), port.interface.clone(), port.inside)
        };
        let here = End { index: number, name: &here };
        let there = End { index: inside, name: &interface };
        let mut batch = Batch::default();
        let mtu = Some(shared.mtu);
        let remote = Remote { end: End { ..there }, namespace: namespace.as_raw_fd(), mac: Some(mac), mtu };
        batch.veth(&here, mtu, &remote, Some(BRIDGE.index));
        batch.behind_port(&here, mac);
        sockets.route.request(batch)?;
        {
            // Before anything passes: what follows lets it send.
            let mut state = lock(&shared.state);
            let port = state.ports.get_mut(&number).ok_or_else(closed)?;
            port.is_linked = true;
            let wanted = port.wanted.take();
            let filtered = match &wanted {
                Some(_) => state.start_filter(&sockets.firewall),
                None => Ok(()),
            };
            filtered
                .and_then(|()| state.filter_port(&sockets.firewall, number, wanted.as_ref()))
                .map_err(|e| if wanted.is_some() { in_firewall(e, "net.firewall") } else { e })?;
        }
        let mut batch = Batch::default();
        batch.sources(number, &addresses.iter().map(IpNet::addr).collect::<Vec<_>>(), mac, true);
        sockets.firewall.request(batch)?;
        let mut batch = Batch::default();
        batch.set_up(&there, true);
        for address in addresses {
            batch.address(&there, address);
        }
        self.gateways.iter().for_each(|gateway| batch.route(&there, everywhere(*gateway), Some(*gateway)));
        socket.request(batch)
    }
}

/// One of a container's devices.
#[derive(Debug)]
pub(crate) enum Attached {
    OnNetwork(Link),
    Other(Box<OnHost>),
}

impl Attached {
    /// Addresses of the families of IP in which it leads to everywhere.
    fn gateways(&self) -> Vec<IpAddr> {
        match self {
            Self::OnNetwork(link) => link.gateways.clone(),
            Self::Other(device) => device.ways.clone(),
        }
    }

    fn is_on(&self, network: &str) -> bool {
        matches!(self, Self::OnNetwork(link) if link.network.name == network)
    }

    /// What it has; `None` when its network has ended.
    pub fn address(&self) -> Option<Address> {
        match self {
            Self::OnNetwork(link) => link.address(),
            Self::Other(device) => Some(device.address.clone()),
        }
    }
}

impl Attached {
    /// The name inside by which it was made.
    fn is_called(&self, interface: &str) -> bool {
        match self {
            Self::OnNetwork(link) => {
                lock(&link.network.state).ports.get(&link.number).is_some_and(|port| port.interface == interface)
            }
            Self::Other(device) => device.address.interface == interface,
        }
    }

    /// The number inside of the host's own device, which is moved back.
    fn comes_back(&self) -> Option<u32> {
        match self {
            Self::Other(device) if device.comes_back => Some(device.inside),
            _ => None,
        }
    }

    /// Removes the device. What the container has removed itself is no error.
    fn remove(&self, socket: &Socket) -> Result<()> {
        let mut batch = Batch::default();
        let removed = match self {
            Self::OnNetwork(link) => {
                let Some(sockets) = lock(&link.network.state).sockets.clone() else { return Ok(()) };
                batch.delete(&End { index: link.number, name: "" });
                sockets.route.request(batch)
            }
            Self::Other(device) => {
                batch.delete(&End { index: device.inside, name: &device.address.interface });
                socket.request(batch)
            }
        };
        removed.or_else(|e| if e.errno() == libc::ENODEV { Ok(()) } else { Err(e) })
    }
}

/// A device that is still to be made, or was just made.
#[derive(Debug)]
enum Joined {
    Link(Link),
    Other(Box<Other>),
}

/// The devices of a container that is being started.
#[derive(Debug, Default)]
pub(crate) struct Joining {
    all: Vec<Joined>,
    /// /etc/hosts in the container is a file of its own, which is sent.
    own_hosts: bool,
    front: String,
    file: Option<OwnedFd>,
    own: Option<Arc<OwnHosts>>,
    /// Its devices are there.
    connected: bool,
    /// Networks of the pod that it is in.
    of_pod: Vec<(Arc<Shared>, u32)>,
    /// Addresses of the families of IP in which it has a way to everywhere.
    ways: Vec<IpAddr>,
    failed: Option<Error>,
}

/// The keeper of an ordinary user's networks: their containers have to be born in its user namespace.
pub(crate) fn keeper_of_networks(spec: &Spec) -> Option<Arc<Keeper>> {
    let all = spec.net.attachments().iter().filter_map(|one| find(one.on_network()?));
    all.map(|network| network.keeper.clone()).find(|keeper| keeper.outer.is_some())
}

/// The keeper of an ordinary user's other networks, so that a container can be on several.
pub(crate) fn keeper_of_others() -> Option<Arc<Keeper>> {
    let all: Vec<_> = lock(&Registry::own().networks).values().filter_map(|(_, handle)| handle.upgrade()).collect();
    all.iter().map(|handle| &handle.shared.keeper).find(|keeper| keeper.outer.is_some() && !keeper.is_dead()).cloned()
}

fn other_keeper(name: &str) -> Error {
    let what = format!("network {name:?} was made in another user namespace than the container would be");
    Error::new(ErrorKind::Unsupported, what)
        .with_field("net")
        .with_errno(libc::EPERM)
        .with_hint("an ordinary user's containers and networks that have to do with each other are started by threads with the same credentials, the networks first")
}

/// Ways to everywhere that these devices have without a network: of each family a container has one. Those that are named go before that of a
/// network.
pub(super) fn ways(list: &[Attachment]) -> Vec<IpAddr> {
    let routed = list.iter().filter(|one| matches!(one.kind, AttachmentKind::Routed { .. }) && one.routes.is_empty());
    let gateways = list.iter().flat_map(|one| &one.gateways).copied();
    let like = |ipv4: bool| if ipv4 { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    gateways.chain(routed.flat_map(|one| one.families().map(like))).collect()
}

/// Whether /etc/hosts of a container on so many networks is not the network's: it has more in it.
fn has_own_hosts(spec: &Spec, networks: usize) -> bool {
    matches!(spec.namespaces.get(&NamespaceKind::Mnt), None | Some(NamespaceSource::New))
        && !spec.files.contains_key(Path::new("/etc/hosts"))
        && (networks > 1 || networks == 1 && !spec.hosts.is_empty())
}

impl Joining {
    /// Takes addresses, and makes names known, for a container with this spec.
    pub fn begin(spec: &Spec, keeper: &Arc<Keeper>) -> Result<Self> {
        let list = spec.net.attachments();
        let mut joining = Self::default();
        let names: Vec<String> = [&spec.name, &spec.hostname].into_iter().flatten().cloned().collect();
        joining.ways = ways(list);
        for (i, (one, interface)) in list.iter().zip(interfaces(list)).enumerate() {
            let inside = FIRST_INSIDE + i as u32;
            let field = if list.len() == 1 { "net".to_owned() } else { format!("net[{i}]") };
            joining.add(one, interface, inside, field, &names, keeper)?;
        }
        joining.own_hosts = has_own_hosts(spec, joining.links().count());
        joining.front = hosts_text(spec, true).unwrap_or_default();
        Ok(joining)
    }

    fn add(
        &mut self,
        one: &Attachment,
        interface: String,
        inside: u32,
        field: String,
        names: &[String],
        keeper: &Arc<Keeper>,
    ) -> Result<()> {
        let Some(name) = one.on_network() else {
            self.all.push(Joined::Other(Box::new(Other::new(one, interface, inside, field)?)));
            return Ok(());
        };
        let missing = || unknown(name).with_field(&*field).with_hint("Network::start makes one");
        let network = find(name).ok_or_else(missing)?;
        if keeper.outer.is_some() && !Arc::ptr_eq(&network.keeper, keeper) {
            return Err(other_keeper(name).with_field(field));
        }
        let mut all = names.to_vec();
        all.extend(one.aliases.iter().cloned());
        let mut seen = BTreeSet::new();
        all.retain(|name| seen.insert(name.clone()));
        let link = network.enter(one, &all, &interface, inside).map_err(|e| match e.field() {
            Some(at) => {
                let place = at.replacen("net", &field, 1);
                e.with_field(place)
            }
            None => e.with_field(field),
        });
        let mut link = link?;
        let new = |way: &&IpAddr| self.ways.iter().all(|other| other.is_ipv4() != way.is_ipv4());
        link.gateways = network.gateways.iter().filter(new).copied().collect();
        self.ways.extend(&link.gateways);
        self.all.push(Joined::Link(link));
        Ok(())
    }

    /// For a container of a pod with these devices.
    pub fn in_pod(spec: &Spec, devices: &[Attached]) -> Self {
        let on_networks = devices.iter().filter_map(|device| match device {
            Attached::OnNetwork(link) => Some((link.network.clone(), link.number)),
            Attached::Other(..) => None,
        });
        let of_pod: Vec<_> = on_networks.collect();
        let own_hosts = has_own_hosts(spec, of_pod.len());
        Self { of_pod, own_hosts, front: hosts_text(spec, true).unwrap_or_default(), ..Self::default() }
    }

    /// Has ports of the host lead to it, by the first network that has a way out by the kernel. The numbers are their places in the
    /// spec; the sockets have the ports.
    pub fn publish(&mut self, ports: Vec<(usize, spec::Port, HostOnly)>) -> Result<()> {
        let Some((first, ..)) = ports.first() else { return Ok(()) };
        let links = self.all.iter_mut().filter_map(|one| match one {
            // Its answers have to go that way, too.
            Joined::Link(link) if !link.gateways.is_empty() => Some(link),
            _ => None,
        });
        let Some(link) = links.into_iter().next() else {
            let error =
                Error::spec(format!("ports[{first}].nat"), "no device of the container is on a network that leads out");
            return Err(error.with_hint("give it one (internal: false), or leave out nat: a relay takes no network"));
        };
        let mut state = lock(&link.network.state);
        let addresses = state.ports.get(&link.number).map(|port| port.addresses.clone()).ok_or_else(closed)?;
        let sockets = state.sockets.clone().ok_or_else(closed)?;
        let uplink = state.uplink.as_mut().ok_or_else(closed)?;
        let list: Vec<spec::Port> = ports.iter().map(|(_, port, _)| *port).collect();
        let lead = uplink.publish(&sockets.firewall, &addresses, &list).map_err(|(i, error)| {
            let at = format!("ports[{}]", ports[i].0);
            let field = match error.field() {
                Some(member) => format!("{at}.{member}"),
                None => format!("{at}.nat"),
            };
            error.with_field(field)
        })?;
        drop(state);
        link.lead = Some((lead, ports.into_iter().map(|(_, _, socket)| socket).collect()));
        Ok(())
    }

    fn links(&self) -> impl Iterator<Item = &Link> {
        self.all.iter().filter_map(|one| match one {
            Joined::Link(link) => Some(link),
            Joined::Other(_) => None,
        })
    }

    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// Whether it reaches what is outside of its networks.
    pub fn leads_out(&self) -> bool {
        let of_pod = self.of_pod.iter().any(|(network, _)| !network.gateways.is_empty());
        of_pod || self.links().any(|link| !link.gateways.is_empty())
    }

    fn macvtaps(&mut self) -> impl Iterator<Item = &mut Other> {
        let others = self.all.iter_mut().filter_map(|one| match one {
            Joined::Other(other) => Some(other.as_mut()),
            Joined::Link(_) => None,
        });
        others.filter(|other| other.tap().is_some())
    }

    /// The field of the first macvtap, and the names and numbers inside of all.
    pub fn taps(&mut self) -> Option<(String, Vec<(String, u32)>)> {
        let field = self.macvtaps().next()?.field();
        let all = self.macvtaps().filter_map(|other| other.tap().map(|(name, number)| (name.to_owned(), number)));
        Some((field, all.collect()))
    }

    /// Where the nodes of macvtaps are to be made.
    pub fn take_taps(&mut self, taps: &Taps) {
        self.macvtaps().for_each(|other| other.take_taps(taps.clone()));
    }

    /// The file of the network that /etc/hosts is in the container.
    pub fn hosts(&self) -> Option<&Path> {
        let networks = self.links().map(|link| &link.network).chain(self.of_pod.iter().map(|(network, _)| network));
        networks.map(|network| network.hosts.as_path()).next().filter(|_| !self.own_hosts)
    }

    /// Whether its /etc/hosts is its own, and is to be sent.
    pub fn sends_hosts(&self) -> bool {
        self.own_hosts
    }

    /// Its /etc/hosts.
    pub fn take_hosts(&mut self, file: OwnedFd) {
        self.file = Some(file);
    }

    /// The container has a socket in its network namespace: the devices are made while it goes on.
    pub fn connect(&mut self, socket: OwnedFd) {
        self.connect_by(&Arc::new(Socket::new(socket)));
    }

    fn connect_by(&mut self, socket: &Arc<Socket>) {
        let made = socket.namespace().and_then(|namespace| {
            let several = self.all.len() > 1;
            self.all.iter_mut().enumerate().try_for_each(|(i, one)| match one {
                Joined::Link(link) => link.connect(socket, &namespace).map_err(|e| match e.field() {
                    Some(at) if several => {
                        let place = at.replacen("net", &format!("net[{i}]"), 1);
                        e.with_field(place)
                    }
                    _ => e,
                }),
                Joined::Other(other) => other.connect(socket, &namespace),
            })
        });
        match made {
            Ok(()) => {
                self.connected = true;
                for link in self.links() {
                    if let Some(port) = lock(&link.network.state).ports.get_mut(&link.number) {
                        port.socket = Some(socket.clone());
                    }
                }
            }
            Err(error) => self.failed = Some(error),
        }
    }

    /// The container asks whether it has its devices, and is told an errno. From here on it is found by its names.
    pub fn settle(&mut self) -> i32 {
        if let Some(error) = &self.failed {
            return if error.errno() == 0 { libc::EIO } else { error.errno() };
        }
        if !self.connected {
            return libc::ENOTCONN;
        }
        if let Some(file) = self.file.take() {
            self.own = Some(OwnHosts::new(file, std::mem::take(&mut self.front)));
        }
        for link in self.links() {
            settle(&link.network, link.number, self.own.as_ref(), true);
        }
        0
    }

    /// Why it has no devices.
    pub fn failure(&mut self) -> Option<Error> {
        let error = self.failed.take()?;
        Some(if error.field().is_some() { error } else { error.with_field("net") })
    }

    /// It runs: what it keeps.
    pub fn done(mut self, container: &str) -> Kept {
        let mut moved = Vec::new();
        // A container of a pod, which was not asked whether it has its devices.
        if let Some(file) = self.file.take() {
            let own = OwnHosts::new(file, std::mem::take(&mut self.front));
            self.of_pod.iter().for_each(|(network, number)| settle(network, *number, Some(&own), false));
            self.own = Some(own);
        }
        let all = std::mem::take(&mut self.all).into_iter().map(|one| match one {
            Joined::Link(link) => {
                if let Some(port) = lock(&link.network.state).ports.get_mut(&link.number) {
                    port.container = Some(container.to_owned());
                }
                Attached::OnNetwork(link)
            }
            Joined::Other(other) => {
                let (on_host, device) = other.done();
                moved.extend(device);
                Attached::Other(Box::new(on_host))
            }
        });
        let devices = all.collect();
        Kept { devices, moved, hosts: self.own.take() }
    }
}

/// What a container has of networks while it runs.
#[derive(Debug, Default)]
pub(crate) struct Kept {
    pub devices: Vec<Attached>,
    /// Devices of the host that have to come back.
    pub moved: Vec<Moved>,
    /// Its own /etc/hosts, which its networks keep current as long as this is there.
    pub hosts: Option<Arc<OwnHosts>>,
}

impl Kept {
    /// Makes one more device of a container that runs, of which `socket` is one; `id` and `spec` are those of whose network it is. Nothing
    /// is kept of it yet.
    pub fn attach(
        kept: &Mutex<Self>,
        (id, spec, keeper): (&str, &Spec, &Arc<Keeper>),
        one: &Attachment,
        socket: OwnedFd,
    ) -> Result<Self> {
        let socket = Arc::new(Socket::new(socket));
        let is_free = |name: &str| !lock(kept).has(name) && socket.index_of(name).is_err();
        let interface = match &one.interface {
            Some(name) if is_free(name) => name.clone(),
            Some(name) => {
                let error =
                    Error::new(ErrorKind::AlreadyExists, format!("there is a device {name:?} in the container"));
                return Err(error.with_field("net.interface").with_errno(libc::EEXIST));
            }
            None => (0..).map(|number| format!("eth{number}")).find(|name| is_free(name)).expect("there is always one"),
        };
        let is_on = |network: &str| lock(kept).devices.iter().any(|device| device.is_on(network));
        if let Some(network) = one.on_network().filter(|network| is_on(network)) {
            let error = Error::new(ErrorKind::AlreadyExists, format!("the container is on network {network:?}"));
            return Err(error.with_field("net.network").with_errno(libc::EEXIST));
        }
        let names: Vec<String> = [&spec.name, &spec.hostname].into_iter().flatten().cloned().collect();
        let mut joining = Joining { own: lock(kept).hosts.clone(), ..Joining::default() };
        joining.ways = ways(std::slice::from_ref(one));
        joining.ways.extend(lock(kept).devices.iter().flat_map(Attached::gateways));
        let inside = new_index();
        joining.add(one, interface, inside, "net".to_owned(), &names, keeper)?;
        joining.connect_by(&socket);
        if joining.settle() != 0 {
            // It may have been made, and then something of it refused. The host's own comes back by itself.
            let Some(error) = joining.failure() else {
                return Err(Error::new(ErrorKind::Internal, "a device was not made, and nobody knows why"));
            };
            if !matches!(one.kind, AttachmentKind::Device(_)) {
                let mut batch = Batch::default();
                batch.delete(&End { index: inside, name: "" });
                let _ = socket.request(batch);
            }
            return Err(error);
        }
        Ok(joining.done(id))
    }

    /// Whether a device was made by this name.
    pub fn has(&self, interface: &str) -> bool {
        self.devices.iter().any(|device| device.is_called(interface))
    }

    /// Takes a device out that was made by this name: it is the caller's to remove. With the number inside of what is the host's own.
    pub fn take(&mut self, interface: &str) -> Option<(Attached, Option<u32>)> {
        let at = self.devices.iter().position(|device| device.is_called(interface))?;
        let device = self.devices.remove(at);
        let comes_back = device.comes_back();
        Some((device, comes_back))
    }

    /// Forgets the host's own device that had this number inside: it is not there any more.
    pub fn forget(&mut self, inside: u32) {
        self.devices.retain(|device| device.comes_back() != Some(inside));
    }
}

/// Removes a device from a container, of which `socket` is one, and gives back what it had.
pub(crate) fn remove(
    kept: &Mutex<Kept>,
    device: Attached,
    socket: OwnedFd,
) -> std::result::Result<(), Box<(Attached, Error)>> {
    if let Err(error) = device.remove(&Socket::new(socket)) {
        return Err(Box::new((device, error)));
    }
    let network = match &device {
        Attached::OnNetwork(link) => Some(link.network.name.clone()),
        Attached::Other(_) => None,
    };
    // From here on the network tells it nothing any more.
    drop(device);
    let hosts = lock(kept).hosts.clone();
    if let (Some(hosts), Some(network)) = (hosts, network) {
        hosts.set(&network, "");
    }
    Ok(())
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
