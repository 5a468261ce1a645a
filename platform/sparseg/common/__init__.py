"""What every package may use: files, processes and exit codes, process groups, object stores, tiling."""
