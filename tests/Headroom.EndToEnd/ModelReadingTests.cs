using System.Text.Json.Nodes;
using Headroom.Core;
using Headroom.Cpu;
using Headroom.Cuda;
using Headroom.Formats.Safetensors;
using Headroom.Training.Recipes;
using Headroom.Training.Runs;

namespace Headroom.EndToEnd;

/// <summary>
/// What of a model is not understood, or is not as fast as it could be, comes to the user: refused with exit code 2,
/// shown, or said.
/// </summary>
public class ModelReadingTests
{
    private static string WithBias(Cli cli)
    {
        string folder = cli.CopyBase("llama-tiny"), path = Path.Combine(folder, "model.safetensors");
        var parts = new List<(string, string, long[], byte[])>();
        using (var file = SafetensorsFile.Open(path))
            parts.AddRange(file.Tensors.Select(t =>
                (t.Key, t.Value.DType, t.Value.Shape, file.Bytes(t.Key).ToArray())));
        parts.Add(("model.layers.0.self_attn.q_proj.bias", "F32", [192], new byte[768]));
        File.Delete(path);
        SafetensorsWriter.Write(path, parts);
        return folder;
    }

    [Fact]
    public void ATensorThatNobodyClaims()
    {
        using var cli = new Cli();
        string folder = WithBias(cli), recipe = cli.Recipe(folder), gguf = Path.Combine(cli.Folder, "x.gguf"),
            copy = Path.Combine(cli.Folder, "copy");
        foreach (string[] arguments in (string[][])
            [["generate", folder, "--prompt", "a", "--device", "cpu"], ["train", recipe], ["plan", recipe],
                ["eval", recipe], ["quantize", folder, copy, "--device", "cpu"], ["export", folder, "--out", gguf]])
        {
            var (exit, _, error) = cli.Run(arguments);
            Assert.True(exit == 2, $"{arguments[0]}: {error}");
            Assert.Contains("1 tensor of the checkpoint belongs to nothing in the model that its configuration "
                + "describes: model.layers.0.self_attn.q_proj.bias.", error);
        }
        Assert.False(File.Exists(gguf) || Directory.Exists(copy) || Directory.Exists(Path.Combine(cli.Folder, "runs")));
        var (shown, text, _) = cli.Run("inspect", folder, "--json");
        Assert.Equal(0, shown);
        Assert.Equal("model.layers.0.self_attn.q_proj.bias", (string?)JsonNode.Parse(text)!["unclaimed_tensors"]![0]);
    }

    [Fact]
    public void KeysOfTheConfiguration()
    {
        using var cli = new Cli();
        string folder = cli.CopyBase("llama-tiny"), path = Path.Combine(folder, "config.json"),
            text = File.ReadAllText(path);
        File.WriteAllText(path, text.Replace("\"vocab_size\"",
            "\"flavour\": [1, 2], \"attention_dropout\": 0.1, \"vocab_size\"", StringComparison.Ordinal));
        var (exit, shown, _) = cli.Run("inspect", folder);
        Assert.Equal(0, exit);
        Assert.Contains("flavour = [1,2]", shown);
        Assert.Contains("attention_dropout is 0.1", cli.Run("train", cli.Recipe(folder)).Out);
        File.WriteAllText(path, text.Replace("\"vocab_size\"", "\"logits_scaling\": 8.0, \"vocab_size\"",
            StringComparison.Ordinal));
        foreach (string[] arguments in (string[][])[["inspect", folder],
            ["generate", folder, "--prompt", "a", "--device", "cpu"]])
        {
            (exit, _, string error) = cli.Run(arguments);
            Assert.Equal(2, exit);
            Assert.Contains("logits_scaling", error);
            Assert.Contains("8.0", error);
        }
    }

    /// <summary>
    /// The rule of the flash kernels, and who says it: plan of a configuration, a prepared run, doctor.
    /// </summary>
    [Fact]
    public void PlainAttentionKernelsAreSaid()
    {
        foreach (int head in (int[])[16, 32, 64, 80, 96, 128, 192, 256])
            foreach (var type in (DType[])[DType.BF16, DType.F16, DType.F32])
                foreach (int capability in (int[])[75, 80, 89, 90, 120])
                {
                    bool flash = head is 64 or 128 && type != DType.F32 && capability >= 80;
                    Assert.Equal(flash, FlashKernels.Take(head, type, capability));
                    string? line = FlashKernels.Fallback(head, type, capability);
                    Assert.Equal(flash, line == null);
                    Assert.Contains(flash ? "" : type == DType.F32 ? "fp32" : capability < 80 ? "7.5"
                        : $"(head_dim) of {head}", line ?? "");
                }
        using var cli = new Cli();
        string config = Path.Combine(Cli.Base("llama-tiny"), "config.json");
        Assert.Contains("(head_dim) of 32", cli.Run("plan", config).Out);
        string other = Path.Combine(cli.Folder, "config.json");
        File.WriteAllText(other, File.ReadAllText(config)
            .Replace("\"head_dim\": 32", "\"head_dim\": 64", StringComparison.Ordinal));
        Assert.DoesNotContain("flash", cli.Run("plan", other).Out);
        Assert.Contains("flash kernels for heads of 64 and 128", cli.Run("doctor").Out);
    }

    /// <summary>A device with a slower way for some heads, and none for larger ones.</summary>
    private sealed class Slower(int largest) : IDevice, IDeviceLimits
    {
        private readonly CpuDevice _cpu = new(1);
        public string Name => "a slower card";
        public IOps Ops => _cpu.Ops;
        public long WorkspaceBytes => _cpu.WorkspaceBytes;
        public int LargestRank(int widest, DType compute) => int.MaxValue;
        public int LargestHead => largest;
        public string? AttentionNotice(int headDim, DType compute) => FlashKernels.Fallback(headDim, DType.F16, 90);
        public nint Reserve(long bytes, long later = 0) => _cpu.Reserve(bytes, later);
        public void Upload(ReadOnlySpan<byte> source, Tensor destination) => _cpu.Upload(source, destination);
        public void Download(Tensor source, Span<byte> destination) => _cpu.Download(source, destination);
        public void Dispose() => _cpu.Dispose();
    }

    [Fact]
    public void ARunSaysThatItsDeviceIsSlower()
    {
        using var cli = new Cli();
        var recipe = RecipeLoader.Load(cli.Recipe(Cli.Base("llama-tiny")));
        (recipe.Data.Train, recipe.Data.Test) = (Path.Combine(cli.Folder, "train.jsonl"),
            Path.Combine(cli.Folder, "test.jsonl"));
        using (var prepared = PreparedRun.Prepare(recipe, recipe.Models[0], () => new Slower(256), null, (_, _, _, _) =>
            { }))
        using (prepared.Device)
            Assert.Single(prepared.Notes, n => n.Contains("(head_dim) of 32", StringComparison.Ordinal));
        var said = new List<string>();
        var host = new RunHost(Path.Combine(cli.Folder, "runs", "slow"), false, () => new Slower(256), null, said.Add,
            (_, _, _, _) => { });
        Assert.True(TrainRun.Run(recipe, "", recipe.Models[0], host, TestContext.Current.CancellationToken).Completed);
        Assert.Contains(said, s => s.Contains("(head_dim) of 32", StringComparison.Ordinal));
        var e = Assert.Throws<HeadroomException>(() =>
            PreparedRun.Prepare(recipe, recipe.Models[0], () => new Slower(16), null, (_, _, _, _) => { }));
        Assert.Contains("heads of 32", e.Message);
    }
}
