"""Writing a dataset: parts in parallel, shards, the manifest last, uploads."""
