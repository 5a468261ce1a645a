"""The documents say what is there: commands, flags, paths, links, numbers.

Commands are read out of code blocks and code spans and given to the parsers themselves, in this process; what
they would do is not done.
"""

from __future__ import annotations

import ast
import contextlib
import dataclasses
import functools
import importlib.util
import io
import re
import shlex
import sys
import tomllib
import typing
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import tyro

import sparseg
from sparseg import cli, sweep
from sparseg.common import process
from sparseg.config import Config, LossConfig, command_line

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "platform" / "sparseg"
TRAINERS = ROOT / "trainers"
README = ROOT / "README.md"
RESULTS = ROOT / "RESULTS.md"
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
README_LINES, README_COLUMNS = 120, 120

FOLDERS = "platform|tests|trainers|search_spaces|cluster|experiments|docs|\\.ci"
OTHER_PROGRAMS_FLAGS = {"--dashboard-host", "--kills"}  # Ray's, tests/chaos'


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


each_document = pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)


# ------------------------------------------------------------------------------------------- reading Markdown


def blocks(document: Path) -> list[tuple[str, str]]:
    """(language or "", text) of every fenced code block."""
    return re.findall(r"^```(\w*)\n(.*?)^```$", document.read_text(), re.MULTILINE | re.DOTALL)


def prose(document: Path) -> str:
    return re.sub(r"^```.*?^```$", "", document.read_text(), flags=re.MULTILINE | re.DOTALL)


def spans(document: Path) -> list[str]:
    """Code spans outside of blocks; a span may go over the end of a line."""
    return [" ".join(span.split()) for span in re.findall(r"`([^`]+)`", prose(document))]


def commands_of(line: str) -> Iterator[list[str]]:
    """The words of each `sparseg ...` and `... trainers/NAME.py ...` of a shell line."""
    if not re.search(r"\bsparseg |trainers/\w+\.py", line):
        return
    words = shlex.shlex(re.sub(r"\$\w+", "1", line), posix=True, punctuation_chars=";&|")
    words.whitespace_split = True
    some: list[str] = []
    for word in [*words, ";"]:
        if set(word) <= set(";&|"):
            starts = [i for i, w in enumerate(some) if re.fullmatch(r"(.*/)?trainers/\w+\.py", w)]
            if some[:1] == ["sparseg"] and len(some) > 1:
                yield some
            elif starts:
                yield some[starts[0] :]
            some = []
        else:
            some.append(word)


@dataclasses.dataclass(frozen=True)
class Command:
    """A command of a document; a complete one stands in a block, a span may name but a part of it."""

    document: Path
    words: tuple[str, ...]
    is_complete: bool

    def __str__(self) -> str:
        return f"{name_of(self.document)}: {' '.join(self.words)}"


def commands() -> list[Command]:
    found = []
    for document in DOCUMENTS:
        shell = "\n".join(text for language, text in blocks(document) if language != "python")
        lines = [(line, True) for line in shell.replace("\\\n", " ").splitlines()]
        for line, is_complete in [*lines, *((span, False) for span in spans(document))]:
            found += [Command(document, tuple(words), is_complete) for words in commands_of(line)]
    return list(dict.fromkeys(found))


def test_commands_are_found_in_every_shape() -> None:
    found = list(commands_of("submit -- python trainers/voc.py --run.name w$n; sparseg plan runs/x  # why"))
    assert found == [["trainers/voc.py", "--run.name", "w1"], ["sparseg", "plan", "runs/x"]]
    assert list(commands_of("pip install sparseg")) == list(commands_of("from sparseg import x")) == []
    assert len(commands()) > 40


# ---------------------------------------------------------------------------------------------------- parsers


