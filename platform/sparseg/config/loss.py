"""The configuration of the loss: method, terms, weights."""

from __future__ import annotations

import dataclasses
import re
from typing import Literal

from sparseg.config.checks import require
from sparseg.config.methods import METHODS, MIXTURE_TERMS, MethodName, parts_of


@dataclasses.dataclass(frozen=True, kw_only=True)
class LossConfig:
    """The method, its terms' weights and how they are computed; the equations stand in `sparseg.losses`."""

    method: MethodName = "ce"
    """`ce`: cross-entropy on the labelled pixels, which all others have, too. `ce+absent`: and the
    absent-class term. `agmm`: and the mixture and the absent-class term. `agmm-em`: the same with one mixture
    over the data set, fitted by online EM (online_em.py). `tel`: and the tree energy.
    `gated-crf`, `dense-pairwise`: and a pairwise energy, of near pairs or of all. The default is what no
    other setting beat in the tables of RESULTS.md."""
    variance: Literal["published", "adaptive", "unweighted"] = "adaptive"
    """Variance of a class in an image: fixed `sigma`, responsibility-weighted (Eq. 7), or the plain mean of
    d^2."""
    sigma: float = 0.5**0.5
    """With variance=published: standard deviation, in units of the feature distance."""
    bandwidth: float = 1.0
    """With variance=adaptive or unweighted: factor beta on the estimated standard deviation."""
    distance: Literal["l1", "l2"] = "l1"
    """Feature distance: mean absolute, or root mean square, difference over the channels."""
    target: Literal["similarity", "posterior"] = "similarity"
    """Target of the prediction in L_mix. `similarity`: G of each class by itself, as published. `posterior`:
    the responsibilities of a whole mixture, pi_k P_k G_k made to sum to 1 over the classes annotated in the
    image, held fixed; sigma is shared by the classes, pi estimated. Needs centroids=memory."""
    centroids: Literal["batch", "memory"] = "batch"
    """`batch`: a class's mean over its labelled pixels in the crop. `memory`: a running mean over the
    batches, which also stands for classes whose labels lie outside the crop."""
    centroid_momentum: float = 0.9
    """With centroids=memory, or method=agmm-em: share of the old mean that a batch leaves."""
    centroid_reduction: Literal["auto", "sum", "mean"] = "auto"
    """How class means of the images join into the batch centroid of L_sep; `auto` = sum if variance=published
    (as in the released code), else mean."""
    em_steps: int = 1
    """With method=agmm-em: EM steps a batch."""
    em_confidence: float = 0.9
    """With method=agmm-em: responsibility from which on a cell counts as pseudo-labelled, above 0.5."""
    em_trust: float = 0.5
    """With method=agmm-em: share of the pseudo-labelled cells in a class's mean beside labelled pixels. 0 =
    labelled pixels alone."""
    class_balance: float = 0.0
    """In L_seg a class of share f of the labelled pixels weighs f ** -class_balance, scaled to a mean of 1
    over those pixels. 0 = every pixel counts the same, 1 = every class does."""
    seg_weight: float = 1.0
    """Weight of the cross-entropy on labelled pixels."""
    mix_weight: float = 1.0
    """Weight of L_mix (prediction follows the mixture). 0 = not computed."""
    label_weight: float = 1.0
    """Weight of L_label (mixture follows the labels). 0 = not computed."""
    sep_weight: float = 1.0
    """Weight of L_sep (class centroids apart). 0 = not computed."""
    absent_weight: float = 1.0
    """Weight of L_absent (classes not annotated in the image are improbable). 0 = not computed."""
    only_weight: float = 0.0
    """Weight of the only-class term, wherever L_absent is: an image with one annotated class is all that
    class (aerial tiles). 0 = not computed."""
    tree_weight: float = 0.4
    """Weight of the tree energy of unlabelled cells. 0 = not computed."""
    pairwise_weight: float = 0.1
    """Weight of the pairwise energy. 0 = not computed. 0.1 is published for gated-crf; on small images with
    random pixels 0.01 did a little better (RESULTS.md)."""
    warmup_epochs: float = 0.0
    """Epochs before L_mix, L_label, L_sep, the tree energy, the pairwise energy and terms of your own
    start."""
    extra_terms: str | None = None
    """MODULE:FUNCTION of your own whose terms are added to the method's; the module is found as those of
    `run.plugins` are (docs/methods.md)."""
    extra_weight: float = 1.0
    """Weight of all terms of `extra_terms`. 0 = not computed."""

    @property
    def parts(self) -> frozenset[str]:
        """The parts that the method's name is made of."""
        return parts_of(self.method)

    @property
    def weights(self) -> dict[str, float]:
        """Weight of every term of `methods.TERMS`, whether the method has it or not."""
        return {
            "seg": self.seg_weight,
            "mix": self.mix_weight,
            "label": self.label_weight,
            "sep": self.sep_weight,
            "absent": self.absent_weight,
            "only": self.only_weight,
            "tree": self.tree_weight,
            "pairwise": self.pairwise_weight,
        }

    @property
    def has_mixture(self) -> bool:
        """Whether the mixture's terms are part of the method."""
        return any(term in METHODS[self.method].terms for term in MIXTURE_TERMS)

    @property
    def knows_absent(self) -> bool:
        """Whether the method takes a class that is not annotated in an image to be absent from it."""
        return METHODS[self.method].knows_absent

    @property
    def keeps_memory(self) -> bool:
        """Whether class means run over the batches."""
        return self.centroids == "memory" or METHODS[self.method].keeps_memory

    @property
    def with_absent(self) -> bool:
        """Whether the absent-class term is part of what is minimised."""
        return self.absent_weight > 0 and "absent" in METHODS[self.method].terms

    @property
    def with_only(self) -> bool:
        """Whether the only-class term is part of what is minimised."""
        return self.only_weight > 0 and "only" in METHODS[self.method].terms

    @property
    def with_tree(self) -> bool:
        """Whether the tree energy is part of what is minimised."""
        return self.tree_weight > 0 and "tree" in METHODS[self.method].terms

    @property
    def with_pairwise(self) -> bool:
        """Whether a pairwise energy is part of what is minimised."""
        return self.pairwise_weight > 0 and "pairwise" in METHODS[self.method].terms

    @property
    def with_extra(self) -> bool:
        """Whether terms of the user's own are part of what is minimised."""
        return self.extra_terms is not None and self.extra_weight > 0

    @property
    def needs_labelled_pixels(self) -> bool:
        """Whether a batch without a labelled pixel teaches nothing: no term looks at the other pixels, unless
        at labels of the batch, too.  Nobody knows what the user's own terms look at."""
        looks_elsewhere = self.with_absent or self.with_only or self.with_tree or self.with_pairwise
        looks_elsewhere = looks_elsewhere or self.with_extra
        return not (looks_elsewhere or (self.has_mixture and self.keeps_memory))

    def __post_init__(self) -> None:
        require(self.sigma > 0, f"loss.sigma must be > 0, got {self.sigma}")
        require(self.bandwidth > 0, f"loss.bandwidth must be > 0, got {self.bandwidth}")
        require(0 <= self.class_balance <= 1, f"loss.class_balance must be in 0..1, got {self.class_balance}")
        require(
            0 <= self.centroid_momentum < 1,
            f"loss.centroid_momentum must be in [0, 1), got {self.centroid_momentum}",
        )
        require(
            self.target == "similarity" or self.centroids == "memory",
            "loss.target=posterior compares all classes of an image, also those whose labels lie outside the "
            "crop; it needs loss.centroids=memory",
        )
        require(self.em_steps >= 0, f"loss.em_steps must be >= 0, got {self.em_steps}")
        require(
            0.5 < self.em_confidence < 1, f"loss.em_confidence must be in (0.5, 1), got {self.em_confidence}"
        )
        require(0 <= self.em_trust <= 1, f"loss.em_trust must be in [0, 1], got {self.em_trust}")
        require(
            self.only_weight == 0 or self.knows_absent,
            f"loss.only_weight={self.only_weight:g} has no effect with loss.method={self.method}; take "
            f"one of {', '.join(name for name, method in METHODS.items() if method.knows_absent)}",
        )
        require(self.warmup_epochs >= 0, f"loss.warmup_epochs must be >= 0, got {self.warmup_epochs}")
        require(
            self.extra_terms is None
            or re.fullmatch(r"[^\W\d][\w.]*:[^\W\d]\w*", self.extra_terms) is not None,
            "loss.extra_terms must be MODULE:FUNCTION, such as my_losses:boundary (a file is named by "
            f"--run.plugins FILE.py, and here without .py), got {self.extra_terms!r}",
        )
        require(self.extra_weight >= 0, f"loss.extra_weight must be >= 0, got {self.extra_weight}")
        require(
            self.extra_terms is not None or self.extra_weight == 1,
            f"loss.extra_weight={self.extra_weight:g} has no effect without --loss.extra-terms "
            "MODULE:FUNCTION",
        )
        for term, weight in self.weights.items():
            require(weight >= 0, f"loss.{term}_weight must be >= 0, got {weight}")
