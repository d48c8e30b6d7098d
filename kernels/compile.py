"""The resources of a GPU that the Triton kernels take, compiled without one: `python -m dexar_fast.kernels.compile`.

One line for each kernel, shape and architecture: registers a thread, bytes spilled, shared memory, how many programs
fit on a multiprocessor at once, with what limits their number, how many there are for each multiprocessor, and the
instructions of a thread in each loop over tiles. The score kernel has up to four: visual keys, their last tile, text
keys, and those that not every query reads. Ends with status 1 if a kernel spills, other than for the reason that
head_score.Tiles gives.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import torch
import triton
from dexar_fast.kernels.head_score import WARPS, Tiles, map_kernel, score_kernel
from dexar_fast.kernels.head_score_parts import LISTS
from dexar_fast.kernels.kv_cache import append_kernel, blocks
from dexar_fast.kernels.tail import BLOCK, gated_kernel, norm_kernel, warps_for
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

CUOBJDUMP = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
REGISTERS, THREADS, WARP = 65536, 2048, 32  # of a multiprocessor; of a warp
SHARED = {80: 164, 90: 228, 100: 228}  # KiB of a multiprocessor (CUDA C++ Programming Guide, compute capabilities)
MULTIPROCESSORS = {80: 108, 90: 132, 100: 148}  # of an A100, an H200 and a B200
RESERVED = 1024  # bytes of shared memory that the system takes of each program
TYPES = {torch.bfloat16: "*bf16", torch.float16: "*fp16", torch.float32: "*fp32"}
POINTERS = {
    "visual_ptr": "*i32",
    "text_ptr": "*i32",
    "first_ptr": "*i32",
    "last_ptr": "*i32",
    "mask_ptr": "*u8",
    "winner_ptr": "*i64",
}  # others: float32


@dataclass(frozen=True)
class Shape:
    """Heads of a model, its visual tokens in a usual image, and its MLP."""

    name: str
    heads: int
    kv_heads: int
    dim: int
    visual: int
    hidden: int
    intermediate: int
    activation: str
    layers: int


SHAPES = (
    Shape("LLaVA-1.5-7B", 32, 32, 128, 576, 4096, 11008, "silu", 32),
    Shape("Qwen2.5-VL-7B", 28, 4, 128, 1024, 3584, 18944, "silu", 28),
    Shape("PaliGemma-3B", 8, 1, 256, 256, 2048, 16384, "gelu_tanh", 18),
    Shape("Qwen2-0.5B", 14, 2, 64, 729, 896, 4864, "silu", 24),  # the text model of LLaVA-OneVision-0.5B
)
OF_LAYERS = ("u_ptrs", "value_ptrs", "keys_ptrs", "values_ptrs", "key_ptrs")  # one pointer for each layer
OF_DTYPE = {  # pointers to tensors of the model's dtype
    *(*OF_LAYERS, "query_ptr", "key_ptr"),
    *("x_ptr", "grad_ptr", "gate_ptr", "up_ptr", "grad_gate_ptr", "grad_up_ptr"),
}
TEXT = 512  # keys beside the image
QUERIES = 64  # of a chunk
COUNTS = (1, 16, QUERIES, 512)  # tokens explained at once
LAUNCHES = tuple(product((score_kernel, map_kernel), COUNTS))
# a kernel of all layers that reads no lists, of all that read lists of keys, with a mask too, and of one with attention
PLAIN, LISTED, MASKED, ATTENDED = "", " listed", " masked", " x A"
KINDS = (PLAIN, LISTED, MASKED, ATTENDED)
PRODUCT = r"\b(HGMMA|HMMA|UTCHMMA|FFMA)"
DEFAULT_WARPS = 4  # of a launch that names none


@dataclass(frozen=True)
class Usage:
    """The resources that one kernel takes on one architecture."""

    registers: int  # a thread
    spilled: int  # bytes a thread
    shared: int  # bytes a program
    programs: int  # on a multiprocessor at once
    limit: str
    loops: tuple[int, ...]  # instructions of a thread in each innermost loop around a product


def usage(
    kernel: Any, shape: Shape, dtype: torch.dtype, capability: int, kind: str = PLAIN, queries: int = QUERIES
) -> Usage:
    """Compiles a kernel as its launcher would, for dense u, V, q and k, where no smallest gradient is wanted.

    Args:
        kind: one of KINDS.
    """
    tiles = _tiles(shape, dtype, queries, kind)
    constants = {
        "GROUP": shape.heads // shape.kv_heads,
        "DIM": shape.dim,
        "RUN": kind == PLAIN,
        "HAS_MASK": kind == MASKED,
        "WITH_SMALLEST": False,
        "ATTENDED": kind == ATTENDED,
        "WIDEN": False,
        "BLOCK_R": tiles.rows,
        "BLOCK_T": tiles.queries,
        "BLOCK_N": tiles.keys,
        "BLOCK_D": tiles.dim,
        "stride_ud": 1,
        "stride_vd": 1,
        "stride_qd": 1,
        "stride_kd": 1,
    }
    constants = {name: value for name, value in constants.items() if name in kernel.arg_names}
    warps = tiles.map_warps if kernel is map_kernel else WARPS
    return _compiled(kernel, constants, dtype, capability, warps, tiles.stages, _layers(shape, kind))


def _layers(shape: Shape, kind: str) -> int:
    return 1 if kind == ATTENDED else shape.layers


def _tiles(shape: Shape, dtype: torch.dtype, queries: int, kind: str) -> Tiles:
    sizes = queries, shape.heads, shape.kv_heads, shape.visual, TEXT, shape.dim
    return Tiles.of(dtype, *sizes, kind == ATTENDED, _layers(shape, kind))


def append_usage(shape: Shape, dtype: torch.dtype, capability: int, count: int) -> Usage:
    """The same of `count` new keys and values of all layers, dense in a pool's slots."""
    dense = dict.fromkeys(("stride_kcd", "stride_vcd", "stride_kd", "stride_vd"), 1)
    constants = {**blocks(count, shape.dim, shape.dim), **dense}
    return _compiled(append_kernel, constants, dtype, capability, DEFAULT_WARPS, 1, shape.layers)


