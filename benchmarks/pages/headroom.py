"""How much the choice of adapters can matter: the losses of random subsets, and how much their members explain."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from scipy import stats
from sklearn.linear_model import RidgeCV
from sklearn.metrics import r2_score
from sklearn.model_selection import LeaveOneGroupOut, cross_val_predict

from weightlora.compare.statistics import paired
from weightlora.compare.tables import difference, escape_markdown, markdown_table
from weightlora.errors import DataError
from weightlora.layout import lay_out
from weightlora.train.result import Result

from ..depth import thirds_of_depth

ALPHAS = np.logspace(-3, 4, 29)


def fit_membership(results: Sequence[Result]) -> dict[str, Any]:
    """Ridge regressions of the held-out loss of random subsets on the adapters in each subset.

    There are three regressions. scikit-learn's RidgeCV chooses their penalties.

    * `adapters`: on the membership (runs x n, 0 or 1).
    * `groups`: on the number of members in each third of the depth and module type.
    * `size`: on the number of trainable parameters only.

    A coefficient is the change in loss per additional member (in `size`, per standard deviation of the number of
    parameters). Negative is good. Subsets have the same size, so only differences between coefficients have a meaning,
    and the penalty centres them near 0.

    `r2` is the share of the spread that the members explain: 1 minus the squared error over the squared spread, where
    each run is predicted from the runs of all other subsets. It is negative if the mean predicts better.

    Args:
        results: Runs of one task, each with K of the same adapters.

    Returns:
        * `runs`, `subsets` (the number of different ones), `n`, `keep`.
        * `loss`: `{"mean", "std", "min", "max"}`.
        * `adapters` and `groups`: `{"r2", "alpha", "intercept", "coefficients": {name: x}}`.
        * `size`: the same, with `mean` and `std` of the number of parameters. None if all have the same number.
        * `types` and `layers`: mean coefficient of the adapters of a module type or layer.
        * `best`: `{"kept": [name], "loss": x}`, the K adapters with the lowest predicted loss, in the order of the
          model. This loss is the best of many predictions, so it is too optimistic.

    Raises:
        DataError: Two runs chose from different adapters.
    """
    names = _common_names(results)
    membership = np.array([[name in (result.kept or ()) for name in names] for result in results], dtype=float)
    losses = np.array([result.held_out_loss for result in results], dtype=float)
    subsets = np.unique(membership, axis=0, return_inverse=True)[1].reshape(-1)
    keep = int(membership[0].sum())
    counts, groups = _group_counts(membership, names)
    adapters = _fit(membership, losses, subsets, names)
    return {
        "runs": len(results),
        "subsets": int(subsets.max()) + 1,
        "n": len(names),
        "keep": keep,
        "loss": {
            "mean": float(losses.mean()),
            "std": float(losses.std(ddof=1)),
            "min": float(losses.min()),
            "max": float(losses.max()),
        },
        "adapters": adapters,
        "groups": _fit(counts, losses, subsets, groups),
        "size": _fit_size(results, losses, subsets),
        **_mean_coefficients(adapters["coefficients"]),
        "best": _best_set(adapters, keep),
    }


def stand(value: float, losses: Sequence[float]) -> float:
    """Percentile of a loss among the losses of random subsets: the percentage that is lower. A tie counts half.

    0 is better than all of them, 50 is as good as the median.
    """
    return min(100.0, float(stats.percentileofscore(losses, value, kind="mean")))  # SciPy may round above 100


def place_methods(results: Iterable[Result], subsets: Sequence[Result]) -> dict[str, dict[str, Any]]:
    """The position of methods among random subsets of the same task.

    Args:
        results: Runs of the methods.
        subsets: Runs with random subsets, one per seed.

    Returns:
        `{label: {"loss", "seeds", "percentile", "vs"}}`, sorted by loss. `loss` is the mean over the seeds of the
        method. It varies less than the single runs with which it is compared. `vs` is the difference from the subsets,
        paired by seed.
    """
    runs: defaultdict[str, dict[int, float]] = defaultdict(dict)
    for result in results:
        runs[result.label][result.seed] = result.held_out_loss
    chance = {run.seed: run.held_out_loss for run in subsets}
    means = sorted((float(np.mean(list(losses.values()))), method) for method, losses in runs.items())
    return {
        method: {
            "loss": mean,
            "seeds": len(runs[method]),
            "percentile": stand(mean, list(chance.values())),
            "vs": paired(runs[method], chance),
        }
        for mean, method in means
    }


def render_headroom_markdown(task: str, fit: Mapping[str, Any], methods: Mapping[str, Mapping[str, Any]]) -> str:
    """The spread, what explains it, the predicted best set, and the position of methods among random subsets.

    Args:
        task: Heading.
        fit: From `fit_membership`.
        methods: From `place_methods`.
    """
    loss, best = fit["loss"], fit["best"]
    rows = [
        [name, str(entry["seeds"]), f"{entry['loss']:.4f}", f"{entry['percentile']:.0f} %", difference(entry["vs"])]
        for name, entry in methods.items()
    ]
    parts = [
        f"## {escape_markdown(task)}: what the choice of adapters can change",
        f"{fit['runs']} runs of {fit['subsets']} random subsets of {fit['n']} adapters: held-out loss "
        f"{loss['mean']:.4f}, standard deviation {loss['std']:.4f}, from {loss['min']:.4f} to {loss['max']:.4f}.",
        _explained(fit),
        f"The {fit['keep']} adapters with the lowest predicted loss, {best['loss']:.4f}. Expect a higher loss from "
        "training them, because this is the lowest of many predictions:",
        "\n".join(f"- {escape_markdown(name)}" for name in best["kept"]),
        "Mean coefficient, the predicted change in loss for one more adapter of that kind (negative is good):",
        _coefficient_table("module type", fit["types"]),
        _coefficient_table("layer", fit["layers"]),
        "Methods compared with the random subsets: the share of subsets with a lower loss than the method's mean, and "
        "the paired difference at the same seeds (± half-width of the 95 % t-interval; ▼ and ▲ mark intervals that "
        "exclude 0).",
        markdown_table(["method", "seeds", "loss", "random subsets that are better", "loss minus a subset's"], rows),
    ]
    return "\n\n".join(parts) + "\n"


def _common_names(results: Sequence[Result]) -> list[str]:
    names = results[0].names
    for result in results:
        if result.names != names:
            raise DataError(f"{result.label}, seed {result.seed}: its adapters are not those of the first result.")
    return list(names or ())


def _group_counts(membership: np.ndarray, names: Sequence[str]) -> tuple[np.ndarray, list[str]]:
    """Members of each subset (runs x groups) by third of the depth and module type, and the groups' names."""
    grid = lay_out(names)
    group_of = [
        f"{third} {grid.rows[row]}" if third else grid.rows[row]
        for (row, _), third in zip(grid.cells, thirds_of_depth(names), strict=True)
    ]
    groups = list(dict.fromkeys(group_of))
    belongs = np.array([[own == group for group in groups] for own in group_of], dtype=float)
    return membership @ belongs, groups


