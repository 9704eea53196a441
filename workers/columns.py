"""Payloads as columns and features back as rows, after the conventions of Ray Data's `map_batches`. numpy and pandas are
imported only when an app asks for them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from rayline.app_spec import BatchFormat
from rayline.errors import ContractError
from workers.failures import describe_value


def common_keys(payloads: Sequence[Any]) -> frozenset[Any] | None:
    """The keys that most payloads have; None when no payload is a map."""
    counts = Counter(frozenset(payload) for payload in payloads if isinstance(payload, dict))
    return counts.most_common(1)[0][0] if counts else None


def to_columns(payloads: Sequence[dict[str, Any]], batch_format: BatchFormat) -> Any:
    """`dict[str, np.ndarray]`, `pa.Table` or `pd.DataFrame` with one row for each payload; all payloads have the same keys."""
    if batch_format is BatchFormat.ARROW:
        return pa.Table.from_pylist(list(payloads))
    if batch_format is BatchFormat.PANDAS:
        import pandas

        return pandas.DataFrame(list(payloads))
    return {name: _to_array([payload[name] for payload in payloads]) for name in payloads[0]}


def from_columns(returned: Any, rows: int) -> Sequence[Any]:
    """One feature for each row; raises ContractError when `returned` has another number of rows or another form."""
    if isinstance(returned, (list, tuple)):
        features: Sequence[Any] = returned
    elif isinstance(returned, dict):
        return _rows_of(returned, rows)
    elif isinstance(returned, pa.Table):
        features = returned.to_pylist() if returned.num_rows == rows else range(returned.num_rows)
    elif hasattr(returned, "to_dict") and hasattr(returned, "columns"):
        features = returned.to_dict("records") if len(returned) == rows else range(len(returned))
    elif hasattr(returned, "tolist") and getattr(returned, "shape", None):
        features = returned.tolist() if len(returned) == rows else range(len(returned))
    else:
        raise ContractError(
            f"a batch function returns one feature for each of its {rows} jobs, in their order; it returned "
            f"{describe_value(returned)}"
        )
    if len(features) != rows:
        raise ContractError(
            f"a batch function returns one feature for each of its {rows} jobs, in their order; it returned "
            f"{len(features)} features ({describe_value(returned)})"
        )
    return features


def _rows_of(columns: dict[str, Any], rows: int) -> list[dict[str, Any]]:
    lists = []
    for name, column in columns.items():
        try:
            values = (
                column.tolist()
                if hasattr(column, "tolist")
                else column.to_pylist()
                if hasattr(column, "to_pylist")
                else list(column)
            )
            length = len(values)
        except TypeError as error:
            raise ContractError(f"column {name!r} is {describe_value(column)}, not {rows} values") from error
        if length != rows:
            raise ContractError(f"every column has one value for each of the {rows} jobs; column {name!r} has {length}")
        lists.append(values)
    if not lists:
        raise ContractError(f"a batch function returns one feature for each of its {rows} jobs; it returned no column")
    return [dict(zip(columns, row, strict=True)) for row in zip(*lists, strict=True)]


def _to_array(values: list[Any]) -> Any:
    import numpy

    # Fixed-width numpy strings lose trailing NUL bytes, and ragged lists have no shape: both stay objects.
    if not isinstance(values[0], (str, bytes, dict)) and values[0] is not None:
        try:
            array = numpy.asarray(values)
        except ValueError:
            array = None
        if array is not None and array.dtype.kind not in "OSU":
            return array
    objects = numpy.empty(len(values), dtype=object)
    for row, value in enumerate(values):
        objects[row] = value
    return objects
