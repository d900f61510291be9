//! The way out of a network.
//!
//! Through the kernel, with CAP_NET_ADMIN and where the host forwards packets: a pair of devices between the switch's namespace and the
//! host's, and a masquerade in both, so that the host knows nothing of the network's subnets, which others may have too.
//! Through a program otherwise, which opens sockets of the host's for those inside: pasta, or slirp4netns. It runs in a container of its
//! own beside the network, in the host's network, and ends with it. It shuts itself in.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use ipnet::{IpNet, Ipv4Net};

use super::attach::everywhere;
use super::connections;
use super::forward::{closed_chain, forwards, is_set, lets_pass};
use super::link::{End, Remote};
use super::nat::Published;
use super::netlink::{Batch, Socket};
use super::routed::is_local;
use crate::container::{Container, new_index};
use crate::error::{Error, ErrorKind, Result};
use crate::launch;
use crate::plan::container::RESOLV_CONF;
use crate::spec::{
    Capabilities, Device, Idmap, NamespaceKind, NamespaceSource, Net, Port, Protocol, RootfsKind, SeccompAction,
    SeccompProfile, SeccompRule, SeccompRules, Spec, Stdio, WayOut,
};

/// In the switch's namespace.
const UPLINK: End<'static> = End { index: 999, name: "uplink" };
const TUN: &str = "/dev/net/tun";
/// Where the program finds the switch's namespace.
const SWITCH: &str = "/proc/self/fd/0";
/// What the program needs to enter that namespace, make its device, and shut itself in: CAP_SETGID, CAP_SETUID, CAP_SETPCAP, CAP_NET_BIND_SERVICE, CAP_NET_ADMIN, CAP_SYS_ADMIN.
const RIGHTS: u64 = 1 << 6 | 1 << 7 | 1 << 8 | 1 << 10 | 1 << 12 | 1 << 21;
/// How long the program may take to make its device.
const PATIENCE: Duration = Duration::from_secs(10);

/// Between the switch's namespace and the host's, addresses that nobody else has: of the range for measurements of networks (RFC 2544), and
/// of a private one (RFC 4193).
const BETWEEN_IPV4: u32 = u32::from_be_bytes([198, 18, 0, 0]);
const BETWEEN_IPV6: u128 = 0xfd4f_9a1c_77e3 << 80;
/// Those of a program, which the host does not see.
const PROGRAM_IPV4: (Ipv4Addr, Ipv4Addr) = (Ipv4Addr::new(198, 19, 255, 100), Ipv4Addr::new(198, 19, 255, 2));
const PROGRAM_IPV6: (Ipv6Addr, Ipv6Addr) = (
    Ipv6Addr::new(0xfd4f, 0x9a1c, 0x77e3, 0xffff, 0, 0, 0, 0x100),
    Ipv6Addr::new(0xfd4f, 0x9a1c, 0x77e3, 0xffff, 0, 0, 0, 2),
);

/// The way out of a network that has one.
#[derive(Debug)]
pub(super) struct Uplink {
    way: Way,
    /// The addresses of the switch by which containers reach it.
    gateways: Vec<IpAddr>,
}

#[derive(Debug)]
enum Way {
    Kernel(Kernel),
    Program { name: &'static str, container: Container },
}

#[derive(Debug)]
struct Kernel {
    route: Socket,
    /// The owner of the host's table.
    firewall: Socket,
    table: String,
    device: u32,
    /// The uplink's.
    addresses: Vec<IpAddr>,
    /// The uplink's ports that lead on.
    taken: BTreeSet<(bool, Protocol, u16)>,
    /// Where the search for the next goes on: what connections remember of one is old when it is given again.
    next: u16,
}

/// What the way out is made at.
pub(super) struct Switch<'a> {
    pub holder: &'a Container,
    pub route: &'a Socket,
    pub firewall: &'a Socket,
    pub bridge: &'a End<'a>,
    pub mtu: u32,
    /// The gateway of each subnet, with its prefix.
    pub gateways: &'a [IpNet],
    pub wanted: WayOut,
}

