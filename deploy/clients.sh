#!/bin/sh
# Makes target/clients: the platforms' own libraries, as pinned in tests/clients,
# with which tests/it/clients.rs signs and verifies webhooks. They go nowhere
# else, and what is there already is not installed again.
#
# The lock file holds checksums and no hosts; after a change of package.json:
#   npm install --package-lock-only --omit-lockfile-registry-resolved
set -eu
cd "$(dirname "$0")/.."

pins=$PWD/tests/clients
clients=${CARGO_TARGET_DIR:-target}/clients
stamp=$clients/stamp

say() { printf 'clients: %s\n' "$*"; }
die() { printf 'clients: %s\n' "$*" >&2; exit 1; }
have() { command -v "$1" >/dev/null 2>&1; }

# deploy/setup.sh knows the versions; this is for who comes without it.
hint="run 'deploy/setup.sh --for-tests', which installs it or says how"
have python3 || die "python3 is missing: $hint"
python3 -c 'import venv, ensurepip' 2>/dev/null || die "python3 has no venv: $hint"
have node || die "node is missing: $hint"
have npm || die "npm is missing: $hint"

# Another Python would not find what was installed for this one.
wanted=$({ python3 --version; cat "$pins/requirements.txt" "$pins"/package*.json; } | cksum)
if [ -x "$clients/venv/bin/python" ] && [ "$(cat "$stamp" 2>/dev/null)" = "$wanted" ]; then
    say "ready: $clients"
    exit 0
fi

rm -rf "$clients"
mkdir -p "$clients"
say "installing with pip what tests/clients/requirements.txt pins, into $clients/venv"
python3 -m venv "$clients/venv"
"$clients/venv/bin/python" -m pip install --quiet --disable-pip-version-check \
    --requirement "$pins/requirements.txt" || die "pip failed; see its message above"

say "installing with npm what tests/clients/package-lock.json pins, into $clients/node_modules"
cp "$pins"/package*.json "$clients"
# Standard output would only count packages.
(cd "$clients" && npm ci --ignore-scripts --no-audit --no-fund --no-update-notifier >/dev/null) ||
    die "npm failed; see its message above"

# Last, so that what was broken off halfway is begun anew.
printf '%s\n' "$wanted" >"$stamp"
say "ready: $clients"