def norm_usage(shape: Shape, dtype: torch.dtype, capability: int, centred: bool) -> Usage:
    """The same of the VJP of a norm over hidden states, with a residual."""
    width = shape.hidden
    constants = {"WIDTH": width, "CENTRED": centred, "HAS_RESIDUAL": True, "BLOCK_D": triton.next_power_of_2(width)}
    return _compiled(norm_kernel, constants, dtype, capability, warps_for(width), stages=1)


def gated_usage(shape: Shape, dtype: torch.dtype, capability: int) -> Usage:
    """The same of the VJP of the MLP's product."""
    constants = {"SILU": shape.activation == "silu", "BLOCK_I": BLOCK}
    return _compiled(gated_kernel, constants, dtype, capability, DEFAULT_WARPS, stages=1)


def _compiled(
    kernel: Any,
    constants: dict[str, Any],
    dtype: torch.dtype,
    capability: int,
    warps: int,
    stages: int,
    layers: int = 1,
) -> Usage:
    names = kernel.arg_names
    signature = {name: "constexpr" if name in constants else _type(name, dtype, layers) for name in names}
    aligned = [
        place
        for i, name in enumerate(names)
        if name not in (*constants, *LISTS, "stride_mt") and (name.startswith("stride") or "_ptr" in name)
        for place in ([(i, layer) for layer in range(layers)] if name in OF_LAYERS else [(i,)])
    ]
    source = ASTSource(
        kernel,
        signature,
        {(names.index(name),): value for name, value in constants.items()},
        {place: [["tt.divisibility", 16]] for place in aligned},
    )
    target = GPUTarget("cuda", capability, WARP)
    built = triton.compile(source, target=target, options={"num_warps": warps, "num_stages": stages})
    registers, spilled, loops = _resources(built.asm["cubin"])
    shared = built.metadata.shared
    limits = {
        "registers": REGISTERS // (_rounded(registers, 8) * WARP * warps),
        "shared memory": SHARED[capability] * 1024 // (shared + RESERVED),
        "threads": THREADS // (WARP * warps),
    }
    limit = min(limits, key=lambda name: limits[name])
    return Usage(registers, spilled, shared, limits[limit], limit, loops)


