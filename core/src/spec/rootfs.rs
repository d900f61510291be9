//! Where `/` comes from.

use std::path::PathBuf;

use super::at::At;
use super::codec::{Bool, Codec, FilePath};
use super::idmap::MountIdmap;
use super::json::{self, Json, json, wrong_type};
use super::shape::{List, Shape};
use crate::error::Result;

/// Where `/` comes from.
///
/// As text, in JSON and in `From<&str>`: `host`, `host:owned`, or an absolute path.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Rootfs {
    /// The tree.
    pub kind: RootfsKind,
    /// Whether nothing below `/` can be written but what is mounted there. Default: false.
    pub readonly: bool,
    /// Of a directory and of layers: what the ids of their file systems are inside, for all layers the same; of a directory with what is
    /// mounted below it. Default: as for [`mounts`](super::Mount::idmap). Fixed at the start.
    ///
    /// # Errors
    /// Those of [`Mount::idmap`](super::Mount::idmap), with field `rootfs.idmap`, and for ordinary callers `rootfs.idmap`.
    pub idmap: Option<MountIdmap>,
}

/// The kinds of root file systems.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub enum RootfsKind {
    /// The host's own tree, read-only below, a private overlay on top; what only root of the host can read stays unreadable.
    /// Mounts of the host that cannot be a layer of an overlay are left out: closed to everybody but root (often /boot/efi),
    /// FAT, automount points, an overlay on an overlay; `left_out` of the handle's info lists them. Each mount that is shown
    /// costs some 0.2 ms per start; at most 48 are.
    #[default]
    Host,
    /// The same, owned by the container's root (idmapped): it can read and change (a copy of) everything, host secrets
    /// included.
    HostOwned,
    /// A directory used in place (read-write unless `readonly`).
    Directory(PathBuf),
    /// Lower directories (the topmost first) with an upper directory, or a private one in memory.
    Layers {
        /// At least one, at most 500, which is the kernel's bound; the topmost first, as overlayfs has it.
        lower: Vec<PathBuf>,
        /// Where changes are kept; `None` keeps them in memory until the container ends.
        upper: Option<PathBuf>,
    },
}

impl From<RootfsKind> for Rootfs {
    fn from(kind: RootfsKind) -> Self {
        Self { kind, readonly: false, idmap: None }
    }
}

impl From<PathBuf> for Rootfs {
    fn from(path: PathBuf) -> Self {
        let kind = match path.as_os_str().as_encoded_bytes() {
            b"host" => RootfsKind::Host,
            b"host:owned" => RootfsKind::HostOwned,
            _ => RootfsKind::Directory(path),
        };
        kind.into()
    }
}

impl From<&str> for Rootfs {
    fn from(path: &str) -> Self {
        PathBuf::from(path).into()
    }
}

impl From<&std::path::Path> for Rootfs {
    fn from(path: &std::path::Path) -> Self {
        path.to_owned().into()
    }
}

impl Codec for Rootfs {
    type Value = Self;

    fn read(json: &Json, at: &At) -> Result<Self> {
        let mut rootfs = Self::default();
        Self::merge(&mut rootfs, json, at)?;
        Ok(rootfs)
    }

    /// `{"readonly": true}` alone keeps the tree that is there.
    fn merge(value: &mut Self, json: &Json, at: &At) -> Result<()> {
        let expected = "\"host\", \"host:owned\", a path, or an object with path, or lower and upper";
        if let Some(text) = json::bytes(json, at)? {
            *value = PathBuf::from(text).into();
            return Ok(());
        }
        let members = json::members(json, at, expected, &["path", "lower", "upper", "readonly", "idmap"])?;
        let [path, lower, upper, readonly, idmap] =
            ["path", "lower", "upper", "readonly", "idmap"].map(|key| json::member(members, key));
        match (path, lower, upper) {
            (Some(_), Some(_), _) | (Some(_), _, Some(_)) => {
                return Err(at.error("path excludes lower and upper").with_hint("layers are lower and upper alone"));
            }
            (Some(path), None, None) => {
                let path = json::bytes(path, &at.key("path"))?
                    .ok_or_else(|| wrong_type(&at.key("path"), "\"host\", \"host:owned\" or a path", path))?;
                *value = PathBuf::from(path).into();
            }
            (None, Some(list), upper) => {
                let mut lower = Vec::new();
                List::<FilePath>::merge(&mut lower, list, &at.key("lower"))?;
                let upper = upper.map(|path| FilePath::read(path, &at.key("upper"))).transpose()?;
                *value = RootfsKind::Layers { lower, upper }.into();
            }
            (None, None, Some(_)) => return Err(at.key("upper").error("needs lower")),
            (None, None, None) if readonly.is_none() && idmap.is_none() => return Err(wrong_type(at, expected, json)),
            (None, None, None) => {}
        }
        if let Some(readonly) = readonly {
            value.readonly = Bool::read(readonly, &at.key("readonly"))?;
        }
        if let Some(idmap) = idmap {
            value.idmap = Some(MountIdmap::read(idmap, &at.key("idmap"))?);
        }
        Ok(())
    }

    fn write(value: &Self) -> Json {
        let mut object = match &value.kind {
            RootfsKind::Host => json!({"path": "host"}),
            RootfsKind::HostOwned => json!({"path": "host:owned"}),
            RootfsKind::Directory(path) => json!({"path": FilePath::write(path)}),
            RootfsKind::Layers { lower, upper } => {
                let mut layers = json!({"lower": lower.iter().map(FilePath::write).collect::<Json>()});
                if let Some(upper) = upper {
                    layers["upper"] = FilePath::write(upper);
                }
                layers
            }
        };
        if value.readonly {
            object["readonly"] = true.into();
        }
        if let Some(idmap) = &value.idmap {
            object["idmap"] = MountIdmap::write(idmap);
        }
        match &value.kind {
            RootfsKind::Layers { .. } => object,
            _ if value.readonly || value.idmap.is_some() => object,
            _ => object["path"].take(),
        }
    }

    fn schema() -> Json {
        json!({"anyOf": [
            {"enum": ["host", "host:owned"]},
            {"$ref": "#/$defs/path"},
            {"type": "object", "additionalProperties": false, "properties": {
                "path": {"anyOf": [{"enum": ["host", "host:owned"]}, {"$ref": "#/$defs/path"}]},
                "readonly": {"type": "boolean", "default": false},
                "idmap": MountIdmap::schema(),
            }},
            {"type": "object", "additionalProperties": false, "required": ["lower"], "properties": {
                "lower": {"type": "array", "items": {"$ref": "#/$defs/path"}, "minItems": 1, "description": "topmost first"},
                "upper": {"anyOf": [{"$ref": "#/$defs/path"}, {"type": "null"}]},
                "readonly": {"type": "boolean", "default": false},
                "idmap": MountIdmap::schema(),
            }},
        ]})
    }
}
