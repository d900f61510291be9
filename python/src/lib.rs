//! The native half of the Python package: the core's objects, one to one. What makes them feel like `subprocess` is Python.
//!
//! No call holds the interpreter's lock while the core works or waits (`call::detached`, `wait::readable`).

mod argument;
mod call;
mod compose;
mod container;
mod events;
mod files;
mod group;
mod log;
mod logs;
mod machine;
mod namespace;
mod network;
mod pod;
mod process;
mod ready;
mod request;
mod syscalls;
mod wait;

/// The module `ringfence._ringfence`.
#[pyo3::pymodule]
mod _ringfence {
    use pyo3::prelude::*;

    #[pymodule_export]
    use crate::argument::seconds;
    #[pymodule_export]
    use crate::compose::Group;
    #[pymodule_export]
    use crate::container::{Container, Lent};
    #[pymodule_export]
    use crate::events::Events;
    #[pymodule_export]
    use crate::files::{remove_tree, remove_volume, volumes};
    #[pymodule_export]
    use crate::group::ControlGroup;
    #[pymodule_export]
    use crate::log::set_log_level;
    #[pymodule_export]
    use crate::logs::LogReader;
    #[pymodule_export]
    use crate::machine::{check, doctor, end_keepers, gc, ls, plan, rm, schema};
    #[pymodule_export]
    use crate::namespace::{Namespace, namespaces};
    #[pymodule_export]
    use crate::network::Network;
    #[pymodule_export]
    use crate::pod::Pod;
    #[pymodule_export]
    use crate::process::{ExitStatus, Process};
    #[pymodule_export]
    use crate::ready::Readiness;
    #[pymodule_export]
    use crate::syscalls::{SyscallListener, SyscallRequest};
    #[pymodule_export]
    #[pymodule_export]
    #[allow(non_upper_case_globals, reason = "the name that Python packages give their version")]
    const __version__: &str = ringfence::VERSION;

    #[pymodule_init]
    fn init(_module: &Bound<'_, PyModule>) -> PyResult<()> {
        crate::log::install();
        Ok(())
    }
}
