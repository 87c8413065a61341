#!/usr/bin/env bash
# Every verb of the lxc client that README says works here, and what is said of those that do not.
. "$(dirname "$0")/steps.sh"
work=$(mktemp -d)
a=$PREFIX-a b=$PREFIX-b volume=$PREFIX-v
made=("$a" "$b")
cleanup() {
  remove_made
  for name in "$volume" "$volume-2" "$volume-3"; do client storage volume delete "$POOL" "$name" >/dev/null 2>&1; done
  client image delete "$PREFIX" >/dev/null 2>&1
  client profile delete "$PREFIX" >/dev/null 2>&1
  client storage delete "$PREFIX" >/dev/null 2>&1
  rm -rf "$work"
}
trap cleanup EXIT

# works WORDS...: it ends well; what it prints is shown when it does not.
works() {
  echo "$*" >>"$work/asked"
  ok "lxc $(printf '%s ' "$@" | sed "s/$PREFIX-//g")" "$(within 60 "$CLIENT" "$@" </dev/null >"$work/out" 2>&1 || { echo "rc $?"; tail -n 3 "$work/out"; })" ""
}
# edited WORDS...: what "show" shows is taken by "edit".
edited() {
  echo "${*/show/edit}" >>"$work/asked"
  ok "lxc ${*/show/edit}" "$({ client "$@" >"$work/shown" && within 60 "$CLIENT" "${@/show/edit}" <"$work/shown"; } 2>&1 || echo "rc $?")" ""
}
# refused PATTERN WORDS...: it fails and says why.
refused() {
  local pattern=$1
  shift
  echo "$*" >>"$work/asked"
  ok "lxc $(printf '%s ' "$@" | sed "s/$PREFIX-//g")says: $pattern" "$(within 60 "$CLIENT" "$@" </dev/null 2>&1 >/dev/null | grep -Eo "$pattern" | head -n 1)" "$pattern"
}

for verb in version list "list --fast" "list -c ns46tSPapmDd" info "operation list" "remote list" "query /1.0" "image list" "profile list" "storage list" \
  "config show" "config trust list" "storage volume list $POOL"; do
  # shellcheck disable=SC2086
  works $verb
