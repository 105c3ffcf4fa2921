"""What the protocols need of the rest: a :class:`Service` that takes requests and finds logs.

Implemented by ``headrace.service``; protocols see only this.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple, Protocol

import msgspec

from headrace.domain.allowance import Allowance
from headrace.domain.errors import HeadraceError
from headrace.domain.event import Event, Prompt
from headrace.domain.key import Key
from headrace.domain.limits import LimitedModel, Limits
from headrace.domain.principal import Principal, Scope
from headrace.domain.request import Caller, Message, Request
from headrace.domain.tenant import Tenant
from headrace.domain.tokens import Tokens

State = Literal["queued", "running", "finished", "failed"]


class Reader(Protocol):
    """Gets a log's events from ``seq`` 1 on, in order, each once; the last batch ends with the terminal event."""

    def events(self, events: Sequence[Event]) -> bool:
        """Take these. False: enough; nothing more comes until ``Subscription.resume``."""

    def lost(self, error: HeadraceError) -> None:
        """The log cannot be read on. The last call."""


class Subscription(Protocol):
    def resume(self) -> None:
        """Go on after ``events`` returned False."""

    def close(self) -> None:
        """Stop reading; idempotent."""


class Reservation(Protocol):
    """What a request may use of its caller's limits."""

    def allowance(self, now: float, wall: float) -> Allowance:
        """What the caller has left. ``now``: monotonic seconds, ``wall``: Unix seconds."""


class Generation(Protocol):
    """A generation as a protocol sees it. ``created``: float Unix seconds, stored, so that what was sent
    once is sent again byte for byte. ``wire_options``: the options its first client's format had."""

    @property
    def id(self) -> str:
        """``gen_`` + ULID."""

    @property
    def created(self) -> float: ...

    @property
    def model(self) -> str:
        """The name under which the client asked."""

    @property
    def request(self) -> Request: ...

    @property
    def caller(self) -> Caller: ...

    @property
    def wire(self) -> str: ...

    @property
    def wire_options(self) -> dict[str, Any]: ...

    @property
    def state(self) -> State: ...

    @property
    def reservation(self) -> Reservation | None:
        """None where its caller has no limits."""

    @property
    def last_seq(self) -> int:
        """``seq`` of the newest visible event, 0 if there is none yet."""

    def attach(self, reader: Reader, *, client: bool) -> Subscription:
        """Start reading from ``seq`` 1. A ``client`` reader that closes before the end is a client that
        left: the generation's ``Leaving`` policy then decides. Other readers never cancel."""


class ModelCard(msgspec.Struct, frozen=True, gc=False):
    """A model as clients see it. ``created``: Unix seconds. ``ready`` with the reason if not."""

    name: str
    aliases: tuple[str, ...]
    created: int
    type: str
    version: str
    parameters: int
    max_tokens: int
    context: int
    slots: int
    ready: bool
    reason: str = ""


