//! The TOML of a plan file: sections and keys, checked against the known ones.
//!
//! Values are untyped here. `resolve` reads each value together with its key, so that messages use the terms of the
//! plan and not those of the deserializer.

use serde::Deserialize;
use toml::{
    Spanned, Value,
    de::{DeString, DeTable, DeValue},
};

use super::problem::Problem;

/// A value and its position in the file.
pub(super) type Setting = Spanned<Value>;

/// Every key, by section. The section of the top-level keys has an empty name.
pub(super) const KEYS: [(&str, &[&str]); 10] = [
    ("", &["name", "kind", "table", "trust"]),
    ("backfill", &["add", "from", "set", "where", "keep_filled", "finish", "settings"]),
    ("retype", &["column", "to", "using", "back", "settings"]),
    (
        "partition",
        &[
            "by",
            "not_null",
            "null_as",
            "every",
            "timezone",
            "from",
            "to",
            "ahead",
            "names",
            "default",
            "keep_unique",
            "drop_unique",
        ],
    ),
    ("copy", &["workers", "order", "target_batch_ms"]),
    (
        "throttle",
        &[
            "rows_per_second",
            "wal_bytes_per_second",
            "max_replica_lag",
            "max_replica_lag_bytes",
            "replicas",
            "forget_replica_after",
            "max_slot_retained_bytes",
            "archiver",
            "max_active_backends",
            "max_commit_latency",
            "max_dead_share",
            "query",
            "query_limit",
            "windows",
            "timezone",
        ],
    ),
    ("verify", &["rows"]),
    (
        "swap",
        &[
            "when",
            "lock_timeout",
            "attempts",
            "give_up_after",
            "cancel_blockers_after",
            "old_snapshots",
            "keep_old",
        ],
    ),
    ("dependents", &["incoming_fk"]),
    ("retention", &["keep", "how"]),
];

