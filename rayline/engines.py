"""Inference engines and the cards they run on: by which names an app asks for them, and by which variables it is told.

An engine is a module that the app imports (`onnxruntime`, `torch`, or one of its own); a provider is what that engine calls the
thing it computes on (`CUDAExecutionProvider`, `cuda`); a card is an accelerator, by the kind that its node reports.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

ENGINE_VARIABLE = "RAYLINE_ENGINE"
PROVIDER_VARIABLE = "RAYLINE_PROVIDER"
CARD_VARIABLE = "RAYLINE_CARD"
ENGINE_VARIABLES = (ENGINE_VARIABLE, PROVIDER_VARIABLE, CARD_VARIABLE)

# In the place of a card: a node that has none, and every node.
NO_CARD = "cpu"
ANY_CARD = "any"

# What an engine computes on where the manifest does not say. One that is not here, such as an app's own, is taken to be for CPUs.
_PROVIDERS: Mapping[str, Mapping[str, str]] = {
    "onnxruntime": {"nvidia": "CUDAExecutionProvider", "ascend": "CANNExecutionProvider", NO_CARD: "CPUExecutionProvider"},
    "torch": {"nvidia": "cuda", "ascend": "npu", NO_CARD: "cpu"},
    "openvino": {NO_CARD: "CPU"},
}
_OTHERS: Mapping[str, str] = {NO_CARD: "CPU"}


@dataclass(frozen=True, slots=True)
class Engine:
    """What an app computes with: the module's name, and for each card its provider, in the order in which they are looked at."""

    name: str
    providers: tuple[tuple[str, str], ...] = ()

    @property
    def choices(self) -> tuple[tuple[str, str], ...]:
        """The manifest's, or else the engine's own."""
        return self.providers or tuple(_PROVIDERS.get(self.name, _OTHERS).items())

    def choose(self, cards: Sequence[str]) -> Chosen | None:
        """The first choice whose card is here: a part of the kind of one of `cards`, in any case of letters; NO_CARD only where
        there is no card at all. None where no choice fits: another card's provider would not be what was asked for."""
        for card, provider in self.choices:
            if card == ANY_CARD or (card == NO_CARD and not cards):
                return Chosen(self.name, provider, cards[0] if cards else "")
            found = next((kind for kind in cards if card != NO_CARD and card.lower() in kind.lower()), None)
            if found is not None:
                return Chosen(self.name, provider, found)
        return None

    def stand_in(self) -> Chosen:
        """For a look at the app on a machine that is no node: what it gets without a card, or else its first choice."""
        card, provider = self.choices[0]
        return self.choose(()) or Chosen(self.name, provider, card)


@dataclass(frozen=True, slots=True)
class Chosen:
    """What an app's processes on one node compute with; `card` is the kind, empty where there is none."""

    engine: str
    provider: str
    card: str

    def variables(self) -> dict[str, str]:
        """What the app's processes are told by."""
        return {ENGINE_VARIABLE: self.engine, PROVIDER_VARIABLE: self.provider, CARD_VARIABLE: self.card}
