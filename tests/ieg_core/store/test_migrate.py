# SPDX-License-Identifier: Apache-2.0
"""A results root of the version that said cells, overlays and claims."""

import json
import shutil

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import save

from ieg_core.cli import main
from ieg_core.data.label_set import load_label_set
from ieg_core.errors import UserError
from ieg_core.report.trials import load_sweep
from ieg_core.store import layout, leases
from ieg_core.store.leases import trial_lock
from ieg_core.store.migrate import migrate
from ieg_core.store.records import (
    AcceptedRecord,
    AuditRecord,
    LeaseRecord,
    PlanRecord,
    ReportRecord,
    ResultRecord,
    RunRecord,
    TrialRecord,
)
from ieg_core.sweep import plan
from ieg_core.sweep.request import SweepRequest
from ieg_core.training.checkpoint import Progress, load_checkpoint, save_checkpoint
from tests.records import put

OLD = {"trial": "cell", "trials": "cells", "label_set": "overlay"}
OLD |= {"label_set_digest": "overlay_digest"}
STATE = {"params": [np.arange(6, dtype=np.float32).reshape(2, 3)]}


def old_keys(value):
    """Renames the keys of a file, and of the rows in it, to what they once were."""
    if isinstance(value, list):
        return [old_keys(each) for each in value]
    if not isinstance(value, dict):
        return value
    found = {OLD.get(key, key): each for key, each in value.items() if key != "sha256"}
    if "run_directory" in found:
        found["run_directory"] = found["run_directory"].replace("trials/", "cells/")
    if isinstance(found.get("cells"), list):
        found["cells"] = old_keys(found["cells"])
    return found


def build(root):
    """Writes a sweep of two trials, one finished, as the earlier version left it."""
    request = SweepRequest("digits_uniform_0.4", methods=("l2r", "ieg"), results=str(root))
    planned = plan.plan(request)
    done = planned.trials[0]
    folder = layout.trial_folder(root, done)
    row = TrialRecord.read(folder).to_value()
    put(folder / "result.json", **{k: row[k] for k in ("trial", "dataset", "method", "network")},
        run_directory=f"trials/{done}", accuracy_ema_last=0.9)  # fmt: skip
    put(folder / "audit" / "summary.json", trial=done, flagged=3)
    with leases.owned(folder) as lease:
        save_checkpoint(lease, STATE, Progress(done, 25, 1, 1, 0.0, {}))
    (path,) = folder.glob("checkpoint/*")
    header = {"format": 1, "cell": done, "step": 25, "threads": 1, "num_replicas": 1}
    header |= {"train_seconds": 0.0, "curves": {}}
    path.write_bytes(save({"params/0000": STATE["params"][0]}, {"ieg": json.dumps(header)}))
    sweep = layout.sweep_folder(root, planned.sweep)
    (sweep / "report").mkdir()
    rows = [{"trial": done, "run_directory": f"trials/{done}", "versions": {"cell": "kept"}}]
    (sweep / "report" / "results.json").write_text(json.dumps({"schema": 1, "trials": rows}))
    (root / "accepted").mkdir()
    run = {"namespace": "scheduled/n/r", "sweep": planned.sweep, "accepted": "now"}
    accepted = {"schema": 1, "run": run, "trials": rows}
    (root / "accepted" / "n.json").write_text(json.dumps(accepted))
    RunRecord(sweep=planned.sweep, trials=[done], part=1, parts=1).write(root, "one")
    layout.set_latest(root, planned.sweep)

    for path in root.rglob("*.json"):
        path.write_text(json.dumps(old_keys(json.loads(path.read_text()))))
    for claims in root.glob("trials/*/leases"):
        claims.rename(claims.with_name("claims"))
    (root / "trials").rename(root / "cells")
    (root / "label_sets").rename(root / "overlays")
    return planned.sweep, done


@pytest.fixture
def old(tmp_path):
    root = tmp_path / "runs"
    sweep, done = build(root)
    shutil.copytree(root, root / "scheduled" / "n" / "r", symlinks=True)
    return root, sweep, done


