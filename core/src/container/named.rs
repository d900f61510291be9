//! Containers by their names.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, Weak};

use once_cell::sync::{Lazy, OnceCell};

use super::chosen::Chosen;
use super::{Container, Handle, Inner, disk, lock, logs, nodes, ports, update};
use crate::cgroup::Group;
use crate::error::{Error, ErrorKind, Result};
use crate::events::Readers;
use crate::launch::{Keeper, Owner};
use crate::process::{self, OomCount, Process, Source, Streams};
use crate::spec::Spec;
use crate::state::names::{self, Life, Record};
use crate::sys::pidfd::pidfd_open;
use crate::syscalls::Filters;

pub(super) static NAMED: Lazy<Mutex<HashMap<String, Weak<Handle>>>> = Lazy::new(Mutex::default);

/// A connection to the keeper of a container that runs; what is known of it then.
fn connect(name: &str, found: Record) -> Result<(Record, Option<OwnedFd>)> {
    if found.life != Life::Running || found.init.is_none() {
        return Ok((found, None));
    }
    match found.connect() {
        Ok(connected) => Ok((found, Some(connected))),
        // It may have ended just now: then its record says so.
        Err(error) => {
            let found = names::lookup(name)?;
            if found.life == Life::Running && found.init.is_some_and(|init| init.runs()) {
                return Err(error);
            }
            Ok((found, None))
        }
    }
}

impl Container {
    /// Finds a named container: one of this process, or a detached one of this user.
    ///
    /// # Errors
    /// NotFound; PermissionDenied for an attached container of another process.
    pub fn by_name(name: &str) -> Result<Self> {
        let known = lock(&NAMED).get(name).and_then(Weak::upgrade);
        if let Some(handle) = known
            && handle.inner.owner.is_this()
            && !handle.inner.closed.load(Ordering::Relaxed)
            && !handle.inner.has_ended()
        {
            return Ok(Self { handle });
        }
        let found = names::lookup(name)?;
        if !found.detached {
            return Err(Error::new(
                ErrorKind::PermissionDenied,
                format!("container {name:?} is attached to another process"),
            )
            .with_field("name")
            .with_errno(libc::EPERM)
            .with_hint("only detached containers can be taken up by other processes"));
        }
        let (found, socket) = connect(name, found)?;
        Self::taken_up(name, &found, socket)
    }

    /// A detached container as its record says it is. `socket`: to its keeper, when it may still run.
    fn taken_up(name: &str, found: &Record, socket: Option<OwnedFd>) -> Result<Self> {
        let data = &found.data;
        let spec = Spec::from_json(&data["spec"].to_string()).unwrap_or_default();
        let spec = Spec { name: Some(name.to_owned()), detach: true, ..spec };
        let (pid, keeper_pid, start_time) = match (&found.init, &found.keeper) {
            (Some(init), Some(keeper)) => (init.pid, keeper.pid, keeper.start_time),
            _ => (0, 0, 0),
        };
        // Looked at again behind the pidfd: until then the number may have come to mean another process.
        let pidfd = pidfd_open(pid).ok().filter(|_| socket.is_some() && found.init.is_some_and(|init| init.runs()));
        let running = pidfd.is_some();
        // An ended container has no process: a readable event stands for its pidfd.
        let pidfd = match pidfd {
            Some(pidfd) => pidfd,
            None => {
                let ended = process::event()?;
                process::raise(&ended);
                ended
            }
        };
        let socket = match socket {
            Some(socket) if running => socket,
            _ => process::event()?,
        };
        let privileged = data["privileged"].as_bool().unwrap_or(false);
        let keeper = Arc::new(Keeper::connected(socket, keeper_pid, start_time, privileged));
        if !running {
            keeper.mark_dead();
        }
        let group = if running { Group::reopen(&data["cgroup"]).ok() } else { None };
        let has_main = !spec.argv.is_empty() || data["command"].as_array().is_some_and(|c| !c.is_empty());
        let kept = if !running && has_main && logs::is_wanted(&spec) { Some(found.open_log()?) } else { None };
        let ids = &data["default_ids"];
        let inner = Arc::new(Inner {
            owner: Owner::this(),
            id: data["id"].as_str().unwrap_or_default().to_owned(),
            spec_now: Mutex::new(spec.clone()),
            updating: Mutex::default(),
            granted: Mutex::new(update::Granted::recorded(data)),
            before: Mutex::default(),
            nodes: Mutex::new(nodes::Nodes::recorded(data)),
            holder: false,
            spec,
            keeper,
            key: 1,
            pid: if running { pid } else { 0 },
            pidfd: pidfd.try_clone().map_err(|e| Error::io("dup", &e))?,
            channel: None,
            end: Mutex::default(),
            closed: AtomicBool::new(false),
            killed: AtomicBool::new(false),
            cancel: process::event()?,
            group,
            subs: Mutex::default(),
            ports: ports::recorded(&data["ports"]),
            layer: disk::Layer::new(disk::recorded(&data["disk"]), disk::Home::recorded(&data["disk"]), None),
            net: Mutex::default(),
            devices: Mutex::default(),
            kept: Mutex::default(),
            readers: Readers::default(),
            syscalls: Filters::default(),
            claims: Mutex::default(),
            name: Mutex::default(),
            volumes: Mutex::default(),
            log: logs::Log::new(kept),
            pod: None,
            info: OnceCell::with_value(data.clone()),
            chosen: Chosen::default(),
            namespaces: data["namespaces_flags"].as_u64().unwrap_or(0),
            may_setgroups: data["may_setgroups"].as_bool().unwrap_or(false),
            default_ids: (ids[0].as_u64().unwrap_or(0) as u32, ids[1].as_u64().unwrap_or(0) as u32),
        });
        let main = if has_main {
            // Its pid is not recorded; the container ends with it, so pid 1's pidfd says the same.
            Some(Process::new(
                inner.clone(),
                inner.pid,
                pidfd,
                Source::Container,
                Streams::default(),
                OomCount::default(),
            )?)
        } else {
            None
        };
        Ok(Self { handle: Arc::new(Handle { inner, main }) })
    }
}
