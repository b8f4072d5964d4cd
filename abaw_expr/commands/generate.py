"""The commands of a generator of faces.

Heavy modules are imported inside the commands, so that `--help` answers at once.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from abaw_expr.commands import console
from abaw_expr.commands.arguments import require, require_counts
from abaw_expr.generate.settings import GeneratorSettings

if TYPE_CHECKING:
    from abaw_expr.generate.score import GeneratorScore

Stores = Annotated[tuple[Path, ...], tyro.conf.arg(metavar="STORE [STORE ...]")]
Options = Annotated[GeneratorSettings, tyro.conf.arg(name="")]


def train(store: Stores, out: Path, settings: Options = GeneratorSettings()) -> int:  # noqa: B008 (frozen)
    """Trains a generator of faces with an expression (a class-conditional GAN).

    It learns from the annotated crops of the training videos, each class as often as the others. OUT/samples has a
    sheet of samples, a row a class, every --sheet-every steps: look at them. Run it again to continue, and with more
    --steps to train longer.

        abaw-expr generate train ckplus afew --out generator

    Args:
        store: Prepared stores.
        out: The folder of the generator.
    """
    from abaw_expr.data.store.store import open_store
    from abaw_expr.generate.training import train_generator
    from abaw_expr.tasks.task import EXPR

    stores = [open_store(path, EXPR) for path in store]
    with console.progress("Training steps") as on_progress:
        provenance = train_generator(stores, out, settings, on_progress)
    console.note(f"Generator {out}, learned from {len(provenance.recordings)} recordings.")
    console.note(
        f"Sheets of samples: {out / 'samples'}. Clips of it: abaw-expr generate sample --model {out} --out DIR"
    )
    return 0


def sample(model: Path, out: Path, clips: int = 200, seconds: float = 2.0, seed: int = 0) -> int:
    """Generates clips of faces that turn from Neutral to a class, as a data set.

    Every identity shows every class. The clips have no audio, so they teach the visual branch only. Each image says in
    its comment that it is generated, and the store will know what the generator learned from: no run can train on
    clips that were learned from what it holds out.

        abaw-expr generate sample --model generator --out generated --clips 400
        abaw-expr prepare generated/clips.csv generated-store \\
            --kind clips --images-are-faces --val-fraction 0
        abaw-expr train store generated-store=0.2 --run runs/mixed

    Args:
        model: The folder of a generator.
        out: A new folder for the data set: clips, clips.csv and provenance.json.
        clips: How many clips.
        seconds: Length of a clip.
        seed: Seed of identities and motion; another one gives other people.
    """
    from abaw_expr.generate.clips import CSV, write_clips
    from abaw_expr.generate.sampling import load_sampler

    require_counts(1, clips=clips)
    require_counts(0, seed=seed)
    require(0.1 <= seconds <= 60, "seconds", seconds, "0.1 to 60")
    sampler = load_sampler(model)
    with console.progress("Generating clips") as on_progress:
        write_clips(sampler, out, clips, seconds, seed, on_progress)
    console.note(f"{clips} clips in {out}. Make them a store:")
    where = f"abaw-expr prepare {out / CSV} STORE --kind clips --images-are-faces --val-fraction 0"
    console.OUT.print(where, soft_wrap=True)
    return 0


def score(
    model: Path,
    store: Stores,
    encoder: str,
    weights: str = "",
    run: Path | None = None,
    out: Path | None = None,
    faces: int = 200,
    split: Literal["val", "test"] = "val",
    seed: int = 0,
) -> int:
    """Measures generated faces against held-out real ones, in the features of an encoder.

    It prints how far generated faces, training faces, the mean face of each class and noise are from held-out faces;
    how often a classifier fitted on real training faces names the class of generated and of held-out ones; and how
    near samples come to the training faces. score.json has all numbers, neighbours.png the training faces nearest to
    16 samples, faces.png the samples.

        abaw-expr generate score ckplus --model generator \\
            --encoder timm:resnet50 --weights default

    Args:
        model: The folder of a generator.
        store: The stores that it was trained on, with held-out faces.
        encoder: An encoder of images, such as timm:NETWORK; with --run a branch of it, or BRANCH.STREAM.
        weights: Its weights, as for `embed`.
        run: A trained run, whose encoder it is.
        out: The folder for score.json and the pictures; by default `score` in that of the generator.
        faces: Faces of each class; fewer where fewer are held out.
        split: Where the held-out faces are from.
        seed: Seed of the faces that are drawn.
    """
    from abaw_expr.data.store.store import open_store
    from abaw_expr.errors import UserError
    from abaw_expr.generate.sampling import load_sampler
    from abaw_expr.generate.score import score_generator
    from abaw_expr.generate.score_report import write_score
    from abaw_expr.tasks.task import EXPR
    from abaw_expr.training.embedding_source import Source

    require_counts(2, faces=faces)
    sampler, stores = load_sampler(model), [open_store(path, EXPR) for path in store]
    source = Source(encoder, str(run or weights), run is not None)
    source.made()
    network = source.build()
    if network.modality != "visual":
        raise UserError("--encoder reads no images", found=encoder, expected="an encoder of images")
    with console.progress("Reading sets of faces") as on_progress:
        found = score_generator(sampler, stores, network, faces, split, seed, on_progress)
    folder = out or model / "score"
    write_score(found, sampler, folder)
    _print(found, folder)
    return 0


def _print(found: "GeneratorScore", out: Path) -> None:
    from abaw_expr.tasks.task import EXPR

    rows = [(name, one.frechet, one.kernel) for name, one in found.distances.items()]
    heading = f"Distance to held-out faces, {found.faces_per_class} a class"
    console.table(heading, ("faces", "Frechet", "kernel x 1000"), rows)
    known = found.recognition
    by_class = [(EXPR.columns[label], known.generated[label], known.real[label]) for label in known.generated]
    mean = ("mean", known.mean(known.generated), known.mean(known.real))
    console.table("Named right by a classifier of real faces", ("class", "generated", "held-out"), [*by_class, mean])
    copies = found.copies
    console.note(
        f"Samples closer to a training face than the closest pair of these: {copies.closer_than_a_pair:.1%}; "
        f"than 99 % of these are to another: {copies.closer_than_most:.1%}."
    )
    console.note(f"Numbers and pictures: {out}")
