using System.Diagnostics;
using System.Text;

namespace Headroom.EndToEnd;

/// <summary>Runs whose files were spoiled after they were written, and surroundings that give way.</summary>
public class DamageTests
{
    private static readonly string[] Sets = ["--set", "training.max_steps=4", "--set", "lora.r=4"];

    private static (Cli Cli, string Recipe, string Run) Trained()
    {
        var cli = new Cli();
        string recipe = cli.Recipe(Cli.Base("llama-tiny"));
        var (exit, _, error) = cli.Run(["train", recipe, .. Sets]);
        Assert.True(exit == 0, error);
        return (cli, recipe, Path.Combine(cli.Folder, "runs", "tiny"));
    }

    private static (int Exit, string Out, string Error) Resume(Cli cli, string recipe) => cli.Run(["train", recipe, .. Sets, "--resume"]);

    /// <summary>One bit of a moment, which no reader would notice, and every larger damage is refused by name, with the checkpoint to go on from.</summary>
    [Fact]
    public void ADamagedCheckpointIsRefusedAndTheOneBeforeNamed()
    {
        var (cli, recipe, run) = Trained();
        using var own = cli;
        string last = Path.Combine(run, "checkpoints", "checkpoint-4");
        foreach (var (file, spoil) in new (string, Func<byte[], byte[]>)[]
        {
            ("optimizer.safetensors", b => [.. b[..^3], (byte)(b[^3] ^ 1), .. b[^2..]]),
            ("adapter_model.safetensors", b => [.. b[..^3], (byte)(b[^3] ^ 1), .. b[^2..]]),
            ("adapter_model.safetensors", _ => []),
            ("adapter_config.json", b => b[..30]),
            ("trainer_state.json", b => b[..30]),
            ("trainer_state.json", b => Encoding.UTF8.GetBytes(Encoding.UTF8.GetString(b).Replace("\"global_step\": 4", "\"global_step\": -4", StringComparison.Ordinal))),
        })
        {
            string path = Path.Combine(last, file);
            byte[] whole = File.ReadAllBytes(path);
            File.WriteAllBytes(path, spoil(whole));
            var (code, _, said) = Resume(cli, recipe);
            Assert.True(code == 2, $"{file}: exit {code}: {said}");
            Assert.Contains($"{file} is not what was written", said, StringComparison.Ordinal);
            Assert.Contains("goes on from checkpoint-2", said, StringComparison.Ordinal);
            File.WriteAllBytes(path, whole);
        }
        File.Delete(Path.Combine(last, "optimizer.safetensors"));
        Assert.Equal(2, Resume(cli, recipe).Exit);
        Directory.Delete(last, true);
        var (exit, _, error) = Resume(cli, recipe);
        Assert.True(exit == 0, error);
    }

    [Fact]
    public void ARunKilledBeforeItsFirstEventAndAStrangeLogAreResumed()
    {
        var (cli, recipe, run) = Trained();
        using var own = cli;
        string log = Path.Combine(run, "events.jsonl");
        File.AppendAllText(log, "[1]\n{\"event\": 5}\n{\"event\": \"step\", \"step\": \"x\"}\n{\"event\": \"step\", \"step\": 1.5}\n");
        var (exit, _, error) = Resume(cli, recipe);
        Assert.True(exit == 0, error);
        File.Delete(log);
        Directory.Delete(Path.Combine(run, "checkpoints"), true);
        (exit, _, error) = Resume(cli, recipe);
        Assert.True(exit == 0, error);
    }

    /// <summary>Without a standard error, results and exit codes are as with one.</summary>
    [Theory]
    [InlineData("2>&-")]
    [InlineData("2>/dev/full")]
    public void StandardErrorMayBeGone(string redirection)
    {
        if (!OperatingSystem.IsLinux()) Assert.Skip("/dev/full is Linux's");
        using var cli = new Cli();
        int Run(string arguments, out string text)
        {
            var info = new ProcessStartInfo("sh") { WorkingDirectory = cli.Folder, RedirectStandardOutput = true };
            info.ArgumentList.Add("-c");
            info.ArgumentList.Add($"exec dotnet '{Path.Combine(AppContext.BaseDirectory, "headroom.dll")}' {arguments} {redirection}");
            using var p = Process.Start(info)!;
            text = p.StandardOutput.ReadToEnd();
            Assert.True(p.WaitForExit(60_000));
            return p.ExitCode;
        }
        Assert.Equal(2, Run("train none.yaml", out _));
        Assert.Equal(0, Run($"train '{cli.Recipe(Cli.Base("llama-tiny"))}' --json --set training.max_steps=1", out string json));
        Assert.NotNull(System.Text.Json.Nodes.JsonNode.Parse(json)!["accuracy"]);
    }

    /// <summary>A home that is not there must not turn the cache into a folder of the working folder.</summary>
    [Fact]
    public void WithoutAHomeTheCacheIsNotInTheWorkingFolder()
    {
        if (!OperatingSystem.IsLinux()) Assert.Skip("HOME decides on Linux");
        using var cli = new Cli();
        string home = Path.Combine(cli.Folder, "no", "home");
        cli.Environment["HEADROOM_CACHE"] = cli.Environment["XDG_CACHE_HOME"] = "";
        cli.Environment["HOME"] = home;
        var (exit, text, error) = cli.Run("cache");
        Assert.True(exit == 0, error);
        Assert.StartsWith(home, text, StringComparison.Ordinal);
    }
}
