"""Judges a prompt before it is queued, with ComfyUI's rules, words and gaps.

Used by routes_prompts; may import its folder alone.
"""

from __future__ import annotations

import traceback
from collections.abc import Container
from dataclasses import dataclass, field
from typing import Any

from app.comfy.standin.catalogue import NODE_CLASSES
from app.comfy.standin.config import Version
from app.comfy.standin.failures import type_name
from app.comfy.standin.folders import Folders
from app.comfy.standin.input_validation import Problem, check_constant, check_own, problem, shown_config
from app.comfy.standin.node_types import Graph, Input, JsonObject, Node


@dataclass
class Verdict:
    """What validation found: the outputs that may run, or ``error`` when none may.

    ``node_errors`` is what the API answers beside it: node id to errors, the outputs that depend on the node, and
    its class. It can be filled although ``error`` is None: then some outputs run and the bad ones are left out.
    """

    good_outputs: list[str] = field(default_factory=list)
    error: JsonObject | None = None
    node_errors: dict[str, JsonObject] = field(default_factory=dict)


def validate(
    graph: Graph, folders: Folders, targets: Container[str] | None = None, version: Version = "0.3.64"
) -> Verdict:
    """Judge a graph and convert its constants in place (5 becomes 5.0 for a FLOAT).

    ``targets`` limits the outputs to run. Anything that is not a graph at all raises TypeError or the like, which
    the server answers with 500, as ComfyUI does.
    """
    outputs = []
    for node_id in graph:
        if "class_type" not in graph[node_id]:
            return _missing(graph[node_id], node_id, version)
        class_type = graph[node_id]["class_type"]
        node = NODE_CLASSES.get(class_type)
        if node is None:
            return _unknown(graph[node_id], node_id, version)
        if node.output_node and (targets is None or node_id in targets):
            outputs.append(node_id)
    if not outputs:
        return Verdict(error=_error("prompt_no_outputs", "Prompt has no outputs", ""))
    return _Walk(graph, folders).judge(outputs)


class _Walk:
    """One pass over a graph from its outputs; every node is judged once.

    ``judged`` holds what was found at each node: None for good, a list of problems for bad. The list is empty when
    only something upstream is wrong.
    """

    def __init__(self, graph: Graph, folders: Folders) -> None:
        self.graph = graph
        self.folders = folders
        self.judged: dict[str, list[Problem] | None] = {}
        self.entered: set[str] = set()

    def judge(self, outputs: list[str]) -> Verdict:
        verdict = Verdict()
        details: list[str] = []
        for output in outputs:
            try:
                problems = self._judge_node(output)
            except Exception as failure:  # noqa: BLE001 - whatever breaks validation is the prompt's fault, as there
                problems = [_exception_problem("exception_during_validation", failure)]
                self.judged[output] = problems
            if problems is None:
                verdict.good_outputs.append(output)
                continue
            details += [f"{problem['message']}: {problem['details']}" for problem in problems]
            self._report(output, verdict)
        if not verdict.good_outputs:
            verdict.error = _error(
                "prompt_outputs_failed_validation", "Prompt outputs failed validation", "\n".join(details)
            )
        return verdict

    def _report(self, output: str, verdict: Verdict) -> None:
        for node_id, problems in self.judged.items():
            if problems:
                entry = verdict.node_errors.setdefault(
                    node_id,
                    {
                        "errors": problems,
                        "dependent_outputs": [],
                        "class_type": self.graph[node_id]["class_type"],
                    },
                )
                entry["dependent_outputs"].append(output)

    def _judge_node(self, node_id: str) -> list[Problem] | None:
        if node_id in self.judged:
            return self.judged[node_id]
        if node_id in self.entered:
            return []  # a cycle: bad, but without words, which is how ComfyUI's endless recursion ends
        self.entered.add(node_id)
        inputs = self.graph[node_id]["inputs"]
        node = NODE_CLASSES[self.graph[node_id]["class_type"]]
        problems: list[Problem] = []
        upstream_bad = False
        for name, declared in {**node.required, **node.optional}.items():
            if name not in inputs:
                if name in node.required:
                    problems.append(problem("required_input_missing", "Required input is missing", name))
            elif isinstance(inputs[name], list):
                found, bad = self._judge_link(name, declared, inputs[name])
                problems += found
                upstream_bad = upstream_bad or bad
            else:
                problems += check_constant(node, name, declared, inputs, self.folders)
        problems += check_own(node, inputs, self.folders)
        self.judged[node_id] = problems if problems or upstream_bad else None
        return self.judged[node_id]

    def _judge_link(self, name: str, declared: Input, link: list[Any]) -> tuple[list[Problem], bool]:
        """Return the problems of one link and whether the node it comes from is bad."""
        config = shown_config(declared, self.folders)
        if len(link) != 2:
            message = "Bad linked input, must be a length-2 list of [node_id, slot_index]"
            return [problem("bad_linked_input", message, name, input_config=config, received_value=link)], False
        source: type[Node] = NODE_CLASSES[self.graph[link[0]]["class_type"]]
        received = source.returns[link[1]]
        if not _fits(received, declared.kind):
            mismatch = {"input_config": config, "received_type": received, "linked_node": link}
            details = f"{name}, received_type({received}) mismatch input_type({config[0]})"
            message = "Return type mismatch between linked nodes"
            return [problem("return_type_mismatch", message, name, details=details, **mismatch)], False
        try:
            return [], self._judge_node(link[0]) is not None
        except Exception as failure:  # noqa: BLE001 - see judge
            kind = "exception_during_inner_validation"
            self.judged[link[0]] = [_exception_problem(kind, failure, name, config, link)]
            return [], True


