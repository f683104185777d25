"""Every verb of a tiny untrained world, from the command line: files that read back, and messages for what cannot be."""

import errno
import json
import re

import av
import numpy as np
import pytest
from PIL import Image

from launch.command import status
from launch.sample import VERBS, main
from wsm_jax.models.wave_bridge import style
from wsm_jax.snapshot import FIELDS, waves
from wsm_jax.snapshot.waves import empty
from wsm_jax.visualise.video import write_video
from wsm_jax.world import World

TEXT = "--text=a red ball"


def sizes(path) -> list[tuple[int, int]]:
    with av.open(str(path)) as container:
        return [(frame.height, frame.width) for frame in container.decode(video=0)]


@pytest.fixture(scope="module")
def world(tiny_workdir) -> World:
    return World.load(tiny_workdir)


@pytest.fixture
def run(capsys, tiny_workdir, world, monkeypatch):
    """Runs a verb on the tiny world, which is read from disk once; returns (exit code, stdout, stderr)."""
    monkeypatch.setattr("launch.files.open_world", {str(tiny_workdir): world}.__getitem__)

    def go(verb: str, *arguments: object) -> tuple[int, str, str]:
        code = status(main, [verb, f"--workdir={tiny_workdir}", *map(str, arguments)])
        out, err = capsys.readouterr()
        return code, out, err

    return go


@pytest.fixture(scope="module")
def made(tiny_workdir, tmp_path_factory):
    """A folder with core.json (8 ticks, 4 slots), a style for it and video.mp4 (12 frames at 8 Hz)."""
    folder = tmp_path_factory.mktemp("made")
    assert status(main, ["imagine", f"--workdir={tiny_workdir}", TEXT, f"--out={folder / 'core.json'}"]) == 0
    core, _ = waves.load(folder / "core.json")
    fields = {name: np.array(getattr(core, name)) for name in FIELDS}
    fields["presence"][:] = 1.0
    waves.save(waves.Waves(**fields), folder / "core.json", np.arange(8) / 8)
    pictures = np.random.default_rng(0).integers(0, 256, (12, 4, 6, 3), np.uint8).repeat(8, 1).repeat(8, 2)
    write_video(folder / "video.mp4", pictures, 8)
    return folder


def same(a: waves.Waves, b: waves.Waves, slots: slice | list = slice(None)) -> bool:
    return all(np.array_equal(np.asarray(getattr(a, n))[:, slots], np.asarray(getattr(b, n))[:, slots]) for n in FIELDS)


def test_imagine_writes_a_core_and_its_video(run, tmp_path):
    film = ("--size=16x24", "--fps=8", "--camera=orbit")
    code, out, err = run("imagine", TEXT, "--seconds=1.5", f"--out={tmp_path}/a.json", f"--video={tmp_path}/a.mp4", *film)
    assert (code, err) == (0, "")
    assert "12 ticks" in out
    core, time = waves.load(tmp_path / "a.json")
    assert core.presence.shape == (12, 4)
    np.testing.assert_allclose(time, np.arange(12) / 8)
    assert sizes(tmp_path / "a.mp4") == [(16, 24)] * 12


def test_a_seed_is_a_world(run, tmp_path):
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        assert run("imagine", TEXT, f"--seed={seed}", f"--out={tmp_path}/{name}.json")[0] == 0
    a, b, c = ((tmp_path / f"{name}.json").read_text() for name in "abc")
    assert a == b != c


def test_describe_prints_the_text_alone(run, made, world):
    code, out, err = run("describe", f"--core={made}/core.json", "--seed=1")
    core, _ = waves.load(made / "core.json")
    assert (code, out, err) == (0, world.describe(core, 1) + "\n", "")


def test_continue_and_rewind_keep_what_was(run, made, tmp_path):
    before, _ = waves.load(made / "core.json")
    for verb, told in (("continue", [TEXT]), ("rewind", [])):
        assert run(verb, f"--core={made}/core.json", "--seconds=0.75", f"--out={tmp_path}/{verb}.json", *told)[0] == 0
        after, _ = waves.load(tmp_path / f"{verb}.json")
        assert after.presence.shape == (14, 4)
        assert same(after[:8] if verb == "continue" else after[-8:], before)
        assert not same(after[:8] if verb == "rewind" else after[-8:], before)


