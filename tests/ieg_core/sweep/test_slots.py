# SPDX-License-Identifier: Apache-2.0
import subprocess
import sys

import pytest

from ieg_core.errors import UserError
from ieg_core.host import machine
from ieg_core.host.runtime import is_gpu_required
from ieg_core.sweep import slots
from ieg_core.sweep.slots import Slot

GIB = 1024**3


@pytest.mark.parametrize(
    ("trials", "cores", "gib", "expected"),
    [
        pytest.param(6, 2, 24, [Slot(1)] * 2, id="more trials than cores: one thread each"),
        pytest.param(2, 2, 24, [Slot(1)] * 2, id="as many trials as cores"),
        pytest.param(1, 2, 24, [Slot(1)], id="one trial has the thread that it has in a sweep"),
        pytest.param(3, 16, 64, [Slot(1)] * 3, id="cores stay idle"),
        pytest.param(9, 16, 8, [Slot(1)] * 4, id="8 GiB hold 4 trials of 2 GiB"),
        pytest.param(9, 2, 1, [Slot(1)], id="little memory: still one trial"),
        pytest.param(0, 2, 24, [Slot(1)], id="nothing to run: still one slot"),
    ],
)
def test_a_cpu_is_shared_out_by_threads(trials, cores, gib, expected):
    assert slots.plan_slots(trials, (), 1, cores, gib * GIB) == expected


def test_a_trial_alone_has_one_thread_or_all_gpus():
    assert slots.whole_machine(()) == Slot(1)
    assert slots.whole_machine(("0", "1")) == Slot(machine.usable_cores(), ("0", "1"))


def test_each_trial_gets_its_own_gpus():
    planned = slots.plan_slots(9, ("0", "1", "2", "3"), 1, 16, 64 * GIB)
    assert [slot.gpus for slot in planned] == [("0",), ("1",), ("2",), ("3",)]
    assert {slot.threads for slot in planned} == {4}


def test_gpus_that_do_not_fill_a_trial_stay_idle():
    planned = slots.plan_slots(9, ("0", "1", "4"), 2, 16, 64 * GIB)
    assert planned == [Slot(threads=16, gpus=("0", "1"))]
    assert planned[0].num_replicas == 2
    assert planned[0].env == {"CUDA_DEVICE_ORDER": "PCI_BUS_ID", "CUDA_VISIBLE_DEVICES": "0,1"}


def test_gpus_that_were_asked_for_must_be_usable(tmp_path):
    assert [machine.names_gpus(text) for text in ("auto", "CPU", "0,1")] == [False, False, True]
    (planned,) = slots.plan_slots(1, ("0",), 1, 16, 64 * GIB, required=True)
    assert is_gpu_required(planned.env)
    slots.write_slots(tmp_path, [planned])
    with slots.acquire(tmp_path) as slot:
        assert slot == planned


def test_on_the_cpu_no_gpu_is_visible_and_there_is_one_replica():
    assert Slot(threads=2).env["CUDA_VISIBLE_DEVICES"] == ""
    assert not is_gpu_required(Slot(threads=2).env)
    assert Slot(threads=2).num_replicas == 1


@pytest.mark.parametrize(
    ("gpus", "per_trial", "message"),
    [
        ((), 2, "GPUS_PER_TRIAL=2, but no GPU is in use"),
        (("0",), 2, "GPUS_PER_TRIAL=2, but 1 GPUs are in use"),
        (("0",), 0, "at least 1, got 0"),
    ],
)
def test_more_gpus_than_there_are_cannot_be_had(gpus, per_trial, message):
    with pytest.raises(UserError, match=message):
        slots.plan_slots(1, gpus, per_trial, 2, 24 * GIB)


