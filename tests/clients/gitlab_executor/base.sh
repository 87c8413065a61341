# Sourced by the three scripts beside it, as GitLab Runner's custom executor calls them: its variables begin with CUSTOM_ENV_.
CONTAINER_ID="$PREFIX-runner-$CUSTOM_ENV_CI_RUNNER_ID-project-$CUSTOM_ENV_CI_PROJECT_ID-concurrent-$CUSTOM_ENV_CI_CONCURRENT_PROJECT_ID-$CUSTOM_ENV_CI_JOB_ID"
