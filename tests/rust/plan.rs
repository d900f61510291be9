//! The keeper's own reading of plans, compiled into this program: whatever stands in a buffer, nothing outside of it is used.
//!
//! tests/run: vm=root

use std::io::Write;
use std::os::fd::AsRawFd;

use proptest::prelude::*;

#[allow(dead_code, clippy::all, reason = "as below")]
#[path = "../../core/keeper/calls.rs"]
mod calls;
#[allow(dead_code, clippy::all, reason = "as below")]
#[path = "../../core/keeper/confine.rs"]
mod confine;
#[allow(dead_code, clippy::all, reason = "as below")]
#[path = "../../core/keeper/files.rs"]
mod files;
#[allow(dead_code, clippy::all, reason = "as below")]
#[path = "../../core/keeper/groups.rs"]
mod groups;
#[allow(dead_code, clippy::all, reason = "the keeper's own code; here only its checks are run")]
#[path = "../../core/keeper/interp.rs"]
mod interp;
#[allow(dead_code, clippy::all, reason = "as above")]
#[path = "../../core/keeper/nr.rs"]
mod nr;
#[allow(dead_code, reason = "as above")]
#[path = "../../core/keeper/proto.rs"]
mod proto;
#[allow(dead_code, reason = "as above")]
#[path = "../../core/src/sys/raw.rs"]
mod raw;
#[allow(dead_code, clippy::all, reason = "as above")]
#[path = "../../core/keeper/relay.rs"]
mod relay;
#[allow(dead_code, clippy::all, reason = "as above")]
#[path = "../../core/keeper/sys.rs"]
mod sys;

use proto::{Header, Op, Span, arg, pseudo, slot};

fn bytes<T: Copy>(value: &T) -> &[u8] {
    // SAFETY: proto's structs are integers without implicit padding.
    unsafe { std::slice::from_raw_parts(std::ptr::from_ref(value).cast(), size_of::<T>()) }
}

/// A plan that does nothing: a few operations in each section, a map, slots.
fn plan() -> Vec<u8> {
    let op = |nr, kinds, args| Op { nr, out: slot::NONE, kinds, args, ..Op::default() };
    let data = size_of::<Header>() as u64;
    let ops = [
        op(pseudo::RELOCATE, [arg::IMM; 6], [data, 2, 0, 0, 0, 0]),
        op(pseudo::WRITE_ALL, [arg::SLOT, arg::DATA, 0, 0, 0, 0], [5, data, 8, 0, 0, 0]),
        op(pseudo::CLOSE_OTHERS, [arg::DATA, 0, 0, 0, 0, 0], [data, 3, u64::MAX, 0, 0, 0]),
        op(pseudo::RELAY, [arg::DATA, arg::IMM, 0, 0, 0, 0], [data, 2, 0, 0, 0, 0]),
        op(pseudo::SKIP_IF_NEGATIVE, [arg::SLOT, arg::IMM, 0, 0, 0, 0], [5, 1, 0, 0, 0, 0]),
    ];
    let mut header = Header { magic: proto::MAGIC, nslots: 8, cgroup_slot: u32::MAX, ..Header::default() };
    let mut buffer = vec![0; size_of::<Header>() + 64];
    header.uid_map = Span { off: data as u32, len: 10 };
    for section in &mut header.sections {
        *section = Span { off: buffer.len() as u32, len: ops.len() as u32 };
        ops.iter().for_each(|op| buffer.extend_from_slice(bytes(op)));
    }
    header.slots = buffer.len() as u32;
    buffer.resize(buffer.len() + 8 * header.nslots as usize, 0);
    header.total = buffer.len() as u32;
    buffer[..size_of::<Header>()].copy_from_slice(bytes(&header));
    buffer
}

fn map(buffer: &[u8]) -> Result<interp::Plan, i64> {
    let name = c"plan";
    let fd = nix::sys::memfd::memfd_create(name, nix::sys::memfd::MFdFlags::MFD_CLOEXEC).expect("memfd");
    let mut file = std::fs::File::from(fd);
    file.write_all(buffer).expect("write");
    // SAFETY: none of its calls is made.
    unsafe { interp::Plan::map(file.as_raw_fd()) }
}

/// Reads all that a run would.
fn use_all(plan: &interp::Plan) {
    for section in plan.sections().get() {
        assert!(u64::from(section.off) + u64::from(section.len) * size_of::<Op>() as u64 <= plan.len as u64);
        for i in 0..section.len {
            let op = plan.op(section, i);
            for (kind, value) in op.kinds.into_iter().zip(op.args) {
                match kind {
                    arg::DATA => assert!(value < plan.len as u64),
                    arg::SLOT => _ = std::hint::black_box(plan.slot(value as u32)),
                    _ => {}
                }
            }
            if op.out != slot::NONE {
                plan.set_slot(op.out.into(), 1);
            }
        }
    }
    for span in [plan.uid_map().get(), plan.gid_map().get()] {
        // SAFETY: nothing is written meanwhile.
        let bytes = unsafe { plan.bytes(span) };
        // What is outside of the plan is not given out.
        assert_eq!(bytes.len(), span.len as usize);
        std::hint::black_box(bytes.to_vec());
    }
}

#[test]
fn a_sound_plan_is_taken() {
    let plan = map(&plan()).expect("sound");
    use_all(&plan);
    // SAFETY: it is not used after this.
    unsafe { plan.unmap() };
}

