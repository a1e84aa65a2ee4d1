#!/bin/sh
# Creates a standby of the server at PGHOST, unless it exists, and runs it. It replays WAL with a delay of APPLY_DELAY.
# Arguments are passed to the server.
set -eu

if [ ! -s "$PGDATA/PG_VERSION" ]; then
    pg_basebackup -D "$PGDATA" -R -X stream -c fast
    chmod 700 "$PGDATA"
fi
# In the file instead of on the command line, so that ALTER SYSTEM can change it.
echo "recovery_min_apply_delay = '${APPLY_DELAY:-15s}'" >> "$PGDATA/postgresql.conf"
exec postgres -D "$PGDATA" -c hot_standby=on -c cluster_name=standby "$@"
