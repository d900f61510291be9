//! Rates and faults of a link: tc(8) without tc.

use std::time::Duration;

use netlink_packet_core::{DefaultNla, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::tc::{TcAttribute, TcHandle, TcMessage};

use super::link::End;
use super::netlink::{Attributes, Batch, NLA_F_NESTED};
use crate::error::{Error, ErrorKind, Result};

/// What happens to packets on a link of a [`Network`](crate::Network). The default is nothing: the link as it was made.
///
/// `rate` alone takes a kernel with `CONFIG_NET_SCH_TBF`, everything else `CONFIG_NET_SCH_NETEM`. As JSON
/// `{"rate": "10M", "delay": "50ms", "jitter": "5ms", "loss": 0.01, "duplicate": 0.01, "reorder": 0.1, "corrupt": 0.001}`.
/// Source: tc-tbf(8), tc-netem(8).
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Shape {
    /// Bytes per second. Range: 1000 and more.
    pub rate: Option<u64>,
    /// How much later each packet arrives. Up to an hour.
    pub delay: Duration,
    /// By how much the delay differs, up or down, from packet to packet; at most as much as the delay.
    pub jitter: Duration,
    /// The share of packets that are lost, from 0 to 1.
    pub loss: f64,
    /// The share of packets that come twice, from 0 to 1.
    pub duplicate: f64,
    /// The share of packets that are not delayed, and so pass others, from 0 to 1. Takes a delay.
    pub reorder: f64,
    /// The share of packets that come with a wrong bit, from 0 to 1.
    pub corrupt: f64,
}

/// Which way a [`Shape`] is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Direction {
    /// Each way on its own: a delay is there and back.
    #[default]
    Both,
    /// What the container receives.
    In,
    /// What the container sends: a discipline on the network's side, of an intermediate device (`CONFIG_IFB`), which nobody inside can take
    /// away. Where the kernel lacks that, a discipline inside, unless the container could have CAP_NET_ADMIN.
    Out,
}

impl Direction {
    pub(crate) const ALL: [Self; 3] = [Self::Both, Self::In, Self::Out];

    /// `both`, `in`, `out`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Both => "both",
            Self::In => "in",
            Self::Out => "out",
        }
    }

    /// The direction of that name.
    ///
    /// # Errors
    /// InvalidArgument (`direction`).
    pub fn parse(name: &str) -> Result<Self> {
        Self::ALL.into_iter().find(|direction| direction.name() == name).ok_or_else(|| {
            Error::new(ErrorKind::InvalidArgument, format!("{name:?} is no direction; known are both, in, out"))
                .with_field("direction")
                .with_errno(libc::EINVAL)
        })
    }
}

const HOUR: Duration = Duration::from_secs(3600);
/// Packets that wait at once; more are lost.
const QUEUE: u32 = 10_000;

impl Shape {
    /// Reads it from JSON; all members are optional. Sizes and durations are text or numbers as elsewhere.
    ///
    /// # Errors
    /// InvalidArgument with the member's name as field.
    pub fn from_json(text: &str) -> Result<Self> {
        crate::spec::link_shape::link_shape(text)
    }

    /// # Errors
    /// InvalidArgument with the member's name as field.
    pub(crate) fn validate(&self) -> Result<()> {
        let wrong = |field: &str, why: &str| {
            Err(Error::new(ErrorKind::InvalidArgument, why).with_field(field).with_errno(libc::EINVAL))
        };
        if self.rate.is_some_and(|rate| rate < 1000) {
            return wrong("rate", "is less than 1000 bytes per second");
        }
        if self.delay > HOUR {
            return wrong("delay", "is more than an hour");
        }
        if self.jitter > self.delay {
            return wrong("jitter", "is more than the delay");
        }
        for (field, share) in self.shares() {
            if !(0.0..=1.0).contains(&share) {
                return wrong(field, "is not a share from 0 to 1");
            }
        }
        if self.reorder > 0.0 && self.delay.is_zero() {
            return wrong("reorder", "takes a delay: what is not delayed passes what is");
        }
        Ok(())
    }

