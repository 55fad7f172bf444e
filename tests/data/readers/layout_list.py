"""Layouts as public data sets and tools write them: how each looks, and whether it is read or refused."""

from __future__ import annotations

import gzip
import io
import json
import pickle
import struct
import tarfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from making import write

Files = Mapping[str, "str | bytes"]


@dataclass(frozen=True)
class Layout:
    """One layout.

    Attributes:
        name: As the docs call it.
        files: The contents of each file, or a function that writes them into a folder.
        classes: The classes that are read; empty if the layout is refused.
        counts: The number of images that are read of each split.
        groups: The number of groups that are read.
        codes: Codes that the notes must have, or the code of the refusal.
        mentions: Facts that the notes or the refusal must mention: folders, columns, formats, counts of images.
    """

    name: str
    files: Files | Callable[[Path], None]
    classes: tuple[str, ...] = ()
    counts: Mapping[str, int] = field(default_factory=dict)
    groups: int = 0
    codes: tuple[str, ...] = ()
    mentions: tuple[str, ...] = ()

    def build(self, folder: Path) -> Path:
        folder.mkdir()
        if callable(self.files):
            self.files(folder)
        else:
            write(folder, dict(self.files))
        return folder


def images(*patterns: str, n: int = 3) -> dict[str, str | bytes]:
    """Returns ``n`` files for each pattern. Readers open no image, so any bytes will do."""
    return {pattern.format(number): b"\xff\xd8" for pattern in patterns for number in range(n)}


def table(header: str, *rows: str) -> str:
    return "\n".join((header, *rows)) + "\n"


def lines(pattern: str, n: int = 3, first: int = 0) -> tuple[str, ...]:
    return tuple(pattern.format(number) for number in range(first, first + n))


def trees(*parents: str, classes: tuple[str, ...] = ("cat", "dog"), n: int = 3, ext: str = "jpg") -> dict[str, str | bytes]:
    """Returns class folders below each of `parents`. A parent ends with a slash or is empty."""
    return images(*(f"{parent}{name}/{{}}.{ext}" for parent in parents for name in classes), n=n)


def json_lines(*records: dict[str, object]) -> str:
    return "".join(json.dumps(record) + "\n" for record in records)


CAT_DOG = ("cat", "dog")


def _webdataset(folder: Path) -> None:
    for number, split in enumerate(("train", "train", "val")):
        with tarfile.open(folder / f"{split}-{number:06d}.tar", "w") as tar:
            for sample in range(4):
                for suffix, raw in (("jpg", b"\xff\xd8"), ("cls", f"{sample % 2}".encode())):
                    info = tarfile.TarInfo(f"{number}{sample:03d}.{suffix}")
                    info.size = len(raw)
                    tar.addfile(info, io.BytesIO(raw))


def _cifar10(folder: Path) -> None:
    place = folder / "cifar-10-batches-py"
    place.mkdir()
    for name in ("data_batch_1", "data_batch_2", "test_batch"):
        batch = {b"data": np.zeros((4, 3072), np.uint8), b"labels": [0, 1, 1, 0], b"filenames": [b"a.png"] * 4}
        (place / name).write_bytes(pickle.dumps(batch))
    (place / "batches.meta").write_bytes(pickle.dumps({b"label_names": [b"cat", b"dog"]}))


def _cifar100(folder: Path) -> None:
    for name, n in (("train", 4), ("test", 2)):
        batch = {b"data": np.zeros((n, 3072), np.uint8), b"fine_labels": [n_ % 2 for n_ in range(n)], b"coarse_labels": [0] * n}
        (folder / name).write_bytes(pickle.dumps(batch))
    (folder / "meta").write_bytes(pickle.dumps({b"fine_label_names": [b"cat", b"dog"], b"coarse_label_names": [b"pet"]}))


