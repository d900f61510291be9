//! `ringfence_spec`: what a container is to be.

use std::ffi::{c_char, c_int, c_void};
use std::ptr;
use std::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard, TryLockError};

use ringfence::{Error, ErrorKind, Result, Spec};

use crate::border::{block, border, border_for, bytes, give_string, length, quietly, text};
use crate::error::ringfence_error;
use crate::object::{Object, body, give, release};

/// What a container is to be: fields with the names of the vocabulary (see the documentation of the spec, or
/// ringfence_schema_json()). A start reads it and never consumes it.
pub struct ringfence_spec {
    _opaque: [u8; 0],
}

impl Object for ringfence_spec {
    type Body = RwLock<Spec>;
    const MAGIC: u64 = u64::from_ne_bytes(*b"rf-spec.");
    const NAME: &'static str = "spec";
}

/// Two threads at one spec or command is the caller's mistake: it gets an error instead of torn data. Never blocks, so a lock
/// that was held while the process forked does no harm in the child.
pub(crate) fn read<'a, T>(lock: &'a RwLock<T>, what: &str) -> Result<RwLockReadGuard<'a, T>> {
    match lock.try_read() {
        Ok(guard) => Ok(guard),
        Err(TryLockError::Poisoned(poisoned)) => Ok(poisoned.into_inner()),
        Err(TryLockError::WouldBlock) => Err(in_use(what, "being changed")),
    }
}

pub(crate) fn write<'a, T>(lock: &'a RwLock<T>, what: &str) -> Result<RwLockWriteGuard<'a, T>> {
    match lock.try_write() {
        Ok(guard) => Ok(guard),
        Err(TryLockError::Poisoned(poisoned)) => Ok(poisoned.into_inner()),
        Err(TryLockError::WouldBlock) => Err(in_use(what, "in use")),
    }
}

fn in_use(what: &str, how: &str) -> Error {
    Error::new(ErrorKind::InvalidArgument, format!("the {what} is {how} on another thread"))
        .with_field(what)
        .with_errno(libc::EBUSY)
        .with_hint(format!("a {what} belongs to one thread at a time"))
}

/// A spec with the default of every field; NULL when memory is short.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringfence_spec_new() -> *mut ringfence_spec {
    border(ptr::null_mut(), ptr::null_mut(), || Ok(give(RwLock::new(Spec::default()))))
}

/// Frees a spec. NULL is fine. Containers that were started from it live on.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringfence_spec_free(spec: *mut ringfence_spec) {
    quietly(|| drop(release(spec)));
}

/// A second spec with the same fields, which the caller frees; NULL on failure.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringfence_spec_copy(
    spec: *const ringfence_spec,
    err: *mut *mut ringfence_error,
) -> *mut ringfence_spec {
    border(err, ptr::null_mut(), || {
        let copy = read(&*body(spec)?, "spec")?.clone();
        Ok(give(RwLock::new(copy)))
    })
}

/// Sets a field from text: "memory" to "256M", "hostname" to "db".
///
/// Scalars replace. Lists append one element per call ("argv", then "argv" again); maps take "KEY=VALUE" ("env" to "A=b");
/// objects take JSON text. The empty text clears the field. Sizes are bytes or a number with K, M, G, T (powers of 1024),
/// durations are seconds or a number with ms, s, m, h. The value may be any bytes where the kernel allows them.
///
/// Fails with RINGFENCE_KIND_INVALID_SPEC and the field for an unknown key (the hint has the nearest known one) or a bad
/// value, with RINGFENCE_KIND_NOT_AVAILABLE for fields that this version knows but cannot enforce yet.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringfence_spec_set(
    spec: *mut ringfence_spec,
    key: *const c_char,
    value: *const c_char,
    err: *mut *mut ringfence_error,
) -> c_int {
    border_for(length(value), err, -1, || {
        write(&*body(spec)?, "spec")?.set(text(key, "key")?, bytes(value, "value")?)?;
        Ok(0)
    })
}

