# SPDX-License-Identifier: Apache-2.0
"""review.html in a browser."""

import csv
import io
import re

import numpy as np
import pytest

from ieg_core.audit import review
from ieg_core.audit.decisions import read_decisions, rows
from tests import chromium
from tests.ieg_core.audit.reviews import make_audit, random_audit

PROGRAM = chromium.find()
CLASSES = ("=cat", "dog", "<b>bird")
HEADER = "path,label,decision\n"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(PROGRAM is None, reason=chromium.INSTALL),
]


@pytest.fixture(scope="module")
def tab(tmp_path_factory):
    folder = tmp_path_factory.mktemp("browser")
    with chromium.tab(folder, PROGRAM) as opened:
        opened.allow_downloads(folder)
        opened.folder = folder
        yield opened


@pytest.fixture
def page(tab, tmp_path):
    """Opens an audit's page, and checks afterwards that the console stayed silent."""
    tab.events.clear()
    path = tmp_path / "review.html"

    def show(audit, top=10_000, **options):
        path.write_text(review.render(audit, top=top, **options), encoding="utf-8")
        tab.open(path.as_uri())
        return audit

    yield show
    assert tab.messages == []
    assert {url.partition(":")[0] for url in tab.requests} <= {"file", "data", "blob"}
    assert {url for url in tab.requests if url.startswith("file:")} <= {path.as_uri()}
    tab.run("localStorage.clear()")


@pytest.fixture
def six(page):
    """Six labels: given 0 five times and 1 once, suggested 1, 1, 2, 2, 1 and 2."""
    q = np.array(
        [[0.01, 0.98, 0.01], [0.03, 0.95, 0.02], [0.1, 0.1, 0.8], [0.2, 0.1, 0.7], [0.3, 0.4, 0.3],
         [0.1, 0.05, 0.85]]
    )  # fmt: skip
    names = ("a.png", "+b.png", "é, c.png", 'd".png', "<i>e.png", "f.png")
    pixels = np.random.default_rng(0).integers(0, 256, (6, 20, 30, 3), dtype=np.uint8)
    labels = np.array([0, 0, 0, 0, 0, 1])
    return page(make_audit(q, labels, names=names, class_names=CLASSES, pixels=pixels))


def shown(tab, ident):
    text = tab.run(f"document.getElementById({ident!r}).textContent")
    return text.replace("\N{NO-BREAK SPACE}", " ")


def cards(tab):
    return tab.run("[...document.querySelectorAll('.card')].map((card) => card.title)")


def saved(tab):
    tab.run("document.getElementById('save').click()")
    started = tab.wait_for("Browser.downloadWillBegin")
    assert started["suggestedFilename"].startswith("decisions")
    done = tab.wait_for("Browser.downloadProgress", guid=started["guid"], state="completed")
    path = next(tab.folder.glob("decisions*.csv"))
    assert done["receivedBytes"] == path.stat().st_size
    return path.rename(tab.folder / f"saved {started['guid']}.csv")


def decided(path, audit):
    names, classes = audit.images.names, audit.images.class_names
    return rows(read_decisions(path, names, classes), names, classes)


def test_keys_decide_and_the_file_says_what(tab, six):
    assert cards(tab) == ["a.png", "+b.png", "f.png", "é, c.png", 'd".png', "<i>e.png"]
    assert shown(tab, "name") == "a.png"
    tab.press("s")
    assert shown(tab, "name") == "+b.png"
    tab.press("k", "d")
    assert shown(tab, "name") == "é, c.png"
    tab.press("2", "3")
    assert shown(tab, "name") == "<i>e.png"
    assert shown(tab, "progress") == (
        "5 of 6 reviewed · 3 labels changed · 1 dropped · expected wrong among the rest ≈ 1"
    )
    path = saved(tab)
    assert path.read_text(encoding="utf-8") == (
        '"path","label","decision"\n"a.png","dog","suggestion"\n"\'+b.png","\'=cat","keep"\n'
        '"f.png","","drop"\n"é, c.png","dog","other"\n"d"".png","<b>bird","suggestion"\n'
    )
    assert decided(path, six)[1] == ("+b.png", "=cat", "keep")
    tab.press("k")
    assert shown(tab, "progress").endswith("all done: save decisions.csv")


