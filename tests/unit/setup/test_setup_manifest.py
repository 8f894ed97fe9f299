"""The manifest: what it may hold, and how a fault is named."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from app.errors import ConfigurationError
from app.settings import load_settings
from app.settings.setup import read_settings_manifest, setup_config
from app.setup.manifest import Manifest
from app.setup.manifest_file import WrongManifest, parse_manifest, read_manifest

FULL = """\
apt:
  - git-lfs
  - libgl1=1.6.0-1+b1
  - libc6:i386
pip:
  - numpy==2.1
  - "torch>=2; python_version > '3'"
custom_nodes:
  - comfyui-impact-pack
  - comfyui-impact-pack-two@1.2.3
  - https://github.com/owner/pack/tree/main
models:
  before_start:
    - url: https://host.example/a.safetensors?token=x
      local_path: models/checkpoints/a.safetensors
      sha256: 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08
  after_start:
    - url: s3://bucket/some key.safetensors
      local_path: /opt/ComfyUI/models/loras/b.safetensors
"""


def test_a_full_manifest_in_both_languages(tmp_path: Path) -> None:
    """YAML and JSON of the same content are the same manifest."""
    import yaml

    (tmp_path / "m.yml").write_text(FULL)
    (tmp_path / "m.JSON").write_text("\ufeff" + json.dumps(yaml.safe_load(FULL), indent="\t"))
    found = read_manifest(tmp_path / "m.yml")
    assert found == read_manifest(tmp_path / "m.JSON")
    assert found.apt == ("git-lfs", "libgl1=1.6.0-1+b1", "libc6:i386")
    assert found.models.after_start[0].local_path == "/opt/ComfyUI/models/loras/b.safetensors"
    assert [source.folder for source in found.sources] == ["pack"]


@pytest.mark.parametrize("text", ["", "{}", "apt:\npip:\ncustom_nodes:\nmodels:\n", "models:\n  before_start:\n"])
def test_every_section_may_be_missing_or_empty(text: str) -> None:
    """Nothing is installed then."""
    assert parse_manifest(text, json_only=False) == Manifest()


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("apt:\n  - git\n  - --allow-x\n", "apt[1] (line 3): it should be the name of a Debian package"),
        ("apt: [git ; rm]\n", "apt[0] (line 1): it should be the name of a Debian package"),
        ("apt: git\n", "apt (line 1): it should be a list"),
        ("pip:\n- 3\n", "pip[0] (line 2): it should be a text"),
        ("pip: ['--index-url=x']\n", "pip[0] (line 1): it should be a requirement"),
        ("custom_nodes: [-x]\n", "custom_nodes[0] (line 1): it should be a name in the node registry"),
        ("custom_nodes: [all]\n", "custom_nodes[0] (line 1): it should be a name in the node registry"),
        ("custom_nodes: [git@github.com:o/r]\n", "custom_nodes[0] (line 1): it should be a name"),
        ("custom_nodes: ['https://h/o/r@-x']\n", "custom_nodes[0] (line 1): the URL cannot be used: git has no"),
        ("models:\n  before_start:\n    - url: x\n", "models.before_start[0].url (line 3): it should be a URL"),
        (
            "models:\n  before_start:\n    - url: https://h/x\n",
            "models.before_start[0].local_path (line 3): it is miss",
        ),
        ("models: [1]\n", "models (line 1): it should be an object with named fields"),
        ("modles: {}\n", "modles (line 1): there is no such field"),
        ("apt: []\napt: []\n", "apt (line 2): it stands there twice"),
        ("apt: [\n", "it is not valid YAML: expected the node content, but found '<stream end>' (line 2)"),
        ("- apt\n", "it should be an object with named fields"),
    ],
)
def test_a_fault_has_its_field_and_line(text: str, fault: str) -> None:
    """What is wrong, where, and what it should be."""
    with pytest.raises(WrongManifest) as wrong:
        parse_manifest(text, json_only=False)
    assert str(wrong.value.faults[0]).startswith(fault)


def test_every_fault_is_found_in_the_order_of_the_text() -> None:
    """One look at a broken manifest is enough; a digest has 64 digits, a path names a file."""
    item = "    - {url: 'https://h/x', local_path: %s, sha256: %s}\n"
    text = "models:\n  before_start:\n" + item % ("models/", "'12'") + item % ("x/..", "ff") + "pip: [-r x]\n"
    with pytest.raises(WrongManifest) as wrong:
        parse_manifest(text, json_only=False)
    assert [(fault.field, fault.line) for fault in wrong.value.faults] == [
        ("models.before_start[0].local_path", 3),
        ("models.before_start[0].sha256", 3),
        ("models.before_start[1].local_path", 4),
        ("models.before_start[1].sha256", 4),
        ("pip[0]", 5),
    ]


def test_a_json_file_is_read_as_json(tmp_path: Path) -> None:
    """What is YAML only is refused in a .json file, with its line."""
    path = tmp_path / "m.json"
    path.write_text('{\n"apt": ["git",]}')
    with pytest.raises(WrongManifest, match=r"it is not valid JSON: .* \(line 2\)"):
        read_manifest(path)


@pytest.mark.parametrize(("name", "content"), [("m.txt", b""), ("gone.yaml", None), ("m.yaml", b"\xff\xfe\x00")])
def test_a_file_that_cannot_be_read(tmp_path: Path, name: str, content: bytes | None) -> None:
    """Its ending, its absence, its encoding: one sentence each."""
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(WrongManifest, match=r"its name should end|it cannot be read|not UTF-8"):
        read_manifest(tmp_path / name)


def test_what_would_be_in_one_place_is_refused() -> None:
    """Equal names of other owners, two references of one repository, two URLs for one path."""
    for nodes, words in (
        (["https://h/a/pack", "https://h/b/Pack.git"], "different repositories for one folder"),
        (["https://h/a/pack@x", "https://h/a/pack@y"], "different references for one folder"),
    ):
        with pytest.raises(WrongManifest, match=words):
            parse_manifest(json.dumps({"custom_nodes": nodes}), json_only=True)
    item = {"local_path": "models/a"}
    models = {"before_start": [{"url": "https://h/1", **item}], "after_start": [{"url": "https://h/2", **item}]}
    with pytest.raises(WrongManifest, match="two URLs are wanted at models/a"):
        parse_manifest(json.dumps({"models": models}), json_only=True)
    parse_manifest(json.dumps({"custom_nodes": ["https://h/a/pack"] * 2}), json_only=True)


def test_settings_name_the_manifest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """MANIFEST_JSON goes before MANIFEST; a fault is one line that names the variable, and shows no secret."""
    monkeypatch.chdir(tmp_path)
    assert setup_config(load_settings()) is None
    (tmp_path / "m.yaml").write_text("apt: [one]\n")
    monkeypatch.setenv("MANIFEST", "m.yaml")
    found = read_settings_manifest(load_settings())
    assert found is not None
    assert found.apt == ("one",)
    monkeypatch.setenv("MANIFEST_JSON", '{"apt": ["two"]}')
    found = read_settings_manifest(load_settings())
    assert found is not None
    assert found.apt == ("two",)
    secret = '{"models": {"before_start": [{"url": "ftp://u:topsecret@h/x", "local_path": "a", "b": 1}]}}'
    monkeypatch.setenv("MANIFEST_JSON", secret)
    with pytest.raises(ConfigurationError, match=r"MANIFEST_JSON is wrong: models.*\(and 1 more\)") as wrong:
        setup_config(load_settings())
    assert "topsecret" not in str(wrong.value)
    monkeypatch.delenv("MANIFEST_JSON")
    (tmp_path / "m.yaml").write_text("apt: [-x]\n")
    with pytest.raises(ConfigurationError, match=r"MANIFEST=m.yaml is wrong: apt\[0\] \(line 1\)"):
        setup_config(load_settings())


def test_the_manifests_in_the_documents_are_good() -> None:
    """What docs/deployment.md shows can be copied."""
    import re

    page = (Path(__file__).parents[3] / "docs" / "deployment.md").read_text()
    (text,) = re.findall(r"```yaml\n(apt:.*?)```", page, re.DOTALL)
    found = parse_manifest(text, json_only=False)
    assert all((found.apt, found.pip, found.custom_nodes, found.models.before_start, found.models.after_start))
    assert [source.reference for source in found.sources] == [None, "v1.2.0"]
