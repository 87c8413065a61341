#!/usr/bin/env bash
. "$(dirname "$0")/base.sh"
"$CLIENT" delete -f "$CONTAINER_ID"
