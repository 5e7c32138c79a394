#!/bin/sh
# Brings one service up to date after its PostgreSQL was restored from a backup: steps
# P3 to P6 of docs/RECOVERY.md, which is to be read first. The service must be stopped.
#
#   recover-postgres.sh SERVICE FILE BACKUP REASON          say what would be done
#   recover-postgres.sh SERVICE FILE BACKUP REASON --yes    tables, orphans, letters, durables
#
# FILE is the service's contract file, BACKUP the time to which the backup goes, such
# as 2026-01-02T03:00:00Z. What others know and the service does not is written to
# orphans-SERVICE.json. DVMSG_DATABASE_URL, DVMSG_NATS_URL, DVMSG_NATS_CREDS and
# DVMSG_OPERATOR say where and who, as for dvmsg; DVMSG names another dvmsg than the
# one on PATH. It may be repeated.
set -eu

usage() {
	sed -n 's/^#   //p' "$0" >&2
	exit 2
}

[ $# -eq 4 ] || { [ $# -eq 5 ] && [ "$5" = --yes ]; } || usage
service=$1 file=$2 backup=$3 reason=$4
dry=--dry-run
[ $# -eq 5 ] && dry=
command=${DVMSG:-dvmsg}

# do_it ARGUMENTS...: says what it runs, and runs it.
do_it() {
	echo "> dvmsg $*"
	"$command" "$@"
}

if [ -z "$dry" ]; then
	do_it migrate up
else
	do_it migrate up --dry-run
fi
status=$("$command" outbox status) # a pipe would hide that it failed
if printf '%s\n' "$status" | grep -q " leads (term "; then
	echo "a relay of $service runs on this database, or did until a few seconds ago: stop the service first" >&2
	exit 1
fi
do_it outbox orphans --service "$service" --since "$backup"
# The list of an earlier run stays until this one is whole.
"$command" outbox orphans --service "$service" --since "$backup" --json --limit 100000 >"orphans-$service.json.part"
mv "orphans-$service.json.part" "orphans-$service.json"
echo "orphans-$service.json has them all: keep it"
# shellcheck disable=SC2086 # empty or one word
do_it inbox revive --service "$service" --reason "$reason" $dry
# One that is refused does not keep the others back; the exit code tells.
# shellcheck disable=SC2086
do_it durable reset --file "$file" --from 1 --reason "$reason" $dry
if [ -n "$dry" ]; then
	echo "nothing was changed; with --yes it is"
fi
