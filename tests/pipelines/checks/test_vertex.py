# SPDX-License-Identifier: Apache-2.0
"""The package for Vertex AI Pipelines: one document, with nothing that would be lost there."""

import dataclasses

import pytest
import yaml

from ieg_core.errors import UserError
from pipelines import checks, noise_sweep, profiles
from pipelines import compile as packages
from pipelines.cluster_files import ClusterFile, VertexAI

CLUSTER = ClusterFile(
    image="europe-docker.pkg.dev/team/ieg/ieg-python:1a2b3c",
    results="gs://bucket/results",
    vertex=VertexAI(data_dir="/gcs/bucket/data", accelerator="NVIDIA_L4", count=2),
)


def findings(profile):
    compiled = checks.compiled(noise_sweep.build(profile))
    return [f"{check.__name__}: {line}" for check in checks.VERTEX for line in check(compiled)]


def test_it_is_one_document_with_accelerators_by_model(tmp_path):
    chosen = packages.all_profiles(CLUSTER)
    assert [each.name for each in chosen] == ["local", "cpu", "gpu", "vertex"]
    (path,) = packages.write_packages(chosen[-1:], tmp_path)
    assert path.name == "noise_sweep-vertex.yaml"
    (document,) = yaml.safe_load_all(path.read_text())
    container = document["deploymentSpec"]["executors"]["exec-train"]["container"]
    accelerator = container["resources"]["accelerator"]
    assert (accelerator["resourceType"], accelerator["resourceCount"]) == ("NVIDIA_L4", "2")
    assert container["image"] == CLUSTER.image
    inputs = document["root"]["inputDefinitions"]["parameters"]
    assert inputs["data_dir"]["defaultValue"] == "/gcs/bucket/data"
    assert inputs["results"]["defaultValue"] == "gs://bucket/results"
    assert "IEG_POD_USER" not in {each["name"] for each in container["env"]}


def test_without_data_there_is_no_package():
    chosen = packages.all_profiles(dataclasses.replace(CLUSTER, vertex=VertexAI()))
    assert [each.name for each in chosen] == ["local", "cpu", "gpu"]


@pytest.mark.parametrize(
    ("change", "finding"),
    [
        ({"kubernetes": True}, "platform_part: settings for kubernetes"),
        ({"results": "/results"}, "unreachable_place: results is '/results'"),
        ({"data_dir": "/data"}, "unreachable_place: data_dir is '/data'"),
        ({"image": "ieg-python:1a2b3c"}, "unreachable_image: exec-train runs ieg-python:1a2b3c"),
        (
            {"pod_templates": profiles.gpu(CLUSTER).pod_templates},
            "kubernetes_resource: exec-train requests nvidia.com/gpu",
        ),
    ],
)
def test_what_vertex_ai_cannot_do_is_found(change, finding):
    profile = profiles.vertex(CLUSTER)
    assert findings(profile) == []
    found = findings(dataclasses.replace(profile, **change))
    assert any(line.startswith(finding) for line in found), found


@pytest.mark.parametrize("image", ["", "ieg-python:1a2b3c", "team/ieg-python:1a2b3c"])
def test_the_image_must_be_in_a_registry(image):
    with pytest.raises(UserError, match=f"but image is '{image}': expected one in a regi"):
        dataclasses.replace(CLUSTER, image=image)


def test_results_must_be_in_a_bucket():
    with pytest.raises(UserError, match="Vertex AI has no volumes"):
        ClusterFile(vertex=VertexAI(data_dir="/gcs/bucket/data"))
