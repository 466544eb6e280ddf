#!/bin/bash
# Run the driver on the first node of an allocation (see atlas.sbatch). Writes its process id and
# its exit status to the job's folder.
#
#   driver.sh FOLDER SETTING...
set -uo pipefail
run=$1
shift
python -m neuron_atlas.workflows.atlas "$@" &
echo $! > "$run/driver"
wait $!
status=$?
echo "$status" > "$run/status"
exit "$status"
