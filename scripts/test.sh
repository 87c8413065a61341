#!/usr/bin/env bash
# Installs what is missing, builds, and runs every test. The last line is "N passed, N failed".
#   test.sh [SUITE...]    some suites alone; `test.sh list` names them
set -euo pipefail
. "$(dirname "$0")/say.sh"
[ "$(id -u)" = 0 ] || die "The tests make mounts and containers: run this as root"
bash "$root/scripts/setup.sh" test
bash "$root/scripts/build.sh"
bash "$root/scripts/make_image.sh"
cd "$root"
exec "$deno" run -A --no-check tests/run.ts "$@"
