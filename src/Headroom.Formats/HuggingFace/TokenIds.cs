using System.Text.Json;
using System.Text.Json.Nodes;

namespace Headroom.Formats.HuggingFace;

/// <summary>
/// Token ids as configurations hold them: bos_token_id, pad_token_id, and eos_token_id, which may be a list
/// (transformers <c>configuration_utils.py</c>). A null, or the -1 of early Llama conversions, is no id.
/// </summary>
internal static class TokenIds
{
    /// <summary>The id of a key; null where there is none.</summary>
    /// <exception cref="FormatException">The value is no id; the message names it.</exception>
    public static int? One(JsonObject json, string key) => json[key] is { } v ? Id(v, key, v) : null;

    /// <summary>The ids of a key that takes one or a list.</summary>
    /// <exception cref="FormatException">A value is no id; the message names it.</exception>
    public static int[] Many(JsonObject json, string key) => json[key] switch
    {
        null => [],
        JsonArray list => [.. list.Select(v => Id(v, key, list)).OfType<int>()],
        { } one => Id(one, key, one) is { } id ? [id] : [],
    };

    private static int? Id(JsonNode? v, string key, JsonNode whole)
    {
        // A null among ids is not the same as none: transformers fails on it when it generates (generation/utils.py,
        // _prepare_special_tokens).
        if (v is not JsonValue || v.GetValueKind() != JsonValueKind.Number) throw Bad(key, whole);
        double id = v.GetValue<double>(); // 2.0 is an id too
        return id == -1 ? null
            : id >= 0 && id <= int.MaxValue && id == Math.Floor(id) ? (int)id
            : throw Bad(key, whole);
    }

    private static FormatException Bad(string key, JsonNode whole) =>
        new(
            $"{key} is {JsonValues.Shown(whole)}, which holds something that is no "
                + $"token id"
        );
}
