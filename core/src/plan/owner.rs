//! `owner: payload` of `mounts`: the maps with which a mount of the host's files is shown.

use super::facts::IdMaps;

/// The maps of a user namespace that is only for one mount: what an id of the file system is, in the keeper's ids.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct OwnerMaps {
    pub uid: String,
    pub gid: String,
}

/// `map`, which brings each id of a file system to the id outside that has the same number inside, but with `owner` as `payload`.
/// The two change places; only the file system's id 0 is nobody's then, so that no other user inside makes files of the host's root.
/// `None`: `payload` has no id outside.
pub(crate) fn lent(map: &str, owner: u32, payload: u32) -> Option<String> {
    let of_payload = IdMaps::outside(map, payload)?;
    if owner == payload {
        return Some(map.to_owned());
    }
    let mut lines = vec![(owner.into(), of_payload.into(), 1)];
    if let Some(of_owner) = IdMaps::outside(map, owner).filter(|_| payload != 0) {
        lines.push((payload.into(), of_owner.into(), 1));
    }
    let (low, high) = (u64::from(owner.min(payload)), u64::from(owner.max(payload)));
    for (first, outside, count) in super::facts::ranges(map) {
        let end = first + count;
        for (from, to) in [(0, low), (low + 1, high), (high + 1, u64::MAX)] {
            let (from, to) = (from.max(first), to.min(end));
            if from < to {
                lines.push((from, outside + (from - first), to - from));
            }
        }
    }
    lines.sort_unstable();
    Some(lines.iter().map(|(first, outside, count)| format!("{first} {outside} {count}\n")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn owner_and_payload_change_places() {
        let auto = "0 524288 65536\n";
        assert_eq!(lent(auto, 1000, 1000).as_deref(), Some(auto));
        assert_eq!(lent(auto, 0, 1000).unwrap(), "0 525288 1\n1 524289 999\n1000 524288 1\n1001 525289 64535\n");
        // Nobody inside gets the host's root.
        assert_eq!(lent(auto, 1000, 0).unwrap(), "1 524289 999\n1000 524288 1\n1001 525289 64535\n");
        // The container has no such number.
        assert_eq!(lent(auto, 70_000, 5).unwrap(), "0 524288 5\n6 524294 65530\n70000 524293 1\n");
        assert_eq!(lent("0 10 1\n5 20 1\n", 7, 5).unwrap(), "0 10 1\n7 20 1\n");
        assert_eq!(lent(auto, 0, 65_536), None);
        let all = "0 0 4294967295\n";
        assert_eq!(lent(all, 0, 1).unwrap(), "0 1 1\n1 0 1\n2 2 4294967293\n");
        assert_eq!(lent(all, 4_294_967_294, 0).unwrap(), "1 1 4294967293\n4294967294 0 1\n");
    }

    proptest::proptest! {
        #[test]
        fn no_id_is_given_twice(owner in 0u32..80, payload in 0u32..80, first in 0u32..20, gap in 0u32..20, count in 1u32..30) {
            let map = format!("{first} 1000 {count}\n{} 5000 {count}\n", first + count + gap);
            let Some(lent) = lent(&map, owner, payload) else { return Ok(()) };
            let seen: Vec<_> = (0..100).filter_map(|id| Some((id, IdMaps::outside(&lent, id)?))).collect();
            let mut outside: Vec<_> = seen.iter().map(|&(_, outside)| outside).collect();
            outside.sort_unstable();
            outside.dedup();
            assert_eq!(outside.len(), seen.len(), "{map} {owner} {payload}: {lent}");
            assert_eq!(IdMaps::outside(&lent, owner), IdMaps::outside(&map, payload));
            for (id, outside) in seen {
                let other = if payload == 0 { None } else { IdMaps::outside(&map, owner) };
                let wanted = match id {
                    id if id == owner => IdMaps::outside(&map, payload),
                    id if id == payload => other,
                    id => IdMaps::outside(&map, id),
                };
                assert_eq!(Some(outside), wanted, "{map} {owner} {payload}: {lent}");
            }
        }
    }
}
