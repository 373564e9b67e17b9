using System.Diagnostics;
using System.Text;
using Headroom.Core;
using Headroom.Formats;
using Headroom.Formats.Data;
using Headroom.Formats.Tokenizers;
using Parquet.Serialization;

namespace Headroom.Tests.Formats;

/// <summary>
/// Small valid files, damaged in many ways: what reads them must say what is wrong (<see cref="HeadroomException"/>) or read them, never fail otherwise, run
/// on without end, or allocate by the file's own numbers. The cases are the same in every run.
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
                    if (source.Has(name) && source.ShapeOf(name).Cols < 4096) source.ReadRows(name, 0, 1, new float[source.ShapeOf(name).Cols]);
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
        byte[] file = Encoding.UTF8.GetBytes(Encoding.UTF8.GetString(TokenizerSample(byteLevel: true)).Replace("{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"use_regex\":false}",
            "{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"Split\",\"pattern\":{\"Regex\":\"\\\\p{N}{1,3}| ?\\\\p{L}+|\\\\s+\"},\"behavior\":\"Isolated\",\"invert\":false},{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"use_regex\":false}]}", StringComparison.Ordinal));
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

    /// <summary>Parquet.Net takes milliseconds for a file where the others take microseconds: as many of the 100,000 cases as fit 25 seconds.</summary>
    [Fact]
    public async Task Parquet()
    {
        using var memory = new MemoryStream();
        await ParquetSerializer.SerializeAsync(Enumerable.Range(0, 20).Select(i => new Row { text = "row " + i % 7, label = i % 2 }), memory, cancellationToken: TestContext.Current.CancellationToken);
        byte[] file = memory.ToArray();
        using var folder = new TempFolder();
        var patience = DataFiles.Patience;
        DataFiles.Patience = TimeSpan.FromSeconds(8);
        int done = Run(Cases, 8, i =>
        {
            // The footer, at the end, is the header of this format: damage goes there and to the page headers in front.
            byte[] data = i.Next(3) == 0 ? Mutator.Mutate(file, file.Length, false, i) : [.. file[..(file.Length / 2)], .. Mutator.Mutate(file[(file.Length / 2)..], file.Length, false, i)];
            return data;
        }, data =>
        {
            foreach (var row in DataFiles.Read(folder.Write("f.parquet", data))) Assert.NotNull(row.Text);
        }, TimeSpan.FromSeconds(25));
        DataFiles.Patience = patience;
        TestContext.Current.TestOutputHelper?.WriteLine($"{done} damaged Parquet files");
    }

    private sealed class Row
    {
        public string? text { get; set; }
        public int label { get; set; }
    }

    private static void Encode(byte[] data)
    {
        var t = TokenizerLoader.FromBytes(data);
        t.Decode(t.Encode("Hello 12  wor\u00E9 \U0001F600", true));
    }

    /// <summary>Runs the cases on two threads, all or as many as the time allows; a case's damage depends on its number only. Returns how many ran.</summary>
    private static int Run(int cases, uint stream, Func<PhiloxRandom, byte[]> make, Action<byte[]> read, TimeSpan? most = null)
    {
        int good = 0, done = 0, slow = 0;
        var clock = Stopwatch.StartNew();
        Parallel.For(0, cases, new ParallelOptions { MaxDegreeOfParallelism = 2 }, (i, loop) =>
        {
            if (most is { } limit && clock.Elapsed > limit)
            {
                loop.Stop();
                return;
            }
            Interlocked.Increment(ref done);
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
                // The library goes on in the background: a few such threads are enough.
                if (e.Message.Contains("takes too long", StringComparison.Ordinal) && Interlocked.Increment(ref slow) > 2) loop.Stop();
            }
            catch (Exception e)
            {
                Assert.Fail($"case {i}: {e.GetType().Name}: {e.Message}\n{e.StackTrace}\n{Convert.ToHexString(data.AsSpan(0, Math.Min(data.Length, 300)))}");
            }
            long used = GC.GetAllocatedBytesForCurrentThread() - before;
            Assert.True(used < MostAllocated, $"case {i} of {data.Length} bytes allocated {used}");
        });
        // Some damage is harmless; if all or none were, the test would say nothing.
        Assert.InRange(good, 1, done - 1);
        return done;
    }

    private static byte[] SafetensorsSample(out int header)
    {
        using var folder = new TempFolder();
        string path = Path.Combine(folder.Path, "s.safetensors");
        SafetensorsWriter.Write(path,
        [
            ("a.weight", "F32", [2, 3], new byte[24]), ("b.bias", "F16", [4], new byte[8]), ("c", "BF16", [2, 2, 2], new byte[16]), ("d", "I64", [1], new byte[8]), ("e", "U8", [0], []),
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
        for (int i = 0; i < pieces.Count; i++) vocab.Append(i == 0 ? "" : ",").Append(System.Text.Json.JsonSerializer.Serialize(pieces[i])).Append(':').Append(i);
        string special = byteLevel ? $"{{\"id\":{pieces.Count},\"content\":\"<|end|>\",\"special\":true}}" : "{\"id\":1,\"content\":\"<s>\",\"special\":true}";
        string steps = byteLevel
            ? "\"normalizer\":{\"type\":\"NFC\"},\"pre_tokenizer\":{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"use_regex\":false},\"decoder\":{\"type\":\"ByteLevel\"}"
            : "\"normalizer\":{\"type\":\"Sequence\",\"normalizers\":[{\"type\":\"Prepend\",\"prepend\":\"\u2581\"},{\"type\":\"Replace\",\"pattern\":{\"String\":\" \"},\"content\":\"\u2581\"}]},\"pre_tokenizer\":null,"
                + "\"decoder\":{\"type\":\"Sequence\",\"decoders\":[{\"type\":\"ByteFallback\"},{\"type\":\"Fuse\"},{\"type\":\"Strip\",\"content\":\" \",\"start\":1,\"stop\":0}]}";
        string name = byteLevel ? "<|end|>" : "<s>";
        int id = byteLevel ? pieces.Count : 1;
        return Encoding.UTF8.GetBytes($"{{\"version\":\"1.0\",\"added_tokens\":[{special}],{steps},\"post_processor\":{{\"type\":\"TemplateProcessing\",\"single\":[{{\"SpecialToken\":{{\"id\":\"{name}\",\"type_id\":0}}}},{{\"Sequence\":{{\"id\":\"A\",\"type_id\":0}}}}],"
            + $"\"special_tokens\":{{\"{name}\":{{\"id\":\"{name}\",\"ids\":[{id}],\"tokens\":[\"{name}\"]}}}}}},\"model\":{{\"type\":\"BPE\",\"fuse_unk\":false,\"byte_fallback\":{(byteLevel ? "false" : "true")},\"unk_token\":{(byteLevel ? "null" : "\"<unk>\"")},"
            + $"\"vocab\":{{{vocab}}},\"merges\":[[\"H\",\"e\"],\"l l\",[\"He\",\"ll\"]]}}}}");
    }
}
