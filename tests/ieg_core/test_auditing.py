# SPDX-License-Identifier: Apache-2.0
import contextlib
import importlib
import inspect
import io
import re
import shutil
import sys
import types
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from threadpoolctl import threadpool_limits

import ieg_core
from ieg_core import auditing
from ieg_core.audit.from_python import open_python
from ieg_core.audit.pixels import to_pixels
from ieg_core.auditing import AuditResult, audit
from ieg_core.errors import UserError
from tests.docs.commands import run_example

ROOT = Path(__file__).parents[2]
COUNT = 120
NAMES = ("cat", "dog", "fox")
RNG = np.random.default_rng(0)
TRUTH = np.arange(COUNT) % 3
GIVEN = TRUTH.copy()
WRONG = np.arange(0, COUNT, 10)
GIVEN[WRONG] = (TRUTH[WRONG] + 1) % 3
TEXTS = [NAMES[label] for label in GIVEN]
# A class is a color, so that the mean color predicts it.
COLORS = np.array([(200, 60, 60), (60, 200, 60), (60, 60, 200)])
IMAGES = np.clip(
    COLORS[TRUTH][:, None, None] + RNG.normal(0, 25, (COUNT, 12, 10, 3)), 0, 255
).astype(np.uint8)


def mean_color(batch):
    assert batch.dtype == np.uint8
    assert batch.shape[1:] == (160, 160, 3)
    return batch[:, ::16, ::16].mean((1, 2))


def run(data=None, labels=None, **options):
    return audit(data, labels, network=mean_color, progress=False, **options)


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Fits are so small here that threads wait for each other longer than they compute."""
    with threadpool_limits(1):
        yield


class Frame:
    """What is used of a pandas DataFrame."""

    def __init__(self, columns, index=None):
        self._columns = columns
        self.columns = list(columns)
        self.index = list(range(len(next(iter(columns.values()))))) if index is None else index
        self.iloc = None

    def __getitem__(self, name):
        return self._columns[name]


class Column(list):
    """What is used of a pandas Series."""

    def __init__(self, values, index):
        super().__init__(values)
        self.index = index
        self.iloc = None


class ClassLabel:
    def __init__(self, names):
        self.names = names


class HuggingFace:
    """What is used of a datasets.Dataset."""

    def __init__(self, columns, features):
        self._columns = columns
        self.features = features
        self.column_names = list(columns)

    def __len__(self):
        return COUNT

    def __getitem__(self, key):
        if isinstance(key, str):
            return self._columns[key]
        return {name: values[key] for name, values in self._columns.items()}


class Stream:
    """What is used of a tf.data.Dataset."""

    def __init__(self, elements):
        self._elements = elements

    def as_numpy_iterator(self):
        return iter(self._elements)


class Pairs:
    """A map-style data set of PyTorch; items are (PIL image, int)."""

    classes = NAMES

    def __len__(self):
        return COUNT

    def __getitem__(self, place):
        if place >= COUNT:
            raise IndexError
        return Image.fromarray(IMAGES[place]), int(GIVEN[place])


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    paths = []
    for place, (pixels, label) in enumerate(zip(IMAGES, TEXTS, strict=True)):
        path = folder / label / f"{place:03d}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(pixels).save(path)
        paths.append(path)
    return folder, paths


def check(found, indices=None):
    """All wrong labels lead the list, in the caller's indices."""
    indices = list(range(COUNT)) if indices is None else indices
    assert isinstance(found, AuditResult)
    assert set(found.suspects(len(WRONG))) == {indices[place] for place in WRONG}
    right = found.evidence.suggested == TRUTH
    assert right.mean() >= 0.97


@pytest.mark.parametrize("labels", [GIVEN, GIVEN.tolist(), TEXTS, np.array(TEXTS)])
def test_arrays(labels):
    check(run(IMAGES, labels))
    assert run(IMAGES, labels).images.digests is None


