using CsCheck;
using Headroom.Core;
using Headroom.Formats.Gguf;
using Headroom.Tests.Models;

namespace Headroom.Tests.Formats;

/// <summary>
/// The GGUF reader on files written here byte by byte: block layouts, row order of q and k, and what is refused.
/// </summary>
public sealed class GgufReaderTests : IDisposable
{
    private readonly string _folder = Directory.CreateTempSubdirectory("headroom-gguf").FullName;
    private static readonly ModelConfig Config = TinyModel.Small(layers: 2) with
    {
        HeadDim = 16,
        RopeTheta = 50000,
        MaxPositionEmbeddings = 77,
    };

    public void Dispose() => Directory.Delete(_folder, true);

    private string Save(byte[] bytes)
    {
        string path = Path.Combine(_folder, Guid.NewGuid().ToString("N") + ".gguf");
        File.WriteAllBytes(path, bytes);
        return path;
    }

    private static float[] Row => Enumerable.Range(0, 32).Select(i => (i - 16) / 10f).ToArray();

    // The byte-exact blocks of the format notes for x = (i - 16) / 10: scale first, then codes; element j + 16 is the
    // high nibble of byte j.
    private static readonly byte[] Q8Block =
    [
        0x73,
        0x22,
        .. new sbyte[]
        {
            -127, -119, -111, -103, -95, -87, -79, -71, -64, -56, -48, -40, -32, -24, -16, -8, 0, 8, 16, 24, 32, 40, 48,
            56, 64, 71, 79, 87, 95, 103, 111, 119,
        }.Select(q => unchecked((byte)q)),
    ];
    private static readonly byte[] Q4Block =
    [
        0x66, 0x32, 0x80, 0x91, 0x91, 0xa2, 0xa2, 0xb3, 0xb3, 0xc4, 0xc4, 0xd5, 0xd5, 0xe6, 0xe6, 0xf7, 0xf7, 0xf8];

    private float[] Read(uint type, byte[] data, int columns = 32, int rows = 1)
    {
        using var file = new GgufFile(
            Save(new GgufBuilder().Tensor("t", [(ulong)columns, (ulong)rows], type, data).Build()));
        var values = new float[columns * rows];
        file.DequantizeRows("t", 0, rows, values);
        return values;
    }

    [Fact]
    public void ReadsPlainTypesExactly()
    {
        Assert.Equal(Row, Read(0, GgufBuilder.Floats(Row)));
        Assert.Equal(
            Row.Select(v => (float)(Half)v), Read(1, Row.SelectMany(v => BitConverter.GetBytes((Half)v)).ToArray()));
        Assert.Equal(Row.Select(v => BitConverter.UInt32BitsToSingle(BitConverter.SingleToUInt32Bits(v) & 0xFFFF0000)),
            Read(
                30,
                Row.SelectMany(v => BitConverter.GetBytes((ushort)(BitConverter.SingleToUInt32Bits(v) >> 16))).ToArray()
            )
        );
    }

    [Fact]
    public void ReadsBlockTypesExactly()
    {
        float[] q8 = Read(8, Q8Block), q4 = Read(2, Q4Block);
        float d8 = (float)BitConverter.UInt16BitsToHalf(0x2273), d4 = (float)BitConverter.UInt16BitsToHalf(0x3266);
        for (int i = 0; i < 32; i++)
        {
            Assert.Equal(d8 * (sbyte)Q8Block[2 + i], q8[i]);
            Assert.Equal(((i < 16 ? Q4Block[2 + i] & 15 : Q4Block[2 + i - 16] >> 4) - 8) * d4, q4[i]);
            Assert.Equal(Row[i], q8[i], d8 / 2 + 1e-3f);
            Assert.Equal(Row[i], q4[i], d4);
        }
        Assert.Equal(-1.6f, q4[0], 1e-3f); // the extreme value is code 0

        byte[] q41 = new byte[20]; // d = 0.5, m = -3: x = q / 2 - 3
        BitConverter.GetBytes((Half)0.5f).CopyTo(q41, 0);
        BitConverter.GetBytes((Half)(-3f)).CopyTo(q41, 2);
        for (int j = 0; j < 16; j++) q41[4 + j] = (byte)(j | (15 - j) << 4);
        Assert.Equal(Enumerable.Range(0, 32).Select(i => (i < 16 ? i : 31 - i) * 0.5f - 3), Read(3, q41));
    }

