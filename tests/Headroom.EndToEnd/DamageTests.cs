using System.Diagnostics;
using System.Text;
using System.Text.Json.Nodes;

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

    private static (int Exit, string Out, string Error) Resume(Cli cli, string recipe) =>
        cli.Run(["train", recipe, .. Sets, "--resume"]);

    /// <summary>
    /// The log as a kill would have left it: without its last lines, from the first that holds a text on.
    /// </summary>
    private static void CutLog(string run, string from)
    {
        string log = Path.Combine(run, "events.jsonl");
        File.WriteAllLines(
            log, [.. File.ReadAllLines(log).TakeWhile(l => !l.Contains(from, StringComparison.Ordinal))]);
    }

    /// <summary>
    /// One bit of a moment, which no reader would notice, and every larger damage is refused by name, with the
    /// checkpoint to go on from.
    /// </summary>
    [Fact]
    public void ADamagedCheckpointIsRefusedAndTheOneBeforeNamed()
    {
        var (cli, recipe, run) = Trained();
        using var own = cli;
        CutLog(run, "\"event\":\"run_end\"");
        string last = Path.Combine(run, "checkpoints", "checkpoint-4");
        foreach (
            var (file, spoil) in new (string, Func<byte[], byte[]>)[]
            {
                ("optimizer.safetensors", b => [.. b[..^3], (byte)(b[^3] ^ 1), .. b[^2..]]),
                ("adapter_model.safetensors", b => [.. b[..^3], (byte)(b[^3] ^ 1), .. b[^2..]]),
                ("adapter_model.safetensors", _ => []),
                ("adapter_config.json", b => b[..30]),
                ("trainer_state.json", b => b[..30]),
                ("trainer_state.json", b =>
                    Encoding.UTF8.GetBytes(
                        Encoding
                            .UTF8.GetString(b)
                            .Replace("\"global_step\": 4", "\"global_step\": -4", StringComparison.Ordinal)
                    )
                ),
            }
        )
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
        File.AppendAllText(
            log, "[1]\n{\"event\": 5}\n{\"event\": \"step\", \"step\": \"x\"}\n{\"event\": \"step\", \"step\": 1.5}\n");
        var (exit, _, error) = Resume(cli, recipe);
        Assert.True(exit == 0, error);
        File.Delete(log);
        Directory.Delete(Path.Combine(run, "checkpoints"), true);
        (exit, _, error) = Resume(cli, recipe);
        // best/ is somebody's
        Assert.True(exit == 2 && error.Contains("holds no checkpoint", StringComparison.Ordinal), error);
        Directory.Delete(Path.Combine(run, "best"), true);
        (exit, _, error) = Resume(cli, recipe);
        Assert.True(exit == 0, error);
    }

    /// <summary>
    /// A folder that was renamed goes on under its new name, bit for bit; where there is no run, the message names the
    /// flag that finds it; another recipe is refused.
    /// </summary>
    [Fact]
    public void ARenamedRunIsFoundAndResumed()
    {
        var (cli, recipe, run) = Trained();
        using var own = cli;
        string hash = (string)
            JsonNode.Parse(File.ReadLines(Path.Combine(run, "events.jsonl")).Last())!["adapter_sha256"]!;
        Directory.Delete(Path.Combine(run, "checkpoints", "checkpoint-4"), true); // as if it had been killed before
        Directory.Delete(Path.Combine(run, "best"), true);
        CutLog(run, "\"step\":4,");
        string moved = Path.Combine(cli.Folder, "elsewhere", "old run");
        Directory.CreateDirectory(Path.GetDirectoryName(moved)!);
        Directory.Move(run, moved);
        var (exit, _, error) = Resume(cli, recipe);
        Assert.True(
            exit == 2 && error.Contains("There is no run in runs/tiny to resume", StringComparison.Ordinal), error);
        Assert.True(error.Contains("without --resume", StringComparison.Ordinal), error);
        Directory.CreateDirectory(Path.Combine(cli.Folder, "elsewhere", "no run"));
        File.WriteAllText(Path.Combine(cli.Folder, "elsewhere", "no run", "manifest.json"), "[1]");
        string[] there = [.. Sets, "--runs", "elsewhere", "--resume"];
        (exit, _, error) = cli.Run(["train", recipe, .. there]);
        Assert.True(
            exit == 2
                && error.Contains(
                    "elsewhere/old run: go on with --name \"old run\" --resume", StringComparison.Ordinal),
            error
        );
        (exit, _, error) = cli.Run(["train", recipe, .. there, "--set", "lora.lora_alpha=5"]);
        Assert.True(exit == 2 && error.Contains("without --resume", StringComparison.Ordinal), error);
        (exit, _, error) = cli.Run(["train", recipe, .. there, "--name", "old run", "--set", "lora.lora_alpha=5"]);
        Assert.True(
            exit == 2
                && error.Contains("recipe is not the one", StringComparison.Ordinal)
                && error.Contains("recipe.yaml holds", StringComparison.Ordinal),
            error
        );
        (exit, _, error) = cli.Run(["train", recipe, .. there, "--name", "old run"]);
        Assert.True(exit == 0, error);
        Assert.Equal(
            hash, (string)JsonNode.Parse(File.ReadLines(Path.Combine(moved, "events.jsonl")).Last())!["adapter_sha256"]!
        );
    }

    /// <summary>
    /// The same for a duel, of which only the log need be there: what it says is refused before anything is done.
    /// </summary>
    [Fact]
    public void ARenamedDuelIsFound()
    {
        using var cli = new Cli();
        string[] small =
        [
            "duel", "--set", "data.max_train_rows=16", "--set", "data.max_eval_rows=32", "--set",
            "data.max_test_rows=32", "--set", "training.max_steps=1"];
        var (exit, _, error) = cli.Run([.. small, "--name", "first"]);
        Assert.True(exit == 0, error);
        (exit, _, error) = cli.Run([.. small, "--resume"]);
        Assert.True(
            exit == 2 && error.Contains("runs/first: go on with --name first --resume", StringComparison.Ordinal), error
        );
        Directory.Move(Path.Combine(cli.Folder, "runs", "first"), Path.Combine(cli.Folder, "runs", "second"));
        Directory.Delete(Path.Combine(cli.Folder, "runs", "second", "deepseek-tiny"), true);
        (exit, _, error) = cli.Run([.. small, "--name", "second", "--resume"]);
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
        Assert.Equal(2, Shell(cli, $"train none.yaml {redirection}").Exit);
        var (exit, json, _) = Shell(
            cli, $"train '{cli.Recipe(Cli.Base("llama-tiny"))}' --json --set training.max_steps=1 {redirection}");
        Assert.Equal(0, exit);
        Assert.NotNull(JsonNode.Parse(json)!["accuracy"]);
    }

    /// <summary>
    /// A full standard output is named, and the exit code tells that what was asked for did not arrive.
    /// </summary>
    [Theory]
    [InlineData("plan MODEL")]
    [InlineData("plan MODEL --json")]
    [InlineData("train RECIPE")]
    [InlineData("export MODEL --out x.gguf")]
    [InlineData("generate MODEL --prompt The --device cpu")]
    [InlineData("inspect --help")]
    public void AFullStandardOutputIsNamed(string arguments)
    {
        if (!OperatingSystem.IsLinux()) Assert.Skip("/dev/full is Linux's");
        using var cli = new Cli();
        var (exit, _, error) = Shell(cli, Filled(cli, arguments) + " >/dev/full");
        string[] lines =
        [
            .. error
                .Split('\n', StringSplitOptions.RemoveEmptyEntries)
                .Where(l => !l.StartsWith("note: ", StringComparison.Ordinal)),
        ];
        Assert.True(
            exit == 1 && lines.Length == 2 && lines[1].StartsWith("  ", StringComparison.Ordinal),
            $"exit {exit}: {error}");
        Assert.StartsWith(
            "error: Standard output cannot be written: No space left on device", lines[0], StringComparison.Ordinal);
        Assert.False(Path.Exists(Path.Combine(cli.Folder, "x.gguf")));
        Assert.Empty(Directory.GetFileSystemEntries(cli.Folder, ".*"));
    }

    /// <summary>
    /// A reader that has gone ends a command like SIGPIPE does, a closed output with 1, both without a word; a run that
    /// ended so goes on.
    /// </summary>
    [Theory]
    [InlineData("plan MODEL", "| true", 141)]
    [InlineData("--help", "| true", 141)]
    [InlineData("train RECIPE", "| head -n 1", 141)]
    [InlineData("plan MODEL", ">&-", 1)]
    [InlineData("plan MODEL", "<&- >&-", 1)] // standard output's number is then a pipe of the runtime's own, open for writing
    [InlineData("train RECIPE", "<&- >&-", 1)]
    [InlineData("train nothing.yaml", ">&-", 2)]
    public void AClosedStandardOutputEndsQuietly(string arguments, string how, int code)
    {
        if (!OperatingSystem.IsLinux()) Assert.Skip("closes streams with sh");
        using var cli = new Cli();
        arguments = Filled(cli, arguments);
        var (_, text, error) = Shell(cli, $"{arguments} {how}", "; echo $? >code");
        Assert.Equal(code, int.Parse(File.ReadAllText(Path.Combine(cli.Folder, "code"))));
        Assert.True(code == 2 || error.Length == 0, error);
        Assert.True(text.Count(c => c == '\n') <= 1, text);
        if (!arguments.StartsWith("train '", StringComparison.Ordinal)) return;
        var (exit, _, why) = cli.Run([
            .. arguments.Split('\'', StringSplitOptions.RemoveEmptyEntries | StringSplitOptions.TrimEntries),
            "--resume",
        ]);
        Assert.True(exit == 0, why);
    }

    private static string Filled(Cli cli, string arguments) =>
        arguments
            .Replace("MODEL", $"'{Cli.Base("llama-tiny")}'", StringComparison.Ordinal)
            .Replace(
                "RECIPE",
                arguments.Contains("RECIPE", StringComparison.Ordinal) ? $"'{cli.Recipe(Cli.Base("llama-tiny"))}'" : "",
                StringComparison.Ordinal);

    /// <summary>
    /// The tool through a shell; <paramref name="then"/> is run after it, before what its output is piped to ends.
    /// </summary>
    private static (int Exit, string Out, string Error) Shell(Cli cli, string arguments, string then = "")
    {
        var info = new ProcessStartInfo("sh")
        {
            WorkingDirectory = cli.Folder,
            RedirectStandardInput = true,
            RedirectStandardOutput = true,
            RedirectStandardError = true,
        };
        foreach (var (name, value) in cli.Environment) info.Environment[name] = value;
        string tool = $"dotnet '{Path.Combine(AppContext.BaseDirectory, "headroom.dll")}' ";
        int pipe = arguments.IndexOf('|', StringComparison.Ordinal);
        string line =
            pipe < 0
                ? tool + arguments + then
                : $"{{ {tool}{arguments[..pipe]}{then}; }} {arguments[pipe..]}; while [ ! -s code ]; do sleep 0.1; "
                    + $"done";
        info.ArgumentList.Add("-c");
        info.ArgumentList.Add(line);
        using var p = Process.Start(info)!;
        var error = p.StandardError.ReadToEndAsync();
        string text = p.StandardOutput.ReadToEnd();
        Assert.True(p.WaitForExit(120_000), "the tool hangs");
        return (p.ExitCode, text, error.Result);
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
