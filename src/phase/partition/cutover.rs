//! Prepares a partition job for an exchange, which requires that the change log is empty and that every snapshot
//! includes the last drain. [`crate::model::cutover`] chooses each step.

use std::time::Instant;

use crate::error::{Error, Kind, Result, Retry};
use crate::event::{LockWarning, StandbyEffect};
use crate::model::blueprint::Direction;
use crate::model::cutover::{Cutover, Next, Observed};
use crate::model::number;
use crate::phase::job::blockers::Asked;
use crate::phase::job::meter::Meter;
use crate::phase::job::old_snapshots::{ENOUGH_ROUNDS, LOCKS, SnapshotWait};
use crate::phase::partition::{PartitionJob, drain, locks, mirror};
use crate::plan::OldSnapshots;
use crate::sql::drain as drain_sql;

/// A log of this many blocks (8 MiB) is drained in one batch.
const LITTLE_BLOCKS: i64 = 1_024;

/// The progress of a command toward its exchange.
#[derive(Debug)]
pub struct ExchangeProgress<'a> {
    context: &'a PartitionJob,
    meter: &'a Meter<'a>,
    ending: Direction,
    cutover: Cutover,
    older: SnapshotWait<'a>,
    proven: bool,
    begun: Instant,
    looked: Instant,
    blockers: Asked,
}

impl<'a> ExchangeProgress<'a> {
    /// Drains until few changes are left.
    ///
    /// # Errors
    /// The server returned an error.
    pub async fn begin(context: &'a PartitionJob, meter: &'a Meter<'a>, ending: Direction) -> Result<Self> {
        let plan = &context.plan;
        let waits = plan.old_snapshots() != OldSnapshots::Accept;
        let cutover = Cutover::new(plan.lock_budget().give_up_after, waits);
        let older = SnapshotWait::new(context)?;
        if waits {
            older.report_unknown_standbys(StandbyEffect::CanFail).await?;
        }
        let mut way = Self {
            context,
            meter,
            ending,
            cutover,
            older,
            proven: false,
            begun: Instant::now(),
            looked: Instant::now(),
            blockers: Asked::default(),
        };
        way.catch_up().await?;
        way.drained().await?;
        Ok(way)
    }

    /// Drains until few changes are left, and then drains those; returns the number of applied changes. If changes are
    /// written as fast as they are drained, many changes are left. The drains with the mirror apply them, a few at a
    /// time.
    async fn catch_up(&self) -> Result<u64> {
        let mut taken = drain::catch_up(self.context, self.meter).await?.changes;
        let b = self.context.blueprint();
        let blocks: i64 = self.context.control.query_one(&drain_sql::pending(&b), &[]).await?.get(0);
        if blocks <= LITTLE_BLOCKS {
            taken += drain::rest(self.context).await?.changes;
        }
        Ok(taken)
    }

    /// Continues until an exchange can be attempted.
    ///
    /// # Errors
    /// A lock error if the time limit of the plan has expired; or the server returned an error.
    pub async fn clear(&mut self) -> Result<()> {
        loop {
            self.context.check_stop()?;
            let seen = self.observe().await?;
            let next = self.cutover.next(&seen);
            tracing::trace!(?seen, ?next, "next step before the exchange");
            match next {
                Next::Drain => self.drain().await?,
                Next::Wait => self.wait().await?,
                Next::Prove => self.prove().await?,
                Next::MirrorOn => self.mirror_on().await?,
                Next::MirrorOff => {
                    mirror::off(self.context).await?;
                    self.context.events.warn(LockWarning::MirrorEnded { holders: self.older.holders() });
                }
                Next::Exchange => return Ok(()),
                Next::GiveUp => return Err(self.gave_up(&seen)),
            }
        }
    }

    /// Waits for a short time. Also cancels sessions that hold a conflicting lock, if the plan allows it.
    async fn wait(&mut self) -> Result<()> {
        if self.looked.elapsed() > LOCKS {
            self.looked = Instant::now();
            locks::cancel(self.context, &self.context.blueprint(), self.ending, &mut self.blockers).await?;
        }
        self.older.nap().await;
        Ok(())
    }

    async fn observe(&mut self) -> Result<Observed> {
        let b = self.context.blueprint();
        let pending = self.context.control.query_one(&drain_sql::pending(&b), &[]).await?.get(1);
        let waits = self.context.plan.old_snapshots() != OldSnapshots::Accept;
        let older = waits && self.older.look().await?;
        Ok(Observed { elapsed: self.begun.elapsed(), pending, older, proven: self.proven })
    }

    async fn drain(&mut self) -> Result<()> {
        let taken = if self.cutover.mirrors() {
            let (taken, blocked) = mirror::drain(self.context, self.ending).await?;
            if blocked {
                // The mirror is switched on again after the next drains.
                self.cutover.mirror_ended();
                mirror::off(self.context).await?;
            }
            taken
        } else {
            self.catch_up().await?
        };
        if taken > 0 {
            self.drained().await?;
        }
        Ok(())
    }

    /// Records a drain: from now on, snapshots that do not include it count as older.
    async fn drained(&mut self) -> Result<()> {
        self.proven = false;
        self.older.mark().await
    }

    /// Proves that no older snapshot exists. VACUUM removes the last row of the log only if no snapshot of this
    /// database is older, and a standby cancels older snapshots before it replays the removal. An open transaction
    /// without a snapshot also prevents the removal, but it has read nothing, so a second round of waiting is
    /// sufficient.
    async fn prove(&mut self) -> Result<()> {
        let b = self.context.blueprint();
        let client = &self.context.control;
        client.batch_execute(&drain_sql::vacuum_log(&b, true)).await?;
        let blocks: i64 = client.query_one(&drain_sql::pending(&b), &[]).await?.get(0);
        if blocks == 0 || self.older.rounds() >= ENOUGH_ROUNDS {
            self.proven = true;
        } else {
            self.older.again();
        }
        Ok(())
    }

    async fn mirror_on(&mut self) -> Result<()> {
        // While the mirror is on, each drain scans the whole log, so make it short.
        let b = self.context.blueprint();
        self.context.control.batch_execute(&drain_sql::vacuum_log(&b, false)).await?;
        match mirror::on(self.context, self.ending).await {
            Ok(()) => Ok(()),
            Err(e) if e.retry_class() == Retry::Never => {
                self.cutover.no_mirror();
                let error = e.message().to_owned();
                self.context.events.warn(LockWarning::MirrorUnavailable { error });
                Ok(())
            }
            Err(e) => Err(e),
        }
    }

    fn gave_up(&self, seen: &Observed) -> Error {
        if seen.older || !seen.pending {
            return self.older.gave_up();
        }
        let limit = number::duration(self.context.plan.lock_budget().give_up_after);
        Error::new(Kind::Lock, format!("the change log did not become empty within {limit}"))
            .cause("changes are written faster than they are drained")
            .hint(
                "nothing was changed, and changes are still logged; run the same command again when the \
                server is less busy",
            )
    }
}
