using System.Text.Json;
using System.Text.Json.Serialization;

namespace Headroom.Core;

/// <summary>
/// Module names; or, as PEFT takes a string in their place, one pattern. JSON has an array or a string, so that a copy
/// and the hash tell the two apart.
/// </summary>
[JsonConverter(typeof(Json))]
public sealed class ModuleNames : List<string>
{
    /// <summary>The only entry is a regex for a whole path, or all-linear.</summary>
    public bool IsPattern { get; private init; }

    /// <summary>A pattern in the place of names.</summary>
    public static ModuleNames Parse(string pattern)
    {
        var names = new ModuleNames { IsPattern = true };
        names.Add(pattern);
        return names;
    }

    /// <summary>
    /// True for a path that the pattern matches whole, or that equals an entry or ends with "." + entry.
    /// </summary>
    /// <exception cref="HeadroomException">The pattern is no regular expression, or takes too long.</exception>
    public bool Match(string path) => IsPattern
        ? LoraConfig.Match(this[0], "^(?:", @")\z", path).Success
        : this.Any(e => path.EndsWith(e, StringComparison.Ordinal)
            && (path.Length == e.Length || path[path.Length - e.Length - 1] == '.'));

    private sealed class Json : JsonConverter<ModuleNames>
    {
        public override ModuleNames Read(ref Utf8JsonReader reader, Type type, JsonSerializerOptions options)
        {
            if (reader.TokenType == JsonTokenType.String) return Parse(reader.GetString()!);
            var names = new ModuleNames();
            names.AddRange(JsonSerializer.Deserialize<string[]>(ref reader, options)!);
            return names;
        }

        public override void Write(Utf8JsonWriter writer, ModuleNames value, JsonSerializerOptions options)
        {
            if (value.IsPattern) writer.WriteStringValue(value[0]);
            else JsonSerializer.Serialize(writer, value.ToArray(), options);
        }
    }
}
