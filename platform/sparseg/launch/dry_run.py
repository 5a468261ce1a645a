"""--dry-run: what a run would do."""

from __future__ import annotations

from sparseg import config
from sparseg.config import Config
from sparseg.data import row_order, shards
from sparseg.launch.prepare import prepare
from sparseg.network import segmenter
from sparseg.runs import log
from sparseg.train import schedule


def print_plan(settings: Config) -> None:
    """--dry-run: the resolved configuration, batch shapes, parameters and steps; nothing is trained."""
    settings, dataset = prepare(settings)
    found = shards.describe(dataset, cache=settings.data.cache)
    length = schedule.plan(settings, found.rows[settings.data.train_split])
    network = segmenter.build(settings.model, len(found.names), quiet=True)
    workers, passes = max(settings.resources.workers, 1), settings.optim.accumulate
    shares = [
        len(row_order.share(range(settings.optim.batch_size // passes), r, workers)) for r in range(workers)
    ]
    side = settings.data.crop_px
    print(log.json_text(config.to_dict(settings)))
    print(f"dataset      {dataset}")
    print(f"splits       {', '.join(f'{name} {rows}' for name, rows in found.rows.items())} images")
    print(f"classes      {len(found.names)}: {', '.join(found.names)}")
    print(
        f"a pass       image ({shares[0]}, 3, {side}, {side}) uint8 on worker 0; images per worker "
        f"{shares} x {passes}"
    )
    print(f"parameters   {sum(p.numel() for p in network.parameters()) / 1e6:.2f} M")
    print(f"steps        {length.total_steps} ({length.epoch(length.total_steps):.2f} epochs)")
