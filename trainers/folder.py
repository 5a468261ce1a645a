"""Your own images: images/, labels/ (PNG, a few pixels labelled), masks/ (dense, for validation).

python trainers/folder.py --data.root MY_DATA --model.weights timm
"""

from sparseg import launch
from sparseg.config import Config, DataConfig, LossConfig, ModelConfig, OptimConfig, RunConfig


def recipe() -> Config:
    """A sound start for a few hundred to a few thousand images on one GPU."""
    return Config(
        data=DataConfig(
            layout="folder",
            label="point",
            crop_px=321,
            crop_choice="labelled",  # of a photograph of 12 megapixels a random crop seldom holds a click
            colour=True,
            loader_processes=2,
        ),
        model=ModelConfig(backbone="resnet50d", output_stride=16),
        loss=LossConfig(method="ce"),  # what RESULTS.md supports; with few classes an image try agmm, too
        optim=OptimConfig(learning_rate=2e-3, decoder_lr_factor=10.0, epochs=80, batch_size=16),
        run=RunConfig(name="folder"),
    )


if __name__ == "__main__":
    launch.main(recipe(), description=__doc__ or "")
