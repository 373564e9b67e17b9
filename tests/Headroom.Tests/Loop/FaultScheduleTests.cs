using System.Security.Cryptography;
using Headroom.Core;
using Headroom.Models;
using Headroom.Tests.Models;
using Headroom.Training.Data;
using Headroom.Training.Events;
using Headroom.Training.Loop;
using Headroom.Training.Recipes;

namespace Headroom.Tests.Loop;

/// <summary>
/// A run that saves, evaluates, keeps its best, prunes and logs at every step, on a disk that fails
/// (<see cref="FaultyFiles"/>): whatever happens, a checkpoint that was reported is there and whole, nothing false has
/// a final name, and what is resumed ends as the run that was never disturbed. HEADROOM_SOAK=1 runs all schedules.
/// </summary>
public sealed class FaultScheduleTests(ITestOutputHelper output) : IDisposable
{
    private const int Steps = 6, All = 1000, Few = 100, Attempts = 3;
    private static readonly double[] Metric = [0, 0.4, 0.6, 0.5, 0.7, 0.7, 0.3]; // by step: the best is at 1, 2 and 4
    private readonly string _folder = Directory.CreateTempSubdirectory("headroom-faults-").FullName;
    private readonly List<EncodedRow> _rows = TinyModel.Rows(TinyModel.Smallest(), [6, 9, 5, 7]);

    private sealed record Ended(string Hash, string Steps, int Reported);

    /// <summary>What of the undisturbed run every file under a final name must be.</summary>
    private sealed record Truth(
        Ended Ended, Dictionary<string, string> Files, Dictionary<int, string> Best, int Operations);

    private string At(params string[] names) => Path.Combine([_folder, .. names]);

    private string Checkpoints_ => At("run", "checkpoints");

    private int _reported; // the newest checkpoint that the run was told of

    private Ended Run(int limit, Action<int>? onBest = null)
    {
        var config = TinyModel.Smallest();
        var options = new TrainingOptions
        {
            PerDeviceTrainBatchSize = 2,
            GradientAccumulationSteps = 1,
            MaxSteps = Steps,
            LearningRate = 1e-2,
            EvalStrategy = IntervalStrategy.Steps,
            EvalSteps = 1,
            SaveStrategy = IntervalStrategy.Steps,
            SaveSteps = 1,
            SaveTotalLimit = limit,
            Seed = 3,
        };
        using var engine = TinyModel.Open(
            config,
            new ModelSettings(
                WeightStorage.F32, WeightStorage.F32, TrainMode.Adapters, TinyModel.Lora(0.1f), 0, LogitsChunk: 8),
            18,
            2
        );
        var trainer = new Trainer(engine, options, new RowList(_rows), 9)
        {
            State = new TrainerState(0, 0, null, 0, "recipe", "base"),
        };
        FileLayer.Current.MakeFolder(At("run"));
        Checkpoints.Restore(Checkpoints_);
        if (Checkpoints.Latest(Checkpoints_) is { } from)
            trainer.State = Checkpoints.Load(from, engine, "recipe", "base");
        EventLog.Cut(At("run", "events.jsonl"), At("run", "events-cut.jsonl"), trainer.State.Step);
        using var log = new EventLog(At("run", "events.jsonl"));
        trainer.Run(new TrainerHooks
        {
            OnStep = s => log.Write(new StepEvent { Step = s.Step, Loss = s.Loss, GradNorm = s.GradNorm }),
            Evaluate = s => (Metric[s], true),
            OnBest = s =>
            {
                engine.Adapter("tiny", "base").Save(At("run", "best"));
                onBest?.Invoke(s);
            },
            BeforeCheckpoint = log.Sync,
            OnCheckpoint = (s, _) => _reported = s,
            OnCheckpointFailed = (_, _) => { },
        }, Checkpoints_, "tiny", TestContext.Current.CancellationToken);
        log.Sync();
        return new Ended(Checkpoints.TrainedHash(engine), LogOf(int.MaxValue), _reported);
    }

    private string LogOf(int last) =>
        !File.Exists(At("run", "events.jsonl"))
            ? ""
            : string.Join(
                '\n',
                EventLog
                    .Read(At("run", "events.jsonl"))
                    .OfType<StepEvent>()
                    .Where(e => e.Step <= last)
                    .Select(e => $"{e.Step} {e.Loss:R} {e.GradNorm:R}"));

    private static string Hash(string file) => Convert.ToHexStringLower(SHA256.HashData(File.ReadAllBytes(file)));

    private static IEnumerable<string> Named(string folder) => !Directory.Exists(folder) ? []
            : Directory
                .GetFiles(folder, "*", SearchOption.AllDirectories)
                .Where(f =>
                    !Path.GetFileName(f).StartsWith('.')
                    && !Path.GetRelativePath(folder, f).Contains(".tmp", StringComparison.Ordinal)
                );

