using System.Runtime.InteropServices;
using Headroom.Core;

namespace Headroom.Cpu;

/// <summary>
/// Float to storage and back. NF4 as bitsandbytes' default CPU path (<c>backends/default/ops.py</c>): blocks of the
/// flattened weight, scaled by the reciprocal of absmax, code = number of thresholds below (<see cref="Nf4Encoder"/>);
/// a partial last block divides instead. Statistics as
/// <c>functional.py</c>'s quantize_blockwise (<see cref="NestedStatistics"/>).
/// </summary>
internal static unsafe class WeightWriter
{
    private const int RowsPerPart = 16, BlocksPerPart = 256;

    private struct Job
    {
        public Tensor Src, Dst;
        public LinearWeight W;
        public float* Absmax;
    }

    public static void Quantize(WorkerPool pool, Tensor src, in LinearWeight dst)
    {
        if (dst.Storage == WeightStorage.Gguf)
            throw new NotSupportedException("GGUF blocks are taken from their file as they are.");
        var job = new Job { Src = src, W = dst };
        if (dst.Storage is not (WeightStorage.NF4 or WeightStorage.NF4Double))
        {
            pool.Run(&Rows, &job, (dst.Out + RowsPerPart - 1) / RowsPerPart);
            return;
        }
        int blocks = LinearWeight.Blocks(src.Count, dst.BlockSize);
        bool nested = dst.Storage == WeightStorage.NF4Double;
        // The statistics before they are quantized themselves: a sixteenth of a 32-bit weight, for as long as this call
        // takes.
        float* absmax = nested ? (float*)NativeMemory.Alloc((nuint)blocks, 4) : dst.Absmax.F;
        try
        {
            job.Absmax = absmax;
            pool.Run(&Nf4Codes, &job, (blocks + BlocksPerPart - 1) / BlocksPerPart);
            if (nested) NestedStatistics.Quantize(pool, absmax, blocks, dst);
        }
        finally
        {
            if (nested) NativeMemory.Free(absmax);
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
                    for (int i = 0; i < n; i++)
                        ((sbyte*)j.W.Data.Address)[at + i] = (sbyte)MathF.Round(Value(j.Src, at + i) * scale);
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

    private static void Nf4Codes(void* context, int part, int worker)
    {
        ref var j = ref *(Job*)context;
        long count = j.Src.Count;
        int size = j.W.BlockSize, blocks = LinearWeight.Blocks(count, size);
        float* buffer = stackalloc float[size];
        for (long b = (long)part * BlocksPerPart; b < Math.Min(blocks, (long)(part + 1) * BlocksPerPart); b++)
        {
            int n = (int)Math.Min(size, count - b * size);
            float* x = Values(j.Src, b * size, n, buffer);
            float absmax = Nf4Encoder.AbsMax(x, n);
            if (n < size) absmax = MathF.Max(absmax, 1e-38f);
            j.Absmax[b] = absmax;
            float divisor = MathF.Max(absmax, 1e-38f);
            byte* codes = j.W.Data.B + (b * size >> 1);
            if (n < size) Nf4Encoder.Partial(x, n, divisor, codes);
            else Nf4Encoder.Encode(x, n, 1f / divisor, codes);
        }
    }

    /// <summary>Elements [first, first + n) as float32: the source's own place, or <paramref name="buffer"/>.</summary>
    private static float* Values(Tensor src, long first, int n, float* buffer)
    {
        switch (src.DType)
        {
            case DType.BF16:
                EmbeddingKernels.WidenBF16((ushort*)src.Address + first, buffer, n);
                return buffer;
            case DType.F16:
                EmbeddingKernels.WidenF16((Half*)src.Address + first, buffer, n);
                return buffer;
            default:
                return src.F + first;
        }
    }
}
