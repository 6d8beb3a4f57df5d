# SPDX-License-Identifier: Apache-2.0
from ieg_core.cli import main


def test_the_recipes_name_every_family_and_method(capsys):
    assert main.main(["recipes"]) == 0
    text = capsys.readouterr().out
    for name in ("digits", "cifar_cpu", "cifar", "longtail", "supervised", "probe_only", "l2r"):
        assert name in text
    assert "600 steps, cosine" in text