    [Fact]
    public void ReadsAnyRowOfSeveralBlocks()
    {
        byte[] data = [.. Q8Block, .. Q8Block, .. Q8Block, .. Q8Block, .. Q8Block, .. Q8Block];
        for (int b = 0; b < 6; b++) data[b * 34 + 2] = (byte)b; // the first code tells the block
        using var file = new GgufFile(
            Save(new GgufBuilder().Tensor("first", [32], 8, Q8Block).Tensor("t", [64, 3], 8, data).Build()));
        // GGUF names the innermost dimension first
        Assert.Equal((3, 64), (file.Tensors["t"].Rows, file.Tensors["t"].Columns));
        var row = new float[64];
        file.DequantizeRows("t", 2, 1, row);
        float d = (float)BitConverter.UInt16BitsToHalf(0x2273);
        Assert.Equal((4 * d, 5 * d), (row[0], row[32]));
        Assert.Throws<ArgumentOutOfRangeException>(() => file.DequantizeRows("t", 2, 2, new float[128]));
    }

    [Fact]
    public void ReadsEveryMetadataType()
    {
        static byte[] Array(uint type, ulong n, params byte[][] items) =>
            [.. BitConverter.GetBytes(type), .. BitConverter.GetBytes(n), .. items.SelectMany(b => b)];
        var b = new GgufBuilder { Version = 2 }
            .Raw("u8", 0, [200])
            .Raw("i8", 1, [200])
            .Raw("u16", 2, [0xFE, 0xFF])
            .Raw("i16", 3, [0xFE, 0xFF])
            .U32("u32", uint.MaxValue)
            .Raw("i32", 5, [0xFF, 0xFF, 0xFF, 0xFF])
            .F32("f32", 0.1f)
            .Raw("bool", 7, [1])
            .Text("text", "Grüße\n")
            .Raw("u64", 10, BitConverter.GetBytes(ulong.MaxValue))
            .Raw("i64", 11, BitConverter.GetBytes(-5L))
            .Raw("f64", 12, BitConverter.GetBytes(0.1))
            .Raw("strings", 9, Array(8, 2, GgufBuilder.String("a"), GgufBuilder.String("")))
            .Raw("floats", 9, Array(6, 2, BitConverter.GetBytes(1.5f), BitConverter.GetBytes(-2f)))
            .Raw("ints", 9, Array(5, 2, BitConverter.GetBytes(-1), BitConverter.GetBytes(7)))
            .Raw("flags", 9, Array(7, 2, [0], [1])).Raw("empty", 9, Array(8, 0));
        using var f = new GgufFile(Save(b.Build()));
        Assert.Equal(
            new long?[] { 200, -56, 65534, -2, uint.MaxValue, -1, -5, null },
            new[] { "u8", "i8", "u16", "i16", "u32", "i32", "i64", "u64" }.Select(f.Int));
        Assert.Equal(
            (0.1f, 0.1, true, "Grüße\n"),
            ((float)f.Number("f32")!.Value, f.Number("f64"), f.Flag("bool"), f.Text("text")));
        Assert.Equal(["a", ""], Assert.IsType<string[]>(f.Metadata["strings"]));
        Assert.Equal([1.5f, -2f], Assert.IsType<float[]>(f.Metadata["floats"]));
        Assert.Equal([-1L, 7L], Assert.IsType<long[]>(f.Metadata["ints"]));
        Assert.Equal([false, true], Assert.IsType<bool[]>(f.Metadata["flags"]));
        Assert.Empty(Assert.IsType<string[]>(f.Metadata["empty"]));
        Assert.Null(f.Int("absent"));
    }

