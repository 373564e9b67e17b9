using System.Runtime.Intrinsics;
using Headroom.Core;

namespace Headroom.Cpu;

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

/// <summary>dx += mask / (1 - p) * (dxa A): the mask is on the output, so the product is made a row at a time in worker scratch.</summary>
internal static unsafe class LoraInputGradient
{
    private const int Rows = 8;

    private struct Job
    {
        public Tensor Dxa, A, Dx;
        public Dropout Dropout;
        public byte* Scratch;
    }

    public static void Run(CpuOps ops, Tensor dxa, Tensor a, in Dropout dropout, Tensor dx)
    {
        var job = new Job { Dxa = dxa, A = a, Dx = dx, Dropout = dropout, Scratch = ops.Scratch(0) };
        ops.Pool.Run(&Part, &job, (dx.Rows + Rows - 1) / Rows);
    }

    private static void Part(void* context, int part, int worker)
    {
        ref var j = ref *(Job*)context;
        int ins = j.A.Columns, r = j.A.Rows;
        float* temp = (float*)(j.Scratch + worker * CpuOps.WorkerBytes);
        for (int row = part * Rows; row < Math.Min(j.Dx.Rows, (part + 1) * Rows); row++)
        {
            float* s = j.Dxa.F + (long)row * r;
            float* dx = j.Dx.F + (long)row * ins;
            int i = 0;
            for (; i + 64 <= ins; i += 64)
            {
                Vector512<float> c0 = default, c1 = default, c2 = default, c3 = default;
                float* a = j.A.F + i;
                for (int k = 0; k < r; k++, a += ins)
                {
                    var v = Vector512.Create(s[k]);
                    c0 = Vector512.FusedMultiplyAdd(v, Vector512.Load(a), c0);
                    c1 = Vector512.FusedMultiplyAdd(v, Vector512.Load(a + 16), c1);
                    c2 = Vector512.FusedMultiplyAdd(v, Vector512.Load(a + 32), c2);
                    c3 = Vector512.FusedMultiplyAdd(v, Vector512.Load(a + 48), c3);
                }
                c0.Store(temp);
                c1.Store(temp + 16);
                c2.Store(temp + 32);
                c3.Store(temp + 48);
                DropoutMask.Apply(j.Dropout, (long)row * ins + i, 64, temp);
                for (int v = 0; v < 64; v += 16) (Vector512.Load(dx + i + v) + Vector512.Load(temp + v)).Store(dx + i + v);
            }
            int tail = ins - i;
            if (tail == 0) continue;
            for (int t = 0; t < tail; t++)
            {
                float sum = 0;
                for (int k = 0; k < r; k++) sum = MathF.FusedMultiplyAdd(s[k], j.A.F[(long)k * ins + i + t], sum);
                temp[t] = sum;
            }
            DropoutMask.Apply(j.Dropout, (long)row * ins + i, tail, temp);
            for (int t = 0; t < tail; t++) dx[i + t] += temp[t];
        }
    }
}
