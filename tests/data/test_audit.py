"""The findings of an audit: their codes, severities, counts and examples."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from crossroads.data import _pool
from crossroads.data.audit import Audit, Finding, audit
from crossroads.data.dataset import NO_SPLIT, TEST, TRAIN, VALIDATION, Dataset
from crossroads.data.readers import read


class Held:
    """Images in memory that remember how often each was read."""

    def __init__(self, items: Sequence[object]) -> None:
        self.items = items
        self.reads = [0] * len(items)

    def __len__(self) -> int:
        return len(self.items)

    def name(self, index: int) -> str:
        return f"{index}.png"

    def read(self, index: int) -> bytes | np.ndarray:
        self.reads[index] += 1
        return self.items[index]


def dataset(
    items: Sequence[object],
    labels: Sequence[int] | None = None,
    groups: Sequence[int] | None = None,
    splits: Sequence[int] | None = None,
    classes: Sequence[str] = ("a", "b"),
) -> Dataset:
    n = len(items)
    return Dataset(
        "held",
        Held(items),
        np.arange(n),
        np.array([i % 2 for i in range(n)] if labels is None else labels, np.int32),
        tuple(classes),
        None if groups is None else np.array(groups, np.int64),
        None if splits is None else np.array(splits, np.uint8),
    )


def picture(seed: int, size: int = 32) -> np.ndarray:
    """A smooth random picture, unlike any other."""
    coarse = np.random.default_rng(seed).integers(0, 256, (5, 5, 3), np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((size, size), Image.Resampling.BICUBIC))


def pictures(n: int, start: int = 0) -> list[object]:
    return [picture(start + i) for i in range(n)]


def jpeg(image: np.ndarray, quality: int = 80, size: int | None = None) -> bytes:
    buffer = io.BytesIO()
    made = Image.fromarray(image)
    (made if size is None else made.resize((size, size))).save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def found(report: Audit, check: str) -> Finding:
    matches = [finding for finding in report.findings if finding.code == check]
    assert len(matches) == 1, (check, [finding.code for finding in report.findings])
    return matches[0]


def checks(report: Audit) -> set[str]:
    return {finding.code for finding in report.findings}


def test_sound_data_has_no_findings() -> None:
    data = dataset(pictures(24), groups=[i // 2 for i in range(24)])
    seen: list[tuple[int, int]] = []
    report = audit(data, progress=lambda done, total: seen.append((done, total)))
    assert checks(report) == set()
    assert (report.n, report.readable, report.groups, report.grey) == (24, 24, 12, 0)
    assert report.counts == {"a": 12, "b": 12}
    assert report.classes == ("a", "b")
    assert report.sides == (32, 32, 32)
    assert report.splits == {}
    assert seen == [(24, 24)]


def test_each_image_is_read_once() -> None:
    data = dataset(pictures(130))
    audit(data)
    assert data.images.reads == [1] * 130


def test_unreadable_images_are_listed_with_their_reason() -> None:
    items = [*pictures(20), b"", b"text", jpeg(picture(99))[:200]]
    report = audit(dataset(items))
    finding = found(report, "unreadable")
    assert (finding.severity, finding.count) == ("warning", 3)
    assert finding.examples[0].startswith("20.png: the image file is empty")
    assert "truncated" in finding.examples[2]
    assert (report.n, report.readable) == (23, 20)
    assert found(audit(dataset([b"", b""])), "unreadable").severity == "error"


@pytest.mark.parametrize(
    ("image", "blank"),
    [
        pytest.param(np.full((40, 40, 3), (200, 10, 10), np.uint8), True, id="one colour"),
        pytest.param(np.zeros((32, 32), np.uint8), True, id="black"),
        pytest.param((8 + np.random.default_rng(0).integers(-4, 5, (32, 32, 3))).astype(np.uint8), True, id="nearly black"),
        pytest.param((80 + np.random.default_rng(0).integers(-4, 5, (32, 32, 3))).astype(np.uint8), False, id="pale but lit"),
        pytest.param((picture(5) // 12).astype(np.uint8), False, id="dark but seen"),
    ],
)
def test_blank_and_nearly_black_images(image: np.ndarray, blank: bool) -> None:
    report = audit(dataset([*pictures(20), image]))
    assert ("blank" in checks(report)) == blank
    if blank:
        assert found(report, "blank").examples == ("20.png (a)",)


def deep(seed: int, top: int) -> bytes:
    """A picture of 16 bits with values up to `top`, as an encoded file."""
    file = io.BytesIO()
    Image.fromarray((picture(seed)[..., 0].astype(np.uint32) * top // 255).astype(np.uint16)).save(file, "PNG")
    return file.getvalue()


@pytest.mark.parametrize(
    ("items", "count", "figure"),
    [
        ([deep(i, 900) for i in range(20)], 20, "of 65,535"),
        ([deep(i, 900) for i in range(4)] + [deep(i, 60_000) for i in range(4, 20)], 4, "of 65,535"),
        ([(picture(i) > 127).astype(np.uint8) for i in range(20)], 20, "0 and 1 in a range of 0..255"),
        ([picture(i) // 16 for i in range(12)] + [picture(i) for i in range(12, 20)], 12, "15 of 255"),
    ],
)
def test_dark_images_are_not_reported_as_blank(items: list[object], count: int, figure: str) -> None:
    report = audit(dataset(items))
    finding = found(report, "value-range")
    assert finding.count == count
    assert figure in finding.summary
    assert "multiply" in finding.hint
    assert "blank" not in checks(report)


def test_a_few_dark_scenes_are_not_reported_and_a_black_16_bit_image_is_blank() -> None:
    report = audit(dataset([picture(i) // 16 for i in range(3)] + [picture(i) for i in range(3, 20)] + [deep(0, 0)]))
    assert "value-range" not in checks(report)
    assert "20.png (a)" in found(report, "blank").examples


def test_a_class_that_cannot_be_read_at_all_is_an_error() -> None:
    finding = found(audit(dataset([b"\xff\x0ajxl" if i % 2 else picture(i) for i in range(20)])), "unreadable")
    assert finding.severity == "error"
    assert "'b'" in finding.summary
    assert "JPEG XL" in finding.examples[0]


def test_exact_copies_are_duplicates() -> None:
    same = picture(7)
    report = audit(dataset([*pictures(20, 50), same, picture(8), same, picture(9), same]))
    finding = found(report, "exact-duplicates")
    assert (finding.severity, finding.count) == ("warning", 2)
    assert finding.examples == ("20.png (a) = 22.png (a)", "20.png (a) = 24.png (a)")
    assert "near-duplicates" not in checks(report)


@pytest.mark.parametrize("size", [None, 24, 64])
def test_re_encoded_and_scaled_copies_are_near_duplicates(size: int | None) -> None:
    items = [*pictures(20, 50), *(item for i in range(10) for item in (picture(i, 48), jpeg(picture(i, 48), 60, size)))]
    report = audit(dataset(items, labels=[0] * 40, classes=("a",)), examples=10)
    finding = found(report, "near-duplicates")
    assert finding.count >= 8
    assert set(finding.examples) <= {f"{i}.png (a) = {i + 1}.png (a)" for i in range(20, 40, 2)}
    mixed = audit(dataset(items, labels=[i % 2 for i in range(40)]))
    assert found(mixed, "near-duplicates-with-different-labels").severity == "error"
    grouped = audit(dataset(items, labels=[0] * 40, groups=[i // 2 for i in range(40)], classes=("a",)))
    assert found(grouped, "near-duplicates-in-a-group").severity == "info"
    assert "near-duplicates" not in checks(grouped)


def test_one_image_under_two_labels_is_an_error() -> None:
    report = audit(dataset([*pictures(20, 50), picture(1), picture(1)]))
    finding = found(report, "exact-duplicates-with-different-labels")
    assert (finding.severity, finding.count, finding.examples) == ("error", 1, ("20.png (a) = 21.png (b)",))
    assert "which label is right" in finding.hint


def test_an_image_or_group_in_two_splits_is_an_error() -> None:
    items = [*pictures(20, 50), picture(1), picture(2), picture(1), jpeg(picture(2), 90)]
    splits = [TRAIN] * 16 + [TEST] * 4 + [NO_SPLIT, TRAIN, TEST, VALIDATION]
    report = audit(dataset(items, groups=[*range(19), 3, 20, 21, 22, 23], splits=splits, labels=[0, 1] * 10 + [0, 1, 0, 1]))
    assert found(report, "exact-duplicates-across-splits").examples == ("20.png (a) = 22.png (a)",)
    assert found(report, "near-duplicates-across-splits").examples == ("21.png (b) = 23.png (b)",)
    group = found(report, "groups-across-splits")
    assert (group.severity, group.count, group.examples) == ("error", 1, ("the group of 3.png",))
    assert report.splits == {"none": 1, "train": 17, "validation": 1, "test": 5}
    # Without a split in the data, the same copies are only duplicates.
    assert not any("across-splits" in check for check in checks(audit(dataset(items))))


def test_a_class_missing_from_a_split() -> None:
    labels = [0, 1] * 10 + [0, 0] + [0, 2]
    splits = [TRAIN] * 20 + [VALIDATION] * 2 + [TEST] * 2
    report = audit(dataset(pictures(24), labels=labels, splits=splits, classes=("a", "b", "c")))
    severities = {finding.summary: finding.severity for finding in report.findings if finding.code == "classes-missing-from-split"}
    assert severities == {
        "train has no image of 1 of 3 classes": "error",
        "validation has no image of 2 of 3 classes": "warning",
        "test has no image of 1 of 3 classes": "warning",
    }


def test_unbalanced_small_and_single_classes() -> None:
    report = audit(dataset(pictures(33), labels=[0] * 30 + [1] * 2 + [2], classes=("a", "b", "c", "d")), min_images=3)
    assert found(report, "classes-unbalanced").severity == "warning"
    assert "30 times" in found(report, "classes-unbalanced").summary
    assert found(report, "classes-unbalanced").examples == ("a (30)", "c (1)")
    assert found(report, "small-classes").examples == ("b (2)", "c (1)", "d (0)")
    assert found(audit(dataset(pictures(12), labels=[1] * 12)), "single-class").examples == ("b",)
    assert found(audit(dataset([])), "no-images").severity == "error"


def test_errors_come_first_and_the_json_report_is_reproducible(monkeypatch: pytest.MonkeyPatch) -> None:
    items = [*pictures(40), b"text", picture(3), picture(3)]
    reports = []
    for threads in (1, 4):
        monkeypatch.setattr(_pool, "usable_processors", lambda most, threads=threads: threads)
        reports.append(audit(dataset(items)))
    first, second = reports
    order = [finding.severity for finding in first.findings]
    assert order == sorted(order, key=["error", "warning", "info"].index)
    assert order[0] == "error"
    text = json.dumps(first.to_json(), allow_nan=False)
    assert text == json.dumps(second.to_json())
    assert json.loads(text)["findings"][0]["code"] == "exact-duplicates-with-different-labels"
    assert json.loads(text)["counts"] == {"a": 22, "b": 21}


def test_grey_images_are_counted() -> None:
    grey = [np.repeat(picture(i)[..., :1], 3, 2) for i in range(6)]
    assert audit(dataset([*pictures(20, 50), *grey])).grey == 6


def test_mirrored_classes_are_named() -> None:
    arrows = [arrow(i, left=i % 2 == 0) for i in range(80)]
    report = audit(dataset(arrows, classes=("left", "right")))
    assert report.mirror_classes == (("left", "right"),)
    assert report.asymmetric_classes == ("left", "right")
    assert found(report, "mirror-classes").examples == ("left | right",)


def arrow(seed: int, *, left: bool) -> np.ndarray:
    """A noisy arrow head at a random place."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:32, :32]
    shift_x, shift_y = rng.integers(-2, 3, 2)
    head = np.abs(y - 16 - shift_y) <= (x - 6 - shift_x) * 0.6
    head &= x < 26
    grey = rng.integers(20, 90) + head * rng.integers(90, 150) + rng.integers(0, 15, (32, 32))
    image = np.repeat(grey.astype(np.uint8)[..., None], 3, 2)
    return image if left else image[:, ::-1].copy()


