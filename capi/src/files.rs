//! Files of a container, read, written and copied from outside; trees of the host, removed.

use std::ffi::{OsStr, c_char, c_int, c_void};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::ptr;

use ringfence::{CopyOptions, Error, ErrorKind, RemoveOptions, Result, Special, Volume, WriteOptions};

use crate::border::{border, bytes, give_string, invalid, text, timeout};
use crate::container::ringfence_container;
use crate::error::ringfence_error;
use crate::object::running;

fn path<'a>(given: *const c_char, what: &str) -> Result<&'a Path> {
    bytes(given, what).map(|path| Path::new(OsStr::from_bytes(path)))
}

fn optional(given: *const c_char, what: &str) -> Result<Option<String>> {
    if given.is_null() { Ok(None) } else { text(given, what).map(|text| Some(text.to_owned())) }
}

/// Reads a file as the container sees it, with the rights of its root, below its root whatever links it has there, into `buffer`. How many
/// bytes there are, at most `size`; a larger file is an error with EFBIG. What is no regular file (a FIFO, a device, a directory) is
/// not opened but an error. Works with a frozen container too; gives up after a minute (RINGFENCE_KIND_TIMED_OUT). Do not trust what is
/// read.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringfence_container_read_file(
    container: *const ringfence_container,
    path: *const c_char,
    buffer: *mut c_void,
    size: usize,
    err: *mut *mut ringfence_error,
) -> i64 {
    border(err, -1, || {
        if buffer.is_null() && size > 0 {
            return Err(invalid("buffer", "is NULL"));
        }
        let path = self::path(path, "path")?;
        let content = running(container)?.container.read(path, Some(size as u64))?;
        if !content.is_empty() {
            // SAFETY: `read` gives no more than `size` bytes, for which by the header's contract there is room.
            unsafe { ptr::copy_nonoverlapping(content.as_ptr(), buffer.cast(), content.len()) };
        }
        Ok(content.len() as i64)
    })
}

/// Gives a file of the container these bytes, and makes it if there is none (not its directories). A new file takes the old one's place, so
/// that nobody inside sees half of it; one behind a symbolic link, or that is a mount, is emptied and written. `mode`: permissions,
/// or -1 for those that it has, 0644 for a new one. `owner`: `uid`, `uid:gid` or names of the container's, or NULL for the owner that it has,
/// the container's user for a new one.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringfence_container_write_file(
    container: *const ringfence_container,
    path: *const c_char,
    data: *const c_void,
    length: usize,
    mode: c_int,
    owner: *const c_char,
    err: *mut *mut ringfence_error,
) -> c_int {
    border(err, -1, || {
        if data.is_null() && length > 0 {
            return Err(invalid("data", "is NULL"));
        }
        let mode = match mode {
            -1 => None,
            mode => Some(u32::try_from(mode).map_err(|_| {
                Error::new(ErrorKind::InvalidArgument, format!("{mode} is neither a mode nor -1")).with_field("mode")
            })?),
        };
        let (path, owner) = (self::path(path, "path")?, optional(owner, "owner")?);
        let content = if length == 0 {
            &[]
        } else {
            // SAFETY: by the header's contract so many bytes are there.
            unsafe { std::slice::from_raw_parts(data.cast(), length) }
        };
        running(container)?.container.write(path, content, &WriteOptions { mode, owner })?;
        Ok(0)
    })
}

fn options<'a>(owner: Option<String>, special: Option<String>, timeout_ms: c_int) -> Result<CopyOptions<'a>> {
    let special = special.as_deref().map_or(Ok(Special::default()), Special::parse)?;
    Ok(CopyOptions { owner, special, timeout: timeout(timeout_ms)?, progress: None })
}

/// Copies a file or a tree of the host into the container, named as `cp -a` does: into `target`, if that is a directory there, under the last
/// name of `source`; else `target` is what the copy is called. A `source` that ends in `/.` stands for what is in it. Permissions,
/// times, symbolic links, hard links and holes come along; set-uid bits and extended attributes do not. No link below `source` or `target`
/// is followed.
///
/// `owner`: of the copy, as for ringfence_container_write_file(), NULL for the container's user. `special`: what becomes of devices, sockets and
/// FIFOs: `refuse` or NULL is an error that names the first (RINGFENCE_KIND_UNSUPPORTED), `skip` leaves them out. -1 ms is no timeout.
/// Another thread's ringfence_container_close() ends it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringfence_container_copy_in(
    container: *const ringfence_container,
    source: *const c_char,
    target: *const c_char,
    owner: *const c_char,
    special: *const c_char,
    timeout_ms: c_int,
    err: *mut *mut ringfence_error,
) -> c_int {
    border(err, -1, || {
        let (source, target) = (path(source, "source")?, path(target, "target")?);
        let (owner, special) = (optional(owner, "owner")?, optional(special, "special")?);
        running(container)?.container.copy_in(source, target, options(owner, special, timeout_ms)?)?;
        Ok(0)
    })
}

/// Copies a file or a tree of the container to the host, as ringfence_container_copy_in() the other way; what is made is the caller's. The
/// container is not trusted: whatever it has there, and changes meanwhile, nothing outside of `target` is touched.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringfence_container_copy_out(
    container: *const ringfence_container,
    source: *const c_char,
    target: *const c_char,
    special: *const c_char,
    timeout_ms: c_int,
    err: *mut *mut ringfence_error,
) -> c_int {
    border(err, -1, || {
        let (source, target) = (path(source, "source")?, path(target, "target")?);
        let special = optional(special, "special")?;
        running(container)?.container.copy_out(source, target, options(None, special, timeout_ms)?)?;
        Ok(0)
    })
}

/// Removes a file, a symbolic link or a tree of the host, also the files in it that a container left there for subordinate ids of this
/// user. No link is followed, no mount crossed (EBUSY). -1 ms is no timeout. Refuses an empty path, `/`, and one that ends in a dot.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringfence_remove_tree(
    path: *const c_char,
    timeout_ms: c_int,
    err: *mut *mut ringfence_error,
) -> c_int {
    border(err, -1, || {
        let path = self::path(path, "path")?;
        ringfence::remove_tree(path, RemoveOptions { timeout: timeout(timeout_ms)?, progress: None })?;
        Ok(0)
    })
}

/// The named volumes of this user as a JSON list (ringfence_string_free()): objects with name, path and in_use. A volume is made by a mount of
/// type `volume`: below RINGFENCE_VOLUMES, for root /var/lib/ringfence/volumes, else ringfence/volumes in XDG_DATA_HOME or ~/.local/share.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringfence_volumes_json(err: *mut *mut ringfence_error) -> *mut c_char {
    border(err, ptr::null_mut(), || Ok(give_string(Volume::to_json(&ringfence::volumes()?))))
}

/// Removes a named volume of this user with all that is in it. Fails with EBUSY while a container has it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringfence_volume_remove(name: *const c_char, err: *mut *mut ringfence_error) -> c_int {
    border(err, -1, || {
        ringfence::remove_volume(text(name, "name")?)?;
        Ok(0)
    })
}
