"""A run as a typed value: label codes, the configuration sections, JSON in and out, dotted overrides."""

from __future__ import annotations

from sparseg.config.checks import FieldError, field, flag
from sparseg.config.data import NO_VALIDATION, DataConfig, ImportConfig, check_tiles
from sparseg.config.labels import IGNORED, MAX_CLASSES, PIXELLESS, UNLABELLED
from sparseg.config.loss import LossConfig
from sparseg.config.methods import METHODS, NOT_TERMS, TERMS, Method, method_rows, term_names
from sparseg.config.sections import Config, ModelConfig, OptimConfig, ResourcesConfig, RunConfig
from sparseg.config.values import from_dict, load, to_dict, with_overrides

__all__ = [
    "IGNORED",
    "MAX_CLASSES",
    "METHODS",
    "NOT_TERMS",
    "NO_VALIDATION",
    "PIXELLESS",
    "TERMS",
    "UNLABELLED",
    "Config",
    "DataConfig",
    "FieldError",
    "ImportConfig",
    "LossConfig",
    "Method",
    "ModelConfig",
    "OptimConfig",
    "ResourcesConfig",
    "RunConfig",
    "check_tiles",
    "field",
    "flag",
    "from_dict",
    "load",
    "method_rows",
    "term_names",
    "to_dict",
    "with_overrides",
]
