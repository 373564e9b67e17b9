using System.Text.Json.Nodes;
using Headroom.Training.Recipes;

namespace Headroom.Tests.Recipes;

/// <summary>The reference of recipes is what the options are; HEADROOM_WRITE_REFERENCE=1 writes it anew.</summary>
public class RecipeReferenceTests
{
    private static string Docs => Path.Combine(Shared.Checkout, "docs");

    [Theory]
    [InlineData("recipe.md")]
    [InlineData("recipe.schema.json")]
    public void IsWhatTheOptionsAre(string file)
    {
        string path = Path.Combine(Docs, file),
            text = file.EndsWith(".md", StringComparison.Ordinal)
                ? RecipeReference.Markdown()
                : RecipeReference.Schema();
        if (Environment.GetEnvironmentVariable("HEADROOM_WRITE_REFERENCE") == "1") File.WriteAllText(path, text);
        Assert.Equal(text, File.ReadAllText(path));
    }

    [Fact]
    public void HasEveryKeyWithItsMeaning()
    {
        string page = RecipeReference.Markdown();
        Assert.All(
            RecipeLoader.AllKeys.Where(k =>
                k is not ("models" or "quantization" or "lora" or "training" or "data" or "task" or "lora.loftq_config")
            ),
            key => Assert.Contains($"| `{key.Replace("models.", "models[].", StringComparison.Ordinal)}` |", page));
        Assert.DoesNotContain("|  | free", page); // no meaning
    }

    [Fact]
    public void TheSchemaTakesTheRecipesOfTheProject()
    {
        var schema = JsonNode.Parse(RecipeReference.Schema())!;
        foreach (string file in Directory.GetFiles(Path.Combine(Shared.Checkout, "recipes"), "*.yaml"))
        {
            var recipe = RecipeLoader.Load(file);
            foreach (string key in RecipeIdentity.Values(recipe).Keys)
            {
                var at = schema["properties"];
                foreach (string part in key.Split('.'))
                {
                    var node = at![part.Split('[')[0]];
                    Assert.True(node != null, $"{file}: {key}");
                    at = node["properties"] ?? node["items"]?["properties"];
                }
            }
        }
    }
}
