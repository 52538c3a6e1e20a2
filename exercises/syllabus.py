"""The exercises: which functions are blanked, where the paper has them, what their tests are worth.

The one list behind every script here.  make_student_tree.py reads the functions and grade.py the
points; tests/test_exercises.py checks that functions and tests exist under these names.  The parts
of an exercise are numbered in the order of the list: 2.1, 2.2, ...
"""
import sys
from dataclasses import dataclass

@dataclass(frozen=True)
class Part:
    function: str  # module.function or module.Class.method: a body to write
    paper: str  # where the paper has it; the NotImplementedError says so
    points: dict  # test -> points.  All its parameters must pass; it calls this function first


EXERCISES = {
    1: ("Bins and the loss of the value function", [
        Part("value.support", "Sec. IV-A", {"test_bins_run_evenly_from_minus_one_to_zero": 2}),
        Part("value.discretize", "Sec. IV-A", {
            "test_a_return_goes_into_the_nearest_bin": 3,
            "test_returns_outside_the_support_are_refused": 2,
        }),
        Part("value.value_loss", "Eq. (1)", {
            "test_value_loss_is_the_cross_entropy": 2,
            "test_value_loss_is_smallest_at_the_distribution_of_returns": 2,
        }),
        Part("value.expected_value", "Sec. IV-A", {
            "test_expected_value_is_the_mean_over_bins": 2,
            "test_bins_and_expectation_share_one_grid": 1,
        }),
    ]),
    2: ("Rewards, returns, n-step advantages", [
        Part("labels.rewards", "Eq. (5)", {
            "test_rewards_count_steps_and_punish_failure": 2,
            "test_rewards_want_a_label": 1,
        }),
        Part("labels.returns", "Sec. V-C", {
            "test_returns_are_the_normalised_sums": 3,
            "test_no_failure_outranks_a_success": 1,
            "test_clipped_returns": 1,
            "test_returns_refuse_too_long_an_episode": 1,
        }),
        Part("labels.advantages", "App. F", {
            "test_advantages_are_the_n_step_sums": 3,
            "test_past_the_end_there_is_nothing_to_bootstrap_from": 2,
            "test_advantages_leave_their_arguments_alone": 1,
        }),
    ]),
    3: ("Thresholds, indicators, labels", [
        Part("labels.threshold", "App. F", {
            "test_the_positive_fraction_is_the_one_asked_for": 3,
            "test_thresholds_need_advantages": 1,
        }),
        Part("labels.indicators", "Eq. (3)", {
            "test_positive_is_strictly_above": 1,
            "test_corrections_are_positive": 2,
            "test_no_indicator_for_nan": 1,
        }),
        Part("labels.thresholds", "App. F", {
            "test_thresholds_come_from_the_newest_autonomous_steps": 3,
            "test_every_task_has_its_own_threshold": 2,
        }),
        Part("labels.label", "App. F", {
            "test_pretraining_looks_to_the_end_and_fine_tuning_n_steps_ahead": 2,
            "test_labels_force_corrections": 1,
        }),
    ]),
    4: ("Flow matching: the loss and the sampler", [
        Part("policy.noised", "Eq. (4)", {"test_eta_0_is_noise_and_eta_1_is_data": 3}),
        Part("policy.flow_matching_loss", "Eq. (4)", {
            "test_flow_loss_by_hand": 2,
            "test_flow_loss_vanishes_at_noise_minus_data_only": 1,
            "test_flow_loss_is_the_error_of_the_clean_chunk": 1,
        }),
        Part("policy.VLA.field", "Eq. (4)", {
            "test_the_field_points_from_the_clean_chunk_to_the_noise": 2,
        }),
        Part("policy.integrate", "App. C", {
            "test_an_oracle_is_integrated_to_the_data": 3,
            "test_eta_goes_from_0_upwards": 2,
            "test_euler_steps_in_closed_form": 1,
        }),
    ]),
    5: ("Guidance", [
        Part("policy.guided", "Eq. (13)", {"test_guidance_in_closed_form": 3}),
        Part("policy.sample_actions", "Eqs. (2), (13)", {
            "test_beta_1_samples_the_branch_that_was_asked_for": 3,
            "test_beta_0_samples_the_unconditional_branch": 1,
            "test_guidance_moves_velocities": 4,
            "test_guidance_needs_an_indicator_and_a_number": 1,
        }),
    ]),
    6: ("The baselines: AWR and PPO in its SPO variant", [
        Part("baselines.awr_weights", "Sec. VI-B", {
            "test_awr_weights_by_hand": 2,
            "test_awr_wants_a_temperature": 1,
        }),
        Part("baselines.spo_loss", "Eq. (11)", {
            "test_spo_by_hand": 2,
            "test_spo_begins_as_the_policy_gradient": 1,
            "test_spo_is_smallest_at_the_edge_of_the_trust_region": 2,
        }),
        Part("baselines.ppo_loss", "Eq. (11)", {
            "test_ppo_compares_new_with_old": 2,
            "test_ppo_compares_on_the_same_draws": 1,
        }),
    ]),
    7: ("Algorithm 1", [
        Part("recap.eq3_loss", "Eq. (3)", {"test_eq3_sums_the_terms_of_the_bound": 2}),
        Part("collection.collect_iteration", "Alg. 1, line 7", {
            "test_autonomous_and_corrected_episodes_are_collected": 2,
            "test_no_seed_is_used_twice": 1,
        }),
        Part("recap.recap", "Alg. 1", {
            "test_pretraining_and_sft": 3,
            "test_every_iteration_starts_from_the_pretrained_networks": 3,
            "test_data_only_grow": 2,
            "test_every_iteration_is_labelled_by_its_own_value_function": 2,
            "test_the_other_restart": 1,
            "test_every_product_is_kept_under_its_name": 1,
        }),
    ]),
}  # fmt: skip

def on_any_terminal():
    """For the scripts here: a letter that a terminal cannot show is a "?" there."""
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="replace")

def numbered():
    """{"2.1": Part, ...} of all exercises."""
    parts = {}
    for exercise, (_, listed) in EXERCISES.items():
        for i, part in enumerate(listed, 1):
            parts[f"{exercise}.{i}"] = part
    return parts
