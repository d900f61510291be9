//! The addresses of a network: which are taken, and which is given next.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;

/// The first numbers of a subnet that are not for containers: its own, and that of a gateway.
const RESERVED: u128 = 2;

/// Hosts of one network, by their number in every subnet of it: the one that has `.5` in one has `:5` in the other.
#[derive(Debug)]
pub(super) struct Pool {
    subnets: Vec<IpNet>,
    /// Who has an address.
    taken: BTreeMap<IpAddr, String>,
    /// Where the search goes on: an address is not given again before all others were, so that what somebody remembers of who had it
    /// is old.
    next: u128,
}

/// The numbers that a subnet has, reserved ones too.
fn size(subnet: &IpNet) -> u128 {
    let bits = subnet.max_prefix_len() - subnet.prefix_len();
    1u128.checked_shl(bits.into()).unwrap_or(u128::MAX)
}

/// The last number that a container can have, and one more: the last of IPv4 is for all.
fn end(subnet: &IpNet) -> u128 {
    match subnet {
        IpNet::V4(_) => size(subnet) - 1,
        IpNet::V6(_) => size(subnet),
    }
}

pub(super) fn nth(subnet: &IpNet, number: u128) -> IpAddr {
    match subnet {
        IpNet::V4(net) => IpAddr::V4((u32::from(net.network()) + number as u32).into()),
        IpNet::V6(net) => IpAddr::V6((u128::from(net.network()) + number).into()),
    }
}

/// The address that is kept for a gateway.
pub(super) fn gateway_of(subnet: &IpNet) -> IpAddr {
    nth(subnet, 1)
}

/// Why an address cannot be had.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    Outside,
    Reserved,
    Taken(String),
    /// One of a family is enough.
    Second,
    Exhausted,
}

impl Pool {
    pub fn new(subnets: Vec<IpNet>) -> Self {
        Self { subnets, taken: BTreeMap::new(), next: RESERVED }
    }

    fn check(&self, address: IpAddr) -> Result<&IpNet, Refusal> {
        let subnet = self.subnets.iter().find(|subnet| subnet.contains(&address)).ok_or(Refusal::Outside)?;
        let reserved = (0..RESERVED).any(|number| nth(subnet, number) == address);
        if reserved || !(0..end(subnet)).contains(&number(subnet, address)) {
            return Err(Refusal::Reserved);
        }
        match self.taken.get(&address) {
            Some(by) => Err(Refusal::Taken(by.clone())),
            None => Ok(subnet),
        }
    }

    /// An address in each subnet: those that are wanted, others that are free.
    pub fn take(&mut self, wanted: &[IpAddr], who: &str) -> Result<Vec<IpNet>, (Option<IpAddr>, Refusal)> {
        let mut given: Vec<Option<IpAddr>> = vec![None; self.subnets.len()];
        for &address in wanted {
            let subnet = *self.check(address).map_err(|why| (Some(address), why))?;
            let at = self.subnets.iter().position(|one| *one == subnet).expect("just found");
            if given[at].replace(address).is_some() {
                return Err((Some(address), Refusal::Second));
            }
        }
        let open: Vec<IpNet> =
            self.subnets.iter().zip(&given).filter(|(_, given)| given.is_none()).map(|(subnet, _)| *subnet).collect();
        if !open.is_empty() {
            let number = self.free(&open).ok_or((None, Refusal::Exhausted))?;
            self.next = number + 1;
            for (subnet, given) in self.subnets.iter().zip(&mut given) {
                given.get_or_insert(nth(subnet, number));
            }
        }
        let all = self.subnets.iter().zip(given).map(|(subnet, address)| (subnet, address.expect("each has one")));
        let all: Vec<IpNet> =
            all.map(|(subnet, address)| IpNet::new(address, subnet.prefix_len()).expect("of a subnet")).collect();
        self.taken.extend(all.iter().map(|one| (one.addr(), who.to_owned())));
        Ok(all)
    }

    /// The next number that is free in all of these.
    fn free(&self, subnets: &[IpNet]) -> Option<u128> {
        let end = subnets.iter().map(end).min()?;
        // One of as many numbers as are taken and one more is free.
        let span = end.checked_sub(RESERVED).filter(|&span| span > 0)?;
        let start = if (RESERVED..end).contains(&self.next) { self.next } else { RESERVED };
        let tries = span.min(self.taken.len() as u128 + 1);
        (0..tries)
            .map(|step| RESERVED + (start - RESERVED + step) % span)
            .find(|&number| subnets.iter().all(|subnet| !self.taken.contains_key(&nth(subnet, number))))
    }

