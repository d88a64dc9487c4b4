"""Imports inside the package point one way: read from the syntax trees, those inside functions included."""

import ast
import graphlib
import pathlib

ROOT = pathlib.Path(__file__).resolve().parents[1]
# From low to high: a room imports from those before it, and from those beside it in its line.
ORDER = (
    ("errors", "choices", "paths"),
    ("conflicts", "fields"),
    ("backend", "config"),
    ("flags", "markdown", "progress"),
    ("devices",),
    ("weights",),
    ("data",),
    ("cli",),
    ("networks",),
    ("gate",),
    ("trainers",),
    ("zoo",),
    ("visualize",),
    ("runs",),
    ("audit", "export"),
    ("report",),
    ("release",),
    ("tables",),
    ("api", "complexity", "demo"),
    ("commands",),
    ("__main__",),
)
FLOORS = 20


def name_of(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


FILES = {name_of(path): path for path in sorted((ROOT / "cdc_keras").rglob("*.py"))}


def imported_by(module):
    """Returns the modules of the package that the file of a module imports, faces that are run on the way included."""
    named = set()
    for node in ast.walk(ast.parse(FILES[module].read_text())):
        if isinstance(node, ast.Import):
            named |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{module} has a relative import"
            within = {f"{node.module}.{alias.name}" for alias in node.names}
            named |= {name if name in FILES else node.module for name in within}
    faces = {name.rsplit(".", depth)[0] for name in named for depth in range(1, name.count(".") + 1)}
    own = {module.rsplit(".", depth)[0] for depth in range(module.count(".") + 1)}
    return (named | faces - own) & set(FILES) - {module}


IMPORTS = {module: imported_by(module) for module in FILES}


def rank(module):
    """Returns the line of `ORDER` that a module belongs to."""
    room = module.split(".")[1]
    (line,) = [number for number, rooms in enumerate(ORDER) if room in rooms]
    return line


def test_there_is_no_circle_and_there_are_few_floors():
    floors = {}
    for module in graphlib.TopologicalSorter(IMPORTS).static_order():  # raises CycleError, naming the circle
        floors[module] = 1 + max((floors[name] for name in IMPORTS[module]), default=0)
    assert len(floors) == len(FILES) and max(floors.values()) <= FLOORS, max(floors, key=floors.get)


def test_no_room_imports_one_above_it():
    upward = {
        f"{module} imports {name}"
        for module, names in IMPORTS.items()
        for name in names
        if "." in module and "." in name and rank(name) > rank(module)
    }
    assert not upward


def test_the_rooms_are_those_that_the_wheel_contains():
    rooms = {path.parent.name for path in ROOT.glob("cdc_keras/*/__init__.py")}
    declared = (ROOT / "pyproject.toml").read_text().partition("packages = [")[2].partition("]")[0].split('"')[1::2]
    assert set(declared) == {"cdc_keras", *(f"cdc_keras.{room}" for room in rooms | {"configs", "zoo_records"})}


def test_no_file_of_the_package_is_long():
    assert {module: n for module, path in FILES.items() if (n := path.read_text().count("\n")) > 300} == {}
