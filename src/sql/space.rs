//! The disk space of a job's relations.

/// The size in bytes of the table called `$1`, with its partitions, indexes and TOAST table; 0 if it does not exist.
pub const TREE: &str = "select coalesce(sum(pg_catalog.pg_total_relation_size(oid)), 0)::bigint from (
  select pg_catalog.to_regclass($1::text)::oid as oid
  union
  select relid::oid from pg_catalog.pg_partition_tree(pg_catalog.to_regclass($1::text))) r
where oid is not null";

/// The size in bytes of the relation called `$1`; 0 if it does not exist.
pub const RELATION: &str =
    "select coalesce(pg_catalog.pg_total_relation_size(pg_catalog.to_regclass($1::text)), 0)::bigint";
