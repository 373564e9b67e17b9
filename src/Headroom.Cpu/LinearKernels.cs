using System.Runtime.Intrinsics;
using Headroom.Core;

namespace Headroom.Cpu;

/// <summary>y = x W^T for a few rows: each row of W is read (dequantized) once, in pieces, and multiplied with every row of x.</summary>
internal static unsafe class MatVec
{
    /// <summary>Above this the packed product is faster.</summary>
    public const int MaxRows = 4;
    private const int Piece = 512, RowsPerPart = 64;

    private struct Job
    {
        public Tensor X, Y;
        public LinearWeight W;
    }

    public static void Run(WorkerPool pool, Tensor x, in LinearWeight w, Tensor y)
    {
        var job = new Job { X = x, Y = y, W = w };
        pool.Run(&Part, &job, (w.Out + RowsPerPart - 1) / RowsPerPart);
    }

    private static void Part(void* context, int part, int worker)
    {
        ref var j = ref *(Job*)context;
        float* temp = stackalloc float[Piece];
        float* sums = stackalloc float[MaxRows];
        int end = Math.Min(j.W.Out, (part + 1) * RowsPerPart);
        for (int n = part * RowsPerPart; n < end; n++)
        {
            for (int i = 0; i < j.X.Rows; i++) sums[i] = 0;
            for (int k = 0; k < j.W.In; k += Piece)
            {
                int count = Math.Min(Piece, j.W.In - k);
                WeightRows.Read(j.W, n, k, count, temp);
                for (int i = 0; i < j.X.Rows; i++) sums[i] += Dot(temp, j.X.F + (long)i * j.W.In + k, count);
            }
            for (int i = 0; i < j.X.Rows; i++) j.Y.F[(long)i * j.W.Out + n] = sums[i];
        }
    }

    private static float Dot(float* a, float* b, int n)
    {
        var s0 = Vector512<float>.Zero;
        var s1 = Vector512<float>.Zero;
        int i = 0;
        for (; i + 32 <= n; i += 32)
        {
            s0 = Vector512.FusedMultiplyAdd(Vector512.Load(a + i), Vector512.Load(b + i), s0);
            s1 = Vector512.FusedMultiplyAdd(Vector512.Load(a + i + 16), Vector512.Load(b + i + 16), s1);
        }
        float sum = Vector512.Sum(s0 + s1);
        for (; i < n; i++) sum = MathF.FusedMultiplyAdd(a[i], b[i], sum);
        return sum;
    }
}

/// <summary>Bias of a linear layer.</summary>
internal static unsafe class BiasKernels
{
    private struct Job
    {
        public Tensor Bias, Y;
    }

    /// <summary>y[t] += bias.</summary>
    public static void Add(WorkerPool pool, Tensor bias, Tensor y)
    {
        var job = new Job { Bias = bias, Y = y };
        pool.Run(&Part, &job, y.Rows);
    }

    private static void Part(void* context, int row, int worker)
    {
        ref var j = ref *(Job*)context;
        int n = (int)j.Bias.Count;
        float* y = j.Y.F + (long)row * n;
        for (int i = 0; i < n; i++) y[i] += j.Bias.F[i];
    }

    /// <summary>dBias += column sums of dy, in row order.</summary>
    public static void Backward(Tensor dy, Tensor dBias)
    {
        int n = dy.Columns;
        for (int t = 0; t < dy.Rows; t++)
            for (int i = 0; i < n; i++) dBias.F[i] += dy.F[(long)t * n + i];
    }
}
