# Sourced by the other scripts: where the project is, and how they talk.
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
bun=$root/node_modules/.bin/bun
deno=$root/node_modules/.bin/deno

say() { printf '%s\n' "$*"; }
die() { printf 'Error: %s\n' "$*" >&2; exit 1; }
