//! `ringfence_command`: a program to run in a container that is already there.

use std::ffi::{OsStr, c_char, c_int};
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::ptr;
use std::sync::RwLock;

use ringfence::spec::Stdio;
use ringfence::{Command, Error, ErrorKind, Result};

use crate::border::{border, border_for, bytes, invalid, length, quietly, text};
use crate::error::ringfence_error;
use crate::object::{Object, body, give, release};
use crate::spec::{read, write};

/// A program to run in a container, with its arguments, environment and streams. A spawn reads it and never consumes it.
pub struct ringfence_command {
    _opaque: [u8; 0],
}

/// The command, and the duplicates that its `fd:N` streams name: stdin, stdout, stderr.
pub(crate) struct Body {
    command: Command,
    streams: [Option<OwnedFd>; 3],
}

impl Object for ringfence_command {
    type Body = RwLock<Body>;
    const MAGIC: u64 = u64::from_ne_bytes(*b"rf-cmmnd");
    const NAME: &'static str = "command";
}

/// A command for ringfence_container_spawn(). The program is looked up inside the container, by the PATH of the command's
/// environment when it has no slash. NULL when `program` is NULL or memory is short.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringfence_command_new(program: *const c_char) -> *mut ringfence_command {
    border_for(length(program), ptr::null_mut(), ptr::null_mut(), || {
        let command = Command::new(OsStr::from_bytes(bytes(program, "program")?));
        Ok(give(RwLock::new(Body { command, streams: [None, None, None] })))
    })
}

/// Frees a command. NULL is fine. Processes that were started from it live on.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringfence_command_free(command: *mut ringfence_command) {
    quietly(|| drop(release(command)));
}

/// Appends an argument, which may be empty.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringfence_command_arg(
    command: *mut ringfence_command,
    arg: *const c_char,
    err: *mut *mut ringfence_error,
) -> c_int {
    border_for(length(arg), err, -1, || {
        write(&*body(command)?, "command")?.command.arg(OsStr::from_bytes(bytes(arg, "argument")?));
        Ok(0)
    })
}

/// Sets a variable of its environment; a `value` of NULL removes it from what the container's spec gives.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringfence_command_env(
    command: *mut ringfence_command,
    key: *const c_char,
    value: *const c_char,
    err: *mut *mut ringfence_error,
) -> c_int {
    border_for(length(value), err, -1, || {
        let key = bytes(key, "key")?;
        if key.is_empty() || key.contains(&b'=') {
            return Err(invalid("env", "the name of a variable is not empty and has no \"=\""));
        }
        let body = body(command)?;
        let mut body = write(&body, "command")?;
        let key = OsStr::from_bytes(key);
        if value.is_null() {
            body.command.env_remove(key);
        } else {
            body.command.env(key, OsStr::from_bytes(bytes(value, "value")?));
        }
        Ok(0)
    })
}

/// Sets a field by name from text, by the rules of ringfence_spec_set(): "argv", "env", "env_inherit", "cwd", "user", "groups",
/// "umask", "stdin", "stdout", "stderr", "terminal", "rlimits", "nice", "scheduler", "io_priority", "oom_score_adj",
/// "capabilities", "securebits", "landlock", "apparmor", "selinux", "seccomp", "no_new_privs", "start_timeout", "cgroup" (a group inside), "set_tid" (the pid that it is to have inside). What is
/// not set is as the container's spec says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringfence_command_set(
    command: *mut ringfence_command,
    key: *const c_char,
    value: *const c_char,
    err: *mut *mut ringfence_error,
) -> c_int {
    border_for(length(value), err, -1, || {
        write(&*body(command)?, "command")?.command.set(text(key, "key")?, bytes(value, "value")?)?;
        Ok(0)
    })
}

/// Its stdin will be a duplicate of this descriptor, made now.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringfence_command_stdin_fd(
    command: *mut ringfence_command,
    fd: c_int,
    err: *mut *mut ringfence_error,
) -> c_int {
    stream(command, 0, fd, err)
}

/// Its stdout will be a duplicate of this descriptor, made now.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringfence_command_stdout_fd(
    command: *mut ringfence_command,
    fd: c_int,
    err: *mut *mut ringfence_error,
) -> c_int {
    stream(command, 1, fd, err)
}

/// Its stderr will be a duplicate of this descriptor, made now.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringfence_command_stderr_fd(
    command: *mut ringfence_command,
    fd: c_int,
    err: *mut *mut ringfence_error,
) -> c_int {
    stream(command, 2, fd, err)
}

fn stream(command: *mut ringfence_command, which: usize, fd: c_int, err: *mut *mut ringfence_error) -> c_int {
    border(err, -1, || {
        let field = ["stdin", "stdout", "stderr"][which];
        let body = body(command)?;
        let mut body = write(&body, "command")?;
        let copy = duplicate(fd).map_err(|error| error.with_field(field))?;
        let stdio = Stdio::Fd(copy.as_raw_fd());
        match which {
            0 => body.command.stdin(stdio),
            1 => body.command.stdout(stdio),
            _ => body.command.stderr(stdio),
        };
        body.streams[which] = Some(copy);
        Ok(0)
    })
}

/// A copy with CLOEXEC, so that the caller may close its own at once.
pub(crate) fn duplicate(fd: c_int) -> Result<OwnedFd> {
    if fd < 0 {
        return Err(invalid("fd", format!("{fd} is not a descriptor")).with_errno(libc::EBADF));
    }
    // SAFETY: the number is not -1; whether it is open is what the call finds out.
    let borrowed = unsafe { BorrowedFd::borrow_raw(fd) };
    borrowed.try_clone_to_owned().map_err(|error| {
        let error = Error::io(format!("duplicate descriptor {fd}"), &error);
        if error.errno() == libc::EBADF { error.with_kind(ErrorKind::InvalidArgument) } else { error }
    })
}

/// For the calls that start it.
pub(crate) fn with_command<T>(
    command: *const ringfence_command,
    call: impl FnOnce(&Command) -> Result<T>,
) -> Result<T> {
    let body = body(command)?;
    call(&read(&body, "command")?.command)
}
