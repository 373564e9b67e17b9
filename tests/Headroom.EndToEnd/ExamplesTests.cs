using System.Text.RegularExpressions;

namespace Headroom.EndToEnd;

/// <summary>
/// Every example that <c>--help</c> gives runs in a folder that holds what the repository holds, one after the other,
/// as a newcomer would try them.
/// </summary>
public partial class ExamplesTests(ITestOutputHelper output)
{
    // A training run, made short; what it leaves is what later examples name.
    private static readonly string[] Short =
    [
        "--set", "training.max_steps=4", "--set", "data.max_train_rows=64", "--set", "data.max_eval_rows=20", "--set",
        "data.max_test_rows=20"];

    [Fact]
    public void EveryExampleOfHelpRuns()
    {
        using var cli = new Cli();
        foreach (string folder in new[] { "recipes", "models" })
            CopyFolder(Path.Combine(AppContext.BaseDirectory, folder), Path.Combine(cli.Folder, folder));
        string[] examples = [.. Commands(cli, []).SelectMany(c => Examples(Help(cli, c)))];
        Assert.True(examples.Length >= 15, string.Join('\n', examples));
        // What others name is made first.
        foreach (
            string example in examples.OrderBy(e =>
                e.Contains(" data example ", StringComparison.Ordinal) ? 0
                : e.Contains(" train ", StringComparison.Ordinal) ? 1
                : 2)
        )
        {
            string[] words = [.. Words().Matches(example).Select(m => m.Value.Trim('"')).Skip(1)];
            if (words.Any(w => w.StartsWith("HuggingFaceTB/", StringComparison.Ordinal)))
            {
                output.WriteLine($"not run, it needs the hub: {example}");
                continue;
            }
            if (words[0] is "train" or "duel") words = [.. words, .. Short];
            var (exit, text, error) = cli.Run(words);
            output.WriteLine($"{exit}: {example}");
            Assert.True(exit == 0, $"{example}: exit {exit}\n{text}\n{error}");
        }
    }

    /// <summary>Every command says how it is used by an example.</summary>
    [Fact]
    public void EveryCommandHasAnExample()
    {
        using var cli = new Cli();
        Assert.All(Commands(cli, []), c => Assert.NotEmpty(Examples(Help(cli, c))));
    }

    private static IEnumerable<string[]> Commands(Cli cli, string[] above)
    {
        string help = Help(cli, above);
        int at = help.IndexOf("Commands:", StringComparison.Ordinal);
        if (at < 0) return [above];
        return Names()
            .Matches(help[at..])
            .Select(m => m.Groups[1].Value)
            .SelectMany(name => Commands(cli, [.. above, name]))
            .ToList();
    }

    private static string Help(Cli cli, string[] command)
    {
        var (exit, text, error) = cli.Run([.. command, "--help"]);
        Assert.True(exit == 0, error);
        return text;
    }

    private static IEnumerable<string> Examples(string help) =>
        Example().Matches(help).Select(m => m.Value.TrimEnd('.', ' '));

    internal static void CopyFolder(string from, string to)
    {
        foreach (string file in Directory.EnumerateFiles(from, "*", SearchOption.AllDirectories))
        {
            string target = Path.Combine(to, Path.GetRelativePath(from, file));
            Directory.CreateDirectory(Path.GetDirectoryName(target)!);
            File.Copy(file, target);
        }
    }

    // "Example: headroom ..." to the end of the line, or to the next one after a semicolon.
    [GeneratedRegex(@"(?<=(Example: |; ))headroom [^;\n]*")]
    private static partial Regex Example();

    [GeneratedRegex(@"^  ([a-z]+) ", RegexOptions.Multiline)]
    private static partial Regex Names();

    [GeneratedRegex("\"[^\"]*\"|[^ ]+")]
    private static partial Regex Words();
}