def test_gray_float_and_channels_first_arrays_and_a_list_of_any_sizes():
    np.testing.assert_array_equal(to_pixels(IMAGES[0].transpose(2, 0, 1)), IMAGES[0])
    np.testing.assert_array_equal(to_pixels(IMAGES[0] / 255), IMAGES[0])
    np.testing.assert_array_equal(to_pixels(IMAGES[0, ..., 0]), IMAGES[0, ..., :1])
    check(run(IMAGES / 255, GIVEN))
    check(run([image[: 8 + place % 5] for place, image in enumerate(IMAGES)], GIVEN))


def test_a_tensor_is_read_by_what_it_offers():
    tensor = types.SimpleNamespace(numpy=lambda: IMAGES[0].transpose(2, 0, 1) / 255)
    np.testing.assert_array_equal(to_pixels(tensor), IMAGES[0])


def test_pillow_images_are_upright_and_opaque():
    file = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(IMAGES[0]).save(file, "PNG", exif=exif)
    upright = np.rot90(IMAGES[0], -1)
    np.testing.assert_array_equal(to_pixels(Image.open(file)), upright)
    np.testing.assert_array_equal(to_pixels({"bytes": file.getvalue(), "path": None}), upright)
    clear = Image.new("RGBA", (4, 4), (0, 0, 0, 0))
    assert to_pixels(clear).min() == 255
    assert to_pixels(clear.convert("L")).shape == (4, 4, 1)


def test_a_list_of_files(files):
    _, paths = files
    found = run(paths, TEXTS)
    check(found)
    assert found.images.names[3] == paths[3].as_posix()
    np.testing.assert_array_equal(found.images.read(7), IMAGES[7])
    assert len(found.images.digests) == COUNT


def test_files_that_cannot_be_decoded_are_left_out_and_indices_stay(files, tmp_path):
    paths = [*files[1]]
    paths[5] = tmp_path / "broken.png"
    paths[5].write_bytes(b"\x89PNG\r\n\x1a\nnothing")
    found = run(paths, TEXTS)
    assert set(found.suspects(len(WRONG))) == set(WRONG.tolist())
    assert 5 not in found.suspects(COUNT)
    assert "1 of 120 files cannot be decoded" in repr(found)


def test_reading_files_shows_how_far_it_is(files, monkeypatch):
    shown = []

    class Line:
        def __init__(self, title, unit):
            shown.append(title)

        def __call__(self, done, total):
            shown.append((done, total))

        def close(self):
            shown.append("closed")

    monkeypatch.setattr("ieg_core.audit.from_python.ProgressLine", Line)
    folder, paths = files
    for data, labels in ((folder, None), (paths, TEXTS)):
        shown.clear()
        open_python(data, labels, size=8, progress=True)
        assert shown[0] == "Reading"
        assert shown[-2:] == [(COUNT, COUNT), "closed"]


def test_a_folder(files):
    folder, paths = files
    found = run(folder)
    assert set(found.images.class_names) == set(NAMES)
    wrong = {paths[place].relative_to(folder).as_posix() for place in WRONG}
    assert {found.images.names[place] for place in found.order[: len(WRONG)]} == wrong
    assert run(str(folder)).summary == found.summary
    assert set(found.suspects(len(WRONG))) == wrong


def test_the_notes_of_a_folder_name_no_option(files, tmp_path):
    for part in ("train", "test"):
        shutil.copytree(files[0], tmp_path / part)
    notes = open_python(tmp_path, size=8).images.notes
    assert notes == ("the test set is not judged",)


def test_a_frame_of_paths_with_its_own_index(files):
    index = [f"row {place}" for place in range(COUNT)]
    paths = [str(path) for path in files[1]]
    check(run(Frame({"path": paths, "label": TEXTS}, index)), index)
    check(run(Frame({"photo": paths, "breed": TEXTS}, index), "breed", image="photo"), index)
    check(run(Frame({"path": paths, "note": paths, "y": TEXTS}, index), TEXTS), index)


def test_a_frame_of_images():
    check(run(Frame({"image": list(IMAGES), "label": GIVEN.tolist()})))


