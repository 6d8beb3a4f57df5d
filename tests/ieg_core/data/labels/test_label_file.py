# SPDX-License-Identifier: Apache-2.0
import hashlib
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ieg_core.data.base import Source, Split, in_memory_source
from ieg_core.data.label_set import prepare_label_set
from ieg_core.data.labels.given import NOT_LISTED, GivenLabels, data_tag
from ieg_core.data.labels.label_file import read_labels, to_parquet, write_labels
from ieg_core.data.labels.open import open_given
from ieg_core.data.open import open_source
from ieg_core.errors import UserError
from ieg_core.experiment.config import ImagesConfig
from ieg_core.experiment.dataset_spec import parse
from ieg_core.sweep import plan
from ieg_core.sweep.configurations import configs
from ieg_core.sweep.request import SweepRequest
from tests.ieg_core.data.trees import write_tree

NUM_EXAMPLES = 12
SUFFIXES = (".csv", ".parquet")
VALUES = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**63), 2**63 - 1), st.floats(), st.text(max_size=3)
)


def small_source(num_examples=40, seed=0, base="cifar10"):
    rng = np.random.default_rng(seed)
    labels = (np.arange(num_examples) % 10).astype(np.int32)
    images = rng.integers(0, 256, (num_examples, 3, 32, 32), dtype=np.uint8)
    split = Split(images, labels)
    return in_memory_source(base, "made up", "memory", split, split)


@pytest.fixture
def source():
    return small_source()


def csv_text(source, labels, header="index,label"):
    names = [source.class_names[label] for label in labels]
    return "\n".join([header, *(f"{i},{name}" for i, name in enumerate(names))]) + "\n"


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_what_is_written_is_read_again(tmp_path, source, suffix):
    path = tmp_path / f"cleaned{suffix}"
    labels = np.roll(source.train_labels, 3)
    ids = np.arange(40)[::-1]
    write_labels(path, ids, labels[ids], source)
    found = read_labels(path, source)
    np.testing.assert_array_equal(found.labels, labels)
    assert found.file == path.name
    assert found.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


def test_names_and_numbers_are_labels_and_other_columns_are_ignored(tmp_path, source):
    path = tmp_path / "labels.csv"
    lines = [f"x,{9 - c},{c}" for c in range(5)] + [
        f"y,{source.class_names[9 - c]},{c}" for c in range(5, 10)
    ]
    path.write_text("\ufeffannotator,label,index\n" + "\n".join(lines) + "\n", encoding="utf-8")
    found = read_labels(path, source)
    assert found.labels[:10].tolist() == [9, 8, 7, 6, 5, 4, 3, 2, 1, 0]
    assert (found.labels[10:] == NOT_LISTED).all()


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_classes_called_by_numbers_survive_who_reads_them_as_numbers(tmp_path, source, suffix):
    """Of 007 a spreadsheet makes 7, which is no other class's place in the list."""
    names = tuple(f"{number:03}" for number in range(1, 11))
    named = replace(source, class_names=names)
    path = tmp_path / f"labels{suffix}"
    if suffix == ".csv":
        path.write_text("index,label\r\n" + "".join(f"{i},{i + 1}\r\n" for i in range(10)))
    else:
        path.write_bytes(to_parquet({"index": range(10), "label": range(1, 11)}))
    assert read_labels(path, named).labels[:10].tolist() == list(range(10))
    path = tmp_path / "zero.csv"
    path.write_text("index,label\n0,0\n")
    with pytest.raises(UserError, match=r"row 1: unknown label '0'") as refused:
        read_labels(path, named)
    assert "number from 0" not in str(refused.value)


def test_a_parquet_file_of_numbers_is_read(tmp_path, source):
    path = tmp_path / "labels.parquet"
    path.write_bytes(to_parquet({"index": np.arange(40), "label": source.train_labels}))
    np.testing.assert_array_equal(read_labels(path, source).labels, source.train_labels)


