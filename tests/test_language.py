"""Everything is written in American English, and identifiers are standard terms, no everyday words."""

import ast
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SUFFIXES = {".py", ".md", ".sh", ".html", ".jinja", ".css", ".toml", ".txt"}

STEMS = ("author|capital|categor|central|character|custom|digit|discret|emphas|equal|factor|final|general|harmon|"
         "initial|local|material|maxim|memor|minim|modern|normal|optim|organ|parallel|penal|priorit|quant|random|real|"
         "recogn|regular|serial|special|stabil|standard|summar|symbol|synchron|util|vector|visual")
BRITISH = re.compile(
    rf"\w*({STEMS})is(e|ed|es|er|ers|ing|ation|ations|able)|\w*analys(e|ed|er|ing)|"
    r"\w*(behaviour|colour|favour|flavour|honour|labour|neighbour|rigour|vigour)\w*|"
    r"(bary|epi)?(centre|fibre|metre|theatre)(s|d)?|(milli|centi|kilo)metres?|centring|"
    r"grey(er|ish|s|scale)?|\w*(labell|modell|levell|signall|travell|fuell|totall)(ed|er|ing)|"
    r"artefacts?|defence|judgements?|learnt|licence[sd]?|offence|practised?|programmes?|spelt|whilst|amongst|catalogues?",
    re.IGNORECASE)
OLD_SPELLING = re.compile(r"""(["'`])[^"'`\n]*\bbarycentre\1""")       # an accepted flag value, always quoted
NONSTANDARD_PHRASES = re.compile(
    r"the published way|what it comes to|the field's (format|names|code)|comes to what|\bin words\b|\bmend(s|ed)?\b",
    re.IGNORECASE)
NO_IDENTIFIER = re.compile(
    "ones?|mine|ours|theirs|yours|found|said|says?|words|here|there|few|places?|parts?|whole|mend|dealt|cards|figures?|"
    "decoded?|course|outcome|engine|rarest|tick|pull|fresh|recipe|real_")
NO_DEFINITION = re.compile(         # of functions, classes and variables of a module
    "Abandoned|COMPARED|Entry|Grey|Known|Listing|POOLED|Recipe|Request|SAME_RUN|Stopped|Stored|chance_of_none|"
    "class_gaps|class_shares|detached|exit_in_words|fair_shares|frame|frozen_statistics|"
    "in_order|in_words|least_memory|network_for|only_writer|part_size|stoppable|train_plainly|"
    "unless_stopped|weighted_sums|whole_cosine")


def tracked_files() -> list[Path]:
    """Return the text files under version control, without this one, which lists the words."""
    listing = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True, timeout=60)
    paths = [ROOT / line for line in listing.stdout.splitlines()]
    return [path for path in paths if path.suffix in SUFFIXES and path.exists() and path != Path(__file__)]


FILES = tracked_files()
every_file = pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
every_python_file = pytest.mark.parametrize("path", [path for path in FILES if path.suffix == ".py"],
                                            ids=lambda path: str(path.relative_to(ROOT)))


def definitions(tree: ast.Module) -> Iterator[tuple[str, int]]:
    """Yield the name and line of every function and class, and of every variable of the module."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name, node.lineno
    for statement in tree.body:
        if isinstance(statement, ast.Assign | ast.AnnAssign):
            yield from stored_names(statement)


def stored_names(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """Yield the name and line of every variable, attribute and argument that a tree sets."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id, node.lineno
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.attr, node.lineno
        elif isinstance(node, ast.arg):
            yield node.arg, node.lineno
        elif isinstance(node, ast.ExceptHandler) and node.name:
            yield node.name, node.lineno


def british_words(text: str) -> list[str]:
    """Return "line: word" for every British spelling."""
    lines = OLD_SPELLING.sub("", text).splitlines()
    words = [(number, word) for number, line in enumerate(lines, 1) for word in re.findall("[A-Za-z]+", line)]
    return [f"{number}: {word}" for number, word in words if BRITISH.fullmatch(word)]


@pytest.mark.parametrize(("text", "expected"), [
    ("the colours are normalised", ["1: colours", "1: normalised"]), ("grey", ["1: grey"]),
    ("is_labelled\nre_initialise", ["1: labelled", "2: initialise"]), ("--align barycentre", ["1: barycentre"]),
    ('the old value "barycentre" and `--align barycentre`', []), ("'{\"align\": \"barycentre\"}'", []),
    ("colors normalized analyses optimistic realistic precise otherwise emphasis center meter", []),
])
def test_british_spellings_are_recognized(text, expected):
    assert british_words(text) == expected


@every_file
def test_spelling_is_american(path):
    assert british_words(path.read_text()) == []


@every_file
def test_phrases_are_standard_english(path):
    lines = enumerate(path.read_text().splitlines(), 1)
    assert [f"{number}: {line.strip()}" for number, line in lines if NONSTANDARD_PHRASES.search(line)] == []


@every_python_file
def test_identifiers_are_standard_terms(path):
    tree = ast.parse(path.read_text())
    names = [item for item in stored_names(tree) if NO_IDENTIFIER.fullmatch(item[0])]
    names += [item for item in definitions(tree)
              if NO_IDENTIFIER.fullmatch(item[0]) or NO_DEFINITION.fullmatch(item[0])]
    assert [f"{line}: {name}" for name, line in names] == []


def test_identifiers_are_found_wherever_they_are_set():
    tree = ast.parse("x = 0\nclass A:\n def b(self, c, *d, e=1):\n  self.f = [g for g in c]\n  for h, i in d: y = j")
    assert {name for name, _ in definitions(tree)} == {"A", "b", "x"}
    assert {name for name, _ in stored_names(tree)} == {*"cdefghixy", "self"}
