"""A store behind any web server: read by GET, from an offset by a range. Written to as a folder, on the server's side."""

from __future__ import annotations

import http.client
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any, BinaryIO, Final, cast
from urllib.parse import urlsplit, urlunsplit

from rayline.errors import NotInStore, StoreError
from runtime_env.bundle import MAX_MANIFEST_BYTES
from runtime_env.model_release import SignedModel
from runtime_env.peers.metainfo import BlobMetainfo
from runtime_env.signing import SignedBundle
from runtime_env.store.protocol import (
    INDEX,
    ManifestEntry,
    ModelEntry,
    blob_path,
    checked_manifest,
    checked_metainfo,
    checked_model,
    metainfo_path,
    read_index,
    resolve,
)
from runtime_env.store.reading import ToldReads

TIMEOUT_SECONDS: Final = 30.0


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """A store's address is a setting: a server must not send its readers elsewhere (to a metadata service, say)."""

    def redirect_request(self, req: Any, fp: IO[bytes], code: int, msg: str, headers: Any, newurl: str) -> None:  # noqa: ARG002
        raise urllib.error.HTTPError(req.full_url, code, "redirects are not followed: name the final address", headers, fp)


class HttpStore:
    """Reads a store over HTTP(S). Owns no connection between calls; a user and password in the address are sent, never shown."""

    def __init__(self, *, url: str, timeout_seconds: float = TIMEOUT_SECONDS) -> None:
        parts = urlsplit(url.rstrip("/"))
        self._base = urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))
        self._timeout_seconds = timeout_seconds
        handlers: list[Any] = [_NoRedirects()]
        if parts.username:
            passwords = urllib.request.HTTPPasswordMgrWithPriorAuth()
            passwords.add_password(None, self._base, parts.username, parts.password or "", is_authenticated=True)
            handlers.append(urllib.request.HTTPBasicAuthHandler(passwords))
        self._opener = urllib.request.build_opener(*handlers)

    @property
    def url(self) -> str:
        return self._base

    def entries(self) -> list[ManifestEntry]:
        return read_index(self._read(INDEX))[0]

    def model_entries(self) -> list[ModelEntry]:
        return read_index(self._read(INDEX))[1]

    def get_model(self, entry: ModelEntry) -> SignedModel:
        return checked_model(self._read(entry.path), entry)

    def get_manifest(self, ref: str) -> SignedBundle:
        entry = resolve(self.entries(), ref, self.url)
        return checked_manifest(self._read(entry.path), entry)

    def has_blob(self, digest: str) -> bool:
        try:
            self._open(blob_path(digest), method="HEAD").close()
        except NotInStore:
            return False
        return True

    def open_blob(self, digest: str, offset: int = 0, length: int | None = None) -> BinaryIO:
        answer = self._open(blob_path(digest), offset=offset, length=length)
        if offset and answer.status != http.HTTPStatus.PARTIAL_CONTENT:
            answer.close()
            raise StoreError(f"{self.url} answers a range with {answer.status}: its server must support ranges")
        return cast(BinaryIO, ToldReads(file=cast(BinaryIO, answer), telling=self._telling))

    def get_metainfo(self, digest: str) -> BlobMetainfo:
        return checked_metainfo(self._read(metainfo_path(digest)), digest)

    def _read(self, path: str) -> bytes:
        with self._open(path) as answer, self._telling():
            data: bytes = answer.read(MAX_MANIFEST_BYTES + 1)
        if len(data) > MAX_MANIFEST_BYTES:
            raise StoreError(f"{self.url}/{path} is larger than {MAX_MANIFEST_BYTES} bytes")
        return data

    @contextmanager
    def _telling(self) -> Iterator[None]:
        try:
            yield
        except (OSError, http.client.HTTPException) as error:
            raise StoreError(f"{self.url}: the transfer broke off: {type(error).__name__}: {error}; try again") from error

    def _open(self, path: str, *, method: str = "GET", offset: int = 0, length: int | None = None) -> http.client.HTTPResponse:
        request = urllib.request.Request(f"{self._base}/{path}", method=method)
        if offset or length is not None:
            request.add_header("Range", f"bytes={offset}-{'' if length is None else offset + length - 1}")
        try:
            answer: http.client.HTTPResponse = self._opener.open(request, timeout=self._timeout_seconds)
        except urllib.error.HTTPError as error:
            error.close()
            if error.code in (http.HTTPStatus.NOT_FOUND, http.HTTPStatus.GONE):
                raise NotInStore(f"{self.url} has no {path}") from error
            raise StoreError(f"{self.url}/{path}: {error.code} {error.reason}") from error
        except (OSError, http.client.HTTPException) as error:
            raise StoreError(f"{self.url} does not answer: {error}; start it, or correct the address") from error
        return answer
