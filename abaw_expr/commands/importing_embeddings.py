"""`import --embeddings`: a team's own embeddings into a store."""

from pathlib import Path

from abaw_expr.commands import console
from abaw_expr.commands.arguments import Flag, Source
from abaw_expr.commands.exit_status import OK


def import_embeddings(
    source: Source, store: Path, name: str, embeddings: Flag = False, incomplete: Flag = False
) -> int:
    """Puts embeddings that another tool made into a store, checked row by row: `encoder: embedding:NAME` reads them.

    A row is of a frame (frame, counted from 1), or of a time (time, in seconds; each frame gets the nearest row that is
    not further away than rows are from each other). Without either, row i is frame i. A row that is all NaN is none.
    The numbers are kept as float16.

        abaw-expr import features --embeddings --store store --name clip

    Args:
        source: A folder of VIDEO.npy (rows by features), VIDEO.npz (embedding, and frame or time), VIDEO.parquet or
            VIDEO.csv (frame or time, and a column a feature); or one such table of all videos, with a column video.
        store: The prepared store.
        name: The name of the embeddings. In another store the same name stands for the same encoder.
        embeddings: What this is about.
        incomplete: Videos may be missing; their frames have no embedding.
    """
    from abaw_expr.data.store import embedding_import

    with console.progress("Importing videos") as on_progress:
        made = embedding_import.import_embeddings(store, source, name, incomplete, on_progress)
    rows = [("frames with an embedding", made.frames), ("frames without", made.without)]
    counts = [("features", made.manifest.width), *rows, ("videos without", len(made.missing))]
    console.table(f"Embeddings {name} in {store}", ("", "count"), counts)
    return OK
