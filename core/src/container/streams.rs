//! The three streams of a program.

use std::os::fd::OwnedFd;

use crate::error::{Error, Result};
use crate::launch::{self};
use crate::plan::facts::StreamFact;
use crate::process::Streams;
use crate::spec::{Spec, Stdio};

/// The ends of the three streams that the payload gets, and the host's.
pub(super) struct Opened {
    pub(super) given: [Option<OwnedFd>; 3],
    pub(super) facts: [StreamFact; 3],
    pub(super) host: Streams,
}

pub(super) fn open_streams(asked: [Option<&Stdio>; 3], defaults: [Stdio; 3], log: Option<&OwnedFd>) -> Result<Opened> {
    const FIELDS: [&str; 3] = ["stdin", "stdout", "stderr"];
    let mut out = Opened { given: [None, None, None], facts: [StreamFact::Null; 3], host: Streams::default() };
    for (i, default) in defaults.iter().enumerate() {
        let field = FIELDS[i];
        let fd = match asked[i].unwrap_or(default) {
            Stdio::Null => continue,
            // A host without such a stream (closed) has nothing to inherit.
            Stdio::Inherit => match launch::duplicate(i as i32, field) {
                Ok(fd) => fd,
                Err(e) if e.errno() == libc::EBADF => continue,
                Err(e) => return Err(e),
            },
            Stdio::Fd(fd) => launch::duplicate(*fd, field)?,
            Stdio::File(path) => launch::open_stream_file(path, i == 0, field)?,
            Stdio::Log => match log {
                Some(log) if i != 0 => log.try_clone().map_err(|e| Error::io("dup", &e).with_field(field))?,
                _ => {
                    return Err(Error::spec(
                        field,
                        "only stdout and stderr of a container's own main process can be logged",
                    ));
                }
            },
            Stdio::Stdout => {
                if i != 2 {
                    return Err(Error::spec(field, "only stderr can be joined with stdout"));
                }
                out.facts[i] =
                    if out.facts[1] == StreamFact::Null { StreamFact::Null } else { StreamFact::SameAsStdout };
                continue;
            }
            Stdio::Pipe => {
                let (read, write) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC)
                    .map_err(|e| Error::os("pipe2", e as i32).with_field(field))?;
                match i {
                    0 => {
                        out.host.stdin = Some(write);
                        read
                    }
                    1 => {
                        out.host.stdout = Some(read);
                        write
                    }
                    _ => {
                        out.host.stderr = Some(read);
                        write
                    }
                }
            }
        };
        out.given[i] = Some(fd);
        out.facts[i] = StreamFact::Given;
    }
    Ok(out)
}

/// Those of a container's main process, if it has one.
pub(super) fn streams_of_main(spec: &Spec, log: Option<&OwnedFd>) -> Result<Opened> {
    if spec.argv.is_empty() {
        return Ok(Opened { given: [None, None, None], facts: [StreamFact::Null; 3], host: Streams::default() });
    }
    let asked = [spec.stdin.as_ref(), spec.stdout.as_ref(), spec.stderr.as_ref()];
    let out = if spec.terminal.is_some() { Stdio::Null } else { Stdio::Log };
    open_streams(asked, [Stdio::Null, out.clone(), out], log)
}
