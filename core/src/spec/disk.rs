//! How much a container may write, in all and by its users.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use super::at::At;
use super::codec::{Codec, Count, FilePath, Size};
use super::json::{self, Json, json, wrong_type};
use super::shape::Key;
use super::user::MAX_ID;
use super::{Idmap, NamespaceKind, NamespaceSource, RootfsKind};
use crate::error::{Error, Result};
use crate::sys::rights::{CAP_SYS_ADMIN, CAP_SYS_RESOURCE};

/// The size of a container's writable layer, and what keeps it.
///
/// In JSON a size, or an object with `size`, `backend`, `filesystem` and `path`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Disk {
    /// Bytes.
    pub size: u64,
    /// What enforces it. Default: [`Auto`](DiskBackend::Auto).
    pub backend: DiskBackend,
    /// Of an image. Default: ext4.
    pub filesystem: Option<Filesystem>,
    /// The directory in which an image is made. Default: /var/tmp.
    pub path: Option<PathBuf>,
}

impl Disk {
    /// `filesystem` when it is `None`.
    pub const FILESYSTEM: Filesystem = Filesystem::Ext4;
    /// `path` when it is `None`.
    pub const PATH: &str = "/var/tmp";

    /// Whether it is a size and nothing else.
    pub(crate) fn is_size(&self) -> bool {
        *self == Self::from(self.size)
    }
}

impl From<u64> for Disk {
    fn from(size: u64) -> Self {
        Self { size, backend: DiskBackend::Auto, filesystem: None, path: None }
    }
}

/// What enforces the size of a writable layer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DiskBackend {
    /// `tmpfs` where the writable layer is private; where it is a directory of the host, what its file system has.
    #[default]
    Auto,
    /// The size of the private layer, which is memory.
    Tmpfs,
    /// A project quota of ext4 or xfs, on the host's directory.
    Project,
    /// A quota group of btrfs, on the host's subvolume.
    Btrfs,
    /// A file system of its own in an image without a name, which is gone with the container.
    Image,
}

impl DiskBackend {
    pub(crate) const ALL: [Self; 5] = [Self::Auto, Self::Tmpfs, Self::Project, Self::Btrfs, Self::Image];

    /// As in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Tmpfs => "tmpfs",
            Self::Project => "project",
            Self::Btrfs => "btrfs",
            Self::Image => "image",
        }
    }

    pub(crate) fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|backend| backend.name() == name)
    }
}

/// The file system of an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Filesystem {
    Ext4,
    Xfs,
    Btrfs,
}

impl Filesystem {
    pub(crate) const ALL: [Self; 3] = [Self::Ext4, Self::Xfs, Self::Btrfs];

    /// As in JSON and in mount(2).
    pub fn name(self) -> &'static str {
        match self {
            Self::Ext4 => "ext4",
            Self::Xfs => "xfs",
            Self::Btrfs => "btrfs",
        }
    }
}

/// One of a few names.
fn named<T: Copy>(json: &Json, at: &At, all: &[T], name: fn(T) -> &'static str) -> Result<T> {
    let names: Vec<_> = all.iter().map(|&value| name(value)).collect();
    let found = json.as_str().and_then(|text| all.iter().copied().find(|&value| name(value) == text));
    found.ok_or_else(|| wrong_type(at, &format!("one of {}", names.join(", ")), json))
}

impl Codec for Disk {
    type Value = Self;
    const UNIT: Option<&'static str> = Some("bytes");

    fn read(json: &Json, at: &At) -> Result<Self> {
        if !json.is_object() {
            return Size::read(json, at).map(Self::from);
        }
        let members = json::members(json, at, "", &["size", "backend", "filesystem", "path"])?;
        let member = |key| json::member(members, key);
        let size = member("size").ok_or_else(|| at.key("size").error("is missing: how many bytes may be written"))?;
        let mut disk = Self::from(Size::read(size, &at.key("size"))?);
        if let Some(json) = member("backend") {
            disk.backend = named(json, &at.key("backend"), &DiskBackend::ALL, DiskBackend::name)?;
        }
        if let Some(json) = member("filesystem") {
            disk.filesystem = Some(named(json, &at.key("filesystem"), &Filesystem::ALL, Filesystem::name)?);
        }
        if let Some(json) = member("path") {
            disk.path = Some(FilePath::read(json, &at.key("path"))?);
        }
        Ok(disk)
    }

