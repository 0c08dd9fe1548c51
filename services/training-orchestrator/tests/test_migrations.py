"""Entities and migrations say the same; what migrations write is right."""

import importlib.util
from pathlib import Path
from typing import Any

from sqlalchemy import select, text

from espalier_common.db import new_id
from espalier_common.testing.migrations import assert_migrations_match
from espalier_training_orchestrator.models import Base
from espalier_training_orchestrator.runs.models import Run

MIGRATIONS = Path(__file__).parents[1] / "migrations" / "versions"


def test_the_migrations_make_what_the_entities_expect(database_url: str) -> None:
    assert_migrations_match("espalier_training_orchestrator", Base.metadata, database_url)


def test_runs_of_the_release_before_get_the_model_that_they_count_for(migrated_database: Any) -> None:
    database = migrated_database("espalier_training_orchestrator")
    ids = [new_id() for _ in range(6)]
    bases: list[tuple[str, dict[str, Any]]] = [
        ("mine", {"scratch": {"hidden_size": 32}, "run_id": "", "directory": "", "hub": ""}),
        ("mine", {"run_id": ids[0]}),
        ("mine", {"run_id": ids[1]}),
        ("Qwen/Qwen3-0.6B", {"hub": "Qwen/Qwen3-0.6B"}),
        ("tiny", {"directory": "/models/some/tiny"}),
        ("tiny", {"directory": "/models/tiny//"}),
    ]
    with database.transaction() as session:
        for number, (run_id, (_, base)) in enumerate(zip(ids, bases, strict=True)):
            name = "another" if number else "mine"
            document = {"base_model": base}
            session.add(Run(id=run_id, owner_id="me", name=name, document=document, world_size=1, device="cpu"))
    place = importlib.util.spec_from_file_location("models_of_runs", MIGRATIONS / "0005_models_of_runs.py")
    assert place
    assert place.loader
    migration = importlib.util.module_from_spec(place)
    place.loader.exec_module(migration)
    with database.transaction() as session:
        session.execute(text(migration.NAME_THEM))
    with database.transaction() as session:
        found = dict(session.execute(select(Run.id, Run.model)).all())
    assert [found[run_id] for run_id in ids] == [model for model, _ in bases]
