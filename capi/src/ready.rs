//! Waiting until a container is ready.

use std::cell::Cell;
use std::ffi::{c_char, c_int};

use ringfence::WaitFor;

use crate::border::{border, text, timeout};
use crate::container::{container_of, ringfence_container};
use crate::error::ringfence_error;

/// Waits until a container is ready: until all of `conditions` hold, a JSON object with one or several of
///
///   {"port": 5432, "log": "ready to accept", "path": "/run/x.sock", "command": ["pg_isready"], "http": "http://127.0.0.1:8080/health"}
///
/// "port": something listens on that TCP port of the container's network, or "53/udp" is bound; nobody connects for it. "log": a regular
/// expression that matches in a line of the log, from its beginning. "path": it exists inside. These three may be lists. "command": run
/// inside again and again, it exits with 0. "http": a GET from inside is answered with a status from 200 to 399; {"url": ..., "status": 204}
/// asks for one. What held once is not looked at again.
///
/// Returns 1 when it is ready, 0 when the time passed, -1 for an error. It looks again after 1 to 50 ms; lines of the log and the end of the
/// container are noticed at once. Fails with RINGFENCE_KIND_CLOSED when the container ends before it is ready, or its handle is closed, with
/// RINGFENCE_KIND_INVALID_ARGUMENT for what can never hold, with RINGFENCE_KIND_NOT_FOUND for a program that does not exist and for "log" without
/// a log; ringfence_error_field() says which condition.
///
/// Unlike elsewhere `*err` is set for 0 too (RINGFENCE_KIND_TIMED_OUT; free it): it says what holds and what does not, and
/// ringfence_error_log_tail() has the last lines of the log, as it has when the container ended.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringfence_container_wait_for(
    container: *const ringfence_container,
    conditions: *const c_char,
    timeout_ms: c_int,
    err: *mut *mut ringfence_error,
) -> c_int {
    let late = Cell::new(false);
    let result = border(err, -1, || {
        let timeout = timeout(timeout_ms)?;
        let wanted = WaitFor::from_json(text(conditions, "conditions")?)?;
        let mut readiness = container_of(container, |container| container.readiness(&wanted, timeout))?;
        if readiness.wait(None)? {
            return Ok(1);
        }
        late.set(true);
        Err(readiness.timed_out())
    });
    if late.get() { 0 } else { result }
}
