# SPDX-License-Identifier: Apache-2.0
"""Repeating requests: how long, and what is never done twice."""

import pytest

from ieg_core.errors import UserError
from pipelines.cluster import client as clients
from pipelines.cluster.repeated_requests import (
    LIMIT_SECONDS,
    SETTLE_SECONDS,
    TransientError,
    ask,
    create,
)
from pipelines.cluster_files import ClusterFile
from tests.clock import FakeClock
from tests.pipelines.stubs.contract import Fault


class Server:
    """Fails as scripted, then answers; creates one thing a request that it carries out."""

    def __init__(self, *failures, carries_out=False):
        self.failures, self.carries_out, self.made, self.asked = list(failures), carries_out, 0, 0

    def request(self):
        self.asked += 1
        if self.failures:
            failure = self.failures.pop(0)
            self.made += self.carries_out and not failure.is_refused
            raise failure
        self.made += 1
        return self.made

    def find(self):
        return self.made or None


def test_pauses_grow_to_a_bound_and_obey_the_server():
    clock = FakeClock()
    busy = [TransientError("busy")] * 6 + [TransientError("busy", wait=25.0)]
    assert ask(Server(*busy).request, clock) == 1
    assert clock.slept == [1, 2, 4, 8, 16, 16, 25]


def test_it_ends_in_one_line_at_the_limit():
    clock = FakeClock()
    server = Server(*[TransientError("busy")] * 99)
    with pytest.raises(UserError, match=r"^busy; gave up after 120 seconds: check the server and"):
        ask(server.request, clock)
    assert sum(clock.slept) == LIMIT_SECONDS


def test_what_is_refused_is_not_repeated():
    server = Server()
    server.failures = [UserError("no")]
    with pytest.raises(UserError, match=r"^no$"):
        ask(server.request, FakeClock())
    assert server.asked == 1


def test_what_was_carried_out_without_an_answer_is_found():
    server = Server(TransientError("lost"), carries_out=True)
    assert create(server.request, server.find, FakeClock()) == 1
    assert (server.made, server.asked) == (1, 1)


def test_what_was_not_carried_out_is_repeated_once_that_is_certain():
    clock, server = FakeClock(), Server(TransientError("lost"))
    assert create(server.request, server.find, clock) == 1
    assert sum(clock.slept) >= SETTLE_SECONDS
    clock, server = FakeClock(), Server(TransientError("busy", is_refused=True))
    assert create(server.request, server.find, clock) == 1
    assert clock.slept == [1]


def test_who_cannot_look_whether_it_was_carried_out_does_not_repeat_it():
    server = Server(TransientError("lost"), carries_out=True)

    def find():
        raise TransientError("busy")

    with pytest.raises(UserError, match="it may have been carried out: look for it in the KFP UI"):
        create(server.request, find, FakeClock())
    assert (server.made, server.asked) == (1, 1)


def test_a_retry_after_of_a_day_is_not_slept_through(kfp_stub):
    cluster_file, clock = ClusterFile(endpoint=kfp_stub.url), FakeClock()
    client = clients.connect(cluster_file)
    kfp_stub.faults.append(Fault(status=503, path="/runs", retry_after="86400", times=1))
    assert clients.ask(cluster_file, "list runs", client.list_runs, clock).total_size == 0
    assert clock.slept == [clients.LONGEST_WAIT]


def test_a_web_page_is_no_empty_answer(kfp_stub):
    cluster_file = ClusterFile(endpoint=kfp_stub.url)
    client = clients.connect(cluster_file)
    kfp_stub.faults.append(Fault(status=200, path="/runs", body="<html>Log in</html>"))
    with pytest.raises(UserError, match="requires a login: could not list runs: it answers with a"):
        clients.ask(cluster_file, "list runs", client.list_runs, FakeClock())
    kfp_stub.faults[:] = [Fault(status=200, path="/runs", body='{"runs": [', times=1)]
    assert clients.ask(cluster_file, "list runs", client.list_runs, FakeClock()).total_size == 0
