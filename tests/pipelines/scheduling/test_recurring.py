# SPDX-License-Identifier: Apache-2.0
"""`make schedule` by KFP's real client against the contract stub (no KFP)."""

import json

import pytest

from ieg_core.errors import UserError
from ieg_core.sweep.request import SweepRequest
from pipelines.cluster_files import ClusterFile
from pipelines.scheduling import recurring, schedules
from pipelines.scheduling.recurring import Existing, Wanted, plan
from pipelines.scheduling.schedules import Schedule
from tests.clock import FakeClock
from tests.pipelines.scheduling.test_schedules import PLAIN
from tests.pipelines.stubs.contract import Fault

IMAGE = "registry.example.org/ieg-python:1a2b3c"
WRITES = ("POST", "DELETE", "PUT", "PATCH")


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "schedules.yaml"
    path.write_text(PLAIN)
    return path


def sync(stub, path, *, only_plan=False, **cluster_file):
    lines = []
    place = ClusterFile(endpoint=stub.url, image=IMAGE, **cluster_file)
    assert (
        recurring.main(place, only_plan=only_plan, path=path, say=lines.append, clock=FakeClock())
        == 0
    )
    return "\n".join(lines)


def writes(stub):
    return [r for r in stub.requests if r.method in WRITES]


def one(stub):
    (found,) = stub.recurring.values()
    return found


def test_a_missing_schedule_is_created(kfp_stub, folder):
    text = sync(kfp_stub, folder)
    assert "create   nightly  0 0 3 * * *  (new)" in text
    made = one(kfp_stub)
    assert made["trigger"] == {"cron_schedule": {"cron": "0 0 3 * * *"}}
    assert (made["max_concurrency"], made["no_catchup"], made["mode"]) == ("1", True, "ENABLE")
    assert made["service_account"] == "ieg-pipelines"
    sent = made["runtime_config"]["parameters"]
    assert sent["results_namespace"] == "scheduled/nightly/{run}"
    assert (sent["schedule"], sent["tolerance"], sent["seeds"]) == ("nightly", 2.0, [0, 1])
    package = json.dumps(made["pipeline_spec"])
    assert IMAGE in package
    assert "enableCache" not in package
    assert "{{$.pipeline_job_uuid}}" in package


def test_the_second_time_nothing_is_written(kfp_stub, folder):
    sync(kfp_stub, folder)
    before = len(writes(kfp_stub))
    assert before > 0
    kfp_stub.requests.clear()
    assert "nothing to do" in sync(kfp_stub, folder)
    assert kfp_stub.requests
    assert writes(kfp_stub) == []


def test_a_schedule_over_its_budget_is_refused_before_anything_is_created(kfp_stub, folder):
    costly = PLAIN.replace("profile: cpu", "profile: gpu")
    folder.write_text(costly)
    for only_plan in (True, False):
        with pytest.raises(
            UserError, match=r"schedule nightly .* expected at most max_gpu_hours, 1e"
        ):
            sync(kfp_stub, folder, only_plan=only_plan, max_gpu_hours=1e-6)
    assert writes(kfp_stub) == []
    folder.write_text(costly + "    max_gpu_hours: 24\n")
    sync(kfp_stub, folder, max_gpu_hours=1e-6)
    # It is there: only what would start is refused.
    folder.write_text(costly)
    assert "nothing to do" in sync(kfp_stub, folder, max_gpu_hours=1e-6)
    kfp_stub.recurring[one(kfp_stub)["recurring_run_id"]]["status"] = "DISABLED"
    with pytest.raises(UserError, match="set max_gpu_hours in its entry"):
        sync(kfp_stub, folder, max_gpu_hours=1e-6)


def test_a_plan_writes_nothing(kfp_stub, folder):
    text = sync(kfp_stub, folder, only_plan=True)
    assert "create   nightly" in text
    assert "done" not in text
    assert writes(kfp_stub) == []
    assert not kfp_stub.experiments