    /// <summary>
    /// A whole tiny model with q and k rows interleaved, as llama.cpp's converter writes them (heads of q, key/value
    /// heads of k).
    /// </summary>
    private static GgufBuilder Model(
        RandomSource source, bool biased = false, Func<string, float[], float[]>? change = null, int ropeFreqs = 0)
    {
        var c = source.Config;
        var b = new GgufBuilder()
            .Text("general.architecture", "llama")
            .U32("llama.context_length", (uint)c.MaxPositionEmbeddings)
            .U32("llama.embedding_length", (uint)c.HiddenSize)
            .U32("llama.block_count", (uint)c.NumHiddenLayers)
            .U32("llama.feed_forward_length", (uint)c.IntermediateSize)
            .U32("llama.attention.head_count", (uint)c.NumAttentionHeads)
            .U32("llama.attention.head_count_kv", (uint)c.NumKeyValueHeads)
            .F32("llama.attention.layer_norm_rms_epsilon", c.RmsNormEps)
            .F32("llama.rope.freq_base", (float)c.RopeTheta)
            .U32("llama.rope.dimension_count", (uint)c.HeadDim);
        foreach (string name in Names(c, biased))
        {
            var (rows, columns) = source.ShapeOf(name);
            float[] values = source.Values(name);
            if (name.Contains(".q_proj.") || name.Contains(".k_proj."))
            {
                var permuted = new float[values.Length];
                int d = c.HeadDim;
                for (int r = 0; r < rows; r++)
                {
                    int head = r / d, j = r % d, to = head * d + (j < d / 2 ? 2 * j : 2 * (j - d / 2) + 1);
                    values.AsSpan(r * columns, columns).CopyTo(permuted.AsSpan(to * columns));
                }
                values = permuted;
            }
            values = change?.Invoke(name, values) ?? values;
            b.Tensor(
                GgufSource.GgufName(c, name), columns == 1 ? [(ulong)rows] : [(ulong)columns, (ulong)rows], 0,
                GgufBuilder.Floats(values));
        }
        if (ropeFreqs > 0)
            b.Tensor(
                "rope_freqs.weight", [(ulong)ropeFreqs], 0,
                GgufBuilder.Floats(Enumerable.Repeat(2f, ropeFreqs).ToArray()));
        return b;
    }

    private static IEnumerable<string> Names(ModelConfig c, bool biased)
    {
        yield return "model.embed_tokens.weight";
        for (int i = 0; i < c.NumHiddenLayers; i++)
        {
            foreach (string p in TinyModel.AllProjections)
                yield return $"model.layers.{i}.{(p[0] is 'g' or 'u' or 'd' ? "mlp" : "self_attn")}.{p}.weight";
            if (biased)
                foreach (string p in new[] { "q_proj", "k_proj", "v_proj" })
                    yield return $"model.layers.{i}.self_attn.{p}.bias";
            yield return $"model.layers.{i}.input_layernorm.weight";
            yield return $"model.layers.{i}.post_attention_layernorm.weight";
        }
        yield return "model.norm.weight";
        yield return "lm_head.weight";
    }

    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public void GivesTheModelBackInHuggingFaceOrder(bool biased)
    {
        using var source = new RandomSource(Config);
        using var read = new GgufSource(Save(Model(source, biased).Build()));
        Assert.Equal(
            Config with
            {
                AttentionBias = biased,
                RopeTheta = 50000,
            },
            read.Config with
            {
                EosTokenIds = Config.EosTokenIds,
            }
        );
        foreach (string name in Names(Config, biased))
        {
            var (rows, columns) = source.ShapeOf(name);
            Assert.True(read.Has(name));
            Assert.Equal((rows, columns), read.ShapeOf(name));
            var values = new float[rows * columns];
            read.ReadRows(name, 0, rows, values);
            Assert.True(values.AsSpan().SequenceEqual(source.Values(name)), name);
            var part = new float[3 * columns]; // a few rows from the middle
            read.ReadRows(name, 5, 3, part);
            Assert.True(part.AsSpan().SequenceEqual(source.Values(name).AsSpan(5 * columns, 3 * columns)), name);
        }
        Assert.False(read.Has("model.layers.2.mlp.up_proj.weight"));
    }