def test_a_hugging_face_dataset(files):
    image = type("Image", (), {})()
    pictures = [Image.fromarray(pixels) for pixels in IMAGES]
    data = HuggingFace(
        {"picture": pictures, "kind": GIVEN.tolist()},
        {"picture": image, "kind": ClassLabel(list(NAMES))},
    )
    found = run(data)
    check(found)
    assert found.images.class_names == NAMES
    paths = [str(path) for path in files[1]]
    text = type("Value", (), {})()
    listed = HuggingFace({"path": paths, "label": TEXTS}, {"path": text, "label": text})
    assert open_python(listed, size=8).images.names == tuple(paths)
    with pytest.raises(UserError, match=r"select a split, such as data\['train'\]"):
        run({"train": data, "test": data})


@pytest.mark.parametrize("batch", [0, 50])
def test_a_stream_of_tensorflow(batch):
    if batch:
        places = range(0, COUNT, batch)
        elements = [(IMAGES[at : at + batch], GIVEN[at : at + batch]) for at in places]
    else:
        elements = list(zip(IMAGES, GIVEN, strict=True))
    check(run(Stream(elements)))
    check(run(Stream([{"image": image, "label": label} for image, label in elements])))


def test_large_images_of_a_stream_are_held_smaller():
    large = np.repeat(np.repeat(IMAGES, 60, 1), 60, 2)[:30]
    opened = open_python(Stream(list(zip(large, GIVEN, strict=False))), size=160)
    assert opened.images.read(0).shape == (512, 427, 3)
    assert opened.images.notes == ("30 images were downsized to 512 pixels",)


def test_labels_beside_a_data_set_replace_its_own(files):
    samples = [(str(path), 0) for path in files[1]]
    streamed = [(pixels, 0) for pixels in IMAGES]
    for data in (
        types.SimpleNamespace(samples=samples, classes=list(NAMES), root=str(files[0])),
        Pairs(),
        list(zip(IMAGES, [0] * COUNT, strict=True)),
        Stream(streamed),
        Stream([{"img": pixels} for pixels in IMAGES]),
        Stream([IMAGES[:50], IMAGES[50:]]),
    ):
        opened = open_python(data, TEXTS[::-1], size=8)
        assert [opened.images.class_names[label] for label in opened.images.given] == TEXTS[::-1]
        assert opened.read_batch(np.arange(COUNT)).shape == (COUNT, 8, 8, 3)


def test_torchvision_like_objects(files):
    folder, paths = files
    samples = [(str(path), int(label)) for path, label in zip(paths, GIVEN, strict=True)]
    found = run(types.SimpleNamespace(samples=samples, classes=list(NAMES), root=str(folder)))
    check(found)
    assert found.images.names[0] == f"{TEXTS[0]}/000.png"
    check(run(Pairs()))
    half = type("Subset", (), {"__len__": lambda self: 60, "dataset": Pairs(),
                "__getitem__": lambda self, place: Pairs()[2 * place]})()  # fmt: skip
    assert open_python(half, size=8).images.class_names == NAMES
    listed = open_python(list(zip(paths, TEXTS, strict=True)), size=8).images
    assert listed.names == tuple(path.as_posix() for path in paths)
    assert [listed.class_names[label] for label in listed.given] == TEXTS
    assert run(Pairs()).images.class_names == NAMES


def test_features_alone_and_beside_images():
    features = mean_color(np.repeat(np.repeat(IMAGES, 16, 1), 16, 2)[:, :160, :160])
    check(audit(features, GIVEN))
    check(audit(features=[features, features**2], labels=TEXTS))
    found = audit(IMAGES, GIVEN, features)
    check(found)
    assert found.images.read is not None


def test_features_of_a_file(tmp_path):
    np.save(tmp_path / "f.npy", IMAGES.mean((1, 2)))
    check(audit(features=tmp_path / "f.npy", labels=GIVEN))


def test_rows_of_a_file_are_matched_by_the_names_in_it(files, tmp_path):
    folder, paths = files
    names = [path.relative_to(folder).as_posix() for path in paths[::-1]]
    np.savez(tmp_path / "f.npz", x=IMAGES[::-1].mean((1, 2)), paths=np.array(names))
    found = audit(folder, features=tmp_path / "f.npz")
    wrong = {paths[place].relative_to(folder).as_posix() for place in WRONG}
    assert set(found.suspects(len(WRONG))) == wrong
    with pytest.raises(UserError, match=r"no features of 120 of 120 images, such as 0 \(it has"):
        audit(IMAGES, GIVEN, tmp_path / "f.npz")


