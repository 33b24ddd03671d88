#!/usr/bin/env bash
# The demo. Webhooks go through RabbitMQ into PostgreSQL, with duplicates, old
# versions, invalid bodies and a wrong signature, and RabbitMQ is killed meanwhile.
# Then a file of invoices is imported and mirrored to a mock accounting system that
# leaves requests without a response, is killed too, and loses an invoice by hand.
# Exits with 0 only if every message is accounted for and every invoice is mirrored
# exactly once.
set -euo pipefail
cd "$(dirname "$0")/.."

tallyhook=${1:?usage: deploy/demo.sh path/to/tallyhook}
scratch=$(mktemp -d)
dev=

finish() {
    if [ -n "$dev" ] && kill -0 "$dev" 2>/dev/null; then
        kill -INT "$dev" 2>/dev/null || :
        wait "$dev" 2>/dev/null || :
    fi
    rm -rf "$scratch"
}
trap finish EXIT
trap 'exit 130' INT TERM

say() { printf '\n\033[1m%s\033[0m\n' "$*"; }
show() { printf '\033[2m$ tallyhook %s\033[0m\n' "$*"; }
fail() { printf '\ndemo: %s\n' "$*" >&2; exit 1; }

# field NAME FILE: a number or text of the JSON that the commands print.
field() { sed -n "s/.*\"$1\": *\"\{0,1\}\([^\",}]*\).*/\1/p" "$2" | head -n 1; }

say "1. A private PostgreSQL and RabbitMQ, a mock accounting system, the receiver and the worker"
# Port 0 takes a free port, so that the demo does not collide with other servers.
cat >"$scratch/demo.toml" <<'TOML'
[receiver]
listen = "127.0.0.1:0"
[operations]
listen = "127.0.0.1:0"
TOML
show "dev --with-mock-accounting"
"$tallyhook" dev --with-mock-accounting --config "$scratch/demo.toml" --ready-file "$scratch/ready.json" \
    >"$scratch/dev.out" 2>"$scratch/dev.log" &
dev=$!
for _ in $(seq 600); do
    [ -e "$scratch/ready.json" ] && break
    kill -0 "$dev" 2>/dev/null || { tail -n 20 "$scratch/dev.log" >&2; fail "dev did not start"; }
    sleep 0.2
done
[ -e "$scratch/ready.json" ] || { tail -n 20 "$scratch/dev.log" >&2; fail "dev was not ready in time"; }
receiver=$(field receiver "$scratch/ready.json")
TALLYHOOK__DATABASE__URL=$(field database_url "$scratch/ready.json")
TALLYHOOK__BROKER__URL=$(field amqp_url "$scratch/ready.json")
TALLYHOOK_DEV_ACCOUNTING_URL=$(sed -n 's/.*"accounting": *"\([^"]*\)".*/\1/p' "$scratch/ready.json")
export TALLYHOOK__DATABASE__URL TALLYHOOK__BROKER__URL TALLYHOOK_DEV_ACCOUNTING_URL
grep -E '^(receiver|operations|accounting) ' "$scratch/dev.out"

accepted=0
uncertain=0
applied=0
dead=0
# send SOURCE ARGUMENTS...: sends webhooks, and adds up how many were accepted and
# which outcomes are expected.
send() {
    show "send $*"
    "$tallyhook" send "$@" --url "$receiver" --json >"$scratch/sent.json" ||
        { cat "$scratch/sent.json"; fail "a webhook got an unexpected response"; }
    accepted=$((accepted + $(field 200 "$scratch/sent.json")))
    uncertain=$((uncertain + $(field uncertain "$scratch/sent.json")))
    applied=$((applied + $(field applied_or_stale "$scratch/sent.json")))
    dead=$((dead + $(field dead "$scratch/sent.json")))
    forged=$(field 401 "$scratch/sent.json")
    printf '  %s accepted, %s rejected for their signature; response time p50 %s ms, p99 %s ms\n' \
        "$(field 200 "$scratch/sent.json")" "${forged:-0}" \
        "$(field p50 "$scratch/sent.json")" "$(field p99 "$scratch/sent.json")"
}

say "2. Webhooks with duplicates, old versions, invalid bodies, and one wrong signature"
send shopify --count 200 --duplicates 20% --out-of-order 5% --poison 3% --forged 1
traced=$(field trace_number "$scratch/sent.json")
send woocommerce --count 100 --duplicates 10% --poison 2%
send stripe --count 60 --duplicates 20% --out-of-order 10%
send robot --count 40 --duplicates 50%