/// Programs that make a way out, in the order in which they are looked for, and the packages that have them.
const PROGRAMS: [&str; 2] = ["pasta", "slirp4netns"];

fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_else(|| "/usr/local/bin:/usr/bin:/bin".into());
    std::env::split_paths(&path)
        .filter(|dir| dir.is_absolute())
        .map(|dir| dir.join(program))
        .find(|path| nix::unistd::access(path, nix::unistd::AccessFlags::X_OK).is_ok() && path.is_file())
        .map(|mut path| {
            // The link may be where containers do not look. pasta is one to passt, which knows by its name what it is to do.
            while let Some(to) = path.read_link().ok().filter(|to| to.is_absolute() && to.ends_with(program)) {
                path = to;
            }
            path
        })
}

/// One of the programs, by its name.
fn program(wanted: WayOut) -> Option<(&'static str, PathBuf)> {
    let names = PROGRAMS.into_iter().filter(|name| wanted == WayOut::Auto || *name == wanted.as_str());
    names.filter_map(|name| Some((name, find(name)?))).next()
}

impl Uplink {
    /// # Errors
    /// Unsupported, with what is missing as hint: `internal`, or `way_out` when it says which it is to be.
    pub fn open(switch: &Switch<'_>) -> Result<Self> {
        let field = if switch.wanted == WayOut::Auto { "internal" } else { "way_out" };
        let way = Way::open(switch).map_err(|e| if e.field().is_some() { e } else { e.with_field(field) })?;
        let out = way.addresses();
        let gateways = switch.gateways.iter().filter(|net| out.iter().any(|a| a.is_ipv4() == net.addr().is_ipv4()));
        let gateways: Vec<IpNet> = gateways.copied().collect();
        if gateways.is_empty() {
            let error = Error::new(ErrorKind::Unsupported, "nothing outside is reached over IPv6 from here");
            return Err(error.with_hint("give the network a subnet of IPv4, or the host net.ipv6.conf.all.forwarding"));
        }
        let mut batch = Batch::default();
        gateways.iter().for_each(|gateway| batch.address(switch.bridge, *gateway));
        if gateways.iter().any(|gateway| gateway.addr().is_ipv6()) {
            batch.address(switch.bridge, link_local());
        }
        switch.route.request(batch)?;
        Ok(Self { way, gateways: gateways.iter().map(IpNet::addr).collect() })
    }