def programs(kernel: Any, shape: Shape, dtype: torch.dtype, queries: int, kind: str = PLAIN) -> int:
    """How many programs a launch of head_score has."""
    tiles = _tiles(shape, dtype, queries, kind)
    if kernel is score_kernel:
        rows = triton.cdiv(queries * shape.heads // shape.kv_heads, tiles.rows)
        return rows * tiles.parts * shape.kv_heads * _layers(shape, kind)
    return triton.cdiv(queries, tiles.queries) * triton.cdiv(shape.visual, tiles.keys) * tiles.splits


def _type(name: str, dtype: torch.dtype, layers: int) -> str | tuple[str, ...]:
    if name in OF_DTYPE:
        return (TYPES[dtype],) * layers if name in OF_LAYERS else TYPES[dtype]
    if name in ("scale", "eps"):
        return "fp32"
    return POINTERS.get(name, "*fp32") if name.endswith("_ptr") else "i32"


def _rounded(number: int, to: int) -> int:
    return -(-number // to) * to


def _resources(cubin: bytes) -> tuple[int, int, tuple[int, ...]]:
    """Registers and bytes of local memory a thread, and the instructions of each innermost loop around a product.

    A kernel without arrays of its own has only spills in local memory.
    """
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        shown, code = (
            subprocess.run([CUOBJDUMP, option, file.name], capture_output=True, text=True, check=True).stdout
            for option in ("-res-usage", "-sass")
        )
    registers, stack, local = (re.findall(rf"{name}:(\d+)", shown)[-1] for name in ("REG", "STACK", "LOCAL"))
    return int(registers), int(stack) + int(local), tuple(last - first for first, last in loops(code))


def loops(code: str) -> list[tuple[int, int]]:
    """Where the innermost loops around a product stand: from the target of a branch that goes back to behind it."""
    lines = re.findall(r"/\*([0-9a-f]{4,})\*/\s+(.*?);", code)
    places = {int(address, 16): number for number, (address, _) in enumerate(lines)}
    found: list[tuple[int, int]] = []
    for number, (_, instruction) in enumerate(lines):
        target = re.search(r"BRA(?:\.\w+)* .*?(0x[0-9a-f]+)", instruction)
        first = number if target is None else places.get(int(target[1], 16), number)
        holds = any(re.search(PRODUCT, text) for _, text in lines[first:number])
        if holds and all(before < first for before, _ in found):
            found.append((first, number + 1))
    return found


def rows() -> Iterator[tuple[str, Usage, float | None, bool]]:
    """Every kernel at every shape, in bfloat16 and float32, on every architecture.

    With it programs for each multiprocessor where they are few, and whether it may spill. In the names, x A means with
    attention.
    """
    for capability, shape, dtype in product(SHARED, SHAPES, (torch.bfloat16, torch.float32)):
        where = f"sm_{capability:<4} {shape.name:14} {str(dtype).removeprefix('torch.'):9}"
        for name, used, count, excused in _rows_of(shape, dtype, capability):
            yield f"{where} {name:25}", used, None if count is None else count / MULTIPROCESSORS[capability], excused


def _rows_of(shape: Shape, dtype: torch.dtype, capability: int) -> Iterator[tuple[str, Usage, int | None, bool]]:
    for (kernel, queries), kind in product(LAUNCHES, KINDS):
        excused = kind in (ATTENDED, MASKED) and dtype == torch.float32
        used = usage(kernel, shape, dtype, capability, kind, queries)
        count = programs(kernel, shape, dtype, queries, kind)
        yield f"{kernel.__name__} of {queries}{kind}", used, count, excused
    for count in (1, QUERIES):
        yield f"{append_kernel.__name__} of {count}", append_usage(shape, dtype, capability, count), None, False
    for centred in (False, True):
        name = norm_kernel.__name__ + ", centred" * centred
        yield name, norm_usage(shape, dtype, capability, centred), None, False
    yield gated_kernel.__name__, gated_usage(shape, dtype, capability), None, False


def main() -> int:
    """Prints the table; returns 1 if a kernel spills that may not."""
    print(f"{'':58} registers  spilled  shared memory  loops             programs for each multiprocessor, and at once")
    spilled = False
    for name, used, count, excused in rows():
        share = "" if count is None else f"{count:.2g}"
        print(
            f"{name} {used.registers:9} {used.spilled:6} B {used.shared:12} B  {' '.join(map(str, used.loops)):17}"
            f" {share:>6} {used.programs:6}, by {used.limit}"
        )
        spilled |= used.spilled > 0 and not excused
    return int(spilled)


if __name__ == "__main__":
    sys.exit(main())