def test_several_annotators():
    second = [None if place % 4 else int(TRUTH[place]) for place in range(COUNT)]
    holes = np.array([[a, np.nan if b is None else b] for a, b in zip(GIVEN, second, strict=True)])
    assert open_python(IMAGES, holes, size=8).images.labels[1].tolist() == [GIVEN[1], -1]
    both = np.array([[str(a), None if b is None else str(b)] for a, b in zip(GIVEN, second,
                    strict=True)], object)  # fmt: skip
    for labels in (both, {"ann": GIVEN, "bob": second}, Frame({"ann": GIVEN, "bob": second})):
        found = run(IMAGES, labels)
        assert found.images.labels.shape == (COUNT, 2)
        assert found.summary.reliability[1] > found.summary.reliability[0]
    names = [None if each is None else NAMES[each] for each in second]
    frame = Frame({"image": list(IMAGES), "ann": TEXTS, "bob": names})
    assert run(frame, ["ann", "bob"]).images.annotators == ("ann", "bob")


def test_missing_labels_get_a_suggestion_and_no_score():
    labels = GIVEN.astype(float)
    labels[[1, 2]] = np.nan
    found = run(IMAGES, labels)
    assert np.isnan(found.score[[1, 2]]).all()
    assert found.evidence.suggested[[1, 2]].tolist() == TRUTH[[1, 2]].tolist()
    assert not {1, 2} & set(found.suspects(COUNT))


def test_trusted_labels_are_no_suspects_and_may_be_a_mapping():
    known = {int(place): NAMES[TRUTH[place]] for place in WRONG[:4]}
    found = run(IMAGES, TEXTS, trusted=known)
    assert not set(known) & set(found.suspects(COUNT))
    few = Column(list(known.values()), list(known))
    assert run(IMAGES, TEXTS, trusted=few).suspects() == found.suspects()
    column = [known.get(place) for place in range(COUNT)]
    assert run(IMAGES, TEXTS, trusted=column).suspects() == found.suspects()


def test_it_reads_like_a_report():
    found = run(IMAGES, TEXTS)
    text = repr(found).splitlines()
    assert text[0].startswith("120 images of 3 classes (")
    assert text[-8].startswith(
        "The features predict 90.0% of the given labels, chance 33.3% (kappa"
    )
    assert text[-7].startswith("About 12 of 120 labels are expected to be wrong (")
    assert text[-6].startswith("Among the most suspicious, expected to be wrong: ")
    assert sum("probably" in line for line in text) == 5
    assert "probably right" not in repr(found)
    assert repr(replace(found, suggested=found.given)).count(", probably right (score") == 5
    page = found._repr_html_()
    assert page.count('<img src="data:image/jpeg;base64,') == 20
    assert "<script" not in page


def test_names_are_text_in_a_notebook():
    labels = ["<b>cat" if text == "cat" else text for text in TEXTS]
    assert "<b>cat" not in run(IMAGES, labels)._repr_html_()


def test_a_frame_comes_back(monkeypatch):
    found = run(IMAGES, TEXTS)
    monkeypatch.setitem(sys.modules, "pandas", None)
    table = found.to_frame()
    assert table["index"] == list(range(COUNT))
    assert table["given"] == TEXTS
    fake = types.SimpleNamespace(DataFrame=lambda columns, index: (columns, index))
    monkeypatch.setitem(sys.modules, "pandas", fake)
    columns, index = found.to_frame()
    assert columns["given"] == TEXTS
    assert index is None


