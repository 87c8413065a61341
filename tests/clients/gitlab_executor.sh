#!/usr/bin/env bash
# Plays GitLab Runner with a custom executor: prepare, a run for each stage, cleanup; the job that fails, is cancelled, is tried again.
. "$(dirname "$0")/steps.sh"
directory=$(dirname "$0")/gitlab_executor
work=$(mktemp -d)
export CUSTOM_ENV_CI_RUNNER_ID=1 CUSTOM_ENV_CI_PROJECT_ID=2 CUSTOM_ENV_CI_CONCURRENT_PROJECT_ID=0 CUSTOM_ENV_CI_JOB_ID=42
export BUILD_FAILURE_EXIT_CODE=71 SYSTEM_FAILURE_EXIT_CODE=72
. "$directory/base.sh"
made+=("$CONTAINER_ID")
trap 'remove_made; rm -rf "$work"' EXIT
stage() { bash "$directory/run.sh" "$work/$1" "$1"; }

ok "prepare" "$(bash "$directory/prepare.sh" >/dev/null; echo "rc $?")" "rc 0"
cat >"$work/prepare_script" <<'SCRIPT'
set -eo pipefail
set +o noclobber
: | eval $'echo "Running on $(hostname)..."\n'
exit 0
SCRIPT
ok "stage prepare_script" "$(stage prepare_script)" "Running on $CONTAINER_ID..."
{
  printf 'set -e\nmkdir -p /builds/group/project\ncd /builds/group/project\nexport CI=true\n'
  # A script of a real job is larger than a pipe.
  for number in $(seq 4000); do printf 'x=%s # %080d\n' "$number" "$number"; done
  printf 'echo "last $x"; echo artifact >out\n'
} >"$work/build_script"
ok "stage build_script, 400 kB" "$(stage build_script)" "last 4000"
printf 'cd /builds/group/project\ncat out\n' >"$work/after_script"
ok "stage after_script sees what the build made" "$(stage after_script)" artifact
printf 'echo failing\nexit 5\necho never\n' >"$work/failing"
ok "a stage that fails is the job's failure" "$(stage failing; echo "rc $?")" $'failing\nrc 71'
printf 'trap "" HUP\nwhile :; do sleep 1234; done\n' >"$work/endless"
# The runner ends the script's process group when a job is cancelled.
set -m
bash "$directory/run.sh" "$work/endless" build_script &
job=$!
set +m
until client exec "$CONTAINER_ID" -- sh -c 'ps -o args | grep -q "^sleep 1234"' </dev/null; do :; done
kill -TERM -- "-$job"
wait "$job"
ok "a cancelled job ends" "$([ $? -ne 0 ] && echo ended)" ended
ok "the job is tried again in a fresh container" "$(bash "$directory/prepare.sh" >/dev/null; printf 'ls /builds 2>/dev/null; echo fresh\n' >"$work/again"; stage again)" fresh
ok "cleanup" "$(bash "$directory/cleanup.sh"; client list -f csv -c n "^$CONTAINER_ID\$")" ""
ok "cleanup of what is not there fails and says so" "$(bash "$directory/cleanup.sh" 2>&1 | grep -c 'not found')" 1
