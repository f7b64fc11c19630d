"""Published dictionaries as they are named on the command line: a version, or the channel of a model.

A version needs the workspace alone; a channel is asked of the platform that runs. Not here: what is done with them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from recsae.cli.context import CliContext
from recsae.errors import FailedPreconditionError, NotFoundError, UnavailableError
from recsae.store.artifacts import Artifact
from recsae.v1 import interpreter_pb2, pipeline_pb2

if TYPE_CHECKING:  # commands that read no dictionary start without what reading one needs
    from recsae.concepts.dictionary import Dictionary
    from recsae.concepts.records import ConceptRecord

ChannelName = Annotated[str, typer.Option("--channel", help="production or candidate")]
DictionaryVersion = Annotated[
    str,
    typer.Option(
        "--version", help="Dictionary of this version instead of a channel's; needs no platform", show_default=False
    ),
]
Force = Annotated[bool, typer.Option("--force", help="Replace the file when it exists")]


@dataclass(frozen=True)
class PublishedDictionary:
    """A dictionary with the artifact it came from; `channel` is "" when it was named by version."""

    dictionary: Dictionary
    artifact: Artifact
    channel: str

    @property
    def model(self) -> str:
        """Name of its model."""
        return str(self.artifact.config.get("model", ""))


def published_dictionary(context: CliContext, model: str, channel: str, version: str) -> PublishedDictionary:
    """The dictionary of `version`, else the one the model's channel points at.

    NotFoundError for a version that was never published; FailedPreconditionError when the channel points nowhere;
    UnavailableError names the versions there are when no platform answers.
    """
    named = version
    if not version:
        version = _of_channel(context, model, channel)
    try:
        artifact = context.workspace.artifacts().fetch("dictionary", version)
    except NotFoundError as error:
        raise NotFoundError(f"{error}; dictionaries in {context.workspace.home}: {_known(context)}") from error
    from recsae.concepts.dictionary import Dictionary

    dictionary = Dictionary.load(artifact.folder, version)
    if not named:
        dictionary = with_edits(dictionary, _edits(context, str(artifact.config.get("model", "")), version))
    return PublishedDictionary(dictionary, artifact, "" if named else channel)


def with_edits(dictionary: Dictionary, edits: Iterable[interpreter_pb2.LabelEdit]) -> Dictionary:
    """The dictionary with people's words over it; those in doubt are left out."""
    words = {edit.concept_id: edit for edit in edits if not edit.doubt}
    return replace(
        dictionary,
        concepts=tuple(_edited(one, words[one.id]) if one.id in words else one for one in dictionary.concepts),
    )


def check_file(path: Path, *, force: bool) -> None:
    """FailedPreconditionError when the file exists already, or its folder does not; before any work is done."""
    if path.exists() and not force:
        raise FailedPreconditionError(f"{path} exists already; name another file or add --force")
    if path.is_dir():
        raise FailedPreconditionError(f"{path} is a folder; name a file")
    if not path.absolute().parent.is_dir():
        raise FailedPreconditionError(f"there is no folder {path.absolute().parent} to write {path.name} to; make it")


def _of_channel(context: CliContext, model: str, channel: str) -> str:
    name = model or context.workspace.model("").name
    try:
        reply = context.platform.call(
            context.platform.pipeline.GetChannels, pipeline_pb2.GetChannelsRequest(model=name)
        )
    except UnavailableError as error:
        raise UnavailableError(f"{error}; or name a dictionary with --version: {_known(context)}") from error
    versions = {one.name: one.triple.dictionary_version for one in reply.channels}
    if not versions.get(channel):
        pointing = ", ".join(sorted(versions)) or "none"
        raise FailedPreconditionError(
            f"channel {channel!r} of model {name} points at no dictionary (channels that do: {pointing}); "
            "run a refresh, or name a version with --version"
        )
    return versions[channel]


def _edited(concept: ConceptRecord, edit: interpreter_pb2.LabelEdit) -> ConceptRecord:
    from recsae.concepts.records import LabelSource

    if not edit.label:
        return replace(concept, note=edit.note)
    return replace(
        concept, label=edit.label, machine_label=concept.label, label_source=LabelSource.HUMAN, note=edit.note
    )


def _edits(context: CliContext, model: str, version: str) -> Sequence[interpreter_pb2.LabelEdit]:
    """What people wrote about the dictionary in production; none for another one."""
    request = interpreter_pb2.ListLabelEditsRequest(model=model)
    reply = context.platform.call(context.platform.interpreter.ListLabelEdits, request)
    return reply.edits if reply.triple.dictionary_version == version else ()


def _known(context: CliContext) -> str:
    return ", ".join(sorted(context.workspace.artifacts().versions("dictionary"))) or "none"
