"""backbone.py: words, observation tokens, the prefix-LM transformer.

Against PyTorch's own and brute force.
"""
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

import sim_tasks
from backbone import NEAR, Backbone, Block, attend, prefix_lm_bias
from data import WORDS
from helpers import (
    PROMPT_LENGTH,
    STATE_DIM,
    SUBTASK_LENGTH,
    TOYS,
    VOCABULARY,
    encode,
    seen_by,
)
from policy import PolicyConfig
from sim_tasks import questions
from sim_tasks.arms import KEYPOINT_DIM, N_KEYPOINTS
from sim_tasks.cameras import SIZE

IMAGE = TOYS.image
PATCH = TOYS.patch
PATCHES = 9  # of an image

def make_backbone(layers=2, heads=2, width=12, n_tokens=30, n_text=15, cameras=(), **more):
    """In double precision, but with cameras: images become float32."""
    torch.manual_seed(0)
    interface = replace(seen_by(*cameras), **more)
    config = PolicyConfig(interface, width=width, layers=layers, heads=heads)
    backbone = Backbone(config, n_tokens, n_text)
    return backbone if cameras else backbone.double()

def make_observation(B=3, seed=0):
    g = torch.Generator().manual_seed(seed)
    return {
        "state": torch.randn(B, STATE_DIM, generator=g).double(),
        "keypoints": torch.randn(B, N_KEYPOINTS, KEYPOINT_DIM, generator=g).double(),
    }

# ---------------------------------------------------------------- words

def test_encode_round_trips_every_word_and_pads_with_the_empty_one():
    for word in VOCABULARY[1:]:
        # two equal words would break this
        assert VOCABULARY[encode(word, 1)[0]] == word
    ids = encode("build box", 4)
    assert [VOCABULARY[i] for i in ids] == ["build", "box", "", ""]
    assert encode("box build", 2) == encode("build box", 2)[::-1]
    assert encode("", 2) == [0, 0]

def test_encode_names_unknown_words():
    with pytest.raises(ValueError, match="juggle.*knives") as error:
        encode("fold juggle knives", 3)
    assert "['juggle', 'knives']" in str(error.value)  # only those
    with pytest.raises(ValueError, match=r"\['shrit', 'carefull'\].*\(nearest: shirt, careful\)"):
        encode("fold shrit carefull", 3)
    with pytest.raises(ValueError) as error:
        encode("fold xyzzy", 3)
    # no advice is better than a bad one
    assert "nearest" not in str(error.value)

def test_encode_refuses_a_text_that_is_too_long():
    assert len(encode("fold shirt collar", 3)) == 3
    with pytest.raises(ValueError, match="3 words.*at most 2"):
        encode("fold shirt collar", 2)

def test_the_tasks_speak_the_vocabulary():
    """Prompts and subtasks of different meaning have different ids, so the network can tell them
    apart.
    """
    prompts = {task.prompt for task in sim_tasks.TASKS.values()}
    subtasks = {stage.subtask for task in sim_tasks.TASKS.values() for stage in task.stages}
    assert len({tuple(encode(text, PROMPT_LENGTH)) for text in prompts}) == len(prompts)
    assert len({tuple(encode(text, SUBTASK_LENGTH)) for text in subtasks}) == len(subtasks)
    assert len(prompts) == len(sim_tasks.TASKS)

def test_every_prompt_fits_with_its_item_and_metadata_and_every_question_with_its_answer():
    for task in sim_tasks.TASKS.values():
        for prompt in [f"{task.prompt} {item.name}" for item in task.items] or [task.prompt]:
            for pace in ("fast", "slow"):
                for quality in ("careful", "careless"):
                    encode(f"{prompt} {pace} {quality}", PROMPT_LENGTH)
    pairs = questions.questions(2000, 0)
    asked = np.unique(pairs["question"]).tolist()
    answered = np.unique(pairs["answer"]).tolist()
    assert len({tuple(encode(x, PROMPT_LENGTH)) for x in asked}) == len(asked) == 12
    assert len({tuple(encode(x, SUBTASK_LENGTH)) for x in answered}) == len(answered)
    assert set(questions.WEB_WORDS) <= set(VOCABULARY)

