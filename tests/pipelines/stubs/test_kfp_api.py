# SPDX-License-Identifier: Apache-2.0
"""The stub is as strict as it claims, met by KFP's real client."""

import contextlib
import io
import json
import urllib.request
import warnings

import kfp
import kfp_server_api
import pytest
from kfp import compiler, dsl

from tests.pipelines.stubs.contract import Fault


@dsl.component(base_image="python:1", install_kfp_package=False)
def nothing(name: str) -> str:
    return name


@dsl.pipeline(name="tiny")
def tiny(name: str, number: int = 3, share: float = 0.5):
    nothing(name=name)


@pytest.fixture
def package(tmp_path):
    path = tmp_path / "tiny.yaml"
    compiler.Compiler().compile(tiny, str(path))
    return str(path)


def connected(stub, **settings):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return kfp.Client(host=stub.url, **settings)


def post(stub, path, body):
    request = urllib.request.Request(
        f"{stub.url}/apis/v2beta1/{path}", json.dumps(body).encode(), method="POST"
    )
    try:
        with urllib.request.urlopen(request) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)["message"]


def test_a_run_goes_through_its_states(kfp_stub, package):
    client = connected(kfp_stub)
    result = client.create_run_from_pipeline_package(
        package, arguments={"name": "a"}, run_name="first", experiment_name="trial"
    )
    states = [client.get_run(result.run_id).state for _ in range(4)]
    assert states == ["PENDING", "RUNNING", "SUCCEEDED", "SUCCEEDED"]
    (experiment,) = kfp_stub.experiments.values()
    assert experiment["display_name"] == "trial"
    with contextlib.redirect_stdout(io.StringIO()):
        assert client.create_experiment("trial").experiment_id == experiment["experiment_id"]
    assert len(kfp_stub.experiments) == 1


def test_terminated_runs_end_failed(kfp_stub, package):
    kfp_stub.script = ("RUNNING",)
    client = connected(kfp_stub)
    run = client.create_run_from_pipeline_package(package, arguments={"name": "a"}).run_id
    client.terminate_run(run)
    with pytest.raises(kfp_server_api.ApiException, match="Row not found"):
        client.terminate_run(run)
    assert [client.get_run(run).state for _ in range(2)] == ["CANCELING", "FAILED"]
    assert client.get_run(run).error is None
    with pytest.raises(kfp_server_api.ApiException, match="Row not found"):
        client.terminate_run(run)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "input name has no value"),
        ({"name": "a", "nane": "b"}, "has no input 'nane'"),
        ({"name": 3}, "3 is no STRING"),
        ({"name": "a", "number": True}, "True is no NUMBER_INTEGER"),
    ],
)
def test_arguments_are_held_against_the_pipelines_inputs(kfp_stub, package, arguments, message):
    with pytest.raises(kfp_server_api.ApiException, match=message):
        connected(kfp_stub).create_run_from_pipeline_package(package, arguments=arguments)
    assert kfp_stub.runs == {}


@pytest.mark.parametrize(
    ("path", "body", "message"),
    [
        ("experiments", {"display_name": "a", "color": "red"}, "unknown field 'color'"),
        ("experiments", {"display_name": 3}, "expected a str, got 3"),
        ("experiments", {}, "display_name is empty"),
        ("experiments", {"display_name": "a", "storage_state": "LOST"}, "expected one of"),
        ("experiments", {"display_name": "a", "created_at": "today"}, "RFC 3339"),
        ("runs", {"display_name": "a"}, "either pipeline_spec or"),
        ("runs", {"display_name": "a", "runtime_config": {"params": {}}}, "unknown field 'params'"),
        ("recurringruns", {"display_name": "a", "trigger": {"cron": "x"}}, "unknown field 'cron'"),
    ],
)
def test_a_wrong_body_is_refused(kfp_stub, path, body, message):
    status, said = post(kfp_stub, path, body)
    assert (status, message in str(said)) == (400, True), said
    assert kfp_stub.experiments == {} == kfp_stub.runs


