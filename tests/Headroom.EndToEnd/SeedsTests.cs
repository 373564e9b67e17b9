using System.Text.Json.Nodes;

namespace Headroom.EndToEnd;

/// <summary>One model with several seeds: each a run of its own, together one report, stopped and resumed.</summary>
public class SeedsTests
{
    private static readonly string[] Train = ["--set", "training.max_steps=3", "--set", "training.save_steps=1"];

    private static string Adapter(Cli cli, params string[] run) =>
        Convert.ToHexString(
            File.ReadAllBytes(Path.Combine([cli.Folder, "runs", .. run, "best", "adapter_model.safetensors"])));

    [Fact]
    public void EachSeedIsARunOfItsOwnAndTheReportHasTheirSpread()
    {
        using var cli = new Cli();
        string recipe = cli.Recipe(Cli.Base("llama-tiny"));
        var (exit, text, error) = cli.Run(["train", recipe, .. Train, "--set", "seeds=[1, 2]", "--json"]);
        Assert.True(exit == 0, error);
        var runs = JsonNode.Parse(text)!["runs"]!.AsArray();
        Assert.Equal([1, 2], runs.Select(r => (int)r!["seed"]!));
        string folder = Path.Combine(cli.Folder, "runs", "tiny");
        var report = JsonNode.Parse(File.ReadAllText(Path.Combine(folder, "results.json")))!;
        Assert.Contains("over 2 seeds", (string)report["headline"]!, StringComparison.Ordinal);
        Assert.True((bool)report["completed"]!);
        string html = File.ReadAllText(Path.Combine(folder, "report.html"));
        Assert.Contains("The whole set of seeds", html, StringComparison.Ordinal);
        Assert.DoesNotContain("duel", html, StringComparison.OrdinalIgnoreCase);
        Assert.NotEqual(Adapter(cli, "tiny", "seed-1"), Adapter(cli, "tiny", "seed-2"));
        // A seed's run is what train makes of it alone.
        var alone = cli.Run(["train", recipe, .. Train, "--set", "training.seed=2", "--name", "alone"]);
        Assert.True(alone.Exit == 0, alone.Error);
        Assert.Equal(Adapter(cli, "alone"), Adapter(cli, "tiny", "seed-2"));
        // Other seeds are added to it; those that are done stay.
        var more = cli.Run(["train", recipe, .. Train, "--set", "seeds=[1, 2, 3]", "--resume"]);
        Assert.True(more.Exit == 0, more.Error);
        Assert.Equal(2, more.Out.Split("is finished:").Length - 1);
        Assert.True(Directory.Exists(Path.Combine(folder, "seed-3", "best")));
        var one = cli.Run(["train", recipe, .. Train, "--resume"]);
        Assert.True(one.Exit == 2, one.Error);
        Assert.Contains("runs of several seeds, not one run", one.Error, StringComparison.Ordinal);
    }

    [Fact]
    public void AKilledOneGoesOnWhereItWas()
    {
        using var cli = new Cli();
        string recipe = cli.Recipe(Cli.Base("llama-tiny"));
        string[] command = ["train", recipe, .. Train, "--set", "seeds=[1, 2]"];
        Assert.Equal(0, cli.Run([.. command, "--name", "whole"]).Exit);
        using (var killed = cli.Start([.. command, "--name", "parts"]))
        {
            string second = Path.Combine(cli.Folder, "runs", "parts", "seed-2", "checkpoints", "checkpoint-1");
            while (!killed.HasExited && !Directory.Exists(second)) Thread.Sleep(5);
            killed.Kill();
            killed.WaitForExit();
        }
        var (exit, _, error) = cli.Run([.. command, "--name", "parts", "--resume"]);
        Assert.True(exit == 0, error);
        foreach (string seed in new[] { "seed-1", "seed-2" })
            Assert.Equal(Adapter(cli, "whole", seed), Adapter(cli, "parts", seed));
    }
}