def _mnist(folder: Path) -> None:
    for name, n in (("train", 6), ("t10k", 4)):
        pixels = struct.pack(">IIII", 0x803, n, 28, 28) + bytes(n * 784)
        labels = struct.pack(">II", 0x801, n) + bytes(number % 2 for number in range(n))
        (folder / f"{name}-images-idx3-ubyte.gz").write_bytes(gzip.compress(pixels))
        (folder / f"{name}-labels-idx1-ubyte.gz").write_bytes(gzip.compress(labels))


def _npz(**sizes: int) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        arrays: dict[str, np.ndarray] = {}
        for split, n in sizes.items():
            arrays[f"{split}_images"] = np.zeros((n, 28, 28), np.uint8)
            arrays[f"{split}_labels"] = (np.arange(n) % 2).reshape(-1, 1)
        np.savez(folder / "pathmnist.npz", **arrays)  # type: ignore[arg-type]

    return make


def _keras_npz(folder: Path) -> None:
    pixels, labels = np.zeros((4, 28, 28), np.uint8), np.array([0, 1, 0, 1], np.uint8)
    np.savez(folder / "mnist.npz", x_train=pixels, y_train=labels, x_test=pixels[:2], y_test=labels[:2])


def _quick_draw(folder: Path) -> None:
    for name in CAT_DOG:
        np.save(folder / f"full_numpy_bitmap_{name}.npy", np.zeros((3, 784), np.uint8))


