# SPDX-License-Identifier: Apache-2.0
import contextlib
import subprocess
import threading
from pathlib import Path

import pytest

from ieg_core.host import container_memory
from ieg_core.host.container_memory import MemoryUse


def write_cgroup(root: Path, version: int, *, used: int, limit: str, cache: int) -> Path:
    """Writes the files of a control group in which `cache` of the used bytes can be reclaimed."""
    folder, names, prefix = {
        2: (root, ("memory.max", "memory.current"), ""),
        1: (root / "memory", ("memory.limit_in_bytes", "memory.usage_in_bytes"), "total_"),
    }[version]
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in zip(names, (limit, str(used)), strict=True):
        (folder / name).write_text(f"{text}\n")
    lines = f"anon 7\n{prefix}inactive_file {cache}\n{prefix}active_file 0\n"
    (folder / "memory.stat").write_text(lines)
    return root


@pytest.mark.parametrize("version", [1, 2])
def test_files_that_can_be_reclaimed_do_not_count(version, tmp_path):
    root = write_cgroup(tmp_path, version, used=900, limit="1000", cache=300)
    assert container_memory.read(root) == MemoryUse(used=600, limit=1000)


@pytest.mark.parametrize(("version", "limit"), [(2, "max"), (1, str(2**63 - 4096))])
def test_without_a_limit_there_is_nothing_to_watch(version, limit, tmp_path):
    root = write_cgroup(tmp_path, version, used=900, limit=limit, cache=0)
    assert container_memory.read(root) is None
    assert container_memory.read(tmp_path / "nowhere") is None


def test_a_process_is_killed_just_before_the_container_would_be(tmp_path):
    root = write_cgroup(tmp_path, 2, used=96 * 2**30, limit=str(100 * 2**30), cache=0)
    with (
        subprocess.Popen(["sleep", "600"], text=True) as process,
        container_memory.guarded(process, root) as guard,
    ):
        assert process.wait(timeout=60) == -9
    assert "96.00 of the container's 100.00 GiB" in guard.reason


def test_of_several_the_largest_alone_is_killed(tmp_path, monkeypatch):
    root = write_cgroup(tmp_path, 2, used=96 * 2**30, limit=str(100 * 2**30), cache=0)
    with contextlib.ExitStack() as stack:
        small, large, middle = (
            stack.enter_context(subprocess.Popen(["sleep", "600"], text=True)) for _ in range(3)
        )
        sizes = {small.pid: 2**30, large.pid: 60 * 2**30, middle.pid: 30 * 2**30}
        looks = threading.Semaphore(0)

        def read(cgroup):
            freed = sizes[large.pid] if large.returncode is not None else 0
            if freed:
                looks.release()
            return MemoryUse(used=96 * 2**30 - freed, limit=100 * 2**30)

        monkeypatch.setattr(container_memory, "read", read)
        monkeypatch.setattr(container_memory, "resident", sizes.__getitem__)
        guards = [
            stack.enter_context(container_memory.guarded(each, root))
            for each in (small, large, middle)
        ]
        assert large.wait(timeout=60) == -9
        assert all(looks.acquire(timeout=60) for _ in range(4))  # the others have looked again
        assert small.poll() is middle.poll() is None
        small.kill()
        middle.kill()
    assert [bool(guard.reason) for guard in guards] == [False, True, False]
    assert "60.00 by this trial, the largest of 3 at once; lower trials_at_once" in guards[1].reason


def test_the_memory_of_a_process_is_what_it_holds():
    with subprocess.Popen(["sleep", "600"]) as process:
        assert 0 < container_memory.resident(process.pid) < 2**30
        process.kill()
        process.wait()
        assert container_memory.resident(process.pid) == 0


def test_a_process_with_enough_memory_ends_by_itself(tmp_path):
    root = write_cgroup(tmp_path, 2, used=940, limit="1000", cache=0)
    with (
        subprocess.Popen(["sleep", "0.5"], text=True) as process,
        container_memory.guarded(process, root) as guard,
    ):
        assert process.wait(timeout=60) == 0
    assert guard.reason == ""
