"""Compile batch norm's Triton kernels for GPUs that need not be there, and say what each became: a script."""

import sys

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from tune_cure.gradients.batch_norm_triton import _derivatives_kernel, _sum_kernel

IMAGES = ("direction", "grad_output", "images", "to_grad_output", "to_images")
NUMBERS = ("num_rows", "num_channels")
BLOCKS = {"block_rows": 32, "block_channels": 64, "blocks_each": 4}


def compiled(kernel: triton.JITFunction, data_type: str, capability: int) -> triton.compiler.CompiledKernel:
    """Compile a kernel for images of a data type beside statistics in float32.

    Args:
        kernel: A function with `triton.jit`.
        data_type: As Triton names it.
        capability: Of the GPU: 90 is an H100's.
    """
    signature = {
        name: "constexpr"
        if name in BLOCKS
        else "i32"
        if name in NUMBERS
        else f"*{data_type if name in IMAGES else 'fp32'}"
        for name in kernel.arg_names
    }
    divisible = {(index,): [["tt.divisibility", 16]] for index, name in enumerate(signature) if name not in BLOCKS}
    blocks = {name: value for name, value in BLOCKS.items() if name in signature}
    source = ASTSource(fn=kernel, signature=signature, constexprs=blocks, attrs=divisible)
    options = {"enable_fp_fusion": True}
    return triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options)


if __name__ == "__main__":
    for kernel in (_sum_kernel, _derivatives_kernel):
        for data_type in sys.argv[2:]:
            binary = compiled(kernel, data_type, int(sys.argv[1])).asm
            wide = "wide" if "ld.global.v4.b32" in binary["ptx"] else "narrow"
            print(kernel.__name__, data_type, "compiled" if len(binary["cubin"]) > 1000 else "empty", wide)
