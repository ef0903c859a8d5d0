"""One instance of a compiled model: NumPy arrays in, NumPy arrays out, over the C runtime.

What a call needs is prepared once, because a small model runs in less time than it takes to describe its inputs.
"""

from __future__ import annotations

import ctypes
import threading
import weakref
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from partita.errors import ExecutionError, InputError
from partita.runtime import library as c
from partita.runtime import plain_call
from partita.runtime.data_types import STRING, data_type_of, numpy_dtype
from partita.runtime.inputs import as_array, as_given, check_inputs
from partita.runtime.maps import put_together, taken_apart
from partita.runtime.program import Kind, Program, Value
from partita.runtime.strings import records, strings_of
from partita.runtime.table import Array
from partita.runtime.values import address, describe, pass_in, taken_out

_REMEMBERED = 64  # input shapes whose output shapes are remembered

Interpreter = Callable[[int, Sequence[Array]], Sequence[Array]]
"""Runs the interpreted region of an index on arrays."""


class Instance:
    """State of one model: its arena, its regions' states. Threads that share one wait for each other."""

    def __init__(
        self,
        library: c.Library,
        program: Program,
        *,
        constants: Sequence[Array],
        threads: int | None,
        interpreter: Interpreter,
    ) -> None:
        """Opens an instance.

        Args:
            constants: the table's entries in order, used where they lie.
            threads: how many to run on; None: PARTITA_NUM_THREADS, else all cores this process may use.

        Raises:
            ExecutionError: there is not memory enough, or a thread could not be started.
        """
        self._library = library
        self._program = program
        self._interpreter = interpreter
        self._lock = threading.RLock()
        self._error: BaseException | None = None
        self._engine_results: list[Array] = []
        self._constants = constants
        # Weakly: a cycle through the callback would keep the arena until the garbage collector comes by.
        self._engine = c.EngineCallback(partial(_call_engine, weakref.ref(self)))
        self._handle: int | None = self._open(constants, threads)
        self._prepare()

    def _open(self, constants: Sequence[Array], threads: int | None) -> int:
        options = c.Options(size=ctypes.sizeof(c.Options), threads=threads or 0, engine=self._engine)
        pointers = (ctypes.c_void_p * max(1, len(constants)))(*(array.ctypes.data for array in constants))
        options.constants = ctypes.cast(pointers, ctypes.POINTER(ctypes.c_void_p))
        handle = ctypes.c_void_p()
        message = ctypes.create_string_buffer(c.MESSAGE_BYTES)
        status = self._library.open(ctypes.byref(options), ctypes.byref(handle), message, len(message))
        if status:
            raise ExecutionError(f"{self._program.symbol}: {message.value.decode('utf-8', 'replace')}")
        return int(handle.value or 0)

    def _prepare(self) -> None:
        program = self._program
        self._inputs = (c.Tensor * max(1, len(program.inputs)))()
        self._outputs = (c.Tensor * max(1, len(program.outputs)))()
        self._input_address = ctypes.addressof(self._inputs)
        self._output_address = ctypes.addressof(self._outputs)
        self._input_slots = [
            self._slot(program.values[index], self._inputs[position]) for position, index in enumerate(program.inputs)
        ]
        self._output_slots = [
            self._slot(program.values[index], self._outputs[position]) for position, index in enumerate(program.outputs)
        ]
        self._static_shapes = [slot.shape for slot in self._output_slots]
        self._is_static = None not in self._static_shapes
        addresses = (self._handle, self._input_address, self._output_address)
        self._run = partial(self._library.run_pointers, *map(ctypes.c_void_p, addresses))
        slots = [*self._input_slots, *self._output_slots]
        plain = (
            plain_call.IS_AVAILABLE and not program.maps and all(s.shape is not None and not s.is_string for s in slots)
        )
        self._plain = plain_call.PlainCall(self._input_slots, self._output_slots) if plain else None
        self._gives_strings = any(slot.is_string for slot in self._output_slots)
        self._shapes: dict[tuple[tuple[int, ...], ...], list[tuple[int, ...] | None]] = {}

    def _slot(self, value: Value, tensor: c.Tensor) -> _Slot:
        static = all(extent >= 0 for extent in value.shape) and value.kind is Kind.TENSOR
        tensor.data_type = value.data_type
        tensor.rank = len(value.shape)
        if static:
            tensor.shape[: len(value.shape)] = value.shape
        depends_on_data = value.kind is not Kind.TENSOR or (
            not static and any(symbol.data_dependent for symbol in self._program.symbols)
        )
        return _Slot(value, tensor, value.shape if static else None, depends_on_data)

    # ------------------------------------------------------------------ the whole model

    def run(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """Runs the model.

        Inputs are read where they lie if they are dense, and copied if not. Tensors are arrays of NumPy's, or of any
        library that hands out DLPack; sequences are lists of them, what is absent of an optional value is None, and
        maps are dicts.

        Args:
            inputs: every input by name.

        Returns:
            Every output by name, in new memory.

        Raises:
            InputError: names, types or shapes do not fit; all problems at once.
            ExecutionError: a region failed, or the instance is closed.
        """
        with self._lock:
            described = self._plain.describe(inputs) if self._plain is not None else None
            if described is None and self._program.maps:
                return put_together(self._program, self._run_any(taken_apart(self._program, inputs)))
            if described is None:
                return self._run_any(inputs)
            status = self._run()
            if status:
                self._raise(status, inputs)
            return described[0]

    def _run_any(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        handle = self._opened()
        arrays = self._take(inputs)
        shapes = self._static_shapes if self._is_static else self._expected_shapes(arrays)
        results: dict[str, Any] = {}
        for slot, shape in zip(self._output_slots, shapes, strict=True):
            if shape is None:
                slot.tensor.data = None
                continue
            result = np.empty((*shape, 2) if slot.is_string else shape, slot.dtype)
            if slot.shape is None:
                slot.tensor.shape[: len(shape)] = shape
            slot.tensor.data = address(result)
            results[slot.name] = result
        status = self._library.run(handle, self._input_address, self._output_address)
        if status:
            self._raise(status, inputs)
        if self._gives_strings:
            results = {
                s.name: strings_of(results[s.name]) if s.is_string else results[s.name]
                for s in self._output_slots
                if s.name in results
            }
        return results if len(results) == len(self._output_slots) else self._collect(arrays, results)

    def _take(self, inputs: Mapping[str, Any]) -> list[Array]:
        """Describes the inputs to C. Returns the arrays that must live until the call is over."""
        arrays: list[Array] = []
        slots = self._input_slots
        if len(inputs) != len(slots):
            check_inputs(self._program, inputs)
        for slot in slots:
            if slot.value.kind is not Kind.TENSOR:
                if slot.name not in inputs:
                    check_inputs(self._program, inputs)
                slot.kept = pass_in(slot.tensor, slot.value, inputs[slot.name])
                continue
            array = inputs.get(slot.name)
            if slot.is_string:
                check_inputs(self._program, inputs)
                array = records(array)
            elif (
                array.__class__ is not np.ndarray
                or array.dtype != slot.dtype
                or not array.flags.c_contiguous
                or (array.shape != slot.shape and (slot.shape is not None or array.ndim != slot.rank))
            ):
                check_inputs(self._program, inputs)
                array = as_given(inputs[slot.name], slot.dtype)
            if slot.shape is None:
                slot.tensor.shape[: slot.rank] = array.shape[: slot.rank]
            slot.tensor.data = address(array)
            arrays.append(array)
        return arrays

    def _expected_shapes(self, arrays: Sequence[Array]) -> Sequence[tuple[int, ...] | None]:
        """The outputs' shapes as the last run on inputs of these shapes had them; None where unknown."""
        known = self._shapes.get(tuple(array.shape for array in arrays))
        return known if known is not None else self._static_shapes

    def _collect(self, arrays: Sequence[Array], results: Mapping[str, Any]) -> dict[str, Any]:
        """Copies outputs out of the instance's memory, and remembers the shapes that inputs decide."""
        collected = {
            slot.name: results[slot.name] if slot.name in results else taken_out(slot.tensor)
            for slot in self._output_slots
        }
        if len(self._shapes) >= _REMEMBERED:
            self._shapes.clear()
        self._shapes[tuple(array.shape for array in arrays)] = [
            None if slot.depends_on_data else tuple(slot.tensor.shape[: slot.rank]) for slot in self._output_slots
        ]
        return collected

    def _raise(self, status: int, inputs: Mapping[str, Any] | None) -> None:
        error, self._error = self._error, None
        if error is not None and not isinstance(error, Exception):
            raise error  # an interrupt, or the end of the process
        message = self.last_error()
        if error is not None:
            raise ExecutionError(f"{message}: {error}") from error
        if inputs is not None and status in (c.ARGUMENT, c.SHAPE):
            check_inputs(self._program, inputs)
        raise (InputError if status in (c.ARGUMENT, c.SHAPE) else ExecutionError)(message)

    # ------------------------------------------------------------------ one region

    def lookup(self, region: int) -> None:
        """Initializes a region, if it was not.

        Raises:
            ExecutionError: its init failed; the next lookup tries again.
        """
        with self._lock:
            status = self._library.lookup(self._opened(), region)
            if status:
                raise ExecutionError(self.last_error())

    def run_region(self, region: int, arrays: Sequence[Any]) -> tuple[Any, ...]:
        """Runs one region alone.

        Args:
            arrays: its inputs, in order.

        Returns:
            Its outputs, in order, in new memory.

        Raises:
            InputError: counts, types or shapes do not fit.
            ExecutionError: it failed.
        """
        described = self._program.regions[region]
        values = [self._program.values[index] for index in (*described.inputs, *described.outputs)]
        if len(arrays) != len(described.inputs):
            raise InputError(f"{described.symbol} takes {len(described.inputs)} inputs, not {len(arrays)}")
        tensors = (c.Tensor * max(1, len(values)))()
        kept: list[Any] = []
        for value, array, tensor in zip(values, arrays, tensors, strict=False):
            if value.kind is not Kind.TENSOR:
                kept += pass_in(tensor, value, array)
                continue
            if np.ndim(array) > c.MAX_RANK:
                raise InputError(f"{described.symbol}: input {value.name!r} has rank {np.ndim(array)}")
            kept.append(describe(tensor, as_array(array), value.data_type))
        with self._lock:
            status = self._library.run_region(self._opened(), region, tensors)
            if status:
                self._raise(status, None)
            first = len(described.inputs)
            return tuple(taken_out(tensor) for tensor in list(tensors)[first : len(values)])

    def spent(self, region: int, kernels: int) -> list[int]:
        """What each kernel of a region took since the last call of this, in nanoseconds; zeros if it does not tell."""
        found = (ctypes.c_int64 * max(1, kernels))()
        with self._lock:
            self._library.profile(self._opened(), region, found, kernels)
        return list(found)[:kernels]

    # ------------------------------------------------------------------ engines

    def run_engine(self, region: int, tensors: ctypes.Array[c.Tensor]) -> int:
        """Called by C for an interpreted region; must not raise."""
        try:
            described = self._program.regions[region]
            inputs = [_view(tensors[index]) for index in range(len(described.inputs))]
            results = self._interpreter(region, inputs)
            if len(results) != len(described.outputs):
                raise ExecutionError(f"the engine gave {len(results)} outputs, expected {len(described.outputs)}")
            self._engine_results = []
            for index, result in enumerate(results, len(described.inputs)):
                self._give(tensors[index], self._program.values[described.outputs[index - len(inputs)]], result)
        except BaseException as error:  # an exception cannot pass through C: `_raise` raises it again
            self._error = error
            return 1
        return 0

    def _give(self, tensor: c.Tensor, value: Value, result: Array) -> None:
        dense = as_given(result, numpy_dtype(value.data_type))
        if data_type_of(dense.dtype) != value.data_type:
            raise ExecutionError(f"the engine computed {value.name!r} as {dense.dtype}")
        if not tensor.data:
            # Read by C when the callback has returned.
            self._engine_results.append(describe(tensor, dense, value.data_type))
        elif dense.shape != tuple(tensor.shape[: tensor.rank]):
            expected = tuple(tensor.shape[: tensor.rank])
            raise ExecutionError(f"the engine computed {value.name!r} with shape {dense.shape}, expected {expected}")
        else:
            ctypes.memmove(tensor.data, dense.ctypes.data, dense.nbytes)

    # ------------------------------------------------------------------ life

    def _opened(self) -> int:
        if self._handle is None:
            raise ExecutionError(f"{self._program.symbol} is closed")
        return self._handle

    def last_error(self) -> str:
        """What the C runtime said last."""
        return self._library.error(self._opened()).decode("utf-8", "replace")

    def thread_count(self) -> int:
        """How many threads it runs on."""
        with self._lock:
            return self._library.threads(self._opened())

    def arena_bytes(self) -> int:
        """Size of the arena as allocated now, in bytes."""
        with self._lock:
            return self._library.arena_bytes(self._opened())

    def close(self) -> None:
        """Gives back everything; closing again does nothing. Later calls raise ExecutionError."""
        with self._lock:
            handle, self._handle = self._handle, None
            self._plain = None
            if handle is not None:
                self._library.close(handle)

    def __del__(self) -> None:
        if getattr(self, "_handle", None) is not None:
            self.close()


def _call_engine(
    instance: weakref.ref[Instance], _user: object, region: int, tensors: ctypes.Array[c.Tensor], _count: int
) -> int:
    alive = instance()
    return alive.run_engine(region, tensors) if alive is not None else 1


class _Slot:
    """An input or an output, with what a call needs of it."""

    __slots__ = ("depends_on_data", "dtype", "is_string", "kept", "name", "rank", "shape", "tensor", "value")

    def __init__(self, value: Value, tensor: c.Tensor, shape: tuple[int, ...] | None, depends_on_data: bool) -> None:
        self.value = value
        self.name = value.name
        self.is_string = value.data_type == STRING
        self.dtype = np.dtype(np.int64) if self.is_string else numpy_dtype(value.data_type)  # strings: of their records
        self.rank = len(value.shape)
        self.shape = shape  # None where it is symbolic
        self.tensor = tensor
        self.depends_on_data = depends_on_data
        self.kept: list[Any] = []  # memory of a sequence that C reads


def _view(tensor: c.Tensor) -> Array:
    """C's memory as an array, not copied."""
    dtype = numpy_dtype(tensor.data_type)
    shape = tuple(tensor.shape[: tensor.rank])
    size = int(np.prod(shape)) * dtype.itemsize
    if size == 0 or not tensor.data:
        return np.empty(shape, dtype)
    memory: Array = np.ctypeslib.as_array((ctypes.c_uint8 * size).from_address(tensor.data))
    return memory.view(dtype).reshape(shape)
