# SPDX-License-Identifier: Apache-2.0
"""Feeds changed files to each parser of outside bytes.

    python -m scripts.chaos_fuzz [--tries 2000] [--seed 0] [PARSER ...]

Each try changes a valid file at random (bits, cuts, copies, numbers, other files' parts) and parses
it. It survives if the parser returns, or raises the error that it declares, with one line. Memory
is limited to 4 GiB above what is used at the start, so that a small file that asks for more fails.
Prints for each parser how many tries survived, and the first that did not; the exit code is 1 if
there are any. `scripts.chaos_atheris` follows the parsers' branches.
"""

import argparse
import gzip
import io
import json
import pickle
import random
import resource
import shutil
import struct
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

import numpy as np
from PIL import Image

from ieg_core.audit.corrections import import_decisions
from ieg_core.audit.decisions import read_decisions
from ieg_core.audit.images import MISSING, LabeledImages
from ieg_core.data.base import Source, Split, in_memory_source
from ieg_core.data.image_folder.decode import UnreadableImageError, central_square, read_pixels
from ieg_core.data.image_folder.listing import list_files
from ieg_core.data.labels.label_file import read_labels
from ieg_core.data.labels.restricted_pickle import NotArraysError, read_arrays
from ieg_core.data.public import cifar, tfrecord
from ieg_core.data.public.cifar import CifarLayout
from ieg_core.data.public.fashion_mnist import IdxLayout, idx_files, open_fashion_mnist
from ieg_core.data.tables import to_csv, to_parquet
from ieg_core.errors import UserError
from ieg_core.experiment import dataset_spec
from ieg_core.features.files import read_features
from ieg_core.features.network import find_network
from ieg_core.host.program import Parser as ArgumentParser
from ieg_core.host.program import program
from ieg_core.models.torch_weights import NotTensorsError, read_tensors
from ieg_core.store.model_file import ModelFacts, read_facts, write_facts
from pipelines import cluster_files
from pipelines.cluster_files import ClusterFile
from pipelines.scheduling import cron, schedules

T = TypeVar("T")
ROOT: Final = Path(__file__).parents[1]
SPARE_BYTES: Final = 4 << 30
SLOW_SECONDS: Final = 20.0
SHOWN: Final = 5
_NUMBERS: Final = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF, 1 << 62)
_TOKENS: Final = (
    b"'", b'"', b",", b"\n", b"\r", b"\0", b"[" * 99, b"&a [*a]", b"nan", b"=1+1", b"-",
    b"9" * 5000, b"\xff", b"\xef\xbb\xbf", b"\xc3\xa9", b"2024-13-01", b"]r\xff\xff\xff\x0f",
)  # fmt: skip


_ANNOTATION: Final = {
    "lead_time": 3.5,
    "updated_at": "2026-01-01T00:00:00Z",
    "result": [{"value": {"choices": ["dog"]}}],
}
_TFRECORD: Final = bytes.fromhex(
    "2500000000000000eabc36f30a230a110a05696d61676512080a060a046a7065670a0e0a056c6162"
    "656c12051a030a01016fb4af30"
)
"""One record: an image, b"jpeg", of class 1."""


@dataclass(frozen=True)
class Parser:
    """A parser of outside bytes.

    Attributes:
      seeds: Valid files, or parts of them.
      parse: Parses the bytes of a file.
      errors: What it declares to raise.
    """

    seeds: Sequence[bytes]
    parse: Callable[[bytes], object]
    errors: tuple[type[Exception], ...] = (UserError,)


@dataclass
class Outcome:
    """How many tries a parser survived."""

    tried: int
    failures: list[str]


def mutate(content: bytes, others: Sequence[bytes], rng: random.Random) -> bytes:
    """Returns a file with one to eight random changes."""
    changed = bytearray(content)
    for _ in range(rng.randint(1, 8)):
        start = rng.randrange(len(changed) + 1)
        end = min(len(changed), start + rng.choice((1, 2, 4, 8, 64)))
        kind = rng.randrange(6)
        if kind == 0 and start < len(changed):
            changed[start] ^= 1 << rng.randrange(8)
        elif kind == 1:
            del changed[start : end if rng.random() < 0.8 else None]
        elif kind == 2:
            changed[start:start] = changed[start:end] * rng.choice((1, 2, 1000))
        elif kind == 3:
            form = rng.choice(("<B", ">H", "<I", ">I", "<Q", ">Q"))
            size = struct.calcsize(form)
            number = rng.choice(_NUMBERS) & ((1 << 8 * size) - 1)
            changed[start : start + size] = struct.pack(form, number)
        elif kind == 4:
            changed[start:end] = rng.choice(_TOKENS)
        else:
            other = rng.choice(others)
            place = rng.randrange(len(other) + 1)
            changed[start:end] = other[place : place + rng.choice((4, 64, 4096))]
    return bytes(changed)


