"""Self-contained HTML pages of runs, sweeps, datasets, evaluations and plans."""
