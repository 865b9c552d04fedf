"""The Hub's published rules for the front matter of a model card, as far as a card can break them.

Source: `modelcard.md` of github.com/huggingface/hub-docs, and the Hub's pages on model cards,
licences and widgets. The Hub itself checks the same when a card is uploaded, but says so late.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

__all__ = ["problems_of_model_metadata"]

# The identifiers of the Hub's page on licences that weights or pictures are likely to have.
_LICENSES = frozenset(
    """
    afl-3.0 agpl-3.0 apache-2.0 artistic-2.0 bigcode-openrail-m bigscience-bloom-rail-1.0
    bigscience-openrail-m bsd bsd-2-clause bsd-3-clause bsd-3-clause-clear bsl-1.0 c-uda cc
    cc-by-2.0 cc-by-2.5 cc-by-3.0 cc-by-4.0 cc-by-nc-2.0 cc-by-nc-3.0 cc-by-nc-4.0
    cc-by-nc-nd-3.0 cc-by-nc-nd-4.0 cc-by-nc-sa-2.0 cc-by-nc-sa-3.0 cc-by-nc-sa-4.0 cc-by-nd-4.0
    cc-by-sa-3.0 cc-by-sa-4.0 cc0-1.0 cdla-permissive-1.0 cdla-permissive-2.0 cdla-sharing-1.0
    creativeml-openrail-m ecl-2.0 epl-1.0 epl-2.0 eupl-1.1 eupl-1.2 gfdl gpl gpl-2.0 gpl-3.0
    intel-research isc lgpl lgpl-2.1 lgpl-3.0 lgpl-lr mit mpl-2.0 ms-pl mulanpsl-2.0 ncsa odbl
    odc-by ofl-1.1 open-mdw openrail openrail++ osl-3.0 pddl postgresql unknown unlicense wtfpl
    zlib other
    """.split()
)
_RELATIONS = ("adapter", "finetune", "merge", "quantized")
_HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")
_TEXTS = ("library_name", "license", "license_name", "license_link", "pipeline_tag")
_LISTS = ("tags", "metrics", "datasets")


def problems_of_model_metadata(metadata: Mapping[str, Any]) -> list[str]:
    """What the Hub would refuse in a model card's front matter, or show wrongly.

    Args:
        metadata: The front matter as YAML gives it.

    Returns:
        One sentence a problem; empty if there is none.
    """
    return list(_problems(metadata))


def _problems(metadata: Mapping[str, Any]) -> Iterator[str]:
    for key in _TEXTS:
        if key in metadata and not _is_text(metadata[key]):
            yield f"{key} is not a text"
    for key in _LISTS:
        values = metadata.get(key, [])
        if not isinstance(values, list) or not all(map(_is_text, values)):
            yield f"{key} is not a list of texts"
    if not _is_text(metadata.get("license")):
        yield "license is missing"
    elif metadata["license"] not in _LICENSES:
        yield f"license {metadata['license']!r} is not an identifier of the Hub"
    elif metadata["license"] == "other":
        for key in ("license_name", "license_link"):
            if key not in metadata:
                yield f"license is other, so {key} must say which"
    bases = metadata.get("base_model", [])
    for base in [bases] if isinstance(bases, str) else bases:
        if not _is_text(base) or not _HUB_ID.fullmatch(base):
            yield f"base_model {base!r} is no id of a model"
    relation = metadata.get("base_model_relation")
    if relation is not None and relation not in _RELATIONS:
        yield f"base_model_relation {relation!r} is not one of {', '.join(_RELATIONS)}"
    for example in metadata.get("widget", []):
        if not isinstance(example, dict) or not _is_text(example.get("src")):
            yield "an example of widget has no src"
    for model in metadata.get("model-index", []):
        yield from _problems_of_results(model)


def _problems_of_results(model: Any) -> Iterator[str]:
    if not isinstance(model, dict) or not _is_text(model.get("name")):
        yield "an entry of model-index has no name"
        return
    if not isinstance(model.get("results"), list):
        yield "model-index has no list of results"
        return
    for result in model["results"]:
        for part, keys in (("task", ("type",)), ("dataset", ("type", "name"))):
            for key in keys:
                if not _is_text(result.get(part, {}).get(key)):
                    yield f"a result of model-index has no {part}.{key}"
        metrics = result.get("metrics")
        if not isinstance(metrics, list) or not metrics:
            yield "a result of model-index has no metrics"
            continue
        for metric in metrics:
            if not _is_text(metric.get("type")):
                yield "a metric of model-index has no type"
            if not isinstance(metric.get("value"), (int, float, str)):
                yield "a metric of model-index has no value"


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip())