def test_words_of_a_task_stand_behind_those_that_all_share_and_the_first_one_pads():
    assert VOCABULARY[: len(WORDS)] == WORDS and VOCABULARY[len(WORDS) :] == TOYS.words
    assert WORDS[0] == "" and not set(WORDS) & set(TOYS.words)
    cups = replace(TOYS, words=("cup", "saucer"))
    assert cups.encode("saucer fast", 3) == [len(WORDS) + 1, WORDS.index("fast"), 0]
    with pytest.raises(ValueError, match=r"\['shirt', 'socer'\].*\(nearest: saucer\)"):
        cups.encode("shirt socer", 3)

# ---------------------------------------------------------------- observation tokens

def test_observation_tokens_are_keypoints_then_state():
    """Token i depends on keypoint i alone, the last one on the state alone."""
    backbone, observation = make_backbone(), make_observation()
    tokens = backbone.embed_observation(observation)
    for i in range(N_KEYPOINTS):
        other = {key: x.clone() for key, x in observation.items()}
        other["keypoints"][:, i] += 0.3
        changed = (backbone.embed_observation(other) != tokens).any(-1).any(0)  # (5,)
        assert changed.tolist() == [j == i for j in range(N_KEYPOINTS + 1)]
    other = observation | {"state": observation["state"] + 0.3}
    assert (backbone.embed_observation(other) != tokens).any(-1).any(0).tolist() == [
        False
    ] * N_KEYPOINTS + [True]

def test_permuting_keypoints_permutes_tokens():
    backbone, observation, order = make_backbone(), make_observation(), [2, 0, 3, 1]
    tokens = backbone.embed_observation(observation)
    permuted = backbone.embed_observation(
        observation | {"keypoints": observation["keypoints"][:, order]}
    )
    torch.testing.assert_close(permuted, tokens[:, order + [N_KEYPOINTS]])
    assert (tokens[:, 0] - tokens[:, 1]).abs().max() > 1e-3

def test_near_features_are_the_tanh_of_the_arms_offsets():
    backbone, observation = make_backbone(), make_observation()
    # show what goes in
    backbone.keypoint = nn.Identity()
    backbone.state = nn.Linear(STATE_DIM, KEYPOINT_DIM + 4).double()
    seen = backbone.embed_observation(observation)[:, :N_KEYPOINTS].numpy(force=True)
    k = observation["keypoints"].numpy()
    # see World.observe
    for arm, columns in enumerate((slice(2, 4), slice(4, 6))):
        near = seen[..., KEYPOINT_DIM + 2 * arm : KEYPOINT_DIM + 2 * arm + 2]
        np.testing.assert_allclose(near, np.tanh(k[..., columns] / NEAR), rtol=1e-12)
    np.testing.assert_array_equal(seen[..., :KEYPOINT_DIM], k)

# ---------------------------------------------------------------- images as patches

def make_images(cameras, B=3, seed=0):
    rng = np.random.default_rng(seed)
    images = {
        name: torch.tensor(rng.integers(0, 256, (B, IMAGE, IMAGE, 3)).astype(np.uint8))
        for name in cameras
    }
    return images | {
        "state": torch.randn(B, STATE_DIM, generator=torch.Generator().manual_seed(seed))
    }

