//! Small programs of system calls on files, and what runs them. Compiled into the keeper, whose task in a container is asked to
//! run them there, and into the library, which runs the same ones on the host: so that what copies a tree is written once.
//!
//! A request is a [`Head`], then [`FileOp`]s, then their data; the answer is a result (`i64`, `-errno` on failure) for each
//! operation, then the bytes that they wrote. After the first failure only those with [`ALWAYS`] run, the results of the others
//! are `-ECANCELED`.

/// The longest request, and the longest answer.
pub const ROOM: usize = 64 * 1024;

/// How much one [`COPY`] copies at most, so that whoever asked can stop between two.
pub const PORTION: u64 = 32 << 20;

#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Head {
    /// How many operations.
    pub count: u32,
    /// Bytes that they may write.
    pub room: u32,
    /// The operation whose result, a descriptor, goes back; -1 is none.
    pub pass: i32,
    pub pad: u32,
}

#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct FileOp {
    /// A system call's number, or one of [`COPY`], [`READ_ALL`], [`IS`], [`REOPEN`].
    pub nr: u32,
    pub flags: u32,
    /// What each argument is, one of [`kind`].
    pub kinds: [u8; 8],
    pub args: [u64; 6],
}

/// Its failure is not the end of the program.
pub const GO_ON: u32 = 1;
/// It runs after a failure too: closing.
pub const ALWAYS: u32 = 2;

pub mod kind {
    pub const IMM: u8 = 0;
    /// The address of an offset in the request.
    pub const DATA: u8 = 1;
    /// The address of an offset in what is answered.
    pub const OUT: u8 = 2;
    /// What an earlier operation gave.
    pub const RESULT: u8 = 3;
    /// A descriptor that came with the request.
    pub const FD: u8 = 4;
    /// A /proc in which `self` is whoever runs this.
    pub const PROC: u8 = 5;
}

/// (from, to, offset, end): copies what is data, by and by. The offset that was reached: `end` when all was done.
pub const COPY: u32 = 0x2000;
/// (from, to, limit): reads to the end of the file, of whatever size it says to be, and writes it; stops after more than `limit`
/// bytes. How many bytes it wrote.
pub const READ_ALL: u32 = 0x2001;
/// (fd, S_IFMT bits): -ESTALE for a file of another type.
pub const IS: u32 = 0x2002;
/// (fd, flags): opens what an O_PATH descriptor is for. Whoever looked at that before knows what is opened.
pub const REOPEN: u32 = 0x2003;

#[cfg(target_arch = "x86_64")]
mod number {
    pub const READ: u32 = 0;
    pub const WRITE: u32 = 1;
    pub const OPENAT: u32 = 257;
    pub const PREAD64: u32 = 17;
    pub const PWRITE64: u32 = 18;
    pub const LSEEK: u32 = 8;
    pub const FTRUNCATE: u32 = 77;
    pub const COPY_FILE_RANGE: u32 = 326;
    pub const STATX: u32 = 332;
}

#[cfg(target_arch = "aarch64")]
mod number {
    pub const READ: u32 = 63;
    pub const WRITE: u32 = 64;
    pub const OPENAT: u32 = 56;
    pub const PREAD64: u32 = 67;
    pub const PWRITE64: u32 = 68;
    pub const LSEEK: u32 = 62;
    pub const FTRUNCATE: u32 = 46;
    pub const COPY_FILE_RANGE: u32 = 285;
    pub const STATX: u32 = 291;
}

const EINTR: i64 = -4;
const ENXIO: i64 = -6;
const EIO: i64 = -5;
const EINVAL: i64 = -22;
const ECANCELED: i64 = -125;
const ESTALE: i64 = -116;

/// The first words of a request, and whether as many operations follow.
pub fn head(request: &[u8]) -> Option<Head> {
    let bytes = request.get(..core::mem::size_of::<Head>())?;
    // SAFETY: so many bytes are there; Head is plain integers.
    let head = unsafe { bytes.as_ptr().cast::<Head>().read_unaligned() };
    let ops = (head.count as usize).checked_mul(core::mem::size_of::<FileOp>())?;
    (ops <= request.len() - bytes.len()).then_some(head)
}

/// One of the operations of a request.
pub fn op(request: &[u8], index: usize) -> Option<FileOp> {
    let size = core::mem::size_of::<FileOp>();
    let at = index.checked_mul(size)?.checked_add(core::mem::size_of::<Head>())?;
    let bytes = request.get(at..at.checked_add(size)?)?;
    // SAFETY: so many bytes are there; FileOp is plain integers.
    Some(unsafe { bytes.as_ptr().cast::<FileOp>().read_unaligned() })
}

