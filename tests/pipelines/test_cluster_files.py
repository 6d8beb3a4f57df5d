# SPDX-License-Identifier: Apache-2.0
import dataclasses
import itertools
import pickle
import typing
from pathlib import Path

import pytest
import yaml

from ieg_core.errors import UserError
from pipelines import cluster_files
from pipelines.cluster_files import ClusterFile, Resources, Toleration

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "docs" / "cluster.example.yaml"


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch):
    for name in ("IEG_CLUSTER", "KF_PIPELINES_ENDPOINT"):
        monkeypatch.delenv(name, raising=False)


def read(tmp_path, text):
    file = tmp_path / "my-cluster.yaml"
    file.write_text(text)
    return cluster_files.load(file)


def keys(kind):
    """Every key that the file may have, nested ones as "gpu.count"."""
    found = set()
    for name, hint in typing.get_type_hints(kind).items():
        item = typing.get_args(hint)[0] if typing.get_origin(hint) is tuple else hint
        found |= (
            {f"{name}.{key}" for key in keys(item)} if dataclasses.is_dataclass(item) else set()
        )
        found.add(name)
    return found


def named(content):
    found = set()
    for name, value in content.items():
        inner = value if isinstance(value, list) else [value]
        for each in inner:
            found |= {f"{name}.{key}" for key in named(each)} if isinstance(each, dict) else set()
        found.add(name)
    return found


def test_the_example_loads_and_names_every_key():
    loaded = cluster_files.load(EXAMPLE)
    assert loaded.namespace == "team-vision"
    assert loaded.token_file == str(Path("~/.config/kfp/token").expanduser())
    content = yaml.safe_load(EXAMPLE.read_text())
    assert keys(ClusterFile) - named(content) == {
        "cpu.tolerations." + key for key in keys(Toleration)
    }


def test_the_defaults_that_the_example_shows_are_the_defaults():
    """What differs is what only an installation knows."""
    loaded, default = cluster_files.load(EXAMPLE), ClusterFile()
    differing = {
        field.name
        for field in dataclasses.fields(ClusterFile)
        if getattr(loaded, field.name) != getattr(default, field.name)
    }
    own = {"endpoint", "ui_endpoint", "namespace", "token_file", "image"}
    assert differing == own | {"gpu"}
    assert dataclasses.replace(loaded.gpu, node_selector={}) == default.gpu


def test_every_key_of_the_example_has_a_line_that_says_what_it_is():
    lines = EXAMPLE.read_text().splitlines()
    for number, line in enumerate(lines):
        if line and not line.startswith(("#", " ")):
            block = []
            while number and lines[number - 1]:
                number -= 1
                block.append(lines[number])
            assert any(each.lstrip().startswith("#") for each in block), line


def test_without_a_file_the_defaults_hold(tmp_path, monkeypatch):
    monkeypatch.setattr(cluster_files, "ROOT", tmp_path)
    assert cluster_files.load() == ClusterFile()
    (tmp_path / "cluster.yaml").write_text("namespace: mine\n")
    assert cluster_files.load().namespace == "mine"


def test_a_file_with_comments_alone_says_nothing(tmp_path):
    assert read(tmp_path, "# nothing\n") == ClusterFile()


def test_the_environment_names_a_file(tmp_path, monkeypatch):
    file = tmp_path / "other.yaml"
    file.write_text("retries: 7\n")
    monkeypatch.setenv("IEG_CLUSTER", str(file))
    assert cluster_files.load().retries == 7
    monkeypatch.setenv("IEG_CLUSTER", str(tmp_path / "missing.yaml"))
    with pytest.raises(UserError, match=r"missing\.yaml: cannot be read \(No such file"):
        cluster_files.load()


