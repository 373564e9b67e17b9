using System.Runtime.Intrinsics;
using System.Runtime.Intrinsics.X86;
using Headroom.Core;

namespace Headroom.Cpu;

/// <summary>Embedding look-up from float32, bfloat16, float16, int8 and GGUF tables, and its gradient.</summary>
internal static unsafe class EmbeddingKernels
{
    private const int Rows = 16, Columns = 64;

    private struct Context
    {
        public int* Ids;
        public byte* Table;
        public float* Absmax, Y;
        public int Count, H;
        public WeightStorage Storage;
        public LinearWeight Weight;
    }

    public static void Forward(WorkerPool pool, Tensor ids, in LinearWeight table, Tensor y)
    {
        if (table.Storage is WeightStorage.NF4 or WeightStorage.NF4Double)
            throw new NotSupportedException("An embedding table cannot be stored as NF4.");
        var c = new Context
        {
            Ids = ids.I,
            Table = table.Data.B,
            Absmax = table.Absmax.F,
            Y = y.F,
            Count = (int)ids.Count,
            H = table.In,
            Storage = table.Storage,
            Weight = table,
        };
        pool.Run(&ForwardPart, &c, (c.Count + Rows - 1) / Rows);
    }

    private static void ForwardPart(void* context, int part, int worker)
    {
        var c = (Context*)context;
        int h = c->H, end = Math.Min(c->Count, (part + 1) * Rows);
        for (int t = part * Rows; t < end; t++)
        {
            long row = c->Ids[t];
            float* y = c->Y + (long)t * h;
            switch (c->Storage)
            {
                case WeightStorage.F32: Buffer.MemoryCopy((float*)c->Table + row * h, y, h * 4L, h * 4L); break;
                case WeightStorage.BF16: WidenBF16((ushort*)c->Table + row * h, y, h); break;
                case WeightStorage.F16: WidenF16((Half*)c->Table + row * h, y, h); break;
                case WeightStorage.Gguf: WeightRows.Read(c->Weight, (int)row, 0, h, y); break;
                default: WidenInt8((sbyte*)c->Table + row * h, c->Absmax[row] / 127f, y, h); break;
            }
        }
    }

    /// <summary>y = bfloat16 x.</summary>
    public static void WidenBF16(ushort* x, float* y, int n)
    {
        int i = 0;
        if (Avx512F.IsSupported)
            for (; i <= n - 16; i += 16)
                (Avx512F.ConvertToVector512Int32(Vector256.Load(x + i)) << 16).AsSingle().Store(y + i);
        for (; i <= n - 8; i += 8)
            Vector256.Store((Vector256.WidenLower(Vector128.Load(x + i).ToVector256()) << 16).AsSingle(), y + i);
        WidenBF16Scalar(x + i, y + i, n - i);
    }

    /// <summary>Scalar twin of <see cref="WidenBF16"/>.</summary>
    public static void WidenBF16Scalar(ushort* x, float* y, int n)
    {
        for (int i = 0; i < n; i++) y[i] = BitConverter.Int32BitsToSingle(x[i] << 16);
    }

    /// <summary>
    /// y = float16 x: exponent and fraction moved to their float32 places, times 2^112 for the difference of the biases
    /// (exact, subnormals too); an exponent of all ones becomes float32's.
    /// </summary>
    public static void WidenF16(Half* x, float* y, int n)
    {
        int i = 0;
        for (; i <= n - 8; i += 8)
        {
            var bits = Vector256.WidenLower(Vector128.Load((ushort*)x + i).ToVector256());
            var magnitude = bits & Vector256.Create(0x7FFFu);
            var value = (
                (magnitude << 13).AsSingle() * Vector256.Create(5192296858534827628530496329220096f)).AsUInt32();
            var special = Vector256.GreaterThan(magnitude, Vector256.Create(0x7BFFu)) & Vector256.Create(0x7F800000u);
            Vector256.Store((value | special | ((bits & Vector256.Create(0x8000u)) << 16)).AsSingle(), y + i);
        }
        WidenF16Scalar(x + i, y + i, n - i);
    }

    /// <summary>Scalar twin of <see cref="WidenF16"/>.</summary>
    public static void WidenF16Scalar(Half* x, float* y, int n)
    {
        for (int i = 0; i < n; i++) y[i] = (float)x[i];
    }

    /// <summary>y = x * scale.</summary>
    public static void WidenInt8(sbyte* x, float scale, float* y, int n)
    {
        int i = 0;
        for (; i <= n - 16; i += 16)
        {
            var wide = Vector256.WidenLower(Vector128.Load(x + i).ToVector256());
            Vector256.Store(Vector256.ConvertToSingle(Vector256.WidenLower(wide)) * scale, y + i);
            Vector256.Store(Vector256.ConvertToSingle(Vector256.WidenUpper(wide)) * scale, y + i + 8);
        }
        WidenInt8Scalar(x + i, scale, y + i, n - i);
    }

    /// <summary>Scalar twin of <see cref="WidenInt8"/>.</summary>
    public static void WidenInt8Scalar(sbyte* x, float scale, float* y, int n)
    {
        for (int i = 0; i < n; i++) y[i] = x[i] * scale;
    }

    private struct NoiseContext
    {
        public float* Y;
        public int* Offsets;
        public int H;
        public EmbeddingNoise Noise;
    }

    /// <summary>
    /// Noise of a whole sequence at a time: a Philox block of 30 ns serves four elements, which is 0.1 % of a step.
    /// </summary>
    public static void AddNoise(WorkerPool pool, Tensor offsets, in EmbeddingNoise noise, Tensor y)
    {
        var c = new NoiseContext { Y = y.F, Offsets = offsets.I, H = y.Columns, Noise = noise };
        pool.Run(&NoisePart, &c, offsets.Rows - 1);
    }

    private static void NoisePart(void* context, int sequence, int worker)
    {
        var c = (NoiseContext*)context;
        int from = c->Offsets[sequence], to = c->Offsets[sequence + 1], h = c->H;
        var (_, seed, step) = c->Noise;
        float most = c->Noise.Magnitude(to - from, h);
        for (int row = from; row < to; row++)
        {
            float* y = c->Y + (long)row * h;
            for (int i = 0; i < h; i += 4)
            {
                var r = Philox.Next(
                    (uint)i / 4, (uint)row, EmbeddingNoise.Site, step, (uint)seed, (uint)(seed >> 32));
                ReadOnlySpan<uint> words = [r.X0, r.X1, r.X2, r.X3];
                for (int k = 0; k < Math.Min(4, h - i); k++) y[i + k] += most * (2 * Philox.ToUniform(words[k]) - 1);
            }
        }
    }

    /// <summary>Parallel over column slices, so each element of the gradient is summed in token order.</summary>
    public static void Backward(WorkerPool pool, Tensor ids, Tensor dy, Tensor dTable)
    {
        var c = new Context { Ids = ids.I, Table = dy.B, Y = dTable.F, Count = (int)ids.Count, H = dTable.Columns };
        pool.Run(&BackwardPart, &c, (c.H + Columns - 1) / Columns);
    }

    private static void BackwardPart(void* context, int part, int worker)
    {
        var c = (Context*)context;
        int from = part * Columns, n = Math.Min(Columns, c->H - from);
        float* dy = (float*)c->Table;
        for (int t = 0; t < c->Count; t++)
            ElementKernels.AddRow(dy + (long)t * c->H + from, c->Y + (long)c->Ids[t] * c->H + from, n);
    }
}