    [Fact]
    public void ReadsRopeDivisorsAndRefusesTheWrongNumber()
    {
        using var source = new RandomSource(Config);
        using (var read = new GgufSource(Save(Model(source, ropeFreqs: 8).Build())))
            Assert.Equal(Config.InverseFrequencies(out _).Select(f => f / 2), read.Config.InverseFrequencies(out _));
        Refuses(Model(source, ropeFreqs: 7).Build(), "rope_freqs");
    }

    private void Refuses(byte[] bytes, string why)
    {
        string path = Save(bytes);
        var e = Assert.Throws<HeadroomException>(() => new GgufSource(path).Dispose());
        Assert.Equal(2, e.ExitCode);
        Assert.Contains(why, e.Message, StringComparison.Ordinal);
        Assert.DoesNotContain('\n', e.Message);
        Assert.NotEmpty(e.ToDo);
        File.Delete(path);
    }

    [Fact]
    public void RefusesWhatIsNotGguf()
    {
        Refuses([], "fewer than 24 bytes");
        Refuses(new GgufBuilder { Magic = "GGML" }.Build(), "magic");
        foreach (uint version in new[] { 0u, 1u, 4u, 0x03000000u })
            Refuses(new GgufBuilder { Version = version }.Build(), $"version {version}");
        Refuses(new GgufBuilder().Build(), "architecture (none)");
        Refuses(new GgufBuilder().Text("general.architecture", "gpt2").Build(), "architecture gpt2");
        Assert.Contains(
            "There is no file",
            Assert.Throws<HeadroomException>(() => new GgufSource(Path.Combine(_folder, "missing.gguf"))).Message,
            StringComparison.Ordinal);
    }

    [Fact]
    public void RefusesCountsThatWouldAllocate()
    {
        Refuses(new GgufBuilder { TensorCount = ulong.MaxValue }.Build(), "counts");
        Refuses(new GgufBuilder { PairCount = 1UL << 60 }.Build(), "counts");
        Refuses(new GgufBuilder { PairCount = 1 }.Build(), "ends inside");
        foreach (uint type in new uint[] { 0, 4, 6, 8, 11 })
            Refuses(
                new GgufBuilder()
                    .Raw("a", 9, [.. BitConverter.GetBytes(type), .. BitConverter.GetBytes(1UL << 61)])
                    .Build(),
                "array is longer"
            );
        Refuses(new GgufBuilder().Raw("a", 8, BitConverter.GetBytes(ulong.MaxValue)).Build(), "string is longer");
        Refuses(
            new GgufBuilder().Raw("a", 9, [.. BitConverter.GetBytes(9u), .. BitConverter.GetBytes(1UL)]).Build(),
            "array type 9"); // arrays of arrays
        Refuses(new GgufBuilder().Raw("a", 99, []).Build(), "metadata type 99");
    }

