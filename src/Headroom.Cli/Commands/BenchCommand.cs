using System.CommandLine;
using Headroom.Core;
using Headroom.Formats.Gguf;
using Headroom.Formats.HuggingFace;

namespace Headroom.Cli.Commands;

/// <summary>
/// headroom bench: whole training steps of any architecture with random weights (step), and loading from files (load).
/// </summary>
internal static class BenchCommand
{
    public static Command Create() => new("bench", "Measure this machine.")
    {
        new BenchStepCommand().Create(), BenchLoadCommand.Create(),
    };

    /// <summary>Runs a benchmark, whose ends before its time are told apart here.</summary>
    /// <param name="smaller">What takes less memory.</param>
    /// <param name="work">The benchmark; it removes what it wrote.</param>
    public static int Run(string smaller, Action work)
    {
        try
        {
            work();
            return 0;
        }
        catch (OperationCanceledException)
        {
            throw new StoppedException("Run it again; nothing was left behind.");
        }
        catch (OutOfMemoryException e)
        {
            throw new HeadroomException("There is not enough memory.", smaller, 1, e);
        }
    }

    /// <summary>The configuration of a config.json, or of a model whose weights are not read.</summary>
    public static ModelConfig ReadConfig(string path)
    {
        if (path.EndsWith(".json", StringComparison.OrdinalIgnoreCase))
        {
            if (!File.Exists(path))
                throw new HeadroomException($"{path} does not exist.", "Give a config.json or a model.");
            return HfConfig.Load(path);
        }
        using var source = WeightSources.Open(path);
        return source.Config;
    }
}
