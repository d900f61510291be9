//! Where the library's log goes: to a function or a descriptor of the program, else nowhere.

use std::cell::Cell;
use std::ffi::{c_char, c_int, c_void};
use std::fs::File;
use std::io::Write;
use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::{PoisonError, RwLock};

use log::{LevelFilter, Log, Metadata, Record};

use ringfence::{Error, ErrorKind, Result};

use crate::border::{border, c_string, invalid};
use crate::command::duplicate;
use crate::error::ringfence_error;

/// How important a message of the log is.
#[repr(i32)]
pub enum ringfence_log_level {
    /// Nothing; as the level of ringfence_set_log_callback(): off.
    Off = 0,
    /// Something failed that no call could report.
    Error = 1,
    /// Something is not as it should be.
    Warn = 2,
    /// Starts and ends.
    Info = 3,
    /// Steps.
    Debug = 4,
    /// Everything.
    Trace = 5,
}

/// Receives one message; `level` is one of enum ringfence_log_level, `target` the part of the library, `user` the pointer given
/// to ringfence_set_log_callback(). The strings live until it returns.
pub type ringfence_log_callback =
    Option<unsafe extern "C" fn(level: c_int, target: *const c_char, message: *const c_char, user: *mut c_void)>;

enum Sink {
    Nowhere,
    Callback(unsafe extern "C" fn(c_int, *const c_char, *const c_char, *mut c_void), *mut c_void),
    Descriptor(File),
}

// SAFETY: the user pointer is only handed back to the program's function, which by the header's contract may be called on any
// thread.
unsafe impl Send for Sink {}
// SAFETY: as above.
unsafe impl Sync for Sink {}

static SINK: RwLock<Sink> = RwLock::new(Sink::Nowhere);

/// The process that set the sink. In a forked child the lock may be held by a thread that does not exist there.
static SET_BY: AtomicI32 = AtomicI32::new(0);

thread_local! {
    /// A callback that calls into the library must not be called for what it causes.
    static INSIDE: Cell<bool> = const { Cell::new(false) };
}

struct Logger;

impl Log for Logger {
    fn enabled(&self, metadata: &Metadata) -> bool {
        metadata.target().starts_with("ringfence")
    }

    fn log(&self, record: &Record) {
        if !self.enabled(record.metadata()) || INSIDE.get() || SET_BY.load(Ordering::Acquire) != this_process() {
            return;
        }
        let sink = SINK.read().unwrap_or_else(PoisonError::into_inner);
        match &*sink {
            Sink::Nowhere => {}
            Sink::Callback(call, user) => {
                let target = c_string(record.target().into());
                let message = c_string(record.args().to_string().into());
                INSIDE.set(true);
                // SAFETY: the program gave this function for these arguments; it stays set while the lock is held.
                unsafe { call(record.level() as c_int, target.as_ptr(), message.as_ptr(), *user) };
                INSIDE.set(false);
            }
            Sink::Descriptor(file) => {
                let line = format!("{} {}: {}\n", record.level(), record.target(), record.args());
                // Nobody can be told that the log cannot be written.
                let _ = (&*file).write_all(line.as_bytes());
            }
        }
    }

    fn flush(&self) {}
}

fn this_process() -> i32 {
    std::process::id() as i32
}

fn set(sink: Sink, level: c_int) -> Result<()> {
    use ringfence_log_level as at;
    let filter = match level {
        n if n == at::Off as c_int => LevelFilter::Off,
        n if n == at::Error as c_int => LevelFilter::Error,
        n if n == at::Warn as c_int => LevelFilter::Warn,
        n if n == at::Info as c_int => LevelFilter::Info,
        n if n == at::Debug as c_int => LevelFilter::Debug,
        n if n == at::Trace as c_int => LevelFilter::Trace,
        _ => return Err(invalid("level", format!("{level}: 0 (off) to 5 (trace)"))),
    };
    if INSIDE.get() {
        return Err(invalid("callback", "the log callback cannot change where the log goes").with_errno(libc::EDEADLK));
    }
    let me = this_process();
    match SET_BY.load(Ordering::Acquire) {
        0 => {}
        pid if pid == me => {}
        _ => {
            return Err(
                Error::new(ErrorKind::ForkedChild, "the log belongs to the parent process").with_errno(libc::ECHILD)
            );
        }
    }
    // Fails only when this crate is linked into a Rust program that has a logger: then that one gets the messages too.
    static LOGGER: Logger = Logger;
    let _ = log::set_logger(&LOGGER);
    *SINK.write().unwrap_or_else(PoisonError::into_inner) = sink;
    SET_BY.store(me, Ordering::Release);
    log::set_max_level(filter);
    Ok(())
}

/// Sends the library's log, up to `level` (one of enum ringfence_log_level), to a function of the program; it replaces what was
/// set before. NULL turns the log off: when that returns, no call of the old function is under way.
///
/// The function is called on whatever thread the message comes from, also on several at once, never in a child of the program.
/// It must not block for long and not longjmp or throw; it may call the library (what that logs is dropped), but not this
/// function.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringfence_set_log_callback(
    callback: ringfence_log_callback,
    level: c_int,
    user: *mut c_void,
    err: *mut *mut ringfence_error,
) -> c_int {
    border(err, -1, || {
        match callback {
            Some(callback) => set(Sink::Callback(callback, user), level)?,
            None => set(Sink::Nowhere, 0)?,
        }
        Ok(0)
    })
}

/// Writes the library's log, up to `level`, to a descriptor, one line per message ("LEVEL target: text"), for languages whose
/// functions C cannot call. It is duplicated; -1 turns the log off. Replaces what was set before.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringfence_set_log_fd(fd: c_int, level: c_int, err: *mut *mut ringfence_error) -> c_int {
    border(err, -1, || {
        if fd == -1 {
            set(Sink::Nowhere, 0)?;
        } else {
            set(Sink::Descriptor(File::from(duplicate(fd)?)), level)?;
        }
        Ok(0)
    })
}