def test_the_cost_of_every_schedule_is_shown_also_where_nothing_changes(kfp_stub, folder):
    sync(kfp_stub, folder)
    text = sync(kfp_stub, folder, only_plan=True)
    header, line = (each.split() for each in text.splitlines()[1:3])
    assert header[0] == "schedule"
    assert line == ["nightly", "0.0", "30.4", "0.0", "no", "GPUs"]
    assert "nothing to do" in text


def test_what_changed_is_created_anew_before_the_old_one_goes(kfp_stub, folder):
    sync(kfp_stub, folder)
    old = one(kfp_stub)["recurring_run_id"]
    kfp_stub.requests.clear()
    folder.write_text(PLAIN.replace("0 0 3", "0 0 4").replace("seeds: [0, 1]", "seeds: [0]"))
    assert "replace  nightly  0 0 4 * * *  (changed: cron, seeds)" in sync(kfp_stub, folder)
    new = one(kfp_stub)
    assert new["recurring_run_id"] != old
    assert new["trigger"]["cron_schedule"]["cron"] == "0 0 4 * * *"
    created, deleted = writes(kfp_stub)
    assert (created.method, deleted.method) == ("POST", "DELETE")
    assert deleted.path.endswith(old)
    # A run that is going on is not taken along.
    assert deleted.query == {"propagation_policy": "ORPHAN"}
    assert "nothing to do" in sync(kfp_stub, folder)


def test_another_image_replaces_too(kfp_stub, folder):
    sync(kfp_stub, folder)
    place = ClusterFile(endpoint=kfp_stub.url, image="registry.example.org/ieg-python:4d5e6f")
    lines = []
    recurring.main(place, only_plan=False, path=folder, say=lines.append)
    assert "changed: the pipeline package" in "\n".join(lines)
    assert "ieg-python:4d5e6f" in json.dumps(one(kfp_stub))


def test_a_failure_between_creating_and_deleting_loses_nothing(kfp_stub, folder):
    sync(kfp_stub, folder)
    folder.write_text(PLAIN.replace("0 0 3", "0 0 4"))
    kfp_stub.faults.append(Fault(method="DELETE"))
    with pytest.raises(UserError, match="replace the schedule nightly"):
        sync(kfp_stub, folder)
    assert len(kfp_stub.recurring) == 2
    kfp_stub.faults.clear()
    assert "delete   nightly  (left by an earlier change)" in sync(kfp_stub, folder)
    assert one(kfp_stub)["trigger"]["cron_schedule"]["cron"] == "0 0 4 * * *"


def test_a_failure_to_create_leaves_the_old_one(kfp_stub, folder):
    sync(kfp_stub, folder)
    folder.write_text(PLAIN.replace("0 0 3", "0 0 4"))
    kfp_stub.faults.append(Fault(method="POST", path="recurringruns"))
    with pytest.raises(UserError):
        sync(kfp_stub, folder)
    assert one(kfp_stub)["trigger"]["cron_schedule"]["cron"] == "0 0 3 * * *"


def test_what_was_removed_is_disabled_once_and_enabled_when_it_comes_back(kfp_stub, folder):
    sync(kfp_stub, folder)
    folder.write_text("schedules: []")
    assert "disable  nightly  (no longer in schedules.yaml)" in sync(kfp_stub, folder)
    assert one(kfp_stub)["status"] == "DISABLED"
    kfp_stub.requests.clear()
    assert "nothing to do" in sync(kfp_stub, folder)
    assert writes(kfp_stub) == []
    folder.write_text(PLAIN)
    assert "enable   nightly" in sync(kfp_stub, folder)
    assert one(kfp_stub)["status"] == "ENABLED"


def test_what_is_not_ours_is_not_touched(kfp_stub, folder):
    sync(kfp_stub, folder)
    ours = one(kfp_stub)
    for number in range(205):  # more than two pages
        name = f"other-{number}"
        kfp_stub.recurring[name] = ours | {
            "recurring_run_id": name, "display_name": "nightly", "description": "by hand",
        }  # fmt: skip
    folder.write_text("schedules: []")
    kfp_stub.requests.clear()
    sync(kfp_stub, folder)
    (request,) = writes(kfp_stub)
    assert request.path.endswith(f"{ours['recurring_run_id']}:disable")


