"""Where the parts of `pfd_iqa_hf` lie that can be loaded without it.

`modeling`, `scoring` and `evaluation` of this package are packages without files of their own:
their `__path__` is the folder of the package of the same name in `pfd_iqa_hf`.  So both runners
execute the same files, and Python's ordinary import finds them, relative imports included, but
`pfd_iqa_hf/__init__.py`, which imports torch, is never run.
"""

from __future__ import annotations

import importlib.util
import sys

__all__ = ["folders_of"]


def folders_of(package: str) -> list[str]:
    """Folders of a package inside `pfd_iqa_hf`, without importing either.

    Args:
        package: Its name there, e.g. `modeling`, which lies elsewhere in an editable install.

    Raises:
        ModuleNotFoundError: pfd-iqa-hf is not installed.
    """
    whole = importlib.util.find_spec("pfd_iqa_hf")
    name = f"pfd_iqa_hf.{package}"
    if whole is not None:
        # `importlib.util.find_spec` of a name with a dot would import its parent.
        for finder in sys.meta_path:
            spec = finder.find_spec(name, whole.submodule_search_locations)
            if spec is not None and spec.submodule_search_locations:
                return list(spec.submodule_search_locations)
    raise ModuleNotFoundError(f"no package {name}: install pfd-iqa-hf again", name=name)
