# SPDX-License-Identifier: Apache-2.0
import json
from types import SimpleNamespace
from urllib.parse import quote

import numpy as np
import pytest

from ieg_core.audit.corrections import IMPORTS, import_decisions
from ieg_core.audit.exports import EXPORTS, export_audit
from ieg_core.audit.images import MISSING, LabeledImages
from ieg_core.audit.label_audit import LabelAudit
from ieg_core.data.tables import read_columns
from ieg_core.errors import UserError

NAMES = ("cat/1.jpg", "cat/2.jpg", "dog/ü 3.png", "=x/4.jpg")
Q = np.array([[0.9, 0.05, 0.05], [0.125, 0.75, 0.125], [0.0, 1.0, 0.0], [0.25, 0.25, 0.5]])
GIVEN = np.array([0, 0, 1, MISSING], np.int32)


@pytest.fixture
def audit():
    images = LabeledImages(
        names=NAMES,
        class_names=("cat", "dog", 'fo"x'),
        labels=GIVEN[:, None],
        annotators=("given",),
        trusted=np.array([MISSING, MISSING, 1, MISSING], np.int32),
    )
    score = np.array([0.1, 0.875, 0.0, np.nan])
    return LabelAudit(
        images=images,
        evidence=SimpleNamespace(q=Q.astype(np.float32)),
        given=GIVEN,
        suggested=Q.argmax(1).astype(np.int32),
        score=score,
        order=np.array([1, 0]),
        summary=None,
    )


def golden_task(name, score, suggested, q, place, given=None):
    def result(kind, label):
        return {
            "id": f"{kind}-{place}",
            "type": "choices",
            "from_name": "choice",
            "to_name": "image",
            "value": {"choices": [label]},
        }

    task = {
        "data": {"image": f"https://example.com/{quote(name)}", "name": name, "score": score},
        "predictions": [
            {"model_version": "ieg-core", "score": q, "result": [result("suggested", suggested)]}
        ],
    }
    if given:
        task["annotations"] = [{"result": [result("given", given)]}]
    return task


def test_label_studio_gets_tasks_and_a_configuration(audit, tmp_path):
    path = tmp_path / "tasks.json"
    export_audit(audit, "label-studio", path, prefix="https://example.com/")
    assert json.loads(path.read_text()) == [
        golden_task("cat/2.jpg", 0.875, "dog", 0.75, 1, "cat"),
        golden_task("cat/1.jpg", 0.1, "cat", 0.9, 0, "cat"),
        golden_task("dog/ü 3.png", 0.0, "dog", 1.0, 2, "dog"),
        golden_task("=x/4.jpg", None, 'fo"x', 0.5, 3),
    ]
    assert path.with_suffix(".xml").read_text() == (
        '<View>\n  <Image name="image" value="$image"/>\n'
        '  <Choices name="choice" toName="image" choice="single">\n'
        '    <Choice value="cat"/>\n    <Choice value="dog"/>\n    <Choice value=\'fo"x\'/>\n'
        "  </Choices>\n</View>\n"
    )
    with pytest.raises(UserError, match=r"tasks\.xml: expected a name ending in \.json, since"):
        export_audit(audit, "label-studio", tmp_path / "tasks.xml")


def test_cleanlab_gets_its_columns(audit, tmp_path):
    export_audit(audit, "cleanlab", tmp_path / "issues.csv")
    assert (tmp_path / "issues.csv").read_text() == (
        "path,is_label_issue,label_score,label_quality,given_label,predicted_label\n"
        "cat/1.jpg,False,0.900000000,0.900000000,cat,cat\n"
        "cat/2.jpg,True,0.125000000,0.125000000,cat,dog\n"
        "dog/ü 3.png,False,1.000000000,1.000000000,dog,dog\n"
        '\'=x/4.jpg,False,,,,"fo""x"\n'
    )
    export_audit(audit, "cleanlab", tmp_path / "issues.parquet")
    columns = read_columns(tmp_path / "issues.parquet", ("path", "is_label_issue", "label_score"))
    assert columns["path"] == list(NAMES)
    assert columns["is_label_issue"] == [False, True, False, False]
    assert columns["label_score"] == [0.9, 0.125, 1.0, None]
    with pytest.raises(UserError, match=r"expected a name ending in \.csv or \.parquet"):
        export_audit(audit, "cleanlab", tmp_path / "issues.xlsx")


