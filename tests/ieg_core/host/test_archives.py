# SPDX-License-Identifier: Apache-2.0
import zipfile

import pytest

from ieg_core.errors import UserError
from ieg_core.host.archives import require_sane_size


def test_a_file_that_unpacks_to_much_more_is_refused(tmp_path):
    path = tmp_path / "model.keras"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("config.json", "{}")
        archive.writestr("model.weights.h5", bytes(1 << 20))
    require_sane_size(path)
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("assets/a\nb", bytes(65 << 20))
    with pytest.raises(UserError, match=r"unpacks assets/a\\nb to 68,157,440 bytes: expected at"):
        require_sane_size(path)


@pytest.mark.parametrize("content", [None, b"", b"no archive"])
def test_what_is_no_archive_is_left_to_keras(tmp_path, content):
    path = tmp_path / "model.keras"
    if content is not None:
        path.write_bytes(content)
    require_sane_size(path)
