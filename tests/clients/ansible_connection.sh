#!/usr/bin/env bash
# What Ansible's connection community.general.lxd does with its instance: a shell by exec for each task, files by push and pull.
. "$(dirname "$0")/steps.sh"
instance=$PREFIX-ansible
work=$(mktemp -d)
trap 'remove_made; rm -rf "$work"' EXIT
launch "$instance"
# A task's command. The connection gives it to the instance's shell as one word.
task() { client --project default exec "local:$instance" -- /bin/sh -c "$1"; }
if [ "$CLIENT" != lxc ]; then task() { client exec "$instance" -- /bin/sh -c "$1"; }; fi

ok "where the user's home is" "$(task '/bin/sh -c '"'"'echo ~ && sleep 0'"'"'')" /root
temporary=$(task '/bin/sh -c '"'"'( umask 77 && mkdir -p "` echo /tmp/.ansible `" && mkdir "` echo /tmp/.ansible/task-1 `" && echo task-1="` echo /tmp/.ansible/task-1 `" ) && sleep 0'"'"'')
ok "a directory of its own for the task" "$temporary" "task-1=/tmp/.ansible/task-1"
ok "the module's code comes by standard input" "$(printf 'echo "{\\"changed\\": true}"\n' | task '/bin/sh && sleep 0')" '{"changed": true}'
ok "the exit code and both streams are told apart" "$(task 'echo out; echo err >&2; exit 2' 2>"$work/err"; echo "rc $? $(cat "$work/err")")" $'out\nrc 2 err'
ok "another user, by su" "$(task "su -s /bin/sh user -c 'id -un' 2>&1 || su user -c 'id -un'" | tail -n 1)" user
ok "removed again" "$(task "/bin/sh -c 'rm -f -r /tmp/.ansible/task-1 > /dev/null 2>&1 && sleep 0'"; task 'ls /tmp/.ansible')" ""
client stop -f "$instance"
# The connection compares what lxc says; lido's own client names the instance.
stopped="Error: Instance is not running"
[ "$CLIENT" = lxc ] || stopped="$stopped: \"$instance\""
ok "an instance that does not run is told as such" "$(task true 2>&1)" "$stopped"
ok "an instance that is not there is told as such" "$(client exec "$PREFIX-nosuch" -- true 2>&1 | grep -c 'Instance not found')" 1
client start "$instance"
if client file push "$0" "$instance/tmp/pushed" 2>"$work/err"; then
  ok "put a file" "$(task 'cat /tmp/pushed' | sha256sum)" "$(sha256sum <"$0")"
  client file pull "$instance/tmp/pushed" "$work/pulled"
  ok "fetch a file" "$(sha256sum <"$work/pulled")" "$(sha256sum <"$0")"
else
  skip "put a file" "instances have no files API yet"
  skip "fetch a file" "instances have no files API yet"
fi
