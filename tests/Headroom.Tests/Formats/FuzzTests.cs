using System.Text;
using Headroom.Core;
using Headroom.Formats.Data;
using Headroom.Formats.Gguf;
using Headroom.Formats.Safetensors;
using Headroom.Tokenizers;
using Parquet;
using Parquet.Serialization;

namespace Headroom.Tests.Formats;

/// <summary>
/// Small valid files, damaged in many ways: what reads them must say what is wrong (<see cref="HeadroomException"/>) or
/// read them, never fail otherwise, run on without end, or allocate by the file's own numbers. The cases are the same
/// in every run.
/// </summary>
public class FuzzTests
{
    private const int Cases = 100_000;
    private const long MostAllocated = 24 << 20; // a case of a few kilobytes; no number in it may ask for more

    [Fact]
    public void Safetensors()
    {
        byte[] file = SafetensorsSample(out int header);
        Run(Cases, 1, i => Mutator.Mutate(file, 8 + header, true, i), data =>
        {
            if (data.Length < 8) return;
            ulong n = BitConverter.ToUInt64(data);
            // The two checks of the length stand in SafetensorsFile.Open, which the next test goes through.
            if (n > (ulong)data.Length - 8) n = (ulong)data.Length - 8;
            var (tensors, _) = SafetensorsFile.Parse(data.AsSpan(8, (int)n), data.Length - 8 - (long)n, "fuzz");
            foreach (var t in tensors.Values) Assert.True(t.Begin >= 0 && t.End <= data.Length - 8 - (long)n);
        });
    }

    [Fact]
    public void SafetensorsThroughFiles()
    {
        byte[] file = SafetensorsSample(out int header);
        using var folder = new TempFolder();
        Run(4000, 2, i => Mutator.Mutate(file, 8 + header, true, i), data =>
        {
            string path = folder.Write("f.safetensors", data);
            using var f = SafetensorsFile.Open(path);
            foreach (var (name, t) in f.Tensors)
                if (t.DType is "F32" or "F16" or "BF16") f.ReadF32(name);
        });
    }

    [Fact]
    public unsafe void Gguf()
    {
        byte[][] files = [GgufSample("q8_0"), GgufSample("q4_0")];
        Run(Cases, 3, i => Mutator.Mutate(files[i.Next(2)], 5200, false, i), data =>
        {
            fixed (byte* p = data)
            {
                using var f = new GgufFile(p, data.Length, "fuzz.gguf");
                foreach (var t in f.Tensors.Values) f.DequantizeRows(t.Name, t.Rows - 1, 1, new float[t.Columns]);
                TokenizerLoader.FromGguf(f).Encode("Hello 12  x", true);
                using var source = new GgufSource(f);
                source.Config.InverseFrequencies(out _);
                foreach (string name in source.Config.MatrixNames().Take(8))
                    if (source.Has(name) && source.ShapeOf(name).Cols < 4096)
                        source.ReadRows(name, 0, 1, new float[source.ShapeOf(name).Cols]);
            }
        });
    }

    [Fact]
    public void GgufThroughFiles()
    {
        byte[] file = GgufSample("q8_0");
        using var folder = new TempFolder();
        Run(2000, 4, i => Mutator.Mutate(file, 5200, false, i), data =>
        {
            string path = folder.Write("f.gguf", data);
            using var source = WeightSources.Open(path);
            TokenizerLoader.Load(path).Encode("Hello", true);
        });
    }

    [Fact]
    public void TokenizerJsons()
    {
        // Documents without an expression of their own: compiling one takes milliseconds.
        byte[][] files = [TokenizerSample(byteLevel: true), TokenizerSample(byteLevel: false)];
        Run(Cases, 5, i => Mutator.Mutate(files[i.Next(2)], int.MaxValue, true, i), Encode);
    }

    [Fact]
    public void TokenizerJsonsWithExpressions()
    {
        byte[] file = Encoding.UTF8.GetBytes(
            Encoding
                .UTF8.GetString(TokenizerSample(byteLevel: true))
                .Replace(
                    "{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"use_regex\":false}",
                    "{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"Split\","
                        + "\"pattern\":{\"Regex\":\"\\\\p{N}{1,3}| ?\\\\p{L}+|\\\\s+\"},\"behavior\":\"Isolated\","
                        + "\"invert\":false},{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"use_regex\":false}]}",
                    StringComparison.Ordinal)
        );
        int at = Encoding.UTF8.GetString(file).IndexOf("Regex", StringComparison.Ordinal) + 8;
        Assert.True(at > 8);
        Run(600, 6, i =>
        {
            byte[] part = Mutator.Mutate(file[at..(at + 40)], 40, true, i);
            return [.. file[..at], .. part, .. file[(at + 40)..]];
        }, Encode);
    }

    [Fact]
    public void SentencePieceModels()
    {
        byte[] file = File.ReadAllBytes(Shared.DataFile("models/stories260K/hf/tokenizer.model"));
        Run(10_000, 7, i => Mutator.Mutate(file, file.Length, false, i), Encode);
    }

