"""Decides whether the importance sampling of a recorded evaluation can be trusted."""

MOST_FAILING = 0.1  # fraction of images whose Pareto k-hat may be too large
NEARLY_ALL = 0.95  # fraction of effective samples above which the weights hardly differ
MOST_FALL = 0.05  # nats by which the last doubling of the samples may lower the NLL


def doubt(evaluation: dict) -> str | None:
    """Return a remark if the NLL of an evaluation is probably too high, otherwise None.

    Pareto k-hat decides (docs/evaluation.md), unless the weights hardly differ. In older records,
    which do not have it, the fall of the curve with the last samples decides.
    """
    if evaluation["exact"]:
        return None
    if pareto := evaluation.get("pareto"):
        effective = pareto.get("ess_median", 0) / pareto["samples"]
        if pareto["failing"] <= MOST_FAILING or effective >= NEARLY_ALL:
            return None
        why = (
            f"Pareto k-hat above {pareto['k_most']:.2f} for {pareto['failing']:.0%} of the images"
        )
    else:
        fall = _last_fall(evaluation.get("curve", []))
        if fall <= MOST_FALL:
            return None
        why = f"the last doubling of the samples lowered the NLL by {fall:.2f} nats"
        if "ess" in evaluation:
            of = evaluation["importance_samples"]
            why += f"; {evaluation['ess']:.1f} effective samples of {of}"
        why += "; Pareto k-hat not recorded"
    return f"not reliable, probably too high ({why})"


def _last_fall(curve: list[dict]) -> float:
    """Return the fall of the NLL, in nats, with the last doubling of the samples; 0 if none."""
    nll = {point["k"]: point["nll"] for point in curve}
    most = max(nll, default=0)
    before = [k for k in nll if 2 * k <= most]
    return nll[max(before)] - nll[most] if before else 0.0
