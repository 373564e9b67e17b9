using System.Diagnostics;
using System.Globalization;
using System.Runtime.InteropServices;
using System.Security.Cryptography;
using Headroom.Training.Events;

namespace Headroom.EndToEnd;

/// <summary>
/// Runs that save, evaluate, keep their best, prune and log at every step, killed and stopped at seeded instants until
/// they are done: adapter, best, checkpoints and the log of steps and evaluations are those of the run that was left
/// alone. HEADROOM_SOAK=1 does all of it, HEADROOM_SOAK_SEED chooses other instants.
/// </summary>
public sealed partial class SoakTests : IDisposable
{
    private const int Kills = 200, Stops = 100, Steps = 8, TenthOf = 10, Kill = 9;
    private static readonly (string Name, int Number)[] Signals = [("SIGTERM", 15), ("SIGHUP", 1), ("SIGINT", 2)];
    private readonly Cli _cli = new();
    private readonly ITestOutputHelper _output;
    private readonly Random _random;
    private readonly string _recipe;
    private readonly int _share, _seed;
    private readonly List<string> _chain = []; // what was done to the run at hand, for a failure
    private string _truth = "";
    private double _seconds; // that a run takes which is left alone
    private int _runs, _resumes, _early, _fresh;

    public SoakTests(ITestOutputHelper output)
    {
        _output = output;
        _share = Environment.GetEnvironmentVariable("HEADROOM_SOAK") == "1" ? 1 : TenthOf;
        _seed = int.TryParse(
            Environment.GetEnvironmentVariable("HEADROOM_SOAK_SEED"), CultureInfo.InvariantCulture, out int seed)
            ? seed
            : 1;
        _random = new Random(_seed);
        string Rows(int n, string name) =>
            string.Concat(
                Enumerable
                    .Range(0, n)
                    .Select(i =>
                        $"{{\"text\": \"{name} {i}: {(i % 2 == 1 ? "a wonderful" : "an awful")} film\", \"label\": "
                            + $"{i % 2}}}\n"
                    )
            );
        _recipe = _cli.Recipe(Cli.Base("llama-tiny"), train: Rows(32, "first"), test: Rows(4, "second"));
    }

    private string[] Command(string name, bool resume) =>
    [
            "train",
            _recipe,
            "--name",
            name,
            .. resume ? (string[])["--resume"] : [],
            .. new[]
            {
                $"training.max_steps={Steps}", "training.per_device_train_batch_size=2",
                "training.gradient_accumulation_steps=1", "training.learning_rate=0.02", "training.logging_steps=1",
                "training.eval_strategy=steps", "training.eval_steps=1", "training.save_strategy=steps",
                "training.save_steps=1", "training.save_total_limit=2", "training.metric_for_best_model=loss",
                "data.validation_fraction=0.25",
            }.SelectMany(s => (string[])["--set", s]),
        ];

    private string Folder(string name) => Path.Combine(_cli.Folder, "runs", name);

    private static List<LogEvent> Events(string folder) =>
        !File.Exists(Path.Combine(folder, "events.jsonl"))
            ? []
            : [.. EventLog.Read(Path.Combine(folder, "events.jsonl"))];

    private static int StepsOf(string folder) => Events(folder).OfType<StepEvent>().Count();

    /// <summary>Everything of a finished run that must not depend on what was done to it.</summary>
    private static string Result(string folder)
    {
        var events = Events(folder);
        var lines = new List<string>
        {
            $"adapter {events.OfType<RunEndEvent>().Last().AdapterSha256}",
        };
        lines.AddRange(
            events
                .OfType<StepEvent>()
                .Select(e => $"step {e.Step} {e.Loss:R} {e.GradNorm:R} {e.LearningRate:R} {e.Tokens}")
        );
        lines.AddRange(
            events
                .OfType<EvalEvent>()
                .Select(e => $"eval {e.Step} {string.Join(' ', e.Metrics!.Select(m => $"{m.Name} {m.Value:R}"))}")
        );
        // The state of a checkpoint that a stop wrote in the middle of an evaluation says that this one is due.
        foreach (
            string f in new[] { "best", "checkpoints" }
                .SelectMany(d => Directory.GetFiles(Path.Combine(folder, d), "*", SearchOption.AllDirectories))
            .Where(f => Path.GetFileName(f) != "trainer_state.json").Order(StringComparer.Ordinal))
            lines.Add(
                $"{Path.GetRelativePath(folder, f)} {Convert.ToHexStringLower(SHA256.HashData(File.ReadAllBytes(f)))}");
        return string.Join('\n', lines);
    }

    private Process Start(string name, out Task<string> error)
    {
        bool resume = Directory.Exists(Folder(name));
        if (resume) _resumes++;
        var p = _cli.Start(Command(name, resume));
        error = p.StandardError.ReadToEndAsync();
        p.OutputDataReceived += (_, _) => { };
        p.BeginOutputReadLine();
        return p;
    }