def test_a_probe_of_ones_own_images_has_the_file_s_labels(tmp_path):
    """Not the folders' that the file corrects: nobody knows those to be right."""
    tree = write_tree(tmp_path / "data", {"train": 4, "test": 1})
    source = open_source("folder", tree, ImagesConfig(size=8))
    corrected = np.roll(source.train_labels, 2)
    ids = np.arange(1, 12)
    write_labels(tmp_path / "cleaned.csv", ids, corrected[ids], source)
    label_set = prepare_label_set(
        parse("folder_labels"),
        seed=0,
        probe_per_class=2,
        source=source,
        label_sets_dir=tmp_path / "label_sets",
        given=read_labels(tmp_path / "cleaned.csv", source),
    )
    probe = label_set.probe_ids
    assert sorted(corrected[probe]) == [0, 0, 1, 1, 2, 2]
    np.testing.assert_array_equal(label_set.clean_labels[probe], corrected[probe])
    assert label_set.clean_labels.dtype == np.int32
    assert (label_set.clean_labels != source.train_labels).any()
    # The example without a label is nowhere.
    assert sorted([*probe, *label_set.train_ids]) == ids.tolist()
    facts = label_set.manifest.to_value()
    assert not facts["clean_labels_known"]
    assert [facts[key] for key in ("noise_rate", "true_flip_rate", "realised_flip_rate")] == [
        None
    ] * 3
    assert facts["class_counts"]["probe"] == [2, 2, 2]


def test_a_probe_with_known_labels_keeps_them(tmp_path, source):
    path = tmp_path / "labels.csv"
    path.write_text(csv_text(source, np.roll(source.train_labels, 1)))
    label_set = prepare_label_set(
        parse("cifar10_labels"),
        seed=0,
        probe_per_class=1,
        source=source,
        label_sets_dir=tmp_path / "label_sets",
        given=read_labels(path, source),
    )
    np.testing.assert_array_equal(label_set.clean_labels, source.train_labels)
    assert label_set.manifest.realised_flip_rate == 1


BAD = {
    "no label column": ("index,class\n0,cat\n", r"columns index, class: .* label is missing"),
    "empty": ("", r"columns \(none\): expected index and label; index and label are missing"),
    "no rows": ("index,label\n", r"gives no example the label 'airplane' \(10 of 10 classes"),
    "out of range": ("index,label\n40,cat\n", r"index '40' in row 1: .* 0 to 39"),
    "negative": ("index,label\n-1,cat\n", r"index '-1' in row 1"),
    "no index": ("index,label\n1.5,cat\n", r"index '1.5' in row 1"),
    "twice": ("index,label\n1,cat\n1,cat\n", r"repeats the index 1 in row 2"),
    "unknown label": ("index,label\n1,cta\n", r"row 1: unknown label 'cta': did you mean 'cat'"),
    "number too high": ("index,label\n1,10\n", r"unknown label '10'.*or a number from 0 to 9"),
    "no label": ("index,label\n1,\n", r"the label '' in row 1, which means none"),
    "pandas' missing": ("index,label\n1,nan\n", r"the label 'nan' in row 1, which means none"),
    "short row": ("index,label\n1\n", r"has no label in row 1: expected index, label in every row"),
    "other data": ("index,label,data\n1,cat,digits:123456789abc\n", r"for the data digits:1234"),
    "no UTF-8": (b"index,label\n1,c\xe4t\n", r"cannot read .*: expected a CSV file in UTF-8"),
    "a quote left open": ('index,label\n1,"cat\n', r"expected a CSV file in UTF-8"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_a_bad_file_is_one_clear_line(tmp_path, source, name):
    content, message = BAD[name]
    path = tmp_path / "labels.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UserError, match=message) as error:
        read_labels(path, source)
    assert "\n" not in str(error.value)
    assert str(path) in str(error.value)


def test_a_class_without_an_example_is_told(tmp_path, source):
    path = tmp_path / "labels.csv"
    path.write_text(csv_text(source, np.maximum(source.train_labels, 1)))
    with pytest.raises(UserError, match=r"no example the label 'airplane' \(1 of 10 classes"):
        read_labels(path, source)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("labels.txt", b"index,label\n", r"the extension '.txt': expected .csv or .parquet"),
        (
            "labels.parquet",
            b"index,label\n",
            "cannot read the label file .*: expected a Parquet file",
        ),
        ("labels.parquet", b"", "cannot read the label file .*: expected a Parquet file"),
        ("labels.parquet", to_parquet({"a": [1]}), "has the columns a: expected index and label"),
    ],
)
def test_other_formats_are_refused(tmp_path, source, name, content, message):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(UserError, match=message) as error:
        read_labels(path, source)
    assert "\n" not in str(error.value)


def test_a_missing_file_is_told(tmp_path, source):
    with pytest.raises(UserError, match=r"cannot read the label file .*No such file"):
        read_labels(tmp_path / "labels.csv", source)


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_a_cleaned_file_is_for_its_own_data_alone(tmp_path, source, suffix):
    path = tmp_path / f"cleaned{suffix}"
    write_labels(path, np.arange(40), source.train_labels, source)
    other = small_source(seed=1)
    with pytest.raises(UserError, match=f"for the data {data_tag(source)}, expected cifar10:"):
        read_labels(path, other)


