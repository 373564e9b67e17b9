using System.Diagnostics;
using System.Globalization;
using System.Runtime.InteropServices;
using Microsoft.Win32.SafeHandles;

namespace Headroom.EndToEnd;

/// <summary>
/// SIGINT, SIGTERM and SIGHUP: a command that is at work ends with code 1 and says that it was stopped, and leaves
/// nothing half-done behind.
/// </summary>
public class StopTests
{
    // of a processor: starting and loading take less, however busy the machine is
    private static readonly TimeSpan AtWork = TimeSpan.FromSeconds(2.5);

    /// <summary>
    /// Sends the signal when standard output has <paramref name="when"/>, or, for null, when it has been at work for a
    /// while; returns how it ended.
    /// </summary>
    private static (int Exit, string Out, string Error) Stop(
        Cli cli, string signal, string? when, params string[] arguments)
    {
        using var p = cli.Start(arguments);
        var error = p.StandardError.ReadToEndAsync();
        string text = "";
        if (when == null)
            while (!p.HasExited && p.TotalProcessorTime < AtWork) Thread.Sleep(20);
        else
            for (int c; !text.Contains(when, StringComparison.Ordinal) && (c = p.StandardOutput.Read()) >= 0;)
                text += (char)c;
        Assert.False(p.HasExited, "it ended before it was stopped: " + text);
        using (var kill = Process.Start("kill", [signal, p.Id.ToString(CultureInfo.InvariantCulture)]))
            kill.WaitForExit();
        text += p.StandardOutput.ReadToEnd();
        Assert.True(p.WaitForExit(60_000), signal + " did not end it");
        return (p.ExitCode, text, error.Result);
    }

    private static string Config(Cli cli, string key, int was, int value)
    {
        string path = Path.Combine(cli.Folder, "config.json");
        File.WriteAllText(
            path,
            File.ReadAllText(Path.Combine(Cli.Base("llama-tiny"), "config.json"))
                .Replace($"\"{key}\": {was}", $"\"{key}\": {value}", StringComparison.Ordinal)
        );
        return path;
    }

    [Theory, InlineData("-INT", "writing a checkpoint"), InlineData("-TERM", "round 1 of")]
    public void BenchLoad(string signal, string when)
    {
        if (!OperatingSystem.IsLinux()) Assert.Skip("signals are sent on Linux only");
        using var cli = new Cli();
        string config = Config(
            cli, "intermediate_size", 512, when.StartsWith("round", StringComparison.Ordinal) ? 2048 : 65536);
        var (exit, text, error) = Stop(
            cli, signal, when, "bench", "load", config, "--device", "cpu", "--rounds", "1000", "--work", cli.Folder);
        Assert.True(exit == 1, $"exit {exit}: {text}{error}");
        Assert.Equal("error: Stopped.\n  Run it again; nothing was left behind.\n", error);
        Assert.Empty(Directory.GetDirectories(cli.Folder, "headroom-*"));
    }

    [Theory, InlineData("-INT"), InlineData("-TERM")]
    public void BenchStep(string signal)
    {
        if (!OperatingSystem.IsLinux()) Assert.Skip("signals are sent on Linux only");
        using var cli = new Cli();
        var (exit, text, error) = Stop(
            cli, signal, "step 3:", "bench", "step", Cli.Base("llama-tiny"), "--device", "cpu", "--rows", "1",
            "--length", "16", "--steps", "100000");
        Assert.True(exit == 1, $"exit {exit}: {text}{error}");
        Assert.StartsWith("error: Stopped.", error, StringComparison.Ordinal);
    }

    /// <summary>Planning has nothing to lose: the signal ends the process.</summary>
    [Theory, InlineData("-INT", 130), InlineData("-TERM", 143)]
    public void Plan(string signal, int code)
    {
        if (!OperatingSystem.IsLinux()) Assert.Skip("signals are sent on Linux only");
        using var cli = new Cli();
        // takes minutes
        var (exit, text, error) = Stop(cli, signal, null, "plan", Config(cli, "num_hidden_layers", 4, 3000));
        Assert.Equal((code, "", ""), (exit, text, error));
    }

    [Theory, InlineData("-INT", false), InlineData("-TERM", true)]
    public void Generate(string signal, bool json)
    {
        if (!OperatingSystem.IsLinux()) Assert.Skip("signals are sent on Linux only");
        using var cli = new Cli();
        string model = KillTests.Wide(cli, 8192),
            config = Path.Combine(model, "config.json"); // random weights, which go on for as long as they may
        File.WriteAllText(
            config,
            File.ReadAllText(config)
                .Replace(
                    "\"max_position_embeddings\": 512", "\"max_position_embeddings\": 8192", StringComparison.Ordinal)
        );
        string[] command =
        [
            "generate", model, "--prompt", "The concert was", "--max-new-tokens", "8000", "--device", "cpu"];
        var (exit, text, error) = Stop(
            cli, signal, json ? null : " ", [.. command, .. json ? ["--json"] : (string[])[]]);
        Assert.True(exit == 1, $"exit {exit}: {text}{error}");
        Assert.Contains("error: Stopped.\n", error, StringComparison.Ordinal);
        if (json) Assert.Contains("\"finish_reason\":\"cancelled\"", text, StringComparison.Ordinal);
        else Assert.EndsWith("\n", text, StringComparison.Ordinal);
    }

