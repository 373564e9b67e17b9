using Headroom.Core;
using Headroom.Inference.Bases;
using Headroom.Models;
using Headroom.Tests.Models;
using Headroom.Training.Events;
using Headroom.Training.Loop;
using Headroom.Training.Recipes;
using Headroom.Training.Runs;

namespace Headroom.Tests.Runs;

/// <summary>
/// The files of a run's folder: what is damaged is found, what can be put back is, and no event is lost.
/// </summary>
public sealed class RunFolderTests : IDisposable
{
    private readonly string _root = Directory.CreateTempSubdirectory("headroom-run-").FullName;

    private RunFolder Folder => new(_root);

    private string Checkpoint(int step = 2)
    {
        using var engine = TinyModel.Open(
            TinyModel.Smallest(),
            new ModelSettings(
                WeightStorage.F32, WeightStorage.F32, TrainMode.Adapters, TinyModel.Lora(0), 0, LogitsChunk: 8),
            18,
            2
        );
        engine.InitializeAdapters((ulong)step);
        var state = new TrainerState(
            step, step, 0.5, step, "recipe", "base", Hashes: new Dictionary<string, string> { ["train"] = "x" });
        string path = Checkpoints.Save(Folder.Checkpoints, engine, "tiny", state);
        using var log = new EventLog(Folder.Events);
        Folder.SaveBest(step, to => engine.Adapter("tiny", "base").Save(to), log);
        return path;
    }

    /// <summary>One bit of any byte of any file of a checkpoint, its own state too, and any missing file.</summary>
    [Fact]
    public void EveryByteOfACheckpointIsLookedAt()
    {
        string checkpoint = Checkpoint();
        Assert.Null(Checkpoints.Damage(checkpoint));
        Checkpoints.Verify(checkpoint, "recipe");
        var random = new Random(5);
        foreach (string file in Directory.GetFiles(checkpoint, "*", SearchOption.AllDirectories))
        {
            string name = Path.GetRelativePath(checkpoint, file);
            byte[] whole = File.ReadAllBytes(file);
            // The state is small: every byte of it.
            int[] at =
                name == "trainer_state.json"
                    ? [.. Enumerable.Range(0, whole.Length)]
                    : [0, whole.Length - 1, .. Enumerable.Range(0, 20).Select(_ => random.Next(whole.Length))];
            foreach (int i in at)
            {
                byte[] flipped = [.. whole];
                flipped[i] ^= (byte)(1 << random.Next(8));
                File.WriteAllBytes(file, flipped);
                Assert.Equal(name, Checkpoints.Damage(checkpoint));
            }
            File.WriteAllBytes(file, [.. whole, (byte)'\n']);
            Assert.Equal(name, Checkpoints.Damage(checkpoint));
            File.Delete(file);
            Assert.Equal(name, Checkpoints.Damage(checkpoint));
            File.WriteAllBytes(file, whole);
        }
        Assert.Null(Checkpoints.Damage(checkpoint));
        Assert.Equal("x", Checkpoints.ReadState(checkpoint).Hashes!["train"]);
        string moved = Path.Combine(Path.GetDirectoryName(checkpoint)!, "checkpoint-3");
        Directory.Move(checkpoint, moved); // of another step than it says
        Assert.Equal("trainer_state.json", Checkpoints.Damage(moved));
    }

    /// <summary>The message names the newest whole one and everything that stands before it.</summary>
    [Fact]
    public void TheNewestWholeCheckpointIsNamed()
    {
        string[] all = [Checkpoint(1), Checkpoint(2), Checkpoint(3)];
        foreach (string c in all[1..]) File.AppendAllText(Path.Combine(c, "optimizer.safetensors"), "x");
        var e = Assert.Throws<HeadroomException>(() => Checkpoints.Verify(all[2], "recipe"));
        Assert.Contains("optimizer.safetensors is not what was written", e.Message, StringComparison.Ordinal);
        Assert.Contains("Move checkpoint-3, checkpoint-2 out of", e.ToDo, StringComparison.Ordinal);
        Assert.Contains("goes on from checkpoint-1", e.ToDo, StringComparison.Ordinal);
        File.AppendAllText(Path.Combine(all[0], "adapter_config.json"), "x");
        Assert.Contains(
            "No other is whole", Assert.Throws<HeadroomException>(() => Checkpoints.Verify(all[2], "recipe")).ToDo,
            StringComparison.Ordinal);
    }

