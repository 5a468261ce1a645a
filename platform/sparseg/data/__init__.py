"""From raw images and annotations to batches: import, shards, sparse labels, augmentation, loader."""
