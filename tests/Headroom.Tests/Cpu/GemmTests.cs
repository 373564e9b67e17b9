using System.Runtime.Intrinsics.X86;
using Headroom.Core;
using Headroom.Cpu;

namespace Headroom.Tests.Cpu;

/// <summary>
/// The matrix product against itself (other rows, other threads, groups), and every SIMD kernel under it against its
/// scalar twin.
/// </summary>
public sealed unsafe class GemmTests : IDisposable
{
    private readonly ElementTestData _data = new(7);

    public void Dispose() => _data.Dispose();

    [Theory]
    [InlineData(WeightStorage.NF4Double)]
    [InlineData(WeightStorage.F32)]
    internal void ARowDependsNeitherOnTheOthersNorOnThreads(WeightStorage storage)
    {
        const int M = 40, N = 130, K = 1300;
        var weight = new StoredWeight(_data, storage, N, K).W;
        Tensor x = _data.Normal(M, K), y = _data.New(M, N), few = _data.New(7, N), other = _data.New(M, N);
        _data.Ops.Linear(x, weight, y);
        _data.Ops.Linear(x.Slice(20, 7), weight, few);
        ElementTestData.Same(y.Slice(20, 7), few);
        foreach (int threads in new[] { 1, 3, 5 })
        {
            using var ops = new CpuOps(threads);
            ops.Linear(x, weight, other);
            ElementTestData.Same(y, other);
        }
    }

    [Theory]
    [InlineData(WeightStorage.NF4Double, 12, 5)]
    [InlineData(WeightStorage.F32, 29, 16)]
    [InlineData(WeightStorage.BF16, 29, 64)]
    [InlineData(WeightStorage.F32, 29, 70)] // a rank that does not join the product
    [InlineData(WeightStorage.F32, 3, 8)]   // few rows
    internal void AGroupIsItsMembersOneByOne(WeightStorage storage, int m, int r)
    {
        const int Ins = 1200;
        var dropout = new Dropout(0.2f, 11, 2, 1);
        Tensor x = _data.Normal(m, Ins);
        AdaptedLinear Part(int outs, int rank)
        {
            var w = new StoredWeight(_data, storage, outs, Ins).W;
            return rank == 0 ? new AdaptedLinear(w, default, default, 0, default, default, _data.New(m, outs))
                : new AdaptedLinear(
                    w, Scaled(_data.Normal(rank, Ins), 1 / MathF.Sqrt(Ins)), _data.Normal(outs, rank), 1.5f, dropout,
                    _data.New(m, rank), _data.New(m, outs));
        }
        AdaptedLinear[] group = [Part(70, r), Part(33, 0), Part(200, r)];
        _data.Ops.LinearGroup(x, group);
        foreach (var p in group)
        {
            Tensor y = _data.New(m, p.W.Out), xa = _data.New(m, r);
            _data.Ops.Linear(x, p.W, y);
            if (!p.A.IsNone) _data.Ops.LoraForward(x, p.A, p.B, p.Scaling, p.Dropout, xa, y);
            if (!p.A.IsNone) ElementTestData.Same(xa, p.Xa);
            ElementTestData.Near(ElementTestData.Doubles(y), p.Y, 1e-4);
            var again = _data.New(m, p.W.Out);
            _data.Ops.LinearGroup(x, [p with { A = default, Y = again }]); // xa is known
            ElementTestData.Same(p.Y, again);
            var residual = _data.Normal(m, p.W.Out);
            _data.Ops.LinearGroup(x, [p with { Y = again, Residual = residual }]);
            _data.Ops.Add(residual, p.Y);
            ElementTestData.Same(p.Y, again);
        }
    }

    // As an adapter starts: products near one, where a bound relative to each element has a meaning.
    private static Tensor Scaled(Tensor x, float by)
    {
        foreach (ref float v in ElementTestData.Floats(x)) v *= by;
        return x;
    }

