using Headroom.Core;
using Headroom.Cpu;
using Headroom.Formats;
using Headroom.Formats.HuggingFace;
using Headroom.Inference;
using Headroom.Inference.Bases;

namespace Headroom.Tests.Formats;

/// <summary>The second start loads the quantized copy: the same bits, the base's own hash and configuration.</summary>
public sealed class QuantizedCacheTests : IDisposable
{
    private readonly string _root = Directory.CreateTempSubdirectory("headroom-cache-").FullName;
    private readonly string _base;
    private readonly QuantizedCache _cache;
    private readonly QuantizationOptions _options = new() { Cache = true };
    private readonly List<string> _said = [];

    public QuantizedCacheTests()
    {
        _base = Path.Combine(_root, "base");
        Directory.CreateDirectory(_base);
        foreach (string f in (string[])["config.json", "model.safetensors"])
            File.Copy(Shared.GoldenFile("hf/llama-mha/" + f), Path.Combine(_base, f));
        File.SetAttributes(Weights, FileAttributes.Normal);
        Old();
        _cache = new QuantizedCache(Path.Combine(_root, "cache"), 0);
    }

    private string Weights => Path.Combine(_base, "model.safetensors");

    private void Old()
    {
        File.SetLastWriteTimeUtc(Weights, new DateTime(2024, 5, 6, 7, 8, 9, DateTimeKind.Utc));
        Rest();
    }

    // What changed just now is not remembered.
    private static void Rest() => Thread.Sleep(150);

    private string CopyFolder => Path.Combine(_cache.Folder, Assert.Single(_cache.List()).Name);

    private static void Flip(string file, int at)
    {
        byte[] bytes = File.ReadAllBytes(file);
        bytes[at] ^= 0x10;
        File.WriteAllBytes(file, bytes);
    }

    private static Engine Load(IWeightSource source, QuantizationOptions options)
    {
        var device = new CpuDevice(1);
        return new Engine(
            device,
            source,
            BaseSettings.Choose(source, device, options),
            new BatchLimits(EvalTokens: 8, EvalSequences: 1)
        );
    }

    private static byte[] Bits(Engine engine)
    {
        using var all = new MemoryStream();
        foreach (
            var t in engine
                .Model.Projections.SelectMany(p =>
                    new[] { p.Weight.Data, p.Weight.Absmax, p.Weight.NestedAbsmax, p.Weight.Offset, p.Weight.Bias }
                )
                .Concat(engine.Model.Norms.Select(n => n.Weight))
                .Append(engine.Model.EmbeddingTable.Data)
                .Append(engine.Model.Head.Data)
                .Where(t => !t.IsNone)
        )
        {
            var bytes = new byte[t.Bytes];
            engine.Device.Download(t, bytes);
            all.Write(bytes);
        }
        return all.ToArray();
    }

    private byte[] Start(QuantizationOptions options, out IWeightSource source, bool save = true)
    {
        source = _cache.Open(_base, options, _said.Add);
        using var engine = Load(source, options);
        if (save) _cache.Save(engine, source, options, _said.Add);
        return Bits(engine);
    }

    private bool IsCopy(IWeightSource source) =>
        ((CheckpointSource)source).Files[0].StartsWith(_cache.Folder, StringComparison.Ordinal);

    [Theory]
    [InlineData(null)]
    [InlineData(false)]
    public void TheSecondStartReadsTheCopy(bool? nested)
    {
        _options.Bnb4bitUseDoubleQuant = nested;
        byte[] first = Start(_options, out var source);
        using (source) Assert.False(IsCopy(source));
        byte[] second = Start(_options, out var copy);
        using (copy)
        {
            Assert.True(IsCopy(copy));
            Assert.Equal(first, second);
            Assert.Equal(source.Hash, copy.Hash);
            Assert.Equal(source.ConfigJson, copy.ConfigJson);
        }
        var one = Assert.Single(_cache.List());
        Assert.Equal($"{source.Hash}-{(nested == false ? "nf4" : "nf4-double")}", one.Name);
        Assert.Empty(_said);
        var cleared = _cache.Clear();
        Assert.Empty(_cache.List());
        Assert.Equal(2, cleared.Deleted.Count);
        Assert.Contains($"quantized/{one.Name}", cleared.Deleted);
        Assert.Empty(cleared.InUse.Concat(cleared.Left));
        Assert.Empty(Directory.GetFileSystemEntries(Path.Combine(_root, "cache")));
    }

    /// <summary>
    /// Other bytes behind the same path, length, header and modification time: in place, and as another file under the
    /// same name.
    /// </summary>
    [Theory]
    [InlineData(true)]
    [InlineData(false)]
    public void AnotherBaseThatLooksTheSameIsToldApart(bool inPlace)
    {
        Start(_options, out var first);
        first.Dispose();
        string other = Weights + ".other";
        File.Copy(Weights, other);
        Flip(other, (int)new FileInfo(other).Length - 1003);
        if (inPlace)
        {
            File.WriteAllBytes(Weights, File.ReadAllBytes(other));
            File.Delete(other);
        }
        else File.Move(other, Weights, overwrite: true);
        Old();
        Start(_options, out var second, save: false);
        using (second)
        {
            Assert.False(IsCopy(second));
            Assert.Equal(BaseHashes.Compute([Weights]), second.Hash);
            Assert.NotEqual(first.Hash, second.Hash);
        }
    }

