"""Where a request wants its outputs, and where they go when it does not say: URLs as each backend reads them.

Used by stores; may import app.errors, schemas.

``s3://`` and ``nats://`` URLs hold bucket and key verbatim, as the AWS tools write them; all others are
percent-encoded.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final
from urllib.parse import quote

from app.errors import InvalidRequest
from app.storage.cache_links import check_filename
from app.storage.faults import Fault
from app.storage.urls import check_path, parse_http
from schemas.prompt import AzureBlobUpload, HttpUpload, HuggingFaceUpload, PromptOptions, S3Upload

__all__ = ["store_url", "target_url"]

_DIGEST_LENGTH: Final = 12
_BUCKET: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,254}")
_REPO: Final = re.compile(r"(?:[A-Za-z0-9][A-Za-z0-9._-]{0,95}/)?[A-Za-z0-9][A-Za-z0-9._-]{0,95}")


def target_url(options: PromptOptions, filename: str, *, azure_account: str | None, hub: str) -> str | None:
    """The URL under which a request wants a file; None if it names no target.

    Args:
        options: The request's fields.
        filename: One path segment.
        azure_account: URL of the operator's storage account, if one is configured.
        hub: URL of the Hugging Face Hub.

    Raises:
        InvalidRequest: The target's parts make no URL, lead upwards, or need an account that is not configured; its
            location names the field.
    """
    if options.s3 is not None:
        return _s3(options.s3, filename)
    if options.azure_blob_upload is not None:
        return _azure(options.azure_blob_upload, filename, azure_account)
    if options.hf_upload is not None:
        return _hugging_face(options.hf_upload, filename, hub)
    return _http(options.http_upload, filename) if options.http_upload is not None else None


def store_url(store: str, request_id: str, sha256: str, filename: str) -> str:
    """The URL of an output in OUTPUT_STORE: ``<store>/<id>/<first 12 hex of the digest>/<file name>``.

    A second execution of a prompt that gives other bytes thus never overwrites those of the first.

    Raises:
        Fault: The file name is no plain path segment.
    """
    check_filename(filename)
    key = f"{request_id}/{sha256[:_DIGEST_LENGTH]}/{filename}"
    return f"{store.rstrip('/')}/{key if store.startswith(('s3://', 'nats://')) else quote(key)}"


@contextmanager
def _located(location: str) -> Iterator[None]:
    try:
        yield
    except Fault as exc:
        raise InvalidRequest(f"{location} makes no upload target: {exc.reason}.", location=location) from exc


def _s3(target: S3Upload, filename: str) -> str:
    with _located("s3.bucket"):
        if not _BUCKET.fullmatch(target.bucket):
            raise Fault("it is no bucket name; correct it", passing=False)
    with _located("s3.prefix"):
        check_filename(filename)
        check_path(target.prefix + filename)
    return f"s3://{target.bucket}/{target.prefix}{filename}"


def _azure(target: AzureBlobUpload, filename: str, account: str | None) -> str:
    with _located("azure_blob_upload"):
        if account is None:
            raise Fault("this worker has no Azure account; set AZURE_STORAGE_ACCOUNT", passing=False)
    with _located("azure_blob_upload.container"):
        if not _BUCKET.fullmatch(target.container) and target.container not in ("$root", "$web"):
            raise Fault("it is no container name; correct it", passing=False)
    with _located("azure_blob_upload.blob_prefix"):
        check_filename(filename)
        name = target.blob_prefix.lstrip("/") + filename
        check_path(name)
    return f"{account.rstrip('/')}/{quote(target.container)}/{quote(name)}"


def _hugging_face(target: HuggingFaceUpload, filename: str, hub: str) -> str:
    with _located("hf_upload.repo"):
        if not _REPO.fullmatch(target.repo):
            raise Fault("it is no repository such as owner/name; correct it", passing=False)
    with _located("hf_upload.revision"):
        if not target.revision.strip("/"):
            raise Fault("it is empty; name a branch", passing=False)
        check_path(target.revision)
    with _located("hf_upload.directory"):
        check_filename(filename)
        segments = [segment for segment in target.directory.split("/") if segment]
        path = "/".join([*segments, filename])
        check_path(path)
    kind = "datasets/" if target.repo_type == "dataset" else ""
    return f"{hub.rstrip('/')}/{kind}{target.repo}/resolve/{quote(target.revision, safe='')}/{quote(path)}"


def _http(target: HttpUpload, filename: str) -> str:
    with _located("http_upload.url_prefix"):
        check_filename(filename)
        parse_http(target.url_prefix)
    base = target.url_prefix.partition("#")[0]
    path, mark, query = base.partition("?")
    return f"{path.rstrip('/')}/{quote(filename, safe='')}{mark}{query}"
