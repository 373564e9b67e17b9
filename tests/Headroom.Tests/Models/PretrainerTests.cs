using Headroom.Core;
using Headroom.Cpu;
using Headroom.Formats;
using Headroom.Tests.Formats;
using Headroom.Training;

namespace Headroom.Tests.Models;

/// <summary>A base that is made is whole, or not there at all.</summary>
public sealed class PretrainerTests : IDisposable
{
    private readonly TempFolder _folder = new();

    private string Out => Path.Combine(_folder.Path, "made");

    private double? Run(double rate = 2e-3, CancellationToken stop = default) =>
        Pretrainer.Run(new PretrainOptions { HiddenSize = 32, IntermediateSize = 1, NumHiddenLayers = 1, NumAttentionHeads = 2, Notes = 40, BatchSize = 4, VocabSize = 512, LearningRate = rate }, Out, new CpuDevice(1), _ => { }, (_, _, _, _) => { }, stop);

    [Fact]
    public void AWholeBaseIsWritten()
    {
        Assert.NotNull(Run());
        Assert.Equal(["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"], Directory.EnumerateFileSystemEntries(Out).Select(Path.GetFileName).Order(StringComparer.Ordinal));
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

    /// <summary>What was in the folder before stays.</summary>
    [Fact]
    public void AWriteThatFailsLeavesNothingOfAModel()
    {
        Directory.CreateDirectory(Path.Combine(Out, "tokenizer_config.json", "mine")); // where a file is to come
        var e = Assert.Throws<HeadroomException>(() => Run());
        Assert.Equal(1, e.ExitCode);
        Assert.Contains("tokenizer_config.json", e.Message);
        Assert.Equal(["tokenizer_config.json"], Directory.EnumerateFileSystemEntries(Out).Select(Path.GetFileName));
        Assert.True(Directory.Exists(Path.Combine(Out, "tokenizer_config.json", "mine")));
    }

    public void Dispose() => _folder.Dispose();
}
