# SPDX-License-Identifier: Apache-2.0
from tests.conftest import SLOWEST


def test_the_slowest_files_come_first(request):
    files = list(dict.fromkeys(item.path for item in request.session.items))
    root = request.config.rootpath / "tests"
    slowest = [root / name for name in SLOWEST if root / name in files]
    assert files[: len(slowest)] == slowest
