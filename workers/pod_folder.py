"""What a pod's agent and its actors know of each other's folder."""

from __future__ import annotations

POD_DIR_VARIABLE = "RAYLINE_POD_DIR"
# In the folder once its agent took a notice: an actor that gets ready later must not take a batch.
NOTICE_MARK = "noticed"
