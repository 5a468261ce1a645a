"""A run on disk: checkpoints, its log and records, its store, saving in the background."""
