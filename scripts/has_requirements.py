"""Exit 0 if this Python satisfies the requirement files given as arguments, else print what is missing."""

import re
import sys
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path


def release(text: str) -> tuple[int, ...]:
    """Return the release numbers of a version: (2, 15, 0) for 2.15.0+cpu."""
    return tuple(map(int, re.findall(r"\d+", text.partition("+")[0])[:3]))


def is_met(name: str, lowest: str) -> bool:
    """Return whether the package is installed and new enough."""
    try:
        return release(version(name)) >= release(lowest)
    except PackageNotFoundError:
        return False


lines = [line for file in sys.argv[1:] for line in Path(file).read_text().splitlines()]
requirements = [match.groups() for line in lines if (match := re.match(r"([\w-]+)>=([\d.]+)", line))]
missing = [name for name, lowest in requirements if not is_met(name, lowest)]
if sys.version_info < (3, 11) or missing:
    sys.exit(f"missing: {', '.join(missing) or 'Python 3.11'}")
import_module("torchvision")        # installed is not enough: beside a torch of another build it does not import
