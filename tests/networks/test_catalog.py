import importlib
import inspect
import json
import subprocess
import sys
from urllib.parse import urlsplit

import keras
import numpy as np
import pytest

from crossroads.errors import BackboneError
from crossroads.networks.catalog import CATALOG, DEFAULT_FROM_SCRATCH, PRETRAINED_DEFAULT, backbone
from crossroads.networks.cuts import multiply_adds
from crossroads.networks.records import PREPROCESSINGS

LIGHT = {"mobilenet", "efficientnet-b0", "vgg16"}
"""Applications that are built in the ordinary run of the checks against Keras; `make test-real` has all."""

every_backbone = pytest.mark.parametrize("record", CATALOG, ids=lambda b: b.name)
every_application = pytest.mark.parametrize(
    "record",
    [pytest.param(r, id=r.name, marks=() if r.name in LIGHT else pytest.mark.real) for r in CATALOG if r.application],
)
pretrained = pytest.mark.parametrize("record", [r for r in CATALOG if r.pretrained], ids=lambda b: b.name)


@pytest.fixture
def imagenet(monkeypatch):
    """What Keras builds and would load for ``weights="imagenet"``, with nothing fetched: a function of the record and the size."""
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


def test_names_are_unique():
    assert len({record.name for record in CATALOG}) == len(CATALOG)


def test_every_classifier_of_keras_is_there():
    functions = {name for name, member in vars(keras.applications).items() if inspect.isfunction(member)}
    assert {record.application for record in CATALOG if record.application} == functions


def test_the_defaults_are_of_the_catalog():
    assert backbone(DEFAULT_FROM_SCRATCH).pretrained is None
    assert backbone(PRETRAINED_DEFAULT).pretrained is not None


def test_an_unknown_name_is_told_with_the_nearest():
    with pytest.raises(BackboneError, match="received 'quizcnn'; did you mean 'quiz-cnn'"):
        backbone("quizcnn")


@every_backbone
def test_an_image_out_of_bounds_is_refused_before_anything_is_built(record):
    low, high = record.limits
    for size in (low - 1, high + 1):
        with pytest.raises(BackboneError, match=f"takes images of {low} to {high} px; received {size} px"):
            record.build(size)


@every_backbone
def test_an_image_size_is_chosen_near_the_images_own(record):
    assert record.size_for(1) == record.sizes[0]
    assert record.size_for(10_000) == record.sizes[-1]
    assert all(record.size_for(size) == size or size * 0.8 <= record.size_for(size) < size for size in record.sizes)


@every_backbone
def test_sizes_lie_within_the_limits_and_go_up_to_that_of_the_weights(record):
    assert list(record.sizes) == sorted(set(record.sizes))
    assert record.limits[0] <= record.sizes[0] <= record.sizes[-1] <= record.limits[1]
    assert record.pretrained is None or record.sizes[-1] == record.reference_size


@every_backbone
def test_a_record_is_plain_values(record):
    told = json.loads(json.dumps(record.to_json()))
    assert told["preprocessing"] == PREPROCESSINGS[record.scaling]
    assert told["parameters"] == record.parameters


@pretrained
def test_weights_have_an_address_and_all_but_three_a_digest(record):
    weights = record.pretrained
    address = urlsplit(weights.address)
    assert address.scheme == "https"
    assert address.hostname
    assert address.path.rpartition("/")[2].startswith(weights.file[:6]) or "nasnet" in weights.file
    kind, _, digits = weights.digest.partition(":")
    unverified = record.name in ("mobilenet", "mobilenet-v2", "alexnet")  # whose publishers name no digest
    assert (kind, len(digits)) in ({("", 0)} if unverified else {("md5", 32), ("sha256", 64), ("sha256", 8)})
    assert weights.verified is not unverified
    assert set(digits) <= set("0123456789abcdef")
    assert weights.licence == record.licence


def test_no_two_backbones_share_a_file():
    files = [record.pretrained.file for record in CATALOG if record.pretrained]
    assert len(set(files)) == len(files)


@pytest.mark.filterwarnings("ignore:.input_shape. is undefined:UserWarning")  # of MobileNet below 128 px
@every_application
def test_its_weights_and_its_graph_are_those_of_keras(record, imagenet):
    size = record.limits[0]
    theirs, (file, address, digest) = imagenet(record, size)
    weights = record.pretrained
    assert (weights.file, weights.address, weights.digest.partition(":")[2]) == (file, address, digest)
    ours = record.build(size).backbone
    assert [w.shape for w in ours.weights] == [w.shape for w in theirs.weights]
    for layer, other in zip(_weighted(theirs), _weighted(ours), strict=True):
        layer.set_weights(other.get_weights())
        if hasattr(layer, "finalize_state"):
            layer.finalize_state()
    pixels = np.random.default_rng(0).random((1, size, size, 3), dtype=np.float32) * 255
    found, expected = (keras.ops.convert_to_numpy(model(pixels, training=False)) for model in (ours, theirs))
    np.testing.assert_allclose(found, expected, atol=1e-5 * np.abs(expected).max(), rtol=1e-5)


def _weighted(model):
    return [layer for layer in model.layers if layer.weights]


COUNTED = {"small-cnn", "quiz-cnn", "squeezenet", "squeezenet-torchvision", "mobilenet"}


@pytest.mark.parametrize(
    "record", [pytest.param(r, id=r.name, marks=() if r.name in COUNTED else pytest.mark.real) for r in CATALOG]
)
def test_parameters_and_multiply_adds_are_counted(record):
    model = record.build(record.reference_size).backbone
    assert model.count_params() == record.parameters
    assert multiply_adds(model) == record.multiply_adds


@every_application
def test_no_smaller_image_would_do(record):
    low = record.limits[0]
    with pytest.raises(ValueError, match="at least"):
        getattr(keras.applications, record.application)(weights=None, include_top=False, input_shape=(low - 1, low - 1, 3))


@pytest.mark.parametrize("name", ["alexnet", "alexnet-torchvision", "squeezenet", "squeezenet-torchvision"])
def test_no_smaller_image_would_do_for_those_built_here(name):
    record = backbone(name)
    module, _, function = record.builder.partition(":")
    with pytest.raises(ValueError, match="zero or negative"):
        getattr(importlib.import_module(module), function)(record.limits[0] - 1)


def test_the_catalog_is_read_without_keras():
    code = "import sys, crossroads.networks.catalog; sys.exit('keras' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
