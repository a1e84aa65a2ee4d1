//! Which settings cannot change after a job has started, and which can.
//!
//! If a job were resumed with another identity, its target would mix two results. The error names the setting that
//! changed. `settings` lists each setting once, with its [`Significance`]. The stored text of a plan is built from the same
//! list, with every default written out, so that a later version with other defaults continues the job in the same way.

use std::{collections::BTreeMap, fmt, time::Duration};

use toml::{Table, Value};

use super::{
    IncomingKeys, KeepUnique, OldSnapshots, Order, Partitioning, Plan, RowComparison, When, Workers,
};
use crate::model::{ident::plain, partition::Every};

/// What a setting means for a job that has started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Significance {
    /// The name of the job: another name means another job.
    Name,
    /// Determines the result, or what "verified" means. It cannot change.
    Identity,
    /// Determines the speed or the time. It can change.
    Tunable,
}

/// A setting whose value changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChangedSetting {
    /// The key, such as `partition.every`.
    pub field: String,
    /// The old value; none: not set.
    pub was: Option<String>,
    /// The new value; none: not set.
    pub is: Option<String>,
}

impl fmt::Display for ChangedSetting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = |value: &Option<String>| value.clone().unwrap_or_else(|| "not set".to_owned());
        let (was, is) = (text(&self.was), text(&self.is));
        write!(f, "the plan's {} was {was} when the job started, and is {is} now", self.field)
    }
}

/// The differences between two identities, or between two sets of tunables, sorted by key.
pub fn changed(old: &BTreeMap<String, String>, new: &BTreeMap<&'static str, String>) -> Vec<ChangedSetting> {
    let gone = old.keys().map(String::as_str).filter(|field| !new.contains_key(field));
    let mut fields: Vec<&str> = new.keys().copied().chain(gone).collect();
    fields.sort_unstable();
    fields
        .into_iter()
        .map(|field| ChangedSetting {
            field: field.to_owned(),
            was: old.get(field).cloned(),
            is: new.get(field).cloned(),
        })
        .filter(|change| change.was != change.is)
        .collect()
}

impl Plan {
    /// The settings that determine the result, and cannot change after the job has started. Settings that are not set
    /// are omitted.
    pub fn identity(&self) -> BTreeMap<&'static str, String> {
        self.part(Significance::Identity)
    }

    /// The settings that can change while the job runs. Settings that are not set are omitted.
    pub fn tunables(&self) -> BTreeMap<&'static str, String> {
        self.part(Significance::Tunable)
    }

    /// The plan as TOML, with every default written out. [`Plan::parse`] returns the same plan.
    pub fn to_toml(&self) -> String {
        let mut head = Table::new();
        let mut sections: BTreeMap<&str, Table> = BTreeMap::new();
        for (key, _, value) in self.settings() {
            match key.split_once('.') {
                Some((section, key)) => {
                    sections.entry(section).or_default().insert(key.to_owned(), value);
                }
                None => {
                    head.insert(key.to_owned(), value);
                }
            }
        }
        head.extend(sections.into_iter().map(|(section, keys)| (section.to_owned(), Value::Table(keys))));
        head.to_string()
    }

    fn part(&self, wanted: Significance) -> BTreeMap<&'static str, String> {
        let settings = self.settings().into_iter().filter(|(_, part, _)| *part == wanted);
        settings.map(|(key, _, value)| (key, display(&value))).collect()
    }

    /// Every setting with its key. Settings that are not set are omitted.
    fn settings(&self) -> Vec<(&'static str, Significance, Value)> {
        use Significance::{Identity, Name, Tunable};
        let workers = match self.workers {
            Workers::Auto => "auto".into(),
            Workers::Fixed(n) => Value::from(i64::try_from(n).unwrap_or(i64::MAX)),
        };
        let trust: Vec<String> = self.trust.iter().map(|role| plain(role)).collect();
        let common = [
            ("name", Name, Some(self.name.clone().into())),
            ("kind", Identity, Some(self.task.kind().into())),
            ("table", Identity, Some(self.table.plain().into())),
            ("trust", Tunable, (!trust.is_empty()).then(|| trust.into())),
            ("copy.workers", Tunable, Some(workers)),
            ("copy.target_batch_ms", Tunable, Some((self.target_batch.as_millis() as i64).into())),
            ("swap.lock_timeout", Tunable, Some(duration_text(self.budget.lock_timeout).into())),
            ("swap.attempts", Tunable, Some(self.budget.attempts.into())),
            ("swap.give_up_after", Tunable, Some(duration_text(self.budget.give_up_after).into())),
            (
                "swap.cancel_blockers_after",
                Tunable,
                self.budget.cancel_blockers_after.map(|after| duration_text(after).into()),
            ),
        ];
        let identity = |(key, value)| (key, Identity, value);
        let of_partition = self.partitioning().map(|task| task.settings(self));
        let of_backfill = self.backfill().map(|task| task.settings().map(identity).to_vec());
        let of_retype = self
            .retype()
            .map(|task| task.settings().map(identity).into_iter().chain(self.of_swap()).collect::<Vec<_>>());
        let of_task = [of_partition, of_backfill, of_retype].into_iter().flatten().flatten();
        let throttle = self.throttle.settings().map(|(key, value)| (key, Tunable, value));
        common
            .into_iter()
            .chain(of_task)
            .chain(throttle)
            .filter_map(|(key, part, value)| Some((key, part, value?)))
            .collect()
    }
}

