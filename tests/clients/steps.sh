# Sourced by the scripts beside it. Each reports its steps as TAP (Test Anything Protocol) lines, which clients_test.ts reads.
# The environment of every script:
#   CLIENT   the command that is driven: lxc, or lido's own client
#   LXD_DIR  the daemon's directory, as both clients read it
#   IMAGE    alias of an image with a shell and an init
#   POOL     a storage pool
#   PREFIX   begins the names of all that a script makes, so that two runs on one daemon do not meet
set -u
client() { "$CLIENT" "$@"; }

# ok NAME ACTUAL EXPECTED
ok() {
  if [ "$2" = "$3" ]; then
    echo "ok - $1"
  else
    echo "not ok - $1"
    printf '  expected: %q\n  actual:   %q\n' "$3" "$2"
  fi
}
# skip NAME REASON
skip() { echo "ok - $1 # SKIP $2"; }

# within SECONDS COMMAND...: its exit code, or 124 when it takes longer.
within() { timeout -k 2 "$@"; }

# What a script launched goes when it ends, however it ends.
made=()
launch() {
  made+=("$1")
  client launch "$IMAGE" "$@" >/dev/null
}
remove_made() {
  local name
  for name in ${made[@]+"${made[@]}"}; do client delete -f "$name" >/dev/null 2>&1; done
}
trap remove_made EXIT
trap 'exit 143' TERM INT