def test_edit_by_number_samples_nothing(run, made, tmp_path):
    before, _ = waves.load(made / "core.json")
    arguments = ("--set=2.colour=0.1,0.2,0.9", "--set=1.presence=0", f"--core={made}/core.json", f"--out={tmp_path}/e.json")
    assert run("edit", *arguments)[0] == 0
    after, _ = waves.load(tmp_path / "e.json")
    assert same(after, before, [0, 3])
    np.testing.assert_allclose(after.colour[:, 2], np.float32([[0.1, 0.2, 0.9]] * 8))
    assert (np.asarray(after.presence)[:, 1] == 0).all()


def test_edit_by_text_keeps_the_slots_that_are_kept(run, made, tmp_path):
    before, _ = waves.load(made / "core.json")
    arguments = ("--keep=0,2", TEXT, "--set=2.colour=blue", f"--core={made}/core.json", f"--out={tmp_path}/e.json")
    assert run("edit", *arguments)[0] == 0
    after, _ = waves.load(tmp_path / "e.json")
    assert same(after, before, [0])
    np.testing.assert_allclose(after.colour[:, 2], np.float32([waves.COLOURS["blue"]] * 8))
    assert not same(after, before, [1])


def test_perceive_writes_core_style_and_channels_and_render_reads_them(run, made, tmp_path):
    core, code_path, channels = (tmp_path / name for name in ("p.json", "s.json", "c.mp4"))
    code, out, err = run(
        "perceive", f"--video={made}/video.mp4", f"--out={core}", f"--style={code_path}", f"--channels={channels}"
    )
    assert (code, err) == (0, "")
    assert len(out.splitlines()) == 3
    seen, _ = waves.load(core)
    assert seen.presence.shape == (12, 4)
    assert style.load(code_path).waves.shape == (4, 8)
    assert len(sizes(channels)) == 12
    film = tmp_path / "r.mp4"
    assert run("render", f"--core={core}", f"--style={code_path}", f"--out={film}", "--size=16x16", "--fps=4")[0] == 0
    assert sizes(film) == [(16, 16)] * 6


