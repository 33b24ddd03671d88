#!/bin/sh
# Checks that this machine can build Tallyhook and run the private servers that
# `tallyhook dev`, the tests and the demo start. Installs missing packages.
#
#   deploy/setup.sh           install missing packages, or print what to install
#   deploy/setup.sh --check   only report; exit 1 if something is missing
#
# --for-tests, as the first argument, adds what only the tests need: Python and
# Node.js run the platforms' client libraries, and promtool (Debian package
# prometheus) checks the alert rules.
#
# Only the programs are needed. The script leaves no service running, none
# enabled at boot, and no database cluster behind.

set -eu

readonly POSTGRES_MIN=15
readonly RABBITMQ_MIN=3.10
readonly CARGO_MIN=1.94
# Required by the libraries pinned in tests/clients. Debian 12 has both.
readonly PYTHON_MIN=3.10
readonly NODE_MIN=18
# The oldest release that the rule tests were run with. Debian 12 has it.
readonly PROMTOOL_MIN=2.42

say() { printf 'setup: %s\n' "$*"; }
complain() { printf 'setup: %s\n' "$*" >&2; }
die() { complain "$@"; exit 1; }
have() { command -v "$1" >/dev/null 2>&1; }

# at_least MINIMUM VERSION: compares MAJOR.MINOR as numbers, so that 3.9 < 3.10.
at_least() {
    [ -n "$2" ] || return 1
    want_major=${1%%.*}
    got_major=${2%%.*}
    case $1 in *.*) want_minor=${1#*.} ;; *) want_minor=0 ;; esac
    case $2 in *.*) got_minor=${2#*.} ;; *) got_minor=0 ;; esac
    got_minor=${got_minor%%.*}
    [ "$got_major" -gt "$want_major" ] ||
        { [ "$got_major" -eq "$want_major" ] && [ "$got_minor" -ge "$want_minor" ]; }
}

# The first dotted number in standard input: "postgres (PostgreSQL) 15.13" -> 15.13
first_number() { sed -n 's/^[^0-9]*\([0-9][0-9]*\(\.[0-9][0-9]*\)*\).*/\1/p' | head -n 1; }

# --- installed programs ----------------------------------------------------------
# Searched in the same order as in src/tools/dev/servers/binaries.rs; keep both alike.

