"""Signatures and secrets: the vectors, the strict form, the bare form, several keys."""

from __future__ import annotations

import base64
import time

import pytest
from standardwebhooks import Webhook, WebhookVerificationError

from app.bridge.signature import Signer, read_secrets

BODY = b'{"a":1}'
STRICT = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


def vector(secret: str) -> str:
    return read_secrets(secret).sign("msg_1", 1614265330, [BODY]).removeprefix("v1,")


def test_the_vectors_of_comfyui_api() -> None:
    """A bare secret signs as comfyui-api did; the standard form signs as it should, not as comfyui-api did (D56)."""
    assert vector("testsecret") == "OwmPm9pzXGJ4yn1PUwFl8EZUCcxYKbzj6iHhvkpIrF4="
    right = "8WmO9OATkSvjxs+eEJolmK2V9ge32ryGE0kSd4GZiDY="
    assert vector("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw") == right
    assert vector(STRICT) == right
    assert vector(STRICT) != "k3tW7yLlcn/V2UGEeVc8jypmrkEYkTiVncfEc+gBEB8="


@pytest.mark.parametrize("secret", [STRICT, "testsecret", "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"])
def test_the_official_library_accepts(secret: str) -> None:
    """What is signed with a secret is accepted with the same secret by the official library, and changed it is not."""
    now = int(time.time())
    headers = {
        "webhook-id": "a1/complete",
        "webhook-timestamp": str(now),
        "webhook-signature": read_secrets(secret).sign("a1/complete", now, [BODY[:3], BODY[3:]]),
    }
    assert Webhook(secret).verify(BODY, headers) == {"a": 1}
    with pytest.raises(WebhookVerificationError):
        Webhook(secret).verify(BODY.replace(b"1", b"2"), headers)
    with pytest.raises(WebhookVerificationError):
        Webhook(secret).verify(BODY, {**headers, "webhook-id": "a2/complete"})


@pytest.mark.parametrize(
    ("secret", "key"),
    [
        ("testsecret", "b5eb2db1e72b7a"),
        ("YWJj=ZGVm", "616263"),
        ("YQ==YQ==", "61"),
        ("a b-c_d", "69bf9cfd"),
        ("YWJjZ", "616263"),
        ("my-secret!", "9b2fac79cade"),
        ("é€YWJj", "616263"),
    ],
)
def test_bare_secrets_are_decoded_as_node_does(secret: str, key: str) -> None:
    """The lenient decoding gives the bytes that Node's Buffer.from(secret, 'base64') gave for the same text."""
    signer = read_secrets(secret)
    assert signer.keys == (bytes.fromhex(key),)
    assert signer.bare


@pytest.mark.parametrize("size", [24, 32, 64])
@pytest.mark.parametrize("padded", [True, False])
def test_strict_secrets(size: int, padded: bool) -> None:
    """whsec_ and base64 of 24 to 64 bytes is a secret, with or without padding."""
    encoded = base64.b64encode(bytes(range(size))).decode()
    signer = read_secrets(f" whsec_{encoded if padded else encoded.rstrip('=')}\n")
    assert signer.keys == (bytes(range(size)),)
    assert not signer.bare


@pytest.mark.parametrize(
    "secret",
    [
        "",
        "  ",
        "!!",
        "=",
        "A",
        "whsec_",
        "whsec_hunter2",
        "whsec_my-secret!",
        "whsec_" + base64.b64encode(bytes(23)).decode(),
        "whsec_" + base64.b64encode(bytes(65)).decode(),
        "whsec_" + base64.urlsafe_b64encode(b"\xff" * 24).decode(),
        f"{STRICT},whsec_short",
    ],
)
def test_unusable_secrets_are_refused_without_being_repeated(secret: str) -> None:
    """A secret that cannot be meant is refused; the sentence does not hold it."""
    with pytest.raises(ValueError, match=r"it|behind") as caught:
        read_secrets(secret)
    assert "hunter2" not in str(caught.value)


def test_several_secrets_sign_side_by_side() -> None:
    """Each key has its own signature in the header, old ones beside new ones, in any separation."""
    for text in (f"testsecret,{STRICT}", f"testsecret {STRICT}", f"testsecret,\n {STRICT},"):
        signer = read_secrets(text)
        signatures = signer.sign("msg_1", 1614265330, [BODY]).split(" ")
        assert signatures == [f"v1,{vector('testsecret')}", f"v1,{vector(STRICT)}"]
        assert signer.bare


def test_a_signer_shows_no_keys() -> None:
    """Its representation, which may land in a log, holds no key."""
    assert "616263" not in repr(Signer((b"abc",)))
    assert "abc" not in repr(Signer((b"abc",)))
