"""A cloud's metadata service that is asked again and again whether the machine will be taken away."""

from __future__ import annotations

import asyncio
import http.client
import json
import logging
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Final
from urllib.parse import urlsplit

from rayline.errors import ConfigError
from workers.notices.base import Notice

POLL_SECONDS: Final = 1.0
TIMEOUT_SECONDS: Final = 2.0
MAX_BODY_BYTES: Final = 16_384

_log = logging.getLogger(__name__)


class InterruptionEndpoint:
    """Polls one URL, which comes from configuration only. 404: nothing yet. 200 with a time, or the word TRUE: a notice.

    Redirects are not followed: a metadata service has none. A service that does not answer, or answers otherwise, is no notice;
    it is noted once.
    """

    def __init__(self, url: str, *, headers: Mapping[str, str] | None = None, poll_seconds: float = POLL_SECONDS) -> None:
        """`headers` are sent with each question (`Metadata-Flavor: Google`). Raises ConfigError for what is not an HTTP URL."""
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ConfigError(f"the interruption endpoint {url!r} is not an http:// or https:// URL")
        self._url = url
        self._https = parts.scheme == "https"
        self._host, self._port = parts.hostname, parts.port
        self._target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        self._headers = dict(headers or {})
        self._poll_seconds = poll_seconds
        self._trouble: str | None = None

    async def run(self, give: Callable[[Notice], None], drained: asyncio.Event) -> None:  # noqa: ARG002 - nobody to answer to
        while True:
            notice = await asyncio.to_thread(self._ask)
            if notice is not None:
                give(notice)
                return
            await asyncio.sleep(self._poll_seconds)

    def _ask(self) -> Notice | None:
        make = http.client.HTTPSConnection if self._https else http.client.HTTPConnection
        connection = make(self._host, self._port, timeout=TIMEOUT_SECONDS)
        try:
            connection.request("GET", self._target, headers=self._headers)
            answer = connection.getresponse()
            status, body = answer.status, answer.read(MAX_BODY_BYTES)
        except (OSError, http.client.HTTPException) as error:
            self._note(f"does not answer: {error!r}")
            return None
        finally:
            connection.close()
        if status == http.client.NOT_FOUND:
            self._note(None)
            return None
        if status != http.client.OK:
            self._note(f"answers with status {status}")
            return None
        text = body.decode("utf-8", "replace")
        notice = read_interruption(text, now=datetime.now(UTC))
        self._note(None if notice is not None or text.strip().upper() == "FALSE" else f"answers {text[:200]!r}")
        return notice

    def _note(self, trouble: str | None) -> None:
        if trouble is not None and trouble != self._trouble:
            _log.warning("the interruption endpoint %s %s", self._url, trouble)
        self._trouble = trouble


def read_interruption(body: str, *, now: datetime) -> Notice | None:
    """The notice in a metadata service's answer: a time, JSON with a `time`, or TRUE; None for anything else.

    The time that is left is reckoned by this machine's clock, and never less than none.
    """
    text = body.strip()
    if text.upper() == "TRUE":
        return Notice("interruption endpoint")
    try:
        document = json.loads(text)
    except ValueError:
        document = {"time": text}
    when = document.get("time") if isinstance(document, dict) else None
    if not isinstance(when, str):
        return None
    try:
        end = datetime.fromisoformat(when)
    except ValueError:
        return None
    end = end if end.tzinfo is not None else end.replace(tzinfo=UTC)
    return Notice(f"interruption endpoint, for {when}", max(0.0, (end - now).total_seconds()))