    /// A program that has ended is started again.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn reopen(&mut self, switch: &Switch<'_>) -> Result<()> {
        let Way::Program { name, .. } = &self.way else { return Ok(()) };
        let path = find(name).ok_or_else(|| missing(&format!("install {PACKAGES}")))?;
        // Its rules are for a device that is gone.
        let mut batch = Batch::default();
        batch.no_way_out();
        match switch.firewall.request(batch) {
            Err(e) if e.errno() != libc::ENOENT => return Err(e),
            _ => {}
        }
        self.way = run(switch, name, &path)?;
        Ok(())
    }

    /// Where containers send what is for outside: at most one of IPv4, and one of IPv6.
    pub fn gateways(&self) -> &[IpAddr] {
        &self.gateways
    }

    /// Whether anything leads out still: a program may have ended.
    pub fn is_open(&self) -> bool {
        match &self.way {
            Way::Kernel(_) => true,
            Way::Program { container, .. } => container.is_running(),
        }
    }

    /// `kernel`, `pasta`, `slirp4netns`.
    pub fn name(&self) -> &'static str {
        match &self.way {
            Way::Kernel(_) => "kernel",
            Way::Program { name, .. } => name,
        }
    }

    /// Nothing of it is left in the host's network.
    pub fn close(self, timeout: Option<Duration>) -> Result<()> {
        match self.way {
            Way::Kernel(kernel) => {
                let mut batch = Batch::default();
                batch.delete(&End { index: kernel.device, name: "" });
                // It may have gone with the switch's namespace.
                let _ = kernel.route.request(batch);
                Ok(())
            }
            Way::Program { container, .. } => container.close(timeout),
        }
    }

    /// Has ports of the host lead to a container with these addresses, from outside as from the host.
    ///
    /// # Errors
    /// Unsupported or InvalidSpec, with the number of the port.
    pub fn publish(
        &mut self,
        switch: &Socket,
        container: &[IpNet],
        ports: &[Port],
    ) -> std::result::Result<Lead, (usize, Error)> {
        let Way::Kernel(kernel) = &mut self.way else {
            let what = format!("the way out of the network is {}, which publishes no ports", self.name());
            let error = Error::new(ErrorKind::Unsupported, what);
            return Err((0, error.with_hint("without nat, ports are carried by a relay: that takes no rights")));
        };
        let mut lead = Lead::default();
        let result = ports.iter().enumerate().try_for_each(|(i, port)| {
            let (outer, inner) = kernel.lead(port, container).map_err(|error| (i, error))?;
            lead.outer.push(outer);
            lead.inner.push(inner);
            Ok(())
        });
        let result = result.and_then(|()| {
            let mut batch = Batch::default();
            batch.lead_in(&lead.inner, true);
            switch.request(batch).map_err(|error| (0, error))?;
            let mut batch = Batch::default();
            batch.lead_on(&kernel.table, &lead.outer, true);
            kernel.firewall.request(batch).map_err(|error| (0, error))
        });
        match result {
            Ok(()) => {
                let is_own = |address| is_local(&kernel.route, address);
                connections::forget_those_before(&kernel.firewall, &lead.outer, is_own);
                Ok(lead)
            }
            Err(failed) => {
                let _ = self.withdraw(switch, &mut lead);
                Err(failed)
            }
        }
    }

    /// The ports lead nowhere any more.
    ///
    /// # Errors
    /// They may still lead there: `lead` has those, and the addresses may be nobody else's.
    pub fn withdraw(&mut self, switch: &Socket, lead: &mut Lead) -> Result<()> {
        let Way::Kernel(kernel) = &mut self.way else { return Ok(()) };
        // A transaction is one: all of it is there, or it has gone already.
        let gone = |e: Error| if e.errno() == libc::ENOENT { Ok(()) } else { Err(e) };
        let mut batch = Batch::default();
        batch.lead_on(&kernel.table, &lead.outer, false);
        kernel.firewall.request(batch).or_else(gone)?;
        // Whom the kernel has led on once, it leads on without asking the maps: to whoever has the address next.
        connections::forget(&kernel.firewall, &std::mem::take(&mut lead.outer));
        let mut batch = Batch::default();
        batch.lead_in(&lead.inner, false);
        switch.request(batch).or_else(gone)?;
        let inner = std::mem::take(&mut lead.inner);
        connections::forget(switch, &inner);
        for inner in &inner {
            kernel.taken.remove(&(inner.to.is_ipv6(), inner.protocol, inner.port));
        }
        Ok(())
    }
}

/// Ports of the host that lead to a container: from the host's to the uplink's, and from there on.
#[derive(Debug, Default)]
pub(super) struct Lead {
    outer: Vec<Published>,
    inner: Vec<Published>,
}

const PACKAGES: &str = "pasta (package passt) or slirp4netns";

fn missing(hint: &str) -> Error {
    Error::new(ErrorKind::Unsupported, "there is no way out of a network here")
        .with_errno(libc::ENOENT)
        .with_hint(hint.to_owned())
}

/// Who forwards asks for neighbours of IPv6 from such an address; without one he does not ask.
fn link_local() -> IpNet {
    "fe80::1/64".parse().expect("it is an address")
}

