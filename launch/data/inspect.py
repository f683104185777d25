"""`launch.data inspect`: the contents of a dataset as a table, a picture or a page."""

from pathlib import Path

from absl import flags

from launch.command import Usage
from launch.data.dataset_flag import parse_dataset
from launch.files import output, write_picture
from wsm_jax.files import write_file

COMMAND = "python -m launch.data inspect"


def inspect(arguments: list[str]) -> int:
    """Print the contents of a dataset or collection; with --out or --html, also show some clips."""
    values = flags.FlagValues()
    flags.DEFINE_string("out", None, "picture (.png) to write: all channels of some clips", flag_values=values)
    flags.DEFINE_string("html", None, "page (.html) to write: pictures, captions, rejected recordings", flag_values=values)
    flags.DEFINE_integer("clips", 3, "number of clips to show", lower_bound=1, flag_values=values)
    flags.DEFINE_integer("frames", 8, "frames to show of each clip", lower_bound=1, flag_values=values)
    flags.DEFINE_integer("tile", 96, "minimum height of a picture, pixels", lower_bound=1, flag_values=values)
    flags.DEFINE_integer("rejected", 500, "maximum rows of rejected recordings on the page", lower_bound=0, flag_values=values)
    path = parse_dataset(COMMAND, values, arguments)[0]
    if values.out and Path(values.out).suffix != ".png":
        raise Usage(f"--out={values.out}; needed a name that ends in .png")
    page = None if values.html is None else output(values.html, ".html", "--html")

    from data_pipelines.wsv import Dataset, collection
    from data_pipelines.wsv.folder import Folder
    from launch.data.contact_sheet import contact_sheet
    from launch.data.page import dataset_page
    from launch.data.table import table

    datasets = [Dataset(part) for part in collection.datasets(Folder(path))]
    print("\n\n".join(table(dataset) for dataset in datasets))
    if values.out:
        if len(datasets) > 1:
            raise Usage(f"--out={values.out}: {path} is a collection of {len(datasets)}; name one of them, or use --html")
        write_picture(Path(values.out), contact_sheet(datasets[0], values.clips, values.frames, values.tile))
        print(f"\n{values.out}: a picture of {min(values.clips, len(datasets[0]))} clips")
    if page is not None:
        title = Path(path).name
        write_file(page, dataset_page(title, datasets, values.clips, values.frames, values.tile, values.rejected))
        print(f"\n{page}: a page of {len(datasets)} dataset{'s' * (len(datasets) > 1)}")
    return 0
