"""Search: the path of mixes from the most accurate to the cheapest, and the way along it to the one that is looked for.

Knows mixes, their costs and the noise of their parts. How good a mix really is, it asks of a function that it is given.

The method is that of Pandey et al., "A Practical Mixed Precision Algorithm for Post-Training Quantization" (2023), which
AIMET's automatic mixed precision follows as well: measure each part alone, order the changes by what they cost in
accuracy, measure mixes along that order, and bisect. What orders them here is noise per cost saved, which gives the
lower convex hull of all mixes where noises add up (Shoham and Gersho, "Efficient Bit Allocation for an Arbitrary Set
of Quantizers", IEEE Transactions on ASSP 36(9), 1988).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product

from qnb.quant.mixes import Assignment, CostName, Problem, replaced

__all__ = [
    "Found", "Measure", "Move", "Noise", "all_mixes", "cheapest", "evenly", "greedy_path", "most_accurate", "pareto",
]  # fmt: skip

Measure = Callable[[Sequence[Assignment]], Sequence[float]]
"""Gives the true score of each mix; higher is better, NaN is worst."""

Noise = Sequence[Mapping[str, float]]
"""For each part and option: noise power over signal power at the model's output when nothing else is quantized."""


@dataclass(frozen=True)
class Move:
    """One part gets another precision: what it saves, and by how much the noise is predicted to grow."""

    part: int
    option: str
    saving: float
    noise: float

    @property
    def ratio(self) -> float:
        """Noise for each unit of cost that is saved."""
        return self.noise / self.saving


def moves(problem: Problem, noise: Noise, mix: Assignment, part: int, cost: CostName) -> Iterator[Move]:
    """Give the ways to make one part of a mix cheaper."""
    for option in problem.parts[part].options:
        saving = problem.saving(mix, part, option, cost)
        if saving > 0:
            yield Move(part, option, saving, noise[part][option] - noise[part][mix[part]])


def most_accurate_mix(problem: Problem, noise: Noise, cost: CostName) -> Assignment:
    """Give each part its least noisy option; of equals the cheapest."""
    mix = tuple(part.options[0] for part in problem.parts)
    for index, part in enumerate(problem.parts):
        best = min(part.options, key=lambda o: (noise[index][o], -problem.saving(mix, index, o, cost)))
        mix = replaced(mix, index, best)
    return mix


def greedy_path(problem: Problem, noise: Noise, cost: CostName = "bops") -> list[Assignment]:
    """Give mixes from the most accurate to the cheapest, each made of the one before by the best single change.

    The best change is the one with the least predicted noise for the cost that it saves. Where noises and costs add up,
    the path visits every vertex of the lower convex hull of all mixes (Shoham and Gersho 1988).

    Parameters
    ----------
    problem : Problem
    noise : sequence of mapping
        Noise-to-signal ratio of each option of each part.
    cost : {"bops", "size"}
    """
    mix = most_accurate_mix(problem, noise, cost)
    path = [mix]

    def best(part: int) -> Move | None:
        return min(moves(problem, noise, mix, part, cost), key=lambda m: (m.ratio, -m.saving), default=None)

    found = [best(part) for part in range(len(problem.parts))]
    while any(found):
        move = min((m for m in found if m), key=lambda m: (m.ratio, -m.saving))
        mix = replaced(mix, move.part, move.option)
        path.append(mix)
        for part in problem.neighbours(move.part):
            found[part] = best(part)
    return path


@dataclass
class Found:
    """What a search came to.

    Attributes
    ----------
    best : tuple of str or None
        The mix that was looked for; None where no mix holds the target.
    scores : dict
        Every mix that was measured, with its score.
    path : list
        The greedy path.
    """

    best: Assignment | None
    scores: dict[Assignment, float]
    path: list[Assignment] = field(default_factory=list)


class _Scores:
    """Scores of mixes, each measured once."""

    def __init__(self, measure: Measure) -> None:
        self._measure = measure
        self.known: dict[Assignment, float] = {}

    def __call__(self, mixes: Sequence[Assignment]) -> list[float]:
        new = [m for m in dict.fromkeys(mixes) if m not in self.known]
        if new:
            for mix, score in zip(new, self._measure(new), strict=True):
                self.known[mix] = score if score == score else float("-inf")
        return [self.known[m] for m in mixes]


