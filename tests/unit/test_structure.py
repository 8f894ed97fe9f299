"""The layout tells the architecture, the documents tell the truth."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from app.settings import Settings

ROOT = Path(__file__).parents[2]
# Who may import whom among the top-level packages.
ALLOWED = {
    "schemas": {"schemas"},
    "brokers": {"brokers", "schemas"},
    "workflows": {"workflows", "schemas"},
    "app": {"app", "brokers", "schemas", "workflows"},
}
FOREIGN = {"nats": {"brokers"}, "aiokafka": {"brokers"}, "faststream": {"brokers", "app/documents"}}


def imports(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module)
    return names


def sources(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


@pytest.mark.parametrize("package", ALLOWED)
def test_imports_point_one_way(package: str) -> None:
    """schemas know nobody, brokers know schemas, the application knows all."""
    ours = set(ALLOWED)
    for path in sources(package):
        found = {name.partition(".")[0] for name in imports(path)} & ours
        assert found <= ALLOWED[package], f"{path} imports {found - ALLOWED[package]}"


@pytest.mark.parametrize("library", FOREIGN)
def test_a_brokers_library_stays_on_the_brokers_side(library: str) -> None:
    """Above the protocols nobody knows which broker it is."""
    for package in ALLOWED:
        for path in sources(package):
            if library in {name.partition(".")[0] for name in imports(path)}:
                where = path.relative_to(ROOT).as_posix()
                assert any(where.startswith(place) for place in FOREIGN[library]), f"{where} imports {library}"


def test_only_the_settings_read_the_environment() -> None:
    """No part has a switch of its own."""
    # The guard, git and the Hub's child pass an environment on; the author of workflows has settings of its own.
    passing_on = ("app/comfy/guard", "app/prepare/author/", "app/prepare/git_clone.py", "app/storage/hub_process.py")
    allowed = ("app/settings/", "brokers/embedded.py", "app/cli/", *passing_on)
    for package in ALLOWED:
        for path in sources(package):
            where = path.relative_to(ROOT).as_posix()
            if re.search(r"os\.environ|os\.getenv", path.read_text()) and not where.startswith(allowed):
                raise AssertionError(f"{where} reads the environment")


def test_every_setting_is_in_the_operations_page() -> None:
    """Name and default, as the code has them."""
    page = (ROOT / "docs" / "operations.md").read_text()
    rows = [line for line in page.splitlines() if line.startswith("| `")]
    for name, field in Settings.model_fields.items():
        row = next((line for line in rows if f"`{name.upper()}`" in line.split("|")[1]), None)
        assert row is not None, f"{name.upper()} is not in docs/operations.md"
        default = field.default
        if isinstance(default, bool):
            assert str(default).lower() in row.split("|")[2], name
        elif isinstance(default, int | float):
            assert f"{default:g}" in row.split("|")[2], name


def test_files_have_one_job() -> None:
    """No module of the product is longer than 300 lines, no function longer than 60."""
    for path in (path for package in ALLOWED for path in sources(package)):
        text = path.read_text()
        assert len(text.splitlines()) <= 300, path
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                assert (node.end_lineno or 0) - node.lineno < 60, f"{path}: {node.name}"


def test_every_test_that_a_document_names_exists() -> None:
    """A claim in docs/ points to a test that is there."""
    for page in sorted((ROOT / "docs").glob("*.md")):
        for where, name in re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", page.read_text()):
            path = ROOT / where
            assert path.exists(), f"{page.name} names {where}"
            assert re.search(rf"def {name}\b", path.read_text()), f"{page.name} names {where}::{name}"
        for where in re.findall(r"`(tests/[\w/]+\.py)`", page.read_text()):
            assert (ROOT / where).exists(), f"{page.name} names {where}"


def test_the_architecture_page_names_every_folder() -> None:
    """And only files and folders that are there; one without a folder lies in app/worker."""
    page = (ROOT / "docs" / "architecture.md").read_text()
    for package in (*ALLOWED, "bench"):
        for path in sources(package):
            folder = path.parent.relative_to(ROOT).as_posix()
            assert f"`{folder}/" in page or folder.startswith("workflows/"), (
                f"docs/architecture.md does not name {folder}"
            )
    for named in re.findall(r"`([\w/]+(?:\.py|/))`", page):
        assert any((place / named).exists() for place in (ROOT, ROOT / "app" / "worker")), f"there is no {named}"
