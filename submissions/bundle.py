"""The bundle: a submission and the files that document it, in one zip.

| member | |
|---|---|
| `predictions.txt` | the submission; or `predictions/` with one file per video, as in the 3rd edition |
| `decisions/expr.json` | the decision; one for each challenge |
| `check.json` | the checker's verdict |
| `environment.json` | versions of Python and of the packages that its numbers depend on |
| `runs/1/settings.yaml`, `runs/1/manifest.json` | of the first named run; a manifest if it is complete |
| `manifest.json` | hashes of these files and of their inputs; runs, and options of `submit` |

The same inputs give the same bytes, in any folder: members have no time, owner or path. (Another version of zlib may
compress differently; the version is in `environment.json`.)
"""

import hashlib
import json
import platform
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO
from zipfile import ZIP_DEFLATED, ZipFile, ZipInfo

from abaw_expr.errors import DecisionError, RunError
from abaw_expr.files import atomic, read_json, sha256
from abaw_expr.outputs.table import Outputs

BUNDLE_FORMAT = 1
PACKAGES = (
    "av",
    "bottleneck",
    "lightning-fabric",
    "numpy",
    "pandas",
    "pyarrow",
    "scikit-learn",
    "torch",
    "torchaudio",
    "torchvision",
)
"""The packages that the numbers of a submission depend on."""
EARLIEST = (1980, 1, 1, 0, 0, 0)
"""The time of every member: the earliest that a zip can have."""
PIECE = 1 << 20
"""Bytes that are read at a time."""


@dataclass(frozen=True)
class BundledRun:
    """A run folder whose settings go into the bundle."""

    root: Path
    signature: str | None
    """None for a run that is not complete, as its folder has none."""

    @property
    def files(self) -> tuple[Path, ...]:
        paths = (self.root / "settings.yaml", self.root / "manifest.json")
        return paths if self.signature else paths[:1]


def read_runs(roots: Sequence[Path], tables: Sequence[Outputs]) -> list[BundledRun]:
    """The run folders. Raises RunError for a folder that is not a run, or a run that made none of the outputs."""
    made = signatures(tables)
    runs = [_read_run(root) for root in roots]
    for run in runs:
        if run.signature not in (None, *made):
            expected = f"a run that made the outputs: {', '.join(sorted(made))}"
            raise RunError("made none of the outputs", path=run.root, found=run.signature, expected=expected)
    return runs


def signatures(tables: Sequence[Outputs]) -> set[str]:
    """The signatures of the runs that made these outputs, or the names of the files that they were imported from; of an
    average those of its members."""
    return {run for outputs in tables for source in outputs.branches.values() for run in source.runs}


def _read_run(root: Path) -> BundledRun:
    if not (root / "settings.yaml").is_file():
        raise RunError("is not a run folder", path=root, expected="a folder with settings.yaml in it")
    manifest = root / "manifest.json"
    if not manifest.exists():
        return BundledRun(root, None)
    value = read_json(manifest, RunError, "Name the folder of a run.")
    if not (isinstance(value, dict) and isinstance(value.get("signature"), str)):
        raise RunError("has no signature", path=manifest, remedy="Name the folder of a run.")
    return BundledRun(root, value["signature"])


def write_bundle(
    path: Path,
    predictions: Path,
    template: Path,
    decisions: Sequence[Path],
    tables: Sequence[Outputs],
    check: Mapping[str, Any],
    runs: Sequence[BundledRun] = (),
    options: Mapping[str, Any] | None = None,
    code: str = "",
) -> None:
    """Writes the zip atomically.

    `check` is the verdict on the predictions as JSON, `options` are the options of `submit`, `code` is our version.
    """
    files = _predictions(predictions) | {f"decisions/{_task(decision)}.json": decision for decision in decisions}
    files |= {f"runs/{number}/{file.name}": file for number, run in enumerate(runs, 1) for file in run.files}
    texts = {"check.json": check, "environment.json": environment(code)}
    with atomic(path) as temporary, ZipFile(temporary, "w", ZIP_DEFLATED) as archive:
        members = {}
        for name, file in files.items():
            with open(file, "rb") as source:
                members[name] = _put(archive, name, source)
        for name, value in texts.items():
            members[name] = _put(archive, name, _json(value))
        manifest = {
            "format": BUNDLE_FORMAT,
            "branches": {
                outputs.task.name: {name: source.run for name, source in outputs.branches.items()} for outputs in tables
            },
            **({"members_of_averages": averages} if (averages := _averages(tables)) else {}),
            "options": options or {},
            "runs": {str(number): run.signature for number, run in enumerate(runs, 1)},
            "made_from": {
                "template": sha256(template),
                "outputs": [sha256(path) for outputs in tables for path in outputs.paths],
            },
            "members": members,
        }
        _put(archive, "manifest.json", _json(manifest))


def _averages(tables: Sequence[Outputs]) -> dict[str, dict[str, list[str]]]:
    """By task and branch the signatures of the runs that an averaged branch is made of."""
    found = {
        outputs.task.name: {name: [*source.members] for name, source in outputs.branches.items() if source.members}
        for outputs in tables
    }
    return {task: averages for task, averages in found.items() if averages}


def environment(code: str) -> dict[str, Any]:
    """The versions that a submission's numbers depend on; None for a package that is not installed."""
    return {
        "abaw-expr": code,
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "zlib": zlib.ZLIB_RUNTIME_VERSION,
        "packages": {name: _version(name) for name in PACKAGES},
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _predictions(path: Path) -> dict[str, Path]:
    if not path.is_dir():
        return {"predictions.txt": path}
    return {f"predictions/{file.name}": file for file in sorted(path.iterdir())}


def _task(decision: Path) -> str:
    value = read_json(decision, DecisionError, "Name the decision.json that `tune` wrote.")
    assert isinstance(value, dict), "submit has read it as a decision"
    return str(value["task"])


def _put(archive: ZipFile, name: str, source: BinaryIO) -> dict[str, Any]:
    """Streams a member into the zip, and returns the hash and size of the bytes that were written."""
    info = ZipInfo(name, EARLIEST)
    info.compress_type = ZIP_DEFLATED
    info.create_system, info.external_attr = 3, 0o100644 << 16  # a plain file as Unix writes it, on any system
    digest, size = hashlib.sha256(), 0
    with archive.open(info, "w") as member:
        while piece := source.read(PIECE):
            digest.update(piece)
            size += member.write(piece)
    return {"sha256": digest.hexdigest(), "bytes": size}


def _json(value: Mapping[str, Any]) -> BytesIO:
    return BytesIO(json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False).encode() + b"\n")
