#!/bin/bash
# The driver, on the first node of an allocation (atlas.sbatch): its process number and its exit
# status go into the job's folder.
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
