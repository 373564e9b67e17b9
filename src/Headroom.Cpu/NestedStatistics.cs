using System.Runtime.InteropServices;
using Headroom.Core;

namespace Headroom.Cpu;

/// <summary>
/// Double quantization's offset and codes with the very rounding that bitsandbytes has on CPU: torch's float32 mean
/// (<c>SumKernel.cpp</c>: four interleaved vectors, cascaded partial sums) and the native library's 65,536-entry lookup
/// (<c>cpu_ops.cpp</c>).
/// </summary>
internal static unsafe class NestedStatistics
{
    private const int Lanes = 8, Rows = 4, Levels = 4;

    private static readonly byte* Codes = MakeCodes();

    private struct Job
    {
        public float* Absmax;
        public int Blocks;
        public float Offset;
        public LinearWeight W;
    }

    /// <summary>Offset, nested absmax and codes of float32 statistics [blocks].</summary>
    public static void Quantize(WorkerPool pool, float* absmax, int blocks, in LinearWeight dst)
    {
        float offset = Mean(absmax, blocks);
        dst.Offset.F[0] = offset;
        var job = new Job { Absmax = absmax, Blocks = blocks, Offset = offset, W = dst };
        pool.Run(&Group, &job, LinearWeight.Blocks(blocks, 256));
    }

    private static void Group(void* context, int group, int worker)
    {
        ref var j = ref *(Job*)context;
        float* d = stackalloc float[256];
        int n = Math.Min(256, j.Blocks - group * 256);
        float max = 0;
        for (int i = 0; i < n; i++)
        {
            d[i] = j.Absmax[group * 256 + i] - j.Offset;
            max = MathF.Max(max, MathF.Abs(d[i]));
        }
        j.W.NestedAbsmax.F[group] = max;
        float inverse = 1f / max;
        for (int i = 0; i < n; i++) j.W.Absmax.B[group * 256 + i] = max == 0 ? (byte)0 : Code(d[i] * inverse);
    }

    /// <summary>
    /// Code of a value in [-1, 1]: the value is rounded to one of 65,536 even steps, whose nearest map entry is taken.
    /// </summary>
    public static byte Code(float x)
    {
        x = Math.Clamp(x, -1f, 1f);
        return float.IsNaN(x) ? (byte)0 : Codes[(int)((x + 1f) * 0.5f * 65535f + 0.5f)];
    }

    private static byte* MakeCodes()
    {
        byte* codes = (byte*)NativeMemory.Alloc(65536);
        for (int step = 0, code = 0; step < 65536; step++)
        {
            float value = step / 65535f * 2f - 1f;
            while (code < 255 && Nf4Tables.DynamicMidpoints[code] < value) code++; // values ascend
            codes[step] = (byte)code;
        }
        return codes;
    }

    /// <summary>torch.mean of the absmax of all blocks.</summary>
    public static float Mean(float* absmax, int blocks)
    {
        float* vector = stackalloc float[Lanes];
        int vectors = blocks / Lanes;
        RowSum(absmax, vectors, vector);
        float sum = 0;
        for (int i = vectors * Lanes; i < blocks; i++) sum += absmax[i];
        for (int l = 0; l < Lanes; l++) sum += vector[l];
        return sum / blocks;
    }

    private static void RowSum(float* absmax, int vectors, float* result)
    {
        int size = vectors / Rows, power = Math.Max(4, CeilLog2(size) / Levels), step = 1 << power, mask = step - 1;
        float* acc = stackalloc float[Levels * Rows * Lanes];
        new Span<float>(acc, Levels * Rows * Lanes).Clear();
        int i = 0;
        while (i + step <= size)
        {
            for (int j = 0; j < step; j++, i++) AddRow(absmax, i, acc);
            for (int level = 1; level < Levels; level++)
            {
                float* to = acc + level * Rows * Lanes, from = to - Rows * Lanes;
                for (int k = 0; k < Rows * Lanes; k++)
                {
                    to[k] += from[k];
                    from[k] = 0;
                }
                if ((i & (mask << (level * power))) != 0) break;
            }
        }
        for (; i < size; i++) AddRow(absmax, i, acc);
        for (int level = 1; level < Levels; level++)
            for (int k = 0; k < Rows * Lanes; k++) acc[k] += acc[level * Rows * Lanes + k];
        for (int v = size * Rows; v < vectors; v++)
            for (int l = 0; l < Lanes; l++) acc[l] += absmax[v * Lanes + l];
        for (int r = 1; r < Rows; r++)
            for (int l = 0; l < Lanes; l++) acc[l] += acc[r * Lanes + l];
        new ReadOnlySpan<float>(acc, Lanes).CopyTo(new Span<float>(result, Lanes));
    }

    private static void AddRow(float* absmax, int row, float* acc)
    {
        for (int k = 0; k < Rows * Lanes; k++) acc[k] += absmax[row * Rows * Lanes + k];
    }

    private static int CeilLog2(int n) =>
        n <= 1 ? 0 : 32 - System.Numerics.BitOperations.LeadingZeroCount((uint)(n - 1));
}
