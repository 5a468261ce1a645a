"""Networks that give a feature map and logits: timm backbones under a DeepLabV3+ or transformer decoder."""