    [Fact]
    public void RefusesWrongTensors()
    {
        byte[] four = GgufBuilder.Floats([1, 2, 3, 4]);
        Refuses(new GgufBuilder().U32("a", 1).U32("a", 2).Build(), "key a occurs twice");
        Refuses(new GgufBuilder().Tensor("t", [4], 0, four).Tensor("t", [4], 0, four).Build(), "t occurs twice");
        Refuses(new GgufBuilder().Tensor("t", [4], 0, four, offset: 32).Build(), "offset 32");
        // two tensors over the same bytes
        Refuses(new GgufBuilder().Tensor("a", [4], 0, four).Tensor("b", [4], 0, four, offset: 0).Build(), "offset 0");
        Refuses(new GgufBuilder().Tensor("t", [4], 0, four, offset: ulong.MaxValue - 31).Build(), "offset");
        Refuses(new GgufBuilder().Tensor("t", [], 0, []).Build(), "0 dimensions");
        Refuses(new GgufBuilder().Tensor("t", [1, 1, 1, 1, 4], 0, four).Build(), "5 dimensions");
        Refuses(new GgufBuilder().Tensor("t", [0], 0, []).Build(), "dimension of 0");
        Refuses(new GgufBuilder().Tensor("t", [ulong.MaxValue], 0, four).Build(), "dimension of");
        Refuses(
            new GgufBuilder().Tensor("t", [int.MaxValue, int.MaxValue, int.MaxValue], 0, four).Build(), "too many rows"
        );
        Refuses(new GgufBuilder().Tensor("t", [int.MaxValue, int.MaxValue], 0, four).Build(), "too short");
        Refuses(new GgufBuilder().Tensor("t", [33], 8, new byte[68]).Build(), "whole blocks");
        Refuses(new GgufBuilder().Tensor("t", [32], 4000, new byte[68]).Build(), "type 4000");
        foreach (uint alignment in new uint[] { 0, 24, 1u << 30 })
            Refuses(
                new GgufBuilder().U32("general.alignment", alignment).Tensor("t", [4], 0, four).Build(), "alignment");
    }

    [Fact]
    public void RefusesIncompleteModels()
    {
        using var source = new RandomSource(Config);
        byte[] whole = Model(source).Build();
        Refuses(whole[..^5000], "ends inside tensor output.weight");
        Refuses(whole[..2000], "");
        Refuses(new GgufBuilder().Text("general.architecture", "llama").Build(), "head_count");
        byte[] other = Model(new RandomSource(Config with { IntermediateSize = 200 })).Build();
        System
            .Text.Encoding.UTF8.GetBytes("llama.feed_forward_length")
            .CopyTo(other.AsSpan(other.AsSpan().IndexOf("llama.feed_forward_length"u8)));
        int at = other.AsSpan().IndexOf("llama.feed_forward_length"u8) + "llama.feed_forward_length".Length + 4;
        BitConverter.GetBytes(168u).CopyTo(other, at); // the metadata of one model, the weights of another
        using var mixed = new GgufSource(Save(other));
        var e = Assert.Throws<HeadroomException>(() =>
            mixed.ReadRows("model.layers.0.mlp.up_proj.weight", 0, 1, new float[96])
        );
        Assert.Contains("[200, 96]", e.Message, StringComparison.Ordinal);
        var missing = Assert.Throws<HeadroomException>(() =>
            mixed.ReadRows("model.layers.9.mlp.up_proj.weight", 0, 1, new float[96])
        );
        Assert.Contains("no tensor blk.9.ffn_up.weight", missing.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void DamagedFilesNeverCrash()
    {
        using var source = new RandomSource(TinyModel.Smallest());
        byte[] good = Model(source).Build();
        int header = good.AsSpan().IndexOf("output.weight"u8) + 60;
        Gen.Select(Gen.Int[0, header - 1], Gen.Byte, Gen.Int[0, 8]).Sample((at, value, cut) =>
        {
            byte[] bytes = cut == 0 ? good[..at] : (byte[])good.Clone();
            if (cut > 0) bytes[at] = value;
            string path = Save(bytes);
            try
            {
                new GgufSource(path).Dispose();
            }
            catch (HeadroomException)
            {
            }
            File.Delete(path);
        }, iter: 2000, threads: 1);
    }
}
