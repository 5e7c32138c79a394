#!/bin/sh
# Rebuilds what one service has in JetStream after a site lost all of it: steps J3 to
# J5 of docs/RECOVERY.md, which is to be read first.
#
#   recover-jetstream.sh streams SERVICE FILE REASON          say what would be done
#   recover-jetstream.sh streams SERVICE FILE REASON --yes    J3, J4: letters, streams, durables
#   recover-jetstream.sh publish SERVICE FILE REASON --yes    J5: publish again
#
# FILE is the service's contract file. First "streams" for all services, those that
# others read from first, then "publish" for all. DVMSG_DATABASE_URL, DVMSG_NATS_URL,
# DVMSG_NATS_CREDS and DVMSG_OPERATOR say where and who, as for dvmsg. DVMSG names
# another dvmsg than the one on PATH, WAIT how many seconds the relay may take to
# notice that its streams were made anew (60). It may be repeated.
set -eu

usage() {
	sed -n 's/^#   //p' "$0" >&2
	exit 2
}

[ $# -eq 4 ] || { [ $# -eq 5 ] && [ "$5" = --yes ]; } || usage
phase=$1 service=$2 file=$3 reason=$4
dry=--dry-run
[ $# -eq 5 ] && dry=
command=${DVMSG:-dvmsg}

# do_it ARGUMENTS...: says what it runs, and runs it.
do_it() {
	echo "> dvmsg $*"
	"$command" "$@"
}

# waits: has the relay found a stream that was made anew?
waits() { "$command" outbox status | grep -q "STREAM MADE ANEW"; }

# publish: accepts what the relay finds, until nothing new was found for five seconds.
publish() {
	accepted=no quiet=0 left=${WAIT:-60}
	while [ "$left" -gt 0 ] && [ "$quiet" -lt 5 ]; do
		if waits; then
			do_it outbox accept --all --reason "$reason"
			accepted=yes quiet=0
		elif [ "$accepted" = yes ]; then
			quiet=$((quiet + 1))
		fi
		left=$((left - 1))
		sleep 1
	done
	if [ "$accepted" = no ]; then
		echo "no relay of $service waits for a stream; does one lead?" >&2
		do_it outbox status
		exit 1
	fi
}

case "$phase" in
streams)
	# shellcheck disable=SC2086 # empty or one word
	do_it inbox revive --service "$service" --reason "$reason" $dry
	# shellcheck disable=SC2086
	do_it topology apply --file "$file" $dry
	;;
publish)
	if "$command" outbox status | grep -q "no stream yet"; then
		echo "$service has published nothing yet"
	elif [ -z "$dry" ]; then
		publish
	fi
	do_it outbox status
	;;
*) usage ;;
esac
if [ -n "$dry" ]; then
	echo "nothing was changed; with --yes it is"
fi
