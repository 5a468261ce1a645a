"""sparseg: train segmentation networks from a few clicks per image.

    data = sparseg.open_dataset("my_shards")
    net  = sparseg.build_model("resnet50d", num_classes=len(data.names))
    loss = sparseg.SparseLoss("agmm", num_classes=len(data.names), feature_channels=256)
    terms = loss(*net(image), label, present, image=image); terms["total"].backward()
    mask, confidence = sparseg.predict(sparseg.load_model("runs/folder"), image)
    best = sparseg.fit(sparseg.Config(...))

What is named here is for notebooks, scripts and other people's training loops.  `import sparseg` loads this
file alone: torch comes with the first name that needs it, ray with `fit` for resources.workers >= 1.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # the same names as in HOME_OF, for type checkers and editors
    from sparseg.config import (
        IGNORED,
        UNLABELLED,
        Config,
        DataConfig,
        ImportConfig,
        LossConfig,
        ModelConfig,
        OptimConfig,
        ResourcesConfig,
        RunConfig,
    )
    from sparseg.data.dataset_folder import draw_labels, open_dataset
    from sparseg.data.importers import import_dataset
    from sparseg.evaluation.evaluate import evaluate
    from sparseg.inference.one_image import predict
    from sparseg.launch.fit import fit
    from sparseg.losses.sparse_loss import SparseLoss
    from sparseg.network.build_model import build_model
    from sparseg.runs.checkpoint import load_model

__version__ = "0.1.0"  # pyproject.toml reads it from here

__all__ = [
    "IGNORED",
    "UNLABELLED",
    "Config",
    "DataConfig",
    "ImportConfig",
    "LossConfig",
    "ModelConfig",
    "OptimConfig",
    "ResourcesConfig",
    "RunConfig",
    "SparseLoss",
    "__version__",
    "build_model",
    "draw_labels",
    "evaluate",
    "fit",
    "import_dataset",
    "load_model",
    "open_dataset",
    "predict",
]

HOME_OF = {
    "IGNORED": "sparseg.config",
    "UNLABELLED": "sparseg.config",
    "Config": "sparseg.config",
    "DataConfig": "sparseg.config",
    "ImportConfig": "sparseg.config",
    "LossConfig": "sparseg.config",
    "ModelConfig": "sparseg.config",
    "OptimConfig": "sparseg.config",
    "ResourcesConfig": "sparseg.config",
    "RunConfig": "sparseg.config",
    "SparseLoss": "sparseg.losses.sparse_loss",
    "build_model": "sparseg.network.build_model",
    "draw_labels": "sparseg.data.dataset_folder",
    "evaluate": "sparseg.evaluation.evaluate",
    "fit": "sparseg.launch.fit",
    "import_dataset": "sparseg.data.importers",
    "load_model": "sparseg.runs.checkpoint",
    "open_dataset": "sparseg.data.dataset_folder",
    "predict": "sparseg.inference.one_image",
}
"""Public name -> the module that defines it, loaded when the name is first used."""

if not TYPE_CHECKING:  # a type checker that saw it would take every misspelt name for one of ours

    def __getattr__(name: str) -> Any:
        if name not in HOME_OF:
            raise AttributeError(f"module 'sparseg' has no attribute {name!r}")
        value = getattr(importlib.import_module(HOME_OF[name]), name)
        globals()[name] = value  # found without this function the next time
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
