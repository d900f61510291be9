//! Programs of [`calls`] on the files of this process.

use std::os::fd::{AsRawFd, BorrowedFd, RawFd};

use super::calls::{self, FileOp, Place, kind};
use super::task::any_call;

/// What an argument of a system call is to the kernel.
#[derive(Clone, Copy)]
enum Arg {
    Number,
    /// A text in the request, with its NUL.
    Text,
    /// So many bytes of the request that are read.
    Read(u64),
    /// As many as a later argument says.
    ReadBy(usize),
    /// So many bytes of the answer that are written.
    Written(u64),
    WrittenBy(usize),
}

/// The calls that programs here are made of, and what they take.
const CALLS: [(libc::c_long, &[Arg]); 17] = {
    use Arg::{Number, Read, ReadBy, Text, Written, WrittenBy};
    [
        (libc::SYS_openat, &[Number, Text, Number, Number]),
        (libc::SYS_openat2, &[Number, Text, ReadBy(3), Number]),
        (libc::SYS_close, &[Number]),
        // struct statx, struct statfs.
        (libc::SYS_statx, &[Number, Text, Number, Number, Written(256)]),
        (libc::SYS_fstatfs, &[Number, Written(120)]),
        (libc::SYS_getdents64, &[Number, WrittenBy(2), Number]),
        (libc::SYS_readlinkat, &[Number, Text, WrittenBy(3), Number]),
        (libc::SYS_symlinkat, &[Text, Number, Text]),
        (libc::SYS_mkdirat, &[Number, Text, Number]),
        (libc::SYS_unlinkat, &[Number, Text, Number]),
        (libc::SYS_linkat, &[Number, Text, Number, Text, Number]),
        (libc::SYS_renameat2, &[Number, Text, Number, Text, Number]),
        (libc::SYS_fchownat, &[Number, Text, Number, Number, Number]),
        (libc::SYS_fchmod, &[Number, Number]),
        // A path that is null stands for the descriptor; two struct timespec.
        (libc::SYS_utimensat, &[Number, Text, Read(32), Number]),
        (libc::SYS_ftruncate, &[Number, Number]),
        // Of one command alone: see `is_sound_op`.
        (libc::SYS_fcntl, &[Number, Number, Number]),
    ]
};

/// Runs a program as this thread; the length of the answer, and the descriptor that would go with it. `None` for one that makes no
/// sense, or has other calls or addresses than those above: then nothing was done.
pub(crate) fn run(
    request: &[u8],
    fds: &[RawFd],
    answer: &mut [u8],
    proc: BorrowedFd<'_>,
    buffer: &mut [u8],
) -> Option<(usize, RawFd)> {
    let head = calls::head(request)?;
    for index in 0..head.count as usize {
        if !is_sound_op(&calls::op(request, index)?, request, head.room.into()) {
            return None;
        }
    }
    let mut place = Place { call: any_call, proc: proc.as_raw_fd(), buffer };
    // SAFETY: its system calls were just looked at: each address that one gets is in the request or in the part of the answer that is for
    // it, and there is room behind it. The operations that are no system calls take numbers.
    unsafe { place.run(request, fds, answer) }
}

fn is_sound_op(op: &FileOp, request: &[u8], room: u64) -> bool {
    if [calls::COPY, calls::READ_ALL, calls::IS, calls::REOPEN].contains(&op.nr) {
        return true;
    }
    let Some((_, args)) = CALLS.iter().find(|(nr, _)| *nr == libc::c_long::from(op.nr)) else { return false };
    if op.nr == libc::SYS_fcntl as u32 && (op.kinds[1], op.args[1]) != (kind::IMM, libc::F_DUPFD_CLOEXEC as u64) {
        return false;
    }
    args.iter().enumerate().all(|(i, arg)| {
        let (kind, at) = (op.kinds[i], op.args[i]);
        let told = |by: usize| if op.kinds[by] == kind::IMM { op.args[by] } else { u64::MAX };
        let inside = |wanted, len, whole| kind == wanted && at.checked_add(len).is_some_and(|end| end <= whole);
        let read = |len| inside(kind::DATA, len, request.len() as u64);
        match *arg {
            Arg::Number => true,
            Arg::Text if kind == kind::IMM => at == 0,
            Arg::Text => read(0) && request[at as usize..].contains(&0),
            Arg::Read(len) => read(len),
            Arg::ReadBy(by) => read(told(by)),
            Arg::Written(len) => inside(kind::OUT, len, room),
            Arg::WrittenBy(by) => inside(kind::OUT, told(by), room),
        }
    })
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;

    /// A request of one operation, with data behind it.
    fn ran(nr: libc::c_long, kinds: [u8; 8], args: [u64; 6], room: u32, data: &[u8]) -> Option<(usize, RawFd)> {
        let mut request: Vec<u8> =
            [1, room, u32::MAX, 0, nr as u32, 0].iter().flat_map(|word| word.to_ne_bytes()).collect();
        request.extend_from_slice(&kinds);
        args.iter().for_each(|arg| request.extend_from_slice(&arg.to_ne_bytes()));
        request.extend_from_slice(data);
        let null = std::fs::File::open("/dev/null").unwrap();
        run(&request, &[null.as_raw_fd()], &mut vec![0; 8 + room as usize], null.as_fd(), &mut [])
    }

    #[test]
    fn what_has_other_calls_or_addresses_is_not_run() {
        use kind::{DATA, FD, IMM, OUT};
        // The data are behind 16 bytes and an operation of 64.
        let statx = [FD, DATA, IMM, IMM, OUT, IMM, IMM, IMM];
        let args = |out| [0, 80, libc::AT_EMPTY_PATH as u64, 1, out, 0];
        assert!(ran(libc::SYS_statx, statx, args(0), 256, b"\0").is_some());
        assert!(ran(libc::SYS_statx, statx, args(8), 256, b"\0").is_none(), "less room than it writes");
        assert!(ran(libc::SYS_statx, statx, args(0), 256, b"x").is_none(), "a text without an end");
        let out = 0x7000_0000;
        assert!(
            ran(libc::SYS_statx, [FD, DATA, IMM, IMM, IMM, IMM, IMM, IMM], args(out), 256, b"\0").is_none(),
            "an address"
        );
        assert!(
            ran(libc::SYS_getdents64, [FD, OUT, IMM, IMM, IMM, IMM, IMM, IMM], [0, 0, 264, 0, 0, 0], 256, b"")
                .is_none()
        );
        assert!(
            ran(libc::SYS_fcntl, [FD, IMM, IMM, IMM, IMM, IMM, IMM, IMM], [0, 5, 0, 0, 0, 0], 0, b"").is_none(),
            "F_GETLK"
        );
        assert!(ran(libc::SYS_munmap, [IMM; 8], [0; 6], 0, b"").is_none(), "a call that is not there");
    }
}
