"""The embeddings in a store that a run reads.

A run knows of each what made its rows, and the rows themselves: `weights.json` has both digests.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import TypeVar

from abaw_expr.data.store.embeddings import Manifest, read_manifest
from abaw_expr.data.store.store import Store
from abaw_expr.errors import RunError, SettingsError, StoreError
from abaw_expr.files import digest
from abaw_expr.settings import BranchSettings, Settings, StreamSettings

_FAMILY = "embedding:"
_One = TypeVar("_One", BranchSettings, StreamSettings)


def with_embedding_widths(settings: Settings, store: Store) -> Settings:
    """The settings with the width of each embedding, as the store and its extras have it.

    Raises StoreError where one of them has no such embeddings, or others than the first, and SettingsError where the
    settings name another width.
    """
    branches = {}
    for name, branch in settings.branches.items():
        streams = {one: _with_width(stream, store, f"{name}.{one}") for one, stream in branch.streams.items()}
        branches[name] = replace(_with_width(branch, store, name), streams=streams)
    return replace(settings, branches=branches)


def embedding_digests(settings: Settings, store: Store) -> dict[str, str]:
    """What identifies the embeddings that the settings read, by `branch.stream`: what made them, and their rows."""
    return {name: _identity(manifest) for name, manifest in _manifests(settings, store).items()}


def check_embeddings(settings: Settings, store: Store, known: Mapping[str, str]) -> None:
    """Raises RunError where a store's embeddings were made otherwise than those that a run was trained on.

    `known` are the run's digests (`RunFolder.weights_digests`).
    """
    for name, manifest in _manifests(settings, store).items():
        if name in known and known[name].split()[0] != _identity(manifest).split()[0]:
            remedy = "Make them with the encoder and the weights of the run's store."
            raise RunError(
                f"the embeddings of branches.{name} were made otherwise than those of the run",
                path=store.root,
                found=str(manifest.made),
                remedy=remedy,
            )


def embedding_name(encoder: str) -> str | None:
    """The name of the embeddings that an encoder of the settings is; None of another encoder."""
    return encoder.removeprefix(_FAMILY) if encoder.startswith(_FAMILY) else None


def _manifests(settings: Settings, store: Store) -> dict[str, Manifest]:
    streams = {
        f"{name}.{one}": embedding_name(stream.encoder)
        for name, branch in settings.branches.items()
        for one, stream in branch.streams_of(name).items()
    }
    return {name: read_manifest(store.root, which) for name, which in streams.items() if which is not None}


def _identity(manifest: Manifest) -> str:
    return f"{digest(manifest.made)} {manifest.digest}"


def _with_width(stream: _One, store: Store, name: str) -> _One:
    which = embedding_name(stream.encoder)
    if which is None:
        return stream
    manifest = read_manifest(store.root, which)
    for extra in store.extras:
        other = read_manifest(extra.store.root, which)
        if other.made != manifest.made:
            remedy = "Make both with the same encoder and weights."
            found, expected = str(other.made), str(manifest.made)
            problem = f"has other embeddings {which} than {store.root}"
            raise StoreError(problem, path=extra.store.root, found=found, expected=expected, remedy=remedy)
    if stream.embedding_width not in (0, manifest.width):
        problem = f"the setting branches.{name}.embedding-width is not that of the store"
        raise SettingsError(problem, found=stream.embedding_width, expected=manifest.width)
    return replace(stream, embedding_width=manifest.width)
