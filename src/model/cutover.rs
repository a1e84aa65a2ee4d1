//! Chooses the next step before an exchange: drain the change log, wait for snapshots that are older than the last
//! drain, keep the log empty with the mirror, or attempt the exchange.
//!
//! The safety of the exchange does not depend on these choices: the exchange fails if the log is not empty under the
//! lock, and is attempted only when no snapshot remains that does not include the last drain.

use std::time::Duration;

/// The number of drains before the mirror is switched on: a table with few writes needs no mirror.
const DRAINS_BEFORE_MIRROR: u32 = 3;
/// The maximum time for which the mirror is on. After that, changes are logged again, and the job waits for older
/// snapshots without the mirror.
pub const MIRROR_AT_MOST: Duration = Duration::from_secs(60);

/// The observed state.
#[derive(Debug, Clone, Copy)]
pub struct Observed {
    /// The time since the command began to prepare the exchange.
    pub elapsed: Duration,
    /// Whether the change log has rows.
    pub pending: bool,
    /// Whether another session holds a snapshot that is older than the last drain.
    pub older: bool,
    /// Whether it is proven that no session holds such a snapshot, including sessions that are not visible.
    pub proven: bool,
}

/// The next step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Drain the log.
    Drain,
    /// Wait until no session holds an older snapshot.
    Wait,
    /// Prove that no older snapshot is left.
    Prove,
    /// Switch the mirror on.
    MirrorOn,
    /// Switch the mirror off, because it has been on for [`MIRROR_AT_MOST`].
    MirrorOff,
    /// Attempt the exchange.
    Exchange,
    /// Give up, because the time limit has expired.
    GiveUp,
}

/// The progress toward one exchange.
#[derive(Debug, Clone)]
pub struct Cutover {
    give_up_after: Duration,
    waits: bool,
    mirror: Mirror,
    drains: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mirror {
    /// The mirror cannot be used for this table.
    Impossible,
    Off,
    /// The mirror has been on since this time.
    On(Duration),
}

impl Cutover {
    /// `waits`: whether to wait for older snapshots.
    pub fn new(give_up_after: Duration, waits: bool) -> Self {
        Self { give_up_after, waits, mirror: Mirror::Off, drains: 0 }
    }

    /// Whether the mirror is on, according to the steps that were chosen.
    pub fn mirrors(&self) -> bool {
        matches!(self.mirror, Mirror::On(_))
    }

    /// Records that the mirror could not be switched on. It is not attempted again.
    pub fn no_mirror(&mut self) {
        self.mirror = Mirror::Impossible;
    }

    /// Records that the mirror was switched off. It is switched on again if drains do not empty the log.
    pub fn mirror_ended(&mut self) {
        self.mirror = Mirror::Off;
        self.drains = 0;
    }

    /// The next step for an observed state.
    pub fn next(&mut self, seen: &Observed) -> Next {
        let next = self.without_limit(seen);
        // When all conditions are met, attempt the exchange even after the time limit.
        let ready = matches!(next, Next::Exchange | Next::Prove);
        if seen.elapsed >= self.give_up_after && !ready { Next::GiveUp } else { next }
    }

    fn without_limit(&mut self, seen: &Observed) -> Next {
        if let Mirror::On(since) = self.mirror
            && seen.elapsed.saturating_sub(since) >= MIRROR_AT_MOST
        {
            self.mirror_ended();
            return Next::MirrorOff;
        }
        let older = self.waits && seen.older;
        if seen.pending {
            self.pending(seen.elapsed, older)
        } else if older {
            Next::Wait
        } else if self.waits && !seen.proven {
            Next::Prove
        } else {
            Next::Exchange
        }
    }

