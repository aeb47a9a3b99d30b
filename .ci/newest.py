"""The core tests on what pip takes today, in a fresh environment without our constraints. Started by `make test-newest`.

With `--beyond-caps` the upper limits of pyproject.toml are left out too. Then a failure says only that a cap cannot be
raised yet, and where nothing newer than the caps exists there is nothing to run.
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
EXTRAS = ("showo2", "train", "test")


def main() -> int:
    """Installs, runs the tests named on the command line, and says how it went."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tests", nargs="+")
    parser.add_argument("--venv", type=Path, required=True, help="made anew, and removed in the end")
    parser.add_argument("--workers", default="2")
    parser.add_argument("--beyond-caps", action="store_true")
    options = parser.parse_args()
    shutil.rmtree(options.venv, ignore_errors=True)
    subprocess.run([sys.executable, "-m", "venv", options.venv], check=True)
    try:
        return run(options)
    finally:
        shutil.rmtree(options.venv, ignore_errors=True)


def run(options: argparse.Namespace) -> int:
    """Installs and tests in the new environment."""
    python = options.venv / "bin" / "python"
    pip = [python, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    wanted = requirements()
    newer: list[str] = []
    if options.beyond_caps:
        newer = [name for name, line in wanted.items() if "<" in line and newest(pip, name) != newest(pip, line)]
        if not newer:
            print("Nothing newer than the caps in pyproject.toml exists.")
            return 0
        subprocess.run([*pip, "install", "--no-deps", "--editable", REPOSITORY], check=True)
        subprocess.run([*pip, "install", *(without_cap(line) for line in wanted.values())], check=True)
    else:
        subprocess.run([*pip, "install", "--editable", f"{REPOSITORY}[{','.join(EXTRAS)}]"], check=True)
    told = ("torch", "transformers", "diffusers", "pillow", "peft")
    script = "import importlib.metadata, sys; print(*map(importlib.metadata.version, sys.argv[1:]))"
    asked = sorted({*told, *newer})
    found = subprocess.run([python, "-c", script, *asked], check=True, capture_output=True, text=True).stdout.split()
    have = dict(zip(asked, found, strict=True))
    print("Testing with", ", ".join(f"{name} {have[name]}" for name in told), flush=True)
    command = [python, "-m", "pytest", "--numprocesses", options.workers, "--dist", "loadfile", *options.tests]
    if options.beyond_caps:  # the warning that the version is untested is what is expected here
        command += ["-W", "ignore:wallaroo-hf was tested with:UserWarning"]
    status = subprocess.run(command, cwd=REPOSITORY, env={**os.environ, "OMP_NUM_THREADS": "1"}).returncode
    if options.beyond_caps:
        beyond = ", ".join(f"{name} {have[name]}" for name in newer)
        verdict = "pass: the cap can be raised" if status == 0 else "fail: the cap cannot be raised yet"
        print(f"{beyond} {verdict}.")
    return status


def requirements() -> dict[str, str]:
    """What the core and its tests need, by name, as pyproject.toml says it."""
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    lines = [*project["dependencies"], *(line for extra in EXTRAS for line in project["optional-dependencies"][extra])]
    return {re.split(r"[\[<>=!~ ]", line, maxsplit=1)[0]: line for line in lines}


def without_cap(line: str) -> str:
    """A requirement without its upper limit."""
    return re.sub(r",?<[^,]*", "", line)


def newest(pip: list[object], requirement: str) -> str:
    """The version that pip would take."""
    command = [*pip, "install", "--dry-run", "--no-deps", "--ignore-installed", "--report", "-", requirement]
    report = subprocess.run(command, check=True, capture_output=True, text=True).stdout  # type: ignore[call-overload]
    return json.loads(report)["install"][0]["metadata"]["version"]


if __name__ == "__main__":
    sys.exit(main())
