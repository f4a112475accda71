"""What one simulated run is to do, drawn from its seed before anything runs.

The plan has dice of its own, so that a seed means the same jobs and the same disturbances whatever
the supervisor does. Times come from a coarse grid: things that happen at the same instant are the
interesting ones.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, field, fields

GRID = (0.0, 0.0, 0.1, 0.1, 0.2, 0.3)

MAPS = ("list", "stream", "outcomes", "unordered", "trickle")
"""The ways to give jobs that are a map."""

LEAVING = ("stream", "unordered", "trickle")
"""Those that may be left before the end."""

# How a job goes wrong: what it raises, and whether a Retry(on=Boom) tries again.
MISHAPS = {
    "boom": True,
    "later": True,
    "give up": False,
    "value error": False,
    "system exit": False,
    "cancelled error": False,
    "cancels itself": False,
    "returns a coroutine": False,
}


class _Short:
    """Shows only what differs from the defaults: plans are read by people who look for a bug."""

    def __repr__(self) -> str:
        told = (
            f"{each.name}={getattr(self, each.name)!r}"
            for each in fields(self)  # type: ignore[arg-type]
            if getattr(self, each.name) != each.default
        )
        return f"{type(self).__name__}({', '.join(told)})"


@dataclass(eq=False, repr=False)
class Spec(_Short):
    """One job: what it does, and how it is submitted."""

    key: int
    steps: tuple[float, ...]  # seconds to sleep, one after the other
    blocking: bool = False  # a plain function, for the threads queue
    fails: int = 0  # how many attempts go wrong, as `mishap` says
    mishap: str = "boom"
    attempts: int | None = None  # None: no retry policy
    retry_delay: float = 0.0
    timeout: float | None = None
    expires: float | None = None
    delay: float = 0.0
    priority: int = 0
    stubborn: int = 0  # how many cancellations it swallows
    children: tuple[Spec, ...] = ()
    maps: bool = False  # its children are the items of a map, not jobs it submits one by one
    sets_context: bool = False
    asks_who_it_is: bool = False
    leaves_task: bool = False
    depth: int = 0
    in_map: bool = False

    @property
    def tries(self) -> int:
        """How many attempts it takes if nobody disturbs it."""
        allowed = self.attempts or 1
        if self.fails and not MISHAPS[self.mishap]:
            return 1
        return min(self.fails + 1, allowed)

    @property
    def succeeds(self) -> bool:
        """Whether it succeeds if nobody disturbs it."""
        return self.fails < self.tries

    @property
    def seconds(self) -> float:
        """How long an attempt sleeps."""
        return sum(self.steps)

    def delay_after(self, attempt: int) -> float:
        """How long a retry waits after this attempt: twice as long each time, or as it asks."""
        if self.mishap == "later" and attempt <= self.fails:
            return self.retry_delay
        return self.retry_delay * 2.0 ** (attempt - 1)

    def family(self) -> Iterator[Spec]:
        """This job and those it submits."""
        yield self
        for child in self.children:
            yield from child.family()


@dataclass(frozen=True, repr=False)
class Client(_Short):
    """Somebody who gives jobs to the supervisor, and perhaps changes their mind."""

    at: float
    how: str
    specs: tuple[Spec, ...]
    gives_up_after: float | None = None  # is cancelled itself then
    cancels_after: float | None = None  # cancels its first job then
    reads: int = 100  # of a stream, before it leaves
    window: int | None = None


@dataclass(frozen=True)
class Disturbance:
    """Something done to the supervisor from outside at some moment."""

    at: float
    what: str
    queue: str
    number: int
    spec: Spec | None = None  # a job that is given at the same time


@dataclass
class Plan:
    """Everything about one run."""

    seed: int
    workers: int
    threads: int
    maxsize: int | None
    isolation: str
    unwind: float
    ageing: float | None
    told: bool
    bad_listener_at: int | None
    meddler_at: int | None
    meddles_with: str
    ending: str
    ends_at: float
    grace: float
    patient: bool  # waits for everybody before it leaves
    enters_again: bool
    latency: tuple[float, float]
    clients: list[Client] = field(default_factory=list)
    disturbances: list[Disturbance] = field(default_factory=list)

    def specs(self) -> Iterator[Spec]:
        """Every job there may be."""
        for client in self.clients:
            for spec in client.specs:
                yield from spec.family()
        for disturbance in self.disturbances:
            if disturbance.spec is not None:
                yield from disturbance.spec.family()


def make_plan(seed: int) -> Plan:
    """Draw the plan of a seed."""
    dice = random.Random(f"plan {seed}")
    plan = Plan(
        seed=seed,
        workers=dice.choice((1, 1, 2, 3)),
        threads=dice.choice((1, 2)),
        maxsize=dice.choice((None, None, 1, 3)),
        isolation=dice.choice(("shared", "shared", "task")),
        unwind=dice.choice((0.0, 0.1, 0.3)),
        ageing=dice.choice((None, None, None, 0.2)),
        told=dice.random() < 0.7,
        bad_listener_at=dice.randrange(40) if dice.random() < 0.2 else None,
        meddler_at=dice.randint(1, 4) if dice.random() < 0.2 else None,
        meddles_with=dice.choice(("job", "client")),
        ending=dice.choice(("normal",) * 6 + ("drain", "drain", "raise", "cancel", "cancel all")),
        ends_at=dice.choice((0.0, 0.1, 0.3, 0.6, 1.0)),
        grace=dice.choice((0.0, 0.1, 0.5, 2.0)),
        patient=dice.random() < 0.4,
        enters_again=dice.random() < 0.1,
        latency=dice.choice(((0.0, 0.0), (0.0, 0.3))),
    )
    maker = _SpecMaker(dice)
    for _ in range(dice.randint(2, 7)):
        plan.clients.append(_make_client(dice, maker))
    if dice.random() < 0.5:
        for _ in range(dice.randint(1, 4)):
            plan.disturbances.append(_make_disturbance(dice, maker))
    return plan


def _make_client(dice: random.Random, maker: _SpecMaker) -> Client:
    how = dice.choice(
        ("submit",) * 5
        + ("nowait", "many", "call", "call", "threadsafe")
        + ("list", "stream", "outcomes", "unordered", "trickle")
    )
    count = 1 if how == "call" else dice.randint(1, 4)
    maps = how in MAPS
    specs = (
        maker.alike(count + 1, maps)  # these make all their jobs of one function, so of one policy
        if maps or how == "many"
        else tuple(maker.spec() for _ in range(count))
    )
    roll = dice.random()
    return Client(
        at=dice.choice(GRID),
        how=how,
        specs=specs,
        gives_up_after=dice.choice(GRID) if roll < 0.25 else None,
        cancels_after=dice.choice(GRID) if 0.25 <= roll < 0.4 else None,
        reads=dice.randint(0, 2) if how in LEAVING and dice.random() < 0.4 else 100,
        window=dice.choice((None, 1, 2)),
    )


def _make_disturbance(dice: random.Random, maker: _SpecMaker) -> Disturbance:
    what = dice.choice(
        (
            *(
                "pause",
                "resume",
                "resize",
                "resize",
                "cancel",
                "cancel",
                "look",
                "listen",
                "deafen",
            ),
            *("strangle", "ambush", "ambush", "outbid", "outbid"),
        )
    )
    return Disturbance(
        at=dice.choice((0.0, 0.05, 0.1, 0.1, 0.2, 0.2, 0.3, 0.5)),
        what=what,
        queue=dice.choice(("default", "default", "threads")),
        number=dice.randrange(5),
        spec=maker.spec() if what == "ambush" else None,
    )


class _SpecMaker:
    """Draws jobs, and numbers them."""

    def __init__(self, dice: random.Random) -> None:
        self._dice = dice
        self._made = 0

    def spec(self, depth: int = 0) -> Spec:
        """Draw any job."""
        dice = self._dice
        spec = self._bare(depth)
        kind = dice.random()
        if kind < 0.25:
            self._make_failing(spec)
        elif kind < 0.4:
            spec.timeout = dice.choice((0.1, 0.2, 0.3))
            if dice.random() < 0.5:
                spec.attempts, spec.retry_delay = 2, dice.choice(GRID)
            spec.stubborn = dice.choice((0, 0, 1, 2))
        elif kind < 0.5 and depth == 0:
            spec.stubborn = dice.choice((1, 3))
        elif kind < 0.65 and depth < 2 and not spec.blocking:
            spec.maps = dice.random() < 0.25
            count = dice.randint(1, 3)
            spec.children = (
                self.alike(count, in_map=True, depth=depth + 1)
                if spec.maps
                else tuple(self.spec(depth + 1) for _ in range(count))
            )
        self._make_special(spec)
        return spec

    def alike(self, count: int, in_map: bool, depth: int = 0) -> tuple[Spec, ...]:
        """Draw jobs of the same policy; what they do differs."""
        dice = self._dice
        first = self._bare(depth)
        if dice.random() < 0.3:
            self._make_failing(first)
        if dice.random() < 0.3:
            self._make_special(first)
        specs = [first]
        for _ in range(count - 1):
            other = self._bare(depth)
            for name in ("blocking", "attempts", "retry_delay", "expires", "delay", "priority"):
                setattr(other, name, getattr(first, name))
            if first.blocking:
                other.steps, other.leaves_task = (), False
            specs.append(other)
        for spec in specs:
            spec.in_map = in_map
        return tuple(specs)

    def _bare(self, depth: int) -> Spec:
        dice = self._dice
        self._made += 1
        blocking = dice.random() < 0.2
        steps = () if blocking else tuple(dice.choice(GRID) for _ in range(dice.randint(0, 3)))
        return Spec(
            self._made,
            steps,
            blocking=blocking,
            depth=depth,
            sets_context=dice.random() < 0.1,
            asks_who_it_is=dice.random() < 0.4,
            leaves_task=not blocking and dice.random() < 0.03,
        )

    def _make_failing(self, spec: Spec) -> None:
        dice = self._dice
        mishaps = [name for name in MISHAPS if not spec.blocking or name not in _NEED_A_LOOP]
        spec.mishap = dice.choice(("boom", "boom", *mishaps))
        spec.fails = dice.choice((1, 1, 2, 5))
        if dice.random() < 0.8:
            spec.attempts = dice.choice((1, 2, 3))
            spec.retry_delay = dice.choice(GRID)

    def _make_special(self, spec: Spec) -> None:
        dice = self._dice
        if dice.random() < 0.2:
            spec.delay = dice.choice(GRID)
        if dice.random() < 0.15:
            spec.expires = dice.choice((0.1, 0.2, 0.3))
        if dice.random() < 0.25:
            spec.priority = dice.choice((-1, 1, 5))


_NEED_A_LOOP = ("cancels itself", "returns a coroutine")
