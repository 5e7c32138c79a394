#!/bin/sh
# Has promtool check the alert rules, where it is installed. A test of
# internal/telemetry compares their names with the code in any case.
#
#   check-alerts.sh
set -eu
cd "$(dirname "$0")/.."
if ! command -v promtool >/dev/null; then
	echo "promtool is not installed; ops/alerts.yaml is checked by go test ./internal/telemetry only" >&2
	exit 0
fi
promtool check rules ops/alerts.yaml
