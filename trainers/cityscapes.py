r"""Cityscapes, the AGMM release's recipe: ResNet-50, multi-grid, crop 721, 240 epochs, GLOBAL batch 32.

    python trainers/cityscapes.py --data.root cityscapes --data.label clicks --data.label-path 100clicks \
        --model.weights timm --resources.workers 8

Not reproduced here yet.
"""

from sparseg import launch
from sparseg.config import Config, DataConfig, LossConfig, ModelConfig, OptimConfig, RunConfig


def recipe() -> Config:
    """The release's values; its batch was 4 images on each of 8 GPUs, geometric augmentation only."""
    return Config(
        data=DataConfig(
            layout="cityscapes",
            label="clicks",
            store="fast",  # of a 2048 x 1024 PNG a crop needs a third; decoding all of it is most of the work
            crop_px=721,
            num_classes=19,
            loader_processes=4,
        ),
        model=ModelConfig(
            backbone="resnet50d", output_stride=8, multi_grid=True, aspp_dilations=(12, 24, 36)
        ),
        loss=LossConfig(
            method="agmm"
        ),  # the release's; on CamVid's street scenes ce was as good (RESULTS.md)
        optim=OptimConfig(learning_rate=5e-3, decoder_lr_factor=1.0, epochs=240, batch_size=32),
        run=RunConfig(name="cityscapes", validate_every=5),
    )


if __name__ == "__main__":
    launch.main(recipe(), description=__doc__ or "")
