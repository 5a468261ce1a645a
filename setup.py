"""What pyproject.toml cannot say: the package holds copies of trainers/ and search_spaces/.

In a source checkout they stay where people read them and where jobs are submitted from, and an editable
installation finds them there (sparseg.cli.training).
"""

from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

SHIPPED = ("trainers", "search_spaces")


class BuildWithRecipes(build_py):
    """Copies the recipes and the search spaces into the built package."""

    def run(self) -> None:
        """Build the package, then add them; an editable installation has them already."""
        super().run()
        if self.editable_mode:
            return
        for name in SHIPPED:
            folder = Path(self.build_lib, "sparseg", name)
            folder.mkdir(exist_ok=True)
            for file in sorted(Path(name).glob("*.py")):
                self.copy_file(str(file), str(folder / file.name))


setup(cmdclass={"build_py": BuildWithRecipes})
