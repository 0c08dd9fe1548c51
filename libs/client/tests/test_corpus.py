"""The demo's text is real, plentiful, and held out cleanly."""

from __future__ import annotations

from espalier_client.demo.corpus import corpus_rows, documented, question_answer_rows, split_of
from espalier_client.demo.recipe import pretraining, tuning


def test_there_are_thousands_of_rows_and_some_are_held_out() -> None:
    counts = {
        (make.__name__, split): sum(1 for _ in make(split))
        for make in (corpus_rows, question_answer_rows)
        for split in ("train", "validation")
    }
    assert counts["corpus_rows", "train"] > 4000
    assert counts["question_answer_rows", "train"] > 3000
    assert counts["corpus_rows", "validation"] > 200
    assert counts["question_answer_rows", "validation"] > 200


def test_no_answer_stands_on_both_sides_nor_in_the_corpus_that_is_trained_on() -> None:
    held_out = {row["output"] for row in question_answer_rows("validation")}
    assert not held_out & {row["output"] for row in question_answer_rows("train")}
    names = {f"{item.name}{item.signature}\n\n{item.text}" for item in documented() if item.summary in held_out}
    assert names
    assert not names & {row["text"] for row in corpus_rows("train")}


def test_a_known_function_is_asked_about_by_its_public_name() -> None:
    rows = [row for split in ("train", "validation") for row in question_answer_rows(split)]
    [row] = [row for row in rows if row["instruction"] == "What does textwrap.dedent do?"]
    assert row["output"] == "Remove any common leading whitespace from every line in `text`."
    assert any(row["instruction"].startswith("What does os.path.") for row in rows)


def test_the_split_hangs_on_the_first_paragraph_alone() -> None:
    assert split_of("One  paragraph\nhere.\n\nMore.") == split_of("One paragraph here.")


def test_a_model_that_can_write_is_tuned_gently_and_from_its_own_source() -> None:
    scratch = pretraining("d", device="cpu")["spec"]
    assert scratch["base_model"]["scratch"]["vocab_size"] == 2048
    assert scratch["resources"]["processes_per_node"] == 2
    model = pretraining("d", device="cuda", base_model="someone/model")["spec"]
    assert model["base_model"] == {"hub": "someone/model"}
    assert model["resources"]["device"] == "DEVICE_CUDA"
    tuned = tuning("d", base_run_id="r", device="cuda", base_model="someone/model")["spec"]
    assert tuned["lora"]["lora_target"] == ["all-linear"]
