"""The package as others get it: typed, a wheel, installed where this checkout is not."""

import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import yaml

import lookbehind

ROOT = Path(__file__).parents[1]
IMPORTED = """
import sys, lookbehind, lookbehind.train, lookbehind.measure, lookbehind.study, lookbehind.toy
from importlib import metadata
from pathlib import Path
assert Path(lookbehind.__file__).is_relative_to(sys.prefix), lookbehind.__file__
assert metadata.version("lookbehind") == lookbehind.__version__
print(*sorted(p.suffix for p in Path(lookbehind.__file__).parent.rglob("*.*")))
"""


def run(*command: object, at: Path | None = None) -> str:
    done = subprocess.run([*map(str, command)], cwd=at, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


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
    assert run(sys.executable, "-m", "mypy", "--no-error-summary", at=ROOT) == ""


def test_one_version_is_told_everywhere() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == lookbehind.__version__
