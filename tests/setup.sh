#!/bin/sh
# Installs what is missing of what is asked for: server (PostgreSQL 14 or later), pgbouncer, lints (rustfmt, clippy).
# Says in one line what it installs; is silent, and touches no network, when all is there.
set -eu

say() { echo "setup: $*" >&2; }
has() { command -v "$1" >/dev/null 2>&1; }
fail() { say "$*"; exit 1; }

as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"
    elif has sudo; then sudo "$@"
    else fail "this takes root: run it as root, or install sudo"; fi
}

# Debian's packages, then Homebrew's, for one thing.
install() {
    if has apt-get; then
        say "installing $1 with apt-get"
        as_root env DEBIAN_FRONTEND=noninteractive sh -c '
            apt-get -qq update &&
            apt-get -qq -y --no-install-recommends -o DPkg::Lock::Timeout=300 install "$@"' sh $1 >/dev/null
    elif has brew; then
        say "installing $2 with brew"
        HOMEBREW_NO_AUTO_UPDATE=1 brew install --quiet "$2" >/dev/null
    else
        fail "there is neither apt-get nor brew: install $2 by hand"
    fi
}

# The same places, in the same order, as src/demo/server.rs.
server_dirs() {
    if [ -n "${PGSTRATA_PG_BIN:-}" ]; then
        echo "$PGSTRATA_PG_BIN"
        return
    fi
    if has initdb; then dirname "$(realpath "$(command -v initdb)")"; fi
    ls -d /usr/lib/postgresql/*/bin /opt/homebrew/opt/postgresql@*/bin /usr/local/opt/postgresql@*/bin 2>/dev/null || true
}

has_server() {
    for dir in $(server_dirs); do
        for program in initdb pg_ctl pg_basebackup pgbench; do
            [ -x "$dir/$program" ] || continue 2
        done
        major=$("$dir/postgres" --version | sed 's/^[^0-9]*\([0-9]*\).*/\1/') || continue
        [ "$major" -ge 14 ] && return
    done
    return 1
}

# Debian has it in /usr/sbin, which is not in everyone's path.
has_pgbouncer() { has pgbouncer || [ -x /usr/sbin/pgbouncer ]; }

has_lints() { cargo fmt --version >/dev/null 2>&1 && cargo clippy --version >/dev/null 2>&1; }

has cargo || fail "there is no cargo: install Rust first, https://rustup.rs"
has cc || install "gcc libc6-dev" gcc
for thing in "$@"; do
    case $thing in
    server)
        has_server && continue
        [ -z "${PGSTRATA_PG_BIN:-}" ] || fail "$PGSTRATA_PG_BIN (PGSTRATA_PG_BIN) holds no PostgreSQL 14 or later"
        install postgresql postgresql@17
        has_server || fail "the system's packages hold no PostgreSQL 14 or later: see https://www.postgresql.org/download/"
        ;;
    pgbouncer)
        has_pgbouncer || install pgbouncer pgbouncer || say "pgbouncer is not to be had: its test will fail"
        ;;
    lints)
        has_lints && continue
        has rustup || fail "rustfmt and clippy are missing, and there is no rustup to install them with"
        say "installing rustfmt and clippy with rustup"
        rustup --quiet component add rustfmt clippy
        ;;
    *) fail "unknown: $thing" ;;
    esac
done
