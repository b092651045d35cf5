"""Installing: pyproject.toml, conda and Binder agree, and `make lab` serves safely."""

import json
import os
import re
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import forks
import psutil
import pytest
import yaml

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[1]
OWNER = re.compile(r"(?:github\.com|/gh)/([\w.-]+)/lookbehind\b|//([\w.-]+)\.github\.io")


def test_environment_yml_and_pyproject_agree_and_any_build_of_torch_satisfies_them() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    required = {*project["dependencies"], *project["optional-dependencies"]["notebooks"]}
    environment = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
    python, *named, pip, own = environment["dependencies"]
    assert environment["channels"] == ["conda-forge"]
    assert set(named) == {re.sub(r"^torch\b", "pytorch", item) for item in required}
    assert re.fullmatch(r"python=3\.\d+", python)
    assert [pip, own] == ["pip", {"pip": ["-e ."]}]  # installs the package
    torch = [item for item in required if item.startswith("torch")]
    assert len(torch) == 2
    assert all(re.fullmatch(r"torch(vision)?>=[\d.]+", item) for item in torch)


def test_the_owner_is_named_as_in_pyproject() -> None:
    paths = [ROOT / "pyproject.toml", ROOT / "README.md", *ROOT.glob("notebooks/*.ipynb")]
    paths.append(ROOT / "notebooks/teaching/guide.md")
    found = [OWNER.findall(path.read_text(encoding="utf-8")) for path in paths]
    names = [{left or right for left, right in one} for one in found]
    assert len(names[0]) == 1 and all(name == names[0] for name in names)


def test_binder_reads_the_same_environment_and_stops_at_the_first_error() -> None:
    """conda and mamba resolve "-e ." beside the file they were given: in binder/, link or not."""
    assert os.readlink(ROOT / "binder" / "environment.yml") == "../environment.yml"
    for name in ("pyproject.toml", "lookbehind"):
        assert (ROOT / "binder" / name).resolve() == ROOT / name
    script = ROOT / "binder" / "postBuild"
    assert os.access(script, os.X_OK)
    assert "set -euo pipefail" in script.read_text().splitlines()


def test_repo2docker_takes_the_environment() -> None:
    command = [sys.executable, "-m", "repo2docker", "--no-build", "--no-run", "--debug"]
    command += ["--user-id=1000", "--user-name=jovyan", str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    dockerfile = done.stdout + done.stderr
    assert 'env update -p ${NB_PYTHON_PREFIX} --file "binder/environment.yml"' in dockerfile
    assert "./binder/postBuild" in dockerfile


@pytest.fixture
def make_lab(tmp_path: Path):
    """`make lab` on a free port with a fresh home; yields port and log, and ends it."""
    lab = pytest.importorskip("lab", exc_type=ImportError)
    port, log = forks.free_port(), tmp_path / "log"
    environment = lab.fresh_environment(tmp_path)
    for name in ("BROWSER", "DISPLAY", "WAYLAND_DISPLAY", "MAKEFLAGS", "MAKELEVEL"):
        environment.pop(name, None)
    with log.open("w") as output:
        streams = {"stdout": output, "stderr": output, "start_new_session": True}
        command = ["make", "lab", f"PORT={port}"]
        process = subprocess.Popen(command, cwd=ROOT, env=environment, **streams)
    try:
        lab.wait_until_up(f"http://127.0.0.1:{port}/api", process, log)
        yield port, log
    finally:
        lab.stop_group(process)


@pytest.mark.skipif(not (ROOT / ".venv/.installed").exists(), reason="no .venv made by make")
def test_make_lab_serves_this_machine_only_and_wants_the_token(make_lab) -> None:
    port, log = make_lab
    with pytest.raises(urllib.error.HTTPError, match="403"):
        urllib.request.urlopen(f"http://127.0.0.1:{port}/api/contents")
    text, base = log.read_text(), f"http://127.0.0.1:{port}"
    address = re.search(rf"{base}/lab/tree/00-start-here.ipynb(\?token=\w+)", text)
    assert address, text
    assert urllib.request.urlopen(f"{base}/api/contents{address[1]}").status == 200
    setting = "lab/api/settings/@jupyterlab/apputils-extension:notification"
    with urllib.request.urlopen(f"{base}/{setting}{address[1]}") as answer:
        asked = json.load(answer)["schema"]["properties"]["fetchNews"]["default"]
    assert asked == "false"  # or "none": the reader's first page would be covered by a question
    found = psutil.net_connections(kind="inet")  # asked process by process, one may end
    hosts = {c.laddr.ip for c in found if (c.status, c.laddr.port) == (psutil.CONN_LISTEN, port)}
    assert hosts == {"127.0.0.1"}