    /// <summary>
    /// Footers and page headers, 100,000 of them. Most are refused by the check that stands before Parquet.Net; what
    /// passes goes on to it, on this thread, so that an endless loop would be one of the test and everything that it
    /// reserves is counted.
    /// </summary>
    [Fact]
    public async Task ParquetHeaders()
    {
        var files = await ParquetSamples();
        int passed = 0, rows = 0;
        InThisThread(() => Run(Cases, 8, i =>
        {
            byte[] file = files[i.Next(files.Length)];
            int footer = BitConverter.ToInt32(file, file.Length - 8), body = file.Length - 8 - footer;
            switch (i.Next(8))
            {
                case 0: return Mutator.Mutate(file, file.Length, false, i);
                // Pages start at byte 4 with a header of some tens of bytes.
                case 1 or 2: return [.. file[..4], .. Mutator.Mutate(file[4..body], 48, false, i), .. file[body..]];
                default:
                    // Damage that changes the footer's length, with the length as it then is: else the last eight bytes
                    // would give most of it away.
                    byte[] damaged = Mutator.Mutate(file[body..^8], footer, false, i);
                    return [.. file[..body], .. damaged, .. BitConverter.GetBytes(damaged.Length), .. file[^4..]];
            }
        }, data =>
        {
            using var file = new MemoryStream(data);
            var footer = ParquetFooter.Read(file, "fuzz");
            foreach (var chunk in footer.Groups.SelectMany(g => g))
                Assert.InRange(ParquetPages.Check(file, chunk, "fuzz"), chunk.Start, data.Length - 8);
            Interlocked.Increment(ref passed);
            foreach (var row in DataFiles.ReadParquet(file, "fuzz", new()))
            {
                Assert.NotNull(row.Text);
                Interlocked.Increment(ref rows);
            }
        }));
        Assert.InRange(passed, Cases / 100, Cases / 2);
        Assert.True(rows > passed);
        TestContext.Current.TestOutputHelper?.WriteLine($"{passed} of {Cases} damaged Parquet files passed the check");
    }

    /// <summary>Damaged pages, which only the library can look into.</summary>
    [Fact]
    public async Task ParquetPageData()
    {
        var files = await ParquetSamples();
        InThisThread(() => Run(20_000, 9, i =>
        {
            byte[] file = [.. files[i.Next(files.Length)]];
            int body = file.Length - 8 - BitConverter.ToInt32(file, file.Length - 8);
            for (int n = 1 + i.Next(4); n > 0; n--)
            {
                int at = 4 + i.Next(body - 4);
                file[at] = i.Next(2) == 0 ? (byte)i.NextUInt() : (byte)(file[at] ^ 1 << i.Next(8));
            }
            return file;
        }, data =>
        {
            foreach (var row in DataFiles.ReadParquet(new MemoryStream(data), "fuzz", new())) Assert.NotNull(row.Text);
        }));
    }

    private static void InThisThread(Action work)
    {
        var patience = DataFiles.Patience;
        DataFiles.Patience = Timeout.InfiniteTimeSpan;
        try { work(); }
        finally { DataFiles.Patience = patience; }
    }

    private static async Task<byte[][]> ParquetSamples()
    {
        var rows = Enumerable
            .Range(0, 20)
            .Select(i => new Row
            {
                text = "row " + i % 7,
                label = i % 2,
                tier = i % 3 == 0 ? null : "t",
                score = i / 3.0,
            })
            .ToList();
        var all = new List<byte[]>();
        foreach (
            var method in new[]
            {
                CompressionMethod.Snappy, CompressionMethod.None, CompressionMethod.Zstd, CompressionMethod.Gzip,
            }
        )
        {
            using var memory = new MemoryStream();
            await ParquetSerializer.SerializeAsync(
                rows,
                memory,
                new ParquetOptions
                {
                    CompressionMethod = method,
                    RowGroupSize = method == CompressionMethod.None ? 8 : 100,
                },
                cancellationToken: TestContext.Current.CancellationToken
            );
            Assert.Equal(
                rows.Select(r => (r.text, r.label.ToString(System.Globalization.CultureInfo.InvariantCulture), r.tier)),
                DataFiles.ReadParquet(memory, "sample", new()).Select(r => ((string?)r.Text, r.Label, r.Tier)));
            all.Add(memory.ToArray());
        }
        return [.. all];
    }

    private sealed class Row
    {
        public string? text { get; set; }
        public int label { get; set; }
        public string? tier { get; set; }
        public double score { get; set; }
    }

    private static void Encode(byte[] data)
    {
        var t = TokenizerLoader.FromBytes(data);
        t.Decode(t.Encode("Hello 12  wor\u00E9 \U0001F600", true));
    }

