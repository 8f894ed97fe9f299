"""Which repository, reference and folder a URL names."""

from __future__ import annotations

import pytest

from app.setup.git_refs import NotARepository, same_repository, source_of, split_reference

GITHUB = "https://github.com/user/repo"
SHA = "a" * 40


@pytest.mark.parametrize(
    ("url", "base", "reference"),
    [
        (GITHUB, GITHUB, None),
        (f"{GITHUB}.git", f"{GITHUB}.git", None),
        ("https://gitlab.com/user/repo", "https://gitlab.com/user/repo", None),
        ("https://bitbucket.org/user/repo", "https://bitbucket.org/user/repo", None),
        (f"https://github.com/kijai/ComfyUI-KJNodes/tree/{SHA}", "https://github.com/kijai/ComfyUI-KJNodes", SHA),
        (f"{GITHUB}/tree/main", GITHUB, "main"),
        (f"{GITHUB}/tree/v1.0.0", GITHUB, "v1.0.0"),
        (f"{GITHUB}/commit/abc123def456", GITHUB, "abc123def456"),
        (f"{GITHUB}/releases/tag/v2.0.0", GITHUB, "v2.0.0"),
        ("https://gitlab.com/user/repo/-/tree/main", "https://gitlab.com/user/repo", "main"),
        ("https://gitlab.com/user/repo/-/tree/abc123def", "https://gitlab.com/user/repo", "abc123def"),
        ("https://gitlab.com/user/repo/-/commit/abc123def456", "https://gitlab.com/user/repo", "abc123def456"),
        ("https://gitlab.com/group/sub/repo/-/tree/develop", "https://gitlab.com/group/sub/repo", "develop"),
        ("https://bitbucket.org/user/repo/src/main", "https://bitbucket.org/user/repo", "main"),
        ("https://bitbucket.org/user/repo/src/develop/some/path", "https://bitbucket.org/user/repo", "develop"),
        ("https://bitbucket.org/user/repo/commits/abc123def456", "https://bitbucket.org/user/repo", "abc123def456"),
        (f"{GITHUB}@v1.0.0", GITHUB, "v1.0.0"),
        (f"{GITHUB}.git@main", f"{GITHUB}.git", "main"),
        (f"{GITHUB}@abc123def456789", GITHUB, "abc123def456789"),
        ("https://gitlab.com/user/repo@feature-branch", "https://gitlab.com/user/repo", "feature-branch"),
        (f"{GITHUB}/tree/feature-branch-name", GITHUB, "feature-branch-name"),
        (f"{GITHUB}/tree/release-1.0.0", GITHUB, "release-1.0.0"),
        ("https://github.com/user/repo.name/tree/main", "https://github.com/user/repo.name", "main"),
        ("https://github.com/user/my-awesome-repo/tree/develop", "https://github.com/user/my-awesome-repo", "develop"),
        ("https://github.com/my-org/repo/tree/main", "https://github.com/my-org/repo", "main"),
        # What stands behind the @ goes first; the others are what comfyui-api itself makes of them.
        (f"{GITHUB}/tree/main@v1.0.0", f"{GITHUB}/tree/main", "v1.0.0"),
        (f"{GITHUB}/tree/feature/x", f"{GITHUB}/tree/feature/x", None),
        (f"{GITHUB}@v1/x", f"{GITHUB}@v1/x", None),
        ("https://user:tok@github.com/o/r", "https://user:tok@github.com/o/r", None),
        ("https://github.com/u/r/src/main/x", "https://github.com/u/r", "main"),
        ("https://git.example.com/src/repo", "https://git.example.com", "repo"),
    ],
)
def test_the_forms_that_hosts_use(url: str, base: str, reference: str | None) -> None:
    """Every vector that comfyui-api's tests and behaviour give."""
    assert split_reference(url) == (base, reference)


def test_a_host_alone_is_no_repository() -> None:
    """Where the form would leave nothing to clone the URL is taken as it stands."""
    source = source_of("https://git.example.com/src/repo")
    assert (source.base, source.reference, source.folder) == ("https://git.example.com/src/repo", None, "repo")


@pytest.mark.parametrize(
    ("url", "words"),
    [
        (f"{GITHUB}@--upload-pack=evil", "no branch, tag or commit called '--upload-pack=evil'"),
        (f"{GITHUB}/tree/-x", "called '-x'"),
        (f"{GITHUB}@a..b", "called 'a..b'"),
        (f"{GITHUB}@a%20b", "called 'a b'"),
        (f"{GITHUB}@HEAD~1", "called 'HEAD~1'"),
        (f"{GITHUB}@%2Fx", "called '/x'"),
        (f"{GITHUB}@x.lock", "called"),
        (f"{GITHUB}/tree/feature/x", "write the slash as %2F"),
        ("https://github.com", "should be http"),
        ("ssh://git@github.com/o/r", "should be http"),
        ("ext::sh -c evil", "should be http"),
        ("http:///o/r", "should be http"),
        ("https://github.com/o/..", "cannot be the name of a folder"),
        ("https://github.com/o/%2e%2e", "cannot be the name of a folder"),
        ("https://github.com/o/-rf", "cannot be the name of a folder"),
        ("https://github.com/o/a%2Fb", "cannot be the name of a folder"),
        ("https://github.com/o/.git", "cannot be the name of a folder"),
        ("https://github.com/o/x.disabled", "cannot be the name of a folder"),
    ],
)
def test_what_is_no_repository_is_refused(url: str, words: str) -> None:
    """Options in disguise, references that git has not, folders that are none."""
    with pytest.raises(NotARepository, match=words):
        source_of(url)


def test_secrets_are_taken_out_of_the_address() -> None:
    """User and password are kept apart, decoded, and not shown."""
    source = source_of("https://me:p%40ss@github.com/o/r.git@main")
    assert (source.base, source.reference, source.folder) == ("https://github.com/o/r.git", "main", "r")
    assert source.user_info == "me:p@ss"
    assert "p@ss" not in repr(source)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("https://github.com/o/r", "https://github.com/o/r.git", True),
        ("https://github.com/o/r/", "http://me:x@GitHub.com/o/r", True),
        ("git@github.com:o/r.git", "https://github.com/o/r", True),
        ("ssh://git@github.com/o/r", "https://github.com/o/r", True),
        ("https://github.com/o/r", "https://github.com/p/r", False),
        ("https://github.com/o/r", "https://gitlab.com/o/r", False),
        ("https://github.com/o/r", "https://github.com/o/R", False),
        ("/srv/git/o/r.git", "https://github.com/o/r", False),
    ],
)
def test_addresses_of_one_repository(one: str, other: str, same: bool) -> None:
    """Owner, host and path decide; how it is reached does not."""
    assert same_repository(one, other) is same
