# SPDX-License-Identifier: Apache-2.0
from ieg_core.cli import main
from tests.doors import refused


def test_a_run_that_is_not_trained_cannot_be_evaluated(planned, tmp_path, capsys):
    arguments, steps = planned
    steps["train"] = (1, {})
    main.main(arguments)
    capsys.readouterr()
    (folder,) = (tmp_path / "runs" / "trials").iterdir()
    message = refused(capsys, main.main(["evaluate", str(folder)]))
    assert "has not finished training" in message
