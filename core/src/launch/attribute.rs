//! Attributes that the host sets for a process of its container.

use std::os::fd::BorrowedFd;

use crate::plan::attribute::Attribute;
use crate::process::pid_of;

const IOPRIO_WHO_PROCESS: i32 = 1;

impl Attribute {
    /// Sets it; 0 or the errno. The process waits for that, so that its number stays its own unless it is killed.
    pub fn set(&self, process: BorrowedFd<'_>) -> i32 {
        let pid = pid_of(process);
        if pid <= 0 {
            return libc::ESRCH;
        }
        let result = match self {
            // Whoever starts a container with devices knows of them.
            Self::Network => return libc::ENOSYS,
            // SAFETY: no pointers.
            Self::Nice(nice) => unsafe { libc::syscall(libc::SYS_setpriority, libc::PRIO_PROCESS, pid, *nice) },
            // SAFETY: the structure is as long as its first word says.
            Self::Scheduler(attr) => unsafe { libc::syscall(libc::SYS_sched_setattr, pid, attr.as_ptr(), 0) },
            // SAFETY: no pointers.
            Self::IoPriority(number) => unsafe {
                libc::syscall(libc::SYS_ioprio_set, IOPRIO_WHO_PROCESS, pid, *number)
            },
            Self::Rlimit(resource, limit) => {
                let limit = libc::rlimit64 { rlim_cur: limit.soft, rlim_max: limit.hard };
                let old = std::ptr::null_mut::<libc::rlimit64>();
                // SAFETY: one limit is read, none is written.
                unsafe { libc::syscall(libc::SYS_prlimit64, pid, resource.number(), &raw const limit, old) }
            }
            Self::OomScoreAdj(value) => {
                return match std::fs::write(format!("/proc/{pid}/oom_score_adj"), value.to_string()) {
                    Ok(()) => 0,
                    Err(e) => e.raw_os_error().unwrap_or(libc::EIO),
                };
            }
        };
        if result < 0 { std::io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO) } else { 0 }
    }
}
