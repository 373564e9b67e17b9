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

    private const int MethodLines = 60;

    /// <summary>
    /// The body of a method has 60 lines at most, or above it stands a comment "Long: " with the reason.
    /// </summary>
    [Fact]
    public void MethodsAreShortOrSayWhyNot()
    {
        var src = Files.Select(f => f.Replace(Path.DirectorySeparatorChar, '/'))
            .Where(f => f.Contains("/src/", StringComparison.Ordinal));
        var found = src.SelectMany(LongMethods).ToList();
        Assert.True(found.Count == 0, string.Join('\n', found));
    }

    // Formatted text: a body is between braces on lines of their own, as deep as its declaration.
    private static IEnumerable<string> LongMethods(string file)
    {
        string[] lines = File.ReadAllLines(file);
        for (int open = 1; open < lines.Length; open++)
        {
            string depth = lines[open][..^lines[open].TrimStart().Length];
            if (lines[open].TrimStart() != "{" || depth.Length is not (4 or 8)) continue;
            int first = open - 1; // of the declaration
            while (first > 0 && (lines[first].StartsWith(depth + ' ', StringComparison.Ordinal)
                || lines[first].TrimStart().StartsWith(')')))
                first--;
            string declaration = lines[first].TrimStart();
            bool method = lines[first..open].Any(l => l.Contains('(', StringComparison.Ordinal))
                && declaration.Split(' ')[0] is "public" or "internal" or "private" or "protected" or "static"
                && !declaration.Contains(" class ", StringComparison.Ordinal)
                && !declaration.Contains(" record ", StringComparison.Ordinal)
                && !declaration.Contains(" struct ", StringComparison.Ordinal)
                && !declaration.Contains(" readonly ", StringComparison.Ordinal);
            int close = Array.FindIndex(lines, open, l => l.StartsWith(depth + '}', StringComparison.Ordinal));
            bool reason = lines[..first].Reverse()
                .TakeWhile(l => l.TrimStart() is ['/', '/', ..] or ['[', ..])
                .Any(l => l.Contains("// Long: ", StringComparison.Ordinal));
            int length = close - open - 1;
            if (method && length > MethodLines && !reason)
                yield return $"{file}:{first + 1}: {length} lines: {declaration}";
        }
    }
}