    [Fact]
    public void BestComesBackFromItsCheckpoint()
    {
        string checkpoint = Checkpoint();
        var saved = RunFolder.FilesOf(Folder.Best);
        Assert.Null(Folder.RestoreBest(2, 2, RunLog.Read(Folder.Events)));
        string weights = Path.Combine(Folder.Best, "adapter_model.safetensors");
        byte[] whole = File.ReadAllBytes(weights);
        whole[^1] ^= 1;
        File.WriteAllBytes(weights, whole);
        Assert.Contains(
            "was damaged: restored from checkpoint-2", Folder.RestoreBest(2, 2, RunLog.Read(Folder.Events)),
            StringComparison.Ordinal);
        Assert.Equal(saved, RunFolder.FilesOf(Folder.Best));
        Directory.Delete(Folder.Best, true);
        Assert.Contains(
            "was missing: restored from checkpoint-2", Folder.RestoreBest(2, 2, RunLog.Read(Folder.Events)),
            StringComparison.Ordinal);
        Assert.Equal(saved, RunFolder.FilesOf(Folder.Best));
        Assert.Equal([Folder.Best, Folder.Checkpoints], Directory.GetDirectories(_root).Order());
        Directory.Delete(checkpoint, true);
        Assert.Null(Folder.RestoreBest(2, 2, RunLog.Read(Folder.Events)));
        File.WriteAllBytes(weights, whole);
        Assert.Contains(
            "no whole checkpoint of step 2",
            Assert.Throws<HeadroomException>(() => Folder.RestoreBest(2, 2, RunLog.Read(Folder.Events))).Message,
            StringComparison.Ordinal);
    }

    /// <summary>
    /// best/ of an evaluation after the checkpoint that a run goes on from: the evaluation comes again, so it may stay.
    /// </summary>
    [Fact]
    public void ALaterBestMayStay()
    {
        Checkpoint(2);
        Checkpoint(4);
        Directory.Delete(Checkpoints.Folder(Folder.Checkpoints, 2), true);
        var later = RunFolder.FilesOf(Folder.Best);
        Assert.Null(Folder.RestoreBest(2, 3, RunLog.Read(Folder.Events)));
        EventLog.Cut(Folder.Events, Folder.CutEvents, 3);
        Assert.Null(Folder.RestoreBest(2, 3, RunLog.Read(Folder.Events))); // killed once more before it came
        Assert.Equal(later, RunFolder.FilesOf(Folder.Best));
        Assert.Throws<HeadroomException>(() => Folder.RestoreBest(2, 4, RunLog.Read(Folder.Events)));
    }

    [Fact]
    public void WhatIsCutFromALogIsKept()
    {
        var lines = Enumerable
            .Range(1, 6)
            .Select(s => $"{{\"event\":\"step\",\"step\":{s}}}")
            .Prepend("{\"event\":\"run_start\"}")
            .Append("{\"event\":\"run_end\"}")
            .Append("{\"event\":\"st")
            .ToList();
        File.WriteAllLines(Folder.Events, lines);
        EventLog.Cut(Folder.Events, Folder.CutEvents, 4);
        Assert.Equal(lines[..5], File.ReadAllLines(Folder.Events));
        Assert.Equal(lines[5..], File.ReadAllLines(Folder.CutEvents));
        EventLog.Cut(Folder.Events, Folder.CutEvents, 4);
        Assert.Equal(lines[5..], File.ReadAllLines(Folder.CutEvents));
        EventLog.Cut(Folder.Events, Folder.CutEvents, null);
        Assert.Empty(File.ReadAllLines(Folder.Events));
        Assert.Equal([.. lines[5..], .. lines[..5]], File.ReadAllLines(Folder.CutEvents));
    }

    /// <summary>
    /// Seconds of the whole run: of each process from its first event to its last, those of a resume counted on from
    /// what it wrote down.
    /// </summary>
    [Fact]
    public void TheWholeRunAddsUpWhatRanBefore()
    {
        string At(string kind, int second, string more = "") =>
            $"{{\"event\":\"{kind}\",\"time\":\"2026-01-01T00:00:{second:00}.0000000Z\"{more}}}";
        File.WriteAllLines(
            Folder.Events,
            [
                At("run_start", 0), At("step", 5, ",\"step\":1"), At("resumed", 20, ",\"step\":1"),
                At("step", 27, ",\"step\":2")]
        );
        Assert.Equal(12, RunLog.Read(Folder.Events).Seconds, 6);
        // The process before the resume had worked 9 seconds, 4 of them on steps that were cut.
        File.WriteAllLines(
            Folder.Events,
            [
                At("run_start", 0), At("step", 5, ",\"step\":1"),
                At("resumed", 20, ",\"step\":1,\"seconds_before\":9.0"), At("step", 27, ",\"step\":2")]
        );
        Assert.Equal(16, RunLog.Read(Folder.Events).Seconds, 6);
    }

