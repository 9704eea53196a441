"""Payload encoding: msgpack by default, JSON by content type. Never pickle, never extension types."""

from __future__ import annotations

import json
from typing import Any, NoReturn

import msgpack

from rayline.errors import FormatError
from rayline.jobs import ContentType


def decode_payload(data: bytes | memoryview, content_type: ContentType) -> Any:
    """Decode one payload; raises FormatError (with the cause) on anything that is not exactly one well-formed value."""
    try:
        if content_type is ContentType.JSON:
            return json.loads(bytes(data), parse_constant=_refuse_constant)
        return msgpack.unpackb(data, raw=False, strict_map_key=False, ext_hook=_refuse_extension, timestamp=0)
    except RecursionError as error:
        raise FormatError(f"{content_type.value}: nested too deeply") from error
    except (ValueError, TypeError, msgpack.exceptions.UnpackException) as error:
        raise FormatError(f"not valid {content_type.value}: {type(error).__name__}: {str(error)[:200]}") from error


def encode_payload(value: Any, content_type: ContentType) -> bytes:
    """Encode one feature; raises FormatError naming what cannot be encoded. numpy scalars and arrays become numbers and lists."""
    try:
        if content_type is ContentType.JSON:
            return json.dumps(value, default=_plain, allow_nan=False, ensure_ascii=False, separators=(",", ":")).encode()
        packed: bytes = msgpack.packb(value, use_bin_type=True, default=_plain)
        return packed
    except RecursionError as error:
        raise FormatError(f"{content_type.value}: nested too deeply") from error
    except (ValueError, TypeError, OverflowError) as error:
        raise FormatError(f"cannot be encoded as {content_type.value}: {str(error)[:200]}") from error


def _plain(value: Any) -> Any:
    """numpy values by duck typing, so that this module needs no numpy."""
    for convert in ("tolist", "as_py"):
        method = getattr(value, convert, None)
        if method is not None:
            return method()
    if isinstance(value, (set, frozenset)):
        return list(value)
    if isinstance(value, (bytes, bytearray, memoryview)):
        raise TypeError("bytes do not exist in JSON: encode them (base64) or use msgpack")
    raise TypeError(f"a value of type {type(value).__module__}.{type(value).__qualname__}")


def _refuse_extension(code: int, _data: bytes) -> NoReturn:
    raise ValueError(f"msgpack extension type {code} is not accepted")


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")
