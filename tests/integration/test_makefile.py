# SPDX-License-Identifier: Apache-2.0
"""The front door: targets, their help, their variables, and when setup runs."""

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from pipelines import variables

ROOT = Path(__file__).parents[2]
CHECK = (
    ("ieg_core", "errors"),
    ("ieg_core/experiment", "config", "feature_sources", "length", "methods", "networks"),
    ("ieg_core/store", "names"),
    ("ieg_core/sweep", "request"),
    ("pipelines", "variables"),
)
_spec = importlib.util.spec_from_file_location("set_up", ROOT / "scripts" / "set_up.py")
assert _spec is not None
assert _spec.loader is not None
set_up = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(set_up)


def make(*arguments: str, folder: Path = ROOT) -> subprocess.CompletedProcess[str]:
    # A make that runs the tests hands its own flags and variables down.
    environment = {key: value for key, value in os.environ.items() if not key.startswith("MAKE")}
    return subprocess.run(
        ["make", *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


def phony_targets() -> set[str]:
    (line,) = re.findall(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    return set(line.split())


def test_make_alone_prints_every_target_with_a_line_of_help():
    lines = make().stdout.splitlines()
    helped = {line.split()[1]: line.split(maxsplit=2)[2] for line in lines if "  make " in line}
    assert helped.keys() == phony_targets()
    assert all(len(text) > 10 for text in helped.values())
    assert max(map(len, lines)) <= 100


def sweep_arguments(*given: str) -> list[str]:
    """Returns what `make sweep` hands on, read by a real shell."""
    printed = make("-n", "sweep", *given)
    assert printed.returncode == 0, printed.stderr
    command = printed.stdout[printed.stdout.index(".venv/bin/python -m pipelines") :]
    script = command.replace(".venv/bin/python", "printf '%s\\0'", 1)
    words = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=True).stdout
    return words.removesuffix("\0").split("\0")[4:]


def test_only_the_variables_that_were_given_are_handed_on():
    assert sweep_arguments() == []
    assert sweep_arguments("NOISE=", "METHODS=l2r") == ["METHODS=l2r", "NOISE="]


@pytest.mark.parametrize(
    "value",
    ["0.2,0.4", "-1", "a b", "it's", '"; exit 3; "', "`id`", "*", "$", "$$HOME", "$(1) ${x}", "a\\",
     "# no comment", "a=b", "ε"],
)  # fmt: skip
def test_a_value_arrives_as_it_was_typed(value):
    given = [f"NOISE={value}", f"SET={value}"]
    assert sweep_arguments(*given) == given


@pytest.mark.parametrize(
    "attempt",
    ["$(shell touch made)", "`touch made`", "$(eval X := $(shell touch made))", "';touch made;'"],
)
def test_a_value_is_never_run(checkout, attempt, monkeypatch):
    monkeypatch.setenv("PYTHONSAFEPATH", "1")
    make("setup", folder=checkout)
    (checkout / ".venv" / "bin").mkdir()
    (checkout / ".venv" / "bin" / "python").symlink_to(sys.executable)
    script = (
        "import os, sys\n"
        "print(sys.argv[-1], 'DATASET' in os.environ, sys.flags.safe_path, sys.flags.utf8_mode)\n"
    )
    (checkout / "pipelines" / "__main__.py").write_text(script)
    answer = make("sweep", f"DATASET={attempt}", folder=checkout)
    assert answer.stdout == f"DATASET={attempt} False False 1\n"
    assert not (checkout / "made").exists()


def test_a_value_of_two_lines_is_refused():
    answer = make("-n", "sweep", "SET=a=1\ntouch x")
    assert answer.returncode == 2
    assert "SET has a line break: expected one line" in answer.stderr
    assert answer.stdout == ""


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["sweep", "METHOD=ieg"], "unknown variable METHOD: did you mean METHODS? expected one of"),
        (["sweep", "noise=0.4"], "unknown variable noise: did you mean NOISE"),
        (["sweep", "QQQQ=1"], "unknown variable QQQQ: expected one of DATASET, NOISE,"),
        (["sweep", "OLDER=3d"], "make sweep does not take OLDER, only make clean-runs: leave it"),
        (
            ["lint", "STEPS=5"],
            "make lint does not take STEPS, only make sweep, make tune: leave it out",
        ),
        (["lint", "COLOR=1"], "make lint takes no variables, got COLOR: leave it out"),
        (["schedule", "PLANS=1"], "unknown variable PLANS: did you mean PLAN?"),
        (["image", "IMAGES=x"], "unknown variable IMAGES: did you mean IMAGE?"),
        (["METHODS=ieg"], "make help does not take METHODS, only make sweep, make tune"),
        (["sweep", "A;touch x=1"], "x=1: expected NAME=value with a variable's name"),
    ],
)
def test_a_variable_that_no_target_takes_is_refused_in_one_line(checkout, arguments, message):
    answer = make(*arguments, folder=checkout)
    assert answer.returncode == 2
    (line,) = answer.stderr.splitlines()
    assert message in line
    assert answer.stdout == ""  # not even setup ran
    assert not (checkout / ".venv").exists()
    assert not (checkout / "x").exists()


