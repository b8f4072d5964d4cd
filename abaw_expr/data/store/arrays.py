"""The arrays of a recording in the store: log-mel audio, probabilities of a voice, entropy of crops, embeddings."""

from mmap import MADV_DONTNEED
from pathlib import Path

import numpy as np

from abaw_expr.data.store.tables import REMAKE, check_digest
from abaw_expr.errors import StoreError, unreadable
from abaw_expr.files import file_digest


def read_array(
    path: Path, known: str | None, dtype: type, columns: tuple[int, ...] = (), remedy: str = REMAKE
) -> np.ndarray:
    """An array [steps, *columns], mapped from disk.

    Raises StoreError where it is damaged or of another kind, or the file's digest is not the `known` one.
    """
    try:
        if known is not None:
            check_digest(path, known, file_digest(path))
        array: np.ndarray = np.load(path, mmap_mode="r")
    except StoreError:
        raise
    except OSError as error:
        raise unreadable(StoreError, path, error, remedy) from error
    except Exception as error:  # NumPy raises many kinds of errors for bytes that are no array
        raise StoreError("is no array", path=path, remedy=remedy) from error
    if array.ndim != 1 + len(columns) or array.shape[1:] != columns or array.dtype != dtype:
        expected = f"({', '.join(map(str, ('steps', *columns)))}) {np.dtype(dtype)}"
        found = f"{array.shape} {array.dtype}"
        raise StoreError("holds another array", path=path, found=found, expected=expected, remedy=remedy)
    return array


def release(array: np.ndarray) -> None:
    """Takes the pages of an array that is mapped from disk out of this process's memory; what is read again is mapped
    again. Without it a training that sees every row holds all of them."""
    if isinstance(array, np.memmap):
        array._mmap.madvise(MADV_DONTNEED)  # type: ignore[attr-defined]  # the only way to the map of np.load
