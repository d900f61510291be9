//! Device nodes, rules about devices, network devices.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use super::mounts::{DEV_ENTRIES, inside};
use super::syntax::{absolute, normal};
use crate::error::Result;
use crate::spec::Spec;
use crate::spec::at::At;

/// Far more than anybody needs; each is a few instructions at every open of a device.
const MOST_DEVICE_RULES: usize = 256;

/// `8:0`
pub(super) fn is_number_pair(text: &str) -> bool {
    let number = |part: &str| part.bytes().all(|b| b.is_ascii_digit()) && part.parse::<u32>().is_ok();
    text.split_once(':').is_some_and(|(major, minor)| number(major) && number(minor))
}

impl Spec {
    /// `devices`: what is there already, and what would be covered.
    pub(super) fn validate_nodes(&self) -> Result<()> {
        if self.devices.is_empty() {
            return Ok(());
        }
        let list = At::Field("devices");
        let mounted: Vec<_> = self.mounts.iter().map(|m| normal(m.target.as_os_str().as_bytes())).collect();
        let is_below = |path: &[u8], above: &[u8]| path.strip_prefix(above).is_some_and(|rest| rest.starts_with(b"/"));
        let mut earlier: Vec<Vec<u8>> = Vec::new();
        for (i, device) in self.devices.iter().enumerate() {
            let at = list.index(i);
            device.check_parsed(&at)?;
            absolute(&at.key("path"), &device.path)?;
            let target_at = at.key("target");
            let target = inside(&target_at, &device.target)?;
            let shown = &device.target;
            let Some(name) = target.strip_prefix(b"/dev/") else {
                return Err(target_at
                    .error(format!("{shown:?} is not below /dev"))
                    .with_hint("path:target puts a node at another path inside"));
            };
            let first = name.split(|&b| b == b'/').next().unwrap_or_default();
            if DEV_ENTRIES.contains(&first) {
                let entry = OsStr::from_bytes(first);
                return Err(target_at.error(format!("{shown:?}: the container has a {entry:?} of its own there")));
            }
            for (other, path) in earlier.iter().enumerate() {
                if target == *path {
                    return Err(target_at.error(format!("{shown:?} is the target of devices[{other}] already")));
                }
                if is_below(&target, path) || is_below(path, &target) {
                    return Err(
                        target_at.error(format!("{shown:?} and that of devices[{other}] are one below the other"))
                    );
                }
            }
            if let Some(other) = mounted.iter().position(|path| target == *path || is_below(&target, path)) {
                return Err(target_at.error(format!("{shown:?} would be covered by mounts[{other}]")));
            }
            if self.files.keys().any(|path| normal(path.as_os_str().as_bytes()) == target) {
                return Err(target_at.error(format!("{shown:?} is one of files")));
            }
            earlier.push(target);
        }
        Ok(())
    }

    pub(super) fn validate_device_rules(&self) -> Result<()> {
        let list = At::Field("device_rules");
        let count = self.device_rules.len();
        if count > MOST_DEVICE_RULES {
            return Err(list.error(format!("{count} rules are more than {MOST_DEVICE_RULES}")));
        }
        self.device_rules.iter().enumerate().try_for_each(|(i, rule)| rule.check(&list.index(i)))
    }
}