def test_the_variables_of_several_targets_are_accepted_together(checkout):
    answer = make("-n", "image", "schedule", "IMAGE=x", "PLAN=1", "PYTHON=python3", folder=checkout)
    assert answer.returncode == 0, answer.stderr
    assert "-m scripts.image  --image='x'" in answer.stdout
    assert "python -m pipelines schedule 'IMAGE=x' 'PLAN=1'" in answer.stdout


def test_a_variable_of_the_callers_environment_is_no_setting(monkeypatch):
    monkeypatch.setenv("METHODS", "l2r")
    monkeypatch.setenv("SEEDS", "0")  # the default: ignoring it changes nothing
    monkeypatch.setenv("OLDER", "30d")  # another target's
    assert sweep_arguments("NOISE=0.4") == ["NOISE=0.4"]
    (hint,) = make("-n", "sweep").stderr.splitlines()
    assert hint.startswith("hint: METHODS is set in the environment and ignored: ")
    assert hint.endswith("to use it, add METHODS=l2r to the make command")
    assert make("-n", "sweep", "METHODS=ieg").stderr == ""
    assert make("-n", "lint").stderr == ""


def test_each_variable_of_a_script_is_handed_on():
    for target in ("image", "image-test", "manifests", "data"):
        names = [each.variable for each in variables.TARGETS[target]]
        printed = make("-n", target, *(f"{name}=v{name}" for name in names)).stdout
        assert all(f"='v{name}'" in printed for name in names)


def test_the_audit_takes_a_folder_or_a_data_set():
    printed = make("-n", "audit", "DATA_DIR=my photos", "OUT=out", "DECISIONS=d.csv").stdout
    assert "ieg audit 'my photos'" in printed
    assert "--out='out'" in printed
    assert "--decisions='d.csv'" in printed
    assert "ieg audit 'cifar10_human'" in make("-n", "audit", "DATASET=cifar10_human").stdout


def test_the_gpu_check_is_rehearsed_on_a_cpu_on_request_alone():
    printed = make("-n", "gpu-check", "SECONDS=60", "OUT=out", "WHEELS=w", "DATA_DIR=d").stdout
    for flag in ("--seconds='60'", "--state='out'", "--wheels='w'", "--data-dir='d'"):
        assert flag in printed
    assert "--cpu" not in printed
    assert "--cpu" in make("-n", "gpu-check", "CPU=1").stdout
    assert "--cpu" not in make("-n", "gpu-check", "CPU=0").stdout


def test_the_targets_that_take_variables_are_targets():
    assert variables.TARGETS.keys() < phony_targets()


def test_help_lists_the_variables_of_sweep():
    text = make().stdout
    listed = re.findall(r"\b[A-Z_]{3,}\b(?!=)", text[text.index("sweep takes") :])
    assert [name for name in listed if name != "README"] == [
        each.variable for each in variables.SWEEP
    ]


