# SPDX-License-Identifier: Apache-2.0
"""`ieg_core.audit`, which finds labels that look wrong, from Python.

Features come from a pre-trained network or from the caller; no network is trained. The equations
are in `ieg_core.audit.feature_posterior`.
"""

# So that a notebook shows annotations as they are written, not NumPy's expanded.
from __future__ import annotations

import base64
import contextlib
import functools
import html
import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image

from ieg_core.audit.corrections import import_decisions
from ieg_core.audit.exports import export_audit
from ieg_core.audit.from_python import open_python
from ieg_core.audit.images import MISSING
from ieg_core.audit.inputs import Opened
from ieg_core.audit.label_audit import LabelAudit, audit_labels, check_labels
from ieg_core.errors import UserError, require
from ieg_core.experiment import feature_sources
from ieg_core.experiment.feature_sources import SIZE
from ieg_core.features.extract import NETWORK, Reader, extract_features, resize
from ieg_core.features.files import in_order_of, read_features
from ieg_core.features.network import find_networks, largest_side
from ieg_core.host.files import expand
from ieg_core.host.progress import ProgressLine, timed

FeatureNetwork = Callable[[NDArray[np.uint8]], ArrayLike]
"""Computes features of a batch of images, uint8 [m, 160, 160, 3] → float [m, D]."""

_BATCH: Final = 64
_TOP: Final = 5
_THUMBNAILS: Final = 20
_THUMBNAIL_SIDE: Final = 96


class AuditResult(LabelAudit):
    """An audit for Python and notebooks. All indices are the caller's."""

    def suspects(self, count: int | None = None) -> list[Any]:
        """Returns the indices of the most suspicious labels, most suspicious first.

        Args:
          count: How many; by default the expected number of wrong labels.

        Raises:
          UserError: When `count` is not a whole number from 0.
        """
        is_valid = count is None or (isinstance(count, int | np.integer) and count >= 0)
        require(is_valid, "count", count, "a whole number from 0")
        most = round(self.summary.expected_wrong) if count is None else count
        return [self._index(place) for place in self.order[:most].tolist()]

    def export(self, tool: str, path: str | Path, **options: Any) -> None:
        """Exports the audit to another tool.

        Args:
          tool: "label-studio", "cleanlab" or "fiftyone".
          path: The output file, which is overwritten.
          **options: Passed to the tool's function in `ieg_core.audit.exports`, such as
            prefix="https://…/" for Label Studio.

        Raises:
          UserError: When there is no such tool, or the file cannot be written.
        """
        export_audit(self, tool, expand(path), **options)

    def corrections(self, tool: str, path: str | Path) -> dict[Any, str | None]:
        """Imports the corrections that people made in another tool.

        Args:
          tool: The tool's name, as for `export`.
          path: The file that the tool exported.

        Returns:
          The confirmed class by index, for `audit(..., trusted=...)`; None for a dropped image.

        Raises:
          UserError: When the file is not one of the tool's exports, or is about other images.
        """
        decisions = import_decisions(self.images, expand(path), tool)
        names = self.images.class_names
        return {
            self._index(place): None if label == MISSING else names[label]
            for place, label in zip(
                decisions.indices.tolist(), decisions.labels.tolist(), strict=True
            )
        }

    def __repr__(self) -> str:
        lines = self.headline()
        for place in self.order[:_TOP].tolist():
            given, suggested = self._labels(place)
            guess = "probably right" if suggested == given else f"probably {suggested}"
            lines.append(
                f"  {self.images.names[place]}: {given}, {guess} (score {self.score[place]:.3f})"
            )
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        head = "".join(f"<p>{html.escape(line)}</p>" for line in self.headline())
        figures = "".join(map(self._figure, self.order[:_THUMBNAILS].tolist()))
        return f'<div>{head}<div style="display:flex;flex-wrap:wrap;gap:8px">{figures}</div></div>'

    def _labels(self, place: int) -> tuple[str, str]:
        names = self.images.class_names
        return names[self.given[place]], names[self.suggested[place]]

    def _figure(self, place: int) -> str:
        given, suggested = map(html.escape, self._labels(place))
        picture = self._thumbnail(place)
        return (
            f'<figure style="margin:0;width:{_THUMBNAIL_SIDE}px;font-size:11px">{picture}'
            f"<figcaption>{html.escape(self.images.names[place])}<br>{given} → <b>{suggested}</b>"
            f"<br>{self.score[place]:.3f}</figcaption></figure>"
        )

    def _thumbnail(self, place: int) -> str:
        if self.images.read is None:
            return ""
        pixels = self.images.read(place)
        image = Image.fromarray(pixels if pixels.shape[-1] == 3 else pixels[..., 0])
        scale = _THUMBNAIL_SIDE / max(image.size)
        size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
        file = io.BytesIO()
        image.resize(size, Image.Resampling.BICUBIC).save(file, "JPEG", quality=85)
        content = base64.b64encode(file.getvalue()).decode()
        return f'<img src="data:image/jpeg;base64,{content}" alt="">'

    def _index(self, place: int) -> Any:
        return place if self.images.indices is None else self.images.indices[place]