class Service(Protocol):
    """The way of a request behind the protocols."""

    @property
    def open(self) -> bool:
        """Whether no key is needed."""

    def authenticate(
        self, key: str | None, scope: Scope, names: tuple[str, ...] | None
    ) -> Principal:
        """Who shows this API key or, without one, a certificate with these ``names``. Raises ``INVALID_API_KEY``,
        and ``FORBIDDEN`` if that one may not do what ``scope`` says."""

    def reader(self, token: str, any_id: str) -> str:
        """The tenant whose generation may be read with this token. Raises ``INVALID_API_KEY``."""

    def read_token(self, generation: Generation) -> tuple[str, int]:
        """A token with which a generation may be read, and until when (Unix seconds)."""

    def submit(
        self, request: Request, caller: Caller, wire: str, wire_options: dict[str, Any]
    ) -> Generation:
        """Admit a request; its log begins. Raises what can be known at once (``MODEL_NOT_FOUND``, ``QUEUE_FULL``,
        ``UNSUPPORTED``, ``HOOK_REFUSED`` …); anything later is the log's ``error`` event."""

    def joins(self, request: Request, caller: Caller) -> bool:
        """Whether there may be a generation for this request already: :meth:`submit_once` finds out."""

    async def submit_once(
        self, request: Request, caller: Caller, wire: str, wire_options: dict[str, Any]
    ) -> Generation:
        """The generation that this request is a repeat of, or one that begins as :meth:`submit` has it. Raises
        ``KEY_REUSED`` too, for a key that another request had."""

    async def find(self, any_id: str, tenant: str) -> Generation:
        """A running or kept generation by any of its ids. Raises ``GENERATION_NOT_FOUND`` (also for
        another tenant's) or ``CURSOR_GONE``."""

    async def list(self, tenant: str, session_id: str | None, limit: int) -> Sequence[Generation]:
        """Newest first."""

    async def prompt(self, generation: Generation, message: Message) -> Sequence[Prompt]:
        """Add a message to a running generation, in this order; returns its events, which hooks may have
        changed. Raises ``CONFLICT`` after the end, ``UNSUPPORTED``, ``HOOK_REFUSED`` …"""

    def cancel(self, generation: Generation) -> None:
        """End it with ``error: cancelled`` in whatever state it is; idempotent."""

    async def delete(self, generation: Generation) -> None:
        """Forget it and all it said, also on disk; one that runs is cancelled first. Raises ``STORE_FAILED``."""

    async def caught_up(self) -> None:
        """Wait until what was said is kept as fast as it comes. For what nobody waits for, before it begins. Raises
        ``STORE_FAILED``."""

    def abort(self, token: str, tenant: str) -> int:
        """Cancel the running generations that carry this abort token; returns how many."""

    def models(self) -> Sequence[ModelCard]: ...

    def model(self, name: str) -> ModelCard:
        """By name or alias. Raises ``MODEL_NOT_FOUND``."""

    def rows_at_once(self, model: str) -> tuple[str, int]:
        """The model's own name, and how many rows of jobs are worth being under way. Raises ``MODEL_NOT_FOUND``."""

    def take_request(self, model: str, tenant: str, key_id: str) -> Reservation | None:
        """Let a request in that computes no answer, to a model by any of its names; None where its caller has no
        limits. Raises ``RATE_LIMITED``, ``MODEL_NOT_FOUND`` and ``MODEL_LOADING``."""

    async def tokenize(self, model: str, text: str, *, special: bool, pieces: bool) -> Tokens:
        """``special``: with the tokens that every prompt begins with. ``pieces``: with each token's text.
        Raises ``MODEL_LOADING``, and ``UNSUPPORTED`` where the engine has no tokenizer to ask."""

    async def detokenize(self, model: str, tokens: Sequence[int]) -> str:
        """The text of tokens. Raises as :meth:`tokenize`, and ``INVALID_REQUEST`` for ids that are none."""

    async def count_prompt(self, request: Request) -> int:
        """Tokens of a request's prompt as its model's template lays it out. Raises ``MODEL_NOT_FOUND``,
        ``MODEL_LOADING``, ``UNSUPPORTED``."""

    def readiness(self) -> tuple[bool, str]:
        """Whether some model can serve, and the reason in words if none can."""


class Reloaded(NamedTuple):
    """The paths of the settings that are in force now, and of those that need another start."""

    applied: Sequence[str]
    waiting: Sequence[str]


class Registry(Protocol):
    """Keys, tenants and limits of models of the running server. ``by``: whose key asks, for the server's log."""

    @property
    def models(self) -> Mapping[str, LimitedModel]:
        """By their names and aliases."""

    def list_keys(self) -> Sequence[Key]:
        """All, without what they are."""

    async def create_key(
        self,
        tenant: str,
        scopes: Sequence[Scope],
        name: str,
        expires_at: float | None,
        by: str,
        limits: Limits,
    ) -> tuple[Key, str]:
        """A new key, and its text, which nothing gives again. Raises ``CONFLICT`` if there are too many."""

    async def revoke_key(self, id: str, by: str) -> Key:
        """Raises ``NOT_FOUND``, and ``CONFLICT`` for a key of the settings."""

    def list_tenants(self) -> Sequence[Tenant]: ...

    def tenant(self, name: str) -> Tenant:
        """Raises ``NOT_FOUND``."""

    async def put_tenant(self, tenant: Tenant, by: str) -> None:
        """Raises ``CONFLICT`` if there are too many."""

    async def forget_tenant(self, name: str, by: str) -> Tenant:
        """Its terms from now on. Raises ``NOT_FOUND`` if nobody has put any."""

    def model(self, name: str) -> LimitedModel:
        """By its name or an alias. Raises ``MODEL_NOT_FOUND``."""

    async def limit_model(self, model: str, limits: Limits, by: str) -> None:
        """``model``: its own name, here and below."""

    async def forget_model_limits(self, model: str, by: str) -> LimitedModel:
        """With its limits from now on. Raises ``NOT_FOUND`` if nobody has given it any."""


class Admin(NamedTuple):
    """What ``/admin`` is about. ``reload`` reads the settings again, told whose key asks; it raises
    ``UNPROCESSABLE`` if they have a mistake, and then nothing has changed."""

    registry: Registry
    reload: Callable[[str], Awaitable[Reloaded]]
