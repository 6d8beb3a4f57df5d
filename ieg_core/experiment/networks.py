# SPDX-License-Identifier: Apache-2.0
"""The names of the networks, readable without importing a deep-learning library.

A name gives the family and the size:

* `resnet{D}`, D = 9n + 2: pre-activation bottleneck ResNet (`resnet11`, `resnet29`);
* `resnet{D}`, D = 6n + 2 and not 9n + 2: post-activation ResNet of basic blocks (`resnet32`);
* `preact8`: pre-activation basic blocks, one per stage, for 8x8 images;
* `wrn{D}-{K}`, D = 6n + 4: Wide ResNet of depth D and widening factor K (`wrn28-10`);
* `resnet29-released`, `resnet32-released`, `wrn28-10-released`, and other sizes: these families as
  the papers' authors released them, where that differs (`ieg_core.models`);
* `efficientnet-lite0`, `efficientnet-lite2`: pre-trained networks whose features a head is trained
  on;
* `resnet18`, `resnet34`, `resnet50`, `resnet101`, `resnet152`: the ImageNet networks, of which
  `resnet50-released` and the deeper ones also as the authors released them;
* `package.module:function`: a network of the user's, from a function that builds it;
* `path/to/network.keras`: a network of the user's, from a file that `keras.Model.save` wrote.

A depth that fits both ResNet rules (20, 38, 56, ...) is the bottleneck network. The depths of the
ImageNet networks (18, 34, 50, 101, 152) are reserved for those: `resnet50` never means the small
network of depth 6*8 + 2.
"""

import ast
import difflib
import hashlib
import importlib.util
import os
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ieg_core.errors import UserError
from ieg_core.experiment import feature_sources

EXAMPLES = (
    "preact8",
    "resnet11",
    "resnet18",
    "resnet29",
    "resnet29-released",
    "resnet32",
    "resnet44",
    "resnet50",
    "resnet50-released",
    "wrn16-8",
    "wrn28-10",
    "wrn28-10-released",
    "wrn40-2",
)
_RULE = (
    "preact8, resnet{9n+2} (bottleneck), resnet{6n+2} (basic blocks), wrn{6n+4}-{width}, one of "
    "ImageNet's, all but preact8, resnet18 and resnet34 also with -released, your own "
    "package.module:function, or a file ending in .keras"
)
_IMAGENET_DEPTHS = frozenset({18, 34, 50, 101, 152})
# The deepest published network is resnet1202; a greater depth is a typo.
_MAX_DEPTH = 1202
_MAX_WIDTH = 64
OURS = "ieg_core"


@dataclass(frozen=True)
class Network:
    """A parsed network name.

    Attributes:
      name: The name itself.
      family: "bottleneck", "basic", "preact8", "wide" or "imagenet"; "features" for a
        pre-trained one; "function" or "file" for a network of the user's.
      blocks_per_stage: Number of residual blocks in each of the three stages; for "imagenet" the
        depth; 0 for a pre-trained network or one of the user's.
      width: Factor on the base number of filters; 1 for every family but "wide".
      released: Whether it is the form that the papers' authors released.
    """

    name: str
    family: str
    blocks_per_stage: int
    width: int = 1
    released: bool = False


RELEASED = "-released"
STARTS = (".keras", ".safetensors")
"""Endings of the files of initial values."""


def standard_form(name: str) -> str:
    """Returns the name without -released: of the form that the papers describe."""
    return name.removesuffix(RELEASED)


