//! How ids inside are ids of the host.

/// How ids inside are ids of the host. This alone decides the user namespace.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub enum Idmap {
    /// A range of ids that no other container has, or the strongest that this machine and user can have.
    #[default]
    Auto,
    /// No user namespace: ids inside are ids of the host. Weaker.
    Host,
    /// The caller's ids are the same inside, all others come from the range.
    KeepId,
    /// These ranges, at most 340 of each, which is the kernel's bound.
    Explicit {
        /// User ids.
        uid: Vec<IdRange>,
        /// Group ids.
        gid: Vec<IdRange>,
    },
}

/// `count` ids from `inside` are `outside` and following on the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IdRange {
    /// The first id inside.
    pub inside: u32,
    /// The first id on the host.
    pub outside: u32,
    /// How many; at least 1.
    pub count: u32,
}
