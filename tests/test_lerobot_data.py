"""robots/lerobot_data.py: LeRobot's layout is read and written number by number.

`by_hand` writes the layout as lerobot 0.4.4 does; the slow tests ask the real package.
"""
import io
import json
import os
import shutil
from dataclasses import fields, replace

import numpy as np
import pytest
from helpers import wide_episode

pa = pytest.importorskip("pyarrow", reason="pip install -r requirements-lerobot.txt")

import pyarrow.parquet as pq  # noqa: E402
from PIL import Image  # noqa: E402

from data import Episode, UserError  # noqa: E402
from lab import cli  # noqa: E402
from lab.files import BadFile  # noqa: E402
from robots import lerobot_data  # noqa: E402
from robots.lerobot_data import read_lerobot, write_lerobot  # noqa: E402

LENGTHS = (3, 5)
TEXTS = ("put the peg in", "take the peg out")

# ---------------------------------------------------------------- a dataset by hand

def numbers():
    """What its frames hold: {column: array (8, ...)}."""
    rng = np.random.default_rng(0)
    intervention = np.zeros(8, bool)
    intervention[4:6] = True
    return {
        "observation.state": rng.normal(size=(8, 2)).astype(np.float32),
        "observation.grid": rng.normal(size=(8, 3, 4)).astype(np.float32),
        "observation.images.top": rng.integers(0, 256, (8, 6, 5, 3)).astype(np.uint8),
        "action": rng.normal(size=(8, 2)).astype(np.float32),
        "next.success": np.array([0, 0, 1, 0, 0, 0, 0, 0], bool),
        "complementary_info.is_intervention": intervention,
        "frame_index": np.array([0, 1, 2, 0, 1, 2, 3, 4]),
        "episode_index": np.array([0, 0, 0, 1, 1, 1, 1, 1]),
        "index": np.arange(8),
        "task_index": np.array([1, 1, 1, 0, 0, 0, 0, 0]),
    }

def png(image):
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, "PNG")
    return stream.getvalue()

def cells(images):
    return pa.array([{"bytes": png(x), "path": f"{i}.png"} for i, x in enumerate(images)])

def frames(found):
    """The table of data/, with the types that LeRobot writes."""
    columns = {name: pa.array(x) for name, x in found.items() if x.ndim == 1}
    for name in ("observation.state", "action"):
        columns[name] = pa.FixedSizeListArray.from_arrays(pa.array(found[name].ravel()), 2)
    nested = pa.list_(pa.list_(pa.float32()))
    columns["observation.grid"] = pa.array(found["observation.grid"].tolist(), nested)
    columns["observation.images.top"] = cells(found["observation.images.top"])
    return pa.table(columns)

def write_json(thing, path):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(thing))

def write_table(table, path):
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path)

def by_hand(folder, version="v3.0", table=None, **info):
    """A dataset of two episodes; returns its folder.  info: other entries of info.json."""
    found = numbers()
    table = frames(found) if table is None else table
    features = {
        name: {"dtype": str(x.dtype), "shape": list(x.shape[1:]) or [1], "names": None}
        for name, x in found.items()
    }
    names = ["height", "width", "channels"]
    features["observation.images.top"] = {"dtype": "image", "shape": [6, 5, 3], "names": names}
    all_of_it = {"codebase_version": version, "fps": 30, "features": features} | info
    write_json(all_of_it, folder / "meta/info.json")
    rows = [{"episode_index": i, "tasks": [], "length": T} for i, T in enumerate(LENGTHS)]
    if version == "v2.1":
        tasks = [{"task_index": 1, "task": TEXTS[0]}, {"task_index": 0, "task": TEXTS[1]}]
        for name, lines in (("tasks", tasks), ("episodes", rows)):
            text = "\n".join(json.dumps(line) for line in lines)
            (folder / f"meta/{name}.jsonl").write_text(text + "\n")
        write_table(table.slice(0, 3), folder / "data/chunk-000/episode_000000.parquet")
        write_table(table.slice(3), folder / "data/chunk-000/episode_000001.parquet")
    else:
        tasks = pa.table({"task_index": [0, 1], "__index_level_0__": [TEXTS[1], TEXTS[0]]})
        write_table(tasks, folder / "meta/tasks.parquet")
        write_table(pa.Table.from_pylist(rows), folder / "meta/episodes/chunk-000/file-000.parquet")
        write_table(table, folder / "data/chunk-000/file-000.parquet")
    return folder

