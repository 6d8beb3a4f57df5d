# SPDX-License-Identifier: Apache-2.0
from ieg_core.cli import main


def tree(folder):
    return {
        path.relative_to(folder): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_preparing_twice_gives_the_same_bytes(tmp_path, capsys):
    for name in ("one", "two"):
        arguments = ["prepare", "digits_uniform_0.4", "digits_asymmetric_0.2", "--out"]
        assert main.main([*arguments, str(tmp_path / name)]) == 0
    assert len(tree(tmp_path / "one")) == 4
    assert tree(tmp_path / "one") == tree(tmp_path / "two")
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 4
    # 1,797 digits, a fifth of them for the test, ten of each class for the probe.
    assert "1338 training examples, 100 clean ones" in lines[0]
