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
}
