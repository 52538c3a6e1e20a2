"""LeRobot datasets in and out, without importing LeRobot (pip install -r requirements-lerobot.txt).

    a folder of LeRobot v3.0 or v2.1 → a list of Episode     read_lerobot
    a list of Episode → a folder of LeRobot v3.0             write_lerobot

    LeRobot                                               Episode
    observation.NAME                                      observations[NAME], (T, ...)
    observation.images.NAME, an image column              observations[NAME], uint8 (T, H, W, 3)
    action                                                actions, the numbers as they stand there
    the task's text                                       prompt
    a column success of meta/episodes, or next.success    success
    intervention, or complementary_info.is_intervention   intervention
    subtask_index with meta/subtasks.parquet, or subtask  subtask
    fps                                                   hz
    columns recap/... of meta/episodes                    what LeRobot has no name for

Where those last columns are missing, the prompt is the task's id, too.  Its limit is its longest
episode.  Without an intervention column all are demonstrations, else rollouts of iteration 1.
Videos (mp4) are not decoded.  One number per step, (T,), comes back as (T, 1).
"""
import glob
import io
import json
import math
import os
import sys

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from PIL import Image

from data import UserError
from lab.files import BadFile, in_a_row, numbered_episode, write_atomically
from lab.given import shrunk

SUCCESS = "next.success"
INTERVENTION = ("intervention", "complementary_info.is_intervention")
OWN = ("task", "max_length", "source", "iteration", "metadata", "stages")  # recap/... of an episode

# ---------------------------------------------------------------- in

def read_lerobot(folder, cameras=None, side=None) -> list:
    """A dataset of LeRobot as a list of `data.Episode`, in its own order: item i is episode i.

    folder: holds meta/ and data/.
    cameras: names of the images to decode; None: all.
    side: pixels of a side, to which images are shrunk as they are read; None: they stay.
    BadFile names a file that is damaged, UserError what else does not fit.
    """
    folder = str(folder)
    info = read_info(folder)
    features = info["features"]
    seen = observed(folder, features, cameras)
    intervention = [name for name in INTERVENTION if name in features][:1]
    others = ["index", "frame_index", "episode_index", "task_index", "action", *intervention]
    others += [name for name in (SUCCESS, "subtask_index", "subtask") if name in features]
    frames = read_frames(folder, features, [*seen.values(), *others], side)
    rows = read_episode_rows(folder, info)
    check_order(folder, frames, rows)

    ends = np.cumsum([row["length"] for row in rows])
    spans = [slice(end - row["length"], end) for row, end in zip(rows, ends)]
    texts = texts_of(folder, info, "task", frames["task_index"])
    prompts = [prompt_of(folder, i, texts[span]) for i, span in enumerate(spans)]
    # A task's limit is not in the files of others: its longest episode stands for it.
    tasks = [row.get("recap/task", prompt) for row, prompt in zip(rows, prompts)]
    longest = {}
    for task, row in zip(tasks, rows):
        longest[task] = max(longest.get(task, 0), row["length"])
    subtask = subtasks_of(folder, info, frames)
    episodes = []
    for i, (row, span, prompt, task) in enumerate(zip(rows, spans, prompts, tasks)):
        T = row["length"]
        operator = np.zeros(T, bool)
        source = "demonstration"
        if intervention:
            operator = frames[intervention[0]][span].reshape(T, -1).any(1)
            source = "corrected" if operator.any() else "autonomous"
        episode = numbered_episode(
            i, task=task, prompt=prompt, max_length=row.get("recap/max_length", longest[task]),
            observations={name: frames[key][span] for name, key in seen.items()},
            actions=frames["action"][span], subtask=subtask[span], intervention=operator,
            success=success_of(row, frames, span), source=row.get("recap/source", source),
            stages=np.array(row.get("recap/stages", []), bool), hz=info["fps"],
            iteration=row.get("recap/iteration", int(source != "demonstration")),
            metadata=row.get("recap/metadata", ""),
        )  # fmt: skip
        episodes.append(episode)
    return episodes

def prompt_of(folder, i, texts):
    """The one text of the frames of episode i.  UserError for several."""
    found = np.unique(texts)
    if len(found) > 1:
        raise UserError(f"{folder}: episode {i} has {len(found)} tasks, expected one")
    return str(found[0])

def subtasks_of(folder, info, frames):
    """The annotation of every frame, str (M,); without one it is empty."""
    if "subtask" in frames:
        return frames["subtask"].ravel()
    if "subtask_index" in frames:
        return texts_of(folder, info, "subtask", frames["subtask_index"])
    return np.full(len(frames["index"]), "")