def assert_equal(one, other):
    """Every field of two episodes, types and shapes included."""
    for field in fields(Episode):
        a, b = getattr(one, field.name), getattr(other, field.name)
        if isinstance(a, dict):
            assert set(a) == set(b)
            pairs = [(a[name], b[name]) for name in a]
        elif isinstance(a, np.ndarray) and a.dtype.kind != "U":
            pairs = [(a, b)]
        else:
            assert np.array_equal(a, b) and type(a) is type(b), field.name
            continue
        for x, y in pairs:
            assert x.dtype == y.dtype and x.shape == y.shape, field.name
            assert x.tobytes() == y.tobytes(), field.name

@pytest.mark.parametrize("version", ("v3.0", "v2.1"))
def test_a_dataset_by_hand(tmp_path, version):
    found = numbers()
    D = read_lerobot(by_hand(tmp_path, version))
    assert [len(e) for e in D] == list(LENGTHS)
    for e, steps, text, success in zip(D, (slice(0, 3), slice(3, 8)), TEXTS, (True, False)):
        seen = {"state": "state", "grid": "grid", "top": "images.top"}
        assert set(e.observations) == set(seen)
        for name, key in seen.items():
            assert np.array_equal(e.observations[name], found[f"observation.{key}"][steps])
        assert e.observations["top"].dtype == np.uint8
        assert np.array_equal(e.actions, found["action"][steps])
        intervention = found["complementary_info.is_intervention"][steps]
        assert np.array_equal(e.intervention, intervention)
        assert e.success is success and e.task == e.prompt == text
        assert e.max_length == len(e) and e.subtask.tolist() == [""] * len(e)
        assert e.iteration == 1 and e.metadata == "" and len(e.stages) == 0
        assert e.hz == 30.0
    assert [e.source for e in D] == ["autonomous", "corrected"]

def test_without_an_intervention_column_they_are_demonstrations(tmp_path):
    names = ["next.success", "complementary_info.is_intervention"]
    folder = by_hand(tmp_path, table=frames(numbers()).drop_columns(names))
    info = json.loads((folder / "meta/info.json").read_text())
    for name in names:
        del info["features"][name]
    write_json(info, folder / "meta/info.json")
    D = read_lerobot(folder)
    assert all(e.source == "demonstration" and e.iteration == 0 for e in D)
    assert not any(e.intervention.any() for e in D)
    # Nothing in it says how an episode ended.
    assert [e.success for e in D] == [None, None]

def test_the_label_of_an_episode_is_believed_first(tmp_path):
    path = by_hand(tmp_path) / "meta/episodes/chunk-000/file-000.parquet"
    table = pq.read_table(path)
    for column in (pa.array([None, True]), pa.array([np.nan, 1.0])):  # pandas writes the latter
        write_table(table.append_column("success", column), path)
        assert [e.success for e in read_lerobot(tmp_path)] == [None, True]

def test_a_label_that_is_no_truth_value_is_refused(tmp_path):
    path = by_hand(tmp_path) / "meta/episodes/chunk-000/file-000.parquet"
    table = pq.read_table(path)
    for column, shown in ((pa.array(["false", "true"]), "'false'"), (pa.array([2, 1]), "2")):
        write_table(table.append_column("success", column), path)
        assert_refused(tmp_path, f"success: {shown} of episode 0, expected true or false")

def test_the_limit_is_the_longest_episode_of_the_task(tmp_path):
    write_table(
        pa.table({"task_index": [0, 1], "task": [TEXTS[0]] * 2}),
        by_hand(tmp_path) / "meta/tasks.parquet",
    )
    assert [e.max_length for e in read_lerobot(tmp_path)] == [5, 5]

def test_a_column_of_subtasks(tmp_path):
    annotation = np.array(["reach", "reach", "insert"] + ["reach"] * 5)
    table = frames(numbers()).append_column("subtask", pa.array(annotation.tolist()))
    folder = by_hand(tmp_path, table=table)
    info = json.loads((folder / "meta/info.json").read_text())
    info["features"]["subtask"] = {"dtype": "string", "shape": [1], "names": None}
    write_json(info, folder / "meta/info.json")
    D = read_lerobot(folder)
    assert [e.subtask.tolist() for e in D] == [annotation[:3].tolist(), annotation[3:].tolist()]

