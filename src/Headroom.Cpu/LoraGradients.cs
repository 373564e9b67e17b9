using System.Runtime.CompilerServices;
using System.Runtime.Intrinsics;
using Headroom.Core;

namespace Headroom.Cpu;

/// <summary>
/// The products of LoRA's backward pass whose inner dimension is the tokens: a part is a slice of columns that walks
/// over all rows in order, so the sums depend on neither threads nor slices. The rank is the short side; dy and x are
/// not packed.
/// </summary>
internal static unsafe class LoraGradients
{
    private const int Columns = 64; // what the mask generator makes at a time
    private const int Rows = 64; // 64 x 64 floats: three such blocks lie in the first-level caches
    /// <summary>The sums of a slice of columns lie in the worker's scratch.</summary>
    public const int MaxRank = (int)(CpuOps.WorkerBytes / 4 / Columns) - Rows;
    private const int Lanes = AttentionTile.Lanes;

    private struct Job
    {
        public float* X, Xa, Dy, Dxa, A, DA, DB, Dx;
        public int Count, Ins, Outs, R;
        public float Scaling;
        public Dropout Dropout;
        public byte* Scratch;
    }

    /// <summary>
    /// dB += scaling * dy^T xa; dA += dxa^T dropout(x), skipped when none (then x is not read); dx += mask / (1 - p) *
    /// (dxa A), skipped when none.
    /// </summary>
    public static void Run(
        CpuOps ops, Tensor x, Tensor a, float scaling, in Dropout dropout, Tensor xa, Tensor dy, Tensor dxa, Tensor dA,
        Tensor dB, Tensor dx)
    {
        var job = new Job
        {
            X = x.F,
            Xa = xa.F,
            Dy = dy.F,
            Dxa = dxa.F,
            A = a.F,
            DA = dA.F,
            DB = dB.F,
            Dx = dx.F,
            Count = dy.Rows,
            Ins = a.Columns,
            Outs = dy.Columns,
            R = a.Rows,
            Scaling = scaling,
            Dropout = dropout,
            Scratch = ops.Scratch(0),
        };
        if (job.R > MaxRank) throw new NotSupportedException($"lora rank {job.R} is larger than {MaxRank}");
        ops.Pool.Run(&OutputPart, &job, (job.Outs + Columns - 1) / Columns);
        if (!dA.IsNone || !dx.IsNone) ops.Pool.Run(&InputPart, &job, (job.Ins + Columns - 1) / Columns);
    }

    /// <summary>dA += dxa^T dropout(x) alone.</summary>
    public static void RunA(CpuOps ops, Tensor x, in Dropout dropout, Tensor dxa, Tensor dA)
    {
        var job = new Job
        {
            X = x.F,
            Dxa = dxa.F,
            DA = dA.F,
            Count = x.Rows,
            Ins = x.Columns,
            R = dA.Rows,
            Dropout = dropout,
        };
        ops.Pool.Run(&InputPart, &job, (job.Ins + Columns - 1) / Columns);
    }

    private static void OutputPart(void* context, int part, int worker)
    {
        ref var j = ref *(Job*)context;
        int from = part * Columns, columns = Math.Min(Columns, j.Outs - from), r = j.R;
        float* block = (float*)(j.Scratch + worker * CpuOps.WorkerBytes), sum = block + Rows * Columns;
        new Span<float>(sum, r * Columns).Clear();
        for (int row = 0; row < j.Count; row += Rows)
        {
            // A copy, because rows that lie a multiple of 2 KB apart share a few sets of the first-level cache.
            int rows = Math.Min(Rows, j.Count - row);
            for (int i = 0; i < rows; i++) Copy(j.Dy + (long)(row + i) * j.Outs + from, block + i * Columns, columns);
            Accumulate(r, j.Xa + (long)row * r, rows, block, Columns, columns, sum, Columns);
        }
        for (int n = 0; n < columns; n++)
            for (int k = 0; k < r; k++)
            {
                float* at = j.DB + (long)(from + n) * r + k;
                *at = MathF.FusedMultiplyAdd(j.Scaling, sum[k * Columns + n], *at);
            }
    }

