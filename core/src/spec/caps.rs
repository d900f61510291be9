//! Capabilities by name and number.

/// What the payload may do inside: bits of capability numbers (bit 21 is CAP_SYS_ADMIN).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Capabilities {
    /// Bounding, permitted and effective set of a root payload.
    pub bounding: u64,
    /// Permitted, effective, inheritable and ambient set of any payload; a subset of `bounding`.
    pub ambient: u64,
}

impl Capabilities {
    /// OCI's customary default: chown dac_override fowner fsetid kill setgid setuid setpcap net_bind_service sys_chroot
    /// mknod audit_write setfcap net_raw.
    pub const DEFAULT: u64 = 0xa804_25fb;

    /// All 41 that Linux has (since 5.9).
    pub const ALL: u64 = (1 << NAMES.len()) - 1;

    /// The names of a set, in the order of their numbers, without `CAP_`, in lower case.
    pub fn names(set: u64) -> impl Iterator<Item = &'static str> {
        NAMES.into_iter().enumerate().filter(move |(number, _)| set & (1 << number) != 0).map(|(_, name)| name)
    }

    /// The number of a capability: any case, with or without `CAP_`.
    pub fn number(name: &str) -> Option<u32> {
        let name = name.to_ascii_lowercase();
        let name = name.strip_prefix("cap_").unwrap_or(&name);
        NAMES.iter().position(|known| *known == name).map(|number| number as u32)
    }
}

impl Default for Capabilities {
    fn default() -> Self {
        Self { bounding: Self::DEFAULT, ambient: 0 }
    }
}

/// capabilities(7), by number.
pub(crate) const NAMES: [&str; 41] = [
    "chown",
    "dac_override",
    "dac_read_search",
    "fowner",
    "fsetid",
    "kill",
    "setgid",
    "setuid",
    "setpcap",
    "linux_immutable",
    "net_bind_service",
    "net_broadcast",
    "net_admin",
    "net_raw",
    "ipc_lock",
    "ipc_owner",
    "sys_module",
    "sys_rawio",
    "sys_chroot",
    "sys_ptrace",
    "sys_pacct",
    "sys_admin",
    "sys_boot",
    "sys_nice",
    "sys_resource",
    "sys_time",
    "sys_tty_config",
    "mknod",
    "lease",
    "audit_write",
    "audit_control",
    "setfcap",
    "mac_override",
    "mac_admin",
    "syslog",
    "wake_alarm",
    "block_suspend",
    "audit_read",
    "perfmon",
    "bpf",
    "checkpoint_restore",
];
