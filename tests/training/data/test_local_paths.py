"""Data sets open local files only: nothing with a scheme is followed, whatever the way in."""

from __future__ import annotations

import json
import os
import socket
import threading

import datasets
import pytest

from helpers import picture
from wallaroo_hf.training.data.local_paths import has_scheme, local_path
from wallaroo_hf.training.data.training_rows import RowError
from wallaroo_hf.training.datasets import load_rows
from wallaroo_hf.training.pictures import open_picture
from wallaroo_hf.training.run import load_training_data
from wallaroo_hf.training.sources import read_data_config


@pytest.fixture
def port():
    """A server on this machine, and a test that fails if anyone calls."""
    called = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.2)
        stop = threading.Event()

        def wait():
            while not stop.is_set():
                try:
                    server.accept()[0].close()
                    called.set()
                except TimeoutError:
                    continue

        thread = threading.Thread(target=wait)
        thread.start()
        yield server.getsockname()[1]
        stop.set()
        thread.join()
    assert not called.is_set()


SCHEMES = [
    "http://127.0.0.1:{port}/x",
    "HTTPS://127.0.0.1:{port}/x",
    "ftp://127.0.0.1:{port}/x::/var",
    "ftp://a:b@127.0.0.1:{port}/x",
    "zip://x::https://127.0.0.1:{port}/a.zip",
    "zip://x::{folder}/a.zip",
    "simplecache::http://127.0.0.1:{port}/x",
    "x::ftp://127.0.0.1:{port}/x",
    "hf://datasets/a/b/x",
    "s3://bucket/x",
    "sftp://127.0.0.1:{port}/x",
    "file:///etc/x",
    "file://127.0.0.1/{folder}/x",
    "file://{folder}/../x",
    "memory://x",
    "local:///etc/x",
    "http:/127.0.0.1:{port}/x",
]


@pytest.mark.parametrize("url", SCHEMES)
def test_no_way_in_follows_a_scheme(tmp_path, port, url):
    url = url.format(port=port, folder=tmp_path)
    assert has_scheme(url)
    words = "a URL, but data sets open local files only|leads out of the data's folder"
    for ending in (".jsonl", ".parquet", ".tar", "/*.jsonl", "", ".yaml"):
        with pytest.raises(ValueError, match=words):
            load_training_data(url + ending)
        with pytest.raises(ValueError, match=words):
            load_rows(url + ending)
    (tmp_path / "a.png").write_bytes(b"")
    (tmp_path / "train.jsonl").write_text(json.dumps({"image": f"{url}.png", "caption": "a"}))
    with pytest.raises(ValueError, match=words):
        load_rows(tmp_path / "train.jsonl", image_folder=url)
    for key, entry in (("path", {"path": url}), ("image_folder", {"path": "train.jsonl", "image_folder": url})):
        (tmp_path / "data.yaml").write_text(json.dumps([entry]))
        with pytest.raises(ValueError, match=f"The `{key}` in entry 1 of '.*data.yaml', .*({words})"):
            load_training_data(str(tmp_path / "data.yaml"))
    datasets.Dataset.from_list([{"image": f"{url}.png", "caption": "a"}]).to_parquet(tmp_path / "a.parquet")
    images = datasets.Dataset.from_list([{"image": {"bytes": None, "path": f"{url}.png"}, "caption": "a"}])
    images = images.cast_column("image", datasets.Image())
    for source in (tmp_path / "train.jsonl", tmp_path / "a.parquet", images):
        for options in ({}, {"streaming": True}) if source is not images else ({},):
            (row,) = load_rows(source, **options)
            assert row["error"].startswith("Its image 'http" if url.startswith("http") else "Its image '"), source
    with pytest.raises(RowError, match=words) as error:
        open_picture(f"{url}.png")
    assert error.value.reason == "missing_image"


def test_folders_called_like_a_url_open_nothing(tmp_path, port, monkeypatch):
    """`os.path` takes two slashes for one, the packages behind us for a host."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "http:" / f"127.0.0.1:{port}"
    folder.mkdir(parents=True)
    datasets.Dataset.from_list([{"question": "a", "answer": "b"}]).to_parquet(folder / "a.parquet")
    assert os.path.isfile(f"http://127.0.0.1:{port}/a.parquet")
    with pytest.raises(ValueError, match="local files only"):
        load_rows(f"http://127.0.0.1:{port}/a.parquet")
    assert len(load_rows(str(folder / "a.parquet"))) == 1
    assert len(load_rows(f"./http:/127.0.0.1:{port}/a.parquet")) == 1


def test_file_urls_lead_into_the_folder_of_the_data(tmp_path):
    data = tmp_path / "data of mine"
    (data / "pictures").mkdir(parents=True)
    picture(1).save(data / "pictures" / "a.png")
    picture(1).save(tmp_path / "secret.png")
    (data / "link.png").symlink_to(tmp_path / "secret.png")
    inside = (data / "pictures" / "a.png").as_uri()
    urls = [inside, (data / "link.png").as_uri(), (tmp_path / "secret.png").as_uri(), f"{data.as_uri()}/../secret.png"]
    assert "%20" in inside
    (data / "train.jsonl").write_text("\n".join(json.dumps({"image": url, "caption": "a"}) for url in urls))
    (data / "data.yaml").write_text(json.dumps([{"path": (data / "train.jsonl").as_uri(), "task": "generation"}]))
    sources, _ = load_training_data(str(data / "data.yaml"))
    first, *others = sources["generation"][0].rows
    assert first["images"] == [str(data / "pictures" / "a.png")]
    assert open_picture(first["images"][0]).size == (128, 96)
    assert all("leads out of the data's folder" in row["error"] for row in others)
    (data / "data.yaml").write_text(json.dumps([{"path": (tmp_path / "train.jsonl").as_uri()}]))
    with pytest.raises(ValueError, match="leads out of the data's folder"):
        read_data_config(data / "data.yaml")


@pytest.mark.parametrize("path", ["a.png", "/a/b", "C:/pictures/a.png", "a: b.png", "12:30.png", "a::b.png", "~/a"])
def test_names_with_colons_are_no_schemes(path):
    assert not has_scheme(path)
    assert local_path(path) == path


@pytest.mark.parametrize(
    "card",
    [
        "configs:\n- config_name: a\n  data_files: ftp://127.0.0.1/x.csv::/var\n",
        "configs:\n- config_name: a\n  data_files:\n  - split: train\n    path: ['a.csv', 'https://example.com/a.csv']\n",
        "configs:\n- config_name: a\n  data_files: {train: /etc/passwd}\n",
        "configs:\n- config_name: a\n  data_dir: ../../somewhere\n",
    ],
)
def test_a_data_set_on_the_hub_names_its_own_files_only(tmp_path, monkeypatch, card):
    def download(name, file, repo_type):
        from huggingface_hub.errors import EntryNotFoundError

        assert (name, repo_type) == ("org/name", "dataset")
        if file != "README.md":
            raise EntryNotFoundError("none")
        (tmp_path / file).write_text(f"---\nlicense: mit\n{card}---\n# A data set\n")
        return str(tmp_path / file)

    opened = []
    monkeypatch.setattr("huggingface_hub.hf_hub_download", download)
    monkeypatch.setattr(datasets, "load_dataset", lambda *args, **kwargs: opened.append(args))
    with pytest.raises(ValueError, match=r"'org/name' names the file .*, which is not its own"):
        load_rows("org/name")
    assert not opened
