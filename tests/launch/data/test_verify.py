"""Damaged and stray files are found."""

import pytest


@pytest.mark.parametrize("flag", ["", "--data="])
def test_damaged_and_stray_files_are_problems(run, captioned, flag):
    code, out, err = run("verify", f"{flag}{captioned}", "--noprogress")
    assert (code, out, err) == (0, f"{captioned}: sound\n", "")
    damaged = next((captioned / "channels" / "rgb_jpeg" / "bytes").iterdir())
    data = bytearray(damaged.read_bytes())
    data[len(data) // 2] ^= 1
    damaged.write_bytes(data)
    (captioned / "stray.txt").write_text("x")
    code, out, err = run("verify", f"{flag}{captioned}", "--noprogress")
    assert (code, err) == (1, "")
    assert len(out.splitlines()) == 2
    assert str(damaged) in out
    assert "stray.txt" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["verify", "nowhere"], "no WSV dataset here"),
        (["verify", "newer"], "schema version 3"),
        (["verify"], "got 0 datasets []; needed one, as python -m launch.data verify PATH or python -m"),
        (["verify", "a", "b"], "got 2 datasets"),
    ],
)
def test_bad_command_lines(assert_usage_error, arguments, message):
    assert_usage_error(arguments, message)