def readme_row(each):
    default = f"`{each.default}`" if each.default else each.default_meaning
    return f"| `{each.variable}` | {default}{' ' if default else ''}| {each.meaning} |"


def test_the_readme_explains_each_variable_as_it_is_declared():
    lines = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    table = [line for line in lines if re.match(r"\| `[A-Z_]+` \|", line)]
    assert table == [readme_row(each) for each in variables.SWEEP]


@pytest.fixture
def checkout(tmp_path):
    """A checkout whose setup is a stand-in that only leaves the stamp."""
    for name in ("Makefile", "requirements.lock", "requirements-gpu.lock", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path)
    # All that the check of variables imports: it runs before anything is installed.
    for folder, *names in CHECK:
        (tmp_path / folder).mkdir(parents=True)
        for name in ("__init__", *names):
            shutil.copy(ROOT / folder / f"{name}.py", tmp_path / folder)
    (tmp_path / "scripts").mkdir()
    (tmp_path / "scripts" / "set_up.py").write_text(
        "import pathlib\n"
        "pathlib.Path('.venv').mkdir(exist_ok=True)\n"
        "pathlib.Path('.venv/.ready').touch()\n"
        "print('set up')\n"
    )
    return tmp_path


def test_set_up_runs_once(checkout):
    assert make("setup", folder=checkout).stdout == "set up\n"
    assert "Nothing to be done" in make("setup", folder=checkout).stdout


@pytest.mark.parametrize("name", ["requirements.lock", "pyproject.toml", "scripts/set_up.py"])
def test_set_up_runs_again_when_what_it_installs_changed(checkout, name):
    make("setup", folder=checkout)
    stamp = (checkout / ".venv" / ".ready").stat().st_mtime
    os.utime(checkout / name, (stamp + 5, stamp + 5))
    assert make("setup", folder=checkout).stdout == "set up\n"


@pytest.mark.parametrize(
    "target", ["sweep", "test", "test-docs", "test-all", "docs", "lint", "bench", "compile"]
)
def test_every_target_that_needs_it_is_set_up_first(checkout, target):
    assert make("-n", target, folder=checkout).stdout.startswith("python3 scripts/set_up.py\n")


def test_clean_keeps_results_and_environment(checkout):
    kept = ["runs/trials/a/result.json", ".venv/bin/python", "data/x", ".venv/lib/__pycache__/y"]
    lost = ["build/x.yaml", ".mypy_cache/x", "ieg_core/__pycache__/x.pyc", "ieg_core.egg-info/x"]
    for name in kept + lost:
        (checkout / name).parent.mkdir(parents=True, exist_ok=True)
        (checkout / name).touch()
    assert make("clean", folder=checkout).returncode == 0
    assert [name for name in kept + lost if (checkout / name).exists()] == kept


def test_ci_runs_what_the_readme_tells_a_developer_to_run():
    lines = (ROOT / ".ci" / "run").read_text().splitlines()
    commands = [line for line in lines if line.startswith("make ")]
    assert commands == ["make -j2 --output-sync lint docs", "make test", "make test-docs"]
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert "`make lint test test-docs docs` is what CI runs" in readme
    assert os.access(ROOT / ".ci" / "run", os.X_OK)


def test_chaos_makes_every_attack():
    recipe = (ROOT / "Makefile").read_text().partition("\nchaos:")[2].partition("\n\n")[0]
    wanted = {path.stem for path in (ROOT / "scripts").glob("chaos*.py")}
    assert set(re.findall(r"-m scripts\.(\w+)", recipe)) == wanted
    assert re.findall(r"scripts\.chaos (\w+ \w+)", recipe) == ["mutations flips"]