postgres_folder() {
    if [ -n "${TALLYHOOK_POSTGRES_BIN:-}" ]; then
        printf '%s\n' "$TALLYHOOK_POSTGRES_BIN"
        return
    fi
    {
        printf '%s\n' /usr/lib/postgresql/*/bin | sort -t / -k 5,5nr
        if have pg_config; then pg_config --bindir; fi
        if have postgres; then dirname "$(command -v postgres)"; fi
    } | while IFS= read -r folder; do
        if [ -x "$folder/postgres" ] && [ -x "$folder/initdb" ]; then
            printf '%s\n' "$folder"
            break
        fi
    done
}

postgres_version() {
    folder=$(postgres_folder)
    [ -n "$folder" ] && [ -x "$folder/initdb" ] || return 0
    "$folder/postgres" --version 2>/dev/null | first_number
}

rabbitmq_script() {
    if [ -n "${TALLYHOOK_RABBITMQ_BIN:-}" ]; then
        printf '%s\n' "$TALLYHOOK_RABBITMQ_BIN/rabbitmq-server"
    elif [ -x /usr/lib/rabbitmq/bin/rabbitmq-server ]; then
        # Before PATH, where Debian keeps a wrapper that changes user.
        printf '%s\n' /usr/lib/rabbitmq/bin/rabbitmq-server
    elif have rabbitmq-server; then
        command -v rabbitmq-server
    fi
}

# Read from the name of the plugin folder: asking rabbitmqctl takes seconds.
rabbitmq_version() {
    script=$(rabbitmq_script)
    [ -n "$script" ] && [ -x "$script" ] || return 0
    home=$(dirname "$(dirname "$(readlink -f "$script")")")
    for plugin in "$home"/plugins/rabbit-[0-9]*; do
        [ -e "$plugin" ] || continue
        basename "$plugin" | first_number
        return
    done
}

cargo_version() { if have cargo; then cargo --version 2>/dev/null | first_number; fi; }

# The headers too: a compiler without libc's development files cannot build `ring`.
have_compiler() {
    have cc && printf '#include <stdlib.h>\n' | cc -x c -fsyntax-only - >/dev/null 2>&1
}

# Debian ships part of `venv` in a separate package, so import the modules to find out.
python_version() {
    if have python3 && python3 -c 'import venv, ensurepip' 2>/dev/null; then
        python3 --version 2>/dev/null | first_number
    fi
}

node_version() { if have node; then node --version 2>/dev/null | first_number; fi; }

promtool_version() { if have promtool; then promtool --version 2>&1 | first_number; fi; }

# Prints one line per missing program: its short name, a tab, a description.
missing() {
    version=$(cargo_version)
    at_least "$CARGO_MIN" "$version" ||
        printf 'cargo\tRust %s or later (found: %s)\n' "$CARGO_MIN" "${version:-none}"
    have_compiler || printf 'compiler\ta C compiler with the headers of the C library\n'
    have make || printf 'make\tmake\n'
    version=$(postgres_version)
    at_least "$POSTGRES_MIN" "$version" ||
        printf 'postgresql\tPostgreSQL %s or later, the server (found: %s)\n' "$POSTGRES_MIN" "${version:-none}"
    version=$(rabbitmq_version)
    at_least "$RABBITMQ_MIN" "$version" ||
        printf 'rabbitmq\tRabbitMQ %s or later (found: %s)\n' "$RABBITMQ_MIN" "${version:-none}"
    if [ -n "$for_tests" ]; then missing_for_tests; fi
}

missing_for_tests() {
    version=$(python_version)
    at_least "$PYTHON_MIN" "$version" ||
        printf 'python\tPython %s or later with venv, for the tests (found: %s)\n' "$PYTHON_MIN" "${version:-none}"
    version=$(node_version)
    at_least "$NODE_MIN" "$version" ||
        printf 'node\tNode.js %s or later, for the tests (found: %s)\n' "$NODE_MIN" "${version:-none}"
    have npm || printf 'npm\tnpm, for the tests\n'
    version=$(promtool_version)
    at_least "$PROMTOOL_MIN" "$version" ||
        printf 'promtool\tpromtool %s or later, part of Prometheus, for the tests (found: %s)\n' "$PROMTOOL_MIN" "${version:-none}"
}

report_ready() {
    tools=${for_tests:+", Python $(python_version), Node.js $(node_version), promtool $(promtool_version)"}
    say "ready: cargo $(cargo_version), PostgreSQL $(postgres_version), RabbitMQ $(rabbitmq_version)$tools"
}

# --- installing with apt, as root -----------------------------------------------

readonly POLICY=/usr/sbin/policy-rc.d
readonly POLICY_SAVED=/usr/sbin/policy-rc.d.before-tallyhook
readonly POLICY_MARK='# written by tallyhook deploy/setup.sh'
readonly NO_CLUSTER=/etc/postgresql-common/createcluster.d/tallyhook-no-cluster.conf

# invoke-rc.d runs policy-rc.d before it starts a service; exit code 101 forbids the start.
forbid_service_starts() {
    # A killed run may have left our marked file. Do not save that one as the owner's.
    if [ -e "$POLICY" ] && ! grep -qsF "$POLICY_MARK" "$POLICY"; then
        mv "$POLICY" "$POLICY_SAVED"
    fi
    printf '#!/bin/sh\n%s\nexit 101\n' "$POLICY_MARK" >"$POLICY"
    chmod 755 "$POLICY"
    if [ ! -d "${NO_CLUSTER%/*}" ]; then
        mkdir -p "${NO_CLUSTER%/*}"
        made_cluster_folder=yes
    fi
    printf 'create_main_cluster = false\n' >"$NO_CLUSTER"
}

allow_service_starts() {
    if [ -e "$POLICY_SAVED" ]; then
        mv -f "$POLICY_SAVED" "$POLICY"
    elif grep -qsF "$POLICY_MARK" "$POLICY"; then
        rm -f "$POLICY"
    fi
    rm -f "$NO_CLUSTER"
    if [ -n "${made_cluster_folder:-}" ]; then
        # Still in use if the package brought files of its own.
        rmdir "${NO_CLUSTER%/*}" "${NO_CLUSTER%/*/*}" 2>/dev/null || :
    fi
}

