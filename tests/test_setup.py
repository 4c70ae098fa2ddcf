"""The set-up holds together, and the source keeps to its house rules."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parent.parent
SRC = ROOT / "src"
PACKAGE = "sami_tutorial"
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
EXTRAS: dict[str, list[str]] = PYPROJECT["project"]["optional-dependencies"]

PYTHONS = ("3.11", "3.12", "3.13")
PLATFORMS = {
    "linux": {"sys_platform": "linux", "platform_machine": "x86_64", "os_name": "posix"},
    "macos": {"sys_platform": "darwin", "platform_machine": "arm64", "os_name": "posix"},
}
LOCKS = {
    "lock": ("book", "dev", "bench"),
    "scale": ("scale",),
    "panda": ("panda",),
}


# ---- the three requirement files agree ----


def pins(name: str) -> list[Requirement]:
    """The requirements of one file of requirements/."""
    return [Requirement(line.partition(" --hash")[0]) for line in pin_lines(name)]


def pin_lines(name: str) -> list[str]:
    """One requirement a line, with its hashes if it has any."""
    text = (ROOT / "requirements" / f"{name}.txt").read_text().replace(" \\\n    ", " ")
    return [line for line in text.splitlines() if not line.startswith("#")]


def installed(names: tuple[str, ...], environment: dict[str, str]) -> dict[str, Version]:
    """The version that the named files give each package on one Python and platform."""
    return {
        canonicalize_name(pin.name): Version(str(pin.specifier).removeprefix("=="))
        for name in names
        for pin in pins(name)
        if pin.marker is None or pin.marker.evaluate(environment)
    }


@pytest.fixture(params=PYTHONS)
def python(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=PLATFORMS)
def environment(request: pytest.FixtureRequest, python: str) -> dict[str, str]:
    return {"python_version": python, "python_full_version": f"{python}.9"} | PLATFORMS[
        request.param
    ]


@pytest.mark.parametrize("name", LOCKS)
def test_pins_are_exact(name: str, environment: dict[str, str]) -> None:
    chosen = [pin for pin in pins(name) if not pin.marker or pin.marker.evaluate(environment)]
    for pin in chosen:
        assert re.fullmatch(r"==[^*,]+", str(pin.specifier)), pin
        assert pin.url is None, pin
        # PyTorch's own metadata names the CUDA packages of its build; CPU builds want none.
        assert not re.match(r"(cuda|nvidia|triton)\b", pin.name), pin
    names = [canonicalize_name(pin.name) for pin in chosen]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("name", LOCKS)
def test_pins_satisfy_pyproject(name: str, environment: dict[str, str]) -> None:
    versions = installed(("lock", name), environment)
    wanted = [*PYPROJECT["project"]["dependencies"], *PYPROJECT["build-system"]["requires"]]
    wanted += [line for extra in LOCKS[name] for line in EXTRAS[extra]]
    for requirement in map(Requirement, wanted):
        if requirement.marker is None or requirement.marker.evaluate(environment):
            version = versions.get(canonicalize_name(requirement.name))
            assert version is not None, f"{requirement} is not in requirements/: run `make lock`"
            assert version in requirement.specifier, f"{requirement}: {version} is locked"


def test_every_extra_is_locked() -> None:
    assert {extra for extras in LOCKS.values() for extra in extras} == EXTRAS.keys()


def test_panda_needs_no_compiler(environment: dict[str, str]) -> None:
    """pybullet has wheels for Python 3.11 on Linux, pybullet-arm64 elsewhere; never both."""
    versions = installed(("panda",), environment)
    old = environment["python_version"] == "3.11" and environment["sys_platform"] == "linux"
    assert versions.keys() == {"panda-gym", "pybullet" if old else "pybullet-arm64"}


def test_panda_is_pinned_by_hash() -> None:
    """A name that says arm64 and holds wheels for every processor is trusted file by file."""
    for line in pin_lines("panda"):
        assert re.search(r" --hash=sha256:[0-9a-f]{64}( |$)", line), line


def test_conda_installs_the_lock() -> None:
    conda = yaml.safe_load((ROOT / "environment.yml").read_text())
    *packages, pip = conda["dependencies"]
    # Python and pip alone come from conda: nothing has a version in two places.
    assert [package.partition("=")[0] for package in packages] == ["python", "pip"]
    assert packages[0].partition("=")[2] in PYTHONS
    assert pip["pip"][1:] == ["-r requirements/lock.txt", "--editable ."]
    makefile = (ROOT / "Makefile").read_text()
    index = makefile.split("TORCH_INDEX = $(if $(TORCH),")[1].split("$(TORCH)")[0] + "cpu"
    assert pip["pip"][0] == index


def test_supported_pythons_agree(python: str) -> None:
    project = PYPROJECT["project"]
    assert python in SpecifierSet(project["requires-python"])
    assert f"Programming Language :: Python :: {python}" in project["classifiers"]
    workflow = yaml.safe_load((ROOT / ".github/workflows/test.yml").read_text())
    assert python in workflow["jobs"]["test"]["strategy"]["matrix"]["python"]
    assert python in (ROOT / "scripts/find_python.sh").read_text()
    assert python in (ROOT / "README.md").read_text()


def test_an_unusable_python_is_named_with_the_fix() -> None:
    command = ["sh", str(ROOT / "scripts/find_python.sh")]
    found = subprocess.run([*command, sys.executable], capture_output=True, text=True, check=False)
    assert (found.returncode, found.stdout.strip()) == (0, sys.executable)
    missing = subprocess.run([*command, "/no python"], capture_output=True, text=True, check=False)
    assert missing.returncode == 1
    assert missing.stderr.count("\n") == 1
    assert "/no python is not found" in missing.stderr
    assert "make PYTHON=" in missing.stderr


def test_one_place_names_the_repository() -> None:
    """_config.yml does; what must repeat it (a clone command, say) says the same."""
    repository = yaml.safe_load((ROOT / "_config.yml").read_text())["repository"]
    slug = repository["url"].removeprefix("https://github.com/")
    names = ("README.md", "CONTRIBUTING.md", "CITATION.cff", "pyproject.toml", "environment.yml")
    for name in names:
        text = (ROOT / name).read_text()
        found = re.findall(r"github\.com/([\w.-]+/[\w-]+)", text)
        found += [
            f"{owner}/{repo}" for owner, repo in re.findall(r"([\w-]+)\.github\.io/([\w-]+)", text)
        ]
        assert set(found) <= {slug}, f"{name} names {found}, _config.yml {slug}"
    for path in (ROOT / "book").rglob("*.ipynb"):
        pattern = r"(?:git\+|git clone )[^\s\"']*github\.com/([\w.-]+/[\w-]+)"
        assert set(re.findall(pattern, path.read_text())) <= {slug}, path.name


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md"])
def test_links_between_files_resolve(page: str) -> None:
    text = (ROOT / page).read_text()
    targets = re.findall(r"\]\(([^)#\s]+)", text)
    for target in targets:
        assert target.startswith("https://") or (ROOT / target).exists(), f"{page}: {target}"
    # Paths named in the text: the layout moves, and the words about it must follow.
    for path in re.findall(
        r"`((?:book|data|envs|experiments|requirements|scripts|src|tests)/[^`]*)`", text
    ):
        if not re.search(r"NN|[*<]", path):
            path = f"src/{PACKAGE}/{path}" if path.startswith("envs/") else path
            assert (ROOT / path).exists(), f"{page}: {path}"


def test_the_makefiles_targets_are_as_documented() -> None:
    listed = subprocess.run(["make"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    targets = set(re.findall(r"^  make ([a-z-]+)", listed, flags=re.MULTILINE))
    phony = (ROOT / "Makefile").read_text().split(".PHONY: ")[1].partition("\n")[0].split()
    assert targets == set(phony)
    for page in ("README.md", "CONTRIBUTING.md"):
        named = set(re.findall(r"(?:^|`)make ([a-z-]+)", (ROOT / page).read_text(), re.MULTILINE))
        assert named <= targets, page


# ---- house rules of the source ----

MODULES = {
    ".".join(path.relative_to(SRC).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted(SRC.rglob("*.py"))
}

PICKLES = {"cPickle", "cloudpickle", "dill", "marshal", "pickle", "shelve"}
UNSAFE = {"joblib.dump", "joblib.load", "pandas.read_pickle", "torch.load", "torch.save"}
GLOBAL_RNG = re.compile(
    r"random\..+"
    r"|numpy\.random\.(?!default_rng$|Generator$|SeedSequence$|BitGenerator$|PCG64$|Philox$).+"
    r"|torch\.(manual_seed|seed|random\..+|(get|set)_rng_state|(rand|randn|randint)_like)"
)
# These draw from PyTorch's global generator unless they are given one.
TORCH_DRAWS = re.compile(r"torch\.(rand|randn|randint|randperm|normal|bernoulli|multinomial)")
TENSOR_DRAWS = {"bernoulli_", "exponential_", "normal_", "random_", "uniform_"}


def aliases(tree: ast.Module) -> dict[str, str]:
    """What each imported name stands for, e.g. ``np`` for ``numpy``."""
    names = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                whole = alias.name if alias.asname else alias.name.partition(".")[0]
                names[alias.asname or whole] = whole
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                names[alias.asname or alias.name] = f"{node.module}.{alias.name}"
    return names


def dotted(node: ast.expr, names: dict[str, str]) -> str:
    """The full name of ``np.random.default_rng`` and the like; "" for other expressions."""
    if isinstance(node, ast.Name):
        return names.get(node.id, "")
    if isinstance(node, ast.Attribute) and (owner := dotted(node.value, names)):
        return f"{owner}.{node.attr}"
    return ""


def breaches(source: str) -> Iterator[str]:
    """Uses of pickle and of global random numbers."""
    tree = ast.parse(source)
    names = aliases(tree)
    for name in names.values():
        if name.partition(".")[0] in PICKLES or name in UNSAFE:
            yield f"pickles: {name}"
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute | ast.Name):
            name = dotted(node, names)
            if name in UNSAFE or (isinstance(node, ast.Attribute) and node.attr == "to_pickle"):
                yield f"line {node.lineno} pickles: {ast.unparse(node)}"
            if GLOBAL_RNG.fullmatch(name):
                yield f"line {node.lineno} uses global random numbers: {name}"
        if isinstance(node, ast.Call):
            given = {keyword.arg: keyword.value for keyword in node.keywords}
            allowed = given.get("allow_pickle")
            if allowed is not None and ast.unparse(allowed) != "False":
                yield f"line {node.lineno} pickles: allow_pickle"
            method = node.func.attr if isinstance(node.func, ast.Attribute) else ""
            draws = TORCH_DRAWS.fullmatch(dotted(node.func, names)) or method in TENSOR_DRAWS
            if draws and "generator" not in given:
                yield f"line {node.lineno} draws without a generator: {ast.unparse(node.func)}"


@pytest.mark.parametrize("module", MODULES)
def test_no_pickle_and_no_global_random_numbers(module: str) -> None:
    assert list(breaches(MODULES[module].read_text())) == []


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "from joblib import load",
        "import joblib\njoblib.dump(model, path)",
        "import torch\ntorch.load(path)",
        "from torch import load\nload(path)",
        "import numpy as np\nnp.load(path, allow_pickle=True)",
        "table.to_pickle(path)",
        "import random\nrandom.random()",
        "import numpy as np\nnp.random.seed(0)",
        "from numpy.random import rand\nrand(3)",
        "import torch\ntorch.manual_seed(0)",
        "import torch\ntorch.randn(3)",
        "import torch\ntorch.rand_like(x)",
        "x.normal_()",
    ],
)
def test_a_breach_is_seen(source: str) -> None:
    assert list(breaches(source))


@pytest.mark.parametrize(
    "source",
    [
        "import numpy as np\nrng = np.random.default_rng(0)\nrng.random(3)\nrng.normal(0, 1)",
        "import numpy as np\nnp.load(path, allow_pickle=False)",
        "import torch\ng = torch.Generator().manual_seed(0)\ntorch.randn(3, generator=g)",
        "x.normal_(generator=g)",
        "from joblib import Parallel",
        "from safetensors.torch import load, save\nload(save(tensors))",
    ],
)
def test_the_permitted_ways_are_no_breach(source: str) -> None:
    assert list(breaches(source)) == []


def imports(module: str) -> Iterator[str]:
    """Everything a module imports, by full name; of ``from package import module``, the module."""
    for node in ast.walk(ast.parse(MODULES[module].read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0 and node.module, f"{module}: write relative imports in full"
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                yield inner if inner in MODULES else node.module


def inner_imports(module: str) -> set[str]:
    """The modules of this package that a module imports."""
    return {name for name in imports(module) if name.partition(".")[0] == PACKAGE}


def test_floors_have_no_circles() -> None:
    above: list[str] = []  # the chain of importers of the module being visited
    done: set[str] = set()

    def visit(module: str) -> None:
        assert module not in above, " -> ".join([*above[above.index(module) :], module])
        if module not in done:
            above.append(module)
            for imported in sorted(inner_imports(module)):
                visit(imported)
            done.add(above.pop())

    for module in MODULES:
        visit(module)


@pytest.mark.parametrize("floor", ["envs", "nets"])
def test_the_ground_floor_knows_nothing_above_it(floor: str) -> None:
    inside = f"{PACKAGE}.{floor}"
    for module in MODULES:
        if module == inside or module.startswith(f"{inside}."):
            outside = {name for name in inner_imports(module) if not name.startswith(inside)}
            assert not outside, f"{module} imports {outside}"


def test_what_the_source_imports_is_declared() -> None:
    """A user who installs the library gets what it imports; some needs are extras."""
    lines = [
        *PYPROJECT["project"]["dependencies"],
        *EXTRAS["book"],
        *EXTRAS["panda"],
        *EXTRAS["bench"],
    ]
    declared = {canonicalize_name(Requirement(line).name) for line in lines}
    provided = packages_distributions()
    for module in MODULES:
        for name in {name.partition(".")[0] for name in imports(module)}:
            if name != PACKAGE and name not in sys.stdlib_module_names:
                # What is optional and not installed counts under its own name.
                packages = {canonicalize_name(package) for package in provided.get(name, [name])}
                assert packages & declared, f"{module} imports {name}, which is not declared"
