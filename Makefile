# Everything that is done with this repository. Nothing else is needed first.

CARGO ?= cargo

# Queries are checked against the committed data, whatever DATABASE_URL says.
export SQLX_OFFLINE = true

TARGET := $(or $(CARGO_TARGET_DIR),target)

.PHONY: help setup clients build demo bench test fmt lint docs deps sqlx clean

help:
	@echo "make demo    install what is missing, run everything, send webhooks, show the result"
	@echo "make bench   measure everything on private servers, refresh the table in the README"
	@echo "make test    install what is missing, run every test"
	@echo "make build   build the binary: target/release/tallyhook"
	@echo "make lint    formatting, clippy, documentation, dependency policy"
	@echo "make sqlx    refresh the query data after a change of SQL or migrations"

# Says what it installs before it does, and installs nothing that is there.
setup:
	@sh deploy/setup.sh

# The platforms' own libraries, which the tests call us with.
clients:
	@sh deploy/setup.sh --for-tests
	@sh deploy/clients.sh

build: setup
	$(CARGO) build --release --locked

demo: setup
	$(CARGO) build --locked --bins --example mock-accounting
	@bash deploy/demo.sh $(TARGET)/debug/tallyhook

# A short version, in less than five minutes: medians of three runs, each load a
# second long. For longer ones, see tallyhook bench --help.
bench: build
	$(TARGET)/release/tallyhook bench --private --seconds 1 --keys 1000000 --readme README.md

test: clients
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
