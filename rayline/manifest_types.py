"""What every section of app.yaml is made of: strict mappings, and sizes in bytes as people write them."""

from __future__ import annotations

from typing import Annotated, Any, Final

from pydantic import BaseModel, BeforeValidator, ConfigDict, WithJsonSchema

BYTE_UNITS: Final = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}
SIZE_EXAMPLE: Final = "a size such as 512MiB, 2GiB or a number of bytes"


def parse_bytes(value: Any) -> int:
    """`"512MiB"`, `"2 GB"` or a whole number of bytes → bytes; raises ValueError that says what would be right."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    text = value.strip().upper() if isinstance(value, str) else ""
    digits = text.rstrip("KMGIB ")
    unit = text[len(digits) :].strip()
    try:
        return int(float(digits) * BYTE_UNITS[unit])
    except (ValueError, KeyError, OverflowError) as error:
        raise ValueError(SIZE_EXAMPLE) from error


Size = Annotated[
    int,
    BeforeValidator(parse_bytes),
    WithJsonSchema({"anyOf": [{"type": "integer"}, {"type": "string", "pattern": r"^\s*\d+(\.\d+)?\s*([KMGkmg]?i?[Bb]?)\s*$"}]}),
]


class Section(BaseModel):
    """A mapping in app.yaml: unknown keys are errors, nothing is coerced, values cannot change."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)
