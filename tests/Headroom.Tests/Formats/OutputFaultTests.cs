using System.Security.Cryptography;
using Headroom.Core;
using Headroom.Cpu;
using Headroom.Formats;
using Headroom.Formats.Gguf;
using Headroom.Inference;
using Headroom.Inference.Bases;
using Headroom.Inference.Export;
using Headroom.Tests.Loop;

namespace Headroom.Tests.Formats;

/// <summary>
/// Whole models that are written on a disk that fails (<see cref="FaultyFiles"/>), as a new folder and over an old
/// one: under the name that was asked for lies the old or the new folder, whole, or nothing where there was nothing;
/// an error says what to do; and the next write on a sound disk makes up for it.
/// </summary>
public sealed class OutputFaultTests : IDisposable
{
    private const int Schedules = 60;
    private readonly TempFolder _folder = new();
    private readonly string _model = Shared.GoldenFile("hf/llama-mha");
    private readonly IWeightSource _source;
    private readonly Engine _engine;

    public OutputFaultTests()
    {
        _source = WeightSources.Open(_model);
        var device = new CpuDevice(1);
        var settings = BaseSettings.Choose(_source, device, new QuantizationOptions());
        _engine = new Engine(device, _source, settings, new BatchLimits());
    }

    private string Root => Path.Combine(_folder.Path, "disk");

    private string Out => Path.Combine(Root, "out");

    // What quantize and export do between taking a place and giving it back.
    private void Write(bool quantized, bool old)
    {
        Func<string, bool> isOwn = quantized ? QuantizedCheckpoint.IsOwnFile : CheckpointExporter.IsOwnFile;
        using var target = OutputTarget.OfFolder(Out, true, "Give another folder.", isOwn);
        string folder = target.Temporary;
        var version = new Dictionary<string, string> { ["version"] = old ? "old" : "new" };
        if (quantized) QuantizedCheckpoint.WriteInto(folder, _engine, _source, _model, version);
        else CheckpointExporter.Write(_source, _model, null, old ? "f32" : "bf16", folder, shardBytes: 100_000);
        target.Commit();
    }

    private static string Hashes(string folder)
    {
        static string Of(string file) => Convert.ToHexStringLower(SHA256.HashData(File.ReadAllBytes(file)));
        var files = Directory.GetFiles(folder, "*", SearchOption.AllDirectories).Order(StringComparer.Ordinal);
        return string.Join('\n', files.Select(f => $"{Path.GetRelativePath(folder, f)} {Of(f)}"));
    }

    private string[] Names => [.. Directory.GetFileSystemEntries(Root).Select(f => Path.GetFileName(f))];

    private void Empty()
    {
        if (Directory.Exists(Root)) Directory.Delete(Root, true);
        Directory.CreateDirectory(Root);
    }

    private static void Copy(string from, string to)
    {
        Directory.CreateDirectory(to);
        foreach (string f in Directory.GetFiles(from)) File.Copy(f, Path.Combine(to, Path.GetFileName(f)));
    }

    [Theory, InlineData(true, true), InlineData(true, false), InlineData(false, true), InlineData(false, false)]
    public void NothingFalseHasAFinalName(bool quantized, bool exchanges)
    {
        Empty();
        Write(quantized, old: true);
        string before = Hashes(Out), kept = Path.Combine(_folder.Path, "old");
        Directory.Move(Out, kept);
        var sound = new FaultyFiles(Root, 0);
        FileLayer.Replace(sound);
        Write(quantized, old: false);
        FileLayer.Replace(null);
        string after = Hashes(Out);
        Assert.NotEqual(before, after);
        Assert.Contains("generation_config.json", after, StringComparison.Ordinal);
        int errors = 0, cuts = 0, whole = 0, replaced = 0;
        for (int seed = 1; seed <= Schedules; seed++)
        {
            var random = new Random(seed);
            bool hadOld = random.Next(3) > 0;
            Empty();
            if (hadOld) Copy(kept, Out);
            var plan = FaultPlan.Draw(random, sound.Operations) with { LiesAt = 0, Exchanges = exchanges };
            var disk = new FaultyFiles(Root, seed, plan);
            FileLayer.Replace(disk);
            var error = Record.Exception(() => Write(quantized, old: false));
            FileLayer.Replace(null);
            if (error is PowerCutException)
            {
                disk.PowerCut();
                cuts++;
            }
            else if (error != null)
            {
                var e = Assert.IsType<HeadroomException>(error);
                Assert.NotEmpty(e.ToDo);
                Assert.NotNull(DiskFault.Find(e));
                errors++;
            }
            else whole++;
            if (Check()) replaced++;
            Write(quantized, old: false);
            Assert.True(Check(), $"schedule {seed}");
            Assert.Equal(["out"], Names.Where(n => !Temporary.IsName(n)));

            // True when the new one is there.
            bool Check()
            {
                string[] named = [.. Names.Where(n => !n.StartsWith('.'))];
                Assert.True(named.All(n => n == "out"), $"schedule {seed}: {string.Join(", ", named)}");
                string aside = Path.Combine(Root, ".out.replaced"), place = named.Length > 0 ? Out : aside;
                if (!Directory.Exists(place))
                {
                    Assert.False(hadOld, $"schedule {seed}: neither the old nor the new one is there\n{disk}");
                    return false;
                }
                string now = Hashes(place);
                bool right = now == after && place == Out || now == before && hadOld;
                Assert.True(right, $"schedule {seed}: {place} is false");
                return now == after;
            }
        }
        int few = new[] { errors, cuts, whole }.Min();
        Assert.True(few > Schedules / 6 && replaced >= whole, $"{errors} {cuts} {whole} {replaced}");
    }

    public void Dispose()
    {
        FileLayer.Replace(null);
        _engine.Dispose();
        _source.Dispose();
        _folder.Dispose();
    }
}
