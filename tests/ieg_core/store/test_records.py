# SPDX-License-Identifier: Apache-2.0
"""Each file of a results root is declared once; nobody else names or guesses at one."""

import ast
import functools
import json
import re
from dataclasses import MISSING, fields, replace
from pathlib import Path

import pytest

from ieg_core.errors import UserError
from ieg_core.store import layout, seal
from ieg_core.store.record import Record
from ieg_core.store.records import (
    AcceptedRecord,
    AcceptedRun,
    FailureRecord,
    LeaseRecord,
    ManifestRecord,
    PlanRecord,
    ProgressRecord,
    RatesRecord,
    ResultRecord,
    TrialRecord,
    record_failure,
)
from tests.records import example

ROOT = Path(__file__).parents[3]
ENDS = (".json", ".safetensors", "model.keras")
OTHERS = {
    "ieg_core/data/image_folder/arrays.py": {"arrays.safetensors"},  # a data directory's
    "ieg_core/data/image_folder/cache.py": {"index.json", ".safetensors", "-*.safetensors"},
    "ieg_core/audit/label_audit.py": {"summary.json"},  # of an audit's own folder
    "ieg_core/features/extract.py": {".safetensors", "*.safetensors"},  # of the user's cache
    "ieg_core/features/network.py": {"config.json"},  # of a Keras file
    "ieg_core/models/efficientnet_weights.py": {"-v1.safetensors"},  # of the user's cache
    "ieg_core/experiment/networks.py": {".safetensors"},  # pretrained=file.safetensors
    "ieg_core/models/pretrained.py": {".safetensors"},  # the same
    "ieg_core/data/public/tfds.py": {"dataset_info.json"},
    "ieg_core/data/public/webvision.py": {"features.json"},
    "pipelines/checks/arguments.py": {"/tmp/kfp_outputs/output_metadata.json"},
    "pipelines/cluster/cost.py": {".json"},  # RATES=file.json
    "pipelines/local/sweep.py": {"job.json"},  # of a scratch folder
    "scripts/audit_bench.py": {".safetensors"},  # of its own folder, audit_bench/
    "scripts/chaos.py": {".json", ".safetensors"},  # whatever a root contains
    "scripts/chaos_fuzz.py": {"config.json"},  # of a Keras file
    "scripts/chaos_structures.py": {"config.json", "rates.json"},  # the same, RATES=file.json
    "scripts/gpu_check/__main__.py": {"results.json"},  # of its own folder
    "scripts/gpu_check/stages.py": {".json"},
    "scripts/reproduce.py": {".json"},  # of its own folder, figures/
    "ieg_core/sweep/slots.py": {".json", "*.json"},  # of a scratch folder
}
SPELLED = {
    "ieg_core/audit/label_audit.py": {"summary.json"},
    "ieg_core/data/image_folder/arrays.py": {"arrays.safetensors"},
    "ieg_core/features/network.py": {"config.json"},
    "scripts/chaos_fuzz.py": {"config.json"},
    "scripts/chaos_structures.py": {"config.json"},
    "pipelines/cluster/client.py": {"runs"},  # of a URL of KFP, like the next two
    "pipelines/cluster/sweep.py": {"runs"},
    "scripts/cluster_test.py": {"runs"},
    "scripts/gpu_check/__main__.py": {"results.json", "results.md"},
    "scripts/write_published.py": {"report"},  # of a module's path
}


def kinds(base=Record):
    return [each for kind in base.__subclasses__() for each in (kind, *kinds(kind))]


@functools.cache
def modules():
    """Returns the name and the tree of each module outside store/."""
    tops = ("ieg_core", "components", "pipelines", "scripts")
    paths = (path for top in tops for path in (ROOT / top).rglob("*.py"))
    named = ((path.relative_to(ROOT).as_posix(), path) for path in paths)
    return [(n, ast.parse(p.read_text())) for n, p in named if not n.startswith("ieg_core/store/")]


def texts(tree):
    """Yields the texts in a module, docstrings left out."""
    documents = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and id(node) not in documents:
            yield from [node.value] if isinstance(node.value, str) else []


def declared():
    """Returns the names of files and of folders that store/ declares."""
    names = [value for name, value in vars(layout).items() if name.isupper()]
    names = [*(name for name in names if isinstance(name, str)), *(kind.NAME for kind in kinds())]
    parts = {part for name in names for part in name.split("/") if re.fullmatch(r"[\w.]+", part)}
    files = {part for part in parts if "." in part}
    return files, parts - files


def spelled(tree, files, folders):
    """Yields what a module spells: files anywhere, folders where they are part of a path."""
    for node in ast.walk(tree):
        match node:
            case ast.BinOp(op=ast.Div(), right=ast.Constant(value=name)):
                yield from {name} & folders
            case ast.Compare(
                left=ast.Attribute(attr="name"), comparators=[ast.Constant(value=name)]
            ):
                yield from {name} & folders
    for text in texts(tree):
        yield from files.intersection(re.findall(r"[\w.-]+", text))
        yield from folders.intersection(re.findall(r"\w+(?=/)|(?<=/)\w+$", text))


def test_no_other_module_names_a_file_of_a_results_root():
    found = {
        name: {text for text in texts(tree) if " " not in text and text.endswith(ENDS)}
        for name, tree in modules()
    }
    assert {name: ends for name, ends in found.items() if ends} == OTHERS


