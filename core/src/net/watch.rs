//! What happens to the devices and addresses of a network namespace: rtnetlink(7) tells of it.

use std::io::IoSliceMut;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, NetlinkAddr, bind, recvmsg};

use super::netlink::kinds;
use crate::cgroup::Seen;
use crate::error::{Error, Result};
use crate::events::EventKind;
use crate::launch::HostOnly;

/// A socket of the namespace, with those of [`EventKind::Link`] and [`EventKind::Address`] that are asked for.
#[derive(Debug)]
pub(crate) struct Watch {
    socket: HostOnly,
    kinds: Vec<EventKind>,
}

impl Watch {
    /// `socket`: a new one of NETLINK_ROUTE. From here on it is told.
    pub fn new(socket: OwnedFd, kinds: Vec<EventKind>) -> Result<Self> {
        let groups = kinds.iter().fold(0, |groups, kind| {
            groups
                | match kind {
                    EventKind::Link => libc::RTMGRP_LINK,
                    _ => libc::RTMGRP_IPV4_IFADDR | libc::RTMGRP_IPV6_IFADDR,
                }
        });
        let address = NetlinkAddr::new(0, groups as u32);
        bind(socket.as_raw_fd(), &address).map_err(|e| Error::os("bind AF_NETLINK", e as i32))?;
        Ok(Self { socket: HostOnly::new(socket), kinds })
    }

    pub fn kinds(&self) -> &[EventKind] {
        &self.kinds
    }

    pub fn fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// Takes what there is.
    pub fn look(&self, seen: &mut Vec<Seen>) {
        let mut buffer = vec![0; 32 << 10];
        let mut tell = |kind: EventKind| {
            if self.kinds.contains(&kind) {
                seen.push(Seen { kind, threshold: None, count: 1 });
            }
        };
        loop {
            let mut parts = [IoSliceMut::new(&mut buffer)];
            let got = recvmsg::<NetlinkAddr>(self.fd().as_raw_fd(), &mut parts, None, MsgFlags::MSG_DONTWAIT);
            let (length, from) = match got {
                Ok(got) => (got.bytes, got.address),
                Err(Errno::EINTR) => continue,
                // More came than the socket holds: something happened to each of them, most likely.
                Err(Errno::ENOBUFS) => {
                    self.kinds.iter().for_each(|kind| tell(*kind));
                    continue;
                }
                Err(_) => return,
            };
            if from.is_none_or(|from| from.pid() != 0) {
                continue;
            }
            for kind in kinds(&buffer[..length]) {
                match kind {
                    libc::RTM_NEWLINK | libc::RTM_DELLINK => tell(EventKind::Link),
                    libc::RTM_NEWADDR | libc::RTM_DELADDR => tell(EventKind::Address),
                    _ => {}
                }
            }
        }
    }
}
