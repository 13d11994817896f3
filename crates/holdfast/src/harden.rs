//! Keeps keys out of core dumps.

use api::code;
use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};

use crate::failure::Failure;

/// No core dump of this process, whoever collects them; other users' debuggers are kept out too.
pub(crate) fn no_core_dumps() -> Result<(), Failure> {
    let none = Rlimit { current: Some(0), maximum: Some(0) };
    setrlimit(Resource::Core, none)
        .and_then(|()| set_dumpable_behavior(DumpableBehavior::NotDumpable))
        .map_err(|errno| {
            Failure::failed(code::CORE_DUMPS, format!("core dumps cannot be turned off: {errno}"))
        })
}