    /// <summary>
    /// A disk that stalls: open(2) of a file on which another process has a lease waits until that gives it up
    /// (fcntl(2)), and nothing in the process can interrupt the thread that waits. It ends all the same, before the
    /// second signal, and leaves nothing.
    /// </summary>
    [
        Theory, InlineData("-HUP", "train.jsonl"), InlineData("-TERM", "tokenizer.json"),
        InlineData("-INT", "model.safetensors")]
    public async Task AStalledDisk(string signal, string file)
    {
        if (!OperatingSystem.IsLinux()) Assert.Skip("signals are sent on Linux only");
        using var cli = new Cli();
        string model = cli.CopyBase("llama-tiny"), recipe = cli.Recipe(model);
        string path = Path.Combine(file == "train.jsonl" ? cli.Folder : model, file);
        using var held = File.OpenHandle(path, FileMode.Open, FileAccess.ReadWrite);
        using var lease = Lease.TryTake(held);
        if (lease == null) Assert.Skip("this file system has no leases");
        using var p = cli.Start("train", recipe);
        var (text, error) = (p.StandardOutput.ReadToEndAsync(), p.StandardError.ReadToEndAsync());
        while (!p.HasExited && !lease.IsWantedByAnother) Thread.Sleep(5);
        Assert.False(p.HasExited, "it did not open the file");
        var clock = Stopwatch.StartNew();
        using (var kill = Process.Start("kill", [signal, p.Id.ToString(CultureInfo.InvariantCulture)]))
            kill.WaitForExit();
        Assert.True(p.WaitForExit(30_000), signal + " did not end it");
        Assert.InRange(clock.Elapsed.TotalSeconds, 0, 3.5); // 2, and what a busy machine adds
        Assert.Equal((1, "error: Stopped.\n  Run it again; nothing was left behind.\n"), (p.ExitCode, await error));
        Assert.False(Directory.Exists(Path.Combine(cli.Folder, "runs")), await text);
    }

    /// <summary>What waits for its other end, or has none: named before it is opened.</summary>
    [
        Theory, InlineData("recipe.yaml"), InlineData("train.jsonl"), InlineData("base/config.json"),
        InlineData("base/tokenizer.json"), InlineData("base/model.safetensors"), InlineData("/dev/zero")]
    public void WhatIsNoFileIsNamed(string file)
    {
        if (!OperatingSystem.IsLinux()) Assert.Skip("mkfifo");
        using var cli = new Cli();
        string recipe = cli.Recipe(cli.CopyBase("llama-tiny")), path = Path.Combine(cli.Folder, file);
        if (file == "/dev/zero") recipe = file;
        else
        {
            File.Delete(path);
            using var make = Process.Start("mkfifo", [path]);
            make.WaitForExit();
        }
        var (exit, text, error) = cli.Run("train", recipe);
        Assert.Equal((2, ""), (exit, text));
        Assert.Equal(
            $"error: {path} is {(file == "/dev/zero" ? "a device" : "a named pipe (FIFO)")}, not a file.\n  Give a "
                + $"regular file; write what the program gives to one first.\n",
            error);
        Assert.False(Directory.Exists(Path.Combine(cli.Folder, "runs")));
    }
}

/// <summary>A write lease on a file, as fcntl(2) gives it: whoever opens the file waits, up to 45 seconds.</summary>
internal sealed partial class Lease : IDisposable
{
    private const int SetSignal = 10,
        SetLease = 1024,
        GetLease = 1025,
        Urgent = 23,
        Write = 1,
        None = 2; // F_SETSIG, F_SETLEASE, F_GETLEASE, SIGURG, F_WRLCK, F_UNLCK
    private readonly SafeFileHandle _file;

    private Lease(SafeFileHandle file) => _file = file;

    public static Lease? TryTake(SafeFileHandle file) =>
        // SIGIO, the usual one, would end this process
        Control(file, SetSignal, Urgent) == 0 && Control(file, SetLease, Write) == 0 ? new Lease(file) : null;

    public bool IsWantedByAnother => Control(_file, GetLease, 0) != Write;

    public void Dispose() => _ = Control(_file, SetLease, None);

    [LibraryImport("libc", EntryPoint = "fcntl")]
    private static partial int Control(SafeFileHandle file, int command, nint argument);
}
