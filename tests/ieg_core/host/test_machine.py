# SPDX-License-Identifier: Apache-2.0
import platform
from pathlib import Path

import pytest

from ieg_core.host import machine


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("processor\t: 0\nmodel name\t: AMD EPYC 7B13\n\nmodel name\t: other\n", "AMD EPYC 7B13"),
        ("processor\t: 0\nCPU part\t: 0xd0c\n", "aarch64"),
        (None, "aarch64"),
    ],
)
def test_the_processor_is_named_by_the_kernel_or_by_python(monkeypatch, content, expected):
    def read(path, **options):
        if content is None:
            raise FileNotFoundError(path)
        return content

    monkeypatch.setattr(Path, "read_text", read)
    monkeypatch.setattr(platform, "processor", lambda: "aarch64")
    assert machine.processor_name() == expected
