# SPDX-License-Identifier: GPL-2.0-or-later
"""What is made of recordings and benches: pictures, one-file pages, a comparison; and the command."""

from __future__ import annotations

import json
import os
import re
import signal
import stat
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from PIL import Image

from multiroot.bench import names
from multiroot.cli.lab_ui import ui
from multiroot.errors import BadRequestError
from multiroot.page import bundle, comparison, living, picture
from multiroot.watch.events import Change, State, to_json
from multiroot.watch.recording import Recording
from multiroot.watch.view import View

SAMPLE = Path(__file__).parents[1] / "watch/sample.mrlog"


def bench(folder: Path, name: str, **medians: float) -> None:
    """A run that measured these; names have "_" for "-"."""
    summary = {key.replace("_", "-"): {"blackout_ns": {"median": value}} for key, value in medians.items()}
    (folder / name).mkdir(parents=True)
    data = {"header": {"started": f"of {name}"}, "summary": summary}
    (folder / name / "summary.json").write_text(json.dumps(data))


def test_the_comparison_is_of_the_newest_run_that_measured_both(tmp_path: Path) -> None:
    bench(tmp_path, "1-handoff", multi_root=1e7, kexec_pmem=1e10)
    bench(tmp_path, "2-handoff", multi_root=5e7, kexec_pmem=2e10, in_place=4e7)
    bench(tmp_path, "3-handoff", multi_root=5e7, in_place=4e7)
    (tmp_path / "4-handoff").mkdir()
    bench(tmp_path, "5-handoff", kexec_pmem=2e10)
    assert comparison.newest(tmp_path) == {"ours_ns": 5e7, "kexec_ns": 2e10, "started": "of 2-handoff"}
    assert {names.OURS, names.KEXEC} == {"multi-root", "kexec-pmem"}


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"summary":[]}', '{"summary":{"multi-root":null}}', "\xff"]
)
def test_without_such_a_run_there_is_no_figure(tmp_path: Path, text: str) -> None:
    assert comparison.newest(tmp_path / "none") == {}
    (tmp_path / "run").mkdir()
    (tmp_path / "run/summary.json").write_bytes(text.encode("latin-1"))
    assert comparison.newest(tmp_path) == {}


def test_kinds_of_vm_are_one_contender(tmp_path: Path) -> None:
    summary = {
        f"{contender}, {kind}": {"blackout_ns": {"median": value}}
        for contender, value in ((names.OURS, 10.0), (names.KEXEC, 1000.0))
        for kind in ("128 MiB", "1 GiB")
    }
    (tmp_path / "run").mkdir()
    (tmp_path / "run/summary.json").write_text(json.dumps({"header": {"started": ""}, "summary": summary}))
    assert comparison.newest(tmp_path)["kexec_ns"] == 1000.0


def test_nothing_in_a_recording_can_end_its_element(tmp_path: Path) -> None:
    events = [json.dumps({"at": 1, "state": {"x": "</script><script>1</script><!--"}})]
    path = tmp_path / "evil.mrlog"
    path.write_text("\n".join(['{"mrlog":1}', *events]) + "\n")
    text = bundle.bundle(Recording(path))
    assert len(re.findall(r"</script>", text)) == len(re.findall(r"<script[ >]", text)) == 4
    assert "<!--" not in text.partition("</head>")[0].partition("-->")[2]


def test_every_module_of_the_page_is_in_the_one_file(tmp_path: Path) -> None:
    text = bundle.bundle(Recording(SAMPLE))
    imports: dict[str, Any] = json.loads(re.findall(r'<script type="importmap">(.*?)</script>', text)[0])
    assert set(imports["imports"]) == {f"page/{path.stem}" for path in bundle.STATIC.glob("*.js")}


def test_a_damaged_recording_makes_no_page(tmp_path: Path) -> None:
    path = tmp_path / "bad.mrlog"
    path.write_text('{"mrlog":1}\n{"at":1,"say":"no state"}\n')
    with pytest.raises(BadRequestError, match="damaged"):
        bundle.bundle(Recording(path))
    with pytest.raises(BadRequestError, match="cannot write"):
        bundle.write(Recording(SAMPLE), tmp_path / "none/x.html")


