"""A small network with BatchNorm that learns stripes in noise within a second."""

import keras
import numpy as np
from keras import layers

from crossroads.networks.cuts import find
from crossroads.networks.network import Layout, Parts, assemble, head_layers, seeded
from crossroads.progress import Silent
from crossroads.recipe import Augmentation
from crossroads.strategies import Phase
from crossroads.training.batches import LabelledData
from killing import Killed
from pictures import stripes

SIZE = 16


def labelled(n, seed=0):
    """Returns vertical and horizontal stripes."""
    images, names = stripes(n, size=SIZE, seed=seed)
    return LabelledData(images, (names == "upright").astype(np.int32))


def network(freeze=None, head="linear", seed=0, extra=None, *, tuned=False):
    """Returns two convolutions with BatchNorm, average pooling and a head for two classes, frozen up to the layer `freeze`."""
    return networks(head, seed, extra, tuned=tuned)(freeze)


def networks(head="linear", seed=0, extra=None, *, tuned=False):
    """Returns a function from the layer `freeze` to a network. Its networks share every layer, like the phases of a run."""
    with seeded(seed):
        inputs = keras.Input((SIZE, SIZE, 3))
        x = inputs
        for number, width in ((1, 6), (2, 8)):
            x = layers.Conv2D(width, 3, strides=2, use_bias=False, name=f"conv{number}")(x)
            x = layers.BatchNormalization(name=f"norm{number}")(x)
            x = layers.ReLU(name=f"relu{number}")(x)
        backbone = keras.Model(inputs, x if extra is None else extra(x))
        parts = Parts((layers.Rescaling(1 / 127.5, offset=-1, name="scale"),), backbone)
        top = head_layers(head, 2, tuned=tuned)
        assemble(parts, SIZE, top)  # builds the head
    for layer in (backbone.get_layer("norm1"), backbone.get_layer("norm2")):
        layer.moving_mean.assign(np.linspace(-0.2, 0.2, layer.moving_mean.shape[0]))  # as a pretrained one would have

    def frozen_to(name):
        layout = Layout() if name is None else Layout(find(backbone, "relu2"), find(backbone, name))
        return assemble(parts, SIZE, top, layout)

    return frozen_to


def phase(**options):
    """Returns a phase with every option off except the given ones."""
    usual = {
        "name": "tune",
        "epochs": 2,
        "batch_size": 16,
        "optimizer": "adamw",
        "learning_rate": 3e-3,
        "schedule": "cosine",
        "warm_up": 0.0,
        "weight_decay": 0.0,
        "layer_decay": 1.0,
        "train_batchnorm": False,
        "label_smoothing": 0.0,
        "class_weights": "none",
        "augmentation": Augmentation(),
        "early_stopping": 0,
        "seed": 0,
    }
    return Phase(**(usual | options))


def weights(model):
    """Returns copies of all variables."""
    return [keras.ops.convert_to_numpy(v).copy() for v in model.variables]


def same(a, b):
    """Whether both are bit-identical."""
    return all(x.tobytes() == y.tobytes() for x, y in zip(a, b, strict=True))


class KilledAfter(Silent):
    """A watcher that interrupts the run once an epoch is saved."""

    def __init__(self, phase, epoch):
        self.at = (phase, epoch)

    def epoch(self, record, total):
        if (record.phase, record.epoch) == self.at:
            raise Killed


def tiny(seed=1):
    """Returns three convolutions with BatchNorm statistics from stripes, so that its features separate the classes."""
    keras.utils.set_random_seed(seed)
    images = keras.Input((SIZE, SIZE, 3))
    x = layers.Rescaling(1 / 127.5, offset=-1)(images)
    for number, filters in enumerate((8, 12, 16), start=1):
        x = layers.Conv2D(filters, 3, strides=number % 2 + 1, padding="same", use_bias=False, name=f"conv{number}")(x)
        x = layers.BatchNormalization(momentum=0.0, name=f"norm{number}")(x)
        x = layers.ReLU(name=f"relu{number}")(x)
    model = keras.Model(images, x, name="tiny")
    model(stripes(64, size=SIZE)[0].astype("float32"), training=True)
    return model