    [SkipLocalsInit]
    private static void InputPart(void* context, int part, int worker)
    {
        ref var j = ref *(Job*)context;
        int from = part * Columns, columns = Math.Min(Columns, j.Ins - from), r = j.R;
        bool drop = j.Dropout.P > 0;
        float* mask = stackalloc float[3 * Rows * Columns + 16];
        mask = AttentionForward.Align(mask);
        float* dropped = mask + Rows * Columns, product = dropped + Rows * Columns;
        for (int row = 0; row < j.Count; row += Rows)
        {
            int rows = Math.Min(Rows, j.Count - row);
            float* x = j.DA == null ? null : j.X + (long)row * j.Ins + from, dxa = j.Dxa + (long)row * r;
            nint ldx = j.Ins;
            if (drop)
            {
                new Span<float>(mask, Rows * Columns).Fill(1f);
                for (int i = 0; i < rows; i++)
                {
                    DropoutMask.Apply(j.Dropout, (long)(row + i) * j.Ins + from, columns, mask + i * Columns);
                    if (x != null) Multiply(x + i * ldx, mask + i * Columns, dropped + i * Columns, columns);
                }
            }
            else if (x != null)
                for (int i = 0; i < rows; i++) Copy(x + i * ldx, dropped + i * Columns, columns);
            if (x != null) Accumulate(r, dxa, rows, dropped, Columns, columns, j.DA + from, j.Ins);
            if (j.Dx == null) continue;
            Outer(rows, dxa, r, j.A + from, j.Ins, columns, product);
            for (int i = 0; i < rows; i++)
            {
                float* dx = j.Dx + (long)(row + i) * j.Ins + from;
                if (drop) MultiplyAdd(product + i * Columns, mask + i * Columns, dx, columns);
                else ElementKernels.AddRow(product + i * Columns, dx, columns);
            }
        }
    }

    // c[k][n] += sum over rows t of a[t][k] * b[t][n]
    private static void Accumulate(int r, float* a, int rows, float* b, nint ldb, int columns, float* c, nint ldc)
    {
        int n = 0;
        for (; n + Lanes <= columns; n += Lanes)
            AttentionTile.Multiply(true, r, a, 1, r, rows, b + n, ldb, c + n, ldc, AttentionTile.Start.Accumulate);
        for (; n < columns; n++)
            for (int k = 0; k < r; k++)
            {
                float sum = c[k * ldc + n];
                for (int t = 0; t < rows; t++) sum = MathF.FusedMultiplyAdd(a[t * r + k], b[t * ldb + n], sum);
                c[k * ldc + n] = sum;
            }
    }

    // c[t][n] = sum over k of a[t][k] * b[k][n]
    private static void Outer(int rows, float* a, int r, float* b, nint ldb, int columns, float* c)
    {
        int n = 0;
        for (; n + Lanes <= columns; n += Lanes)
            AttentionTile.Multiply(true, rows, a, r, 1, r, b + n, ldb, c + n, Columns, AttentionTile.Start.Zero);
        for (; n < columns; n++)
            for (int t = 0; t < rows; t++)
            {
                float sum = 0;
                for (int k = 0; k < r; k++) sum = MathF.FusedMultiplyAdd(a[t * r + k], b[k * ldb + n], sum);
                c[t * Columns + n] = sum;
            }
    }

    private static void Copy(float* x, float* y, int n)
    {
        int i = 0;
        for (; i + 8 <= n; i += 8) Vector256.Load(x + i).Store(y + i);
        for (; i < n; i++) y[i] = x[i];
    }

    private static void Multiply(float* a, float* b, float* y, int n)
    {
        int i = 0;
        for (; i + 8 <= n; i += 8) (Vector256.Load(a + i) * Vector256.Load(b + i)).Store(y + i);
        for (; i < n; i++) y[i] = a[i] * b[i];
    }

    private static void MultiplyAdd(float* a, float* b, float* y, int n)
    {
        int i = 0;
        for (; i + 8 <= n; i += 8)
            Vector256
                .FusedMultiplyAdd(Vector256.Load(a + i), Vector256.Load(b + i), Vector256.Load(y + i))
                .Store(y + i);
        for (; i < n; i++) y[i] = MathF.FusedMultiplyAdd(a[i], b[i], y[i]);
    }
}
