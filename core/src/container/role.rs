//! What a container is to others: by itself, to a pod, to a switch.

use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use super::{Container, Inner, lock};
use crate::error::{Error, ErrorKind, Result};
use crate::spec::{NamespaceKind, Spec};

/// What a member of a pod shares, and with whom.
#[derive(Clone, Debug)]
pub(super) struct Membership {
    pub(super) holder: Arc<Inner>,
    pub(super) kinds: Vec<NamespaceKind>,
}

/// What a container is to a pod.
#[derive(Clone, Copy)]
pub(super) enum Role<'a> {
    Alone,
    /// It has the namespaces and no process but pid 1. With pids, those who share them are ended by their groups, in its own.
    Holder {
        pids: bool,
    },
    Member(&'a Membership),
    /// It has a network namespace that nobody else is in, of which the library gets sockets.
    Switch(&'a Mutex<Switch>),
    /// A program of the host's that has to do with a switch: it is born where that was, with no ids but those.
    Beside(&'a Container),
    /// It only has something undone at its end: see [`Container::start_undo`].
    Undo(&'a [u8], BorrowedFd<'a>),
}

impl<'a> Role<'a> {
    pub(super) fn member(self) -> Option<&'a Membership> {
        match self {
            Self::Member(membership) => Some(membership),
            _ => None,
        }
    }
}

/// What the library gets of a container that holds the network namespace of a switch.
#[derive(Debug, Default)]
pub(super) struct Switch {
    pub(super) sockets: Vec<(u32, OwnedFd)>,
    /// A file beside its record.
    pub(super) hosts: Option<(PathBuf, OwnedFd)>,
}

/// Sockets of family AF_NETLINK in the network namespace of a switch, and /etc/hosts of those on it.
pub(crate) struct SwitchParts {
    pub route: OwnedFd,
    pub firewall: OwnedFd,
    pub hosts: (PathBuf, std::fs::File),
}

impl Container {
    /// A container with nothing in it but its pid 1, with whose end the keeper sends these messages to rtnetlink(7), also when
    /// this program was killed: for what can go before the container that has it. It keeps `claim` open until that is done.
    pub(crate) fn start_undo(messages: &[u8], claim: BorrowedFd<'_>) -> Result<Self> {
        let spec = Spec { net: crate::spec::Net::Host, idmap: crate::spec::Idmap::Host, ..Spec::default() };
        Self::start_as(&spec, Role::Undo(messages, claim))
    }

    /// Starts what holds the network namespace of a switch.
    pub(crate) fn start_switch(spec: &Spec) -> Result<(Self, SwitchParts)> {
        let switch = Mutex::default();
        let container = Self::start_as(spec, Role::Switch(&switch))?;
        let mut switch = lock(&switch);
        let sockets = std::mem::take(&mut switch.sockets).into_iter().map(|(_, socket)| socket);
        let sockets: std::result::Result<[OwnedFd; 2], _> = sockets.collect::<Vec<_>>().try_into();
        match (sockets, switch.hosts.take()) {
            (Ok([route, firewall]), Some((path, file))) => {
                Ok((container, SwitchParts { route, firewall, hosts: (path, file.into()) }))
            }
            _ => Err(Error::new(ErrorKind::Internal, "the keeper sent no sockets of a switch")),
        }
    }

    /// Starts a program that works for a switch from outside of it.
    pub(crate) fn start_beside(switch: &Self, spec: &Spec) -> Result<Self> {
        Self::start_as(spec, Role::Beside(switch))
    }
}
