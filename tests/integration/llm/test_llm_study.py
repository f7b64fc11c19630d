"""The study's figures where they are known: a model that understands the world, and one that does not."""

from __future__ import annotations

from pathlib import Path

from benchmarks.study.llm import llm_study
from tests.integration.llm.chat_server import ChatServer, Says
from tests.integration.llm.planted_world import GENRES, is_rating, make_inputs, reads_genres

from recsae.concepts.build import build_dictionary
from recsae.concepts.llm.cases import Mix
from recsae.concepts.llm.options import LlmOptions

MIX = Mix(6, 6, 0, 0)


def test_a_model_that_understands_stands_out_from_chance_and_one_that_always_says_yes_does_not(
    server: ChatServer, tmp_path: Path
) -> None:
    inputs = make_inputs()
    dictionary = build_dictionary(inputs)
    settings = LlmOptions(server.url, "tiny")
    server.script = reads_genres
    good = llm_study(dictionary, inputs, settings, GENRES, cache=str(tmp_path / "good"), mix=MIX)
    assert (good["latents"], good["described"], good["rated"], good["unrated_share"]) == (GENRES, GENRES, GENRES, 0)
    assert good["correlation"]["low"] > 0.7
    assert good["correlation_above_0_share"]["value"] == 1
    assert good["f1"]["value"] > good["always_true_f1"] == 0.6667
    assert good["rules_f1"]["value"] > 0.7
    assert good["recsae_10_case"]["passes"]["value"] == 1
    assert good["recsae_10_case"]["swapped_passes"]["value"] == 0
    assert good["recsae_10_case"]["coin_flip_passes"] == 0.0547
    assert {example["label"] for example in good["examples"]} == {f"Genre {latent}" for latent in range(GENRES)}

    server.script = lambda body: Says('{"strength": 10}') if is_rating(body) else reads_genres(body)
    yes = llm_study(dictionary, inputs, settings, GENRES, cache=str(tmp_path / "yes"), mix=MIX)
    assert (yes["correlation"]["value"], yes["f1"]["value"]) == (0, 0.6667)
    assert yes["recsae_10_case"]["mean"]["value"] == yes["recsae_10_case"]["swapped_mean"]["value"] == 0.5
