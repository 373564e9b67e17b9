using System.Text.Json;

namespace Headroom.Formats;

/// <summary>What kind a JSON value is of, in words.</summary>
internal static class JsonKinds
{
    /// <summary>The kind with its article: "an array".</summary>
    public static string Named(JsonValueKind kind) => kind switch
    {
        JsonValueKind.Array => "an array",
        JsonValueKind.Object => "an object",
        JsonValueKind.String => "a string",
        JsonValueKind.Number => "a number",
        JsonValueKind.True or JsonValueKind.False => "true or false",
        _ => "null",
    };

    /// <summary>What is wrong with a file of ours that is read into a record, without .NET's names.</summary>
    public static string Fault(Exception e)
    {
        const string missing = "missing required properties including: ";
        string line = e.Message.Split('\n')[0];
        if (e is not JsonException { Path: var path }) return line;
        if (line.IndexOf(missing, StringComparison.Ordinal) is > 0 and var at)
            return $"it lacks {line[(at + missing.Length)..].TrimEnd('.')}";
        return path is ['$', '.', .. var key] ? $"{key} is of another kind" : line;
    }
}
