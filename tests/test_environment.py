"""Installing: pyproject.toml, conda, Binder agree; a wheel is whole; `make lab` serves safely."""

import json
import os
import re
import subprocess
import sys
import sysconfig
import urllib.error
import urllib.request
import venv
from pathlib import Path

import forks
import psutil
import pytest
import yaml

import lookbehind

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[1]
OWNER = re.compile(r"(?:github\.com|/gh)/([\w.-]+)/lookbehind\b|//([\w.-]+)\.github\.io")
IMPORTED = """
import sys, lookbehind, lookbehind.train, lookbehind.measure, lookbehind.study, lookbehind.toy
from importlib import metadata
from pathlib import Path
assert Path(lookbehind.__file__).is_relative_to(sys.prefix), lookbehind.__file__
assert metadata.version("lookbehind") == lookbehind.__version__
print(*sorted(p.suffix for p in Path(lookbehind.__file__).parent.rglob("*.*")))
"""


def run(*command: object) -> str:
    """What it says, in the checkout."""
    options = {"cwd": ROOT, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    done = subprocess.run([*map(str, command)], **options)
    assert done.returncode == 0, done.stdout
    return done.stdout


def test_environment_yml_and_pyproject_agree_and_any_build_of_torch_satisfies_them() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    required = {*project["dependencies"], *project["optional-dependencies"]["notebooks"]}
    environment = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
    python, *named, pip, own = environment["dependencies"]
    assert environment["channels"] == ["conda-forge"]
    assert set(named) == {re.sub(r"^torch\b", "pytorch", item) for item in required}
    assert re.fullmatch(r"python=3\.\d+", python)
    assert [pip, own] == ["pip", {"pip": ["-e ."]}]  # installs the package
    torch = [re.fullmatch(r"torch(vision)?>=[\d.]+", s) for s in required if s.startswith("torch")]
    assert len(torch) == 2 and all(torch)


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
    dockerfile = run(*command, "--user-id=1000", "--user-name=jovyan", ROOT)
    assert 'env update -p ${NB_PYTHON_PREFIX} --file "binder/environment.yml"' in dockerfile
    assert "./binder/postBuild" in dockerfile


def test_a_wheel_is_built_and_imported_in_a_clean_environment(tmp_path: Path) -> None:
    """Torch and the like come from here by path: what is editable here stays unseen there."""
    venv.create(tmp_path / "clean", with_pip=False)
    python, source = tmp_path / "clean" / "bin" / "python", tmp_path / "source"
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    run("git", "clone", "--quiet", ROOT, source)
    run(*pip, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", tmp_path, source)
    (wheel,) = tmp_path.glob("lookbehind-*.whl")
    run(*pip, "--python", python, "install", "--no-deps", "--no-index", wheel)
    site = run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip()
    Path(site, "libraries.pth").write_text(sysconfig.get_path("purelib"))
    kinds = {".py", ".js", ".css", ".html", ".typed"}
    assert kinds <= {*run(python, "-I", "-c", IMPORTED).split()}


def test_mypy_finds_nothing() -> None:
    assert run(sys.executable, "-m", "mypy", "--no-error-summary") == ""


def test_one_version_is_told_everywhere() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == lookbehind.__version__


@pytest.fixture
def make_lab(tmp_path: Path):
    """`make lab` on a free port with a fresh home; yields port and log, and ends it."""
    lab = pytest.importorskip("lab", exc_type=ImportError)
    port, log = forks.free_port(), tmp_path / "log"
    environment = lab.fresh_environment(tmp_path)
    for name in ("BROWSER", "DISPLAY", "WAYLAND_DISPLAY", "MAKEFLAGS", "MAKELEVEL"):
        environment.pop(name, None)
    with log.open("w") as output:
        options = {"stdout": output, "stderr": output, "start_new_session": True, "cwd": ROOT}
        process = subprocess.Popen(["make", "lab", f"PORT={port}"], env=environment, **options)
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
