#!/usr/bin/env bash
# Ray Train on a local Ray without its dashboard asks for the state of its own controller through the dashboard's
# state API, once a second, and warns every time that it gets no answer.
#
# Seen with ray 2.60.0 on Linux, Python 3.11: `ray.init(include_dashboard=False)` is a documented option, and the run
# ends well; but the actor PlacementGroupCleaner, which Ray Train starts for every run and no setting turns off, prints
#   Failed to query Ray Train Controller actor state. State API may be temporarily unavailable. Continuing to monitor.
# every second for as long as the run lasts.  With the dashboard the same program prints none of it.
# What follows: the 4 CPU seconds of the dashboard's start cannot be saved for Ray Train.
# Fails if a run without dashboard no longer warns, or one with it does.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3.11}" -m venv "$folder/env"
"$folder/env/bin/python" -m pip install --quiet "ray[default,train]==2.60.0"
cat >"$folder/run.py" <<'PY'
import sys
import tempfile
import time

import ray
from ray.train import RunConfig, ScalingConfig
from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer

ray.init(num_cpus=2, include_dashboard=sys.argv[1] == "with")
DataParallelTrainer(
    lambda: time.sleep(6),
    scaling_config=ScalingConfig(num_workers=1),
    run_config=RunConfig(storage_path=tempfile.mkdtemp()),
).fit()
print("the run has ended")
PY
export RAY_USAGE_STATS_ENABLED=0 RAY_DEDUP_LOGS=0
for how in with without; do
    "$folder/env/bin/python" "$folder/run.py" "$how" >"$folder/$how.log" 2>&1
    grep -q "the run has ended" "$folder/$how.log"
    echo "$how dashboard: $(grep -c "Failed to query Ray Train Controller" "$folder/$how.log" || true) warnings"
done
[[ $(grep -c "Failed to query Ray Train Controller" "$folder/with.log" || true) -eq 0 ]]
[[ $(grep -c "Failed to query Ray Train Controller" "$folder/without.log" || true) -ge 3 ]]