def test_values_arrive_with_their_types(tmp_path):
    found = read(
        tmp_path,
        """
        gpu: {count: 2, node_selector: {pool: a100}, tolerations: [{key: gpu, effect: NoExecute}]}
        resources: {train: {cpu_request: 2, cpu_limit: 2.5, memory_request: 4Gi, memory_limit: 8Gi}}
        time_limit: 90m
        max_gpu_hours: 3
        results: gs://bucket/runs/ieg
        results_claim: ""
        """,
    )
    assert (found.gpu.count, found.gpu.node_selector) == (2, {"pool": "a100"})
    assert found.gpu.tolerations == (Toleration("gpu", "Exists", "", "NoExecute"),)
    assert found.gpu.resource == "nvidia.com/gpu"
    assert found.resources.train == Resources("2", "2.5", "4Gi", "8Gi")
    assert found.resources.small == ClusterFile().resources.small
    assert (found.time_limit, found.max_gpu_hours) == (5400, 3.0)
    assert pickle.loads(pickle.dumps(found)) == found


def test_files_are_found_from_the_cluster_files_folder(tmp_path):
    found = read(tmp_path, "token_file: secrets/token\nca_file: /etc/ca.pem\n")
    assert found.token_file == str(tmp_path / "secrets" / "token")
    assert found.ca_file == "/etc/ca.pem"
    assert found.cookie_file == ""


AMOUNT = (
    "resources: {{train: {{cpu_request: '{}', cpu_limit: '{}', "
    "memory_request: {}, memory_limit: {}}}}}"
)


def test_cores_are_compared_by_their_value():
    for smaller, larger in [("1", "1001m"), ("2.5", "3"), ("999m", "1"), ("0.0999", "100m")]:
        Resources(smaller, larger, "1", "1")
        with pytest.raises(UserError, match=f"cpu_request must be at most cpu_limit, {smaller}"):
            Resources(larger, smaller, "1", "1")
    for one, same in [("0.1", "100m"), ("2", "2000m"), ("0", "0m")]:
        Resources(one, same, "1", "1")
        Resources(same, one, "1", "1")


def test_memory_is_compared_by_its_value():
    """Each size is below the next: decimal powers and binary ones, up to Ei."""
    sizes = ["0", "999", "1K", "1001", "1Ki", "1000K", "1Mi", "1G", "1000Mi", "1Gi", "1T", "1Ti"]
    sizes += ["1P", "1Pi", "1E", "1Ei"]
    for smaller, larger in itertools.pairwise(sizes):
        Resources("1", "1", smaller, larger)
        with pytest.raises(UserError, match=f"memory_request must be at .*, {smaller}, got"):
            Resources("1", "1", larger, smaller)


@pytest.mark.parametrize(
    "text", ["", "m", "1.", ".5", "-1", "+1", "1e3", "1u", "1k", " 1", "1 ", "1_000", "NaN", "٣"]
)
def test_a_number_of_cores_that_kfp_does_not_take_is_refused(text):
    with pytest.raises(UserError, match="cpu_request must be cores such as '2' or '500m', got"):
        Resources(text, "8", "1Gi", "1Gi")


