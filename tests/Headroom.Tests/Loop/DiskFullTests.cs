using Headroom.Core;
using Headroom.Models;
using Headroom.Tests.Models;
using Headroom.Training.Data;
using Headroom.Training.Events;
using Headroom.Training.Loop;
using Headroom.Training.Recipes;

namespace Headroom.Tests.Loop;

/// <summary>A full disk costs checkpoints, never the run, unless it is the last one; and no event.</summary>
public sealed class DiskFullTests : IDisposable
{
    private readonly string _folder = Directory.CreateTempSubdirectory("headroom-full-").FullName;

    /// <summary>A disk that is full while something says so.</summary>
    private sealed class FullDisk(Func<bool> full) : FileLayer
    {
        public override Stream Create(string path) => full() ? throw new IOException($"No space left on device : "
            + $"'{path}'", 28) : base.Create(path);
        public override void Flush(Stream file)
        {
        }

        public override void FlushFolder(string path)
        {
        }
    }

    private static bool Run(string root, int limit, List<int> saved, List<(int, string)> failed)
    {
        using var engine = TinyModel.Open(TinyModel.Smallest(),
            new ModelSettings(
                WeightStorage.F32, WeightStorage.F32, TrainMode.Adapters, TinyModel.Lora(), 0, LogitsChunk: 8),
            18,
            2
        );
        var trainer = new Trainer(engine, new TrainingOptions
        {
            PerDeviceTrainBatchSize = 2,
            GradientAccumulationSteps = 1,
            MaxSteps = 6,
            LearningRate = 1e-3,
            SaveStrategy = IntervalStrategy.Steps,
            SaveSteps = 1,
            SaveTotalLimit = limit,
            Seed = 3,
        }, new RowList(TinyModel.Rows(TinyModel.Smallest(), [6, 9, 5, 7])), 9)
        { State = new TrainerState(0, 0, null, 0, "recipe", "base") };
        return trainer.Run(
            new TrainerHooks
            {
                OnCheckpoint = (s, _) => saved.Add(s),
                OnCheckpointFailed = (s, why) => failed.Add((s, why)),
            },
            root,
            "tiny",
            TestContext.Current.CancellationToken
        );
    }

    [Fact]
    public void TheRunGoesOnWithFewerCheckpoints()
    {
        List<int> saved = [];
        List<(int Step, string Why)> failed = [];
        // steps 3 and 4 find no room
        FileLayer.Replace(new FullDisk(() => saved.LastOrDefault() == 2 && failed.Count < 2));
        Assert.True(Run(_folder, 0, saved, failed));
        Assert.Equal([1, 2, 5, 6], saved);
        Assert.Equal([3, 4], failed.Select(f => f.Step));
        Assert.Contains("checkpoint-3", failed[0].Why, StringComparison.Ordinal);
        Assert.Contains("No space left", failed[0].Why, StringComparison.Ordinal);
        Assert.Equal(
            ["checkpoint-1", "checkpoint-2", "checkpoint-5", "checkpoint-6"],
            Directory.GetFileSystemEntries(_folder).Select(Path.GetFileName).Order()); // nothing half-written
    }

    /// <summary>
    /// What pruning deletes anyway goes first; the newest stays, and with it a checkpoint to go on from.
    /// </summary>
    [Theory, InlineData(3, true), InlineData(1, false)]
    public void WhatPruningWouldDeleteMakesRoom(int limit, bool helps)
    {
        List<int> saved = [];
        List<(int Step, string Why)> failed = [];
        FileLayer.Replace(
            new FullDisk(() =>
                Directory
                    .GetDirectories(_folder, "checkpoint-*")
                    .Count(d => !d.EndsWith(".tmp", StringComparison.Ordinal)) >= Math.Min(limit, 3)
                && saved.Count < 5
            )
        );
        if (helps)
        {
            Assert.True(Run(_folder, limit, saved, failed));
            Assert.Equal([1, 2, 3, 4, 5, 6], saved);
            Assert.Empty(failed);
            return;
        }
        var e = Assert.Throws<HeadroomException>(() => Run(_folder, limit, saved, failed));
        Assert.Equal(1, e.ExitCode);
        Assert.True(DiskFault.IsFull(e));
        Assert.Equal([2, 3, 4, 5], failed.Select(f => f.Step)); // the last one, of step 6, is the error
        Checkpoints.Verify(Path.Combine(_folder, "checkpoint-1"), "recipe");
    }

    /// <summary>
    /// Events that the disk does not take, whole or in half, come later in their order; a sync fails until then.
    /// </summary>
    [Fact]
    public void NoEventIsLost()
    {
        string path = Path.Combine(_folder, "events.jsonl");
        for (int seed = 1; seed <= 20; seed++)
        {
            File.Delete(path);
            var disk = new FaultyFiles(_folder, seed, new FaultPlan(Full: 3..30));
            FileLayer.Replace(disk);
            var said = new List<string>();
            using (var log = new EventLog(path) { Warn = said.Add })
            {
                int written = 0;
                while (disk.Operations < 12) log.Write(new StepEvent { Step = ++written });
                Assert.Single(said);
                Assert.Contains("No space left", said[0], StringComparison.Ordinal);
                var e = Assert.Throws<HeadroomException>(log.Sync);
                Assert.Equal(1, e.ExitCode);
                Assert.Contains(path, e.Message, StringComparison.Ordinal);
                // no half line
                Assert.All(File.ReadLines(path), l => Assert.EndsWith("}", l, StringComparison.Ordinal));
                while (disk.Operations < 40) log.Write(new StepEvent { Step = ++written });
                log.Sync();
                Assert.Equal(Enumerable.Range(1, written), EventLog.Read(path).Select(e => ((StepEvent)e).Step));
            }
        }
    }

    public void Dispose()
    {
        FileLayer.Replace(null);
        Directory.Delete(_folder, true);
    }
}
