#!/usr/bin/env bash
# From a fresh clone to two running containers that share a volume; prints each command as it runs it.
# Running it again goes on where the last run stopped.
#   quickstart.sh          $LIDO_DIR names the daemon's directory; .quickstart in the clone when unset
#   quickstart.sh stop     takes all of it down: containers, pools, daemon, directory
# $LIDO_POOL names another driver and configuration for the first pool than "btrfs size=2GiB", such as "zfs size=2GiB".
set -euo pipefail
. "$(dirname "$0")/say.sh"
# Given by the caller or ours; the client and the daemon read it from the environment.
export LIDO_DIR=${LIDO_DIR:-$root/.quickstart}
lido=$root/dist/lido
# A directory is only used, and later taken away, when it carries this mark or was empty.
mark=$LIDO_DIR/.quickstart
log=$LIDO_DIR/daemon.log
read -ra pool <<<"${LIDO_POOL:-btrfs size=2GiB}"

run() {
  local word
  printf '\n$ lido'
  for word in "$@"; do
    # As one would type it: %q would put a backslash before each space.
    [[ $word =~ ^[A-Za-z0-9_./:=@%+-]+$ ]] || word=${word@Q}
    printf ' %s' "$word"
  done
  printf '\n'
  "$lido" "$@"
}
quiet() { "$lido" "$@" >/dev/null 2>&1; }

start_daemon() {
  quiet waitready --timeout 1 && return
  (
    # Descriptors of this script (a lock, a pipe to a pager) must not live on in the daemon.
    cd /
    exec setsid "$lido" daemon >>"$log" 2>&1 </dev/null 9<&-
  ) &
  local pid=$!
  if ! quiet waitready --timeout 30; then
    tail -n 15 "$log" >&2
    kill "$pid" 2>/dev/null || true
    die "The daemon did not come up; its log is $log"
  fi
}

names() { "$lido" query "$1" | grep -o '"/1.0/[^"]*"' | tr -d '"' | sed 's/?.*//; s/.*\///'; }

stop() {
  if [ ! -e "$mark" ]; then
    say "Nothing to stop: no quickstart in $LIDO_DIR"
    return
  fi
  # After a crash or a reboot there is no daemon, and only a daemon knows what it left.
  [ -x "$lido" ] || bash "$root/scripts/build.sh"
  start_daemon
  local name pool
  for name in $(names /1.0/instances); do run delete -f "$name"; done
  for name in $(names /1.0/images); do run image delete "$name"; done
  while read -r name; do run profile device remove default "$name"; done < <("$lido" profile device list default)
  for pool in $(names /1.0/storage-pools); do
    for name in $(names "/1.0/storage-pools/$pool/volumes/custom"); do run storage volume delete "$pool" "$name"; done
    run storage delete "$pool"
  done
  run shutdown
  rm -rf "$LIDO_DIR"
  say "" "All gone: containers, pools, the daemon and $LIDO_DIR"
}

[ "$(id -u)" = 0 ] || die "Containers and mounts need root: run this as root"
case ${1:-start} in
  start) ;;
  stop)
    stop
    exit 0
    ;;
  *) die "Unknown word \"$1\": quickstart.sh [stop]" ;;
esac

socket=$LIDO_DIR/unix.socket
[ ${#socket} -le 107 ] || die "$socket is longer than the 107 bytes a socket's path may have: set LIDO_DIR to a shorter one"
bash "$root/scripts/setup.sh" run
bash "$root/scripts/build.sh"
bash "$root/scripts/make_image.sh"

if [ ! -e "$mark" ]; then
  [ -z "$(ls -A "$LIDO_DIR" 2>/dev/null)" ] || die "$LIDO_DIR is in use: set LIDO_DIR to an empty directory"
  mkdir -p "$LIDO_DIR"
  : >"$mark"
fi
say "Daemon in $LIDO_DIR, its log in $log"
start_daemon

quiet storage show fast || run storage create fast "${pool[@]}"
quiet storage show plain || run storage create plain dir
quiet profile device get default root pool || run profile device add default root disk path=/ pool=fast
quiet image show busybox || run image import "$root/dist/busybox.tar.xz" --alias busybox
# One that an interrupted run created but did not start is started.
launch() {
  local name=$2
  if ! quiet info "$name"; then
    run launch "$@"
  elif ! "$lido" list "^$name\$" -c s -f csv | grep -qx RUNNING; then
    run start "$name"
  fi
}
launch busybox c1
launch busybox c2 -s plain
quiet storage volume show fast shared || run storage volume create fast shared
for name in c1 c2; do
  quiet config device get "$name" shared source || run storage volume attach fast shared "$name" shared /mnt/shared
done
run exec c1 -- sh -c 'echo "hello from $(hostname)" > /mnt/shared/greeting; id -u; ls -l /mnt/shared'
run exec c2 -- cat /mnt/shared/greeting
run list
run storage list

cat <<END

It runs. Go on with:
  export LIDO_DIR=$LIDO_DIR PATH=$root/dist:\$PATH
  lido exec c1 -- sh                 # a shell in the container
  lido launch busybox c3             # one more
  lido storage volume list fast
  LXD_DIR=$LIDO_DIR lxc list         # the lxc client speaks to it too
  npm run quickstart:stop            # takes all of it down
END
