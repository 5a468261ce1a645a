"""A run from Python."""

from __future__ import annotations

from typing import Any

from sparseg.config import Config
from sparseg.launch import launch


def fit(config: Config) -> dict[str, Any]:
    """Train what a configuration says, or go on with it, and give the best validation's scores.

    It is the run that `sparseg train` makes: checkpoints, metrics.jsonl and the rest lie in config.folder,
    and the same call after an interruption goes on from the newest checkpoint.  Ray is loaded for
    resources.workers >= 1 only; with 0 the run is in this process.

    Args:
        config: The whole run, e.g. sparseg.Config(data=sparseg.DataConfig(root="my_shards"), ...).

    Returns:
        Scores of the best validation: "miou" and "pixel_accuracy" in 0..1, "iou" per class (None where a
        class is absent), its "step" and "epoch"; and the run's "steps" and "total_steps".

    Raises:
        ValueError: Something is wrong with the configuration, the data or the cluster, said in one line
            before any worker starts.
        RuntimeError: Workers were lost more often than resources.max_failures allows.
        FloatingPointError: A loss is not finite.
        Interrupted: The user pressed Ctrl-C; the run is saved (sparseg.common.process).

    Example:
        >>> config = sparseg.Config(
        ...     data=sparseg.DataConfig(root="my_shards", crop_px=32),
        ...     model=sparseg.ModelConfig(backbone="resnet10t", output_stride=16, aspp_dilations=(1,)),
        ...     optim=sparseg.OptimConfig(max_steps=2, batch_size=4),
        ...     resources=sparseg.ResourcesConfig(workers=0),
        ...     run=sparseg.RunConfig(name="first", storage="runs"),
        ... )
        >>> best = sparseg.fit(config)  # doctest: +ELLIPSIS
        dataset: ...
        >>> best["steps"], sorted(best["iou"])
        (2, ['green', 'ground', 'red'])
    """
    return launch(config)
