#!/usr/bin/env bash
# Says how long it takes from a bare clone to the first live event: cloning, building, starting the demo, and reading one
# real request with `meshtap tap`. With --cold nothing that was built before is used (the module cache is). A person
# reads the figures; nothing is asserted but that the event comes.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
work=$(mktemp -d)
demo=
finish() {
	[[ -z $demo ]] || { kill -INT "$demo" 2>/dev/null && wait "$demo" || true; }
	chmod -R u+w "$work" && rm -rf "$work"
}
trap finish EXIT
now() { date +%s.%N; }
since() { awk -v a="$1" -v b="$(now)" 'BEGIN { printf "%.1f s", b - a }'; }
[[ ${1:-} != --cold ]] || export GOCACHE=$work/cache
export MESHTAP_CONTEXT=$work/context.json

start=$(now)
git clone -q "$root" "$work/meshtap"
cd "$work/meshtap"
make --no-print-directory build PGO=off >/dev/null # as make demo does
built=$(since "$start")

ready=$(now)
bin/meshtapd demo >"$work/demo.log" 2>&1 &
demo=$!
until bin/meshtap tap -n 1 >"$work/event" 2>"$work/tap.log"; do
	kill -0 "$demo" 2>/dev/null || { cat "$work/demo.log" >&2; exit 1; }
	sleep 0.05
done
echo "clone and build:            $built"
echo "demo to the first event:    $(since "$ready")"
echo "bare clone to first event:  $(since "$start")"
tail -n 1 "$work/event"
