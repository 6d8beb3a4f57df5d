# SPDX-License-Identifier: Apache-2.0
import copy
import functools
import inspect
import types
from collections.abc import Iterator

import pytest

from pipelines import compile as packages
from tests.pipelines.stubs.kfp_api import KfpApi, kfp_api


@pytest.fixture(autouse=True, scope="session")
def without_source_lines():
    """Lets KFP ask who called it without reading the source of every frame below a test.

    For each setting of a task it looks at the whole stack, of which it wants a name.
    """
    from kfp.dsl import pipeline_task

    cheap = types.SimpleNamespace(**vars(inspect))
    cheap.stack = functools.partial(inspect.stack, context=0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pipeline_task, "inspect", cheap)
        yield


@pytest.fixture(autouse=True, scope="session")
def compiled_once():
    """Compiles the package of each profile once: two seconds, which dozens of tests need."""
    plain, kept = packages.package, {}

    def package(profile):
        key = repr(profile)
        if key not in kept:
            kept[key] = plain(profile)
        return copy.deepcopy(kept[key])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(packages, "package", package)
        yield


@pytest.fixture
def no_cluster(tmp_path, monkeypatch):
    """Nothing of the caller's own clusters: no KFP context, no endpoint, no kubeconfig."""
    import kfp

    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setattr(kfp.Client, "_LOCAL_KFP_CONTEXT", str(home / "context.json"))
    monkeypatch.setenv("KUBECONFIG", str(home / "kubeconfig"))
    for name in ("ENDPOINT", "UI_ENDPOINT", "SA_TOKEN_PATH"):
        monkeypatch.delenv(f"KF_PIPELINES_{name}", raising=False)
    for name in ("KUBERNETES_SERVICE_HOST", "KUBERNETES_SERVICE_PORT", "IEG_CLUSTER"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def kfp_stub(no_cluster) -> Iterator[KfpApi]:
    """A contract stub of a single-user KFP, served in this process."""
    with kfp_api() as stub:
        yield stub


@pytest.fixture
def multi_user_stub(no_cluster) -> Iterator[KfpApi]:
    """A contract stub of a multi-user KFP in which the namespace "team" may be used."""
    with kfp_api(multi_user=True) as stub:
        yield stub
