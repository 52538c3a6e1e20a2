"""lab/files.py: what goes in comes out bit for bit, or nothing happens, or an error says what."""
import errno
import json
import os
import shutil
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch

from data import Interface, UserError
from helpers import PROMPT_LENGTH, TOYS, seen_by, wide_episode
from lab import files
from lab.files import BadFile, load, load_dataset, load_network, save, save_dataset, save_network
from lab.files import write_atomically
from policy import VLA, PolicyConfig
from sim_tasks.arms import KEYPOINT_DIM, N_KEYPOINTS
from value import ValueConfig, ValueFunction

def assert_same(one, other):
    """Bit for bit, types included; only the width of text may grow to that of the longest."""
    assert len(one) == len(other) and list(one.observations) == list(other.observations)
    arrays = [(one.observations[key], other.observations[key]) for key in one.observations]
    arrays += [
        (getattr(one, name), getattr(other, name)) for name in ("actions", "intervention", "stages")
    ]
    for a, b in arrays:
        assert a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
    assert one.subtask.tolist() == other.subtask.tolist()
    for name in ("success", *files.PER_EPISODE):
        a, b = getattr(one, name), getattr(other, name)
        assert a == b and type(a) is type(b), name

def mixture():
    return [
        wide_episode(T=7),
        wide_episode(
            T=1, seed=1, n_stages=1, task="fold_collar", prompt="fold collar up", max_length=55,
            success=False, subtask=np.array(["fold collar"]), source="demonstration", iteration=0,
            metadata="",
        ),
        wide_episode(
            T=30, seed=2, n_stages=4, task="box", max_length=225, success=None, source="corrected"
        ),
    ]  # fmt: skip

def test_content_is_on_the_disk_before_it_has_its_name(tmp_path, monkeypatch):
    """A power cut right after the rename must not leave a name without content."""
    done = []
    really_sync = os.fsync

    def synced(number):
        done.append(os.fstat(number).st_size)
        really_sync(number)

    def moved(source, target):
        done.append(os.path.basename(target))
        os.replace(source, target)

    monkeypatch.setattr(os, "fsync", synced)
    files.write_atomically(tmp_path / "x", write_five_bytes, move=moved)
    assert done == [5, "x"]
    done.clear()

    def folder(path):
        os.mkdir(path)
        write_five_bytes(os.path.join(path, "a"))

    files.write_atomically(tmp_path / "folder", folder, move=moved)
    assert done == [5, "folder"]

def write_five_bytes(path):
    with open(path, "wb") as file:
        file.write(b"12345")

def test_an_error_of_the_disk_names_the_file(tmp_path):
    def full(path):
        raise OSError(errno.ENOSPC, "No space left on device")  # write() does not say where

    with pytest.raises(OSError, match=r"No space left on device: '.*/D.npz'"):
        write_atomically(str(tmp_path / "D.npz"), full)

@pytest.mark.parametrize("read", [load, load_dataset, load_network, files.read_json])
def test_every_error_of_reading_names_the_file(tmp_path, read):
    path = str(tmp_path / "file")
    with pytest.raises(FileNotFoundError, match=path):
        read(path)
    for content in (b"", b"PK\x03\x04", b"{", b"\xff\xfe\x00"):
        with open(path, "wb") as file:
            file.write(content)
        with pytest.raises(BadFile, match=path):
            read(path)
    with pytest.raises(OSError, match=str(tmp_path)):
        read(str(tmp_path))

def test_a_number_in_a_name_is_short_and_no_other_number_has_it():
    numbers = (0, 1, 1.5, 2.0, 1e-5, 1.0000001, 1.00000012, 1 / 3)
    names = {x: files.shortest(x) for x in numbers}
    assert list(names.values())[:4] == ["0", "1", "1.5", "2"]  # as they always were
    assert len(set(names.values())) == len(names)
    assert all(float(text) == x for x, text in names.items())

