"""Covers the catalog: its records are consistent, and its networks and weights are those of Keras."""

import importlib
import inspect
import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from urllib.parse import urlsplit

import keras
import numpy as np
import pytest

from crossroads.errors import BackboneError
from crossroads.networks.catalog import CATALOG, DEFAULT_FROM_SCRATCH, PRETRAINED_DEFAULT, backbone
from crossroads.networks.cuts import multiply_adds
from crossroads.networks.records import PREPROCESSINGS
from refusals import refused

LIGHT = {"mobilenet", "efficientnet-b0", "vgg16"}
"""Applications that every run compares with Keras. `make test-real` compares all."""

every_application = pytest.mark.parametrize(
    "record",
    [pytest.param(r, id=r.name, marks=() if r.name in LIGHT else pytest.mark.real) for r in CATALOG if r.application],
)


@pytest.fixture
def imagenet(monkeypatch):
    """Builds Keras' network for ``weights="imagenet"`` without a download. Returns it with the file that Keras would download."""
    asked = []

    def fetch(fname=None, origin=None, file_hash=None, **_):
        asked.append((fname, origin, file_hash or ""))
        return "nowhere.h5"

    monkeypatch.setattr("keras.src.utils.file_utils.get_file", fetch)
    monkeypatch.setattr(keras.Model, "load_weights", lambda *_: None)

    def build(record, size):
        shape = (size, size, 3)
        model = getattr(keras.applications, record.application)(weights="imagenet", include_top=False, input_shape=shape)
        return model, asked[-1]

    return build


UNVERIFIED = ("mobilenet", "mobilenet-v2", "alexnet")
"""Backbones whose publishers state no digest of the weights, and whose file is not at hand. A download of them is noted."""

DIGEST = re.compile(r"md5:[0-9a-f]{32}|sha256:([0-9a-f]{64}|[0-9a-f]{8})")


def faults(record):
    """Yields the fields of a record that are wrong."""
    low, high = record.limits
    for size in (low - 1, high + 1):
        with refused("image-size-not-supported", BackboneError, field="image_size", received=f"{size} px"):
            record.build(size)
    if list(record.sizes) != sorted(set(record.sizes)) or not low <= record.sizes[0] <= record.sizes[-1] <= high:
        yield "sizes"
    chosen = {size: record.size_for(size) for size in (1, *record.sizes, 10_000)}
    if (chosen[1], chosen[10_000]) != (record.sizes[0], record.sizes[-1]):
        yield "size_for"
    if not all(chosen[size] == size or size * 0.8 <= chosen[size] < size for size in record.sizes):
        yield "size_for"
    plain = json.loads(json.dumps(record.to_json()))
    if plain["preprocessing"] != PREPROCESSINGS[record.scaling] or plain["parameters"] != record.parameters:
        yield "to_json"
    if record.pretrained is not None:
        yield from weight_faults(record, record.pretrained)


def weight_faults(record, weights):
    address = urlsplit(weights.address)
    known = weights.package or weights.file[:6]
    if address.scheme != "https" or not address.hostname or not (known in address.path or "nasnet" in weights.file):
        yield "address"
    if weights.verified is (record.name in UNVERIFIED):
        yield "verified"
    if weights.digest is not None and not DIGEST.fullmatch(weights.digest):
        yield "digest"
    if weights.package is not None and weights.folder.partition("/")[0].replace("_", "-") != weights.package:
        yield "package"
    if record.sizes[-1] != record.reference_size:
        yield "reference_size"
    if weights.licence != record.licence:
        yield "licence"


def test_every_record_is_consistent():
    assert {record.name: wrong for record in CATALOG if (wrong := list(faults(record)))} == {}
    assert len({record.name for record in CATALOG}) == len(CATALOG)
    files = [record.pretrained.file for record in CATALOG if record.pretrained]
    assert len(set(files)) == len(files)


def test_the_catalog_has_every_classifier_of_keras():
    functions = {name for name, member in vars(keras.applications).items() if inspect.isfunction(member)}
    assert {record.application for record in CATALOG if record.application} == functions


def test_the_defaults_are_in_the_catalog():
    assert backbone(DEFAULT_FROM_SCRATCH).pretrained is None
    pretrained = backbone(PRETRAINED_DEFAULT).pretrained
    assert pretrained is not None
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert f"{pretrained.package}==0.1.0" in project["dependencies"]


def test_an_unknown_name_gets_the_nearest_as_a_hint():
    with refused("unknown-backbone", BackboneError, received="'quizcnn'") as caught:
        backbone("quizcnn")
    assert "'quiz-cnn'" in caught.value.hint


@pytest.mark.filterwarnings("ignore:.input_shape. is undefined:UserWarning")  # of MobileNet below 128 px
@every_application
def test_weights_and_outputs_equal_those_of_keras(record, imagenet):
    size = record.limits[0]
    theirs, (file, address, digest) = imagenet(record, size)
    weights = record.pretrained
    assert (weights.file, weights.address, (weights.digest or "").partition(":")[2]) == (file, address, digest)
    ours = record.build(size).backbone
    assert [w.shape for w in ours.weights] == [w.shape for w in theirs.weights]
    for layer, other in zip(_weighted(theirs), _weighted(ours), strict=True):
        layer.set_weights(other.get_weights())
        if hasattr(layer, "finalize_state"):
            layer.finalize_state()
    pixels = np.random.default_rng(0).random((1, size, size, 3), dtype=np.float32) * 255
    actual, expected = (keras.ops.convert_to_numpy(model(pixels, training=False)) for model in (ours, theirs))
    np.testing.assert_allclose(actual, expected, atol=1e-5 * np.abs(expected).max(), rtol=1e-5)


def _weighted(model):
    return [layer for layer in model.layers if layer.weights]


COUNTED = {"small-cnn", "quiz-cnn", "squeezenet", "squeezenet-torchvision", "mobilenet"}
COUNTED |= {"efficientnet-lite0", "efficientnet-lite2"}


@pytest.mark.parametrize(
    "record", [pytest.param(r, id=r.name, marks=() if r.name in COUNTED else pytest.mark.real) for r in CATALOG]
)
def test_parameters_and_multiply_adds_match_the_record(record):
    model = record.build(record.reference_size).backbone
    assert model.count_params() == record.parameters
    assert multiply_adds(model) == record.multiply_adds


@every_application
def test_the_smallest_image_of_applications_is_the_limit(record):
    low = record.limits[0]
    with pytest.raises(ValueError, match="at least"):
        getattr(keras.applications, record.application)(weights=None, include_top=False, input_shape=(low - 1, low - 1, 3))


@pytest.mark.parametrize("name", ["alexnet", "alexnet-torchvision", "squeezenet", "squeezenet-torchvision"])
def test_the_smallest_image_of_networks_built_here_is_the_limit(name):
    record = backbone(name)
    module, _, function = record.builder.partition(":")
    with pytest.raises(ValueError, match="zero or negative"):
        getattr(importlib.import_module(module), function)(record.limits[0] - 1)


def test_the_catalog_loads_no_keras():
    code = "import sys, crossroads.networks.catalog; sys.exit('keras' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
