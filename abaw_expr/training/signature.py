"""The signature of a run: a hash of what differs from a frozen set of defaults.

A setting at its default leaves no trace, so that a new setting keeps all earlier runs as they are.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from abaw_expr.files import digest
from abaw_expr.settings import Settings
from abaw_expr.settings_file import dump_settings, flat_settings, flattened

FROZEN: Mapping[str, Any] = {
    "task": "expr",
    "seed": 0,
    "precision": "auto",
    "data.stride": 0.3,
    "data.val_stride": 0.5,
    "data.frames_per_sample": 1,
    "data.spacing": 0.2,
    "data.balance": 0.0,
    "data.video_balance": 0.0,
    "data.sequence": 1,
    "data.hop": 0,
    "data.train_on": "train",
    "data.folds": 0,
    "data.fold": 0,
    "augment.frequency_mask": 8,
    "augment.time_mask": 24,
    "augment.flip": True,
    "augment.crop": 0.8,
    "augment.jitter": 0.3,
    "model.attention": True,
    "model.attention_place": "last",
    "model.attention_groups": 1,
    "model.strips": "parallel",
    "model.dilations": [1, 2, 3],
    "model.squared_gate": True,
    "model.mixing_groups": 1,
    "model.prompts": [],
    "model.text_encoder": "ViT-B-32-quickgelu",
    "model.text_weights": "",
    "model.dropout": 0.2,
    "loss.mu12": 0.5,
    "loss.mu13": 0.75,
    "loss.mu14": 0.25,
    "loss.mu23": 0.25,
    "loss.mu24": 0.75,
    "loss.mu34": 0.5,
    "loss.every_error": 0.0,
    "loss.class_weight": 0.0,
    "loss.quadrants": [],
    "loss.label_smoothing": 0.0,
    "loss.diversity": 0.1,
    "loss.branch_weight": 0.0,
    "loss.per_stretch": False,
    "optimiser.name": "sgd",
    "optimiser.learning_rate": 0.0001,
    "optimiser.branch_learning_rate": 0.001,
    "optimiser.pretrained_learning_rate": 0.0,
    "optimiser.momentum": 0.9,
    "optimiser.weight_decay": 0.0,
    "optimiser.schedule": "constant",
    "optimiser.epochs": 300,
    "optimiser.batch_size": 16,
    "optimiser.ema_decay": 0.0,
}
"""What each setting was by default when it came into being. A line is added with a new setting and is never changed: a
default that changes later is a setting that differs, for the runs of after the change."""
FROZEN_BRANCHES: Mapping[str, Any] = {"audio": {"encoder": "mcnn"}, "visual": {"encoder": "rhcnn"}}
"""The same of the branches, each without what a branch has by default."""
FROZEN_BRANCH: Mapping[str, Any] = {
    "encoder": "",
    "attention": "",
    "weights": "",
    "freeze": False,
    "release": [],
    "embedding_width": 0,
    "norm": "none",
    "projection": 0,
    "temporal": "none",
    "streams": {},
    "join": "concatenation",
    "head": "linear",
    "key_frames": False,
    "networks": "one",
    "weight": 1,
}
"""The same of a branch, and as far as they go of a stream."""
_OF_PARTS = ("compute.devices", "compute.nodes", "compute.micro_batch")


def signature(
    settings: Settings,
    data: str,
    start: str | None = None,
    heads: Any = None,
    weights: Mapping[str, str] | None = None,
) -> str:
    """The identity of a run: a hash of all that decides its result, without devices, workers and paths.

    `data` is the digest of the store, `start` the digest of initial weights from other runs, `heads` says what the
    heads were trained on again, and `weights` are the digests of the files of weights by `branch.stream`; they are None
    otherwise.
    """
    others = {"start": start, "heads": heads, "parts": _parts(settings), "weights": weights}
    values = {"settings": changed(settings), "data": data}
    return digest(values | {name: value for name, value in others.items() if value})


def earlier_signature(values: Mapping[str, Any], data: str, start: str | None = None, heads: Any = None) -> str:
    """The signature of a run whose settings.yaml has no task yet, from its values: all of them were hashed then."""
    compute, others = values["compute"], {"start": start, "heads": heads}
    others["parts"] = _parts_of(values["optimiser"]["batch_size"], compute)
    kept = {"settings": {name: value for name, value in values.items() if name != "compute"}, "data": data}
    return digest(kept | {name: value for name, value in others.items() if value})


def changed(settings: Settings) -> dict[str, Any]:
    """The settings that differ from the frozen defaults, by dotted name; of files of weights only that there are."""
    values = dump_settings(settings)
    branches = {name: _branch(branch) for name, branch in values.pop("branches").items()}
    del values["compute"]
    found = {name: value for name, value in flattened(values).items() if value != FROZEN[name]}
    # Their order is that of the table, and of the random numbers that initialise them.
    return found | ({"branches": [*branches.items()]} if [*branches.items()] != [*FROZEN_BRANCHES.items()] else {})


def differences(before: Settings, after: Settings) -> list[str]:
    """The settings that differ between runs, each as `name: before -> after`; of `compute` only what BN depends on."""
    first, second = flat_settings(before), flat_settings(after)
    same_parts, names = _parts(before) == _parts(after), [", ".join(one.branches) for one in (before, after)]
    if names[0] != names[1]:  # which there are, or their order
        return [f"branches: {' -> '.join(names)}", *differences(*_common(before, after))]
    return [
        f"{name.replace('_', '-')}: {first.get(name, 'none')} -> {second.get(name, 'none')}"
        for name in first | second
        if first.get(name) != second.get(name)
        and (not name.startswith("compute.") or (not same_parts and name in _OF_PARTS))
    ]


def _common(before: Settings, after: Settings) -> tuple[Settings, Settings]:
    """Two settings with the branches that both have, and if there are none with those of the first."""
    both = [name for name in before.branches if name in after.branches]
    first, second = ({name: one.branches[name] for name in both} or before.branches for one in (before, after))
    return replace(before, branches=first), replace(after, branches=second)


def _branch(values: Mapping[str, Any]) -> dict[str, Any]:
    """What differs from the defaults in a branch or a stream."""
    found = {name: value for name, value in values.items() if value != FROZEN_BRANCH[name]}
    if "streams" in found:
        found["streams"] = [(name, _branch(stream)) for name, stream in values["streams"].items()]
    return found | ({"weights": "a file"} if "weights" in found else {})


def _parts(settings: Settings) -> int | None:
    """In how many micro-batches BN normalises a batch; None if it is one, whatever the number of devices."""
    return _parts_of(settings.optimiser.batch_size, vars(settings.compute))


def _parts_of(batch_size: int, compute: Mapping[str, int]) -> int | None:
    share = -(-batch_size // (compute["devices"] * compute["nodes"]))
    parts = -(-share // (compute["micro_batch"] or share))
    return parts if parts > 1 else None