def success_of(row, frames, span):
    """The label of an episode: its own, else that of any of its frames, else None."""
    if "success" in row:
        label = row["success"]
        if label is None or label != label:  # pandas writes NaN for none
            return None
        if label not in (True, False):  # a text is true, also where it says "false"
            raise UserError(
                f"success: {label!r} of episode {row['episode_index']}, expected true or false"
            )
        return bool(label)
    if SUCCESS in frames:
        return bool(frames[SUCCESS][span].any())
    return None

def read_info(folder):
    """meta/info.json; UserError for a version that is not v3 or v2.1."""
    path = os.path.join(folder, "meta", "info.json")
    try:
        with open(path, encoding="utf-8") as file:
            info = json.load(file)
        version = info["codebase_version"]
        info["fps"] = float(info["fps"])
        info["features"] = dict(info["features"])
    except FileNotFoundError:
        raise FileNotFoundError(f"{path}: not there, expected a LeRobot dataset") from None
    except (ValueError, KeyError, TypeError) as error:
        raise BadFile(f"{path}: damaged, or not a LeRobot dataset ({error!r})") from error
    if not version.startswith("v3.") and version != "v2.1":
        raise UserError(f"{path}: version {version!r}, expected v3.0 or v2.1")
    return info

def observed(folder, features, cameras):
    """What to read of an observation: {our name: LeRobot's}.  Says what is left out."""
    seen = {}
    videos = []
    images = []
    texts = []
    for key, feature in features.items():
        if not key.startswith("observation."):
            continue
        name = key.removeprefix("observation.").removeprefix("images.")
        if feature["dtype"] == "video":
            videos.append(name)
            continue
        if feature["dtype"] == "string":
            texts.append(name)
            continue
        if feature["dtype"] == "image":
            images.append(name)
            if cameras is not None and name not in cameras:
                continue
        if name in seen:
            raise UserError(f"{folder}: {key} and {seen[name]} would both be {name!r}")
        seen[name] = key
    missing = [name for name in cameras or () if name not in images]
    if missing:
        has = ", ".join(images) or "none"
        raise UserError(f"{folder}: no image column of {', '.join(missing)} (it has: {has})")
    for key in ("observation.state", "action"):
        if key not in features:
            raise UserError(f"{folder}: no {key} among its features")
    if videos:
        print(f"{folder}: {', '.join(videos)} left out, videos are not decoded", file=sys.stderr)
    if texts:
        print(f"{folder}: {', '.join(texts)} left out, no network reads texts", file=sys.stderr)
    return seen

def read_table(path, columns=None):
    """One parquet file.  BadFile names it if it is damaged or lacks a column."""
    try:
        with pq.ParquetFile(path) as file:
            missing = [name for name in columns or () if name not in file.schema_arrow.names]
            if not missing:
                return file.read(columns)
    except (pa.ArrowException, OSError) as error:
        reason = str(error).splitlines()[0]
        raise BadFile(f"{path}: not a parquet file, or truncated ({reason})") from error
    raise BadFile(f"{path}: no column {missing[0]}, which meta/info.json names")

def read_frames(folder, features, names, side=None):
    """Columns of all files of data/, one row per frame: {name: array (M, ...)}.

    side: as in `read_lerobot`.
    """
    paths = sorted(glob.glob(os.path.join(glob.escape(folder), "data", "*", "*.parquet")))
    if not paths:
        raise BadFile(f"{folder}: no data/chunk-*/*.parquet")
    parts = {name: [] for name in names}
    for path in paths:
        table = read_table(path, names)
        for name in names:
            kind = features[name]["dtype"]
            shape = tuple(features[name]["shape"])
            try:
                if kind == "string":
                    array = np.array(table[name].to_pylist(), str)
                elif kind == "image":
                    names_of = features[name].get("names")
                    array = images_of(table[name], shape, names_of, folder, side)
                else:
                    array = numbers_of(table[name], shape)
            except ValueError as error:
                raise BadFile(f"{path}: {name}: {error}") from error
            parts[name].append(array)
    return {name: np.concatenate(arrays) for name, arrays in parts.items()}

def numbers_of(column, shape):
    """A column of numbers, or of nested lists of them → (rows, *shape).  () stands for (1,)."""
    n_rows = len(column)
    # A process that has imported Hugging Face's datasets sees extension types here.
    if isinstance(column.type, pa.BaseExtensionType):
        column = pa.chunked_array([chunk.storage for chunk in column.chunks])
    while pa.types.is_nested(column.type):
        column = pc.list_flatten(column)
    array = column.to_numpy()
    if len(array) != n_rows * math.prod(shape):
        found = f"{len(array)} numbers in {n_rows} frames"
        raise ValueError(f"{found}, expected shape {shape} as in meta/info.json")
    return array.reshape(n_rows, *shape)

