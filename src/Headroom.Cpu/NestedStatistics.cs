using Headroom.Core;

namespace Headroom.Cpu;

/// <summary>
/// Double quantization's offset and codes with the very rounding that bitsandbytes has on CPU: torch's float32 mean (<c>SumKernel.cpp</c>: four
/// interleaved vectors, cascaded partial sums) and the native library's 65,536-entry lookup (<c>cpu_ops.cpp</c>).
/// </summary>
internal static unsafe class NestedStatistics
{
    private const int Lanes = 8, Rows = 4, Levels = 4;

    /// <summary>Code of a value in [-1, 1]: the value is rounded to one of 65,536 even steps, whose nearest map entry is taken.</summary>
    public static byte Code(float x)
    {
        x = Math.Clamp(x, -1f, 1f);
        int step = (int)((x + 1f) * 0.5f * 65535f + 0.5f);
        float value = step / 65535f * 2f - 1f;
        int low = 0, high = 255;
        while (low < high)
        {
            int mid = (low + high) >> 1;
            if (Nf4Tables.DynamicMidpoints[mid] < value) low = mid + 1;
            else high = mid;
        }
        return (byte)low;
    }

    /// <summary>torch.mean of the absmax of all blocks.</summary>
    public static float Mean(Tensor src, in LinearWeight w, int blocks)
    {
        float* vector = stackalloc float[Lanes];
        int vectors = blocks / Lanes;
        RowSum(src, w, vectors, vector);
        float sum = 0;
        for (int i = vectors * Lanes; i < blocks; i++) sum += WeightWriter.BlockAbsmax(src, w, i);
        for (int l = 0; l < Lanes; l++) sum += vector[l];
        return sum / blocks;
    }

    private static void RowSum(Tensor src, in LinearWeight w, int vectors, float* result)
    {
        int size = vectors / Rows, power = Math.Max(4, CeilLog2(size) / Levels), step = 1 << power, mask = step - 1;
        float* acc = stackalloc float[Levels * Rows * Lanes];
        new Span<float>(acc, Levels * Rows * Lanes).Clear();
        int i = 0;
        while (i + step <= size)
        {
            for (int j = 0; j < step; j++, i++) AddRow(src, w, i, acc);
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
        for (; i < size; i++) AddRow(src, w, i, acc);
        for (int level = 1; level < Levels; level++)
            for (int k = 0; k < Rows * Lanes; k++) acc[k] += acc[level * Rows * Lanes + k];
        for (int v = size * Rows; v < vectors; v++)
            for (int l = 0; l < Lanes; l++) acc[l] += WeightWriter.BlockAbsmax(src, w, (long)v * Lanes + l);
        for (int r = 1; r < Rows; r++)
            for (int l = 0; l < Lanes; l++) acc[l] += acc[r * Lanes + l];
        new ReadOnlySpan<float>(acc, Lanes).CopyTo(new Span<float>(result, Lanes));
    }

    private static void AddRow(Tensor src, in LinearWeight w, int row, float* acc)
    {
        for (int k = 0; k < Rows * Lanes; k++) acc[k] += WeightWriter.BlockAbsmax(src, w, (long)row * Rows * Lanes + k);
    }

    private static int CeilLog2(int n) => n <= 1 ? 0 : 32 - System.Numerics.BitOperations.LeadingZeroCount((uint)(n - 1));
}