def files(root):
    return {path.relative_to(root): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def check(root, sweep, done):
    assert not {"cells", "overlays"} & {path.name for path in root.iterdir()}
    assert not list(root.rglob("claims"))
    folder = layout.trial_folder(root, done)
    planned = PlanRecord.read(layout.sweep_folder(root, sweep))
    assert done in planned.trials
    record = TrialRecord.read(folder)
    assert record.trial == done
    label_set = load_label_set(layout.label_sets_folder(root) / record.label_set)
    assert label_set.digest == record.label_set_digest
    assert ResultRecord.read(folder).run_directory == f"trials/{done}"
    assert AuditRecord.read(folder).trial == done
    assert LeaseRecord.read(folder, 1).ended
    assert RunRecord.read(root, "one").trials == [done]
    (row,) = AcceptedRecord.read(root, "n").trials
    # What is deeper is a name that somebody chose.
    assert (row["run_directory"], row["versions"]) == (f"trials/{done}", {"cell": "kept"})
    assert ReportRecord.read(layout.sweep_folder(root, sweep)).trials[0]["trial"] == done
    state, progress = load_checkpoint(folder, done, STATE)
    assert progress.step == 25
    np.testing.assert_array_equal(state["params"][0], STATE["params"][0])


@pytest.mark.parametrize("text", ['{"a": 1e999}', '{"a": ' * 600 + "1" + "}" * 600])
def test_a_file_that_no_digest_can_be_made_of_stays_for_its_readers(tmp_path, text):
    path = tmp_path / "runs" / "one.json"
    path.parent.mkdir()
    path.write_text(text)
    migrate(tmp_path)
    assert path.read_text() == text or json.loads(path.read_text())["sha256"]


def test_a_root_and_its_namespaces_are_converted(old, capsys, tmp_path):
    root, sweep, done = old
    assert main.main(["migrate", str(root)]) == 0
    assert "4 trials converted" in capsys.readouterr().out
    for each in (root, root / "scheduled" / "n" / "r"):
        check(each, sweep, done)
    rows = load_sweep(root, sweep).rows
    assert {row["status"] for row in rows} == {"finished", "skipped"}
    assert main.main(["report", str(root), "--out", str(tmp_path / "page")]) == 0
    assert len(layout.find_trials(root)[2]) == 2
    before = files(root)
    assert migrate(root) == 0
    assert files(root) == before


def test_what_was_interrupted_is_finished_later(old):
    root, sweep, done = old
    with trial_lock(root / "cells" / done), pytest.raises(UserError, match="wait until it ends"):
        migrate(root)
    with pytest.raises(UserError, match="earlier version"):
        layout.find_trials(root)
    assert migrate(root) > 0
    check(root, sweep, done)


@pytest.mark.parametrize(
    "command", [["status"], ["report"], ["audit"], ["predict", "x.png"], ["evaluate"]]
)
def test_every_command_names_what_converts_it(old, capsys, command):
    root, sweep, done = old
    expected = (
        f"ieg: error: {root} is a results root of an earlier version (it has cells/): convert it "
        f"with `ieg migrate {root}`\n"
    )
    for place in (root, root / "sweeps" / sweep, root / "latest", root / "cells" / done):
        assert main.main([command[0], str(place), *command[1:]]) == 2
        assert capsys.readouterr().err == expected
    arguments = ["train", "--dataset", "digits_uniform_0.4", "--out", str(root)]
    assert main.main(arguments) == 2
    assert capsys.readouterr().err == expected


def test_a_root_without_digests_gets_them(old, capsys):
    root, sweep, done = old
    migrate(root)
    for path in root.rglob("*.json"):
        value = json.loads(path.read_text())
        del value["sha256"]
        path.write_text(json.dumps(value))
    (path,) = layout.trial_folder(root, done).glob("checkpoint/*")
    header = {"format": 1, "trial": done, "step": 25, "threads": 1, "num_replicas": 1}
    header |= {"train_seconds": 0.0, "curves": {}}
    path.write_bytes(save({"params/0000": STATE["params"][0]}, {"ieg": json.dumps(header)}))
    assert main.main(["status", str(root)]) == 2
    assert f"convert it with `ieg migrate {root}`" in capsys.readouterr().err
    assert migrate(root) == 4
    check(root, sweep, done)
    assert migrate(root) == 0


def test_a_damaged_file_stays_for_its_reader(old):
    root, _, done = old
    (root / "cells" / done / "result.json").write_text("{")
    (checkpoint,) = (root / "cells" / done).glob("checkpoint/*")
    checkpoint.write_bytes(b"no tensors")
    migrate(root)
    folder = layout.trial_folder(root, done)
    assert (folder / "result.json").read_text() == "{"
    assert (folder / "checkpoint" / checkpoint.name).read_bytes() == b"no tensors"


def test_a_checkpoints_header_is_one_that_others_can_read(old):
    root, _, done = old
    migrate(root)
    (path,) = layout.trial_folder(root, done).glob("checkpoint/*")
    with safe_open(path, framework="numpy") as file:
        assert json.loads(file.metadata()["ieg"])["trial"] == done


def test_what_is_no_results_root_is_refused(tmp_path, capsys):
    assert main.main(["migrate", str(tmp_path / "nowhere")]) == 2
    assert "expected the folder of a results root" in capsys.readouterr().err
