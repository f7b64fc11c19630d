"""Questions to a real server over HTTP: retried, bounded, paid for once, and never beyond the cap."""

from __future__ import annotations

import json
import threading
import traceback
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest
from tests.integration.llm.chat_server import ChatServer, Says, prompt_of

from recsae.concepts.llm.asking import Asker
from recsae.concepts.llm.chat import ChatRequest, Message
from recsae.concepts.llm.usage import Usage
from recsae.errors import FailedPreconditionError, UnavailableError

if TYPE_CHECKING:
    from tests.integration.llm.conftest import Waits

Make = Callable[..., Asker]


def questions(count: int, size: int = 10) -> list[ChatRequest]:
    return [ChatRequest("tiny", "test-1", (Message("user", f"{n:0{size}}"),), answer_tokens=50) for n in range(count)]


def in_turn(*says: Says) -> Callable[[dict[str, Any]], Says]:
    """One behaviour per request, then the last for ever."""
    waiting = list(says)
    return lambda _body: waiting.pop(0) if len(waiting) > 1 else waiting[0]


def test_answers_come_back_in_the_order_of_the_questions(server: ChatServer, make_asker: Make) -> None:
    server.script = lambda body: Says(f"heard {prompt_of(body)}")
    answers = make_asker({"api_key": "s3cret"}).ask_all(questions(20))
    assert [answer.text for answer in answers] == [f"heard {n:010}" for n in range(20)]
    assert {headers["Authorization"] for headers in server.headers} == {"Bearer s3cret"}
    assert json.loads(server.bodies[0]) | {"messages": []} == {
        "model": "tiny", "messages": [], "max_tokens": 50, "temperature": 0.0,
    }  # fmt: skip


def test_what_was_asked_before_is_not_asked_again(server: ChatServer, make_asker: Make) -> None:
    first = make_asker()
    first.ask_all(questions(5))
    second = make_asker()
    answers = second.ask_all(questions(7))
    assert server.requests == 7
    assert (second.spend.requests, second.spend.cached) == (2, 5)
    assert second.spend.usage == Usage(200, 20)
    assert {answer.text for answer in answers} == {"fine"}


def test_the_same_question_twice_is_asked_once(server: ChatServer, make_asker: Make) -> None:
    done: list[int] = []
    answers = make_asker().ask_all(questions(3) + questions(3), lambda count, _spend: done.append(count))
    assert len(answers) == 6
    assert server.requests == 3
    assert done[-1] == 6


@pytest.mark.parametrize("change", [{"model": "other"}, {"prompt": "test-2"}, {"answer_tokens": 51}])
def test_another_model_prompt_or_parameter_is_another_question(
    server: ChatServer, make_asker: Make, change: dict[str, Any]
) -> None:
    made: dict[str, Any] = {
        "model": "tiny",
        "prompt": "test-1",
        "messages": (Message("user", "x"),),
        "answer_tokens": 50,
    }
    make_asker().ask_all([ChatRequest(**made), ChatRequest(**{**made, **change})])
    assert server.requests == 2


def test_a_file_cut_short_in_the_cache_is_asked_for_again(server: ChatServer, make_asker: Make, tmp_path: Any) -> None:
    make_asker().ask_all(questions(1))
    (stored,) = (tmp_path / "answers").rglob("*.json")
    stored.write_bytes(stored.read_bytes()[:10])
    assert make_asker().ask_all(questions(1))[0].text == "fine"
    assert server.requests == 2


def test_never_more_calls_are_in_flight_than_allowed(server: ChatServer, make_asker: Make) -> None:
    three = threading.Barrier(3)

    def all_three_are_here(_body: dict[str, Any]) -> Says:
        three.wait(20)  # breaks, and the request fails, unless three are in flight
        return Says("fine")

    server.script = all_three_are_here
    answers = make_asker({"concurrency": 3}).ask_all(questions(12))
    assert [answer.text for answer in answers] == ["fine"] * 12
    assert server.most_at_once == 3


