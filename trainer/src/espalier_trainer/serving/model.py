"""The model in memory, and how it answers: one token after the other."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from inspect import signature
from pathlib import Path
from typing import TYPE_CHECKING, Any

from espalier_data import ChatTemplate, Conversation, DataError
from espalier_data.masking import tokenize_prompt
from espalier_data.tokenizer import OWN_TEMPLATE, TextTokenizer, load_tokenizer
from espalier_trainer.errors import ConfigError
from espalier_trainer.serving.errors import ApiError, context_exceeded
from espalier_trainer.serving.token_text import StopText, TokenText

if TYPE_CHECKING:
    import torch

_FALLBACK_CONTEXT = 2048


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How the next token is chosen, and when to end."""

    temperature: float = 1.0
    """0 = always the most likely token."""
    top_p: float = 1.0
    """Only the most likely tokens that together have this probability are drawn from."""
    seed: int | None = None
    """The same seed gives the same answer; None: a new one each time."""
    max_tokens: int
    stop: tuple[str, ...] = ()


@dataclass(frozen=True)
class Finish:
    """How an answer ended: `stop` by the model or a stop text, `length` by the limit, `cancelled`."""

    reason: str
    completion_tokens: int


@dataclass(frozen=True, kw_only=True)
class ServedModel:
    """A causal language model with its tokenizer and chat template."""

    network: Any
    tokenizer: TextTokenizer
    template: ChatTemplate
    stop_ids: frozenset[int]
    options: dict[str, Any]
    """Further arguments of each step."""
    context: int
    """Most tokens of prompt and answer together."""
    device: str

    def prompt(self, conversation: Conversation) -> list[int]:
        """Ids of the rendered messages, by the same code that training uses. Raises ApiError when they do not fit."""
        try:
            ids = tokenize_prompt(conversation, self.tokenizer, self.template)
        except DataError as error:
            raise ApiError(f"{error}.", code="template_error", param="messages") from error
        if len(ids) >= self.context:
            raise context_exceeded(prompt=len(ids), context=self.context)
        return ids

    def answer(
        self, prompt: list[int], sampling: Sampling, *, is_cancelled: Callable[[], bool]
    ) -> Iterator[str | Finish]:
        """Pieces of the answer's text as they come, then how it ended."""
        text = TokenText(lambda ids: self.tokenizer.tokenizer.decode(list(ids), skip_special_tokens=True))
        stops = StopText(sampling.stop)
        limit = min(sampling.max_tokens, self.context - len(prompt))
        reason, count = "length", 0
        for identity in self._ids(prompt, sampling):
            count += 1
            if identity in self.stop_ids:
                reason = "stop"
                break
            if piece := stops.add(text.add(identity)):
                yield piece
            if stops.found or is_cancelled() or count >= limit:
                reason = "stop" if stops.found else "cancelled" if is_cancelled() else "length"
                break
        if rest := stops.add(text.close()) + stops.close():
            yield rest
        yield Finish("stop" if stops.found else reason, count)

    def _ids(self, prompt: list[int], sampling: Sampling) -> Iterator[int]:
        """Ids without end; each step feeds one token and the memory of all before it."""
        import torch

        draw = _Draw(sampling, device=self.device, vocabulary=self.tokenizer.vocab_size)
        fed, memory = torch.tensor([prompt], device=self.device), None
        while True:
            # Not around the yield: the mode belongs to the thread, and whoever reads us may do other things in between.
            with torch.inference_mode():
                output = self.network(input_ids=fed, past_key_values=memory, use_cache=True, **self.options)
                identity = draw(output.logits[0, -1])
                fed, memory = torch.tensor([[identity]], device=self.device), output.past_key_values
            yield identity


class _Draw:
    """Chooses the next id from the logits."""

    def __init__(self, sampling: Sampling, *, device: str, vocabulary: int) -> None:
        import torch

        self._sampling = sampling
        self._vocabulary = vocabulary
        self._generator = torch.Generator(device=device)
        if sampling.seed is None:
            self._generator.seed()
        else:
            self._generator.manual_seed(sampling.seed)

    def __call__(self, logits: torch.Tensor) -> int:
        import torch

        # Models pad their vocabulary; ids beyond the tokenizer's mean nothing.
        logits = logits[: self._vocabulary].float()
        if self._sampling.temperature < 1e-3:
            return int(logits.argmax())
        probabilities = torch.softmax(logits / self._sampling.temperature, dim=-1)
        if self._sampling.top_p < 1:
            probabilities = _nucleus(probabilities, self._sampling.top_p)
        return int(torch.multinomial(probabilities, 1, generator=self._generator))


def _nucleus(probabilities: torch.Tensor, top_p: float) -> torch.Tensor:
    """The most likely tokens up to and including the one that reaches top_p; the others get zero."""
    import torch

    ordered, order = probabilities.sort(descending=True)
    ordered[ordered.cumsum(0) - ordered >= top_p] = 0
    return torch.zeros_like(probabilities).scatter_(0, order, ordered)


def load_model(directory: Path, *, device: str, threads: int, template: str = OWN_TEMPLATE) -> ServedModel:
    """Reads a model directory: safetensors, no code of the model's own. Raises ConfigError in a sentence."""
    check_directory(directory)
    try:
        tokenizer = load_tokenizer(directory)
        chat = tokenizer.template(template)
    except DataError as error:
        raise ConfigError(str(error)) from error

    import torch
    from transformers import AutoModelForCausalLM
    from transformers.utils.logging import disable_progress_bar

    if device == "cuda" and not torch.cuda.is_available():
        raise ConfigError("the device is cuda, but this process sees no CUDA device; choose cpu")
    torch.set_num_threads(threads)
    disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        network: Any = AutoModelForCausalLM.from_pretrained(
            directory,
            # Most CPUs compute in half precision much slower, if at all.
            dtype=torch.float32 if device == "cpu" else "auto",
            use_safetensors=True,
            trust_remote_code=False,
            local_files_only=True,
        )
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise ConfigError(f"the model in {directory} cannot be loaded: {lines[0]}") from error
    network.to(device).eval()
    return ServedModel(
        network=network,
        tokenizer=tokenizer,
        template=chat,
        stop_ids=_stop_ids(network, tokenizer, chat),
        # Logits of the whole prompt would take more memory than the model.
        options={"logits_to_keep": 1} if "logits_to_keep" in signature(network.forward).parameters else {},
        context=int(getattr(network.config, "max_position_embeddings", 0) or _FALLBACK_CONTEXT),
        device=device,
    )


def check_directory(directory: Path) -> None:
    """Refuses what is no model directory before anything heavy is imported. Raises ConfigError."""
    if not (directory / "config.json").is_file():
        raise ConfigError(f"{directory} is no model directory: it has no config.json")
    if not any(directory.glob("*.safetensors")):
        raise ConfigError(f"{directory} has no *.safetensors; weights in other formats can run code and are not loaded")


def _stop_ids(network: Any, tokenizer: TextTokenizer, template: ChatTemplate) -> frozenset[int]:
    """What training has taught the model to end with, and what its own files say."""
    named = getattr(network.generation_config, "eos_token_id", None)
    own = named if isinstance(named, list) else [] if named is None else [named]
    return frozenset([*tokenizer.stop_ids(template), *map(int, own)])