def images_of(column, shape, names, folder, side=None):
    """A column of structs of bytes (a PNG) and path → uint8 (rows, H, W, 3).

    side: H and W that they are shrunk to; None: they stay.
    """
    if not pa.types.is_struct(column.type):
        raise ValueError(f"type {column.type}, expected a struct of bytes and path")
    if names and names[0].startswith("channel"):  # some are (C, H, W) in info.json
        shape = (*shape[1:], shape[0])
    images = []
    for i, cell in enumerate(column.to_pylist()):
        source = os.path.join(folder, cell["path"] or "")
        if cell["bytes"] is not None:
            source = io.BytesIO(cell["bytes"])
        try:
            with Image.open(source) as opened:
                image = opened.convert("RGB")
        except OSError as error:
            raise ValueError(f"row {i} is not an image ({error})") from error
        if (image.height, image.width) != tuple(shape[:2]):
            found = f"an image {(image.height, image.width, 3)} in row {i}"
            raise ValueError(f"{found}, expected {shape} as in meta/info.json")
        images.append(np.asarray(image) if side is None else shrunk(image, side))
    size = shape[:2] if side is None else (side, side)
    return np.array(images, np.uint8).reshape(-1, *size, 3)

def read_lines(path):
    """A file of one JSON object a line: a list of dicts."""
    try:
        with open(path, encoding="utf-8") as file:
            return [json.loads(line) for line in file if line.strip()]
    except FileNotFoundError:
        raise BadFile(f"{path}: not there") from None
    except ValueError as error:
        raise BadFile(f"{path}: damaged or truncated ({error})") from error

def read_episode_rows(folder, info):
    """One dict per episode, without the statistics."""
    if info["codebase_version"] == "v2.1":
        rows = read_lines(os.path.join(folder, "meta", "episodes.jsonl"))
    else:
        pattern = os.path.join(glob.escape(folder), "meta", "episodes", "*", "*.parquet")
        rows = []
        for path in sorted(glob.glob(pattern)):
            table = read_table(path)
            kept = [name for name in table.column_names if not name.startswith("stats/")]
            rows += table.select(kept).to_pylist()
    for row in rows:
        if "episode_index" not in row or "length" not in row:
            raise BadFile(f"{folder}: meta/episodes lacks episode_index or length")
    return sorted(rows, key=lambda row: row["episode_index"])

def texts_of(folder, info, kind, index):
    """The text of every frame, str (M,).  kind: "task" or "subtask".  index: int (M, 1)."""
    name = f"{kind}_index"
    if info["codebase_version"] == "v2.1":
        path = os.path.join(folder, "meta", f"{kind}s.jsonl")
        texts = {row.get(name): row.get(kind) for row in read_lines(path)}
    else:
        path = os.path.join(folder, "meta", f"{kind}s.parquet")
        table = read_table(path)
        # The text is the index of a pandas table, under a name that has changed.
        rest = [column for column in table.column_names if column != name]
        if len(rest) != 1 or len(table.column_names) != 2:
            raise BadFile(f"{path}: columns {table.column_names}, expected {name} and a text")
        texts = dict(zip(table[name].to_pylist(), table[rest[0]].to_pylist()))
    missing = [int(i) for i in np.unique(index) if texts.get(int(i)) is None]
    if missing:
        raise BadFile(f"{path}: no text of {name} {missing[0]}, which data/ names")
    return np.array([texts[i] for i in index.ravel().tolist()])

def check_order(folder, frames, rows):
    """BadFile where the frames do not follow one another as meta/episodes says."""
    lengths = [row["length"] for row in rows]
    expected = np.repeat(np.arange(len(rows)), lengths)
    within = np.concatenate([np.arange(length) for length in [*lengths, 0]])
    whole = {"index": np.arange(sum(lengths)), "episode_index": expected, "frame_index": within}
    if not all(np.array_equal(frames[name].ravel(), x) for name, x in whole.items()):
        found = f"{len(frames['episode_index'])} frames in data/"
        message = f"{found} do not follow meta/episodes ({len(rows)}, {sum(lengths)} frames)"
        raise BadFile(f"{folder}: {message}: damaged, or a part is missing")

# ---------------------------------------------------------------- out

DATA_FILE = 100e6  # bytes: LeRobot begins another file then
IMAGE = pa.struct({"bytes": pa.binary(), "path": pa.string()})
N_IMAGES = 20  # for the statistics of an episode, or of all of them
QUANTILES = (0.01, 0.1, 0.5, 0.9, 0.99)
PLACE = "chunk-000/file-{:03d}.parquet"

