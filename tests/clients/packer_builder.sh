#!/usr/bin/env bash
# What Packer's builder "lxd" does: launch, provision by exec, stop, publish, delete.
. "$(dirname "$0")/steps.sh"
instance=$PREFIX-packer
made+=("$instance")
ok "launch, not ephemeral, with settings" "$(client launch --ephemeral=false "$IMAGE" "$instance" --config user.packer=1 >/dev/null; echo "rc $?"
  client config get "$instance" user.packer)" $'rc 0\n1'
run() { client exec "$instance" -- /bin/sh -c "$1"; }
ok "a provisioner's script is uploaded and run" "$(
  printf '#!/bin/sh\necho "provisioned by $PACKER_BUILDER_TYPE"\n' | run 'cat >/tmp/script.sh && chmod 0755 /tmp/script.sh' &&
    run "PACKER_BUILDER_TYPE='lxd' /tmp/script.sh; rm -f /tmp/script.sh"
)" "provisioned by lxd"
ok "a provisioner that fails says so" "$(run 'exit 17'; echo "rc $?")" "rc 17"
ok "what it changed stays over a stop" "$(run 'echo built >/root/marker; sync'; client stop "$instance" --timeout 30 -f && client start "$instance" && run 'cat /root/marker')" built
client stop -f "$instance"
if client publish "$instance" --alias "$PREFIX-built" description=built >/dev/null 2>&1; then
  ok "the published image holds what was built" "$(client launch "$PREFIX-built" "$instance-2" >/dev/null; made+=("$instance-2")
    client exec "$instance-2" -- cat /root/marker)" built
  client delete -f "$instance-2"
  client image delete "$PREFIX-built"
else
  skip "the published image holds what was built" "instances cannot be published yet"
fi
ok "deleted by force" "$(client delete "$instance" --force; client list -f csv -c n "^$instance\$")" ""