def test_a_claim_holds_on_file_systems_without_links(tmp_path, monkeypatch):
    def no_links(source, target):
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", no_links)
    folder = str(tmp_path / "run")
    files.claim(folder, {"seed": 3})
    assert files.read_json(folder, "settings.json") == {"seed": 3}
    with pytest.raises(FileExistsError):
        files.write_text(os.path.join(folder, "settings.json"), "", move=files.move_if_new)
    with pytest.raises(UserError, match="not an empty folder"):
        files.claim(folder, {})

@pytest.fixture
def saved(tmp_path):
    path = str(tmp_path / "D.npz")
    save_dataset(mixture(), path)
    return path

def networks():
    """Small ones; no weight or buffer at the value that it is made with."""
    torch.manual_seed(0)
    yield VLA(PolicyConfig(TOYS, width=16, layers=1, expert_width=8, n_action_bins=5))
    yield ValueFunction(ValueConfig(TOYS, width=12, layers=1, n_bins=11))

def scrambled(network):
    for tensor in network.state_dict().values():
        if tensor.dtype == torch.bool:
            tensor.copy_(torch.rand(tensor.shape) < 0.5)
        else:
            tensor.copy_(torch.randn(tensor.shape))
    return network

both = pytest.mark.parametrize(
    "network", [scrambled(n) for n in networks()], ids=lambda n: type(n).__name__
)

# ---------------------------------------------------------------- datasets

def test_the_last_observation_is_kept_where_all_episodes_have_it(tmp_path):
    """And changes nothing else: a file without it is that of before, byte for byte."""
    plain = [wide_episode(T=5), wide_episode(T=7, seed=1)]
    ended = []
    for e, seed in zip(plain, (2, 3)):
        last = {name: x[0] for name, x in wide_episode(T=1, seed=seed).observations.items()}
        ended.append(replace(e, last=last))
    for D in (plain, [ended[0], plain[1]], ended):
        save_dataset(D, tmp_path / "D.npz")
        for e, back in zip(D, load_dataset(tmp_path / "D.npz")):
            assert_same(back, e)
            if D is not ended:
                assert back.last is None
                continue
            for name, x in e.last.items():
                assert back.last[name].dtype == x.dtype and np.array_equal(back.last[name], x)
    with np.load(tmp_path / "D.npz") as file:
        names = set(file.files)
    save_dataset(plain, tmp_path / "D.npz")
    with np.load(tmp_path / "D.npz") as file:
        assert names - set(file.files) == {f"last/{name}" for name in plain[0].observations}

def test_a_dataset_comes_back_bit_for_bit(tmp_path):
    path, episodes = tmp_path / "D.npz", mixture()
    save_dataset(episodes, path)
    loaded = load_dataset(path)
    assert len(loaded) == 3
    for one, other in zip(episodes, loaded):
        assert_same(one, other)
    assert [e.success for e in loaded] == [True, False, None]
    # and once more, in another order, over the old file
    save_dataset(loaded[::-1], path)
    for one, other in zip(episodes[::-1], load_dataset(path)):
        assert_same(one, other)

def test_numpy_bools_count_as_labels(tmp_path):
    path = tmp_path / "D.npz"
    save_dataset([wide_episode(success=np.bool_(x)) for x in (True, False)], path)
    assert [e.success for e in load_dataset(path)] == [True, False]

def test_no_pickle_is_written(saved):
    with np.load(saved, allow_pickle=False) as file:
        assert all(file[name].dtype != object for name in file.files)

@pytest.mark.parametrize("error", (OSError("disk full"), KeyboardInterrupt()))
def test_an_interrupted_save_leaves_the_old_file_whole_and_nothing_else(saved, monkeypatch, error):
    before = open(saved, "rb").read()

    def fail_midway(path, **arrays):
        with open(path, "wb") as file:
            file.write(before[:100])
        raise error

    monkeypatch.setattr(np, "savez_compressed", fail_midway)
    monkeypatch.setattr(np, "savez", fail_midway)
    with pytest.raises(type(error)):
        save_dataset([wide_episode()], saved)
    with pytest.raises(type(error)):
        save_network(next(networks()), saved)
    # nor does a first save leave half a file
    with pytest.raises(type(error)):
        save_dataset([wide_episode()], saved + "2.npz")
    assert open(saved, "rb").read() == before
    assert os.listdir(os.path.dirname(saved)) == ["D.npz"]

