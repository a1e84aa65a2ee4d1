#!/usr/bin/env bash
# The tool against the same work as plain SQL from psql, in one run: copy and index, and verify, on a bigint and a uuid key.
#
# Usage: benches/figures.sh [rows]     (default 2,000,000; needs psql and a server that PG* or DATABASE_URL name, and an
# empty database in it: the tables bench_* and the schema pgstrata are dropped and made again)
#
# The plain side is what a careful person would write by hand: chunks (20,000 rows by key, or 600 blocks by ctid) in two
# sessions into partitions without indexes, then each partition's indexes in two sessions. No capture, no ledger.
set -euo pipefail
rows=${1:-2000000}
bin=${PGSTRATA:-target/release/pgstrata}
db=${DATABASE_URL:-}
here=$(mktemp -d)
trap 'rm -rf "$here"' EXIT
sql() { psql -XqAt -v ON_ERROR_STOP=1 ${db:+"$db"} "$@"; }
now() { date +%s.%N; }
since() { echo "$(now) - $1" | bc; }
ratio() { echo "scale=2; $1 / $2" | bc; }

make_table() { # key type, its expression
  sql -c "set client_min_messages = error" -c "drop table if exists bench_t, bench_plain cascade" \
    -c "create table bench_t (id $1 primary key, created_at timestamptz not null, site integer not null, a text, b text,
          n numeric, f double precision, ok boolean, d date, c integer, s smallint)" \
    -c "insert into bench_t select $2, '2024-01-01'::timestamptz + g * interval '1 second' * (63072000.0 / $rows), g % 100,
          'name ' || g, md5(g::text), g * 1.5, g / 3.0, g % 2 = 0, '2024-01-01'::date + g % 700, g, g % 1000
        from generate_series(0, $rows - 1) g" \
    -c "create index bench_created on bench_t (created_at)" -c "create index bench_site on bench_t (site, created_at)" \
    -c "create index bench_c on bench_t (c)" -c "vacuum analyze bench_t" -c "checkpoint"
}

# The months' partitions, without indexes.
make_plain() {
  sql -c "create table bench_plain (like bench_t including defaults) partition by range (created_at)" -c "
    do \$\$ declare m date; begin
      for m in select generate_series('2024-01-01'::date, '2025-12-01', '1 month') loop
        execute format('create table %I partition of bench_plain for values from (%L) to (%L)',
          'bench_plain_' || to_char(m, 'YYYYMM'), m::text || ' 00:00+00', (m + interval '1 month')::date::text || ' 00:00+00');
      end loop; end \$\$"
}

# Two sessions take every other line of a file of statements, as transactions of their own.
in_two() {
  awk 'NR % 2 == 1' "$1" >"$here/odd" && awk 'NR % 2 == 0' "$1" >"$here/even"
  sql -f "$here/odd" & sql -f "$here/even" & wait
}

chunks_by_key() {
  sql -c "select format('insert into bench_plain select * from bench_t where id > %L and id <= %L;', lag(id) over (order by id), id)
    from (select id, row_number() over (order by id) n from bench_t) k where n % 20000 = 0 or n = $rows" |
    sed 's/id > NULL and //' >"$here/chunks"
}

chunks_by_block() {
  sql -c "select format('insert into bench_plain select * from bench_t where ctid >= ''(%s,0)'' and ctid < ''(%s,0)'';', b, b + 600)
    from generate_series(0, pg_relation_size('bench_t') / 8192, 600) b" >"$here/chunks"
}

index_statements() {
  sql -c "select format('create unique index on %1\$I (id, created_at);
create index on %1\$I (created_at);
create index on %1\$I (site, created_at);
create index on %1\$I (c);', relname) from pg_class where relname like 'bench_plain_2%' and relkind = 'r' order by relname" >"$here/indexes"
}

report() { printf '%-34s %8.2f s  %8.2f s  %6s  goal %s\n' "$1" "$2" "$3" "$(ratio "$2" "$3")" "$4"; }

one() { # key type, expression, order
  local began plain_copy plain_index
  make_table "$1" "$2"
  make_plain
  "chunks_by_$3"
  index_statements
  began=$(now); in_two "$here/chunks"; plain_copy=$(since "$began")
  began=$(now); in_two "$here/indexes"; plain_index=$(since "$began")
  sql -c "drop table bench_plain" -c "set client_min_messages = error" -c "drop schema if exists pgstrata cascade" -c "checkpoint"
  printf 'name = "bench"\ntable = "bench_t"\n[partition]\nby = "created_at"\nevery = "1 month"\nahead = 0\n[copy]\nworkers = 2\n' >"$here/plan.toml"
  /usr/bin/time -f '%M' -o "$here/memory" "$bin" run "$here/plan.toml" --json ${db:+--dsn "$db"} >"$here/events" 2>"$here/errors" ||
    { cat "$here/errors"; exit 1; }
  seconds() { grep '"event":"done"' "$here/events" | grep "\"phase\":\"$1\"" | sed 's/.*"seconds":\([0-9.]*\).*/\1/'; }
  local copy index verify
  copy=$(seconds copy) index=$(seconds index) verify=$(seconds verify)
  report "$1: copy" "$copy" "$plain_copy" "-"
  report "$1: index" "$index" "$plain_index" "-"
  report "$1: copy and index" "$(echo "$copy + $index" | bc)" "$(echo "$plain_copy + $plain_index" | bc)" "1.3"
  report "$1: verify, of the copy" "$verify" "$copy" "0.5"
  "$bin" swap bench --json ${db:+--dsn "$db"} >/dev/null
  printf '%-34s %s\n' "$1: swap" "$(sql -c "select detail from pgstrata.events where what = 'lock held' order by id desc limit 1")"
  printf '%-34s %8.1f MB          goal 40\n' "$1: memory of the process" "$(echo "$(tail -n 1 "$here/memory") / 1024" | bc -l)"
  "$bin" finalize bench --now --quiet ${db:+--dsn "$db"}
}

printf '%s rows, 24 partitions, key and three indexes; two workers; %s\n' "$rows" "$(sql -c 'show server_version')"
printf '%-34s %10s  %10s  %6s\n' "" "pgstrata" "plain SQL" "ratio"
one bigint g key
one uuid "gen_random_uuid()" block
