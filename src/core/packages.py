"""Find files that installed Python packages carry: ``pkg://package/path``."""

import re
from importlib.util import find_spec
from pathlib import Path

from src.core.errors import InputError


def package_path(url: str) -> str:
    """Turn each ``pkg://package/path`` in ``url`` into a path, without importing the package.

    Raises:
        InputError: the package is not installed.
    """

    def locate(match: re.Match[str]) -> str:
        spec = find_spec(match["package"]) if match["package"].isidentifier() else None
        if spec is None or not spec.submodule_search_locations:
            raise InputError(
                f"{url} is in the Python package {match['package']!r}, which isn't installed: "
                "install it, or correct the name to the one that Python imports."
            )
        return str(Path(spec.submodule_search_locations[0], match["path"]))

    return re.sub(r"pkg://(?P<package>[^/:]+)/?(?P<path>[^:]*)", locate, url)
