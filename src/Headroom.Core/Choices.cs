using System.Text.Json;
using System.Text.Json.Serialization;

namespace Headroom.Core;

/// <summary>
/// Options that take one of several words are enums. Their words are the members' names in snake_case, the same in
/// YAML, in --set, in JSON, in the reference and in messages.
/// </summary>
internal static class Choices
{
    /// <summary>The words of an enum, in its order.</summary>
    public static IReadOnlyList<string> Words(Type type) =>
        [.. Enum.GetNames(type).Select(JsonNamingPolicy.SnakeCaseLower.ConvertName)];

    /// <summary>The word of a value.</summary>
    public static string Word(this Enum value) => JsonNamingPolicy.SnakeCaseLower.ConvertName(value.ToString());

    /// <summary>The value of a word.</summary>
    /// <param name="type">The enum.</param>
    /// <param name="key">The option, for the message.</param>
    /// <param name="word">What it is set to.</param>
    /// <exception cref="HeadroomException">It is none of the enum's words, which are named.</exception>
    public static object Parse(Type type, string key, string word)
    {
        var words = Words(type);
        int at = words.ToList().IndexOf(word);
        if (at < 0)
            throw new HeadroomException($"{key} '{HeadroomException.Value(word)}' is unknown.", $"Use {List(words)}.");
        return Enum.GetValues(type).GetValue(at)!;
    }

    /// <inheritdoc cref="Parse(Type, string, string)"/>
    public static T Parse<T>(string key, string word) where T : struct, Enum => (T)Parse(typeof(T), key, word);

    /// <summary>Words as a list: "a, b or c".</summary>
    internal static string List(IReadOnlyList<string> words) =>
        words.Count == 1 ? words[0] : string.Join(", ", words.SkipLast(1)) + " or " + words[^1];
}

/// <summary>An enum as its word in JSON.</summary>
internal sealed class SnakeCaseEnum<T>() : JsonStringEnumConverter<T>(JsonNamingPolicy.SnakeCaseLower, false)
    where T : struct, Enum;
