#!/usr/bin/env bash
# Installs what the project needs and this host lacks. Says what it does, does nothing twice, and goes on where an
# interrupted run stopped.
#   setup.sh build   what a build needs: the npm packages
#   setup.sh run     and what containers need: crun, btrfs-progs, ...      (default)
#   setup.sh test    and what the tests need: filesystems, the lxc client
set -euo pipefail
. "$(dirname "$0")/say.sh"
goal=${1:-run}
case $goal in build | run | test) ;; *) die "Unknown goal \"$goal\": build, run or test" ;; esac

# Two of these at once (a quickstart beside a test) would fight over node_modules and dpkg.
exec 9<"$root"
flock 9

log=$(mktemp)
trap 'rm -f "$log"' EXIT

has() { command -v "$1" >/dev/null 2>&1 || [ -x "/usr/sbin/$1" ] || [ -x "/sbin/$1" ]; }
# Inside an image there are no libraries, so a busybox that needs them does not do.
has_static_busybox() { [ -x /bin/busybox ] && ! LC_ALL=C ldd /bin/busybox >/dev/null 2>&1; }

# The stamp is written last, so a node_modules without it, or with another lock file's, is not trusted.
cd "$root"
stamp=node_modules/.lido-lock
wanted=$(sha256sum <package-lock.json)
tools_run() { "$bun" --version >/dev/null 2>&1 && "$deno" --version >/dev/null 2>&1; }
is_stamped=false
if [ "$(cat $stamp 2>/dev/null)" = "$wanted" ] && tools_run; then is_stamped=true; fi

missing=()
need() { has "$1" || missing+=("$2"); }
if ! $is_stamped; then
  need npm npm
  need node nodejs
fi
if [ "$goal" != build ]; then
  need crun crun
  need bwrap bubblewrap
  need mkfs.btrfs btrfs-progs
  need newuidmap uidmap
  need xz xz-utils
  need zstd zstd
  need sqfs2tar squashfs-tools-ng
  need mkfs.ext4 e2fsprogs
  need getfacl acl
  need getfattr attr
  has_static_busybox || missing+=(busybox-static)
fi
if [ "$goal" = test ]; then
  need mkfs.xfs xfsprogs
  need mksquashfs squashfs-tools
  need python3 python3
  need lxc lxd-client
  need openssl openssl
  need setcap libcap2-bin
  need bzip2 bzip2
  need ip iproute2
  need lxcfs lxcfs
  need mmdebstrap mmdebstrap
  [ -e /usr/share/keyrings/debian-archive-keyring.gpg ] || missing+=(debian-archive-keyring)
  need zsh zsh
  need fish fish
fi

apt() { DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=300 -q "$@" >"$log" 2>&1; }
if [ ${#missing[@]} -gt 0 ]; then
  has apt-get || die "Cannot install ${missing[*]}: no apt-get on this host; install them by its own means and run this again"
  [ "$(id -u)" = 0 ] || die "Cannot install ${missing[*]}: not root"
  say "Installing ${missing[*]} (apt-get)"
  # What an interrupted dpkg left half done stops every later install.
  if [ -n "$(dpkg --audit 2>&1)" ]; then dpkg --configure -a >"$log" 2>&1 || { tail -n 20 "$log" >&2; die "dpkg --configure -a failed"; }; fi
  # Old package lists name files that are gone, and a fresh host has none: then fetch them, once.
  apt install -y --no-install-recommends "${missing[@]}" || {
    apt update || { tail -n 5 "$log" >&2; die "apt-get update failed"; }
    apt install -y --fix-broken --no-install-recommends "${missing[@]}" ||
      { tail -n 20 "$log" >&2; die "Cannot install ${missing[*]}"; }
  }
fi

is_complete() { [ -f node_modules/.package-lock.json ] && npm ls --all >/dev/null 2>&1 && tools_run; }
if ! $is_stamped; then
  if ! is_complete; then
    say "Installing npm packages (npm ci)"
    npm ci --no-progress >"$log" 2>&1 || { tail -n 20 "$log" >&2; die "npm ci failed"; }
  fi
  # bun and deno put their binaries in place by postinstall scripts, which npm may have been told not to run.
  "$bun" --version >/dev/null 2>&1 || (cd node_modules/bun && node install.js) >"$log" 2>&1 || true
  "$deno" --version >/dev/null 2>&1 || (cd node_modules/deno && node install.cjs) >"$log" 2>&1 || true
  "$bun" --version >/dev/null || die "bun does not run: $(tail -n 1 "$log")"
  "$deno" --version >/dev/null || die "deno does not run: $(tail -n 1 "$log")"
  printf '%s\n' "$wanted" >$stamp
fi