def audit(
    data: Any = None,
    labels: Any = None,
    features: Any = None,
    *,
    trusted: Any = None,
    class_names: Sequence[str] | None = None,
    image: str | None = None,
    network: str | FeatureNetwork | Sequence[str | FeatureNetwork] = NETWORK,
    mirrored: bool = False,
    progress: bool = True,
    cache: str | Path | None = None,
    seed: int = 0,
) -> AuditResult:
    """Finds labels that look wrong.

    Args:
      data: The images: a folder of class folders (or with train/, or with a table), a list of image
        files, a DataFrame or Hugging Face `Dataset` with columns of images or paths and of labels,
        a `tf.data.Dataset` of (image, label), a torchvision `ImageFolder` or any object with
        (image, label) as items, images [n, height, width, channels], or features [n, D]. None
        if `features` is given.
      labels: One label per image, as names or class numbers from 0; labels of several annotators as
        [n, a], a mapping from name to labels, or a DataFrame; or the names of columns of `data`.
        None, NaN, "" and −1 are missing labels. By default the labels in `data`.
      features: Precomputed features, which replace `network`: [n, D], a list of such arrays, or
        paths of .npy, .npz or Parquet files, all in the order of the images; rows of a file that
        names its images are matched by name.
      trusted: Checked labels: a mapping from index to label, or [n] with None elsewhere. The audit
        learns from them and does not list them.
      class_names: Names by class number.
      image: The column of images or paths, if `data` has columns.
      network: "efficientnet-lite0", "efficientnet-lite2", a .keras or .onnx file, or
        "keras.applications:NAME" (`ieg_core.experiment.feature_sources`); a function from images,
        uint8 [m, 160, 160, 3], to features [m, D], such as a Keras model; or several of these.
      mirrored: Whether to average with the features of the mirror images, at twice the cost.
      progress: Whether to show progress.
      cache: Folder for computed features; by default the user's cache.
      seed: Seed of the folds.

    Returns:
      The audit, with the caller's indices: `suspects()`, `to_frame()`, `export()`.

    Raises:
      UserError: When an argument is invalid, the sizes of data and labels differ, or features do
        not predict labels better than chance.
    """
    matrices = None if features is None else _matrices(features)
    count = None if matrices is None else len(matrices[0])
    opened = open_python(
        data,
        labels,
        size=SIZE if count else input_side(network),
        count=count,
        trusted=trusted,
        class_names=class_names,
        image=image,
        progress=progress,
    )
    check_labels(opened.images)
    names = [f"features {number}" for number in range(len(matrices or ()))]
    if matrices is None:
        place = None if cache is None else expand(cache)
        matrices, names = compute_all(
            opened, network, mirrored=mirrored, progress=progress, cache=place
        )
    elif data is not None and (files := _feature_files(features)):
        matrices = in_order_of(opened.images.names, matrices, files)
    if len(matrices[0]) != len(opened.images):
        raise UserError(
            f"received features of {len(matrices[0])} images, but {len(opened.images)} images can "
            "be decoded: expected one row per image"
        )
    line = ProgressLine(f"Judging {len(opened.images):,} labels")
    with timed(line) if progress else contextlib.nullcontext():
        result = audit_labels(opened.images, matrices, feature_names=names, seed=seed)
    return AuditResult(**vars(result))