def fuzz(parser: Parser, tries: int, seed: int = 0) -> Outcome:
    """Parses changed files.

    Args:
      parser: The parser.
      tries: Number of files.
      seed: Decides the changes.

    Returns:
      The number of tries and a line for each failure, with the changed file in hexadecimal.
    """
    rng = random.Random(seed)
    failures = []
    for content in parser.seeds:
        parser.parse(content)  # the changes start from valid files
    for _ in range(tries):
        content = mutate(rng.choice(parser.seeds), parser.seeds, rng)
        if problem := problem_of(parser.parse, parser.errors, content):
            failures.append(f"{problem} ({content[:100].hex()})")
    return Outcome(tries, failures)


def problem_of(
    parse: Callable[[Any], object], errors: tuple[type[Exception], ...], content: object
) -> str:
    """Parses a content; returns what is wrong with the way it ends, "" if nothing is.

    Args:
      parse: The parser.
      errors: What it declares to raise.
      content: What it parses.
    """
    began = time.monotonic()
    try:
        parse(content)
    except errors as error:
        if "\n" in str(error):
            return f"more than one line: {str(error)[:200]!r}"
    except Exception as error:
        return f"{type(error).__name__}: {str(error)[:200]}"
    seconds = time.monotonic() - began
    return f"took more than {SLOW_SECONDS:.0f} s" if seconds > SLOW_SECONDS else ""


def digits_source() -> Source:
    """Returns a data set of ten empty images, of the classes 0 to 9."""
    digits = Split(np.zeros((10, 1, 8, 8), np.uint8), np.arange(10, dtype=np.int32))
    return in_memory_source("digits", version="", origin="memory", train=digits, test=digits)


def audited_images() -> LabeledImages:
    """Returns two images of the classes cat and dog, whose corrections other tools hold."""
    missing = np.full(2, MISSING, np.int32)
    labels = np.array([[0], [1]], np.int32)
    return LabeledImages(("a.png", "b.png"), ("cat", "dog"), labels, ("given",), missing)


