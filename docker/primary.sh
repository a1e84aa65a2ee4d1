#!/bin/sh
# Sets up the primary once: allows replication, and creates the table of plans/gasifier_observations.toml with ROWS rows.
set -eu

echo "host replication all all trust" >> "$PGDATA/pg_hba.conf"

psql -X -v ON_ERROR_STOP=1 -v rows="${ROWS:-2000000}" -U "${POSTGRES_USER:-postgres}" -d "$POSTGRES_DB" <<'SQL'
create table gasifier_observations (
    observation_id uuid primary key default gen_random_uuid(),
    created_at timestamptz not null default now(),
    phenotype text not null,
    notes text
);
insert into gasifier_observations (created_at, phenotype, notes)
    select timestamptz '2024-01-01 00:00Z' + (i::float8 / :rows) * interval '731 days', 'phenotype ' || i % 7, repeat('x', 100)
    from generate_series(0, :rows - 1) i;
create index on gasifier_observations (created_at);
analyze gasifier_observations;
SQL
