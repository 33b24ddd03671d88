#!/bin/sh
# Installs the platforms' client libraries, pinned in tests/clients, into
# target/clients. tests/it/clients.rs signs and verifies webhooks with them.
# Nothing is installed outside that folder, and nothing twice.
#
# The lock file holds checksums but no hosts. After a change of package.json run
#   npm install --package-lock-only --omit-lockfile-registry-resolved
set -eu
cd "$(dirname "$0")/.."

pins=$PWD/tests/clients
clients=${CARGO_TARGET_DIR:-target}/clients
stamp=$clients/stamp

say() { printf 'clients: %s\n' "$*"; }
die() { printf 'clients: %s\n' "$*" >&2; exit 1; }
have() { command -v "$1" >/dev/null 2>&1; }

# deploy/setup.sh checks the versions. These checks are for direct calls of this script.
hint="run 'deploy/setup.sh --for-tests', which installs it or prints how to"
have python3 || die "python3 is missing: $hint"
python3 -c 'import venv, ensurepip' 2>/dev/null || die "python3 has no venv: $hint"
have node || die "node is missing: $hint"
have npm || die "npm is missing: $hint"

# The Python version is part of the stamp: another one cannot use this venv.
wanted=$({ python3 --version; cat "$pins/requirements.txt" "$pins"/package*.json; } | cksum)
if [ -x "$clients/venv/bin/python" ] && [ "$(cat "$stamp" 2>/dev/null)" = "$wanted" ]; then
    say "ready: $clients"
    exit 0
fi

rm -rf "$clients"
mkdir -p "$clients"
say "pip: installing tests/clients/requirements.txt into $clients/venv"
python3 -m venv "$clients/venv"
"$clients/venv/bin/python" -m pip install --quiet --disable-pip-version-check \
    --requirement "$pins/requirements.txt" || die "pip failed; see its message above"

say "npm: installing tests/clients/package-lock.json into $clients/node_modules"
cp "$pins"/package*.json "$clients"
# npm prints only package counts to standard output.
(cd "$clients" && npm ci --ignore-scripts --no-audit --no-fund --no-update-notifier >/dev/null) ||
    die "npm failed; see its message above"

# Written last, so that an interrupted installation starts again.
printf '%s\n' "$wanted" >"$stamp"
say "ready: $clients"
