#!/bin/sh
# Installs the pinned packages of package-lock.json into a cache outside the tree,
# once for each content of that file, and prints the folder that holds them. The
# registry is whatever npm is set to: the file names none.
set -eu
cd "$(dirname "$0")"

command -v npm >/dev/null || {
	echo "npm is not on PATH: install Node.js 20 or newer to run the interoperability tests" >&2
	exit 1
}
key=$(cat package.json package-lock.json | cksum | tr ' ' '-')
cache="${XDG_CACHE_HOME:-$HOME/.cache}/dataverket-messaging/interop-$key"
if [ ! -d "$cache" ]; then
	# Beside its place and renamed when complete: neither an interrupted nor a
	# second run leaves or finds half of it.
	mkdir -p "$(dirname "$cache")"
	fresh=$(mktemp -d "$cache.XXXXXX")
	trap 'rm -rf "$fresh"' EXIT
	cp package.json package-lock.json "$fresh"
	(cd "$fresh" && npm ci --ignore-scripts --no-audit --no-fund --loglevel=error >&2)
	[ -d "$cache" ] || mv "$fresh" "$cache"
fi
echo "$cache/node_modules"
