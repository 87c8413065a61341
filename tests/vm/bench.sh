#!/usr/bin/env bash
# Measures lido beside Debian's LXD in the guest, on LVM thin and ZFS: ratios, and the processes that each operation starts.
#   bench.sh [lvm|zfs]... [ROUNDS]
set -euo pipefail
. "$(dirname "$0")/../../scripts/say.sh"
[ "$(id -u)" = 0 ] || die "The guest is built by root: run this as root"
bash "$root/scripts/setup.sh" build
bash "$root/scripts/build.sh"
bash "$root/scripts/make_image.sh"
cd "$root"
exec "$deno" run -A --no-check tests/vm/bench.ts "$@"
