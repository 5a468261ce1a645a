"""From a configuration to a finished run on Ray: checks at the border, Ray Train, exit codes."""

from sparseg.launch.ray_train import finish, launch, main, spread, start_ray

__all__ = ["finish", "launch", "main", "spread", "start_ray"]
