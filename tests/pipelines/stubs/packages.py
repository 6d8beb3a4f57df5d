# SPDX-License-Identifier: Apache-2.0
"""What the KFP stub reads: uploaded packages, pipeline specifications, arguments, listings.

Sources are those of kubeflow/pipelines 2.17, below backend/src/apiserver/.
"""

import email.parser
import email.policy
import json
import re
from typing import Any

import kfp_server_api
import yaml
from google.protobuf import json_format
from kfp.pipeline_spec import pipeline_spec_pb2

from tests.pipelines.stubs.contract import RefusedError, Request

SORTABLE = ("display_name", "created_at")
PYTHON_KINDS: dict[str, Any] = {
    "STRING": str,
    "NUMBER_INTEGER": (int, float),
    "NUMBER_DOUBLE": (int, float),
    "BOOLEAN": bool,
    "LIST": list,
    "STRUCT": dict,
}


def page(key: str, items: list[dict[str, Any]], request: Request) -> Any:
    """Applies filter and paging: 20 a page unless asked for another number, 200 at most.

    Follows list/list.go, validatePageSize (`defaultPageSize = 20`, `maxPageSize = 200`, and a
    negative size is refused) and NewOptions (at most a field and asc or desc), and
    filter/filter.go; KFP sorts and filters by more fields than these.
    """
    if text := request.query.get("filter"):
        body = json.loads(text)
        operations = kfp_server_api.V2beta1PredicateOperation.allowable_values
        for predicate in body.get("predicates", []):
            if type(predicate.get("operation")) is int:  # as KFP's own client writes it
                predicate["operation"] = operations[predicate["operation"]]
        aliases = [
            {re.sub("_(.)", lambda m: m[1].upper(), k): v for k, v in p.items()}
            for p in body.get("predicates", [])
        ]
        for predicate in aliases:
            items = [item for item in items if _fits(item, predicate)]
    if sort_by := request.query.get("sort_by"):
        field, _, order = sort_by.partition(" ")
        if field not in SORTABLE or order not in ("", "asc", "desc"):
            raise RefusedError(400, f"invalid sorting {sort_by!r}")
        items = sorted(items, key=lambda item: item[field], reverse=order == "desc")
    size = min(int(request.query.get("page_size") or 0) or 20, 200)
    if size < 0:
        raise RefusedError(400, f"The page size should be greater than 0. Got {size}")
    start = int(request.query.get("page_token") or 0)
    answer: dict[str, Any] = {"total_size": len(items)}
    if items[start : start + size]:
        answer[key] = items[start : start + size]
    if start + size < len(items):
        answer["next_page_token"] = str(start + size)
    return answer


def uploaded(request: Request) -> dict[str, Any]:
    """Reads the pipeline package in an upload's form."""
    head = f"Content-Type: {request.headers.get('content-type', '')}\r\n\r\n".encode()
    form = email.parser.BytesParser(policy=email.policy.HTTP).parsebytes(head + request.body)
    parts = [p for p in form.iter_parts() if p.get_param("name", header="content-disposition")]
    if len(parts) != 1 or parts[0].get_filename() is None:
        raise RefusedError(400, "expected a form with the file uploadfile")
    documents = list(yaml.safe_load_all(parts[0].get_payload(decode=True)))
    spec = {"pipeline_spec": documents[0]}
    return sound(spec | ({"platform_spec": documents[1]} if len(documents) > 1 else {}))


def sound(spec: dict[str, Any]) -> dict[str, Any]:
    """Returns a specification as {"pipeline_spec", "platform_spec"}, refusing what is none.

    Follows template/template.go, New, for the two forms; it refuses an unsound one with 500.
    """
    parts = spec if "pipeline_spec" in spec else {"pipeline_spec": spec}
    if unknown := set(parts) - {"pipeline_spec", "platform_spec"}:
        raise RefusedError(500, f"pipeline_spec: unknown fields {sorted(unknown)}")
    try:
        json_format.ParseDict(parts["pipeline_spec"], pipeline_spec_pb2.PipelineSpec())
        json_format.ParseDict(parts.get("platform_spec", {}), pipeline_spec_pb2.PlatformSpec())
    except json_format.ParseError as error:
        raise RefusedError(500, f"pipeline_spec: {error}") from None
    return parts


def check_arguments(spec: dict[str, Any], arguments: dict[str, Any]) -> None:
    """Refuses arguments that are not the pipeline's inputs, or not of their types.

    Follows template/v2_template.go, V2Spec.validatePipelineJobInputs, which looks for parameters
    that are missing or too many, and at the kind of each value: a whole number is any number.
    """
    inputs = spec["pipeline_spec"]["root"].get("inputDefinitions", {}).get("parameters", {})
    for name, value in arguments.items():
        if name not in inputs:
            raise RefusedError(400, f"the pipeline has no input {name!r}")
        kind = PYTHON_KINDS[inputs[name]["parameterType"]]
        if not isinstance(value, kind) or (kind is not bool and isinstance(value, bool)):
            raise RefusedError(
                400, f"input {name}: {value!r} is no {inputs[name]['parameterType']}"
            )
    for name, definition in inputs.items():
        given = name in arguments or "defaultValue" in definition or definition.get("isOptional")
        if not given:
            raise RefusedError(400, f"input {name} has no value")


def _fits(item: dict[str, Any], predicate: dict[str, Any]) -> bool:
    operation, text = predicate.get("operation"), predicate.get("stringValue")
    if operation not in ("EQUALS", "IS_SUBSTRING") or not isinstance(text, str):
        raise RefusedError(400, f"this stub filters texts by EQUALS or IS_SUBSTRING: {predicate}")
    if predicate.get("key") not in SORTABLE:
        raise RefusedError(400, f"invalid field in a filter: {predicate.get('key')!r}")
    found = item[predicate["key"]]
    return text == found if operation == "EQUALS" else text in found