# Prints the systemd name of every service that starts at boot.
boot_services() {
    for link in /etc/systemd/system/*.wants/*; do
        if [ -L "$link" ]; then printf ' %s ' "${link##*/}"; fi
    done
    for link in /etc/rc[2345].d/S[0-9][0-9]*; do
        if [ -e "$link" ]; then printf ' %s.service ' "${link##*/S[0-9][0-9]}"; fi
    done
}

# The packages also enable other units: epmd, its socket, timers.
disable_new_services() { # SERVICES_BEFORE
    for service in $(boot_services); do
        case $1 in *" $service "*) continue ;; esac
        if have systemctl; then
            systemctl disable --quiet "$service" >/dev/null 2>&1 || :
            # Fails without a running systemd; then nothing was started either.
            systemctl stop "$service" >/dev/null 2>&1 || :
        else
            # The packages enable their units even in a container without systemd.
            rm -f /etc/systemd/system/*.wants/"$service"
        fi
        name=${service%.service}
        if [ -e "/etc/init.d/$name" ] && have update-rc.d; then
            update-rc.d "$name" disable >/dev/null 2>&1 || :
        fi
    done
}

# Prints the pids of epmd processes that the packages started. An epmd of another
# user was not started by a package; a running test may need it.
package_epmds() {
    for process in /proc/[0-9]*; do
        [ "$(cat "$process/comm" 2>/dev/null)" = epmd ] || continue
        case $(stat -c %U "$process" 2>/dev/null) in
            epmd | rabbitmq) printf ' %s ' "${process#/proc/}" ;;
        esac
    done
}

stop_new_epmds() { # PIDS_BEFORE
    for pid in $(package_epmds); do
        case $1 in *" $pid "*) continue ;; esac
        kill "$pid" 2>/dev/null || :
    done
}

apt() { apt-get -o DPkg::Lock::Timeout=300 -o Dpkg::Use-Pty=0 "$@"; }

# The upstream version that apt would install: "1:3.10.8-1+deb12u1" -> 3.10.8
candidate() {
    LC_ALL=C apt-cache policy "$1" | sed -n 's/^ *Candidate: *\([0-9]*:\)\{0,1\}//p' | first_number
}

require_candidate() { # PACKAGE MINIMUM WHAT WHERE
    found=$(candidate "$1")
    at_least "$2" "$found" && return
    complain "this system's package $1 is ${found:-not available}; Tallyhook needs $3 $2 or later."
    die "Follow $4, then run this again."
}

install_packages() {
    export DEBIAN_FRONTEND=noninteractive
    # Without this, Ubuntu's needrestart restarts unrelated services.
    export NEEDRESTART_SUSPEND=1

    say "refreshing the package lists"
    apt -qq update || die "apt-get update failed; see its message above"
    for package in "$@"; do
        case $package in
            postgresql)
                require_candidate postgresql "$POSTGRES_MIN" PostgreSQL \
                    "https://www.postgresql.org/download/linux/"
                ;;
            rabbitmq-server)
                require_candidate rabbitmq-server "$RABBITMQ_MIN" RabbitMQ \
                    "https://www.rabbitmq.com/docs/install-debian"
                ;;
            python3)
                require_candidate python3 "$PYTHON_MIN" Python "https://www.python.org/downloads/"
                ;;
            nodejs)
                require_candidate nodejs "$NODE_MIN" Node.js "https://nodejs.org/en/download"
                ;;
            prometheus)
                require_candidate prometheus "$PROMTOOL_MIN" Prometheus \
                    "https://prometheus.io/download/"
                ;;
        esac
    done

    simulation=$(LC_ALL=C apt -s --no-install-recommends install "$@") ||
        die "apt-get cannot install: $*"
    plan=$(printf '%s\n' "$simulation" |
        sed -n 's/^Inst \([^ ]*\) .*/\1/p' | sort | tr '\n' ' ')
    say "apt-get will install: ${plan:-nothing new}"

    services_before=$(boot_services)
    epmds_before=$(package_epmds)
    trap allow_service_starts EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM HUP
    forbid_service_starts
    apt -qq -y --no-install-recommends install "$@" || die "apt-get could not install: $*"
    disable_new_services "$services_before"
    stop_new_epmds "$epmds_before"
}

