"""Sweeps: many runs that differ in a few fields, on Ray Tune and Optuna.

Search spaces (search_spaces/*.py, or a file of your own) write their ranges with `uniform`, `integers`,
`choice`, `when`.
"""

from sparseg.sweep.command import main, parse
from sparseg.sweep.runner import run
from sparseg.sweep.space import choice, integers, uniform, when
from sparseg.sweep.study import Sweep

__all__ = ["Sweep", "choice", "integers", "main", "parse", "run", "uniform", "when"]
