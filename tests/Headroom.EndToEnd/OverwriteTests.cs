using System.Text.Json.Nodes;

namespace Headroom.EndToEnd;

/// <summary>What a user has is not replaced unasked, and never by half of something.</summary>
public class OverwriteTests
{
    private static void Refused(Cli cli, string word, params string[] arguments)
    {
        var (exit, _, error) = cli.Run(arguments);
        Assert.True(exit == 2, $"{string.Join(' ', arguments)}: {exit} {error}");
        Assert.StartsWith("error: ", error, StringComparison.Ordinal);
        Assert.Contains(word, error, StringComparison.Ordinal);
    }

    private static string Done(Cli cli, params string[] arguments)
    {
        var (exit, text, error) = cli.Run(arguments);
        Assert.True(exit == 0, error);
        return text;
    }

    [Fact]
    public void AnExportOntoItsOwnSource()
    {
        using var cli = new Cli();
        string path = Path.Combine(cli.Folder, "a.gguf"), link = Path.Combine(cli.Folder, "link.gguf");
        Done(cli, "export", Cli.Base("llama-tiny"), "--type", "f16", "--out", path);
        byte[] before = File.ReadAllBytes(path);
        File.CreateSymbolicLink(link, path);
        foreach (string spelling in (string[])["a.gguf", "./a.gguf", path, link])
            Refused(cli, "exists already", "export", path, "--out", spelling);
        Refused(cli, "--overwrite", "export", path, "--out", "a.gguf");
        // it would be gone
        Refused(cli, "is the model", "export", path, "--format", "vocab", "--out", "a.gguf", "--overwrite");
        Assert.Equal(before, File.ReadAllBytes(path));
        // A copy of itself in another type is a model again.
        Done(cli, "export", path, "--type", "q8_0", "--out", link, "--overwrite");
        Assert.True(new FileInfo(path).Length < before.Length);
        Assert.Equal(path, new FileInfo(link).LinkTarget);
        Done(cli, "generate", path, "--prompt", "The film was", "--max-new-tokens", "2", "--device", "cpu");
        Assert.Equal([path, link], Directory.GetFileSystemEntries(cli.Folder, "*.gguf").Order(StringComparer.Ordinal));
        Assert.Empty(Directory.GetFileSystemEntries(cli.Folder, ".*"));
    }

    [Fact]
    public void FoldersOfModels()
    {
        using var cli = new Cli();
        string model = Cli.Base("llama-tiny"),
            config = Path.Combine(cli.Folder, "m", "config.json"),
            mine = Path.Combine(cli.Folder, "m", "thesis.tex");
        Done(cli, "export", model, "--format", "safetensors", "--out", "m");
        string[][] commands =
        [
            ["export", model, "--format", "safetensors", "--type", "f32", "--out", "m"], ["quantize", model, "m"]];
        foreach (string[] command in commands) Refused(cli, "exists already", command);
        File.WriteAllText(mine, "mine");
        foreach (string[] command in commands) Refused(cli, "thesis.tex", [.. command, "--overwrite"]);
        Assert.Equal("mine", File.ReadAllText(mine));
        File.Delete(mine);
        Done(cli, [.. commands[0], "--overwrite"]);
        Assert.Equal("float32", (string?)JsonNode.Parse(File.ReadAllText(config))!["torch_dtype"]);
        Refused(cli, "is the model", "quantize", "m", "m", "--overwrite");
        Done(cli, [.. commands[1], "--overwrite"]);
        Assert.NotNull(JsonNode.Parse(File.ReadAllText(config))!["quantization_config"]);
        Assert.Equal(["m"], Directory.EnumerateFileSystemEntries(cli.Folder).Select(Path.GetFileName));
    }

    [Fact]
    public void DataSets()
    {
        using var cli = new Cli();
        string train = Path.Combine(cli.Folder, "r", "train.jsonl");
        Done(cli, "data", "reviews", "r", "--seed", "1");
        string first = File.ReadAllText(train);
        Refused(cli, "exists already", "data", "reviews", "r", "--seed", "2");
        Assert.Equal(first, File.ReadAllText(train));
        Done(cli, "data", "reviews", "r", "--seed", "2", "--overwrite");
        Assert.NotEqual(first, File.ReadAllText(train));
        File.WriteAllText(Path.Combine(cli.Folder, "r", "notes.md"), "mine");
        Refused(cli, "notes.md", "data", "reviews", "r", "--overwrite");
        Refused(cli, "exists already", "pretrain", "r", "--notes", "50");
        Assert.Equal(4, Directory.GetFileSystemEntries(Path.Combine(cli.Folder, "r")).Length);
    }

    /// <summary>What --out must be is said before a model is read.</summary>
    [Theory]
    [InlineData("gguf", "x.txt", ".gguf")]
    [InlineData("gguf", "x.gguf/", "folder")]
    [InlineData("safetensors", "x.safetensors", "folder")]
    [InlineData("adapter", "adapter_model.safetensors", "folder")]
    public void OddNames(string format, string name, string word)
    {
        using var cli = new Cli();
        Refused(cli, word, "export", Path.Combine(cli.Folder, "none"), "--format", format, "--out", name);
        Assert.Empty(Directory.GetFileSystemEntries(cli.Folder));
    }

    [Fact]
    public async Task TwoExportsToOnePlace()
    {
        using var cli = new Cli();
        string model = KillTests.Wide(cli, 30_016), path = Path.Combine(cli.Folder, "out", "x.gguf");
        string[] command = ["export", model, "--type", "f16", "--out", path];
        using var p = cli.Start(command);
        var (said, complained) = (p.StandardOutput.ReadToEndAsync(), p.StandardError.ReadToEndAsync());
        while (!p.HasExited && !Directory.Exists(Path.GetDirectoryName(path))) Thread.Sleep(1);
        Thread.Sleep(50);
        Refused(cli, $"in use by process {p.Id}", command);
        string all = await said + await complained;
        await p.WaitForExitAsync(TestContext.Current.CancellationToken);
        Assert.True(p.ExitCode == 0, all);
        Assert.Equal([path], Directory.GetFileSystemEntries(Path.GetDirectoryName(path)!));
    }

    [Fact]
    public void ClearingTheCacheNamesWhatGoesAndWhatStays()
    {
        using var cli = new Cli();
        Assert.Contains("nothing to delete", Done(cli, "cache", "--clear"), StringComparison.Ordinal);
        string mine = Path.Combine(cli.Folder, "cache", "quantized", "thesis", "thesis.tex");
        Directory.CreateDirectory(Path.GetDirectoryName(mine)!);
        File.WriteAllText(mine, "mine");
        var recipe = cli.Recipe(KillTests.Wide(cli, 1024));
        Done(cli, "train", recipe, "--set", "quantization.cache=true", "--set", "training.max_steps=1");
        string text = Done(cli, "cache", "--clear");
        Assert.Contains("deleted quantized/", text, StringComparison.Ordinal);
        Assert.Contains("deleted hashes/", text, StringComparison.Ordinal);
        Assert.Contains($"left {Path.GetDirectoryName(mine)}", text, StringComparison.Ordinal);
        Assert.Equal("mine", File.ReadAllText(mine));
    }
}