    pub fn give_back(&mut self, addresses: &[IpNet]) {
        for one in addresses {
            self.taken.remove(&one.addr());
        }
    }
}

fn number(subnet: &IpNet, address: IpAddr) -> u128 {
    match (subnet.network(), address) {
        (IpAddr::V4(base), IpAddr::V4(address)) => (u32::from(address).wrapping_sub(u32::from(base))).into(),
        (IpAddr::V6(base), IpAddr::V6(address)) => u128::from(address).wrapping_sub(u128::from(base)),
        _ => u128::MAX,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn pool(subnets: &[&str]) -> Pool {
        Pool::new(subnets.iter().map(|text| text.parse().unwrap()).collect())
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn one_number_in_both_families_and_none_twice() {
        let mut pool = pool(&["10.0.0.0/29", "fd00::/64"]);
        let mut seen = BTreeSet::new();
        for number in 2..7 {
            let given = pool.take(&[], "x").unwrap();
            assert_eq!(given[0].addr(), nth(&pool.subnets[0], number));
            assert_eq!(given[1].to_string(), format!("fd00::{number}/64"));
            seen.extend(given.iter().map(|one| one.addr()));
        }
        assert_eq!(seen.len(), 10);
        assert_eq!(pool.take(&[], "x"), Err((None, Refusal::Exhausted)));
        pool.give_back(&["10.0.0.4/29".parse().unwrap(), "fd00::4/64".parse().unwrap()]);
        assert_eq!(pool.take(&[], "y").unwrap()[0].addr(), ip("10.0.0.4"));
        assert_eq!(pool.taken.len(), 10);
    }

    #[test]
    fn what_was_given_back_is_given_last() {
        let mut pool = pool(&["10.0.0.0/29"]);
        let first = pool.take(&[], "x").unwrap();
        pool.give_back(&first);
        let later: Vec<_> = (0..4).map(|_| pool.take(&[], "x").unwrap()[0].addr()).collect();
        assert_eq!(later, ["10.0.0.3", "10.0.0.4", "10.0.0.5", "10.0.0.6"].map(ip));
        assert_eq!(pool.take(&[], "x").unwrap(), first);
    }

    #[test]
    fn wanted_addresses() {
        let mut pool = pool(&["10.0.0.0/24", "fd00::/64"]);
        let given = pool.take(&[ip("10.0.0.9")], "db").unwrap();
        assert_eq!((given[0].addr(), given[1].addr()), (ip("10.0.0.9"), ip("fd00::2")));
        for (address, why) in [
            ("10.0.1.9", Refusal::Outside),
            ("fd01::1", Refusal::Outside),
            ("10.0.0.0", Refusal::Reserved),
            ("10.0.0.1", Refusal::Reserved),
            ("10.0.0.255", Refusal::Reserved),
            ("fd00::1", Refusal::Reserved),
            ("10.0.0.9", Refusal::Taken("db".into())),
        ] {
            assert_eq!(pool.take(&[ip(address)], "x"), Err((Some(ip(address)), why)));
        }
        let twice = [ip("10.0.0.20"), ip("10.0.0.21")];
        assert_eq!(pool.take(&twice, "x"), Err((Some(twice[1]), Refusal::Second)));
        assert_eq!(pool.taken.len(), 2);
    }

    #[test]
    fn the_whole_of_ipv6_has_an_end() {
        let mut pool = pool(&["::/0"]);
        assert_eq!(pool.take(&[], "x").unwrap()[0].addr(), ip("::2"));
    }

    proptest! {
        #[test]
        fn nobody_has_what_another_has(steps in prop::collection::vec((any::<bool>(), 0usize..8), 0..200)) {
            let mut pool = pool(&["10.0.0.0/28", "fd00::/125"]);
            let mut held: Vec<Vec<IpNet>> = Vec::new();
            for (take, at) in steps {
                if take {
                    match pool.take(&[], "x") {
                        Ok(given) => held.push(given),
                        Err((_, why)) => {
                            prop_assert_eq!(why, Refusal::Exhausted);
                            prop_assert_eq!(held.len(), 6);
                        }
                    }
                } else if !held.is_empty() {
                    let one = held.remove(at % held.len());
                    pool.give_back(&one);
                }
                let all: BTreeSet<_> = held.iter().flatten().map(|one| one.addr()).collect();
                prop_assert_eq!(all.len(), 2 * held.len());
                prop_assert_eq!(pool.taken.len(), all.len());
            }
        }
    }
}