def test_an_image_beside_the_table(tmp_path):
    """A cell may hold the path of a file in the place of its bytes."""
    found = numbers()
    column = pa.array([{"bytes": None, "path": f"{i}.png"} for i in range(8)])
    column = column.cast(pa.struct({"bytes": pa.binary(), "path": pa.string()}))
    table = frames(found)
    place = table.column_names.index("observation.images.top")
    folder = by_hand(tmp_path, table=table.set_column(place, "observation.images.top", column))
    for i, image in enumerate(found["observation.images.top"]):
        (folder / f"{i}.png").write_bytes(png(image))
    seen = np.concatenate([e.observations["top"] for e in read_lerobot(folder)])
    assert np.array_equal(seen, found["observation.images.top"])

def test_a_text_is_no_observation(tmp_path, capsys):
    """Some datasets have an instruction on every frame."""
    feature = {"dtype": "string", "shape": [1], "names": None}
    table = frames(numbers())
    table = table.append_column("observation.language", pa.array(["peg"] * 8))
    folder = by_hand(tmp_path, table=table)
    info = json.loads((folder / "meta/info.json").read_text(encoding="utf-8"))
    info["features"]["observation.language"] = feature
    write_json(info, folder / "meta/info.json")
    assert set(read_lerobot(folder)[0].observations) == {"state", "grid", "top"}
    assert "language left out" in capsys.readouterr().err

def test_only_some_cameras(tmp_path):
    folder = by_hand(tmp_path)
    assert set(read_lerobot(folder, cameras=())[0].observations) == {"state", "grid"}
    assert "top" in read_lerobot(folder, cameras=["top"])[0].observations
    with pytest.raises(ValueError, match=r"no image column of wrist \(it has: top\)"):
        read_lerobot(folder, cameras=["wrist"])

def test_images_are_shrunk_as_they_are_read(tmp_path):
    """Each of the 2 x 2 pixels is the mean of a quarter, of 2 x 3 pixels."""
    images = np.random.default_rng(0).integers(0, 256, (7, 4, 6, 3)).astype(np.uint8)
    e = wide_episode(T=7)
    e = replace(e, observations={"state": e.actions, "top": images})
    write_lerobot([e], tmp_path / "out")
    (found,) = read_lerobot(tmp_path / "out", side=2)
    expected = images.reshape(7, 2, 2, 2, 3, 3).mean((2, 4))
    assert found.observations["top"].dtype == np.uint8
    assert np.abs(found.observations["top"] - expected).max() <= 1  # rounded twice

def test_videos_are_left_out_aloud(tmp_path, capsys):
    info = json.loads((by_hand(tmp_path) / "meta/info.json").read_text())
    for name in ("front", "side"):
        video = {"dtype": "video", "shape": [6, 5, 3], "names": None}
        info["features"][f"observation.images.{name}"] = video
    write_json(info, tmp_path / "meta/info.json")
    assert set(read_lerobot(tmp_path)[0].observations) == {"state", "grid", "top"}
    said = capsys.readouterr().err
    assert said == f"{tmp_path}: front, side left out, videos are not decoded\n"

# ---------------------------------------------------------------- what does not fit

def assert_refused(folder, match, kind=ValueError):
    """One line, of that kind."""
    with pytest.raises(kind, match=match) as error:
        read_lerobot(folder)
    assert "\n" not in str(error.value)

@pytest.mark.parametrize("version", ("v1.6", "v2.0", "v4.0", "3.0"))
def test_an_unknown_version(tmp_path, version):
    assert_refused(by_hand(tmp_path, version), f"info.json: version '{version}', expected v3.0 or")

def test_no_dataset(tmp_path):
    assert_refused(tmp_path, "info.json: not there", FileNotFoundError)
    write_json({"fps": 30}, tmp_path / "meta/info.json")
    assert_refused(tmp_path, "info.json: damaged, or not a LeRobot dataset", BadFile)
    shutil.rmtree(by_hand(tmp_path) / "data")
    assert_refused(tmp_path, "no data/chunk", BadFile)

