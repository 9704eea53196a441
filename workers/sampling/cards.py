"""Accelerator cards: what kind they are and how busy. Nothing is tried where no card can be asked."""

from __future__ import annotations

import logging
import shutil
import subprocess
import time
from collections.abc import Sequence
from typing import Final, Protocol

from rayline.reports import CardLoad

QUERY_SECONDS: Final = 5.0
TIMEOUT_SECONDS: Final = 2.0
_log = logging.getLogger(__name__)


class Cards(Protocol):
    """The cards of one machine."""

    def read(self) -> tuple[CardLoad, ...]:
        """As they are now, or a few seconds ago; may block for a moment."""


class NoCards:
    """A machine without cards that could be asked."""

    def read(self) -> tuple[CardLoad, ...]:
        return ()


class NamedCards:
    """Cards that somebody named, since nothing here can ask them; how busy they are is not known."""

    def __init__(self, *, kinds: Sequence[str]) -> None:
        self._cards = tuple(CardLoad(kind) for kind in kinds)

    def read(self) -> tuple[CardLoad, ...]:
        return self._cards


class NvidiaCards:
    """Asks `nvidia-smi`, at most every 5 s: each call costs it a tenth of a second."""

    def __init__(self, *, command: str) -> None:
        self._command = command
        self._asked_at = float("-inf")
        self._known: tuple[CardLoad, ...] = ()

    def read(self) -> tuple[CardLoad, ...]:
        now = time.monotonic()
        if now - self._asked_at >= QUERY_SECONDS:
            self._asked_at = now
            self._known = self._ask()
        return self._known

    def _ask(self) -> tuple[CardLoad, ...]:
        command = [self._command, "--query-gpu=name,utilization.gpu", "--format=csv,noheader,nounits"]
        try:
            answer = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_SECONDS, check=True)
        except (OSError, subprocess.SubprocessError) as error:
            _log.warning("the cards cannot be asked: %s", error)
            # The cards are still there; how busy they are is not known.
            return tuple(CardLoad(card.kind) for card in self._known)
        return parse_cards(answer.stdout)


def parse_cards(csv: str) -> tuple[CardLoad, ...]:
    """Lines `NAME, PERCENT`; a card that does not tell its utilisation (`[N/A]`) has None."""
    cards = []
    for line in csv.splitlines():
        kind, comma, percent = line.rpartition(",")
        if comma and kind.strip():
            text = percent.strip()
            cards.append(CardLoad(kind.strip(), min(1.0, int(text) / 100) if text.isdecimal() else None))
    return tuple(cards)


def find_cards() -> Cards:
    """How to ask this machine's cards."""
    command = shutil.which("nvidia-smi")
    return NoCards() if command is None else NvidiaCards(command=command)