say "3. RabbitMQ is killed (kill -9) while webhooks arrive"
broker=$(field rabbitmq "$scratch/ready.json")
(sleep 1 && kill -9 "$broker" && printf '  killed process %s; the receiver answers 503 and the sender sends again\n' "$broker") &
killer=$!
send erp --count 300 --rate 60 --duplicates 10% --retry
wait "$killer"
printf '  %s requests were sent again after a 503\n' "$(field resends "$scratch/sent.json")"

say "4. Every message is accounted for"
for _ in $(seq 300); do
    "$tallyhook" audit --json >"$scratch/audit.json" || :
    waiting=$(sed -n 's/.*"waiting": *\([0-9]*\).*/\1/p' "$scratch/audit.json" | head -n 1)
    accounted=$(sed -n 's/.*"accounted": *\([0-9]*\).*/\1/p' "$scratch/audit.json" | head -n 1)
    [ "${waiting:-1}" = 0 ] && [ "${accounted:-0}" -ge "$accepted" ] && break
    sleep 0.2
done
show "audit --accepted $accepted --uncertain $uncertain"
"$tallyhook" audit --accepted "$accepted" --uncertain "$uncertain" ||
    fail "the sums do not match"
sum() { sed -n "s/.*\"$1\": *\([0-9]*\).*/\1/p" "$scratch/audit.json" | head -n 1; }
changed=$(($(sum applied) + $(sum stale)))
[ "$changed" = "$applied" ] || fail "expected $applied applied or stale events, found $changed"

say "5. The history of one order"
show "trace '$traced'"
"$tallyhook" trace "$traced"

say "6. The dead letters wait for an operator"
show "dead list"
"$tallyhook" dead list
found=$("$tallyhook" dead list --limit 100000 --json | grep -c '"dead_letter_id"' || :)
[ "$found" = "$dead" ] || fail "expected $dead dead letters, found $found"
cat <<'TEXT'

  tallyhook dead show ID                          the payload, the error and the history
  tallyhook dead replay ID                        publish it again, with the same key
  tallyhook dead replay --source shopify --comment TEXT    many at once
  tallyhook dead discard ID --comment TEXT        close it; it stays on record
TEXT

# accounting METHOD PATH: the response of the accounting system, requested directly
# and not through tallyhook.
accounting() {
    local at=${TALLYHOOK_DEV_ACCOUNTING_URL#http://}
    (
        exec 9<>"/dev/tcp/${at%:*}/${at#*:}" || exit 1
        printf '%s %s HTTP/1.1\r\nHost: accounting\r\nAuthorization: Bearer %s\r\nConnection: close\r\n\r\n' \
            "$1" "$2" "${TALLYHOOK_DEV_ACCOUNTING:-accounting-development-token}" >&9
        sed '1,/^\r*$/d' <&9
    ) 2>/dev/null
}
# Both print one line for each match, and none while the system is down.
numbers_there() { { accounting GET /invoices || :; } | grep -o '"number":"[^"]*"' || :; }
ids_there() { { accounting GET "/invoices?vendor=$1&number=$2" || :; } | grep -o 'INV-[0-9]*' || :; }

# import: sends the file and waits. Exit code 3 is expected: some lines are invalid.
import() {
    local code=0
    show "import vendors.csv"
    "$tallyhook" import "$scratch/vendors.csv" --url "$receiver" --timeout 60 --json \
        >"$scratch/import.json" || code=$?
    [ "$code" = 3 ] || { cat "$scratch/import.json"; fail "import: expected exit code 3, got $code"; }
    accepted=$((accepted + $(field total "$scratch/import.json") - $(field rejected "$scratch/import.json")))
    printf '  %s lines: %s created, %s duplicates, %s rejected\n' \
        "$(field total "$scratch/import.json")" "$(field created "$scratch/import.json")" \
        "$(field duplicate "$scratch/import.json")" "$(field rejected "$scratch/import.json")"
}
# imported NAME NUMBER: checks a count of the last import.
imported() {
    [ "$(field "$1" "$scratch/import.json")" = "$2" ] ||
        { cat "$scratch/import.json"; fail "import: expected $2 for $1"; }
}

say "7. A file of vendor invoices, with duplicates and invalid lines, is imported and mirrored"
invoices=300
awk -v invoices="$invoices" 'BEGIN {
    split("twelve,EUR,|12.00,EURO,|,EUR,|12.00,EUR,2026-12-24,too,many", broken, "|")
    print "vendor,invoice_number,amount,currency,due_date"
    for (i = 1; i <= invoices; i++) {
        row = sprintf("Vendor %02d,V-%05d,%d.%02d,EUR,2026-12-%02d", i % 20, i, 10 + i, i % 100, 1 + i % 28)
        print row
        if (i % 18 == 0) print row
        if (i % 100 == 0) printf "Vendor 99,B-%05d,%s\n", i, broken[1 + i / 100 % 4]
    }
}' >"$scratch/vendors.csv"
broken=$((invoices / 100))
duplicates=$((invoices / 18))
accounting_pid=$(sed -n 's/.*"accounting": *\([0-9][0-9]*\).*/\1/p' "$scratch/ready.json")
(
    for _ in $(seq 600); do
        if [ "$(numbers_there | wc -l)" -ge $((invoices / 4)) ]; then
            kill -9 "$accounting_pid" && printf '  killed the accounting system, process %s\n' "$accounting_pid"
            exit
        fi
        sleep 0.05
    done
    exit 1
) &
killer=$!
import
imported created "$invoices"
imported duplicate "$duplicates"
imported rejected "$broken"
wait "$killer" || fail "the accounting system did not get enough invoices before it was to be killed"

