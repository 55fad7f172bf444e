"""Covers ranked labels: equal for a path, its bytes and its pixels, alone or in a batch, and without Keras."""

from __future__ import annotations

import copy
import io
import json
import multiprocessing
import os
import pickle
import shutil
import subprocess
import sys
import threading
import weakref
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path

import keras
import numpy as np
import pytest
from PIL import Image

from crossroads import artifact
from crossroads.data import images
from crossroads.data.dataset import Dataset
from crossroads.data.readers import read
from crossroads.errors import ArtifactError, CrossroadsWarning, DataError, ImageRefused
from crossroads.inference import BATCH
from crossroads.predictor import Predictor
from refusals import refused
from tiny_artifact import CLASSES, SIZE, contents, model, pixels


@pytest.fixture(scope="module")
def whole():
    return contents()


@pytest.fixture(scope="module")
def folder(tmp_path_factory, whole) -> Path:
    run = tmp_path_factory.mktemp("artifact") / "run"
    artifact.write(run, whole, {})
    return run


@pytest.fixture(scope="module")
def predictor(folder) -> Predictor:
    return Predictor.load(folder)


class Files:
    """Images in memory that are read like files. None is a missing file."""

    def __init__(self, raws):
        self.raws = raws

    def __len__(self):
        return len(self.raws)

    def name(self, index):
        return f"{index}.png"

    def read(self, index):
        if self.raws[index] is None:
            raise FileNotFoundError(2, "No such file or directory")
        return self.raws[index]


def dataset(raws):
    n = len(raws)
    return Dataset("test", Files(raws), np.arange(n), np.zeros(n, np.int32), CLASSES)


def encoded(image, kind="PNG"):
    file = io.BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(file, kind)
    return file.getvalue()


@pytest.mark.core
def test_probabilities_are_those_of_the_keras_model(predictor, whole):
    expected = keras.ops.convert_to_numpy(whole.model(pixels(100), training=False))
    found = predictor.probabilities(pixels(100))
    assert found.dtype == np.float32
    assert np.abs(found - expected).max() < 1e-5
    assert np.abs(found.sum(axis=1) - 1).max() < 1e-5


@pytest.mark.parametrize("batch", [1, 7, BATCH, 500])
def test_the_batch_size_changes_nothing(predictor, batch):
    one_by_one = np.concatenate([predictor.probabilities(image[None]) for image in pixels(75)])
    assert np.abs(predictor.probabilities(pixels(75), batch=batch) - one_by_one).max() < 1e-6


def test_the_order_of_many_batches_is_kept(predictor):
    many = pixels(BATCH * 20 + 3)
    backwards = predictor.probabilities(many[::-1])
    assert np.abs(predictor.probabilities(many) - backwards[::-1]).max() < 1e-6


@pytest.mark.parametrize("n", [1, BATCH * 3])
def test_threads_may_share_a_predictor(folder, n):
    shared = Predictor.load(folder)
    sets = [pixels(n, seed=seed) for seed in range(4)]
    alone = [Predictor.load(folder).probabilities(images) for images in sets]
    together = threading.Barrier(4)

    def worst(i):
        together.wait()
        return max(float(np.abs(shared.probabilities(sets[i]) - alone[i]).max()) for _ in range(200))

    with ThreadPoolExecutor(4) as pool:
        assert max(pool.map(worst, range(4))) < 1e-6


def test_a_pickled_predictor_is_loaded_again(folder):
    shared = Predictor.load(folder, threads=1)
    again = pickle.loads(pickle.dumps(shared))
    assert again._graph.threads == 1
    assert again.manifest == shared.manifest
    assert np.array_equal(again.probabilities(pixels(3)), shared.probabilities(pixels(3)))


