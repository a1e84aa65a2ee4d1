//! Gets a partition job to where an exchange can be tried: the change log is empty, and every snapshot sees what the last drain
//! brought. What comes next is decided in [`crate::model::cutover`].

use std::time::Instant;

use crate::error::{Error, Kind, Result, Retry};
use crate::event::{LockWarning, StandbyEffect};
use crate::model::blueprint::Direction;
use crate::model::cutover::{Cutover, Next, Seen};
use crate::model::number;
use crate::phase::job::blockers::Asked;
use crate::phase::job::meter::Meter;
use crate::phase::job::old_snapshots::{ENOUGH_ROUNDS, LOCKS, Older};
use crate::phase::partition::{PartitionJob, drain, locks, mirror};
use crate::plan::OldSnapshots;
use crate::sql::drain as drain_sql;

/// A log of so many blocks (8 MiB) is drained at once.
const LITTLE_BLOCKS: i64 = 1_024;

/// The way of one command to its exchange.
#[derive(Debug)]
pub struct Way<'a> {
    context: &'a PartitionJob,
    meter: &'a Meter<'a>,
    away: Direction,
    cutover: Cutover,
    older: Older<'a>,
    proven: bool,
    begun: Instant,
    looked: Instant,
    blockers: Asked,
}

impl<'a> Way<'a> {
    /// Drains until little is left.
    ///
    /// # Errors
    /// What the server said.
    pub async fn begin(context: &'a PartitionJob, meter: &'a Meter<'a>, away: Direction) -> Result<Self> {
        let plan = &context.plan;
        let waits = plan.old_snapshots() != OldSnapshots::Accept;
        let cutover = Cutover::new(plan.lock_budget().give_up_after, waits);
        let older = Older::new(context)?;
        if waits {
            older.report_unknown_standbys(StandbyEffect::CanFail).await?;
        }
        let mut way = Self {
            context,
            meter,
            away,
            cutover,
            older,
            proven: false,
            begun: Instant::now(),
            looked: Instant::now(),
            blockers: Asked::default(),
        };
        way.level().await?;
        way.drained().await?;
        Ok(way)
    }

    /// Drains until little is left, and that as well; how many changes were taken. Where writers are as fast, much is left:
    /// that is for the drains beside the mirror, which take a little at a time.
    async fn level(&self) -> Result<u64> {
        let mut taken = drain::level(self.context, self.meter).await?.changes;
        let b = self.context.blueprint();
        let blocks: i64 = self.context.control.query_one(&drain_sql::pending(&b), &[]).await?.get(0);
        if blocks <= LITTLE_BLOCKS {
            taken += drain::rest(self.context).await?.changes;
        }
        Ok(taken)
    }

    /// Goes on until an exchange can be tried.
    ///
    /// # Errors
    /// Lock where the plan's time is over; or what the server said.
    pub async fn clear(&mut self) -> Result<()> {
        loop {
            self.context.go_on()?;
            let seen = self.look().await?;
            let next = self.cutover.next(&seen);
            tracing::trace!(?seen, ?next, "on the way to the exchange");
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

    /// Who holds a lock as well is cancelled, if the plan says so of those.
    async fn wait(&mut self) -> Result<()> {
        if self.looked.elapsed() > LOCKS {
            self.looked = Instant::now();
            locks::cancel(self.context, &self.context.blueprint(), self.away, &mut self.blockers).await?;
        }
        self.older.nap().await;
        Ok(())
    }

    async fn look(&mut self) -> Result<Seen> {
        let b = self.context.blueprint();
        let pending = self.context.control.query_one(&drain_sql::pending(&b), &[]).await?.get(1);
        let waits = self.context.plan.old_snapshots() != OldSnapshots::Accept;
        let older = waits && self.older.look().await?;
        Ok(Seen { elapsed: self.begun.elapsed(), pending, older, proven: self.proven })
    }

    async fn drain(&mut self) -> Result<()> {
        let taken = if self.cutover.mirrors() {
            let (taken, blocked) = mirror::drain(self.context, self.away).await?;
            if blocked {
                // It comes back with the next drains.
                self.cutover.mirror_ended();
                mirror::off(self.context).await?;
            }
            taken
        } else {
            self.level().await?
        };
        if taken > 0 {
            self.drained().await?;
        }
        Ok(())
    }

    /// From now on, who does not see this is older.
    async fn drained(&mut self) -> Result<()> {
        self.proven = false;
        self.older.mark().await
    }

    /// VACUUM takes the log's last row away only if no snapshot of this database is older; and a standby ends those that are
    /// before it replays that. An open transaction without a snapshot keeps it from that, too: it reads nothing, so that a
    /// second round of waiting does instead.
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
        // Each drain beside the mirror looks at the whole log.
        let b = self.context.blueprint();
        self.context.control.batch_execute(&drain_sql::vacuum_log(&b, false)).await?;
        match mirror::on(self.context, self.away).await {
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

    fn gave_up(&self, seen: &Seen) -> Error {
        if seen.older || !seen.pending {
            return self.older.gave_up();
        }
        let limit = number::duration(self.context.plan.lock_budget().give_up_after);
        Error::new(Kind::Lock, format!("the change log did not become empty within {limit}"))
            .cause("changes come faster than they are brought over")
            .hint("nothing was changed, and changes go on being logged; run the same command again at a quieter time")
    }
}