    /// <summary>Runs the cases on two threads; a case's damage depends on its number only.</summary>
    private static void Run(int cases, uint stream, Func<PhiloxRandom, byte[]> make, Action<byte[]> read)
    {
        int good = 0;
        Parallel.For(0, cases, new ParallelOptions { MaxDegreeOfParallelism = 2 }, i =>
        {
            byte[] data = make(new PhiloxRandom((ulong)i, stream));
            long before = GC.GetAllocatedBytesForCurrentThread();
            try
            {
                read(data);
                Interlocked.Increment(ref good);
            }
            catch (HeadroomException e)
            {
                Assert.True(e.Message.Length > 0 && e.ToDo.Length > 0 && e.ExitCode == 2);
            }
            catch (Exception e)
            {
                Assert.Fail(
                    $"case {i}: {e.GetType().Name}: "
                        + $"{e.Message}\n{e.StackTrace}\n{Convert.ToHexString(data.AsSpan(0, Math.Min(data.Length, 300)))}"
                );
            }
            long used = GC.GetAllocatedBytesForCurrentThread() - before;
            Assert.True(used < MostAllocated, $"case {i} of {data.Length} bytes allocated {used}");
        });
        // Some damage is harmless; if all or none were, the test would say nothing.
        Assert.InRange(good, 1, cases - 1);
    }

    private static byte[] SafetensorsSample(out int header)
    {
        using var folder = new TempFolder();
        string path = Path.Combine(folder.Path, "s.safetensors");
        SafetensorsWriter.Write(path,
        [
                ("a.weight", "F32", [2, 3], new byte[24]),
                ("b.bias", "F16", [4], new byte[8]),
                ("c", "BF16", [2, 2, 2], new byte[16]),
                ("d", "I64", [1], new byte[8]),
                ("e", "U8", [0], []),
        ], new Dictionary<string, string> { ["note"] = "x" });
        byte[] file = File.ReadAllBytes(path);
        header = (int)BitConverter.ToUInt64(file);
        return file;
    }

    private static byte[] GgufSample(string type)
    {
        using var folder = new TempFolder();
        string path = Path.Combine(folder.Path, "s.gguf");
        Samples.Gguf(path, type);
        return File.ReadAllBytes(path);
    }

    private static byte[] TokenizerSample(bool byteLevel)
    {
        var vocab = new StringBuilder();
        var pieces = new List<string>();
        if (byteLevel) foreach (char c in ByteAlphabet.Chars) pieces.Add(c.ToString());
        else
        {
            pieces.AddRange(["<unk>", "<s>", "</s>", "\u2581", "H", "e", "l", "o", "w", "r", "1", "2"]);
            for (int b = 0; b < 256; b += 4) pieces.Add($"<0x{b:X2}>");
        }
        int marks = pieces.Count;
        pieces.AddRange(["He", "ll", "Hell"]);
        for (int i = 0; i < pieces.Count; i++)
            vocab
                .Append(i == 0 ? "" : ",")
                .Append(System.Text.Json.JsonSerializer.Serialize(pieces[i]))
                .Append(':')
                .Append(i);
        string special = byteLevel
            ? $"{{\"id\":{pieces.Count},\"content\":\"<|end|>\",\"special\":true}}"
            : "{\"id\":1,\"content\":\"<s>\",\"special\":true}";
        string steps = byteLevel
            ? "\"normalizer\":{\"type\":\"NFC\"},\"pre_tokenizer\":{\"type\":\"ByteLevel\",\"add_prefix_space\":false,"
                + "\"use_regex\":false},\"decoder\":{\"type\":\"ByteLevel\"}"
            : "\"normalizer\":{\"type\":\"Sequence\",\"normalizers\":[{\"type\":\"Prepend\",\"prepend\":\"\u2581\"},"
                + "{\"type\":\"Replace\",\"pattern\":{\"String\":\" \"},\"content\":\"\u2581\"}]},"
                + "\"pre_tokenizer\":null,"
                + "\"decoder\":{\"type\":\"Sequence\",\"decoders\":[{\"type\":\"ByteFallback\"},{\"type\":\"Fuse\"},"
                + "{\"type\":\"Strip\",\"content\":\" \",\"start\":1,\"stop\":0}]}";
        string name = byteLevel ? "<|end|>" : "<s>";
        int id = byteLevel ? pieces.Count : 1;
        return Encoding.UTF8.GetBytes(
            $"{{\"version\":\"1.0\",\"added_tokens\":[{special}],{steps},"
                + $"\"post_processor\":{{\"type\":\"TemplateProcessing\","
                + $"\"single\":[{{\"SpecialToken\":{{\"id\":\"{name}\",\"type_id\":0}}}},"
                + $"{{\"Sequence\":{{\"id\":\"A\",\"type_id\":0}}}}],"
                + $"\"special_tokens\":{{\"{name}\":{{\"id\":\"{name}\",\"ids\":[{id}],\"tokens\":[\"{name}\"]}}}}}},"
                + $"\"model\":{{\"type\":\"BPE\",\"fuse_unk\":false,"
                + $"\"byte_fallback\":{(byteLevel ? "false" : "true")},"
                + $"\"unk_token\":{(byteLevel ? "null" : "\"<unk>\"")},"
            + $"\"vocab\":{{{vocab}}},\"merges\":[[\"H\",\"e\"],\"l l\",[\"He\",\"ll\"]]}}}}");
    }
}
