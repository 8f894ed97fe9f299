"""Each file says in its first lines who uses it and what it may import, and that is true."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
OURS = ("app", "brokers", "schemas", "workflows")
FILES = {
    path.relative_to(ROOT).with_suffix("").as_posix().replace("/", ".").removesuffix(".__init__"): path
    for package in ("app", "brokers", "schemas")
    for path in sorted((ROOT / package).rglob("*.py"))
}
SAID = re.compile(r"(?:Used|Run) by (?P<users>.+); may import (?P<imports>.+)\.")


def folder(module: str) -> str:
    """Where a module lies."""
    return module if FILES[module].name == "__init__.py" else module.rpartition(".")[0]


def below(name: str, place: str) -> bool:
    """Whether this is the module or folder ``place`` or lies in it."""
    return f"{name}.".startswith(f"{place}.")


def read(module: str) -> tuple[str, set[str]]:
    """Its docstring, and what of ours it imports."""
    tree = ast.parse(FILES[module].read_text())
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name if name in FILES else node.module for name in names}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return ast.get_docstring(tree) or "", {name for name in found if name.partition(".")[0] in OURS}


READ = {module: read(module) for module in FILES}
# The others are folders without code of their own.
WITH_CODE = [
    module
    for module in FILES
    if FILES[module].name != "__init__.py" or len(ast.parse(FILES[module].read_text()).body) > 1
]


@pytest.mark.parametrize("module", FILES)
def test_the_first_line_says_what_a_file_is_for(module: str) -> None:
    """A sentence for every file and every folder."""
    first = READ[module][0].partition("\n")[0]
    assert first.endswith((".", "?")), f"{FILES[module]}: {first!r}"


@pytest.mark.parametrize("module", WITH_CODE)
def test_a_file_says_who_uses_it_and_what_it_may_import(module: str) -> None:
    """Users are named that are there, imports all; a name without a dot is of the same folder."""
    docstring, imports = READ[module]
    said = SAID.fullmatch(" ".join(docstring.split("\n\n")[1].split())) if "\n\n" in docstring else None
    assert said, f"{FILES[module]} does not say who uses it and what it may import"
    here = folder(module)
    users = {other for other, (_, used) in READ.items() if module in used}
    for named in re.findall(r"[\w.]+", said["users"]) if said[0].startswith("Used") else ():
        if f"{here}.{named}" in FILES:
            assert f"{here}.{named}" in users, f"{module} is not used by {named}"
        elif "." in named or named in OURS:
            assert any(below(user, named) for user in users), f"{module} is not used by {named}"
    # Between the files that lie in app/ itself it counts which one it is.
    outside = {name for name in imports - {"app"} if here == "app" or name not in FILES or folder(name) != here}
    allowed = [name for name in said["imports"].split(", ") if "." in name or name in OURS]
    if said["imports"] == "nothing of ours":
        assert not imports, f"{module} imports {imports}"
    for name in outside:
        assert any(below(name, place) for place in allowed), f"{module} imports {name}, and does not say so"
    for place in allowed:
        assert any(below(name, place) for name in outside), f"{module} imports nothing of {place} any more"