def test_pictures_are_taken_when_something_can_be_seen() -> None:
    times = picture.moments(Recording(SAMPLE))
    events = list(Recording(SAMPLE).events())
    first = events[0].at
    owner = next(
        each.at for each in events if isinstance(each, Change) and '"owner": 2' in json.dumps(each.patch)
    )
    assert times == sorted(times)
    assert (owner - first) / 1e9 in times
    assert len(times) < 30


@pytest.mark.parametrize("kind", picture.KINDS)
def test_alike_frames_of_a_picture_are_one(tmp_path: Path, kind: str) -> None:
    frames = [Image.new("RGB", (40, 20), colour) for colour in ("red", "red", "blue", "red")]
    picture.save(frames, [100, 200, 300, 400], tmp_path / f"x{kind}")
    with Image.open(tmp_path / f"x{kind}") as made:
        assert made.n_frames == 3
        stands = []
        for number in range(made.n_frames):
            made.seek(number)
            made.load()
            stands.append(made.info["duration"])
        assert stands == [300, 300, 400]
        assert made.info["loop"] == 0


def test_the_page_in_the_documentation_is_this_page() -> None:
    docs = Path(__file__).parents[3] / "docs"
    made = bundle.bundle(Recording(docs / "run.mrlog"))
    if (docs / "run.html").read_text() != made:  # both are too long to be shown
        pytest.fail("it is old: python -m multiroot.page.bundle docs/run.mrlog docs/run.html")


def test_a_picture_of_another_kind_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadRequestError, match="no animated picture"):
        picture.write(Recording(SAMPLE), tmp_path / "x.jpg")


def test_a_picture_of_the_real_page_moves(tmp_path: Path) -> None:
    try:
        picture.chromium()
    except BadRequestError as error:
        pytest.skip(str(error))
    # Two moments of the sample: the VM in the old root, with the new one beside it, and in the new one.
    view = View()
    for event in Recording(SAMPLE).events():
        if isinstance(event, Change) and "owner" in ((event.patch.get("vms") or {}).get("vm0") or {}):
            break
        view.apply(event)
    assert len(view.facts.roots) == 2
    state = State(view.at, view.document)
    crossing = Change(view.at + 2_000_000_000, {"vms": {"vm0": {"owner": 2, "epoch": 2}}})
    recording = tmp_path / "short.mrlog"
    head = SAMPLE.read_text().splitlines()[0]
    recording.write_text("\n".join([head, *(json.dumps(to_json(each)) for each in (state, crossing))]) + "\n")
    out = tmp_path / "run.webp"
    picture.write(Recording(recording), out)
    with Image.open(out) as made:
        assert made.size == (picture.WIDTH, picture.HEIGHT)
        # Each of the slide's ten differs from the one before, and so does what stands before and after it.
        assert made.n_frames >= 11


@pytest.mark.parametrize("option", ["--export", "--picture"])
def test_what_is_made_of_a_recording_needs_one(tmp_path: Path, option: str) -> None:
    done = CliRunner().invoke(ui, [option, str(tmp_path / "x.webp")])
    assert done.exit_code == 2
    assert "--replay FILE" in done.output


def test_the_token_is_its_owners_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    first = living.token("a")
    assert living.token("a") == first != living.token("b")
    assert stat.S_IMODE(living.token_file("a").stat().st_mode) == 0o600
    assert len(first) >= 32


def test_the_command_serves_a_lab_that_is_yet_to_come(tmp_path_factory: pytest.TempPathFactory) -> None:
    # A name that is short enough for a lab's sockets.
    state = tmp_path_factory.mktemp("s")
    words = [sys.executable, "-m", "multiroot.cli.main", "lab", "ui", "--name", "later", "--port", "0"]
    env = {**os.environ, "XDG_STATE_HOME": str(state)}
    with subprocess.Popen(
        words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        address = process.stdout.readline().strip()
        assert address.startswith("http"), process.stderr.read()
        base, _, token = address.partition("#token=")
        with urllib.request.urlopen(f"{base}mode", timeout=60) as answer:
            assert json.loads(answer.read()) == {"replay": False, "lab": "later"}
        request = urllib.request.Request(f"{base}actions", headers={"Multiroot-Token": token})
        with urllib.request.urlopen(request, timeout=60) as answer:
            assert json.loads(answer.read())["may_act"] is True
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0
        assert process.stderr.read() == ""
