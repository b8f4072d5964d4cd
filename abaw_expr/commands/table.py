"""The commands by name, and the overview of them."""

import difflib
from collections.abc import Callable, Mapping, Sequence

from abaw_expr.commands.ablate import ablate_command
from abaw_expr.commands.arguments import base_settings
from abaw_expr.commands.check import check
from abaw_expr.commands.compare import compare
from abaw_expr.commands.convert import convert
from abaw_expr.commands.demo import demo_command
from abaw_expr.commands.describe import describe
from abaw_expr.commands.embed import embed
from abaw_expr.commands.faces import faces
from abaw_expr.commands.folds import folds_command
from abaw_expr.commands.generate import sample as generate_sample
from abaw_expr.commands.generate import score as generate_score
from abaw_expr.commands.generate import train as generate_train
from abaw_expr.commands.importing import import_outputs
from abaw_expr.commands.importing_embeddings import import_embeddings
from abaw_expr.commands.infer import infer
from abaw_expr.commands.ledger import add, list_attempts, remove
from abaw_expr.commands.ledger import score as ledger_score
from abaw_expr.commands.parsing import HELP, PROGRAM, Command
from abaw_expr.commands.penalties import penalties
from abaw_expr.commands.predict import predict
from abaw_expr.commands.prepare import prepare
from abaw_expr.commands.refit import refit
from abaw_expr.commands.report import report
from abaw_expr.commands.retrain import retrain
from abaw_expr.commands.runs import runs
from abaw_expr.commands.score import score
from abaw_expr.commands.submit import submit
from abaw_expr.commands.sweep import sweep_command
from abaw_expr.commands.train import train_command
from abaw_expr.commands.tune import tune
from abaw_expr.errors import UserError

GROUPS = {
    "generate": "makes clips of faces to train on: a class-conditional GAN",
    "ledger": "keeps the attempts at a challenge and their official scores",
}
"""Commands of two words, by the first."""
NOTES = {
    "generate": "Train a generator on stores, look at its samples, score them, sample clips.",
    "ledger": "The organisers take five attempts a challenge: the sixth is refused, and so is\nthe same file again.",
}
"""What the help of a group says beside its commands."""
FILES = "FILE [FILE ...]"
STORE = {"": ("--store",)}
STORES = {"": ("--store...",)}
TABLES = {"": ("--outputs...",)}


def _always(function: Callable[..., int]) -> Callable[[Sequence[str]], Callable[..., int]]:
    return lambda words: function


WAY = {
    "prepare": Command(
        "a release or another data set -> store: crops, audio, labels",
        _always(prepare),
        "RELEASE STORE",
        {"--verify": ("--store",), "": ("--release", "--store")},
    ),
    "train": Command(
        "store -> run: checkpoints, metrics, curves",
        lambda words: train_command(base_settings(words), words),
        "STORE [STORE=FRACTION ...] --run RUN",
        STORES,
    ),
    "predict": Command(
        "run and store -> outputs: the probabilities of every frame",
        _always(predict),
        "RUN STORE --split SPLIT --out FILE",
        {"": ("--run", "--store")},
    ),
    "tune": Command(
        "validation outputs -> decision: weights, smoothing, thresholds",
        _always(tune),
        f"{FILES} --out FILE",
        TABLES,
    ),
    "score": Command(
        "outputs and decision -> the challenge's metric and its interval",
        _always(score),
        FILES,
        {"--annotations": ("--predictions",), **TABLES},
    ),
    "submit": Command(
        "test outputs, decision and template -> the submission file",
        _always(submit),
        f"{FILES} --template FILE --out FILE",
        TABLES,
    ),
    "check": Command(
        "submission file -> all its faults, with line numbers", _always(check), "PREDICTIONS --template FILE"
    ),
}
"""The commands from a release to a checked submission, in the order of use."""
MORE = {
    "embed": Command(
        "store and pretrained encoder -> embeddings in the store", _always(embed), "STORE --encoder NAME", STORE
    ),
    "faces": Command(
        "finds, follows and aligns the faces of videos that have no crops",
        _always(faces),
        "RELEASE",
        {"--out": ("--videos...",), "": ("--release",)},
    ),
    "infer": Command(
        "predicts the expressions in any video files with a run",
        _always(infer),
        "VIDEO [VIDEO ...] --run RUN --out FOLDER",
    ),
    "import": Command(
        "another model's outputs -> outputs; its embeddings -> store",
        lambda words: import_embeddings if "--embeddings" in words else import_outputs,
        "SOURCE --name BRANCH --out FILE",
    ),
    "report": Command(
        "whatever there is -> one HTML file to look at and to send",
        _always(report),
        "[FILE ...] --out FILE",
        TABLES,
    ),
    "runs": Command(
        "the runs of a folder: state, score, and settings that differ", _always(runs), "[FOLDER]", {"": ("--folder",)}
    ),
    "compare": Command("compares two decisions by a paired bootstrap, or runs", _always(compare)),
    "convert": Command("predictions -> another format, or outputs", _always(convert), "SOURCE --out FILE"),
    "ledger list": Command("shows all attempts, and how validation predicts the test", _always(list_attempts)),
    "ledger add": Command(
        "records that a file is handed in, after a check of it", _always(add), "PREDICTIONS --template FILE"
    ),
    "ledger score": Command("records the official score of an attempt", _always(ledger_score), "ATTEMPT SCORE"),
    "ledger remove": Command("takes back an attempt that was never handed in", _always(remove), "ATTEMPT"),
    "generate train": Command(
        "stores -> generator of faces, a class-conditional GAN",
        _always(generate_train),
        "STORE [STORE ...] --out FOLDER",
        STORES,
    ),
    "generate sample": Command(
        "generator -> a data set of clips", _always(generate_sample), "--model DIR --out FOLDER"
    ),
    "generate score": Command(
        "generated faces against held-out real ones",
        _always(generate_score),
        "STORE ... --model DIR --encoder NAME",
        STORES,
    ),
    "ablate": Command(
        "trains the rows of the paper's ablation table over several seeds",
        lambda words: ablate_command(base_settings(words)),
        "STORE --out FOLDER",
        STORE,
    ),
    "folds": Command(
        "cross-validation: out-of-fold outputs, and the average of all runs",
        lambda words: folds_command(base_settings(words)),
        "STORE [STORE=FRACTION ...] --out FOLDER",
        STORES,
    ),
    "retrain": Command(
        "the last training, on train and validation together",
        _always(retrain),
        "STORE ... --folds FOLDER --run RUN",
        STORES,
    ),
    "sweep": Command(
        "searches any settings of training by many trainings",
        lambda words: sweep_command(base_settings(words)),
        "STORE ... --space FILE --out FOLDER",
        STORES,
    ),
    "penalties": Command(
        "searches the misclassification costs of the loss",
        _always(penalties),
        "STORE ... --run RUN --out FOLDER",
        STORES,
    ),
    "refit": Command(
        "trains the classification heads of a run again",
        _always(refit),
        "STORE ... --run RUN --out RUN",
        STORES,
    ),
    "describe": Command(
        "shows layers, shapes and parameters of the networks", _always(describe), "[SETTINGS]", {"": ("--settings",)}
    ),
}