    fn write(value: &Self) -> Json {
        if value.is_size() {
            return value.size.into();
        }
        let mut json = json!({"size": value.size});
        if value.backend != DiskBackend::Auto {
            json["backend"] = value.backend.name().into();
        }
        if let Some(filesystem) = value.filesystem {
            json["filesystem"] = filesystem.name().into();
        }
        if let Some(path) = &value.path {
            json["path"] = FilePath::write(path);
        }
        json
    }

    fn schema() -> Json {
        json!({"anyOf": [
            {"$ref": "#/$defs/size"},
            {"type": "object", "additionalProperties": false, "required": ["size"], "properties": {
                "size": {"$ref": "#/$defs/size"},
                "backend": {"enum": DiskBackend::ALL.map(DiskBackend::name), "default": "auto"},
                "filesystem": {"enum": Filesystem::ALL.map(Filesystem::name), "default": "ext4"},
                "path": {"$ref": "#/$defs/path"},
            }},
        ]})
    }
}

/// Whose files a quota counts: an id inside the container.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum QuotaId {
    /// `uid:N`
    User(u32),
    /// `gid:N`
    Group(u32),
}

impl std::fmt::Display for QuotaId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::User(id) => write!(f, "uid:{id}"),
            Self::Group(id) => write!(f, "gid:{id}"),
        }
    }
}

impl Key for QuotaId {
    fn read(text: &OsStr, at: &At) -> Result<Self> {
        let text = text.to_string_lossy();
        let number = |digits: &str| {
            let plain = digits.bytes().all(|b| b.is_ascii_digit()) && (digits.len() == 1 || !digits.starts_with('0'));
            digits.parse().ok().filter(|&id: &u32| plain && id <= MAX_ID)
        };
        let id = match text.split_once(':') {
            Some(("uid", id)) => number(id).map(Self::User),
            Some(("gid", id)) => number(id).map(Self::Group),
            _ => None,
        };
        id.ok_or_else(|| at.key(&text).error("is neither uid:N nor gid:N, with an id inside the container"))
    }

    fn write(&self) -> OsString {
        self.to_string().into()
    }
}

/// What one user or group of a container may have on its writable layer. `None`: not limited.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct IdQuota {
    /// Bytes.
    pub disk: Option<u64>,
    /// Files, directories and everything else that has an inode.
    pub inodes: Option<u64>,
}

impl From<u64> for IdQuota {
    /// Bytes only.
    fn from(bytes: u64) -> Self {
        Self { disk: Some(bytes), inodes: None }
    }
}

impl Codec for IdQuota {
    type Value = Self;
    const UNIT: Option<&'static str> = Some("bytes");

    fn read(json: &Json, at: &At) -> Result<Self> {
        if !json.is_object() {
            return Size::read(json, at).map(Self::from);
        }
        let members = json::members(json, at, "", &["disk", "inodes"])?;
        let member = |key| json::member(members, key);
        Ok(Self {
            disk: member("disk").map(|json| Size::read(json, &at.key("disk"))).transpose()?,
            inodes: member("inodes").map(|json| Count::read(json, &at.key("inodes"))).transpose()?,
        })
    }

    fn write(value: &Self) -> Json {
        match (value.disk, value.inodes) {
            (Some(bytes), None) => bytes.into(),
            (None, None) => json!({}),
            (None, Some(inodes)) => json!({"inodes": inodes}),
            (Some(bytes), Some(inodes)) => json!({"disk": bytes, "inodes": inodes}),
        }
    }

    fn schema() -> Json {
        let size = json!({"$ref": "#/$defs/size"});
        json!({"anyOf": [
            size,
            {"type": "object", "additionalProperties": false,
                "properties": {"disk": size, "inodes": {"type": "integer", "minimum": 0}}},
        ]})
    }
}

/// The smallest size: less than a block of a file system holds nothing, and to tmpfs 0 means unbounded.
const MIN_DISK: u64 = 4096;
const MAX_DISK: u64 = i64::MAX as u64;
const MAX_INODES: u64 = i64::MAX as u64;

fn bounded(at: &At, value: u64, least: u64, most: u64) -> Result<()> {
    if (least..=most).contains(&value) {
        return Ok(());
    }
    Err(at.error(format!("{value} is out of range: {least} to {most}")).with_hint("leave it out for no limit"))
}

