"""The first screen of a trainer's help: the flags that most runs need, one line each."""

from __future__ import annotations

from sparseg.config.sections import Config

BASIC = {
    "data.root": "folder of an imported dataset, or of raw images and annotations",
    "data.label": "what was annotated: point, scribble, box, tag, ...; full = dense masks",
    "data.label_path": "where the annotations are, if not at the layout's own place",
    "data.val_group": "hold out whole groups of images (folder, site)",
    "data.crop_px": "side of the square training crop, pixels",
    "model.backbone": "any timm model that gives feature maps",
    "model.weights": "pretrained backbone: timm (its cache or the network), a file, none, auto",
    "loss.method": "the loss: ce, ce+absent, agmm, ... (docs/methods.md has a line for each)",
    "optim.epochs": "passes over the training images",
    "optim.max_steps": "optimizer steps at most",
    "optim.batch_size": "images a step, over all workers",
    "optim.learning_rate": "peak rate of the backbone",
    "resources.workers": "training processes on Ray, one a GPU; 0 = in this process, without Ray",
    "run.name": "folder of the run; the same command again goes on with it",
    "run.storage": "folder for runs, or a URL (s3://bucket/runs)",
    "run.seed": "seed of the initial weights, the order of the images and the augmentation",
    "run.fresh": "move the earlier run of this name aside and start anew",
}
"""Field -> what its flag is for.  The whole text of a field, and all other fields: --help-all."""


def short_help(recipe: Config, prog: str, description: str) -> str:
    """Give the help with the flags of BASIC, their values in `recipe`, and where the others are listed."""
    rows = [("--" + name.replace("_", "-"), text, _value(recipe, name)) for name, text in BASIC.items()]
    rows += [
        ("--config FILE", "a saved config.json in the place of the recipe", ""),
        ("--dry-run", "check everything, print what the run would do, and stop", ""),
        ("--help-all", "all flags, each with its unit and its default", ""),
    ]
    width = max(len(flag) for flag, *_ in rows)
    lines = [f"  {flag:<{width}}  {text}{value}" for flag, text, value in rows]
    return "\n".join([f"usage: {prog} [flags]", "", description.strip(), "", *lines])


def _value(recipe: Config, name: str) -> str:
    """Say what the recipe has, if it has anything."""
    section, _, field = name.partition(".")
    value = getattr(getattr(recipe, section), field)
    return "" if value is None or value is False or value == "" else f" [{value}]"
