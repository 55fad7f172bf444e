"""Other ways to run a frozen network on images in memory. Each takes images, uint8 (n, size, size, 3), and a batch size."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks._measure import seconds_of

Side = Callable[[np.ndarray, int], Any]

PEERS = {"torch": "PyTorch", "onnxruntime": "ONNX Runtime"}
"""Not dependencies: measured where they are installed. The network of ONNX Runtime is exported from PyTorch, through ``onnx``."""

NEEDS = {"torch": ("torch",), "onnxruntime": ("onnxruntime", "onnx", "torch")}


def installed(peer: str) -> bool:
    return all(importlib.util.find_spec(module) for module in NEEDS[peer])


def label(peer: str) -> str:
    """Its name with its version."""
    return f"{PEERS[peer]} {importlib.metadata.version(peer)}"


def fastest(side: Side, images: np.ndarray, sizes: Sequence[int]) -> int:
    """The batch size that takes least time, each after a call that does not count."""
    found = {}
    for size in sizes:
        side(images[: 2 * size], size)
        found[size] = min(seconds_of(lambda size=size: side(images, size)) for _ in range(2))
    return min(found, key=lambda size: found[size])


def keras_predict(model: Any) -> Side:
    return lambda images, batch: model.predict(images, batch_size=batch, verbose=0)


def bare_openvino(graph: Path) -> Side:
    """Asynchronous requests in turn, one more than OpenVINO says it runs at a time, and every result copied into one array."""
    from crossroads.inference import runtime

    compiled = (
        runtime().Core().compile_model(str(graph), "CPU", {"PERFORMANCE_HINT": "THROUGHPUT", "INFERENCE_PRECISION_HINT": "f32"})
    )
    count = compiled.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS") + 1
    requests = [compiled.create_infer_request() for _ in range(count)]
    shape = [dimension.get_length() for dimension in list(compiled.outputs[0].get_partial_shape())[1:]]

    def run(images: np.ndarray, batch: int) -> np.ndarray:
        out = np.empty((len(images), *shape), np.float32)
        starts = range(0, len(images), batch)

        def collect(number: int) -> None:
            request = requests[number % count]
            request.wait()
            out[starts[number] : starts[number] + batch] = request.get_output_tensor(0).data

        for number, start in enumerate(starts):
            if number >= count:
                collect(number - count)
            requests[number % count].start_async({0: images[start : start + batch]})
        for number in range(max(0, len(starts) - count), len(starts)):
            collect(number)
        return out

    return run


def pytorch(network: str, images: np.ndarray) -> Side:
    """Eager PyTorch with channels last, which is how images lie and what its convolutions run fastest on.

    With one thread or with all, whichever is faster on some images: OpenMP's threads wait for each other at every layer, which
    costs most of their time where a core is busy with something else.
    """
    import torch

    model = _torch_model(network)

    def run(images: np.ndarray, batch: int) -> np.ndarray:
        with torch.inference_mode():
            return np.concatenate(
                [model(torch.from_numpy(images[start : start + batch])).numpy() for start in range(0, len(images), batch)]
            )

    seconds = {}
    for threads in (1, torch.get_num_threads()):
        torch.set_num_threads(threads)
        run(images, len(images))
        seconds[threads] = seconds_of(lambda: run(images, len(images)))
    torch.set_num_threads(min(seconds, key=lambda threads: seconds[threads]))
    return run


def onnx_runtime(network: str, size: int, folder: Path) -> Side:
    import onnxruntime
    import torch

    path = str(folder / f"{network}.onnx")
    with warnings.catch_warnings(action="ignore"):
        torch.onnx.export(
            _torch_model(network),
            (torch.zeros(1, size, size, 3, dtype=torch.uint8),),
            path,
            input_names=["images"],
            dynamic_axes={"images": {0: "n"}},
            dynamo=False,
        )
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])

    def run(images: np.ndarray, batch: int) -> np.ndarray:
        found = [session.run(None, {"images": images[start : start + batch]})[0] for start in range(0, len(images), batch)]
        return np.concatenate(found)

    return run


def _torch_model(network: str) -> Any:
    """uint8 (n, size, size, 3) to features, with the layers of the backbone of that name and random weights."""
    import torch

    body = {"mobilenet-v2": _mobilenet_v2, "resnet50": _resnet50, "alexnet": _alexnet}[network]()

    class Model(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = body

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return self.body(images.permute(0, 3, 1, 2).float() / 127.5 - 1)

    return Model().eval().to(memory_format=torch.channels_last)


def _norm(width: int) -> Any:
    """BatchNorm with the statistics of its first images, which are random too: signals keep their size."""
    import torch

    return torch.nn.BatchNorm2d(width)


def _calibrated(body: Any, size: int) -> Any:
    import torch

    for layer in body.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.momentum = None
    with torch.no_grad():
        body.train()(torch.randn(4, 3, size, size))
    return body


def _mobilenet_v2() -> Any:
    from torch import nn

    def conv(inner: int, outer: int, side: int, stride: int = 1, groups: int = 1) -> list[Any]:
        return [nn.Conv2d(inner, outer, side, stride, side // 2, groups=groups, bias=False), _norm(outer)]

    class Block(nn.Module):
        def __init__(self, inner: int, outer: int, stride: int, wider: int) -> None:
            super().__init__()
            middle = inner * wider
            first = [*conv(inner, middle, 1), nn.ReLU6()] if wider > 1 else []
            self.body = nn.Sequential(*first, *conv(middle, middle, 3, stride, middle), nn.ReLU6(), *conv(middle, outer, 1))
            self.adds = stride == 1 and inner == outer

        def forward(self, x: Any) -> Any:
            return x + self.body(x) if self.adds else self.body(x)

    layers, inner = [*conv(3, 32, 3, 2), nn.ReLU6()], 32
    for wider, outer, count, stride in (
        (1, 16, 1, 1),
        (6, 24, 2, 2),
        (6, 32, 3, 2),
        (6, 64, 4, 2),
        (6, 96, 3, 1),
        (6, 160, 3, 2),
        (6, 320, 1, 1),
    ):
        for number in range(count):
            layers.append(Block(inner, outer, stride if number == 0 else 1, wider))
            inner = outer
    end = [*conv(320, 1280, 1), nn.ReLU6(), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    return _calibrated(nn.Sequential(*layers, *end), 96)


def _resnet50() -> Any:
    from torch import nn

    def conv(inner: int, outer: int, side: int, stride: int = 1) -> list[Any]:
        return [nn.Conv2d(inner, outer, side, stride, side // 2), _norm(outer)]

    class Block(nn.Module):
        def __init__(self, inner: int, width: int, stride: int) -> None:
            super().__init__()
            self.body = nn.Sequential(
                *conv(inner, width, 1, stride), nn.ReLU(), *conv(width, width, 3), nn.ReLU(), *conv(width, 4 * width, 1)
            )
            self.way = nn.Identity() if inner == 4 * width else nn.Sequential(*conv(inner, 4 * width, 1, stride))

        def forward(self, x: Any) -> Any:
            return nn.functional.relu(self.way(x) + self.body(x))

    layers, inner = [*conv(3, 64, 7, 2), nn.ReLU(), nn.MaxPool2d(3, 2, 1)], 64
    for width, count in ((64, 3), (128, 4), (256, 6), (512, 3)):
        for number in range(count):
            layers.append(Block(inner, width, 2 if number == 0 and width > 64 else 1))
            inner = 4 * width
    return _calibrated(nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten()), 224)


def _alexnet() -> Any:
    from torch import nn

    def pool() -> Any:
        return nn.MaxPool2d(3, 2)

    def norm() -> Any:
        return nn.LocalResponseNorm(5, alpha=1e-4, beta=0.75, k=1.0)

    return nn.Sequential(
        *(nn.Conv2d(3, 96, 11, 4, 4), nn.ReLU(), norm(), pool()),
        *(nn.Conv2d(96, 256, 5, padding=2, groups=2), nn.ReLU(), norm(), pool()),
        *(nn.Conv2d(256, 384, 3, padding=1), nn.ReLU()),
        *(nn.Conv2d(384, 384, 3, padding=1, groups=2), nn.ReLU()),
        *(nn.Conv2d(384, 256, 3, padding=1, groups=2), nn.ReLU(), pool()),
        *(nn.Flatten(), nn.Linear(9216, 4096), nn.ReLU(), nn.Linear(4096, 4096), nn.ReLU()),
    )
