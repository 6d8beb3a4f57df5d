# SPDX-License-Identifier: Apache-2.0
from scripts.tables import to_table


def test_the_table_has_means_and_deviations_over_seeds():
    def row(value):
        return {"AUROC": value, "precision": None, "recall": 0.5}

    found = {"digits | ieg": [row(0.8), row(0.9)], "digits | fsr": [{"AUROC": 0.7, "F1": 1.0}]}
    assert to_table(found, "data | audit").splitlines() == [
        "| data | audit | AUROC | precision | recall | F1 |",
        "|---|---|---|---|---|---|",
        # The sample deviation of 0.8 and 0.9 is 0.1/√2.
        "| digits | ieg | 0.8500 ± 0.0707 | - | 0.5000 ± 0.0000 | - |",
        "| digits | fsr | 0.7000 | - | - | 1.0000 |",
    ]
