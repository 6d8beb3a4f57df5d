# SPDX-License-Identifier: Apache-2.0
"""Feeds readers with well-formed content whose structure hypothesis draws.

    python -m scripts.chaos_structures [--tries 500] [--seed 0] [READER ...]

`scripts.chaos_fuzz` breaks bytes, so that most of its files end at the outer format. Here that is
right: JSON with a digest, YAML, CSV, Parquet and pickles of any values, many of them of the keys
and types that the reader expects. A reader survives if it returns, or raises the error that it
declares, with one line. hypothesis shrinks what does not survive. Prints the counts; the exit code
is 1 if a reader did not survive.
"""

import json
import pickle
import sys
import tempfile
import types
import typing
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import yaml
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

from ieg_core.audit.corrections import import_decisions
from ieg_core.audit.decisions import read_decisions
from ieg_core.data.label_set import ManifestRecord
from ieg_core.data.labels.label_file import read_labels
from ieg_core.data.labels.restricted_pickle import NotArraysError, read_arrays
from ieg_core.data.public import tfrecord
from ieg_core.data.tables import to_csv, to_parquet
from ieg_core.errors import UserError
from ieg_core.features.files import read_features
from ieg_core.features.network import find_network
from ieg_core.host.program import program
from ieg_core.store import records
from ieg_core.store.record import Record
from ieg_core.store.seal import seal
from pipelines import cluster_files
from pipelines.cluster.cost import read_rates
from pipelines.cluster_files import ClusterFile
from pipelines.scheduling import schedules
from scripts.chaos_fuzz import (
    audited_images,
    digits_source,
    problem_of,
    read_options,
    select,
)

NUMBERS: Final = (
    st.integers() | st.floats() | st.sampled_from([-1, 0, 1, 2**31, 2**63, 10**400, 1e308])
)
TEXTS: Final = st.text(max_size=20) | st.sampled_from(
    ["", "nan", "=1+1", "../..", "gs://", "\x00", "1.0", "-", "null", "a\nb", "é", "e\u0301"]
)
SCALARS: Final = st.none() | st.booleans() | NUMBERS | TEXTS
VALUES: Final = st.recursive(
    SCALARS, lambda each: st.lists(each, max_size=4) | st.dictionaries(TEXTS, each, max_size=4)
)


@dataclass(frozen=True)
class Reader:
    """A reader of structured content.

    Attributes:
      contents: Draws the contents.
      parse: Parses one.
      errors: What it declares to raise.
    """

    contents: st.SearchStrategy[Any]
    parse: Callable[[Any], object]
    errors: tuple[type[Exception], ...] = (UserError,)


def of_type(hint: Any) -> st.SearchStrategy[Any]:
    """Returns a strategy for the JSON values of a declared type, and sometimes of another."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    inner: st.SearchStrategy[Any] = VALUES
    if is_dataclass(hint):
        inner = of_fields(hint)
    elif origin is typing.Literal:
        inner = st.sampled_from(arguments)
    elif origin in (types.UnionType, typing.Union):
        inner = st.one_of([of_type(each) for each in arguments if each is not type(None)])
    elif hint in (bool, int, float, str):
        inner = {bool: st.booleans(), int: st.integers(), float: NUMBERS, str: TEXTS}[hint]
    elif origin in (Sequence, tuple, list):
        inner = st.lists(of_type(arguments[0]), max_size=4)
    elif origin in (Mapping, dict):
        inner = st.dictionaries(TEXTS, of_type(arguments[1]), max_size=4)
    return st.integers(0, 9).flatmap(lambda die: inner if die else VALUES)


def of_fields(kind: Any) -> st.SearchStrategy[dict[str, Any]]:
    """Returns a strategy for JSON objects with some of a dataclass's fields."""
    hints = typing.get_type_hints(kind)
    known = {
        field.name: st.deferred(lambda h=hints[field.name]: of_type(h)) for field in fields(kind)
    }
    return st.fixed_dictionaries({}, optional=known) | st.fixed_dictionaries(known)


