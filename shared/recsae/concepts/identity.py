"""Stable concept ids: a new dictionary keeps the ids of the concepts it finds again (docs/method.md, section 8).

Latents of the new SAE are matched to those of the dictionary in production on that dictionary's probe rows: by decoder
direction (after Procrustes alignment when the base model changed), firing correlation and effect on scores. Stable and
drifted latents keep their id. A split or merged concept keeps none, not even its largest part: whoever named it meant
the whole, and a part that took its id over would be another concept under an old name. Not here: the matching itself
(`recsae.sae.matching`), whether an old rule still holds (`keeping`), what may rest on an id (`origins`).
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recsae.concepts.dictionary import Dictionary
from recsae.concepts.inputs import Autoencoder, DictionaryInputs
from recsae.concepts.origins import LOST, MERGED, MOST_ANCESTORS, SILENT, SPLIT, STABLE, Fate, Lineage, Origin
from recsae.concepts.probe_set import ProbeSet, Reader, Reading, make_probe_set, read_again
from recsae.concepts.records import ConceptStatus
from recsae.sae.alignment import Alignment, align
from recsae.sae.assignment import assign_directions
from recsae.sae.chance import false_match_rate
from recsae.sae.latents import Latents
from recsae.sae.matching import SAME_COSINE, LatentMatching, LatentStatus, match_latents

_HEX_DIGITS = 8

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Previous:
    """What ids are kept from: the dictionary in production, its SAE, and its probe rows (None = it carries none)."""

    dictionary: Dictionary
    sae: Autoencoder
    probe: ProbeSet | None = None


@dataclass(frozen=True)
class Identity:
    """Per latent its id and where it comes from; `lineage` says what became of the concepts of before.

    All origins and the lineage are None where there was no dictionary before.
    """

    ids: tuple[str, ...]
    origins: tuple[Origin | None, ...]
    lineage: Lineage | None


def identify(inputs: DictionaryInputs) -> Identity:
    """Ids for all latents of `inputs.sae`, "c-" and 8 hex digits: kept where found again, else from model, SAE, latent.

    Nothing is found again where the two cannot be compared: the model changed, and the dictionary before carries no
    probe rows, or fewer of them can be read again than the activations have dimensions. Ids are never guessed.
    """
    previous = inputs.previous
    width = inputs.sae.width
    if previous is None:
        return Identity(_new_ids(inputs, np.arange(width), set()), (None,) * width, None)
    same_model = previous.dictionary.model_version == inputs.model_version
    probe = previous.probe or (make_probe_set(inputs) if same_model else None)
    reading = None
    if probe is not None and same_model:
        # What the model makes of them is known, and effects on scores follow from decoders: nothing else to ask.
        reading = Reading(probe.x, probe.x, None, None)
    elif probe is not None:
        users = inputs.pseudonyms if inputs.names_users else ()
        reader = Reader(inputs.item_ids, inputs.embed, inputs.max_history, inputs.item_vectors, users)
        reading = read_again(probe, reader)
    if reading is None or len(reading.new) < max(inputs.sae.w_dec.shape[1], previous.sae.w_dec.shape[1]):
        return _nothing_found(inputs, previous)
    if len(_vectors(reading.new, inputs.sae)) != len(_vectors(reading.old, previous.sae)):
        return _nothing_found(inputs, previous)  # another number of interests: no vector has its counterpart
    return _found(inputs, previous, reading, same_model=same_model)


@dataclass(frozen=True)
class _Match:
    """Both sides of a matching with silent latents matched by direction; `partner` -1 = none, as in `MatchedSide`.

    `cosine` float64 are those of the pairs, 0 where there is none.
    """

    new_partner: Ints
    new_status: NDArray[np.str_]
    new_cosine: NDArray[np.float64]
    old_partner: Ints
    old_status: NDArray[np.str_]
    old_cosine: NDArray[np.float64]


def _found(inputs: DictionaryInputs, previous: Previous, reading: Reading, *, same_model: bool) -> Identity:
    new = Latents(inputs.sae.w_dec, inputs.sae.encode(reading.new), reading.new_vectors)
    old = Latents(previous.sae.w_dec, previous.sae.encode(reading.old), reading.old_vectors)
    alignment = None
    if not same_model:
        alignment = align(_vectors(reading.new, inputs.sae), _vectors(reading.old, previous.sae))
    matching = match_latents(new, old, alignment)
    match = _with_silent(matching, new, old, alignment)
    kept_ids = np.where(np.isin(match.new_status, [LatentStatus.STABLE, LatentStatus.DRIFTED, SILENT]), 1, 0)
    before = previous.dictionary.concepts
    ids: list[str] = [
        before[partner].id if keeps and partner >= 0 else ""
        for keeps, partner in zip(kept_ids.tolist(), match.new_partner.tolist(), strict=True)
    ]
    fresh = np.array([at for at, concept_id in enumerate(ids) if not concept_id], np.int64)
    taken = {concept.id for concept in before}
    for at, concept_id in zip(fresh.tolist(), _new_ids(inputs, fresh, taken), strict=True):
        ids[at] = concept_id
    lineage = Lineage(
        ancestors=_ancestors(previous.dictionary),
        sae_version=previous.dictionary.sae_version,
        model_version=previous.dictionary.model_version,
        probe_rows=len(reading.new),
        explained=None if alignment is None else alignment.explained,
        by_chance=false_match_rate(new, old, alignment, inputs.seed),
        fates=_fates(previous.dictionary, ids, match, matching),
    )
    return Identity(tuple(ids), _origins(previous.dictionary, match, matching), lineage)


def _vectors(x: NDArray[np.float32], sae: Autoencoder) -> NDArray[np.float32]:
    """The vectors an SAE reads, [n, d]: a row of several interests holds several."""
    return x.reshape(-1, sae.w_dec.shape[1])


def _with_silent(matching: LatentMatching, new: Latents, old: Latents, alignment: Alignment | None) -> _Match:
    """Adds pairs of which one fires too rarely to be compared, by decoder direction alone, at cosine >= .7."""
    new_partner, old_partner = matching.new.partner.copy(), matching.old.partner.copy()
    new_status, old_status = matching.new.status.copy(), matching.old.status.copy()
    new_cosine, old_cosine = matching.new.cosine.copy(), matching.old.cosine.copy()
    left_new = np.flatnonzero(np.isin(new_status, [LatentStatus.NEW, LatentStatus.SILENT]))
    left_old = np.flatnonzero(np.isin(old_status, [LatentStatus.LOST, LatentStatus.SILENT]))
    if len(left_new) and len(left_old):
        turned = new.w_dec if alignment is None else alignment.turn(new.w_dec)
        found = assign_directions(turned[left_new], old.w_dec[left_old], SAME_COSINE)
        pairs = [(int(left_new[at]), int(left_old[to])) for at, to in enumerate(found.tolist()) if to >= 0]
        for one, other in pairs:
            if new.silent[one] or old.silent[other]:
                new_partner[one], old_partner[other] = other, one
                new_status[one] = old_status[other] = LatentStatus.SILENT.value
                new_cosine[one] = old_cosine[other] = _cosine(turned[one], old.w_dec[other])
    new_status[(new_status == LatentStatus.SILENT) & (new_partner < 0)] = LatentStatus.NEW.value
    return _Match(new_partner, new_status, new_cosine, old_partner, old_status, old_cosine)


def _cosine(one: NDArray[np.float32], other: NDArray[np.float32]) -> float:
    return float(one @ other / max(float(np.linalg.norm(one) * np.linalg.norm(other)), 1e-12))


def _origins(before: Dictionary, match: _Match, matching: LatentMatching) -> tuple[Origin, ...]:
    parts_of: dict[int, list[str]] = {}
    for old in np.flatnonzero(match.old_status == MERGED).tolist():
        parts_of.setdefault(int(match.old_partner[old]), []).append(before.concepts[old].id)
    origins = []
    for latent, (partner, status) in enumerate(zip(match.new_partner.tolist(), match.new_status.tolist(), strict=True)):
        old_origin = before.concepts[partner].origin if partner >= 0 else None
        from_ids = tuple(parts_of.get(latent, ())) if status == MERGED else (before.concepts[partner].id,)
        origins.append(
            Origin(
                status=status,
                from_ids=from_ids if partner >= 0 else (),
                cosine=float(match.new_cosine[latent]),
                correlation=float(matching.new.correlation[latent]),
                unbroken=min(MOST_ANCESTORS, 1 + (old_origin.unbroken if old_origin else 0)) if status == STABLE else 0,
            )
        )
    return tuple(origins)


def _fates(before: Dictionary, ids: list[str], match: _Match, matching: LatentMatching) -> tuple[Fate, ...]:
    parts_of: dict[int, list[str]] = {}
    for new in np.flatnonzero(match.new_status == SPLIT).tolist():
        parts_of.setdefault(int(match.new_partner[new]), []).append(ids[new])
    fates = []
    for concept in before.concepts:
        if concept.status is ConceptStatus.DEAD:
            continue
        latent, status = concept.latent, str(match.old_status[concept.latent])
        partner = int(match.old_partner[latent])
        to_ids = tuple(parts_of.get(latent, ())) if status == SPLIT else (ids[partner],) if partner >= 0 else ()
        verified = concept.status is ConceptStatus.VERIFIED
        fates.append(
            Fate(
                id=concept.id,
                label=concept.label,
                status=status,
                to_ids=to_ids,
                cosine=float(match.old_cosine[latent]),
                correlation=float(matching.old.correlation[latent]),
                mass=float(matching.old.mass[latent]),
                verified=verified,
                kept=False if verified else None,
            )
        )
    return tuple(fates)


def _nothing_found(inputs: DictionaryInputs, previous: Previous) -> Identity:
    before, width = previous.dictionary, inputs.sae.width
    mass = (before.arrays.density * before.arrays.mean).astype(np.float64)
    share = mass / mass.sum() if mass.sum() > 0 else mass
    fates = tuple(
        Fate(
            one.id, one.label, LOST, mass=float(share[one.latent]), verified=verified, kept=False if verified else None
        )
        for one in before.concepts
        if one.status is not ConceptStatus.DEAD
        for verified in (one.status is ConceptStatus.VERIFIED,)
    )
    lineage = Lineage(_ancestors(before), before.sae_version, before.model_version, 0, None, 0.0, fates)
    ids = _new_ids(inputs, np.arange(width), {concept.id for concept in before.concepts})
    return Identity(ids, (Origin(LatentStatus.NEW.value),) * width, lineage)


def _ancestors(before: Dictionary) -> tuple[str, ...]:
    older = before.lineage.ancestors if before.lineage else ()
    return (before.version, *older)[:MOST_ANCESTORS]


def _new_ids(inputs: DictionaryInputs, latents: Ints, taken: set[str]) -> tuple[str, ...]:
    # A new concept never takes an id that meant another one just before, nor one given already.
    taken = set(taken)
    ids = []
    for latent in latents.tolist():
        ids.append(_new_id(inputs.model, inputs.sae.version, latent, taken))
        taken.add(ids[-1])
    return tuple(ids)


def _new_id(model: str, sae_version: str, latent: int, taken: set[str]) -> str:
    attempt = 0
    while True:
        digest = hashlib.sha256(f"{model}\0{sae_version}\0{latent}\0{attempt}".encode()).hexdigest()
        if f"c-{digest[:_HEX_DIGITS]}" not in taken:
            return f"c-{digest[:_HEX_DIGITS]}"
        attempt += 1
