# SPDX-License-Identifier: Apache-2.0
"""docs/cluster.md: its commands, files, variables and keys are there. No cluster is, so no more."""

import re
import shlex
from pathlib import Path

import pytest
import yaml

from pipelines import cluster_files, variables
from pipelines.manifests import kustomize, render
from tests.pipelines.stubs import kubernetes_api

ROOT = Path(__file__).parents[2]
GUIDE = (ROOT / "docs" / "cluster.md").read_text()
MAKEFILE = (ROOT / "Makefile").read_text()
TARGETS = set(re.findall(r"^([a-z-]+):.*## ", MAKEFILE, re.MULTILINE))


def commands() -> list[str]:
    blocks = re.findall(r"^```sh\n(.*?)^```", GUIDE, re.MULTILINE | re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines()]
    assert len(lines) > 25
    return lines


def make_calls() -> list[list[str]]:
    inline = re.findall(r"`(make [^`]*)`", GUIDE)
    calls = [shlex.split(text) for text in [*inline, *commands()] if text.startswith("make ")]
    assert len(calls) > 15
    return calls


def test_every_make_target_is_there():
    assert {call[1] for call in make_calls()} <= TARGETS


def test_every_variable_that_a_make_command_sets_is_there():
    for call in make_calls():
        assert all("=" in word for word in call[2:]), call
        names = [word.partition("=")[0] for word in call[2:]]
        assert not variables.find_problem([call[1]], names), call


def test_every_variable_named_alone_is_there():
    named = set(re.findall(r"`([A-Z][A-Z_]+)(?:=[^`]*)?`", GUIDE))
    assert {"RESUME", "RATES", "WATCH", "MAX_GPU_HOURS"} <= named
    others = {"CRON_SCHEDULE_TIMEZONE", "TRANSIENT_ERROR_PATTERN", "MLFLOW_ALLOW_FILE_STORE"}
    others |= {"DEFAULT_SECURITY_CONTEXT_RUN_AS_USER"}
    known = {each.variable for options in variables.TARGETS.values() for each in options}
    assert named - others <= known


def test_every_file_named_is_there_or_rendered():
    rendered = {f"build/k8s/{Path(name).name}.yaml" for name in render.kustomizations()}
    compiled = {"build/noise_sweep-gpu.yaml", "build/noise_sweep-vertex.yaml"}
    named = set(re.findall(r"(?<![\w/.])((?:k8s|docs|build)/[\w./-]+\w)", GUIDE))
    assert len(named) > 8
    for name in named - rendered - compiled - {"build/k8s"}:
        assert (ROOT / name).exists(), name


def test_the_cluster_file_shown_is_one(tmp_path):
    (block,) = re.findall(r"^```yaml\n(.*?)^```", GUIDE, re.MULTILINE | re.DOTALL)
    path = tmp_path / "cluster.yaml"
    path.write_text(block)
    cluster_file = cluster_files.load(path)
    assert cluster_file.image.endswith(":3f2a9c1d5e6b")
    assert cluster_file.gpu.node_selector


def keys_of(value: object) -> set[str]:
    if not isinstance(value, dict):
        return set()
    return set(value) | {f"{key}.{inner}" for key in value for inner in keys_of(value[key])}


@pytest.mark.parametrize(
    "key",
    [
        *("endpoint", "image", "results", "namespace", "token_file", "cookie_file", "parallelism"),
        *("service_account", "checkpoint_minutes", "time_zone", "gpu.node_selector", "gpu.spot"),
        *("gpu.tolerations", "gpu.spot_node_selector", "gpu.spot_tolerations"),
        "resources.train.memory_limit",
    ],
)
def test_every_key_of_the_cluster_file_named_is_one(key):
    assert f"`{key}" in GUIDE or f"\n{key}" in GUIDE
    assert key in keys_of(yaml.safe_load((ROOT / "docs/cluster.example.yaml").read_text()))


def test_jobs_and_files_that_kubectl_is_called_with_are_ours():
    jobs = {
        f"job/{document['metadata']['name']}"
        for name in render.kustomizations()
        for document in kustomize.render(ROOT / "k8s" / name)
        if document["kind"] == "Job"
    }
    named = set(re.findall(r"job/[\w-]+", "\n".join(commands())))
    assert named
    assert named <= jobs


def test_jobs_are_started_again():
    """What a job runs cannot be changed, and `apply` does not run one again that has ended."""
    jobs = {
        f"build/k8s/{Path(name).name}.yaml"
        for name in render.kustomizations()
        if name.startswith("jobs/")
    }
    starts = [line for line in commands() if set(line.split()) & jobs]
    assert len(starts) == 2
    for line in starts:
        assert line.startswith("kubectl replace --force -f "), line


def test_submitters_may_do_what_our_commands_ask_for_and_no_more():
    """The stub of the Kubernetes API refuses everything else, and the commands' tests use it."""
    given = {
        (verb, resource)
        for document in kustomize.render(ROOT / "k8s" / "submitters")
        for rule in document.get("rules", [])
        for verb in rule["verbs"]
        for resource in rule["resources"]
    }
    assert given == kubernetes_api.EVERY_RIGHT


def test_each_permission_given_is_explained():
    """Every resource that a role of ours names stands in the guide's table."""
    table = GUIDE[GUIDE.index("### What each permission is for") : GUIDE.index("## 5.")]
    for name in ("overlays/gpu", "submitters"):
        for document in kustomize.render(ROOT / "k8s" / name):
            for rule in document.get("rules", []):
                for word in rule.get("resourceNames", rule["resources"]):
                    assert {"persistentvolumeclaims": "claims"}.get(word, word) in table, word
