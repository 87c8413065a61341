#!/usr/bin/env bash
# Makes an image as `lido image import` takes it: a unified tarball of metadata.yaml, templates/ and rootfs/.
#   make_image.sh [FILE]              this host's static busybox, in dist/busybox.tar.xz when no file is named
#   make_image.sh NAME [FILE]         in dist/images/NAME.tar.xz, "/" in the name written as "-"; `make_image.sh list` prints the names
# Debian's images are made of its packages by mmdebstrap, from the mirror that this host's apt has; they need root.
# An image that is there is kept until this script changes. $LIDO_IMAGES names another directory than dist/images.
set -euo pipefail
. "$(dirname "$0")/say.sh"
names=(busybox debian/11 debian/12 debian/13 debian/12-sysvinit debian/12-openrc debian/12-runit debian/12-podman)
name=busybox
file=
case ${1:-} in
  list)
    printf '%s\n' "${names[@]}"
    exit 0
    ;;
  busybox | debian/*)
    name=$1
    file=${2:-}
    [[ " ${names[*]} " == *" $name "* ]] || die "Unknown image \"$name\": ${names[*]}"
    ;;
  "") file=$root/dist/busybox.tar.xz ;;
  -*) die "Unknown option \"$1\": make_image.sh [NAME] [FILE], where NAME is one of ${names[*]}" ;;
  # A name that is mistyped must not become a file of busybox.
  *.tar | *.tar.*) file=$1 ;;
  *) die "Unknown image \"$1\": ${names[*]}; a file's name ends with .tar, .tar.xz or alike" ;;
esac
file=${file:-${LIDO_IMAGES:-$root/dist/images}/${name//\//-}.tar.xz}
[ -d "$(dirname "$file")" ] || mkdir -p "$(dirname "$file")"

# What an image is made of; the same key is the same image. Debian's packages are not part of it: a newer point release is no reason to
# fetch everything again.
key=$( (cat "$0"; printf '%s\n' "$name" "$(uname -m)"; [ "$name" != busybox ] || cat /bin/busybox) | sha256sum | cut -d' ' -f1)
is_made() { [ -s "$file" ] && [ "$(cat "$file.key" 2>/dev/null)" = "$key" ]; }
is_made && exit 0
# The clone of the test guest is read-only: what the host made for it is what there is.
[ ! -w "$(dirname "$file")" ] && [ -s "$file" ] && exit 0
# One at a time: two tests that start together would make the same image.
exec 8<"$(dirname "$file")"
flock 8
is_made && exit 0
work=$(mktemp -d)
partial=$(mktemp "$(dirname "$file")/.image-XXXXXX")
trap 'rm -rf --one-file-system "$work" "$partial"' EXIT
umask 022
tree=$work/rootfs
mkdir "$work/templates"
machine=$(uname -m)
case $machine in x86_64) architecture=amd64 ;; aarch64) architecture=arm64 ;; *) architecture=$machine ;; esac
started=$SECONDS

# metadata OS RELEASE DESCRIPTION: with the templates that the images of the public image servers have.
metadata() {
  cat >"$work/metadata.yaml" <<END
architecture: $machine
creation_date: 1700000000
properties:
  architecture: $architecture
  description: $3
  os: $1
  release: "$2"
templates:
  /etc/hostname:
    when: [create, copy]
    template: hostname.tpl
END
  echo '{{ container.name }}' >"$work/templates/hostname.tpl"
}

make_busybox() {
  mkdir -p "$tree"/{bin,sbin,etc,dev,proc,sys,tmp,root,home/user,var/log,run,usr/bin,usr/sbin,usr/lib,mnt,opt,srv}
  chmod 1777 "$tree/tmp"
  chmod 700 "$tree/root"
  cp /bin/busybox "$tree/bin/busybox"
  chmod 755 "$tree/bin/busybox"
  local tool
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
  local release
  release=$(/bin/busybox | sed -n '1s/^BusyBox v\([0-9.]*\).*/\1/p')
  metadata busybox "$release" "Busybox $release"
  # What /home/user holds must be the user's; all else root's, whoever runs this. The same busybox gives the same bytes, so that the
  # fingerprint stays.
  tar -C "$work" --sort=name --mtime=@1700000000 --owner=0 --group=0 --numeric-owner -cf "$work/image.tar" \
    --exclude=rootfs/home/user metadata.yaml templates rootfs
  tar -C "$work" --mtime=@1700000000 --owner=1000 --group=1000 --numeric-owner -rf "$work/image.tar" rootfs/home/user
  xz -6 -T1 -c "$work/image.tar" >"$partial"
}

