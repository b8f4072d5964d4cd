"""Two folders of files that two versions of the code made: do they hold the same values, whatever their names are?

A file is read as values by dotted names: settings and numbers one by one, columns, tensors and arrays whole.
"""

import fnmatch
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import torch
import yaml

Flat = dict[str, Any]
EVENTS = "events.out.tfevents."
_DIGEST = re.compile("[0-9a-f]{16,}")


@dataclass(frozen=True)
class Names:
    """What is named otherwise in the newer folder, and what is not compared."""

    renamed: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """By a key, column or word of the older folder: what it may be in the newer one."""
    patterns: Sequence[tuple[str, str]] = ()
    """Regular expressions, and what stands for them in dotted names and paths of the newer folder, one by one."""
    left_out: frozenset[str] = frozenset()
    """Keys and columns that are not compared, nor what is below them; of either folder."""
    files_left_out: Sequence[str] = ()
    """Patterns of the paths of files that are not compared."""

    def of(self, name: str) -> list[str]:
        """What a dotted name, or a path, of the older folder may be called in the newer one."""
        found = [name]
        for part in dict.fromkeys(re.split(r"[./]", name)):
            whole = rf"(?<![^./]){re.escape(part)}(?![^./])"
            found += [re.sub(whole, new, one) for new in self.renamed.get(part, ()) for one in found]
        return [*found, *map(self._changed, found)]

    def _changed(self, name: str) -> str:
        for old, new in self.patterns:
            name = re.sub(old, new, name)
        return name


class Compared(NamedTuple):
    """What came of a comparison."""

    files: int
    values: int
    difference: str | None
    """The first one, in words."""


def compare(before: Path, after: Path, names: Names) -> dict[str, Compared]:
    """Compares all files, by the folder that they lie in: the first one, two where it holds folders itself."""
    olds, news = _files(before, names), _files(after, names)
    groups: dict[str, list[tuple[str, int, str | None]]] = {}
    for path, old in olds.items():
        partner = next((name for name in names.of(path) if name in news), None)
        values, difference = (0, "is not there any more") if partner is None else differ(old, news.pop(partner), names)
        groups.setdefault(_group(path), []).append((path, values, difference))
    for path in news:
        groups.setdefault(_group(path), []).append((path, 0, "was not there"))
    return {
        name: Compared(
            len(found),
            sum(values for _, values, _ in found),
            next((f"{path}: {difference}" for path, _, difference in found if difference), None),
        )
        for name, found in groups.items()
    }


def differ(old: Path, new: Path, names: Names) -> tuple[int, str | None]:
    """How many values a file holds, and the first that is another in the newer one; equal bytes are one value."""
    if old.read_bytes() == new.read_bytes():
        return 1, None
    read = READERS.get("events" if old.name.startswith(EVENTS) else old.suffix)
    if read is None:
        return 1, "other bytes"
    before, after = ({name: v for name, v in read(path).items() if _counts(name, names)} for path in (old, new))
    for name, value in before.items():
        partner = next((other for other in names.of(name) if other in after), None)
        if partner is None:
            return len(before), f"{name} is not there any more"
        other = after.pop(partner)
        if not _same(value, other, names):
            return len(before), f"{name} {_apart(value, other)}"
    return len(before), f"{next(iter(after))} was not there" if after else None


def _files(root: Path, names: Names) -> dict[str, Path]:
    """The files to compare by their paths; those of events are called alike."""
    found = {}
    for path in sorted(path for path in root.rglob("*") if path.is_file()):
        name = path.relative_to(root).as_posix()
        if not any(fnmatch.fnmatch(name, pattern) for pattern in names.files_left_out):
            found[re.sub(rf"{re.escape(EVENTS)}.*", "events", name)] = path
    return found


def _group(path: str) -> str:
    """The folder whose row of the table a file counts in."""
    return "/".join(path.split("/")[:2]) if path.count("/") > 1 else path.split("/")[0]


