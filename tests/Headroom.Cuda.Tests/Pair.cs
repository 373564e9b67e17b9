using System.Runtime.InteropServices;
using Headroom.Core;
using Headroom.Cpu;
using Headroom.Cuda.Resources;
using Headroom.Tests.Formats;

namespace Headroom.Cuda.Tests;

/// <summary>
/// One tensor on both sides: float32 on the CPU and the type under test on the GPU, with equal (rounded) values.
/// </summary>
internal readonly record struct Pair(Tensor Cpu, Tensor Gpu);

/// <summary>Both devices, a bump allocator on each, and comparison.</summary>
public sealed unsafe class Rig : IDisposable
{
    private const long Bytes = 1L << 30;
    private readonly nint _gpuBase;
    private readonly List<DeviceMemory>? _alone;
    private readonly List<nint> _host = [];
    private readonly CpuDevice _cpu = new(4);
    private long _at;

    /// <param name="options">How the GPU is opened.</param>
    /// <param name="alone">Every tensor is an allocation of its own on the GPU, of exactly its bytes: a memory checker
    /// sees a step past its end.</param>
    public Rig(CudaOptions? options = null, bool alone = false)
    {
        Device = Headroom.Tests.TestDevice.OpenCuda(options);
        if (alone) _alone = [];
        else _gpuBase = Device.Reserve(Bytes);
    }

    internal CudaDevice Device { get; }
    internal IOps Cpu => _cpu.Ops;
    internal IOps Gpu => Device.Ops;
    internal PhiloxRandom Random { get; } = new(20260101);

    /// <summary>Uninitialised on both sides (poisoned with NaN).</summary>
    internal Pair Empty(DType type, int rows, int columns = 1)
    {
        var p = Raw(type, type is DType.BF16 or DType.F16 ? DType.F32 : type, rows, columns);
        var poison = new byte[p.Gpu.Bytes];
        Array.Fill(poison, (byte)0xFF);
        Device.Upload(poison, p.Gpu);
        return p;
    }

    /// <summary>
    /// Forgets every tensor of the GPU; the CPU's live on until the end, as do those of a rig whose tensors are alone.
    /// </summary>
    public void Rewind() => _at = 0;

    private nint Place(long bytes)
    {
        if (_alone != null)
        {
            _alone.Add(DeviceMemory.Allocate(bytes));
            return _alone[^1].Value;
        }
        nint at = _gpuBase + (nint)_at;
        _at += (bytes + 511) & ~255L;
        return _at <= Bytes ? at : throw new InvalidOperationException("test arena is full");
    }

    private Pair Raw(DType gpu, DType cpu, int rows, int columns)
    {
        var shape = new Shape(rows, columns);
        nint device = Place(gpu.Bytes(shape.Count));
        nint host = (nint)NativeMemory.AlignedAlloc((nuint)(cpu.Bytes(shape.Count) + 64), 64);
        _host.Add(host);
        var result = new Pair(new Tensor(host, cpu, shape), new Tensor(device, gpu, shape));
        return result;
    }

    internal Pair Normal(DType type, int rows, int columns = 1, float scale = 1)
    {
        var values = new float[(long)rows * columns];
        for (int i = 0; i < values.Length; i++) values[i] = Random.NextNormal() * scale;
        return Of(type, values, rows, columns);
    }

    internal Pair Of(DType type, float[] values, int rows, int columns = 1)
    {
        var p = Raw(type, DType.F32, rows, columns);
        for (int i = 0; i < values.Length; i++) p.Cpu.F[i] = Round(type, values[i]);
        Push(p);
        return p;
    }

    internal Pair Ints(params int[] values)
    {
        var p = Raw(DType.I32, DType.I32, values.Length, 1);
        values.CopyTo(new Span<int>(p.Cpu.I, values.Length));
        Device.Upload(MemoryMarshal.AsBytes(values.AsSpan()), p.Gpu);
        return p;
    }

    /// <summary>CPU contents to the GPU.</summary>
    internal void Push(Pair p)
    {
        if (p.Gpu.DType is DType.BF16 or DType.F16)
        {
            var bits = new ushort[p.Cpu.Count];
            for (int i = 0; i < bits.Length; i++) bits[i] = Narrow(p.Gpu.DType, p.Cpu.F[i]);
            Device.Upload(MemoryMarshal.AsBytes(bits.AsSpan()), p.Gpu);
        }
        else Device.Upload(new ReadOnlySpan<byte>(p.Cpu.B, (int)p.Cpu.Bytes), p.Gpu);
        Device.AdaptersChanged(); // it may be one
    }

    internal float[] Pull(Tensor t)
    {
        var bytes = new byte[t.Bytes];
        Device.Download(t, bytes);
        if (t.DType == DType.F32) return MemoryMarshal.Cast<byte, float>(bytes).ToArray();
        var bits = MemoryMarshal.Cast<byte, ushort>(bytes);
        var values = new float[t.Count];
        for (int i = 0; i < values.Length; i++)
            values[i] =
                t.DType == DType.BF16
                    ? BitConverter.UInt32BitsToSingle((uint)bits[i] << 16)
                    : (float)BitConverter.UInt16BitsToHalf(bits[i]);
        return values;
    }