    pub(crate) fn shares(&self) -> [(&'static str, f64); 4] {
        [("loss", self.loss), ("duplicate", self.duplicate), ("reorder", self.reorder), ("corrupt", self.corrupt)]
    }

    /// Whether netem carries it.
    pub(super) fn has_faults(&self) -> bool {
        !self.delay.is_zero() || self.shares().iter().any(|(_, share)| *share > 0.0)
    }
}

/// struct tc_ratespec, for Ethernet.
fn ratespec(rate: u64) -> [u8; 12] {
    const TC_LINKLAYER_ETHERNET: u8 = 1;
    let mut spec = [0; 12];
    spec[1] = TC_LINKLAYER_ETHERNET;
    spec[8..].copy_from_slice(&u32::try_from(rate).unwrap_or(u32::MAX).to_ne_bytes());
    spec
}

/// struct tc_tbf_qopt and what is newer than it.
fn tbf(rate: u64, mtu: u32) -> Vec<u8> {
    const TCA_TBF_PARMS: u16 = 1;
    const TCA_TBF_RATE64: u16 = 4;
    const TCA_TBF_BURST: u16 = 6;
    // What may pass at once: twenty milliseconds, and not less than some packets.
    let burst = u32::try_from(rate / 50).unwrap_or(u32::MAX / 2).max(4 * mtu);
    // What waits: a hundred milliseconds.
    let limit = u32::try_from(rate / 10).unwrap_or(u32::MAX / 2).max(64 << 10).saturating_add(burst);
    let mut parameters = Vec::with_capacity(36);
    parameters.extend_from_slice(&ratespec(rate));
    parameters.extend_from_slice(&[0; 12]);
    for word in [limit, 0, 0] {
        parameters.extend_from_slice(&word.to_ne_bytes());
    }
    let mut options = Attributes::default();
    options.put(TCA_TBF_PARMS, &parameters);
    options.put(TCA_TBF_BURST, &burst.to_ne_bytes());
    if rate > u32::MAX.into() {
        options.put(TCA_TBF_RATE64, &rate.to_ne_bytes());
    }
    options.into()
}

/// struct tc_netem_qopt and the attributes behind it.
fn netem(shape: &Shape) -> Vec<u8> {
    const TCA_NETEM_REORDER: u16 = 3;
    const TCA_NETEM_CORRUPT: u16 = 4;
    const TCA_NETEM_RATE: u16 = 6;
    const TCA_NETEM_RATE64: u16 = 8;
    const TCA_NETEM_LATENCY64: u16 = 10;
    const TCA_NETEM_JITTER64: u16 = 11;
    let share = |share: f64| (share * f64::from(u32::MAX)).round() as u32;
    // latency, limit, loss, gap, duplicate, jitter; times are below, in nanoseconds.
    let gap = u32::from(shape.reorder > 0.0);
    let mut front = Vec::with_capacity(24);
    for word in [0, QUEUE, share(shape.loss), gap, share(shape.duplicate), 0] {
        front.extend_from_slice(&word.to_ne_bytes());
    }
    let mut options = Attributes::from(front);
    options.put(TCA_NETEM_LATENCY64, &(shape.delay.as_nanos() as i64).to_ne_bytes());
    options.put(TCA_NETEM_JITTER64, &(shape.jitter.as_nanos() as i64).to_ne_bytes());
    // Probability and correlation.
    let pair = |of: f64| [share(of).to_ne_bytes(), [0; 4]].concat();
    // Of a discipline that is there what is not said stays as it was.
    options.put(TCA_NETEM_REORDER, &pair(shape.reorder));
    options.put(TCA_NETEM_CORRUPT, &pair(shape.corrupt));
    // struct tc_netem_rate: rate, packet overhead, cell size, cell overhead. No rate is 0.
    let rate = shape.rate.unwrap_or(0);
    let mut words = [0; 16];
    words[..4].copy_from_slice(&u32::try_from(rate).unwrap_or(u32::MAX).to_ne_bytes());
    options.put(TCA_NETEM_RATE, &words);
    if rate > u32::MAX.into() {
        options.put(TCA_NETEM_RATE64, &rate.to_ne_bytes());
    }
    options.into()
}

impl Batch {
    /// What becomes of packets that leave by this device, in the place of what was said before.
    pub(super) fn shape(&mut self, end: &End<'_>, shape: &Shape, mtu: u32) {
        const TCA_OPTIONS: u16 = 2;
        let mut message = TcMessage::with_index(end.index as i32);
        message.header.parent = TcHandle::ROOT;
        let (kind, options, step) = match shape.rate {
            _ if shape.has_faults() => ("netem", netem(shape), "set queueing discipline netem"),
            Some(rate) => ("tbf", tbf(rate, mtu), "set queueing discipline tbf"),
            None => ("noqueue", Vec::new(), "set queueing discipline noqueue"),
        };
        message.attributes = vec![TcAttribute::Kind(kind.to_owned())];
        if !options.is_empty() {
            message.attributes.push(TcAttribute::Other(DefaultNla::new(TCA_OPTIONS, options)));
        }
        let flags = NLM_F_CREATE | NLM_F_REPLACE;
        self.push(flags, RouteNetlinkMessage::NewQueueDiscipline(message), step, end.name);
    }
}

/// Behind which what comes from a container waits.
fn ingress(port: &End<'_>) -> TcMessage {
    let mut message = TcMessage::with_index(port.index as i32);
    message.header.parent = TcHandle::INGRESS;
    message.header.handle = TcHandle { major: TcHandle::INGRESS.major, minor: 0 };
    message.attributes = vec![TcAttribute::Kind("ingress".to_owned())];
    message
}

/// struct tc_u32_sel that fits any packet: one key whose mask is zero.
fn any_packet() -> Vec<u8> {
    const TC_U32_TERMINAL: u8 = 1;
    let mut selector = vec![0; 16 + 16];
    selector[0] = TC_U32_TERMINAL;
    selector[2] = 1;
    selector
}

/// struct tc_mirred: a packet that goes on elsewhere.
fn redirect(to: u32) -> Vec<u8> {
    const TC_ACT_STOLEN: u32 = 4;
    const TCA_EGRESS_REDIR: u32 = 1;
    // index, capabilities, action, references, bindings; what is done; where.
    [0, 0, TC_ACT_STOLEN, 0, 0, TCA_EGRESS_REDIR, to].into_iter().flat_map(u32::to_ne_bytes).collect()
}

impl Batch {
    /// What becomes of packets that come by this device: they leave by `waiting`, another one, with its own discipline, and then come here.
    ///
    /// Sources: tc-mirred(8), tc-u32(8), linux/pkt_cls.h, the kernel's drivers/net/ifb.c.
    pub(super) fn shape_incoming(&mut self, port: &End<'_>, waiting: &End<'_>, shape: &Shape, mtu: u32) {
        const TCA_OPTIONS: u16 = 2;
        const TCA_U32_SEL: u16 = 5;
        const TCA_U32_ACT: u16 = 7;
        const TCA_ACT_KIND: u16 = 1;
        const TCA_ACT_OPTIONS: u16 = 2;
        const TCA_MIRRED_PARMS: u16 = 2;
        self.intermediate(waiting, mtu);
        self.shape(waiting, shape, mtu);
        let flags = NLM_F_CREATE | NLM_F_EXCL;
        let step = "set queueing discipline ingress";
        self.push(flags, RouteNetlinkMessage::NewQueueDiscipline(ingress(port)), step, port.name);
        let mut filter = TcMessage::with_index(port.index as i32);
        filter.header.parent = TcHandle { major: TcHandle::INGRESS.major, minor: 0 };
        // Priority 1; all protocols, in network order.
        filter.header.info = 1 << 16 | u32::from((libc::ETH_P_ALL as u16).to_be());
        let mut options = Attributes::default();
        options.put(TCA_U32_SEL, &any_packet());
        options.nested(TCA_U32_ACT, |actions| {
            actions.nested(1, |action| {
                action.put(TCA_ACT_KIND, b"mirred\0");
                action.nested(TCA_ACT_OPTIONS, |options| options.put(TCA_MIRRED_PARMS, &redirect(waiting.index)));
            });
        });
        filter.attributes = vec![
            TcAttribute::Kind("u32".to_owned()),
            TcAttribute::Other(DefaultNla::new(TCA_OPTIONS | NLA_F_NESTED, options.into())),
        ];
        self.push(flags, RouteNetlinkMessage::NewTrafficFilter(filter), "redirect by filter u32", port.name);
    }

