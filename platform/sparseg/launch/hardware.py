"""Which recipe suits the machine, asked before torch or Ray is loaded."""

from __future__ import annotations

import os
from pathlib import Path

GPU_DEVICES = ("nvidia[0-9]*", "kfd")
"""In /dev: the devices of NVIDIA's driver, and of AMD's."""
GPU_OF_WINDOWS = Path("/usr/lib/wsl/lib/libcuda.so.1")
"""NVIDIA's driver as the Windows Subsystem for Linux shows it."""


def may_have_gpu() -> bool:
    """Tell whether a GPU may be at hand: one of this machine that is not hidden, or a cluster's that the
    command joins (RAY_ADDRESS, or a Ray job)."""
    if any(os.environ.get(name) for name in ("RAY_ADDRESS", "RAY_JOB_CONFIG_JSON_ENV_VAR")):
        return True
    if os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1"):
        return False
    found = any(next(Path("/dev").glob(pattern), None) for pattern in GPU_DEVICES)
    return found or GPU_OF_WINDOWS.exists()
