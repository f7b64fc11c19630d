"""What a language model said, from the record over the contract to the terminal; and its settings."""

from __future__ import annotations

from dataclasses import replace

import pytest
from rich.console import Console

from recsae.cli.run_bars import measures_text
from recsae.cli.views import concept_detail
from recsae.concepts.dictionary import ConceptRecord, ConceptStatus
from recsae.concepts.estimates import Estimate
from recsae.concepts.llm.options import LlmOptions
from recsae.concepts.records import LlmRecord, concept_from_json
from recsae.errors import InvalidRequestError
from recsae.pipeline.runs import RunConfig, new_run
from recsae.pipeline.sweeps import SweepGrid
from recsae.v1 import interpreter_pb2, pipeline_pb2
from recsae_interpreter.convert import concept_response
from recsae_interpreter.convert_pipeline import run_config, run_message
from recsae_interpreter.handlers.concepts import FoundConcept
from recsae_worker.settings import WorkerSettings

SAID = LlmRecord(
    label="[red]Slashers[/]",
    description="Histories that end in slasher films.",
    model="tiny",
    prompts="describe-1, verify-1",
    cases=38,
    correlation=Estimate(0.5, 0.25, 0.75),
    f1=Estimate(0.8, 0.7, 0.9),
    unrated=2,
    recsae_10_case=0.8,
    swapped_10_case=0.5,
)
CONFIG = RunConfig(model="sasrec", dataset_version="0123456789abcdef")


def detail(said: LlmRecord | None) -> interpreter_pb2.ConceptDetail:
    concept = ConceptRecord("c-00000001", 3, "Recent: Horror", status=ConceptStatus.VERIFIED, llm=said)
    return concept_response(FoundConcept(concept_from_json(concept.as_json()), CONFIG_TRIPLE)).detail


CONFIG_TRIPLE = new_run(CONFIG, 0.0).triple


def shown(said: LlmRecord | None) -> str:
    console = Console(width=200, record=True, file=None, quiet=False)
    with console.capture() as capture:
        console.print(concept_detail(detail(said)))
    return capture.get()


def test_the_contract_carries_all_of_it() -> None:
    message = detail(SAID).llm
    assert (message.label, message.description, message.model) == (SAID.label, SAID.description, "tiny")
    assert (message.prompts, message.cases, message.unrated) == ("describe-1, verify-1", 38, 2)
    assert (message.correlation.value, message.correlation.low) == (0.5, 0.25)
    assert message.f1.high == pytest.approx(0.9)
    assert message.recsae_10_case == pytest.approx(0.8)
    assert not detail(replace(SAID, recsae_10_case=None)).llm.HasField("recsae_10_case")
    assert not detail(None).HasField("llm")


def test_the_terminal_shows_words_scores_and_the_control_and_no_markup_of_the_model() -> None:
    text = shown(SAID)
    assert "Language model: [red]Slashers[/]  (tiny)" in text
    assert "38 histories rated: r 0.50 (0.25 to 0.75), F1 0.80 (0.70 to 0.90; always yes: .67)" in text
    assert "RecSAE's 10 cases 0.8, with another's words 0.5" in text
    assert "Language model" not in shown(None)


def test_the_terminal_says_why_there_are_no_words_or_scores() -> None:
    assert "Language model tiny: the answer was nonsense" in shown(replace(SAID, failure="the answer was nonsense"))
    assert "no rating could be read" in shown(replace(SAID, cases=0))
    assert "too few cases, or the budget ended" in shown(replace(SAID, cases=0, unrated=0))


def test_a_run_is_asked_for_and_shown_with_its_number_of_concepts() -> None:
    config = run_config(pipeline_pb2.RefreshConfig(model="sasrec", dataset_version="0" * 16, llm_concepts=100))
    assert config.llm_concepts == 100
    assert run_message(new_run(config, 0.0)).config.llm_concepts == 100


def test_the_stage_comes_before_publishing_and_only_when_asked_for() -> None:
    stages = [stage.name for stage in new_run(replace(CONFIG, llm_concepts=5), 0.0).stages]
    assert stages[-2:] == ["llm", "publish"]
    assert "llm" not in [stage.name for stage in new_run(CONFIG, 0.0).stages]


@pytest.mark.parametrize("change", [{"llm_concepts": -1}, {"llm_concepts": 10_001}])
def test_a_number_of_concepts_that_can_never_work_is_refused(change: dict[str, int]) -> None:
    with pytest.raises(InvalidRequestError, match="llm_concepts"):
        new_run(replace(CONFIG, **change), 0.0)  # type: ignore[arg-type]
    with pytest.raises(InvalidRequestError, match="describes nothing"):
        new_run(replace(CONFIG, sweep=SweepGrid(), llm_concepts=1), 0.0)


def test_progress_shows_what_was_spent() -> None:
    assert measures_text({"llm_requests": 1234.0, "llm_tokens": 412_000.0, "llm_cost": 0.1234}) == (
        "1,234 requests · 412k tokens · cost 0.123"
    )


def test_workers_have_no_endpoint_unless_one_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    assert WorkerSettings().llm() is None
    monkeypatch.setenv("RECSAE_WORKER_LLM_URL", "http://127.0.0.1:8080/v1")
    with pytest.raises(ValueError, match="RECSAE_WORKER_LLM_URL is set and RECSAE_WORKER_LLM_MODEL is not"):
        WorkerSettings()
    monkeypatch.setenv("RECSAE_WORKER_LLM_MODEL", "tiny")
    monkeypatch.setenv("RECSAE_WORKER_LLM_API_KEY", "s3cret")
    settings = WorkerSettings()
    assert settings.llm() == LlmOptions("http://127.0.0.1:8080/v1", "tiny", "s3cret")
    assert "s3cret" not in repr(settings) + repr(settings.llm())


@pytest.mark.parametrize(
    ("change", "named"),
    [({"url": "ftp://x"}, "RECSAE_WORKER_LLM_URL"), ({"model": ""}, "RECSAE_WORKER_LLM_MODEL"),
     ({"concurrency": 0}, "CONCURRENCY"), ({"timeout_s": 0.0}, "timeout"), ({"max_cost": -1.0}, "cost")],
)  # fmt: skip
def test_options_that_can_never_work_are_refused_by_name(change: dict[str, object], named: str) -> None:
    made: dict[str, object] = {"url": "http://x/v1", "model": "m"}
    with pytest.raises(InvalidRequestError, match=named):
        LlmOptions(**(made | change))  # type: ignore[arg-type]
