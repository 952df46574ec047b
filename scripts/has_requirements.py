"""Exit 0 if this Python has what the requirement files given as arguments ask for, else say what is missing."""

import re
import sys
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path


def numbers(text):
    """"2.15.0+cpu" -> (2, 15, 0)"""
    return tuple(map(int, re.findall(r"\d+", text.partition("+")[0])[:3]))


def is_met(name, lowest):
    """Whether the package is installed, new enough."""
    try:
        return numbers(version(name)) >= numbers(lowest)
    except PackageNotFoundError:
        return False


lines = [line for file in sys.argv[1:] for line in Path(file).read_text().splitlines()]
wanted = [match.groups() for line in lines if (match := re.match(r"([\w-]+)>=([\d.]+)", line))]
missing = [name for name, lowest in wanted if not is_met(name, lowest)]
if sys.version_info < (3, 11) or missing:
    sys.exit(f"missing: {', '.join(missing) or 'Python 3.11'}")
import_module("torchvision")        # installed is not enough: beside a torch of another build it does not import
