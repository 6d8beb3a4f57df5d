# SPDX-License-Identifier: Apache-2.0
import hashlib
import sys
from pathlib import Path

import pytest

from ieg_core.errors import UserError
from ieg_core.experiment.networks import EXAMPLES, Network, parse, source_digest, validate


@pytest.mark.parametrize(
    ("name", "network"),
    [
        ("resnet11", Network("resnet11", "bottleneck", 1)),
        ("resnet29", Network("resnet29", "bottleneck", 3)),
        ("resnet20", Network("resnet20", "bottleneck", 2)),
        ("resnet32", Network("resnet32", "basic", 5)),
        ("resnet8", Network("resnet8", "basic", 1)),
        ("preact8", Network("preact8", "preact8", 1)),
        ("wrn28-10", Network("wrn28-10", "wide", 4, 10)),
        ("wrn10-1", Network("wrn10-1", "wide", 1, 1)),
        ("resnet18", Network("resnet18", "imagenet", 18)),
        ("resnet152", Network("resnet152", "imagenet", 152)),
        ("nets:small", Network("nets:small", "function", 0)),
        ("my_lab.nets.tiny:build", Network("my_lab.nets.tiny:build", "function", 0)),
        ("nets/one.keras", Network("nets/one.keras", "file", 0)),
    ],
)
def test_a_name_says_family_and_size(name: str, network: Network) -> None:
    assert parse(name) == network


@pytest.mark.parametrize("name", EXAMPLES)
def test_every_offered_name_exists(name: str) -> None:
    validate(name)


@pytest.mark.parametrize(
    "name",
    [
        *("", "resnet", "resnet2", "resnet5", "resnet30", "resnet1208", "resnet029", "resnet-29"),
        *(
            "ResNet29",
            "resnet29\n",
            "nets:",
            ":small",
            "nets:a:b",
            "../nets:small",
        ),
        *("a b:small", "nets:1st", "nets..one:small", "nets.one.small"),
        *("wrn28", "wrn28-0", "wrn27-10", "wrn4-1", "wrn28-65", "wrn28-100", "preact18"),
    ],
)
def test_other_names_are_refused_in_one_line(name: str) -> None:
    with pytest.raises(UserError, match="expected preact8, resnet") as error:
        validate(name)
    assert "\n" not in str(error.value)


def test_the_source_of_ones_own_network_is_digested(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    source = tmp_path / "one_of_mine.py"
    source.write_text("raise RuntimeError('planning must not run this')\n")
    first = source_digest("one_of_mine:small")
    content = source.read_bytes()
    assert first == hashlib.sha256(b"one_of_mine %d\0" % len(content) + content).hexdigest()
    source.write_text(source.read_text() + "# another\n")
    assert source_digest("one_of_mine:small") != first
    (tmp_path / "one.keras").write_bytes(b"abc")
    assert source_digest("one.keras").startswith("ba7816bf")  # the standard's own example
    assert source_digest("resnet29") == ""


FILES = {
    "my_lab/__init__.py": "",
    "my_lab/nets/__init__.py": "from .sizes import WIDTH\n",
    "my_lab/nets/sizes.py": "WIDTH = 8\n",
    "my_lab/nets/tiny.py": "from my_lab import blocks\nfrom ..heads.dense import y\nimport re",
    "my_lab/blocks.py": "def block():\n    import beside\n    return beside.block()\n",
    "my_lab/heads/dense.py": "import my_lab.heads.dense\nfrom .. import constants\n",
    "my_lab/constants.py": "RATE = 1\n",
    "beside.py": "from ieg_core import errors\n",
    "ieg_core/errors.py": "",
    "my_lab/unrelated.py": "",
    "my_lab/nets/unrelated.py": "",
    "unrelated.py": "",
}
IMPORTED = {
    "my_lab/__init__.py",
    "my_lab/nets/__init__.py",
    "my_lab/nets/sizes.py",
    "my_lab/nets/tiny.py",
    "my_lab/blocks.py",
    "my_lab/heads/dense.py",
    "my_lab/constants.py",
    "beside.py",
}


@pytest.mark.parametrize("changed", FILES)
def test_the_digest_covers_what_the_module_imports_from_where_it_lies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changed: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    for module in [name for name in sys.modules if name.partition(".")[0] == "my_lab"]:
        monkeypatch.delitem(sys.modules, module)
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    first = source_digest("my_lab.nets.tiny:build")
    assert source_digest("my_lab.nets.tiny:build") == first
    with (tmp_path / changed).open("a") as file:
        file.write("\n# another\n")
    assert (source_digest("my_lab.nets.tiny:build") != first) == (changed in IMPORTED)


def test_of_installed_packages_the_neighbors_are_not_covered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed = tmp_path / "site-packages"
    monkeypatch.syspath_prepend(installed)
    for name, text in {
        "installed_lab/nets.py": "import a_neighbor\nfrom installed_lab import blocks\n",
        "installed_lab/blocks.py": "",
        "a_neighbor.py": "",
    }.items():
        (installed / name).parent.mkdir(parents=True, exist_ok=True)
        (installed / name).write_text(text)
    first = source_digest("installed_lab.nets:build")
    (installed / "a_neighbor.py").write_text("# another\n")
    assert source_digest("installed_lab.nets:build") == first
    (installed / "installed_lab" / "blocks.py").write_text("# another\n")
    assert source_digest("installed_lab.nets:build") != first


def test_a_helper_that_is_no_python_is_told_while_planning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    (tmp_path / "net_with_helper.py").write_text("import helper_of_it\n")
    (tmp_path / "helper_of_it.py").write_text("def build(:\n")
    with pytest.raises(
        UserError, match=r"helper_of_it.py is not valid Python \(invalid syntax.*line 1"
    ):
        source_digest("net_with_helper:build")


def test_a_package_that_does_not_import_is_told_while_planning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    (tmp_path / "package_of_a_net").mkdir()
    (tmp_path / "package_of_a_net" / "__init__.py").write_text("1 / 0\n")
    with pytest.raises(UserError, match=r"ZeroDivisionError: division by zero.: .*fix them"):
        source_digest("package_of_a_net.net:build")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nowhere_to_be_found:small", r"no module 'nowhere_to_be_found'.*nowhere_to_be_found\.py"),
        ("nowhere.to_be_found:small", r"no module 'nowhere.to_be_found'"),
        ("sys:exit", r"no module 'sys'"),
        ("missing.keras", r"cannot read the network 'missing.keras'.*No such file"),
    ],
)
def test_a_missing_network_is_told_in_one_line(name: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as error:
        source_digest(name)
    assert "\n" not in str(error.value)


def test_the_nearest_name_is_offered() -> None:
    with pytest.raises(UserError, match="did you mean 'wrn28-10'"):
        validate("wrn_28_10")
