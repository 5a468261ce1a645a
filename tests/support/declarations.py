"""The configuration's fields as they are written in the source, each with the text below it."""

from __future__ import annotations

import ast
import dataclasses
import inspect
from collections.abc import Iterator

from sparseg.config import Config


def fields_and_texts() -> Iterator[tuple[str, str | None]]:
    """(dotted name, documentation or None) of every field of every section, inherited ones first."""
    for section in dataclasses.fields(Config):
        bases = [base for base in type(section.default).__mro__ if dataclasses.is_dataclass(base)]
        for base in reversed(bases):
            (declared,) = ast.parse(inspect.getsource(base)).body
            assert isinstance(declared, ast.ClassDef)
            for field, text in zip(declared.body, [*declared.body[1:], None], strict=True):
                if isinstance(field, ast.AnnAssign):
                    value = text.value if isinstance(text, ast.Expr) else None
                    known = isinstance(value, ast.Constant) and isinstance(value.value, str)
                    yield f"{section.name}.{ast.unparse(field.target)}", value.value if known else None