def with_keys(**known: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Returns a strategy for JSON objects with some of the keys, and sometimes for other values."""
    odd = {key: each | VALUES for key, each in known.items()}
    return (
        st.fixed_dictionaries(known)
        | st.fixed_dictionaries({}, optional=known)
        | st.fixed_dictionaries({}, optional=odd)
        | VALUES
    )


def sealed(value: Mapping[str, Any]) -> bytes:
    """Returns a JSON file with a right digest, as another version could have written it.

    Returns:
      The file; empty for a value that JSON does not have, such as NaN.
    """
    try:
        return json.dumps(seal(json.loads(json.dumps(value))), allow_nan=False).encode()
    except ValueError:
        return b""


def readers(folder: Path) -> Mapping[str, Reader]:
    """Returns the readers by name.

    Args:
      folder: An empty folder for the files of those that read files.
    """

    def in_file(name: str, read: Callable[[Path], object]) -> Callable[[bytes], object]:
        def parse(content: bytes) -> object:
            path = folder / name
            path.write_bytes(content)
            return read(path)

        return parse

    def record(kind: type[Record]) -> Reader:
        contents = of_fields(kind).map(sealed).filter(bool)
        return Reader(contents, lambda content: kind.decode(content, "file"))

    kinds = [each for each in vars(records).values() if isinstance(each, type)]
    kinds = [each for each in kinds if issubclass(each, Record) and each is not Record]
    source = digits_source()
    columns = st.dictionaries(
        st.sampled_from(["index", "label", "path", "decision", "other"]) | TEXTS,
        st.sampled_from([TEXTS, NUMBERS.map(str), st.integers(-2, 12)]),
        max_size=4,
    )
    tables = columns.flatmap(
        lambda each: st.integers(0, 12).flatmap(
            lambda rows: st.fixed_dictionaries(
                {k: st.lists(v, min_size=rows, max_size=rows) for k, v in each.items()}
            )
        )
    )
    csv = tables.map(lambda table: to_csv(table))
    parquet = tables.filter(lambda table: all(_is_plain(v) for v in table.values())).map(to_parquet)
    decide = lambda path: read_decisions(path, ("a.png", "b.png"), ("cat", "dog"))  # noqa: E731
    images = audited_images()
    choice = with_keys(choices=st.lists(TEXTS, max_size=2))
    annotation = with_keys(
        lead_time=NUMBERS, updated_at=TEXTS, result=_some(with_keys(value=choice))
    )
    data = with_keys(name=st.sampled_from(["a.png", "b.png"]), image=TEXTS)
    task = with_keys(data=data, annotations=_some(annotation))
    label = with_keys(label=TEXTS | st.integers(-1, 2), attributes=with_keys(reviewed=SCALARS))
    labels = st.dictionaries(st.sampled_from(["a", "b.png", "x/a.png", ""]), label | _some(label))
    split = with_keys(name=st.just("train"), shardLengths=_some(TEXTS), statistics=VALUES)
    layer = with_keys(batch_shape=st.tuples(*4 * [st.sampled_from([None, 3, 32, "32"])]))
    rates = st.dictionaries(
        st.sampled_from(["wrn28-10", "resnet32", ""]),
        st.dictionaries(st.sampled_from(["supervised", "ieg", ""]), SCALARS) | VALUES,
    )

    def keras_side(content: bytes) -> object:
        with zipfile.ZipFile(folder / "made.keras", "w") as archive:
            archive.writestr("config.json", content)
        return find_network(str(folder / "made.keras"))

    entry = of_fields(schedules.Schedule)
    plan = st.fixed_dictionaries({"schedules": st.lists(entry, max_size=3) | VALUES})
    read_schedules = lambda path: schedules.read(path, ClusterFile(), max_trials=100)  # noqa: E731
    arrays = st.integers(0, 9).map(lambda n: np.arange(n)) | st.lists(NUMBERS).map(np.array)
    pickled = st.recursive(
        SCALARS | st.binary(max_size=9) | arrays | st.sampled_from([np.int64(3), Path, print, 1j]),
        lambda each: (
            st.lists(each, max_size=3)
            | st.dictionaries(TEXTS, each, max_size=3)
            | st.tuples(each, each)
        ),
    )
    return {
        **{kind.NAME: record(kind) for kind in (*kinds, ManifestRecord)},
        "Label Studio": Reader(
            _json(_some(task)), in_file("tasks", lambda path: import_decisions(images, path))
        ),
        "FiftyOne": Reader(
            _json(with_keys(classes=st.lists(TEXTS, max_size=3), labels=labels)),
            in_file("labels", lambda path: import_decisions(images, path, "fiftyone")),
        ),
        "TFDS info": Reader(
            _json(with_keys(splits=_some(split))),
            in_file(tfrecord.INFO, lambda path: tfrecord.num_examples(folder, "train")),
        ),
        "feature network": Reader(_json(with_keys(config=layer)), keras_side),
        "rates": Reader(_json(rates), in_file("rates.json", lambda path: read_rates(str(path)))),
        "cluster.yaml": Reader(
            (of_fields(ClusterFile) | VALUES).map(_yaml), in_file("c.yaml", cluster_files.load)
        ),
        "schedules.yaml": Reader((plan | VALUES).map(_yaml), in_file("s.yaml", read_schedules)),
        "labels.csv": Reader(csv, in_file("l.csv", lambda path: read_labels(path, source))),
        "labels.parquet": Reader(
            parquet, in_file("l.parquet", lambda path: read_labels(path, source))
        ),
        "decisions.csv": Reader(csv, in_file("d.csv", decide)),
        "features.parquet": Reader(parquet, in_file("f.parquet", lambda p: read_features([p]))),
        "pickle": Reader(
            st.tuples(pickled, st.integers(0, 5)).map(lambda each: pickle.dumps(*each)),
            read_arrays,
            (NotArraysError,),
        ),
    }


def _is_plain(values: Sequence[Any]) -> bool:
    """Returns whether a column of Parquet can hold values: of one type, and no lone surrogates."""
    return len({type(each) for each in values}) < 2


def _some(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[list[Any]]:
    return st.lists(inner, max_size=3)


def _json(values: st.SearchStrategy[Any]) -> st.SearchStrategy[bytes]:
    return values.map(lambda value: json.dumps(value).encode())


def _yaml(value: Any) -> bytes:
    return yaml.safe_dump(value, allow_unicode=True).encode("utf-8", "replace")


def check(reader: Reader, tries: int, number: int = 0) -> str:
    """Feeds a reader; returns what it did not survive, "" if there is nothing.

    Args:
      reader: The reader.
      tries: Number of contents.
      number: Seed of the contents.
    """

    @seed(number)
    @settings(
        max_examples=tries, deadline=None, database=None, suppress_health_check=list(HealthCheck)
    )
    @given(reader.contents)
    def feed(content: Any) -> None:
        problem = problem_of(reader.parse, reader.errors, content)
        if problem:
            raise AssertionError(f"{problem}: {content!r}"[:600])

    try:
        feed()
    except AssertionError as error:
        return str(error).splitlines()[0]
    return ""


@program("chaos-structures")
def main(arguments: Sequence[str] | None = None) -> int:
    """Feeds the readers; returns 1 if one did not survive."""
    chosen = read_options(arguments, str(__doc__), "reader", 500)
    failed = False
    with tempfile.TemporaryDirectory(prefix="ieg-fuzz-") as folder:
        for name, reader in select(readers(Path(folder)), chosen.names).items():
            problem = check(reader, chosen.tries, chosen.seed)
            print(f"structures {name}: {problem or f'{chosen.tries:,} survived'}", flush=True)
            failed |= bool(problem)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