def test_a_server_that_asks_to_wait_is_given_that_time(server: ChatServer, make_asker: Make, waits: Waits) -> None:
    busy = Says("slow down", status=429, headers={"Retry-After": "17"})
    dated = Says("slow down", status=503, headers={"Retry-After": "Sun, 09 Sep 2001 01:47:10 GMT"})
    server.script = in_turn(busy, dated, Says("fine"))
    assert make_asker().ask_all(questions(1))[0].text == "fine"
    assert waits.seconds == [17.0, 30.0]  # the asker's clock stands at 01:46:40


def test_waits_double_when_the_server_does_not_say(server: ChatServer, make_asker: Make, waits: Waits) -> None:
    server.script = in_turn(*[Says("oops", status=500)] * 3, Says("fine"))
    assert make_asker().ask_all(questions(1))[0].text == "fine"
    assert waits.seconds == [1.0, 2.0, 4.0]


def test_a_server_that_asks_for_an_hour_is_not_waited_for(server: ChatServer, make_asker: Make, waits: Waits) -> None:
    server.script = in_turn(Says("later", status=429, headers={"Retry-After": "3600"}))
    answer = make_asker().ask_all(questions(1))[0]
    assert "no answer after 1 tries: HTTP 429" in answer.failure
    assert waits.seconds == []


def test_a_call_that_hangs_ends_at_its_deadline_and_is_tried_again(server: ChatServer, make_asker: Make) -> None:
    first = server.hang()
    server.script = in_turn(first, Says("fine"))
    asker = make_asker({"timeout_s": 0.2})
    assert asker.ask_all(questions(1))[0].text == "fine"
    assert server.requests == 2
    # The server may have worked on the first one, so it counts at its worst case.
    assert asker.spend.usage == Usage(100, 10) + questions(1)[0].worst


def test_a_response_that_never_ends_ends_at_the_deadline_of_its_call(server: ChatServer, make_asker: Make) -> None:
    """The head arrives at once, the body never does."""
    server.script = lambda _body: Says(raw=b"{", headers={"Content-Length": "100"})
    answer = make_asker({"timeout_s": 0.2, "retries": 1}).ask_all(questions(1))[0]
    assert answer.failure.startswith("no answer after 2 tries: ")


def test_a_question_that_fails_costs_no_other(server: ChatServer, make_asker: Make) -> None:
    server.script = lambda body: Says("too long", status=400) if "7" in prompt_of(body) else Says("fine")
    answers = make_asker().ask_all(questions(12))
    assert [at for at, answer in enumerate(answers) if answer.failure] == [7]
    assert answers[7].failure == 'the request was refused: HTTP 400: {"error": {"message": "too long"}}'


def test_what_is_no_chat_completion_is_a_failure_and_counts_at_its_worst(server: ChatServer, make_asker: Make) -> None:
    shapes = [b"not json", b"[]", b'{"choices": []}', b'{"choices": [{"message": {"content": null}}]}', b"\xff"]
    for shape in shapes:
        server.script = lambda _body, shape=shape: Says(raw=shape)  # type: ignore[misc]
        asker = make_asker()
        assert "no chat completion" in asker.ask_all(questions(1))[0].failure
        assert asker.spend.usage == questions(1)[0].worst
    assert server.requests == len(shapes)  # never tried again, never cached


def test_an_endpoint_that_is_down_ends_the_asking_and_keeps_what_was_answered(
    server: ChatServer, make_asker: Make
) -> None:
    server.script = lambda body: Says("fine") if prompt_of(body) < f"{5:010}" else Says("down: Alien", status=502)
    told = r"3 questions in a row got no answer .*RECSAE_WORKER_LLM_URL.*last: HTTP 502; answers so far are kept"
    with pytest.raises(UnavailableError, match=told) as caught:
        make_asker({"concurrency": 1, "retries": 0}).ask_all(questions(50))
    assert "Alien" not in "".join(traceback.format_exception(caught.value))  # what a server quotes is not for logs
    assert server.requests == 8
    server.script = lambda _body: Says("fine")
    asker = make_asker()
    asker.ask_all(questions(50))
    assert asker.spend.cached == 5


