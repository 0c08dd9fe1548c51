"""What `espalier runs create` sends: a YAML file under the names of the field, and flags that go before it.

name: my first tuning
stage: sft
finetuning_type: lora
base_model: {run_id: 0192…}          # or {hub: Qwen/Qwen3-0.6B}, {directory: /models/x}, {scratch: {…}}
datasets: [questions]                # a name, a name with its version (questions:2), or a version's id
hyperparameters: {learning_rate: 0.001, num_train_epochs: 3}
lora: {lora_rank: 16}
deepspeed: {zero_stage: 2}
resources: {device: cpu, processes_per_node: 2}
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from espalier_client.errors import InvalidInput, UsageError

# Enums of the API, and what each word of ours is there.
ENUMS: Mapping[tuple[str, ...], str] = {
    ("stage",): "STAGE_",
    ("finetuning_type",): "FINETUNING_TYPE_",
    ("resources", "device"): "DEVICE_",
    ("deepspeed", "offload"): "OFFLOAD_",
}


def read(path: Path) -> dict[str, Any]:
    """The content of a run file. Raises InvalidInput, with line and column, when it is no YAML mapping."""
    import yaml

    try:
        content = yaml.safe_load(path.read_text("utf-8"))
    except FileNotFoundError as error:
        raise UsageError(f"{path} does not exist.") from error
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput(f"{path} cannot be read: {error}.") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise InvalidInput(f"{path}{where}: this is no YAML: {getattr(error, 'problem', error)}.") from error
    if not isinstance(content, dict):
        raise InvalidInput(f"{path} must hold a mapping such as `name: my run`.")
    return content


def merged(file: Mapping[str, Any], flags: Mapping[str, Any]) -> dict[str, Any]:
    """The file with the flags over it; None means that a flag was not given."""
    result = dict(file)
    for name, value in flags.items():
        if value is None or value in ([], {}):
            continue
        old = result.get(name)
        merge = isinstance(value, Mapping) and isinstance(old, Mapping) and name != "base_model"
        result[name] = merged(old, value) if merge and isinstance(old, Mapping) else value
    return result


def request(content: Mapping[str, Any], *, dataset_version: Callable[[str], str]) -> dict[str, Any]:
    """The Run to send. What is not known here is sent as it is, and the platform says what is wrong with it."""
    run = dict(content)
    name = run.pop("name", "")
    if "spec" in run:  # the API's own form, such as `espalier runs get -o yaml` shows it
        return {"name": name, "spec": run["spec"]}
    references = run.pop("datasets", [])
    if not isinstance(references, list):
        raise InvalidInput("`datasets` must be a list, such as [questions, questions:2].")
    given = list(run.pop("dataset_version_ids", []))
    spec = _with_enums(run)
    spec["dataset_version_ids"] = [*given, *(dataset_version(str(item)) for item in references)]
    if isinstance(spec.get("deepspeed"), dict):
        spec["deepspeed"].setdefault("enabled", True)
    return {"name": name, "spec": spec}


def assignments(pairs: Sequence[str]) -> dict[str, Any]:
    """`name=value` flags as a mapping, each value read as YAML reads it."""
    import yaml

    values: dict[str, Any] = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not equals or not name:
            raise UsageError(f"{pair!r} must be NAME=VALUE, such as learning_rate=0.001.")
        try:
            value = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise UsageError(f"{pair!r}: the value cannot be read.") from error
        values[name] = _as_number(value)
    return values


def _as_number(value: Any) -> Any:
    """YAML 1.1 takes 1e-3 for a text."""
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return value
    return value


def _with_enums(run: Mapping[str, Any]) -> dict[str, Any]:
    spec = {name: dict(value) if isinstance(value, Mapping) else value for name, value in run.items()}
    for path, prefix in ENUMS.items():
        holder: Any = spec
        for part in path[:-1]:
            holder = holder.get(part) if isinstance(holder, dict) else None
        if isinstance(holder, dict) and isinstance(holder.get(path[-1]), str):
            text = holder[path[-1]].upper()
            holder[path[-1]] = text if text.startswith(prefix) else prefix + text
    return spec
