"""Masks from a trained network: views and windows, folders of images, export to other programs."""
