# SPDX-License-Identifier: Apache-2.0
"""Image features from a pre-trained network, computed once and cached.

Images are resized to the network's input with a bicubic filter and passed through it in batches.
After every 4096 images their features are written to the cache, keyed by the SHA-256 of each
image's pixels. A second call reads them, a call with some new images computes only those, and an
interrupted call resumes. Memory holds one batch of images and all features in float16.
"""

import contextlib
import functools
import hashlib
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ieg_core.errors import UserError, require
from ieg_core.experiment.feature_sources import SIZE
from ieg_core.features.network import FeatureNetwork, find_network
from ieg_core.host.cache import cache_folder
from ieg_core.host.runtime import chosen_backend
from ieg_core.store.arrays import read_cached, write_cached

Pixels = NDArray[np.uint8]
Reader = Callable[[NDArray[np.int64]], Pixels]
"""Reads images by index, int64 [m] → uint8 [m, H, W, channels]; a `Source`'s `train_images`."""

NETWORK: Final = "efficientnet-lite0"

_FORMAT: Final = 1  # changing it invalidates the cache
_BATCH: Final = 32
_SHARD: Final = 4096
_DTYPES: Final = ("auto", "bfloat16", "float32")
_SHA256_BYTES: Final = 32


def extract_features(
    images: Reader | Pixels,
    count: int | None = None,
    *,
    network: str = NETWORK,
    size: int = SIZE,
    mirrored: bool = False,
    dtype: str = "auto",
    digests: Sequence[str] | None = None,
    cache: Path | None = None,
    progress: Callable[[int, int, float], None] | None = None,
) -> NDArray[np.float16]:
    """Computes the features of images, or reads them from the cache.

    Args:
      images: uint8 [n, H, W, 3] or [n, H, W, 1], or a function that reads them by index.
      count: n, if `images` is a reader.
      network: Name of a network, see `ieg_core.experiment.feature_sources`.
      size: Side of the network's input in pixels, unless the network fixes it.
      mirrored: Whether to average with the features of the mirror images, at twice the cost.
      dtype: "bfloat16", "float32", or "auto": bfloat16 if this processor supports it natively.
        For built-in networks; others compute as they are.
      digests: SHA-256 of each image's content in hexadecimal, for example of its file; cached
        images are then not even read. By default computed from the pixels.
      cache: Cache folder; by default the user's.
      progress: Called after each batch with the images done, the total, and images per second.

    Returns:
      float16 [n, D], in the order of the images; D is 1280 for the built-in networks.

    Raises:
      UserError: When there is no such network, its weights are not installed, or the images have
        the wrong type or shape.
    """
    read, total = _reader(images, count)
    require(dtype in _DTYPES, "dtype", dtype, f"one of {', '.join(_DTYPES)}")
    require(total >= 1, "the number of images", total, "at least 1")
    if digests is not None and len(digests) != total:
        raise UserError(
            f"received {len(digests)} digests for {total} images: expected one per image"
        )
    precision = _fast_dtype() if dtype == "auto" else dtype
    root = cache or cache_folder()
    keys = _keys(read, total) if digests is None else _parse_digests(digests)
    views = (False, True) if mirrored else (False,)
    feature_network = find_network(network, size)
    computed = []
    for number, flip in enumerate(views):
        report = functools.partial(_report, progress, number * total, len(views) * total)
        view = _View(feature_network, precision, flip)
        computed.append(_cached_or_computed(view, read, keys, root, report))
    features = computed[0]
    for more in computed[1:]:
        # In place, to save a float32 copy; halved first (exact), to stay in float16's range.
        features /= 2
        features += more / 2
    return features


def resize(images: Pixels, size: int) -> Pixels:
    """Resizes images with Pillow's bicubic filter; gray images get three equal channels.

    Args:
      images: uint8 [m, H, W, 3] or [m, H, W, 1].
      size: Side in pixels.

    Returns:
      uint8 [m, size, size, 3].
    """
    if images.shape[-1] == 1:
        images = np.repeat(images, 3, axis=-1)
    if images.shape[1:3] == (size, size):
        return images
    resized = [
        Image.fromarray(np.ascontiguousarray(each)).resize((size, size), Image.Resampling.BICUBIC)
        for each in images
    ]
    return np.stack([np.asarray(each) for each in resized])


def compute_features(network: FeatureNetwork, images: Pixels) -> NDArray[np.float16]:
    """Computes features of a few images, past the cache.

    Args:
      network: The network.
      images: uint8 [m, H, W, 3] or [m, H, W, 1].

    Returns:
      float16 [m, D].

    Raises:
      UserError: When the network cannot be loaded or used.
    """
    view = _View(network, _fast_dtype(), flip=False)
    return np.concatenate(
        [view(images[start : start + _BATCH]) for start in range(0, len(images), _BATCH)]
    )