impl super::Spec {
    pub(super) fn validate_disk(&self) -> Result<()> {
        let field = At::Field("disk");
        if let Some(disk) = &self.disk {
            bounded(&field, disk.size, MIN_DISK, MAX_DISK)?;
            for (key, set) in [("filesystem", disk.filesystem.is_some()), ("path", disk.path.is_some())] {
                if set && disk.backend != DiskBackend::Image {
                    return Err(field.key(key).error("is for an image").with_hint("set disk.backend to \"image\""));
                }
            }
            if let Some(path) = &disk.path {
                super::validate::absolute(&field.key("path"), path)?;
            }
        }
        if let Some(inodes) = self.inodes {
            bounded(&At::Field("inodes"), inodes, 1, MAX_INODES)?;
        }
        let quota = At::Field("quota");
        for (id, limits) in &self.quota {
            let key = id.to_string();
            let at = quota.key(&key);
            if *limits == IdQuota::default() {
                return Err(at.error("limits nothing; give disk or inodes"));
            }
            if let Some(bytes) = limits.disk {
                bounded(&at.key("disk"), bytes, 1024, MAX_DISK)?;
            }
            if let Some(inodes) = limits.inodes {
                bounded(&at.key("inodes"), inodes, 1, MAX_INODES)?;
            }
        }
        Ok(())
    }
}

impl super::Spec {
    /// Whether everything that the payload can change below `/` is private to it, and gone with it.
    pub(crate) fn has_private_layer(&self) -> bool {
        self.rootfs.readonly
            || match &self.rootfs.kind {
                RootfsKind::Host | RootfsKind::HostOwned => true,
                RootfsKind::Directory(_) => false,
                RootfsKind::Layers { upper, .. } => upper.is_none(),
            }
    }

    /// Whether anything of the writable layer is limited.
    pub(crate) fn limits_disk(&self) -> bool {
        self.disk.is_some() || self.inodes.is_some() || !self.quota.is_empty()
    }

    /// What limits the writable layer as far as the spec alone tells; `Auto` is whatever the host's file system has.
    pub(crate) fn disk_backend(&self) -> DiskBackend {
        match self.disk.as_ref().map_or(DiskBackend::Auto, |disk| disk.backend) {
            DiskBackend::Auto if self.has_private_layer() => DiskBackend::Tmpfs,
            backend => backend,
        }
    }

    /// Whether root inside is root of a user namespace only.
    pub(crate) fn has_user_namespace(&self) -> bool {
        let source = self.namespaces.get(&NamespaceKind::User);
        self.idmap != Idmap::Host && source != Some(&NamespaceSource::Host)
    }

    /// The capabilities that some limit does not hold for.
    pub(crate) const LIMIT_PASSING: u64 = 1 << CAP_SYS_ADMIN | 1 << CAP_SYS_RESOURCE;

    /// The limit that a process with one of these capabilities could pass, and how it could.
    pub(crate) fn passes_limits(&self, capabilities: u64) -> Option<(&'static str, String)> {
        if let Some(why) = self.passes_disk_limits(capabilities) {
            return Some((self.disk_field(), why));
        }
        if self.shm_size.is_some() && capabilities & 1 << CAP_SYS_ADMIN != 0 {
            return Some(("shm_size", "CAP_SYS_ADMIN can mount /dev/shm again with another size".to_owned()));
        }
        None
    }