def test_a_predictor_can_be_sent_to_a_new_process(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(folder.parent)
    shared = Predictor.load(folder.name)  # the relative path is another folder in the new process
    monkeypatch.chdir(tmp_path)
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        assert pool.submit(shared.predict, list(pixels(1))).result() == shared.predict(list(pixels(1)))


def test_a_copy_is_the_predictor_itself(predictor):
    assert copy.copy(predictor) is copy.deepcopy(predictor) is predictor


def test_a_pickle_whose_artifact_is_gone_or_replaced_is_refused(folder, tmp_path):
    run = Path(shutil.copytree(folder, tmp_path / "run"))
    pickled = pickle.dumps(Predictor.load(run))
    shutil.rmtree(run)
    with refused("not-an-artifact", ArtifactError, received="no such folder"):
        pickle.loads(pickled)
    artifact.write(run, contents(model(seed=4)), {})
    with refused("other-artifact", ArtifactError):
        pickle.loads(pickled)


def test_no_images_give_no_rows(predictor):
    assert predictor.probabilities(pixels(0)).shape == (0, len(CLASSES))
    assert predictor.predict([]) == []


def test_the_number_of_threads_is_honoured(folder):
    few = Predictor.load(folder, threads=1)._graph
    assert few._for_few.get_property("INFERENCE_NUM_THREADS") == 1
    assert few._for_many.get_property("INFERENCE_NUM_THREADS") == 1
    with refused("out-of-range", ArtifactError, field="threads"):
        Predictor.load(folder, threads=0)


def test_classes_and_size_come_from_the_manifest(predictor):
    assert predictor.classes == CLASSES
    assert predictor.size == SIZE
    assert predictor.manifest.backbone == "tiny"


@pytest.mark.parametrize("bad", [pixels(2).astype(np.float32), pixels(2)[0], pixels(2)[:, :4], pixels(2)[..., :1]])
def test_pixels_of_another_shape_or_type_are_refused(predictor, bad):
    with refused("other-shape", DataError, field="pixels"):
        predictor.probabilities(bad)


def test_a_draft_can_be_scored(tmp_path, whole, predictor):
    with artifact.draft(tmp_path / "run", whole) as unfinished:
        assert np.allclose(Predictor.load(unfinished.path).probabilities(pixels(3)), predictor.probabilities(pixels(3)), atol=1e-6)


# --- predict


def test_every_form_of_an_image_gives_the_same_labels(predictor, tmp_path):
    big = np.random.default_rng(1).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    path = tmp_path / "sign.png"
    path.write_bytes(encoded(big))
    found = predictor.predict([path, str(path), path.read_bytes(), big, Image.open(path)])
    assert [p.name for p in found] == [str(path), str(path), "image 2", "image 3", "image 4"]
    assert len({p.labels for p in found}) == 1
    expected = predictor.probabilities(images.load(big, SIZE)[None])[0]
    assert found[0].labels[0].label == CLASSES[expected.argmax()]
    assert found[0].labels[0].probability == pytest.approx(expected.max(), abs=1e-6)


@pytest.mark.parametrize("mode", ["1", "L", "P", "LA", "RGBA", "CMYK", "I;16"])
def test_a_pillow_image_of_any_mode_is_read_like_its_file(predictor, mode):
    image = Image.fromarray(pixels(1)[0])
    image = Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257) if mode == "I;16" else image.convert(mode)
    (found,) = predictor.predict([image])
    (expected,) = predictor.predict([encoded(image, "TIFF")])
    assert [r.label for r in found.labels] == [r.label for r in expected.labels]
    assert [r.probability for r in found.labels] == pytest.approx([r.probability for r in expected.labels], abs=1e-6)


def test_the_exif_orientation_of_a_pillow_image_is_applied(predictor):
    image = Image.fromarray(pixels(1)[0])
    image.getexif()[0x0112] = 6
    upright = Image.fromarray(pixels(1)[0]).transpose(Image.Transpose.ROTATE_270)
    assert predictor.predict([image])[0].labels == predictor.predict([upright])[0].labels