impl Way {
    fn open(switch: &Switch<'_>) -> Result<Self> {
        let program = || program(switch.wanted).map(|(name, path)| run(switch, name, &path));
        match switch.wanted {
            WayOut::Kernel => Self::by_kernel(switch),
            WayOut::Pasta => program().unwrap_or_else(|| Err(missing("install the package passt"))),
            WayOut::Slirp4netns => program().unwrap_or_else(|| Err(missing("install the package slirp4netns"))),
            WayOut::Auto => Self::by_kernel(switch).or_else(|error| {
                // A root without the right to change its network or its settings; a kernel that cannot do it.
                let is_reason = matches!(error.errno(), libc::EPERM | libc::EROFS | libc::EACCES)
                    || error.kind() == ErrorKind::Unsupported;
                if !is_reason {
                    return Err(error);
                }
                program().unwrap_or_else(|| match switch.holder.keeper().outer {
                    Some(_) => Err(missing(&format!("install {PACKAGES}"))),
                    None => {
                        let hint = error.hint().map_or("it takes CAP_NET_ADMIN".to_owned(), str::to_owned);
                        Err(error.with_hint(format!("{hint}, or install {PACKAGES}")))
                    }
                })
            }),
        }
    }

    fn by_kernel(switch: &Switch<'_>) -> Result<Self> {
        if switch.holder.keeper().outer.is_some() {
            let error = Error::new(ErrorKind::PermissionDenied, "the kernel leads out of the networks of root alone");
            return Err(error.with_errno(libc::EPERM).with_hint(format!("for others there are {PACKAGES}")));
        }
        forwards()?;
        let firewall = Socket::open(libc::NETLINK_NETFILTER)?;
        if switch.wanted == WayOut::Auto {
            lets_pass(Some(&firewall))?;
        }
        Kernel::open(switch, firewall).map(Self::Kernel)
    }

    /// Those of the uplink.
    fn addresses(&self) -> Vec<IpAddr> {
        match self {
            Self::Kernel(kernel) => kernel.addresses.clone(),
            Self::Program { name: "pasta", .. } if super::has_ipv6() => {
                vec![PROGRAM_IPV4.0.into(), PROGRAM_IPV6.0.into()]
            }
            Self::Program { .. } => vec![PROGRAM_IPV4.0.into()],
        }
    }
}

impl Kernel {
    fn open(switch: &Switch<'_>, firewall: Socket) -> Result<Self> {
        let route = Socket::open(libc::NETLINK_ROUTE)?;
        let device = new_index();
        let kernel = Self {
            table: format!("ringfence-{device}"),
            route,
            firewall,
            device,
            addresses: Vec::new(),
            taken: BTreeSet::new(),
            next: 1,
        };
        kernel.connect(switch).inspect_err(|_| {
            // The table goes with its socket. It may not have come so far that there is a device.
            let mut batch = Batch::default();
            batch.delete(&End { index: device, name: "" });
            let _ = Socket::open(libc::NETLINK_ROUTE).and_then(|route| route.request(batch));
        })
    }

    fn may_forward_ipv6(&self, wanted: WayOut) -> bool {
        wanted == WayOut::Kernel || closed_chain(Some(&self.firewall), true).is_none()
    }