def test_classes_called_by_digits_have_them_as_keys(tab, page):
    q = np.array([[0.1, 0.9, 0.0], [0.7, 0.2, 0.1]])
    audit = page(make_audit(q, np.array([0, 0]), class_names=("0", "3", "7")))
    captions = "[...document.querySelectorAll('.caption')].map((each) => each.innerText)"
    assert [text.split()[1:] for text in tab.run(captions)] == [
        ["\N{RIGHTWARDS ARROW}", "3", "90", "%"], ["looks", "right", "70", "%"]
    ]  # fmt: skip
    keys = "[...document.querySelectorAll('#classes kbd')].map((each) => each.innerText)"
    assert tab.run(keys) == ["0", "3", "7"]
    tab.press("1", "7", "0")
    assert decided(saved(tab), audit) == [("0000.png", "7", "other"), ("0001.png", "0", "keep")]


def test_a_reload_keeps_decisions_their_history_and_the_place(tab, six):
    tab.press("s", "k", "d")
    before = shown(tab, "progress")
    tab.reload()
    assert shown(tab, "progress") == before
    assert shown(tab, "name") == "é, c.png"
    tab.press("u")
    assert shown(tab, "name") == "f.png"
    assert shown(tab, "decision") == "Not decided yet"
    tab.press("z", modifiers=2)
    assert shown(tab, "name") == "+b.png"
    assert shown(tab, "progress").startswith("1 of 6 reviewed · 1 label changed")


def test_another_audit_starts_empty(tab, page, six):
    tab.press("s")
    page(random_audit(5, 3))
    assert shown(tab, "progress").startswith("0 of 5 reviewed")


def test_arrows_move_and_a_decision_can_be_changed(tab, six):
    tab.press("s", "s", "ArrowLeft", "ArrowLeft")
    assert shown(tab, "name") == "a.png"
    assert shown(tab, "decision") == "Changed to dog"
    tab.press("k")
    assert shown(tab, "name") == "f.png"
    tab.press("u")
    assert shown(tab, "decision") == "Changed to dog"
    tab.press("ArrowRight", "ArrowRight", "ArrowDown")
    assert shown(tab, "name") == "<i>e.png"
    assert decided(saved(tab), six) == [
        ("a.png", "dog", "suggestion"), ("+b.png", "dog", "suggestion")
    ]  # fmt: skip


def choose(tab, ident, value):
    tab.run(
        f"{{ const field = document.getElementById({ident!r}); field.value = {value!r};"
        " field.dispatchEvent(new Event('change', { bubbles: true })); }"
    )


def test_filters_select_by_class_pair_and_state(tab, six):
    choose(tab, "given", "1")
    assert cards(tab) == ["f.png"]
    choose(tab, "given", "-1")
    choose(tab, "suggested", "2")
    assert cards(tab) == ["f.png", "é, c.png", 'd".png']
    choose(tab, "pair", "0,1")
    assert cards(tab) == ["a.png", "+b.png", "<i>e.png"]
    assert tab.run("document.getElementById('given').value") == "0"
    choose(tab, "state", "undecided")
    tab.press("s")
    assert cards(tab) == ["+b.png", "<i>e.png"]
    assert shown(tab, "count") == "2 of 6 labels"
    choose(tab, "state", "changed")
    assert cards(tab) == ["a.png"]
    choose(tab, "state", "drop")
    assert cards(tab) == []
    assert tab.run("document.getElementById('empty').checkVisibility()")
    tab.press("k")  # of nothing
    tab.press("u")
    assert len(cards(tab)) == 6
    assert shown(tab, "name") == "a.png"


def test_of_many_classes_one_is_found_by_typing(tab, page):
    names = [f"tool {number}" for number in range(200)]
    names[150] = "Säge"
    audit = page(random_audit(3, 200, class_names=names))
    first, second = (audit.images.names[place] for place in audit.order[:2])
    tab.press("o")
    tab.call("Input.insertText", text="sag")
    assert shown(tab, "matches") == "Säge"
    tab.press("Enter")
    tab.press("o", "s", "Escape")
    assert shown(tab, "name") == second
    tab.press("2")
    likely = names[np.argsort(-audit.evidence.q[audit.order[1]], kind="stable")[1]]
    found = decided(saved(tab), audit)
    assert found[0] == (first, "Säge", "other")
    assert found[1][:2] == (second, likely)


