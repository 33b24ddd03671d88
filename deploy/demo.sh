#!/usr/bin/env bash
# The demo: real webhooks through a real RabbitMQ into a real PostgreSQL, with
# duplicates, late ones, poison and a forged one, while the broker is killed;
# then a file of invoices, mirrored exactly once to a mock accounting system that
# leaves calls unanswered, is killed too, and loses one by a person's hand.
# Ends by itself, with exit code 0 only if the figures add up.
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

# field NAME FILE: a number or text from the one-line JSON that our commands write.
field() { sed -n "s/.*\"$1\": *\"\{0,1\}\([^\",}]*\).*/\1/p" "$2" | head -n 1; }

say "1. A private PostgreSQL and RabbitMQ, a mock accounting system, the receiver and the worker"
# Any free port, so that the demo never meets a server of yours.
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
# send SOURCE ARGUMENTS...: sends, and adds up what was accepted and what the
# books must show for it.
send() {
    show "send $*"
    "$tallyhook" send "$@" --url "$receiver" --json >"$scratch/sent.json" ||
        { cat "$scratch/sent.json"; fail "not every webhook was answered as it should be"; }
    accepted=$((accepted + $(field 200 "$scratch/sent.json")))
    uncertain=$((uncertain + $(field uncertain "$scratch/sent.json")))
    applied=$((applied + $(field applied_or_stale "$scratch/sent.json")))
    dead=$((dead + $(field dead "$scratch/sent.json")))
    forged=$(field 401 "$scratch/sent.json")
    printf '  %s accepted, %s refused as forged; acknowledged in %s ms (half), %s ms (99 in 100)\n' \
        "$(field 200 "$scratch/sent.json")" "${forged:-0}" \
        "$(field p50 "$scratch/sent.json")" "$(field p99 "$scratch/sent.json")"
}

say "2. Webhooks: duplicates, late ones, poison, and one forged signature"
send shopify --count 200 --duplicates 20% --out-of-order 5% --poison 3% --forged 1
story=$(field story "$scratch/sent.json")
send woocommerce --count 100 --duplicates 10% --poison 2%
send stripe --count 60 --duplicates 20% --out-of-order 10%
send robot --count 40 --duplicates 50%

say "3. RabbitMQ is killed (kill -9) while webhooks come in"
broker=$(field rabbitmq "$scratch/ready.json")
(sleep 1 && kill -9 "$broker" && printf '  killed process %s; senders are told 503 and come again\n' "$broker") &
killer=$!
send erp --count 300 --rate 60 --duplicates 10% --retry
wait "$killer"
printf '  %s attempts were told 503 and sent again\n' "$(field resends "$scratch/sent.json")"

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
    fail "the figures do not add up"
sum() { sed -n "s/.*\"$1\": *\([0-9]*\).*/\1/p" "$scratch/audit.json" | head -n 1; }
changed=$(($(sum applied) + $(sum stale)))
[ "$changed" = "$applied" ] || fail "$applied events were to be applied or stale, $changed are"

say "5. One order's story"
show "trace '$story'"
"$tallyhook" trace "$story"

say "6. The dead letters wait for a person"
show "dead list"
"$tallyhook" dead list
found=$("$tallyhook" dead list --limit 100000 --json | grep -c '"dead_letter_id"' || :)
[ "$found" = "$dead" ] || fail "$dead dead letters were expected, $found are there"
cat <<'TEXT'

  tallyhook dead show ID                                 what it is and what is wrong with it
  tallyhook dead replay ID                               send it in again, with the same key
  tallyhook dead replay --source shopify --reason WHY    many at once
  tallyhook dead discard ID --reason WHY                 close it; it stays on record
TEXT


