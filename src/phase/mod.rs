//! The phases of every kind of job. Start reading here.
//!
//! - [`job`]: what every kind shares: the trait [`JobKind`], the driver with its lease and sessions, lock retries,
//!   the exchange, throttling, workers, chunks.
//! - [`partition`]: prepare, capture, copy, scrub, index, drain, verify, swap, finalize, abort.
//! - [`backfill`]: the trigger, the first pass, the second pass, constraints and indexes.
//! - [`retype`]: the column type change: the shadow column, the trigger, the first pass, the indexes and checks, the
//!   swap of the columns.
//! - [`mod@maintain`]: partitions created ahead of time, retention, and statistics of a table that is in use.
//!
//! A phase can be run again after a crash at any point: it recognizes completed work.

pub mod backfill;
pub mod job;
pub mod maintain;
pub mod partition;
pub mod retype;

pub use backfill::BackfillJob;
pub use job::driver::{Driver, Opening, Pacing};
pub use job::exchange::Swapped;
pub use job::kind::{Action, JobKind, Outcome, Verdict, act, differs};
pub use job::pace;
pub use job::retries::{Retried, Retries};
pub use maintain::{maintain, maintain_adopted};
pub use partition::PartitionJob;
pub use partition::partitions;
pub use retype::RetypeJob;
