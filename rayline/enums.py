"""`StrEnum` on every Python that an app may run on: the code of actors is imported by Python 3.10, too, which has none."""

from __future__ import annotations

import sys
from enum import Enum

if sys.version_info >= (3, 11):  # noqa: UP036 - the platform itself needs 3.11, an app's actors do not
    from enum import StrEnum as StrEnum
else:

    class StrEnum(str, Enum):  # noqa: UP042
        """Members are their values, also when they are formatted."""

        __str__ = str.__str__
        __format__ = str.__format__
