"""CamVid, 20 random pixels labelled per image, MobileNetV2; made for a laptop.

python trainers/camvid.py --data.root CAMVID --model.weights mobilenetv2_100.safetensors --resources.workers 2
"""

from sparseg import launch
from sparseg.config import Config, DataConfig, LossConfig, ModelConfig, OptimConfig, RunConfig


def recipe() -> Config:
    """Small decoder, output stride 16, crop 224."""
    return Config(
        data=DataConfig(
            layout="camvid",
            label="clicks",
            random_pixels=20,
            crop_px=224,
            scale_max=1.5,
            num_classes=11,
        ),
        model=ModelConfig(backbone="mobilenetv2_100", output_stride=16, feature_channels=128, separable=True),
        loss=LossConfig(method="agmm"),
        optim=OptimConfig(
            learning_rate=5e-3, decoder_lr_factor=5.0, warmup_steps=250, epochs=16, batch_size=8
        ),
        run=RunConfig(name="camvid", validate_every=4),
    )


if __name__ == "__main__":
    launch.main(recipe(), description=__doc__ or "")
