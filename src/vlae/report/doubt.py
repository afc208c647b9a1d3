"""Whether the importance sampling of a recorded evaluation is to be trusted."""

MOST_FAILING = 0.1  # of the images, by their Pareto k-hat
MOST_FALL = 0.05  # nats that the last doubling of the samples may take off the NLL


def doubt(evaluation: dict) -> str | None:
    """Return the remark on an NLL that is probably too high; None where nothing says so.

    By Pareto k-hat (docs/evaluation.md); of records that are older than that, by what their curve
    still fell with the last samples.
    """
    if evaluation["exact"]:
        return None
    if pareto := evaluation.get("pareto"):
        if pareto["failing"] <= MOST_FAILING:
            return None
        why = (
            f"Pareto k-hat above {pareto['k_most']:.2f} for {pareto['failing']:.0%} of the images"
        )
    else:
        fall = _last_fall(evaluation.get("curve", []))
        if fall <= MOST_FALL:
            return None
        why = f"the last doubling of the samples still took off {fall:.2f} nats"
        if "ess" in evaluation:
            of = evaluation["importance_samples"]
            why += f"; {evaluation['ess']:.1f} effective samples of {of}"
        why += "; Pareto k-hat not recorded"
    return f"not reliable, probably too high ({why})"


def _last_fall(curve: list[dict]) -> float:
    """By how much the NLL fell while the samples doubled for the last time; 0 if they did not."""
    nll = {point["k"]: point["nll"] for point in curve}
    most = max(nll, default=0)
    before = [k for k in nll if 2 * k <= most]
    return nll[max(before)] - nll[most] if before else 0.0
