"""Resolve pyproject.toml into the exact versions of requirements/ (`make lock`).

One resolution holds for Linux and macOS and for every supported Python, so readers, CI, conda and
Binder run the same code. The versions already locked are kept where they still fit; `--upgrade`
takes the newest instead.

- lock.txt: the library with the extras book, dev and bench; what `make` installs.
- panda.txt: the extra panda; `make panda`. Each file has its hash: a package whose name says arm64
  brings wheels for every processor.
- scale.txt: what the extra scale adds to lock.txt; `make scale`.
- otter.txt: the library with otter.in, in an environment of its own; `make otter`.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "requirements"
LOWEST_PYTHON = "3.11"

# torch names the CUDA packages of its own build, exactly; CPU builds of the same version need none.
CUDA_PACKAGES = re.compile(r"(cuda|nvidia|triton)\b")
# How pip continues a requirement on a line of its own.
NEXT_LINE = " \\\n    "
# Wheels that only other platforms ask for.
OTHER_PLATFORMS = re.compile(r"; (sys_platform == 'win32'|os_name == 'nt')$")


def resolve(
    extras: list[str],
    previous: Path,
    upgrade: bool,
    *constraints: Path,
    beside: Path | None = None,
    hashes: bool = False,
) -> list[str]:
    """The pins, one requirement a line, of the library with some extras and a file beside it."""
    command = [sys.executable, "-m", "uv", "pip", "compile", "pyproject.toml", "--quiet"]
    command += [] if beside is None else [str(beside)]
    command += ["--universal", "--python-version", LOWEST_PYTHON, "--fork-strategy", "fewest"]
    command += ["--no-header", "--no-annotate", "--output-file", str(previous)]
    for extra in extras:
        command += ["--extra", extra]
    for constraint in constraints:
        command += ["--constraint", str(constraint)]
    if upgrade:
        command += ["--upgrade"]
    if hashes:
        command += ["--generate-hashes"]
    subprocess.run(command, cwd=ROOT, check=True)
    pins = previous.read_text().replace(NEXT_LINE, " ").splitlines()
    return [
        pin
        for pin in pins
        if not CUDA_PACKAGES.match(pin) and not OTHER_PLATFORMS.search(pin.partition(" --hash")[0])
    ]


def without_marker(pin: str) -> str:
    """``"name==1.0 ; marker --hash=..."`` without marker and hashes."""
    return re.split(r" ;| --hash", pin)[0]


def anywhere(pin: str) -> str:
    """``"name==1.0 ; marker --hash=..."`` without the marker."""
    return " --hash".join([without_marker(pin), *pin.split(" --hash")[1:]])


def write(path: Path, use: str, pins: list[str]) -> None:
    """Write one requirements file."""
    lines = [pin.replace(" --hash", f"{NEXT_LINE}--hash") for pin in pins]
    path.write_text("\n".join([f"# Written by `make lock`; {use}.", *lines]) + "\n")
    print(f"{path.relative_to(ROOT)}: {len(pins)} packages")


def main() -> None:
    """Write the four files."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--upgrade", action="store_true", help="take the newest versions")
    upgrade: bool = parser.parse_args().upgrade

    lock, panda, scale, otter = (
        FOLDER / f"{name}.txt" for name in ("lock", "panda", "scale", "otter")
    )
    pins = resolve(["book", "dev", "bench"], lock, upgrade)
    write(lock, "exact versions for `make`", pins)

    locked = {without_marker(pin) for pin in pins}
    pins = resolve(["scale"], scale, upgrade, lock)
    pins = [pin for pin in pins if without_marker(pin) not in locked]
    write(scale, "`make scale` adds it to lock.txt", pins)

    pins = resolve(["panda"], panda, upgrade, lock, hashes=True)
    pins = [pin for pin in pins if without_marker(pin) not in locked]
    # Where the extra cannot name panda-gym (see pyproject.toml), its wheel alone is still right.
    pins = [anywhere(pin) if pin.startswith("panda-gym") else pin for pin in pins]
    write(panda, "`make panda` adds it to lock.txt, without dependencies", pins)

    pins = resolve([], otter, upgrade, lock, beside=FOLDER / "otter.in")
    write(otter, "exact versions for `make otter`", pins)


if __name__ == "__main__":
    main()
