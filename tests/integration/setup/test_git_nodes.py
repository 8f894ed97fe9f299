"""Custom nodes from repositories: every way to name a revision, moved when asked to, never mixed up."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from app.setup.git_nodes import GitNodes
from app.setup.git_refs import source_of
from app.setup.programs import Programs, SetupFailed
from app.setup.record import Record
from tests.integration.setup.sources import Machine, Repository, Sources, git

pytestmark = pytest.mark.anyio


class Nodes:
    """The clones of one ComfyUI."""

    def __init__(self, machine: Machine, home: Path) -> None:
        self.machine = machine
        self.folder = home / "custom_nodes"
        self.record = Record(home / ".comfybus")

    async def install(self, url: str) -> Path:
        """As a new start of the worker does."""
        await self.record.load()
        programs = Programs(self.machine.environment(), 60)
        return await GitNodes(programs, self.record, self.folder).install(source_of(url))


@pytest.fixture
def nodes(machine: Machine, home: Path) -> Nodes:
    return Nodes(machine, home)


@pytest.fixture
def pack(sources: Sources) -> Repository:
    return sources.repository("anna/pack")


def head(folder: Path) -> str:
    return git("rev-parse", "HEAD", cwd=folder)


@pytest.mark.parametrize(
    ("written", "wanted"),
    [
        ("", "last"),
        pytest.param(".git", "last", marks=pytest.mark.full),
        pytest.param("@v1.0.0", "first", marks=pytest.mark.full),
        (".git@side", "side"),
        pytest.param("@{first}", "first", marks=pytest.mark.full),
        pytest.param("/tree/side", "side", marks=pytest.mark.full),
        pytest.param("/tree/{first}", "first", marks=pytest.mark.full),
        ("/commit/{first}", "first"),
        ("/commit/{short}", "first"),
        pytest.param("/releases/tag/v1.0.0", "first", marks=pytest.mark.full),
        pytest.param("/-/tree/side", "side", marks=pytest.mark.full),
        pytest.param("/-/commit/{first}", "first", marks=pytest.mark.full),
        pytest.param("/src/side/some/path", "side", marks=pytest.mark.full),
        pytest.param("/commits/{first}", "first", marks=pytest.mark.full),
        pytest.param("/tree/feature%2Fx", "feature", marks=pytest.mark.full),
    ],
)
async def test_every_way_to_name_a_revision(
    nodes: Nodes, pack: Repository, sources: Sources, written: str, wanted: str
) -> None:
    """Each form checks out its commit, whole and abbreviated ids included; ComfyUI sees one finished folder."""
    git("branch", "feature/x", pack.first, cwd=pack.path)
    url = f"{sources.url}/git/anna/pack" + written.format(first=pack.first, short=pack.first[:12])
    # A host answers for the name with and without its ending.
    (sources.folder / "anna" / "pack").symlink_to(pack.path)
    folder = await nodes.install(url)
    assert head(folder) == {"first": pack.first, "side": pack.side, "last": pack.last, "feature": pack.first}[wanted]
    assert sorted(path.name for path in nodes.folder.iterdir()) == ["pack"]
    assert git("status", "--porcelain", cwd=folder) == ""


async def test_what_is_done_is_not_done_again(nodes: Nodes, pack: Repository, sources: Sources) -> None:
    """A second start runs no git at all, also when the branch has moved on."""
    url = f"{sources.url}/git/anna/pack.git@main"
    folder = await nodes.install(url)
    nodes.machine.forget()
    pack.commit({"of.txt": "newer"})
    await nodes.install(url)
    assert nodes.machine.calls == []
    assert head(folder) == pack.last


async def test_another_revision_moves_the_clone_and_keeps_what_git_does_not_track(
    nodes: Nodes, pack: Repository, sources: Sources
) -> None:
    """A changed manifest brings the clone to the new commit; weights that the node has fetched stay."""
    url = f"{sources.url}/git/anna/pack.git"
    folder = await nodes.install(f"{url}@v1.0.0")
    (folder / "weights.bin").write_bytes(b"fetched by the node")
    (folder / "of.txt").write_text("changed by hand")
    # What a git that was killed leaves behind.
    (folder / ".git" / "index.lock").touch()
    await nodes.install(f"{url}@side")
    assert head(folder) == pack.side
    assert (folder / "of.txt").read_text() == "anna"
    assert (folder / "weights.bin").exists()


async def test_a_commit_older_than_what_was_fetched_is_found(nodes: Nodes, pack: Repository, sources: Sources) -> None:
    """From a clone of one commit the way leads back to an older one, by its abbreviated id."""
    url = f"{sources.url}/git/anna/pack.git"
    folder = await nodes.install(f"{url}@main")
    await nodes.install(f"{url}@{pack.first[:10]}")
    assert head(folder) == pack.first


async def test_equal_names_of_other_owners_are_never_mixed_up(nodes: Nodes, pack: Repository, sources: Sources) -> None:
    """Our own clone follows the manifest to another owner; somebody else's is refused with both addresses."""
    bert = sources.repository("bert/pack")
    folder = await nodes.install(f"{sources.url}/git/anna/pack.git")
    await nodes.install(f"{sources.url}/git/bert/pack.git")
    assert (head(folder), (folder / "of.txt").read_text()) == (bert.last, "bert")
    assert git("remote", "get-url", "origin", cwd=folder) == f"{sources.url}/git/bert/pack.git"
    shutil.rmtree(folder)
    git("clone", "-q", str(pack.path), str(folder), cwd=sources.folder)
    with pytest.raises(SetupFailed, match=r"is a clone of .*, not of .*remove"):
        await nodes.install(f"{sources.url}/git/bert/pack.git@side")
    assert head(folder) == pack.last


