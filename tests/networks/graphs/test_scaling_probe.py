"""Covers the probe of scalings: a wrong one is noticed and the right one is not."""

import io
import tarfile

import numpy as np
import pytest
from PIL import Image

from crossroads.heads.probe import probe
from crossroads.inference import runtime
from crossroads.networks.graphs import probe_scalings, read_graph
from tiny_graphs import SIZE, Maker, convnet, written


def losses(features, labels):
    return probe(features, labels).losses


def brightness():
    """Returns a network that tells dark images from bright ones if its pixels are in [-1, 1], and else sees only noise."""
    make, width = Maker(), 16
    images = make.ops.parameter([-1, 3, SIZE, SIZE], np.float32, name="input")
    mean = make.ops.reduce_mean(images, make.ints(2, 3), True)
    x = make.ops.clamp(mean, -1.0, 1.0)
    x = make.ops.convolution(x, make.constant(width, 3, 1, 1), [1, 1], [0, 0], [0, 0], [1, 1])
    return runtime().Model([make.ops.relu(x).output(0)], [images], "brightness")


def shaded(n=120):
    random = np.random.default_rng(0)
    labels = np.arange(n) % 2
    images = np.clip(
        random.normal(np.where(labels, 150, 105), 20)[:, None, None, None] + random.normal(0, 5, (n, SIZE, SIZE, 3)), 0, 255
    )
    return images.astype(np.uint8), labels


def test_a_wrong_scaling_is_noticed_and_the_right_one_is_not(tmp_path):
    path = written(brightness(), tmp_path / "net.xml")
    images, labels = shaded()
    assert probe_scalings(read_graph(path, preprocessing="tf"), images, labels, losses) is None
    note = probe_scalings(read_graph(path, preprocessing="none"), images, labels, losses)
    assert note.code == "another-scaling-is-better"
    assert note.figures["preprocessing"] in ("tf", "centre", "torch")
    assert note.figures["loss"] < note.figures["loss_with_chosen"]


def test_pixels_that_are_taken_as_they_are_are_not_probed(tmp_path):
    body = read_graph(written(convnet((1, SIZE, SIZE, 3), np.uint8), tmp_path / "net.xml"))
    assert probe_scalings(body, *shaded(20), losses) is None


@pytest.mark.real
def test_the_right_scaling_of_squeezenet_is_found(shared_data, shared_weights):
    images, labels = [], []
    with tarfile.open(shared_data / "ants_bees.tar") as archive:
        for member in archive:
            if "/train/" in member.name and member.name.endswith(".jpg"):
                with Image.open(io.BytesIO(archive.extractfile(member).read())) as image:
                    images.append(np.asarray(image.convert("RGB").resize((224, 224), Image.Resampling.BICUBIC)))
                labels.append("/bees/" in member.name)
    images, labels = np.stack(images), np.array(labels, int)
    path = shared_weights / "squeezenet_1.1_fp16.onnx"
    for chosen in ("caffe", "torch", "tf"):
        note = probe_scalings(read_graph(path, preprocessing=chosen), images, labels, losses)
        print(chosen, note)
        assert (note is None) == (chosen == "caffe")
        assert note is None or note.figures["preprocessing"] == "caffe"
