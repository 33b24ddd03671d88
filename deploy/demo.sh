#!/usr/bin/env bash
# The demo: real webhooks through a real RabbitMQ into a real PostgreSQL, with
# duplicates, late ones, poison and a forged one, while the broker is killed.
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

say "1. A private PostgreSQL and RabbitMQ, the receiver and the worker"
# Any free port, so that the demo never meets a server of yours.
cat >"$scratch/demo.toml" <<'TOML'
[receiver]
listen = "127.0.0.1:0"
[operations]
listen = "127.0.0.1:0"
TOML
show "dev"
"$tallyhook" dev --config "$scratch/demo.toml" --ready-file "$scratch/ready.json" \
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
export TALLYHOOK__DATABASE__URL TALLYHOOK__BROKER__URL
grep -E '^(receiver|operations) ' "$scratch/dev.out"

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

say "The figures add up: $accepted accepted, each in the books exactly once or before a person."
