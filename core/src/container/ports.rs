//! Ports of a container that are reachable at ports of the host.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, SockaddrStorage, bind, getsockname, listen, setsockopt, socket, sockopt,
};
use serde_json::{Value, json};

use super::Container;
use super::start::NOBODY;
use crate::cgroup::{Group, V1Part};
use crate::error::{Error, ErrorKind, Result};
use crate::launch::{self, Channel, HostOnly, Keeper, Outcome, Request};
use crate::plan::exec::Joining;
use crate::proto::{record, request};
use crate::spec::{Port, Protocol, Spec};

/// As many as the kernel allows (net.core.somaxconn).
const BACKLOG: i32 = 4096;

/// The host's sockets, bound before anything of the container is there.
#[derive(Default)]
pub(super) struct Listening {
    /// With the ports of the host that they have.
    pub ports: Vec<Port>,
    sockets: Vec<HostOnly>,
}

impl Listening {
    /// Takes the host's ports that a spec asks for.
    pub fn open(spec: &Spec) -> Result<Self> {
        let mut all = Self::default();
        for (i, port) in spec.ports.iter().enumerate() {
            let (socket, port) = open(port).map_err(|errno| refused(port, errno).with_field(format!("ports[{i}]")))?;
            all.ports.push(port);
            all.sockets.push(socket.into());
        }
        Ok(all)
    }

    /// They are served by others now, or by nobody.
    pub fn done(self) -> Vec<Port> {
        self.ports
    }

    /// Those that the kernel leads on, with their places in the spec: the sockets only keep others from taking their ports.
    pub fn take_led_on(&mut self) -> Vec<(usize, Port, HostOnly)> {
        let sockets = std::mem::take(&mut self.sockets);
        let (mut led_on, mut others) = (Vec::new(), Vec::new());
        for (i, (socket, port)) in sockets.into_iter().zip(&self.ports).enumerate() {
            if port.nat {
                led_on.push((i, *port, socket));
            } else {
                others.push(socket);
            }
        }
        self.sockets = others;
        led_on
    }

    /// Whether there are any for a task of the keeper.
    pub fn has_others(&self) -> bool {
        !self.sockets.is_empty()
    }

    /// Has a task of the keeper serve the others: it is in the container's network, and beside its processes in its group.
    pub fn serve(
        &self,
        keeper: &Keeper,
        key: u64,
        (group, pod): (Option<&Group>, Option<&Group>),
        timeout: Duration,
    ) -> Result<()> {
        let place = group.map(|group| group.relay(pod)).transpose()?;
        let v1 = place.as_ref().map(Group::v1).unwrap_or_default();
        let joining = Joining {
            namespaces: libc::CLONE_NEWNET as u64,
            group_dir: place.as_ref().is_some_and(|group| group.v2_dir().is_some()),
            group_tasks: v1.len(),
            root: (0, 0),
        };
        let ports: Vec<Port> = self.ports.iter().filter(|port| !port.nat).copied().collect();
        let (compiled, needs) = crate::plan::relay::relay(&joining, &ports);
        let (channel, there) = Channel::pair()?;
        let listeners: Vec<BorrowedFd<'_>> = self.sockets.iter().map(AsFd::as_fd).collect();
        let sent = Request {
            group: place.as_ref(),
            tasks: &v1.iter().map(V1Part::tasks).collect::<Vec<_>>(),
            listeners: &listeners,
            ..Request::default()
        }
        .send(keeper, request::RELAY, key, Some(timeout), there.as_fd(), None, &compiled, &needs)?;
        drop(there);
        let gone = || Error::new(ErrorKind::KeeperDied, "the keeper is gone").with_errno(libc::EPIPE);
        let _plan = sent.ok_or_else(gone)?;
        match launch::wait_started(&channel, Some(timeout), record::STARTED, NOBODY)? {
            Outcome::Started { .. } => Ok(()),
            Outcome::Failed(failed) => Err(launch::explain_failure(&failed, &compiled)),
            Outcome::Refused | Outcome::KeeperDied | Outcome::Ended(_) => Err(gone()),
        }
    }
}