@pytest.mark.parametrize(
    "text", ["", "Gi", "1.5Gi", "-1Gi", "1k", "1ki", "1m", "1gb", "1Gi ", "1i", "1e9", "inf", "٣Gi"]
)
def test_a_size_that_kfp_does_not_take_is_refused(text):
    with pytest.raises(UserError, match="memory_request must be a size such as 4Gi, got"):
        Resources("1", "1", text, "9Ei")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name_space: x", "unknown key 'name_space': did you mean 'namespace'"),
        ("gpu: {counts: 2}", "unknown key in gpu 'counts': did you mean 'count'"),
        ("gpu: {tolerations: [{keys: x}]}", r"unknown key in gpu.tolerations\[0\] 'keys'"),
        ("3: x", "unknown key '3'"),
        ("- a", "the file: expected keys with values"),
        ("gpu: nvidia", "gpu: expected keys with values, got 'nvidia'"),
        ("gpu: {tolerations: x}", "gpu.tolerations: expected a list, got 'x'"),
        ("gpu: {node_selector: [a]}", "gpu.node_selector: expected keys with values"),
        ("gpu: {node_selector: {spot: true}}", "gpu.node_selector: spot: True is not text: put it"),
        ("gpu: {count: two}", "gpu.count: expected a whole number, got 'two'"),
        ("gpu: {count: true}", "gpu.count: expected a whole number, got True"),
        ("gpu: {count: 0}", "gpu: count must be from 1 to 64, got 0"),
        ("gpu: {resource: gpu}", "resource must be a resource's name such as nvidia.com/gpu"),
        ("gpu: {shared_memory: two}", "gpu: shared_memory must be a size such as 4Gi"),
        ("gpu: {spot: 'yes'}", "gpu.spot: expected true or false, got 'yes'"),
        ("gpu: {tolerations: [{operator: In}]}", "operator must be 'Exists' or 'Equal'"),
        ("gpu: {tolerations: [{key: a, value: b}]}", "value must be empty with the operator"),
        ("gpu: {tolerations: [{operator: Equal}]}", "key must be a taint's key"),
        ("gpu: {tolerations: [{effect: Never}]}", "effect must be 'NoSchedule'"),
        ("resources: {train: {cpu_request: '1'}}", "resources.train: cpu_limit, memory_request"),
        (AMOUNT.format("2", "1", "1Gi", "1Gi"), "cpu_request must be at most cpu_limit, 1, got"),
        (AMOUNT.format("600m", "0.5", "1Gi", "1Gi"), "cpu_request must be at most cpu_limit, 0.5"),
        (AMOUNT.format("1", "1", "1Gi", "1G"), "memory_request must be at most memory_limit, 1G"),
        (AMOUNT.format("1", "1", "2000Mi", "1Gi"), "resources.train: memory_request must be"),
        (AMOUNT.format("one", "1", "1Gi", "1Gi"), "cpu_request must be cores such as '2'"),
        (AMOUNT.format("1", "1", "1Gi", "1gb"), "memory_limit must be a size such as 4Gi"),
        ("cpu: {tolerations: [{key: nvidia.com/gpu}]}", "cpu.tolerations must be no taint of GPU"),
        ("cpu: {tolerations: [{key: our-GPUs}]}", "cpu.tolerations must be no taint of GPU nodes"),
        ("cpu: {tolerations: [{operator: Exists}]}", "alone tolerate, got 'every taint'"),
        (
            "gpu: {resource: a.org/npu}\ncpu: {tolerations: [{key: a.org/npu}]}",
            "cpu.tolerations must be no taint",
        ),
        ("namespace: 12", "namespace: expected text, got 12: put it in quotes"),
        ("namespace: Team", "namespace must be a Kubernetes name"),
        ("kfp_namespace: ''", "kfp_namespace must be a namespace, got ''"),
        ("namespace:", "namespace: expected text, got None"),
        ("endpoint: kfp.example.org", "endpoint must be an address such as https://"),
        ("image: ieg-python", "image must be an image with a tag other than latest"),
        ("image: localhost:5000/ieg-python", "image must be an image with a tag"),
        ("image: ieg-python:latest", "image must be an image with a tag other than latest"),
        ("image: ieg-python@sha256:12", "image must be an image with a tag"),
        ("results: runs", "results must be a folder under /results or gs://bucket/prefix"),
        ("results: /results/../etc", "results must be a folder under /results"),
        ("results: gs://", "results must be a folder under /results or gs://bucket/prefix"),
        ("results: gs://bucket/", "results must be a folder under /results or gs://"),
        ("results_claim: ''", "results is '/results', but results_claim is empty"),
        ("data_claim: one\nresults_claim: one", "are both 'one', but KFP mounts each once"),
        ("data_dir: /mnt/data", "data_dir is '/mnt/data', but ieg-data is mounted on /data"),
        (
            "results: gs://bucket/x\ndata_dir: /results/data",
            "data_dir is '/results/data', but ieg-dat",
        ),
        ("data_dir: data", "data_dir must be an absolute folder"),
        ("time_limit: 24", "time_limit must be from 60 seconds to 100 days, got 24"),
        ("time_limit: 101d", "time_limit must be from 60 seconds to 100 days, got 8726400"),
        (f"queue: {'a' * 64}", "queue must be at most 63 characters long, got 'aaa"),
        (f"priority_class: {'a' * 64}", "priority_class must be at most 63 characters"),
        (f"namespace: {'a' * 64}", "namespace must be at most 63 characters"),
        (f"results_claim: {'a' * 254}", "results_claim must be at most 253 characters"),
        ("gpu: {node_selector: {a b: x}}", "node_selector must be labels of Kubernetes"),
        ("gpu: {node_selector: {a: x y}}", "such as cloud.google.com/gke-nodepool: gpu-pool"),
        ("gpu: {spot_node_selector: {a: -}}", "spot_node_selector must be labels"),
        (f"cpu: {{node_selector: {{{'a' * 64}: x}}}}", "cpu: node_selector must be labels"),
        ("time_limit: a day", "time_limit: expected a duration such as 90m"),
        ("time_limit: 1.5", "time_limit: expected a whole number, got 1.5"),
        ('pod_user: "1:0"', "pod_user must be user:group as numbers, not root's 0"),
        ('pod_user: "2147483648:1"', "pod_user must be user:group as numbers"),
        ("gpu: {count: 65}", "gpu: count must be from 1 to 64, got 65"),
        ("vertex: {count: 0}", "vertex: count must be from 1 to 64, got 0"),
        ("retries: -1", "retries must be from 0 to 10, got -1"),
        ("retries: 33", "retries must be from 0 to 10, got 33"),
        ("parallelism: 0", "parallelism must be from 1 to 100"),
        ("trials_at_once: 2", "trials_at_once must be from 1 to trials_per_pod, 1, got 2"),
        ("trials_per_pod: 4\ntrials_at_once: 0", "trials_at_once must be from 1 to"),
        ("checkpoint_minutes: 0", "checkpoint_minutes must be from 0.1 to 1440"),
        (f"checkpoint_minutes: {10**400}", "checkpoint_minutes: expected a number, got 1000"),
        ("checkpoint_minutes: .nan", "checkpoint_minutes must be from 0.1 to 1440"),
        ("max_gpu_hours: 0", "max_gpu_hours must be above 0"),
        ("time_zone: Mars!", "time_zone must be a zone"),
        ("experiment: ' '", "experiment must be a name"),
        ("a: [", "is not valid YAML"),
        ("endpoint: !!python/object:os.system {}", "is not valid YAML"),
        ("retries: 1\nretries: 2", "retries is there twice"),
        ("[" * 2000, "it is nested too deeply"),
        ("a: &a [*a]", "an alias contains itself"),
        ("a: 2024-13-01", "is not valid YAML: month must be in"),
        (
            "a: &a [x]\n"
            + "".join(
                f"{'abcdefghij'[i + 1]}: &{'abcdefghij'[i + 1]} "
                f"[{', '.join(['*' + 'abcdefghij'[i]] * 9)}]\n"
                for i in range(9)
            ),
            "its aliases stand for more than 10,000 values",
        ),
    ],
)
def test_a_mistake_is_one_line_that_names_file_and_key(tmp_path, text, message):
    with pytest.raises(UserError, match=message) as error:
        read(tmp_path, text)
    assert "my-cluster.yaml" in str(error.value)
    assert "\n" not in str(error.value)