def test_photographs_are_symmetric_and_have_no_copies(shared_data: Path) -> None:
    report = audit(read(shared_data / "ants_bees.tar"))
    assert (report.n, report.readable) == (398, 398)
    assert report.splits == {"train": 245, "validation": 153}
    assert report.symmetric_classes == ("ants", "bees")
    assert report.sides[0] < report.sides[1] < report.sides[2]
    assert checks(report) == set()


def test_the_small_pickle_has_no_symmetric_class(shared_data: Path) -> None:
    report = audit(read(shared_data / "small_traffic_set" / "small_train_traffic.p"))
    assert report.n == report.readable == 100
    assert len(report.asymmetric_classes) >= 3


@pytest.mark.real
def test_the_signs_of_gtsrb(shared_data: Path) -> None:
    report = audit(read(shared_data / "gtsrb_train_32px.tar.xz"))
    assert (report.n, report.readable, report.groups) == (39_209, 39_209, 1_307)
    assert found(report, "blank").count == 46
    assert {("19", "20"), ("33", "34"), ("36", "37"), ("38", "39")} <= set(report.mirror_classes)
    assert len(report.mirror_classes) <= 5
    assert "12" in report.symmetric_classes  # priority road: a square on its corner
    assert not any(finding.severity == "error" for finding in report.findings)


