//! How much space the job's relations take.

/// Bytes of a table with its partitions, indexes and TOAST; 0 where there is none. `$1`: its name.
pub const TREE: &str = "select coalesce(sum(pg_catalog.pg_total_relation_size(oid)), 0)::bigint from (
  select pg_catalog.to_regclass($1::text)::oid as oid
  union
  select relid::oid from pg_catalog.pg_partition_tree(pg_catalog.to_regclass($1::text))) r
where oid is not null";

/// Bytes of one relation; 0 where there is none. `$1`: its name.
pub const RELATION: &str =
    "select coalesce(pg_catalog.pg_total_relation_size(pg_catalog.to_regclass($1::text)), 0)::bigint";
