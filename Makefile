# Everything a developer runs. "make" alone lists the targets.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
MAKEFLAGS += --warn-undefined-variables --no-builtin-rules
.DEFAULT_GOAL := help

# The time each fuzz target gets.
FUZZTIME ?= 30s
# The time all tests of one package get.
TIMEOUT ?= 10m
# Tools have a module file of their own: services inherit the root go.mod.
TOOL := go tool -modfile=tools/go.mod

.PHONY: help
help: ## list the targets
	@awk -F ':.*## ' '/^[a-z\/-]+:.*## / {printf "  make %-11s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: demo
demo: ## run the quickstart: an event from its transaction to its effect
	@scripts/ensure-postgres.sh --or-url
	go run ./examples/quickstart

.PHONY: demo-sites
demo-sites: ## two datacenters whose link is cut, swallowed, slowed and flapping
	@scripts/ensure-postgres.sh --or-url
	go run ./examples/twosites

.PHONY: test
test: postgres lint ## everything: lint, all tests with the race detector, each benchmark once
	go test -race -timeout $(TIMEOUT) ./...
	go test -run '^$$' -bench . -benchtime 1x -timeout $(TIMEOUT) ./...

# These packages start PostgreSQL themselves; elsewhere dvtest does, which leaves
# such tests out of -short.
NEEDS_POSTGRES := /internal/pgserver$$|/internal/tutorial$$|/examples/(quickstart|audit|twosites)$$|/dvtest$$|/health$$

.PHONY: test/short
test/short: ## what needs no PostgreSQL, in a minute
	go test -short $$(go list ./... | grep -vE '$(NEEDS_POSTGRES)')

.PHONY: lint
lint: ## formatting, go vet, staticcheck
	@unformatted=$$(gofmt -l .); if [ -n "$$unformatted" ]; then echo "run gofmt -w on:" $$unformatted >&2; exit 1; fi
	go vet ./...
	$(TOOL) staticcheck ./...

.PHONY: alerts
alerts: ## promtool checks the alert rules, where it is installed
	@scripts/check-alerts.sh

.PHONY: fuzz
fuzz: ## each fuzz target for FUZZTIME (30s)
	@for package in $$(go list ./...); do \
		for target in $$(go test -short -list '^Fuzz' "$$package" | { grep '^Fuzz' || true; }); do \
			echo "$$package $$target"; \
			go test -short -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZTIME) "$$package"; \
		done; \
	done

# Anything makes "make bench" quick: fewer rounds, smaller backlogs.
QUICK ?=

.PHONY: bench
bench: postgres ## beside peers and raw limits, in one run (QUICK=1: in 3 minutes)
	cd test/bench && go run . $(if $(QUICK),-quick) -svg ../../docs

.PHONY: bench/go
bench/go: postgres ## the packages' own benchmarks, with allocations
	go test -run '^$$' -bench . -benchmem -timeout 30m ./...

.PHONY: interop
interop: ## the CloudEvents SDK, and clients in another language (needs Node.js 20)
	@test/interop/node/install.sh >/dev/null
	cd test/interop && go vet ./... && go test -race -timeout $(TIMEOUT) ./...

.PHONY: verify
verify: lint ## what must hold before a commit: module files tidy and unchanged, lint, other platforms compile
	go mod tidy -diff
	go mod verify
	GOOS=darwin GOARCH=arm64 go vet ./...

.PHONY: tools
tools: ## build the pinned tools
	$(TOOL) staticcheck -version

.PHONY: postgres
postgres: ## find the PostgreSQL server binaries, or install them
	@scripts/ensure-postgres.sh
