//! "Did you mean": the nearest name.

/// The candidate that a mistyped name most likely stands for.
pub(super) fn nearest<'a>(name: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    // A hostile key may be a megabyte long, and the distance takes quadratic time.
    if name.len() > 64 {
        return None;
    }
    let name = plain(name);
    let allowed = (name.chars().count() / 3).clamp(1, 3);
    candidates
        .into_iter()
        .map(|candidate| (distance(&name, candidate), candidate))
        .filter(|(distance, candidate)| *distance <= allowed && *distance < candidate.len())
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// The name as ours are written: `mem-limit` and `MemLimit` are `mem_limit`.
pub(super) fn plain(name: &str) -> String {
    let mut plain = String::with_capacity(name.len());
    let mut after_lower = false;
    for c in name.trim().chars() {
        if c.is_ascii_uppercase() && after_lower {
            plain.push('_');
        }
        after_lower = c.is_ascii_lowercase();
        plain.push(if c == '-' || c == ' ' { '_' } else { c.to_ascii_lowercase() });
    }
    plain
}

/// Insertions, deletions, replacements and swaps of neighbours (optimal string alignment).
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut before: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let replaced = last[j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut best = replaced.min(last[j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(before[j - 2] + 1);
            }
            row.push(best);
        }
        before = std::mem::replace(&mut last, row);
    }
    last[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn near_names_are_found_and_far_ones_are_not() {
        let names = ["memory", "mounts", "net", "hostname", "pids", "init"];
        for (typed, meant) in [
            ("memroy", Some("memory")),
            ("Memory", Some("memory")),
            ("host-name", Some("hostname")),
            ("hostName", Some("hostname")),
            ("mount", Some("mounts")),
            ("pid", Some("pids")),
            ("x", None),
            ("", None),
            ("flavour", None),
        ] {
            assert_eq!(nearest(typed, names), meant, "{typed}");
        }
        assert_eq!(distance("ab", "ba"), 1);
        assert_eq!(distance("", "abc"), 3);
    }

    proptest! {
        #[test]
        fn one_slip_is_always_understood(index in 0usize..6, at in 0usize..3) {
            let names = ["hostname", "domainname", "namespaces", "annotations", "capabilities", "stop_timeout"];
            let mut typed: Vec<char> = names[index].chars().collect();
            typed.swap(at, at + 1);
            prop_assert_eq!(nearest(&typed.into_iter().collect::<String>(), names), Some(names[index]));
        }

        #[test]
        fn never_panics(typed in ".{0,80}") {
            let _ = nearest(&typed, ["memory", "net"]);
        }
    }
}
