"""Whether anybody listens where ComfyUI should: the one sign that it has died rather than stalls.

Used by whereabouts; may import nothing of ours.
"""

from __future__ import annotations

from urllib.parse import urlsplit

import anyio

__all__ = ["refuses_connections"]

CONNECT_WITHIN_S = 2.0


async def refuses_connections(url: str) -> bool:
    """True only if the host answers that nobody listens at the port; silence proves nothing."""
    parts = urlsplit(url)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    try:
        with anyio.fail_after(CONNECT_WITHIN_S):
            stream = await anyio.connect_tcp(parts.hostname or "127.0.0.1", port)
    except ConnectionRefusedError:
        return True
    except OSError as exc:
        # anyio tries every address of a name and raises one group for all of them.
        cause = exc.__cause__
        causes = cause.exceptions if isinstance(cause, BaseExceptionGroup) else (cause,)
        return all(isinstance(each, ConnectionRefusedError) for each in causes)
    await stream.aclose()
    return False
