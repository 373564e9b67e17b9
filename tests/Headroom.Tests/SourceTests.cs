namespace Headroom.Tests;

/// <summary>The text of the sources: what no analyzer looks at.</summary>
public class SourceTests
{
    private const int Columns = 120, TableColumns = 140;

    // Texts are cut at blanks; what has none, such as a pattern or an expression within a text, stays whole.
    private static readonly string[] Literals = ["\"", "$\"", "@\"", "+ \"", "+ $\"", ": $\"", "? $\"", "return $\""];

    private static IEnumerable<string> Files => new[] { "src", "tests", "bench", "eng" }
        .Select(folder => Path.Combine(Path.GetDirectoryName(Shared.Sources)!, folder))
        .SelectMany(folder => Directory.EnumerateFiles(folder, "*.cs", SearchOption.AllDirectories))
        .Where(file => !file.Split(Path.DirectorySeparatorChar).Any(part => part is "obj" or "bin" or "node_modules"));

    /// <summary>120 columns; rows of a table (elements of a list, or the arguments of a case) may take 140.</summary>
    [Fact]
    public void LinesFit()
    {
        var raw = new List<string>();
        foreach (string file in Files)
        {
            bool inText = false; // a raw string is as its reader wants it
            int number = 0;
            foreach (string line in File.ReadLines(file))
            {
                number++;
                bool text = inText || line.Contains("\"\"\"", StringComparison.Ordinal);
                if (line.Split("\"\"\"").Length % 2 == 0) inText = !inText;
                string start = line.TrimStart();
                bool row = start.Length > 0 && (start[0] is '[' or '(' or '{' or '-' || char.IsAsciiDigit(start[0]));
                text |= Literals.Any(l => start.StartsWith(l, StringComparison.Ordinal));
                if (!text && line.Length > (row ? TableColumns : Columns)) raw.Add($"{file}:{number}: {line.Length} "
                    + $"columns");
            }
        }
        Assert.True(raw.Count == 0, string.Join('\n', raw.Take(20).Append($"{raw.Count} lines are too long")));
    }

    [Fact]
    public void NoTrailingBlanksAndNoTabs() => Assert.DoesNotContain(Files, f => File.ReadLines(f)
        .Any(l => l.Length > 0 && (l[^1] is ' ' or '\t' || l.Contains('\t', StringComparison.Ordinal))));
}