    /// <summary>
    /// A weight of random values in a storage, quantized on each side by its own ops; codes must be equal.
    /// </summary>
    internal (LinearWeight Cpu, LinearWeight Gpu) Weight(WeightStorage storage, int outs, int ins, bool bias = false)
    {
        var source = Normal(DType.F32, outs, ins, 0.05f);
        int blocks = LinearWeight.Blocks((long)outs * ins, 64);
        DType data = storage switch
        {
            WeightStorage.F32 => DType.F32,
            WeightStorage.BF16 => DType.BF16,
            WeightStorage.F16 => DType.F16,
            WeightStorage.Int8 => DType.I8,
            _ => DType.U4,
        };
        var d = Raw(data, data, outs, ins);
        Pair absmax = default, nested = default, offset = default, b = bias ? Normal(DType.F32, outs) : default;
        if (storage == WeightStorage.Int8) absmax = Raw(DType.F32, DType.F32, outs, 1);
        if (storage == WeightStorage.NF4) absmax = Raw(DType.F32, DType.F32, blocks, 1);
        if (storage == WeightStorage.NF4Double)
        {
            absmax = Raw(DType.U8, DType.U8, blocks, 1);
            nested = Raw(DType.F32, DType.F32, LinearWeight.Blocks(blocks, 256), 1);
            offset = Raw(DType.F32, DType.F32, 1, 1);
        }
        var cpu = new LinearWeight(storage, outs, ins, d.Cpu, absmax.Cpu, nested.Cpu, offset.Cpu, b.Cpu);
        var gpu = new LinearWeight(storage, outs, ins, d.Gpu, absmax.Gpu, nested.Gpu, offset.Gpu, b.Gpu);
        Cpu.Quantize(source.Cpu, cpu);
        Gpu.Quantize(source.Gpu, gpu);
        Device.WeightsChanged();
        foreach (
            var (p, what) in new[] { (d, "codes"), (absmax, "absmax"), (nested, "nested absmax"), (offset, "offset") })
            if (!p.Cpu.IsNone) EqualBits(p, what);
        return (cpu, gpu);
    }

    /// <summary>A GGUF weight of random codes and sane scales, the same bytes on both sides.</summary>
    internal (LinearWeight Cpu, LinearWeight Gpu) Blocks(GgmlType type, int outs, int ins)
    {
        byte[] bytes = GgmlSamples.Random(type, outs * (ins / type.Block().Values), Random);
        var d = Raw(DType.U8, DType.U8, outs, (int)type.RowBytes(ins));
        bytes.CopyTo(new Span<byte>(d.Cpu.B, bytes.Length));
        Device.Upload(bytes, d.Gpu);
        Device.WeightsChanged();
        return (
            new LinearWeight(WeightStorage.Gguf, outs, ins, d.Cpu, BlockType: type),
            new LinearWeight(WeightStorage.Gguf, outs, ins, d.Gpu, BlockType: type));
    }

    internal void EqualBits(Pair p, string what)
    {
        var bytes = new byte[p.Gpu.Bytes];
        Device.Download(p.Gpu, bytes);
        Assert.True(new ReadOnlySpan<byte>(p.Cpu.B, bytes.Length).SequenceEqual(bytes), what + " differ in bits");
    }

    /// <summary>As <see cref="Close"/>, of the first columns of a wider matrix.</summary>
    internal void CloseColumns(Pair p, Tensor wide, double tolerance, string what)
    {
        float[] values = Pull(wide);
        int columns = p.Cpu.Columns;
        double error = 0, norm = 0;
        for (int i = 0; i < p.Cpu.Count; i++)
        {
            double e = values[i / columns * wide.Columns + i % columns] - (double)p.Cpu.F[i];
            error += e * e;
            norm += (double)p.Cpu.F[i] * p.Cpu.F[i];
        }
        Assert.True(
            Math.Sqrt(error) <= tolerance * Math.Sqrt(norm) + 1e-12,
            $"{what}: relative error {Math.Sqrt(error / norm):G3}, tolerance {tolerance}");
    }

    /// <summary>Relative error in the L2 norm; NaN fails.</summary>
    internal void Close(Pair p, double tolerance, string what)
    {
        float[] actual = Pull(p.Gpu);
        double error = 0, norm = 0;
        for (int i = 0; i < actual.Length; i++)
        {
            double d = actual[i] - p.Cpu.F[i];
            error += d * d;
            norm += (double)p.Cpu.F[i] * p.Cpu.F[i];
        }
        double relative = Math.Sqrt(error / Math.Max(norm, 1e-30));
        Assert.True(
            relative <= tolerance,
            $"{what} ({p.Gpu.DType} {p.Gpu.Shape}): relative error {relative:E2} > {tolerance:E1}");
    }

    /// <summary>What the type under test may differ by.</summary>
    internal static double Tolerance(DType type) => type switch { DType.BF16 => 1.2e-2, DType.F16 => 2e-3, _ => 2e-5 };

    private static float Round(DType type, float x) => type switch
    {
        DType.BF16 => BitConverter.UInt32BitsToSingle((uint)Narrow(type, x) << 16),
        DType.F16 => (float)(Half)x,
        _ => x,
    };

    private static ushort Narrow(DType type, float x)
    {
        if (type == DType.F16) return BitConverter.HalfToUInt16Bits((Half)x);
        uint u = BitConverter.SingleToUInt32Bits(x);
        return (ushort)((u + 0x7FFF + ((u >> 16) & 1)) >> 16);
    }

    public void Dispose()
    {
        if (_alone != null)
        {
            Device.Synchronize();
            foreach (var m in _alone) m.Dispose();
        }
        Device.Dispose();
        _cpu.Dispose();
        foreach (nint p in _host) NativeMemory.AlignedFree((void*)p);
    }
}
