//! The core's log records for Python's `logging`.
//!
//! A record may be written while the core holds a lock of its own. Taking the interpreter's lock there could deadlock
//! with a thread that has it and wants the core's. So records wait in a bounded queue until the call returns to Python.

use std::collections::VecDeque;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use log::{Level, LevelFilter, Log, Metadata, Record};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;

/// So many records of one call are kept; later ones are dropped, as a log must not eat the host's memory.
const LIMIT: usize = 1024;

static QUEUE: Mutex<VecDeque<(u32, String)>> = Mutex::new(VecDeque::new());
static WAITING: AtomicBool = AtomicBool::new(false);

struct Queue;

impl Log for Queue {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= log::max_level()
    }
    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        if let Ok(mut queue) = QUEUE.lock()
            && queue.len() < LIMIT
        {
            queue.push_back((number(record.level()), record.args().to_string()));
            WAITING.store(true, Ordering::Release);
        }
    }
    fn flush(&self) {}
}

/// The numbers of Python's `logging`; 5 is below DEBUG.
fn number(level: Level) -> u32 {
    match level {
        Level::Error => 40,
        Level::Warn => 30,
        Level::Info => 20,
        Level::Debug => 10,
        Level::Trace => 5,
    }
}

/// Makes the queue the logger of this copy of the core; a second interpreter finds it in place.
pub fn install() {
    if log::set_logger(&Queue).is_ok() {
        log::set_max_level(LevelFilter::Warn);
        // The hook of this module's own copy of Rust's runtime: nothing is ever written to the host's standard error.
        std::panic::set_hook(Box::new(|panic| log::error!("{panic}")));
    }
}

/// Gives what waits to `logging.getLogger("ringfence")`.
pub fn deliver(py: Python<'_>) {
    if !WAITING.swap(false, Ordering::AcqRel) {
        return;
    }
    static LOGGER: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let records = QUEUE.lock().map(|mut queue| std::mem::take(&mut *queue)).unwrap_or_default();
    let Ok(get_logger) = LOGGER.import(py, "logging", "getLogger") else { return };
    let Ok(logger) = get_logger.call1(("ringfence",)) else { return };
    for (level, message) in records {
        // A handler that raises must not change the outcome of the call that was logged.
        if let Err(error) = logger.call_method1("log", (level, "%s", message)) {
            error.write_unraisable(py, Some(&logger));
        }
    }
}

/// Nothing below this level of Python's `logging` is recorded.
#[pyfunction]
pub fn set_log_level(level: u32) {
    log::set_max_level(match level {
        0..=9 => LevelFilter::Trace,
        10..=19 => LevelFilter::Debug,
        20..=29 => LevelFilter::Info,
        30..=39 => LevelFilter::Warn,
        40..=50 => LevelFilter::Error,
        _ => LevelFilter::Off,
    });
}