/// The minimum Jaro-Winkler similarity at which a key is taken for a misspelling of another.
const ALIKE: f64 = 0.8;

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PlanFile {
    pub(super) name: Option<Setting>,
    pub(super) kind: Option<Setting>,
    pub(super) table: Option<Setting>,
    pub(super) trust: Option<Setting>,
    #[serde(default)]
    pub(super) backfill: BackfillSection,
    #[serde(default)]
    pub(super) retype: RetypeSection,
    #[serde(default)]
    pub(super) partition: PartitionSection,
    #[serde(default)]
    pub(super) copy: CopySection,
    #[serde(default)]
    pub(super) throttle: ThrottleSection,
    #[serde(default)]
    pub(super) verify: VerifySection,
    #[serde(default)]
    pub(super) swap: SwapSection,
    #[serde(default)]
    pub(super) dependents: DependentsSection,
    #[serde(default)]
    pub(super) retention: RetentionSection,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a [backfill] section")]
pub(super) struct BackfillSection {
    pub(super) add: Option<Setting>,
    pub(super) from: Option<Setting>,
    pub(super) set: Option<Setting>,
    #[serde(rename = "where")]
    pub(super) filter: Option<Setting>,
    pub(super) keep_filled: Option<Setting>,
    pub(super) finish: Option<Setting>,
    pub(super) settings: Option<Setting>,
}

impl BackfillSection {
    pub(super) fn leaves(&self) -> [(&'static str, &Option<Setting>); 7] {
        [
            ("backfill.add", &self.add),
            ("backfill.from", &self.from),
            ("backfill.set", &self.set),
            ("backfill.where", &self.filter),
            ("backfill.keep_filled", &self.keep_filled),
            ("backfill.finish", &self.finish),
            ("backfill.settings", &self.settings),
        ]
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a [retype] section")]
pub(super) struct RetypeSection {
    pub(super) column: Option<Setting>,
    pub(super) to: Option<Setting>,
    pub(super) using: Option<Setting>,
    pub(super) back: Option<Setting>,
    pub(super) settings: Option<Setting>,
}

impl RetypeSection {
    pub(super) fn leaves(&self) -> [(&'static str, &Option<Setting>); 5] {
        [
            ("retype.column", &self.column),
            ("retype.to", &self.to),
            ("retype.using", &self.using),
            ("retype.back", &self.back),
            ("retype.settings", &self.settings),
        ]
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a [partition] section")]
pub(super) struct PartitionSection {
    pub(super) by: Option<Setting>,
    pub(super) not_null: Option<Setting>,
    pub(super) null_as: Option<Setting>,
    pub(super) every: Option<Setting>,
    pub(super) timezone: Option<Setting>,
    pub(super) from: Option<Setting>,
    pub(super) to: Option<Setting>,
    pub(super) ahead: Option<Setting>,
    pub(super) names: Option<Setting>,
    pub(super) default: Option<Setting>,
    pub(super) keep_unique: Option<Setting>,
    pub(super) drop_unique: Option<Setting>,
}

impl PartitionSection {
    pub(super) fn leaves(&self) -> [(&'static str, &Option<Setting>); 12] {
        [
            ("partition.by", &self.by),
            ("partition.not_null", &self.not_null),
            ("partition.null_as", &self.null_as),
            ("partition.every", &self.every),
            ("partition.timezone", &self.timezone),
            ("partition.from", &self.from),
            ("partition.to", &self.to),
            ("partition.ahead", &self.ahead),
            ("partition.names", &self.names),
            ("partition.default", &self.default),
            ("partition.keep_unique", &self.keep_unique),
            ("partition.drop_unique", &self.drop_unique),
        ]
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a [copy] section")]
pub(super) struct CopySection {
    pub(super) workers: Option<Setting>,
    pub(super) order: Option<Setting>,
    pub(super) target_batch_ms: Option<Setting>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a [throttle] section")]
pub(super) struct ThrottleSection {
    pub(super) rows_per_second: Option<Setting>,
    pub(super) wal_bytes_per_second: Option<Setting>,
    pub(super) max_replica_lag: Option<Setting>,
    pub(super) max_replica_lag_bytes: Option<Setting>,
    pub(super) replicas: Option<Setting>,
    pub(super) forget_replica_after: Option<Setting>,
    pub(super) max_slot_retained_bytes: Option<Setting>,
    pub(super) archiver: Option<Setting>,
    pub(super) max_active_backends: Option<Setting>,
    pub(super) max_commit_latency: Option<Setting>,
    pub(super) max_dead_share: Option<Setting>,
    pub(super) query: Option<Setting>,
    pub(super) query_limit: Option<Setting>,
    pub(super) windows: Option<Setting>,
    pub(super) timezone: Option<Setting>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a [verify] section")]
pub(super) struct VerifySection {
    pub(super) rows: Option<Setting>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a [dependents] section")]
pub(super) struct DependentsSection {
    pub(super) incoming_fk: Option<Setting>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a [swap] section")]
pub(super) struct SwapSection {
    pub(super) when: Option<Setting>,
    pub(super) lock_timeout: Option<Setting>,
    pub(super) attempts: Option<Setting>,
    pub(super) give_up_after: Option<Setting>,
    pub(super) cancel_blockers_after: Option<Setting>,
    pub(super) old_snapshots: Option<Setting>,
    pub(super) keep_old: Option<Setting>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a [retention] section")]
pub(super) struct RetentionSection {
    pub(super) keep: Option<Setting>,
    pub(super) how: Option<Setting>,
}

impl RetentionSection {
    pub(super) fn leaves(&self) -> [(&'static str, &Option<Setting>); 2] {
        [("retention.keep", &self.keep), ("retention.how", &self.how)]
    }
}

/// Reads the text. Returns the file, if it can be read, and the problems so far.
///
/// Unknown keys are removed first, so that all of them are reported, together with problems of the known keys.
pub(super) fn read(text: &str) -> (Option<PlanFile>, Vec<Problem>) {
    let mut root = match DeTable::parse(text) {
        Ok(root) => root,
        Err(error) => return (None, vec![error.into()]),
    };
    let mut problems = take_unknown(root.get_mut());
    match PlanFile::deserialize(toml::Deserializer::from(root)) {
        Ok(file) => (Some(file), problems),
        Err(error) => {
            problems.push(error.into());
            (None, problems)
        }
    }
}

fn take_unknown(root: &mut DeTable<'_>) -> Vec<Problem> {
    let mut problems = Vec::new();
    for (section, known) in KEYS {
        let keys = if section.is_empty() {
            &mut *root
        } else if let Some(DeValue::Table(keys)) = root.get_mut(section).map(Spanned::get_mut) {
            keys
        } else {
            continue;
        };
        let is_known = |key: &str| known.contains(&key) || section.is_empty() && is_section(key);
        let unknown: Vec<_> = keys.keys().filter(|key| !is_known(key.get_ref())).cloned().collect();
        for key in unknown {
            keys.remove(&key);
            problems.push(unknown_key(&key, section, known));
        }
    }
    problems
}

fn is_section(key: &str) -> bool {
    !key.is_empty() && KEYS.iter().any(|(section, _)| *section == key)
}

/// Reports an unknown key. Suggests the most similar of all keys and sections; if none is similar, lists the keys of
/// its section.
fn unknown_key(key: &Spanned<DeString<'_>>, section: &str, known: &[&str]) -> Problem {
    let name = key.get_ref().as_ref();
    let sections = KEYS.iter().map(|(section, _)| (*section, "")).filter(|(section, _)| !section.is_empty());
    let keys = KEYS.iter().flat_map(|(section, keys)| keys.iter().map(move |key| (*section, *key)));
    let scored = sections.chain(keys).map(|(at, key)| {
        let written = if key.is_empty() { at } else { key };
        (strsim::jaro_winkler(&name.to_lowercase(), written), at, key)
    });
    // If two are equally similar, prefer the one of the same section.
    let nearest = scored.max_by(|a, b| a.0.total_cmp(&b.0).then((a.1 == section).cmp(&(b.1 == section))));
    let hint = match nearest.filter(|(similarity, _, _)| *similarity >= ALIKE) {
        Some((_, at, "")) => format!("did you mean section [{at}]?"),
        Some((_, at, key)) if at == section => format!("did you mean `{key}`?"),
        Some((_, at, key)) => format!("did you mean `{key}` {}?", in_section(at)),
        None => format!("known {}: {}", in_section(section), known.join(", ")),
    };
    Problem::new(Some(key.span()), format!("unknown key `{name}` {}", in_section(section))).hint(hint)
}

fn in_section(section: &str) -> String {
    if section.is_empty() { "at the top of the file".to_owned() } else { format!("under [{section}]") }
}
