//! Devices of containers: on networks, and others.

use std::net::IpAddr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;

use ipnet::IpNet;

use super::hosts::OwnHosts;
use super::port::{Leaving, in_firewall};
use super::{Address, BRIDGE, Shared, closed, lock};
use crate::error::Result;
use crate::launch::HostOnly;
use crate::net::attach::{OnHost, everywhere};
use crate::net::link::{End, Remote};
use crate::net::netlink::{Batch, Socket};
use crate::net::uplink::Lead;

/// A container's device on a network: dropped, it has left.
#[derive(Debug)]
pub(crate) struct Link {
    pub(super) network: Arc<Shared>,
    pub(super) number: u32,
    /// Those of the network that the container uses: another device may lead out already.
    pub(super) gateways: Vec<IpAddr>,
    /// Ports of the host that lead to it, and sockets that have them as long.
    pub(super) lead: Option<(Lead, Vec<HostOnly>)>,
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
pub(super) fn settle(network: &Shared, number: u32, own: Option<&Arc<OwnHosts>>, new: bool) {
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
    pub(super) fn connect(&self, socket: &Socket, namespace: &OwnedFd) -> Result<()> {
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
    pub(super) fn gateways(&self) -> Vec<IpAddr> {
        match self {
            Self::OnNetwork(link) => link.gateways.clone(),
            Self::Other(device) => device.ways.clone(),
        }
    }

    /// The subnets that it leads to, and the name of the network that has them.
    pub(super) fn subnets(&self) -> (Vec<IpNet>, Option<String>) {
        match self {
            // Its device is gone.
            Self::OnNetwork(link) if lock(&link.network.state).sockets.is_none() => (Vec::new(), None),
            Self::OnNetwork(link) => (link.network.subnets.clone(), Some(link.network.name.clone())),
            Self::Other(device) => (device.subnets.clone(), None),
        }
    }

    pub(super) fn is_on(&self, network: &str) -> bool {
        matches!(self, Self::OnNetwork(link) if link.network.name == network)
    }

    /// What it has; `None` when its network has ended.
    pub fn address(&self) -> Option<Address> {
        match self {
            Self::OnNetwork(link) => link.address(),
            Self::Other(device) => Some(device.address.clone()),
        }
    }

    /// The name inside by which it was made.
    pub(super) fn is_called(&self, interface: &str) -> bool {
        match self {
            Self::OnNetwork(link) => {
                lock(&link.network.state).ports.get(&link.number).is_some_and(|port| port.interface == interface)
            }
            Self::Other(device) => device.address.interface == interface,
        }
    }

    /// The number inside of the host's own device, which is moved back.
    pub(super) fn comes_back(&self) -> Option<u32> {
        match self {
            Self::Other(device) if device.comes_back => Some(device.inside),
            _ => None,
        }
    }

    /// Removes the device. What the container has removed itself is no error.
    pub(super) fn remove(&self, socket: &Socket) -> Result<()> {
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