    private Truth Undisturbed()
    {
        var best = new Dictionary<int, string>();
        Directory.CreateDirectory(At("run"));
        var disk = new FaultyFiles(At("run"), 0);
        FileLayer.Replace(disk);
        var ended = Run(0, s => best[s] = Hash(At("run", "best", "adapter_model.safetensors")));
        Assert.Equal([1, 2, 4], best.Keys.Order());
        var files = Named(Checkpoints_).ToDictionary(f => Path.GetRelativePath(Checkpoints_, f), Hash);
        Assert.Equal(4 * Steps, files.Count);
        files["best"] = Hash(At("run", "best", "adapter_config.json"));
        return new Truth(ended, files, best, disk.Operations);
    }

    /// <summary>What holds after every end, and after every loss of power.</summary>
    private void Check(Truth truth, bool lied, int limit)
    {
        foreach (string f in Named(At("run", "best")))
            Assert.True(
                Path.GetFileName(f) == "adapter_config.json"
                    ? Hash(f) == truth.Files["best"]
                    : truth.Best.ContainsValue(Hash(f)) || lied,
                $"{f} is false"
            );
        var all = Checkpoints.All(Checkpoints_);
        if (lied && all.Count > 0)
        {
            // A disk that lies about a flush can spoil one checkpoint: that is found, and the one before it is whole.
            if (Record.Exception(() => Checkpoints.Verify(all[^1].Path, "recipe")) is not { } damaged) return;
            Assert.IsType<HeadroomException>(damaged);
            if (limit > 1 && all.Count > 1) Checkpoints.Verify(all[^2].Path, "recipe");
            foreach (var c in all.Where(c => Record.Exception(() => Checkpoints.Verify(c.Path, "recipe")) != null))
                Directory.Delete(c.Path, true); // as the message says
            return;
        }
        foreach (string f in Named(Checkpoints_))
            Assert.True(truth.Files[Path.GetRelativePath(Checkpoints_, f)] == Hash(f), $"{f} is false");
        Assert.All(all, c => Assert.Equal(4, Named(c.Path).Count()));
        if (lied) return;
        int newest = all.Count == 0 ? 0 : all[^1].Step;
        Assert.True(newest >= _reported, $"checkpoint {_reported} was reported, the newest is {newest}");
        if (newest > 0) Checkpoints.Verify(all[^1].Path, "recipe");
        Assert.Equal(string.Join('\n', truth.Ended.Steps.Split('\n').Take(newest)), LogOf(newest));
    }

    [Fact]
    public void WhateverTheDiskDoesNothingFalseIsLeftAndNothingReportedIsLost()
    {
        var truth = Undisturbed();
        int schedules = Environment.GetEnvironmentVariable("HEADROOM_SOAK") == "1" ? All : Few,
            cuts = 0,
            errors = 0,
            lies = 0,
            whole = 0;
        for (int seed = 1; seed <= schedules; seed++)
        {
            try
            {
                Schedule(seed);
            }
            catch (Exception e)
            {
                throw new InvalidOperationException($"schedule {seed}: {e.Message}", e);
            }
        }
        output.WriteLine(
            $"{schedules} schedules: {cuts} power cuts, {errors} runs ended by the disk, {lies} flushes that lied, "
                + $"{whole} attempts that reached the end"
        );
        Assert.True(cuts > schedules / 2 && errors > schedules / 4 && lies > schedules / 20 && whole > schedules / 4);

        void Schedule(int seed)
        {
            var random = new Random(seed);
            int limit = random.Next(4);
            bool lied = false;
            _reported = 0;
            if (Directory.Exists(At("run"))) Directory.Delete(At("run"), true);
            Directory.CreateDirectory(At("run"));
            for (int attempt = 0; attempt < Attempts; attempt++)
            {
                var disk = new FaultyFiles(At("run"), random.Next(), FaultPlan.Draw(random, truth.Operations));
                FileLayer.Replace(disk);
                try
                {
                    Assert.Equal(truth.Ended.Hash, Run(limit).Hash);
                    whole++;
                }
                catch (PowerCutException)
                {
                    FileLayer.Replace(null);
                    disk.PowerCut();
                    cuts++;
                }
                catch (Exception e) when (DiskFault.Find(e) != null)
                {
                    errors++;
                }
                lied |= disk.Lied;
                if (disk.Lied) lies++;
                FileLayer.Replace(null);
                Check(truth, lied, limit);
            }
            FileLayer.Replace(new FaultyFiles(At("run"), 0)); // a sound disk that is not waited for
            var ended = Run(limit);
            FileLayer.Replace(null);
            Assert.Equal((truth.Ended.Hash, truth.Ended.Steps), (ended.Hash, ended.Steps));
            Check(truth, lied, limit);
            if (lied) return;
            Assert.Equal(truth.Best[4], Hash(At("run", "best", "adapter_model.safetensors")));
            Assert.Empty(Directory.GetDirectories(Checkpoints_, "*.tmp"));
        }
    }

    public void Dispose()
    {
        FileLayer.Replace(null);
        Directory.Delete(_folder, true);
    }
}
