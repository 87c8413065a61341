#!/usr/bin/env bash
# Prepares the guest (Debian packages, the first time some minutes) and runs in it what this host's kernel cannot: LVM and ZFS.
#   run.sh [WORD...]      the plans whose name has one of the words, such as "lvm", "crash"; all when there is none
set -euo pipefail
. "$(dirname "$0")/../../scripts/say.sh"
[ "$(id -u)" = 0 ] || die "The guest is built by root: run this as root"
bash "$root/scripts/setup.sh" build
bash "$root/scripts/build.sh"
# The clone is read-only in the guest.
bash "$root/scripts/build.sh" "" "$root/dist/lido-crash" tests/crash/daemon.ts
bash "$root/scripts/setup.sh" test
bash "$root/scripts/make_image.sh"
cd "$root"
exec "$deno" run -A --no-check tests/vm/run.ts "$@"
