"""Object stores by URL: which paths are URLs, their file systems, folders in them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from sparseg.common.process import one_line

DRIVERS = {"s3": "s3fs", "s3a": "s3fs", "gs": "gcsfs", "gcs": "gcsfs", "az": "adlfs", "abfs": "adlfs"}


def is_url(path: str | Path) -> bool:
    """Whether this names an object store, and not a local path."""
    return "://" in str(path)


def filesystem(url: str) -> tuple[Any, str]:
    """fsspec's file system of the URL, and the path in it.  Raises ValueError if its driver is missing."""
    import fsspec

    protocol = url.split("://")[0]
    options = {}
    if protocol in ("s3", "s3a") and os.environ.get("AWS_ENDPOINT_URL"):
        options["endpoint_url"] = os.environ["AWS_ENDPOINT_URL"]
    try:
        store, path = fsspec.core.url_to_fs(url, **options)
    except (ImportError, ValueError) as error:
        driver = DRIVERS.get(protocol)
        remedy = f"install it with `pip install '{driver}'`" if driver else "use a local folder"
        what = (
            f"needs the package {driver}, which is not here"
            if driver
            else f"is not known ({one_line(error)})"
        )
        raise ValueError(f"{url}: {protocol}:// {what}; {remedy}") from error
    return store, str(path).rstrip("/")


OBJECT_STORAGE = {"s3", "s3a", "gs", "gcs", "az", "abfs"}


def make_folder(fs: Any, folder: str) -> None:
    """Where there are folders; on object storage the call would make a bucket, of a misspelt name too."""
    protocols = {fs.protocol} if isinstance(fs.protocol, str) else {*fs.protocol}
    if not protocols & OBJECT_STORAGE:
        fs.makedirs(folder, exist_ok=True)
