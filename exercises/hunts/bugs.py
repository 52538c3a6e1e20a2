"""The bugs: for teachers.  Students get a tree with one of them in it, and its page in symptoms/.

Every one was read in public code, and none raises an error.  `change` holds pairs of old and new
text.  The old one must occur exactly once in the module: an edit elsewhere does no harm, and one
of that very line is noticed at once.
"""
from dataclasses import dataclass, field

@dataclass(frozen=True)
class Bug:
    name: str  # what is wrong, in a few words
    module: str  # module.py; its tests are tests/test_<module>.py
    change: list  # of (old text, new text)
    why: str  # why nothing complains, and what it does
    tests: str = ""  # the module's tests where they have another name
    # Of the picture on its page (pictures.py):
    since: str = "V_pre"  # first product of Algorithm 1 that the bug, or `run`, changes; "": none
    shows: str = "V"  # third panel: V, labels (how many are positive) or eta (flow loss by η)
    run: dict = field(default_factory=dict)  # settings that it takes; ppo=True: that baseline, too


BUGS = {
    1: Bug(
        "the nearest bin by signed distance", "value",
        [(
            "    return ((returns + 1) * (n_bins - 1)).round().long().clamp(0, n_bins - 1)",
            "    return (returns[..., None] - support(n_bins).to(returns)).argmin(-1)",
        )],
        "The distance return - bin is smallest, not nearest to zero, at the largest bin: argmin "
        "always gives bin 200, V = 0.  The loss falls to zero, faster than it should.  Labels "
        "still look like labels: with a constant V just the last N steps of successful episodes "
        "are positive.",
    ),
    2: Bug(
        "targets on B + 1 edges, expectation on B values", "value",
        [(
            "    return ((returns + 1) * (n_bins - 1)).round().long().clamp(0, n_bins - 1)",
            "    return ((returns + 1) * n_bins).floor().long().clamp(0, n_bins - 1)",
        )],
        "Bins [b/B, (b+1)/B) and the values b/(B-1) are two grids.  V is off by up to half a bin, "
        "0.0025 here, too low near -1 and too high near 0; one step of the fold task is worth "
        "0.0033, so the sign of a small advantage is often the sign of the bias.",
    ),
    3: Bug(
        "returns outside the support go into the last bins", "value",
        [(
            "    outside = ~((returns >= -1 - 1e-6) & (returns <= 1e-6))  # NaN lands here, too\n"
            "    # To look would make a GPU wait at every step.\n"
            '    if returns.device.type == "cpu" and outside.any():\n'
            '        raise ValueError(f"returns: {returns[outside][0].item()}, '
            'expected values in [-1, 0]")\n',
            "",
        )],
        "The clamp makes an index of anything, NaN too.  A return that was normalised by the wrong "
        "limit, or not at all, becomes -1 or 0, and V learns it as if it were true; nothing is "
        "wrong as long as the returns are right.",
        since="",
    ),
    4: Bug(
        "C_fail in time limits where steps are meant", "labels",
        [(
            "        returns(len(e), e.success, e.max_length, s.c_fail * e.max_length, "
            "s.clip_returns)",
            "        returns(len(e), e.success, e.max_length, s.c_fail, s.clip_returns)",
        )],
        "C_fail = 1.0 step: failing costs as much as one more step.  Returns are in [-1, 0] and V "
        "fits them better than before, for they are little but a clock.  An early failure now "
        "outranks a slow success: the policy is paid to give up.",
    ),
    5: Bug(
        "a missing label counts as a success", "labels",
        [(
            "    if success is None:\n"
            '        raise ValueError("success: None, expected True or False '
            '(label the episode first)")\n',
            "",
        ), (
            "    r[-1] = 0.0 if success else -float(c_fail)",
            "    r[-1] = -float(c_fail) if success == False else 0.0",
        )],
        "An episode that was interrupted or never labelled gets the returns of a success that "
        "ended there.  In simulation every episode has its label, so nothing changes; on a robot "
        "the aborted, often the worst, episodes become the best.",
        since="",
    ),
    6: Bug(
        "one normaliser for all tasks", "labels",
        [(
            "    return [\n"
            "        returns(len(e), e.success, e.max_length, s.c_fail * e.max_length, "
            "s.clip_returns)\n",
            "    limit = max(e.max_length for e in episodes)\n"
            "    return [\n"
            "        returns(len(e), e.success, limit, s.c_fail * limit, s.clip_returns)\n",
        )],
        "Returns stay in [-1, 0] and no failure outranks a success.  But tasks with short limits "
        "use only a part of each half of the range: V_pre sees fold_collar on the scale of box, "
        "whose limit is far longer, V_1 on its own, so fine-tuning starts from a V that is wrong "
        "by a factor, and advantages of short tasks are small beside their noise.",
        since="D_demo", run=dict(pretraining_tasks="fold_shirt"),
    ),
    7: Bug(
        "past the end, V of the last step is the bootstrap", "labels",
        [(
            "        A[:-n] += values[n:] - returns[n:]",
            "        last = np.minimum(np.arange(len(A)) + n, len(A) - 1)\n"
            "        A += values[last] - returns[last]",
        )],
        "Padding with the last value is harmless where V is right at the end.  In a failure V of "
        "the last step has often not yet noticed: A = R_t - V(o_t) would be very negative, and "
        "V_T-1 - R_T-1 gives most of it back.  The N steps before a failure, just those that "
        "caused it, get inflated advantages.",
        since="pi_1", shows="labels",
    ),
    8: Bug(
        "the quantile from the wrong side", "labels",
        [(
            "    n_positive = round(positive_fraction * len(A))",
            "    n_positive = round((1 - positive_fraction) * len(A))",
        )],
        "quantile(A, 0.3) where 30 % *positive* is meant: 70 % are.  RECAP still improves, for a "
        "mild filter is a filter; what is lost is the difference between good and average.  Seen "
        "at once in a count of the labels.",
        since="pi_pre",
    ),
    9: Bug(
        "one threshold over all tasks", "labels",
        [(
            "        own = [(e, A) for e, A in zip(episodes, step_advantages) if e.task == task]",
            "        own = list(zip(episodes, step_advantages))",
        )],
        "The fraction over everything is right.  A task that V underestimates has nearly all steps "
        "positive, another next to none: the indicator tells tasks apart, not good from bad.  A "
        "run with one task in fine-tuning shows it in pre-training only.",
        since="D_demo", run=dict(pretraining_tasks="fold_shirt"),
    ),
    10: Bug(
        "ε_ℓ over steps that are forced True anyway", "labels",
        [(
            'if e.source == "autonomous" and e.iteration == newest]',
            'if e.source != "demonstration" and e.iteration == newest]',
        )],
        "Corrected episodes have other advantages than rollouts, and there are fewer or more of "
        "them in every iteration.  ε_ℓ moves with them, and of the rollouts not the 40 % that were "
        "asked for come out positive: it looks like noise between runs.",
        since="pi_1", shows="labels",
    ),
    11: Bug(
        "ties at the threshold are positive", "labels",
        [(
            "    positive = advantages > epsilon",
            "    positive = advantages >= epsilon",
        )],
        "With continuous advantages one step more is positive.  Where many are equal (a policy "
        "that stands still, a V that has collapsed, clipped returns) all of them are: up to 100 % "
        "where 40 % were asked for.",
        since="pi_pre", shows="labels",
    ),
    12: Bug(
        "corrections keep the sign of their advantage", "labels",
        [(
            "    return positive if correction is None else positive | "
            "np.asarray(correction, bool)",
            "    return positive",
        )],
        "The argument is accepted and not used.  A rescue takes time, and over half of all steps "
        "lie below ε_ℓ anyway: the best actions in the data are mostly taught as bad ones.  "
        "Nothing that is measured of V changes.",
        since="pi_1",
    ),
    13: Bug(
        "the indicator is dropped on positives only", "recap",
        [(
            '        batch["omit"] = omit.to(s.device, non_blocking=True)',
            '        batch["omit"] = omit.to(s.device) & batch["positive"]',
        )],
        "The unconditional branch learns good actions only, so it is not π_ref: f_c - f_u is next "
        "to nothing, and guidance does little for any β.  The loss and β = 1 are fine.",
        since="pi_pre", shows="eta",
    ),
    14: Bug(
        "the dropout that was asked for is not the one used", "recap",
        [(
            "    dropout = 1.0 if I is None else s.dropout",
            "    dropout = s.dropout",
        )],
        "Only the supervised baseline asks for another (no labels: never shown the indicator).  It "
        'now sees "positive" 70 % of the time and is evaluated without: a network that saw its '
        "evaluation input on 30 % of its steps.  The baseline is too weak, and RECAP looks the "
        "better for it.",
        since="", shows="eta", run=dict(supervised=True),
    ),
    15: Bug(
        "every iteration goes on from the last policy", "recap",
        [(
            '        start = pi_pre if s.restart == "pretrained" else pi',
            "        start = pi",
        )],
        "Algorithm 1 restarts from the pre-trained checkpoint.  One iteration from π⁰ can look as "
        "good; what drifts, drifts over many.  The setting --restart is still printed in "
        "metrics.json, and does nothing.",
        since="pi_1", shows="eta",
    ),
    16: Bug(
        "a lookahead that is declared and never read", "labels",
        [(
            "    n = None if iteration == 0 else s.lookahead",
            "    n = None if iteration == 0 else 10",
        )],
        "At the default all is well.  An ablation over N gives a flat line, and the paper says "
        'that "N matters little".',
        since="pi_1", shows="labels", run=dict(lookahead=30),
    ),
    17: Bug(
        "a default by truthiness", "labels",
        [(
            "    if c_fail is None:\n        c_fail = max_length",
            "    c_fail = c_fail or max_length",
        )],
        "C_fail = 0 (failures cost nothing beyond their time) silently becomes the default, "
        "C_fail = limit.  Only the end of an ablation is wrong, and it is wrong by looking too "
        "good.",
        run=dict(c_fail=0.0),
    ),
    18: Bug(
        "the indicator stands before the subtask", "policy",
        [(
            '        text = [prompt, torch.full_like(like, WORDS.index("subtask:")), subtask]\n'
            '        text += [torch.full_like(like, WORDS.index("Advantage:")), sign]\n',
            '        text = [prompt, torch.full_like(like, WORDS.index("Advantage:")), sign]\n'
            '        text += [torch.full_like(like, WORDS.index("subtask:")), subtask]\n',
        ), (
            "        self.at_subtask = n_prefix  #",
            "        self.at_subtask = n_prefix + 2  #",
        ), (
            "        self.at_indicator = self.at_subtask + 1 + interface.subtask_length  #",
            "        self.at_indicator = n_prefix  #",
        ), (
            "        self.at_action = self.at_indicator + 2  #",
            "        self.at_action = self.at_subtask + 1 + interface.subtask_length  #",
        ), (
            "        bias[..., self.at_indicator : self.at_action].masked_fill_(",
            "        bias[..., self.at_indicator : self.at_indicator + 2].masked_fill_(",
        )],
        "The subtask is a training target, and the indicator is made from the future: it leaks.  "
        "The subtask loss can only fall by it; at inference ℓ̂ is predicted without it, a context "
        "that 30 % of the training showed.",
        since="pi_pre", shows="eta",
    ),
    19: Bug(
        "guidance of finished chunks", "policy",
        [(
            "            a = torch.cat([noised(begin, omega[:, :known], eta), a[:, known:]], "
            "dim=1)\n"
            "        many_a = a[:, None].expand(-1, n, -1, -1)  # (B, n, H, action_dim)\n"
            "        fields = policy.field(context, many_a, eta[:, None].expand(-1, n))\n"
            "        if n == 1:\n"
            "            return fields[:, 0]\n"
            "        # Eq. 13, on velocities and in every step: finished chunks are something "
            "else.\n"
            "        return guided(fields[:, 0], fields[:, 1], beta)\n",
            "            noise = omega[:, :known].repeat_interleave(n, 0)\n"
            "            first = noised(begin.repeat_interleave(n, 0), noise, eta)\n"
            "            a = torch.cat([first, a[:, known:]], dim=1)  # (B*n, H, action_dim)\n"
            "        fields = policy.field(context, a.unflatten(0, (B, n)), eta.view(B, n))\n"
            "        return fields.flatten(0, 1)  # (B*n, H, action_dim)\n",
        ), (
            '    chunk = policy.denormalize(integrate(f, omega, steps), observation["state"])\n',
            "    chunk = integrate(f, omega.repeat_interleave(n, 0), steps)\n"
            "    chunk = chunk.unflatten(0, (B, n))  # (B, n, H, action_dim)\n"
            "    chunk = guided(chunk[:, 0], chunk[:, -1], beta if n == 2 else 1.0)\n"
            '    chunk = policy.denormalize(chunk, observation["state"])\n',
        )],
        "Two chunks are sampled and extrapolated.  Where there is one way to act it is nearly the "
        "same; where there are two, the branches may sample different ones, and the extrapolation "
        "lies on neither: an arm that reaches past everything.",
        since="", shows="eta",
    ),
    20: Bug(
        "β is 1 + w", "policy",
        [(
            "    return f_unconditional + beta * (f_conditional - f_unconditional)",
            "    return f_conditional + beta * (f_conditional - f_unconditional)",
        )],
        "Other papers write guidance as f_c + w (f_c - f_u).  Here β = 1.5 becomes 2.5: actions "
        "faster and more extreme than asked, a peak of success at a smaller β than the paper's.  "
        "β = 1 does not pass through this line.",
        since="", shows="eta",
    ),
    21: Bug(
        "the sampler asks for f half a step too late", "policy",
        [(
            "        eta = torch.full((len(a),), i / steps, dtype=a.dtype, device=a.device)",
            "        eta = torch.full((len(a),), (i + 0.5) / steps, dtype=a.dtype, "
            "device=a.device)",
        )],
        "The midpoint looks more accurate, but a is not at the midpoint.  With "
        "f = (a - â) / (1 - η) a step then takes off too much noise, the last one twice of what is "
        "left: after 5 steps 11 % of ω are in the chunk, with the other sign.  Training does not "
        "pass through here, so every loss is right.",
        since="D_1", shows="eta",
    ),
    22: Bug(
        "η drawn near the data", "policy",
        [(
            "    return omega, ETA_MAX * (1 - u ** (1 / 1.5))",
            "    return omega, ETA_MAX * u ** (1 / 1.5)",
        )],
        "π₀'s law is noise-heavy, for there the network must decide.  Near the data it copies: the "
        "loss is much lower, and the first, deciding Euler steps are the least trained.",
        since="pi_pre", shows="eta",
    ),
    23: Bug(
        "knowledge insulation computes and throws away", "policy",
        [(
            "            seen = [h.detach() for h in seen]",
            "            [h.detach() for h in seen]",
        )],
        "The gradient of the flow loss goes into the backbone.  Losses fall as before, even a "
        "little faster here, where no pre-trained backbone is there to be spoilt.  The setting "
        "`insulation` does nothing.",
        since="pi_pre", shows="eta",
    ),
    24: Bug(
        "the ratio of PPO upside down", "baselines",
        [(
            "    log_ratio = (log_p - log_p_ref).clamp(max=20)",
            "    log_ratio = (log_p_ref - log_p).clamp(max=20)",
        ), (
            "    log_ratio = (flow - flow_ref).clamp(max=20)",
            "    log_ratio = (flow_ref - flow).clamp(max=20)",
        )],
        "exp(loss_new - loss_old) with losses in mind, where bounds on log π need new minus old.  "
        "At the first step the ratio is 1 either way; then good actions become less likely.  The "
        'loss looks the same, and PPO "does not work on this task".',
        since="", shows="eta", run=dict(ppo=True),
    ),
    25: Bug(
        "the penalty of SPO without its square", "baselines",
        [(
            "    penalty = advantages.abs() / (2 * epsilon) * (ratio - 1) ** 2",
            "    penalty = advantages.abs() / (2 * epsilon) * (ratio - 1)",
        )],
        "As the paper's Eq. (11) prints it.  Unsquared it is linear in r: with ε < 1/2 the penalty "
        "outweighs every advantage, and all actions, good ones too, become less likely, down to 0. "
        " The loss falls nicely.",
        since="", shows="eta", run=dict(ppo=True),
    ),
    26: Bug(
        "a chunk reads on into the next episode", "data",
        [(
            "    chunks = []\n",
            "    chunks = []\n"
            "    everything = np.concatenate([e.actions for e in episodes])\n"
            "    begin = 0\n",
        ), (
            "            window = np.arange(T)[:, None] + np.arange(horizon)  # (T, H)\n"
            "            chunks.append(e.actions[np.minimum(window, T - 1)])"
            "  # (T, H, action_dim)\n",
            "            window = begin + np.arange(T)[:, None] + np.arange(horizon)  # (T, H)\n"
            "            chunks.append(everything[np.minimum(window, len(everything) - 1)])\n"
            "            begin += T\n",
        )],
        "The last H - 1 steps of an episode are given the first actions of another: the way back "
        "to the start.  About one chunk in ten, where the task is nearly done: the arms are taught "
        "to leave early, just before the end.",
        since="pi_pre", shows="eta",
    ),
    27: Bug(
        "episodes of equal length", "control",
        [(
            "        return [{name: x[i, :T] for name, x in whole.items()} "
            "for i, T in enumerate(self.lengths)]",
            "        return [{name: x[i] for name, x in whole.items()} "
            "for i, T in enumerate(self.lengths)]",
        )],
        "Side by side, the copies that are over wait for the slowest.  Their episodes get its "
        "length: steps in which nothing happens, with the outcome of before.  Successes look "
        "slower, throughput is lower, and whatever was sent to an arm at rest is learned.",
        since="D_demo",
    ),
    28: Bug(
        "the action as asked is recorded, not the one sent", "control",
        [(
            '            log.add(live, step | {"actions": sent, "intervention": taken})',
            '            asked = actions.astype(np.float32)\n'
            '            log.add(live, step | {"actions": asked, "intervention": taken})',
        )],
        "The safety layer clips and eases in; the log says what the policy wanted.  In simulation "
        "nothing is clipped and the two are equal.  On a robot the data claim motions that never "
        "happened.",
        since="", shows="eta",
    ),
    29: Bug(
        "NaN passes the clamp", "hardware",
        [(
            "            if not np.isfinite(values).all():",
            "            if np.isinf(values).any():",
        )],
        "Every comparison with NaN is False, np.minimum and np.maximum hand it on.  No policy of "
        "ours puts out NaN; the first one that does sends it to the motors, past all limits, and "
        "is noticed one line too late.",
        since="", shows="eta",
    ),
    30: Bug(
        "the pace starts anew after every sleep", "control",
        [(
            "        self.clock.sleep_until(self.start + self.k * self.period)",
            "        self.clock.sleep_until(self.clock.now() + self.period)",
        )],
        "A period of sleep after each tick's work: at 50 Hz and 5 ms of work the loop runs at "
        "40 Hz.  Rollouts look right and slow; `missed` counts ticks, which reads as if the policy "
        "were too slow.",
        since="",
    ),
}  # fmt: skip
