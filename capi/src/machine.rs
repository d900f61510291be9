//! What concerns the machine and not one container: doctor, ls, gc, keepers.

use std::ffi::{c_char, c_int};
use std::ptr;

use serde_json::{Value, json};

use crate::border::{border, give_string, text};
use crate::error::ringfence_error;

/// What this machine and this user can do, why not, and what to do about it: a JSON object (ringfence_string_free()) with a
/// list of findings, each with what, ok, detail, remedy and essential. Changes nothing.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringfence_doctor_json(err: *mut *mut ringfence_error) -> *mut c_char {
    border(err, ptr::null_mut(), || Ok(give_string(ringfence::doctor().to_json())))
}

/// The named containers of this user, as a JSON array (ringfence_string_free()): each with name, id, state ("running", "ended",
/// "lost"), pid (of its pid 1), detached, created (seconds since the epoch), command and exit_code (128+N for signals, null
/// while it runs).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringfence_ls_json(err: *mut *mut ringfence_error) -> *mut c_char {
    border(err, ptr::null_mut(), || {
        let entries = ringfence::ls()?;
        let list = entries.iter().map(|e| {
            json!({
                "name": e.name,
                "id": e.id,
                "state": e.state,
                "pid": e.pid,
                "detached": e.detached,
                "created": e.created,
                "command": e.command,
                "exit_code": e.exit_code,
            })
        });
        Ok(give_string(list.collect::<Value>().to_string()))
    })
}

/// Ends and removes what dead keepers left behind, and the records of detached containers that have ended. Returns the number
/// of processes, control groups and files that were removed. Starts again what led out of this program's networks and has ended.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringfence_gc(err: *mut *mut ringfence_error) -> c_int {
    border(err, -1, || {
        let report = ringfence::gc()?;
        Ok((report.processes + report.cgroups + report.files).try_into().unwrap_or(c_int::MAX))
    })
}

/// ringfence_gc() with its report as a JSON object (ringfence_string_free()): processes, cgroups, files, and remaining, what
/// could not be removed yet, or has no way out again, and why.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringfence_gc_json(err: *mut *mut ringfence_error) -> *mut c_char {
    border(err, ptr::null_mut(), || {
        let r = ringfence::gc()?;
        let report = json!({
            "processes": r.processes,
            "cgroups": r.cgroups,
            "files": r.files,
            "remaining": r.remaining,
        });
        Ok(give_string(report.to_string()))
    })
}

/// Forgets a detached container of this user that has ended: its record and its log. With `force` one that runs is killed first.
///
/// Fails with RINGFENCE_KIND_NOT_FOUND; with RINGFENCE_KIND_INVALID_ARGUMENT and EBUSY for one that runs, without `force`; with
/// RINGFENCE_KIND_PERMISSION_DENIED for one that is attached to a program; with RINGFENCE_KIND_TIMED_OUT when the kernel does not
/// let go of its processes: ringfence_gc() finishes later.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringfence_rm(name: *const c_char, force: bool, err: *mut *mut ringfence_error) -> c_int {
    border(err, -1, || ringfence::rm(text(name, "name")?, force).map(|()| 0))
}

/// Ends the program's idle keepers and tells the others to leave after their last container; the next start makes a new one.
/// For programs that are about to drop privileges for good.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringfence_end_keepers(err: *mut *mut ringfence_error) -> c_int {
    border(err, -1, || {
        ringfence::end_keepers();
        Ok(0)
    })
}
