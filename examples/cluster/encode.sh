#!/bin/bash
# Embed a folder of .parquet files with all workers of a Ray cluster; each reads and writes its own parts.
#
#   RAY_ADDRESS=http://HEAD:8265 examples/cluster/encode.sh MODEL INPUT OUTPUT [settings]
#   examples/cluster/encode.sh /shared/minilm-l3 s3://bucket/texts s3://bucket/vectors --keep_text
#
# The same command continues a run that was stopped. Settings: distilface encode --help.
#
#   RAY_ADDRESS             of the cluster's jobs
#   THREADS                 of each worker; default 4. The cluster starts as many workers as it has CPUs for
#   FSSPEC_S3_ENDPOINT_URL  of a store that is not Amazon's; it is handed to the workers
set -euo pipefail

if [ $# -lt 3 ] || [ -z "${RAY_ADDRESS:-}" ]; then
    echo "error: set RAY_ADDRESS, and name model, input and output: examples/cluster/encode.sh MODEL INPUT OUTPUT" >&2
    exit 2
fi
environment=()
if [ -n "${FSSPEC_S3_ENDPOINT_URL:-}" ]; then
    environment=(--runtime-env-json "{\"env_vars\": {\"FSSPEC_S3_ENDPOINT_URL\": \"$FSSPEC_S3_ENDPOINT_URL\"}}")
fi
exec ray job submit "${environment[@]}" -- \
    distilface encode "$1" "$2" "$3" --engine ray --threads "${THREADS:-4}" "${@:4}"