def _fits(received: str, declared: object) -> bool:
    if "*" in (received, declared):
        return True
    if not isinstance(declared, str):
        return False
    return not {part.strip() for part in received.split(",")}.isdisjoint(part.strip() for part in declared.split(","))


def _exception_problem(
    kind: str, failure: Exception, name: str = "", config: list[Any] | None = None, link: list[Any] | None = None
) -> Problem:
    extra: JsonObject = {}
    message = "Exception when validating node"
    if link is not None:
        message = "Exception when validating inner node"
        extra = {"input_name": name, "input_config": config, "exception_message": str(failure)}
    extra |= {"exception_type": type_name(failure), "traceback": traceback.format_tb(failure.__traceback__)}
    if link is not None:
        extra["linked_node"] = link
    return {"type": kind, "message": message, "details": str(failure), "extra_info": extra}


def _missing(node: JsonObject, node_id: str, version: Version) -> Verdict:
    """Refuse a node without class_type."""
    if version == "0.3.64":
        return _refusal("Cannot execute because a node is missing the class_type property.", node_id)
    title = node.get("_meta", {}).get("title")
    name = title or f"ID #{node_id}"
    message = f"Node '{name}' has no class_type. The workflow may be corrupted or a custom node is missing."
    return _newer_refusal(message, node_id, {"class_type": None, "node_title": title})


def _unknown(node: JsonObject, node_id: str, version: Version) -> Verdict:
    """Refuse a node whose class nobody knows."""
    class_type = node["class_type"]
    if version == "0.3.64":
        return _refusal(f"Cannot execute because node {class_type} does not exist.", node_id)
    title = node.get("_meta", {}).get("title", class_type)
    message = f"Node '{title}' not found. The custom node may not be installed."
    return _newer_refusal(message, node_id, {"class_type": class_type, "node_title": title})


def _newer_refusal(message: str, node_id: str, extra: JsonObject) -> Verdict:
    error = _error("missing_node_type", message, f"Node ID '#{node_id}'")
    return Verdict(error=error | {"extra_info": {"node_id": node_id, **extra}})


def _error(kind: str, message: str, details: str) -> JsonObject:
    return {"type": kind, "message": message, "details": details, "extra_info": {}}


def _refusal(message: str, node_id: str) -> Verdict:
    return Verdict(error=_error("invalid_prompt", message, f"Node ID '#{node_id}'"))
