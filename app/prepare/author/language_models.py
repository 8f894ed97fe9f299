"""Asks a language model over HTTP: Anthropic, MiniMax, or any server that speaks OpenAI's chat completions.

Used by author; may import app.errors.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal

import aiohttp

from app.errors import ComfybusError, ConfigurationError

__all__ = ["AuthorConfig", "AuthorFailed", "LanguageModel", "Turn", "choose_model"]

_ANSWER_S: Final = 600.0
_CONNECT_S: Final = 15.0
_MOST_TOKENS: Final = 16_384
_ANSWER_BYTES: Final = 8 * 1024 * 1024
_ANTHROPIC_VERSION: Final = "2023-06-01"


class AuthorFailed(ComfybusError):
    """No workflow could be made; the sentence names the cause and the cure."""


@dataclass(frozen=True)
class AuthorConfig:
    """Which language model writes workflows; the first of these that is set is asked.

    Attributes:
        url: WORKFLOW_LLM_URL: base of an OpenAI-compatible API, such as ``http://127.0.0.1:11434/v1``.
        api_key: WORKFLOW_LLM_API_KEY: for it; empty where it needs none.
        model: WORKFLOW_LLM_MODEL: needed with ``url``, else instead of the usual model.
        anthropic_api_key: ANTHROPIC_API_KEY.
        minimax_api_key: MINIMAX_API_KEY.
        anthropic_url: ANTHROPIC_BASE_URL.
        minimax_url: MINIMAX_BASE_URL.
    """

    url: str = ""
    api_key: str = field(default="", repr=False)
    model: str = ""
    anthropic_api_key: str = field(default="", repr=False)
    minimax_api_key: str = field(default="", repr=False)
    anthropic_url: str = "https://api.anthropic.com"
    minimax_url: str = "https://api.minimax.io"


@dataclass(frozen=True)
class Turn:
    """One turn of a conversation."""

    role: Literal["user", "assistant"]
    text: str


@dataclass(frozen=True)
class LanguageModel:
    """One model behind one address.

    Attributes:
        name: For sentences.
        url: Where requests go.
        model: As its API calls it.
        headers: With the key.
        anthropic: It speaks Anthropic's Messages API, else chat completions.
        temperature: None to leave it to the server: some models refuse to be told.
    """

    name: str
    url: str
    model: str
    headers: Mapping[str, str] = field(repr=False)
    anthropic: bool = False
    temperature: float | None = None

    async def answer(self, session: aiohttp.ClientSession, instructions: str, turns: Sequence[Turn]) -> str:
        """What the model says next.

        Raises:
            AuthorFailed: No connection, no answer in time, a refusal, or an answer that is cut off or empty.
        """
        timeout = aiohttp.ClientTimeout(total=_ANSWER_S, sock_connect=_CONNECT_S)
        document = self._document(instructions, turns)
        try:
            async with session.post(
                self.url, json=document, headers=self.headers, timeout=timeout, allow_redirects=False
            ) as response:
                body = await _read(response)
        except TimeoutError as exc:
            raise AuthorFailed(f"{self.name} did not answer within {_ANSWER_S:g} s; try again later.") from exc
        except (aiohttp.ClientError, OSError) as exc:
            raise AuthorFailed(
                f"{self.name} cannot be reached at {self.url} ({type(exc).__name__}); check the address and the proxy."
            ) from exc
        if response.status != 200:
            raise AuthorFailed(self._refusal(response.status, body))
        try:
            return self._text(json.loads(body))
        except ValueError as exc:
            raise AuthorFailed(f"{self.name} answered something that is no JSON; check its address.") from exc

    def _document(self, instructions: str, turns: Sequence[Turn]) -> dict[str, Any]:
        messages = [{"role": turn.role, "content": turn.text} for turn in turns]
        document: dict[str, Any] = {"model": self.model, "max_tokens": _MOST_TOKENS}
        if self.temperature is not None:
            document["temperature"] = self.temperature
        if self.anthropic:
            return {**document, "system": instructions, "messages": messages}
        return {**document, "messages": [{"role": "system", "content": instructions}, *messages]}

    def _text(self, said: Any) -> str:
        """The text of an answer; an answer without text is an error, as is one that was cut off."""
        try:
            if self.anthropic:
                stopped = said.get("stop_reason")
                text = "".join(part["text"] for part in said["content"] if part.get("type", "text") == "text")
            else:
                stopped = said["choices"][0].get("finish_reason")
                text = said["choices"][0]["message"]["content"]
        except (KeyError, IndexError, TypeError, AttributeError):
            stopped, text = None, None
        if stopped in ("max_tokens", "length"):
            raise AuthorFailed(f"{self.name} stopped at {_MOST_TOKENS} tokens; the graph is too large for it.")
        if not isinstance(text, str) or not text.strip():
            raise AuthorFailed(f"{self.name} gave an empty answer; try again or use another model.")
        return text

    def _refusal(self, status: int, body: bytes) -> str:
        cures = {
            401: "check its API key",
            403: "check its API key and what it may do",
            404: "check its address and the model's name",
            429: "its limit is reached; wait or raise it",
        }
        cure = cures.get(status, "try again later" if status >= 500 else "see what it says")
        said = body.decode(errors="replace")
        # Some servers repeat the key that they refuse.
        for value in self.headers.values():
            said = said.replace(value.rpartition(" ")[2], "…")
        said = said[:400].replace("\n", " ").strip()
        return f"{self.name} refused with HTTP {status}: {cure}. It says: {said or 'nothing'}"


async def _read(response: aiohttp.ClientResponse) -> bytes:
    body = bytearray()
    async for chunk in response.content.iter_any():
        body += chunk
        if len(body) > _ANSWER_BYTES:
            raise AuthorFailed("The language model's answer is larger than 8 MiB; check its address.")
    return bytes(body)


def choose_model(config: AuthorConfig) -> LanguageModel:
    """The model that the settings name first.

    Raises:
        ConfigurationError: They name none.
    """
    if config.url:
        if not config.model:
            raise ConfigurationError("WORKFLOW_LLM_MODEL is missing: WORKFLOW_LLM_URL needs the name of a model.")
        headers = {"Authorization": f"Bearer {config.api_key}"} if config.api_key else {}
        url = f"{config.url.rstrip('/')}/chat/completions"
        return LanguageModel("The language model", url, config.model, headers)
    if config.anthropic_api_key:
        headers = {"x-api-key": config.anthropic_api_key, "anthropic-version": _ANTHROPIC_VERSION}
        model = config.model or "claude-sonnet-4-20250514"
        url = f"{config.anthropic_url.rstrip('/')}/v1/messages"
        return LanguageModel("Anthropic", url, model, headers, anthropic=True, temperature=0)
    if config.minimax_api_key:
        headers = {"Authorization": f"Bearer {config.minimax_api_key}"}
        url = f"{config.minimax_url.rstrip('/')}/v1/chat/completions"
        return LanguageModel("MiniMax", url, config.model or "MiniMax-M2.7", headers, temperature=0.01)
    raise ConfigurationError(
        "No language model is set: set ANTHROPIC_API_KEY or MINIMAX_API_KEY, or WORKFLOW_LLM_URL and "
        "WORKFLOW_LLM_MODEL for an OpenAI-compatible server."
    )
