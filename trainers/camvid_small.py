r"""CamVid at 240 x 180, MobileNetV2: a run takes 2 to 3 minutes on 2 cores. The small protocol of RESULTS.md.

    python trainers/camvid_small.py --data.root CAMVID_240x180 --model.weights mobilenetv2_100.safetensors \
        --data.clicks-per-class 1

experiments/protocol.py shrinks CamVid and runs every method, budget and seed of the tables with it.
"""

from sparseg import launch
from sparseg.config import Config, DataConfig, LossConfig, ModelConfig, OptimConfig, RunConfig


def recipe() -> Config:
    """A fixed number of steps and one validation, at their end: no score is the best of several."""
    return Config(
        data=DataConfig(
            layout="camvid",
            label="clicks",
            clicks_per_class=1,
            crop_px=160,
            scale_min=0.75,
            scale_max=1.5,
            num_classes=11,
        ),
        model=ModelConfig(
            backbone="mobilenetv2_100",
            output_stride=16,
            aspp_dilations=(1, 2, 4),
            feature_channels=128,
            separable=True,
        ),
        loss=LossConfig(method="agmm", class_balance=0.5),
        optim=OptimConfig(
            optimizer="adamw",
            learning_rate=5e-4,
            decoder_lr_factor=4.0,
            weight_decay=1e-2,
            warmup_steps=50,
            epochs=1000,
            max_steps=450,
            batch_size=8,
        ),
        run=RunConfig(name="camvid-small", validate_every=1000, log_every=50),
    )


if __name__ == "__main__":
    launch.main(recipe(), description=__doc__ or "")
