//! The ids with which a mount shows its file system.

use std::path::PathBuf;
use std::sync::Arc;

use super::facts::IdMaps;
use crate::spec::IdRange;

/// The maps of a user namespace that is only for mounts: what an id of the file system is, in the keeper's ids.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct OwnMaps {
    pub uid: String,
    pub gid: String,
    /// In the place of the map that the source is mounted with, which is part of these.
    pub replaces: bool,
}

/// With which ids a mount shows what is in its file system.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub(crate) enum Ids {
    /// As the source does.
    Host,
    /// With the container's user namespace, if it is its own.
    #[default]
    Container,
    /// With a user namespace that is there for nothing else.
    Own(OwnMaps),
}

/// The same for a source with what is mounted below it.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub(crate) struct MountIds {
    /// What of the spec says so; `None`: nothing, it is the default.
    pub field: Option<Arc<str>>,
    pub ids: Ids,
    /// Of what is mounted below, where that has other ids than the source: each is mounted by itself.
    pub below: Vec<Below>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Below {
    /// Where it is mounted on the host.
    pub path: PathBuf,
    /// The same from the source on.
    pub rest: PathBuf,
    pub directory: bool,
    pub ids: Ids,
}

/// Why ranges of a mount make no map.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum NoMap {
    /// The range with this index has this id inside, and the container has not.
    Unmapped(usize, u32),
    /// More ranges than the kernel takes.
    TooMany(usize),
}

/// How many ranges the kernel takes.
const MOST: usize = 340;

fn lines(mut ranges: Vec<(u64, u64, u64)>) -> String {
    ranges.sort_unstable();
    ranges.iter().map(|(first, outside, count)| format!("{first} {outside} {count}\n")).collect()
}

/// What is from `first` on, `count` ids, on the other side of `map`: (distance from `first`, first there, count).
fn pieces(map: &str, first: u64, count: u64) -> Vec<(u64, u64, u64)> {
    let mut found: Vec<_> = super::facts::ranges(map)
        .filter_map(|(inside, outside, n)| {
            let (from, to) = (inside.max(first), (inside + n).min(first + count));
            (from < to).then(|| (from - first, outside + (from - inside), to - from))
        })
        .collect();
    found.sort_unstable();
    found
}

/// The map of a mount with these ranges in a container with the map `container`: it brings each id of the file system to the id outside
/// of the container that its id inside is.
pub(crate) fn of_ranges(ranges: &[IdRange], container: &str) -> Result<String, NoMap> {
    let mut found = Vec::new();
    for (i, range) in ranges.iter().enumerate() {
        let mut next = 0;
        for (at, outside, count) in pieces(container, range.inside.into(), range.count.into()) {
            if at != next {
                break;
            }
            found.push((u64::from(range.outside) + at, outside, count));
            next = at + count;
        }
        if next < range.count.into() {
            return Err(NoMap::Unmapped(i, range.inside + next as u32));
        }
    }
    if found.len() > MOST {
        return Err(NoMap::TooMany(found.len()));
    }
    Ok(lines(found))
}

/// The same on top of the map that the source is mounted with: `source` brings ids of the file system to those that are seen there.
/// What has no id then is left out.
pub(crate) fn through(source: &[(u32, u32, u32)], map: &str) -> Result<String, NoMap> {
    let mut found = Vec::new();
    for &(first, seen, count) in source {
        for (at, outside, count) in pieces(map, seen.into(), count.into()) {
            found.push((u64::from(first) + at, outside, count));
        }
    }
    if found.len() > MOST {
        return Err(NoMap::TooMany(found.len()));
    }
    Ok(lines(found))
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
    Some(self::lines(lines))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(inside: u32, outside: u32, count: u32) -> IdRange {
        IdRange { inside, outside, count }
    }

    #[test]
    fn ranges_of_a_mount_say_inside_and_outside() {
        let auto = "0 524288 65536\n";
        // What is uid 1000's in the file system is root's inside.
        assert_eq!(of_ranges(&[range(0, 1000, 1)], auto).unwrap(), "1000 524288 1\n");
        assert_eq!(of_ranges(&[range(33, 0, 2), range(0, 70_000, 5)], auto).unwrap(), "0 524321 2\n70000 524288 5\n");
        assert_eq!(of_ranges(&[range(65_530, 0, 6)], auto).unwrap(), "0 589818 6\n");
        assert_eq!(of_ranges(&[range(0, 0, 1), range(65_530, 9, 7)], auto), Err(NoMap::Unmapped(1, 65_536)));
        // In the order of the container's map or not, whole or in pieces.
        let two = "10 5000 10\n0 90 10\n";
        assert_eq!(of_ranges(&[range(5, 100, 10)], two).unwrap(), "100 95 5\n105 5000 5\n");
        assert_eq!(of_ranges(&[range(0, 0, 21)], two), Err(NoMap::Unmapped(0, 20)));
        assert_eq!(of_ranges(&[range(20, 0, 1)], two), Err(NoMap::Unmapped(0, 20)));
        let all = "0 0 4294967295\n";
        assert_eq!(of_ranges(&[range(4_294_967_294, 0, 1)], all).unwrap(), "0 4294967294 1\n");
        let many: String = (0..341).map(|i| format!("{i} {} 1\n", 1000 - i)).collect();
        assert_eq!(of_ranges(&[range(0, 0, 341)], &many), Err(NoMap::TooMany(341)));
    }

    #[test]
    fn a_map_on_a_map() {
        // The file system's 0 to 9 are seen as 100 to 109, its 50 as 7.
        let source = [(0, 100, 10), (50, 7, 1)];
        assert_eq!(through(&source, "0 524288 65536\n").unwrap(), "0 524388 10\n50 524295 1\n");
        assert_eq!(through(&source, "105 9 1\n107 20 100\n").unwrap(), "5 9 1\n7 20 3\n");
        assert_eq!(through(&source, "200 0 5\n").unwrap(), "");
    }

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
        fn each_id_has_the_one_that_was_asked_for(
            inside in 0u32..60, outside in 0u32..60, count in 1u32..40, first in 0u32..20, gap in 0u32..20, n in 1u32..30,
            seen in 0u32..60,
        ) {
            let map = format!("{first} 1000 {n}\n{} 5000 {n}\n", first + n + gap);
            let of_container = |id| IdMaps::outside(&map, id);
            let own = [range(inside, outside, count)];
            match of_ranges(&own, &map) {
                Ok(own) => for id in 0..120u32 {
                    let wanted = id.checked_sub(outside).filter(|&at| at < count).and_then(|at| of_container(inside + at));
                    assert_eq!(IdMaps::outside(&own, id), wanted, "{id} of {own} in {map}");
                },
                Err(missing) => {
                    let first = (inside..inside + count).find(|&id| of_container(id).is_none());
                    assert_eq!(missing, NoMap::Unmapped(0, first.expect("one is not mapped")));
                }
            }
            let both = through(&[(outside, seen, count)], &map).unwrap();
            for id in 0..120u32 {
                let wanted = id.checked_sub(outside).filter(|&at| at < count).and_then(|at| of_container(seen + at));
                assert_eq!(IdMaps::outside(&both, id), wanted, "{id} of {both} in {map}");
            }
        }

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