def test_classes_too_small_for_three_splits_are_reported() -> None:
    few = audit(dataset(pictures(14), [0] * 12 + [1] * 2))
    assert found(few, "scarce-classes").severity == "warning"
    assert found(few, "scarce-classes").examples == ("b (2 images)",)
    grouped = audit(dataset(pictures(24), [0] * 12 + [1] * 12, groups=[*range(12), *([90] * 6), *([91] * 6)]))
    assert found(grouped, "scarce-classes").examples == ("b (2 groups)",)


@pytest.mark.parametrize(("top", "hint"), [(4095, "such as 16 if they have 12 bits"), (253, "such as 256 if they have 8 bits")])
@pytest.mark.parametrize("shape", ["array", "list", "splits"])
def test_the_value_range_of_images_in_memory_is_that_of_the_given_values(top: int, hint: str, shape: str) -> None:
    images = np.random.default_rng(4).integers(0, top + 1, (8, 12, 12)).astype(np.uint16)
    images[:, 0, 0] = top
    labels = ["a", "b"] * 4
    source = {
        "array": (images, labels),
        "list": (list(images), labels),
        "splits": ((images[:4], labels[:4]), (images[4:], labels[4:])),
    }
    report = audit(read(source[shape]))
    finding = found(report, "value-range")
    assert f"no value above {top:,} of 65,535" in finding.summary
    assert hint in finding.hint
    assert finding.count == 8
    assert all(finding.hint in note for note in report.notes)


def test_dark_floats_in_memory_are_measured_from_0_to_1() -> None:
    images = np.random.default_rng(4).random((6, 12, 12)) * 0.05
    assert "of 1 and" in found(audit(read((images, ["a", "b"] * 3))), "value-range").summary
