"""Scripts without ``if __name__ == "__main__"``, from a file, a pipe or a notebook's cell."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import fixtures
import pytest
import tiny
from driving import wait_until

from sparseg.common.child_processes import script_kept_out

SUPPORT = tiny.ROOT / "tests" / "support"
SECONDS = 240  # far more than it takes; a script that ran again would wait for its own lock for ever

SCRIPT = """
from pathlib import Path
print("begins", flush=True)
import tiny
from sparseg import launch
from sparseg.config import ImportConfig
from sparseg.data import importers
importers.import_dataset("camvid", "raw", "data", ImportConfig(label="full"), workers=2)
settings = tiny.config(Path.cwd(), {
    "optim.max_steps": 2, "optim.batch_size": 2, "data.label": "full", "data.loader_processes": 1
})
print("made", launch.launch(settings)["steps"], "steps")
"""
# DataLoader forks on Linux; this is how its processes start elsewhere.
SPAWNING = 'import multiprocessing\nmultiprocessing.set_start_method("spawn")\n'
IN_A_CELL = """
import sys, types
main = sys.modules["__main__"] = types.ModuleType("__main__")  # as IPython does with what its user types
exec(open(sys.argv[1]).read(), vars(main))
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Raw images, and the script."""
    fixtures.camvid(tmp_path / "raw", train=3, val=2)
    (tmp_path / "script.py").write_text(SCRIPT)
    (tmp_path / "spawning.py").write_text(SPAWNING + SCRIPT)
    (tmp_path / "cell.py").write_text(IN_A_CELL)
    return tmp_path


@pytest.mark.slow
@pytest.mark.parametrize(
    "words",
    [["spawning.py"], ["-"], ["-c", SCRIPT], ["cell.py", "script.py"]],
    ids=["script", "stdin", "-c", "cell"],
)
def test_a_script_without_a_guard_imports_and_trains(folder: Path, words: list[str]) -> None:
    paths = os.pathsep.join([str(tiny.ROOT / "platform"), str(SUPPORT)])
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore", *words],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": paths},
        start_new_session=True,
    )
    try:
        out, error = process.communicate(SCRIPT if words == ["-"] else "", timeout=SECONDS)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        out, error = process.communicate()
        pytest.fail(f"it waits for ever\n{out}{error}")
    assert process.returncode == 0, out + error
    assert out.count("begins") == 1 and "made 2 steps" in out
    assert wait_until(lambda: not is_alive(process.pid), 100), "a process of its group is left"


def is_alive(group: int) -> bool:
    """Whether a process group has a process."""
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def test_the_main_module_is_whole_again_afterwards(monkeypatch: pytest.MonkeyPatch) -> None:
    main = sys.modules["__main__"]
    monkeypatch.setattr(main, "__file__", "script.py", raising=False)
    before = dict(vars(main))
    with pytest.raises(RuntimeError, match="mine"), script_kept_out(), script_kept_out():
        assert main.__spec__ is None and not hasattr(main, "__file__")
        assert sys.modules["__main__"] is main
        raise RuntimeError("mine")
    assert dict(vars(main)) == before


def test_threads_that_start_processes_do_not_disturb_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    main = sys.modules["__main__"]
    monkeypatch.setattr(main, "__file__", "script.py", raising=False)
    first_is_in, first_may_end = threading.Event(), threading.Event()

    def first() -> None:
        with script_kept_out():
            first_is_in.set()
            first_may_end.wait(60)

    def second() -> None:
        with script_kept_out():
            pass

    threads = [threading.Thread(target=work) for work in (first, second)]
    threads[0].start()
    assert first_is_in.wait(60)
    threads[1].start()
    first_may_end.set()
    for thread in threads:
        thread.join(60)
    assert main.__file__ == "script.py"


@pytest.mark.parametrize("start", ["spawn", "forkserver"])
def test_what_the_script_defines_still_reaches_its_processes(tmp_path: Path, start: str) -> None:
    """A guarded script may hand a function of its own to the importer, as our benchmarks do."""
    script = tmp_path / "script.py"
    script.write_text(
        "import multiprocessing\n"
        "from sparseg.common.child_processes import script_kept_out\n"
        "def job(): print('done', flush=True)\n"
        "if __name__ == '__main__':\n"
        f"    process = multiprocessing.get_context({start!r}).Process(target=job)\n"
        "    with script_kept_out(job): process.start()\n"
        "    process.join(); raise SystemExit(process.exitcode)\n"
    )
    assert start in multiprocessing.get_all_start_methods()
    environment = {**os.environ, "PYTHONPATH": str(tiny.ROOT / "platform")}
    command = [sys.executable, str(script)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=SECONDS)
    assert (done.returncode, done.stdout) == (0, "done\n"), done.stderr