def test_perceive_reads_a_folder_of_frames(run, tmp_path):
    frames = tmp_path / "frames"
    frames.mkdir()
    for index in range(4):
        Image.new("RGB", (20, 20), (60 * index, 90, 30)).save(frames / f"{index}.png")
    code, _, err = run("perceive", f"--video={frames}", "--folder-fps=4", f"--out={tmp_path}/p.json")
    assert (code, err) == (0, "")
    assert waves.load(tmp_path / "p.json")[0].presence.shape == (7, 4)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("imagine --text= --out=x.json", "needed --text"),
        ("imagine --text=_ --out=x.json", "--text.*is empty"),
        ("imagine --text=zzzzzzzzzzzzzzzzzzzzzzzzzz --out=x.json", "--text: the text takes 26 tokens, at most 16 fit"),
        ("imagine --text=ball --out=x.json --seconds=-1", "--seconds=-1; needed a time above 0"),
        ("imagine --text=ball --out=x.json --seconds=nan", "--seconds=nan"),
        ("imagine --text=ball --out=x.json --seconds=inf", "--seconds=inf"),
        ("imagine --text=ball --out=x.json --seconds=long", "seconds"),
        ("imagine --text=ball --out=x.mp4", r"--out=x\.mp4; needed a name that ends in \.json"),
        ("imagine --text=ball --out=nowhere/x.json", "--out=nowhere/x.json: nowhere is no folder"),
        ("imagine --text=ball --out=folder.json", r"--out=folder\.json: is a folder"),
        (
            "imagine --text=ball --out=x.json --video=x.mp4 --size=3x16",
            "--size=3x16; .* at least 4 pixels",
        ),
        ("imagine --text=ball --out=x.json --video=x.mp4 --size=16", "--size=16; needed HEIGHTxWIDTH"),
        ("imagine --text=ball --out=x.json --video=x.mp4 --size=0x16", "--size=0x16"),
        ("imagine --text=ball --out=x.json --video=x.webm", r"--video=x\.webm; needed a name that ends in \.mp4"),
        ("imagine --text=ball --out=x.json --camera=zoom", "--camera=zoom; needed still or orbit"),
        ("imagine --text=ball --out=x.json --seed=-1", "seed"),
        ("imagine --text=ball --out=x.json --speed=3", "--seconds"),
        ("imagine --text=ball --out=x.json more", r"\['more'\]; needed only flags"),
        ("imagine --text=ball", "needed --out"),
        ("render --core=core.json --out=x.mp4 --fps=0", "--fps=0; needed frames a second above 0"),
        ("render --core=core.json --out=x.mp4 --size=2x18", "--size=2x18"),
        ("render --core=absent.json --out=x.mp4", r"absent\.json: no such core file"),
        ("render --core=three.json --out=x.mp4", r"three\.json: a core with 3 slots; this world was trained with 4"),
        ("render --core=note.txt --out=x.mp4", r"note\.txt: not JSON"),
        ("render --core=instant.json --out=x.mp4", r"instant\.json: .*\(4,\); needed \(ticks, waves\)"),
        ("render --core=slow.json --out=x.mp4", r"slow\.json: its ticks are not 1/8 s apart"),
        ("render --core=core.json --style=core.json --out=x.mp4", r"core\.json: no style"),
        ("render --core=core.json --style=style.json --out=x.mp4", r"style\.json: codes of shapes \(2, 8\).*needs \(\(4, 8\)"),
        ("render --core=core.json --style=absent.json --out=x.mp4", r"absent\.json: no such style file"),
        ("perceive --video=absent.mp4 --out=x.json", r"absent\.mp4"),
        ("perceive --video=note.txt --out=x.json", r"note\.txt"),
        ("perceive --video=one.mp4 --out=x.json", r"one\.mp4: has 1 frame"),
        ("perceive --video=short.mp4 --out=x.json", r"short\.mp4: has 1 frame at 8 Hz"),
        ("perceive --video=cut.mp4 --out=x.json", r"cut\.mp4"),
        ("perceive --video=pictures --out=x.json", "pictures: a folder of frames has no times"),
        ("perceive --video=video.mp4 --out=x.json --fps=30", r"video\.mp4: has 8 frames a second; needed at least the 30"),
        ("perceive --video=video.mp4 --out=x.json --fps=-3", "--fps=-3"),
        ("perceive --video=video.mp4 --out=x.json --seconds=9", r"video\.mp4: lasts 1\.5"),
        ("perceive --video=video.mp4 --out=x.json --style=x.json", r"both x\.json"),
        ("perceive --video=video.mp4 --out=x.json --channels=x.json", r"--channels=x\.json"),
        ("describe --core=three.json", r"three\.json: a core with 3 slots"),
        ("describe", "needed --core"),
        ("continue --core=core.json --seconds=-2 --out=x.json", "--seconds=-2"),
        ("continue --core=core.json --out=x.json", "needed --seconds"),
        ("continue --core=core.json --seconds=1 --text=_ --out=x.json", "--text.*is empty"),
        ("rewind --core=core.json --seconds=0 --out=x.json", "--seconds=0"),
        ("rewind --core=three.json --seconds=1 --out=x.json", "3 slots"),
        ("edit --core=core.json --out=x.json", "nothing to do"),
        ("edit --core=core.json --out=x.json --keep=0", "--keep without --text"),
        ("edit --core=core.json --out=x.json --keep=9 --text=ball", r"--keep=9: 9; core\.json has the slots 0\.\.3"),
        ("edit --core=core.json --out=x.json --keep=a --text=ball", "--keep=a"),
        ("edit --core=core.json --out=x.json --keep=0 --text=ball --set=1.presence=0", r"\[1\], which are sampled anew"),
        ("edit --core=core.json --out=x.json --set=7.presence=0", r"--set=7\.presence: core\.json has the slots 0\.\.3"),
        ("edit --core=core.json --out=x.json --set=1.presence=2", r"--set=1\.presence=2: got 2; presence lies in 0\.\.1"),
        ("edit --core=long.json --out=x.json --keep=0 --text=ball", r"long\.json: has 9 ticks.*at most 8"),
    ],
)
def test_what_cannot_be_is_named_and_nothing_is_written(run, bad, monkeypatch, arguments, said):
    monkeypatch.chdir(bad)
    before = sorted(bad.rglob("*"))
    code, out, err = run(*(part.replace("=_", "= ") for part in arguments.split(" ")))
    assert (code, out) == (2, "")
    assert err.startswith("error: ")
    assert "Traceback" not in err
    assert re.search(said, " ".join(err.split())), err
    assert sorted(bad.rglob("*")) == before