    fn connect(mut self, switch: &Switch<'_>) -> Result<Self> {
        let namespace = switch.route.namespace()?;
        let mut batch = Batch::default();
        let here = End { index: self.device, name: "rf%d" };
        let there = Remote { end: UPLINK, namespace: namespace.as_raw_fd(), mac: None, mtu: Some(switch.mtu) };
        batch.veth(&here, Some(switch.mtu), &there, None);
        self.route.request(batch)?;
        let name = nix::net::if_::if_indextoname(self.device).map_err(|e| Error::os("find device", e as i32))?;
        let name = name.to_string_lossy().into_owned();
        let set = |parameter: &str| {
            let path = format!("/proc/sys/net/ipv4/conf/{name}/{parameter}");
            if is_set(&format!("ipv4/conf/{name}/{parameter}")) {
                return Ok(());
            }
            std::fs::write(&path, "1").map_err(|e| Error::io("write", &e).with_path(path))
        };
        set("forwarding")?;
        // For connections to ports on 127.0.0.1 that lead into the network; the host's table keeps others out.
        set("route_localnet")?;
        let ipv4 = between(self.device, &routes()).ok_or_else(|| {
            Error::new(ErrorKind::Unsupported, "the host has routes for all of 198.18.0.0/15")
                .with_errno(libc::EADDRNOTAVAIL)
                .with_hint("the way out of a network takes two of these addresses: route less of it elsewhere")
        })?;
        let (low, high) =
            (BETWEEN_IPV6 + (u128::from(self.device) << 1), BETWEEN_IPV6 + (u128::from(self.device) << 1) + 1);
        let mut pairs: Vec<(IpAddr, IpAddr)> = vec![(Ipv4Addr::from(ipv4).into(), Ipv4Addr::from(ipv4 + 1).into())];
        if super::has_ipv6() && is_set("ipv6/conf/all/forwarding") && self.may_forward_ipv6(switch.wanted) {
            pairs.push((Ipv6Addr::from(low).into(), Ipv6Addr::from(high).into()));
        }
        let (mut near, mut far) = (Batch::default(), Batch::default());
        far.set_up(&UPLINK, true);
        for (host, uplink) in pairs {
            let net = |address: IpAddr| {
                IpNet::new(address, if address.is_ipv4() { 31 } else { 127 }).expect("both are prefixes")
            };
            near.address(&here, net(host));
            far.address(&UPLINK, net(uplink));
            far.route(&UPLINK, everywhere(host), Some(host));
            if host.is_ipv6() {
                far.address(&UPLINK, link_local());
            }
            self.addresses.push(uplink);
        }
        self.route.request(near)?;
        switch.route.request(far)?;
        let mut batch = Batch::default();
        batch.gateway(&self.table, self.device, &self.addresses);
        self.firewall.request(batch).map_err(of_nat)?;
        let mut batch = Batch::default();
        batch.way_out(switch.bridge.index, UPLINK.index);
        switch.firewall.request(batch).map_err(of_nat)?;
        Ok(self)
    }

    /// The two steps of a port's way to a container.
    fn lead(&mut self, port: &Port, container: &[IpNet]) -> Result<(Published, Published)> {
        let ipv6 = port.host.is_ipv6();
        let family = if ipv6 { "IPv6" } else { "IPv4" };
        let none = |whose: &str| Error::spec("host", format!("{whose} no address of {family}"));
        if ipv6 && port.host.is_loopback() {
            return Err(Error::spec("host", "the kernel leads nothing on from ::1")
                .with_hint("without nat, ports are carried by a relay, which does"));
        }
        let own = |address: &&IpAddr| address.is_ipv6() == ipv6;
        let uplink = *self.addresses.iter().find(own).ok_or_else(|| none("the way out of the network has"))?;
        let inside = container.iter().map(IpNet::addr).find(|address| address.is_ipv6() == ipv6);
        let inside = inside.ok_or_else(|| none("the container has"))?;
        let protocol = port.protocol;
        let free = |number: &u16| !self.taken.contains(&(ipv6, protocol, *number));
        let between = (self.next..=u16::MAX).chain(1..self.next).find(free).ok_or_else(|| {
            Error::new(ErrorKind::Exhausted, "all ports of the way out are taken").with_errno(libc::EADDRNOTAVAIL)
        })?;
        self.next = between.checked_add(1).unwrap_or(1);
        self.taken.insert((ipv6, protocol, between));
        let outer = Published { protocol, at: port.host, port: port.host_port, to: uplink, to_port: between };
        let any = if ipv6 { Ipv6Addr::UNSPECIFIED.into() } else { Ipv4Addr::UNSPECIFIED.into() };
        Ok((outer, Published { protocol, at: any, port: between, to: inside, to_port: port.port }))
    }
}

