"""scikit-build-core, whose source distributions hold the modules of ../src as well, so that they build anywhere."""
import pathlib
import shutil

from scikit_build_core import build
from scikit_build_core.build import *  # noqa: F403

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent
SOURCE = HERE / "source"  # CMakeLists.txt takes it for the root where it is there
PARTS = ["cmake/WideloadLibrary.cmake", "src/base", "src/parallel", "src/eplb"]


def build_sdist(sdist_directory, config_settings=None):
    """As scikit-build-core's. From an unpacked source distribution the sources are those that it came with."""
    if not (ROOT / PARTS[0]).exists():
        return build.build_sdist(sdist_directory, config_settings)
    shutil.rmtree(SOURCE, ignore_errors=True)
    try:
        for part in PARTS:
            (SOURCE / part).parent.mkdir(parents=True, exist_ok=True)
            copy = shutil.copytree if (ROOT / part).is_dir() else shutil.copy
            copy(ROOT / part, SOURCE / part)
        return build.build_sdist(sdist_directory, config_settings)
    finally:
        shutil.rmtree(SOURCE, ignore_errors=True)
