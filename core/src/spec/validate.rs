//! What can never work: every check of a spec that needs no machine.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::at::At;
use super::{Idmap, NamespaceKind, NamespaceSource, Net, Spec, net, sysctl};
use crate::error::Result;

/// Fields that do not go together.
mod contradictions;
/// Device nodes, and rules about devices.
mod devices;
/// Maps of ids.
mod ids;
/// Limits.
mod limits;
/// The root file system, mounts and files.
mod mounts;
/// What a program has, of a spec or a command.
mod payload;
/// Single values.
mod syntax;
#[cfg(test)]
mod tests;

use ids::validate_idmap;
use mounts::{inside, validate_files, validate_mounts};
use payload::Payload;
use syntax::{MAX_DNS_NAME, MAX_HOSTNAME, check_name, descriptor, host_name, name_server, no_nul};
pub(super) use syntax::{absolute, name_of_host, normal};

/// What one relay serves.
const MAX_PORTS: usize = 128;
/// Half of KTIME_SEC_MAX, beyond which the kernel refuses a clock (time_namespaces(7)).
const MAX_OFFSET_SECONDS: i64 = i64::MAX / 1_000_000_000 / 2;

impl Spec {
    /// Checks everything that needs no machine: types, ranges, syntax, contradictions. Every start does it first.
    ///
    /// # Errors
    /// The first impossible value: kind [`InvalidSpec`](crate::ErrorKind::InvalidSpec), with the field.
    pub fn validate(&self) -> Result<()> {
        self.validate_running()?;
        self.validate_unreachable_ports()?;
        self.validate_absent_main()
    }

    /// Without what is looked at before a start alone: earlier versions started such containers, and they can be changed.
    pub(crate) fn validate_running(&self) -> Result<()> {
        Payload::of_spec(self).validate()?;
        if let Some(name) = &self.name {
            check_name(&At::Field("name"), name)?;
        }
        for (field, value) in [("hostname", &self.hostname), ("domainname", &self.domainname)] {
            if let Some(value) = value {
                host_name(&At::Field(field), value, MAX_HOSTNAME)?;
            }
        }
        if let Some(label) = &self.mount_label {
            payload::security_label("mount_label", label)?;
        }
        self.validate_name_service()?;
        self.validate_rootfs()?;
        validate_mounts(&self.mounts)?;
        validate_files(&self.files, &self.mounts)?;
        self.validate_nodes()?;
        self.validate_limits()?;
        self.validate_namespaces()?;
        validate_idmap(&self.idmap)?;
        self.validate_lists()?;
        self.validate_sysctls()?;
        self.validate_contradictions()
    }

    fn validate_name_service(&self) -> Result<()> {
        let dns = At::Field("dns");
        for (i, address) in self.dns.iter().enumerate() {
            name_server(&dns.index(i), address)?;
        }
        if self.dns.len() > 3 {
            return Err(dns
                .error(format!("{} name servers; the C library takes 3 and ignores the others", self.dns.len()))
                .with_hint("give at most 3"));
        }
        if let Net::Attached(list) = &self.net {
            net::validate(list, name_of_host)?;
        }
        let hosts = At::Field("hosts");
        for (name, address) in &self.hosts {
            host_name(&hosts.key(name), name, MAX_DNS_NAME)?;
            if address.parse::<IpAddr>().is_err() {
                return Err(hosts.key(name).error(format!("{address:?} is not an IPv4 or IPv6 address")));
            }
        }
        Ok(())
    }

    fn validate_ports(&self) -> Result<()> {
        let list = At::Field("ports");
        if self.ports.len() > MAX_PORTS {
            return Err(list.error(format!("{} of them: at most {MAX_PORTS}", self.ports.len())));
        }
        for (i, port) in self.ports.iter().enumerate() {
            port.check_parsed(&list.index(i))?;
            if let Some(other) = self.ports[..i].iter().position(|earlier| port.collides(earlier)) {
                let (address, protocol) = (port.address(), port.protocol.name());
                return Err(list
                    .index(i)
                    .error(format!("{address} ({protocol}) is the host's side of ports[{other}] already")));
            }
        }
        if !self.ports.is_empty()
            && (self.net == Net::Host || self.namespaces.get(&NamespaceKind::Net) == Some(&NamespaceSource::Host))
        {
            return Err(list
                .error("the container's network is the host's: its ports are the host's already")
                .with_hint("leave out ports, or give it a network of its own"));
        }
        Ok(())
    }

    /// A relay reaches a service by the container's loopback: every connection would be reset.
    fn validate_unreachable_ports(&self) -> Result<()> {
        if !self.ports.is_empty() && self.net == Net::None {
            return Err(At::Field("ports")
                .error("the container has no network (net: none), so nobody reaches a service in it")
                .with_hint("give it net: loopback, which leads nowhere either, or leave out ports"));
        }
        Ok(())
    }

    fn validate_sysctls(&self) -> Result<()> {
        let field = At::Field("sysctls");
        let mut paths = BTreeMap::new();
        for (name, value) in &self.sysctls {
            let at = field.key(name);
            let kind = sysctl::namespace(&at, name)?;
            sysctl::validate_value(&at, value)?;
            if let Some(other) = paths.insert(sysctl::path(name), name) {
                return Err(at.error(format!("is {other:?} in another form")));
            }
            let source = self.namespaces.get(&kind);
            let own = match kind {
                NamespaceKind::Net => self.net != Net::Host,
                NamespaceKind::User => self.idmap != Idmap::Host,
                _ => true,
            };
            if !own || source.is_some_and(|source| *source != NamespaceSource::New) {
                return Err(at
                    .error(format!("it would change a namespace ({}) that is not the container's own", kind.name()))
                    .with_hint("leave it out, or give the container a namespace of its own"));
            }
        }
        Ok(())
    }

    fn validate_namespaces(&self) -> Result<()> {
        for (kind, source) in &self.namespaces {
            let parent = At::Field("namespaces");
            let at = parent.key(kind.name());
            match source {
                NamespaceSource::New | NamespaceSource::Host => {}
                NamespaceSource::Path(path) => absolute(&at, path)?,
                NamespaceSource::Fd(fd) => descriptor(&at, *fd)?,
                NamespaceSource::Pid(pid) if *pid < 1 => return Err(at.error(format!("{pid} is not a process id"))),
                NamespaceSource::Pid(_) => {}
                NamespaceSource::Container(name) => check_name(&at.key("container"), name)?,
            }
        }
        Ok(())
    }

    fn validate_lists(&self) -> Result<()> {
        for (field, paths) in [("masked_paths", &self.masked_paths), ("readonly_paths", &self.readonly_paths)] {
            for (i, path) in paths.iter().flatten().enumerate() {
                inside(&At::Field(field).index(i), path)?;
            }
        }
        if let Some(path) = &self.cgroup_parent {
            inside(&At::Field("cgroup_parent"), path)?;
        }
        let at = At::Field("annotations");
        for (name, value) in &self.annotations {
            if name.is_empty() {
                return Err(at.key(name).error("a name is empty"));
            }
            no_nul(&at.key(name), name.as_ref())?;
            no_nul(&at.key(name), value.as_ref())?;
        }
        Ok(())
    }
}
