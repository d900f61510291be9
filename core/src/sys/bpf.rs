//! bpf(2): programs that decide about a control group's devices (BPF_PROG_TYPE_CGROUP_DEVICE, Linux 4.15).

use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use super::task::call;

const PROG_LOAD: usize = 5;
const PROG_ATTACH: usize = 8;
const PROG_DETACH: usize = 9;
const PROG_GET_FD_BY_ID: usize = 13;
const OBJ_GET_INFO_BY_FD: usize = 15;
const PROG_QUERY: usize = 16;

const PROG_TYPE_CGROUP_DEVICE: u32 = 15;
/// What a program is attached to a group for.
const CGROUP_DEVICE: u32 = 6;
/// Further programs may be attached to the same group, and those of the groups above hold as well.
const ALLOW_MULTI: u32 = 2;
/// In place of another program, at once: Linux 5.6.
const REPLACE: u32 = 4;

/// One instruction: struct bpf_insn.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Insn {
    pub code: u8,
    /// The register that is written in the lower half, the one that is read in the upper.
    pub registers: u8,
    pub offset: i16,
    pub immediate: i32,
}

/// The name of a program as the kernel keeps it.
pub(crate) type Name = [u8; 16];

fn bpf<T>(command: usize, attributes: &mut T) -> Result<usize, i32> {
    // SAFETY: the callers below pass the beginning of union bpf_attr for the command, whose pointers lead to memory that outlives
    // the call; the kernel takes what is behind its size for zeros.
    unsafe { call(libc::SYS_bpf, [command, std::ptr::from_mut(attributes) as usize, size_of::<T>()]) }
}

fn descriptor(number: usize) -> OwnedFd {
    // SAFETY: a descriptor that the kernel has just made for us.
    unsafe { OwnedFd::from_raw_fd(number as RawFd) }
}

/// BPF_PROG_LOAD. It takes CAP_SYS_ADMIN (or CAP_BPF and CAP_NET_ADMIN) in the machine's first user namespace: EPERM. The descriptor
/// is close-on-exec, as all of bpf(2) are.
pub(crate) fn load(program: &[Insn], name: &Name) -> Result<OwnedFd, i32> {
    #[repr(C)]
    struct Attributes {
        kind: u32,
        count: u32,
        program: u64,
        license: u64,
        log: [u64; 2],
        kernel_version: u32,
        flags: u32,
        name: Name,
        interface: u32,
        attach: u32,
    }
    let mut attributes = Attributes {
        kind: PROG_TYPE_CGROUP_DEVICE,
        count: program.len() as u32,
        program: program.as_ptr() as u64,
        // It calls no function that is for others only.
        license: c"Apache-2.0".as_ptr() as u64,
        log: [0; 2],
        kernel_version: 0,
        flags: 0,
        name: *name,
        interface: 0,
        attach: CGROUP_DEVICE,
    };
    bpf(PROG_LOAD, &mut attributes).map(descriptor)
}

#[repr(C)]
struct Attach {
    group: u32,
    program: u32,
    kind: u32,
    flags: u32,
    replaced: u32,
}

/// BPF_PROG_ATTACH to a control group of v2, beside those of others or in the place of `replaced`.
pub(crate) fn attach(
    group: BorrowedFd<'_>,
    program: BorrowedFd<'_>,
    replaced: Option<BorrowedFd<'_>>,
) -> Result<(), i32> {
    let mut attributes = Attach {
        group: group.as_raw_fd() as u32,
        program: program.as_raw_fd() as u32,
        kind: CGROUP_DEVICE,
        flags: ALLOW_MULTI | if replaced.is_some() { REPLACE } else { 0 },
        replaced: replaced.map_or(0, |fd| fd.as_raw_fd() as u32),
    };
    bpf(PROG_ATTACH, &mut attributes).map(drop)
}

/// BPF_PROG_DETACH.
pub(crate) fn detach(group: BorrowedFd<'_>, program: BorrowedFd<'_>) -> Result<(), i32> {
    let (group, program) = (group.as_raw_fd() as u32, program.as_raw_fd() as u32);
    let mut attributes = Attach { group, program, kind: CGROUP_DEVICE, flags: 0, replaced: 0 };
    bpf(PROG_DETACH, &mut attributes).map(drop)
}

/// BPF_PROG_QUERY: the ids of the programs for devices that are attached to a group itself.
pub(crate) fn attached(group: BorrowedFd<'_>) -> Result<Vec<u32>, i32> {
    #[repr(C)]
    struct Attributes {
        group: u32,
        kind: u32,
        flags: u32,
        attach_flags: u32,
        ids: u64,
        count: u32,
        pad: u32,
    }
    // The kernel attaches at most 64 to a group (BPF_CGROUP_MAX_PROGS).
    let mut ids = vec![0u32; 64];
    let mut attributes = Attributes {
        group: group.as_raw_fd() as u32,
        kind: CGROUP_DEVICE,
        flags: 0,
        attach_flags: 0,
        ids: ids.as_mut_ptr() as u64,
        count: ids.len() as u32,
        pad: 0,
    };
    bpf(PROG_QUERY, &mut attributes)?;
    ids.truncate(attributes.count as usize);
    Ok(ids)
}

/// BPF_PROG_GET_FD_BY_ID. ENOENT: it is gone.
pub(crate) fn by_id(id: u32) -> Result<OwnedFd, i32> {
    let mut attributes = [id, 0, 0];
    bpf(PROG_GET_FD_BY_ID, &mut attributes).map(descriptor)
}

/// The name that a program was loaded with.
pub(crate) fn name(program: BorrowedFd<'_>) -> Result<Name, i32> {
    #[repr(C)]
    struct Attributes {
        program: u32,
        length: u32,
        info: u64,
    }
    /// The beginning of struct bpf_prog_info, of which the kernel fills in as much as it is given.
    #[repr(C)]
    struct Info {
        kind: u32,
        id: u32,
        tag: [u8; 8],
        lengths: [u32; 2],
        programs: [u64; 2],
        load_time: u64,
        created_by: u32,
        map_count: u32,
        maps: u64,
        name: Name,
    }
    let mut info = Info {
        kind: 0,
        id: 0,
        tag: [0; 8],
        lengths: [0; 2],
        programs: [0; 2],
        load_time: 0,
        created_by: 0,
        map_count: 0,
        maps: 0,
        name: [0; 16],
    };
    let mut attributes = Attributes {
        program: program.as_raw_fd() as u32,
        length: size_of::<Info>() as u32,
        info: &raw mut info as u64,
    };
    bpf(OBJ_GET_INFO_BY_FD, &mut attributes)?;
    Ok(info.name)
}