def write_lerobot(episodes, folder):
    """Write a list of `data.Episode` as a LeRobot v3.0 dataset.

    folder: new or empty.  It appears whole, or not at all.
    Where an episode has no label, no next.success is written: it would say failure.
    UserError where episodes disagree in names, shapes, dtypes or rate.
    """
    if not episodes:
        raise UserError("episodes: an empty dataset, expected at least one episode")
    if os.path.exists(folder) and (not os.path.isdir(folder) or os.listdir(folder)):
        raise UserError(f"{folder}: exists and is not an empty folder, expected a new one")
    rates = sorted({float(e.hz) for e in episodes})
    if len(rates) > 1:
        raise UserError(f"hz: {rates} in one dataset, expected one rate")
    fps = int(rates[0]) if rates[0] == int(rates[0]) else rates[0]
    columns = columns_of(episodes, fps)
    if os.path.exists(folder):
        os.rmdir(folder)
    write_atomically(folder, lambda path: write_parts(episodes, columns, fps, path))

def columns_of(episodes, fps):
    """Every column of data/ as an array, all frames in a row: {name: (M, ...)}."""
    names = set(episodes[0].observations)
    if any(set(e.observations) != names for e in episodes):
        raise UserError("observations: other names in some episodes, expected the same in all")
    columns = {}
    for name in episodes[0].observations:
        array = in_a_row(name, [e.observations[name] for e in episodes])
        prefix = "observation.images." if is_image(array) else "observation."
        columns[prefix + name] = array
    columns["action"] = in_a_row("actions", [e.actions for e in episodes])
    columns["intervention"] = np.concatenate([e.intervention for e in episodes]).astype(bool)
    if all(e.success is not None for e in episodes):
        # True on the last frame of a success, as an environment would say it.
        ends = np.cumsum([len(e) for e in episodes]) - 1
        columns[SUCCESS] = np.zeros(len(columns["action"]), bool)
        columns[SUCCESS][ends] = [e.success for e in episodes]
    subtask = np.concatenate([e.subtask for e in episodes])
    columns["subtask_index"] = np.unique(subtask, return_inverse=True)[1].astype(np.int64)
    # The columns that every dataset has.
    prompts = [e.prompt for e in episodes]
    lengths = [len(e) for e in episodes]
    step = np.concatenate([np.arange(n) for n in lengths])
    columns["timestamp"] = (step / fps).astype(np.float32)
    columns["frame_index"] = step
    columns["episode_index"] = np.repeat(np.arange(len(episodes)), lengths)
    columns["index"] = np.arange(len(step))
    columns["task_index"] = np.repeat(np.unique(prompts, return_inverse=True)[1], lengths)
    return columns

def is_image(array):
    """Is this (M, H, W, 3), uint8?"""
    return array.dtype == np.uint8 and array.ndim == 4 and array.shape[-1] == 3

def write_parts(episodes, columns, fps, folder):
    """meta/ and data/ of a dataset.  columns: of `columns_of`."""
    os.makedirs(os.path.join(folder, "meta", "episodes", "chunk-000"))
    places = write_data(columns, [len(e) for e in episodes], folder)
    rows = [episode_row(i, e, columns, places[i]) for i, e in enumerate(episodes)]
    meta = os.path.join(folder, "meta")
    pq.write_table(pa.Table.from_pylist(rows), os.path.join(meta, "episodes", PLACE.format(0)))
    prompts = np.unique([e.prompt for e in episodes])
    write_texts(prompts, "task", meta)
    write_texts(np.unique(np.concatenate([e.subtask for e in episodes])), "subtask", meta)
    everything = {name: statistics(array) for name, array in columns.items()}
    write_json(everything, os.path.join(meta, "stats.json"))
    info = {
        "codebase_version": "v3.0", "robot_type": None, "total_episodes": len(episodes),
        "total_frames": len(columns["index"]), "total_tasks": len(prompts), "chunks_size": 1000,
        "data_files_size_in_mb": round(DATA_FILE / 1e6), "video_files_size_in_mb": 200, "fps": fps,
        "splits": {"train": f"0:{len(episodes)}"},
        "data_path": "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet",
        "video_path": None, "features": {name: feature(x) for name, x in columns.items()},
    }  # fmt: skip
    write_json(info, os.path.join(meta, "info.json"))

def write_json(thing, path):
    with open(path, "w", encoding="utf-8") as file:
        json.dump(thing, file, indent=1)