def evenly(path: Sequence[Assignment], count: int, problem: Problem, cost: CostName) -> list[int]:
    """Give positions on the path that are about evenly spaced in cost, both ends among them."""
    costs = [problem.cost(mix, cost) for mix in path]
    high, low = costs[0], costs[-1]
    steps = max(2, min(count, len(path)))
    wanted = [high - (high - low) * i / (steps - 1) for i in range(steps)]
    near = {min(range(len(path)), key=lambda k, w=want: abs(costs[k] - w)) for want in wanted}  # type: ignore[misc]
    return sorted(near | {0, len(path) - 1})


def cheapest(
    problem: Problem,
    noise: Noise,
    measure: Measure,
    target: float,
    *,
    cost: CostName = "bops",
    points: int = 9,
    batch: int = 2,
    refine: int = 16,
    baselines: Sequence[Assignment] = (),
) -> Found:
    """Find the cheapest mix whose true score is at least `target`.

    Points of the greedy path are measured, the last one that holds is found by bisection, and from there single changes
    and swaps are tried. The score along the path is taken to fall; where it does not, the answer still holds the target.

    Parameters
    ----------
    problem, noise, cost
        As in `greedy_path`.
    measure : callable
        Gives the true scores of mixes.
    target : float
    points : int
        Points of the path that are measured in any case, for the picture.
    batch : int
        How many mixes can be measured at once: the path is cut in `batch` + 1 pieces each time.
    refine : int
        How many mixes may be measured beyond the path.
    baselines : sequence of Assignment
        Measured as well.
    """
    path = greedy_path(problem, noise, cost)
    scores = _Scores(measure)
    positions = evenly(path, points, problem, cost)
    scores([*(path[k] for k in positions), *baselines])
    low, high = _bracket(path, scores.known, target)
    while low >= 0 and high - low > 1:
        inside = sorted({low + (high - low) * i // (batch + 1) for i in range(1, batch + 1)} - {low, high})
        scores([path[k] for k in inside or [low + 1]])
        low, high = _bracket(path, scores.known, target)

    def best() -> Assignment | None:
        good = [m for m, score in scores.known.items() if score >= target]
        return min(good, key=lambda m: (problem.cost(m, cost), -scores.known[m]), default=None)

    left = refine
    tried: set[Assignment] = set(scores.known)
    while left > 0 and (mix := best()) is not None:
        new = [m for m in _cheaper(problem, noise, mix, cost) if m not in tried][: min(left, max(batch, 4))]
        if not new:
            break
        tried.update(new)
        scores(new)
        left -= len(new)
    return Found(best(), scores.known, path)


def _bracket(path: Sequence[Assignment], known: Mapping[Assignment, float], target: float) -> tuple[int, int]:
    """Give the last position that is known to hold, and the first one behind it that is known not to."""
    good = [k for k, mix in enumerate(path) if known.get(mix, float("-inf")) >= target]
    low = good[-1] if good else -1
    bad = [k for k in range(low + 1, len(path)) if path[k] in known]
    return low, bad[0] if bad else len(path)


def _cheaper(problem: Problem, noise: Noise, mix: Assignment, cost: CostName) -> list[Assignment]:
    """Give cheaper mixes one change or one swap away, those with the least predicted noise for what they save first."""
    down = [m for part in range(len(problem.parts)) for m in moves(problem, noise, mix, part, cost)]
    down.sort(key=lambda m: (m.ratio, -m.saving))
    ranked = [(m.ratio, replaced(mix, m.part, m.option)) for m in down]
    for up in _upgrades(problem, noise, mix, cost)[:8]:
        raised = replaced(mix, up.part, up.option)
        for move in down[:32]:
            if move.part != up.part:
                saving = up.saving + problem.saving(raised, move.part, move.option, cost)
                if saving > 0:
                    ranked.append(((up.noise + move.noise) / saving, replaced(raised, move.part, move.option)))
    return [m for _, m in sorted(ranked, key=lambda pair: pair[0])]


def _upgrades(problem: Problem, noise: Noise, mix: Assignment, cost: CostName) -> list[Move]:
    """Give the ways to make a part more accurate, those that take most noise away for their cost first."""
    found = []
    for part, options in enumerate(problem.parts):
        for option in options.options:
            less = noise[part][option] - noise[part][mix[part]]
            if less < 0:
                found.append(Move(part, option, problem.saving(mix, part, option, cost), less))
    return sorted(found, key=lambda m: m.noise / max(-m.saving, 1e-9))


def most_accurate(
    problem: Problem,
    noise: Noise,
    measure: Measure,
    budget: float,
    *,
    cost: CostName = "bops",
    points: int = 9,
    batch: int = 2,
    refine: int = 16,
    baselines: Sequence[Assignment] = (),
) -> Found:
    """Find the mix with the best true score among those that cost at most `budget`.

    The first affordable point of the greedy path is filled up with upgrades as far as the budget reaches; then swaps are
    tried that stay within it. Parameters are those of `cheapest`.
    """
    path = greedy_path(problem, noise, cost)
    scores = _Scores(measure)
    affordable = [k for k, mix in enumerate(path) if problem.cost(mix, cost) <= budget]
    start = [path[affordable[0]], _filled(problem, noise, path[affordable[0]], cost, budget)] if affordable else []
    scores([*(path[k] for k in evenly(path, points, problem, cost)), *start, *baselines])

    def best() -> Assignment | None:
        within = [m for m in scores.known if problem.cost(m, cost) <= budget]
        return max(within, key=lambda m: (scores.known[m], -problem.cost(m, cost)), default=None)

    left = refine
    tried: set[Assignment] = set(scores.known)
    while left > 0 and (mix := best()) is not None:
        new = [m for m in _within(problem, noise, mix, cost, budget) if m not in tried][: min(left, max(batch, 4))]
        if not new:
            break
        tried.update(new)
        scores(new)
        left -= len(new)
    return Found(best(), scores.known, path)


def _filled(problem: Problem, noise: Noise, mix: Assignment, cost: CostName, budget: float) -> Assignment:
    """Make parts more accurate as long as the budget allows."""
    while True:
        room = budget - problem.cost(mix, cost)
        up = next((m for m in _upgrades(problem, noise, mix, cost) if -m.saving <= room), None)
        if up is None:
            return mix
        mix = replaced(mix, up.part, up.option)


def _within(problem: Problem, noise: Noise, mix: Assignment, cost: CostName, budget: float) -> list[Assignment]:
    """Give mixes within the budget where one part is more accurate and at most one other less, best predicted first."""
    spent = problem.cost(mix, cost)
    ranked: list[tuple[float, Assignment]] = []
    for up in _upgrades(problem, noise, mix, cost)[:16]:
        raised = replaced(mix, up.part, up.option)
        if spent - up.saving <= budget:
            ranked.append((up.noise, raised))
            continue
        for part in range(len(problem.parts)):
            for move in moves(problem, noise, raised, part, cost) if part != up.part else ():
                if spent - up.saving - move.saving <= budget:
                    ranked.append((up.noise + move.noise, replaced(raised, part, move.option)))
    return [m for _, m in sorted(ranked, key=lambda pair: pair[0])]


def pareto(costs: Sequence[float], scores: Sequence[float]) -> list[bool]:
    """Say of each point whether no other is at least as cheap and as good, and better in one of both."""
    order = sorted(range(len(costs)), key=lambda i: (costs[i], -scores[i]))
    front = [False] * len(costs)
    best, last = float("-inf"), None
    for i in order:
        if scores[i] > best:
            front[i], best, last = True, scores[i], costs[i]
        elif scores[i] == best and costs[i] == last:
            front[i] = True
    return front


def all_mixes(problem: Problem) -> Iterator[Assignment]:
    """Every mix there is: for problems that are small."""
    return product(*(part.options for part in problem.parts))
