//! The syntax of single values: names, addresses, numbers, paths.

use std::ffi::OsStr;
use std::net::{IpAddr, Ipv6Addr};
use std::os::fd::RawFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use crate::error::{Error, Result};
use crate::spec::at::At;

/// The longest host name: __NEW_UTS_LEN of the kernel.
pub(super) const MAX_HOSTNAME: usize = 64;

/// The longest name of a host in the DNS.
pub(super) const MAX_DNS_NAME: usize = 253;

/// PATH_MAX of the kernel, with the NUL.
const MAX_PATH: usize = 4095;

/// The strict syntax of names, which also become names of files and control groups.
pub(super) fn check_name(at: &At, name: &str) -> Result<()> {
    crate::spec::name_syntax(name).map_err(|why| at.error(why))
}

/// A name by which a container is found.
pub(in crate::spec) fn name_of_host(at: &At, name: &str) -> Result<()> {
    host_name(at, name, MAX_DNS_NAME)
}

/// RFC 1123, section 2.1, with the caller's bound.
pub(super) fn host_name(at: &At, name: &str, max: usize) -> Result<()> {
    if name.is_empty() {
        return Err(at.error("is empty"));
    }
    no_nul(at, name.as_ref())?;
    if name.len() > max {
        return Err(at.error(format!("{} bytes are more than {max}", name.len())));
    }
    for label in name.split('.') {
        let inner = |b: u8| b.is_ascii_alphanumeric() || b == b'-';
        if label.is_empty() || label.len() > 63 {
            return Err(at.error(format!("{name:?} has a label of {} bytes; 1 to 63 are possible", label.len())));
        }
        if !label.bytes().all(inner) || label.starts_with('-') || label.ends_with('-') {
            return Err(at.error(format!(
                "{name:?} is not a host name: labels are letters, digits and inner hyphens (RFC 1123)"
            )));
        }
    }
    Ok(())
}

/// An address as resolv.conf(5) takes it: with the scope of a link-local one behind `%`.
pub(super) fn name_server(at: &At, text: &str) -> Result<()> {
    let good = match text.split_once('%') {
        Some((address, scope)) => {
            address.parse::<Ipv6Addr>().is_ok()
                && !scope.is_empty()
                && scope.bytes().all(|b| b.is_ascii_graphic() && b != b'%' && b != b'/')
        }
        None => text.parse::<IpAddr>().is_ok(),
    };
    if good { Ok(()) } else { Err(at.error(format!("{text:?} is not an IPv4 or IPv6 address"))) }
}

pub(super) fn range<T: PartialOrd + std::fmt::Display>(field: &str, value: T, min: T, max: T) -> Result<()> {
    if value < min || value > max {
        return Err(Error::spec(field, format!("{value} is not in {min} to {max}")));
    }
    Ok(())
}

pub(super) fn descriptor(at: &At, fd: RawFd) -> Result<()> {
    if fd < 0 {
        return Err(at.error(format!("{fd} is not a file descriptor")));
    }
    Ok(())
}

pub(super) fn file_mode(at: &At, mode: u32) -> Result<()> {
    if mode > 0o7777 {
        return Err(at.error(format!("0o{mode:o} is more than 0o7777")));
    }
    Ok(())
}

pub(super) fn no_nul(at: &At, value: &OsStr) -> Result<()> {
    match value.as_bytes().iter().position(|&b| b == 0) {
        Some(position) => Err(at.error(format!("has a NUL byte at {position}"))),
        None => Ok(()),
    }
}

pub(in crate::spec) fn absolute(at: &At, path: &Path) -> Result<()> {
    let bytes = path.as_os_str().as_bytes();
    if bytes.is_empty() {
        return Err(at.error("is an empty path"));
    }
    no_nul(at, path.as_os_str())?;
    if bytes[0] != b'/' {
        return Err(at
            .error(format!("{path:?} is not an absolute path"))
            .with_hint("any thread can change the working directory; give a path from /"));
    }
    if bytes.len() > MAX_PATH {
        return Err(at.error(format!("a path of {} bytes; the kernel takes {MAX_PATH}", bytes.len())));
    }
    Ok(())
}

/// Without `.` and double or trailing slashes.
pub(in crate::spec) fn normal(path: &[u8]) -> Vec<u8> {
    let mut normal = Vec::with_capacity(path.len());
    for part in path.split(|&b| b == b'/').filter(|part| !part.is_empty() && *part != b".") {
        normal.push(b'/');
        normal.extend_from_slice(part);
    }
    if normal.is_empty() {
        normal.push(b'/');
    }
    normal
}

/// A name that the kernel reads up to the next space.
pub(super) fn word(at: &At, name: &str) -> Result<()> {
    if name.is_empty() || name.contains(|c: char| c.is_whitespace() || c.is_control() || c == '=') {
        return Err(at.error("is not a name"));
    }
    Ok(())
}
