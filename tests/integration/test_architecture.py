# SPDX-License-Identifier: Apache-2.0
"""The tree keeps the shape that docs and contracts promise."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from ieg_core.cli.main import COMMANDS
from tests.backends import run_on

ROOT = Path(__file__).parents[2]
TIMES = ("time.time", "time.monotonic", "time.sleep")
CODE = ("ieg_core", "components", "pipelines", "scripts")
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
INTEGRATION = {
    "architecture": "the shape of the tree",
    "bad_input": "images and settings that are refused, by every command alike",
    "bad_labels": "label files that are refused, by every command alike",
    "both_backends": "networks, derivatives and crops on TensorFlow and on JAX",
    "components_on_a_bucket": "all components, one after the other, on a bucket",
    "followed": "training, TensorBoard, pictures and report of one run",
    "gradients": "every method against finite differences",
    "head_files": "a head on features, from photos to `ieg predict`",
    "makefile": "the Makefile and the commands behind its targets",
    "package": "the wheel, installed",
    "released_graph": "methods and the released network against the authors' graph",
    "review_browser": "review.html in a browser",
    "runs": "whole trainings: exact resume, and what clean labels must not decide",
    "scheduled_run": "the pipeline, its schedule and acceptance",
    "steps": "one step of every method, on every backend, on one device and on two",
    "survival": "training programs that are killed and tried again",
    "workflows": "the workflows of GitHub and .ci/run",
}
"""Tests that no single module has, each with what it is about instead."""


def tracked(*patterns: str) -> list[Path]:
    command = ["git", "ls-files", "-z", "--", *patterns]
    listing = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return [ROOT / name for name in listing.stdout.split("\0") if name and (ROOT / name).exists()]


def run(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "error::DeprecationWarning:ieg_core", "-c", code],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_import_contracts_hold():
    linter = Path(sys.executable).parent / "lint-imports"
    done = subprocess.run(
        [linter, "--no-cache", "--no-logo"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout


def test_the_science_imports_neither_kfp_nor_kubernetes():
    modules = [
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        for path in sorted((ROOT / "ieg_core").rglob("*.py"))
        # One backend's modules can be imported under that backend alone.
        if "jax" not in path.name
    ]
    loaded = run_on("tensorflow", Path(__file__).with_name("every_module.py"), *modules)["packages"]
    assert "ieg_core" in loaded
    assert not {"kfp", "kubernetes"} & set(loaded)


def test_planning_and_reports_import_no_deep_learning_framework():
    light = (
        "experiment.config recipes.build store.layout sweep.plan sweep.estimate sweep.worker "
        "sweep.progress sweep.slots host.processes report.write data.open audit.write"
    )
    code = "import sys, ieg_core.cli.main, pipelines.__main__\n"
    code += "assert 'scipy' not in sys.modules, 'each command would wait for it'\n"
    code += "".join(f"import ieg_core.cli.{name}\n" for name in COMMANDS)
    code += "".join(f"import ieg_core.{name}\n" for name in light.split())
    code += "import pipelines.local.sweep, pipelines.options\n"
    code += "heavy = {'tensorflow', 'keras', 'jax', 'kfp', 'sklearn', 'matplotlib'}\n"
    code += "print(sorted(heavy & set(sys.modules)))"
    done = run(code)
    assert done.stdout == "[]\n", done.stdout + done.stderr


def test_only_the_registry_and_the_methods_look_at_the_class_of_settings():
    """Everything else asks what a method declares, so that a new one needs no further edit."""
    declarations = ast.parse((ROOT / "ieg_core/experiment/methods.py").read_text())
    classes = {node.name for node in declarations.body if isinstance(node, ast.ClassDef)}
    classes = {name for name in classes if name.endswith("Settings")}
    assert {"MethodSettings", "FSRSettings"} <= classes
    rooms = [ROOT / "ieg_core" / room for room in ("methods", "experiment")]
    paths = [path for path in tracked("ieg_core/*.py") if not set(rooms) & set(path.parents)]
    assert len(paths) > 100
    for path in paths:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") in (
                "isinstance",
                "issubclass",
                "type",
            ):
                names = {child.id for child in ast.walk(node) if isinstance(child, ast.Name)}
                attributes = {
                    child.attr for child in ast.walk(node) if isinstance(child, ast.Attribute)
                }
                found = (names | attributes) & {*classes, "method_settings"}
                assert not found, f"{path}:{node.lineno}: {found}"


def test_what_waits_asks_a_clock():
    """`Clock` alone sleeps, and nothing takes a function of `time` for a clock of another kind."""
    paths = tracked(*(f"{room}/*.py" for room in CODE))
    assert len(paths) > 200
    for path in paths:
        tree = ast.parse(path.read_text())
        called = {node.func for node in ast.walk(tree) if isinstance(node, ast.Call)}
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and ast.unparse(node) in TIMES:
                is_sleep = node.attr == "sleep"
                assert path.name == "clock.py" or (node in called and not is_sleep), (
                    f"{path}:{node.lineno} uses {ast.unparse(node)}: take a Clock"
                )


def test_components_import_only_kfp_and_the_standard_library_at_the_top():
    """A component's source is copied alone; and importing them must not load the science."""
    allowed = {"kfp", "components", *sys.stdlib_module_names}
    for path in tracked("components/*.py"):
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.Import):
                names = {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                names = {str(node.module).split(".")[0]}
            else:
                continue
            assert names <= allowed, f"{path}: {names - allowed}"


def test_a_component_is_thin():
    """A body parses, calls and returns: no more than 15 statements that are not imports."""
    for path in tracked("components/*.py"):
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.FunctionDef):
                body = [
                    child
                    for child in ast.walk(node)
                    if isinstance(child, ast.stmt)
                    and not isinstance(child, ast.Import | ast.ImportFrom)
                ]
                assert len(body) - 2 <= 15, path  # without the def and the docstring


