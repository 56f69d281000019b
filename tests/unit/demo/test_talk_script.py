# SPDX-License-Identifier: GPL-2.0-or-later
"""Scripts of talks: the sample, and each thing that a script can have wrong in one line."""

from __future__ import annotations

from pathlib import Path

import pytest

from multiroot.demo import talk_script
from multiroot.errors import BadRequestError

SAMPLE = Path(__file__).parents[3] / talk_script.SAMPLE


def test_the_sample_is_a_talk_with_a_crash() -> None:
    talk = talk_script.read(SAMPLE)
    assert [part.do for part in talk.step if part.do] == [
        *("launch", "crash", "abort", "launch", "handoff", "back", "handoff", "retire"),
    ]
    assert talk.kernels == ("7.x",)
    assert talk.vm_memory == 256 << 20


def script(*deeds: str, **more: str) -> str:
    head = "".join(f"{key} = {value}\n" for key, value in more.items())
    return head + "".join(f'[[step]]\ndo = "{deed}"\n' for deed in deeds)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "step is missing"),
        ("step = []", "step must hold at least 1"),
        (script("dance"), "step.0.do must be '', 'launch', "),
        (script("handoff"), "step 1: handoff needs a new root"),
        (script("launch", "launch"), "step 2: launch needs a machine with one root"),
        (script("launch", "handoff", "handoff"), "step 3: the VMs are in the new root already"),
        (script("launch", "back"), "step 2: no VM is in the new root"),
        (script("launch", "handoff", "crash"), "step 3: the new root has the VMs"),
        (script("launch", "crash", "handoff"), "step 3: the new root has crashed"),
        (script("launch", "handoff", "next"), "step 3: next needs a machine with one root"),
        (script("launch", vms="0"), "vms must be at least 1"),
        (script("launch", vm_memory='"lots"'), "vm_memory: not a size"),
        (script("launch", talk="1"), "talk is no key here"),
        ('[[step]]\nsay = "x"\nkernel = "6.1"\n', "step 1: only launch and next start a kernel"),
        ("[[step]]\nwait = -1\n", "step.0.wait must be at least 0"),
        ("[[step]\n", "is not valid TOML"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "talk.toml"
    path.write_text(text)
    with pytest.raises(BadRequestError) as caught:
        talk_script.read(path)
    assert message in str(caught.value)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(BadRequestError, match=r"talk\.toml is a talk to begin with"):
        talk_script.read(tmp_path / "none.toml")


def test_kernels_are_those_that_are_started(tmp_path: Path) -> None:
    path = tmp_path / "talk.toml"
    path.write_text(
        'new_kernel = "6.1"\n' + script("launch", "retire") + '[[step]]\ndo = "next"\nkernel = "7.x"\n'
    )
    assert talk_script.read(path).kernels == ("6.1", "7.x")
