//! The plan of a relay: the task that carries connections to a container's published ports.

use super::builder::{Arg, Compiled, build, call};
use super::facts::Need;
use super::process::need;
use crate::plan::exec::Joining;
use crate::proto::{relay, slot};
use crate::spec::{Port, Protocol};

/// Joins the network, which is all of the container that it sees, and serves. The request brings the listeners in this order.
pub(crate) fn relay(joining: &Joining, ports: &[Port]) -> (Compiled, Vec<Need>) {
    build(|mut b| {
        let mut needs = Vec::new();
        joining.prepare(&mut b, &mut needs);
        b.field("ports");
        // It is small, and many wait for it: for want of memory others go first, where the caller may say so.
        let (path, least) = (b.text("self/oom_score_adj"), b.text("-1000"));
        let flags = libc::O_WRONLY | libc::O_CLOEXEC;
        let score = b.op(call::OPENAT, [Arg::Slot(slot::PROC as u16), path, flags.into()]).ok_all().keep();
        b.op(call::WRITE, [Arg::Slot(score), least, 5.into()]).ok_all();
        let mut entries = Vec::new();
        for (i, port) in ports.iter().enumerate() {
            let slot = need(&mut needs, Need::Listener(i));
            let kind = match port.protocol {
                Protocol::Tcp => relay::TCP,
                Protocol::Udp => relay::UDP,
            };
            entries.push(u64::from(slot) | u64::from(kind) << 32 | u64::from(port.port) << 48);
        }
        let list = b.words(&entries.iter().map(|entry| in_order(*entry)).collect::<Vec<_>>());
        b.op(call::RELAY, [list, Arg::Imm(ports.len() as u64)]);
        (b, needs)
    })
}

/// A `RelayEntry` as one word: its first number comes first in memory.
fn in_order(entry: u64) -> u64 {
    u64::from_ne_bytes(entry.to_le_bytes())
}