@pytest.fixture(scope="module")
def bad(made, tmp_path_factory):
    """What the cases above name: core.json and video.mp4 are good, the others each have a defect."""
    folder = tmp_path_factory.mktemp("bad")
    for name in ("core.json", "video.mp4"):
        (folder / name).write_bytes((made / name).read_bytes())
    waves.save(empty(3, (8,)), folder / "three.json")
    waves.save(empty(4), folder / "instant.json")
    waves.save(empty(4, (9,)), folder / "long.json")
    waves.save(empty(4, (3,)), folder / "slow.json", np.arange(3) / 4)
    (folder / "style.json").write_text(style.to_json(style.Style(np.zeros((2, 8), np.float32), np.zeros(8, np.float32))))
    (folder / "note.txt").write_text("no video, no core")
    (folder / "cut.mp4").write_bytes((made / "video.mp4").read_bytes()[:-600])
    pictures = np.random.default_rng(0).integers(0, 256, (2, 16, 16, 3), np.uint8)
    write_video(folder / "one.mp4", pictures[:1], 8)
    write_video(folder / "short.mp4", pictures, 30)
    (folder / "folder.json").mkdir()
    (folder / "pictures").mkdir()
    for index in range(2):
        Image.fromarray(pictures[index]).save(folder / "pictures" / f"{index}.png")
    return folder


def test_an_unknown_verb_is_told_the_verbs(capsys):
    for arguments, got in ((["paint"], "'paint'"), ([], "nothing")):
        assert status(main, arguments) == 2
        err = capsys.readouterr().err
        assert all(word in err for word in (got, *VERBS))


@pytest.mark.parametrize("verb", VERBS)
def test_help_lists_the_flags(verb, capsys):
    assert status(main, [verb, "--help"]) == 0
    assert "--workdir" in capsys.readouterr().out


def test_a_workdir_without_a_world_is_named(tmp_path, capsys):
    empty_folder = tmp_path / "empty"
    empty_folder.mkdir()
    for workdir, said in (
        (tmp_path / "absent", "no such workdir"),
        (empty_folder, "no checkpoint there or in a folder of a stage"),
    ):
        assert status(main, ["imagine", f"--workdir={workdir}", TEXT, f"--out={tmp_path}/x.json"]) == 2
        err = capsys.readouterr().err
        assert str(workdir) in err
        assert said in err
    assert list(tmp_path.iterdir()) == [empty_folder]
    assert list(empty_folder.iterdir()) == []


def test_a_workdir_without_checkpoints_is_named(tmp_path, tiny_workdir, capsys):
    (tmp_path / "bridge").mkdir()
    config = json.loads((tiny_workdir / "bridge" / "config.json").read_text())
    (tmp_path / "bridge" / "config.json").write_text(json.dumps(config))
    assert status(main, ["imagine", f"--workdir={tmp_path}", TEXT, f"--out={tmp_path}/x.json"]) == 2
    assert "no checkpoint there or in a folder of a stage" in capsys.readouterr().err
    assert not (tmp_path / "x.json").exists()


def test_a_full_disk_leaves_nothing_half_written(run, made, tmp_path, monkeypatch):
    def full(self, *_):
        raise OSError(errno.ENOSPC, "No space left on device", str(self))

    arguments = ("edit", f"--core={made}/core.json", "--set=0.presence=0", f"--out={tmp_path}/x.json")
    with monkeypatch.context() as patched:
        patched.setattr("pathlib.Path.replace", full)
        code, out, err = run(*arguments)
    assert (code, out) == (2, "")
    assert "No space left on device" in err
    assert list(tmp_path.iterdir()) == []
