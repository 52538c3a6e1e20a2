"""What a run measured of V, of the labels and of the flow, in words: lists of short lines."""

def value_words(found):
    """found: of `lab.checks.check_value`; every number that is None is said, too."""
    r = found.get("heldout_correlation")
    auc = found.get("outcome_auc")
    share = found.get("heldout_success")
    lines = ["V on new episodes: all returns are alike, no correlation to speak of"]
    if r is not None:
        lines = [f"V on new episodes: correlation with the return {r:.2f}"]
    if auc is not None:
        lines.append(f"V separates successes from failures in mid-episode: {auc:.2f} (chance: 0.5)")
    elif share is None:
        lines.append("V: no failures, or no successes, to separate")
    else:
        lines.append(f"V: no {'failures' if share > 0.5 else 'successes'} to speak of")
    if found.get("heldout_loss") is not None:
        lines.append(
            f"loss (Eq. 1): {found['heldout_loss']:.2f} on new episodes, "
            f"{found['train_loss']:.2f} on its own"
        )
    if found.get("prompt_effect") is not None:
        lines.append(f"another task's prompt moves V by {found['prompt_effect']:.3f}")
    return lines

def label_words(found):
    """found: of `lab.checks.count_labels`."""
    lines = [
        f"ε = {found['epsilon']:.4f}",
        f"positive: {percent(found['positive_fraction_rollouts'])} of the newest rollouts' steps, "
        f"{percent(found['positive_fraction_demonstrations'])} of the demonstrations'",
    ]
    if "positive_fraction_successes" in found:
        lines.append(
            f"positive: {percent(found['positive_fraction_successes'])} of the steps of successes, "
            f"{percent(found['positive_fraction_failures'])} of failures"
        )
    if found.get("corrected_fraction") is not None:
        share = percent(found["corrected_fraction"])
        lines.append(f"corrected: {share} of the steps that an operator watched")
    good = found.get("positive_given_good")
    bad = found.get("positive_given_bad")
    if good is not None or bad is not None:
        lines.append(
            f"positive: {percent(good)} of steps that look good, {percent(bad)} of bad-looking ones"
        )
    return lines

def flow_words(found):
    """found: of `lab.checks.flow_loss_by_eta`."""
    return ["flow loss by η: " + ", ".join(f"{edges} {x:.3g}" for edges, x in found.items())]

def percent(x):
    """A share; none: there is nothing of the kind."""
    return "none" if x is None else f"{x:.0%}"
