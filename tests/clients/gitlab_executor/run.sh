#!/usr/bin/env bash
# Runs one stage's script ($1; its name is $2) in the job's container.
. "$(dirname "$0")/base.sh"
if ! "$CLIENT" exec "$CONTAINER_ID" /bin/sh <"$1"; then
  # The runner tells a failed job from a failed system by this code.
  exit "${BUILD_FAILURE_EXIT_CODE:-1}"
fi
