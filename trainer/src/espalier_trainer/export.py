"""The final model: a directory that transformers and vLLM load as it is; for LoRA the adapter, and the merged model."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from espalier_data.tokenizer import TextTokenizer, save_tokenizer
from espalier_trainer.checkpoints import Manifest, commit
from espalier_trainer.collective import on_first_rank
from espalier_trainer.models import load_weights
from espalier_trainer.process import Place
from espalier_trainer.run_file import RunFile


def export(
    run: RunFile, trainer: Any, *, place: Place, base: Path | None, tokenizer: TextTokenizer, manifest: Manifest
) -> Path:
    """Writes `<output_dir>/model` (and `<output_dir>/adapter`), each committed with a manifest. All ranks take part."""
    written = run.output_dir / f"model.tmp-a{run.attempt}"
    trainer.save_model(str(written))  # gathers what ZeRO has spread
    return on_first_rank(
        place, lambda: _finish(run, written, base=base, tokenizer=tokenizer, manifest=manifest, trainer=trainer)
    )


def _finish(
    run: RunFile, written: Path, *, base: Path | None, tokenizer: TextTokenizer, manifest: Manifest, trainer: Any
) -> Path:
    generation = trainer.model.generation_config
    (written / "training_args.bin").unlink(missing_ok=True)  # a pickle, which nobody should have to trust
    model = run.output_dir / "model"
    if run.finetuning_type == "lora" and base is not None:
        adapter = written.rename(run.output_dir / f"adapter.tmp-a{run.attempt}")
        _keep_only_adapter(adapter)
        written.mkdir()
        _merge(run, base, adapter=adapter, target=written)
        commit(adapter, run.output_dir / "adapter", manifest)
    _drop_tokenizer_files(written)
    save_tokenizer(tokenizer, written)
    generation.save_pretrained(written)
    commit(written, model, manifest)
    return model


def _merge(run: RunFile, base: Path, *, adapter: Path, target: Path) -> None:
    from peft import PeftModel
    from transformers.integrations.deepspeed import unset_hf_deepspeed_config

    unset_hf_deepspeed_config()  # type: ignore[no-untyped-call]  # rank 0 loads alone: nothing may be spread over the ranks any more
    whole = PeftModel.from_pretrained(load_weights(run, base), str(adapter)).merge_and_unload()
    whole.config.use_cache = True
    whole.save_pretrained(target, safe_serialization=True)


def _keep_only_adapter(directory: Path) -> None:
    for path in directory.iterdir():
        if not path.name.startswith("adapter_"):
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def _drop_tokenizer_files(directory: Path) -> None:
    """The trainer's copy of the tokenizer goes, so that there is one chat template and not two."""
    for pattern in ("tokenizer*", "chat_template*", "special_tokens_map.json", "added_tokens.json"):
        for path in directory.glob(pattern):
            path.unlink()