# The URI that this host's apt has Debian's packages from, for every suite of it.
debian_mirror() {
  apt-get indextargets --format '$(ORIGIN) $(COMPONENT) $(CODENAME) $(REPO_URI)' 'Created-By: Packages' |
    awk '$1 == "Debian" && $2 == "main" && $3 !~ /-/ { print $4; exit }'
}

# make_debian SUITE RELEASE INIT PACKAGE...
make_debian() {
  local suite=$1 release=$2 init=$3 mirror include log=$work/log
  shift 3
  [ "$(id -u)" = 0 ] || die "Cannot make \"$name\": not root"
  command -v mmdebstrap >/dev/null || die "Cannot make \"$name\": no mmdebstrap on this host"
  mirror=$(debian_mirror)
  if [ -z "$mirror" ]; then
    # A fresh host has no package lists.
    apt-get -q update >"$log" 2>&1 || { tail -n 5 "$log" >&2; die "apt-get update failed"; }
    mirror=$(debian_mirror)
  fi
  [ -n "$mirror" ] || die "Cannot make \"$name\": this host's apt has no source of Debian's packages"
  include=$(printf ',%s' procps iproute2 sudo "$@")
  say "Making $name from Debian's packages"
  mmdebstrap --mode=root --variant=minbase --include="${include:1}" --format=directory \
    --dpkgopt=force-unsafe-io --aptopt='APT::Install-Recommends "false"' --aptopt='Acquire::Languages "none"' --aptopt='Acquire::Retries "3"' \
    --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/locale/*' \
    "$suite" "$tree" "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror $suite main" >"$log" 2>&1 ||
    { tail -n 20 "$log" >&2; die "Cannot make \"$name\""; }
  chroot "$tree" useradd --create-home --shell /bin/bash user
  echo 'user ALL=(ALL) NOPASSWD: ALL' >"$tree/etc/sudoers.d/user"
  chmod 440 "$tree/etc/sudoers.d/user"
  # Each instance makes its own at its first boot.
  : >"$tree/etc/machine-id"
  rm -rf "$tree/dev" "$tree/etc/resolv.conf" "$tree"/var/log/*.log "$tree"/var/log/apt
  mkdir "$tree/dev"
  : >"$tree/etc/resolv.conf"
  prepare_"$init"
  metadata debian "$release" "Debian $release ($suite, $init)"
  cat >>"$work/metadata.yaml" <<'END'
  /etc/hosts:
    when: [create, copy]
    template: hosts.tpl
END
  cat >"$work/templates/hosts.tpl" <<'END'
127.0.0.1	localhost
127.0.1.1	{{ container.name }}
::1		localhost ip6-localhost ip6-loopback
ff02::1		ip6-allnodes
ff02::2		ip6-allrouters
END
  # Speed counts here, not size: it is unpacked once on the machine that made it.
  tar -C "$work" --sort=name --numeric-owner --xattrs --acls -cf - metadata.yaml templates rootfs | xz -0 -T0 -c >"$partial"
}

prepare_systemd() { :; }
# What Debian's own table does on SIGPWR is a script that no package has, and a container has no tty1. The public images of sysvinit
# have this table.
prepare_sysvinit() {
  sed -i -E '/:(ctrlaltdel|powerwait|powerfailnow|powerokwait):/d; /getty/d' "$tree/etc/inittab"
  cat >>"$tree/etc/inittab" <<'END'
co:2345:respawn:/sbin/getty --noclear 38400 console
p6::ctrlaltdel:/sbin/init 6
p0::powerfail:/sbin/init 0
END
}
prepare_openrc() { prepare_sysvinit; }
# A container has none of these terminals.
prepare_runit() { rm -rf "$tree"/etc/runit/runsvdir/*/getty-tty*; }

systemd=(systemd-sysv dbus libpam-systemd)
case $name in
  busybox) make_busybox ;;
  debian/11) make_debian bullseye 11 systemd "${systemd[@]}" ;;
  debian/12) make_debian bookworm 12 systemd "${systemd[@]}" ;;
  debian/13) make_debian trixie 13 systemd "${systemd[@]}" ;;
  debian/12-sysvinit) make_debian bookworm 12 sysvinit sysvinit-core cron ;;
  debian/12-openrc) make_debian bookworm 12 openrc openrc sysvinit-core cron ;;
  debian/12-runit) make_debian bookworm 12 runit runit-init cron ;;
  debian/12-podman) make_debian bookworm 12 systemd "${systemd[@]}" podman crun uidmap ;;
esac
chmod 644 "$partial"
mv -f "$partial" "$file"
printf '%s\n' "$key" >"$work/key"
chmod 644 "$work/key"
mv -f "$work/key" "$file.key"
say "Made $file ($(du -k "$file" | cut -f1) KiB, $((SECONDS - started)) s)"
