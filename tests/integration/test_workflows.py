# SPDX-License-Identifier: Apache-2.0
"""The workflows for forks: valid, pinned, and the same commands as .ci/run."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from kubernetes.utils.quantity import parse_quantity

from pipelines import cluster_files

ROOT = Path(__file__).parents[2]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))


def actionlint(*files: Path) -> subprocess.CompletedProcess[str]:
    # Without ShellCheck: whether a machine has it must not change the outcome.
    command = [Path(sys.executable).parent / "actionlint", "-shellcheck=", "-no-color", *files]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def load(path: Path) -> dict[Any, Any]:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def steps(workflow: dict[Any, Any]) -> list[dict[str, Any]]:
    return [step for job in workflow["jobs"].values() for step in job["steps"]]


def test_actionlint_accepts_every_workflow():
    assert WORKFLOWS
    done = actionlint(*WORKFLOWS)
    assert done.returncode == 0, done.stdout + done.stderr


def test_actionlint_finds_a_mistake(tmp_path):
    broken = tmp_path / "broken.yml"
    text = (ROOT / ".github" / "workflows" / "ci.yml").read_text(encoding="utf-8")
    broken.write_text(text.replace("matrix.target }}", "matrix.targets }}"))
    done = actionlint(broken)
    assert done.returncode == 1
    assert '"targets" is not defined' in done.stdout


def test_ci_runs_the_commands_of_ci_run():
    workflow = load(ROOT / ".github" / "workflows" / "ci.yml")
    (job,) = workflow["jobs"].values()
    (command,) = [step["run"] for step in job["steps"] if "run" in step]
    assert command == "make ${{ matrix.target }}"
    lines = (ROOT / ".ci" / "run").read_text(encoding="utf-8").splitlines()
    words = [word for line in lines if line.startswith("make ") for word in line.split()[1:]]
    targets = [word for word in words if not word.startswith("-")]
    assert job["strategy"]["matrix"] == {"target": targets}


def test_ci_runs_on_pull_requests_and_main():
    # YAML 1.1 reads the key "on" as True.
    triggers = load(ROOT / ".github" / "workflows" / "ci.yml")[True]
    assert triggers == {"pull_request": None, "push": {"branches": ["main"]}}


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_a_workflow_may_only_read_and_its_actions_are_pinned(path):
    workflow = load(path)
    assert workflow["permissions"] == {"contents": "read"}
    text = path.read_text(encoding="utf-8")
    used = [step["uses"] for step in steps(workflow) if "uses" in step]
    assert used
    for action in used:
        assert re.fullmatch(r"[\w./-]+@[0-9a-f]{40}", action), action
        assert re.search(rf"{re.escape(action)} # v\d+\.\d+\.\d+$", text, re.MULTILINE), action


def test_the_trials_of_the_kind_workflow_fit_its_machine(tmp_path):
    """Of 4 cores and 16 GiB, the control plane and KFP request about half."""
    text = (ROOT / ".github" / "workflows" / "kind.yml").read_text(encoding="utf-8")
    (given,) = re.findall(r"cat > cluster\.yaml <<END\n(.*?)\n +END\n", text, re.DOTALL)
    given = given.replace("${IMAGE}:${tag}", "localhost/ieg-python:1").replace("$(id -u)", "1001")
    (tmp_path / "cluster.yaml").write_text(given.replace("$(id -g)", "1001"), encoding="utf-8")
    found = cluster_files.load(tmp_path / "cluster.yaml")
    for each in (found.resources.small, found.resources.train, found.resources.evaluate):
        assert found.parallelism * parse_quantity(each.cpu_request) <= 2
        assert found.parallelism * parse_quantity(each.memory_limit) <= 8 * 2**30