@pytest.fixture
def three_gpus(tmp_path, monkeypatch):
    program = tmp_path / "nvidia-smi"
    program.write_text(
        "#!/bin/sh\n"
        "[ $1 = --query-gpu=uuid ] && printf 'GPU-a1\\nGPU-b2\\nGPU-c3\\n' || "
        "printf '0\\n1\\n2\\n'\n"
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")


@pytest.mark.parametrize(
    ("devices", "environ", "expected"),
    [
        ("auto", {}, ("0", "1", "2")),
        ("auto", {"CUDA_VISIBLE_DEVICES": "2,1"}, ("2", "1")),
        ("auto", {"CUDA_VISIBLE_DEVICES": ""}, ()),
        ("auto", {"CUDA_VISIBLE_DEVICES": "-1"}, ()),
        ("auto", {"CUDA_VISIBLE_DEVICES": "NoDevFiles"}, ()),
        ("auto", {"CUDA_VISIBLE_DEVICES": "1,-1,2"}, ("1",)),
        ("auto", {"CUDA_VISIBLE_DEVICES": "1,7,2"}, ("1",)),
        ("auto", {"CUDA_VISIBLE_DEVICES": "2,2,1"}, ("2",)),
        ("auto", {"CUDA_VISIBLE_DEVICES": "GPU-b,GPU-x,0"}, ("GPU-b",)),
        ("auto", {"CUDA_VISIBLE_DEVICES": "MIG-1"}, ("MIG-1",)),
        ("cpu", {}, ()),
        ("CPU", {"CUDA_VISIBLE_DEVICES": "1"}, ()),
        ("2,0", {}, ("2", "0")),
    ],
)
def test_devices_name_the_gpus_to_use(three_gpus, devices, environ, expected):
    assert machine.find_gpus(devices, environ) == expected


@pytest.mark.parametrize(
    ("devices", "message"),
    [
        ("3", r"no GPU 3: expected one of 0, 1, 2"),
        ("0,0", "expected auto, cpu, or distinct GPU numbers"),
        ("gpu", "expected auto, cpu, or distinct GPU numbers"),
        ("", "expected auto, cpu, or distinct GPU numbers"),
        ("0,", "expected auto, cpu, or distinct GPU numbers"),
    ],
)
def test_devices_that_are_none_are_refused(three_gpus, devices, message):
    with pytest.raises(UserError, match=message):
        machine.find_gpus(devices, {})


def test_a_machine_without_a_driver_has_no_gpu(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert machine.find_gpus("auto", {"CUDA_VISIBLE_DEVICES": "0"}) == ()


def test_the_machine_has_cores_and_memory():
    assert machine.usable_cores() >= 1
    assert machine.usable_memory() > 0


HOLD = """
import sys, time
from pathlib import Path
from ieg_core.sweep.slots import acquire
with acquire(Path(sys.argv[1])) as slot:
    print(slot.gpus[0], flush=True)
    time.sleep(60)
"""


def _holder(folder):
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, folder], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    return process, process.stdout.readline().strip()


def test_a_slot_is_held_by_one_process_and_free_again_when_it_is_killed(tmp_path):
    slots.write_slots(tmp_path, [Slot(1, ("0",)), Slot(1, ("1",))])
    holders = [_holder(tmp_path), _holder(tmp_path)]
    try:
        assert sorted(gpu for _, gpu in holders) == ["0", "1"]
        process, gpu = holders[0]
        process.kill()
        process.wait()
        with slots.acquire(tmp_path) as slot:
            assert slot.gpus == (gpu,)
    finally:
        for process, _ in holders:
            process.kill()
            process.wait()
            process.stdout.close()


def test_a_released_slot_can_be_taken_again(tmp_path):
    slots.write_slots(tmp_path, [Slot(3)])
    for _ in range(2):
        with slots.acquire(tmp_path) as slot:
            assert slot == Slot(3)


def test_no_slots_is_an_error_and_not_an_endless_wait(tmp_path):
    with pytest.raises(FileNotFoundError, match="no slots"), slots.acquire(tmp_path):
        pass


@pytest.fixture
def nvidia_smi(tmp_path, monkeypatch):
    """Puts a shell script in the place of nvidia-smi."""

    def write(script: str) -> None:
        program = tmp_path / "nvidia-smi"
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)
        monkeypatch.setenv("PATH", str(tmp_path))

    return write


def test_the_drivers_version_is_asked_of_nvidia_smi(nvidia_smi):
    nvidia_smi('[ "$1" = --query-gpu=driver_version ] && echo 550.54.15 && echo 550.54.15')
    assert machine.driver_version() == "550.54.15"
    nvidia_smi("echo 'Failed to initialize NVML'; exit 9")
    assert machine.driver_version() == ""


def test_without_a_driver_its_version_is_empty(tmp_path, monkeypatch):
    monkeypatch.setattr("shutil.which", lambda name, path=None: None)
    assert machine.driver_version() == ""
    assert machine.find_gpus("auto", {}) == ()
