"""The five stages of the demo. Everything goes through the public API, as any user would do it."""

import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from espalier_client.api import Api
from espalier_client.commands.chat import open_session, send
from espalier_client.commands.models import deploy_version, register_run, undeploy_deployment, wait_until_ready
from espalier_client.demo import data, questions, recipe, report, trainings
from espalier_client.demo.report import MODELS, Result
from espalier_client.output import duration, note, number, stdout, table_of

REGISTERED = {"base": "python-docs-base", "tuned": "python-docs-tuned"}
DEPLOYED = {"base": "demo-base", "tuned": "demo-tuned"}
STAGES = 5


class Demo:
    """One run of the demo. `home` is the platform's directory; `base_model` a directory, a hub name, or nothing."""

    def __init__(self, api: Api, *, home: Path, device: str, base_model: str | None) -> None:
        self._api = api
        self._directory = home / "demo"
        self._device = device
        self._base_model = base_model
        self.seconds: dict[str, float] = {}

    def play(self) -> Result:
        """All five stages. Gives what was measured."""
        prepared = self._prepare_data()
        base = self._pretrain(prepared)
        tuned, resume = self._tune(prepared, base)
        deployments = self._deploy({"base": base, "tuned": tuned})
        self._chat(deployments, prepared.heldout)
        return self._measure(prepared, base, tuned, resume, deployments)

    def _prepare_data(self) -> data.DemoData:
        stage(1, "text and questions out of the Python standard library's documentation")
        prepared = data.prepare(self._api, self._directory / "data")
        for version, name in ((prepared.corpus, data.CORPUS), (prepared.questions, data.QUESTIONS)):
            note(f"{name}, version {version['version']}: {data.rows_of(version):,} rows, every one checked")
        return prepared

    def _pretrain(self, prepared: data.DemoData) -> dict[str, Any]:
        what = f"go on training {self._base_model}" if self._base_model else "train a tokenizer and a small Llama"
        stage(2, f"{what} on the text")
        spec = recipe.pretraining(prepared.corpus["id"], device=self._device, base_model=self._base_model)
        with self._timed("pt"):
            return trainings.train(self._api, spec)

    def _tune(self, prepared: data.DemoData, base: dict[str, Any]) -> tuple[dict[str, Any], dict[str, int]]:
        stage(3, "tune it on the questions: LoRA, two ranks, DeepSpeed ZeRO-2; stop in the middle, resume")
        spec = recipe.tuning(
            prepared.questions["id"], base_run_id=base["id"], device=self._device, base_model=self._base_model
        )
        with self._timed("sft"):
            tuned, resume = trainings.train_with_a_stop(self._api, spec)
        self._show_curve(tuned, resume["stopped_at_step"])
        return tuned, resume

    def _show_curve(self, run: dict[str, Any], step: int) -> None:
        around = report.curve(trainings.points_of(self._api, run), around=step)
        rows = [(at, attempt, number(loss)) for at, attempt, loss in around]
        stdout().print(table_of(("step", "attempt", "loss"), rows, title=f"The curve around the stop at step {step}"))

    def _deploy(self, runs: Mapping[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
        stage(4, "register and deploy both models, and talk to them")
        with self._timed("deploy"):
            for name in DEPLOYED.values():
                self._undeploy(name)
            versions = {model: register_run(self._api, REGISTERED[model], runs[model]["id"]) for model in MODELS}
            started = {
                model: deploy_version(self._api, versions[model]["id"], name=DEPLOYED[model], device=self._device)
                for model in MODELS
            }
            ready = {model: wait_until_ready(self._api, deployment) for model, deployment in started.items()}
        for model, version in versions.items():
            origin = version["lineage"].get("base_run_id")
            note(
                f"{DEPLOYED[model]}: {version['model_name']} version {version['version']}, "
                f"{version['parameters'] / 1e6:.2f} M parameters, run {version['lineage']['run_id']}"
                + (f", which began from run {origin}" if origin else "")
            )
        return ready

    def _undeploy(self, name: str) -> None:
        for deployment in self._api.all("/api/v1/deployments", "deployments"):
            if deployment["name"] == name and deployment["state"] != "DEPLOYMENT_STATE_STOPPED":
                undeploy_deployment(self._api, deployment["id"])

    def _chat(self, deployments: Mapping[str, dict[str, Any]], rows: list[dict[str, str]]) -> None:
        row = questions.sample(rows, 1)[0]
        stdout().print(f"Question (held out): {row['instruction']}", markup=False)
        for model, deployment in deployments.items():
            session = open_session(self._api, deployment["id"], parameters=questions.PARAMETERS)
            stdout().print(f"{model:>6}: ", end="", markup=False)
            for delta in send(self._api, session, row["instruction"]):
                sys.stdout.write(delta["text"].replace("\n", " "))
                sys.stdout.flush()
            sys.stdout.write("\n")
        stdout().print(f"  docs: {row['output']}", markup=False)

    def _measure(
        self,
        prepared: data.DemoData,
        base: dict[str, Any],
        tuned: dict[str, Any],
        resume: dict[str, int],
        deployments: Mapping[str, dict[str, Any]],
    ) -> Result:
        stage(5, f"measure: {questions.QUESTIONS} held-out and {questions.QUESTIONS} seen questions to each model")
        points = trainings.points_of(self._api, tuned)
        quality = {
            label: self._quality(label, rows, points, deployments)
            for label, rows in ((data.HELDOUT, prepared.heldout), (data.SEEN, prepared.seen))
        }
        speeds = {"pt": report.mean_speed(trainings.points_of(self._api, base)), "sft": report.mean_speed(points)}
        return Result(
            heldout=quality[data.HELDOUT],
            seen=quality[data.SEEN],
            resume=resume,
            runs=[base["id"], tuned["id"]],
            tokens_per_second=speeds,
            seconds=self.seconds,
        )

    def _quality(
        self,
        label: str,
        rows: list[dict[str, str]],
        points: list[dict[str, Any]],
        deployments: Mapping[str, dict[str, Any]],
    ) -> dict[str, dict[str, float]]:
        measured = report.evaluation(points, label)
        identities = {model: deployment["id"] for model, deployment in deployments.items()}
        answers = questions.ask_all(self._api, identities, questions.sample(rows))
        for model in MODELS:
            name = f"demo: {model}, {label} questions"
            measured[model]["rouge_l"] = questions.rouge_l(self._api, name, answers[model])
        return measured

    @contextmanager
    def _timed(self, name: str) -> Iterator[None]:
        began = time.monotonic()
        yield
        self.seconds[name] = time.monotonic() - began


def stage(count: int, what: str) -> None:
    """A line that says where the demo is."""
    stdout().print(f"\n[bold]{count}/{STAGES}[/] {what}", style="cyan" if count else "")


def closing_lines(result: Result, file: Path) -> None:
    """The table at the end."""
    stdout().print()
    stdout().print(result.quality_table())
    stdout().print()
    stdout().print(result.cost_table())
    note(f"the same in {file}; the whole took {duration(result.seconds['total'])}")
