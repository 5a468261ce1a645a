"""How long a run is, when it validates, its learning rates, its optimizer."""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING

from sparseg.config import Config

if TYPE_CHECKING:  # the driver of a run on Ray asks for its length, and never loads torch
    import torch

    from sparseg.network.segmenter import Segmenter


@dataclasses.dataclass(frozen=True)
class Plan:
    """How long the run is, in optimizer steps counted from 0."""

    num_rows: int
    batch_size: int
    total_steps: int
    validate_every: float

    def epoch(self, step: int) -> float:
        """Passes over the data after `step` steps."""
        return step * self.batch_size / self.num_rows

    def validates(self, step: int) -> bool:
        """Is there a validation after `step` steps?"""
        crossed = math.floor(self.epoch(step) / self.validate_every + 1e-9)
        before = math.floor(self.epoch(step - 1) / self.validate_every + 1e-9)
        return step == self.total_steps or crossed > before


def plan(config: Config, num_rows: int) -> Plan:
    """The run's length for a training split of num_rows images."""
    steps = math.ceil(config.optim.epochs * num_rows / config.optim.batch_size)
    steps = min(steps, config.optim.max_steps or steps)
    return Plan(num_rows, config.optim.batch_size, steps, config.run.validate_every)


def rate_factor(step: int, total_steps: int, power: float, warmup_steps: int = 0) -> float:
    """Factor on the peak rate at 0-based step: (1 - t/T) ** power, times (t + 1) / warmup_steps while that is
    below 1."""
    return (1 - step / total_steps) ** power * min(1.0, (step + 1) / max(warmup_steps, 1))


def make_optimizer(model: Segmenter, config: Config) -> torch.optim.Optimizer:
    """SGD or AdamW with one group for the backbone and one, at decoder_lr_factor times its rate, for the
    decoder."""
    import torch

    optim = config.optim
    groups = [
        {"params": list(model.backbone.parameters()), "peak": optim.learning_rate},
        {"params": list(model.decoder.parameters()), "peak": optim.learning_rate * optim.decoder_lr_factor},
    ]
    if optim.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=optim.learning_rate, weight_decay=optim.weight_decay)
    return torch.optim.SGD(
        groups, lr=optim.learning_rate, momentum=optim.momentum, weight_decay=optim.weight_decay
    )
