//! What limits name: block devices, sizes of huge pages, RDMA devices.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use crate::error::{Error, ErrorKind, Result};

/// `MAJOR:MINOR` of the whole disk that a key of `io_max` means: the kernel has no limits for a partition.
pub(super) fn number(name: &str) -> Result<String> {
    let field = || format!("io_max[{name:?}]");
    let device = match name.starts_with('/') {
        false => name.to_owned(),
        true => {
            let meta = fs::metadata(name).map_err(|e| Error::io("stat", &e).with_field(field()).with_path(name))?;
            let device = if meta.file_type().is_block_device() { meta.rdev() } else { meta.dev() };
            format!("{}:{}", libc::major(device), libc::minor(device))
        }
    };
    let link = format!("/sys/dev/block/{device}");
    let Ok(real) = fs::canonicalize(&link) else {
        let what = if name == device { "there is no such block device" } else { "it is not on a block device" };
        return Err(Error::new(ErrorKind::NotFound, format!("{what}: {device}")).with_field(field()).with_path(link));
    };
    let whole = if real.join("partition").exists() { real.parent().unwrap_or(&real) } else { &real };
    let text = fs::read_to_string(whole.join("dev")).map_err(|e| Error::io("read", &e).with_field(field()))?;
    Ok(text.trim().to_owned())
}

/// The kernel's name of a block device, by its number.
pub(super) fn name(number: &str) -> Option<String> {
    let link = fs::read_link(format!("/sys/dev/block/{number}")).ok()?;
    // sysfs has `!` for the slash in names of a few drivers.
    Some(link.file_name()?.to_str()?.replace('!', "/"))
}

/// How devices of this machine are shared by weight.
pub(super) struct WeightWays {
    pub bfq: bool,
    pub iocost: bool,
}

impl WeightWays {
    fn check(&self, weight: u64) -> Result<()> {
        if self.bfq && weight > 1000 {
            return Err(Error::new(ErrorKind::Unsupported, format!("bfq takes weights up to 1000, not {weight}"))
                .with_field("io_weight")
                .with_hint("devices of this machine are scheduled by bfq"));
        }
        Ok(())
    }
}

pub(super) fn weight_ways(weight: u64) -> Result<WeightWays> {
    let mut bfq = false;
    for block in fs::read_dir("/sys/block").into_iter().flatten().flatten() {
        let scheduler = fs::read_to_string(block.path().join("queue/scheduler")).unwrap_or_default();
        bfq |= scheduler.contains("[bfq]");
    }
    let iocost = super::layout::current()?.v2().is_some_and(|h| {
        let qos = fs::read_to_string(h.mount_point.join("io.cost.qos")).unwrap_or_default();
        qos.contains("enable=1")
    });
    if bfq || iocost {
        let ways = WeightWays { bfq, iocost };
        return ways.check(weight).map(|()| ways);
    }
    Err(Error::new(ErrorKind::Unsupported, "no block device of this machine is shared by weight")
        .with_field("io_weight")
        .with_hint(
            "as root: echo bfq > /sys/block/DEVICE/queue/scheduler; or enable=1 in io.cost.qos of the root group",
        ))
}

/// A size of huge pages.
pub(super) struct HugePage {
    pub bytes: u64,
    /// In the names of control files: `2MB`.
    pub name: String,
}

impl HugePage {
    fn new(bytes: u64) -> Self {
        // As the kernel names them (hugetlb_cgroup.c: whole GiB, MiB or KiB).
        let name = match bytes {
            _ if bytes >= 1 << 30 => format!("{}GB", bytes >> 30),
            _ if bytes >= 1 << 20 => format!("{}MB", bytes >> 20),
            _ => format!("{}KB", bytes >> 10),
        };
        Self { bytes, name }
    }

    /// As a key of `hugepages`: `2M`.
    pub fn size(&self) -> String {
        self.name.trim_end_matches('B').to_owned()
    }
}

/// The sizes that this machine has.
pub(super) fn huge_pages() -> Vec<HugePage> {
    huge_page_sizes().into_iter().map(|kib| HugePage::new(kib << 10)).collect()
}

/// In KiB.
fn huge_page_sizes() -> Vec<u64> {
    let sizes = fs::read_dir("/sys/kernel/mm/hugepages").into_iter().flatten().flatten();
    let mut sizes: Vec<u64> = sizes
        .filter_map(|e| e.file_name().to_str()?.strip_prefix("hugepages-")?.strip_suffix("kB")?.parse().ok())
        .collect();
    sizes.sort_unstable();
    sizes
}

pub(super) fn huge_page(size: &str) -> Result<HugePage> {
    let field = || format!("hugepages[{size:?}]");
    let bytes = crate::spec::parse_size(size).map_err(|why| Error::spec(field(), why))?;
    let directory = format!("/sys/kernel/mm/hugepages/hugepages-{}kB", bytes >> 10);
    if !Path::new(&directory).exists() {
        let known: Vec<String> = huge_page_sizes().iter().map(|kib| format!("{kib}K")).collect();
        return Err(Error::new(ErrorKind::Unsupported, "this machine has no pages of that size")
            .with_field(field())
            .with_path(directory)
            .with_hint(match known.is_empty() {
                true => "the kernel has no huge pages (CONFIG_HUGETLBFS)".to_owned(),
                false => format!("it has {}", known.join(", ")),
            }));
    }
    Ok(HugePage::new(bytes))
}

pub(super) fn rdma(device: &str) -> Result<()> {
    if Path::new("/sys/class/infiniband").join(device).exists() {
        return Ok(());
    }
    Err(Error::new(ErrorKind::NotFound, "this machine has no such RDMA device")
        .with_field(format!("rdma[{device:?}]"))
        .with_path(format!("/sys/class/infiniband/{device}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_by_path_number_and_file_system() {
        let Some(disk) = fs::read_dir("/sys/block").unwrap().flatten().find(|d| d.path().join("dev").exists()) else {
            println!("SKIP: no block device");
            return;
        };
        let text = fs::read_to_string(disk.path().join("dev")).unwrap();
        assert_eq!(number(text.trim()).unwrap(), text.trim());
        for (bad, kind) in
            [("999:9", ErrorKind::NotFound), ("/proc", ErrorKind::NotFound), ("/missing", ErrorKind::NotFound)]
        {
            let e = number(bad).unwrap_err();
            assert_eq!(e.kind(), kind, "{e}");
            assert_eq!(e.field(), Some(&*format!("io_max[{bad:?}]")));
        }
    }

    #[test]
    fn a_device_that_went_stands_in_nobodys_way() {
        use crate::cgroup::Limits;
        use crate::spec::IoMax;
        let rate = IoMax { rbps: Some(1 << 20), ..IoMax::default() };
        let old = Limits { io_max: [("999:9".to_owned(), rate)].into(), ..Limits::default() };
        assert_eq!(old.settings().unwrap_err().kind(), ErrorKind::NotFound);
        assert_eq!(old.settings_after(&old), Ok(Vec::new()));
        let new = Limits { pids: Some(5), ..old.clone() };
        assert_eq!(new.settings_after(&old).unwrap().len(), 1);
    }

    #[test]
    fn sizes_of_pages() {
        if Path::new("/sys/kernel/mm/hugepages/hugepages-2048kB").exists() {
            assert_eq!(huge_page("2M").unwrap().name, "2MB");
        }
        assert_eq!(huge_page("4K").err().unwrap().field(), Some("hugepages[\"4K\"]"));
    }
}
