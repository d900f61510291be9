//! What the network devices of a container carried.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::fd::OwnedFd;

use nix::fcntl::{OFlag, openat};
use nix::sys::stat::Mode;

use super::{Inner, lock, process_runs};
use crate::cgroup::NetUsage;
use crate::plan::container::namespace_source;
use crate::spec::{NamespaceKind, NamespaceSource};

pub(super) type Devices = BTreeMap<String, NetUsage>;

/// Of the network namespace of pid 1, which anybody may read.
///
/// A descriptor of `/proc/PID/net/dev` itself would save 7 of 10 us at each look. But it holds the namespace, with the devices in
/// it, until it is closed, in forked children of the host too. This one holds nothing: once pid 1 has ended there is no file in
/// it, whoever gets that number.
#[derive(Debug, Default)]
pub(super) struct NetReader {
    directory: Option<OwnedFd>,
    last: Option<Devices>,
}

impl Inner {
    /// A directory of /proc in which there are files about the network namespace of pid 1. `None`: it is the host's, or pid 1
    /// has ended, or /proc does not show it.
    pub(super) fn net_directory(&self) -> Option<OwnedFd> {
        if namespace_source(&self.spec, NamespaceKind::Net) == NamespaceSource::Host {
            return None;
        }
        let path = format!("/proc/{}/net", self.pid);
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let directory = nix::fcntl::open(path.as_str(), flags, Mode::empty()).ok()?;
        // The number is pid 1's only as long as its pidfd says that it runs.
        process_runs(&self.pidfd).then_some(directory)
    }

    /// As it is now; after the end as it was at the last look.
    pub(super) fn net_usage(&self) -> Option<Devices> {
        let mut reader = lock(&self.net);
        if reader.directory.is_none() {
            reader.directory = self.net_directory();
        }
        if let Some(file) = reader.directory.as_ref().and_then(|directory| open(directory, "dev"))
            && let Some(text) = text(&file)
        {
            reader.last = Some(parse(&text));
        }
        reader.last.clone()
    }
}

/// A file of a directory of /proc.
pub(super) fn open(directory: &OwnedFd, name: &str) -> Option<File> {
    openat(directory, name, OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty()).ok().map(File::from)
}

/// From its beginning.
pub(super) fn text(file: &File) -> Option<String> {
    use std::os::unix::fs::FileExt;
    let mut text = vec![0; 4096];
    let mut length = 0;
    loop {
        let n = file.read_at(&mut text[length..], length as u64).ok()?;
        length += n;
        // Where there is room for a page, less than half of one was the rest: no line is as long.
        if n < 2048 {
            text.truncate(length);
            return String::from_utf8(text).ok();
        }
        text.resize(length + 4096, 0);
    }
}

/// proc_pid_net(5): two lines of headings, then `NAME: ` and sixteen numbers for each device.
fn parse(text: &str) -> Devices {
    let device = |line: &str| {
        let (name, numbers) = line.split_once(':')?;
        let mut columns = [0; 12];
        let mut numbers = numbers.split_ascii_whitespace();
        for column in &mut columns {
            *column = numbers.next()?.parse().ok()?;
        }
        let [rx_bytes, rx_packets, rx_errors, rx_dropped, _, _, _, _, tx_bytes, tx_packets, tx_errors, tx_dropped] =
            columns;
        let usage =
            NetUsage { rx_bytes, rx_packets, rx_errors, rx_dropped, tx_bytes, tx_packets, tx_errors, tx_dropped };
        Some((name.trim().to_owned(), usage))
    };
    text.lines().filter_map(device).collect()
}

#[cfg(any(fuzzing, test))]
pub(super) fn fuzz(text: &str) {
    parse(text);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_and_their_counters() {
        let text = "\
Inter-|   Receive                                                |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed
    lo:    1234      12    0    0    0     0          0         0     1234      12    0    0    0     0       0          0
eth0.10: 18446744073709551615       2    3    4    5     6          7         8      9      10    11    12    13     14      15          16
";
        let devices = parse(text);
        assert_eq!(devices.len(), 2);
        assert_eq!((devices["lo"].rx_bytes, devices["lo"].tx_packets), (1234, 12));
        let wanted = NetUsage {
            rx_bytes: u64::MAX,
            rx_packets: 2,
            rx_errors: 3,
            rx_dropped: 4,
            tx_bytes: 9,
            tx_packets: 10,
            tx_errors: 11,
            tx_dropped: 12,
        };
        assert_eq!(devices["eth0.10"], wanted);
    }
}
