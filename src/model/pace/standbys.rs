//! The standbys that were seen: the lag of each, and those that are disconnected. A disconnected standby throttles the job
//! until it is forgotten.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::LagClock;

/// The last known state of a standby.
#[derive(Debug, Clone, PartialEq)]
pub struct Standby {
    /// The name in messages.
    pub name: String,
    /// The position in the server's WAL up to which it has replayed, in bytes.
    pub place: u64,
    /// The lag in seconds that the server or the standby reports.
    pub lag_s: Option<f64>,
}

/// The lag of a standby.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Behind {
    /// The name of the standby.
    pub name: String,
    /// The lag in seconds.
    pub lag_s: f64,
    /// The lag in bytes of WAL.
    pub lag_bytes: u64,
}

/// All standbys that were seen since the driver started.
#[derive(Debug, Clone, Default)]
pub struct Standbys {
    clock: LagClock,
    seen_s: BTreeMap<String, f64>,
}

impl Standbys {
    /// Records that at `at_s`, the server was at position `place`, and `standbys` were connected; returns the lag of
    /// each. Standbys with the same name are distinguished by their order.
    pub fn observe(&mut self, at_s: f64, place: u64, standbys: &[Standby]) -> Vec<Behind> {
        self.clock.passed(at_s, place);
        let mut behind: Vec<Behind> = Vec::new();
        for standby in standbys {
            let twins = standbys.iter().take(behind.len()).filter(|one| one.name == standby.name).count();
            let name =
                if twins == 0 { standby.name.clone() } else { format!("{} #{}", standby.name, twins + 1) };
            self.seen_s.insert(name.clone(), at_s);
            // A standby that has replayed everything is not behind, even if the last transaction is old.
            let reported_s = standby.lag_s.filter(|_| standby.place < place).unwrap_or(0.0);
            behind.push(Behind {
                name,
                lag_s: reported_s.max(self.clock.behind_s(at_s, standby.place)),
                lag_bytes: place.saturating_sub(standby.place),
            });
        }
        behind
    }

    /// Adds a standby that must exist, although it has not been seen yet.
    pub fn expect(&mut self, at_s: f64, name: &str) {
        self.seen_s.entry(name.to_owned()).or_insert(at_s);
    }

    /// The standby that has been disconnected the longest, and for how many seconds.
    pub fn gone(&self, at_s: f64) -> Option<(&str, f64)> {
        let longest = self.seen_s.iter().min_by(|a, b| a.1.total_cmp(b.1));
        longest.map(|(name, seen_s)| (name.as_str(), at_s - seen_s)).filter(|(_, gone_s)| *gone_s > 0.0)
    }

    /// Forgets standbys that have been disconnected for longer than `after_s` seconds; returns their names.
    pub fn forget(&mut self, at_s: f64, after_s: f64) -> Vec<String> {
        let gone: Vec<String> = self
            .seen_s
            .iter()
            .filter(|(_, seen_s)| at_s - **seen_s > after_s)
            .map(|(name, _)| name.clone())
            .collect();
        for name in &gone {
            self.seen_s.remove(name);
        }
        gone
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn standby(name: &str, place: u64, lag_s: Option<f64>) -> Standby {
        Standby { name: name.to_owned(), place, lag_s }
    }

    #[test]
    fn the_larger_of_reported_and_measured_lag_counts() {
        let mut standbys = Standbys::default();
        let seen = [standby("a", 100, None), standby("a", 50, Some(7.0)), standby("b", 100, Some(3_600.0))];
        let behind = standbys.observe(0.0, 100, &seen);
        let told: Vec<_> = behind.iter().map(|b| (b.name.as_str(), b.lag_s, b.lag_bytes)).collect();
        assert_eq!(told, [("a", 0.0, 0), ("a #2", 7.0, 50), ("b", 0.0, 0)]);
        // The standby no longer answers, although its connection still exists.
        for s in 1..=20_u32 {
            standbys.observe(f64::from(s), 100 + u64::from(s), &seen[..1]);
        }
        let behind = standbys.observe(21.0, 121, &seen[..1]);
        assert_eq!((behind[0].lag_s, behind[0].lag_bytes), (20.0, 21));
    }

    #[test]
    fn a_disconnected_standby_is_reported_and_then_forgotten() {
        let mut standbys = Standbys::default();
        standbys.observe(0.0, 1, &[standby("a", 1, None), standby("b", 1, None)]);
        assert_eq!(standbys.gone(0.0), None);
        standbys.observe(5.0, 1, &[standby("a", 1, None)]);
        assert_eq!(standbys.gone(5.0), Some(("b", 5.0)));
        assert!(standbys.forget(5.0, 10.0).is_empty());
        assert_eq!(standbys.forget(10.5, 10.0), ["b"]);
        assert_eq!(standbys.gone(5.0), None);
        standbys.expect(7.0, "listed");
        standbys.observe(8.0, 1, &[standby("a", 1, None)]);
        assert_eq!(standbys.gone(8.0), Some(("listed", 1.0)));
    }
}