def test_the_old_file_is_there_until_the_new_one_is(saved):
    old = open(saved, "rb").read()

    def write(temporary):
        # one file system: the move is atomic
        assert os.path.abspath(temporary).startswith(os.path.dirname(saved))
        assert temporary.endswith(".npz")
        open(temporary, "wb").write(b"new")
        assert open(saved, "rb").read() == old

    # who has opened the old one reads it to its end
    with open(saved, "rb") as reader:
        write_atomically(saved, write, ".npz")
        assert reader.read() == old
    assert open(saved, "rb").read() == b"new" and os.listdir(os.path.dirname(saved)) == ["D.npz"]

def test_a_path_without_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save_dataset([wide_episode()], "D.npz")
    assert_same(load_dataset("D.npz")[0], wide_episode())

@pytest.mark.skipif(os.name == "nt", reason="no umask")
@pytest.mark.parametrize("umask, mode", ((0o022, 0o644), (0o002, 0o664), (0o077, 0o600)))
def test_files_follow_the_umask(tmp_path, umask, mode):
    old = os.umask(umask)
    try:
        save_dataset([wide_episode()], tmp_path / "D.npz")
        save_network(next(networks()), tmp_path / "V.npz")
    finally:
        os.umask(old)
    assert [os.stat(tmp_path / name).st_mode & 0o777 for name in ("D.npz", "V.npz")] == [mode, mode]

def test_an_empty_dataset_is_not_written(tmp_path):
    with pytest.raises(ValueError, match="episodes: an empty dataset"):
        save_dataset([], tmp_path / "D.npz")
    assert os.listdir(tmp_path) == []

@pytest.mark.parametrize(
    "change, named",
    [
        # one too few
        (lambda o: {k: x for k, x in o.items() if k != "force"}, "observations: .* in episode 1"),
        # one too many
        (lambda o: o | {"left_wrist": o["base"]}, "observations: .*left_wrist.* in episode 1"),
        # another size
        (lambda o: o | {"base": o["base"][:, :4]}, r"base: .*4, 4, 3"),
        # would be cast
        (lambda o: o | {"state": o["state"].astype(float)}, "state: .*float64"),
    ],
    ids=("one too few", "one too many", "another size", "another dtype"),
)
def test_episodes_that_see_different_things_do_not_go_into_one_file(tmp_path, change, named):
    odd = replace(wide_episode(), observations=change(wide_episode().observations))
    with pytest.raises(ValueError, match=named):
        save_dataset([wide_episode(), odd], tmp_path / "D.npz")
    assert os.listdir(tmp_path) == []

def test_actions_of_another_robot_do_not_go_into_the_same_file(tmp_path):
    with pytest.raises(ValueError, match=r"actions: .*14"):
        other = wide_episode(actions=np.zeros((7, 14), np.float32))
        save_dataset([wide_episode(), other], tmp_path / "D.npz")

# ---------------------------------------------------------------- files not ours, or broken

def assert_refused(path, load=load_dataset):
    """A BadFile that names the path, and no file left open while the error is looked at."""

    def n_open():
        return len(os.listdir("/dev/fd")) if os.path.exists("/dev/fd") else 0

    before = n_open()
    with pytest.raises(BadFile) as error:
        load(path)
    assert isinstance(error.value, ValueError)
    assert str(path) in str(error.value)
    assert n_open() <= before

@pytest.mark.parametrize("part", np.linspace(0, 0.999, 12))
def test_a_truncated_dataset(saved, part):
    content = open(saved, "rb").read()
    open(saved, "wb").write(content[: int(part * len(content))])
    assert_refused(saved)

def test_a_flipped_byte(saved):
    with np.load(saved) as file:
        name = "observations/keypoints.npy"
        start = file.zip.getinfo(name).header_offset + len(name) + 300
    content = bytearray(open(saved, "rb").read())
    content[start] ^= 0x40
    open(saved, "wb").write(content)
    assert_refused(saved)