say "8. One request in ten got no response, and each invoice is there exactly once"
for _ in $(seq 150); do
    "$tallyhook" deliveries list --state delivered --limit 100000 --json >"$scratch/mirrored.json" || :
    delivered=$(grep -c '"delivery_id"' "$scratch/mirrored.json" || :)
    [ "$delivered" -ge "$invoices" ] && break
    sleep 0.4
done
[ "$delivered" = "$invoices" ] || fail "expected $invoices delivered invoices, found $delivered"
unanswered=$(grep -c '"warning": *"' "$scratch/mirrored.json" || :)
[ "$unanswered" -gt 0 ] || fail "every request got a response: the demo showed nothing"
printf '  %s delivered; %s of them after a request without a response, such as this one:\n' "$delivered" "$unanswered"
example=$(sed -n -e '/"document_number"/h' -e '/"warning": *"/{g;s/.*: *"\([^"]*\)".*/\1/p;q;}' "$scratch/mirrored.json")
show "deliveries list --number $example"
"$tallyhook" deliveries list --number "$example"
# exactly_once: checks that every invoice is there, and none twice.
exactly_once() {
    numbers_there | sort >"$scratch/there"
    [ "$(wc -l <"$scratch/there")" = "$invoices" ] && [ -z "$(uniq -d "$scratch/there")" ] ||
        fail "found $(wc -l <"$scratch/there") invoices; twice: $(uniq -d "$scratch/there" | tr '\n' ' ')"
    printf '  the accounting system has %s invoices, none twice\n' "$invoices"
}
exactly_once

say "9. One is deleted there by hand; the operator voids its delivery and re-issues it"
was=$(ids_there Vendor%2007 V-00007)
accounting DELETE "/invoices/$was" >"$scratch/deleted"
[ -z "$(ids_there Vendor%2007 V-00007)" ] || fail "$was is still there"
printf '  deleted %s there\n' "$was"
show "deliveries void --number V-00007 --comment 'deleted there by hand'"
"$tallyhook" deliveries void --number V-00007 --comment "deleted there by hand" --json >"$scratch/voided.json" ||
    { cat "$scratch/voided.json"; fail "the delivery was not voided"; }
delivery=$(field delivery_id "$scratch/voided.json")
show "reissue $delivery --comment 'deleted by mistake'"
"$tallyhook" reissue "$delivery" --comment "deleted by mistake" || fail "the delivery was not re-issued"
for _ in $(seq 100); do
    is=$(ids_there Vendor%2007 V-00007)
    [ -n "$is" ] && break
    sleep 0.2
done
[ -n "$is" ] && [ "$is" != "$was" ] || fail "V-00007 was not mirrored again"
printf '  V-00007 is there again, as %s\n' "$is"

say "10. The same file again: every line is a duplicate, and nothing is mirrored twice"
import
imported created 0
imported duplicate $((invoices + duplicates))
exactly_once
show "audit --accepted $accepted --uncertain $uncertain"
"$tallyhook" audit --accepted "$accepted" --uncertain "$uncertain" ||
    fail "the sums do not match"

say "The sums match: $accepted accepted, each applied exactly once or waiting for an operator."