/// /etc/resolv.conf for a container that reaches the outside, where its root file system has another, or one that means servers on the host's
/// own 127.0.0.1: those that systemd-resolved asks, then.
pub(crate) fn name_servers(spec: &Spec) -> Option<String> {
    if !spec.dns.is_empty() || spec.files.contains_key(Path::new(RESOLV_CONF)) {
        return None;
    }
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let server = |line: &str| line.split_whitespace().nth(1).and_then(|address| address.parse::<IpAddr>().ok());
    let is_server = |line: &str| line.trim_start().starts_with("nameserver");
    let is_local = |line: &str| is_server(line) && server(line).is_some_and(|address| address.is_loopback());
    let mut text = read(RESOLV_CONF);
    let is_hosts = matches!(spec.rootfs.kind, RootfsKind::Host | RootfsKind::HostOwned);
    if is_hosts && !text.lines().any(is_local) {
        return None;
    }
    if !text.lines().any(|line| is_server(line) && !is_local(line)) {
        text = read("/run/systemd/resolve/resolv.conf");
    }
    let lines: String = text.lines().filter(|line| !is_local(line)).map(|line| format!("{line}\n")).collect();
    lines.lines().any(is_server).then_some(lines)
}

fn of_nat(error: Error) -> Error {
    match error.errno() {
        libc::ENOENT | libc::EOPNOTSUPP | libc::EINVAL => error.with_kind(ErrorKind::Unsupported).with_hint(
            "it takes Linux 5.12 or later with CONFIG_NFT_NAT, CONFIG_NFT_MASQ, CONFIG_NFT_CT and CONFIG_NFT_FIB_INET",
        ),
        _ => error,
    }
}

/// The routes of IPv4 that are not for everything: address and mask.
fn routes() -> Vec<(u32, u32)> {
    let table = std::fs::read_to_string("/proc/thread-self/net/route").unwrap_or_default();
    let hex = |text: &str| u32::from_str_radix(text, 16).ok().map(u32::from_be);
    let route = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        Some((hex(words.get(1)?)?, hex(words.get(7)?)?)).filter(|(_, mask)| *mask != 0)
    };
    table.lines().filter_map(route).collect()
}

/// What the host reaches: by its routes, and the name servers that containers have too. IPv4; the defaults for IPv6 are nobody else's.
pub(super) fn in_use() -> Vec<IpNet> {
    let of_route = |(to, mask): (u32, u32)| Ipv4Net::with_netmask(to.into(), mask.into()).ok().map(IpNet::from);
    let text = std::fs::read_to_string(RESOLV_CONF).unwrap_or_default();
    let server = |line: &str| line.strip_prefix("nameserver")?.trim().parse::<IpAddr>().ok().map(IpNet::from);
    routes().into_iter().filter_map(of_route).chain(text.lines().filter_map(server)).collect()
}

/// The first address of a pair that no route is for. It follows from the number of the device, which no other has.
fn between(device: u32, routes: &[(u32, u32)]) -> Option<u32> {
    let pair = |number: u32| BETWEEN_IPV4 + number % (1 << 15) * 2;
    let free = |address: &u32| routes.iter().all(|(to, mask)| address & mask != *to);
    (0..1 << 15).map(|step| pair(device.wrapping_add(step * 7919))).find(free)
}