def test_fractions_and_other_numbers_are_read_as_training_reads_them(predictor):
    (image,) = pixels(1)
    found = predictor.predict([image, image / 255, image.astype(np.int64), image.astype(np.uint16) * 257, image.tolist()])
    assert len({p.labels for p in found}) == 1
    assert predictor.predict(np.stack([image, image]) / 255)[1].labels == found[0].labels


def test_prediction_and_evaluation_read_the_same_pixels(predictor):
    pictures = [Image.fromarray(image).convert(mode) for image, mode in zip(pixels(4), ("P", "CMYK", "HSV", "LA"), strict=True)]
    scored = predictor.probabilities_of(read((pictures, [0] * 4))).probabilities
    for prediction, row in zip(predictor.predict(pictures), scored, strict=True):
        by_class = dict(prediction.labels)
        assert [by_class[name] for name in CLASSES] == pytest.approx(row.tolist(), abs=1e-6)


def test_an_endless_iterator_is_predicted_in_bounded_memory(predictor):
    alive, most = weakref.WeakSet(), 0

    class Held:
        """An array whose live references are counted."""

        def __array__(self, dtype=None, copy=None):
            return pixels(1)[0]

    def many():
        nonlocal most
        for _ in range(BATCH * 40):
            picture = Held()
            alive.add(picture)
            most = max(most, len(alive))
            yield picture

    assert len(predictor.predict(many(), top=1)) == BATCH * 40
    assert most < BATCH * 20


def test_predict_stops_at_the_first_refusal(predictor):
    consumed = []

    def all_refused():
        for place in range(10_000):
            consumed.append(place)
            yield b"junk"

    with pytest.raises(ImageRefused, match="image 0: "):
        predictor.predict(all_refused())
    assert len(consumed) < 1000


def test_labels_are_ranked_and_limited(predictor):
    (all_of_them,) = predictor.predict(list(pixels(1)), top=99)
    values = [r.probability for r in all_of_them.labels]
    assert values == sorted(values, reverse=True)
    assert sorted(r.label for r in all_of_them.labels) == sorted(CLASSES)
    assert predictor.predict(list(pixels(1)), top=2)[0].labels == all_of_them.labels[:2]


def test_more_images_than_a_batch_keep_their_order(predictor):
    found = predictor.predict(pixels(BATCH + 5), top=1)
    best = predictor.probabilities(pixels(BATCH + 5)).argmax(axis=1)
    assert [p.labels[0].label for p in found] == [CLASSES[i] for i in best]
    assert found[-1].name == f"image {BATCH + 4}"


def test_a_bad_image_is_named(predictor, tmp_path):
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(encoded(pixels(1)[0], "JPEG")[:200])
    with pytest.raises(ImageRefused, match=r"broken[.]jpg: "):
        predictor.predict([broken])
    with pytest.raises(ImageRefused, match=r"gone[.]png: the file cannot be read; received No such file"):
        predictor.predict([tmp_path / "gone.png"])
    with pytest.raises(ImageRefused, match="image 1: not an image"):
        predictor.predict([pixels(1)[0], b"hello"])
    with pytest.raises(ImageRefused, match=r"image 0: .* \[0, 1\]"):
        predictor.predict([pixels(1)[0] / 2])
    with pytest.raises(ImageRefused, match="image 0: an image must be a path"):
        predictor.predict([3])


def test_a_single_image_has_a_single_prediction(predictor, tmp_path):
    image, path = pixels(1)[0], tmp_path / "sign.png"
    path.write_bytes(encoded(image))
    (expected,) = predictor.predict([image])
    for alone in (image, path.read_bytes(), bytearray(path.read_bytes()), Image.fromarray(image), image / 255):
        assert predictor.predict(alone) == expected
    for named in (path, str(path), np.array(str(path))):
        found = predictor.predict(named)
        assert (found.name, found.labels) == (str(path), expected.labels)
    assert predictor.predict_each(path) == ([predictor.predict(path)], [])


def test_a_single_image_that_cannot_be_read_is_named(predictor):
    with pytest.raises(ImageRefused, match=r"nowhere\.png"):
        predictor.predict("nowhere.png")
    with pytest.raises(ImageRefused):
        predictor.predict("a" * 5000)