    fn pending(&mut self, now: Duration, older: bool) -> Next {
        match self.mirror {
            // After a drain now, the job would have to wait for newer snapshots.
            Mirror::Impossible if older => Next::Wait,
            // The mirror would have to stay on as long as the existing older snapshots. Wait for them once before it is
            // switched on.
            Mirror::Off if older && self.drains == 0 => Next::Wait,
            Mirror::Off if self.drains >= DRAINS_BEFORE_MIRROR => {
                self.mirror = Mirror::On(now);
                Next::MirrorOn
            }
            _ => {
                self.drains += 1;
                Next::Drain
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(600);

    fn at(s: u64) -> Observed {
        Observed { elapsed: Duration::from_secs(s), pending: false, older: false, proven: false }
    }

    fn pending(s: u64) -> Observed {
        Observed { pending: true, ..at(s) }
    }

    fn older(seen: Observed) -> Observed {
        Observed { older: true, ..seen }
    }

    fn proven(seen: Observed) -> Observed {
        Observed { proven: true, ..seen }
    }

    /// A cutover after enough drains that the mirror is needed next.
    fn busy() -> Cutover {
        let mut cutover = Cutover::new(LIMIT, true);
        for _ in 0..DRAINS_BEFORE_MIRROR {
            assert_eq!(cutover.next(&pending(0)), Next::Drain);
        }
        cutover
    }

    #[test]
    fn a_quiet_table_needs_no_mirror() {
        let mut cutover = Cutover::new(LIMIT, true);
        assert_eq!(cutover.next(&pending(0)), Next::Drain);
        assert_eq!(cutover.next(&older(at(1))), Next::Wait);
        assert_eq!(cutover.next(&at(2)), Next::Prove);
        assert_eq!(cutover.next(&proven(at(2))), Next::Exchange);
        assert!(!cutover.mirrors());
    }

    #[test]
    fn no_exchange_with_pending_changes_or_older_snapshots() {
        for waits in [true, false] {
            for mirror in [true, false] {
                let mut cutover = Cutover::new(LIMIT, waits);
                if !mirror {
                    cutover.no_mirror();
                }
                for s in 0..LIMIT.as_secs() {
                    for seen in [pending(s), proven(pending(s)), older(at(s)), older(proven(at(s))), at(s)] {
                        let next = cutover.next(&seen);
                        let ready = !seen.pending && (!waits || !seen.older && seen.proven);
                        assert_eq!(next == Next::Exchange, ready && next != Next::MirrorOff, "{seen:?}");
                    }
                }
                assert_eq!(cutover.next(&older(pending(LIMIT.as_secs()))), Next::GiveUp);
                assert_eq!(cutover.next(&proven(at(LIMIT.as_secs()))), Next::Exchange);
            }
        }
    }

    #[test]
    fn existing_snapshots_are_waited_for_before_the_mirror_is_on() {
        let mut cutover = Cutover::new(LIMIT, true);
        assert_eq!(cutover.next(&older(pending(0))), Next::Wait);
        assert_eq!(cutover.next(&pending(1)), Next::Drain);
        for _ in 1..DRAINS_BEFORE_MIRROR {
            assert_eq!(cutover.next(&older(pending(1))), Next::Drain);
        }
        assert_eq!(cutover.next(&older(pending(2))), Next::MirrorOn);
        assert_eq!(cutover.next(&older(pending(2))), Next::Drain);
        assert_eq!(cutover.next(&older(at(3))), Next::Wait);
        assert_eq!(cutover.next(&at(4)), Next::Prove);
        assert_eq!(cutover.next(&pending(4)), Next::Drain);
    }

    #[test]
    fn the_mirror_is_switched_off_after_its_time_limit_and_on_again() {
        let mut cutover = busy();
        assert_eq!(cutover.next(&pending(10)), Next::MirrorOn);
        assert_eq!(cutover.next(&older(at(69))), Next::Wait);
        assert_eq!(cutover.next(&older(at(70))), Next::MirrorOff);
        assert!(!cutover.mirrors());
        for _ in 0..DRAINS_BEFORE_MIRROR {
            assert_eq!(cutover.next(&pending(80)), Next::Drain);
        }
        assert_eq!(cutover.next(&pending(80)), Next::MirrorOn);
    }

    #[test]
    fn without_a_mirror_it_continues_to_drain() {
        let mut cutover = busy();
        assert_eq!(cutover.next(&pending(1)), Next::MirrorOn);
        cutover.no_mirror();
        for s in 0..20 {
            assert_eq!(cutover.next(&pending(s)), Next::Drain);
        }
    }
}
