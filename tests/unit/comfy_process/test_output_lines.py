"""Bytes of ComfyUI's output made into lines."""

from __future__ import annotations

import pytest

from app.comfy.output_lines import LONGEST_LINE_BYTES, OutputLines


def lines_of(*chunks: bytes) -> list[str]:
    """All lines of a stream that has ended."""
    lines = OutputLines()
    return [line for chunk in chunks for line in lines.feed(chunk)] + lines.flush()


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
def test_pieces_do_not_matter(size: int) -> None:
    """However the stream is cut into pieces, the same lines come out."""
    text = "one\ntwo wörds\r\n\n 5%\r 50%\r100%\n\x1b[31mred\x1b[0m\rover\r\nlast".encode()
    pieces = [text[at : at + size] for at in range(0, len(text), size)]
    assert lines_of(*pieces) == ["one", "two wörds", "100%", "over", "last"]


def test_a_line_comes_when_it_ends() -> None:
    """A line is handed out with its end, not before."""
    lines = OutputLines()
    assert lines.feed(b"begun") == []
    assert lines.feed(b" and ended\nnext") == ["begun and ended"]
    assert lines.flush() == ["next"]
    assert lines.flush() == []


def test_a_progress_bar_is_one_line() -> None:
    """Of a thousand steps on one line the last is left, as on a terminal."""
    assert lines_of(*[b"\r%d/1000 [===>" % step for step in range(1001)], b"\n") == ["1000/1000 [===>"]


def test_long_lines_are_cut() -> None:
    """A line without an end takes bounded memory, and what is left out is counted."""
    lines = OutputLines()
    for _ in range(100):
        assert lines.feed(b"x" * 10_000) == []
    assert len(lines._line) == LONGEST_LINE_BYTES
    assert lines.feed(b"\nnext\n") == ["x" * 4096 + " … (995904 bytes more)", "next"]


def test_nothing_moves_the_terminal_of_who_reads_the_log() -> None:
    """Colours, titles and control characters are left out; tabs stay."""
    text = b"\x1b[1;32mgreen\x1b[0m\x1b]0;title\x07\tand\x00\x08 plain\x1b(B\x9b1m\n"
    (line,) = lines_of(text)
    assert line.startswith("green\tand plain")
    assert all(character == "\t" or character.isprintable() for character in line)


def test_bytes_that_are_no_text() -> None:
    """What is not UTF-8 becomes replacement characters."""
    assert lines_of(b"a\xff\xfeb\n") == ["a\ufffd\ufffdb"]