def test_a_file_is_taken_back_with_what_is_about_other_images(tab, page, tmp_path):
    audit = random_audit(6, 3, class_names=CLASSES)
    page(audit, top=4)
    here, elsewhere = (audit.images.names[audit.order[place]] for place in (1, 5))
    path = tmp_path / "before.csv"
    path.write_text(f"{HEADER}{elsewhere},'=cat,keep\r\n{here},,drop\r\n\r\n", encoding="utf-8")
    tab.choose_file("#file", path)
    tab.run("new Promise((done) => { const wait = () => document.getElementById('message').hidden"
            " ? setTimeout(wait, 10) : done(); wait(); })")  # fmt: skip
    assert re.match(
        r"1 decision taken from before\.csv\. 1 more is about .* not on this page",
        shown(tab, "message"),
    )
    assert shown(tab, "progress").startswith("1 of 4 reviewed · 0 labels changed · 1 dropped")
    assert decided(saved(tab), audit) == [(elsewhere, "=cat", "keep"), (here, "", "drop")]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("path,label\na,b\n", "it lacks one of the columns path, label and decision"),
        (f"{HEADER}a.png,dog,kept\n", 'row 1 has the decision "kept"'),
        (f"{HEADER}a.png,dog,keep\nf.png,fish,keep\n", 'row 2 has the label "fish"'),
        (
            f"{HEADER}a.png,dog,keep\na.png,,drop\n",
            'row 2 contradicts an earlier one about "a.png"',
        ),
        (f'{HEADER}"a.png,dog,keep\n', "it is not valid CSV at character 21"),
    ],
)
def test_a_wrong_file_changes_nothing(tab, six, tmp_path, content, reason):
    path = tmp_path / "before.csv"
    path.write_text(content)
    tab.choose_file("#file", path)
    tab.run("new Promise((done) => { const wait = () => document.getElementById('message').hidden"
            " ? setTimeout(wait, 10) : done(); wait(); })")  # fmt: skip
    assert f"Cannot take decisions from before.csv: {reason}" in shown(tab, "message")
    assert shown(tab, "progress").startswith("0 of 6 reviewed")


def test_two_thousand_images_are_few_elements_and_keys_answer_at_once(tab, page):
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (2000, 32, 32, 3), dtype=np.uint8)
    page(random_audit(2000, 10, pixels=pixels))
    assert tab.run("document.querySelectorAll('*').length") < 1000
    times = tab.run(
        """[...'sksksksksksksksksks'].map((key) => {
          const start = performance.now();
          document.body.dispatchEvent(new KeyboardEvent('keydown', { key, bubbles: true }));
          document.body.getBoundingClientRect();
          return performance.now() - start;
        })"""
    )
    assert min(times) < 50, times  # the others are those of a machine that does something else too
    assert shown(tab, "progress").startswith("19 of 2,000 reviewed")
    tab.press("End")
    assert shown(tab, "position").startswith("#2,000")
    assert tab.run("document.querySelector('[aria-selected=true]').getAttribute('aria-posinset')") \
        == "2000"  # fmt: skip


def test_what_was_decided_before_the_audit_is_saved_again(tab, page):
    audit = page(random_audit(3, 2), earlier=[("gone.png", "", "drop"), ("=b", "class 1", "keep")])
    tab.press("d")
    first = audit.images.names[audit.order[0]]
    assert saved(tab).read_text(encoding="utf-8").splitlines()[1:] == [
        '"gone.png","","drop"', '"\'=b","class 1","keep"', f'"{first}","","drop"'
    ]  # fmt: skip


def test_the_csv_is_read_by_any_reader(tab, six):
    tab.press("s", "k", "s", "s", "s", "s")
    text = saved(tab).read_text(encoding="utf-8")
    lines = list(csv.DictReader(io.StringIO(text, newline="")))
    assert [line["path"] for line in lines] == [
        "a.png", "'+b.png", "f.png", "é, c.png", 'd".png', "<i>e.png"
    ]  # fmt: skip
