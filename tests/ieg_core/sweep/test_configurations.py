# SPDX-License-Identifier: Apache-2.0
import pytest

from ieg_core.errors import UserError
from ieg_core.sweep.configurations import configs
from ieg_core.sweep.request import SweepRequest


def request(*settings, methods=("supervised", "l2r", "ieg")):
    return SweepRequest("digits_uniform_0.4", methods=methods, settings=settings)


def test_a_setting_goes_to_the_methods_that_have_it():
    found = {
        config.method: config
        for _, config in configs(
            request("method.pseudo_label_loss_weight=4", "probe_per_class=5", "batch_size=50")
        )
    }
    assert found["ieg"].method_settings.pseudo_label_loss_weight == 4
    assert [found[m].probe_per_class for m in ("supervised", "l2r", "ieg")] == [0, 5, 5]
    assert {config.batch_size for config in found.values()} == {50}


@pytest.mark.parametrize(
    ("setting", "methods", "message"),
    [
        ("method.pseudo_label_los_weight=4", ("ieg",), "did you mean"),
        ("method.capacity=100", ("supervised", "ieg"), "unknown setting"),
        ("probe_per_class=5", ("fsr",), "uses no probe"),
        ("probe_per_class", ("ieg", "fsr"), "key=value"),
    ],
)
def test_a_setting_that_none_of_them_has_is_refused(setting, methods, message):
    with pytest.raises(UserError, match=message):
        configs(request(setting, methods=methods))


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("batch_size=50", "'retrain' trains a head on features, .*SET=method.teacher=ieg"),
        ("method.teacher=probe_only", "'probe_only', which judges no noisy label"),
        ("method.teacher=retrain", "'retrain', which needs a teacher itself"),
        ("method.teacher=iegg", "unknown method 'iegg': did you mean 'ieg'"),
    ],
)
def test_a_retraining_names_its_teacher(setting, message):
    with pytest.raises(UserError, match=message):
        configs(request(setting, methods=("retrain",)))
    (planned,) = configs(request("method.teacher=fsr", methods=("retrain",)))
    assert planned[1].method_settings.taught_by == "fsr"
