"""HTTP_PROXY, HTTPS_PROXY and NO_PROXY are honoured by every backend."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable
from pathlib import Path

import pytest

from app.errors import InputRefused, InputUnavailable
from app.storage.cache_locks import Hold
from app.storage.config import ProxyConfig
from tests.contract.storage.conftest import HTTP_PLACES, Access, Open
from tests.support.services.places import Place
from tests.support.services.process import free_ports
from tests.support.services.raw_server import run_forward_proxy
from tests.support.services.web_files import WebFiles

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("place", HTTP_PLACES, indirect=True)
async def test_every_backend(place: Place, opened: Open, make_file: Callable[[int], Path]) -> None:
    """Uploads and downloads of every backend pass the proxy, with its password, which the target never sees."""
    source = make_file(2_000_000)
    seen: list[str] = []
    with run_forward_proxy(seen) as port:
        proxies = ProxyConfig(http=f"http://ada:canary@127.0.0.1:{port}")
        async with opened(place.access(), proxies=proxies) as stores:
            url = await stores.put(source, place.url("proxied.bin"))
            uploads = len(seen)
            with Hold() as hold:
                assert (await stores.fetch(url, in_use=hold)).path.read_bytes() == source.read_bytes()
        assert 0 < uploads < len(seen)
        assert all(b64encode(b"ada:canary").decode() in head for head in seen)
        assert "canary" not in repr(stores.told)


@pytest.mark.parametrize("place", HTTP_PLACES, indirect=True)
async def test_no_proxy(place: Place, opened: Open, make_file: Callable[[int], Path]) -> None:
    """Hosts of NO_PROXY are reached directly."""
    source = make_file(2_000_000)
    [dead] = free_ports(1)
    proxies = ProxyConfig(http=f"http://127.0.0.1:{dead}", no_proxy="127.0.0.1,localhost")
    async with opened(place.access(), proxies=proxies) as stores:
        url = await stores.put(source, place.url("direct.bin"))
        with Hold() as hold:
            assert (await stores.fetch(url, in_use=hold)).path.read_bytes() == source.read_bytes()


async def test_a_proxy_is_no_way_in(web: WebFiles, opened: Open) -> None:
    """Through a proxy literal private addresses and names of this machine stay forbidden, and the proxy itself too."""
    seen: list[str] = []
    with run_forward_proxy(seen) as port:
        async with opened(Access(), proxies=ProxyConfig(http=f"http://127.0.0.1:{port}")) as stores:
            for host in (f"127.0.0.1:{web.port}", f"localhost:{web.port}", f"127.0.0.1:{port}", "169.254.169.254"):
                with pytest.raises(InputRefused, match="ALLOWED_PRIVATE_HOSTS"), Hold() as hold:
                    await stores.fetch(f"http://{host}/open/x", in_use=hold)
    assert not seen


async def test_a_proxy_that_is_down(web: WebFiles, opened: Open) -> None:
    """A proxy that does not answer is named as the cause, without its password."""
    [dead] = free_ports(1)
    access = Access({"allowed_private_hosts": ("127.0.0.1",)})
    async with opened(access, proxies=ProxyConfig(http=f"http://ada:canary@127.0.0.1:{dead}")) as stores:
        with pytest.raises(InputUnavailable, match="HTTP_PROXY") as caught, Hold() as hold:
            await stores.fetch(f"{web.url}/open/x", in_use=hold)
    assert "canary" not in str(caught.value)