    /// The first field that limits the writable layer.
    fn disk_field(&self) -> &'static str {
        if self.disk.is_some() {
            "disk"
        } else if self.inodes.is_some() {
            "inodes"
        } else {
            "quota"
        }
    }

    fn passes_disk_limits(&self, capabilities: u64) -> Option<String> {
        let backend = self.disk_backend();
        let has = |number: u32| capabilities & 1 << number != 0;
        if !self.limits_disk() {
            return None;
        }
        let named = |number: u32| format!("CAP_{}", super::caps::NAMES[number as usize].to_uppercase());
        match backend {
            DiskBackend::Tmpfs if has(CAP_SYS_ADMIN) => {
                Some(format!("{} can mount the layer again with another size", named(CAP_SYS_ADMIN)))
            }
            DiskBackend::Image if has(CAP_SYS_ADMIN) => {
                Some(format!("{} can mount something over the image that has no limit", named(CAP_SYS_ADMIN)))
            }
            _ if self.has_user_namespace() => None,
            DiskBackend::Tmpfs => None,
            _ if has(CAP_SYS_ADMIN) => {
                Some(format!("{} of the host can change the quotas themselves", named(CAP_SYS_ADMIN)))
            }
            _ if has(CAP_SYS_RESOURCE) => {
                Some(format!("quotas do not hold for {} of the host", named(CAP_SYS_RESOURCE)))
            }
            _ => None,
        }
    }

    /// Limits that would not hold for the payload.
    pub(super) fn validate_passed_limits(&self) -> Result<()> {
        match self.passes_limits(self.capabilities.all()) {
            Some((field, why)) => Err(Error::spec(field, why).with_hint("drop it from capabilities")),
            None => Ok(()),
        }
    }

    /// Limits of the writable layer that are each fine, but not with the others, or not with this root file system.
    pub(super) fn validate_disk_contradictions(&self) -> Result<()> {
        if !self.limits_disk() {
            return Ok(());
        }
        let (private, backend) = (self.has_private_layer(), self.disk_backend());
        let at = At::Field("disk");
        let field = self.disk_field();
        let image = self.disk.as_ref().filter(|_| backend == DiskBackend::Image);
        let filesystem = image.map(|disk| disk.filesystem.unwrap_or(Disk::FILESYSTEM));
        if !self.quota.is_empty() && !matches!(filesystem, Some(Filesystem::Ext4 | Filesystem::Xfs)) {
            return Err(Error::spec("quota", "needs a file system of the container's own that counts by owner")
                .with_hint(
                    "set disk to {\"size\": ..., \"backend\": \"image\", \"filesystem\": \"ext4\"}, or \"xfs\"",
                ));
        }
        match backend {
            DiskBackend::Tmpfs | DiskBackend::Image if !private => {
                return Err(at
                    .key("backend")
                    .error(format!("{}: what is written goes to a directory of the host", backend.name()))
                    .with_hint("give rootfs layers without upper, or leave the backend out"));
            }
            DiskBackend::Project | DiskBackend::Btrfs if private => {
                return Err(at
                    .key("backend")
                    .error(format!("{}: what is written goes to no directory of the host", backend.name()))
                    .with_hint("leave the backend out, or give rootfs a directory, or layers with upper"));
            }
            _ => {}
        }
        if self.inodes.is_some() && (backend == DiskBackend::Btrfs || filesystem == Some(Filesystem::Btrfs)) {
            return Err(Error::spec("inodes", "btrfs makes inodes as it needs them and cannot limit them"));
        }
        // Running containers are changed and looked at through the mount that is made there.
        match self
            .mounts
            .iter()
            .position(|mount| super::validate::normal(mount.target.as_os_str().as_bytes()) == b"/dev")
        {
            Some(i) => Err(At::Field("mounts").index(i).error(format!("a mount over /dev excludes {field}"))),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Spec;
    use super::*;

    #[test]
    fn ids_are_read_strictly() {
        let at = At::Field("quota");
        let read = |text: &str| QuotaId::read(text.as_ref(), &at);
        assert_eq!(read("uid:1000").unwrap(), QuotaId::User(1000));
        assert_eq!(read("gid:0").unwrap(), QuotaId::Group(0));
        for bad in ["1000", "uid:", "uid:-1", "uid:007", "uid:4294967295", "user:1", "uid:1:2", "uid: 1"] {
            let error = read(bad).unwrap_err();
            assert_eq!(error.field(), Some(&*format!("quota[{bad:?}]")), "{error}");
        }
    }

    #[test]
    fn a_size_alone_is_a_number() {
        let spec = Spec::from_json(r#"{"disk": "1G", "quota": {"uid:5": "1M", "gid:6": {"inodes": 7}}}"#).unwrap();
        assert_eq!(spec.to_json(), r#"{"disk":1073741824,"quota":{"gid:6":{"inodes":7},"uid:5":1048576}}"#);
        let image = r#"{"disk":{"backend":"image","filesystem":"xfs","path":"/srv","size":1073741824}}"#;
        assert_eq!(Spec::from_json(image).unwrap().to_json(), image);
    }
}
