//! Finds transactions whose snapshot does not include a given transaction of the job, on the server and on the standbys
//! that the plan lists. After the swap, such a transaction would read the new side as it was before that transaction.

use std::time::{Duration, Instant};

use tokio_postgres::{Client, Row};

use crate::error::{Error, Kind, Result};
use crate::event::{LockWarning, PartitionNote, StandbyEffect};
use crate::model::blocker::{Blocker, SnapshotHolder, SnapshotHolders};
use crate::model::number;
use crate::pg::connect::{Session, Target};
use crate::pg::lease;
use crate::phase::job::blockers::{Asked, blocker};
use crate::phase::job::driver::Driver;
use crate::plan::OldSnapshots;
use crate::sql::old_snapshots as sql;

/// How often holders of old snapshots are queried at first,
const LOOK: Duration = Duration::from_millis(15);
/// and how often after [`SHORT`].
const LOOK_LATER: Duration = Duration::from_millis(200);
/// How often blockers are canceled while the job waits for snapshots.
pub const LOCKS: Duration = Duration::from_secs(1);
/// The number of rounds after which no older snapshot can exist.
pub const ENOUGH_ROUNDS: u32 = 2;
/// How long the job waits before it reports the wait.
const SHORT: Duration = Duration::from_secs(1);
/// How often the wait is reported.
const REPORTS: Duration = Duration::from_secs(30);
/// How often holders are canceled, if the plan allows it: a canceled statement may need some time to end.
const CANCELS: Duration = Duration::from_secs(1);
/// The minimum age of a holder's transaction to be canceled, unless the plan sets `cancel_blockers_after`.
const CANCEL_AFTER: Duration = Duration::from_secs(5);

/// A session that holds an old snapshot, and the identity of its transaction.
#[derive(Debug, Clone)]
struct Holder {
    who: Blocker,
    transaction: String,
}

impl Holder {
    fn of(row: &Row) -> Self {
        Self { who: blocker(row), transaction: row.get(8) }
    }

    fn is(&self, other: &Self) -> bool {
        self.who.pid == other.who.pid && self.transaction == other.transaction
    }
}

/// The remaining holders on one server; none before the first query.
#[derive(Debug, Default)]
struct Left(Option<Vec<Holder>>);

impl Left {
    /// Removes the holders that have ended. A holder that was not in the first result has a newer snapshot.
    fn look(&mut self, now: Vec<Holder>) -> &[Holder] {
        let left = match self.0.take() {
            Some(before) => now.into_iter().filter(|one| before.iter().any(|was| was.is(one))).collect(),
            None => now,
        };
        self.0.insert(left)
    }

    fn holders(&self) -> &[Holder] {
        self.0.as_deref().unwrap_or_default()
    }
}

/// A standby that the plan lists.
#[derive(Debug)]
struct WatchedStandby {
    name: String,
    target: Target,
    session: Option<Session>,
    left: Left,
    /// Why the remaining holders are not known.
    unknown: Option<String>,
}

impl WatchedStandby {
    async fn look(&mut self, role: &str, mark: &Mark) {
        self.unknown = match self.ask(role, mark).await {
            Ok(true) => None,
            Ok(false) => Some("it has not yet replayed the last drain".to_owned()),
            Err(e) => {
                self.session = None;
                Some(e.message().to_owned())
            }
        };
    }

    /// Queries the holders on the standby; returns false if it has not yet replayed the WAL up to the mark.
    async fn ask(&mut self, role: &str, mark: &Mark) -> Result<bool> {
        let session = match self.session.take() {
            Some(session) => session,
            None => self.target.connect(role).await?,
        };
        let session = self.session.insert(session);
        let replayed = session.query_opt(sql::REPLAYED, &[&mark.wal]).await?;
        let replayed = replayed.ok_or_else(|| Error::failed("it is not a standby"))?;
        if !replayed.get::<_, Option<bool>>(0).unwrap_or(false) {
            return Ok(false);
        }
        let rows = session.query(sql::HOLDERS, &[&mark.xid]).await?;
        self.left.look(rows.iter().map(Holder::of).collect());
        Ok(true)
    }
}

/// The transaction that every snapshot must include.
#[derive(Debug, Clone)]
struct Mark {
    xid: String,
    /// A WAL position at or after its commit.
    wal: String,
}

/// Queries the holders of older snapshots repeatedly.
#[derive(Debug)]
pub struct SnapshotWait<'a> {
    driver: &'a Driver,
    mark: Option<Mark>,
    here: Left,
    standbys: Vec<WatchedStandby>,
    /// The number of completed rounds.
    rounds: u32,
    /// Whether the current round is counted.
    counted: bool,
    marked: Instant,
    reported: Option<Instant>,
    asked: Asked,
    canceled: Option<Instant>,
}

impl<'a> SnapshotWait<'a> {
    /// Opens no session. No holders are searched for before [`SnapshotWait::mark`] or [`SnapshotWait::since`].
    ///
    /// # Errors
    /// The connection string of a standby cannot be used.
    pub fn new(driver: &'a Driver) -> Result<Self> {
        let standby = |dsn: &String| {
            let target = driver.target().standby(dsn)?;
            let (name, left) = (target.describe(), Left::default());
            Ok(WatchedStandby { name, target, session: None, left, unknown: None })
        };
        // With the standbys that were added with `set`.
        let plan = driver.gate.plan();
        let standbys = plan.throttle().replicas.iter().map(standby).collect::<Result<_>>()?;
        Ok(Self {
            driver,
            mark: None,
            here: Left::default(),
            standbys,
            rounds: 0,
            counted: false,
            marked: Instant::now(),
            reported: None,
            asked: Asked::default(),
            canceled: None,
        })
    }

