#!/bin/sh
# Refreshes the query data in .sqlx. The compiler checks the queries in src/store
# against this data, without a database.
#
#   deploy/sqlx.sh           write .sqlx
#   deploy/sqlx.sh --check   fail if .sqlx does not match the queries and migrations
set -eu
cd "$(dirname "$0")/.."

bin=${TALLYHOOK_POSTGRES_BIN:-$(printf '%s\n' /usr/lib/postgresql/*/bin | sort -t / -k 5,5nr | head -n 1)}
[ -x "$bin/initdb" ] || bin=$(pg_config --bindir)

# A private server on its own socket, stopped and deleted when this script ends.
scratch=$(mktemp -d)
runas=
if [ "$(id -u)" -eq 0 ]; then
    chown postgres "$scratch" 2>/dev/null && runas='setpriv --reuid=postgres --regid=postgres --clear-groups'
fi
stop() {
    $runas "$bin/pg_ctl" -D "$scratch/data" -m immediate -w stop >/dev/null 2>&1 || :
    rm -rf "$scratch"
}
trap stop EXIT
trap 'exit 130' INT TERM

$runas "$bin/initdb" -D "$scratch/data" -U postgres -A trust --no-sync -E UTF8 --locale=C >/dev/null
$runas "$bin/pg_ctl" -D "$scratch/data" -l "$scratch/log" -w start \
    -o "-c listen_addresses= -c unix_socket_directories=$scratch -c fsync=off" >/dev/null
cat migrations/*.sql | "$bin/psql" -h "$scratch" -U postgres -q --single-transaction -v ON_ERROR_STOP=1 >/dev/null

fresh=$scratch/sqlx
mkdir "$fresh"
# Query data is written only when a query is compiled, so force a compilation.
touch src/lib.rs
encoded=$(printf '%s' "$scratch" | sed 's|/|%2F|g')
DATABASE_URL="postgres://postgres@localhost?host=$encoded" SQLX_OFFLINE=false \
    SQLX_OFFLINE_DIR="$fresh" cargo check --locked --lib --quiet

if [ "${1:-}" = --check ]; then
    diff -r .sqlx "$fresh" || {
        echo "sqlx: the query data is out of date; run make sqlx and commit .sqlx" >&2
        exit 1
    }
    echo "sqlx: the query data is up to date"
else
    rm -rf .sqlx
    cp -r "$fresh" .sqlx
    echo "sqlx: wrote $(find .sqlx -name '*.json' | wc -l) queries"
fi
