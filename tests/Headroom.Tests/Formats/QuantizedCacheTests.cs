using Headroom.Core;
using Headroom.Cpu;
using Headroom.Formats;
using Headroom.Models;
using Headroom.Training;

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
        foreach (string f in (string[])["config.json", "model.safetensors"]) File.Copy(Shared.GoldenFile("hf/llama-mha/" + f), Path.Combine(_base, f));
        File.SetAttributes(Weights, FileAttributes.Normal);
        Old();
        _cache = new QuantizedCache(Path.Combine(_root, "cache"), 0);
    }

    private string Weights => Path.Combine(_base, "model.safetensors");

    private void Old() => File.SetLastWriteTimeUtc(Weights, new DateTime(2024, 5, 6, 7, 8, 9, DateTimeKind.Utc));

    private static Engine Load(IWeightSource source, QuantizationOptions options)
    {
        var device = new CpuDevice(1);
        return new Engine(device, source, RunSettings.Of(new Recipe { Quantization = options }, source, device) with { Mode = TrainMode.None, Lora = null }, new BatchLimits(EvalTokens: 8, EvalSequences: 1));
    }

    private static byte[] Bits(Engine engine)
    {
        using var all = new MemoryStream();
        foreach (var t in engine.Model.Projections.SelectMany(p => new[] { p.Weight.Data, p.Weight.Absmax, p.Weight.NestedAbsmax, p.Weight.Offset, p.Weight.Bias })
            .Concat(engine.Model.Norms.Select(n => n.Weight)).Append(engine.Model.EmbeddingTable.Data).Append(engine.Model.Head.Data).Where(t => !t.IsNone))
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

    private bool IsCopy(IWeightSource source) => ((CheckpointSource)source).Files[0].StartsWith(_cache.Folder, StringComparison.Ordinal);

    [Theory]
    [InlineData(null)]
    [InlineData(false)]
    public void TheSecondStartReadsTheCopy(bool? nested)
    {
        _options.Bnb4bitUseDoubleQuant = nested;
        byte[] first = Start(_options, out var source);
        using (source) Assert.False(IsCopy(source));
        // The weights of the base are not looked at again: other bytes behind the same header, size and time change nothing.
        byte[] bytes = File.ReadAllBytes(Weights);
        for (int i = bytes.Length - 1000; i < bytes.Length; i++) bytes[i] ^= 0x01;
        File.WriteAllBytes(Weights, bytes);
        Old();
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
        _cache.Clear();
        Assert.Empty(_cache.List());
    }

    [Fact]
    public void AChangedBaseIsReadAgain()
    {
        Start(_options, out var source);
        source.Dispose();
        byte[] bytes = File.ReadAllBytes(Weights);
        bytes[^1000] ^= 1;
        File.WriteAllBytes(Weights, bytes);
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
        File.WriteAllText(config, File.ReadAllText(config).Replace("\"rms_norm_eps\": 1e-05", "\"rms_norm_eps\": 0.5", StringComparison.Ordinal));
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
        string hash = hashes.Of([Weights]);
        Assert.Equal(BaseHashes.Compute([Weights]), hash);
        Assert.Equal(hash, hashes.Known([Weights]));
        File.SetLastWriteTimeUtc(Weights, DateTime.UtcNow);
        Assert.Null(hashes.Known([Weights]));
        hashes.Of([Weights]);
        Assert.Null(hashes.Known([Weights])); // it may change once more in this very second
    }

    public void Dispose() => Directory.Delete(_root, true);
}