def parsers(folder: Path) -> Mapping[str, Parser]:
    """Returns the parsers by name.

    Args:
      folder: An empty folder for the files of those that read files.
    """
    split = Split(np.zeros((2, 1, 28, 28), np.uint8), np.zeros(2, np.int32))
    idx = idx_files(split, split)
    layout = CifarLayout("cifar10", "", "", (), ("test.bin",), {"test.bin": 2}, 1, {}, None)
    source = digits_source()
    names = [str(number) for number in range(10)]
    labels = {"index": list(range(10)), "label": names}
    decisions = b"path,label,decision\na.png,cat,keep\nb.png,,drop\n"
    features = np.arange(12, dtype=np.float32).reshape(4, 3)
    images = audited_images()
    tasks = [{"data": {"name": "a.png"}, "annotations": [_ANNOTATION]}]
    fifty_one = {"classes": ["cat", "dog"], "labels": {"a": {"label": "dog", "attributes": {}}}}
    info = {"splits": [{"name": "train", "shardLengths": ["3", "4"]}]}
    listed = b"path,label\na.png,cat\nb.png,dog\n"

    def in_file(name: str, read: Callable[[Path], object]) -> Callable[[bytes], object]:
        def parse(content: bytes) -> object:
            path = folder / name
            path.write_bytes(content)
            return read(path)

        return parse

    def in_idx(name: str) -> Callable[[bytes], object]:
        def parse(content: bytes) -> object:
            place = folder / "fashion-mnist"
            shutil.rmtree(place, ignore_errors=True)
            others = {key: value for key, value in idx.items() if f"{key}.gz" != name}
            place.mkdir()
            for key, value in {**others, name: content}.items():
                (place / key).write_bytes(value)
            return open_fashion_mnist(folder, IdxLayout({"train": 2, "test": 2}, None, {}), folder)

        return parse

    def read_examples(path: Path) -> Iterator[object]:
        return tfrecord.examples([path], 1)

    def in_record(content: bytes) -> object:
        import tensorflow as tf

        path = folder / "a"
        with tf.io.TFRecordWriter(str(path)) as writer:
            writer.write(content)
        return list(read_examples(path))

    return {
        "pickle": Parser(
            [pickle.dumps({"a": np.arange(9)}, protocol=p) for p in range(2, 5)]
            + [pickle.dumps({"a": [1, 2, 3]}, protocol=0)],
            read_arrays,
            (NotArraysError,),
        ),
        "torch weights": Parser([_torch_file()], read_tensors, (NotTensorsError,)),
        "labels.csv": Parser(
            [to_csv(labels)], in_file("labels.csv", lambda path: read_labels(path, source))
        ),
        "labels.parquet": Parser(
            [to_parquet(labels)],
            in_file("labels.parquet", lambda path: read_labels(path, source)),
        ),
        "decisions.csv": Parser(
            [decisions],
            in_file("d.csv", lambda path: read_decisions(path, ("a.png", "b.png"), ("cat", "dog"))),
        ),
        "Label Studio": Parser(
            [json.dumps(tasks).encode()],
            in_file("tasks", lambda path: import_decisions(images, path)),
        ),
        "FiftyOne": Parser(
            [json.dumps(fifty_one).encode()],
            in_file("labels", lambda path: import_decisions(images, path, "fiftyone")),
        ),
        "corrections.csv": Parser(
            [b"path,corrected_label\na.png,dog\nb.png,\n"],
            in_file("corrections.csv", lambda path: import_decisions(images, path)),
        ),
        "train.csv": Parser(
            [listed], in_file("train.csv", lambda path: list_files(folder, needs_test=False))
        ),
        "Keras model": Parser([_keras_file(folder)], in_file("made.keras", read_facts)),
        "TFDS info": Parser(
            [json.dumps(info).encode()],
            in_file(tfrecord.INFO, lambda path: tfrecord.num_examples(folder, "train")),
        ),
        "TFRecord": Parser([_TFRECORD], in_file("a", lambda path: list(read_examples(path)))),
        "tf.train.Example": Parser([_TFRECORD[12:-4]], in_record),
        "feature network": Parser(
            [_keras_file(folder)], in_file("made.keras", lambda path: find_network(str(path)))
        ),
        "data set name": Parser(
            [b"cifar10_imbal_0.1_0.4", b"digits_uniform_0.4", b"cifar10_human_worst"],
            lambda content: dataset_spec.parse(content.decode(errors="surrogateescape")),
        ),
        "cluster.yaml": Parser(
            [(ROOT / "docs" / "cluster.example.yaml").read_bytes()],
            in_file("cluster.yaml", cluster_files.load),
        ),
        "schedules.yaml": Parser(
            [(ROOT / "schedules.yaml").read_bytes()],
            in_file(
                "schedules.yaml", lambda path: schedules.read(path, ClusterFile(), max_trials=100)
            ),
        ),
        "cron": Parser(
            [b"0 30 2 * * 6", b"0 */5 1-3,7 1,15 jan-mar mon", b"0 0 0 ? * 1-5/2"],
            _cron,
            (UserError, UnicodeDecodeError),
        ),
        "image": Parser(
            _images(),
            lambda content: read_pixels(content, 8, central_square),
            (UnreadableImageError,),
        ),
        "features.npy": Parser(
            [_saved(np.save, features)], in_file("f.npy", lambda path: read_features([path]))
        ),
        "features.npz": Parser(
            [_saved(np.savez, features), _saved(np.savez_compressed, features)],
            in_file("f.npz", lambda path: read_features([path])),
        ),
        "features.parquet": Parser(
            [to_parquet({"a": features[:, 0], "b": features[:, 1]})],
            in_file("f.parquet", lambda path: read_features([path])),
        ),
        "IDX": Parser([idx["train-images-idx3-ubyte"]], in_idx("train-images-idx3-ubyte")),
        "IDX labels": Parser([idx["t10k-labels-idx1-ubyte"]], in_idx("t10k-labels-idx1-ubyte")),
        "IDX, gzipped": Parser(
            [gzip.compress(idx["train-images-idx3-ubyte"])], in_idx("train-images-idx3-ubyte.gz")
        ),
        "CIFAR": Parser(
            [bytes(2 * layout.record_bytes)],
            in_file("test.bin", lambda path: cifar.read_records(folder, "test", layout)),
        ),
    }


