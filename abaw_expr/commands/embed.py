"""`embed`: a store and an encoder to embeddings in the store."""

from pathlib import Path
from typing import Annotated, Literal

import tyro

from abaw_expr.commands import console
from abaw_expr.commands.arguments import require_seconds
from abaw_expr.commands.exit_status import OK
from abaw_expr.errors import UserError
from abaw_expr.models.encoders.onnx_settings import OnnxSettings


def embed(
    store: Path,
    encoder: str,
    weights: str = "",
    name: str = "",
    run: Path | None = None,
    stride: float = 0.0,
    workers: int = 0,
    accelerator: Literal["auto", "cpu", "cuda"] = "auto",
    onnx: Annotated[OnnxSettings, tyro.conf.arg(name="")] = OnnxSettings(),  # noqa: B008 (frozen)
) -> int:
    """Makes embeddings in a store: a row of every frame by a pretrained encoder, once.

    Training then reads the rows instead of images and sound: `encoder: embedding:NAME` in the settings of a branch or
    stream. Run it again after a stop, or after `prepare` added recordings: it makes only what is missing.

        abaw-expr embed store --encoder timm:resnet50 --weights default \\
            --name faces
        abaw-expr embed store --encoder ge2e --name voices \\
            --weights package:resemblyzer/pretrained.pt
        abaw-expr embed store --encoder visual --run runs/first --name own

    Args:
        store: The prepared store.
        encoder: What makes the rows: timm:NETWORK, clip:NETWORK, torchaudio:BUNDLE, vggish, ge2e, ddamfn or onnx:FILE;
            with --run a branch of it, or BRANCH.STREAM.
        weights: A file of weights (safetensors, or of torch.save), package:NAME/FILE inside an installed package, or
            default: what the encoder's library downloads.
        name: The name of the embeddings; by default that of the encoder.
        run: A trained run, whose encoder it is, with the weights of its best epoch.
        stride: Seconds between the frames that the encoder sees; those between have the row of the nearest. 0: every
            frame.
        workers: Processes to use, each with the encoder in its memory; 0: one a core, and one where there is a GPU.
        accelerator: Device; auto takes a GPU if there is one.
    """
    import torch

    from abaw_expr.data.workers import processes
    from abaw_expr.training import embed as making
    from abaw_expr.training.embedding_source import Source

    require_seconds("stride", stride)
    if run is not None and weights:
        raise UserError("embed takes --weights or --run, one of the two")
    of_gpu = accelerator != "cpu" and torch.cuda.is_available()
    count = 1 if of_gpu and not workers else processes(workers)
    if encoder.startswith("onnx:") and (run or weights):
        raise UserError("onnx:FILE has its weights in the file: embed takes no --weights or --run with it")
    source = Source(encoder, str(run or weights), run is not None, onnx)
    name = name or encoder.rpartition(":")[2].rpartition("/")[2].replace(".", "-")
    with console.progress("Embedding frames") as on_progress:
        manifest = making.embed(store, source, name, stride, count, accelerator, on_progress)
    rows = [("videos", len(manifest.files)), ("features", manifest.width)]
    console.table(f"Embeddings {name} in {store}", ("", "count"), rows)
    console.OUT.print(f"In the settings of a branch: encoder: embedding:{name}", soft_wrap=True)
    return OK
