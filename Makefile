# All tasks of this repository. Each target installs what it needs.

CARGO ?= cargo

# Check queries against the committed data in .sqlx, even if DATABASE_URL is set.
export SQLX_OFFLINE = true

TARGET := $(or $(CARGO_TARGET_DIR),target)

.PHONY: help setup clients alert-rules build demo bench test fmt lint docs deps sqlx clean

help:
	@echo "make demo    install missing packages, start private servers, send webhooks, show the result"
	@echo "make test    install missing packages, run all tests"
	@echo "make bench   measure on private servers, refresh the table in deploy/performance.md"
	@echo "make build   build the binary: target/release/tallyhook"
	@echo "make lint    formatting, clippy, documentation, dependency policy"
	@echo "make sqlx    refresh the query data in .sqlx after a change of SQL or migrations"

# Prints the packages before it installs them. Does nothing if none is missing.
setup:
	@sh deploy/setup.sh

# The platforms' client libraries. The tests sign and send webhooks with them.
clients:
	@sh deploy/setup.sh --for-tests
	@sh deploy/clients.sh

alert-rules:
	@sh deploy/setup.sh --for-tests
	promtool check rules deploy/prometheus/tallyhook.rules.yml
	promtool test rules deploy/prometheus/tallyhook.test.yml

build: setup
	$(CARGO) build --release --locked

demo: setup
	$(CARGO) build --locked --bins --example mock-accounting
	@bash deploy/demo.sh $(TARGET)/debug/tallyhook

# A short measurement of less than five minutes: medians of three runs, one second
# per load. See tallyhook bench --help for longer ones.
bench: build
	$(TARGET)/release/tallyhook bench --private --seconds 1 --keys 1000000 --readme deploy/performance.md

test: clients alert-rules
	$(CARGO) test --locked

fmt:
	$(CARGO) fmt --all

lint: setup docs deps
	$(CARGO) fmt --all --check
	$(CARGO) clippy --locked --all-targets -- -D warnings
	sh deploy/sqlx.sh --check

docs:
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --locked --no-deps --document-private-items

deps:
	sh deploy/deps.sh

sqlx: setup
	sh deploy/sqlx.sh

clean:
	$(CARGO) clean