def test_ours_is_found_behind_many_others(kfp_stub, folder):
    sync(kfp_stub, folder)
    mine = dict(kfp_stub.recurring)
    others = {
        f"o{n}": one(kfp_stub) | {"recurring_run_id": f"o{n}", "description": ""}
        for n in range(230)
    }
    kfp_stub.recurring.clear()
    kfp_stub.recurring.update(others | mine)
    assert "nothing to do" in sync(kfp_stub, folder)


def test_a_multi_user_installation_gets_the_namespace(multi_user_stub, folder):
    sync(multi_user_stub, folder, namespace="team")
    assert one(multi_user_stub)["namespace"] == "team"
    assert "nothing to do" in sync(multi_user_stub, folder, namespace="team")


def test_a_mistake_in_the_file_is_told_before_anything_is_asked(kfp_stub, folder):
    folder.write_text(PLAIN.replace("0 0 3 * * *", "0 3 * * *"))
    with pytest.raises(UserError, match="5 fields"):
        sync(kfp_stub, folder)
    assert kfp_stub.requests == []


def test_without_an_endpoint_the_mend_is_told(no_cluster, folder):
    with pytest.raises(UserError, match="no cluster is configured"):
        recurring.main(ClusterFile(image=IMAGE), only_plan=True, path=folder)


def wanted(name="a", **changes):
    seeds = changes.pop("seeds", (0,))
    request = SweepRequest("digits_uniform", methods=("l2r",), seeds=seeds)
    values = {"name": name, "cron": "0 0 3 * * *", "tolerance": 1.0} | changes
    return Wanted(Schedule(**values, request=request), {"spec": {}, "platform": {}}, "sa")


def existing(want, id_="1", **changes):
    values = {"digest": want.digest, "enabled": True, "cron": "", "arguments": {}} | changes
    return Existing(id=id_, name=want.schedule.name, **values)


def test_the_digest_stands_for_all_that_is_sent():
    plain = wanted()
    others = [
        wanted(cron="0 0 4 * * *"), wanted(seeds=(1,)), wanted(tolerance=2.0), wanted("b"),
        Wanted(plain.schedule, {"spec": {"x": 1}, "platform": {}}, "sa"),
        Wanted(plain.schedule, {"spec": {}, "platform": {"x": 1}}, "sa"),
        Wanted(plain.schedule, plain.package, "other"),
    ]  # fmt: skip
    assert len({each.digest for each in (plain, *others)}) == 8
    assert wanted().digest == plain.digest
    marker = recurring.MARKER.search(plain.description)
    assert (marker[1], marker[2]) == ("a", plain.digest)


def test_of_two_right_ones_the_enabled_one_stays():
    want = wanted()
    found = plan([want], [existing(want, "1", enabled=False), existing(want, "2")])
    assert [(action.verb, action.ids) for action in found] == [("delete", ("1",))]


def test_whole_numbers_that_come_back_as_floats_are_no_change(kfp_stub, folder):
    sync(kfp_stub, folder)
    made = one(kfp_stub)["runtime_config"]["parameters"]
    made["seeds"] = [0.0, 1.0]
    folder.write_text(PLAIN.replace("tolerance: 2", "tolerance: 3"))
    assert "(changed: tolerance)" in sync(kfp_stub, folder, only_plan=True)


def test_every_argument_is_an_input_of_the_pipeline(folder):
    found = schedules.read(folder, ClusterFile(), max_trials=100)
    (want,) = recurring.compile_wanted(found, ClusterFile(image=IMAGE))
    inputs = want.package["spec"]["root"]["inputDefinitions"]["parameters"]
    assert set(want.schedule.arguments) <= set(inputs)
