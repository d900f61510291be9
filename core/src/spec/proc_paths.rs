//! What is hidden and what is read-only below /proc and /sys unless the spec says otherwise: OCI's customary lists.

use std::path::PathBuf;

use super::Spec;
use super::shape::BuiltIn;

impl Spec {
    /// What `masked_paths` is when it is `None`: files and directories that tell of the host or of its memory.
    pub const MASKED_PATHS: [&str; 12] = [
        "/proc/acpi",
        "/proc/asound",
        "/proc/interrupts",
        "/proc/kcore",
        "/proc/keys",
        "/proc/latency_stats",
        "/proc/sched_debug",
        "/proc/scsi",
        "/proc/timer_list",
        "/proc/timer_stats",
        "/sys/devices/virtual/powercap",
        "/sys/firmware",
    ];

    /// What `readonly_paths` is when it is `None`: files that change the machine.
    pub const READONLY_PATHS: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];
}

/// [`Spec::MASKED_PATHS`] as what text is added to.
pub(super) struct Masked;

impl BuiltIn<PathBuf> for Masked {
    fn items() -> Vec<PathBuf> {
        Spec::MASKED_PATHS.map(PathBuf::from).into()
    }
}

/// [`Spec::READONLY_PATHS`] as what text is added to.
pub(super) struct Readonly;

impl BuiltIn<PathBuf> for Readonly {
    fn items() -> Vec<PathBuf> {
        Spec::READONLY_PATHS.map(PathBuf::from).into()
    }
}