    /// <summary>
    /// Each byte of the header and of config.json, and bytes all over the data: whichever is flipped, it shows.
    /// </summary>
    [Fact]
    public void AFlippedByteOfTheCopyIsNoticed()
    {
        Start(_options, out var source);
        source.Dispose();
        string folder = CopyFolder,
            weights = Path.Combine(folder, "model.safetensors"),
            config = Path.Combine(folder, "config.json");
        byte[] whole = File.ReadAllBytes(weights), settings = File.ReadAllBytes(config);
        int header = 8 + (int)BitConverter.ToInt64(whole);
        bool Whole()
        {
            try
            {
                return CopySeal.HeaderIsWhole(folder);
            }
            catch (IOException)
            {
                return false; // its length leads beyond the file
            }
        }
        Assert.True(Whole() && CopySeal.DataIsWhole(folder, () => false));
        using (var file = File.OpenHandle(weights, FileMode.Open, FileAccess.ReadWrite, FileShare.ReadWrite))
            for (int at = 0; at < header; at += at < 600 ? 1 : 7)
            {
                RandomAccess.Write(file, [(byte)(whole[at] ^ 1)], at);
                Assert.False(Whole(), $"byte {at} of the header");
                RandomAccess.Write(file, [whole[at]], at);
            }
        using (var file = File.OpenHandle(config, FileMode.Open, FileAccess.ReadWrite, FileShare.ReadWrite))
            for (int at = 0; at < settings.Length; at++)
            {
                RandomAccess.Write(file, [(byte)(settings[at] ^ 1)], at);
                Assert.False(Whole(), $"byte {at} of config.json");
                RandomAccess.Write(file, [settings[at]], at);
            }
        using (var file = File.OpenHandle(weights, FileMode.Open, FileAccess.ReadWrite, FileShare.ReadWrite))
            for (
                int at = header;
                at < whole.Length;
                at += at == header ? 1 : Math.Max(1, Math.Min((whole.Length - header) / 40, whole.Length - 1 - at))
            )
            {
                RandomAccess.Write(file, [(byte)(whole[at] ^ 1)], at);
                Assert.False(CopySeal.DataIsWhole(folder, () => false), $"byte {at}");
                RandomAccess.Write(file, [whole[at]], at);
            }
        Assert.True(Whole() && CopySeal.DataIsWhole(folder, () => false));
    }

    /// <summary>
    /// The engine is loaded from the base once more, the copy is gone, and the next start makes it anew.
    /// </summary>
    [Fact]
    public void ACopyWithOtherDataIsThrownAwayWhileItIsLoaded()
    {
        byte[] first = Start(_options, out var source);
        source.Dispose();
        string weights = Path.Combine(CopyFolder, "model.safetensors");
        Flip(weights, (int)new FileInfo(weights).Length - 5000);
        byte[] second = Start(_options, out var again);
        using (again) Assert.Equal(first, second);
        Assert.Contains("is not what was written", Assert.Single(_said), StringComparison.Ordinal);
        Assert.Empty(_cache.List());
        Assert.Equal(first, Start(_options, out source));
        using (source) Assert.False(IsCopy(source));
        Assert.Equal(first, Start(_options, out source));
        using (source) Assert.True(IsCopy(source));
        Assert.Single(_said);
    }

    /// <summary>
    /// What was loaded and what was hashed are one thing only if the base did not change between: else no copy is kept
    /// under that hash.
    /// </summary>
    [Fact]
    public void ABaseThatChangesWhileItIsLoadedLeavesNoCopy()
    {
        var source = _cache.Open(_base, _options);
        using var engine = Load(source, _options);
        Flip(Weights, (int)new FileInfo(Weights).Length - 1003);
        Old();
        _cache.Save(engine, source, _options, _said.Add);
        source.Dispose();
        Assert.Empty(_cache.List());
        Assert.Null(new BaseHashes(Path.Combine(_root, "cache", "hashes"), 0).Known([Weights]));
    }

