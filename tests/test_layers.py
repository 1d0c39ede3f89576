"""Modules import downwards only: the order of layers, held against every import in the source."""

import ast
from collections.abc import Iterator
from pathlib import Path

import samfit

SOURCE = Path(samfit.__file__).parent

LAYERS = (
    (
        *("errors", "types", "files", "frame", "declare", "options", "settings", "config"),
        *("progress", "processes", "packages"),
    ),
    ("data", "backbones", "losses", "metrics"),
    ("methods", "defaults", "runs", "cache"),
    ("step",),
    ("plan",),
    ("report", "engine"),
    ("recipes", "compare", "demo"),
    ("cli",),
    ("testing",),
)
"""From the lowest line to the highest. Within a line, a part may import those before it."""

STRANGERS = {"data", "backbones", "losses", "metrics"}
"""Parts of one line that do not import one another."""

READS_FILES_ONLY = {"report"}
"""Parts that import from the two lowest lines only."""

ANYTHING = {"__init__", "__main__"}
"""The front doors, which hand out names of every layer."""

RANK = {part: rank for rank, part in enumerate(part for layer in LAYERS for part in layer)}
LINE = {part: line for line, layer in enumerate(LAYERS) for part in layer}


def imported_modules(path: Path, package: str) -> Iterator[str]:
    """Yield the full name of every samfit module that a file imports, anywhere in it.

    `package`: the dotted name of the package that the file belongs to. A name imported from the root is
    taken for a module (`samfit.losses`). Calls of `import_module` count where they begin with a known text.
    """
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parents = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            module = ".".join([*parents, *([node.module] if node.module else [])])
            yield from (f"{module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module") and node.args:
            argument = node.args[0]
            start = argument.values[0] if isinstance(argument, ast.JoinedStr) else argument
            if isinstance(start, ast.Constant):
                yield str(start.value)


def fault(importer: str, imported: str) -> str | None:
    """Return what is wrong with one part importing another, or None."""
    if imported not in RANK:
        return f"'{imported}' has no layer"
    if importer == imported:
        return None
    if importer in READS_FILES_ONLY and LINE[imported] > 1:
        return f"'{importer}' may import only the two lowest layers, not '{imported}'"
    if {importer, imported} <= STRANGERS:
        return f"'{importer}' and '{imported}' do not import one another"
    if RANK[imported] > RANK[importer]:
        return f"'{importer}' lies below '{imported}'"
    return None


def faults(source: Path) -> list[str]:
    """Return every import under `source` (the folder of the package) that breaks the order."""
    found = []
    for path in sorted(source.rglob("*.py")):
        inside = path.relative_to(source)
        importer = inside.parts[0].removesuffix(".py")
        if importer in ANYTHING:
            continue
        if importer not in RANK:
            found.append(f"{inside}: '{importer}' has no layer")
            continue
        package = ".".join(["samfit", *inside.parts[:-1]])
        for name in imported_modules(path, package):
            root, _, rest = name.partition(".")
            if root != "samfit" or rest == "__version__":
                continue
            wrong = fault(importer, rest.split(".")[0])
            if wrong:
                found.append(f"{inside}: {wrong}")
    return found


def test_every_import_goes_downwards():
    assert faults(SOURCE) == []


def test_the_reader_sees_the_imports_that_are_there():
    seen = {name for path in SOURCE.rglob("*.py") for name in imported_modules(path, "samfit")}
    assert {
        "samfit.errors.SettingError",
        "samfit.backbones.weights",
        "samfit.methods.adapted.AdaptedModel",
    } <= seen


def test_wrong_imports_in_a_made_up_tree_are_found(tmp_path):
    files = {
        "errors.py": "import samfit.cli\n",
        "data/reading.py": "def read():\n    from samfit.backbones import card_of\n",
        "methods/cad.py": "from ..engine import training\n",
        "step.py": "from importlib import import_module\nimport_module('samfit.engine.training')\n",
        "plan/trace.py": "from . import search\nfrom samfit import step, __version__\n",
        "report/tables.py": "from samfit.methods import METHODS\n",
        "engine/training.py": "from samfit import train\n",
        "cli/train.py": "from samfit.engine.training import train\nimport numpy as np\n",
        "extra.py": "",
        "__init__.py": "from samfit.engine.training import train\n",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    assert faults(tmp_path) == [
        "data/reading.py: 'data' and 'backbones' do not import one another",
        "engine/training.py: 'train' has no layer",
        "errors.py: 'errors' lies below 'cli'",
        "extra.py: 'extra' has no layer",
        "methods/cad.py: 'methods' lies below 'engine'",
        "report/tables.py: 'report' may import only the two lowest layers, not 'methods'",
        "step.py: 'step' lies below 'engine'",
    ]
