#!/usr/bin/env bash
# Makes the job's container and waits until it is up; what an earlier try of the job left goes first.
. "$(dirname "$0")/base.sh"
set -eo pipefail
trap 'exit "${SYSTEM_FAILURE_EXIT_CODE:-1}"' ERR
if "$CLIENT" info "$CONTAINER_ID" >/dev/null 2>&1; then "$CLIENT" delete -f "$CONTAINER_ID"; fi
"$CLIENT" launch "$IMAGE" "$CONTAINER_ID"
for ((try = 0; try < 10; try++)); do
  if "$CLIENT" exec "$CONTAINER_ID" -- sh -c 'test -e /proc/1/exe' </dev/null; then exit 0; fi
  sleep 1
done
echo "The container did not come up"
exit "${SYSTEM_FAILURE_EXIT_CODE:-1}"