done
works init "$IMAGE" "$a" -s "$POOL"
works start "$a"
works exec "$a" -- true
works list "$a" -f json
works info "$a"
works info "$a" --show-log
works console "$a" --show-log
works pause "$a"
works start "$a"
works restart -f "$a"
works stop -f "$a"
works launch "$IMAGE" "$b" -s "$POOL" -c user.note=x -e
works stop -f "$b"
works config set "$a" user.note=y
works config get "$a" user.note
works config unset "$a" user.note
works config show "$a" --expanded
works config device add "$a" etc disk source=/etc path=/mnt/etc
for verb in list show; do works config device "$verb" "$a"; done
works config device set "$a" etc readonly=true
works config device get "$a" etc readonly
works config device unset "$a" etc readonly
works config device remove "$a" etc
edited config show "$a"
works snapshot "$a" s0
works restore "$a" s0
works copy "$a" "$b"
works delete "$b"
works copy "$a/s0" "$b"
works delete "$b"
works rename "$a" "$b"
works move "$b" "$a"
works delete "$a/s0"
works profile create "$PREFIX"
works profile set "$PREFIX" user.note=x
works profile get "$PREFIX" user.note
works profile device add "$PREFIX" etc disk source=/etc path=/mnt/etc
works profile device list "$PREFIX"
works profile add "$a" "$PREFIX"
works config device override "$a" etc readonly=true
works config device remove "$a" etc
works profile remove "$a" "$PREFIX"
works profile show "$PREFIX"
edited profile show "$PREFIX"
works profile device show "$PREFIX"
works profile device get "$PREFIX" etc source
works profile device set "$PREFIX" etc readonly=true
works profile device unset "$PREFIX" etc readonly
works profile device remove "$PREFIX" etc
works profile unset "$PREFIX" user.note
works profile assign "$a" default
works profile copy "$PREFIX" "$PREFIX-2"
works profile rename "$PREFIX-2" "$PREFIX-3"
works profile delete "$PREFIX-3"
works profile delete "$PREFIX"
works storage create "$PREFIX" dir
works storage set "$PREFIX" user.note=x
works storage get "$PREFIX" user.note
works storage show "$PREFIX"
works storage info "$PREFIX"
edited storage show "$PREFIX"
works storage unset "$PREFIX" user.note
works storage delete "$PREFIX"
works storage volume create "$POOL" "$volume"
works storage volume set "$POOL" "$volume" user.note=x
works storage volume get "$POOL" "$volume" user.note
works storage volume show "$POOL" "$volume"
works storage volume info "$POOL" "$volume"
works storage volume attach "$POOL" "$volume" "$a" /mnt/volume
works storage volume detach "$POOL" "$volume" "$a"
works profile create "$PREFIX-4"
works storage volume attach-profile "$POOL" "$volume" "$PREFIX-4" volume /mnt/volume
works storage volume detach-profile "$POOL" "$volume" "$PREFIX-4"
works profile delete "$PREFIX-4"
edited storage volume show "$POOL" "$volume"
works storage volume unset "$POOL" "$volume" user.note
works storage volume snapshot "$POOL" "$volume" s0
works storage volume restore "$POOL" "$volume" s0
works storage volume copy "$POOL/$volume" "$POOL/$volume-2"
works storage volume rename "$POOL" "$volume-2" "$volume-3"
works storage volume move "$POOL/$volume-3" "$POOL/$volume-2"
works storage volume delete "$POOL" "$volume-2"
works storage volume export "$POOL" "$volume" "$work/volume.tar.gz"
works storage volume delete "$POOL" "$volume"
works storage volume import "$POOL" "$work/volume.tar.gz" "$volume"
works storage volume delete "$POOL" "$volume"
works image info "$IMAGE"
works image show "$IMAGE"
works image set-property "$IMAGE" "$PREFIX" x
works image get-property "$IMAGE" "$PREFIX"
works image unset-property "$IMAGE" "$PREFIX"
works image alias list
mkdir -p "$work/made/rootfs"
printf 'architecture: x86_64\ncreation_date: 1\nproperties: {description: %s}\n' "$PREFIX" >"$work/made/metadata.yaml"
tar -C "$work/made" -cf "$work/made.tar" metadata.yaml rootfs
works image import "$work/made.tar" --alias "$PREFIX"
works image alias create "$PREFIX-2" "$(client image info "$PREFIX" | sed -n 's/^Fingerprint: //p')"
works image alias rename "$PREFIX-2" "$PREFIX-3"
works image alias delete "$PREFIX-3"
works image delete "$PREFIX"
works start "$a"
waiting=$(client query -X POST -d '{"command": ["true"], "wait-for-websocket": true}' "/1.0/instances/$a/exec" | sed -n 's/^\t"id": "\(.*\)",$/\1/p')
works operation show "$waiting"
works operation delete "$waiting"
works stop -f "$a"
edited image show "$IMAGE"
works image export "$IMAGE" "$work/image"

refused 'missing the required "network" API extension' network list
refused 'Error: not found' file pull "$a/etc/hostname" -
refused 'Only uploaded images can be imported' publish "$a"
refused 'container_backup' export "$a" "$work/x"
refused 'container_incremental_copy' copy --refresh "$a" "$a"
refused 'container_edit_metadata' config metadata show "$a"
refused 'projects' project list
refused 'warnings' warning list
refused 'Error: not found' info --resources
refused 'container_edit_metadata' config template list "$a"
refused 'certificate_token' config trust add --name x
refused 'No certificate add token' config trust revoke-token x
refused 'clustering' cluster list
refused 'container_backup' import "$work/volume.tar.gz" "$b"
refused "doesn't exist" image copy nosuch: "$IMAGE"
refused 'image_force_refresh' image refresh "$IMAGE"
works delete "$a"

# leaves WORDS...: the verbs of lxc's help.
leaves() {
  local verb verbs
  verbs=$({ if [ $# -gt 0 ]; then "$CLIENT" "$@" --help; else "$CLIENT" --help --all; fi; } 2>/dev/null | sed -n '/^Available Commands:/,/^$/s/^  \([a-z-]*\) .*/\1/p')
  if [ -z "$verbs" ]; then
    echo "$*"
  else
    for verb in $verbs; do leaves "$@" "$verb"; done
  fi
}
# Of the client's own: aliases, help and the list of remotes.
verbs=$(leaves)
ok "lxc's help is read" "$(grep -cx 'storage volume attach-profile' <<<"$verbs")" 1
own='^(alias|help|manpage|remote|completion)( |$)'
# Groups of which nothing is there, and what asks questions or goes on until it is ended.
groups='^(cluster|file|network|project|warning|config metadata|config template|monitor|console|config trust)( |$)'
ok "every verb of lxc is asked here" "$(grep -Ev "$own" <<<"$verbs" | grep -Ev "$groups" | while read -r verb; do
  grep -Eq "^$verb( |\$)" "$work/asked" || echo "$verb"
done)" ""