def test_corrections_are_what_trusted_takes(tmp_path):
    index = [f"row {place}" for place in range(COUNT)]
    frame = Frame({"image": list(IMAGES), "label": TEXTS}, index)
    found = run(frame)
    found.export("cleanlab", tmp_path / "issues.csv")
    (tmp_path / "done.csv").write_text("path,corrected_label\nrow 0,cat\nrow 1,\nrow 2,fox\n")
    known = found.corrections("cleanlab", tmp_path / "done.csv")
    assert known == {"row 0": "cat", "row 2": "fox"}
    assert run(frame, trusted=known).summary.trusted == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        pytest.param({"data": IMAGES}, "without labels: expected one label", id="no labels"),
        pytest.param({"data": IMAGES, "labels": GIVEN[:5]}, "120 images and 5 labels", id="few"),
        pytest.param({}, "neither data nor features: expected a folder", id="nothing"),
        pytest.param({"data": 5, "labels": GIVEN}, "received int: expected a folder", id="number"),
        pytest.param({"data": IMAGES, "labels": np.eye(3)[GIVEN]}, r"labels.argmax", id="one-hot"),
        pytest.param({"data": IMAGES, "labels": np.eye(3, dtype=int)[GIVEN]}, r"labels.argmax",
                     id="one-hot integers"),
        pytest.param({"data": IMAGES, "labels": [*TEXTS[:-1], 2]}, "label at 119 is 2, but the fi",
                     id="a number among names"),
        pytest.param({"data": IMAGES, "labels": TEXTS, "trusted": {1: "cow"}},
                     "'cow' is not a class: expected one of cat, dog, fox", id="trusted class"),
        pytest.param({"data": IMAGES, "labels": GIVEN, "class_names": ["a", "b", "a"]},
                     "expected each name once", id="class names twice"),
        pytest.param({"data": Frame({"image": list(IMAGES)}, list(range(COUNT))),
                      "labels": Column(TEXTS[::-1], list(range(COUNT))[::-1])},
                     r"in another order, beginning with 119 instead of 0", id="index order"),
        pytest.param({"data": Frame({"image": list(IMAGES)}, list(range(COUNT))), "labels": TEXTS,
                      "trusted": Column(TEXTS[::-1], list(range(COUNT))[::-1])},
                     r"trusted labels have the index", id="trusted index order"),
        pytest.param({"data": IMAGES[0], "labels": TEXTS[:12]}, "that of one image: .*images.None.",
                     id="one image"),
        pytest.param({"data": [*IMAGES[:-1], None], "labels": TEXTS}, "image 119 is NoneType",
                     id="no image"),
        pytest.param({"data": Frame({"path": [None, "a.png"], "label": TEXTS[:2]}, ["x", "y"])},
                     "image x is NoneType, others are paths", id="no path"),
        pytest.param({"data": Stream([(IMAGES[0], 0, 1.0)])}, r"item 0 .* is tuple of 3: expected",
                     id="triples"),
        pytest.param({"data": Stream([{"image": IMAGES[0], "x": 0}])}, "with the keys image, x: ex",
                     id="stream without labels"),
        pytest.param({"data": IMAGES, "labels": GIVEN / 2}, "float64: expected class", id="halves"),
        pytest.param({"data": IMAGES, "labels": [None] * COUNT}, "all labels are missing",
                     id="missing"),
        pytest.param({"data": IMAGES, "labels": GIVEN - 2}, "smallest label is -2", id="negative"),
        pytest.param({"data": Frame({"path": ["a", "b"], "label": TEXTS[:2]}, [0, 0])},
                     "the index of the data has duplicates", id="index"),
        pytest.param({"data": IMAGES, "labels": ["x"] * COUNT}, "at least two classes", id="one"),
        pytest.param({"data": IMAGES, "labels": GIVEN * 10**6}, "largest label is 2000000",
                     id="gap"),
        pytest.param({"data": IMAGES, "labels": {"a": GIVEN, "b": TEXTS}}, "expected only one kind",
                     id="mixed"),
        pytest.param({"data": IMAGES.astype(int), "labels": GIVEN}, "int64", id="dtype"),
        pytest.param({"data": IMAGES * 1.0, "labels": GIVEN}, r"expected \[0, 1\]", id="range"),
        pytest.param({"data": IMAGES, "labels": GIVEN, "trusted": {999: 1}},
                     "unknown index 999", id="trusted"),
        pytest.param({"data": IMAGES, "labels": GIVEN, "class_names": "abc"}, "expected a list",
                     id="class names"),
        pytest.param({"data": ["a.png", "b.png"], "labels": [0, 1]}, "there is no file a.png",
                     id="no file"),
        pytest.param({"data": ["a.png", "a.png"], "labels": [0, 1]}, "more than once", id="twice"),
        pytest.param({"data": Frame({"x": [1], "z": [2]})}, "columns x, z: expected images",
                     id="no image column"),
        pytest.param({"data": Frame({"image": list(IMAGES), "a": TEXTS, "b": TEXTS})},
                     r"pass one or several names, labels=\['…'\]", id="no label column"),
        pytest.param({"data": Frame({"image": list(IMAGES), "a": TEXTS}), "labels": "c"},
                     "no column 'c': expected one of image, a", id="unknown column"),
        pytest.param({"data": Stream([]), "labels": None}, "is empty", id="empty stream"),
        pytest.param({"data": [], "labels": []}, "0 images", id="empty"),
        pytest.param({"features": np.zeros(5), "labels": GIVEN}, r"expected numbers \[n, D\]",
                     id="features"),
        pytest.param({"data": IMAGES, "labels": GIVEN, "features": np.zeros((3, 2))},
                     "features of 3 images", id="other rows"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_line(arguments, message):
    with pytest.raises(UserError, match=message) as caught:
        run(**arguments)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("network", [None, 5, [], [mean_color, 5]])
def test_what_is_no_network_is_told(network):
    with pytest.raises(UserError, match=r"the network is .*: expected its name, such as 'eff"):
        audit(IMAGES, GIVEN, network=network)


def test_counts_and_seeds_are_whole_numbers():
    found = run(IMAGES, GIVEN)
    for value in (-1, 1.5, "5"):
        with pytest.raises(UserError, match="count must be a whole number from 0, got"):
            found.suspects(value)
        with pytest.raises(UserError, match="seed must be a whole number from 0, got"):
            run(IMAGES, GIVEN, seed=value)


def test_labels_for_a_folder_are_told_from_names_of_columns(files):
    for labels in (TEXTS, GIVEN):
        with pytest.raises(UserError, match="and labels: expected labels in the folder"):
            run(files[0], labels)
    with pytest.raises(UserError, match="no column breed"):
        run(files[0], "breed")


def test_a_network_that_returns_something_else_is_told():
    with pytest.raises(UserError, match=r"returned float64 \(3,\) for 64 images: expected"):
        audit(IMAGES, GIVEN, network=lambda batch: np.zeros(3), progress=False)


def test_the_package_shows_its_functions():
    assert dir(ieg_core) == ["UserError", "__version__", "audit", "fit"]
    importlib.import_module("ieg_core.audit.findings")  # sets the package's name `audit`
    assert callable(ieg_core.audit)
    assert inspect.signature(ieg_core.audit) == inspect.signature(audit)
    assert len(str(inspect.signature(ieg_core.audit))) < 500
    assert inspect.getdoc(ieg_core.audit) == inspect.getdoc(audit)
    assert ieg_core.audit.findings.Audit is not None
    assert ieg_core.UserError is UserError
    check(ieg_core.audit(IMAGES, GIVEN, network=mean_color, progress=False))


@pytest.mark.slow
def test_the_example_of_the_documents(tmp_path):
    said = "\n".join(run_example(ROOT / "docs" / "notebook.md", 0, tmp_path))
    assert said.startswith("600 images of 10 classes (")
    assert int(re.search(r"labels (\d+) are wrong", said)[1]) >= 40
    assert (tmp_path / "issues.csv").read_text().startswith("path,is_label_issue,label_score")


@pytest.mark.parametrize("progress", [True, False])
def test_judging_shows_its_time_where_progress_is_shown(progress, monkeypatch):
    titles = []

    @contextlib.contextmanager
    def timed(line):
        titles.append(line._title)
        yield

    monkeypatch.setattr(auditing, "timed", timed)
    audit(IMAGES, GIVEN, network=mean_color, progress=progress)
    assert titles == [f"Judging {len(IMAGES):,} labels"] * progress
