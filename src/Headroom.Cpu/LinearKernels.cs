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