def test_the_label_set_holds_the_labels_and_the_files_digest(tmp_path):
    source = open_source("digits", tmp_path)
    labels = source.train_labels.copy()
    labels[:5] = (labels[:5] + 1) % 10
    listed = np.arange(1000)
    path = tmp_path / "mine.csv"
    write_labels(path, listed, labels[listed], source)
    spec = parse("digits_labels")

    def prepare(labels_file):
        return prepare_label_set(
            spec,
            seed=0,
            probe_per_class=2,
            source=source,
            label_sets_dir=tmp_path / "label_sets",
            given=open_given(spec, source, tmp_path, str(labels_file)),
        )

    label_set = prepare(path)
    np.testing.assert_array_equal(label_set.noisy_labels[listed], labels[listed])
    kept = np.union1d(label_set.train_ids, label_set.probe_ids)
    np.testing.assert_array_equal(kept, listed)
    assert len(label_set.probe_ids) == 20
    manifest = label_set.manifest.to_value()
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    assert manifest["labels_file"] == {"name": "mine.csv", "sha256": sha256}
    assert manifest["noise_rate"] is None
    assert manifest["true_flip_rate"] is None
    assert manifest["transition_asked"] is None
    assert manifest["realised_flip_rate"] == pytest.approx(5 / 1000)

    write_labels(path, listed[:999], labels[listed[:999]], source)
    assert prepare(path).digest != label_set.digest


def test_a_sweep_over_a_label_file_is_planned_with_its_digest(tmp_path):
    source = open_source("digits", tmp_path)
    path = tmp_path / "my labels.csv"
    write_labels(path, np.arange(1438), source.train_labels, source)
    request = SweepRequest(
        "digits_labels", methods=("supervised",), labels=str(path), results=str(tmp_path / "runs")
    )
    planned = plan.plan(request)
    assert f"LABELS='{path}'" in request.command
    write_labels(path, np.arange(1438), np.roll(source.train_labels, 1), source)
    assert plan.plan(request).trials != planned.trials


@pytest.mark.parametrize(
    ("dataset", "labels", "message"),
    [
        ("digits_labels", "", "digits_labels received no label file: .* pass LABELS=path"),
        ("digits_uniform", "x.csv", "received LABELS=x.csv, but digits_uniform_0.2 takes no"),
    ],
)
def test_a_label_file_and_its_data_set_go_together(dataset, labels, message):
    with pytest.raises(UserError, match=message):
        configs(SweepRequest(dataset, methods=("supervised",), labels=labels))


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_class_names_may_begin_and_end_with_spaces(tmp_path, suffix):
    """A folder's name may; what an audit writes must be read again."""
    tree = write_tree(tmp_path / "data", {"train": 2, "test": 1}, names=("cat", "cat ", " eel"))
    source = open_source("folder", tree, ImagesConfig(size=8))
    path = tmp_path / f"cleaned{suffix}"
    write_labels(path, np.arange(6), source.train_labels, source)
    np.testing.assert_array_equal(read_labels(path, source).labels, source.train_labels)


def test_spaces_around_what_is_in_a_csv_do_not_matter(tmp_path, source):
    tag = data_tag(source)
    rows = "".join(f" {index} , {index} , {tag} \n" for index in range(10))
    (tmp_path / "labels.csv").write_text(f"index, label , data\n{rows}")
    assert read_labels(tmp_path / "labels.csv", source).labels[:10].tolist() == list(range(10))


def test_files_may_be_named_by_path(tmp_path, source):
    source = replace(source, paths=[f"train/{number}.png" for number in range(40)])
    path = tmp_path / "labels.csv"
    lines = [f"train/{number}.png,{number % 10}\n" for number in range(20)]
    path.write_text("path,label\n" + "".join(lines))
    labels = read_labels(path, source).labels
    assert labels.tolist() == [number % 10 for number in range(20)] + [NOT_LISTED] * 20
    path.write_text("path,label\ntrain/x.png,1\n")
    with pytest.raises(UserError, match=r"'train/x.png' in row 1: expected one of the 40"):
        read_labels(path, source)


def test_names_and_paths_are_found_in_every_spelling_of_unicode_and_of_windows(tmp_path, source):
    names = ("Käfer", *source.class_names[1:])
    source = replace(source, paths=[f"train/ä{n}.png" for n in range(40)], class_names=names)
    path = tmp_path / "labels.csv"
    first = "Ka\u0308fer"
    lines = [f"train\\a\u0308{n}.png,{n % 10 or first}\n" for n in range(20)]
    path.write_text("path,label\n" + "".join(lines), encoding="utf-8")
    assert read_labels(path, source).labels.tolist() == [n % 10 for n in range(20)] + [-1] * 20


