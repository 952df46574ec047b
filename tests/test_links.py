"""Every relative link and picture of the documents leads to a file of the repository, and every #section exists."""

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
LINK = re.compile(r"\]\(([^)#\s]*)(?:#([^)\s]+))?\)")


def tracked(pattern: str = "") -> list[str]:
    """Return the paths of the repository's files, new ones included; git does not list those that it ignores."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", *([pattern] if pattern else [])]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()


def anchors(path: Path) -> set[str]:
    """Return the names that the headings of a Markdown file have as link targets."""
    text = re.sub(r"^```.*?^```", "", path.read_text(), flags=re.DOTALL | re.MULTILINE)
    headings = [re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", line) for line in re.findall(r"^#+ +(.+)$", text, re.MULTILINE)]
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="not a git checkout")
@pytest.mark.parametrize("page", tracked("*.md") if (ROOT / ".git").exists() else [])
def test_every_link_leads_to_a_file_of_the_repository(page):
    files, folder = set(tracked()), (ROOT / page).parent
    for target, section in LINK.findall((ROOT / page).read_text()):
        if target.startswith(("http:", "https:")):
            continue
        path = (folder / target).resolve() if target else ROOT / page
        name = str(path.relative_to(ROOT))
        assert name in files or any(file.startswith(f"{name}/") for file in files), f"{page} links to {target}"
        if section and path.suffix == ".md":
            assert section in anchors(path), f"{page} links to {target}#{section}"