    [Fact]
    public void ClearingLeavesWhatIsNotTheCachesOrIsInUse()
    {
        Start(_options, out var source);
        source.Dispose();
        string copy = CopyFolder, hashes = Path.Combine(_root, "cache", "hashes"), name = Path.GetFileName(copy);
        string mine = Path.Combine(_cache.Folder, "mine"),
            notes = Path.Combine(hashes, "notes.txt"),
            strange = Path.Combine(_cache.Folder, new string('a', 64) + "-nf4");
        Directory.CreateDirectory(mine);
        Directory.CreateDirectory(strange);
        File.WriteAllText(Path.Combine(strange, "thesis.tex"), "mine");
        File.WriteAllText(notes, "mine");
        File.WriteAllText(Path.Combine(hashes, new string('b', 64)), "no hash");
        using (var reader = _cache.Open(_base, _options))
        {
            Assert.True(IsCopy(reader));
            var first = _cache.Clear();
            Assert.Equal([$"quantized/{name}"], first.InUse);
            Assert.Equal([strange, mine, Path.Combine(hashes, new string('b', 64)), notes], first.Left);
            Assert.Single(first.Deleted); // the hash
            Assert.True(File.Exists(Path.Combine(copy, "model.safetensors")));
        }
        using (FolderLock.Beside(copy, "The quantized copy")) Assert.Equal([$"quantized/{name}"], _cache.Clear().InUse);
        Assert.Equal([$"quantized/{name}"], _cache.Clear().Deleted);
        Assert.False(Directory.Exists(copy));
        Assert.True(File.Exists(Path.Combine(strange, "thesis.tex")) && File.Exists(notes) && Directory.Exists(mine));
    }

    [Fact]
    public void AChangedBaseIsReadAgain()
    {
        Start(_options, out var source);
        source.Dispose();
        byte[] bytes = File.ReadAllBytes(Weights);
        bytes[^1000] ^= 1;
        File.WriteAllBytes(Weights, bytes);
        Rest();
        byte[] changed = Start(_options, out var again);
        using (again)
        {
            Assert.False(IsCopy(again));
            Assert.NotEqual(source.Hash, again.Hash);
        }
        Assert.Equal(2, _cache.List().Count);
        Assert.NotEmpty(changed);
    }

    [Fact]
    public void AConfigurationIsNeverTakenFromTheCopy()
    {
        Start(_options, out var source);
        source.Dispose();
        string config = Path.Combine(_base, "config.json");
        File.SetAttributes(config, FileAttributes.Normal);
        File.WriteAllText(
            config,
            File.ReadAllText(config)
                .Replace("\"rms_norm_eps\": 1e-05", "\"rms_norm_eps\": 0.5", StringComparison.Ordinal)
        );
        using var copy = _cache.Open(_base, _options);
        Assert.True(IsCopy(copy));
        Assert.Equal(0.5f, copy.Config.RmsNormEps);
    }

    [Fact]
    public void ItCanBeTurnedOffAndSmallBasesAreLeftAlone()
    {
        _options.Cache = false;
        Start(_options, out var source);
        source.Dispose();
        Assert.Empty(_cache.List());
        _options.Cache = null;
        using var whole = QuantizedCache.Default.Open(_base, _options); // below a GiB
        Assert.False(IsCopy(whole));
        _options.Cache = true;
        _options.LoadIn4bit = false;
        Start(_options, out source);
        source.Dispose();
        Assert.Empty(_cache.List());
    }

    [Theory]
    [InlineData("truncated")]
    [InlineData("other base")]
    public void ADamagedCopyIsMadeAnew(string how)
    {
        byte[] first = Start(_options, out var source);
        source.Dispose();
        string file = Path.Combine(_cache.Folder, Assert.Single(_cache.List()).Name, "model.safetensors");
        byte[] bytes = File.ReadAllBytes(file);
        if (how == "truncated") File.WriteAllBytes(file, bytes[..(bytes.Length / 2)]);
        else
        {
            int at = bytes.AsSpan().IndexOf("base_sha256"u8) + 20;
            bytes[at] = (byte)(bytes[at] == 'a' ? 'b' : 'a');
            File.WriteAllBytes(file, bytes);
        }
        Assert.Equal(first, Start(_options, out var again));
        using (again) Assert.False(IsCopy(again));
        Assert.Single(_said);
        Assert.Equal(first, Start(_options, out var copy));
        using (copy) Assert.True(IsCopy(copy));
    }

    [Fact]
    public void WritersAtOnceLeaveOneWholeCopy()
    {
        byte[] first = [];
        Parallel.For(0, 4, i =>
        {
            byte[] bits = Start(_options, out var source);
            source.Dispose();
            if (i == 0) first = bits;
        });
        Assert.Single(Directory.GetDirectories(_cache.Folder));
        Assert.Equal(first, Start(_options, out var copy));
        using (copy) Assert.True(IsCopy(copy));
        Assert.Empty(_said);
    }

    [Fact]
    public void AHashIsRememberedOnlyForFilesThatRest()
    {
        var hashes = new BaseHashes(Path.Combine(_root, "hashes"), 0);
        string hash = hashes.Get([Weights]);
        Assert.Equal(BaseHashes.Compute([Weights]), hash);
        Assert.Equal(hash, hashes.Known([Weights]));
        File.SetLastWriteTimeUtc(Weights, DateTime.UtcNow);
        Assert.Null(hashes.Known([Weights]));
        hashes.Get([Weights]);
        Assert.Null(hashes.Known([Weights])); // it may change once more in this very second
    }

    public void Dispose() => Directory.Delete(_root, true);
}
