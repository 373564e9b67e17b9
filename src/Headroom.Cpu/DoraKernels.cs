using System.Runtime.CompilerServices;
using System.Runtime.Intrinsics;
using Headroom.Core;

namespace Headroom.Cpu;

/// <summary>
/// DoRA's own arithmetic (Liu et al., 2024; PEFT <c>lora/dora.py</c>): row norms of W + scaling * B A, the scaling of
/// columns and its gradient; dropout as a tensor.
/// </summary>
internal static unsafe class DoraKernels
{
    private const int Chunk = 1 << 13; // elements of a part
    private const int Columns = 64; // of a part that sums over rows: a cache line and more of every row
    private const int RowsPerPart = 8;
    // columns of a row at a time: weight, adapter and the rows of A stay in the second-level cache
    private const int Piece = 2048;

    private struct Job
    {
        public float* X, Y, U, Scale, Bias, Norm, Sum;
        public long Count;
        public int Rows, Columns;
        public bool Rest, Accumulate;
        public Dropout Dropout;
        public byte* Scratch;
    }

    private struct ScaleJob
    {
        public LinearWeight W;
        public float* A, B, Magnitude, Norm, Scale;
        public int R;
        public float Scaling;
        public byte* Scratch;
    }

    /// <summary>y = drop(x) or x - drop(x), += when accumulate.</summary>
    public static void Drop(CpuOps ops, Tensor x, in Dropout dropout, bool rest, bool accumulate, Tensor y)
    {
        var job = new Job
        {
            X = x.F,
            Y = y.F,
            Count = x.Count,
            Rest = rest,
            Accumulate = accumulate,
            Dropout = dropout,
            Scratch = ops.Scratch(0),
        };
        ops.Pool.Run(&DropPart, &job, (int)((x.Count + Chunk - 1) / Chunk));
    }

    private static void DropPart(void* context, int part, int worker)
    {
        ref var j = ref *(Job*)context;
        long first = (long)part * Chunk;
        int n = (int)Math.Min(Chunk, j.Count - first);
        float* x = j.X + first, y = j.Y + first, kept = (float*)(j.Scratch + worker * CpuOps.WorkerBytes);
        Unsafe.CopyBlockUnaligned(kept, x, (uint)n * 4);
        if (j.Dropout.P > 0) DropoutMask.Apply(j.Dropout, first, n, kept);
        if (j.Rest)
            for (int i = 0; i < n; i++) kept[i] = x[i] - kept[i];
        if (j.Accumulate) ElementKernels.AddRow(kept, y, n);
        else Unsafe.CopyBlockUnaligned(y, kept, (uint)n * 4);
    }

    /// <summary>norm and scale = magnitude / norm; squares are summed in double, in the order of the columns.</summary>
    public static void Scale(
        CpuOps ops, in LinearWeight w, Tensor a, Tensor b, float scaling, Tensor magnitude, Tensor norm, Tensor scale)
    {
        var job = new ScaleJob
        {
            W = w,
            A = a.F,
            B = b.F,
            Magnitude = magnitude.F,
            Norm = norm.F,
            Scale = scale.F,
            R = a.Rows,
            Scaling = scaling,
            Scratch = ops.Scratch(0),
        };
        ops.Pool.Run(&ScalePart, &job, (w.Out + RowsPerPart - 1) / RowsPerPart);
    }

