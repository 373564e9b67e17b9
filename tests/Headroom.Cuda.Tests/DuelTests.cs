using Headroom.Core;
using Headroom.Cpu;
using Headroom.Inference;
using Headroom.Tests;
using Headroom.Training.Data;
using Headroom.Training.Loop;
using Headroom.Training.Recipes;
using Headroom.Training.Runs;

namespace Headroom.Cuda.Tests;

/// <summary>The embedded duel on both devices in float32.</summary>
public class DuelTests
{
    /// <summary>The checkout that this executable lies in, or null.</summary>
    internal static string? Repository()
    {
        for (var d = new DirectoryInfo(AppContext.BaseDirectory); d != null; d = d.Parent)
            if (File.Exists(Path.Combine(d.FullName, "Headroom.slnx"))) return d.FullName;
        return null;
    }

    [Theory, InlineData("llama-tiny"), InlineData("deepseek-tiny")]
    public void FiftyStepsGiveTheCpusLosses(string model)
    {
        string path = Path.Combine(Repository() ?? "", "models", model),
            recipe = Path.Combine(Repository() ?? "", "recipes", "duel.yaml");
        Assert.SkipUnless(Directory.Exists(path) && File.Exists(recipe), $"{model} is not beside this executable");
        var gpu = TestDevice.OpenCuda();
        double[] b = Losses(recipe, path, gpu), a = Losses(recipe, path, new CpuDevice());
        for (int i = 0; i < a.Length; i++)
            Assert.True(Math.Abs(a[i] - b[i]) <= 1e-3, $"step {i + 1}: {a[i]:F6} on the CPU, {b[i]:F6} on the GPU");
    }

    private static double[] Losses(string recipePath, string model, IDevice device)
    {
        var recipe = RecipeLoader.Parse(File.ReadAllText(recipePath));
        recipe.Training.Precision = Precision.Fp32;
        using var run = PreparedRun.Prepare(
            recipe, new ModelOptions { Path = model }, () => device, null, (_, _, _, _) => { });
        using var engine = new Engine(device, run.Source, run.Planned);
        engine.InitializeAdapters((ulong)recipe.Training.Seed);
        var trainer = new Trainer(engine, recipe.Training, run.Train, run.Longest);
        using var feed = new BatchFeed(run.Train, recipe.Training, run.Longest, 0, trainer.TotalSteps);
        var losses = new double[50];
        for (int i = 0; i < losses.Length; i++)
        {
            var window = feed.Next();
            losses[i] = trainer.Step(window).Loss;
            feed.Recycle(window);
        }
        return losses;
    }
}