def test_the_packages_have_at_most_25_rooms():
    rooms = {path.parent for path in tracked(*(f"{room}/*/__init__.py" for room in CODE))}
    rooms = {room.relative_to(ROOT).parts[:2] for room in rooms} | {("components",)}
    assert 20 < len(rooms) <= 25, sorted(rooms)


def test_a_test_is_named_after_its_module_or_listed():
    """tests/a/test_b.py tests a/b.py, the package a/b, the page a/b.md or tests/a/b.py."""
    assert {path.stem for path in tracked("tests/integration/test_*.py")} == {
        f"test_{name}" for name in INTEGRATION
    }
    for path in tracked("tests/*/test_*.py", "tests/test_*.py"):
        folder, name = path.parent.relative_to(ROOT / "tests"), path.stem.removeprefix("test_")
        homes = [f"{name}.py", f"{name}/__init__.py", f"{name.replace('_', '-')}.md"]
        places = [ROOT / folder / home for home in homes] + [path.with_name(f"{name}.py")]
        is_page = folder.name == "docs" and (ROOT / f"{name.upper()}.md").exists()
        assert folder.name == "integration" or is_page or any(map(Path.exists, places)), (
            f"{path} tests no {folder / name}: name it after the module that it tests, or move it "
            "to tests/integration and list it in INTEGRATION"
        )


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_lines_of_documents_have_at_most_100_characters(page):
    """Tables, addresses and commands are exempt: they cannot be wrapped."""
    in_code = False
    for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), 1):
        in_code ^= line.lstrip().startswith("```")
        if in_code or line.startswith(("|", "    ")) or "://" in line:
            continue
        assert len(line) <= 100, f"{page.name}:{number}"