def select(known: Mapping[str, T], names: Sequence[str]) -> Mapping[str, T]:
    """Returns what has one of some names, or everything if there are none.

    Raises:
      UserError: When a name is not known.
    """
    if unknown := sorted(set(names) - set(known)):
        raise UserError(f"received {', '.join(unknown)}, expected some of {', '.join(known)}")
    return {name: each for name, each in known.items() if not names or name in names}


def read_options(
    arguments: Sequence[str] | None, description: str, kind: str, tries: int
) -> argparse.Namespace:
    """Reads the options of a fuzzer.

    Args:
      arguments: The arguments; None for those of the process.
      description: What it does.
      kind: What it feeds, such as "parser".
      tries: How often it feeds each by default.

    Returns:
      "names", "tries" and "seed".
    """
    options = ArgumentParser(description=description)
    options.add_argument("names", nargs="*", metavar=kind.upper(), help=f"names of {kind}s (all)")
    options.add_argument("--tries", type=int, default=tries, help=f"for each {kind}")
    options.add_argument("--seed", type=int, default=0)
    return options.parse_args(arguments)


@program("chaos-fuzz")
def main(arguments: Sequence[str] | None = None) -> int:
    """Fuzzes the parsers; returns 1 if a try did not survive."""
    chosen = read_options(arguments, str(__doc__), "parser", 2000)
    _limit_memory()
    failed = False
    with tempfile.TemporaryDirectory(prefix="ieg-fuzz-") as folder:
        for name, parser in select(parsers(Path(folder)), chosen.names).items():
            outcome = fuzz(parser, chosen.tries, chosen.seed)
            for failure in outcome.failures[:SHOWN]:
                print(f"{name}: {failure}")
            survived = outcome.tried - len(outcome.failures)
            print(f"fuzz {name}: {survived:,} of {outcome.tried:,} survived", flush=True)
            failed |= bool(outcome.failures)
    return int(failed)


def _limit_memory() -> None:
    used = int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[0])
    limit = used * resource.getpagesize() + SPARE_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def _cron(content: bytes) -> None:
    text = content.decode()
    cron.check(text)
    cron.runs_a_month(text)


def _images() -> list[bytes]:
    gray = np.arange(64, dtype=np.uint8).reshape(8, 8)
    image = Image.fromarray(gray)
    made = []
    for kind, mode in (
        ("PNG", "L"),
        ("PNG", "P"),
        ("PNG", "RGBA"),
        ("JPEG", "RGB"),
        ("WEBP", "RGB"),
    ):
        file = io.BytesIO()
        image.convert(mode).save(file, kind)
        made.append(file.getvalue())
    file = io.BytesIO()
    Image.fromarray((gray.astype(np.uint16) | 128) << 8).save(file, "PNG")
    return [*made, file.getvalue()]


def _keras_file(folder: Path) -> bytes:
    """Returns a `.keras` file without weights."""
    path = folder / "made.keras"
    layer = {"class_name": "InputLayer", "config": {"batch_shape": [None, 32, 32, 3]}}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("config.json", json.dumps({"config": {"layers": [layer]}}))
    write_facts(path, ModelFacts(("cat", "dog"), (32, 32, 3)))
    return path.read_bytes()


def _saved(write: Callable[..., None], values: np.ndarray) -> bytes:
    file = io.BytesIO()
    write(file, values)
    return file.getvalue()


def _torch_file() -> bytes:
    """Returns what `torch.save` writes for one tensor of six numbers, in the legacy format."""

    def text(value: str) -> bytes:
        return b"X" + struct.pack("<I", len(value)) + value.encode()

    def numbers(*values: int) -> bytes:
        return b"(" + b"".join(b"J" + struct.pack("<i", each) for each in values) + b"t"

    storage = b"(" + text("storage") + b"ctorch\nFloatStorage\n" + text("7") + text("cpu")
    storage += b"J" + struct.pack("<i", 6) + b"NtQ"
    tensor = b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + b"J\0\0\0\0" + numbers(2, 3)
    tensor += numbers(3, 1) + b"\x89ccollections\nOrderedDict\n)RtR"
    state = b"\x80\x02ccollections\nOrderedDict\n)R" + text("weight") + tensor + b"s."
    parts = [0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}]
    head = b"".join(pickle.dumps(each, protocol=2) for each in parts)
    values = np.arange(6, dtype="<f4").tobytes()
    return head + state + pickle.dumps(["7"], protocol=2) + struct.pack("<q", 6) + values


if __name__ == "__main__":
    sys.exit(main())
