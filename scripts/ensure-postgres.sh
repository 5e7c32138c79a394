#!/bin/sh
# Makes sure that the server binaries of PostgreSQL 14 or newer are on this
# machine: tests and examples start throw-away servers from them.
#
#   ensure-postgres.sh                look for them, install them where missing
#   ensure-postgres.sh --or-url       the same, but DVMSG_DATABASE_URL will do
#
# Installs with the system's package manager if that needs no password (root, or
# sudo without one); else prints the one command to run and fails. No service is
# started and no configuration is left behind.
#
# DVMSG_POSTGRES_BIN and DVMSG_POSTGRES_SEARCH mean what they mean to the library
# (internal/pgserver, which reads the same list of usual places).
set -eu

minimum=14
places="$(dirname "$0")/../internal/pgserver/places.txt"
# Overridden by the script's own test only.
dropin_dir="${DVMSG_TEST_CREATECLUSTER_DIR:-/etc/postgresql-common/createcluster.d}"

# usable DIR: does it hold a server that is new enough?
usable() {
	[ -x "$1/initdb" ] && [ -x "$1/postgres" ] || return 1
	major=$("$1/postgres" --version 2>/dev/null | sed -n 's/^[^)]*) \([0-9][0-9]*\).*/\1/p')
	[ "${major:-0}" -ge "$minimum" ]
}

# candidates: the directories to look into, one a line.
candidates() {
	if [ -n "${DVMSG_POSTGRES_SEARCH+set}" ]; then
		patterns=$(printf '%s' "$DVMSG_POSTGRES_SEARCH" | tr ':' '\n')
	else
		printf '%s' "$PATH" | tr ':' '\n'
		echo
		patterns=$(grep -v '^#' "$places")
	fi
	printf '%s\n' "$patterns" | while IFS= read -r pattern; do
		for dir in $pattern; do # unquoted: the shell expands the pattern
			[ -d "$dir" ] && echo "$dir"
		done
	done
}

# found: is there a usable server? Prints its directory.
found() {
	if [ -n "${DVMSG_POSTGRES_BIN:-}" ]; then
		usable "$DVMSG_POSTGRES_BIN" && echo "$DVMSG_POSTGRES_BIN"
		return
	fi
	candidates | while IFS= read -r dir; do
		if usable "$dir"; then
			echo "$dir"
			break
		fi
	done | grep .
}

# manager: the package manager of this system.
manager() {
	for name in apt-get dnf apk pacman brew; do
		if command -v "$name" >/dev/null 2>&1; then
			echo "$name"
			return
		fi
	done
}

# command_for MANAGER: the command that installs the server.
command_for() {
	case "$1" in
	apt-get) echo "apt-get install -y --no-install-recommends postgresql" ;;
	dnf) echo "dnf install -y postgresql-server" ;;
	apk) echo "apk add postgresql" ;;
	pacman) echo "pacman -S --noconfirm postgresql" ;;
	brew) echo "brew install postgresql@17" ;;
	esac
}

# privilege MANAGER: what to put before the command; fails where we may not.
privilege() {
	if [ "$1" = brew ] || [ "$(id -u)" = 0 ]; then
		return
	fi
	sudo -n true 2>/dev/null && echo "sudo -n"
}

# install_apt SUDO COMMAND: without the cluster that Debian's package otherwise
# creates and starts as a service. The setting is a file of ours in a directory
# made for such files, and goes again.
install_apt() {
	dropin="$dropin_dir/dvmsg-no-cluster.conf"
	# shellcheck disable=SC2064 # expanded now: the values are known
	trap "$1 rm -f '$dropin'; $1 rmdir '$dropin_dir' 2>/dev/null || true" EXIT
	$1 mkdir -p "$dropin_dir"
	echo "create_main_cluster = false" | $1 tee "$dropin" >/dev/null
	# An image without package lists needs them first; others save the time.
	apt_env="env DEBIAN_FRONTEND=noninteractive"
	$1 $apt_env $2 || { $1 $apt_env apt-get update && $1 $apt_env $2; }
}

# explain MANAGER: the one command to run.
explain() {
	command=$(command_for "$1")
	case "$1" in
	"") command="the installation of your system's PostgreSQL server package" ;;
	brew) ;;
	*) command="sudo $command" ;;
	esac
	echo "PostgreSQL $minimum or newer is needed (server binaries initdb and postgres). Run: $command" >&2
}

if [ "${1:-}" = --or-url ] && [ -n "${DVMSG_DATABASE_URL:-}" ]; then
	exit 0
fi
if found >/dev/null; then
	exit 0
fi
if [ -n "${DVMSG_POSTGRES_BIN:-}" ]; then
	echo "DVMSG_POSTGRES_BIN=$DVMSG_POSTGRES_BIN holds no PostgreSQL $minimum or newer. Run: unset DVMSG_POSTGRES_BIN" >&2
	exit 1
fi
manager=$(manager)
if [ -z "$manager" ] || ! sudo=$(privilege "$manager"); then
	explain "$manager"
	exit 1
fi
command=$(command_for "$manager")
echo "PostgreSQL server binaries are missing; installing them: ${sudo:+$sudo }$command" >&2
case "$manager" in
apt-get) install_apt "$sudo" "$command" ;;
*) $sudo $command ;;
esac
if ! found >/dev/null; then
	echo "The installed PostgreSQL is older than $minimum or lies in no usual place. Run: export DVMSG_POSTGRES_BIN=<directory of initdb and postgres>" >&2
	exit 1
fi
