using System.Text.RegularExpressions;

namespace Headroom.Tests;

/// <summary>What the sources say to users.</summary>
public partial class MessageTests
{
    private static readonly string[] Names = ["eval", "train"]; // of commands

    /// <summary>
    /// Both sentences of an error begin with a capital letter, but for names as they are written: of files, keys,
    /// options and commands. Those of keys and files have a dot or an underscore, so a word of letters alone is
    /// English.
    /// </summary>
    [Fact]
    public void SentencesBeginWithACapital()
    {
        int errors = 0;
        var wrong = new List<string>();
        foreach (string file in Directory.EnumerateFiles(Shared.Sources, "*.cs", SearchOption.AllDirectories))
        {
            string text = File.ReadAllText(file);
            foreach (Match error in Errors().Matches(text))
            {
                errors++;
                foreach (Match small in Small().Matches(error.Value))
                    if (!Names.Contains(small.Groups["word"].Value))
                        wrong.Add(
                            $"{Path.GetFileName(file)}: {small.Value} in {error.Value[..Math.Min(error.Length, 80)]}");
            }
        }
        Assert.True(errors > 200, $"only {errors} errors were found in the sources");
        Assert.Empty(wrong);
    }

    // To the end of the statement.
    [GeneratedRegex(@"\b(HeadroomException|Bad|BadRow|At)\(.*?;\r?\n", RegexOptions.Singleline)]
    private static partial Regex Errors();

    // The first argument of an exception, or one that follows a text.
    [GeneratedRegex(@"(HeadroomException\(|"",)\s*\$?""(?<word>[a-z]+) ")]
    private static partial Regex Small();
}