def public_functions(node: ast.AST) -> Iterator[ast.FunctionDef]:
    """Yields the public functions of a module and the public methods of its public classes."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.ClassDef | ast.FunctionDef) and child.name[0] != "_":
            yield from [child] if isinstance(child, ast.FunctionDef) else public_functions(child)


def test_public_functions_say_what_four_or_more_arguments_are():
    functions = 0
    for path in tracked(*(f"{room}/*.py" for room in CODE)):
        for function in public_functions(ast.parse(path.read_text())):
            arguments = function.args
            every = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
            if len([each for each in every if each.arg not in ("self", "cls")]) < 4:
                continue
            functions += 1
            text = ast.get_docstring(function) or ""
            assert "\nArgs:\n" in text or "arguments are those of" in text, (
                f"{path}:{function.lineno}: {function.name} lacks Args"
            )
    assert functions > 100


def test_every_program_ends_in_one_place():
    """One line and an exit code by `program`, whatever happens; no code of its own beside it."""
    apart = {
        "scripts/set_up.py": "has no package yet",
        "scripts/image_packages.py": "as set_up.py, in the image",
        "scripts/write_published.py": "writes a page, and has no options",
        "scripts/write_settings.py": "writes a page, and has no options",
        "scripts/gpu_check/side_by_side.py": "a process of gpu_check",
        "scripts/containers.py": "code that runs in a container",
        "ieg_core/fitting.py": "a process of fit",
        "ieg_core/sweep/worker.py": "a process of a sweep",
        "ieg_core/tasks/examine.py": "a process of the doctor",
        "ieg_core/training/measure.py": "a process of the estimate",
        "pipelines/variables.py": "its answer is the line that make prints",
    }
    programs = 0
    for path in tracked(*(f"{room}/*.py" for room in CODE)):
        text = path.read_text()
        if path.relative_to(ROOT).as_posix() in apart:
            continue
        assert "raise SystemExit" not in text, f"{path}: raise a UserError or a FailedError"
        assert "argparse.ArgumentParser(" not in text, f"{path}: take a Parser"
        if '__name__ == "__main__"' in text:
            programs += 1
            assert "    sys.exit(main())\n" in text, path
            assert re.search(r'\n@program\("[a-z-]+"\)\ndef main\(', text), path
    assert programs > 15
    assert all((ROOT / path).exists() for path in apart)


@pytest.mark.parametrize("folder", [*CODE, "tests"])
def test_every_file_begins_with_its_license(folder):
    files = tracked(f"{folder}/*.py")
    assert files
    for path in files:
        lines = path.read_text().splitlines()
        assert lines[0] == "# SPDX-License-Identifier: Apache-2.0", path


def test_no_file_tells_of_the_machine_that_it_was_written_on():
    private = re.compile(r"(?<!\w)/(root|work|opt|home/\w+)/\w")
    for path in tracked():
        if path == Path(__file__) or path.suffix in (".png", ".npz"):
            continue
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            assert not private.search(line), f"{path}:{number}: {line}"


def test_words_are_spelled_as_in_america():
    british = re.compile(
        r"(?i)(?:col|fav|behavi|neighb|hon)our|grey|(?:lab|canc|mod|trav)ell(?!a|o)|\bcentr(?:e|ed)"
        r"s?\b|licence|judgement|catalogue|artefact|\btowards\b|\b(?:learn|spel)t\b|\b(?:dist|instal|fulf)il\b|\banew\b|whilst|"
        r"analys(?:e|ed|ing)\b|(?:al|tim|an|gn|ar|er|ant|ard|tr|ot|ag)is(?:e|es|ed|ing|ation)\b"
    )
    # Keys of files, which older files have; and one of Label Studio's.
    keys = re.compile(r"\b(?:transition_realised|labelled|relabelled_loss|was_cancelled)\b")
    others = ("LICENSE", Path(__file__).name)
    for path in tracked():
        if path.name in others or path.suffix in (".png", ".npz", ".lock"):
            continue
        found = british.search(keys.sub("", path.read_text(encoding="utf-8")))
        assert not found, f"{path}: {found[0]}"


@pytest.mark.parametrize("name", ["requirements.lock", "requirements-gpu.lock"])
def test_the_lock_files_hold_names_versions_and_hashes_and_no_address(name):
    text = (ROOT / name).read_text()
    assert "://" not in text
    entries = re.split(r"\n(?=[a-z0-9])", text.partition("\n    make lock\n")[2] or text)
    packages = [entry for entry in entries if re.match(r"[a-z0-9.-]+==", entry)]
    assert len(packages) > 100
    for entry in packages:
        assert "--hash=sha256:" in entry, entry.splitlines()[0]


def test_the_gpu_lock_is_the_other_and_cudas_libraries():
    def versions(name: str) -> set[str]:
        return set(re.findall(r"^[a-z0-9.-]+==\S+", (ROOT / name).read_text(), re.MULTILINE))

    plain, gpu = versions("requirements.lock"), versions("requirements-gpu.lock")
    assert plain < gpu
    assert all(entry.startswith("nvidia-") for entry in gpu - plain)


def test_the_cluster_base_names_no_namespace_and_no_image_tag():
    for path in tracked("k8s/base/*.yaml"):
        for document in yaml.safe_load_all(path.read_text()):
            assert "namespace" not in document
            assert "namespace" not in document.get("metadata", {})
            assert "images" not in document