@pytest.mark.parametrize(
    "cameras", [("base",), ("base", "left_wrist", "right_wrist"), ("right_wrist", "base")]
)
def test_every_pixel_reaches_the_token_of_its_patch(cameras):
    """By loops over cameras, rows and columns of patches, and pixels in them.

    Cameras in the order asked for.
    """
    backbone = make_backbone(cameras=cameras)
    observation, one_patch = make_images(cameras), PATCH * PATCH * 3
    # show what goes in
    backbone.patch, backbone.state = nn.Identity(), nn.Linear(STATE_DIM, one_patch)
    # (B, tokens, 192)
    seen = backbone.embed_observation(observation).numpy(force=True)
    assert seen.shape[1] == seen_by(*cameras).n_observation_tokens == 9 * len(cameras) + 1
    side = IMAGE // PATCH
    for c, name in enumerate(cameras):
        # (B, 24, 24, 3)
        picture = 2 - observation[name].numpy() / 127.5
        for row in range(IMAGE):
            for column in range(IMAGE):
                token = c * side * side + (row // PATCH) * side + column // PATCH
                place = 3 * ((row % PATCH) * PATCH + column % PATCH)
                np.testing.assert_allclose(
                    seen[:, token, place : place + 3], picture[:, row, column], atol=1e-6
                )
    # white and black
    assert seen[:, :-1].min() == 0 and seen[:, :-1].max() == 2
    # q_t comes last
    torch.testing.assert_close(torch.tensor(seen[:, -1]), backbone.state(observation["state"]))

def test_a_pixel_changes_one_token_and_no_other():
    cameras = ("base", "left_wrist")
    backbone, observation = make_backbone(cameras=cameras), make_images(cameras)
    tokens = backbone.embed_observation(observation)
    for name, row, column, token in (
        ("base", 0, 0, 0),
        ("base", 7, 8, 1),
        ("base", 8, 7, 3),
        ("base", 23, 23, 8),
        ("left_wrist", 0, 23, 9 + 2),
        ("left_wrist", 23, 0, 9 + 6),
    ):
        other = observation | {name: observation[name].clone()}
        other[name][:, row, column] = 255 - other[name][:, row, column]
        # (B, tokens)
        changed = (backbone.embed_observation(other) != tokens).any(-1)
        assert changed.tolist() == [[i == token for i in range(19)]] * 3

def test_with_cameras_keypoints_are_not_read_and_cameras_not_asked_for_neither():
    backbone, observation = make_backbone(cameras=("base",)), make_images(("base", "left_wrist"))
    tokens = backbone.embed_observation(
        {"base": observation["base"], "state": observation["state"]}
    )
    keypoints = torch.full((3, N_KEYPOINTS, KEYPOINT_DIM), float("nan"))
    assert torch.equal(backbone.embed_observation(observation | {"keypoints": keypoints}), tokens)
    # no idle weights
    assert not hasattr(backbone, "keypoint") and not hasattr(make_backbone(), "patch")
    # and the other way round
    with_keypoints = make_observation()
    assert torch.equal(
        make_backbone().embed_observation(observation | with_keypoints),
        make_backbone().embed_observation(with_keypoints),
    )

def test_a_camera_of_which_nothing_came_is_named():
    with pytest.raises(KeyError, match="left_wrist"):
        make_backbone(cameras=("base", "left_wrist")).embed_observation(make_images(("base",)))
    # those that are drawn
    assert IMAGE == SIZE and seen_by("base").n_observation_tokens == PATCHES + 1 == 10
    with pytest.raises(ValueError, match="image: side 25, expected a multiple of 8"):
        replace(seen_by("base"), image=25)

def test_images_of_another_size_have_tokens_of_their_own_number():
    interface = replace(TOYS, cameras=("top",), image=30, patch=10)
    torch.manual_seed(0)
    backbone = Backbone(PolicyConfig(interface, width=12), 30, 15)
    backbone.patch = nn.Identity()
    backbone.state = nn.Linear(STATE_DIM, 300)
    images = torch.arange(2 * 30 * 30 * 3).view(2, 30, 30, 3) % 256
    observation = {"top": images.to(torch.uint8), "state": torch.zeros(2, STATE_DIM)}
    tokens = backbone.embed_observation(observation)
    assert tokens.shape == (2, 9 + 1, 300) and interface.n_observation_tokens == 10
    corner = 2 - images[:, 20:, 10:20].float() / 127.5  # row 2, column 1
    torch.testing.assert_close(tokens[:, 7], corner.reshape(2, 300))

# ---------------------------------------------------------------- other sizes than the toys'

def test_without_keypoints_there_is_the_state_alone():
    interface = replace(TOYS, state_dim=14, action_dim=4, keypoints=(), near=(), absolute=())
    torch.manual_seed(0)
    backbone = Backbone(PolicyConfig(interface, width=12), 30, 15)
    assert not hasattr(backbone, "keypoint") and interface.n_observation_tokens == 1
    state = torch.randn(3, 14)
    tokens = backbone.embed_observation({"state": state})
    torch.testing.assert_close(tokens, backbone.state(state)[:, None])

def test_the_state_is_read_in_standard_deviations_from_its_mean():
    plain = make_backbone()
    observation = make_observation()
    mean = torch.arange(6).double()
    std = torch.tensor([0.5, 2.0, 1.0, 3.0, 0.1, 10.0]).double()
    scaled = make_backbone(state_mean=tuple(mean.tolist()), state_std=tuple(std.tolist()))
    far = observation | {"state": observation["state"] * std + mean}
    torch.testing.assert_close(scaled.embed_observation(far), plain.embed_observation(observation))
    near = scaled.embed_observation(observation) - plain.embed_observation(observation)
    assert near[:, -1].abs().min() > 0 and near[:, :-1].abs().max() == 0

def test_what_is_near_comes_from_the_columns_that_the_task_names():
    interface = replace(TOYS, keypoints=(2, 5), near=(3, 5))
    torch.manual_seed(0)
    backbone = Backbone(PolicyConfig(interface, width=12), 30, 15)
    backbone.keypoint = nn.Identity()
    backbone.state = nn.Linear(STATE_DIM, 7)
    keypoints = torch.randn(4, 2, 5)
    seen = backbone.embed_observation({"state": torch.zeros(4, 6), "keypoints": keypoints})
    torch.testing.assert_close(seen[:, :2, :5], keypoints)
    torch.testing.assert_close(seen[:, :2, 5:], torch.tanh(keypoints[..., 3:5] / NEAR))
    # Without columns, nothing is added.
    none = Backbone(PolicyConfig(replace(interface, near=()), width=12), 30, 15)
    assert none.keypoint[0].in_features == 5

# ---------------------------------------------------------------- attention and masks

@pytest.mark.parametrize(
    "heads, S, T, masked", [(1, 5, 5, False), (2, 5, 5, True), (4, 3, 7, True), (3, 4, 6, False)]
)
@pytest.mark.parametrize("precise_bias", [True, False])
def test_attend_equals_its_formula(heads, S, T, masked, precise_bias):
    """softmax(q kᵀ / √d + bias) v, written out head by head."""
    g = torch.Generator().manual_seed(S + T)
    B, D = 2, 12
    q, k, v = (torch.randn(B, n, D, generator=g).double() for n in (S, T, T))
    bias = None
    if masked:
        hidden = torch.rand(B, 1, S, T, generator=g) < 0.4
        # a row sees something
        hidden[..., 0] = False
        bias = torch.zeros(B, 1, S, T).masked_fill(hidden, float("-inf"))
        if precise_bias:
            bias = bias.double()
    mixed = []
    d = D // heads
    for head in range(heads):
        own = slice(head * d, (head + 1) * d)
        scores = torch.einsum("bsd,btd->bst", q[..., own], k[..., own]) / math.sqrt(d)
        if masked:
            scores = scores + bias[:, 0]
        weights = scores.exp() / scores.exp().sum(-1, keepdim=True)  # (B, S, T)
        mixed.append(torch.einsum("bst,btd->bsd", weights, v[..., own]))
    torch.testing.assert_close(attend(q, k, v, heads, bias), torch.cat(mixed, -1))

def test_attend_refuses_a_width_that_heads_do_not_divide():
    # 9·10 numbers also fit into 10 steps of 3 heads of 3
    x = torch.randn(2, 9, 10)
    with pytest.raises(RuntimeError):
        attend(x, x, x, 3)

def test_a_layer_from_some_token_on_is_the_end_of_the_whole_layer():
    torch.manual_seed(0)
    backbone = make_backbone()
    tokens = torch.randn(3, 7, 12).double()
    bias = prefix_lm_bias(3, 4).double()
    for mask in (bias, None):
        whole = backbone(tokens, mask)
        for first in (0, 2, 6):
            part = backbone(tokens, mask, first)
            torch.testing.assert_close(part.output, whole.output[:, first:])
        none = backbone(tokens, mask, None)
        assert none.output is None
        for x, y in zip(none.inputs, whole.inputs, strict=True):
            torch.testing.assert_close(x, y)

def test_block_equals_pytorch_encoder_layer():
    torch.manual_seed(0)
    width, heads = 12, 3
    block = Block(width, heads).double()
    reference = nn.TransformerEncoderLayer(
        width, heads, 2 * width, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
    ).double()
    with torch.no_grad():
        for p in block.norm1, block.norm2:
            p.weight.uniform_(0.5, 1.5)
        reference.self_attn.in_proj_weight.copy_(block.qkv.weight)
        reference.self_attn.in_proj_bias.copy_(block.qkv.bias)
    for theirs, ours in [
        (reference.self_attn.out_proj, block.out),
        (reference.linear1, block.mlp[0]),
        (reference.linear2, block.mlp[2]),
        (reference.norm1, block.norm1),
        (reference.norm2, block.norm2),
    ]:
        theirs.load_state_dict(ours.state_dict())
    x, bias = torch.randn(2, 7, width).double(), prefix_lm_bias(3, 4).double()
    torch.testing.assert_close(block(x, bias), reference(x, src_mask=bias))

@pytest.mark.parametrize("n_prefix, n_text", [(8, 17), (1, 3), (4, 0), (0, 4)])
def test_prefix_lm_bias_equals_its_definition(n_prefix, n_text):
    bias = prefix_lm_bias(n_prefix, n_text)
    for row in range(n_prefix + n_text):
        for column in range(n_prefix + n_text):
            if row < n_prefix:  # the prefix sees all of the prefix and no text
                sees = column < n_prefix
            # text sees the prefix, itself and what is before it
            else:
                sees = column <= row
            assert bias[row, column].item() == (0.0 if sees else -float("inf"))

def test_backbone_returns_the_inputs_of_every_layer_and_the_normalised_output():
    backbone = make_backbone(layers=3)
    with torch.no_grad():
        backbone.norm.weight.uniform_(0.5, 1.5)
    tokens, bias = torch.randn(2, 7, 12).double(), prefix_lm_bias(3, 4).double()
    inputs, output = backbone(tokens, bias)
    x = tokens + backbone.position[:7]
    assert len(inputs) == 3
    for given, block in zip(inputs, backbone.blocks):
        torch.testing.assert_close(given, x)
        x = block(x, bias)
    norm = (x - x.mean(-1, keepdim=True)) / torch.sqrt(
        x.var(-1, unbiased=False, keepdim=True) + 1e-5
    )
    torch.testing.assert_close(output, norm * backbone.norm.weight + backbone.norm.bias)

def test_positions_tell_equal_tokens_apart():
    """Without positions, rows of equal tokens that all see one another would come out equal."""
    backbone = make_backbone()
    output = backbone(torch.ones(1, 6, 12).double(), None)[1][0]
    assert torch.pdist(output).min() > 1e-3

def test_text_does_not_leak_into_the_prefix_nor_backwards():
    backbone, n_prefix, n_text = make_backbone(layers=3), 4, 5
    bias = prefix_lm_bias(n_prefix, n_text).double()
    tokens = torch.randn(1, n_prefix + n_text, 12).double()
    output = backbone(tokens, bias)[1]
    for i in range(n_prefix + n_text):
        other = tokens.clone()
        other[:, i] += 0.5 * torch.randn(12).double()
        changed = (backbone(other, bias)[1] != output).any(-1)[0].tolist()
        expected = (
            [True] * (n_prefix + n_text)
            if i < n_prefix
            else [j >= i for j in range(n_prefix + n_text)]
        )
        assert changed == expected

def test_batch_rows_are_independent():
    backbone, observation = make_backbone(), make_observation(4)
    output = backbone(backbone.embed_observation(observation), None)[1]
    for i in range(4):
        one = {key: x[i : i + 1] for key, x in observation.items()}
        torch.testing.assert_close(backbone(backbone.embed_observation(one), None)[1][0], output[i])