def test_foreign_files(tmp_path):
    np.savez(tmp_path / "foreign.npz", x=np.arange(3))
    np.save(tmp_path / "foreign.npy", np.arange(3))
    (tmp_path / "text.npz").write_text("not a dataset")
    save_network(next(networks()), tmp_path / "network.npz")
    for name in os.listdir(tmp_path):
        assert_refused(tmp_path / name)
    with pytest.raises(FileNotFoundError):
        load_dataset(tmp_path / "none.npz")

class Trap:
    """What a malicious pickle does when it is loaded."""

    def __reduce__(self):
        return os.mkdir, ("sprung",)

@pytest.mark.parametrize(
    "change",
    [
        # pickled objects in a file that is fine otherwise
        dict(subtask=np.array([Trap()] * 38, object)),
        dict(actions=np.full((38, 6), np.nan, np.float32)),
        dict(actions=np.zeros((37, 6), np.float32)),
        dict(source=np.array(["autonomous", "dreamt", "corrected"])),
        dict(lengths=np.zeros(0, int)),  # no episodes
        dict(lengths=np.array([7, 1, 29])),  # a step belongs to nobody
        dict(lengths=np.array([8, 0, 30])),  # an episode without steps
    ],
)
def test_contents_that_cannot_be(saved, change, monkeypatch):
    with np.load(saved) as file:
        arrays = {name: file[name] for name in file.files}
    monkeypatch.chdir(os.path.dirname(saved))
    np.savez(saved, **arrays)
    assert len(load_dataset(saved)) == 3
    np.savez(saved, **arrays | change)
    assert_refused(saved)
    assert not os.path.exists("sprung")

def test_the_episode_that_cannot_be_is_named(saved):
    with np.load(saved) as file:
        arrays = {name: file[name] for name in file.files}
    first_of_the_third = arrays["lengths"][:2].sum()
    arrays["actions"][first_of_the_third + 1, 0] = np.nan
    np.savez(saved, **arrays)
    with pytest.raises(BadFile, match="episode 2: actions: not finite at step 1"):
        load_dataset(saved)

@pytest.mark.parametrize(
    "missing", (*files.PER_STEP, *files.PER_EPISODE, "success", "stages", "n_stages", "lengths")
)
def test_a_missing_array(saved, missing):
    with np.load(saved) as file:
        arrays = {name: file[name] for name in file.files if name != missing}
    np.savez(saved, **arrays)
    assert_refused(saved)

# ---------------------------------------------------------------- networks

@both
def test_a_network_comes_back_bit_for_bit(tmp_path, network):
    path = tmp_path / "net.npz"
    save_network(network.train(), path)
    loaded = load_network(path)
    assert type(loaded) is type(network) and loaded.config == network.config
    assert not loaded.training  # ready to act
    weights = loaded.state_dict()
    assert set(weights) == set(network.state_dict())
    for name, tensor in network.state_dict().items():
        assert weights[name].dtype == tensor.dtype, name
        assert weights[name].numpy().tobytes() == tensor.numpy().tobytes(), name

def test_a_loaded_value_function_says_the_same(tmp_path):
    network = scrambled(list(networks())[1]).eval()
    save_network(network, tmp_path / "V.npz")
    g = torch.Generator().manual_seed(1)
    seen = {
        "state": torch.randn(9, 6, generator=g),
        "keypoints": torch.randn(9, N_KEYPOINTS, KEYPOINT_DIM, generator=g),
    }
    prompt = torch.randint(0, 9, (9, PROMPT_LENGTH), generator=g)
    assert torch.equal(load_network(tmp_path / "V.npz")(seen, prompt), network(seen, prompt))

@both
def test_a_truncated_network(tmp_path, network):
    save_network(network, tmp_path / "whole.npz")
    content = (tmp_path / "whole.npz").read_bytes()
    for part in np.linspace(0, 0.999, 9):
        (tmp_path / "net.npz").write_bytes(content[: int(part * len(content))])
        assert_refused(tmp_path / "net.npz", load_network)

