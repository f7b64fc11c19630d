"""How a foreign graph looks in a terminal before it is imported, and as JSON: where it can be cut, what it reads."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.console import Group, RenderableType
from rich.markup import escape
from rich.text import Text

from recsae.cli.output import table

if TYPE_CHECKING:
    from recsae.recommenders.onnx_candidates import Candidate, Suggestion
    from recsae.recommenders.onnx_roles import Role
    from recsae.recommenders.onnx_study import Study

_STAR = "[yellow]★[/]"


def listing(study: Study, found: tuple[Candidate, ...], chosen: Suggestion, limit: int) -> RenderableType:
    """What the graph reads, the candidates nearest to the scores, the suggestion with its reason."""
    shown = found[-limit:]
    rows = [
        (
            _STAR if one is chosen.candidate else " ",
            f"[bold]{escape(one.name)}[/]" if one is chosen.candidate else escape(one.name),
            _type(f"{one.dtype} {_sizes(one)}"),
            one.operator,
            _crossing(one),
        )
        for one in shown
    ]
    earlier = f"; {len(found) - len(shown)} before them left out" if len(shown) < len(found) else ""
    title = f"{len(found)} tensors the graph can be cut at, in the order they are computed{earlier}"
    title = "The one tensor the graph can be cut at" if len(found) == 1 else title
    inputs = [(escape(role.tensor), _type(str(role.type)), escape(_meaning(role))) for role in study.roles]
    scores = study.seen[study.scores]
    gives = (escape(study.scores), _type(f"{scores.dtype} {scores}"), "[bold]scores[/]")
    return Group(
        table("What the graph reads and gives", ["tensor", "type", "taken for"], [*inputs, gives]),
        table(title, ["", "tensor", "type", "made by", "also crosses"], rows),
        Text.from_markup(f"{_STAR} {escape(chosen.reason)}"),
        *_sequences(study.sequences()),
    )


def record(study: Study, found: tuple[Candidate, ...], chosen: Suggestion, command: str) -> dict[str, Any]:
    """The same for scripts, every candidate."""
    return {
        "inputs": [{"name": role.tensor, "type": str(role.type), "role": _meaning(role)} for role in study.roles],
        "scores": {"name": study.scores, "shape": list(study.seen[study.scores].shape)},
        "candidates": [
            {
                "name": one.name,
                "shape": list(one.shape),
                "type": one.dtype,
                "operator": one.operator,
                "crossing": list(one.crossing),
                "crossing_numbers": one.crossing_numbers,
                "linear": one.linear,
            }
            for one in found
        ],
        "sequences": list(study.sequences()),
        "suggestion": {"name": chosen.candidate.name, "reason": chosen.reason},
        "next": command,
    }


def _sequences(names: tuple[str, ...]) -> list[Text]:
    """Layers before the cut, for comparison: first, last and how many."""
    if not names:
        return []
    some = names[0] if len(names) == 1 else f"{len(names)} tensors from {names[0]} to {names[-1]}"
    return [
        Text(f"With a further --activation, {some} can be read beside it, at the newest item; --json lists all.", "dim")
    ]


def _sizes(one: Candidate) -> str:
    return f"[{', '.join(str(size) for size in one.shape)}]"


def _type(text: str) -> str:
    kind, _, sizes = text.partition(" ")
    return f"[dim]{escape(kind)}[/] [cyan]{escape(sizes)}[/]"


def _crossing(one: Candidate) -> str:
    if not one.crossing:
        return "[green]nothing[/]"
    what = escape(one.crossing[0]) if len(one.crossing) == 1 else f"{len(one.crossing)} tensors"
    return f"{what}, [yellow]{one.crossing_numbers:,}[/] number{'s' * (one.crossing_numbers != 1)}"


def _meaning(role: Role) -> str:
    if role.attribute is None:
        return role.kind
    values = f" of {len(role.attribute.values)} values" if role.attribute.values else ""
    return f"attribute {role.attribute.name}, a {role.attribute.kind}{values}"
