//! Settings that `pgstrata set` changes while a job runs. The same checks apply as to a plan.

use std::collections::BTreeMap;

use toml::{Table, Value};

use super::file::{self, KEYS, PlanFile};
use super::problem::Problem;
use super::{Plan, resolve};
use crate::error::{Error, Result};

/// Settings of `[copy]` that can change while a job runs. All settings of `[throttle]` can.
const OF_COPY: [&str; 2] = ["workers", "target_batch_ms"];
/// Settings that are lists.
const LISTS: [&str; 2] = ["replicas", "windows"];
/// The minimum Jaro-Winkler similarity at which a key is taken for a misspelling of another.
const ALIKE: f64 = 0.8;

/// Every key that can change while a job runs, with its section.
fn known() -> impl Iterator<Item = (&'static str, &'static str)> {
    let of_copy = OF_COPY.iter().map(|key| ("copy", *key));
    let of_throttle = KEYS.iter().filter(|(section, _)| *section == "throttle");
    of_copy.chain(of_throttle.flat_map(|(section, keys)| keys.iter().map(|key| (*section, *key))))
}

/// Reads `KEY=VALUE` of a command line.
///
/// # Errors
/// The text is not an assignment, or the key cannot be changed while a job runs. A similar key is suggested.
pub fn assignment(written: &str) -> Result<(String, String)> {
    let Some((key, value)) = written.split_once('=') else {
        return Err(Error::usage(format!("`{written}` is not a setting"))
            .hint("write KEY=VALUE: rows_per_second=20000, max_replica_lag=5s"));
    };
    let (key, value) = (key.trim(), value.trim());
    if !known().any(|(_, one)| one == key) {
        let scored = known().map(|(_, one)| (strsim::jaro_winkler(&key.to_lowercase(), one), one));
        let nearest =
            scored.max_by(|a, b| a.0.total_cmp(&b.0)).filter(|(similarity, _)| *similarity >= ALIKE);
        let all = known().map(|(_, key)| key).collect::<Vec<_>>().join(", ");
        let hint =
            nearest.map_or_else(|| format!("known: {all}"), |(_, one)| format!("did you mean `{one}`?"));
        return Err(Error::usage(format!(
            "`{key}` is not a setting that can be changed while a job \
                runs"
        ))
        .hint(hint));
    }
    Ok((key.to_owned(), value.to_owned()))
}

impl Plan {
    /// The plan with these settings replaced.
    ///
    /// # Errors
    /// A value is invalid.
    pub fn with(&self, settings: &BTreeMap<String, String>) -> Result<Self> {
        let mut root: Table = self
            .to_toml()
            .parse()
            .map_err(|e: toml::de::Error| Error::failed("the plan could not be read back").caused_by(e))?;
        for (section, key) in known() {
            let Some(value) = settings.get(key) else { continue };
            let keys = root.entry(section).or_insert_with(|| Value::Table(Table::new()));
            if let Value::Table(keys) = keys {
                keys.insert(key.to_owned(), read(key, value));
            }
        }
        let (mirror, problems) = file::read(&root.to_string());
        let resolved = match mirror {
            Some(mirror) if problems.is_empty() => resolve_without_positions(&mirror),
            _ => Err(problems),
        };
        resolved.map_err(|problems| super::problem::report("set", "", problems))
    }
}

fn resolve_without_positions(mirror: &PlanFile) -> std::result::Result<Plan, Vec<Problem>> {
    resolve::resolve(mirror)
        .map_err(|problems| problems.into_iter().map(|problem| Problem { span: None, ..problem }).collect())
}

/// Reads the value as TOML, if it is valid TOML; otherwise as a string, which needs no quotes here.
fn read(key: &str, written: &str) -> Value {
    let parsed =
        format!("value = {written}").parse::<Table>().ok().and_then(|mut table| table.remove("value"));
    let value = parsed.unwrap_or_else(|| Value::from(written));
    match value {
        Value::String(text) if LISTS.contains(&key) => {
            if text == "off" {
                Value::Array(Vec::new())
            } else {
                Value::from(vec![text])
            }
        }
        value => value,
    }
}