def parse(name: str) -> Network:
    """Reads a network's name.

    Args:
      name: For example "resnet29" or "wrn28-10".

    Returns:
      Family and size.

    Raises:
      UserError: When no network has that name; the message lists the nearest names and the rule.
    """
    if name == "preact8":
        return Network(name, "preact8", 1)
    if name in feature_sources.BUILT_IN:
        return Network(name, "features", 0)
    plain, released = standard_form(name), name.endswith(RELEASED)
    if match := re.fullmatch(r"resnet([1-9][0-9]{0,3})", plain):
        depth = int(match[1])
        if depth in _IMAGENET_DEPTHS and (depth >= 50 or not released):
            return Network(name, "imagenet", depth, released=released)
        if 8 <= depth <= _MAX_DEPTH and depth not in _IMAGENET_DEPTHS:
            if depth % 9 == 2:
                return Network(name, "bottleneck", depth // 9, released=released)
            if depth % 6 == 2:
                return Network(name, "basic", depth // 6, released=released)
    if match := re.fullmatch(r"wrn([1-9][0-9]{0,3})-([1-9][0-9]?)", plain):
        depth, width = int(match[1]), int(match[2])
        if 10 <= depth <= _MAX_DEPTH and depth % 6 == 4 and width <= _MAX_WIDTH:
            return Network(name, "wide", depth // 6, width, released)
    if re.fullmatch(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*", name):
        return Network(name, "function", 0)
    if name.endswith(".keras"):
        return Network(name, "file", 0)
    near = difflib.get_close_matches(name, (*EXAMPLES, *feature_sources.BUILT_IN), n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(map(repr, near))}? " if near else ""
    raise UserError(f"unknown network {name!r}: {hint}expected {_RULE}, e.g. {', '.join(EXAMPLES)}")


def is_custom(name: str) -> bool:
    """Returns whether a network is the user's, from a function or a file."""
    return parse(name).family in ("function", "file")


def source_digest(name: str, pretrained: str = "") -> str:
    """Returns a digest of the sources of a network of the user's: its file, or its modules.

    The modules are the function's own and all that it imports, directly or indirectly, from its own
    package or from the folder that contains it. Installed packages are excluded, and so is what is
    found at run time: files that a function reads, `importlib.import_module`.

    The network is not built, and no module is imported except the packages above the function's.

    Args:
      name: A network's name.
      pretrained: The file of a built-in network's initial values; "" if they are drawn.

    Returns:
      SHA-256, hexadecimal, for a built-in network that of its initial values; "" where they are
      drawn, since the code digest covers the rest.

    Raises:
      UserError: When the module or file does not exist, or a module is not valid Python.
    """
    if pretrained:
        return hashlib.sha256(_read(name, Path(pretrained), "initial values")).hexdigest()
    if not is_custom(name):
        return ""
    if parse(name).family == "file":
        return hashlib.sha256(_read(name, Path(name), "a file that model.save wrote")).hexdigest()
    digest = hashlib.sha256()
    for module, source in sorted(_sources(name).items()):
        digest.update(f"{module} {len(source)}\0".encode())
        digest.update(source)
    return digest.hexdigest()


def _sources(name: str) -> dict[str, bytes]:
    """Returns the sources, by module name, of a function's module and its local imports."""
    module, file = name.partition(":")[0], module_file(name)
    depth = module.count(".") + (file.name == "__init__.py")
    root = file.parents[depth]
    # Neighbors of an installed package are unrelated; the code digest covers ieg_core.
    is_installed = root.name in ("site-packages", "dist-packages")
    sources: dict[str, bytes] = {}
    waiting = [(module, file), *_files(root, module)]
    while waiting:
        module, file = waiting.pop()
        if module in sources:
            continue
        sources[module] = _read(name, file, "a Python module")
        if file.suffix != ".py":
            continue
        try:
            tree = ast.parse(sources[module])
        except (SyntaxError, ValueError) as error:
            raise UserError(
                f"cannot build the network {name!r}: {file} is not valid Python ({error}); fix it"
            ) from error
        package = module if file.name == "__init__.py" else module.rpartition(".")[0]
        for imported in _imported(tree, package):
            top = imported.partition(".")[0]
            if top != OURS and (not is_installed or top == name.partition(":")[0].split(".")[0]):
                waiting += _files(root, imported)
    return sources


def _imported(tree: ast.AST, package: str) -> Iterator[str]:
    """Yields the full names that a module imports: modules, or names defined in modules."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: -(node.level - 1) or None] if node.level else []
            start = ".".join([*filter(None, above), *filter(None, [node.module])])
            yield from (f"{start}.{alias.name}".lstrip(".") for alias in node.names)


def _files(root: Path, imported: str) -> Iterator[tuple[str, Path]]:
    """Yields the modules in a folder that run when a name is imported: itself and its packages."""
    parts = imported.split(".")
    for length in range(1, len(parts) + 1):
        place = root.joinpath(*parts[:length])
        for file in (place / "__init__.py", place.with_name(f"{place.name}.py")):
            if file.is_file():
                yield ".".join(parts[:length]), file
                break


def _read(name: str, path: Path, expected: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(
            f"cannot read the network {name!r} ({path}: {error.strerror}): expected {expected}"
        ) from error


def module_file(name: str) -> Path:
    """Returns the file of the module in `package.module:function`, found from the current folder.

    Raises:
      UserError: When the module is not found, or a package above it cannot be imported.
    """
    module = name.partition(":")[0]
    add_current_folder()
    try:
        spec = importlib.util.find_spec(module)
    except (Exception, SystemExit) as error:  # the packages above it are imported
        raise UserError(
            f"no module {module!r} for the network {name!r} ({type(error).__name__}: {error}): "
            "expected that the packages above it can be imported; fix them"
        ) from error
    if spec is None or not spec.origin or not os.path.isfile(spec.origin):
        raise UserError(
            f"no module {module!r} for the network {name!r}: expected a file such as "
            f"{module.replace('.', '/')}.py in the current folder, or an installed package"
        )
    return Path(spec.origin)


def add_current_folder() -> None:
    """Makes modules in the current folder importable, as `python -m` does."""
    if "" not in sys.path and os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())


def validate(name: str) -> None:
    """Raises UserError with the nearest names when no network can have this name."""
    parse(name)
