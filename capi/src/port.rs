//! Published ports of a container.

use std::ffi::{c_char, c_int};
use std::ptr;

use ringfence::{Error, ErrorKind};

use crate::border::{border, give_string};
use crate::container::ringfence_container;
use crate::error::ringfence_error;
use crate::object::running;

/// The host's port at which `port` of the container is reachable, as "ports" of its spec asked; that of TCP when it is published
/// for UDP as well. -1 with RINGFENCE_KIND_NOT_FOUND when it is not published.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringfence_container_port(
    container: *const ringfence_container,
    port: c_int,
    err: *mut *mut ringfence_error,
) -> c_int {
    border(err, -1, || {
        let number = u16::try_from(port).ok().filter(|&port| port > 0).ok_or_else(|| {
            Error::new(ErrorKind::InvalidArgument, format!("{port} is not 1 to 65535")).with_field("port")
        })?;
        Ok(running(container)?.container.port(number)?.into())
    })
}

/// All published ports, in the order of the spec, as a JSON array (ringfence_string_free()):
/// [{"port": 5432, "protocol": "tcp", "host": "127.0.0.1", "host_port": 41234}].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringfence_container_ports_json(
    container: *const ringfence_container,
    err: *mut *mut ringfence_error,
) -> *mut c_char {
    border(err, ptr::null_mut(), || Ok(give_string(running(container)?.container.ports_json()?)))
}