fn open(port: &Port) -> std::result::Result<(OwnedFd, Port), Errno> {
    let address = SockaddrStorage::from(port.address());
    let family = if port.host.is_ipv6() { AddressFamily::Inet6 } else { AddressFamily::Inet };
    let kind = match port.protocol {
        Protocol::Tcp => SockType::Stream,
        Protocol::Udp => SockType::Datagram,
    };
    let made = socket(family, kind, SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK, None)?;
    if port.protocol == Protocol::Tcp {
        // Connections of a container before this one may be in TIME_WAIT; a listener is refused still.
        setsockopt(&made, sockopt::ReuseAddr, &true)?;
    }
    if port.host.is_ipv6() {
        setsockopt(&made, sockopt::Ipv6V6Only, &true)?;
    }
    bind(made.as_raw_fd(), &address)?;
    if port.protocol == Protocol::Tcp {
        listen(&made, Backlog::new(BACKLOG).unwrap_or(Backlog::MAXCONN))?;
    }
    let bound: SockaddrStorage = getsockname(made.as_raw_fd())?;
    let number = bound.as_sockaddr_in().map(|a| a.port()).or(bound.as_sockaddr_in6().map(|a| a.port()));
    Ok((made, port.host_port(number.unwrap_or_default())))
}

fn refused(port: &Port, errno: Errno) -> Error {
    let error = Error::os("listen", errno as i32).with_path(port.address().to_string());
    match errno {
        Errno::EADDRINUSE => error
            .with_kind(ErrorKind::AlreadyExists)
            .with_hint("somebody listens there already (ss -ltnup tells who); without a host port it gets a free one"),
        Errno::EADDRNOTAVAIL => error.with_hint("the host's address has to be one of this machine"),
        Errno::EACCES => error
            .with_hint("ports below net.ipv4.ip_unprivileged_port_start take CAP_NET_BIND_SERVICE: use a higher one"),
        Errno::EAFNOSUPPORT => error.with_kind(ErrorKind::Unsupported).with_hint("this machine has no IPv6"),
        _ => error,
    }
}

/// For records.
pub(super) fn describe(ports: &[Port]) -> Value {
    let one = |port: &Port| {
        let mut json = json!({
            "port": port.port,
            "protocol": port.protocol.name(),
            "host": port.host.to_string(),
            "host_port": port.host_port,
        });
        if port.nat {
            json["nat"] = true.into();
        }
        json
    };
    ports.iter().map(one).collect()
}

/// From what [`describe`] wrote.
pub(super) fn recorded(description: &Value) -> Vec<Port> {
    let spec = json!({ "ports": description }).to_string();
    Spec::from_json(&spec).map(|spec| spec.ports).unwrap_or_default()
}

impl Container {
    /// The published ports, in the order of the spec, with the ports of the host that they have. They are served as long as the
    /// container runs, by a task beside it that holds nothing but their connections; those with `nat`, by the host's kernel.
    ///
    /// Such a task accepts a connection of the host before the service inside is asked: where nobody listens there, it is reset. Inside,
    /// its connections come from 127.0.0.1 or ::1.
    pub fn ports(&self) -> Result<Vec<Port>> {
        Ok(self.open()?.ports.clone())
    }

    /// The host's port at which port `port` of the container is: of TCP if it is published for both.
    ///
    /// # Errors
    /// NotFound with field `port` when it is not published; Closed.
    pub fn port(&self, port: u16) -> Result<u16> {
        let ports = &self.open()?.ports;
        let of = |protocol| ports.iter().find(|p| p.port == port && p.protocol == protocol);
        let found = of(Protocol::Tcp).or_else(|| of(Protocol::Udp));
        found.map(|found| found.host_port).ok_or_else(|| {
            let published = ports.iter().map(Port::to_string).collect::<Vec<_>>().join(", ");
            let hint = match published.as_str() {
                "" => format!("start the container with ports: [{port}]"),
                published => format!("published are {published}"),
            };
            Error::new(ErrorKind::NotFound, format!("port {port} is not published")).with_field("port").with_hint(hint)
        })
    }

    /// [`ports`](Self::ports) as JSON: `[{"port": 5432, "protocol": "tcp", "host": "127.0.0.1", "host_port": 41234}]`.
    pub fn ports_json(&self) -> Result<String> {
        Ok(describe(&self.open()?.ports).to_string())
    }
}
