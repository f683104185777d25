"""Films of labels for tests, made on the spot."""

from pathlib import Path

import av
import numpy as np


def label_film(path: Path, values: np.ndarray, codec: str, pixels: str, rate: int = 8) -> Path:
    """A film of grey or indexed pictures through PyAV alone; its palette is grey, as that of no codec's default."""
    with av.open(str(path), "w") as file:
        stream = file.add_stream(codec, rate=rate)
        stream.height, stream.width, stream.pix_fmt = *values.shape[1:], pixels
        for picture in values:
            if pixels == "pal8":
                frame = av.VideoFrame(*picture.shape[::-1], "pal8")
                rows = np.zeros((picture.shape[0], frame.planes[0].line_size), np.uint8)
                rows[:, : picture.shape[1]] = picture
                frame.planes[0].update(rows.tobytes())
                frame.planes[1].update(np.roll(np.arange(1024, dtype=np.uint32), 7).astype(np.uint8).tobytes())
            else:
                dtype = np.uint8 if pixels == "gray" else np.uint16
                frame = av.VideoFrame.from_ndarray(picture.astype(dtype), format=pixels)
            file.mux(stream.encode(frame))
        file.mux(stream.encode())
    return path
