"""Export a model to ONNX, for programs that do not use JAX.

  fa-hific export-onnx -o lite-onnx
  fa-hific export-onnx --model models/demo -o demo-onnx

Writes a folder with the encoder and the decoder as ONNX models, for images of any height and width
in multiples of 64 pixels, and with the integers of entropy coding. docs/onnx.md shows how to decode
a .fahj file with them. Needs the package onnx: pip install 'fa-hific-jax[onnx]'
"""

import argparse
from pathlib import Path

from fa_hific_jax.cli import arguments, runtime
from fa_hific_jax.codec.shipped import model_to_use


def add_arguments(parser: argparse.ArgumentParser) -> None:
    arguments.add_model(parser)
    arguments.add_folder(parser, "DIR", "folder to write; it must be new or empty")


def run(args: argparse.Namespace) -> None:
    """Writes the folder and prints its content."""
    with runtime.orderly():
        from fa_hific_jax.codec.model_folder import load_model
        from fa_hific_jax.convert.onnx_networks import save_onnx

        output = Path(args.output)
        save_onnx(load_model(model_to_use(args.model)), output)
    for file in sorted(output.iterdir()):
        print(f"{file}  {file.stat().st_size / 1e6:.2f} MB")
