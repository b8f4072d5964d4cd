"""Colours are one a class and a branch, and are told apart by eyes without red or green cones."""

from itertools import combinations

import numpy as np
from matplotlib.colors import to_rgb

from abaw_expr.outputs.style import (
    CLASS_COLOURS,
    CLASS_PATTERNS,
    FUSED,
    UNIT_COLOUR,
    VALUE_COLOURS,
    branch_colours,
    branch_dashes,
    styled_series,
    text_colour,
)
from abaw_expr.tasks.task import EXPR

PROTAN = np.array([[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]])
DEUTAN = np.array([[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]])
"""Full protanopia and deuteranopia on linear RGB (Machado, Oliveira and Fernandes, IEEE TVCG 2009)."""


def seen(colour: str, eyes: np.ndarray) -> np.ndarray:
    srgb = np.array(to_rgb(colour))
    linear = np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
    mixed = np.clip(eyes @ linear, 0, 1)
    return np.where(mixed <= 0.0031308, 12.92 * mixed, 1.055 * mixed ** (1 / 2.4) - 0.055)


def test_every_class_and_branch_has_a_colour_of_its_own() -> None:
    assert len(CLASS_COLOURS) == len(set(CLASS_COLOURS)) == EXPR.n_columns
    colours = branch_colours(["audio", "visual", "clip", "other"])
    assert len(set(colours.values())) == len(colours) == 5
    assert {name: colours[name] for name in ("audio", "visual", FUSED)} == branch_colours([])


def test_colours_are_told_apart_without_red_or_green_cones() -> None:
    for colours in (CLASS_COLOURS, VALUE_COLOURS, tuple(branch_colours(["clip", "other"]).values())):
        for eyes in (np.eye(3), PROTAN, DEUTAN):
            distances = [np.linalg.norm(seen(one, eyes) - seen(other, eyes)) for one, other in combinations(colours, 2)]
            assert min(distances) > 0.1, (colours, eyes, min(distances))


def test_what_a_colour_says_a_pattern_or_a_line_style_says_too() -> None:
    assert len(set(CLASS_PATTERNS)) == len(CLASS_COLOURS)
    names = ["audio", "visual", "clip", "other"]
    dashes = branch_dashes(names)
    assert dashes.keys() == branch_colours(names).keys()
    assert len(set(dashes.values())) == len(dashes)
    assert len({(one["colour"], one["dash"]) for one in map(styled_series, range(24))}) == 24
    assert len({one["marker"] for one in map(styled_series, range(8))}) == 8


def test_text_contrasts_with_its_background() -> None:
    """At least 3:1, as WCAG 2 asks of large text."""

    def luminance(colour: str) -> float:
        srgb = np.array(to_rgb(colour))
        linear = np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
        return float(linear @ [0.2126, 0.7152, 0.0722])

    for colour in (*CLASS_COLOURS, *VALUE_COLOURS, UNIT_COLOUR):
        darker, lighter = sorted((luminance(colour), luminance(text_colour(colour))))
        assert (lighter + 0.05) / (darker + 0.05) >= 3, colour
