using System.Buffers.Binary;
using System.Text.Json.Nodes;
using Headroom.Core;
using Headroom.Cpu;
using Headroom.Training.Recipes;
using Headroom.Training.Runs;

namespace Headroom.EndToEnd;

/// <summary>
/// A model whose numbers are NaN, and a disk that is full: an exit code, a reason, an event, and never a figure that
/// means nothing.
/// </summary>
public sealed class NotFiniteTests : IDisposable
{
    private readonly Cli _cli = new();

    /// <summary>
    /// llama-tiny whose last norm multiplies by 3e38, so that its logits overflow. (A weight that is NaN is refused
    /// when it is loaded.)
    /// </summary>
    private string Spoiled()
    {
        string folder = _cli.CopyBase("llama-tiny"), path = Path.Combine(folder, "model.safetensors");
        byte[] bytes = File.ReadAllBytes(path);
        int header = (int)BinaryPrimitives.ReadInt64LittleEndian(bytes);
        var tensor = JsonNode.Parse(bytes.AsSpan(8, header))!["model.norm.weight"]!;
        Assert.Equal("BF16", (string?)tensor["dtype"]);
        for (int at = (int)tensor["data_offsets"]![0]!; at < (int)tensor["data_offsets"]![1]!; at += 2)
            BinaryPrimitives.WriteUInt16LittleEndian(bytes.AsSpan(8 + header + at), 0x7F61);
        File.WriteAllBytes(path, bytes);
        return folder;
    }

    private List<JsonNode> Events(string name) =>
        [.. File.ReadLines(Path.Combine(_cli.Folder, "runs", name, "events.jsonl")).Select(l => JsonNode.Parse(l)!)];

    [Theory, InlineData(false), InlineData(true)]
    public void EvalHasAReasonAndNoNumbers(bool json)
    {
        string recipe = _cli.Recipe(Spoiled());
        var (exit, text, error) = _cli.Run(["eval", recipe, .. json ? ["--json"] : (string[])[]]);
        Assert.Equal(1, exit);
        Assert.StartsWith(
            "error: The scores of 16 of 16 rows are NaN or infinite (the first is row 1), so there is no accuracy.\n",
            error[error.IndexOf("error:", StringComparison.Ordinal)..], StringComparison.Ordinal);
        Assert.DoesNotContain("F1", text, StringComparison.Ordinal);
        if (!json) return;
        var result = JsonNode.Parse(text)!.AsObject();
        Assert.Equal(["rows", "split", "error", "to_do"], result.Select(p => p.Key));
        Assert.Contains("NaN", (string)result["error"]!, StringComparison.Ordinal);
    }

    [Fact]
    public void GenerateGivesNoTokensOfNaN()
    {
        var (exit, text, error) = _cli.Run(
            "generate", Spoiled(), "--prompt", "The concert was", "--device", "cpu", "--json");
        Assert.Equal((1, ""), (exit, text));
        Assert.Contains("are NaN or infinite, so there is no next token.", error, StringComparison.Ordinal);
    }

    /// <summary>With test rows the first evaluation says so; without, the first updates do.</summary>
    [
        Theory, InlineData(true, "The scores of 16 of 16 rows are NaN"),
        InlineData(false, "for the last 3 updates (steps 1 to 3)")]
    public void TrainFailsWithItsReasonInTheEvents(bool test, string why)
    {
        string recipe = _cli.Recipe(Spoiled(), test ? "" : "  warmup_steps: 0");
        if (!test)
            File.WriteAllText(
                recipe, File.ReadAllText(recipe).Replace("  test: test.jsonl\n", "", StringComparison.Ordinal));
        var (exit, _, error) = _cli.Run("train", recipe);
        Assert.True(exit == 1 && error.Contains(why, StringComparison.Ordinal), $"{exit}: {error}");
        var failed = Events("tiny")[^1];
        Assert.Equal("failed", (string?)failed["event"]);
        Assert.Contains(why, (string)failed["error"]!, StringComparison.Ordinal);
        Assert.NotEmpty((string)failed["to_do"]!);
        Assert.False(Directory.Exists(Path.Combine(_cli.Folder, "runs", "tiny", "best")));
        Assert.Empty(
            Directory.Exists(Path.Combine(_cli.Folder, "runs", "tiny", "checkpoints"))
                ? Directory.GetDirectories(Path.Combine(_cli.Folder, "runs", "tiny", "checkpoints"))
                : []
        );
    }

    /// <summary>A disk on which nothing new can be made from the third checkpoint on; the log still has room.</summary>
    private sealed class FullDisk : FileLayer
    {
        public bool Full { get; set; }

        public override Stream Create(string path) =>
            Full ? throw new IOException($"No space left on device : '{path}'", 28) : base.Create(path);
    }

    [Fact]
    public void AFullDiskIsSaidAtOnceAndNamesWhatToGoOnFrom()
    {
        var recipe = RecipeLoader.Load(
            _cli.Recipe(Cli.Base("llama-tiny")),
            ["training.save_strategy=steps", "training.save_steps=2", "training.max_steps=8"]);
        (recipe.Data.Train, recipe.Data.Test) = (Path.Combine(_cli.Folder, "train.jsonl"), null);
        string folder = Path.Combine(_cli.Folder, "runs", "full"),
            last = Path.Combine(folder, "checkpoints", "checkpoint-4");
        var disk = new FullDisk();
        var said = new List<string>();
        RunHost Host(bool resume) =>
            new(
                folder, resume, () => new CpuDevice(1), null, said.Add,
                (what, done, _, _) => disk.Full |= what == "training" && done == 5);
        RunResult Run(bool resume) =>
            TrainRun.Run(
                recipe, File.ReadAllText(Path.Combine(_cli.Folder, "recipe.yaml")), recipe.Models[0], Host(resume),
                TestContext.Current.CancellationToken);
        FileLayer.Replace(disk);
        var e = Assert.Throws<HeadroomException>(() => Run(false));
        FileLayer.Replace(null);
        Assert.Equal(1, e.ExitCode);
        Assert.Contains("checkpoint-8", e.Message, StringComparison.Ordinal);
        Assert.Contains("No space left on device", e.Message, StringComparison.Ordinal);
        Assert.Contains($"The last good checkpoint is {last}: go on with --resume.", e.ToDo, StringComparison.Ordinal);
        Assert.Single(said, s =>
            s.StartsWith("WARNING: step 6: ", StringComparison.Ordinal)
            && s.Contains("checkpoint-6", StringComparison.Ordinal)
            && s.Contains("goes on without it", StringComparison.Ordinal)
        );
        var events = Events("full");
        Assert.Equal(6, (int)events.Single(x => (string?)x["event"] == "checkpoint_failed")["step"]!);
        Assert.Equal("failed", (string?)events[^1]["event"]);
        Assert.Equal(
            ["checkpoint-4"],
            Directory.GetFileSystemEntries(Path.Combine(folder, "checkpoints")).Select(Path.GetFileName)
        ); // 2 was deleted to make room
        Assert.True(Run(true).Completed);
    }

    public void Dispose()
    {
        FileLayer.Replace(null);
        _cli.Dispose();
    }
}