/// Has a program carry what leaves the network.
fn run(switch: &Switch<'_>, name: &'static str, path: &Path) -> Result<Way> {
    std::fs::OpenOptions::new().read(true).write(true).open(TUN).map_err(|e| {
        Error::io("open", &e)
            .with_path(TUN)
            .with_kind(ErrorKind::Unsupported)
            .with_hint(format!("{name} takes it: a kernel with CONFIG_TUN (module tun), and a node that all may open"))
    })?;
    let mut argv = vec![path.display().to_string()];
    let (near, gateway) = PROGRAM_IPV4;
    let namespace = switch.route.namespace()?;
    // The largest that both take.
    let mtu = switch.mtu.min(65520);
    let text = if name == "pasta" {
        let (near6, gateway6) = PROGRAM_IPV6;
        format!(
            "--foreground --quiet --netns-only --netns {SWITCH} --ns-ifname uplink --mtu {mtu} --no-map-gw --runas 0 --no-dhcp --no-dhcpv6 \
             --no-ra --address {near} --netmask 24 --gateway {gateway} --address {near6} --gateway {gateway6} -t none -u none -T none -U none"
        )
    } else {
        // What it does not do unasked: shut itself in.
        format!(
            "--enable-sandbox --enable-seccomp --disable-dns --disable-host-loopback --mtu {mtu} --cidr 198.19.255.0/24 \
             --netns-type path {SWITCH} uplink"
        )
    };
    argv.extend(text.split_whitespace().map(str::to_owned));
    let (namespaces, devices) = match switch.holder.keeper().outer {
        // What slirp4netns mounts to shut itself in would be the host's, where mounts are shared.
        None => (BTreeMap::new(), vec![Device::new(TUN)]),
        // What an ordinary user mounts is not; and with one id there is no /dev/pts.
        Some(_) => ([(NamespaceKind::Mnt, NamespaceSource::Host)].into(), Vec::new()),
    };
    let spec = Spec {
        argv: argv.into_iter().map(Into::into).collect(),
        net: Net::Host,
        idmap: Idmap::Host,
        stdin: Some(Stdio::Fd(namespace.as_raw_fd())),
        namespaces,
        devices,
        capabilities: Capabilities { bounding: RIGHTS, ..Capabilities::default() },
        // With CAP_SYS_ADMIN the profile has all else that they need to shut themselves in.
        seccomp: SeccompRules {
            profile: Some(SeccompProfile::Default),
            rules: vec![SeccompRule::new(["pivot_root"], SeccompAction::Allow)],
            ..SeccompRules::default()
        }
        .into(),
        ..Spec::default()
    };
    let container = Container::start_beside(switch.holder, &spec)?;
    let deadline = launch::deadline(Some(PATIENCE));
    let index = loop {
        if let Ok(index) = switch.route.index_of(UPLINK.name) {
            break index;
        }
        let ended = container.wait_end(Some(Duration::from_millis(1)))?;
        if ended || deadline.is_some_and(|at| Instant::now() >= at) {
            let what = if ended { "ended at once" } else { "made no device in time" };
            let error = Error::new(ErrorKind::Unsupported, format!("{name} {what}")).with_path(path.to_string_lossy());
            let said = container.log(0).unwrap_or_default();
            let said = String::from_utf8_lossy(&said);
            // Where it cannot reach a system log it says so for each line.
            let lines: Vec<&str> = said.lines().filter(|line| !line.contains("syslog")).collect();
            let last = lines[lines.len().saturating_sub(3)..].join("; ");
            return Err(if last.is_empty() { error } else { error.with_detail(format!("it says: {last}")) });
        }
    };
    let uplink = End { index, name: UPLINK.name };
    let way = Way::Program { name, container };
    let mut batch = Batch::default();
    batch.set_up(&uplink, true);
    for address in way.addresses() {
        let (net, gateway) = match address {
            IpAddr::V4(_) => (IpNet::new(address, 24), IpAddr::from(gateway)),
            IpAddr::V6(_) => (IpNet::new(address, 64), PROGRAM_IPV6.1.into()),
        };
        batch.address(&uplink, net.expect("both are prefixes"));
        if address.is_ipv6() {
            batch.address(&uplink, link_local());
        }
        batch.route(&uplink, everywhere(address), Some(gateway));
    }
    switch.route.request(batch)?;
    let mut batch = Batch::default();
    batch.way_out(switch.bridge.index, index);
    switch.firewall.request(batch).map_err(of_nat)?;
    Ok(way)
}