@both
@pytest.mark.parametrize(
    "change",
    [
        dict(kind=np.array("Transformer")),
        # a setting that we do not have
        dict(config=np.array('{"width": 16, "depth": 3}')),
        dict(config=np.array('{"width": 24, "layers": 1}')),  # weights of another size
        dict(config=np.array("{")),
        dict(log=np.array(Trap(), object)),  # an array that nobody asked for
        {"weights/backbone.norm.weight": np.zeros(3, np.float32)},  # wrong shape
        {"weights/backbone.extra": np.zeros(3, np.float32)},
        {"weights/backbone.norm.weight": None},  # missing
        {"kind": None},
        {"config": None},
        dict(config=np.array(Trap(), object)),
    ],
)
def test_networks_that_do_not_fit(tmp_path, network, change, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = str(tmp_path / "net.npz")
    save_network(network, path)
    with np.load(path) as file:
        arrays = {name: file[name] for name in file.files}
    assert load_network(path).config == network.config
    np.savez(path, **{name: x for name, x in (arrays | change).items() if x is not None})
    assert_refused(path, load_network)
    assert not os.path.exists("sprung")

def test_foreign_files_are_no_networks(saved, tmp_path):
    (tmp_path / "text.npz").write_text("not a network")
    shutil.copy(saved, tmp_path / "dataset.npz")
    for name in ("text.npz", "dataset.npz"):
        assert_refused(tmp_path / name, load_network)
    with pytest.raises(FileNotFoundError):
        load_network(tmp_path / "none.npz")

def test_an_error_without_words_is_still_reported(tmp_path, monkeypatch):
    @dataclass
    class Silent:
        def __post_init__(self):
            raise MemoryError

    save_network(next(networks()), tmp_path / "net.npz")
    monkeypatch.setitem(files.KINDS, "VLA", (VLA, lambda **config: Silent()))
    with pytest.raises(ValueError, match="net.npz.*MemoryError"):
        load_network(tmp_path / "net.npz")

def test_tuples_of_a_config_come_back_as_tuples(tmp_path):
    network = ValueFunction(ValueConfig(seen_by("base", "left_wrist"), width=12, layers=1))
    save_network(network, tmp_path / "V.npz")
    with np.load(tmp_path / "V.npz") as file:
        config = json.loads(file["config"].item())
    assert config["interface"]["cameras"] == ["base", "left_wrist"]
    assert config["interface"]["near"] == [2, 6] and "fold" in config["interface"]["words"]
    assert load_network(tmp_path / "V.npz").config == network.config

def test_sizes_and_words_of_any_task_come_back_with_the_network(tmp_path):
    other = Interface(
        state_dim=14, action_dim=5, hz=50.0, words=("napkin", "über"), prompt_length=7,
        subtask_length=3, keypoints=(3, 9), near=(0, 4), n_arms=1, absolute=(1, 4),
        state_mean=tuple(np.linspace(-1, 1, 14).tolist()), state_std=(0.1,) * 14,
    )  # fmt: skip
    torch.manual_seed(0)
    for interface in (other, replace(other, keypoints=(), near=(), cameras=("top",), image=32)):
        for network in (
            VLA(PolicyConfig(interface, width=16, layers=1, expert_width=8)),
            ValueFunction(ValueConfig(interface, width=12, layers=1)),
        ):
            save_network(network, tmp_path / "net.npz")
            loaded = load_network(tmp_path / "net.npz")
            assert loaded.config == network.config
            # Hashable and equal, so tuples all the way down.
            assert {loaded.config.interface} == {interface}

# ---------------------------------------------------------------- either

def test_save_and_load_tell_datasets_from_networks(tmp_path):
    path = tmp_path / "x.npz"
    for one in (mixture(), *networks()):
        save(one, path)
        other = load(path)
        assert type(other) is type(one)
        if isinstance(one, list):
            assert [len(e) for e in other] == [len(e) for e in one]
        else:
            assert other.config == one.config
    content = path.read_bytes()
    for broken in (b"", b"not a file of ours", content[: len(content) // 2]):
        path.write_bytes(broken)
        assert_refused(path, load)
    np.savez(path, x=np.arange(3))
    assert_refused(path, load)
    with pytest.raises(FileNotFoundError):
        load(tmp_path / "none.npz")
