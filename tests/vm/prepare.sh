#!/usr/bin/env bash
# Builds the guest that the tests of LVM and ZFS run in, from Debian packages alone: Debian's cloud kernel with ZFS for
# QEMU, the user-mode kernel, and one root filesystem that both boot. Prints its directory as the last line.
#   prepare.sh [PACKAGE...]     more packages in the root filesystem
# It is kept in $LIDO_VM_CACHE (a directory lido-vm in $XDG_CACHE_HOME, or in /var/cache), keyed by all that it is made of: one that is
# there costs one look at Debian's lists. The ZFS modules, most of the work, have a key of their own.
# $LIDO_VM_ZFS_SUITE: whose ZFS it has, bookworm-backports' or that of bookworm itself, which is older.
# Exit code 3: what it needs cannot be had here.
set -euo pipefail
. "$(dirname "$0")/../../scripts/say.sh"
cache=${LIDO_VM_CACHE:-${XDG_CACHE_HOME:-/var/cache}/lido-vm}
export DEBIAN_FRONTEND=noninteractive LC_ALL=C
lacking() { printf 'Error: %s\n' "$*" >&2; exit 3; }
[ "$(id -u)" = 0 ] || lacking "the guest is built by root"
[ "$(uname -m)" = x86_64 ] || lacking "the guest is for x86_64, this is $(uname -m)"
command -v apt-get >/dev/null || lacking "the guest is made of Debian packages: no apt-get on this host"
mkdir -p "$cache"
# One at a time: two would build the same.
exec 8>"$cache/lock"
flock 8
work=$cache/partial
rm -rf "$work"
mkdir -p "$work"
log=$work/log
children=()
# Each child leads a process group: what it started ends with it.
set -m
clean_up() {
  local pid process
  for pid in "${children[@]}"; do kill -- "-$pid" 2>/dev/null || true; done
  # But for what apt starts, in a session of its own; it is known by its root. What was mounted for it stays then, too.
  for process in /proc/[0-9]*; do
    case $(readlink "$process/root" 2>/dev/null) in "$work"/*) kill -KILL "${process#/proc/}" 2>/dev/null || true ;; esac
  done
  wait
  findmnt -rno TARGET | grep "^$work/" | sort -r | xargs -r -n 1 umount || true
  rm -rf --one-file-system "$work"
}
trap clean_up EXIT
trap 'exit 130' INT TERM
failed() { tail -n 30 "$1" >&2; die "$2"; }
started=$SECONDS
step() { say "  $((SECONDS - started)) s: $*"; }

missing=()
need() { [ -e "$1" ] || missing+=("$2"); }
need /usr/bin/qemu-system-x86_64 qemu-system-x86
need /usr/lib/qemu/virtiofsd qemu-system-common
need /usr/bin/mmdebstrap mmdebstrap
need /sbin/mke2fs e2fsprogs
need /usr/bin/lz4 lz4
need /usr/bin/xz xz-utils
need /sbin/depmod kmod
need /usr/share/keyrings/debian-archive-keyring.gpg debian-archive-keyring
if [ ${#missing[@]} -gt 0 ]; then
  say "Installing ${missing[*]} (apt-get)"
  install=(apt-get -o DPkg::Lock::Timeout=300 -q install -y --no-install-recommends "${missing[@]}")
  "${install[@]}" >"$log" 2>&1 || { apt-get -q update >"$log" 2>&1 && "${install[@]}" >"$log" 2>&1; } ||
    { tail -n 5 "$log" >&2; lacking "cannot install ${missing[*]}"; }
fi

# Debian's lists for the guest, apart from the host's: backports and contrib are not to be this host's matter.
debian() { cat /etc/apt/sources.list.d/*.sources /etc/apt/sources.list 2>/dev/null | grep -oE "https?://[^ ]+" | sed 's|/*$||' | grep -E "$1" | head -n 1 || true; }
mirror=$(debian '/debian$')
security=$(debian 'debian-security$')
mirror=${mirror:-http://deb.debian.org/debian}
security=${security:-http://deb.debian.org/debian-security}
signed='[signed-by=/usr/share/keyrings/debian-archive-keyring.gpg]'
mkdir -p "$cache/apt/lists/partial" "$cache/apt/cache/archives/partial"
cat >"$cache/apt/sources.list" <<END
deb $signed $mirror bookworm main contrib
deb $signed $security bookworm-security main contrib
deb $signed $mirror bookworm-backports main contrib
END
apt=(-o "Dir::Etc::sourcelist=$cache/apt/sources.list" -o Dir::Etc::sourceparts=/dev/null -o "Dir::State::lists=$cache/apt/lists"
  -o "Dir::Cache=$cache/apt/cache" -o Acquire::Languages=none -o Acquire::Retries=3 -o APT::Sandbox::User=root)
if ! apt-get "${apt[@]}" update -q >"$log" 2>&1; then
  ls "$cache"/apt/lists/*Packages* >/dev/null 2>&1 || { tail -n 5 "$log" >&2; lacking "Debian's lists cannot be had"; }
  say "Debian's lists cannot be had now: those of last time are taken"
fi
newest() { apt-cache "${apt[@]}" madison "$1" | awk -v suite="$2" '$0 ~ suite { print $3; exit }'; }
kernel=$(apt-cache "${apt[@]}" depends linux-image-cloud-amd64 | awk '/Depends: linux-image-6\.1/ { sub("linux-image-", "", $2); print $2; exit }')
[ -n "$kernel" ] || lacking "no linux-image-cloud-amd64 in Debian's lists"
kernel_version=$(newest "linux-image-$kernel" .)
zfs_suite=${LIDO_VM_ZFS_SUITE:-bookworm-backports}
zfs_version=$(newest zfs-dkms " $zfs_suite/")
uml_version=$(newest user-mode-linux .)
[ -n "$zfs_version" ] && [ -n "$uml_version" ] || lacking "no zfs-dkms of $zfs_suite or no user-mode-linux in Debian's lists"

packages=(quota lvm2 thin-provisioning-tools dmsetup udev btrfs-progs xfsprogs e2fsprogs util-linux mount fdisk kmod procps iproute2
  uidmap crun bubblewrap nftables attr acl strace ca-certificates jq zstd xz-utils bzip2 busybox-static squashfs-tools squashfs-tools-ng openssl libcap2-bin
  lxd-client lxcfs apparmor "$@")
key=$(cat - "$0" <<<"$kernel_version $zfs_version $uml_version ${packages[*]}" | sha256sum | cut -c1-16)
guest=$cache/guest-$key
modules=$cache/zfs-$zfs_version-$kernel_version.tar.xz
if [ -e "$guest/ready" ] && [ -e "$modules" ]; then
  touch "$guest/ready"
  say "$guest"
  exit 0
fi

say "Building the guest: Linux $kernel, ZFS $zfs_version; a few minutes, most of them for ZFS"
avail=$(df --output=avail -BM "$cache" | tail -n 1 | tr -dc 0-9)
[ "$avail" -ge 4000 ] || lacking "the guest needs 4000 MiB in $cache, there are $avail"
bootstrap() {
  nice mmdebstrap --mode=root --variant=minbase --aptopt='APT::Install-Recommends "false"' --aptopt='Acquire::Languages "none"' \
    --aptopt='Acquire::Retries "3"' --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/doc/*' \
    --dpkgopt='path-exclude=/usr/share/locale/*' "$@" - <"$cache/apt/sources.list"
}
with_zfs() { printf '%s' "--customize-hook=chroot \"\$1\" apt-get install -yq --no-install-recommends -t $zfs_suite $*"; }

if [ ! -e "$modules" ]; then
  # zfs-dkms must be configured while /proc is there: mmdebstrap has it for its hooks. Without debug information, which nobody reads,
  # the compiler is done in two thirds of the time.
  (
    export KCFLAGS=-g0
    bootstrap --include="linux-headers-$kernel,gcc,make,libc6-dev,dkms,kmod,xz-utils,patch" "$(with_zfs zfs-dkms)" \
      bookworm "$work/zfs"
    test -f "$work/zfs/lib/modules/$kernel/updates/dkms/zfs.ko"
    tar -C "$work/zfs/lib/modules/$kernel" -cJf "$work/zfs.tar.xz" updates
    rm -rf "$work/zfs"
  ) >"$work/zfs.log" 2>&1 &
  children+=($!)
fi
include=$(printf ',%s' "${packages[@]}")
bootstrap --include="${include:1}" "$(with_zfs zfsutils-linux)" bookworm "$work/root" >"$work/root.log" 2>&1 &
children+=($!)

mkdir -p "$work/guest" "$work/debs"
(cd "$work/debs" && apt-get "${apt[@]}" download "linux-image-$kernel" user-mode-linux >"$log" 2>&1) || failed "$log" "Cannot fetch the kernels"
dpkg-deb -x "$work"/debs/linux-image-*.deb "$work/kernel"
dpkg-deb -x "$work"/debs/user-mode-linux_*.deb "$work/uml"
cp "$work/uml/usr/bin/linux.uml" "$work/guest/linux.uml"
# Uncompressed: unpacking it is the slowest part of a boot on an emulated processor.
unpack_kernel() {
  local offset magic tool
  while read -r magic tool; do
    for offset in $(grep -abo -P "$magic" "$1" | cut -d: -f1); do
      # What follows the payload makes the tool complain of garbage, after it has written all.
      tail -c +$((offset + 1)) "$1" | $tool >"$2" 2>/dev/null || true
      [ "$(head -c 4 "$2" | od -An -tx1 | tr -d ' ')" = 7f454c46 ] && return
    done
  done <<'END'
\x02\x21\x4c\x18 lz4 -dc
\xfd7zXZ\x00 xz -dc --single-stream
\x28\xb5\x2f\xfd zstd -dc
\x1f\x8b\x08 gzip -dc
END
  return 1
}
unpack_kernel "$work/kernel/boot/vmlinuz-$kernel" "$work/guest/vmlinux" || die "No kernel in vmlinuz-$kernel"
step "kernels"

for pid in "${children[@]}"; do
  wait "$pid" || {
    [ -e "$work/zfs.tar.xz" ] || [ -e "$modules" ] || tail -n 15 "$work/zfs.log" >&2
    failed "$work/root.log" "Cannot build the guest"
  }
done
children=()
step "root filesystem and ZFS modules"
[ -e "$modules" ] || mv "$work/zfs.tar.xz" "$modules"

tree=$work/root
mkdir -p "$tree/lib/modules" "$tree/src" "$tree/out" "$tree/scratch"
rm -rf "$tree/lib/modules/$kernel" "$tree"/var/lib/apt/lists/* "$tree"/var/cache/apt/*
cp -a "$work/kernel/lib/modules/$kernel" "$work"/uml/usr/lib/uml/modules/* "$tree/lib/modules/"
tar -C "$tree/lib/modules/$kernel" -xJf "$modules"
depmod -b "$tree" "$kernel"
# As little as mounts the clone: what comes after is there, in tests/vm/init, and may change without another image.
cat >"$tree/sbin/vm-init" <<'END'
#!/bin/bash
export PATH=/usr/sbin:/usr/bin:/sbin:/bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mountpoint -q /dev || mount -t devtmpfs devtmpfs /dev
for word in $(</proc/cmdline); do
  case $word in vm.*=*) name=${word%%=*} && printf -v "vm_${name#vm.}" %s "${word#*=}" ;; esac
done
if [ "$vm_kind" = uml ]; then
  mount -t hostfs -o "$vm_source" hostfs /src
  mount -o remount,ro,bind /src
  mount -t hostfs -o "$vm_out" hostfs /out
else
  modprobe -a virtio_pci virtio_blk virtiofs
  mount -t virtiofs -o ro source /src
  mount -t virtiofs out /out
fi
exec /src/tests/vm/init
END
chmod 755 "$tree/sbin/vm-init"
: >"$tree/etc/machine-id"
for file in subuid subgid; do grep -q '^root:' "$tree/etc/$file" || echo root:100000:6553600 >>"$tree/etc/$file"; done
truncate -s 3G "$work/guest/root.img"
/sbin/mke2fs -q -t ext4 -O ^has_journal -m 0 -E lazy_itable_init=1 -d "$tree" "$work/guest/root.img" >"$log" 2>&1 || failed "$log" "Cannot make the root filesystem"
: >"$work/guest/ready"
rm -rf "$guest"
mv "$work/guest" "$guest"
# Those of other versions go, when no machine runs them and a month has passed.
find "$cache" -maxdepth 2 -path "$cache/guest-*/ready" -mtime +30 -printf '%h\n' | while read -r old; do
  (flock -xn 7 && rm -rf "$old") 7<"$old" || true
done
step "image"
say "$guest"
