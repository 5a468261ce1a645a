"""Terms of the user's own, of the function that loss.extra_terms names.

The function is given the tensors of a pass and returns its terms by name, each a mean over the GLOBAL batch
in the sense of `LossInputs`: a sum over this rank's pixels times `inputs.per_valid_pixel`, or a mean over
images divided by `inputs.passes`.  It returns the same names in every step and on every rank.
"""

from __future__ import annotations

import functools
import traceback
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from sparseg.common import plugins
from sparseg.config import IGNORED, NOT_TERMS, TERMS, UNLABELLED, LossConfig
from sparseg.losses.inputs import LossInputs, per_pixel, pixel_counts

OwnTerms = Callable[[LossInputs], dict[str, Tensor]]
TRIAL_PX, TRIAL_STRIDE = 32, 4


@functools.cache
def function_of(name: str) -> OwnTerms:
    """Import MODULE of MODULE:FUNCTION and give the function.  Raises ValueError if there is none."""
    module_name, _, function_name = name.partition(":")
    asked = f"loss.extra_terms={name}"
    remedy = (
        "run the command in the folder that holds it, or name its file, too: --run.plugins FOLDER/FILE.py"
    )
    module = plugins.import_module(module_name, asked, remedy)
    function = getattr(module, function_name, None)
    if not callable(function):
        known = [key for key, value in vars(module).items() if callable(value) and key[0] != "_"]
        raise ValueError(
            f"{asked}: {module.__file__} has no function {function_name}; it has {', '.join(known) or 'none'}"
        )
    return function


def terms(inputs: LossInputs, config: LossConfig) -> dict[str, Tensor]:
    """Compute the user's terms of a pass, unweighted.

    Raises ValueError if the function returns anything but scalars under names of their own.
    """
    assert config.extra_terms is not None
    found: Any = function_of(config.extra_terms)(inputs)
    where = f"loss.extra_terms={config.extra_terms}"
    if not isinstance(found, dict) or not found:
        raise ValueError(f"{where} must return a dict of named terms, returned {_shown(found)}")
    for name, value in found.items():
        if not isinstance(name, str) or not name.isidentifier() or name in {*TERMS, *NOT_TERMS}:
            raise ValueError(
                f"{where} returned a term {name!r}; a name is a word of letters, digits and '_' other than "
                f"{', '.join((*TERMS, *NOT_TERMS))}"
            )
        if not isinstance(value, Tensor) or value.ndim != 0 or not value.is_floating_point():
            raise ValueError(f"{where}: the term {name!r} must be a scalar tensor, is {_shown(value)}")
    return found


def check(config: LossConfig, num_classes: int, feature_channels: int) -> None:
    """Compute the user's terms and their gradient on a small made-up batch.

    Raises ValueError if the function is not there, fails, or returns what cannot be minimised.
    """
    if not config.with_extra:
        return
    where = f"loss.extra_terms={config.extra_terms}"
    inputs = _trial_batch(num_classes, feature_channels)
    function_of(config.extra_terms or "")
    try:
        found = terms(inputs, config)
        total = torch.stack([*found.values()]).sum()
        if total.requires_grad:
            total.backward()
    except Exception as error:  # whatever the user's code raises
        if str(error).startswith(where):
            raise
        place = traceback.extract_tb(error.__traceback__)[-1]
        raise ValueError(
            f"{where} fails on a trial batch: {type(error).__name__}: {error} ({place.filename}, line "
            f"{place.lineno})"
        ) from error
    idle = [name for name, value in found.items() if not value.requires_grad]
    if idle:
        raise ValueError(
            f"{where}: {', '.join(idle)} has no gradient, so it would teach nothing; compute it from "
            "inputs.logits_BKhw or inputs.feature_BDhw, and detach neither"
        )


def _trial_batch(num_classes: int, feature_channels: int) -> LossInputs:
    """Two random images with a labelled, an unlabelled and an ignored half row each."""
    random, cells = torch.Generator().manual_seed(0), TRIAL_PX // TRIAL_STRIDE
    feature_BDhw = torch.randn(2, feature_channels, cells, cells, generator=random, requires_grad=True)
    logits_BKhw = torch.randn(2, num_classes, cells, cells, generator=random, requires_grad=True)
    label_BHW = torch.full((2, TRIAL_PX, TRIAL_PX), UNLABELLED, dtype=torch.uint8)
    label_BHW[0, 8, :16], label_BHW[1, 8, :16], label_BHW[:, 16, 16:] = 0, num_classes - 1, IGNORED
    present_BK = torch.zeros(2, num_classes, dtype=torch.bool)
    present_BK[0, 0] = present_BK[1, num_classes - 1] = True
    image_B3HW = torch.randint(0, 256, (2, 3, TRIAL_PX, TRIAL_PX), generator=random, dtype=torch.uint8)
    factors = per_pixel(pixel_counts(label_BHW, num_classes), torch.float32)
    return LossInputs(feature_BDhw, logits_BKhw, label_BHW, present_BK, *factors, image_B3HW=image_B3HW)


def _shown(value: object) -> str:
    if isinstance(value, Tensor):
        return f"a {value.dtype} tensor of shape {tuple(value.shape)}"
    return f"{type(value).__name__} {value!r:.60}"