class _View:
    """Features from one network at one size, dtype and orientation; `key` names its cache."""

    def __init__(self, network: FeatureNetwork, dtype: str, flip: bool) -> None:
        self.network, self.flip = network, flip
        self.dtype = dtype if network.kind == "built-in" else "float32"
        kind = "mirrored" if flip else "plain"
        size, digest = network.size, network.sha256[:12]
        self.key = f"{network.label}-{size}-{self.dtype}-{kind}-{digest}-v{_FORMAT}"

    def __call__(self, images: Pixels) -> NDArray[np.float16]:
        resized = resize(images[:, :, ::-1] if self.flip else images, self.network.size)
        # Pad the last batch: one shape needs only one compilation.
        padded = np.zeros((_BATCH, *resized.shape[1:]), np.uint8)
        padded[: len(resized)] = resized
        rows = self.network.load(self.dtype)(padded)
        if rows.ndim != 2 or len(rows) != _BATCH or rows.dtype.kind not in "fiu":
            raise UserError(
                f"the network {self.network.name} returned {rows.dtype} {rows.shape} for {_BATCH} "
                f"images: expected numbers [{_BATCH}, D]"
            )
        return rows[: len(resized)].astype(np.float16)


def _cached_or_computed(
    view: _View,
    read: Reader,
    keys: NDArray[np.bytes_],
    root: Path,
    report: Callable[[int, float], None],
) -> NDArray[np.float16]:
    folder = root / "features" / view.key
    features = np.empty((len(keys), 0), np.float16)
    is_missing = np.ones(len(keys), bool)
    for shard in sorted(folder.glob("*.safetensors")):
        cached = read_cached(shard) if is_missing.any() else None
        if cached is None:
            continue
        arrays, _ = cached
        known, rows = arrays["digests"].view(keys.dtype)[:, 0], arrays["features"]
        order = np.argsort(known)
        place = order[np.minimum(np.searchsorted(known[order], keys), len(known) - 1)]
        is_cached = is_missing & (known[place] == keys)
        if not features.shape[1]:
            features = np.empty((len(keys), rows.shape[1]), np.float16)
        features[is_cached] = rows[place[is_cached]]
        is_missing &= ~is_cached
    missing = np.flatnonzero(is_missing)
    started = time.monotonic()
    done = len(keys) - len(missing)
    for start in range(0, len(missing), _SHARD):
        ids = missing[start : start + _SHARD]
        rows = np.concatenate(
            list(_compute_rows(view, read, ids, done + start, started, start, report))
        )
        if not features.shape[1]:
            features = np.empty((len(keys), rows.shape[1]), np.float16)
        features[ids] = rows
        digests = keys[ids].view(np.uint8).reshape(len(ids), -1)
        name = hashlib.sha256(digests.tobytes()).hexdigest()[:16]
        write_cached(folder / f"{name}.safetensors", {"digests": digests, "features": rows})
    return features


def _compute_rows(
    view: _View,
    read: Reader,
    ids: NDArray[np.int64],
    before: int,
    started: float,
    computed: int,
    report: Callable[[int, float], None],
) -> Iterator[NDArray[np.float16]]:
    for start in range(0, len(ids), _BATCH):
        batch = ids[start : start + _BATCH]
        yield view(_checked(read(batch), len(batch)))
        done = start + len(batch)
        report(before + done, (computed + done) / max(time.monotonic() - started, 1e-9))


def _report(
    progress: Callable[[int, int, float], None] | None,
    before: int,
    total: int,
    done: int,
    rate: float,
) -> None:
    if progress is not None:
        progress(before + done, total, rate)


def _reader(images: Reader | Pixels, count: int | None) -> tuple[Reader, int]:
    if isinstance(images, np.ndarray):
        _checked(images, len(images))
        return images.__getitem__, len(images)
    if count is None:
        raise UserError(
            "received a function that reads images but no count: pass count=, the number of images"
        )
    return images, count


def _checked(images: Pixels, count: int) -> Pixels:
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[-1] not in (1, 3):
        raise UserError(
            f"the images are {images.dtype} {images.shape}: expected uint8 [n, height, width, "
            "channels] with 1 or 3 channels"
        )
    if len(images) != count:
        raise UserError(f"received {len(images)} images: expected {count}")
    return images


def _keys(read: Reader, count: int) -> NDArray[np.bytes_]:
    """Returns the SHA-256 of each image's shape and pixels."""

    def digests() -> Iterable[bytes]:
        for start in range(0, count, _BATCH):
            ids = np.arange(start, min(start + _BATCH, count))
            for image in _checked(read(ids), len(ids)):
                head = f"{image.shape}\n".encode()
                yield hashlib.sha256(head + image.tobytes()).digest()

    return _as_keys(b"".join(digests()))


def _parse_digests(digests: Sequence[str]) -> NDArray[np.bytes_]:
    try:
        raw = [bytes.fromhex(each) for each in digests]
    except ValueError:
        raw = []
    if len(raw) != len(digests) or {len(each) for each in raw} - {_SHA256_BYTES}:
        raise UserError("received an invalid image digest: expected SHA-256 in hexadecimal")
    return _as_keys(b"".join(raw))


def _as_keys(raw: bytes) -> NDArray[np.bytes_]:
    return np.frombuffer(raw, f"S{_SHA256_BYTES}")


def _fast_dtype() -> str:
    """Returns bfloat16 if the processor multiplies in it natively, else float32.

    With JAX always float32, which XLA computes faster on a CPU.
    """
    if chosen_backend() == "jax":
        return "float32"
    flags = ""
    with contextlib.suppress(OSError):
        flags = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    return "bfloat16" if "avx512_bf16" in flags or "amx_bf16" in flags else "float32"
