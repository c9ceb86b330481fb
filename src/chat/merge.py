"""Merge adapters of low rank into the model that they were trained on."""

import logging
from pathlib import Path

import torch

from src.chat import models
from src.core import stage
from src.core.command_line import Threads
from src.core.errors import InputError
from src.core.files import replacing, sha256

log = logging.getLogger("src.chat.merge")


def main(base: Path, adapter: Path, merged: Path, *, threads: Threads) -> None:
    """Write a whole model that needs no adapter.

    Args:
        base: the folder of the model that the adapter was trained on.
        adapter: the folder of the adapter.
        merged: the folder that gets the model.

    Raises:
        InputError: the adapter is of another model, or can't be merged.
    """
    torch.set_num_threads(threads)
    for name, expected in models.record(base)["sha256"].items():
        if not (base / name).exists() or sha256(base / name) != expected:
            raise InputError(
                f"{base / name} is not the file that {models.RECORD} beside it tells of: get it "
                "again with `dvc checkout`."
            )
    kept = models.record(base)["dtype"]
    # In float32, so that what is added is rounded once.
    model = models.with_adapter(models.load(base, torch.float32), base, adapter)
    if model.active_peft_config.is_prompt_learning:
        raise InputError(
            f"{adapter} is a prefix, which is no part of any weight and can't be merged: serve it "
            "as it is, with its base."
        )
    whole = model.merge_and_unload(safe_merge=True).to(getattr(torch, kept))
    with replacing(merged) as folder:
        folder.mkdir()
        whole.save_pretrained(folder)
        models.copy_tokenizer(base, folder)
        models.write_record(base, folder, "merge", models.learnt(base, adapter))
        models.make_readable(folder)
    log.info("%s is a whole model of %d weights in %s", merged, whole.num_parameters(), kept)


if __name__ == "__main__":
    stage.run(main)
