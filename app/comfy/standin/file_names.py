"""Numbered names for saved files: prefix_00001_.png, prefix_00002_.png and so on.

Used by node_types, prompt_execution; may import nothing of ours.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path


@dataclass
class SavePlace:
    """Where one call of a saving node writes: ``folder`` on disk, file ``stem``, next free ``counter``.

    ``subfolder`` is the part below the base folder as the API names it ('' for the base folder itself).
    """

    folder: Path
    stem: str
    counter: int
    subfolder: str


class FileNumbers:
    """Hands out the numbers in saved file names, one above the highest number its prefix has in the folder.

    ComfyUI lists the target folder at every call, so that it slows down as the folder fills. This one remembers the
    numbers of a folder and lists it again only when somebody else has changed it, which it sees by the folder's
    modification time. Names come out the same; saving stays fast. Not for use by several threads at once.
    """

    def __init__(self) -> None:
        """Begin without knowledge of any folder."""
        self._known: dict[Path, tuple[int, dict[str, int]]] = {}

    def place(self, prefix: str, base: Path, width: int = 0, height: int = 0) -> SavePlace:
        """Find the place for files of ``prefix`` below ``base``, creating the sub-folder that the prefix names.

        Fills in %width%, %height%, %year%, %month%, %day%, %hour%, %minute% and %second%. Raises RuntimeError,
        with the words ComfyUI uses, when the prefix leads out of ``base``.
        """
        if "%" in prefix:
            prefix = _fill_in(prefix, width, height)
        subfolder, stem = os.path.split(os.path.normpath(prefix))
        folder = Path(os.path.abspath(os.path.join(base, subfolder)))  # noqa: PTH100, PTH118 - must collapse ".."
        if os.path.commonpath((base, folder)) != str(base):
            msg = (
                "**** ERROR: Saving image outside the output folder is not allowed."
                f"\n full_output_folder: {folder}\n         output_dir: {base}"
                f"\n         commonpath: {os.path.commonpath((base, folder))}"
            )
            raise RuntimeError(msg)
        folder.mkdir(parents=True, exist_ok=True)
        return SavePlace(folder, stem, self._numbers(folder).get(stem, 0) + 1, subfolder)

    def written(self, place: SavePlace, names: list[str]) -> None:
        """Take note of the files just written to ``place``, so that the folder need not be listed next time."""
        numbers = self._known[place.folder][1]
        for name in names:
            _count(name, numbers)
        self._known[place.folder] = (place.folder.stat().st_mtime_ns, numbers)

    def _numbers(self, folder: Path) -> dict[str, int]:
        changed = folder.stat().st_mtime_ns
        known = self._known.get(folder)
        if known is not None and known[0] == changed:
            return known[1]
        numbers: dict[str, int] = {}
        for name in os.listdir(folder):  # noqa: PTH208 - only the names are wanted, and there can be many
            _count(name, numbers)
        self._known[folder] = (changed, numbers)
        return numbers


def _count(name: str, numbers: dict[str, int]) -> None:
    """Raise in ``numbers`` the highest number of every prefix that ``name`` can belong to.

    Any underscore may end the prefix: a_7_00003_.png counts as 7 for the prefix "a" and as 3 for "a_7".
    """
    end = name.find("_")
    while end >= 0:
        text = name[end + 1 :].split("_", 1)[0]
        try:
            number = int(text)
        except ValueError:
            number = 0
        prefix = name[:end]
        if number > numbers.get(prefix, -1):
            numbers[prefix] = number
        end = name.find("_", end + 1)


def _fill_in(prefix: str, width: int, height: int) -> str:
    now = time.localtime()
    for mark, value in (
        ("%width%", str(width)),
        ("%height%", str(height)),
        ("%year%", str(now.tm_year)),
        ("%month%", f"{now.tm_mon:02}"),
        ("%day%", f"{now.tm_mday:02}"),
        ("%hour%", f"{now.tm_hour:02}"),
        ("%minute%", f"{now.tm_min:02}"),
        ("%second%", f"{now.tm_sec:02}"),
    ):
        prefix = prefix.replace(mark, value)
    return prefix
