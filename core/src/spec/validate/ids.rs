//! Maps of ids.

use crate::error::Result;
use crate::spec::at::At;
use crate::spec::user::MAX_ID;
use crate::spec::{IdRange, Idmap, Mount, MountIdmap, MountKind};

/// The most lines of an id map (user_namespaces(7), Linux 4.15).
const MAX_ID_RANGES: usize = 340;

pub(super) fn validate_idmap(idmap: &Idmap) -> Result<()> {
    let Idmap::Explicit { uid, gid } = idmap else { return Ok(()) };
    validate_sides(&At::Field("idmap"), uid, gid)
}

fn validate_sides(at: &At, uid: &[IdRange], gid: &[IdRange]) -> Result<()> {
    validate_ranges(&at.key("uid"), uid)?;
    validate_ranges(&at.key("gid"), gid)
}

pub(super) fn mount_idmap(at: &At, mount: &Mount) -> Result<()> {
    let recursive = matches!(mount.kind, MountKind::Bind { recursive: true, .. });
    if !mount.idmap_recursive && !recursive {
        return Err(at.key("idmap_recursive").error("only a recursive bind has what is mounted below it"));
    }
    let Some(idmap) = &mount.idmap else { return Ok(()) };
    let at = at.key("idmap");
    if !matches!(mount.kind, MountKind::Bind { .. } | MountKind::Volume { .. }) {
        return Err(at.error("only a bind or a volume has one"));
    }
    if mount.owner.is_some() {
        return Err(at.error("excludes owner, which is a map already"));
    }
    own_idmap(&at, idmap)
}

pub(super) fn own_idmap(at: &At, idmap: &MountIdmap) -> Result<()> {
    match idmap {
        MountIdmap::Explicit { uid, gid } => validate_sides(at, uid, gid),
        MountIdmap::Container | MountIdmap::Host => Ok(()),
    }
}

fn validate_ranges(at: &At, ranges: &[IdRange]) -> Result<()> {
    if ranges.is_empty() {
        return Err(at.error("has no range; at least one is needed"));
    }
    if ranges.len() > MAX_ID_RANGES {
        return Err(at.error(format!("{} ranges; the kernel takes {MAX_ID_RANGES}", ranges.len())));
    }
    for (i, range) in ranges.iter().enumerate() {
        let IdRange { inside, outside, count } = *range;
        if count == 0 {
            return Err(at.index(i).error("its count is 0"));
        }
        for (side, first) in [("inside", inside), ("outside", outside)] {
            if u64::from(first) + u64::from(count) > u64::from(u32::MAX) {
                return Err(at.index(i).error(format!("{count} ids from {first} {side} go past {MAX_ID}")));
            }
        }
    }
    for (side, first) in [("inside", (|range| range.inside) as fn(&IdRange) -> u32), ("outside", |range| range.outside)]
    {
        let mut sorted: Vec<usize> = (0..ranges.len()).collect();
        sorted.sort_by_key(|&i| first(&ranges[i]));
        for pair in sorted.windows(2) {
            let (a, b) = (&ranges[pair[0]], &ranges[pair[1]]);
            if first(a) + a.count > first(b) {
                let (low, high) = (pair[0].min(pair[1]), pair[0].max(pair[1]));
                return Err(at.index(high).error(format!("overlaps [{low}] {side}, from id {}", first(b))));
            }
        }
    }
    Ok(())
}
