#!/usr/bin/env bash
# Measures lido, and beside it in the same run the peers that are there.
#   run.sh [SECTION...]      client exec volume copy list many stalls sharing owners instance throughput idle; all when none is named
# Environment: N rounds (10); LXD_PEER_DIR, INCUS_PEER_DIR the directory of a running peer with the image `bb` and the
# pools p-dir and p-btrfs; MIB amount for throughput (1024).
set -euo pipefail
. "$(dirname "$0")/../../scripts/say.sh"
[ "$(id -u)" = 0 ] || die "Containers and mounts need root: run this as root"
bash "$root/scripts/setup.sh" test
bash "$root/scripts/build.sh"
bash "$root/scripts/make_image.sh"
cd "$root"
# These have no peer beside them and take minutes. "owners": changes of owners, starts with another map, fio (if it is installed); "many": a
# thousand volumes with ten snapshots each; "stalls": verbs of one volume while another is exported, and deleted.
wants() { [ $# = 1 ] || [[ " ${*:2} " == *" $1 "* ]]; }
if wants owners "$@"; then "$deno" run -A --no-check tests/bench/sharing.ts; fi
if wants many "$@"; then "$deno" run -A --no-check tests/bench/many.ts; fi
if wants stalls "$@"; then "$deno" run -A --no-check tests/bench/stalls.ts; fi
sections=()
for section in "$@"; do case $section in owners | many | stalls) ;; *) sections+=("$section") ;; esac; done
[ $# -gt 0 ] && [ ${#sections[@]} = 0 ] && exit 0
exec "$deno" run -A --no-check tests/bench/bench.ts "${sections[@]}"
