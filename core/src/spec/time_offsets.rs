//! Offsets of the container's clocks.

/// What is added to the container's clocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct TimeOffsets {
    /// Nanoseconds added to CLOCK_MONOTONIC.
    pub monotonic: i64,
    /// Nanoseconds added to CLOCK_BOOTTIME.
    pub boottime: i64,
}

impl TimeOffsets {
    /// An offset as /proc/PID/timens_offsets takes it: whole seconds, rounded down, and 0 to 999,999,999 nanoseconds.
    pub fn seconds_and_nanoseconds(offset: i64) -> (i64, u32) {
        (offset.div_euclid(1_000_000_000), offset.rem_euclid(1_000_000_000) as u32)
    }
}
