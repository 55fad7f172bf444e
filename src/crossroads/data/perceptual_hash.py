"""Computes a fingerprint of a few hundred bytes per image, and finds near duplicates with it.

The audit also finds blank images and mirror classes from the fingerprints. Near duplicates have perceptual hashes (pHash, Zauner
2010) with a small Hamming distance. Each pair is then confirmed on thumbnails.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

SIDE = 32
"""Side in pixels of the images that are fingerprinted."""

THUMBNAIL = 16
"""Side in pixels of the grey thumbnail that is kept."""

_GREY = np.array([0.299, 0.587, 0.114], np.float32)
# These are the 8 lowest frequencies of the discrete cosine transform (type II) along a side of 32 pixels.
_COSINES = np.cos(np.arange(8)[:, None] * (np.arange(SIDE) + 0.5) * np.pi / SIDE).astype(np.float32)

# Two images are near duplicates if the correlation r of their thumbnails is at least the first value, and their mean absolute
# difference (of 255) is at most the second. We measured re-encoded copies of ants/bees (half to full size, JPEG quality 50 to 90):
# for 95 % of them, r is above 0.98 and the difference is 5 or less. GTSRB images of different classes with similar hashes have r of
# at most 0.979 and differ by at least 5.3.
SAME_CORRELATION = 0.975
SAME_DIFFERENCE = 6.0

# For 95 % of the copies above, the hashes have a Hamming distance of at most 6. Two hashes at distance 4 agree in at least one of
# the 5 bands, so the search below can find every such pair. At distance 6, it finds about 9 of 10 pairs.
_MAX_DISTANCE = 6
_BANDS = ((0, 13), (13, 13), (26, 13), (39, 13), (52, 12))
_WINDOW = 32
MAX_PAIRS = 2_000_000


@dataclass(frozen=True, slots=True, eq=False)
class Fingerprints:
    """Fingerprints of n images, in order.

    Attributes:
        thumbnails: uint8 (n, 16, 16), grey.
        hashes: uint64 (n,), the pHash. Each bit says whether one of the 63 lowest cosine coefficients exceeds their median.
        means: float32 (n,), mean of all values, 0 to 255.
        stds: float32 (n,), standard deviation of all values.
        channel_stds: float32 (n,), standard deviation within the channels, pooled. It is 0 for an image of one colour.
        grey: bool (n,), whether the channels differ by at most 8 of 255 in every pixel.
    """

    thumbnails: NDArray[np.uint8]
    hashes: NDArray[np.uint64]
    means: NDArray[np.float32]
    stds: NDArray[np.float32]
    channel_stds: NDArray[np.float32]
    grey: NDArray[np.bool_]

    def select(self, rows: NDArray[np.integer]) -> Fingerprints:
        """Returns the fingerprints of some images."""
        return Fingerprints(*(getattr(self, name)[rows] for name in self.__slots__))

    @classmethod
    def concatenate(cls, parts: list[Fingerprints]) -> Fingerprints:
        """Joins several sets of fingerprints into one, in order."""
        return cls(*(np.concatenate([getattr(part, name) for part in parts]) for name in cls.__slots__))


def fingerprint(pixels: NDArray[np.uint8]) -> Fingerprints:
    """Returns the fingerprints of uint8 (n, 32, 32, 3) images."""
    # This code is optimised for many small images: sums run along the last axis, and slices replace reductions over short axes.
    n = len(pixels)
    values = np.ascontiguousarray(pixels.reshape(n, SIDE * SIDE, 3).transpose(0, 2, 1)).astype(np.float32)
    means = values.mean(2)
    within = (values * values).mean(2) - means * means
    grey = pixels.astype(np.float32) @ _GREY
    low = (_COSINES @ grey @ _COSINES.T).reshape(n, 64)
    bits = low > np.median(low[:, 1:], axis=1, keepdims=True)
    bits[:, 0] = False  # the first coefficient is the mean, which changes with the brightness
    thumbnails = (grey[:, ::2, ::2] + grey[:, 1::2, ::2] + grey[:, ::2, 1::2] + grey[:, 1::2, 1::2]) / 4
    red, green, blue = (pixels[..., channel].astype(np.int16) for channel in range(3))
    colour = np.maximum(np.maximum(np.abs(red - green), np.abs(green - blue)), np.abs(red - blue))
    return Fingerprints(
        thumbnails=np.round(thumbnails).astype(np.uint8),
        hashes=np.packbits(bits, axis=1).view(">u8").reshape(n).astype(np.uint64),
        means=means.mean(1),
        stds=np.sqrt(np.maximum(within.mean(1) + means.var(1), 0)),
        channel_stds=np.sqrt(np.maximum(within.mean(1), 0)),
        grey=np.all(colour <= 8, axis=(1, 2)),
    )


def near_duplicates(fingerprints: Fingerprints) -> tuple[NDArray[np.int64], bool]:
    """Finds pairs of images that are nearly the same.

    The search runs once for each of five bands of bits. It rotates the hashes so that the band comes first, and sorts them. It
    compares each hash with the next 32 that have the same band, and confirms candidate pairs on the thumbnails. Time grows as
    n log n and memory as n, even if many images are similar.

    Returns:
        The sorted pairs, int64 (m, 2), the smaller number first; and whether the list is complete. It ends at `MAX_PAIRS`.
    """
    confirmed: list[NDArray[np.int64]] = []
    count = 0
    for start, width in _BANDS:
        hashes = fingerprints.hashes
        rotated = (hashes << np.uint64(start)) | (hashes >> np.uint64((64 - start) % 64)) if start else hashes
        order = np.argsort(rotated, kind="stable")
        hashes, bands = hashes[order], rotated[order] >> np.uint64(64 - width)
        for offset in range(1, min(_WINDOW, len(order) - 1) + 1):
            similar = bands[offset:] == bands[:-offset]
            similar &= np.bitwise_count(hashes[offset:] ^ hashes[:-offset]) <= _MAX_DISTANCE
            at = np.flatnonzero(similar)
            pairs = np.sort(np.stack([order[at], order[at + offset]], axis=1), axis=1)
            confirmed.append(pairs[_same_picture(fingerprints.thumbnails, pairs)])
            count += len(confirmed[-1])
        if count > MAX_PAIRS:
            break
    pairs = np.unique(np.concatenate(confirmed), axis=0) if count else np.empty((0, 2), np.int64)
    return pairs[:MAX_PAIRS], count <= MAX_PAIRS


def _same_picture(thumbnails: NDArray[np.uint8], pairs: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Returns whether the thumbnails of each pair show the same picture, bool (m,)."""
    same = np.zeros(len(pairs), bool)
    for start in range(0, len(pairs), 4096):
        block = pairs[start : start + 4096]
        one, other = (thumbnails[block[:, column]].reshape(len(block), -1).astype(np.float32) for column in (0, 1))
        difference = np.abs(one - other).mean(1)
        one -= one.mean(1, keepdims=True)
        other -= other.mean(1, keepdims=True)
        scale = np.sqrt((one * one).sum(1) * (other * other).sum(1))
        same[start : start + 4096] = (difference <= SAME_DIFFERENCE) & ((one * other).sum(1) >= SAME_CORRELATION * scale)
    return same
