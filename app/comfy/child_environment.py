"""What of our environment ComfyUI gets to see, and with it every custom node: nothing that is secret.

Used by process, app.settings.setup; may import nothing of ours.

A list of what is let through, not of what is held back: a secret whose name nobody thought of stays here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Final

__all__ = ["child_environment"]

# To find itself, its libraries, a place for temporary files and the way out.
_KEPT: Final = frozenset({
    *("PATH", "HOME", "USER", "LOGNAME", "SHELL", "HOSTNAME", "LANG", "LANGUAGE", "TZ", "TERM", "COLUMNS"),
    *("TMPDIR", "TEMP", "TMP", "VIRTUAL_ENV", "LD_LIBRARY_PATH", "LD_PRELOAD", "LIBRARY_PATH", "CPATH", "CC", "CXX"),
    *("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "DISPLAY", "WAYLAND_DISPLAY"),
})  # fmt: skip
_PROXIES: Final = frozenset({"HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "FTP_PROXY", "NO_PROXY"})
_KEPT_PREFIXES: Final = (
    *("LC_", "XDG_", "PYTHON", "CONDA_", "PIP_", "UV_", "COMFY_", "COMFYUI_"),
    # GPUs
    *("CUDA_", "CUDNN_", "CUBLAS_", "NVIDIA_", "NV_", "NCCL_", "ROCM_", "ROCR_", "HIP_", "HSA_", "AMD_", "MIOPEN_"),
    *("GPU_", "ONEAPI_", "SYCL_", "ZE_", "IPEX_", "UR_", "MESA_", "LIBGL_", "GALLIUM_", "EGL_", "PYOPENGL_"),
    # numbers, threads and memory
    *("PYTORCH_", "TORCH", "TRITON_", "XFORMERS_", "XLA_", "JAX_", "TF_", "OMP_", "GOMP_", "KMP_", "MKL_"),
    *("OPENBLAS_", "NUMEXPR_", "NUMBA_", "MALLOC_", "MIMALLOC_", "TCMALLOC_", "OPENCV_", "FFMPEG_", "IMAGEIO_"),
    # model libraries and their caches
    *("HF_", "HUGGINGFACE_", "TRANSFORMERS_", "DIFFUSERS_", "TOKENIZERS_", "ACCELERATE_", "BITSANDBYTES_"),
)
# Ours, whatever else is said about them.
_OURS: Final = frozenset({
    *("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HUGGINGFACE_HUB_TOKEN", "OUTPUT_STORE", "MANIFEST_JSON", "COMFYUI_URL"),
})  # fmt: skip
_OUR_PREFIXES: Final = (
    *(
        "BROKER_",
        "NATS_",
        "KAFKA_",
        "AWS_",
        "AZURE_",
        "HTTP_AUTH_",
        "WEBHOOK",
        "OTEL_",
        "SYSTEM_",
        "PROMPT_WEBHOOK_",
        "SALAD_",
        "WARMUP_",
    ),
)
_SECRET_WORDS: Final = frozenset({
    *("TOKEN", "TOKENS", "SECRET", "SECRETS", "PASSWORD", "PASSWD", "PASS", "PASSPHRASE", "CREDENTIAL", "CREDENTIALS"),
    *("KEY", "KEYS", "APIKEY", "AUTH", "PRIVATE", "SAS", "SIGNATURE", "COOKIE", "DSN"),
})  # fmt: skip
_USER_INFO: Final = re.compile(r"://[^/\s?#]*@")


def child_environment(
    environment: Mapping[str, str], *, host: str, port: int, passed_on: Sequence[str] = ()
) -> dict[str, str]:
    """The environment of ComfyUI.

    Kept are the names a program needs to run, those of GPUs, Python, model libraries and proxies. Of these, names with
    a word like TOKEN, KEY or PASSWORD, and values that are URLs with user info (but for proxies, which are needed as
    they are), stay behind.

    Args:
        environment: Ours.
        host: Where ComfyUI is to listen, ``DIRECT_ADDRESS`` for it.
        port: Its port, ``COMFYUI_PORT_HOST``.
        passed_on: Further names, or globs, to let through. A name with a secret word has to be given in full; no entry
            lets through what is Comfybus' own.
    """
    kept = {name: value for name, value in environment.items() if _passes(name, value, passed_on)}
    kept.setdefault("PYTHONUNBUFFERED", "1")  # else what it prints arrives in blocks, or after a crash not at all
    return {
        **kept,
        "DIRECT_ADDRESS": host,
        "COMFYUI_PORT_HOST": str(port),
        "WEB_ENABLE_AUTH": "false",
        "CF_QUICK_TUNNELS": "false",
    }


def _passes(name: str, value: str, passed_on: Sequence[str]) -> bool:
    upper = name.upper()
    if upper in _OURS or upper.startswith(_OUR_PREFIXES):
        return False
    if upper in _PROXIES or name in passed_on:
        return True
    if not _SECRET_WORDS.isdisjoint(upper.split("_")) or _USER_INFO.search(value):
        return False
    wanted = name in _KEPT or name.startswith(_KEPT_PREFIXES)
    return wanted or any(fnmatchcase(name, pattern) for pattern in passed_on)