PARTS = {
    "v3.0": (
        "data/chunk-000/file-000.parquet", "meta/episodes/chunk-000/file-000.parquet",
        "meta/tasks.parquet", "meta/info.json",
    ),
    "v2.1": (
        "data/chunk-000/episode_000001.parquet", "meta/episodes.jsonl", "meta/tasks.jsonl",
        "meta/info.json",
    ),
}  # fmt: skip

@pytest.mark.parametrize("part", (0.0, 0.3, 0.9))
@pytest.mark.parametrize("version, number", [(v, i) for v in PARTS for i in range(4)])
def test_a_truncated_file_is_named(tmp_path, version, number, part):
    path = by_hand(tmp_path, version) / PARTS[version][number]
    content = path.read_bytes()
    path.write_bytes(content[: int(part * len(content))])
    # Lines that end early may still be lines: then an episode or a text is missing.
    name = "meta/(episodes|tasks)" if path.suffix == ".jsonl" else PARTS[version][number]
    assert_refused(tmp_path, name, BadFile)

def test_episodes_that_are_missing(tmp_path):
    by_hand(tmp_path, table=frames(numbers()).slice(0, 7))
    assert_refused(tmp_path, "7 frames in data/ do not follow meta/episodes .2, 8 frames", BadFile)
    swapped = frames(numbers()).take([1, 0, 2, 3, 4, 5, 6, 7])
    by_hand(tmp_path, table=swapped)
    assert_refused(tmp_path, "do not follow", BadFile)
    # Labels are joined by this number: it says where a frame lies in the dataset.
    by_hand(tmp_path, table=with_column("index", pa.array(range(1000, 1008))))
    assert_refused(tmp_path, "do not follow", BadFile)

def test_a_run_whose_dataset_is_gone(tmp_path):
    gone = tmp_path / "gone"
    write_json({"data": str(gone)}, tmp_path / "run" / "settings.json")
    with pytest.raises(UserError) as error:
        cli.settings_of("--resume", str(tmp_path / "run"), read_lerobot)
    expected = f"--resume: {gone}/meta/info.json: not there, expected a LeRobot dataset"
    assert str(error.value) == expected

def with_column(name, column):
    table = frames(numbers())
    return table.set_column(table.column_names.index(name), name, column)

@pytest.mark.parametrize(
    "name, column, match",
    [
        ("action", pa.array([[0.0]] * 8), r"action: 8 numbers in 8 frames, expected shape \(2,\)"),
        ("observation.images.top", pa.array([[[[0]]]] * 8), "top: type list.*a struct of bytes"),
        ("observation.images.top", cells(np.zeros((8, 6, 6, 3), np.uint8)),
         r"top: an image \(6, 6, 3\) in row 0, expected \(6, 5, 3\) as in meta/info.json"),
        ("observation.images.top", pa.array([{"bytes": b"PNG?", "path": ""}] * 8),
         "top: row 0 is not an image"),
        ("observation.state", pa.array([[np.nan, 0.0]] * 8),
         "episode 0: state: not finite at step 0"),
    ],
    ids=("narrow", "no struct", "another size", "no image", "not finite"),
)  # fmt: skip
def test_columns_of_the_wrong_shape(tmp_path, name, column, match):
    assert_refused(by_hand(tmp_path, table=with_column(name, column)), match)

def test_a_missing_column(tmp_path):
    by_hand(tmp_path, table=frames(numbers()).drop_columns(["action"]))
    assert_refused(tmp_path, "file-000.parquet: no column action", BadFile)

def test_an_episode_of_two_tasks(tmp_path):
    by_hand(tmp_path, table=with_column("task_index", pa.array([0, 1, 0, 0, 0, 0, 0, 0])))
    assert_refused(tmp_path, "episode 0 has 2 tasks, expected one")

# ---------------------------------------------------------------- out

def mixture(*labels):
    """Episodes of two tasks with images, wide numbers and every kind of label."""
    D = []
    for i, (T, success) in enumerate(zip((7, 1, 30), labels)):
        rest = dict(success=success, iteration=i, prompt=f"do {i % 2}")
        e = wide_episode(T=T, seed=i, n_stages=i, **rest)
        seen = e.observations | {"force": e.observations["force"][:, None]}
        D.append(replace(e, observations=seen, hz=20.0))
    return D

