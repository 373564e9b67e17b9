using System.Runtime.InteropServices;
using Headroom.Core;
using Headroom.Cpu;

namespace Headroom.Tests.Cpu;

/// <summary>Native buffers and comparisons for the tests of element-wise ops and attention.</summary>
internal sealed unsafe class ElementTestData : IDisposable
{
    private readonly List<nint> _blocks = [];
    private readonly PhiloxRandom _random;

    public ElementTestData(ulong seed = 1, int threads = 2)
    {
        _random = new PhiloxRandom(seed);
        Ops = new CpuOps(threads);
    }

    public CpuOps Ops { get; }

    public Tensor Raw(DType dtype, params int[] shape)
    {
        var s = shape.Length switch
        {
            1 => new Shape(shape[0]),
            2 => new Shape(shape[0], shape[1]),
            _ => new Shape(shape[0], shape[1], shape[2]),
        };
        nint p = (nint)NativeMemory.AllocZeroed((nuint)dtype.Bytes(s.Count) + 64);
        _blocks.Add(p);
        return new Tensor(p, dtype, s);
    }

    public Tensor New(params int[] shape)
    {
        var t = Raw(DType.F32, shape);
        new Span<float>(t.F, (int)t.Count).Fill(float.NaN); // An op that does not write its output is found out.
        return t;
    }

    public Tensor Zeros(params int[] shape) => Raw(DType.F32, shape);

    public Tensor Normal(params int[] shape)
    {
        var t = Raw(DType.F32, shape);
        for (long i = 0; i < t.Count; i++) t.F[i] = _random.NextNormal();
        return t;
    }

    public Tensor Ints(params int[] values)
    {
        var t = Raw(DType.I32, values.Length);
        values.CopyTo(new Span<int>(t.I, values.Length));
        return t;
    }

    public Tensor Clone(Tensor x)
    {
        var t = Raw(x.DType, x.Shape.D0, x.Shape.D1, x.Shape.D2) with { Shape = x.Shape };
        Buffer.MemoryCopy(x.B, t.B, x.Bytes, x.Bytes);
        return t;
    }

    public static double[] Doubles(Tensor x)
    {
        var a = new double[x.Count];
        for (int i = 0; i < a.Length; i++) a[i] = x.F[i];
        return a;
    }

    public static Span<float> Floats(Tensor x) => new(x.F, (int)x.Count);

    public static void Same(Tensor expected, Tensor actual) =>
        Assert.True(
            new Span<byte>(expected.B, (int)expected.Bytes).SequenceEqual(new Span<byte>(actual.B, (int)actual.Bytes)),
            "not bit-identical");

    public static void Near(double[] expected, Tensor actual, double tolerance = 1e-5)
    {
        for (int i = 0; i < expected.Length; i++)
            Assert.True(
                Math.Abs(expected[i] - actual.F[i]) <= tolerance * (1 + Math.Abs(expected[i])),
                $"[{i}] expected {expected[i]}, was {actual.F[i]}");
    }

    public static void Near(double[] expected, double[] actual, double tolerance)
    {
        for (int i = 0; i < expected.Length; i++)
            Assert.True(
                Math.Abs(expected[i] - actual[i]) <= tolerance * (1 + Math.Abs(expected[i])),
                $"[{i}] expected {expected[i]}, was {actual[i]}");
    }

    /// <summary>Central differences of sum(f(x) * dy) with respect to x.</summary>
    public static double[] Gradient(double[] x, double[] dy, Func<double[], double[]> f, double h = 1e-5)
    {
        var g = new double[x.Length];
        for (int i = 0; i < x.Length; i++)
        {
            double keep = x[i];
            x[i] = keep + h;
            double[] up = f(x);
            x[i] = keep - h;
            double[] down = f(x);
            x[i] = keep;
            double sum = 0;
            for (int j = 0; j < dy.Length; j++) sum += (up[j] - down[j]) * dy[j];
            g[i] = sum / (2 * h);
        }
        return g;
    }

    public void Dispose()
    {
        Ops.Dispose();
        foreach (nint p in _blocks) NativeMemory.Free((void*)p);
    }
}