def test_the_lock_files_entry_of_one_package_is_found_whole():
    lock = "# made\nuv-build==1 \\\n    --hash=sha256:aa\nuv==0.9.1 \\\n    --hash=sha256:bb \\\n    --hash=sha256:cc\n    # via x\nzip==3\n"  # noqa: E501
    expected = "uv==0.9.1 \\\n    --hash=sha256:bb \\\n    --hash=sha256:cc\n"
    assert set_up.locked_requirement(lock, "uv") == expected
    with pytest.raises(SystemExit, match="does not pin pip"):
        set_up.locked_requirement(lock, "pip")


def test_both_lock_files_pin_what_set_up_starts_with():
    for name in (set_up.LOCK, set_up.GPU_LOCK):
        text = (ROOT / name).read_text()
        assert "--hash=sha256:" in set_up.locked_requirement(text, "uv")
        assert "--hash=sha256:" in set_up.locked_requirement(text, "setuptools")


def test_pips_environment_wins_over_its_files():
    listing = (
        ":env:.timeout='180'\nglobal.timeout='15'\nglobal.index-url='https://mirror.example/simple'\n"
        "install.no-deps='true'\nglobal.extra-index-url='a\\nb'\n"
    )
    assert set_up.read_pip_configuration(listing) == {
        "timeout": "180",
        "index-url": "https://mirror.example/simple",
        "no-deps": "true",
        "extra-index-url": "a\nb",
    }


def test_uv_looks_where_pip_looks(tmp_path):
    here = tmp_path / "my wheels"
    here.mkdir()
    pip = {
        "index-url": "https://mirror.example/simple",
        "extra-index-url": f"https://two.example/simple\n{here.as_uri()} file:///missing/simple",
        "cert": "/etc/ca.pem",
        "proxy": "http://proxy.example:3128",
        "trusted-host": "mirror.example",
        "default-timeout": "180",
    }
    assert set_up.uv_environment(pip, {"HOME": "/home/me"}) == {
        "HOME": "/home/me",
        "UV_DEFAULT_INDEX": "https://mirror.example/simple",
        "UV_INDEX": f"https://two.example/simple {here.as_uri()}",
        "UV_INDEX_STRATEGY": "unsafe-best-match",
        "UV_INSECURE_HOST": "mirror.example",
        "UV_HTTP_TIMEOUT": "180",
        "SSL_CERT_FILE": "/etc/ca.pem",
        "HTTPS_PROXY": "http://proxy.example:3128",
        "HTTP_PROXY": "http://proxy.example:3128",
    }


def test_what_is_set_for_uv_stays():
    environ = {"UV_DEFAULT_INDEX": "https://mine.example", "SSL_CERT_FILE": "/mine.pem"}
    found = set_up.uv_environment({"index-url": "https://pip.example", "cert": "/pip.pem"}, environ)
    assert found == {**environ, "UV_INDEX_STRATEGY": "unsafe-best-match"}


@pytest.mark.parametrize(
    ("answer", "expected"),
    [("GPU 0: NVIDIA H200 (UUID: GPU-1)", True), ("No devices were found", False), (None, False)],
)
def test_a_gpu_is_one_that_the_driver_lists(tmp_path, monkeypatch, answer, expected):
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    if answer is None:
        monkeypatch.setenv("PATH", str(tmp_path))
    else:
        program = tmp_path / "nvidia-smi"
        program.write_text(f"#!/bin/sh\necho '{answer}'\n")
        program.chmod(0o755)
    assert set_up.has_gpu() is expected


def test_a_choice_is_never_run(checkout):
    make("-n", "lock", "UPGRADE=$(shell touch made)", folder=checkout)
    assert not (checkout / "made").exists()


def test_a_python_that_does_not_look_into_this_folder_is_told_to(checkout, monkeypatch):
    monkeypatch.setenv("PYTHONSAFEPATH", "1")
    answer = make("sweep", "METHOD=ieg", folder=checkout)
    assert "unknown variable METHOD" in answer.stderr


def test_a_folder_whose_name_setuptools_would_alter_is_refused(monkeypatch):
    monkeypatch.setattr("os.getcwd", lambda: "/users/me/a $b")
    with pytest.raises(SystemExit, match=r"'/users/me/a \$b' contains '\$'.*move the checkout"):
        set_up.main()