def compute_all(
    opened: Opened,
    network: Any,
    *,
    mirrored: bool = False,
    progress: bool = True,
    cache: Path | None = None,
) -> tuple[list[np.ndarray], list[str]]:
    """Computes the features of images with one or several networks.

    Args:
      opened: The images.
      network: One or several networks, as for `audit`.
      mirrored: Whether to average with the features of the mirror images.
      progress: Whether to show progress.
      cache: Cache folder; None for the user's. Features from functions are not cached.

    Returns:
      Arrays [n, D₁], [n, D₂], …, and their names; the features alone that `opened` holds.

    Raises:
      UserError: When there are no images, there is no such network, or a function returns the wrong
        type or shape.
    """
    if opened.features is not None:
        return [opened.features], ["features"]
    read = opened.read_batch
    if read is None:
        raise UserError("received no images to compute features from: expected data with images")
    chosen = _listed(network)
    matrices, names = [], []
    for each in chosen:
        name = each if isinstance(each, str) else getattr(each, "__name__", type(each).__name__)
        line = ProgressLine(f"Features by {name}") if progress else None
        with contextlib.closing(line) if line else contextlib.nullcontext():
            if isinstance(each, str):
                matrix: np.ndarray = extract_features(
                    read,
                    len(opened.images),
                    network=each,
                    mirrored=mirrored,
                    digests=opened.keys,
                    cache=cache,
                    progress=None if line is None else functools.partial(_show, line),
                )
            else:
                matrix = _by_function(read, len(opened.images), each, line, mirrored)
        matrices.append(matrix)
        names.append(name)
    return matrices, names


def input_side(network: Any) -> int:
    """Returns the side in pixels at which images are read for one or several networks."""
    names = [each for each in _listed(network) if isinstance(each, str)]
    return largest_side(find_networks(feature_sources.parse(names)))


def _listed(network: Any) -> list[str | FeatureNetwork]:
    """Returns networks one by one; names may be joined."""
    is_one = isinstance(network, str) or callable(network)
    given = [network] if is_one else network if isinstance(network, list | tuple) else []
    wrong = [each for each in given if not (isinstance(each, str) or callable(each))]
    if wrong or not given:
        received = repr(wrong[0] if wrong else network)[:80]
        raise UserError(
            f"the network is {received}: expected its name, such as {NETWORK!r}, a function of "
            "images, or a list of these"
        )
    chosen: list[str | FeatureNetwork] = []
    for each in given:
        named = feature_sources.parse(each) if isinstance(each, str) else ()
        chosen += [source.name for source in named] or [each]
    return chosen


def _show(line: ProgressLine, done: int, total: int, _rate: float) -> None:
    """Shows progress with the line's own rate: that of features counts the framework's start."""
    line(done, total)


def _by_function(
    read: Reader, total: int, network: FeatureNetwork, line: ProgressLine | None, mirrored: bool
) -> np.ndarray:
    rows = []
    for start in range(0, total, _BATCH):
        places = np.arange(start, min(start + _BATCH, total))
        batch = resize(read(places), SIZE)
        plain = _as_rows(network(batch), len(places))
        rows.append((plain + _as_rows(network(batch[:, :, ::-1]), len(places))) / 2
                    if mirrored else plain)  # fmt: skip
        if line is not None:
            line(int(places[-1]) + 1, total)
    return np.concatenate(rows)


def _as_rows(features: ArrayLike, count: int) -> np.ndarray:
    matrix = np.asarray(features)
    if matrix.ndim != 2 or len(matrix) != count or matrix.dtype.kind not in "fiu":
        raise UserError(
            f"the network returned {matrix.dtype} {matrix.shape} for {count} images: expected "
            f"numbers [{count}, D]"
        )
    return matrix.astype(np.float32)


def _matrices(features: Any) -> list[np.ndarray]:
    arrays = features if isinstance(features, list | tuple) else [features]
    if not arrays:
        raise UserError("received no features: expected at least one array [n, D]")
    if files := _feature_files(features):
        return read_features(files)
    matrices = [np.asarray(each) for each in arrays]
    for matrix in matrices:
        if matrix.ndim != 2 or matrix.dtype.kind not in "fiu":
            raise UserError(
                f"features are {matrix.dtype} {matrix.shape}: expected numbers [n, D], one row per "
                "image; pass several as a list of such arrays"
            )
    if len({len(matrix) for matrix in matrices}) > 1:
        raise UserError(
            f"received features of {[len(matrix) for matrix in matrices]} images: expected "
            "the same number of rows in each"
        )
    return matrices


def _feature_files(features: Any) -> list[Path]:
    """Returns the files among features; [] for arrays."""
    given = features if isinstance(features, list | tuple) else [features]
    are_files = all(isinstance(each, str | Path) for each in given)
    return [expand(each) for each in given] if are_files else []
