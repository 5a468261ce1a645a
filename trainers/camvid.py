"""CamVid, 20 random pixels labelled per image, MobileNetV2; made for a laptop.

python trainers/camvid.py --data.root CAMVID --model.weights mobilenetv2_100.safetensors --resources.workers 2

The method is `ce`: random pixels miss most of the rare classes that an image holds (20 of them hit a class of
1 % of the pixels in 18 % of its images), so "not annotated" does not mean absent and L_absent teaches what is
wrong. --loss.method agmm --loss.absent-weight 0 tries the mixture here.
"""

from sparseg import launch
from sparseg.config import Config, DataConfig, LossConfig, ModelConfig, OptimConfig, RunConfig


def recipe() -> Config:
    """Small decoder, output stride 16, crop 224: 14 cells, so the dilations are a third of the usual ones."""
    return Config(
        data=DataConfig(
            layout="camvid",
            label="clicks",
            random_pixels=20,
            crop_px=224,
            scale_max=1.5,
            num_classes=11,
        ),
        model=ModelConfig(
            backbone="mobilenetv2_100",
            output_stride=16,
            aspp_dilations=(2, 4, 6),
            feature_channels=128,
            separable=True,
        ),
        loss=LossConfig(method="ce", class_balance=0.5),  # four classes have 0.3 to 1.2 % of the pixels
        optim=OptimConfig(
            optimizer="adamw",
            learning_rate=5e-4,
            decoder_lr_factor=4.0,
            weight_decay=1e-2,
            warmup_steps=200,
            epochs=30,
            batch_size=8,
        ),
        run=RunConfig(name="camvid", validate_every=5),
    )


if __name__ == "__main__":
    launch.main(recipe(), description=__doc__ or "")