impl Plan {
    /// The settings that only jobs with a swap have.
    fn of_swap(&self) -> [(&'static str, Significance, Option<Value>); 3] {
        // This default was added later. It is omitted, so that plans of older jobs do not change.
        let old_snapshots = Some(self.old_snapshots).filter(|one| *one != OldSnapshots::Wait);
        [
            ("swap.when", Significance::Tunable, Some(self.when.name().into())),
            ("swap.old_snapshots", Significance::Tunable, old_snapshots.map(|one| one.name().into())),
            ("swap.keep_old", Significance::Tunable, Some(duration_text(self.keep_old).into())),
        ]
    }
}

impl Partitioning {
    fn settings(&self, plan: &Plan) -> Vec<(&'static str, Significance, Option<Value>)> {
        use Significance::{Identity, Tunable};
        let interval = |every| match every {
            Every::Integers(n) => Value::from(n),
            every => every.to_string().into(),
        };
        let drop_unique: Vec<String> = self.drop_unique.iter().map(|name| plain(name)).collect();
        let drop_unique = (!drop_unique.is_empty()).then(|| drop_unique.into());
        // This default was added later. It is omitted, so that the identity of older jobs does not change.
        let incoming = (self.incoming_keys != IncomingKeys::Keep).then(|| self.incoming_keys.name().into());
        let not_null = self.not_null.then_some(Value::Boolean(true));
        let keep_unique = match &self.keep_unique {
            KeepUnique::Needed => None,
            KeepUnique::All => Some(Value::Boolean(true)),
            KeepUnique::None => Some(Value::Boolean(false)),
            KeepUnique::Listed(names) => {
                Some(names.iter().map(|name| plain(name)).collect::<Vec<_>>().into())
            }
        };
        let mut all = vec![
            ("partition.by", Identity, Some(plain(&self.by).into())),
            ("partition.not_null", Identity, not_null),
            ("partition.null_as", Identity, self.null_as.clone().map(Value::from)),
            ("partition.every", Identity, Some(interval(self.every))),
            ("partition.timezone", Identity, Some(self.timezone.name().into())),
            ("partition.from", Identity, self.from.clone().map(Value::from)),
            ("partition.to", Identity, self.to.clone().map(Value::from)),
            ("partition.ahead", Identity, Some(self.ahead.into())),
            ("partition.names", Identity, self.names.clone().map(Value::from)),
            ("partition.default", Identity, Some(self.default.into())),
            ("partition.keep_unique", Identity, keep_unique),
            ("partition.drop_unique", Identity, drop_unique),
            ("copy.order", Identity, Some(self.order.name().into())),
            ("verify.rows", Identity, Some(self.verify.name().into())),
            ("dependents.incoming_fk", Identity, incoming),
            ("retention.keep", Tunable, self.retention.map(|r| interval(r.keep))),
            ("retention.how", Tunable, self.retention.map(|r| r.how.name().into())),
        ];
        all.extend(plan.of_swap());
        all
    }
}

/// The text of a setting for messages: strings without quotes.
fn display(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(many) => many.iter().map(display).collect::<Vec<_>>().join(", "),
        other => other.to_string(),
    }
}

impl Order {
    pub(super) const ALL: [Self; 3] = [Self::Auto, Self::Keyset, Self::Physical];

    /// The name in a plan.
    pub fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Keyset => "keyset",
            Self::Physical => "physical",
        }
    }
}

impl RowComparison {
    pub(super) const ALL: [Self; 2] = [Self::Hash, Self::Count];

    /// The name in a plan.
    pub fn name(self) -> &'static str {
        match self {
            Self::Hash => "hash",
            Self::Count => "count",
        }
    }
}

impl IncomingKeys {
    pub(super) const ALL: [Self; 3] = [Self::Keep, Self::Refuse, Self::Drop];

    /// The name in a plan.
    pub fn name(self) -> &'static str {
        match self {
            Self::Keep => "keep",
            Self::Refuse => "refuse",
            Self::Drop => "drop",
        }
    }
}

impl When {
    pub(super) const ALL: [Self; 2] = [Self::Manual, Self::Verified];

    /// The name in a plan.
    pub fn name(self) -> &'static str {
        match self {
            Self::Manual => "manual",
            Self::Verified => "verified",
        }
    }
}

impl OldSnapshots {
    pub(super) const ALL: [Self; 3] = [Self::Wait, Self::Cancel, Self::Accept];

    /// The name in a plan.
    pub fn name(self) -> &'static str {
        match self {
            Self::Wait => "wait",
            Self::Cancel => "cancel",
            Self::Accept => "accept",
        }
    }
}

/// The duration in its largest whole unit. `humantime` alone would write `30 days` as a month less some hours.
pub(super) fn duration_text(duration: Duration) -> String {
    const UNITS: [(u128, &str); 4] = [(86_400_000, " days"), (3_600_000, "h"), (1000, "s"), (1, "ms")];
    let ms = duration.as_millis();
    if duration.is_zero() || !duration.as_nanos().is_multiple_of(1_000_000) {
        return humantime::format_duration(duration).to_string();
    }
    let unit = UNITS.into_iter().find(|(length_ms, _)| ms.is_multiple_of(*length_ms));
    unit.map_or_else(String::new, |(length_ms, name)| format!("{}{name}", ms / length_ms))
}
