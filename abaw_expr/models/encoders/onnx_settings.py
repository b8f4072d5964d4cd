"""What an ONNX file does not say of its network; it imports no torch."""

from dataclasses import dataclass


@dataclass(frozen=True)
class OnnxSettings:
    """Its images, and its output."""

    side: int = 0
    """Of onnx:FILE: pixels along a side; 0: as the file's input says."""
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    """Of onnx:FILE: mean of red, green and blue in [0, 1]."""
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)
    """Of onnx:FILE: deviation of red, green and blue."""
    output: str = ""
    """Of onnx:FILE: name of the output that is the embedding; empty: the only one."""
