"""Imports run one way: leaves, datasets, synset, evaluate, distill, utils, entries; never upward or in a circle."""

import ast
from graphlib import TopologicalSorter
from pathlib import Path

ROOT = Path(__file__).parent.parent
TOP = {"networks", "utils", "main_DM", "main_DC"}
COMMAND = ROOT / "fairdd" / "evaluate.py"       # an entry too: its main, and nothing else of it, knows the networks


def imported(tree):
    """The modules a file imports, or a part of it: every import statement, wherever it stands."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{ast.unparse(node)}: imports by full name"
            yield node.module
            yield from (f"{node.module}.{name.name}" for name in node.names)


def modules():
    """name -> the project's modules it imports."""
    files = [*ROOT.glob("*.py"), *(ROOT / "fairdd").rglob("*.py")]
    names = {".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): file for file in files}
    trees = {name: ast.parse(file.read_text()) for name, file in names.items()}
    return {name: set(imported(tree)) & (names.keys() - {name}) for name, tree in trees.items()}


def test_no_module_imports_itself_by_a_detour():
    graph = {name: others - {name.rpartition(".")[0]} for name, others in modules().items()}
    TopologicalSorter(graph).prepare()


def test_the_package_imports_no_entry_and_no_network():
    for name, others in modules().items():
        if name not in TOP | {"fairdd.evaluate"}:
            assert not others & TOP, name
    assert not modules()["networks"]


def test_the_command_imports_networks_in_its_main_alone():
    tree = ast.parse(COMMAND.read_text())
    [main] = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == "main"]
    assert set(imported(main)) & TOP == {"networks"}
    tree.body.remove(main)
    assert not set(imported(tree)) & TOP


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
