"""Why the Hub refuses, by the codes of its ``X-Error-Code`` header: cause and cure; none of them passes by waiting.

Used by hub_child, huggingface; may import nothing of ours.
"""

from __future__ import annotations

from typing import Final

__all__ = ["HUB_REASONS"]

HUB_REASONS: Final = {
    "GatedRepo": "the repository is gated; accept its conditions on the Hub and send a token",
    "DisabledRepo": "the Hub has disabled the repository",
    "RepoNotFound": "there is no such repository, or the token may not see it; correct them",
    "RevisionNotFound": "the repository has no such revision; correct it",
    "EntryNotFound": "the repository has no such file in this revision; correct the path",
}
