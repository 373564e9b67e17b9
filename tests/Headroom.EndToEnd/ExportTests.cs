using System.Text.Json.Nodes;

namespace Headroom.EndToEnd;

/// <summary>headroom export, as a user runs it.</summary>
public class ExportTests
{
    [Theory, InlineData("gguf", "q8_0", "tiny.gguf"), InlineData("safetensors", "bf16", "merged")]
    public void ExportedModelGoesOnLikeItsBase(string format, string type, string name)
    {
        using var cli = new Cli();
        string model = Cli.Base("llama-tiny"), path = Path.Combine(cli.Folder, name);
        var (exit, text, error) = cli.Run("export", model, "--format", format, "--type", type, "--out", path, "--json");
        Assert.True(exit == 0, error);
        var json = JsonNode.Parse(text)!;
        Assert.True((double)json["agreement"]! >= 0.95 && (int)json["positions"]! > 20);
        var (again, _, why) = cli.Run("generate", path, "--prompt", "The film was", "--max-new-tokens", "4", "--temperature", "0", "--device", "cpu", "--json");
        Assert.True(again == 0, why);
        Assert.Empty(Directory.GetFileSystemEntries(cli.Folder, ".*"));
    }

    [Fact]
    public void BadRequestsLeaveNothing()
    {
        using var cli = new Cli();
        string model = Cli.Base("llama-tiny");
        foreach (string[] arguments in new string[][]
        {
            ["export", model, "--format", "safetensors", "--type", "q8_0", "--out", Path.Combine(cli.Folder, "a")],
            ["export", Path.Combine(cli.Folder, "none"), "--out", Path.Combine(cli.Folder, "b.gguf")],
            ["export", model, "--adapter", model, "--out", Path.Combine(cli.Folder, "c.gguf")],
            ["export", model, "--format", "adapter", "--out", Path.Combine(cli.Folder, "d")],
        })
        {
            var (exit, _, error) = cli.Run(arguments);
            Assert.Equal(2, exit);
            Assert.StartsWith("error: ", error);
        }
        Assert.Empty(Directory.GetFileSystemEntries(cli.Folder));
    }
}
