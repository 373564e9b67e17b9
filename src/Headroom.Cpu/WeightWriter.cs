using Headroom.Core;

namespace Headroom.Cpu;

/// <summary>
/// Float to storage and back. NF4 as bitsandbytes' default CPU path (<c>backends/default/ops.py</c>): blocks of the flattened weight, scaled by the
/// reciprocal of absmax, code = number of thresholds below; a partial last block divides instead. Statistics as <c>functional.py</c>'s quantize_blockwise.
/// </summary>
internal static unsafe class WeightWriter
{
    private const int RowsPerPart = 16, BlocksPerPart = 256;

    private struct Job
    {
        public Tensor Src, Dst;
        public LinearWeight W;
    }

    public static void Quantize(WorkerPool pool, Tensor src, in LinearWeight dst)
    {
        if (dst.Storage == WeightStorage.Gguf) throw new NotSupportedException("GGUF blocks are taken from their file as they are.");
        var job = new Job { Src = src, W = dst };
        if (dst.Storage is not (WeightStorage.NF4 or WeightStorage.NF4Double))
        {
            pool.Run(&Rows, &job, (dst.Out + RowsPerPart - 1) / RowsPerPart);
            return;
        }
        int blocks = LinearWeight.Blocks(src.Count, dst.BlockSize);
        pool.Run(&Nf4Codes, &job, (blocks + BlocksPerPart - 1) / BlocksPerPart);
        if (dst.Storage != WeightStorage.NF4Double) return;
        float offset = NestedStatistics.Mean(src, dst, blocks);
        dst.Offset.F[0] = offset;
        float* d = stackalloc float[256];
        for (int group = 0; group * 256 < blocks; group++)
        {
            int n = Math.Min(256, blocks - group * 256);
            float max = 0;
            for (int i = 0; i < n; i++)
            {
                d[i] = BlockAbsmax(src, dst, (long)group * 256 + i) - offset;
                max = MathF.Max(max, MathF.Abs(d[i]));
            }
            dst.NestedAbsmax.F[group] = max;
            float inverse = 1f / max;
            for (int i = 0; i < n; i++) dst.Absmax.B[group * 256 + i] = max == 0 ? (byte)0 : NestedStatistics.Code(d[i] * inverse);
        }
    }

    public static void Dequantize(WorkerPool pool, in LinearWeight src, Tensor dst)
    {
        var job = new Job { Dst = dst, W = src };
        pool.Run(&ReadRows, &job, (src.Out + RowsPerPart - 1) / RowsPerPart);
    }

    private static void ReadRows(void* context, int part, int worker)
    {
        ref var j = ref *(Job*)context;
        for (int r = part * RowsPerPart; r < Math.Min(j.W.Out, (part + 1) * RowsPerPart); r++)
            WeightRows.Read(j.W, r, 0, j.W.In, j.Dst.F + (long)r * j.W.In);
    }

    private static float Value(Tensor src, long i) => src.DType switch
    {
        DType.BF16 => BitConverter.UInt32BitsToSingle((uint)((ushort*)src.Address)[i] << 16),
        DType.F16 => (float)((Half*)src.Address)[i],
        _ => src.F[i],
    };

    private static void Rows(void* context, int part, int worker)
    {
        ref var j = ref *(Job*)context;
        int n = j.W.In;
        for (int r = part * RowsPerPart; r < Math.Min(j.W.Out, (part + 1) * RowsPerPart); r++)
        {
            long at = (long)r * n;
            switch (j.W.Storage)
            {
                case WeightStorage.F32:
                    for (int i = 0; i < n; i++) j.W.Data.F[at + i] = Value(j.Src, at + i);
                    break;
                case WeightStorage.BF16:
                    for (int i = 0; i < n; i++) ((ushort*)j.W.Data.Address)[at + i] = ToBf16(Value(j.Src, at + i));
                    break;
                case WeightStorage.F16:
                    for (int i = 0; i < n; i++) ((Half*)j.W.Data.Address)[at + i] = (Half)Value(j.Src, at + i);
                    break;
                default:
                    float max = 0;
                    for (int i = 0; i < n; i++) max = MathF.Max(max, MathF.Abs(Value(j.Src, at + i)));
                    j.W.Absmax.F[r] = max;
                    float scale = max == 0 ? 0 : 127f / max;
                    for (int i = 0; i < n; i++) ((sbyte*)j.W.Data.Address)[at + i] = (sbyte)MathF.Round(Value(j.Src, at + i) * scale);
                    break;
            }
        }
    }

    /// <summary>Round to nearest even (torch <c>BFloat16.h</c>).</summary>
    public static ushort ToBf16(float x)
    {
        uint u = BitConverter.SingleToUInt32Bits(x);
        return float.IsNaN(x) ? (ushort)0x7FC0 : (ushort)((u + 0x7FFF + ((u >> 16) & 1)) >> 16);
    }

    public static float BlockAbsmax(Tensor src, in LinearWeight w, long block)
    {
        long first = block * w.BlockSize, end = Math.Min(src.Count, first + w.BlockSize);
        float max = 0;
        for (long i = first; i < end; i++) max = MathF.Max(max, MathF.Abs(Value(src, i)));
        return end - first < w.BlockSize ? MathF.Max(max, 1e-38f) : max;
    }

    private static void Nf4Codes(void* context, int part, int worker)
    {
        ref var j = ref *(Job*)context;
        long count = j.Src.Count;
        int size = j.W.BlockSize, blocks = LinearWeight.Blocks(count, size);
        for (long b = (long)part * BlocksPerPart; b < Math.Min(blocks, (long)(part + 1) * BlocksPerPart); b++)
        {
            long first = b * size, end = Math.Min(count, first + size);
            float absmax = BlockAbsmax(j.Src, j.W, b), divisor = MathF.Max(absmax, 1e-38f), inverse = 1f / divisor;
            bool partial = end - first < size;
            if (j.W.Storage == WeightStorage.NF4) j.W.Absmax.F[b] = absmax;
            for (long i = first; i < end; i += 2)
            {
                int high = Nf4Code(Scaled(Value(j.Src, i), inverse, divisor, partial));
                int low = i + 1 < end ? Nf4Code(Scaled(Value(j.Src, i + 1), inverse, divisor, partial)) : 7;
                j.W.Data.B[i >> 1] = (byte)((high << 4) | low);
            }
        }
    }

    private static float Scaled(float x, float inverse, float divisor, bool partial) => Math.Clamp(partial ? x / divisor : x * inverse, -1f, 1f);

    private static int Nf4Code(float x)
    {
        int code = 0;
        for (int i = 0; i < 15; i++) code += x > Nf4Tables.Thresholds[i] ? 1 : 0;
        return code;
    }
}