    private static void ScalePart(void* context, int part, int worker)
    {
        ref var j = ref *(ScaleJob*)context;
        float* row = (float*)(j.Scratch + worker * CpuOps.WorkerBytes), delta = row + Piece;
        int first = part * RowsPerPart, rows = Math.Min(RowsPerPart, j.W.Out - first);
        double* squares = stackalloc double[RowsPerPart];
        for (int i = 0; i < rows; i++) squares[i] = 0;
        for (int column = 0; column < j.W.In; column += Piece)
        {
            int n = Math.Min(Piece, j.W.In - column);
            for (int i = 0; i < rows; i++)
            {
                WeightRows.Read(j.W, first + i, column, n, row);
                new Span<float>(delta, n).Clear();
                for (int k = 0; k < j.R; k++)
                    VectorMath.Axpy(j.B[(long)(first + i) * j.R + k], j.A + (long)k * j.W.In + column, delta, n);
                VectorMath.Axpy(j.Scaling, delta, row, n);
                squares[i] += OptimizerKernels.SumSquares(row, n);
            }
        }
        for (int i = 0; i < rows; i++)
        {
            // a row of zeros has no direction: it is left as it is
            float norm = squares[i] > 0 || double.IsNaN(squares[i]) ? (float)Math.Sqrt(squares[i]) : 1;
            j.Norm[first + i] = norm;
            j.Scale[first + i] = j.Magnitude[first + i] / norm;
        }
    }

    /// <summary>y = scale * u + bias, += when accumulate.</summary>
    public static void Forward(WorkerPool pool, Tensor u, Tensor scale, Tensor bias, bool accumulate, Tensor y)
    {
        var job = new Job
        {
            X = u.F,
            Y = y.F,
            Scale = scale.F,
            Bias = bias.F,
            Columns = u.Columns,
            Accumulate = accumulate,
        };
        pool.Run(&ForwardPart, &job, u.Rows);
    }

    private static void ForwardPart(void* context, int part, int worker)
    {
        ref var j = ref *(Job*)context;
        float* u = j.X + (long)part * j.Columns, y = j.Y + (long)part * j.Columns;
        int i = 0, n = j.Columns;
        for (; i + 8 <= n; i += 8)
        {
            var add = j.Bias == null ? default : Vector256.Load(j.Bias + i);
            if (j.Accumulate) add += Vector256.Load(y + i);
            Vector256.FusedMultiplyAdd(Vector256.Load(u + i), Vector256.Load(j.Scale + i), add).Store(y + i);
        }
        for (; i < n; i++)
            y[i] = MathF.FusedMultiplyAdd(
                u[i], j.Scale[i], (j.Bias == null ? 0 : j.Bias[i]) + (j.Accumulate ? y[i] : 0));
    }

    /// <summary>dMagnitude += column sums of dy * u / norm, over the rows in order; du = scale * dy.</summary>
    public static void Backward(
        WorkerPool pool, Tensor dy, Tensor u, Tensor scale, Tensor norm, Tensor du, Tensor dMagnitude)
    {
        var job = new Job
        {
            X = dy.F,
            Y = du.F,
            Scale = scale.F,
            U = u.F,
            Norm = norm.F,
            Sum = dMagnitude.F,
            Rows = dy.Rows,
            Columns = dy.Columns,
        };
        pool.Run(&BackwardPart, &job, (dy.Columns + Columns - 1) / Columns);
    }

    private static void BackwardPart(void* context, int part, int worker)
    {
        ref var j = ref *(Job*)context;
        int from = part * Columns, n = Math.Min(Columns, j.Columns - from);
        float* sum = stackalloc float[Columns];
        new Span<float>(sum, Columns).Clear();
        for (int row = 0; row < j.Rows; row++)
        {
            long at = (long)row * j.Columns + from;
            float* dy = j.X + at, u = j.U + at, du = j.Y + at, scale = j.Scale + from;
            int i = 0;
            for (; i + 8 <= n; i += 8)
            {
                var g = Vector256.Load(dy + i);
                Vector256.FusedMultiplyAdd(g, Vector256.Load(u + i), Vector256.Load(sum + i)).Store(sum + i);
                (g * Vector256.Load(scale + i)).Store(du + i);
            }
            for (; i < n; i++)
            {
                float g = dy[i];
                sum[i] = MathF.FusedMultiplyAdd(g, u[i], sum[i]);
                du[i] = g * scale[i];
            }
        }
        for (int i = 0; i < n; i++) j.Sum[from + i] += sum[i] / j.Norm[from + i];
    }
}