@pytest.mark.parametrize(
    ("status", "named"), [(401, "RECSAE_WORKER_LLM_API_KEY"), (403, "API_KEY"), (404, "RECSAE_WORKER_LLM_MODEL")]
)
def test_wrong_settings_end_the_asking_at_once_and_are_named(
    server: ChatServer, make_asker: Make, status: int, named: str
) -> None:
    server.script = lambda _body: Says("no", status=status)
    with pytest.raises(FailedPreconditionError, match=named) as caught:
        make_asker({"api_key": "s3cret", "concurrency": 1}).ask_all(questions(50))
    assert server.requests == 1
    assert "s3cret" not in str(caught.value)


def test_an_address_where_nothing_listens_costs_nothing(make_asker: Make) -> None:
    asker = make_asker({"url": "http://127.0.0.1:1/v1", "retries": 0})
    assert "ConnectError" in asker.ask_all(questions(1))[0].failure
    assert asker.spend.usage == Usage()


def test_the_call_that_could_exceed_the_token_cap_is_not_sent(server: ChatServer, make_asker: Make) -> None:
    worst = questions(1)[0].worst.tokens
    cap = 110 * 6 + worst - 1  # after six answers of 110 tokens the seventh does not fit
    asker = make_asker({"max_tokens": cap, "concurrency": 1})
    answers = asker.ask_all(questions(10))
    assert server.requests == 6
    assert [answer.asked for answer in answers] == [True] * 6 + [False] * 4
    assert asker.spend.usage.tokens == 660 <= cap
    assert f"RECSAE_WORKER_LLM_MAX_TOKENS is {cap}" in asker.spend.stopped


def test_the_cost_cap_counts_calls_in_flight(server: ChatServer, make_asker: Make) -> None:
    """Four calls at once, each within the cap, together beyond it: none may overshoot."""
    worst = questions(1)[0].worst
    price = {"price_in": 1e6, "price_out": 2e6}  # 1 and 2 a token
    most = worst.tokens_in + 2 * worst.tokens_out
    server.script = lambda _body: Says("fine", tokens_in=worst.tokens_in, tokens_out=worst.tokens_out)
    asker = make_asker({**price, "max_cost": 2.5 * most, "concurrency": 4})
    answers = asker.ask_all(questions(10))
    assert server.requests == sum(answer.asked for answer in answers) == 2
    assert asker.spend.cost == 2 * most
    assert "RECSAE_WORKER_LLM_MAX_COST" in asker.spend.stopped


def test_a_spent_budget_still_answers_from_the_cache(server: ChatServer, make_asker: Make) -> None:
    make_asker().ask_all(questions(5))
    answers = make_asker({"max_tokens": 1}).ask_all(questions(8))
    assert [answer.asked for answer in answers] == [True] * 5 + [False] * 3
    assert server.requests == 5


def test_a_server_that_counts_no_tokens_is_counted_at_the_worst_case(server: ChatServer, make_asker: Make) -> None:
    server.script = lambda _body: Says("fine", counts_tokens=False)
    asker = make_asker()
    asker.ask_all(questions(3))
    assert asker.spend.usage.tokens == 3 * questions(1)[0].worst.tokens


def test_a_run_that_is_stopped_goes_on_without_paying_again(server: ChatServer, make_asker: Make) -> None:
    """Stopped in the middle, as a kill or a cancelled run would: answers are in the cache, the cost is recorded."""
    recorded: list[Usage] = []

    class StoppedError(Exception):
        """The run was cancelled."""

    def stop(done: int, _spend: object) -> None:
        if done >= 10:
            raise StoppedError

    blocked = threading.Event()
    answered = iter(range(1000))
    server.script = lambda _body: Says("fine", until=blocked if next(answered) >= 10 else None)
    first = make_asker({"concurrency": 1}, record=recorded.append)
    with pytest.raises(StoppedError):
        first.ask_all(questions(30), stop)
    blocked.set()
    assert server.requests == 11
    worst = questions(1)[0].worst
    assert recorded[-1] == first.spend.usage == Usage(1000, 100) + worst  # one was in flight
    second = make_asker({"max_tokens": 20 * 110 + 1000}, before=recorded[-1], record=recorded.append)
    second.ask_all(questions(30))
    assert second.spend.cached == 10
    assert server.requests == 11 + second.spend.requests
    assert second.spend.usage.tokens == first.spend.usage.tokens + 110 * second.spend.requests
    assert second.spend.usage.tokens <= 20 * 110 + 1000
    assert second.spend.stopped