def _fit(features: np.ndarray, losses: np.ndarray, subsets: np.ndarray, names: Sequence[str]) -> dict[str, Any]:
    """Ridge regression of the losses on the features (runs x names). Runs of one subset are left out together."""
    ridge = RidgeCV(alphas=ALPHAS)
    predicted = cross_val_predict(ridge, features, losses, groups=subsets, cv=LeaveOneGroupOut())
    ridge.fit(features, losses)
    return {
        "r2": float(r2_score(losses, predicted)),
        "alpha": float(ridge.alpha_),
        "intercept": float(ridge.intercept_),
        "coefficients": dict(zip(names, map(float, ridge.coef_), strict=True)),
    }


def _fit_size(results: Sequence[Result], losses: np.ndarray, subsets: np.ndarray) -> dict[str, Any] | None:
    """Ridge regression of the losses on the standardized number of trainable parameters."""
    parameters = np.array([result.adapter_parameters_after for result in results], dtype=float)
    mean, std = float(parameters.mean()), float(parameters.std(ddof=1))
    if std == 0:
        return None
    fit = _fit(((parameters - mean) / std)[:, None], losses, subsets, ["parameters"])
    return {**fit, "mean": mean, "std": std}


def _mean_coefficients(coefficients: Mapping[str, float]) -> dict[str, dict[str, float]]:
    """Mean coefficient of each module type and each layer."""
    grid = lay_out(list(coefficients))
    types: defaultdict[str, list[float]] = defaultdict(list)
    layers: defaultdict[str, list[float]] = defaultdict(list)
    for (row, column), coefficient in zip(grid.cells, coefficients.values(), strict=True):
        types[grid.rows[row]].append(coefficient)
        layers[grid.columns[column]].append(coefficient)
    return {
        "types": {name: float(np.mean(types[name])) for name in types},
        "layers": {name: float(np.mean(layers[name])) for name in grid.columns},
    }


def _best_set(adapters: Mapping[str, Any], keep: int) -> dict[str, Any]:
    coefficients = adapters["coefficients"]
    lowest = set(sorted(coefficients, key=coefficients.__getitem__)[:keep])
    kept = [name for name in coefficients if name in lowest]
    return {"kept": kept, "loss": adapters["intercept"] + sum(coefficients[name] for name in kept)}


def _explained(fit: Mapping[str, Any]) -> str:
    """The sentences about r2, with a warning if the coefficients have no meaning."""
    of_adapters, of_groups, size = fit["adapters"]["r2"], fit["groups"]["r2"], fit["size"]
    of_size = f", {size['r2']:.2f} from the number of parameters alone" if size else ""
    text = (
        f"How much of this spread do the members of a subset explain? The R2 on subsets that the fit has not seen is "
        f"{of_adapters:.2f} from the single adapters, {of_groups:.2f} from counts by depth and module type{of_size}. "
        "The rest is noise between runs, interaction of adapters, and what so few runs cannot show."
    )
    if size and size["r2"] > 0:
        text += (
            f" The subsets have {size['mean']:,.0f} parameters on average, with a standard deviation of "
            f"{size['std']:,.0f}. One standard deviation more changes the predicted loss by "
            f"{size['coefficients']['parameters']:+.4f}."
        )
    if of_adapters > 0:
        return text
    return (
        f"{text} The single adapters predict no better than the mean loss does, so the coefficients and the predicted "
        "best set below mean nothing."
    )


def _coefficient_table(kind: str, coefficients: Mapping[str, float]) -> str:
    return markdown_table([kind, "coefficient"], [[name, f"{value:+.5f}"] for name, value in coefficients.items()])