@functools.cache
def printed(*words: str) -> str:
    """What `sparseg WORDS` prints; it must end with code 0."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out), pytest.raises(SystemExit) as stop:
        cli.main(list(words))
    assert stop.value.code == 0
    return out.getvalue()


def flags_in(text: str) -> set[str]:
    """Flags of a text; one with a placeholder (--loss.TERM-weight) is none."""
    found = re.findall(r"(?<![\w-])--[a-z][\w.-]*\w", text)
    return {flag for flag in found if flag == flag.lower()}


@functools.cache
def subcommands() -> set[str]:
    return set(re.findall(r"^ {4}(\w+)", printed("--help"), re.MULTILINE))


@functools.cache
def trainer_flags() -> set[str]:
    known = {"--config", "--dry-run", "--help-all"}
    for section in dataclasses.fields(Config):
        for field in dataclasses.fields(section.default):
            flag = field.name.replace("_", "-")
            known |= {f"--{section.name}.{flag}"}
            known |= {f"--{section.name}.no-{flag}"} if isinstance(field.default, bool) else set()
    return known


@functools.cache
def sweep_flags() -> set[str]:
    out = io.StringIO()
    with contextlib.redirect_stdout(out), pytest.raises(SystemExit):
        sweep.parse(TRAINERS, ["--help"])
    return flags_in(out.getvalue())


@functools.cache
def trainer(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"documented_{name}", TRAINERS / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def check_script(name: str, words: list[str]) -> None:
    """Raise unless the parser of trainers/NAME.py takes the words."""
    if name.isupper():  # any of them
        return
    if name == "demo" and not any("." in word for word in words if word.startswith("--")):
        tyro.cli(trainer("demo").Options, args=words)
    elif name != "sweep":
        command_line.parse(trainer(name).recipe(), words)
    elif "--space" in words:
        at = words.index("--space") + 1
        sweep.parse(TRAINERS, [*words[:at], str(ROOT / words[at]), *words[at + 1 :], "--dry-run"])
    else:
        assert flags_in(" ".join(words)) <= sweep_flags() | trainer_flags()


@pytest.mark.parametrize("command", commands(), ids=str)
def test_commands_parse(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    first, *words = [word for word in command.words if word != "..."]
    if first != "sparseg":
        check_script(Path(first).stem, words)
        return
    subcommand, *words = words
    if subcommand in ("train", "sweep"):
        recipe, *flags = words if subcommand == "train" and words else ["NAME", *words]
        check_script("sweep" if subcommand == "sweep" else Path(recipe).stem, flags)
        assert subcommand in subcommands()
        return
    assert subcommand in subcommands()
    assert flags_in(" ".join(words)) <= flags_in(printed(subcommand, "--help"))
    if command.is_complete:
        monkeypatch.setattr(process, "guarded", lambda action: 0)  # parsed, and not done
        printed.__wrapped__(subcommand, *words)


@each_document
def test_flags_are_known(document: Path) -> None:
    of_commands = set().union(*(flags_in(printed(name, "--help")) for name in subcommands()))
    of_demo = {f"--{field.name.replace('_', '-')}" for field in dataclasses.fields(trainer("demo").Options)}
    known = of_commands | trainer_flags() | sweep_flags() | of_demo | OTHER_PROGRAMS_FLAGS
    named = set().union(*(flags_in(span) for span in spans(document) if span.startswith("--")))
    assert named - known == set()


@each_document
def test_make_targets_exist(document: Path) -> None:
    code = "\n".join([*(text for _, text in blocks(document)), *spans(document)])
    targets = set(re.findall(r"^([\w.-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"^make (\w+)", code, re.MULTILINE)) <= targets


# ----------------------------------------------------------------------------------------------- paths, links


def is_there(path: str) -> bool:
    return any(ROOT.glob(path)) if "*" in path else (ROOT / path).exists()


@each_document
def test_paths_exist(document: Path) -> None:
    mentioned = re.findall(rf"(?<![\w./-])(?:{FOLDERS})/[\w./*-]*", document.read_text())
    mentioned = [path.rstrip(".-") for path in mentioned if not re.search(r"\b[A-Z]{3,}\b", path)]
    assert [path for path in mentioned if not is_there(path)] == []


@each_document
def test_modules_and_packages_exist(document: Path) -> None:
    packages = {path.name for path in PACKAGE.iterdir() if path.is_dir()}
    files = {path.name for folder in FOLDERS.split("|") for path in (ROOT / folder).rglob("*.py")}
    for span in spans(document):
        head, *rest = span.split("/")
        if re.fullmatch(r"[\w/-]+(\.py|/)?", span) and rest and head in packages:
            assert (PACKAGE / span).exists() or is_there(span), span
        elif re.fullmatch(r"[\w-]+\.py", span) and span.upper() != span.replace(".py", ".PY"):
            assert span in files, span


def slug(heading: str) -> str:
    return re.sub(r"[^\w -]", "", heading.strip().lower()).replace(" ", "-")


@each_document
def test_links_lead_somewhere(document: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(document)):
        if target.startswith("https://"):
            continue
        path, _, fragment = target.partition("#")
        place = (document.parent / path).resolve() if path else document
        assert place.exists(), target
        if fragment:
            headings = re.findall(r"^#+ (.*)$", place.read_text(), re.MULTILINE)
            assert fragment in map(slug, headings), target


def test_index_lists_every_page() -> None:
    pages = {path.name for path in (ROOT / "docs").glob("*.md")} - {"README.md"}
    linked = set(re.findall(r"\]\((\w[\w-]*\.md)\)", (ROOT / "docs" / "README.md").read_text()))
    assert pages <= linked


# ----------------------------------------------------------------------------------------------------- README


def section(document: Path, heading: str) -> str:
    """Text below a heading of the second level whose words begin so."""
    _, found = re.split(rf"^## {heading}.*$", document.read_text(), flags=re.MULTILINE)
    return found.split("\n## ")[0]


def test_readme_is_short() -> None:
    lines = README.read_text().splitlines()
    assert len(lines) <= README_LINES
    assert [line for line in lines if len(line) > README_COLUMNS] == []


def test_readme_maps_every_package() -> None:
    packages = {path.name for path in PACKAGE.iterdir() if (path / "__init__.py").is_file()}
    lines = re.findall(r"^- (`.*?):", section(README, "The map"), re.MULTILINE)
    assert {name for line in lines for name in re.findall(r"`(\w+)`", line)} == packages


def test_readme_names_every_method() -> None:
    methods = typing.get_args(typing.get_type_hints(LossConfig)["method"])
    lines = re.findall(r"^- (`.*?):", section(README, "Methods"), re.MULTILINE)
    assert {name for line in lines for name in re.findall(r"`([\w+-]+)`", line)} == set(methods)


def test_readme_has_the_numbers_of_the_results() -> None:
    results = RESULTS.read_text()
    numbers = re.findall(r"\d+\.\d ± \d+\.\d", README.read_text())
    assert len(numbers) >= 3
    assert [number for number in numbers if f"| {number} |" not in results] == []


# -------------------------------------------------------------------------------------------- Python, version


@each_document
def test_python_names_exist(document: Path) -> None:
    for language, text in blocks(document):
        if language != "python":
            continue
        tree = ast.parse(text)
        used = {
            n.attr
            for n in ast.walk(tree)
            if isinstance(n, ast.Attribute) and ast.unparse(n.value) == "sparseg"
        }
        assert {name for name in used if not hasattr(sparseg, name)} == set()
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom):
                module = __import__(node.module or "", fromlist=["_"])
                assert {a.name for a in node.names if not hasattr(module, a.name)} == set()


def test_the_space_of_the_documents_can_be_searched(tmp_path: Path) -> None:
    page = ROOT / "docs" / "sweeps-and-planning.md"
    (text,) = (text for language, text in blocks(page) if language == "python")
    space = tmp_path / "space.py"
    space.write_text(text)
    check_script("sweep", ["--trainer", "demo", "--space", str(space)])


def test_one_version_everywhere() -> None:
    version = sparseg.__version__
    assert tomllib.loads((ROOT / "pyproject.toml").read_text())["project"].get("version", version) == version
    assert f"\nversion: {version}\n" in (ROOT / "CITATION.cff").read_text()
    assert re.search(rf"^## \[?{re.escape(version)}\]?", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    files = [path.read_text() for path in (ROOT / "cluster").iterdir()]
    assert {tag for text in files for tag in re.findall(r"EDIT/sparseg:([\w.]+)", text)} == {version}
