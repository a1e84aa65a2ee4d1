//! Answers: settings that resolve findings of the check. Determines which key of a plan resolves a finding, and which
//! answers `pgstrata plan` writes.

use super::check;
use crate::model::finding::Finding;
use crate::model::ident::plain;
use crate::model::table::Table;

/// Settings of a drafted plan that resolve findings.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Answers {
    /// Unique indexes whose guarantee is given up; names as in the catalog.
    pub drop_unique: Vec<String>,
    /// Whether the job keeps NULL out of the partition column.
    pub not_null: bool,
    /// Whether foreign keys that cannot refer to the partitioned table are dropped.
    pub drop_incoming: bool,
}

impl Answers {
    /// Adds the setting that resolves the finding. Returns whether it is new.
    pub(super) fn take(&mut self, table: &Table, finding: &Finding) -> bool {
        match finding.code {
            "unique_without_partition_column" | "unique_on_expression" => {
                let index = table.indexes.iter().find(|index| plain(index.name.as_str()) == finding.object);
                let Some(index) = index.map(|index| index.name.as_str().to_owned()) else { return false };
                let new = !self.drop_unique.contains(&index);
                if new {
                    self.drop_unique.push(index);
                }
                new
            }
            "no_usable_key" if check::nullable_columns(table).is_empty() => false,
            "nullable_partition_column" | "no_usable_key" => !std::mem::replace(&mut self.not_null, true),
            // Some keys can only be dropped by hand: they are reported again after this setting was added.
            "incoming_foreign_key" => !std::mem::replace(&mut self.drop_incoming, true),
            _ => false,
        }
    }
}

/// The key of the plan, with its section, that resolves a finding; `table` if no key does.
pub(super) fn key_of(code: &str) -> &'static str {
    match code {
        "job_name_taken" | "job_under_way" => "name",
        "untrusted_code" | "untrusted_object" | "untrusted_schema" => "trust",
        "no_such_column"
        | "unusable_type"
        | "generated_partition_column"
        | "no_index_on_partition_column"
        | "no_usable_key"
        | "key"
        | "key_widened"
        | "bound_to_key"
        | "view_bound_to_key"
        | "on_conflict_key"
        | "trigger_moves_row" => "partition.by",
        "nullable_partition_column" | "null_rejected" | "null_in_key" | "not_null_already" => {
            "partition.not_null"
        }
        "null_in_partition_column" | "null_filled" | "null_as_null" => "partition.null_as",
        "interval" | "partitions" => "partition.every",
        "bounds" | "rows_outside_bounds" => "partition.from",
        "partition_names" | "name_taken" | "names_collide" => "partition.names",
        "infinite_values" => "partition.default",
        "unique_without_partition_column" | "unique_on_expression" | "drop_unique" | "unique_given_up" => {
            "partition.drop_unique"
        }
        "incoming_foreign_key" | "incoming_foreign_key_dropped" => "dependents.incoming_fk",
        "connection_limit" => "copy.workers",
        "replicas_hidden" => "throttle.replicas",
        "lock_timeout_too_long" => "swap.lock_timeout",
        "strict_isolation" => "swap.old_snapshots",
        _ => "table",
    }
}

/// The same for a backfill.
pub(super) fn key_of_backfill(code: &str) -> &'static str {
    match code {
        "no_such_column"
        | "generated_column"
        | "identity_column"
        | "sets_key"
        | "sets_partition_column"
        | "constrained_domain"
        | "sql_refused"
        | "type_mismatch"
        | "volatile_expression"
        | "set_column_pointed_to"
        | "index_on_set_column" => "backfill.set",
        "volatile_default" | "too_many_columns" | "partition_column" => "backfill.add",
        "from_read_by_every_chunk" | "row_yielded_twice" => "backfill.from",
        "volatile_where" | "row_still_matches" => "backfill.where",
        "plan_settings" => "backfill.settings",
        "finish_refused"
        | "finish_untried"
        | "finish_alike"
        | "finish_there"
        | "foreign_key_unread"
        | "foreign_key_columns"
        | "not_null_for_writers"
        | "not_null_already" => "backfill.finish",
        code => key_of_any(code),
    }
}

/// The same for a column type change.
pub(super) fn key_of_retype(code: &str) -> &'static str {
    match code {
        "no_such_column"
        | "generated_column"
        | "partition_column"
        | "column_in_use"
        | "deferrable_constraint"
        | "nulls_not_distinct"
        | "foreign_key_of_partitioned"
        | "child_keeps_type"
        | "column_moves"
        | "sequence_not_owned"
        | "sequence_made_anew" => "retype.column",
        "already_that_type" | "type_refused" | "foreign_key_types" | "not_in_new_type" | "cuts_values"
        | "refused_early" => "retype.to",
        "sql_refused" | "volatile_expression" | "type_mismatch" => "retype.using",
        "plan_settings" => "retype.settings",
        code => key_of_any(code),
    }
}

/// The key for findings of every kind of job.
fn key_of_any(code: &str) -> &'static str {
    let key = key_of(code);
    if key.starts_with("partition.") || key.starts_with("dependents.") { "table" } else { key }
}