def test_an_object_that_is_no_image_is_refused(predictor):
    with refused("not-a-sequence", DataError, field="images"):
        predictor.predict(3)


def test_a_folder_is_predicted_in_natural_order(predictor, tmp_path):
    for name in ("shot10.png", "shot9.png", "deep/shot1.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(encoded(pixels(1)[0]))
    names = [str(tmp_path / name) for name in ("deep/shot1.png", "shot9.png", "shot10.png")]
    assert [found.name for found in predictor.predict(tmp_path)] == names
    mixed = [pixels(1)[0], str(tmp_path), tmp_path / "shot9.png"]
    assert [found.name for found in predictor.predict(mixed)] == ["image 0", *names, names[1]]
    (tmp_path / "notes.txt").write_text("x")
    with pytest.warns(CrossroadsWarning, match="txt"):
        assert len(predictor.predict(tmp_path)) == 3


def test_arrays_of_paths_or_of_images_of_any_size_are_predicted(predictor, tmp_path):
    pictures = [Image.new("RGB", (8, 8), "red"), Image.new("RGB", (12, 9), "blue")]
    paths = [tmp_path / f"{place}.png" for place in range(2)]
    for picture, path in zip(pictures, paths, strict=True):
        picture.save(path)
    expected = predictor.predict(paths)
    assert predictor.predict(np.array([str(path) for path in paths])) == expected
    assert predictor.predict(np.array(paths)) == expected
    boxed = np.empty(2, object)
    boxed[:] = [np.asarray(picture) for picture in pictures]
    assert [found.labels for found in predictor.predict(boxed)] == [found.labels for found in expected]


def test_a_generator_of_images_is_consumed_once(predictor, tmp_path):
    for i, image in enumerate(pixels(BATCH + 3)):
        (tmp_path / f"{i:02d}.png").write_bytes(encoded(image))
    paths = sorted(tmp_path.glob("*.png"))
    expected = predictor.predict(paths)
    assert len(expected) == BATCH + 3
    assert predictor.predict(path for path in paths) == expected
    assert predictor.predict_each(path for path in paths) == (expected, [])
    assert predictor.predict_each(iter([])) == ([], [])


def test_predict_each_names_unreadable_images_and_predicts_the_others(predictor):
    images: list = list(pixels(BATCH + 5))
    images[2], images[BATCH + 1] = b"junk", b""
    found, refusals = predictor.predict_each(images, top=1)
    assert [p.name for p in found] == [f"image {i}" for i in range(BATCH + 5) if i not in (2, BATCH + 1)]
    assert [str(error).split(":")[0] for error in refusals] == ["image 2", f"image {BATCH + 1}"]
    best = predictor.probabilities(pixels(BATCH + 5)).argmax(axis=1)
    assert [p.labels[0].label for p in found] == [CLASSES[best[i]] for i in range(BATCH + 5) if i not in (2, BATCH + 1)]


def test_a_folder_without_images_is_refused(predictor, tmp_path):
    (tmp_path / "photos").mkdir()
    for place in (tmp_path, [tmp_path / "photos"]):
        with refused("no-images", DataError):
            predictor.predict(place)


def test_top_must_be_positive(predictor):
    with refused("out-of-range", DataError, field="top"):
        predictor.predict(list(pixels(1)), top=0)


# --- a data set


def test_a_data_set_is_scored_in_order(predictor):
    raws = [encoded(image) for image in pixels(BATCH * 3 + 5)]
    seen = []
    found = predictor.probabilities_of(dataset(raws), progress=lambda done, n: seen.append((done, n)))
    assert np.abs(found.probabilities - predictor.probabilities(pixels(len(raws)))).max() < 1e-6
    assert len(found.dataset) == len(raws)
    assert found.refusals == ()
    assert seen == sorted(seen)
    assert seen[-1] == (len(raws), len(raws))


def test_rows_that_are_not_images_are_left_out_and_listed(predictor):
    raws = [encoded(image) for image in pixels(6)]
    raws[1], raws[4] = b"junk", None
    probabilities, kept, refusals, _ = predictor.probabilities_of(dataset(raws))
    assert np.abs(probabilities - predictor.probabilities(pixels(6)[[0, 2, 3, 5]])).max() < 1e-6
    assert kept.indices.tolist() == [0, 2, 3, 5]
    assert [(r.row, r.name) for r in refusals] == [(1, "1.png"), (4, "4.png")]
    assert "not an image" in refusals[0].reason


def test_strict_makes_the_first_refusal_an_error(predictor):
    with pytest.raises(DataError, match=r"1[.]png: not an image"):
        predictor.probabilities_of(dataset([encoded(pixels(1)[0]), b"junk"]), strict=True)


@pytest.mark.parametrize(("raws", "message"), [([], "received 0 rows"), ([b"junk"], r"1 refused, the first 0[.]png")])
def test_a_data_set_without_an_image_is_an_error(predictor, raws, message):
    with pytest.raises(DataError, match=message):
        predictor.probabilities_of(dataset(raws))


# --- loading


def test_only_what_inference_reads_is_needed_and_verified(folder, tmp_path):
    run = Path(shutil.copytree(folder, tmp_path / "run"))
    for name in ("model.keras", "history.csv", "metrics.json", "recipe.toml"):
        (run / name).unlink()
    assert Predictor.load(run).classes == CLASSES
    (run / "model.bin").write_bytes(b"\0" * (run / "model.bin").stat().st_size)
    with refused("changed-file", ArtifactError):
        Predictor.load(run)


def test_a_graph_of_other_classes_is_refused(folder, tmp_path):
    from crossroads.artifact._manifest import manifest_text

    run = Path(shutil.copytree(folder, tmp_path / "run"))
    facts = json.loads((run / "crossroads.json").read_text())
    del facts["digest"]
    (run / "crossroads.json").write_text(manifest_text({**facts, "classes": ["one", "two"]}))
    with refused("other-signature", ArtifactError, received="u8[?,8,8,3] to f32[?,5]"):
        Predictor.load(run)


@pytest.mark.parametrize(
    "other", [{"mode": "stretch"}, {"filter": "cubic"}, {"size": 0}, {"crop_fraction": 0}, {"crop_fraction": "all"}]
)
def test_an_unknown_way_to_resize_is_refused(folder, tmp_path, other):
    from crossroads.artifact._manifest import manifest_text

    run = Path(shutil.copytree(folder, tmp_path / "run"))
    facts = json.loads((run / "crossroads.json").read_text())
    del facts["digest"]
    (run / "crossroads.json").write_text(manifest_text({**facts, "preprocessing": {**facts["preprocessing"], **other}}))
    with refused("damaged-manifest", ArtifactError):
        Predictor.load(run)


def test_a_folder_that_is_not_an_artifact_is_refused(tmp_path):
    with refused("not-an-artifact", ArtifactError):
        Predictor.load(tmp_path)


def test_predicting_loads_neither_keras_nor_tensorflow_nor_scikit_learn(folder, tmp_path):
    path = tmp_path / "sign.png"
    path.write_bytes(encoded(pixels(1)[0]))
    program = (
        "import sys, json; from crossroads.predictor import Predictor\n"
        "light = sorted({m.split('.')[0] for m in sys.modules})\n"
        f"label = Predictor.load({str(folder)!r}).predict([{str(path)!r}])[0].labels[0].label\n"
        "print(json.dumps([light, sorted({m.split('.')[0] for m in sys.modules}), label]))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], env={**os.environ}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    light, after, label = json.loads(done.stdout)
    heavy = {"keras", "tensorflow", "jax", "torch", "sklearn", "scipy", "pandas", "h5py", "rich", "typer"}
    assert heavy.isdisjoint(after)
    assert "openvino" not in light
    assert "openvino" in after
    assert label in CLASSES
