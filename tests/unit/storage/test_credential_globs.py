"""Which credentials are for a URL."""

from __future__ import annotations

import time

import pytest

from app.storage.credentials import Glob, find_auth, http_auth
from app.storage.faults import Fault
from schemas.credentials import BasicAuth, BearerAuth, Credential, HeaderAuth, QueryAuth

# (pattern, URL, whether it fits), computed with comfyui-api's own code.
VECTORS = [
    ("https://h/*", "https://h/a", True),
    ("https://h/*", "https://h/a/b", False),
    ("https://h/**", "https://h/a/b", True),
    ("https://h/a?x=1", "https://h/aZx=1", True),
    ("https://h/*", "https://h/", True),
    ("https://h/**", "https://h", False),
    ("https://*.h/**", "https://x.h/a", True),
    ("https://h/a", "HTTPS://h/a", False),
]


@pytest.mark.parametrize(("pattern", "url", "fits"), VECTORS)
def test_vectors(pattern: str, url: str, fits: bool) -> None:
    """Patterns mean what they mean in comfyui-api."""
    assert Glob(pattern).matches(url) is fits


@pytest.mark.parametrize(
    ("pattern", "url", "fits"),
    [
        ("", "", True),
        ("", "a", False),
        ("**", "", True),
        ("*", "a/b", False),
        ("***", "a/b", True),
        ("a**b*c", "axx/xxbxxc", True),
        ("a**b*c", "axx/xxbx/xc", False),
        ("**a", "aaab", False),
        ("**a", "abca", True),
        ("a.c", "abc", False),
        ("[ab]", "a", False),
        ("?", "/", True),
        ("?", "", False),
        ("**", "a\nb", False),
    ],
)
def test_edges(pattern: str, url: str, fits: bool) -> None:
    """Nothing but stars and question marks means anything; a whole URL has to fit."""
    assert Glob(pattern).matches(url) is fits


def test_time_is_linear() -> None:
    """A pattern that stops a backtracking matcher for ever takes time in proportion to the URL."""
    glob = Glob("https://" + "**a" * 600)
    began = time.perf_counter()
    assert not glob.matches("https://" + "a" * 8_000 + "b")
    assert time.perf_counter() - began < 1


def test_first_match_wins() -> None:
    """Of several entries that fit the first is used."""
    first, second = (BearerAuth(type="bearer", token=f"token-{n}") for n in (1, 2))
    entries = [
        Credential(url_pattern="https://other/**", auth=second),
        Credential(url_pattern="https://h/**", auth=first),
        Credential(url_pattern="**", auth=second),
    ]
    assert find_auth(entries, "https://h/x") is first
    assert find_auth(entries, "ftp://h/x") is second
    assert find_auth(entries[:2], "ftp://h/x") is None
    assert find_auth(None, "https://h/x") is None


def test_what_goes_over_http() -> None:
    """Each type gives its header or parameter; line breaks and headers that frame a message are refused."""
    assert http_auth(BearerAuth(type="bearer", token="t")).headers == {"Authorization": "Bearer t"}
    basic = BasicAuth(type="basic", username="Aladdin", password="open sesame")
    # The example of RFC 7617.
    assert http_auth(basic).headers == {"Authorization": "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="}
    assert http_auth(HeaderAuth(type="header", header_name="X-Key", header_value="v")).headers == {"X-Key": "v"}
    assert http_auth(QueryAuth(type="query", query_param="k", query_value="v")).query == {"k": "v"}
    refused = [
        BearerAuth(type="bearer", token="a\r\nX-Evil: 1"),
        HeaderAuth(type="header", header_name="X-Key", header_value="a\nb"),
        HeaderAuth(type="header", header_name="Host", header_value="elsewhere"),
        HeaderAuth(type="header", header_name="Transfer-Encoding", header_value="chunked"),
    ]
    for auth in refused:
        with pytest.raises(Fault):
            http_auth(auth)
