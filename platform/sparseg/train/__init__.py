"""The training loop, written out once, and what it carries from step to step.  No ray here."""

from sparseg.train.loop import run, train_step

__all__ = ["run", "train_step"]