    /// <summary>
    /// Waits for the seeded instant: after a time, or a moment after one of the next steps was logged.
    /// </summary>
    private void Wait(Process p, string name)
    {
        if (_random.Next(3) == 0)
        {
            p.WaitForExit(TimeSpan.FromSeconds(_random.NextDouble() * _seconds));
            return;
        }
        int at = StepsOf(Folder(name)) + _random.Next(1, 4);
        double moment = _random.NextDouble() * _seconds / Steps;
        while (!p.HasExited && StepsOf(Folder(name)) < at) Thread.Sleep(2);
        p.WaitForExit(TimeSpan.FromSeconds(moment));
    }

    /// <summary>One process of a run, which gets a signal at some instant; true when the run is done.</summary>
    private async Task<bool> Disturb(string name, int signal, string said)
    {
        using var p = Start(name, out var error);
        Wait(p, name);
        bool sent = !p.HasExited && Send(p.Id, signal) == 0;
        _chain.Add($"{said} after {StepsOf(Folder(name))} steps");
        Assert.True(p.WaitForExit(120_000), $"{said} did not end it: {string.Join("; ", _chain)}");
        int exit = p.ExitCode;
        if (exit == 0) return true;
        string why = await error;
        // Before the tool listens, a signal ends the process as it ends any.
        bool right = sent
            ? signal == Kill
                ? exit == 128 + Kill
                : exit == 1 || exit == 128 + signal
            : Refused(name, exit);
        Assert.True(right, $"{said}: exit {exit}: {why}\n{string.Join("; ", _chain)}");
        if (!sent) Restart(name);
        return false;
    }

    // A run that was killed before its first checkpoint has nothing to go on from; whether it is begun anew or the user
    // is told to, nothing is lost.
    private bool Refused(string name, int exit) =>
        exit == 2 && !Directory.Exists(Path.Combine(Folder(name), "checkpoints"));

    private void Restart(string name)
    {
        _fresh++;
        Directory.Delete(Folder(name), true);
    }

    private async Task Finish(string name)
    {
        for (int i = 0; i < 2; i++)
        {
            using var p = Start(name, out var error);
            Assert.True(p.WaitForExit(120_000), "it hangs");
            if (p.ExitCode == 0) return;
            Assert.True(
                i == 0 && Refused(name, p.ExitCode), $"exit {p.ExitCode}: {await error}\n{string.Join("; ", _chain)}");
            Restart(name);
        }
    }

    private async Task Soak(int count, Func<(string Said, int Signal)> next)
    {
        for (int done = 0; done < count;)
        {
            string name = $"run{++_runs}";
            _chain.Clear();
            bool whole = false;
            for (int left = _random.Next(1, 8); left > 0 && done < count && !whole; left--)
            {
                var (said, signal) = next();
                whole = await Disturb(name, signal, said);
                if (whole) _early++;
                else done++;
            }
            if (!whole) await Finish(name);
            Assert.True(
                _truth == Result(Folder(name)),
                $"seed {_seed}, run {_runs}, which is another after {string.Join("; ", _chain)}\n{_truth}\n--- is "
                    + $"due, and is\n{Result(Folder(name))}"
            );
            Assert.Empty(Directory.GetFileSystemEntries(Folder(name), "*.tmp*", SearchOption.AllDirectories));
            Directory.Delete(Folder(name), true);
        }
    }

    [Fact]
    public async Task KilledAndStoppedRunsAreTheRunThatWasLeftAlone()
    {
        if (!OperatingSystem.IsLinux()) Assert.Skip("signals are sent on Linux only");
        var clock = Stopwatch.StartNew();
        await Finish("whole");
        clock.Restart();
        await Finish("again");
        _seconds = clock.Elapsed.TotalSeconds;
        _truth = Result(Folder("whole"));
        Assert.Equal(_truth, Result(Folder("again")));
        Assert.Equal(Steps, StepsOf(Folder("whole")));
        clock.Restart();
        await Soak(Kills / _share, () => ("SIGKILL", Kill));
        int killed = _runs;
        await Soak(Stops / _share, () => Signals[_random.Next(Signals.Length)]);
        _output.WriteLine(
            $"seed {_seed}: {Kills / _share} kills of {killed} runs and {Stops / _share} stops of {_runs - killed} "
                + $"runs in {clock.Elapsed.TotalSeconds:F0} s "
                + $"({_resumes} resumes, {_early} ended before their signal, {_fresh} begun anew before a checkpoint; "
                + $"{_seconds:F1} s a run): all the same"
        );
    }

    public void Dispose() => _cli.Dispose();

    [LibraryImport("libc", EntryPoint = "kill")]
    private static partial int Send(int process, int signal);
}
