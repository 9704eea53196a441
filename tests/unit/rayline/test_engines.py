"""Cards choose the provider; a card that nobody named is never replaced by another, nor by the CPU."""

from __future__ import annotations

import pytest

from rayline.engines import Chosen, Engine

NVIDIA, ASCEND, ZIXIAO = "NVIDIA A10", "Ascend 910B", "Zixiao C100"
PREFERS = Engine("onnxruntime", (("a10", "TensorrtExecutionProvider"), ("nvidia", "CUDAExecutionProvider")))


@pytest.mark.parametrize(
    ("engine", "cards", "expected"),
    [
        (Engine("onnxruntime"), [NVIDIA], Chosen("onnxruntime", "CUDAExecutionProvider", NVIDIA)),
        (Engine("onnxruntime"), [ASCEND], Chosen("onnxruntime", "CANNExecutionProvider", ASCEND)),
        (Engine("onnxruntime"), [], Chosen("onnxruntime", "CPUExecutionProvider", "")),
        (Engine("torch"), [NVIDIA], Chosen("torch", "cuda", NVIDIA)),
        (Engine("numpy_engine"), [], Chosen("numpy_engine", "CPU", "")),
        (PREFERS, ["NVIDIA L40"], Chosen("onnxruntime", "CUDAExecutionProvider", "NVIDIA L40")),
        (PREFERS, ["NVIDIA L40", NVIDIA], Chosen("onnxruntime", "TensorrtExecutionProvider", NVIDIA)),
        (
            Engine("onnxruntime", (("any", "CPUExecutionProvider"),)),
            [ZIXIAO],
            Chosen("onnxruntime", "CPUExecutionProvider", ZIXIAO),
        ),
    ],
)
def test_the_first_choice_whose_card_is_here_counts(engine: Engine, cards: list[str], expected: Chosen) -> None:
    assert engine.choose(cards) == expected


@pytest.mark.parametrize(
    ("engine", "cards"),
    [(Engine("onnxruntime"), [ZIXIAO]), (PREFERS, []), (PREFERS, [ASCEND]), (Engine("numpy_engine"), [NVIDIA])],
)
def test_no_card_is_used_that_was_not_named_and_no_cpu_in_its_place(engine: Engine, cards: list[str]) -> None:
    assert engine.choose(cards) is None


def test_a_machine_that_is_no_node_has_a_stand_in() -> None:
    assert Engine("onnxruntime").stand_in().provider == "CPUExecutionProvider"
    assert PREFERS.stand_in().provider == "TensorrtExecutionProvider"
