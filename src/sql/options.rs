//! Documented storage parameters. The catalogs of some builds also contain internal parameters, which no statement can
//! set; they are neither carried over nor compared.

/// The names of the parameters for each kind of relation, as a regular expression. Other access methods define their
/// own parameters.
const KNOWN: &str = "case {kind}
    when 'heap' then '^(fillfactor|toast_tuple_target|parallel_workers|user_catalog_table|vacuum_index_cleanup|vacuum_truncate|vacuum_max_eager_freeze_failure_rate|log_autovacuum_min_duration|log_autoanalyze_min_duration|autovacuum_[a-z_]+)='
    when 'toast' then '^(vacuum_index_cleanup|vacuum_truncate|vacuum_max_eager_freeze_failure_rate|log_autovacuum_min_duration|autovacuum_[a-z_]+)='
    when 'column' then '^(n_distinct|n_distinct_inherited)='
    when 'view' then '^(security_barrier|security_invoker|check_option)='
    when 'btree' then '^(fillfactor|deduplicate_items)='
    when 'hash' then '^fillfactor='
    when 'gist' then '^(fillfactor|buffering)='
    when 'spgist' then '^fillfactor='
    when 'gin' then '^(fastupdate|gin_pending_list_limit)='
    when 'brin' then '^(pages_per_range|autosummarize)='
    else '=' end";

fn known(kind: &str) -> String {
    KNOWN.replace("{kind}", kind)
}

/// The kind of a relation with storage, or of a view; `relation` is its row in `pg_class`.
pub fn kind(relation: &str) -> String {
    format!(
        "case when {relation}.relkind = 'v' then 'view'
      else coalesce((select amname::text from pg_catalog.pg_am where oid = {relation}.relam), 'heap') end"
    )
}

/// The documented parameters in `options` of a relation of that kind, in order, as JSON.
pub fn documented(options: &str, kind: &str) -> String {
    format!(
        "(select coalesce(json_agg(po.o order by po.n), '[]') from unnest({options}) with ordinality po (o, n) where po.o ~ {})",
        known(kind)
    )
}

/// The documented parameters in `options` of a relation of that kind, as an array.
pub fn kept(options: &str, kind: &str) -> String {
    format!("array(select po.o from unnest({options}) po (o) where po.o ~ {})", known(kind))
}

/// A query for the names of the undocumented parameters; `what` is the name of the object that has them.
pub fn others(options: &str, kind: &str, what: &str) -> String {
    format!(
        "select split_part(po.o, '=', 1) || ' of ' || {what} as what from unnest({options}) po (o) where po.o !~ {}",
        known(kind)
    )
}

/// `tail`, the end of the definition of the index with that oid, without undocumented parameters. The parameters follow
/// the first `WITH (` outside quotes.
pub fn documented_tail(tail: &str, oid: &str) -> String {
    let (name, literal) = (r#""(?:[^"]|"")*""#, r"''(?:[^'']|'''')*''");
    format!(
        r#"(select case when px.whole is distinct from px.kept
          then regexp_replace(px.tail, '^((?:{name}|{literal}|[^"''])*?) WITH \((?:{name}|{literal}|[^"'')])*?\)',
            '\1' || coalesce(replace(px.kept, '\', '\\'), ''))
          else px.tail end
        from (select {tail} as tail,
            ' WITH (' || string_agg(pp.piece, ', ' order by po.n) || ')' as whole,
            ' WITH (' || string_agg(pp.piece, ', ' order by po.n) filter (where po.o ~ {}) || ')' as kept
          from pg_catalog.pg_class pi join pg_catalog.pg_am pa on pa.oid = pi.relam
            left join lateral unnest(pi.reloptions) with ordinality po (o, n) on true
            left join lateral (
              select split_part(po.o, '=', 1) as name, substr(po.o, strpos(po.o, '=') + 1) as value) pv on true
            left join lateral (
              select quote_ident(pv.name) || '=' || case when quote_ident(pv.value) = pv.value then pv.value
                else quote_literal(pv.value) end as piece) pp on true
          where pi.oid = {oid}) px)"#,
        known("pa.amname")
    )
}