# --- the command line -------------------------------------------------------------

explain() { # LIST
    complain "missing on this machine:"
    printf '%s\n' "$1" | while IFS='	' read -r _ text; do complain "  - $text"; done
}

packages_for() { # LIST
    printf '%s\n' "$1" | while IFS='	' read -r name _; do
        case $name in
            compiler) printf ' gcc libc6-dev' ;;
            make) printf ' make' ;;
            postgresql) printf ' postgresql' ;;
            rabbitmq) printf ' rabbitmq-server' ;;
            python) printf ' python3 python3-venv' ;;
            node) printf ' nodejs' ;;
            npm) printf ' npm' ;;
            promtool) printf ' prometheus' ;;
        esac
    done
}

refuse_broken_overrides() {
    for name in TALLYHOOK_POSTGRES_BIN TALLYHOOK_RABBITMQ_BIN; do
        eval "folder=\${$name:-}"
        case $name in *POSTGRES*) program=postgres ;; *) program=rabbitmq-server ;; esac
        # A package would not help: the variable takes precedence.
        [ -z "$folder" ] || [ -x "$folder/$program" ] ||
            die "$name is set to $folder, which holds no $program: correct it or unset it"
    done
}

main() {
    for_tests=
    if [ "${1:-}" = --for-tests ]; then
        for_tests=yes
        shift
    fi
    case ${1:-} in
        '' | --check) ;;
        # The script calls itself like this through sudo. The other arguments are packages.
        --install-as-root)
            shift
            install_packages "$@"
            exit
            ;;
        *) die "usage: deploy/setup.sh [--for-tests] [--check]" ;;
    esac

    refuse_broken_overrides
    list=$(missing)
    if [ -z "$list" ]; then
        report_ready
        exit 0
    fi

    explain "$list"
    if [ "${1:-}" = --check ]; then exit 1; fi

    case $list in
        cargo*)
            die "install Rust $CARGO_MIN or later with rustup (https://rustup.rs), or run 'rustup update stable'"
            ;;
    esac
    if ! have apt-get || ! have dpkg; then
        complain "only Debian and Ubuntu can be set up automatically. Please install what is listed, then"
        die "set TALLYHOOK_POSTGRES_BIN and TALLYHOOK_RABBITMQ_BIN to the folders of the programs if they are not on PATH"
    fi

    packages=$(packages_for "$list")
    say "will install with apt-get, without recommended packages, services kept off:$packages"
    # Unquoted on purpose: each word is a package.
    # shellcheck disable=SC2086
    if [ "$(id -u)" -eq 0 ]; then
        "$0" --install-as-root $packages
    elif have sudo; then
        sudo "$0" --install-as-root $packages
    else
        die "not running as root, and sudo is not installed; as root run: apt-get install --no-install-recommends$packages"
    fi

    list=$(missing)
    if [ -n "$list" ]; then
        explain "$list"
        die "still missing after the installation; see above"
    fi
    report_ready
}

main "$@"