def test_an_unsound_pipeline_is_an_error_of_the_server(kfp_stub):
    body = {"display_name": "a", "pipeline_spec": {"rooot": 1}}
    status, said = post(kfp_stub, "runs", body)
    assert (status, "rooot" in str(said)) == (500, True), said
    assert kfp_stub.runs == {}


def test_a_single_user_installation_ignores_a_namespace(kfp_stub):
    status, said = post(kfp_stub, "experiments", {"display_name": "a", "namespace": "team"})
    assert (status, said["namespace"]) == (200, "")


def test_a_multi_user_installation_wants_a_namespace_that_may_be_used(multi_user_stub):
    assert post(multi_user_stub, "experiments", {"display_name": "a"})[0] == 400
    status, said = post(multi_user_stub, "experiments", {"display_name": "a", "namespace": "b"})
    assert (status, "not authorized" in said) == (403, True)
    assert (
        post(multi_user_stub, "experiments", {"display_name": "a", "namespace": "team"})[0] == 200
    )


def test_packages_are_uploaded_by_name_and_version(kfp_stub, package):
    client = connected(kfp_stub)
    pipeline = client.upload_pipeline(package, pipeline_name="sweep")
    second = client.upload_pipeline_version(package, "v2", pipeline_name="sweep")
    assert second.pipeline_id == pipeline.pipeline_id == client.get_pipeline_id("sweep")
    versions = client.list_pipeline_versions(pipeline.pipeline_id).pipeline_versions
    assert [v.display_name for v in versions] == ["sweep", "v2"]
    with pytest.raises(kfp_server_api.ApiException, match="exists already"):
        client.upload_pipeline(package, pipeline_name="sweep")
    run = client.run_pipeline(
        client.create_experiment("e").experiment_id,
        "from a version",
        pipeline_id=pipeline.pipeline_id,
        version_id=second.pipeline_version_id,
        params={"name": "a"},
    )
    assert kfp_stub.runs[run.run_id]["display_name"] == "from a version"


def test_recurring_runs_are_created_listed_switched_and_deleted(kfp_stub, package):
    client = connected(kfp_stub)
    experiment = client.create_experiment("schedules").experiment_id

    def create(name, **settings):
        return client.create_recurring_run(
            experiment, name, pipeline_package_path=package, params={"name": "a"}, **settings
        )

    made = [create(f"job {i}", cron_expression="0 0 3 * * *", no_catchup=True) for i in range(12)]
    first = client.list_recurring_runs(experiment_id=experiment)
    rest = client.list_recurring_runs(first.next_page_token, experiment_id=experiment)
    assert (len(first.recurring_runs), len(rest.recurring_runs)) == (10, 2)
    client.disable_recurring_run(made[0].recurring_run_id)
    assert client.get_recurring_run(made[0].recurring_run_id).status == "DISABLED"
    client.enable_recurring_run(made[0].recurring_run_id)
    assert client.get_recurring_run(made[0].recurring_run_id).mode == "ENABLE"
    client.delete_recurring_run(made[0].recurring_run_id)
    assert len(kfp_stub.recurring) == 11
    with pytest.raises(kfp_server_api.ApiException, match="neither 5 nor 6 fields"):
        create("odd", cron_expression="0 3 * *")
    with pytest.raises(kfp_server_api.ApiException, match="max_concurrency"):
        create("crowd", cron_expression="0 0 3 * * *", max_concurrency=11)


def test_faults_are_scripted(kfp_stub):
    kfp_stub.faults.append(Fault(status=500, method="POST", path="/experiments", times=1))
    assert post(kfp_stub, "experiments", {"display_name": "a"})[0] == 500
    assert post(kfp_stub, "experiments", {"display_name": "a"})[0] == 200
    assert len(kfp_stub.seen("POST", "/experiments$")) == 2


def test_an_unknown_endpoint_is_none(kfp_stub):
    assert post(kfp_stub, "jobs", {})[0] == 404
