"""python-tuf as an outside reader of a published repository: refreshes from the first root and downloads a target.

Usage: reader.py REPOSITORY STORE TARGET OUT. Prints the version of each top role. Exit 0 or 1.
"""
import pathlib
import sys

from tuf.api.exceptions import DownloadHTTPError
from tuf.ngclient import FetcherInterface, Updater


class Folder(FetcherInterface):
    """Reads the repository's folder as if it were served."""

    def _fetch(self, url):
        path = pathlib.Path(url.removeprefix("file://"))
        if not path.is_file():
            raise DownloadHTTPError(url, 404)
        yield path.read_bytes()


repository, store, target, out = sys.argv[1:]
updater = Updater(
    metadata_dir=store,
    metadata_base_url=f"file://{repository}/metadata/",
    target_base_url=f"file://{repository}/targets/",
    target_dir=out,
    fetcher=Folder(),
    bootstrap=pathlib.Path(repository, "metadata", "1.root.json").read_bytes(),
)
updater.refresh()
info = updater.get_targetinfo(target)
if info is None:
    sys.exit(f"{target}: not found")
print(updater.download_target(info, f"{out}/{target}"))