def test_no_other_module_spells_a_name_that_store_declares():
    files, folders = declared()
    assert {"result.json", "report.html", "log.txt"} < files
    assert {"sweeps", "trials", "report", "checkpoint", "doctor"} < folders
    bad = 'a / "sweeps"; f"{b}/sweeps/{c}/report"; d.name == "report"; say("see results.csv")'
    assert set(spelled(ast.parse(bad), files, folders)) == {"sweeps", "report", "results.csv"}
    found = {name: set(spelled(tree, files, folders)) for name, tree in modules()}
    assert {name: names for name, names in found.items() if names} == SPELLED


def test_no_two_records_have_one_name():
    names = [kind.NAME for kind in kinds()]
    assert len(set(names)) == len(names)
    assert ManifestRecord in kinds()


@pytest.mark.parametrize("kind", kinds(), ids=lambda kind: kind.__name__)
def test_what_is_written_is_read_and_what_is_missing_is_named(kind, tmp_path):
    key = (1,) if kind is LeaseRecord else ("a", "b")[: kind.NAME.count("{")]
    values = {"run": AcceptedRun("n", "s", "now")} if kind is AcceptedRecord else {}
    record = example(kind, **values)
    assert kind.look(tmp_path, *key) == (None, "")
    record.write(tmp_path, *key)
    assert kind.read(tmp_path, *key).encode() == record.encode()
    path = kind.path(tmp_path, *key)
    value = seal.unseal(json.loads(path.read_text()))
    assert kind.parse(value | {"of a later version": 1.0}, "x") is not None
    if kind is RatesRecord:
        return
    for field in fields(kind):
        if field.default is MISSING:
            rest = {k: v for k, v in value.items() if k != field.name}
            path.write_text(json.dumps(seal.seal(rest)))
            with pytest.raises(UserError) as error:
                kind.read(tmp_path, *key)
            text = str(error.value)
            assert text.startswith(f"{path} is damaged ({field.name}: received nothing, expected ")
            assert text.endswith("): delete it and run again")
            assert kind.look(tmp_path, *key) == (None, text)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"step": "3"}, "step: received '3', expected a whole number"),
        ({"step": True}, "step: received True, expected a whole number"),
        ({"updated": float("nan")}, "updated: received nan, expected a number"),
        ({"accuracy_ema": "high"}, "accuracy_ema: received 'high', expected a number"),
        ({"phase": None}, "phase: received None, expected a string"),
        ({"host": "x" * 500}, None),
    ],
)
def test_a_value_of_another_type_is_named(changes, message):
    value = example(ProgressRecord).to_value() | changes
    if message is None:
        assert ProgressRecord.parse(value, "here").host == "x" * 500
        return
    with pytest.raises(UserError) as error:
        ProgressRecord.parse(value, "here")
    assert str(error.value) == f"here is damaged ({message}): delete it and run again"


def test_what_is_deeper_is_named_by_its_place():
    result = example(ResultRecord).to_value()
    for changes, place in (
        ({"per_class_accuracy_ema_last": [0.5, "x"]}, "per_class_accuracy_ema_last[1]"),
        ({"versions": {"numpy": 2}}, "versions.numpy"),
        ({"eval_sets": {"photos": {"accuracy": None}}}, "eval_sets.photos.accuracy"),
    ):
        with pytest.raises(UserError) as error:
            ResultRecord.parse(result | changes, "here")
        assert f"({place}: received " in str(error.value)
    with pytest.raises(UserError, match=r"run\.sweep: received nothing, expected a string"):
        AcceptedRecord.parse({"schema": 1, "trials": [], "run": {"namespace": "n"}}, "here")
    with pytest.raises(UserError, match="schema: received 2, expected 1"):
        PlanRecord.parse({"schema": 2}, "here")


@pytest.mark.parametrize("content", [b"", b"{", b"\xff", b"[]", b"null", b'"x"'])
def test_what_is_no_object_is_damaged(tmp_path, content):
    path = tmp_path / "progress.json"
    path.write_bytes(content)
    record, reason = ProgressRecord.look(tmp_path)
    assert record is None
    assert reason.startswith(f"{path} is damaged (")
    assert "\n" not in reason


def test_a_long_value_is_cut():
    with pytest.raises(UserError) as error:
        ProgressRecord.parse({"phase": ["x"] * 1000}, "here")
    assert len(str(error.value)) < 250


def test_nan_is_not_written(tmp_path):
    with pytest.raises(ValueError, match="JSON"):
        replace(example(ProgressRecord), accuracy_ema=float("nan")).write(tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("progress", [None, "{", 37])
def test_a_failure_names_the_step_as_well_as_that_is_known(tmp_path, progress):
    if isinstance(progress, int):
        example(ProgressRecord, step=progress).write(tmp_path)
    elif progress:
        (tmp_path / "progress.json").write_text(progress)
    record_failure(tmp_path, "training", "why", "log")
    step = progress if isinstance(progress, int) else 0
    expected = FailureRecord(phase="training", reason="why", step=step, log="log")
    assert FailureRecord.read(tmp_path) == expected


def test_a_trials_settings_are_a_configuration(tmp_path):
    with pytest.raises(UserError, match="method must be a method's name"):
        _ = example(TrialRecord).settings
