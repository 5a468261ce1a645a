"""A run whose steps mostly hold no label is stopped early: it would end well, and have learnt nothing."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from sparseg.config import Config, DataConfig

WATCHED_STEPS = 20
"""Steps after the start of a process by which it is judged."""


@dataclasses.dataclass
class LabelWatch:
    """Counts the steps whose GLOBAL batch holds no labelled pixel, from the start of this process on.

    A process that goes on from a checkpoint watches anew, so that no checkpoint need remember anything.  All
    ranks are given the same counts and stop at the same step.
    """

    config: Config
    first_step: int
    """Steps of the run that were made before this process."""
    total_steps: int
    labelled: list[Tensor] = dataclasses.field(default_factory=list)
    """Labelled pixels of the global batch of every step since, on the device."""

    @property
    def last_step(self) -> int | None:
        """The step after which the run is judged: a run that is shorter than WATCHED_STEPS at its end.

        None if it is not: a loss that learns from other pixels, too, or a rest of a run too short to tell.
        """
        last = self.first_step + WATCHED_STEPS
        if self.first_step == 0:
            last = min(last, self.total_steps)
        return last if self.config.loss.needs_labelled_pixels and last <= self.total_steps else None

    def note(self, step: int, labelled_pixels: Tensor) -> None:
        """Take the count of the step just made, the `step`-th of the run.

        Waits for the device once, at `last_step`.  Raises ValueError there if more than half of the watched
        steps held no labelled pixel.
        """
        last = self.last_step
        if last is None or step > last:
            return
        self.labelled.append(labelled_pixels)
        if step < last:
            return
        bare, watched = int((torch.stack(self.labelled) == 0).sum()), len(self.labelled)
        self.labelled.clear()
        if 2 * bare > watched:
            raise ValueError(
                f"run {self.config.run.name}: {bare} of its {watched} steps up to step {step} had not one "
                f"labelled pixel in their whole batch of {self.config.optim.batch_size} crops, and taught "
                f"nothing; {remedy(self.config.data)}, and repeat the command with --run.fresh"
            )


def remedy(data: DataConfig) -> str:
    """Say what brings labels into the crops, as an advice: flags in the order of what they help."""
    larger = f"a --data.crop-px above {data.crop_px}"
    if not data.long_side_px and not data.tile_px:
        larger += ", or import the images smaller with --data.long-side-px 1024"
    if data.crop_choice == "random":
        return f"set --data.crop-choice labelled, or {larger}"
    return f"annotate more of the training images, or leave out those without a label; or set {larger}"
