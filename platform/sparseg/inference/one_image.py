"""The prediction of one image from Python."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps
from torch import nn

from sparseg.data.drawing import Array
from sparseg.data.working_size import working_size
from sparseg.inference.images import read_image
from sparseg.inference.predict import predict_strips
from sparseg.inference.views import check_scene, check_views
from sparseg.runs.checkpoint import Loaded


def predict(
    model: Loaded | nn.Module,
    image: str | Path | Array | Image.Image,
    *,
    scales: Sequence[float] = (1.0,),
    flip: bool = False,
    window_px: int | None = None,
    stride_px: int | None = None,
) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Predict the class of every pixel of one image of any size.

    Args:
        model: What `load_model` gives, or a network of `build_model` in evaluation mode; it predicts on the
            device where it lies.  With a working resolution (data.long_side_px) it sees a larger image
            resized to that, and the results have the image's own size.
        image: A file, a Pillow image of 8 bits, or a uint8 array (H, W, 3) of RGB or (H, W) of grey values.
            A camera's turned picture (EXIF) is turned upright, also that of a Pillow image.
        scales: Sizes at which the network looks, whose probabilities are averaged.
        flip: Average with the mirrored image.
        window_px: Cover a larger image by square windows of this side; None takes it whole.
        stride_px: Pixels between windows (default: two thirds of window_px).

    Returns:
        mask_HW uint8, the class of every pixel, and confidence_HW float32, that class's probability.

    Raises:
        ValueError: The file is no image, the array is of another kind, the windows leave gaps, the image is
            too large to be taken whole, or the network is in training mode.

    Example:
        >>> model = sparseg.load_model("runs/tiny")
        >>> mask, confidence = sparseg.predict(model, "picture.png", flip=True)
        >>> mask.shape, mask.dtype.name, bool(confidence.min() >= 1 / len(model.names))
        ((48, 48), 'uint8', True)
    """
    network = model.model if isinstance(model, Loaded) else model
    if network.training:
        raise ValueError("the network is in training mode, which would change it; call its .eval() first")
    check_views(window_px, stride_px, scales)
    image_HW3, named = _pixels(image)
    long_side_px = model.config.data.long_side_px if isinstance(model, Loaded) else 0
    check_scene(named, working_size(image_HW3.shape[:2], long_side_px), window_px)
    mask_HW = np.empty(image_HW3.shape[:2], np.uint8)
    confidence_HW = np.empty(image_HW3.shape[:2], np.float32)
    device, top = str(next(network.parameters()).device), 0
    views = {"scales": scales, "flip": flip, "window_px": window_px, "stride_px": stride_px}
    for p_KrW in predict_strips(network, image_HW3, device, long_side_px=long_side_px, **views):
        rows = slice(top, top + p_KrW.shape[1])
        mask_HW[rows], confidence_HW[rows] = p_KrW.argmax(0), p_KrW.max(0)
        top = rows.stop
    return mask_HW, confidence_HW


def _pixels(image: str | Path | Array | Image.Image) -> tuple[Array, str]:
    """(image_HW3 uint8, how messages name it)."""
    if isinstance(image, str | Path):
        return read_image(Path(image)), str(image)
    if isinstance(image, Image.Image):
        if image.mode[0] in "IF":  # what white is depends on the file
            raise ValueError(f"image is a Pillow image of mode {image.mode}; give its file, or uint8 values")
        return np.asarray(ImageOps.exif_transpose(image).convert("RGB")), "the image"
    if not isinstance(image, np.ndarray) or image.dtype != np.uint8:
        kind = f"an array of {image.dtype}" if isinstance(image, np.ndarray) else type(image).__name__
        raise ValueError(
            f"image must be a file, a Pillow image or an array of uint8, got {kind}; values in 0..1 become "
            "uint8 by (255 * values).round().astype('uint8')"
        )
    if image.ndim == 2:
        image = np.repeat(image[..., None], 3, axis=2)
    if image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
        raise ValueError(f"image must have the shape (H, W, 3) or (H, W), got {image.shape}")
    return image, "the image"
