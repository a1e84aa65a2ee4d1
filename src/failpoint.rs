//! Named places between two steps that change data or state, where a test kills the process.
//!
//! Without the cargo feature `failpoints`, they compile to nothing. With it, `PGSTRATA_FAILPOINT=name` (or `name@3`
//! for the third time that the place is reached) sends SIGKILL to the process itself: no destructor runs. `name=stop`
//! sends SIGSTOP: the process freezes there, like one whose machine is suspended.

/// Every name, in the order in which a job reaches them. A test compares the list with the source.
pub const NAMES: &[&str] = &[
    "job.installed",
    "job.created",
    "job.retuned",
    "lease.former_ended",
    "lease.taken",
    "prepare.before_commit",
    "prepare.target",
    "prepare.partition",
    "prepare.done",
    "not_null.added",
    "not_null.validated",
    "capture.before_commit",
    "capture.done",
    "resync.forgotten",
    "copy.frozen",
    "copy.before_commit",
    "copy.chunk",
    "growth.compacted",
    "copy.emptied",
    "copy.chunks_done",
    "fill.before_commit",
    "fill.single",
    "fill.chunk",
    "fill.chunks_done",
    "fill.done",
    "extend.before_commit",
    "extend.done",
    "scrub.emptied",
    "scrub.leaf",
    "scrub.done",
    "index.leaf",
    "index.constraint",
    "index.leaf_done",
    "index.checks",
    "index.parent",
    "index.attached",
    "index.key_table",
    "index.key_table_filled",
    "index.key_table_done",
    "index.analyzed",
    "index.vacuumed",
    "index.done",
    "retype.index",
    "retype.check",
    "retype.proof",
    "resync.before_commit",
    "resync.done",
    "drain.before_commit",
    "drain.batch",
    "drain.done",
    "verify.range",
    "verify.recorded",
    "verify.done",
    "mirror.on",
    "mirror.off",
    "swap.ready",
    "swap.done",
    "swap.recorded",
    "guard.dropped",
    "settle.key",
    "settle.parent",
    "settle.matview",
    "settle.exchanged",
    "finish.added",
    "finish.validated",
    "finish.not_null",
    "finish.dropped",
    "finish.index",
    "finish.unique",
    "finish.parent",
    "finish.attached",
    "finish.key",
    "finish.tied",
    "finish.before_commit",
    "finish.done",
    "finalize.before_commit",
    "finalize.done",
    "abort.before_commit",
    "abort.done",
];

/// A place where a test may kill the process.
#[macro_export]
macro_rules! failpoint {
    ($name:literal) => {
        fail::fail_point!($name)
    };
}

/// Arms the failpoint that the environment names.
///
/// # Errors
/// The name is not in [`NAMES`].
#[cfg(feature = "failpoints")]
pub fn arm() -> crate::error::Result<()> {
    use std::sync::atomic::{AtomicU32, Ordering};

    use rustix::process::Signal;

    let Ok(spec) = std::env::var("PGSTRATA_FAILPOINT") else { return Ok(()) };
    let (spec, signal) = match spec.strip_suffix("=stop") {
        Some(spec) => (spec, Signal::STOP),
        None => (spec.as_str(), Signal::KILL),
    };
    let (name, nth) = spec.split_once('@').unwrap_or((spec, "1"));
    let nth: u32 = nth.parse().unwrap_or(1);
    if !NAMES.contains(&name) {
        return Err(crate::error::Error::usage(format!("there is no failpoint {name}")));
    }
    let reached = AtomicU32::new(0);
    fail::cfg_callback(name, move || {
        if reached.fetch_add(1, Ordering::SeqCst) + 1 == nth {
            let _ = rustix::process::kill_process(rustix::process::getpid(), signal);
        }
    })
    .map_err(crate::error::Error::failed)
}

/// Nothing to arm in a build without failpoints.
///
/// # Errors
/// None.
#[cfg(not(feature = "failpoints"))]
pub fn arm() -> crate::error::Result<()> {
    Ok(())
}
