"""The triples in memory, by model address and model version, behind one reference that is swapped as a whole.

A request takes what it needs from one shelf and keeps it, so a promotion in the middle changes nothing for it. A
triple that cannot be loaded leaves the one before in place. Not here: what the channels say (`sync`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import structlog

from recsae.errors import FailedPreconditionError, NotFoundError, RecsaeError
from recsae.pipeline.triples import Triple
from recsae.recommenders.address import Address, split_address
from recsae.store.channels import PRODUCTION, ModelChannels
from recsae.store.label_edits import EditSnapshot
from recsae_interpreter.labelled import labelled
from recsae_interpreter.loading import LoadedTriple

_log = structlog.get_logger(__name__)

Load = Callable[[str, Triple], LoadedTriple]


@dataclass(frozen=True)
class Shelf:
    """What is loaded: `served` by address and model version, `production` by address, `failed` with why not."""

    served: Mapping[str, Mapping[str, LoadedTriple]] = field(default_factory=dict)
    production: Mapping[str, LoadedTriple] = field(default_factory=dict)
    failed: Mapping[str, str] = field(default_factory=dict)

    @property
    def loaded(self) -> list[LoadedTriple]:
        """Every triple, each once."""
        every = [one for versions in self.served.values() for one in versions.values()]
        return list({id(one): one for one in [*every, *self.production.values()]}.values())


class Library:
    """Holds the current shelf. One thread updates it, any number read it."""

    def __init__(self, load: Load) -> None:
        """`load` gets a triple from the artifact store, verified."""
        self._load = load
        self._shelf = Shelf()

    @property
    def shelf(self) -> Shelf:
        """Everything loaded now."""
        return self._shelf

    def model(self, name: str) -> LoadedTriple:
        """The production triple of an address; "" = the only model there is, at its first hook.

        NotFoundError when nothing is promoted for it; FailedPreconditionError when "" is ambiguous.
        """
        production = self._shelf.production
        if not name:
            models = {split_address(address).model for address in production}
            if len(models) > 1:
                raise FailedPreconditionError(f"there are several models: {', '.join(sorted(production))}; name one")
            # Without its first hook any of the others will do, as long as it is the only one.
            name = next(iter(models), "")
            if name not in production and len(production) > 1:
                raise FailedPreconditionError(f"there are several hooks: {', '.join(sorted(production))}; name one")
            name = name if name in production else next(iter(production), "")
        name = self.address(*split_address(name))
        if name not in production:
            failed = self._shelf.failed.get(name)
            why = f"its promoted triple could not be loaded: {failed}" if failed else "run a refresh and promote it"
            raise NotFoundError(f"model {name or '(none named)'} has no promoted SAE and dictionary; {why}")
        return production[name]

    def address(self, model: str, hook: str) -> str:
        """Where activations of a hook ("" = the first) are filed: the model's name, or NAME@HOOK of any other.

        `model` may be an address itself. Which hook is the first is known from what is promoted for the model.
        """
        base, named = split_address(model)
        hook = named or hook
        if not hook:
            return base
        full = str(Address(base, hook))
        if full in self._shelf.served:
            return full
        first = {one.basis.hook for one in self._shelf.served.get(base, {}).values()}
        # SAEs of early releases do not say which hook they are of, and then it is the first.
        unknown = not named and (not first or "" in first)
        return base if hook in first or unknown else full

    def promoted_version(self, address: str) -> str:
        """Version of the model whose SAE is in production; "" when nothing is."""
        held = self._shelf.production.get(address)
        return held.triple.model_version if held else ""

    def find(self, model: str, model_version: str) -> LoadedTriple | None:
        """The triple of a model version still served; None when that version has no promoted SAE."""
        return self._shelf.served.get(model, {}).get(model_version)

    def version(self, model: str, model_version: str) -> LoadedTriple:
        """As `find`; FailedPreconditionError names the versions that are served."""
        found = self.find(model, model_version)
        if found is None:
            served = ", ".join(self._shelf.served.get(model, {})) or "none"
            raise FailedPreconditionError(
                f"model {model} version {model_version or '(none named)'} has no promoted SAE (versions that have one: "
                f"{served}); promote an SAE trained on it"
            )
        return found

    def sae(self, sae_version: str) -> LoadedTriple:
        """A triple with that SAE; NotFoundError when none is loaded."""
        for one in self._shelf.loaded:
            if one.triple.sae_version == sae_version:
                return one
        raise NotFoundError(
            f"SAE {sae_version!r} is not served here; ask for the plans again, they name the current one"
        )

    def update(self, wanted: Mapping[str, ModelChannels]) -> bool:
        """Loads what the channels of each model name and is not held yet, then swaps; False when something failed."""
        served: dict[str, Mapping[str, LoadedTriple]] = {}
        production: dict[str, LoadedTriple] = {}
        failed: dict[str, str] = {}
        for model, channels in wanted.items():
            held = self._shelf.served.get(model, {})
            versions: dict[str, LoadedTriple] = {}
            for model_version, triple in channels.serving.items():
                one = self._one(model, triple, held.get(model_version), failed)
                if one is not None:
                    versions[model_version] = one
            served[model] = versions
            pointed = channels.channel(PRODUCTION).triple
            if pointed.model_version in versions:
                production[model] = versions[pointed.model_version]
            elif model in self._shelf.production:
                production[model] = self._shelf.production[model]
        self._shelf = Shelf(served, production, failed)
        return not failed

    def label(self, edits: EditSnapshot) -> None:
        """Lays people's edits over what is loaded, in place of those laid over it before."""
        shelf = self._shelf
        by_model = {model: edits.of(model) for model in (*shelf.served, *shelf.production)}
        laid = {id(one): labelled(one, by_model[one.model]) for one in shelf.loaded}
        self._shelf = replace(
            shelf,
            served={
                model: {version: laid[id(one)] for version, one in versions.items()}
                for model, versions in shelf.served.items()
            },
            production={model: laid[id(one)] for model, one in shelf.production.items()},
        )

    def _one(
        self, model: str, triple: Triple, held: LoadedTriple | None, failed: dict[str, str]
    ) -> LoadedTriple | None:
        if held is not None and held.triple == triple:
            return held
        try:
            loaded = self._load(model, triple)
        except Exception as error:
            failed[model] = str(error) if isinstance(error, RecsaeError) else type(error).__name__
            if self._shelf.failed.get(model) != failed[model]:
                _log.error("triple_not_loaded", model=model, keeps_old=held is not None, exc_info=error, **vars(triple))
            return held
        _log.info("triple_loaded", model=model, **vars(triple))
        return loaded