    /// <summary>What a kill leaves before the recipe is there is no run and in nobody's way.</summary>
    [Fact]
    public void AFolderThatAKillLeftWithNothingInItIsEmpty()
    {
        Assert.True(Folder.IsEmpty);
        File.WriteAllText(Path.Combine(_root, "lock"), "");
        File.WriteAllText(Path.Combine(_root, "lock.json"), "");
        File.WriteAllText(Headroom.Formats.Temporary.Beside(Folder.Recipe), "half");
        Assert.True(Folder.IsEmpty);
        Assert.False(Folder.HasRun);
        File.WriteAllText(Path.Combine(_root, "notes.txt"), "mine");
        Assert.False(Folder.IsEmpty);
        Assert.Contains(
            "exists already", Assert.Throws<HeadroomException>(() => Folder.Begin()).Message, StringComparison.Ordinal);
    }

    /// <summary>A kill while a finished run is made longer leaves its old end in the log: it is not finished.</summary>
    [Fact]
    public void ARunThatIsBeingMadeLongerIsNotFinished()
    {
        var recipe = new Recipe();
        string end = "{\"event\":\"run_start\"}\n{\"event\":\"run_end\",\"completed\":true,\"steps\":4}\n";
        File.WriteAllText(Folder.Events, end);
        Manifest(recipe, 4).Write(Folder.Manifest);
        Assert.True(Folder.Resume(recipe).IsFinished);
        Manifest(recipe, 6).Write(Folder.Manifest);
        Assert.Contains(
            "holds no checkpoint", Assert.Throws<HeadroomException>(() => Folder.Resume(recipe)).Message,
            StringComparison.Ordinal);
        Assert.Equal(end, File.ReadAllText(Folder.Events));
    }

    private static RunManifest Manifest(Recipe recipe, int steps) => new()
    {
        Name = "n",
        Model = "m",
        ModelPath = "/m",
        BaseHash = "b",
        Config = new Dictionary<string, string>(),
        RecipeHash = RecipeIdentity.Hash(recipe),
        Recipe = RecipeIdentity.Values(recipe),
        Resolved = new Dictionary<string, string>
        {
            ["device"] = "cpu",
            ["precision"] = "fp32",
            ["linear_storage"] = "NF4",
        },
        Device = "CPU",
        Data = new[] { "train", "validation", "test" }.ToDictionary(s => s, s => new SplitIdentity(3, s)),
        Seed = 1,
        TotalSteps = steps,
    };

    [Fact]
    public void AManifestIsReadBackAsItWasWritten()
    {
        var manifest = new RunManifest
        {
            Name = "n",
            Model = "m",
            ModelPath = "/m",
            ModelHub = "org/m",
            Tokenizer = "/t",
            BaseHash = "b",
            Config = new Dictionary<string, string> { ["rope_theta"] = "500" },
            RecipeHash = "r",
            Recipe = new Dictionary<string, string> { ["lora.r"] = "4" },
            Resolved = new Dictionary<string, string>
            {
                ["device"] = "cuda",
                ["precision"] = "bf16",
                ["linear_storage"] = "NF4",
            },
            Device = "H",
            Driver = "CUDA 13.0",
            Data = new[] { "train", "validation", "test" }.ToDictionary(s => s, s => new SplitIdentity(3, s)),
            Seed = -1,
            TotalSteps = 9,
            Command = ["train", "a b"],
        };
        Assert.Null(Folder.ReadManifest());
        manifest.Write(Folder.Manifest);
        var read = Folder.ReadManifest()!;
        Assert.Equal(manifest.ToJson(), read.ToJson());
        Assert.Equal(WeightStorage.NF4, read.LinearStorage);
        Assert.False(read.Quantization.Bnb4bitUseDoubleQuant);
        foreach (
            string bad in (string[])
                [
                    "", "[1]", "{\"recipe_values\": {}}", "{\"recipe_values\": 3}",
                    File.ReadAllText(Folder.Manifest).Replace("\"NF4\"", "\"NF5\"", StringComparison.Ordinal)]
        )
            Assert.Contains("is damaged", Refused(bad), StringComparison.Ordinal);
        string whole = manifest.ToJson();
        Assert.EndsWith(
            "is damaged: seed is of another kind.",
            Refused(whole.Replace("\"seed\": -1", "\"seed\": \"x\"", StringComparison.Ordinal)));
        Assert.EndsWith(
            "is damaged: it lacks 'seed'.",
            Refused(whole.Replace("\"seed\": -1,", "", StringComparison.Ordinal)));
        string Refused(string text)
        {
            File.WriteAllText(Folder.Manifest, text);
            return Assert.Throws<HeadroomException>(Folder.ReadManifest).Message;
        }
        File.WriteAllText(Folder.Manifest, "{\"name\": \"old\"}"); // of a version that did not note what was trained
        Assert.Null(Folder.ReadManifest());
    }

    public void Dispose() => Directory.Delete(_root, true);
}
