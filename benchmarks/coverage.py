"""How often the intervals of a study hold: simulated studies whose true differences are known.

A figure of case g and seed s is b_s + ε_gs, with a seed effect b and a noise of its own for every
case; all true means and differences are 0. Printed are, per cent: how often the interval of a mean
holds, how often that of a difference from the first case does (one by one, and all at once), how
often a case is called the best though none is, and the width of a typical difference's interval in
true standard errors (1.96 would do for one that is known exactly).
"""

from __future__ import annotations

import argparse
from itertools import product

import numpy as np
import numpy.typing as npt

from vaelab.studies.statistics import differences, means

NOISES = ("equal", "unequal", "noisiest first", "one of 4")


def deviations(noise: str, cases: int, random: np.random.Generator) -> npt.NDArray[np.float64]:
    """Return the standard deviation of every case: within a factor of 10, or one of 4 times."""
    if noise == "equal":
        return np.ones(cases)
    if noise == "one of 4":
        return np.array([4.0] + [1.0] * (cases - 1))
    found = 10 ** random.uniform(0, 1, cases)
    return np.sort(found)[::-1] if noise == "noisiest first" else found


def simulate(
    noise: str, cases: int, seeds: int, effect: float, studies: int, start: int = 0
) -> tuple[float, float, float, float, float]:
    """Return coverage of means, of differences (each, all), wrong winners, and the median width."""
    random = np.random.default_rng(start)
    mean = each = together = wrong = 0.0
    widths = []
    pairs = [(str(case), "0") for case in range(1, cases)]
    for _ in range(studies):
        sigma = deviations(noise, cases, random)
        shared = effect * np.exp(np.log(sigma).mean()) * random.normal(size=seeds)
        y = sigma[:, None] * random.normal(size=(cases, seeds)) + shared
        groups = {str(case): dict(enumerate(row)) for case, row in enumerate(y)}
        own = {name: list(values.values()) for name, values in groups.items()}
        found = differences(groups, pairs)
        held = [not gap.decided for gap in found.values()]
        each, together = each + np.mean(held), together + all(held)
        mean += np.mean([not one.decided for one in means(own).values()])
        best = str(y.mean(1).argmax())
        rivals = [(best, name) for name in groups if name != best]
        wrong += all(gap.decided for gap in differences(groups, rivals).values())
        error = np.sqrt((sigma[1:] ** 2 + sigma[0] ** 2) / seeds)
        widths.append(np.median([gap.interval or 0 for gap in found.values()] / error))
    shares = [100 * share / studies for share in (mean, each, together, wrong)]
    return shares[0], shares[1], shares[2], shares[3], float(np.median(widths))


def main() -> None:
    """Print a table of all settings."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--studies", type=int, default=1000)
    parser.add_argument("--cases", type=int, nargs="*", default=[2, 3, 8, 33])
    parser.add_argument("--seeds", type=int, nargs="*", default=[2, 3, 5])
    parser.add_argument("--effects", type=float, nargs="*", default=[0, 1, 5])
    options = parser.parse_args()
    print("| noise | cases | seeds | seed effect, σ | mean | difference | all | best | width |")
    print("| --- " + "| --: " * 8 + "|")
    for setting in product(NOISES, options.cases, options.seeds, options.effects):
        shares = simulate(*setting, options.studies)
        row = [f"{share:.1f}" for share in shares]
        print(f"| {' | '.join(map(str, [*setting, *row]))} |", flush=True)


if __name__ == "__main__":
    main()
