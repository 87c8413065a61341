#!/usr/bin/env bash
# Builds the one executable: daemon and client, nothing needed beside it.
#   build.sh [TARGET] [FILE] [ENTRY]     TARGET: bun-linux-x64, bun-linux-arm64; this machine's when absent. FILE: dist/lido
#                                        ENTRY: cli/main.ts; tests have a daemon of their own
set -euo pipefail
. "$(dirname "$0")/say.sh"
target=${1:-}
file=${2:-dist/lido}
entry=${3:-cli/main.ts}
cd "$root"

# Workers are entry points of their own: their code is loaded by name at run time.
mapfile -t workers < <(find cli drivers server -name '*_worker.ts' | sort)

if [ -s "$file" ] && [ -z "$(find api cli drivers server mod.ts package-lock.json scripts/build.sh scripts/start_anywhere.ts scripts/man.ts scripts/reference "$(dirname "$entry")" -newer "$file" -print -quit)" ]; then
  say "$file is up to date"
  exit 0
fi
bash scripts/setup.sh build

# The runtime of another machine comes from npm like everything else, checked against the lock file.
runtime=()
machine=$(uname -m)
case $target in
  "" | bun-linux-x64 | bun-linux-arm64) ;;
  *) die "Unknown target \"$target\": bun-linux-x64 or bun-linux-arm64" ;;
esac
case $target:$machine in
  bun-linux-x64:aarch64) package=@oven/bun-linux-x64 ;;
  bun-linux-arm64:x86_64) package=@oven/bun-linux-aarch64 ;;
  *) package="" ;;
esac
if [ -n "$package" ]; then
  version=$(node -p 'require("./package-lock.json").packages["node_modules/bun"].version')
  cache=node_modules/.cache/lido/$target-$version
  if [ ! -x "$cache/package/bin/bun" ]; then
    say "Fetching $package $version (npm pack)"
    rm -rf "$cache"
    mkdir -p "$cache"
    npm pack --silent --pack-destination "$cache" "$package@$version" >/dev/null
    sum="sha512-$(openssl dgst -sha512 -binary "$cache"/*.tgz | base64 -w0)"
    locked=$(node -p "require('./package-lock.json').packages['node_modules/$package'].integrity")
    [ "$sum" = "$locked" ] || { rm -rf "$cache"; die "$package $version is not what package-lock.json names"; }
    tar -C "$cache" -xzf "$cache"/*.tgz package/bin/bun
    rm -f "$cache"/*.tgz
    chmod 755 "$cache/package/bin/bun"
  fi
  runtime=(--target="$target" --compile-executable-path="$cache/package/bin/bun")
fi

mkdir -p "$(dirname "$file")"
# Built beside and moved: a running daemon keeps its file, and an interrupted build leaves none that is half one.
partial=$(mktemp -d "$(dirname "$file")/.build-XXXXXX")
trap 'rm -rf "$partial"' EXIT
# Split, so that a client loads its verb and not the daemon: 5 ms to start instead of 15. With the map of its sources in it, which is read for the stack
# of an error alone: that names files and lines of the sources.
"$bun" build --compile --minify --bytecode --sourcemap --format=esm --splitting --no-compile-autoload-dotenv --no-compile-autoload-bunfig \
  "${runtime[@]}" "$entry" "${workers[@]}" --outfile "$partial/lido" >"$partial/log" 2>&1 ||
  { cat "$partial/log" >&2; die "Cannot build $file"; }
"$bun" scripts/start_anywhere.ts "$partial/lido" || die "Cannot give $file an entry of its own"
mv -f "$partial/lido" "$file"
# Beside the executable, for `man -l` and packages.
[ "$entry" != cli/main.ts ] || "$bun" scripts/man.ts "$(dirname "$file")/man"
say "Built $file ($(du -m "$file" | cut -f1) MiB)"
