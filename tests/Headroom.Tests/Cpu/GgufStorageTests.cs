using System.Runtime.InteropServices;
using Headroom.Core;
using Headroom.Cpu;
using Headroom.Tests.Formats;

namespace Headroom.Tests.Cpu;

/// <summary>
/// Products, look-ups and expansion of GGUF storage against the same weight in float32: the values are equal, so the
/// results are equal bit for bit.
/// </summary>
public sealed unsafe class GgufStorageTests : IDisposable
{
    private readonly CpuOps _ops = new(2);
    private readonly List<nint> _memory = [];
    private readonly PhiloxRandom _random = new(11);

    public static IEnumerable<ITheoryDataRow> Types() => (TheoryData<GgmlType>)[.. GgmlSamples.Quantized];

    [Theory, MemberData(nameof(Types))]
    internal void AsInFloat32(GgmlType type)
    {
        int ins = type.Block().Values == 32 ? 352 : 768,
            outs = 500; // 352: blocks end inside the products' pieces of 256
        var blocks = Weight(type, outs, ins);
        var plain = new LinearWeight(WeightStorage.F32, outs, ins, New(DType.F32, outs, ins));
        _ops.Dequantize(blocks, plain.Data);
        foreach (int rows in new[] { 1, 3, 40 })
        {
            Tensor x = Normal(rows, ins), y = New(DType.F32, rows, outs), z = New(DType.F32, rows, outs);
            _ops.Linear(x, blocks, y);
            _ops.Linear(x, plain, z);
            Equal(z, y);
            Tensor dy = Normal(rows, outs), dx = New(DType.F32, rows, ins), dz = New(DType.F32, rows, ins);
            _ops.LinearBackwardInput(dy, blocks, false, dx);
            _ops.LinearBackwardInput(dy, plain, false, dz);
            Equal(dz, dx);
        }
        var ids = New(DType.I32, 5, 1);
        new[] { 0, 499, 7, 7, 250 }.CopyTo(new Span<int>(ids.I, 5));
        Tensor rowsOf = New(DType.F32, 5, ins), rowsDue = New(DType.F32, 5, ins);
        _ops.Embedding(ids, blocks, rowsOf);
        _ops.Embedding(ids, plain, rowsDue);
        Equal(rowsDue, rowsOf);
    }

    [Fact]
    public void PiecesOfARow()
    {
        foreach (var type in GgmlSamples.Quantized)
        {
            var w = Weight(type, 3, 1024);
            Tensor all = New(DType.F32, 3, 1024), part = New(DType.F32, 1, 1024);
            _ops.Dequantize(w, all);
            foreach (
                var (column, count) in new[]
                {
                    (0, 1024), (1, 1), (31, 2), (32, 384), (96, 700), (255, 514), (1000, 24),
                }
            )
            {
                WeightRows.Read(w, 2, column, count, part.F);
                Assert.True(
                    new ReadOnlySpan<float>(all.F + 2048 + column, count).SequenceEqual(
                        new ReadOnlySpan<float>(part.F, count)),
                    $"{type} {column} + {count}"
                );
            }
        }
    }

    private LinearWeight Weight(GgmlType type, int outs, int ins)
    {
        byte[] bytes = GgmlSamples.Random(type, outs * (ins / type.Block().Values), _random);
        var data = New(DType.U8, outs, (int)type.RowBytes(ins));
        bytes.CopyTo(new Span<byte>(data.B, bytes.Length));
        return new LinearWeight(WeightStorage.Gguf, outs, ins, data, BlockType: type);
    }

    private Tensor New(DType type, int rows, int columns)
    {
        var shape = new Shape(rows, columns);
        nint p = (nint)NativeMemory.AlignedAlloc((nuint)type.Bytes(shape.Count) + 64, 64);
        _memory.Add(p);
        return new Tensor(p, type, shape);
    }

    private Tensor Normal(int rows, int columns)
    {
        var t = New(DType.F32, rows, columns);
        for (long i = 0; i < t.Count; i++) t.F[i] = _random.NextNormal();
        return t;
    }

    private static void Equal(Tensor due, Tensor actual) =>
        Assert.True(
            new ReadOnlySpan<byte>(due.B, (int)due.Bytes).SequenceEqual(
                new ReadOnlySpan<byte>(actual.B, (int)actual.Bytes))
        );

    public void Dispose()
    {
        _ops.Dispose();
        foreach (nint p in _memory) NativeMemory.AlignedFree((void*)p);
    }
}
