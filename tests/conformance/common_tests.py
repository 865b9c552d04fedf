"""Fetch the test-suite that every model in transformers must pass, of the installed version.

It ships in transformers' source distribution and not in its wheel, so pip downloads that once into
pytest's cache; three of its modules import files that the distribution leaves out, stubs stand in.
"""

import importlib
import importlib.metadata
import importlib.util
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from types import ModuleType

import pytest

__all__ = ["import_common_tests", "use_cache"]

# The suite has to be importable as a package of its own, beside this project's tests.
_PACKAGE = "transformers_common_tests"
_STUBS = {
    "__init__.py": "",
    "exporters/__init__.py": "",
    "exporters/test_export.py": "class ExportTesterMixin:\n    pass\n",
    "generation/__init__.py": "",
    "generation/test_utils.py": "class GenerationTesterMixin:\n    pass\n",
    "utils/__init__.py": "",
    "utils/test_configuration_utils.py": "config_common_kwargs = {}\n",
    "../utils/fetch_hub_objects_for_ci.py": "def url_to_local_path(url):\n    return url\n",
}

_cache_folder: Path | None = None


def use_cache(folder: Path) -> None:
    """Name the folder that keeps the download between runs."""
    global _cache_folder
    _cache_folder = folder


def import_common_tests(module: str) -> ModuleType:
    """Import one module of the suite, such as `test_modeling_common`.

    The calling test module is skipped where the package index cannot be reached.
    """
    if importlib.util.find_spec("parameterized") is None:
        pytest.skip("transformers' tests need parameterized", allow_module_level=True)
    version = importlib.metadata.version("transformers")
    cache = _cache_folder or Path(tempfile.gettempdir()) / "pfd-iqa-conformance"
    root = cache / f"suite-{version}"
    if not root.is_dir():
        try:
            _download(version, root)
        except (subprocess.SubprocessError, OSError, tarfile.TarError) as error:
            pytest.skip(f"transformers' tests cannot be fetched: {error}", allow_module_level=True)
    if str(root) not in sys.path:
        sys.path.append(str(root))
    return importlib.import_module(f"{_PACKAGE}.{module}")


def _download(version: str, root: Path) -> None:
    root.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=root.parent) as folder:
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
        pip += ["--no-binary", "transformers", "--dest", folder, f"transformers=={version}"]
        subprocess.run(pip, check=True, timeout=300, capture_output=True)
        [archive] = Path(folder).glob("*.tar.gz")
        suite = Path(folder) / "suite"
        package = suite / _PACKAGE
        package.mkdir(parents=True)
        with tarfile.open(archive) as tar:
            for member in tar.getmembers():
                path = Path(member.name)
                if len(path.parts) == 3 and path.parts[1] == "tests" and path.suffix == ".py":
                    source = tar.extractfile(member)
                    if source is not None:
                        (package / path.name).write_bytes(source.read())
        for name, text in _STUBS.items():
            path = package / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        # Whole or not at all: other processes fetch it at the same time, and one comes first.
        try:
            suite.rename(root)
        except OSError:
            if not root.is_dir():
                raise