def test_fiftyone_gets_labels_json(audit, tmp_path):
    export_audit(audit, "fiftyone", tmp_path / "labels.json")
    assert json.loads((tmp_path / "labels.json").read_text()) == {
        "classes": ["cat", "dog", 'fo"x'],
        "labels": {
            "cat/2": {
                "label": 0,
                "confidence": 0.125,
                "attributes": {"suggested": "dog", "score": 0.875, "rank": 0},
            },
            "cat/1": {
                "label": 0,
                "confidence": 0.9,
                "attributes": {"suggested": "cat", "score": 0.1, "rank": 1},
            },
            "dog/ü 3": {
                "label": 1,
                "confidence": 1.0,
                "attributes": {"suggested": "dog", "score": 0.0},
            },
            "=x/4": None,
        },
    }


@pytest.mark.parametrize("tool", EXPORTS)
def test_what_nobody_touched_decides_nothing(audit, tmp_path, tool):
    path = tmp_path / ("table.csv" if tool == "cleanlab" else "tool.json")
    export_audit(audit, tool, path)
    if tool == "cleanlab":
        lines = path.read_text().splitlines()
        path.write_text("\n".join([lines[0] + ",corrected_label", *(x + "," for x in lines[1:])]))
    found = import_decisions(audit.images, path, tool)
    assert len(found) == 0
    assert found.indices.dtype == np.int64


def check(found):
    assert found.indices.tolist() == [1, 0, 3]
    assert found.labels.tolist() == [1, 0, 0]
    assert found.kinds == ("other", "keep", "other")


def annotated(task, label, **fields):
    """A task as Label Studio exports it once a person has submitted an annotation."""
    result = {"id": "x", "type": "choices", "value": {"choices": [label]}}
    return {**task, "annotations": [{"result": [result], "was_cancelled": False, **fields}]}


def test_label_studio_hands_back_what_people_submitted(audit, tmp_path):
    path = tmp_path / "tasks.json"
    export_audit(audit, "label-studio", path, prefix="/data/local-files/?d=photos/")
    tasks = json.loads(path.read_text())
    assert tasks[0]["data"]["image"] == "/data/local-files/?d=photos/cat/2.jpg"
    tasks[0] = annotated(tasks[0], "dog", lead_time=2.5)
    tasks[1] = annotated(tasks[1], "cat", lead_time=1.0)
    tasks[2] = annotated(tasks[2], "cat", lead_time=1.0, was_cancelled=True)
    del tasks[3]["data"]["name"]  # a project made from the same addresses
    tasks[3] = annotated(tasks[3], "cat", lead_time=None)
    path.write_text(json.dumps(tasks))
    check(import_decisions(audit.images, path, "label-studio"))


