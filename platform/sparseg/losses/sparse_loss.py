"""The objective as a torch module, for notebooks and for training loops other than ours."""

from __future__ import annotations

import math
import warnings
from typing import Any

import torch
from torch import Tensor, nn

from sparseg.config import IGNORED, MAX_CLASSES, METHODS, UNLABELLED, LossConfig, from_dict
from sparseg.config.checks import require
from sparseg.losses import agmm, mixture, online_em
from sparseg.losses.inputs import LossInputs, at_least_fp32
from sparseg.losses.mixture import Memory
from sparseg.losses.terms import objective

LABEL_DTYPES = (torch.uint8, torch.int16, torch.int32, torch.int64)


class SparseLoss(nn.Module):
    """All loss terms of a method, with the running class means that some methods keep.

    The values and gradients are those of `losses.objective`, in fp32 whatever the autocast.  The class means
    are buffers (`centroid_KD`, `seen_K`): they move with `.to(device)`, are part of `state_dict()`, and stay
    as they are in `.eval()`.  Under torch.distributed every rank calls it; means are over the batch of all
    ranks, for gradients that DistributedDataParallel averages.  Every call is one batch: who accumulates
    gradients over several passes calls `losses.objective`, which takes the counts of them all.

    Example:
        >>> import torch
        >>> from sparseg.config import UNLABELLED
        >>> from sparseg.losses import SparseLoss
        >>> loss = SparseLoss("agmm", num_classes=3, feature_channels=8, absent_weight=0.5)
        >>> feature = torch.randn(2, 8, 8, 8, requires_grad=True)
        >>> logits = torch.randn(2, 3, 8, 8, requires_grad=True)
        >>> label = torch.full((2, 32, 32), UNLABELLED, dtype=torch.uint8)
        >>> label[:, 4, 4], label[:, 20, 9] = 0, 2
        >>> terms = loss(feature, logits, label)
        >>> terms["total"].backward()
        >>> loss.similarity(feature, logits, label).shape
        torch.Size([2, 3, 32, 32])

    Args:
        method: value of `loss.method`, such as "ce", "agmm" or "agmm+tel" (docs/methods.md).
        num_classes: K, at most 250.
        feature_channels: D of the feature; needed by methods that keep class means only.
        config: instead of a method and fields, the whole configuration.
        check_values: whether every call looks at the values of labels and image, for which a GPU is waited.
        fields: fields of `LossConfig`, such as `absent_weight=0.5`.

    Attributes:
        epoch: the current epoch, which the training loop sets; terms that wait for `warmup_epochs` start
            there.  Without a warm-up it means nothing.

    Raises:
        ValueError: an unknown method or field, a wrong value, or no feature_channels for a method that keeps
            class means.
    """

    centroid_KD: Tensor
    seen_K: Tensor

    def __init__(
        self,
        method: str | None = None,
        *,
        num_classes: int,
        feature_channels: int | None = None,
        config: LossConfig | None = None,
        check_values: bool = True,
        **fields: Any,
    ) -> None:
        super().__init__()
        if config is None:
            require(method is not None, f"SparseLoss needs a method, one of {', '.join(METHODS)}, or config=")
            config = from_dict({"method": method, **fields}, LossConfig, where="loss.")
        elif method is not None or fields:
            given = ", ".join(["method"] * (method is not None) + [*fields])
            raise ValueError(
                f"SparseLoss: config= is the whole configuration; {given} cannot stand beside it"
            )
        require(
            1 <= num_classes <= MAX_CLASSES,
            f"SparseLoss: num_classes must be in 1..{MAX_CLASSES}, got {num_classes}",
        )
        self.config: LossConfig = config
        self.num_classes, self.feature_channels = num_classes, feature_channels
        self.check_values = check_values
        self.epoch = 0.0
        if config.keeps_memory:
            require(
                feature_channels is not None,
                f"SparseLoss: loss.method={config.method} with loss.centroids={config.centroids} keeps a "
                "mean feature of every class; give feature_channels, the channels of the feature",
            )
            memory = Memory.empty(num_classes, feature_channels or 0, torch.device("cpu"))
            self.register_buffer("centroid_KD", memory.centroid_KD)
            self.register_buffer("seen_K", memory.seen_K)

    def extra_repr(self) -> str:
        """Name the method and the sizes where the module is printed."""
        channels = "" if self.feature_channels is None else f", feature_channels={self.feature_channels}"
        return f"{self.config.method!r}, num_classes={self.num_classes}{channels}"

    @property
    def mixture_on(self) -> bool:
        """Whether the warm-up is over: mix, label, sep, tree and pairwise are computed from then on."""
        return self.epoch >= self.config.warmup_epochs

    @property
    def memory(self) -> Memory | None:
        """The running class means, which share the module's buffers; None where the method keeps none."""
        return Memory(self.centroid_KD, self.seen_K) if self.config.keeps_memory else None

    def forward(
        self,
        feature_BDhw: Tensor,
        logits_BKhw: Tensor,
        label_BHW: Tensor,
        present_BK: Tensor | None = None,
        *,
        image: Tensor | None = None,
        class_weight_K: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """Compute the loss terms of a batch; in training mode the running class means take it in.

        A network that returns feature and logits is used as `loss(*net(image), label, present, image=image)`.

        Args:
            feature_BDhw: (B, D, h, w), the feature before the classifier, at any stride.
            logits_BKhw: (B, K, any, any), resized to the label's size.
            label_BHW: class ids 0..K-1, UNLABELLED (254) where nobody annotated, IGNORED (255) for void and
                padding; uint8, or a wider integer.
            present_BK: bool, classes annotated anywhere in the WHOLE image, taken before cropping.  Default:
                those labelled in this crop, which is weaker: absent and only then take a class whose labels
                lie outside the crop to be absent.
            image: (B, 3, H, W), 0..255, for methods that look at the image.
            class_weight_K: factors on the pixels of a class in seg (`losses.class_weights`); needed with
                `class_balance`.

        Returns:
            The unweighted scalars of `losses.TERMS` (0 where a term is off) and "total", their weighted sum;
            with loss.extra_terms the user's own besides.

        Raises:
            ValueError: naming the argument, what was found and what is allowed.
        """
        present_BK = self._checked(feature_BDhw, logits_BKhw, label_BHW, present_BK)
        self._check_extras(label_BHW, image, class_weight_K)
        memory = self.memory
        if memory is not None and not self.training:
            memory = Memory(memory.centroid_KD.clone(), memory.seen_K.clone())
        return objective(
            feature_BDhw,
            logits_BKhw,
            label_BHW,
            present_BK,
            self.config,
            with_mixture=self.mixture_on,
            class_weight_K=class_weight_K,
            memory=memory,
            image_B3HW=image,
        )

    @torch.no_grad()
    def similarity(
        self,
        feature_BDhw: Tensor,
        logits_BKhw: Tensor,
        label_BHW: Tensor,
        present_BK: Tensor | None = None,
    ) -> Tensor:
        """Compute the similarity G of every pixel to every class, in 0..1, at the label's size.

        Around the class means of the labelled pixels, or the running means where the method keeps them (a
        class without one yet has that of its labelled pixels).  Nothing is learnt from the batch.

        Args:
            feature_BDhw: as in a call of the module.
            logits_BKhw: as in a call of the module.
            label_BHW: as in a call of the module.
            present_BK: as in a call of the module.

        Returns:
            (B, K, H, W), without gradient.  A class without a mean is 0 everywhere: one without a labelled
            pixel in the crop and, where there are running means, not annotated in the image or not yet seen.
            Ignored pixels are 0.

        Raises:
            ValueError: the method has no mixture, or as in a call of the module.
        """
        having = [name for name in METHODS if LossConfig(method=name).has_mixture]  # type: ignore[arg-type]
        require(
            self.config.has_mixture,
            f"loss.method={self.config.method} has no mixture and so no similarity; methods with one: "
            f"{', '.join(having)}",
        )
        present_BK = self._checked(feature_BDhw, logits_BKhw, label_BHW, present_BK)
        with torch.autocast(logits_BKhw.device.type, enabled=False):
            feature_BDhw, logits_BKhw = at_least_fp32(feature_BDhw), at_least_fp32(logits_BKhw)
            one, memory = logits_BKhw.new_ones(()), self.memory
            inputs = LossInputs(feature_BDhw, logits_BKhw, label_BHW, present_BK, one, one, memory=memory)
            slots = agmm.image_slots(inputs)
            labelled_BSHW = agmm.labelled_pixels(inputs, slots).to(feature_BDhw.dtype)
            mean_BSD = mixture.class_means(feature_BDhw, labelled_BSHW)
            if memory is not None:
                seen_BS1 = memory.seen_K[slots.class_BS][..., None]
                mean_BSD = torch.where(seen_BS1, memory.centroid_KD[slots.class_BS], mean_BSD)
            p_BKHW = mixture.resized(logits_BKhw, inputs.pixels).softmax(1)
            of_method = online_em if "agmm-em" in self.config.parts else agmm
            g_BSHW = of_method.class_similarity(inputs, mean_BSD, p_BKHW, slots, self.config)
        shown_BSHW = slots.used_BS[:, :, None, None] & (label_BHW != IGNORED)[:, None]
        index_BSHW = slots.class_BS[:, :, None, None].expand_as(g_BSHW)
        return torch.zeros_like(p_BKHW).scatter(1, index_BSHW, g_BSHW * shown_BSHW)

    # ------------------------------------------------------------------------------------------------- checks

    def _checked(
        self, feature_BDhw: Tensor, logits_BKhw: Tensor, label_BHW: Tensor, present_BK: Tensor | None
    ) -> Tensor:
        """Refuse tensors that do not fit each other -> present_BK, of this crop if it is None."""
        _require_shape("feature_BDhw", feature_BDhw, (None, self.feature_channels, None, None))
        images = len(feature_BDhw)
        _require_shape("logits_BKhw", logits_BKhw, (images, self.num_classes, None, None))
        _require_shape("label_BHW", label_BHW, (images, None, None))
        for name, value in (("feature_BDhw", feature_BDhw), ("logits_BKhw", logits_BKhw)):
            require(value.is_floating_point(), f"{name} must be floating point, got {value.dtype}")
        require(
            label_BHW.dtype in LABEL_DTYPES,
            f"label_BHW must be of class ids and codes, as uint8 or int64; got {label_BHW.dtype}",
        )
        if self.check_values:
            self._check_label_values(label_BHW)
        crop_BK = mixture.crop_classes(label_BHW, self.num_classes)
        if present_BK is None:
            present_BK = crop_BK
        _require_shape("present_BK", present_BK, (images, self.num_classes))
        require(present_BK.dtype == torch.bool, f"present_BK must be bool, got {present_BK.dtype}")
        if self.check_values and bool((missing_BK := crop_BK & ~present_BK).any()):
            image, k = missing_BK.nonzero()[0].tolist()
            raise ValueError(
                f"present_BK says that class {k} is nowhere in image {image} of the batch, and label_BHW has "
                "a pixel of it; present_BK is of the whole image, taken before cropping"
            )
        if self.config.keeps_memory:
            wanted = torch.promote_types(feature_BDhw.dtype, torch.float32)
            require(
                (self.centroid_KD.dtype, self.centroid_KD.device) == (wanted, feature_BDhw.device),
                f"SparseLoss holds class means of {self.centroid_KD.dtype} on {self.centroid_KD.device}, and "
                f"the feature needs {wanted} on {feature_BDhw.device}; move the module there with .to(..)",
            )
        return present_BK

    def _check_label_values(self, label_BHW: Tensor) -> None:
        last = self.num_classes - 1
        unlabelled_BHW, ignored_BHW = label_BHW == UNLABELLED, label_BHW == IGNORED
        wrong_BHW = (label_BHW < 0) | ((label_BHW > last) & ~unlabelled_BHW & ~ignored_BHW)
        codes = f"UNLABELLED ({UNLABELLED}) where nobody annotated, IGNORED ({IGNORED}) for void and padding"
        if bool(wrong_BHW.any()):
            found = label_BHW[wrong_BHW].unique().tolist()
            shown = ", ".join(map(str, found[:8])) + (", ..." if len(found) > 8 else "")
            raise ValueError(
                f"label_BHW has values that are neither a class (0..{last}) nor a code: {shown}; the codes "
                f"are {codes}: convert those of your data set"
            )
        learns = self.config.has_mixture or self.config.with_tree
        if learns and bool(ignored_BHW.float().mean() > 0.5) and not bool(unlabelled_BHW.any()):
            warnings.warn(
                f"no pixel of label_BHW is unlabelled and most are ignored, so loss.method="
                f"{self.config.method} learns from labelled pixels alone; the codes are {codes}",
                stacklevel=4,
            )

    def _check_extras(self, label_BHW: Tensor, image: Tensor | None, class_weight_K: Tensor | None) -> None:
        config = self.config
        if class_weight_K is not None:
            _require_shape("class_weight_K", class_weight_K, (self.num_classes,))
        require(
            class_weight_K is not None or not config.class_balance,
            f"loss.class_balance={config.class_balance:g} needs class_weight_K, which "
            "losses.class_weights(labelled pixels of every class, class_balance) makes",
        )
        if not (config.with_tree or config.with_pairwise):
            return
        if image is None:
            raise ValueError(
                f"loss.method={config.method} looks at the image; give image=, (B, 3, H, W), 0..255"
            )
        _require_shape("image", image, (len(label_BHW), 3, *label_BHW.shape[1:]))
        if self.check_values and image.is_floating_point() and image.numel():
            low, high = (float(value) for value in image.aminmax())
            require(
                low >= 0 and not 0 < high <= 1 and math.isfinite(high),
                f"image must be 0..255, as it was before any scaling; its values are {low:g}..{high:g}",
            )


def _require_shape(name: str, value: Tensor, wanted: tuple[int | None, ...]) -> None:
    fits = value.ndim == len(wanted) and all(
        size is None or size == found for size, found in zip(wanted, value.shape, strict=True)
    )
    allowed = ", ".join("any" if size is None else str(size) for size in wanted)
    require(fits, f"{name} must be of shape ({allowed}), got {tuple(value.shape)}")
