//! Kernel parameters: how a plan reads, writes and checks them.

use super::builder::{Arg, Builder, call};

const RESOLVE_NO_SYMLINKS: u64 = 4;
const RESOLVE_BENEATH: u64 = 8;

/// The longest value that is remembered, with the NUL that ends it here.
const ROOM: usize = 1024;

/// One parameter as an open file.
pub(crate) struct Parameter {
    file: u16,
    /// As it is in /proc.
    shown: String,
}

/// Opens `sys/PATH` below the directory `proc` and notes its value, if it can be read, in [`Compiled::found`] under its path.
/// Which namespace a file below /proc/sys is of, the kernel takes from whoever opens it. Errors name the builder's field.
///
/// [`Compiled::found`]: super::builder::Compiled::found
pub(crate) fn open(b: &mut Builder, proc: u16, path: &str) -> Parameter {
    let how = b.words(&[(libc::O_RDWR | libc::O_CLOEXEC) as u64, 0, RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS]);
    let shown = format!("/proc/sys/{path}");
    let text = b.text(format!("sys/{path}"));
    let file = b
        .op(call::OPENAT2, [Arg::Slot(proc), text, how, 24.into()])
        .path(&*shown)
        .hint("this kernel does not have it in the container's namespace, or not for writing")
        .keep();
    let room = b.room(path, ROOM);
    // Not every one can be read; whoever wants its value later is told so.
    b.op(call::PREAD64, [Arg::Slot(file), room, (ROOM as u64 - 1).into(), 0.into()]).ok_all().path(&*shown);
    Parameter { file, shown }
}

impl Parameter {
    /// Writes the value and reads it back.
    pub fn set(&self, b: &mut Builder, value: &str) {
        let data = b.text(value);
        let args = [Arg::Slot(self.file), data, (value.len() as u64).into()];
        b.op(call::WRITE_ALL, args).path(&*self.shown).hint("the kernel does not take this value");
        b.op(call::COMPARE, args)
            .path(&*self.shown)
            .hint("the kernel made another value of it, or this one cannot be read back");
    }

    /// As [`set`](Self::set), unless it has the value: some cannot be written as they are read.
    pub fn put_back(&self, b: &mut Builder, value: &str) {
        let data = b.text(value);
        let before = b.len();
        let args = [Arg::Slot(self.file), data, (value.len() as u64).into()];
        b.op(call::COMPARE, args).ok(&[libc::ERANGE]);
        self.set(b, value);
        b.skip_from(before, true);
    }

    pub fn close(&self, b: &mut Builder) {
        b.op(call::CLOSE, [Arg::Slot(self.file)]);
    }
}