def test_what_label_studio_exports_is_understood(audit, tmp_path):
    # Of Label Studio 1.23.2, into which the tasks had been imported: cat/2.jpg was changed,
    # cat/1.jpg submitted as it was, the third not opened. Fields that nothing reads are left out.
    path = tmp_path / "project.json"
    path.write_text(
        """[{"id": 1, "annotations": [{"id": 1, "completed_by": 1, "result": [
        {"id": "abc", "type": "choices", "from_name": "choice", "to_name": "image", "value":
        {"choices": ["dog"]}}], "was_cancelled": false, "updated_at": "2026-11-30T11:50:37.356358Z",
        "lead_time": 3.2, "prediction": {}}], "drafts": [], "predictions": [1], "data": {"image":
        "/data/local-files/?d=photos/cat/2.jpg", "name": "cat/2.jpg", "score": 0.875}},
        {"id": 2, "annotations": [{"id": 2, "completed_by": 1, "result": [
        {"id": "abc", "type": "choices", "from_name": "choice", "to_name": "image", "value":
        {"choices": ["cat"]}}], "was_cancelled": false, "updated_at": "2026-11-30T11:50:38.227373Z",
        "lead_time": 3.2, "prediction": {}}], "drafts": [], "predictions": [2], "data": {"image":
        "/data/local-files/?d=photos/cat/1.jpg", "name": "cat/1.jpg", "score": 0.1}},
        {"id": 3, "annotations": [{"id": 3, "completed_by": 1, "result": [
        {"id": "given-2", "type": "choices", "from_name": "choice", "to_name": "image", "value":
        {"choices": ["dog"]}}], "was_cancelled": false, "updated_at": "2026-11-30T11:50:35.755798Z",
        "lead_time": null, "prediction": {}}], "drafts": [], "predictions": [3], "data": {"image":
        "/data/local-files/?d=photos/dog/ü 3.png", "name": "dog/ü 3.png", "score": 0.0}}]"""
    )
    found = import_decisions(audit.images, path)
    assert found.indices.tolist() == [1, 0]
    assert found.labels.tolist() == [1, 0]
    assert found.kinds == ("other", "keep")


def test_the_latest_annotation_counts(audit, tmp_path):
    path = tmp_path / "tasks.json"
    export_audit(audit, "label-studio", path)
    tasks = json.loads(path.read_text())[:1]
    later = annotated(tasks[0], "dog", lead_time=1, updated_at="2026-02-01")["annotations"]
    sooner = annotated(tasks[0], "cat", lead_time=1, updated_at="2026-01-01")["annotations"]
    path.write_text(json.dumps([{**tasks[0], "annotations": later + sooner}]))
    assert import_decisions(audit.images, path, "label-studio").kinds == ("other",)


def test_cleanlab_hands_back_a_corrected_column(audit, tmp_path):
    path = tmp_path / "table.csv"
    path.write_text("path,clean_label\ncat/2.jpg,dog\ncat/1.jpg,cat\n'=x/4.jpg,cat\ndog/ü 3.png,\n")
    check(import_decisions(audit.images, path, "cleanlab"))


def test_fiftyone_hands_back_changed_and_reviewed_labels(audit, tmp_path):
    path = tmp_path / "labels.json"
    labels = {
        "/photos/cat/2": {"label": 1},
        "cat/1.jpg": {"label": "cat", "attributes": {"reviewed": True}},
        "dog/ü 3": 1,
        "=x/4": "cat",
    }
    path.write_text(json.dumps({"classes": ["cat", "dog", "fox"], "labels": labels}))
    check(import_decisions(audit.images, path, "fiftyone"))


@pytest.mark.parametrize(
    ("first", "second", "third", "fourth"),
    [
        ("4", "1", "2", "ü 3"),
        ("=x/4", "cat/1", "cat/2", "dog/ü 3"),
        ("/p/=x/4.jpg", "/p/cat/1.jpg", "/p/cat/2.jpg", "/p/dog/ü 3.png"),
    ],
    ids=["labels_path alone", "rel_dir", "abs_paths"],
)
def test_what_fiftyone_exports_is_understood(audit, tmp_path, first, second, third, fourth):
    # As FiftyOne 1.22.1 wrote it from this audit's labels.json, with include_attributes=True.
    path = tmp_path / "labels.json"
    path.write_text(
        '{"classes": null,"labels": {'
        f'"{first}": {{"label": "cat","attributes": {{}}}},'
        f'"{second}": {{"label": "cat","attributes": {{"rank": 1,"reviewed": true,'
        '"suggested": "cat","score": 0.1}},'
        f'"{third}": {{"label": "dog","attributes": {{"rank": 0,"suggested": "dog",'
        '"score": 0.875}},'
        f'"{fourth}": {{"label": "dog","attributes": {{"suggested": "dog","score": 0.0}}}}}}}}'
    )
    found = import_decisions(audit.images, path)
    assert found.indices.tolist() == [3, 0, 1]
    assert found.labels.tolist() == [0, 0, 1]
    assert found.kinds == ("other", "keep", "other")


