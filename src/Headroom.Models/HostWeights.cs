using System.Runtime.InteropServices;
using Headroom.Core;

namespace Headroom.Models;

/// <summary>Single weights in host memory, for work on files outside a model.</summary>
internal static unsafe class HostWeights
{
    /// <summary>
    /// What a model that holds the weight in <paramref name="storage"/> computes with: <paramref name="values"/> [rows,
    /// columns] are quantized (or rounded) and dequantized in place. <paramref name="ops"/> must be those of the CPU.
    /// </summary>
    public static void AsStored(IOps ops, WeightStorage storage, int rows, int columns, Span<float> values)
    {
        if (storage == WeightStorage.F32) return;
        using var memory = new HostMemory();
        var weight = WeightAllocation.Allocate(
            memory, MemoryCategory.BaseWeights, "weight", rows, columns,
            new ModelSettings(storage, storage, TrainMode.None), storage, false);
        fixed (float* p = values)
        {
            var plain = new Tensor((nint)p, DType.F32, new Shape(rows, columns));
            ops.Quantize(plain, weight);
            ops.Dequantize(weight, plain);
        }
    }

    private sealed class HostMemory : IMemory, IDisposable
    {
        private readonly List<nint> _blocks = [];

        public Tensor Static(MemoryCategory category, string name, DType dtype, Shape shape)
        {
            nint p = (nint)NativeMemory.AlignedAlloc((nuint)dtype.Bytes(shape.Count) + 64, 64);
            _blocks.Add(p);
            return new Tensor(p, dtype, shape);
        }

        public void BeginPhase(string phase) { }

        public Tensor Hold(MemoryCategory category, string name, DType dtype, Shape shape) =>
            Static(category, name, dtype, shape);

        public Tensor Alloc(MemoryCategory category, string name, DType dtype, Shape shape) =>
            Static(category, name, dtype, shape);

        public void Dispose()
        {
            foreach (nint p in _blocks) NativeMemory.AlignedFree((void*)p);
        }
    }
}
