"""Your own images: images/, labels/ (PNG, a few pixels labelled), masks/ (dense, for validation).

python trainers/folder.py --data.root MY_DATA

Without a GPU, and outside a Ray cluster, the small settings below are taken, which a laptop trains.
"""

from sparseg import launch
from sparseg.config import (
    Config,
    DataConfig,
    LossConfig,
    ModelConfig,
    OptimConfig,
    ResourcesConfig,
    RunConfig,
)


def recipe() -> Config:
    """A sound start for a few dozen to a few thousand images, with what the machine has."""
    return on_gpu() if launch.may_have_gpu() else on_laptop()


def on_gpu() -> Config:
    """ResNet-50 and crops of 321 px."""
    return Config(
        data=data(crop_px=321),
        model=ModelConfig(backbone="resnet50d", weights="auto", output_stride=16),
        loss=LossConfig(method="ce"),  # what RESULTS.md supports; with few classes an image try agmm, too
        optim=OptimConfig(learning_rate=2e-3, decoder_lr_factor=10.0, epochs=80, batch_size=16),
        run=RunConfig(name="folder", validate_every=4.0),
    )


def on_laptop() -> Config:
    """EfficientNet-Lite0, crops of 256 px, a light decoder; in this process, on all cores, without Ray."""
    return Config(
        data=data(crop_px=256),
        model=ModelConfig(
            backbone="tf_efficientnet_lite0",
            weights="auto",
            output_stride=16,
            aspp_dilations=(2, 4, 6),  # a crop has 16 cells a side
            feature_channels=128,
            separable=True,
        ),
        loss=LossConfig(method="ce", class_balance=0.5),  # rare classes have few clicks
        optim=OptimConfig(
            optimizer="adamw",
            learning_rate=5e-4,
            decoder_lr_factor=4.0,
            weight_decay=1e-2,
            warmup_steps=100,
            epochs=80,
            batch_size=8,
        ),
        resources=ResourcesConfig(workers=0),
        run=RunConfig(name="folder", validate_every=8.0),
    )


def data(crop_px: int) -> DataConfig:
    """A random crop of a photograph of 12 megapixels seldom holds a click: crops are cut around labels."""
    return DataConfig(
        layout="folder",
        label="point",
        crop_px=crop_px,
        crop_choice="labelled",
        colour=True,
        loader_processes=2,
    )


if __name__ == "__main__":
    launch.main(recipe(), description=__doc__ or "")
