"""Modules of the user's own that a run names: found on the user's path, imported once, refused in one line.

They are looked for in the current folder and on Python's path, like everything that Python imports.  A
worker gets the path of the process that drives it (`search_path`), because its own current folder is
another one.
"""

from __future__ import annotations

import importlib
import importlib.machinery
import importlib.util
import os
import sys
import types
from collections.abc import Iterable, Sequence
from pathlib import Path


def module_name(plugin: str) -> str:
    """Give the name that a plugin has in Python: `my.module` itself, of a file FOLDER/FILE.py FILE."""
    return Path(plugin).stem if plugin.endswith(".py") else plugin


def absolute(plugins: Sequence[str]) -> tuple[str, ...]:
    """Give the plugins with the paths of files made absolute, for processes in other folders."""
    return tuple(
        str(Path(plugin).expanduser().absolute()) if plugin.endswith(".py") else plugin for plugin in plugins
    )


def search_path() -> list[str]:
    """Give the folders where this process finds the user's modules: the current one and those of sys.path
    that are not part of the Python installation."""
    installed = {Path(prefix).resolve() for prefix in (sys.prefix, sys.base_prefix)}
    folders = [Path(entry).absolute() for entry in (os.getcwd(), *sys.path)]
    own = [folder for folder in folders if not installed & {*folder.resolve().parents}]
    return list(dict.fromkeys(str(folder) for folder in own if folder.is_dir()))


def extend_path(folders: Iterable[str]) -> None:
    """Append to sys.path those of the folders that exist here and are not in it yet.

    They go to its end: a file of the user's must not stand in the way of a module that Python brings.
    """
    sys.path.extend(folder for folder in folders if folder not in sys.path and Path(folder).is_dir())
    importlib.invalidate_caches()


def load(plugins: Sequence[str]) -> None:
    """Import the plugins of `run.plugins`, names of modules or paths of .py files, unless they are already.

    Files of a folder may import each other.  A file that is not there, as on a node to which a job's
    folder was copied, is looked for by its name.  Raises ValueError naming the plugin and the remedy.
    """
    for plugin in plugins:
        name = module_name(plugin)
        if plugin.endswith(".py") and Path(plugin).is_file():
            path = Path(plugin).resolve()
            extend_path([str(path.parent)])
            _refuse_another(name, path)
        import_module(
            name,
            f"run.plugins={plugin}",
            f"run the command in the folder that holds {name}, name the file (--run.plugins FOLDER/FILE.py), "
            "or set PYTHONPATH",
        )


def load_of_checkpoint(plugins: Sequence[str], checkpoint: Path) -> None:
    """Import the plugins that a checkpoint names, and tell on stderr which files these are.

    Only the user's own path is searched, by the modules' names: the folders that a checkpoint tells of are
    not, and what lies in the checkpoint's folder, or in its run's, is refused.  Raises ValueError naming the
    checkpoint, the plugin and the remedy.
    """
    for plugin in plugins:
        name = module_name(plugin)
        if name in sys.modules:
            continue
        extend_path([os.getcwd()])
        asked = f"{checkpoint}: its network was trained with the plugin {name}"
        found = importlib.util.find_spec(name.partition(".")[0])
        places = [Path(place).resolve() for place in _places(found)]
        for place in places:
            if {checkpoint.resolve(), checkpoint.resolve().parent} & {place, *place.parents}:
                raise ValueError(
                    f"{asked}, and {place} lies in the checkpoint's own folder; code that comes with a "
                    "checkpoint is not run: read it, and put it elsewhere if you trust it"
                )
        module = import_module(
            name,
            asked,
            f"run the command in the folder that holds {name}, or set PYTHONPATH=FOLDER",
        )
        print(f"plugin {name} of {checkpoint}: {module.__file__}", file=sys.stderr)


def import_module(name: str, asked: str, remedy: str) -> types.ModuleType:
    """Import a module from the current folder or Python's path.

    asked: who wants it, the beginning of a message.  Raises ValueError if there is none, with the remedy, or
    if it cannot be imported, with its own error.
    """
    extend_path([os.getcwd()])
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and (name == error.name or name.startswith(f"{error.name}.")):
            raise ValueError(
                f"{asked}: there is no module {error.name} in the current folder ({os.getcwd()}) or on "
                f"Python's path; {remedy}"
            ) from None
        raise ValueError(f"{asked}: importing {name} fails ({error})") from error
    except Exception as error:  # whatever the user's code raises
        raise ValueError(f"{asked}: importing {name} fails ({type(error).__name__}: {error})") from error


def _refuse_another(name: str, path: Path) -> None:
    """Raise ValueError if Python knows another module by the name of a plugin's file."""
    if name in sys.modules:
        known = [getattr(sys.modules[name], "__file__", None) or "Python itself"]
    else:
        known = _places(importlib.util.find_spec(name))
    if known and path not in {Path(place).resolve() for place in known}:
        raise ValueError(
            f"run.plugins={path}: another module is called {name}, too ({known[0]}); rename yours"
        )


def _places(spec: importlib.machinery.ModuleSpec | None) -> list[str]:
    """Where a module lies: its file, or the folders of a package."""
    if spec is None:
        return []
    return [*([spec.origin] if spec.origin else []), *(spec.submodule_search_locations or [])]
