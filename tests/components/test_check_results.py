# SPDX-License-Identifier: Apache-2.0
import pytest

from components.check_results import check_results


def test_the_verdict_fails_where_something_was_wrong():
    assert check_results.python_func(failures="") == "every trial finished"
    with pytest.raises(RuntimeError, match="trials did not finish: a: why"):
        check_results.python_func(failures="trials did not finish: a: why")
