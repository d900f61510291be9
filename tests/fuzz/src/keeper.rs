//! The keeper's own code on a kernel that does nothing: it gives back what the fuzzer says, and looks at every address that it gets.
//!
//! What a system call reads and writes is read and written here, by code that AddressSanitizer watches as it does the keeper's. Only
//! the addresses that a plan itself names are not looked at (`call_of_plan`): a plan can name any, and is its host's.

#[allow(dead_code, clippy::all, reason = "as in the keeper")]
#[path = "../../../core/keeper/birth.rs"]
mod birth;
#[allow(dead_code, clippy::all, reason = "as in the keeper")]
#[path = "../../../core/keeper/calls.rs"]
mod calls;
#[allow(dead_code, clippy::all, reason = "as in the keeper")]
#[path = "../../../core/keeper/confine.rs"]
mod confine;
#[allow(dead_code, clippy::all, reason = "as in the keeper")]
#[path = "../../../core/keeper/files.rs"]
mod files;
#[allow(dead_code, clippy::all, reason = "as in the keeper")]
#[path = "../../../core/keeper/groups.rs"]
mod groups;
#[allow(dead_code, clippy::all, reason = "as in the keeper")]
#[path = "../../../core/keeper/interp.rs"]
mod interp;
#[allow(dead_code, clippy::all, reason = "as in the keeper")]
#[path = "../../../core/keeper/nr.rs"]
mod nr;
#[allow(dead_code, clippy::all, reason = "as in the keeper")]
#[path = "../../../core/keeper/own_maps.rs"]
mod own_maps;
#[allow(dead_code, clippy::all, reason = "as in the keeper")]
#[path = "../../../core/keeper/proto.rs"]
mod proto;
mod raw;
#[allow(dead_code, clippy::all, reason = "as in the keeper")]
#[path = "../../../core/keeper/relay.rs"]
mod relay;
#[allow(dead_code, clippy::all, reason = "as in the keeper")]
#[path = "../../../core/keeper/role.rs"]
mod role;
#[allow(dead_code, clippy::all, reason = "as in the keeper")]
#[path = "../../../core/keeper/serve.rs"]
mod serve;
#[allow(dead_code, clippy::all, reason = "as in the keeper")]
#[path = "../../../core/keeper/sys.rs"]
mod sys;

use proto::{Header, MAGIC, MORE, Op, Request, Span, pseudo, request, section};

fn bytes_of<T: Copy>(value: &T) -> &[u8] {
    // SAFETY: proto's structs are integers without implicit padding.
    unsafe { std::slice::from_raw_parts(std::ptr::from_ref(value).cast(), size_of::<T>()) }
}

/// Bytes as a plan: what says how long it is says so rightly, for nothing else would be looked at; the rest is as it comes.
fn framed(bytes: &[u8]) -> Vec<u8> {
    let mut plan = bytes.to_vec();
    plan.resize(plan.len().max(size_of::<Header>()).next_multiple_of(8), 0);
    let total = plan.len() as u32;
    plan[..8].copy_from_slice(bytes_of(&[MAGIC, total]));
    plan
}

/// A plan that the library made.
pub fn takes(plan: Vec<u8>) {
    raw::run(&[], plan, || {
        // SAFETY: none of its calls is made.
        unsafe { interp::Plan::map(raw::PLAN).expect("the library's plans are sound").unmap() };
    });
}

/// Two bytes about what runs it, 126 for the kernel, then the plan, or changes of a small one: offset and byte.
pub fn plan(bytes: &[u8]) {
    let Some((front, plan)) = bytes.split_at_checked(128) else { return };
    let (how, kernel) = front.split_at(2);
    let plan = if how[1] & 128 != 0 {
        let mut small = small_plan(how[1].into());
        for change in plan.chunks_exact(3) {
            let at = usize::from(u16::from_le_bytes([change[0], change[1]])) % small.len();
            small[at] = change[2];
        }
        framed(&small)
    } else {
        framed(plan)
    };
    raw::run(kernel, plan, || {
        // SAFETY: the kernel here does nothing of what a plan says.
        let Ok(plan) = (unsafe { interp::Plan::map(raw::PLAN) }) else { return };
        // As the keeper does it.
        for index in 0..plan.nslots().get() {
            plan.set_slot(index, if index % 3 == 0 { -1 } else { i64::from(index) });
        }
        match how[0] % 10 {
            which @ 0..=5 => {
                plan.run(usize::from(which) % section::COUNT);
            }
            6 => {
                let _ = own_maps::make(&plan);
            }
            7 => role::start(&plan),
            8 => role::join(&plan, how[1] & 1 != 0),
            _ => role::relay(&plan),
        }
        role::open_gate(&plan, 1000);
        plan.run(section::UNDO);
        // SAFETY: it is not used after this.
        unsafe { plan.unmap() };
    });
}