# What holds for every label file.


def _source() -> Source:
    images = np.zeros((NUM_EXAMPLES, 3, 32, 32), np.uint8)
    split = Split(images, (np.arange(NUM_EXAMPLES) % 10).astype(np.int32))
    return in_memory_source("cifar10", "made up", "memory", split, split)


SOURCE = _source()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("labels")


@given(st.data())
@settings(max_examples=120)
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_whatever_the_classes_are_called_the_labels_are_read_back(folder, suffix, data):
    texts = st.text(st.characters(codec="utf-8"), max_size=8) | st.integers(0, 20).map(str)
    names = data.draw(st.lists(texts, min_size=1, max_size=6, unique=True))
    source = replace(SOURCE, class_names=tuple(names))
    ids = data.draw(
        st.lists(
            st.integers(0, NUM_EXAMPLES - 1),
            min_size=len(names),
            max_size=NUM_EXAMPLES,
            unique=True,
        )
    )
    more = data.draw(
        st.lists(
            st.integers(0, len(names) - 1),
            min_size=len(ids) - len(names),
            max_size=len(ids) - len(names),
        )
    )
    labels = np.array(data.draw(st.permutations([*range(len(names)), *more])), np.int32)
    expected = np.full(NUM_EXAMPLES, NOT_LISTED)
    expected[ids] = labels
    path = folder / f"round{suffix}"
    write_labels(path, np.array(ids), labels, source)
    np.testing.assert_array_equal(read_labels(path, source).labels, expected)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_class_name_may_hold_any_line_end(folder, suffix):
    """Hypothesis found the carriage return, among thousands of examples."""
    source = replace(SOURCE, class_names=("\r", "\n", "a\r\nb", "a\u2028b", '"'))
    path = folder / f"ends{suffix}"
    write_labels(path, np.arange(5), np.arange(5), source)
    assert read_labels(path, source).labels[:5].tolist() == [0, 1, 2, 3, 4]


def read_or_refuse(path, content: bytes) -> None:
    path.write_bytes(content)
    try:
        found = read_labels(path, SOURCE)
    except UserError as error:
        message = str(error)
    else:
        assert isinstance(found, GivenLabels)
        assert set(found.labels.tolist()) - {NOT_LISTED} == set(range(10))
        return
    assert "\n" not in message
    assert str(path) in message


CELL = st.one_of(
    st.integers(-1, NUM_EXAMPLES).map(str),
    st.sampled_from([*SOURCE.class_names, "index", "label", "data", '"', "\ufeff", "1e3", "\0"]),
    st.text(st.characters(codec="utf-8"), max_size=4),
)
TABLE = st.lists(st.lists(CELL, max_size=4).map(",".join), max_size=6)


@given(
    st.one_of(
        st.binary(max_size=60),
        TABLE.map(lambda lines: "\n".join(lines).encode()),
        TABLE.map(lambda lines: "\r\n".join(["index,label", *lines]).encode()),
    )
)
@settings(max_examples=200)
def test_any_csv_is_labels_or_a_mistake_of_the_users(folder, content):
    read_or_refuse(folder / "any.csv", content)


WHOLE = to_parquet(
    {"index": np.arange(NUM_EXAMPLES), "label": [f"{label}" for label in SOURCE.train_labels]}
)


@given(
    st.one_of(
        st.binary(max_size=60),
        st.integers(0, len(WHOLE)).map(lambda end: WHOLE[:end]),
        st.tuples(st.integers(0, len(WHOLE) - 1), st.integers(0, 255)).map(
            lambda at: WHOLE[: at[0]] + bytes([at[1]]) + WHOLE[at[0] + 1 :]
        ),
    )
)
@settings(max_examples=200)
def test_any_parquet_is_labels_or_a_mistake_of_the_users(folder, content):
    read_or_refuse(folder / "any.parquet", content)


@given(
    st.one_of(
        *(
            st.lists(kind, max_size=4)
            for kind in (VALUES, st.binary(max_size=3), st.dates(), st.lists(st.integers(0, 9)))
        )
    )
)
def test_any_column_of_parquet_is_labels_or_a_mistake_of_the_users(folder, values):
    same_type = [value for value in values if type(value) is type(values[0])]
    index = list(range(len(same_type)))
    read_or_refuse(folder / "any.parquet", to_parquet({"index": index, "label": same_type}))
    read_or_refuse(folder / "any.parquet", to_parquet({"index": same_type, "label": index}))
