# SPDX-License-Identifier: Apache-2.0
"""The failing services in short; `python -m scripts.chaos_services` tries more."""

import pytest

from pipelines.cluster import client as clients
from scripts.chaos_services import try_bucket, try_kfp
from tests import gcs

LOSES_AN_ANSWER = 0


@pytest.mark.parametrize("seed", range(4))
def test_a_sweep_is_submitted_once_and_followed_to_its_end(no_cluster, tmp_path, seed):
    assert try_kfp(seed, tmp_path / "token") == ""


def test_a_double_submission_is_found(no_cluster, tmp_path, monkeypatch):
    def repeat(cluster_file, doing, request, find, clock):
        return clients.ask(cluster_file, doing, request, clock)

    monkeypatch.setattr(clients, "create", repeat)
    assert "submitted twice" in try_kfp(LOSES_AN_ANSWER, tmp_path / "token")


@pytest.fixture(scope="module")
def emulator():
    with gcs.serve() as running:
        yield running


@pytest.mark.parametrize("seed", range(3))
def test_a_trial_in_a_bucket_is_leased_once_and_complete(emulator, monkeypatch, seed):
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", emulator.host)
    assert try_bucket(seed, emulator) == ""