/// ringfence_spec_set() for a value of `len` bytes that may contain NUL, as the contents of "files" can ("/etc/key=..."); the
/// kernel's own strings (arguments, paths, variables) cannot, and are refused.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringfence_spec_set_bytes(
    spec: *mut ringfence_spec,
    key: *const c_char,
    value: *const c_void,
    len: usize,
    err: *mut *mut ringfence_error,
) -> c_int {
    border_for(len, err, -1, || {
        write(&*body(spec)?, "spec")?.set(text(key, "key")?, block(value, len, "value")?)?;
        Ok(0)
    })
}

/// The value of a field as text that ringfence_spec_set() takes (ringfence_string_free()): a scalar as itself (sizes in bytes,
/// durations in seconds), a list, map or object as JSON, nothing set as the empty text.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringfence_spec_get(
    spec: *const ringfence_spec,
    key: *const c_char,
    err: *mut *mut ringfence_error,
) -> *mut c_char {
    border(err, ptr::null_mut(), || {
        Ok(give_string(read(&*body(spec)?, "spec")?.get(text(key, "key")?)?.unwrap_or_default()))
    })
}

/// Gives a field its default back.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringfence_spec_clear(
    spec: *mut ringfence_spec,
    key: *const c_char,
    err: *mut *mut ringfence_error,
) -> c_int {
    border(err, -1, || {
        write(&*body(spec)?, "spec")?.clear(text(key, "key")?)?;
        Ok(0)
    })
}

/// The names of all fields that this library can set, as a JSON array (ringfence_string_free()).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringfence_spec_keys(err: *mut *mut ringfence_error) -> *mut c_char {
    border(err, ptr::null_mut(), || Ok(give_string(serde_json::json!(Spec::keys()).to_string())))
}

/// A spec from a JSON object: the defaults with the object's fields. Unknown fields are errors. The caller frees it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringfence_spec_from_json(
    json: *const c_char,
    err: *mut *mut ringfence_error,
) -> *mut ringfence_spec {
    border_for(length(json), err, ptr::null_mut(), || Ok(give(RwLock::new(Spec::from_json(text(json, "json")?)?))))
}

/// Lays the fields of a JSON object over the spec: values and lists replace, maps take what is new entry by entry (null removes
/// one; in "env" it removes the variable inside), null gives a field its default back. On failure the spec is as it was.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringfence_spec_merge_json(
    spec: *mut ringfence_spec,
    json: *const c_char,
    err: *mut *mut ringfence_error,
) -> c_int {
    border_for(length(json), err, -1, || {
        write(&*body(spec)?, "spec")?.merge_json(text(json, "json")?)?;
        Ok(0)
    })
}

/// The fields that differ from their defaults, as a JSON object (ringfence_string_free()); ringfence_spec_from_json() makes
/// the same spec of it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringfence_spec_to_json(
    spec: *const ringfence_spec,
    err: *mut *mut ringfence_error,
) -> *mut c_char {
    border(err, ptr::null_mut(), || Ok(give_string(read(&*body(spec)?, "spec")?.to_json())))
}

/// What a start of this spec would do on this machine, step by step, as JSON (ringfence_string_free()): each step has the
/// field of the spec that asks for it. Nothing is started.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringfence_plan_json(
    spec: *const ringfence_spec,
    err: *mut *mut ringfence_error,
) -> *mut c_char {
    border(err, ptr::null_mut(), || Ok(give_string(ringfence::plan(&*read(&*body(spec)?, "spec")?)?.to_json())))
}

/// For the calls that take a spec and do something else with it.
pub(crate) fn with_spec<T>(spec: *const ringfence_spec, call: impl FnOnce(&Spec) -> Result<T>) -> Result<T> {
    let body = body(spec)?;
    call(&*read(&body, "spec")?)
}
