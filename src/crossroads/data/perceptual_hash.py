"""A few hundred bytes of each image, enough to find blank images, near duplicates and mirrored classes without keeping pixels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

SIDE = 32
"""Side in pixels of the images that sketches are made of."""

THUMB = 16
"""Side in pixels of the grey thumbnail that is kept."""

_GREY = np.array([0.299, 0.587, 0.114], np.float32)
# The 8 lowest frequencies of the discrete cosine transform (type II) along a side of 32 pixels.
_COSINES = np.cos(np.arange(8)[:, None] * (np.arange(SIDE) + 0.5) * np.pi / SIDE).astype(np.float32)

# Two images count as one where their thumbnails correlate at least so much and differ at most so much (of 255, on average).
# Measured: re-encoded copies at half to full size, JPEG quality 50 to 90: ants/bees r above 0.98 and 5 or less for 95 %; pairs of
# GTSRB images of different classes whose hashes agree: r 0.979 at most, the nearest 5.3.
SAME_CORRELATION = 0.975
SAME_DIFFERENCE = 6.0

# Hashes of copies differ in 6 bits or fewer for 95 % (measured as above); the search below finds every pair up to 4 and, as 6 flips
# seldom touch all 5 bands, about 9 of 10 at 6.
_BITS = 6
_BANDS = ((0, 13), (13, 13), (26, 13), (39, 13), (52, 12))
_WINDOW = 32
MAX_PAIRS = 2_000_000


@dataclass(frozen=True, slots=True, eq=False)
class Fingerprints:
    """Of n images, in order.

    Attributes:
        thumbs: uint8 (n, 16, 16), grey.
        hashes: uint64 (n,), the perceptual hash: signs of the 63 lowest cosine coefficients about their median (Zauner 2010).
        means: float32 (n,), mean of all values, 0 to 255.
        spreads: float32 (n,), standard deviation of all values.
        spreads_within: float32 (n,), the same within each channel, pooled: 0 for an image of one colour.
        grey: bool (n,), whether the channels agree within 8 of 255 everywhere.
    """

    thumbs: NDArray[np.uint8]
    hashes: NDArray[np.uint64]
    means: NDArray[np.float32]
    spreads: NDArray[np.float32]
    spreads_within: NDArray[np.float32]
    grey: NDArray[np.bool_]

    def select(self, rows: NDArray[np.integer]) -> Fingerprints:
        """The sketches of some images."""
        return Fingerprints(*(getattr(self, name)[rows] for name in self.__slots__))

    @classmethod
    def joined(cls, parts: list[Fingerprints]) -> Fingerprints:
        """The sketches of several runs of images, one after the other."""
        return cls(*(np.concatenate([getattr(part, name) for part in parts]) for name in cls.__slots__))


def sketch(pixels: NDArray[np.uint8]) -> Fingerprints:
    """Fingerprints of uint8 (n, 32, 32, 3) images."""
    # Written for speed on many small images: sums along the last axis, and slices in place of short axes.
    n = len(pixels)
    values = np.ascontiguousarray(pixels.reshape(n, SIDE * SIDE, 3).transpose(0, 2, 1)).astype(np.float32)
    means = values.mean(2)
    within = (values * values).mean(2) - means * means
    grey = pixels.astype(np.float32) @ _GREY
    low = (_COSINES @ grey @ _COSINES.T).reshape(n, 64)
    bits = low > np.median(low[:, 1:], axis=1, keepdims=True)
    bits[:, 0] = False  # the mean says nothing about the picture
    thumbs = (grey[:, ::2, ::2] + grey[:, 1::2, ::2] + grey[:, ::2, 1::2] + grey[:, 1::2, 1::2]) / 4
    red, green, blue = (pixels[..., channel].astype(np.int16) for channel in range(3))
    colour = np.maximum(np.maximum(np.abs(red - green), np.abs(green - blue)), np.abs(red - blue))
    return Fingerprints(
        thumbs=np.round(thumbs).astype(np.uint8),
        hashes=np.packbits(bits, axis=1).view(">u8").reshape(n).astype(np.uint64),
        means=means.mean(1),
        spreads=np.sqrt(np.maximum(within.mean(1) + means.var(1), 0)),
        spreads_within=np.sqrt(np.maximum(within.mean(1), 0)),
        grey=np.all(colour <= 8, axis=(1, 2)),
    )


def near_pairs(sketches: Fingerprints) -> tuple[NDArray[np.int64], bool]:
    """Pairs of images that are nearly the same, and whether all were listed.

    Images whose hashes agree in one of five bands are compared where they lie within 32 places of each other in the order of their
    hashes: time grows as n log n and memory as n, however alike the images are. Each candidate is then checked on the thumbnails.

    Returns:
        int64 (m, 2), sorted, first number below the second; and False where the list was cut at `MAX_PAIRS`.
    """
    found: list[NDArray[np.int64]] = []
    count = 0
    for start, width in _BANDS:
        turned = (
            (sketches.hashes << np.uint64(start)) | (sketches.hashes >> np.uint64((64 - start) % 64)) if start else sketches.hashes
        )
        order = np.argsort(turned, kind="stable")
        hashes, bands = sketches.hashes[order], turned[order] >> np.uint64(64 - width)
        for offset in range(1, min(_WINDOW, len(order) - 1) + 1):
            agree = bands[offset:] == bands[:-offset]
            agree &= np.bitwise_count(hashes[offset:] ^ hashes[:-offset]) <= _BITS
            at = np.flatnonzero(agree)
            pairs = np.sort(np.stack([order[at], order[at + offset]], axis=1), axis=1)
            found.append(pairs[_same(sketches.thumbs, pairs)])
            count += len(found[-1])
        if count > MAX_PAIRS:
            break
    pairs = np.unique(np.concatenate(found), axis=0) if count else np.empty((0, 2), np.int64)
    return pairs[:MAX_PAIRS], count <= MAX_PAIRS


def _same(thumbs: NDArray[np.uint8], pairs: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Whether the thumbnails of each pair show one picture, bool (m,)."""
    same = np.zeros(len(pairs), bool)
    for start in range(0, len(pairs), 4096):
        block = pairs[start : start + 4096]
        one, other = (thumbs[block[:, side]].reshape(len(block), -1).astype(np.float32) for side in (0, 1))
        difference = np.abs(one - other).mean(1)
        one -= one.mean(1, keepdims=True)
        other -= other.mean(1, keepdims=True)
        scale = np.sqrt((one * one).sum(1) * (other * other).sum(1))
        same[start : start + 4096] = (difference <= SAME_DIFFERENCE) & ((one * other).sum(1) >= SAME_CORRELATION * scale)
    return same
