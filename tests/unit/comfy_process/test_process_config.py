"""CMD as it is written, and the pauses between starts."""

from __future__ import annotations

from typing import Any

import pytest

from app.comfy.guarded import Exit
from app.comfy.process import ProcessConfig
from app.errors import ConfigurationError


def config(command: str = "python main.py", **wishes: Any) -> ProcessConfig:
    """A config."""
    return ProcessConfig(**{"command": command, "url": "http://127.0.0.1:8188", "environment": {}, **wishes})


@pytest.mark.parametrize(
    ("command", "argv"),
    [
        ("init.sh", ["init.sh"]),
        ("python  main.py --listen", ["python", "main.py", "--listen"]),
        ("python 'my main.py' --a \"b c\"", ["python", "my main.py", "--a", "b c"]),
        (r"/opt/with\ space/python main.py", ["/opt/with space/python", "main.py"]),
        ("sh -c 'cd /x && python main.py'", ["sh", "-c", "cd /x && python main.py"]),
    ],
)
def test_quotes_are_those_of_a_shell(command: str, argv: list[str]) -> None:
    """CMD is split as a shell would, blanks in quotes kept."""
    assert config(command).argv == argv


@pytest.mark.parametrize("command", ["", "  ", "python 'main.py", 'python "main.py', "python \\"])
def test_a_wrong_command_is_named(command: str) -> None:
    """An empty CMD or one with open quotes is an error in one line that names the variable and the value."""
    with pytest.raises(ConfigurationError, match="CMD=") as caught:
        config(command)
    assert repr(command) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "host", "port"),
    [
        ("http://127.0.0.1:8188", "127.0.0.1", 8188),
        ("http://[::1]:99", "::1", 99),
        ("http://comfy", "comfy", 80),
        ("https://comfy", "comfy", 443),
    ],
)
def test_the_address_follows_from_the_url(url: str, host: str, port: int) -> None:
    """Host and port that ComfyUI is told are those it is asked at."""
    assert (config(url=url).host, config(url=url).port) == (host, port)


def test_an_address_without_a_host() -> None:
    """A URL without a host cannot be listened at."""
    with pytest.raises(ConfigurationError, match="http://host:port"):
        config(url="http://")


def test_pauses_grow_to_a_bound_with_jitter() -> None:
    """No failure, no pause; then each pause is longer than the one before it, up to the bound, and never the same."""
    patient = config(first_pause_s=1.0, longest_pause_s=60.0)
    assert patient.pause_s(0) == 0
    drawn = {failures: [patient.pause_s(failures) for _ in range(200)] for failures in (1, 2, 3, 6, 7, 10_000)}
    for failures, expected_s in {1: 1, 2: 2, 3: 4, 6: 32, 7: 60, 10_000: 60}.items():
        assert 0.75 * expected_s <= min(drawn[failures]) < max(drawn[failures]) <= 1.25 * expected_s
    assert max(drawn[1]) < min(drawn[2])
    assert max(drawn[2]) < min(drawn[3])


@pytest.mark.parametrize(
    ("before", "up_for_s", "asked", "after"),
    [
        (0, 0, False, 1),
        (4, 59, False, 5),
        (4, 61, False, 1),
        (4, 61, True, 0),
        (4, 59, True, 5),
    ],
)
def test_a_long_life_wipes_out_what_was_before(before: int, up_for_s: float, asked: bool, after: int) -> None:
    """Short lives add up, a long one starts anew, and only an end asked for after a long one is no failure."""
    assert config(stable_after_s=60.0).failures_after(before, up_for_s=up_for_s, asked=asked) == after


@pytest.mark.parametrize(
    ("code", "sentence"),
    [
        (0, "ended with exit code 0"),
        (137, "ended with exit code 137"),
        (-9, "was ended by SIGKILL"),
        (-11, "was ended by SIGSEGV"),
        (-64, "was ended by SIGRTMAX"),
        (-99, "was ended by signal 99"),
        (None, "was killed together with its guard process"),
    ],
)
def test_exits_are_told_in_words(code: int | None, sentence: str) -> None:
    """Exit codes and signals have names."""
    assert str(Exit(code)) == sentence
