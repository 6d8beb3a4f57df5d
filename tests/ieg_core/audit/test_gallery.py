# SPDX-License-Identifier: Apache-2.0
import base64
import csv
import html
import io
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from ieg_core.audit import findings, gallery, write
from ieg_core.data.label_set import load_label_set
from ieg_core.sweep import plan
from ieg_core.sweep.request import SweepRequest
from tests.ieg_core.audit.conftest import MadeTrial, beliefs
from tests.ieg_core.audit.test_findings import DATA
from tests.ieg_core.data.trees import write_tree


class Page(HTMLParser):
    """Counts tags, checks that they close, and collects what would be loaded."""

    VOID = frozenset({"meta", "link", "img", "br"})

    def __init__(self, text):
        super().__init__()
        self.open, self.images, self.loaded, self.ids, self.anchors = [], [], [], set(), set()
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        known = dict(attrs)
        if tag not in self.VOID:
            self.open.append(tag)
        if tag == "img":
            self.images.append(known)
        self.loaded += [value for key, value in attrs if key in ("src", "href")]
        if tag == "a":
            self.anchors.add(known["href"])
        if "id" in known:
            self.ids.add(known["id"])
        assert tag != "script"

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


@pytest.fixture
def page(knowing_trial):
    write.audit_trial(knowing_trial.folder, DATA, top=50)
    return (knowing_trial.folder / "audit" / "audit.html").read_text(encoding="utf-8")


def test_the_page_is_whole_and_loads_nothing(page):
    found = Page(page)
    assert all(value.startswith(("data:", "#")) for value in found.loaded)
    assert {anchor.removeprefix("#") for anchor in found.anchors} <= found.ids
    assert "@import" not in page
    assert "url(" not in page
    assert "prefers-color-scheme: dark" in page
    assert len(page.encode()) < 5_000_000


def test_each_example_is_shown_with_what_is_said_of_it(page, knowing_trial):
    found = Page(page)
    assert len(found.images) == 50
    image = found.images[0]
    number, given, suggested, score = re.fullmatch(
        r"Example #(\d+): given (\d), suggested (\d), score (0\.\d\d|1\.00)", image["alt"]
    ).groups()
    assert int(given) == knowing_trial.label_set.noisy_labels[int(number)]
    assert given != suggested
    assert 0.5 <= float(score) <= 1
    content = base64.b64decode(image["src"].removeprefix("data:image/png;base64,"))
    source = findings.open_source("digits", DATA)
    pixels = np.asarray(Image.open(io.BytesIO(content)))
    np.testing.assert_array_equal(pixels, source.train_images([int(number)])[0, :, :, 0])


def test_the_order_is_that_of_the_scores_alone(page, knowing_trial):
    with (knowing_trial.folder / "audit" / "audit.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["given"] != row["suggested"]]
    shown = [re.match(r"Example #(\d+)", image["alt"]).group(1) for image in Page(page).images]
    assert shown == [row["index"] for row in rows[:50]]
    pairs = [(row["given"], row["suggested"]) for row in rows[:50]]
    assert pairs != sorted(pairs)  # not grouped


def test_the_estimated_matrix_stands_beside_the_true_one(page):
    assert page.count("<caption>") == 2
    assert "<caption>estimated</caption>" in page
    assert "<caption>true</caption>" in page


def test_names_are_escaped(knowing_trial):
    found = findings.read_audit(knowing_trial.folder, DATA, 0.5)
    names = (
        '<script>alert("0")</script>', *found.label_set.class_names[1:9], "<img src=x onerror=f()>"
    )  # fmt: skip
    object.__setattr__(found.label_set, "class_names", names)
    text = gallery.render(found, findings.summarize(found), top=100)
    Page(text)  # fails at a script
    assert "<script" not in text
    assert "<img src=x" not in text
    assert "&lt;script&gt;" in text


def test_own_images_are_called_by_their_paths(tmp_path):
    names = ("<b>bold", "möwe", "car")
    write_tree(tmp_path / "photos", {"train": 20, "test": 2}, names)
    asked = SweepRequest(
        "folder",
        methods=("ieg",),
        settings=("images.size=8", "batch_size=10"),
        data_dir=str(tmp_path / "photos"),
        results=str(tmp_path / "runs"),
    )
    (name,) = plan.plan(asked).trials
    label_set = load_label_set(next((tmp_path / "runs" / "label_sets").iterdir()))
    trial = MadeTrial(tmp_path / "runs" / "trials" / name, label_set)
    trial.write(beliefs(label_set, doubted=1))
    write.audit_trial(trial.folder, tmp_path / "photos")
    page = (trial.folder / "audit" / "audit.html").read_text(encoding="utf-8")
    with (trial.folder / "audit" / "audit.csv").open(newline="", encoding="utf-8") as file:
        listed = {row["path"]: row for row in csv.DictReader(file)}
    shown = [image["alt"] for image in Page(page).images]
    assert len(shown) > 10
    for alt in shown:
        path, given = re.fullmatch(
            r"Example (train/.*\.png): given (.*), suggested .*", alt
        ).groups()
        assert listed[path]["given_name"] == given
        assert f"<span>{html.escape(path)}</span>" in page
    assert "<b>bold" not in page


def test_a_large_picture_becomes_a_small_one():
    image = np.random.default_rng(0).integers(0, 256, (300, 150, 3), dtype=np.uint8)
    uri = gallery.thumbnail(image)
    picture = Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2])))
    assert picture.size == (36, 72)


def test_the_page_stays_small_whatever_the_images_are(knowing_trial, monkeypatch):
    found = findings.read_audit(knowing_trial.folder, DATA, 0.5)
    bare = len(gallery.render(found, findings.summarize(found), top=0))
    monkeypatch.setattr(gallery, "IMAGE_CHARACTERS", 30_000)
    page = gallery.render(found, findings.summarize(found), top=100)
    assert 0 < len(Page(page).images) < 60
    assert len(page) - bare < 30_000 + 5_000  # the headings of the class pairs


@pytest.mark.parametrize("top", [0, 1])
def test_few_or_no_examples_are_a_page_too(knowing_trial, top):
    write.audit_trial(knowing_trial.folder, DATA, top=top)
    page = (knowing_trial.folder / "audit" / "audit.html").read_text(encoding="utf-8")
    assert len(Page(page).images) == top


def test_many_classes_are_listed_by_their_confusions(make_trial, monkeypatch):
    trial = make_trial("digits_asymmetric_0.4")
    trial.write(beliefs(trial.label_set, doubted=0))
    monkeypatch.setattr(gallery, "MATRIX_CLASSES", 5)
    write.audit_trial(trial.folder, DATA)
    page = (trial.folder / "audit" / "audit.html").read_text(encoding="utf-8")
    assert "<caption>" not in page
    body = page.partition('<table class="list">')[2]
    lines = re.findall(r"<tr><th scope=\"row\">(\d)</th><td>(\d)</td>", body)
    assert set(lines[:5]) == {("7", "1"), ("3", "8"), ("5", "6"), ("6", "5"), ("9", "4")}