def _counts(name: str, names: Names) -> bool:
    return names.left_out.isdisjoint(re.split(r"[./]", name))


def _same(old: Any, new: Any, names: Names) -> bool:
    """Whether values are equal to the bit. Of words only single ones count, no sentences and no digests."""
    if isinstance(old, np.ndarray) and isinstance(new, np.ndarray):
        return (old.dtype, old.shape, old.tobytes()) == (new.dtype, new.shape, new.tobytes())
    if isinstance(old, str) and isinstance(new, str):
        words = " " in old or (_DIGEST.fullmatch(old) and _DIGEST.fullmatch(new))
        return bool(words) or new in names.of(old)
    return type(old) is type(new) and (old == new or repr(old) == repr(new))  # of NaN only the repr is the same


def _apart(old: Any, new: Any) -> str:
    """How values differ, in words: of columns the first rows that do, of arrays by how much."""
    if isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        row, old, new = next((row, *pair) for row, pair in enumerate(zip(old, new, strict=True)) if pair[0] != pair[1])
        return f"in row {row} was {_shown(old)}, is {_shown(new)}"
    if isinstance(old, np.ndarray) and isinstance(new, np.ndarray) and old.shape == new.shape:
        farthest = np.abs(old.astype(float) - new.astype(float)).max()
        return f"has {np.count_nonzero(old != new)} of {old.size} other numbers, by {farthest:.1e} at most"
    return f"was {_shown(old)}, is {_shown(new)}"


def _shown(value: Any) -> str:
    text = f"{value.dtype} {list(value.shape)}" if isinstance(value, np.ndarray) else str(value)
    return text if len(text) < 60 else f"{text[:57]}..."


# Readers


def flat(value: Any, name: str = "") -> Flat:
    """Nested dictionaries and lists as values by dotted names."""
    return dict(_leaves(value, name))


def _leaves(value: Any, name: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, torch.Tensor):  # numpy knows no bfloat16
        value = value.detach()
        yield name, (value.view(torch.int16) if value.dtype == torch.bfloat16 else value).numpy()
    elif isinstance(value, Mapping | list | tuple):
        entries = value.items() if isinstance(value, Mapping) else enumerate(value)
        for key, one in entries:
            yield from _leaves(one, f"{name}.{key}" if name else str(key))
        if not isinstance(value, Mapping):
            yield f"{name}.length", len(value)
    else:
        yield name, value


def _parquet(path: Path) -> Flat:
    table = pq.read_table(path)
    values: Flat = {}
    for name in table.column_names:
        column = table[name].combine_chunks()
        if pa.types.is_floating(column.type):
            values |= {
                name: column.fill_null(0).to_numpy(zero_copy_only=False),
                f"{name}.null": column.is_null().to_pylist(),
            }
        else:
            values |= {name: column.to_pylist(), f"{name}.type": str(column.type)}
    said = {key.decode(): json.loads(text) for key, text in (table.schema.metadata or {}).items() if key != b"pandas"}
    return values | flat(said)


def _csv(path: Path) -> Flat:
    table = pd.read_csv(path, dtype=str, keep_default_na=False)
    return {str(name): table[name].tolist() for name in table}


def _events(path: Path) -> Flat:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(path))
    events.Reload()
    scalars = {tag: events.Scalars(tag) for tag in events.Tags()["scalars"]}
    values = {tag: np.array([one.value for one in found]) for tag, found in scalars.items()}
    return values | {f"{tag}.step": [one.step for one in found] for tag, found in scalars.items()}


READERS: Mapping[str, Callable[[Path], Flat]] = {
    ".json": lambda path: flat(json.loads(path.read_bytes())),
    ".yaml": lambda path: flat(yaml.safe_load(path.read_bytes())),
    ".pt": lambda path: flat(torch.load(path, map_location="cpu", weights_only=True)),
    ".npy": lambda path: {"array": np.load(path)},
    ".parquet": _parquet,
    ".csv": _csv,
    "events": _events,
}
