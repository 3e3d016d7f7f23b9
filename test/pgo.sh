#!/usr/bin/env bash
# Writes cmd/meshtap/default.pgo anew: profiles of the proxy under the loads of the benchmark, merged. The Go compiler uses
# the file by itself. Needs curl. Called by `make pgo`, which builds what is needed before.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
bench=$1
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# The benchmark starts its proxy itself; this one adds where to ask it for a profile.
cat >"$work/meshtap" <<WRAP
#!/bin/sh
[ "\$1" = serve ] && set -- "\$@" --enable-profiles --admin $work/admin.sock
exec $PWD/bin/meshtap "\$@"
WRAP
chmod +x "$work/meshtap"

for row in h1-1k h1-1k-8k h1-16k h1-post-64k h1-churn h2-1k h2-h1 h2-tls-1k grpc-unary; do
	echo "profile of $row"
	"$bench" run -only meshtap -rows "$row" -rounds 1 -again 0 -measure 10s -meshtap "$work/meshtap" -out "$work/out" >"$work/log" 2>&1 &
	run=$!
	until [[ -S $work/admin.sock ]]; do
		kill -0 $run 2>/dev/null || { cat "$work/log" >&2; exit 1; }
		sleep 0.1
	done
	sleep 2
	curl -sf --unix-socket "$work/admin.sock" 'http://localhost/profile?seconds=8' -o "$work/$row.prof"
	wait $run
	rm -f "$work/admin.sock"
done
go tool pprof -proto "$work"/*.prof >"$work/merged" 2>/dev/null
mv "$work/merged" cmd/meshtap/default.pgo
ls -l cmd/meshtap/default.pgo