def test_a_base_name_of_two_images_is_not_guessed(audit, tmp_path):
    path = tmp_path / "labels.json"
    path.write_text('{"classes": null,"labels": {"1": {"label": "dog"}}}')
    names = ("cat/1.jpg", "dog/1.jpg", "a", "b")
    images = LabeledImages(**{**vars(audit.images), "names": names})
    with pytest.raises(UserError, match=r"about '1', .*; export with rel_dir set to the folder"):
        import_decisions(images, path)


@pytest.mark.parametrize(
    ("tool", "content", "message"),
    [
        ("label-studio", "{", "not valid JSON"),
        ("label-studio", "[" * 100_000, "not valid JSON"),
        ("label-studio", "{}", "not a file from Label Studio"),
        ("label-studio", '[{"image": "a"}]', "task 0 .*has no data or annotations"),
        ("label-studio", '[{"data": {"name": "b.jpg"}, "annotations": []}]', "about 'b.jpg'"),
        ("cleanlab", "path\ncat/1.jpg\n", "no corrected labels: expected a column corrected_label"),
        ("cleanlab", "path,new_label\nb.jpg,cat\n", "about 'b.jpg'"),
        ("cleanlab", "path,new_label\ncat/1.jpg,cta\n", "unknown class 'cta': did you mean 'cat'"),
        ("cleanlab", "path,new_label\ncat/1.jpg,cat\ncat/1.jpg,dog\n", "is 'cat' and 'dog'"),
        ("fiftyone", "[]", "not a file from FiftyOne"),
        ("fiftyone", "{}", "has no labels"),
        ("fiftyone", '{"labels": {"b": "cat"}}', "about 'b'"),
    ],
)
def test_a_wrong_file_is_one_line(audit, tmp_path, tool, content, message):
    path = tmp_path / ("f.csv" if tool == "cleanlab" else "f.json")
    path.write_text(content)
    with pytest.raises(UserError, match=message) as caught:
        import_decisions(audit.images, path, tool)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("tool", "content"),
    [
        (
            "label-studio",
            [{"data": {"name": "cat/1.jpg"}, "annotations": [{"result": 1}, {"result": [2]}]}],
        ),
        ("fiftyone", {"labels": {"cat/1": {"label": "cat", "attributes": [1]}}}),
    ],
)
def test_parts_of_another_type_hold_no_correction(audit, tmp_path, tool, content):
    path = tmp_path / "f.json"
    path.write_text(json.dumps(content))
    assert len(import_decisions(audit.images, path, tool)) == 0


def test_images_that_fiftyone_takes_for_one_are_refused(audit, tmp_path):
    images = LabeledImages(
        names=("a.jpg", "a.png", "b", "c"),
        class_names=audit.images.class_names,
        labels=GIVEN[:, None],
        annotators=("given",),
        trusted=audit.images.trusted,
    )
    same = LabelAudit(**{**vars(audit), "images": images})
    with pytest.raises(UserError, match="two images are called a apart from"):
        export_audit(same, "fiftyone", tmp_path / "labels.json")


def test_an_unknown_tool_is_told(audit, tmp_path):
    assert EXPORTS.keys() == IMPORTS.keys()
    with pytest.raises(UserError, match="unknown export 'labelstudio': did you mean 'label-st"):
        export_audit(audit, "labelstudio", tmp_path / "x")
    with pytest.raises(UserError, match="unknown import 'excel'"):
        import_decisions(audit.images, tmp_path / "x", "excel")
