# SPDX-License-Identifier: Apache-2.0
import pytest

from ieg_core.errors import UserError
from ieg_core.sweep.plan import configs, plan
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


def test_the_plan_notes_a_length_inside_a_cycle_and_a_short_probe(tmp_path):
    cycles = "schedule.name=cosine_restarts"
    made = plan(
        SweepRequest(
            "digits_imbal_0.02",
            methods=("supervised", "l2r", "ieg"),
            steps=40,
            settings=(cycles, "batch_size=30"),
            results=str(tmp_path),
        )
    )
    probe, whole, cut = made.notes
    assert probe.startswith("digits_imbal_0.02: 4 of 10 classes are too small for a probe of 10")
    assert whole.startswith("supervised: 40 steps end inside a cosine cycle")
    assert cut.startswith("l2r, ieg: 40 steps end inside a cosine cycle")
    # 399 and 321 examples are epochs of 13 and 10 steps, and cycles grow by a half.
    assert whole.endswith("STEPS=32 or 61 ends with one")
    assert cut.endswith("STEPS=25 or 47 ends with one")
