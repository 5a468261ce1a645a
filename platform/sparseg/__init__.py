"""sparseg: training segmentation networks from almost no labels."""

__version__ = "0.1.0"