def commands(main: Callable[[Sequence[str]], int]) -> dict[str, Command]:
    """All commands; `main` runs a command line, for the one that runs others."""
    demo = Command(
        "runs all of these on a synthetic corpus, in some minutes",
        lambda words: demo_command(main),
        "FOLDER",
        {"": ("--out",)},
    )
    return {**WAY, "demo": demo, **MORE}


def find(known: Mapping[str, Command], words: Sequence[str]) -> tuple[str, Sequence[str]]:
    """The name of the command, or of a group without one of its commands, and the words after it.

    Raises UserError for an unknown command.
    """
    first = words[0]
    if first not in GROUPS:
        name, rest, among, asked = first, words[1:], [*known, *GROUPS], HELP[-1]
    elif len(words) == 1 or words[1] in HELP:
        return first, words[1:]
    else:
        name, rest, asked = " ".join(words[:2]), words[2:], f"{first} {HELP[-1]}"
        among = [other for other in known if other.startswith(f"{first} ")]
    if name in known:
        return name, rest
    close = difflib.get_close_matches(name, among, n=1)
    meant = f"Did you mean `{close[0]}`? " if close else ""
    raise UserError(f"there is no command {name}", remedy=f"{meant}`{PROGRAM} {asked}` lists the commands.")


def overview(known: Mapping[str, Command]) -> str:
    """The help of the program: a line a command."""
    lines = {name: command.line for name, command in known.items() if " " not in name} | GROUPS
    rest = [name for name in known if name not in WAY]
    more = dict.fromkeys(name.split()[0] for name in rest)
    return f"""usage: {PROGRAM} COMMAND ...

From the release of an ABAW challenge to a checked submission file.

The way, in the order of use:
{_listed(lines, list(WAY))}

More:
{_listed(lines, list(more))}

Looking for
  ensemble            `tune` with several outputs, `import` for other models'
  fine-tuning, CLIP   `train --initial-weights`; `embed`, `weights` of a branch
  SLURM, notebook     README.md in abaw_expr/training, README.md in abaw_expr

`{PROGRAM} COMMAND --help` shows its arguments and examples, --version the
versions, --debug tracebacks. Exit status: 0 done, 1 faults found, 2 cannot run."""


def group_overview(known: Mapping[str, Command], group: str) -> str:
    """The help of a group of commands."""
    lines = {name: command.line for name, command in known.items() if name.startswith(f"{group} ")}
    return f"""usage: {PROGRAM} {group} COMMAND ...

{PROGRAM} {group} {GROUPS[group]}.
{NOTES[group]}

{_listed(lines, list(lines))}

{PROGRAM} {group} COMMAND --help    its arguments"""


def _listed(lines: Mapping[str, str], names: Sequence[str]) -> str:
    width = max(len(name) for name in lines)
    return "\n".join(f"  {name:{width}}  {lines[name]}" for name in names)