    /// Requires that every snapshot includes all transactions that are committed now.
    ///
    /// # Errors
    /// The server returned an error.
    pub async fn mark(&mut self) -> Result<()> {
        let xid: String = self.driver.control.query_one(sql::MARK, &[]).await?.get(0);
        self.since(xid).await
    }

    /// Requires that every snapshot includes transaction `xid`.
    ///
    /// # Errors
    /// The server returned an error.
    pub async fn since(&mut self, xid: String) -> Result<()> {
        let wal = self.driver.control.query_one(sql::WAL_END, &[]).await?.get(0);
        self.mark = Some(Mark { xid, wal });
        self.rounds = 0;
        self.marked = Instant::now();
        self.again();
        Ok(())
    }

    /// Begins another round, which waits for all current holders of older snapshots.
    pub fn again(&mut self) {
        self.counted = false;
        self.here = Left::default();
        for standby in &mut self.standbys {
            standby.left = Left::default();
        }
    }

    /// The number of times that the job has waited for all holders of older snapshots. One round is not enough: a
    /// session can import a snapshot from a session that then ends. The first round does not wait for the importing
    /// session, because it was not in the first result; the second round does.
    pub fn rounds(&self) -> u32 {
        self.rounds
    }

    /// Returns whether a session holds an older snapshot. Also reports a long wait, and cancels holders if the plan
    /// allows it.
    ///
    /// # Errors
    /// The server returned an error.
    pub async fn look(&mut self) -> Result<bool> {
        let Some(mark) = self.mark.clone() else { return Ok(false) };
        let rows = self.driver.control.query(sql::HOLDERS, &[&mark.xid]).await?;
        self.here.look(rows.iter().map(Holder::of).collect());
        let role = lease::session_name(self.driver.job.id, self.driver.epoch(), "snapshots");
        for standby in &mut self.standbys {
            standby.look(&role, &mark).await;
        }
        let known = |standby: &WatchedStandby| standby.unknown.is_none() && standby.left.holders().is_empty();
        if self.here.holders().is_empty() && self.standbys.iter().all(known) {
            self.rounds += u32::from(!self.counted);
            self.counted = true;
            return Ok(false);
        }
        self.report();
        if self.driver.plan.old_snapshots() == OldSnapshots::Cancel {
            self.cancel().await;
        }
        Ok(true)
    }

    /// Waits until the next query is due. After [`SHORT`], the interval is longer.
    pub async fn nap(&self) {
        tokio::time::sleep(if self.marked.elapsed() < SHORT { LOOK } else { LOOK_LATER }).await;
    }

    fn report(&mut self) {
        let lately = self.reported.is_some_and(|at| at.elapsed() < REPORTS);
        if self.marked.elapsed() > SHORT && !lately {
            self.driver.events.warn(LockWarning::WaitingForSnapshots { holders: self.holders() });
            self.reported = Some(Instant::now());
        }
    }

    /// The remaining holders, and the standbys whose holders are not known.
    pub fn holders(&self) -> SnapshotHolders {
        let holder = |standby: Option<&String>, blocker: Option<&Blocker>, unknown: Option<&String>| {
            let (standby, unknown) = (standby.cloned(), unknown.cloned());
            SnapshotHolder { standby, blocker: blocker.cloned(), unknown }
        };
        let mut all: Vec<SnapshotHolder> =
            self.here.holders().iter().map(|one| holder(None, Some(&one.who), None)).collect();
        for standby in &self.standbys {
            let name = Some(&standby.name);
            all.extend(standby.left.holders().iter().map(|one| holder(name, Some(&one.who), None)));
            all.extend(standby.unknown.iter().map(|why| holder(name, None, Some(why))));
        }
        SnapshotHolders::new(all)
    }

    async fn cancel(&mut self) {
        if self.canceled.is_some_and(|at| at.elapsed() < CANCELS) {
            return;
        }
        self.canceled = Some(Instant::now());
        let after = self.driver.plan.lock_budget().cancel_blockers_after.unwrap_or(CANCEL_AFTER);
        let (client, events): (&Client, _) = (&self.driver.control, &self.driver.events);
        let who = |left: &Left| left.holders().iter().map(|one| one.who.clone()).collect::<Vec<_>>();
        self.asked.end(client, events, &who(&self.here), after).await;
        for standby in &self.standbys {
            if let Some(session) = &standby.session {
                self.asked.end(session, events, &who(&standby.left), after).await;
            }
        }
    }

    /// The error when the time limit is exceeded.
    pub fn gave_up(&self) -> Error {
        let limit = number::duration(self.driver.plan.lock_budget().give_up_after);
        Error::new(
            Kind::Lock,
            format!(
                "transactions whose snapshot is older than the last change of the job did not end \
                within {limit}"
            ),
        )
        .cause(self.holders().to_string())
        .hint(
            "nothing was changed; end these transactions or wait until they end, and run the same command \
             again; or set [swap] old_snapshots = \"cancel\", or \"accept\" if they may read wrong data",
        )
    }

    /// Reports standbys that the plan does not list, and the effect on transactions there that have an older snapshot.
    ///
    /// # Errors
    /// The server returned an error.
    pub async fn report_unknown_standbys(&self, effect: StandbyEffect) -> Result<()> {
        if !self.standbys.is_empty() {
            return Ok(());
        }
        let rows = self.driver.control.query(sql::STANDBYS, &[]).await?;
        let standbys: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
        if !standbys.is_empty() {
            self.driver.events.note(PartitionNote::StandbysNotWaitedFor { standbys, effect });
        }
        Ok(())
    }
}
