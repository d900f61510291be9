//! The keeper's other end: start it, speak to it, statuses.

/// Ends this process's idle keepers and tells the others to leave after their last container. For hosts that are about to
/// drop privileges for good.
pub fn end_keepers() {
    unimplemented!()
}