def test_one_volume_may_hold_both(tmp_path):
    assert read(tmp_path, 'data_claim: ""\ndata_dir: /results/data').data_dir == "/results/data"
    assert read(tmp_path, 'data_claim: ""\ndata_dir: /datasets').data_dir == "/datasets"


@pytest.mark.parametrize(
    "image", ["ieg-python:1a2b", "localhost:5000/a/ieg:1", f"a/ieg@sha256:{'0f' * 32}"]
)
def test_pinned_images_are_taken(image):
    assert ClusterFile(image=image).image == image


def test_the_endpoint_comes_from_the_environment_before_the_file(monkeypatch):
    there = ClusterFile(endpoint="https://kfp.example.org")
    assert not cluster_files.endpoint_configured(ClusterFile())
    assert cluster_files.endpoint_configured(there)
    monkeypatch.setenv("KF_PIPELINES_ENDPOINT", "http://other:8888")
    assert cluster_files.endpoint_configured(ClusterFile())
    assert cluster_files.endpoint(there) == "http://other:8888"


def test_single_user_pods_run_in_kfps_namespace():
    assert ClusterFile().kubernetes_namespace == "kubeflow"
    assert ClusterFile(kfp_namespace="ml").kubernetes_namespace == "ml"
    assert ClusterFile(namespace="team", kfp_namespace="ml").kubernetes_namespace == "team"