async def test_a_clone_made_by_hand_is_used(nodes: Nodes, pack: Repository, sources: Sources) -> None:
    """A clone of the same repository stays as it is without a reference, and is moved, not forced, with one."""
    url = f"{sources.url}/git/anna/pack.git"
    folder = nodes.folder / "pack"
    git("clone", "-q", str(pack.path), str(folder), cwd=sources.folder)
    git("remote", "set-url", "origin", url.removesuffix(".git"), cwd=folder)
    git("checkout", "-q", "--detach", pack.first, cwd=folder)
    await nodes.install(url)
    assert head(folder) == pack.first
    (folder / "__init__.py").write_text("changed by hand")
    with pytest.raises(SetupFailed, match="commit your changes"):
        await nodes.install(f"{url}@side")
    git("checkout", "-q", "--", ".", cwd=folder)
    await nodes.install(f"{url}@side")
    assert head(folder) == pack.side


async def test_a_folder_that_is_no_clone_is_refused(nodes: Nodes, pack: Repository, sources: Sources) -> None:
    """Files put there by hand are not touched; the sentence says what to do."""
    (nodes.folder / "pack").mkdir()
    (nodes.folder / "pack" / "mine.py").touch()
    with pytest.raises(SetupFailed, match="is no clone"):
        await nodes.install(f"{sources.url}/git/anna/pack.git")
    assert [path.name for path in (nodes.folder / "pack").iterdir()] == ["mine.py"]


async def test_a_failed_clone_leaves_nothing_and_is_tried_again(nodes: Nodes, sources: Sources) -> None:
    """A repository that is not there yet fails with git's words, and works at the next start."""
    url = f"{sources.url}/git/anna/late.git"
    with pytest.raises(SetupFailed, match=r"custom node late: git ended with exit code 128: .*not found") as failed:
        await nodes.install(url)
    assert failed.value.output
    assert list(nodes.folder.iterdir()) == []
    late = sources.repository("anna/late")
    assert head(await nodes.install(url)) == late.last
    with pytest.raises(SetupFailed, match="no branch, tag or commit 'nowhere'"):
        await nodes.install(f"{url}@nowhere")


async def test_user_and_password_go_to_git_and_nowhere_else(nodes: Nodes, sources: Sources) -> None:
    """A private repository is cloned; no secret is in the log, in arguments, in the clone or in the record."""
    private = sources.repository("private/pack")
    user, _, password = sources.user.partition(":")
    address = sources.url.replace("http://", f"http://{user}:{password}@")
    with capture_logs() as logs:
        folder = await nodes.install(f"{address}/git/private/pack.git@main")
        assert head(folder) == private.last
        sources.user = "robot:other-password"
        with pytest.raises(SetupFailed) as failed:
            await nodes.install(f"{address}/git/private/pack.git@side")
    kept = [folder / ".git" / "config", folder.parents[1] / ".comfybus" / "setup.json"]
    told = [str(logs), str(failed.value), str(failed.value.output), *nodes.machine.calls]
    assert not [text for text in (*told, *(path.read_text() for path in kept)) if password in text]


async def test_a_server_of_plain_files_will_do(nodes: Nodes, pack: Repository, sources: Sources) -> None:
    """Where a server cannot hand out one commit alone everything is fetched instead."""
    git("update-server-info", cwd=pack.path)
    assert head(await nodes.install(f"{sources.url}/dumb/anna/pack.git@side")) == pack.side