/// A system call: what its arguments demand, whoever names them answers for.
pub type Call = unsafe fn(u32, &[u64; 6]) -> i64;

/// Where programs run.
pub struct Place<'a> {
    pub call: Call,
    pub proc: i32,
    /// For the content of files.
    pub buffer: &'a mut [u8],
}

impl Place<'_> {
    /// # Safety
    /// What the system call's arguments demand.
    unsafe fn call<const N: usize>(&self, nr: u32, given: [u64; N]) -> i64 {
        let mut args = [0u64; 6];
        args[..N].copy_from_slice(&given);
        loop {
            // SAFETY: the caller's promise.
            let result = unsafe { (self.call)(nr, &args) };
            if result != EINTR {
                return result;
            }
        }
    }

    /// Runs a request; the length of the answer, and the descriptor that goes with it or -1. What makes no sense is `None`.
    ///
    /// # Safety
    /// Whoever made the request answers for its system calls: which they are, and that the offsets that they get as addresses have
    /// room for what they read and write. (An offset is looked at, what is behind it is not.)
    pub unsafe fn run(&mut self, request: &[u8], fds: &[i32], answer: &mut [u8]) -> Option<(usize, i32)> {
        let head = head(request)?;
        let count = head.count as usize;
        let results = count.checked_mul(8)?;
        let len = results.checked_add(head.room as usize)?;
        if len > answer.len() {
            return None;
        }
        let (values, out) = answer.split_at_mut(results);
        let out = &mut out[..head.room as usize];
        out.fill(0);
        let mut failed = false;
        for index in 0..count {
            let op = op(request, index)?;
            let result = if failed && op.flags & ALWAYS == 0 {
                ECANCELED
            } else {
                let mut args = [0u64; 6];
                for (i, arg) in args.iter_mut().enumerate() {
                    let value = op.args[i];
                    *arg = match op.kinds[i] {
                        kind::DATA if (value as usize) < request.len() => request.as_ptr() as u64 + value,
                        kind::OUT if (value as usize) < out.len() => out.as_mut_ptr() as u64 + value,
                        kind::RESULT if (value as usize) < index => {
                            let at = value as usize * 8;
                            let mut word = [0u8; 8];
                            word.copy_from_slice(&values[at..at + 8]);
                            u64::from_ne_bytes(word)
                        }
                        kind::FD => *fds.get(value as usize)? as u64,
                        kind::PROC => self.proc as u64,
                        kind::IMM => value,
                        _ => return None,
                    };
                }
                // SAFETY: the caller's promise.
                unsafe { self.step(op.nr, &args) }
            };
            values[index * 8..index * 8 + 8].copy_from_slice(&result.to_ne_bytes());
            failed |= result < 0 && op.flags & (GO_ON | ALWAYS) == 0;
        }
        let mut pass = -1;
        if head.pass >= 0 && (head.pass as usize) < count {
            let at = head.pass as usize * 8;
            let mut word = [0u8; 8];
            word.copy_from_slice(&values[at..at + 8]);
            // An offset is a number, too, but none of a descriptor.
            pass = i32::try_from(i64::from_ne_bytes(word)).unwrap_or(-1).max(-1);
        }
        Some((len, pass))
    }

    /// # Safety
    /// What the system call's arguments demand; those of the operations that are none are numbers.
    unsafe fn step(&mut self, nr: u32, args: &[u64; 6]) -> i64 {
        match nr {
            COPY => self.copy(args[0], args[1], args[2], args[3]),
            READ_ALL => self.read_all(args[0], args[1], args[2]),
            IS => {
                const EMPTY_PATH: u64 = 0x1000;
                const TYPE: u64 = 1;
                let mut statx = [0u16; 128];
                let empty = c"".as_ptr() as u64;
                let given = [args[0], empty, EMPTY_PATH, TYPE, statx.as_mut_ptr() as u64];
                // SAFETY: an empty text that ends with NUL, and the 256 bytes of a struct statx.
                let result = unsafe { self.call(number::STATX, given) };
                // stx_mode is at byte 28.
                let same = u64::from(statx[14] & 0o170000) == args[1];
                if result < 0 || same { result } else { ESTALE }
            }
            REOPEN => {
                let mut path = *b"self/fd/\0\0\0\0\0\0\0\0\0\0\0\0";
                let mut digits = 1;
                let mut rest = args[0] as u32 / 10;
                while rest > 0 {
                    digits += 1;
                    rest /= 10;
                }
                let mut rest = args[0] as u32;
                for place in (0..digits).rev() {
                    path[8 + place] = b'0' + (rest % 10) as u8;
                    rest /= 10;
                }
                // SAFETY: ten digits and a NUL have room behind the eight characters.
                unsafe { self.call(number::OPENAT, [self.proc as u64, path.as_ptr() as u64, args[1], 0]) }
            }
            // SAFETY: the caller's promise.
            _ => unsafe { self.call(nr, *args) },
        }
    }

    fn copy(&mut self, from: u64, to: u64, offset: u64, end: u64) -> i64 {
        const SEEK_DATA: u64 = 3;
        const SEEK_HOLE: u64 = 4;
        let mut at = offset;
        let mut copied = 0;
        while at < end {
            let data = self.seek(from, at, SEEK_DATA);
            let (data, hole) = match data {
                // Nothing but a hole is left.
                ENXIO => break,
                // A file system that does not know holes.
                EINVAL => (at, end),
                failed if failed < 0 => return failed,
                data => {
                    let hole = self.seek(from, data as u64, SEEK_HOLE);
                    (data as u64, if hole < 0 { end } else { (hole as u64).min(end) })
                }
            };
            at = data.max(at);
            // A file server of the container's own may say anything.
            if hole <= at && at < end {
                return EIO;
            }
            while at < hole {
                if copied >= PORTION {
                    return at as i64;
                }
                match self.piece(from, to, at, (hole - at).min(PORTION - copied)) {
                    // It has become shorter.
                    0 => return self.ends(to, end),
                    failed if failed < 0 => return failed,
                    n => {
                        at += n as u64;
                        copied += n as u64;
                    }
                }
            }
        }
        self.ends(to, end)
    }

    fn seek(&self, fd: u64, at: u64, whence: u64) -> i64 {
        // SAFETY: no pointers.
        unsafe { self.call(number::LSEEK, [fd, at, whence]) }
    }

    /// The hole at the end is part of the file.
    fn ends(&self, to: u64, end: u64) -> i64 {
        // SAFETY: no pointers.
        match unsafe { self.call(number::FTRUNCATE, [to, end]) } {
            failed if failed < 0 => failed,
            _ => end as i64,
        }
    }

    /// Some bytes from one place to the same place: how many.
    fn piece(&mut self, from: u64, to: u64, at: u64, len: u64) -> i64 {
        let mut offsets = [at, at];
        let [of_from, of_to] = [offsets.as_mut_ptr() as u64, (&raw mut offsets[1]) as u64];
        // SAFETY: two numbers that live, and may be written to.
        let n = unsafe { self.call(number::COPY_FILE_RANGE, [from, of_from, to, of_to, len, 0]) };
        // Between file systems, from one of the kernel's own, by a filter that does not know it: by hand. It says the same as 0.
        if n > 0 {
            // A file server may say that it copied more than was asked for, and not every kernel looks.
            return if n as u64 > len { EIO } else { n };
        }
        let (buffer, most) = (self.buffer.as_mut_ptr() as u64, len.min(self.buffer.len() as u64));
        // SAFETY: no more than the buffer has.
        let n = match unsafe { self.call(number::PREAD64, [from, buffer, most, at]) } {
            failed if failed <= 0 => return failed,
            more if more as u64 > most => return EIO,
            n => n,
        };
        match self.put(to, n as usize, Some(at)) {
            failed if failed < 0 => failed,
            _ => n,
        }
    }

    /// Writes the beginning of the buffer: at an offset, or where the file is.
    fn put(&self, to: u64, len: usize, at: Option<u64>) -> i64 {
        let mut rest = self.buffer.get(..len).unwrap_or_default();
        let mut done = 0;
        while !rest.is_empty() {
            let (data, left) = (rest.as_ptr() as u64, rest.len() as u64);
            // SAFETY: so many bytes are there.
            let n = unsafe {
                match at {
                    Some(at) => self.call(number::PWRITE64, [to, data, left, at + done]),
                    None => self.call(number::WRITE, [to, data, left]),
                }
            };
            if n < 0 {
                return n;
            }
            done += n as u64;
            rest = rest.get(n as usize..).unwrap_or_default();
        }
        0
    }

    fn read_all(&mut self, from: u64, to: u64, limit: u64) -> i64 {
        let mut total = 0u64;
        while total <= limit {
            let (buffer, most) = (self.buffer.as_mut_ptr() as u64, self.buffer.len() as u64);
            // SAFETY: no more than the buffer has.
            let n = match unsafe { self.call(number::READ, [from, buffer, most]) } {
                0 => return total as i64,
                failed if failed < 0 => return failed,
                more if more as u64 > most => return EIO,
                n => n as u64,
            };
            let written = self.put(to, n as usize, None);
            if written < 0 {
                return written;
            }
            total += n;
        }
        total as i64
    }
}
