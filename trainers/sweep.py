r"""Many runs of a trainer that differ in a few fields, chosen by Optuna, run by Ray Tune.

    python trainers/sweep.py --trainer camvid --space search_spaces/mixture.py --trials 40 --concurrent 2 \
        --data.root CAMVID --model.weights mobilenetv2_100.safetensors

The first trials are the space's POINTS and the recipe itself.  Every trial is an ordinary run in
STORAGE/SWEEP/trial_0000, ...; STORAGE/SWEEP/study.db is the Optuna study, results.json the outcome.  The same
command again goes on: finished trials are not repeated.
"""

from pathlib import Path

from sparseg import sweep

if __name__ == "__main__":
    sweep.main(Path(__file__).parent, description=__doc__ or "")
