"""Scores of a network on a labelled split: IoU, boundary IoU, accuracies, calibration."""
