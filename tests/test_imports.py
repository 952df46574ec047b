"""Imports run in one direction, from core to the commands and entries, and no code of the package names a method."""

import ast
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import main_DC
import main_DM

ROOT = Path(__file__).parent.parent
ENTRIES = {"main_DM", "main_DC", "networks", "utils"}
COMMANDS = {"fairdd.evaluate", "fairdd.export", "fairdd.report.__main__"}      # their main() may import entries
BELOW = {               # what each room may import besides itself
    "core": set(),
    "datasets": {"core"},
    "matching": {"core"},
    "evaluation": {"core", "datasets", "matching"},
    "method": {"core"},
    "flags": {"core", "datasets", "matching", "method"},
    "groups": {"core", "datasets", "matching", "evaluation"},
    "run": {"core", "datasets", "matching", "evaluation", "method", "flags", "groups"},
}
for above_run in ("report", "evaluate", "export"):
    BELOW[above_run] = {*BELOW["run"], "run"}
METHOD_NAMES = {method.name for method in (main_DM.METHOD, main_DC.DC, main_DC.DSA)}


def read_modules() -> dict[str, ast.Module]:
    """Return the parsed files of the package and of the entries, by module name."""
    files = [*ROOT.glob("*.py"), *(ROOT / "fairdd").rglob("*.py")]
    names = [".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__") for file in files]
    return {name: ast.parse(file.read_text()) for name, file in zip(names, files, strict=True)}


MODULES = read_modules()
PACKAGE = {name: tree for name, tree in MODULES.items() if name.startswith("fairdd")}


def imported_names(tree: ast.AST) -> Iterator[str]:
    """Yield the full name of everything that a tree imports, wherever the statement stands."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{ast.unparse(node)}: import by full name"
            yield node.module
            yield from (f"{node.module}.{name.name}" for name in node.names)


def imported_modules(tree: ast.AST) -> set[str]:
    """Return the project's modules that a tree imports."""
    return set(imported_names(tree)) & MODULES.keys()


def room(name: str) -> str:
    """Return the room of a module: "core" for fairdd.core.rng, "flags" for fairdd.flags, "" for fairdd itself."""
    return f"{name}.".split(".")[1]


def test_every_module_belongs_to_a_room():
    assert {room(name) for name in PACKAGE} == {"", *BELOW}
    assert MODULES.keys() == PACKAGE.keys() | ENTRIES


@pytest.mark.parametrize("name", PACKAGE)
def test_a_module_imports_its_own_room_and_rooms_below_it(name):
    rooms = {room(other) for other in imported_modules(PACKAGE[name]) - ENTRIES - {"fairdd"}}
    assert rooms <= BELOW.get(room(name), set()) | {room(name)}


def test_no_imports_form_a_cycle():
    graph = {name: imported_modules(tree) - {name, name.rpartition(".")[0]} for name, tree in MODULES.items()}
    TopologicalSorter(graph).prepare()


@pytest.mark.parametrize("name", PACKAGE)
def test_the_package_imports_no_entry_except_a_command_in_its_main(name):
    for node in PACKAGE[name].body:
        is_main = name in COMMANDS and isinstance(node, ast.FunctionDef) and node.name == "main"
        assert is_main or not imported_modules(node) & ENTRIES


def test_networks_import_nothing_of_the_project():
    assert not imported_modules(MODULES["networks"])


def test_matching_starts_no_threads():
    for name, tree in PACKAGE.items():
        roots = {imported.partition(".")[0] for imported in imported_names(tree)}
        assert room(name) != "matching" or not roots & {"threading", "concurrent", "multiprocessing", "_thread"}


def string_literals(tree: ast.AST) -> set[str]:
    return {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)}


@pytest.mark.parametrize("name", PACKAGE)
def test_no_code_of_the_package_knows_a_method_by_its_name(name):
    literals = string_literals(PACKAGE[name])
    assert not literals & METHOD_NAMES
    if name != "fairdd.run.legacy":             # it says which entry wrote a folder of version 0.1
        assert not literals & {"main_DM.py", "main_DC.py", "main_DM", "main_DC"}


def test_utils_has_no_logic_of_its_own():
    assert all(isinstance(node, ast.Expr | ast.ImportFrom | ast.Assign) for node in MODULES["utils"].body)


def test_utils_offers_the_names_that_users_of_dataset_condensation_import():
    import utils

    names = ["get_dataset", "get_network", "get_eval_pool", "get_loops", "evaluate_synset", "match_loss", "DiffAugment",
             "accuracy_table", "deo_m", "deo_a"]
    assert all(callable(getattr(utils, name)) for name in names)
    assert all(hasattr(utils, name) for name in utils.__all__)
