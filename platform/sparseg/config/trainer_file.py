"""A trainer is a Python file with ``recipe() -> Config``; a search space is one with SPACE."""

from __future__ import annotations

import importlib.util
import sys
import types
from pathlib import Path

from sparseg.config.sections import Config


def load_file(path: Path) -> types.ModuleType:
    """Load a Python file by its path -> the module.  Raises ValueError naming the file if that fails."""
    spec = importlib.util.spec_from_file_location(f"sparseg_file_{path.stem}", path)
    try:
        if spec is None or spec.loader is None:
            raise ImportError("not a .py file")
        module = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = module  # dataclasses look their module up there
        spec.loader.exec_module(module)
    except Exception as error:
        raise ValueError(f"{path}: cannot be loaded ({type(error).__name__}: {error})") from error
    return module


def recipe_of(path: Path, module: types.ModuleType) -> Config:
    """Call the recipe() of a loaded trainer -> its configuration.  Raises ValueError if there is none."""
    make = getattr(module, "recipe", None)
    if not callable(make):
        raise ValueError(f"{path}: has no function recipe(); a trainer defines one, which returns a Config")
    recipe = make()
    if not isinstance(recipe, Config):
        raise ValueError(f"{path}: recipe() must return a sparseg.Config, got {type(recipe).__name__}")
    return recipe
