"""`describe`: the networks, layer by layer."""

import json
from pathlib import Path

from abaw_expr.commands import console
from abaw_expr.commands.arguments import DEFAULT_RECIPE, Json
from abaw_expr.commands.exit_status import OK
from abaw_expr.settings_file import load_settings


def describe(
    json_: Json = False,
    settings: Path = DEFAULT_RECIPE,
) -> int:
    """Shows the networks: layers, output shapes, parameters, multiply-adds of one sample.

    Args:
        json_: Print JSON instead of tables.
        settings: The settings file or recipe whose networks are shown.
    """
    from abaw_expr.models.describe import describe as describe_networks

    found = describe_networks(load_settings(settings))
    if json_:
        print(json.dumps(found, indent=2))
        return OK
    for name, layers in found["layers"].items():
        rows = [
            (x["name"], x["kind"], "x".join(map(str, x["output"])), x["parameters"], x["multiply_adds"]) for x in layers
        ]
        total = ("total", "", "", found["parameters"][name], found["multiply_adds"][name])
        console.table(name.upper(), ("layer", "kind", "output", "parameters", "multiply-adds"), [*rows, total])
    return OK