def _parquet(folder: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    (folder / "data").mkdir()
    features = {"image": {"_type": "Image"}, "label": {"names": list(CAT_DOG), "_type": "ClassLabel"}}
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    for name in ("train-00000-of-00002", "train-00001-of-00002", "test-00000-of-00001"):
        cells = pa.array([{"bytes": b"\xff\xd8", "path": "1.jpg"}] * 4, pa.struct([("bytes", pa.binary()), ("path", pa.string())]))
        columns = pa.table({"image": cells, "label": pa.array([0, 1, 1, 0])}).replace_schema_metadata(metadata)
        pq.write_table(columns, folder / "data" / f"{name}.parquet")
    (folder / "README.md").write_text("---\n")


_HAM = table("lesion_id,image_id,dx,dx_type,age", *(f"HAM_{n // 2},ISIC_{n:03d},{('mel', 'nv')[n % 2]},histo,50" for n in range(8)))
_COCO = json.dumps({"info": {}, "licenses": [], "images": [{"id": 1, "file_name": "0.jpg"}], "annotations": [], "categories": []})
_EDGE = json.dumps(
    {
        "version": 1,
        "files": [
            {"path": f"{place}/{name}.{n}.jpg", "category": place, "label": {"type": "label", "label": name}}
            for place in ("training", "testing")
            for name in CAT_DOG
            for n in range(3)
        ],
    }
)
_STUDIO = json.dumps([{"data": {"image": "/data/upload/1/0.jpg"}, "annotations": [{"result": [{"value": {"choices": ["cat"]}}]}]}])

LAYOUTS = (
    # Kaggle
    Layout(
        "Intel Image Classification",
        {**trees("seg_train/seg_train/", "seg_test/seg_test/"), **images("seg_pred/seg_pred/{}.jpg")},
        CAT_DOG,
        {"train": 6, "test": 6},
        codes=("folder-read-as-split", "folder-not-a-split"),
        mentions=("3 images in seg_pred/",),
    ),
    Layout(
        "Cats and dogs, training_set", trees("training_set/training_set/", "test_set/test_set/"), CAT_DOG, {"train": 6, "test": 6}
    ),
    Layout(
        "Chest X-ray",
        {**trees("c/train/", "c/val/", "c/test/", "c/c/train/")},
        CAT_DOG,
        {"train": 6, "validation": 6, "test": 6},
        codes=("folder-not-a-split",),
        mentions=("6 images in c/c/",),
    ),
    Layout(
        "ASL alphabet",
        {**trees("asl_alphabet_train/asl_alphabet_train/"), **images("asl_alphabet_test/asl_alphabet_test/{}_test.jpg")},
        CAT_DOG,
        {"train": 6},
        codes=("folder-without-labels",),
        mentions=("3 images in asl_alphabet_test/",),
    ),
    Layout(
        "Fruits-360",
        {
            **trees("f/Training/", "f/Test/", classes=("Apple 1", "Kiwi")),
            **images("f/test-multiple_fruits/{}.jpg"),
            "f/LICENSE": "x",
        },
        ("Apple 1", "Kiwi"),
        {"train": 6, "test": 6},
        codes=("folder-not-a-split",),
        mentions=("3 images in f/test-multiple_fruits/",),
    ),
    Layout(
        "New Plant Diseases",
        {
            **trees("New Plant Diseases/New Plant Diseases/train/", "New Plant Diseases/New Plant Diseases/valid/"),
            **images("test/test/{}.JPG"),
        },
        codes=("ambiguous-layout",),
        mentions=("New Plant Diseases",),
    ),
    Layout(
        "Dog breed identification",
        {
            **images("train/a{}.jpg", n=4),
            **images("test/b{}.jpg"),
            "labels.csv": table("id,breed", "a0,cat", "a1,dog", "a2,cat", "a3,dog"),
            "sample_submission.csv": table("id,cat,dog", "b0,0.5,0.5", "b1,0.5,0.5"),
        },
        CAT_DOG,
        {"": 4},
        codes=("images-not-in-table", "label-column"),
        mentions=("3 images in test/", "breed"),
    ),
    Layout(
        "Cassava leaf disease",
        {
            **images("train_images/{}.jpg", "test_images/{}.jpg"),
            "train.csv": table("image_id,label", "0.jpg,3", "1.jpg,1", "2.jpg,3"),
            "label_num_to_disease_map.json": '{"0": "CBB", "1": "CBSD"}',
        },
        ("1", "3"),
        {"": 3},
        codes=("images-not-in-table",),
        mentions=("3 images in test_images/",),
    ),
    Layout(
        "Dogs vs. cats",
        images("train/cat.{}.jpg", "train/dog.{}.jpg", "test1/{}.jpg", n=6),
        codes=("no-labels",),
        mentions=("cat, dog", "12 images in train/"),
    ),
    Layout(
        "CIFAR-10 competition",
        {**images("train/{}.png", "test/{}.png", n=4), "trainLabels.csv": table("id,label", "0,cat", "1,dog", "2,cat", "3,dog")},
        CAT_DOG,
        {"": 4},
        codes=("images-not-in-table",),
        mentions=("4 images in test/",),
    ),
    Layout(
        "Plant pathology, one column per class",
        {
            **images("images/Train_{}.jpg", "images/Test_{}.jpg"),
            "train.csv": table("image_id,healthy,rust", "Train_0,1,0", "Train_1,0,1", "Train_2,0,1"),
            "test.csv": table("image_id", *lines("Test_{}")),
        },
        ("healthy", "rust"),
        {"": 3},
        codes=("images-not-in-table",),
        mentions=("3 images in images/",),
    ),
    Layout(
        "Diabetic retinopathy",
        {**images("train/{}_left.jpeg", n=2), "trainLabels.csv": table("image,level", "0_left,0", "1_left,4")},
        ("0", "4"),
        {"": 2},
        codes=("label-column",),
        mentions=("level",),
    ),
    Layout(
        "HAM10000",
        {
            **images("HAM10000_images_part_1/ISIC_00{}.jpg", "HAM10000_images_part_2/ISIC_01{}.jpg", n=8),
            "HAM10000_metadata.csv": _HAM,
        },
        ("mel", "nv"),
        {"": 8},
        codes=("label-column", "group-column-ignored", "images-not-in-table"),
        mentions=("'dx'", "lesion_id", "8 images in HAM10000_images_part_2/"),
    ),
    Layout(
        "Sports, a table beside the folders",
        {
            **trees("train/", "test/"),
            "sports.csv": table(
                "class id,filepaths,labels,data set",
                *(
                    f"{c},{s}/{name}/{n}.jpg,{name},{s}"
                    for s in ("train", "test")
                    for c, name in enumerate(CAT_DOG)
                    for n in range(3)
                ),
            ),
        },
        CAT_DOG,
        {"train": 6, "test": 6},
        codes=("label-column", "split-column"),
        mentions=("data set",),
    ),
    Layout(
        "COVID-19 radiography, masks beside images",
        images("covid/images/{}.png", "normal/images/{}.png", "covid/masks/{}.png", "normal/masks/{}.png"),
        ("covid", "normal"),
        {"": 6},
        codes=("masks-ignored",),
        mentions=("6 images",),
    ),
    Layout(
        "FER2013, pixels in a table",
        {"fer2013.csv": table("emotion,pixels,Usage", "0,1 2 3,Training")},
        codes=("unknown-layout",),
        mentions=("pixels",),
    ),
    Layout(
        "MNIST as CSV",
        {"train.csv": table(",".join(["label", *lines("pixel{}", 784)]), ",".join(["1"] * 785))},
        codes=("unknown-layout",),
        mentions=("pixels",),
    ),
    Layout(
        "NIH chest X-ray, several labels",
        {
            **images("images_001/images/{}.png", "images_002/images/1{}.png"),
            "Data_Entry_2017.csv": table("Image Index,Finding Labels,Patient ID", "0.png,Mass|Nodule,1", "1.png,Mass,1"),
        },
        codes=("several-labels",),
        mentions=("Mass|Nodule",),
    ),
    Layout(
        "Kaggle's GTSRB",
        {**images("Train/20/00020_00000_0000{}.png", "Train/3/00003_00000_0000{}.png")},
        ("3", "20"),
        {"": 6},
        groups=2,
    ),
    # Roboflow
    Layout(
        "Roboflow, folders",
        {**trees("train/", "valid/", "test/"), "README.roboflow.txt": "x"},
        CAT_DOG,
        {"train": 6, "validation": 6, "test": 6},
    ),
    Layout(
        "Roboflow, multi-class CSV",
        {
            **images("train/a{}.jpg", "valid/b{}.jpg"),
            "train/_classes.csv": table("filename, cat, dog", "a0.jpg, 1, 0", "a1.jpg, 0, 1", "a2.jpg, 0, 0"),
            "valid/_classes.csv": table("filename, cat, dog", "b0.jpg, 1, 0", "b1.jpg, 0, 1", "b2.jpg, 0, 1"),
        },
        CAT_DOG,
        {"train": 2, "validation": 3},
        codes=("rows-without-class",),
        mentions=("1 row", "train/_classes.csv"),
    ),
    Layout(
        "Roboflow, multi-label CSV",
        {
            **images("train/a{}.jpg"),
            "train/_classes.csv": table("filename, cat, dog", "a0.jpg, 1, 0", "a1.jpg, 1, 1", "a2.jpg, 0, 1"),
        },
        codes=("several-labels",),
        mentions=("line 3",),
    ),
    Layout(
        "Roboflow, boxes in a CSV",
        {
            **images("train/a{}.jpg"),
            "train/_annotations.csv": table(
                "filename,width,height,class,xmin,ymin,xmax,ymax", "a0.jpg,9,9,cat,0,0,4,4", "a0.jpg,9,9,dog,4,4,9,9"
            ),
        },
        codes=("several-labels",),
        mentions=("line 2", "line 3"),
    ),
    Layout(
        "Roboflow, COCO",
        {**images("train/{}.jpg", "valid/{}.jpg"), "train/_annotations.coco.json": _COCO},
        codes=("no-labels",),
        mentions=("COCO",),
    ),
    Layout(
        "Roboflow, YOLO",
        {**images("train/images/{}.jpg", "valid/images/{}.jpg"), "train/labels/0.txt": "0 .5 .5 .1 .1", "data.yaml": "nc: 1"},
        codes=("no-labels",),
        mentions=("YOLO",),
    ),
    # Hugging Face
    Layout("Hugging Face ImageFolder", trees("train/", "test/"), CAT_DOG, {"train": 6, "test": 6}),
    Layout(
        "Hugging Face metadata.csv",
        {
            **images("train/{}.png", "test/{}.png"),
            "train/metadata.csv": table("file_name,label", "0.png,cat", "1.png,dog", "2.png,dog"),
            "test/metadata.csv": table("file_name,label", "0.png,cat", "1.png,dog", "2.png,dog"),
        },
        CAT_DOG,
        {"train": 3, "test": 3},
    ),
    Layout(
        "Hugging Face metadata.jsonl",
        {
            **images("{}.png", n=2),
            "metadata.jsonl": json_lines(*({"file_name": f"{n}.png", "label": name} for n, name in enumerate(CAT_DOG))),
        },
        CAT_DOG,
        {"": 2},
    ),
    Layout(
        "Hugging Face captions",
        {
            **images("{}.png", n=2),
            "metadata.jsonl": json_lines(*({"file_name": f"{n}.png", "text": "a small cat", "seed": n} for n in range(2))),
        },
        codes=("no-label-column",),
        mentions=("text",),
    ),
    Layout("Hugging Face Parquet shards", _parquet, CAT_DOG, {"train": 8, "test": 4}),
    Layout(
        "Hugging Face save_to_disk",
        {"train/data-00000-of-00001.arrow": b"ARROW1", "train/state.json": "{}", "dataset_dict.json": "{}"},
        codes=("unknown-layout",),
        mentions=("Arrow", "to_parquet"),
    ),
    # torchvision and its data sets
    Layout("torchvision ImageFolder", trees(""), CAT_DOG, {"": 6}),
    Layout("MNIST, raw", _mnist, ("0", "1"), {"train": 6, "test": 4}),
    Layout("CIFAR-10, Python version", _cifar10, CAT_DOG, {"train": 8, "test": 4}),
    Layout("CIFAR-100, Python version", _cifar100, CAT_DOG, {"train": 4, "test": 2}, codes=("fine-labels",)),
    Layout(
        "CIFAR-10 and STL-10, binary",
        {"data_batch_1.bin": b"x", "batches.meta.txt": "cat\ndog\n"},
        codes=("unknown-layout",),
        mentions=("binary", "Python version"),
    ),
    Layout("Caltech-101", {**trees("101_ObjectCategories/"), "Annotations/cat/annotation_0001.mat": b"x"}, CAT_DOG, {"": 6}),
    Layout(
        "Food-101",
        {
            **trees("food-101/images/", n=4),
            "food-101/meta/train.txt": "\n".join(f"{name}/{n}" for name in CAT_DOG for n in range(3)),
            "food-101/meta/test.txt": "\n".join(f"{name}/3" for name in CAT_DOG),
            "food-101/meta/classes.txt": "cat\ndog\n",
        },
        CAT_DOG,
        {"train": 6, "test": 2},
        codes=("splits-from-lists",),
        mentions=("food-101/meta/",),
    ),
    Layout(
        "Oxford-IIIT Pet",
        {
            **images("images/Abyssinian_{}.jpg", "images/Boxer_{}.jpg"),
            "annotations/trainval.txt": "Abyssinian_0 1 1 1\nBoxer_0 2 2 1\n",
        },
        codes=("undecided-label",),
        mentions=("annotations/trainval.txt",),
    ),
    Layout(
        "Flowers-102",
        {**images("jpg/image_0000{}.jpg"), "imagelabels.mat": b"x", "setid.mat": b"x"},
        codes=("no-labels",),
        mentions=("MATLAB",),
    ),
    Layout(
        "SVHN",
        {"train_32x32.mat": b"x", "test_32x32.mat": b"x"},
        codes=("unknown-layout",),
        mentions=("MATLAB", "scipy.io.loadmat"),
    ),
    Layout(
        "DTD",
        {
            **trees("images/"),
            **{f"labels/{s}{n}.txt": f"cat/{n}.jpg\ndog/{(n + 1) % 3}.jpg\n" for s in ("train", "test") for n in range(1, 3)},
        },
        CAT_DOG,
        {"": 6},
        codes=("split-lists-ignored",),
        mentions=("labels/",),
    ),
    Layout(
        "EuroSAT",
        {
            **trees("EuroSAT/"),
            **{
                f"EuroSAT/{s}.csv": table(",Filename,Label,ClassName", f"0,cat/{n}.jpg,0,cat", f"1,dog/{n}.jpg,1,dog")
                for n, s in enumerate(("train", "validation", "test"))
            },
        },
        CAT_DOG,
        {"train": 2, "validation": 2, "test": 2},
    ),
    Layout(
        "FGVC-Aircraft",
        {
            **images("data/images/00{}.jpg"),
            "data/images_variant_train.txt": "000 707-320\n001 Boeing 717\n",
            "data/images_variant_test.txt": "002 707-320\n",
        },
        ("707-320", "Boeing 717"),
        {"train": 2, "test": 1},
    ),
    Layout(
        "CUB-200",
        {
            **trees("images/", classes=("001.Black", "002.Laysan")),
            "images.txt": "1 001.Black/0.jpg\n",
            "classes.txt": "1 001.Black\n",
        },
        ("001.Black", "002.Laysan"),
        {"": 6},
        codes=("table-without-labels",),
        mentions=("images.txt",),
    ),
    Layout("Stanford Dogs", {**trees("Images/"), "Annotation/cat/0": "<annotation/>"}, CAT_DOG, {"": 6}),
    Layout(
        "Tiny ImageNet",
        {
            **images(
                "t/train/n01/images/n01_{}.JPEG",
                "t/train/n02/images/n02_{}.JPEG",
                "t/val/images/val_{}.JPEG",
                "t/test/images/test_{}.JPEG",
            ),
            "t/train/n01/n01_boxes.txt": "n01_0.JPEG\t0\t0\t9\t9\n",
            "t/val/val_annotations.txt": "val_0.JPEG\tn01\t0\t0\t9\t9\nval_1.JPEG\tn02\t0\t0\t9\t9\nval_2.JPEG\tn02\t0\t0\t9\t9\n",
            "t/wnids.txt": "n01\nn02\n",
            "t/words.txt": "n01\tfish\nn02\tshark\n",
        },
        ("n01", "n02"),
        {"train": 6, "validation": 3},
        codes=("folder-without-labels",),
        mentions=("3 images in t/test/",),
    ),
    Layout(
        "ImageNet validation list", {**images("{}.JPEG"), "val.txt": "0.JPEG 65\n1.JPEG 970\n2.JPEG 65\n"}, ("65", "970"), {"": 3}
    ),
    Layout(
        "GTSRB",
        {
            "GTSRB/Final_Training/Images/00003/00000_00000.ppm": b"P6",
            "GTSRB/Final_Training/Images/00003/GT-00003.csv": table(
                "Filename;Width;Height;Roi.X1;Roi.Y1;Roi.X2;Roi.Y2;ClassId", "00000_00000.ppm;9;9;1;1;8;8;3"
            ),
        },
        ("3",),
        {"": 1},
        groups=1,
    ),
    # Keras and fastai
    Layout(
        "Keras flower_photos",
        {**trees("flower_photos/"), "flower_photos/LICENSE.txt": "x"},
        CAT_DOG,
        {"": 6},
        codes=("files-ignored",),
        mentions=("LICENSE.txt",),
    ),
    Layout(
        "Keras cats_and_dogs_filtered",
        {**trees("c/train/", "c/validation/"), "c/vectorize.py": "x"},
        CAT_DOG,
        {"train": 6, "validation": 6},
    ),
    Layout("keras.datasets .npz", _keras_npz, ("0", "1"), {"train": 4, "test": 2}),
    Layout(
        "fastai Imagenette",
        {
            **trees("imagenette2/train/", "imagenette2/val/", classes=("n01440764", "n02102040")),
            "imagenette2/noisy_imagenette.csv": table(
                "path,noisy_labels_0,noisy_labels_1,is_valid", "train/n01440764/0.jpg,n01440764,n02102040,False"
            ),
        },
        ("n01440764", "n02102040"),
        {"train": 6, "validation": 6},
        codes=("table-without-labels",),
        mentions=("noisy_imagenette.csv",),
    ),
    Layout(
        "fastai, labels.csv with is_valid",
        {
            **images("train/{}.png", n=4),
            "labels.csv": table(
                "name,label,is_valid",
                "train/0.png,cat,False",
                "train/1.png,dog,False",
                "train/2.png,cat,True",
                "train/3.png,dog,False",
            ),
        },
        CAT_DOG,
        {"train": 3, "validation": 1},
    ),
    # Labelling tools
    Layout(
        "Label Studio CSV",
        {
            **images("images/ab12-{}.jpg", n=2),
            "project.csv": table(
                "image,id,choice,annotator", "/data/upload/1/ab12-0.jpg,1,cat,1", "/data/upload/1/ab12-1.jpg,2,dog,1"
            ),
        },
        CAT_DOG,
        {"": 2},
    ),
    Layout(
        "Label Studio JSON-MIN",
        {
            **images("{}.jpg", n=2),
            "project.json": json.dumps(
                [{"image": f"/data/upload/1/{n}.jpg", "id": n, "choice": name} for n, name in enumerate(CAT_DOG)]
            ),
        },
        CAT_DOG,
        {"": 2},
    ),
    Layout(
        "Label Studio JSON",
        {**images("images/{}.jpg", n=2), "project.json": _STUDIO},
        codes=("no-labels",),
        mentions=("Label Studio", "JSON-MIN"),
    ),
    Layout("CVAT, ImageNet 1.0", {**trees("default/"), "synsets.txt": "cat\ndog\n"}, CAT_DOG, {"": 6}),
    Layout(
        "CVAT for images",
        {**images("images/{}.jpg"), "annotations.xml": "<annotations/>"},
        codes=("no-labels",),
        mentions=("CVAT", "ImageNet 1.0"),
    ),
    Layout("Teachable Machine", trees("", classes=("Class 1", "Class 2")), ("Class 1", "Class 2"), {"": 6}),
    Layout(
        "Edge Impulse",
        {**images("training/cat.{}.jpg", "training/dog.{}.jpg", "testing/cat.{}.jpg", "testing/dog.{}.jpg"), "info.labels": _EDGE},
        CAT_DOG,
        {"train": 6, "test": 6},
    ),
    Layout(
        "Azure Machine Learning JSON lines",
        {
            **images("images/{}.jpg", n=2),
            "labels.jsonl": json_lines(
                *({"image_url": f"azureml://sub/1/paths/images/{n}.jpg", "label": name} for n, name in enumerate(CAT_DOG))
            ),
        },
        CAT_DOG,
        {"": 2},
    ),
    Layout("Azure Custom Vision", trees("", classes=("hemlock", "japanese cherry")), ("hemlock", "japanese cherry"), {"": 6}),
    Layout(
        "Vertex AI CSV",
        {
            **images("flowers/{}.jpg"),
            "all_data.csv": "TRAIN,gs://bucket/flowers/0.jpg,daisy\nTEST,gs://bucket/flowers/1.jpg,rose\nTRAIN,gs://bucket/flowers/2.jpg,rose\n",
        },
        ("daisy", "rose"),
        {"train": 2, "test": 1},
    ),
    Layout(
        "Vertex AI JSON lines",
        {
            **images("flowers/{}.jpg", n=2),
            "import.jsonl": "".join(
                json.dumps(
                    {
                        "imageGcsUri": f"gs://b/flowers/{n}.jpg",
                        "classificationAnnotation": {"displayName": name},
                        "dataItemResourceLabels": {"aiplatform.googleapis.com/ml_use": use},
                    }
                )
                + "\n"
                for n, (name, use) in enumerate((("daisy", "training"), ("rose", "test")))
            ),
        },
        ("daisy", "rose"),
        {"train": 1, "test": 1},
    ),
    Layout(
        "Vertex AI, images not downloaded",
        {"all_data.csv": "TRAIN,gs://bucket/0.jpg,daisy\nTEST,gs://bucket/1.jpg,rose\n"},
        codes=("missing-files",),
        mentions=("2 of the 2 files", "gs://"),
    ),
    Layout(
        "SageMaker .lst",
        {**images("images/{}.jpg"), "train.lst": "0\t1\timages/0.jpg\n1\t0\timages/1.jpg\n2\t1\timages/2.jpg\n"},
        ("0", "1"),
        {"": 3},
    ),
    Layout(
        "SageMaker manifest",
        {
            **images("images/{}.jpg", n=2),
            "output.manifest": "".join(
                json.dumps(
                    {
                        "source-ref": f"s3://b/images/{n}.jpg",
                        "pets": n,
                        "pets-metadata": {"class-name": name, "confidence": 0.9, "job-name": "pets"},
                    }
                )
                + "\n"
                for n, name in enumerate(CAT_DOG)
            ),
        },
        CAT_DOG,
        {"": 2},
    ),
    Layout("Ultralytics classify", trees("train/", "val/", "test/"), CAT_DOG, {"train": 6, "validation": 6, "test": 6}),
    # Other formats
    Layout(
        "YOLO detection",
        {**images("images/train/{}.jpg", "images/val/{}.jpg"), "labels/train/0.txt": "0 .5 .5 .1 .1", "data.yaml": "nc: 1"},
        codes=("no-labels",),
        mentions=("YOLO",),
    ),
    Layout(
        "COCO",
        {**images("train2017/{}.jpg", "val2017/{}.jpg"), "annotations/instances_train2017.json": _COCO},
        codes=("no-labels",),
        mentions=("COCO",),
    ),
    Layout(
        "Pascal VOC",
        {
            **images("JPEGImages/{}.jpg", "SegmentationClass/{}.png", "SegmentationObject/{}.png"),
            "Annotations/0.xml": "<annotation/>",
        },
        codes=("no-labels",),
        mentions=("VOC",),
    ),
    Layout(
        "Open Images list",
        {
            **images("train/{}.jpg"),
            "train-annotations-human-imagelabels.csv": table(
                "ImageID,Source,LabelName,Confidence", "0,verification,/m/01,1", "0,verification,/m/02,1"
            ),
        },
        codes=("several-labels",),
        mentions=("line 2", "line 3"),
    ),
    Layout("WebDataset shards", _webdataset, ("0", "1"), {"train": 8, "validation": 4}),
    Layout(
        "TFRecord",
        {"train-00000-of-00010.tfrecord": b"x", "dataset_info.json": "{}"},
        codes=("unknown-layout",),
        mentions=("TFRecord",),
    ),
    Layout("LMDB", {"data.mdb": b"x", "lock.mdb": b"x"}, codes=("unknown-layout",), mentions=("LMDB",)),
    Layout(
        "PatchCamelyon HDF5",
        {"camelyonpatch_level_2_split_train_x.h5": b"x", "camelyonpatch_level_2_split_train_y.h5": b"x"},
        codes=("unknown-layout",),
        mentions=("HDF5",),
    ),
    Layout("MedMNIST .npz", _npz(train=6, val=2, test=4), ("0", "1"), {"train": 6, "validation": 2, "test": 4}),
    Layout("Quick, Draw! bitmaps", _quick_draw, codes=("no-pair",), mentions=("bitmap_cat",)),
)