    /// Nothing becomes of them any more.
    pub(super) fn unshape_incoming(&mut self, port: &End<'_>, waiting: &End<'_>) {
        let step = "remove queueing discipline ingress";
        self.push(0, RouteNetlinkMessage::DelQueueDiscipline(ingress(port)), step, port.name);
        self.delete(waiting);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrong_shapes_name_their_field() {
        let shape = Shape::default();
        let second = Duration::from_secs(1);
        for (shape, field) in [
            (Shape { rate: Some(999), ..shape }, "rate"),
            (Shape { delay: HOUR + second, ..shape }, "delay"),
            (Shape { jitter: second, ..shape }, "jitter"),
            (Shape { loss: 1.1, ..shape }, "loss"),
            (Shape { loss: f64::NAN, ..shape }, "loss"),
            (Shape { duplicate: -0.1, ..shape }, "duplicate"),
            (Shape { corrupt: 2.0, ..shape }, "corrupt"),
            (Shape { reorder: 0.5, ..shape }, "reorder"),
        ] {
            let error = shape.validate().unwrap_err();
            assert_eq!((error.kind(), error.field()), (ErrorKind::InvalidArgument, Some(field)), "{shape:?}");
        }
        Shape { rate: Some(1000), delay: second, jitter: second, loss: 1.0, reorder: 0.1, ..shape }.validate().unwrap();
    }

    #[test]
    fn bytes_of_the_disciplines() {
        let rate = tbf(125_000, 1500);
        // TBF_PARMS of 36 bytes: rate at 4 + 8, limit at 4 + 24; then TBF_BURST.
        assert_eq!(rate[..4], [40, 0, 1, 0]);
        assert_eq!(rate[12..16], 125_000u32.to_ne_bytes());
        assert_eq!(rate[28..32], (65_536u32 + 6000).to_ne_bytes());
        assert_eq!(rate[40..48], [8, 0, 6, 0, 0x70, 0x17, 0, 0]);
        assert_eq!(rate.len(), 48);
        assert_eq!(tbf(1 << 40, 1500).len(), 60);
        let faults = netem(&Shape { delay: Duration::from_millis(50), loss: 0.5, ..Shape::default() });
        assert_eq!(faults[8..12], 0x8000_0000u32.to_ne_bytes());
        assert_eq!(faults[24..28], [12, 0, 10, 0]);
        assert_eq!(faults[28..36], 50_000_000i64.to_ne_bytes());
        // Latency and jitter of 12 bytes, reordering and corruption of 12, a rate of 20.
        assert_eq!(faults.len(), 24 + 4 * 12 + 20);
    }
}
