using System.Diagnostics;
using System.Globalization;

namespace Headroom.EndToEnd;

/// <summary>SIGINT and SIGTERM: a command that is at work ends with code 1 and says that it was stopped, and leaves nothing half-done behind.</summary>
public class StopTests
{
    /// <summary>Sends the signal when standard output has <paramref name="when"/>, or at once for null; returns how it ended.</summary>
    private static (int Exit, string Out, string Error) Stop(Cli cli, string signal, string? when, params string[] arguments)
    {
        using var p = cli.Start(arguments);
        var error = p.StandardError.ReadToEndAsync();
        string text = "";
        if (when == null) Thread.Sleep(2000);
        else
            for (int c; !text.Contains(when, StringComparison.Ordinal) && (c = p.StandardOutput.Read()) >= 0;) text += (char)c;
        Assert.False(p.HasExited, "it ended before it was stopped: " + text);
        using (var kill = Process.Start("kill", [signal, p.Id.ToString(CultureInfo.InvariantCulture)])) kill.WaitForExit();
        text += p.StandardOutput.ReadToEnd();
        Assert.True(p.WaitForExit(60_000), signal + " did not end it");
        return (p.ExitCode, text, error.Result);
    }

    private static string Config(Cli cli, string key, int was, int value)
    {
        string path = Path.Combine(cli.Folder, "config.json");
        File.WriteAllText(path, File.ReadAllText(Path.Combine(Cli.Base("llama-tiny"), "config.json")).Replace($"\"{key}\": {was}", $"\"{key}\": {value}", StringComparison.Ordinal));
        return path;
    }

    [Theory, InlineData("-INT", "writing a checkpoint"), InlineData("-TERM", "round 1 of")]
    public void BenchLoad(string signal, string when)
    {
        if (!OperatingSystem.IsLinux()) Assert.Skip("signals are sent on Linux only");
        using var cli = new Cli();
        string config = Config(cli, "intermediate_size", 512, when.StartsWith("round", StringComparison.Ordinal) ? 2048 : 65536);
        var (exit, text, error) = Stop(cli, signal, when, "bench", "load", config, "--device", "cpu", "--rounds", "1000", "--work", cli.Folder);
        Assert.True(exit == 1, $"exit {exit}: {text}{error}");
        Assert.Equal("error: Stopped.\n  Run it again; nothing was left behind.\n", error);
        Assert.Empty(Directory.GetDirectories(cli.Folder, "headroom-*"));
    }

    [Theory, InlineData("-INT"), InlineData("-TERM")]
    public void BenchStep(string signal)
    {
        if (!OperatingSystem.IsLinux()) Assert.Skip("signals are sent on Linux only");
        using var cli = new Cli();
        var (exit, text, error) = Stop(cli, signal, "step 3:", "bench", "step", Cli.Base("llama-tiny"), "--device", "cpu", "--rows", "1", "--length", "16", "--steps", "1000000");
        Assert.True(exit == 1, $"exit {exit}: {text}{error}");
        Assert.StartsWith("error: Stopped.", error, StringComparison.Ordinal);
    }

    /// <summary>Planning has nothing to lose: the signal ends the process.</summary>
    [Theory, InlineData("-INT", 130), InlineData("-TERM", 143)]
    public void Plan(string signal, int code)
    {
        if (!OperatingSystem.IsLinux()) Assert.Skip("signals are sent on Linux only");
        using var cli = new Cli();
        var (exit, text, error) = Stop(cli, signal, null, "plan", Config(cli, "num_hidden_layers", 4, 3000)); // takes minutes
        Assert.Equal((code, "", ""), (exit, text, error));
    }

    [Theory, InlineData("-INT", false), InlineData("-TERM", true)]
    public void Generate(string signal, bool json)
    {
        if (!OperatingSystem.IsLinux()) Assert.Skip("signals are sent on Linux only");
        using var cli = new Cli();
        string model = KillTests.Wide(cli, 8192), config = Path.Combine(model, "config.json"); // random weights, which go on for as long as they may
        File.WriteAllText(config, File.ReadAllText(config).Replace("\"max_position_embeddings\": 512", "\"max_position_embeddings\": 8192", StringComparison.Ordinal));
        string[] command = ["generate", model, "--prompt", "The concert was", "--max-new-tokens", "8000", "--device", "cpu"];
        var (exit, text, error) = Stop(cli, signal, json ? null : " ", [.. command, .. json ? ["--json"] : (string[])[]]);
        Assert.True(exit == 1, $"exit {exit}: {text}{error}");
        Assert.Contains("error: Stopped.\n", error, StringComparison.Ordinal);
        if (json) Assert.Contains("\"finish_reason\":\"cancelled\"", text, StringComparison.Ordinal);
        else Assert.EndsWith("\n", text, StringComparison.Ordinal);
    }
}