@pytest.mark.parametrize("labels", ((True, False, True), (True, False, None)))
def test_what_is_written_comes_back(tmp_path, labels):
    D = mixture(*labels)
    write_lerobot(D, tmp_path / "out")
    again = read_lerobot(tmp_path / "out")
    assert len(again) == len(D)
    for one, other in zip(D, again):
        assert_equal(one, other)
    # A next.success of False would say failure of an episode without a label.
    features = json.loads((tmp_path / "out/meta/info.json").read_text())["features"]
    assert ("next.success" in features) == (None not in labels)

def test_a_large_dataset_has_several_files(tmp_path, monkeypatch):
    monkeypatch.setattr(lerobot_data, "DATA_FILE", 3000)
    D = mixture(True, False, True)
    write_lerobot(D, tmp_path / "out")
    assert len(os.listdir(tmp_path / "out/data/chunk-000")) == 2
    rows = pq.read_table(tmp_path / "out/meta/episodes/chunk-000/file-000.parquet").to_pylist()
    for row in rows:
        path = tmp_path / f"out/data/chunk-000/file-{row['data/file_index']:03d}.parquet"
        assert row["episode_index"] in pq.read_table(path)["episode_index"].to_pylist()
    for one, other in zip(D, read_lerobot(tmp_path / "out")):
        assert_equal(one, other)

def test_statistics(tmp_path):
    D = mixture(True, False, True)
    write_lerobot(D, tmp_path / "out")
    found = json.loads((tmp_path / "out/meta/stats.json").read_text())
    x = np.concatenate([e.observations["keypoints"] for e in D]).astype(float)
    stats = {name: np.array(values) for name, values in found["observation.keypoints"].items()}
    assert np.allclose(stats["mean"], x.mean(0)) and np.allclose(stats["std"], x.std(0))
    assert np.allclose(stats["q10"], np.percentile(x, 10, axis=0)) and stats["count"] == [38]
    images = np.concatenate([e.observations["base"] for e in D])[::2] / 255  # at most 20 of 38
    stats = {name: np.array(values) for name, values in found["observation.images.base"].items()}
    assert stats["max"].shape == (3, 1, 1)
    assert np.allclose(stats["mean"].ravel(), [images[..., c].mean() for c in range(3)])
    row = pq.read_table(tmp_path / "out/meta/episodes/chunk-000/file-000.parquet").to_pylist()[0]
    assert np.allclose(row["stats/action/mean"], D[0].actions.mean(0), atol=1e-6)