#[test]
fn what_is_too_short_or_says_so_wrongly_is_refused() {
    let whole = plan();
    for length in 0..whole.len() {
        assert!(map(&whole[..length]).is_err(), "{length} of {}", whole.len());
    }
    let longer = [&whole[..], &[0; 8]].concat();
    assert!(map(&longer).is_err());
}

/// Each field that is an offset, a count or an index, far out and by one.
#[test]
fn nothing_points_outside() {
    let whole = plan();
    let fields = |header: &mut Header| -> [*mut u32; 9] {
        [
            &raw mut header.magic,
            &raw mut header.total,
            &raw mut header.slots,
            &raw mut header.sections[0].off,
            &raw mut header.sections[2].len,
            &raw mut header.uid_map.len,
            &raw mut header.gid_map.off,
            &raw mut header.idmaps.len,
            &raw mut header.cgroup_slot,
        ]
    };
    for index in 0..9 {
        let mut buffer = whole.clone();
        // SAFETY: the buffer begins with a header of integers.
        let mut header: Header = unsafe { buffer.as_ptr().cast::<Header>().read_unaligned() };
        let field = fields(&mut header)[index];
        // SAFETY: points into `header`. 0x7fff_fff8 is aligned, so that the bounds have to find it.
        unsafe { field.write(0x7fff_fff8) };
        buffer[..size_of::<Header>()].copy_from_slice(bytes(&header));
        assert!(map(&buffer).is_err(), "field {index}");
    }
}

/// What is written to while a plan runs is nothing that was looked at, and what was looked at is what is used.
#[test]
fn a_plan_that_would_change_itself_is_refused() {
    let whole = plan();
    // SAFETY: the buffer begins with a header of integers.
    let header: Header = unsafe { whole.as_ptr().cast::<Header>().read_unaligned() };
    let with_header = |header: Header| [bytes(&header), &whole[size_of::<Header>()..]].concat();
    let first = header.sections[0].off;
    let with_op = |op: Op| [&whole[..first as usize], bytes(&op), &whole[first as usize + size_of::<Op>()..]].concat();
    let op = |nr, kinds: [u8; 3], args: [u64; 3]| {
        let (mut all, mut values) = ([arg::IMM; 6], [0; 6]);
        all[..3].copy_from_slice(&kinds);
        values[..3].copy_from_slice(&args);
        Op { nr, out: slot::NONE, kinds: all, args: values, ..Op::default() }
    };
    let data = size_of::<Header>() as u64;
    use arg::{DATA, IMM, SLOT};
    for (what, hostile) in [
        ("slots over the header", with_header(Header { slots: 0, ..header })),
        ("slots over operations", with_header(Header { slots: first, ..header })),
        ("addresses over the header", with_op(op(pseudo::RELOCATE, [IMM; 3], [0, 2, 0]))),
        ("addresses over operations", with_op(op(pseudo::RELOCATE, [IMM; 3], [first.into(), 1, 0]))),
        ("addresses anywhere", with_op(op(pseudo::RELOCATE, [DATA, IMM, IMM], [data, 2, 0]))),
        ("as many addresses as a slot says", with_op(op(pseudo::RELOCATE, [IMM, SLOT, IMM], [data, 2, 0]))),
        ("as many bytes as a slot says", with_op(op(pseudo::WRITE_ALL, [SLOT, DATA, SLOT], [5, data, 6]))),
        ("as many words as a slot says", with_op(op(pseudo::COMPARE, [SLOT, DATA, SLOT], [5, data, 6]))),
        ("as many numbers as a slot says", with_op(op(pseudo::CLOSE_OTHERS, [DATA, SLOT, IMM], [data, 3, 0]))),
        ("as many ports as a slot says", with_op(op(pseudo::RELAY, [DATA, SLOT, IMM], [data, 2, 0]))),
        ("a name anywhere", with_op(op(pseudo::REMOVE_GROUP, [SLOT, IMM, IMM], [5, data, 0]))),
        ("a name without an end", {
            let last = whole.len() as u64 - 1;
            let mut hostile = with_op(op(pseudo::REMOVE_GROUP, [SLOT, DATA, IMM], [5, last, 0]));
            hostile[last as usize] = b'x';
            hostile
        }),
        ("a mount in a slot that is none", {
            let mut hostile = with_header(Header { idmaps: Span { off: data as u32, len: 1 }, ..header });
            hostile[data as usize..data as usize + 4].copy_from_slice(&header.nslots.to_ne_bytes());
            hostile
        }),
    ] {
        assert!(map(&hostile).is_err(), "{what}");
    }
}

#[test]
fn all_numbers_but_those_that_are_kept() {
    let gaps = |kept: &[u32], more| {
        let mut gaps = Vec::new();
        interp::each_gap(kept, more, |first, last| gaps.push((first, last)));
        gaps
    };
    assert_eq!(gaps(&[], None), [(0, u32::MAX)]);
    assert_eq!(gaps(&[4, 0, 1, 4], Some(7)), [(2, 3), (5, 6), (8, u32::MAX)]);
    assert_eq!(gaps(&[u32::MAX, 3], None), [(0, 2), (4, u32::MAX - 1)]);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_corrupted_plan_is_refused_or_harmless(
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..12),
    ) {
        let mut buffer = plan();
        for (at, value) in changes {
            let at = at.index(buffer.len());
            buffer[at] = value;
        }
        if let Ok(plan) = map(&buffer) {
            use_all(&plan);
            // SAFETY: it is not used after this.
    unsafe { plan.unmap() };
        }
    }

    #[test]
    fn noise_is_refused(noise in proptest::collection::vec(any::<u8>(), 0..2000)) {
        prop_assert!(map(&noise).is_err());
    }
}
