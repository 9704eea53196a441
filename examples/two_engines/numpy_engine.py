"""An engine of one's own: runs ONNX models of dense layers (MatMul, Add, Relu, Sigmoid) by numpy alone."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

FLOAT = 1
OPERATORS: dict[str, Callable[..., Any]] = {
    "MatMul": np.matmul,
    "Add": np.add,
    "Relu": lambda x: np.maximum(x, 0),
    "Sigmoid": lambda x: 1 / (1 + np.exp(-x)),
}


def open_model(path: str) -> Callable[[Any], Any]:
    """The model as a function of its first input; raises ValueError for what this engine cannot run."""
    graph = next(value for number, value in fields(Path(path).read_bytes()) if number == 7)
    weights = dict(tensor(value) for number, value in fields(graph) if number == 5)
    nodes = [node(value) for number, value in fields(graph) if number == 1]
    unknown = {operator for operator, _, _ in nodes} - OPERATORS.keys()
    if unknown:
        raise ValueError(f"{path} has {', '.join(sorted(unknown))}; this engine runs {', '.join(OPERATORS)}")
    inputs = [name(value) for number, value in fields(graph) if number == 11]
    outputs = [name(value) for number, value in fields(graph) if number == 12]

    def run(rows: Any) -> Any:
        values = {**weights, inputs[0]: rows}
        for operator, given, made in nodes:
            values[made] = OPERATORS[operator](*(values[one] for one in given))
        return values[outputs[0]]

    return run


def fields(message: bytes) -> Iterator[tuple[int, Any]]:
    """Number and value of each field of a protobuf message: an int, or bytes."""
    at = 0
    while at < len(message):
        key, at = varint(message, at)
        if key & 7 == 0:
            value, at = varint(message, at)
            yield key >> 3, value
        elif key & 7 == 2:
            size, at = varint(message, at)
            yield key >> 3, message[at : at + size]
            at += size
        else:
            raise ValueError(f"wire type {key & 7} is not read here")


def varint(message: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = message[at]
        at += 1
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return value, at


def tensor(message: bytes) -> tuple[str, Any]:
    """A weight by its name; only floats in raw form are read."""
    found = list(fields(message))
    shape = [value for number, value in found if number == 1]
    by = dict(found)
    if by[2] != FLOAT or 9 not in by:
        raise ValueError("only weights of 32-bit floats in raw form are read")
    return by[8].decode(), np.frombuffer(by[9], "<f4").reshape(shape)


def node(message: bytes) -> tuple[str, list[str], str]:
    """Operator, inputs and first output."""
    found = list(fields(message))
    outputs = [value.decode() for number, value in found if number == 2]
    return dict(found)[4].decode(), [value.decode() for number, value in found if number == 1], outputs[0]


def name(message: bytes) -> str:
    text: bytes = dict(fields(message))[1]
    return text.decode()
