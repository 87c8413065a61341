#!/usr/bin/env bash
# What shell scripts of CI jobs do with exec in ssh's place: heredocs, loops, pipes, time limits, jobs in the background.
. "$(dirname "$0")/steps.sh"
instance=$PREFIX-shell
work=$(mktemp -d)
trap 'remove_made; rm -rf "$work"' EXIT
launch "$instance"
run() { client exec "$instance" -- "$@"; }

ok "a heredoc is the script of a shell, whose exit code is exec's" "$(
  run sh -s -- first 'second word' <<'SCRIPT'
echo "$1, $2"
false || exit 9
SCRIPT
  echo "rc $?"
)" "first, second word
rc 9"

ok "command substitution keeps every byte but the last newline" "$(run printf 'a\tb  c\n\nd\n')" $'a\tb  c\n\nd'

run sh -c 'exit 3' || code=$?
ok "the exit code is the command's under ||" "$code" 3
ok "set -e ends the script at a command that fails" "$(bash -ec '
  "$0" exec "$1" -- true; echo before; "$0" exec "$1" -- false; echo after' "$CLIENT" "$instance"; echo "rc $?")" "before
rc 1"
ok "pipefail sees it in a pipe" "$(bash -o pipefail -c '"$0" exec "$1" -- sh -c "echo x; exit 5" | cat; echo "rc $?"' "$CLIENT" "$instance")" "x
rc 5"

printf 'one\ntwo\nthree\n' >"$work/list"
ok "a while-read loop with exec -n reads every line" "$(
  while read -r word; do client exec -n "$instance" -- echo "$word"; done <"$work/list"
)" $'one\ntwo\nthree'
ok "a while-read loop with </dev/null does, too" "$(
  while read -r word; do run echo "$word" </dev/null; done <"$work/list"
)" $'one\ntwo\nthree'
ok "a command that reads takes the rest of the loop's input" "$(
  while read -r word; do
    echo "loop $word"
    run cat
  done <"$work/list"
)" $'loop one\ntwo\nthree'
ok "what a command reads from a file is not there for the next" "$({ run cat; echo "then"; cat; } <"$work/list")" $'one\ntwo\nthree\nthen'

head -c 8000000 /dev/urandom >"$work/bytes"
ok "8 MB of random bytes go in and come out the same" "$(run cat <"$work/bytes" | sha256sum)" "$(sha256sum <"$work/bytes")"
mkdir "$work/tree"
seq 1000 >"$work/tree/numbers"
ln -s numbers "$work/tree/link"
ok "a tree goes in by tar and comes back" "$(
  tar -C "$work" -c tree | run tar -x -C /tmp &&
    run tar -c -C /tmp tree | tar -t | sort
)" "tree/
tree/link
tree/numbers"

ok "standard output and error are apart" "$(run sh -c 'echo out; echo err >&2' 2>"$work/err"; cat "$work/err")" $'out\nerr'
from_cron() { env -i PATH="$PATH" LXD_DIR="$LXD_DIR" LIDO_DIR="${LIDO_DIR:-}" LXD_CONF="${LXD_CONF:-}" HOME="${HOME:-/}" timeout -k 2 20 setsid -w "$CLIENT" exec "$instance" -- sh -c "echo run; exit 4" 2>&1; }
ok "no terminal, no input, an empty environment: as from cron" "$(from_cron </dev/null; echo "rc $?")" $'run\nrc 4'
if [ "$CLIENT" = lxc ]; then
  skip "the same with a closed standard input" "lxc takes the free descriptor for a socket of its own, and fails or hangs"
else
  ok "the same with a closed standard input" "$(from_cron <&-; echo "rc $?")" $'run\nrc 4'
fi

if [ "$CLIENT" = lxc ]; then
  skip "nohup: it outlives a hangup" "lxc hands SIGHUP on as SIGTERM, though it was told to ignore it"
else
  mkfifo "$work/started"
  run mkfifo /tmp/go
  nohup "$CLIENT" exec "$instance" -- sh -c 'echo started >&2; read -r line </tmp/go; echo "ended $line"' >"$work/nohup" 2>"$work/started" </dev/null &
  job=$!
  read -r _ <"$work/started"
  kill -HUP "$job"
  within 5 "$CLIENT" exec "$instance" -- sh -c 'echo well >/tmp/go' </dev/null
  wait "$job"
  ok "nohup: it outlives a hangup" "$(cat "$work/nohup")" "ended well"
fi

ok "timeout ends a command, inside too" "$(
  within 4 "$CLIENT" exec "$instance" -- sh -c 'exec sleep 4321' </dev/null
  echo "rc $?"
  run sh -c 'ps -o args 2>/dev/null | grep -c "^sleep 4321"'
)" $'rc 124\n0'
ok "timeout -k ends a command that ignores the signal, inside too" "$(
  timeout -k 1 4 "$CLIENT" exec "$instance" -- sh -c 'trap "" TERM; exec sleep 4322' </dev/null
  echo "rc $?"
  # The daemon kills it when it sees that the client is gone.
  run sh -c 'tries=0; while ps -o args | grep -q "^sleep 4322" && [ $((tries += 1)) -lt 50 ]; do sleep 0.1; done; ps -o args | grep -c "^sleep 4322"'
)" $'rc 137\n0'
ok "twenty at once by xargs -P, none lost" "$(seq 20 | xargs -P 8 -I{} "$CLIENT" exec "$instance" -- echo {} | sort -n | tr '\n' ' ')" "$(seq 20 | tr '\n' ' ')"
ok "xargs sees those that fail" "$(seq 5 | xargs -P 5 -I{} "$CLIENT" exec "$instance" -- sh -c 'test {} != 3'; echo "rc $?")" "rc 123"
ok "jobs in the background, and wait for each" "$(
  pids=()
  for code in 0 7 9; do
    run sh -c "exit $code" </dev/null &
    pids+=($!)
  done
  for pid in "${pids[@]}"; do wait "$pid"; echo "$?"; done
)" $'0\n7\n9'
ok "what a command leaves in the background keeps nobody waiting" "$(
  within 10 "$CLIENT" exec "$instance" -- sh -c 'sleep 20 & echo hi; exit 6' </dev/null
  echo "rc $?"
)" $'hi\nrc 6'
ok "death by a signal is 128 and its number" "$(run sh -c 'kill -TERM $$'; echo "$?") $(run sh -c 'kill -KILL $$'; echo "$?")" "143 137"
ok "a missing command is 127, one that cannot be run 126" "$(run /no/such 2>/dev/null; echo "$?") $(run /etc/passwd 2>/dev/null; echo "$?")" "127 126"
ok "a reader that ends early ends the command" "$(within 10 bash -c '"$0" exec "$1" -- yes | head -n 1' "$CLIENT" "$instance"; echo "rc $?")" $'y\nrc 0'
ok "environment and directory are the command's" "$(client exec "$instance" --env 'A=b c' --cwd /tmp -- sh -c 'echo "$A in $(pwd)"')" "b c in /tmp"
