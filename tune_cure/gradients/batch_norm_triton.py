"""The second derivatives of batch norm as two Triton kernels, for images in channels_last on a GPU.

The formulas and symbols are those of `batch_norm_formulas`. Tensors in channels_last are matrices of M rows (pixels)
and C columns (channels). A program works on blocks of such a matrix. Sums and coefficients are in the data type of the
weight. Each program writes its sums to a place of its own, and these are added in one order, so that the same step
gives the same result.

`batch_norm_kernels` decides whether the kernels are used. Importing this module imports Triton.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from tune_cure.gradients.batch_norm_formulas import Normalization

BLOCK_SIZE = 2048
"""Elements of a block, a power of two: 16 for each thread of a program."""
MOST_CHANNELS = 64
"""Channels in a block: 128 bytes of a row in fp16, so that a warp reads whole lines of memory."""
SUMMING_PROGRAMS = 1024
"""Programs that share the sums: several for each multiprocessor."""


@triton.jit
def _sum_kernel(
    direction,
    grad_output,
    images,
    mean,
    sum_s,
    sums,
    num_rows,
    num_channels,
    blocks_each: tl.constexpr,
    block_rows: tl.constexpr,
    block_channels: tl.constexpr,
):
    """Write the sums of v, v(x − mean) and v(s − s̄) over the program's blocks of rows to sums (programs, 3, C)."""
    channels = tl.program_id(0) * block_channels + tl.arange(0, block_channels)
    inside = channels < num_channels
    center_x = tl.load(mean + channels, inside, other=0)
    center_s = tl.load(sum_s + channels, inside, other=0) / num_rows
    dtype = mean.dtype.element_ty
    total_v = tl.zeros((block_rows, block_channels), dtype)
    total_vx = tl.zeros((block_rows, block_channels), dtype)
    total_vs = tl.zeros((block_rows, block_channels), dtype)
    for block in range(blocks_each):
        rows = (tl.program_id(1) * blocks_each + block) * block_rows + tl.arange(0, block_rows)
        mask = (rows < num_rows)[:, None] & inside[None, :]
        offsets = rows.to(tl.int64)[:, None] * num_channels + channels[None, :]
        v = tl.load(direction + offsets, mask, other=0).to(dtype)
        s = tl.load(grad_output + offsets, mask, other=0).to(dtype)
        x = tl.load(images + offsets, mask, other=0).to(dtype)
        total_v += v
        total_vx += v * (x - center_x[None, :])
        total_vs += v * (s - center_s[None, :])
    place = sums + tl.program_id(1) * 3 * num_channels + channels
    tl.store(place, tl.sum(total_v, 0), inside)
    tl.store(place + num_channels, tl.sum(total_vx, 0), inside)
    tl.store(place + 2 * num_channels, tl.sum(total_vs, 0), inside)


@triton.jit
def _derivatives_kernel(
    direction,
    grad_output,
    images,
    weight,
    mean,
    inverse_std,
    sum_b,
    sum_s,
    sums,
    to_grad_output,
    to_images,
    to_weight,
    num_rows,
    num_channels,
    block_rows: tl.constexpr,
    block_channels: tl.constexpr,
):
    """Write the three derivatives of a block; sums (3, C) are those of `_sum_kernel` over all rows."""
    channels = tl.program_id(1) * block_channels + tl.arange(0, block_channels)
    inside = channels < num_channels
    center_x = tl.load(mean + channels, inside, other=0)
    r = tl.load(inverse_std + channels, inside, other=0)
    slope = tl.load(weight + channels, inside, other=0) * r
    b = tl.load(sum_b + channels, inside, other=0) / num_rows
    mean_s = tl.load(sum_s + channels, inside, other=0) / num_rows
    mean_v = tl.load(sums + channels, inside, other=0) / num_rows
    q = tl.load(sums + num_channels + channels, inside, other=0) / num_rows * r
    covariance = tl.load(sums + 2 * num_channels + channels, inside, other=0) / num_rows
    if tl.program_id(0) == 0:
        tl.store(to_weight + channels, r * num_rows * (covariance - b * q), inside)

    rows = tl.program_id(0) * block_rows + tl.arange(0, block_rows)
    mask = (rows < num_rows)[:, None] & inside[None, :]
    offsets = rows.to(tl.int64)[:, None] * num_channels + channels[None, :]
    dtype = mean.dtype.element_ty
    v = tl.load(direction + offsets, mask, other=0).to(dtype) - mean_v[None, :]
    s = tl.load(grad_output + offsets, mask, other=0).to(dtype) - mean_s[None, :]
    x = (tl.load(images + offsets, mask, other=0).to(dtype) - center_x[None, :]) * r[None, :]
    by_s = slope[None, :] * (v - x * q[None, :])
    by_x = -(slope * r)[None, :] * (b[None, :] * v + q[None, :] * s + (covariance - 3 * b * q)[None, :] * x)
    tl.store(to_grad_output + offsets, by_s.to(to_grad_output.dtype.element_ty), mask)
    tl.store(to_images + offsets, by_x.to(to_images.dtype.element_ty), mask)


def second_derivatives(
    direction: Tensor, grad_output: Tensor, norm: Normalization, sum_b: Tensor, sum_s: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the derivatives of G(s) to s, x and γ.

    Args:
        direction: v.
        grad_output: s.
        norm: The forward pass, of images in channels_last.
        sum_b: Mb.
        sum_s: Ms̄.
    """
    direction, grad_output = (
        tensor.contiguous(memory_format=torch.channels_last) for tensor in (direction, grad_output)
    )
    num_rows, num_channels = norm.channel_size, norm.images.shape[1]
    block_channels = min(MOST_CHANNELS, triton.next_power_of_2(num_channels))
    block_rows = BLOCK_SIZE // block_channels
    row_blocks, channel_blocks = triton.cdiv(num_rows, block_rows), triton.cdiv(num_channels, block_channels)
    blocks_each = triton.cdiv(row_blocks * channel_blocks, SUMMING_PROGRAMS)
    shares = triton.cdiv(row_blocks, blocks_each)
    partial_sums = norm.mean.new_empty(shares, 3, num_channels)
    to_grad_output, to_images = torch.empty_like(grad_output), torch.empty_like(norm.images)
    to_weight = torch.empty_like(norm.weight)
    read = direction, grad_output, norm.images
    written = to_grad_output, to_images, to_weight
    options = {"block_rows": block_rows, "block_channels": block_channels, "enable_fp_fusion": True}
    with torch.cuda.device_of(norm.images):
        _sum_kernel[(channel_blocks, shares)](
            *read, norm.mean, sum_s, partial_sums, num_rows, num_channels, blocks_each, **options
        )
        sums = partial_sums.sum(0)
        _derivatives_kernel[(row_blocks, channel_blocks)](  # CUDA allows 65,535 blocks on all axes but the first
            *read, *norm[1:], sum_b, sum_s, sums, *written, num_rows, num_channels, **options
        )
    return to_grad_output, to_images, to_weight
