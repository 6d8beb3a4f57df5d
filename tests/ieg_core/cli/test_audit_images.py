# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest

from ieg_core.audit.exports import EXPORTS
from ieg_core.cli.main import main


@pytest.fixture
def table(tmp_path, monkeypatch):
    """A table of labels without images, and features of them in features.npy."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    clean = rng.integers(0, 3, 1200)
    np.save("features.npy", rng.normal(size=(1200, 8)) + 4 * np.eye(8)[clean])
    given = np.where(rng.random(1200) < 0.2, (clean + 1) % 3, clean)
    lines = [f"{number}.jpg,{'abc'[label]}\n" for number, label in enumerate(given)]
    (tmp_path / "photos.csv").write_text("path,label\n" + "".join(lines))
    return tmp_path


def test_a_table_with_features(table, capsys):
    arguments = ["audit", "photos.csv", "--features", "features.npy"]
    assert main([*arguments, "--write-labels", "cleaned.csv"]) == 0
    told = capsys.readouterr().out
    assert "1200 images of 3 classes" in told
    assert "they judge these images well" in told
    assert (table / "audits/photos/audit.csv").is_file()
    assert (table / "cleaned.csv").read_text().startswith("path,label\n0.jpg,")

    (table / "decisions.csv").write_text("path,label,decision\n0.jpg,a,keep\n1.jpg,,drop\n")
    assert main([*arguments, "--decisions", "decisions.csv", "--out", "again"]) == 0
    assert "1199 images" in capsys.readouterr().out
    assert "\n1.jpg," not in (table / "again/audit.csv").read_text()


def test_an_audit_is_exported_for_other_tools(table, capsys):
    files = {tool: f"{tool}.csv" if tool == "cleanlab" else f"{tool}.json" for tool in EXPORTS}
    exports = [f"--export={tool}={file}" for tool, file in files.items()]
    assert main(["audit", "photos.csv", "--features", "features.npy", *exports]) == 0
    printed = capsys.readouterr().out
    for file in files.values():
        assert (table / file).stat().st_size > 1000
        assert file in printed


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["photos.csv", "--export", "excel=x"], "received --export excel=x: expected one of"),
        (["photos.csv", "--export", "cleanlab"], "received --export cleanlab: expected one of"),
        (["nothing"], "there is no nothing"),
        ([""], "received no folder"),
        (["photos.csv", "photos.csv"], "expected one folder or table"),
        (["photos.csv", "--features", "none.npy"], "cannot read features"),
        (["photos.csv", "--threshold", "0.5"], "--threshold is for runs"),
        (["photos.csv", "--write-labels", "cleaned.txt"], "expected .csv or .parquet"),
        (["photos.csv", "--precision", "2"], "precision must be above 0"),
        (["photos"], "none of the 2 files"),
        (["photos", "--out", "photos/out"], "inside photos"),
    ],
)
def test_what_is_refused_writes_nothing(table, capsys, arguments, message):
    for name in ("a", "b"):
        (table / "photos" / name).mkdir(parents=True)
        (table / "photos" / name / "1.jpg").write_text("no image")
    assert main(["audit", *arguments]) == 2
    told = capsys.readouterr().err
    assert message in told
    assert told.count("\n") == 1
    assert not (table / "audits").exists()
    assert not (table / "photos/out").exists()
