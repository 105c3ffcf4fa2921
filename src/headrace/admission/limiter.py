"""The limiter: may this request enter, and how much may it use?

Limits hold for a key, a tenant, a model, and a tenant at a model; all that hold for a request are its *plan*. What
it may use is taken from all of them or from none. A plain synchronous decider: times come in, ``now`` in monotonic
seconds, ``wall`` in Unix seconds.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from headrace.admission.bucket import Bucket
from headrace.admission.day import DayBudget, DayBudgets
from headrace.admission.estimates import Estimates
from headrace.admission.gate import Gate
from headrace.admission.plan import Plan
from headrace.domain.limits import Limits

MAX_PLANS = 16_384
"""Plans that are remembered; one more, and all are made again when they are needed."""
SWEEP_ABOVE = 1024


class Rules(NamedTuple):
    """The limits in force. ``keys``: by a key's id. ``tenant_models``: by tenant and model."""

    keys: Mapping[str, Limits] = {}
    tenants: Mapping[str, Limits] = {}
    models: Mapping[str, Limits] = {}
    tenant_models: Mapping[tuple[str, str], Limits] = {}

    @property
    def limit_nobody(self) -> bool:
        """Whether there are none."""
        return not any(limits.some for of_kind in self for limits in of_kind.values())


class _Scope(NamedTuple):
    """For whom limits hold. ``kind`` is part of their names, ``account`` finds their buckets and budgets."""

    kind: str
    account: str
    whose: str
    limits: Limits


class Limiter:
    """``days``: budgets of days that were used before."""

    def __init__(self, days: DayBudgets) -> None:
        self._rules = Rules()
        self._plans_for_all = False
        self._days = days
        self._plans: dict[tuple[str, str, str], Plan | None] = {}
        # Bounded by the keys, tenants and models there are; those that are as new are swept out before.
        self._buckets: dict[tuple[str, str], Bucket] = {}
        self._gates: dict[str, Gate] = {}
        self._sweep_above = SWEEP_ABOVE
        self._estimates: dict[str, Estimates] = {}  # bounded by the models

    def plan(self, tenant: str, key_id: str, model: str, now: float) -> Plan | None:
        """All limits that hold for a request; None if there are none."""
        at = (tenant, key_id, model)
        plans = self._plans
        if at in plans:
            return plans[at]
        if len(plans) >= MAX_PLANS:
            plans.clear()
        if self._known >= self._sweep_above:
            self._sweep(now)
        made = plans[at] = self._made(tenant, key_id, model, now)
        return made

    def replace(self, rules: Rules, *, plans_for_all: bool = False) -> None:
        """From now on these hold. What was used stays used, and whoever is in stays in. ``plans_for_all``: everybody
        has a plan, since something else than limits needs it."""
        self._rules = rules
        self._plans_for_all = plans_for_all
        self._plans.clear()

    @property
    def _known(self) -> int:
        return len(self._buckets) + len(self._gates) + len(self._days)

    def _made(self, tenant: str, key_id: str, model: str, now: float) -> Plan | None:
        requests: list[Bucket] = []
        tokens: list[Bucket] = []
        days: list[DayBudget] = []
        gates: list[Gate] = []
        paces: list[float] = []
        for scope in self._scopes(tenant, key_id, model):
            limits = scope.limits
            if limits.requests_per_minute is not None:
                name = "requests_per_minute"
                requests.append(self._bucket(scope, name, limits.requests_per_minute, now))
            if limits.tokens_per_minute is not None:
                tokens.append(
                    self._bucket(scope, "tokens_per_minute", limits.tokens_per_minute, now)
                )
            if limits.tokens_per_day is not None:
                days.append(self._day(scope, limits.tokens_per_day))
            if limits.concurrent is not None:
                gates.append(self._gate(scope, limits.concurrent))
            if limits.pace is not None:
                paces.append(limits.pace)
        if not (requests or tokens or days or gates or paces or self._plans_for_all):
            return None
        return Plan(
            tuple(requests),
            tuple(tokens),
            tuple(days),
            tuple(gates),
            min(paces, default=None),
            self._estimates.setdefault(model, Estimates()),
            self._days,
        )

    def _scopes(self, tenant: str, key_id: str, model: str) -> list[_Scope]:
        """The narrowest first."""
        rules = self._rules
        found = []
        if (limits := rules.keys.get(key_id)) is not None:
            found.append(_Scope("key", f"key:{key_id}", f"key {key_id}", limits))
        if (limits := rules.tenant_models.get((tenant, model))) is not None:
            whose = f"tenant {tenant} at model {model}"
            found.append(_Scope("tenant_model", f"tenant:{tenant} model:{model}", whose, limits))
        if (limits := rules.tenants.get(tenant)) is not None:
            found.append(_Scope("tenant", f"tenant:{tenant}", f"tenant {tenant}", limits))
        if (limits := rules.models.get(model)) is not None:
            found.append(_Scope("model", f"model:{model}", f"model {model}", limits))
        return found

    def _bucket(self, scope: _Scope, name: str, per_minute: int, now: float) -> Bucket:
        capacity = float(int(scope.limits.burst(per_minute)))
        per_s = per_minute / 60.0
        at = (scope.account, name)
        bucket = self._buckets.get(at)
        if bucket is None:
            whole = f"{scope.kind}.{name}"
            bucket = self._buckets[at] = Bucket(whole, scope.whose, capacity, per_s, now)
        elif (bucket.capacity, bucket.per_s) != (capacity, per_s):
            bucket.change(capacity, per_s, now)
        return bucket

    def _day(self, scope: _Scope, per_day: int) -> DayBudget:
        budget = self._days.budget(scope.account)
        budget.name, budget.whose = f"{scope.kind}.tokens_per_day", scope.whose
        budget.capacity = float(per_day)
        return budget

    def _gate(self, scope: _Scope, limit: int) -> Gate:
        gate = self._gates.get(scope.account)
        if gate is None:
            gate = self._gates[scope.account] = Gate(scope.whose, limit)
        gate.limit = limit
        return gate

    def _sweep(self, now: float) -> None:
        """Forget what is as a new one would be. Plans are forgotten with it: they hold on to it."""
        self._buckets = {at: one for at, one in self._buckets.items() if not one.is_full(now)}
        self._gates = {at: one for at, one in self._gates.items() if one.running}
        self._days.sweep()
        self._sweep_above = max(SWEEP_ABOVE, 2 * self._known)
        self._plans.clear()
