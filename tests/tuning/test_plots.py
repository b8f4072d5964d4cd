"""Pictures of a search: what they show is what was counted."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from PIL import Image

from abaw_expr.commands.main import main
from abaw_expr.outputs.decision import Decision
from abaw_expr.outputs.table import write_outputs
from abaw_expr.tasks.metric_classes import macro_f1
from abaw_expr.tasks.task import EXPR
from tests.helpers.branches import BRANCHES
from tests.outputs.test_table import make_outputs, make_video
from tuning import penalties
from tuning.plots import draw_confusion, draw_optimism, draw_search, draw_smoothing, draw_weights, save
from tuning.selection import Search, search
from tuning.space import MEDIANS, NO_SMOOTHING, Candidate, Smoothing, Space
from tuning.sweep_plots import draw_parallel, draw_sweep, importance

OUTPUTS = make_outputs([make_video(name, 80) for name in "abc"])


@pytest.fixture(scope="module")
def found() -> Search:
    return search(OUTPUTS, Space(smoothing=(NO_SMOOTHING, Smoothing(0.5), Smoothing(1.0), MEDIANS[0])))


@pytest.fixture
def chosen(found: Search) -> Candidate:
    return found.space.candidates()[int(found.choose(found.scores))]


def test_weights_are_a_map_of_every_pair(found: Search, chosen: Candidate) -> None:
    figure = Figure()
    draw_weights(figure, found, chosen, BRANCHES)
    cells = np.asarray(figure.axes[0].images[0].get_array())
    assert np.isfinite(cells).all()
    assert np.diag(cells) == pytest.approx(np.full(5, cells[0, 0]))  # 1:1 is 2:2
    m, n = chosen.weights
    assert cells[m - 1, n - 1] == pytest.approx(found.scores.max()) == pytest.approx(cells.max())
    votes = Candidate((2, 5), chosen.smoothing, chosen.tau).decision(OUTPUTS)
    assert cells[1, 4] == pytest.approx(macro_f1(votes.statistics(OUTPUTS.videos()).sum(axis=0)))


def test_the_chosen_weights_are_framed_and_the_edge_is_named(found: Search, chosen: Candidate) -> None:
    for weights, edge in (((2, 3), False), ((5, 2), True)):
        figure = Figure()
        draw_weights(figure, found, replace(chosen, weights=weights), BRANCHES)
        (frame,) = figure.axes[0].patches
        m, n = weights
        assert isinstance(frame, Rectangle)
        assert (frame.get_x() + 0.5, frame.get_y() + 0.5) == (n - 1, m - 1)
        assert ("at the edge" in figure.axes[0].get_title()) == edge


def test_smoothing_is_a_line_a_smoother(found: Search, chosen: Candidate) -> None:
    figure = Figure()
    draw_smoothing(figure, found, chosen)
    means, medians = (np.asarray(line.get_xydata()) for line in figure.axes[0].lines[:2])
    assert (means[:, 0].tolist(), medians[:, 0].tolist()) == ([0.0, 0.5, 1.0], [0.0, 1.0])
    assert means[0, 1] == medians[0, 1]
    assert max(*means[:, 1], *medians[:, 1]) == pytest.approx(found.scores.max())


def test_both_axes_are_labelled_and_no_text_is_cut(found: Search, chosen: Candidate, tmp_path: Path) -> None:
    """Also where names are long: what is saved reaches as far as its texts do."""
    names = ("a-branch-with-a-very-long-name-" * 3, "b$x$")
    draws: list[Callable[[Figure], None]] = [
        lambda figure: draw_weights(figure, found, chosen, names),
        lambda figure: draw_smoothing(figure, found, chosen),
        lambda figure: draw_optimism(figure, found),
        lambda figure: draw_confusion(figure, found, chosen, EXPR),
    ]
    for number, draw in enumerate(draws):
        figure = Figure(figsize=(7, 4.5), layout="constrained")
        draw(figure)
        assert figure.axes[0].get_xlabel(), number
        assert figure.axes[0].get_ylabel(), number
        with Image.open(save(draw, tmp_path / str(number))) as drawn:
            edges = np.asarray(drawn.convert("L"))
        assert min(edges[0].min(), edges[-1].min(), edges[:, 0].min(), edges[:, -1].min()) > 250, number


def test_optimism_is_tuned_beside_nested(found: Search) -> None:
    figure = Figure()
    draw_optimism(figure, found)
    estimate = found.estimate
    widths = [bar.get_width() for bar in figure.axes[0].patches if isinstance(bar, Rectangle)]
    assert widths == pytest.approx([found.scores[0], found.scores.max(), estimate.nested])


def test_confusion_is_that_of_the_choice(found: Search, chosen: Candidate) -> None:
    figure = Figure()
    draw_confusion(figure, found, chosen, EXPR)
    fractions = np.asarray(figure.axes[0].images[0].get_array())
    counts = chosen.decision(OUTPUTS).statistics(OUTPUTS.videos()).sum(axis=0)
    assert fractions == pytest.approx(counts / counts.sum(axis=1, keepdims=True))
    assert [text.get_text() for text in figure.axes[0].texts] == [f"{count:,}" for count in counts.ravel()]


@pytest.mark.slow
def test_pictures_are_svg_and_png_and_the_same_every_time(found: Search, tmp_path: Path) -> None:
    files = draw_search(found, BRANCHES, tmp_path / "one")
    assert {file.stem for file in files} == {"weights", "smoothing", "optimism", "confusion"}
    draw_search(found, BRANCHES, tmp_path / "two")
    for file in (tmp_path / "one").iterdir():
        assert file.read_bytes() == (tmp_path / "two" / file.name).read_bytes()
        assert file.read_bytes().startswith(b"\x89PNG" if file.suffix == ".png" else b"<?xml")


def trials(f1: Callable[[tuple[float, ...]], float | None]) -> penalties.PenaltySearch:
    mus = [*penalties.CONTROLS.values(), *np.random.default_rng(0).random((60, 6)).round(3).tolist()]
    names = [*penalties.CONTROLS, *map(str, range(60))]
    return penalties.PenaltySearch(
        tuple(
            penalties.TrialRow(n, "heads", tuple(mu), f1(tuple(mu)), None, (1, 1), 1.8)
            for n, mu in zip(names, mus, strict=True)
        ),
        None,
    )


@pytest.mark.slow
def test_the_penalty_that_matters_is_the_important_one(tmp_path: Path) -> None:
    found = trials(lambda mu: 0.3 + 0.1 * mu[4] + 0.01 * mu[0])
    fractions = importance(found.points, penalties.AXES)
    assert [*fractions] == [*penalties.MU_NAMES]
    assert sum(fractions.values()) == pytest.approx(1)
    assert max(fractions, key=lambda name: fractions[name]) == penalties.MU_NAMES[4]
    assert fractions[penalties.MU_NAMES[4]] > 0.9
    figure = Figure()
    draw_parallel(figure, found.points, penalties.AXES, penalties.SCORE)
    lines = figure.axes[0].lines
    assert len(lines) == len(found.rows) + 1  # the default once more, dashed
    assert tuple(np.asarray(lines[-2].get_ydata()).tolist()) == found.best.mu
    one, two = (draw_penalties(found, tmp_path / name) for name in ("one", "two"))
    assert [file.name for file in one] == ["importance-heads.png", "parallel-heads.png"]
    assert [file.read_bytes() for file in one] == [file.read_bytes() for file in two]


def draw_penalties(found: penalties.PenaltySearch, folder: Path) -> list[Path]:
    return draw_sweep(found.points, penalties.AXES, penalties.SCORE, folder, "-heads")


@pytest.mark.parametrize("f1", [lambda mu: 0.5, lambda mu: None])
def test_trials_that_do_not_differ_give_no_picture(f1: Callable[[object], float | None], tmp_path: Path) -> None:
    assert draw_penalties(trials(f1), tmp_path) == []


@pytest.mark.slow
def test_tune_draws_what_it_decides(tmp_path: Path) -> None:
    alone = make_outputs([make_video(name, 40, branches=("clip",)) for name in "ab"])
    write_outputs(tmp_path / "clip.parquet", alone)
    words = ["tune", "--outputs", tmp_path / "clip.parquet", "--out", tmp_path / "d.json", "--plots", tmp_path / "p"]
    assert main([str(word) for word in words]) == 0
    assert {file.name for file in (tmp_path / "p").glob("*.png")} == {"smoothing.png", "optimism.png", "confusion.png"}
    assert list(Decision.load(tmp_path / "d.json").branches) == ["clip"]