#[cfg(test)]
mod tests {
    use insta::assert_snapshot;

    use super::*;
    use crate::plan::Workers;

    fn plan() -> Plan {
        Plan::parse("table = 't'\n[partition]\nby = 'at'\nevery = 'month'\n", "p.toml").unwrap()
    }

    fn with(written: &[&str]) -> Result<Plan> {
        let settings = written.iter().map(|one| assignment(one)).collect::<Result<_>>()?;
        plan().with(&settings)
    }

    #[test]
    fn set_values_replace_those_of_the_plan() {
        let set = with(&[
            "workers=3",
            "rows_per_second=20_000",
            "max_replica_lag=5s",
            "wal_bytes_per_second = 16MB",
            "windows=Mon-Fri 22:00-05:00",
            "query=select count(*) > 3 from jobs",
            "archiver=false",
        ]);
        let set = set.unwrap();
        assert_eq!(set.workers(), Workers::Fixed(3));
        assert_eq!(set.identity(), plan().identity());
        let text = |plan: &Plan| {
            let tunables = plan.tunables();
            let differs = tunables.iter().filter(|(key, value)| plan_default(key).as_ref() != Some(*value));
            differs.map(|(key, value)| format!("{key} = {value}")).collect::<Vec<_>>().join("\n")
        };
        assert_snapshot!(text(&set), @"
        copy.workers = 3
        throttle.archiver = false
        throttle.max_replica_lag = 5s
        throttle.query = select count(*) > 3 from jobs
        throttle.rows_per_second = 20000
        throttle.wal_bytes_per_second = 16 MiB
        throttle.windows = Mon,Tue,Wed,Thu,Fri 22:00-05:00
        ");
        assert_eq!(with(&["rows_per_second=off", "windows=off"]).unwrap(), plan());
    }

    fn plan_default(key: &str) -> Option<String> {
        plan().tunables().remove(key)
    }

    #[test]
    fn invalid_values_are_rejected() {
        let refused = |written: &str| with(&[written]).unwrap_err().to_string();
        assert_snapshot!(refused("workers=0"), @r#"set: copy.workers: 0 is not "auto" or a whole number between 1 and 64"#);
        assert_snapshot!(refused("rows_per_second=-3"), @"set: throttle.rows_per_second: -3 is not a whole number between 1 and 4294967295");
        assert_snapshot!(refused("max_replica_lag=soon"), @r#"
        set: throttle.max_replica_lag: `soon` is not a duration
        hint: write a whole number and its unit (ms, s, min, h, days): "5s"
        "#);
        assert_snapshot!(refused("max_replica_lag=1ms"), @"set: throttle.max_replica_lag: 1ms is not between 100ms and 1 days");
        assert_snapshot!(refused("max_slot_retained_bytes=3"), @"set: throttle.max_slot_retained_bytes: 3 is not between 64 KiB and 1024 TiB");
        assert_snapshot!(refused("windows=Mo-Fr 22-5"), @r#"set: throttle.windows: `Mo-Fr 22-5` is not a window: write days and times, such as "Mon-Fri 22:00-05:00", or only times"#);
        assert_snapshot!(refused("replicas=host=a password=b"), @"
        set: throttle.replicas: contains a password
        hint: remove it, and store it in ~/.pgpass
        ");
        assert_snapshot!(refused("worker=3"), @"
        `worker` is not a setting that can be changed while a job runs
        hint: did you mean `workers`?
        ");
        assert_snapshot!(refused("table=x"), @"
        `table` is not a setting that can be changed while a job runs
        hint: known: workers, target_batch_ms, rows_per_second, wal_bytes_per_second, max_replica_lag, max_replica_lag_bytes, replicas, forget_replica_after, max_slot_retained_bytes, archiver, max_active_backends, max_commit_latency, max_dead_share, query, query_limit, windows, timezone
        ");
        assert_snapshot!(refused("workers"), @"
        `workers` is not a setting
        hint: write KEY=VALUE: rows_per_second=20000, max_replica_lag=5s
        ");
    }
}