def feature(array):
    """What meta/info.json says of a column."""
    if is_image(array):
        names = ["height", "width", "channels"]
        return {"dtype": "image", "shape": list(array.shape[1:]), "names": names}
    shape = list(array.shape[1:]) or [1]
    return {"dtype": str(array.dtype), "shape": shape, "names": None}

def write_data(columns, lengths, folder):
    """data/: a row group per episode.  Returns the number of the file of each."""
    os.makedirs(os.path.join(folder, "data", "chunk-000"))
    # Hugging Face's datasets shows the images of a table that is marked like this.
    images = {name: {"_type": "Image"} for name, array in columns.items() if is_image(array)}
    mark = {"huggingface": json.dumps({"info": {"features": images}})}
    places = []
    writers = []
    written = math.inf  # bytes, to the last file
    end = 0
    for length in lengths:
        steps = slice(end, end + length)
        end = steps.stop
        table = pa.table({name: arrow(array[steps]) for name, array in columns.items()})
        table = table.replace_schema_metadata(mark)
        if written > DATA_FILE:
            path = os.path.join(folder, "data", PLACE.format(len(writers)))
            writers.append(pq.ParquetWriter(path, table.schema))
            written = 0
        writers[-1].write_table(table)
        written += table.nbytes
        places.append(len(writers) - 1)
    for writer in writers:
        writer.close()
    return places

def arrow(array):
    """(T, ...) as a column: numbers, lists, lists of lists; images as PNG."""
    if is_image(array):
        return pa.array([{"bytes": png(image), "path": None} for image in array], IMAGE)
    flat = pa.array(array.ravel())
    if array.shape[1:] in ((), (1,)):
        return flat
    if array.ndim == 2:
        return pa.FixedSizeListArray.from_arrays(flat, array.shape[1])
    for size in reversed(array.shape[1:]):
        ends = np.arange(0, len(flat) + 1, size, dtype=np.int32)
        flat = pa.ListArray.from_arrays(ends, flat)
    return flat

def png(image):
    """uint8 (H, W, 3) → bytes."""
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, "PNG")
    return stream.getvalue()

def episode_row(i, episode, columns, place):
    """The row of meta/episodes of one episode.  place: the number of its file of data/."""
    first = int(np.argmax(columns["episode_index"] == i))
    steps = slice(first, first + len(episode))
    row = {
        "episode_index": i, "tasks": [episode.prompt], "length": len(episode),
        "data/chunk_index": 0, "data/file_index": place, "dataset_from_index": steps.start,
        "dataset_to_index": steps.stop, "meta/episodes/chunk_index": 0,
        "meta/episodes/file_index": 0, "success": episode.success,
    }  # fmt: skip
    row |= {f"recap/{name}": getattr(episode, name) for name in OWN}
    row["recap/stages"] = np.asarray(episode.stages, bool).tolist()
    for name, array in columns.items():
        for statistic, x in statistics(array[steps]).items():
            row[f"stats/{name}/{statistic}"] = x
    return row

def statistics(array):
    """LeRobot's statistics of a column: over time, of images also over pixels, from 0 to 1.

    Returns {"min": nested lists, ...}, of the shape of a step; images (3, 1, 1).
    """
    n_steps = len(array)
    if is_image(array):
        some = array[:: math.ceil(n_steps / N_IMAGES)]  # LeRobot takes a sample, too
        x = (some / 255).reshape(-1, 3, 1, 1)
    else:
        x = array.reshape(n_steps, *(array.shape[1:] or (1,))).astype(float)
    found = {"min": x.min(0), "max": x.max(0), "mean": x.mean(0), "std": x.std(0)}
    for q in QUANTILES:
        found[f"q{round(100 * q):02d}"] = np.quantile(x, q, axis=0)
    found = {name: values.tolist() for name, values in found.items()}
    return found | {"count": [n_steps]}

def write_texts(texts, kind, meta):
    """meta/tasks.parquet or meta/subtasks.parquet.  kind: "task" or "subtask".

    LeRobot reads it with pandas and expects the texts as its index: the schema says so.
    """
    index = f"{kind}_index"
    table = pa.table({index: np.arange(len(texts)), kind: pa.array(texts.tolist())})
    described = [
        {"name": index, "field_name": index, "pandas_type": "int64", "numpy_type": "int64"},
        {"name": kind, "field_name": kind, "pandas_type": "unicode", "numpy_type": "object"},
    ]
    about = {"index_columns": [kind], "column_indexes": [], "columns": described}
    about["pandas_version"] = "1.0"
    table = table.replace_schema_metadata({"pandas": json.dumps(about)})
    pq.write_table(table, os.path.join(meta, f"{kind}s.parquet"))
