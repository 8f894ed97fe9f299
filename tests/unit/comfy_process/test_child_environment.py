"""What of our environment ComfyUI gets to see."""

from __future__ import annotations

import pytest

from app.comfy.child_environment import child_environment
from app.settings import Settings

SECRET = [
    "BROKER_URL",
    "BROKER_TLS_KEY",
    "NATS_TOKEN",
    "NATS_CREDS_FILE",
    "KAFKA_SASL_USERNAME",
    "KAFKA_SASL_PASSWORD",
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AWS_REGION",
    "AZURE_STORAGE_CONNECTION_STRING",
    "AZURE_STORAGE_KEY",
    "AZURE_CLIENT_SECRET",
    "HF_TOKEN",
    "HUGGING_FACE_HUB_TOKEN",
    "WEBHOOK_SECRET",
    "SYSTEM_WEBHOOK_URL",
    "HTTP_AUTH_HEADER_NAME",
    "HTTP_AUTH_HEADER_VALUE",
    "SALAD_MACHINE_ID",
    "OUTPUT_STORE",
    "MANIFEST_JSON",
    "COMFYUI_URL",
]
NEEDED = [
    "PATH",
    "HOME",
    "LANG",
    "LC_ALL",
    "TMPDIR",
    "LD_LIBRARY_PATH",
    "LD_PRELOAD",
    "VIRTUAL_ENV",
    "CONDA_PREFIX",
    "CUDA_VISIBLE_DEVICES",
    "NVIDIA_VISIBLE_DEVICES",
    "PYTORCH_CUDA_ALLOC_CONF",
    "TORCH_HOME",
    "HIP_VISIBLE_DEVICES",
    "OMP_NUM_THREADS",
    "TOKENIZERS_PARALLELISM",
    "HF_HOME",
    "HF_HUB_OFFLINE",
    "COMFY_HOME",
    "PYTHONPATH",
    "SSL_CERT_FILE",
]


def given(environment: dict[str, str], *passed_on: str) -> dict[str, str]:
    """What ComfyUI gets."""
    return child_environment(environment, host="127.0.0.1", port=8188, passed_on=passed_on)


@pytest.mark.parametrize("name", SECRET)
def test_what_is_ours_stays_here(name: str) -> None:
    """No variable of Comfybus that is or may hold a secret passes, in any spelling and whatever is passed on."""
    for spelling in (name, name.lower()):
        assert spelling not in given({spelling: "value"})
        assert spelling not in given({spelling: "value"}, "*", spelling)


def test_every_secret_setting_stays_here() -> None:
    """No setting whose type says that it is secret passes, but for the proxies."""
    secrets = {name.upper() for name, field in Settings.model_fields.items() if "Secret" in str(field.annotation)}
    secrets -= {"HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"}
    assert "BROKER_URL" in secrets
    assert not secrets & set(given(dict.fromkeys(secrets, "value"), "*"))


@pytest.mark.parametrize("name", NEEDED)
def test_what_a_program_needs_passes(name: str) -> None:
    """Paths, locale, GPUs, threads and caches reach ComfyUI unchanged."""
    assert given({name: "value"})[name] == "value"


def test_the_unknown_stays_here() -> None:
    """A name nobody thought of does not pass: the list says what goes through, not what is held back."""
    assert "MY_APPLICATION" not in given({"MY_APPLICATION": "x"})


def test_proxies_pass_as_they_are() -> None:
    """Proxies pass in both spellings, with user info if they have it."""
    proxies = {"https_proxy": "http://user:pw@proxy:1", "HTTP_PROXY": "http://proxy:1", "no_proxy": "localhost"}
    assert proxies.items() <= given(proxies).items()


def test_values_with_user_info_stay_here() -> None:
    """A URL with a password stays here under an allowed name too."""
    assert "PIP_INDEX_URL" not in given({"PIP_INDEX_URL": "https://user:pw@index/simple"})
    assert "PIP_INDEX_URL" in given({"PIP_INDEX_URL": "https://index/simple"})


@pytest.mark.parametrize("name", ["HF_MIRROR_TOKEN", "COMFY_API_KEY", "PYTHON_KEYRING_PASSWORD", "TORCH_AUTH"])
def test_secret_words_stay_here(name: str) -> None:
    """A name with a word for a secret stays here in spite of its prefix, unless it is passed on by its full name."""
    assert name not in given({name: "value"})
    assert name not in given({name: "value"}, name[:-1] + "*")
    assert given({name: "value"}, name)[name] == "value"


def test_more_can_be_passed_on() -> None:
    """Names and globs add to what passes."""
    found = given({"MY_NODE_MODE": "1", "MY_OTHER": "2", "THIRD": "3"}, "MY_NODE_*", "THIRD")
    assert ("MY_NODE_MODE" in found, "MY_OTHER" in found, "THIRD" in found) == (True, False, True)


def test_what_it_is_told() -> None:
    """The address to listen at is told, login and tunnels are off, output is not held back in blocks."""
    found = child_environment({"WEB_ENABLE_AUTH": "true", "DIRECT_ADDRESS": "x"}, host="::1", port=1234)
    assert found == {
        "DIRECT_ADDRESS": "::1",
        "COMFYUI_PORT_HOST": "1234",
        "WEB_ENABLE_AUTH": "false",
        "CF_QUICK_TUNNELS": "false",
        "PYTHONUNBUFFERED": "1",
    }
