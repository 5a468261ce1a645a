"""cluster/slurm.sbatch, with a Slurm of two nodes that are both this machine."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import tiny
from driving import LIMIT_S, wait_until

SCRIPT = tiny.ROOT / "cluster" / "slurm.sbatch"
SRUN = """#!/bin/bash
while [[ $1 == -* ]]; do case $1 in -w | -x) shift 2 ;; *) shift ;; esac; done
exec "$@"
"""


def test_script_is_sound() -> None:
    assert subprocess.run(["bash", "-n", str(SCRIPT)]).returncode == 0
    if shutil.which("shellcheck") is None:
        pytest.skip("needs shellcheck, which is not on this machine")
    done = subprocess.run(["shellcheck", str(SCRIPT)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_options_are_before_the_first_command() -> None:
    lines = SCRIPT.read_text().splitlines()
    options = [number for number, line in enumerate(lines) if line.startswith("#SBATCH ")]
    first = next(number for number, line in enumerate(lines) if line and not line.startswith("#"))
    assert options and max(options) < first  # Slurm ignores what comes later


@pytest.fixture
def job(tmp_path: Path) -> Iterator[dict[str, str]]:
    """The environment of a job on two nodes, submitted from tmp_path."""
    (tmp_path / "bin").mkdir()
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    for name, text in (("srun", SRUN), ("scontrol", "#!/bin/bash\necho here\necho there\n")):
        (tmp_path / "bin" / name).write_text(text)
        (tmp_path / "bin" / name).chmod(0o755)
    path = f"{tmp_path / 'bin'}:{Path(sys.executable).parent}:{os.environ['PATH']}"
    (tmp_path / ".venv" / "bin" / "activate").write_text(f'export PATH="{path}"\n')
    for name in ("platform", "trainers"):
        (tmp_path / name).symlink_to(tiny.ROOT / name)
    number = str(os.getpid())
    yield {
        **{name: value for name, value in os.environ.items() if not name.startswith("RAY_")},
        "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "1",  # 30 by default, and nobody is left to wait for
        "SLURM_SUBMIT_DIR": str(tmp_path),
        "SLURM_JOB_ID": number,
        "SLURM_JOB_NODELIST": "here,there",
        "SLURM_JOB_NUM_NODES": "2",
        "SLURM_CPUS_PER_TASK": "1",
    }
    shutil.rmtree(f"/tmp/sparseg-{number}", ignore_errors=True)


def test_without_a_command_it_says_how_it_is_used(job: dict[str, str]) -> None:
    done = subprocess.run(["bash", str(SCRIPT)], env=job, capture_output=True, text=True)
    assert done.returncode == 2 and "usage: sbatch" in done.stderr


@pytest.mark.slow
def test_a_run_trains_on_both_nodes_and_saves_at_the_time_limit(
    job: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import json

    from sparseg import config
    from sparseg.runs import checkpoint
    from sparseg.train import loop

    tiny.dataset(tmp_path)
    settings = tiny.config(tmp_path, {"resources.workers": 2, "optim.max_steps": 400, "optim.epochs": 400})
    (tmp_path / "run.json").write_text(json.dumps(config.to_dict(settings)))
    command = ["bash", str(SCRIPT), "python", "trainers/folder.py", "--config", str(tmp_path / "run.json")]
    log = tmp_path / "job.log"
    with log.open("w") as file:
        process = subprocess.Popen(
            command, env=job, stdout=file, stderr=subprocess.STDOUT, start_new_session=True
        )
    try:
        reached = wait_until(
            lambda: "step 5/400" in log.read_text() or process.poll() is not None, LIMIT_S, pause_s=0.5
        )
        assert reached and process.poll() is None, (process.poll(), log.read_text())
        process.send_signal(signal.SIGTERM)
        assert process.wait(200) == 130, log.read_text()
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    assert json.loads((settings.folder / "environment.json").read_text())["workers"] == 2
    saved = int(checkpoint.all_of(settings.folder)[-1].name.split("_")[1])
    loop.run(settings, should_stop=lambda: True)
    assert saved >= 5 and f"going on after step {saved} " in capsys.readouterr().out