/// A small plan in which all that a keeper looks at is there.
fn small_plan(flags: u32) -> Vec<u8> {
    use proto::arg::{DATA, IMM, SLOT};
    let at = size_of::<Header>() as u64;
    let op = |nr, kinds: [u8; 3], args: [u64; 3]| {
        let kinds = [kinds[0], kinds[1], kinds[2], IMM, IMM, IMM];
        Op { nr, out: 6, kinds, args: [args[0], args[1], args[2], 0, 0, 0], ok: [proto::ANY, 0, 0, 0], ..Op::default() }
    };
    let ops = [
        op(nr::GETPID, [IMM; 3], [0; 3]),
        op(pseudo::RELOCATE, [IMM; 3], [at, 1, 0]),
        op(pseudo::WRITE_ALL, [SLOT, DATA, IMM], [9, at, 10]),
        op(pseudo::COMPARE, [SLOT, DATA, IMM], [9, at, 10]),
        op(pseudo::VERIFY, [SLOT, IMM, IMM], [9, 0o100000, u64::MAX]),
        op(pseudo::SEND_FD, [SLOT, IMM, IMM], [9, 1, 0]),
        op(pseudo::SKIP_IF_NEGATIVE, [SLOT, IMM, IMM], [9, 1, 0]),
        op(pseudo::LEFT_OUT, [IMM; 3], [0; 3]),
        op(pseudo::ASK, [IMM; 3], [1, 0, 0]),
        op(pseudo::BOUNDING, [IMM; 3], [5, 0, 0]),
        op(pseudo::AMBIENT, [IMM; 3], [5, 0, 0]),
        op(pseudo::CHECK_CWD, [IMM; 3], [0; 3]),
        op(pseudo::SIGNALS, [IMM; 3], [0; 3]),
        op(pseudo::CLOSE_OTHERS, [DATA, IMM, IMM], [at, 2, u64::MAX]),
        op(pseudo::REMOVE_GROUP, [SLOT, DATA, IMM], [9, at, 0]),
        op(pseudo::LIFELINE, [IMM; 3], [0; 3]),
    ];
    let mut header = Header { magic: MAGIC, nslots: 24, flags, cgroup_slot: 7, kept_slot: 8, ..Header::default() };
    let mut plan = vec![0; size_of::<Header>()];
    header.uid_map = Span { off: plan.len() as u32, len: 8 };
    header.gid_map = header.uid_map;
    plan.extend_from_slice(b"0 0 65536\n\0\0\0\0\0\0");
    for span in &mut header.sections {
        *span = Span { off: plan.len() as u32, len: ops.len() as u32 };
        ops.iter().for_each(|op| plan.extend_from_slice(bytes_of(op)));
    }
    header.slots = plan.len() as u32;
    plan.resize(plan.len() + 8 * header.nslots as usize, 0);
    header.total = plan.len() as u32;
    plan[..size_of::<Header>()].copy_from_slice(bytes_of(&header));
    plan
}

/// A keeper from its birth on: a byte about it, one for the flags of plans, then what the kernel says, messages among it.
pub fn requests(bytes: &[u8]) {
    let Some((&[how, flags], kernel)) = bytes.split_first_chunk::<2>() else { return };
    raw::run(kernel, small_plan(flags.into()), || {
        let keeper =
            if how & 1 != 0 { birth::born(how & 2 != 0) } else { serve::Keeper::new(raw::HOST, 4, (how >> 1).into()) };
        serve::serve(keeper)
    });
}

/// The relay of ports: how many, then what the kernel says.
pub fn relay(bytes: &[u8]) {
    let Some((&[count], kernel)) = bytes.split_first_chunk::<1>() else { return };
    let count = u64::from(count % 8);
    let mut plan = small_plan(0);
    let entries = size_of::<Header>();
    // Over the maps, which a relay has not.
    let more = (count as usize * 8).next_multiple_of(8);
    let mut with = plan[..entries].to_vec();
    for i in 0..count {
        let entry = proto::RelayEntry { slot: 9 + i as u32, kind: 1 + (i % 2) as u16, port: 80 + i as u16 };
        with.extend_from_slice(bytes_of(&entry));
    }
    with.extend_from_slice(&plan.split_off(entries));
    // SAFETY: a header of integers is at the front.
    let mut header = unsafe { with.as_ptr().cast::<Header>().read_unaligned() };
    header.sections.iter_mut().for_each(|span| span.off += more as u32);
    header.uid_map.off += more as u32;
    header.gid_map.off += more as u32;
    header.slots += more as u32;
    header.total += more as u32;
    with[..entries].copy_from_slice(bytes_of(&header));
    raw::run(kernel, with, || {
        // The kernel may have no memory for it.
        // SAFETY: as above.
        let Ok(plan) = (unsafe { interp::Plan::map(raw::PLAN) }) else { return };
        for index in 0..24 {
            plan.set_slot(index, 30 + i64::from(index));
        }
        relay::run(&plan, entries as u64, count);
    });
}

/// Programs of file operations: a length of what the kernel says, that, then the requests, each with its length.
pub fn files(bytes: &[u8]) {
    let Some((&[length], rest)) = bytes.split_first_chunk::<1>() else { return };
    let (kernel, request) = rest.split_at(usize::from(length).min(rest.len()));
    raw::run(kernel, Vec::new(), || {
        let mut content = [0u8; 4096];
        let mut answer = vec![0u8; 8192];
        let mut place = calls::Place { call: |nr, args| raw::call_of_plan(nr, args), proc: 8, buffer: &mut content };
        // SAFETY: as above.
        if let Some((len, pass)) = unsafe { place.run(request, &[20, 21, 22], &mut answer) } {
            assert!(len <= answer.len() && pass >= -1);
        }
    });
    // And as it comes on a socket.
    raw::run(request, Vec::new(), || {
        // SAFETY: as above.
        unsafe { files::serve(19, 8) };
    });
}

/// A request as the kernel hands it over.
fn shaped(kind: u8, key: u8, numbers: [u64; 3]) -> Request {
    Request {
        magic: MAGIC,
        kind: u32::from(kind) % (request::LOG + 1),
        // In the half of the key that names no container.
        flags: if key & 0x80 != 0 { MORE } else { 0 },
        tid: raw::HOST,
        key: u64::from(key) % 4,
        value: numbers[0] as i32,
        timeout_ms: numbers[1] as u32 % 10_000,
        cpus: 2,
        wall_ms: numbers[2] % 20_000,
        cpu_usec: numbers[0] % 3 * 1000,
        pod: numbers[1] % 3,
        ..Request::default()
    }
}
