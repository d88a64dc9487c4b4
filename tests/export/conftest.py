"""The models that these tests read."""

from exports import exported, exported_as_litert, exported_as_onnx, exported_extractor  # noqa: F401
