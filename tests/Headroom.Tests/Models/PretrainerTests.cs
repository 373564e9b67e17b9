using Headroom.Core;
using Headroom.Cpu;
using Headroom.Formats.Gguf;
using Headroom.Tests.Formats;
using Headroom.Training.Pretraining;

namespace Headroom.Tests.Models;

/// <summary>A base that is made is whole, or not there at all.</summary>
public sealed class PretrainerTests : IDisposable
{
    private readonly TempFolder _folder = new();

    private string Out => Path.Combine(_folder.Path, "made");

    private double? Run(double rate = 2e-3, bool overwrite = false, CancellationToken stop = default) =>
        Pretrainer.Run(
            new PretrainOptions
            {
                HiddenSize = 32,
                IntermediateSize = 1,
                NumHiddenLayers = 1,
                NumAttentionHeads = 2,
                Notes = 40,
                BatchSize = 4,
                VocabSize = 512,
                LearningRate = rate,
            },
            Out,
            new CpuDevice(1),
            _ => { },
            (_, _, _, _) => { },
            stop,
            overwrite
        );

    [Fact]
    public void AWholeBaseIsWritten()
    {
        Assert.NotNull(Run());
        Assert.Equal(
            ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"],
            Directory.EnumerateFileSystemEntries(Out).Select(Path.GetFileName).Order(StringComparer.Ordinal));
        using var source = WeightSources.Open(Out);
        Assert.Equal((32, 1), source.ShapeOf("model.layers.0.mlp.down_proj.weight"));
    }

    [Fact]
    public void ARunThatDivergesLeavesNoFolder()
    {
        var e = Assert.Throws<HeadroomException>(() => Run(1e30));
        Assert.Equal(1, e.ExitCode);
        Assert.Contains("lower the learning rate", e.ToDo);
        Assert.False(Directory.Exists(Out));
    }

    [Fact]
    public void ARunThatIsStoppedLeavesNoFolder()
    {
        Assert.Null(Run(stop: new CancellationToken(true)));
        Assert.False(Directory.Exists(Out));
    }

    /// <summary>What was in the folder before stays, and nothing is trained for a place that is taken.</summary>
    [Fact]
    public void AFolderWithFilesIsRefusedUnlessItIsToBeReplaced()
    {
        Directory.CreateDirectory(Out);
        File.WriteAllText(Path.Combine(Out, "config.json"), "mine");
        var e = Assert.Throws<HeadroomException>(() => Run());
        Assert.Equal((2, "mine"), (e.ExitCode, File.ReadAllText(Path.Combine(Out, "config.json"))));
        Assert.Contains("--overwrite", e.ToDo, StringComparison.Ordinal);
        Assert.Null(Run(stop: new CancellationToken(true), overwrite: true));
        Assert.Equal("mine", File.ReadAllText(Path.Combine(Out, "config.json")));
        Assert.NotNull(Run(overwrite: true));
        Assert.Equal(4, Directory.GetFileSystemEntries(Out).Length);
        File.WriteAllText(Path.Combine(Out, "notes.md"), "mine");
        e = Assert.Throws<HeadroomException>(() => Run(overwrite: true));
        Assert.Equal(2, e.ExitCode);
        Assert.Contains("notes.md", e.Message, StringComparison.Ordinal);
        Assert.Equal(["made"], Directory.EnumerateFileSystemEntries(_folder.Path).Select(Path.GetFileName));
    }

    public void Dispose() => _folder.Dispose();
}