def test_nothing_is_overwritten_and_nothing_is_left_behind(tmp_path, monkeypatch):
    D = mixture(True, False, True)
    (tmp_path / "full").mkdir()
    (tmp_path / "full/precious").write_text("")
    for path in (tmp_path / "full", tmp_path / "full/precious"):
        with pytest.raises(ValueError, match="exists and is not an empty folder"):
            write_lerobot(D, path)
    (tmp_path / "empty").mkdir()
    write_lerobot(D, tmp_path / "empty")
    assert len(read_lerobot(tmp_path / "empty")) == 3

    def interrupted(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(lerobot_data, "write_texts", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_lerobot(D, tmp_path / "new")
    assert sorted(os.listdir(tmp_path)) == ["empty", "full"]

def test_what_cannot_be_one_dataset(tmp_path):
    one = mixture(True)[0]
    with pytest.raises(ValueError, match="episodes: an empty dataset"):
        write_lerobot([], tmp_path / "out")
    with pytest.raises(ValueError, match="observations: other names"):
        write_lerobot([one, replace(one, observations={"state": one.actions})], tmp_path / "out")
    with pytest.raises(ValueError, match="actions: .*one shape and dtype"):
        write_lerobot([one, replace(one, actions=one.actions[:, :3])], tmp_path / "out")
    with pytest.raises(ValueError, match=r"hz: \[20.0, 50.0\] in one dataset"):
        write_lerobot([one, replace(one, hz=50.0)], tmp_path / "out")
    assert os.listdir(tmp_path) == []

# ---------------------------------------------------------------- the real package

@pytest.fixture
def lerobot(monkeypatch, tmp_path):
    """LeRobot's class of datasets, without network.  Skipped aloud where it is not installed."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    reason = "lerobot is not installed: nothing here shows that it opens what we write"
    return pytest.importorskip("lerobot.datasets.lerobot_dataset", reason=reason).LeRobotDataset

@pytest.mark.slow
def test_lerobot_reads_what_we_write(tmp_path, lerobot):
    D = mixture(True, False, True)
    write_lerobot(D, tmp_path / "out")
    dataset = lerobot("we/wrote", root=tmp_path / "out")
    assert dataset.num_episodes == 3 and len(dataset) == 38 and dataset.fps == 20
    i = 0
    for e in D:
        for t in range(len(e)):
            frame = dataset[i]
            assert frame["index"] == i and frame["frame_index"] == t
            assert frame["timestamp"].item() == pytest.approx(t / dataset.fps)
            assert frame["task"] == e.prompt and frame["subtask"] == e.subtask[t]
            assert np.array_equal(frame["action"].numpy(), e.actions[t])
            for name in ("state", "keypoints"):
                assert np.array_equal(frame[f"observation.{name}"], e.observations[name][t])
            image = frame["observation.images.base"].numpy().transpose(1, 2, 0)
            assert np.array_equal(np.round(255 * image), e.observations["base"][t])
            assert frame["intervention"].item() == e.intervention[t]
            assert frame["next.success"].item() == (e.success and t == len(e) - 1)
            i += 1
    # Its statistics are read, and those of episodes lie where its tools look for them.
    mean = np.concatenate([e.actions for e in D]).astype(float).mean(0)
    assert np.allclose(dataset.meta.stats["action"]["mean"], mean)
    ahead = {"action": [0, 1 / dataset.fps]}
    chunks = lerobot("we/wrote", root=tmp_path / "out", delta_timestamps=ahead)
    assert np.array_equal(chunks[0]["action"], D[0].actions[:2])
    one = lerobot("we/wrote", root=tmp_path / "out", episodes=[2])
    assert len(one) == 30 and np.array_equal(one[0]["action"], D[2].actions[0])

@pytest.mark.slow
def test_we_read_what_lerobot_writes(tmp_path, lerobot):
    found = numbers()
    columns = [name for name in found if not name.endswith("index")]
    features = {}
    for name in columns:
        shape = found[name].shape[1:] or (1,)
        features[name] = {"dtype": str(found[name].dtype), "shape": shape, "names": None}
    names = ["height", "width", "channels"]
    features["observation.images.top"] = {"dtype": "image", "shape": (6, 5, 3), "names": names}
    dataset = lerobot.create(
        "they/wrote", fps=30, features=features, root=tmp_path / "theirs", use_videos=False
    )
    for i, text in enumerate(TEXTS):
        for t in np.flatnonzero(found["episode_index"] == i):
            frame = {name: found[name][t] for name in columns}
            for name in ("next.success", "complementary_info.is_intervention"):
                frame[name] = np.array([frame[name]])
            dataset.add_frame(frame | {"task": text})
        dataset.save_episode()
    dataset.finalize()
    for one, other in zip(read_lerobot(tmp_path / "theirs"), read_lerobot(by_hand(tmp_path / "a"))):
        assert_equal(one, other)

@pytest.mark.slow
def test_lerobots_converter_agrees_on_version_2_1(tmp_path, lerobot):
    """What we read of a v2.1 dataset is what we read after LeRobot has made a v3.0 one of it."""
    from lerobot.datasets.v30.convert_dataset_v21_to_v30 import convert_dataset

    more = dict(total_chunks=1, total_videos=0, total_frames=8, total_episodes=2, total_tasks=2)
    more |= dict(splits={}, robot_type=None, chunks_size=1000, data_path="", video_path=None)
    folder = by_hand(tmp_path / "x", "v2.1", **more)
    each = {name: [0.0] for name in ("min", "max", "mean", "std")} | {"count": [1]}
    lines = [json.dumps({"episode_index": i, "stats": {"action": each}}) for i in range(2)]
    (folder / "meta/episodes_stats.jsonl").write_text("\n".join(lines) + "\n")
    before = read_lerobot(folder)
    convert_dataset("x", root=tmp_path, push_to_hub=False)
    assert json.loads((folder / "meta/info.json").read_text())["codebase_version"] == "v3.0"
    assert len(lerobot("x", root=folder)) == 8
    for one, other in zip(before, read_lerobot(folder)):
        assert_equal(one, other)
