#!/usr/bin/env bash
# Makes a small image from this host's static busybox: a unified tarball as `lido image import` takes it.
# The same busybox gives the same bytes, so that the fingerprint stays.
#   make_image.sh [FILE]    dist/busybox.tar.xz when absent
set -euo pipefail
. "$(dirname "$0")/say.sh"
file=${1:-$root/dist/busybox.tar.xz}
[ "$file" -nt /bin/busybox ] && [ "$file" -nt "$0" ] && exit 0
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
umask 022

tree=$work/rootfs
mkdir -p "$tree"/{bin,sbin,etc,dev,proc,sys,tmp,root,home/user,var/log,run,usr/bin,usr/sbin,usr/lib,mnt,opt,srv} "$work/templates"
chmod 1777 "$tree/tmp"
chmod 700 "$tree/root"
cp /bin/busybox "$tree/bin/busybox"
chmod 755 "$tree/bin/busybox"
for tool in $(/bin/busybox --list); do [ "$tool" = busybox ] || ln -s busybox "$tree/bin/$tool"; done
ln -s ../bin/busybox "$tree/sbin/init"
# /sbin/init must have something to keep, or it asks for a terminal on every console that is not there.
cat >"$tree/etc/inittab" <<'END'
::sysinit:/bin/true
::restart:/sbin/init
::ctrlaltdel:/bin/poweroff
::shutdown:/bin/true
null::respawn:/bin/sleep 2147483647
END
printf 'root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1000:user:/home/user:/bin/sh\n' >"$tree/etc/passwd"
printf 'root:x:0:\nuser:x:1000:\n' >"$tree/etc/group"
printf 'PATH=/bin:/sbin:/usr/bin:/usr/sbin\n' >"$tree/etc/profile"
echo busybox >"$tree/etc/hostname"
: >"$tree/etc/resolv.conf"

machine=$(uname -m)
release=$(/bin/busybox | sed -n '1s/^BusyBox v\([0-9.]*\).*/\1/p')
case $machine in x86_64) debian=amd64 ;; aarch64) debian=arm64 ;; *) debian=$machine ;; esac
cat >"$work/metadata.yaml" <<END
architecture: $machine
creation_date: 1700000000
properties:
  architecture: $debian
  description: Busybox $release
  os: busybox
  release: "$release"
templates:
  /etc/hostname:
    when: [create, copy]
    template: hostname.tpl
END
echo '{{ container.name }}' >"$work/templates/hostname.tpl"

mkdir -p "$(dirname "$file")"
partial=$(mktemp "$(dirname "$file")/.image-XXXXXX")
trap 'rm -rf "$work" "$partial"' EXIT
# What /home/user holds must be the user's; all else root's, whoever runs this.
tar -C "$work" --sort=name --mtime=@1700000000 --owner=0 --group=0 --numeric-owner -cf "$work/image.tar" \
  --exclude=rootfs/home/user metadata.yaml templates rootfs
tar -C "$work" --mtime=@1700000000 --owner=1000 --group=1000 --numeric-owner -rf "$work/image.tar" rootfs/home/user
xz -6 -T1 -c "$work/image.tar" >"$partial"
chmod 644 "$partial"
mv -f "$partial" "$file"
say "Made $file ($(du -k "$file" | cut -f1) KiB)"