    [Theory]
    [InlineData(1, false)]
    [InlineData(9, true)]
    [InlineData(300, false)]
    [InlineData(300, true)]
    public void EveryTileIsTheScalarTile(int kc, bool accumulate)
    {
        Tensor a = _data.Normal(kc, GemmTile.MR),
            b = _data.Normal(kc, GemmTile.NR),
            start = _data.Normal(GemmTile.MR, 40);
        Tensor expected = _data.Clone(start);
        GemmTile.Scalar(kc, a.F, b.F, expected.F, 40, 1.5f, accumulate);
        void Check(int columns, Action<nint> tile)
        {
            var c = _data.Clone(start);
            tile(c.Address);
            for (int i = 0; i < GemmTile.MR; i++)
                for (int j = 0; j < 40; j++)
                    Assert.Equal(j < columns ? expected.F[i * 40 + j] : start.F[i * 40 + j], c.F[i * 40 + j]);
        }
        Check(32, c => GemmTile.Vector(kc, a.F, b.F, (float*)c, 40, 1.5f, accumulate));
        Check(16, c => GemmTile.VectorHalf(kc, a.F, b.F, (float*)c, 40, 1.5f, accumulate));
        foreach (int columns in new[] { 16, 32 })
        {
            Check(columns, c => GemmTile.Vector256Tile(kc, a.F, b.F, (float*)c, 40, 1.5f, accumulate, columns));
            Check(columns, c => GemmTile.Vector128Tile(kc, a.F, b.F, (float*)c, 40, 1.5f, accumulate, columns));
        }
    }

    [Theory]
    [InlineData(12, 37)]
    [InlineData(7, 8)]
    [InlineData(3, 5)]
    public void TranspositionIsTheScalarOne(int rows, int columns)
    {
        Tensor x = _data.Normal(rows, 50), a = _data.Zeros(columns, 12), b = _data.Zeros(columns, 12);
        Panels.Transpose(x.F, 50, rows, columns, a.F, 12);
        Panels.TransposeScalar(x.F, 50, rows, columns, b.F, 12);
        ElementTestData.Same(b, a);
    }

    [Theory]
    [InlineData(0, 64)]
    [InlineData(2, 45)]
    [InlineData(6, 7)]
    public void EveryNf4ReaderIsTheScalarOne(int at, int n)
    {
        var codes = _data.Raw(DType.U8, 64);
        for (int i = 0; i < 64; i++) codes.B[i] = (byte)(i * 37 + 11);
        Tensor expected = _data.New(n), y = _data.New(n);
        WeightRows.Nf4Scalar(codes.B, at, n, 0.7f, expected.F);
        if (Avx2.IsSupported)
        {
            WeightRows.Nf4Vector256(codes.B, at, n, 0.7f, y.F);
            ElementTestData.Same(expected, y);
        }
        if (Avx512F.IsSupported)
        {
            WeightRows.Nf4Vector512(codes.B, at, n, 0.7f, y.F);
            ElementTestData.Same(expected, y);
        }
    }

    [Theory]
    [InlineData(0)]
    [InlineData(3)]
    [InlineData((1L << 35) - 100)] // the counter's first word wraps inside the range
    public void EveryDropoutMaskIsTheScalarOne(long first)
    {
        const int N = 300;
        var d = new Dropout(0.4f, ulong.MaxValue / 3, 5, 9);
        Tensor x = _data.Normal(N), expected = _data.Clone(x), y = _data.Clone(x);
        DropoutMask.ApplyScalar(d, first, N, expected.F);
        DropoutMask.Apply(d, first, N, y.F);
        ElementTestData.Same(expected, y);

        ulong block = (ulong)(first + 7) >> 3;
        Tensor z = _data.Clone(x), part = _data.Clone(x);
        DropoutMask.ApplyScalar(d, (long)block * 8, 128, part.F);
        if (Avx2.IsSupported)
        {
            DropoutMask.Block256(d, block, z.F);
            DropoutMask.Block256(d, block + 8, z.F + 64);
            ElementTestData.Same(part.Head(128), z.Head(128));
        }
        if (Avx512F.IsSupported)
        {
            z = _data.Clone(x);
            DropoutMask.Block512(d, block, z.F);
            ElementTestData.Same(part.Head(128), z.Head(128));
        }
    }
}
