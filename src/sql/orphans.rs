//! Finds rows that violate a foreign key that is marked as valid, because they were written while its triggers were
//! disabled. The validation of the key after a swap would fail for them.

/// Returns the text of a query for the key called `$2` on the relation with oid `$1`; no row if there is no such key,
/// or if it compares periods. That query returns a row for each of up to [`EXAMPLES`] orphans: their total number, the
/// key of the row, and the values that reference no row.
pub const QUERY: &str = "
select pg_catalog.format(
  'select count(*) over (), %s, %s from %s%I.%I k where %s and not exists (select from %s%I.%I r where %s) limit 5',
  coalesce((
    select 'pg_catalog.concat_ws('', '', ' || string_agg(pg_catalog.format('k.%I', a.attname), ', ' order by p.place) || ')'
    from pg_catalog.pg_index x cross join unnest(x.indkey::int2[]) with ordinality p (attnum, place)
      join pg_catalog.pg_attribute a on a.attrelid = x.indrelid and a.attnum = p.attnum
    where x.indrelid = f.conrelid and x.indisprimary and p.place <= x.indnkeyatts), 'k.ctid::text'), -- The output of a value, not a cast, which the owner of its type could have made.
  'pg_catalog.concat_ws('', '', ' || c.shown || ')',
  case when t.relkind = 'p' then '' else 'only ' end, tn.nspname, t.relname, '(' || c.given || ')',
  case when r.relkind = 'p' then '' else 'only ' end, rn.nspname, r.relname, c.matches)
from pg_catalog.pg_constraint f
  join pg_catalog.pg_class t on t.oid = f.conrelid join pg_catalog.pg_namespace tn on tn.oid = t.relnamespace
  join pg_catalog.pg_class r on r.oid = f.confrelid join pg_catalog.pg_namespace rn on rn.oid = r.relnamespace
  cross join lateral (
    select string_agg(pg_catalog.format('case when k.%2$I is not null then pg_catalog.concat(%1$L, k.%2$I) end', a.attname || ' ', a.attname),
        ', ' order by p.place) as shown,
      string_agg(pg_catalog.format('k.%I is not null', a.attname),
        case f.confmatchtype when 'f' then ' or ' else ' and ' end order by p.place) as given,
      string_agg(pg_catalog.format('r.%I operator(%I.%s) k.%I', b.attname, n.nspname, o.oprname, a.attname),
        ' and ' order by p.place) as matches
    from unnest(f.conkey, f.confkey, f.conpfeqop) with ordinality p (attnum, referenced, operator, place)
      join pg_catalog.pg_attribute a on a.attrelid = f.conrelid and a.attnum = p.attnum
      join pg_catalog.pg_attribute b on b.attrelid = f.confrelid and b.attnum = p.referenced
      join pg_catalog.pg_operator o on o.oid = p.operator join pg_catalog.pg_namespace n on n.oid = o.oprnamespace
  ) c
where f.contype = 'f' and f.conrelid = $1 and f.conname::text = $2
  and to_jsonb(f) ->> 'conperiod' is distinct from 'true'";

/// The maximum number of rows that are listed.
pub const EXAMPLES: usize = 5;

/// Limits the duration of the query.
pub fn limit(milliseconds: u128) -> String {
    format!("set local statement_timeout = {}", milliseconds.max(1))
}
