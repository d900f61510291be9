//! The networks of this program, by name.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, Weak};

use ipnet::IpNet;
use once_cell::race::OnceBox;

use super::{Handle, Shared, has_ipv6, lock};
use crate::error::{Error, ErrorKind, Result};
use crate::launch::{Keeper, Owner};
use crate::spec::{NetworkSpec, Spec};

/// The networks of a process. A forked child cannot use its parent's: another thread's lock would never be given back. So it has one of
/// its own behind that.
pub(super) struct Registry {
    owner: Owner,
    /// By name, with a number that no other has.
    pub(super) networks: Mutex<HashMap<String, (u64, Weak<Handle>)>>,
    /// By the number of the network, also of one that is being made or closed.
    subnets: Mutex<BTreeMap<u64, Vec<IpNet>>>,
    next: OnceBox<Registry>,
}

static REGISTRIES: OnceBox<Registry> = OnceBox::new();

impl Registry {
    fn new() -> Box<Self> {
        let (networks, subnets) = (Mutex::default(), Mutex::default());
        Box::new(Self { owner: Owner::this(), networks, subnets, next: OnceBox::new() })
    }

    /// That of this process, which is made if need be.
    pub(super) fn own() -> &'static Self {
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
    pub(super) fn find(name: &str) -> Result<Option<Arc<Handle>>> {
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

/// Subnets that a network has, as long as this is there.
#[derive(Debug)]
pub(super) struct Subnets {
    owner: Owner,
    number: u64,
}

impl Subnets {
    /// Those that are asked for; where none are, the first of the defaults that no other network has any part of: a container may be
    /// on both, and would reach who is on the one of them only. `beside` is what is reached by another way, and is left out if it can be.
    pub fn take(number: u64, mut wanted: Vec<IpNet>, beside: &[IpNet]) -> (Self, Vec<IpNet>) {
        let mut all = lock(&Registry::own().subnets);
        if wanted.is_empty() {
            let taken = |subnet: &IpNet| all.values().flatten().any(|other| overlap(subnet, other));
            let other = |subnet: &IpNet| taken(subnet) || beside.iter().any(|other| overlap(subnet, other));
            let same = |subnet: &IpNet| all.values().flatten().any(|other| subnet == other);
            let first = |bad: &dyn Fn(&IpNet) -> bool| NetworkSpec::defaults().find(|pair| !pair.iter().any(bad));
            let free = first(&other).or_else(|| first(&taken)).or_else(|| first(&same));
            let count = NetworkSpec::defaults().len();
            let pair = free.or_else(|| NetworkSpec::defaults().nth(all.len() % count)).expect("less than there are");
            wanted = pair.into_iter().filter(|subnet| subnet.addr().is_ipv4() || has_ipv6()).collect();
        }
        all.insert(number, wanted.clone());
        (Self { owner: Owner::this(), number }, wanted)
    }
}

impl Drop for Subnets {
    fn drop(&mut self) {
        if self.owner.is_this() {
            lock(&Registry::own().subnets).remove(&self.number);
        }
    }
}

/// Whether there are addresses that are in both.
pub(super) fn overlap(one: &IpNet, other: &IpNet) -> bool {
    one.contains(other) || other.contains(one)
}

pub(super) fn unknown(name: &str) -> Error {
    Error::new(ErrorKind::NotFound, format!("this program has no network {name:?}")).with_errno(libc::ENOENT)
}

pub(super) fn find(name: &str) -> Option<Arc<Shared>> {
    let found = Registry::find(name).ok()??.shared.clone();
    (found.owner.is_this() && lock(&found.state).sockets.is_some()).then_some(found)
}

/// Programs that led out of this program's networks and have ended are started again. Which are not, and why.
pub(crate) fn reopen() -> Vec<Error> {
    // Not the handles: the last one closes the network, which is not this thread's to do.
    let handles: Vec<_> = lock(&Registry::own().networks).values().filter_map(|(_, handle)| handle.upgrade()).collect();
    let all: Vec<_> = handles.iter().map(|handle| handle.shared.clone()).collect();
    drop(handles);
    let reopened = all.iter().map(|shared| {
        let done = shared.reopen(&mut lock(&shared.state));
        done.map_err(|e| e.with_context(format!("open the way out of network {:?} again", shared.name)))
    });
    reopened.filter_map(Result::err).collect()
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