# accounting METHOD PATH: what the accounting system answers, without our own
# commands in between.
accounting() {
    local at=${TALLYHOOK_DEV_ACCOUNTING_URL#http://}
    (
        exec 9<>"/dev/tcp/${at%:*}/${at#*:}" || exit 1
        printf '%s %s HTTP/1.1\r\nHost: accounting\r\nAuthorization: Bearer %s\r\nConnection: close\r\n\r\n' \
            "$1" "$2" "${TALLYHOOK_DEV_ACCOUNTING:-accounting-development-token}" >&9
        sed '1,/^\r*$/d' <&9
    ) 2>/dev/null
}
# One line each, whatever is found, and none if it is away.
numbers_there() { { accounting GET /invoices || :; } | grep -o '"number":"[^"]*"' || :; }
ids_there() { { accounting GET "/invoices?vendor=$1&number=$2" || :; } | grep -o 'INV-[0-9]*' || :; }

# import: sends the file and waits; some of its lines are broken, so 3.
import() {
    local code=0
    show "import vendors.csv"
    "$tallyhook" import "$scratch/vendors.csv" --url "$receiver" --timeout 60 --json \
        >"$scratch/import.json" || code=$?
    [ "$code" = 3 ] || { cat "$scratch/import.json"; fail "import ended with $code, not with 3"; }
    accepted=$((accepted + $(field total "$scratch/import.json") - $(field rejected "$scratch/import.json")))
    printf '  %s lines: %s created, %s duplicates, %s rejected, each by itself\n' \
        "$(field total "$scratch/import.json")" "$(field created "$scratch/import.json")" \
        "$(field duplicate "$scratch/import.json")" "$(field rejected "$scratch/import.json")"
}
# imported NAME NUMBER: what the import must have told.
imported() {
    [ "$(field "$1" "$scratch/import.json")" = "$2" ] ||
        { cat "$scratch/import.json"; fail "the import was to tell $2 for $1"; }
}

say "7. A file of vendor invoices, with duplicates and broken lines, is imported and mirrored"
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
wait "$killer" || fail "the accounting system never had enough invoices to be killed"

say "8. The accounting system left one call in ten unanswered: each invoice is there exactly once"
for _ in $(seq 150); do
    "$tallyhook" deliveries list --state delivered --limit 100000 --json >"$scratch/mirrored.json" || :
    delivered=$(grep -c '"delivery_id"' "$scratch/mirrored.json" || :)
    [ "$delivered" -ge "$invoices" ] && break
    sleep 0.4
done
[ "$delivered" = "$invoices" ] || fail "$invoices invoices were to be delivered, $delivered are"
unanswered=$(grep -c '"warning": *"' "$scratch/mirrored.json" || :)
[ "$unanswered" -gt 0 ] || fail "every call was answered: nothing was shown"
printf '  %s delivered; %s of them after a call without an answer, as this one:\n' "$delivered" "$unanswered"
example=$(sed -n -e '/"document_number"/h' -e '/"warning": *"/{g;s/.*: *"\([^"]*\)".*/\1/p;q;}' "$scratch/mirrored.json")
show "deliveries list --number $example"
"$tallyhook" deliveries list --number "$example"
# exactly_once: all of them are there, and none twice.
exactly_once() {
    numbers_there | sort >"$scratch/there"
    [ "$(wc -l <"$scratch/there")" = "$invoices" ] && [ -z "$(uniq -d "$scratch/there")" ] ||
        fail "$(wc -l <"$scratch/there") invoices are there, twice: $(uniq -d "$scratch/there" | tr '\n' ' ')"
    printf '  the accounting system has %s invoices, none twice\n' "$invoices"
}
exactly_once

say "9. One is deleted there by hand; a person voids our delivery of it and issues it anew"
was=$(ids_there Vendor%2007 V-00007)
accounting DELETE "/invoices/$was" >"$scratch/deleted"
[ -z "$(ids_there Vendor%2007 V-00007)" ] || fail "$was is still there"
printf '  deleted %s there\n' "$was"
show "deliveries void --number V-00007 --reason 'deleted there by hand'"
"$tallyhook" deliveries void --number V-00007 --reason "deleted there by hand" --json >"$scratch/voided.json" ||
    { cat "$scratch/voided.json"; fail "it was not voided"; }
delivery=$(field delivery_id "$scratch/voided.json")
show "deliveries reissue $delivery --reason 'deleted by mistake'"
"$tallyhook" deliveries reissue "$delivery" --reason "deleted by mistake" || fail "it was not issued anew"
for _ in $(seq 100); do
    is=$(ids_there Vendor%2007 V-00007)
    [ -n "$is" ] && break
    sleep 0.2
done
[ -n "$is" ] && [ "$is" != "$was" ] || fail "V-00007 was not mirrored anew"
printf '  V-00007 is there again, as %s\n' "$is"

say "10. The same file again: everything is known, and nothing is mirrored twice"
import
imported created 0
imported duplicate $((invoices + duplicates))
exactly_once
show "audit --accepted $accepted --uncertain $uncertain"
"$tallyhook" audit --accepted "$accepted" --uncertain "$uncertain" ||
    fail "the figures do not add up"

say "The figures add up: $accepted accepted, each in the books exactly once or before a person."
