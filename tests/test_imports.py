"""Imports run one way: leaves, datasets, synset, evaluate, distill, utils, entries; never upward or in a circle."""

import ast
from graphlib import TopologicalSorter
from pathlib import Path

ROOT = Path(__file__).parent.parent
TOP = {"networks", "utils", "main_DM", "main_DC"}


def imported(path):
    """The modules a file imports: every import statement, wherever it stands."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports by full name"
            yield node.module
            yield from (f"{node.module}.{name.name}" for name in node.names)


def modules():
    """name -> the project's modules it imports."""
    files = [*ROOT.glob("*.py"), *(ROOT / "fairdd").rglob("*.py")]
    names = {".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): file for file in files}
    return {name: set(imported(file)) & (names.keys() - {name}) for name, file in names.items()}


def test_no_module_imports_itself_by_a_detour():
    graph = {name: others - {name.rpartition(".")[0]} for name, others in modules().items()}
    TopologicalSorter(graph).prepare()


def test_the_package_imports_no_entry_and_no_network():
    for name, others in modules().items():
        if name not in TOP:
            assert not others & TOP, name
    assert not modules()["networks"]


def test_leaves_import_nothing_above_them():
    for name in ("engine", "fairness", "seeds", "signals", "augment"):
        assert not modules()[f"fairdd.{name}"]
    assert modules()["fairdd.matching"] <= {"fairdd", "fairdd.engine"}      # the method, and how it is spread


def test_utils_has_no_logic_of_its_own():
    tree = ast.parse((ROOT / "utils.py").read_text())
    assert all(isinstance(node, ast.Expr | ast.ImportFrom | ast.Assign) for node in tree.body)


def test_utils_offers_the_fields_names():
    import utils

    names = ["get_dataset", "get_network", "get_eval_pool", "get_loops", "evaluate_synset", "match_loss", "DiffAugment",
             "accuracy_table", "deo_m", "deo_a"]
    assert all(callable(getattr(utils, name)) for name in names)
